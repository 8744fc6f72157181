"""Time that stands still, and time that is somebody else's: a daemon that was stopped, and one in a time namespace."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nicety.scheduler.decision import Tick
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.store.decisions import DecisionReader

INTERVAL = 0.2  # seconds
CONFIG = f"[daemon]\ninterval = {INTERVAL}\n[models]\nbehaviour = false\n"


def logged(state: Path) -> list[Tick]:
    """The ticks of the log so far."""
    try:
        with DecisionReader(state) as log:
            return [it.tick for it in log.ticks() if it.tick is not None]
    except StoreError:
        return []  # not begun yet


def wait_for(state: Path, ticks: int) -> None:
    deadline = time.monotonic() + 30
    while len(logged(state)) < ticks:
        assert time.monotonic() < deadline, "it does not tick"
        time.sleep(0.05)


def test_a_daemon_that_was_stopped_for_a_while_decides_nothing_in_its_first_tick(tmp_path: Path) -> None:
    """As after a suspend of the machine it runs in, of which its clock knows."""
    file, state = tmp_path / "nicety.toml", tmp_path / "state"
    file.write_text(CONFIG)
    command = [sys.executable, "-m", "nicety.scheduler", "run", "--observe", "--config", str(file), "--state-dir", str(state)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
        try:
            wait_for(state, 1)
            time.sleep(4 * INTERVAL)  # the log has the first tick at once, the others when the daemon ends
            daemon.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)
            time.sleep(8 * INTERVAL)  # it is stopped, which is the subject
            daemon.send_signal(signal.SIGCONT)
            time.sleep(6 * INTERVAL)
        finally:
            daemon.send_signal(signal.SIGTERM)
    assert daemon.returncode == 0
    ticks = [tick for tick in logged(state) if not tick.paused]  # the last one hangs on the undo
    spans = [(after.at - before.at) / 1e9 for before, after in itertools.pairwise(ticks)]
    long = [number for number, span in enumerate(spans, 1) if span > 3 * INTERVAL]
    assert long, "nothing was skipped"
    assert [number for number, tick in enumerate(ticks) if tick.gap] == [0, *long]
    assert all(ticks[number].groups == () for number in long), "what was measured over the gap was used"
    assert min(spans) > 0.1 * INTERVAL, "missed ticks were made up for"


INSIDE = """
import os, sys, time
from pathlib import Path
from nicety.scheduler.act.undo import undo_from_ledger
from nicety.scheduler.config.paths import Loaded, Paths
from nicety.scheduler.config.sections import parse
from nicety.scheduler.testing.hands import daemon_in_process
from nicety.scheduler.decision import Set
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.store.decisions import DecisionReader
from nicety.scheduler.hands.ledger import StateLock
from nicety.scheduler.testing.bench import Bench
from nicety.scheduler.testing.puppet import Puppet

state = Path(sys.argv[1])
with Puppet() as puppet:
    source = ProcSource()
    seen = source.read(time.monotonic_ns(), time.time_ns(), ())
    source.close()
    (started,) = (int(row["start_ticks"]) for row in seen.table if row["pid"] == puppet.pid)
    print("age", 0 <= seen.uptime_ticks - started < 3000, "days", started // 8640000)
    with Bench(state) as bench:
        before = os.getpriority(os.PRIO_PROCESS, puppet.pid)
        (outcome,) = bench.apply(Set(Control.NICE, ProcessPlace(puppet.id), before + 1))
        print(outcome.status, os.getpriority(os.PRIO_PROCESS, puppet.pid) - before)
    print(*(it.status for it in undo_from_ledger(state, SystemClock())), os.getpriority(os.PRIO_PROCESS, puppet.pid) - before)
paths = Paths(state, state / "control.sock")
with StateLock(state):
    daemon = daemon_in_process(Loaded(parse(sys.argv[2]), None), paths, SystemClock(), act=True)
    code = daemon.run(duration=1.0)
    print("ended", code, daemon.close())
with DecisionReader(state) as log:
    ticks = [it.tick for it in log.ticks()]
print("ticks", len(ticks) >= 3, "first", ticks[0].gap, "others", any(not tick.gap for tick in ticks))
"""


def may_make_a_time_namespace() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--time", "--fork", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.root
@pytest.mark.skipif(not may_make_a_time_namespace(), reason="needs root and unshare with time namespaces")
def test_a_daemon_in_a_time_namespace_ticks_changes_and_undoes(tmp_path: Path) -> None:
    """As after a night in suspend: the machine is a thousand days older by one clock than by the other."""
    config = CONFIG.replace("[daemon]", "[priority]\nenabled = false\n[daemon]")  # it acts on nobody of this machine
    offsets = ["--boottime", str(1000 * 86400), "--monotonic", "5000"]
    command = ["unshare", "--time", *offsets, "--fork", sys.executable, "-c", INSIDE, str(tmp_path / "state"), config]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told.stderr
    first, *rest = told.stdout.splitlines()
    assert first.startswith("age True days ")
    assert int(first.split()[-1]) >= 1000, "it is the time of another namespace"
    assert rest == ["applied 1", "applied 0", "ended 0 True", "ticks True first True others True"]
