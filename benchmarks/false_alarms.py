"""How many false alarms a healthy fleet gives, against what the user set: the policy over made up scores of healthy workers.

    python benchmarks/false_alarms.py [--json FILE]

What a calibrated p-value promises is made here: of each worker and kind the least p of a block of `BLOCK_SECONDS` is uniform. How
long a score stays so is drawn from 10 s to the whole block, for scores look back 12 to 128 ticks. Whether real scores keep that
promise is `benchmarks/anomaly_campaign.py`'s to say; what is measured here is what the policy makes of it, at three settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from claims import Claims

from nicety.models.anomaly import BLOCK_SECONDS, KINDS, alpha
from nicety.models.records import ProcId, Score
from nicety.scheduler.config import Config
from nicety.scheduler.config import Quarantine as Section
from nicety.scheduler.decision import Flag, Pool, Tick
from nicety.scheduler.policies.quarantine import Quarantine, QuarantineMemory
from nicety.scheduler.testing.ticks import a_pool, a_tick

POOLS, WORKERS = 10, 100
INTERVAL = 2.5  # seconds a tick
SETTINGS = ((0.3, 40), (1.0, 12), (10.0, 2))  # (false alarms a day per 100 workers, days): about 120 alarms each, scatter 9 %
DAY = 86_400.0


def ticks(setting: float, days: float, chance: np.random.Generator) -> Iterator[Tick]:
    """Ticks of healthy workers; those in which no score is anywhere near the line are left out."""
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


def alarms(setting: float, days: float, seed: int) -> int:
    """False alarms in these days of `POOLS` * `WORKERS` healthy workers."""
    section = Section(false_alarms_per_day=setting, alarms_per_day=100_000)
    policy = Quarantine(Config(quarantine=section), QuarantineMemory())
    seen = set[tuple[ProcId, int]]()
    for tick in ticks(setting, days, np.random.default_rng(seed)):
        for number, decision in enumerate(policy.propose(tick)):
            policy.admit(msgspec.structs.replace(decision, id=f"s-{tick.seq}.{number}"))
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
    for setting, days in SETTINGS:
        found = alarms(setting, days, options.seed)
        rate = found / days / (POOLS * WORKERS / 100)
        rows.append({"set": setting, "measured": rate, "alarms": found, "days": days})
        claims.at_most(f"false alarms a day per 100 workers, {setting:g} set", rate, 2 * setting)
        claims.at_least(f"false alarms a day per 100 workers, {setting:g} set, at least", rate, setting / 2)
    claims.close(options.json, settings=rows)


if __name__ == "__main__":
    main()
