"""A machine that is not Linux, as far as Linux can play one. As root, `unshare -m python -m nicety.scheduler.testing.elsewhere DIR
MODULE ...` runs a module without the names that Python has on Linux only, with /proc and /sys hidden; psutil finds a procfs at DIR.

What this cannot show is what another kernel answers: psutil reads Linux here too.
"""

from __future__ import annotations

import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import psutil

ONLY_LINUX: Mapping[ModuleType, Sequence[str]] = {
    os: (
        *("sched_", "SCHED_", "pidfd_", "P_PIDFD", "memfd_", "MFD_", "eventfd", "EFD_", "timerfd", "TFD_", "setns", "unshare"),
        *("CLONE_", "O_PATH", "O_TMPFILE", "O_NOATIME", "getxattr", "setxattr", "listxattr", "removexattr", "XATTR_"),
        *("getrandom", "GRND_", "setresuid", "setresgid", "getresuid", "getresgid", "posix_fadvise", "posix_fallocate", "pipe2"),
        *("splice", "SPLICE_", "copy_file_range", "fdatasync"),
    ),
    signal: ("pidfd_send_signal", "sigtimedwait", "sigwaitinfo", "SIGSTKFLT", "SIGPWR", "SIGRTM", "SIGCLD", "SIGPOLL"),
    socket: ("SO_PEERCRED", "SO_PASS", "SO_PEERSEC", "AF_NETLINK", "NETLINK_", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "AF_PACKET"),
    time: ("CLOCK_BOOTTIME", "CLOCK_TAI", "pthread_getcpuclockid"),
    resource: ("prlimit", "RUSAGE_THREAD"),
}
"""Modules, and how names begin that are missing in them on macOS. FreeBSD has some of them. epoll stays, in the place of kqueue."""


def take_away() -> None:
    """Remove the names of Linux from this process."""
    for module, beginnings in ONLY_LINUX.items():
        for name in [name for name in dir(module) if name.startswith(tuple(beginnings))]:
            delattr(module, name)


def hide(procfs: Path) -> None:
    """Hide /proc and /sys in this mount namespace, which must be our own. psutil, which has been loaded, reads `procfs`."""
    procfs.mkdir(exist_ok=True)
    for kind, place in (("proc", procfs), ("tmpfs", Path("/proc")), ("tmpfs", Path("/sys"))):
        subprocess.run(["mount", "-t", kind, "none", place], check=True)  # noqa: S607 - wherever it is
    psutil.PROCFS_PATH = str(procfs)


def main(arguments: Sequence[str]) -> None:
    """See above."""
    procfs, module, *rest = arguments
    hide(Path(procfs))
    from ..read import reader

    reader.LINUX = "elsewhere"
    take_away()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
