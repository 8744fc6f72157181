"""The executor's adapter beside a real program: found, measured, sized, and let be when the program knows better."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import Config, ConfigError, PoolConfig, parse
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.pools.build import build
from nicety.scheduler.pools.executor import ExecutorPool
from nicety.scheduler.ports import PoolAdapter
from nicety.scheduler.testing.clock import ShiftedClock
from nicety.scheduler.testing.driver import PoolDriver

SECOND = 1_000_000_000

PROGRAM = """
import multiprocessing, os, sys, time
from nicety.scheduler.executor import Executor
def work(seconds):
    began = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - began
def begin():
    if os.path.exists(os.environ["NICETY_RUN_DIR"] + "/broken"):
        raise RuntimeError("cannot begin")
executor = Executor(6, multiprocessing.get_context("fork"), begin, name=sys.argv[1])
executor.submit(work, 0).result()
print("ready", flush=True)
results = []
for line in sys.stdin:
    command, *numbers = line.split()
    if command == "tasks":
        results += [executor.submit(work, float(numbers[1])) for _ in range(int(numbers[0]))]
        continue
    if command == "resize":
        executor.resize(int(numbers[0]))
    if command == "size":
        print(executor.size, len(executor._processes), flush=True)
        continue
    if command == "results":
        spent = [future.result() for future in results]
        print(len(spent), sum(spent), flush=True)
        continue
    if command == "shutdown":
        executor.shutdown()
    print("done", flush=True)
"""


class Program:
    def __init__(self, name: str, folder: Path) -> None:
        environ = {**os.environ, "NICETY_RUN_DIR": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        )
        assert self.answer() == "ready"

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, command: str) -> str:
        self.tell(command)
        return self.answer()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with self.process:
            pass


@contextmanager
def running(name: str, folder: Path) -> Iterator[Program]:
    program = Program(name, folder)
    try:
        yield program
    finally:
        program.end()


def adapter(folder: Path, name: str = "features", executor: str = "", user: str = "") -> ExecutorPool:
    config = PoolConfig(kind="executor", executor=executor, user=user)
    clock = ShiftedClock(SystemClock(), sleeps=False)
    return ExecutorPool(name, config, clock, environ={"NICETY_RUN_DIR": str(folder)})


def until(pool: PoolAdapter, condition: Callable[[PoolSample], bool], seconds: float = 10.0) -> PoolSample:
    return PoolDriver(pool, SystemClock()).until(condition, seconds)


def pass_time(pool: ExecutorPool, seconds: int) -> None:
    assert isinstance(pool._clock, ShiftedClock)
    pool._clock.shift += seconds * SECOND


def test_load_is_measured(tmp_path: Path) -> None:
    pool = adapter(tmp_path)
    with running("features", tmp_path) as program:
        idle = until(pool, lambda s: s.size == 6 and all(w.busy == 0.0 for w in s.workers))
        assert idle.queued == 0
        assert idle.master is not None
        assert idle.master.pid == program.process.pid
        assert idle.start_seconds is not None
        assert 0 < idle.start_seconds < 5
        assert program.ask("resize 2") == "done"
        until(pool, lambda s: s.size == 2)
        program.tell("tasks 12 0.25")
        busy = until(pool, lambda s: len(s.workers) == 2 and all((w.busy or 0) > 0.9 for w in s.workers))
        assert busy.queued is not None
        assert busy.queued > 2
        program.tell("tasks 2 0.001")
        until(pool, lambda s: s.queued == 0 and all(w.busy == 0.0 for w in s.workers))
        board = pool.board
        assert board is not None
        assert board.finished == 15
        spent = float(program.ask("results").split()[1])  # on a busy machine more than the 3 s that were asked for
        assert spent < board.service_ns / SECOND < 1.1 * spent
        # Six rounds of two, each waits for those before it: 2 x 0.25 s x (0 + ... + 5), 2.5 times the 3 s of service. The last two
        # wait for what was left when they came: at most 2 x 3 s, twice the service.
        assert 2.4 < board.wait_ns / board.service_ns < 4.7
        assert board.lost == 0
    pool.close()


def test_a_size_is_asked_for_and_tasks_are_not_harmed(tmp_path: Path) -> None:
    pool = adapter(tmp_path)
    with running("features", tmp_path) as program:
        until(pool, lambda s: s.size == 6)
        program.tell("tasks 1500 0.005")
        for turn in range(25):
            size = 1 + turn * 5 % 6
            status, text = pool.resize(size)
            assert status in {Status.APPLIED, Status.UNCHANGED}, text
            until(pool, lambda s, size=size: s.requested == size, 3)  # type: ignore[misc]
        assert pool.resize(3)[0] is not Status.REFUSED
        until(pool, lambda s: s.size == s.requested == 3)
        assert program.ask("results").split()[0] == "1500"
        assert program.ask("size") == "3 3"
        assert pool.resize(7) == (Status.REFUSED, "7 is outside of what the program allows: minimum=1, max_workers=6")
        pool.close()
        assert program.ask("size") == "3 3", "without nicety the last size stays"


def test_an_executor_that_its_program_resizes_is_let_alone_for_a_minute(tmp_path: Path) -> None:
    pool = adapter(tmp_path)
    with running("features", tmp_path) as program:
        until(pool, lambda s: s.size == 6)
        assert program.ask("resize 4") == "done"
        sample = until(pool, lambda s: s.size == 4)
        assert "resized by its own program to 4 workers" in sample.trouble
        assert sample.requested == 4
        status, text = pool.resize(2)
        assert (status, text) == (Status.FOREIGN, sample.trouble)
        pass_time(pool, 61)
        pool.probe()
        assert pool.read().trouble == ""
        # our clock ran ahead, the executor's did not: it still keeps to its program's wish, and that is seen
        assert pool.resize(2)[0] is Status.APPLIED
        held = until(pool, lambda s: s.trouble != "")
        assert (held.size, held.requested) == (4, 4)
        assert program.ask("size") == "4 4"
    pool.close()


def test_a_program_that_ends_or_is_restarted(tmp_path: Path) -> None:
    pool = adapter(tmp_path)
    pool.probe()
    assert "no executor named 'features'" in pool.read().trouble
    pass_time(pool, 2)
    with running("features", tmp_path) as program:
        first = until(pool, lambda s: s.size == 6).master
        program.process.kill()
        gone = until(pool, lambda s: s.master is None)
        assert (gone.size, gone.workers, gone.queued) == (0, (), None)
        assert "has ended: start it again" in gone.trouble
        assert pool.resize(3) == (Status.REFUSED, gone.trouble)
    with running("features", tmp_path) as program:
        second = until(pool, lambda s: s.size == 6)
        assert second.master != first
        assert second.trouble == ""
        assert program.ask("shutdown") == "done"
        assert "was shut down" in until(pool, lambda s: s.master is None).trouble
    pool.close()


def test_of_two_executors_of_a_name_the_other_is_sized_when_the_first_ends(tmp_path: Path) -> None:
    pool = adapter(tmp_path)
    with running("features", tmp_path) as first, running("features", tmp_path) as second:
        until(pool, lambda s: s.size == 6)
        assert first.ask("resize 4") == "done"
        until(pool, lambda s: s.size == 4 and "resized by its own program" in s.trouble)
        first.process.kill()
        sample = until(pool, lambda s: s.master is not None and s.master.pid == second.process.pid)
        assert (sample.size, sample.requested, sample.trouble) == (6, 6, ""), (
            "what the first one's program wanted is its own matter"
        )
        assert pool.resize(3)[0] is Status.APPLIED
        until(pool, lambda s: s.size == s.requested == 3)
    pool.close()


def test_an_executor_that_breaks_is_said(tmp_path: Path) -> None:
    pool = adapter(tmp_path)
    with running("features", tmp_path) as program:
        workers = until(pool, lambda s: s.size == 6 and all(w.ready for w in s.workers)).workers
        (tmp_path / "broken").touch()
        os.kill(workers[0].id.pid, signal.SIGKILL)  # the one that takes its place cannot begin
        sample = until(pool, lambda s: s.master is None)
        assert f"executor 'features' of pid {program.process.pid} is broken (a worker's initializer failed" in sample.trouble
        assert pool.resize(3) == (Status.REFUSED, sample.trouble)
        assert program.process.poll() is None
    pool.close()


def test_a_program_that_is_stopped_is_said_not_to_react(tmp_path: Path) -> None:
    pool = adapter(tmp_path)
    with running("features", tmp_path) as program:
        until(pool, lambda s: s.size == 6)
        os.kill(program.process.pid, signal.SIGSTOP)
        try:
            assert pool.resize(2)[0] is Status.APPLIED
            pool.probe()
            assert pool.read().trouble == ""
            pass_time(pool, 6)
            pool.probe()
            sample = pool.read()
            assert "did not look at its board for 6 s" in sample.trouble
            assert pool.resize(3) == (Status.FAILED, sample.trouble)
        finally:
            os.kill(program.process.pid, signal.SIGCONT)
        until(pool, lambda s: s.size == s.requested == 2 and not s.trouble)
    pool.close()


def test_several_workers_are_recycled_one_after_the_other(tmp_path: Path) -> None:
    pool = adapter(tmp_path)
    with running("features", tmp_path) as program:
        old = [worker.id for worker in until(pool, lambda s: s.size == 6 and all(w.ready for w in s.workers)).workers]
        program.tell("tasks 300 0.01")
        for worker in old[:3]:
            assert pool.recycle(worker)[0] is Status.APPLIED
        sample = until(pool, lambda s: s.size == 6 and not {w.id for w in s.workers} & set(old[:3]))
        assert {w.id for w in sample.workers} >= set(old[3:])
        assert program.ask("results").split()[0] == "300"
    pool.close()


def test_the_right_one_of_several_executors_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running("features", tmp_path) as oldest, running("other", tmp_path), running("features", tmp_path):
        pool = adapter(tmp_path, "pool", executor="features")
        with caplog.at_level("WARNING"):
            sample = until(pool, lambda s: s.size == 6)
        assert sample.master is not None
        assert sample.master.pid == oldest.process.pid
        assert "1 more executors are named 'features'" in caplog.text
        pool.close()


def test_processes_of_others_are_not_believed_to_be_workers(tmp_path: Path) -> None:
    """A board may claim anything: pid 1 is no worker of a user's executor."""
    with running("features", tmp_path) as program:
        pool = adapter(tmp_path)
        until(pool, lambda s: s.size == 6)
        attached = pool._attached
        assert attached is not None
        attached.uid = 12345  # as if the board were this user's, and its workers root's or ours
        pool._known.clear()
        sample = pool.read()
        assert (sample.size, sample.workers) == (0, ())
        assert sample.master is not None
        assert sample.master.pid == program.process.pid
        pool.close()


def test_the_configuration_makes_it(tmp_path: Path) -> None:
    config = parse('[pools.jobs]\nkind = "executor"\nexecutor = "features"\n')
    (pool,) = build(config, SystemClock(), state_dir=tmp_path, environ={"NICETY_RUN_DIR": str(tmp_path)}).values()
    assert isinstance(pool, ExecutorPool)
    with running("features", tmp_path):
        until(pool, lambda s: s.pool == "jobs" and s.size == 6)
    pool.close()
    with pytest.raises(ConfigError, match="at least one worker"):
        parse('[pools.jobs]\nkind = "executor"\nminimum = 0\n')
    assert Config().pools == {}


def test_a_user_that_does_not_exist_is_said(tmp_path: Path) -> None:
    pool = adapter(tmp_path, user="nobody-of-this-name")
    pool.probe()
    assert "there is no user 'nobody-of-this-name'; correct pools.features.user" in pool.read().trouble
    pool.close()
