"""Reads the traces of many machines, piece by piece: memory and time stay bounded, and an interrupted reading resumes after its
last whole piece. Knows where snapshots come from and how a data set is built from them, not what is learned from it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from ..models.records import Snapshot
from ..scheduler.config.sections import Config
from ..scheduler.store.traces import Recording, TraceSession
from .dataset import MAX_RUN, Dataset, DatasetError, build
from .pieces import VALUE_BYTES, WORKER_BYTES, Piece, latest, moment, newest, packed, size, together, unpacked
from .progress import SHARES, StageProgress, TrainingBudget
from .resume import Parts
from .sources import MachineTraces, Read

KEPT, READ = 0.25, 0.15
"""Shares of the memory for the values of all series, and for the piece being read; the rest is for learning from them (chosen)."""

LEAST_PIECE = 3600
"""Ticks from which a piece ends with its recording session: an hour at 1 Hz, which takes about ten seconds to read (chosen)."""

PROBE = 200
"""Ticks, the newest of the longest recording, that are read to measure how long reading takes when time is limited (chosen)."""

SAFETY = 0.8
"""Share of the time for reading that the estimate may fill (chosen)."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The data set that was read."""

    dataset: Dataset
    lost: tuple[str, ...]  # what could not be read, a sentence each
    left_out: tuple[str, ...]  # what was not read or not kept, for time or memory, a sentence each


class _ReadingPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is read. A resumed reading keeps the plan of the interrupted one."""

    since: int | None  # ns since 1970
    until: int
    ticks: int  # approximate
    left_out: tuple[str, ...] = ()


def gather(
    machines: Sequence[MachineTraces],
    config: Config,
    since: int | None,
    now: int,
    budget: TrainingBudget,
    progress: StageProgress,
    parts: Parts,
    say: Callable[[str], None],
) -> Gathered:
    """All that the machines recorded at the configuration's interval since `since`, as far as time and memory allow: the newest.

    `now`: wall clock ns; what is recorded later is not read. `parts` keeps pieces until the training is done. Raises DatasetError
    if nothing is usable, StoreError for traces that cannot be read at all."""
    progress.step("reading", 0, 0)
    plan = _planned(machines, config, since, now, budget, parts)
    reading = _Reading(config, budget, progress, parts, say, plan)
    for number, machine in enumerate(machines):
        reading.machine(number, machine)
    interval = config.daemon.interval
    others = [
        f"{count} ticks of {every:g} s: the configuration has daemon.interval = {interval:g}"
        for every, count in sorted(reading.others.items())
    ]
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
    return Gathered(replace(dataset, skipped=(*others, *dataset.skipped)), tuple(reading.lost), tuple(left_out))


class _ChangedError(Exception):
    """The traces have changed since the pieces were kept."""


class _Reading:
    """What has been read so far."""

    def __init__(
        self,
        config: Config,
        budget: TrainingBudget,
        progress: StageProgress,
        parts: Parts,
        say: Callable[[str], None],
        plan: _ReadingPlan,
    ) -> None:
        self._config = config
        self._progress = progress
        self._parts = parts
        self._say = say
        self._plan = plan
        self._most = round(budget.memory * KEPT)
        self._most_at_once = round(budget.memory * READ)
        self._done = 0
        self.pieces: list[Piece] = []
        self.kept_since = 0.0  # as in `Bounded`
        self.workers_gone = 0
        self.lost: list[str] = []
        self.others: dict[float, int] = {}  # ticks recorded at other intervals

    def machine(self, number: int, machine: MachineTraces) -> None:
        """Read all of a machine."""
        before = self._done, self.pieces, self.others, self.kept_since, self.workers_gone
        try:
            self._machine(number, machine, resumed=True)
        except _ChangedError:
            self._say(f"the traces of {machine.name} have changed since they were read, so they are read again")
            self._done, self.pieces, self.others, self.kept_since, self.workers_gone = before
            self._machine(number, machine, resumed=False)

    def _machine(self, number: int, machine: MachineTraces, resumed: bool) -> None:
        interval = self._config.daemon.interval
        read = machine.read(interval, self._plan.since, self._plan.until)
        cutter = _Cutter(read, interval, self._most_at_once, self._going_on)
        start = 0
        for place in itertools.count():
            if not cutter.more():
                break
            dataset = self._piece(f"piece-{number}-{place}", cutter, resumed)
            if dataset is not None:
                self.pieces = [*self.pieces, Piece(number, start, dataset)]
                start += dataset.ticks
                if size(self.pieces) > self._most:
                    kept = newest(self.pieces, self._most)
                    self.pieces, self.kept_since = kept.pieces, max(self.kept_since, kept.since)
                    self.workers_gone += kept.workers
        for every, count in cutter.others.items():
            self.others = {**self.others, every: self.others.get(every, 0) + count}
        self.lost += [f"{it.path}: {it.ticks if it.ticks is not None else 'some'} ticks: {it.reason}" for it in read.lost]

    def _piece(self, name: str, cutter: _Cutter, resumed: bool) -> Dataset | None:
        """The next piece, as it was kept if it was; None if it holds no two consecutive snapshots."""
        part = self._parts.load(name) if resumed else None
        if part is not None:
            try:
                dataset = unpacked(part.plain["dataset"], part.arrays)
                seen = str(part.plain["seen"])
            except (ValueError, KeyError, TypeError) as error:
                self._say(f"the saved part {name} cannot be used, so its work is done again: {error}")
            else:
                for _ in cutter.piece():
                    pass
                if cutter.ended:
                    return dataset
                if cutter.seen() != seen:
                    raise _ChangedError
                return dataset
        try:
            dataset = build(cutter.piece(), self._config)
        except DatasetError:
            return None
        if not cutter.ended:
            plain, arrays = packed(dataset)
            self._parts.save(name, {"seen": cutter.seen(), "dataset": plain}, arrays)
        return dataset

    def _going_on(self) -> bool:
        self._done += 1
        return self._progress.step("reading", self._done, max(self._plan.ticks, self._done))


class _Cutter:
    """Cuts the snapshots of a machine where a recording session ends, or after a day at 1 Hz, where series are cut anyway. The same
    snapshots are cut at the same places."""

    def __init__(self, read: Read, interval: float, most: int, going_on: Callable[[], bool]) -> None:
        """`most`: bytes that the values of a piece may take; a long session is cut there."""
        self._snapshots = iter(read)
        self._interval = interval
        self._most = most
        self._going_on = going_on
        self._next = next(self._snapshots, None)
        self._digest = hashlib.sha256()
        self.others: dict[float, int] = {}
        self.ended = False  # time is up

    def more(self) -> bool:
        """Whether there is another piece."""
        return self._next is not None and not self.ended

    def piece(self) -> Iterator[tuple[Recording, Snapshot]]:
        """The snapshots of the next piece."""
        self._digest = hashlib.sha256()
        ticks = taken = 0
        session = ""
        while self._next is not None:
            recording, snapshot = self._next
            if taken >= self._most or ticks >= MAX_RUN or (ticks >= LEAST_PIECE and recording.id != session):
                return
            if not self._going_on():
                self.ended = True
                return
            self._next = next(self._snapshots, None)
            session = recording.id
            if recording.interval != self._interval:
                self.others[recording.interval] = self.others.get(recording.interval, 0) + 1
                continue
            ticks += 1
            # CPU and memory of each group; there are at most as many groups as processes
            taken += 2 * VALUE_BYTES * len(snapshot.table) + WORKER_BYTES * sum(len(pool.workers) for pool in snapshot.pools)
            self._digest.update(
                f"{recording.id} {recording.boot_id} {snapshot.at} {snapshot.wall} {len(snapshot.table)}\n".encode()
            )
            yield recording, snapshot

    def seen(self) -> str:
        """Digest of the snapshots in the last piece."""
        return self._digest.hexdigest()


def _planned(
    machines: Sequence[MachineTraces], config: Config, since: int | None, now: int, budget: TrainingBudget, parts: Parts
) -> _ReadingPlan:
    """The plan of the interrupted training, or a new one."""
    kept = parts.load("plan")
    if kept is not None:
        try:
            return msgspec.convert(kept.plain, _ReadingPlan)
        except msgspec.ValidationError:
            pass  # from another version; a new plan is as good
    interval = config.daemon.interval
    found = {machine.name: machine.sessions(interval) for machine in machines}
    sessions = [session for mine in found.values() for session in mine if session.interval == interval]
    until = max([now, *(session.last_wall for session in sessions)]) + 1
    total = _ticks_since(sessions, since)
    plan = _ReadingPlan(since, until, total)
    if budget.left() < float("inf") and total > PROBE:
        longest = max(machines, key=lambda machine: sum(session.ticks for session in found[machine.name]))
        affordable = (
            budget.left() * SHARES["reading"] * SAFETY / max(_seconds_a_tick(longest, found[longest.name], config, budget), 1e-9)
        )
        if affordable < total:
            plan = _shorter(sessions, plan, affordable)
    parts.save("plan", msgspec.to_builtins(plan), {})
    return plan


def _shorter(sessions: Sequence[TraceSession], plan: _ReadingPlan, ticks: float) -> _ReadingPlan:
    """The plan reduced to about the newest `ticks` ticks."""
    first, last = (np.array([getattr(session, name) / 1e9 for session in sessions]) for name in ("first_wall", "last_wall"))
    since = latest(first, last, np.array([float(session.ticks) for session in sessions]), ticks)
    kept = _ticks_since(sessions, round(since * 1e9))
    said = (
        f"ticks before {moment(since)}: there is time for about the newest {kept:,} of {plan.ticks:,}; give more with --time-budget"
    )
    return _ReadingPlan(round(since * 1e9), plan.until, kept, (said,))


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
