"""The trained model beats the baselines where there is something to learn, is refused where there is not, and is repeatable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nicety.models.artifact import DataRange, live_digest, shipped
from nicety.models.forecast.baseline import BASELINES, Ewma, Floats
from nicety.models.forecast.network import Network
from nicety.models.records import HORIZONS, QUANTILES, WINDOW
from nicety.training import fit as module
from nicety.training.anomaly_fit import WorkerTraces
from nicety.training.dataset import Dataset, DatasetError, origins, split
from nicety.training.evaluate import DemandRow, DemandTable, evaluate, losses
from nicety.training.fit import ONWARD, PART, descend, explore, fit_demand, predict, training_rows
from nicety.training.promote import judge, running
from nicety.training.report import Course, Result, metrics, text
from nicety.training.stream import Samples, SeriesRun, stream

TICKS = 900


def dataset(make: Callable[[np.random.Generator, Floats], Floats], series: int = 16, ticks: int = TICKS) -> Dataset:
    """Series that a function makes of a generator and the ticks."""
    rng = np.random.default_rng(1)
    runs = tuple(
        SeriesRun(f"g{i}", "cpu", 0, np.maximum(make(rng, np.arange(float(ticks))), 0).astype(np.float32)) for i in range(series)
    )
    return Dataset(1.0, ticks, runs, WorkerTraces(()), DataRange(0, 1, ticks, series, series, ""), ())


def parts(data: Dataset, most: int = 2500) -> tuple[Samples, Samples]:
    return tuple(stream(data.runs, origins(data.runs, span, most, 1), 1.0) for span in split(data.ticks))  # type: ignore[return-value]


def fitted(train: Samples) -> Network:
    """As `nicety train` does, from the model that nicety comes with."""
    base = shipped("demand")
    assert base is not None
    trial = explore(train, ["cpu"] * len(train), train.origin, 1, base.arrays)
    assert trial is not None
    return Network(fit_demand(train, ["cpu"] * len(train), 1, base.arrays, way=trial.way), "")


def wave(rng: np.random.Generator, t: Floats) -> Floats:
    return np.asarray(2 + 1.8 * np.sin(2 * np.pi * t / rng.uniform(15, 60) + rng.uniform(0, 6)) + rng.normal(0, 0.15, len(t)))


def steps(rng: np.random.Generator, t: Floats) -> Floats:
    length = rng.integers(16, 50)
    return np.asarray(np.where((t + rng.integers(0, 50)) % length < length // 3, 3.0, 0.5) * rng.normal(1, 0.05, len(t)))


def bursts(rng: np.random.Generator, t: Floats) -> Floats:
    """A burst that starts at random and dies away: nobody knows when, so little can be won, but how it goes on is plain."""
    height = (rng.random(len(t)) < 0.02) * rng.uniform(2, 8, len(t))
    return np.asarray(0.1 + np.convolve(height, 0.8 ** np.arange(30))[: len(t)] * rng.normal(1, 0.03, len(t)))


@pytest.mark.parametrize(("make", "at_most"), [(wave, 0.95), (steps, 0.9), (bursts, 0.96)])
def test_it_beats_every_baseline_on_predictable_demand(
    make: Callable[[np.random.Generator, Floats], Floats], at_most: float
) -> None:
    data = dataset(make)
    train, test = parts(data)
    table = evaluate({"new model": predict(fitted(train), test), "experts": test.values(test.start.astype(float))}, test, data.runs)
    best = min(table.score(baseline.name) for baseline in BASELINES)
    assert table.score("new model") < at_most * best
    assert table.score("new model") < table.score("experts")
    assert judge(table, "new model").beats
    covered = np.array([row.coverage for row in table.rows if row.forecaster == "new model"]).mean(axis=0)
    assert covered[1:] == pytest.approx(np.array(QUANTILES[1:]), abs=0.06)


@pytest.mark.parametrize("start", ["nothing", "the model that nicety comes with"])
def test_the_same_samples_give_the_same_model(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH", module.Descent(100, 3e-3, 0.3))
    train, _ = parts(dataset(wave, series=4, ticks=300), most=600)
    found = shipped("demand")
    assert found is not None
    base = None if start == "nothing" else found.arrays
    one, two = (fit_demand(train, ["cpu"] * len(train), 1, base) for _ in range(2))
    for name in one:
        assert np.array_equal(one[name], two[name]), name


def test_it_goes_part_of_the_way_from_the_model_that_it_starts_from() -> None:
    train, test = parts(dataset(steps, series=4, ticks=400), most=1500)
    rng = np.random.default_rng(4)
    base = {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in Network.SHAPES.items()}
    moved = fit_demand(train, ["cpu"] * len(train), 1, base)
    far = descend(training_rows(train, ["cpu"] * len(train), 1), ONWARD, 1, base, lambda *_: True)
    for name in Network.SHAPES:
        assert np.allclose(moved[name], (1 - PART) * base[name] + PART * far[name], atol=1e-6)
    start = Network({**base, "speaks": np.ones(3, dtype=np.bool_)}, "")
    known = np.isfinite(test.targets)
    assert (
        losses(test.targets[known], predict(Network(moved, ""), test)[known])[0]
        < losses(test.targets[known], predict(start, test)[known])[0]
    )


def test_each_set_has_the_same_share_of_the_loss_whatever_its_scale_and_size() -> None:
    data = dataset(wave, series=6, ticks=300)
    runs = [SeriesRun(run.target, "rss" if i else "cpu", 0, run.values * (1e6 if i else 1)) for i, run in enumerate(data.runs)]
    train = stream(runs, [np.arange(8, 250)] * 6, 1.0)
    names = ["rss" if which else "cpu" for which in train.run.tolist()]
    rows = training_rows(train, names, 1)
    first = np.isfinite(train.answers())[train.run == 0].sum()
    assert rows.weights[:first].sum() == pytest.approx(rows.weights[first:].sum(), rel=1e-3)


def test_a_fit_ends_early_when_it_is_told_to() -> None:
    train, _ = parts(dataset(wave, series=2, ticks=300), most=300)
    told: list[int] = []

    def progress(done: int, total: int) -> bool:
        told.append(done)
        return len(told) < 3

    fit_demand(train, ["cpu"] * len(train), 1, None, progress)
    assert len(told) == 3


def test_too_little_that_moves_is_refused() -> None:
    train, _ = parts(dataset(lambda rng, t: np.full(len(t), 2.0), ticks=300))
    with pytest.raises(DatasetError, match=r"only \d+ rows.*record longer"):
        fit_demand(train, ["cpu"] * len(train), 1, None)


def test_one_absurd_tick_buys_no_absurd_forecast() -> None:
    def poisoned(rng: np.random.Generator, t: Floats) -> Floats:
        return np.where(rng.random(len(t)) < 0.01, 1e9, 1.0) * rng.gamma(4, 0.25, len(t))

    train, _ = parts(dataset(poisoned, series=4), most=800)
    quiet = SeriesRun("quiet", "cpu", 0, np.random.default_rng(2).gamma(4, 0.25, 200).astype(np.float32))
    assert predict(fitted(train), stream([quiet], [np.array([199])], 1.0)).max() < 100


def test_losses_are_the_definition() -> None:
    values, said = np.array([1.0, 3.0]), np.array([[1.0, 2.0, 2.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    pinball = [0.5 * 2, 0.1 * 1 + 0.9 * 1, 0.05 * 1, 0.01 * 3 + 0.01 * 1]
    wql, coverage = losses(values, said)
    assert wql == pytest.approx(2 * np.mean(pinball) / 4)
    assert coverage == (0.5, 0.5, 1.0, 1.0)


def test_nothing_but_zeros_is_no_division_by_zero() -> None:
    wql, coverage = losses(np.zeros(3), np.zeros((3, len(QUANTILES))))
    assert (wql, coverage) == (0.0, (1.0,) * len(QUANTILES))


def table(**scores: float) -> DemandTable:
    """A table in which each forecaster has this loss everywhere."""
    rows = [
        DemandRow(name.replace("_", " "), metric, h, wql, (0.5, 0.9, 0.95, 0.99), 10)
        for name, wql in scores.items()
        for metric in ("cpu", "rss")
        for h in HORIZONS
    ]
    return DemandTable(tuple(rows))


def test_the_score_is_relative_to_the_last_value() -> None:
    found = table(new_model=0.1, last_value=0.2, ewma=0.15)
    assert found.score("last value") == 1
    assert found.score("new model") == pytest.approx(0.5, abs=0.001)


def test_it_must_beat_the_running_model_too() -> None:
    assert judge(table(new_model=0.1, last_value=0.2, ewma=0.15), "new model").beats
    refused = judge(table(new_model=0.1, running=0.09, last_value=0.2, ewma=0.15), "new model")
    assert not refused.beats
    assert "does not beat running 0.4" in refused.reason
    assert not judge(table(new_model=0.1, running=0.1, last_value=0.2), "new model").beats


def by_metric(**wqls: tuple[float, float]) -> DemandTable:
    """(wQL of cpu, of rss) by forecaster."""
    names = {name.replace("_", " "): pair for name, pair in wqls.items()}
    pairs = [(name, metric, wql) for name, pair in names.items() for metric, wql in zip(("cpu", "rss"), pair, strict=True)]
    return DemandTable(tuple(DemandRow(name, metric, h, wql, (1, 1, 1, 1), 9) for name, metric, wql in pairs for h in HORIZONS))


def test_a_model_speaks_of_the_metrics_at_which_it_beats_everybody() -> None:
    judged = judge(by_metric(new_model=(0.1, 0.3), last_value=(0.2, 0.2), ewma=(0.15, 0.4)), "new model")
    assert (judged.beats, judged.speaks) == (True, frozenset({"cpu"}))
    assert "rss 1.5" in judged.reason
    assert judge(by_metric(new_model=(0.3, 0.3), last_value=(0.2, 0.2)), "new model").speaks == frozenset()


def test_a_running_model_counts_where_it_speaks_and_none_of_that_may_be_lost() -> None:
    better = by_metric(new_model=(0.1, 0.1), last_value=(0.3, 0.3), running=(0.2, 0.05))
    assert judge(better, "new model", {"running": frozenset({"cpu"})}).speaks == frozenset({"cpu", "rss"})
    refused = judge(better, "new model", {"running": frozenset({"cpu", "rss"})})
    assert not refused.beats
    assert "would no longer be used for rss" in refused.reason
    worse = by_metric(new_model=(0.1, 0.4), last_value=(0.3, 0.3), running=(0.2, 0.5))  # who is not the best has nothing to lose
    assert judge(worse, "new model", {"running": frozenset({"cpu", "rss"})}).speaks == frozenset({"cpu"})


def test_where_it_is_as_good_as_a_running_model_it_speaks_too_if_it_is_better_elsewhere() -> None:
    equal = by_metric(new_model=(0.1, 0.05002), last_value=(0.3, 0.3), running=(0.2, 0.05))
    judged = judge(equal, "new model", {"running": frozenset({"cpu", "rss"})})
    assert (judged.beats, judged.speaks) == (True, frozenset({"cpu", "rss"}))
    assert "rss 0.167 is as good as running 0.167" in judged.reason
    again = by_metric(new_model=(0.2, 0.05), last_value=(0.3, 0.3), running=(0.2, 0.05))
    assert not judge(again, "new model", {"running": frozenset({"cpu", "rss"})}).beats
    worse = by_metric(new_model=(0.1, 0.0502), last_value=(0.3, 0.3), running=(0.2, 0.05))
    assert not judge(worse, "new model", {"running": frozenset({"cpu", "rss"})}).beats


def test_a_series_that_stands_still_does_not_decide() -> None:
    moving = [DemandRow(name, "cpu", 1, wql, (1, 1, 1, 1), 9) for name, wql in (("new", 0.1), ("last value", 0.2))]
    still = [DemandRow(name, "rss", 1, wql, (1, 1, 1, 1), 9) for name, wql in (("new", 1e-6), ("last value", 0.0))]
    assert judge(DemandTable((*moving, *still)), "new").beats


def test_no_running_model_is_no_obstacle(tmp_path: Path) -> None:
    assert running(tmp_path / "absent", "demand", 1.0) == (None, "")
    assert live_digest(tmp_path / "absent", "demand") is None


def test_a_running_model_that_cannot_be_used_does_not_count_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "demand").mkdir(mode=0o700)
    (tmp_path / "demand" / "live").write_text("rubbish")
    found, why = running(tmp_path, "demand", 1.0)
    assert found is None
    assert "is not compared with it" in why
    assert "damaged" in why


def test_the_report_names_every_forecaster_with_its_losses() -> None:
    data = dataset(wave, series=2)
    found = table(new_model=0.1, last_value=0.2, ewma=0.15)
    result = Result("demand", "refused", "because", "", demand=found)
    lines = text(data, Course(("here",), (), (), (), 1.0, 1), [result]).splitlines()
    assert "demand model: refused" in lines
    (line,) = (line for line in lines if line.startswith("cpu") and "ewma" in line)
    assert line.split() == ["cpu", "ewma", *["0.1500"] * len(HORIZONS), "50.0%", "90.0%", "95.0%", "99.0%"]
    assert len(metrics(result)) == len(found.rows)
    narrow = text(data, Course(("here",), (), (), (), 1.0, 1), [replace(result, reason="because " * 20)], 80).splitlines()
    assert max(map(len, narrow)) <= 80
    assert " ".join(narrow).count("0.1500") == 2 * len(HORIZONS)


def test_evaluate_scores_baselines_by_what_they_say() -> None:
    data = dataset(wave, series=3, ticks=300)
    _, test = parts(data)
    rows = evaluate({}, test, data.runs).rows
    windows = np.stack([data.runs[which].values[at + 1 - WINDOW : at + 1] for which, at in zip(test.run, test.origin, strict=True)])
    said = Ewma().predict(windows.astype(float), np.full(len(test), WINDOW))
    row = next(row for row in rows if row.forecaster == "ewma" and row.horizon == 6)
    known = np.isfinite(test.targets[:, 2])
    assert (row.wql, row.coverage) == losses(test.targets[known, 2], said[known, 2])
    assert {row.forecaster for row in rows} == {baseline.name for baseline in BASELINES}


def test_a_long_past_goes_far_and_a_short_one_stays_near() -> None:
    base = shipped("demand")
    assert base is not None
    long, _ = parts(dataset(steps))
    far = explore(long, ["cpu"] * len(long), long.origin, 1, base.arrays)
    assert far is not None
    assert far.way.part > PART
    for name in Network.SHAPES:
        assert not np.array_equal(far.network[name], base.arrays[name])
    short, _ = parts(dataset(steps, series=2, ticks=300), most=60)
    assert explore(short, ["cpu"] * len(short), short.origin, 1, base.arrays) is None


def test_a_way_is_judged_on_the_newest_time_only() -> None:
    """The series change their habits in the last fifth: what was learned before is no help there."""

    def changed(rng: np.random.Generator, t: Floats) -> Floats:
        return np.where(t < 300, steps(rng, t), 1 + np.abs(np.cumsum(rng.normal(0, 0.3, len(t)))))

    base = shipped("demand")
    assert base is not None
    steady, _ = parts(dataset(steps, ticks=420))
    changing, _ = parts(dataset(changed, ticks=520))
    found = [explore(it, ["cpu"] * len(it), it.origin, 1, base.arrays) for it in (steady, changing)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[1].way.part * found[1].way.course.steps < found[0].way.part * found[0].way.course.steps


def test_an_end_of_the_time_gives_no_way() -> None:
    base = shipped("demand")
    assert base is not None
    train, _ = parts(dataset(steps, series=6, ticks=300))
    assert explore(train, ["cpu"] * len(train), train.origin, 1, base.arrays, lambda _done, _total: False) is None
