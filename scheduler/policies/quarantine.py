"""Reports workers that misbehave, and on the user's request demotes or recycles them. Pure: knows scores, not how they are made."""

from __future__ import annotations

import msgspec

from ...models.anomaly import alpha
from ...models.records import Anomaly, ProcId, Score
from ..config import Config
from ..decision import Action, Control, Decision, Flag, Pool, Recycle, Restore, Set, Tick, Why
from .policy import Memory, Result, figures

QUIET_SECONDS = 60.0
"""An incident is over when its score was not significant for so long; what comes after is a new one, and reported again."""

VICTIMS = frozenset({Anomaly.STARVED})
"""Kinds that happen to a worker instead of being done by it: reported, never acted on."""


class Incident(Memory):
    """One kind of misbehaviour of one worker."""

    streak: int  # ns for which it was significant, within the present streak of the worker
    last: int  # ns, when it was last significant
    flagged: bool = False
    treated: bool = False  # demoted or recycled, if that was asked for


class WorkerMemory(Memory):
    """What is remembered of one worker."""

    id: ProcId
    pool: str
    significant_at: int | None = None  # the last tick, if it was significant
    demoted: bool = False
    incidents: dict[str, Incident] = msgspec.field(default_factory=dict)


class QuarantineMemory(Memory):
    """What the policy remembers: workers with an incident."""

    workers: dict[str, WorkerMemory] = msgspec.field(default_factory=dict)


class Quarantine:
    """The policy."""

    name = "quarantine"

    def __init__(self, config: Config, memory: QuarantineMemory) -> None:
        self._config = config.quarantine
        self._nice = min(config.priority.pool_nice, config.priority.nice)
        self._alpha = alpha(config.quarantine.false_alarms_per_day)
        self.memory = memory

    def propose(self, tick: Tick) -> list[Decision]:
        """Flags of incidents that lasted, what is to be done about them, and returns when they are over."""
        scores = {score.id: score for score in tick.scores}
        pools = {pool.name: pool for pool in tick.pools}
        present = {worker.id for pool in tick.pools for worker in pool.workers}
        self._follow(tick.at, scores if self._config.enabled else {}, present)
        decisions: list[Decision] = []
        for _, worker in sorted(self.memory.workers.items()):
            pool = pools.get(worker.pool)
            if pool is None:
                continue
            score = scores.get(worker.id)
            for kind, incident in sorted(worker.incidents.items()):
                if score is not None and score.kind == kind and incident.streak >= self._config.patience * 1e9:
                    decisions += self._respond(tick, pool, worker, incident, score)
            if worker.demoted and not worker.incidents:
                decisions.append(self._return(worker))
        return decisions

    def skip(self) -> None:
        """After a hole no score is known to have lasted."""
        for worker in self.memory.workers.values():
            worker.significant_at = None
            for incident in worker.incidents.values():
                incident.streak = 0

    def admit(self, decision: Decision) -> None:
        """What was reported or done once is not repeated in the same incident."""
        action = decision.action
        worker = self.memory.workers[decision.target]
        if isinstance(action, Flag):
            worker.incidents[action.kind].flagged = True
        elif isinstance(action, Set | Recycle):
            for incident in worker.incidents.values():
                incident.treated = incident.treated or incident.flagged
            worker.demoted = worker.demoted or isinstance(action, Set)

    def learn(self, result: Result) -> None:
        """What failed may be tried again in the same incident; what is gone, or somebody else's now, is dropped."""
        action = result.action
        process = action.process if isinstance(action, Set | Restore) and action.control is Control.NICE else None
        for key, worker in self.memory.workers.items():
            if isinstance(action, Flag) or not (key == result.target or worker.id == process):
                continue
            if isinstance(action, Set | Recycle) and result.failed:
                worker.demoted = worker.demoted and isinstance(action, Recycle)
                for incident in worker.incidents.values():
                    incident.treated = False
            elif not (result.done and isinstance(action, Set | Recycle)) and not result.failed:
                worker.demoted = False

    def _follow(self, at: int, scores: dict[ProcId, Score], present: set[ProcId]) -> None:
        """Brings streaks up to this tick. Kinds may alternate in one streak of a worker: each counts the time it had."""
        workers = self.memory.workers
        for score in scores.values():
            key = _target(score.pool, score.id)
            worker = workers.get(key)
            if score.p <= self._alpha:
                if worker is None or worker.id != score.id:
                    worker = workers[key] = WorkerMemory(score.id, score.pool)
                incident = worker.incidents.setdefault(score.kind, Incident(0, at))
                if worker.significant_at is not None:
                    incident.streak += at - worker.significant_at
                incident.last = worker.significant_at = at
        for key in sorted(workers):
            worker = workers[key]
            if worker.significant_at != at:
                worker.significant_at = None
                for incident in worker.incidents.values():
                    incident.streak = 0
            over = [kind for kind, incident in worker.incidents.items() if at - incident.last >= QUIET_SECONDS * 1e9]
            for kind in over:
                del worker.incidents[kind]
            if worker.id not in present or not (worker.incidents or worker.demoted):
                del workers[key]

    def _respond(self, tick: Tick, pool: Pool, worker: WorkerMemory, incident: Incident, score: Score) -> list[Decision]:
        decisions = []
        why = self._why(tick, pool, score)
        if not incident.flagged:
            decisions.append(self._decide(worker, Flag(pool.name, worker.id, score.kind), why))
        if self._config.action == "flag" or score.kind in VICTIMS or incident.treated:
            return decisions
        if self._config.action == "recycle":
            return [*decisions, self._decide(worker, Recycle(pool.name, worker.id), why)]
        nice = next((member.nice for group in tick.groups for member in group.members if member.id == worker.id), 0)
        if nice < self._nice:  # else it is demoted already
            decisions.append(self._decide(worker, Set(Control.NICE, worker.id, "", self._nice), why))
        return decisions

    def _decide(self, worker: WorkerMemory, action: Action, why: Why) -> Decision:
        return Decision("", self.name, _target(worker.pool, worker.id), action, why)

    def _why(self, tick: Tick, pool: Pool, score: Score) -> Why:
        siblings = [other for other in tick.scores if other.pool == pool.name and other.id != score.id]
        unusual = sum(other.p <= self._alpha for other in siblings)
        evidence = {f"evidence_{name}": value for name, value in score.evidence}
        return Why(
            rule=f"score of {score.kind}",
            text=(
                f"Worker {score.id.pid} of {pool.name} shows {score.kind}: fewer than {score.p:.2g} of healthy worker-windows "
                f"score as high, for {self._config.patience:g} s now; so do {unusual} of {len(siblings)} siblings."
            ),
            figures=figures(
                kind=score.kind.value,
                p=score.p,
                alpha=self._alpha,
                score=score.value,
                patience_seconds=self._config.patience,
                siblings=len(siblings),
                unusual_siblings=unusual,
                source=score.source,
                **evidence,
            ),
            rejected=(
                (f"acting on it: {score.kind} happens to a worker, it is not its doing",)
                if score.kind in VICTIMS and self._config.action != "flag"
                else ()
            ),
            flips=(f"p above {self._alpha:.2g} at any tick of the last {self._config.patience:g} s",),
        )

    def _return(self, worker: WorkerMemory) -> Decision:
        why = Why(
            rule="incident over",
            text=f"Worker {worker.id.pid} of {worker.pool} was as its siblings for {QUIET_SECONDS:g} s: nice back to what it was.",
            figures=figures(quiet_seconds=QUIET_SECONDS),
            rejected=(),
            flips=(),
        )
        return self._decide(worker, Restore(Control.NICE, worker.id, ""), why)


def _target(pool: str, worker: ProcId) -> str:
    return f"pool {pool} worker {worker.pid}"
