"""The loop of an executor's manager thread.

Runs in the user's program. Must not know what is done in a turn, only when: see staffing.py, dispatch.py and inbox.py.
"""

from __future__ import annotations

import time

from .backlog import Backlog
from .board import Board, State, Word
from .crew import Crew, CrewWorker
from .dispatch import Dispatch
from .doorbell import Doorbell
from .gate import Gate
from .inbox import Inbox
from .sizing import Sizing
from .staffing import Staffing

LOOK_SECONDS = 0.5
"""The board is read when a task comes or ends, and at least this often. Chosen: nicety takes an executor that has not read its
board for 5 s for stopped (docs/pools.md)."""
TOUCH_NS = 3600 * 1_000_000_000
"""How often the board's file is touched. Old files are removed: in /tmp after 10 days (tmpfiles.d), in runtime directories from
6 hours on (XDG specification)."""


class Loop:
    """Does what is due, then sleeps until something happens, until the executor has ended.

    All of it runs in the manager thread. Other threads reach it through `Gate`, `Sizing`, `Backlog.submit` and `Doorbell`.
    """

    def __init__(
        self,
        gate: Gate,
        bell: Doorbell,
        sizing: Sizing,
        crew: Crew,
        backlog: Backlog,
        dispatch: Dispatch,
        inbox: Inbox,
        staffing: Staffing,
        board: Board,
    ) -> None:
        self._gate = gate
        self._bell = bell
        self._sizing = sizing
        self._crew = crew
        self._backlog = backlog
        self._dispatch = dispatch
        self._inbox = inbox
        self._staffing = staffing
        self._board = board
        self._touch_at = time.monotonic_ns() + TOUCH_NS

    def run(self) -> None:
        """Return when all tasks are done and all workers have ended. An error in here fails all tasks, and is raised."""
        try:
            while not self._turn():
                pass
        except BaseException as error:
            self._staffing.break_down(f"the executor's manager failed: {error!r}", error)
            raise

    def _turn(self) -> bool:
        """Do everything that is due, then sleep until something happens. True when the executor is finished."""
        crew, bell, sizing = self._crew, self._bell, self._sizing
        bell.awaited = True  # set before the look at the queue: a later task rings
        now = time.monotonic_ns()
        if now >= self._touch_at:
            self._touch_at = now + TOUCH_NS
            self._board.touch()
        more_starts = self._staffing.look_after(now)
        self._dispatch.give_out(sizing.target)
        if self._gate.is_ending and self._is_over():
            return True
        if not (crew.idle or (not sizing.eager and crew.staying < sizing.target)):
            bell.awaited = False
        events = crew.epoll.poll(0 if more_starts else LOOK_SECONDS)
        bell.awaited = False
        dead: list[CrewWorker] = []
        for descriptor, _ in events:
            worker = crew.by_channel.get(descriptor)
            if worker is not None:
                self._inbox.receive(worker)
            elif descriptor in crew.by_exit:
                dead.append(crew.by_exit[descriptor])
            elif descriptor == bell.descriptor:
                bell.answer()
        for worker in dead:
            self._staffing.bury(worker)
        if self._inbox.done:
            if self._backlog.waiting:
                self._staffing.look_after(time.monotonic_ns())
                self._dispatch.give_out(sizing.target)  # workers continue while futures are resolved
            self._inbox.resolve()
        return False

    def _is_over(self) -> bool:
        """Whether nothing is left to do, for good. Ends the workers when only they are left."""
        gate = self._gate
        self._board.words[Word.STATE] = State.BROKEN if gate.broken else State.CLOSING
        if gate.cancel:
            gate.cancel = False
            self._backlog.cancel(self._sizing.target)
        return self._backlog.is_finished() and self._staffing.dismiss()
