"""Growth of a pool whose new workers get no CPU to come up: it stops, says so, and goes on when there is CPU."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.config.sections import Config
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decide.policies.pool_size.starts import HOLD, LATE, Starts, are_starved, watch
from nicety.scheduler.decision import Machine, Pool, ResizePool, Tick, Worker
from nicety.scheduler.testing.ticks import a_group, a_machine, a_pool, a_tick

CPUS = 16
FULL = a_machine(cpus=CPUS, busy=float(CPUS))
QUIET = a_machine(cpus=CPUS, busy=2.0)
START = 1.0
"""Median start in seconds."""


class Growing:
    """A pool that obeys, and workers that come up when `up` says so. `again`: seconds after which one is given up and replaced."""

    def __init__(self, *, wait: float, cpu: float = 0.05, again: int | None = None) -> None:
        self.size = 6
        self.engine = Engine(Config(), "0badcafe")
        self.up = False
        self.sizes: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self._wait, self._cpu, self._again = wait, cpu, again
        self._pid = 9100

    def _workers(self, seq: int) -> Sequence[Worker]:
        old = [Worker(ProcId(pid, pid), True, 1.0, 0.3, 0.5, 50 << 20) for pid in range(9000, 9006)]
        generation = 0 if self._again is None else seq // self._again * 100
        new = range(self._pid + generation, self._pid + generation + self.size - 6)
        return [*old, *(Worker(ProcId(pid, pid), self.up, 0.0, self._cpu, self._wait, 50 << 20) for pid in new)]

    def tick(self, seq: int, machine: Machine, load: float) -> Tick:
        pool = a_pool(
            size=self.size, load=load, busy=6.0, queued=load - 6, start_seconds=START, workers=tuple(self._workers(seq)), maximum=40
        )
        hogs = a_group("hogs", Class.BATCH, cpu=machine.busy)
        return a_tick(seq, machine=machine, groups=[hogs], pools=[pool])

    def run(self, first: int, last: int, machine: Machine, growth: float = 1.0) -> int:
        """The size after these ticks, in which the load rises by `growth` Erlang each."""
        for seq in range(first, last):
            tick = self.tick(seq, machine, 6.5 + growth * seq)
            verdict = self.engine.step(tick)
            self.engine.validate()
            self.engine = Engine.resume(Config(), "0badcafe", self.engine.memory())
            for decision in verdict.decisions:
                if isinstance(decision.action, ResizePool):
                    self.size = decision.action.size
                    self.sizes.append((seq, self.size))
            self.notes += [note.text for note in verdict.notes if note.topic == "starts web"]
        return self.size


def test_a_growth_that_starves_stops_and_says_so() -> None:
    pool = Growing(wait=0.9)
    size = pool.run(0, 20, FULL)
    assert pool.sizes[0][0] == 0
    assert pool.sizes[-1][0] <= 3, "the third tick has seen the first new workers wait for twice a start time"
    assert size < 16
    assert len(pool.notes) >= 15
    assert pool.notes[-1] == (
        "web: the load asks for more workers, but none is started: those started before waited for a CPU for longer than they ran, "
        "and all CPUs are busy."
    )


@pytest.mark.parametrize(
    ("machine", "wait", "cpu"),
    [(QUIET, 0.9, 0.05), (FULL, 0.05, 0.05), (FULL, 0.4, 0.6)],
    ids=["CPUs free", "no wait", "computing"],
)
def test_slow_starts_of_another_cause_stop_no_growth(machine: Machine, wait: float, cpu: float) -> None:
    pool = Growing(wait=wait, cpu=cpu)
    assert pool.run(0, 20, machine) > 30
    assert pool.notes == []


def test_workers_that_are_given_up_and_started_again_count_however_young_they_are() -> None:
    """Celery gives up a worker after four seconds. Where starts take six, none would ever be late."""
    given_up = Growing(wait=0.9, again=4)
    given_up.run(0, 20, FULL)
    assert given_up.sizes[-1][0] <= 5
    assert given_up.notes


def test_growth_goes_on_when_a_cpu_is_free() -> None:
    pool = Growing(wait=0.9)
    held = pool.run(0, 10, FULL)
    pool.up = True
    assert pool.run(10, 14, QUIET) > held
    assert pool.run(14, 24, FULL) > 20, "workers that are up do not starve"


def test_growth_is_tried_again_after_a_minute_on_a_machine_that_stays_full() -> None:
    pool = Growing(wait=0.9)
    held = pool.run(0, 10, FULL)
    pool.up = True
    last = round(HOLD) + 9
    assert pool.run(10, last, FULL, 0.5) == held
    assert pool.run(last, last + 3, FULL, 0.5) > held


def a_starting(pid: int, wait: float, size: int = 7) -> Pool:
    workers = (*a_pool(size=size - 1).workers, Worker(ProcId(pid, pid), False, 0.0, 0.1, wait, 1 << 20))
    return a_pool(size=size, workers=workers, start_seconds=START)


def test_a_start_is_given_its_time() -> None:
    """Late is what takes twice the median; a wait of less than a second in all explains nothing."""
    starts, seen = Starts(), []
    for second in range(5):
        watch(starts, second * 10**9, a_starting(9100, 0.9), FULL, 0.95, 1.0)
        seen.append(are_starved(starts, second * 10**9))
    assert seen == [False] * round(LATE) + [True] * (5 - round(LATE))
    little = Starts()
    for second in range(5):
        watch(little, second * 10**9, a_starting(9100, 0.19), FULL, 0.95, 1.0)
    assert not are_starved(little, 5 * 10**9)


def test_cpu_that_the_hypervisor_took_is_not_free() -> None:
    starts = Starts()
    for second in range(5):
        watch(starts, second * 10**9, a_starting(9100, 0.9), a_machine(cpus=2, busy=0.4, steal=1.6), 0.95, 1.0)
    assert are_starved(starts, 5 * 10**9)


def test_a_worker_that_is_removed_before_it_was_up_starved_only_if_it_waited() -> None:
    for wait, starved in ((0.9, True), (0.05, False)):
        starts = Starts()
        for second in range(2):
            watch(starts, second * 10**9, a_starting(9100, wait), FULL, 0.95, 1.0)
        watch(starts, 2 * 10**9, a_pool(size=6), FULL, 0.95, 1.0)
        assert are_starved(starts, 2 * 10**9) is starved
        assert starts.under_way == []
