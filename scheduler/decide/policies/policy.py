"""What every policy is, what it proposes, and how it reads the forecasts. Pure: knows ticks and decisions, no knob and no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from ....models.records import HORIZONS, QUANTILES
from ...decision import Action, Decision, Digest, Effect, Flag, Note, Recycle, ResizePool, Restore, Tick, Why
from ...hands.faults import Status
from ...hands.places import Control
from ...places import CgroupPlace, DecisionPlace, ProcessPlace, SessionPlace

DONE = frozenset({Status.APPLIED, Status.OBSERVED, Status.UNCHANGED, Status.PARTIAL})
"""Outcomes after which a policy counts a desired change as made."""


class Memory(msgspec.Struct, forbid_unknown_fields=True):
    """Base of what policies and guard remember between ticks: plain data, so that it can be logged and resumed from."""


class Metric(StrEnum):
    """A figure that shows what a change did."""

    WAIT = "wait"  # of a group: share of the time that it wants a CPU
    QUEUED = "queued"  # work of a pool


class Aim(Memory):
    """The figure that a change is to improve. After a restore or a shrink, no effect is the good result."""

    metric: Metric
    of: str  # the group that waits, or the pool
    before: float
    group: str  # what is changed: a contender, a protected group with short slices, a pool
    control: Control
    back: bool  # it is a restore
    whole: bool = True  # the group had no such change before, so the measurement covers all of its changes
    delay: float = 0.0  # seconds until the change can show
    goal: float | None = None  # the change failed if the figure stays above this and gets no better; None: no such verdict
    again: int = 0  # times that it is measured again if it failed
    size: int | None = None  # workers asked for before; None: it is no pool


Kept = TypeVar("Kept")
"""What a policy remembers of a proposal once it is admitted."""


@dataclass(frozen=True, slots=True)
class Proposal(Generic[Kept]):
    """A change that a policy would make. The engine gives it an id: then it is a decision."""

    policy: str
    target: str  # as Decision.target
    action: Action
    why: Why
    kept: Kept  # handed back to `Policy.admit`
    aim: Aim | None = None  # None: its effect is not measured

    def decision(self, id_: str) -> Decision:
        """The decision with this id."""
        return Decision(id_, self.policy, self.target, self.action, self.why)


@dataclass(frozen=True, slots=True)
class Impact:
    """What became of the figure that a change was to improve."""

    aim: Aim
    effect: Effect
    failed: bool  # see `Aim.goal`
    final: bool  # it is not measured again, and nothing else explains the figure


@dataclass(frozen=True, slots=True)
class Result:
    """An outcome with its action and target."""

    action: Action | None  # None: not ours, somebody else changed the target
    target: str
    status: Status
    at: int  # ns of the tick that brought it

    @property
    def done(self) -> bool:
        """The change was made, or would have been in act mode: both modes decide alike."""
        return self.status in DONE

    @property
    def failed(self) -> bool:
        """The action may be tried again later."""
        return self.telling or self.status in (Status.BLOCKED, Status.LATER)

    @property
    def telling(self) -> bool:
        """The failure says something about the mechanism, unlike a full disk or a busy kernel."""
        return self.status in (Status.REFUSED, Status.FAILED)


class Standing(NamedTuple):
    """A change that a policy counts as in force because it decided it. It may be only observed."""

    about: frozenset[str]  # things, as `scope.things` of the decision
    undone_by: Restore | ResizePool | None  # its restore, or the pool's size: identifies the change; None: nothing restores it
    target: str  # as Decision.target
    group: str = ""  # the group that was changed; "": no group was
    protects: str = ""  # the group that it protects; "": none


Gone = Callable[[Standing], bool]
"""Returns whether a standing decision is to be forgotten."""


class Policy(Protocol[Kept]):
    """Proposes changes. It is called with what was admitted and with outcomes; it never asks whether anything is really written.

    All that it knows from earlier calls is in its memory: a policy that is created from that memory between any two calls, also
    between `propose` and `admit`, decides in the same way.
    """

    name: str

    def propose(self, tick: Tick) -> list[Proposal[Kept]]:
        """Desired changes with their reasons. Called once a tick, never after a gap."""
        ...

    def waiting(self) -> Collection[str]:
        """The knobs of desired changes that were left for a later tick by the last `propose`, see `knob`."""
        ...

    def notes(self, tick: Tick, /) -> list[Note]:
        """Notes on what lasts longer than a decision. Called after `propose`, with the same tick."""
        ...

    def skip(self) -> None:
        """A gap in the ticks: nothing was measured, so everything that must last for some time starts again."""
        ...

    def admit(self, decision: Decision, kept: Kept, at: int, /) -> None:
        """The guard admitted a proposal of the present tick. `kept`: as in the proposal; `at`: ns of the tick."""
        ...

    def learn(self, result: Result) -> None:
        """The outcome of an admitted decision. A change that somebody else made is reported to every policy."""
        ...

    def measured(self, found: Sequence[Impact], tick: Tick, /) -> None:
        """Effects of earlier decisions of this policy whose measurement ended in this tick. Called before `propose`."""
        ...

    def standing(self) -> list[Standing]:
        """The changes that the policy counts as in force, in a fixed order."""
        ...

    def forget(self, gone: Gone) -> None:
        """Forgets changes that were only observed and are to be carried out from now on: those still desired are proposed again."""
        ...

    def validate(self, hands_off: Collection[str], /) -> None:
        """Raises AssertionError if the memory contradicts itself, or what is hands off. For tests."""
        ...


class Outlook:
    """The forecasts of a tick, by target, metric, horizon and quantile; values that are not finite count as absent."""

    def __init__(self, tick: Tick) -> None:
        self._forecasts = {(forecast.target, forecast.metric): forecast for forecast in tick.forecasts}

    def value(self, target: str, metric: str, horizon: int, quantile: float) -> float | None:
        """Forecast at index `horizon` of HORIZONS, at least 0; None if there is none or it is not finite."""
        forecast = self._forecasts.get((target, metric))
        if forecast is None:
            return None
        value = forecast.values[horizon][QUANTILES.index(quantile)]
        return max(value, 0.0) if math.isfinite(value) else None

    def highest(self, target: str, metric: str, horizons: int, quantile: float) -> float | None:
        """Largest forecast of the first `horizons` of HORIZONS, at least 0; None if none is finite."""
        forecast = self._forecasts.get((target, metric))
        if forecast is None:
            return None
        at = QUANTILES.index(quantile)
        found = [values[at] for values in forecast.values[:horizons] if math.isfinite(values[at])]
        return max(0.0, *found) if found else None

    def source(self, target: str, metric: str) -> str:
        """Source of the forecast; "" if there is none."""
        forecast = self._forecasts.get((target, metric))
        return "" if forecast is None else forecast.source


def horizon_for(seconds: float | None, interval: float) -> int:
    """Index of the nearest of HORIZONS that is at least `seconds` ahead, else the furthest; the middle one if unknown."""
    if seconds is None:
        return len(HORIZONS) // 2
    return next((i for i, ticks in enumerate(HORIZONS) if ticks * interval >= seconds), len(HORIZONS) - 1)


def peak(peaks: list[tuple[int, int]], at: int, value: int, seconds: float) -> int:
    """Largest value of the last `seconds`, after adding `value` at `at`. `peaks` is its memory: (ns, value), values falling."""
    while peaks and peaks[-1][1] <= value:
        peaks.pop()
    peaks.append((at, value))
    while peaks[0][0] < at - seconds * 1e9:
        peaks.pop(0)
    return peaks[0][1]


def knob(action: Action, target: str) -> str:
    """Name of what an action changes, the same for every action on it: the key for cool-downs, back-offs and hands off.

    An autogroup is named by the target, because any of its processes may represent it.
    """
    if isinstance(action, ResizePool):
        return f"{Control.POOL_SIZE} {action.pool}"
    if isinstance(action, Recycle):
        return f"recycle {action.worker.pid}.{action.worker.start_ticks}"
    if isinstance(action, Flag):
        return f"flag {action.kind} {action.worker.pid}.{action.worker.start_ticks}"
    if isinstance(action, Digest):
        return "digest"
    return knob_on(action.control, action.on, target)


def knob_on(control: Control, on: DecisionPlace, target: str) -> str:
    """The name, as in `knob`, of what a Set or a Restore changes."""
    match on:
        case CgroupPlace(path=path):
            return f"{control} {path}"
        case SessionPlace():
            return f"{control} {target}"
        case ProcessPlace(id=process):
            return f"{control} {process.pid}.{process.start_ticks}"


Figures = dict[str, float | int | str]


def figures(**values: float | int | str | None) -> Figures:
    """Figures of a `Why`: unknown and non-finite ones are left out, because JSON cannot hold them."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and (not isinstance(value, float) or math.isfinite(value))
    }
