"""The page of a process or a group: what was done to it, why and what came of it in a sentence each; then what it is, for which
group, and what restores it (`nicety why PID`, `nicety why GROUP`); then the evidence. Words only.

Knows the log only through `explain/account.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...models.records import Behaviour, Class, Score
from ..config.sections import Config, from_builtins
from ..decide.policies.priority.contention import BUSY
from ..decide.policies.priority.supply import WAIT_FLOOR, helpers, lacks
from ..decide.policies.quarantine.words import WHAT
from ..decide.tenants import Tenants
from ..decision import Delay, Flag, Group, Member, Pool, ResizePool, Set, Tick, Worker
from ..hands.places import Control
from ..observe.rivals import touches
from ..printed import Part, Printed
from ..store.decisions import LoggedDecision
from ..store.records import DecisionRecord, DelayRecord, delay_record, record_of
from ..words import figure, moment, size, span
from .account import Account, Change, Place
from .class_words import behaves, class_of, evidence, percent
from .decision_page import decision_row, gathered, score_lines
from .delay_words import delay_in_words
from .gathered import plural
from .layout import GAP, labelled, paragraph, part, printed, table
from .sentences import came, setting, verdict_in_words, what

Rows = list[tuple[str, str | tuple[str, ...]]]
"""Labels and texts. If there are several texts, only those that fit on a line of a terminal are shown: the page has all of them
below."""

BRIEF = frozenset({"given back", "why this one"})
"""Rows whose full text is below on the page: on a terminal they take two lines at most."""

SHOWN = 10
"""Most decisions listed on a page (chosen)."""

MEMBERS = 20
"""Most pids listed on the page of a group (chosen)."""

LEFT_ALONE = "left alone"

GOES_ON = "As far as is known it still does."
"""What came of an incident about which nothing was done."""

OF_POOLS = frozenset({"objective", "starts"})
"""First words of the topics of notes on sizes of pools, which are no reasons to leave a process alone."""

LABEL = 13
"""Columns of the labels: the longest is "was protected"."""


def process_page(about: Account, width: int | None = None) -> str:
    """Everything about one process, or about one group. `width`: of the terminal."""
    demotion, others = _demotion(about)
    favours = [change for change in about.protection if not change.ended]
    opening = _opening(about, demotion, favours)
    incident = _incident(about)
    if incident is not None and about.pid:
        reported = f"reported: it {WHAT.get(incident.kind, incident.kind)}"
        alone = opening.title == LEFT_ALONE
        opening = replace(opening, title=reported if alone else f"{reported}; {opening.title}", why=incident.text)
        opening = replace(opening, came=GOES_ON) if alone else opening
    sentences = (f"{_called(about)}: {opening.title}.", f"Why: {opening.why}", opening.came)
    lines = [line for sentence in sentences for line in paragraph(sentence, width)]
    lines += ["", *_rows(opening.rows, width)]
    if incident is not None:
        more = f"everything about it, with a snapshot and what to do: nicety why {incident.id}"
        lines += part("Incident", [more] if about.pid else [incident.text, more], width)
    delays = _delays(about)
    if delays:
        lines += part("Who delays it", [f"{delay.group} {delay_in_words(delay)}" for delay in delays], width)
    if demotion is not None:
        why = demotion.last.decision.why
        lines += part("Why this and nothing else", why.rejected or ["nothing else was considered"], width)
        lines += part("What gives it back", _giving_back(demotion), width)
    if others:
        lines += part("Also in force", _together(about, others), width)
    if favours and demotion is None:
        lines += part("What gives it back", _giving_back(favours[0]), width)
    if about.place.group is not None and about.place.group.behaviour is not None:
        lines += part("What the class rests on", _basis(about.place.group.behaviour), width)
    lines += part("As of", [_as_of(about)], width)
    facts = _facts(about.place)
    if facts:
        lines += part("As a worker" if about.place.worker is not None else "As a pool", facts, width)
    if about.place.score is not None:
        lines += part("Score", score_lines(about.place.score), width)
    if about.pid == 0 and about.place.group is not None and about.place.group.members:
        lines += part("Processes; nicety why PID", [_pids(about.place.group)], width)
    if about.decisions:
        shown = [decision_row(alike, day=True)[:4] for alike in gathered(about.decisions)[:SHOWN]]
        title = f"Decisions about it, latest first{' (the latest 10)' if len(about.decisions) > SHOWN else ''}; nicety why ID"
        headers = ("time", "id", "what", "outcome")
        lines += part(title, table(headers, shown, None if width is None else width - 2, whole=(0, 1)))
    if incident is None and (demotion is None or demotion.ended) and not favours and not others:
        lines += part("Why nothing is done", reasons(about), width)
    return printed(lines)


def _called(about: Account) -> str:
    if about.pid:
        return f"process {about.pid} ({about.name or 'not running any more'})"
    return f"{'group' if about.place.pool is None else 'pool'} {about.name}"


def _pids(group: Group) -> str:
    more = group.processes - len(group.members[:MEMBERS])
    shown = ", ".join(str(member.id.pid) for member in group.members[:MEMBERS])
    return f"{shown} and {more} more" if more > 0 else shown


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


@dataclass(frozen=True, slots=True)
class _Opening:
    """How a page begins."""

    title: str  # what was done
    why: str
    came: str  # what came of it
    rows: Rows


def _opening(about: Account, demotion: Change | None, favours: Sequence[Change]) -> _Opening:
    group = about.place.group
    if demotion is not None:
        return _demoted(about, demotion)
    resized = next((it for it in about.decisions if isinstance(it.decision.action, ResizePool) and it.refusal is None), None)
    if about.pid == 0 and about.place.pool is not None and resized is not None and not favours:
        return _resized(about, about.place.pool, resized)
    if group is not None and group.class_ is Class.INTERACTIVE:
        return _protected(about, group, favours)
    return _left_alone(about)


def _resized(about: Account, pool: Pool, logged: LoggedDecision) -> _Opening:
    """Of a pool whose size was changed."""
    ago = span(max(0.0, (about.tick.wall - logged.wall) / 1e9))
    did = what(logged.decision, None, logged.outcomes).removesuffix(".")
    rows: Rows = [("decision", logged.id), *_who(about)]
    title = f"{pool.size} workers, {pool.requested} asked for; {ago} ago {did}"
    return _Opening(title, logged.decision.why.text, came(logged.decision, None, logged.outcomes, logged.effects), rows)


def _demoted(about: Account, change: Change) -> _Opening:
    """Of a process that was demoted."""
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
    rows.append(("by what", _setting(change.action, about) + _steps(change)))
    if not change.ended:
        rows.append(("given back", _brief(_giving_back(change))))
    if why.rejected:
        rows.append(("why this one", _brief(why.rejected)))
    rows.append(("decision", f"{change.last.logged.id}, rule {why.rule}"))
    return _Opening(title, why.text, _came(change), rows)


def _came(change: Change) -> str:
    """What came of a change: the latest that was measured, and its end."""
    effects = [effect for step in change.steps for effect in step.effects]
    if change.ended:
        measured = f"{verdict_in_words(effects[-1])}; " if effects else ""
        said = f"{measured}it is over now: {change.ended.removesuffix('.')}."
        return f"{said[0].upper()}{said[1:]}"
    return came(change.last.decision, None, change.last.outcomes, effects)


def _protected(about: Account, group: Group, favours: Sequence[Change]) -> _Opening:
    """Of a process of an interactive group."""
    rows = _who(about)
    now = f"waits {_share(_wait_share(group))} of its demand for a CPU now"
    if favours:
        first = min(favours, key=lambda change: change.since)
        names = sorted({change.contender or "a contender" for change in favours})
        seems = "would be protected" if favours[0].observed else "protected"
        title = f"{seems} from {_listed(names)}, {_since(about, first)}"
        why, result = first.last.decision.why.text, _came(first)
        rows.append(("its wait", _wait(about, first, subject=False)))
        means: dict[str, list[str]] = {}
        for change in favours:
            text = f"{change.contender or change.last.decision.target}: {setting(change.action)}{_steps(change)}"
            means.setdefault(text, []).append(change.last.logged.id)
        for text, ids in list(means.items())[:2]:
            rows.append(("by what", f"{text} ({ids[0]}{f' and {len(ids) - 1} more' if len(ids) > 1 else ''})"))
        if len(means) > 2:
            rows.append(("", f"and {len(means) - 2} more; `nicety decisions --kind priority` lists them"))
    else:
        title = "interactive, and nothing is demoted for it now"
        why, result = _nothing_for(about, group), "So nothing came of it."
        rows.append(("its wait", now))
        past = next(iter(about.protection), None)
        if past is not None:
            until = "" if past.ended_wall is None else f" until {moment(past.ended_wall, day=False)}"
            text = f"from {past.contender or past.last.decision.target}, {moment(past.since, day=False)}{until}: {past.ended}"
            rows.append(("was protected", text))
            result = f"The last time that something was is over: {past.ended.removesuffix('.')}."
    itself = _together(about, [change for change in about.in_force() if change.victim == group.name])
    rows.append(("about itself", _listed(itself) if itself else "nothing is changed"))
    if favours:
        rows.append(("given back", _brief(_giving_back(favours[0]))))
    return _Opening(title, why, result, rows)


def _nothing_for(about: Account, group: Group) -> str:
    """Why nothing is demoted for an interactive group."""
    waits, least = _wait_share(group), _config(about).priority.wait
    said = f"it waits {_share(waits)} of its demand for a CPU"
    return (
        f"{said}; contention begins above {_share(least)}." if waits <= least else f"{said}, and nothing that may be demoted helps."
    )


def _left_alone(about: Account) -> _Opening:
    return _Opening(
        LEFT_ALONE, f"{_brief(reasons(about)).removesuffix('.')}.", "So it runs as it would without nicety.", _who(about)
    )


def _config(about: Account) -> Config:
    """The configuration of the session of the tick; the defaults if the log has none."""
    return Config() if about.session is None else from_builtins(about.session.config)


def _who(about: Account) -> Rows:
    """What a process is, and the class of its group."""
    group, member = about.place.group, about.place.member
    if group is None:
        return [("what it is", "not in a group of the latest tick, which lists groups with a class, pools, and the busiest groups")]
    many = f"one of {group.processes} of group {group.name}" if group.processes > 1 else f"all of group {group.name}"
    if about.pid == 0:
        many = plural(group.processes, "process")
    nice = "" if member is None else f"; nice {member.nice}, session {member.session}, cgroup {member.cgroup}"
    rows: Rows = [("what it is", f"{many}: uses {group.cpu:.2f} cores, waits for {group.wait:.2f}{nice}")]
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


def _setting(action: Set, about: Account) -> str:
    """What was set, as told about the process or the group of the page."""
    if about.pid == 0:
        return setting(action)
    session = "its session" if about.seen is None else f"its session {about.seen.session}"
    return setting(action, session, ", which it is in")


def _together(about: Account, changes: Sequence[Change]) -> list[str]:
    """Changes in force; equal ones of several processes, as on the page of a group, are one."""
    found: dict[str, list[Change]] = {}
    for change in changes:
        found.setdefault(_setting(change.action, about), []).append(change)
    said = []
    for text, alike in found.items():
        many = f" ({len(alike)} times)" if len(alike) > 1 else ""
        said.append(f"{text}{many}, {_since(about, min(alike, key=lambda change: change.since))}")
    return said


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
    if place.pool is None:
        return []
    pool, worker = place.pool, place.worker
    if worker is None:
        load = "load unknown" if pool.load is None else f"load {pool.load:.2f} Erlangs"
        return [f"{plural(pool.size, 'worker')}, {pool.requested} asked for, {pool.minimum} to {pool.maximum} allowed; {load}"]
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
    config = _config(about)
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


class ChangeRecord(Part, frozen=True, kw_only=True):
    """A change that was made to a process, its session or its cgroup, or that nicety would make."""

    decision: str  # id of the last step
    target: str
    action: Set  # of the last step
    victim: str  # the group that it was made for; "": none
    contender: str  # the group that was demoted
    victim_wait_before: float | int | str | None  # cores; None: not known
    victim_wait_after: float | None  # cores, some ticks later; None: not measured
    verdict: str  # helped, no effect, hurt, ...; "": not measured
    rejected: list[str]  # what else was considered, and why not
    given_back_by: list[str]  # what ends it, in words
    since: int  # ns since 1970
    in_force: bool
    observed: bool  # nothing was written, because nicety only observed
    ended: str  # how it ended; "" while it is in force
    ended_wall: int | None  # ns since 1970; None: in force, or not in the log


class WhyProcess(Printed, frozen=True, kw_only=True):
    """What the log has about a process, a group or a pool."""

    about: Literal["process", "group"]  # group: of a group or pool
    pid: int | None  # None: of a group or pool
    name: str
    seq: int  # the tick in which its place was found
    group: Group | None  # None: not found in that tick, as in the next four
    member: Member | None
    pool: Pool | None
    worker: Worker | None
    score: Score | None
    protected: bool  # it is never touched
    class_: str  # in words, with how sure that is; "": not known
    evidence: list[str]  # signs for the class, in words
    delays: list[DelayRecord]  # why its group waits; []: it hardly does
    changes: list[ChangeRecord]  # of this process, its session and its cgroups, the latest first
    protection: list[ChangeRecord]  # of other groups, made for its group
    reasons: list[str]  # why nothing is done, a sentence each
    decisions: list[DecisionRecord]  # about it, the latest first


def as_record(about: Account) -> WhyProcess:
    """For --json."""
    place, group = about.place, about.place.group
    return WhyProcess(
        about="process" if about.pid else "group",
        pid=about.pid or None,
        name=about.name,
        seq=about.tick.seq,
        group=group,
        member=place.member,
        pool=place.pool,
        worker=place.worker,
        score=place.score,
        protected=place.protected,
        class_="" if group is None else class_of(group, about.session),
        evidence=[] if group is None or group.behaviour is None else [behaves(*it[:2]) for it in group.behaviour.evidence],
        delays=[delay_record(delay) for delay in _delays(about)],
        changes=[_record(change) for change in about.changes],
        protection=[_record(change) for change in about.protection],
        reasons=reasons(about),
        decisions=[record_of(it) for it in about.decisions[:SHOWN]],
    )


def _record(change: Change) -> ChangeRecord:
    figures = change.steps[0].decision.why.figures
    effects = [effect for step in change.steps for effect in step.effects]
    return ChangeRecord(
        decision=change.last.logged.id,
        target=change.last.decision.target,
        action=change.action,
        victim=change.victim,
        contender=change.contender,
        victim_wait_before=figures.get("victim_wait_before"),
        victim_wait_after=effects[-1].after if effects else None,
        verdict=effects[-1].verdict if effects else "",
        rejected=list(change.last.decision.why.rejected),
        given_back_by=_giving_back(change),
        since=change.since,
        in_force=not change.ended,
        observed=change.observed,
        ended=change.ended,
        ended_wall=change.ended_wall,
    )
