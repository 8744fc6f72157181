"""Finds out whether a terminal passes each key to its programs as it is typed. Must not know what that means for a process.

Editors, pagers, prompts and games take their terminal out of canonical mode (termios(3)), because they answer each key. Other
programs leave it in that mode and get whole lines. The mode belongs to the terminal, which must be opened to read it: for reading,
without waiting and without becoming its owner, so no program notices. Opened through /proc/PID/fd, it is the right one in
containers, too.

A file on a user's own file system (FUSE) may block forever whatever asks for its attributes. So the kind of file system that a
descriptor is on is read first, from /proc/PID/mountinfo.
"""

# ruff: noqa: PTH116 -- Path objects cost more than the system calls

from __future__ import annotations

import os
import termios

_STANDARD = (0, 1, 2)  # standard input, output and error
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_VIRTUAL, _CONSOLES, _PSEUDO = 4, 64, range(136, 144)  # majors, and the minor from which 4 is serial: admin-guide/devices.txt
_DEVICES = (b"devpts", b"devtmpfs", b"tmpfs")  # file systems of the kernel that have terminals
_MOUNT = b"mnt_id:"  # proc_pid_fdinfo(5)


def reads_keystrokes(path: str, terminal: int) -> bool | None:
    """Whether the terminal that a process is in passes single keys. `path`: /proc/PID; `terminal`: field 7 of its stat.

    None if that is not known: none of its standard descriptors is that terminal, or it may not be opened. Serial lines are left
    alone, because opening one may raise its signals.
    """
    major, minor = terminal >> 8 & 0xFFF, terminal & 0xFF | terminal >> 12 & 0xFFF00  # new_decode_dev, include/linux/kdev_t.h
    if major not in _PSEUDO and not (major == _VIRTUAL and minor < _CONSOLES):
        return None
    device = os.makedev(major, minor)
    for number in _STANDARD:
        try:
            descriptor = _opened(path, number, device)
        except OSError:  # closed, gone, or not ours
            continue
        if descriptor < 0:
            continue
        try:
            return not termios.tcgetattr(descriptor)[3] & termios.ICANON
        except termios.error:  # hung up meanwhile
            return None
        finally:
            os.close(descriptor)
    return None


def _opened(path: str, number: int, device: int) -> int:
    """Our own descriptor for the file that a process has under that number, -1 if it is not that device. Raises OSError."""
    mount = next((line.split()[1] for line in _lines(f"{path}/fdinfo/{number}") if line.startswith(_MOUNT)), b"")
    kinds = (line.partition(b" - ")[2].split(b" ", 1)[0] for line in _lines(f"{path}/mountinfo") if line.startswith(mount + b" "))
    name = f"{path}/fd/{number}"
    if not mount or next(kinds, b"") not in _DEVICES or os.stat(name).st_rdev != device:
        return -1
    return os.open(name, _OPEN)


def _lines(path: str) -> list[bytes]:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read().splitlines()
