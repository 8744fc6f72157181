"""How many workers an executor should have: what its program asked for, or else what nicety asked for on the board.

Runs in the user's program. Must not know tasks or workers.
"""

from __future__ import annotations

import time

from .board import CAPACITY, VALUE_MASK, Word
from .gate import Gate

_SECOND = 1_000_000_000
HANDS_OFF_NS = 60 * _SECOND
"""For this long after the program's own resize(), requests of nicety are ignored: the program's author knows better. Chosen, and
the same for all kinds of pools (docs/pools.md)."""


class Sizing:
    """The size, its limits, and who set it last.

    Any thread may call `resize` and read `target`. Only the manager thread calls `follow`. Both write under the lock of the gate,
    so a request of nicety never overwrites a later resize() of the program.
    """

    def __init__(self, gate: Gate, words: memoryview, target: int, minimum: int, maximum: int, *, eager: bool) -> None:
        self.target = target
        self.eager = eager
        """Whether workers are started before they are needed."""
        self.asked = 0
        """The last request on the board that was read."""
        self._gate = gate
        self._words = words
        self._own_resize_at: int | None = None
        words[Word.MINIMUM] = minimum
        words[Word.MAXIMUM] = min(maximum, CAPACITY)
        words[Word.TARGET] = target

    def resize(self, size: int) -> None:
        """Set the size for the program itself. Raises RuntimeError after shutdown, BrokenProcessPool if broken."""
        gate = self._gate
        with gate.lock:
            if gate.broken or gate.closing:
                raise gate.refusal("cannot resize after shutdown")
            self._own_resize_at = time.monotonic_ns()
            self.target = size
            self.eager = True
            words = self._words
            words[Word.TARGET] = size
            words[Word.MAXIMUM] = min(max(words[Word.MAXIMUM], size), CAPACITY)
            words[Word.OWN_RESIZES] += 1

    def follow(self, request: int, now: int) -> None:
        """Follow nicety's request for a size, unless the program's own resize is recent or the size is outside its limits. `now` in
        monotonic ns."""
        words = self._words
        with self._gate.lock:
            self.asked = request
            size = request & VALUE_MASK
            own = self._own_resize_at
            hands_off = own is not None and now - own < HANDS_OFF_NS
            if not hands_off and words[Word.MINIMUM] <= size <= words[Word.MAXIMUM]:
                self.target = size
                self.eager = True
                words[Word.TARGET] = size
            words[Word.ANSWERED] = request
