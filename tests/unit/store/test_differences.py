"""Ticks become what changed since the tick before, and come back as the same bytes; a hostile record is an error."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from nicety.models.records import Class, Forecast
from nicety.scheduler.decision import Decision, Member, Outcome, Refusal, ResizePool, Tick, Verdict, Why, encode
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.store.differences import Cells, Encoder, RecordError
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_machine, a_member, a_pool, a_tick

NOTHING = Verdict((), (), ())
Turn = tuple[Tick, Verdict, tuple[Outcome, ...]]


def records(turns: Sequence[Turn], keyframes: Sequence[int] = (0,)) -> list[bytes]:
    encoder = Encoder()
    return [encoder.encode(*turn, keyframe=number in keyframes) for number, turn in enumerate(turns)]


def comes_back(turns: Sequence[Turn], keyframes: Sequence[int] = (0,)) -> list[bytes]:
    """The records, of which all was read again."""
    made, cells = records(turns, keyframes), Cells()
    for number, (data, (tick, verdict, outcomes)) in enumerate(zip(made, turns, strict=True)):
        cells.follow(data, keyframe=number in keyframes)
        assert cells.json(tick.seq, tick.wall) == (encode(tick), encode(verdict), encode(outcomes))
    return made


def quiet(*ticks: Tick) -> list[Turn]:
    return [(tick, NOTHING, ()) for tick in ticks]


def batch(seq: int, members: Sequence[Member], cpu: float = 1.0) -> Tick:
    return a_tick(seq, groups=[a_group("hogs", Class.BATCH, members, cpu=cpu)])


def test_what_does_not_change_costs_nothing_however_many_members_a_group_has() -> None:
    few, many = ([a_member(pid, cgroup="/batch") for pid in range(100, 100 + count)] for count in (3, 3000))
    small, large = (comes_back(quiet(*(batch(seq, members) for seq in range(4)))) for members in (few, many))
    assert len(large[0]) > 10 * len(small[0]), "a keyframe has them all"
    assert [len(record) for record in small[1:]] == [len(record) for record in large[1:]]
    assert max(map(len, small[1:])) < 60


def test_a_member_that_comes_and_one_that_goes_cost_little_among_thousands() -> None:
    members = [a_member(pid, cgroup="/batch") for pid in range(100, 3100)]
    before, less = members[:1500], members[:1500]
    less.pop(700)
    made = comes_back(quiet(batch(0, before), batch(1, members[:1501]), batch(2, before), batch(3, less), batch(4, less[1:])))
    assert max(map(len, made[1:])) < 120


def test_groups_pools_workers_forecasts_and_scores_come_go_and_change_places() -> None:
    groups = [a_group(name, Class.BATCH, [a_member(pid)]) for pid, name in enumerate("abcde", 10)]
    pools = [a_pool("x", size=2), a_pool("y", size=3, first_pid=500)]
    forecasts = [a_forecast("x", "load", 1.5), a_forecast("x", "cpu", 0.25), a_forecast("y", "load", 7.0)]
    comes_back(
        quiet(
            a_tick(0),
            a_tick(1, groups=groups[1:], pools=pools[:1], forecasts=forecasts),
            a_tick(2, groups=groups, pools=pools, forecasts=forecasts[1:]),
            a_tick(3, groups=groups[::-1], pools=pools[::-1], forecasts=forecasts[::-1]),
            a_tick(4, groups=[groups[0], groups[0]], pools=[a_pool("x", size=1)], forecasts=[forecasts[0]] * 2),
            a_tick(5, machine=a_machine(busy=-0.0)),
            a_tick(6, machine=a_machine(busy=0.0), groups=[a_group("a", Class.EXEMPT)]),
        ),
        keyframes=(0, 4),
    )


def test_forecasts_keep_every_bit_and_every_shape() -> None:
    values = [0.0, -0.0, 1e-300, -1.5, 1 / 3, 1e300, 5e-324, 2.0**63, -(2.0**-30)]
    comes_back(
        quiet(
            *(
                a_tick(
                    seq,
                    forecasts=[
                        Forecast("a", "cpu", ((values[seq], values[-seq]), (1.0, 2.0)), "one"),
                        Forecast("b", "cpu", ((values[seq],),) if seq % 2 else (), "other" if seq == 3 else "one"),
                    ],
                )
                for seq in range(len(values))
            )
        )
    )


def test_a_verdict_comes_back_with_its_decisions_refusals_and_outcomes() -> None:
    def turn(seq: int) -> Turn:
        why = Why("floor", "because", {"load": seq / 3}, (), ())
        decision = Decision(f"1-{seq}.0", "pool_size", "pool web", ResizePool("web", seq), why)
        refusal = Refusal(msgspec.structs.replace(decision, target="pool other"), "cool-down", f"{seq} s too soon")
        outcome = Outcome(decision.id, Status.APPLIED, decision.target, "done", 1)
        return a_tick(seq, outcomes=[outcome]), Verdict((decision,) * (seq % 3), (refusal,), ()), (outcome,) * (seq % 2)

    made = comes_back([turn(seq) for seq in range(6)])
    assert len(made[3]) < len(made[0]) / 2, "a refusal that recurs is a difference"


def test_names_that_look_like_the_record_itself_come_back() -> None:
    names = ['"members":[]', '"workers":[]', "a\nb\x1fc", '\\"members":[]', "\u2028", "x" * 5000]
    groups = [a_group(name, Class.BATCH, [a_member(7, cgroup=name)]) for name in names]
    pools = [a_pool(name, size=1) for name in names]
    comes_back(quiet(a_tick(0, groups=groups, pools=pools), a_tick(1, groups=groups[1:], pools=pools[:-1])))


def test_a_tick_that_no_reader_would_unpack_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nicety.scheduler.store.differences.MAX_BYTES", 1000)
    encoder = Encoder()
    with pytest.raises(RecordError, match="is not logged: at most 1000 are read back"):
        encoder.encode(batch(0, [a_member(pid) for pid in range(100)]), NOTHING, (), keyframe=True)


@pytest.mark.parametrize("edit", range(7))
def test_a_record_that_does_not_follow_is_an_error(edit: int) -> None:
    first, second = records(quiet(a_tick(0, forecasts=[a_forecast("x", "cpu", 1.0)]), a_tick(1, pools=[a_pool()])))
    fields = msgspec.msgpack.decode(second)
    if edit == 0:
        fields[1] = [999]  # gone: a cell that is not there
    elif edit == 1:
        fields[2] = fields[2][::-1]  # new: places that fall
    elif edit == 2:
        fields[3] = bytes([255]) * len(fields[3])  # parts that do not exist
    elif edit == 3:
        fields[0] = b"\xff" * 50  # changes of cells that are not there
    elif edit == 4:
        fields[5] = 1 << 40  # more values than there can be
    elif edit == 5:
        fields[6] = fields[6][:-3]
    else:
        fields[2], fields[3] = fields[2][:-1], fields[3][:-1]  # a text that belongs to no cell
    cells = Cells()
    cells.follow(first, keyframe=True)
    with pytest.raises(RecordError):
        cells.follow(msgspec.msgpack.encode(fields), keyframe=False)
