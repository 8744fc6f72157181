"""How others size a pool, written from their documentation and sources, with their defaults. Pure.

A worker takes one request at a time, so concurrency targets are of one. Inputs of a rule that a simulated pool lacks (memory,
missing pods) are left out. `at_least` and `at_most` are the pool's limits. Some of these rules were made for another use: a table
shows what a rule does here, not how good it is where it belongs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

from .queueing import PoolSeen, SizeRule

EPSILON = 1e-9
"""Subtracted before rounding up, so that 2.8 / 0.7 gives 4 on every machine. Chosen, above the rounding error of a division."""


def _up(value: float) -> int:
    return math.ceil(value - EPSILON)


class Fixed:
    """Always the same size."""

    wants_workers = False
    period = 1.0

    def __init__(self, workers: int) -> None:
        self.name = f"fixed-{workers}"
        self.workers = workers

    def size(self, _seen: PoolSeen) -> int:
        """The fixed size."""
        return self.workers


# --- uWSGI: cheaper algorithms, asked by its master every second --------------------------------------------------------------


class _Cheaper:
    """What the algorithms share: a shrink ends the oldest idle worker, and waits until one is idle."""

    period = 1.0
    wants_workers = False

    def __init__(self, at_least: int, at_most: int) -> None:
        self._low, self._high = at_least, at_most

    def size(self, seen: PoolSeen) -> int:
        """The size after `change`."""
        change = self.change(seen)
        if change < 0 and seen.idle == 0:
            return seen.size
        return seen.size + change

    def change(self, seen: PoolSeen) -> int:
        """Workers to add, or -1."""
        raise NotImplementedError


class UwsgiSpare(_Cheaper):
    """Keeps one spare worker. A starting worker is not busy, so it counts as spare."""

    name = "uwsgi-spare"
    OVERLOAD = 3
    STEP = 1

    def __init__(self, at_least: int, at_most: int) -> None:
        super().__init__(at_least, at_most)
        self._overloaded = self._idle = 0

    def change(self, seen: PoolSeen) -> int:
        """See `_Cheaper`."""
        busy = seen.ready - seen.idle
        if busy < seen.size:
            self._overloaded = max(0, self._overloaded - 1)
        else:
            self._overloaded += 1
            self._idle = 0
        if seen.size < self._high and self._overloaded >= self.OVERLOAD:
            self._overloaded = 0
            return self.STEP
        if self._overloaded == 0:
            if seen.size - busy == 1:
                return 0
            self._idle += 1
            if seen.size > self._low and self._idle % 3 == 0:
                return -1
        return 0


class UwsgiSpare2(_Cheaper):
    """Keeps `at_least` workers idle; removes one after ten seconds with more."""

    name = "uwsgi-spare2"
    IDLE = 10
    STEP = 1

    def __init__(self, at_least: int, at_most: int) -> None:
        super().__init__(at_least, at_most)
        self._calm = 0

    def change(self, seen: PoolSeen) -> int:
        """See `_Cheaper`."""
        idle = seen.size - (seen.ready - seen.idle)
        if idle < self._low:
            self._calm = 0
            return max(min(self._low - idle, self.STEP, self._high - seen.size), 0)
        if idle == self._low:
            self._calm = 0
            return 0
        self._calm += 1
        if self._calm < self.IDLE:
            return 0
        self._calm = 0
        return -1 if seen.size > self._low else 0


class UwsgiBacklog(_Cheaper):
    """Sizes by the length of the accept queue."""

    name = "uwsgi-backlog"
    BACKLOG = 3
    STEP = 1

    def change(self, seen: PoolSeen) -> int:
        """See `_Cheaper`."""
        if seen.queued > self.BACKLOG:
            return self.STEP
        return -1 if seen.queued < self.BACKLOG and seen.size > self._low else 0


class UwsgiBusyness(_Cheaper):
    """Sizes by the share of time that workers were busy, credited at the end of a request; the accept queue triggers
    emergencies."""

    name = "uwsgi-busyness"
    wants_workers = True
    CYCLE = 3.0
    MOST, LEAST = 50.0, 25.0
    MULTIPLIER, PENALTY = 10, 2
    ALERT, ALERT_MULTIPLIER, ALERT_STEP, NONZERO = 33, 3, 1, 60.0
    STEP = 1

    def __init__(self, at_least: int, at_most: int) -> None:
        super().__init__(at_least, at_most)
        self._multiplier = self.MULTIPLIER
        self._tolerated = self._emergency = 0
        self._next = self.CYCLE * self.MULTIPLIER
        self._checked = self._cheaped = 0.0
        self._last = ""
        self._waiting_since: float | None = None
        self._was_busy: dict[int, int] = {}
        self._finished: dict[int, float] = {}

    def change(self, seen: PoolSeen) -> int:
        """See `_Cheaper`."""
        now = seen.at
        staying = [worker for worker in seen.workers if not worker.leaving]
        for worker in staying:
            self._was_busy[worker.id] = self._was_busy.get(worker.id, 0) + worker.busy
        if now - self._checked < self.CYCLE:
            return self._between(seen)
        self._checked = now
        shares = []
        for worker in staying:
            done = worker.finished_seconds - self._finished.get(worker.id, 0.0)
            share = min(100.0, 100.0 * done / self.CYCLE)
            shares.append(100.0 if done == 0 and self._was_busy[worker.id] > 0 else share)
        self._finished = {worker.id: worker.finished_seconds for worker in staying}
        self._was_busy = {}
        mean = sum(shares) / len(shares)
        if mean > self.MOST:
            self._tolerated = 0
            more = min(self.STEP, self._high - seen.size)
            if more > 0:
                self._last = "spawn"
                if (now - self._cheaped) / self.CYCLE <= self._multiplier:
                    self._multiplier += self.PENALTY
                elif self._multiplier > self.MULTIPLIER:
                    self._multiplier -= 1
                self._put_off(now)
            return max(more, 0)
        if seen.queued > self.ALERT and seen.size < self._high:
            return self._alert(seen)
        if seen.size == 1:
            return 0
        if mean < self.LEAST:
            self._tolerated = 0
            if seen.size > self._low and now >= self._next:
                if self._last == "cheap" and self._multiplier > self.MULTIPLIER:
                    self._multiplier -= 1
                self._put_off(now)
                self._cheaped, self._last = now, "cheap"
                self._emergency = max(0, self._emergency - 1)
                return -1
            return 0
        self._emergency = max(0, self._emergency - 1)
        self._tolerated += 1
        if self._tolerated >= 3:
            self._put_off(now)
        else:
            self._next += self.CYCLE
        return 0

    def _between(self, seen: PoolSeen) -> int:
        if seen.queued > self.ALERT and seen.size < self._high:
            return self._alert(seen)
        if seen.queued == 0:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = seen.at
        elif seen.at - self._waiting_since >= self.NONZERO:
            self._waiting_since = seen.at
            return self._alert(seen)
        return 0

    def _alert(self, seen: PoolSeen) -> int:
        self._multiplier, self._last = self.MULTIPLIER, "spawn"
        more = max(min(self.ALERT_STEP, self._high - seen.size), 0)
        self._put_off(seen.at)
        self._emergency += more
        return more

    def _put_off(self, now: float) -> None:
        self._next = now + self.CYCLE * (self.ALERT_MULTIPLIER if self._emergency > 0 else self._multiplier)


# --- other process managers ---------------------------------------------------------------------------------------------------


class Celery:
    """As many workers as messages taken from the broker, at once; fewer after 30 s without growth, never before the first growth.

    Celery decides on each message; here it decides ten times a second. It takes at most four times the limit of messages.
    """

    name = "celery"
    period = 0.1
    wants_workers = False
    PREFETCH = 4
    KEEPALIVE = 30.0

    def __init__(self, at_least: int, at_most: int) -> None:
        self._low, self._high = at_least, at_most
        self._grown: float | None = None

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        taken = min(seen.busy + seen.queued, self.PREFETCH * self._high)
        if min(taken, self._high) > seen.size:
            self._grown = seen.at
            return min(taken, self._high)
        wanted = max(taken, self._low)
        if wanted < seen.size and self._grown is not None and seen.at - self._grown > self.KEEPALIVE:
            return max(wanted, seen.size - seen.idle)  # busy ones are not ended
        return seen.size


class PhpDynamic:
    """php-fpm, pm = dynamic: one to three spare children, checked every second; starts double while there are too few."""

    name = "php-dynamic"
    period = 1.0
    wants_workers = False
    MIN_SPARE, MAX_SPARE, FASTEST = 1, 3, 32

    def __init__(self, _at_least: int, at_most: int) -> None:
        self._high = at_most
        self._rate = 1

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        if seen.idle > self.MAX_SPARE:
            self._rate = 1
            return seen.size - 1
        if seen.idle < self.MIN_SPARE:
            if seen.size >= self._high:
                self._rate = 1
                return seen.size
            more = min(self._rate, self.MIN_SPARE - seen.idle, self._high - seen.size)
            self._rate = min(self.FASTEST, 2 * self._rate)
            return seen.size + more
        self._rate = 1
        return seen.size


class PhpOndemand:
    """php-fpm, pm = ondemand: starts a child for a connection that finds none idle; ends one a second after 10 s idle.

    Connections are checked ten times a second here.
    """

    name = "php-ondemand"
    period = 0.1
    wants_workers = True
    IDLE = 10.0

    def __init__(self, _at_least: int, at_most: int) -> None:
        self._high = at_most
        self._arrived = 0
        self._looks = 0

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        came, self._arrived = seen.arrived - self._arrived, seen.arrived
        self._looks += 1
        if seen.queued and not seen.idle:
            return min(seen.size + min(came, seen.queued), self._high)
        if self._looks % 10 == 0 and any(
            worker.ready and not worker.busy and worker.idle_seconds > self.IDLE for worker in seen.workers if not worker.leaving
        ):
            return seen.size - 1
        return seen.size


class Dask:
    """Dask's adaptive scaling: enough workers to finish all tasks in five seconds. Idle workers end after three seconds of
    surplus."""

    name = "dask"
    period = 1.0
    wants_workers = True
    TARGET, WAIT = 5.0, 3
    SAMPLED = 100

    def __init__(self, at_least: int, at_most: int) -> None:
        self._low, self._high = at_least, at_most
        self._counts: dict[int, int] = {}

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        mean = seen.service_seconds or 0.5  # its scheduler's default for an unknown task
        occupancy = (seen.busy + seen.queued) * mean
        tasks = seen.busy + seen.queued
        wanted = min(_up(occupancy / self.TARGET), tasks)
        starting = seen.size - seen.ready
        if wanted < seen.size:
            wanted = max(wanted, seen.size - seen.idle - starting)  # only idle ones can be closed
        wanted = min(max(wanted, self._low), self._high)
        if wanted >= seen.size:
            self._counts = {}
            return wanted
        excess = seen.size - wanted
        cancelled = min(excess, starting)
        idle = sorted(worker.id for worker in seen.workers if worker.ready and not worker.busy and not worker.leaving)
        chosen = idle[: excess - cancelled]
        self._counts = {worker: self._counts.get(worker, 0) + 1 for worker in chosen}
        closed = [worker for worker, count in self._counts.items() if count >= self.WAIT]
        return seen.size - cancelled - len(closed)


class Horizon:
    """Laravel Horizon with one queue: grows to the maximum as soon as a job is ready to run, by one worker every three seconds."""

    name = "horizon"
    period = 3.0
    wants_workers = False
    SHIFT = 1

    def __init__(self, at_least: int, at_most: int) -> None:
        self._low, self._high = at_least, at_most

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        desired = self._high if seen.queued * (seen.service_seconds or 1.0) > 0 else self._low
        if desired > seen.size:
            return min(seen.size + self.SHIFT, desired, self._high)
        if desired < seen.size:
            return max(seen.size - self.SHIFT, self._low, desired)
        return seen.size


# --- for pods -----------------------------------------------------------------------------------------------------------------


class _Stabilized:
    """How the HPA follows a desired size: it shrinks only to the largest of five minutes, and limits the pace."""

    DOWN = 300.0
    PODS, PERCENT = 4, 1.0
    TOLERANCE = 0.1

    def __init__(self) -> None:
        self._desired: deque[tuple[float, int]] = deque()

    def settle(self, at: float, size: int, change: int) -> int:
        """The resulting size."""
        self._desired.append((at, change))
        while self._desired[0][0] <= at - self.DOWN:
            self._desired.popleft()
        if change < size:
            change = min(max(value for _, value in self._desired), size)
        return min(change, size + max(self.PODS, math.floor(self.PERCENT * size)))


class Hpa:
    """Kubernetes' horizontal pod autoscaler by CPU: compares the busy share of ready pods with 80 %.

    Before it grows, pods that are not ready count as idle; if that reverses the decision, nothing happens.
    """

    period = 15.0
    wants_workers = False
    name = "hpa-80"
    TARGET = 0.8

    def __init__(self, _at_least: int, _at_most: int) -> None:
        self._stabilized = _Stabilized()

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        return self._stabilized.settle(seen.at, seen.size, self._desired(seen))

    def _desired(self, seen: PoolSeen) -> int:
        ready = max(seen.ready, 1)
        ratio = min(seen.busy_mean / ready, 1.0) / self.TARGET
        starting = seen.size - seen.ready
        if abs(1 - ratio) <= _Stabilized.TOLERANCE:
            return seen.size
        if ratio < 1 or not starting:
            return _up(ratio * ready)
        ratio *= ready / seen.size
        if ratio < 1 or abs(1 - ratio) <= _Stabilized.TOLERANCE:
            return seen.size
        return _up(ratio * seen.size)


class Kpa:
    """Knative: mean requests in flight over 60 s, at 70 % of a worker; panics when the last 6 s need twice the ready workers."""

    name = "kpa"
    period = 2.0
    wants_workers = False
    TARGET = 0.7
    STABLE, PANIC = 60.0, 6.0
    THRESHOLD = 2.0
    UP, DOWN = 1000.0, 2.0

    def __init__(self, _at_least: int, _at_most: int) -> None:
        self._loads: deque[float] = deque(maxlen=round(self.STABLE / self.period))
        self._panic_since: float | None = None
        self._most = 0
        self._begun = False

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        self._loads.append(seen.load)
        recent = list(self._loads)
        short = recent[-round(self.PANIC / self.period) :]
        ready = max(1, seen.ready)
        stable = _up(sum(recent) / len(recent) / self.TARGET)
        panic = _up(sum(short) / len(short) / self.TARGET)
        if not self._begun:
            self._begun = True
            if ready > 1:
                self._panic_since, self._most = seen.at, seen.size
        if panic / ready >= self.THRESHOLD:
            self._panic_since = seen.at
        elif self._panic_since is not None and self._panic_since + self.STABLE < seen.at:
            self._panic_since, self._most = None, 0
        low, high = math.floor(ready / self.DOWN), math.ceil(self.UP * ready)
        stable, panic = min(max(stable, low), high), min(max(panic, low), high)
        if self._panic_since is None:
            return stable
        self._most = max(self._most, stable, panic)
        return self._most


class Keda:
    """KEDA by the length of a list: a worker for every five waiting items, by the HPA's rules from one worker on."""

    name = "keda-5"
    period = 15.0
    wants_workers = False
    THRESHOLD = 5.0

    def __init__(self, at_least: int, _at_most: int) -> None:
        self._low = at_least
        self._stabilized = _Stabilized()

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        ratio = seen.queued / (self.THRESHOLD * seen.size)
        change = seen.size if abs(1 - ratio) <= _Stabilized.TOLERANCE else max(_up(seen.queued / self.THRESHOLD), self._low)
        return self._stabilized.settle(seen.at, seen.size, change)


class RayServe:
    """Ray Serve: mean requests in flight over 30 s, one a replica; grows after 30 s of wanting to, shrinks after 600 s."""

    name = "ray-serve-1"
    period = 0.1
    wants_workers = False
    TARGET = 1.0
    LOOK_BACK, UPSCALE, DOWNSCALE = 30.0, 30.0, 600.0

    def __init__(self, at_least: int, at_most: int) -> None:
        self._low, self._high = at_least, at_most
        self._loads: deque[float] = deque(maxlen=round(self.LOOK_BACK / self.period))
        self._sum = 0.0
        self._direction = 0  # ticks in a row in which it wanted to grow; negative: to shrink

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        if len(self._loads) == self._loads.maxlen:
            self._sum -= self._loads[0]
        self._loads.append(seen.load)
        self._sum += seen.load
        desired = min(max(_up(self._sum / len(self._loads) / self.TARGET), self._low), self._high)
        if desired > seen.size:
            self._direction = max(self._direction, 0) + 1
            if self._direction * self.period > self.UPSCALE:
                self._direction = 0
                return desired
        elif desired < seen.size:
            self._direction = min(self._direction, 0) - 1
            if -self._direction * self.period > self.DOWNSCALE:
                self._direction = 0
                return desired
        else:
            self._direction = 0
        return seen.size


class Holt:
    """Platformatic: Holt's linear trend of the busy workers, 1.2 start times ahead; grows by at most one worker in a decision."""

    name = "holt"
    period = 1.0
    wants_workers = False
    EVERY = 10
    UP, DOWN, TREND = 0.2, 0.1, 0.1
    SATURATED, TARGET, STEEP = 0.98, 0.8, 10.0
    AHEAD, LEAST_AHEAD = 1.2, 5.0
    COOL_UP, COOL_DOWN = 5.0, 30.0

    def __init__(self, _at_least: int, _at_most: int) -> None:
        self._level: float | None = None
        self._trend = 0.0
        self._ticks = 0
        self._changed = -math.inf

    def size(self, seen: PoolSeen) -> int:
        """See `SizeRule`."""
        self._learn(seen.busy_mean, max(seen.ready, 1))
        self._ticks += 1
        if self._ticks % self.EVERY:
            return seen.size
        wanted = self._wanted(seen)
        since = seen.at - self._changed
        if wanted > seen.size and since >= self.COOL_UP:
            self._changed = seen.at
            return seen.size + 1
        if wanted < seen.size and since >= self.COOL_DOWN:
            self._changed = seen.at
            return wanted
        return seen.size

    def _learn(self, load: float, workers: int) -> None:
        if self._level is None:
            self._level = load
            return
        before, trend = self._level, self._trend
        expected = before + trend
        rate = self.UP if load > expected else self.DOWN
        self._level = max(rate * load + (1 - rate) * expected, 0.0)
        self._trend = self.TREND * (self._level - before) + (1 - self.TREND) * trend
        if load >= self.SATURATED * workers:
            self._trend = max(self._trend, trend)
            self._level = min(self._level, float(workers))
        elif self._level > load:
            above = self._level - load
            self._trend *= above / (above + abs(self._trend))

    def _wanted(self, seen: PoolSeen) -> int:
        level, workers = self._level or 0.0, max(seen.size, 1)
        ahead = self.AHEAD * max(self.LEAST_AHEAD, seen.start_seconds or 0.0)
        rise = self._trend * ahead
        steep = math.degrees(math.atan2(self._trend, level)) > self.STEEP
        over = level / workers > self.TARGET
        if steep or (level + rise) / workers > self.TARGET:
            used = level / (workers * self.TARGET)
            if used < 1 and rise > 0:
                rise *= 2 * used / (1 + used)
            whole, rest = divmod(max(level + rise, 0.0), self.TARGET)
            target = int(whole) + (1 if rest > EPSILON and (over or rest / self.TARGET > 0.1) else 0)
            return max(target, seen.size)
        if not over:
            return min(seen.size, math.floor(1.3 * level / self.TARGET) + 1)
        return seen.size


PEERS: Mapping[str, Callable[[int, int], SizeRule]] = MappingProxyType(
    {
        peer.name: peer
        for peer in (
            *(UwsgiSpare, UwsgiSpare2, UwsgiBacklog, UwsgiBusyness),
            *(Celery, PhpDynamic, PhpOndemand, Dask, Horizon),
            *(Hpa, Kpa, Keda, RayServe, Holt),
        )
    }
)
"""Rules by name; each takes the fewest and the most workers of the pool."""
