"""Whose part of a state directory is whose, and how root becomes the owner of a part.

The units run two users. Their state directory is root's, and has a part for each of them: `hands` with the ledger, and `brain` with
everything else. Root does not read there with its own rights what another user wrote, and leaves no file of its own. It becomes the
owner first. Knows user ids and capabilities. Must not know what is stored.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ...models.lean import NamedTuple

HANDS, BRAIN = "hands", "brain"
"""Names of the parts."""

ALL = (1 << 64) - 1
"""All capabilities that the process has."""

READING = 1 << 2 | 1 << 19
"""CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE (linux/capability.h): to read everything in /proc."""

_KEEPCAPS = 8  # PR_SET_KEEPCAPS, linux/prctl.h
_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, linux/capability.h


class Owner(NamedTuple):
    """A user."""

    uid: int
    gid: int


def part_of(state_dir: str, name: str) -> str:
    """The directory of a part: the state directory itself if it has no parts."""
    path = os.path.join(state_dir, name)
    return path if os.path.isdir(path) and not os.path.islink(path) else state_dir


def owner_of(directory: str | os.PathLike[str]) -> Owner | None:
    """Whom root must become to work in the part `directory`. None: nobody, or it is not a part that root gave to somebody. Then
    `safe_files` judges it as any other directory."""
    if os.geteuid() != 0 or os.path.basename(directory) not in (HANDS, BRAIN):
        return None
    try:
        found, above = os.lstat(directory), os.lstat(os.path.dirname(directory))
    except OSError:
        return None
    given_by_root = stat.S_ISDIR(above.st_mode) and above.st_uid == 0 and not above.st_mode & 0o022
    if not stat.S_ISDIR(found.st_mode) or found.st_uid == 0 or not given_by_root:
        return None
    return Owner(found.st_uid, found.st_gid)


def become(owner: Owner, rights: int = 0) -> None:
    """Be `owner` from now on, with those capabilities of `rights` that the process has. Raises OSError."""
    os.setgroups([owner.gid])
    os.setresgid(owner.gid, owner.gid, owner.gid)
    if not rights:
        os.setresuid(owner.uid, owner.uid, owner.uid)
        return
    import ctypes  # half a megabyte, only where capabilities are kept

    libc = ctypes.CDLL(None, use_errno=True)

    def done(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    done(libc.prctl(_KEEPCAPS, 1, 0, 0, 0))
    os.setresuid(owner.uid, owner.uid, owner.uid)
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable; then the upper 32 bits of each
    done(libc.capget(header, sets))
    for half in (0, 3):
        sets[half + 1] &= rights >> (32 if half else 0) & 0xFFFFFFFF
        sets[half] = sets[half + 1]
    done(libc.capset(header, sets))


@contextmanager
def as_owner(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Within the block, root has the files and the rights of the owner of a part. Nothing changes where `owner_of` is None."""
    owner, own = owner_of(directory), os.getegid()
    if owner is None:
        yield
        return
    os.setegid(owner.gid)
    os.seteuid(owner.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(own)
