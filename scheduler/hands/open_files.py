"""What an open file of a process is, and whether its terminal passes each key as it is typed. Must not know what that means.

A file on a user's own file system (FUSE) may block forever whatever asks for its attributes. So a file is held first, without
asking its file system (O_PATH in open(2)); then the kind of the file system is read, from /proc/PID/mountinfo; and only a kind of
the kernel's own is asked. The process cannot put another file in its place meanwhile.

Editors, pagers, prompts and games take their terminal out of canonical mode (termios(3)), because they answer each key. Other
programs leave it in that mode and get whole lines. The mode belongs to the terminal, which must be opened to read it: for reading,
without waiting and without becoming its owner, so no program notices. Opened through /proc/PID/fd, it is the right one in
containers, too.
"""

from __future__ import annotations

import errno
import os
import termios

LOCAL = (b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"f2fs", b"tmpfs", b"devtmpfs", b"ramfs")
"""File systems that answer by themselves: neither a network nor a user's program is asked (chosen)."""

OVERLAY = b"overlay"
"""One that asks those below it. Only in a user namespace of his own can a user lay it over his own file system."""

_DEVICES = (b"devpts", b"devtmpfs", b"tmpfs")  # file systems of the kernel that have terminals
_STANDARD = (0, 1, 2)  # standard input, output and error
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_VIRTUAL, _CONSOLES, _PSEUDO = 4, 64, range(136, 144)  # majors, and the minor from which 4 is serial: admin-guide/devices.txt
_MOUNT = b"mnt_id:"  # proc_pid_fdinfo(5)


def status(process: str, name: str) -> os.stat_result:
    """The attributes of `fd/N`, a file that a process has open. `process`: its directory in procfs. Raises OSError, PermissionError
    also where the file system might not answer."""
    kinds = (*LOCAL, OVERLAY) if _same_users(process) else LOCAL
    held = os.open(f"{process}/{name}", os.O_PATH | os.O_CLOEXEC)
    try:
        if kind(process, held) not in kinds:
            raise PermissionError(errno.EPERM, "the file system is not asked, it might not answer")
        return os.fstat(held)
    finally:
        os.close(held)


def reads_keystrokes(process: str, terminal: int) -> bool | None:
    """Whether the terminal that a process is in passes single keys. `process`: /proc/PID; `terminal`: field 7 of its stat.

    None if that is not known: none of its standard descriptors is that terminal, or it has hung up. Serial lines are left alone,
    because opening one may raise its signals. Raises PermissionError.
    """
    major, minor = terminal >> 8 & 0xFFF, terminal & 0xFF | terminal >> 12 & 0xFFF00  # new_decode_dev, include/linux/kdev_t.h
    if major not in _PSEUDO and not (major == _VIRTUAL and minor < _CONSOLES):
        return None
    device = os.makedev(major, minor)
    for number in _STANDARD:
        try:
            descriptor = _opened(process, number, device)
        except PermissionError:
            raise
        except OSError:  # closed or gone
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


def kind(process: str, held: int) -> bytes:
    """The kind of file system that our descriptor is on, as the mounts of a process have it; b"" if none has it. Raises OSError."""
    number = mount(held)
    lines = (line for line in _lines(f"{process}/mountinfo") if line.startswith(number + b" "))
    return next((line.partition(b" - ")[2].split(b" ", 1)[0] for line in lines), b"")


def mount(held: int) -> bytes:
    """The number of the mount that our descriptor is on."""
    return next((line.split()[1] for line in _lines(f"/proc/self/fdinfo/{held}") if line.startswith(_MOUNT)), b"")


def _opened(process: str, number: int, device: int) -> int:
    """Our own descriptor for the file that a process has under that number, -1 if it is not that device. Raises OSError."""
    held = os.open(f"{process}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
    try:
        if kind(process, held) not in _DEVICES or os.fstat(held).st_rdev != device:
            return -1
        return os.open(f"/proc/self/fd/{held}", _OPEN)
    finally:
        os.close(held)


def _same_users(process: str) -> bool:
    """Whether a process is in our own user namespace."""
    return os.stat(f"{process}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino


def _lines(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        return file.read().splitlines()
