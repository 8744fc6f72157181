"""Finds which processes are slowed by which changes in force, from the ledger and the kernel. Knows both only as ports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...models.identity import ProcId
from ..decision import Member
from ..hands.book import Book
from ..hands.changes import Chain, original
from ..hands.faults import UNKNOWN, Trouble
from ..hands.fences import parts_of
from ..hands.heirs import Family
from ..hands.kernel import Kernel, Kin
from ..hands.places import AutogroupPlace, Cgroup, Control, FencePlace, Knob, Subject, SubjectPlace, ThreadId, ThreadPlace, leads
from ..ports import Locks
from .starvation import Demotion

SCHED_BATCH, SCHED_IDLE = 3, 5
"""Numbers of the scheduling policies that demote: sched(7)."""

SCAN_NS = 5_000_000_000
"""ns between two scans of all processes (chosen: a scan takes 25 us per process). A scan finds processes in no classed group that
are in a demoted session or cgroup, or that have inherited. In between, a new process that turns out to hold a lock causes a
scan."""


SCANS = 3
"""Most scans per tick that new holders of locks cause (chosen): many short programs with a lock must not cause a scan each."""


class Census:
    """Which processes are slowed by which changes in force, from the ledger and the kernel."""

    def __init__(self, book: Book, kernel: Kernel, locks: Locks) -> None:
        self._book = book
        self._kernel = kernel
        self._locks = locks
        self._subjects: tuple[Subject, ...] = ()
        self._single: dict[ProcId, tuple[Subject, ...]] = {}  # demotions of a process
        self._cgroups: dict[Subject, tuple[str, ...]] = {}  # demotions of a cgroup, with its paths
        self._sessions: dict[int, list[Subject]] = {}  # demotions of an autogroup, by the sessions in it
        self._strangers: dict[ProcId, tuple[Subject, ...]] = {}  # what slows the processes that the last scan found, heirs included
        self._scanned: frozenset[ProcId] = frozenset()
        self._of: dict[ProcId, tuple[Subject, ...]] = {}  # what slows each process, from all sources
        self._at = 0
        self._scans = 0  # since the last call of `demotions`

    def demotions(self, at: int, members: Sequence[Member]) -> tuple[Demotion, ...]:
        """All demotions in force at `at`, monotonic ns; `members`: the processes of the last tick."""
        before, self._subjects = self._subjects, self._demoting()
        if not self._subjects:
            self._of, self._scanned = {}, frozenset()
            return ()
        single: dict[ProcId, list[Subject]] = defaultdict(list)
        for subject in self._subjects:
            if isinstance(subject.on, ProcId):
                single[subject.on].append(subject)
            elif isinstance(subject.on, FencePlace):  # its children are in it too, and a scan finds the others
                single[subject.on.process].append(subject)
        self._single = {process: tuple(subjects) for process, subjects in single.items()}
        wide = [subject for subject in self._subjects if not isinstance(subject.on, ProcId)]
        self._cgroups = {subject: paths for subject in wide if (paths := _paths(subject.on))}
        self._scans = 0
        if at - self._at >= SCAN_NS or not self._scanned or not set(wide) <= set(before):
            self._at = at
            self._scan()
        in_force = set(self._subjects)
        self._sessions = {number: [each for each in kept if each in in_force] for number, kept in self._sessions.items()}
        found = {process: tuple(each for each in kept if each in in_force) for process, kept in self._strangers.items()}
        for process, subjects in self._single.items():
            found[process] = _joined(subjects, found.get(process, ()))
        fenced = {
            process.pid: [each for each in subjects if each.control is Control.FENCE] for process, subjects in self._single.items()
        }
        parents = {member.id.pid: member.parent for member in members} if any(fenced.values()) else {}
        for member in members:
            subjects = self._direct(member.id, member.session, (member.cgroup,))
            if parents:
                subjects = _joined(subjects, [each for pid in _above(member.parent, parents) for each in fenced.get(pid, ())])
            if subjects:
                found[member.id] = _joined(subjects, found.get(member.id, ()))
        self._of = {process: subjects for process, subjects in found.items() if subjects}
        slowed: dict[Subject, list[ProcId]] = {subject: [] for subject in self._subjects}
        for process in sorted(self._of):
            for subject in self._of[process]:
                slowed[subject].append(process)
        return tuple(Demotion(subject, tuple(processes)) for subject, processes in slowed.items() if processes)

    def of(self, process: ProcId) -> tuple[Subject, ...]:
        """The demotions that slow this process. If no scan has seen it, it causes another one, at most `SCANS` times between two
        calls of `demotions`."""
        if process not in self._of and process not in self._scanned and self._scans < SCANS:
            self._scans += 1
            self._scan()
            self._of = {**self._strangers, **self._of}
            self._scanned |= {process}
        return self._of.get(process, ())

    def _demoting(self) -> tuple[Subject, ...]:
        """The subjects that are demoted; sorted, because the ledger orders by latest entries."""
        found = [
            subject for subject in self._book.subjects() if any(_demotes(chain) for chain in self._book.chains(subject).values())
        ]
        return tuple(sorted(found, key=_order))

    def _scan(self) -> None:
        """Read all processes. If not all of them can be read, what was known before stays, and the next call of `demotions` scans
        again."""
        kins, unread = self._kernel.kin()
        paths = {kin.id: self._locks.cgroups(kin.id) for kin in kins} if self._cgroups else {}
        unseen = unread or next((each for each in paths.values() if isinstance(each, Trouble) and each.status in UNKNOWN), None)
        if unseen is not None and self._scanned:
            self._at = -SCAN_NS
            return
        by_id = {kin.id: kin for kin in kins}
        self._scanned = frozenset(by_id)
        self._sessions = defaultdict(list)
        heirs: dict[ProcId, list[Subject]] = defaultdict(list)
        family: Family | None = None
        for subject in self._subjects:
            chains = self._book.chains(subject)
            if isinstance(subject.on, AutogroupPlace):
                for session in self._sessions_of(subject.on, chains.values(), by_id):
                    self._sessions[session].append(subject)
                continue
            for knob, chain in chains.items():
                process = leads(knob)
                if process is not None:
                    family = family or Family(kins)
                    for heir in family.heirs(process, chain):
                        if self._has_inherited(heir, chain):
                            heirs[heir].append(subject)
        found = {}
        for kin in kins:
            cgroups = paths.get(kin.id, ())
            direct = self._direct(kin.id, kin.session, () if isinstance(cgroups, Trouble) else cgroups)
            if direct or kin.id in heirs:
                found[kin.id] = _joined(direct, heirs.get(kin.id, ()))
        self._strangers = found

    def _direct(self, process: ProcId, session: int, cgroups: Sequence[str]) -> tuple[Subject, ...]:
        """The demotions whose subject is the process, its session or a cgroup above it."""
        above = tuple(
            subject
            for subject, paths in self._cgroups.items()
            if any(f"{cgroup}/".startswith(f"{path.rstrip('/')}/") for cgroup in cgroups for path in paths)
        )
        return (*self._single.get(process, ()), *self._sessions.get(session, ()), *above)

    def _sessions_of(self, autogroup: AutogroupPlace, chains: Iterable[Chain], by_id: Mapping[ProcId, Kin]) -> set[int]:
        """The sessions of an autogroup: that of the process it was set through, or, if that has ended, of any process in it."""
        through = {chain[-1].process for chain in chains}
        sessions = {by_id[process].session for process in through if process is not None and process in by_id}
        if sessions:
            return sessions
        first = {kin.session: kin.id for kin in by_id.values()}
        return {session for session, process in first.items() if self._kernel.autogroup(process) == autogroup.name}

    def _has_inherited(self, heir: ProcId, chain: Chain) -> bool:
        """Whether an heir still has a value of ours in its first thread."""
        now = self._kernel.read(Knob(chain[-1].control, ThreadPlace(heir, ThreadId(*heir))))
        return not isinstance(now, Trouble) and now in {entry.new for entry in chain}


def _above(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    """A process and its ancestors, as far as their parents are known."""
    seen = set[int]()
    while pid and pid not in seen:
        yield pid
        seen.add(pid)
        pid = parents.get(pid, 0)


def _paths(on: SubjectPlace) -> tuple[str, ...]:
    """The cgroups whose processes are slowed; () if the place is not a cgroup."""
    match on:
        case Cgroup(path=path):
            return (path,)
        case FencePlace(key=key):
            return tuple(part.cgroup for part in parts_of(key))
        case _:
            return ()


def _order(subject: Subject) -> tuple[str, str]:
    return subject.control.name, str(subject.on)


def _joined(some: Sequence[Subject], more: Sequence[Subject]) -> tuple[Subject, ...]:
    return tuple(dict.fromkeys((*some, *more)))


def _demotes(chain: Chain) -> bool:
    """Whether the newest value gives less of the CPU than the one before our first change."""
    now, first = chain[-1].new, original(chain)
    if not isinstance(now, int) or not isinstance(first, int):
        return False
    if chain[-1].control in (Control.NICE, Control.AUTOGROUP, Control.CPU_IDLE, Control.FENCE):
        return now > first
    if chain[-1].control in (Control.CPU_SHARES, Control.CPU_WEIGHT):
        return now < first
    return chain[-1].control is Control.POLICY and now != first and now in (SCHED_BATCH, SCHED_IDLE)
