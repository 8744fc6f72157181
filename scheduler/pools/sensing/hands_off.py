"""The operator wins: whether somebody else has resized a pool, and how long nicety then leaves it alone.

Must not know kinds of pools, processes or the clock. The same pause follows when a pool does not do what was asked of it.
"""

from __future__ import annotations

import logging

from ...hands.faults import Status

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
HANDS_OFF_NS = 60 * _SECOND
"""How long a pool is left alone after somebody else last changed its size. Chosen (docs/pools.md)."""
QUIET = f"hands off until {HANDS_OFF_NS // _SECOND} s of quiet"
"""HANDS_OFF_NS in words."""


class HandsOff:
    """Whether a pool is left alone now, and why. Logged once when it begins and once when it ends."""

    def __init__(self, pool: str, members: str = "workers") -> None:
        self.text = ""
        """Why it is left alone; "" if it is not."""
        self._status = Status.FOREIGN
        self._pool, self._members = pool, members
        self._until = 0

    def begin(self, text: str, status: Status, now: int) -> None:
        """Leave the pool alone from now on, because of `text`."""
        if text != self.text:
            log.warning("pool %s: %s", self._pool, text)
        self.text, self._status = text, status
        self._until = now + HANDS_OFF_NS

    def lasts(self, now: int, size: int, changed_at: int = 0) -> bool:
        """Whether it is still left alone: until HANDS_OFF_NS after its begin and after `changed_at`, the last change of size."""
        if not self.text:
            return False
        self._until = max(self._until, changed_at + HANDS_OFF_NS)
        if now < self._until:
            return True
        self.end()
        log.info("pool %s: sized by nicety again, from %d %s", self._pool, size, self._members)
        return False

    def answer(self, trouble: str) -> tuple[Status, str]:
        """The answer to a request during `trouble`, whether that is this pause or something else."""
        return (self._status if trouble == self.text else Status.REFUSED), trouble

    def end(self) -> None:
        """End the pause: its reason is gone, or the pool is."""
        self.text = ""


class ForeignSize:
    """Tells a size set by somebody else from a crash: more, or fewer, than asked for, for longer than a crash lasts."""

    def __init__(self, up_ns: int, down_ns: int) -> None:
        self._up_ns, self._down_ns = up_ns, down_ns
        self._above_since: int | None = None
        self._below_since: int | None = None

    def seen(self, now: int, *, above: bool, below: bool) -> bool:
        """Whether it is certain now. Call it at each look, with whether there are more, or fewer, than the pool accounts for."""
        self._above_since = (self._above_since or now) if above else None
        self._below_since = (self._below_since or now) if below else None
        grown = self._above_since is not None and now - self._above_since >= self._up_ns
        return grown or (self._below_since is not None and now - self._below_since >= self._down_ns)

    def reset(self) -> None:
        """Drop all suspicion."""
        self._above_since = self._below_since = None
