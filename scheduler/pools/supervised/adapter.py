"""A pool whose workers supervisord or systemd starts and stops: the processes of a program, or the instances of a template unit.

Must not know policies or what the workers do. The supervisor is asked by its own command, once in a while and after each change;
between two answers the workers themselves are watched. A place is one worker's: it is started, or stopped, by its number. The
supervisor drains a worker by its own rules (stopsignal, stopwaitsecs; KillSignal, TimeoutStopSec).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ....models.identity import ProcId
from ....models.records import PoolSample, WorkerSample
from ...config.sections import PoolConfig
from ...hands.faults import Status
from ...hands.kernel import Clock
from ...hands.pool_children import PLACES_AT_ONCE
from ...hands.pool_places import PROGRAMS, place_name
from ...hands.wire import RefusedError
from ..command.queues.choose import counter
from ..command.queues.waiting import WaitingWork
from ..sensing.acts import Acts, Child, block
from ..sensing.busy import Activity, Doing
from ..sensing.hands_off import QUIET, HandsOff
from ..sensing.signals import age_seconds, identify
from ..sensing.tally import PoolTally
from .answers import AnswerError, Place, State, parse

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
CALM_NS = {"supervisord": 30 * _SECOND, "systemd": 5 * _SECOND}
"""Time between two questions while nothing is under way: supervisorctl takes 80 ms of CPU, systemctl 8. A worker that ends is
seen at once. Chosen."""
SOON_NS = _SECOND
"""Time between two questions while something is under way, or was not understood. Chosen."""
FRESH_NS = 3 * _SECOND
"""Oldest answer on which an order may rest. Chosen."""
PATIENCE_NS = 10 * _SECOND
"""Time for an answer. Chosen."""
SETTLE_NS = 5 * _SECOND
"""Time after an order within which a place need not show its effect: systemd takes the order and does it later. Chosen."""
STRANGE = 2
"""Answers in a row that contradict what was asked for, until somebody else is believed to have done that. Chosen: a restart by hand
shows as stopped for a moment."""
READY_NS = 10 * _SECOND
"""A worker that was never seen waiting for work counts as up after this time: it came up under load. Chosen."""
RETRIES = 3
"""Orders in a row that failed before the pool is reported as not obeying. Chosen."""
MAX_OUTPUT = 1 << 20
"""Most bytes of an answer: systemctl says 100 of a place. Chosen."""


@dataclass(slots=True)
class _SupervisedWorker:
    id: ProcId
    activity: Activity
    seen_at: int
    newborn: bool
    ready: bool = False
    doing: Doing = Doing.UNKNOWN
    busy: int = 0
    known: int = 0


@dataclass(slots=True)
class _PlaceHeld:
    wanted: bool  # it should have a worker, by the last answer or our order
    last: Place
    worker: _SupervisedWorker | None = None
    order: _Command | None = None
    settled_at: int = 0  # until then an answer may still contradict our order
    strange: int = 0


@dataclass(slots=True)
class _Command:
    """A command to the supervisor that runs."""

    verb: str
    process: Child
    since: int
    output: bytearray = field(default_factory=bytearray)

    def ended(self) -> int | None:
        """Read what it says; its status once it has ended."""
        status = self.process.poll()
        while len(self.output) <= MAX_OUTPUT:
            try:
                said = os.read(self.process.pipes[0], 1 << 16)
            except BlockingIOError:
                break
            if not said:
                break
            self.output += said
        return status

    def text(self) -> str:
        """What it said."""
        return self.output.decode("utf-8", "replace")


class SupervisedPool:
    """Adapter for `[pools.NAME] kind = "supervisord"` and `"systemd"`."""

    def __init__(
        self,
        name: str,
        config: PoolConfig,
        clock: Clock,
        acts: Acts,
        proc_root: Path = Path("/proc"),
        *,
        environ: Mapping[str, str],
    ) -> None:
        """`environ`: where a queue's `$NAME` is looked up. Raises ValueError for a queue that cannot be counted."""
        self.name = name
        self._config = config
        self._block = block(config)
        self._clock = clock
        self._acts = acts
        self._proc_root = proc_root
        self._places: dict[int, _PlaceHeld] = {}  # empty until the first answer
        self._target: int | None = None  # the size that we want; None: whatever is there
        self._question: _Command | None = None
        self._ask_at = 0
        self._heard_at = 0
        self._silence = "its supervisor was not asked yet"
        self._failures = 0  # orders in a row
        self._hands_off = HandsOff(name)
        self._tally = PoolTally(name)
        self._probes = 0
        self._closed = False
        self._waiting: WaitingWork | None = None
        self._forks = config.queue is not None and bool(config.queue.rq)  # a worker has a child for each job
        if config.queue is not None:
            self._waiting = WaitingWork(name, counter(config.queue, acts.count, clock, environ), config.queue.every, clock)

    # --- the port -------------------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Look at the workers, take answers, ask, and give the orders that are due."""
        if self._closed:
            return
        now = self._clock.monotonic()
        self._probes += 1
        self._look(now)
        if self._waiting is not None:
            self._waiting.probe()
            count = self._waiting.count()
            if count is not None:
                self._tally.queue(count.waiting)
        for number, place in self._places.items():
            self._follow(number, place, now)
        self._listen(now)
        if self._places:
            self._steer(now)

    def read(self) -> PoolSample:
        """Shares and means over the probes since the last read. `workers` includes those that leave until they have ended."""
        if self._probes == 0:
            self.probe()
        self._probes = 0
        workers = [place.worker for place in self._places.values() if place.worker is not None]
        sample = self._tally.sample(
            (WorkerSample(worker.id, worker.busy / worker.known if worker.known else None, worker.ready) for worker in workers),
            requested=self._requested(),
            master=None,
            trouble=self._trouble(),
            flights=self._waiting.flights() if self._waiting is not None else None,
        )
        for worker in workers:
            worker.busy = worker.known = 0
        return sample

    def resize(self, size: int) -> tuple[Status, str]:
        """Ask for `size` workers; the next probes give the orders."""
        if not 1 <= size <= self._config.maximum:
            return Status.REFUSED, f"{size} is outside of 1 and maximum = {self._config.maximum}"
        trouble = self._trouble()
        if trouble:
            return self._hands_off.answer(trouble)
        before = self._requested()
        if size == before:
            return Status.UNCHANGED, f"pool {self.name} has been asked for {size} already"
        self._target, self._failures = size, 0
        return Status.APPLIED, f"asked for {size} workers, {before} before"

    def recycle(self, worker: ProcId) -> tuple[Status, str]:
        """Have the supervisor restart the place of this worker."""
        for number, place in self._places.items():
            if place.worker is not None and place.worker.id == worker:
                if place.order is not None or not place.wanted:
                    return Status.UNCHANGED, f"{self._called(number)} (pid {worker.pid}) is leaving already"
                problem = self._order(number, place, "restart", self._clock.monotonic())
                return (Status.REFUSED, problem) if problem else (Status.APPLIED, f"{self._called(number)} is restarted")
        return Status.VANISHED, f"pid {worker.pid} is no worker of pool {self.name}"

    def close(self) -> None:
        """Release the pool; it stays as it is. Orders under way are carried out by the supervisor."""
        self._closed = True
        if self._waiting is not None:
            self._waiting.close()
        for command in (self._question, *(place.order for place in self._places.values())):
            if command is not None:
                command.process.end()
        for place in self._places.values():
            self._drop(place)
        self._question, self._places = None, {}

    # --- what is there --------------------------------------------------------------------------------------------------------

    def _look(self, now: int) -> None:
        for place in self._places.values():
            worker = place.worker
            if worker is None:
                continue
            worker.doing = worker.activity.look(now)
            if worker.doing is Doing.GONE:
                self._drop(place)
                self._ask_at = min(self._ask_at, now)
                continue
            if worker.doing in (Doing.IDLE, Doing.BUSY):
                worker.known += 1
                worker.busy += worker.doing is Doing.BUSY
            if not worker.ready:
                worker.ready = worker.doing is Doing.IDLE or now - worker.seen_at >= READY_NS
                if worker.doing is Doing.IDLE and worker.newborn:
                    self._tally.start(age_seconds(self._proc_root, worker.id))

    def _drop(self, place: _PlaceHeld) -> None:
        if place.worker is not None:
            place.worker.activity.close()
            place.worker = None

    def _listen(self, now: int) -> None:
        """Take the answer of the supervisor, or ask it if it is time."""
        question = self._question
        if question is None:
            if now < self._ask_at:
                return
            try:
                self._question = self._command("status", 0, now)
            except (OSError, RefusedError) as error:
                self._fall_silent(f"{self._asking()} cannot be started: {error}; correct command", now)
            return
        status = question.ended()
        if status is None:
            if now - question.since >= PATIENCE_NS or len(question.output) > MAX_OUTPUT:
                question.process.end()
                self._question = None
                self._fall_silent(f"{self._asking()} gave no answer within {PATIENCE_NS // _SECOND} s: try it by hand", now)
            return
        question.process.close()
        self._question = None
        try:
            answer = parse(self._block, question.text())
        except AnswerError as error:
            self._fall_silent(str(error), now)
            return
        if all(place.state is State.MISSING for place in answer.values()):
            self._fall_silent(f"there is no {self._called(0)}: correct unit, or first", now)
            return
        if self._silence and self._places:
            log.info("pool %s: its supervisor answers again", self.name)
        self._silence, self._heard_at = "", question.since
        self._hear(answer, question.since, now)
        busy = any(place.order is not None or now < place.settled_at or place.strange for place in self._places.values())
        self._ask_at = now + (SOON_NS if busy or self._starting() else CALM_NS[self._config.kind])

    def _hear(self, answer: dict[int, Place], asked_at: int, now: int) -> None:
        """Take in what each place is. `asked_at`: what was done since may not show."""
        first = not self._places
        by_hand = False
        for number, seen in answer.items():
            wanted = seen.state is State.UP
            place = self._places.setdefault(number, _PlaceHeld(wanted, seen))
            changed, place.last = seen.state is not place.last.state, seen
            if seen.state in (State.FAILED, State.ENDED):
                if changed or first:
                    log.warning("pool %s: %s is %s and is not started again", self.name, self._called(number), seen.word)
                place.wanted = False
            self._admit(place, seen.pid, now, newborn=not first)
            if place.order is not None or asked_at < place.settled_at:
                continue
            strange = wanted != place.wanted and seen.state in (State.UP, State.OFF)
            place.strange = place.strange + 1 if strange else 0
            by_hand = by_hand or place.strange >= STRANGE
        if by_hand:
            before = self._requested()
            for place in self._places.values():
                place.wanted, place.strange = place.last.state is State.UP, 0
            text = f"resized by hand to {self._wanted()} workers ({before} were asked for): {QUIET}"
            self._hold(text, Status.FOREIGN, now)

    def _admit(self, place: _PlaceHeld, pid: int, now: int, *, newborn: bool) -> None:
        if place.worker is not None and place.worker.id.pid == pid:
            return
        found = identify(self._proc_root, pid) if pid else None
        if found is None or (place.worker is not None and place.worker.id == found):
            return
        self._drop(place)
        place.worker = _SupervisedWorker(found, Activity(self._proc_root, pid, forks=self._forks), now, newborn)

    def _starting(self) -> bool:
        return any(place.wanted and place.worker is None for place in self._places.values())

    def _fall_silent(self, text: str, now: int) -> None:
        if text != self._silence:
            log.warning("pool %s: %s", self.name, text)
        self._silence = text
        self._ask_at = now + SOON_NS * 5

    # --- sizing ---------------------------------------------------------------------------------------------------------------

    def _steer(self, now: int) -> None:
        if self._hands_off.text and self._hands_off.lasts(now, self._wanted()):
            return
        if self._target is None or self._silence:
            return
        under_way = sum(place.order is not None for place in self._places.values())
        missing = self._target - self._wanted()
        if missing and now - self._heard_at >= FRESH_NS:  # somebody else may have changed it meanwhile
            self._ask_at = min(self._ask_at, now)
            return
        chosen = self._candidates(missing > 0)[: abs(missing)]
        ready = [(number, place) for number, place in chosen if place.order is None]  # the others get theirs once they are through
        for number, place in ready[: max(0, PLACES_AT_ONCE - 1 - under_way)]:
            problem = self._order(number, place, "start" if missing > 0 else "stop", now)
            if problem:
                self._failed(problem, now)
                return

    def _candidates(self, to_start: bool) -> list[tuple[int, _PlaceHeld]]:
        """Places that may be started, the lowest first; or stopped: idle ones first, the highest first, and last those below
        `minimum`, which the hands keep. One to be stopped may still have an order under way: it is waited for, so that no lower one
        is stopped in its stead."""
        if to_start:
            return [
                (number, place)
                for number, place in self._places.items()
                if place.order is None and not place.wanted and place.last.state in (State.OFF, State.ENDED)
            ]
        there = [(number, place) for number, place in self._places.items() if place.wanted]

        def rank(item: tuple[int, _PlaceHeld]) -> tuple[bool, bool, int]:
            number, place = item
            return number < self._config.minimum, place.worker is not None and place.worker.doing is Doing.BUSY, -number

        return sorted(there, key=rank)

    def _order(self, number: int, place: _PlaceHeld, verb: str, now: int) -> str:
        """Give an order. Returns "" or why it was not given."""
        try:
            place.order = self._command(verb, number, now)
        except (OSError, RefusedError) as error:
            return f"{self._called(number)} cannot be told to {verb}: {error}"
        place.wanted = verb != "stop"
        place.settled_at, place.strange = now + SETTLE_NS, 0
        self._ask_at = min(self._ask_at, now + SOON_NS)
        return ""

    def _follow(self, number: int, place: _PlaceHeld, now: int) -> None:
        """Take the end of an order."""
        order = place.order
        if order is None or (status := order.ended()) is None:
            return
        order.process.close()
        place.order = None
        place.settled_at = now + SETTLE_NS
        self._ask_at = min(self._ask_at, now)
        said = " ".join(order.text().split())[:200]
        if status == 0 and "ERROR" not in said:
            self._failures = 0
        elif "already started" not in said and "not running" not in said:
            place.wanted = place.last.state is State.UP
            self._failed(f"{self._called(number)} did not {order.verb}: {said or f'status {status}'}", now)

    def _failed(self, problem: str, now: int) -> None:
        self._failures += 1
        log.warning("pool %s: %s", self.name, problem)
        if self._failures > RETRIES:
            self._hold(problem, Status.FAILED, now)

    def _hold(self, text: str, status: Status, now: int) -> None:
        self._hands_off.begin(text, status, now)
        self._target, self._failures = None, 0

    def _command(self, verb: str, number: int, now: int) -> _Command:
        """Raises OSError, RefusedError."""
        process = self._acts.place(verb, number)
        os.set_blocking(process.pipes[0], False)
        return _Command(verb, process, now)

    def _wanted(self) -> int:
        return sum(place.wanted for place in self._places.values())

    def _requested(self) -> int:
        return self._wanted() if self._target is None else self._target

    def _called(self, number: int) -> str:
        return place_name(self._block, number)

    def _asking(self) -> str:
        return (self._config.command or [PROGRAMS[self._config.kind]])[0]

    def _trouble(self) -> str:
        if self._silence or self._hands_off.text:
            return self._silence or self._hands_off.text
        failed = [number for number, place in self._places.items() if place.last.state is State.FAILED]
        if failed and self._target is not None and self._target > self._wanted() and not self._candidates(to_start=True):
            return f"{self._called(failed[0])} cannot be started ({self._places[failed[0]].last.word}): see its log"
        return ""
