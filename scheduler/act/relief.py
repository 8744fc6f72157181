"""Decides what to put back at once: a demotion that starves its process, or keeps somebody waiting for a lock. Pure.

A reflex below the decisions, many times a tick. Must not know how locks are found or demotions are put back: it is given what is
demoted and sees the rest through `ports.Locks`.

Two rules. *Lock*: somebody who is not demoted waits for a lock that a demoted process holds, or may hold, and that process wants
the CPU and gets less than half of it. *Starved*: a demoted process, session or cgroup wanted the CPU all of `starve_seconds` long
and got less than `floor` of one, or less than its part of `TOGETHER` where so many are demoted that not all can have `floor`; a
tenth of that time is enough where others, demoted like it, wait for its lock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...models.anomaly.lives import USER_HZ
from ...models.records import ProcId
from ..decision import Control, Member
from ..faults import UNKNOWN
from ..fences import parts_of
from ..ports import Kernel, Kin, Knob, Locks, Run, ThreadId, Trouble, Wait
from ..store.ledger import Chain, Ledger, Subject, original
from .undo import INHERITED, Family, leads

LOOK_NS = 80_000_000
"""Between two looks while something is demoted: 0.2 % of a CPU beside 100 processes (`benchmarks/lock_holder.py`)."""

AGAIN_NS = 10_000_000
"""Between two looks while somebody waits and it is not yet clear for what."""

SURE_NS = 10_000_000
"""How long one and the same wait must have been watched: to the second look. A lock that is held for a moment is free by then, and
a demoted thread among others has had its slice of 3 to 4 ms or waits for hundreds (benchmark)."""

SLOWED = 0.5
"""Share of a CPU from which the holder is not what the wait comes from: without us it would be twice as fast at best."""

TRIES = 4
"""Times that a wait is watched at the faster pace. A lock held for long by somebody who runs well is looked at at the usual one."""

PEERS = 10
"""Where peers that are demoted alike wait for its lock, a process counts as starved so many times sooner: after 1 s, not 10."""

TOGETHER = 0.2
"""Share of one CPU that sessions and cgroups must get together, at most, for none to count as starved (chosen): at load 100 on two
CPUs nobody has much more than `floor`, demoted or not, and what one gets less another one has, not the service."""

VISITS, VISIT_NS = 4, 400_000_000
"""Most demoted processes whose progress is read in a look, 30 us each: a group of 100 is gone through in 1 s; and how often at most
that of one is."""

CALM = 10
"""Who has got what is enough for all of `starve_seconds`, or is demoted alone and does not want the CPU, is not visited for this
part of it: what is seen then begins a new stretch, so somebody starves for so much longer at most."""

GAP_NS = 1_000_000_000
"""After so long without a look (the daemon was stopped, or the machine slept) nobody knows what a process wanted meanwhile."""

_TICK_NS = 1_000_000_000 // USER_HZ

SCHED_BATCH, SCHED_IDLE = 3, 5
"""sched(7)."""

SCAN_NS = 5_000_000_000
"""Between two scans of all processes for those that no classed group has, but that sit in a demoted session or cgroup or inherited:
25 us a process. In between, a process that is new is looked up when it turns out to hold a lock."""

SCANS = 3
"""Most such scans of one tick: many short programs that wait for a lock must not cost one each."""


class Demotion(NamedTuple):
    """A change in force that makes something slower."""

    subject: Subject
    processes: tuple[ProcId, ...]  # that it slows, as far as known


class Case(NamedTuple):
    """Why to put back these demotions."""

    subjects: tuple[Subject, ...]
    text: str  # for people, with the figures


class Looked(NamedTuple):
    """What came of a look."""

    cases: tuple[Case, ...]
    pause: int  # ns until the next one


@dataclass(slots=True)
class _Stretch:
    """Progress of something that wants the CPU, since a moment from which on it has had less than enough."""

    since: int
    got: int = 0  # ns of CPU
    calm: int = 0  # no visit before that; 0: it is under watch
    at: dict[ProcId, Run] = field(default_factory=dict)  # of each process, when it was last visited


@dataclass(slots=True)
class _Watch:
    """A wait that is being watched."""

    since: int
    tries: int = 0
    holders: dict[ProcId, tuple[int, int]] = field(default_factory=dict)  # (since, its CPU then) while it wants the CPU


class Relief:
    """The watchdog. `starve_seconds`, `floor`: see above; `floor` is a share of one CPU, of which those that are demoted one by
    one have to get their part each, and a session or cgroup as a whole."""

    def __init__(self, locks: Locks, starve_seconds: float = 10.0, floor: float = 0.01) -> None:
        self._locks = locks
        self.limit(starve_seconds, floor)
        self._watches: dict[tuple[ProcId, int, int, str], _Watch] = {}
        self._stretches: dict[Subject, _Stretch] = {}
        self._next = 0
        self._at = 0  # of the last look
        self._known: Sequence[Demotion] = ()
        self._slowed: dict[ProcId, tuple[Subject, ...]] = {}  # by what
        self._turn: tuple[ProcId, ...] = ()  # its keys
        self._single = 1  # how many processes are demoted one by one
        self._wide = 1  # how many sessions and cgroups are demoted

    def limit(self, starve_seconds: float, floor: float) -> None:
        """New limits, from the next look on."""
        self._starve_ns = round(starve_seconds * 1e9)
        self._floor = floor

    def look(
        self,
        at: int,
        demotions: Sequence[Demotion],
        others: Sequence[ProcId],
        stranger: Callable[[ProcId], Sequence[Subject]] = lambda _: (),
    ) -> Looked:
        """One look at `at`, monotonic ns. `others`: who may wait, besides those that are demoted; `stranger`: which of the
        demotions slow a process that is in neither, for a lock may be anybody's."""
        if not demotions:
            if self._known:
                self._locks.rest()
            self._known, self._watches, self._stretches = (), {}, {}
            return Looked((), LOOK_NS)
        if at - self._at > GAP_NS:
            self._watches, self._stretches = {}, {}
        self._at = at
        if demotions is not self._known:
            self._know(demotions)
        cases, hurry = self._look_at_waits(at, others, stranger)
        put_back = {subject for case in cases for subject in case.subjects}
        cases += [case for case in self._visit(at) if put_back.isdisjoint(case.subjects)]
        return Looked(tuple(cases), AGAIN_NS if hurry else LOOK_NS)

    def _know(self, demotions: Sequence[Demotion]) -> None:
        """What is in force has changed, or who is slowed by it."""
        self._known = demotions
        slowed: dict[ProcId, list[Subject]] = defaultdict(list)
        for demotion in demotions:
            for process in demotion.processes:
                slowed[process].append(demotion.subject)
        self._slowed = {process: tuple(slowed[process]) for process in sorted(slowed)}
        self._turn = tuple(self._slowed)
        self._single = max(1, len({demotion.subject.process for demotion in demotions} - {None}))
        self._wide = max(1, sum(demotion.subject.process is None for demotion in demotions))
        stretches = {}
        for demotion in demotions:
            stretch = self._stretches.get(demotion.subject)
            if stretch is not None:
                members = set(demotion.processes)
                stretch.at = {process: run for process, run in stretch.at.items() if process in members}
                stretches[demotion.subject] = stretch
        self._stretches = stretches

    # --- locks -----------------------------------------------------------------------------------------------------------------

    def _look_at_waits(
        self, at: int, others: Sequence[ProcId], stranger: Callable[[ProcId], Sequence[Subject]]
    ) -> tuple[list[Case], bool]:
        """(what to put back because somebody waits for it, whether to look again soon)."""
        slowed = self._slowed
        cases: list[Case] = []
        watches: dict[tuple[ProcId, int, int, str], _Watch] = {}
        hurry = False
        for wait in self._locks.waits(self._turn, others):
            holders = (wait.holder,) if wait.holder is not None else wait.possible
            by = {holder: tuple(slowed.get(holder) or stranger(holder)) for holder in holders if holder != wait.waiter}
            by = {holder: subjects for holder, subjects in by.items() if subjects}
            if not by:
                continue
            key = (wait.waiter, wait.thread, wait.turn, wait.lock)
            watch = watches[key] = self._watches.get(key) or _Watch(at)
            alike = wait.waiter in slowed or bool(stranger(wait.waiter))
            window, share = (self._starve_ns // PEERS, self._floor / self._single) if alike else (SURE_NS, SLOWED)
            soon = self._follow(at, wait, watch, by, window, share, cases)
            hurry = hurry or (soon and not alike)
        self._watches = watches
        return cases, hurry

    def _follow(
        self,
        at: int,
        wait: Wait,
        watch: _Watch,
        by: Mapping[ProcId, tuple[Subject, ...]],
        window: int,
        share: float,
        cases: list[Case],
    ) -> bool:
        """Compare what those who hold this lock, or may, got since they were first seen wanting the CPU while it is waited for.
        Whether one of them is to be looked at again soon."""
        open_ = False
        for holder, subjects in by.items():
            run = self._locks.run(holder, wait.holder_thread if holder == wait.holder else 0)
            if isinstance(run, Trouble):  # not known now: what was seen before still counts
                open_ = True
                continue
            if run is None or not run.runnable:
                watch.holders.pop(holder, None)  # it waits for something else: its priority is not what it lacks
                continue
            since, before = watch.holders.setdefault(holder, (at, run.cpu))
            got, span = run.cpu - before, at - since
            if span < window and got < share * window:
                open_ = True
            elif got >= share * span:
                watch.holders[holder] = (at, run.cpu)
                watch.tries += 1
                open_ = True
            else:
                word = "holds" if wait.holder is not None else "may hold"
                text = (
                    f"pid {wait.waiter.pid} has waited for {(at - watch.since) / 1e9:.2f} s or more for the {wait.lock}, which "
                    f"pid {holder.pid} {word}; demoted, that one got {got / 1e6:.0f} ms of CPU in {span / 1e9:.2f} s"
                )
                cases.append(Case(subjects, text))
                del watch.holders[holder]
        return open_ and watch.tries < TRIES

    # --- starvation ------------------------------------------------------------------------------------------------------------

    def _visit(self, at: int) -> list[Case]:
        """Read the progress of the next few demoted processes; what has starved for long enough is a case."""
        touched: dict[Subject, None] = {}
        count = len(self._turn)
        visits = min(VISITS, -(-count * LOOK_NS // VISIT_NS))
        for step in range(visits):
            process = self._turn[(self._next + step) % count]
            if all(subject in self._stretches and self._stretches[subject].calm > at for subject in self._slowed[process]):
                continue
            run = self._locks.run(process)
            if isinstance(run, Trouble):
                continue
            for subject in self._slowed[process]:
                stretch = self._stretches.setdefault(subject, _Stretch(at))
                before = stretch.at.pop(process, None)
                if run is not None:
                    stretch.at[process] = run
                    if before is not None:
                        stretch.got += run.cpu - before.cpu
                    elif process.start_ticks * _TICK_NS >= stretch.since:  # a short program of many, say of a build
                        stretch.got += run.cpu
                    else:  # what it got before is not known
                        stretch.since, stretch.got = at, 0
                touched[subject] = None
        self._next += visits
        cases = []
        for subject in touched:
            stretch = self._stretches[subject]
            floor = min(self._floor, TOGETHER / self._wide) if subject.process is None else self._floor / self._single
            enough = floor * self._starve_ns
            plenty, asleep = stretch.got >= enough, not any(run.runnable for run in stretch.at.values())
            if plenty or asleep or stretch.calm:
                calm = plenty or (asleep and subject.process is not None)  # of many, others may have woken up
                stretch.since, stretch.got = at, 0
                stretch.calm = 0
                if calm:
                    stretch.calm, stretch.at = at + self._starve_ns // CALM, {}  # what is got from then on is no matter
            elif at - stretch.since >= self._starve_ns:
                who = _who(subject)
                seconds, got = (at - stretch.since) / 1e9, stretch.got / 1e6
                text = f"{who} starves: demoted, it got {got:.0f} ms of CPU in {seconds:.1f} s in which it always wanted it"
                cases.append(Case((subject,), text))
                stretch.since, stretch.got = at, 0
        return cases


class Census:
    """Who is slowed by which of the changes that are in force, as the ledger and the kernel have it."""

    def __init__(self, ledger: Ledger, kernel: Kernel, locks: Locks) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._locks = locks
        self._subjects: tuple[Subject, ...] = ()
        self._single: dict[ProcId, tuple[Subject, ...]] = {}  # demotions of a process
        self._cgroups: dict[Subject, tuple[str, ...]] = {}  # of a cgroup, with its paths
        self._sessions: dict[int, list[Subject]] = {}  # of an autogroup, by the sessions in it
        self._strangers: dict[ProcId, tuple[Subject, ...]] = {}  # whom the last scan found, heirs included
        self._scanned: frozenset[ProcId] = frozenset()
        self._of: dict[ProcId, tuple[Subject, ...]] = {}  # all that is known
        self._at = 0
        self._scans = 0  # since the last call of `demotions`

    def demotions(self, at: int, members: Sequence[Member]) -> tuple[Demotion, ...]:
        """Everything in force at `at`, monotonic ns; `members`: the processes of the last tick."""
        before, self._subjects = self._subjects, self._demoting()
        if not self._subjects:
            self._of, self._scanned = {}, frozenset()
            return ()
        single: dict[ProcId, list[Subject]] = defaultdict(list)
        for subject in self._subjects:
            process = subject.process
            if subject.control is Control.FENCE:  # for whom it was made; his children are in it, and a scan finds who else is
                process = next(iter(self._ledger.chains(subject).values()))[-1].process
            if process is not None:
                single[process].append(subject)
        self._single = {process: tuple(subjects) for process, subjects in single.items()}
        wide = {subject for subject in self._subjects if subject.process is None}
        self._cgroups = {
            each: tuple(part.cgroup for part in parts_of(each.key)) if each.control is Control.FENCE else (each.key,)
            for each in sorted(wide, key=str)
            if each.control is not Control.AUTOGROUP
        }
        self._scans = 0
        if at - self._at >= SCAN_NS or not self._scanned or not wide <= set(before):
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
        """What slows this process. One that is new is cause for another scan, a few times between two calls of `demotions`."""
        if process not in self._of and process not in self._scanned and self._scans < SCANS:
            self._scans += 1
            self._scan()
            self._of = {**self._strangers, **self._of}
            self._scanned |= {process}
        return self._of.get(process, ())

    def _demoting(self) -> tuple[Subject, ...]:
        """What has been made slower: sorted, for the ledger's order is that of its latest entries."""
        found = [
            subject
            for subject in self._ledger.subjects()
            if any(_demotes(chain) for chain in self._ledger.chains(subject).values())
        ]
        return tuple(sorted(found, key=str))

    def _scan(self) -> None:
        """Look at all processes. Where not all of them can be looked at, what was known before stays, and the next call of
        `demotions` looks again."""
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
            chains = self._ledger.chains(subject)
            if subject.control is Control.AUTOGROUP:
                for session in self._sessions_of(subject, chains.values(), by_id):
                    self._sessions[session].append(subject)
            elif subject.control in INHERITED and subject.process is not None:
                for knob, chain in chains.items():
                    if leads(knob):
                        family = family or Family(kins)
                        for heir in family.heirs(subject.process, chain):
                            if self._has_inherited(heir, knob, chain):
                                heirs[heir].append(subject)
        found = {}
        for kin in kins:
            cgroups = paths.get(kin.id, ())
            direct = self._direct(kin.id, kin.session, () if isinstance(cgroups, Trouble) else cgroups)
            if direct or kin.id in heirs:
                found[kin.id] = _joined(direct, heirs.get(kin.id, ()))
        self._strangers = found

    def _direct(self, process: ProcId, session: int, cgroups: Sequence[str]) -> tuple[Subject, ...]:
        """The demotions that a process, its session or a cgroup above it is the subject of."""
        above = tuple(
            subject
            for subject, paths in self._cgroups.items()
            if any(f"{cgroup}/".startswith(f"{path.rstrip('/')}/") for cgroup in cgroups for path in paths)
        )
        return (*self._single.get(process, ()), *self._sessions.get(session, ()), *above)

    def _sessions_of(self, subject: Subject, chains: Iterable[Chain], by_id: Mapping[ProcId, Kin]) -> set[int]:
        """The sessions of an autogroup: that of the process it was set through, or of any that is in it when that has ended."""
        through = {chain[-1].process for chain in chains}
        sessions = {by_id[process].session for process in through if process is not None and process in by_id}
        if sessions:
            return sessions
        first = {kin.session: kin.id for kin in by_id.values()}
        return {session for session, process in first.items() if self._kernel.autogroup(process) == subject.key}

    def _has_inherited(self, heir: ProcId, knob: Knob, chain: Chain) -> bool:
        """Whether an heir still has a value of ours in its first thread."""
        now = self._kernel.read(knob._replace(process=heir, thread=ThreadId(*heir)))
        return not isinstance(now, Trouble) and now in {entry.new for entry in chain}


def _who(subject: Subject) -> str:
    if subject.control is Control.FENCE:
        return f"the fence {parts_of(subject.key)[0].cgroup}"
    return f"pid {subject.process.pid}" if subject.process is not None else subject.key


def _above(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    """A process and those that it descends from, as far as their parents are known."""
    seen = set[int]()
    while pid and pid not in seen:
        yield pid
        seen.add(pid)
        pid = parents.get(pid, 0)


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
