"""Whether a terminal gives what runs in it each key as it is typed. Must not know what that means for a process.

Editors, pagers, prompts and games take their terminal out of canonical mode (termios(3)), for they answer each key; what only works
leaves it to give whole lines. The mode belongs to the terminal, which must be opened to be asked: for reading, without waiting and
without becoming its owner, so nobody notices. Through /proc/PID/fd it is the right one in containers, too.
"""

# ruff: noqa: PTH116 -- Path objects cost more than the system calls

from __future__ import annotations

import os
import termios

_STANDARD = (0, 1, 2)
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_VIRTUAL, _CONSOLES, _PSEUDO = 4, 64, range(136, 144)  # majors, and the minor from which 4 is serial: admin-guide/devices.txt


def takes_keys(path: str, terminal: int) -> bool | None:
    """Whether the terminal that a process is in gives it single keys. `path`: /proc/PID; `terminal`: field 7 of its stat.

    None where that is not known: none of its standard descriptors is that terminal, or it may not be opened. Serial lines are
    left alone: to open one may raise its signals.
    """
    major, minor = terminal >> 8 & 0xFFF, terminal & 0xFF | terminal >> 12 & 0xFFF00  # new_decode_dev, include/linux/kdev_t.h
    if major not in _PSEUDO and not (major == _VIRTUAL and minor < _CONSOLES):
        return None
    device = os.makedev(major, minor)
    for number in _STANDARD:
        name = f"{path}/fd/{number}"
        try:
            if os.stat(name).st_rdev != device:
                continue
            descriptor = os.open(name, _OPEN)
        except OSError:  # closed, gone, or not ours
            continue
        try:
            return not termios.tcgetattr(descriptor)[3] & termios.ICANON
        except termios.error:  # hung up meanwhile
            return None
        finally:
            os.close(descriptor)
    return None
