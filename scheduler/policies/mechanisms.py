"""By which controls processes at one place can be lowered against those at another. Pure: a table of what Linux separates by what.

Measured (`benchmarks/latency_beside_batch.py`, conditions "nice 19"): the nice of processes counts within their autogroup or cgroup
only, the nice of an autogroup among those of the root cgroup, the weight of a cgroup among its siblings.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..decision import Control, Machine, Member

Place = tuple[str, int]
"""Where a process stands: (path in the cpu hierarchy, session)."""

SCHED_IDLE = 5

DEFAULT: dict[Control, int] = {
    Control.NICE: 0,
    Control.AUTOGROUP: 0,
    Control.POLICY: 0,
    Control.CPU_SHARES: 1024,
    Control.CPU_WEIGHT: 100,
    Control.CPU_IDLE: 0,
    Control.SLICE: 0,
}
"""What a control is where nobody chose anything: any other value is somebody's wish, and left alone."""

EASE = 5
"""Steps of nice by which a demotion is eased at a time: each is a quarter of weight, five of them a factor of three."""

LEVELS = 4
"""Strengths of a demotion: full, and three times eased; then it is next to none."""


def place(member: Member) -> Place:
    """Where this process stands."""
    return member.cgroup, member.session


def routes(own: Place, other: Place, machine: Machine) -> Iterator[tuple[Control, str]]:
    """Controls that may lower processes at `own` against those at `other`, with the cgroup to set it of, the best first.

    Autogroups exist in the root cgroup only; a process in an ancestor of the other's cgroup has no weight of its own there.
    """
    weighs = Control.CPU_WEIGHT if machine.cpu_cgroup == "v2" else Control.CPU_SHARES
    (cgroup, session), (other_cgroup, other_session) = own, other
    if not machine.cpu_cgroup:
        cgroup = other_cgroup = "/"
    parting = _parting(cgroup, other_cgroup)
    if parting is not None:
        yield weighs, parting
        yield Control.CPU_IDLE, parting
    elif cgroup == "/" and machine.autogroup and (session != other_session or other_cgroup != "/"):
        yield Control.AUTOGROUP, ""
    yield Control.NICE, ""
    yield Control.POLICY, ""


def value(control: Control, nice: int, weight: int, level: int) -> int:
    """What a demotion of this strength sets: 0 is full, as configured (`nice`, cgroup v2 `weight`), each further one gentler.

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
    whole, least = (100, weight) if control is Control.CPU_WEIGHT else (1024, 2 * weight)
    return least if level == 0 else max(least, round(whole / 1.25**eased))


def under(cgroup: str, path: str) -> bool:
    """Whether the cgroup is the one at `path` or below it."""
    return cgroup == path or cgroup.startswith(path.rstrip("/") + "/")


def _parting(cgroup: str, other: str) -> str | None:
    """The ancestor of `cgroup` (or itself) just below where its path parts from `other`; None if `other` is it or below it."""
    own, theirs = [part for part in cgroup.split("/") if part], [part for part in other.split("/") if part]
    for depth, part in enumerate(own):
        if depth >= len(theirs) or theirs[depth] != part:
            return "/" + "/".join(own[: depth + 1])
    return None
