"""The figures of a decision in words with units: the only table from the names that rules log to words for people. Pure.

A name not in the table is shown as it is, with the unit that its ending implies.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..words import figure, share, size

Figure = float | int | str

WORDS: Mapping[str, tuple[str, str]] = {
    # priority, placement
    "victim": ("protects", ""),
    "victim_wait_before": ("{victim} waited for a CPU, of what it wanted", "share"),
    "victim_wait_cores": ("{victim} waited for a CPU", "cores"),
    "victim_demand_cores": ("{victim} wanted", "cores"),
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
    "queued": ("work that waits", "pieces"),
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
    "p": ("chance of such a score without a fault", ""),
    "alpha": ("reported up to this chance", ""),
    "onset_seconds": ("began before this", "s"),
    "patience_seconds": ("it must last", "s"),
    "significant_seconds": ("it has lasted", "s"),
    "siblings": ("workers that it is compared with", ""),
    "unusual_siblings": ("of these, as unusual now", ""),
    "source": ("scored by", ""),
}
"""Words and unit of each figure. A name in braces is replaced by the figure of that name, which is a group."""

PLACES = {name: place for place, name in enumerate(WORDS)}
"""The position of each on a page."""

ENDINGS = {"cores": "cores", "seconds": "s", "share": "share", "bytes": "bytes", "mib": "MiB", "workers": "workers"}
"""Units implied by the endings of names."""

WITHOUT = {"victim": "the protected group", "contender": "the demoted group"}
"""Words for a group that the figures do not name."""


def in_words(figures: Mapping[str, Figure]) -> list[tuple[str, str]]:
    """Label and value of each figure, in the order of `WORDS`, the others last.

    >>> in_words({"victim": "redis", "victim_wait_cores": 0.3104, "wait_target": 0.05, "moon_phase_seconds": 3})
    [('protects', 'redis'), ('redis waited for a CPU', '0.3104 cores'), ('it should wait at most', '5 %'), ('moon phase', '3 s')]
    """
    names = {name: str(figures.get(name, other)) for name, other in WITHOUT.items()}
    found = []
    for name in sorted(figures, key=lambda name: PLACES.get(name, len(WORDS))):
        value = figures[name]
        label, unit = WORDS.get(name) or _unknown(name)
        for group, called in names.items():
            label = label.replace(f"{{{group}}}", called)
        found.append((label, _value(value, unit)))
    return found


def _unknown(name: str) -> tuple[str, str]:
    head, _, last = name.rpartition("_")
    unit = ENDINGS.get(last, "") if head else ""
    return (head if unit else name).replace("_", " "), unit


def _value(value: Figure, unit: str) -> str:
    if isinstance(value, str):
        return value
    if unit == "share":
        return share(value)
    if unit == "bytes":
        return size(value)
    return f"{figure(value)} {unit}".rstrip()
