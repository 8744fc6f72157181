"""The models of a state directory in words: `nicety models list`. Knows cards and which model is live, not how models are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...models.artifact import FEATURES, ArtifactError, Card, history, live_digest, saved, shipped
from ...models.forecast.baseline import BASELINES
from ..printed import Part, Printed
from ..words import moment, span

HEADERS = ("kind", "model", "state", "trained", "on", "nicety", "how it did")

Row = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed:
    """A model in the list."""

    kind: str
    digest: str
    live: bool  # the next daemon uses it, if the configuration enables this kind
    previous: bool  # the one that `rollback` returns to
    shipped: bool  # comes with nicety
    card: Card | None  # None: unusable
    trouble: str  # why it is unusable


def look(models: Path) -> tuple[list[Listed], list[str]]:
    """(models by kind, the newest first; what is wrong with their files, a sentence each)."""
    troubles: list[str] = []
    return [each for kind in FEATURES for each in _of_kind(models, kind, troubles)], troubles


def _of_kind(models: Path, kind: str, troubles: list[str]) -> list[Listed]:
    """The user's models, then the one shipped with nicety."""

    def known(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except ArtifactError as error:
            troubles.append(str(error))
            return None

    past = known(lambda: history(models, kind)) or ()
    live = known(lambda: live_digest(models, kind))
    cards = known(lambda: saved(models, kind)) or {}
    before = [digest for digest in past if digest != live][-1:]  # the one that `rollback` returns to, if any
    found = []
    for digest, card in cards.items():
        usable, trouble = (card, "") if isinstance(card, Card) else (None, str(card))
        found.append(Listed(kind, digest, digest == live, [digest] == before, False, usable, trouble))
    troubles += [each.trouble for each in found if each.trouble]
    if live is not None and live not in cards:
        troubles.append(f"the live {kind} model {live[:12]} is missing; run: nicety models rollback {kind}, or nicety train")
    found.sort(key=lambda each: (-(each.card.created if each.card else 0), each.digest))
    coming = known(lambda: shipped(kind))
    if coming is not None:
        found.append(Listed(kind, coming.digest, live is None, before == [None], True, coming.card, ""))
    return found


def choose(models: Path, kind: str, start: str) -> tuple[str, bool]:
    """(digest of the one model of this kind whose digest begins with `start`, whether it is in `models` and not shipped). Raises
    ArtifactError."""
    coming = shipped(kind)
    known = [(digest, True) for digest in saved(models, kind)] + ([] if coming is None else [(coming.digest, False)])
    fit = [(digest, own) for digest, own in known if digest.startswith(start.lower())]
    if len(fit) == 1:
        return fit[0]
    if fit:
        names = ", ".join(digest[:12] for digest, _ in fit)
        raise ArtifactError(f'{len(fit)} {kind} models begin with "{start}": {names}; give more of the digest')
    raise ArtifactError(
        f'no {kind} model begins with "{start}"; `nicety models list` shows what there is, `nicety train` makes one'
    )


def row(model: Listed) -> tuple[str, ...]:
    """A line of the table, in the order of HEADERS."""
    states = [name for name in ("live", "previous", "shipped") if getattr(model, name)]
    if model.card is None:
        return model.kind, model.digest[:12], ", ".join([*states, "unusable"]), "", "", "", model.trouble
    card, data = model.card, model.card.data
    on = f"{data.groups} groups, {data.ticks} ticks of {card.interval:g} s"
    if data.last_wall > data.first_wall:
        on += f" in {span((data.last_wall - data.first_wall) / 1e9)}"
    return model.kind, model.digest[:12], ", ".join(states) or "saved", moment(card.created), on, card.version, score(card)


class ModelRecord(Part, frozen=True, kw_only=True):
    """A model. What its card says is null where the card cannot be used."""

    kind: str  # demand, anomaly or behaviour
    digest: str
    live: bool  # the next daemon uses it, if the configuration enables this kind
    previous: bool  # the one that `rollback` returns to
    shipped: bool  # comes with nicety
    trouble: str  # why it is unusable; "": it is usable
    created: int | None = None  # ns since 1970
    version: str | None = None  # of nicety
    interval_seconds: float | None = None  # between the ticks that it learned from
    ticks: int | None = None
    groups: int | None = None
    processes: int | None = None
    first_wall: int | None = None  # ns since 1970, of the data
    last_wall: int | None = None
    cpus: int | None = None  # of the machine
    score: str | None = None  # how it did on held-out time, in words; "": its table does not say
    metrics: list[dict[str, Any]] | None = None  # the table of its card, which differs by kind


class Models(Printed, frozen=True, kw_only=True):
    """The models of the state directory. Exit 3 if there is trouble."""

    models: list[ModelRecord]
    troubles: list[str]  # what is wrong with their files, a sentence each


def as_record(model: Listed) -> ModelRecord:
    """A model for --json, with the full digest."""
    card = model.card
    state = {name: getattr(model, name) for name in ("kind", "digest", "live", "previous", "shipped", "trouble")}
    if card is None:
        return ModelRecord(**state)
    return ModelRecord(
        **state,
        created=card.created,
        version=card.version,
        interval_seconds=card.interval,
        ticks=card.data.ticks,
        groups=card.data.groups,
        processes=card.data.processes,
        first_wall=card.data.first_wall,
        last_wall=card.data.last_wall,
        cpus=card.cpus,
        score=score(card),
        metrics=[dict(each) for each in card.metrics],
    )


def score(card: Card) -> str:
    """How the model did on held-out time, from the table in its card; "" if the table does not say."""
    if not card.metrics:
        return ""
    try:
        return {"demand": _demand, "anomaly": _anomaly, "behaviour": _behaviour}[card.kind](card.metrics)
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return ""  # a card of another version


def _demand(rows: Sequence[Row]) -> str:
    """The geometric mean of its losses relative to the last value's; the table's first forecaster is the model."""
    losses = {(each["forecaster"], each["metric"], each["horizon"]): each["wql"] for each in rows}
    name, anchor = rows[0]["forecaster"], BASELINES[0].name
    logs = [math.log(loss / losses[anchor, *where]) for (who, *where), loss in losses.items() if who == name]
    return f"loss {math.exp(sum(logs) / len(logs)):.2f} of the last value's"


def _anomaly(rows: Sequence[Row]) -> str:
    found, injected, alarms = (sum(int(each[key]) for each in rows) for key in ("found", "injected", "false_alarms"))
    return f"found {found} of {injected}, {alarms} false alarms"


def _behaviour(rows: Sequence[Row]) -> str:
    if "loss_without_family" in rows[0]:
        return f"loss {rows[0]['loss_without_family']:.3f} on {rows[0]['programs']} programs not seen"
    mine = [float(each["loss"]) for each in rows if each["model"] == rows[0]["model"]]
    return f"loss {sum(mine) / len(mine):.3f} on {len(mine)} groups"
