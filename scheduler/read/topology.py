"""Which CPUs exist and what they share: cores, caches, memory nodes. Read once; must not know what uses them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..decision import Topology
from ..hands.places import parse_cpu_list


def read(sys_root: Path = Path("/sys"), allowed: Iterable[int] | None = None) -> Topology:
    """The topology below `sys_root`. `allowed`: CPUs that may be used; None asks the kernel for this process.

    What sysfs does not report (virtual machines, containers) is assumed as far as is safe: every CPU is a core of its own, all CPUs
    of a package share one cache, and all CPUs are one node.
    """
    if allowed is None:
        if not hasattr(os, "sched_getaffinity"):  # macOS, FreeBSD: nothing is known, so nothing is placed
            return Topology()
        allowed = os.sched_getaffinity(0)
    cpus, may = sys_root / "devices/system/cpu", set(allowed)
    online = _cpu_list(cpus / "online") or tuple(sorted(may))
    present = set(online)
    node_directory = sys_root / "devices/system/node"
    nodes = [_cpu_list(node_directory / f"node{node}/cpulist") for node in _cpu_list(node_directory / "online")]
    return Topology(
        online=online,
        allowed=tuple(cpu for cpu in online if cpu in may),
        isolated=tuple(cpu for cpu in _cpu_list(cpus / "isolated") if cpu in present),
        cores=_partition(online, [_siblings(cpus / f"cpu{cpu}", cpu) for cpu in online]),
        caches=_partition(online, _caches(cpus, online)),
        nodes=_partition(online, nodes or [online]),
    )


def _cpu_list(path: Path) -> tuple[int, ...]:
    """The list in a file; () if it is missing or empty."""
    return parse_cpu_list(_text(path))


def _siblings(directory: Path, cpu: int) -> tuple[int, ...]:
    topology = directory / "topology"
    return _cpu_list(topology / "core_cpus_list") or _cpu_list(topology / "thread_siblings_list") or (cpu,)


def _caches(cpus: Path, online: tuple[int, ...]) -> list[tuple[int, ...]]:
    """For each CPU, those that share its highest data cache above level 2, else its package."""
    packages: dict[str, list[int]] = {}
    for cpu in online:
        packages.setdefault(_text(cpus / f"cpu{cpu}/topology/physical_package_id"), []).append(cpu)
    shared = []
    for cpu in online:
        levels = []
        for index in sorted((cpus / f"cpu{cpu}/cache").glob("index*")):
            level, members = _text(index / "level"), _cpu_list(index / "shared_cpu_list")
            if level.isdigit() and int(level) >= 3 and members:
                levels.append((int(level), members))
        package = packages[_text(cpus / f"cpu{cpu}/topology/physical_package_id")]
        shared.append(max(levels)[1] if levels else tuple(package))
    return shared


def _partition(online: tuple[int, ...], groups: list[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """`groups` without duplicates and offline CPUs; a CPU that is in none becomes a group of its own."""
    rest = set(online)
    parts = []
    for group in [*groups, *((cpu,) for cpu in online)]:
        part = tuple(sorted(rest.intersection(group)))
        if part:
            parts.append(part)
            rest.difference_update(part)
    return tuple(sorted(parts))


def _text(path: Path) -> str:
    """The stripped text of a file, "" if it cannot be read: sysfs leaves out what it does not know."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
