"""Pools with an objective: the fewest workers that keep it, what is said of it, and where it cannot be kept."""

from __future__ import annotations

import math

import msgspec
import pytest

from nicety.models.queueing import Servers, Times
from nicety.scheduler.config.sections import Config, Objective, PoolConfig
from nicety.scheduler.decide.policies.policy import Proposal
from nicety.scheduler.decide.policies.pool_size.objective import Sizing
from nicety.scheduler.decide.policies.pool_size.pool_size import PoolSize as Policy
from nicety.scheduler.decide.policies.pool_size.pool_size import PoolSizeMemory
from nicety.scheduler.decision import Pool, ResizePool, Service
from nicety.scheduler.simulation.arrivals import steady
from nicety.scheduler.simulation.run import simulate
from nicety.scheduler.testing.ticks import a_machine, a_pool, a_tick

SERVICE = Service(arrivals=30.0, mean=0.2, p95=0.54)
P95 = Objective(p95="700ms")


def configured(objective: Objective | None) -> Config:
    web = PoolConfig(kind="command", command=["x"], maximum=64, objective=objective)
    return Config(pools={"web": web})


def sizing(objective: Objective | None) -> Sizing:
    return Sizing(configured(objective))


def policy(objective: Objective | None) -> Policy:
    return Policy(configured(objective), PoolSizeMemory())


def busy(load: float, size: int = 2, **changes: object) -> Pool:
    return a_pool("web", size, load, **{"service": SERVICE, "maximum": 64, **changes})  # type: ignore[arg-type]


def late(load: float, servers: int, seconds: float) -> float:
    queue = Servers(load, Times.fitted(0.2, 0.54)).queue(servers)
    return 1.0 if queue is None else queue.takes_longer(seconds)


def resized(objective: Objective | None, pool: Pool) -> Proposal[int]:
    (proposal,) = policy(objective).propose(a_tick(1, machine=a_machine(cpus=64), pools=[pool]))
    return proposal


def size_of(proposal: Proposal[int]) -> int:
    assert isinstance(proposal.action, ResizePool)
    return proposal.action.size


@pytest.mark.parametrize("load", [0.1, 0.9, 3.0, 11.0, 40.0])
@pytest.mark.parametrize("milliseconds", [560, 700, 2000])
def test_as_few_workers_as_keep_the_time_and_not_one_more(load: float, milliseconds: int) -> None:
    workers = sizing(Objective(p95=f"{milliseconds}ms")).wanted(load, busy(load), share=0.9)
    assert late(load, workers, milliseconds / 1000) <= 0.05
    assert workers == 1 or late(load, workers - 1, milliseconds / 1000) > 0.05


def test_a_rule_that_knows_less_of_the_load_prepares_for_more_of_it() -> None:
    by_p95 = sizing(P95)
    assert by_p95.wanted(10.0, busy(10.0), share=0.7) == by_p95.wanted(10.0 * 0.9 / 0.7, busy(10.0), share=0.9)


def test_a_wait_is_kept_by_what_waits_and_not_by_what_is_answered() -> None:
    by_wait = sizing(Objective(wait="50ms"))
    workers = by_wait.wanted(11.0, busy(11.0), share=0.9)
    found = [Servers(11.0, Times.fitted(0.2, 0.54)).queue(count) for count in (workers - 1, workers)]
    assert [queue is None or queue.waits_longer(0.05) > 0.05 for queue in found] == [True, False]


def test_workers_that_serve_several_requests_at_once_are_as_many_fewer() -> None:
    by_p95 = sizing(P95)
    alone = by_p95.wanted(24.0, busy(24.0), share=0.9)
    assert by_p95.wanted(3.0, busy(3.0, capacity=8.0), share=0.9) == math.ceil(alone / 8)


@pytest.mark.parametrize("share", [0.7, 0.9])
def test_a_utilization_is_that_of_every_rule(share: float) -> None:
    assert sizing(Objective(utilization=0.5)).wanted(4.0, busy(4.0), share) == 8
    assert sizing(None).wanted(4.0, busy(4.0), share) == math.ceil(4.0 / share)


@pytest.mark.parametrize("objective", [None, P95, Objective(wait="50ms"), Objective(utilization=0.5)])
@pytest.mark.parametrize("workers", [1, 5, 17])
def test_a_load_for_so_many_workers_is_the_largest(objective: Objective | None, workers: int) -> None:
    sized = sizing(objective)
    most = sized.load_for(workers, busy(1.0), 0.7)
    assert sized.wanted(most * 0.999, busy(1.0), 0.7) <= workers < sized.wanted(most * 1.001, busy(1.0), 0.7)


def test_no_maximum_is_passed() -> None:
    assert sizing(P95).workers_for(60.0, busy(60.0, maximum=12), 0.9) == 12


def test_why_has_what_is_predicted_with_one_worker_fewer_as_decided_and_with_one_more() -> None:
    proposal = resized(P95, busy(11.0))
    figures = proposal.why.figures
    size = size_of(proposal)
    assert [figures[f"workers_{name}"] for name in ("one_fewer", "as_decided", "one_more")] == [size - 1, size, size + 1]
    fewer, decided, more = (
        float(str(figures[f"p95_{name}"]).removesuffix(" s")) for name in ("one_fewer", "as_decided", "one_more")
    )
    assert fewer > 0.7 >= decided >= more > 0.54
    assert (figures["objective"], figures["service_p95_seconds"]) == ("a p95 of 0.7 s", 0.54)
    assert proposal.why.rejected[0] == f"{size - 1} workers: the predicted p95 is {fewer:.3g} s, the objective a p95 of 0.7 s"
    assert "the objective is a p95 of 0.7 s" in proposal.why.text or proposal.why.rule == "panic"


def test_without_an_objective_nothing_is_said_of_one() -> None:
    figures = resized(None, busy(11.0)).why.figures
    assert not [name for name in figures if "objective" in name or name.startswith("p95")]


def notes(objective: Objective, pool: Pool, ticks: int = 1) -> list[str]:
    """What is noted after so many ticks with this pool, by a policy whose memory went through JSON."""
    sized = policy(objective)
    tick = a_tick(0, machine=a_machine(cpus=64), pools=[pool])
    for seq in range(ticks):
        sized.propose(msgspec.structs.replace(tick, seq=seq, at=tick.at + seq * 1_000_000_000))
    memory = msgspec.convert(msgspec.to_builtins(sized.memory), PoolSizeMemory)
    return [note.text for note in Policy(configured(objective), memory).notes(tick)]


def test_an_objective_that_is_kept_needs_no_note() -> None:
    assert notes(P95, busy(11.0)) == []


def test_unknown_service_times_are_noted_once_they_had_time_and_the_load_decides() -> None:
    unknown = busy(11.0, service=None)
    assert size_of(resized(P95, unknown)) == size_of(resized(None, unknown))
    assert notes(P95, unknown, 30) == []
    (said,) = notes(P95, unknown, 70)
    assert said.startswith("web: service times are not known, so a p95 of 0.7 s cannot be kept and the load alone decides; ")
    assert notes(Objective(utilization=0.5), unknown, 70) == []


def test_a_backend_that_is_too_slow_is_named_and_buys_no_workers() -> None:
    slow = busy(11.0, service=Service(arrivals=10.0, mean=0.4, p95=1.1))
    assert size_of(resized(P95, slow)) == size_of(resized(None, slow))
    (said,) = notes(P95, slow)
    assert said.startswith("web: more than 5 % of the requests take longer than 0.7 s even if none waits")
    assert notes(Objective(wait="50ms"), slow) == []


def test_a_maximum_and_a_machine_that_are_too_small_are_named() -> None:
    assert notes(P95, busy(11.0, size=12, maximum=12)) == [
        "web: a p95 of 0.7 s takes more than 12 workers, the maximum; raise it or allow more"
    ]
    (said,) = notes(P95, busy(90.0, size=2, cpu_per_worker=8.0))
    assert "takes more workers than this machine has room for (CPU headroom)" in said


def test_a_simulated_pool_keeps_its_objective_with_fewer_workers_than_a_tighter_one() -> None:
    load = steady(6.0, 300.0, 0.2, 1)
    tight, loose = (simulate("nicety-reactive", load, 4.0, 1, objective=Objective(p95=time)) for time in ("560ms", "1200ms"))
    assert tight.p95 <= 0.56 * 1.1
    assert loose.p95 <= 1.2
    assert loose.workers <= tight.workers - 1
