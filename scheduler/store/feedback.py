"""What people said was no incident: `feedback.json` in the state directory, written by `nicety anomalies wrong`, read by the
daemon.

A small file, replaced as a whole: a reader sees the feedback before a change or after it. Knows nothing about what it changes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..decision import Feedback
from ..hands.safe_files import StoreError, private_directory
from .files import replacing

MOST_BYTES = 1 << 20
"""Maximum size of the file. Chosen: an entry takes 120 bytes, so thousands fit."""


class FeedbackStore:
    """The feedback of a state directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "feedback.json"
        self._stamp: tuple[int, int, int] | None = None
        self._known: tuple[Feedback, ...] = ()

    def read(self) -> tuple[Feedback, ...]:
        """The entries in force, sorted by id. The file is read only if it has changed. Raises StoreError if it cannot be read."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._known = None, ()
            return ()
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; run this as the user who runs nicety") from None
        stamp = status.st_ino, status.st_size, status.st_mtime_ns
        if stamp != self._stamp:
            self._known = self._load()
            self._stamp = stamp
        return self._known

    def add(self, item: Feedback) -> None:
        """Add or replace the entry of this id. Raises StoreError."""
        with self._changing() as kept:
            kept[item.id] = item

    def remove(self, id_: str) -> Feedback | None:
        """Remove and return an entry; None if there is none of this id. Raises StoreError."""
        with self._changing() as kept:
            return kept.pop(id_, None)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Feedback]]:
        """The entries, to be changed; one process at a time."""
        directory = os.open(private_directory(self.path.parent), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            kept = {item.id: item for item in self.read()}
            yield kept
            with replacing(self.path) as file:
                file.write(msgspec.json.format(msgspec.json.encode([kept[id_] for id_ in sorted(kept)]), indent=1) + b"\n")
        finally:
            os.close(directory)

    def _load(self) -> tuple[Feedback, ...]:
        try:
            with self.path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
            found = msgspec.json.decode(data, type=tuple[Feedback, ...])
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; run this as the user who runs nicety") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(f"{self.path} is damaged: {error}; correct it, or move it away, which drops all feedback") from None
        return tuple(sorted(found, key=lambda item: item.id))
