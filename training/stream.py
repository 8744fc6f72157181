"""Runs series through the experts of the runtime and keeps what they say at chosen origins: a demand model learns from it and is
judged on it. Knows runs and experts, not where runs come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.forecast.demand import DEMAND_FEATURES, fallback, rows
from ..models.forecast.experts import Experts, Floats, Ints, Singles
from ..models.records import HORIZONS, QUANTILES

TOGETHER = 1024
"""Series that advance together: enough for numpy to do the work, few enough for their state to stay in the cache (chosen)."""


@dataclass(frozen=True, slots=True)
class SeriesRun:
    """Consecutive values of one series."""

    target: str
    metric: str
    start: int  # tick of the first value
    values: NDArray[np.float32]
    at: float = 0.0  # seconds since 1970 of the first value
    owner: str = ""  # as in `quotas`


@dataclass(frozen=True, slots=True)
class Samples:
    """What the experts said at origins, and what came after. In the series' own values; n origins."""

    rows: Singles  # [n, H, len(DEMAND_FEATURES)]
    start: Singles  # [n, H, Q] what the fallback answers, in spreads
    point: Floats  # [n, H] what the experts agree on
    spread: Floats  # [n, H] size of its errors
    targets: Floats  # [n, H]; NaN: the series had ended
    run: Ints  # [n] the run it belongs to
    origin: Ints  # [n] place in it

    def __len__(self) -> int:
        return len(self.run)

    def answers(self) -> Floats:
        """[n, H] the right answer; NaN where none exists because the series ended or did not move."""
        return np.asarray((self.targets - self.point) / np.where(self.spread > 0, self.spread, np.nan))

    def values(self, answers: Floats) -> Floats:
        """[n, H, Q] forecasts from answers [n, H, Q]."""
        said = self.point[:, :, None] + self.spread[:, :, None] * np.sort(answers, axis=2)
        return np.maximum(said, 0.0)

    def part(self, chosen: NDArray[np.bool_] | Ints) -> Samples:
        """Some of the origins."""
        return Samples(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def stream(
    runs: Sequence[SeriesRun],
    origins: Sequence[Ints],
    interval: float,
    progress: Callable[[int], bool] = lambda _: True,
) -> Samples:
    """Samples at `origins`, places in each run, sorted by run and place. The same arguments give the same samples.

    `progress` is called with the number of values done; false ends early, and origins that were not reached are left out.
    """
    total = sum(len(places) for places in origins)
    h, q = len(HORIZONS), len(QUANTILES)
    made = Samples(
        np.empty((total, h, len(DEMAND_FEATURES)), dtype=np.float32),
        np.empty((total, h, q), dtype=np.float32),
        np.empty((total, h)),
        np.empty((total, h)),
        np.full((total, h), np.nan),
        np.empty(total, dtype=np.int64),
        np.empty(total, dtype=np.int64),
    )
    first = np.concatenate([[0], np.cumsum([len(places) for places in origins])])
    for which, places in enumerate(origins):
        mine = slice(first[which], first[which + 1])
        made.run[mine], made.origin[mine] = which, places
        values = runs[which].values
        then = places[:, None] + np.asarray(HORIZONS)
        made.targets[mine] = np.where(then < len(values), values[np.minimum(then, len(values) - 1)], np.nan)
    wanted = sorted((which for which in range(len(runs)) if len(origins[which])), key=lambda which: -int(origins[which][-1]))
    behind, reached = 0, np.zeros(total, dtype=np.bool_)
    for low in range(0, len(wanted), TOGETHER):
        batch = wanted[low : low + TOGETHER]
        rows_of = np.concatenate([np.arange(first[which], first[which + 1]) for which in batch])
        done = 0
        for done, filled in _advance(runs, origins, batch, rows_of, interval, made):
            reached[filled] = True
            if not progress(behind + done):
                return made.part(reached)
        behind += done
    return made


CHUNK = 512
"""Ticks of a batch that are laid out at a time (chosen)."""


def _advance(
    runs: Sequence[SeriesRun], origins: Sequence[Ints], batch: Sequence[int], rows_of: Ints, interval: float, made: Samples
) -> Iterator[tuple[int, Ints]]:
    """Run a batch, sorted by the last origin, longest first, from the start of each run, and fill its rows of `made`.

    Yields (values done, rows filled since the last yield).
    """
    lasts = np.array([int(origins[which][-1]) for which in batch])
    where = np.concatenate([origins[which] for which in batch])
    slot = np.repeat(np.arange(len(batch)), [len(origins[which]) for which in batch])
    order = np.argsort(where, kind="stable")
    where, slot, rows_of = where[order], slot[order], rows_of[order]
    edges = np.searchsorted(where, np.arange(lasts[0] + 2))
    experts = Experts(len(batch), interval)
    at = np.array([runs[which].at for which in batch])
    done = 0
    for begin in range(0, lasts[0] + 1, CHUNK):
        end = min(begin + CHUNK, lasts[0] + 1)
        running = int(np.searchsorted(-lasts, -begin, side="right"))
        if running < experts.slots // 2:
            experts.shrink(running)
            at = at[:running]
        table = np.full((end - begin, experts.slots), np.nan)
        for column in range(running):
            part = runs[batch[column]].values[begin : min(end, lasts[column] + 1)]
            table[: len(part), column] = part
        done += int(np.clip(lasts[:running] + 1 - begin, 0, end - begin).sum())
        for tick in range(begin, end):
            seen = experts.step(table[tick - begin], at + tick * interval, np.full(experts.slots, tick == 0))
            low, high = edges[tick], edges[tick + 1]
            if high > low:
                mine, here = slot[low:high], rows_of[low:high]
                made.rows[here] = rows(experts, seen)[:, :, mine].transpose(2, 1, 0)
                made.start[here] = fallback(seen)[:, :, mine].transpose(2, 0, 1)
                made.point[here] = (seen.base[:, mine] * seen.unit[mine]).T
                made.spread[here] = (seen.spread[:, mine] * seen.unit[mine]).T
        yield done, rows_of[edges[begin] : edges[end]]
