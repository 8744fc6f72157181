"""An observer of another run of the daemon: forecasts go on from what was kept, and pools that start slowly see further ahead."""

from __future__ import annotations

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import LATER, QUANTILES, SAMPLE, HostSample, Identity, Known, PoolSample, Snapshot, Trait, WorkerSample
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Abilities, Tick
from nicety.scheduler.observe.observer import Observer, TickInputs

SECOND = 10**9
SERVICE, WORKER = ProcId(10, 200), ProcId(30, 400)
IDENTITIES = {SERVICE: Identity("server", "server", "/", "", 0), WORKER: Identity("worker", "worker", "/", "", 0)}
POOL = '[pools.jobs]\nkind = "command"\ncommand = ["worker"]\n'


def snapshot(tick: int, start_seconds: float | None = None) -> Snapshot:
    """A service that is busy in every other ten ticks, and a pool of one worker with a load of 4."""
    table = np.zeros(2, dtype=SAMPLE)
    busy = sum(0.1 if at // 10 % 2 else 0.5 for at in range(tick))
    for row, (id_, cores) in zip(table, ((SERVICE, busy), (WORKER, 0.3 * tick)), strict=True):
        row["pid"], row["start_ticks"], row["session"], row["threads"] = id_.pid, id_.start_ticks, id_.pid, 1
        row["cpu_ns"], row["timeslices"] = round(cores * SECOND), 500 * tick
        row["known"], row["traits"] = Known.WAIT | Known.SOCKETS, Trait.SERVES if id_ == SERVICE else 0
    pool = PoolSample("jobs", 1, 1, 3.0, (WorkerSample(WORKER, 1.0, ready=True),), None, start_seconds, "")
    host = HostSample((tick * SECOND, tick * SECOND // 2), 8 << 30, 6 << 30, None)
    return Snapshot(tick * SECOND, tick * SECOND, 10_000 + 100 * tick, table, IDENTITIES, host, (pool,))


def made() -> Observer:
    rights = Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True)
    return Observer(parse(POOL), rights, ProcId(5, 5), None, None, None)


def demand(tick: Tick) -> float:
    """Median demand of the service six ticks ahead."""
    (found,) = (it for it in tick.forecasts if it.metric == "cpu" and "server" in it.target)
    return found.values[2][0]


def test_forecasts_go_on_from_what_was_kept() -> None:
    before, again, anew = made(), made(), made()
    for tick in range(1, 246):
        before.tick(snapshot(tick), (), paused=False)
    again.remember(before.kept())
    last = [[each.tick(snapshot(tick), (), paused=False) for tick in (246, 247, 248)][-1] for each in (before, again, anew)]
    assert [demand(tick) for tick in last[:2]] == pytest.approx([0.1, 0.1], abs=0.05), "six ticks later it is calm"
    assert demand(last[2]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("start", "sees"), [(None, False), (20.0, False), (26.0, True)])
def test_only_pools_that_start_slowly_see_further_ahead(start: float | None, sees: bool) -> None:
    observer = made()
    ticks = [observer.tick(snapshot(tick, start), (), paused=False) for tick in range(1, 60)]
    assert [tick.pools[0].later is not None for tick in ticks[2:]] == [sees] * 57
    later = ticks[-1].pools[0].later
    if later is not None:
        assert later.source == "values of the last minutes"
        assert [len(row) for row in later.values] == [len(QUANTILES)] * len(LATER)
        assert later.values[1][0] == pytest.approx(4.0, rel=0.05)


def test_several_ticks_at_once_see_the_same() -> None:
    one, other = made(), made()
    shots = [snapshot(tick, 60.0) for tick in range(1, 80)]
    single = [one.tick(shot, (), paused=False) for shot in shots]
    together = other.ticks((shot, TickInputs((), False, (), (), ())) for shot in shots)
    assert [tick.pools for tick in together] == [tick.pools for tick in single]
