"""Reports workers that misbehave, and on the user's request demotes, fences in or recycles them. Pure: knows scores, not how
they are made.

An incident is about one worker, one circle of workers that wait for each other, or one kind of trouble of a master. Whatever kinds
a worker is scored for meanwhile, it is reported once, as the kind with the strongest evidence. The kind is corrected at most once,
and the end of the incident is reported too.

The user sets how often a report may be wrong: `alpha` shares the false alarms of a day among the blocks, workers and kinds tried
(Bonferroni). That bounds their expected number whatever the dependences, and a healthy fleet gets as many as were set
(`benchmarks/false_alarms.py`); `docs/decisions/0009-false-alarms-a-day.md` says why it is not a share of false discoveries. What
does not matter is not reported, so real workers give fewer. A user who accepts more than the default gets smaller things reported
until as many come (`threshold.py`, `docs/decisions/0010-what-does-not-matter.md`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import median

import msgspec

from ....models.anomaly.detectors import FEW
from ....models.anomaly.model import BLOCK_SECONDS, alpha
from ....models.anomaly.waitgraph import UNLESS
from ....models.records import Anomaly, Deadlock, ProcId, Score
from ...config.sections import Config
from ...decision import (
    LESSON_MARGIN,
    Action,
    Control,
    Crowd,
    Decision,
    Digest,
    Flag,
    Lesson,
    Note,
    Recycle,
    Restore,
    Set,
    Tick,
    Why,
)
from ...fences import Limits, limits_in_words
from ...scope import policy
from .incident_words import WHAT, circle, onset, rarity, seconds, stories
from .policy import Figures, Gone, Measured, Memory, Proposal, Result, Standing, figures
from .threshold import QUIET_SECONDS, Watched, chance, forget, reported_from, watch

CONSENSUS = 0.8
"""Share of its time for which a score must have been significant: one odd tick in a run neither makes nor ends an incident."""

RENAMED_AFTER, RENAMED_TIMES = 20.0, 2.0
"""An incident is taken for another kind from this many seconds after its report, with this many times the evidence of the kind
reported. Kinds with a clock (spin, stuck) need 10 to 20 s to be material, so the general score may have come first."""

DIGEST_SECONDS = 3600.0
"""Between two lines that sum up the incidents beyond the budget of alarms."""

VICTIMS = frozenset({Anomaly.STARVED})
"""Kinds that happen to a worker instead of being done by it: reported, never acted on."""

IDLE = frozenset({Anomaly.STUCK, Anomaly.DEADLOCK})
"""Kinds of a worker that does not run: less CPU for it changes nothing."""

FENCED_IN: Mapping[str, frozenset[str]] = {
    Anomaly.LEAK: frozenset({"memory"}),
    Anomaly.SPIN: frozenset({"cpu"}),
    Anomaly.SWITCH_STORM: frozenset({"cpu"}),
    Anomaly.FORK_STORM: frozenset({"cpu", "tasks"}),
}
"""Limits of a fence that keep a worker of this kind from harming others. The other kinds take nothing from anybody."""

DOUBTFUL_SECONDS = 60.0
"""A circle in which another thread could release a lock is acted on only after this long: a slow answer has come by then."""

LEAST_CORES, LEAST_MEMORY, LEAST_TASKS = 0.1, 64 << 20, 8
"""What a fence leaves in any case: a lock is released within 90 ms more, a request has room, a shell can start a pipeline."""

ROOM = 1.5
"""A fence leaves this many times the median of the siblings' cores: room to tell one that works like them again from one that takes
all that it gets."""

PRESSING = 0.8
"""A worker that uses this share of the CPU that its fence leaves is taken to want more."""

FORK_SECONDS = 10.0
"""A fence has room for the processes that siblings start in this time: as if each of theirs lived that long."""

OF_OTHERS = frozenset({Anomaly.CRASH_LOOP, Anomaly.ZOMBIE})
"""Kinds that no running worker causes: there is nothing to demote and nothing to recycle."""


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
    demoted: ProcId | None = None  # or fenced in
    by: str = ""  # the control by which it was demoted
    left: int = 0  # thousandths of a core that its fence leaves; 0: no fence, or no limit on CPU
    over: bool = False  # and reported as over, or taken over by a circle


class QuarantineMemory(Memory):
    """What the policy remembers: incidents, and the reports of the last day."""

    incidents: dict[str, Incident] = msgspec.field(default_factory=dict)  # by target
    alarms: list[int] = msgspec.field(default_factory=list)  # ns of the reports of the last 24 h
    beyond: dict[str, int] = msgspec.field(default_factory=dict)  # "kind of pool" -> incidents since the last digest
    digested: int | None = None  # ns of the last digest
    watched: Watched = msgspec.field(default_factory=Watched)  # used only if more false alarms are accepted than what matters gives


class Quarantine:
    """The policy."""

    name = "quarantine"

    def __init__(self, config: Config, memory: QuarantineMemory) -> None:
        self._config = config.quarantine
        self._nice = min(config.priority.pool_nice, config.priority.nice)
        self._accepted = config.quarantine.false_alarms_per_day
        self._alpha = alpha(self._accepted)
        self._from = math.inf  # size from which what does not matter is reported
        self.memory = memory

    def propose(self, tick: Tick) -> list[Proposal[None]]:
        """Reports of incidents that lasted, what to do about them, and restores when they are over."""
        self._forget(tick.at)
        self._drop_ended()
        present = {worker.id for pool in tick.pools for worker in pool.workers}
        if self._config.enabled:
            self._watch(tick, present)
            self._follow_circles(tick)
            self._follow_scores(tick, present)
        decisions, room = list[Proposal[None]](), self._config.alarms_per_day - len(self.memory.alarms)
        for key, incident in sorted(self.memory.incidents.items()):
            self._rest(tick.at, incident)
            end = self._end(tick, incident, present)
            if end:
                decisions += self._finish(key, incident, end)
                continue
            score = self._told(tick, incident)
            if score is None or not self._lasted(tick.at, incident):
                continue
            if not incident.id and not incident.muted:
                if room <= 0:
                    self._mute(incident)
                    continue
                room -= 1
                decisions.append(self._report(tick, key, incident, score))
            elif incident.id:
                decisions += self._rename(tick, key, incident, score)
            if not incident.muted:
                decisions += self._treat(tick, key, incident, score, present)
        self._drop_ended()
        return [*decisions, *self._digest(tick.at)]

    def waiting(self) -> Collection[str]:
        """None: every wish is proposed at once."""
        return ()

    def notes(self, _tick: Tick, /) -> list[Note]:
        """Nothing: everything is said in the decisions."""
        return []

    def skip(self) -> None:
        """After a gap no score is known to have lasted."""
        self.memory.watched.open, self.memory.watched.at = {}, None
        for incident in self.memory.incidents.values():
            _break(incident)

    def admit(self, decision: Decision, _kept: None, at: int, /) -> None:
        """What was reported or done once is not repeated in the same incident."""
        action, memory = decision.action, self.memory
        if isinstance(action, Digest):
            memory.beyond.clear()
            memory.digested = at
            return
        incident = memory.incidents[decision.target]
        if isinstance(action, Flag):
            self._admit_flag(incident, action, decision.id, at)
        elif isinstance(action, Set | Recycle):
            incident.treated = True
            if isinstance(action, Set):
                incident.demoted, incident.by = action.process, action.control
                incident.left = action.value[0] if isinstance(action.value, tuple) else 0

    def learn(self, result: Result) -> None:
        """What failed may be tried again in the same incident; what is gone, or was changed by somebody else, is dropped."""
        action = result.action
        ours = isinstance(action, Set | Restore) and action.control in (Control.NICE, Control.FENCE)
        process = action.process if isinstance(action, Set | Restore) and ours else None
        for key, incident in self.memory.incidents.items():
            if isinstance(action, Flag | Digest) or not (key == result.target or process in incident.ids):
                continue
            if isinstance(action, Set | Recycle) and result.failed:
                incident.demoted = incident.demoted if isinstance(action, Recycle) else None
                incident.treated = False
            elif not (result.done and isinstance(action, Set | Recycle)) and not result.failed:
                incident.demoted = None

    def measured(self, found: Sequence[Measured], tick: Tick, /) -> None:
        """Changes nothing: the scores decide."""

    def standing(self) -> list[Standing]:
        """Workers that were demoted, fenced in or recycled."""
        return [self._standing(key, incident) for key, incident in sorted(self.memory.incidents.items()) if incident.treated]

    def forget(self, gone: Gone) -> None:
        """Those workers are treated again, as long as their incident lasts."""
        for key, incident in self.memory.incidents.items():
            if incident.treated and gone(self._standing(key, incident)):
                incident.treated, incident.demoted, incident.by, incident.left = False, None, "", 0

    def validate(self, _hands_off: Collection[str], /) -> None:
        """Raises AssertionError if the memory contradicts itself."""
        for key, incident in self.memory.incidents.items():
            assert incident.ids == sorted(incident.ids), f"{key}: sorted"
            assert incident.circle or len(incident.ids) == 1, f"{key}: several only in a circle"
            assert incident.demoted is None or incident.by, f"{key}: demoted by nothing"

    def _standing(self, key: str, incident: Incident) -> Standing:
        held = None if incident.demoted is None else Restore(Control(incident.by), incident.demoted, "")
        return Standing(frozenset({policy(self.name), incident.pool}), held, key)

    # --- following --------------------------------------------------------------------------------------------------------------

    def _forget(self, at: int) -> None:
        self.memory.alarms = [alarm for alarm in self.memory.alarms if at - alarm < 86_400e9]

    def _drop_ended(self) -> None:
        for key in [key for key, it in self.memory.incidents.items() if it.over and it.demoted is None]:
            del self.memory.incidents[key]

    def _follow_scores(self, tick: Tick, present: set[ProcId]) -> None:
        """Brings the streaks of workers up to this tick. A worker in a circle is scored for the circle, not for being stuck in it.
        A master has an incident of its own for each kind: its workers crash whether or not it leaves zombies."""
        circled = {id_ for it in self.memory.incidents.values() if it.circle and not it.over for id_ in it.ids}
        for score in tick.scores:
            if score.id in circled or not self._odd(score) or not self._beyond_lessons(tick.lessons, score):
                continue
            key = _target(score.pool, (score.id,), "" if score.id in present else score.kind)
            incident = self.memory.incidents.get(key)
            if incident is None or incident.ids != [score.id] or incident.over:
                before = incident if incident is not None and incident.ids == [score.id] else None
                incident = Incident(score.pool, [score.id], tick.at, worker=score.id in present)
                if before is not None:
                    incident.demoted, incident.by, incident.left = before.demoted, before.by, before.left
                self.memory.incidents[key] = incident
            self._significant(tick.at, incident, score.kind, -math.log10(self._p(score)))

    def _watch(self, tick: Tick, present: set[ProcId]) -> None:
        """Learns how often small things come up, if the user accepts more false alarms than what matters gives."""
        if self._accepted <= FEW:
            return
        watched = self.memory.watched
        sizes = {
            _target(score.pool, (score.id,)): (score.size, score.p <= self._alpha)
            for score in tick.scores
            if score.size > 0 and score.id in present
        }
        watch(watched, tick.at, len(present), sizes, self._config.patience, CONSENSUS)
        forget(watched, self._accepted)
        self._from = reported_from(watched, self._accepted)

    def _odd(self, score: Score) -> bool:
        """Whether the score is to be reported if it lasts."""
        return score.p <= self._alpha or self._lesser(score)

    def _p(self, score: Score) -> float:
        """How rare the score is; for what does not matter, as learned on this machine."""
        return chance(self.memory.watched, score.size) if self._lesser(score) else score.p

    def _lesser(self, score: Score) -> bool:
        """Whether the score is reported although it does not matter."""
        return score.p > self._alpha and score.size >= self._from

    def _follow_circles(self, tick: Tick) -> None:
        """A circle that gains or loses some of its members is the same incident."""
        pools = {worker.id: pool.name for pool in tick.pools for worker in pool.workers}
        for deadlock in tick.deadlocks:
            ids = sorted({wait.waiter for wait in deadlock.waits})
            pool = next((pools[id_] for id_ in ids if id_ in pools), None)
            if pool is None or not self._long_enough(tick, deadlock, pool):
                continue
            known = [it for it in self.memory.incidents.values() if it.circle and not it.over and set(it.ids) & set(ids)]
            if known:
                incident = known[0]
                incident.ids = ids
            else:
                incident = self.memory.incidents[_target(pool, ids)] = Incident(pool, ids, tick.at, circle=True)
            self._significant(tick.at, incident, Anomaly.DEADLOCK, 1.0)

    def _significant(self, at: int, incident: Incident, kind: str, weight: float) -> None:
        """Notes a significant score in this tick; a second kind in the same tick only adds evidence."""
        step = 0 if incident.before is None else at - incident.before
        if incident.since is None:
            incident.since, incident.held = at, 0
        elif incident.last < at:
            incident.held += step
        incident.evidence[kind] = incident.evidence.get(kind, 0.0) + weight * max(step, 1) / 1e9
        incident.last = at

    def _rest(self, at: int, incident: Incident) -> None:
        """Ends the streak if the score was significant for too little of it."""
        if incident.since is not None and incident.last != at and incident.held < CONSENSUS * (at - incident.since):
            _break(incident)
        elif incident.since is not None:
            incident.before = at

    def _beyond_lessons(self, lessons: Iterable[Lesson], score: Score) -> bool:
        """Whether the score is unlike what somebody called wrong, or much stronger."""
        return all(
            score.value > LESSON_MARGIN * lesson.value
            for lesson in lessons
            if lesson.pool == score.pool and lesson.kind == score.kind
        )

    def _long_enough(self, tick: Tick, deadlock: Deadlock, pool: str) -> bool:
        lasted = (tick.at - max(wait.since for wait in deadlock.waits)) / 1e9
        return all(
            lasted > LESSON_MARGIN * lesson.value
            for lesson in tick.lessons
            if lesson.pool == pool and lesson.kind == Anomaly.DEADLOCK
        )

    # --- what is to be said and done --------------------------------------------------------------------------------------------

    def _told(self, tick: Tick, incident: Incident) -> Score | Deadlock | None:
        """What this tick says about an incident; None: nothing significant."""
        if incident.last != tick.at:
            return None
        if incident.circle:
            return next((it for it in tick.deadlocks if {wait.waiter for wait in it.waits} == set(incident.ids)), None)
        kind = incident.kind or _strongest(incident)
        found = [it for it in tick.scores if it.id == incident.ids[0] and self._odd(it) and (incident.worker or it.kind == kind)]
        return min(found, key=lambda it: (it.kind != kind, it.p), default=None)

    def _lasted(self, at: int, incident: Incident) -> bool:
        """Long enough, and for most of that time. A circle's waits have lasted before they are reported, so two ticks do."""
        if incident.since is None:
            return False
        needed = min(self._config.patience, 1.0) if incident.circle else self._config.patience
        return at - incident.since >= needed * 1e9 and incident.held >= CONSENSUS * (at - incident.since)

    def _report(self, tick: Tick, key: str, incident: Incident, told: Score | Deadlock) -> Proposal[None]:
        if isinstance(told, Deadlock):
            taken = self._taken_over(incident)
            first, *others = incident.ids
            why = self._why_circle(tick, incident, told)
            return self._propose(
                key, Flag(incident.pool, first, Anomaly.DEADLOCK, tuple(others), "" if taken is None else taken.id), why
            )
        kind = _strongest(incident)
        score = next((it for it in tick.scores if it.id == told.id and it.kind == kind), told)
        if score.kind != kind:  # the strongest over the patience is not seen now: take the kind that has figures
            kind = score.kind
        return self._propose(key, Flag(incident.pool, incident.ids[0], kind), self._why(tick, incident, score))

    def _rename(self, tick: Tick, key: str, incident: Incident, told: Score | Deadlock) -> list[Proposal[None]]:
        """A second report, once, if most evidence since the first is of another kind. The general kind is no correction."""
        fenced = incident.by == Control.FENCE and incident.demoted is not None  # the fence causes what it lacks now
        if incident.renamed or fenced or isinstance(told, Deadlock) or tick.at - incident.reported < RENAMED_AFTER * 1e9:
            return []
        kind = _strongest(incident)
        score = next((it for it in tick.scores if it.id == told.id and it.kind == kind), None)
        if kind in (incident.kind, Anomaly.OUTLIER) or score is None:
            return []
        if incident.evidence[kind] < RENAMED_TIMES * incident.evidence.get(incident.kind, 0.0):
            return []
        why = self._why(tick, incident, score, before=incident.kind)
        return [self._propose(key, Flag(incident.pool, incident.ids[0], kind, (), incident.id), why)]

    def _treat(
        self, tick: Tick, key: str, incident: Incident, told: Score | Deadlock, present: set[ProcId]
    ) -> list[Proposal[None]]:
        """What the user asked for besides the report."""
        wanted, kind = self._config.action, Anomaly.DEADLOCK if isinstance(told, Deadlock) else told.kind
        if wanted == "flag" or incident.treated or self._spared(wanted, told):
            return []
        worker = incident.ids[0]
        if isinstance(told, Deadlock):  # the last to come has the least to lose
            named = [wait for wait in told.waits if wait.waiter in (incident.named or incident.ids)]
            if not named:
                return []
            doubtful = any(UNLESS in wait.what for wait in told.waits)
            if doubtful and tick.at - max(wait.since for wait in told.waits) < DOUBTFUL_SECONDS * 1e9:
                return []
            worker = max(named, key=lambda wait: (wait.since, wait.waiter)).waiter
            why = self._why_circle(tick, incident, told)
        else:
            why = self._why(tick, incident, told)
        if worker not in present or kind in OF_OTHERS:
            return []
        if wanted == "recycle":
            return [self._propose(key, Recycle(incident.pool, worker), why)]
        if wanted == "fence":
            limits = None if isinstance(told, Deadlock) else _limits(tick, told)
            if limits is None:
                return []
            why = msgspec.structs.replace(why, text=f"{why.text} Fenced in, it is left {limits_in_words(limits)}.")
            return [self._propose(key, Set(Control.FENCE, worker, "", tuple(limits)), why)]
        nice = next((member.nice for group in tick.groups for member in group.members if member.id == worker), 0)
        if nice >= self._nice:  # demoted already
            return []
        return [self._propose(key, Set(Control.NICE, worker, "", self._nice), why)]

    def _spared(self, wanted: str, told: Score | Deadlock) -> str:
        """Why this kind is not acted on; "" if it is."""
        if isinstance(told, Deadlock):
            if any(wait.holder is None for wait in told.waits):
                return "acting on it: who holds what they wait for cannot be told, and ending one that waits frees nothing"
            kind: str = Anomaly.DEADLOCK
        else:
            kind = told.kind
            if self._lesser(told):
                return "acting on it: it is less than what matters, and reported only because more false alarms are accepted"
        if kind in VICTIMS:
            return f"acting on it: {kind} happens to a worker, it is not its doing"
        if kind in OF_OTHERS:
            return "acting on it: there is no running worker that does this"
        if kind in IDLE and wanted == "demote":
            return f"demoting it: a worker that {WHAT[kind]} does not use the CPU"
        if wanted == "fence" and kind not in FENCED_IN:
            return f"fencing it in: a worker that {WHAT[kind]} takes no CPU, memory or processes from others by that"
        return ""

    def _end(self, tick: Tick, incident: Incident, present: set[ProcId]) -> str:
        """Why an incident is over; "" while it is not."""
        if incident.id and any(lesson.id == incident.id for lesson in tick.lessons):
            return "somebody said that it is none (nicety anomalies wrong)"
        if incident.worker and incident.ids[0] not in present:
            return f"worker {incident.ids[0].pid} has ended"
        if incident.left and incident.demoted is not None and _presses(tick, incident):
            incident.last = tick.at  # its fence hides what it does, and is not removed for that
        if tick.at - incident.last >= QUIET_SECONDS * 1e9:
            return f"nothing unusual was seen for {QUIET_SECONDS:g} s"
        return ""

    def _finish(self, key: str, incident: Incident, end: str) -> list[Proposal[None]]:
        """The restore of what was changed, and the report of the end. An incident that was never reported just goes."""
        decisions = []
        who = f"{_named(incident.ids)} of {incident.pool}"
        if incident.demoted is not None:
            control = Control(incident.by)
            text = f"{who}: {end}: {'let out of its fence' if control is Control.FENCE else 'nice back to what it was'}."
            why = Why("incident over", text, figures(quiet_seconds=QUIET_SECONDS), (), ())
            decisions.append(self._propose(key, Restore(control, incident.demoted, ""), why))
        if not incident.id:
            incident.over = True
        if not incident.over:
            lasted = (incident.last - incident.reported) / 1e9
            why = Why(
                "incident over",
                f"{who}: {incident.kind} is over: {end}. It was there for {seconds(lasted)} after its report.",
                figures(incident=incident.id, seconds_after_report=lasted),
                (),
                (),
            )
            first, *others = incident.ids
            flag = Flag(incident.pool, first, incident.kind, tuple(others), incident.id, over=True)
            decisions.append(self._propose(key, flag, why))
        return decisions

    def _mute(self, incident: Incident) -> None:
        incident.muted = True
        name = f"{_strongest(incident)} in {incident.pool}"
        self.memory.beyond[name] = self.memory.beyond.get(name, 0) + 1

    def _digest(self, at: int) -> list[Proposal[None]]:
        memory = self.memory
        if not memory.beyond or (memory.digested is not None and at - memory.digested < DIGEST_SECONDS * 1e9):
            return []
        many, budget = sum(memory.beyond.values()), self._config.alarms_per_day
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(memory.beyond.items()))
        text = (
            f"{many} more incidents: {kinds}. {budget} were reported within 24 h (quarantine.alarms_per_day), so these are not "
            "told of one by one, and nothing is done about them."
        )
        why = Why("budget of alarms", text, figures(incidents=many, alarms_per_day=budget), (), ())
        return [self._propose("all pools", Digest(many), why)]

    def _admit_flag(self, incident: Incident, action: Flag, id_: str, at: int) -> None:
        if action.over:
            incident.over = True
            return
        if action.kind == Anomaly.DEADLOCK and action.incident and not incident.id:
            taken = next(it for it in self.memory.incidents.values() if it.id == action.incident)
            taken.over = True
        if not action.incident:
            self.memory.alarms.append(at)
        incident.renamed = bool(action.incident)
        incident.id, incident.kind = action.incident or id_, action.kind
        incident.reported = incident.reported or at
        incident.evidence = {}
        if incident.circle and not incident.named:
            incident.named = [action.worker, *action.others]

    def _taken_over(self, incident: Incident) -> Incident | None:
        """A reported incident of one of the circle's workers, which the circle now explains."""
        mine = set(incident.ids)
        found = (it for _, it in sorted(self.memory.incidents.items()) if it.id and not it.circle and not it.over)
        return next((it for it in found if it.ids[0] in mine and not it.renamed), None)

    # --- words and figures ------------------------------------------------------------------------------------------------------

    def _propose(self, key: str, action: Action, why: Why) -> Proposal[None]:
        return Proposal(self.name, key, action, why, None)

    def _why(self, tick: Tick, incident: Incident, score: Score, before: str = "") -> Why:
        siblings = [other for other in tick.scores if other.pool == score.pool and other.id != score.id]
        unusual = sum(self._odd(other) and other.kind == score.kind for other in siblings)
        evidence = dict(score.evidence)
        doing, compared = stories(score.kind, evidence)
        crowd = next((it for it in tick.crowds if it.worker.id == score.id), None) if score.kind == Anomaly.STARVED else None
        who = f"{'Worker' if incident.worker else 'Process'} {score.id.pid} of {score.pool}"
        parts = [f"{who} {WHAT[score.kind]}" + (f", and was taken for {before} before" if before else "")]
        parts += [part for part in (doing, compared, _crowd(crowd)) if part]
        held = 0.0 if incident.since is None else (tick.at - incident.since) / 1e9
        lesser = self._lesser(score)
        line = self._accepted / (86_400.0 / BLOCK_SECONDS * 100.0) if lesser else self._alpha
        told = f"{': '.join(parts[:2])}{''.join(f'; {part}' for part in parts[2:])}. "
        told += f"That is {score.size:.0%} of what is reported by default. ".replace("%", " %") if lesser else ""
        told += f"{rarity(self._p(score))} healthy worker-minutes look so"
        told += f"; so do {unusual} of {len(siblings)} siblings now." if siblings else "."
        rejected = self._spared(self._config.action, score) if self._config.action != "flag" else ""
        return Why(
            rule=f"score of {score.kind}",
            text=told,
            figures=figures(
                pool=score.pool,
                kind=score.kind.value,
                p=self._p(score),
                alpha=line,
                score=score.value,
                patience_seconds=self._config.patience,
                significant_seconds=held,
                onset_seconds=max(held, onset(evidence)),
                siblings=len(siblings),
                unusual_siblings=unusual,
                source=score.source,
                taken_before=before or None,
                **_neighbour(crowd),
                **{f"evidence_{name}": value for name, value in evidence.items()},
            ),
            rejected=(rejected,) if rejected else (),
            flips=(
                f"p above {line:.2g} for more than {1 - CONSENSUS:.0%} of {self._config.patience:g} s".replace("%", " %"),
                "`nicety anomalies wrong ID`: then what looks like it must be stronger",
            ),
        )

    def _why_circle(self, tick: Tick, incident: Incident, deadlock: Deadlock) -> Why:
        lines = circle(deadlock.waits, tick.at)
        lasted = (tick.at - max(wait.since for wait in deadlock.waits)) / 1e9
        together = any(wait.holder is None for wait in deadlock.waits)
        what = "are stuck together" if together else "are deadlocked" if len(incident.ids) > 1 else "is deadlocked"
        rejected = self._spared(self._config.action, deadlock) if self._config.action != "flag" else ""
        return Why(
            rule="stuck together" if together else "wait in a circle",
            text=f"{_named(incident.ids)} of {incident.pool} {what} for {seconds(lasted)}: {'; '.join(lines)}.",
            figures=figures(
                pool=incident.pool,
                kind=Anomaly.DEADLOCK.value,
                workers=len(incident.ids),
                onset_seconds=lasted,
                **{f"wait_{number}": line for number, line in enumerate(lines, 1)},
            ),
            rejected=(rejected,) if rejected else (),
            flips=("one of them going on", "`nicety anomalies wrong ID`: then such a circle must last longer"),
        )


def _limits(tick: Tick, score: Score) -> Limits | None:
    """What a fence leaves to this worker: what its siblings use. None if those limits would keep it from nothing."""
    pool = next((pool for pool in tick.pools if pool.name == score.pool), None)
    own = None if pool is None else next((worker for worker in pool.workers if worker.id == score.id), None)
    if pool is None or own is None:
        return None
    siblings = [worker for worker in pool.workers if worker.id != score.id]
    by, evidence = FENCED_IN[score.kind], dict(score.evidence)
    cores = max(LEAST_CORES, ROOM * median(it.cpu for it in siblings) if siblings else own.cpu / 2)
    memory = max(LEAST_MEMORY, int(median(it.rss for it in siblings)) if siblings else own.rss)
    started = evidence.get("siblings_processes_started_per_second", 0.0)
    limits = Limits(
        cpu=math.ceil(1000 * cores) if "cpu" in by and cores < own.cpu + own.wait else 0,
        memory=(memory + (1 << 20) - 1 >> 20) << 20 if "memory" in by else 0,
        tasks=max(LEAST_TASKS, math.ceil(FORK_SECONDS * started)) if "tasks" in by else 0,
    )
    return limits if any(limits) else None


def _presses(tick: Tick, incident: Incident) -> bool:
    """Whether a worker uses all the CPU that its fence leaves, and more than its siblings use now."""
    workers = next((pool.workers for pool in tick.pools if pool.name == incident.pool), ())
    own = next((1000 * worker.cpu for worker in workers if worker.id == incident.demoted), 0.0)
    siblings = [1000 * worker.cpu for worker in workers if worker.id != incident.demoted]
    return own >= PRESSING * incident.left and not (siblings and median(siblings) >= own)


def _crowd(crowd: Crowd | None) -> str:
    """The neighbour in words."""
    if crowd is None or not crowd.neighbours:
        return ""
    first, victim = crowd.neighbours[0], crowd.worker
    where = f"CPU {crowd.cpus[0]}" if len(crowd.cpus) == 1 else f"CPUs {', '.join(map(str, crowd.cpus))}"
    text = f"{first.group} runs there: {first.cores:.2f} cores on {where} where it waits"
    text += f", at nice {first.nice} against its {victim.nice}"
    if first.cgroup != victim.cgroup:
        text += f", in cgroup {first.cgroup} beside its {victim.cgroup}"
    elif first.session != victim.session:
        text += ", in another session, so that nice counts for nothing between them while autogroup is on"
    others = ", ".join(f"{it.group} {it.cores:.2f}" for it in crowd.neighbours[1:3])
    return text + (f" (then {others})" if others else "")


def _neighbour(crowd: Crowd | None) -> Figures:
    if crowd is None or not crowd.neighbours:
        return {}
    first = crowd.neighbours[0]
    return figures(
        neighbour=first.group,
        neighbour_cores=first.cores,
        neighbour_nice=first.nice,
        worker_nice=crowd.worker.nice,
        neighbour_cgroup=first.cgroup,
        worker_cgroup=crowd.worker.cgroup,
    )


def _break(incident: Incident) -> None:
    """Ends the streak; the evidence of an unreported incident is dropped too."""
    incident.since, incident.before, incident.held = None, None, 0
    if not incident.id:
        incident.evidence = {}


def _strongest(incident: Incident) -> str:
    """The kind with most evidence; the first by name among equals."""
    evidence: Mapping[str, float] = incident.evidence
    return min(evidence, key=lambda kind: (-evidence[kind], kind), default=incident.kind)


def _target(pool: str, ids: Iterable[ProcId], kind: str = "") -> str:
    pids = [str(id_.pid) for id_ in ids]
    name = f"pool {pool} worker {pids[0]}" if len(pids) == 1 else f"pool {pool} workers {', '.join(pids)}"
    return f"{name} {kind}" if kind else name


def _named(ids: Iterable[ProcId]) -> str:
    pids = [str(id_.pid) for id_ in ids]
    return f"Worker {pids[0]}" if len(pids) == 1 else f"Workers {', '.join(pids)}"
