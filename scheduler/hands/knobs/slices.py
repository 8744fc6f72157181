"""The slice of a thread: how long it runs before it yields to a peer. Knows sched_getattr(2) and sched_setattr(2), for which Python
has no functions. Must not know processes' classes, decisions or the ledger.

Since Linux 6.12 a fair thread (SCHED_OTHER, SCHED_BATCH) can have a slice of its own, `sched_attr.sched_runtime`; 0 requests the
default. The kernel reports only the length, not whether it was requested. `Slices` finds out what the default is.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

from ....models.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ctypes import CDLL

SHORTEST, LONGEST = 100_000, 100_000_000
"""ns; the kernel silently clamps to them (__setparam_fair in kernel/sched/syscalls.c)."""

_NUMBERS = {
    "x86_64": (314, 315),
    "aarch64": (274, 275),
    "riscv64": (274, 275),
    "loongarch64": (274, 275),
    "ppc64le": (355, 356),
    "s390x": (345, 346),
}
"""(sched_setattr, sched_getattr) by machine: arch/*/kernel/syscalls/syscall*.tbl, include/uapi/asm-generic/unistd.h."""

_LAYOUT = struct.Struct("=IIQiIQQQ")  # struct sched_attr, SCHED_ATTR_SIZE_VER0: include/uapi/linux/sched/types.h
_RESET_ON_FORK, _KEEP_POLICY = 0x01, 0x08  # SCHED_FLAG_*, include/uapi/linux/sched.h
_OTHER, _BATCH, _IDLE = 0, 3, 5  # SCHED_*, include/uapi/linux/sched.h; Python has these names on Linux only
_HAVE_SLICES = (_OTHER, _BATCH)  # policies for which the kernel keeps a slice

_KNOWN = sys.maxsize > 2**32 and os.uname().sysname == "Linux"  # the same numbers are other calls in other kernels
_set_number, _get_number = _NUMBERS.get(os.uname().machine, (-1, -1)) if _KNOWN else (-1, -1)


_libc: CDLL | None = None


class _Attributes(NamedTuple):
    policy: int
    flags: int
    nice: int
    runtime: int  # ns: the slice of a fair thread; of others it is something else, or 0


class Slices:
    """Slices of threads, with 0 for the default. Every call raises OSError: ESRCH, EPERM, ENOSYS where this kernel has no slices,
    EOPNOTSUPP where the thread's policy has none.

    A slice counts as the default if a new thread that requests the default has it, or had it since we began: the default changes
    when CPUs come and go, and a sleeping thread shows the old one until it wakes. If somebody sets a slice of exactly the default
    length, it counts as the default. It differs from the default only if the default changes.
    """

    def __init__(self) -> None:
        self._defaults: set[int] = set()
        self._own: set[int] = set()  # lengths found not to be the default while there were `_cpus`
        self._cpus: int | None = None

    def read(self, tid: int) -> int:
        """The slice that the thread was given, ns; 0 if it has the default."""
        now = _get(tid)
        if now.policy != _IDLE and now.policy not in _HAVE_SLICES:
            raise OSError(errno.EOPNOTSUPP, "a real-time thread has no slice")
        return self.visible(now.runtime)

    def write(self, tid: int, length: int) -> None:
        """Give a thread this slice, 0 for the default; its nice, policy and reset-on-fork flag stay.

        The system call sets the nice with the slice, so it is read immediately before: a renice of the thread in that microsecond
        is lost. Without CAP_SYS_NICE the kernel refuses to undo it if it was a raise, and nothing is set.
        """
        now = _get(tid)
        if now.policy not in _HAVE_SLICES:
            raise OSError(errno.EOPNOTSUPP, "the kernel keeps slices of SCHED_OTHER and SCHED_BATCH only")
        _set(tid, _Attributes(0, _KEEP_POLICY, now.nice, length))

    def visible(self, length: int) -> int:
        """What `read` returns for a thread that has this slice: 0 if it is the default."""
        cpus = os.cpu_count()
        if cpus != self._cpus:
            self._cpus = cpus
            self._own.clear()
        if length not in self._defaults and length not in self._own:
            default = _default()
            self._defaults.add(default)
            if length not in self._defaults:
                self._own.add(length)
        return 0 if length in self._defaults else length


def ask_for(length: int) -> bool:
    """Give the calling thread this slice, ns.

    The reset-on-fork flag is set with it, so its children have the default. False: this kernel has no slices, nothing is changed.
    """
    try:
        now = _get(0)
        if now.policy in _HAVE_SLICES:
            _set(0, _Attributes(now.policy, _RESET_ON_FORK, now.nice, length))
        return _get(0).runtime == length
    except OSError:
        return False


def _default() -> int:
    """The kernel's present default, read from a new thread of ours that has just requested it. Takes 0.1 ms."""
    found: list[int | OSError] = []

    def ask() -> None:
        try:
            own = _get(0)
            kept = own.flags & _RESET_ON_FORK
            _set(0, _Attributes(0, _KEEP_POLICY if own.policy in _HAVE_SLICES else kept, own.nice, 0))
            found.append(_get(0).runtime)
        except OSError as error:
            found.append(error)

    import threading

    thread = threading.Thread(target=ask, name="slice")
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.ENOMEM, str(error)) from None
    thread.join()
    (answer,) = found
    if isinstance(answer, OSError):
        raise answer
    if answer == 0:
        raise OSError(errno.ENOSYS, "this kernel has no slices")
    return answer


def _get(tid: int) -> _Attributes:
    data = bytearray(_LAYOUT.size)
    _call(_get_number, tid, data, _LAYOUT.size, 0)
    _, policy, flags, nice, _, runtime, _, _ = _LAYOUT.unpack(data)
    return _Attributes(policy, flags, nice, runtime)


def _set(tid: int, attributes: _Attributes) -> None:
    policy, flags, nice, runtime = attributes
    _call(_set_number, tid, bytearray(_LAYOUT.pack(_LAYOUT.size, policy, flags, nice, 0, runtime, 0, 0)), 0)


def _call(number: int, tid: int, data: bytearray, *rest: int) -> None:
    """`data` is read or written by the kernel. Raises OSError."""
    if number < 0:
        raise OSError(errno.ENOSYS, f"the number of this system call on {os.uname().machine} is not known")
    import ctypes  # half a megabyte, only where slices are used

    libc = _libc or _load()
    if libc.syscall(ctypes.c_long(number), tid, (ctypes.c_char * len(data)).from_buffer(data), *rest):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _load() -> CDLL:
    global _libc
    import ctypes

    _libc = ctypes.CDLL(None, use_errno=True)
    return _libc
