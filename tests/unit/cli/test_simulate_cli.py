"""`nicety simulate`: what goes where, and that no mistake of a user ends in a traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Invoke = Callable[..., Any]
SHORT = ("--seconds", "90", "--warmup", "30", "--seeds", "2")
ONCE = (*SHORT[:4], "--seeds", "1")


def test_the_table_is_data_with_a_line_for_each_rule(nicety: Invoke) -> None:
    result = nicety("simulate", *ONCE, "--rule", "kpa", "--rule", "fixed-12", "--rule", "nicety", "--start", "20")
    assert result.code == 0
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0][:2] == ["load", "start"]
    assert [line[:3] for line in lines[1:]] == [["steps", "20", rule] for rule in ("kpa", "fixed-12", "nicety")]
    fixed = lines[2]
    assert (fixed[6], fixed[7], fixed[8]) == ("12.0", "0", "1")
    assert result.err == ""


def test_json_has_every_run_and_the_means(nicety: Invoke, tmp_path: Path) -> None:
    result = nicety("simulate", *SHORT, "--load", "spikes", "--rule", "kpa", "--json", "-")
    said = json.loads(result.out)
    assert [run["seed"] for run in said["runs"]] == [1, 2]
    (mean,) = said["means"]
    assert mean["p95"] == pytest.approx(sum(run["p95"] for run in said["runs"]) / 2)
    assert (mean["load"], mean["rule"], mean["seeds"]) == ("spikes", "kpa", 2)
    again = nicety("simulate", *SHORT, "--load", "spikes", "--rule", "kpa", "--json", tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == said
    assert "kpa" in again.out


def test_a_file_of_requests_is_fitted_and_it_is_said_how(nicety: Invoke, tmp_path: Path) -> None:
    trace = tmp_path / "mine.csv"
    trace.write_text("t_submit\n" + "".join(f"{place * 0.4}\n" for place in range(1500)))
    result = nicety("simulate", trace, *SHORT, "--rule", "kpa")
    assert result.code == 0
    assert result.out.splitlines()[1].startswith("mine")
    assert "mine: 90 s of it, " in result.err
    assert "times as fast" in result.err


def test_the_configuration_is_what_is_simulated(nicety: Invoke, tmp_path: Path) -> None:
    config = tmp_path / "n.toml"
    config.write_text("[pool_size]\nenabled = false\n")
    asked = ("simulate", *ONCE, "--load", "diurnal", "--rule", "nicety")
    with_policy, without = nicety(*asked), nicety(*asked, "--config", config)
    assert without.out.splitlines()[1].split()[6:8] == ["12.0", "0"]
    assert with_policy.out != without.out


def test_lengths_of_time_are_written_as_elsewhere(nicety: Invoke) -> None:
    asked = ("simulate", "--seeds", "1", "--rule", "kpa", "--warmup")
    assert nicety(*asked, "1m", "--seconds", "0.05h").out == nicety(*asked, "60", "--seconds", "180").out
    assert nicety(*asked, "0", "--seconds", "90s").code == 0


def test_the_limits_hold(nicety: Invoke) -> None:
    result = nicety("simulate", *ONCE, "--minimum", "3", "--maximum", "5", "--rule", "nicety", "--rule", "kpa", "--json", "-")
    for mean in json.loads(result.out)["means"]:
        assert 3 <= mean["workers"] <= 5.5  # those that leave finish their request


def test_a_plot_is_a_picture(nicety: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = nicety("simulate", *SHORT, "--rule", "kpa", "--rule", "oracle-80", "--plot", tmp_path / "x.png")
    assert result.code == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert result.err == f"{tmp_path}/x.png: drawn\n"


def test_without_matplotlib_it_is_said_what_to_install(nicety: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = nicety("simulate", *SHORT, "--rule", "kpa", "--plot", tmp_path / "x.png")
    assert (result.code, result.out) == (1, "")
    assert "pip install '.[report]'" in result.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--start", "-1"], "-1 is not between 0 and 600"),
        (["--start", "nan"], "nan is not between"),
        (["--seconds", "30"], "30 is not between 60"),
        (["--seconds", "600", "--warmup", "600"], "600 is not between 0 and 570"),
        (["--service", "0"], "0 is not between"),
        (["--seeds", "0"], "greater than or equal to 1"),
        (["--load", "nonsense"], "nonsense"),
        (["--minimum", "9", "--maximum", "8"], "9 is more than --maximum 8"),
        (["x.csv", "--load", "steps"], "give a file or --load, not both"),
        (["--rule", "nicety,kpa"], "one name each: --rule nicety --rule kpa"),
        (["steps"], "there is no such file; for the synthetic load give --load steps"),
        (["--seconds", "2w"], "not a length of time; write e.g. 90s, 10m, 2h or 1d"),
        (["--json", "/nowhere/x.json"], "there is no folder /nowhere"),
        (["--plot", "/nowhere/x.png"], "there is no folder /nowhere"),
    ],
)
def test_wrong_usage_is_exit_2(nicety: Invoke, arguments: list[str], said: str) -> None:
    result = nicety("simulate", *arguments)
    assert (result.code, result.out) == (2, "")
    assert said in " ".join(result.err.replace("│", "").split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rule", "kpaa"], 'there is no rule "kpaa"; did you mean "kpa"?'),
        (["/nowhere/x.csv"], "/nowhere/x.csv: No such file"),
        (["--seconds", "604800", "--service", "0.0001"], "simulate a shorter time"),
        (["--config", "/nowhere.toml"], "check the path, or leave --config out"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(nicety: Invoke, arguments: list[str], said: str) -> None:
    result = nicety("simulate", *arguments)
    assert (result.code, result.out) == (1, "")
    assert said in result.err
    assert result.err.count("\n") == 1
