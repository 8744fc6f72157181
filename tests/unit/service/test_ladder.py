"""The daemon's own priority: up at once where its ticks wait, down again in its own time, and no to and fro."""

from __future__ import annotations

import pytest

from nicety.scheduler.service.own.ladder import CALM_NS, MOST_CALM_NS, NICES, Ladder, Rest

SECOND = 10**9
MOST = SECOND // 4


class Run:
    """A ladder and a machine on which a tick waits as long as its nice tells: `waits` maps a nice to ns."""

    def __init__(self, waits: dict[int, int]) -> None:
        self.ladder, self.waits, self.at, self.late = Ladder(), waits, SECOND, 0

    def turns(self, seconds: int, rest: Rest = Rest.USUAL) -> list[int]:
        """Nice in each tick."""
        seen = []
        for _ in range(seconds):
            self.at += SECOND
            self.ladder.follow(self.at, rest)
            seen.append(self.ladder.nice)
            waited = self.waits.get(self.ladder.nice, 0)
            self.late += waited > MOST
            self.ladder.ticked(self.at, waited, MOST)
        return seen


def overloaded(enough: int) -> dict[int, int]:
    """Ticks wait for a second at any nice above `enough`."""
    return {nice: SECOND for nice in NICES if nice > enough}


def test_on_a_calm_machine_it_stands_where_it_should_rest() -> None:
    run = Run({})
    assert run.turns(3) == [0, 0, 0]
    assert run.turns(2, Rest.ASIDE) == [10, 10]
    assert run.turns(3, Rest.BACK) == [19, 19, 19]
    assert run.turns(2, Rest.ASIDE) == [10, 10]
    assert run.turns(2) == [0, 0]
    assert run.turns(1, Rest.BACK) == [19], "nothing was late: at once again"


def test_where_ticks_wait_it_climbs_although_nothing_is_demoted() -> None:
    run = Run(overloaded(enough=-15))
    assert run.turns(4) == [0, -10, -20, -20]
    assert run.late == 2


@pytest.mark.parametrize(("waited", "nice"), [(MOST, 0), (MOST + 1, -5), (3 * MOST, -5), (4 * MOST, -10), (60 * SECOND, -20)])
def test_it_climbs_as_far_as_makes_up_for_what_it_waited(waited: int, nice: int) -> None:
    ladder = Ladder()
    ladder.ticked(SECOND, waited, MOST)
    assert ladder.nice == nice


def test_a_daemon_that_needs_more_keeps_it_when_something_is_demoted() -> None:
    run = Run(overloaded(enough=-5))
    run.turns(5)
    assert set(run.turns(20, Rest.BACK)) == {-10}


def test_it_goes_down_a_rung_at_a_time_once_the_load_is_over() -> None:
    run = Run(overloaded(enough=-20))
    run.turns(5)
    run.waits.clear()
    seen = run.turns(5 * CALM_NS // SECOND)
    assert seen == sorted(seen)
    assert sorted(set(seen)) == [-20, -15, -10, -5, 0]
    assert seen.count(-15) == CALM_NS // SECOND


def test_it_gives_way_to_a_service_in_the_end() -> None:
    run = Run({19: SECOND, 10: SECOND})
    assert run.turns(3, Rest.BACK) == [19, 0, 0]
    run.waits.clear()
    assert run.turns(2 * CALM_NS // SECOND, Rest.BACK)[-1] == 19


@pytest.mark.parametrize("enough", [-20, -15, -10, -5])
@pytest.mark.parametrize("rest", Rest)
def test_under_a_lasting_load_it_does_not_go_to_and_fro(enough: int, rest: Rest) -> None:
    run = Run(overloaded(enough))
    run.turns(3600, rest)
    assert run.late <= 3 + 10, "some at the start, and each try to go down, which come twice as seldom each time"
    late = run.late
    run.turns(3600, rest)
    assert run.late - late <= 3600 * SECOND // MOST_CALM_NS + 1


def test_after_a_lasting_load_its_patience_is_usual_again() -> None:
    run = Run(overloaded(enough=-20))
    run.turns(3600)
    run.waits.clear()
    run.turns(4 * 3600)
    run.waits.update(overloaded(enough=-5))
    run.turns(3)
    assert run.ladder.nice < 0
    run.waits.clear()
    assert run.turns(4 * CALM_NS // SECOND)[-1] == 0
