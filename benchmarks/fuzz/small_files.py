"""Targets: the small files of the state directory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from nicety.models.forecast.demand import Forecaster
from nicety.scheduler.decision import Feedback
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.store.feedback import FeedbackStore
from nicety.scheduler.store.forecasts import MAGIC, ForecastStore
from nicety.scheduler.store.pauses import LONGEST_NS, Kept, Pauses

from .target import WHOLE, BrokenError, Case, Edits, Target, overwrite, write

NOW, WALL = 10**12, 1_760_011_200 * 10**9


def _seeds() -> Sequence[bytes]:
    feedback = [Feedback("1-2.0", "web", "leak", 1.5, WALL), Feedback("1-3.0", "web", "spin", 2.5, WALL)]
    pauses = [
        Kept("web", "hogs", "starved", seconds, WALL + ns) for seconds, ns in ((60.0, 10**9), (1.0, 10**18), (0.0, -(10**18)))
    ]
    return [*map(msgspec.json.encode, (feedback, pauses)), b"", b"[", b"null", b"[" * 3000, b"[]", b"\xff"]


def _prepare(place: Path) -> Case:
    def run(case: bytes) -> None:
        write(place / "feedback.json", case)
        try:
            FeedbackStore(place).read()
        except StoreError:
            pass
        write(place / "pauses.json", case)
        pauses = Pauses(place)
        for pause in pauses.read(NOW, WALL):
            if not -LONGEST_NS <= pause.until - NOW <= LONGEST_NS:
                raise BrokenError(f"longer than any pause: {pause}")

    return run


_WORDS = (b"null", b"1e999", b"-1", b"9" * 20, b'"ends":', b'"seconds":', b'"value":', b"[", b"]", b"{", b"}", b"\\ud800")

SMALL = Target("feedback and pauses", _seeds, _prepare, _WORDS, share=0.5)

# --- kept forecasts -----------------------------------------------------------------------------------------------------------

KEYS = [("web", "cpu"), ("web", "rss")]
_DIGEST = hashlib.sha256().digest_size


def _forecaster() -> Forecaster:
    return Forecaster(None, 1.0)


def _body(place: Path) -> bytes:
    """What is kept of two series, without magic and checksum."""
    forecaster = _forecaster()
    for tick in range(40):
        forecaster.step(KEYS, np.array([1.0 + tick % 3, 5e9]), float(tick), np.array([0, 1]), np.zeros(2, np.bool_))
    store = ForecastStore(place)
    store.write(forecaster.kept(), 1.0, 0)
    return store.path.read_bytes()[len(MAGIC) + _DIGEST :]


def _kept_seeds() -> Sequence[bytes]:
    damage = [overwrite(place, change) for place in (0, 9, 30, 90, 400, 2000, 9000) for change in (b"\xff\xff\xff\x7f", b"\x01")]
    return [b"", *damage, bytes([WHOLE]), bytes([WHOLE]) + b"\x84", bytes([WHOLE]) + b"\xdf\xff\xff\xff\xff"]


def _prepare_kept(place: Path) -> Case:
    edits = Edits(_body(place))

    def run(case: bytes) -> None:
        body = edits(case)
        write(place / "forecasts.bin", MAGIC + hashlib.sha256(body).digest() + body)
        kept = ForecastStore(place).read(1.0)
        if kept is None:
            return
        forecaster = _forecaster()
        forecaster.remember(kept)
        for tick in (40, 41):
            said = forecaster.step(KEYS, np.ones(2), float(tick), np.array([0, 1]), np.zeros(2, np.bool_))
            if not all(np.isfinite(rows).all() for rows, _ in said):
                raise BrokenError("what was kept gave a forecast that is no number")

    return run


KEPT = Target("kept forecasts", _kept_seeds, _prepare_kept, (b"\xff\xff\x80\x7f", b"\xc0", b"interval", b"parts"), share=0.5)
