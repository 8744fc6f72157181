"""The exporter beside 1,000 groups and 50 short processes a second: series within the budget, memory level, scrapes cheap.

python -m benchmarks.views.exporter [--minutes 20] [--json FILE]

The frames of that time are made and written one after the other, and the exporter's clock is set to each: it looks at the newest
frame only when it is asked, so a minute may pass in a second. A scrape comes every second instead of every fifteen, as OpenMetrics
and as plain text in turn. CPU time is that of this thread. Every short process is a group of its own, with a name that never comes
again, and every twentieth has a hostile name. Then the tests of panels and alerts run.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from nicety.scheduler.frame import Change, Delay, Frame, Group, pack
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.frames import HOSTILE, MIB, WALL, a_band, a_frame, a_shown_group, a_shown_pool, an_own
from nicety.scheduler.views.exporter.collector import OPEN, Exporter
from nicety.scheduler.views.source import FrameSource

from .. import ROOT
from ..claims import Claims

GROUPS, SHORT, POOLS, LIMIT = 1000, 50, 5, 2000

BOUND_MS = 20.0
"""CPU time of a scrape (issue 26)."""

BOUND_MEMORY = 1.02
"""Memory at the end by that after a fifth of the time: level is what a fiftieth of noise allows (chosen)."""

TESTS = ("tests/real/views/test_alerts.py", "tests/real/views/test_prometheus.py")


def frame_at(at: int, chance: random.Random) -> Frame:
    """A machine whose groups come and go."""
    groups: list[Group] = []
    for number in range(GROUPS):
        busy = number < 60
        cpu = chance.uniform(0, 0.2) if busy else 0.0
        culprit = f"service {(number * 7 + at // 300) % 60:04}"
        groups.append(
            a_shown_group(
                f"service {number:04}",
                ("interactive", "batch", "exempt")[number % 3],
                cpu,
                cpu / 4,
                memory=(1 + number % 200) * MIB,
                forecast=a_band(cpu, cpu * 2) if busy else None,
                memory_forecast=a_band(1e8, 2e8) if busy else None,
                delay=Delay(cpu, [(culprit, cpu / 2)], cpu / 4, cpu / 4, 0.0, 0.0) if busy else None,
                changes=[Change("autogroup", "0", "19", 3, "", "s-1.0", WALL)] if number % 7 == 0 else [],
            )
        )
    for number in range(SHORT):
        name = HOSTILE[number % len(HOSTILE)] if number % 20 == 0 else ""
        groups.append(a_shown_group(f"job {at}-{number} {name}", "exempt", chance.uniform(0, 0.5), 0.1))
    own = an_own(ticks=at, cpu=at * 0.02)
    pools = [a_shown_pool(f"pool {number}") for number in range(POOLS)]
    return a_frame(seq=at, wall=WALL + at, own=own, groups=groups, pools=pools)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--without-tests", action="store_true", help="leave panels and alerts out")
    options = parser.parse_args()
    seconds = round(options.minutes * 60)
    claims, chance, process = Claims(), random.Random(26), psutil.Process()
    said: list[str] = []
    spent: dict[str, list[float]] = {"": [], OPEN: []}
    series, memory, ever = [], [], set[int]()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path, clock = Path(folder) / "frame", FakeClock(wall=round(WALL * 1e9))
        exporter = Exporter(FrameSource([path]), LIMIT, clock, said.append)
        for at in range(seconds):
            (new := path.with_name("new")).write_bytes(pack(frame_at(at, chance)))
            new.rename(path)
            clock.advance(10**9)
            clock.set_wall(round((WALL + at + 0.1) * 1e9))
            accept = (OPEN, "")[at % 2]
            began = time.thread_time()
            body = exporter.answer(accept).body
            spent[accept].append((time.thread_time() - began) * 1e3)
            lines = [line for line in body.splitlines() if not line.startswith(b"#")]
            series.append(len(lines))
            if at % 15 == 0:
                ever |= {hash(line.partition(b" # ")[0].rpartition(b" ")[0]) for line in lines}
                memory.append(process.memory_info().rss)
    kept = len(memory) // 5
    claims.at_most(f"most series in {options.minutes:g} minutes", max(series), LIMIT)
    claims.at_least("fewest", min(series), 0.75 * LIMIT)
    claims.at_most("series that a database ever saw, by those of one scrape", len(ever) / max(series), 1.5)
    claims.at_most("memory at the end by that after a fifth", statistics.mean(memory[-kept:]) / memory[kept], BOUND_MEMORY)
    for name, accept in (("plain text", ""), ("OpenMetrics", OPEN)):
        ordered = sorted(spent[accept])
        claims.at_most(f"CPU ms of a scrape, {name}, median", statistics.median(ordered), BOUND_MS)
        claims.at_most(f"CPU ms of a scrape, {name}, p95", ordered[len(ordered) * 95 // 100], BOUND_MS)
    claims.at_most("lines of the log about the budget", len(said), 1)
    if not options.without_tests:
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", *TESTS], cwd=ROOT, capture_output=True, text=True, check=False)
        summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
        print(f"panels and alerts: {summary}")
        claims.add("panels have data, alerts fire and rest", done.returncode, "== 0", done.returncode == 0)
    claims.close(options.json, minutes=options.minutes, groups=GROUPS, short_processes=SHORT, memory_bytes=memory[-1])


if __name__ == "__main__":
    main()
