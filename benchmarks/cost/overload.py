"""An acting daemon on an overloaded machine: does it keep its ticks, and does its socket answer?

python -m benchmarks.cost.overload [--load 100] [--seconds 60] [--one-session] [--observe] [--json FILE]

First a daemon runs on the machine as it is. Then another one runs beside a small service and `--load` busy processes at nice 0,
each in its own session, or all in one. The configuration names both, so the daemon demotes the busy ones. Each daemon leads a
session, as it does as a service, and has its own state directory. The process that asks the socket is real-time, so the time of an
answer is the daemon's. Everything is ended by its pid.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nicety.scheduler.service.answers.control_socket import ControlError, ask

from ..claims import Claims

HOG = """
import os, signal, sys
limit, processes = map(int, sys.argv[1:])
for _ in range(processes - 1):
    if os.fork() == 0:
        break
signal.alarm(limit)
while True:
    pass
"""
"""Busy processes of one session. They end after `limit` seconds even if the benchmark was killed."""

SERVICE = """
import signal, sys, time
signal.alarm(int(sys.argv[1]))
while True:
    sum(range(60000))
    time.sleep(0.01)
"""

CONFIG = """
[groups.service]
program = "python* service.py"
class = "interactive"
[groups.hogs]
program = "python* hog.py"
class = "batch"
"""

ASKED_EACH = 0.25
"""Seconds between two questions to the socket. Chosen: some hundred answers in a run."""

PATIENCE = 60.0
"""Seconds to wait for an answer. Chosen."""


@contextlib.contextmanager
def load(place: Path, processes: int, one_session: bool, limit: int) -> Iterator[None]:
    """A service and `processes` busy processes within the block, in as many sessions or in one."""
    for name, text in (("service.py", SERVICE), ("hog.py", HOG)):
        (place / name).write_text(text)
    sessions, each = (1, processes) if one_session else (processes, 1)
    python = [sys.executable, "-S", "-E"]
    commands = [[*python, "service.py", str(limit)], *([[*python, "hog.py", str(limit), str(each)]] * sessions)]
    started = [subprocess.Popen(command, cwd=place, start_new_session=True) for command in commands]
    try:
        yield
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def measure(place: Path, seconds: float, act: bool) -> dict[str, Any]:
    """Run a daemon for `seconds`: its missed ticks, its CPU, and the seconds that its answers took."""
    command = [sys.executable, "-m", "nicety.scheduler", "run", "--act" if act else "--observe", "--state-dir", str(place)]
    (place.parent / f"{place.name}.toml").write_text(CONFIG)
    command += ["--config", str(place.parent / f"{place.name}.toml")]
    with (place.parent / f"{place.name}.log").open("wb") as log:
        daemon = subprocess.Popen(command, stderr=log, start_new_session=True)
    try:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        first = _first_answer(place)
        answers, last, end = list[float](), first, time.monotonic() + seconds
        while time.monotonic() < end:
            asked = time.monotonic()
            last = ask(place / "control.sock", "status", PATIENCE)
            answers.append(time.monotonic() - asked)
            time.sleep(ASKED_EACH)
        changes = len(ask(place / "control.sock", "status", PATIENCE, full=True)["changes_in_force"])
    finally:
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(120)
    ticks, missed = (last[name] - first[name] for name in ("ticks", "missed_ticks"))
    return {
        "ticks": ticks,
        "missed": missed,
        "share_missed": missed / max(ticks + missed, 1),
        "cpu_ms_a_tick": (last["own_cpu_seconds"] - first["own_cpu_seconds"]) / max(ticks, 1) * 1e3,
        "answers": sorted(answers),
        "nice": last["own_nice"],
        "budget": last["budget"],
        "changes": changes,
        "processes": sum(group["processes"] for group in last["groups"]),
        "exit": code,
    }


def _first_answer(place: Path) -> dict[str, Any]:
    """The first answer after a tick, so that the start of the daemon is not measured."""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        with contextlib.suppress(ControlError):
            answer = ask(place / "control.sock", "status", PATIENCE)
            if answer["ticks"] >= 1:
                return answer
        time.sleep(ASKED_EACH)
    raise SystemExit(f"no daemon ticked in three minutes; see {place}.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", type=int, default=100, help="busy processes (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each of the two daemons runs (default %(default)g)")
    parser.add_argument("--one-session", action="store_true", help="put the busy processes into one session")
    parser.add_argument("--observe", action="store_true", help="let the daemons only observe")
    parser.add_argument("--json", type=Path, help="write the claims to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        calm = measure(Path(directory) / "calm", options.seconds, not options.observe)
        before = os.getloadavg()[0]
        with load(Path(directory), options.load, options.one_session, limit=round(options.seconds) + 400):
            busy = measure(Path(directory) / "busy", options.seconds, not options.observe)
    asked = [seconds * 1e3 for seconds in busy["answers"]]
    claims = Claims()
    claims.at_most(f"share of ticks missed at load {options.load}", busy["share_missed"], 0.05)
    claims.at_most("answers of the socket, p95, ms", statistics.quantiles(asked, n=20)[-1], 200)
    claims.add("answers of the socket, p50, ms", statistics.median(asked), "", True)
    claims.at_most("answers of the socket, slowest, ms", max(asked), 200)
    claims.add("the daemon's CPU a tick, ms", busy["cpu_ms_a_tick"], "", True)
    claims.add("the daemon's CPU a tick without the load, ms", calm["cpu_ms_a_tick"], "", True)
    claims.add("changes in force at the end", busy["changes"], "", True)
    claims.add("exit codes", calm["exit"] or busy["exit"], "0", not (calm["exit"] or busy["exit"]))
    claims.close(options.json, load_before=before, calm=calm, busy=busy)


if __name__ == "__main__":
    main()
