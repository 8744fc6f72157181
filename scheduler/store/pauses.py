"""Pauses of demotion between pairs of groups, across restarts: `pauses.json` in the state directory, used by the daemon alone.

A small file, replaced as a whole. Its pauses end at a time of the wall clock, because the monotonic clock restarts at each boot.
Knows nothing about why there is a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from ..decide.policies.priority.pairs import LONGEST, Pause
from ..hands.safe_files import StoreError
from .files import replacing

MOST_BYTES = 4 << 20
"""Maximum size of the file. Chosen: a pause takes 200 bytes, so 20,000 fit."""

EVERY_NS = 10 * 10**9
"""Shortest time between two writes of the file. Chosen: few writes, and a crash loses only the pauses of the last 10 s."""


LONGEST_NS = round(LONGEST * 1e9)


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pause as the file has it."""

    victim: str
    contender: str
    why: str
    seconds: Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]
    ends: int  # wall clock ns


class Pauses:
    """The pauses of a state directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "pauses.json"
        self.trouble = ""
        """Why they cannot be read or written; "" if all is well."""
        self._written: dict[str, Pause] = {}
        self._at: int | None = None  # monotonic ns of the last try

    def read(self, at: int, wall: int) -> list[Pause]:
        """The pauses of the previous run, as of now: monotonic and wall clock ns. Empty if the file cannot be used, see `trouble`.

        A clock that was set makes no pause longer than it was meant to be.
        """
        try:
            with self.path.open("rb") as file:
                found = msgspec.json.decode(file.read(MOST_BYTES + 1), type=tuple[Kept, ...])
        except FileNotFoundError:
            return []
        except OSError as error:
            self.trouble = f"{self.path}: {error.strerror}; run this as the user who runs nicety"
            return []
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self.trouble = f"{self.path} is damaged: {error}; it is written anew when there is a pause"
            return []
        pauses = []
        for kept in found:
            left = max(-LONGEST_NS, min(kept.ends - wall, round(kept.seconds * 1e9), LONGEST_NS))
            pauses.append(Pause(kept.victim, kept.contender, kept.why, kept.seconds, at + left))
        return pauses

    def write(self, pauses: Mapping[str, Pause], at: int, wall: int, *, last: bool = False) -> None:
        """Write these if they differ from what was written last. `last`: even within `EVERY_NS`. Never raises, see `trouble`."""
        if pauses == self._written or (not last and self._at is not None and at - self._at < EVERY_NS):
            return
        self._at = at
        kept = [
            Kept(pause.victim, pause.contender, pause.why, pause.seconds, wall + pause.until - at)
            for _, pause in sorted(pauses.items())
        ]
        try:
            with replacing(self.path) as file:
                file.write(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
        except StoreError as error:
            self.trouble = str(error)
            return
        self._written, self.trouble = dict(pauses), ""
