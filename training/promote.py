"""Whether a new model may go live: only if it beats the running one and every baseline on held-out time.

Knows tables of results and the artefact store, not how models are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..models.artifact import Arrays, Artifact, ArtifactError, Card, live_digest, load, promote, save
from .evaluate import DemandTable

MARGIN = 0.001
"""A score must be better by so much, relatively: the same model trained again must not replace itself for the sake of rounding."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """May it go live, and why or why not in one sentence."""

    beats: bool
    reason: str


def judge(table: DemandTable, candidate: str) -> Judgement:
    """Compare the candidate's score with everybody else's in the table."""
    own = table.score(candidate)
    others = sorted((table.score(name), name) for name in table.forecasters() if name != candidate)
    best, name = others[0]
    ranking = ", ".join(f"{other} {score:.3f}" for score, other in others)
    if own < best * (1 - MARGIN):
        return Judgement(True, f"score {own:.3f} beats {ranking}")
    return Judgement(False, f"score {own:.3f} does not beat {name} {best:.3f} (all others: {ranking})")


def running(directory: Path, kind: str, interval: float) -> tuple[Artifact | None, str]:
    """(the live artefact if it can be compared with, else None; why it cannot, "" if there is none or it can)."""
    try:
        digest = live_digest(directory, kind)
        artefact = None if digest is None else load(directory, kind, digest)
    except ArtifactError as error:
        return None, f"the running {kind} model cannot be used, so it does not count: {error}"
    if artefact is not None and artefact.card.interval != interval:
        return None, f"the running {kind} model is for {artefact.card.interval:g} s a tick, so it does not count"
    return artefact, ""


def go_live(directory: Path, card: Card, arrays: Arrays) -> str:
    """Save the model and promote it; its digest. Raises ArtifactError, and then the old one stays live."""
    digest = save(directory, card.kind, card, arrays)
    promote(directory, card.kind, digest)
    return digest
