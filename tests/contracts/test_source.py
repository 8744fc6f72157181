"""What every `ports.Source` promises. A source is run beside a helper that starts and ends processes in its world."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Known, PoolSample, SampleTable, Snapshot, Trait, WorkerSample
from nicety.scheduler.ports import Source
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.psutil_reader import PsutilSource

COUNTERS = (
    *("cpu_ns", "wait_ns", "timeslices", "minor_faults", "major_faults", "child_faults", "child_cpu_ns"),
    *("read_chars", "write_chars", "read_bytes", "write_bytes"),
)


class World(Protocol):
    """What a source reads, as far as a test must move it."""

    knows: Known
    """What the source reads of a process that is ours."""

    @property
    def source(self) -> Source:
        """The source under test."""
        ...

    def start(self) -> int:
        """Pid of a new process."""
        ...

    def end(self, pid: int) -> None:
        """End a process that `start` made. Returns when it is gone."""
        ...

    def now(self) -> int:
        """Monotonic ns."""
        ...

    def close(self) -> None:
        """End everything."""
        ...


class RealWorld:
    """This machine."""

    def __init__(self, source: Source, knows: Known) -> None:
        self.source, self.knows = source, knows
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> int:
        child = subprocess.Popen(["sleep", "60"])
        self._children[child.pid] = child
        return child.pid

    def end(self, pid: int) -> None:
        child = self._children.pop(pid)
        child.kill()
        child.wait()

    def now(self) -> int:
        return time.monotonic_ns()

    def close(self) -> None:
        for pid in list(self._children):
            self.end(pid)
        self.source.close()


EVERYTHING = Known.WAIT | Known.IO | Known.FDS | Known.SOCKETS | Known.KEYS
WORLDS: dict[str, Callable[[], World]] = {
    "proc": lambda: RealWorld(ProcSource(), EVERYTHING),
    "psutil": lambda: RealWorld(PsutilSource(), Known.IO | Known.FDS),
}
HELD: dict[Known, tuple[str, ...]] = {
    Known.WAIT: ("wait_ns", "timeslices"),
    Known.IO: ("read_chars", "write_chars", "read_bytes", "write_bytes"),
    Known.FDS: ("fds",),
}
"""Columns that a bit of `known` speaks for."""

SEEN = {Known.SOCKETS: Trait.SERVES | Trait.SERVES_LOCALLY | Trait.HAS_WINDOW, Known.KEYS: Trait.READS_KEYSTROKES}
"""Traits that it speaks for."""


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = WORLDS[request.param]()
    yield world
    world.close()


def read(world: World, pools: tuple[PoolSample, ...] = ()) -> Snapshot:
    return world.source.read(world.now(), 1_700_000_000_000_000_000, pools)


def find(snapshot: Snapshot, pid: int) -> list[ProcId]:
    return [id_ for id_ in snapshot.identities if id_.pid == pid]


def test_a_table_has_each_process_once_in_order_and_an_identity_for_each(world: World) -> None:
    started = {world.start() for _ in range(5)}
    for _ in range(3):
        snapshot = read(world)
        keys = [ProcId(*key) for key in snapshot.table[["pid", "start_ticks"]].tolist()]
        assert snapshot.table.dtype == SAMPLE
        assert keys == sorted(set(keys))
        assert set(snapshot.identities) == set(keys)
        assert started <= {key.pid for key in keys}


def test_what_was_given_is_passed_on(world: World) -> None:
    pid = world.start()
    (id_,) = find(read(world), pid)
    pools = (PoolSample("web", 1, 1, 0.0, (WorkerSample(id_, 0.5, True),), None, None, ""),)
    at = world.now()
    snapshot = world.source.read(at, 7, pools)
    assert (snapshot.at, snapshot.wall, snapshot.pools) == (at, 7, pools)


def test_a_process_comes_and_goes(world: World) -> None:
    pid = world.start()
    assert len(find(read(world), pid)) == 1
    world.end(pid)
    assert find(read(world), pid) == []


def test_what_starts_between_two_reads_started_at_or_after_the_first(world: World) -> None:
    before = read(world)
    pid = world.start()
    (id_,) = find(read(world), pid)
    assert id_.start_ticks >= before.uptime_ticks
    assert id_.start_ticks <= read(world).uptime_ticks


def test_counters_of_a_process_never_go_back(world: World) -> None:
    world.start()
    before = read(world).table
    for _ in range(12):
        after = read(world).table
        _, left, right = np.intersect1d(_keys(before), _keys(after), assume_unique=True, return_indices=True)
        assert len(left) > 0
        for name in COUNTERS:
            assert (after[name][right] >= before[name][left]).all(), name
        lost = before["known"][left] & ~after["known"][right] & int(Known.WAIT)
        assert not lost.any()
        before = after


def _keys(table: SampleTable) -> NDArray[np.uint64]:
    return np.asarray((table["pid"].astype(np.uint64) << np.uint64(40)) | table["start_ticks"])


def test_what_is_not_known_is_marked_and_zero(world: World) -> None:
    pid = world.start()
    table = read(world).table
    (own,) = table[table["pid"] == pid]
    assert Known(own["known"]) == world.knows
    for bit, columns in HELD.items():
        unknown = table[(table["known"] & int(bit)) == 0]
        assert all((unknown[name] == 0).all() for name in columns), bit
    for bit, traits in SEEN.items():
        assert (table["traits"][(table["known"] & int(bit)) == 0] & int(traits) == 0).all(), bit


def test_workers_of_a_pool_are_read_like_others(world: World) -> None:
    pid = world.start()
    (id_,) = find(read(world), pid)
    gone = ProcId(id_.pid, id_.start_ticks + 1)  # a worker that the pool still has on its list
    pools = (PoolSample("web", 1, 1, None, (WorkerSample(gone, None, False),), gone, None, ""),)
    assert find(read(world, pools), pid) == [id_]


def test_the_machine_is_plausible(world: World) -> None:
    first, second = read(world).host, read(world).host
    assert len(first.cpu_busy_ns) >= 1
    assert all(before <= after for before, after in zip(first.cpu_busy_ns, second.cpu_busy_ns, strict=True))
    assert 0 < first.memory_available <= first.memory_total
    assert 0 <= first.steal_ns <= second.steal_ns
    assert 0 <= first.kernel_ns <= second.kernel_ns


def test_quotas_are_of_cgroups_that_processes_are_in_or_below(world: World) -> None:
    world.start()
    snapshot = read(world)
    homes = [f"{identity.cgroup.rstrip('/')}/" for identity in snapshot.identities.values()]
    names = [quota.cgroup for quota in snapshot.quotas]
    assert names == sorted(set(names))
    assert all(any(home.startswith(f"{name.rstrip('/')}/") for home in homes) for name in names)
    assert all(quota.throttled_ns >= 0 for quota in snapshot.quotas)


def test_names_are_printable(world: World) -> None:
    world.start()
    for identity in read(world).identities.values():
        assert all(text.isprintable() for text in (identity.comm, identity.program, identity.cgroup, identity.unit))
        assert identity.program
        assert identity.cgroup.startswith("/")


def test_others_have_their_turn_while_it_reads_and_what_they_raise_comes_through(world: World) -> None:
    pid = world.start()
    calls = []
    snapshot = world.source.read(world.now(), 7, (), lambda: calls.append(1))
    assert calls
    assert len(find(snapshot, pid)) == 1

    def interrupt() -> None:
        raise PermissionError("not the reader's")

    with pytest.raises(PermissionError, match="not the reader's"):
        world.source.read(world.now(), 7, (), interrupt)
    assert len(find(read(world), pid)) == 1


def test_close_may_be_called_twice(world: World) -> None:
    read(world)
    world.source.close()
    world.source.close()
