"""Training in the background: starts it when it is due, keeps it within its time and memory, and reports the result.

Knows how to run `python -m nicety.training` and to read its result, not how models are made. Nothing here waits, except `close`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...models.artifact import FEATURES, ArtifactError, live_digest
from ..config.sections import Models
from ..explain.logstream import INFO, NOTICE, WARNING
from ..interpreter import PYTHON
from ..read.text import printable
from ..words import size, span
from .background import Background, Ended, Limits, MakesIdle

TRAINING = (*PYTHON, "-m", "nicety.training")

OWN_SHARE = 0.8
"""Share of the configured time and memory that training gets as its own limits. Chosen: it must finish with what it has before it
is stopped."""


@dataclass(frozen=True, slots=True)
class News:
    """What happened to the training since the last tick."""

    said: tuple[tuple[int, str], ...] = ()  # (priority, sentence) for the log
    promoted: bool = False  # whether other models are live than when the training began


class Retraining:
    """Trains in the background, `models.retrain_hours` after the last training ended. Never runs two. Times are monotonic ns.

    `tick` must be called from a thread that lives as long as the daemon: see `Background`.
    """

    def __init__(
        self, models: Path, arguments: Sequence[str], command: Sequence[str] = TRAINING, hands: MakesIdle | None = None
    ) -> None:
        """`models`: the directory with the live models. `arguments`: where configuration and state are, for the training."""
        self._models = models
        self._command = (*command, "train", "--json", *arguments)
        self._config = Models()
        self._due: int | None = None
        self._training = Background("training", hands)
        self._before: dict[str, str | None] = {}  # digests of the models that were live when it began, by kind

    def configure(self, config: Models, now: int) -> None:
        """Set how often to train and with which limits. If the hours change, the next training begins after the new ones."""
        changed = config.retrain_hours != self._config.retrain_hours
        self._config = config
        if changed:
            self._put_off(now)
        if not config.retrain_hours:
            self._training.stop(now, "models.retrain_hours is 0 now")

    def tick(self, now: int) -> News:
        """Start a training that is due, supervise one that runs, collect one that has ended. A start takes some milliseconds."""
        if self._training.pid is not None:
            ended = self._training.look(now, self._limits())
            if ended is None:
                return News()
            self._put_off(now)
            return News(_outcome(ended, self._next(now)), self._live() != self._before)
        if self._due is None or now < self._due:
            return News()
        self._put_off(now)
        config = self._config
        seconds, memory = round(config.retrain_seconds * OWN_SHARE), round(config.retrain_bytes * OWN_SHARE)
        limits = "--time-budget", f"{seconds}s", "--memory", str(memory), "--jobs", "1"  # nobody waits for it
        self._before = self._live()
        try:
            pid = self._training.start((*self._command, *limits), now)
        except (OSError, subprocess.SubprocessError) as error:
            return News(((WARNING, f"retraining could not start: {error}; the next one {self._next(now)}"),))
        most = f"at most {span(config.retrain_seconds)} and {size(config.retrain_bytes)}"
        return News(((INFO, f"retraining began: pid {pid}, {self._training.where}, {most}"),))

    def state(self, now: int) -> str:
        """The running training, or when the next one is due, for people."""
        if self._training.pid is not None:
            return f"pid {self._training.pid}, since {span(self._training.seconds(now))}"
        return "off" if self._due is None else f"in {span((self._due - now) / 1e9)}"

    def close(self) -> None:
        """End a running training and wait for its end. Idempotent."""
        self._training.close()

    def _limits(self) -> Limits:
        seconds, memory = self._config.retrain_seconds, self._config.retrain_bytes
        return Limits(seconds, f"models.retrain_seconds = {seconds:g}", memory, f"models.retrain_bytes = {memory}")

    def _put_off(self, now: int) -> None:
        """Make the next training due `models.retrain_hours` from now; never if they are 0."""
        hours = self._config.retrain_hours
        self._due = now + round(hours * 3600e9) if hours else None

    def _next(self, now: int) -> str:
        return "is switched off" if self._due is None else f"comes in {span((self._due - now) / 1e9)}"

    def _live(self) -> dict[str, str | None]:
        """Digest of the live model of each kind; None: none is live, or it cannot be used."""
        found: dict[str, str | None] = {}
        for kind in FEATURES:
            try:
                found[kind] = live_digest(self._models, kind)
            except ArtifactError:
                found[kind] = None
        return found


# --- the result ---------------------------------------------------------------------------------------------------------------


def _outcome(ended: Ended, again: str) -> tuple[tuple[int, str], ...]:
    """(priority, sentence) for each kind of model, or why there was no result."""
    said = _kinds(ended.result)
    if ended.stopped_for:
        return (*said, (WARNING, f"retraining was stopped: {ended.stopped_for}; the next one {again}"))
    return said or ((WARNING, f"retraining failed {ended.failure}; the next one {again}"),)


def _kinds(result: bytes) -> tuple[tuple[int, str], ...]:
    """(priority, sentence) for each kind of model; empty if `result` is not the result of a training."""
    try:
        return tuple(_kind(kind, it["outcome"], it["reason"], it["digest"]) for kind, it in json.loads(result)["models"].items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def _kind(kind: str, outcome: str, reason: str, digest: str) -> tuple[int, str]:
    name = f" as {digest[:8]}" if digest else ""
    return _PRIORITIES.get(outcome, WARNING), printable(f"retraining: {kind} model {outcome}{name}: {reason}")


_PRIORITIES = {"promoted": NOTICE, "refused": NOTICE, "not trained": INFO}
"""Priority by outcome (`training.report.OUTCOMES`); any other outcome is a WARNING."""
