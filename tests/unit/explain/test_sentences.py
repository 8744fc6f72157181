"""The three sentences of a decision: what was done, why, what came of it; for every kind of change and every ending."""

from __future__ import annotations

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.decision import (
    Action,
    Decision,
    Digest,
    Effect,
    Flag,
    Outcome,
    Recycle,
    Refusal,
    ResizePool,
    Restore,
    Set,
    Why,
)
from nicety.scheduler.explain.sentences import VERDICTS, came, what, why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace

HOG = ProcId(4711, 4711)
RESIZE = ResizePool("web", 6)
NICE = Set(Control.NICE, ProcessPlace(HOG), 19)


def a_decision(action: Action, target: str = "pool web") -> Decision:
    return Decision("s-1.0", "pool_size", target, action, Why("rule", "The load grows.", {"current": 4}, (), ()))


def ending(*statuses: Status) -> list[Outcome]:
    return [Outcome("s-1.0", status, "x", "", 1) for status in statuses]


@pytest.mark.parametrize(
    ("action", "target", "said"),
    [
        (RESIZE, "pool web", "nicety asked pool web for 6 workers instead of 4."),
        (Recycle("web", HOG), "pool web", "nicety replaced worker 4711 of pool web."),
        (Flag("web", HOG, "leak"), "pool web worker 4711", "nicety reported process 4711, which leaks memory."),
        (Flag("web", HOG, "leak", (), "s-0.0", over=True), "pool web", "nicety reported process 4711: its leak is over."),
        (Digest(7), "incidents", "nicety reported 7 more incidents in one line."),
        (
            Restore(Control.NICE, ProcessPlace(HOG)),
            "group hogs pid 4711",
            "nicety put nice of group hogs pid 4711 back to what it was.",
        ),
        (Restore(Control.FENCE, ProcessPlace(HOG)), "group hogs pid 4711", "nicety let group hogs pid 4711 out of its fence."),
        (NICE, "group hogs pid 4711", "nicety set nice 19 of every thread, for group hogs pid 4711."),
        (
            Set(Control.AUTOGROUP, SessionPlace(4711, HOG), 19),
            "group hogs session 4711",
            "nicety set nice 19 of its session as a whole (autogroup), for group hogs session 4711.",
        ),
        (Set(Control.CPU_SHARES, CgroupPlace("/b"), 10), "cgroup /b", "nicety set cpu.shares 10 of cgroup /b."),
        (
            Set(Control.FENCE, ProcessPlace(HOG), (0, 0, 0, 1)),
            "group hogs pid 4711",
            "nicety put group hogs pid 4711 into a cgroup of its own: weight 1 instead of 100.",
        ),
    ],
)
def test_what_was_done_is_a_sentence(action: Action, target: str, said: str) -> None:
    assert what(a_decision(action, target), None, ending(Status.APPLIED)) == said


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ((), "nicety decided to ask pool web for 6 workers instead of 4."),
        ((Status.OBSERVED,), "nicety would ask pool web for 6 workers instead of 4, but it only observes."),
        ((Status.PARTIAL,), "nicety asked pool web for 6 workers instead of 4."),
        ((Status.FAILED,), "nicety tried to ask pool web for 6 workers instead of 4."),
        ((Status.VANISHED,), "nicety tried to ask pool web for 6 workers instead of 4."),
    ],
)
def test_what_was_not_done_is_not_told_as_done(statuses: tuple[Status, ...], said: str) -> None:
    assert what(a_decision(RESIZE), None, ending(*statuses)) == said


def test_why_is_the_reason_of_the_rule() -> None:
    assert why(a_decision(RESIZE)) == "Why: The load grows."


def test_what_came_of_it_ends_with_what_was_measured() -> None:
    effect = Effect("s-1.0", "wait of group redis, cores per core of demand", 0.31, 0.02, 3, "helped")
    decision = a_decision(NICE, "group hogs pid 4711")
    assert came(decision, None, [], []) == "No outcome is in the log (yet)."
    assert came(decision, None, ending(Status.APPLIED), []) == "Done, and read back."
    measured = "it helped: redis waited for a CPU 31 % of its demand before, 2 % after 3 ticks"
    assert came(decision, None, ending(Status.APPLIED), [effect]) == f"Done, and read back; {measured}."
    undone = ending(Status.APPLIED, Status.APPLIED)
    assert came(decision, None, undone, [effect]) == f"Done, and read back; {measured}; put back since then."
    assert came(a_decision(RESIZE), None, undone, []) == "Done, and read back.", "asked for, then seen: not an undo"


def test_a_refusal_names_the_rule_of_the_guard() -> None:
    decision = a_decision(RESIZE)
    refusal = Refusal(decision, "limits", "more than the maximum.")
    assert what(decision, refusal, []) == "nicety wanted to ask pool web for 6 workers instead of 4, but its guard refused."
    assert came(decision, refusal, [], []) == "Nothing was changed, by the guard's rule limits: more than the maximum."


@pytest.mark.parametrize("verdict", ["helped", "no effect", "hurt", "cannot tell", "more contention"])
def test_every_verdict_has_words(verdict: str) -> None:
    effect = Effect("s-1.0", "queued work of pool web", 2.0, 3.0, 5, verdict)
    assert came(a_decision(RESIZE), None, ending(Status.APPLIED), [effect]).startswith(
        f"Done, and read back; {VERDICTS[verdict]}: "
    )
