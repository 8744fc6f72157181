"""Reports workers that misbehave, and on the user's request demotes, fences in or recycles them. Pure: knows scores, not how
they are made.

An incident is about one worker, one circle of workers that wait for each other, or one kind of trouble of a master. Whatever kinds
a worker is scored for meanwhile, it is reported once, as the kind with the strongest evidence. The kind is corrected at most once,
and the end of the incident is reported too.

The user sets how often a report may be wrong: `alpha` shares the false alarms of a day among the blocks, workers and kinds tried
(Bonferroni). That bounds their expected number whatever the dependences, and a healthy fleet gets as many as were set
(`benchmarks/anomaly/false_alarms.py`); `docs/decisions/0009-false-alarms-a-day.md` says why it is not a share of false discoveries.
What does not matter is not reported, so real workers give fewer. A user who accepts more than the default gets smaller things
reported until as many come (`threshold.py`, `docs/decisions/0010-what-does-not-matter.md`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from .....models.identity import ProcId
from .....models.records import Anomaly, Deadlock, Score
from ....config.sections import Config
from ....decision import Action, Decision, Digest, Flag, Note, Recycle, Restore, Set, Tick, Why
from ....hands.fences import Limits, limits_in_words
from ....hands.places import Control
from ....places import ProcessPlace, process_of
from ....scope import policy
from ..policy import Gone, Impact, Memory, Proposal, Result, Standing
from . import reasons as incident_reasons
from .alarms import Alarms
from .incidents import Demoted, Following, Incident, validate
from .reasons import Reasons
from .significance import Significance
from .threshold import QUIET_SECONDS, Watched
from .treatment import Treatment, presses

RENAMED_AFTER, RENAMED_TIMES = 20.0, 2.0
"""An incident is reported as another kind from this many seconds after its report, if that kind has this many times the evidence of
the kind reported (chosen). Kinds with a clock (spin, stuck) need 10 to 20 s to be material, so the general score may come first."""

Proposals = list[Proposal[None]]


class QuarantineMemory(Memory):
    """What the policy remembers: incidents, and the reports of the last day."""

    incidents: dict[str, Incident] = msgspec.field(default_factory=dict)  # by target
    alarms: Alarms = msgspec.field(default_factory=Alarms)
    watched: Watched = msgspec.field(default_factory=Watched)  # used only if more false alarms are accepted than what matters gives


class Quarantine:
    """The policy."""

    name = "quarantine"

    def __init__(self, config: Config, memory: QuarantineMemory) -> None:
        self._config = config.quarantine
        self.memory = memory
        self._odd = Significance(config.quarantine, memory.watched)
        self._following = Following(memory.incidents, self._odd)
        self._treatment = Treatment(config, self._odd)
        self._reasons = Reasons(config.quarantine, self._odd, self._treatment)

    def propose(self, tick: Tick) -> Proposals:
        """Reports of incidents that lasted, what to do about them, and restores when they are over."""
        self._following.drop_ended()
        present = {worker.id for pool in tick.pools for worker in pool.workers}
        if self._config.enabled:
            self._odd.learn(tick, present)
            self._following.circles(tick)
            self._following.scores(tick, present)
        proposals, alarms = Proposals(), self.memory.alarms
        room = alarms.left(tick.at, self._config.alarms_per_day)
        for key, incident in sorted(self.memory.incidents.items()):
            incident.rest(tick.at)
            end = self._end(tick, incident, present)
            if end:
                proposals += self._finish(key, incident, end)
                continue
            seen = self._following.seen(tick, incident)
            if seen is None or not incident.lasted(tick.at, self._config.patience):
                continue
            if not incident.id and not incident.muted and room <= 0:
                incident.muted = True
                alarms.mute(incident.strongest, incident.pool)
            elif not incident.id and not incident.muted:
                room -= 1
                proposals.append(self._report(tick, key, incident, seen))
            elif incident.id:
                proposals += self._rename(tick, key, incident, seen)
            if not incident.muted:
                proposals += self._treat(tick, key, incident, seen, present)
        self._following.drop_ended()
        return proposals + self._digest(tick.at)

    def waiting(self) -> Collection[str]:
        """None: every desired change is proposed at once."""
        return ()

    def notes(self, _tick: Tick, /) -> list[Note]:
        """None: the decisions say everything."""
        return []

    def skip(self) -> None:
        """After a gap it is unknown which scores have lasted."""
        self.memory.watched.open, self.memory.watched.at = {}, None
        for incident in self.memory.incidents.values():
            incident.interrupt()

    def admit(self, decision: Decision, _kept: None, at: int, /) -> None:
        """Remembers what was reported or done, so that it is not repeated in the same incident."""
        action = decision.action
        if isinstance(action, Digest):
            self.memory.alarms.digest(at)
            return
        incident = self.memory.incidents[decision.target]
        if isinstance(action, Flag):
            self._admit_flag(incident, action, decision.id, at)
        elif isinstance(action, Set | Recycle):
            incident.treated = True
            if isinstance(action, Set) and isinstance(action.on, ProcessPlace):
                left = action.value[0] if isinstance(action.value, tuple) else 0
                incident.demoted = Demoted(action.on.id, action.control, left)

    def learn(self, result: Result) -> None:
        """What failed may be tried again in the same incident; what is gone, or was changed by somebody else, is dropped."""
        action = result.action
        ours = isinstance(action, Set | Restore) and action.control in (Control.NICE, Control.FENCE)
        process = process_of(action.on) if isinstance(action, Set | Restore) and ours else None
        for key, incident in self.memory.incidents.items():
            if isinstance(action, Flag | Digest) or not (key == result.target or process in incident.ids):
                continue
            if isinstance(action, Set | Recycle) and result.failed:
                incident.demoted = incident.demoted if isinstance(action, Recycle) else None
                incident.treated = False
            elif not (result.done and isinstance(action, Set | Recycle)) and not result.failed:
                incident.demoted = None

    def measured(self, found: Sequence[Impact], tick: Tick, /) -> None:
        """Changes nothing: the scores decide."""

    def standing(self) -> list[Standing]:
        """Workers that were demoted, fenced in or recycled."""
        return [self._standing(key, incident) for key, incident in sorted(self.memory.incidents.items()) if incident.treated]

    def forget(self, gone: Gone) -> None:
        """Those workers are treated again, as long as their incident lasts."""
        for key, incident in self.memory.incidents.items():
            if incident.treated and gone(self._standing(key, incident)):
                incident.release()

    def validate(self, _hands_off: Collection[str], /) -> None:
        """Raises AssertionError if the memory contradicts itself."""
        validate(self.memory.incidents)

    def _standing(self, key: str, incident: Incident) -> Standing:
        return Standing(frozenset({policy(self.name), incident.pool}), _undo(incident), key)

    def _admit_flag(self, incident: Incident, action: Flag, id_: str, at: int) -> None:
        if action.over:
            incident.over = True
            return
        if action.kind == Anomaly.DEADLOCK and action.incident and not incident.id:
            taken = next(it for it in self.memory.incidents.values() if it.id == action.incident)
            taken.over = True
        if not action.incident:
            self.memory.alarms.reports.append(at)
        incident.renamed = bool(action.incident)
        incident.report(action.incident or id_, action.kind, at)
        if incident.circle and not incident.named:
            incident.named = [action.worker, *action.others]

    # --- reports and actions ----------------------------------------------------------------------------------------------------

    def _report(self, tick: Tick, key: str, incident: Incident, seen: Score | Deadlock) -> Proposal[None]:
        """The first report, with the kind that has the strongest evidence."""
        if isinstance(seen, Deadlock):
            taken = self._following.taken_over(incident)
            first, *others = incident.ids
            flag = Flag(incident.pool, first, Anomaly.DEADLOCK, tuple(others), "" if taken is None else taken.id)
            return self._propose(key, flag, self._reasons.seen(tick, incident, seen))
        kind = incident.strongest  # over the patience: if it is not seen now, the kind that has figures is taken
        score = next((it for it in tick.scores if it.id == seen.id and it.kind == kind), seen)
        return self._propose(key, Flag(incident.pool, incident.ids[0], score.kind), self._reasons.seen(tick, incident, score))

    def _rename(self, tick: Tick, key: str, incident: Incident, seen: Score | Deadlock) -> Proposals:
        """A second report, once, if most evidence since the first is of another kind. The general kind corrects nothing."""
        fenced = incident.demoted is not None and incident.demoted.control is Control.FENCE  # the fence causes what it lacks now
        if incident.renamed or fenced or isinstance(seen, Deadlock) or tick.at - incident.reported < RENAMED_AFTER * 1e9:
            return []
        kind = incident.strongest
        score = next((it for it in tick.scores if it.id == seen.id and it.kind == kind), None)
        if kind in (incident.kind, Anomaly.OUTLIER) or score is None:
            return []
        if incident.evidence[kind] < RENAMED_TIMES * incident.evidence.get(incident.kind, 0.0):
            return []
        why = self._reasons.seen(tick, incident, score, before=incident.kind)
        return [self._propose(key, Flag(incident.pool, incident.ids[0], kind, (), incident.id), why)]

    def _treat(self, tick: Tick, key: str, incident: Incident, seen: Score | Deadlock, present: set[ProcId]) -> Proposals:
        """What the user asked for besides the report."""
        action = self._treatment.action(tick, incident, seen, present)
        if action is None:
            return []
        why = self._reasons.seen(tick, incident, seen)
        if isinstance(action, Set) and isinstance(action.value, tuple):
            left = limits_in_words(Limits(*action.value))
            why = msgspec.structs.replace(why, text=f"{why.text} Its fence leaves it {left}.")
        return [self._propose(key, action, why)]

    def _end(self, tick: Tick, incident: Incident, present: set[ProcId]) -> str:
        """Why an incident is over; "" while it is not."""
        if incident.id and any(item.id == incident.id for item in tick.feedback):
            return "it was called wrong (nicety anomalies wrong)"
        if incident.worker and incident.ids[0] not in present:
            return f"worker {incident.ids[0].pid} has ended"
        if presses(tick, incident):
            incident.last = tick.at  # its fence hides what it does, and is not removed for that
        if tick.at - incident.last >= QUIET_SECONDS * 1e9:
            return f"nothing unusual was seen for {QUIET_SECONDS:g} s"
        return ""

    def _finish(self, key: str, incident: Incident, end: str) -> Proposals:
        """The restore of what was changed, and the report of the end. An incident that was never reported ends without one."""
        undo, proposals = _undo(incident), Proposals()
        if undo is not None:
            proposals.append(self._propose(key, undo, incident_reasons.given_back(incident, undo.control, end)))
        if not incident.id:
            incident.over = True
        if not incident.over:
            first, *others = incident.ids
            flag = Flag(incident.pool, first, incident.kind, tuple(others), incident.id, over=True)
            proposals.append(self._propose(key, flag, incident_reasons.over(incident, end)))
        return proposals

    def _digest(self, at: int) -> Proposals:
        """The line that sums up what was beyond the budget, when it is due."""
        alarms = self.memory.alarms
        many = alarms.due(at)
        return [self._propose("all pools", Digest(many), alarms.why(self._config.alarms_per_day))] if many else []

    def _propose(self, key: str, action: Action, why: Why) -> Proposal[None]:
        return Proposal(self.name, key, action, why, None)


def _undo(incident: Incident) -> Restore | None:
    """The restore of the change made for the incident; None: there is none."""
    return None if incident.demoted is None else Restore(incident.demoted.control, ProcessPlace(incident.demoted.process))
