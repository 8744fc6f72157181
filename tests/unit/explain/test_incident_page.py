"""`nicety anomalies`, `why ID` and `wrong`: what a person woken at night reads, and what nicety learns from the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nicety.models.anomaly.model import alpha
from nicety.models.identity import ProcId
from nicety.models.records import Anomaly, Blocked, Deadlock, Score
from nicety.scheduler.config.sections import Config, to_builtins
from nicety.scheduler.config.sections import Quarantine as Section
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decide.policies.quarantine.words import rarity
from nicety.scheduler.decision import Abilities, Outcome, Session, Tick
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.read.evidence import Evidence
from nicety.scheduler.store.decisions import DecisionLog
from nicety.scheduler.store.feedback import FeedbackStore
from nicety.scheduler.testing.ticks import a_pool, a_tick

Invoke = Callable[..., Any]
SICK = ProcId(9001, 9001)
EVIDENCE = (
    ("growth_mib", 34.0),
    ("growth_mib_per_minute", 85.0),
    ("siblings_growth_mib", 0.25),
    ("seconds", 24.0),
    ("now_mib", 120.0),
    ("siblings_mib", 60.0),
)
LOOK = Evidence(
    id=SICK,
    program="python3 worker.py",
    state="S",
    wchan="futex_wait_queue",
    syscall="recvfrom on descriptor 5, TCP to 10.0.0.3 port 5432",
    stack=("futex_wait_queue+0x6c/0x90", "do_futex+0x1f"),
    cpu_seconds=12.5,
    threads=2,
    thread_states=(("S in futex_wait_queue", 2),),
    children=((9100, "sleep", "S"),),
    descriptors=40,
    descriptor_kinds=(("file", 30), ("socket", 10)),
    descriptor_targets=(("/srv/app/x\x1b[2J.log", 30), ("sockets", 10)),
    descriptor_limit=1024,
    memory=(("anonymous", 100 << 20),),
    mappings=(("[heap]", 90 << 20),),
)


def write(
    root: Path, ticks: Callable[[int], dict[str, Any]], count: int, session: str = "5e551017", own: int = 1, ago: float = 600.0
) -> None:
    """What a daemon would have logged over these ticks, the last of which was `ago` - `count` seconds ago."""
    config = Config(quarantine=Section(action="flag"))
    log, engine = DecisionLog(root, 1 << 24), Engine(config, session)
    rights = Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True)
    log.begin(Session(session, "boot", 0, "0", "act", ProcId(own, 1), rights, to_builtins(config), {}, engine.memory()))
    begin, outcomes = time.time_ns() - round(ago * 1e9), tuple[Outcome, ...]()
    for seq in range(count):
        values = {"pools": [a_pool(size=4)], **ticks(seq)}
        tick: Tick = msgspec.structs.replace(a_tick(seq, outcomes=outcomes, **values), wall=begin + seq * 10**9)
        verdict = engine.step(tick)
        outcomes = tuple(Outcome(it.id, Status.APPLIED, it.target, "reported", 0) for it in verdict.decisions)
        looks = {it.id: (LOOK,) for it in verdict.decisions}
        log.append(tick, verdict, outcomes, None, looks)
    log.close()


def leaking(upto: int = 1000) -> Callable[[int], dict[str, Any]]:
    """The second worker leaks until this tick; its score grows by one a tick."""

    def tick(seq: int) -> dict[str, Any]:
        healthy = [Score(ProcId(pid, pid), "web", Anomaly.LEAK, 0.0, 0.4, (), "anomaly 00") for pid in (9000, 9002, 9003)]
        sick = Score(SICK, "web", Anomaly.LEAK, 30.0 + seq, 2.5e-7, EVIDENCE, "anomaly 00")
        return {"scores": tuple(sorted([*healthy, *([sick] if seq < upto else [])], key=lambda it: it.id))}

    return tick


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state directory that `nicety` uses, with an open incident."""
    write(tmp_path / "state", leaking(), 60, ago=61)
    return tmp_path / "state"


def words(text: str) -> str:
    return " ".join(text.split())


def test_an_open_incident_says_what_since_when_how_sure_compared_with_whom_and_what_to_do(
    nicety: Invoke, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = nicety("anomalies")
    assert said.code == 3, "an open incident is a finding"
    page = words(said.out)
    for part in (
        "1 open, 0 over",
        "web worker 9001 leaks memory, since ",
        "what its memory grew by 34 MiB in 24 s to 120 MiB, 85 MiB a minute now",
        "compared siblings' median grew by 0.2 MiB to 60 MiB; 0 of its 3 siblings looked like this at the same time",
        f"how sure 1 in 4 million healthy worker-minutes look like this; reported from {rarity(alpha(1.0))}",
        "what to do Only its exit frees this memory kill -TERM 9001 lets it finish",
        "all of it nicety why 5e551017-5.0",
    ):
        assert part in page, f"{part!r} is not in\n{said.out}"
    assert len([line for line in said.out.splitlines() if line.startswith("  how sure")]) == 1, "of a single incident"
    monkeypatch.setenv("COLUMNS", "80")
    shown = nicety("anomalies")
    assert words(shown.out) == page
    assert max(map(len, shown.out.splitlines())) <= 80


def test_the_page_of_an_incident_has_the_snapshot_and_nothing_that_a_terminal_obeys(nicety: Invoke, state: Path) -> None:
    said = nicety("why", "5e551017-5.0")
    page = words(said.out)
    for part in (
        "incident 5e551017-5.0, reported ",
        ", open, act mode",
        "python3 worker.py: sleeping in futex_wait_queue; 12.5 s of CPU so far",
        "system call: recvfrom on descriptor 5, TCP to 10.0.0.3 port 5432",
        "kernel stack: futex_wait_queue < do_futex",
        "descriptors: 40 of at most 1024: 30 file, 10 socket",
        "30 /srv/app/x\\x1b[2J.log",
        "children: 9100 sleep (S)",
        "nicety anomalies wrong 5e551017-5.0",
    ):
        assert part in page, f"{part!r} is not in\n{said.out}"
    assert "\x1b" not in said.out
    record = json.loads(nicety("why", "5e551017-5.0", "--json").out)["incident"]
    assert (record["pids"], record["kind"], record["open"]) == ([9001], "leak", True)
    assert record["evidence"][0]["descriptors"] == 40


def test_since_goes_back_to_when_it_began_by_its_own_evidence(nicety: Invoke, state: Path) -> None:
    (record,) = json.loads(nicety("anomalies", "--json").out)["incidents"]
    assert record["reported"] - record["since"] == 24 * 10**9


def test_the_page_of_its_process_names_the_incident(nicety: Invoke, state: Path) -> None:
    page = words(nicety("why", "9001").out)
    assert "reported: it leaks memory" in page
    assert "nicety why 5e551017-5.0" in page


def test_an_incident_that_is_over_is_a_line_and_no_finding(nicety: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "state", leaking(30), 120, ago=130)
    said = nicety("anomalies")
    assert said.code == 0
    assert "0 open, 1 over" in said.out
    assert "nothing unusual was seen for 60 s" in words(said.out)
    assert "over: nothing unusual" in words(nicety("why", "5e551017-5.0").out)


def test_what_ended_with_its_daemon_is_not_open(nicety: Invoke, state: Path) -> None:
    write(state, lambda _: {}, 5, session="0ther000", own=2, ago=6)
    said = nicety("anomalies")
    assert said.code == 0
    assert "the daemon that reported it has ended" in words(said.out)


def test_old_incidents_are_left_out_unless_asked_for(nicety: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "state", leaking(30), 120, ago=90_000)
    said = nicety("anomalies")
    assert (said.code, said.out) == (0, "")
    assert "no incident in this time" in said.err
    assert "no daemon is watching" in said.err
    assert "1 over" in nicety("anomalies", "--since", "2d").out


def test_a_circle_is_told_with_who_holds_what(nicety: Invoke, tmp_path: Path) -> None:
    ids = (ProcId(9000, 9000), SICK)
    waits = tuple(Blocked(it, it.pid, a_tick(0).at, f"flock on inode {it.pid}", ids[1 - i]) for i, it in enumerate(ids))
    write(tmp_path / "state", lambda _: {"deadlocks": (Deadlock(waits),)}, 30, ago=31)
    page = words(nicety("anomalies").out)
    assert "web workers 9000, 9001 are deadlocked, since" in page
    assert "9000 has waited 1 s for flock on inode 9000, held by 9001" in page
    assert "9001 has waited 1 s for flock on inode 9001, held by 9000" in page
    assert "the kernel shows which process waits for which" in page


def test_wrong_teaches_the_highest_score_and_is_shown_and_taken_back(nicety: Invoke, state: Path) -> None:
    said = nicety("anomalies", "wrong", "5e551017-5.0")
    assert said.code == 0
    assert "leak in web is now reported only with more than a score of 133.5" in said.err
    (item,) = FeedbackStore(state).read()
    assert (item.id, item.pool, item.kind, item.value) == ("5e551017-5.0", "web", "leak", 89.0)
    listed = nicety("anomalies").out
    assert "Called wrong" in listed
    assert "5e551017-5.0  web   leak" in listed
    assert "called wrong on" in nicety("why", "5e551017-5.0").out
    assert "withdrawn: leak in web" in nicety("anomalies", "wrong", "--undo", "5e551017-5.0").err
    assert FeedbackStore(state).read() == ()
    again = nicety("anomalies", "wrong", "--undo", "5e551017-5.0")
    assert again.code == 1
    assert "these incidents were: none" in again.err


@pytest.mark.parametrize("id_", ["nonsense", "5e551017-3.0"])
def test_what_is_no_incident_cannot_be_called_wrong(nicety: Invoke, state: Path, id_: str) -> None:
    said = nicety("anomalies", "wrong", id_)
    assert said.code == 1
    assert "no decision" in said.err
    assert not (state / "feedback.json").exists()
