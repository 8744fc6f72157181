"""A frame as samples of the metrics, within a budget of series. Pure; knows no format and no clock.

Groups that have no series of their own are summed up as `group="other"`. Pools come first, in the order of their names.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from ...frame import Band, Change, Decided, Delay, Frame, Group, Incident, Own, Pool
from ...read.text import printable
from . import catalogue as m
from .budget import Budget
from .catalogue import ALL, Metric

OTHER = "other"
"""The label of groups without series of their own. A group that is called so is one of them."""

LONGEST = 120
"""Characters of a label (chosen): a line of a legend has fewer, and a longer name keeps its beginning and gets a digest."""

SHOWN_HORIZONS = (2, 4)
"""Horizons of a group's forecasts that are shown, by their place in the band (chosen: 6 and 30 ticks)."""

SPARE = 0.25
"""Part of the budget that new groups leave free (chosen): those with series come to need more of them, such as when they wait."""

MOST_CULPRITS = 4
"""Groups that are named as culprits of one victim (chosen: as many as the daemon names)."""

SETTLED_CULPRIT = 30.0
"""Seconds for which a new culprit must be there before it is named (chosen: two scrapes). Only groups that have series of their own
are named."""

HALF_LIFE_CULPRIT = 120.0
"""Seconds after which the delay by a culprit counts for half (chosen): one that has ended soon gives its place to the next."""

MOST_INCIDENTS = 50
"""Pairs of pool and kind of incident that are shown (chosen)."""

POOLS_SHARE = 0.75
"""Part of the budget that pools may take (chosen: 45 pools of 2,000 series)."""

RESOURCES = ("cpu", "memory", "io")


class Exemplar(NamedTuple):
    """A decision that a counter counted."""

    decision: str
    wall: float  # seconds since 1970


class Sample(NamedTuple):
    """One series at one moment."""

    labels: tuple[str, ...]  # values in the order of `Metric.labels`
    value: float
    exemplar: Exemplar | None = None


Row = tuple[Metric, Sample]


class Seen(NamedTuple):
    """What is known of the daemon."""

    frame: Frame | None  # None: there is none
    age: float  # seconds since its tick
    late: bool  # it is too old to say what is now
    unreadable: bool  # there is a file that is no frame for this process


class Figures:
    """Makes samples of frames. Remembers which groups had series of their own."""

    def __init__(self, limit: int) -> None:
        """`limit`: most series."""
        self.limit = limit
        self.folded: Mapping[str, int] = {"groups": 0, "pools": 0}
        """Groups and pools of the newest frame without series of their own."""
        self.refused: list[str] = []
        """What of them the budget is too small for, in words."""
        self._budget = Budget(spare=SPARE)
        self._culprits: dict[str, Budget] = {}  # of each victim with series of its own

    def of(self, seen: Seen, at: float) -> dict[Metric, list[Sample]]:
        """All samples. `at`: seconds of a clock that never steps back."""
        rows: list[Row] = []
        frame = seen.frame
        _put(rows, m.UP, frame is not None and not seen.late)
        _put(rows, m.UNREADABLE, seen.unreadable)
        if frame is not None:
            _put(rows, m.AGE, round(seen.age, 3))
        if frame is not None and not seen.late:
            rows += _daemon(frame.own)
            rows += _machine(frame)
            rows += _decisions(frame)
            rows += _incidents(frame.incidents)
            rows += self._within(frame, at, self.limit - len(rows) - OWN_SERIES)
        _put(rows, m.FOLDED, self.folded["groups"], "groups")
        _put(rows, m.FOLDED, self.folded["pools"], "pools")
        _put(rows, m.LIMIT, self.limit)
        _put(rows, m.SERIES, len(rows) + 1)
        found: dict[Metric, list[Sample]] = {metric: [] for metric in ALL}
        for metric, sample in rows:
            found[metric].append(sample)
        return {metric: samples for metric, samples in found.items() if samples}

    def _within(self, frame: Frame, at: float, left: int) -> Iterable[Row]:
        """Pools and groups, in `left` series."""
        rows: list[Row] = []
        pools = 0
        for pool in frame.pools:
            its = _pool(pool)
            if len(rows) + len(its) > left * POOLS_SHARE:
                break
            rows += its
            pools += 1
        named: dict[str, Group] = {}
        rest = []
        for group in frame.groups:
            name = label(group.name)
            if name == OTHER or name in named:
                rest.append(group)
            else:
                named[name] = group
        host = frame.machine
        weights = {name: max(it.demand, it.cpu) / max(1, host.cpus) + it.memory / max(1, host.memory) for name, it in named.items()}
        costs = {name: _cost(group) for name, group in named.items()}
        own = self._budget.choose(at, max(0, left - len(rows) - OTHER_SERIES), costs, weights)
        self._culprits = {name: self._culprits.get(name) or Budget(SETTLED_CULPRIT, HALF_LIFE_CULPRIT) for name in own}
        for name in sorted(own):
            group = named[name]
            rows += _group(name, group, frame.measured)
            if group.delay is not None:
                rows += _delay(name, group.delay, own, self._culprits[name], at)
        rest += [group for name, group in named.items() if name not in own]
        rows += _other(rest, frame.measured)
        self.folded = {"groups": len(rest), "pools": len(frame.pools) - pools}
        refused = {"groups are summed up as other": self._budget.refused, "pools have no metrics": self.folded["pools"]}
        self.refused = [f"{many} {what}" for what, many in refused.items() if many]
        return rows


OWN_SERIES = 4
"""Series about the exporter that come last."""

OTHER_SERIES = 5
"""Most series of the groups that are summed up."""


def label(name: str) -> str:
    """A name as the value of a label: no control characters, and not too long. Two names that differ stay different."""
    if len(name) <= LONGEST and name.isprintable():
        return name
    text = printable(name)
    if len(text) <= LONGEST:
        return text
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{text[: LONGEST - len(digest) - 1]}~{digest}"


def _put(rows: list[Row], metric: Metric, value: float | None, *labels: str, exemplar: Exemplar | None = None) -> None:
    """Add a sample; an unknown value has none."""
    if value is not None:
        rows.append((metric, Sample(labels, float(value), exemplar)))


def _daemon(own: Own) -> list[Row]:
    rows: list[Row] = []
    _put(rows, m.BUILD, 1, label(own.version))
    _put(rows, m.INTERVAL, own.interval)
    _put(rows, m.UPTIME, own.running)
    _put(rows, m.TICKS, own.ticks)
    _put(rows, m.MISSED, own.missed)
    _put(rows, m.LOST, own.lost)
    _put(rows, m.CPU, own.cpu)
    _put(rows, m.MEMORY, own.memory)
    _put(rows, m.BUDGET, own.budget)
    _put(rows, m.REDUCED, len(own.reduced))
    _put(rows, m.TROUBLES, len(own.troubles))
    _put(rows, m.ACTING, own.mode == "act")
    _put(rows, m.CANNOT_ACT, own.cannot != "")
    _put(rows, m.PAUSED, own.paused)
    return rows


def _machine(frame: Frame) -> list[Row]:
    host = frame.machine
    rows: list[Row] = []
    _put(rows, m.CPUS, host.cpus)
    _put(rows, m.MACHINE_MEMORY, host.memory)
    _put(rows, m.AVAILABLE, host.available)
    if frame.measured:
        _put(rows, m.BUSY, host.busy)
        _put(rows, m.STEAL, host.steal)
        _put(rows, m.UNSEEN, host.unseen)
        for resource, value in zip(RESOURCES, host.pressure or (), strict=False):
            _put(rows, m.PRESSURE, value, resource)
    return rows


def _decisions(frame: Frame) -> list[Row]:
    rows: list[Row] = []
    metrics = {"decisions": m.DECISIONS, "refusals": m.REFUSALS, "outcomes": m.OUTCOMES, "effects": m.EFFECTS}
    for it in frame.counts:
        if it.what in metrics:
            kinds = () if it.what == "decisions" else (label(it.kind),)
            newest = _newest(frame.decisions, it.what, it.policy, it.kind)
            _put(rows, metrics[it.what], it.times, label(it.policy), *kinds, exemplar=newest)
    return rows


def _incidents(incidents: Iterable[Incident]) -> list[Row]:
    rows: list[Row] = []
    open_ = Counter((label(it.pool), label(it.kind)) for it in incidents)
    shown = sorted(open_)[:MOST_INCIDENTS]
    for key in shown:
        _put(rows, m.INCIDENTS, open_.pop(key), *key)
    if open_:
        _put(rows, m.INCIDENTS, open_.total(), OTHER, OTHER)
    return rows


def _newest(decisions: Iterable[Decided], what: str, policy: str, kind: str) -> Exemplar | None:
    """The newest decision that a counter counted, as far as it is still shown. A refusal was none."""
    for it in decisions:
        known = {"decisions": "", "outcomes": it.status, "effects": it.effect}
        if it.policy == policy and known.get(what) == kind:
            return Exemplar(it.id, it.wall)
    return None


def _pool(pool: Pool) -> list[Row]:
    rows: list[Row] = []
    name = label(pool.name)
    _put(rows, m.POOL, 1, name, label(pool.kind), label(pool.objective), label(pool.rules))
    _put(rows, m.WORKERS, pool.size, name)
    _put(rows, m.WANTED, pool.wanted, name)
    _put(rows, m.MINIMUM, pool.minimum, name)
    _put(rows, m.MAXIMUM, pool.maximum, name)
    _put(rows, m.POOL_BUSY, pool.busy, name)
    _put(rows, m.QUEUED, pool.queued, name)
    _put(rows, m.LOAD, pool.load, name)
    _put(rows, m.ARRIVALS, pool.arrivals, name)
    _put(rows, m.SERVICE, pool.service, name)
    _put(rows, m.SERVICE_P95, pool.p95, name)
    _put(rows, m.START, pool.start, name)
    _put(rows, m.WORKER_MEMORY, pool.worker_memory, name)
    if pool.aim:
        _put(rows, m.AIM_SHARE if pool.aim == "utilization" else m.AIM_SECONDS, pool.aim_value, name, label(pool.aim))
    _put(rows, m.POOL_TROUBLE, pool.trouble != "", name)
    if pool.forecast is not None:
        rows += _band(m.LOAD_FORECAST, pool.forecast, range(len(pool.forecast.seconds)), name)
    return rows + _changes("pool", name, pool.changes)


def _group(name: str, group: Group, measured: bool) -> list[Row]:
    """The series of one group, without its delay."""
    rows: list[Row] = []
    _put(rows, m.GROUP_CLASS, 1, name, label(group.class_), "yes" if group.given else "no")
    _put(rows, m.CERTAINTY, group.certainty, name)
    _put(rows, m.GROUP_PROCESSES, group.processes, name)
    _put(rows, m.GROUP_MEMORY, group.memory, name)
    if measured:
        _put(rows, m.GROUP_CPU, group.cpu, name)
        _put(rows, m.GROUP_WAIT, group.wait, name)
        _put(rows, m.DEMAND, group.demand, name)
        _put(rows, m.THROTTLED, group.throttled, name)
    if group.forecast is not None:
        rows += _band(m.DEMAND_FORECAST, group.forecast, SHOWN_HORIZONS, name)
    if group.memory_forecast is not None:
        rows += _band(m.MEMORY_FORECAST, group.memory_forecast, SHOWN_HORIZONS[-1:], name)
    return rows + _changes("group", name, group.changes)


def _cost(group: Group) -> int:
    """Most series that it may need."""
    forecasts = (4 if group.forecast is not None else 0) + (2 if group.memory_forecast is not None else 0)
    delays = 0 if group.delay is None else min(len(group.delay.by), MOST_CULPRITS) + 4
    return 8 + forecasts + delays + len(group.changes)


def _changes(what: str, name: str, changes: Iterable[Change]) -> list[Row]:
    rows: list[Row] = []
    controls: dict[str, int] = {}
    for change in changes:
        control = label(change.control)
        controls[control] = controls.get(control, 0) + change.processes
    for control, many in sorted(controls.items()):
        _put(rows, m.CHANGED, many, what, name, control)
    return rows


def _band(metric: Metric, band: Band, places: Iterable[int], name: str) -> list[Row]:
    rows: list[Row] = []
    for place in places:
        if place < len(band.seconds):
            horizon = f"{band.seconds[place]:g}s"
            _put(rows, metric, band.median[place], name, horizon, "median")
            _put(rows, metric, band.high[place], name, horizon, "high")
    return rows


def _delay(name: str, delay: Delay, named: Set[str], culprits: Budget, at: float) -> list[Row]:
    """For what a group waits. The parts add up to its smoothed wait. `named`: groups that may be named as culprits."""
    rows: list[Row] = []
    cores: dict[str, float] = {}
    others = delay.others
    for culprit, part in delay.by:
        known = label(culprit)
        if known in named and known not in cores:
            cores[known] = part
        else:
            others += part
    chosen = culprits.choose(at, MOST_CULPRITS, dict.fromkeys(cores, 1), cores)
    for culprit, part in cores.items():
        if culprit in chosen:
            _put(rows, m.DELAY, part, name, "group", culprit)
        else:
            others += part
    _put(rows, m.DELAY, round(others, 4), name, "group", OTHER)
    _put(rows, m.DELAY, delay.own, name, "itself", "")
    _put(rows, m.DELAY, delay.unseen, name, "unseen", "")
    _put(rows, m.DELAY, delay.steal, name, "steal", "")
    return rows


def _other(groups: list[Group], measured: bool) -> list[Row]:
    """The groups without series of their own."""
    rows: list[Row] = []
    if groups:
        _put(rows, m.GROUP_PROCESSES, sum(group.processes for group in groups), OTHER)
        _put(rows, m.GROUP_MEMORY, sum(group.memory for group in groups), OTHER)
        if measured:
            _put(rows, m.GROUP_CPU, round(sum(group.cpu for group in groups), 4), OTHER)
            _put(rows, m.GROUP_WAIT, round(sum(group.wait for group in groups), 4), OTHER)
            _put(rows, m.DEMAND, round(sum(group.demand for group in groups), 4), OTHER)
    return rows
