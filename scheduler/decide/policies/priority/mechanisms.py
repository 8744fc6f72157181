"""Controls that lower processes at one place against those at another. Pure: a table of what Linux separates by what.

Measured (`benchmarks/latency/beside_batch.py`, conditions "nice 19"): the nice of a process counts only within its autogroup or
cgroup, the nice of an autogroup only among those of the root cgroup, the weight of a cgroup only among its siblings. Inside one
cgroup a weight separates best too if the work is a swarm: that of a child cgroup made for the purpose (a fence).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import pairwise

from .....models.identity import ProcId
from ....cgroup_paths import ROOT, ancestors
from ....decision import Machine, Member
from ....hands.places import Control
from ...tenants import Barred

Place = tuple[str, int]
"""Where a process stands: (path in the cpu hierarchy, session)."""

Step = tuple[Control, str]
"""A control, and the cgroup to set it on; "" for a control of processes or sessions."""

SCHED_IDLE = 5
"""Number of the policy in sched_setscheduler(2), include/uapi/linux/sched.h."""

DEFAULT: dict[Control, int] = {
    Control.NICE: 0,
    Control.AUTOGROUP: 0,
    Control.POLICY: 0,
    Control.CPU_SHARES: 1024,
    Control.CPU_WEIGHT: 100,
    Control.CPU_IDLE: 0,
    Control.SLICE: 0,
    Control.FENCE: 0,
}
"""The kernel's default of each control. Any other value is somebody's choice and left alone."""

EASE = 5
"""Steps of nice by which a demotion is eased at a time (chosen): each step multiplies the weight by 1.25, five of them by three."""

LEVELS = 4
"""Number of strengths of a demotion: full, and eased up to three times. The last is almost no demotion."""


def place(member: Member) -> Place:
    """Where this process is."""
    return member.cgroup, member.session


class Ground:
    """Where the protected places of a tick are, so that the ways to lower any other place are looked up and not searched for.

    `protected`: places of what is protected. `spared`: those, and what else must not be lowered with others. Building it takes one
    pass over both; each lookup takes time by the depth of a cgroup path, however many places there are.
    """

    def __init__(self, protected: Iterable[Place], spared: Iterable[Place], machine: Machine) -> None:
        kept, apart = set(protected), set(spared)
        self._grouped = bool(machine.cpu_cgroup)
        self._autogroup = machine.autogroup
        self._weighs = Control.CPU_WEIGHT if machine.cpu_cgroup == "v2" else Control.CPU_SHARES
        self._below: dict[str, int] = {}  # cgroup -> protected places in it and below it
        self._at_root: dict[int, int] = {}  # session -> protected places of it in the root cgroup
        for cgroup, session in kept:
            at = cgroup if self._grouped else ROOT
            for path in ancestors(at):
                self._below[path] = self._below.get(path, 0) + 1
            if at == ROOT:
                self._at_root[session] = self._at_root.get(session, 0) + 1
        self._sessions = {session for _, session in apart}
        self._cgroups = {path for cgroup, _ in apart for path in ancestors(cgroup)}

    def routes(self, own: Place) -> list[list[Step]]:
        """Ways to lower processes at `own` against the protected places: for each kind of separation its steps, the best first.

        Autogroups exist only in the root cgroup. A process in an ancestor of the other's cgroup has no weight of its own there,
        except in a fence. Across cgroups a fence does nothing: it is inside its own cgroup.
        """
        cgroup, session = own if self._grouped else (ROOT, own[1])
        path = ancestors(cgroup)
        each: list[Step] = [(Control.NICE, ""), (Control.POLICY, "")]
        found = [
            [(self._weighs, parting), (Control.CPU_IDLE, parting), *each]
            for above, parting in pairwise(path)
            if self._below.get(above, 0) > self._below.get(parting, 0)
        ]
        inside, beside = self._below.get(path[-1], 0), 0
        if cgroup == ROOT and self._autogroup:
            beside = inside - self._at_root.get(session, 0)
        within = [(Control.FENCE, ""), *each] if self._grouped else each
        if beside:
            found.append([(Control.AUTOGROUP, ""), *within])
        if inside > beside:
            found.append(within)
        return found

    def ways(self, own: Place, closed: Collection[Control], barred: Barred = frozenset()) -> set[Step]:
        """For each of the `routes`, its first step that is not closed and that takes along nothing that must be spared. `barred`:
        sessions and cgroups that hold another user's processes."""
        found = set[Step]()
        for steps in self.routes(own):
            for step in steps:
                if step[0] not in closed and self._spares(own, step, barred):
                    found.add(step)
                    break
        return found

    def _spares(self, own: Place, step: Step, barred: Barred) -> bool:
        control, path = step
        if control is Control.AUTOGROUP:
            return own[1] not in self._sessions and own[1] not in barred
        return not path or (path not in self._cgroups and path not in barred)


class Descent:
    """Which process descends from which, as far as these members show: everything that a fence takes along."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._children: dict[int, list[Member]] = {}
        for member in members:
            if member.parent:
                self._children.setdefault(member.parent, []).append(member)

    def below(self, process: ProcId) -> list[Member]:
        """The descendants of a process."""
        found, seen = list[Member](), {process.pid}
        waiting = [process.pid]
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child.id.pid not in seen:
                    seen.add(child.id.pid)
                    found.append(child)
                    waiting.append(child.id.pid)
        return found


def value(control: Control, nice: int, weight: int, level: int) -> int:
    """The value that a demotion of this strength sets: 0 is full, as configured (`nice`, cgroup v2 `weight`), each next gentler.

    The weight of a nice is the kernel's, 1.25 a step (kernel/sched/core.c, sched_prio_to_weight).

    >>> [value(Control.NICE, 19, 1, level) for level in range(LEVELS)]
    [19, 14, 9, 4]
    >>> [value(Control.CPU_SHARES, 19, 1, level) for level in range(LEVELS)]
    [2, 45, 137, 419]
    """
    eased = max(1, nice - EASE * level)
    if control in (Control.NICE, Control.AUTOGROUP):
        return eased
    if control is Control.POLICY:
        return SCHED_IDLE
    if control is Control.CPU_IDLE:
        return 1
    if control is Control.FENCE:  # its weight, on v1 too
        return weight
    whole, least = (100, weight) if control is Control.CPU_WEIGHT else (1024, 2 * weight)
    return least if level == 0 else max(least, round(whole / 1.25**eased))
