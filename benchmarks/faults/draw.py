"""Which faults are tried: all of them, or a sample that a seed draws. Runs nothing.

A call can be killed at, delayed, or fail with an errno that the kernel can return for it: one that it cannot, such as "no such
process" for a process that lives, would only show that a wrong answer is believed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import cycle

from .strace import Calls, Fault

ERRORS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("open", "openat"), ("EMFILE", "ENFILE", "ENOMEM", "EACCES", "EIO")),
    **dict.fromkeys(("read", "pread64"), ("EIO", "EINTR")),
    **dict.fromkeys(("write", "pwrite64", "ftruncate", "fallocate"), ("ENOSPC", "EIO", "EINTR")),
    **dict.fromkeys(("fsync", "fdatasync"), ("EIO", "ENOSPC")),
    **dict.fromkeys(("rename", "renameat", "renameat2", "link", "linkat", "mkdir", "mkdirat"), ("ENOSPC", "EACCES", "EIO")),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), ("EACCES", "EIO")),
    **dict.fromkeys(("stat", "lstat", "fstat", "newfstatat", "statx", "access", "readlink", "readlinkat"), ("EIO", "ENOMEM")),
    **dict.fromkeys(("getdents64",), ("EIO",)),
    **dict.fromkeys(("flock",), ("EINTR", "ENOLCK")),
    **dict.fromkeys(("fcntl",), ("EINTR", "ENOLCK")),
    **dict.fromkeys(("chmod", "fchmod", "chown", "fchown", "utimensat"), ("EPERM", "EIO")),
    **dict.fromkeys(("setpriority", "sched_setaffinity", "sched_setscheduler", "sched_setattr"), ("EPERM", "EACCES", "EINTR")),
    **dict.fromkeys(("sched_getaffinity",), ("ENOMEM",)),
    **dict.fromkeys(("socket", "accept4", "epoll_create1", "eventfd2", "pipe2", "dup", "dup2", "pidfd_open"), ("EMFILE", "ENFILE")),
    **dict.fromkeys(("bind",), ("EACCES", "ENOSPC")),
    **dict.fromkeys(("sendto", "sendmsg"), ("ENOBUFS",)),
    **dict.fromkeys(("recvfrom", "recvmsg"), ("ENOMEM", "EINTR")),
    **dict.fromkeys(("clone", "clone3", "fork", "vfork"), ("EAGAIN", "ENOMEM")),
    **dict.fromkeys(("mmap",), ("ENOMEM",)),
}
"""The errnos with which each call is made to fail (section ERRORS of its manual page, and what a full or broken disk gives)."""

EFFECTS = frozenset(
    {
        *("write", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat"),
        *("mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "flock", "fcntl", "chmod", "fchmod", "utimensat"),
        *("setpriority", "sched_setaffinity", "sched_setscheduler", "sched_setattr", "bind", "listen", "sendto", "sendmsg"),
    }
)
"""Calls that change something outside of the program: a file, a lock, a process, a socket."""

SHARES = (6, 3, 1)
"""Of ten faults in a sample: calls with an effect, other calls, calls of the start. Chosen: a kill before the program has begun can
hardly do harm, and most calls of a run are of that kind."""


def hows(call: str) -> tuple[str, ...]:
    """In which ways the call can go wrong."""
    return ("kill", "delay", *ERRORS.get(call, ()))


def every(calls: Calls, cap: int, rng: random.Random, only: Iterable[str] = ()) -> list[Fault]:
    """All faults; of those of one kind at one call at most `cap`, evenly spaced from a random one on. `only`: these kinds."""
    found = []
    for call, count in sorted(calls.all.items()):
        step = max(1.0, count / cap)
        first = rng.uniform(0, step)
        numbers = sorted({min(count, 1 + int(first + step * turn)) for turn in range(min(cap, count))})
        kinds = [how for how in hows(call) if not only or how in only]
        found += [Fault(how, call, number) for how in kinds for number in numbers]
    rng.shuffle(found)
    return found


def sample(calls: Calls, number: int, rng: random.Random) -> list[Fault]:
    """So many faults, or all if there are not more.

    First a share of SHARES is drawn, then a kind and a call, then which of its calls: a call that is made a thousand times does not
    count more than one that is made once.
    """
    kinds: tuple[list[tuple[str, str, range]], ...] = ([], [], [])
    for call, count in sorted(calls.all.items()):
        start = calls.start.get(call, 0)
        for how in hows(call):
            if count > start:
                kinds[0 if call in EFFECTS else 1].append((how, call, range(start + 1, count + 1)))
            if start:
                kinds[2].append((how, call, range(1, start + 1)))
    for each in kinds:
        rng.shuffle(each)
    if sum(len(numbers) for each in kinds for _, _, numbers in each) <= number:
        return [Fault(how, call, each) for share in kinds for how, call, numbers in share for each in numbers]
    order = [share for share, weight in enumerate(SHARES) for _ in range(weight) if kinds[share]]
    rng.shuffle(order)
    turns = [cycle(each) for each in kinds]
    found: dict[Fault, None] = {}
    for share in cycle(order):
        how, call, numbers = next(turns[share])
        found[Fault(how, call, rng.choice(numbers))] = None
        if len(found) == number:
            break
    return list(found)


def kills(calls: Calls, number: int, rng: random.Random) -> list[Fault]:
    """So many kills at random calls of a program that is at work; each such call of the run is as likely as any other."""
    names = [call for call, count in sorted(calls.all.items()) if count > calls.idle.get(call, 0)]
    weights = [calls.all[call] - calls.idle.get(call, 0) for call in names]
    return [
        Fault("kill", call, rng.randint(calls.idle.get(call, 0) + 1, calls.all[call]))
        for call in rng.choices(names, weights, k=number)
    ]
