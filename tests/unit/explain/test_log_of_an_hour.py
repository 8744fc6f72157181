"""The log of an hour of heavy acting can be read in a minute: 400 batch processes that come and go beside a service."""

from __future__ import annotations

import random

import pytest

from nicety.models.records import Class
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Decision, Outcome, Restore, Set, Tick
from nicety.scheduler.explain.logstream import Entry, LogStream
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.places import process_of
from nicety.scheduler.testing.ticks import a_group, a_machine, a_member, a_tick

HOUR = 3600
READABLE = 60
"""Lines: one a second for a minute."""

PROCESSES, NEW_A_TICK = 400, 32
INTERVAL = 4
CONFIG = parse("[guard]\nchanges_per_tick = 400\n")


class Kept:
    """A sink that keeps entries."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.dropped = 0

    def write(self, entry: Entry) -> None:
        self.entries.append(entry)

    def flush(self) -> None:
        pass


def a_busy_tick(seq: int, pids: list[int], share: float, outcomes: list[Outcome]) -> Tick:
    """A service and hogs in its own session. `share`: how much of the hogs is in its way; it waits for that."""
    redis = a_group("redis", Class.INTERACTIVE, [a_member(50, session=5)], cpu=0.3, wait=0.6 * share)
    hogs = a_group("hogs", Class.BATCH, [a_member(pid, session=5) for pid in pids], cpu=1.6 if share else 0.02)
    machine = a_machine(busy=1.95 if share else 0.4)
    return a_tick(seq, machine=machine, groups=[redis, hogs], outcomes=outcomes, interval=INTERVAL)


def what_came(decision: Decision, chance: random.Random) -> Outcome:
    """Most is applied, some of it came too late."""
    status = chance.choices([Status.APPLIED, Status.VANISHED, Status.PARTIAL], [80, 15, 5])[0]
    return Outcome(decision.id, status, decision.target, "" if status is Status.APPLIED else "it was gone", 1)


@pytest.fixture(scope="module")
def hour() -> tuple[list[Entry], int]:
    """What the log has of an hour, and how many decisions were made in it."""
    chance, sink, engine = random.Random(7), Kept(), Engine(CONFIG, "5e551017")
    stream = LogStream(sink)
    pids, outcomes, decided = list(range(1000, 1000 + PROCESSES)), list[Outcome](), 0
    demoted = dict[int, Decision]()
    for seq in range(HOUR // INTERVAL):
        there = seq % 30 < 17  # batch work comes and goes, and the waits with what of it is not demoted
        pids = [*pids[NEW_A_TICK:], *range(2000 + seq * NEW_A_TICK, 2000 + (seq + 1) * NEW_A_TICK)]
        share = 0.01 + 0.99 * max(0.0, sum(pid not in demoted for pid in pids) / PROCESSES - 0.12) if there else 0.0
        tick = a_busy_tick(seq, pids, share, outcomes)
        verdict = engine.step(tick)
        outcomes = [what_came(decision, chance) for decision in verdict.decisions]
        decided += len(verdict.decisions)
        for decision in verdict.decisions:
            if isinstance(decision.action, Set) and (process := process_of(decision.action.on)) is not None:
                demoted[process.pid] = decision
            elif isinstance(decision.action, Restore) and (process := process_of(decision.action.on)) is not None:
                demoted.pop(process.pid, None)
        if seq > HOUR // INTERVAL - 30 and seq % 10 == 3:
            starved = next(reversed(demoted.values()))
            outcomes.append(Outcome(starved.id, Status.RELIEVED, starved.target, f"pid {seq} starves: it got 15 ms", 1))
        stream.tick("5e551017", "act", tick, verdict, outcomes)
    return sink.entries, decided


def test_an_hour_of_heavy_acting_is_read_in_a_minute(hour: tuple[list[Entry], int]) -> None:
    entries, decided = hour
    assert decided > 10_000, "this is no heavy acting"
    assert 5 <= len(entries) <= READABLE, f"{len(entries)} lines for {decided} decisions"


def test_what_was_not_said_at_once_is_counted(hour: tuple[list[Entry], int]) -> None:
    """Every decision is in a line, in its first or in a sum, but those since the latest sums."""
    entries, decided = hour
    counted = sum(entry.fields["count"] for entry in entries if entry.kind == "decision")
    assert 0.4 * decided < counted <= decided


def test_the_first_lines_say_what_is_done_to_whom_for_whom_and_what_came_of_it(hour: tuple[list[Entry], int]) -> None:
    entries, _ = hour
    first = next(entry for entry in entries if entry.kind == "decision")
    assert first.what.startswith("group hogs: nice 19 for ")
    assert first.what.endswith(" processes")
    assert "redis" in first.text
    assert "applied" in first.status
    assert any(entry.kind == "effect" and "redis waited for a CPU" in entry.text for entry in entries)
    assert any(entry.kind == "outcome" and entry.status == "relieved" for entry in entries)
