"""Deadlocks of graphs that nobody thought of, against a simulation: whoever can, gets on; what is left when nobody can is stuck."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from nicety.models.anomaly.waitgraph import PATIENCE_NS, DeadlockWatch, Halt, Thread, WaitSnapshot, in_vain
from nicety.models.identity import ProcId

THREADS = [Thread(ProcId(pid, 1), 10 * pid + number) for pid in range(6) for number in range(2)]


@st.composite
def looks(draw: st.DrawFn) -> WaitSnapshot:
    """Some of twelve threads of six processes are blocked; the others get on, in some processes by the clock alone."""
    halts = []
    for thread in draw(st.sets(st.sampled_from(THREADS))):
        helpers = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))
        named = draw(st.booleans())
        owner = 10 * helpers[0] + draw(st.integers(0, 1)) if named and draw(st.booleans()) else None
        processes = [ProcId(pid, 1) for pid in (helpers[:1] if owner is not None else helpers)]
        halts.append(Halt(thread, 3, "a thing", tuple(processes), owner, named, sure=True, lock=draw(st.booleans())))
    blocked = {halt.thread for halt in halts}
    whole = {ProcId(pid, 1) for pid in range(6)} - {thread.process for thread in THREADS if thread not in blocked}
    partly = sorted({thread.process for thread in blocked} - whole)
    ticking = frozenset(process for process in partly if draw(st.booleans()))
    return WaitSnapshot(tuple(halts), frozenset(whole), frozenset(ProcId(pid, 1) for pid in range(4)), ticking)


def simulated(look: WaitSnapshot, chance: random.Random) -> set[Thread]:
    """Let threads get on in any order until none can."""
    blocked = {halt.thread: halt for halt in look.halts}
    ticks = {thread for thread in THREADS if thread.process in look.ticking and thread not in blocked}
    while True:
        able = [
            thread
            for thread, halt in sorted(blocked.items())
            if any(
                other not in blocked and not (halt.lock and halt.owner is None and other in ticks)
                for other in THREADS
                if other.process in halt.helpers and (halt.owner is None or other.tid == halt.owner)
            )
        ]
        if not able:
            return set(blocked)
        del blocked[chance.choice(able)]


@given(looks(), st.integers(0, 99))
def test_exactly_those_are_stuck_whom_no_order_of_events_sets_free(look: WaitSnapshot, seed: int) -> None:
    assert set(in_vain({halt.thread: halt for halt in look.halts}, look.whole, look.ticking)) == simulated(
        look, random.Random(seed)
    )


@given(looks())
def test_what_is_called_is_stuck_and_a_circle_closes(look: WaitSnapshot) -> None:
    watch = DeadlockWatch()
    assert watch.step(0, look) == ()
    stuck = in_vain({halt.thread: halt for halt in look.halts}, look.whole, look.ticking)
    for deadlock in watch.step(PATIENCE_NS, look):
        waits = deadlock.waits
        threads = [Thread(wait.waiter, wait.thread) for wait in waits]
        assert len({wait.waiter for wait in waits}) > 1
        assert len(set(threads)) == len(threads)
        assert set(threads) <= set(stuck)
        assert threads[0] == min(threads)
        for wait, thread in zip(waits, threads, strict=True):
            assert wait.holder is None or wait.holder in stuck[thread].helpers
        if all(wait.holder is not None for wait in waits):
            assert [wait.holder for wait in waits] == [wait.waiter for wait in (*waits[1:], waits[0])]


@given(looks(), st.randoms(use_true_random=False))
def test_the_order_in_which_they_were_seen_does_not_matter(look: WaitSnapshot, chance: random.Random) -> None:
    shuffled = list(look.halts)
    chance.shuffle(shuffled)
    a, b = DeadlockWatch(), DeadlockWatch()
    other = WaitSnapshot(tuple(shuffled), look.whole, look.roots, look.ticking)
    for at in (0, PATIENCE_NS):
        assert a.step(at, look) == b.step(at, other)
