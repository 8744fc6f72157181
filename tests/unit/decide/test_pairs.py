"""Pauses of pairs double, up to hours, and are forgotten after a long quiet."""

from __future__ import annotations

from nicety.scheduler.decide.policies.priority.pairs import LONGEST, MOST, Pairs, Pause, pairs_of

SECOND = 10**9


def lengths(pairs: Pairs, begin: str, count: int) -> list[float]:
    """Seconds of so many pauses in a row, each begun as soon as the one before is over."""
    at, found = 0, list[float]()
    for _ in range(count):
        if begin == "relieved":
            pairs.relieved("hogs", at)
        else:
            pairs.without_effect("web", "hogs", at)
        pause = pairs.pause("web", "hogs", at)
        assert pause is not None
        found.append((pause.until - at) / SECOND)
        at = pause.until
        assert pairs.pause("web", "hogs", at) is None
    return found


def test_a_pause_after_no_effect_begins_with_a_minute_and_ends_at_four_hours() -> None:
    assert lengths(Pairs(), "no effect", 10) == [60, 120, 240, 480, 960, 1920, 3840, 7680, 14400, 14400]


def test_after_a_relief_it_is_an_hour_at_least() -> None:
    assert lengths(Pairs(), "relieved", 4) == [3600, 7200, 14400, 14400]


def test_what_many_processes_of_a_group_tell_is_one_pause() -> None:
    pairs = Pairs()
    for at in range(5):
        pairs.relieved("hogs", at * SECOND)
    assert [pause.seconds for pause in pairs.pauses.values()] == [3600]


def test_no_effect_is_of_a_pair_and_harm_of_a_contender() -> None:
    pairs = Pairs()
    pairs.without_effect("web", "hogs", 0)
    assert pairs.pause("db", "hogs", 0) is None
    assert pairs.pause("web", "build", 0) is None
    pairs.relieved("hogs", 0)
    longest = pairs.pause("web", "hogs", 0)
    assert longest is not None
    assert longest.until == 3600 * SECOND
    assert pairs.pause("db", "hogs", 0) == longest


def test_harm_outlasts_a_shorter_pause_that_is_in_force() -> None:
    pairs = Pairs()
    pairs.without_effect("", "hogs", 0)
    pairs.relieved("hogs", SECOND)
    pause = pairs.pause("web", "hogs", SECOND)
    assert pause is not None
    assert pause.until == 3601 * SECOND


def test_a_long_quiet_forgets_and_a_shorter_one_does_not() -> None:
    pairs = Pairs()
    pairs.without_effect("web", "hogs", 0)
    pairs.forget(round((60 + LONGEST) * SECOND))
    assert len(pairs.pauses) == 1
    pairs.forget(round((61 + LONGEST) * SECOND))
    assert pairs.pauses == {}


def test_of_too_many_those_that_end_last_stay() -> None:
    pauses = [Pause("web", f"batch {number}", "had no effect", 60.0, number) for number in range(MOST + 10)]
    pairs = pairs_of(pauses)
    pairs.forget(0)
    assert sorted(pause.until for pause in pairs.pauses.values()) == list(range(10, MOST + 10))


def test_names_with_spaces_are_not_mixed_up() -> None:
    pairs = Pairs()
    pairs.without_effect("a b", "c", 0)
    assert pairs.pause("a", "b c", 0) is None
