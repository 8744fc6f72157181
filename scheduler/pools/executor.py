"""A program's `nicety.scheduler.executor.Executor` as a pool: found by its name, watched and resized through its board.

Must not know policies or what the tasks do. Nothing is signalled: the program starts and ends its workers itself, between tasks.
A board is believed only about processes of its own user. Otherwise a user could have other users' processes treated as his.
"""

from __future__ import annotations

import logging
import os
import pwd
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...models.identity import ProcId
from ...models.records import PoolSample, WorkerSample
from ..config.sections import PoolConfig
from ..executor.board import BoardFile, BoardView, State, Word, WorkerState, WorkerView, boards
from ..hands.faults import Status
from ..hands.kernel import Clock
from .sensing.hands_off import QUIET, HandsOff
from .sensing.signals import ProcessHandle, identify, open_process
from .sensing.tally import PoolTally

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
ANSWER_NS = 5 * _SECOND
"""An executor reads its board at least every 0.5 s (executor/loop.py). After this time without an answer it counts as stopped.
Chosen: ten times that."""

_LOOK_NS = _SECOND
"""How often an executor is looked for while there is none. Chosen: each look lists directories."""


@dataclass(slots=True)
class _SizeRequest:
    word: int  # as it stands on the board
    size: int
    at: int


@dataclass(slots=True)
class _Attached:
    board: BoardFile
    handle: ProcessHandle
    uid: int
    view: BoardView
    own_resizes: int  # as seen by the last probe


class ExecutorPool:
    """Adapter for `[pools.NAME] kind = "executor"`."""

    def __init__(
        self,
        name: str,
        config: PoolConfig,
        clock: Clock,
        proc_root: Path = Path("/proc"),
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._wanted = config.executor or name
        self._user = config.user
        self._clock = clock
        self._proc_root = proc_root
        self._environ = os.environ if environ is None else environ
        self._attached: _Attached | None = None
        self._absence = "not looked for yet"
        self._lost = ""  # what became of the last executor
        self._look_at = 0
        self._request: _SizeRequest | None = None
        self._tally = PoolTally(name)
        self._hands_off = HandsOff(name)  # its program resized it: for that time the executor itself ignores requests
        self._recycling: deque[ProcId] = deque()  # the first one is asked for on the board
        self._known: dict[ProcId, bool] = {}  # workers, and whether they are the processes that the board says
        self._busy: dict[ProcId, int] = {}  # busy ns of workers until the last read
        self._read_at: int | None = None  # when that was; None: not read since this executor was found
        self._start_seconds: float | None = None
        self._closed = False

    # --- the port -------------------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Look at the board."""
        if self._closed:
            return
        now = self._clock.monotonic()
        attached = self._refresh(now)
        if attached is None:
            return
        self._tally.queue(attached.view.queued)
        self._follow_up(attached, now)

    def read(self) -> PoolSample:
        """Busy is exact here: time spent on tasks over the time since the last read, not a share of the probes."""
        if self._tally.is_empty():
            self.probe()
        now = self._clock.monotonic()
        found = [] if self._attached is None else self._workers(self._attached)
        workers = [
            WorkerSample(worker, self._share(worker, view, now), view.doing is not WorkerState.STARTING) for worker, view in found
        ]
        for gone in self._known.keys() - {worker for worker, _ in found}:
            del self._known[gone]
            self._busy.pop(gone, None)
        sample = self._tally.sample(
            workers,
            requested=self._requested(),
            master=None if self._attached is None else self._attached.handle.id,
            trouble=self._trouble(now)[1],
            start_seconds=self._start_seconds,
        )
        self._read_at = None if self._attached is None else now
        return sample

    def resize(self, size: int) -> tuple[Status, str]:
        """Ask for `size` workers, within the program's limits. The executor sees it within half a second."""
        if size < 1:
            return Status.REFUSED, f"an executor keeps at least one worker, so {size} is not possible"
        now = self._clock.monotonic()
        status, trouble = self._trouble(now)
        if trouble or self._attached is None:
            return status, trouble
        view = self._attached.view
        if not view.minimum <= size <= view.maximum:
            limits = f"minimum={view.minimum}, max_workers={view.maximum}"
            return Status.REFUSED, f"{size} is outside of what the program allows: {limits}"
        before = self._requested()
        if size == before:
            return Status.UNCHANGED, f"pool {self.name} has been asked for {size} already"
        try:
            self._request = _SizeRequest(self._attached.board.ask(Word.ASKED, size), size, now)
        except (OSError, ValueError) as error:
            return Status.FAILED, f"the executor's board cannot be written: {error}"
        return Status.APPLIED, f"asked for {size} workers, {before} before"

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """Let this worker finish its task and end; the executor starts a replacement."""
        attached = self._refresh(self._clock.monotonic())
        view = None if attached is None else _find(attached.view, worker)
        if attached is None or view is None or view.doing is WorkerState.DRAINING:
            return Status.VANISHED, f"pid {worker.pid} is no worker of pool {self.name}"
        if worker not in self._recycling:
            self._recycling.append(worker)
            if len(self._recycling) == 1:
                self._ask_next(attached)
        return Status.APPLIED, f"asked for another worker in place of pid {worker.pid}"

    def close(self) -> None:
        """Release the executor; it keeps its size."""
        self._detach("closed")
        self._closed = True

    @property
    def board(self) -> BoardView | None:
        """The board as last seen, with counts and sums of waiting and service times; None if no executor is there."""
        return None if self._attached is None else self._attached.view

    # --- the executor ---------------------------------------------------------------------------------------------------------

    def _refresh(self, now: int) -> _Attached | None:
        """The executor with its board read again; None, with `_absence` set, if there is no executor."""
        if self._closed:
            return None
        attached = self._attached
        if attached is not None:
            try:
                attached.view = attached.board.read()
            except (OSError, ValueError) as error:
                self._lose(f"the board of executor {self._wanted!r} cannot be read any more: {error}", now)
            else:
                pid = attached.handle.id.pid
                if attached.view.state is State.ENDED:
                    self._lose(f"executor {self._wanted!r} of pid {pid} was shut down", now)
                elif attached.view.state is State.BROKEN:
                    why = "a worker's initializer failed, or none could be started: its program has been told"
                    self._lose(f"executor {self._wanted!r} of pid {pid} is broken ({why}, and has to make another)", now)
                elif attached.handle.exited():
                    self._lose(f"the program of executor {self._wanted!r}, pid {pid}, has ended: start it again", now)
        if self._attached is None and now >= self._look_at:
            self._look_at = now + _LOOK_NS
            self._look()
        if self._attached is not None and self._attached.view.starts_ns:
            self._start_seconds = statistics.median(self._attached.view.starts_ns) / _SECOND
        return self._attached

    def _look(self) -> None:
        uid = os.geteuid()
        if self._user:
            try:
                uid = pwd.getpwnam(self._user).pw_uid
            except KeyError:
                self._absence = f"there is no user {self._user!r}; correct pools.{self.name}.user"
                return
        # another user's runtime directory is not the one that our environment names
        environ = {k: v for k, v in self._environ.items() if k == "NICETY_RUN_DIR" or uid == os.geteuid()}
        paths, trouble = boards(environ, uid)
        others = 0
        for path in paths:
            found = self._open(path, uid)
            if found is None:
                continue
            if self._attached is None:
                self._attached = found
                self._request = None
                log.info("pool %s: adopted executor %r of pid %d", self.name, self._wanted, found.handle.id.pid)
            else:
                others += 1
                found.board.close()
                found.handle.close()
        if others:
            log.warning(
                "pool %s: %d more executors are named %r, the oldest is sized; give them different names, Executor(name=...)",
                self.name,
                others,
                self._wanted,
            )
        if self._attached is not None:
            self._lost = ""
            return
        none = f"no executor named {self._wanted!r} of uid {uid} has begun to work yet: start its program, Executor(name=...)"
        self._absence = (self._lost or none) + (f" ({trouble})" if trouble else "")

    def _open(self, path: Path, uid: int) -> _Attached | None:
        """The executor of this board, if it is alive and the one we look for."""
        try:
            board = BoardFile(path, uid)
        except (OSError, ValueError):
            return None
        view = board.read()
        handle = None
        if view.name == self._wanted and view.state not in {State.ENDED, State.BROKEN}:
            owner = ProcId(*view.owner)
            if self._belongs(owner.pid, uid):
                handle = open_process(self._proc_root, owner.pid, owner)
        if handle is None:
            board.close()
            return None
        return _Attached(board, handle, uid, view, view.own_resizes)

    def _lose(self, absence: str, now: int) -> None:
        log.warning("pool %s: %s", self.name, absence)
        self._detach(absence)
        self._lost = absence
        self._look_at = now

    def _detach(self, absence: str) -> None:
        if self._attached is not None:
            self._attached.board.close()
            self._attached.handle.close()
            self._attached = None
        self._absence = absence
        self._request = None
        self._hands_off.end()
        self._recycling.clear()
        self._known.clear()
        self._busy.clear()
        self._read_at = None
        self._tally.forget()

    # --- workers --------------------------------------------------------------------------------------------------------------

    def _workers(self, attached: _Attached) -> list[tuple[ProcId, WorkerView]]:
        """Workers that exist and are what the board says, sorted."""
        found = []
        for view in attached.view.workers:
            worker = ProcId(view.pid, view.start_ticks)
            if worker not in self._known:
                self._known[worker] = self._belongs(worker.pid, attached.uid)
            if self._known[worker] and identify(self._proc_root, worker.pid) == worker:
                found.append((worker, view))
        return sorted(found, key=lambda pair: pair[0])

    def _belongs(self, pid: int, uid: int) -> bool:
        """Whether the process is the user's. Root may name any process: its programs start workers for other users."""
        try:
            return uid == 0 or (self._proc_root / str(pid)).stat().st_uid == uid
        except OSError:
            return False

    def _share(self, worker: ProcId, view: WorkerView, now: int) -> float | None:
        """Share of the time since the last read during which the worker was busy."""
        total = view.busy_ns + (max(0, now - view.since) if view.since else 0)
        before = self._busy.get(worker, 0)  # a worker that came since then has been busy only since then
        self._busy[worker] = total
        if self._read_at is None or now <= self._read_at:
            return None
        return min(1.0, max(0.0, (total - before) / (now - self._read_at)))

    def _ask_next(self, attached: _Attached) -> None:
        try:
            attached.board.ask(Word.RECYCLE, self._recycling[0].pid)
        except (OSError, ValueError) as error:
            log.warning("pool %s: the executor's board cannot be written: %s", self.name, error)
            self._recycling.clear()

    # --- sizing ---------------------------------------------------------------------------------------------------------------

    def _follow_up(self, attached: _Attached, now: int) -> None:
        """Check what became of our request, and whether the program has resized the executor itself."""
        view, request = attached.view, self._request
        self._hands_off.lasts(now, view.target)
        if request is not None and view.answered == request.word:
            self._request = None
            if view.target != request.size:
                self._hold(view, now)
        if self._resized(attached):
            self._hold(view, now)
        if self._recycling:
            worker = _find(view, self._recycling[0])
            if worker is None or worker.doing is WorkerState.DRAINING:
                self._recycling.popleft()
                if self._recycling:
                    self._ask_next(attached)

    def _resized(self, attached: _Attached) -> bool:
        before, attached.own_resizes = attached.own_resizes, attached.view.own_resizes
        return before != attached.own_resizes

    def _hold(self, view: BoardView, now: int) -> None:
        self._request = None
        self._hands_off.begin(f"resized by its own program to {view.target} workers: {QUIET}", Status.FOREIGN, now)

    def _requested(self) -> int:
        if self._attached is None:
            return 0
        return self._attached.view.target if self._request is None else self._request.size

    def _trouble(self, now: int) -> tuple[Status, str]:
        """Why the pool cannot be resized now; "" if it can."""
        if self._attached is None:
            return Status.REFUSED, self._absence
        view = self._attached.view
        if view.state is not State.RUNNING:
            return Status.REFUSED, f"executor {self._wanted!r} of pid {view.owner[0]} is being shut down by its program"
        if self._hands_off.text:
            return self._hands_off.answer(self._hands_off.text)
        if self._request is not None and now - self._request.at >= ANSWER_NS:
            seconds = (now - self._request.at) // _SECOND
            return Status.FAILED, f"the executor did not look at its board for {seconds} s: is pid {view.owner[0]} stopped?"
        return Status.APPLIED, ""


def _find(view: BoardView, worker: ProcId) -> WorkerView | None:
    return next((found for found in view.workers if (found.pid, found.start_ticks) == worker), None)
