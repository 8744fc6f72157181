"""CPUs and what they share, on trees in the form of sysfs, and here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicety.scheduler.decision import Topology
from nicety.scheduler.hands.places import parse_cpu_list
from nicety.scheduler.read.topology import read


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def two_sockets(root: Path) -> None:
    """8 CPUs: two nodes of two cores and one L3 each, SMT siblings n and n + 4."""
    cpus = root / "devices/system/cpu"
    write(cpus / "online", "0-7")
    write(cpus / "isolated", "")
    for cpu in range(8):
        node = cpu % 4 // 2
        write(cpus / f"cpu{cpu}/topology/core_cpus_list", f"{cpu % 4},{cpu % 4 + 4}")
        write(cpus / f"cpu{cpu}/topology/physical_package_id", str(node))
        write(cpus / f"cpu{cpu}/cache/index0/level", "1")
        write(cpus / f"cpu{cpu}/cache/index0/shared_cpu_list", f"{cpu % 4},{cpu % 4 + 4}")
        write(cpus / f"cpu{cpu}/cache/index3/level", "3")
        write(cpus / f"cpu{cpu}/cache/index3/shared_cpu_list", f"{2 * node}-{2 * node + 1},{2 * node + 4}-{2 * node + 5}")
    write(root / "devices/system/node/online", "0-1")
    write(root / "devices/system/node/node0/cpulist", "0-1,4-5")
    write(root / "devices/system/node/node1/cpulist", "2-3,6-7")


def test_two_sockets_with_smt(tmp_path: Path) -> None:
    two_sockets(tmp_path)
    assert read(tmp_path, allowed=[0, 1, 2, 99]) == Topology(
        online=tuple(range(8)),
        allowed=(0, 1, 2),
        isolated=(),
        cores=((0, 4), (1, 5), (2, 6), (3, 7)),
        caches=((0, 1, 4, 5), (2, 3, 6, 7)),
        nodes=((0, 1, 4, 5), (2, 3, 6, 7)),
    )


def test_offline_and_isolated_cpus(tmp_path: Path) -> None:
    two_sockets(tmp_path)
    write(tmp_path / "devices/system/cpu/online", "0-2,5")
    write(tmp_path / "devices/system/cpu/isolated", "2,7")
    got = read(tmp_path, allowed=range(8))
    assert got.online == got.allowed == (0, 1, 2, 5)
    assert got.isolated == (2,)
    assert got.cores == ((0,), (1, 5), (2,))
    assert got.caches == got.nodes == ((0, 1, 5), (2,))


def test_a_machine_that_tells_only_packages(tmp_path: Path) -> None:
    write(tmp_path / "devices/system/cpu/online", "0-3")
    for cpu in range(4):
        write(tmp_path / f"devices/system/cpu/cpu{cpu}/topology/physical_package_id", str(cpu // 2))
    got = read(tmp_path, allowed=range(4))
    assert got.cores == ((0,), (1,), (2,), (3,))
    assert got.caches == ((0, 1), (2, 3))
    assert got.nodes == ((0, 1, 2, 3),)


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    got = read(tmp_path, allowed=[1, 3])
    assert got == Topology((1, 3), (1, 3), (), ((1,), (3,)), ((1, 3),), ((1, 3),))


def test_every_online_cpu_of_this_machine_is_in_each_grouping_once() -> None:
    got = read()
    assert set(got.allowed) == os.sched_getaffinity(0)
    for groups in (got.cores, got.caches, got.nodes):
        assert sorted(cpu for group in groups for cpu in group) == list(got.online)


@given(st.sets(st.integers(0, 300)))
def test_a_list_of_cpus_is_read_as_the_kernel_writes_it(cpus: set[int]) -> None:
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    text = ",".join(f"{first}-{last}" if last > first else str(first) for first, last in parts)
    assert parse_cpu_list(text + "\n") == tuple(sorted(cpus))


def test_a_list_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="x"):
        parse_cpu_list("0-x")
