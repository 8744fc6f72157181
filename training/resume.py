"""What an unfinished training has done so far, kept so that the same training resumes there when it is started again. Knows names,
plain data and arrays, not what they mean.

    STATE/training/KEY/NAME.part    one result; KEY is a digest of what the training was asked for
    STATE/training/KEY/lock         held by the training that is under way

A part is a line that says what it is, the SHA-256 of all that follows, the length of a JSON head, the head, and the bytes of the
arrays. Everything read is treated as hostile: only a whole file that belongs to us and that no other user could have written is
accepted, its arrays hold plain numbers, nothing is unpickled. A part that cannot be used is skipped with a sentence, and its work
is done again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..scheduler.hands.safe_files import StoreError, private_directory
from ..scheduler.store.files import replacing

STALE_SECONDS = 7 * 86_400
"""Seconds after which an interrupted training that was not resumed is removed (chosen)."""

MAGIC = b"nicety training part 1\n"
DTYPES = ("<f8", "<f4", "<i8", "<i4", "<u8", "<u4", "|b1", "|u1")

_NAME = re.compile(r"[a-z0-9-]{1,64}")
_KEY = re.compile(r"[0-9a-f]{32}")
_DIGEST_BYTES, _LENGTH_BYTES = 32, 8

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class SavedPart:
    """What was saved under a name. The arrays are read-only."""

    plain: Any  # as in JSON
    arrays: dict[str, NDArray[Any]]


class Parts:
    """The parts of one training. If they cannot be kept, that is reported once and training goes on without."""

    def __init__(self, directory: Path, asked: Mapping[str, Any], most: int, say: Callable[[str], None]) -> None:
        """`directory`: the state directory. `asked`: what the training was asked for, plain data: only the same request finds the
        parts again. `most`: largest part in bytes that is read. `say` is called with each problem, a sentence each."""
        self._say = say
        self._most = most
        self._lock: int | None = None
        self._place: Path | None = None
        self._full = False  # a part could not be written: no more are, so that they stay those of one course
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
        try:
            root = private_directory(private_directory(directory) / "training")
            _forget_stale(root, key)
            place = private_directory(root / key)
            self._lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(place)
        except BlockingIOError:
            self._say("the same training is running already; this one cannot be resumed if it is interrupted")
            return
        except (StoreError, OSError) as error:
            self._say(f"this training cannot be resumed if it is interrupted: {error}")
            return
        self._place = place

    @property
    def kept(self) -> bool:
        """Whether an interrupted training can be resumed."""
        return self._place is not None and not self._full

    def load(self, name: str) -> SavedPart | None:
        """What was saved under the name; None if nothing usable was."""
        path = self._path(name)
        if path is None:
            return None
        try:
            return _read(path, self._most)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._say(f"{path} cannot be used, so its work is done again: {error}")
            return None

    def save(self, name: str, plain: Any, arrays: Arrays) -> None:
        """Keep a result, whole or not at all."""
        path = self._path(name)
        if path is None:
            return
        packed = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        wrong = [key for key, array in packed.items() if array.dtype.str not in DTYPES]
        if wrong:
            raise TypeError(f"arrays of plain numbers only, not {', '.join(wrong)}")
        shapes = [[key, array.dtype.str, list(array.shape)] for key, array in packed.items()]
        head = json.dumps({"plain": plain, "arrays": shapes}).encode()
        pieces: list[bytes | memoryview] = [
            len(head).to_bytes(_LENGTH_BYTES, "little"),
            head,
            *(array.data.cast("B") for array in packed.values() if array.size),
        ]
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        try:
            with replacing(path) as file:
                for piece in (MAGIC, digest.digest(), *pieces):
                    file.write(piece)
        except StoreError as error:
            self._say(f"this training cannot be resumed if it is interrupted: {error}")
            self._full = True

    def clear(self) -> None:
        """The training is done: forget the parts."""
        place, self._place = self._place, None
        if place is not None:
            _remove(place)
            try:
                place.parent.rmdir()  # unless there are others
            except OSError:
                pass
        self.close()

    def close(self) -> None:
        """Release the lock; the parts stay."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._place = None

    def _path(self, name: str) -> Path | None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a part")
        return None if self._place is None or self._full else self._place / f"{name}.part"


def _read(path: Path, most: int) -> SavedPart:
    """The part in a file. Raises OSError, and ValueError for anything that `Parts.save` does not write."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022 or found.st_nlink != 1:
            raise ValueError("it is not a file that only this user could have written")
        if found.st_size > most:
            raise ValueError(f"it has {found.st_size} bytes, more than this training may take")
        data = file.read(found.st_size)
    begin = len(MAGIC) + _DIGEST_BYTES
    if len(data) < begin + _LENGTH_BYTES or not data.startswith(MAGIC):
        raise ValueError("it is no part of a training, or of another version")
    if hashlib.sha256(memoryview(data)[begin:]).digest() != data[len(MAGIC) : begin]:
        raise ValueError("it is damaged: its checksum does not hold")
    start = begin + _LENGTH_BYTES
    length = int.from_bytes(data[begin:start], "little")
    try:
        head = json.loads(data[start : start + length])
        listed, plain = [(str(name), str(dtype), tuple(map(int, shape))) for name, dtype, shape in head["arrays"]], head["plain"]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its head is not as it should be: {type(error).__name__} {error}") from None
    arrays: dict[str, NDArray[Any]] = {}
    at = start + length
    for name, dtype, shape in listed:
        if dtype not in DTYPES or min(shape, default=0) < 0 or name in arrays:
            raise ValueError(f"its array {name!r} of {dtype} {shape} is none that belongs there")
        count = math.prod(shape)
        end = at + count * np.dtype(dtype).itemsize
        if end > len(data):
            raise ValueError(f"its array {name!r} is longer than it is")
        arrays[name] = np.frombuffer(data, dtype, count, at).reshape(shape) if count else np.empty(shape, dtype)
        at = end
    if at != len(data):
        raise ValueError("it has more bytes than arrays")
    return SavedPart(plain, arrays)


def _forget_stale(root: Path, key: str) -> None:
    """Remove what was interrupted long ago."""
    for place in sorted(root.iterdir()):
        if place.name == key or not _KEY.fullmatch(place.name) or place.is_symlink() or not place.is_dir():
            continue
        if time.time() - place.stat().st_mtime > STALE_SECONDS:
            _remove(place)


def _remove(place: Path) -> None:
    """Remove a folder of parts. Files that do not belong there stay, and then so does the folder."""
    try:
        for path in place.iterdir():
            if path.suffix == ".part" or path.name == "lock":
                path.unlink(missing_ok=True)
        place.rmdir()
    except OSError:
        pass
