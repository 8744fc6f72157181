"""The example of docs/write-an-adapter.md works, as it stands there."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.ports import PoolAdapter

PAGE = Path(__file__).parents[3] / "docs" / "write-an-adapter.md"
SUITE = Path(__file__).parents[2] / "contracts" / "test_pools.py"


class Program:
    """The program of the example: it keeps its list of workers, the test changes their number for it."""

    def __init__(self, folder: Path) -> None:
        self.wanted, self.pids = folder / "wanted", folder / "pids"
        self.workers: list[subprocess.Popen[bytes]] = []
        (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        names: dict[str, type] = {}
        exec(compile(code, str(PAGE), "exec"), names)
        self.pool: PoolAdapter = names["FilePool"]("files", self.wanted, self.pids)

    def has(self, *commands: list[str]) -> None:
        self.end()
        self.workers = [subprocess.Popen(command) for command in commands]
        self.pids.write_text("".join(f"{worker.pid}\n" for worker in self.workers), encoding="ascii")

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.workers = []


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    program.pool.close()
    program.end()


SLEEP, SPIN = ["sleep", "1000"], ["sh", "-c", "while :; do :; done"]


def test_the_example_sees_its_workers_and_what_they_do(program: Program) -> None:
    assert "start the program" in program.pool.read().trouble
    program.has(SLEEP, SPIN)
    deadline = time.monotonic() + 10
    while True:  # both have to become what they are first
        for _ in range(4):
            program.pool.probe()
            time.sleep(0.005)
        sample = program.pool.read()
        busy = {worker.id.pid: worker.busy for worker in sample.workers}
        if busy == {program.workers[0].pid: 0.0, program.workers[1].pid: 1.0}:
            break
        assert time.monotonic() < deadline, sample
    assert (sample.pool, sample.size, sample.requested, sample.queued, sample.trouble) == ("files", 2, 2, None, "")


def test_the_example_asks_for_a_size_and_yields_to_a_hand(program: Program) -> None:
    program.has(SLEEP)
    program.pool.read()
    assert program.pool.resize(0)[0] is Status.REFUSED
    assert program.pool.resize(1)[0] is Status.UNCHANGED
    assert program.pool.resize(3) == (Status.APPLIED, "asked for 3 workers, 1 before")
    assert program.wanted.read_text(encoding="ascii") == "3\n"
    program.has(SLEEP, SLEEP, SLEEP)
    sample = program.pool.read()
    assert (sample.size, sample.requested) == (3, 3)
    program.wanted.write_text("2\n", encoding="ascii")
    for _ in range(3):
        program.pool.probe()
        sample = program.pool.read()
        assert "changed by somebody else: hands off" in sample.trouble
    assert sample.requested == 3, "what is there; nobody's old wish"
    assert program.pool.resize(3)[0] is Status.REFUSED
    assert program.wanted.read_text(encoding="ascii") == "2\n"


def test_the_example_recycles_nobody(program: Program) -> None:
    program.has(SLEEP)
    worker = program.pool.read().workers[0].id
    assert program.pool.recycle(worker)[0] is Status.REFUSED
    assert program.pool.recycle(ProcId(worker.pid, 1))[0] is Status.VANISHED


def test_the_checklist_names_each_test_of_the_contract_suite() -> None:
    tests = set(re.findall(r"^def test_(\w+)\(", SUITE.read_text(encoding="utf-8"), re.MULTILINE))
    assert tests
    listed = set(re.findall(r"`([a-z_]{20,})`", PAGE.read_text(encoding="utf-8").split("## The checklist")[1]))
    assert tests == listed
