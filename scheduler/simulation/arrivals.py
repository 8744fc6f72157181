"""Loads: when requests arrive and how long each takes, synthetic by shape and seed, or from a trace or a recorded pool. Pure.

Shapes are intensities in Erlangs for a pool of at most 32 workers, and scale with the maximum. Requests arrive at random at that
intensity (Poisson), service times are log-normal. Everything random is drawn from the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ...models.queueing import Times

Floats = NDArray[np.float64]

SCATTER = 0.8
"""Sigma of log-normal service times. Their 95 % quantile is then 2.7 times the mean, as in the published table of web requests in
docs/simulation.md (0.54 s for a mean of 0.2 s)."""

FULL = 32
"""Most workers of the pool that the shapes are written for. Chosen; the shapes scale with the maximum."""

PEAK = 0.7
"""Erlangs a worker in a trace's busiest minutes after scaling, with all allowed workers: the target of Knative's rule."""

BUSIEST = 0.995
"""Share of a trace's minutes that are below that peak. Chosen: the rest are outliers that no scale would fit."""

LONGEST_ROW = 10.0
"""Most seconds of play that one row of counts may take. Chosen: the load is flat within a row, so long rows would hide its
changes."""

MOST_REQUESTS = 5e7
"""Most requests of a load, counted as if all workers were busy all the time. Chosen: they take about a hundred bytes each, 5 GB."""

MOST_SLOWER = 1e4
"""Single requests are slowed down by at most this factor; if there are still too many, some are left out. Chosen."""


class LoadError(Exception):
    """A load cannot be simulated. The message says the cause and what to do next."""


@dataclass(frozen=True, slots=True)
class Load:
    """The requests of a pool."""

    name: str
    seconds: float
    arrivals: Floats  # [n] seconds from the start, rising
    services: Floats  # [n] seconds each takes
    erlangs: Floats  # [ceil(seconds)] offered load of each second, without the randomness of single requests; oracles know it
    scaled: str  # how a trace was fitted to the pool; "" for a synthetic load


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals from a recording: single requests, or counts in equal intervals."""

    name: str
    times: Floats  # [n] seconds, rising: of each request, or of the beginning of each interval
    counts: Floats | None  # [n] requests in each interval; None: a time is one request
    services: Floats | None  # [n] seconds each request took; None: not recorded
    step: float  # seconds of an interval; 0 for single requests


@dataclass(frozen=True, slots=True)
class Recorded:
    """A pool as nicety recorded it, on evenly spaced ticks."""

    name: str
    step: float  # seconds of a tick
    busy: Floats  # [n] mean workers at work
    queued: Floats  # [n] mean work waiting, 0 where unknown
    sizes: Floats  # [n] workers, starting ones too
    born: Floats  # seconds from the beginning at which each new worker was first seen
    start_seconds: float | None  # as measured last; None: no start was seen
    holes: float  # seconds without a recording, left out
    times: Times | None = None  # of service, as measured last; None: no single requests were seen
    capacity: float = 1.0  # requests that a worker serves at once, likewise

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.busy) * self.step

    def offered(self, service: float) -> Floats:
        """[n] load that arrived, in Erlangs, if a request takes `service` seconds: the busy workers plus the growth of the queue.

        The length of the queue is not added, because a request that waits for a minute would count in every tick. The growth is
        taken over a service time, because single requests come and go between two ticks.
        """
        n = len(self.busy)
        reach = max(round(service / self.step / 2), 1)
        first, last = np.maximum(np.arange(n) - reach, 0), np.minimum(np.arange(n) + reach, n - 1)
        grown = (self.queued[last] - self.queued[first]) / (np.maximum(last - first, 1) * self.step)
        return np.asarray(np.maximum(self.busy + service * grown, 0.0))


def made_up(shape: str, seconds: float, maximum: int, service: float, seed: int) -> Load:
    """A load of one of `SHAPES` for a pool of at most `maximum` workers whose requests take `service` seconds on average."""
    if shape not in SHAPES:
        raise LoadError(f'there is no load "{shape}"; choose one of {", ".join(SHAPES)}, or give a file')
    _check(seconds, maximum, service)
    chance = np.random.default_rng([seed, list(SHAPES).index(shape)])
    erlangs = SHAPES[shape](int(np.ceil(seconds)), chance) * maximum / FULL
    counts = chance.poisson(erlangs / service)
    arrivals = _within(counts, 1.0, chance)
    arrivals = arrivals[arrivals < seconds]
    return Load(shape, seconds, arrivals, _drawn(len(arrivals), service, chance), erlangs, "")


def drawn_from(recorded: Recorded, service: float, seed: int, scatter: float = SCATTER) -> Load:
    """The load of a recorded pool, neither sped up nor scaled. A trace has no single requests, so as many as make up the recorded
    load of a tick arrive at random times in it, and take `service` seconds on average, `scatter` being sigma of their logarithm.

    Their number is not drawn: the load of a tick has the chance of single requests in it, which would count twice.
    """
    erlangs = recorded.offered(service)
    seconds, step = recorded.seconds, recorded.step
    if float(erlangs.sum()) * step / service > MOST_REQUESTS:
        raise LoadError(f"{recorded.name}: more than {MOST_REQUESTS:g} requests of {service:g} s; simulate a shorter part of it")
    chance = np.random.default_rng([seed, len(erlangs)])
    arrivals = _within(np.diff(np.floor(np.cumsum([chance.random(), *(erlangs * step / service)]))).astype(np.int64), step, chance)
    if len(arrivals) < 2:
        raise LoadError(
            f"{recorded.name}: fewer than two requests of {service:g} s arrive in {seconds:g} s; give a shorter --service"
        )
    work = np.interp(np.arange(np.ceil(seconds) + 1), np.arange(len(erlangs) + 1) * step, np.cumsum([0.0, *(erlangs * step)]))
    holes = f"; {recorded.holes:.3g} s without a recording left out" if recorded.holes else ""
    said = f"arrivals at random times at the load that was seen; service times drawn, {service:.3g} s on average (--service){holes}"
    return Load(recorded.name, seconds, arrivals, _drawn(len(arrivals), service, chance, scatter), np.diff(work), said)


def _check(seconds: float, maximum: int, service: float) -> None:
    if seconds * maximum / service > MOST_REQUESTS:
        raise LoadError(
            f"{maximum} workers serve more than {MOST_REQUESTS:g} requests of {service:g} s in {seconds:g} s; "
            "simulate a shorter time, or requests that take longer"
        )


def steady(erlangs: float, seconds: float, service: float, seed: int) -> Load:
    """A constant load, for measuring."""
    return varying("steady", np.full(int(np.ceil(seconds)), erlangs), seconds, service, seed)


def varying(name: str, erlangs: Floats, seconds: float, service: float, seed: int) -> Load:
    """A load with this intensity in each second, for measuring."""
    chance = np.random.default_rng(seed)
    arrivals = _within(chance.poisson(erlangs / service), 1.0, chance)
    arrivals = arrivals[arrivals < seconds]
    return Load(name, seconds, arrivals, _drawn(len(arrivals), service, chance), erlangs, "")


# --- shapes -------------------------------------------------------------------------------------------------------------------


def _steps(seconds: int, chance: np.random.Generator) -> Floats:
    """2 Erlangs, and 12 for a third of every ten minutes. The phase is random."""
    at = np.arange(seconds) + chance.integers(600)
    return np.where(at % 600 < 200, 12.0, 2.0)


def _spikes(seconds: int, _chance: np.random.Generator) -> Floats:
    """3 Erlangs, and 18 for a minute every ten minutes by the clock, as a cron job causes."""
    return np.where(np.arange(seconds) % 600 < 60, 18.0, 3.0)


def _diurnal(seconds: int, chance: np.random.Generator) -> Floats:
    """A wave between 3 and 16 Erlangs: a day in twenty minutes. The phase is random."""
    at = np.arange(seconds) + chance.integers(1200)
    return np.asarray(9.5 - 6.5 * np.cos(2 * np.pi * at / 1200))


def _noise(seconds: int, chance: np.random.Generator) -> Floats:
    """About 8 Erlangs with nothing to learn: a level that varies by a third over about 20 s, and random bursts of a few seconds,
    about one in two minutes."""
    keep = np.exp(-1 / 20)
    wander, level = np.zeros(seconds), 0.0
    for second, push in enumerate(chance.normal(0, np.sqrt(1 - keep**2), seconds).tolist()):
        level = keep * level + push
        wander[second] = level
    erlangs = 8 * np.exp(0.35 * wander - 0.35**2 / 2)
    for begin in np.flatnonzero(chance.random(seconds) < 1 / 120).tolist():
        erlangs[begin : begin + int(chance.integers(3, 9))] += chance.uniform(4, 12)
    return np.asarray(erlangs)


def _change(seconds: int, chance: np.random.Generator) -> Floats:
    """A load that changes its pattern: steps of one period, steps of another period and twice as high, none, then a wave."""
    at, part = np.arange(seconds), max(seconds // 4, 1)
    shift = chance.integers(180)
    first = np.where((at + shift) % 180 < 60, 10.0, 3.0)
    second = np.where((at + shift) % 110 < 40, 18.0, 4.0)
    third = np.full(seconds, 6.0)
    fourth = 10 - 6 * np.cos(2 * np.pi * at / 400)
    return np.asarray(np.choose(np.minimum(at // part, 3), [first, second, third, fourth]))


SHAPES: Mapping[str, Callable[[int, np.random.Generator], Floats]] = MappingProxyType(
    {"steps": _steps, "spikes": _spikes, "diurnal": _diurnal, "noise": _noise, "change": _change}
)
"""Synthetic loads: (seconds, chance) -> Erlangs of each second."""


# --- traces -------------------------------------------------------------------------------------------------------------------


def fitted(trace: Trace, seconds: float, maximum: int, service: float, seed: int) -> Load:
    """A piece of a trace, as long as asked for or as long as the trace, scaled to a pool of at most `maximum` workers.

    Arrivals keep their pattern. The trace is played faster until its busiest minutes (of play) offer `PEAK` Erlangs a worker with
    requests of `service` seconds on average. It is never played so fast that it ends before `seconds`; its requests take longer
    instead. Recorded service times keep their proportions. Counts whose rows would last longer than `LONGEST_ROW` are played faster
    than that and thinned out; within a row requests come at random. The seed picks the piece.
    """
    _check(seconds, maximum, service)
    chance = np.random.default_rng([seed, len(trace.times)])
    begin = float(trace.times[0])
    span = float(trace.times[-1]) - begin + trace.step
    weights = np.ones(len(trace.times)) if trace.counts is None else trace.counts
    usual = 1.0 if trace.services is None else float(trace.services.mean())
    if span <= 0 or weights.sum() <= 0 or usual <= 0:
        raise LoadError(f"{trace.name}: nothing arrives, or everything at one time; give a file with arrivals at different times")
    work = weights if trace.services is None else trace.services / usual
    fastest = max(span / seconds, 1e-9)
    slowest = min(trace.step / LONGEST_ROW if trace.step else fastest / MOST_SLOWER, fastest)

    def takes(speed: float) -> float:
        """Mean service time at which the busiest minutes reach the wanted peak when played `speed` times as fast."""
        bins = max(int(span / (60 * speed)), 1)
        width = span / bins
        minutes = np.bincount(np.minimum(((trace.times - begin) / width).astype(np.int64), bins - 1), work, bins)
        busiest = float(np.quantile(minutes, BUSIEST)) or float(minutes.max())
        return PEAK * maximum * (width / speed) / busiest

    speed, mean, kept = fastest, takes(fastest), 1.0
    if mean < service:
        speed, mean, kept = slowest, service, takes(slowest) / service
        if kept > 1.0:
            low, high, kept = slowest, fastest, 1.0
            for _ in range(25):
                speed = (low * high) ** 0.5
                low, high = (speed, high) if takes(speed) > service else (low, speed)
    length = min(seconds, span / speed)
    offset = float(chance.uniform(0, max(span / speed - length, 0.0)))
    at = (trace.times - begin) / speed - offset
    inside = (at >= -trace.step / speed) & (at < length)
    at, services = at[inside], None if trace.services is None else trace.services[inside] * (mean / usual)
    if trace.counts is not None:
        counts = trace.counts[inside]
        whole = np.floor(counts).astype(np.int64)
        whole += chance.random(len(whole)) < counts - whole
        thinned = whole if kept >= 1 else chance.binomial(whole, kept)
        at = np.repeat(at, thinned) + chance.random(int(thinned.sum())) * trace.step / speed
        at = np.sort(at[(at >= 0) & (at < length)])
    elif kept < 1:
        chosen = chance.random(len(at)) < kept
        at, services = at[chosen], None if services is None else services[chosen]
    if services is None:
        services = _drawn(len(at), mean, chance)
    if len(at) < 2:
        raise LoadError(f"{trace.name}: fewer than two requests arrive in {length:g} s of it; give a longer or busier trace")
    own = "drawn" if trace.services is None else "as recorded, to scale"
    scaled = f"{speed:.3g} times as fast; {kept:.3g} of its requests; service times {own}, {mean:.3g} s on average"
    return Load(trace.name, length, at, services, _smoothed(at, services, length), scaled)


def _smoothed(arrivals: Floats, services: Floats, seconds: float) -> Floats:
    """[seconds] work that arrives in a second, as a mean over ten seconds, which leaves little randomness in it."""
    size = int(np.ceil(seconds))
    work = np.bincount(np.minimum(arrivals.astype(np.int64), size - 1), services, size)
    summed = np.concatenate([[0.0], np.cumsum(work)])
    last, first = np.minimum(np.arange(size) + 6, size), np.maximum(np.arange(size) - 4, 0)
    return np.asarray((summed[last] - summed[first]) / (last - first))


def _within(counts: NDArray[np.int64], step: float, chance: np.random.Generator) -> Floats:
    """Times of the counted requests, at random within each interval."""
    begins = np.repeat(np.arange(len(counts)) * step, counts)
    return np.sort(begins + chance.random(len(begins)) * step)


def _drawn(count: int, mean: float, chance: np.random.Generator, scatter: float = SCATTER) -> Floats:
    """Log-normal service times."""
    return np.asarray(chance.lognormal(np.log(mean) - scatter**2 / 2, scatter, count))
