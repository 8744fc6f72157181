"""The checks of models show them what goes wrong in live data, so that a broken promise is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from nicety.models import checks
from nicety.models.anomaly.model import RobustZ, score
from nicety.models.checks import check_scorer, series_zoo
from nicety.models.records import Anomaly, Score


def test_a_scorer_is_shown_workers_of_many_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Sequence[Score]] = []

    def noted(*args: Any) -> list[Score]:
        found.append(score(*args))
        return list(found[-1])

    monkeypatch.setattr(checks, "score", noted)
    check_scorer(RobustZ())
    kinds = {(said.id.pid, said.kind) for scores in found for said in scores if said.size >= 1}
    assert kinds >= {
        (103, Anomaly.LEAK),
        (104, Anomaly.STUCK),
        (105, Anomaly.SPIN),
        (106, Anomaly.THREAD_LEAK),
        (107, Anomaly.FORK_STORM),
    }


def test_a_forecaster_is_shown_a_rise_and_a_fall_at_the_last_tick() -> None:
    windows, _ = series_zoo()
    steps = {(float(row[0]), float(row[-1])) for row in windows if len(set(row[:-1].tolist())) == 1 and row[-1] != row[0]}
    assert steps == {(0.0, 1.0), (1.0, 0.0)}
