"""Work that must be done soon on a machine where everything else is late: at the highest priority that is allowed.

Knows nice and the autogroup of a session. Must not know what is done.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

_HIGHEST = -20


def hurry() -> None:
    """Raise the priority of this process as far as it may. What is refused is left; nothing else is changed.

    The nice counts among the threads of a session. Beside other sessions the nice of its autogroup counts (sched(7)): that is
    raised only if this process leads its session, for then nobody else is in it.
    """
    _give(_HIGHEST)


def _give(nice: int) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError:
        pass
    if os.getsid(0) != os.getpid():
        return
    try:
        with open("/proc/self/autogroup", "wb", buffering=0) as file:
            file.write(b"%d" % nice)
    except OSError:
        pass


def calm_down() -> None:
    """Give up the priority that `hurry` took, for that of any process."""
    _give(0)


def be_called(name: str) -> None:
    """Give this process a name for ps(1) and top(1), of at most 15 letters."""
    try:
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(name.encode())
    except OSError:
        pass


def urgently(work: Callable[[], int]) -> int:
    """Do `work` in a process and a session of its own, in a hurry; returns its exit code, less than 0 if a signal ended it. Ctrl-C
    does not interrupt it. An exception is printed, and the code is 1."""
    try:
        child = os.fork()
    except OSError:  # no process can be had: then here
        hurry()
        return work()
    if child == 0:
        code = 1
        try:
            os.setsid()
            hurry()
            code = work()
            sys.stdout.flush()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        signal.signal(signal.SIGINT, before)
