"""What forecasts have learned of groups and pools, across restarts: `forecasts.bin` in the state directory, for the daemon alone.

A magic line, the SHA-256 of the rest, and one msgpack record with the names of the series and raw arrays. Their types and
shapes are not taken from the file. It is replaced as a whole. It can be lost without harm: everything is learned again then.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np

from ...models.forecast.kept import Kept
from ..hands.safe_files import StoreError
from .files import for_root, replacing

MAGIC = b"nicety forecasts 1\n"
"""Begins the file. Another version has another number; its file is not read."""

MOST_BYTES = 64 << 20
"""Maximum size of the file. Chosen: 4,096 series take 28 MiB."""

EVERY_NS = 900 * 10**9
"""Time between two writes. Chosen: a crash loses a quarter of an hour of habits that took days. 200 series take 1.4 MB, 15 ms."""

_DIGEST = hashlib.sha256().digest_size


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    interval: float  # seconds per tick
    keys: list[tuple[str, str]]  # group or pool, metric
    at: list[float]  # seconds since 1970 of the last value of each
    parts: dict[str, bytes]


_ENCODE, _DECODER = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_Record)


class ForecastStore:
    """The kept forecasts of a state directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "forecasts.bin"
        self.trouble = ""
        """Why they cannot be read or written; "" if all is well."""
        self._due: int | None = None  # monotonic ns of the next write; None: at the first tick it is only noted

    def read(self, interval: float) -> Kept | None:
        """What was kept at this many seconds per tick. None: nothing, or it cannot be used, see `trouble`."""
        try:
            for_root(self.path)
            with self.path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
            found = _record(data)
            if found.interval != interval:
                return None
            return Kept.from_bytes(found.keys, found.at, found.parts)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.trouble = f"{self.path}: {error.strerror}; run this as the user who runs nicety"
        except StoreError as error:
            self.trouble = str(error)
        except (ValueError, msgspec.MsgspecError) as error:
            self.trouble = f"{self.path} is damaged: {error}; forecasts learn the habits of groups again"
        return None

    def due(self, at: int) -> bool:
        """Whether to write now. `at`: monotonic ns."""
        if self._due is None:
            self._due = at + EVERY_NS
        return at >= self._due

    def write(self, kept: Kept, interval: float, at: int) -> None:
        """Replace the file. Never raises, see `trouble`."""
        self._due = at + EVERY_NS
        keys = [(str(target), str(metric)) for target, metric in kept.keys]
        body = _ENCODE(_Record(interval, keys, np.asarray(kept.at).tolist(), kept.to_bytes()))
        try:
            with replacing(self.path) as file:
                file.write(MAGIC)
                file.write(hashlib.sha256(body).digest())
                file.write(body)
        except StoreError as error:
            self.trouble = str(error)
            return
        self.trouble = ""


def _record(data: bytes) -> _Record:
    """Raises ValueError and msgspec.MsgspecError."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
    if not data.startswith(MAGIC):
        raise ValueError("it is of another version of nicety, or something else")
    body = memoryview(data)[len(MAGIC) + _DIGEST :]
    if hashlib.sha256(body).digest() != data[len(MAGIC) : len(MAGIC) + _DIGEST]:
        raise ValueError("its checksum does not fit")
    return _DECODER.decode(body)
