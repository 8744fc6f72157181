"""What the executor costs beside ProcessPoolExecutor and loky, whether it passes CPython's tests, and whether resizing loses tasks.

    python -m benchmarks.pools.executor [--only cost,joblib,tests,resizes] [--tests DIR] [--json FILE]

`cost`: time and CPU time of a small task, measured in rounds of both in turn in one process. The claims are about the ratios of the
medians. Times need an otherwise idle machine; CPU times do not.
`joblib`: calls of joblib beside its default backend, see `executor_joblib.py`.
`tests`: CPython's own tests of ProcessPoolExecutor, as installed with this Python (Debian: libpython3.11-testsuite), run on the
executor instead. `--tests DIR` names a folder with the package `test`. LEFT_OUT lists the tests that are not run, with the reason.
`resizes`: 1,000 by the program and 1,000 by nicety's adapter, while tasks of all sizes run; and 100 workers killed under load.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import concurrent.futures.process
import hashlib
import importlib
import importlib.util
import io
import multiprocessing
import os
import pkgutil
import random
import signal
import statistics
import sys
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import nicety
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.executor import Executor
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.pools.executor import ExecutorPool

from ..claims import Claims
from .executor_joblib import measure_joblib

# --- time per small task ------------------------------------------------------------------------------------------------------

ROUNDS = 15
BURST = 2000
ALTERNATE = 300
SMALL = ("burst", "one by one", "map in chunks")
"""Measurements with a claim; that of 1 MB has none."""


def burst(executor: concurrent.futures.Executor) -> float:
    """Seconds of a task when many are submitted at once."""
    before = time.perf_counter()
    futures = [executor.submit(abs, number) for number in range(BURST)]
    assert [future.result() for future in futures] == list(range(BURST))
    return (time.perf_counter() - before) / BURST


def one_by_one(executor: concurrent.futures.Executor) -> float:
    """Seconds of a task when each is waited for."""
    before = time.perf_counter()
    for number in range(ALTERNATE):
        assert executor.submit(abs, number).result() == number
    return (time.perf_counter() - before) / ALTERNATE


def mapped(executor: concurrent.futures.Executor) -> float:
    """Seconds of a call in `map` with chunks of 10."""
    before = time.perf_counter()
    assert list(executor.map(abs, range(BURST), chunksize=10)) == list(range(BURST))
    return (time.perf_counter() - before) / BURST


def large(executor: concurrent.futures.Executor) -> float:
    """Seconds of a task that takes 1 MB and returns it."""
    data = bytes(1_000_000)
    before = time.perf_counter()
    assert all(len(result) == len(data) for result in executor.map(bytes, [data] * 20))
    return (time.perf_counter() - before) / 20


def measure_cost(claims: Claims) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    kinds: list[tuple[str, Callable[[concurrent.futures.Executor], float]]] = [
        ("burst", burst),
        ("one by one", one_by_one),
        ("map in chunks", mapped),
        ("1 MB", large),
    ]
    workers = min(4, os.cpu_count() or 1)
    fork = multiprocessing.get_context("fork")
    with Executor(workers, fork) as ours, ProcessPoolExecutor(workers, fork) as theirs:
        for executor in (ours, theirs):
            burst(executor)
        for name, run in kinds:
            runs: dict[concurrent.futures.Executor, list[tuple[float, float]]] = {ours: [], theirs: []}
            for number in range(ROUNDS):
                for executor in (ours, theirs) if number % 2 else (theirs, ours):
                    before = cpu_seconds(executor)
                    seconds = run(executor)
                    runs[executor].append((seconds, cpu_seconds(executor) - before))
            for index, what in enumerate(("time", "CPU")):
                own, original = (statistics.median(pair[index] for pair in runs[executor]) for executor in (ours, theirs))
                figures[f"{what}, {name}"] = {"ours": own, "original": original, "ratio": own / original}
                print(f"{name}: {what} {own:.3g} s, original {original:.3g} s, ratio {own / original:.2f}", file=sys.stderr)
                if name in SMALL:
                    claims.at_most(f"{what} per small task, {name}: ratio to ProcessPoolExecutor", own / original, 1.2)
    return figures


def cpu_seconds(executor: Any) -> float:
    """CPU time so far of this process and the executor's workers, with all threads. Other load has little effect on it."""
    total = 0
    for pid in (os.getpid(), *executor._processes):  # noqa: SLF001 - both have it
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:  # the thread has ended meanwhile
                pass
    return total / 1e9


# --- CPython's tests ----------------------------------------------------------------------------------------------------------

LEFT_OUT = {
    "test_killed_child": "expects that all tasks fail, now and later, when any worker dies; here only one fails, by design",
    "test_broken_process_pool_traceback": "the same",
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": "replaces private parts of the original (_ThreadWakeup)",
    "test_python_finalization_error": "replaces private parts of the original (its way to start threads)",
    "test_force_shutdown_workers": "uses terminate_workers() and kill_workers() of Python 3.14, which the executor does not have",
    "test_force_shutdown_workers_invalid_op": "the same",
    "test_force_shutdown_workers_stops_pool": "the same",
    "test_process_pool_executor_terminate_workers": "the same",
    "test_process_pool_executor_terminate_workers_dead_workers": "the same",
    "test_process_pool_executor_kill_workers": "the same",
    "test_max_workers_too_large": "Windows only",
}
"""Tests of CPython that are not run, with the reason. All others for ProcessPoolExecutor are run."""

SUBSTITUTION = """
import sys
sys.path[:0] = {path!r}
import concurrent.futures, concurrent.futures.process
from nicety.scheduler.executor import Executor
concurrent.futures.ProcessPoolExecutor = concurrent.futures.process.ProcessPoolExecutor = Executor
"""


class _Joined:
    def join_thread(self) -> None:
        """Do nothing: unlike the original, there is no thread of a call queue to wait for."""


class Substitute(Executor):
    """The executor with the private names of the original that the tests check for its end."""

    _call_queue = _Joined()

    @property
    def _mp_context(self) -> Any:
        return self._options.context

    @property
    def _broken(self) -> str:
        return self._core._gate.broken if self._core else ""  # noqa: SLF001

    @property
    def _executor_manager_thread(self) -> Any:
        return self._core.thread if self._core else None

    @property
    def _processes(self) -> dict[int, BaseProcess]:
        """Workers by pid. The manager starts them a moment after submit(), so wait until their number is constant."""
        found = super()._processes
        changed = time.monotonic()
        while time.monotonic() - changed < 0.3:
            time.sleep(0.01)
            now = super()._processes
            if now.keys() != found.keys():
                found, changed = now, time.monotonic()
        return found


Substitute.__name__ = Substitute.__qualname__ = "ProcessPoolExecutor"


def _cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _cases(test)
        else:
            yield test


def run_cpython_tests(claims: Claims, folder: Path | None) -> dict[str, Any]:
    name = f"CPython {sys.version.split()[0]}: tests of ProcessPoolExecutor that fail"
    if folder is not None:
        sys.path.insert(0, str(folder))
        for loaded in [module for module in sys.modules if module == "test" or module.startswith("test.")]:
            del sys.modules[loaded]
    if importlib.util.find_spec("test.test_concurrent_futures") is None:
        claims.add(name, "not installed", "== 0", False)
        print("give --tests DIR, or install the package of Python's own tests (Debian: libpython3.11-testsuite)", file=sys.stderr)
        return {}
    concurrent.futures.ProcessPoolExecutor = Substitute  # type: ignore[misc,assignment]
    concurrent.futures.process.ProcessPoolExecutor = Substitute  # type: ignore[misc,assignment]
    module = importlib.import_module("test.test_concurrent_futures")
    modules = [module]
    if hasattr(module, "__path__"):  # a package since Python 3.12
        modules = [importlib.import_module(f"{module.__name__}.{found.name}") for found in pkgutil.iter_modules(module.__path__)]
    own = str(Path(nicety.__file__).parents[1])  # the tests start Python with -I, which ignores PYTHONPATH
    prefix = SUBSTITUTION.format(path=[str(folder), own] if folder else [own])
    chosen, left_out = unittest.TestSuite(), []
    for part in modules:
        if hasattr(part, "assert_python_ok"):  # tests that run a program of their own
            original = part.assert_python_ok
            part.assert_python_ok = lambda *args, run=original, **more: run(*args[:-1], prefix + args[-1], **more)
        for case in _cases(unittest.defaultTestLoader.loadTestsFromModule(part)):
            class_name, method = case.id().split(".")[-2:]
            if "ProcessPool" not in class_name and "FailingInitializerResources" not in class_name:
                continue
            if method in LEFT_OUT:
                left_out.append(f"{class_name}.{method}: {LEFT_OUT[method]}")
            else:
                chosen.addTest(case)
    count = chosen.countTestCases()
    output = io.StringIO()
    result = unittest.TextTestRunner(stream=output, verbosity=2).run(chosen)
    bad = [case.id() for case, _ in [*result.failures, *result.errors]]
    if bad:
        print(output.getvalue(), file=sys.stderr)
    skipped = sorted(f"{case.id().split('.', 2)[-1]}: {reason}" for case, reason in result.skipped)
    print(
        f"{count} tests, {len(skipped)} skipped by themselves, {len(left_out)} left out:",
        *sorted(left_out),
        sep="\n  ",
        file=sys.stderr,
    )
    claims.at_least("CPython's tests that were run", count - len(skipped), 100)
    claims.at_most(name, len(bad), 0)
    return {"run": count - len(skipped), "failed": bad, "skipped": skipped, "left out": sorted(left_out)}


# --- resizing under load ------------------------------------------------------------------------------------------------------

RESIZES = 1000
KILLS = 100
MOST = 6
IN_FLIGHT = 60


def work(seconds: float, data: bytes) -> tuple[str, bytes]:
    """Sleep, and return what proves that this task ran."""
    time.sleep(seconds)
    return hashlib.sha256(data).hexdigest(), data[: len(data) // 2]


class Load:
    """Keeps tasks in flight and checks every one of them."""

    def __init__(self, executor: Executor, seed: int) -> None:
        self._executor = executor
        self._chance = random.Random(seed)
        self._flying: dict[Future[tuple[str, bytes]], bytes] = {}
        self.submitted = self.good = self.failed = 0

    def feed(self) -> None:
        """Check finished tasks and submit as many new ones."""
        for future in [future for future in self._flying if future.done()]:
            self._check(future)
        while len(self._flying) < IN_FLIGHT:
            size = self._chance.choice((10, 100, 5_000, 20_000, 200_000))
            seconds = self._chance.choice((0, 0, 0, 0.001, 0.005, 0.02))
            data = self._chance.randbytes(size)
            self._flying[self._executor.submit(work, seconds, data)] = data
            self.submitted += 1

    def finish(self) -> None:
        """Wait for the rest, at most half a minute; a task that is not done by then is lost."""
        concurrent.futures.wait(self._flying, timeout=30)
        for future in list(self._flying):
            self._check(future)

    def _check(self, future: Future[tuple[str, bytes]]) -> None:
        data = self._flying.pop(future)
        try:
            good = future.result(timeout=0) == (hashlib.sha256(data).hexdigest(), data[: len(data) // 2])
        except Exception as error:
            print(f"failed: {error!r}", file=sys.stderr)
            good = False
        self.good += good
        self.failed += not good


class Clock:
    """The real one."""

    def monotonic(self) -> int:
        """ns"""
        return time.monotonic_ns()

    def wall(self) -> int:
        """ns since 1970"""
        return time.time_ns()

    def sleep_until(self, at: int) -> None:
        """Not needed here."""
        time.sleep(max(0, at - time.monotonic_ns()) / 1e9)


def _wait_for_size(executor: Executor, load: Load, seconds: float) -> bool:
    """Feed until the executor has the wanted number of workers; False after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        load.feed()
        if len(executor._processes) == executor.size:  # noqa: SLF001 - there is no public way, nor need for one
            return True
        time.sleep(0.001)
    return False


def resize_under_load(claims: Claims, method: str, by_nicety: bool) -> dict[str, Any]:
    chance = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NICETY_RUN_DIR"] = folder
        executor = Executor(MOST, multiprocessing.get_context(method), name="bench")
        load = Load(executor, seed=3)
        load.feed()
        pool = ExecutorPool("bench", PoolConfig(kind="executor"), Clock(), environ={"NICETY_RUN_DIR": folder})
        pool.probe()
        reached = done = 0
        before = time.monotonic()
        longest = 0.0
        while done < RESIZES:
            size = chance.choice([n for n in range(1, MOST + 1) if n != executor.size])
            load.feed()
            asked = time.perf_counter()
            if by_nicety:
                pool.probe()
                status, text = pool.resize(size)
                if status is not Status.APPLIED:
                    print(f"{status}: {text}", file=sys.stderr)
                    break
                longest = max(longest, time.perf_counter() - asked)
                end = time.monotonic() + 5
                while executor.size != size and time.monotonic() < end:
                    load.feed()
                    pool.probe()
                pool.probe()
            else:
                executor.resize(size)
                longest = max(longest, time.perf_counter() - asked)
            done += 1
            end = time.monotonic() + chance.choice((0, 0.002, 0.01))  # some sizes are replaced while they are under way
            while time.monotonic() < end:
                load.feed()
            if done % 4 == 0:
                reached += _wait_for_size(executor, load, 5)
        _wait_for_size(executor, load, 5)
        load.finish()
        view = pool.board
        executor.shutdown()
        pool.close()
        del os.environ["NICETY_RUN_DIR"]
    who = "nicety" if by_nicety else "the program"
    title = f"{method}, resized by {who}"
    claims.at_least(f"{title}: resizes", done, RESIZES)
    claims.at_least(f"{title}: sizes that were reached, of {done // 4}", reached, done // 4)
    claims.at_most(f"{title}: failed or lost tasks of {load.submitted}", load.submitted - load.good, 0)
    claims.at_most(f"{title}: longest call that asks for a size, ms", longest * 1e3, 100)
    return {
        "resizes": done,
        "tasks": load.submitted,
        "good": load.good,
        "seconds": time.monotonic() - before,
        "starts ns": view.starts_ns if view else (),
    }


def kill_under_load(claims: Claims) -> dict[str, Any]:
    chance = random.Random(11)
    with Executor(4, multiprocessing.get_context("fork"), retries=5) as executor:
        load = Load(executor, seed=5)
        killed = 0
        while killed < KILLS:
            load.feed()
            processes = list(executor._processes)  # noqa: SLF001
            if len(processes) == 4:
                try:
                    os.kill(chance.choice(processes), signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                load.feed()
        load.finish()
    claims.at_most(f"{KILLS} workers killed, retries=5: failed or lost tasks of {load.submitted}", load.submitted - load.good, 0)
    return {"kills": killed, "tasks": load.submitted, "good": load.good}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="cost,joblib,resizes,tests", help="parts to run, separated by commas")
    parser.add_argument("--tests", type=Path, help="folder with CPython's package `test`, if this Python has none")
    parser.add_argument("--json", type=Path, help="write claims and figures to this file")
    options = parser.parse_args()
    parts = options.only.split(",")
    claims = Claims()
    figures: dict[str, Any] = {}
    if "cost" in parts:
        figures["cost"] = measure_cost(claims)
    if "joblib" in parts:
        figures["joblib"] = measure_joblib(claims)
    if "resizes" in parts:
        for method in ("fork", "forkserver"):
            for by_nicety in (False, True):
                figures[f"resizes {method} {'nicety' if by_nicety else 'program'}"] = resize_under_load(claims, method, by_nicety)
        figures["kills"] = kill_under_load(claims)
    if "tests" in parts:  # the last: it puts the executor in the place of the original
        figures["tests"] = run_cpython_tests(claims, options.tests)
    claims.close(options.json, figures=figures)
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
