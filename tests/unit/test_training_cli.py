"""`train` from recorded traces to a live model, and what it says and returns where it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nicety.models.artifact import load_live
from nicety.models.demand import TreeDemand
from nicety.models.records import SAMPLE, HostSample, Identity, Known, PoolSample, ProcId, Snapshot, WorkerSample
from nicety.scheduler.store.traces import TraceWriter
from nicety.training.cli import app
from nicety.training.dataset import LEAST_TICKS

TICKS, PROCESSES = 500, 12
CONFIG = '[pools.web]\nkind = "gunicorn"\npid = 99\n'
WALL = 1_700_000_000 * 10**9


def write(state: Path, ticks: int = TICKS, *, pool: bool = True, interval: float = 1.0) -> Path:
    """A trace of programs that go up and down in waves, and of a pool; with its configuration."""
    ids = [ProcId(100 + i, 7) for i in range(PROCESSES)]
    identities = {id_: Identity("x", f"program{i // 2}", "/", "", 0) for i, id_ in enumerate(ids)}
    rng, table = np.random.default_rng(1), np.zeros(PROCESSES, SAMPLE)
    table["pid"], table["start_ticks"], table["known"] = [id_.pid for id_ in ids], 7, int(Known.WAIT | Known.IO)
    periods = rng.uniform(15, 50, PROCESSES // 2).repeat(2)
    writer = TraceWriter(state, boot_id="boot", session="5e551017", budget_bytes=1 << 28, interval=interval)
    for tick in range(ticks):
        used = 0.2 * (1 + 0.9 * np.sin(2 * np.pi * tick / periods)) * rng.uniform(0.9, 1.1, PROCESSES)
        table["cpu_ns"] += (used * interval * 1e9).astype(np.uint64)
        table["slices"] += 20
        table["read_chars"] += 5000
        table["rss_bytes"] = ((50 + 20 * used) * (1 << 20)).astype(np.uint64)
        workers = tuple(WorkerSample(id_, min(float(used[i]) * 2, 1.0), True) for i, id_ in enumerate(ids[:4]))
        pools = (PoolSample("web", 4, 4, 0.0, workers, None, None, ""),) if pool else ()
        at = round((1000 + tick * interval) * 1e9)
        host = HostSample((at // 2,), 1 << 34, 1 << 33, None)
        writer.append(Snapshot(at, WALL + at, at // 10**7, table, identities, host, pools))
    writer.close()
    config = state / "nicety.toml"
    config.write_text(CONFIG if pool else "")
    return config


def train(state: Path, *options: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    result = CliRunner().invoke(
        app, ["train", "--no-idle", "--state-dir", str(state), "--config", str(state / "nicety.toml"), *options]
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("trained") / "state"
    write(found)
    return found


@pytest.fixture(scope="module")
def first(state: Path) -> tuple[int, dict[str, Any], str]:
    code, out, err = train(state, "--json", "--only", "demand")
    return code, json.loads(out), err


def test_a_model_that_beats_the_baselines_goes_live(state: Path, first: tuple[int, dict[str, Any], str]) -> None:
    code, report, err = first
    assert code == 0, report
    assert err == ""
    demand = report["models"]["demand"]
    assert demand["outcome"] == "promoted"
    scores = demand["scores"]
    assert scores["new model"] < min(score for name, score in scores.items() if name != "new model")
    live = load_live(state / "models", "demand")
    assert live is not None
    assert live.digest == demand["digest"]
    assert TreeDemand(live.arrays, live.digest).name == f"demand {live.digest[:8]}"
    assert live.card.interval == 1.0
    assert (live.card.data.ticks, live.card.data.processes) == (TICKS - 1, PROCESSES)
    assert live.card.data.last_wall - live.card.data.first_wall == (TICKS - 1) * 10**9
    assert [dict(row) for row in live.card.metrics] == [{**row, "coverage": row["coverage"]} for row in demand["rows"]]


def test_the_same_again_is_refused_with_the_table(state: Path, first: tuple[int, dict[str, Any], str]) -> None:
    before = load_live(state / "models", "demand")
    assert before is not None
    code, out, _ = train(state, "--only", "demand")
    assert code == 3
    assert "demand model: refused" in out
    assert f"does not beat running {before.digest[:8]}" in out
    for name in ("new model", f"running {before.digest[:8]}", "last value", "ewma", "window quantile", "seasonal naive"):
        assert name in out
    after = load_live(state / "models", "demand")
    assert after is not None
    assert after.digest == before.digest


def test_a_dry_run_saves_nothing(state: Path, tmp_path: Path) -> None:
    code, out, _ = train(state, "--only", "demand", "--dry-run", "--models", str(tmp_path / "models"))
    assert code == 0
    assert "demand model: would be promoted" in out
    assert not (tmp_path / "models").exists()


def test_the_anomaly_model_is_trained_from_the_same_traces(state: Path, tmp_path: Path) -> None:
    code, out, _ = train(state, "--only", "anomaly", "--json", "--models", str(tmp_path / "models"))
    anomaly = json.loads(out)["models"]["anomaly"]
    assert (code, anomaly["outcome"]) in {(0, "promoted"), (3, "refused")}, anomaly
    live = load_live(tmp_path / "models", "anomaly")
    assert (live is not None) == (code == 0)


def test_traces_without_pools_still_give_a_demand_model(tmp_path: Path) -> None:
    write(tmp_path / "state", pool=False)
    code, out, _ = train(tmp_path / "state", "--json")
    models = json.loads(out)["models"]
    assert code == 0
    assert (models["demand"]["outcome"], models["anomaly"]["outcome"]) == ("promoted", "not trained")
    code, out, _ = train(tmp_path / "state", "--only", "anomaly")
    assert code == 1
    assert "no pool with workers" in out


def test_too_little_data_says_how_much_is_needed(tmp_path: Path) -> None:
    write(tmp_path / "state", ticks=60)
    code, out, _ = train(tmp_path / "state", "--only", "demand")
    assert code == 1
    assert f"59 ticks are too few to fit, calibrate and test on; at least {LEAST_TICKS} are needed" in out
    assert f"{LEAST_TICKS / 60:.1f} min" in out


def test_no_traces_say_how_to_get_some(tmp_path: Path) -> None:
    (tmp_path / "nicety.toml").write_text("")
    code, out, err = train(tmp_path)
    assert (code, out) == (1, "")
    assert "nicety record" in err


def test_traces_of_another_interval_are_named(tmp_path: Path) -> None:
    write(tmp_path / "state", ticks=30, interval=0.5)
    code, _, err = train(tmp_path / "state")
    assert code == 1
    assert "0.5 s a tick" in err
    assert "daemon.interval" in err


def test_a_wrong_configuration_is_told_line_by_line(state: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("[daemon]\nintervall = 2\n[store]\nnothing = 1\n")
    result = CliRunner().invoke(app, ["train", "--no-idle", "--state-dir", str(state), "--config", str(tmp_path / "wrong.toml")])
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("nicety: ") for line in lines)
    assert "intervall" in lines[0]


@pytest.mark.parametrize("options", [["--only", "nothing"], ["--jobs", "0"], ["--since", "yesterday"], ["--what"]])
def test_wrong_usage_is_exit_2(state: Path, options: list[str]) -> None:
    code, _, err = train(state, *options)
    assert code == 2
    assert options[0] in err


def test_since_leaves_older_traces_out(state: Path) -> None:
    code, _, err = train(state, "--since", "1h")  # the trace is of 2023
    assert code == 1
    assert "no two consecutive snapshots" in err


def test_a_damaged_trace_is_used_up_to_the_damage_and_named(tmp_path: Path) -> None:
    write(tmp_path / "state")
    (path,) = (tmp_path / "state" / "traces").glob("*.db")
    import sqlite3

    with sqlite3.connect(path) as db:
        db.execute("UPDATE ticks SET data = zeroblob(9) WHERE id & 0xffffffff = 400")
    db.close()
    code, out, err = train(tmp_path / "state", "--json", "--only", "demand")
    report = json.loads(out)
    assert code in (0, 3)
    assert report["ticks"] == 399
    assert len(report["lost"]) == 1
    assert "left out: " in err


def test_as_a_program_it_is_idle_and_takes_one_thread_a_fit(state: Path, tmp_path: Path) -> None:
    code = (
        "import os, runpy, sys, atexit\n"
        "atexit.register(lambda: print(os.sched_getscheduler(0), os.environ['OMP_NUM_THREADS'], os.nice(0), file=sys.stderr))\n"
        f"sys.argv = ['x', 'train', '--state-dir', {str(tmp_path)!r}]\n"
        "runpy.run_module('nicety.training', run_name='__main__')\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "64"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1  # there are no traces
    assert done.stderr.splitlines()[-1] == f"{os.SCHED_IDLE} 1 19"
