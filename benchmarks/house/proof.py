"""Checks the protocol of ledger and undo with Spin: every state of the model, and every fault of it that must be caught.

    python -m benchmarks.house.proof [--whole] [--json FILE]
    python -m benchmarks.house.proof --trace MUTANT

The model is tests/spin/ledger.pml; docs/protocol.md explains it. Needs `spin` and `gcc` (apt-get install spin gcc). `--whole`: all
states of the largest model too, which needs 1 GB. `--trace` prints the steps that break a property.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..claims import Claims

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests" / "spin" / "ledger.pml"

MUTANTS = {
    "WRITES_BEFORE_THE_INTENT": "intended",
    "A_FAILED_INTENT_IS_NO_ERROR": "intended",
    "A_FAILED_WRITE_IS_NOT_REPEATED": "memory_is_disk",
    "NO_COMPARE_BEFORE_THE_WRITE": "foreign_kept",
    "RESTORES_WHATEVER_IS_THERE": "foreign_kept",
    "A_PID_IS_AN_IDENTITY": "impostor_unchanged",
    "NO_SECOND_CHECK": "impostor_unchanged",
    "UNKNOWN_IS_GONE": "covered",
    "UNDO_SKIPS_INTENTS": "covered",
    "BELIEVES_THE_NEWEST_ONLY": "covered",
    "RESTORES_THE_OLD_VALUE": "covered",
    "WRITES_ANYWAY": "undo_idempotent",
    "WAITS_FOR_ITS_VALUE": "undo_ends",
    "NO_HEIRS": "covered",
    "CLOSES_BEFORE_THE_HEIRS": "covered",
    "CLOSES_WITHOUT_ADOPTION": "covered",
    "CLOSES_WHAT_IT_WROTE_WITHOUT_ADOPTION": "covered",
    "A_CHILD_KEEPS_WHAT_IT_INHERITED": "covered",
    "NO_LOCK": "covered",
}
"""A rule that the model can be without -> the property that then breaks first."""

SIZES = (("FAULTS=2", "CHANGES=1", "NICETIES=1"), ("FAULTS=1", "CHANGES=2", "NICETIES=2"))
"""Macros of the models whose states are all visited: more faults with one nicety, fewer with two. Chosen: seconds each."""

WHOLE = ("FAULTS=2", "CHANGES=2", "NICETIES=2")
"""The largest model (chosen: what a gigabyte of memory holds)."""

ENDLESS = ("FAULTS=1", "CHANGES=1", "NICETIES=1")
"""The model that is searched for runs without end, which visits every state some ten times."""

ENDS = "undo_ends"
"""The property that needs cycles, not states; the others are assertions."""

HOLE = ("NO_WINDOW", "foreign_kept")
"""The window between compare and write, counted as a fault: the property that it breaks."""

SECONDS, MEMORY_MB, DEPTH = 600, 2000, 200_000
"""Most seconds, memory and depth of one search (chosen: the largest model needs 20 s, 0.8 GB and 371 steps)."""


class Search(NamedTuple):
    """What one search found."""

    states: int
    depth: int
    broken: str  # the property, "" if all hold
    complete: bool  # all states were visited
    seconds: float  # of the search, without making its program


def missing() -> str:
    """The program that is not installed; "" if both are."""
    return next((name for name in ("spin", "gcc") if shutil.which(name) is None), "")


def make(folder: Path, defines: Sequence[str], *, cycles: bool) -> Path:
    """The program that searches the model with these macros. Not optimized: gcc would take longer than that gains. Raises
    CalledProcessError for a model that is not Promela."""
    shutil.copy(MODEL, folder)
    subprocess.run(["spin", *_given(defines, cycles=cycles), "-a", MODEL.name], cwd=folder, check=True, capture_output=True)
    kind = () if cycles else ("-DSAFETY", "-DNOCLAIM")
    command = ["gcc", "-O0", "-w", *kind, f"-DMEMLIM={MEMORY_MB}", "-o", "pan", "pan.c"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "pan"


def search(defines: Sequence[str], *, cycles: bool) -> Search:
    """Visit all states of the model with these macros, or those up to the first broken property. `cycles`: look for runs without
    end instead, in which every process moves on that can (weak fairness)."""
    with tempfile.TemporaryDirectory() as folder:
        program = make(Path(folder), defines, cycles=cycles)
        began = time.perf_counter()
        options = ["-a", "-f"] if cycles else []
        done = subprocess.run(
            [str(program), *options, f"-m{DEPTH}", "-n"], cwd=folder, check=False, capture_output=True, text=True, timeout=SECONDS
        )
        seconds = time.perf_counter() - began
    return _read(done.stdout, seconds)


def _given(defines: Sequence[str], *, cycles: bool) -> list[str]:
    return [f"-D{each}" for each in (*defines, *(["IDLE"] if cycles else []))]


def _read(text: str, seconds: float) -> Search:
    states, depth = re.search(r"(\d+) states, stored", text), re.search(r"depth reached (\d+)", text)
    if states is None or depth is None:
        raise RuntimeError(f"not a report of Spin: {text}")
    said = re.search(r"pan:\d+: (.*?) \(at depth", text)
    name = "" if said is None else said[1].removeprefix("assertion violated ")
    name = ENDS if name.startswith("acceptance cycle") else name
    partly = re.search(r"Search not completed|max search depth too small|out of memory|resizing", text)
    return Search(int(states[1]), int(depth[1]), name, partly is None, seconds)


def mutant_of(name: str) -> tuple[str, ...]:
    """The macros of the model without this rule."""
    more = ENDLESS if MUTANTS[name] == ENDS else ("NICETIES=2",) if name == "NO_LOCK" else ()
    return (f"MUTANT_{name}", *more)


def without(name: str) -> Search:
    """The search of the model without this rule."""
    return search(mutant_of(name), cycles=MUTANTS[name] == ENDS)


def trace(name: str) -> str:
    """The steps by which this mutant, or the window, breaks its property."""
    defines = mutant_of(name) if name in MUTANTS else (name,)
    cycles = MUTANTS.get(name) == ENDS
    with tempfile.TemporaryDirectory() as folder:
        program = make(Path(folder), defines, cycles=cycles)
        options = ["-a", "-f"] if cycles else []
        subprocess.run([str(program), *options, f"-m{DEPTH}"], cwd=folder, check=False, capture_output=True, timeout=SECONDS)
        shown = ["spin", *_given(defines, cycles=cycles), "-t", "-p", "-g", MODEL.name]
        return subprocess.run(shown, cwd=folder, check=False, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--trace", choices=[*MUTANTS, HOLE[0]], metavar="MUTANT")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if missing():
        raise SystemExit(f"{missing()} is not installed: apt-get install spin gcc")
    if asked.trace:
        print(trace(asked.trace))
        return
    claims = Claims()
    searches: dict[str, Search] = {}
    for size in (*SIZES, *([WHOLE] if asked.whole else [])):
        searches[f"all states, {' '.join(size)}"] = search(size, cycles=False)
    searches[f"runs without end, {' '.join(ENDLESS)}"] = search(ENDLESS, cycles=True)
    for name, found in searches.items():
        text = f"{name}: {found.states} states, depth {found.depth}, {found.seconds:.1f} s"
        claims.add(text, found.broken or "sound", "sound", found.complete and not found.broken)
    for name, broken in MUTANTS.items():
        found = without(name)
        claims.add(f"without a rule: {name.lower()}", found.broken, broken, found.broken == broken)
    found = search((HOLE[0],), cycles=False)
    claims.add("the window between compare and write, counted as a fault", found.broken, HOLE[1], found.broken == HOLE[1])
    claims.close(asked.json, searches={name: found._asdict() for name, found in searches.items()})


if __name__ == "__main__":
    main()
