"""Who ran on which CPU in a tick: the one notion that antagonists and delays rest on. Pure. Knows snapshots and rates; must not
know what is made of it.

The kernel reports the CPU on which the first thread of a process ran last, the CPUs that it may use, and how busy each CPU was. A
process of one thread was mostly where it ran last. Threads, and children that came and went, may have been on every CPU that the
process may use: those that were busy with nobody else had them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.features import Floats, Rates
from ...models.identity import ProcId
from ...models.occupancy import fitted
from ...models.records import Snapshot

LEAST_CORES = 0.001
"""Cores below which a process is ignored: it delays no other one (chosen)."""

MOST_RAN = 1000
"""Processes that are looked at, those that ran or waited most (chosen): beside so many, each further one delays nobody much. It
bounds memory and time when thousands start at once."""

MOVED = 0.1
"""Share of a process of one thread that is first put on all CPUs that it may use, not on its last one (chosen): it may have moved
within the tick, and how busy the CPUs were shows it."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Who ran where, or waited there. A process is in it twice if it and its brief children ran."""

    cpus: NDArray[np.int64]  # numbers of the CPUs, which may have gaps
    rows: NDArray[np.int64]  # row of the table of each user of CPUs; brief children have their parent's
    brief: NDArray[np.bool_]  # whether the user is the brief children of that row
    on: Floats  # [users, CPUs] cores used; above 0 where one that only waited may be
    outside: Floats  # [CPUs] cores used by what has no row: the kernel, and processes that nicety cannot see


def occupancy(
    snapshot: Snapshot,
    rates: Rates,
    ids: Sequence[ProcId],
    busy: Floats,
    outside: float = 0.0,
    online: Sequence[int] = (),
) -> Occupancy:
    """Who ran where in the tick that ended with this snapshot.

    `ids`: of the rows of the table. `busy` [CPUs]: cores in use, all 0: not known. `outside`: cores used by what has no row.
    `online`: numbers of the CPUs, which may have gaps (SMT switched off), in rising order; (): they count up from 0.
    """
    cpus = np.array(online if len(online) == len(busy) else range(len(busy)), dtype=np.int64)
    itself = _most(np.maximum(rates.cpu, rates.wait))
    parents = _most(rates.brief)
    rows, brief = np.concatenate([itself, parents]), np.repeat([False, True], [len(itself), len(parents)])
    used = np.maximum(np.concatenate([rates.cpu[itself], rates.brief[parents]]), 1e-9)
    anywhere = np.ones((len(rows), len(cpus)))
    for user, row in enumerate(rows.tolist()):
        allowed = snapshot.identities[ids[row]].cpus
        if allowed:
            anywhere[user] = 0.0
            anywhere[user, _columns(cpus, np.array(allowed))] = 1.0
    alone = np.flatnonzero(~brief & (snapshot.table["threads"][rows] <= 1))
    guess = anywhere / anywhere.sum(axis=1)[:, None]
    guess[alone] *= MOVED if busy.any() else 0.0
    guess[alone, _columns(cpus, snapshot.table["last_cpu"][rows[alone]])] += 1.0
    if outside <= 0.0:
        return Occupancy(cpus, rows, brief, fitted(guess, used, busy), np.zeros(len(cpus)))
    everywhere = busy if busy.any() else np.ones(len(cpus))
    on = fitted(np.vstack([guess, everywhere]), np.append(used, outside), busy)
    return Occupancy(cpus, rows, brief, on[:-1], on[-1])


def _most(cores: Floats) -> NDArray[np.int64]:
    """The rows with at least `LEAST_CORES`, in order; at most `MOST_RAN`, those with most."""
    rows = np.flatnonzero(cores >= LEAST_CORES)
    if len(rows) > MOST_RAN:
        rows = np.sort(rows[np.argsort(-cores[rows], kind="stable")[:MOST_RAN]])
    return rows


def busy_between(before: Snapshot, now: Snapshot) -> Floats:
    """[CPUs] cores of each CPU that were in use; all 0 where it is not known."""
    here, then = now.host.cpu_busy_ns, before.host.cpu_busy_ns
    if len(here) != len(then) or not here:
        return np.zeros(max(len(here), 1))
    return np.asarray(np.maximum(np.subtract(here, then, dtype=np.float64) / (now.at - before.at), 0.0))


def _columns(cpus: NDArray[np.int64], numbers: NDArray[np.integer]) -> NDArray[np.int64]:
    """The column of each of these CPUs; the next one for a CPU that is not online any more."""
    return np.asarray(np.minimum(np.searchsorted(cpus, numbers), len(cpus) - 1))
