"""Moments of the past, made of stores that the real writers wrote: what was there, what had come of it, and what is missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Class, HostSample, Identity, Known, Snapshot
from nicety.scheduler.config.sections import Config, to_builtins
from nicety.scheduler.decision import (
    Abilities,
    Decision,
    Effect,
    Flag,
    Grant,
    Note,
    Outcome,
    Restore,
    Scope,
    Session,
    Set,
    Tick,
    Verdict,
    Why,
)
from nicety.scheduler.explain import past as module
from nicety.scheduler.explain.past import Past
from nicety.scheduler.frame import pack, unpack
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.scope import EVERYTHING
from nicety.scheduler.store import traces as trace_module
from nicety.scheduler.store.decisions import DecisionLog, GroupFigures
from nicety.scheduler.store.traces import TraceLooks, TraceWriter
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_member, a_pool, a_tick

SECOND = 10**9
WALL = 1_780_000_000 * SECOND
OWN = ProcId(900, 90)


def a_session(id_: str, wall: int, acts: bool = True, own: ProcId = OWN) -> Session:
    scope = Scope((Grant(EVERYTHING),)) if acts else Scope()
    mode = "act" if acts else "observe"
    return Session(id_, "boot", wall, "0.9", mode, own, Abilities(True, "v2", True), to_builtins(Config()), {}, {}, scope=scope)


def a_snapshot(tick: Tick, pids: Sequence[int] = (7, 8, 900)) -> Snapshot:
    """Process 7 uses half a core, 8 waits for a quarter, the daemon a hundredth."""
    table = np.zeros(len(pids), dtype=SAMPLE)
    cpu, wait = {7: 0.5, 900: 0.01}, {8: 0.25}
    for row, pid in enumerate(pids):
        table[row]["pid"], table[row]["start_ticks"], table[row]["ppid"] = pid, 90, 1
        table[row]["cpu_ns"], table[row]["wait_ns"] = round(cpu.get(pid, 0.0) * tick.at), round(wait.get(pid, 0.0) * tick.at)
        table[row]["rss_bytes"], table[row]["state"], table[row]["threads"] = 1 << 20, ord("S"), 1
        table[row]["known"] = int(Known.WAIT)
    identities = {ProcId(pid, 90): Identity(f"comm{pid}", f"prog{pid}", "/", "", 1000) for pid in pids}
    host = HostSample((tick.at, tick.at), 1 << 33, 1 << 32, None)
    return Snapshot(tick.at, tick.wall, 200 + tick.at // 10_000_000, table, MappingProxyType(identities), host, ())


class Writing:
    """Writes sessions as the daemon does."""

    def __init__(self, stores: Path) -> None:
        self.stores = stores
        self.log = DecisionLog(stores, 1 << 28)
        self.traces: TraceWriter | None = None
        self.session = ""
        self.seq, self.wall = 0, WALL

    def begin(self, id_: str, wall: int, *, acts: bool = True, recorded: bool = True, own: ProcId = OWN) -> None:
        self.close_traces()
        self.log.begin(a_session(id_, wall, acts, own))
        if recorded:
            self.traces = TraceWriter(self.stores, boot_id="boot", session=id_, budget_bytes=1 << 28, interval=1.0)
        self.session, self.seq, self.wall = id_, 0, wall

    def tick(
        self,
        decisions: Sequence[Decision] = (),
        outcomes: Sequence[Outcome] = (),
        effects: Sequence[Effect] = (),
        notes: Sequence[Note] = (),
    ) -> None:
        groups = [
            a_group("hogs", Class.BATCH, [a_member(7)], cpu=0.5),
            a_group("redis", Class.INTERACTIVE, [a_member(8)], cpu=0.0, wait=0.25),
        ]
        groups[0] = msgspec.structs.replace(groups[0], members=(msgspec.structs.replace(a_member(7), id=ProcId(7, 90)),))
        groups[1] = msgspec.structs.replace(groups[1], members=(msgspec.structs.replace(a_member(8), id=ProcId(8, 90)),))
        made = a_tick(self.seq, groups=groups, pools=[a_pool("web")], forecasts=[a_forecast("hogs", "cpu", 0.7)])
        tick = msgspec.structs.replace(made, wall=self.wall, gap=self.seq == 0)
        if self.traces is not None:
            self.traces.append(a_snapshot(tick))
        verdict = Verdict(tuple(decisions), (), tuple(effects), tuple(notes))
        self.log.append(tick, verdict, tuple(outcomes), {} if self.log.keyframe_due else None)
        self.seq += 1
        self.wall += SECOND

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.tick()

    def close_traces(self) -> None:
        if self.traces is not None:
            self.traces.close()
            self.traces = None

    def close(self) -> None:
        self.close_traces()
        self.log.close()


def demotion(id_: str, value: int = 19) -> Decision:
    why = Why("contention now", "redis waits for hogs.", {"victim": "redis", "contender": "hogs"}, (), ())
    return Decision(id_, "priority", "group hogs pid 7", Set(Control.NICE, ProcessPlace(ProcId(7, 90)), value, expected=0), why)


def restoring(id_: str) -> Decision:
    why = Why("contention over", "redis waits no more.", {"contender": "hogs"}, (), ())
    return Decision(id_, "priority", "group hogs pid 7", Restore(Control.NICE, ProcessPlace(ProcId(7, 90))), why)


def done(decision: str, status: Status = Status.APPLIED) -> Outcome:
    return Outcome(decision, status, "group hogs pid 7", "", 1)


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    there = Writing(tmp_path)
    yield there
    there.close()


@pytest.fixture
def stores(writing: Writing) -> Path:
    """Two sessions with ten minutes between them; in the first one hogs are demoted at tick 3, and restored at tick 8."""
    writing.begin("aaaa0001", WALL)
    writing.ticks(3)
    writing.tick([demotion("aaaa0001-3.0")], [done("aaaa0001-3.0")])
    writing.ticks(2)
    writing.tick(
        effects=[Effect("aaaa0001-3.0", "wait of group redis, cores", 0.3, 0.1, 3, "helped")], notes=[Note("a", "a note", {})]
    )
    writing.ticks(1)
    writing.tick([restoring("aaaa0001-8.0")], [done("aaaa0001-8.0")])
    writing.ticks(3)
    writing.begin("bbbb0002", WALL + 600 * SECOND, acts=False)
    writing.ticks(5)
    writing.close()
    return writing.stores


def at(stores: Path, seconds: float) -> module.Moment:
    there = Past(stores, "box")
    try:
        return there.at(WALL / 1e9 + seconds)
    finally:
        there.close()


def test_a_moment_has_what_the_daemon_saw(stores: Path) -> None:
    found = at(stores, 5.4)
    frame = found.frame
    assert frame is not None
    assert found.said == ""
    assert unpack(pack(frame)) == frame
    assert (frame.seq, frame.wall, frame.machine.name) == (5, WALL / 1e9 + 5, "box")
    assert (frame.own.mode, frame.own.acting_on, frame.own.session, frame.own.ticks) == ("act", ["everything"], "aaaa0001", 6)
    assert frame.own.running == 5.0
    assert frame.own.memory == 1 << 20
    hogs = next(group for group in frame.groups if group.name == "hogs")
    assert (hogs.class_, hogs.cpu) == ("batch", 0.5)
    assert hogs.forecast is not None
    assert [pool.name for pool in frame.pools] == ["web"]
    rows = {
        pid: (frame.processes.group[row], frame.processes.cpu[row], frame.processes.wait[row])
        for row, pid in enumerate(frame.processes.pid)
    }
    assert rows == {7: ("hogs", 0.5, 0.0), 8: ("redis", 0.0, 0.25), 900: ("program prog900", 0.01, 0.0)}
    assert [group.name for group in frame.groups] == ["hogs", "program prog900", "redis"]


def test_figures_before_it_are_there_for_a_graph(stores: Path) -> None:
    before = at(stores, 5.0).before
    assert [tick.seq for tick in before] == [0, 1, 2, 3, 4, 5]
    assert before[-1].groups[0] == GroupFigures("hogs", 0.5)
    assert [tick.seq for tick in at(stores, 601.0).before] == [0, 1]


def test_a_change_is_in_force_from_its_decision_to_its_restore(stores: Path) -> None:
    def changes(seconds: float) -> list[tuple[str, str, str, str, str, int]]:
        frame = at(stores, seconds).frame
        assert frame is not None
        return [
            (group.name, it.control, it.original, it.now, it.protects, it.processes)
            for group in frame.groups
            for it in group.changes
        ]

    assert changes(2.0) == []
    assert changes(3.0) == [("hogs", "nice", "0", "19", "redis", 1)]
    assert changes(7.0) == [("hogs", "nice", "0", "19", "redis", 1)]
    assert changes(8.0) == []
    assert changes(602.0) == []


def test_decisions_have_what_had_become_of_them_by_then(stores: Path) -> None:
    def decided(seconds: float) -> list[tuple[str, str, str]]:
        frame = at(stores, seconds).frame
        assert frame is not None
        return [(it.id, it.status, it.effect) for it in frame.decisions]

    assert decided(2.0) == []
    assert decided(4.0) == [("aaaa0001-3.0", "applied", "")]
    assert decided(6.0) == [("aaaa0001-3.0", "applied", "helped")]
    assert decided(9.0) == [("aaaa0001-8.0", "applied", ""), ("aaaa0001-3.0", "applied", "helped")]


def test_notes_are_those_of_the_moment(stores: Path) -> None:
    assert [None if frame is None else frame.notes for frame in (at(stores, 5.0).frame, at(stores, 6.0).frame)] == [[], ["a note"]]


def test_a_change_that_was_only_observed_is_not_in_force(writing: Writing) -> None:
    writing.begin("aaaa0001", WALL, acts=False)
    writing.tick()
    writing.tick([demotion("aaaa0001-1.0")], [done("aaaa0001-1.0", Status.OBSERVED)])
    writing.close()
    frame = at(writing.stores, 1.0).frame
    assert frame is not None
    assert all(not group.changes for group in frame.groups)
    assert [it.status for it in frame.decisions] == ["observed"]
    assert frame.own.mode == "observe"


def test_changes_of_a_daemon_that_died_are_not_in_force_of_the_next(writing: Writing) -> None:
    writing.begin("aaaa0001", WALL)
    writing.tick()
    writing.tick([demotion("aaaa0001-1.0")], [done("aaaa0001-1.0")])
    writing.begin("bbbb0002", WALL + 20 * SECOND)
    writing.ticks(2)
    writing.begin("cccc0003", WALL + 30 * SECOND, own=ProcId(901, 95))
    writing.ticks(2)
    writing.close()
    same, other = at(writing.stores, 21.0).frame, at(writing.stores, 31.0).frame
    assert same is not None
    assert other is not None
    assert sum(len(group.changes) for group in same.groups) == 1
    assert sum(len(group.changes) for group in other.groups) == 0


def test_an_incident_is_open_until_it_is_over(writing: Writing) -> None:
    why = Why("leak", "it grows", {}, (), ())
    writing.begin("aaaa0001", WALL)
    writing.tick()
    writing.tick([Decision("aaaa0001-1.0", "quarantine", "pool web worker 7", Flag("web", ProcId(7, 90), "leak"), why)])
    writing.ticks(2)
    over = Flag("web", ProcId(7, 90), "leak", incident="aaaa0001-1.0", over=True)
    writing.tick([Decision("aaaa0001-4.0", "quarantine", "pool web worker 7", over, why)])
    writing.close()
    open_, closed = at(writing.stores, 3.0).frame, at(writing.stores, 4.0).frame
    assert open_ is not None
    assert closed is not None
    assert [(it.id, it.pids, it.kind) for it in open_.incidents] == [("aaaa0001-1.0", [7], "leak")]
    assert closed.incidents == []


def test_steps_go_from_tick_to_tick_and_say_where_nothing_was_recorded(stores: Path) -> None:
    past = Past(stores, "box")
    past.at(WALL / 1e9 + 10.5)
    seen = []
    for ticks in (-1, 1, 1, 1, 1, -1, -1):
        found = past.step(ticks)
        assert found.frame is not None
        seen.append((round(found.frame.wall - WALL / 1e9), found.said))
    gap = "between this and the moment before, nothing was recorded for 9 min 49 s"
    assert seen == [(9, ""), (10, ""), (11, ""), (600, gap), (601, ""), (600, ""), (11, gap)]
    first, last = past.step(-100), past.step(1000)
    assert first.frame is not None
    assert last.frame is not None
    assert (first.frame.wall, last.frame.wall) == (WALL / 1e9, WALL / 1e9 + 604)
    assert past.step(1).said == "this is the newest moment that is recorded"
    assert past.first().frame == first.frame
    assert past.step(-1).said == "this is the oldest moment that is recorded"
    past.close()


def test_a_gap_is_said_with_its_ends(stores: Path) -> None:
    found = at(stores, 300.0)
    assert found.frame is not None
    assert found.frame.wall == WALL / 1e9 + 11
    assert "nothing was recorded from" in found.said
    assert found.said.endswith("no daemon ran")
    assert "until now" in at(stores, 9000.0).said
    early = at(stores, -50.0)
    assert early.frame is not None
    assert early.frame.seq == 0
    assert "nothing is recorded before" in early.said


def test_the_first_tick_of_a_session_has_no_rates(stores: Path) -> None:
    frame = at(stores, 600.0).frame
    assert frame is not None
    assert not frame.measured
    assert frame.processes.pid == []
    assert frame.own.memory == 1 << 20


def test_without_a_trace_there_are_groups_and_no_processes(writing: Writing) -> None:
    writing.begin("aaaa0001", WALL, recorded=False)
    writing.ticks(4)
    writing.close()
    found = at(writing.stores, 2.0)
    assert found.frame is not None
    assert found.said == "its processes were not recorded"
    assert [group.name for group in found.frame.groups] == ["hogs", "redis"]
    assert found.frame.processes.pid == []


def test_no_log_and_an_empty_one_say_what_to_do(tmp_path: Path, writing: Writing) -> None:
    with pytest.raises(StoreError, match="no decision log"):
        Past(tmp_path / "nowhere", "box")
    writing.begin("aaaa0001", WALL)
    past = Past(writing.stores, "box")
    for found in (past.at(WALL / 1e9), past.first(), past.step(-1)):
        assert found == module.Moment(None, "nothing was recorded yet; `nicety run` records")
    past.close()


def test_it_follows_a_log_that_is_being_written(writing: Writing) -> None:
    writing.begin("aaaa0001", WALL)
    writing.ticks(2)
    writing.tick([demotion("S-2.0")])
    past = Past(writing.stores, "box")
    before = past.at(WALL / 1e9 + 60).frame
    writing.tick()
    writing.tick([demotion("S-4.0")])
    after = past.step(1).frame
    assert before is not None
    assert after is not None
    assert (before.seq, after.seq) == (2, 3)
    past.close()


def test_a_damaged_tick_says_so(stores: Path) -> None:
    with sqlite3.connect(stores / "decisions.db") as db:
        db.execute("UPDATE ticks SET crc = 0 WHERE id % 4294967296 = 5 AND wall < ?", (WALL + 100 * SECOND,))
    db.close()
    for second in (5.0, 6.0):  # it builds on the damaged one
        found = at(stores, second)
        assert found.frame is None
        assert "cannot be read: it was dropped or is damaged" in found.said
    assert at(stores, 4.0).frame is not None


def test_a_day_is_searched_and_not_read(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    writing.begin("aaaa0001", WALL)
    writing.ticks(200)
    writing.close()
    past = Past(writing.stores, "box")
    reader = past._reader
    looks = list[int]()
    beside = reader._beside

    def counted(id_: int, before: bool = False) -> tuple[int, int] | None:
        looks.append(id_)
        return beside(id_, before)

    monkeypatch.setattr(reader, "_beside", counted)
    for second in (0, 1, 77, 150, 199):
        looks.clear()
        found = past.at(WALL / 1e9 + second + 0.3).frame
        assert found is not None
        assert found.seq == second
        assert len(looks) <= 2 + 9  # a binary search of 200 ticks
    past.close()


# --- single ticks of a trace ----------------------------------------------------------------------------------------------------


def test_looks_find_each_tick_across_keyframes(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "KEYFRAME_TICKS", 10)
    monkeypatch.setattr(trace_module, "LOOKS_KEPT", 6)
    writing.begin("aaaa0001", WALL)
    writing.ticks(35)
    writing.close()
    looks = TraceLooks(writing.stores / "traces")
    for seq in (34, 0, 9, 10, 11, 33, 12, 12, 29):
        found = looks.look("aaaa0001", seq, WALL + seq * SECOND)
        assert found is not None
        assert found.wall == WALL + seq * SECOND
        assert found.table["cpu_ns"][0] == round(0.5 * found.at)
        assert len(looks._kept) <= 6
    assert looks.look("aaaa0001", 35, WALL) is None
    assert looks.look("bbbb0002", 1, WALL) is None
    assert TraceLooks(writing.stores / "nowhere").look("aaaa0001", 1, WALL) is None


def test_a_damaged_row_costs_the_ticks_up_to_the_next_keyframe(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "KEYFRAME_TICKS", 10)
    writing.begin("aaaa0001", WALL)
    writing.ticks(25)
    writing.close()
    (path,) = (writing.stores / "traces").glob("*.db")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE ticks SET data = ? WHERE id % 4294967296 = 13", (b"broken",))
    db.close()
    looks = TraceLooks(writing.stores / "traces")
    readable = [seq for seq in range(25) if looks.look("aaaa0001", seq, WALL) is not None]
    assert readable == [*range(13), *range(20, 25)]
    found = at(writing.stores, 15.0)
    assert found.said == "its processes were not recorded"


def test_looks_read_the_file_of_the_day_first(writing: Writing) -> None:
    writing.begin("aaaa0001", WALL)
    writing.ticks(2)
    writing.wall += 86400 * SECOND
    writing.ticks(2)
    writing.close()
    assert len(list((writing.stores / "traces").glob("*.db"))) == 2
    looks = TraceLooks(writing.stores / "traces")
    walls = [found and (found.wall - WALL) // SECOND for found in (looks.look("aaaa0001", seq, WALL) for seq in range(4))]
    assert walls == [0, 1, 86402, 86403]
