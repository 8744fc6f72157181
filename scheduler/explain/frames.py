"""Makes the frame of a tick: what was seen, predicted and decided, as `scheduler/frame.py` describes it. Pure; knows no file.

The daemon makes one a tick, and what looks back makes one of what was recorded, so both have the same screen.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from ...models.anomaly.lifecycle import USER_HZ
from ...models.features import Floats
from ...models.records import HORIZONS, QUANTILES, Class, Forecast, Snapshot
from ..config.sections import Config, PoolConfig, seconds_of
from ..decision import Decision, Flag, Outcome, Rules, Tick, Verdict
from ..frame import (
    Band,
    Change,
    Count,
    Decided,
    Delay,
    Frame,
    Group,
    Incident,
    Machine,
    Own,
    Pool,
    Processes,
)
from ..hands.faults import Status
from ..observe.measure import Measured
from .gathered import describe, likeness, subject

MOST_GROUPS = 1000
"""Groups in a frame besides those that a tick reports, those with most memory first (chosen: `observe.measure.MAX_GROUPS`)."""

MOST_PROCESSES = 1000
"""Processes in a frame, the busiest first (chosen): a person looks at fewer, and each costs 0.5 us to write."""

MOST_DECISIONS = 40
"""Decisions that a frame has (chosen): a large screen shows as many."""

REMEMBERED = 1000
"""Decisions whose outcomes and effects are waited for (chosen: an effect comes within minutes)."""

LEAST_CORES = 0.0005
"""Cores below which a process counts as idle (chosen: half a millisecond a second)."""

MEDIAN, HIGH = QUANTILES.index(0.5), QUANTILES.index(0.95)

WORST = (Status.FAILED, Status.BLOCKED, Status.REFUSED, Status.LATER, Status.FOREIGN, Status.RELIEVED, Status.PARTIAL)
"""Outcomes that stand for a decision about many members if one of them has it, the worst first."""

NOBODY = Processes([], [], [], [], [], [], [], [], [], [], [], [], 0)
"""No processes: they are not known."""


@dataclass(slots=True)
class _Made:
    """A decision that is waited for."""

    policy: str
    shown: str  # id under which it is shown, that of the first of its kind in its tick
    flag: Flag | None  # if it reports an incident


@dataclass(slots=True)
class Recent:
    """The last decisions and what became of them, the open incidents, and how often what happened."""

    _shown: OrderedDict[str, Decided] = field(default_factory=OrderedDict)  # by id, the oldest first
    _made: OrderedDict[str, _Made] = field(default_factory=OrderedDict)  # by id
    _incidents: dict[str, Incident] = field(default_factory=dict)  # by the id of the flag that began it
    _counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, wall: float, verdict: Verdict, outcomes: Iterable[Outcome]) -> None:
        """Take what a tick decided. `wall`: seconds since 1970. `outcomes`: of its decisions and earlier ones."""
        kinds: dict[tuple[object, ...], str] = {}
        for decision in verdict.decisions:
            self._decided(wall, decision, kinds)
        for refusal in verdict.refusals:
            self._counts["refusals", refusal.decision.policy, refusal.rule] += 1
        for outcome in outcomes:
            self._came(outcome)
        for effect in verdict.effects:
            made = self._made.get(effect.decision)
            if made is not None:
                self._counts["effects", made.policy, effect.verdict] += effect.decisions
                self._change(made.shown, effect=effect.verdict)
        while len(self._made) > REMEMBERED:
            self._made.popitem(last=False)
        while len(self._shown) > MOST_DECISIONS:
            self._shown.popitem(last=False)

    def decisions(self) -> list[Decided]:
        """The newest first."""
        return list(reversed(self._shown.values()))

    def incidents(self) -> list[Incident]:
        """Those that are not over, the oldest first."""
        return list(self._incidents.values())

    def counts(self) -> list[Count]:
        """Sorted."""
        return [Count(*key, times) for key, times in sorted(self._counts.items())]

    def _decided(self, wall: float, decision: Decision, kinds: dict[tuple[object, ...], str]) -> None:
        self._counts["decisions", decision.policy, ""] += 1
        action, key = decision.action, likeness(decision)
        shown = kinds.setdefault(key, decision.id)
        if shown == decision.id:
            self._shown[shown] = Decided(
                id=decision.id,
                wall=wall,
                policy=decision.policy,
                target=subject(decision),
                what=describe(action),
                text=decision.why.text,
                times=1,
                status="",
                effect="",
            )
        else:
            self._change(shown, times=self._shown[shown].times + 1)
        self._made[decision.id] = _Made(decision.policy, shown, action if isinstance(action, Flag) else None)
        if isinstance(action, Flag):
            self._flagged(wall, decision, action)

    def _flagged(self, wall: float, decision: Decision, flag: Flag) -> None:
        id_ = flag.incident or decision.id
        if flag.over:
            self._incidents.pop(id_, None)
            return
        began = self._incidents[id_].wall if id_ in self._incidents else wall
        pids = [worker.pid for worker in (flag.worker, *flag.others)]
        self._incidents[id_] = Incident(id_, flag.pool, pids, flag.kind, began, decision.why.text)

    def _came(self, outcome: Outcome) -> None:
        made = self._made.get(outcome.decision)
        if made is None:
            return
        self._counts["outcomes", made.policy, str(outcome.status)] += 1
        before = self._shown.get(made.shown)
        if before is None:
            return
        known = [status for status in WORST if status in (before.status, outcome.status)]
        self._change(made.shown, status=str(known[0] if known else outcome.status))

    def _change(self, shown: str, **fields: Any) -> None:
        if shown in self._shown:
            self._shown[shown] = msgspec.structs.replace(self._shown[shown], **fields)


def frame_of(
    tick: Tick,
    own: Own,
    machine_name: str,
    config: Config,
    recent: Recent,
    changes: Iterable[Mapping[str, Any]],
    notes: Sequence[str],
    seen: tuple[Snapshot, Measured] | None,
) -> Frame:
    """The frame of a tick. `changes`: records of `in_force.sum_up`. `seen`: what the tick was made of; None: it is not known, so
    the frame has no processes."""
    bands = {(it.target, it.metric): _band(it, own.interval) for it in tick.forecasts}
    held: dict[str, list[Change]] = {}
    for change in changes:
        held.setdefault(change["group"], []).append(_change(change))
    host = tick.machine
    return Frame(
        seq=tick.seq,
        wall=tick.wall / 1e9,
        measured=not tick.gap,
        own=own,
        machine=Machine(
            name=machine_name,
            cpus=host.cpus,
            busy=_short(host.busy),
            steal=_short(host.steal),
            unseen=_short(host.unseen),
            memory=host.memory_total,
            available=host.memory_available,
            pressure=None if host.pressure is None else [_short(value) for value in host.pressure],
        ),
        groups=_groups(tick, bands, held, None if seen is None else seen[1]),
        pools=_pools(tick, config, bands, held),
        processes=NOBODY if seen is None else _processes(*seen),
        incidents=recent.incidents(),
        decisions=recent.decisions(),
        counts=recent.counts(),
        notes=list(notes),
    )


def _groups(
    tick: Tick, bands: Mapping[tuple[str, str], Band], held: Mapping[str, list[Change]], measured: Measured | None
) -> list[Group]:
    """All groups of the tick that have processes, and those that were only measured."""
    delays = {it.group: Delay(it.wait, list(it.by), it.others, it.own, it.unseen, it.steal) for it in tick.delays}
    groups = []
    for it in tick.groups:
        if not it.processes:
            continue
        certainty, leans = None, ""
        if it.behaviour is not None:
            chances = {Class.INTERACTIVE: it.behaviour.p_interactive, Class.BATCH: it.behaviour.p_batch}
            likely = max(chances, key=chances.__getitem__)
            certainty = chances.get(it.class_, chances[likely])
            leans = str(likely) if it.class_ is Class.EXEMPT and chances[likely] > 0.5 else ""
        groups.append(
            Group(
                name=it.name,
                class_=str(it.class_),
                given=it.behaviour is None and it.class_ is not Class.EXEMPT,
                certainty=None if certainty is None else _short(certainty),
                leans=leans,
                processes=it.processes,
                cpu=_short(it.cpu),
                brief=_short(it.brief),
                wait=_short(it.wait),
                demand=_short(it.demand),
                memory=it.rss,
                throttled=_short(it.throttled),
                forecast=bands.get((it.name, "cpu")),
                memory_forecast=bands.get((it.name, "rss")),
                delay=delays.get(it.name),
                changes=held.get(f"group {it.name}", []),
            )
        )
    if measured is not None:
        groups += _only_measured(measured, {group.name for group in groups})
    return sorted(groups, key=lambda group: group.name)


def _only_measured(measured: Measured, known: set[str]) -> list[Group]:
    """Groups that the tick does not report: idle ones without a class."""
    rows = [row for row, name in enumerate(measured.groups) if name not in known and measured.processes[row]]
    if len(rows) > MOST_GROUPS:
        rows = sorted(rows, key=lambda row: -measured.rss[row])[:MOST_GROUPS]
    at = np.array(rows, dtype=np.int64)
    columns = [_shorts(values[at]) for values in (measured.cpu, measured.brief, measured.wait, measured.demand)]
    counts, memory = measured.processes[at].astype(int).tolist(), measured.rss[at].astype(int).tolist()
    exempt = str(Class.EXEMPT)
    return [
        Group(measured.groups[row], exempt, False, None, "", many, cpu, brief, wait, demand, rss, 0.0)
        for row, many, rss, cpu, brief, wait, demand in zip(rows, counts, memory, *columns, strict=True)
    ]


def _pools(tick: Tick, config: Config, bands: Mapping[tuple[str, str], Band], held: Mapping[str, list[Change]]) -> list[Pool]:
    rules = {chosen.pool: chosen.rules.words(chosen.size) for chosen in tick.chosen}
    pools = []
    for it in tick.pools:
        section, times = config.pools.get(it.name), it.service
        aim, aim_value = ("", None) if section is None else _aim(section)
        pools.append(
            Pool(
                name=it.name,
                kind="" if section is None else section.kind,
                size=it.size,
                wanted=it.requested,
                minimum=it.minimum,
                maximum=it.maximum,
                busy=it.busy,
                queued=it.queued,
                load=it.load,
                arrivals=None if times is None else _short(times.arrivals),
                service=None if times is None else _short(times.mean),
                p95=None if times is None else _short(times.p95),
                start=it.start_seconds,
                worker_memory=it.rss_per_worker,
                objective="" if section is None else objective_in_words(section),
                rules=rules.get(it.name, Rules.ALL.words(0)),
                trouble=it.trouble,
                forecast=bands.get((it.name, "load")),
                changes=held.get(f"pool {it.name}", []),
                aim=aim,
                aim_value=aim_value,
            )
        )
    return pools


def objective_in_words(pool: PoolConfig) -> str:
    """What a pool is to keep; "" if it has no objective.

    >>> from ..config.sections import Objective
    >>> objective_in_words(PoolConfig(kind="gunicorn", objective=Objective(p95="300ms")))
    'p95 300ms'
    """
    aim = pool.objective
    if aim is None:
        return ""
    return f"p95 {aim.p95}" if aim.p95 else f"wait {aim.wait}" if aim.wait else f"utilization {aim.utilization:.0%}"


def _aim(pool: PoolConfig) -> tuple[str, float | None]:
    """The objective of a pool, its kind and its value in seconds or as a share."""
    aim = pool.objective
    if aim is None:
        return "", None
    for kind, duration in (("p95", aim.p95), ("wait", aim.wait)):
        if duration:
            return kind, seconds_of(duration)
    return "utilization", aim.utilization


def _processes(snapshot: Snapshot, measured: Measured) -> Processes:
    """Those that ran or waited, and then those with most memory, in the order of the table."""
    table, rates = snapshot.table, measured.rates
    groups, identities = measured.members, list(map(snapshot.identities.__getitem__, measured.rows))
    cpu, wait = rates.cpu + rates.brief, rates.wait
    left_out = len(table) - MOST_PROCESSES
    if left_out > 0:
        active = np.maximum(cpu, wait)
        order = np.lexsort((-table["rss_bytes"].astype(np.float64), -np.where(active >= LEAST_CORES, active, 0.0)))
        rows = np.sort(order[:MOST_PROCESSES])
        table, cpu, wait = table[rows], cpu[rows], wait[rows]
        groups, identities = itemgetter(*rows.tolist())(groups), itemgetter(*rows.tolist())(identities)
    age = (snapshot.uptime_ticks - table["start_ticks"].astype(np.float64)) / USER_HZ
    return Processes(
        pid=table["pid"].tolist(),
        parent=table["ppid"].tolist(),
        group=list(groups),
        name=[identity.comm for identity in identities],
        user=[identity.owner for identity in identities],
        state=list(table["state"].tobytes().decode("latin-1")),
        nice=table["nice"].tolist(),
        threads=table["threads"].tolist(),
        age=np.round(age, 1).tolist(),
        cpu=_shorts(cpu),
        wait=_shorts(wait),
        memory=table["rss_bytes"].tolist(),
        left_out=max(left_out, 0),
    )


def _band(forecast: Forecast, interval: float) -> Band:
    return Band(
        seconds=[horizon * interval for horizon in HORIZONS],
        median=[_short(row[MEDIAN]) for row in forecast.values],
        high=[_short(row[HIGH]) for row in forecast.values],
        source=forecast.source,
    )


def _change(record: Mapping[str, Any]) -> Change:
    """Of a record of `in_force.sum_up`."""
    return Change(
        control=record["control"],
        original=record["original"],
        now=record["now"],
        processes=record["processes"],
        protects=record["protects"],
        decision=record["decision"],
        wall=record["since_wall"] / 1e9,
    )


def _short(value: float) -> float:
    """A figure in a frame: four decimals are more than a person sees, and take less room."""
    return round(value, 4)


def _shorts(values: Floats) -> list[float]:
    return list(np.round(values, 4).tolist())
