"""Finds threads and processes that inherited a value that we changed: fork(2) and clone(2) copy it. Knows the ledger and the
kernel; changes neither.

Must not know decisions. `docs/decisions/0003-ledger-and-undo.md` has the rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import takewhile

from ...models.identity import ProcId
from ...models.lean import NamedTuple
from .changes import Chain, Entry, original
from .faults import UNKNOWN, Status, Trouble
from .kernel import Kernel, Kin, Reach
from .ledger import Ledger
from .places import Control, Knob, Subject, ThreadPlace, Value, leads

PASSES = 8
"""Most rescans of a process for threads that appeared meanwhile (chosen): `docs/decisions/0003-ledger-and-undo.md`."""


class Family:
    """One scan of the processes, to find which may have inherited from which."""

    def __init__(self, kin: Collection[Kin]) -> None:
        self._by_pid = {each.id.pid: each for each in kin}
        self._children: dict[int, list[Kin]] = defaultdict(list)
        self._orphans_by_session: dict[int, list[Kin]] = defaultdict(list)
        self._orphans_by_group: dict[int, list[Kin]] = defaultdict(list)
        for each in kin:
            self._children[each.parent].append(each)
            if self._orphaned(each):
                self._orphans_by_session[each.session].append(each)
                self._orphans_by_group[each.group].append(each)

    def of(self, process: ProcId | None) -> Kin | None:
        """The entry of this process in the scan; None if it no longer exists."""
        found = None if process is None else self._by_pid.get(process.pid)
        return found if found is not None and found.id == process else None

    def heirs(self, process: ProcId, chain: Chain) -> tuple[ProcId, ...]:
        """Processes that may have inherited from `process`. All of them started since the first change in `chain`. They descend
        from `process` through such processes; or they have lost their parent and are still in the session or process group that
        `process` was in; or they descend from such orphans."""
        since, sessions, groups = self._then(process, chain)
        found: dict[ProcId, None] = {}
        parent = self.of(process)
        stack = [each for number in sessions for each in self._orphans_by_session.get(number or 0, ())]
        stack += [each for number in groups for each in self._orphans_by_group.get(number or 0, ())]
        stack = [each for each in stack if each.id != process]
        if parent is not None:
            stack.extend(self._children.get(parent.id.pid, ()))
        while stack:
            each = stack.pop()
            if each.id.start_ticks >= since and each.id not in found:
                found[each.id] = None
                stack.extend(self._children.get(each.id.pid, ()))
        return tuple(sorted(found))

    def is_heir(self, heir: ProcId, process: ProcId, chain: Chain) -> bool:
        """Whether `heirs` of this process has this one."""
        since, sessions, groups = self._then(process, chain)
        each, there = self.of(heir), self.of(process) is not None
        for _ in range(len(self._by_pid)):
            if each is None or each.id.start_ticks < since:
                break
            if there and each.parent == process.pid:
                return True
            if each.id != process and self._orphaned(each) and (each.session in sessions or each.group in groups):
                return True
            each = self._by_pid.get(each.parent)
        return False

    def _then(self, process: ProcId, chain: Chain) -> tuple[int, set[int | None], set[int | None]]:
        """When the first change in `chain` was made; and the sessions and groups that `process` was in then and later."""
        since = min(entry.since for entry in chain)
        sessions = {entry.session for entry in chain if self._is_of_then(entry.session, process, since)}
        groups = {entry.group for entry in chain if self._is_of_then(entry.group, process, since)}
        return since, sessions, groups

    def _is_of_then(self, number: int | None, process: ProcId, since: int) -> bool:
        """Whether a session or process group with this number can still be the one that `process` was in. The number is the pid of
        its leader, and is not reused while it has members. So a leader that started since then has made another one. 0, of another
        pid namespace, never matches."""
        leader = self._by_pid.get(number or 0)
        return bool(number) and (leader is None or leader.id == process or leader.id.start_ticks < since)

    def _orphaned(self, each: Kin) -> bool:
        """Whether init (pid 1) or a subreaper (in another session) has adopted it. If its parent lives in the same session, it
        inherited from that parent."""
        parent = self._by_pid.get(each.parent)
        return parent is None or each.parent == 1 or parent.session != each.session


class Leader(NamedTuple):
    """A process, and our changes to its first thread, from which its threads and children inherit."""

    process: ProcId
    chain: Chain  # of its first thread

    @property
    def control(self) -> Control:
        """What was changed."""
        return self.chain[-1].control


def reach_of(leaders: Sequence[Leader]) -> Reach:
    """What all their heirs are within."""
    entries = [entry for leader in leaders for entry in leader.chain]
    pids = [leader.process.pid for leader in leaders]
    since = min((entry.since for entry in entries), default=0)
    return Reach(since, pids, {entry.session for entry in entries}, {entry.group for entry in entries})


class Heir(NamedTuple):
    """A thread that inherited a value of ours."""

    on: ThreadPlace
    now: Value
    entry: Entry  # the change that the value is from

    @property
    def knob(self) -> Knob:
        """Where it has the value."""
        return Knob(self.entry.control, self.on)


class Heirs:
    """Finds threads and processes that have a value of ours, but no entry."""

    def __init__(self, ledger: Ledger, kernel: Kernel) -> None:
        self._ledger = ledger
        self._kernel = kernel

    def leader(self, subject: Subject) -> Leader | None:
        """The process of this subject, if we changed its first thread."""
        if not isinstance(subject.on, ProcId):
            return None
        for knob, chain in self._ledger.chains(subject).items():
            if leads(knob) is not None:
                return Leader(subject.on, chain)
        return None

    def leaders(self, control: Control) -> list[Leader]:
        """Every process whose first thread's value of this control we changed, the youngest first: of those that a value may be
        from, that is the nearest ancestor."""
        found = [self.leader(subject) for subject in self._ledger.subjects() if subject.control is control]
        return sorted((leader for leader in found if leader is not None), key=_birth, reverse=True)

    def inherited(self, chain: Chain, knob: Knob, now: Value) -> Entry | Trouble | None:
        """The change of ours that a thread may have its value from: it started after the change and has exactly that value.
        Trouble: this cannot be determined now."""
        if not isinstance(knob.on, ThreadPlace):
            return None
        for entry in reversed(chain):
            if knob.on.thread.start_ticks >= entry.since:
                visible = self._kernel.visible(knob, entry.new)
                if now == visible or isinstance(visible, Trouble):
                    return visible if isinstance(visible, Trouble) else entry
        return None

    def of(self, leader: Leader, family: Family) -> list[Heir] | Trouble:
        """Threads that inherited our value and have no entry of their own; or why one of them could not be examined."""
        heirs, leaders = [], self.leaders(leader.control)
        for process in (leader.process, *family.heirs(leader.process, leader.chain)):
            found, lost = self.within(leader, process, family, leaders)
            if isinstance(lost, Trouble):
                return lost
            heirs += found
        return heirs

    def within(
        self, leader: Leader, process: ProcId, family: Family, leaders: Sequence[Leader]
    ) -> tuple[list[Heir], Trouble | bool]:
        """Threads of one process that may have inherited from the leader, and from none of the younger `leaders`; and whether one
        ended before it could be examined: then the rest is examined again, because it may have started another. Trouble: a thread
        exists whose value is unknown."""
        found: list[Heir] = []
        missing: Trouble | None = None
        lost = False
        for _ in range(PASSES):
            threads = self._kernel.threads(process)
            if isinstance(threads, Trouble):
                if threads.status is Status.VANISHED:
                    return [], True
                missing, lost = threads, True
                continue
            found, missing = [], None
            for thread in threads:
                on = ThreadPlace(process, thread)
                knob = Knob(leader.control, on)
                if self._ledger.chain(knob) is not None or self._ledger.is_foreign(knob):
                    continue
                heir = self._heir(leader, on, family, leaders)
                if isinstance(heir, Trouble):
                    missing = heir if missing is None or missing.status not in UNKNOWN else missing
                elif heir is not None:
                    found.append(heir)
            if missing is None:
                break
            lost = True
        return found, missing if missing is not None and missing.status in UNKNOWN else lost

    def _heir(self, leader: Leader, on: ThreadPlace, family: Family, leaders: Sequence[Leader]) -> Heir | Trouble | None:
        """This thread, if it inherited our value from the leader."""
        chain, knob = leader.chain, Knob(leader.control, on)
        now, aim = self._kernel.read(knob), self._kernel.visible(knob, original(chain))
        if isinstance(now, Trouble) or isinstance(aim, Trouble):
            return now if isinstance(now, Trouble) else aim if isinstance(aim, Trouble) else None
        entry = None if now == aim else self.inherited(chain, knob, now)
        if entry is None or isinstance(entry, Trouble):
            return entry
        for other in takewhile(lambda each: _birth(each) > _birth(leader), leaders):
            if on.process == other.process or family.is_heir(on.process, other.process, other.chain):
                source = self.inherited(other.chain, knob, now)
                if source is not None:
                    return source if isinstance(source, Trouble) else None
        return Heir(on, now, entry)


def _birth(leader: Leader) -> tuple[int, int]:
    return leader.process.start_ticks, leader.process.pid
