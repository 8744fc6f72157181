"""Seeded pools of workers that are healthy in many ways, and faults to put into any worker's values. For calibrating and testing
scorers.

Knows what workers do, not how they are scored. The characters are those that fool detectors: bursts, idleness, garbage
collection, warm-up, load steps, deploys, uneven balancing, long computations, large requests, many connections at once, executors
of threads that fill up, programs that start others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..models.anomaly.evidence import CHANNELS, MIB
from ..models.features import Floats
from ..models.identity import ProcId
from ..models.records import Anomaly
from .quotas import SYSTEM

CHARACTERS = (
    "steady",
    "bursty",
    "idle",
    "sawtooth",
    "warm-up",
    "step",
    "deploy",
    "uneven",
    "compute",
    "large",
    "connections",
    "threads",
    "spawning",
)
"""Ways to be healthy that `healthy_pool` knows."""

FAULTS = (
    Anomaly.LEAK,
    Anomaly.SPIN,
    Anomaly.STUCK,
    Anomaly.STARVED,
    Anomaly.FD_LEAK,
    Anomaly.THREAD_LEAK,
    Anomaly.SLOW,
    Anomaly.SWITCH_STORM,
    Anomaly.FORK_STORM,
)
"""Kinds that `faulty` can put into a worker."""

_AT = {name: column for column, name in enumerate(CHANNELS)}


@dataclass(frozen=True, slots=True)
class WorkerTick:
    """The ready workers of all pools at one tick."""

    keys: Sequence[ProcId]
    pools: Sequence[str]  # [len(keys)]
    values: Floats  # [len(keys), len(CHANNELS)]
    owners: Sequence[str] = ()  # [len(keys)] as `tenancy.owner_name`; (): all are the system's

    def owner(self, worker: int) -> str:
        """The owner of the worker at this place."""
        return self.owners[worker] if self.owners else SYSTEM


def healthy_pool(
    character: str, workers: int, ticks: int, interval: float, rng: np.random.Generator, pool: str = "pool", first_pid: int = 100
) -> list[WorkerTick]:
    """Ticks of one healthy pool of this character. The same generator state gives the same pool."""
    if character not in CHARACTERS:
        raise ValueError(f"no character {character!r}; there are {', '.join(CHARACTERS)}")
    lives = [_Life(rng, character, float("-inf")) for _ in range(workers)]
    keys = [ProcId(first_pid + i, 1) for i in range(workers)]
    load = _load(character, ticks, interval, rng)
    replace = {}
    if character == "deploy":  # from the middle on, one worker every 1.3 s
        replace = {round(ticks / 2 + i * 1.3 / interval): i for i in range(workers)}
    result = []
    for tick in range(ticks):
        if tick in replace:
            i = replace[tick]
            lives[i], keys[i] = _Life(rng, character, tick * interval), ProcId(keys[i].pid + 10_000, 2 + tick)
        # an uneven balancer fills the first worker before it uses the next
        shares = np.clip(load[tick] * workers - np.arange(workers), 0, 1) if character == "uneven" else np.full(workers, load[tick])
        queued = max(float(load[tick]) - 0.85, 0.0) * 4 * rng.random()
        rows = [life.tick(tick * interval, float(share), interval, queued, rng) for life, share in zip(lives, shares, strict=True)]
        result.append(WorkerTick(tuple(keys), (pool,) * workers, np.array(rows)))
    return result


def together(pools: Sequence[Sequence[WorkerTick]]) -> list[WorkerTick]:
    """Several pools side by side."""
    return [
        WorkerTick(
            [key for part in parts for key in part.keys],
            [pool for part in parts for pool in part.pools],
            np.concatenate([part.values for part in parts]),
            [part.owner(at) for part in parts for at in range(len(part.keys))],
        )
        for parts in zip(*pools, strict=True)
    ]


def faulty(kind: Anomaly, values: Floats, interval: float, strength: float = 1.0) -> Floats:
    """`values` [ticks, len(CHANNELS)] of a healthy worker as they would be with a fault since the first tick.

    Strength 1 is beyond dispute: a leak of 3 MiB a second or 2 % of the level a second, whichever is more, 4 descriptors
    or 2 threads a second, a few percent of the CPU it wants, 8 times the CPU for the same work, 5,000 switches or 25 processes a
    second. Unknown values stay unknown.
    """
    result = values.copy()
    seconds = np.arange(1, len(values) + 1) * interval
    if kind in (Anomaly.FD_LEAK, Anomaly.THREAD_LEAK):
        name, speed = ("fds", 4.0) if kind is Anomaly.FD_LEAK else ("threads", 2.0)
        result[:, _AT[name]] += np.floor(strength * speed * seconds)
        return result
    if kind is Anomaly.SWITCH_STORM:
        result[:, _AT["timeslices"]] += strength * 5000
        result[:, _AT["cpu"]] = np.minimum(result[:, _AT["cpu"]] + 0.1 * strength, 1.0)
        return result
    if kind is Anomaly.FORK_STORM:
        result[:, _AT["forks"]] += np.round(strength * 25 * interval) / interval
        result[:, _AT["cpu"]] = np.minimum(result[:, _AT["cpu"]] + 0.1 * strength, 1.0)
        return result
    if kind is Anomaly.SLOW:  # unfinished work waits: the balancer gives it as much as before
        times = 1.0 + 7.0 * strength
        demand = values[:, _AT["cpu"]] + values[:, _AT["wait"]]
        done = np.minimum(1.0, 1.0 / np.maximum(times * demand, 1e-9))  # share of its work
        for name in ("cpu", "wait"):
            result[:, _AT[name]] *= times * done
        for name in ("timeslices", "chars"):
            result[:, _AT[name]] *= done
        result[:, _AT["busy"]] = np.minimum(values[:, _AT["busy"]] * times, 1.0)
        return result
    if kind is Anomaly.LEAK:
        result[:, _AT["rss"]] += strength * max(3 * MIB, 0.02 * float(np.nanmin(values[:, _AT["rss"]], initial=1e15))) * seconds
        return result
    if kind not in FAULTS:
        raise ValueError(f"cannot put {kind} into a worker; there are {', '.join(FAULTS)}")
    cpu, wait, timeslices = {
        Anomaly.SPIN: (0.97, 0.03, 20.0),
        Anomaly.STUCK: (0.0, 0.0, 0.0),
        Anomaly.STARVED: (1.0 - 0.97 * strength, 0.97 * strength, 10.0),
    }[kind]
    for name, value in (("cpu", cpu), ("wait", wait), ("timeslices", timeslices), ("busy", 1.0)):
        result[:, _AT[name]] = np.where(np.isnan(values[:, _AT[name]]), np.nan, value)
    result[:, _AT["chars"]] *= 1.0 - 0.97 * strength if kind is Anomaly.STARVED else 0.0
    return result


def _load(character: str, ticks: int, interval: float, rng: np.random.Generator) -> Floats:
    """Share of the pool's capacity that is demanded, by tick."""
    base = np.full(ticks, 0.55)
    if character == "idle":
        return np.full(ticks, 0.004)
    if character == "uneven":
        base[:] = 0.35
    if character == "compute":
        base[:] = 0.8
    if character == "step":
        base[: ticks // 2], base[ticks // 2 :] = 0.25, 0.95
    if character == "bursty":
        at, high = 0, False
        while at < ticks:
            length = max(int(rng.uniform(4, 25) / interval), 1)
            base[at : at + length] = 1.0 if high else 0.03
            at, high = at + length, not high
    return np.asarray(np.clip(base * rng.gamma(30, 1 / 30, ticks), 0, 1))


class _Life:
    """One healthy worker."""

    def __init__(self, rng: np.random.Generator, character: str, born: float) -> None:
        self._character = character
        self._born = born
        self._level = rng.uniform(35, 60) * MIB
        self._slowness = rng.uniform(6, 14)  # seconds of its warm-up
        self._period, self._phase = rng.uniform(6, 40), rng.uniform(0, 40)
        self._amplitude = rng.uniform(15, 50) * MIB
        self._growth = rng.uniform(0.7, 1.3)
        self._busy_for = 0.0  # seconds left of a long computation or of a large request
        self._beat = rng.uniform(0, 1)
        self._threads = 4.0  # of its executor, which grows with concurrent work, by up to 28
        self._held = 0.0  # open connections beyond the usual ones
        self._starved_until = 0.0  # seconds; until then clients come in

    def tick(self, at: float, load: float, interval: float, queued: float, rng: np.random.Generator) -> list[float]:
        """The values of one tick in the order of `CHANNELS`."""
        young = at - self._born < 4
        tasks = float(rng.poisson(20 * load * interval))
        cpu = min(tasks * 0.04 * rng.gamma(8, 1 / 8) / interval, 1.0)
        extra = 0.0
        if self._character in ("compute", "large"):
            often = 0.3 if self._character == "compute" else 0.012
            if self._busy_for <= 0 and rng.random() < often * interval:
                self._busy_for = float(rng.exponential(2.0) if self._character == "compute" else rng.uniform(2, 6))
            if self._busy_for > 0:
                self._busy_for -= interval
                cpu, tasks = 1.0, 1.0 if self._busy_for <= 0 else 0.0
                extra = 90 * MIB * rng.uniform(0.8, 1.0) if self._character == "large" else 0.0
        if young:
            cpu = max(cpu, 0.8)
        self._beat += interval
        beats, self._beat = divmod(self._beat, 1.0)
        wait = cpu * float(rng.exponential(0.15))
        if cpu + wait > 1:
            cpu, wait = cpu / (cpu + wait), wait / (cpu + wait)
        return [
            cpu + 0.0002 * beats / interval,
            wait,
            self._rss(at, rng) + extra,
            (6 * tasks + beats) / interval + 3 * cpu,
            8192 * tasks * float(rng.gamma(4, 1 / 4)) / interval,
            min(1.2 * (cpu + wait), 1.0),
            float(12 + rng.poisson(3 * load)) + self._connections(at, interval, rng),
            queued,
            self._executor(at, tasks, rng),
            float(rng.binomial(round(tasks), 0.3)) / interval if self._character == "spawning" else 0.0,
        ]

    def _connections(self, at: float, interval: float, rng: np.random.Generator) -> float:
        """Connections: a crowd comes within seconds, stays, and leaves."""
        if self._character != "connections":
            return 0.0
        if at >= self._starved_until and rng.random() < interval / 60:
            self._starved_until = at + float(rng.uniform(2, 10))
        come = rng.poisson(25 * interval) if at < self._starved_until else 0
        self._held = float(self._held + come - rng.binomial(round(self._held), min(interval / 15, 1.0)))
        return self._held

    def _executor(self, at: float, tasks: float, rng: np.random.Generator) -> float:
        """Threads: an executor starts one for work that finds all others busy, up to 32, and keeps it."""
        if self._character == "threads" and at > 30 + self._phase:
            self._threads = min(self._threads + float(rng.binomial(round(tasks), 0.05 * self._growth)), 32.0)
        return self._threads

    def _rss(self, at: float, rng: np.random.Generator) -> float:
        level = self._level + rng.normal(0, 0.1) * MIB
        age = at - self._born
        if age < 30 and self._character == "deploy":
            level *= 0.3 + 0.7 * min(age / 3, 1) * (0.4 + 0.6 * (1 - float(np.exp(-age / 8))))
        if self._character == "sawtooth":
            level += self._amplitude * ((at + self._phase) % self._period) / self._period
        if self._character == "warm-up":
            level += 160 * MIB * self._growth * (1 - float(np.exp(-at / self._slowness)))
        if self._character == "step":
            level += 12 * MIB * self._growth * min(max(at - 40 - self._phase / 8, 0.0) / 3, 1.0)
        return level
