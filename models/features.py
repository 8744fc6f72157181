"""Turns counters into rates, live and in training; nothing else does. Pure.

`rates` compares two sample tables. `Windows` keeps the last `WINDOW` values of many series, all on one tick clock, `WorkerWindows`
those of workers. `anomaly.detectors.worker_rows` scores workers from their windows.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .records import SAMPLE, WINDOW, Known, SampleTable

RUNNABLE = 0.04
"""How much longer than a tick a thread may seem to have run and waited: a process's counters are read within a few ms of each
other, at other moments each tick (chosen, as `behaviour.WHOLE`)."""

DEPTH = 32
"""Most ancestors searched for the one that collected a child (chosen: trees of processes are seldom a third as deep)."""

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


_NAMES = SAMPLE.names or ()
_COUNTERS = _NAMES[_NAMES.index("cpu_ns") : _NAMES.index("write_chars") + 1]
_PLACES = {name: place for place, name in enumerate(_COUNTERS)}
_BLOCK = np.dtype(
    {
        "names": ["counters"],
        "formats": [("<u8", (len(_COUNTERS),))],
        "offsets": [SAMPLE.fields["cpu_ns"][1] if SAMPLE.fields else 0],
        "itemsize": SAMPLE.itemsize,
    }
)
"""The counters of a row as one array."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What each process of the later table did between two tables. Arrays are aligned with it; unknown is NaN."""

    cpu: Floats  # cores used
    brief: Floats  # cores used by its children that were in at most one of the tables, as far as a process waited for them
    wait: Floats  # cores waited for in the run queue; 0 where the kernel does not tell
    demand: Floats  # cores that it would have used alone on this machine, from `uncontended`, without its brief children
    timeslices: Floats  # times put on a CPU, per second; NaN unknown
    child_faults: Floats  # minor page faults per second of children that it has waited for
    faults: Floats  # major and minor page faults per second
    chars: Floats  # bytes read and written per second, cached ones too; NaN unknown
    known: NDArray[np.bool_]  # False: first seen in this table but older than the earlier one, so its rates are unknown (0)
    owed: Floats  # ns already counted of children that are gone but not yet collected: input of the next `rates`


def rates(
    before: SampleTable,
    after: SampleTable,
    before_at: int,
    after_at: int,
    uptime_before: int,
    *,
    cpus: float = math.inf,
    owed: Floats | None = None,
) -> Rates:
    """Rates between two sample tables.

    `before_at`, `after_at`: monotonic ns. `uptime_before`: clock ticks since boot at `before_at`; a process that started later was
    born in between, and all its counters count. Counters that went back count as 0 (F40). `cpus`: number of CPUs; brief children
    are not believed to use more. `owed`: `Rates.owed` of `before`, if known.
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

    known = there | born
    more = _counters(after)
    if len(before):
        more -= np.where(there[:, None], _counters(before)[at_safe], 0.0)
    deltas = np.ascontiguousarray(np.where(known[:, None], np.maximum(more, 0.0), 0.0).T)
    known_after = after["known"]
    known_before = before["known"][at_safe] if len(before) else np.zeros(n, dtype=known_after.dtype)

    def delta(name: str) -> Floats:
        return np.asarray(deltas[_PLACES[name]])

    def read_both(bit: Known) -> NDArray[np.bool_]:
        return np.asarray(((known_after & bit) != 0) & (((known_before & bit) != 0) | born))

    cpu, wait = delta("cpu_ns") / 1e9 / seconds, delta("wait_ns") / 1e9 / seconds
    left, still_owed = _brief(before, at_safe, there, delta("child_cpu_ns"), owed)
    most = max(cpus - float(cpu.sum()), 0.0)
    brief = np.minimum(left / 1e9 / seconds, most)
    with np.errstate(invalid="ignore"):
        return Rates(
            cpu=cpu,
            brief=brief * min(1.0, most / max(float(brief.sum()), 1e-12)),
            wait=wait,
            demand=uncontended(cpu, wait, after["threads"].astype(np.float64), cpus),
            timeslices=np.where(read_both(Known.WAIT), delta("timeslices") / seconds, np.nan),
            child_faults=delta("child_faults") / seconds,
            faults=(delta("minor_faults") + delta("major_faults")) / seconds,
            chars=np.where(read_both(Known.IO), (delta("read_chars") + delta("write_chars")) / seconds, np.nan),
            known=np.asarray(known),
            owed=still_owed,
        )


def _counters(table: SampleTable) -> Floats:
    """[len(table), len(_COUNTERS)] the counters of each process: adjacent in a row of the table, so they are read at once."""
    return np.asarray(table.view(_BLOCK)["counters"].astype(np.float64))


def uncontended(cpu: Floats, wait: Floats, threads: Floats, cpus: float) -> Floats:
    """Cores that processes would have used without contention: at least what they used, at most `cpus`.

    Waiting is not work. A thread runs, waits for a CPU, sleeps, and begins again. In a second in which it runs for c and waits for
    w it sleeps for 1 - c - w. By itself it would not wait: it would run for c / (1 - w) of the time. That is a closed system with
    a think time, as in the interactive response time law (Lazowska et al., Quantitative System Performance, 1984, ch. 3). It is
    never more than c + w, and equals that only for a thread that never sleeps. Work that arrives independently, not when earlier
    work is done, is c however long it waits: for such work this is the upper limit.

    It is not known which `threads` of a process waited. The fewer they were, the more they wanted. So the fewest are assumed that
    can have run and waited for that long together. A measured thread can exceed a tick by RUNNABLE.
    """
    both = cpu + wait
    fewest = np.maximum(np.minimum(np.ceil(both / (1.0 + RUNNABLE)), threads), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(both < fewest, cpu / (1.0 - wait / fewest), fewest)
    return np.asarray(np.minimum(np.maximum(np.minimum(share, both), cpu), cpus))


def _brief(
    before: SampleTable, at: NDArray[np.intp], there: NDArray[np.bool_], collected: Floats, owed: Floats | None
) -> tuple[Floats, Floats]:
    """(ns used by brief children of each process of the later table, ns that are still owed), none below 0.

    `at`: its row in `before` where it was `there`. `collected`: what it gained by waiting for children. With a child it gains all
    that the child ever used. What was already counted of the child is subtracted from its nearest living ancestor, which has waited
    for it, or for the ancestors in between that had. Those may also have left it to an ancestor further up: what exceeds an
    ancestor's gain is subtracted from that one's own ancestors. And a table is not read in one instant: a child may be missing from
    it while its parent was read just before it gained. So what no ancestor gained is owed, and subtracted from the parent's gain in
    the next table. Not later: where a parent ignores SIGCHLD, no process ever gains it.
    """
    count = len(before)
    row_after = np.full(count + 1, -1, dtype=np.intp)  # of each process of `before`; the last entry: no process
    row_after[at[there]] = np.flatnonzero(there)
    gone = np.flatnonzero(row_after[:-1] < 0)
    waits, fresh = np.zeros(count + 1) if owed is None else np.append(owed, 0.0), np.zeros(count + 1)
    fresh[gone] = before["cpu_ns"][gone].astype(np.float64) + before["child_cpu_ns"][gone].astype(np.float64) + waits[gone]
    waits[gone] = 0.0  # what a gone process owed passes to its heir, which gains it with the rest
    counted = fresh + waits
    if not counted.any():
        return collected, np.zeros(len(collected))
    parents = _parents(before)
    heirs = _heirs(parents, row_after)

    def taken(off: Floats) -> Floats:
        """What is subtracted from each process of the later table."""
        return np.asarray(np.where(there, np.bincount(heirs, weights=off, minlength=count + 1)[at], 0.0))

    left = collected - taken(counted)
    owing = np.minimum(left, 0.0)
    for row in np.flatnonzero(owing < 0).tolist():
        up = int(heirs[parents[at[row]]])
        for _ in range(DEPTH):
            if up == count or owing[row] == 0:
                break
            above = int(row_after[up])
            passed = min(-float(owing[row]), max(float(left[above]), 0.0))
            left[above] -= passed
            owing[row] += passed
            up = int(heirs[parents[up]])
    return np.maximum(left, 0.0), np.minimum(-owing, taken(fresh))


def _parents(table: SampleTable) -> NDArray[np.intp]:
    """[len(table) + 1] Row of each process's parent; len(table) if it is not in the table, and for the last entry (no process)."""
    pids = table["pid"]
    place = np.minimum(np.searchsorted(pids, table["ppid"]), len(table) - 1)
    return np.append(np.where(pids[place] == table["ppid"], place, len(table)), len(table))


def _heirs(parents: NDArray[np.intp], row_after: NDArray[np.intp]) -> NDArray[np.intp]:
    """Each process itself if it lives, else its nearest living ancestor; the last row (no process) if there is none.

    Each round looks twice as far up as the one before.
    """
    nobody = len(parents) - 1
    lives = row_after >= 0
    lives[nobody] = True
    heirs = np.where(lives, np.arange(len(parents)), parents)
    for _ in range(nobody.bit_length()):
        if lives[heirs].all():
            return heirs
        heirs = heirs[heirs]
    return np.where(lives[heirs], heirs, nobody)  # tables read while pids change hands may have circles


def _keys(table: SampleTable) -> NDArray[np.uint64]:
    """One sortable number per process: pid above, start ticks below (40 bits of ticks last 348 years at 100 Hz)."""
    return np.asarray((table["pid"].astype(np.uint64) << np.uint64(40)) | table["start_ticks"].astype(np.uint64))


class Windows:
    """The last `WINDOW` values of many series with `channels` values a tick. A series not pushed at a tick is forgotten."""

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

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Forget the past of these series, which begin again at their next value; unknown keys are skipped."""
        for key in keys:
            slot = self._slots.pop(key, None)
            if slot is not None:
                self._lengths[slot] = 0
                self._free.append(slot)

    def __len__(self) -> int:
        return len(self._slots)

    def _grow(self, least: int) -> None:
        size = len(self._ring)
        more = max(least, size // 2, 16)
        self._ring = np.concatenate([self._ring, np.full((more, WINDOW, self.channels), np.nan)])
        self._lengths = np.concatenate([self._lengths, np.zeros(more, dtype=np.int64)])
        self._free.extend(range(size + more - 1, size - 1, -1))


class WorkerWindows:
    """The last `WINDOW` values of all workers, [channels, ticks, workers] in single precision. Tests run over many workers at once,
    tick by tick, so the workers of a tick are adjacent.

    The ring is twice as long as a window and each tick is written twice. So a window is always one piece and `view` copies nothing.
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
        order of the keys of the last push. Not to be written to, and valid until the next push."""
        return self._ring[:, self._next : self._next + WINDOW], self._lengths

    def __len__(self) -> int:
        return len(self._keys)

    def _arrange(self, keys: Sequence[Hashable]) -> None:
        """Make room for these workers, and move those that stay to their new places."""
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
    """Measured values in single precision; NaN for what is unknown: not a number, below 0, or beyond single precision."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.float32)
        return np.asarray(np.where((single >= 0) & (single < np.inf), single, np.float32(np.nan)))
