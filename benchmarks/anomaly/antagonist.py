"""Is the antagonist of a starved worker named right? Real workers, real hogs, and the ranking that the policy reports.

    python -m benchmarks.anomaly.antagonist [--json FILE] [--rounds N]

A round has two scenes; in each, a random group is the antagonist. *Pinned*: the worker and the antagonist are on CPU 0, and other
groups, which use more CPU in total, on the other CPUs. *Free*: the antagonist has more processes than there are CPUs, and the
others do little. It can run beside other work, because all its processes yield to the rest of the machine, and groups outside of
the experiment are left out of the ranking.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nicety.models.identity import ProcId
from nicety.models.records import Anomaly, PoolSample, Score, Snapshot, WorkerSample
from nicety.scheduler.config.sections import parse
from nicety.scheduler.observe import antagonists
from nicety.scheduler.observe.measure import Measurer
from nicety.scheduler.observe.occupancy import busy_between, occupancy
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.process import see

from ..claims import Claims

INTERVAL, SECONDS = 0.5, 8.0
GROUPS = ("hogs", "build", "encode")
BUSY = "import sys\nwhile True:\n    sum(range(20000))\n"
LIGHT = "import time\nwhile True:\n    sum(range(20000))\n    time.sleep(0.02)\n"
CONFIG = f"[daemon]\ninterval = {INTERVAL}\n[pools.web]\nkind = 'command'\ncommand = ['x']\n" + "".join(
    f"[groups.{name}]\nprogram = '*{name}.py'\n" for name in GROUPS
)
antagonists.NEIGHBOURS = 1000  # groups outside of the experiment are left out after the ranking


class Scene:
    """The processes of a scene, each group in its own session. `end` ends them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, code: str, cpu: int | None) -> int:
        """Start a process of this group; its pid."""
        path = self._directory / f"{name}.py"
        path.write_text(code)
        process = subprocess.Popen([sys.executable, str(path)], start_new_session=True)
        self._started.append(process)
        autogroup = Path(f"/proc/{process.pid}/autogroup")
        if autogroup.exists():
            autogroup.write_text("19")
        if cpu is not None:
            os.sched_setaffinity(process.pid, {cpu})
        return process.pid

    def end(self) -> None:
        """End all of them."""
        for process in self._started:
            process.send_signal(signal.SIGKILL)
            process.wait()


def pinned(scene: Scene, antagonist: str, others: list[str]) -> int:
    """Start the pinned scene; the pid of the worker that is starved on CPU 0."""
    elsewhere = max(os.sched_getaffinity(0))
    worker = scene.start("worker", BUSY, 0)
    for _ in range(3):
        scene.start(antagonist, BUSY, 0)
    for name in others:
        for _ in range(3):
            scene.start(name, BUSY, elsewhere)
    return worker


def free(scene: Scene, antagonist: str, others: list[str]) -> int:
    """Start the free scene; the pid of the worker, which may run on any CPU and is outnumbered on each."""
    worker = scene.start("worker", BUSY, None)
    for _ in range(2 * len(os.sched_getaffinity(0)) + 1):
        scene.start(antagonist, BUSY, None)
    for name in others:
        scene.start(name, LIGHT, None)
    return worker


def named(pid: int, source: ProcSource) -> list[tuple[str, float]]:
    """(name, cores) of the experiment's groups that the ranking names for this worker."""
    seen = see(pid)
    assert seen is not None, "the worker has ended"
    worker: ProcId = seen.id
    pools = (PoolSample("web", 1, 1, None, (WorkerSample(worker, 1.0, True),), None, None, ""),)
    measurer, finder = Measurer(parse(CONFIG)), antagonists.Antagonists()
    before: Snapshot | None = None
    for _ in range(round(SECONDS / INTERVAL)):
        time.sleep(INTERVAL)
        snapshot = source.read(time.monotonic_ns(), time.time_ns(), pools)
        measured = measurer.measure(snapshot)
        if measured is not None and before is not None:
            rows, keys = measured.rows, measured.worker_keys
            ran = occupancy(snapshot, measured.rates, list(rows), busy_between(before, snapshot))
            finder.push(snapshot, ran, measured.members, rows, keys, measured.seconds)
        before = snapshot
    score = Score(worker, "web", Anomaly.STARVED, 3.0, 1e-9, (), "made up")
    (starved,) = finder.of((score,), snapshot)
    return [(it.group, it.cores) for it in starved.antagonists if it.group in GROUPS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what was started, too
    chance, claims, rows = random.Random(options.seed), Claims(), []
    for number in range(options.rounds):
        for make in (pinned, free):
            antagonist = chance.choice(GROUPS)
            others = [name for name in GROUPS if name != antagonist]
            with tempfile.TemporaryDirectory() as directory:
                scene, source = Scene(Path(directory)), ProcSource(slow_every=10)
                try:
                    found = named(make(scene, antagonist, others), source)
                finally:
                    scene.end()
                    source.close()
            right = bool(found) and found[0][0] == antagonist
            rows.append({"round": number, "scene": make.__name__, "antagonist": antagonist, "named": found, "right": right})
            print(
                f"{make.__name__:<7} {antagonist:<7} named {', '.join(f'{name} {cores:.2f}' for name, cores in found) or 'nobody'}"
            )
    for scene_name in ("pinned", "free"):
        mine = [bool(row["right"]) for row in rows if row["scene"] == scene_name]
        claims.at_least(f"antagonist named right, {scene_name}", sum(mine) / len(mine), 0.9)
    claims.close(options.json, rounds=rows)


if __name__ == "__main__":
    main()
