"""Counters become rates here and nowhere else, live and in training. Pure.

`rates` compares two sample tables; `Windows` keeps the last `WINDOW` values of many series, all on one tick clock, `WorkerWindows`
those of workers. The rows that models see are made from windows in `demand.demand_rows` and `detectors.worker_rows`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .records import WINDOW, Known, SampleTable

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rates:
    """What each process of the later table did between two tables. Arrays are aligned with it; unknown is NaN."""

    cpu: Floats  # cores used
    wait: Floats  # cores waited for in the run queue; 0 where the kernel does not tell
    slices: Floats  # times put on a CPU, per second; NaN unknown
    child_faults: Floats  # minor page faults per second of children that it has waited for
    faults: Floats  # major and minor page faults per second
    chars: Floats  # bytes read and written per second, cached ones too; NaN unknown
    known: NDArray[np.bool_]  # False: first seen in this table and older than the earlier one, so its rates are not known (0)


def rates(before: SampleTable, after: SampleTable, before_at: int, after_at: int, uptime_before: int) -> Rates:
    """Rates between two sample tables.

    `before_at`, `after_at`: monotonic ns. `uptime_before`: clock ticks since boot at `before_at`: a process that started later
    than that was born in between, and all its counters count. Counters that went back count as 0 (F40).
    """
    seconds = (after_at - before_at) / 1e9
    if seconds <= 0:
        raise ValueError(f"tables must be in order of time: {before_at} ns is not before {after_at} ns")
    n = len(after)
    key_before, key_after = _keys(before), _keys(after)
    at = np.searchsorted(key_before, key_after)
    at_safe = np.minimum(at, max(len(before) - 1, 0))
    there = (
        key_before[at_safe] == key_after if len(before) else np.zeros(n, dtype=np.bool_)  # same pid and same start
    )
    born = ~there & (after["start_ticks"] >= uptime_before)

    def delta(name: str) -> Floats:
        now = after[name].astype(np.float64)
        then = np.where(there, before[name][at_safe], 0).astype(np.float64) if len(before) else np.zeros(n)
        return np.asarray(np.where(there | born, np.maximum(now - then, 0.0), 0.0))

    def read_both(bit: Known) -> NDArray[np.bool_]:
        now = (after["known"] & bit) != 0
        then = (before["known"][at_safe] & bit) != 0 if len(before) else np.zeros(n, dtype=np.bool_)
        return np.asarray(now & (then | born))

    with np.errstate(invalid="ignore"):
        return Rates(
            cpu=delta("cpu_ns") / 1e9 / seconds,
            wait=delta("wait_ns") / 1e9 / seconds,
            slices=np.where(read_both(Known.WAIT), delta("slices") / seconds, np.nan),
            child_faults=delta("child_faults") / seconds,
            faults=(delta("minor_faults") + delta("major_faults")) / seconds,
            chars=np.where(read_both(Known.IO), (delta("read_chars") + delta("write_chars")) / seconds, np.nan),
            known=np.asarray(there | born),
        )


def _keys(table: SampleTable) -> NDArray[np.uint64]:
    """One sortable number a process: pid above, start ticks below (40 bits of ticks last 348 years at 100 Hz)."""
    return np.asarray((table["pid"].astype(np.uint64) << np.uint64(40)) | table["start_ticks"].astype(np.uint64))


class Windows:
    """The last `WINDOW` values of many series with `channels` values a tick. A series that is not pushed at a tick is forgotten."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self._slots: dict[Hashable, int] = {}
        self._free: list[int] = []
        self._ring = np.full((0, WINDOW, channels), np.nan)
        self._lengths = np.zeros(0, dtype=np.int64)
        self._next = 0  # column that the next push writes, the same for all series

    def push(self, keys: Sequence[Hashable], values: Floats) -> None:
        """Append `values` [len(keys), channels] as this tick's. Keys are unique."""
        wanted = dict.fromkeys(keys)
        for gone in [key for key in self._slots if key not in wanted]:
            slot = self._slots.pop(gone)
            self._lengths[slot] = 0
            self._free.append(slot)
        new = [key for key in wanted if key not in self._slots]
        if len(new) > len(self._free):
            self._grow(len(new) - len(self._free))
        for key in new:
            slot = self._free.pop()
            self._slots[key] = slot
            self._ring[slot] = np.nan
        if keys:
            index = np.fromiter((self._slots[key] for key in keys), dtype=np.int64, count=len(keys))
            self._ring[index, self._next] = values
            self._lengths[index] = np.minimum(self._lengths[index] + 1, WINDOW)
        self._next = (self._next + 1) % WINDOW

    def view(self, keys: Sequence[Hashable]) -> tuple[Floats, NDArray[np.int64]]:
        """(windows [len(keys), WINDOW, channels] oldest first and right aligned, NaN before the start; lengths [len(keys)])."""
        index = np.fromiter((self._slots[key] for key in keys), dtype=np.int64, count=len(keys))
        order = (np.arange(WINDOW) + self._next) % WINDOW
        return self._ring[index][:, order], self._lengths[index]

    def __len__(self) -> int:
        return len(self._slots)

    def _grow(self, least: int) -> None:
        size = len(self._ring)
        more = max(least, size // 2, 16)
        self._ring = np.concatenate([self._ring, np.full((more, WINDOW, self.channels), np.nan)])
        self._lengths = np.concatenate([self._lengths, np.zeros(more, dtype=np.int64)])
        self._free.extend(range(size + more - 1, size - 1, -1))


class WorkerWindows:
    """The last `WINDOW` values of all workers, [channels, ticks, workers] in single precision: tests run over many workers at once,
    tick by tick, so the workers of a tick lie side by side.

    The ring is twice as long as a window and each tick is written twice, so that a window is always one piece and `view` copies
    nothing.
    """

    def __init__(self, channels: int) -> None:
        self._keys: list[Hashable] = []  # of the columns
        self._ring = np.full((channels, 2 * WINDOW, 0), np.nan, dtype=np.float32)
        self._lengths = np.zeros(0, dtype=np.int64)
        self._next = 0  # row that the next push writes

    def push(self, keys: Sequence[Hashable], values: Floats) -> None:
        """Append `values` [len(keys), channels] as this tick's. A worker without a value is forgotten."""
        if self._keys != list(keys):
            self._arrange(keys)
        for row in (self._next, self._next + WINDOW):
            self._ring[:, row] = told(values).T
        self._lengths = np.minimum(self._lengths + 1, WINDOW)
        self._next = (self._next + 1) % WINDOW

    def view(self) -> tuple[Singles, NDArray[np.int64]]:
        """(windows [channels, WINDOW, workers], oldest first, NaN where unknown and before the start; lengths [workers]), in the
        order of the keys of the last push. Not to be written to, and good until the next push."""
        return self._ring[:, self._next : self._next + WINDOW], self._lengths

    def __len__(self) -> int:
        return len(self._keys)

    def _arrange(self, keys: Sequence[Hashable]) -> None:
        """Makes room for these workers, and moves those that stay to their new places."""
        before, lengths = self.view()
        place = {key: column for column, key in enumerate(self._keys)}
        there = [(column, place[key]) for column, key in enumerate(keys) if key in place]
        new, old = np.array(there, dtype=np.int64).reshape(-1, 2).T
        self._ring = np.full((len(before), 2 * WINDOW, len(keys)), np.nan, dtype=np.float32)
        self._ring[:, :WINDOW, new] = before[:, :, old]
        self._lengths = np.zeros(len(keys), dtype=np.int64)
        self._lengths[new] = lengths[old]
        self._keys, self._next = list(keys), 0


def told(values: Floats) -> Singles:
    """Measured values in single precision; NaN for what is not known: no number, below 0, or beyond single precision."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.float32)
        return np.asarray(np.where((single >= 0) & (single < np.inf), single, np.float32(np.nan)))
