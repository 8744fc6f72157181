"""The columnar encoding: exact, small, and an error for everything that is not a record."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Flights, HostSample, Identity, PoolSample, Quota, SampleTable, Snapshot, WorkerSample
from nicety.scheduler.store.codec import CodecError, decode, encode
from nicety.scheduler.store.traces import SCHEMA


def table_of(ids: list[tuple[int, int]], cpu: int = 10**9) -> SampleTable:
    table = np.zeros(len(ids), dtype=SAMPLE)
    for place, (pid, start) in enumerate(sorted(ids)):
        table[place]["pid"], table[place]["start_ticks"] = pid, start
    table["cpu_ns"] = np.uint64(cpu) + np.arange(len(ids), dtype=np.uint64)
    table["rss_bytes"] = 4096 * 100
    table["state"] = ord("S")
    table["known"] = 7
    return table


def identity(name: str) -> Identity:
    return Identity(name, f"python3 {name}.py", "/user.slice", "session-1.scope", 1000)


def snapshot(ids: list[tuple[int, int]], cpu: int = 10**9) -> Snapshot:
    return Snapshot(
        at=5 * 10**12,
        wall=1_760_000_000 * 10**9,
        uptime_ticks=123_456,
        table=table_of(ids, cpu),
        identities={ProcId(*key): identity(f"p{key[0]}") for key in ids},
        host=HostSample((10**12, 2 * 10**12), 16 << 30, 9 << 30, (5, 6, 7)),
        pools=(),
    )


def pool(busy: float | None) -> PoolSample:
    workers = (WorkerSample(ProcId(7, 70), busy, True), WorkerSample(ProcId(8, 80), None, False))
    return PoolSample("web", 2, 3, 0.5, workers, ProcId(6, 60), None, "")


def same(a: Snapshot, b: Snapshot) -> bool:
    return (
        a.table.dtype == b.table.dtype
        and a.table.tobytes() == b.table.tobytes()
        and replace(a, table=b.table, identities=dict(a.identities)) == replace(b, identities=dict(b.identities))
    )


def through(snapshots: list[Snapshot]) -> list[Snapshot]:
    """Encoded one after the other, and decoded again."""
    result: list[Snapshot] = []
    before: Snapshot | None = None
    for one in snapshots:
        data = encode(one, before)
        result.append(decode(data, result[-1] if result else None, at=one.at, wall=one.wall))
        before = one
    return result


BASE = [(1, 3), (7, 70), (8, 80), (4711, 999)]


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("nothing changed", snapshot(BASE)),
        ("counters moved", snapshot(BASE, cpu=2 * 10**9)),
        ("counters went back", snapshot(BASE, cpu=5)),
        ("a counter of 64 bits", snapshot(BASE, cpu=2**64 - 10)),
        ("one left", snapshot(BASE[:2] + BASE[3:])),
        ("all left", snapshot([])),
        ("one came", snapshot([*BASE, (5000, 1)])),
        ("one came before all", snapshot([(0, 0), *BASE])),
        ("a pid was reused", snapshot([*BASE[:3], (4711, 1000)])),
        ("all others", snapshot([(2, 2), (9, 9)])),
        ("program changed by exec", replace(snapshot(BASE), identities={ProcId(*k): identity("other") for k in BASE})),
        ("an identity is not known any more", replace(snapshot(BASE), identities={})),
        ("another number of CPUs", replace(snapshot(BASE), host=HostSample((1, 2, 3), 1 << 30, 5, (1, 2, 3)))),
        ("no pressure", replace(snapshot(BASE), host=HostSample((1, 2), 1 << 30, 5, None))),
        ("a pool came", replace(snapshot(BASE), pools=(pool(0.25),))),
        ("time was stolen", replace(snapshot(BASE), host=HostSample((1, 2), 1 << 30, 5, None, 7, steal_ns=8, kernel_ns=9))),
        (
            "processes are bound",
            replace(snapshot(BASE), identities={ProcId(*k): replace(identity("a"), cpus=(1, 3)) for k in BASE}),
        ),
        ("a quota came", replace(snapshot(BASE), quotas=(Quota("/a", 5 * 10**9), Quota("/b", 7)))),
        ("times jumped back", replace(snapshot(BASE), at=1, wall=-5, uptime_ticks=1)),
    ],
)
def test_a_snapshot_comes_back_exactly_after_any_change(name: str, after: Snapshot) -> None:
    chain = [snapshot(BASE), after, snapshot(BASE)]
    assert all(same(a, b) for a, b in zip(chain, through(chain), strict=True)), name


def test_a_keyframe_needs_nothing_before_it() -> None:
    whole = replace(snapshot(BASE), pools=(pool(0.5), pool(None)))
    assert same(whole, decode(encode(whole, None), None, at=whole.at, wall=whole.wall))


def test_an_unchanged_pool_is_carried_and_a_changed_one_is_written() -> None:
    chain = [replace(snapshot(BASE), pools=pools) for pools in ((pool(0.5),), (pool(0.5),), (pool(0.75),), ())]
    assert all(same(a, b) for a, b in zip(chain, through(chain), strict=True))
    assert len(encode(chain[1], chain[0])) < len(encode(chain[2], chain[1]))


def test_processes_that_did_not_move_take_no_room() -> None:
    few, many = [(pid, 5) for pid in range(1, 11)], [(pid, 5) for pid in range(1, 2001)]
    sizes = []
    for ids in (few, many):
        before, after = snapshot(ids), snapshot(ids)
        after.table["cpu_ns"][3] += 12345
        sizes.append(len(encode(after, before)))
    assert sizes[1] <= sizes[0] + 2


def test_a_pid_that_is_reused_is_a_process_that_went_and_another_that_came() -> None:
    raw = zlib.decompress(encode(snapshot([*BASE[:3], (4711, 1000)]), snapshot(BASE)))
    rows, written, gone = struct.unpack_from("<III", raw)
    assert (rows, written, gone) == (4, 1, 1)


def test_every_truncation_of_a_record_is_refused() -> None:
    before, after = snapshot(BASE), replace(snapshot([*BASE, (5000, 1)], cpu=3), pools=(pool(0.5),))
    data = encode(after, before)
    for length in range(len(data)):
        with pytest.raises(CodecError):
            decode(data[:length], before, at=0, wall=0)


def test_flipped_bits_are_refused_or_harmless_and_nothing_else() -> None:
    rng = random.Random(11)
    before, after = snapshot(BASE), replace(snapshot([*BASE, (5000, 1)], cpu=3), pools=(pool(0.5),))
    raw = bytearray(zlib.decompress(encode(after, before)))
    refused = 0
    for _ in range(3000):
        broken = bytearray(raw)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        try:  # compressed anew, so that zlib's own checksum does not stop it: only the record's sense is left
            decoded = decode(zlib.compress(bytes(broken), 1), before, at=0, wall=0)
        except CodecError:
            refused += 1
        else:
            keys = [(int(row["pid"]), int(row["start_ticks"])) for row in decoded.table]
            assert keys == sorted(set(keys))
    assert refused > 500


def test_a_record_does_not_follow_any_other_snapshot() -> None:
    data = encode(snapshot(BASE[:1]), snapshot(BASE))
    with pytest.raises(CodecError):
        decode(data, None, at=0, wall=0)


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 0, 2, 3]])
def test_a_table_that_is_not_sorted_with_each_process_once_is_a_fault_of_the_caller(order: list[int]) -> None:
    wrong = snapshot(BASE)
    with pytest.raises(ValueError, match="not sorted"):
        encode(replace(wrong, table=wrong.table[order]), None)
    with pytest.raises(ValueError, match="dtype SAMPLE"):
        encode(replace(wrong, table=np.zeros(3, dtype=[("pid", "<u4")])), None)


def test_decoded_tables_cannot_be_changed_under_the_next_record() -> None:
    with pytest.raises(ValueError, match="read-only"):
        through([snapshot(BASE)])[0].table["cpu_ns"][0] = 1


def test_the_schema_version_moves_with_the_columns_and_the_encoding() -> None:
    whole = replace(snapshot(BASE), pools=(pool(0.5),))
    seen = hashlib.sha256(repr(SAMPLE.descr).encode() + zlib.decompress(encode(whole, None))).hexdigest()[:16]
    assert (SCHEMA, seen) == (8, "5e8c2961c67c441c"), "recorded traces become unreadable: give traces.SCHEMA a new number"


def test_a_pool_that_was_recorded_before_requests_were_seen_is_read() -> None:
    flights = Flights(2.5, 2, (0.05, 0.1))
    now = replace(snapshot(BASE), pools=(replace(pool(0.5), flights=flights),))
    assert through([now])[0].pools[0].flights == flights
    raw = zlib.decompress(encode(now, None))
    sizes = struct.unpack_from("<IIII", raw)
    fields = msgspec.msgpack.decode(raw[-sizes[3] :])
    assert fields[10][0].pop() == [2.5, 2, [0.05, 0.1]]
    rest = msgspec.msgpack.encode(fields)
    older = zlib.compress(struct.pack("<IIII", *sizes[:3], len(rest)) + raw[16 : -sizes[3]] + rest)
    assert decode(older, None, at=now.at, wall=now.wall).pools == (pool(0.5),)
