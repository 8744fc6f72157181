"""The pool size policy: what it asks for, when it shrinks, and what bounds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import pytest

from nicety.models.records import HORIZONS, QUANTILES, Class, Forecast
from nicety.scheduler.config.sections import Config, PoolSize
from nicety.scheduler.decide.policies.policy import Aim, Metric, Proposal, Result
from nicety.scheduler.decide.policies.pool_size.need import fair_share
from nicety.scheduler.decide.policies.pool_size.pool_size import PoolSize as Policy
from nicety.scheduler.decide.policies.pool_size.pool_size import PoolSizeMemory
from nicety.scheduler.decide.policies.pool_size.reaction import reaction, up
from nicety.scheduler.decision import Decision, Later, Pool, Predicted, ResizePool, Scaled, Tick
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.testing.policies import admitted
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_machine, a_pool, a_tick


def policy(**changes: float) -> Policy:
    return Policy(Config(pool_size=PoolSize(**changes)), PoolSizeMemory())  # type: ignore[arg-type]


def size_of(decisions: Sequence[Decision | Proposal[int]]) -> int | None:
    assert len(decisions) <= 1
    if not decisions:
        return None
    action = decisions[0].action
    assert isinstance(action, ResizePool)
    return action.size


def drive(sized: Policy, ticks: int, pool: Callable[[int], Pool], obeys: bool = True) -> list[tuple[int, int]]:
    """(tick, size) of every proposal, all admitted."""
    asked = []
    size: int | None = None
    for seq in range(ticks):
        seen = pool(seq)
        if obeys and size is not None:
            seen = a_pool(seen.name, size, seen.load)
        for decision in admitted(sized, a_tick(seq, machine=a_machine(cpus=16), pools=[seen])):
            size = size_of([decision])
            assert size is not None
            asked.append((seq, size))
    return asked


def a_predicted(median: float, high: float | None = None, later: float | None = None, **changes: object) -> Predicted:
    """What a trusted seasonal pattern of five minutes says; `later` as until then unless given."""
    values: dict[str, object] = {
        "period": 300.0,
        "seen": 4,
        "right": 0.9,
        "trusted": True,
        "abrupt": 3.0,
        "horizon": 2.4,
        "median": median,
        "high": median if high is None else high,
        "later": median if later is None else later,
        "least": median,
        "now": median if high is None else high,
    }
    return Predicted(**{**values, **changes})  # type: ignore[arg-type]


def test_a_forecast_is_a_floor_below_which_the_reactive_rule_cannot_go() -> None:
    tick = a_tick(1, machine=a_machine(cpus=16), pools=[a_pool(size=2, load=1.0)], forecasts=[a_forecast("web", "load", 4.0)])
    (decision,) = policy().propose(tick)
    assert size_of([decision]) == 5  # 4 / 0.9
    assert decision.why.rule == "forecast floor"
    assert decision.why.figures["workers_by_reactive_rule"] == 2
    assert decision.why.figures["horizon_seconds"] == 3  # the nearest that is 1.2 x 2 s ahead
    assert decision.why.figures["seasonality"] == "none"
    assert decision.why.flips == ("a median of the load forecast below 1.8 Erlang would keep 2",)


@pytest.mark.parametrize(
    ("start", "seconds", "size"),
    [(2.5, 3, 4), (5.0, 6, 5), (10.0, 12, 6), (11.0, 30, 7), (25.0, 30, 7), (100.0, 30, 7), (None, 6, 5)],
)
def test_the_forecast_is_for_when_a_worker_that_is_started_now_is_ready(start: float | None, seconds: int, size: int) -> None:
    loads = (2.0, 3.0, 4.0, 5.0, 6.0)  # 1, 3, 6, 12 and 30 s ahead
    forecast = Forecast("web", "load", tuple((load,) * len(QUANTILES) for load in loads), "demand abc")
    pool = a_pool(size=2, load=1.0, start_seconds=start)
    (decision,) = policy().propose(a_tick(1, machine=a_machine(cpus=16), pools=[pool], forecasts=[forecast]))
    assert (decision.why.figures["horizon_seconds"], size_of([decision])) == (seconds, size)


@pytest.mark.parametrize(("start", "seconds", "size"), [(40.0, 60, 4), (100.0, 300, 5), (700.0, 900, 6), (9000.0, 3600, 7)])
def test_workers_that_take_long_to_start_are_started_for_what_comes_later(start: float, seconds: int, size: int) -> None:
    loads = (3.0, 4.0, 5.0, 6.0)  # 60, 300, 900 and 3600 s ahead
    source = "yesterday and the days before at this time"
    later = Later(tuple((load,) * len(QUANTILES) for load in loads), source)
    pool = a_pool(size=2, load=1.0, start_seconds=start, later=later)
    (decision,) = policy().propose(a_tick(1, machine=a_machine(cpus=16), pools=[pool], forecasts=[a_forecast("web", "load", 1.0)]))
    assert (decision.why.figures["horizon_seconds"], size_of([decision])) == (seconds, size)
    assert decision.why.figures["forecast_source"] == source
    assert decision.why.text.endswith(f"are expected in {seconds} s, by {source}.")


@pytest.mark.parametrize(("quantile", "size"), [(0.5, 3), (0.95, 8)])
def test_the_forecast_is_taken_at_the_level_of_the_configuration(quantile: float, size: int) -> None:
    forecast = Forecast("web", "load", ((2.0, 4.0, 6.5, 9.0),) * len(HORIZONS), "demand abc")
    tick = a_tick(1, machine=a_machine(cpus=16), pools=[a_pool(size=2, load=1.0, maximum=16)], forecasts=[forecast])
    assert size_of(policy(quantile=quantile).propose(tick)) == size


def seasonal(sized: Policy, seq: int, predicted: Predicted, size: int = 4, load: float = 3.0) -> list[Decision]:
    """What is proposed for a pool with that seasonal pattern, admitted."""
    pool = a_pool(size=size, load=load, predicted=predicted, busy=min(load, size))
    return admitted(sized, a_tick(seq, machine=a_machine(cpus=16), pools=[pool]))


def test_a_trusted_rhythm_grows_the_pool_before_the_load_comes_and_says_where_that_is_from() -> None:
    (decision,) = seasonal(policy(), 1, a_predicted(10.0, 11.0))
    assert size_of([decision]) == 12  # 10 / 0.9
    assert decision.why.rule == "seasonality"
    assert decision.why.text == (
        "web: 4 to 12 workers: a seasonal pattern of 300 s, seen 4 times, predicts 10 Erlang of load, at most 11, within 2.4 s."
    )
    figures = decision.why.figures
    assert (figures["seasonality"], figures["season_seconds"], figures["seasons_seen"]) == ("trusted", 300.0, 4)
    assert (figures["predicted_median"], figures["predicted_high"], figures["season_horizon_seconds"]) == (10.0, 11.0, 2.4)
    assert figures["workers_by_reactive_rule"] == 5
    assert decision.why.rejected == ("5 workers, which the reactive rule asks for: the load follows its seasonal pattern",)
    assert decision.why.flips == (
        "at most 3.6 Erlang predicted, and no more at present, would keep 4",
        "load unlike what was predicted would bring back the reactive rule",
    )


def test_the_upper_quantile_of_a_rhythm_finds_a_worker_for_each_whole_piece() -> None:
    assert size_of(seasonal(policy(), 1, a_predicted(5.0, 13.5))) == 14


@pytest.mark.parametrize(("abrupt", "size"), [(1.0, 15), (2.0, 15), (2.25, 13), (2.5, 12)])
def test_what_comes_gradually_is_sized_as_the_reactive_rule_would(abrupt: float, size: int) -> None:
    assert size_of(seasonal(policy(), 1, a_predicted(10.0, abrupt=abrupt))) == size  # 10 / 0.7, / 0.8, / 0.9


def test_a_rhythm_that_is_not_trusted_decides_nothing_and_is_named() -> None:
    predicted = a_predicted(10.0, trusted=False, right=0.31)
    (decision,) = seasonal(policy(), 1, predicted)
    assert (size_of([decision]), decision.why.rule) == (5, "reactive rule")
    assert (
        "what a seasonal pattern of 300 s, seen 4 times, predicts: not trusted; "
        "31% of its newest period came as predicted" in decision.why.rejected
    )


def test_a_fall_that_was_predicted_and_came_is_followed_at_once_and_not_after_a_minute() -> None:
    def fall(predicted: Predicted | None) -> list[tuple[int, int]]:
        sized, asked, size = policy(), [], 12
        for seq in range(70):
            after = max(seq - 20, 0)  # seconds since the load fell from 8 to 1
            stable = 8 - 7 * min(after, 60) / 60
            recent = 8 - 7 * min(after, 6) / 6
            load = 1.0 if after else 8.0
            says = None if predicted is None else predicted if after else a_predicted(8.0)
            pool = a_pool(size=size, load=load, load_stable=stable, load_panic=recent, predicted=says)
            for decision in admitted(sized, a_tick(seq, machine=a_machine(cpus=16), pools=[pool])):
                found = size_of([decision])
                assert found is not None
                size = found
                asked.append((seq - 20, size))
        return asked

    predicted = fall(a_predicted(1.0))
    assert predicted[0][0] <= 3
    assert predicted[-1][1] == 2
    assert predicted[-1][0] <= 8
    without = fall(None)
    assert without[0][0] > 10
    assert [size for _, size in without] == [5]  # few are kept for a minute


def fallen(start: float, back: int | None = None, ticks: int = 70) -> list[tuple[int, int, Decision]]:
    """(seconds after the load of a pool of twelve fell from 8 to 1, size, decision); `back`: second at which 9 come again."""
    sized, asked, size, loads = policy(), list[tuple[int, int, Decision]](), 12, [8.0] * 60
    for seq in range(20 + ticks):
        after = seq - 20
        loads.append(8.0 if after < 0 else 9.0 if back is not None and after >= back else 1.0)
        pool = a_pool(
            size=size, load=loads[-1], load_stable=sum(loads[-60:]) / 60, load_panic=sum(loads[-6:]) / 6, start_seconds=start
        )
        for decision in admitted(sized, a_tick(seq, machine=a_machine(cpus=64), pools=[pool])):
            found = size_of([decision])
            assert found is not None
            size = found
            asked.append((after, size, decision))
    return asked


def test_a_fall_to_less_than_half_is_followed_after_some_start_times_and_why_says_so() -> None:
    (after, size, decision), *_ = fallen(4.0)
    assert (after, size) == (13, 5)  # 3 s until 6 s have less than half, 10 s of patience; 8 Erlang were a panic for less than five
    assert decision.why.text == "web: 12 to 5 workers: the load fell 10 s ago and has been 1 Erlang since."
    assert decision.why.figures["load_60s"] == pytest.approx(6.4, abs=0.1)
    assert decision.why.figures["load_since_fall"] == 1.0


def test_workers_that_take_long_to_come_back_go_only_as_the_mean_of_a_minute_falls() -> None:
    early = [size for after, size, _ in fallen(20.0) if after <= 20]
    assert early
    assert min(early) >= 9
    assert all("fell" not in decision.why.text for _, _, decision in fallen(20.0))


def test_a_lull_is_no_fall() -> None:
    assert [size for after, size, _ in fallen(4.0, back=10, ticks=14)] == []


def test_a_fall_that_was_regretted_makes_wary() -> None:
    sized, size, loads, falls = policy(), 12, [8.0] * 60, list[int]()
    for seq in range(900):
        low = seq < 30 or 60 <= seq < 100 or seq >= 760  # two falls within ten minutes, and one after
        loads.append(1.0 if low else 14.0)
        pool = a_pool(size=size, load=loads[-1], load_stable=sum(loads[-60:]) / 60, load_panic=sum(loads[-6:]) / 6)
        for decision in admitted(sized, a_tick(seq, machine=a_machine(cpus=64), pools=[pool])):
            if "fell" in decision.why.text:
                falls.append(seq)
            found = size_of([decision])
            assert found is not None
            size = found
    assert falls
    assert [seq for seq in falls if 30 <= seq < 760] == []
    assert [seq for seq in falls if seq >= 760]


@pytest.mark.parametrize(("size", "asked"), [(20, None), (19, 21)])
def test_by_less_than_a_twentieth_no_rhythm_grows_a_pool(size: int, asked: int | None) -> None:
    pool = a_pool(size=size, load=17.0, busy=17.0, maximum=40, predicted=a_predicted(18.5))  # 18.5 / 0.9 = 20.6
    assert size_of(policy().propose(a_tick(1, machine=a_machine(cpus=64), pools=[pool]))) == asked


def test_a_small_shrink_waits_for_a_larger_one_that_is_predicted() -> None:
    """It would only put that off by `cooldown_down`."""

    def asked(least: float) -> list[int | None]:
        sized = policy()
        predicted = a_predicted(9.0, later=9.0, least=least)
        return [size_of(seasonal(sized, seq, predicted, size=12, load=8.0)) for seq in range(13)]

    assert set(asked(1.0)) == {None}
    assert asked(8.0)[-3] == 11  # 9 x 1.05 / 0.9


def test_a_predicted_load_that_wobbles_around_a_threshold_causes_one_change() -> None:
    sized, sizes = policy(), [5]
    for seq in range(600):
        for decision in seasonal(sized, seq, a_predicted(4.5 + 0.1 * math.sin(seq / 20)), size=sizes[-1], load=4.0):
            found = size_of([decision])
            assert found is not None
            sizes.append(found)
    assert sizes == [5, 6]


def test_a_short_lull_is_not_followed() -> None:
    sized = policy()
    asked = [seasonal(sized, seq, a_predicted(1.0, later=10.0), size=12, load=1.0) for seq in range(9)]
    assert asked == [[]] * 9


def test_work_that_is_there_is_served_whatever_the_rhythm_says() -> None:
    (decision,) = seasonal(policy(), 1, a_predicted(2.0, 2.5), size=3, load=12.0)
    assert (size_of([decision]), decision.why.rule) == (9, "present load")  # 12 / 1.4: what would be a panic
    text = "the load is 12 Erlang (busy and queued); a seasonal pattern of 300 s, seen 4 times, had predicted 2.5."
    assert text in decision.why.text
    busy = policy()
    assert [seasonal(busy, seq, a_predicted(1.0), size=8, load=8.0) for seq in range(30)] == [[]] * 30  # all eight are at work


def test_work_that_is_over_before_a_worker_would_be_up_starts_none() -> None:
    def asked(rush: range, load: float = 12.0, recent: float | None = None, abrupt: float = 3.0) -> list[int]:
        sized, grown = policy(), list[int]()
        for seq in range(20):
            now = load if seq in rush else 2.0
            pool = a_pool(
                size=3,
                load=now,
                busy=min(now, 3),
                load_panic=now if recent is None else recent,
                predicted=a_predicted(2.0, 2.5, abrupt=abrupt),
            )
            decisions = sized.propose(a_tick(seq, machine=a_machine(cpus=16), pools=[pool]))
            grown += [seq for decision in decisions if (size_of([decision]) or 0) > 3]
        return grown

    assert asked(range(10, 12)) == []  # two ticks, where a worker takes 2 s
    assert asked(range(10, 20))[0] == 12
    assert asked(range(10, 20), recent=13.0) == []  # less than 6 s had: it is being worked off
    assert asked(range(10, 12), abrupt=2.0)[0] == 10  # what comes gradually is served with the reactive rule's room


def a_scaled(worth: int | None = 6, **changes: object) -> Scaled:
    """A pool that computes and showed that six are worth having."""
    values: dict[str, object] = {
        "single": 0.9,
        "contention": 0.3,
        "coherency": 0.01,
        "sizes": 5,
        "largest": 12.0,
        "adds": 0.02,
        "worth": worth,
        "certain": True,
    }
    return Scaled(**{**values, **changes})  # type: ignore[arg-type]


def test_a_pool_is_not_grown_past_what_its_scaling_curve_is_worth_and_why_says_so() -> None:
    def asked(scaling: Scaled | None, size: int = 4) -> list[Proposal[int]]:
        pool = a_pool(size=size, load=9.0, scaling=scaling)
        return policy().propose(a_tick(1, machine=a_machine(cpus=64), pools=[pool]))

    assert size_of(asked(None)) == 13
    assert size_of(asked(a_scaled(certain=False))) == 13
    assert size_of(asked(a_scaled(None))) == 13
    assert size_of(asked(a_scaled(20))) == 13
    (decision,) = asked(a_scaled())
    assert size_of([decision]) == 6
    figures = decision.why.figures
    assert (figures["workers_by_scaling_curve"], figures["limit_that_bound"]) == (6, "scaling curve")
    assert (figures["scaling_contention"], figures["scaling_sizes_seen"]) == (0.3, 5)
    assert any("13 workers" in text and "limited by scaling curve" in text and "12" in text for text in decision.why.rejected)
    assert "more than 0.045 cores used by each worker beyond 6 would lift the limit" in decision.why.flips
    assert "workers_by_scaling_curve" not in asked(a_scaled(certain=False))[0].why.figures


def test_a_scaling_curve_takes_no_workers_that_are_needed_now() -> None:
    sized = policy()
    for seq in range(60):
        pool = a_pool(size=10, load=6.5, scaling=a_scaled())
        assert sized.propose(a_tick(seq, machine=a_machine(cpus=64), pools=[pool])) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_predicted_is_ignored_where_it_is_no_number(value: float) -> None:
    (decision,) = seasonal(policy(), 1, a_predicted(value))
    assert (size_of([decision]), decision.why.rule) == (5, "reactive rule")
    assert all(math.isfinite(figure) for figure in decision.why.figures.values() if isinstance(figure, float))


def test_headroom_takes_what_only_a_rhythm_asks_for() -> None:
    machine = a_machine(cpus=16, memory_total=1000 << 20, memory_available=200 << 20)
    pool = a_pool(size=4, load=3.0, predicted=a_predicted(10.0))
    (decision,) = policy().propose(a_tick(1, machine=machine, pools=[pool]))
    assert size_of([decision]) == 6  # 100 MiB to 90 %, 50 MiB a worker
    assert "12 workers, which the load asks for: limited by memory headroom" in decision.why.rejected


def test_without_a_forecast_the_reactive_rule_asks_for_the_load_over_the_target() -> None:
    (decision,) = policy().propose(a_tick(1, machine=a_machine(cpus=16), pools=[a_pool(size=3, load=2.8)]))
    assert size_of([decision]) == 4  # ceil(2.8 / 0.7), and no more for rounding
    assert decision.why.rule == "reactive rule"


def test_a_short_window_at_twice_the_ready_workers_is_a_panic_that_ends_with_it() -> None:
    sized = policy()
    loud = a_pool(size=2, load=6.0, load_stable=1.0, load_panic=6.0)
    (decision,) = admitted(sized, a_tick(1, machine=a_machine(cpus=16), pools=[loud]))
    assert (size_of([decision]), decision.why.rule) == (9, "panic")
    quiet = a_pool(size=9, load=0.1)
    shrinks = [
        seq for seq in range(2, 90) if size_of(sized.propose(a_tick(seq, machine=a_machine(cpus=16), pools=[quiet]))) is not None
    ]
    assert shrinks
    assert shrinks[0] == 2 + 10  # down_after of quiet


def test_one_quiet_tick_does_not_shrink_a_pool() -> None:
    asked = drive(policy(), 60, lambda seq: a_pool(size=6, load=0.2 if seq == 30 else 4.0))
    assert asked == []


def test_a_pool_shrinks_when_fewer_sufficed_for_down_after_and_never_below_the_largest_need_of_that_time() -> None:
    asked = drive(policy(), 40, lambda seq: a_pool(size=8, load=5.0 if seq < 10 else 3.0), obeys=False)
    assert asked == [(20, 5)]  # 10 s after the last tick that needed 8; 3 x 1.1 / 0.7 = 4.7


def test_load_that_wobbles_around_a_threshold_causes_one_change() -> None:
    asked = drive(policy(), 2000, lambda seq: a_pool(size=4, load=2.8 + 0.1 * math.sin(seq / 20)))
    assert [size for _, size in asked] == [5]


def test_a_change_is_measured_by_the_queue_as_soon_as_its_workers_are_up() -> None:
    (more,) = policy().propose(a_tick(1, machine=a_machine(cpus=16), pools=[a_pool(size=2, load=6.0, queued=4.0)]))
    assert more.aim == Aim(Metric.QUEUED, "web", 4.0, "web", Control.POOL_SIZE, back=False, delay=2.0, size=2)
    (unseen,) = policy().propose(a_tick(1, machine=a_machine(cpus=16), pools=[a_pool(size=2, load=6.0, queued=None)]))
    assert unseen.aim is None


@pytest.mark.parametrize(("fell", "workers"), [({}, 5), ({"fallen": False}, 5), ({"fallen": True}, 1)])
def test_a_pool_shrinks_by_half_at_most_unless_the_mean_is_that_since_the_load_fell(fell: dict[str, bool], workers: int) -> None:
    asked = reaction(a_pool(size=10, load=0.7), 0.7, lambda load: up(load / 0.7), 1.0, **fell)
    assert asked is not None
    assert asked.workers == workers


def test_a_pending_request_is_not_shrunk_further_but_may_be_raised() -> None:
    starting = a_pool(size=4, load=0.5, requested=8)
    assert drive(policy(), 40, lambda _: starting, obeys=False) == []
    busy = a_pool(size=4, load=7.0, requested=8)
    assert drive(policy(), 5, lambda _: busy, obeys=False) == [(0, 10)]


def test_unknown_load_decides_nothing_and_what_sufficed_must_be_seen_anew() -> None:
    asked = drive(policy(), 31, lambda seq: a_pool(size=8, load=None if seq == 20 else 5.0 if seq < 15 else 1.0), obeys=False)
    assert asked == []
    assert drive(policy(), 32, lambda seq: a_pool(size=8, load=None if seq == 20 else 1.0 if seq > 15 else 5.0), obeys=False) == [
        (31, 5)  # half of the ready workers would be four, and 5 Erlang a panic for those
    ]


def test_cooldowns_hold_between_growths_and_before_a_shrink() -> None:
    def rising(seq: int) -> Pool:
        return a_pool(size=2, load=1.4 + 0.7 * seq)

    assert [seq for seq, _ in drive(policy(cooldown_up=3.0), 8, rising, obeys=False)] == [1, 4, 7]
    assert [seq for seq, _ in drive(policy(cooldown_up=1.0), 4, rising, obeys=False)] == [1, 2, 3]
    sized = policy(down_after=1.0, cooldown_down=20.0)
    asked = drive(sized, 40, lambda seq: a_pool(size=4, load=4.0 if seq == 5 else 1.0), obeys=False)
    assert asked == [(1, 2), (5, 6), (25, 4)]  # three would panic at what six were asked for


def test_cpu_headroom_stops_growth_but_batch_work_does_not_count_against_it() -> None:
    def grown(class_: Class, cpu: float) -> int | None:
        others = a_group("others", class_, cpu=cpu)
        machine = a_machine(cpus=4, busy=cpu)
        pool = a_pool(size=1, load=6.0, cpu_per_worker=0.5)
        return size_of(policy().propose(a_tick(1, machine=machine, groups=[others], pools=[pool])))

    assert grown(Class.INTERACTIVE, 1.0) == 6  # (0.95 x 4 - 1) / 0.5, the worker that crosses the line included
    assert grown(Class.INTERACTIVE, 3.0) == 4  # the others take more than half, so the pool's part is half of 3.8
    assert grown(Class.BATCH, 3.0) == 8  # 3.8 / 0.5


def test_a_fair_share_is_what_the_others_leave_and_at_least_an_equal_part() -> None:
    assert fair_share(2.0, [0.25, 0.25]) == 1.5
    assert fair_share(2.0, [5.0, 0.5]) == 0.75
    assert fair_share(2.0, [9.0, 9.0, 9.0]) == 0.5
    assert fair_share(-1.0, [1.0]) == 0.0


def test_headroom_counts_what_runs_outside_of_the_listed_groups_and_believes_forecasts() -> None:
    machine = a_machine(cpus=4, busy=3.0)
    pool = a_pool(size=1, load=6.0, cpu_per_worker=0.5)
    assert size_of(policy().propose(a_tick(1, machine=machine, pools=[pool]))) == 2
    other = a_group("api", Class.INTERACTIVE, cpu=0.0)
    forecast = a_forecast("api", "cpu", 1.4)
    (decision,) = policy().propose(a_tick(1, machine=a_machine(cpus=4), groups=[other], pools=[pool], forecasts=[forecast]))
    assert size_of([decision]) == 5  # 3.8 - 0.1 of the rest - 1.4 of the forecast
    assert decision.why.figures["limit_that_bound"] == "CPU headroom"
    assert "9 workers, which the load asks for: limited by CPU headroom" in decision.why.rejected


def test_headroom_never_takes_workers_that_the_reactive_rule_needs() -> None:
    full = a_machine(cpus=2, busy=2.0)
    assert drive(policy(), 1, lambda _: a_pool()) == []
    sized = policy()
    sizes = [
        size_of(sized.propose(a_tick(seq, machine=full, pools=[a_pool(size=4, load=2.8, cpu_per_worker=1.0)]))) for seq in range(60)
    ]
    assert set(sizes) == {None}


@pytest.mark.parametrize(("available", "size"), [(250, 5), (249, 4), (201, 4)])
def test_memory_headroom_stops_growth(available: int, size: int) -> None:
    machine = a_machine(cpus=16, memory_total=1000 << 20, memory_available=available << 20)
    (decision,) = policy().propose(a_tick(1, machine=machine, pools=[a_pool(size=2, load=7.0)]))
    assert size_of([decision]) == size  # 150 MiB and less to 90 %, 50 MiB a whole worker
    assert decision.why.figures["limit_that_bound"] == "memory headroom"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_forecast_that_is_no_number_is_ignored_and_said_so(value: float) -> None:
    tick = a_tick(1, machine=a_machine(cpus=16), pools=[a_pool(size=1, load=2.0)], forecasts=[a_forecast("web", "load", value)])
    (decision,) = policy().propose(tick)
    assert size_of([decision]) == 3
    assert "the load forecast of demand 0123456789ab: not a finite number, ignored" in decision.why.rejected


def test_an_absurd_forecast_asks_for_the_maximum_and_not_for_more() -> None:
    tick = a_tick(1, machine=a_machine(cpus=16), pools=[a_pool(size=1)], forecasts=[a_forecast("web", "load", 1e300)])
    assert size_of(policy().propose(tick)) == 16


def test_what_was_asked_stands_in_observe_mode_and_falls_when_the_pool_refuses_or_restarts() -> None:
    sized = policy()

    def step(seq: int, requested: int = 2) -> list[Decision]:
        return admitted(sized, a_tick(seq, machine=a_machine(cpus=16), pools=[a_pool(size=requested, load=3.5)]))

    (decision,) = step(1)
    assert step(2) == step(3) == []  # nothing was written, and nothing is asked again
    sized.learn(Result(decision.action, decision.target, Status.REFUSED, 0))
    assert size_of(step(5)) == 5
    assert step(7) == []
    assert size_of(step(9, requested=1)) == 5  # its master came up anew with one


def test_a_gap_resets_what_had_sufficed() -> None:
    sized = policy()
    for seq in range(10):
        assert sized.propose(a_tick(seq, pools=[a_pool(size=8, load=1.0)])) == []
    sized.skip()
    assert sized.propose(a_tick(100, pools=[a_pool(size=8, load=1.0)])) == []
    assert size_of([d for seq in range(101, 111) for d in sized.propose(a_tick(seq, pools=[a_pool(size=8, load=1.0)]))]) == 4


def test_switched_off_it_proposes_nothing() -> None:
    tick: Tick = a_tick(1, pools=[a_pool(size=1, load=9.0)])
    assert policy(enabled=False).propose(tick) == []
    assert policy().propose(tick) != []


def test_memory_of_a_pool_that_is_gone_is_dropped() -> None:
    sized = policy()
    sized.propose(a_tick(1, pools=[a_pool()]))
    assert list(sized.memory.pools) == ["web"]
    sized.propose(a_tick(2))
    assert msgspec.to_builtins(sized.memory) == {"pools": {}}


@pytest.mark.parametrize(("rush", "sizes", "last"), [(0.6, [1], 10), (0.8, [2, 1], 66), (2.0, [2, 1], 66), (2.2, [1], 66)])
def test_few_workers_are_left_only_after_a_minute_without_a_panic_for_them(rush: float, sizes: list[int], last: int) -> None:
    """At tick 5 some seconds ask for more: for two workers where there is one, for four where there are two."""

    def pool(seq: int) -> Pool:
        load = rush if seq == 5 else 0.4
        return a_pool(size=3, load=load, load_stable=0.4, load_panic=load)

    asked = drive(policy(), 90, pool)
    assert [size for _, size in asked] == sizes
    assert asked[-1][0] == last
