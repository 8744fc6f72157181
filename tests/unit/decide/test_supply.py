"""What a victim lacks, who can supply it, and when the neighbours are not to blame."""

from __future__ import annotations

import msgspec
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.decide.policies.priority.supply import apart, foreseen_use, helpers, lacks, others, throttled, unseen
from nicety.scheduler.decision import Group, Member
from nicety.scheduler.testing.ticks import a_group, a_machine


def service(cpu: float, wait: float, **changes: float) -> Group:
    return msgspec.structs.replace(a_group("service", Class.INTERACTIVE, cpu=cpu, wait=wait), **changes)


@pytest.mark.parametrize(
    ("cpu", "wait", "expected"),
    [(0.4, 0.3, 0.3), (0.1, 6.03, 1.9), (1.9, 3.0, 0.1), (2.0, 1.0, 0.0), (2.1, 1.0, 0.0)],
)
def test_a_group_lacks_what_it_waits_for_within_the_machine(cpu: float, wait: float, expected: float) -> None:
    assert lacks(service(cpu, wait), 2) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("frees", "lacking", "able"),
    [
        ({"hogs": 1.6}, 0.05, {"hogs"}),  # redis at 20 %
        ({"hogs": 1.4}, 1.2, {"hogs"}),  # and at 60 %
        ({"hog": 1.0}, 0.05, {"hog"}),
        ({f"batch {number}": 0.1 for number in range(20)}, 1.9, {f"batch {number}" for number in range(20)}),
        ({"xz": 1.9}, 2.0, {"xz"}),
        ({"hogs": 1.6, "bystander": 0.054}, 1.9, {"hogs"}),
        ({"bystander": 0.054}, 1.95, set()),
        ({"bystander": 0.054, "another": 0.06}, 0.5, set()),
        ({"bystander": 0.054}, 0.5, set()),
        ({"small": 0.04}, 0.01, set()),  # too little to be what anybody suffers from
        ({"hogs": 1.6}, 0.0, set()),
        ({}, 1.0, set()),
    ],
)
def test_who_can_supply_a_good_part_helps(frees: dict[str, float], lacking: float, able: set[str]) -> None:
    found, together = helpers(frees, lacking)
    assert found == able
    assert together == pytest.approx(sum(frees[name] for name in able))


def test_what_is_foreseen_of_a_group_is_what_it_has_and_what_is_idle() -> None:
    resting, full = a_group("batch", Class.BATCH), a_group("batch", Class.BATCH, cpu=0.054, wait=1.7)
    assert foreseen_use(resting, 4.0, a_machine(busy=0.4)) == pytest.approx(1.6)
    assert foreseen_use(resting, 0.3, a_machine(busy=0.4)) == pytest.approx(0.3)
    assert foreseen_use(full, 1.73, a_machine(busy=2.0)) == pytest.approx(0.054)
    assert foreseen_use(full, 4.0, a_machine(busy=-9.0)) == 2.0, "at most the CPUs"


@pytest.mark.parametrize(
    ("cpu", "wait", "share", "expected"),
    [
        (0.5, 0.5, 0.5, True),  # one thread at half a CPU of quota
        (0.5, 3.5, 0.87, True),  # four of them
        (0.08, 0.1, 0.1, True),  # mostly idle, and stopped when it has work
        (0.4, 0.2, 0.05, False),  # stopped now and then, delayed by others
        (0.4, 0.2, 0.0, False),
        (0.4, 0.004, 0.5, False),  # it does not wait
    ],
)
def test_a_group_whose_quota_explains_half_of_its_wait_is_no_victim(cpu: float, wait: float, share: float, expected: bool) -> None:
    assert throttled(service(cpu, wait, throttled=share)) is expected


@pytest.mark.parametrize(
    ("busy", "hidden", "steal", "before", "expected"),
    [
        (2.0, 1.9, 0.0, False, True),
        (0.6, 0.0, 1.4, False, True),  # another guest
        (2.0, 0.3, 0.0, False, False),  # hogs that are seen use the rest
        (0.5, 0.4, 0.0, False, False),  # nobody is pressed
        (2.0, 0.9, 0.0, False, True),
        (2.0, 0.8, 0.0, False, False),
        (2.0, 0.8, 0.0, True, True),  # less than at first is enough to go on
        (2.0, 0.6, 0.0, True, False),
        (1.3, 1.0, 0.0, False, False),
        (1.3, 1.0, 0.0, True, True),
    ],
)
def test_pressure_is_unseen_where_most_of_what_others_use_belongs_to_nobody(
    busy: float, hidden: float, steal: float, before: bool, expected: bool
) -> None:
    machine, protected = a_machine(busy=busy, unseen=hidden, steal=steal), [service(0.3, 1.0)]
    assert others(machine, protected) == pytest.approx(busy + steal - 0.3)
    assert unseen(machine, protected, before) is expected


def test_little_that_is_unseen_is_no_pressure_however_little_others_use() -> None:
    busy = [service(1.9, 1.0)]
    assert not unseen(a_machine(busy=2.0, unseen=0.1), busy, False)
    assert unseen(a_machine(busy=2.0, unseen=0.3), busy, False)


def bound(*cpus: tuple[int, ...]) -> Group:
    """A group with a member for each of these."""
    members = [Member(ProcId(pid, pid), pid, "/", 0, 1, each, 0) for pid, each in enumerate(cpus, 10)]
    return a_group("bound", Class.BATCH, members, cpu=1.0)


@pytest.mark.parametrize(
    ("victim", "contender", "expected"),
    [
        (bound((0,)), bound((1,), (1,)), True),
        (bound((0,), (2, 3)), bound((1,)), True),
        (bound((0,)), bound((1,), (0, 1)), False),
        (bound(()), bound((1,)), False),  # it may use all, or nobody knows
        (bound((0,)), bound((1,), ()), False),
        (bound(), bound((1,)), False),
    ],
)
def test_who_is_bound_to_other_cpus_does_not_compete(victim: Group, contender: Group, expected: bool) -> None:
    assert apart(victim, contender) is expected
    assert apart(contender, victim) is expected
