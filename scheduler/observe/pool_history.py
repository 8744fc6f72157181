"""The history of one pool: its recent load, the seasonal pattern of its load, its scaling curve, and what a busy worker uses.
Pure.

Each method that begins with `step_` takes the values of one tick: call it once a tick.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ...models.forecast.seasonality import Seasonality
from ...models.records import Flights
from ...models.scaling import Scaling
from ..decision import Scaled, Service
from .loads import OfferedLoad
from .service_times import ServiceTimes

STABLE_SECONDS, PANIC_SECONDS = 60.0, 6.0
"""Windows of the reactive rule in seconds: Knative's defaults (stable-window 60 s, panic window 10 % of it)."""

LEAST_WORK = 0.25
"""Busy workers that do not wait for a CPU, from which a tick updates the cores of a busy worker (chosen: less work says little)."""

SHARE = 0.05
"""Share of the newest value in the smoothed cores of a busy worker: a mean over about 20 ticks (chosen)."""


class PoolHistory:
    """The history of one pool. The same steps give the same answers."""

    def __init__(self, interval: float, stagger: int) -> None:
        """`interval`: seconds between ticks; `stagger`: the number of pools so far, so that not all search for a period in one
        tick."""
        self._interval = interval
        self._loads = deque[tuple[int, float]]()  # (monotonic ns, load)
        self._offered = OfferedLoad(Seasonality(interval, stagger=stagger))
        self._scaling = Scaling()
        self._service = ServiceTimes()
        self._cores_per_worker: float | None = None  # None: no work was seen

    def step_load(self, at: int, load: float | None) -> tuple[float | None, float | None]:
        """Take the offered load, None if unknown. Returns its means over the stable and the panic window; None if there is none."""
        stable, history = at - STABLE_SECONDS * 1e9, self._loads
        if load is not None:
            history.append((at, load))
        while history and history[0][0] < stable:
            history.popleft()
        return _mean(history, stable), _mean(history, at - PANIC_SECONDS * 1e9)

    def step_seasonality(self, at: int, load: float | None, queued: float, maximum: float) -> Seasonality:
        """Take the offered load as far as it is known while work waits. Returns the seasonal pattern with it."""
        self._offered.step(round(at / (self._interval * 1e9)), load, queued, maximum)
        return self._offered.seasonality

    def step_service(self, at: int, flights: Flights | None) -> Service | None:
        """Take the answers of the tick, None if unknown. Returns what the requests are like; None if that is not known."""
        return self._service.step(at, flights)

    def step_scaling(self, busy: float | None, done: float | None) -> Scaled | None:
        """Take how many workers were busy and how many cores they used, None after a gap. Returns the scaling; None if unknown.

        CPU used stands for work done, because few frameworks report work, while the kernel reports all CPU use.
        """
        self._scaling.step(busy, done)
        curve = self._scaling.curve()
        if curve is None:
            return None
        return Scaled(
            single=curve.single,
            contention=curve.contention,
            coherency=curve.coherency,
            sizes=curve.sizes,
            largest=curve.largest,
            adds=curve.adds,
            worth=curve.worth,
            certain=curve.certain,
        )

    def step_gap(self) -> None:
        """Nothing is known of a tick."""
        self._scaling.step(None, None)

    def step_cores(self, ran: float, waited: float, busy: float, cpus: float) -> float:
        """Take what all workers did. Returns the cores that one busy worker would use without contention, smoothed; 1 until there
        was work.

        While busy, a worker runs, waits for a CPU, or waits for something else. If it never waited for a CPU, it would run for
        ran / (busy - waited) of the time, as in `features.uncontended`. Threads can make that more than 1, but at most `cpus`.
        """
        own = busy - waited
        if own >= LEAST_WORK:
            now, before = min(ran / own, cpus), self._cores_per_worker
            self._cores_per_worker = now if before is None else before + SHARE * (now - before)
        return 1.0 if self._cores_per_worker is None else self._cores_per_worker


def _mean(history: Sequence[tuple[int, float]], since: float) -> float | None:
    recent = [load for at, load in history if at > since]
    return sum(recent) / len(recent) if recent else None
