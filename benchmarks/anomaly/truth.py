"""The truth of an anomaly campaign, and how a detector's alarms are judged against it. Pure.

An alarm finds a fault in time, finds it late, or is wrong in one of three ways, see `judge`. Knows no trace, detector or process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import median

import msgspec

Process = tuple[int, int]
"""pid and start in clock ticks since boot."""

SECOND = 1_000_000_000

REACTION = 60.0
"""Seconds within which a fault must be found. A leak must be found before half of its headroom is gone. Chosen."""

AFTER = 60.0
"""Seconds after a fault in which an alarm of its pool does not count as false, because the windows still contain the fault.
Chosen."""

HOLE = 10.0
"""Most seconds without a recording that do not excuse a missed fault. Chosen."""

LEAKS = ("leak", "fd-leak", "thread-leak")
STORMS = ("fork-storm", "switch-storm")
PROMPT = ("spin", "stuck", "deadlock", *STORMS, "crash-loop")
KINDS = (*PROMPT[:3], *LEAKS, *PROMPT[3:], "slow", "starved", "zombie")

LIGHT = "light"
"""Variant of slow workers that are too little slower to notice; they are counted separately."""

ANTAGONIST = "campaign_hog.py"
"""The program that starves workers. An alarm that has this name or its pid names the antagonist."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault that was put into a pool."""

    id: int
    kind: str  # of KINDS
    variant: str  # how it was done
    strength: float  # MiB, descriptors or threads a second; times the CPU; processes or switches a second; zombies; else 0
    pool: str
    workers: list[Process]  # the faulty ones; in a crash loop all that were started
    master: Process  # the pool's supervisor
    others: list[Process] = []  # zombies
    antagonists: list[Process] = []  # of a starved worker
    headroom: float = 0.0  # of a leak: MiB, descriptors or threads until its limit
    half: int = 0  # of a leak: monotonic ns at which half of the headroom is gone
    onset: int  # monotonic ns
    end: int  # monotonic ns at which the worker was replaced


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something healthy that happened in a pool."""

    what: str  # deploy, idle, step
    pool: str
    onset: int
    end: int
    factor: float = 1.0  # of the load


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded."""

    interval: float
    seed: int
    pools: dict[str, int]  # workers by pool
    begin: int  # monotonic ns of the first tick
    trained: int  # end of the part without faults, which may be used for training; monotonic ns
    end: int = 0  # of the last tick; 0: it is still running


class Truth(msgspec.Struct):
    """Everything that was done in a recording."""

    header: Header
    faults: list[Fault] = []
    events: list[Event] = []


@dataclass(frozen=True, slots=True)
class Alarm:
    """A detector's report that a worker misbehaves; one for each incident."""

    at: int
    pool: str
    worker: Process
    kind: str  # "" where the detector names none
    text: str = ""
    again: bool = False  # True: not a new alarm, but an update of an incident that was reported
    over: bool = False  # True: not an alarm, but the end of an incident that was reported


@dataclass(frozen=True, slots=True)
class Hit:
    """How one fault was found."""

    fault: Fault
    first: Alarm | None  # None: not found
    seconds: float  # from the onset to the first alarm; infinite if not found
    in_time: bool
    named: bool  # the first alarm has the right kind
    corrected: bool  # the last alarm has the right kind
    antagonist: bool  # an alarm names the antagonist


@dataclass(slots=True)
class Judgement:
    """All alarms of a detector against the truth."""

    hits: list[Hit] = field(default_factory=list)
    false: list[Alarm] = field(default_factory=list)  # in healthy pools
    siblings: list[Alarm] = field(default_factory=list)  # of healthy workers in the pool, while a fault lasts
    after: list[Alarm] = field(default_factory=list)  # in a pool shortly after its fault
    victims: list[Alarm] = field(default_factory=list)  # "starved" in other pools while an antagonist ran, which may be true

    def of(self, kinds: Iterable[str]) -> list[Hit]:
        """Hits of faults of these kinds."""
        wanted = set(kinds)
        return [hit for hit in self.hits if hit.fault.kind in wanted]

    def recall(self, kinds: Iterable[str]) -> float:
        """Share of the faults of these kinds that was found in time; NaN if there were none."""
        hits = self.of(kinds)
        return sum(hit.in_time for hit in hits) / len(hits) if hits else math.nan

    def named(self, kinds: Iterable[str], *, corrected: bool = False) -> float:
        """Share of the found faults whose first alarm has the right kind (`corrected`: the last alarm); NaN if none was found."""
        found = [hit for hit in self.of(kinds) if hit.first is not None]
        return sum(hit.corrected if corrected else hit.named for hit in found) / len(found) if found else math.nan

    def delay(self, kinds: Iterable[str]) -> float:
        """Median seconds to the first alarm, of faults found in time; NaN if none was."""
        times = [hit.seconds for hit in self.of(kinds) if hit.in_time]
        return median(times) if times else math.nan


def together(results: Iterable[Judgement]) -> Judgement:
    """The judgements of several recordings as one."""
    whole = Judgement()
    for result in results:
        for each in fields(Judgement):
            getattr(whole, each.name).extend(getattr(result, each.name))
    return whole


def judge(faults: Sequence[Fault], alarms: Iterable[Alarm], holes: Sequence[tuple[int, int]] = ()) -> Judgement:
    """Judge the alarms. `holes`: (from, to) without a recording.

    Two kinds of faults count neither as found nor as missed: those that should have been found in a hole, and crash loops or
    zombies of a supervisor whose incident of the same kind is still open, because that is not reported again.

    An alarm belongs to the fault that its pool has at the time, if it is about a faulty worker, one of its zombies, or in a crash
    loop the supervisor. Other alarms in that pool are about siblings. Up to `AFTER` seconds after the fault they count as `after`.
    All others are false.
    """
    result = Judgement()
    mine: dict[int, list[Alarm]] = {fault.id: [] for fault in faults}
    by_pool: dict[str, list[Fault]] = {}
    for each in sorted(faults, key=lambda fault: fault.onset):
        by_pool.setdefault(each.pool, []).append(each)
    alarms = sorted(alarms, key=lambda alarm: (alarm.at, alarm.pool, alarm.worker, alarm.kind))
    known = _still_reported(faults, alarms)
    starving = [(fault.onset, fault.end) for fault in faults if fault.antagonists]
    for alarm in alarms:
        if alarm.over:
            continue
        near = [fault for fault in by_pool.get(alarm.pool, ()) if fault.onset <= alarm.at <= fault.end + AFTER * SECOND]
        fault = near[-1] if near else None
        if fault is not None and _is_of(alarm, fault):
            if alarm.at <= fault.end:
                mine[fault.id].append(alarm)
            elif not alarm.again:
                result.after.append(alarm)
        elif alarm.again:
            continue
        elif fault is not None:
            (result.siblings if alarm.at <= fault.end else result.after).append(alarm)
        elif alarm.kind == "starved" and any(onset <= alarm.at <= end + AFTER * SECOND for onset, end in starving):
            result.victims.append(alarm)
        else:
            result.false.append(alarm)
    result.hits = [_hit(fault, mine[fault.id]) for fault in faults if fault.id not in known and not _unseen(fault, holes)]
    return result


def _limit(fault: Fault) -> int:
    """The time until which a fault must be found, monotonic ns."""
    return fault.half if fault.kind in LEAKS else fault.onset + round(REACTION * SECOND)


def _still_reported(faults: Sequence[Fault], alarms: Sequence[Alarm]) -> set[int]:
    """Ids of faults whose supervisor has an open incident of the same kind when they begin."""
    known: set[int] = set()
    for fault in faults:
        said = [alarm for alarm in alarms if alarm.worker == fault.master and alarm.kind == fault.kind and alarm.at < fault.onset]
        if said and not said[-1].over:
            known.add(fault.id)
    return known


def _unseen(fault: Fault, holes: Sequence[tuple[int, int]]) -> bool:
    """Whether too much of the time in which the fault should have been found is in holes."""
    return sum(max(min(end, _limit(fault)) - max(begin, fault.onset), 0) for begin, end in holes) > HOLE * SECOND


def _is_of(alarm: Alarm, fault: Fault) -> bool:
    # A supervisor is to blame if it does not reap its workers, or if they end again and again.
    masters = [fault.master] if fault.kind in ("crash-loop", "zombie") else []
    return alarm.worker in (*fault.workers, *fault.others, *masters)


def _hit(fault: Fault, alarms: Sequence[Alarm]) -> Hit:
    first = alarms[0] if alarms else None
    pids = {str(pid) for pid, _ in fault.antagonists}
    said = [set(_words(alarm.text)) for alarm in alarms]
    return Hit(
        fault=fault,
        first=first,
        seconds=math.inf if first is None else (first.at - fault.onset) / SECOND,
        in_time=first is not None and first.at <= _limit(fault),
        named=first is not None and first.kind == fault.kind,
        corrected=first is not None and alarms[-1].kind == fault.kind,
        antagonist=bool(pids) and any(words & (pids | {ANTAGONIST}) for words in said),
    )


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c in "._" else " " for c in text).split()


@dataclass(frozen=True, slots=True)
class Healthy:
    """Amount of healthy time in a recording."""

    pool_hours: float
    worker_hours: float

    def __add__(self, other: Healthy) -> Healthy:
        """The sum of two recordings."""
        return Healthy(self.pool_hours + other.pool_hours, self.worker_hours + other.worker_hours)

    def per_day_per_100(self, alarms: float) -> float:
        """Alarms a day per 100 workers."""
        return alarms / (self.worker_hours / 24.0 / 100.0) if self.worker_hours else math.nan

    def expected(self, per_day_per_100: float) -> float:
        """Number of alarms expected at this rate."""
        return per_day_per_100 * self.worker_hours / 24.0 / 100.0


def healthy(
    pools: Mapping[str, int], faults: Sequence[Fault], begin: int, end: int, holes: Sequence[tuple[int, int]] = ()
) -> Healthy:
    """The time from `begin` to `end` that is neither within a fault of the pool, nor within `AFTER` of it, nor in a hole."""
    pool_ns = worker_ns = 0
    for pool, workers in pools.items():
        bad = sorted([*((fault.onset, fault.end + round(AFTER * SECOND)) for fault in faults if fault.pool == pool), *holes])
        good, at = 0, begin
        for onset, over in bad:
            good += max(min(onset, end) - at, 0)
            at = max(at, min(over, end))
        good += max(end - at, 0)
        pool_ns += good
        worker_ns += good * workers
    return Healthy(pool_ns / SECOND / 3600, worker_ns / SECOND / 3600)


def poisson_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact confidence interval of a Poisson mean for this count (Garwood 1936).

    >>> low, high = poisson_interval(0)
    >>> (low, round(high, 2))
    (0.0, 3.69)
    """
    rest = (1.0 - level) / 2.0

    def solve(most: int, chance: float) -> float:
        """The mean for which a count of at most `most` has this chance."""
        low, high = 0.0, 20.0 + 4.0 * most
        for _ in range(80):
            middle = (low + high) / 2
            below = sum(math.exp(k * math.log(middle) - middle - math.lgamma(k + 1)) for k in range(most + 1))
            low, high = (middle, high) if below > chance else (low, middle)
        return (low + high) / 2

    return (solve(count - 1, 1.0 - rest) if count else 0.0), solve(count, rest)
