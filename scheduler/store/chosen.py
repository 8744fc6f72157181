"""What replays of the load of pools chose: `chosen.json` in the state directory, so that it holds after a restart.

A small file, replaced as a whole. Knows nothing about how the rules were chosen.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..decision import Chosen, Record, Rules
from ..hands.safe_files import StoreError
from .files import replacing

MOST_BYTES = 1 << 20
"""Maximum size of the file. Chosen: an entry takes 250 bytes."""


class ReplayedRules(Record, frozen=True):
    """What some rules would have done."""

    rules: Rules
    size: int  # workers, if it is constant
    seconds: float  # p95 of what the objective is about: latency, or wait
    workers: float  # mean number
    keeps: bool


class PoolReplay(Record, frozen=True):
    """The result of a replay."""

    pool: str
    chosen: Chosen | None  # None: nothing was learned
    table: tuple[ReplayedRules, ...]
    most: float  # seconds that keep the objective
    trouble: str  # why nothing was learned; "": it was


class Kept(Record, frozen=True):
    """Rules that were chosen, and for what."""

    chosen: Chosen
    settings: str  # of the pool: they hold for no others
    wall: int  # ns


class ChosenStore:
    """The chosen rules of a state directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "chosen.json"

    def read(self) -> tuple[Kept, ...]:
        """Those that were kept. Raises StoreError if the file cannot be read."""
        try:
            with self.path.open("rb") as file:
                return msgspec.json.decode(file.read(MOST_BYTES + 1), type=tuple[Kept, ...])
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; run this as the user who runs nicety") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(f"{self.path} is damaged: {error}; remove it, and the loads are replayed again") from None

    def write(self, kept: Iterable[Kept]) -> None:
        """Replace them. Raises StoreError."""
        with replacing(self.path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(list(kept)), indent=1) + b"\n")
