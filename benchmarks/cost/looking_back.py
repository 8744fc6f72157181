"""What it costs to look back on a day: 24 hours of 500 processes, once a second, about 25 of them at work.

    python -m benchmarks.cost.looking_back [--state DIR] [--hours 24] [--rounds 5] [--only WORD] [--json FILE]

An hour of a simulated machine goes through the real observer and engine, and the real writers store it once for each hour of the
day: each time as another session after another boot, because what is seen and decided does not depend on the time of day. Writing a
day takes about five minutes; `--state` keeps it for the next run. Then each command runs as a user starts it. Bounds are those of
issue 27, in CPU seconds of the command and its children. Commands that take less than two seconds run several times, and the
fastest counts, because other load only adds.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from nicety.models.identity import ProcId
from nicety.models.records import Snapshot, WorkerSample
from nicety.scheduler.config.sections import Config, from_builtins, to_builtins
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Abilities, Outcome, ResizePool, Session, Tick, Verdict, encode
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.service.live_models import models_in_use
from nicety.scheduler.store.decisions import DecisionLog, DecisionReader
from nicety.scheduler.store.traces import TraceWriter

from ..claims import Claims
from .store import simulated

PROCESSES, MOVING, HOUR = 500, 25, 3600

START_SECONDS, DOCTOR_SECONDS, LOOK_SECONDS, LONG_SECONDS, EXPORT_BYTES = 0.2, 0.5, 0.4, 60.0, 300e6
"""Bounds of issue 27."""

BUDGET = 1 << 40  # nothing is dropped
DONE = "whole-day"
EXPECTED = (0, 1, 3)  # `status` finds no daemon and says so, which loads the same modules; `doctor` has findings
_NOBODY = b"00000000-"
"""Prefix of the decisions of the hour that is written again and again."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a command."""

    cpu: float  # seconds
    wall: float  # seconds
    mib: float  # most resident memory
    code: int


# --- the day ------------------------------------------------------------------------------------------------------------------


def write_day(state: Path, hours: int) -> None:
    """Write so many hours that end now, unless they are there."""
    mark = state / DONE
    if mark.exists() and mark.read_text() == str(hours):
        return
    if state.exists() and any(state.iterdir()):
        raise SystemExit(f"{state} is neither empty nor a day of {hours} hours; give another --state")
    state.mkdir(mode=0o700, exist_ok=True)
    end = time.time_ns() // 10**9 * 10**9
    log = DecisionLog(state, BUDGET)
    config = from_builtins(
        {**to_builtins(Config()), "pools": {"web": {"kind": "gunicorn", "pidfile": "/run/web.pid", "maximum": 16}}}
    )
    models = models_in_use(config, state / "models", lambda _, text: print(text, file=sys.stderr))
    abilities, own = Abilities(autogroup=True, cpu_cgroup="v2", may_renice=True), ProcId(1, 1)
    observer, engine = models.observer(config, abilities, own), Engine(config, _NOBODY[:-1].decode())
    memory = engine.memory()
    sessions = [
        Session(
            f"{hour:08x}",
            f"boot-{hour}",
            end - (hours - hour) * HOUR * 10**9,
            "0",
            "act",
            own,
            abilities,
            to_builtins(config),
            models.digests(),
            memory,
        )
        for hour in range(1, hours + 1)
    ]
    ticks: list[tuple[bytes, bytes, bytes, bytes | None]] = []
    outcomes: tuple[Outcome, ...] = ()
    sizes = [8]  # of the pool, at each tick
    with _traces(state, sessions[0]) as traces:
        for snapshot in _hour(sessions[0], sizes):
            traces.append(snapshot)
            tick = observer.tick(snapshot, outcomes, False, (), (), ())
            kept = encode(engine.memory()) if ticks and len(ticks) % 600 == 0 else None
            verdict = engine.step(tick)
            outcomes = tuple(Outcome(it.id, Status.APPLIED, it.target, "done", 1) for it in verdict.decisions)
            ticks.append((encode(tick), encode(verdict), encode(outcomes), kept))
            asked = [it.action.size for it in verdict.decisions if isinstance(it.action, ResizePool)]
            sizes.append((sizes[-1:] + asked)[-1])
    for session in sessions:
        _write_hour(log, session, ticks)
        if session is not sessions[0]:
            with _traces(state, session) as traces:
                for snapshot in _hour(session, sizes):
                    traces.append(snapshot)
        print(f"hour {session.id} is written", file=sys.stderr, flush=True)
    log.close()
    assert log.dropped == 0, log.last_error
    mark.write_text(str(hours))


def _hour(session: Session, sizes: Sequence[int]) -> Iterator[Snapshot]:
    """An hour with a pool that has this size at each tick, and a load that rises and falls every ten minutes."""
    for seq, snapshot in enumerate(simulated(PROCESSES, MOVING, HOUR)):
        (pool,) = snapshot.pools
        ids = list(snapshot.identities)[: sizes[seq]]
        load = 5 - 4 * math.cos(2 * math.pi * seq / 600)
        busy = min(load / len(ids), 1.0)
        workers = tuple(WorkerSample(id_, busy, True) for id_ in ids)
        pool = replace(pool, size=len(ids), requested=len(ids), queued=max(0.0, load - len(ids)), workers=workers)
        yield replace(snapshot, wall=session.wall + seq * 10**9, pools=(pool,))


@contextmanager
def _traces(state: Path, session: Session) -> Iterator[TraceWriter]:
    writer = TraceWriter(state, boot_id=session.boot_id, session=session.id, budget_bytes=BUDGET, interval=1.0)
    yield writer
    writer.close()
    assert writer.dropped == 0, writer.last_error


def _write_hour(log: DecisionLog, session: Session, ticks: Sequence[tuple[bytes, bytes, bytes, bytes | None]]) -> None:
    """The ticks as those of this session."""
    own = f"{session.id}-".encode()
    log.begin(session)
    for seq, (seen, said, done, memory) in enumerate(ticks):
        tick = msgspec.json.decode(seen.replace(_NOBODY, own), type=Tick)
        log.append(
            msgspec.structs.replace(tick, wall=session.wall + seq * 10**9),
            msgspec.json.decode(said.replace(_NOBODY, own), type=Verdict),
            msgspec.json.decode(done.replace(_NOBODY, own), type=tuple[Outcome, ...]),
            None if memory is None else msgspec.json.decode(memory.replace(_NOBODY, own)),
        )


# --- the commands -------------------------------------------------------------------------------------------------------------


def cost_of(command: Sequence[str]) -> Cost:
    """Of one run."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, code, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode not in EXPECTED:
        print(f"{' '.join(command)}: {said.decode(errors='replace')}", file=sys.stderr)
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - began, used.ru_maxrss / 1024, process.returncode)


def commands(state: Path, out: Path) -> dict[str, tuple[list[str], float]]:
    """Arguments and bound in CPU seconds of each command."""
    with DecisionReader(state / "decisions.db") as log:
        newest = log.find(limit=1)[0]
        oldest = log.find(limit=1, newest_first=False)[0]
        latest = log.latest()
    assert latest is not None
    assert latest.tick is not None
    group = latest.tick.groups[0].name
    since = f"{(time.time_ns() - newest.wall) / 1e9 + HOUR:.0f}s"
    return {
        "--version": (["--version"], START_SECONDS),
        "status": (["status"], START_SECONDS),
        "pools": (["pools"], START_SECONDS),
        "decisions": (["decisions"], LOOK_SECONDS),
        "decisions of an hour": (["decisions", "--since", since], LOOK_SECONDS),
        "decisions of the day that match": (["decisions", "--since", "999d", "--target", "nothing"], LOOK_SECONDS),
        "why GROUP": (["why", group], LOOK_SECONDS),
        "why ID, the newest": (["why", newest.id], LOOK_SECONDS),
        "why ID, the oldest": (["why", oldest.id], LOOK_SECONDS),
        "doctor": (["doctor"], DOCTOR_SECONDS),
        "export to Parquet": (["export", "traces", "--format", "parquet", "--out", str(out)], LONG_SECONDS),
        "replay": (["replay"], LONG_SECONDS),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, help="keep the day in this directory")
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only commands with this word in their name")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nicety-day-") as name:
        state = options.state or Path(name) / "state"
        out = Path(name) / "day.parquet"
        write_day(state, options.hours)
        print(f"{sum(path.stat().st_size for path in state.rglob('*') if path.is_file()) / 1e6:.0f} MB of stores")
        claims = Claims()
        figures = {}
        for what, (arguments, bound) in commands(state, out).items():
            if options.only not in what:
                continue
            command = [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(state), *arguments]
            costs = [cost_of(command)]
            while costs[0].cpu < 2.0 and len(costs) < options.rounds:
                costs.append(cost_of(command))
            best = min(costs, key=lambda cost: cost.cpu)
            assert best.code in EXPECTED, f"{what} failed"
            claims.at_most(f"nicety {what}: CPU s", best.cpu, bound)
            figures[what] = {"cpu": best.cpu, "wall": best.wall, "peak_mib": best.mib}
            if out.exists():
                claims.at_most(f"nicety {what}: bytes of the file", out.stat().st_size, EXPORT_BYTES)
                out.unlink()
                claims.at_most(f"nicety {what}: bytes of memory", best.mib * (1 << 20), EXPORT_BYTES)
        claims.close(options.json, hours=options.hours, processes=PROCESSES, figures=figures)
    return 0 if all(row["holds"] for row in claims.rows) else 3


if __name__ == "__main__":
    sys.exit(main())
