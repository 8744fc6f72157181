"""What the daemon costs: CPU and memory at 1 Hz beside 500 processes, compared with psutil's usual loop in the same run.

    python -m benchmarks.cost.daemon [--processes 500] [--seconds 60] [--json FILE]

Starts mostly idle processes (nine in ten sleep, the others wake often). Then three run at the same time, at 1 Hz and over the whole
machine: `nicety run` in observe mode, under root with hands and eyes of its own, all of which count; the same daemon in one
process with all rights, which shows what the separation costs; and a loop that reads the same with psutil. CPU time is that of the
kernel's clock of each process.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..claims import Claims

WHOLE = """
import os, sys
from nicety.scheduler.interpreter import load_numpy
load_numpy()
from nicety.scheduler.config.paths import load_config, state_paths
from nicety.scheduler.daemon import Daemon, own_hands, sentries_of_this_process
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.ledger import StateLock
loaded = load_config(None, os.environ, os.geteuid())
paths = state_paths(loaded.config, sys.argv[1], os.environ, os.geteuid())
paths.root.mkdir(mode=0o700)
with StateLock(paths.hands, 1.0):
    hands = own_hands(loaded.config, paths)
    daemon = Daemon(loaded, paths, hands, sentries_of_this_process(paths.hands), SystemClock(), False)
    daemon.run()
    daemon.close()
"""
"""The daemon without a process for its hands."""

IDLE = "import signal; signal.pause()"
WAKING = "import time\nwhile True:\n    time.sleep(0.2); sum(range(20000))"
PSUTIL = """
import psutil, time
due = time.monotonic()
while True:
    for p in psutil.process_iter(["pid", "name", "cpu_times", "memory_info", "nice", "num_threads"]):
        pass
    due += 1.0
    time.sleep(max(0.0, due - time.monotonic()))
"""
FORK = """
import os, sys
count = int(sys.argv[1])
for i in range(count):
    if os.fork() == 0:
        exec(sys.argv[2] if i % 10 else sys.argv[3])
        os._exit(0)
import signal
signal.pause()
"""


CPUCLOCK_SCHED = 2
"""Clock id of a whole process: ~pid << 3 | 2 (include/linux/posix-timers.h)."""


def family(pid: int) -> Iterator[int]:
    """A process and what descends from it."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from family(int(child))


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of processes so far."""
    return sum(time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED) for pid in pids)


def memory(pids: list[int], name: str, file: str) -> float:
    """The sum of a figure of /proc, MiB."""
    texts = (Path(f"/proc/{pid}/{file}").read_text() for pid in pids)
    return sum(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith(f"{name}:")) / 1024


def together(pids: list[int]) -> float:
    """Resident memory of processes, pages that several of them share counted once, MiB. Needs root: the kernel shows page frames to
    nobody else (Documentation/admin-guide/mm/pagemap.rst)."""
    page, frames = os.sysconf("SC_PAGE_SIZE"), set[int]()
    for pid in pids:
        with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                first, last = (int(end, 16) // page for end in line.split()[0].split("-"))
                if line.endswith(("[vsyscall]", "[vvar]", "[vvar_vclock]", "[vdso]")):
                    continue
                pagemap.seek(8 * first)
                entries = np.frombuffer(pagemap.read(8 * (last - first)), dtype=np.uint64)
                present = entries[(entries >> np.uint64(63)) == 1]
                frames.update((present & np.uint64((1 << 55) - 1)).tolist())
    return len(frames - {0}) * page / (1 << 20)


def measure(processes: int, seconds: float) -> dict[str, float]:
    """Run all three and return the figures."""
    with tempfile.TemporaryDirectory() as state:
        nice = subprocess.Popen([sys.executable, "-c", FORK, str(processes), IDLE, WAKING], start_new_session=True)
        command = [sys.executable, "-m", "nicety.scheduler", "run", "--observe", "--state-dir", f"{state}/s"]
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        whole = subprocess.Popen([sys.executable, "-c", WHOLE, f"{state}/w"], stderr=subprocess.DEVNULL)
        loop = subprocess.Popen([sys.executable, "-c", PSUTIL])
        try:
            time.sleep(8)  # start-up, and the first sight of each process
            families = [list(family(process.pid)) for process in (daemon, whole, loop)]
            before, began = [cpu_seconds(pids) for pids in families], time.monotonic()
            time.sleep(seconds)
            used, span = [cpu_seconds(pids) for pids in families], time.monotonic() - began
            apart, one, psutil = ((after - first) / span for after, first in zip(used, before, strict=True))
            mib, shared = memory(families[0], "VmRSS", "status"), memory(families[0], "Pss", "smaps_rollup")
            once = together(families[0])
            for process in (daemon, whole):
                if process.poll() is not None:
                    raise SystemExit(f"a daemon ended with exit code {process.returncode}")
        finally:
            for process in (daemon, whole, loop):
                process.terminate()
                process.wait()
            os.killpg(nice.pid, signal.SIGKILL)
            nice.wait()
    seen = sum(path.name.isdecimal() for path in Path("/proc").iterdir())
    return {
        "daemon_share": apart,
        "one_process_share": one,
        "psutil_share": psutil,
        "daemon_mib": mib,
        "daemon_pss_mib": shared,
        "daemon_once_mib": once,
        "daemon_processes": float(len(families[0])),
        "other_processes": float(seen),
    }


def modules() -> list[str]:
    """Modules of the training stack that the daemon loads; there should be none."""
    code = "import sys, nicety.scheduler.daemon, nicety.scheduler.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return sorted({name.split(".")[0] for name in loaded} & {"sklearn", "scipy", "pandas", "pyarrow"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = measure(options.processes, options.seconds)
    heavy = modules()
    claims = Claims()
    claims.at_most(
        f"CPU of the daemon with its hands and eyes, 1 Hz beside {options.processes} processes, share of one CPU",
        figures["daemon_share"],
        0.02,
    )
    extra = figures["daemon_share"] / figures["one_process_share"]
    claims.at_most("its CPU, times that of a daemon in one process", extra, 1.05)
    claims.at_most("resident memory of the daemon, its hands and its eyes together, MiB", figures["daemon_once_mib"], 64)
    claims.at_most("the same, with the pages that they share counted for each, MiB", figures["daemon_mib"], 64)
    claims.add("scikit-learn, scipy, pandas or pyarrow in the daemon", ", ".join(heavy) or "none", "none", not heavy)
    claims.add("psutil's loop, times the daemon's CPU", figures["psutil_share"] / figures["daemon_share"], "shown", True)
    claims.close(options.json, **figures)


if __name__ == "__main__":
    main()
