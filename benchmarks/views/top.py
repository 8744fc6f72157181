"""What `nicety top` costs beside htop and btop, how soon its first screen is there, and how long a second of yesterday takes.

    python -m benchmarks.views.top [--json FILE] [--processes 500] [--seconds 40] [--hours 24]

The three run one after the other in a terminal of 120 columns and 36 lines (a pty), once a second, on the same processes: sleeping
ones, of which every tenth does a little. `nicety top` follows a daemon in a state directory of its own. A program that is not
installed is left out. For the past, the real writers fill stores with so many hours of a simulated machine of as many processes,
and moments of them are read at random. Seconds need an otherwise idle machine, CPU seconds do not.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import random
import resource
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from nicety.models.identity import ProcId
from nicety.models.records import Class, Snapshot
from nicety.scheduler.config.runtime import frames_to_read
from nicety.scheduler.config.sections import Config, to_builtins
from nicety.scheduler.decision import Abilities, Decision, Outcome, Scope, Session, Set, Verdict, Why
from nicety.scheduler.explain.past import Past
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.store.decisions import DecisionLog
from nicety.scheduler.store.traces import TraceWriter
from nicety.scheduler.testing.ticks import a_forecast, a_group, a_member, a_tick

from ..claims import Claims
from ..cost.store import simulated

COLUMNS, LINES = 120, 36

CPU, MEMORY_MIB, FIRST_SECONDS, PAST_SECONDS = 0.05, 60.0, 0.6, 0.2
"""Bounds of issue 26."""

STARTS, MOMENTS = 7, 40
"""Starts and moments that are measured (chosen)."""

WALL = 1_780_000_000 * 10**9

SLEEPER = "import time\nwhile True: time.sleep(3600)"
A_LITTLE = "import time\nwhile True:\n    time.sleep(1)\n    sum(range(20000))"


class Terminal:
    """A program in a pty. What it writes is read and forgotten, but for what is waited for."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.began = time.monotonic()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
            os.execve(command[0], list(command), environment)
        self.written = 0

    def read(self, seconds: float, until: bytes = b"") -> float:
        """Read for so long, or until this text comes; returns seconds since the start."""
        end, tail = time.monotonic() + seconds, b""
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._fd], [], [], left)[0]:
                break
            try:
                data = os.read(self._fd, 1 << 16)
            except OSError:
                break
            self.written += len(data)
            tail = (tail + data)[-8192:]
            if until and until in tail:
                break
        return time.monotonic() - self.began

    def cpu(self) -> float:
        """Seconds of CPU time of the program and of children that it waited for."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize() / (1 << 20)

    def end(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGTERM)
        end = time.monotonic() + 5
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            self.read(0.05)
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a program that ran for a while."""

    cpu: float  # share of a CPU
    mib: float
    bytes_a_second: float  # written to the terminal


@contextmanager
def crowd(count: int) -> Iterator[None]:
    """So many processes within the block."""
    started = []
    for number in range(count):
        words = [sys.executable, "-I", "-S", "-c", A_LITTLE if number % 10 == 0 else SLEEPER]
        started.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=number % 25 == 0))
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


@contextmanager
def daemon(state: Path) -> Iterator[None]:
    """A daemon that observes, within the block, from its second frame on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(state), "run"], stderr=subprocess.DEVNULL
    )
    places = frames_to_read("", state, os.environ)
    try:
        end = time.monotonic() + 60
        while not any(place.exists() for place in places):
            if time.monotonic() > end:
                raise TimeoutError("the daemon wrote no frame")
            time.sleep(0.1)
        time.sleep(3.0)
        yield
    finally:
        process.terminate()
        process.wait(60)


def environment(home: Path) -> dict[str, str]:
    """Of a common terminal."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
    return {**kept, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", "HOME": str(home)}


def cost(command: Sequence[str], home: Path, seconds: float) -> Cost:
    """What a program costs once it has settled."""
    terminal = Terminal(command, environment(home))
    try:
        terminal.read(5.0)
        before, written, at = terminal.cpu(), terminal.written, time.monotonic()
        terminal.read(seconds)
        passed = time.monotonic() - at
        return Cost((terminal.cpu() - before) / passed, terminal.memory_mib(), (terminal.written - written) / passed)
    finally:
        terminal.end()


def first_screen(command: Sequence[str], home: Path) -> tuple[float, float]:
    """(seconds until the first screen with groups, CPU seconds until then)."""
    terminal = Terminal(command, environment(home))
    try:
        return terminal.read(20.0, b"wants"), terminal.cpu()
    finally:
        terminal.end()


def peers(home: Path) -> dict[str, list[str]]:
    """htop and btop at 1 Hz, where they are installed."""
    (home / ".config" / "btop").mkdir(parents=True)
    (home / ".config" / "btop" / "btop.conf").write_text("update_ms = 1000\n")
    known = {"htop": ["-d", "10"], "btop": []}
    found = {name: shutil.which(name) for name in known}
    return {name: [path, *known[name]] for name, path in found.items() if path is not None}


# --- the past -----------------------------------------------------------------------------------------------------------------


def fill(stores: Path, processes: int, hours: float) -> tuple[float, float]:
    """Write so many hours at 1 Hz with the real writers; returns the first and the last time, seconds since 1970."""
    session = Session(
        "00000001",
        "boot",
        WALL,
        "0",
        "act",
        ProcId(9, 9),
        Abilities(True, "v2", True),
        to_builtins(Config()),
        {},
        {},
        scope=Scope(),
    )
    log, traces = (
        DecisionLog(stores, 4 << 30),
        TraceWriter(stores, boot_id="boot", session=session.id, budget_bytes=4 << 30, interval=1.0),
    )
    log.begin(session)
    rng = np.random.default_rng(2)
    ticks = round(hours * 3600)
    last = WALL
    for seq, snapshot in enumerate(simulated(processes, 30, ticks)):
        last = WALL + seq * 10**9
        written: Snapshot = replace(snapshot, wall=last, at=10**15 + seq * 10**9)
        traces.append(written)
        load = rng.random(20).tolist()
        groups = [
            a_group(f"group{at:02d}", Class.BATCH, [a_member(100 + 10 * at + n) for n in range(5)], load[at]) for at in range(20)
        ]
        forecasts = [a_forecast(group.name, metric, group.cpu) for group in groups for metric in ("cpu", "rss")]
        tick = msgspec.structs.replace(a_tick(seq, groups=groups, forecasts=forecasts), at=written.at, wall=last)
        why = Why("contention now", "group00 waits", {"victim": "group00", "contender": "group01"}, (), ())
        change = Set(Control.NICE, ProcessPlace(ProcId(110, 110)), seq % 19)
        decisions = (Decision(f"1-{seq}.0", "priority", "group group01 pid 110", change, why),) if seq % 10 == 0 else ()
        outcomes = tuple(Outcome(it.id, Status.APPLIED, it.target, "done", 1) for it in decisions)
        log.append(tick, Verdict(decisions, (), ()), outcomes, {} if log.keyframe_due else None)
    traces.close()
    log.close()
    assert (traces.dropped, log.dropped) == (0, 0), traces.last_error or log.last_error
    return WALL / 1e9, last / 1e9


def look_back(stores: Path, first: float, last: float) -> tuple[list[float], list[float], list[float]]:
    """(seconds, CPU seconds) of moments at random, and CPU seconds of a step from each of them."""
    chance = random.Random(3)
    past = Past(stores, "machine")
    past.first()  # what is loaded then is loaded once
    took, used, steps = [], [], []
    for _ in range(MOMENTS):
        at, began, before = chance.uniform(first, last), time.perf_counter(), time.process_time()
        found = past.at(at)
        took.append(time.perf_counter() - began)
        used.append(time.process_time() - before)
        assert found.frame is not None, found.said
        assert len(found.frame.processes.pid) > 100, found.said
        before = time.process_time()
        past.step(1)
        steps.append(time.process_time() - before)
    past.close()
    return took, used, steps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the claims here")
    parser.add_argument("--processes", type=int, default=500, help="processes to start, and of the simulated machine")
    parser.add_argument("--seconds", type=float, default=40.0, help="how long each program is measured")
    parser.add_argument("--hours", type=float, default=24.0, help="length of the past")
    options = parser.parse_args()
    claims, figures = Claims(), dict[str, object]()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        state, home = directory / "state", directory / "home"
        home.mkdir()
        ours = [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(state), "top"]
        with crowd(options.processes), daemon(state):
            costs = {"nicety top": cost(ours, home, options.seconds)}
            for program, command in peers(home).items():
                costs[program] = cost(command, home, options.seconds)
            starts = [first_screen(ours, home) for _ in range(STARTS)]
        for program, it in costs.items():
            figures[program] = {"cpu": it.cpu, "mib": it.mib, "bytes_a_second": it.bytes_a_second}
            print(f"{program}: {it.cpu:.2%} of a CPU, {it.mib:.1f} MiB, {it.bytes_a_second / 1024:.1f} KiB a second")
        who = f"of nicety top, {options.processes} processes"
        claims.at_most(f"share of a CPU {who}", costs["nicety top"].cpu, CPU)
        claims.at_most(f"MiB resident {who}", costs["nicety top"].mib, MEMORY_MIB)
        claims.at_most("seconds to the first screen, median", statistics.median(wall for wall, _ in starts), FIRST_SECONDS)
        claims.at_most("CPU seconds to the first screen, median", statistics.median(used for _, used in starts), FIRST_SECONDS)
        figures["first screen, CPU seconds"] = [used for _, used in starts]
        figures["first screen, seconds"] = [wall for wall, _ in starts]
        first, last = fill(directory / "stores", options.processes, options.hours)
        took, used, steps = look_back(directory / "stores", first, last)
        claims.at_most(f"CPU seconds of a moment of {options.hours:g} h, worst of {MOMENTS}", max(used), PAST_SECONDS)
        claims.at_most(f"seconds of a moment of {options.hours:g} h, worst of {MOMENTS}", max(took), PAST_SECONDS)
        figures["past"] = {"seconds": took, "cpu_seconds": used, "step_cpu_seconds": steps}
    claims.close(options.json, figures=figures)
    return 0 if all(row["holds"] for row in claims.rows) else 3


if __name__ == "__main__":
    sys.exit(main())
