"""Whether a new model may go live. It must beat the running one and every baseline on held-out time. A behaviour model has no
baseline, and gains from the user's own programs, so it must only not be worse than the running one.

Knows tables of results and the artefact store, not how models are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..models.artifact import Arrays, Artifact, ArtifactError, Card, live_digest, load, promote, save
from .behaviour_fit import BehaviourTable
from .evaluate import DemandTable

MARGIN = 0.001
"""Share by which a score must be better. Chosen: retraining the same model must not replace it because of rounding."""


WORSE = 1.02
"""Factor by which a loss may be larger. Chosen: fitting more programs moves the loss of the others by a percent either way."""

SLIGHT = 0.02
"""Difference of losses that does not count (98 % probability for the true class). Chosen: so near to perfect a factor means
nothing."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a model may go live, and why or why not in one sentence."""

    beats: bool
    reason: str
    speaks: frozenset[str] = frozenset()  # metrics for which a demand model is to be used


def judge(table: DemandTable, candidate: str, heard: Mapping[str, frozenset[str]] = MappingProxyType({})) -> Judgement:
    """Compare the candidate with all others in the table, metric by metric. It is to be used for the metrics in which it beats them
    all, and must beat them in one.

    `heard`: the metrics for which a running model in the table is used, by its name. It does not count in other metrics. If it is
    the best of all in a metric, the candidate must be as good there, within MARGIN, and is then used for it."""
    speaks, kept, said, lost = set[str](), set[str](), list[str](), list[str]()
    for metric in table.metrics():
        others = [name for name in table.forecasters() if name != candidate and metric in heard.get(name, (metric,))]
        own = table.score(candidate, metric)
        best, name = min((table.score(name, metric), name) for name in others)
        if own < best * (1 - MARGIN):
            speaks.add(metric)
            said.append(f"{metric} {own:.3f} beats {name} {best:.3f}")
        elif metric in heard.get(name, ()) and own <= best * (1 + MARGIN):
            kept.add(metric)
            said.append(f"{metric} {own:.3f} is as good as {name} {best:.3f}")
        else:
            said.append(f"{metric} {own:.3f} does not beat {name} {best:.3f}")
            lost += [metric] if metric in heard.get(name, ()) else []
    text = ", ".join(said)
    if not speaks:
        return Judgement(False, text)
    if lost:
        return Judgement(False, f"{text}; the running model would no longer be used for {', '.join(lost)}, where it is the best")
    return Judgement(True, text, frozenset(speaks | kept))


def judge_behaviour(table: BehaviourTable) -> Judgement:
    """Compare the new model, the first of the table, with the running one, if there is one. On programs that neither saw, compare
    it with the same model fitted without the user's groups."""
    new, *others = table.models()
    own, harm = table.loss(new), table.harm(new)
    unseen, without = table.unseen
    unseen_text = f"on programs not seen {unseen:.3f} with your groups, {without:.3f} without"
    for name in others:
        loss = table.loss(name)
        if harm > table.harm(name):
            return Judgement(False, f"it takes {harm} interactive groups for batch work, {name} {table.harm(name)}")
        if own > max(loss * WORSE, loss + SLIGHT):
            return Judgement(False, f"loss {own:.3f} on held-out time is worse than {name} {loss:.3f}")
    if unseen > max(without * WORSE, without + SLIGHT):
        return Judgement(False, f"your groups make it worse for others: loss {unseen_text}")
    ranking = ", ".join(f"{name} {table.loss(name):.3f}" for name in others) or "none is running"
    return Judgement(True, f"loss {own:.3f} on held-out time ({ranking}); {unseen_text}")


def running(directory: Path, kind: str, interval: float) -> tuple[Artifact | None, str]:
    """(the live artefact, None if there is none or it cannot be compared; why it cannot, "" if it can)."""
    try:
        digest = live_digest(directory, kind)
        artefact = None if digest is None else load(directory, kind, digest)
    except ArtifactError as error:
        return None, f"the running {kind} model cannot be used, so the new one is not compared with it: {error}"
    if artefact is not None and artefact.card.interval != interval:
        theirs = f"{artefact.card.interval:g} s"
        return None, f"the running {kind} model is for ticks of {theirs}, so the new one is not compared with it"
    return artefact, ""


def go_live(directory: Path, card: Card, arrays: Arrays) -> str:
    """Save the model, promote it and return its digest. If it raises ArtifactError, the old model stays live."""
    digest = save(directory, card.kind, card, arrays)
    promote(directory, card.kind, digest)
    return digest
