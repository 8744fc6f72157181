"""Frames as samples: each figure under its name, unknown ones left out, and never more series than the budget."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from nicety.scheduler.frame import Count, Decided, Delay, Frame, Incident
from nicety.scheduler.testing.frames import HOSTILE, a_band, a_frame, a_shown_group, a_shown_pool, an_own
from nicety.scheduler.views.exporter import catalogue as m
from nicety.scheduler.views.exporter.catalogue import ALL, Metric
from nicety.scheduler.views.exporter.figures import LONGEST, OTHER, Figures, Sample, Seen, label

Samples = dict[Metric, list[Sample]]


def of(frame: Frame | None, limit: int = 2000, late: bool = False, at: float = 0.0, figures: Figures | None = None) -> Samples:
    return (figures or Figures(limit)).of(Seen(frame, 0.5, late, False), at)


def value(samples: Samples, metric: Metric, *labels: str) -> float:
    (found,) = [sample.value for sample in samples[metric] if sample.labels == labels]
    return found


def count(samples: Samples) -> int:
    return sum(map(len, samples.values()))


def test_every_metric_is_in_some_frame_with_its_labels() -> None:
    pool = a_shown_pool("batch", objective="utilization 70 %", aim="utilization", aim_value=0.7)
    groups = [*a_frame().groups, a_shown_group("db", memory_forecast=a_band(1e9, 2e9))]
    samples = of(a_frame(groups=groups, pools=[a_shown_pool(), pool]))
    assert {metric.name for metric in ALL} == {metric.name for metric in samples}
    assert all(len(sample.labels) == len(metric.labels) for metric, found in samples.items() for sample in found)
    assert count(samples) == value(samples, m.SERIES)


def test_names_are_unique_and_have_meanings() -> None:
    assert len({metric.sample_name for metric in ALL}) == len(ALL) > 50
    assert all(metric.text and not metric.text.endswith(".") for metric in ALL)
    assert all(metric.name.endswith(metric.unit) for metric in ALL)


def test_figures_of_a_frame_are_those_of_the_frame() -> None:
    samples = of(a_frame())
    assert value(samples, m.UP) == 1
    assert value(samples, m.AGE) == 0.5
    assert value(samples, m.GROUP_CPU, "ffmpeg") == 1.3
    assert value(samples, m.GROUP_CLASS, "ffmpeg", "batch", "no") == 1
    assert value(samples, m.DELAY, "redis", "group", "ffmpeg") == 0.08
    assert value(samples, m.DEMAND_FORECAST, "redis", "30s", "high") == 0.4
    assert value(samples, m.LOAD_FORECAST, "web", "1s", "median") == 2.2
    assert value(samples, m.AIM_SECONDS, "web", "p95") == 0.3
    assert value(samples, m.CHANGED, "group", "ffmpeg", "autogroup") == 3
    assert value(samples, m.INCIDENTS, "web", "leak") == 1
    assert value(samples, m.PRESSURE, "io") == 0.01
    assert value(samples, m.REFUSALS, "priority", "cool-down") == 2


def test_the_daemon_is_not_up_without_a_frame_and_with_a_late_one_and_no_old_figure_is_shown() -> None:
    for frame, late in ((None, False), (a_frame(), True)):
        samples = of(frame, late=late)
        assert value(samples, m.UP) == 0
        assert set(samples) - {m.AGE} == {m.UP, m.UNREADABLE, m.FOLDED, m.LIMIT, m.SERIES}


def test_what_is_not_known_has_no_sample() -> None:
    unknown = a_shown_pool(
        busy=None, queued=None, load=None, arrivals=None, service=None, p95=None, start=None, forecast=None, aim=""
    )
    samples = of(a_frame(pools=[unknown]))
    for metric in (m.POOL_BUSY, m.QUEUED, m.LOAD, m.ARRIVALS, m.SERVICE, m.SERVICE_P95, m.START, m.LOAD_FORECAST, m.AIM_SECONDS):
        assert metric not in samples
    assert {sample.labels for sample in samples[m.CERTAINTY]} == {("ffmpeg",), ("redis",)}
    first = of(a_frame(measured=False))
    assert not {m.GROUP_CPU, m.GROUP_WAIT, m.DEMAND, m.THROTTLED, m.BUSY} & first.keys()
    assert value(first, m.GROUP_MEMORY, "web") > 0


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"cannot": "no nice"}, m.CANNOT_ACT),
        ({"paused": True}, m.PAUSED),
        ({"mode": "act"}, m.ACTING),
        ({"troubles": ["traces: full"]}, m.TROUBLES),
        ({"lost": 1}, m.LOST),
        ({"reduced": ["probes"]}, m.REDUCED),
    ],
)
def test_states_of_the_daemon_are_ones_and_zeros(changes: dict[str, Any], metric: Metric) -> None:
    calm = {"mode": "observe"}
    assert value(of(a_frame(own=an_own(**calm))), metric) == 0
    assert value(of(a_frame(own=an_own(**{**calm, **changes}))), metric) == 1


def test_counters_name_the_newest_decision_that_they_counted() -> None:
    old = Decided("s-1.0", 10.0, "priority", "", "", "", 1, "applied", "hurt")
    new = msgspec.structs.replace(old, id="s-2.0", wall=20.0, status="failed", effect="")
    counts = [
        Count("decisions", "priority", "", 9),
        Count("effects", "priority", "hurt", 1),
        Count("outcomes", "priority", "applied", 8),
        Count("outcomes", "priority", "vanished", 1),
        Count("refusals", "priority", "", 1),
    ]
    samples = of(a_frame(decisions=[new, old], counts=counts))
    (decisions,), (effects,), outcomes = samples[m.DECISIONS], samples[m.EFFECTS], samples[m.OUTCOMES]
    assert (decisions.value, decisions.exemplar) == (9, ("s-2.0", 20.0))
    assert effects.exemplar == ("s-1.0", 10.0)
    assert [outcome.exemplar for outcome in outcomes] == [("s-1.0", 10.0), None]
    assert samples[m.REFUSALS][0].exemplar is None


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_becomes_a_short_label_without_control_characters(name: str) -> None:
    shown = label(name)
    assert shown.isprintable()
    assert len(shown) <= LONGEST
    samples = of(a_frame(groups=[a_shown_group(name)]))
    assert value(samples, m.GROUP_PROCESSES, shown) == 2


def test_long_names_that_differ_at_their_end_stay_different() -> None:
    one, two = "x" * 500 + "1", "x" * 500 + "2"
    assert label(one) != label(two)
    assert of(a_frame(groups=[a_shown_group(one), a_shown_group(two)]))[m.GROUP_MEMORY][0].labels[0].startswith("xxx")


@pytest.mark.parametrize("limit", [200, 500, 2000])
def test_no_more_series_than_the_budget_and_no_process_is_lost(limit: int) -> None:
    groups = [
        a_shown_group(
            f"g{n:03}", "batch", cpu=n / 1000, forecast=a_band(1, 2), delay=Delay(1.0, [("g999", 0.5)], 0.1, 0.1, 0.1, 0.1)
        )
        for n in range(1000)
    ]
    samples = of(a_frame(groups=groups), limit)
    assert limit * 0.7 <= count(samples) <= limit
    assert sum(sample.value for sample in samples[m.GROUP_PROCESSES]) == 2000
    assert sum(sample.value for sample in samples[m.GROUP_CPU]) == pytest.approx(sum(group.cpu for group in groups))
    own = {sample.labels[0] for sample in samples[m.GROUP_CPU]} - {OTHER}
    assert value(samples, m.FOLDED, "groups") == 1000 - len(own)
    assert "g999" in own


@pytest.mark.parametrize("limit", [200, 2000])
def test_pools_leave_room_for_groups(limit: int) -> None:
    figures = Figures(limit)
    samples = of(a_frame(pools=[a_shown_pool(f"p{n:03}") for n in range(200)]), limit, figures=figures)
    shown = len(samples[m.WORKERS])
    assert count(samples) <= limit
    assert value(samples, m.FOLDED, "pools") == 200 - shown
    assert value(samples, m.GROUP_CPU, "ffmpeg") == 1.3
    assert figures.refused[-1] == f"{200 - shown} pools have no metrics"


def test_a_group_that_is_called_other_is_one_of_the_others() -> None:
    samples = of(a_frame(groups=[a_shown_group(OTHER, cpu=0.5), a_shown_group("web", cpu=0.25)]))
    assert value(samples, m.GROUP_CPU, OTHER) == 0.5
    assert value(samples, m.GROUP_CPU, "web") == 0.25
    assert value(samples, m.FOLDED, "groups") == 1


def test_a_culprit_without_series_of_its_own_is_one_of_the_others_and_the_parts_add_up() -> None:
    by = [("away", 0.3), *((f"g{n}", 0.1) for n in range(8))]
    delay = Delay(1.5, by, 0.1, 0.1, 0.1, 0.1)
    groups = [a_shown_group("web", delay=delay), *(a_shown_group(f"g{n}") for n in range(8))]
    found = of(a_frame(groups=groups))[m.DELAY]
    named = {sample.labels[2] for sample in found if sample.labels[1] == "group"}
    assert named == {"g0", "g1", "g2", "g3", OTHER}
    assert sum(sample.value for sample in found) == pytest.approx(1.5)


def test_culprits_that_change_every_second_make_few_series_and_the_parts_add_up() -> None:
    chance, figures = random.Random(26), Figures(2000)
    names = [f"g{n:02}" for n in range(30)]
    named, offered = set[str](), set[str]()
    for at in range(300):
        by = [(name, round(chance.uniform(0.05, 0.1), 3)) for name in chance.sample(names, 4)]
        delay = Delay(0.5, by, round(0.5 - sum(cores for _, cores in by), 3), 0.0, 0.0, 0.0)
        groups = [a_shown_group("web", delay=delay), *map(a_shown_group, names)]
        seen = Seen(a_frame(groups=groups), 0.0, False, False)
        found = figures.of(seen, float(at))[m.DELAY]
        named |= {sample.labels[2] for sample in found if sample.labels[1] == "group"} - {OTHER}
        offered |= {name for name, _ in by}
        assert sum(sample.value for sample in found) == pytest.approx(0.5)
    assert len(offered) == 30
    assert named
    assert len(named) <= 15


def test_a_culprit_that_matters_is_named_after_two_scrapes() -> None:
    figures = Figures(2000)
    names = [f"g{n}" for n in range(6)]

    def named(at: float, by: list[tuple[str, float]]) -> set[str]:
        groups = [a_shown_group("web", delay=Delay(1.0, by, 0.0, 0.0, 0.0, 0.0)), *map(a_shown_group, names)]
        found = figures.of(Seen(a_frame(groups=groups), 0.0, False, False), at)[m.DELAY]
        return {sample.labels[2] for sample in found if sample.labels[1] == "group"} - {OTHER}

    small = [(name, 0.05) for name in names[:4]]
    assert named(0.0, small) == set(names[:4])
    assert "g5" not in named(15.0, [*small, ("g5", 0.5)])
    assert "g5" not in named(30.0, [*small, ("g5", 0.5)])
    assert "g5" in named(45.0, [*small, ("g5", 0.5)])


def test_incidents_are_counted_by_pool_and_kind_and_bounded() -> None:
    many = [Incident(f"i{n}", f"p{n // 2}", [n], "leak", 1.0, "") for n in range(200)]
    found = of(a_frame(incidents=many))[m.INCIDENTS]
    assert len(found) == 51
    assert sum(sample.value for sample in found) == 200
    assert found[0].value == 2
