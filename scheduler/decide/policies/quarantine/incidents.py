"""Incidents: workers, circles of workers, and troubles of a master, from the first odd score to the end. Pure: proposes nothing.

Scores and circles of each tick make streaks. An incident is about one worker, one circle of workers that wait for each other, or
one kind of trouble of a master.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from .....models.identity import ProcId
from .....models.records import Anomaly, Deadlock, Score
from ....decision import FEEDBACK_MARGIN, Feedback, Tick
from ....hands.places import Control
from ..policy import Memory
from .significance import Significance
from .threshold import CONSENSUS


class Demoted(Memory):
    """A worker that was demoted or fenced in."""

    process: ProcId
    control: Control  # by which it was
    left: int = 0  # thousandths of a core that its fence leaves; 0: no fence, or no limit on CPU


class Incident(Memory):
    """A worker, or several in a circle, that misbehaves."""

    pool: str
    ids: list[ProcId]  # sorted; more than one only in a circle
    last: int  # ns, when it was last significant
    circle: bool = False
    worker: bool = False  # it was seen among a pool's workers, so the incident is over when it is gone
    since: int | None = None  # ns, beginning of the present streak
    held: int = 0  # ns of the streak in which it was significant
    before: int | None = None  # ns, the last tick of the streak
    evidence: dict[str, float] = msgspec.field(default_factory=dict)  # kind -> seconds times -log10 p, since streak or report
    kind: str = ""  # as reported
    id: str = ""  # of the flag that reported it; "": not reported
    reported: int = 0  # ns
    named: list[ProcId] = msgspec.field(default_factory=list)  # members in a circle's report; later ones are not acted on
    renamed: bool = False
    muted: bool = False  # beyond the budget
    treated: bool = False  # demoted or recycled, if that was asked for
    demoted: Demoted | None = None
    over: bool = False  # and reported as over, or taken over by a circle

    @property
    def strongest(self) -> str:
        """The kind with most evidence; the first by name among equals."""
        return min(self.evidence, key=lambda kind: (-self.evidence[kind], kind), default=self.kind)

    @property
    def who(self) -> str:
        """The workers, for people."""
        pids = [str(id_.pid) for id_ in self.ids]
        return f"{'Worker' if len(pids) == 1 else 'Workers'} {', '.join(pids)} of {self.pool}"

    def significant(self, at: int, kind: str, weight: float) -> None:
        """Notes a significant score in this tick; a second kind in the same tick only adds evidence."""
        step = 0 if self.before is None else at - self.before
        if self.since is None:
            self.since, self.held = at, 0
        elif self.last < at:
            self.held += step
        self.evidence[kind] = self.evidence.get(kind, 0.0) + weight * max(step, 1) / 1e9
        self.last = at

    def rest(self, at: int) -> None:
        """The end of a tick: ends the streak if the score was significant for too little of it."""
        if self.since is not None and self.last != at and self.held < CONSENSUS * (at - self.since):
            self.interrupt()
        elif self.since is not None:
            self.before = at

    def interrupt(self) -> None:
        """Ends the streak; the evidence of an unreported incident is dropped too."""
        self.since, self.before, self.held = None, None, 0
        if not self.id:
            self.evidence = {}

    def lasted(self, at: int, patience: float) -> bool:
        """Whether it was significant for long enough, and for most of that time. The waits of a circle have lasted before they are
        seen, so two ticks are enough."""
        if self.since is None:
            return False
        needed = min(patience, 1.0) if self.circle else patience
        return at - self.since >= needed * 1e9 and self.held >= CONSENSUS * (at - self.since)

    def report(self, id_: str, kind: str, at: int) -> None:
        """Notes that it was reported as this kind, for the first time or again."""
        self.id, self.kind, self.reported, self.evidence = id_, kind, self.reported or at, {}

    def release(self) -> None:
        """Notes that nothing is done about it any more."""
        self.treated, self.demoted = False, None


class Following:
    """Updates incidents from the scores and circles of a tick."""

    def __init__(self, incidents: dict[str, Incident], odd: Significance) -> None:
        """`incidents`: by target; they are changed."""
        self._incidents = incidents
        self._odd = odd

    def scores(self, tick: Tick, present: set[ProcId]) -> None:
        """Continues the streaks of workers. A worker in a circle is scored for the circle, not for being stuck in it. A master has
        an incident of its own for each kind: its workers crash whether or not it leaves zombies."""
        circled = {id_ for it in self._incidents.values() if it.circle and not it.over for id_ in it.ids}
        for score in tick.scores:
            if score.id in circled or not self._odd.is_odd(score) or not _beyond_feedback(tick.feedback, score):
                continue
            key = _target(score.pool, (score.id,), "" if score.id in present else score.kind)
            incident = self._incidents.get(key)
            if incident is None or incident.ids != [score.id] or incident.over:
                demoted = incident.demoted if incident is not None and incident.ids == [score.id] else None
                incident = Incident(score.pool, [score.id], tick.at, worker=score.id in present, demoted=demoted)
                self._incidents[key] = incident
            incident.significant(tick.at, score.kind, -math.log10(self._odd.p(score)))

    def circles(self, tick: Tick) -> None:
        """Continues the streaks of circles. A circle that gains or loses some of its members is the same incident."""
        pools = {worker.id: pool.name for pool in tick.pools for worker in pool.workers}
        for deadlock in tick.deadlocks:
            ids = sorted({wait.waiter for wait in deadlock.waits})
            pool = next((pools[id_] for id_ in ids if id_ in pools), None)
            if pool is None or not _long_enough(tick, deadlock, pool):
                continue
            known = [it for it in self._incidents.values() if it.circle and not it.over and set(it.ids) & set(ids)]
            if known:
                incident = known[0]
                incident.ids = ids
            else:
                incident = self._incidents[_target(pool, ids)] = Incident(pool, ids, tick.at, circle=True)
            incident.significant(tick.at, Anomaly.DEADLOCK, 1.0)

    def seen(self, tick: Tick, incident: Incident) -> Score | Deadlock | None:
        """What this tick says about an incident; None: nothing significant."""
        if incident.last != tick.at:
            return None
        if incident.circle:
            return next((it for it in tick.deadlocks if {wait.waiter for wait in it.waits} == set(incident.ids)), None)
        kind = incident.kind or incident.strongest
        found = [
            it for it in tick.scores if it.id == incident.ids[0] and self._odd.is_odd(it) and (incident.worker or it.kind == kind)
        ]
        return min(found, key=lambda it: (it.kind != kind, it.p), default=None)

    def taken_over(self, circle: Incident) -> Incident | None:
        """A reported incident of one of the circle's workers, which the circle now explains."""
        mine = set(circle.ids)
        found = (it for _, it in sorted(self._incidents.items()) if it.id and not it.circle and not it.over)
        return next((it for it in found if it.ids[0] in mine and not it.renamed), None)

    def drop_ended(self) -> None:
        """Forgets incidents that are over and whose changes are restored."""
        for key in [key for key, it in self._incidents.items() if it.over and it.demoted is None]:
            del self._incidents[key]


def validate(incidents: Mapping[str, Incident]) -> None:
    """Raises AssertionError if they contradict themselves."""
    for key, incident in incidents.items():
        assert incident.ids == sorted(incident.ids), f"{key}: sorted"
        assert incident.circle or len(incident.ids) == 1, f"{key}: several only in a circle"


def _beyond_feedback(feedback: Iterable[Feedback], score: Score) -> bool:
    """Whether the score is unlike every incident called wrong, or much stronger."""
    return all(
        score.value > FEEDBACK_MARGIN * item.value for item in feedback if item.pool == score.pool and item.kind == score.kind
    )


def _long_enough(tick: Tick, deadlock: Deadlock, pool: str) -> bool:
    """Whether the circle lasted much longer than every deadlock called wrong."""
    lasted = (tick.at - max(wait.since for wait in deadlock.waits)) / 1e9
    return all(
        lasted > FEEDBACK_MARGIN * item.value for item in tick.feedback if item.pool == pool and item.kind == Anomaly.DEADLOCK
    )


def _target(pool: str, ids: Iterable[ProcId], kind: str = "") -> str:
    pids = [str(id_.pid) for id_ in ids]
    name = f"pool {pool} worker {pids[0]}" if len(pids) == 1 else f"pool {pool} workers {', '.join(pids)}"
    return f"{name} {kind}" if kind else name
