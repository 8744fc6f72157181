"""The figures of a decision in words with units: the only tables from the names that rules and scores log to words for
people. Pure.

A name that is in no table, such as one of an older log, is shown as it is, with the unit that its ending implies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..decide.policies.quarantine.words import TRAITS, rarity, seconds
from ..words import share, size

Figure = float | int | str

WORDS: Mapping[str, tuple[str, str]] = {
    # priority, placement
    "victim": ("protects", ""),
    "victim_wait_before": ("{victim} waited for a CPU, of what it wanted", "share"),
    "victim_wait_cores": ("{victim} waited for a CPU", "cores"),
    "victim_demand_cores": ("{victim} would use if it never waited", "cores"),
    "victim_lacks_cores": ("{victim} lacks", "cores"),
    "wait_target": ("it should wait at most", "share"),
    "wait_with_short_slices": ("{victim} waits with short slices", "share"),
    "wait_without": ("{victim} waits without them", "share"),
    "group": ("group that was changed", ""),
    "contender": ("demoted group", ""),
    "contender_cpu_cores": ("{contender} used", "cores"),
    "contender_wait_cores": ("{contender} waited for a CPU", "cores"),
    "contender_frees_cores": ("demoting {contender} could free", "cores"),
    "all_free_cores": ("demoting all that may be demoted could free", "cores"),
    "contender_processes": ("{contender} has", "processes"),
    "expected_cores": ("services and batch work will soon want", "cores"),
    "capacity_cores": ("available to them", "cores"),
    "forecast_quantile": ("quantile of the forecast used", "share"),
    "mechanism": ("control", ""),
    "level": ("eased by", "steps"),
    "value": ("value set", ""),
    "release_after_seconds": ("given back once calm for", "s"),
    "unseen_cores": ("used by processes that nicety cannot see", "cores"),
    "stolen_cores": ("taken by the hypervisor", "cores"),
    "cores_of_others": ("taken by all but services", "cores"),
    "busy_cores": ("in use on the machine", "cores"),
    "cpu_cores": ("used", "cores"),
    "wait_cores": ("waited for a CPU", "cores"),
    "throttled_share": ("stopped by its own quota", "share"),
    "latency_cores_with_slack": ("services want, with slack", "cores"),
    "batch_cores": ("batch work wants", "cores"),
    "usable_cpus": ("CPUs that may be used", ""),
    "kept_cpus": ("CPUs kept for services", ""),
    "gain_cores": ("expected gain", "cores"),
    "worth_cores": ("least gain that is worth it", "cores"),
    "batch_cores_lost": ("lost to batch work", "cores"),
    # pool size
    "load_now": ("work at hand now", "workers' worth"),
    "load_60s": ("work at hand, mean of 60 s", "workers' worth"),
    "load_6s": ("work at hand, mean of 6 s", "workers' worth"),
    "load_since_fall": ("work at hand, mean since it fell", "workers' worth"),
    "fallen_seconds": ("time since it fell", "s"),
    "queued": ("waiting in the queue", "requests or jobs"),
    "forecast_median": ("forecast, median", "workers' worth"),
    "forecast_used": ("forecast used", "workers' worth"),
    "forecast_source": ("forecast made by", ""),
    "horizon_seconds": ("how far ahead", "s"),
    "start_seconds": ("a worker takes to start", "s"),
    "seasonality": ("seasonal pattern of the load", ""),
    "season_seconds": ("its period", "s"),
    "seasons_seen": ("periods that were seen", ""),
    "season_right": ("share of the newest one that came as predicted", "share"),
    "season_abrupt": ("how abrupt it is, logarithm of the load", ""),
    "season_horizon_seconds": ("how far ahead the seasonal pattern is used", "s"),
    "predicted_now": ("by the seasonal pattern, at most now", "workers' worth"),
    "predicted_median": ("by the seasonal pattern, median until then", "workers' worth"),
    "predicted_high": ("by the seasonal pattern, at most until then", "workers' worth"),
    "workers_by_season": ("by the seasonal pattern", "workers"),
    "workers_by_forecast": ("by the forecast", "workers"),
    "workers_by_reactive_rule": ("by the reactive rule", "workers"),
    "workers_by_cpu_headroom": ("at most, for the CPUs", "workers"),
    "workers_by_memory_headroom": ("at most, for the memory", "workers"),
    "workers_by_scaling_curve": ("at most, for how it scales", "workers"),
    "rules": ("rules that count, chosen by replay", ""),
    "workers_by_replay": ("constant size, chosen by replay", "workers"),
    "workers_by_starved_starts": ("at most, while new workers wait for a CPU", "workers"),
    "starting": ("are starting", "workers"),
    "starting_wait_cores": ("they waited for a CPU", "cores"),
    "starting_cpu_cores": ("they used", "cores"),
    "scaling_single_cores": ("one worker at work uses", "cores"),
    "scaling_contention": ("contention, of the scaling law", ""),
    "scaling_coherency": ("coherency, of the scaling law", ""),
    "scaling_sizes_seen": ("sizes that were seen", ""),
    "scaling_largest_seen": ("the largest of them", "workers"),
    "objective": ("objective", ""),
    "objective_unkept": ("it cannot be kept", ""),
    "service_mean_seconds": ("a request takes, on average", "s"),
    "service_p95_seconds": ("95 % of the requests take at most", "s"),
    "capacity": ("requests that a worker serves at once", ""),
    "workers_one_fewer": ("one worker fewer", "workers"),
    "p95_one_fewer": ("predicted p95 with one worker fewer", ""),
    "workers_as_decided": ("as decided", "workers"),
    "p95_as_decided": ("predicted p95 as decided", ""),
    "workers_one_more": ("one worker more", "workers"),
    "p95_one_more": ("predicted p95 with one worker more", ""),
    "minimum": ("never fewer than", "workers"),
    "maximum": ("never more than", "workers"),
    "limit_that_bound": ("limit reached", ""),
    "size": ("workers there are", "workers"),
    "current": ("workers asked for before", "workers"),
    # quarantine
    "pool": ("pool", ""),
    "kind": ("what is wrong", ""),
    "taken_before": ("first reported as", ""),
    "score": ("score", ""),
    "p": ("healthy worker-minutes that look like this", "rarity"),
    "alpha": ("reported from", "rarity"),
    "onset_seconds": ("began before this", "s"),
    "patience_seconds": ("it must last", "s"),
    "significant_seconds": ("it has lasted", "s"),
    "siblings": ("workers that it is compared with", ""),
    "unusual_siblings": ("of these, as unusual now", ""),
    "source": ("scored by", ""),
    "neighbour": ("who runs on its CPUs", ""),
    "neighbour_cores": ("that one uses there", "cores"),
    "neighbour_nice": ("nice of that one", ""),
    "worker_nice": ("nice of the worker", ""),
    "neighbour_cgroup": ("cgroup of that one", ""),
    "worker_cgroup": ("cgroup of the worker", ""),
    "workers": ("workers of the pool", "workers"),
    "quiet_seconds": ("over once quiet for", "s"),
    "incident": ("incident", ""),
    "seconds_after_report": ("seen after its report for", "s"),
    "incidents": ("incidents", ""),
    "alarms_per_day": ("alarms accepted a day", ""),
}
"""Words and unit of each figure. A name in braces is replaced by the figure of that name, which is a group."""

EVIDENCE: Mapping[str, tuple[str, str]] = {
    "growth_mib": ("its memory grew by", "MiB"),
    "growth_mib_per_minute": ("its memory grows now by, a minute", "MiB"),
    "now_mib": ("its memory now", "MiB"),
    "siblings_growth_mib": ("memory of its siblings grew by, median", "MiB"),
    "siblings_mib": ("memory of its siblings, median", "MiB"),
    "growth_fds": ("open descriptors, grown by", ""),
    "growth_fds_per_minute": ("open descriptors, growing now by, a minute", ""),
    "now_fds": ("open descriptors now", ""),
    "siblings_growth_fds": ("open descriptors of its siblings, grown by, median", ""),
    "siblings_fds": ("open descriptors of its siblings, median", ""),
    "growth_threads": ("threads, grown by", ""),
    "growth_threads_per_minute": ("threads, growing now by, a minute", ""),
    "now_threads": ("threads now", ""),
    "siblings_growth_threads": ("threads of its siblings, grown by, median", ""),
    "siblings_threads": ("threads of its siblings, median", ""),
    "steps_rising": ("parts of that time in which it rose", "share"),
    "hits_limit_seconds": ("memory of the machine used up in", "s"),
    "seconds": ("time that was looked at", "s"),
    "seconds_without_io_or_pause": ("without reading, writing or a pause for", "s"),
    "seconds_without_io": ("CPU used since it last read or wrote", "s"),
    "seconds_without_progress": ("without progress for", "s"),
    "usual_seconds": ("usual", "s"),
    "own_past_seconds": ("compared with its own past of", "s"),
    "cpu_cores": ("it uses", "cores"),
    "siblings_cpu_cores": ("its siblings use, median", "cores"),
    "bytes_per_cpu_second": ("reads and writes, per second of CPU", "bytes"),
    "siblings_bytes_per_cpu_second": ("siblings read and write, per second of CPU", "bytes"),
    "siblings_bytes_per_second": ("siblings read and write, a second", "bytes"),
    "siblings_slices_per_second": ("siblings are put on a CPU, a second", "times"),
    "queued_per_worker": ("waiting work for each worker", ""),
    "wait_cores": ("it waits for a CPU", "cores"),
    "wait_share": ("it waits for a CPU, of what it wants", "share"),
    "siblings_wait_share": ("its siblings wait, median", "share"),
    "switches_per_second": ("it is put on a CPU, a second", "times"),
    "siblings_switches_per_second": ("its siblings, median", "times"),
    "times_for_the_same_work": ("as often as siblings for the same work", "times"),
    "processes_started_per_second": ("processes that it starts, a second", ""),
    "siblings_processes_started_per_second": ("its siblings start, median", ""),
    "cpu_for_the_same_work_times_siblings": ("CPU for the same work, beside its siblings' median", "times"),
    "busy_for_the_same_work_times_siblings": ("time for the same work, beside its siblings' median", "times"),
    "busy_share": ("busy", "share"),
    "work_per_second": ("work done, a second", ""),
    "siblings": ("siblings", ""),
    "ended_soon": ("workers that ended soon", "workers"),
    "one_after_the_other": ("of these, each a replacement of the one before", "workers"),
    "median_life_seconds": ("median life of these", "s"),
    "usual_life_seconds": ("usual life of a worker", "s"),
    "workers": ("workers that are there", "workers"),
    "zombies": ("ended processes whose exit status was not collected", "processes"),
    **{f"{name}_times_siblings": (f"{words}, beside its siblings' median", "times") for name, words in TRAITS.items()},
    **{f"{name}_times_own_past": (f"{words}, beside its previous maximum", "times") for name, words in TRAITS.items()},
    **{f"{name}_deviations": (f"{words}, away from its own past", "standard deviations") for name, words in TRAITS.items()},
}
"""Words and unit of the evidence of a score. Decisions have it too, with `evidence_` before each name."""

PLACES = {name: place for place, name in enumerate(WORDS)}
"""The position of each on a page."""

EVIDENCE_MARK = "evidence_"

ENDINGS = {"cores": "cores", "seconds": "s", "share": "share", "bytes": "bytes", "mib": "MiB", "workers": "workers"}
"""Units implied by the endings of names."""

WITHOUT = {"victim": "the protected group", "contender": "the demoted group"}
"""Words for a group that the figures do not name."""


def in_words(figures: Mapping[str, Figure]) -> list[tuple[str, str]]:
    """Label and value of each figure, in the order of `WORDS`, the others last.

    >>> in_words({"victim": "redis", "victim_wait_cores": 0.3104, "wait_target": 0.05, "moon_phase_seconds": 3})
    [('protects', 'redis'), ('redis waited for a CPU', '0.31 cores'), ('it should wait at most', '5 %'), ('moon phase', '3 s')]
    """
    names = {name: str(figures.get(name, other)) for name, other in WITHOUT.items()}
    found = []
    for name in sorted(figures, key=lambda name: PLACES.get(name, len(WORDS))):
        value = figures[name]
        label, unit = words_of(name) or _unknown(name)
        for group, called in names.items():
            label = label.replace(f"{{{group}}}", called)
        found.append((label, _value(value, unit)))
    return found


def evidence_in_words(evidence: Mapping[str, float]) -> list[tuple[str, str]]:
    """The same for the evidence of a score.

    >>> evidence_in_words({"growth_mib": 41.7, "seconds": 190.0})
    [('its memory grew by', '41.7 MiB'), ('time that was looked at', '3 min 10 s')]
    """
    return [
        (label, _value(value, unit)) for name, value in evidence.items() for label, unit in [EVIDENCE.get(name) or _unknown(name)]
    ]


def words_of(name: str) -> tuple[str, str] | None:
    """Words and unit of a figure of a decision; None: it has none."""
    if name in WORDS:
        return WORDS[name]
    if name.startswith(EVIDENCE_MARK):
        return EVIDENCE.get(name.removeprefix(EVIDENCE_MARK))
    head, _, number = name.rpartition("_")
    return ("waits", "") if head == "wait" and number.isdecimal() else None  # a line of a circle, which is a sentence


def _unknown(name: str) -> tuple[str, str]:
    name = name.removeprefix(EVIDENCE_MARK)
    head, _, last = name.rpartition("_")
    unit = ENDINGS.get(last, "") if head else ""
    return (head if unit else name).replace("_", " "), unit


def _value(value: Figure, unit: str) -> str:
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "unknown"
    shown = _SHOWN.get(unit)
    if shown is not None:
        return shown(value)
    text = f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{text} {ONE.get(unit, unit) if text == '1' else unit}".rstrip()


_SHOWN: Mapping[str, Callable[[float], str]] = {"share": share, "bytes": size, "s": seconds, "rarity": rarity}
"""How values of some units are written."""

ONE = {"cores": "core", "workers": "worker", "processes": "process", "steps": "step", "times": "time"}
"""What one of a unit is called, where its name is a plural."""
