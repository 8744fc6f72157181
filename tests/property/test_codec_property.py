"""Whatever a machine does, its snapshots come back bit for bit from a chain of records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Flights, HostSample, Identity, PoolSample, Quota, Snapshot, WorkerSample
from nicety.scheduler.store.codec import decode, encode

U4, U8 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
COUNTER = st.integers(0, 2**62)
TEXT = st.text(max_size=12)
PROCESS = st.tuples(st.integers(0, 40), st.integers(0, 3) | U8).map(lambda key: ProcId(*key))
ROW = st.binary(min_size=SAMPLE.itemsize, max_size=SAMPLE.itemsize)
IDENTITY = st.builds(Identity, TEXT, TEXT, TEXT, TEXT, U4)
SHARE = st.none() | st.floats(min_value=0)
POOL = st.builds(
    PoolSample,
    pool=TEXT,
    size=st.integers(0, 100),
    requested=st.integers(0, 100),
    queued=SHARE,
    workers=st.lists(st.builds(WorkerSample, PROCESS, SHARE, st.booleans()), max_size=3).map(tuple),
    master=st.none() | PROCESS,
    start_seconds=SHARE,
    trouble=TEXT,
    flights=st.none() | st.builds(Flights, st.floats(min_value=0), U4, st.lists(st.floats(min_value=0), max_size=3).map(tuple)),
)
HOST = st.builds(
    HostSample,
    st.lists(COUNTER, max_size=4).map(tuple),
    COUNTER,
    COUNTER,
    st.none() | st.tuples(COUNTER, COUNTER, COUNTER),
    COUNTER,
    COUNTER,
    COUNTER,
)
QUOTAS = st.dictionaries(TEXT, COUNTER, max_size=3).map(lambda quotas: tuple(map(Quota._make, sorted(quotas.items()))))


@st.composite
def machines(draw: st.DrawFn) -> list[Snapshot]:
    """Snapshots one after the other: some rows stay, some move, processes come and go."""
    rows: dict[ProcId, bytes] = {}
    identities: dict[ProcId, Identity] = {}
    chain = []
    for _ in range(draw(st.integers(1, 5))):
        for key in draw(st.lists(st.sampled_from(sorted(rows)), max_size=3)) if rows else []:
            rows.pop(key, None)
            identities.pop(key, None)
        for key in draw(st.lists(PROCESS, max_size=4)):
            rows[key] = draw(ROW)
            if draw(st.booleans()):
                identities[key] = draw(IDENTITY)
        table = np.frombuffer(b"".join(rows[key] for key in sorted(rows)), dtype=SAMPLE).copy()
        table["pid"], table["start_ticks"] = [key.pid for key in sorted(rows)], [key.start_ticks for key in sorted(rows)]
        chain.append(
            Snapshot(
                at=draw(COUNTER),
                wall=draw(st.integers(-(2**62), 2**62)),
                uptime_ticks=draw(COUNTER),
                table=table,
                identities=dict(identities),
                host=draw(HOST),
                pools=tuple(draw(st.lists(POOL, max_size=2))),
                quotas=draw(QUOTAS),
            )
        )
    return chain


def parts(snapshot: Snapshot) -> tuple[Any, ...]:
    """All of a snapshot in a form that can be compared."""
    return (
        snapshot.table.dtype,
        snapshot.table.tobytes(),
        replace(snapshot, table=np.zeros(0, dtype=SAMPLE), identities={}).__repr__(),
    )


@settings(max_examples=120, deadline=None)
@given(machines(), st.data())
def test_every_tick_is_rebuilt_bit_for_bit_from_wherever_a_keyframe_stands(chain: list[Snapshot], data: st.DataObject) -> None:
    keyframes = {0} | data.draw(st.sets(st.integers(0, len(chain) - 1)))
    before: Snapshot | None = None
    rebuilt: Snapshot | None = None
    for place, one in enumerate(chain):
        key = place in keyframes
        record = encode(one, None if key else before)
        rebuilt = decode(record, None if key else rebuilt, at=one.at, wall=one.wall)
        assert parts(rebuilt) == parts(one)
        assert dict(rebuilt.identities) == dict(one.identities)
        before = one


@settings(max_examples=40, deadline=None)
@given(machines(), st.data())
def test_equal_snapshots_make_equal_records(chain: list[Snapshot], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(chain) - 1))
    before = chain[place - 1] if place else None
    copy = replace(chain[place], table=chain[place].table.copy(), identities=dict(chain[place].identities))
    assert encode(copy, before) == encode(chain[place], before)
