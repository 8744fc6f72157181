"""Pure parts of the benchmark on real pools, benchmarks/pools/real.py: spans of a count, the loads, what others are told."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import PoolSample, WorkerSample
from nicety.scheduler.config.sections import PoolConfig, parse


@pytest.fixture(scope="module")
def real() -> ModuleType:
    return importlib.import_module("benchmarks.pools.real")


@pytest.mark.parametrize(("since", "until", "seconds"), [(0, 4, 14), (1, 2.5, 5.5), (3, 10, 21), (5, 6, 3)])
def test_a_count_stays_until_the_next_look_and_the_last_one_for_good(
    real: ModuleType, since: float, until: float, seconds: float
) -> None:
    assert real.integral(np.array([0.0, 2.0, 3.0]), np.array([3.0, 5.0, 3.0]), since, until) == pytest.approx(seconds)


def test_a_load_repeats_and_brings_the_work_that_it_says(real: ModuleType) -> None:
    for shape in real.LOADS.values():
        erlangs = shape.erlangs(50)
        assert (erlangs[: real.PERIOD] == erlangs[-real.PERIOD :]).all()
        planned, services = real.schedule(shape, 50, 1)
        assert (np.diff(planned) >= 0).all()
        assert services.sum() == pytest.approx(erlangs.sum(), rel=0.05)
        high = erlangs[planned.astype(int)] == shape.high
        assert services[high].sum() / services.sum() == pytest.approx(shape.high * shape.seconds * 50 / erlangs.sum(), rel=0.05)
        small, usual, large = shape.fixed()
        assert erlangs.mean() < small <= usual < large  # each serves all that comes in the end


def test_the_daemon_is_told_to_size_these_pools_and_to_do_nothing_else(real: ModuleType) -> None:
    given = {
        "a-b": PoolConfig(kind="gunicorn", pidfile="/run/a\\b.pid"),
        "jobs": PoolConfig(kind="celery", pid=7, broker="redis://x/1"),
    }
    config = parse(real.daemon_config(given))
    assert not config.priority.enabled
    assert not config.placement.enabled
    assert not config.quarantine.enabled
    assert config.groups == {}
    assert {name: (pool.pidfile, pool.pid, pool.broker) for name, pool in config.pools.items()} == {
        "a-b": ("/run/a\\b.pid", None, "$CELERY_BROKER_URL"),
        "jobs": ("", 7, "redis://x/1"),
    }
    assert {(pool.minimum, pool.maximum) for pool in config.pools.values()} == {(real.MINIMUM, real.MAXIMUM)}


def test_a_rule_sees_the_load_as_the_daemon_counts_it(real: ModuleType) -> None:
    workers = (WorkerSample(ProcId(1, 1), 0.5, True), WorkerSample(ProcId(2, 1), 1.0, True), WorkerSample(ProcId(3, 1), 1.0, False))
    seen = real.as_seen(PoolSample("web", 3, 4, 2.5, workers, None, 4.0, ""), 10.0)
    assert (seen.load, seen.busy_mean, seen.queued_mean) == (4.0, 1.5, 2.5)
    assert (seen.size, seen.ready) == (4, 2)
