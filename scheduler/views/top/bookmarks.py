"""Moments that the person wants to find again, kept in a file of the person's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from ...hands.safe_files import StoreError, private_directory

NAME = "bookmarks.json"

MOST = 1000
"""Bookmarks that are kept, the newest (chosen)."""


class Bookmark(msgspec.Struct, frozen=True):
    """A moment and what it is called."""

    wall: float  # seconds since 1970
    text: str


def place_of_bookmarks(environment: Mapping[str, str], home: Path, stores: Path, uid: int) -> Path:
    """The file of a user, below the user's state directory (XDG Base Directory Specification). Of root it is beside the `stores`
    of its daemon, whose user a view of root becomes."""
    if uid == 0 and stores.is_dir():
        return stores / NAME
    base = environment.get("XDG_STATE_HOME")
    return (Path(base) if base else home / ".local" / "state") / "nicety" / NAME


class Bookmarks:
    """The bookmarks in a file, the oldest moment first. A file that cannot be read has none, and says why."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble = ""
        """Why the file could not be read or written; "": it could."""
        self._unreadable = False
        self.all = self._read()

    def add(self, wall: float, text: str) -> None:
        """Keep a moment. Another name for the same second replaces the one before."""
        self._keep([*(it for it in self.all if abs(it.wall - wall) >= 0.5), Bookmark(wall, text)])

    def remove(self, wall: float) -> None:
        """Forget a moment."""
        self._keep(it for it in self.all if it.wall != wall)

    def at(self, wall: float, within: float) -> str:
        """What the moment is called that is within so many seconds; "" if there is none."""
        near = [it for it in self.all if abs(it.wall - wall) <= within]
        return min(near, key=lambda it: abs(it.wall - wall)).text if near else ""

    def _keep(self, bookmarks: Iterable[Bookmark]) -> None:
        self.all = sorted(bookmarks, key=lambda it: it.wall)[-MOST:]
        if self._unreadable:
            return  # somebody may still mend it
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            private_directory(self.path.parent)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(self.all))
            new.rename(self.path)
        except (OSError, StoreError) as error:
            self.trouble = f"the bookmarks are not kept: {error}"
        else:
            self.trouble = ""

    def _read(self) -> list[Bookmark]:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=list[Bookmark])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._unreadable = True
            self.trouble = f"the bookmarks cannot be read: {error}; move {self.path} away"
            return []
