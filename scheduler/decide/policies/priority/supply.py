"""Which groups can help a victim: what it lacks, what a demotion can free, and whether its neighbours are to blame at all. Pure.

A demotion frees at most the CPU that the demoted group would use. If that is a small part of what the victim lacks, something else
takes the CPU: a process that nicety cannot see, the hypervisor, or a quota of the victim's own cgroup. Then nothing is demoted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....decision import Group, Machine

WAIT_FLOOR = 0.005
"""Cores waited for below which a wait is noise: 5 ms per second, whatever share of the demand that is (chosen)."""

LEAST_FREED = 0.05
"""Cores (chosen): a group that uses less cannot be what another one suffers from."""

TOGETHER = 0.5
"""Share of what a victim lacks that all demotions together must be able to supply (chosen)."""

ALONE = 0.1
"""Share that each group must be able to supply: of what a victim lacks, or of what the largest group can supply, whichever is less
(chosen): twenty groups of a tenth of a core count together, a bystander beside a hog does not."""

UNSEEN, SEEN_AGAIN = 0.5, 0.4
"""Pressure is unseen from the first of these shares of what others than the protected groups take, until the second (chosen)."""

LEAST_UNSEEN, LEAST_UNSEEN_STILL = 0.25, 0.2
"""Cores that must be unseen or stolen as well, at first and later (chosen: less cannot keep a service waiting for long)."""

FULL, FULL_STILL = 0.75, 0.6
"""Unseen work is pressure only from the first of these shares of the CPUs in use or stolen, until the second (chosen)."""

QUOTA = 0.5
"""Share of a group's wait that its own quota must explain: below it, the group may be a victim of its neighbours (chosen)."""


def wait_share(group: Group) -> float:
    """Share of the time a group wanted a CPU that it spent waiting for one; 0 for a group that wants next to nothing."""
    wanted = group.cpu + group.wait
    return group.wait / wanted if wanted >= WAIT_FLOOR else 0.0


def lacks(group: Group, cpus: int) -> float:
    """Cores that others must free so that the group need not wait: what it waits for, at most the CPUs that it does not have.

    While a thread waits, another one has its CPU: a contender that uses less than this cannot be the only cause. Threads that wait
    for each other count at most the rest of the CPUs. The extra work done without the wait (`Group.demand`) does not matter here.
    """
    return max(0.0, min(group.wait, cpus - group.cpu))


def foreseen_use(group: Group, soon: float, machine: Machine) -> float:
    """Cores that a group will use if its demand becomes `soon`: at most what it has now plus what is idle. It would have to take
    more from others first."""
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


def apart(victim: Group, contender: Group) -> bool:
    """Whether the two never compete: every process of both is bound to CPUs, and none of them to one of the other's."""
    theirs, ours = _bound(contender), _bound(victim)
    return theirs is not None and ours is not None and theirs.isdisjoint(ours)


def _bound(group: Group) -> set[int] | None:
    """CPUs that its members may use; None: at least one may use all, or it is unknown."""
    found = set[int]()
    for member in group.members:
        if not member.cpus:
            return None
        found.update(member.cpus)
    return found or None


def throttled(group: Group) -> bool:
    """Whether the group's own quota explains its wait.

    While a cgroup is stopped, all its runnable threads wait: cpu + wait of them on average, but at least one, because only what
    wants to run is stopped. So the quota's part is that number times the stopped share of the tick.
    """
    return group.wait > WAIT_FLOOR and group.throttled * max(1.0, group.cpu + group.wait) >= QUOTA * group.wait


def others(machine: Machine, protected: Sequence[Group]) -> float:
    """Cores that others than the protected groups take, including what the hypervisor took."""
    return max(0.0, machine.busy + machine.steal - sum(group.cpu for group in protected))


def unseen(machine: Machine, protected: Sequence[Group], before: bool) -> bool:
    """Whether most of the pressure on the protected groups comes from processes that nicety cannot see. `before`: whether it did a
    tick ago."""
    part, least, full = (SEEN_AGAIN, LEAST_UNSEEN_STILL, FULL_STILL) if before else (UNSEEN, LEAST_UNSEEN, FULL)
    hidden = machine.unseen + machine.steal
    pressed = machine.busy + machine.steal >= full * machine.cpus
    return pressed and hidden >= least and hidden >= part * others(machine, protected)
