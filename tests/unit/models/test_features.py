"""Rates between two sample tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicety.models.features import rates, uncontended
from nicety.models.records import SAMPLE, Known, SampleTable

SECOND = 1_000_000_000


def table(*rows: dict[str, int]) -> SampleTable:
    made = np.zeros(len(rows), dtype=SAMPLE)
    for i, row in enumerate(rows):
        for name, value in row.items():
            made[name][i] = value
    return made


def test_a_counter_becomes_cores() -> None:
    before = table({"pid": 5, "start_ticks": 7, "cpu_ns": 10 * SECOND, "wait_ns": SECOND})
    after = table({"pid": 5, "start_ticks": 7, "cpu_ns": 11 * SECOND, "wait_ns": 2 * SECOND})
    rate = rates(before, after, 0, 2 * SECOND, 100)
    assert rate.cpu.tolist() == [0.5]
    assert rate.wait.tolist() == [0.5]
    assert rate.known.tolist() == [True]


def test_a_process_born_in_between_counts_from_zero() -> None:
    rate = rates(table(), table({"pid": 9, "start_ticks": 150, "cpu_ns": SECOND}), 0, SECOND, 100)
    assert rate.cpu.tolist() == [1.0]
    assert rate.known.tolist() == [True]


def test_an_older_process_first_seen_now_has_no_rate() -> None:
    rate = rates(table(), table({"pid": 9, "start_ticks": 50, "cpu_ns": 99 * SECOND}), 0, SECOND, 100)
    assert rate.cpu.tolist() == [0.0]
    assert rate.known.tolist() == [False]


def test_a_reused_pid_is_another_process() -> None:
    before = table({"pid": 5, "start_ticks": 7, "cpu_ns": 50 * SECOND})
    after = table({"pid": 5, "start_ticks": 180, "cpu_ns": SECOND})
    assert rates(before, after, 0, SECOND, 100).cpu.tolist() == [1.0]


def test_a_counter_that_went_back_is_no_negative_rate() -> None:
    before = table({"pid": 5, "start_ticks": 7, "cpu_ns": 50 * SECOND, "minor_faults": 9})
    after = table({"pid": 5, "start_ticks": 7, "cpu_ns": 40 * SECOND, "minor_faults": 3})
    rate = rates(before, after, 0, SECOND, 100)
    assert rate.cpu.tolist() == [0.0]
    assert rate.faults.tolist() == [0.0]


def test_io_is_known_only_where_both_tables_know_it() -> None:
    both = {"pid": 1, "start_ticks": 1, "known": int(Known.IO)}
    once = {"pid": 2, "start_ticks": 1, "known": 0}
    before = table({**both, "read_chars": 100}, once)
    after = table({**both, "read_chars": 300, "write_chars": 50}, {**once, "known": int(Known.IO), "read_chars": 7})
    chars = rates(before, after, 0, SECOND, 100).chars
    assert chars[0] == 250.0
    assert np.isnan(chars[1])


def test_tables_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="in order of time"):
        rates(table(), table(), 5, 5, 0)


# --- demand ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu", "wait", "threads", "demand"),
    [
        (0.3, 0.0, 1, 0.3),  # nobody stood in its way
        (0.2, 0.5, 1, 0.4),  # of the half in which it did not wait
        (0.25, 0.75, 1, 1.0),  # never sleeps
        (0.1, 0.93, 1, 1.0),  # likewise, measured a little late
        (0.05, 1.73 - 0.05, 64, 0.05 / (1 - 1.68 / 2)),  # a client in a crowd: what two of its threads could have done
        (1.0, 3.0, 4, 2.0),  # four hogs in a process, on two CPUs
        (0.5, 0.25, 0, 0.5 / 0.75),  # it has ended since, and had one at least
        (0.5, 0.0, 0, 0.5),  # a zombie has no threads, but what it used it used
        (0.3, 0.25, 0, 0.4),  # and it counts as one thread, which would have used more without the wait
        (1.5, 0.5, 1, 1.5),  # a thread that ended meanwhile
        (0.0, 0.9, 1, 0.0),
    ],
)
def test_what_a_process_would_have_used_by_itself(cpu: float, wait: float, threads: int, demand: float) -> None:
    (found,) = uncontended(np.array([cpu]), np.array([wait]), np.array([float(threads)]), 2.0).tolist()
    assert found == pytest.approx(demand)


def test_demand_is_that_of_the_same_cycle_without_the_wait() -> None:
    """10 ms of work, 40 ms of sleep, and 0 to 200 ms of waiting: a fifth of a core, always."""
    for waited in (0, 1, 10, 50, 200):
        cycle = 10 + waited + 40
        (found,) = uncontended(np.array([10 / cycle]), np.array([waited / cycle]), np.array([1.0]), 2.0).tolist()
        assert found == pytest.approx(0.2)


@given(
    st.lists(st.tuples(st.floats(0, 8), st.floats(0, 200), st.integers(0, 500)), min_size=1, max_size=5),
    st.integers(8, 64),
)
def test_demand_is_at_least_what_was_used_and_at_most_what_was_used_and_waited_for(
    processes: list[tuple[float, float, int]], cpus: int
) -> None:
    cpu, wait, threads = (np.array(column, dtype=np.float64) for column in zip(*processes, strict=True))
    demand = uncontended(cpu, wait, threads, float(cpus))
    assert (demand >= cpu).all()
    assert (demand <= np.maximum(cpu + wait, cpu)).all()
    assert (demand <= cpus).all()
    assert (demand <= np.maximum(cpu, np.maximum(threads, 1))).all()


# --- children that came and went ------------------------------------------------------------------------------------------------

SHELL = {"pid": 10, "start_ticks": 1, "ppid": 1}
MAKE = {"pid": 20, "start_ticks": 2, "ppid": 10}
CHILD = {"pid": 30, "start_ticks": 3, "ppid": 20}


def test_work_of_children_that_no_table_has_is_their_parents() -> None:
    before, after = table(SHELL, {**MAKE, "child_cpu_ns": SECOND}), table(SHELL, {**MAKE, "child_cpu_ns": 4 * SECOND})
    rate = rates(before, after, 0, 2 * SECOND, 100)
    assert rate.brief.tolist() == [0.0, 1.5]
    assert rate.cpu.tolist() == [0.0, 0.0]


def test_what_was_counted_of_a_child_is_not_counted_again_when_it_is_collected() -> None:
    before = table(SHELL, MAKE, {**CHILD, "cpu_ns": 50 * SECOND, "child_cpu_ns": 7 * SECOND})
    after = table(SHELL, {**MAKE, "child_cpu_ns": round(57.25 * SECOND)})
    assert rates(before, after, 0, SECOND, 100).brief.tolist() == [0.0, 0.25]


def test_a_whole_branch_that_ended_is_settled_with_who_is_left() -> None:
    before = table(SHELL, {**MAKE, "cpu_ns": SECOND, "child_cpu_ns": 3 * SECOND}, {**CHILD, "cpu_ns": 5 * SECOND})
    after = table({**SHELL, "child_cpu_ns": round(9.5 * SECOND)})
    assert rates(before, after, 0, SECOND, 100).brief.tolist() == [0.5]


def test_an_orphan_that_ended_is_settled_with_who_collected_it_further_up() -> None:
    init = {"pid": 1, "start_ticks": 0, "ppid": 0}
    before = table(init, SHELL, MAKE, {**CHILD, "cpu_ns": 1000 * SECOND})
    after = table({**init, "child_cpu_ns": round(1000.5 * SECOND)}, {**SHELL, "child_cpu_ns": round(0.25 * SECOND)})
    brief = rates(before, after, 0, SECOND, 100).brief
    assert brief.sum() == pytest.approx(0.75)


def test_a_child_that_went_just_after_its_parent_was_read_is_settled_in_the_next_table() -> None:
    first = table(SHELL, MAKE, {**CHILD, "cpu_ns": 50 * SECOND})
    second, third = table(SHELL, MAKE), table(SHELL, {**MAKE, "child_cpu_ns": round(50.25 * SECOND)})
    one = rates(first, second, 0, SECOND, 100)
    assert one.brief.tolist() == [0.0, 0.0]
    two = rates(second, third, SECOND, 2 * SECOND, 200, owed=one.owed)
    assert two.brief.tolist() == [0.0, 0.25]
    assert not two.owed.any()


def test_what_nobody_ever_collects_is_not_owed_for_ever() -> None:
    first = table(SHELL, MAKE, {**CHILD, "cpu_ns": 50 * SECOND})
    second = table(SHELL, MAKE)
    owed = rates(first, second, 0, SECOND, 100).owed
    owed = rates(second, second, SECOND, 2 * SECOND, 200, owed=owed).owed
    later = rates(second, table(SHELL, {**MAKE, "child_cpu_ns": SECOND}), 2 * SECOND, 3 * SECOND, 300, owed=owed)
    assert later.brief.tolist() == [0.0, 1.0]


def test_brief_children_never_used_more_than_the_cpus_could_do() -> None:
    """A parent may be read just after it collected a child that was read just before."""
    before = table({**SHELL, "cpu_ns": 0}, MAKE, {**CHILD, "cpu_ns": 50 * SECOND})
    after = table(
        {**SHELL, "cpu_ns": SECOND, "child_cpu_ns": 3 * SECOND},
        {**MAKE, "child_cpu_ns": 50 * SECOND},
        {**CHILD, "cpu_ns": 50 * SECOND},
    )
    rate = rates(before, after, 0, SECOND, 100, cpus=2)
    assert rate.cpu.sum() + rate.brief.sum() == pytest.approx(2.0)
    assert rate.brief.tolist() == [0.5, 0.5, 0.0]


def test_a_circle_of_parents_in_a_torn_table_ends() -> None:
    before = table(SHELL, {**MAKE, "ppid": 30, "cpu_ns": SECOND}, {**CHILD, "cpu_ns": SECOND})
    assert rates(before, table({**SHELL, "child_cpu_ns": SECOND}), 0, SECOND, 100).brief.tolist() == [1.0]


def test_who_ends_before_he_gained_what_he_owed_leaves_it_to_who_collects_him() -> None:
    first = table(SHELL, MAKE, {**CHILD, "cpu_ns": 50 * SECOND})
    second, third = table(SHELL, MAKE), table(SHELL)
    owed = rates(first, second, 0, SECOND, 100).owed
    owed = rates(second, third, SECOND, 2 * SECOND, 200, owed=owed).owed
    last = rates(third, table({**SHELL, "child_cpu_ns": round(50.25 * SECOND)}), 2 * SECOND, 3 * SECOND, 300, owed=owed)
    assert last.brief.tolist() == [0.25]
