"""What reading costs: CPU time of a tick of `ProcSource`, of `PsutilSource` and of a psutil loop, beside processes of its own. Must
not know the daemon.

All read all processes of the machine, in turn, so that other load affects both:

    python -m benchmarks.cost.collector --json collector.json
"""

from __future__ import annotations

import argparse
import functools
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from nicety.scheduler.ports import Source
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.psutil_reader import PsutilSource

from ..claims import Claims

BOUND_MS = 5.0  # CPU ms of a tick beside 500 processes. Chosen: a quarter of what the whole daemon may use at 1 Hz (2 % of a CPU)
BOUND_RATIO = 5.0  # times cheaper than psutil. Chosen
ATTRIBUTES = ["pid", "name", "cpu_times", "memory_info", "num_threads", "status"]
BUSY = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
while True:
    start = time.thread_time()
    while time.thread_time() - start < 0.002:
        pass
    time.sleep(0.1)
"""
WARM_UP = 5  # ticks that are not measured: not all processes have come up. Chosen


@contextmanager
def processes(count: int, busy: int) -> Iterator[None]:
    """`count` processes within the block. `busy` of them listen and run for 2 ms of every 100 ms, the others sleep.

    They stay young while they are measured, so each tick checks whether they listen: the most expensive case.
    """
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(count):
            command = [sys.executable, "-S", "-c", BUSY] if number < busy else ["sleep", "infinity"]
            started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True))
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def cost(turn: Callable[[], object]) -> float:
    """ms of CPU of one call, including its time in the kernel."""
    before = time.thread_time_ns()
    turn()
    return (time.thread_time_ns() - before) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description="What reading costs: CPU time a tick of our readers beside a psutil loop.")
    parser.add_argument("--processes", type=int, default=500, help="processes to start (default 500)")
    parser.add_argument("--busy", type=int, default=10, help="of them, processes that run a little all the time (default 10)")
    parser.add_argument("--ticks", type=int, default=40, help="ticks to measure (default 40)")
    parser.add_argument("--interval", type=float, default=0.25, help="seconds between ticks (default 0.25)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the claims as JSON")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave through `processes`
    with processes(options.processes, min(options.busy, options.processes)):
        sources: tuple[Source, Source] = (ProcSource(), PsutilSource())

        def read_with(source: Source) -> int:
            return len(source.read(time.monotonic_ns(), time.time_ns(), ()).table)

        ours, elsewhere = (functools.partial(read_with, source) for source in sources)

        def theirs() -> int:
            return sum(1 for _ in psutil.process_iter(ATTRIBUTES))

        first = cost(ours)
        for _ in range(WARM_UP):
            time.sleep(options.interval)
            ours()
            elsewhere()
            theirs()
        ours_ms, elsewhere_ms, theirs_ms = [], [], []
        for _ in range(options.ticks):
            time.sleep(options.interval)
            ours_ms.append(cost(ours))
            elsewhere_ms.append(cost(elsewhere))
            theirs_ms.append(cost(theirs))
        read = ours()
        for source in sources:
            source.close()
    mean, portable, peer = map(statistics.fmean, (ours_ms, elsewhere_ms, theirs_ms))
    per_500 = mean * 500 / read
    print(f"{read} processes read, {options.ticks} ticks, ms of CPU a tick")
    print(f"{'':24}{'mean':>8}{'median':>8}{'worst':>8}")
    for name, values in (("nicety ProcSource", ours_ms), ("nicety PsutilSource", elsewhere_ms), ("psutil.process_iter", theirs_ms)):
        print(f"{name:24}{statistics.fmean(values):8.2f}{statistics.median(values):8.2f}{max(values):8.2f}")
    print(f"first read {first:.1f} ms; {per_500:.2f} ms a tick for 500 processes; psutil takes {peer / mean:.1f} times as much")
    print(f"PsutilSource: {1000 * portable / read:.0f} µs a process, {portable / mean:.1f} times ProcSource")
    claims = Claims()
    claims.at_most("reading 500 mostly idle processes, ms of CPU a tick", round(per_500, 3), BOUND_MS)
    claims.at_least("psutil's loop over the same processes, times as much", round(peer / mean, 2), BOUND_RATIO)
    claims.add("the reader on psutil, times that on /proc", round(portable / mean, 2), "shown", True)
    claims.add("the reader on psutil, µs of CPU a process", round(1000 * portable / read, 1), "shown", True)
    claims.close(options.json)
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
