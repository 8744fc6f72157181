"""What the log has about one process or group: its place, what was changed, and for which group. Knows no words:
`explain/process_page.py` has them.

A change of a session or cgroup is a change of every process in it, whichever one the decision named. Whether a change is in force
follows from the log alone: from its outcomes, from later decisions about the same knob, and from the daemon that made it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ...models.records import Class, Score
from ..config.sections import from_builtins
from ..decide.policies.policy import knob
from ..decision import Decision, Effect, Group, Member, Note, Outcome, Pool, Restore, Session, Set, Tick, Worker
from ..hands.faults import Status
from ..hands.places import Control
from ..places import process_of
from ..read.process import Seen
from ..store.decisions import DecisionReader, LoggedDecision, LoggedTick
from .decision_page import ExplainError
from .gathered import subject

LOOKED_AT = 1000
"""Decisions of the log that are searched for a process, the latest first (chosen): some hours of a machine that is never calm."""

GAPS = 8
"""Ticks to go back from the latest one to find a measured one (chosen)."""

TOOK = frozenset({Status.APPLIED, Status.PARTIAL, Status.OBSERVED, Status.UNCHANGED})
"""Outcomes after which a change is in force, or would be in act mode."""

NOTHING_DONE = frozenset({Status.REFUSED, Status.FAILED, Status.BLOCKED, Status.LATER})
"""Outcomes after which nothing has changed."""

ENDED = {
    Status.APPLIED: "restored by an undo",
    Status.UNCHANGED: "restored by an undo",
    Status.VANISHED: "the changed process or cgroup is gone",
    Status.FOREIGN: "somebody else changed it: left alone since",
    Status.RELIEVED: "restored at once: it starved, or another process waited for a lock that it holds",
}
"""Later outcomes that end a change. After other ones, which a failed undo gives, the change is still in force."""


# --- what was changed ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A logged decision, decoded."""

    logged: LoggedDecision
    decision: Decision
    outcomes: tuple[Outcome, ...]
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One changed knob, in one step or several."""

    steps: tuple[Step, ...]  # oldest first; none was restored before the next
    ended: str  # how it ended, "" while it is in force
    ended_wall: int | None  # ns; None: in force, or not in the log

    @property
    def last(self) -> Step:
        """The step whose value is, or was, in force."""
        return self.steps[-1]

    @property
    def action(self) -> Set:
        """What the last step set."""
        action = self.last.decision.action
        assert isinstance(action, Set)
        return action

    @property
    def since(self) -> int:
        """Wall time of the first step, ns."""
        return self.steps[0].logged.wall

    @property
    def victim(self) -> str:
        """The group that the change was made for; "" for a change for no other group, such as a quarantine."""
        return str(self.last.decision.why.figures.get("victim", ""))

    @property
    def contender(self) -> str:
        """The group that was demoted."""
        return str(self.last.decision.why.figures.get("contender", ""))

    @property
    def observed(self) -> bool:
        """Whether nothing was written, because nicety only observed."""
        return self.last.outcomes[0].status is Status.OBSERVED

    def concerns(self, victim: str) -> bool:
        """Whether any step was made for this group."""
        return any(step.decision.why.figures.get("victim") == victim for step in self.steps)


def changes(decisions: Iterable[LoggedDecision], living: Callable[[str], bool]) -> list[Change]:
    """The changes of kernel controls in these decisions, the latest first. `living`: whether a session belongs to the last daemon,
    whose changes may be in force: a daemon restores what an earlier one left."""
    done: list[Change] = []
    going: dict[str, Change] = {}
    for logged in sorted(decisions, key=lambda logged: logged.n):
        decision = logged.decision
        action, outcomes = decision.action, logged.outcomes
        if logged.refusal_json is not None or not isinstance(action, Set | Restore) or not outcomes:
            continue
        key = f"{living(logged.session)} {knob(action, decision.target)}"
        before = going.get(key)
        if isinstance(action, Restore):
            if before is not None and outcomes[-1].status not in NOTHING_DONE:
                done.append(Change(going.pop(key).steps, decision.why.text, logged.wall))
            continue
        step = Step(logged, decision, outcomes, logged.effects)
        end = next((_ended(later) for later in outcomes[1:] if later.status in ENDED), "")
        if outcomes[0].status not in TOOK:
            if before is not None and outcomes[0].status in ENDED:
                done.append(Change(going.pop(key).steps, _ended(outcomes[0]), logged.wall))
            continue
        change = Change((*(before.steps if before is not None else ()), step), end, None)
        going.pop(key, None)
        if end:
            done.append(change)
        else:
            going[key] = change
    for change in going.values():
        gone = "" if living(change.last.logged.session) else "its daemon ended, and the next one restored it"
        done.append(Change(change.steps, gone, None))
    return sorted(done, key=lambda change: -change.last.logged.n)


def _ended(outcome: Outcome) -> str:
    return ENDED[outcome.status] + (f": {outcome.detail}" if outcome.detail else "")


# --- a process ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is in a tick; None: not found there."""

    group: Group | None
    member: Member | None
    pool: Pool | None
    worker: Worker | None
    score: Score | None
    protected: bool

    @property
    def unknown(self) -> bool:
        """Whether nothing in the tick concerns it."""
        return self.group is None and self.pool is None and self.score is None and not self.protected


@dataclass(frozen=True, slots=True)
class Account:
    """Everything in the log about a process, or about a group or pool."""

    pid: int  # 0: of a group or pool
    seen: Seen | None  # the process with the pid now
    session: Session | None
    tick: Tick
    place: Place
    changes: tuple[Change, ...]  # of this process, its session and its cgroups, the latest first
    protection: tuple[Change, ...]  # of other groups, made for its group, the latest first
    decisions: tuple[LoggedDecision, ...]  # about it, the latest first
    notes: tuple[Note, ...] = ()  # what held at the tick
    called: str = ""  # name of the group or pool; "" for a process

    @property
    def name(self) -> str:
        """Of the group or pool, else the program that runs there now; "" if none does."""
        return self.called if self.seen is None else self.seen.identity.program

    def in_force(self) -> list[Change]:
        """Its changes that are in force."""
        return [change for change in self.changes if not change.ended]


def account(reader: DecisionReader, pid: int, seen: Seen | None, above: Sequence[Seen] = ()) -> Account:
    """Collect what the log has about a process. `above`: its ancestors, the nearest first.

    Raises ExplainError if the log has no tick at all, StoreError.
    """
    latest, tick, sessions = _measured(reader)
    session = sessions.get(latest.session)
    place = locate(pid, tick, seen, session, above)
    found = {it.n: it for it in reader.find(pid=pid, limit=LOOKED_AT) if _is_about(it, seen)}
    sid = seen.session if seen is not None else place.member.session if place.member is not None else 0
    cgroup = seen.identity.cgroup if seen is not None else place.member.cgroup if place.member is not None else "/"
    for target in (*([f"session {sid}"] if sid else ()), *(f"cgroup {path}" for path in _and_above(cgroup))):
        found |= {it.n: it for it in reader.find(target=target, limit=LOOKED_AT) if f" {it.target}".endswith(f" {target}")}
    for parent in above:  # fences that it inherited
        theirs = (it for it in reader.find(pid=parent.id.pid, limit=LOOKED_AT) if _is_about(it, parent))
        found |= {it.n: it for it in theirs if getattr(it.decision.action, "control", None) is Control.FENCE}
    decisions = sorted(found.values(), key=lambda it: -it.n)

    living = _living(sessions, session)
    own = changes(decisions, living)
    protection = list[Change]()
    if place.group is not None and place.group.class_ is Class.INTERACTIVE:
        protection = _protection(reader, place.group, living)
    return Account(pid, seen, session, tick, place, tuple(own), tuple(protection), tuple(decisions), _notes(latest))


def group_account(reader: DecisionReader, name: str) -> Account:
    """Collect what the log has about a group or a pool, by its name or, if only one has it, by the last words of its name.

    Raises ExplainError if there is none, StoreError.
    """
    latest, tick, sessions = _measured(reader)
    session = sessions.get(latest.session)
    known = [group.name for group in tick.groups] + [pool.name for pool in tick.pools]
    short = sorted({each for each in known if each.endswith(f" {name}")})
    name = short[0] if name not in known and len(short) == 1 else name
    found = [*reader.find(target=f"group {name}", limit=LOOKED_AT), *reader.find(target=f"pool {name}", limit=LOOKED_AT)]
    mine = {it.n: it for it in (*found, *reader.find(kind="priority", limit=LOOKED_AT)) if _concerns(it, name)}
    if name not in known and not mine:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f'did you mean "{(short or close)[0]}"' if short or close else "`nicety status` lists groups"
        raise ExplainError(f'no decision, group or pool is called "{name}" in {reader.path}; {hint}; `nicety decisions` lists them')
    group = next((group for group in tick.groups if group.name == name), None)
    pool = next((pool for pool in tick.pools if pool.name == name), None)
    decisions = sorted(mine.values(), key=lambda it: -it.n)
    living = _living(sessions, session)
    protection = [] if group is None else _protection(reader, group, living)
    place = Place(group, None, pool, None, None, protected=False)
    own = changes(decisions, living)
    return Account(0, None, session, tick, place, tuple(own), tuple(protection), tuple(decisions), _notes(latest), name)


def _concerns(logged: LoggedDecision, name: str) -> bool:
    """Whether a decision changes this group or pool, or a worker of it."""
    about = subject(logged.decision)
    return about in (f"group {name}", f"pool {name}") or about.startswith(f"pool {name} worker ")


def _measured(reader: DecisionReader) -> tuple[LoggedTick, Tick, dict[str, Session]]:
    """The latest measured tick, and all sessions. Raises ExplainError if there is none, StoreError."""
    latest = reader.latest()
    for _ in range(GAPS):  # a gap has no data, like the tick that a final undo is logged with
        if latest is None or latest.tick is None or not latest.tick.gap:
            break
        latest = reader.tick(latest.session, latest.seq - 1) or latest
    if latest is None or latest.tick is None:
        raise ExplainError(f"{reader.path} has no tick that can be read yet; `nicety run` adds some")
    return latest, latest.tick, {it.id: it.session for it in reader.sessions() if it.session is not None}


def _living(sessions: Mapping[str, Session], last: Session | None) -> Callable[[str], bool]:
    """Whether a session belongs to the last daemon, by its id."""

    def living(id_: str) -> bool:
        one = sessions.get(id_)
        return one is not None and last is not None and (one.own, one.boot_id) == (last.own, last.boot_id)

    return living


def _protection(reader: DecisionReader, group: Group, living: Callable[[str], bool]) -> list[Change]:
    """Changes of others that were made for a group."""
    everything = changes(reader.find(kind="priority", limit=LOOKED_AT), living)
    members, own = {member.id for member in group.members}, f"group {group.name}"

    def of_itself(change: Change) -> bool:  # its own slice is not a demotion of others
        return subject(change.last.decision) == own or process_of(change.action.on) in members

    return [change for change in everything if change.concerns(group.name) and not of_itself(change)]


def _notes(latest: LoggedTick) -> tuple[Note, ...]:
    return () if latest.verdict is None else latest.verdict.notes


def locate(pid: int, tick: Tick, seen: Seen | None = None, session: Session | None = None, above: Sequence[Seen] = ()) -> Place:
    """Find a process in a tick. Members of groups without a class are not logged: they are found by what runs there now."""
    same = [(g, m) for g in tick.groups for m in g.members if m.id.pid == pid and (seen is None or seen.id == m.id)]
    group, member = same[0] if same else (_group_of(seen, above, tick, session), None)
    pool, worker = next(((p, w) for p in tick.pools for w in p.workers if w.id.pid == pid), (None, None))
    score = min((score for score in tick.scores if score.id.pid == pid), key=lambda score: score.p, default=None)
    return Place(group, member, pool, worker, score, any(id_.pid == pid for id_ in tick.protected))


def _group_of(seen: Seen | None, above: Sequence[Seen], tick: Tick, session: Session | None) -> Group | None:
    """The group of a process by its family. Whether it listens is not checked, so no two groups may differ only in that."""
    if seen is None or session is None:
        return None
    try:
        config = from_builtins(session.config)
    except msgspec.ValidationError:
        return None  # of another version
    from ..observe.families import Families  # brings numpy, which pages of groups do without
    from ..observe.grouping import Grouping

    line = (seen, *above)
    identities = {it.id: it.identity for it in line}
    name = Families(Grouping(config)).step(
        tuple(identities), [it.parent for it in line], [it.session for it in line], identities, {}
    )[0]
    named = [group for group in tick.groups if group.name == name or group.name.startswith(f"{name} :")]
    return named[0] if len(named) == 1 else None


def _is_about(logged: LoggedDecision, seen: Seen | None) -> bool:
    """Whether it is about this process, not about an earlier one with the same pid."""
    action = logged.decision.action
    process = process_of(action.on) if isinstance(action, Set | Restore) else None
    return seen is None or process is None or process.pid != seen.id.pid or process == seen.id


def _and_above(cgroup: str) -> list[str]:
    """A cgroup and its ancestors, without the root.

    >>> _and_above("/a/b")
    ['/a/b', '/a']
    """
    parts = [name for name in cgroup.split("/") if name]
    return ["/" + "/".join(parts[: depth + 1]) for depth in reversed(range(len(parts)))]
