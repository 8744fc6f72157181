"""What became of the figure that a decision was to improve."""

from __future__ import annotations

import msgspec
import pytest

from nicety.models.records import Class
from nicety.scheduler.decide.effects import Effects, EffectsMemory, judge
from nicety.scheduler.decide.policies.policy import Aim, Impact, Metric
from nicety.scheduler.decision import Decision, Digest, Outcome, Tick, Why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.testing.ticks import a_group, a_member, a_tick

AIM = Aim(Metric.WAIT, "service", 0.5, "hogs", Control.NICE, back=False, goal=0.05, again=1)


def a_decision(number: int) -> Decision:
    return Decision(f"s-0.{number}", "priority", "group hogs", Digest(0), Why("rule", "text", {}, (), ()))


def waiting(seq: int, share: float, wanted: float = 2.0) -> Tick:
    """A tick in which the service waits for this share of its demand, and batch work wants so many cores."""
    service = a_group("service", Class.INTERACTIVE, [a_member(10)], cpu=1.0 - share, wait=share)
    return a_tick(seq, groups=[service, a_group("hogs", Class.BATCH, [a_member(20)], cpu=wanted)])


def told(aim: Aim, *later: Tick, status: Status = Status.APPLIED, decisions: int = 1) -> list[tuple[int, Impact]]:
    """(tick, what was measured) after decisions in a tick with half of the demand waited for. The window is of two seconds."""
    effects, found = Effects(EffectsMemory(), 2.0), list[tuple[int, Impact]]()
    effects.watch(waiting(0, 0.5), [(a_decision(number), aim) for number in range(decisions)])
    effects.hear([Outcome(f"s-0.{number}", status, "", "", 1) for number in range(decisions)])
    for tick in later:
        found += [(tick.seq, measured) for _, measured in effects.measure(tick)]
        effects.validate()
    return found


def test_a_figure_that_got_better_ends_the_measurement() -> None:
    ((seq, measured),) = told(AIM, *(waiting(seq, 0.01) for seq in range(1, 9)))
    assert (seq, measured.effect.verdict, measured.failed) == (2, "helped", False)
    assert measured.effect.metric == "wait of group service, cores per core of demand"


def test_what_failed_is_measured_again_as_often_as_asked_and_only_the_last_is_final() -> None:
    found = told(AIM, *(waiting(seq, 0.5) for seq in range(1, 20)))
    assert [(seq, measured.failed, measured.final) for seq, measured in found] == [(2, True, False), (4, True, True)]


def test_a_figure_that_is_good_enough_did_not_fail() -> None:
    ((_, measured),) = told(msgspec.structs.replace(AIM, goal=0.6), *(waiting(seq, 0.5) for seq in range(1, 9)))
    assert (measured.effect.verdict, measured.failed) == ("no effect", False)
    ((_, measured),) = told(msgspec.structs.replace(AIM, goal=None), *(waiting(seq, 0.5) for seq in range(1, 9)))
    assert not measured.failed


def test_more_batch_work_explains_a_longer_wait_so_nothing_is_final() -> None:
    found = told(msgspec.structs.replace(AIM, again=0), *(waiting(seq, 0.9, wanted=4.0) for seq in range(1, 9)))
    assert [(measured.effect.verdict, measured.failed, measured.final) for _, measured in found] == [
        ("more contention", True, False)
    ]


def test_a_change_that_takes_time_is_measured_from_when_it_can_show() -> None:
    ((seq, measured),) = told(
        msgspec.structs.replace(AIM, delay=3.0), *(waiting(seq, 0.5 if seq <= 3 else 0.01) for seq in range(1, 9))
    )
    assert (seq, measured.effect.verdict, measured.effect.ticks) == (5, "helped", 5)


def test_several_decisions_about_the_same_are_one_effect() -> None:
    ((_, measured),) = told(AIM, *(waiting(seq, 0.01) for seq in range(1, 9)), decisions=3)
    assert (measured.effect.decision, measured.effect.others) == ("s-0.0", ("s-0.1", "s-0.2"))


@pytest.mark.parametrize("status", [Status.OBSERVED, Status.UNCHANGED, Status.REFUSED])
def test_what_changed_nothing_is_not_measured(status: Status) -> None:
    assert told(AIM, *(waiting(seq, 0.5) for seq in range(1, 9)), status=status) == []


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (0.97, 0.90, "helped"),  # 32 seconds of waiting for each of CPU, then 9
        (0.97, 0.965, "no effect"),
        (0.60, 0.48, "helped"),
        (0.60, 0.56, "no effect"),
        (0.60, 0.76, "hurt"),
        (0.97, 0.99, "no effect"),  # no share is a quarter more than this
        (0.10, 0.07, "helped"),
        (0.030, 0.022, "no effect"),  # less than a hundredth of the demand is noise
        (1.0, 0.5, "helped"),  # it got no CPU at all
    ],
)
def test_a_wait_is_measured_by_what_is_waited_for_each_second_of_cpu(before: float, after: float, verdict: str) -> None:
    assert judge(Metric.WAIT, before, after) == verdict
