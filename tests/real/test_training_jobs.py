"""`train` in several processes gives the models of one process, also after an interruption, and leaves no process behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Known, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.interpreter import PYTHON
from nicety.scheduler.store.traces import TraceWriter

WALL = 1_700_000_000 * 10**9
MACHINES, TICKS, PROCESSES = 2, 3000, 12


def record(state: Path, seed: int) -> None:
    """A machine whose programs go up and down, with a pool of four workers."""
    ids = [ProcId(100 + i, 7) for i in range(PROCESSES)]
    identities = {id_: Identity("x", f"program{i // 2}", "/", "", 0) for i, id_ in enumerate(ids)}
    rng, table = np.random.default_rng(seed), np.zeros(PROCESSES, SAMPLE)
    table["pid"], table["start_ticks"], table["known"] = [id_.pid for id_ in ids], 7, int(Known.WAIT | Known.IO)
    periods = rng.uniform(15, 50, PROCESSES // 2).repeat(2)
    writer = TraceWriter(state, boot_id="boot", session=f"5e55{seed:04}", budget_bytes=1 << 28, interval=1.0)
    for tick in range(TICKS):
        used = 0.2 * (1 + 0.9 * np.sin(2 * np.pi * tick / periods)) * rng.uniform(0.9, 1.1, PROCESSES)
        table["cpu_ns"] += (used * 1e9).astype(np.uint64)
        table["timeslices"] += 20
        table["rss_bytes"] = ((50 + 20 * used) * (1 << 20)).astype(np.uint64)
        workers = tuple(WorkerSample(id_, min(float(used[i]) * 2, 1.0), True) for i, id_ in enumerate(ids[:4]))
        pools = (PoolSample("web", 4, 4, 0.0, workers, None, None, ""),)
        at = (1000 + tick) * 10**9
        writer.append(
            Snapshot(at, WALL + at, at // 10**7, table, identities, HostSample((at // 2,), 1 << 34, 1 << 33, None), pools)
        )
    writer.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    for number in range(MACHINES):
        record(folder / f"machine{number}", number)
    return folder


def start(state: Path, fleet: Path, jobs: int) -> subprocess.Popen[str]:
    command = [
        *PYTHON,
        "-m",
        "nicety.training",
        "train",
        "--no-idle",
        "--no-report",
        "--state-dir",
        str(state),
        "--jobs",
        str(jobs),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([*command, str(fleet)], stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment)


def models(state: Path) -> dict[str, str]:
    """Digest of the arrays of each kind of model that is live."""
    return {path.parts[-3]: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(state.glob("models/*/*/model.npz"))}


@pytest.fixture(scope="module")
def alone(fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The models that one process makes."""
    state = tmp_path_factory.mktemp("alone")
    process = start(state, fleet, 1)
    _, said = process.communicate()
    assert process.returncode in (0, 3), said
    return models(state)


def test_two_processes_give_the_models_of_one_after_an_interruption_too(fleet: Path, alone: dict[str, str], tmp_path: Path) -> None:
    assert "demand" in alone
    process = start(tmp_path, fleet, 2)
    while process.poll() is None and not list(tmp_path.glob("training/*/piece-*.part")):
        time.sleep(0.01)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 2
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "interrupted; start it again to resume"
    assert "Traceback" not in said
    psutil.wait_procs(below, timeout=10)
    assert not [one for one in below if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("training/*/piece-*.part")}
    assert 0 < len(kept) < 6
    again = start(tmp_path, fleet, 2)
    _, said = again.communicate()
    assert again.returncode in (0, 3), said
    assert models(tmp_path) == alone
    assert not (tmp_path / "training").exists()
