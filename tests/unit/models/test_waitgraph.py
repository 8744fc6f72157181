"""Who waits in vain, and what is called a deadlock: the rules, on graphs small enough to read."""

from __future__ import annotations

from dataclasses import replace

from nicety.models.anomaly.waitgraph import PATIENCE_NS, UNLESS, DeadlockWatch, Halt, Thread, WaitSnapshot, in_vain
from nicety.models.identity import ProcId
from nicety.models.records import Blocked, Deadlock

A, B, C, D = (ProcId(pid, 1) for pid in (10, 20, 30, 40))
SECOND = 1_000_000_000


def halt(process: ProcId, *helpers: ProcId, tid: int = 0, owner: int | None = None, named: bool = True, turn: int = 5) -> Halt:
    return Halt(Thread(process, tid or process.pid), turn, f"thing {process.pid}", helpers, owner, named, sure=True)


def look(*halts: Halt, lively: tuple[ProcId, ...] = ()) -> WaitSnapshot:
    """Processes have no other threads unless they are `lively`; the workers are A, B and C."""
    return WaitSnapshot(halts, frozenset(each.thread.process for each in halts) - set(lively), frozenset({A, B, C}))


def told(*looks: WaitSnapshot) -> tuple[Deadlock, ...]:
    """At the last of some looks, a patience apart."""
    watch = DeadlockWatch()
    return [watch.step(number * PATIENCE_NS, each) for number, each in enumerate(looks)][-1]


def twice(each: WaitSnapshot) -> list[list[tuple[ProcId, ProcId | None]]]:
    """(waiter, holder) of each deadlock when nothing changes."""
    return [[(wait.waiter, wait.holder) for wait in deadlock.waits] for deadlock in told(each, each)]


def test_two_that_hold_what_the_other_wants_are_a_deadlock_with_who_waits_for_what_since_when() -> None:
    seen = look(halt(B, A), halt(A, B))
    (deadlock,) = told(seen, seen, seen)
    assert deadlock == Deadlock((Blocked(A, 10, 0, "thing 10", B), Blocked(B, 20, 0, "thing 20", A)))


def test_three_in_a_circle_are_told_in_the_order_in_which_they_wait_the_least_first() -> None:
    assert twice(look(halt(C, B), halt(B, A), halt(A, C))) == [[(A, C), (C, B), (B, A)]]


def test_a_chain_that_ends_at_somebody_who_gets_on_is_none() -> None:
    assert twice(look(halt(A, B), halt(B, C), halt(C, D))) == []


def test_who_waits_behind_a_circle_is_no_part_of_it() -> None:
    assert twice(look(halt(A, B), halt(B, A), halt(C, A))) == [[(A, B), (B, A)]]


def test_a_pipe_with_another_writer_that_gets_on_is_waited_at_with_reason() -> None:
    assert twice(look(halt(A, B, D), halt(B, A))) == []
    assert twice(look(halt(A, B, D), halt(B, A), halt(D, A))) == [[(A, B), (B, A)]]


def test_another_thread_of_a_process_can_write_but_cannot_unlock_a_mutex_of_this_one() -> None:
    assert twice(look(halt(A, B), halt(B, A), lively=(B,))) == []
    owned = look(halt(A, B, owner=20), halt(B, A, owner=10), lively=(A, B))
    assert twice(owned) == [[(A, B), (B, A)]]
    assert twice(look(halt(A, B, owner=21), halt(B, A, owner=10), lively=(A, B))) == []


def test_idle_threads_of_a_process_lead_the_circle_no_way_round() -> None:
    idle = halt(B, B, tid=21)
    assert twice(look(halt(A, B), halt(B, A), idle)) == [[(A, B), (B, A)]]


def test_a_circle_within_one_process_is_its_own_matter() -> None:
    assert twice(look(halt(A, A, tid=11), halt(A, A, tid=12))) == []


def test_it_takes_patience_without_a_turn_on_a_cpu_or_another_thing_to_wait_for() -> None:
    seen = look(halt(A, B), halt(B, A))
    watch = DeadlockWatch()
    assert watch.step(0, seen) == ()
    assert watch.step(PATIENCE_NS - 1, seen) == ()
    assert len(watch.step(PATIENCE_NS, seen)) == 1
    moved = look(halt(A, B, turn=6), halt(B, A))
    assert watch.step(PATIENCE_NS + 1, moved) == ()
    other = look(halt(A, B, turn=6), replace(halt(B, A), what="something else"))
    assert watch.step(2 * PATIENCE_NS, other) == ()


def test_what_was_not_seen_once_begins_anew() -> None:
    seen, nothing = look(halt(A, B), halt(B, A)), look()
    assert told(seen, nothing, seen) == ()


def test_nothing_is_called_before_everybody_was_asked() -> None:
    unsure = look(halt(A, B), replace(halt(B, A), sure=False))
    assert told(unsure, unsure) == ()
    assert len(told(unsure, unsure, look(halt(A, B), halt(B, A)))) == 1


def test_waiters_at_a_semaphore_are_stuck_together_without_a_holder() -> None:
    seen = look(*(halt(each, A, B, C, D, named=False) for each in (C, A, B)), halt(D, A))
    assert twice(seen) == [[(A, None), (B, None), (C, None)]]


def test_one_waiter_alone_at_a_semaphore_is_not_called() -> None:
    assert twice(look(halt(A, A, D, named=False), halt(D, A))) == []


def test_waiters_at_a_semaphore_that_somebody_can_still_post_are_well() -> None:
    assert twice(look(*(halt(each, A, B, D, named=False) for each in (A, B)))) == []


def test_a_semaphore_and_a_lock_make_a_circle_in_which_one_holder_is_not_known() -> None:
    assert twice(look(halt(A, B), halt(B, A, B, named=False))) == [[(A, B), (B, None)]]


def test_two_circles_are_two_deadlocks() -> None:
    assert twice(look(halt(C, D), halt(D, C), halt(A, B), halt(B, A))) == [[(A, B), (B, A)], [(C, D), (D, C)]]


def test_of_fifty_that_all_wait_for_all_a_circle_is_found_at_once() -> None:
    everybody = [ProcId(pid, 1) for pid in range(50)]
    halts = [halt(each, *everybody) for each in everybody]
    assert len(in_vain({each.thread: each for each in halts}, set(everybody))) == 50
    assert [len(waits) for waits in twice(look(*halts))] == [2]


def test_who_only_wakes_by_the_clock_frees_no_lock_and_the_report_says_what_that_leaves_in_doubt() -> None:
    locks = [replace(each, lock=True) for each in (halt(A, B), halt(B, A))]
    seen = replace(look(*locks, lively=(B,)), ticking=frozenset({B}))
    ((one, other),) = [deadlock.waits for deadlock in told(seen, seen)]
    assert (one.waiter, one.holder, one.what) == (A, B, f"thing 10 ({UNLESS})")
    assert (other.waiter, other.holder, other.what) == (B, A, "thing 20")


def test_who_wakes_by_the_clock_may_write_to_a_pipe() -> None:
    seen = replace(look(halt(A, B), replace(halt(B, A), lock=True), lively=(B,)), ticking=frozenset({B}))
    assert told(seen, seen) == ()
