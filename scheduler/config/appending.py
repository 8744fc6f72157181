"""Appends a block `[pools.NAME]` to a configuration file. All that stands there stays as it is, letter by letter.

The whole new text is read by the parser before it is written. It replaces the file in one step, so a daemon that reloads meanwhile
reads the old text or the new one.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from ..hands.safe_files import sync_directory
from .paths import PathError, read_config, uid_of
from .sections import Config, ConfigError, parse

_NEW_MODE = 0o644  # of a file that is not there yet: it holds no secrets before somebody writes one
_BY_HAND = "write it there by hand (--print shows it)"


def read_or_empty(path: Path, uid: int) -> Config:
    """The configuration in a file; the defaults if there is none. Errors as in `read_config`."""
    return read_config(path, uid) if os.path.lexists(path) else Config()


def append_pool(path: Path, name: str, block: str, uid: int) -> None:
    """Append the block of the pool `name`, and create the file if there is none. A link stays, what it leads to is replaced.

    Raises PathError if the file has the pool already, cannot be written, or was changed meanwhile; ConfigError if it has errors, or
    cannot take a block at its end. Nothing is written then.
    """
    before = read_or_empty(path, uid)
    if name in before.pools:
        raise PathError(f"{path} has [pools.{name}] already; change it there, or give another name (--as)")
    target = Path(os.path.realpath(path))
    found = _bytes(target)
    text = found.decode() if found is not None else ""
    whole = _joined(text, block)
    try:
        after = parse(whole, str(path), uid_of)
    except ConfigError as error:
        cause = "; ".join(error.problems)
        raise ConfigError(
            [f"{path} cannot take the block at its end ({cause}); write it there by hand (--print shows it)"]
        ) from None
    others = {other: pool for other, pool in after.pools.items() if other != name}
    if name not in after.pools or msgspec.structs.replace(after, pools=others) != before:
        raise PathError(f"{path} would mean something else with the block at its end: {_BY_HAND}")
    try:
        _replace(target, found, whole.encode())
    except OSError as error:
        raise PathError(f"{path} cannot be written: {error.strerror}; run this as its owner, or use --print") from None


def _bytes(target: Path) -> bytes | None:
    """What is in the file; None if there is none."""
    try:
        return target.read_bytes()
    except FileNotFoundError:
        return None


def _joined(text: str, block: str) -> str:
    """The text with the block after a blank line, in the line ends that the text has."""
    if not text.strip():
        return text + block
    ends = "" if text.endswith("\n") else "\n"
    added = f"{ends}\n{block}"
    return text + (added.replace("\n", "\r\n") if "\r\n" in text else added)


def _replace(target: Path, before: bytes | None, now: bytes) -> None:
    """Replace the file in one step, with its mode and owner. Raises PathError if it is not `before` any more, and OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, no path
            file.write(now)
            file.flush()
            if before is None:
                os.fchmod(descriptor, _NEW_MODE)
            else:
                old = target.stat()
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, old.st_mode & 0o7777)
            os.fsync(descriptor)
        if _bytes(target) != before:
            raise PathError(f"{target} was changed meanwhile; nothing was written, run this again")
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_directory(target.parent)
