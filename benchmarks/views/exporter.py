"""The exporter beside 1,000 groups and 50 short processes a second: series within the budget, memory level, scrapes cheap.

python -m benchmarks.views.exporter [--minutes 20] [--json FILE]

The frames of that time are made and written one after the other, and the exporter's clock is set to each: it looks at the newest
frame only when it is asked, so a minute may pass in a second. A scrape comes over HTTP every second instead of every fifteen, as
OpenMetrics and as plain text in turn, so each is of a new frame; a second one of the same frame follows. CPU time is that of the
server's threads. Every short process is a group of its own, with a name that never comes again, and every twentieth has a hostile
name. Sixty services run now and then. Each that waits does so for up to three of those that run, drawn anew every second by what
they use, and the frame has what the daemon's means make of that. Then the tests of panels and alerts run.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import psutil

from nicety.scheduler.frame import Change, Delay, Frame, Group, pack
from nicety.scheduler.observe.delays import LEAST_WAIT, MOST_NAMED, MOST_VICTIMS, SECONDS
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.frames import HOSTILE, MIB, WALL, a_band, a_frame, a_shown_group, a_shown_pool, an_own
from nicety.scheduler.views.exporter.collector import OPEN, Exporter
from nicety.scheduler.views.exporter.server import Server
from nicety.scheduler.views.source import FrameSource

from .. import ROOT
from ..claims import Claims

GROUPS, SHORT, POOLS, LIMIT = 1000, 50, 5, 2000

BUSY = 60
"""Services that run now and then."""

TURN = 0.2
"""Chance that one of them begins to run or pauses in a second: five seconds each."""

USE = [1.0 / (1 + number) for number in range(BUSY)]
"""Cores that each of them uses while it runs (chosen: few use most, as Zipf has it)."""

BOUND_MS = 20.0
"""Of a scrape (issue 26)."""

ROOM = 2.0
"""How often the CPU time of a scrape must fit into that (chosen: the rest is for a loaded machine)."""

FEWEST = 0.5
"""Part of the budget that is used (chosen): a quarter is left free, and room is kept for what services need while they wait."""

PAIRS = 0.2
"""Part of the pairs that change every second which may become series (chosen)."""

BOUND_MEMORY = 1.02
"""Memory at the end by that after a fifth of the time: level is what a fiftieth of noise allows (chosen)."""

TESTS = ("tests/real/views/test_alerts.py", "tests/real/views/test_prometheus.py", "tests/real/views/test_metrics_live.py")


class Machine:
    """A machine whose groups come and go."""

    def __init__(self) -> None:
        self._chance = random.Random(26)
        self._runs = [False] * BUSY
        self._parts = np.zeros((BUSY, BUSY))  # [victim, culprit] cores, smoothed
        self.pairs = set[int]()
        """Hashes of victims and culprits that a frame named."""

    def frame(self, at: int) -> Frame:
        """The frame of second `at`."""
        chance = self._chance
        self._runs = [runs != (chance.random() < TURN) for runs in self._runs]
        running = [number for number, runs in enumerate(self._runs) if runs]
        keep = math.exp(-1.0 / SECONDS)
        self._parts *= keep
        for victim in running:
            others = [number for number in running if number != victim]
            for culprit in chance.choices(others, [USE[number] for number in others], k=3) if others else ():
                self._parts[victim, culprit] += (1.0 - keep) * chance.uniform(0.0, 0.1)
        waits = self._parts.sum(axis=1)
        victims = {int(number) for number in np.argsort(-waits)[:MOST_VICTIMS] if waits[number] >= LEAST_WAIT}
        groups = [self._service(number, number in victims) for number in range(GROUPS)]
        for number in range(SHORT):
            name = HOSTILE[number % len(HOSTILE)] if number % 20 == 0 else ""
            groups.append(a_shown_group(f"job {at}-{number} {name}", "exempt", chance.uniform(0, 0.5), 0.1))
        own = an_own(ticks=at, cpu=at * 0.02)
        pools = [a_shown_pool(f"pool {number}") for number in range(POOLS)]
        return a_frame(seq=at, wall=WALL + at, own=own, groups=groups, pools=pools)

    def _service(self, number: int, victim: bool) -> Group:
        busy = number < BUSY
        cpu = USE[number] * self._chance.uniform(0.5, 1.5) if busy and self._runs[number] else 0.0
        return a_shown_group(
            name_of(number),
            ("interactive", "batch", "exempt")[number % 3],
            cpu,
            cpu / 4,
            memory=(1 + number % 200) * MIB,
            forecast=a_band(cpu, cpu * 2) if busy else None,
            memory_forecast=a_band(1e8, 2e8) if busy else None,
            delay=self._delay(number) if victim else None,
            changes=[Change("autogroup", "0", "19", 3, "", "s-1.0", WALL)] if number % 7 == 0 else [],
        )

    def _delay(self, victim: int) -> Delay:
        parts = self._parts[victim]
        by = [(name_of(number), round(float(parts[number]), 3)) for number in np.argsort(-parts)[:MOST_NAMED].tolist()]
        by = [(name, cores) for name, cores in by if cores > 0.0]
        self.pairs.update(hash((victim, name)) for name, _ in by)
        wait = float(parts.sum())
        return Delay(wait, by, max(0.0, wait - sum(cores for _, cores in by)), 0.01, 0.01, 0.0)


def name_of(number: int) -> str:
    """Of a service."""
    return f"service {number:04}"


class Spent:
    """By scrapes of one kind."""

    def __init__(self) -> None:
        self.wall = array("d")  # ms until the reader has all of it
        self.cpu = array("d")  # ms of the server


def scrape(asking: Callable[[], HTTPConnection], accept: str, spent: Spent) -> bytes:
    """One request."""
    began, all_, mine = time.monotonic(), time.process_time(), time.thread_time()
    connection = asking()
    connection.request("GET", "/metrics", headers={"Accept": accept})
    body = connection.getresponse().read()
    connection.close()
    wall, mine, all_ = time.monotonic() - began, time.thread_time() - mine, time.process_time() - all_
    spent.wall.append(wall * 1e3)
    spent.cpu.append((all_ - mine) * 1e3)
    return body


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--without-tests", action="store_true", help="leave panels and alerts out")
    options = parser.parse_args()
    seconds = round(options.minutes * 60)
    claims, machine, process = Claims(), Machine(), psutil.Process()
    said: list[str] = []
    spent = {kind: Spent() for kind in ("", OPEN, "again")}
    series, memory, ever, pairs = array("l"), [], set[int](), set[int]()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path, clock = Path(folder) / "frame", FakeClock(wall=round(WALL * 1e9))
        exporter = Exporter(FrameSource([path]), LIMIT, clock, said.append)
        gc.freeze()  # as the command does
        server = Server("127.0.0.1:0", exporter.answer)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        asking = partial(HTTPConnection, "127.0.0.1", server.server_port, timeout=60)
        for at in range(seconds):
            (new := path.with_name("new")).write_bytes(pack(machine.frame(at)))
            new.rename(path)
            clock.advance(10**9)
            clock.set_wall(round((WALL + at + 0.1) * 1e9))
            accept = (OPEN, "")[at % 2]
            body = scrape(asking, accept, spent[accept])
            scrape(asking, accept, spent["again"])
            lines = [line for line in body.splitlines() if not line.startswith(b"#")]
            series.append(len(lines))
            names = [line.partition(b" # ")[0].rpartition(b" ")[0] for line in lines]
            pairs.update(hash(name) for name in names if b'cause="group"' in name)
            ever.update(map(hash, names))
            if at % 15 == 0:
                memory.append(process.memory_info().rss)
        server.shutdown()
        serving.join()
        server.close()
    kept = len(memory) // 5
    claims.at_most(f"most series in {options.minutes:g} minutes", max(series), LIMIT)
    claims.at_least("fewest", min(series), FEWEST * LIMIT)
    claims.at_most("series that a database ever saw, by those of one scrape", len(ever) / max(series), 1.5)
    claims.at_most(
        "pairs of victim and culprit that were shown, by those that frames named", len(pairs) / len(machine.pairs), PAIRS
    )
    claims.at_most("memory at the end by that after a fifth", statistics.mean(memory[-kept:]) / memory[kept], BOUND_MEMORY)
    for name, kind in {"plain text": "", "OpenMetrics": OPEN, "the same frame again": "again"}.items():
        figures = {"CPU ms": (spent[kind].cpu, BOUND_MS / ROOM), "ms": (spent[kind].wall, BOUND_MS)}
        for unit, (taken, bound) in figures.items():
            ordered = sorted(taken)
            claims.at_most(f"{unit} of a scrape, {name}, median", statistics.median(ordered), bound)
            claims.at_most(f"{unit} of a scrape, {name}, p95", ordered[len(ordered) * 95 // 100], bound)
    claims.at_most("lines of the log about the budget", len(said), 1)
    if not options.without_tests:
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", *TESTS], cwd=ROOT, capture_output=True, text=True, check=False)
        summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
        print(f"panels and alerts: {summary}")
        claims.add("panels have data, alerts fire and rest", done.returncode, "== 0", done.returncode == 0)
    first = {"plain": spent[""].cpu[0], "OpenMetrics": spent[OPEN].cpu[0]}
    scene = {"minutes": options.minutes, "groups": GROUPS, "short_processes": SHORT}
    claims.close(options.json, **scene, memory_bytes=memory[-1], first_scrape_cpu_ms=first)


if __name__ == "__main__":
    main()
