"""What does an undo take: memory, CPU and time, beside many processes and under load?

python -m benchmarks.trust.undo [--processes 10000] [--changes 500] [--load 50] [--json FILE]

Needs root. Sleeping processes of its own, of which some are demoted through a ledger of its own. Then the process that did it is
gone, and `nicety undo` puts everything back: alone, beside all processes, beside all of them under load, and beside as many that
started after the changes, each of which could have inherited.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nicety.models.identity import ProcId
from nicety.scheduler.decision import Set
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.testing.bench import Bench

from .. import ROOT
from ..claims import Claims

SLEEPERS = """
import os, signal, sys
pids = []
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pids.append(pid)
print(*pids, flush=True)
sys.stdin.read()
for pid in pids:
    os.kill(pid, signal.SIGKILL)
"""

UNDO = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from nicety.scheduler.__main__ import main
try:
    main()
finally:
    import resource
    work, own = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    print(work.ru_maxrss, sum(each.ru_utime + each.ru_stime for each in (work, own)), file=sys.stderr)
"""
"""An undo, and then the peak memory of the process that did it, in kB, and the CPU of it and the one that waited, in seconds. (The
peak of the one that waited would be that of this benchmark, which it came from.)"""


class Cost(NamedTuple):
    """What one undo took."""

    megabytes: float  # peak resident memory, 10^6 bytes
    cpu: float  # s
    wall: float  # s
    back: int  # values that are back


@contextlib.contextmanager
def sleepers(count: int) -> Iterator[list[ProcId]]:
    """So many sleeping processes."""
    command = [sys.executable, "-I", "-S", "-c", SLEEPERS, str(count)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert started.stdout is not None
        yield [identity(int(pid)) for pid in started.stdout.readline().split()]
    finally:
        started.communicate()


@contextlib.contextmanager
def load(count: int) -> Iterator[None]:
    """So many processes that never sleep, each in a session of its own."""
    hog = [sys.executable, "-I", "-S", "-c", "import signal; signal.alarm(600)\nwhile True: pass"]
    hogs = [subprocess.Popen(hog, start_new_session=True) for _ in range(count)]
    try:
        time.sleep(2.0)
        yield
    finally:
        for process in hogs:
            process.send_signal(signal.SIGKILL)
            process.wait()


def identity(pid: int) -> ProcId:
    """A process of ours."""
    return ProcId(pid, int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]))


def undo(state: Path, victims: list[ProcId], younger: int = 0) -> Cost:
    """Demote these processes, and measure an undo of it. `younger`: processes that start in between."""
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(mode=0o700)
    with Bench(state) as bench:
        bench.apply(*(Set(Control.NICE, ProcessPlace(victim), 10) for victim in victims))
    assert all(os.getpriority(os.PRIO_PROCESS, victim.pid) == 10 for victim in victims), "nothing was demoted"
    command = [sys.executable, "-I", "-S", "-c", UNDO, str(ROOT / "src"), "undo", "--state-dir", str(state), "--json"]
    with sleepers(younger):
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        wall = time.monotonic() - began
    assert {outcome["status"] for outcome in json.loads(done.stdout)["outcomes"]} == {"applied"}
    peak, cpu = map(float, done.stderr.split())
    back = sum(os.getpriority(os.PRIO_PROCESS, victim.pid) == 0 for victim in victims)
    return Cost(peak * 1024 / 1e6, cpu, wall, back)


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=500)
    parser.add_argument("--load", type=int, default=50)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    claims = Claims()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        for count, younger, hogs in (
            (1, 0, 0),
            (options.changes, 0, 0),
            (options.processes, 0, 0),
            (options.processes, 0, options.load),
            (options.changes, options.processes, 0),
        ):
            with sleepers(count) as there, load(hogs):
                victims = there[: min(options.changes, count)]
                undo(state, victims)  # the first run compiles
                cost = undo(state, victims, younger)
            name = f"{len(victims)} changes beside {count} processes" + (f" under load {hogs}" if hogs else "")
            name += f" and {younger} younger ones" if younger else ""
            claims.at_most(f"{name}: peak memory, MB", cost.megabytes, 12)
            claims.at_most(f"{name}: CPU, s", cost.cpu, 0.2)
            claims.at_most(f"{name}: time, s", cost.wall, 3)
            claims.add(f"{name}: values back", cost.back, f"{len(victims)}", cost.back == len(victims))
    claims.close(options.json)


if __name__ == "__main__":
    main()
