"""What the daemon costs: CPU and memory at 1 Hz beside 500 processes, compared with psutil's usual loop in the same run.

    python -m benchmarks.cost.daemon [--processes 500] [--seconds 60] [--json FILE]

Starts mostly idle processes (nine in ten sleep, the others wake often). Then `nicety run` in observe mode and a loop that reads the
same with psutil run at the same time, both at 1 Hz and over the whole machine. The CPU time of each is read from /proc.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..claims import Claims

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


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Resident memory in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def measure(processes: int, seconds: float) -> dict[str, float]:
    """Run both and return the figures."""
    with tempfile.TemporaryDirectory() as state:
        nice = subprocess.Popen([sys.executable, "-c", FORK, str(processes), IDLE, WAKING], start_new_session=True)
        command = [sys.executable, "-m", "nicety.scheduler", "run", "--observe", "--state-dir", f"{state}/s"]
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        loop = subprocess.Popen([sys.executable, "-c", PSUTIL])
        try:
            time.sleep(8)  # start-up, and the first sight of each process
            before = cpu_seconds(daemon.pid), cpu_seconds(loop.pid), time.monotonic()
            time.sleep(seconds)
            after = cpu_seconds(daemon.pid), cpu_seconds(loop.pid), time.monotonic()
            mib = resident(daemon.pid)
            if daemon.poll() is not None:
                raise SystemExit(f"the daemon ended with exit code {daemon.returncode}")
        finally:
            for process in (daemon, loop):
                process.terminate()
                process.wait()
            os.killpg(nice.pid, signal.SIGKILL)
            nice.wait()
    span = after[2] - before[2]
    seen = sum(path.name.isdecimal() for path in Path("/proc").iterdir())
    return {
        "daemon_share": (after[0] - before[0]) / span,
        "psutil_share": (after[1] - before[1]) / span,
        "daemon_mib": mib,
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
        f"CPU of the daemon at 1 Hz beside {options.processes} processes, share of one CPU", figures["daemon_share"], 0.02
    )
    claims.at_most("resident memory of the daemon, MiB", figures["daemon_mib"], 64)
    claims.add("scikit-learn, scipy, pandas or pyarrow in the daemon", ", ".join(heavy) or "none", "none", not heavy)
    claims.add("psutil's loop, times the daemon's CPU", figures["psutil_share"] / figures["daemon_share"], "shown", True)
    claims.close(options.json, **figures)


if __name__ == "__main__":
    main()
