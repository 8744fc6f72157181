"""Chooses which workers that stand still are examined: not those that an earlier look has excused, because they are not stuck."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from ....models.anomaly.waitgraph import Halt, Thread
from ....models.identity import ProcId
from .budget import FRESH, WORKERS
from .helpers import Helpers
from .proof import whole
from .records import START, Is, Need, Query


class _Excuse(NamedTuple):
    """Why a worker is not stuck."""

    since: int  # valid until it runs again
    made: int  # the look in which it was made
    by: tuple[ProcId, ...]  # the processes that proceed and can help; empty: the worker proceeds by itself


class Excuses:
    """Remembers from look to look why workers are not stuck."""

    def __init__(self) -> None:
        self._query = START
        self._excuses: dict[ProcId, _Excuse] = {}
        self._suspects: set[ProcId] = set()  # those that were stuck in the last look
        self._turn = 0  # next turn among the workers to look into

    def begin(self, query: Query) -> None:
        """A new look."""
        self._query = query

    def roots(self) -> list[ProcId]:
        """Workers to examine: those that were stuck in the last look, and in turn some of those that have no excuse."""
        again = [process for process in self._query.still if process in self._suspects]
        others = [process for process in self._query.still if process not in self._suspects and not self._excused(process)]
        if len(others) > WORKERS:
            start = self._turn % len(others)
            self._turn += WORKERS
            others = [*others[start:], *others[:start]][:WORKERS]
        return [*again, *others]

    def excusers(self) -> list[ProcId]:
        """Processes whose progress excuses workers: they must proceed in this look too."""
        return sorted({process for worker in self._query.still if self._excused(worker) for process in self._excuses[worker].by})

    def remember(self, roots: Iterable[ProcId], halts: Mapping[Thread, Halt], helpers: Helpers) -> None:
        """Note which workers are stuck, and why the others of `roots` are not."""
        still = self._query.still
        stuck, vain = {thread.process for thread in halts}, whole(halts, helpers.seen)
        self._suspects = stuck.intersection(still)
        self._excuses = {
            process: excuse for process, excuse in self._excuses.items() if process in still and not vain.intersection(excuse.by)
        }
        for process in roots:
            seen = helpers.seen.get(process)
            if seen is None or process in stuck:
                continue
            needs = [need for need in seen.needs.values() if need is not None]
            if any(need.owner is not None and not _is_single(need, helpers) for need in needs):
                continue
            by = {_first_on(need, vain, helpers) for need in needs} - {None, process}
            self._excuses[process] = _Excuse(still[process], self._query.number, tuple(sorted(each for each in by if each)))

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._excuses.clear()
        self._suspects.clear()

    def _excused(self, process: ProcId) -> bool:
        excuse = self._excuses.get(process)
        return (
            excuse is not None
            and excuse.since == self._query.still[process]
            and self._query.number - excuse.made < FRESH + process.pid % FRESH
        )


def _is_single(need: Need, helpers: Helpers) -> bool:
    """Whether the thread that can help is the only one of its process."""
    ask = need.asks[0]
    seen = helpers.seen.get(ask.processes[0]) if isinstance(ask, Is) else None
    return seen is not None and len(seen.needs) == 1


def _first_on(need: Need, vain: Collection[ProcId], helpers: Helpers) -> ProcId | None:
    """The first process that can help and proceeds; None: no such process was seen."""
    return next((process for process in helpers.of(need) if process not in vain and process in helpers.seen), None)
