"""What the daemon costs at several sizes of machine, as a share of what `top` takes beside it in the same run.

    python -m benchmarks.cost.sizes [--processes 500 1000 3000 10000] [--seconds 60] [--json FILE]

For each size as many processes are forked. One in twenty wakes up twice a second, and the others sleep. Then `nicety run` in
observe mode and `top -b -d 1` run at the same time, at 1 Hz and over the whole machine. CPU time is that of the kernel's clock of
each process, those of the daemon together. After that psutil's usual loop, and pidstat and atop where they are installed, run
beside both for a quarter of the time. Nothing is measured while processes are young: the daemon looks at those more often.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..claims import Claims
from .daemon import PSUTIL, cpu_seconds, family, together

ASKED = {500: 0.70, 1000: 0.45, 3000: 0.40, 10_000: 0.45}
"""Most CPU of the daemon, times that of top, by number of processes (chosen: issue 27)."""

SETTLE = 36.0
"""Seconds before anything is measured: 30 s in which a process is young, and the start of the daemon."""

KERNEL_KIB = 4.4
"""Kernel memory of an open stat or schedstat that was read once (measured on Linux 6.18)."""

CROWD = """
import gc, os, signal, sys, time
gc.disable()
for number in range(int(sys.argv[1])):
    if os.fork() == 0:
        if number % 20:
            signal.pause()
        time.sleep(number / 20 % 50 / 100)
        while True:
            time.sleep(0.5)
            sum(range(1000))
signal.pause()
"""
"""Processes that share their memory: ten thousand of them take two gigabytes."""

TOP = ["top", "-b", "-d", "1"]
PEERS = {"psutil": [sys.executable, "-c", PSUTIL], "pidstat": ["pidstat", "1"], "atop": ["atop", "1"]}


@contextmanager
def crowd(count: int) -> Iterator[None]:
    """`count` processes within the block."""
    parent = subprocess.Popen([sys.executable, "-I", "-S", "-c", CROWD, str(count)], start_new_session=True)
    try:
        yield
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()


@contextmanager
def running(commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """These programs within the block."""
    quiet = subprocess.DEVNULL
    started = {name: subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) for name, command in commands.items()}
    try:
        yield started
    finally:
        for process in started.values():
            process.terminate()
            process.wait()


def shares(programs: Mapping[str, subprocess.Popen[bytes]], seconds: float) -> dict[str, float]:
    """CPUs that each of these programs takes with all of its processes."""
    families = {name: list(family(process.pid)) for name, process in programs.items()}
    before, began = {name: cpu_seconds(pids) for name, pids in families.items()}, time.monotonic()
    time.sleep(seconds)
    used, span = {name: cpu_seconds(pids) for name, pids in families.items()}, time.monotonic() - began
    for name, process in programs.items():
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with exit code {process.returncode}")
    return {name: (used[name] - before[name]) / span for name in programs}


def measure(count: int, seconds: float) -> dict[str, float]:
    """CPUs that each takes beside `count` processes, and what the daemon holds."""
    installed = {name: command for name, command in PEERS.items() if shutil.which(command[0])}
    with tempfile.TemporaryDirectory() as state, crowd(count):
        daemon = [sys.executable, "-m", "nicety.scheduler", "run", "--observe", "--state-dir", f"{state}/s"]
        with running({"daemon": daemon, "top": TOP}) as ours:
            time.sleep(SETTLE + count / 1000)
            figures = shares(ours, seconds)
            pids = list(family(ours["daemon"].pid))
            descriptors = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
            held = {"resident_mib": together(pids), "descriptors_mib": descriptors * KERNEL_KIB / 1024}
            with running(installed) as peers:
                time.sleep(2 + count / 1000)
                figures |= shares(peers, seconds / 4)
    return {f"{name}_share": share for name, share in figures.items()} | held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=list(ASKED))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    claims, found = Claims(), dict[str, dict[str, float]]()
    for count in options.processes:
        figures = found[str(count)] = measure(count, options.seconds)
        share = figures["daemon_share"] / figures["top_share"]
        if count in ASKED:
            claims.at_most(f"CPU of the daemon beside {count} processes, times that of top", share, ASKED[count])
        else:
            claims.add(f"CPU of the daemon beside {count} processes, times that of top", share, "shown", True)
        claims.add(f"the same, % of one CPU, beside {count}", 100 * figures["daemon_share"], "shown", True)
        for peer in PEERS:
            if f"{peer}_share" in figures:
                more = figures[f"{peer}_share"] / figures["daemon_share"]
                claims.add(f"CPU of {peer} beside {count}, times the daemon's", more, "shown", True)
        claims.add(f"resident memory beside {count}, MiB", figures["resident_mib"], "shown", True)
        claims.add(f"kernel memory of its descriptors beside {count}, MiB", figures["descriptors_mib"], "shown", True)
    claims.close(options.json, sizes=found)


if __name__ == "__main__":
    main()
