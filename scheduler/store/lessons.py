"""What people said was no incident: `lessons.json` in the state directory, written by `nicety anomalies wrong`, read by the daemon.

A small file, replaced as a whole: a reader sees the lessons before a change or after it. Knows nothing about what a lesson changes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..decision import Lesson
from .files import StoreError, private_directory, replacing

MOST_BYTES = 1 << 20
"""Maximum size of the file; a lesson takes 120 bytes."""


class Lessons:
    """The lessons of a state directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lessons.json"
        self._stamp: tuple[int, int, int] | None = None
        self._known: tuple[Lesson, ...] = ()

    def read(self) -> tuple[Lesson, ...]:
        """The lessons in force, sorted by id. The file is read only if it has changed. Raises StoreError if it cannot be read."""
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

    def add(self, lesson: Lesson) -> None:
        """Add or replace the lesson of this id. Raises StoreError."""
        with self._changing() as kept:
            kept[lesson.id] = lesson

    def remove(self, id_: str) -> Lesson | None:
        """Remove and return a lesson; None if there is none of this id. Raises StoreError."""
        with self._changing() as kept:
            return kept.pop(id_, None)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Lesson]]:
        """The lessons, to be changed; one process at a time."""
        directory = os.open(private_directory(self.path.parent), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            kept = {lesson.id: lesson for lesson in self.read()}
            yield kept
            with replacing(self.path) as file:
                file.write(msgspec.json.format(msgspec.json.encode([kept[id_] for id_ in sorted(kept)]), indent=1) + b"\n")
        finally:
            os.close(directory)

    def _load(self) -> tuple[Lesson, ...]:
        try:
            with self.path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
            found = msgspec.json.decode(data, type=tuple[Lesson, ...])
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; run this as the user who runs nicety") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(f"{self.path} is damaged: {error}; correct it, or move it away: then no lesson is in force") from None
        return tuple(sorted(found, key=lambda lesson: lesson.id))
