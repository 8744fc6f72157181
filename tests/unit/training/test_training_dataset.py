"""Traces become series that are cut at every hole, split by time without overlap, and bounded in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import HORIZONS, SAMPLE, HostSample, Identity, Known, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.config.sections import Config, parse
from nicety.scheduler.store.traces import Recording
from nicety.training import dataset as module
from nicety.training.dataset import LEAST_SPAN, LEAST_TICKS, DatasetError, Span, build, drawn, origins, split
from nicety.training.stream import SeriesRun

SECOND = 10**9
LONGEST = max(HORIZONS)


def snapshots(
    ticks: Sequence[int], programs: dict[str, float], *, session: str = "one", interval: float = 1.0, pool: bool = False
) -> Iterator[tuple[Recording, Snapshot]]:
    """A process a program that uses so many cores, at these seconds."""
    recording = Recording(session, "boot", interval)
    ids = [ProcId(100 + i, 7) for i in range(len(programs))]
    identities = {id_: Identity("x", name, "/", "", 0) for id_, name in zip(ids, programs, strict=True)}
    for second in ticks:
        table = np.zeros(len(ids), SAMPLE)
        table["pid"], table["start_ticks"] = [id_.pid for id_ in ids], 7
        table["cpu_ns"] = [int(cores * second * SECOND) for cores in programs.values()]
        table["rss_bytes"], table["known"] = 4096 * second, int(Known.WAIT)
        workers = (WorkerSample(ids[0], 0.5, True),)
        pools = (PoolSample("web", 1, 1, 2.0, workers, None, None, ""),) if pool else ()
        yield (
            recording,
            Snapshot(second * SECOND, second * SECOND, second * 100, table, identities, HostSample((0,), 1, 1, None), pools),
        )


def test_series_are_what_the_measurer_says() -> None:
    data = build(snapshots(range(1, 41), {"a": 0.5, "b": 0.25}), Config())
    runs = {(run.target, run.metric): run for run in data.runs}
    assert {metric for _, metric in runs} == {"cpu", "rss"}
    assert len(runs) == 4
    cpu, rss = ([run for key, run in sorted(runs.items()) if key[1] == metric] for metric in ("cpu", "rss"))
    assert [run.values[0] for run in cpu] == pytest.approx([0.5, 0.25])
    assert rss[0].values.tolist() == [4096.0 * second for second in range(2, 41)]
    assert data.ticks == 39
    assert (data.data.ticks, data.data.processes, data.data.groups) == (39, 2, 2)
    assert (data.data.first_wall, data.data.last_wall) == (SECOND, 40 * SECOND)


def test_pools_give_their_load_and_their_workers() -> None:
    config = parse('[pools.web]\nkind = "gunicorn"\npid = 99\n')
    data = build(snapshots(range(1, 41), {"a": 0.5}, pool=True), config)
    loads = [run for run in data.runs if run.metric == "load"]
    assert [run.target for run in loads] == ["web"]
    assert loads[0].values == pytest.approx(np.full(39, 2.5))
    (session,) = data.workers.sessions
    assert len(session) == 39
    assert session[0].keys == [ProcId(100, 7)]
    assert session[0].pools == ["web"]


def test_no_series_reaches_across_a_hole_or_into_another_session() -> None:
    first, second = list(range(1, 31)), list(range(100, 131))
    data = build(snapshots([*first, *second], {"a": 0.5}), Config())
    assert sorted((run.start, len(run.values)) for run in data.runs if run.metric == "cpu") == [(0, 29), (29, 30)]
    both = [*snapshots(first, {"a": 0.5}), *snapshots(range(31, 61), {"a": 0.5}, session="two")]
    data = build(both, Config())
    assert sorted((run.start, len(run.values)) for run in data.runs if run.metric == "cpu") == [(0, 29), (29, 29)]


def test_groups_that_the_observer_would_not_report_are_left_out() -> None:
    traces = list(snapshots(range(1, 41), {"busy": 0.5, "idle": 0.001}))
    assert {run.target for run in build(traces, Config()).runs} == {"program busy"}
    classed = parse('[groups.slow]\nprogram = "idle"\nclass = "interactive"\n')
    assert {run.target for run in build(traces, classed).runs} == {"program busy", "slow"}


def test_only_the_configured_interval_is_used_and_the_rest_is_named() -> None:
    mixed = [*snapshots(range(1, 31), {"a": 0.5}), *snapshots(range(1, 11), {"a": 0.5}, session="two", interval=0.5)]
    data = build(mixed, Config())
    assert data.ticks == 29
    assert data.skipped == ("10 ticks of 0.5 s: the configuration has daemon.interval = 1",)
    with pytest.raises(DatasetError, match=r"30 ticks of 0.5 s.*set daemon.interval"):
        build(snapshots(range(1, 31), {"a": 0.5}, interval=0.5), Config())


def test_no_ticks_at_all_say_what_to_do() -> None:
    with pytest.raises(DatasetError, match="nicety record"):
        build(snapshots([1], {"a": 0.5}), Config())


def test_the_same_traces_have_the_same_digest() -> None:
    one, same, other = (build(snapshots(range(1, 41), {"a": cores}), Config()).data.digest for cores in (0.5, 0.5, 0.6))
    assert one == same != other


def test_memory_is_bounded_by_dropping_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RUN", 50)
    monkeypatch.setattr(module, "MAX_VALUES", 250)
    data = build(snapshots(range(1, 502), {"a": 0.5}), Config())
    assert sum(len(run.values) for run in data.runs) <= 250
    assert min(run.start for run in data.runs) >= 350
    assert any("oldest series" in sentence for sentence in data.skipped)


def test_workers_of_the_oldest_ticks_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RUN", 50)
    monkeypatch.setattr(module, "MAX_WORKER_TICKS", 120)
    config = parse('[pools.web]\nkind = "gunicorn"\npid = 99\n')
    data = build(snapshots(range(1, 302), {"a": 0.5}, pool=True), config)
    assert sum(len(session) for session in data.workers.sessions) <= 120
    assert any("workers of the oldest" in sentence for sentence in data.skipped)


def test_ticks_before_the_beginning_are_only_compared_with() -> None:
    traces = list(snapshots(range(1, 41), {"a": 0.5}))
    whole, rest = build(traces, Config()), build(traces[9:], Config(), since=11 * SECOND)
    assert (rest.ticks, rest.data.first_wall, rest.continues, whole.continues) == (30, 11 * SECOND, True, False)
    for one, other in zip(whole.runs, rest.runs, strict=True):
        assert one.values[9:].tolist() == other.values.tolist()
    assert not build(traces[10:], Config(), since=11 * SECOND).continues


def test_time_is_split_in_order_and_too_little_of_it_is_refused() -> None:
    assert split(1000) == (Span(0, 800), Span(800, 1000))
    fit, test = split(LEAST_TICKS)
    assert (fit.last, test.last - test.first) == (LEAST_TICKS - LEAST_SPAN, LEAST_SPAN)
    with pytest.raises(DatasetError, match=str(LEAST_TICKS)):
        split(LEAST_TICKS - 1)


def test_no_target_of_one_span_lies_in_the_other() -> None:
    data = build(snapshots(range(1, 502), {"a": 0.5}), Config())
    for span in split(data.ticks):
        for run, places in zip(data.runs, origins(data.runs, span, 10_000, seed=1), strict=True):
            assert len(places) > 20
            assert places.min() + run.start >= span.first
            assert places.max() + run.start + LONGEST < span.last


def test_a_series_that_ends_has_origins_up_to_its_last_value_but_one() -> None:
    ends = [*snapshots(range(1, 41), {"a": 0.5}), *snapshots(range(200, 400), {"a": 0.5})]
    data = build(ends, Config())
    places = origins(data.runs, Span(0, 150), 10_000, seed=1)
    first = [where for run, where in zip(data.runs, places, strict=True) if run.start == 0]
    assert [where.max() for where in first] == [len(data.runs[0].values) - 2] * len(first)


def test_a_draw_is_bounded_even_and_repeatable() -> None:
    data = build(snapshots(range(1, 402), {"a": 0.5, "b": 0.3}), Config())
    one, same, other = (origins(data.runs, Span(0, data.ticks), 100, seed) for seed in (1, 1, 2))
    assert sum(map(len, one)) == 100
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(10 <= len(places) <= 40 for places in one)


def test_a_series_knows_when_it_began() -> None:
    data = build(snapshots(range(1, 402), {"a": 0.5}), Config())
    first = data.data.first_wall / 1e9
    assert {run.at - run.start for run in data.runs} == {first + 1}


def test_few_values_are_all_used_and_of_many_windows_whose_turn_depends_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [SeriesRun(f"g{i}", "cpu", 7 * i, np.arange(1000, dtype=np.float32), 100.0 + i) for i in range(20)]
    assert drawn(runs, 2.0) == tuple(runs)
    monkeypatch.setattr(module, "DRAWN", 5000)
    monkeypatch.setattr(module, "DRAWN_WINDOW", 300)
    some = drawn(runs, 2.0)
    assert 5000 - 300 < sum(len(run.values) for run in some) <= 5000
    assert len({run.target for run in some}) > 10
    for run in some:
        first = int(run.values[0])
        whole = runs[int(run.target[1:])]
        assert (run.start, run.at) == (whole.start + first, whole.at + 2.0 * first)
        np.testing.assert_array_equal(run.values, whole.values[first : first + len(run.values)])
    assert {(run.target, run.start) for run in drawn(runs[::-1], 2.0)} == {(run.target, run.start) for run in some}
    fewer = {(run.target, run.start) for run in drawn(runs[:10], 2.0)}
    assert fewer > {(run.target, run.start) for run in some if int(run.target[1:]) < 10}


def test_origins_are_at_the_same_places_of_all_series() -> None:
    runs = [SeriesRun(f"g{i}", "cpu", 0, np.ones(2000, dtype=np.float32)) for i in range(50)]
    chosen = origins(runs, Span(0, 2000), 5000, seed=3)
    assert sum(map(len, chosen)) == 5000
    assert len(np.unique(np.concatenate(chosen))) == 100
    places = np.concatenate(chosen)
    assert 0.4 < np.mean(places < 1000) < 0.6
