"""`train` from recorded traces to a live model, and what it says and returns where it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import nicety.training.contest
import nicety.training.dataset
import nicety.training.gather
from nicety.models.artifact import load_live
from nicety.models.forecast.mixture import trained
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Known, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.store.traces import TraceWriter
from nicety.training.cli import app
from nicety.training.dataset import LEAST_TICKS

ROOT = Path(__file__).resolve().parents[3]
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
        table["timeslices"] += 20
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
        app, ["train", "--no-idle", "--jobs", "1", "--state-dir", str(state), "--config", str(state / "nicety.toml"), *options]
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(autouse=True, scope="module")
def _few_rows() -> Iterator[None]:
    """So that the candidates beside the network take a second, not ten."""
    with pytest.MonkeyPatch.context() as patch:
        for name, rows in (("LINEAR_ROWS", 200), ("BOOSTING_ROWS", 4000), ("OWN_ROWS", 2000)):
            patch.setattr(nicety.training.contest, name, rows)
        yield


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
    code, report, _ = first
    assert code == 0, report
    demand = report["models"]["demand"]
    assert demand["outcome"] == "promoted"
    scores = demand["scores"]
    assert scores["new model"] < min(score for name, score in scores.items() if name != "new model")
    live = load_live(state / "models", "demand")
    assert live is not None
    assert live.digest == demand["digest"]
    assert trained(live.arrays, live.digest).name == f"demand {live.digest[:8]}"
    assert live.card.interval == 1.0
    assert (live.card.data.ticks, live.card.data.processes) == (TICKS - 1, PROCESSES)
    assert live.card.data.last_wall - live.card.data.first_wall == (TICKS - 1) * 10**9
    assert [dict(row) for row in live.card.metrics] == [{**row, "coverage": row["coverage"]} for row in demand["rows"]]


def test_without_a_terminal_each_stage_is_one_plain_line(first: tuple[int, dict[str, Any], str]) -> None:
    _, _, err = first
    stages = [line.split(":")[0] for line in err.splitlines()]
    assert stages == [
        "reading traces",
        "running the simple forecasters",
        "finding how far to go from the shipped model",
        "fitting the demand model",
        "fitting the other candidates",
        "judging on held-out time",
        "writing the report",
    ]
    assert err.startswith(f"reading traces: {TICKS} ticks, ")
    assert "\x1b" not in err


def test_the_report_lies_beside_the_model_and_does_not_disturb_it(state: Path, first: tuple[int, dict[str, Any], str]) -> None:
    _, report, _ = first
    page = Path(report["report"])
    assert page == state / "models" / "demand" / report["models"]["demand"]["digest"] / "report.html"
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "program program3" in text
    assert report["models"]["demand"]["digest"][:8] in text
    assert load_live(state / "models", "demand") is not None


def test_what_was_kept_for_an_interruption_is_gone_after_success(state: Path, first: tuple[int, dict[str, Any], str]) -> None:
    assert first[0] == 0
    assert not (state / "training").exists()


def test_the_same_again_is_refused_with_the_table(state: Path, first: tuple[int, dict[str, Any], str]) -> None:
    before = load_live(state / "models", "demand")
    assert before is not None
    code, out, _ = train(state, "--only", "demand")
    assert code == 3
    assert "demand model: refused" in out
    assert f"is as good as running {before.digest[:8]}" in out
    for name in ("new model", f"running {before.digest[:8]}", "last value", "ewma", "window quantile", "seasonal naive"):
        assert name in out
    assert f"report: {state / 'report.html'}" in out
    after = load_live(state / "models", "demand")
    assert after is not None
    assert after.digest == before.digest


def test_a_dry_run_saves_nothing_but_the_report_that_was_asked_for(state: Path, tmp_path: Path) -> None:
    before = sorted(state.rglob("*"))
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "page.html").symlink_to(tmp_path / "victim")
    options = ["--only", "demand", "--dry-run", "--models", str(tmp_path / "models"), "--report", str(tmp_path / "page.html")]
    code, out, _ = train(state, *options)
    assert (tmp_path / "victim").read_text() == "precious", "a planted link is replaced, not followed"
    assert code == 0
    assert "demand model: would be promoted" in out
    assert not (tmp_path / "models").exists()
    assert sorted(state.rglob("*")) == before
    assert "this was a dry run" in (tmp_path / "page.html").read_text()


def test_the_anomaly_model_is_trained_from_the_same_traces(state: Path, tmp_path: Path) -> None:
    code, out, _ = train(state, "--only", "anomaly", "--json", "--no-report", "--models", str(tmp_path / "models"))
    anomaly = json.loads(out)["models"]["anomaly"]
    assert (code, anomaly["outcome"]) in {(0, "promoted"), (3, "refused")}, anomaly
    live = load_live(tmp_path / "models", "anomaly")
    assert (live is not None) == (code == 0)


def test_traces_without_pools_still_give_a_demand_model(tmp_path: Path) -> None:
    write(tmp_path / "state", pool=False)
    code, out, _ = train(tmp_path / "state", "--json", "--no-report")
    models = json.loads(out)["models"]
    assert code == 0
    assert (models["demand"]["outcome"], models["anomaly"]["outcome"]) == ("promoted", "not trained")
    code, out, _ = train(tmp_path / "state", "--only", "anomaly", "--no-report")
    assert code == 1
    assert "no pool with workers" in out


def test_a_folder_of_machines_gives_one_model_of_all(tmp_path: Path) -> None:
    for name, ticks in (("one", 300), ("two", 250)):
        write(tmp_path / "fleet" / name, ticks)
    (tmp_path / "nicety.toml").write_text(CONFIG)
    code, out, _ = train(tmp_path, str(tmp_path / "fleet"), "--only", "demand", "--json")
    report = json.loads(out)
    assert code in (0, 3)
    assert report["machines"] == ["one", "two"]
    assert report["ticks"] == 299 + 249
    assert report["data"]["groups"] == 2 * (PROCESSES // 2 - 1)  # of two programs, the pool has the processes
    page = Path(report["report"]).read_text()
    assert "one/web" in page
    assert "two/program program3" in page


def test_too_little_data_says_how_much_is_needed(tmp_path: Path) -> None:
    write(tmp_path / "state", ticks=60)
    code, out, _ = train(tmp_path / "state", "--only", "demand")
    assert code == 1
    assert f"59 ticks are too few to fit and test on; at least {LEAST_TICKS} are needed" in out
    assert f"{LEAST_TICKS / 60:.1f} min" in out
    assert not (tmp_path / "state" / "training").exists()


def test_no_traces_say_how_to_get_some(tmp_path: Path) -> None:
    (tmp_path / "nicety.toml").write_text("")
    code, out, err = train(tmp_path)
    assert (code, out) == (1, "")
    assert "nicety record" in err


def test_traces_of_another_interval_are_named(tmp_path: Path) -> None:
    write(tmp_path / "state", ticks=30, interval=0.5)
    code, _, err = train(tmp_path / "state")
    assert code == 1
    assert "30 ticks of 0.5 s" in err
    assert "daemon.interval" in err


def test_a_wrong_configuration_is_told_line_by_line(state: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("[daemon]\nintervall = 2\n[store]\nnothing = 1\n")
    result = CliRunner().invoke(app, ["train", "--no-idle", "--state-dir", str(state), "--config", str(tmp_path / "wrong.toml")])
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("nicety: ") for line in lines)
    assert "intervall" in lines[0]


@pytest.mark.parametrize(
    "options",
    [
        ["--only", "nothing"],
        ["--since", "yesterday"],
        ["--time-budget", "soon"],
        ["--memory", "much"],
        ["--memory", "1m"],
        ["--report", "/nowhere/at/all.html"],
        ["--what"],
    ],
)
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
    code, out, err = train(tmp_path / "state", "--json", "--only", "anomaly", "--no-report")
    report = json.loads(out)
    assert code in (0, 3)
    assert report["ticks"] == 399
    assert len(report["lost"]) == 1
    assert "left out: " in err


def interrupt(number: int) -> None:
    """What a fault calls: the process gets a signal, as from outside."""
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_says_so_and_goes_on_behind_what_it_has_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: int
) -> None:
    for name in ("one", "two"):
        write(tmp_path / "fleet" / name, 80)
    (tmp_path / "nicety.toml").write_text("")
    real, read, faults = nicety.training.dataset.build, list[str](), [number]

    def build(*arguments: Any) -> Any:
        if read and faults:
            interrupt(faults.pop())
        read.append("a machine")
        return real(*arguments)

    monkeypatch.setattr(nicety.training.gather, "build", build)
    code, out, err = train(tmp_path, str(tmp_path / "fleet"), "--only", "demand")
    assert (code, out) == (expected, "")
    assert err.splitlines()[-1] == "interrupted; start it again to resume"
    code, out, _ = train(tmp_path, str(tmp_path / "fleet"), "--only", "demand", "--no-report")
    assert len(read) == 2  # the first machine once, the second once
    assert code == 1  # 80 ticks are too few
    assert "158 ticks of 1 s" in out
    assert not (tmp_path / "training").exists()


def test_a_model_that_was_done_is_not_trained_again_after_the_kill(tmp_path: Path) -> None:
    write(tmp_path)
    fault = (
        "import os, signal, sys\n"
        "os.environ['OMP_NUM_THREADS'] = '1'\n"  # as __main__ does
        "import nicety.training.kinds as kinds, nicety.training.cli as cli\n"
        "kinds.fit_anomaly = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"sys.argv = ['x', 'train', '--no-idle', '--jobs', '1', '--state-dir', {str(tmp_path)!r}]\n"
        f"sys.argv += ['--config', {str(tmp_path / 'nicety.toml')!r}]\n"
        "cli.main()\n"
    )
    killed = subprocess.run([sys.executable, "-c", fault], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    promoted = load_live(tmp_path / "models", "demand")
    assert promoted is not None
    code, out, err = train(tmp_path, "--json", "--no-report")
    models = json.loads(out)["models"]
    assert "the demand model of the interrupted training is used" in err
    assert "fitting the demand model" not in err
    assert (models["demand"]["outcome"], models["demand"]["digest"]) == ("promoted", promoted.digest)
    assert models["demand"]["rows"]
    assert models["anomaly"]["outcome"] in ("promoted", "refused")
    assert code in (0, 3)


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


@pytest.mark.parametrize("package", ["sklearn", "jinja2", "threadpoolctl", "joblib"])
def test_without_its_extra_training_says_how_to_get_it(package: str) -> None:
    code = f"import runpy, sys; sys.modules['{package}'] = None; runpy.run_module('nicety.training', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, "train"], capture_output=True, text=True, check=False)
    said = f"nicety: training needs {package}, which is not installed; in nicety's checkout, run: pip install '.[train]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def from_the_docs() -> str:
    """The file of "Your own regressor"."""
    page = (ROOT / "docs" / "training.md").read_text()
    return page.split("## Your own regressor")[1].split("```python\n")[1].split("```")[0]


def test_the_regressor_of_the_docs_is_trained_and_has_its_line_in_the_contest(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "forest.py"
    file.write_text(from_the_docs())
    file.chmod(0o600)
    config = tmp_path / "nicety.toml"
    config.write_text(f'{CONFIG}\n[training]\nregressors = ["{file}:forest"]\n')
    page = tmp_path / "report.html"
    code, out, _ = train(state, "--config", str(config), "--only", "demand", "--dry-run", "--report", str(page), "--json")
    assert code in (0, 3), out
    demand = json.loads(out)["models"]["demand"]
    assert demand["outcome"] in ("would be promoted", "refused")
    table = {(row["name"], row["metric"]): row for row in demand["contest"]}
    names = ["network", "boosting", "linear quantiles", "shipped", f"{file}:forest"]
    assert sorted(table) == sorted((name, metric) for name in names for metric in ("cpu", "load", "rss"))
    own = table[f"{file}:forest", "cpu"]
    assert 0 < own["score"] < 1.1  # 1: the last value
    assert 0.6 < own["covered90"] <= own["covered95"] <= 1
    assert own["milliseconds"] > 0
    assert "copied by 8 small trees" in own["remark"]
    assert 0 <= own["share"] <= 1
    for metric in ("cpu", "load", "rss"):
        assert sum(table[name, metric]["share"] for name in names) > 0
    html = page.read_text()
    assert "The contest" in html
    assert "copied by 8 small trees" in html


def test_a_regressor_that_cannot_be_imported_ends_the_training_with_the_cause(state: Path, tmp_path: Path) -> None:
    config = tmp_path / "nicety.toml"
    config.write_text(f'{CONFIG}\n[training]\nregressors = ["no_such_package:forest"]\n')
    code, out, err = train(state, "--config", str(config), "--dry-run")
    assert (code, out) == (1, "")
    assert "training.regressors: no_such_package:forest cannot be imported: ModuleNotFoundError" in err
