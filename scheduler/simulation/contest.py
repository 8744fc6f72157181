"""Which rules would have sized a pool most cheaply: its recorded load is replayed under several, and under constant sizes.

    python -m nicety.scheduler.simulation.contest --state-dir DIR [--config FILE] --pool NAME [--pool NAME ...]

Prints a line of JSON for each pool, a `PoolReplay`, as soon as it is known. The daemon runs this in the background
(`service/replays.py`).

The rules are those that keep the pool's objective; without one, those that are no slower than all rules together. Of these the one
with the fewest workers is chosen. The rules in force stay unless another one is clearly cheaper: what decides is one draw of the
requests, so a small lead is chance.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from ..config.paths import load_config, state_paths
from ..config.sections import Config, Objective, seconds_of
from ..decision import Chosen, Rules
from ..hands.safe_files import StoreError
from ..interpreter import load_numpy
from ..store.chosen import ChosenStore, PoolReplay, ReplayedRules
from .arrivals import SCATTER, Floats, LoadError, Recorded, drawn_from
from .ours import name_of
from .recorded import read
from .run import START, Figures, limits, simulate

LONGEST, LEAST = 86_400.0, 1800.0
"""Seconds of a recording that are replayed at most, and at least (chosen)."""

LEARNING = 3600.0
"""Seconds of a replay that do not count, because the rules learn in them, as a daemon has learned that runs for longer (chosen). A
shorter recording is played twice."""

CLEARLY = 0.95
"""Rules replace those in force if they take at most this many times as many workers (chosen)."""

AS_FAST = 1.05
"""Without an objective, rules may be slower than all rules by this factor of the p95 (chosen)."""

SERVICE = 0.2
"""Mean service time in seconds where none was measured, as of `nicety simulate`."""

HABIT, MINUTE = 600.0, 60.0
"""Seconds of the mean loads that say whether a load is as it was: see `Chosen`. The shorter is the reactive rule's window, the
longer is chosen."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Rules that were tried."""

    rules: Rules
    size: int
    figures: Figures
    seconds: float  # p95 of what the objective is about

    @property
    def workers(self) -> float:
        """Mean number."""
        return self.figures.workers


def contest(recorded: Recorded, config: Config, objective: Objective | None, present: tuple[Rules, int], seed: int) -> PoolReplay:
    """Replay a pool under all rules. `present`: those in force. Raises LoadError where nothing can be learned from a replay."""
    if recorded.seconds < LEAST:
        raise LoadError(f"{recorded.name}: recorded for {recorded.seconds:.0f} s; a replay needs {LEAST:.0f}")
    if objective is not None and objective.utilization:
        raise LoadError(f"{recorded.name}: its objective is a utilization, which is a rule of its own")
    if recorded.capacity > 1.0:
        raise LoadError(f"{recorded.name}: a worker serves {recorded.capacity:.3g} requests at once; only one is simulated")
    times, (minimum, maximum) = recorded.times, limits(recorded, config)
    service, scatter = (SERVICE, SCATTER) if times is None else (times.mean, times.sigma)
    start = START if recorded.start_seconds is None else recorded.start_seconds
    warmup = min(LEARNING, recorded.seconds)
    if recorded.seconds < 2 * LEARNING:
        recorded, warmup = _twice(recorded), recorded.seconds
    load = drawn_from(recorded, service, seed, scatter)

    def run(rule: str) -> Figures:
        first = min(max(int(recorded.sizes[0]), minimum), maximum)
        return simulate(
            rule,
            load,
            start,
            seed,
            minimum=minimum,
            maximum=maximum,
            warmup=warmup,
            initial=first,
            config=config,
            objective=objective,
        )

    def seconds(figures: Figures) -> float:
        return figures.waits_p95 if objective is not None and objective.wait else figures.p95

    trials = []
    for rules in (Rules.ALL, Rules.FORECAST, Rules.REACTIVE):
        figures = run(name_of(rules, 0))
        trials.append(Trial(rules, 0, figures, seconds(figures)))
    most = trials[0].seconds * AS_FAST if objective is None else seconds_of(objective.p95 or objective.wait)
    fixed: dict[int, Figures] = {}

    def keeps(size: int) -> bool:
        fixed[size] = run(f"fixed-{size}")
        return seconds(fixed[size]) <= most

    smallest = _smallest(keeps, minimum, maximum)
    if smallest is not None:
        trials.append(Trial(Rules.CONSTANT, smallest, fixed[smallest], seconds(fixed[smallest])))
    winner = _winner(trials, most, present)
    least_load, most_load = _habit(recorded, service, warmup)
    chosen = Chosen(
        pool=recorded.name,
        rules=winner.rules,
        size=winner.size,
        workers=winner.workers,
        hours=(recorded.seconds - warmup) / 3600.0,
        least=least_load,
        most=most_load,
        peak=float(_means(winner.figures.track.requests[int(warmup) :], MINUTE).max()),
    )
    table = tuple(ReplayedRules(each.rules, each.size, each.seconds, each.workers, each.seconds <= most) for each in trials)
    return PoolReplay(recorded.name, chosen, table, most, "")


def _twice(recorded: Recorded) -> Recorded:
    """The recording, and once more."""
    busy, queued, sizes = (np.concatenate([values, values]) for values in (recorded.busy, recorded.queued, recorded.sizes))
    return replace(recorded, busy=busy, queued=queued, sizes=sizes)


def _smallest(keeps: Callable[[int], bool], minimum: int, maximum: int) -> int | None:
    """The smallest fixed size that keeps the objective; None: none does."""
    low, high = minimum - 1, maximum + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return high if high <= maximum else None


def _winner(trials: Sequence[Trial], most: float, present: tuple[Rules, int]) -> Trial:
    """The cheapest trial that keeps the objective; all rules if none does. Those in force stay unless it is clearly cheaper."""
    keepers = [trial for trial in trials if trial.seconds <= most]
    if not keepers:
        return trials[0]
    best = min(keepers, key=lambda trial: trial.workers)
    stays = next((trial for trial in keepers if (trial.rules, trial.size) == present), None)
    return best if stays is None or best.workers <= CLEARLY * stays.workers else stays


def _habit(recorded: Recorded, service: float, warmup: float) -> tuple[float, float]:
    """Least and most mean load of `HABIT` seconds in the time that counts, Erlangs."""
    means = _means(recorded.offered(service)[int(warmup / recorded.step) :], HABIT / recorded.step)
    return float(means.min()), float(means.max())


def _means(values: Floats, width: float) -> Floats:
    """Moving means over `width` values; of all if there are fewer."""
    size = min(max(round(width), 1), len(values))
    summed = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((summed[size:] - summed[:-size]) / size)


def replayed(traces: Path, name: str, config: Config, present: tuple[Rules, int]) -> PoolReplay:
    """What a replay of this pool's newest day chose; or why there is none."""
    pool = config.pools.get(name)
    try:
        return contest(read(traces, name, LONGEST), config, None if pool is None else pool.objective, present, 1)
    except (LoadError, StoreError) as error:
        return PoolReplay(name, None, (), 0.0, str(error))


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--config")
    parser.add_argument("--pool", action="append", required=True)
    given = parser.parse_args()
    load_numpy()
    loaded = load_config(given.config, os.environ, os.geteuid())
    paths = state_paths(loaded.config, given.state_dir, os.environ, os.geteuid())
    kept = ChosenStore(paths.stores).read()
    for name in given.pool:
        chosen = next((each.chosen for each in kept if each.chosen.pool == name), None)
        present = (Rules.ALL, 0) if chosen is None else (chosen.rules, chosen.size)
        print(msgspec.json.encode(replayed(paths.stores, name, loaded.config, present)).decode(), flush=True)


if __name__ == "__main__":
    main()
