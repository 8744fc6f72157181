"""Frames made of ticks: what is shown of groups, pools and processes, and what is remembered of decisions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Behaviour, Class, HostSample, Identity, Known, Snapshot
from nicety.scheduler import frame
from nicety.scheduler.config.sections import Config, parse
from nicety.scheduler.decision import (
    Action,
    Chosen,
    Decision,
    Delay,
    Effect,
    Flag,
    Group,
    Outcome,
    Refusal,
    ResizePool,
    Rules,
    Set,
    Tick,
    Verdict,
    Why,
)
from nicety.scheduler.explain import frames
from nicety.scheduler.explain.frames import MOST_DECISIONS, Recent, frame_of
from nicety.scheduler.frame import Count, Frame, pack, unpack
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.observe.measure import Measured, Measurer
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.testing.frames import an_own
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_member, a_pool, a_tick


def a_decision(id_: str, action: Action | None = None, target: str = "group hogs pid 7", policy: str = "priority") -> Decision:
    done = action or Set(Control.NICE, ProcessPlace(ProcId(7, 7)), 19)
    return Decision(id_, policy, target, done, Why("contention now", "redis waits", {}, (), ()))


def an_outcome(decision: str, status: Status) -> Outcome:
    return Outcome(decision, status, "group hogs pid 7", "", 1)


def verdict(*decisions: Decision, refused: tuple[Refusal, ...] = (), effects: tuple[Effect, ...] = ()) -> Verdict:
    return Verdict(decisions, refused, effects)


def seen(rows: Mapping[int, tuple[float, float, int]]) -> tuple[Snapshot, Measured]:
    """A snapshot and what was measured of it. `rows`: pid -> cores used, cores waited, bytes resident, over a second."""

    def snapshot(at: int) -> Snapshot:
        table = np.zeros(len(rows), dtype=SAMPLE)
        for row, (pid, (cpu, wait, rss)) in enumerate(sorted(rows.items())):
            table[row]["pid"], table[row]["start_ticks"], table[row]["ppid"] = pid, 100, 1
            table[row]["cpu_ns"], table[row]["wait_ns"] = round(cpu * at), round(wait * at)
            table[row]["rss_bytes"], table[row]["state"], table[row]["threads"] = rss, ord("S"), 1
            table[row]["known"] = int(Known.WAIT)
        identities = {ProcId(pid, 100): Identity(f"comm{pid}", f"prog{pid}", "/", "", 1000) for pid in sorted(rows)}
        uptime = 200 + at // 10_000_000
        return Snapshot(at, at, uptime, table, MappingProxyType(identities), HostSample((at, at), 1 << 33, 1 << 32, None), ())

    measurer = Measurer(Config())
    assert measurer.measure(snapshot(10**9)) is None
    newest = snapshot(2 * 10**9)
    measured = measurer.measure(newest)
    assert measured is not None
    return newest, measured


def behaving(group: Group, behaviour: Behaviour) -> Group:
    return msgspec.structs.replace(group, behaviour=behaviour)


def framed(tick: Tick, **changes: Any) -> Frame:
    values: dict[str, Any] = {
        "own": an_own(),
        "machine_name": "box",
        "config": Config(),
        "recent": Recent(),
        "changes": (),
        "notes": (),
        "seen": None,
    }
    frame = frame_of(tick, **{**values, **changes})
    assert unpack(pack(frame)) == frame
    return frame


# --- decisions ------------------------------------------------------------------------------------------------------------------


def test_the_same_change_of_many_members_is_one_decision() -> None:
    recent = Recent()
    made = [a_decision(f"s-1.{number}", target=f"group hogs pid {number}") for number in range(3)]
    recent.add(5.0, verdict(*made, a_decision("s-1.9", ResizePool("web", 5), "pool web", "pool_size")), ())
    shown = {it.id: (it.target, it.what, it.times, it.wall) for it in recent.decisions()}
    assert shown == {"s-1.0": ("group hogs", "nice 19", 3, 5.0), "s-1.9": ("pool web", "size 5", 1, 5.0)}
    assert recent.counts() == [Count("decisions", "pool_size", "", 1), Count("decisions", "priority", "", 3)]


def test_the_newest_decision_comes_first_and_old_ones_are_forgotten() -> None:
    recent = Recent()
    for tick in range(MOST_DECISIONS + 5):
        recent.add(float(tick), verdict(a_decision(f"s-{tick}.0")), ())
    assert [it.id for it in recent.decisions()][:2] == [f"s-{MOST_DECISIONS + 4}.0", f"s-{MOST_DECISIONS + 3}.0"]
    assert len(recent.decisions()) == MOST_DECISIONS


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_worst_outcome_of_its_members_stands_for_a_decision(order: tuple[int, ...]) -> None:
    recent = Recent()
    recent.add(0.0, verdict(*(a_decision(f"s-1.{number}", target=f"group hogs pid {number}") for number in range(3))), ())
    came = (Status.APPLIED, Status.REFUSED, Status.PARTIAL)
    recent.add(1.0, verdict(), [an_outcome(f"s-1.{number}", came[number]) for number in order])
    assert [it.status for it in recent.decisions()] == ["refused"]
    assert {(it.kind, it.times) for it in recent.counts() if it.what == "outcomes"} == {
        ("applied", 1),
        ("refused", 1),
        ("partial", 1),
    }


def test_an_effect_is_told_with_its_decision_and_counted_for_all_that_it_covers() -> None:
    recent = Recent()
    recent.add(0.0, verdict(a_decision("s-1.0"), a_decision("s-1.1", target="group hogs pid 8")), ())
    effect = Effect("s-1.1", "wait of group redis, cores", 0.5, 0.1, 5, "helped", ("s-1.0",))
    recent.add(5.0, verdict(effects=(effect,)), ())
    assert [(it.id, it.effect) for it in recent.decisions()] == [("s-1.0", "helped")]
    assert Count("effects", "priority", "helped", 2) in recent.counts()


def test_refusals_are_counted_by_the_rule_of_the_guard() -> None:
    recent = Recent()
    recent.add(0.0, verdict(refused=(Refusal(a_decision("s-1.0"), "cool-down", "too soon"),)), ())
    assert recent.counts() == [Count("refusals", "priority", "cool-down", 1)]
    assert recent.decisions() == []


def test_what_came_of_unknown_decisions_changes_nothing() -> None:
    recent = Recent()
    effect = Effect("old-1.1", "wait", 0.5, 0.1, 5, "helped")
    recent.add(0.0, verdict(effects=(effect,)), [an_outcome("old-1.0", Status.APPLIED)])
    assert recent.counts() == []


def test_no_more_decisions_are_waited_for_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "REMEMBERED", 2)
    recent = Recent()
    for tick in range(3):
        recent.add(float(tick), verdict(a_decision(f"s-{tick}.0")), ())
    recent.add(9.0, verdict(), [an_outcome(f"s-{tick}.0", Status.APPLIED) for tick in range(3)])
    assert Count("outcomes", "priority", "applied", 2) in recent.counts()


def test_an_incident_is_open_from_its_flag_to_its_end_and_its_kind_may_be_corrected() -> None:
    recent, worker, other = Recent(), ProcId(410, 1), ProcId(411, 1)
    recent.add(1.0, verdict(a_decision("s-1.0", Flag("web", worker, "spin"), "pool web worker 410", "quarantine")), ())
    recent.add(2.0, verdict(a_decision("s-2.0", Flag("web", other, "leak"), "pool web worker 411", "quarantine")), ())
    corrected = Flag("web", worker, "stuck", incident="s-1.0")
    recent.add(3.0, verdict(a_decision("s-3.0", corrected, "pool web worker 410", "quarantine")), ())
    assert [(it.id, it.kind, it.pids, it.wall) for it in recent.incidents()] == [
        ("s-1.0", "stuck", [410], 1.0),
        ("s-2.0", "leak", [411], 2.0),
    ]
    over = Flag("web", worker, "stuck", incident="s-1.0", over=True)
    recent.add(4.0, verdict(a_decision("s-4.0", over, "pool web worker 410", "quarantine")), ())
    assert [it.id for it in recent.incidents()] == ["s-2.0"]


# --- what is seen ---------------------------------------------------------------------------------------------------------------


def test_a_class_is_shown_with_its_certainty() -> None:
    def behaves(inferred: Class, interactive: float, batch: float) -> Behaviour:
        return Behaviour(inferred, interactive, batch, (), "behaviour x")

    groups = [
        a_group("given", Class.BATCH, [a_member(1)]),
        behaving(a_group("learned", Class.INTERACTIVE, [a_member(2)]), behaves(Class.INTERACTIVE, 0.97, 0.01)),
        behaving(a_group("leaning", Class.EXEMPT, [a_member(3)]), behaves(Class.EXEMPT, 0.2, 0.7)),
        behaving(a_group("open", Class.EXEMPT, [a_member(4)]), behaves(Class.EXEMPT, 0.3, 0.4)),
        a_group("new", Class.EXEMPT, [a_member(5)]),
        a_group("gone", Class.BATCH),
    ]
    shown = {it.name: (it.class_, it.given, it.certainty, it.leans) for it in framed(a_tick(1, groups=groups)).groups}
    assert shown == {
        "given": ("batch", True, None, ""),
        "learned": ("interactive", False, 0.97, ""),
        "leaning": ("exempt", False, 0.7, "batch"),
        "open": ("exempt", False, 0.4, ""),
        "new": ("exempt", False, None, ""),
    }


def test_forecasts_stand_with_what_they_are_about() -> None:
    forecasts = [a_forecast("redis", "cpu", 0.4), a_forecast("redis", "rss", 9e6), a_forecast("web", "load", 3.0)]
    tick = a_tick(1, groups=[a_group("redis", Class.INTERACTIVE, [a_member(1)])], pools=[a_pool("web")], forecasts=forecasts)
    frame = framed(tick, own=an_own(interval=0.5))
    redis, web = frame.groups[0], frame.pools[0]
    assert redis.forecast is not None
    assert redis.forecast.seconds == [0.5, 1.5, 3.0, 6.0, 15.0]
    assert redis.forecast.high == [0.4] * 5
    assert redis.memory_forecast is not None
    assert redis.memory_forecast.median == [9e6] * 5
    assert web.forecast is not None
    assert web.forecast.median == [3.0] * 5


def test_a_pool_has_its_objective_and_the_rules_that_a_replay_chose() -> None:
    text = '[pools.web]\nkind = "gunicorn"\npidfile = "/run/web.pid"\n[pools.web.objective]\np95 = "300ms"\n'
    tick = a_tick(1, pools=[a_pool("web", size=3)], chosen=(Chosen("web", Rules.CONSTANT, 8, 8.0, 24.0, 1.0, 2.0, 3.0),))
    pool = framed(tick, config=parse(text, "test")).pools[0]
    assert (pool.kind, pool.objective, pool.rules, pool.size) == ("gunicorn", "p95 300ms", "a constant size of 8", 3)
    assert (pool.aim, pool.aim_value) == ("p95", 0.3)


@pytest.mark.parametrize(
    ("keys", "aim"),
    [('wait = "2s"', ("wait", 2.0)), ("utilization = 0.7", ("utilization", 0.7)), (None, ("", None))],
)
def test_the_objective_of_a_pool_is_a_figure_too(keys: str | None, aim: tuple[str, float | None]) -> None:
    text = '[pools.web]\nkind = "gunicorn"\npidfile = "/run/web.pid"\n'
    text += "" if keys is None else f"[pools.web.objective]\n{keys}\n"
    pool = framed(a_tick(1, pools=[a_pool("web")]), config=parse(text, "test")).pools[0]
    assert (pool.aim, pool.aim_value) == aim


def test_changes_in_force_stand_with_the_group_or_pool_that_they_change() -> None:
    record = {
        "control": "nice",
        "original": "0",
        "now": "19",
        "processes": 4,
        "protects": "redis",
        "decision": "s-1.0",
        "since_wall": 5 * 10**9,
    }
    changes = [{**record, "group": "group hogs"}, {**record, "group": "pool web", "control": "pool.size"}]
    tick = a_tick(
        1, groups=[a_group("hogs", Class.BATCH, [a_member(1)]), a_group("web", Class.BATCH, [a_member(2)])], pools=[a_pool("web")]
    )
    frame = framed(tick, changes=changes)
    assert {it.name: [change.wall for change in it.changes] for it in frame.groups} == {"hogs": [5.0], "web": []}
    assert [change.control for change in frame.pools[0].changes] == ["pool.size"]


def test_who_delays_a_group_stands_with_it() -> None:
    delay = Delay("redis", 0.5, (("hogs", 0.4), ("cron", 0.05)), 0.02, 0.01, 0.015, 0.005, 0.0)
    groups = [a_group("hogs", Class.BATCH, [a_member(1)]), a_group("redis", Class.INTERACTIVE, [a_member(2)])]
    shown = {it.name: it.delay for it in framed(a_tick(1, groups=groups, delays=(delay,))).groups}
    assert shown == {"hogs": None, "redis": frame.Delay(0.5, [("hogs", 0.4), ("cron", 0.05)], 0.02, 0.01, 0.015, 0.005)}


def test_groups_that_the_tick_does_not_report_are_shown_as_they_were_measured() -> None:
    frame = framed(a_tick(1), seen=seen({10: (0.25, 0.5, 1000), 11: (0.0, 0.0, 2000)}))
    assert [(it.name, it.class_, it.cpu, it.wait, it.memory) for it in frame.groups] == [
        ("program prog10 of uid 1000", "exempt", 0.25, 0.5, 1000),
        ("program prog11 of uid 1000", "exempt", 0.0, 0.0, 2000),
    ]


def test_processes_are_shown_with_their_rates() -> None:
    shown = framed(a_tick(1), seen=seen({10: (0.25, 0.5, 1000), 11: (0.0, 0.0, 2000)})).processes
    assert (shown.pid, shown.cpu, shown.wait, shown.memory) == ([10, 11], [0.25, 0.0], [0.5, 0.0], [1000, 2000])
    assert (shown.name, shown.group, shown.user) == (
        ["comm10", "comm11"],
        ["program prog10 of uid 1000", "program prog11 of uid 1000"],
        [1000, 1000],
    )
    assert (shown.state, shown.age, shown.left_out) == (["S", "S"], [3.0, 3.0], 0)


def test_of_too_many_processes_the_busy_ones_are_shown_and_then_the_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MOST_PROCESSES", 3)
    rows = {10: (0.0, 0.0, 10), 11: (0.0, 0.0, 30), 12: (0.2, 0.0, 1), 13: (0.0, 0.0, 20), 14: (0.0, 0.4, 2)}
    shown = framed(a_tick(1), seen=seen(rows)).processes
    assert (shown.pid, shown.left_out) == ([11, 12, 14], 2)


def test_of_too_many_idle_groups_the_large_ones_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MOST_GROUPS", 1)
    frame = framed(a_tick(1), seen=seen({10: (0.0, 0.0, 10), 11: (0.0, 0.0, 30)}))
    assert [it.name for it in frame.groups] == ["program prog11 of uid 1000"]


def test_the_first_tick_has_no_rates() -> None:
    assert framed(a_tick(0, gap=True)).measured is False
    assert framed(a_tick(1)).measured is True
