"""The outlier test of lone workers: compares workers that have too few siblings with their own past. Pure.

With one or two workers it is unknown which one is odd. `SelfHistory` follows each of them: how novel its traits are at each tick
(`novelty.Novelty`), and the highest level that each trait ever had. It reports a worker as an outlier that has left all of its past
in some trait and stays there. `model.py` decides what becomes of a score.

A change of load is no anomaly: traits say what a worker holds, and how it works per second of CPU, not how much it works. And what
a worker holds under a load that it never had before is not compared at all: connections, threads and caches come with load.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..features import Floats, Singles
from ..identity import ProcId
from ..records import WINDOW
from .evidence import CHANNELS, ENOUGH, MIB, SEEN_SHARE, Found, WindowView
from .novelty import Novelty
from .outliers import OUTLIER_SECONDS, OUTLIER_TICKS, OUTLIER_TIMES
from .siblings import Ints, Siblings

HELD: tuple[tuple[str, float, float], ...] = (
    ("rss", 16 * MIB, 0.2),
    ("fds", 64.0, 0.2),
    ("threads", 16.0, 0.2),
    ("chars_per_cpu", 65_536.0, 0.5),
    ("slices_per_cpu", 100.0, 0.5),
)
"""Traits that are compared: `outliers.TRAITS` without demand, which is load, and with larger units for descriptors and threads. A
lone worker has no siblings to show that a crowd of clients came, or that executors have filled up (chosen)."""

DEMAND_UNIT = 0.05
"""Cores below which differences of load vanish. Chosen, as `evidence.DEMAND_FLOOR`."""

WORKS_CORES = 0.1
"""Cores of demand from which work per second of CPU is a trait: below, it is made of timers and health checks (chosen)."""

LOAD_TIMES = 2.0
"""A load is new to a worker from this many times the highest load that it ever had (chosen)."""

STRETCHES = 8
"""Stretches of the test's span. In each a worker must be above all it ever had in one: one large request does not do that
(chosen)."""

LEARNT_SECONDS = 120.0
"""Least seconds of its own past to compare a worker with: some of what it does, it does once a minute (chosen)."""

ACCEPTED_SECONDS = 3600.0
"""After this many seconds a change counts as the worker's new normal (chosen)."""

BATCH = 16
"""Workers that share one `Novelty`. More are added as workers come (chosen)."""


class SelfHistory:
    """Follows the workers of pools of fewer than `ENOUGH`. Needs every tick, in order. A worker that is missing at a tick is
    forgotten, and so is one that has found siblings. About 20 KiB per worker, for the most there ever were at a time."""

    def __init__(self, interval: float) -> None:
        """`interval`: seconds per tick."""
        if not 0 < interval < math.inf:
            raise ValueError(f"interval must be seconds above 0, not {interval}")
        self._interval = interval
        self._short = min(math.ceil(max(OUTLIER_SECONDS / interval, OUTLIER_TICKS) / STRETCHES), WINDOW)  # ticks of a stretch
        lag = self._short * STRETCHES * 3 // 2  # older levels count as past: the change may have begun slowly
        self._slots: dict[ProcId, int] = {}
        self._free: list[int] = []
        self._watches: list[Novelty] = []
        self._next = 0  # column of the rings that this tick writes
        self._levels = np.full((0, lag, len(HELD) + 1), np.nan)  # ring of means over a stretch: traits, then load
        self._scores = np.full((0, lag), np.nan)  # ring of novelty
        self._away = np.full((0, lag, len(HELD)), np.nan)  # ring of deviations
        self._highest = np.full((0, len(HELD) + 1), np.nan)  # of the levels that are past
        self._learnt = np.zeros(0, dtype=np.int64)  # ticks of past that it was made from
        self._since = np.zeros(0, dtype=np.int64)  # ticks that the worker has been away from its past
        self._score = np.zeros(0)  # the highest novelty when it left its past
        self._deviations = np.zeros((0, len(HELD)))  # and each trait's deviation then

    def __len__(self) -> int:
        return len(self._slots)

    def step(self, keys: Sequence[ProcId], pools: Sequence[str], windows: Singles, lengths: Ints) -> Found:
        """The result of this tick for each worker; NaN for those that are not alone, or whose past is short.

        `windows` [len(CHANNELS), WINDOW, n] and `lengths` [n] as `features.WorkerWindows.view` gives them, this tick the last.
        """
        n, sizes = len(keys), Counter(pools)
        lone = np.array([i for i, pool in enumerate(pools) if sizes[pool] < ENOUGH], dtype=np.int64)
        fresh = self._assign([keys[i] for i in lone.tolist()])
        at = np.fromiter((self._slots[keys[i]] for i in lone.tolist()), dtype=np.int64, count=len(lone))
        score, size = np.full(n, np.nan), np.zeros(n)
        if not len(lone):
            return Found(score, size)
        view = WindowView(windows, lengths[lone], Siblings(np.arange(len(lone))), self._interval, None, 1.0, lone)
        column, lag = self._next, self._levels.shape[1]
        self._next = (column + 1) % lag
        past = self._levels[at, column]  # as old as the ring is long
        stretch = slice(WINDOW - self._short, WINDOW)
        self._levels[at, column] = _levels({name: view.mean(name, stretch, SEEN_SHARE) for name in CHANNELS})
        lately = self._levels[at[:, None], (column - self._short * np.arange(STRETCHES)) % lag]
        self._watch(at, _levels({name: windows[row, -1, lone].astype(np.float64) for row, name in enumerate(CHANNELS)}), fresh)

        highest = self._highest[at]
        with np.errstate(invalid="ignore"):
            apart = lately.min(axis=1)[:, :-1] - highest[:, :-1]
            known_load = lately[:, :, -1].max(axis=1) - highest[:, -1] <= math.log(LOAD_TIMES)
        traits = np.where(known_load[:, None], apart, np.nan)
        enough = self._learnt[at] * self._interval >= LEARNT_SECONDS
        left = (np.nan_to_num(traits, nan=-1.0) >= math.log(OUTLIER_TIMES)).any(axis=1) & enough
        left &= self._since[at] * self._interval < ACCEPTED_SECONDS
        begins = left & (self._since[at] == 0)
        if begins.any():
            self._remember(at[begins])
        self._since[at] = np.where(left, self._since[at] + 1, 0)
        stays = at[~left]
        self._highest[stays] = np.fmax(self._highest[stays], past[~left])
        self._learnt[stays] += np.isfinite(past[~left]).any(axis=1)
        farthest = np.nan_to_num(traits, nan=0.0).max(axis=1)
        score[lone] = np.where(enough, np.where(left, self._score[at] * farthest, 0.0), np.nan)
        size[lone] = left
        return Found(score, size, lone[left], self._figures(at[left], traits[left]))

    def _figures(self, at: Ints, traits: Floats) -> dict[str, Floats]:
        """By trait: times the highest level of the past, and standard deviations when the worker left it."""
        names = [name for name, _, _ in HELD]
        return {
            **{f"{name}_times_own_past": np.exp(traits[:, column]) for column, name in enumerate(names)},
            **{f"{name}_deviations": self._deviations[at, column] for column, name in enumerate(names)},
            "seconds": (self._since[at] + STRETCHES * self._short - 1) * self._interval,
            "own_past_seconds": self._learnt[at] * self._interval,
        }

    def _watch(self, at: Ints, values: Floats, fresh: Ints) -> None:
        """Feed one more tick to the novelty scores."""
        every = np.full((len(self._watches) * BATCH, len(HELD)), np.nan)
        every[at] = values[:, :-1]
        new = np.zeros(len(every), dtype=np.bool_)
        new[fresh] = True
        column = (self._next - 1) % self._scores.shape[1]
        for number, watch in enumerate(self._watches):
            part = slice(number * BATCH, (number + 1) * BATCH)
            self._scores[part, column] = watch.step(every[part], new[part])
            self._away[part, column] = watch.deviations()

    def _remember(self, at: Ints) -> None:
        """Note the highest novelty of the time in which these workers left their past."""
        scores = np.nan_to_num(self._scores[at], nan=0.0)
        when = scores.argmax(axis=1)
        self._score[at] = scores.max(axis=1)
        self._deviations[at] = self._away[at, when]

    def _assign(self, keys: Sequence[ProcId]) -> Ints:
        """Give slots to these workers and to no others. Returns the slots of new ones."""
        wanted = set(keys)
        for gone in [key for key in self._slots if key not in wanted]:
            self._free.append(self._slots.pop(gone))
        new = [key for key in keys if key not in self._slots]
        if len(new) > len(self._free):
            self._grow(len(new) - len(self._free))
        fresh = np.array([self._free.pop() for _ in new], dtype=np.int64)
        self._slots.update(zip(new, fresh.tolist(), strict=True))
        for state in (self._levels, self._scores, self._away, self._highest):
            state[fresh] = np.nan
        self._learnt[fresh] = self._since[fresh] = 0
        return fresh

    def _grow(self, least: int) -> None:
        batches = math.ceil(least / BATCH)
        size, more = len(self._learnt), batches * BATCH
        self._watches += [Novelty(BATCH, len(HELD), [spread for _, _, spread in HELD]) for _ in range(batches)]
        self._free.extend(range(size + more - 1, size - 1, -1))
        self._levels, self._scores, self._away, self._highest, self._learnt, self._since, self._score, self._deviations = (
            np.concatenate([state, np.zeros((more, *state.shape[1:]), dtype=state.dtype)])
            for state in (
                *(self._levels, self._scores, self._away, self._highest),
                *(self._learnt, self._since, self._score, self._deviations),
            )
        )


def _levels(means: dict[str, Floats]) -> Floats:
    """[n, len(HELD) + 1] traits and load, as log1p of their units. NaN: not known, or too little work to say."""
    load = means["cpu"] + means["wait"]
    with np.errstate(invalid="ignore"):
        works = np.where(load >= WORKS_CORES, load, np.nan)
    held = {
        **{name: means[name] for name in ("rss", "fds", "threads")},
        "chars_per_cpu": means["chars"] / works,
        "slices_per_cpu": means["timeslices"] / works,
    }
    return np.log1p(np.column_stack([*(held[name] / unit for name, unit, _ in HELD), load / DEMAND_UNIT]))
