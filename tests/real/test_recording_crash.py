"""kill -9 while recording: traces and decision log have everything up to the last two ticks, and recording goes on afterwards."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Snapshot
from nicety.scheduler.decision import Abilities, Decision, Outcome, ResizePool, Session, Tick, Verdict, Why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.store.decisions import DecisionLog, DecisionReader
from nicety.scheduler.store.traces import Lost, TraceWriter, read_traces
from nicety.scheduler.testing.ticks import a_forecast, a_pool, a_tick

MIDNIGHT = 1_760_054_400 * 10**9
BUDGET = 64 << 20
ROUNDS = 8


def machine() -> Iterator[Snapshot]:
    """The same machine each time, without end; a day begins in the middle of it."""
    rng = np.random.default_rng(3)
    table = np.zeros(60, dtype=SAMPLE)
    table["pid"], table["start_ticks"] = np.arange(10, 70), 5
    tick = 0
    while True:
        table = table.copy()
        moved = rng.choice(60, 12, replace=False)
        table["cpu_ns"][moved] += rng.integers(0, 10**9, 12).astype(np.uint64)
        table["start_ticks"][moved[0]] += 1
        keys = zip(table["pid"].tolist(), table["start_ticks"].tolist(), strict=True)
        identities = {ProcId(*key): Identity(f"p{key[1]}", "program", "/", "", 0) for key in keys}
        wall = MIDNIGHT + (tick - 200) * 10**9
        yield Snapshot(10**13 + tick, wall, tick, table, identities, HostSample((tick,), 1, int(moved[0]), None), ())
        tick += 1


def turn(seq: int) -> tuple[Tick, Verdict, tuple[Outcome, ...]]:
    decision = Decision(
        f"1-{seq}.0", "pool_size", "pool web", ResizePool("web", seq % 5), Why("floor", "because", {"n": seq}, (), ())
    )
    tick = a_tick(seq, pools=[a_pool("web")], forecasts=[a_forecast("web", "load", seq / 3)])
    return tick, Verdict((decision,), (), ()), (Outcome(decision.id, Status.APPLIED, decision.target, "done", 1),)


def record(state: Path, session: str) -> None:
    """Record until killed, and say each tick that is in."""
    traces = TraceWriter(state, boot_id="boot", session=session, budget_bytes=BUDGET, interval=0.001)
    log = DecisionLog(state, 64 << 20)
    log.begin(Session(session, "boot", 1, "0", "act", ProcId(9, 9), Abilities(True, "v2", True), {}, {}, {}))
    for seq, snapshot in enumerate(machine()):
        traces.append(snapshot)
        log.append(*turn(seq))
        traces.flush()  # as the daemon, when something was decided
        assert traces.dropped == log.dropped == 0, (traces.last_error, log.last_error)
        os.write(1, seq.to_bytes(4))


def killed_after(state: Path, session: str, ticks: int, grace: float) -> int:
    """Start a recorder, kill it some time after it has said so many ticks; the last tick that it said."""
    command = [sys.executable, __file__, str(state), session]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        said = child.stdout.read(4 * ticks)
        assert len(said) == 4 * ticks, "the recorder ended by itself"
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        said += child.stdout.read()
        assert child.wait() == -signal.SIGKILL
    return int.from_bytes(said[len(said) // 4 * 4 - 4 :][:4])


def bits(one: Snapshot) -> tuple[object, ...]:
    return one.at, one.wall, one.uptime_ticks, one.table.tobytes(), dict(one.identities), one.host


def all_just_begun(lost: Sequence[Lost]) -> bool:
    """Killed between the making of a day's file and that of its tables: it is reported, and nothing was in it."""

    def tables(path: Path) -> int:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            (count,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return int(count)

    return all("just begun" in one.reason and not tables(one.path) for one in lost)


def test_everything_up_to_the_last_two_ticks_is_there_after_kill_9_at_any_moment(tmp_path: Path) -> None:
    rng = random.Random(8)
    state = tmp_path / "state"
    last = {}
    for round_ in range(ROUNDS):
        session = f"{round_:08}"
        last[session] = killed_after(state, session, rng.randrange(1, 400), rng.random() * 0.05)
        # no more than the tick in the making is missing: one that was said is in
        with DecisionReader(state) as reader:
            found = list(reader.ticks(session))
            assert not any(it.damage for it in found)
            assert len(found) - 1 in (last[session], last[session] + 1)
            assert all((it.tick, it.verdict, it.outcomes) == turn(it.seq) for it in found)
            assert [it.seq for it in found] == list(range(len(found)))
            assert len(reader.find(session=session)) == len(found)
        read = read_traces(state, session=session)
        snapshots = [bits(snapshot) for _, snapshot in read]
        assert all_just_begun(read.lost)
        assert len(snapshots) - 1 in (last[session], last[session] + 1)
        assert snapshots == [bits(one) for one in islice(machine(), len(snapshots))]
    read = read_traces(state)
    kept = [recording.id for recording, _ in read]
    assert all_just_begun(read.lost)
    assert list(dict.fromkeys(kept)) == list(last)


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
