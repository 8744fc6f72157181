"""Replays the decision log: the same ticks through the same engine must give the same decisions, bit for bit.

Decisions are replayed from the log alone. If the traces still have a session's snapshots, they go through the observer again, and
every figure of the ticks is compared too. Only reads. Must not know how a decision is made.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from ..models.artifact import Artifact, ArtifactError, load, shipped
from ..models.records import Snapshot
from .config.paths import Paths
from .config.sections import from_builtins
from .decide.engine import Engine
from .decision import Session, Tick, encode
from .observe.observer import Observer, TickInputs
from .printed import Printed
from .service.live_models import SessionModels
from .service.warm_start import start_warm_again
from .store.decisions import DecisionReader, LoggedTick
from .store.traces import TraceError, read_traces

TOLERANCE = 1e-9
"""Relative difference allowed in forecasts and scores. Chosen: another build of numpy may add floats in another order."""

BATCH = 32
"""Ticks of the log that are observed together, see `Observer.ticks` (chosen)."""

COLLECT = 200_000
"""New objects from which Python looks for circles among them, 700 if nobody says otherwise (chosen: several batches)."""

PREDICTED = ("forecasts", "scores", "starved_workers", "groups", "protected")
"""Parts of a tick that can be computed again only with the artefacts. `groups` is one because the class of a group decides whether
the group is reported."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where log and replay differ."""

    session: str
    seq: int
    where: str  # e.g. "pools[web].load" or "decisions[0].action.size"
    recorded: str
    again: str


@dataclass(slots=True)
class Replayed:
    """The result of a replay."""

    sessions: int = 0
    ticks: int = 0
    decisions: int = 0
    refusals: int = 0
    observed: int = 0  # ticks whose figures were computed again from the traces
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what could not be compared, and why


class Replay(Printed, frozen=True, kw_only=True):
    """The result of `nicety replay`. Exit 3 if anything differs."""

    sessions: int
    ticks: int
    decisions: int
    refusals: int
    observed: int  # ticks whose figures were computed again from the traces
    differences: list[Difference]
    notes: list[str]  # what could not be compared, and why
    identical: bool  # nothing differs


def as_record(found: Replayed) -> Replay:
    """For --json."""
    values = {name: getattr(found, name) for name in found.__dataclass_fields__}
    return Replay(**values, identical=not found.differences)


def replay(
    paths: Paths,
    *,
    session: str | None = None,
    trace: Path | None = None,
    since: int | None = None,
    until: int | None = None,
    most: int = 20,
    progress: Callable[[int], None] | None = None,
) -> Replayed:
    """Replay the sessions of a decision log, or one of them.

    `since`, `until`: only ticks with since <= wall < until (ns). Of a session that began before, the decisions alone are compared,
    from the last tick before with the engine's memory. `progress` is called after each tick with the number of ticks done.
    `trace`: directory of the traces; None: the same state directory. Stops comparing a session after `most` differences.
    Raises StoreError if there is no readable log, ValueError if there is no such session.
    """
    found = Replayed()
    with _few_collections(), DecisionReader(paths.decisions) as log:
        wanted = [each for each in log.sessions() if session is None or each.id == session]
        previous: _Again | None = None
        if session is not None and not wanted:
            raise ValueError(f"the log has no session {session}; `nicety replay` without --session replays all")
        begin = None if since is None else log.place_at(since)
        if begin is not None and begin.session in (ids := [each.id for each in wanted]):
            wanted = wanted[ids.index(begin.session) :]
        for each in wanted:
            if until is not None and each.wall >= until:
                continue
            found.sessions += 1
            if each.session is None:
                found.differences.append(Difference(each.id, 0, "session", each.damage or "unreadable", ""))
                continue
            before = len(found.differences)
            first = 0 if begin is None or begin.session != each.id else log.memory_before(begin)
            snapshots = None
            if first:
                found.notes.append(f"session {each.id}: figures not compared: the session began earlier")
            else:
                snapshots = _snapshots(trace or paths.stores, each.id, found)
            again = _Again(each.session, paths.models, snapshots, found)
            again.begin(trace or paths.stores, previous)
            previous = again
            for _ in again.steps(log.ticks(each.id, first), until):
                if progress is not None:
                    progress(found.ticks)
                if len(found.differences) - before >= most:
                    found.notes.append(f"session {each.id}: {most} differences or more; the rest was not compared")
                    break
            again.finish()
    return found


@contextmanager
def _few_collections() -> Iterator[None]:
    """Within the block Python seldom looks for circles of objects. A batch is thousands of new objects and has no circles."""
    usual = gc.get_threshold()
    gc.set_threshold(COLLECT, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class _Again:
    """One session, replayed tick by tick."""

    def __init__(self, session: Session, models: Path, snapshots: Iterator[Snapshot] | None, found: Replayed) -> None:
        self._session = session
        self._found = found
        self._engine: Engine | None = None
        self._snapshots = snapshots
        self._observer, self._predicts = _observer(session, models, found)
        self._next = next(snapshots, None) if snapshots is not None else None
        self._made = 0  # ticks whose figures were computed again
        self._there = True  # every snapshot since the first tick was there, so windows are the same
        self._same = True  # and every tick has the same number again
        self._done = False  # all ticks of the session were replayed
        self._warm_starts = True  # the traces still have what the session took from earlier ones

    def begin(self, traces: Path, previous: _Again | None) -> None:
        """Start with what the session started with. `previous`: the session before it in the log, if it was replayed."""
        session, found = self._session, self._found
        if self._snapshots is None:
            return
        if session.remembers:
            self._predicts["forecasts"] = False
            found.notes.append(
                f"session {session.id}: forecasts not compared: they went on from what earlier sessions had kept of "
                f"{session.remembers} series"
            )
        if session.follows:
            learned = None if previous is None else previous.learned(session.follows)
            if learned is not None and previous is not None:
                self._observer.follow(learned)
                self._predicts["forecasts"] &= previous.forecasts_again
                return
            self._snapshots = None
            found.notes.append(
                f"session {session.id}: figures not compared: it began with what session {session.follows} had learned, and not "
                "all of that session was replayed"
            )
        elif session.warm_start is not None:
            past = start_warm_again(traces, session.boot_id, session.id, session.warm_start)
            self._warm_starts = past is not None
            self._observer.start_warm(past or [])
            if past is None:
                found.notes.append(
                    f"session {session.id}: seasonal patterns not compared: the traces lack ticks from before the session"
                )

    def learned(self, session: str) -> Observer | None:
        """The observer after the last tick; None unless this is `session` and all its ticks were replayed. The caller takes the
        observer over."""
        whole = self._snapshots is not None and self._there and self._same and self._warm_starts and self._done
        return self._observer if whole and self._session.id == session else None

    @property
    def forecasts_again(self) -> bool:
        """Whether its forecasts could be computed again."""
        return self._predicts["forecasts"]

    def steps(self, ticks: Iterator[LoggedTick], until: int | None) -> Iterator[None]:
        """Compare the ticks before `until`; yields after each."""
        while batch := list(islice(ticks, BATCH)):
            late = [
                number for number, it in enumerate(batch) if until is not None and it.tick is not None and it.tick.wall >= until
            ]
            there = [it for it in batch[: late[0] if late else None] if it.tick is not None or it.verdict is not None or it.damage]
            for logged, again in zip(there, self._observed(there), strict=True):
                self._step(logged, again)
                yield
            if late:
                return
        self._done = True

    def _step(self, logged: LoggedTick, again: Tick | None) -> None:
        """Compare one tick. `again`: what was made of its snapshot."""
        found = self._found
        found.ticks += 1
        for damage in logged.damage:
            self._differ(logged.seq, "decision log", damage, "")
        if logged.tick is None:
            self._engine = None  # cannot continue before the log has a memory again
            return
        if again is not None and self._same:
            self._compare(logged, logged.tick, again)
        if self._engine is None:
            memory = self._session.engine if logged.seq == 0 else logged.memory
            if memory is None:
                return
            session = self._session
            self._engine = Engine.resume(from_builtins(session.config), session.id, memory, session.abilities.topology)
        verdict = self._engine.step(logged.tick)
        found.decisions += len(verdict.decisions)
        found.refusals += len(verdict.refusals)
        if logged.verdict is not None and encode(verdict) != encode(logged.verdict):
            recorded, again = msgspec.to_builtins(logged.verdict), msgspec.to_builtins(verdict)
            for where, a, b in _differences(recorded, again, 0.0):
                self._differ(logged.seq, where, a, b)

    def finish(self) -> None:
        """Note what was not compared."""
        if self._snapshots is None or (self._there and self._same):
            return
        none = "figures not compared: the traces have none of its ticks"
        some = "figures compared only up to the first tick that the traces lack"
        self._found.notes.append(f"session {self._session.id}: {some if self._made else none}")

    def _observed(self, batch: Sequence[LoggedTick]) -> list[Tick | None]:
        """What the observer makes of the snapshot of each tick; None where there is none, or one before it was not there."""
        there = list[bool]()

        def known() -> Iterator[tuple[Snapshot, TickInputs]]:
            """The snapshots, one by one: many are large. What they do not have is from the log."""
            for tick in (logged.tick for logged in batch):
                snapshot = None if tick is None else self._snapshot_of(tick)
                there.append(snapshot is not None)
                if snapshot is not None and tick is not None:
                    yield snapshot, TickInputs(tick.outcomes, tick.paused, tick.deadlocks, tick.feedback, tick.chosen)

        again = iter(self._observer.ticks(known()))
        return [next(again) if one else None for one in there]

    def _snapshot_of(self, tick: Tick) -> Snapshot | None:
        """The snapshot of the same instant."""
        if not self._there or self._snapshots is None:
            return None
        while self._next is not None and self._next.at < tick.at:
            self._next = next(self._snapshots, None)
        if self._next is not None and self._next.at == tick.at:
            return self._next
        self._there = tick.gap and tick.paused  # the last tick of a session has no snapshot
        return None

    def _compare(self, logged: LoggedTick, tick: Tick, again: Tick) -> None:
        """Compare the figures of a tick."""
        seq = logged.seq
        self._found.observed += 1
        self._made += 1
        if again.seq != tick.seq:
            self._same = False
            return
        if encode(again) == logged.data:
            return  # the same bytes: nothing differs
        recorded, made = msgspec.to_builtins(tick), msgspec.to_builtins(again)
        if not self._warm_starts:
            for pool in (*recorded["pools"], *made["pools"]):
                pool.pop("predicted")
        if not self._predicts["forecasts"]:
            for pool in (*recorded["pools"], *made["pools"]):
                pool.pop("later")
        for part in PREDICTED:
            before, after = recorded.pop(part), made.pop(part)
            if self._predicts[part]:
                for where, a, b in _differences({part: before}, {part: after}, TOLERANCE):
                    self._differ(seq, where, a, b)
        for where, a, b in _differences(recorded, made, 0.0):
            self._differ(seq, where, a, b)

    def _differ(self, seq: int, where: str, recorded: str, again: str) -> None:
        self._found.differences.append(Difference(self._session.id, seq, where, recorded, again))


def _observer(session: Session, models: Path, found: Replayed) -> tuple[Observer, dict[str, bool]]:
    """The session's observer, and for each part of `PREDICTED` whether it can be computed again: its artefact must still be
    there."""
    predicts = dict.fromkeys(PREDICTED, True)

    def artefact(kind: str, *parts: str) -> Artifact | None:
        digest = session.artefacts.get(kind, "")
        if not digest:
            return None
        try:
            ours = shipped(kind)
            return ours if ours is not None and ours.digest == digest else load(models, kind, digest)
        except ArtifactError as error:
            predicts.update(dict.fromkeys(parts, False))
            found.notes.append(f"session {session.id}: {', '.join(parts)} not compared: {error}")
            return None

    demand, anomaly = artefact("demand", "forecasts"), artefact("anomaly", "scores", "starved_workers")
    behaviour = artefact("behaviour", "forecasts", "groups", "protected")
    again = SessionModels(demand, anomaly, behaviour)
    return again.observer(from_builtins(session.config), session.abilities, session.own), predicts


def _snapshots(place: Path, session: str, found: Replayed) -> Iterator[Snapshot] | None:
    """The session's snapshots; None, and a note in `found`, if no traces can be read."""
    try:
        traces = read_traces(place, session=session)
        snapshots = (snapshot for _, snapshot in traces)
        first = next(snapshots, None)
    except TraceError as error:
        found.notes.append(f"session {session}: figures not compared with the traces: {error}")
        return None
    if first is None:
        return iter(())  # a session may have none, e.g. between two reloads at once

    def chained() -> Iterator[Snapshot]:
        yield first
        yield from snapshots

    return chained()


def _differences(recorded: Any, again: Any, tolerance: float, where: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, recorded, computed again) of each leaf in which two trees of plain data differ."""
    if recorded == again:
        return
    if isinstance(recorded, dict) and isinstance(again, dict):
        for key in sorted(recorded.keys() | again.keys()):
            yield from _differences(recorded.get(key), again.get(key), tolerance, f"{where}.{key}" if where else str(key))
    elif isinstance(recorded, list | tuple) and isinstance(again, list | tuple):
        for number, (a, b) in enumerate(zip(recorded, again, strict=False)):
            yield from _differences(a, b, tolerance, f"{where}[{_label(a, number)}]")
        if len(recorded) != len(again):
            yield f"{where} (how many)", str(len(recorded)), str(len(again))
    elif isinstance(recorded, float) and isinstance(again, float) and math.isclose(recorded, again, rel_tol=tolerance):
        return
    else:
        yield where, repr(recorded), repr(again)


def _label(item: Any, number: int) -> str:
    """The name of an item of a list for people."""
    if isinstance(item, dict):
        for key in ("name", "target"):
            if isinstance(item.get(key), str):
                return str(item[key])
    return str(number)
