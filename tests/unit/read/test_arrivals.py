"""Which pids are looked at, as the newest one moves."""

from __future__ import annotations

from nicety.scheduler.read.arrivals import MOST_MISSED, Arrivals

EVERY = 10


class Machine:
    """Gives pids out, and counts what finding them takes."""

    def __init__(self) -> None:
        self.newest: int | None = 100
        self.living = {1, 40, 100}
        self.listings = 0
        self.tried: list[int] = []
        self.arrivals = Arrivals(self._listed, lambda: self.newest, self._lives)

    def _listed(self) -> list[str]:
        self.listings += 1
        return ["self", "stat", *map(str, sorted(self.living))]

    def _lives(self, pid: int) -> bool:
        self.tried.append(pid)
        return pid in self.living

    def begin(self, *pids: int) -> None:
        """These processes begin, the last one with the newest pid."""
        self.living.update(pids)
        self.newest = pids[-1]

    def look(self, *, others: tuple[int, ...] = (), known: set[int] | None = None) -> list[int]:
        """What is found where `known` (None: all that live) are known already."""
        return self.arrivals.look(self.living if known is None else known, others, EVERY)


def settled() -> Machine:
    """A machine that was listed, with its newest pid known for as long as needed."""
    machine = Machine()
    assert machine.look(known=set()) == [1, 40, 100]
    machine.look()
    machine.look()
    machine.listings = 0
    machine.tried.clear()
    return machine


def test_where_no_pid_was_given_out_nothing_is_looked_at() -> None:
    machine = settled()
    assert [machine.look() for _ in range(5)] == [[]] * 5
    assert (machine.listings, machine.tried) == (0, [])


def test_only_the_pids_that_were_given_out_are_tried_and_each_twice() -> None:
    machine = settled()
    known = set(machine.living) | {7, 8}  # more than are given out
    machine.begin(101, 103)
    machine.living.discard(102)
    assert machine.look(known=known) == [101, 103]
    machine.living.add(102)  # it had its pid, but could not be seen yet
    assert machine.look(known=known) == [101, 102, 103]
    assert machine.look(known=known) == []
    assert (machine.listings, machine.tried) == (0, [101, 102, 103] * 2)


def test_all_are_listed_after_a_wrap_after_a_storm_and_every_few_looks() -> None:
    for pid in (3, 5000):
        machine = settled()
        known = set(machine.living)
        machine.begin(pid)
        assert machine.look(known=known) == [pid]
        assert machine.listings == 1
    machine = settled()
    for _ in range(4 * EVERY):
        machine.look()
    assert machine.listings == 4


def test_a_chosen_pid_is_found_by_the_next_listing_and_the_third_ends_the_reliance_on_the_newest() -> None:
    machine = settled()
    for number in range(MOST_MISSED):
        known = set(machine.living)
        machine.living.add(50 + number)
        found = [machine.look(known=known) for _ in range(EVERY)]
        assert {pid for pids in found for pid in pids} == {50 + number}
    machine.listings = 0
    for _ in range(5):
        machine.look()
    assert machine.listings == 5


def test_without_a_newest_pid_each_look_is_a_listing() -> None:
    machine = settled()
    machine.newest = None
    known = set(machine.living)
    machine.living.add(30)
    assert machine.look(known=known) == [30]
    assert machine.look() == []
    assert machine.listings == 2


def test_of_what_has_no_row_only_a_pid_that_was_given_out_again_is_looked_at_again() -> None:
    machine = settled()
    processes = {1, 40, 77, 78}
    machine.begin(101)
    assert machine.look(known=processes, others=(100, 101)) == [101]
    machine.newest = 3  # the numbers began again
    assert machine.look(known=processes, others=(100, 101)) == []
