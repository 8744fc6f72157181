"""Predicted waits and answer times: against closed forms, and against the simulated pool."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nicety.models.queueing import TAIL, Queue, Servers, Times
from nicety.scheduler.simulation.queueing import SimulatedQueue


def queue(load: float, times: Times, servers: int) -> Queue:
    found = Servers(load, times).queue(servers)
    assert found is not None
    return found


@pytest.mark.parametrize(("load", "servers"), [(0.3, 1), (0.7, 1), (3.0, 4), (9.6, 12), (300.0, 320), (4000.0, 4020)])
def test_those_who_wait_are_as_many_as_erlangs_formula_says(load: float, servers: int) -> None:
    lost = 1.0
    for count in range(1, servers + 1):
        lost = load * lost / (count + load * lost)
    assert queue(load, Times(1.0, 0.0), servers).waiting == pytest.approx(lost / (1 - load / servers * (1 - lost)), rel=1e-9)


def test_too_few_servers_have_no_steady_queue() -> None:
    assert Servers(4.0, Times(1.0, 0.8)).queue(4) is None
    assert Servers(4.0, Times(1.0, 0.8)).queue(5) is not None


@pytest.mark.parametrize(("mean", "sigma"), [(0.2, 0.3), (5.0, 0.8), (0.05, 1.4)])
def test_times_are_fitted_to_their_mean_and_quantile(mean: float, sigma: float) -> None:
    times = Times(mean, sigma)
    p95 = mean * math.exp(1.6448536 * sigma - sigma**2 / 2)
    assert times.longer(p95) == pytest.approx(TAIL, rel=1e-5)
    assert Times.fitted(mean, p95).sigma == pytest.approx(sigma, rel=1e-5)


@pytest.mark.parametrize(
    ("load", "servers", "sigma"), [(2.8, 4, 0.8), (0.6, 1, 0.8), (6.3, 8, 0.8), (12.0, 14, 0.8), (12.0, 16, 0.0), (4.0, 5, 1.3)]
)
def test_predicted_quantiles_are_those_of_the_simulated_pool(load: float, servers: int, sigma: float) -> None:
    chance, n, mean = np.random.default_rng(1), 200_000, 0.2
    arrivals = np.cumsum(chance.exponential(mean / load, n))
    services = chance.lognormal(math.log(mean) - sigma**2 / 2, sigma, n)
    pool = SimulatedQueue(arrivals, services, 1.0, servers)
    pool.advance(math.inf)
    took = pool.latencies(0.0)
    predicted = queue(load, Times(mean, sigma), servers)
    assert predicted.p95(predicted.takes_longer) == pytest.approx(float(np.quantile(took, 0.95)), rel=0.1)
    assert predicted.p95(predicted.waits_longer) == pytest.approx(float(np.quantile(took - services, 0.95)), rel=0.15, abs=0.02)
    assert predicted.length * load / mean == pytest.approx(float((took - services).mean()) * load / mean, rel=0.2)
