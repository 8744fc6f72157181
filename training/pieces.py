"""Pieces of data sets: merged into one, kept within a size, and turned into plain arrays and back. Must not know files.

A piece is what one machine recorded in one stretch of time. When merged, all machines end at the same tick whatever their clocks
say, so the held-out time is the end of each. A machine that recorded for less than the held-out time of the longest is only judged
on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
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
from .dataset import Dataset
from .quotas import places
from .stream import SeriesRun

VALUE_BYTES = 4
"""Memory of a value of a series, a float32."""
WORKER_BYTES = 209
"""Memory of a worker-tick, as measured for `dataset.MAX_WORKER_TICKS`."""

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
    runs: list[SeriesRun] = []
    for piece in pieces:
        offset = max(totals) - totals[piece.machine] + piece.start
        prefix = f"{names[piece.machine]}/" if several else ""
        runs += [replace(run, target=prefix + run.target, start=run.start + offset) for run in piece.dataset.runs]
    unused = min((run.start for run in runs), default=0)  # ticks before all that was kept
    runs = sorted((replace(run, start=run.start - unused) for run in runs), key=lambda run: (run.start, run.target, run.metric))
    data = [piece.dataset.data for piece in pieces]
    skipped = [f"{names[piece.machine]}: {it}" if several else it for piece in pieces for it in piece.dataset.skipped]
    return Dataset(
        interval=pieces[0].dataset.interval,
        ticks=max(totals) - unused,
        runs=tuple(runs),
        workers=WorkerTraces(tuple(session for piece in pieces for session in piece.dataset.workers.sessions)),
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
        kept[at] = replace(pieces[at], dataset=replace(pieces[at].dataset, workers=WorkerTraces(tuple(reversed(sessions)))))
    return kept


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
    pools: list[str]
    owners: list[str]  # of workers
    groups: list[str]
    classes: dict[str, Class]


def packed(dataset: Dataset) -> tuple[Any, Arrays]:
    """A data set as plain data, as in JSON, and arrays."""
    ticks = [tick for session in dataset.workers.sessions for tick in session]
    pools = sorted({pool for tick in ticks for pool in tick.pools})
    owners = sorted({tick.owner(at) for tick in ticks for at in range(len(tick.keys))})
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
    )
    keys = [key for tick in ticks for key in tick.keys]
    return msgspec.to_builtins(plain), {
        "values": np.concatenate([np.empty(0, np.float32), *(run.values for run in dataset.runs)]),
        "workers": np.array([len(tick.keys) for tick in ticks], dtype=np.int64),
        "pids": np.array([key.pid for key in keys], dtype=np.uint64),
        "starts": np.array([key.start_ticks for key in keys], dtype=np.uint64),
        "pools": _places(pools, [pool for tick in ticks for pool in tick.pools]),
        "owners": _places(owners, [tick.owner(at) for tick in ticks for at in range(len(tick.keys))]),
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
        return Dataset(it.interval, it.ticks, runs, _workers(it, arrays), it.data, it.skipped, _sighted_of(it, arrays))
    except (msgspec.ValidationError, IndexError, TypeError) as error:
        raise ValueError(f"not a data set: {error}") from None


_SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "values": ("<f4", ()),
    "workers": ("<i8", ()),
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
    if not len(ids) == len(pools) == len(owners) or len(ids) != len(arrays["channels"]):
        raise ValueError("workers without an identity, a pool, an owner or values")
    ticks, low = [], 0
    for high, values in zip(
        np.cumsum(arrays["workers"]).tolist(), _split(arrays["channels"], arrays["workers"].tolist()), strict=True
    ):
        ticks.append(WorkerTick(ids[low:high], pools[low:high], values, owners[low:high]))
        low = high
    edges = [0, *accumulate(it.sessions)]
    if edges[-1] != len(ticks):
        raise ValueError("sessions of workers that are not as long as their ticks")
    return WorkerTraces(tuple(ticks[low:high] for low, high in pairwise(edges)))


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
