"""Whatever ticks come after one another, they come back as the same bytes; whatever bytes come, they are read or refused."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.models.records import Class, Forecast
from nicety.scheduler.decision import Group, Member, Note, Tick, Verdict, Worker, encode
from nicety.scheduler.store.differences import Cells, Encoder, RecordError
from nicety.scheduler.testing.ticks import a_machine, a_pool, a_tick

NAME = st.sampled_from(["a", "b", "c", '"members":[]']) | st.text(max_size=4)
NUMBER = st.sampled_from([0.0, -0.0, 0.1, 1.0]) | st.floats(allow_nan=False, allow_infinity=False)
PROCESS = st.builds(ProcId, st.integers(1, 6), st.integers(0, 2))
MEMBER = st.builds(Member, PROCESS, st.integers(0, 2), NAME, st.integers(-20, 19))
MEMBERS = st.lists(MEMBER, max_size=6).map(tuple)
GROUP = st.builds(
    Group, NAME, st.sampled_from(list(Class)), st.integers(0, 9), NUMBER, NUMBER, NUMBER, st.integers(0, 2**50), MEMBERS
)
WORKERS = st.lists(st.builds(Worker, PROCESS, st.booleans(), st.none() | NUMBER, NUMBER, NUMBER, st.integers(0, 9)), max_size=3)
POOL = st.builds(lambda name, workers, load: a_pool(name, load=load, workers=tuple(workers)), NAME, WORKERS, NUMBER)
VALUES = st.lists(st.lists(NUMBER, max_size=3).map(tuple), max_size=3).map(tuple)
FORECAST = st.builds(Forecast, NAME, st.sampled_from(["cpu", "load"]), VALUES, st.sampled_from(["one", "two"]))
NOTES = st.lists(st.builds(Note, NAME, NAME, st.dictionaries(NAME, NUMBER, max_size=2)), max_size=2).map(tuple)
TURN = st.tuples(
    st.builds(
        lambda groups, pools, forecasts, busy, home: a_tick(
            0, groups=groups, pools=pools, forecasts=forecasts, machine=a_machine(busy=busy), home=home
        ),
        *(st.lists(kind, max_size=4) for kind in (GROUP, POOL, FORECAST)),
        NUMBER,
        st.none() | MEMBER,
    ),
    NOTES.map(lambda notes: Verdict((), (), (), notes)),
    st.booleans(),
)


def numbered(turns: list[tuple[Tick, Verdict, bool]]) -> list[tuple[Tick, Verdict, bool]]:
    """The first one is a keyframe."""
    return [
        (msgspec.structs.replace(tick, seq=seq, wall=-seq), verdict, key or seq == 0)
        for seq, (tick, verdict, key) in enumerate(turns)
    ]


@given(st.lists(TURN, min_size=1, max_size=4).map(numbered))
@settings(max_examples=200, deadline=None)
def test_any_ticks_come_back_as_the_same_bytes(turns: list[tuple[Tick, Verdict, bool]]) -> None:
    encoder, cells = Encoder(), Cells()
    for tick, verdict, keyframe in turns:
        cells.follow(encoder.encode(tick, verdict, (), keyframe=keyframe), keyframe=keyframe)
        assert cells.json(tick.seq, tick.wall) == (encode(tick), encode(verdict), b"[]")


@given(
    st.lists(TURN, min_size=2, max_size=2).map(numbered),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 300), st.binary(max_size=3)), min_size=1, max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_any_changed_record_is_read_or_refused(
    turns: list[tuple[Tick, Verdict, bool]], edits: list[tuple[int, int, int, bytes]]
) -> None:
    encoder, cells = Encoder(), Cells()
    first, second = (encoder.encode(tick, verdict, (), keyframe=seq == 0) for seq, (tick, verdict, _) in enumerate(turns))
    fields = msgspec.msgpack.decode(second)
    for which, place, number, more in edits:
        old = fields[which]
        if isinstance(old, bytes):
            fields[which] = old[:place] + more + old[place + 1 :]
        elif isinstance(old, list):
            fields[which] = [*old[:place], [number, place] if which == 4 else number, *old[place + 1 :]]
        else:
            fields[which] = number
    cells.follow(first, keyframe=True)
    try:
        cells.follow(msgspec.msgpack.encode(fields), keyframe=False)
    except RecordError:
        return
    cells.json(1, 1)
