"""What a target of fuzzing is, and how bytes of a fuzzer become damage to a valid file. Knows no engine and nothing of nicety."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Case = Callable[[bytes], None]
"""Runs one case. Whatever it raises is a fault: errors that the code under test documents do not leave it."""


class BrokenError(AssertionError):
    """The code under test ended as documented, but what it returned breaks a promise."""


@dataclass(frozen=True, slots=True)
class Target:
    """Code that reads bytes from outside.

    `seeds` makes the first cases: valid ones, of some hundred bytes. `prepare` gets an empty directory that nobody else uses, and
    returns what runs a case there.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    prepare: Callable[[Path], Case]
    words: tuple[bytes, ...] = ()  # what mutations may insert: key words of the format
    longest: int = 4096  # bytes of a case
    share: float = 1.0  # of all cases, in proportion to those of the other targets


@contextmanager
def workplace() -> Iterator[Path]:
    """A private directory in memory if there is a place for one: a case writes files, and no disk must wear out by them."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="nicety-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def write(path: Path, data: bytes) -> None:
    """Write a file as nicety does: nobody else may read or write it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


WHOLE = 0xFF
"""First byte of a case that is a whole file itself, and not a list of edits."""

_OVERWRITE, _CUT, _COPY = 0, 1, 2


class Edits:
    """Reads a case as a list of edits of a valid file, so that a case of 5 bytes can damage a file of 100,000.

    An edit is three bytes of place, one byte of kind and length, then its data. It overwrites bytes, cuts the file off, or copies
    a page of the file over another. Places count only bytes that are not 0: most of a database is empty.
    """

    def __init__(self, whole: bytes, page: int = 512) -> None:
        self._whole = whole
        self._page = page
        self._places = [place for place, byte in enumerate(whole) if byte]

    def of(self, found: bytes, change: bytes) -> bytes:
        """A case that overwrites the beginning of the first `found` in the file. No byte of `change` and `found` may be 0."""
        return overwrite(self._places.index(self._whole.index(found)), change)

    def __call__(self, case: bytes) -> bytes:
        """The file after these edits."""
        if case[:1] == bytes([WHOLE]):
            return case[1:]
        file = bytearray(self._whole)
        at = 0
        while at + 4 <= len(case):
            place = self._places[int.from_bytes(case[at : at + 3], "big") % len(self._places)]
            kind, length = divmod(case[at + 3], 64)
            at += 4
            if kind == _CUT:
                del file[place:]
            elif kind == _COPY:
                first = place // self._page * self._page
                onto = length * self._page % len(self._whole)
                part = file[first : first + self._page]
                file[onto : onto + len(part)] = part
            else:
                data = case[at : at + length]
                file[place : place + len(data)] = data
                at += length
        return bytes(file)


def overwrite(place: int, data: bytes) -> bytes:
    """The edit that puts up to 63 bytes at the byte that is not 0 and has this number."""
    return place.to_bytes(3, "big") + bytes([len(data)]) + data


DAMAGE = (
    b"",
    overwrite(0, b"\0"),
    overwrite(18, b"\2\2"),
    overwrite(40, b"\xff\xff\xff\xff"),
    overwrite(100, b"\x7f" * 8),
    overwrite(500, b"\x80" * 9) + overwrite(900, b"\0\0"),
    overwrite(2000, b"'") + overwrite(3000, b"\xc3"),
    b"\0\2\0" + bytes([_CUT << 6]),
    b"\0\1\0" + bytes([_COPY << 6 | 9]),
    bytes([WHOLE]),
    bytes([WHOLE]) + b"SQLite format 3\0",
)
"""First cases for `Edits` of a database: no edit, some of each kind, and files that are none."""
