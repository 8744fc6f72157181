"""Why an incident is reported, acted on or over: the sentence and the figures of its decisions. Pure: decides nothing."""

from __future__ import annotations

from .....models.records import Anomaly, Deadlock, Score
from ....config.sections import Quarantine as Section
from ....decision import StarvedWorker, Tick, Why
from ....hands.places import Control
from ..policy import Figures, figures
from .incidents import Incident
from .significance import Significance
from .threshold import CONSENSUS, QUIET_SECONDS
from .treatment import Treatment
from .words import WHAT, circle, onset, rarity, seconds, stories


class Reasons:
    """Says why."""

    def __init__(self, config: Section, odd: Significance, treatment: Treatment) -> None:
        self._patience = config.patience
        self._odd = odd
        self._treatment = treatment

    def seen(self, tick: Tick, incident: Incident, seen: Score | Deadlock, before: str = "") -> Why:
        """Why an incident is reported, from what this tick shows. `before`: the kind that was reported first; "": none was."""
        if isinstance(seen, Deadlock):
            return self._circle(tick, incident, seen)
        score = seen
        siblings = [other for other in tick.scores if other.pool == score.pool and other.id != score.id]
        unusual = sum(self._odd.is_odd(other) and other.kind == score.kind for other in siblings)
        evidence = dict(score.evidence)
        doing, compared = stories(score.kind, evidence)
        starved = (
            next((it for it in tick.starved_workers if it.worker.id == score.id), None) if score.kind == Anomaly.STARVED else None
        )
        who = f"{'Worker' if incident.worker else 'Process'} {score.id.pid} of {score.pool}"
        parts = [f"{who} {WHAT[score.kind]}" + (f", first reported as {before}" if before else "")]
        parts += [part for part in (doing, compared, _starved(starved)) if part]
        held = 0.0 if incident.since is None else (tick.at - incident.since) / 1e9
        line, p = self._odd.line(score), self._odd.p(score)
        text = f"{': '.join(parts[:2])}{''.join(f'; {part}' for part in parts[2:])}. "
        if self._odd.is_lesser(score):
            text += f"That is {score.size:.0%} of what is reported by default. ".replace("%", " %")
        text += f"{rarity(p)} healthy worker-minutes look like this"
        text += f"; so do {unusual} of {len(siblings)} siblings now." if siblings else "."
        return Why(
            rule=f"score of {score.kind}",
            text=text,
            figures=figures(
                pool=score.pool,
                kind=score.kind.value,
                p=p,
                alpha=line,
                score=score.value,
                patience_seconds=self._patience,
                significant_seconds=held,
                onset_seconds=max(held, onset(evidence)),
                siblings=len(siblings),
                unusual_siblings=unusual,
                source=score.source,
                taken_before=before or None,
                **_neighbour(starved),
                **{f"evidence_{name}": value for name, value in evidence.items()},
            ),
            rejected=self._treatment.rejected(score),
            flips=(
                f"p above {line:.2g} for more than {1 - CONSENSUS:.0%} of {self._patience:g} s".replace("%", " %"),
                "`nicety anomalies wrong ID`: then a similar incident must be stronger to be reported",
            ),
        )

    def _circle(self, tick: Tick, incident: Incident, deadlock: Deadlock) -> Why:
        lines = circle(deadlock.waits, tick.at)
        lasted = (tick.at - max(wait.since for wait in deadlock.waits)) / 1e9
        together = any(wait.holder is None for wait in deadlock.waits)
        what = "are stuck together" if together else "are deadlocked" if len(incident.ids) > 1 else "is deadlocked"
        return Why(
            rule="stuck together" if together else "wait in a circle",
            text=f"{incident.who} {what} for {seconds(lasted)}: {'; '.join(lines)}.",
            figures=figures(
                pool=incident.pool,
                kind=Anomaly.DEADLOCK.value,
                workers=len(incident.ids),
                onset_seconds=lasted,
                **{f"wait_{number}": line for number, line in enumerate(lines, 1)},
            ),
            rejected=self._treatment.rejected(deadlock),
            flips=("progress of one of them", "`nicety anomalies wrong ID`: then such a circle must last longer to be reported"),
        )


def given_back(incident: Incident, control: Control, end: str) -> Why:
    """Why a change made for an incident is restored. `end`: why the incident is over."""
    text = f"{incident.who}: {end}: {'let out of its fence' if control is Control.FENCE else 'nice back to what it was'}."
    return Why("incident over", text, figures(quiet_seconds=QUIET_SECONDS), (), ())


def over(incident: Incident, end: str) -> Why:
    """Why an incident is reported as over, which `end` says."""
    lasted = (incident.last - incident.reported) / 1e9
    text = f"{incident.who}: {incident.kind} is over: {end}. It was seen for {seconds(lasted)} after its report."
    return Why("incident over", text, figures(incident=incident.id, seconds_after_report=lasted), (), ())


def _starved(starved: StarvedWorker | None) -> str:
    """The neighbour that takes the CPU, in words; "" if none is known."""
    if starved is None or not starved.antagonists:
        return ""
    first, victim = starved.antagonists[0], starved.worker
    where = f"CPU {starved.cpus[0]}" if len(starved.cpus) == 1 else f"CPUs {', '.join(map(str, starved.cpus))}"
    text = f"{first.group} runs there: {first.cores:.2f} cores on {where} where it waits"
    text += f", at nice {first.nice} against its {victim.nice}"
    if first.cgroup != victim.cgroup:
        text += f", in cgroup {first.cgroup} beside its {victim.cgroup}"
    elif first.session != victim.session:
        text += ", in another session: nice has no effect between them while autogroup is on"
    others = ", ".join(f"{it.group} {it.cores:.2f}" for it in starved.antagonists[1:3])
    return text + (f" (then {others})" if others else "")


def _neighbour(starved: StarvedWorker | None) -> Figures:
    if starved is None or not starved.antagonists:
        return {}
    first = starved.antagonists[0]
    return figures(
        neighbour=first.group,
        neighbour_cores=first.cores,
        neighbour_nice=first.nice,
        worker_nice=starved.worker.nice,
        neighbour_cgroup=first.cgroup,
        worker_cgroup=starved.worker.cgroup,
    )
