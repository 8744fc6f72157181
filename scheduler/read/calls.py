"""The system call that a thread is in, as /proc/PID/syscall reports it. Must not know what a call means to its callers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Call(NamedTuple):
    """Where a thread is: "running", "none" (blocked outside of a system call: page fault, zombie), "other", or a call's name."""

    name: str
    args: tuple[int, ...]  # the call's arguments; () where only the name is known


# The kernel's tables: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h. (x86_64, aarch64)
_TABLE: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "poll": (7, None),
    "readv": (19, 65),
    "writev": (20, 66),
    "select": (23, None),
    "pause": (34, None),
    "nanosleep": (35, 101),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "wait4": (61, 260),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fsync": (74, 82),
    "semop": (65, 193),
    "msgrcv": (70, 188),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "futex": (202, 98),
    "io_getevents": (208, 4),
    "restart_syscall": (219, 128),
    "semtimedop": (220, 192),
    "clock_nanosleep": (230, 115),
    "epoll_wait": (232, None),
    "mq_timedreceive": (243, 183),
    "waitid": (247, 95),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "epoll_pwait": (281, 22),
    "accept4": (288, 242),
    "recvmmsg": (299, 243),
    "sendmmsg": (307, 269),
    "io_uring_enter": (426, 426),
    "epoll_pwait2": (441, 441),
    "futex_wait": (455, 455),
}
NUMBERS: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        machine: MappingProxyType({row[column]: name for name, row in _TABLE.items() if row[column] is not None})  # type: ignore[misc]
        for column, machine in enumerate(("x86_64", "aarch64"))
    }
)
"""System call names by machine and number, of the calls in `_TABLE`."""

# Numbers only, also of machines that `_TABLE` does not have

FUTEX = {"x86_64": {202}, "aarch64": {98}, "riscv64": {98}, "loongarch64": {98}, "s390x": {238}, "ppc64le": {221}, "ppc64": {221}}
"""Number of futex(2) by machine: include/uapi/asm-generic/unistd.h and arch/*/kernel/syscalls. Other machines are unknown."""

FUTEX_WAIT = 455
"""futex_wait(2), since 6.7, the same number everywhere."""

FILE_LOCKS = {"x86_64": {72, 73}, "aarch64": {25, 32}, "riscv64": {25, 32}, "loongarch64": {25, 32}}
"""Numbers of fcntl(2) and flock(2) by machine, from the same files."""


def is_timed(call: Call) -> bool:
    """Whether the call ends by the clock if nothing else ends it first."""
    name, args = call
    if len(args) != 6:
        return False
    if name in ("futex", "futex_wait"):
        return args[3 if name == "futex" else 4] != 0
    if name in ("poll", "epoll_wait", "epoll_pwait"):
        return not args[2 if name == "poll" else 3] & 0x8000_0000
    limits = {"ppoll": 2, "select": 4, "pselect6": 4, "epoll_pwait2": 3, "rt_sigtimedwait": 2, "semtimedop": 3}
    return name in ("nanosleep", "clock_nanosleep") or (name in limits and args[limits[name]] != 0)


def stack_pointer(line: bytes) -> int:
    """The stack pointer in a line of /proc/PID/syscall; 0 if the line has none."""
    fields = line.split()
    return int(fields[-2], 16) if len(fields) >= 3 else 0


def parse_call(line: bytes, names: Mapping[int, str]) -> Call:
    """One line of /proc/PID/syscall: "running", "-1 SP PC" or "NUMBER 0xARG... SP PC"."""
    fields = line.split()
    if not fields or fields[0] == b"running":
        return Call("running", ())
    number = int(fields[0])
    if number == -1:
        return Call("none", ())
    return Call(names.get(number, "other"), tuple(int(field, 16) for field in fields[1:7]))


def int32(word: int) -> int:
    """A 32-bit argument of a call, signed."""
    return (word & 0xFFFFFFFF) - ((word & 0x80000000) << 1)
