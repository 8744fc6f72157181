"""Which rules a replay chooses."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nicety.models.queueing import Times
from nicety.scheduler.config.sections import Config, Models, Objective, PoolConfig
from nicety.scheduler.decision import Rules
from nicety.scheduler.interpreter import PYTHON
from nicety.scheduler.simulation import contest as contests
from nicety.scheduler.simulation.arrivals import LoadError, Recorded
from nicety.scheduler.simulation.contest import Trial, _smallest, _winner, contest
from nicety.scheduler.simulation.run import Figures, Track
from nicety.scheduler.store.chosen import PoolReplay

ALL = (Rules.ALL, 0)
NOTHING = Track(np.zeros(1), np.zeros(1), np.zeros(1))


def recorded(load: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Recorded:
    return Recorded("web", 1.0, load, load * 0, load * 0 + 8, np.zeros(0), 4.0, 0.0, Times.fitted(0.5, 1.35))


def config(objective: Objective | None) -> Config:
    web = PoolConfig(kind="command", command=["x"], minimum=2, maximum=16, objective=objective)
    return Config(models=Models(demand=False), pools={"web": web})


def trial(rules: Rules, size: int, seconds: float, workers: float) -> Trial:
    return Trial(rules, size, Figures("", "", 4.0, 1, 1, 0.0, 0.0, 0.0, 0.0, workers, 0.0, 0.0, NOTHING), seconds)


def test_a_load_without_a_pattern_gets_a_constant_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contests, "LEAST", 400.0)
    objective = Objective(p95="1700ms")
    replay = contest(recorded(np.full(400, 5.0)), config(objective), objective, ALL, 1)
    assert replay.chosen is not None
    assert (replay.chosen.rules, replay.chosen.workers, replay.most) == (Rules.CONSTANT, replay.chosen.size, 1.7)
    assert 5 < replay.chosen.size < 10
    assert [(row.rules, row.keeps) for row in replay.table] == [(rules, True) for rules in Rules]
    assert replay.table[0].workers > 1.05 * replay.chosen.workers
    assert (replay.chosen.least, replay.chosen.most, replay.chosen.hours) == (5.0, 5.0, 400 / 3600)
    assert 5.0 < replay.chosen.peak < 10.0


def test_the_cheapest_that_keeps_the_objective_wins_and_clearly() -> None:
    every = trial(Rules.ALL, 0, 0.9, 10.0)
    slow, close, clear = trial(Rules.CONSTANT, 6, 1.1, 6.0), trial(Rules.REACTIVE, 0, 1.0, 9.6), trial(Rules.CONSTANT, 9, 0.9, 9.4)
    assert _winner([every, slow, close], 1.0, ALL) is every
    assert _winner([every, slow, close], 1.0, (Rules.CONSTANT, 6)) is close, "what was in force is too slow"
    assert _winner([every, slow, clear], 1.0, ALL) is clear
    assert _winner([every, close, clear], 1.0, (Rules.REACTIVE, 0)) is close
    assert _winner([every, slow], 0.5, (Rules.CONSTANT, 6)) is every, "none keeps it"


@pytest.mark.parametrize(("needed", "found"), [(2, 2), (7, 7), (16, 16), (17, None)])
def test_the_smallest_size_that_keeps_it_is_found(needed: int, found: int | None) -> None:
    assert _smallest(lambda size: size >= needed, 2, 16) == found


def test_what_a_replay_would_say_nothing_about_is_refused_with_the_reason() -> None:
    enough = recorded(np.full(1800, 5.0))
    for pool, objective, reason in (
        (recorded(np.full(1799, 5.0)), None, "web: recorded for 1799 s; a replay needs 1800"),
        (enough, Objective(utilization=0.7), "web: its objective is a utilization, which is a rule of its own"),
        (replace(enough, capacity=3.0), None, "web: a worker serves 3 requests at once; only one is simulated"),
    ):
        with pytest.raises(LoadError) as error:
            contest(pool, config(objective), objective, ALL, 1)
        assert str(error.value) == reason


def test_the_program_answers_for_each_pool_even_where_nothing_is_recorded(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    command = [*PYTHON, "-m", "nicety.scheduler.simulation.contest", "--state-dir", str(state), "--pool", "web", "--pool", "api"]
    said = subprocess.run(command, capture_output=True, check=True, text=True)
    replays = [msgspec.json.decode(line, type=PoolReplay) for line in said.stdout.splitlines()]
    assert [(each.pool, each.chosen) for each in replays] == [("web", None), ("api", None)]
    assert all(str(state) in each.trouble for each in replays)
