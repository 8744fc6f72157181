"""Gives up the capabilities of this process for good, once it has hands that act for it. Knows prctl(2) and capset(2).

What it starts afterwards has none either: the bounding set is empty, and no_new_privs is set.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38  # linux/prctl.h
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522  # of capset(2), linux/capability.h
_RLIMIT_NICE = 13  # asm-generic/resource.h; Python has no name for it
_ANY_NICE = 40  # 20 - nice: any down to -20 (getrlimit(2))


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def give_up() -> None:
    """Give up all capabilities of this thread, the only one. It may still set its own nice: the limit for that is raised first,
    as far as it may be. Raises OSError if the kernel refuses: then it may have some left."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(_RLIMIT_NICE, (_ANY_NICE, _ANY_NICE))
    libc = ctypes.CDLL(None, use_errno=True)
    number = 0
    while libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _checked(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
        number += 1
    _checked(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    header, held, none = _Header(_VERSION_3, 0), (_Data * 2)(), (_Data * 2)()
    _checked(libc.capget(ctypes.byref(header), ctypes.byref(held)))
    if bytes(held) != bytes(none):  # in its unit it never has any, and may not call capset
        _checked(libc.capset(ctypes.byref(header), ctypes.byref(none)))


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities cannot be given up: {os.strerror(number)}")
