"""What an errno means, and what becomes of it."""

from __future__ import annotations

import errno
import os

import pytest

from nicety.scheduler.hands.faults import UNKNOWN, Fault, Status, fault_of, is_gone, status_of

GONE = {"ENOENT", "ESRCH"}


def error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("names", "fault", "status"),
    [
        (("ENOENT", "ESRCH"), Fault.GONE, Status.VANISHED),
        (("EPERM", "EACCES", "EROFS", "ENOSYS", "EOPNOTSUPP"), Fault.DENIED, Status.REFUSED),
        (("ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"), Fault.FULL, Status.BLOCKED),
        (("EAGAIN", "EINTR", "EBUSY"), Fault.LATER, Status.LATER),
        (("EIO", "ENODEV", "EINVAL", "ENOTDIR", "ELOOP"), Fault.BROKEN, Status.FAILED),
    ],
)
def test_each_errno_has_one_meaning_and_one_status(names: tuple[str, ...], fault: Fault, status: Status) -> None:
    assert {fault_of(error(name)) for name in names} == {fault}
    assert {status_of(error(name)) for name in names} == {status}


def test_nothing_but_two_errnos_says_that_something_is_gone() -> None:
    assert {name for name in errno.errorcode.values() if is_gone(error(name))} == GONE
    assert not is_gone(OSError("an error without a number"))


def test_a_removed_cgroup_is_gone_by_its_own_errno() -> None:
    assert is_gone(error("ENODEV"), cgroup=True)
    assert status_of(error("ENODEV"), cgroup=True) is Status.VANISHED
    assert not is_gone(error("EIO"), cgroup=True)


def test_what_is_not_known_is_neither_gone_nor_denied() -> None:
    assert {status_of(error(name)) for name in errno.errorcode.values()} - UNKNOWN == {Status.VANISHED, Status.REFUSED}
