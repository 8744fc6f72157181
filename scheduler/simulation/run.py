"""Runs rules on loads: one rule on one load gives `Figures`, many give a table. Must not use a clock or unseeded randomness."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ...models import artifact
from ...models.forecast.answers import TrainedModel
from ...models.forecast.mixture import trained
from ..config.sections import Config, Objective
from ..decision import Rules
from ..printed import Part, Printed
from .arrivals import Load, LoadError, Recorded, Trace, drawn_from, fitted, made_up
from .oracle import Oracle
from .ours import Nicety, name_of
from .peers import PEERS, Fixed
from .queueing import Floats, SimulatedQueue, SizeRule, play, worker_seconds

WARMUP = 120.0
"""Seconds at the beginning that do not count, because no rule chose the pool's first size. Chosen."""

MINIMUM, MAXIMUM = 2, 32
"""Limits of a pool, in workers, unless given or recorded. Chosen; the maximum is that of the load's shapes."""

START = 4.0
"""Seconds from a worker's start to its first request, if neither given nor measured (chosen)."""

ORACLES = (0.8, 0.7)
"""Busy shares of the oracles in `ALL`: the targets of the HPA and of Knative."""

OURS = {name_of(rules, 0): rules for rules in (Rules.ALL, Rules.FORECAST, Rules.REACTIVE)}
"""The daemon's policy, by the rules that count."""

ALL = (*OURS, *PEERS, "fixed-8", "fixed-16", "fixed-32", *(f"oracle-{100 * target:.0f}" for target in ORACLES))
"""Every rule, as `nicety simulate --rule all` runs them."""

USUAL = ("nicety", "nicety-reactive", "kpa", "hpa-80", "celery", "uwsgi-busyness", "fixed-32", "oracle-80", "oracle-70")
"""The rules that `nicety simulate` runs by default."""


@dataclass(frozen=True, slots=True)
class Track:
    """Size and load of a run, second by second."""

    workers: Floats  # at the end of each second, starting and leaving ones too
    requests: Floats  # in the pool at the end of each second, waiting ones too
    erlangs: Floats  # offered load, as `Load` has it


@dataclass(frozen=True, slots=True)
class Figures:
    """The result of one rule on one load, of the time after the warm-up."""

    rule: str
    load: str
    start_seconds: float
    seed: int
    requests: int
    p50: float  # seconds from arrival to end of a request
    p95: float
    p99: float
    waits_p95: float  # seconds from arrival to the begin of its service
    workers: float  # mean number, starting and leaving ones too
    worker_seconds: float
    spawns_per_hour: float
    track: Track = field(compare=False, repr=False)

    def as_record(self) -> FigureRecord:
        """For JSON: without the track."""
        return FigureRecord(**{name: getattr(self, name) for name in self.__dataclass_fields__ if name != "track"})


def simulate(
    rule: str | SizeRule,
    load: str | Trace | Load,
    start_seconds: float,
    seed: int,
    *,
    minimum: int = MINIMUM,
    maximum: int = MAXIMUM,
    seconds: float = 3600.0,
    service: float = 0.2,
    warmup: float = WARMUP,
    initial: int | None = None,
    config: Config | None = None,
    demand: TrainedModel | None = None,
    objective: Objective | None = None,
) -> Figures:
    """Run one rule on one load.

    `rule`: one of `ALL`, "nicety-N", "fixed-N" or "oracle-N", or one that was made. `load`: the name of a synthetic one, a trace,
    or a prepared load. `warmup`: seconds at the beginning that do not count; hours of it show what has been learned by then.
    `initial`: workers at the beginning, unless the pool is fixed; None: a third of the way from the minimum to the maximum.
    `config`, `demand`: for nicety itself; by default the configuration's defaults and the shipped model. `objective`: what nicety
    is to keep. Raises LoadError.
    """
    if not isinstance(load, Load):
        load = prepare(load, seed, seconds=seconds, maximum=maximum, service=service)
    made = make(rule, load, start_seconds, minimum, maximum, config, demand, objective) if isinstance(rule, str) else rule
    if initial is None:
        initial = first_size(minimum, maximum)
    elif isinstance(made, Fixed):
        initial = min(max(made.workers, minimum), maximum)
    queue = SimulatedQueue(load.arrivals, load.services, start_seconds, initial)
    play(queue, made, minimum, maximum, load.seconds)
    born, gone = queue.lives(load.seconds)
    started = sum(at >= warmup for at in queue.started)
    queue.advance(math.inf)
    latencies = queue.latencies(warmup)
    counted = load.seconds - warmup
    if counted <= 0 or not len(latencies):
        raise LoadError(f"{load.name}: no request arrives after the first {warmup:g} s, which do not count; give a longer load")
    p50, p95, p99 = np.quantile(latencies, (0.5, 0.95, 0.99)).tolist()
    spent = worker_seconds(born, gone, warmup, load.seconds)
    ends = np.arange(1, math.ceil(load.seconds) + 1).astype(np.float64)
    workers = np.searchsorted(np.sort(born), ends, side="right") - np.searchsorted(np.sort(gone), ends, side="left")
    return Figures(
        rule=made.name,
        load=load.name,
        start_seconds=start_seconds,
        seed=seed,
        requests=len(latencies),
        p50=p50,
        p95=p95,
        p99=p99,
        waits_p95=float(np.quantile(queue.waits(warmup), 0.95)),
        workers=spent / counted,
        worker_seconds=spent,
        spawns_per_hour=started * 3600 / counted,
        track=Track(workers.astype(np.float64), _present(load.arrivals, queue.latencies(0.0), ends), load.erlangs),
    )


def _present(arrivals: Floats, latencies: Floats, at: Floats) -> Floats:
    """How many requests had arrived and not ended at these times."""
    came = np.searchsorted(arrivals, at, side="right")
    went = np.searchsorted(np.sort(arrivals[: len(latencies)] + latencies), at, side="right")
    return (came - went).astype(np.float64)


def prepare(load: str | Trace | Recorded, seed: int, *, seconds: float, maximum: int, service: float) -> Load:
    """The load for this seed. Raises LoadError."""
    if isinstance(load, str):
        return made_up(load, seconds, maximum, service, seed)
    if isinstance(load, Recorded):
        return drawn_from(load, service, seed)
    return fitted(load, seconds, maximum, service, seed)


def limits(recorded: Recorded | None, config: Config) -> tuple[int, int]:
    """(fewest, most) workers by default. A recorded pool has its configured limits; if it has none, it may grow to twice its
    largest size."""
    if recorded is None:
        return MINIMUM, MAXIMUM
    pool = config.pools.get(recorded.name)
    if pool is not None:
        return max(pool.minimum, 1), pool.maximum
    smallest, largest = int(recorded.sizes.min()), int(recorded.sizes.max())
    return min(MINIMUM, max(smallest, 1)), max(2 * largest, MINIMUM)


def objective_of(recorded: Recorded | None, config: Config) -> Objective | None:
    """The objective of a recorded pool; None: it has none now, or the load was not recorded from a pool."""
    pool = None if recorded is None else config.pools.get(recorded.name)
    return None if pool is None else pool.objective


def first_size(minimum: int, maximum: int) -> int:
    """Workers that a pool begins with: 12 between 2 and 32."""
    return max(round((2 * minimum + maximum) / 3), 1)


def check(rules: Iterable[str]) -> None:
    """Check the names before any run. Raises LoadError for the first one that is not a rule."""
    nothing = Load("", 0.0, np.zeros(0), np.zeros(0), np.zeros(0), "")
    for rule in rules:
        if rule not in OURS:
            make(rule, nothing, 0.0, MINIMUM, MAXIMUM, None, None)


def make(
    rule: str,
    load: Load,
    start_seconds: float,
    minimum: int,
    maximum: int,
    config: Config | None,
    demand: TrainedModel | None,
    objective: Objective | None = None,
) -> SizeRule:
    """A rule by its name. Raises LoadError for an unknown name."""
    kind, _, number = rule.partition("-")
    constant = kind == "nicety" and re.fullmatch(r"[1-9]\d{0,4}", number)
    if rule in OURS or constant:
        config, rules, size = config or Config(), OURS.get(rule, Rules.CONSTANT), int(number) if constant else 0
        model = demand if demand is not None else shipped_demand() if config.models.demand else None
        return Nicety(config, minimum, maximum, model, rules=rules, size=size, objective=objective)
    if rule in PEERS:
        return PEERS[rule](minimum, maximum)
    if kind == "fixed" and re.fullmatch(r"[1-9]\d{0,4}", number):
        return Fixed(int(number))
    if kind == "oracle" and re.fullmatch(r"[1-9]\d?|100", number):
        return Oracle(int(number) / 100, load.erlangs, start_seconds)
    close = difflib.get_close_matches(rule, ALL, n=1)
    hint = f'did you mean "{close[0]}"?' if close else f"choose all, {', '.join(ALL)}, or nicety-N, fixed-N or oracle-N"
    raise LoadError(f'there is no rule "{rule}"; {hint}')


@lru_cache(maxsize=1)
def shipped_demand() -> TrainedModel | None:
    """The shipped demand model, as the daemon uses it if none was trained."""
    found = artifact.shipped("demand")
    return None if found is None else trained(found.arrays, found.digest)


def run(
    rules: Sequence[str],
    loads: Iterable[Callable[[int], Load]],
    starts: Sequence[float],
    seeds: Sequence[int],
    *,
    minimum: int = MINIMUM,
    maximum: int = MAXIMUM,
    config: Config | None = None,
    warmup: float = WARMUP,
    initial: int | None = None,
    demand: TrainedModel | None = None,
    objective: Objective | None = None,
) -> Iterator[Figures]:
    """Run every rule on every load with every start time and seed. A load is made from a seed when it is needed."""
    for load in loads:
        for seed in seeds:
            made = load(seed)
            for start in starts:
                for rule in rules:
                    yield simulate(
                        rule,
                        made,
                        start,
                        seed,
                        minimum=minimum,
                        maximum=maximum,
                        warmup=warmup,
                        initial=initial,
                        config=config,
                        demand=demand,
                        objective=objective,
                    )


# --- what is shown ------------------------------------------------------------------------------------------------------------

HEADERS = ("load", "start s", "rule", "p50 s", "p95 s", "p99 s", "workers", "spawns/h", "seeds")


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean figures of one rule on one load over all seeds."""

    load: str
    start_seconds: float
    rule: str
    p50: float
    p95: float
    p99: float
    workers: float
    worker_seconds: float
    spawns_per_hour: float
    seeds: int

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        return (
            self.load,
            f"{self.start_seconds:g}",
            self.rule,
            *(f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in (self.p50, self.p95, self.p99)),
            f"{self.workers:.1f}",
            f"{self.spawns_per_hour:.0f}",
            str(self.seeds),
        )


def means(figures: Iterable[Figures]) -> list[Mean]:
    """Means over the seeds for each load, start time and rule, in the order in which these first occur."""
    found: dict[tuple[str, float, str], list[Figures]] = {}
    for each in figures:
        found.setdefault((each.load, each.start_seconds, each.rule), []).append(each)
    made = []
    for (load, start, rule), members in found.items():

        def mean(name: str, members: Sequence[Figures] = members) -> float:
            return math.fsum(getattr(one, name) for one in members) / len(members)

        made.append(
            Mean(
                load,
                start,
                rule,
                mean("p50"),
                mean("p95"),
                mean("p99"),
                mean("workers"),
                mean("worker_seconds"),
                mean("spawns_per_hour"),
                len(members),
            )
        )
    return made


class FigureRecord(Part, frozen=True, kw_only=True):
    """The result of one rule on one load, of the time after the warm-up."""

    rule: str
    load: str
    start_seconds: float  # from a worker's start to its first request
    seed: int
    requests: int
    p50: float  # seconds from arrival to end of a request
    p95: float
    p99: float
    waits_p95: float  # seconds from arrival to the begin of its service
    workers: float  # mean number, starting and leaving ones too
    worker_seconds: float
    spawns_per_hour: float


class Simulated(Printed, frozen=True, kw_only=True):
    """What `nicety simulate` found."""

    means: list[Mean]  # over the seeds
    runs: list[FigureRecord]
    recorded: AsItWas | None  # None: no recording was simulated


@dataclass(frozen=True, slots=True)
class AsItWas:
    """The recorded pool itself in the time that counts, to compare with the rules. Its latency is unknown."""

    load: str
    seconds: float
    workers: float  # mean number, starting and leaving ones too
    worker_seconds: float
    spawns_per_hour: float

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        return (self.load, "", "(recorded)", "", "", "", f"{self.workers:.1f}", f"{self.spawns_per_hour:.0f}", "")


def as_it_was(recorded: Recorded, warmup: float) -> AsItWas:
    """The figures of the recorded pool itself. `warmup`: seconds that do not count."""
    sizes = recorded.sizes[min(int(warmup / recorded.step), len(recorded.sizes) - 1) :]
    counted = len(sizes) * recorded.step
    workers, came = float(sizes.mean()), int((recorded.born > recorded.seconds - counted).sum())
    return AsItWas(recorded.name, counted, workers, workers * counted, came * 3600 / counted)


def by_rule(found: Iterable[Mean]) -> Mapping[tuple[str, float, str], Mean]:
    """Means by (load, start time, rule)."""
    return {(mean.load, mean.start_seconds, mean.rule): mean for mean in found}
