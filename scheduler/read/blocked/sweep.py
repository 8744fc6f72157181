"""Asks all processes of the machine, some a look, whether they can help the threads that seem stuck.

Must not know why a thread seems stuck, nor whether a process proceeds: the caller says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

from ....models.anomaly.waitgraph import Thread
from ....models.identity import ProcId
from ..holders import identify
from .belongings import Belongings
from .budget import FRESH, MOST_SWEPT, SWEEP, SWEPT
from .children import all_pids
from .records import START, Ask, Query


class Sweep:
    """A sweep answers the questions that existed when it began. It ends once the processes born meanwhile have been asked too."""

    def __init__(self, proc: str, belongings: Belongings) -> None:
        self._proc = proc
        self._belongings = belongings
        self._query = START
        self._answers: dict[Ask, tuple[int, frozenset[ProcId]]] = {}  # look in which the sweep ended, processes that can help
        self._asking: dict[Ask, set[ProcId]] = {}  # in this sweep
        self._left: deque[int] = deque()  # pids that are still to be asked
        self._listed: set[int] = set()  # pids that this sweep knows
        self._pace = SWEPT  # processes per look

    def begin(self, query: Query) -> None:
        """A new look."""
        self._query = query

    def found(self, ask: Ask) -> Collection[ProcId]:
        """Processes that can help in this way: found so far by the sweep that asks this question, or else by the last one."""
        return self._asking[ask] if ask in self._asking else self._answers.get(ask, (0, frozenset[ProcId]()))[1]

    def answered(self, ask: Ask, since: int = 1) -> bool:
        """Whether a sweep has ended in this look or a later one: all processes were asked, or one that proceeds was found."""
        answer = self._answers.get(ask)
        return answer is not None and answer[0] >= since

    def go_on(self, wanted: Mapping[Ask, int], stuck: Collection[Thread], proceeds: Callable[[ProcId, Ask], bool]) -> None:
        """Ask the next processes.

        `wanted`: the questions, each with the first look whose answer counts. `stuck`: the threads that have them. `proceeds`:
        whether a process that can help also proceeds by itself, which ends the question.
        """
        number = self._query.number
        self._answers = {ask: answer for ask, answer in self._answers.items() if ask in wanted or number - answer[0] < FRESH}
        self._asking = {ask: found for ask, found in self._asking.items() if ask in wanted}
        if not self._asking:
            self._asking = {
                ask: set() for ask, since in wanted.items() if ask not in self._answers or self._answers[ask][0] < since
            }
            if not self._asking:
                return
            first = min(stuck).process.pid
            self._listed = {process.pid for process in self._query.near}
            self._left = deque(sorted(self._unlisted(), key=lambda pid: abs(pid - first)))  # pids of a family are close
            self._pace = min(max(SWEPT, -(-len(self._left) // SWEEP)), MOST_SWEPT)
        for _ in range(min(self._pace, len(self._left))):
            self._ask(identify(self._proc, self._left.popleft()), proceeds)
            if not self._asking:
                return
        if not self._left:
            for pid in self._unlisted():  # born since it began
                self._ask(identify(self._proc, pid), proceeds)
            self._answers.update((ask, (number, frozenset(found))) for ask, found in self._asking.items())
            self._asking = {}

    def rest(self) -> None:
        """Release what was kept for the next look."""
        self._answers.clear()
        self._asking.clear()
        self._left.clear()

    def _unlisted(self) -> list[int]:
        """Pids that exist now and are not yet listed in this sweep."""
        pids = [pid for pid in all_pids(self._proc) if pid not in self._listed]
        self._listed.update(pids)
        return pids

    def _ask(self, process: ProcId | None, proceeds: Callable[[ProcId, Ask], bool]) -> None:
        """Ask a process all questions of this sweep."""
        if process is None:
            return
        for ask in [ask for ask in self._asking if self._belongings.answers(process, ask)]:
            self._asking[ask].add(process)
            if proceeds(process, ask):
                self._answers[ask] = self._query.number, frozenset(self._asking.pop(ask))
        self._belongings.forget(process)  # it may have something else open at the next look
