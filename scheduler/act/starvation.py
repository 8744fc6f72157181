"""Decides what to restore at once: a demotion that starves its process, or makes another one wait for a lock. Pure.

It looks many times a tick, independent of the decisions. Must not know how locks are found or demotions are restored: it is given
what is demoted, and sees the rest through `ports.Locks`.

Two rules. *Lock*: a process that is not demoted waits for a lock that a demoted process holds, or may hold, and the holder wants
the CPU and gets less than half of one. *Starved*: a demoted process, session or cgroup wanted the CPU throughout `starve_seconds`
and got less than `floor` of one, or less than its part of `TOGETHER` if so many are demoted that not all can have `floor`; a
tenth of that time is enough if others, demoted like it, wait for its lock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...models.anomaly.lifecycle import USER_HZ
from ...models.identity import ProcId
from ..hands.faults import Trouble
from ..hands.fences import parts_of
from ..hands.places import AutogroupPlace, Cgroup, FencePlace, PoolPlace, Subject
from ..ports import Locks, Run, Wait

LOOK_NS = 80_000_000
"""ns between two looks while something is demoted: 0.2 % of a CPU beside 100 processes (`benchmarks/latency/lock_holder.py`)."""

AGAIN_NS = 10_000_000
"""ns between two looks while a process waits and it is not yet clear for what (chosen: as `SURE_NS`)."""

SURE_NS = 10_000_000
"""ns for which the same wait must have been watched: until the second look. A lock that is held for a moment is free by then, and
a demoted thread among others has had its slice of 3 to 4 ms or waits for hundreds (`benchmarks/latency/lock_holder.py`)."""

SLOWED = 0.5
"""Share of a CPU from which the wait is not blamed on the demotion (chosen): without it the holder would be twice as fast at
best."""

TRIES = 4
"""Times that a wait is watched at the faster pace (chosen). If the holder runs well, a lock held for long is then watched at the
usual pace."""

PEERS = 10
"""If equally demoted peers wait for its lock, a process counts as starved this many times sooner: after 1 s, not 10 (chosen)."""

TOGETHER = 0.2
"""Most share of one CPU that all demoted sessions and cgroups must get together for none to count as starved (chosen). At load 100
on two CPUs none has much more than `floor`, demoted or not, and what one loses goes to another one, not to the service."""

VISITS, VISIT_NS = 4, 400_000_000
"""Most demoted processes whose progress is read in one look, and the least ns between two reads of the same process (chosen: a read
takes 30 us, and a group of 100 takes 2 s)."""

CALM = 10
"""A demotion that has already got enough for all of `starve_seconds`, or a single demoted process that does not want the CPU, is
not visited for `starve_seconds / CALM` (chosen). Then a new stretch begins, so starvation is found later by that time at most."""

GAP_NS = 1_000_000_000
"""ns without a look (the daemon was stopped, or the machine slept) after which everything watched is forgotten (chosen): it is
unknown what a process wanted meanwhile."""

_TICK_NS = 1_000_000_000 // USER_HZ


class Demotion(NamedTuple):
    """A change in force that makes something slower."""

    subject: Subject
    processes: tuple[ProcId, ...]  # the processes that it slows, as far as known


class Case(NamedTuple):
    """Why to restore these demotions."""

    subjects: tuple[Subject, ...]
    text: str  # for people, with the figures


class Looked(NamedTuple):
    """The result of a look."""

    cases: tuple[Case, ...]
    pause: int  # ns until the next one


@dataclass(slots=True)
class _Stretch:
    """Progress of something that wants the CPU, since the moment from which it has had less than enough."""

    since: int
    got: int = 0  # ns of CPU
    calm: int = 0  # monotonic ns before which it is not visited; 0: it is visited
    at: dict[ProcId, Run] = field(default_factory=dict)  # of each process, when it was last visited


@dataclass(slots=True)
class _Watch:
    """A wait that is being watched."""

    since: int
    tries: int = 0
    holders: dict[ProcId, tuple[int, int]] = field(default_factory=dict)  # (since, its CPU then) while it wants the CPU


class StarvationWatchdog:
    """The watchdog. `starve_seconds`, `floor`: see above; `floor` is a share of one CPU. Processes demoted one by one must each get
    their part of it, and a session or cgroup as a whole."""

    def __init__(self, locks: Locks, starve_seconds: float = 10.0, floor: float = 0.01) -> None:
        self._locks = locks
        self.limit(starve_seconds, floor)
        self._watches: dict[tuple[ProcId, int, int, str], _Watch] = {}
        self._stretches: dict[Subject, _Stretch] = {}
        self._next = 0
        self._at = 0  # of the last look
        self._known: Sequence[Demotion] = ()
        self._slowed: dict[ProcId, tuple[Subject, ...]] = {}  # demoted process -> by what
        self._demoted: tuple[ProcId, ...] = ()  # its keys: they are visited in turn
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
        """One look at `at`, monotonic ns. `others`: processes that may wait, besides the demoted ones; `stranger`: which of the
        demotions slow a process that is in neither, because any process may hold a lock."""
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
        """Take over new demotions: what is in force, or which processes it slows, has changed."""
        self._known = demotions
        slowed: dict[ProcId, list[Subject]] = defaultdict(list)
        for demotion in demotions:
            for process in demotion.processes:
                slowed[process].append(demotion.subject)
        self._slowed = {process: tuple(slowed[process]) for process in sorted(slowed)}
        self._demoted = tuple(self._slowed)
        self._single = max(1, len({demotion.subject.on for demotion in demotions if _is_single(demotion.subject)}))
        self._wide = max(1, sum(not _is_single(demotion.subject) for demotion in demotions))
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
        """(what to restore because a process waits for it, whether to look again soon)."""
        slowed = self._slowed
        cases: list[Case] = []
        watches: dict[tuple[ProcId, int, int, str], _Watch] = {}
        hurry = False
        for wait in self._locks.waits(self._demoted, others):
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
        """Compare what the holders of this lock, or possible holders, got since they were first seen wanting the CPU during this
        wait. Returns whether to look at one of them again soon."""
        open_ = False
        for holder, subjects in by.items():
            run = self._locks.run(holder, wait.holder_thread if holder == wait.holder else 0)
            if isinstance(run, Trouble):  # not known now: what was seen before still counts
                open_ = True
                continue
            if run is None or not run.runnable:
                watch.holders.pop(holder, None)  # it waits for something else, not for its priority
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
                    f"pid {holder.pid} {word}; while demoted, pid {holder.pid} got {got / 1e6:.0f} ms of CPU in {span / 1e9:.2f} s"
                )
                cases.append(Case(subjects, text))
                del watch.holders[holder]
        return open_ and watch.tries < TRIES

    # --- starvation ------------------------------------------------------------------------------------------------------------

    def _visit(self, at: int) -> list[Case]:
        """Read the progress of the next few demoted processes; what has starved for long enough is a case."""
        touched: dict[Subject, None] = {}
        count = len(self._demoted)
        visits = min(VISITS, -(-count * LOOK_NS // VISIT_NS))
        for step in range(visits):
            process = self._demoted[(self._next + step) % count]
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
            floor = self._floor / self._single if _is_single(subject) else min(self._floor, TOGETHER / self._wide)
            enough = floor * self._starve_ns
            plenty, asleep = stretch.got >= enough, not any(run.runnable for run in stretch.at.values())
            if plenty or asleep or stretch.calm:
                calm = plenty or (asleep and _is_single(subject))  # in a session or cgroup others may be awake
                stretch.since, stretch.got = at, 0
                stretch.calm = 0
                if calm:
                    stretch.calm, stretch.at = at + self._starve_ns // CALM, {}  # what it gets until then does not count
            elif at - stretch.since >= self._starve_ns:
                who = _who(subject)
                seconds, got = (at - stretch.since) / 1e9, stretch.got / 1e6
                text = f"{who} starves: while demoted, it got {got:.0f} ms of CPU in {seconds:.1f} s, and wanted it all the time"
                cases.append(Case((subject,), text))
                stretch.since, stretch.got = at, 0
        return cases


def _is_single(subject: Subject) -> bool:
    """Whether the subject is one process, not a session or a cgroup."""
    return isinstance(subject.on, ProcId)


def _who(subject: Subject) -> str:
    match subject.on:
        case ProcId(pid=pid):
            return f"pid {pid}"
        case FencePlace(key=key):
            return f"the fence {parts_of(key)[0].cgroup}"
        case Cgroup(path=name) | AutogroupPlace(name=name) | PoolPlace(name=name):
            return name
