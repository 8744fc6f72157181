"""Every metric that there is: name, type, unit, labels and meaning. docs/metrics.md has its table. Knows no frame.

Names follow Prometheus' conventions: base units, last in the name; counters end in `_total`. `promtool check metrics` agrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, eq=False)  # each is there once
class Metric:
    """One metric. `name` of a counter is without `_total`. `unit` is the end of the name, "" if it counts things."""

    name: str
    kind: Literal["gauge", "counter"]
    text: str
    labels: tuple[str, ...]
    unit: str

    @property
    def sample_name(self) -> str:
        """As its samples are called."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


ALL: list[Metric] = []
"""In the order of the output."""

UNITS = ("cores", "seconds", "bytes", "ratio", "erlangs")


def _metric(kind: Literal["gauge", "counter"], name: str, text: str, labels: str) -> Metric:
    unit = name.rpartition("_")[2]
    made = Metric(f"nicety_{name}", kind, text, tuple(labels.split()), unit if unit in UNITS else "")
    ALL.append(made)
    return made


def _gauge(name: str, text: str, labels: str = "") -> Metric:
    return _metric("gauge", name, text, labels)


def _counter(name: str, text: str, labels: str = "") -> Metric:
    return _metric("counter", name, text, labels)


# --- the daemon ------------------------------------------------------------------------------------------------------------------

UP = _gauge("up", "1 if the daemon writes frames, 0 if there is none or the last one is late")
AGE = _gauge("frame_age_seconds", "Time since the tick of the newest frame")
BUILD = _gauge("build_info", "1; the version of the daemon", "version")
INTERVAL = _gauge("tick_interval_seconds", "Time between two ticks of the daemon")
UPTIME = _gauge("uptime_seconds", "Time since the daemon started")
TICKS = _counter("ticks", "Ticks of the daemon")
MISSED = _counter("missed_ticks", "Ticks that could not be on time")
LOST = _counter("lost_ticks", "Ticks that a trace or the decision log could not take")
CPU = _counter("cpu_seconds", "CPU time of the daemon with its hands and eyes")
MEMORY = _gauge("resident_memory_bytes", "Resident memory of the daemon with its hands and eyes")
BUDGET = _gauge("cpu_budget_ratio", "Share of one CPU that the daemon may use")
REDUCED = _gauge("reduced_work", "Kinds of work that the daemon does less often to stay within its budget")
TROUBLES = _gauge("troubles", "Parts of the daemon that fail now, such as a store")
ACTING = _gauge("acting", "1 if anything is acted on, 0 if the daemon only observes")
CANNOT_ACT = _gauge("cannot_act", "1 if changes that were asked for cannot be made here")
PAUSED = _gauge("paused", "1 if the daemon is paused")

# --- the machine -----------------------------------------------------------------------------------------------------------------

CPUS = _gauge("machine_cpus", "CPUs of the machine")
BUSY = _gauge("machine_busy_cores", "Cores in use")
STEAL = _gauge("machine_steal_cores", "Cores that the hypervisor gave to other guests")
UNSEEN = _gauge("machine_unseen_cores", "Cores used by processes that nicety cannot see")
MACHINE_MEMORY = _gauge("machine_memory_bytes", "Memory of the machine")
AVAILABLE = _gauge("machine_memory_available_bytes", "Memory that is available")
PRESSURE = _gauge("machine_pressure_ratio", "Share of the last tick in which some task waited", "resource")

# --- groups ----------------------------------------------------------------------------------------------------------------------

GROUP_CLASS = _gauge("group_class_info", "1; the class of a group, and whether it is configured", "group class given")
CERTAINTY = _gauge("group_class_certainty_ratio", "Probability of the class, or of the likelier one of an exempt group", "group")
GROUP_PROCESSES = _gauge("group_processes", "Processes of a group", "group")
GROUP_CPU = _gauge("group_cpu_cores", "Cores in use by a group", "group")
GROUP_WAIT = _gauge("group_wait_cores", "Cores that a group waits for", "group")
DEMAND = _gauge("group_demand_cores", "Cores that a group would have used alone", "group")
GROUP_MEMORY = _gauge("group_memory_bytes", "Resident memory of a group", "group")
THROTTLED = _gauge("group_throttled_ratio", "Share of the last tick for which its own quota stopped a group", "group")
DEMAND_FORECAST = _gauge("group_demand_forecast_cores", "Forecast of the demand of a group", "group horizon level")
MEMORY_FORECAST = _gauge("group_memory_forecast_bytes", "Forecast of the memory of a group", "group horizon level")
DELAY = _gauge("group_delay_cores", "Part of the wait of a group, and what it is due to", "group cause culprit")
CHANGED = _gauge("changed_processes", "Processes of a group or pool that a change in force holds for", "what name control")

# --- pools -----------------------------------------------------------------------------------------------------------------------

POOL = _gauge("pool_info", "1; what a pool is, and what sizes it", "pool kind objective rules")
WORKERS = _gauge("pool_workers", "Workers that a pool has", "pool")
WANTED = _gauge("pool_wanted_workers", "Workers that were asked for", "pool")
MINIMUM = _gauge("pool_minimum_workers", "Fewest workers that a pool may have", "pool")
MAXIMUM = _gauge("pool_maximum_workers", "Most workers that a pool may have", "pool")
POOL_BUSY = _gauge("pool_busy_workers", "Workers that are busy", "pool")
QUEUED = _gauge("pool_queued_requests", "Requests that wait for a worker", "pool")
LOAD = _gauge("pool_load_erlangs", "Workers that the work of a pool would keep busy", "pool")
LOAD_FORECAST = _gauge("pool_load_forecast_erlangs", "Forecast of the load of a pool", "pool horizon level")
ARRIVALS = _gauge("pool_arrivals_per_second", "Requests that arrive at a pool", "pool")
SERVICE = _gauge("pool_service_mean_seconds", "Time of a request without waiting, mean", "pool")
SERVICE_P95 = _gauge("pool_service_p95_seconds", "Time of a request without waiting, exceeded by one of twenty", "pool")
START = _gauge("pool_start_seconds", "Time that a worker takes to start, median", "pool")
WORKER_MEMORY = _gauge("pool_worker_memory_bytes", "Resident memory of the largest worker", "pool")
AIM_SECONDS = _gauge("pool_objective_seconds", "Objective of a pool that is a time", "pool kind")
AIM_SHARE = _gauge("pool_objective_ratio", "Objective of a pool that is a share of busy workers", "pool kind")
POOL_TROUBLE = _gauge("pool_trouble", "1 if a pool cannot be resized now", "pool")

# --- decisions -------------------------------------------------------------------------------------------------------------------

DECISIONS = _counter("decisions", "Decisions", "policy")
REFUSALS = _counter("refusals", "Proposals that the guard refused", "policy rule")
OUTCOMES = _counter("outcomes", "What became of decisions", "policy status")
EFFECTS = _counter("effects", "Decisions whose effect was measured", "policy verdict")
INCIDENTS = _gauge("open_incidents", "Incidents that are not over", "pool kind")

# --- the exporter ----------------------------------------------------------------------------------------------------------------

UNREADABLE = _gauge("exporter_frame_unreadable", "1 if there is a frame that the exporter cannot read")
FOLDED = _gauge("exporter_folded", "Groups that are summed up as other, and pools that are left out", "what")
LIMIT = _gauge("exporter_series_limit", "Most series that the exporter shows")
SERIES = _gauge("exporter_series", "Series that the exporter shows")
