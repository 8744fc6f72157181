"""Whether "helped" or "hurt" is right: each resize beside a pool that kept its old size, on the same requests.

    python -m benchmarks.pools.helped [--decisions N] [--json FILE]

nicety sizes a simulated pool. At each resize the pool is copied, and the copy keeps its size. Both serve the same requests until
the effect is measured. The mean queues of both in the window of the measurement are the truth, judged as the daemon judges: by a
quarter, and half a request. Loads of all shapes; requests of 0.05 to 5 s, workers that start in 1 to 20 s. Once with known service
times, once without.

Most resizes are made while nothing waits and have no effect, which is easily said. So the decisions that count are those where
something waited before or afterwards, or would have waited. Beside them stands the rule of before: the queue then and now.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import msgspec
import numpy as np

from nicety.scheduler.config.sections import Config, Models
from nicety.scheduler.decide.effects import Judged, judge
from nicety.scheduler.decide.policies.policy import Metric
from nicety.scheduler.decision import Decision, Pool, ResizePool
from nicety.scheduler.simulation.arrivals import SHAPES, made_up
from nicety.scheduler.simulation.ours import Nicety
from nicety.scheduler.simulation.queueing import SimulatedQueue
from nicety.scheduler.simulation.run import MAXIMUM, MINIMUM, first_size

from ..claims import Claims

SECONDS = 1200.0
SERVED = ((0.05, 1.0), (0.2, 4.0), (0.5, 4.0), (5.0, 20.0))
"""(service time, start time) of the pools, in seconds."""

DECISIONS, AGREE = 300, 0.9
"""Decisions that are compared, and the share of the verdicts that must be the truth."""

WAITED = 0.5
"""Waiting requests from which a decision counts: the least change of a queue that is judged."""

SEEDS = (1, 2)

SILENT = 0.2
"""Share of the decisions of which the daemon may say that it cannot tell, where service times are known. Chosen."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A resize, what the daemon said of it, and the truth."""

    pool: str
    grown: bool
    said: str
    true: str
    before: float  # waiting requests at the decision
    after: float  # mean waiting requests in the window
    kept: float  # the same at the old size
    unchanged: tuple[float, float | None] | None  # what the daemon takes for `kept`

    @property
    def counts(self) -> bool:
        """Whether anything waited."""
        return max(self.before, self.after, self.kept) >= WAITED


@dataclass(frozen=True, slots=True)
class _Begun:
    decision: Decision
    twin: SimulatedQueue  # keeps the old size
    at: float
    delay: float  # seconds until the change can show


def compared(shape: str, service: float, start: float, seed: int, known: bool) -> Iterator[Compared]:
    """Every resize of a pool whose effect was measured. `known`: service times are."""
    config = msgspec.structs.replace(Config(), models=Models(demand=False))
    load = made_up(shape, SECONDS, MAXIMUM, service, seed)
    queue = SimulatedQueue(load.arrivals, load.services, start, first_size(MINIMUM, MAXIMUM))
    rule, begun = Nicety(config, MINIMUM, MAXIMUM, None), dict[str, _Begun]()
    window, turn, last = config.priority.effect_after, 1, None
    while (at := turn * rule.period) <= SECONDS:
        queue.advance(at)
        seen = queue.look(workers=True)
        size = rule.size(seen if known else replace(seen, ended=()))
        if rule.last is not None and rule.last is not last:
            last = rule.last
            tick, verdict = last
            for decision in verdict.decisions:
                begun[decision.id] = _Begun(decision, queue.twin(), at, _delay(tick.pools[0], decision))
            for effect in verdict.effects:
                it = begun.pop(effect.decision)
                begin = it.at + it.delay
                it.twin.advance(begin + window)
                after, kept = queue.waited(begin, begin + window), it.twin.waited(begin, begin + window)
                true, grown = judge(Metric.QUEUED, kept, after).value, _grows(it.decision)
                name = f"{shape} {service:g} s"
                yield Compared(name, grown, effect.verdict, true, effect.before, after, kept, effect.unchanged)
        queue.resize(min(max(size, MINIMUM), MAXIMUM))
        turn += 1


def _grows(decision: Decision) -> bool:
    return isinstance(decision.action, ResizePool) and decision.action.size > int(decision.why.figures["current"])


def _delay(pool: Pool, decision: Decision) -> float:
    more = isinstance(decision.action, ResizePool) and decision.action.size > pool.size
    return (pool.start_seconds or 0.0) if more else 0.0


def judged(claims: Claims, found: list[Compared], name: str, silent: float) -> None:
    """Add the claims about these decisions."""
    told = [it for it in found if it.said != Judged.CANNOT_TELL]
    claims.at_least(f"{name}: share of {len(told)} verdicts that are the truth", _agree(told), AGREE)
    growths, shrinks = [it for it in told if it.grown], [it for it in told if not it.grown]
    claims.at_least(f"{name}: the same of {len(growths)} growths", _agree(growths), AGREE)
    claims.at_least(f"{name}: the same of {len(shrinks)} shrinks", _agree(shrinks), AGREE)
    earlier = sum(judge(Metric.QUEUED, it.before, it.after).value == it.true for it in found) / len(found)
    claims.add(f"{name}: the same of the queue before and after, all {len(found)}", earlier, "beside it", True)
    claims.at_most(f"{name}: share of {len(found)} decisions without a verdict", 1 - len(told) / len(found), silent)


def _agree(found: list[Compared]) -> float:
    return sum(it.said == it.true for it in found) / len(found)


def main() -> int:
    """Compare the decisions and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=DECISIONS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    claims, kept = Claims(), dict[str, list[Compared]]()
    for name, known, silent in (("times known", True, SILENT), ("times not known", False, 1.0)):
        found = list[Compared]()
        for shape, (service, start), seed in product(SHAPES, SERVED, SEEDS):
            found += (it for it in compared(shape, service, start, seed, known) if it.counts)
        chance = np.random.default_rng(1)
        chosen = sorted(chance.choice(len(found), min(given.decisions, len(found)), replace=False).tolist())
        kept[name] = [found[place] for place in chosen]
        for (said, true), count in sorted(Counter((it.said, it.true) for it in kept[name]).items()):
            print(f"{name}: {count:4} said {said:12} true {true}", file=sys.stderr)
        judged(claims, kept[name], name, silent)
    claims.close(given.json, decisions={name: [asdict(it) for it in found] for name, found in kept.items()})
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
