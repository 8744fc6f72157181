"""Clocks that tests move. Must not know real time."""

from __future__ import annotations

from collections.abc import Callable

from ..hands.kernel import Clock


class FakeClock:
    """`ports.Clock` for tests: sleeping moves it at once, and it can jump as after a suspend or a change of the wall clock.

    >>> clock = FakeClock(monotonic=5_000_000_000)
    >>> clock.sleep_until(7_000_000_000)
    >>> clock.monotonic(), clock.wall() - FakeClock.START
    (7000000000, 2000000000)
    """

    START = 1_700_000_000_000_000_000
    """Wall clock ns at which fakes begin."""

    def __init__(self, monotonic: int = 1_000_000_000, wall: int = START, on_sleep: Callable[[int], None] | None = None) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._on_sleep = on_sleep
        self.sleeps: list[int] = []
        """What `sleep_until` was asked for, ns."""

    def monotonic(self) -> int:
        """ns"""
        return self._monotonic

    def wall(self) -> int:
        """ns since 1970"""
        return self._wall

    def sleep_until(self, at: int) -> None:
        """Move to `at`, if that is ahead; then call `on_sleep`, which may jump further or end the test."""
        self.sleeps.append(at)
        self.advance(max(0, at - self._monotonic))
        if self._on_sleep is not None:
            self._on_sleep(at)

    def advance(self, ns: int) -> None:
        """Let time pass on both clocks. Raises ValueError for a negative time: the monotonic clock never goes back."""
        if ns < 0:
            raise ValueError(f"time does not pass backwards: {ns} ns")
        self._monotonic += ns
        self._wall += ns

    def set_wall(self, wall: int) -> None:
        """Set the wall clock, forwards or backwards; the monotonic clock is not affected."""
        self._wall = wall


class ShiftedClock:
    """Another clock, such as the real one, plus what a test adds to `shift` (ns): for its users a minute passes at once.

    `sleeps=False` is for code that must never wait: sleeping is an AssertionError.
    """

    def __init__(self, clock: Clock, *, sleeps: bool = True) -> None:
        self.shift = 0
        self._clock = clock
        self._sleeps = sleeps

    def monotonic(self) -> int:
        """ns"""
        return self._clock.monotonic() + self.shift

    def wall(self) -> int:
        """ns since 1970, not shifted"""
        return self._clock.wall()

    def sleep_until(self, at: int) -> None:
        """Return when `monotonic()` has reached `at`."""
        assert self._sleeps, "it must never wait"
        self._clock.sleep_until(at - self.shift)
