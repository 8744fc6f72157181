"""Fuzzing: does any input make a reader crash, hang, fill the memory, raise an undocumented error or believe what was not written?

    python -m benchmarks.fuzz.run [--cases 1000000] [--target NAME ...] [--seed 1] [--work DIR] [--json FILE]
    python -m benchmarks.fuzz.run --target NAME --again FILE

Cases are shared out among the targets of `registry.py`; each target runs in a child of its own. atheris chooses the cases (install
it with the extra `fuzz`). A case may take 1 s of CPU and 512 MB. A fault does not end the run: its case is kept below `--work`, and
`--again` runs it once more and prints the traceback. The corpus begins with seeds made by code; with `--work` it is kept, and the
next run begins with it.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import ROOT
from ..claims import Claims
from .bounds import MEMORY, SECONDS, Bounded, Fault
from .registry import TARGETS, named
from .target import Target, workplace

CASES = 1_000_000
"""Cases of a run: issue 24."""

FRUITLESS = 3
"""Children in a row that end before their first line of progress, after which a target is given up. Chosen."""


@dataclass
class Result:
    """What a run showed of a target."""

    name: str
    cases: int = 0
    cpu_seconds: float = 0.0  # start included
    seconds: float = 0.0
    edges: int = 0  # edges of nicety's code that were reached
    features: int = 0  # edges with how often a case passed them, and what was compared
    paths: int = 0  # cases of the corpus: each reached what no other did
    corpus_bytes: int = 0
    peak_bytes: int = 0  # resident
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    met: int = 0  # cases that showed a fault

    def add(self, fault: Fault, work: Path) -> None:
        """Keep the shortest case of each fault, on disk at once: a run takes an hour and may be stopped."""
        self.met += 1
        known = self.faults.get((fault.kind, fault.where))
        if known is None or len(fault.case) < len(known.case):
            self.faults[fault.kind, fault.where] = fault
            path = kept(fault, work)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(fault.case)
            path.with_suffix(".txt").write_text(fault.text)

    def line(self) -> str:
        """For the table."""
        speed = self.cases / self.cpu_seconds if self.cpu_seconds else 0.0
        return (
            f"{self.name:20} {self.cases:9,} {speed:8,.0f}/s {self.seconds:7,.0f} s {self.edges:7,} {self.features:9,} "
            f"{self.paths:7,} {self.peak_bytes >> 20:6} MB {len(self.faults):6}"
        )


HEAD = f"{'target':20} {'cases':>9} {'of CPU':>10} {'time':>9} {'edges':>7} {'features':>9} {'paths':>7} {'peak':>9} {'faults':>6}"


def fuzz(target: Target, cases: int, seed: int, work: Path) -> Result:
    """Run a target; children that a case takes down are replaced until the cases are done."""
    result, fruitless = Result(target.name), 0
    corpus = work / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        (corpus / sha256(data).hexdigest()[:40]).write_bytes(data)
    started = time.monotonic()
    while result.cases < cases and fruitless < FRUITLESS:
        before = result.cases
        code = _child(result, cases - before, seed, work)
        fruitless = fruitless + 1 if result.cases == before else 0
        seed += 1
        if code != 0 and (result.cases < cases or list(work.glob("last-*"))):
            result.add(_crash(work, code), work)
    result.seconds = time.monotonic() - started
    files = [path.stat().st_size for path in corpus.iterdir()]
    result.paths, result.corpus_bytes = len(files), sum(files)
    return result


def _child(result: Result, cases: int, seed: int, work: Path) -> int:
    """Run one child and take over what it says; returns its exit code."""
    for left in work.glob("last-*"):
        left.unlink()
    command = [sys.executable, "-m", "benchmarks.fuzz.child", "--target", result.name, "--cases", str(cases)]
    command += ["--seed", str(seed), "--work", str(work)]
    before, spent, shown = result.cases, result.cpu_seconds, time.monotonic()
    with (work / "log").open("w+") as log, workplace() as place:
        command += ["--place", str(place)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT) as child:
            assert child.stdout is not None
            for line in child.stdout:
                said: dict[str, Any] = json.loads(line)
                if "cases" in said:
                    result.cases, result.cpu_seconds = before + said["cases"], spent + said["cpu_seconds"]
                    result.peak_bytes = max(result.peak_bytes, said["peak_bytes"])
                else:
                    result.add(Fault(said["kind"], said["where"], said["text"], base64.b64decode(said["case"])), work)
                if time.monotonic() - shown >= 10.0:
                    shown = time.monotonic()
                    print(f"{result.name}: {result.cases:,} cases, {len(result.faults)} faults", file=sys.stderr, flush=True)
        log.seek(0)
        for edges, features in re.findall(r" cov: (\d+) ft: (\d+)", log.read()):
            result.edges, result.features = max(result.edges, int(edges)), max(result.features, int(features))
    return child.returncode


def _crash(work: Path, code: int) -> Fault:
    """What took a child down."""
    (case,) = sorted(work.glob("last-*"))[:1] or [None]
    kind = {"timeout": "hang", "oom": "memory"}.get(case.name.split("-")[1], "crash") if case else "crash"
    log = (work / "log").read_text(errors="replace")
    return Fault(kind, f"exit code {code}", log[-4000:], case.read_bytes() if case else b"")


def again(target: Target, case: bytes) -> int:
    """Run one case and print what it shows; the exit code."""
    with workplace() as place, Bounded(target.prepare(place)) as bounded:
        fault = bounded.run(case)
    print("no fault" if fault is None else f"{fault.kind}: {fault.where}\n{fault.text}")
    return 0 if fault is None else 1


def kept(fault: Fault, work: Path) -> Path:
    """Where the case of a fault is kept; its traceback is beside it."""
    return work / "faults" / sha256(f"{fault.kind} {fault.where}".encode()).hexdigest()[:8]


def report(results: Iterable[tuple[Result, Path]]) -> list[dict[str, Any]]:
    """Print the faults of each target and its directory; what is reported of them."""
    rows = []
    for result, work in results:
        for fault in result.faults.values():
            print(f"FAULT {result.name}: {fault.kind}: {fault.where}\n      {len(fault.case)} bytes: {kept(fault, work)}")
            rows.append({"target": result.name, "kind": fault.kind, "where": fault.where, "case": fault.case.hex()})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=CASES, help="of all targets together")
    parser.add_argument("--target", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="keep corpus and faults here (default: a new directory)")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run this case of the target")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    targets = [named(name) for name in arguments.target] if arguments.target else list(TARGETS)
    if arguments.again is not None:
        return again(targets[0], arguments.again.read_bytes())
    if find_spec("atheris") is None:
        print("atheris is not installed; `make fuzz` installs it, or: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    work = arguments.work or Path(tempfile.mkdtemp(prefix="nicety-fuzz-"))
    shares = sum(target.share for target in targets)
    results, places = [], [work / target.name.replace(" ", "-") for target in targets]
    print(HEAD, flush=True)
    for target, place in zip(targets, places, strict=True):
        number = max(1, round(arguments.cases * target.share / shares))
        results.append(fuzz(target, number, arguments.seed, place))
        print(results[-1].line(), flush=True)
    faults = report(zip(results, places, strict=True))
    claims = Claims()
    claims.at_least("cases", sum(result.cases for result in results), 0.99 * arguments.cases)
    for kind, claim in (
        ("error", "undocumented errors"),
        ("promise", "broken promises"),
        ("crash", "crashes"),
        ("hang", f"cases above {SECONDS:g} s"),
        ("memory", f"cases above {MEMORY >> 20} MB"),
    ):
        claims.at_most(claim, sum(row["kind"] == kind for row in faults), 0)
    claims.at_most("peak memory, MB", max(result.peak_bytes for result in results) / 2**20, MEMORY >> 20)
    claims.at_most("corpus, MB", sum(result.corpus_bytes for result in results) / 2**20, 64)
    figures = [{name: value for name, value in vars(result).items() if name != "faults"} for result in results]
    claims.close(arguments.json, targets=figures, faults=faults)
    if arguments.work is None and not faults:
        shutil.rmtree(work)
    return 0 if all(row["holds"] for row in claims.rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
