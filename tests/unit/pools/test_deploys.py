"""Workers that are replaced are told from workers that are added, by what becomes of the old ones."""

from __future__ import annotations

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.pools.sensing.deploys import GRACE_NS, UNDECIDED_NS, Turn, Turnover

T = 1000 * 1_000_000_000
OLD = [ProcId(10, 1), ProcId(11, 1), ProcId(12, 1)]
NEW = [ProcId(20, 2), ProcId(21, 2), ProcId(22, 2)]


def opened(young: int = 3) -> Turnover:
    """A turn-over with three old workers and some new ones."""
    turnover = Turnover()
    there = list(OLD)
    for worker in NEW[:young]:
        turnover.born(worker, there, T)
        there.append(worker)
    return turnover


def test_without_births_there_is_nothing() -> None:
    turnover = Turnover()
    turnover.gone(OLD[0])
    turnover.at_work(OLD[1], T)
    assert turnover.turn(T, listens=True) is Turn.NONE


def test_a_reload_is_told_at_once_when_the_last_old_worker_has_gone() -> None:
    turnover = opened()
    for worker in OLD:
        assert turnover.turn(T, listens=False) is Turn.OPEN
        turnover.gone(worker)
    assert turnover.turn(T, listens=False) is Turn.REPLACED
    assert turnover.replaced == 3
    assert turnover.turn(T, listens=True) is Turn.NONE, "said once"


@pytest.mark.parametrize("young", [1, 3])
def test_a_hand_is_told_by_an_old_worker_that_goes_on(young: int) -> None:
    turnover = opened(young)
    turnover.at_work(OLD[0], T + GRACE_NS - 1)  # its SIGTERM may still be on the way
    turnover.at_work(NEW[0], T + 2 * GRACE_NS)  # new ones take work in either case
    assert turnover.turn(T + 2 * GRACE_NS, listens=True) is Turn.OPEN
    turnover.at_work(OLD[0], T + GRACE_NS)
    assert turnover.turn(T + 2 * GRACE_NS, listens=True) is Turn.ADDED
    assert not turnover.open


def test_a_crash_beside_a_hand_is_no_deploy() -> None:
    turnover = opened(1)
    turnover.gone(OLD[0])
    assert turnover.turn(T + 2 * GRACE_NS, listens=True) is Turn.OPEN
    turnover.at_work(OLD[1], T + 2 * GRACE_NS)
    assert turnover.turn(T + 2 * GRACE_NS, listens=True) is Turn.ADDED


def test_an_old_worker_at_a_long_request_holds_a_reload_up_only_while_its_master_does() -> None:
    turnover = opened()
    for worker in OLD[:2]:
        turnover.gone(worker)
    at = T + GRACE_NS
    assert turnover.turn(at, listens=False) is Turn.OPEN
    assert turnover.text() == "deploying: 2 of 3 workers are replaced, the others still end their requests"
    assert turnover.turn(at - 1, listens=True) is Turn.OPEN, "its SIGTERM may still be on the way"
    assert turnover.turn(at, listens=True) is Turn.REPLACED
    assert turnover.old == {OLD[2]}


def test_what_cannot_be_seen_is_somebodys_hand_in_the_end() -> None:
    turnover = opened()
    assert turnover.turn(T + UNDECIDED_NS - 1, listens=True) is Turn.OPEN
    assert turnover.text().startswith("workers came that nicety did not ask for")
    assert turnover.turn(T + UNDECIDED_NS, listens=True) is Turn.ADDED


def test_a_fork_that_became_another_program_was_no_worker() -> None:
    turnover = opened(1)
    turnover.gone(NEW[0])
    assert not turnover.open
    assert turnover.turn(T + UNDECIDED_NS, listens=True) is Turn.NONE
    turnover.born(NEW[1], OLD, T + UNDECIDED_NS)
    assert turnover.turn(T + UNDECIDED_NS, listens=True) is Turn.OPEN, "the next turn-over begins anew"
