"""What pools did before this session, from nicety's traces, so that the seasonal pattern of a load need not be learned again.

Only reads. Must not know what a seasonal pattern is. Reading is bounded in time. What cannot be read counts as not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ...models.forecast.seasonality import MEMORY
from ...models.records import PoolSample
from ..decision import WarmStart
from ..hands.safe_files import StoreError
from ..store.traces import PoolsTick, newest_pools

Past = list[tuple[int, tuple[PoolSample, ...]]]
"""(monotonic ns of this boot, the pools at that time), oldest first."""

MOST = 2 * MEMORY
"""Maximum ticks times pools to look back on. Chosen: following one load for MEMORY ticks takes 0.3 to 0.7 s of CPU on a cloud
machine."""


def start_warm(traces: Path, boot_id: str, at: int, wall: int, pools: int, in_time: Callable[[], bool]) -> tuple[Past, WarmStart]:
    """As many of the newest ticks as a seasonal pattern remembers; fewer if there are many `pools`, or once `in_time` is false.

    `at`, `wall`: now, in ns. Raises StoreError if nothing can be read.
    """
    most = min(MEMORY, MOST // max(pools, 1))
    found = _newest(traces, most, None, in_time)
    return _timed(found, boot_id, at, wall), WarmStart(len(found), at, wall)


def start_warm_again(traces: Path, boot_id: str, session: str, warm_start: WarmStart) -> Past | None:
    """What `start_warm` returned for that session, for its replay. None if the traces no longer have all of it."""
    try:
        found = _newest(traces, warm_start.ticks, session, lambda: True)
    except StoreError:
        return None
    return _timed(found, boot_id, warm_start.at, warm_start.wall) if len(found) == warm_start.ticks else None


def _newest(traces: Path, most: int, before: str | None, in_time: Callable[[], bool]) -> list[PoolsTick]:
    pieces: list[list[PoolsTick]] = []
    if most > 0:
        for piece in newest_pools(traces, before=before):
            pieces.append(piece)
            if sum(map(len, pieces)) >= most or not in_time():
                break
    ticks = [tick for piece in reversed(pieces) for tick in piece]
    return ticks[max(len(ticks) - most, 0) :]


def _timed(ticks: list[PoolsTick], boot_id: str, at: int, wall: int) -> Past:
    """Ticks with their times on the clock of this boot. Ticks of earlier boots are placed by the wall clock; those that would not
    lie in the past are left out."""

    def placed() -> Iterator[tuple[int, tuple[PoolSample, ...]]]:
        for tick in ticks:
            when = tick.at if tick.recording.boot_id == boot_id else at - (wall - tick.wall)
            if when < at:
                yield when, tick.pools

    return list(placed())
