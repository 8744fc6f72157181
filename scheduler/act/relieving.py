"""Restores harmful demotions at once, between two ticks: asks the starvation watchdog, and remembers for the next decisions what
was restored.

Knows the hands, the clock, the census and the watchdog. Must not know decisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...models.identity import ProcId
from ...models.records import Class
from ..decision import Group, Outcome
from ..hands.faults import Status
from ..hands.fences import weighs_only
from ..hands.kernel import Clock, Kernel
from ..hands.places import FencePlace, Subject
from ..ports import Hands, Locks
from .census import Census
from .starvation import Case, Demotion, StarvationWatchdog


class Relieving:
    """Restores demotions that starve a process or keep one waiting for a lock."""

    def __init__(self, hands: Hands, kernel: Kernel, locks: Locks, clock: Clock) -> None:
        self._hands = hands
        self._clock = clock
        self._watchdog = StarvationWatchdog(locks)
        self._census = Census(hands.book, kernel, locks)
        self._groups: Sequence[Group] | None = None  # the next two were made from these; None: what is in force may have changed
        self._demotions: tuple[Demotion, ...] = ()
        self.members: tuple[ProcId, ...] = ()
        """Processes of the classed groups at the last look."""
        self._outcomes: list[Outcome] = []  # not yet reported
        self._relieved: dict[Subject, str] = {}  # restored since the last decisions, or attempted, and why

    def limit(self, starve_seconds: float, floor: float) -> None:
        """See `ports.Actuator`."""
        self._watchdog.limit(starve_seconds, floor)

    def changed(self) -> None:
        """What is in force may have changed: take the census again at the next look."""
        self._groups = None

    @property
    def has_relieved(self) -> bool:
        """Whether anything was restored since the last decisions."""
        return bool(self._relieved)

    def why(self, subject: Subject) -> str | None:
        """Why this was restored since the last decisions; None if it was not."""
        return self._relieved.get(subject)

    def decided(self) -> None:
        """Decisions were carried out, or everything is undone: the next ones know what was relieved until now."""
        self._relieved.clear()

    def reported(self) -> tuple[Outcome, ...]:
        """Outcomes of reliefs, each once."""
        reported, self._outcomes = tuple(self._outcomes), []
        return reported

    def relieve(self, groups: Sequence[Group]) -> float | None:
        """See `ports.Actuator`. A session or cgroup is restored as a whole, a process with all its threads and heirs."""
        at = self._clock.monotonic()
        if groups is not self._groups:
            members = {member.id: member for group in groups for member in group.members}
            self._demotions = self._census.demotions(at, tuple(members.values()))
            self.members, self._groups = tuple(members), groups
            for case in self._taken_along(groups):
                self._restore(case)
                self.changed()
        looked = self._watchdog.look(at, self._demotions, self.members, self._census.of)
        for case in looked.cases:
            self._restore(case)
        if looked.cases:
            self.changed()
        return looked.pause / 1e9 if self._demotions else None

    def _taken_along(self, groups: Sequence[Group]) -> Iterator[Case]:
        """Fences of swarms that contain an interactive process. It was started there; no decision put it there."""
        class_ = {member.id: group.name for group in groups if group.class_ is Class.INTERACTIVE for member in group.members}
        for subject, processes in self._demotions:
            first = next((process for process in processes if process in class_), None)
            if first is not None and isinstance(subject.on, FencePlace) and weighs_only(subject.on.key):
                yield Case((subject,), f"pid {first.pid} of {class_[first]} is in the cgroup of a swarm, where it was started")

    def _restore(self, case: Case) -> None:
        """Restore what a case names, exactly as a decision to restore it."""
        subjects = [subject for subject in case.subjects if subject not in self._relieved and self._hands.book.chains(subject)]
        for subject, done in self._hands.put_back(subjects).items():
            relieved = done.status in (Status.APPLIED, Status.UNCHANGED, Status.PARTIAL)
            status = Status.RELIEVED if relieved else done.status
            self._outcomes.append(Outcome(done.decision, status, done.target, f"{case.text}; {done.detail}", done.changed))
            self._relieved[subject] = case.text
