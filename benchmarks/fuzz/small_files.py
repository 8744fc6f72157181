"""Targets: the small JSON files of the state directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from nicety.scheduler.decision import Feedback
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.store.feedback import FeedbackStore
from nicety.scheduler.store.pauses import LONGEST_NS, Kept, Pauses

from .target import BrokenError, Case, Target, write

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
