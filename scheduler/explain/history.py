"""What was: figures over time in buckets, marks of what was decided, and one moment with its processes. Reads the stores.

Ticks are read from the decision log once, ten minutes at a time, into buckets of three widths. A view keeps the buckets: they are
small, and outlive what the stores forget. Where a bucket hides a peak it knows its second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from ...models.features import Floats, Singles
from ...models.identity import ProcId
from ..config.paths import Paths
from ..config.sections import Config
from ..decision import Member
from ..hands.safe_files import StoreError
from ..observe.measure import Measurer
from ..store.decisions import DecisionReader, LoggedDecision
from ..store.traces import TraceError, snapshots_at
from .decision_page import gathered
from .frames import LEAST_CORES
from .gathered import headline, tally
from .sentences import MEANING, effect_in_words

WIDTHS = (10, 60, 600)
"""Seconds of a bucket (chosen): an hour, a day and a week have 360 to 1,440 of them, about as many as a screen has columns."""

PIECE = WIDTHS[-1]
"""Seconds of ticks that are read together. Each width divides it."""

MOST_TARGETS = 256
"""Groups in a bucket, the busiest first (chosen: more are no longer told apart); the others are summed up."""

MACHINE, GROUP, POOL = "machine", "group", "pool"
"""Kinds of targets."""

OTHERS = (GROUP, "")
"""Target that stands for the groups that are left out."""

FIGURES = {
    MACHINE: ("busy", "wait", "memory", "steal", "memory_total", "cpus"),
    GROUP: ("cpu", "wait", "memory", "median", "high", ""),
    POOL: ("load", "queued", "size", "median", "high", "wanted"),
}
"""Figures of a target: cores, bytes, Erlangs, requests and workers. `median` and `high` are a forecast: see `AHEAD`."""

KEPT = 8
"""Figures in a bucket: the means of these six, and the largest of the first two."""

AHEAD = 1
"""Place in `models.records.HORIZONS` of the forecasts that are kept: 3 ticks ahead (chosen: of what is known as good as now, and
not yet vague)."""

MOST_MOMENT_PROCESSES = 40
"""Processes in a moment, the busiest first (chosen): a screen shows as many."""

MOST_MOMENT_DECISIONS = 40
"""Likewise decisions."""

AROUND = 120.0
"""Seconds before and after a moment whose decisions are shown with it (chosen: an effect is known within a minute)."""

MOST_MARKS = 5000
"""Decisions of which marks are made, the newest (chosen: reading them takes 20 ms)."""

Target = tuple[str, str]  # kind, name


class _Group(msgspec.Struct):
    name: str
    cpu: float
    wait: float
    rss: int


class _Pool(msgspec.Struct):
    name: str
    size: int
    requested: int
    queued: float | None
    load: float | None


class _Forecast(msgspec.Struct):
    target: str
    metric: str
    values: list[list[float]]


class _Machine(msgspec.Struct):
    cpus: int
    busy: float
    memory_total: int
    memory_available: int
    steal: float = 0.0


class _Tick(msgspec.Struct):
    """The fields of `decision.Tick` that are drawn. Leaving the others out makes reading three times as fast."""

    gap: bool
    machine: _Machine
    groups: list[_Group]
    pools: list[_Pool]
    forecasts: list[_Forecast]


_DECODER = msgspec.json.Decoder(_Tick)
_MEDIAN, _HIGH = 0, 2  # places in models.records.QUANTILES


@dataclass(frozen=True, slots=True)
class Bucket:
    """The figures of some time."""

    width: int  # seconds; 0: a single tick
    start: float  # seconds since 1970
    busiest: float  # the second in which the machine used most CPU
    worst: float  # the second in which its groups waited most
    targets: tuple[Target, ...]
    figures: Singles  # [KEPT, len(targets)]; NaN: unknown


class _Sums:
    """Adds up the ticks of one bucket."""

    def __init__(self, width: int, start: float) -> None:
        self.width, self.start = width, start
        self._ticks = 0
        self._total = np.zeros((6, 0))
        self._known = np.zeros((6, 0))
        self._most = np.zeros((2, 0))
        self._peaks = [(-1.0, start), (-1.0, start)]

    def add(self, wall: float, at: Sequence[int], values: Floats, size: int) -> None:
        """`values`: six figures of each target; `at`: places of the targets; `size`: targets known so far."""
        more = size - self._total.shape[1]
        if more > 0:
            self._total, self._known, self._most = (
                np.pad(array, ((0, 0), (0, more))) for array in (self._total, self._known, self._most)
            )
        known = ~np.isnan(values)
        filled = np.where(known, values, 0.0)
        self._total[:, at] += filled
        self._known[:, at] += known
        self._most[:, at] = np.maximum(self._most[:, at], filled[:2])
        self._ticks += 1
        for place, value in enumerate((values[0, 0], values[1, 0])):  # the machine comes first
            if value > self._peaks[place][0]:
                self._peaks[place] = (float(value), wall)

    def bucket(self, targets: Sequence[Target]) -> Bucket:
        """What was added up. A group that a tick does not report used nothing worth a report."""
        known = self._known.copy()
        groups = np.array([target[0] == GROUP for target in targets[: known.shape[1]]], dtype=np.bool_)
        seen = known.max(axis=0) > 0 if known.size else np.zeros(0, dtype=np.bool_)
        known[:2, groups & seen] = self._ticks
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(known > 0, self._total / known, np.nan)
        figures = np.vstack([means, np.where(known[:2] > 0, self._most, np.nan)])
        places = np.flatnonzero(seen)
        return _lessened(
            Bucket(
                self.width,
                self.start,
                self._peaks[0][1],
                self._peaks[1][1],
                tuple(targets[place] for place in places.tolist()),
                figures[:, places].astype(np.float32),
            )
        )


def _lessened(bucket: Bucket) -> Bucket:
    """With at most `MOST_TARGETS` groups, and the rest as one."""
    groups = [place for place, target in enumerate(bucket.targets) if target[0] == GROUP]
    if len(groups) <= MOST_TARGETS:
        return bucket
    weight = np.nan_to_num(bucket.figures[6] + bucket.figures[7])[groups]
    order = np.array(groups)[np.argsort(-weight, kind="stable")]
    rest = order[MOST_TARGETS:]
    kept = np.delete(np.arange(len(bucket.targets)), rest)
    others = np.nansum(bucket.figures[:, rest], axis=1)
    others[3:6] = np.nan
    return Bucket(
        bucket.width,
        bucket.start,
        bucket.busiest,
        bucket.worst,
        (*(bucket.targets[place] for place in kept.tolist()), OTHERS),
        np.column_stack([bucket.figures[:, kept], others]).astype(np.float32),
    )


@dataclass(slots=True)
class Piece:
    """Ticks of at most `PIECE` seconds, added in their order, in buckets."""

    start: float  # seconds since 1970
    widths: tuple[int, ...] = WIDTHS
    _targets: list[Target] = field(default_factory=list)
    _places: dict[Target, int] = field(default_factory=dict)
    _open: dict[int, _Sums] = field(default_factory=dict)
    _done: list[Bucket] = field(default_factory=list)

    def add(self, wall: int, text: bytes) -> None:
        """Take a tick, its JSON. One after a gap has no rates and is left out, as is one that cannot be read."""
        try:
            tick = _DECODER.decode(text)
        except msgspec.MsgspecError:
            return
        if tick.gap:
            return
        second = wall / 1e9
        targets, values = _values(tick)
        at = [self._place(target) for target in targets]
        for width in self.widths:
            start = second - second % width if width else second
            sums = self._open.get(width)
            if sums is None or sums.start != start:
                if sums is not None:
                    self._done.append(sums.bucket(self._targets))
                sums = self._open[width] = _Sums(width, start)
            sums.add(second, at, values, len(self._targets))

    def buckets(self) -> list[Bucket]:
        """All so far; the last of each width may still grow."""
        return self._done + [sums.bucket(self._targets) for sums in self._open.values()]

    def _place(self, target: Target) -> int:
        place = self._places.get(target)
        if place is None:
            place = self._places[target] = len(self._targets)
            self._targets.append(target)
        return place


def _values(tick: _Tick) -> tuple[list[Target], Floats]:
    """The targets of a tick, the machine first, and their six figures."""
    nan = float("nan")
    bands = {(it.target, it.metric): (it.values[AHEAD][_MEDIAN], it.values[AHEAD][_HIGH]) for it in tick.forecasts}
    nothing = (nan, nan)
    host = tick.machine
    waits = sum(group.wait for group in tick.groups)
    used = host.memory_total - host.memory_available
    rows: list[tuple[float, ...]] = [(host.busy, waits, used, host.steal, host.memory_total, host.cpus)]
    rows += [(it.cpu, it.wait, it.rss, *bands.get((it.name, "cpu"), nothing), nan) for it in tick.groups]
    for pool in tick.pools:
        load, queued = (nan if value is None else value for value in (pool.load, pool.queued))
        rows.append((load, queued, pool.size, *bands.get((pool.name, "load"), nothing), pool.requested))
    targets = [(MACHINE, ""), *((GROUP, it.name) for it in tick.groups), *((POOL, it.name) for it in tick.pools)]
    return targets, np.array(rows, dtype=np.float64).T


# --- marks --------------------------------------------------------------------------------------------------------------------


class Mark(msgspec.Struct, frozen=True):
    """What was decided in a bucket."""

    wall: float  # seconds since 1970, of the first
    decisions: int
    incidents: int  # reports of workers
    id: str  # of the first
    what: str  # the first, in a few words


def marks(reader: DecisionReader, since: float, until: float, width: float) -> list[Mark]:
    """Decisions from `since` until `until`, seconds since 1970, one mark for each `width` seconds that have any."""
    found: list[Mark] = []
    for wall, id_, action, target, _ in reader.outline(round(since * 1e9), round(until * 1e9), MOST_MARKS):
        second, flag = wall / 1e9, action == "flag"
        if found and second // width == found[-1].wall // width:
            last = found[-1]
            found[-1] = msgspec.structs.replace(last, decisions=last.decisions + (not flag), incidents=last.incidents + flag)
        else:
            found.append(Mark(second, int(not flag), int(flag), id_, f"{action} {target}"))
    return found


# --- a moment -----------------------------------------------------------------------------------------------------------------


class Used(msgspec.Struct, frozen=True, rename=lambda name: name.rstrip("_")):
    """A group at a moment."""

    name: str
    class_: str
    cpu: float  # cores
    wait: float  # cores
    memory: int  # bytes


class Delayed(msgspec.Struct, frozen=True):
    """A group that waited, and for what, in cores: the fields of `frame.Delay`."""

    name: str
    wait: float
    by: list[tuple[str, float]]
    others: float
    own: float
    unseen: float
    steal: float


class Ran(msgspec.Struct, frozen=True):
    """A process at a moment."""

    pid: int
    name: str
    group: str
    user: int | None  # uid
    cpu: float  # cores, with children that came and went
    wait: float  # cores
    memory: int  # bytes


class Done(msgspec.Struct, frozen=True):
    """What was decided about one target in one tick."""

    id: str
    wall: float  # seconds since 1970
    policy: str
    what: str  # with its target
    why: str
    came: str  # what became of it, in words
    helped: str  # the effect, in words; "": not measured


class Moment(msgspec.Struct, frozen=True):
    """One second: who used the machine, who waited, what was decided around it."""

    wall: float  # seconds since 1970
    busy: float  # cores
    cpus: int
    groups: list[Used]  # those that used or waited, the busiest first
    delays: list[Delayed] | None  # who was delayed by whom, the longest first; None: not recorded
    processes: list[Ran]  # likewise
    untold: str  # why there are no processes; ""
    decisions: list[Done]  # the nearest first


class _MomentGroup(msgspec.Struct, rename=lambda name: name.rstrip("_")):
    name: str
    class_: str
    cpu: float
    wait: float
    rss: int


class _MomentDelay(msgspec.Struct, array_like=True):
    group: str
    wait: float
    by: list[tuple[str, float]]
    others: float
    own: float
    unseen: float
    steal: float


class _MomentTick(msgspec.Struct):
    machine: _Machine
    groups: list[_MomentGroup]
    delays: list[_MomentDelay] | None = None
    home: Member | None = None


def moment(reader: DecisionReader, paths: Paths, config: Config, wall: float) -> Moment | None:
    """The second that ended at or before `wall`, seconds since 1970; None if the log has nothing as old. Raises StoreError."""
    place = reader.place_at(round(wall * 1e9))
    if place is None:
        return None
    when = place.wall
    text = next((text for found, _, text in reader.texts(place.id) if found == place.id), None)
    if text is None:
        return None
    try:
        tick = msgspec.json.decode(text, type=_MomentTick)
    except msgspec.MsgspecError as error:
        raise StoreError(f"the tick of that moment cannot be read: {error}; `nicety replay` says what is damaged") from None
    groups = [Used(it.name, it.class_, it.cpu, it.wait, it.rss) for it in tick.groups if it.cpu + it.wait > LEAST_CORES]
    processes, untold = _processes(paths, config, when, None if tick.home is None else tick.home.id)
    second = when / 1e9
    around, most = round(AROUND * 1e9), 4 * MOST_MOMENT_DECISIONS
    before = reader.find(since=when - around, until=when + 1, limit=most)[::-1]
    after = reader.find(since=when + 1, until=when + around, limit=most, newest_first=False)
    admitted = [alike for alike in gathered(before + after) if alike[0].refusal_json is None]
    nearest = sorted(admitted, key=lambda alike: abs(alike[0].wall - when))[:MOST_MOMENT_DECISIONS]
    return Moment(
        wall=second,
        busy=tick.machine.busy,
        cpus=tick.machine.cpus,
        delays=None if tick.delays is None else [_delayed(it) for it in sorted(tick.delays, key=lambda it: -it.wait)],
        groups=sorted(groups, key=lambda it: -max(it.cpu, it.wait))[:MOST_MOMENT_PROCESSES],
        processes=processes,
        untold=untold,
        decisions=[_done(alike) for alike in nearest],
    )


def _delayed(it: _MomentDelay) -> Delayed:
    return Delayed(it.group, it.wait, it.by, it.others, it.own, it.unseen, it.steal)


def _done(alike: Sequence[LoggedDecision]) -> Done:
    """Decisions that are shown as one, with what became of them."""
    first = alike[0]
    decisions = [logged.decision for logged in alike]
    effects = [logged.effects[-1] for logged in alike if logged.effect_json]
    outcomes = [logged.outcomes[-1] for logged in alike if logged.outcome_json]
    return Done(
        id=first.id,
        wall=first.wall / 1e9,
        policy=first.policy,
        what=headline(decisions),
        why=decisions[0].why.text,
        came=tally(MEANING[outcome.status] for outcome in outcomes) or "no outcome yet",
        helped=f"{effects[0].verdict}: {effect_in_words(effects[0])}" if effects else "",
    )


def _processes(paths: Paths, config: Config, wall: int, own: ProcId | None) -> tuple[list[Ran], str]:
    """The processes that ran or waited in the tick at `wall`, or why they are not known. `own`: the daemon of that time."""
    try:
        found = snapshots_at(paths.traces, wall)
    except TraceError as error:
        return [], str(error)
    if found is None or abs(found[2].wall - wall) > AROUND * 1e9:
        return [], "the traces do not reach back as far as the decision log"
    recording, before, now = found
    measurer = Measurer(config, recording.interval, own)
    measurer.measure(before)
    measured = measurer.measure(now)
    if measured is None:
        return [], "the tick before it was not recorded"
    cpu, wait = measured.rates.cpu + measured.rates.brief, measured.rates.wait
    active = np.maximum(cpu, wait)
    rows = np.argsort(-active, kind="stable")[:MOST_MOMENT_PROCESSES]
    identities = [now.identities[id_] for id_ in measured.rows]
    return [
        Ran(
            pid=int(now.table["pid"][row]),
            name=identities[row].comm,
            group=measured.members[row],
            user=identities[row].owner,
            cpu=round(float(cpu[row]), 4),
            wait=round(float(wait[row]), 4),
            memory=int(now.table["rss_bytes"][row]),
        )
        for row in rows[active[rows] > LEAST_CORES].tolist()
    ], ""
