"""Waiting files of a spool, counted by a glob. Must not know what is in them."""

from __future__ import annotations

import errno
import fnmatch
import os
from pathlib import Path

from .waiting import Count, CountError

MAX_ENTRIES = 20_000
"""Most directory entries read in one count. Chosen: they take about 10 ms. A larger spool counts as what was read of it."""


class FileCounter:
    """Files that match a glob: `*`, `?`, `[...]` in any part of the path. Neither directories nor, as in a shell, hidden files."""

    def __init__(self, pattern: str, limit: int = MAX_ENTRIES) -> None:
        self._parts = Path(pattern).parts
        self._limit = limit

    def step(self, now: int) -> Count:  # noqa: ARG002 - a count of files needs no time
        """The number of files now, as far as `limit` directory entries show it."""
        budget = self._limit
        folders = [Path(self._parts[0])] if Path(*self._parts).is_absolute() else [Path()]
        parts = self._parts[1:] if Path(*self._parts).is_absolute() else self._parts
        for part in parts[:-1]:
            if not _has_wildcard(part):
                folders = [folder / part for folder in folders]
                continue
            matches: list[Path] = []
            for folder in folders:
                found, budget = _matching(folder, part, budget, want_files=False, missing_ok=True)
                matches += [folder / name for name in found]
            folders = sorted(matches)
        count = 0
        for folder in folders:
            found, budget = _matching(folder, parts[-1], budget, want_files=True, missing_ok=len(folders) > 1)
            count += len(found)
        return Count(count)

    def close(self) -> None:
        """Nothing is held."""


def _has_wildcard(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _matching(folder: Path, pattern: str, budget: int, *, want_files: bool, missing_ok: bool) -> tuple[list[str], int]:
    found: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if budget <= 0:
                    break
                budget -= 1
                if entry.name.startswith(".") and not pattern.startswith("."):
                    continue
                if fnmatch.fnmatchcase(entry.name, pattern) and (entry.is_file() if want_files else entry.is_dir()):
                    found.append(entry.name)
    except OSError as error:
        if not (missing_ok and error.errno in {errno.ENOENT, errno.ENOTDIR}):
            raise CountError(f"folder {folder}: {error.strerror}; create it, or correct queue.files") from None
    return found, budget
