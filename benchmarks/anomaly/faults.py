"""The faults of the anomaly campaign: their kinds and strengths, and how each is injected into a pool and removed again.

`Injector` records the truth: which fault was in which worker, and when. It never injects two faults into one pool at a time, and
leaves every third pool alone.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nicety.scheduler.pools.sensing.signals import read_stat

from .pool_program import ANSWER
from .pools import PROC, CampaignPool, Character
from .truth import ANTAGONIST, LEAKS, LIGHT, SECOND, Fault, Process

HUNGRY = ("spin", "starved")
"""Kinds that use a whole CPU: one of each at a time, because otherwise all pools would be their victims."""

NEEDS_CPU = 0.015
"""Least CPU seconds of a request of a worker that can be starved. Chosen: the kernel lets a worker that needs less run in
between."""

SLOW_SHARE = 0.1
"""Least cores, or share of its time, that a slow worker takes; one that takes less is `LIGHT`, because nobody would notice.
Chosen."""

SLOW_TIMES = 4.0, 12.0
"""Slow workers take this many times the CPU, or the time for the backend. A worker that is slow by CPU takes a larger multiple if
it needs that to use `SLOW_SHARE` to 3.5 times `SLOW_SHARE`, because its siblings use little CPU. Chosen."""

LIGHT_SHARE = 0.25
"""Share of slow workers that are `LIGHT`. Chosen."""

OF_SUPERVISORS = ("crash-loop", "zombie")
BLAMED = 160.0
"""Kinds that are reported of a pool's supervisor, and seconds until the pool may have the same kind again. Such an incident stays
open for up to 150 s, and no second one of its kind is reported meanwhile."""

REST = 30.0
"""Seconds that a pool rests between two faults. Chosen."""

SETTLED = 25.0
"""Seconds that all workers of a pool must have existed before one becomes faulty. Chosen: young workers are judged differently."""


@dataclass(slots=True)
class _Active:
    """A fault that was injected and has not ended."""

    id: int
    kind: str
    variant: str
    strength: float
    pool: CampaignPool
    slots: list[int]
    workers: list[Process]
    seconds: float
    given: int  # monotonic ns
    onset: int = 0  # 0: it has not taken effect yet
    half: int = 0
    headroom: float = 0.0
    others: list[Process] = field(default_factory=list)
    hogs: list[subprocess.Popen[bytes]] = field(default_factory=list)
    antagonists: list[Process] = field(default_factory=list)
    ended: int = 0


class Injector:
    """Puts `count` faults of `kinds` into the pools, evenly over the time from `begin` to `end` (monotonic ns)."""

    def __init__(
        self,
        pools: Sequence[CampaignPool],
        kinds: Sequence[str],
        count: int,
        begin: int,
        end: int,
        folder: Path,
        rng: random.Random,
        most: int,
    ) -> None:
        self._pools = [pool for number, pool in enumerate(pools) if number % 3]
        self._random, self._folder = rng, folder
        self._begin, self._end, self._count, self._most = begin, end, count, most
        waiting = [kinds[number % len(kinds)] for number in range(count)]
        rng.shuffle(waiting)
        self._waiting = waiting
        self._given = 0  # faults that were begun and not failed
        self._last = 0  # number of the latest
        self._active: list[_Active] = []
        self._free_at: dict[str, int] = {}
        self._blamed_until: dict[tuple[str, str], int] = {}  # by pool and kind
        self.failed: list[str] = []

    @property
    def pools_with_faults(self) -> set[str]:
        """Pools that have a fault now, or are about to."""
        return {active.pool.name for active in self._active}

    def step(self, now: int) -> list[Fault]:
        """Call once a second: inject faults that are due and end those that have lasted; returns the faults that ended."""
        over = []
        for active in list(self._active):
            self._follow(active)
            if not active.onset and now - active.given > 15 * SECOND:
                self.failed.append(f"{active.kind} in {active.pool.name} has not begun")
                self._finish(active, now)
                self._waiting.append(active.kind)
                self._given -= 1
            elif active.onset and now >= max(active.onset + active.seconds * SECOND, active.half + 3 * SECOND):
                over.append(self._finish(active, now))
        if now < self._end:
            due = self._count * (now - self._begin) / (self._end - self._begin)
            while self._waiting and self._given < due and len(self._active) < self._most and self._give(now):
                pass
        return over

    def close(self, now: int) -> list[Fault]:
        """End all faults; returns those that had taken effect."""
        return [fault for active in list(self._active) for fault in [self._finish(active, now)] if fault.onset]

    # --- beginning ------------------------------------------------------------------------------------------------------------

    def _give(self, now: int) -> bool:
        """Inject the next fault that can be injected now; False if none can."""
        hungry = {active.kind for active in self._active if active.kind in HUNGRY}
        free = [
            pool
            for pool in self._pools
            if pool.name not in self.pools_with_faults
            and now >= self._free_at.get(pool.name, 0)
            and (pool.event is None or pool.event.what == "step")
            and pool.settled(SETTLED)
        ]
        self._random.shuffle(free)
        # a kind that fewer pools can have goes first, and one that has to wait does not hold the others up
        for kind in sorted(dict.fromkeys(self._waiting), key=lambda kind: (kind not in HUNGRY, self._waiting.index(kind))):
            if kind in hungry:
                continue
            light = self._random.random() < LIGHT_SHARE
            for pool in free:
                if kind in OF_SUPERVISORS and now < self._blamed_until.get((pool.name, kind), 0):
                    continue
                if kind == "starved" and pool.character.cpu < NEEDS_CPU:
                    continue
                if kind == "slow" and not slow_variants(pool.character, light=light):
                    continue
                self._waiting.remove(kind)
                self._begin_in(pool, kind, now)
                return True
        return False

    def _begin_in(self, pool: CampaignPool, kind: str, now: int) -> None:
        chance = self._random
        slots = chance.sample(range(pool.workers), 3 if kind == "deadlock" and pool.workers > 4 and chance.random() < 0.4 else 1)
        if kind == "deadlock" and len(slots) == 1:
            slots = chance.sample(range(pool.workers), 2)
        workers = [worker for slot in slots if (worker := pool.worker(slot)) is not None]
        variant, strength, order = self._drawn(kind, pool.character)
        self._given += 1
        self._last += 1
        active = _Active(self._last, kind, variant, strength, pool, slots, workers, chance.uniform(62, 75), now)
        self._active.append(active)
        pool.held = True
        if kind in LEAKS:
            # the limit that somebody set: half of what is left until then is gone after 45 to 110 s
            seconds = chance.uniform(45, 110)
            active.headroom = 2 * seconds * strength
            active.seconds = seconds
        order |= {"kind": kind, "variant": variant, "strength": strength}
        if kind == "deadlock":
            names = [str(self._folder / f"{active.id}-{now % 1_000_000}-{slot}.lock") for slot in slots]
            for number, slot in enumerate(slots):
                pool.order(slot, order | {"ring": names, "place": number})
            return
        if kind == "starved":
            cpu = chance.choice(sorted(os.sched_getaffinity(0)))
            self._start_hogs(active, cpu)
            order["cpu"] = cpu
        if variant == "worker":  # the supervisor does not wait for a worker that has ended
            pool.tell(do="unreaped", slot=slots[0])
            pool.tell(do="kill", slots=slots)
            active.onset = time.monotonic_ns()
            return
        pool.order(slots[0], order)

    def _drawn(self, kind: str, character: Character) -> tuple[str, float, dict[str, Any]]:
        """Draw (variant, strength, the rest of the worker's order) for a fault of this kind."""
        chance = self._random

        def between(low: float, high: float) -> float:
            return float(low * (high / low) ** chance.random())

        if kind == "leak":
            strength = between(0.3, 5.0)
            return ("slow" if strength < 1.0 else "fast"), strength, {}
        if kind in LEAKS:
            strength = between(0.5, 6.0) if kind == "fd-leak" else between(0.3, 2.0)
            return "steady", strength, {}
        if kind == "spin":
            return ("bare", 0.0, {}) if chance.random() < 0.6 else ("pausing", 0.0, {"pause": between(0.05, 1.0)})
        if kind == "stuck":
            return chance.choice(("sleep", "pipe", "lock")), 0.0, {}
        if kind == "deadlock":
            return chance.choice(("flock", "mixed", "pipe")), 0.0, {}
        if kind == "slow":
            variant = chance.choice(slow_variants(character, light=False) or [LIGHT])
            if variant == "cpu":
                return variant, between(SLOW_SHARE, 3.5 * SLOW_SHARE) / (character.rate * character.cpu), {}
            return variant, between(*SLOW_TIMES), {}
        if kind == "starved":
            return "pinned", float(chance.choice((1, 2, 3))), {}
        if kind == "fork-storm":
            life = between(0.005, 0.5)  # a program that fails at once, or one that tries for a while
            return ("short" if life < 0.05 else "long"), between(8.0, 30.0), {"life": life}
        if kind == "switch-storm":
            return "pipes", between(700.0, 4000.0), {}
        if kind == "crash-loop":
            ready = chance.random() < 0.5
            life, delay = between(0.1, 3.0), between(0.1, 2.0)
            return ("ready" if ready else "never ready"), 0.0, {"life": life, "delay": delay, "ready": ready, "status": 3}
        if chance.random() < 0.35:
            return "worker", 1.0, {}
        return "children", float(round(between(1, 20))), {}

    def _start_hogs(self, active: _Active, cpu: int) -> None:
        for _ in range(int(active.strength)):
            program, seconds = str(Path(__file__).with_name(ANTAGONIST)), str(round(active.seconds + 30))
            hog = subprocess.Popen([sys.executable, "-I", program, str(cpu), seconds], stdin=subprocess.DEVNULL)
            active.hogs.append(hog)
            stat = read_stat(PROC, hog.pid)
            if stat is not None:
                active.antagonists.append((hog.pid, stat.start_ticks))

    # --- lasting and ending ---------------------------------------------------------------------------------------------------

    def _follow(self, active: _Active) -> None:
        """Record when the fault took effect, and which other processes it concerns by now."""
        pool = active.pool
        if not active.onset:
            began = [pool.board.state(slot)[5] for slot in active.slots]
            if all(began):
                active.onset = max(began)
                if active.headroom:
                    active.half = active.onset + round(active.headroom / 2 / active.strength * SECOND)
                for pid in pool.board.read(active.slots[0], ANSWER).get("pids", ()) if active.kind == "zombie" else ():
                    stat = read_stat(PROC, pid)
                    if stat is not None:
                        active.others.append((pid, stat.start_ticks))
        if active.kind == "crash-loop":
            worker = pool.worker(active.slots[0])
            if worker is not None and worker not in active.workers:
                active.workers.append(worker)

    def _finish(self, active: _Active, now: int) -> Fault:
        pool = active.pool
        for slot in active.slots:
            pool.calm(slot)
        if active.variant == "worker":
            pool.tell(do="unreaped", slot=-1)
        pool.tell(do="kill", slots=active.slots)
        for hog in active.hogs:
            hog.kill()
            hog.wait()
        self._active.remove(active)
        pool.held = False
        self._free_at[pool.name] = now + round(REST * SECOND)
        if active.kind in OF_SUPERVISORS:
            self._blamed_until[pool.name, active.kind] = now + round(BLAMED * SECOND)
        return Fault(
            id=active.id,
            kind=active.kind,
            variant=active.variant,
            strength=round(active.strength, 3),
            pool=pool.name,
            workers=active.workers,
            master=pool.master,
            others=active.others,
            antagonists=active.antagonists,
            headroom=round(active.headroom, 3),
            half=active.half,
            onset=active.onset,
            end=now,
        )


def slow_variants(character: Character, *, light: bool) -> list[str]:
    """The ways in which a worker of this character can be noticeably slow; with `light`, too little to be noticed."""
    variants = []
    if character.rate * character.cpu * SLOW_TIMES[1] >= SLOW_SHARE / 2:
        variants.append("cpu")
    if character.tells_busy and character.rate * character.backend * SLOW_TIMES[0] >= SLOW_SHARE:
        variants.append("backend")  # a worker that does not report whether it is busy seems to sleep longer
    return ([] if variants else [LIGHT]) if light else variants
