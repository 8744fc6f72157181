"""How an attempt ended, and what an error of a system call means; the only place that decides this. Pure: knows errnos and
statuses, no file and no kernel.

Only GONE says that a target does not exist. After any other error that is *unknown*: the records of the target stay, and it is
examined again. FULL and LATER say nothing about a target or a mechanism either: see `decision.Status`.
"""

from __future__ import annotations

import errno
from enum import StrEnum

from ...models.lean import NamedTuple


class Status(StrEnum):
    """How an applied decision ended."""

    APPLIED = "applied"  # read back and equal to what was wanted
    OBSERVED = "observed"  # observe mode: nothing was written
    UNCHANGED = "unchanged"  # already had the wanted value
    PARTIAL = "partial"  # some threads or processes were gone or refused; detail says which
    VANISHED = "vanished"  # the target was gone
    REFUSED = "refused"  # the kernel or the pool refused: EPERM, limits
    FOREIGN = "foreign"  # somebody else changed the value meanwhile: left alone from now on
    FAILED = "failed"  # anything else; detail names the error
    BLOCKED = "blocked"  # nicety lacked a writable ledger, descriptors or memory. Says nothing about the target
    LATER = "later"  # the kernel was busy: the next try may succeed. Says nothing about the target
    RELIEVED = "relieved"  # restored at once by the actuator: it starved, or another process waited for a lock that it holds


class Trouble(NamedTuple):
    """Why the kernel did not do what was asked: VANISHED, REFUSED, FOREIGN (not the expected value), BLOCKED, LATER or FAILED.

    Only VANISHED says that the target is gone.
    """

    status: Status
    text: str  # cause and, if there is one, the fix


class Fault(StrEnum):
    """What an errno means."""

    GONE = "gone"  # it does not exist any more
    DENIED = "denied"  # not allowed, or this kernel does not have it
    FULL = "full"  # descriptors, memory, disk or quota are used up: those of nicety or of the machine, never the target's
    LATER = "later"  # busy or interrupted: the same call may succeed in a moment
    BROKEN = "broken"  # the medium fails, or an error that is not expected here


_MEANING = {
    Fault.GONE: (errno.ENOENT, errno.ESRCH),
    Fault.DENIED: (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSYS, errno.EOPNOTSUPP),
    Fault.FULL: (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
    Fault.LATER: (errno.EAGAIN, errno.EINTR, errno.EBUSY),
}
_FAULTS = {number: fault for fault, numbers in _MEANING.items() for number in numbers}
_STATUSES = {
    Fault.GONE: Status.VANISHED,
    Fault.DENIED: Status.REFUSED,
    Fault.FULL: Status.BLOCKED,
    Fault.LATER: Status.LATER,
    Fault.BROKEN: Status.FAILED,
}


def fault_of(error: OSError, *, cgroup: bool = False) -> Fault:
    """What this error means. `cgroup`: it comes from a file of a cgroup, which gives ENODEV when the cgroup was removed while the
    file was open; elsewhere ENODEV proves nothing.

    >>> fault_of(OSError(errno.EMFILE, "Too many open files"))
    <Fault.FULL: 'full'>
    """
    if cgroup and error.errno == errno.ENODEV:
        return Fault.GONE
    return _FAULTS.get(error.errno or 0, Fault.BROKEN)


def is_gone(error: OSError, *, cgroup: bool = False) -> bool:
    """Whether this error proves that the target does not exist any more."""
    return fault_of(error, cgroup=cgroup) is Fault.GONE


def status_of(error: OSError, *, cgroup: bool = False) -> Status:
    """The status of an outcome that ends with this error.

    >>> status_of(OSError(errno.EIO, "Input/output error"))
    <Status.FAILED: 'failed'>
    """
    return _STATUSES[fault_of(error, cgroup=cgroup)]


UNKNOWN = frozenset({Status.BLOCKED, Status.LATER, Status.FAILED})
"""Statuses of an examination that say nothing about its target. REFUSED at least says that we may not see it."""
