"""How long a person waits for a reading command: its wall time, from exec to exit, on a log that is written here.

    python -m benchmarks.cost.startup [--rounds 9] [--json FILE]

The commands take turns, so that other load affects all of them. The bound of 0.3 s is for the fastest round, because other load
only adds. For scale, the start of Python, numpy and typer alone is measured in the same run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import Config, to_builtins
from nicety.scheduler.decision import Abilities, Decision, Outcome, ResizePool, Session, Verdict, Why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.store.decisions import DecisionLog
from nicety.scheduler.testing.ticks import a_pool, a_tick

from ..claims import Claims

BOUND_SECONDS = 0.3
TICKS = 500

COMMANDS: dict[str, list[str]] = {
    "--version": ["--version"],
    "--help": ["--help"],
    "decisions": ["decisions"],
    "decisions --json --since 1d": ["decisions", "--json", "--since", "1d"],
    "why ID": ["why", "s-3.0"],
    "why PID": ["why", "9001"],
    "status": ["status"],
}
"""Reading commands. `status` finds no daemon here and says so, which loads the same modules."""

SCALE = {"python -c pass": "pass", "import numpy": "import numpy", "import typer": "import typer"}


def write_log(directory: Path) -> None:
    """Write a decision log with a decision in every fifth tick."""
    log = DecisionLog(directory, 64 << 20)
    rights = Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True)
    log.begin(Session("5e551017", "boot", 0, "0", "act", ProcId(1, 1), rights, to_builtins(Config()), {}, {}))
    for seq in range(TICKS):
        decisions, outcomes = [], []
        if seq % 5 == 3:
            why = Why("forecast floor", "a load of 4 Erlang is to be expected.", {"load": 4.0}, (), ())
            decisions.append(Decision(f"s-{seq}.0", "pool_size", "pool web", ResizePool("web", 2 + seq % 7), why))
            outcomes.append(Outcome(f"s-{seq}.0", Status.APPLIED, "pool web", "", 1))
        tick = msgspec.structs.replace(a_tick(seq, pools=[a_pool("web")]), wall=time.time_ns())
        log.append(tick, Verdict(tuple(decisions), (), ()), tuple(outcomes))
    log.close()


def seconds_of(command: list[str]) -> float:
    """Wall time of one run."""
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nicety-startup-") as name:
        state = Path(name) / "state"
        write_log(state)
        nicety = [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(state)]
        runs = {what: [*nicety, *arguments] for what, arguments in COMMANDS.items()}
        runs |= {what: [sys.executable, "-c", code] for what, code in SCALE.items()}
        taken: dict[str, list[float]] = {what: [] for what in runs}
        for command in runs.values():
            seconds_of(command)  # files into the page cache, bytecode onto the disk
        for _ in range(options.rounds):
            for what, command in runs.items():
                taken[what].append(seconds_of(command))
    claims = Claims()
    for what in COMMANDS:
        claims.at_most(f"nicety {what}: seconds", min(taken[what]), BOUND_SECONDS)
    for what in SCALE:
        print(f"for scale: {what}: {min(taken[what]):.3f} s")
    claims.close(options.json, seconds={what: [round(value, 4) for value in values] for what, values in taken.items()})


if __name__ == "__main__":
    main()
