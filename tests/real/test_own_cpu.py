"""The daemon's own CPU as the kernel has it: which one this thread runs on, out of a service's way, and what its helpers used."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.service.own.cost import Helpers, resident_bytes
from nicety.scheduler.service.own.cpu import MOST, stand_aside
from nicety.scheduler.testing.puppet import proc_id

CPUS = sorted(os.sched_getaffinity(0))

two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="there is no other CPU")


def here() -> int:
    return int(ctypes.CDLL(None).sched_getcpu())


@pytest.fixture
def pinned() -> Iterator[list[ProcId]]:
    """A process for each CPU that has run on that one alone."""
    code = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True); sys.stdin.read()"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(cpu)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for cpu in CPUS
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    yield [proc_id(process.pid) for process in started]
    for process in started:
        process.communicate()


@pytest.fixture
def at() -> Iterator[int]:
    """This thread runs on the first CPU, and may use all."""
    os.sched_setaffinity(0, CPUS[:1])
    os.sched_setaffinity(0, CPUS)
    yield CPUS[0]
    os.sched_setaffinity(0, CPUS)


@two_cpus
def test_it_leaves_the_cpu_that_a_service_ran_on_and_may_use_it_again(pinned: list[ProcId], at: int) -> None:
    stand_aside(pinned[:1])
    assert here() != at
    assert sorted(os.sched_getaffinity(0)) == CPUS


@two_cpus
@pytest.mark.parametrize("allowed", [CPUS[:1], CPUS[:2]], ids=["pinned itself", "both taken"])
def test_it_stays_where_it_may_use_no_other(pinned: list[ProcId], at: int, allowed: list[int]) -> None:
    os.sched_setaffinity(0, allowed)
    stand_aside(pinned[: len(allowed)])
    assert here() in allowed
    assert sorted(os.sched_getaffinity(0)) == allowed


@two_cpus
def test_nobody_or_somebody_who_is_gone_moves_nothing(pinned: list[ProcId], at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    moved: list[object] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda *arguments: moved.append(arguments))
    for services in ((), [ProcId(gone.pid, 1)], [*[ProcId(gone.pid, 1)] * MOST, *pinned]):
        stand_aside(services)
    assert moved == []
    monkeypatch.undo()


def test_helpers_cost_what_they_used_since_they_help_also_after_their_end() -> None:
    code = "import time\nfor until in (0.05, 0.1):\n while time.process_time() < until: pass\n print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        helpers = Helpers([child.pid])
        assert helpers.cpu_ns() < 40_000_000
        assert 1 << 20 < helpers.resident_bytes() < resident_bytes()
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        used = helpers.cpu_ns()
        assert 40_000_000 < used < 100_000_000
        child.kill()
        child.wait()
        assert helpers.cpu_ns() >= used
        assert helpers.resident_bytes() == 0
