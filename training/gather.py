"""Reads the traces of many machines, stretch by stretch: memory and time stay bounded, an interrupted reading resumes after its
last whole stretch, and several processes read at once. Knows where snapshots come from and how a data set is built from them, not
what is learned from it.

How the traces are cut into stretches depends on what was recorded and on the memory alone. So the data set does too."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..models.records import Snapshot
from ..scheduler.config.sections import Config
from ..scheduler.store.traces import Lost, Recording, TraceSession
from .crew import Crew, Until
from .dataset import Dataset, DatasetError, build
from .pieces import Piece, latest, moment, newest, packed, size, together, unpacked
from .progress import SHARES, StageProgress, TrainingBudget
from .resume import Parts, SavedPart
from .sources import Found, MachineTraces

KEPT, READ = 0.25, 0.1
"""Shares of the memory for the values of all series, and for the stretches that are being read; the rest is for learning from them
(chosen)."""

SAMPLE_BYTES = 50
"""Memory of what is read of a process at a tick. Chosen: a series of its own for each, and a worker among four."""

LEAST_PIECE = 1200
"""Ticks from which a stretch ends with its recording session, or within a long one: twenty minutes at 1 Hz, which take about a
second to read (chosen)."""

LEAST_FIT = 60
"""Ticks that are read at a time however little memory there is (chosen)."""

MOST_PIECES = 4
"""Stretches of a file, unless they would not fit into the memory: for each, all checksums of the file are computed (chosen: a
hundredth of the time to read it)."""

PROBE = 200
"""Ticks, the newest of the longest recording, that are read to measure how long reading takes when time is limited (chosen)."""

SAFETY = 0.8
"""Share of the time for reading that the estimate may fill (chosen)."""

_SECOND = 10**9  # ns


@dataclass(frozen=True, slots=True)
class Gathered:
    """The data set that was read."""

    dataset: Dataset
    lost: tuple[str, ...]  # what could not be read, a sentence each
    left_out: tuple[str, ...]  # what was not read or not kept, for time or memory, a sentence each


class _Stretch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a file that is read in one go."""

    machine: int  # place among the machines
    path: str
    since: int  # wall clock, ns
    until: int
    ticks: int  # approximate


class _ReadingPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is read. A resumed reading keeps the plan of the interrupted one."""

    since: int | None  # ns since 1970
    until: int
    ticks: int  # approximate
    stretches: tuple[_Stretch, ...] = ()
    left_out: tuple[str, ...] = ()
    others: tuple[tuple[float, int], ...] = ()  # (interval, ticks) of what was recorded at other intervals
    lost: tuple[str, ...] = ()


def gather(
    machines: Sequence[MachineTraces],
    config: Config,
    since: int | None,
    now: int,
    budget: TrainingBudget,
    progress: StageProgress,
    parts: Parts,
    say: Callable[[str], None],
    crew: Crew | None = None,
) -> Gathered:
    """All that the machines recorded at the configuration's interval since `since`, as far as time and memory allow: the newest.

    `now`: wall clock ns; what is recorded later is not read. `parts` keeps stretches until the training is done. `crew`: who reads;
    None: this process. Raises DatasetError if nothing is usable, StoreError for traces that cannot be read at all."""
    crew = crew or Crew(1)
    progress.step("reading", 0, 0)
    ends = budget.clock() + budget.left() * SHARES["reading"]
    plan = _planned(machines, config, since, now, budget, parts, crew)
    reading = _Reading(machines, config, budget, progress, parts, say, plan)
    reading.all(crew, ends)
    interval = config.daemon.interval
    others = [f"{count} ticks of {every:g} s: the configuration has daemon.interval = {interval:g}" for every, count in plan.others]
    if not reading.pieces:
        raise DatasetError(
            "; ".join(others) + f"; set daemon.interval to that, or record at {interval:g} s"
            if others
            else "the traces have no two consecutive snapshots in the requested time; record some with `nicety record`"
        )
    dataset = together(reading.pieces, [machine.name for machine in machines])
    left_out = list(plan.left_out)
    beyond = f"traces may take {KEPT:.0%} of the memory; give more with --memory"
    if reading.kept_since:
        left_out.append(f"series of groups before {moment(reading.kept_since)}: {beyond}")
    if reading.workers_gone:
        left_out.append(f"the oldest {reading.workers_gone:,} worker-ticks: {beyond}")
    lost = dict.fromkeys([*plan.lost, *reading.lost])
    return Gathered(replace(dataset, skipped=(*others, *dataset.skipped)), tuple(lost), tuple(left_out))


class _Reading:
    """What has been read so far."""

    def __init__(
        self,
        machines: Sequence[MachineTraces],
        config: Config,
        budget: TrainingBudget,
        progress: StageProgress,
        parts: Parts,
        say: Callable[[str], None],
        plan: _ReadingPlan,
    ) -> None:
        self._machines = machines
        self._config = config
        self._progress = progress
        self._parts = parts
        self._say = say
        self._plan = plan
        self._most = round(budget.memory * KEPT)
        self._done = 0
        self._before = [0] * len(machines)  # ticks of each machine so far
        self.pieces: list[Piece] = []
        self.kept_since = 0.0  # as in `Bounded`
        self.workers_gone = 0
        self.lost: list[str] = []

    def all(self, crew: Crew, ends: float) -> None:
        """Read all stretches. `ends`: when time is up, of the monotonic clock."""
        going_on = self._going_on if crew.jobs == 1 else Until(ends)
        numbers = dict[int, int]()  # stretches of each machine so far
        names = []
        for stretch in self._plan.stretches:
            place = numbers[stretch.machine] = numbers.get(stretch.machine, -1) + 1
            names.append(f"piece-{stretch.machine}-{place}")
        tasks = (
            (self._machine(stretch), self._config, stretch.since, stretch.until, self._seen(name), going_on)
            for name, stretch in zip(names, self._plan.stretches, strict=True)
        )
        for name, stretch, read in zip(names, self._plan.stretches, crew.each(read_stretch, tasks), strict=True):
            self._take(name, stretch, read)
            if crew.jobs > 1:
                self._done += stretch.ticks
                if not self._progress.step("reading", self._done, max(self._plan.ticks, self._done)):
                    break
            if read.ended:
                break

    def _machine(self, stretch: _Stretch) -> MachineTraces:
        return replace(self._machines[stretch.machine], paths=(Path(stretch.path),))

    def _take(self, name: str, stretch: _Stretch, read: StretchRead) -> None:
        machine = self._machines[stretch.machine].name
        self.lost += [sentence for sentence in read.lost if sentence not in self.lost]
        if read.changed:
            self._say(f"the traces of {machine} have changed since they were read, so they are read again")
        dataset = self._kept(name) if read.same else None
        if read.packed is not None:
            plain, arrays = read.packed
            if not read.ended:
                self._parts.save(name, {"seen": read.seen, "dataset": plain}, arrays)
            dataset = unpacked(plain, arrays)
        if dataset is None:
            return
        self.pieces = [*self.pieces, Piece(stretch.machine, self._before[stretch.machine], dataset)]
        self._before[stretch.machine] += dataset.ticks
        if size(self.pieces) > self._most:
            kept = newest(self.pieces, self._most)
            self.pieces, self.kept_since = kept.pieces, max(self.kept_since, kept.since)
            self.workers_gone += kept.workers

    def _seen(self, name: str) -> str | None:
        """The digest of what a kept stretch was made of; None: none is kept that can be used."""
        part = self._parts.load(name)
        if part is None:
            return None
        try:
            _unpacked(part)
            return str(part.plain["seen"])
        except (ValueError, KeyError, TypeError) as error:
            self._say(f"the saved part {name} cannot be used, so its work is done again: {error}")
            return None

    def _kept(self, name: str) -> Dataset | None:
        part = self._parts.load(name)
        return None if part is None else _unpacked(part)

    def _going_on(self) -> bool:
        self._done += 1
        return self._progress.step("reading", self._done, max(self._plan.ticks, self._done))


def _unpacked(part: SavedPart) -> Dataset:
    return unpacked(part.plain["dataset"], part.arrays)


# --- a stretch, in whatever process -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StretchRead:
    """What came of reading a stretch."""

    packed: tuple[Any, Mapping[str, NDArray[Any]]] | None  # as `pieces.packed` gives it; None: it is as it was kept, or nothing
    seen: str  # digest of its snapshots
    same: bool  # as those of the kept one
    changed: bool  # other ones than those of the kept one
    ended: bool  # time was up before its end
    lost: tuple[str, ...]


def read_stretch(
    machine: MachineTraces, config: Config, since: int, until: int, known: str | None, going_on: Callable[[], bool]
) -> StretchRead:
    """Read what a machine recorded in a stretch of time. `known`: digest of the snapshots that a kept result was made of."""
    if known is not None:
        digest = _Digest()
        read = machine.read(config.daemon.interval, since, until)
        ended = False
        for recording, snapshot in read:
            digest.add(recording, snapshot)
            ended = ended or not going_on()
            if ended:
                break
        if ended or digest.hex() == known:  # without the time to read it all, what is kept is believed
            return StretchRead(None, known, True, False, ended, _sentences(read.lost))
    interval = config.daemon.interval
    # the tick before is what the first one is compared with
    read = machine.read(interval, max(since - round(2 * interval * _SECOND), 0), until)
    snapshots = _Counted(read, interval, since, going_on)
    try:
        result = packed(build(snapshots, config, since))
    except DatasetError:
        result = None
    return StretchRead(result, snapshots.digest.hex(), False, known is not None, snapshots.ended, _sentences(read.lost))


class _Digest:
    """Of snapshots: when they were taken, and of how many processes."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, recording: Recording, snapshot: Snapshot) -> None:
        at = f"{recording.id} {recording.boot_id} {snapshot.at} {snapshot.wall} {len(snapshot.table)}\n"
        self._digest.update(at.encode())

    def hex(self) -> str:
        return self._digest.hexdigest()


class _Counted:
    """The snapshots recorded at the interval, as long as there is time."""

    def __init__(self, snapshots: Any, interval: float, since: int, going_on: Callable[[], bool]) -> None:
        self._snapshots = snapshots
        self._interval = interval
        self._since = since
        self._going_on = going_on
        self.digest = _Digest()
        self.ended = False

    def __iter__(self) -> Iterator[tuple[Recording, Snapshot]]:
        for recording, snapshot in self._snapshots:
            if snapshot.wall >= self._since:
                if not self._going_on():
                    self.ended = True
                    return
                self.digest.add(recording, snapshot)
            if recording.interval == self._interval:
                yield recording, snapshot


def _sentences(lost: Sequence[Lost]) -> tuple[str, ...]:
    return tuple(f"{it.path}: {it.ticks if it.ticks is not None else 'some'} ticks: {it.reason}" for it in lost)


# --- the plan -----------------------------------------------------------------------------------------------------------------


def _planned(
    machines: Sequence[MachineTraces],
    config: Config,
    since: int | None,
    now: int,
    budget: TrainingBudget,
    parts: Parts,
    crew: Crew,
) -> _ReadingPlan:
    """The plan of the interrupted training, or a new one."""
    kept = parts.load("plan")
    if kept is not None:
        try:
            return msgspec.convert(kept.plain, _ReadingPlan)
        except msgspec.ValidationError:
            pass  # from another version; a new plan is as good
    interval = config.daemon.interval
    found = list(crew.each(_found, ((machine, interval) for machine in machines)))
    every = [session for it in found for _, session in it.sessions]
    sessions = [session for session in every if session.interval == interval]
    until = max([now, *(session.last_wall for session in sessions)]) + 1
    total = _ticks_since(sessions, since)
    plan = _ReadingPlan(since, until, total)
    if budget.left() < float("inf") and total > PROBE:
        own = [[session for _, session in it.sessions] for it in found]
        longest = max(range(len(machines)), key=lambda at: sum(session.ticks for session in own[at]))
        seconds = _seconds_a_tick(machines[longest], own[longest], config, budget) / crew.jobs
        affordable = budget.left() * SHARES["reading"] * SAFETY / max(seconds, 1e-9)
        if affordable < total:
            plan = _shorter(sessions, plan, affordable)
    others = {
        every_: _ticks_since([session for session in every if session.interval == every_], since)
        for every_ in sorted({session.interval for session in every if session.interval != interval})
    }
    plan = msgspec.structs.replace(
        plan,
        stretches=tuple(_stretches(found, interval, plan, budget.memory * READ)),
        others=tuple((interval, count) for interval, count in others.items() if count),
        lost=tuple(dict.fromkeys(sentence for it in found for sentence in _sentences(it.lost))),
    )
    parts.save("plan", msgspec.to_builtins(plan), {})
    return plan


def _found(machine: MachineTraces, interval: float) -> Found:
    return machine.found(interval)


def _stretches(found: Sequence[Found], interval: float, plan: _ReadingPlan, most: float) -> Iterator[_Stretch]:
    """How each file is read: whole sessions together up to `LEAST_PIECE` ticks, long sessions in parts of about as many. `most`:
    bytes that what is read of a stretch may take."""
    begin = 0 if plan.since is None else plan.since
    for number, it in enumerate(found):
        files: dict[Path, list[TraceSession]] = {path: [] for path in it.unread}
        for path, session in it.sessions:
            if session.interval == interval and session.last_wall >= begin:
                files.setdefault(path, []).append(session)
        for path, sessions in files.items():
            inner = set(_edges(sorted(sessions, key=lambda session: session.first_wall), most))
            edges = [begin, *sorted(edge for edge in inner if begin < edge < plan.until), plan.until]
            for since, until in itertools.pairwise(edges):
                yield _Stretch(number, str(path), since, until, _ticks_since(sessions, since) - _ticks_since(sessions, until))


def _edges(sessions: Sequence[TraceSession], most: float) -> Iterator[int]:
    """Moments at which the reading of a file is cut."""
    wanted, gathered = max(LEAST_PIECE, sum(session.ticks for session in sessions) / MOST_PIECES), 0
    for session in sessions:
        if gathered >= LEAST_PIECE:
            yield session.first_wall
            gathered = 0
        fit = max(most / (SAMPLE_BYTES * max(session.processes, 1)), LEAST_FIT)
        count = math.ceil(session.ticks / min(wanted, fit)) if session.ticks > min(1.5 * wanted, fit) else 1
        span = session.last_wall - session.first_wall
        yield from (session.first_wall + span * at // count for at in range(1, count))
        gathered += session.ticks // count


def _shorter(sessions: Sequence[TraceSession], plan: _ReadingPlan, ticks: float) -> _ReadingPlan:
    """The plan reduced to about the newest `ticks` ticks."""
    first, last = (np.array([getattr(session, name) / 1e9 for session in sessions]) for name in ("first_wall", "last_wall"))
    since = latest(first, last, np.array([float(session.ticks) for session in sessions]), ticks)
    kept = _ticks_since(sessions, round(since * 1e9))
    said = (
        f"ticks before {moment(since)}: there is time for about the newest {kept:,} of {plan.ticks:,}; give more with --time-budget"
    )
    return _ReadingPlan(round(since * 1e9), plan.until, kept, left_out=(said,))


def _ticks_since(sessions: Sequence[TraceSession], since: int | None) -> int:
    """About how many ticks were recorded since then."""
    if since is None:
        return sum(session.ticks for session in sessions)
    shares = (
        min(max((session.last_wall - since) / max(session.last_wall - session.first_wall, 1), 0.0), 1.0) for session in sessions
    )
    return round(sum(session.ticks * share for session, share in zip(sessions, shares, strict=True)))


def _seconds_a_tick(machine: MachineTraces, sessions: Sequence[TraceSession], config: Config, budget: TrainingBudget) -> float:
    """Seconds to read a tick of a machine, measured on its newest; 0 if that cannot be measured."""
    newest_wall = max(session.last_wall for session in sessions)
    snapshots = iter(machine.read(config.daemon.interval, newest_wall - round(PROBE * config.daemon.interval * 1e9), None))
    first = next(snapshots, None)  # reading it has skipped all earlier ticks
    if first is None:
        return 0.0
    begin = budget.clock()
    try:
        ticks = build(itertools.chain([first], snapshots), config).ticks
    except DatasetError:
        return 0.0
    return (budget.clock() - begin) / ticks
