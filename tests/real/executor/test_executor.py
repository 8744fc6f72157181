"""The executor as a program uses it: what it shares with ProcessPoolExecutor, and what it does better."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NoReturn

import pytest

from nicety.scheduler.executor import Executor, UnreadableTask, WorkerLost


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NICETY_RUN_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def two() -> Iterator[Executor]:
    with Executor(2, multiprocessing.get_context("fork")) as executor:
        yield executor


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_self() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def kill_self_once(marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).touch()
        kill_self()
    return "second time"


def wait_for(path: str) -> bool:
    until(Path(path).exists, 20)
    return True


def touch(path: str) -> None:
    Path(path).touch()


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def complain(text: str) -> None:
    raise LookupError(text)


class TwoArgumentsError(Exception):
    """Cannot be unpickled: exceptions are made again from `args`, of which there is one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def raise_two_arguments() -> None:
    raise TwoArgumentsError("a", "b")


class Unloadable:
    def __reduce__(self) -> tuple[Any, ...]:
        return complain, ("cannot be loaded",)


def test_results_come_in_the_order_of_the_calls(two: Executor) -> None:
    assert list(two.map(pow, range(50), [2] * 50, chunksize=7)) == [n * n for n in range(50)]
    assert [f.result() for f in [two.submit(pow, n, 3) for n in range(200)]] == [n**3 for n in range(200)]


def test_an_exception_brings_the_workers_traceback(two: Executor) -> None:
    with pytest.raises(LookupError, match="nothing there") as raised:
        two.submit(complain, "nothing there").result(10)
    assert "raise LookupError(text)" in str(raised.value.__cause__)


@pytest.mark.parametrize("size", [40_000, 300_000, 20_000_000])
def test_tasks_and_results_that_do_not_fit_into_a_packet_arrive_whole(two: Executor, size: int) -> None:
    data = os.urandom(1000) * (size // 1000)
    futures = [two.submit(bytes, data) for _ in range(3)]
    assert all(future.result(30) == data for future in futures)
    assert two.submit(len, data).result(10) == len(data)


def test_a_killed_worker_takes_one_task_with_it(two: Executor) -> None:
    futures = [two.submit(pid_after, 0.2) for _ in range(6)]
    until(lambda: futures[0].running() and futures[1].running())
    victim = next(iter(two._processes))
    os.kill(victim, signal.SIGKILL)
    done, _ = wait(futures, 10)
    failed = [future for future in done if future.exception() is not None]
    assert len(done) == 6
    assert [type(future.exception()) for future in failed] == [WorkerLost]
    assert f"worker pid {victim} was killed by SIGKILL" in str(failed[0].exception())
    assert isinstance(failed[0].exception(), BrokenProcessPool)
    assert two.submit(pow, 2, 8).result(10) == 256
    assert len(two._processes) == 2


@pytest.mark.parametrize("before", range(40, 44))
def test_tasks_that_a_killed_worker_was_given_ahead_are_run_by_its_successor(before: int) -> None:
    """Quick tasks go to the worker in fours: in some of the cases the deadly one is not the last of its four."""
    with Executor(1, multiprocessing.get_context("fork")) as executor:
        quick = [executor.submit(abs, n) for n in range(before)]
        deadly = executor.submit(kill_self)
        behind = [executor.submit(pow, n, 2) for n in range(6)]
        with pytest.raises(WorkerLost, match="SIGKILL"):
            deadly.result(10)
        assert [future.result(10) for future in quick] == list(range(before))
        assert [future.result(10) for future in behind] == [n**2 for n in range(6)]


def test_a_task_is_run_again_only_when_that_was_asked_for(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    with Executor(2, fork, retries=1) as executor:
        assert executor.submit(kill_self_once, str(tmp_path / "a")).result(10) == "second time"
        with pytest.raises(WorkerLost, match="for the 2th time"):
            executor.submit(kill_self).result(10)
    with Executor(2, fork) as executor, pytest.raises(WorkerLost):
        executor.submit(kill_self_once, str(tmp_path / "b")).result(10)


def test_a_task_that_waits_for_another_does_not_wait_for_one_given_ahead_behind_it(two: Executor, tmp_path: Path) -> None:
    """Tasks given ahead to a worker that turns out to be slow are taken back when another one has nothing to do."""
    for turn in range(20):
        flag = str(tmp_path / f"flag{turn}")
        quick = [two.submit(abs, n) for n in range(30)]
        slow = two.submit(wait_for, flag)
        behind = [two.submit(abs, n) for n in range(5)]
        others: list[Future[Any]] = [*quick, *behind, two.submit(touch, flag)]
        assert slow.result(10)
        assert not wait(others, 10).not_done


def test_growing_and_shrinking_while_tasks_run(two: Executor) -> None:
    futures = [two.submit(pid_after, 0.15) for _ in range(12)]
    before = time.monotonic()
    two.resize(5)
    assert time.monotonic() - before < 0.1, "resize() must not wait"
    until(lambda: len(two._processes) == 5)
    assert two.size == 5
    until(lambda: sum(future.running() for future in futures) == 5)
    two.resize(1)
    assert len({future.result(10) for future in futures}) > 2, "the new workers had their share"
    until(lambda: len(two._processes) == 1)
    pids = {two.submit(os.getpid).result(10) for _ in range(5)}
    assert pids == set(two._processes)


def test_shrinking_ends_no_task(two: Executor) -> None:
    two.resize(4)
    futures = [two.submit(pid_after, 0.3) for _ in range(4)]
    until(lambda: all(future.running() for future in futures))
    two.resize(1)
    assert len({future.result(10) for future in futures}) == 4
    until(lambda: len(two._processes) == 1)


def test_a_size_below_one_is_refused(two: Executor) -> None:
    for size in (0, -1):
        with pytest.raises(ValueError, match="at least one worker"):
            two.resize(size)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize(("maximum", "size"), [(1, 3), (5, 2)])
def test_workers_that_are_asked_for_before_the_first_task_are_up_when_it_comes(method: str, maximum: int, size: int) -> None:
    with Executor(maximum, multiprocessing.get_context(method)) as executor:
        executor.resize(size)
        assert executor.size == size
        until(lambda: len(executor._processes) == size, 20)
        present = set(executor._processes)
        assert {executor.submit(os.getpid).result(20) for _ in range(10)} <= present
        assert set(executor._processes) == present, "never more than were asked for, nor others"


def test_an_executor_that_is_shut_down_is_not_resized() -> None:
    for used in (False, True):
        executor = Executor(1, multiprocessing.get_context("fork"))
        if used:
            executor.submit(int).result(10)
        executor.shutdown()
        with pytest.raises(RuntimeError, match="cannot resize after shutdown"):
            executor.resize(2)


def test_an_idle_worker_that_is_killed_is_replaced(two: Executor) -> None:
    two.submit(int).result(10)
    until(lambda: len(two._processes) == 2)
    time.sleep(1.1)  # a younger one that had no task yet counts as one that failed to start, and is replaced after a second
    victim = next(iter(two._processes))
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in two._processes and len(two._processes) == 2, 0.9)
    assert two.submit(int).result(10) == 0


def test_what_cannot_be_pickled_fails_alone(two: Executor) -> None:
    bad = two.submit(complain, threading.Lock())  # type: ignore[arg-type]
    unloadable = two.submit(id, Unloadable())
    other_way = two.submit(raise_two_arguments)
    result = two.submit(threading.Lock)
    good = two.submit(pow, 2, 8)
    with pytest.raises(TypeError, match="pickle"):
        bad.result(10)
    with pytest.raises(UnreadableTask) as raised:
        unloadable.result(10)
    assert "LookupError: cannot be loaded" in str(raised.value.__cause__)
    with pytest.raises(UnreadableTask):
        other_way.result(10)
    with pytest.raises(TypeError, match="pickle"):
        result.result(10)
    assert good.result(10) == 256


def test_a_failing_initializer_breaks_the_executor() -> None:
    executor = Executor(2, multiprocessing.get_context("fork"), complain, ("not today",))
    with pytest.raises(BrokenExecutor, match="initializer") as raised:
        executor.submit(pow, 2, 2).result(10)
    assert "LookupError: not today" in str(raised.value.__cause__)
    with pytest.raises(BrokenExecutor, match="initializer"):
        executor.submit(pow, 2, 2)
    executor.shutdown()


def test_workers_that_die_at_their_start_break_the_executor_instead_of_being_started_for_ever() -> None:
    executor = Executor(1, multiprocessing.get_context("fork"), os._exit, (3,))
    with pytest.raises(BrokenExecutor, match="exit status 3 before its first task; given up after 3 tries"):
        executor.submit(pow, 2, 2).result(20)
    executor.shutdown()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods(method: str) -> None:
    with Executor(3, multiprocessing.get_context(method)) as executor:
        first = executor.submit(os.getpid).result(20)
        assert [executor.submit(os.getpid).result(20) for _ in range(3)] == [first] * 3, "workers are started when needed"
        with pytest.raises(WorkerLost, match="exit status 7"):
            executor.submit(os._exit, 7).result(20)
        assert executor.submit(pow, 2, 3).result(20) == 8
        executor.resize(3)
        until(lambda: len(executor._processes) == 3)


def test_a_worker_ends_after_its_share_of_tasks() -> None:
    with Executor(1, multiprocessing.get_context("forkserver"), max_tasks_per_child=2) as executor:
        pids = [executor.submit(os.getpid).result(20) for _ in range(6)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]


def test_waiting_tasks_are_cancelled_on_request(two: Executor) -> None:
    futures = [two.submit(time.sleep, 0.1) for _ in range(20)]
    two.shutdown(cancel_futures=True)
    states = [future.cancelled() for future in futures]
    assert sum(states) >= 15
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        two.submit(int)


def test_nothing_is_left_of_an_executor_that_was_shut_down(run_dir: Path) -> None:
    gc.collect()
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    executor = Executor(3, multiprocessing.get_context("fork"))
    executor.submit(int).result(10)
    assert len(list(run_dir.iterdir())) == 1
    processes = executor._processes
    executor.resize(1)
    executor.shutdown()
    assert not list(run_dir.iterdir())
    assert not any(is_running(pid) for pid in processes)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("Executor")]
    del executor, processes
    gc.collect()
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before


def test_an_executor_that_is_dropped_finishes_and_ends() -> None:
    executor = Executor(2, multiprocessing.get_context("fork"))
    futures = [executor.submit(pid_after, 0.1) for _ in range(4)]
    pids = list(executor._processes)
    del executor
    gc.collect()
    assert all(future.result(10) for future in futures)
    until(lambda: not any(is_running(pid) for pid in pids))


def test_a_default_timeout_of_sockets_does_not_end_workers() -> None:
    socket.setdefaulttimeout(0.05)
    try:
        with Executor(1, multiprocessing.get_context("fork")) as executor:
            first = executor.submit(os.getpid).result(10)
            time.sleep(0.3)
            assert executor.submit(os.getpid).result(10) == first
    finally:
        socket.setdefaulttimeout(None)


def test_arguments_are_checked() -> None:
    for keywords, match in (
        ({"max_workers": 0}, "greater than 0"),
        ({"max_workers": 2, "minimum": 3}, "minimum must be from 1 to max_workers"),
        ({"retries": -1}, "retries"),
        ({"max_tasks_per_child": 0}, "max_tasks_per_child"),
        ({"max_tasks_per_child": 1, "mp_context": multiprocessing.get_context("fork")}, "'fork'"),
    ):
        with pytest.raises(ValueError, match=match):
            Executor(**keywords)
    with pytest.raises(TypeError, match="callable"):
        Executor(1, initializer="no")  # type: ignore[arg-type]


OWNER = """
import multiprocessing, os, sys, time
from nicety.scheduler.executor import Executor
executor, other = (Executor(2, multiprocessing.get_context("fork")) for _ in range(2))
executor.submit(int).result()
other.submit(int).result()
executor.resize(4)  # workers of the first one are forked when the second one's channels are there
while len(executor._processes) < 4 or executor._core._crew.starting:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    try:
        executor.submit(int)
    except Exception as error:
        os.write(1, f"{error}\\n".encode())
    time.sleep(60)
time.sleep(0.2)
print(child, *executor._processes, *other._processes, flush=True)
executor.submit(time.sleep, 0.3)
time.sleep(60)
"""


def test_workers_end_when_their_owner_is_killed_whoever_else_was_forked(run_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        said = owner.stdout.readline()
        assert "belongs to the process that made it" in said, "a forked child must not hang with its parent's executor"
        child, *workers = map(int, owner.stdout.readline().split())
        assert len(workers) == 6
        try:
            assert all(is_running(pid) for pid in workers)
            owner.kill()
            owner.wait()
            until(lambda: not any(is_running(pid) for pid in workers), 5)
            assert is_running(child)
        finally:
            os.kill(child, signal.SIGKILL)
    assert len(list(run_dir.iterdir())) == 2, "the boards of a killed owner"
    with Executor(1) as executor:
        executor.submit(int).result(10)
        assert len(list(run_dir.iterdir())) == 1, "are removed by the next executor"


EXIT = """
import os, time
from nicety.scheduler.executor import Executor
def say(text):
    time.sleep(0.2)
    os.write(1, f"{text}\\n".encode())
executor = Executor(2)
for word in ("one", "two", "three"):
    executor.submit(say, word)
"""


def test_an_interpreter_that_ends_waits_for_what_was_submitted() -> None:
    done = subprocess.run([sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=30, check=True)
    assert sorted(done.stdout.split()) == ["one", "three", "two"]
    assert done.stderr == ""


def test_importing_the_executor_loads_nothing_heavy() -> None:
    code = "import sys; from nicety.scheduler.executor import Executor; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert "nicety" in loaded
    assert not loaded & {"numpy", "msgspec", "psutil", "typer", "joblib", "sqlite3"}


def test_errors_of_the_executor_can_be_pickled() -> None:
    """They travel when an executor is used inside of a worker."""
    assert str(pickle.loads(pickle.dumps(WorkerLost("gone")))) == "gone"
