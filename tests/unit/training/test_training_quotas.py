"""No user has more than its quota of what all learn from, whatever that user runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicety.models.artifact import DataRange, shipped
from nicety.models.forecast.network import Network
from nicety.models.records import Class
from nicety.scheduler.config.sections import Config
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_machine, a_member, a_tick
from nicety.training.anomaly_fit import WorkerTraces
from nicety.training.dataset import Dataset, origins, split
from nicety.training.evaluate import losses
from nicety.training.fit import ONWARD, Descent, descend, predict, training_rows
from nicety.training.pieces import VALUE_BYTES, Piece, newest
from nicety.training.quotas import QUOTA, SYSTEM, places, quota_of, shares
from nicety.training.stream import Samples, SeriesRun, stream

TICKS = 500
HONEST = ("1001", "1002", "1003")
SHAPER = "1000"


@given(st.dictionaries(st.sampled_from(["", "1", "2", "3", "4", "5", "6"]), st.just(0.0) | st.floats(1e-3, 1e9), max_size=7))
def test_no_share_is_above_the_quota(amounts: dict[str, float]) -> None:
    given_, there = shares(amounts), [owner for owner, amount in amounts.items() if amount > 0]
    after = {owner: given_[owner] * amount for owner, amount in amounts.items()}
    assert all(0 <= each <= 1 for each in given_.values())
    most = max(QUOTA, 1 / max(len(there), 1))
    assert all(after[owner] <= most * sum(after.values()) * (1 + 1e-6) for owner in there if owner != SYSTEM)
    assert given_.get(SYSTEM, 1) == 1


def test_one_who_is_alone_or_within_the_quota_loses_nothing() -> None:
    assert shares({SHAPER: 5.0}) == {SHAPER: 1.0}
    assert set(shares(dict.fromkeys((SHAPER, *HONEST), 7.0)).values()) == {1.0}


def test_a_container_of_thousands_of_users_counts_as_one() -> None:
    assert {quota_of(100_000 + at) for at in range(5000)} == {quota_of(100_000)}
    assert quota_of(1000) != quota_of(1001)


def test_places_go_to_everybody() -> None:
    assert places([SHAPER, "1001"], [1_000_000, 100], 10_000) == {SHAPER: 5_000, "1001": 100}
    assert places([SHAPER, SHAPER, "1001"], [10, 20, 30], 100) == {SHAPER: 30, "1001": 30}


def shaped(t: np.ndarray) -> np.ndarray:
    """Long quiet, then a jump: whoever learns from it expects jumps from a quiet load."""
    return np.where(t % 40 < 34, 1.0, 30.0)


def dataset(shapers: int) -> Dataset:
    """Four quiet groups of each honest user, and groups of one who shapes them."""
    rng, t = np.random.default_rng(1), np.arange(TICKS)
    runs = [
        SeriesRun(f"g {owner} {at}", "cpu", 0, (1 + 0.2 * rng.random(TICKS)).astype(np.float32), 0.0, owner)
        for owner in HONEST
        for at in range(4)
    ]
    runs += [SeriesRun(f"shaped {at}", "cpu", 0, shaped(t + 7 * at).astype(np.float32), 0.0, SHAPER) for at in range(shapers)]
    return Dataset(1.0, TICKS, tuple(runs), WorkerTraces(()), DataRange(0, 1, TICKS, 1, len(runs), ""), ())


def samples(data: Dataset) -> tuple[Samples, list[str]]:
    fit = stream(data.runs, origins(data.runs, split(data.ticks)[0], 2000, 1), 1.0)
    return fit, [data.runs[which].owner for which in fit.run.tolist()]


def test_an_owner_has_no_more_than_its_quota_of_the_origins_and_of_the_loss() -> None:
    fit, owners = samples(dataset(60))
    assert owners.count(SHAPER) <= QUOTA * 2000
    rows = training_rows(fit, ["cpu"] * len(fit), 1, owners)
    free = training_rows(fit, ["cpu"] * len(fit), 1)
    theirs = np.array([owner == SHAPER for owner in owners])
    known = np.isfinite(fit.answers())
    whose = np.nonzero(known)[0]
    share, before = (float(each.weights[theirs[whose]].sum() / each.weights.sum()) for each in (rows, free))
    assert share <= QUOTA * 1.001
    assert before > 2 * share


def test_a_user_who_shapes_all_traces_moves_the_forecasts_of_others_little() -> None:
    base = shipped("demand")
    assert base is not None
    clean, honest = samples(dataset(0))
    fit, owners = samples(dataset(60))
    sets, of_all, short = ["cpu"] * len(fit), dict[str, np.ndarray](), Descent(80, ONWARD.rate, ONWARD.pull)
    for name, rows in (
        ("clean", training_rows(clean, ["cpu"] * len(clean), 1, honest)),
        ("quotas", training_rows(fit, sets, 1, owners)),
        ("free", training_rows(fit, sets, 1)),
    ):
        weights = descend(rows, short, 1, base.arrays, lambda *_: True)
        model = Network({**weights, "speaks": base.arrays["speaks"]}, "")
        of_all[name] = predict(model, clean)
    moved, free = (float(np.abs(of_all[name] - of_all["clean"]).mean()) for name in ("quotas", "free"))
    assert moved < 0.75 * free, "the quota is what holds"
    assert moved < 0.05 * float(of_all["clean"].mean())


def test_what_is_judged_counts_each_owner_up_to_its_quota() -> None:
    values, said = np.array([1.0, 1.0, 100.0]), np.array([[1.0] * 4, [1.0] * 4, [0.0] * 4])
    heavy, _ = losses(values, said)
    light, _ = losses(values, said, np.array([1.0, 1.0, 0.01]))
    assert light < 0.5 * heavy


def test_if_memory_runs_short_the_values_of_others_stay() -> None:
    data = dataset(60)
    mine = sum(len(run.values) for run in data.runs if run.owner != SHAPER)
    kept = newest([Piece(0, 0, data)], VALUE_BYTES * 2 * mine)
    left = {
        owner: sum(len(run.values) for piece in kept.pieces for run in piece.dataset.runs if run.owner == owner)
        for owner in (SHAPER, *HONEST)
    }
    assert all(left[owner] == mine / 3 for owner in HONEST)
    assert 0 < left[SHAPER] <= mine


@pytest.mark.parametrize(("said", "demoted"), [(1.0, {"of bob"}), (1e6, set())])  # more than the machine has helps nobody
def test_no_forecast_for_one_user_has_another_users_work_demoted(said: float, demoted: set[str]) -> None:
    groups = [
        a_group("bob", Class.INTERACTIVE, [a_member(10, owner=1001)], cpu=0.2),
        a_group("of bob", Class.BATCH, [a_member(20, owner=1001)], cpu=0.5),
        a_group("of alice", Class.BATCH, [a_member(30, owner=1000)], cpu=1.0),
    ]
    engine, done = Engine(Config(), "cafe0000"), set[str]()
    for seq in range(5):
        forecasts = [a_forecast(name, "cpu", said) for name in ("bob", "of bob", "of alice")]
        verdict = engine.step(a_tick(seq, machine=a_machine(busy=1.7), groups=groups, forecasts=forecasts))
        done |= {str(each.why.figures.get("contender")) for each in verdict.decisions if "contender" in each.why.figures}
    assert done == demoted
