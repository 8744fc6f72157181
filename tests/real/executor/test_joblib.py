"""joblib on the executor beside what its own default backend promises: no forked OpenMP, mapped arrays, workers that stay."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from nicety.scheduler.executor import Executor, WorkerLost, shelf
from nicety.scheduler.executor.arrays import MOST_FILES, Arrays, mapped
from nicety.scheduler.executor.clean import CleanContext
from nicety.scheduler.executor.joblib_backend import register

Array = np.ndarray[Any, Any]
LARGE = 400_000
"""Elements of an array of 3.2 MB: joblib maps arrays from 1 MB on."""


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NICETY_RUN_DIR", str(tmp_path / "run"))
    register()
    yield
    while shelf._kept:
        shelf._kept.pop()[1].shutdown()


def until(holds: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def array_files() -> int:
    """Descriptors of this process that are arrays for workers."""
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        try:
            found += "nicety-array" in str(path.readlink())
        except OSError:
            pass
    return found


class Counting(Executor):
    """Counts the bytes of the batches that go to workers."""

    given = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given += sum(len(each) for each in args if isinstance(each, bytes))
        return super().submit(fn, *args, **kwargs)


def look(array: Array) -> tuple[str, str, float]:
    file = str(Path(array.filename or "").readlink()) if isinstance(array, np.memmap) else ""
    return type(array).__name__, file, float(array.sum())


def test_a_fit_with_openmp_in_the_program_and_then_in_a_worker_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker forked from the program would hang or crash there. The script has no guard for its main module."""
    script = tmp_path / "fits.py"
    script.write_text("""
import joblib, numpy
from sklearn.ensemble import HistGradientBoostingClassifier
from nicety.scheduler.executor.joblib_backend import register

print("begins")
register()
data = numpy.arange(3000.0).reshape(-1, 2)
right = data[:, 0] > 1500

def fit(leaves):
    return HistGradientBoostingClassifier(max_iter=2, max_leaf_nodes=leaves).fit(data, right).score(data, right)

class Wrong(Exception): pass
def fail(): raise Wrong("with a class of the script")

here = [fit(leaves) for leaves in (2, 3)]
assert joblib.Parallel(n_jobs=2, backend="nicety")(joblib.delayed(fit)(leaves) for leaves in (2, 3)) == here
try:
    joblib.Parallel(n_jobs=2, backend="nicety")(joblib.delayed(fail)() for _ in range(2))
except Wrong as error:
    print(error)
""")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("begins\nwith a class of the script\n", 0), done.stderr


def test_workers_of_a_clean_start_know_nothing_of_the_program() -> None:
    with Executor(2, CleanContext(), initializer=os.umask, initargs=(0o27,)) as executor:
        pid = executor.submit(os.getpid).result(20)
        assert executor.submit(threading.active_count).result(10) == 1
        loaded = executor.submit(eval, "sorted(__import__('sys').modules)").result(10)
        assert executor.submit(os.umask, 0o22).result(10) == 0o27
        assert not {"numpy", "joblib", "pytest", __name__} & set(loaded)
        assert executor.submit(eval, "__import__('sys').path").result(10)[1:] == sys.path[1:]
        os.kill(pid, signal.SIGKILL)
        assert executor.submit(os.getpid).result(10) != pid


def test_a_large_array_is_mapped_and_sent_to_no_worker() -> None:
    array = np.arange(float(LARGE))
    with Counting(2, CleanContext()) as executor:
        with joblib.parallel_config(backend="nicety", executor=executor):
            seen = joblib.Parallel(batch_size=1)(joblib.delayed(look)(array) for _ in range(8))
        assert {(kind, total) for kind, _, total in seen} == {("memmap", float(array.sum()))}
        assert len({file for _, file, _ in seen}) == 1, "it is written once"
        assert 0 < executor.given < 20_000, "bytes for eight tasks"
    assert array_files() == 0


@pytest.mark.parametrize(
    "array",
    [
        np.arange(LARGE).reshape(4, -1).T,
        np.arange(LARGE * 2).reshape(-1, 4)[::2, 1:],
        np.zeros(LARGE, "M8[s]"),
        np.ones(LARGE, [("a", "i4"), ("b", "f4")]),
    ],
    ids=["Fortran", "strided", "times", "records"],
)
def test_an_array_of_any_layout_arrives_as_it_is(array: Array) -> None:
    arrays = Arrays(1000, "r", None)
    used: list[Any] = []
    build, arguments = arrays.reducers(used)[np.ndarray](array)
    copy = build(*arguments)
    assert isinstance(copy, np.memmap)
    assert copy.dtype == array.dtype
    assert np.array_equal(copy, array)
    assert array_files() == 2, "a mapping has a descriptor of its own"
    del copy
    arrays.release(used)
    arrays.close()
    assert array_files() == 0
    with pytest.raises(FileNotFoundError):
        build(*arguments)


def fill(array: Array, index: int) -> None:
    array[index] = index


def test_workers_write_into_an_array_if_its_mode_allows_it(tmp_path: Path) -> None:
    own = np.memmap(tmp_path / "own", dtype="f8", mode="w+", shape=20)
    with joblib.parallel_config(backend="nicety", n_jobs=2):
        joblib.Parallel()(joblib.delayed(fill)(own[10:], index) for index in range(10))
        assert own.tolist() == [0.0] * 10 + list(range(10)), "a file of the program's own is mapped as it is"
        with pytest.raises(ValueError, match="read-only"):
            joblib.Parallel()(joblib.delayed(fill)(np.zeros(LARGE), 1) for _ in range(2))
        joblib.Parallel(mmap_mode="c")(joblib.delayed(fill)(np.zeros(LARGE), 1) for _ in range(2))


def test_what_joblib_says_of_arrays_is_followed(tmp_path: Path) -> None:
    array = np.ones(LARGE)
    with joblib.parallel_config(backend="nicety", n_jobs=2):
        plain = joblib.Parallel(max_nbytes=None)(joblib.delayed(look)(array) for _ in range(2))
        unmapped = joblib.Parallel(mmap_mode=None)(joblib.delayed(look)(array) for _ in range(2))
        in_folder = joblib.Parallel(temp_folder=str(tmp_path))(joblib.delayed(look)(array) for _ in range(2))
    assert plain == unmapped == [("ndarray", "", float(LARGE))] * 2
    assert all(file.startswith(str(tmp_path)) for _, file, _ in in_folder)
    assert not [path for path in tmp_path.iterdir() if path.name != "run"]


def halved(array: Array) -> Array:
    return array[::2]


def test_arrays_that_come_and_go_do_not_pile_up() -> None:
    """Each is closed with its last task, or else a generator of arrays would fill the memory."""
    held: list[int] = []

    def made() -> Iterator[Any]:
        for number in range(24):
            held.append(array_files())
            yield joblib.delayed(halved)(np.full(LARGE, float(number)))

    results = joblib.Parallel(n_jobs=2, backend="nicety", batch_size=1)(made())
    assert [result[0] for result in results] == list(range(24))
    assert {type(result) for result in results} == {np.ndarray}, "answers are whole, not files"
    assert max(held) <= 8, "a few tasks are under way at a time"
    assert array_files() == 0


def test_more_arrays_than_files_may_be_open_are_pickled() -> None:
    arrays, used = Arrays(1000, "r", None), list[Any]()
    many = [np.full(200, float(number)) for number in range(MOST_FILES + 1)]
    reduce = arrays.reducers(used)[np.ndarray]
    assert {reduce(each)[0] for each in many[:-1]} == {mapped}
    assert array_files() == MOST_FILES
    assert reduce(many[-1])[0] is not mapped
    assert len(used) == MOST_FILES
    arrays.release(used)
    assert reduce(many[-1])[0] is mapped
    assert len(used) == 1, "the oldest made room"
    assert array_files() == MOST_FILES
    arrays.close()


def pids(n_jobs: int, **more: Any) -> set[int]:
    calls = (joblib.delayed(os.getpid)() for _ in range(6))
    return set(joblib.Parallel(n_jobs=n_jobs, backend="nicety", batch_size=1, **more)(calls))


def workers() -> set[int]:
    return {pid for _, executor in shelf._kept for pid in executor._processes}


def test_workers_stay_for_the_next_call() -> None:
    first = pids(2)
    there = workers()
    assert first <= there
    for _ in range(3):
        assert pids(2) <= there
    assert workers() == there
    assert not pids(3) & there
    assert pids(2) <= there
    assert not pids(2, name="another") & there
    assert len(shelf._kept) == shelf.MOST
    until(lambda: sum(map(is_running, there)) == len(there & workers()))


def test_two_calls_at_a_time_have_workers_of_their_own() -> None:
    seen: list[set[int]] = []
    inside = threading.Barrier(2)

    def call() -> None:
        with joblib.Parallel(n_jobs=2, backend="nicety") as parallel:
            inside.wait(20)
            seen.append(set(parallel(joblib.delayed(os.getpid)() for _ in range(4))))
            inside.wait(20)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 2
    assert not seen[0] & seen[1]


def test_a_call_after_a_broken_one_has_new_workers() -> None:
    pids(2)
    there = workers()
    with pytest.raises(WorkerLost):
        joblib.Parallel(n_jobs=2, backend="nicety")(joblib.delayed(os._exit)(3) for _ in range(2))
    assert not any(map(is_running, there))
    assert not pids(2) & there
    with pytest.raises(TypeError, match="pickle"):
        joblib.Parallel(n_jobs=2, backend="nicety")(joblib.delayed(id)(threading.Lock()) for _ in range(3))
    assert pids(2)


def test_workers_without_a_task_end_and_come_back() -> None:
    first = pids(2, idle_worker_timeout=0.2)
    until(lambda: not workers(), 5)
    assert not any(map(is_running, first))
    assert pids(2, idle_worker_timeout=0.2)
    with Executor(2, multiprocessing.get_context("forkserver"), idle_seconds=0.2) as executor:
        executor.resize(1)
        pid = executor.submit(os.getpid).result(20)
        time.sleep(0.9)
        assert executor.submit(os.getpid).result(10) == pid, "the program wants one"


def mark(text: str) -> None:
    os.environ["MARK"] = text


def variable(name: str) -> str | None:
    return os.environ.get(name)


def test_threads_of_libraries_are_limited_before_they_are_loaded() -> None:
    with joblib.parallel_config(backend="nicety", n_jobs=2, inner_max_num_threads=3):
        seen = joblib.Parallel()(joblib.delayed(variable)("OPENBLAS_NUM_THREADS") for _ in range(2))
        assert seen == ["3", "3"]
    with joblib.parallel_config(backend="nicety", n_jobs=2, initializer=mark, initargs=("as asked",)):
        assert joblib.Parallel()(joblib.delayed(variable)("MARK") for _ in range(2)) == ["as asked"] * 2


ENDING = """
import os, signal, sys, joblib
from nicety.scheduler.executor import shelf
from nicety.scheduler.executor.joblib_backend import register
register()
call = lambda: set(joblib.Parallel(n_jobs=2, backend="nicety", batch_size=1)(joblib.delayed(os.getppid)() for _ in range(4)))
forkers = call()
child = os.fork()
if child == 0:
    assert not call() & forkers
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert call() == forkers
workers = [pid for _, executor in shelf._kept for pid in executor._processes]
print(*forkers, *workers, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["itself", "killed"])
def test_nothing_is_left_of_a_program_that_ends(how: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ENDING, how], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode) == ("", -signal.SIGKILL if how == "killed" else 0)
    left = [int(pid) for pid in done.stdout.split()]
    assert len(left) >= 2
    until(lambda: not any(map(is_running, left)), 5)
    if how == "itself":
        assert not list((tmp_path / "run").iterdir())
