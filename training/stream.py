"""Runs series through the experts of the runtime and keeps what they say at chosen origins: a demand model learns from it and is
judged on it. Knows runs and experts, not where runs come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.forecast.demand import DEMAND_FEATURES, METRICS, fallback, rows
from ..models.forecast.experts import Experts, Floats, Ints, Singles
from ..models.records import HORIZONS, QUANTILES
from .crew import Crew, Until

TOGETHER = 256
"""Series that advance together: enough for numpy to do the work, few enough that there is work for every process (chosen)."""


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
    metric: Ints  # [n] place in METRICS; that of the first for a metric that is not forecast live

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
    crew: Crew | None = None,
    ends: float = math.inf,
) -> Samples:
    """Samples at `origins`, places in each run, sorted by run and place. The same arguments give the same samples.

    `progress` is called with the number of values done; false ends early, and origins that were not reached are left out. `crew`:
    who does it; None: this process. `ends`: when the time is up for the others in it, of the monotonic clock.
    """
    crew = crew or Crew(1)
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
        np.zeros(total, dtype=np.int64),
    )
    first = np.concatenate([[0], np.cumsum([len(places) for places in origins])])
    for which, places in enumerate(origins):
        mine = slice(first[which], first[which + 1])
        made.run[mine], made.origin[mine] = which, places
        made.metric[mine] = METRICS.index(runs[which].metric) if runs[which].metric in METRICS else 0
        values = runs[which].values
        then = places[:, None] + np.asarray(HORIZONS)
        made.targets[mine] = np.where(then < len(values), values[np.minimum(then, len(values) - 1)], np.nan)
    wanted = sorted((which for which in range(len(runs)) if len(origins[which])), key=lambda which: -int(origins[which][-1]))
    batches = [wanted[low : low + TOGETHER] for low in range(0, len(wanted), TOGETHER)]
    behind, reached, late = 0, np.zeros(total, dtype=np.bool_), False

    def going_on(done: int) -> bool:
        nonlocal late
        late = not progress(behind + done)
        return not late

    tasks = (
        (
            [runs[which] for which in batch],
            [origins[which] for which in batch],
            interval,
            going_on if crew.jobs == 1 else Until(ends),
        )
        for batch in batches
    )
    for batch, seen in zip(batches, crew.each(advance, tasks), strict=True):
        where = np.concatenate([np.arange(first[which], first[which + 1]) for which in batch])[seen.reached]
        for name in ("rows", "start", "point", "spread"):
            getattr(made, name)[where] = getattr(seen, name)
        reached[where] = True
        if crew.jobs > 1 and seen.done:
            going_on(seen.done)
        behind += seen.done
        if late:
            break
    return made if reached.all() else made.part(reached)


CHUNK = 512
"""Ticks of a batch that are laid out at a time (chosen)."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """What the experts said of a batch of runs: as in `Samples`, for those of its origins that were reached."""

    reached: Ints  # places among the origins of the batch, one run after another
    rows: Singles
    start: Singles
    point: Floats
    spread: Floats
    done: int  # values


def advance(runs: Sequence[SeriesRun], origins: Sequence[Ints], interval: float, going_on: Callable[[int], bool]) -> Advanced:
    """Run a batch, sorted by the last origin, longest first, from the start of each run. `going_on` is called with the number of
    values done."""
    lasts = np.array([int(places[-1]) for places in origins])
    where = np.concatenate(origins)
    slot = np.repeat(np.arange(len(runs)), [len(places) for places in origins])
    order = np.argsort(where, kind="stable")
    where, slot = where[order], slot[order]
    h = len(HORIZONS)
    made = Advanced(
        order,
        np.empty((len(order), h, len(DEMAND_FEATURES)), dtype=np.float32),
        np.empty((len(order), h, len(QUANTILES)), dtype=np.float32),
        np.empty((len(order), h)),
        np.empty((len(order), h)),
        0,
    )
    edges = np.searchsorted(where, np.arange(lasts[0] + 2))
    experts = Experts(len(runs), interval)
    at = np.array([run.at for run in runs])
    done = high = 0
    for begin in range(0, lasts[0] + 1, CHUNK):
        end = min(begin + CHUNK, lasts[0] + 1)
        running = int(np.searchsorted(-lasts, -begin, side="right"))
        if running < experts.slots // 2:
            experts.shrink(running)
            at = at[:running]
        table = np.full((end - begin, experts.slots), np.nan)
        for column in range(running):
            part = runs[column].values[begin : min(end, lasts[column] + 1)]
            table[: len(part), column] = part
        done += int(np.clip(lasts[:running] + 1 - begin, 0, end - begin).sum())
        for tick in range(begin, end):
            now = table[tick - begin], at + tick * interval, np.full(experts.slots, tick == 0)
            low, high = edges[tick], edges[tick + 1]
            if high == low:
                experts.pass_over(*now)
                continue
            seen, mine = experts.step(*now), slot[low:high]
            with np.errstate(over="ignore"):  # what is infinite is clipped
                made.rows[low:high] = rows(experts, seen)[:, :, mine].transpose(2, 1, 0)
            made.start[low:high] = fallback(seen)[:, :, mine].transpose(2, 0, 1)
            made.point[low:high] = (seen.base[:, mine] * seen.unit[mine]).T
            made.spread[low:high] = (seen.spread[:, mine] * seen.unit[mine]).T
        if not going_on(done):
            break
    return Advanced(order[:high], made.rows[:high], made.start[:high], made.point[:high], made.spread[:high], done)
