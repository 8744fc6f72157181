"""Pools whose rules a replay chose: only those decide, and the reason says so."""

from __future__ import annotations

import msgspec
import pytest

from nicety.scheduler.config.sections import Config, Objective, PoolConfig
from nicety.scheduler.decide.policies.policy import Proposal
from nicety.scheduler.decide.policies.pool_size.pool_size import PoolSize as Policy
from nicety.scheduler.decide.policies.pool_size.pool_size import PoolSizeMemory
from nicety.scheduler.decision import Chosen, Pool, Predicted, ResizePool, Rules, Service, Tick
from nicety.scheduler.testing.ticks import a_forecast, a_machine, a_pool, a_tick

PREDICTED = Predicted(
    period=300.0,
    seen=4,
    right=0.9,
    trusted=True,
    abrupt=3.0,
    horizon=5.0,
    median=9.0,
    high=9.0,
    later=9.0,
    least=9.0,
    now=9.0,
)


def chosen(rules: Rules, size: int = 0, peak: float = 8.0) -> Chosen:
    return Chosen("web", rules, size, workers=6.5, hours=18.0, least=2.0, most=7.0, peak=peak)


def a_second(seq: int, pool: Pool, *rules: Chosen) -> Tick:
    """12 Erlangs are expected, 9 by the seasonal pattern; the reactive rule goes by the load so far."""
    return a_tick(seq, machine=a_machine(cpus=64), pools=[pool], forecasts=[a_forecast("web", "load", 12.0)], chosen=rules)


def asked(tick: Tick, config: Config | None = None) -> Proposal[int] | None:
    proposals = Policy(config or Config(), PoolSizeMemory()).propose(tick)
    return proposals[0] if proposals else None


def size_of(proposal: Proposal[int] | None) -> int | None:
    if proposal is None:
        return None
    assert isinstance(proposal.action, ResizePool)
    return proposal.action.size


def a_web(size: int, load: float, **changes: object) -> Pool:
    return a_pool("web", size, load, **{"predicted": PREDICTED, "maximum": 32, **changes})  # type: ignore[arg-type]


def test_each_choice_leaves_the_size_to_other_rules() -> None:
    pool = a_web(2, 3.0)
    sizes = {
        "all": size_of(asked(a_second(1, pool))),
        "all, chosen": size_of(asked(a_second(1, pool, chosen(Rules.ALL)))),
        "forecast": size_of(asked(a_second(1, pool, chosen(Rules.FORECAST)))),
        "reactive": size_of(asked(a_second(1, pool, chosen(Rules.REACTIVE)))),
        "constant": size_of(asked(a_second(1, pool, chosen(Rules.CONSTANT, 8)))),
        "of another pool": size_of(asked(a_second(1, pool, msgspec.structs.replace(chosen(Rules.REACTIVE), pool="api")))),
    }
    assert sizes == {"all": 10, "all, chosen": 10, "forecast": 14, "reactive": 5, "constant": 8, "of another pool": 10}


def test_a_constant_size_is_within_the_limits_and_holds_for_any_load_that_was_replayed() -> None:
    assert size_of(asked(a_second(1, a_web(8, 7.9), chosen(Rules.CONSTANT, 8)))) is None
    assert size_of(asked(a_second(1, a_web(8, 0.1), chosen(Rules.CONSTANT, 8)))) is None
    assert size_of(asked(a_second(1, a_web(4, 1.0, maximum=6), chosen(Rules.CONSTANT, 8)))) == 6


def test_above_the_replayed_load_the_reactive_rule_adds_workers() -> None:
    assert size_of(asked(a_second(1, a_web(8, 8.7), chosen(Rules.CONSTANT, 8)))) is None
    proposal = asked(a_second(1, a_web(8, 9.1), chosen(Rules.CONSTANT, 8)))
    assert proposal is not None
    assert (size_of(proposal), proposal.why.rule) == (13, "reactive rule")


@pytest.mark.parametrize(("recent", "size"), [(15.9, None), (16.1, 23)])
def test_a_rush_of_twice_that_load_adds_them_at_once(recent: float, size: int | None) -> None:
    assert size_of(asked(a_second(1, a_web(8, 8.0, load_panic=recent), chosen(Rules.CONSTANT, 8)))) == size


def test_a_pool_shrinks_to_its_constant_size_once_no_more_was_needed() -> None:
    policy, sizes = Policy(Config(), PoolSizeMemory()), list[int | None]()
    for seq in range(1, 14):
        proposals = policy.propose(a_second(seq, a_web(12, 3.0), chosen(Rules.CONSTANT, 8)))
        sizes.append(size_of(proposals[0]) if proposals else None)
    assert sizes[:10] == [None] * 10
    assert sizes[11:] == [8, 8]


def test_the_reason_names_the_replay() -> None:
    proposal = asked(a_second(1, a_web(2, 3.0), chosen(Rules.CONSTANT, 8)))
    assert proposal is not None
    why, figures = proposal.why, dict(proposal.why.figures)
    assert (why.rule, why.text) == (
        "constant size",
        "web: 2 to 8 workers: a replay of 18 h of its load chose a constant size of 8.",
    )
    assert (figures["rules"], figures["workers_by_replay"], "workers_by_forecast" in figures) == ("constant", 8, False)
    took = "a constant size of 8 took 6.5 workers in a replay of 18 h"
    assert why.rejected == (f"the other rules: {took}, and none that was as good took clearly fewer",)
    assert why.flips == (
        "a mean load above 8.8 Erlang would add workers",
        "a load of other than 2 to 7 Erlang for ten minutes would bring back all rules",
    )


def test_an_objective_is_not_called_unkept_because_another_rule_would_take_more() -> None:
    web = PoolConfig(kind="command", command=["x"], maximum=32, objective=Objective(p95="700ms"))
    config, pool = Config(pools={"web": web}), a_web(2, 7.0, service=Service(35.0, 0.2, 0.54))
    policy = Policy(config, PoolSizeMemory())
    tick = a_second(1, pool, chosen(Rules.CONSTANT, 8))
    assert size_of(policy.propose(tick)[0]) == 8
    assert policy.notes(tick) == []
