"""What the hands take from the configuration: they read the file themselves, so that nobody who asks them can change their limits.

The daemon has checked the file and says what is wrong with it; here only what the hands need is looked at.
"""

from __future__ import annotations

import os
import stat

from ...models.lean import NamedTuple
from .limits import NO_BOUNDS, Bounds
from .safe_files import StoreError

LARGEST = 1 << 20
"""Most bytes of a configuration (chosen)."""


class SettingsError(StoreError):
    """The configuration cannot be used; the text says why."""


class HandsSettings(NamedTuple):
    """What the hands go by."""

    bounds: Bounds = NO_BOUNDS
    undo_on_exit: bool = True
    table: dict[str, object] = {}  # noqa: RUF012 - the whole file, never changed


def read(path: str) -> HandsSettings:
    """Settings of a configuration; "": the defaults. Raises SettingsError."""
    if not path:
        return HandsSettings()
    import tomllib  # with typing and datetime it takes 1.3 MiB, of the hands and of the eyes: only who has a file needs it

    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    if stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_IWOTH:
        raise SettingsError(f"{path}: everybody may write it, so the hands do not use it; run `chmod o-w {path}`")
    try:
        return _settings(tomllib.loads(data.decode()))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise SettingsError(f"{path}: {error}") from None


def _settings(table: dict[str, object]) -> HandsSettings:
    """Raises ValueError for a value of another type."""
    guard, daemon = _section(table, "guard"), _section(table, "daemon")
    undo = daemon.get("undo_on_exit", True)
    users, most = guard.get("users", []), guard.get("values_per_minute", NO_BOUNDS.values_per_minute)
    protect = guard.get("protect", list(NO_BOUNDS.protect))
    if not isinstance(undo, bool) or not isinstance(most, int):
        raise ValueError("daemon.undo_on_exit or guard.values_per_minute has another type")
    if not isinstance(users, list) or not all(isinstance(user, int) for user in users):
        raise ValueError("guard.users is no list of uids")
    if not isinstance(protect, list) or not all(isinstance(each, str) for each in protect):
        raise ValueError("guard.protect is no list of patterns")
    return HandsSettings(Bounds(tuple(protect), tuple(users), most), undo, table)


def _section(table: dict[str, object], name: str) -> dict[str, object]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise ValueError(f"[{name}] is no section")
    return section
