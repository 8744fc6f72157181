"""The topology that is read is the one that the machine was given: 8 CPUs in two sockets and nodes, with or without SMT."""

from __future__ import annotations

import os

from bench import offline

from nicety.scheduler.read import topology

SOCKETS = ((0, 1, 2, 3), (4, 5, 6, 7))
CORES = {
    "cores": ((0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,)),
    "smt": ((0, 1), (2, 3), (4, 5), (6, 7)),
}


def test_sockets_cores_caches_and_nodes_are_those_of_the_machine() -> None:
    found = topology.read()
    assert found.online == found.allowed == tuple(range(8))
    assert found.isolated == ()
    assert found.cores == CORES[os.environ["NICETY_VM_LAYOUT"]]
    assert found.caches == SOCKETS
    assert found.nodes == SOCKETS


def test_a_cpu_that_is_unplugged_is_in_no_group_and_comes_back() -> None:
    whole = topology.read()
    with offline(5):
        found = topology.read()
        assert found.online == found.allowed == (0, 1, 2, 3, 4, 6, 7)
        for groups in (found.cores, found.caches, found.nodes):
            assert sorted(cpu for group in groups for cpu in group) == [0, 1, 2, 3, 4, 6, 7]
        assert found.nodes == ((0, 1, 2, 3), (4, 6, 7))
    assert topology.read() == whole


def test_a_node_whose_cpus_are_all_unplugged_is_not_there() -> None:
    with offline(4, 5, 6, 7):
        found = topology.read()
        assert found.online == (0, 1, 2, 3)
        assert found.nodes == found.caches == ((0, 1, 2, 3),)
    assert topology.read().nodes == SOCKETS
