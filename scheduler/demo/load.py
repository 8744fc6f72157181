"""The demo's open-loop load: requests go out when the schedule says, whether or not earlier ones were answered.

`python -m nicety.scheduler.demo.load PORT SECONDS OUT`; a latency counts from the scheduled time, so a queue in front of the
service is seen (no coordinated omission). The rate follows a wave, and sometimes steps up for a few seconds.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import sys
import time
from pathlib import Path

LOW, HIGH = 14.0, 42.0  # requests a second in the trough and on the crest of a wave
PERIOD = 20.0  # seconds of a wave
STEP_RATE = 95.0  # requests a second during a step
STEPS = ((13.0, 18.0), (36.0, 42.0), (67.0, 72.0))  # (from, to) of each step, seconds; irregular, as in real life
"""The load's shape, chosen together: waves that the service's own workers carry, and steps that need more workers."""

TIMEOUT = 20.0
"""Seconds after which a request counts as lost. Chosen."""

REQUEST = b"GET / HTTP/1.0\r\nHost: demo\r\n\r\n"


def rate(at: float) -> float:
    """Requests a second at `at` seconds after the start."""
    if any(begin <= at < end for begin, end in STEPS):
        return STEP_RATE
    return LOW + (HIGH - LOW) * 0.5 * (1 - math.cos(2 * math.pi * at / PERIOD))


def schedule(seconds: float, seed: int) -> list[float]:
    """Arrival times of a Poisson process with this rate, by thinning (Lewis and Shedler 1979)."""
    chance, times, at = random.Random(seed), list[float](), 0.0
    while True:
        at += chance.expovariate(STEP_RATE)
        if at >= seconds:
            return times
        if chance.random() * STEP_RATE < rate(at):
            times.append(at)


async def request(port: int, due: float, start: float, results: list[tuple[float, float]]) -> None:
    """Send one request and record its latency in seconds from `due`: infinite if it was lost or not answered in time."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            answer = await reader.read()
            writer.close()
        ok = answer[8:13] == b" 200 "
    except (OSError, TimeoutError):
        ok = False
    results.append((due, time.perf_counter() - start - due if ok else math.inf))


async def drive(port: int, seconds: float, seed: int) -> list[tuple[float, float]]:
    """(due, latency) of each request of the schedule."""
    results: list[tuple[float, float]] = []
    tasks = set()
    start = time.perf_counter()
    for due in schedule(seconds, seed):
        delay = start + due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        task = asyncio.create_task(request(port, due, start, results))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return results


def main(port: int, seconds: float, out: str, seed: int) -> None:
    """Run the load and write a line "due latency" for each request."""
    gc.disable()
    results = asyncio.run(drive(port, seconds, seed))
    Path(out).write_text("".join(f"{due:.6f} {latency:.6f}\n" for due, latency in results))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 1)
