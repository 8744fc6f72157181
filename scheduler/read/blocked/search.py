"""Follows waits in one look: from some workers to the processes that could help them, to those that could help these, and so on.

What is left are the threads that no examined process can help.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from ....models.anomaly.waitgraph import Halt, Thread, in_vain
from ....models.identity import ProcId
from .budget import PROCESSES
from .helpers import Helpers
from .proof import Proof


class Search:
    """The search of one look. `excusers`: processes that excuse workers if they proceed by themselves, whatever else they wait
    for."""

    def __init__(self, helpers: Helpers, proof: Proof, roots: Collection[ProcId], excusers: Collection[ProcId]) -> None:
        self._helpers = helpers
        self._proof = proof
        self._expanded: set[ProcId] = set()  # processes whose near helpers were seen too
        self._enough = {
            process for process in set(excusers) - set(roots) if helpers.see(process).lively and not helpers.see(process).ticks
        }

    def follow(self, processes: Iterable[ProcId]) -> None:
        """Examine these processes, and all that could help them."""
        self._expand(processes)
        while self._expand(sorted(self._helpers.found_by_sweep() - self._expanded)):
            pass

    def stuck(self) -> dict[Thread, Halt]:
        """Threads that no examined process can help, without their turns. A need is left out if no helper was found although all
        processes have been asked: nicety cannot see what it waits for."""
        halts: dict[Thread, Halt] = {}
        seen = self._helpers.seen
        for process in sorted(self._expanded - self._enough):
            kept = self._proof.kept(process)
            if kept is not None:
                halts.update((halt.thread, halt) for halt in kept[1])
                continue
            for tid, need in seen[process].needs.items():
                if need is None:
                    continue
                helpers = self._helpers.of(need)
                if helpers or not self._helpers.all_asked(need):
                    thread = Thread(process, tid)
                    halts[thread] = Halt(thread, 0, need.what, helpers, need.owner, need.named, sure=False, lock=need.lock)
        ticking = {process for process in self._expanded if seen[process].ticks}
        return in_vain(halts, {process for process in self._expanded if not seen[process].lively}, ticking)

    def _expand(self, processes: Iterable[ProcId]) -> bool:
        """Examine these processes, and the near ones that could help them. False: all of them were examined already."""
        queue, news = deque(processes), False
        while queue and len(self._helpers.seen) < PROCESSES:
            process = queue.popleft()
            if process in self._expanded:
                continue
            self._expanded.add(process)
            news = True
            seen, kept = self._helpers.see(process), self._proof.kept(process)
            if kept is not None:
                queue.extend(helper for halt in kept[1] for helper in halt.helpers)
            elif process not in self._enough:
                for need in seen.needs.values():
                    if need is not None:
                        queue.extend(helper for ask in need.asks for helper in self._helpers.near(ask))
        return news
