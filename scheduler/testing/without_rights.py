"""Runs code in a child that has no capability, beside hands that have them all: as the brain runs. For tests and benchmarks.

Must not know what is asked of the hands.
"""

from __future__ import annotations

import ctypes
import os
import traceback
from collections.abc import Callable, Mapping

from ..hands.wire import Asking, Channel, GoneError, Operation, answer, pair
from ..read import door

_SET_SECUREBITS, _KEEP_NONE = 28, 1 | 2 | 4 | 8  # PR_SET_SECUREBITS; SECBIT_NOROOT and NO_SETUID_FIXUP, locked: capabilities(7)
_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


def without_rights(look: Callable[[], object], *, uid: int, operations: Mapping[str, Operation] | None = None) -> str:
    """`repr` of what `look` returns in a child of this user that has no capability. With `operations` the door leads to hands that
    serve these, in a process of their own. Raises AssertionError with the traceback of what it raised."""
    brain, hands = pair()
    server = 0
    if operations is not None:
        server = os.fork()
        if server == 0:
            brain.close()
            _serve(Channel(hands), operations)
    hands.close()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        code = 1
        try:
            drop(uid)
            door.through(None if operations is None else Asking(Channel(brain)))
            text, code = repr(look()), 0
        except BaseException:  # whatever it is, the parent reports it
            text = traceback.format_exc()
        with os.fdopen(write, "w") as out:
            out.write(text)
        os._exit(code)
    brain.close()
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    failed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if server:
        os.waitpid(server, 0)
    assert not failed, text
    return text


def drop(uid: int) -> None:
    """Become this user without any capability, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_SECUREBITS, _KEEP_NONE, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "securebits")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header, none = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def _serve(channel: Channel, operations: Mapping[str, Operation]) -> None:
    try:
        while True:
            answer(channel, operations)
    except GoneError:
        os._exit(0)
    finally:
        os._exit(1)
