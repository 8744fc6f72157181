"""Pieces of data sets: merged into one, kept within a size, and turned into plain arrays and back. Must not know files.

A piece is what one machine recorded in one stretch of time. When merged, all machines end at the same tick whatever their clocks
say, so the held-out time is the end of each. A machine that recorded for less than the held-out time of the longest is only judged
on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..models.anomaly.evidence import CHANNELS
from ..models.artifact import DataRange
from ..models.behaviour import SEEN
from ..models.forecast.demand import METRICS, MIN_TICKS
from ..models.identity import ProcId
from ..models.records import Class
from .anomaly_cases import WorkerTick
from .anomaly_fit import WorkerTraces
from .behaviour_fit import MOST_ROWS, Sighted
from .dataset import MAX_RUN, Dataset
from .quotas import places
from .stream import SeriesRun

VALUE_BYTES = 4
"""Memory of a value of a series, a float32."""
WORKER_BYTES = 120
"""Memory of a worker-tick where five workers are there: 80 for its values, and its part of the tick's 200 (measured)."""

Ints = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one machine did in one stretch of time."""

    machine: int  # place among the machines
    start: int  # ticks of this machine before this piece
    dataset: Dataset


def size(pieces: Sequence[Piece]) -> int:
    """Bytes that the values of pieces take."""
    return sum(VALUE_BYTES * _values(piece) + WORKER_BYTES * _worker_ticks(piece) for piece in pieces)


@dataclass(frozen=True, slots=True)
class Bounded:
    """What is kept of some pieces."""

    pieces: list[Piece]
    since: float  # seconds since 1970 from which values of series are kept; 0 if all were kept
    workers: int  # worker-ticks that were dropped


def newest(pieces: Sequence[Piece], most: int) -> Bounded:
    """The newest values of pieces, by the clock, that fit into `most` bytes. Workers get at most half of it. Of the rest each owner
    has at most its quota."""
    if size(pieces) <= most:
        return Bounded(list(pieces), 0.0, 0)
    ticks = sum(map(_worker_ticks, pieces))
    workers = min(WORKER_BYTES * ticks, most // 2)
    kept = _with_newest_workers(pieces, workers // WORKER_BYTES)
    gone = ticks - sum(map(_worker_ticks, kept))
    left = (most - workers) // VALUE_BYTES
    if sum(map(_values, pieces)) <= left:
        return Bounded(kept, 0.0, gone)
    runs = [run for piece in pieces for run in piece.dataset.runs]
    interval, since = pieces[0].dataset.interval, dict[str, float]()
    for owner, room in places([run.owner for run in runs], [len(run.values) for run in runs], left).items():
        theirs = [run for run in runs if run.owner == owner]
        lengths = np.array([len(run.values) for run in theirs], dtype=np.float64)
        begins = np.array([run.at for run in theirs])
        since[owner] = latest(begins, begins + lengths * interval, lengths, room) if room < lengths.sum() else 0.0
    cut = [replace(piece, dataset=replace(piece.dataset, runs=_since(piece.dataset.runs, since, interval))) for piece in kept]
    return Bounded(cut, max(since.values()), gone)


def latest(first: NDArray[np.float64], last: NDArray[np.float64], counts: NDArray[np.float64], most: float) -> float:
    """The earliest time after which at most `most` things happened, with `counts` of them spread evenly from `first` to `last`."""
    low, high = float(first.min()), float(last.max())
    for _ in range(60):
        middle = (low + high) / 2
        after = np.clip((last - middle) / np.maximum(last - first, 1e-9), 0.0, 1.0)
        low, high = (middle, high) if float(np.ceil(after * counts).sum()) > most else (low, middle)
    return high


def together(pieces: Sequence[Piece], names: Sequence[str]) -> Dataset:
    """One data set of pieces, those of each machine in the order it recorded them. `names`: of the machines. With several machines
    a target is called MACHINE/GROUP."""
    if len(names) == 1 and len(pieces) == 1:
        return pieces[0].dataset
    totals = [
        max((piece.start + piece.dataset.ticks for piece in pieces if piece.machine == m), default=0) for m in range(len(names))
    ]
    several = len(names) > 1
    runs, sessions = list[SeriesRun](), list[Sequence[WorkerTick]]()
    for m, name in enumerate(names):
        offset, prefix = max(totals) - totals[m], f"{name}/" if several else ""
        mine = [piece for piece in pieces if piece.machine == m]
        seams = {piece.start + offset for piece in mine if piece.dataset.continues}
        own = [
            replace(run, target=prefix + run.target, start=run.start + piece.start + offset)
            for piece in mine
            for run in piece.dataset.runs
        ]
        runs += _joined(own, seams)
        sessions += _joined_sessions([piece.dataset for piece in mine])
    unused = min((run.start for run in runs), default=0)  # ticks before all that was kept
    runs = sorted((replace(run, start=run.start - unused) for run in runs), key=lambda run: (run.start, run.target, run.metric))
    data = [piece.dataset.data for piece in pieces]
    skipped = [f"{names[piece.machine]}: {it}" if several else it for piece in pieces for it in piece.dataset.skipped]
    return Dataset(
        interval=pieces[0].dataset.interval,
        ticks=max(totals) - unused,
        runs=tuple(runs),
        workers=WorkerTraces(tuple(sessions)),
        data=DataRange(
            first_wall=min(it.first_wall for it in data),
            last_wall=max(it.last_wall for it in data),
            ticks=sum(it.ticks for it in data),
            processes=max(it.processes for it in data),
            groups=len({run.target for run in runs}),
            digest=_digest(runs),
        ),
        skipped=tuple(dict.fromkeys(skipped)),
        sighted=_sighted(pieces, [max(totals) - total - unused for total in totals]),
    )


def moment(seconds: float) -> str:
    """A time for people, in UTC.

    >>> moment(1_764_067_260)
    '2025-11-25 10:41 UTC'
    """
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return "a time that no calendar has"


def _values(piece: Piece) -> int:
    return sum(len(run.values) for run in piece.dataset.runs)


def _worker_ticks(piece: Piece) -> int:
    return sum(len(tick.keys) for session in piece.dataset.workers.sessions for tick in session)


def _since(runs: Sequence[SeriesRun], since: Mapping[str, float], interval: float) -> tuple[SeriesRun, ...]:
    """What lies after a time, by owner, copied: the old arrays may be part of a larger one."""
    kept = []
    for run in runs:
        gone = min(max(math.ceil((since[run.owner] - run.at) / interval), 0), len(run.values))
        if len(run.values) - gone > MIN_TICKS:
            kept.append(replace(run, start=run.start + gone, values=run.values[gone:].copy(), at=run.at + gone * interval))
    return tuple(kept)


def _with_newest_workers(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """Pieces with at most `most` worker-ticks, of the newest sessions; a session that does not fit is cut."""
    order = sorted(range(len(pieces)), key=lambda at: pieces[at].dataset.data.last_wall, reverse=True)
    kept = list(pieces)
    for at in order:
        sessions: list[Sequence[WorkerTick]] = []
        for session in reversed(pieces[at].dataset.workers.sessions):
            behind = list(accumulate(len(tick.keys) for tick in reversed(session)))
            fits = sum(count <= most for count in behind)
            if fits and behind[fits - 1]:
                sessions.append(session[len(session) - fits :])
                most -= behind[fits - 1]
            if fits < len(session):
                most = 0
        theirs = pieces[at].dataset.workers
        whole = sum(map(len, sessions)) == sum(map(len, theirs.sessions))
        workers = WorkerTraces(tuple(reversed(sessions)), theirs.begins and whole, theirs.ends and bool(sessions))
        kept[at] = replace(pieces[at], dataset=replace(pieces[at].dataset, workers=workers))
    return kept


def _joined(runs: Sequence[SeriesRun], seams: Set[int]) -> list[SeriesRun]:
    """Series that were cut only because a piece ended, at these ticks, in one."""
    ends: dict[tuple[str, str, str, int], list[SeriesRun]] = {}  # by target, metric, owner, and tick after the last value
    for run in sorted(runs, key=lambda run: run.start):
        key = run.target, run.metric, run.owner
        before = ends.pop((*key, run.start), None) if run.start in seams else None
        if before is not None and sum(len(part.values) for part in before) + len(run.values) > MAX_RUN:
            ends[(*key, run.start)] = before
            before = None
        ends.setdefault((*key, run.start + len(run.values)), []).extend([*(before or []), run])
    return [
        parts[0] if len(parts) == 1 else replace(parts[0], values=np.concatenate([part.values for part in parts]))
        for parts in ends.values()
    ]


def _joined_sessions(datasets: Sequence[Dataset]) -> list[Sequence[WorkerTick]]:
    """The sessions of a machine's workers; those that were cut only because a piece ended in one."""
    joined = list[Sequence[WorkerTick]]()
    ends = False
    for dataset in datasets:
        first, *others = dataset.workers.sessions or ((),)
        if joined and ends and dataset.continues and dataset.workers.begins and len(joined[-1]) + len(first) <= MAX_RUN:
            joined[-1] = [*joined[-1], *first]
        elif first:
            joined.append(first)
        joined += others
        ends = dataset.workers.ends
    return joined


def _digest(runs: Sequence[SeriesRun]) -> str:
    digest = hashlib.sha256()
    for run in runs:
        digest.update(f"{run.target}\0{run.metric}\0{run.start}\0{len(run.values)}\0".encode())
        digest.update(run.values.tobytes())
    return digest.hexdigest()


def _sighted(pieces: Sequence[Piece], offsets: Sequence[int]) -> Sighted:
    """What groups with a class did on all machines: a group is the same program everywhere. At most `MOST_ROWS` of each, spread
    over its rows by machine and tick."""
    classes: dict[str, Class] = {}
    found: dict[str, list[tuple[int, NDArray[np.float64]]]] = {}
    for piece in pieces:
        sighted = piece.dataset.sighted
        classes.update(sighted.classes)
        ticks = (sighted.ticks + offsets[piece.machine] + piece.start).tolist()
        for group, tick, row in zip(sighted.groups, ticks, sighted.rows, strict=True):
            if tick >= 0:
                found.setdefault(group, []).append((tick, row))
    kept = [(group, *rows[at]) for group, rows in sorted(found.items()) for at in range(0, len(rows), -(-len(rows) // MOST_ROWS))]
    return Sighted(
        tuple(group for group, _, _ in kept),
        np.array([tick for _, tick, _ in kept], dtype=np.int64),
        np.array([row for _, _, row in kept], dtype=np.float64).reshape(len(kept), SEEN + 1),
        classes,
    )


# --- plain --------------------------------------------------------------------------------------------------------------------


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """The part of a data set that is not in arrays."""

    interval: float
    ticks: int
    data: DataRange
    skipped: tuple[str, ...]
    runs: list[tuple[str, str, int, float, str, int]]  # target, metric, start, at, owner, values
    sessions: list[int]  # ticks of each session of workers
    continues: bool
    begins: bool  # as in `WorkerTraces`
    ends: bool
    pools: list[str]
    owners: list[str]  # of workers
    groups: list[str]
    classes: dict[str, Class]


def packed(dataset: Dataset) -> tuple[Any, Arrays]:
    """A data set as plain data, as in JSON, and arrays."""
    ticks = [tick for session in dataset.workers.sessions for tick in session]
    crews, crew_of = list[WorkerTick](), list[int]()  # ticks whose workers differ from those of the tick before
    for tick in ticks:
        if not crews or (tick.keys, tick.pools, tick.owners) != (crews[-1].keys, crews[-1].pools, crews[-1].owners):
            crews.append(tick)
        crew_of.append(len(crews) - 1)
    pools = sorted({pool for tick in crews for pool in tick.pools})
    owners = sorted({tick.owner(at) for tick in crews for at in range(len(tick.keys))})
    groups = sorted(set(dataset.sighted.groups))
    plain = _Plain(
        interval=dataset.interval,
        ticks=dataset.ticks,
        data=dataset.data,
        skipped=dataset.skipped,
        runs=[(run.target, run.metric, run.start, run.at, run.owner, len(run.values)) for run in dataset.runs],
        sessions=[len(session) for session in dataset.workers.sessions],
        pools=pools,
        owners=owners,
        groups=groups,
        classes=dict(dataset.sighted.classes),
        continues=dataset.continues,
        begins=dataset.workers.begins,
        ends=dataset.workers.ends,
    )
    keys = [key for tick in crews for key in tick.keys]
    return msgspec.to_builtins(plain), {
        "values": np.concatenate([np.empty(0, np.float32), *(run.values for run in dataset.runs)]),
        "crews": np.array([len(tick.keys) for tick in crews], dtype=np.int64),
        "crew_of": np.array(crew_of, dtype=np.int64),
        "pids": np.array([key.pid for key in keys], dtype=np.uint64),
        "starts": np.array([key.start_ticks for key in keys], dtype=np.uint64),
        "pools": _places(pools, [pool for tick in crews for pool in tick.pools]),
        "owners": _places(owners, [tick.owner(at) for tick in crews for at in range(len(tick.keys))]),
        "channels": np.concatenate([np.empty((0, len(CHANNELS))), *(tick.values for tick in ticks)]),
        "sighted_groups": _places(groups, dataset.sighted.groups),
        "sighted_ticks": dataset.sighted.ticks,
        "sighted_rows": dataset.sighted.rows,
    }


def unpacked(plain: Any, arrays: Mapping[str, NDArray[Any]]) -> Dataset:
    """The inverse of `packed`. Raises ValueError for anything else."""
    try:
        it = msgspec.convert(plain, _Plain)
        shapes = {name: (array.dtype.str, array.shape[1:]) for name, array in arrays.items()}
        if shapes != _SHAPES:
            raise ValueError(f"arrays {shapes} instead of {_SHAPES}")
        if any(metric not in METRICS or length < 0 for _, metric, *_, length in it.runs) or min(it.sessions, default=0) < 0:
            raise ValueError("a series that cannot be")
        values = _split(arrays["values"], [length for *_, length in it.runs])
        runs = tuple(SeriesRun(*head[:3], series, *head[3:5]) for head, series in zip(it.runs, values, strict=True))
        workers, sighted = _workers(it, arrays), _sighted_of(it, arrays)
        return Dataset(it.interval, it.ticks, runs, workers, it.data, it.skipped, sighted, it.continues)
    except (msgspec.ValidationError, IndexError, TypeError) as error:
        raise ValueError(f"not a data set: {error}") from None


_SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "values": ("<f4", ()),
    "crews": ("<i8", ()),
    "crew_of": ("<i8", ()),
    "pids": ("<u8", ()),
    "starts": ("<u8", ()),
    "pools": ("<i4", ()),
    "owners": ("<i4", ()),
    "channels": ("<f8", (len(CHANNELS),)),
    "sighted_groups": ("<i4", ()),
    "sighted_ticks": ("<i8", ()),
    "sighted_rows": ("<f8", (SEEN + 1,)),
}


def _workers(it: _Plain, arrays: Mapping[str, NDArray[Any]]) -> WorkerTraces:
    ids = list(map(ProcId, arrays["pids"].tolist(), arrays["starts"].tolist()))
    pools = [it.pools[place] for place in arrays["pools"].tolist()]
    owners = [it.owners[place] for place in arrays["owners"].tolist()]
    sizes, crew_of = arrays["crews"], arrays["crew_of"]
    if not len(ids) == len(pools) == len(owners) == sizes.sum() or (len(sizes) and sizes.min() < 0):
        raise ValueError("workers without an identity, a pool or an owner")
    if len(crew_of) and not 0 <= crew_of.min() <= crew_of.max() < len(sizes):
        raise ValueError("a tick of workers who are not there")
    edges = [0, *accumulate(sizes.tolist())]
    crews = [(ids[low:high], pools[low:high], owners[low:high]) for low, high in pairwise(edges)]
    values = _split(arrays["channels"], sizes[crew_of].tolist())
    ticks = []
    for at, own in zip(crew_of.tolist(), values, strict=True):
        keys, its, whose = crews[at]
        ticks.append(WorkerTick(keys, its, own, whose))
    edges = [0, *accumulate(it.sessions)]
    if edges[-1] != len(ticks):
        raise ValueError("sessions of workers that are not as long as their ticks")
    return WorkerTraces(tuple(ticks[low:high] for low, high in pairwise(edges)), it.begins, it.ends)


def _sighted_of(it: _Plain, arrays: Mapping[str, NDArray[Any]]) -> Sighted:
    groups = tuple(it.groups[place] for place in arrays["sighted_groups"].tolist())
    if not len(groups) == len(arrays["sighted_ticks"]) == len(arrays["sighted_rows"]) or set(groups) - it.classes.keys():
        raise ValueError("rows of groups without a tick or a class")
    return Sighted(groups, arrays["sighted_ticks"], arrays["sighted_rows"], it.classes)


def _places(names: Sequence[str], values: Sequence[str]) -> NDArray[np.int32]:
    index = {name: place for place, name in enumerate(names)}
    return np.array([index[value] for value in values], dtype=np.int32)


def _split(values: NDArray[Any], lengths: Sequence[int]) -> list[NDArray[Any]]:
    """Parts of the given lengths. Raises ValueError unless they add up to all rows."""
    if sum(lengths) != len(values) or min(lengths, default=0) < 0:
        raise ValueError(f"{len(values)} rows where {sum(lengths)} belong")
    return np.split(values, np.cumsum(lengths)[:-1]) if lengths else []
