"""Finds the processes that could help a blocked thread, among near ones and those that a sweep found, and whether they proceed.

Lives for one look: each process is read at most once in it.
"""

from __future__ import annotations

from ....models.identity import ProcId
from .belongings import Belongings
from .proof import Proof
from .records import Ask, Holds, Is, Need, Query, Seen
from .sweep import Sweep
from .threads import Threads


class Helpers:
    """The helpers of one look. `seen`: the processes that were examined."""

    def __init__(self, query: Query, threads: Threads, belongings: Belongings, sweep: Sweep, proof: Proof) -> None:
        self._query = query
        self._threads = threads
        self._belongings = belongings
        self._sweep = sweep
        self._proof = proof
        self._near: dict[Ask, list[ProcId]] = {}
        self.seen: dict[ProcId, Seen] = {}

    def see(self, process: ProcId) -> Seen:
        """What its threads need, as of this look, or as was proved of it before."""
        seen = self.seen.get(process)
        if seen is None:
            kept = self._proof.kept(process)
            seen = self.seen[process] = kept[0] if kept is not None else self._threads.see(process)
        return seen

    def proceeds(self, process: ProcId, ask: Ask) -> bool:
        """Whether a process proceeds by itself and could do what is asked. If all threads that proceed are only woken by the clock,
        it releases no lock."""
        seen = self.see(process)
        return seen.lively and not (isinstance(ask, Holds) and seen.ticks)

    def near(self, ask: Ask) -> tuple[ProcId, ...] | list[ProcId]:
        """Near processes that could help in this way, up to the first that proceeds by itself, which is enough. A process that a
        sweep found is tried before all of them."""
        if isinstance(ask, Is):
            return ask.processes
        found = self._near.get(ask)
        if found is None:
            found = self._near[ask] = [process for process in sorted(self._sweep.found(ask)) if self.proceeds(process, ask)][:1]
            for process in self._query.near if not found else ():
                if self._belongings.answers(process, ask):
                    found.append(process)
                    if self.proceeds(process, ask):
                        break
        return found

    def of(self, need: Need) -> tuple[ProcId, ...]:
        """All processes known that could help, sorted."""
        found: set[ProcId] = set()
        for ask in need.asks:
            found.update(self.near(ask))
            found.update(self._sweep.found(ask))
        return tuple(sorted(found))

    def found_by_sweep(self) -> set[ProcId]:
        """Processes that a sweep found able to help one of the examined processes."""
        needs = (need for seen in self.seen.values() for need in seen.needs.values() if need is not None)
        return {process for need in needs for ask in need.asks for process in self._sweep.found(ask)}

    def all_asked(self, need: Need) -> bool:
        """Whether no process is left to ask: a sweep has asked all of them, or the need names the ones that can help."""
        return all(isinstance(ask, Is) or self._sweep.answered(ask) for ask in need.asks)
