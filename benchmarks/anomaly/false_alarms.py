"""How many false alarms a healthy fleet gives, compared with the user's setting: the policy runs on synthetic scores.

    python -m benchmarks.anomaly.false_alarms [--json FILE]

The scores are what calibrated p-values promise: for each worker and kind, the least p of a block of `BLOCK_SECONDS` is uniform. A
score stays there for 10 s to a whole block (random), because real scores look back 12 to 128 ticks. Whether real scores keep the
promise is measured by `benchmarks/anomaly/campaign.py`. Here the policy is measured, at three settings. At three higher settings
it must learn how unusual a thing that does not matter has to be, so that it reports as many of them as the user accepts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from nicety.models.anomaly.model import BLOCK_SECONDS, KINDS, alpha
from nicety.models.identity import ProcId
from nicety.models.records import Score
from nicety.scheduler.config.sections import Config
from nicety.scheduler.config.sections import Quarantine as Section
from nicety.scheduler.decide.policies.quarantine.quarantine import Quarantine, QuarantineMemory
from nicety.scheduler.decision import Flag, Pool, Tick
from nicety.scheduler.testing.policies import admitted
from nicety.scheduler.testing.ticks import a_pool, a_tick

from ..claims import Claims

POOLS, WORKERS = 10, 100
INTERVAL = 2.5  # seconds a tick
SETTINGS = ((0.3, 40), (1.0, 12), (10.0, 2))  # (false alarms a day per 100 workers, days): about 120 alarms each, scatter 9 %
SMALLER = ((10.0, 12), (100.0, 2), (1000.0, 0.25))  # the same, of things that do not matter: beyond the default they are reported
OFTEN = 0.05
"""Share of a worker's minutes with something that does not matter: 7,200 a day per 100 workers. Chosen."""

DAY = 86_400.0


def ticks(setting: float, days: float, chance: np.random.Generator) -> Iterator[Tick]:
    """Ticks of healthy workers, without those in which no score is near the line."""
    pools: list[Pool] = [a_pool(f"pool{number}", WORKERS, first_pid=10_000 * (number + 1)) for number in range(POOLS)]
    workers = [(worker.id, pool.name) for pool in pools for worker in pool.workers]
    near = 20 * alpha(setting)
    length = round(BLOCK_SECONDS / INTERVAL)
    for block in range(round(days * DAY / BLOCK_SECONDS)):
        low = chance.random((len(workers), len(KINDS)))
        odd = [(int(worker), int(kind)) for worker, kind in zip(*np.nonzero(low < near), strict=True)]
        last = {at: round(float(chance.uniform(10.0, BLOCK_SECONDS)) / INTERVAL) for at in odd}
        first = {at: int(chance.integers(0, length - last[at] + 1)) for at in odd}
        for step in range(length) if odd else (0, length - 1):
            scores = list[Score]()
            for worker, kind in odd:
                if first[worker, kind] <= step < first[worker, kind] + last[worker, kind]:
                    id_, pool = workers[worker]
                    scores.append(Score(id_, pool, KINDS[kind], 1.0, float(low[worker, kind]), (), "made up"))
            scores.sort(key=lambda score: score.id)
            yield a_tick(block * length + step, pools=pools, scores=tuple(scores), interval=INTERVAL)


def lesser(setting: float, days: float, chance: np.random.Generator) -> Iterator[Tick]:
    """Ticks of healthy workers with occasional things that do not matter. Their size and length are random; large ones are rare.
    Their p-value is 1."""
    del setting
    pool = a_pool("pool", WORKERS)
    length = round(BLOCK_SECONDS / INTERVAL)
    episodes: dict[ProcId, tuple[float, int]] = {}
    for step in range(round(days * DAY / INTERVAL)):
        for worker in chance.choice(WORKERS, chance.poisson(WORKERS * OFTEN / length), replace=False).tolist():
            lasts = step + round(float(chance.uniform(10.0, BLOCK_SECONDS)) / INTERVAL)
            episodes.setdefault(pool.workers[worker].id, (0.5 + float(chance.exponential(0.15)), lasts))
        episodes = {id_: found for id_, found in episodes.items() if found[1] >= step}
        scores = [Score(id_, pool.name, KINDS[0], 1.0, 1.0, (), "made up", size) for id_, (size, _) in sorted(episodes.items())]
        yield a_tick(step, pools=[pool], scores=tuple(scores), interval=INTERVAL)


def alarms(setting: float, over: Iterable[Tick]) -> int:
    """False alarms in these ticks."""
    section = Section(false_alarms_per_day=setting, alarms_per_day=100_000)
    policy = Quarantine(Config(quarantine=section), QuarantineMemory())
    seen = set[tuple[ProcId, int]]()
    for tick in over:
        for decision in admitted(policy, tick):
            action = decision.action
            if isinstance(action, Flag) and not action.incident:
                seen.add((action.worker, tick.at))
    return len(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    claims, rows = Claims(), []
    for what, make, workers, settings in (
        ("rare scores", ticks, POOLS * WORKERS, SETTINGS),
        ("small things", lesser, WORKERS, SMALLER),
    ):
        for setting, days in settings:
            found = alarms(setting, make(setting, days, np.random.default_rng(options.seed)))
            rate = found / days / (workers / 100)
            rows.append({"of": what, "set": setting, "measured": rate, "alarms": found, "days": days})
            claims.at_most(f"{what}: false alarms a day per 100 workers, {setting:g} set", rate, 2 * setting)
            claims.at_least(f"{what}: false alarms a day per 100 workers, {setting:g} set, at least", rate, setting / 2)
    claims.close(options.json, settings=rows)


if __name__ == "__main__":
    main()
