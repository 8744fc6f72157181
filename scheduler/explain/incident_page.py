"""Incidents in words, for a person on call: what, since when, how sure, compared with which workers, what to do
(`nicety anomalies`, `nicety why ID`). Reads only the decision log and the feedback.

An incident is logged as flags of the quarantine policy: one begins it, one may correct its kind, one ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...models.anomaly.waitgraph import UNLESS
from ..decide.policies.quarantine.words import WHAT, advice, rarity, stories
from ..decision import Decision, Digest, Feedback, Flag, Recycle, Restore, Session, Set
from ..printed import Part, Printed
from ..read.evidence import STATES, Evidence
from ..store.decisions import DecisionReader, LoggedDecision
from ..store.records import DecisionRecord, record_of
from ..words import figure, moment, size, span
from .decision_page import ExplainError, look_up
from .figure_words import in_words
from .gathered import describe
from .layout import indented, labelled, paragraph, part, printed, table

MOST_FLAGS = 2000
"""Flags of the log that are searched, the latest first (chosen)."""

PEAK_TICKS = 3600
"""Ticks of an incident that are searched for its highest score (chosen): an hour at 1 Hz, which takes half a second."""

LABEL = 10
"""Columns of the labels: the longest is "what to do"."""

WIDEST = 120
"""Most columns of a list of incidents (chosen): longer lines are hard to read."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident as the log has it."""

    first: LoggedDecision  # the flag that began it
    latest: LoggedDecision  # that one, or the one that corrected its kind: its why is the present state
    ended: LoggedDecision | None
    acts: tuple[LoggedDecision, ...]  # what was done about it, oldest first
    watched: bool  # whether the latest daemon reported it
    item: Feedback | None  # the feedback of a user who called it wrong

    @property
    def id(self) -> str:
        """The id of the flag that began it."""
        return self.first.id

    @property
    def decision(self) -> Decision:
        """The decision with the latest knowledge about it."""
        return self.latest.decision

    @property
    def flag(self) -> Flag:
        """The workers, and the kind of incident."""
        action = self.decision.action
        assert isinstance(action, Flag)
        return action

    @property
    def open(self) -> bool:
        """Whether it continues, as far as is known."""
        return self.ended is None and self.watched

    @property
    def since(self) -> int:
        """Wall time from which it existed, ns, by its own evidence."""
        return self.first.wall - round(float(self.first.decision.why.figures.get("onset_seconds", 0.0)) * 1e9)

    @property
    def pids(self) -> list[int]:
        """The processes of the incident."""
        return [id_.pid for id_ in (self.flag.worker, *self.flag.others)]

    @property
    def who(self) -> str:
        """The processes in words."""
        return f"{self.flag.pool} {'worker' if len(self.pids) == 1 else 'workers'} {', '.join(map(str, self.pids))}"

    @property
    def what(self) -> str:
        """What they do, in a few words."""
        together = self.decision.why.rule == "stuck together"
        what = "is stuck together" if together else WHAT.get(self.flag.kind, self.flag.kind)
        return what.replace("is ", "are ", 1) if len(self.pids) > 1 else what

    @property
    def ending(self) -> str:
        """How it ended; "" while it is open."""
        if self.ended is not None:
            return self.ended.decision.why.text.partition(" is over: ")[2].partition(". It was")[0] or "over"
        return "" if self.watched else "the daemon that reported it has ended"


def incidents(reader: DecisionReader, feedback: Iterable[Feedback], since: int | None = None) -> list[Incident]:
    """Incidents that were reported or open since then (wall ns), the latest first."""
    flags = reader.find(kind="flag", limit=MOST_FLAGS)
    taught = {item.id: item for item in feedback}
    living = _living(reader)
    begun, corrected, ended = dict[str, LoggedDecision](), dict[str, LoggedDecision](), dict[str, LoggedDecision]()
    for logged in flags:  # latest first
        action = logged.decision.action
        if logged.refusal_json is not None or not isinstance(action, Flag):
            continue
        if not action.incident:
            begun.setdefault(logged.id, logged)
        elif action.over:
            ended.setdefault(action.incident, logged)
        else:
            corrected.setdefault(action.incident, logged)
    found = []
    for id_, first in begun.items():
        end = ended.get(id_)
        incident = Incident(
            first=first,
            latest=corrected.get(id_, first),
            ended=end,
            acts=_acts(reader, first, end),
            watched=first.session in living,
            item=taught.get(id_),
        )
        if since is None or incident.open or max(first.wall, 0 if end is None else end.wall) >= since:
            found.append(incident)
    return found


def find(reader: DecisionReader, feedback: Iterable[Feedback], id_: str) -> Incident:
    """The incident that a decision with this id began, corrected or ended. Raises ExplainError."""
    logged, _, _ = look_up(reader, id_)
    action = logged.decision.action
    if not isinstance(action, Flag):
        raise ExplainError(f"{id_} is not an incident but: {logged.target}: {describe(action)}; `nicety anomalies` lists incidents")
    begun = action.incident or id_
    for incident in incidents(reader, feedback):
        if incident.id == begun:
            return incident
    raise ExplainError(f"the log no longer has the start of the incident of {id_}; `nicety anomalies` lists those that it has")


def peak(reader: DecisionReader, incident: Incident, latest: int) -> float:
    """Its highest score; for a deadlock, the seconds that it lasted. `latest`: wall ns of the last tick of the log."""
    figures = incident.decision.why.figures
    if incident.flag.kind == "deadlock":
        end = incident.ended.wall if incident.ended is not None else max(latest, incident.first.wall)
        return float(figures.get("onset_seconds", 0.0)) + (end - incident.latest.wall) / 1e9
    first = incident.first.seq
    last = first + PEAK_TICKS
    if incident.ended is not None and incident.ended.session == incident.first.session:
        last = min(last, incident.ended.seq)
    seen = (
        score.value
        for score in reader.scores(incident.first.session, first, last)
        if score.id == incident.flag.worker and score.kind == incident.flag.kind
    )
    return max((float(figures.get("score", 0.0)), *seen))


def _living(reader: DecisionReader) -> set[str]:
    """Sessions of the last daemon: a reload begins another session of the same daemon, which keeps its memory."""
    known = [it for it in reader.sessions() if it.session is not None]
    if not known or known[-1].session is None:
        return set()
    last = known[-1].session
    return {it.id for it in known if it.session is not None and (it.session.own, it.session.boot_id) == (last.own, last.boot_id)}


def _acts(reader: DecisionReader, first: LoggedDecision, end: LoggedDecision | None) -> tuple[LoggedDecision, ...]:
    """What the policy did to the same target during the incident, and what the guard refused."""
    until = None if end is None else end.wall + 1
    found = reader.find(kind="quarantine", target=first.target, since=first.wall, until=until, newest_first=False, limit=100)
    return tuple(it for it in found if it.target == first.target and isinstance(it.decision.action, Set | Restore | Recycle))


# --- the list -------------------------------------------------------------------------------------------------------------------


def list_page(
    found: Sequence[Incident], digests: Sequence[LoggedDecision], feedback: Sequence[Feedback], now: int, width: int | None
) -> str:
    """Open incidents with all that is needed to act, a line for each one that is over, and the feedback."""
    width = None if width is None else min(width, WIDEST)
    going, past = [it for it in found if it.open], [it for it in found if not it.open]
    lines = [f"{len(going)} open, {len(past)} over"]
    for incident in going:
        lines += ["", *_headline(incident, now, width)]
        lines += labelled([*_brief(incident), ("all of it", f"nicety why {incident.id}")], width, LABEL, indent=2)
    if past:
        rows = [(moment(it.first.wall), it.id, f"{it.who} {it.what}", f"{_called_wrong(it)}{it.ending}") for it in past]
        lines += ["", *table(("reported", "id", "what", "how it ended"), rows, width, whole=(0, 1))]
    for digest in digests:
        lines += ["", *paragraph(f"{moment(digest.wall)}: {digest.decision.why.text}", width)]
    if feedback:
        lines += ["", "Called wrong: similar incidents must be stronger to be reported (nicety anomalies wrong --undo ID)"]
        said = [(it.id, it.pool, it.kind, figure(it.value), moment(it.wall)) for it in feedback]
        lines += table(("id", "pool", "kind", "highest score", "said"), said, width, whole=(0, 4))
    return printed(lines)


def _headline(incident: Incident, now: int, width: int | None, end: str = "") -> list[str]:
    lasted = span(max(0.0, (now - incident.since) / 1e9))
    return paragraph(f"{incident.who} {incident.what}, since {moment(incident.since, day=False)} ({lasted}){end}", width)


def _brief(incident: Incident) -> list[tuple[str, str]]:
    """Label and text: what a person needs first."""
    figures, kind = incident.decision.why.figures, incident.flag.kind
    doing, compared = stories(kind, evidence_of(figures))
    rows = [("what", doing)] if doing else []
    rows += [("", str(figures[name])) for name in sorted(figures) if name.startswith("wait_")]
    if rows and not rows[0][0]:
        rows[0] = ("what", rows[0][1])
    if "neighbour" in figures:
        rows.append(("neighbour", _neighbour(figures)))
    if "siblings" in figures:
        rows.append(("compared", "; ".join(filter(None, (compared, _siblings(figures))))))
    rows.append(("how sure", _how_sure(figures)))
    done = _done(incident)
    rows.append(("done", done))
    first, *more = advice(kind, incident.pids[0], incident.flag.pool, incident.id)
    rows += [("what to do", first), *(("", text) for text in more)]
    return rows


def evidence_of(figures: Mapping[str, float | int | str]) -> dict[str, float]:
    """The evidence among the figures of a why."""
    mark = "evidence_"
    return {name.removeprefix(mark): float(value) for name, value in figures.items() if name.startswith(mark)}


def _neighbour(figures: Mapping[str, Any]) -> str:
    text = f"{figures['neighbour']}: {figures['neighbour_cores']:.2f} cores on the CPUs where it waits, nice "
    text += f"{figures['neighbour_nice']} against its {figures['worker_nice']}"
    if figures.get("neighbour_cgroup") != figures.get("worker_cgroup"):
        text += f", cgroup {figures['neighbour_cgroup']} beside its {figures['worker_cgroup']}"
    return text


def _siblings(figures: Mapping[str, Any]) -> str:
    many = int(figures["siblings"])
    if many == 0:
        return "it has no siblings, so it is compared with its own past only"
    return f"{figures['unusual_siblings']} of its {many} sibling{'s' if many > 1 else ''} looked like this at the same time"


def _how_sure(figures: Mapping[str, Any]) -> str:
    p = figures.get("p")
    if p is None and any(UNLESS in str(figures[name]) for name in figures if name.startswith("wait_")):
        return (
            "the kernel shows which processes hold and wait, but not which of their threads. It is not a deadlock if a thread that "
            "keeps waking frees what its process holds; so far none did"
        )
    if p is None:
        return "certain, unless one of them stops waiting: the kernel shows which process waits for which"
    text = f"{rarity(float(p))} healthy worker-minutes look like this"
    line = figures.get("alpha")
    text += f"; reported from {rarity(float(line))} (quarantine.false_alarms_per_day)" if line is not None else ""
    before = figures.get("taken_before")
    return text + (f"; first reported as {before}" if before else "") + (f"; by {figures['source']}" if "source" in figures else "")


def _done(incident: Incident) -> str:
    """What nicety did about it, in words."""
    if not incident.acts:
        rejected = incident.decision.why.rejected
        return f"nothing: not {rejected[0]}" if rejected else 'nothing: reported only (quarantine.action = "flag")'
    return "; ".join(
        f"{moment(it.wall, day=False)} {describe(it.decision.action)}: {it.status}" + _refused(it) for it in incident.acts
    )


def _refused(logged: LoggedDecision) -> str:
    return "" if logged.refusal is None else f" ({logged.refusal.text})"


def _called_wrong(incident: Incident) -> str:
    return "called wrong; " if incident.item is not None else ""


# --- one ----------------------------------------------------------------------------------------------------------------------


def incident_page(
    incident: Incident, looks: Sequence[Evidence], session: Session | None, now: int, width: int | None = None
) -> str:
    """Everything about one incident: what is wrong, why it is reported and what was done about it in a sentence each, then the
    evidence. `width`: of the terminal."""
    figures = incident.decision.why.figures
    state = "open" if incident.open else f"over: {incident.ending}"
    mode = "" if session is None else f", {session.mode} mode"
    lines = [
        *_headline(incident, now if incident.open else (incident.ended or incident.latest).wall, width, "."),
        *paragraph(f"Why: {incident.decision.why.text}", width),
        *paragraph(f"Done about it: {_done(incident)}.", width),
        "",
        *indented([f"incident {incident.id}, reported {moment(incident.first.wall)}, {state}{mode}"], width),
    ]
    if incident.item is not None:
        lines += indented([f"called wrong on {moment(incident.item.wall)}: nicety anomalies wrong --undo {incident.id}"], width)
    rows = [row for row in _brief(incident) if row[0] != "done"]
    lines += ["", *labelled(rows, width, LABEL, indent=2)]
    for look in looks:
        lines += part(f"Process {look.id.pid} when it was reported, before anything was done", snapshot_lines(look), width)
    if not looks:
        lines += part("Snapshot", ["none: the process was gone, or nicety may not read it"], width)
    lines += part("Figures", labelled(in_words(figures), None if width is None else width - 2))
    lines += part(
        "Would have flipped it", [text.replace(" ID", f" {incident.id}") for text in incident.decision.why.flips], width=width
    )
    return printed(lines)


def snapshot_lines(look: Evidence) -> list[str]:
    """A snapshot in words."""
    where = f" in {look.wchan}" if look.wchan else ""
    lines = [f"{look.program}: {STATES.get(look.state, look.state)}{where}; {look.cpu_seconds:.1f} s of CPU so far"]
    if look.syscall:
        lines.append(f"system call: {look.syscall}")
    if look.stack:
        lines.append(f"kernel stack: {' < '.join(name.partition('+')[0] for name in look.stack)}")
    threads = ", ".join(f"{many} {state}" for state, many in look.thread_states)
    lines.append(f"threads: {look.threads}" + (f" ({threads})" if look.threads > 1 and threads else ""))
    if look.descriptors is not None:
        kinds = ", ".join(f"{many} {kind}" for kind, many in look.descriptor_kinds)
        limit = f" of at most {look.descriptor_limit}" if look.descriptor_limit is not None else ""
        lines.append(f"descriptors: {look.descriptors}{limit}: {kinds}")
        lines.append(f"most of them: {', '.join(f'{many} {name}' for name, many in look.descriptor_targets)}")
    if look.memory:
        lines.append(f"memory: {', '.join(f'{size(value)} {name}' for name, value in look.memory)}")
    if look.mappings:
        lines.append(f"largest address ranges: {', '.join(f'{size(value)} {name}' for name, value in look.mappings)}")
    if look.children:
        lines.append(f"children: {', '.join(f'{pid} {name} ({state})' for pid, name, state in look.children)}")
    return lines


# --- for programs -------------------------------------------------------------------------------------------------------------


class IncidentRecord(Part, frozen=True, kw_only=True):
    """Workers that misbehave, from the first flag until it is over."""

    id: str  # of the decision that reported it
    pool: str
    pids: list[int]  # the worker, and those that it waits with in a circle
    kind: str  # leak, spin, stuck, ...
    what: str  # what they do, in a few words
    doing: str  # the figures, in words
    compared: str  # with whom, in words
    text: str  # a sentence
    since: int  # ns since 1970, from which it existed by its own evidence
    reported: int  # ns since 1970
    open: bool  # it continues, as far as is known
    ended: int | None  # ns since 1970; None: it has no end in the log
    ending: str  # how it ended; "" while it is open
    p: float | int | str | None  # share of healthy workers that score as high; None: not known
    figures: dict[str, float | int | str]  # units in the name where not obvious
    done: list[DecisionRecord]  # what was done about it, the oldest first
    advice: list[str]  # what to do, a sentence each
    called_wrong: bool  # a user called it a false alarm
    evidence: list[Evidence]  # snapshots of the process, only of `nicety why`


class Incidents(Printed, frozen=True, kw_only=True):
    """The incidents of a time, and all open ones. Exit 3 if one is open."""

    incidents: list[IncidentRecord]


def as_record(incident: Incident, looks: Sequence[Evidence] = ()) -> IncidentRecord:
    """For --json."""
    figures = incident.decision.why.figures
    doing, compared = stories(incident.flag.kind, evidence_of(figures))
    return IncidentRecord(
        id=incident.id,
        pool=incident.flag.pool,
        pids=incident.pids,
        kind=incident.flag.kind,
        what=incident.what,
        doing=doing,
        compared=compared,
        text=incident.decision.why.text,
        since=incident.since,
        reported=incident.first.wall,
        open=incident.open,
        ended=None if incident.ended is None else incident.ended.wall,
        ending=incident.ending,
        p=figures.get("p"),
        figures=dict(figures),
        done=[record_of(it) for it in incident.acts],
        advice=list(advice(incident.flag.kind, incident.pids[0], incident.flag.pool, incident.id)),
        called_wrong=incident.item is not None,
        evidence=list(looks),
    )


def digests(reader: DecisionReader, since: int | None) -> list[LoggedDecision]:
    """Lines that sum up the incidents beyond the budget, oldest first."""
    found = reader.find(kind="digest", since=since, newest_first=False, limit=24)
    return [it for it in found if isinstance(it.decision.action, Digest) and it.refusal_json is None]
