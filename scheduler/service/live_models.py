"""The models that a session uses, and the observer made with them. Must not know how a model is trained or what it predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...models.anomaly.model import AnomalyModel
from ...models.artifact import Artifact, ArtifactError, load_live, shipped
from ...models.behaviour import BehaviourModel
from ...models.forecast.mixture import trained
from ...models.identity import ProcId
from ..config.sections import Config
from ..decision import Abilities
from ..explain.logstream import NOTICE, WARNING
from ..observe.observer import Observer

Tell = Callable[[int, str], None]
"""Takes a priority of syslog(3) and a sentence."""


@dataclass(frozen=True, slots=True)
class SessionModels:
    """An artefact of each kind; None: the baseline is used."""

    demand: Artifact | None
    anomaly: Artifact | None
    behaviour: Artifact | None

    def digests(self) -> dict[str, str]:
        """Digest by kind, "" where there is none."""
        kinds = {"demand": self.demand, "anomaly": self.anomaly, "behaviour": self.behaviour}
        return {kind: artefact.digest if artefact else "" for kind, artefact in kinds.items()}

    def observer(self, config: Config, abilities: Abilities, own: ProcId) -> Observer:
        """A new observer that uses these models."""
        demand, anomaly, behaviour = self.demand, self.anomaly, self.behaviour
        return Observer(
            config,
            abilities,
            own,
            trained(demand.arrays, demand.digest) if demand else None,
            AnomalyModel.from_arrays(anomaly.arrays, anomaly.digest, anomaly.card.interval) if anomaly else None,
            BehaviourModel.from_arrays(behaviour.arrays, behaviour.digest) if behaviour else None,
        )


def models_in_use(config: Config, directory: Path, tell: Tell) -> SessionModels:
    """The models for a session with this configuration. `directory`: where promoted models are."""
    demand, anomaly, behaviour = (_model(kind, config, directory, tell) for kind in ("demand", "anomaly", "behaviour"))
    return SessionModels(demand, anomaly, behaviour)


def _model(kind: str, config: Config, directory: Path, tell: Tell) -> Artifact | None:
    """The promoted artefact if it fits, else the shipped one. None: neither can be used, or the configuration switches it off."""
    if not getattr(config.models, kind):
        return None
    try:
        artefact = load_live(directory, kind)
    except ArtifactError as error:
        tell(WARNING, f"promoted {kind} model not used: {error}")
        artefact = None
    if artefact is not None and kind != "behaviour" and artefact.card.interval != config.daemon.interval:
        tell(
            WARNING,
            f"promoted {kind} model not used: it was trained with ticks of {artefact.card.interval:g} s, but daemon.interval is "
            f"{config.daemon.interval:g} s; record and train at this interval",
        )
        artefact = None
    try:
        artefact = artefact or shipped(kind)  # trained at many intervals, or on rates per second: it fits any interval
    except ArtifactError as error:
        tell(WARNING, f"the shipped {kind} model cannot be used: {error}; install nicety again")
    if artefact is None:
        tell(NOTICE, f"no {kind} model yet, so the baseline is used; `nicety train` makes one")
    return artefact
