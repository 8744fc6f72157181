"""Snapshots to bytes and back: what changed since the previous snapshot, column by column. Pure; knows no file and no session.

`encode(now, before)` and `decode(data, before)` are inverses: `before` is the snapshot that was encoded just before, None for a
keyframe that needs none. A row that equals its process's row in `before` is not written, so unchanged rows carry forward.

One record, before zlib (level 1; all numbers little-endian):

    header      u4 rows of the table, u4 rows written, u4 rows gone, u4 bytes of the rest
    mask        1 bit per byte plane of the written rows: whether it has anything but zeros
    planes      each plane with its bit set: one byte of one column, of all written rows
    mask, planes likewise of the positions that are gone
    rest        msgpack: uptime, identities, host, pools, quotas

The columns of a written row: the gap to the previous written row (u4), 1 if the process is new (u1), then the columns of
`SAMPLE` as zigzag differences to the process's row in `before` (to zeros for a new one). Small differences have zero high bytes,
whole planes of zeros cost one bit, and bytes of equal weight are adjacent for zlib.
"""

from __future__ import annotations

import struct
import zlib
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...models.identity import ProcId
from ...models.records import SAMPLE, Flights, HostSample, Identity, PoolSample, Quota, SampleTable, Snapshot, WorkerSample

MAX_ROWS = 1 << 17
"""Maximum rows of a table; more is damage. Chosen: four times as many processes as Linux allows by default up to 32 CPUs (pid_max
is 32,768), and so few that a reader never needs 512 MB or a second for one record, no matter who made it."""

MAX_REST = 1 << 23
"""Maximum bytes of the rest. Chosen: 100 for each of 80,000 processes; a list of as many small records takes 200 MB in memory."""

MAX_CPUS, MAX_POOLS = 8192, 1024
"""Maximum CPUs and pools. Linux has at most 8192 CPUs (CONFIG_NR_CPUS). More pools than anyone configures (chosen)."""

MAX_SECONDS = 64
"""Maximum times of a pool's answers; see `Flights`."""

MAX_BYTES = 1 << 25
"""A record that unpacks to more is damage: MAX_ROWS new rows and MAX_REST just fit."""

_HEADER = struct.Struct("<IIII")
_EXTRA = 5  # bytes of a written row before its samples: gap and newness

Bytes2 = NDArray[np.uint8]


class CodecError(ValueError):
    """Bytes that no encoder has written, or that do not follow the snapshot before."""


class _Width(NamedTuple):
    """The columns of SAMPLE that are `size` bytes wide, handled together."""

    size: int
    unsigned: np.dtype[np.unsignedinteger[Any]]
    signed: np.dtype[np.signedinteger[Any]]
    where: NDArray[np.intp]  # their bytes within a row


def _widths() -> tuple[_Width, ...]:
    by_size: dict[int, list[int]] = {}
    assert SAMPLE.fields is not None
    for kind, offset, *_ in SAMPLE.fields.values():
        by_size.setdefault(kind.itemsize, []).extend(range(offset, offset + kind.itemsize))
    return tuple(
        _Width(size, np.dtype(f"<u{size}"), np.dtype(f"<i{size}"), np.array(where, dtype=np.intp))
        for size, where in sorted(by_size.items(), reverse=True)
    )


_WIDTHS = _widths()
_PLANES = _EXTRA + SAMPLE.itemsize


class _Identity(msgspec.Struct, array_like=True, frozen=True):
    pid: int
    start_ticks: int
    comm: str
    program: str
    cgroup: str
    unit: str
    uid: int
    port: int
    cpus: tuple[int, ...]
    real_uid: int | None


class _Flights(msgspec.Struct, array_like=True, frozen=True):
    held: float
    ended: int
    seconds: Annotated[list[float], Meta(max_length=MAX_SECONDS)]


class _Pool(msgspec.Struct, array_like=True, frozen=True):
    pool: str
    size: int
    requested: int
    queued: float | None
    workers: Annotated[list[tuple[int, int, float | None, bool]], Meta(max_length=MAX_ROWS)]
    master: tuple[int, int] | None
    start_seconds: float | None
    trouble: str
    flights: _Flights | None = None


class _Rest(msgspec.Struct, array_like=True, frozen=True):
    """All but the table. Counters are differences to the snapshot before (to 0 if it has none)."""

    uptime_ticks: int
    identities: Annotated[list[_Identity], Meta(max_length=MAX_ROWS)]  # new or changed
    forgotten: Annotated[list[tuple[int, int]], Meta(max_length=MAX_ROWS)]  # identities that are gone although their process is not
    cpu_busy_ns: Annotated[list[int], Meta(max_length=MAX_CPUS)]
    memory_total: int
    memory_available: int
    pressure_us: tuple[int, int, int] | None
    forks: int
    steal_ns: int
    kernel_ns: int
    pools: Annotated[list[int | _Pool], Meta(max_length=MAX_POOLS)]  # the place of an unchanged pool in the one before, or a pool
    quota_cgroups: Annotated[list[str], Meta(max_length=MAX_ROWS)] | None  # None: as before
    throttled_ns: Annotated[list[int], Meta(max_length=MAX_ROWS)]


_PACK = msgspec.msgpack.Encoder()
_UNPACK = msgspec.msgpack.Decoder(_Rest)


def encode(now: Snapshot, before: Snapshot | None) -> bytes:
    """The record of `now` after `before`; a keyframe if `before` is None.

    Raises ValueError for a table that is not of dtype SAMPLE or not strictly rising by (pid, start_ticks), and CodecError for more
    processes than `decode` believes.
    """
    rows, keys = _rows(now.table)
    if len(rows) > MAX_ROWS:
        raise CodecError(f"{len(rows)} processes; at most {MAX_ROWS} can be recorded")
    if len(keys) > 1 and not (keys[1:] > keys[:-1]).all():
        raise ValueError("the sample table is not sorted by (pid, start_ticks) with each process once")
    old_rows, old_keys = _rows(before.table if before is not None else np.zeros(0, dtype=SAMPLE))
    if np.array_equal(keys, old_keys):  # on most ticks nobody came or went
        base = old_rows
        there = stays = np.ones(len(keys), dtype=np.bool_)
    else:
        base = np.zeros_like(rows)
        there, stays = np.zeros(len(keys), dtype=np.bool_), np.zeros(len(old_keys), dtype=np.bool_)
        if len(keys) and len(old_keys):
            at = np.minimum(np.searchsorted(old_keys, keys), len(old_keys) - 1)
            there = old_keys[at] == keys
            base[there] = old_rows[at[there]]
            stays[at[there]] = True
    written = np.flatnonzero((rows != base).any(axis=1) | ~there)
    gone = np.flatnonzero(~stays)
    ids = {ProcId(pid, start) for pid, start in zip(*_ids(before, gone), strict=True)} if before is not None else set()
    rest = _PACK.encode(_rest(now, before, ids))
    if len(rest) > MAX_REST:
        raise CodecError(f"{len(rest)} bytes of names; at most {MAX_REST} can be recorded")
    body = _squeeze(_written_planes(rows, base, written, there))
    raw = b"".join((_HEADER.pack(len(rows), len(written), len(gone), len(rest)), body, _squeeze(_gaps(gone)), rest))
    return zlib.compress(raw, 1)


def decode(data: bytes, before: Snapshot | None, *, at: int, wall: int) -> Snapshot:
    """The snapshot that `encode` had; `before` must be the one decoded just before (ignored times apart), None for a keyframe.

    The table is read-only: the next record builds on it. Raises CodecError for anything but a record that follows `before`.
    """
    raw = _unzipped(data)
    n, n_written, n_gone, n_rest = _HEADER.unpack_from(raw)
    old_rows, _ = _rows(before.table if before is not None else np.zeros(0, dtype=SAMPLE))
    if n > MAX_ROWS or n_written > n or n_gone > len(old_rows):
        raise CodecError(f"impossible counts: {n_written} of {n} rows written and {n_gone} of {len(old_rows)} gone")
    planes, offset = _unsqueeze(raw, _HEADER.size, _PLANES, n_written)
    gone_planes, offset = _unsqueeze(raw, offset, 4, n_gone)
    if len(raw) - offset != n_rest:
        raise CodecError(f"{n_rest} bytes of rest announced, {len(raw) - offset} there")
    gone = _positions(gone_planes, len(old_rows))
    written = _positions(planes[:4], n)
    rows = _rebuilt(old_rows, gone, written, planes, n)
    table = rows.view(SAMPLE).reshape(n)
    keys = _keys(table)
    if n > 1 and not (keys[1:] > keys[:-1]).all():
        raise CodecError("the decoded table is not sorted by (pid, start_ticks)")
    table.flags.writeable = False
    return _snapshot(_unpacked_rest(raw, n_rest), before, table, gone, at, wall)


def decode_pools(data: bytes, before: tuple[PoolSample, ...]) -> tuple[PoolSample, ...]:
    """The pools of a record alone, without its table: a fifth of the time. `before`: those of the record before, () for a keyframe.

    Raises CodecError like `decode`.
    """
    raw = _unzipped(data)
    n_rest = _HEADER.unpack_from(raw)[3]
    if n_rest > len(raw) - _HEADER.size:
        raise CodecError(f"{n_rest} bytes of rest announced, {len(raw)} in all")
    return _pools(_unpacked_rest(raw, n_rest), before)


def _unzipped(data: bytes) -> bytes:
    unzip = zlib.decompressobj()
    try:
        raw = unzip.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise CodecError(f"not a zlib stream: {error}") from None
    if not unzip.eof or unzip.unused_data:
        raise CodecError("the zlib stream does not end where the record ends")
    if len(raw) < _HEADER.size:
        raise CodecError(f"a record has at least {_HEADER.size} bytes, this has {len(raw)}")
    return raw


def _unpacked_rest(raw: bytes, size: int) -> _Rest:
    """The last `size` bytes of an unzipped record."""
    if size > MAX_REST:
        raise CodecError(f"{size} bytes of rest; at most {MAX_REST} are written")
    try:
        return _UNPACK.decode(memoryview(raw)[len(raw) - size :])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CodecError(f"the rest of the record: {error}") from None


# --- tables -------------------------------------------------------------------------------------------------------------------


def _rows(table: SampleTable) -> tuple[Bytes2, NDArray[np.bytes_]]:
    """A table as a matrix of bytes, and its sortable keys."""
    if table.dtype != SAMPLE or table.ndim != 1:
        raise ValueError(f"a sample table is a one-dimensional array of dtype SAMPLE, this is {table.dtype} {table.shape}")
    table = np.ascontiguousarray(table)
    return table.view(np.uint8).reshape(len(table), SAMPLE.itemsize), _keys(table)


def _keys(table: SampleTable) -> NDArray[np.bytes_]:
    """(pid, start_ticks) as twelve big-endian bytes: they sort like the pair, for every value of both."""
    pair = np.empty(len(table), dtype=[("pid", ">u4"), ("start_ticks", ">u8")])
    pair["pid"] = table["pid"]
    pair["start_ticks"] = table["start_ticks"]
    return pair.view("S12")


def _ids(before: Snapshot, where: NDArray[np.intp]) -> tuple[list[int], list[int]]:
    """Pids and start ticks of these rows of the snapshot before."""
    table = before.table[where]
    return table["pid"].tolist(), table["start_ticks"].tolist()


def _written_planes(rows: Bytes2, base: Bytes2, written: NDArray[np.intp], there: NDArray[np.bool_]) -> Bytes2:
    """Byte planes of the rows to write, one per row of the result."""
    now, then = rows[written], base[written]
    planes = [_gaps(written), (~there[written]).astype(np.uint8)[np.newaxis]]
    for width in _WIDTHS:
        moved = (_columns(now, width) - _columns(then, width)).view(width.signed)
        zigzag = (moved << 1) ^ (moved >> (8 * width.size - 1))
        planes.append(zigzag.view(np.uint8).reshape(len(now), len(width.where)).T)
    return np.concatenate(planes)


def _rebuilt(old_rows: Bytes2, gone: NDArray[np.intp], written: NDArray[np.intp], planes: Bytes2, n: int) -> Bytes2:
    """The inverse of `_written_planes`: the rows of the table from those of the one before."""
    new = planes[4]
    if (new > 1).any():
        raise CodecError("a row's mark for a new process is neither 0 nor 1")
    kept = np.delete(old_rows, gone, axis=0)
    born = written[new == 1]
    if len(kept) + len(born) != n:
        raise CodecError(f"{len(kept)} rows kept and {len(born)} new do not make {n}")
    carried = np.ones(n, dtype=np.bool_)
    carried[born] = False
    rows = np.zeros((n, SAMPLE.itemsize), dtype=np.uint8)
    rows[carried] = kept
    now = rows[written]
    first = _EXTRA
    for width in _WIDTHS:
        last = first + len(width.where)
        zigzag = np.ascontiguousarray(planes[first:last].T).view(width.unsigned)
        moved = (zigzag >> 1) ^ (~(zigzag & 1) + width.unsigned.type(1))
        now[:, width.where] = (_columns(now, width) + moved).view(np.uint8).reshape(len(now), len(width.where))
        first = last
    rows[written] = now
    return rows


def _columns(rows: Bytes2, width: _Width) -> NDArray[np.unsignedinteger[Any]]:
    """The columns of one width as numbers. Uses `take`: indexing by a list of columns would not leave them adjacent."""
    numbers: NDArray[np.unsignedinteger[Any]] = rows.take(width.where, axis=1).view(width.unsigned)
    return numbers


def _gaps(positions: NDArray[np.intp]) -> Bytes2:
    """Byte planes of rising positions, each as the number of places skipped since the previous one."""
    gaps = (np.diff(positions, prepend=-1) - 1).astype("<u4")
    return gaps.view(np.uint8).reshape(len(positions), 4).T


def _positions(planes: Bytes2, n: int) -> NDArray[np.intp]:
    """The inverse of `_gaps`; the positions are below `n`."""
    gaps = np.ascontiguousarray(planes.T).view("<u4").reshape(-1)
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(positions) and positions[-1] >= n:
        raise CodecError(f"row {positions[-1]} of a table of {n}")
    return positions.astype(np.intp)


def _squeeze(planes: Bytes2) -> bytes:
    """A bit for each plane, then those planes that are not all zero."""
    used = planes.any(axis=1)
    return np.packbits(used).tobytes() + planes[used].tobytes()


def _unsqueeze(raw: bytes, offset: int, count: int, width: int) -> tuple[Bytes2, int]:
    """The inverse of `_squeeze`, and the offset after it."""
    mask_bytes = (count + 7) // 8
    if len(raw) - offset < mask_bytes:
        raise CodecError("the record ends within a mask")
    used = np.unpackbits(np.frombuffer(raw, np.uint8, mask_bytes, offset), count=count).astype(np.bool_)
    offset += mask_bytes
    size = int(used.sum()) * width
    if len(raw) - offset < size:
        raise CodecError("the record ends within its columns")
    planes = np.zeros((count, width), dtype=np.uint8)
    planes[used] = np.frombuffer(raw, np.uint8, size, offset).reshape(int(used.sum()), width)
    return planes, offset + size


# --- the rest -----------------------------------------------------------------------------------------------------------------


def _rest(now: Snapshot, before: Snapshot | None, gone: set[ProcId]) -> _Rest:
    known = before.identities if before is not None else {}
    changed: list[_Identity] = []
    forgotten: list[tuple[int, int]] = []
    if gone or now.identities != known:  # compared in C, values by `is` first: most ticks end here
        changed = [
            _Identity(who.pid, who.start_ticks, it.comm, it.program, it.cgroup, it.unit, it.uid, it.port, it.cpus, it.real_uid)
            for who, it in now.identities.items()
            if known.get(who) != it or who in gone
        ]
        forgotten = sorted((who.pid, who.start_ticks) for who in known if who not in now.identities and who not in gone)
    host, old = now.host, before.host if before is not None else HostSample((), 0, 0, None)
    pressure = host.pressure_us
    if pressure is not None and old.pressure_us is not None:
        a, b = pressure, old.pressure_us
        pressure = (a[0] - b[0], a[1] - b[1], a[2] - b[2])
    pools = {pool: place for place, pool in enumerate(before.pools)} if before is not None else {}
    quotas = [quota.cgroup for quota in now.quotas]
    throttled = dict(before.quotas) if before is not None else {}
    return _Rest(
        now.uptime_ticks - (before.uptime_ticks if before is not None else 0),
        changed,
        forgotten,
        [a - b for a, b in zip(host.cpu_busy_ns, _cpus_before(len(host.cpu_busy_ns), old), strict=True)],
        host.memory_total - old.memory_total,
        host.memory_available - old.memory_available,
        pressure,
        host.forks - old.forks,
        host.steal_ns - old.steal_ns,
        host.kernel_ns - old.kernel_ns,
        [pools[pool] if pool in pools else _packed(pool) for pool in now.pools],
        None if before is not None and quotas == [quota.cgroup for quota in before.quotas] else quotas,
        [quota.throttled_ns - throttled.get(quota.cgroup, 0) for quota in now.quotas],
    )


def _snapshot(rest: _Rest, before: Snapshot | None, table: SampleTable, gone: NDArray[np.intp], at: int, wall: int) -> Snapshot:
    identities = before.identities if before is not None else {}
    if rest.identities or rest.forgotten or len(gone):
        mutable = dict(identities)
        if before is not None:
            for pid, start in zip(*_ids(before, gone), strict=True):
                mutable.pop(ProcId(pid, start), None)
        for pid, start in rest.forgotten:
            if mutable.pop(ProcId(pid, start), None) is None:
                raise CodecError(f"forgets the identity of process {pid}, which has none")
        for it in rest.identities:
            mutable[ProcId(it.pid, it.start_ticks)] = Identity(
                it.comm, it.program, it.cgroup, it.unit, it.uid, it.port, it.cpus, it.real_uid
            )
        identities = dict(sorted(mutable.items())) if rest.identities else mutable  # as the table: then few look them up
    old = before.host if before is not None else HostSample((), 0, 0, None)
    pressure = rest.pressure_us
    if pressure is not None and old.pressure_us is not None:
        a, b = pressure, old.pressure_us
        pressure = (a[0] + b[0], a[1] + b[1], a[2] + b[2])
    return Snapshot(
        at=at,
        wall=wall,
        uptime_ticks=rest.uptime_ticks + (before.uptime_ticks if before is not None else 0),
        table=table,
        identities=identities,
        host=HostSample(
            tuple(a + b for a, b in zip(rest.cpu_busy_ns, _cpus_before(len(rest.cpu_busy_ns), old), strict=True)),
            rest.memory_total + old.memory_total,
            rest.memory_available + old.memory_available,
            pressure,
            rest.forks + old.forks,
            rest.steal_ns + old.steal_ns,
            rest.kernel_ns + old.kernel_ns,
        ),
        pools=_pools(rest, before.pools if before is not None else ()),
        quotas=_quotas(rest, before.quotas if before is not None else ()),
    )


def _quotas(rest: _Rest, before: tuple[Quota, ...]) -> tuple[Quota, ...]:
    cgroups = [quota.cgroup for quota in before] if rest.quota_cgroups is None else rest.quota_cgroups
    if len(cgroups) != len(rest.throttled_ns):
        raise CodecError(f"{len(rest.throttled_ns)} throttled times for {len(cgroups)} quotas")
    then = dict(before)
    return tuple(Quota(cgroup, more + then.get(cgroup, 0)) for cgroup, more in zip(cgroups, rest.throttled_ns, strict=True))


def _pools(rest: _Rest, before: tuple[PoolSample, ...]) -> tuple[PoolSample, ...]:
    pools = []
    if sum(len(pool.workers) for pool in rest.pools if not isinstance(pool, int)) > MAX_ROWS:
        raise CodecError("more workers than processes can be recorded")
    for pool in rest.pools:
        if not isinstance(pool, int):
            pools.append(_unpacked(pool))
        elif 0 <= pool < len(before):
            pools.append(before[pool])
        else:
            raise CodecError(f"pool {pool} of {len(before)} in the snapshot before")
    return tuple(pools)


def _cpus_before(count: int, old: HostSample) -> tuple[int, ...]:
    """The base of the per-CPU counter differences: zeros once the number of online CPUs has changed."""
    return old.cpu_busy_ns if len(old.cpu_busy_ns) == count else (0,) * count


def _packed(pool: PoolSample) -> _Pool:
    return _Pool(
        pool.pool,
        pool.size,
        pool.requested,
        pool.queued,
        [(worker.id.pid, worker.id.start_ticks, worker.busy, worker.ready) for worker in pool.workers],
        pool.master,
        pool.start_seconds,
        pool.trouble,
        None if pool.flights is None else _Flights(pool.flights.held, pool.flights.ended, list(pool.flights.seconds)),
    )


def _unpacked(pool: _Pool) -> PoolSample:
    return PoolSample(
        pool=pool.pool,
        size=pool.size,
        requested=pool.requested,
        queued=pool.queued,
        workers=tuple(WorkerSample(ProcId(pid, start), busy, ready) for pid, start, busy, ready in pool.workers),
        master=ProcId(*pool.master) if pool.master is not None else None,
        start_seconds=pool.start_seconds,
        trouble=pool.trouble,
        flights=None if pool.flights is None else Flights(pool.flights.held, pool.flights.ended, tuple(pool.flights.seconds)),
    )
