"""Who ran on which CPU: pinned work stays where it is, the rest goes where the CPUs were busy."""

from __future__ import annotations

import numpy as np
import pytest

from nicety.models.features import Floats
from nicety.models.identity import ProcId
from nicety.models.occupancy import fitted
from nicety.models.records import SAMPLE, HostSample, Identity, Snapshot
from nicety.scheduler.observe import occupancy as module
from nicety.scheduler.observe.occupancy import Occupancy, busy_between, occupancy
from nicety.scheduler.testing.observed import a_rate

# (cores, last CPU, threads, CPUs that it may use)
Rows = list[tuple[float, int, int, tuple[int, ...]]]


def ran(
    rows: Rows, busy: list[float], outside: float = 0.0, online: tuple[int, ...] = (), brief: tuple[float, ...] = ()
) -> Occupancy:
    table, ids = np.zeros(len(rows), dtype=SAMPLE), [ProcId(pid, 1) for pid in range(1, len(rows) + 1)]
    for row, (_, last, threads, _) in zip(table, rows, strict=True):
        row["last_cpu"], row["threads"] = last, threads
    identities = {id_: Identity("x", "x", "/", "", 0, cpus=row[3]) for id_, row in zip(ids, rows, strict=True)}
    snapshot = Snapshot(1, 0, 0, table, identities, HostSample((), 1, 1, None), ())
    return occupancy(snapshot, a_rate([row[0] for row in rows], brief=brief), ids, np.array(busy), outside, online)


def test_pinned_work_stays_and_the_rest_fills_what_was_busy() -> None:
    found = ran([(0.9, 0, 1, (0,)), (1.0, 0, 4, ())], [1.0, 0.9])
    assert found.on[0].tolist() == pytest.approx([0.9, 0.0])
    assert found.on[1].tolist() == pytest.approx([0.1, 0.9], abs=0.06)


def test_a_single_thread_is_where_it_ran_last_unless_that_cpu_was_idle() -> None:
    assert ran([(0.5, 1, 1, ())], [0.02, 0.5]).on[0].tolist() == pytest.approx([0.0, 0.5], abs=0.03)
    assert ran([(0.5, 1, 1, ())], [0.5, 0.0]).on[0][0] > 0.4
    assert ran([(0.5, 1, 1, ())], [0.0, 0.0]).on[0].tolist() == [0.0, 0.5], "nothing is known of the CPUs"


def test_each_user_keeps_what_it_used_and_brief_children_are_users_of_their_own() -> None:
    found = ran([(0.4, 0, 1, ()), (0.0, 0, 1, ()), (0.2, 1, 3, (1,))], [0.8, 0.5], 0.3, brief=(0.4, 0.0, 0.0))
    assert found.rows.tolist() == [0, 2, 0]
    assert found.brief.tolist() == [False, False, True]
    assert found.on.sum(axis=1).tolist() == pytest.approx([0.4, 0.2, 0.4])
    assert float(found.outside.sum()) == pytest.approx(0.3)
    assert found.on[1].tolist() == pytest.approx([0.0, 0.2])


def test_cpus_may_have_gaps_and_unknown_numbers_are_harmless() -> None:
    found = ran([(0.5, 4, 1, (4,)), (0.3, 9, 1, ()), (0.3, 0, 2, (0, 9))], [0.8, 0.5], online=(0, 4))
    assert found.cpus.tolist() == [0, 4]
    assert found.on[0].tolist() == pytest.approx([0.0, 0.5])
    assert np.isfinite(found.on).all()


def test_busy_time_that_cannot_be_compared_is_not_known() -> None:
    def host(*busy: int) -> Snapshot:
        return Snapshot(sum(busy) + 1, 0, 0, np.zeros(0, dtype=SAMPLE), {}, HostSample(busy, 1, 1, None), ())

    assert busy_between(host(10, 20), host(15, 35)).tolist() == [0.25, 0.75]
    assert busy_between(host(10), host(15, 35)).tolist() == [0.0, 0.0]
    assert busy_between(host(), host()).tolist() == [0.0]


@pytest.mark.parametrize("seed", range(20))
def test_the_fit_keeps_rows_and_zeros_and_comes_near_the_columns(seed: int) -> None:
    chance = np.random.default_rng(seed)
    true = chance.gamma(0.5, 0.2, (12, 4)) * (chance.random((12, 4)) < 0.7)
    true[0] = 0.1
    true[true.sum(axis=1) == 0.0, 0] = 0.01
    guess: Floats = np.where(true > 0.0, 1.0, 0.0)
    found = fitted(guess, true.sum(axis=1), true.sum(axis=0))
    assert np.allclose(found.sum(axis=1), true.sum(axis=1))
    assert not found[true == 0.0].any()
    first = np.abs((guess * (true.sum(axis=1) / guess.sum(axis=1))[:, None]).sum(axis=0) - true.sum(axis=0)).max()
    assert np.abs(found.sum(axis=0) - true.sum(axis=0)).max() <= max(0.25 * first, 0.01)


def test_of_too_many_processes_those_that_ran_most_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RAN", 2)
    found = ran([(0.1, 0, 1, ()), (0.3, 0, 1, ()), (0.0, 0, 1, ()), (0.2, 1, 1, ())], [0.4, 0.2])
    assert found.rows.tolist() == [1, 3]
