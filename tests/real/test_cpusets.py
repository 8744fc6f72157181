"""Affinities in a real cpuset that shrinks and grows: what undo gives back. The whole of cgroup v2 is in tests/vm."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nicety.scheduler.decision import Set
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.testing.bench import Bench
from nicety.scheduler.testing.puppet import Puppet

CPUSET = find(Path("/proc/self/mountinfo").read_text()).cpuset
ALL = tuple(sorted(os.sched_getaffinity(0)))

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="making a cgroup needs root"),
    pytest.mark.skipif(CPUSET is None, reason="this machine has no cgroup v1 cpuset hierarchy"),
    pytest.mark.skipif(len(ALL) < 2, reason="needs two CPUs"),
]


class Place:
    """A cpuset of the test's own with a process in it."""

    def __init__(self, directory: Path, puppet: Puppet) -> None:
        self.directory, self.puppet = directory, puppet
        (directory / "cpuset.mems").write_text((directory.parent / "cpuset.mems").read_text())
        self.size(*ALL)
        (directory / "cgroup.procs").write_text(str(puppet.pid))

    def size(self, *cpus: int) -> None:
        (self.directory / "cpuset.cpus").write_text(",".join(map(str, cpus)))

    def affinity(self) -> tuple[int, ...]:
        return tuple(sorted(os.sched_getaffinity(self.puppet.pid)))


@pytest.fixture
def place() -> Iterator[Place]:
    assert CPUSET is not None
    directory = Path(CPUSET.point) / f"nicety-cpuset-{os.getpid()}"
    directory.mkdir()
    puppet = Puppet()
    try:
        yield Place(directory, puppet)
    finally:
        puppet.close()
        deadline = time.monotonic() + 5
        while directory.exists() and time.monotonic() < deadline:
            with suppress(OSError):  # it ends in a moment
                directory.rmdir()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path / "state") as made:
        yield made


@pytest.mark.parametrize("undo_while_small", [True, False])
def test_an_affinity_comes_back_whole_though_the_cpuset_shrank_and_grew(place: Place, bench: Bench, undo_while_small: bool) -> None:
    (outcome,) = bench.apply(Set(Control.AFFINITY, ProcessPlace(place.puppet.id), ALL[1:]))
    assert outcome.status is Status.APPLIED, outcome
    place.size(ALL[0])
    assert place.affinity() == ALL[:1]
    assert bench.actuator.settle() == (), "taken for somebody else's change"
    if undo_while_small:
        assert [it.status for it in bench.actuator.undo()] == [Status.APPLIED]
        assert place.affinity() == ALL[:1]
    place.size(*ALL)
    bench.actuator.undo()
    assert place.affinity() == ALL
    assert bench.ledger.outstanding() == ()
