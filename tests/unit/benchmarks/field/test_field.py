"""Figures, claims and roles of benchmarks/field/run.py: what can be decided without starting a program."""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.decision import DECIDED, Decision, Restore, Set, Why
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.testing.places import place_of


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return importlib.import_module("benchmarks.field.figures")


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    return importlib.import_module("benchmarks.field.scenes")


@pytest.fixture(scope="module")
def stage() -> ModuleType:
    return importlib.import_module("benchmarks.field.stage")


@pytest.fixture(scope="module")
def log() -> ModuleType:
    return importlib.import_module("benchmarks.field.log")


def windows(figures: ModuleType, condition: str, p99s: list[float], works: list[float] | None = None) -> tuple[Any, ...]:
    works = [1.0] * len(p99s) if works is None else works
    which = figures.Condition(condition)
    return tuple(
        figures.Window(which, pair, 0.001, p99, 1000, 0, 0, work) for pair, (p99, work) in enumerate(zip(p99s, works, strict=True))
    )


def record(figures: ModuleType, nicety: list[float], hand: list[float], works: list[float] | None = None, **more: Any) -> Any:
    count = len(nicety)
    both = windows(figures, "nothing", [0.010] * count) + windows(figures, "nicety", nicety, works)
    return figures.Record("scene", both + windows(figures, "hand", hand), **{"control": "nice 19 for hogs", **more})


def change(figures: ModuleType, **more: Any) -> Any:
    settings = {
        "decision": "a-1.0",
        "control": "nice",
        "target": "group hogs",
        "programs": ("hogs",),
        "sensitive": (),
        "victim": "redis",
        "contender": "hogs",
        "lacks": 0.4,
        "frees": 1.5,
    }
    return figures.Change(**{**settings, **more})


def claimed(figures: ModuleType, record: Any) -> dict[str, bool]:
    claims = importlib.import_module("benchmarks.claims").Claims()
    figures.claim(claims, record)
    return {row["claim"].removeprefix("scene: "): row["holds"] for row in claims.rows}


def test_an_interval_is_the_students_t_of_the_logarithms(figures: ModuleType) -> None:
    found = figures.interval([0.8, 1.0, 1.25])
    assert found.ratio == pytest.approx(1.0)
    reach = 4.30265 * math.log(1.25) / math.sqrt(3)  # t of 2 degrees of freedom
    assert found.high == pytest.approx(math.exp(reach), rel=1e-5)
    assert found.low == pytest.approx(math.exp(-reach), rel=1e-5)
    assert found.width == pytest.approx(math.exp(reach) - 1, rel=1e-5)
    assert figures.interval([1.0]) is None


def test_ratios_are_of_windows_of_the_same_pair(figures: ModuleType) -> None:
    seen = (
        *windows(figures, "nothing", [0.010, 0.020]),
        *windows(figures, "nicety", [0.005, 0.020]),
        *windows(figures, "hand", [0.002]),
    )
    assert figures.ratios(seen, figures.Condition.NICETY, "p99") == pytest.approx([0.5, 1.0])
    assert figures.ratios(seen, figures.Condition.HAND, "p99") == pytest.approx([0.2])


def test_nicety_runs_twice_in_a_row_between_two_of_nothing(figures: ModuleType) -> None:
    words = [f"{condition} {pair}" for condition, pair in figures.plan(3)]
    assert words == ["nothing 0", "nicety 0", "nicety 1", "nothing 1", "hand 1", "nothing 2", "nicety 2", "hand 2"]


def test_what_is_no_worse_and_narrow_holds(figures: ModuleType) -> None:
    holds = claimed(figures, record(figures, [0.0101, 0.0099, 0.0100, 0.0100], [0.0100, 0.0101, 0.0099, 0.0100]))
    assert all(holds.values())


def test_an_interval_above_the_bound_falls_short(figures: ModuleType) -> None:
    holds = claimed(figures, record(figures, [0.0120, 0.0121, 0.0119, 0.0120], [0.010] * 4))
    assert not holds["p99, lower end of its interval"]
    assert holds["p99, half-width of its interval"]


def test_an_interval_that_is_wide_falls_short_even_where_it_might_be_no_worse(figures: ModuleType) -> None:
    holds = claimed(figures, record(figures, [0.007, 0.014, 0.010, 0.011], [0.010] * 4))
    assert holds["p99, lower end of its interval"]
    assert not holds["p99, half-width of its interval"]


def test_less_batch_work_needs_a_gain_of_three_tenths(figures: ModuleType) -> None:
    works = [0.90, 0.91, 0.90, 0.91]
    short = claimed(figures, record(figures, [0.0080, 0.0081, 0.0080, 0.0081], [0.010] * 4, works))
    enough = claimed(figures, record(figures, [0.0060, 0.0061, 0.0060, 0.0061], [0.010] * 4, works))
    assert not short["batch work, upper end of its interval"]
    assert enough["batch work, upper end of its interval"]


def test_nicety_must_gain_four_fifths_of_what_a_control_gains(figures: ModuleType) -> None:
    said = "p99 gain of nicety / gain by hand (nice 19 for hogs)"
    hand = [0.0050, 0.0051, 0.0050, 0.0051]
    assert not claimed(figures, record(figures, [0.0065, 0.0066, 0.0065, 0.0066], hand))[said]
    assert claimed(figures, record(figures, [0.0055, 0.0056, 0.0055, 0.0056], hand))[said]
    assert claimed(figures, record(figures, [0.0100, 0.0101, 0.0099, 0.0100], [0.0100, 0.0099, 0.0101, 0.0100]))[said]


def test_a_demoted_service_falls_short_whoever_shows_it(figures: ModuleType) -> None:
    flat = [0.0101, 0.0099, 0.0100, 0.0100]
    logged = claimed(figures, record(figures, flat, flat, changes=(change(figures, sensitive=("redis",)),)))
    assert not logged["interactive programs demoted, from the decision log"]
    seen = claimed(figures, record(figures, flat, flat, kernel=("redis: nice 19",)))
    assert not seen["interactive programs demoted, from the kernel"]


@pytest.mark.parametrize(
    ("lacks", "frees", "together", "can"),
    [
        (0.4, 0.2, None, True),
        (0.4, 0.19, None, False),
        (0.4, 0.05, 0.2, True),
        (0.4, 0.05, 0.19, False),
        (0.4, 0.04, 1.0, False),
        (None, 1.0, 1.0, False),
        (0.4, None, 1.0, False),
    ],
)
def test_a_demotion_must_be_able_to_supply_and_must_say_so(
    figures: ModuleType, lacks: float | None, frees: float | None, together: float | None, can: bool
) -> None:
    assert figures.cannot_supply(change(figures, lacks=lacks, frees=frees, together=together)) is not can


def test_the_same_pair_is_relieved_once_an_hour_at_most(figures: ModuleType) -> None:
    flat, said = [0.0101, 0.0099, 0.0100, 0.0100], "reliefs of the same pair an hour"
    pair, other = ("redis", "hogs"), ("redis", "xz")
    assert claimed(figures, record(figures, flat, flat, relieved=(pair, other)))[said]
    assert not claimed(figures, record(figures, flat, flat, relieved=(pair, pair)))[said]
    assert claimed(figures, record(figures, flat, flat, relieved=(pair, pair), hours=2.0))[said]


def test_nothing_may_be_demoted_where_that_cannot_help(figures: ModuleType) -> None:
    flat = [0.0101, 0.0099, 0.0100, 0.0100]
    holds = claimed(figures, record(figures, flat, flat, changes=(change(figures),), demotes=False))
    assert not holds["demotions where none can help"]


def test_a_scene_that_did_not_run_is_one_claim_that_falls_short(figures: ModuleType) -> None:
    assert claimed(figures, figures.Record("scene", trouble="apt-get install nginx-light")) == {"ran to its end": False}


def test_a_scene_ends_early_only_with_enough_narrow_pairs(figures: ModuleType) -> None:
    def seen(pairs: int, spread: float) -> Any:
        ours = [0.010 * (1 + spread * (-1) ** pair) for pair in range(pairs)]
        return windows(figures, "nothing", [0.010] * pairs) + windows(figures, "nicety", ours)

    assert figures.enough(seen(6, 0.01))
    assert not figures.enough(seen(5, 0.01))
    assert not figures.enough(seen(6, 0.3))


def test_the_best_control_leaves_the_batch_its_work(figures: ModuleType) -> None:
    tried = {"nice": (0.004, 0.98), "affinity": (0.002, 0.5), "autogroup": (0.003, 0.95)}
    assert figures.best(tried, 1.0) == "autogroup"
    assert figures.best({"affinity": (0.002, 0.5)}, 1.0) == "affinity"
    assert figures.best({}, 1.0) == ""


def test_every_scene_names_programs_of_its_own(scenes: ModuleType) -> None:
    assert len(scenes.SCENES) >= 14
    assert len({scene.name for scene in scenes.SCENES}) == len(scenes.SCENES)
    for scene in scenes.SCENES:
        programs = {program.name for program in scene.programs}
        named = {name for hand in scene.hands for name in hand.programs} | {load.program for load in scene.load} | scene.inside
        assert named | ({scene.quota, scene.deploys} - {""}) <= programs
        assert {load.program for load in scene.load} <= {program.name for program in scene.programs if program.listens}


def test_pgbench_log_gives_the_planned_time_and_no_broken_last_line(stage: ModuleType) -> None:
    text = "0 12 2500 0 1000 500000 1200\n1 3 900 0 1001 0 10\n0 13 25"
    rows = stage.transactions(text, 900.0)
    assert rows[:, :2] == pytest.approx(np.array([[100.4975, 0.0025], [100.9991, 0.0009]]))
    assert np.isnan(rows[:, 2]).all()
    assert stage.transactions("", 0.0).shape == (0, 3)


def test_a_tree_is_its_roots_and_all_below(stage: ModuleType) -> None:
    seen = {pid: stage.Seen(pid, parent, 1, 0, 0.1, 5) for pid, parent in ((10, 1), (11, 10), (12, 11), (20, 1))}
    assert {row.pid for row in stage.tree(seen, 10)} == {10, 11, 12}
    assert stage.tree(seen, 99) == []


def decision(action: Any, figures: dict[str, float | int | str] | None = None) -> Decision:
    return Decision("a-1.0", "priority", "group hogs", action, Why("contention", "", figures or {}, (), ()))


@pytest.mark.parametrize(
    ("control", "value", "demotes"),
    [
        (Control.NICE, 19, True),
        (Control.NICE, 0, False),
        (Control.AUTOGROUP, 4, True),
        (Control.CPU_SHARES, 2, True),
        (Control.CPU_SHARES, 1024, False),
        (Control.CPU_WEIGHT, 99, True),
        (Control.CPU_IDLE, 1, True),
        (Control.FENCE, (0, 0, 0, 1), True),
        (Control.SLICE, 100_000, False),
        (Control.AFFINITY, (0,), False),
    ],
)
def test_what_takes_cpu_from_somebody(log: ModuleType, control: Control, value: Any, demotes: bool) -> None:
    on = CgroupPlace("/a") if DECIDED[control] is CgroupPlace else place_of(control, ProcId(7, 70))
    assert log.demotes(decision(Set(control, on, value))) is demotes


def test_giving_back_takes_nothing(log: ModuleType) -> None:
    assert not log.demotes(decision(Restore(Control.NICE, ProcessPlace(ProcId(7, 70)))))


def test_a_session_or_cgroup_is_demoted_with_all_that_is_in_it(log: ModuleType, stage: ModuleType) -> None:
    roster = stage.Roster()
    for pid, session, cgroup, name in ((7, 70, "/", "redis"), (8, 70, "/", "hogs"), (9, 90, "/a/b", "build")):
        roster.processes[pid, 1].add(name)
        roster.session_of[pid, 1] = session
        roster.sessions[session].add(name)
        roster.cgroups[cgroup].add(name)

    def met(control: Control, on: ProcessPlace | SessionPlace | CgroupPlace) -> Any:
        return log.met(None, None, decision(Set(control, on, 2)), roster)

    assert met(Control.NICE, ProcessPlace(ProcId(8, 1))) == {"hogs"}
    assert met(Control.AUTOGROUP, SessionPlace(70, ProcId(8, 1))) == {"redis", "hogs"}
    assert met(Control.CPU_SHARES, CgroupPlace("/a")) == {"build"}
    assert met(Control.CPU_SHARES, CgroupPlace("/aa")) == set()
    roster.cgroups["/a/nicety-fence-8-1"].add("sh")
    roster.cgroups["/a/nicety-fence-8-1/below"].add("cc1")
    roster.cgroups["/a/nicety-fence-88-1"].add("redis")
    assert met(Control.FENCE, ProcessPlace(ProcId(8, 1))) == {"hogs", "sh", "cc1"}, "who drives it, and who was born in it"


def test_a_change_has_its_figures_and_the_sensitive_of_those_it_met(log: ModuleType, figures: ModuleType) -> None:
    why: dict[str, float | int | str] = {
        "victim": "web",
        "contender": "hogs",
        "victim_lacks_cores": 0.5,
        "contender_frees_cores": 1,
        "all_free_cores": 1.5,
    }
    made = decision(Set(Control.NICE, ProcessPlace(ProcId(7, 70)), 19), why)
    roles = {"redis": figures.Role.SERVICE, "hogs": figures.Role.BATCH}
    found = log.change_of(made, {"redis", "hogs"}, roles)
    assert (found.programs, found.sensitive) == (("hogs", "redis"), ("redis",))
    assert (found.victim, found.contender, found.lacks, found.frees, found.together) == ("web", "hogs", 0.5, 1.0, 1.5)
    assert log.change_of(decision(made.action), set(), roles).lacks is None
