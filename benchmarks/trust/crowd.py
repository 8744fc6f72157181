"""A crowd of idle processes: what does the daemon take for it, does it keep its ticks, and is all given back when the crowd ends?

python -m benchmarks.trust.crowd [--processes 10000] [--seconds 40] [--json FILE]

Needs root. All of it is in a pid namespace of its own, where nobody else is seen, and which ends with the benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nicety.scheduler.service.answers.control_socket import ControlError, ask

from ..claims import Claims

CROWD = """
import os, signal, sys
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        signal.pause()
print("here", flush=True)
sys.stdin.read()
"""

CONFIG = "[daemon]\ninterval = 1.0\n"

SETTLE = 35.0
"""Seconds before and after the crowd in which the daemon comes to rest. Chosen: more than a window of its budget."""

PATIENCE = 60.0
"""Seconds to wait for an answer. Chosen."""


def resident(pid: int) -> float:
    """MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@contextlib.contextmanager
def crowd(processes: int) -> Iterator[None]:
    """So many idle processes within the block."""
    command = [sys.executable, "-I", "-S", "-c", CROWD, str(processes)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == b"here\n", "they could not be started"
        yield
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:  # the first process of a namespace inherits them, and has to bury them
                os.waitid(os.P_PGID, started.pid, os.WEXITED)


@contextlib.contextmanager
def daemon(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that observes and has ticked."""
    (place / "nicety.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "nicety.scheduler", "run", "--observe"]
    command += ["--config", str(place / "nicety.toml"), "--state-dir", str(place / "state")]
    with (place / "log").open("wb") as log:
        running = subprocess.Popen(command, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(ControlError):
                if ask(place / "state" / "control.sock", "status", PATIENCE)["ticks"] >= 1:
                    break
            time.sleep(0.2)
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(120)


def watch(place: Path, pid: int, seconds: float) -> dict[str, Any]:
    """What a daemon does for so long: most resident MiB, CPU a tick, share of ticks that are missed, seconds that answers took."""
    socket = place / "state" / "control.sock"
    first = last = ask(socket, "status", PATIENCE)
    most, answers, end = resident(pid), list[float](), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.25)
        asked = time.monotonic()
        last = ask(socket, "status", PATIENCE)
        answers.append(time.monotonic() - asked)
        most = max(most, resident(pid))
    ticks, missed = (last[name] - first[name] for name in ("ticks", "missed_ticks"))
    cpu = last["own_cpu_seconds"] - first["own_cpu_seconds"]
    return {
        "resident_mib": most,
        "cpu_ms_a_tick": cpu / max(ticks, 1) * 1e3,
        "cpu_share": cpu / seconds,
        "ticks": ticks,
        "missed": missed,
        "answer_ms": sorted(answers)[int(0.99 * len(answers))] * 1e3,
        "reduced": last["budget"]["reduced"],
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - counted, not looked at
    }


def measure(processes: int, seconds: float) -> dict[str, dict[str, Any]]:
    """The daemon before, beside and after the crowd."""
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with daemon(place) as running:
            time.sleep(SETTLE)
            found["before"] = watch(place, running.pid, 5)
            with crowd(processes):
                found["arrival"] = watch(place, running.pid, SETTLE)
                found["beside"] = watch(place, running.pid, seconds)
            time.sleep(SETTLE)
            found["after"] = watch(place, running.pid, 5)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=10_000, help="(default %(default)s)")
    parser.add_argument("--seconds", type=float, default=40.0, help="how long the crowd stays at rest (default %(default)g)")
    parser.add_argument("--json", type=Path, help="write the claims to this file")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        here = [sys.executable, "-m", "benchmarks.trust.crowd", *sys.argv[1:], "--inside"]
        return subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *here], check=False).returncode
    found = measure(options.processes, options.seconds)
    before, arrival, beside, after = (found[name] for name in ("before", "arrival", "beside", "after"))
    most = max(arrival["resident_mib"], beside["resident_mib"])
    claims = Claims()
    claims.at_most("resident memory grown beside the crowd, MiB", most - before["resident_mib"], 20)
    claims.at_most("resident memory grown after the crowd has ended, MiB", after["resident_mib"] - before["resident_mib"], 20)
    claims.at_most("CPU of a tick beside the crowd, ms", beside["cpu_ms_a_tick"], 200)
    claims.at_most("ticks missed beside the crowd, share", beside["missed"] / max(beside["ticks"] + beside["missed"], 1), 0.02)
    claims.at_most("99 in 100 answers of the socket come within, ms", beside["answer_ms"], 250)
    claims.at_most("descriptors that are left over", after["descriptors"] - before["descriptors"], 8)
    claims.close(options.json, processes=options.processes, **found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
