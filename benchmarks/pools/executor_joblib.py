"""joblib on the executor beside joblib's default backend, loky: part `joblib` of `benchmarks.pools.executor`.

Rounds of both in turn in one process, each with two workers; the claims are about the ratios of the medians.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil

from nicety.scheduler.executor.joblib_backend import register

from ..claims import Claims

ROUNDS = 21
STARTS = 5
"""Rounds of what takes a program of its own."""
MOST = 1.1
BACKENDS = ("nicety", "loky")
TINY = 1000
ARRAY_TASKS = 8
END_SECONDS = 60
"""After this time a program counts as one that never ends. It takes about two seconds."""

OPENMP = """
import sys, joblib, numpy
from sklearn.ensemble import HistGradientBoostingClassifier
from nicety.scheduler.executor.joblib_backend import register
register()
data = numpy.random.default_rng(1).random((5000, 10))
right = data[:, 0] > 0.5
def fit(leaves):
    return HistGradientBoostingClassifier(max_iter=10, max_leaf_nodes=leaves).fit(data, right).score(data, right)
here = [fit(leaves) for leaves in range(2, 10)]
assert joblib.Parallel(n_jobs=2, backend=sys.argv[1])(joblib.delayed(fit)(leaves) for leaves in range(2, 10)) == here
"""

FIRST = """
import sys, time, joblib
from nicety.scheduler.executor.joblib_backend import register
register()
before = time.perf_counter()
joblib.Parallel(n_jobs=2, backend=sys.argv[1])(joblib.delayed(abs)(number) for number in range(10))
print(time.perf_counter() - before)
"""


def cpu_seconds() -> float:
    """CPU time so far of this process and of all that descend from it, with all threads."""
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        for task in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except OSError:  # the thread has ended meanwhile
                pass
    return total / 1e9


def partial_sum(array: np.ndarray[Any, Any], first: int) -> float:
    """Of one element in a thousand: what the array costs shows, not the sum."""
    return float(array[first::1000].sum())


def tiny(backend: str) -> None:
    calls = (joblib.delayed(abs)(number) for number in range(TINY))
    assert joblib.Parallel(n_jobs=2, backend=backend)(calls) == list(range(TINY))


def tiny_few(backend: str) -> None:
    calls = (joblib.delayed(abs)(number) for number in range(10))
    assert joblib.Parallel(n_jobs=2, backend=backend)(calls) == list(range(10))


def returned(backend: str) -> None:
    """Answers of 8 MB."""
    calls = (joblib.delayed(np.ones)(1_000_000) for _ in range(4))
    assert len(joblib.Parallel(n_jobs=2, backend=backend)(calls)) == 4


def measure_joblib(claims: Claims) -> dict[str, Any]:
    """All comparisons."""
    register()
    array = np.random.default_rng(2).random(25_000_000)

    def mapped(backend: str) -> None:
        calls = (joblib.delayed(partial_sum)(array, first) for first in range(ARRAY_TASKS))
        assert len(joblib.Parallel(n_jobs=2, backend=backend)(calls)) == ARRAY_TASKS

    figures: dict[str, Any] = {}
    kinds: list[tuple[str, Callable[[str], None]]] = [
        (f"a later call of {TINY} tiny tasks", tiny),
        ("a later call of 10 tiny tasks", tiny_few),
        (f"an array of 200 MB for {ARRAY_TASKS} tasks", mapped),
        ("4 answers of 8 MB", returned),
    ]
    for name, run in kinds:
        for backend in BACKENDS:
            run(backend)
        runs: dict[str, list[tuple[float, float]]] = {backend: [] for backend in BACKENDS}
        for number in range(ROUNDS):
            for backend in BACKENDS if number % 2 else reversed(BACKENDS):
                cpu, before = cpu_seconds(), time.perf_counter()
                run(backend)
                seconds = time.perf_counter() - before
                runs[backend].append((seconds, cpu_seconds() - cpu))
        for index, what in enumerate(("time", "CPU time")):
            own, theirs = (statistics.median(pair[index] for pair in runs[backend]) for backend in BACKENDS)
            figures[f"{what}, {name}"] = {"ours": own, "loky": theirs, "ratio": own / theirs}
            print(f"joblib, {name}: {what} {own:.3g} s, loky {theirs:.3g} s, ratio {own / theirs:.2f}", file=sys.stderr)
            claims.at_most(f"joblib, {name}: {what} beside loky", own / theirs, MOST)
    claims.at_most("joblib: files of arrays that are left", _left(), 0)
    firsts: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    for _ in range(STARTS):
        for backend in BACKENDS:
            firsts[backend].append(float(_run(FIRST, backend)))
    own, theirs = (statistics.median(firsts[backend]) for backend in BACKENDS)
    figures["time, first call of a program"] = {"ours": own, "loky": theirs, "ratio": own / theirs}
    claims.at_most("joblib, the first call of a program: time beside loky", own / theirs, MOST)
    ended = 0
    for _ in range(STARTS):
        try:
            _run(OPENMP, "nicety")
            ended += 1
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"fits with OpenMP: {error}", file=sys.stderr)
    claims.at_least(f"joblib: programs of {STARTS} that end, with OpenMP in the program and then in workers", ended, STARTS)
    return figures


def _run(code: str, backend: str) -> str:
    """What a program with more than one OpenMP thread says."""
    done = subprocess.run(
        [sys.executable, "-c", code, backend],
        stdout=subprocess.PIPE,
        text=True,
        timeout=END_SECONDS,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    return done.stdout


def _left() -> int:
    return sum("nicety-array" in str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
