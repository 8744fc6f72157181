"""Sets the weight of a cgroup (v1 cpu.shares, v2 cpu.weight), and whether it is idle (cpu.idle). Must not know processes' classes,
decisions or the ledger.

An idle cgroup has the least weight. The kernel hides its old weight, refuses to set it, and resets it to the default when the
cgroup is no longer idle (sched_group_set_idle in kernel/sched/fair.c): so only a cgroup that has the default is made idle.
"""

from __future__ import annotations

import errno
import os

from ..faults import Status, Trouble
from ..places import Control, Value
from .cgroup import DEFAULTS, Cgroups, number, trouble_of

LIMITS = {Control.CPU_SHARES: (2, 262_144), Control.CPU_WEIGHT: (1, 10_000), Control.CPU_IDLE: (0, 1)}
"""(least, most) that the kernel accepts: MIN_SHARES, MAX_SHARES in kernel/sched/core.c; CGROUP_WEIGHT_MIN, CGROUP_WEIGHT_MAX in
include/linux/cgroup.h."""


def write_weight(cgroups: Cgroups, control: Control, cgroup: str, expected: int, value: int) -> Trouble | None:
    """Set the value of a cgroup if it still has the expected one, which is compared immediately before. None: done."""
    low, high = LIMITS[control]
    if not low <= value <= high:
        return Trouble(Status.FAILED, f"{control} {value} is not within {low}..{high}")
    file = cgroups.file(control, cgroup)
    if isinstance(file, Trouble):
        return file
    unfit = _unfit_to_idle(cgroups, cgroup) if control is Control.CPU_IDLE and value else cgroups.hidden(control, cgroup)
    if unfit is not None:
        return unfit
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            before = number(file, os.pread(fd, 64, 0))
            if isinstance(before, Trouble) or before != expected:
                return before if isinstance(before, Trouble) else foreign(expected, before)
            os.pwrite(fd, b"%d\n" % value, 0)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return Trouble(Status.REFUSED, f"{file} cannot be set: {cgroup} is the root cgroup, or became idle meanwhile")
        return trouble_of(error, file)
    return None


def foreign(expected: Value, now: Value) -> Trouble:
    """The trouble that a value is not the expected one."""
    return Trouble(Status.FOREIGN, f"somebody changed it from {expected} to {now}")


def _unfit_to_idle(cgroups: Cgroups, cgroup: str) -> Trouble | None:
    """Why this cgroup must not be made idle; None if it may be, or is idle already."""
    control = Control.CPU_WEIGHT if cgroups.shares is None else Control.CPU_SHARES
    idle = cgroups.is_idle(cgroup)
    weight = idle if isinstance(idle, Trouble) else DEFAULTS[control] if idle else cgroups.read(control, cgroup)
    if isinstance(weight, Trouble):
        return weight
    if weight == DEFAULTS[control]:
        return None
    text = f"cgroup {cgroup} has {control} {weight}, which cpu.idle would lose for good: it needs {DEFAULTS[control]} first"
    return Trouble(Status.REFUSED, text)
