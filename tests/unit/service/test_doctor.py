"""What `nicety doctor` says of this installation: daemon and models. test_rivals.py has rivals, test_facts.py the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nicety.models.artifact import promote, save, shipped
from nicety.models.records import SAMPLE, HostSample, PoolSample, Snapshot
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.read.facts import Finding
from nicety.scheduler.read.reader import UNREAD
from nicety.scheduler.service import doctor
from nicety.scheduler.service.answers.control_socket import ControlSocket
from nicety.scheduler.service.elsewhere import ONLY_LINUX
from nicety.scheduler.testing.clock import FakeClock


def examined(state: Path, config: str = "") -> dict[str, Finding]:
    file = state.parent / "nicety.toml"
    file.write_text(config)
    found = doctor.examine(str(file), str(state), {}, os.geteuid())
    return {finding.name: finding for finding in found}


@contextmanager
def a_daemon(path: Path) -> Iterator[None]:
    """Somebody who answers `status` at this path as the daemon does."""
    ended = threading.Event()
    answer = {"mode": "act", "running_seconds": 3725.0}
    channel = ControlSocket(path, {"status": lambda _: answer}, "", clock=SystemClock())

    def serve() -> None:
        while not ended.is_set():
            channel.serve(0.02)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        channel.close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


def looked_at(
    monkeypatch: pytest.MonkeyPatch, proc: Path, unseen: float, steal: float = 0.0, namespace: int = 0xEFFFFFFC
) -> Finding:
    """What is said of a machine of two CPUs on which visible processes use 0.5 cores, and somebody else besides."""
    clock, closed = FakeClock(), list[bool]()
    began = clock.monotonic()

    class Source:
        def __init__(self, root: Path, slow_every: int) -> None:
            assert root == proc

        def read(self, at: int, wall: int, pools: tuple[PoolSample, ...]) -> Snapshot:
            seconds = (at - began) / 1e9
            table = np.zeros(1, dtype=SAMPLE)
            table["pid"], table["cpu_ns"], table["threads"] = 7, round(0.5e9 * seconds), 4
            busy = round((0.5 + unseen) * 1e9 * seconds)
            host = HostSample((busy, 0), 1, 1, None, steal_ns=round(steal * 1e9 * seconds))
            return Snapshot(at, wall, 100, table, {}, host, pools)

        def close(self) -> None:
            closed.append(True)

    class Stat:
        st_ino = namespace

    monkeypatch.setattr("nicety.scheduler.read.proc.ProcSource", Source)
    monkeypatch.setattr(Path, "stat", lambda self: Stat() if self == proc / "self/ns/pid" else pytest.fail(str(self)))
    found = doctor.visibility("proc", proc, clock)
    assert closed
    return found


@pytest.mark.parametrize(
    ("unseen", "steal", "namespace", "ok", "told"),
    [
        (0.05, 0.0, 0xEFFFFFFC, True, "all processes of this machine are seen: of 0.55 cores in use now, 0.50 are accounted for"),
        (1.25, 0.0, 0xEFFFFFFC, False, "of 1.75 cores in use now, 0.50 are accounted for: the rest belongs to processes that"),
        (1.25, 0.0, 4026532345, False, "only processes of this pid namespace are seen: of 1.75 cores in use now, 0.50 are"),
        (0.0, 0.75, 0xEFFFFFFC, True, "0.75 more went to other guests of the host"),
    ],
)
def test_it_says_whether_all_of_the_machine_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unseen: float, steal: float, namespace: int, ok: bool, told: str
) -> None:
    found = looked_at(monkeypatch, tmp_path, unseen, steal, namespace)
    assert found.ok is ok
    assert told in found.what
    assert bool(found.fix) is not ok


def test_a_directory_that_is_no_procfs_is_a_finding(tmp_path: Path) -> None:
    found = doctor.visibility("proc", tmp_path, FakeClock())
    assert not found.ok
    assert "stat" in found.what


def test_it_says_which_reader_serves_and_what_the_better_one_needs(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examined(state)["reader"].ok
    wanted = examined(state, '[daemon]\nreader = "psutil"\n')
    assert (wanted["reader"].ok, wanted["reader"].what) == (False, UNREAD)
    assert wanted["reader"].fix.startswith('daemon.reader = "auto"')
    assert "are accounted for" in wanted["visibility"].what
    assert "renice" in wanted
    monkeypatch.setattr("nicety.scheduler.read.reader.LINUX", "another")
    elsewhere = examined(state)
    assert (elsewhere["reader"].ok, elsewhere["acting"].what) == (True, ONLY_LINUX)
    assert not {"renice", "pressure", "fences", "rival tuners"} & elsewhere.keys()


def test_it_says_how_long_the_daemon_has_run(state: Path) -> None:
    with a_daemon(state / "control.sock"):
        row = examined(state)["daemon"]
    assert (row.ok, row.what) == (True, "running, act mode, for 1 h 2 min; see `nicety status`")


def test_an_entry_that_nothing_belongs_to_is_a_finding(state: Path, tmp_path: Path) -> None:
    entries = (
        f'[groups.mine]\nuid = {os.geteuid()}\n[groups.night]\nprogram = "zq-no-such-job"\n'
        f'[pools.web]\nkind = "gunicorn"\npidfile = "{tmp_path}/web.pid"\n[pools.me]\nkind = "celery"\npid = {os.getpid()}\n'
    )
    file = tmp_path / "nicety.toml"
    file.write_text(entries)
    found = [it for it in doctor.examine(str(file), str(state), {}, os.geteuid()) if it.name in ("groups", "pools")]
    night, rest, web, me = found
    assert (night.ok, night.fix) == (True, ""), "a job of the night is no trouble by day"
    assert night.what == '[groups.night] matches nothing (program = "zq-no-such-job"); no process has such a name now'
    assert (rest.ok, rest.what) == (True, "1 of 2 have processes")
    assert not web.ok
    assert web.what.startswith(f"[pools.web]: pid file {tmp_path}/web.pid does not exist: start gunicorn with --pid")
    assert (me.ok, me.what) == (True, f"[pools.me]: pid = {os.getpid()}, pid {os.getpid()}")


def test_a_group_that_is_misspelt_is_a_finding_with_what_was_meant(state: Path) -> None:
    (Path(state.parent) / "zqserver.py").write_text("import sys; print(flush=True); sys.stdin.read()")
    server = subprocess.Popen([sys.executable, "zqserver.py"], cwd=state.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        groups = examined(state, '[groups.api]\nprogram = "zqserver"\n')["groups"]
    finally:
        server.communicate(timeout=10)
    assert not groups.ok
    assert groups.what.startswith('[groups.api] matches nothing (program = "zqserver"); did you mean program = "')
    assert groups.fix.endswith(' zqserver.py" in [groups.api]')


def test_the_models_that_nicety_comes_with_are_said_to_speak(state: Path) -> None:
    found = examined(state)
    for kind in ("demand", "behaviour"):
        coming = shipped(kind)
        assert coming is not None
        row = found[f"{kind} model"]
        assert row.ok
        assert f"the shipped model is used ({coming.digest[:12]})" in row.what
    assert found["anomaly model"].what.startswith("none of your own yet, the baseline is used")


@pytest.mark.parametrize("kind", ["demand", "anomaly", "behaviour"])
def test_a_model_that_is_switched_off_is_said_to_be(state: Path, kind: str) -> None:
    row = examined(state, f"[models]\n{kind} = false\n")[f"{kind} model"]
    assert row.ok
    assert row.what.startswith(f"switched off (models.{kind})")


def test_a_damaged_model_is_a_finding_with_what_speaks_instead(state: Path) -> None:
    live = state / "models" / "demand"
    live.mkdir(mode=0o700, parents=True)
    (live / "live").write_text("nonsense\n")
    row = examined(state)["demand model"]
    assert not row.ok
    assert "cannot be used, so the shipped model is used" in row.what
    assert row.fix


@pytest.mark.parametrize(("kind", "fits"), [("demand", False), ("behaviour", True)])
def test_a_model_of_another_interval_is_a_finding_where_the_daemon_would_refuse_it(state: Path, kind: str, fits: bool) -> None:
    coming = shipped(kind)
    assert coming is not None
    digest = save(state / "models", kind, replace(coming.card, interval=7.0), coming.arrays)
    promote(state / "models", kind, digest)
    row = examined(state)[f"{kind} model"]
    assert row.ok is fits
    if fits:
        assert row.what == digest[:12]
    else:
        assert row.what.startswith("trained with ticks of 7 s, but daemon.interval is 1 s: the shipped model is used")


@pytest.mark.parametrize("action", ["flag", "fence"])
@pytest.mark.parametrize(
    ("mounts", "told", "lost"),
    [
        (("cpu", "pids", "memory"), "limits of CPU (cgroup v1), processes (cgroup v1), memory (cgroup v1)", None),
        (("cpu", "memory"), "limits of CPU (cgroup v1), memory (cgroup v1)", "not processes: no cgroup hierarchy has the pids"),
        (("v2",), "limits of CPU (cgroup v2), memory (cgroup v2, right below its root only)", "not processes"),
        ((), "none can be made", "not CPU: no cgroup hierarchy has the cpu controller, so spins and switch storms are not limited"),
    ],
)
def test_what_a_fence_cannot_limit_is_a_finding_for_who_asks_for_fences(
    tmp_path: Path, action: str, mounts: tuple[str, ...], told: str, lost: str | None
) -> None:
    lines = []
    for number, name in enumerate(mounts):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.controllers").write_text("cpu io memory\n")
        kind = "cgroup2 cgroup2 rw" if name == "v2" else f"cgroup cgroup rw,{name}"
        lines.append(f"{31 + number} 1 0:{37 + number} / {tmp_path}/{name} rw - {kind}\n")
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/mountinfo").write_text("".join(lines))
    file = tmp_path / "nicety.toml"
    file.write_text(f'[quarantine]\naction = "{action}"\n')
    (row,) = [it for it in doctor.examine(str(file), str(tmp_path / "state"), {}, os.geteuid(), proc) if it.name == "fences"]
    assert told in row.what
    assert ("a weight for a swarm inside one cgroup" in row.what) is bool(mounts)
    assert row.ok is (action == "flag" or lost is None)
    assert lost is None or lost in row.what
    assert bool(row.fix) is not row.ok
    assert ("; not used" in row.what) is (action == "flag")
