"""Who delays whom: the run-queue wait of each group, shared out over what ran where it waited. Pure. Knows snapshots and rates;
must not know what is done about it.

What waits in the queue of a CPU waits for what runs there. So the wait of a process is shared out over the CPUs that it was on,
in proportion to what others used there in the same tick: other groups, the rest of its own, the kernel and processes that nicety
cannot see, and what the hypervisor took. A process does not delay itself, its threads delay each other. Work of less weight in the
same scheduling group counts less: it runs while the victim sleeps and yields when it wakes up.

A thread that a quota stopped counts as waiting in the kernel (on Linux 6.18 one process with 0.3 of a CPU waits for 0.7). So what
the quota explains is taken out first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...models.features import RUNNABLE, Floats
from ...models.identity import ProcId
from ...models.records import Snapshot
from ..cgroup_paths import ROOT, ancestors
from ..decision import Delay
from .measure import Measured
from .occupancy import LEAST_CORES, Occupancy
from .quotas import stopped

SECONDS = 12.0
"""Time constant of the means (chosen): a person can read figures that change this slowly."""

LEAST_WAIT = 0.02
"""Cores, waited for or kept back by a quota, below which a group is not reported (chosen)."""

LEAST_IN_TICK = 0.005
"""Cores below which the wait of a group in one tick is not looked at (chosen): it is part of every wake-up."""

MOST_OF_A_GROUP = 16
"""Processes of a group whose waits are shared out, those that wait most; they stand for the others of the group (chosen)."""

MOST_VICTIMS = 32
"""Most groups that are looked at, those that wait most (chosen: it bounds the cost and the log)."""

MOST_NAMED = 4
"""Most culprits that are named for a group (chosen)."""

SCALE = 1000
"""Steps of a core in which the figures are given (chosen: the log keeps them every tick)."""

IDLE, WEIGHT_IDLE = 5, 3.0
"""SCHED_IDLE and its weight beside 1024 at nice 0 (kernel/sched/sched.h, WEIGHT_IDLEPRIO)."""

PER_NICE = 1.25
"""How much more weight each step of nice gives (kernel/sched/core.c, sched_prio_to_weight)."""

OUTSIDE, STEAL, THROTTLED = 0, 1, 2
"""Columns after those of the groups."""

EXTRA = 3


class Delays:
    """Shares out the waits, and smooths the shares."""

    def __init__(self, autogroup: bool) -> None:
        """`autogroup`: in the root cgroup each session is a scheduling group of its own."""
        self._autogroup = autogroup
        self._groups: tuple[str, ...] = ()  # of the columns
        self._columns: dict[str, int] = {}
        self._victims: list[str] = []  # of the rows, in no order
        self._parts = np.zeros((0, EXTRA))  # [victims, groups and EXTRA] cores by each, smoothed from 0
        self._weight = np.zeros(0)  # [victims] of the ticks in the mean, 0..1: below 1 since it began to wait
        self._unmatched: dict[str, float] = {}  # group -> cores that its quota kept back and that do not show as a wait yet

    def step(self, before: Snapshot, now: Snapshot, measured: Measured, ran: Occupancy, steal: float) -> tuple[Delay, ...]:
        """The delays as of this tick. `steal`: cores that the hypervisor took."""
        self._align(measured.groups)
        victims, fresh = self._share_out(before, now, measured, ran, steal)
        keep = math.exp(-measured.seconds / SECONDS)
        self._parts *= keep
        self._weight *= keep
        place = {name: row for row, name in enumerate(self._victims)}
        new = [name for name in victims if name not in place]
        if new:
            place.update((name, len(self._victims) + number) for number, name in enumerate(new))
            self._victims += new
            self._parts = np.vstack([self._parts, np.zeros((len(new), self._parts.shape[1]))])
            self._weight = np.append(self._weight, np.zeros(len(new)))
        self._parts[[place[name] for name in victims]] += (1.0 - keep) * fresh
        self._weight += 1.0 - keep
        self._forget()
        return self._records()

    def gap(self) -> None:
        """Begin again: what happened since the last tick is not known."""
        self._victims, self._parts = [], np.zeros((0, len(self._groups) + EXTRA))
        self._weight, self._unmatched = np.zeros(0), {}

    # --- one tick -------------------------------------------------------------------------------------------------------------

    def _share_out(
        self, before: Snapshot, now: Snapshot, measured: Measured, ran: Occupancy, steal: float
    ) -> tuple[list[str], Floats]:
        """(groups that waited, [groups that waited, groups and EXTRA] cores that they waited for each)."""
        count = len(measured.groups)
        nobody = list[str](), np.zeros((0, count + EXTRA))
        waiting = np.flatnonzero(measured.wait >= LEAST_IN_TICK)
        if not len(waiting):
            self._unmatched = {}
            return nobody
        waiting = waiting[np.argsort(-measured.wait[waiting], kind="stable")[:MOST_VICTIMS]]
        number = np.full(count, -1)  # of each group among the victims
        number[waiting] = np.arange(len(waiting))
        users = np.flatnonzero(~ran.brief)
        whose = number[measured.places[ran.rows[users]]]
        here = (whose >= 0) & (measured.rates.wait[ran.rows[users]] >= LEAST_CORES)
        users, whose = users[here], whose[here]
        if not len(users):
            return nobody
        order = np.lexsort((-measured.rates.wait[ran.rows[users]], whose))  # by group, those that wait most first
        first = np.searchsorted(whose[order], whose[order], side="left")
        kept = np.sort(order[np.arange(len(order)) - first < MOST_OF_A_GROUP])
        users, whose = users[kept], whose[kept]
        rows, wait = ran.rows[users], measured.rates.wait[ran.rows[users]]
        ids = list(measured.rows)
        limited = self._kept_back(before, now, measured, ids, ran)[waiting]
        seen = np.bincount(whose, weights=wait, minlength=len(waiting))  # without processes that hardly waited
        left = np.maximum(measured.wait[waiting] - limited, 0.0)
        wait = wait * (left / np.maximum(seen, LEAST_CORES))[whose]

        runnable = np.bincount(whose, weights=measured.rates.cpu[rows], minlength=len(waiting)) + measured.wait[waiting]
        still = np.minimum(limited / runnable, 1.0)[whose]
        shares = self._pressure(now, measured, ran, ids, users, steal, still)
        there = shares.sum(axis=1)
        fewest = _fewest(measured, rows, now)
        most = np.where(limited[whose] > 0.0, fewest * there, np.inf)  # others delay it for no longer than they run
        explained = np.minimum(wait, most)
        shares[there <= 0.0, len(ran.rows) + OUTSIDE] = 1.0  # nobody seen ran there
        shares *= (explained / np.where(there > 0.0, there, 1.0))[:, None]
        summed = np.zeros((len(waiting), shares.shape[1]))
        np.add.at(summed, whose, shares)
        columns = np.append(measured.places[ran.rows], [count + OUTSIDE, count + STEAL])
        at = (np.arange(len(waiting))[:, None] * (count + EXTRA) + columns).ravel()
        flat = np.bincount(at, weights=summed.ravel(), minlength=len(waiting) * (count + EXTRA)).astype(np.float64)
        parts: Floats = np.asarray(flat.reshape(len(waiting), -1))
        parts[:, count + THROTTLED] = limited + np.bincount(whose, weights=wait - explained, minlength=len(waiting))
        return [measured.groups[place] for place in waiting.tolist()], parts

    def _pressure(
        self,
        now: Snapshot,
        measured: Measured,
        ran: Occupancy,
        ids: Sequence[ProcId],
        users: NDArray[np.int64],
        steal: float,
        still: Floats,
    ) -> Floats:
        """[victims, all users, then outside and steal] cores used where each of these users waits, as far as they can delay it.
        `still`: share of the time for which a quota stops each."""
        total = ran.on.sum(axis=0) + ran.outside
        stolen = steal * total / max(float(total.sum()), LEAST_CORES)
        on = ran.on[users]
        found = np.asarray((on / on.sum(axis=1)[:, None]) @ np.vstack([ran.on, ran.outside, stolen]).T)
        if still.any():  # what runs while a group is stopped does not delay it, and while it runs nobody else does
            ours = np.append(measured.places[ran.rows], [-1, -1])[None, :] == measured.places[ran.rows[users]][:, None]
            own, others = (found * ours).sum(axis=1), (found * ~ours).sum(axis=1)
            meanwhile = np.minimum(1.0 - still, np.maximum(1.0 - still - own, 0.0) / np.maximum(others, LEAST_CORES))
            found *= np.where(ours | (still <= 0.0)[:, None], 1.0, meanwhile[:, None])
        table = now.table
        nice, policy = table["nice"][ran.rows].astype(np.float64), table["policy"][ran.rows]
        weight = np.where(policy == IDLE, WEIGHT_IDLE / 1024, PER_NICE**-nice)
        if weight.min() < weight[users].max():
            scheduled = self._scheduled(now, ids, ran.rows)
            lighter = np.minimum(weight[None, :] / weight[users][:, None], 1.0)
            found[:, : len(ran.rows)] *= np.where(scheduled[users][:, None] == scheduled[None, :], lighter, 1.0)
        rows = ran.rows[users]
        threads = np.maximum(table["threads"][rows].astype(np.float64), 1.0)
        together = np.minimum(np.maximum(_fewest(measured, rows, now), 2.0), threads)
        found[np.arange(len(users)), users] *= 1.0 - 1.0 / together  # a thread does not wait for itself
        return found

    def _scheduled(self, now: Snapshot, ids: Sequence[ProcId], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number for the scheduling group of each row: priorities count only among equals."""
        sessions, numbers, found = now.table["session"][rows].tolist(), dict[tuple[str, int], int](), []
        for row, session in zip(rows.tolist(), sessions, strict=True):
            cgroup = now.identities[ids[row]].cgroup
            key = cgroup, session if self._autogroup and cgroup == ROOT else 0
            found.append(numbers.setdefault(key, len(numbers)))
        return np.array(found, dtype=np.int64)

    def _kept_back(self, before: Snapshot, now: Snapshot, measured: Measured, ids: Sequence[ProcId], ran: Occupancy) -> Floats:
        """[groups] cores that the quota of their own cgroup kept from them, at most what they waited for.

        Threads on one CPU are stopped together, so each waits for as long as that CPU is stopped.
        """
        kept, cores = np.zeros(len(measured.groups)), stopped(before, now)
        if not cores and not self._unmatched:
            return kept
        rows = ran.rows[~ran.brief]
        runnable = measured.rates.cpu + measured.rates.wait
        homes, together, cpus = list[str](), dict[str, float](), dict[str, int]()
        for row in rows.tolist():
            identity = now.identities[ids[row]]
            home = max(ancestors(identity.cgroup), key=lambda path: cores.get(path, 0.0))
            homes.append(home)
            together[home] = together.get(home, 0.0) + float(runnable[row])
            cpus[home] = max(cpus.get(home, 1), len(identity.cpus) or len(ran.cpus))
        for row, home in zip(rows.tolist(), homes, strict=True):
            if home in cores:
                spread = min(together[home], float(cpus[home]))
                kept[measured.places[row]] += cores[home] * float(runnable[row]) / max(spread, LEAST_CORES)
        owed = np.array([self._unmatched.get(name, 0.0) for name in measured.groups])
        found: Floats = np.minimum(kept + owed, measured.wait)
        more = np.minimum(kept + owed - found, kept)  # a stop may end before the wait that it caused is counted
        self._unmatched = {measured.groups[place]: float(more[place]) for place in np.flatnonzero(more).tolist()}
        return found

    # --- over time ------------------------------------------------------------------------------------------------------------

    def _align(self, groups: tuple[str, ...]) -> None:
        """Make the columns those of these groups. Those of groups that are forgotten are dropped."""
        if groups == self._groups:
            return
        old = np.array([self._columns.get(name, -1) for name in groups], dtype=np.int64)
        parts = np.zeros((len(self._victims), len(groups) + EXTRA))
        parts[:, np.flatnonzero(old >= 0)] = self._parts[:, old[old >= 0]]
        parts[:, len(groups) :] = self._parts[:, len(self._groups) :]
        self._groups, self._columns = groups, {name: column for column, name in enumerate(groups)}
        kept = [row for row, name in enumerate(self._victims) if name in self._columns]
        self._victims = [self._victims[row] for row in kept]
        self._parts, self._weight = parts[kept], self._weight[kept]

    def _forget(self) -> None:
        """Drop the groups that hardly wait any more, and those that wait least where there are too many."""
        waits = self._parts.sum(axis=1) / np.maximum(self._weight, 1e-12)
        kept = np.flatnonzero(waits >= LEAST_IN_TICK)
        if len(kept) < len(waits) or len(kept) > MOST_VICTIMS:
            kept = kept[np.argsort(-waits[kept], kind="stable")[:MOST_VICTIMS]]
            self._victims = [self._victims[row] for row in kept.tolist()]
            self._parts, self._weight = self._parts[kept], self._weight[kept]

    def _records(self) -> tuple[Delay, ...]:
        means, count = self._parts / np.maximum(self._weight, 1e-12)[:, None], len(self._groups)
        shown = sorted(np.flatnonzero(means.sum(axis=1) >= LEAST_WAIT).tolist(), key=lambda row: self._columns[self._victims[row]])
        if not shown:
            return ()
        means = means[shown] * SCALE
        itself = np.arange(len(shown)), [self._columns[self._victims[row]] for row in shown]
        own = means[itself]
        means[itself] = 0.0
        others = means[:, :count]
        most = np.argpartition(-others, min(MOST_NAMED, count) - 1, axis=1)[:, :MOST_NAMED]
        most = np.take_along_axis(most, np.argsort(-np.take_along_axis(others, most, axis=1), axis=1, kind="stable"), axis=1)
        largest = np.rint(np.take_along_axis(others, most, axis=1)).astype(np.int64)
        rest = np.maximum(np.rint(others.sum(axis=1)).astype(np.int64) - largest.sum(axis=1), 0)
        ends = np.rint(np.column_stack([own, means[:, count:]])).astype(np.int64)  # own, outside, steal, throttled
        waits = largest.sum(axis=1) + rest + ends[:, :-1].sum(axis=1)
        rows = zip(shown, waits.tolist(), most.tolist(), largest.tolist(), rest.tolist(), ends.tolist(), strict=True)
        return tuple(
            Delay(
                self._victims[row],
                wait / SCALE,
                tuple((self._groups[place], cores / SCALE) for place, cores in zip(who, parts, strict=True) if cores),
                more / SCALE,
                *(cores / SCALE for cores in last),
            )
            for row, wait, who, parts, more, last in rows
        )


def _fewest(measured: Measured, rows: NDArray[np.int64], now: Snapshot) -> Floats:
    """The fewest threads of each row that can have run and waited for so long together, as `uncontended` has it."""
    both = measured.rates.cpu[rows] + measured.rates.wait[rows]
    return np.asarray(np.maximum(np.minimum(np.ceil(both / (1.0 + RUNNABLE)), now.table["threads"][rows]), 1.0))
