"""An observer that goes on from another: nothing that did not change is learned again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from nicety.models.artifact import shipped
from nicety.models.behaviour import BehaviourModel
from nicety.models.forecast.network import Network
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Class, HostSample, Identity, Known, PoolSample, Snapshot, Trait, WorkerSample
from nicety.scheduler.config.sections import Config, parse
from nicety.scheduler.decision import Abilities, Tick, encode
from nicety.scheduler.observe.observer import Observer

SERVICE, HOG, WORKER = ProcId(10, 200), ProcId(20, 300), ProcId(30, 400)
IDENTITIES = {
    SERVICE: Identity("server", "server", "/", "", 0),
    HOG: Identity("hog", "hog", "/", "", 0),
    WORKER: Identity("worker", "worker", "/", "", 0),
}
SECOND = 10**9
POOL = '[pools.jobs]\nkind = "command"\ncommand = ["worker"]\n'


def snapshot(tick: int) -> Snapshot:
    """A service of 500 short answers a second, a hog of a whole CPU, and a pool of one worker."""
    table = np.zeros(3, dtype=SAMPLE)
    rows = ((SERVICE, 0.2, 500, Trait.SERVES), (HOG, 1.0, 250, 0), (WORKER, 0.3 + 0.1 * (tick % 5), 100, 0))
    for row, (id_, cores, timeslices, traits) in zip(table, rows, strict=True):
        row["pid"], row["start_ticks"], row["session"], row["threads"] = id_.pid, id_.start_ticks, id_.pid, 1
        row["cpu_ns"], row["timeslices"] = round(cores * tick * SECOND), timeslices * tick
        row["known"], row["traits"] = Known.WAIT | Known.SOCKETS, traits
    host = HostSample((tick * SECOND, tick * SECOND // 2), 8 << 30, 6 << 30, None)
    pool = PoolSample("jobs", 1, 1, float(tick % 3), (WorkerSample(WORKER, 0.5, ready=True),), None, None, "")
    return Snapshot(tick * SECOND, tick * SECOND, 10_000 + 100 * tick, table, IDENTITIES, host, (pool,))


def behaviour(digest: str = "") -> BehaviourModel:
    found = shipped("behaviour")
    assert found is not None
    return BehaviourModel.from_arrays(found.arrays, digest or found.digest)


def demand(digest: str = "") -> Network:
    found = shipped("demand")
    assert found is not None
    return Network(found.arrays, digest or found.digest)


def made(config: Config, network: Network | None = None, model: BehaviourModel | None = None) -> Observer:
    rights = Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True)
    return Observer(config, rights, ProcId(5, 5), network or demand(), None, model or behaviour())


def run(observer: Observer, ticks: Sequence[int]) -> list[Tick]:
    return [observer.tick(snapshot(tick), (), paused=False) for tick in ticks]


def classes(tick: Tick) -> dict[str, Class]:
    return {group.name: group.class_ for group in tick.groups}


def followed(
    text: str, then: str, *, model: BehaviourModel | None = None, network: Network | None = None
) -> tuple[Tick, list[Tick]]:
    """(the last of 40 ticks of an observer with the first configuration, those of one with the second that goes on from it)."""
    before = made(parse(text))
    last = run(before, range(1, 41))[-1]
    after = made(parse(then), network, model)
    after.follow(before)
    return last, run(after, range(41, 46))


def test_without_a_change_it_is_as_if_there_had_been_no_break() -> None:
    whole = run(made(parse(POOL)), range(1, 46))[40:]
    _, after = followed(POOL, POOL)
    assert [msgspec.structs.replace(tick, seq=0) for tick in after] == [msgspec.structs.replace(tick, seq=0) for tick in whole]
    assert [encode(tick.forecasts) for tick in after] == [encode(tick.forecasts) for tick in whole]
    assert [tick.seq for tick in after] == [0, 1, 2, 3, 4]
    assert not after[0].gap


def test_classes_forecasts_and_pools_are_kept_where_limits_and_classes_alone_change() -> None:
    last, after = followed(POOL, POOL + "maximum = 20\nminimum = 1\n[guard]\ncooldown = 3.0\n[priority]\nwait = 0.2\n")
    assert classes(last)["program server"] is Class.INTERACTIVE
    assert classes(last)["program hog"] is Class.BATCH
    assert classes(after[0]) == classes(last)
    assert after[0].pools[0].load_stable == pytest.approx(last.pools[0].load_stable or 0.0, rel=0.1)
    assert after[0].pools[0].cpu_per_worker == pytest.approx(last.pools[0].cpu_per_worker, rel=0.2)


def test_a_group_that_is_defined_otherwise_begins_anew_and_the_others_do_not() -> None:
    rules = '[groups.web]\nprogram = "server"\n'
    last, after = followed(POOL + rules, POOL + '[groups.web]\nprogram = "hog"\n')
    assert classes(last) == {"web": Class.INTERACTIVE, "program hog": Class.BATCH, "jobs": classes(last)["jobs"]}
    assert classes(after[0])["web"] is not Class.INTERACTIVE, "what the server did says nothing of the hog"
    assert {group.name: group.cpu for group in after[0].groups}["web"] == pytest.approx(1.0)
    kept = [forecast for forecast in after[0].forecasts if forecast.target == "jobs"]
    assert encode(kept) == encode([f for f in followed(POOL + rules, POOL + rules)[1][0].forecasts if f.target == "jobs"])


def test_a_pool_that_is_another_one_now_begins_anew() -> None:
    same, other = followed(POOL, POOL), followed(POOL, POOL.replace('"worker"', '"other"'))
    assert same[1][0].pools[0].load_stable != other[1][0].pools[0].load_stable
    assert other[1][0].pools[0].load_stable == other[1][0].pools[0].load
    assert classes(other[1][0])["program server"] is Class.INTERACTIVE


def test_another_behaviour_model_tells_classes_from_what_was_seen_before() -> None:
    last, after = followed(POOL, POOL, model=behaviour("ab" * 32))
    assert classes(after[0]) == classes(last)
    (group,) = (group for group in after[0].groups if group.name == "program server")
    assert group.behaviour is not None
    assert group.behaviour.source == "behaviour abababab", "of the new model"


def test_another_demand_model_begins_without_what_was_said_by_the_one_before_and_with_the_history() -> None:
    _, same = followed(POOL, POOL)
    _, after = followed(POOL, POOL, network=demand("cd" * 32))
    alone = run(made(parse(POOL), demand("cd" * 32)), range(41, 46))
    sources = {forecast.source for tick in after for forecast in tick.forecasts}
    assert not any(source == demand().name for source in sources)
    assert {f.target for f in after[0].forecasts} == {f.target for f in same[0].forecasts}
    assert alone[0].gap
    by_experts = [(f.target, f.metric) for f in same[0].forecasts if f.source == "experts"]
    for one, other in zip(same[0].forecasts, after[0].forecasts, strict=True):
        if (one.target, one.metric) in by_experts:
            assert np.isfinite(np.array(other.values)).all()


def test_another_interval_is_not_gone_on_from() -> None:
    with pytest.raises(ValueError, match="another interval"):
        made(parse("[daemon]\ninterval = 2.0\n")).follow(made(parse("")))


def test_a_hole_between_the_two_is_a_gap() -> None:
    before = made(parse(POOL))
    run(before, range(1, 20))
    after = made(parse(POOL))
    after.follow(before)
    first, second = run(after, [60, 61])
    assert (first.gap, second.gap) == (True, False)
    assert classes(second)["program server"] is Class.INTERACTIVE


def test_the_order_of_rules_counts() -> None:
    one, two = '[groups.a]\nprogram = "s*"\n', '[groups.b]\nprogram = "server"\n'
    last, after = followed(POOL + one + two, POOL + two + one)
    assert "a" in classes(last)
    assert "b" in {group.name for group in after[-1].groups}


def test_the_pool_of_a_removed_section_is_grouped_by_its_program_again() -> None:
    before = made(parse(POOL))
    run(before, range(1, 20))
    after = made(parse(""))
    after.follow(before)
    gone = [replace(snapshot(tick), pools=()) for tick in (20, 21, 22)]
    ticks = [after.tick(each, (), paused=False) for each in gone]
    assert "program worker" in {group.name for group in ticks[-1].groups}
