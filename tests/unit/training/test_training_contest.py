"""The contest: who takes part, who gets a share, and what becomes of a regressor that cannot be exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.models.artifact import shipped
from nicety.models.forecast.demand import DEMAND_FEATURES
from nicety.models.forecast.mixture import member, trained
from nicety.training import contest
from nicety.training.contest import BOOSTING, LINEAR, SHIPPED, Candidate, fit_all, more_of, shares
from nicety.training.crew import Crew
from nicety.training.demand import Fitted
from nicety.training.fit import FitRows, network_of

FOREST = """
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import QuantileRegressor, Ridge
from sklearn.neighbors import KNeighborsRegressor
def forest(): return RandomForestRegressor(5, min_samples_leaf=5, random_state=1)
def ridge(): return Ridge()
def neighbours(): return KNeighborsRegressor(5)
def lines(quantile): return QuantileRegressor(quantile=quantile, alpha=0.01)
class Fails:
    def fit(self, X, y): raise ArithmeticError("no\\x1b[31m luck" + "!" * 1000)
    def predict(self, X): return X[:, 0]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "own.py"
    found.write_text(FOREST)
    found.chmod(0o600)
    return found


def rows(count: int, seed: int, bend: float = 2.0, metric: int = 0) -> FitRows:
    """Rows whose answer bends at 0 of the first column, which no network without training knows."""
    rng = np.random.default_rng(seed)
    made = rng.normal(0, 1, (count, len(DEMAND_FEATURES))).astype(np.float32)
    answers = bend * np.abs(made[:, 0]) + 0.1 * rng.normal(0, 1, count)
    start = np.broadcast_to(np.array([0.0, 1.0, 1.5, 2.0], dtype=np.float32), (count, 4))
    return FitRows(made, start, answers.astype(np.float32), np.ones(count, dtype=np.float32), np.full(count, metric))


def joined(parts: list[FitRows]) -> FitRows:
    return FitRows(*(np.concatenate([getattr(part, name) for part in parts]) for name in FitRows.__dataclass_fields__))


def silent() -> dict[str, NDArray[Any]]:
    """A network that adds nothing."""
    found = shipped("demand")
    assert found is not None
    return {name: np.zeros_like(array) for name, array in found.arrays.items() if name != "speaks"}


def test_boosting_corrects_the_network_and_gets_a_share_where_that_pays() -> None:
    found = fit_all([BOOSTING, LINEAR], rows(4000, 1), 1, silent(), Crew(1))
    assert [each.kind for each in found] == ["trees", "layers"]
    weights = shares(found, silent(), [rows(1000, 2), rows(1000, 3)])
    assert weights[1, 0] > 0.5
    assert weights[:, 1:].tolist() == [[1, 1], [0, 0], [0, 0]]  # metrics without rows are left to the network


def test_who_adds_nothing_gets_nothing() -> None:
    noise = rows(4000, 1, bend=0.0)
    found = [
        Candidate(
            LINEAR,
            "layers",
            {"activation": np.zeros(1, dtype=np.int32), "weight0": np.zeros((len(DEMAND_FEATURES), 4)), "bias0": np.zeros(4)},
        )
    ]
    weights = shares(found, silent(), [noise.part(np.arange(1000)), noise.part(np.arange(1000, 2000))])
    assert weights.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_a_metric_keeps_the_shipped_model_where_training_made_it_worse() -> None:
    spoiled = silent()
    spoiled["bias3"] = np.array([1.0, 1.0, 1.0, 1.0], dtype=np.float32)
    parts = [rows(500, seed, bend, metric) for seed in (2, 3) for bend, metric in ((0.0, 0), (1.0, 1))]
    later = [joined(parts[:2]), joined(parts[2:])]
    weights = shares([Candidate(SHIPPED, "network", silent())], spoiled, later)
    assert weights[:, 0].tolist() == [0, 1]  # the answers are near 0, and the network says 1 more
    assert weights[0, 1] > 0  # and here they are not
    fitted = Fitted({**spoiled, "speaks": np.ones(3, dtype=np.bool_)}, [Candidate(SHIPPED, "network", silent())], weights)
    model = trained(fitted.arrays([True] * 3), "")
    asked = later[0].part(np.arange(3))
    assert np.allclose(model.answers(asked.made, asked.start, asked.metric), asked.start)


def test_a_metric_that_needs_one_member_too_many_is_left_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never to a sum of which a part is missing."""
    chosen = iter([[0, 0.75, 0.25], [0, 1, 0]])  # of cpu, of rss: the network and two candidates
    monkeypatch.setattr(contest, "MOST_MEMBERS", 2)
    monkeypatch.setattr(contest, "_selected", lambda *_: np.array(next(chosen), dtype=np.float32))
    later = [joined([rows(100, seed, 0.0, metric) for metric in (0, 1)]) for seed in (2, 3)]
    weights = shares([Candidate(name, "network", silent()) for name in ("good", "fair")], silent(), later)
    assert weights.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_the_result_does_not_depend_on_what_else_takes_part(file: Path) -> None:
    alone = fit_all([f"{file}:ridge"], rows(1500, 1), 1, silent(), Crew(1))[0]
    beside = fit_all([LINEAR, f"{file}:ridge"], rows(1500, 1), 1, silent(), Crew(1))[1]
    for name, array in alone.arrays.items():
        assert np.array_equal(array, beside.arrays[name]), name


def test_one_value_becomes_quantiles_by_the_errors_on_rows_not_seen(file: Path) -> None:
    found = fit_all([f"{file}:forest"], rows(6000, 1), 1, silent(), Crew(1))[0]
    asked = rows(4000, 5)
    said = asked.start + more_of((found.kind, found.arrays), asked.made)
    covered = (asked.answers[:, None] <= said).mean(axis=0)
    assert covered == pytest.approx([0.5, 0.9, 0.95, 0.99], abs=0.03)
    assert "copied by 8 small trees" in found.remark  # its trees have more than 16 leaves


def test_what_has_no_known_structure_is_copied_for_each_of_its_outputs(file: Path) -> None:
    found = fit_all([f"{file}:neighbours"], rows(2000, 1), 1, silent(), Crew(1))[0]
    assert found.kind == "trees"
    assert "copied by 8 small trees" in found.remark
    assert len(found.arrays["root"]) == 8


def test_a_factory_with_an_argument_quantile_is_asked_for_each(file: Path) -> None:
    found = fit_all([f"{file}:lines"], rows(600, 1), 1, silent(), Crew(1))[0]
    assert (found.kind, found.remark) == ("layers", "")
    assert len(set(found.arrays["bias0"].tolist())) == 4


@pytest.mark.parametrize(
    ("name", "cause"),
    [("Fails", "failed: ArithmeticError: no"), ("nobody", "has no function nobody")],
)
def test_one_that_fails_says_why_and_the_others_go_on(file: Path, name: str, cause: str) -> None:
    found = fit_all([f"{file}:{name}", f"{file}:ridge"], rows(600, 1), 1, silent(), Crew(1))
    assert cause in found[0].remark
    assert found[0].remark.isprintable()
    assert len(found[0].remark) <= 300
    assert [each.kind for each in found] == ["", "layers"]
    weights = shares(found, silent(), [rows(300, 2), rows(300, 3)])
    assert not weights[1].any()


def test_a_member_costs_no_more_than_a_tick_can_pay_for() -> None:
    found = fit_all([BOOSTING], rows(3000, 1), 1, silent(), Crew(1))[0]
    inner = np.count_nonzero(found.arrays["feature"] >= 0)
    assert inner <= contest.MOST_TREE_NODES
    asked = rows(1000, 2).made
    seconds: Callable[..., float] = contest.milliseconds
    costs: list[Any] = [seconds([model], asked) for model in (member("trees", found.arrays), network_of(silent()))]
    assert costs[0] < 10 * costs[1]  # about twice; loosely, because others may use the machine
