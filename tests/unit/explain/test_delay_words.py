"""Delays in words: the largest part first, and the causal test of a demotion."""

from __future__ import annotations

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.decision import Decision, Delay, Effect, Set, Why, encode
from nicety.scheduler.explain.decision_page import decision_page
from nicety.scheduler.explain.delay_words import causal_test, delay_in_words
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import SessionPlace
from nicety.scheduler.store.decisions import LoggedDecision
from nicety.scheduler.testing.ticks import a_tick

DELAY = Delay("web", 0.834, (("ffmpeg", 0.6), ("cron", 0.004)), 0.016, 0.1, 0.04, 0.074, 0.0)
METRIC = "wait of group web, cores per core of demand"


def a_demotion(**figures: str) -> Decision:
    why = Why("contention now", "web waits", {"victim": "web", "contender": "ffmpeg", **figures}, (), ())
    return Decision("5e551017-7.0", "priority", "session 7", Set(Control.AUTOGROUP, SessionPlace(7, ProcId(7, 7)), 19), why)


def fell(before: float, after: float) -> Effect:
    return Effect("5e551017-7.0", METRIC, before, after, 3, "helped")


def test_a_sentence_has_every_part_and_small_ones_among_the_others() -> None:
    said = "waits 0.83 cores: 0.6 for ffmpeg, 0.1 for its own threads, 0.07 for the hypervisor, "
    assert delay_in_words(DELAY) == f"{said}0.04 for the kernel and what nicety cannot see, 0.02 for others"


def test_what_a_quota_keeps_back_is_said_apart() -> None:
    both = Delay("web", 0.2, (("ffmpeg", 0.2),), 0.0, 0.0, 0.0, 0.0, 0.5)
    assert delay_in_words(both) == "waits 0.2 cores: 0.2 for ffmpeg; its own quota keeps 0.5 cores from it"


@pytest.mark.parametrize(
    ("effects", "said"),
    [
        ((), "what its demotion changed is not measured"),
        ((fell(0.4, 0.1),), "with it demoted, the wait fell by 75 %"),
        ((fell(0.4, 0.1), fell(0.4, 0.6)), "with it demoted, the wait rose by 50 %"),
        ((fell(0.4, 0.39),), "with it demoted, the wait stayed as it was"),
        ((Effect("5e551017-7.0", "queued work of pool web", 2.0, 1.0, 3, "helped"),), "what its demotion changed is not measured"),
    ],
)
def test_a_demotion_is_held_against_what_was_put_down_to_it(effects: tuple[Effect, ...], said: str) -> None:
    found = causal_test(a_demotion(), [Delay("db", 0.1, (), 0.1, 0.0, 0.0, 0.0, 0.0), DELAY], effects)
    assert found == [f"web {delay_in_words(DELAY)}", f"72 % of its delay was put down to ffmpeg; {said}"]


def test_nothing_is_said_without_a_victim_or_its_delay_and_another_culprit_is_no_surprise() -> None:
    assert causal_test(a_demotion(), [], [fell(0.4, 0.1)]) == []
    assert causal_test(a_demotion(victim="db"), [DELAY], []) == []
    said = causal_test(a_demotion(contender="make"), [DELAY], [fell(0.4, 0.1)])[1]
    assert said == "make was not among those that delayed it most; with it demoted, the wait fell by 75 %"


def test_the_page_of_a_demotion_has_it_and_names_do_no_harm() -> None:
    evil = "ff\x1b[31mmpeg[red]\u202e" + "x" * 4000
    tick = a_tick(7, delays=(Delay("web", 0.5, ((evil, 0.5),), 0.0, 0.0, 0.0, 0.0, 0.0),))
    demotion = encode(a_demotion(contender=evil)).decode()
    effects = (encode(fell(0.4, 0.1)).decode(),)
    logged = LoggedDecision(
        1, "5e551017-7.0", "5e551017", 7, 0, "priority", "set", "x", (), "applied", demotion, None, (), effects, True
    )
    page = decision_page(logged, tick, None, 80)
    assert "Who delayed it" in page
    assert "100 % of its delay was put down to" in page
    assert "with it demoted, the wait fell by 75 %" in " ".join(page.split())
    assert not set("\x1b\u202e") & set(page)
    assert max(map(len, page.splitlines())) <= 80
    assert "Who delayed it" not in decision_page(logged, None, None, 80)
