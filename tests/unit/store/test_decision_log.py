"""The decision log: what was seen, said and done comes back, can be searched and followed, and stays within its budget."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Anomaly, Class, Score
from nicety.scheduler.decision import (
    Abilities,
    Action,
    Decision,
    Effect,
    Flag,
    Outcome,
    Refusal,
    ResizePool,
    Session,
    Set,
    Tick,
    Verdict,
    Why,
    encode,
)
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.store.decisions import (
    NO_OUTCOME,
    REFUSED_BY_GUARD,
    WHOLE_TICKS,
    DecisionLog,
    DecisionReader,
    LoggedDecision,
)
from nicety.scheduler.store.records import record_of
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_member, a_pool, a_tick

START = 10**9  # wall time of the first tick, as `a_tick` makes it
NOTHING = Verdict((), (), ())


def session(name: str = "00000001") -> Session:
    return Session(
        id=name,
        boot_id="boot",
        wall=START,
        version="0",
        mode="act",
        own=ProcId(9, 9),
        abilities=Abilities(True, "v2", True),
        config={"daemon": {"act": True, "interval": 1.0}},
        artefacts={"demand": "3f9a"},
        engine={"n": 0},
    )


def tick(seq: int, outcomes: Sequence[Outcome] = ()) -> Tick:
    hogs = a_group("hogs", Class.BATCH, [a_member(pid, session=50, cgroup="/batch") for pid in (51, 52, 53)], cpu=1.0 / 3 + seq)
    return a_tick(
        seq,
        groups=[hogs, a_group("web", Class.INTERACTIVE)],
        pools=[a_pool("web", size=2)],
        forecasts=[a_forecast("web", "load", 0.1 + seq)],
        scores=(Score(ProcId(9000, 9000), "web", Anomaly.LEAK, 1.5, 0.25, (("slope_mib", 2.0),), "baseline"),),
        outcomes=outcomes,
    )


def decision(name: str, action: Action, target: str = "pool web", policy: str = "pool_size") -> Decision:
    return Decision(name, policy, target, action, Why("floor", "because", {"load": 1.5}, ("3 workers: too few",), ()))


def said(*decisions: Decision) -> Verdict:
    return Verdict(decisions, (), ())


def outcome(of: Decision, status: Status = Status.APPLIED) -> Outcome:
    return Outcome(of.id, status, of.target, f"it is {status}", 1)


RESIZE = decision("1-0.0", ResizePool("web", 3))
NICE = decision("1-1.0", Set(Control.NICE, ProcessPlace(ProcId(51, 51)), 19), "group hogs pid 51", "priority")
WEIGHT = decision("1-2.0", Set(Control.CPU_WEIGHT, CgroupPlace("/batch"), 1), "cgroup /batch", "priority")
AUTOGROUP = decision("1-3.0", Set(Control.AUTOGROUP, SessionPlace(52, ProcId(52, 52)), 19), "group hogs session 50", "priority")
FLAG = decision("1-4.0", Flag("web", ProcId(9001, 9001), "leak"), "pool web pid 9001", "quarantine")


@pytest.fixture
def reader(tmp_path: Path) -> DecisionReader:
    """A log with one decision a tick; the second is refused, the third fails, the fourth has no outcome."""
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    log.append(tick(0), said(RESIZE), [outcome(RESIZE)])
    log.append(tick(1, [outcome(RESIZE)]), Verdict((), (Refusal(NICE, "cool-down", "too soon"),), ()), ())
    log.append(tick(2), said(WEIGHT), [outcome(WEIGHT, Status.FAILED)])
    log.append(tick(3), said(AUTOGROUP), ())
    log.append(tick(4), Verdict((FLAG,), (), (Effect(RESIZE.id, "wait of web, cores", 0.5, 0.25, 3, "helped"),)), [outcome(FLAG)])
    log.close()
    assert (log.dropped, log.last_error) == (0, "")
    return DecisionReader(tmp_path)


def ids(found: Sequence[LoggedDecision]) -> list[str]:
    return [it.id for it in found]


def test_everything_comes_back_equal_and_bytes_are_canonical(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    turns = [(tick(seq), said(decision(f"1-{seq}.0", ResizePool("web", seq))), (outcome(RESIZE),)) for seq in range(20)]
    for one in turns:
        log.append(*one)
    log.close()
    with DecisionReader(tmp_path / "decisions.db") as reader:
        found = list(reader.ticks())
        (header,) = reader.sessions()
    assert [(it.tick, it.verdict, it.outcomes) for it in found] == turns
    assert [it.data for it in found] == [encode(one[0]) for one in turns]
    assert all(it.damage == () and it.memory is None and it.session == "00000001" for it in found)
    assert (header.session, header.first, header.last, header.ticks, header.damage) == (session(), 0, 19, 20, "")


def test_decisions_are_found_by_time_kind_target_process_id_and_status(reader: DecisionReader) -> None:
    with reader:
        assert ids(reader.find()) == ["1-4.0", "1-3.0", "1-2.0", "1-1.0", "1-0.0"]
        assert ids(reader.find(newest_first=False, limit=2)) == ["1-0.0", "1-1.0"]
        assert ids(reader.find(since=START + 2 * 10**9)) == ["1-4.0", "1-3.0", "1-2.0"]
        assert ids(reader.find(since=START + 10**9, until=START + 3 * 10**9)) == ["1-2.0", "1-1.0"]
        assert ids(reader.find(kind="priority")) == ["1-3.0", "1-2.0", "1-1.0"]
        assert ids(reader.find(kind="flag")) == ["1-4.0"]
        assert ids(reader.find(target="hogs")) == ["1-3.0", "1-1.0"]
        assert ids(reader.find(id="1-2.0")) == ["1-2.0"]
        assert ids(reader.find(status=REFUSED_BY_GUARD)) == ["1-1.0"]
        assert ids(reader.find(status=NO_OUTCOME)) == ["1-3.0"]
        assert ids(reader.find(status="failed", kind="set")) == ["1-2.0"]
        assert ids(reader.find(session="absent")) == []


def test_a_process_finds_what_was_decided_about_its_pool_cgroup_and_session(reader: DecisionReader) -> None:
    with reader:
        assert ids(reader.find(pid=51)) == ["1-3.0", "1-2.0", "1-1.0"]
        assert ids(reader.find(pid=53)) == ["1-3.0", "1-2.0"]
        assert ids(reader.find(pid=9001)) == ["1-4.0", "1-0.0"]
        assert ids(reader.find(pid=1)) == []


def test_an_effect_of_several_decisions_is_found_by_each_of_them(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    both = [
        decision(f"1-0.{number}", Set(Control.NICE, ProcessPlace(ProcId(number, 9)), 19), f"pid {number}") for number in (50, 51)
    ]
    effect = Effect("1-0.50", "wait of web, cores", 0.5, 0.25, 3, "helped", ("1-0.51",))
    log.append(tick(0), said(*both), ())
    log.append(tick(1), Verdict((), (), (effect,)), ())
    log.close()
    with DecisionReader(tmp_path / "decisions.db") as reader:
        found = [it.effects for it in reader.find(newest_first=False)]
        verdicts = [it.verdict for it in reader.ticks()]
    assert found == [(msgspec.structs.replace(effect, others=()),)] * 2
    assert verdicts[1] == Verdict((), (), (effect,))


def test_a_decision_has_its_reason_outcomes_and_effects(reader: DecisionReader) -> None:
    with reader:
        (resize,) = reader.find(id="1-0.0")
        (nice,) = reader.find(id="1-1.0")
    assert (resize.decision, resize.refusal, resize.outcomes) == (RESIZE, None, (outcome(RESIZE),))
    assert resize.effects == (Effect("1-0.0", "wait of web, cores", 0.5, 0.25, 3, "helped"),)
    assert (resize.policy, resize.action, resize.pids, resize.status, resize.seq) == (
        "pool_size",
        "resize",
        (9000, 9001),
        "applied",
        0,
    )
    assert (nice.decision, nice.refusal) == (NICE, Refusal(NICE, "cool-down", "too soon"))
    assert resize.intact
    assert msgspec.json.decode(msgspec.json.encode(record_of(resize)))["decision"]["why"]["figures"] == {"load": 1.5}


def test_an_outcome_that_comes_later_is_the_status(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    log.append(tick(0), said(RESIZE), [outcome(RESIZE)])
    log.append(tick(1, [outcome(RESIZE), outcome(RESIZE, Status.PARTIAL)]), NOTHING, ())
    log.close()
    with DecisionReader(tmp_path) as reader:
        (found,) = reader.find()
    assert (found.status, found.outcomes) == ("partial", (outcome(RESIZE), outcome(RESIZE, Status.PARTIAL)))


def test_following_gives_each_new_decision_once_while_the_log_is_written(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    log.append(tick(0), said(decision("old", ResizePool("web", 1))), ())
    waited = 0

    def wait() -> bool:
        nonlocal waited
        waited += 1
        if waited < 4:
            log.append(tick(waited), said(decision(f"new {waited}", ResizePool("web", 1))), ())
        return waited < 6

    with DecisionReader(tmp_path) as reader:
        assert ids(list(reader.follow(wait))) == ["new 1", "new 2", "new 3"]
        waited = 10
        assert ids(list(reader.follow(wait, after=1))) == ["new 1", "new 2", "new 3"]
    log.close()


def test_a_reader_sees_a_tick_at_once_if_something_was_decided_and_else_twenty_seconds_later(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    seen = []
    with DecisionReader(tmp_path) as reader:
        for seq in range(40):
            done = (outcome(RESIZE),) if seq == 33 else ()
            log.append(tick(seq), said(RESIZE) if seq == 25 else NOTHING, done)
            latest = reader.latest()
            assert latest is not None
            assert latest.tick == tick(latest.seq)
            seen.append(latest.seq)
        assert [it.seq for it in reader.ticks()] == list(range(34))
        assert reader.tick("00000001", 4) == next(it for it in reader.ticks() if it.seq == 4)
        assert reader.tick("00000001", 99) is None
        log.close()
        assert [it.seq for it in reader.ticks()] == list(range(40)), "closing writes what waits"
    assert seen == [0] + [1] * 2 + [3] * 4 + [7] * 8 + [15] * 10 + [25] * 8 + [33] * 7


def test_a_session_that_ends_writes_what_waits(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    for name in ("00000001", "00000002"):
        log.begin(session(name))
        for seq in range(5):
            log.append(tick(seq), NOTHING, ())
    with DecisionReader(tmp_path) as reader:
        assert [(it.session, it.seq) for it in reader.ticks()] == [
            *(("00000001", seq) for seq in range(5)),
            *(("00000002", seq) for seq in range(4)),
        ]
    log.close()


def test_figures_scores_and_texts_of_some_ticks_are_those_of_the_whole_ticks(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    for seq in range(WHOLE_TICKS + 20):
        log.append(tick(seq), NOTHING, ())
    log.close()
    with DecisionReader(tmp_path) as reader:
        place = reader.place_at(START + (WHOLE_TICKS + 2) * 10**9)
        assert place is not None
        figures = reader.figures_until(place, 5)
        assert [it.seq for it in figures] == list(range(WHOLE_TICKS - 2, WHOLE_TICKS + 3))
        assert [it.groups[0].demand for it in figures] == [tick(it.seq).groups[0].demand for it in figures]
        assert list(reader.scores("00000001", WHOLE_TICKS - 3, WHOLE_TICKS + 3)) == list(tick(0).scores) * 7
        assert [text for _, _, text in reader.texts(place.id)] == [encode(tick(seq)) for seq in range(place.seq, WHOLE_TICKS + 20)]
        assert reader.tick_of(place) == next(iter(reader.ticks("00000001", place.seq)))


def test_sessions_are_apart_and_in_order(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    for name, count in (("bbbbbbbb", 3), ("aaaaaaaa", 2)):
        log.begin(session(name))
        for seq in range(count):
            log.append(tick(seq), NOTHING, ())
    log.close()
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session("00000000"))
    log.append(tick(0), NOTHING, ())
    log.close()
    with DecisionReader(tmp_path) as reader:
        assert [(it.id, it.ticks) for it in reader.sessions()] == [("bbbbbbbb", 3), ("aaaaaaaa", 2), ("00000000", 1)]
        assert [(it.session, it.seq) for it in reader.ticks("aaaaaaaa")] == [("aaaaaaaa", 0), ("aaaaaaaa", 1)]
        assert len(list(reader.ticks())) == 6


def test_a_session_that_does_not_begin_or_goes_back_is_a_fault_of_the_caller(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    with pytest.raises(ValueError, match="begin a session"):
        log.append(tick(0), NOTHING, ())
    log.begin(session())
    log.append(tick(5), NOTHING, ())
    with pytest.raises(ValueError, match="tick 5 after tick 5"):
        log.append(tick(5), NOTHING, ())
    log.close()


def big(seq: int) -> Tick:
    """About 12 KB when stored."""
    forecasts = [a_forecast(f"group {number}", "cpu", (seq * 7919 + number * 104729) % 99991 / 997) for number in range(60)]
    groups = [
        a_group(f"g{number}", Class.EXEMPT, cpu=(seq * 31 + number * 17) % 101 / 7, wait=(seq * number) % 13 / 3)
        for number in range(400)
    ]
    return a_tick(seq, forecasts=forecasts, groups=groups)


def test_the_budget_holds_and_what_is_kept_begins_where_a_replay_can(tmp_path: Path) -> None:
    budget = 1 << 20
    log = DecisionLog(tmp_path, budget)
    log.begin(session())
    for seq in range(300):
        memory = {"n": seq} if log.keyframe_due else None
        log.append(big(seq), said(decision(f"1-{seq}.0", ResizePool("web", 1))), (), memory)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= budget
    assert log.dropped == 0
    log.close()
    with DecisionReader(tmp_path) as reader:
        found = list(reader.ticks())
        kept = [it.seq for it in found]
        assert kept == list(range(kept[0], 300))
        assert 10 < len(kept) < 290
        assert found[0].memory == {"n": kept[0]}
        assert not any(it.damage for it in found)
        assert ids(reader.find(newest_first=False)) == [f"1-{seq}.0" for seq in kept]
        assert ids(reader.find(pid=9000)) == []


def test_old_sessions_go_before_the_present_one(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 19)
    for name in range(12):
        log.begin(session(f"{name:08}"))
        for seq in range(10):
            log.append(big(seq), NOTHING, ())
    log.close()
    assert log.dropped == 0
    with DecisionReader(tmp_path) as reader:
        kept = reader.sessions()
        assert not any(it.damage for it in reader.ticks())
    assert [it.id for it in kept] == [f"{name:08}" for name in range(12 - len(kept), 12)]
    assert all((it.first, it.ticks) == (0, 10) for it in kept)
    assert 2 <= len(kept) < 12


def test_without_a_memory_nothing_is_dropped_and_no_more_is_written_than_the_budget(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 20)
    log.begin(session())
    for seq in range(200):
        log.append(big(seq), NOTHING, ())
    assert log.dropped > 0
    assert "give store.decision_bytes more" in log.last_error
    assert log.keyframe_due
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1 << 20
    log.append(big(200), NOTHING, (), {"n": 200})
    log.append(big(201), NOTHING, ())
    assert log.last_error == ""
    log.close()
    with DecisionReader(tmp_path) as reader:
        assert [(it.seq, it.memory) for it in reader.ticks()] == [(200, {"n": 200}), (201, None)]


def test_a_log_that_was_deleted_is_begun_again_with_the_session(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    log.append(tick(0), NOTHING, ())
    (tmp_path / "decisions.db").unlink()
    log.append(tick(1), NOTHING, ())
    log.close()
    with DecisionReader(tmp_path) as reader:
        assert [it.session for it in reader.sessions()] == [session()]
        assert [it.seq for it in reader.ticks()] == [1]


def test_a_log_of_another_schema_is_set_aside_by_the_writer_and_refused_by_the_reader(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    log.close()
    db = sqlite3.connect(tmp_path / "decisions.db")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreError, match=r"schema version 99.*read it with the nicety that wrote it"):
        DecisionReader(tmp_path)
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    log.append(tick(0), NOTHING, ())
    log.close()
    assert log.set_aside == tmp_path / "decisions.1.db"
    with DecisionReader(tmp_path) as reader:
        assert [it.seq for it in reader.ticks()] == [0]


def test_no_log_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no decision log at .*nicety run"):
        DecisionReader(tmp_path)
    (tmp_path / "decisions.db").write_bytes(b"something else entirely, of some length" * 50)
    with pytest.raises(StoreError, match=r"cannot be opened.*nicety run.*begins a new one"):
        DecisionReader(tmp_path)


def test_searching_needs_no_numpy(reader: DecisionReader) -> None:
    code = """
import sys
from pathlib import Path
from nicety.scheduler.store.decisions import DecisionReader
from nicety.scheduler.store.records import record_of
with DecisionReader(Path(sys.argv[1])) as reader:
    print([record_of(it).id for it in reader.find(limit=2)], "numpy" in sys.modules)
"""
    with reader:
        done = subprocess.run([sys.executable, "-c", code, str(reader.path)], capture_output=True, text=True, check=True)
    assert done.stdout == "['1-4.0', '1-3.0'] False\n"


def test_readings_at_the_same_time_and_one_after_another_do_not_disturb_each_other(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    for seq in range(60):
        log.append(tick(seq), NOTHING, ())
    log.close()
    base = 1 << 32
    with DecisionReader(tmp_path) as reader:
        first, second = reader.texts(base + 10), reader.texts(base + 3)
        found = [(next(first)[2], next(second)[2]) for _ in range(20)]
        assert found == [(encode(tick(10 + seq)), encode(tick(3 + seq))) for seq in range(20)]
        del first
        assert [text for _, _, text in reader.texts(base + 40, base + 42)] == [encode(tick(seq)) for seq in (40, 41, 42)]
        assert [text for _, _, text in reader.texts(base + 43, base + 43)] == [encode(tick(43))]
        assert [text for _, _, text in reader.texts(base + 5, base + 5)] == [encode(tick(5))], "and back"
        del second
        assert [it.tick for it in reader.ticks()] == [tick(seq) for seq in range(60)]
