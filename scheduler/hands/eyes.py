"""The eyes: a process that reads of others what the brain may not, and does nothing else. The hands start it, the brain asks it.

Memory, mappings and environment are read under a lock of the process that is looked at, which it can hold for as long as it likes
(userfaultfd(2), FUSE). Then the eyes stand still, and with them the brain; the hands do not, and put everything back when the brain
is ended for it. Knows processes and sockets.
"""

from __future__ import annotations

import os
import signal

from .guarding import keep_only
from .reads import operations
from .urgent import be_called
from .wire import LONGEST_REQUEST, Channel, GoneError, answer, pair

NAME = "nicety-eyes"
"""What ps(1) and top(1) show."""


def open_eyes(proc_root: str, diagnosis: int = -1) -> tuple[int, int]:
    """(their pid, the brain's end of the connection to them). They end with that. `diagnosis`: see `reads.operations`. Raises
    OSError."""
    ours, theirs = pair()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours.detach()
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a service manager sends it to all of a unit
        keep_only(theirs.fileno(), diagnosis)
        os.setsid()
        be_called(NAME)
        channel, offered = Channel(theirs, LONGEST_REQUEST, 0), operations(proc_root, diagnosis)
        while True:
            answer(channel, offered)
    except GoneError:
        code = 0
    finally:
        os._exit(code)
