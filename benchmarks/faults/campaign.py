"""What does nicety leave behind when a system call goes wrong? Each call is killed at, delayed, or made to fail.

    python -m benchmarks.faults.campaign                                  all programs, all faults: many hours
    python -m benchmarks.faults.campaign --cap 5 --seconds 600            at most 5 of each kind, and 10 minutes for each program
    python -m benchmarks.faults.campaign --sample 20                      20 faults for each program
    python -m benchmarks.faults.campaign --kills 500 --program daemon     500 kills at random calls while it acts under load
    python -m benchmarks.faults.campaign --program export --fault "EIO fsync 1"

Needs root and strace. Runs in a process namespace of its own, with real processes. `programs.py` lists the programs, and each says
what must hold after it. docs/campaign.md has what is tried and what was found.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..claims import Claims
from ..isolated import isolated
from .draw import every, kills, sample
from .program import End, Program, Running, Settings
from .programs import PROGRAMS
from .strace import Calls, Fault, calls_in, hit, under_strace

LIMIT = 60.0
"""Seconds that a run may take. Chosen: ten times the longest one."""


@dataclass(slots=True)
class Course:
    """What became of the cases of one program."""

    program: str
    calls: int = 0  # of the run without a fault, after the start
    drawn: int = 0
    cases: Counter[str] = field(default_factory=Counter)  # by kind of fault
    reached: int = 0
    in_force: int = 0  # cases that ended while something was changed
    failures: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def run(self) -> int:
        """Number of cases."""
        return sum(self.cases.values())

    def row(self) -> dict[str, Any]:
        """For the report."""
        plain = {name: getattr(self, name) for name in ("program", "calls", "drawn", "reached", "in_force", "failures")}
        return {**plain, "cases": dict(sorted(self.cases.items())), "seconds": round(self.seconds, 1)}


def run(program: Program, fault: Fault | None, calls: Calls | None) -> tuple[End, list[str]]:
    """One case: how it ended, and what is not as it must be."""
    program.prepare()
    log, errors = program.case / "strace.log", program.case / "stderr"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NICETY_")}
    environment |= {
        "TMPDIR": str(program.tmp),
        "HOME": str(program.case),
        "XDG_CONFIG_HOME": str(program.case),
        "PYTHONHASHSEED": "0",  # the same calls in each run
        "OMP_NUM_THREADS": "1",
    }
    if fault is not None:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    with errors.open("w") as err:
        strace = subprocess.Popen(
            [*under_strace(log, fault), *program.command()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
        running = Running(strace, log)
        program.drive(running)
        try:
            out, _ = strace.communicate(timeout=LIMIT)
            code: int | None = strace.returncode
        except subprocess.TimeoutExpired:
            running.send(signal.SIGKILL)  # strace ends with it
            out, _ = strace.communicate()
            code = None
    said = errors.read_text(errors="replace")
    if "ptrace" in said.lower() and not log.read_text():
        raise SystemExit(f"strace may not trace here: {said.strip()[:200]}")
    where = "" if fault is None else hit(log, fault)
    in_start = fault is not None and calls is not None and calls.is_start(fault)
    end = End(code, out, said, fault, where, in_start, running.at_work)
    return end, list(program.complaints(end))


def profile(program: Program) -> Calls:
    """Which calls a run without a fault makes. Raises SystemExit if it already is not as it must be."""
    end, complaints = run(program, None, None)
    if complaints:
        raise SystemExit(f"{program.name} without a fault: {complaints}\n{end.out}\n{end.err}")
    return calls_in(program.case / "strace.log", program.state, end.at_work)


def campaign(program: Program, asked: argparse.Namespace) -> Course:
    """All cases of a program."""
    course, began = Course(program.name), time.monotonic()
    calls = profile(program)
    course.calls = sum(count - calls.start.get(call, 0) for call, count in calls.all.items())
    rng = random.Random(f"{asked.seed} {program.name}")
    faults: Sequence[Fault]
    if asked.fault:
        faults = [Fault.parse(text) for text in asked.fault]
    elif asked.kills:
        faults = kills(calls, asked.kills, rng)
    elif asked.sample:
        faults = sample(calls, asked.sample, rng)
    else:
        faults = every(calls, asked.cap, rng, asked.only)
    course.drawn = len(faults)
    for fault in faults:
        if asked.seconds and time.monotonic() - began > asked.seconds:
            break
        end, complaints = run(program, fault, calls)
        course.cases[fault.how] += 1
        course.reached += bool(end.hit)
        course.in_force += program.in_force
        if asked.verbose or complaints:
            print(f"{program.name} {fault}: {end.hit or 'not reached'} -> {end.code}", flush=True)
        if complaints:
            again = f'python -m benchmarks.faults.campaign --program {program.name} --fault "{fault}"'
            course.failures.append({"fault": str(fault), "call": end.hit, "code": end.code, "wrong": complaints, "again": again})
            print(*(f"    {line}" for line in complaints), f"    again: {again}", sep="\n", flush=True)
            if asked.verbose:
                print(end.out, end.err, flush=True)
    course.seconds = time.monotonic() - began
    return course


def claims_of(courses: Sequence[Course]) -> Claims:
    """What the campaign claims."""
    claims = Claims()
    for course in courses:
        claims.at_least(f"{course.program}: cases in which the call went wrong", course.reached, 1)
        claims.at_most(f"{course.program}: cases after which something was not as it must be", len(course.failures), 0)
    return claims


def main() -> None:
    """Run the campaign; exit 1 if something was not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", action="append", choices=list(PROGRAMS), help="only this one (default: all)")
    parser.add_argument("--fault", action="append", help='only this one, such as "kill fdatasync 3"')
    parser.add_argument("--sample", type=int, metavar="N", help="so many faults for each program")
    parser.add_argument("--kills", type=int, metavar="N", help="so many kills at random calls while it is at work")
    parser.add_argument("--only", action="append", default=[], metavar="KIND", help='only "kill", "delay" or an errno, with --cap')
    parser.add_argument("--cap", type=int, default=1 << 30, metavar="N", help="at most so many of each kind at each call")
    parser.add_argument("--seconds", type=float, help="begin no new case of a program after this time")
    parser.add_argument("--by-itself", type=float, metavar="SECONDS", help="after a kill all is back in this time, without an undo")
    parser.add_argument("--seed", type=int, default=1, help="which ones are drawn (default %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="a line for each case")
    parser.add_argument("--here", action="store_true", help="in this process namespace: where there is nobody else")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("strace") is None:
        parser.error("it needs root and strace")
    if not asked.here:
        command = [*isolated(), sys.executable, "-m", "benchmarks.faults.campaign", "--here", *sys.argv[1:]]
        os.execvp(command[0], command)
    settings = Settings(linger=1.5 if asked.kills else 0.4, by_itself=asked.by_itself)
    memory = Path("/dev/shm")
    courses = []
    with tempfile.TemporaryDirectory(prefix="nicety-faults-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        for name in asked.program or list(PROGRAMS):
            place = Path(folder) / name
            place.mkdir()
            with closing(PROGRAMS[name](place, settings)) as program:
                course = campaign(program, asked)
            courses.append(course)
            kinds = ", ".join(f"{count} {how}" for how, count in sorted(course.cases.items()))
            print(
                f"{name}: {course.run} of {course.drawn} cases in {course.seconds:.0f} s ({kinds}), {course.reached} reached, "
                f"{course.in_force} with something in force, {len(course.failures)} not as they must be",
                flush=True,
            )
    claims = claims_of(courses)
    claims.close(asked.json, seed=asked.seed, programs=[course.row() for course in courses])
    sys.exit(not all(row["holds"] for row in claims.rows))


if __name__ == "__main__":
    main()
