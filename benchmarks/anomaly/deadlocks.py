"""Deadlocks across processes: how soon is each kind of circle found, is it named right, and is a healthy pool ever reported?

    python -m benchmarks.anomaly.deadlocks [--seconds 60] [--json FILE]

Runs real processes, with the daemon's usual tick of a second:

- every kind of circle of `scheduler/testing/circles.py`, with two and with three processes, side by side
- for `--seconds`, healthy scenes that look like deadlocks, and idle pools of gunicorn, Celery and multiprocessing
- the CPU time of a tick for 50 blocked workers, for 50 idle ones, and for the first tick, which looks at all processes

Needs root, to see the system calls of other processes. Takes three minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nicety.models.identity import ProcId
from nicety.models.records import Deadlock, PoolSample, WorkerSample
from nicety.scheduler.observe.deadlocks import Deadlocks
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.waits import LinuxWaits
from nicety.scheduler.testing.circles import CIRCLES, HEALTHY, Circle, Circles
from nicety.scheduler.testing.puppet import proc_id

from ..claims import Claims

LATEST = 15.0
"""Seconds within which a deadlock must be found. Chosen."""

BUDGET_MS = 20.0
"""Most CPU ms of a tick for 50 blocked workers. Chosen: as much as the scoring of 2,000 workers may take."""

LIVELY = "semaphore, lively master"
UNNAMED = ("semaphore", LIVELY)
MASTERED = (LIVELY, "process lock, busy parent")

PROGRAMS = {
    "gunicorn sync": ["gunicorn", "-w", "3", "-k", "sync", "-b", "unix:sync", "app:app"],
    "gunicorn gthread": ["gunicorn", "-w", "3", "-k", "gthread", "-b", "unix:gthread", "app:app"],
    "celery prefork": ["celery", "-A", "tasks", "worker", "-c", "3", "-l", "error", "--without-mingle", "--without-gossip"],
}

APP = "def app(environ, start):\n    start('200 OK', [])\n    return [b'']\n"
TASKS = "import celery\napp = celery.Celery('tasks', broker='memory://')\n"


def pool(name: str, workers: Sequence[ProcId], master: ProcId | None = None) -> PoolSample:
    """A pool's sample as an adapter would report it."""
    samples = tuple(WorkerSample(worker, None, ready=True) for worker in sorted(workers))
    return PoolSample(name, len(workers), len(workers), None, samples, master, None, "")


class Watching:
    """Ticks of some pools."""

    def __init__(self, pools: Sequence[PoolSample], aloof: Sequence[str] = ()) -> None:
        self.pools = tuple(pools)
        self.aloof = aloof
        self.found: list[tuple[float, Deadlock]] = []  # (seconds, deadlock) when it was first reported
        self.costs: list[float] = []  # CPU ms of each tick

    def watch(self, seconds: float, enough: int | None = None, pace: float = 1.0) -> None:
        """Make a tick every `pace` seconds, for `seconds` or until `enough` deadlocks were reported."""
        deadlocks, source = Deadlocks(LinuxWaits()), ProcSource()
        known: set[tuple[ProcId, ...]] = set()
        start = due = time.monotonic()
        while due < start + seconds and (enough is None or len(self.found) < enough):
            time.sleep(max(0.0, due - time.monotonic()))
            snapshot = source.read(time.monotonic_ns(), 0, self.pools)
            before = time.process_time()
            reported = deadlocks.step(snapshot, self.aloof)
            self.costs.append(1e3 * (time.process_time() - before))
            for deadlock in reported:
                waiters = tuple(wait.waiter for wait in deadlock.waits)
                if waiters not in known:
                    known.add(waiters)
                    self.found.append((time.monotonic() - start, deadlock))
            due += pace
        source.close()
        deadlocks.close()

    def of(self, workers: Sequence[ProcId]) -> list[tuple[float, Deadlock]]:
        """Deadlocks that have one of these workers."""
        return [(after, deadlock) for after, deadlock in self.found if {wait.waiter for wait in deadlock.waits} & set(workers)]


def right(circle: Circle, deadlock: Deadlock) -> bool:
    """Whether all workers are named, each with the next one as holder, or without a holder if it cannot be known."""
    holders = {wait.waiter: wait.holder for wait in deadlock.waits}
    if circle.kind in UNNAMED:
        return set(holders) == set(circle.workers) and set(holders.values()) == {None}
    return holders == dict(zip(circle.workers, (*circle.workers[1:], circle.workers[0]), strict=True))


def circles(claims: Claims) -> list[str]:
    """Run every kind of circle; the text of the first deadlock of each kind."""
    names = [(kind, size) for kind in CIRCLES for size in (2, 3)]
    lines = []
    with Circles(*names) as started:
        pools = [
            pool(f"{kind} {size}", circle.workers, circle.supervisor if kind in MASTERED else None)
            for (kind, size), circle in zip(names, started.scenes, strict=True)
        ]
        watching = Watching(pools, [each.pool for each in pools if LIVELY in each.pool])
        watching.watch(30, enough=len(names))
        for (kind, size), circle in zip(names, started.scenes, strict=True):
            reported = watching.of(circle.workers)
            after = reported[0][0] if reported else float("inf")
            claims.at_most(f"seconds until found: {kind}, {size} in the circle", round(after, 1), LATEST)
            good = len(reported) == 1 and right(circle, reported[0][1])
            claims.add(f"named right: {kind}, {size} in the circle", good, "True", good)
            if reported:
                lines += [
                    f"{kind}: pid {wait.waiter.pid} waits for {wait.what}"
                    + (f", which is up to pid {wait.holder.pid}" if wait.holder else "")
                    for wait in reported[0][1].waits
                ]
    return lines


@contextmanager
def program(name: str, folder: Path) -> Iterator[PoolSample]:
    """A real idle pool within the block."""
    (folder / "app.py").write_text(APP)
    (folder / "tasks.py").write_text(TASKS)
    master = subprocess.Popen(
        [sys.executable, "-m", *PROGRAMS[name]], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        while len(workers := children(master.pid)) < 3:
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} did not start three workers")
            time.sleep(0.1)
        yield pool(name, workers, proc_id(master.pid))
    finally:
        master.terminate()
        master.wait()


def children(pid: int) -> list[ProcId]:
    """The children of a process, by a scan of all processes, because not every kernel keeps a list."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except OSError:
            continue
        if fields and int(fields[1]) == pid:
            found.append(ProcId(int(entry.name), int(fields[19])))
    return sorted(found)


def healthy(claims: Claims, seconds: float) -> None:
    """Run all healthy scenes and pools, side by side."""
    names = [(kind, size) for kind in HEALTHY for size in (2, 3)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started = stack.enter_context(Circles(*names)).scenes
        pools = [pool(f"{kind} {size}", circle.workers) for (kind, size), circle in zip(names, started, strict=True)]
        pools += [stack.enter_context(program(name, folder)) for name in PROGRAMS]
        watching = Watching(pools, list(PROGRAMS))
        watching.watch(seconds)
        pairs = [(each.pool, deadlock) for each in pools for _, deadlock in watching.of([worker.id for worker in each.workers])]
        for name, deadlock in pairs:
            print(f"reported, but healthy: {name}: {deadlock}")
        claims.at_most(f"deadlocks reported for {len(pools)} healthy pools in {seconds:g} s", len(pairs), 0)


def costs(claims: Claims) -> None:
    """CPU of a tick."""
    for kind, what in (
        ("flock", "50 workers blocked in a circle"),
        ("idle pipe", "50 idle workers"),
        ("multiprocessing pool", "50 idle workers of a multiprocessing pool"),
        ("process lock", "50 workers that wait for each other's multiprocessing locks"),
        ("receiving threads", "50 workers that read, each with a heartbeat"),
    ):
        with Circles((kind, 50)) as started:
            (circle,) = started.scenes
            watching = Watching([pool("pool", circle.workers)])
            watching.watch(40 * 0.25, pace=0.25)
            looked = [cost for cost in watching.costs if cost > 0]
            claims.at_most(f"ms of CPU a tick, median, {what}", round(statistics.median(looked[20:]), 2), BUDGET_MS)
            first = f"{len(list(Path('/proc').glob('[0-9]*')))} processes"
            claims.add(f"ms of CPU of the most expensive tick, the first, {what}, {first}", round(max(looked), 1), "", True)
    with Circles(("request reply", 3)) as started:
        watching = Watching([pool("pool", started.scenes[0].workers)])
        watching.watch(10 * 0.25, pace=0.25)
        claims.at_most("ms of CPU a tick, median, running workers", round(statistics.median(watching.costs), 2), 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the healthy pools are watched")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the claims and all figures to this file")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("run this as root: seeing the system calls of other processes needs CAP_SYS_PTRACE")
    claims = Claims()
    lines = circles(claims)
    healthy(claims, arguments.seconds)
    costs(claims)
    print("\n".join(lines))
    claims.close(arguments.json, said=lines)


if __name__ == "__main__":
    main()
