"""The page of a process: what it is, what was done to it, for which group, and what restores it (`nicety why PID`). Words only.

Its first ten lines answer that; the rest is the evidence. Knows the log only through `explain/account.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ...models.records import Behaviour, Class
from ..config.sections import Config, from_builtins
from ..decide.policies.priority.contention import BUSY
from ..decide.policies.priority.supply import WAIT_FLOOR, helpers, lacks
from ..decide.policies.quarantine.words import WHAT
from ..decide.tenants import Tenants
from ..decision import Delay, Flag, Group, Set, Tick
from ..hands.fences import Limits, limits_in_words
from ..hands.places import Control, cpu_list
from ..observe.rivals import touches
from ..places import cgroup_of, process_of
from ..words import figure, moment, size, span
from .account import Account, Change, Place
from .class_words import behaves, class_of, evidence, percent
from .decision_page import decision_row, score_lines
from .delay_words import delay_in_words
from .gathered import describe
from .layout import GAP, labelled, paragraph, part, printed, table

Rows = list[tuple[str, str | tuple[str, ...]]]
"""Labels and texts. If there are several texts, only those that fit on a line of a terminal are shown: the page has all of them
below."""

BRIEF = frozenset({"given back", "why", "why this one"})
"""Rows whose full text is below on the page: on a terminal they take two lines at most."""

SHOWN = 10
"""Most decisions listed on a page (chosen)."""

OF_POOLS = frozenset({"objective", "starts"})
"""First words of the topics of notes on sizes of pools, which are no reasons to leave a process alone."""

LABEL = 13
"""Columns of the labels: the longest is "was protected"."""


def process_page(about: Account, width: int | None = None) -> str:
    """Everything about one process. The first ten lines answer what a person asks: what it is, what was done to it, for which
    group, what that changed, and what restores it. `width`: of the terminal."""
    demotion, others = _demotion(about)
    favours = [change for change in about.protection if not change.ended]
    class_ = about.place.group is not None and about.place.group.class_ is Class.INTERACTIVE
    if demotion is not None:
        title, rows = _demoted(about, demotion)
    elif class_:
        title, rows = _protected(about, favours)
    else:
        title, rows = _left_alone(about)
    incident = _incident(about)
    if incident is not None:
        reported = f"reported: it {WHAT.get(incident.kind, incident.kind)}"
        title, rows = (
            (reported, [row for row in rows if row[0] != "why"]) if title == "left alone" else (f"{reported}; {title}", rows)
        )
    lines = [*paragraph(f"process {about.pid} ({about.name or 'not running any more'}): {title}", width), *_rows(rows, width)]
    if incident is not None:
        more = f"everything about it, with a snapshot and what to do: nicety why {incident.id}"
        lines += part("Incident", [incident.text, more], width)
    delays = _delays(about)
    if delays:
        lines += part("Who delays it", [f"{delay.group} {delay_in_words(delay)}" for delay in delays], width)
    if demotion is not None:
        why = demotion.last.decision.why
        lines += part("Why this and nothing else", why.rejected or ["nothing else was considered"], width)
        lines += part("What gives it back", _giving_back(demotion), width)
    if others:
        also = [f"{_mechanism(change.action, about)}, {_since(about, change)}" for change in others]
        lines += part("Also in force", also, width)
    if favours and demotion is None:
        lines += part("What gives it back", _giving_back(favours[0]), width)
    if about.place.group is not None and about.place.group.behaviour is not None:
        lines += part("What the class rests on", _basis(about.place.group.behaviour), width)
    lines += part("As of", [_as_of(about)], width)
    facts = _facts(about.place)
    if facts:
        lines += part("As a worker", facts, width)
    if about.place.score is not None:
        lines += part("Score", score_lines(about.place.score), width)
    if about.decisions:
        shown = [decision_row([logged], day=True)[:4] for logged in about.decisions[:SHOWN]]
        title = f"Decisions about it, latest first{' (the latest 10)' if len(about.decisions) > SHOWN else ''}; nicety why ID"
        lines += part(title, table(("time", "id", "what", "outcome"), shown, None if width is None else width - 2))
    if incident is None and (demotion is None or demotion.ended) and not favours and not others:
        lines += part("Why nothing is done", reasons(about), width)
    return printed(lines)


@dataclass(frozen=True, slots=True)
class _Incident:
    """An open incident of the process."""

    id: str
    kind: str
    text: str


def _incident(about: Account) -> _Incident | None:
    """The latest incident of the process that is still open."""
    over, reported = set[str](), dict[str, _Incident]()
    for logged in about.decisions:  # the latest first
        action = logged.decision.action
        if not isinstance(action, Flag) or logged.refusal_json is not None:
            continue
        id_ = action.incident or logged.id
        if action.over:
            over.add(id_)
        elif id_ not in over and about.session is not None and logged.session == about.session.id:
            reported.setdefault(id_, _Incident(id_, action.kind, logged.decision.why.text))
    return next(iter(reported.values()), None)


def _demotion(about: Account) -> tuple[Change | None, list[Change]]:
    """The change that the page is about, and the others in force. The first is the latest change in force, preferably one with a
    victim; if none is in force, the last one that ended."""
    group = "" if about.place.group is None else about.place.group.name
    mine = [  # not those made for its own group, nor placements, which lower no priority
        change
        for change in about.changes
        if not (change.victim and change.victim == group) and change.last.decision.policy != "placement"
    ]
    force = [change for change in about.in_force() if change in mine]
    shown = next(iter(sorted(force, key=lambda change: change.victim == "")), None)
    if shown is None and not (about.place.group is not None and about.place.group.class_ is Class.INTERACTIVE):
        shown = next((change for change in mine if change.victim), None)
    return shown, [change for change in about.in_force() if change is not shown]


def _demoted(about: Account, change: Change) -> tuple[str, Rows]:
    """Title and first rows for a process that was demoted."""
    why, cause = change.last.decision.why, f" for {change.victim}" if change.victim else f" by {change.last.decision.policy}"
    word = "fenced in" if change.action.control is Control.FENCE else "demoted"
    if change.ended:
        until = "" if change.ended_wall is None else f" until {moment(change.ended_wall, day=False)}"
        title = f"not {word} now; it was{cause} from {moment(change.since, day=False)}{until}"
    elif change.observed:
        title = f"would be {word}{cause} (observe mode), {_since(about, change)}"
    else:
        title = f"{word}{cause}, {_since(about, change)}"
    rows = _who(about)
    if change.victim:
        rows.append(("protects", _wait(about, change)))
    if change.ended:
        rows.append(("ended", change.ended))
    rows.append(("by what", _mechanism(change.action, about) + _steps(change)))
    if not change.ended:
        rows.append(("given back", _brief(_giving_back(change))))
    if why.rejected:
        rows.append(("why this one", _brief(why.rejected)))
    rows.append(("decision", f"{change.last.logged.id}: {why.rule}: {why.text}"))
    return title, rows


def _protected(about: Account, favours: Sequence[Change]) -> tuple[str, Rows]:
    """Title and first rows for a process of an interactive group."""
    group = about.place.group
    assert group is not None
    rows = _who(about)
    now = f"waits {_share(_wait_share(group))} of its demand for a CPU now"
    if favours:
        first = min(favours, key=lambda change: change.since)
        names = sorted({change.contender or "a contender" for change in favours})
        seems = "would be protected" if favours[0].observed else "protected"
        title = f"{seems} from {_listed(names)}, {_since(about, first)}"
        rows.append(("its wait", _wait(about, first, subject=False)))
        means: dict[str, list[str]] = {}
        for change in favours:
            text = f"{change.contender or change.last.decision.target}: {_mechanism(change.action, None)}{_steps(change)}"
            means.setdefault(text, []).append(change.last.logged.id)
        for text, ids in list(means.items())[:2]:
            rows.append(("by what", f"{text} ({ids[0]}{f' and {len(ids) - 1} more' if len(ids) > 1 else ''})"))
        if len(means) > 2:
            rows.append(("", f"and {len(means) - 2} more; `nicety decisions --kind priority` lists them"))
    else:
        title = "interactive, and nothing is demoted for it now"
        rows.append(("its wait", now))
        past = next(iter(about.protection), None)
        if past is not None:
            until = "" if past.ended_wall is None else f" until {moment(past.ended_wall, day=False)}"
            text = f"from {past.contender or past.last.decision.target}, {moment(past.since, day=False)}{until}: {past.ended}"
            rows.append(("was protected", text))
    itself = [_mechanism(change.action, about) for change in about.in_force() if change.victim == group.name]
    rows.append(("about itself", _listed(itself) if itself else "nothing is changed"))
    if favours:
        rows.append(("given back", _brief(_giving_back(favours[0]))))
    return title, rows


def _left_alone(about: Account) -> tuple[str, Rows]:
    return "left alone", [("why", _brief(reasons(about))), *_who(about)]


def _who(about: Account) -> Rows:
    """What a process is, and the class of its group."""
    group, member = about.place.group, about.place.member
    if group is None:
        return [("what it is", "not in a group of the latest tick, which lists groups with a class, pools, and the busiest groups")]
    many = f"one of {group.processes} of" if group.processes > 1 else "all of"
    nice = "" if member is None else f"; nice {member.nice}, session {member.session}, cgroup {member.cgroup}"
    rows: Rows = [("what it is", f"{many} group {group.name}: uses {group.cpu:.2f} cores, waits for {group.wait:.2f}{nice}")]
    rows.append(("class", class_of(group, about.session)))
    if group.behaviour is not None and evidence(group.behaviour)[0]:
        rows.append(("because", tuple(evidence(group.behaviour)[0])))
    return rows


def _delays(about: Account) -> list[Delay]:
    """The delay of the process's group at the tick, if it waits noticeably."""
    group = about.place.group
    return [delay for delay in about.tick.delays if group is not None and delay.group == group.name]


def _basis(behaviour: Behaviour) -> list[str]:
    speaks, against = evidence(behaviour)
    chances = f"interactive {percent(behaviour.p_interactive)}, batch {percent(behaviour.p_batch)}, by {behaviour.source}"
    return [chances, *speaks, *(f"against it: {text}" for text in against)]


def _wait(about: Account, change: Change, subject: bool = True) -> str:
    """The victim's wait before the change, after it, and now."""
    figures = change.steps[0].decision.why.figures
    said = []
    before = figures.get("victim_wait_before")
    if isinstance(before, int | float):
        said.append(f"waited {_share(before)} of its demand for a CPU before")
    effects = [effect for step in change.steps for effect in step.effects]
    if effects:
        last = effects[-1]
        said.append(f"{_share(last.after)} {last.ticks} ticks later ({last.verdict})")
    elif not change.observed:
        said.append("not measured yet after it")
    victim = next((group for group in about.tick.groups if group.name == change.victim), None)
    if victim is not None and not change.ended:
        said.append(f"{_share(_wait_share(victim))} now")
    target = change.last.decision.why.figures.get("wait_target")
    desired = f"; wanted: at most {_share(target)}" if isinstance(target, int | float) else ""
    return (f"{change.victim}: " if subject else "") + ", ".join(said) + desired


def _wait_share(group: Group) -> float:
    wanted = group.cpu + group.wait
    return group.wait / wanted if wanted > 0 else 0.0


def _share(share: float) -> str:
    """A share of a wait. A wait may be many times the demand.

    >>> _share(0.312), _share(0.004), _share(0)
    ('31 %', '0.4 %', '0 %')
    """
    return f"{figure(float(f'{share * 100:.2g}'))} %"


def _mechanism(action: Set, about: Account | None) -> str:
    """What was set and what that means. `about`: the process of the page."""
    value = action.value
    inside = "" if about is None else ", which it is in"
    match action.control:
        case Control.AUTOGROUP:
            session = "its session" if about is not None else "a session"
            if about is not None and about.seen is not None:
                session += f" {about.seen.session}"
            return f"nice {value} of {session} as a whole (autogroup)"
        case Control.NICE:
            return f"nice {value} of every thread"
        case Control.POLICY:
            return f"{describe(action)} of every thread"
        case Control.AFFINITY:
            return f"only CPUs {cpu_list(value if isinstance(value, tuple) else (value,))}"
        case Control.SLICE:
            return f"{describe(action)} of every thread before it is asked to yield"
        case Control.CPU_IDLE:
            return f"cgroup {cgroup_of(action.on)}{inside}, runs only when nothing else wants the CPU (cpu.idle {value})"
        case Control.CPU_SHARES:
            return f"{value} shares instead of 1024 for cgroup {cgroup_of(action.on)}{inside}"
        case Control.FENCE:
            process = process_of(action.on)
            whose = "" if process is None else f" of process {process.pid} and its descendants"
            limits = limits_in_words(Limits(*value)) if isinstance(value, tuple) else ""
            return f"a cgroup{whose}: {limits}"
        case Control.CPU_WEIGHT:
            return f"weight {value} instead of 100 for cgroup {cgroup_of(action.on)}{inside}"
        case _:
            return describe(action)


def _steps(change: Change) -> str:
    """By how many steps the change is eased, and how often it was set, in words; "" if neither."""
    level = change.last.decision.why.figures.get("level")
    many = len(change.steps)
    return (f"; eased by {figure(level)}" if level else "") + (f"; set {many} times since then" if many > 1 else "")


def _giving_back(change: Change) -> list[str]:
    """What would end a change: what its rule gives, and what always ends one."""
    said = [flip.removeprefix("it is given back ") for flip in change.last.decision.why.flips]
    return [*said, "`nicety undo`, the end of the daemon, or a value set by hand, which is then left alone"]


def _since(about: Account, change: Change) -> str:
    how, seconds = "desired" if change.observed else "in force", max(0.0, (about.tick.wall - change.since) / 1e9)
    return f"{how} since {moment(change.since, day=False)} ({span(seconds)})"


def _as_of(about: Account) -> str:
    mode = "" if about.session is None else f", {about.session.mode} mode"
    return f"tick {about.tick.seq}, {moment(about.tick.wall)}{mode}"


def _rows(rows: Rows, width: int | None) -> list[str]:
    """Label and text, the text folded in its own column."""
    room = None if width is None else width - LABEL - GAP - 2
    shown = []
    for label, text in rows:
        text = text if isinstance(text, str) else _fitting(text, room)
        if room is not None and label in BRIEF and len(folded := paragraph(text, room)) > 2:
            text = f"{folded[0]} {paragraph(folded[1], room - 2)[0]} …"
        shown.append((label, text))
    return labelled(shown, width, LABEL, indent=2)


def _fitting(texts: Sequence[str], room: int | None) -> str:
    """As many of these as fit on a line, at least one."""
    line = texts[0]
    for text in texts[1:]:
        if room is not None and len(line) + len(text) + 2 > room:
            break
        line += f", {text}"
    return line


def _brief(lines: Sequence[str]) -> str:
    """The first line; the page has the others below."""
    return lines[0] if lines else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _facts(place: Place) -> list[str]:
    if place.pool is None or place.worker is None:
        return []
    pool, worker = place.pool, place.worker
    busy = "" if worker.busy is None else f", busy {percent(worker.busy)} of the time"
    return [
        f"worker of pool {pool.name} ({pool.size} workers), {'ready' if worker.ready else 'starting'}{busy}",
        f"uses {worker.cpu:.2f} cores, waits for {worker.wait:.2f}, {size(worker.rss)} resident",
    ]


def reasons(about: Account) -> list[str]:
    """What keeps nicety from changing a process, the strongest reason first."""
    said = []
    place, tick, session = about.place, about.tick, about.session
    group = place.group
    if place.protected:
        said.append("it is protected: nicety never touches itself, its ancestors, pid 1, pool masters and guard.protect")
    if tick.paused:
        said.append("nicety is paused; `nicety resume` ends it")
    if group is None and place.pool is None:
        said.append(
            'its group uses too little to be listed; a [groups.NAME] section with class = "interactive" or "batch" pins a class'
        )
    elif group is not None and group.class_ is Class.EXEMPT and place.pool is None:
        said.append(f"its class: {class_of(group, session)}; class in a [groups.NAME] section pins one")
    if group is not None and group.class_ is Class.BATCH:
        said += _not_demoted(about, group)
    if group is not None and group.class_ is Class.INTERACTIVE:
        said.append("it is protected from batch groups; nothing is changed about itself")
    if place.score is not None:
        said.append(f"as a worker it is not unusual enough to report: p = {place.score.p:.2g} ({place.score.kind})")
    if place.pool is not None and place.pool.trouble:
        said.append(f"its pool cannot be resized now: {place.pool.trouble}")
    return said or ["nothing gave a reason to change it"]


def _not_demoted(about: Account, group: Group) -> list[str]:
    """Why a batch group is not demoted: which group waits now, and what speaks against helping it."""
    machine = about.tick.machine
    waiting = [each for each in about.tick.groups if each.class_ is Class.INTERACTIVE]
    if not waiting:
        return ["there is no interactive group to protect from it"]
    config = Config() if about.session is None else from_builtins(about.session.config)
    tenants = Tenants(config)
    theirs = [each for each in waiting if not tenants.may(each, group)]
    if len(theirs) == len(waiting):
        named = sorted({tenants.whose(each) for each in theirs})
        return [f"it belongs to {tenants.whose(group)}, and all that may wait to {_listed(named)}; [tenants] keeps them apart"]
    worst = max(waiting, key=lambda each: (_wait_share(each), each.name))
    least = config.priority.wait
    waits = f"{worst.name} waits {_share(_wait_share(worst))} of its demand for a CPU"
    if worst.wait <= WAIT_FLOOR or _wait_share(worst) <= least:
        said = [f"no interactive group waits for long: {waits}, more than any other; contention begins above {_share(least)}"]
    else:
        other = f"it belongs to {tenants.whose(group)}, {worst.name} to {tenants.whose(worst)}; [tenants] keeps them apart"
        apart = [other] if worst in theirs else []
        noted = (note.text for note in about.notes if note.topic.partition(" ")[0] not in OF_POOLS)
        against = [*apart, *noted, *_refused(about), *_no_use(about.tick, group, worst)]
        waits += f" now ({worst.wait:.2f} cores)"
        if not against:
            last = "no control that nicety may change separates them, or it had no effect"
            against = [f"{last}; `nicety decisions --kind priority` lists what was decided"]
        said = [f"{waits}, and it is left alone: {against[0]}", *against[1:]]
    if not machine.may_renice:
        said.insert(0, "priorities cannot be restored without CAP_SYS_NICE, so none is changed; see `nicety doctor`")
    left = sorted(touches(machine.rivals))
    if left:
        said.append(f"left to {_listed(machine.rivals)} while it runs: {_listed(left)}; see `nicety doctor`")
    return said


def _refused(about: Account) -> list[str]:
    """The guard's refusal of the latest decision about the process, if it refused it."""
    refusal = about.decisions[0].refusal if about.decisions else None
    return [] if refusal is None else [f"the guard refused: {refusal.rule}: {refusal.text}"]


def _no_use(tick: Tick, group: Group, worst: Group) -> list[str]:
    """Why demoting a group would not help the group that waits, from the figures of the tick alone."""
    machine = tick.machine
    if machine.busy < BUSY * machine.cpus:
        return [f"{machine.busy:.2f} of {machine.cpus} CPUs are in use, so these waits are wake-ups, not contention"]
    lacking = lacks(worst, machine.cpus)
    able, _ = helpers({each.name: each.cpu for each in tick.groups if each.class_ is Class.BATCH}, lacking)
    if group.name not in able:
        return [f"there is nothing to gain: it uses {group.cpu:.2f} cores, and {worst.name} lacks {lacking:.2f}"]
    return []


# --- for programs -------------------------------------------------------------------------------------------------------------


def as_record(about: Account) -> dict[str, Any]:
    """For --json."""
    group = about.place.group
    return {
        "pid": about.pid,
        "name": about.name,
        "seq": about.tick.seq,
        **msgspec.to_builtins(about.place),
        "class": "" if group is None else class_of(group, about.session),
        "evidence": [] if group is None or group.behaviour is None else [behaves(*it[:2]) for it in group.behaviour.evidence],
        "delays": [msgspec.structs.asdict(delay) for delay in _delays(about)],
        "changes": [_record(change) for change in about.changes],
        "protection": [_record(change) for change in about.protection],
        "reasons": reasons(about),
        "decisions": [it.to_builtins() for it in about.decisions[:SHOWN]],
    }


def _record(change: Change) -> dict[str, Any]:
    figures = change.steps[0].decision.why.figures
    effects = [effect for step in change.steps for effect in step.effects]
    return {
        "decision": change.last.logged.id,
        "target": change.last.decision.target,
        "action": msgspec.to_builtins(change.action),
        "victim": change.victim,
        "contender": change.contender,
        "victim_wait_before": figures.get("victim_wait_before"),
        "victim_wait_after": effects[-1].after if effects else None,
        "verdict": effects[-1].verdict if effects else "",
        "rejected": list(change.last.decision.why.rejected),
        "given_back_by": _giving_back(change),
        "since": change.since,
        "in_force": not change.ended,
        "observed": change.observed,
        "ended": change.ended,
        "ended_wall": change.ended_wall,
    }
