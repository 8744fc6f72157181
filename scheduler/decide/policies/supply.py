"""Who can help whom: what a victim lacks, what a demotion can free, and whether the neighbours are to blame at all. Pure.

A demotion frees at most the CPU that the demoted would use. Where that is a small part of what the victim lacks, somebody else
takes it: a process that nicety cannot see, the hypervisor, or a quota of the victim's own cgroup. Then nobody is demoted for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...decision import Group, Machine

WAIT_FLOOR = 0.005
"""Cores. 5 ms of waiting a second are noise, whatever share of the demand they are."""

LEAST_FREED = 0.05
"""Cores (chosen): a group that uses less cannot be what another one suffers from."""

TOGETHER = 0.5
"""Share of what a victim lacks that all demotions together must be able to supply (chosen)."""

ALONE = 0.1
"""Share of what a victim lacks that each must be able to supply, or of what the largest of them can, whichever is less (chosen):
twenty groups of a tenth of a core count together, a bystander beside a hog does not."""

UNSEEN, SEEN_AGAIN = 0.5, 0.4
"""Share of what others than the protected groups take, from which the pressure counts as unseen, and until which (chosen)."""

LEAST_UNSEEN, LEAST_UNSEEN_STILL = 0.25, 0.2
"""Cores that must be unseen or stolen for that, at first and later (chosen: less cannot keep a service waiting for long)."""

FULL, FULL_STILL = 0.75, 0.6
"""Share of the CPUs in use or stolen, from which unseen work is pressure at all, and until which it stays so (chosen)."""

QUOTA = 0.5
"""Share of a group's wait that its own quota must explain for the group to be no victim of neighbours (chosen)."""


def lacks(group: Group, cpus: int) -> float:
    """Cores that others must give up for the group not to wait: what it waits for, at most the CPUs that it does not have.

    While a thread waits others have its CPU: whoever uses less than is waited for cannot be all of them. Threads that wait for each
    other count at most the rest of the CPUs. How much more work would be done without the wait (`Group.demand`) says nothing here.
    """
    return max(0.0, min(group.wait, cpus - group.cpu))


def foreseen_use(group: Group, soon: float, machine: Machine) -> float:
    """Cores that a group will use if its demand becomes `soon`: what it has now and what is idle, for more it must first take."""
    idle = max(0.0, machine.cpus - machine.busy)
    return max(0.0, min(soon, float(machine.cpus), group.cpu + idle))


def helpers(frees: Mapping[str, float], lacking: float) -> tuple[frozenset[str], float]:
    """(groups whose demotion can supply a good part of `lacking` cores, what all of them can free together).

    >>> helpers({"hogs": 1.6, "bystander": 0.054}, 1.9)
    (frozenset({'hogs'}), 1.6)
    >>> helpers({"bystander": 0.054}, 1.9)
    (frozenset(), 0.0)
    """
    if lacking <= 0.0 or not frees:
        return frozenset(), 0.0
    least = max(LEAST_FREED, ALONE * min(lacking, max(frees.values())))
    able = {name: cores for name, cores in frees.items() if cores >= least}
    together = sum(able.values())
    return (frozenset(able), together) if together >= TOGETHER * lacking else (frozenset(), 0.0)


def throttled(group: Group) -> bool:
    """Whether its own quota explains what the group waits for.

    While a cgroup is stopped all its runnable threads wait: cpu + wait of them on average, but at least one, for only what wants to
    run is stopped. So a share of that is the quota's.
    """
    return group.wait > WAIT_FLOOR and group.throttled * max(1.0, group.cpu + group.wait) >= QUOTA * group.wait


def others(machine: Machine, protected: Sequence[Group]) -> float:
    """Cores that are taken by others than the protected groups, with what the hypervisor took."""
    return max(0.0, machine.busy + machine.steal - sum(group.cpu for group in protected))


def unseen(machine: Machine, protected: Sequence[Group], before: bool) -> bool:
    """Whether most of the pressure on the protected groups comes from nobody visible. `before`: whether it did a tick ago."""
    part, least, full = (SEEN_AGAIN, LEAST_UNSEEN_STILL, FULL_STILL) if before else (UNSEEN, LEAST_UNSEEN, FULL)
    hidden = machine.unseen + machine.steal
    pressed = machine.busy + machine.steal >= full * machine.cpus
    return pressed and hidden >= least and hidden >= part * others(machine, protected)
