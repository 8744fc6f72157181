"""Mutation score of decide/, act/, hands/ and models/: which small faults in the code do the tests notice?

    python -m benchmarks.house.mutants [--number 300] [--seed 1] [--jobs 2] [--json FILE]
    python -m benchmarks.house.mutants --list
    python -m benchmarks.house.mutants --again

`mutants_draw.py` draws random mutants, from each tree in proportion to the places that can be mutated. `mutants_rules.py` defines
what is left out. The checkout is never changed: mutants run in copies below `--work`. Each test run has its own process namespace
(`unshare`), so a mutant cannot touch other processes. An interrupted run continues if code and tests are the same.

First all near tests run once, which shows which test runs which line; this takes some minutes. Then each mutant is tested by tests
that run its line, for at most `--budget` seconds: first the tests of files that import the module, quick ones first. Mutants of
definitions (the top of a module, classes, defaults) get the tests of the module. The first failure ends the run. A test that takes
ten times its usual time counts as failed. At the end, all tests that noticed a mutant run without one; those that fail then do not
count.

Mutants that no test notices are listed. `mutants.toml` has the accepted ones, with the reason; they still count as survivors.
`WORK/without-a-reason.toml` has entries for the others, to be filled in. `--again`, after tests were added, keeps the mutants that
were noticed and tests only the others again.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

from ..claims import Claims
from ..isolated import isolated
from .mutants_draw import Mutant, draw, places

HERE = Path(__file__).parents[2]
ACCEPTED = Path(__file__).with_suffix(".toml")

TREES = {"decide": "scheduler/decide", "act": "scheduler/act", "hands": "scheduler/hands", "models": "models"}

NEAR = (
    *(
        "tests/unit/models",
        "tests/unit/decide",
        "tests/unit/act",
        "tests/unit/hands",
        "tests/golden",
        "tests/property",
        "tests/unit/test_doctests.py",
    ),
)
"""Tests that are always run."""

NEAR_IF_THEY_IMPORT = ("tests/unit/explain", "tests/unit/observe", "tests/unit/store", "tests/contracts", "tests/faults")
"""Tests that are run if they import a module of the four trees directly. The records do not count, because all tests import
them."""

SCORE, NUMBER = 0.85, 300
"""Least share of mutants that tests notice, and least number of mutants: the bounds of the claims. Chosen."""

SLACK, FACTOR = 5.0, 10.0
"""A test that takes more than `SLACK` CPU seconds and more than `FACTOR` times its usual CPU time counts as failed. Chosen."""


@dataclass(frozen=True)
class Test:
    """A test that passes without a mutant."""

    id: str
    seconds: float
    shared: float  # seconds of its fixtures that other tests use too; the first of them in a run waits for these
    imports: frozenset[str]  # files of ours that its file imports


@dataclass(frozen=True)
class Answer:
    """The result of testing a mutant."""

    id: str
    code: str  # digest of the code and the tests
    noticed_by: str  # a test, its file, "import" or "time"; "" if nothing noticed it
    asked: int  # tests that were asked
    left_out: int  # tests that run the line and were beyond the budget
    cpu_seconds: float


class Copy:
    """A copy of the checkout in which one pytest runs at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._task, self._answer, self._log = (root.with_suffix(end) for end in (".task", ".answer", ".log"))

    def make(self) -> None:
        """Copy the files that git knows, as they are in the checkout now."""
        shutil.rmtree(self.root, ignore_errors=True)
        for name in _files():
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(HERE / name, target, follow_symlinks=False)

    def write(self, file: str, code: str) -> None:
        """Change a module, and remove its compiled code: Python would use it if time (in seconds) and size of the source are the
        same."""
        path = self.root / file
        path.write_text(code)
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()

    def run(self, files: Iterable[str], task: Mapping[str, object], seconds: float | None) -> tuple[int | None, dict, str]:
        """(exit code of pytest, None if it took longer than `seconds`; the plugin's answer, {} if there is none; pytest's
        output)."""
        self._answer.unlink(missing_ok=True)
        self._task.write_text(json.dumps({**task, "answer": str(self._answer)}))
        command = [
            *isolated(),
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=line",
            "-p",
            "no:cacheprovider",
            "-p",
            "benchmarks.house.mutants_plugin",
        ]
        if not task["measure"]:
            command.append("--maxfail=1")
        try:
            exit_code, words = self.python(command + sorted(files), seconds)
        except subprocess.TimeoutExpired:
            return None, {}, ""
        answer = json.loads(self._answer.read_text()) if self._answer.exists() else {}
        return exit_code, answer, words

    def imports(self, file: str) -> bool:
        """Whether the module can still be imported."""
        name = ".".join(("nicety", *Path(file).with_suffix("").parts)).removesuffix(".__init__")
        return self.python([*isolated(), sys.executable, "-c", f"import {name}, nicety.scheduler.cli"], 60.0)[0] == 0

    def python(self, command: list[str], seconds: float | None) -> tuple[int, str]:
        """Run a command with the copy's code, for at most `seconds` of wall time. Its output is in `copy-N.log` while it runs."""
        paths = os.pathsep.join(map(str, (self.root / "src", self.root)))
        environment = {name: value for name, value in os.environ.items() if name != "CI"}
        environment |= {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "NICETY_MUTANTS": str(self._task)}
        with self._log.open("w") as log:
            done = subprocess.run(
                command,
                cwd=self.root,
                env=environment,
                timeout=seconds,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return done.returncode, self._log.read_text(errors="replace")


class Near:
    """The near tests: which of them run a line."""

    def __init__(self, measured: Mapping[str, dict]) -> None:
        imports = {file: _imports(HERE / file) for file in {test.split("::")[0] for test in measured["seconds"]}}
        shared = measured["shared"]
        self.tests = [
            Test(test, took, shared.get(test, 0.0), imports[test.split("::")[0]]) for test, took in measured["seconds"].items()
        ]
        self._lines = measured["lines"]

    def those_for(self, mutant: Mutant) -> list[Test]:
        """All tests that could notice the mutant, in the order in which they should run."""
        file, where = mutant.place.file, mutant.place.where
        lines = self._lines.get(file, {})
        numbers = lines if where.at_import else map(str, where.lines)
        contexts = {context for number in numbers for context in lines.get(number, ())}
        at_import = where.at_import or "" in contexts  # a function that a module calls while it is imported
        shared = tuple(context.removesuffix("*") for context in contexts if context.endswith("*"))
        found = [
            test
            for test in self.tests
            if test.id in contexts or (shared and test.id.startswith(shared)) or (at_import and file in test.imports)
        ]
        return sorted(found, key=lambda test: (file not in test.imports, test.seconds, test.id))


def measure(work: Path, copies: list[Copy], code: str) -> Near:
    """Run all near tests once, or use the stored result for the same code and tests."""
    known = work / f"measured-{code}.json"
    if not known.exists():
        files = [str(path.relative_to(HERE)) for path in sorted((HERE / "tests").rglob("test_*.py")) if _is_near(path)]
        shares = [files[number :: len(copies)] for number in range(len(copies))]
        print(f"measuring {len(files)} files of tests, which takes some minutes", flush=True)
        with ThreadPoolExecutor(len(copies)) as pool:
            parts = list(pool.map(_measured, copies, shares))
        lines: dict[str, dict[str, list[str]]] = {}
        for part in parts:
            for file, numbers in part["lines"].items():
                into = lines.setdefault(file, {})
                for number, tests in numbers.items():
                    into.setdefault(number, []).extend(tests)
        seconds, shared = ({test: took for part in parts for test, took in part[name].items()} for name in ("seconds", "shared"))
        unfit = [test for part in parts for test in part["unfit"]]
        known.write_text(json.dumps({"seconds": seconds, "shared": shared, "unfit": unfit, "lines": lines}))
    measured = json.loads(known.read_text())
    for test in measured["unfit"]:
        print(f"not asked, skipped or failing without a mutant: {test}")
    return Near(measured)


def _measured(copy: Copy, files: list[str]) -> dict:
    task = {"measure": True, "include": [str(copy.root / folder / "*") for folder in TREES.values()]}
    code, answer, words = copy.run(files, task, None)
    if code not in (0, 1) or not answer["lines"]:
        raise RuntimeError(f"the tests do not run without a mutant:\n{words}")
    root = copy.root.resolve()
    return {**answer, "lines": {str(Path(file).relative_to(root)): numbers for file, numbers in answer["lines"].items()}}


def ask(copy: Copy, mutant: Mutant, near: Near, budget: float, code: str) -> Answer:
    """Run the tests on a mutant."""
    tests, chosen, left = near.those_for(mutant), [], budget
    for test in tests:
        if chosen and test.seconds > left:
            continue
        chosen.append(test)
        left -= test.seconds
    counts = (len(chosen), len(tests) - len(chosen))
    if not chosen:
        return Answer(mutant.id, code, "", *counts, 0.0)
    original = (copy.root / mutant.place.file).read_text()
    copy.write(mutant.place.file, mutant.code)
    try:
        exit_code, answer, words = _run(copy, chosen)
        by = _noticed_by(exit_code, answer)
        if by is None:
            by = "" if copy.imports(mutant.place.file) else "import"
            if not by:
                print(f"{mutant.title}: pytest ended with {exit_code}, which counts as not noticed\n{words}", flush=True)
        return Answer(mutant.id, code, by, *counts, answer.get("cpu_seconds", 0.0))
    finally:
        copy.write(mutant.place.file, original)


def _run(copy: Copy, tests: list[Test]) -> tuple[int | None, dict, str]:
    usual = {test.id: test.seconds + test.shared for test in tests}
    limits = {test: SLACK + FACTOR * seconds for test, seconds in usual.items()}
    task = {"measure": False, "tests": [test.id for test in tests], "seconds": limits}
    return copy.run({test.id.split("::")[0] for test in tests}, task, 60.0 + FACTOR * sum(usual.values()))


def _noticed_by(exit_code: int | None, answer: Mapping) -> str | None:
    """A test, its file or "time"; "" if all passed, None if pytest did not get as far as the tests."""
    if exit_code is None:
        return "time"
    if exit_code == 0:
        return ""
    return answer["failed"][0] if exit_code in (1, 2) and answer.get("failed") else None


def false_witnesses(copy: Copy, near: Near, answers: Iterable[Answer]) -> set[str]:
    """Tests that noticed a mutant and fail without one too."""
    witnesses = {answer.noticed_by for answer in answers}
    tests = [test for test in sorted(near.tests, key=lambda test: test.seconds) if test.id in witnesses]
    found: set[str] = set()
    while left := [test for test in tests if test.id not in found]:
        exit_code, answer, words = _run(copy, left)
        failed = set(answer.get("failed", ())) - found
        if exit_code == 0:
            break
        if not failed:
            raise RuntimeError(f"the tests do not run without a mutant:\n{words}")
        found |= failed
    return found


def run(work: Path, drawn: list[Mutant], jobs: int, budget: float, again: bool) -> tuple[dict[str, Answer], Near]:
    """Test all mutants that have no answer yet."""
    code = _digest()
    known = _known(work / "answers.jsonl", code, again)
    copies = [Copy((work / f"copy-{number}").resolve()) for number in range(jobs)]
    for copy in copies:
        copy.make()
    near = measure(work, copies, code)
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)
    asked = [mutant for mutant in drawn if mutant.id not in known]
    print(f"{len(drawn)} mutants, {len(drawn) - len(asked)} of them answered before", flush=True)

    def answered(mutant: Mutant) -> Answer:
        copy = free.get()
        try:
            return ask(copy, mutant, near, budget, code)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(jobs) as pool, (work / "answers.jsonl").open("a") as log:
        futures = [pool.submit(answered, mutant) for mutant in asked]
        try:
            for mutant, future in zip(asked, futures, strict=True):
                answer = future.result()
                known[mutant.id] = answer
                log.write(json.dumps(asdict(answer)) + "\n")
                log.flush()
                print(f"{answer.cpu_seconds:6.1f} s  {mutant.title}: {answer.noticed_by or 'SURVIVES'}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    return {mutant.id: known[mutant.id] for mutant in drawn}, near


def _known(log: Path, code: str, again: bool) -> dict[str, Answer]:
    """Earlier answers for the same code and tests; with `again` also for mutants that were noticed, whatever has changed since."""
    found: dict[str, Answer] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        answer = Answer(**json.loads(line))
        if answer.noticed_by if again else answer.code == code:
            found[answer.id] = answer
    return found


def report(
    drawn: list[Mutant], answers: Mapping[str, Answer], doubtful: set[str], accepted: list[dict[str, str]], work: Path
) -> tuple[Claims, list[dict[str, object]]]:
    """Print the survivors and the claims; write both as JSON."""
    reasons = {_key(row): row["why"] for row in accepted}
    survivors = [mutant for mutant in drawn if answers[mutant.id].noticed_by in {"", *doubtful}]
    rows, open_rows = [], []
    for mutant in survivors:
        answer, entry = answers[mutant.id], _entry(mutant)
        why = reasons.get(_key(entry), "")
        print(f"\n{mutant.title}\n  - {_indented(mutant.was)}\n  + {_indented(mutant.becomes)}")
        print(f"  {why or 'NO REASON GIVEN'} ({answer.asked} tests asked, {answer.left_out} left out)")
        rows.append({**entry, "line": mutant.place.at[0], "asked": answer.asked, "left_out": answer.left_out, "why": why})
        if not why:
            open_rows.append(entry)
    (work / "without-a-reason.toml").write_text("\n".join(map(_as_toml, open_rows)))
    noticed = {_key(_entry(mutant)) for mutant in drawn if mutant not in survivors}
    for row in accepted:
        if _key(row) in noticed:
            print(f"\n{ACCEPTED.name} accepts a mutant that a test notices: {row['file']} {row['where']}: {row['becomes']}")
    print()
    claims = Claims()
    claims.at_least("mutants", len(drawn), NUMBER)
    claims.at_least("share of them that tests notice", 1 - len(survivors) / len(drawn), SCORE)
    claims.at_most("survivors without a reason", len(open_rows), 0)
    claims.at_most("tests that noticed a mutant and fail without one", len(doubtful), 0)
    for name, folder in TREES.items():
        here = [mutant for mutant in drawn if mutant.place.file.startswith(f"{folder}/")]
        alive = sum(mutant in survivors for mutant in here)
        claims.add(f"{name}: mutants", len(here), "", True)
        claims.add(f"{name}: share that tests notice", 1 - alive / max(1, len(here)), "", True)
    claims.add("survivors that no test runs", sum(not answers[mutant.id].asked for mutant in survivors), "", True)
    claims.add("CPU seconds a mutant", sum(answer.cpu_seconds for answer in answers.values()) / len(drawn), "", True)
    return claims, rows


def _entry(mutant: Mutant) -> dict[str, str]:
    return {"file": mutant.place.file, "where": mutant.place.where.name, "was": mutant.was, "becomes": mutant.becomes}


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("file", "where", "was", "becomes"))


def _as_toml(entry: Mapping[str, str]) -> str:
    lines = [f"{name} = {json.dumps(text, ensure_ascii=False)}" for name, text in {**entry, "why": ""}.items()]
    return "\n".join(["[[survivor]]", *lines, ""])


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def _files() -> list[str]:
    """Files that git knows or does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=HERE,
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(name for name in listed.stdout.split("\0") if name and os.path.lexists(HERE / name))


def _digest() -> str:
    """Digest of all code and near tests."""
    found = hashlib.sha256()
    asked = ("scheduler/", "models/", "configs/", "tests/conftest.py", *NEAR, *NEAR_IF_THEY_IMPORT, "benchmarks/house/mutants_")
    for name in _files():
        path = HERE / name
        if name.startswith(asked) and path.is_file():
            found.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def _is_near(path: Path) -> bool:
    name = str(path.relative_to(HERE))
    if name.startswith(NEAR):
        return True
    return name.startswith(NEAR_IF_THEY_IMPORT) and any(
        file.startswith(tuple(TREES.values())) and file != "models/records.py" for file in _imports(path)
    )


def _imports(path: Path) -> frozenset[str]:
    """Our files that a test file imports directly."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nicety"):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {f"{name.removeprefix('nicety.').replace('.', '/')}.py" for name in names}
    return frozenset(file for file in files if (HERE / file).exists())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=NUMBER, help="mutants (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which ones are drawn (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="at a time (default %(default)s)")
    parser.add_argument(
        "--budget", type=float, default=30.0, help="seconds of tests a mutant is shown at most (default %(default)s)"
    )
    parser.add_argument("--work", type=Path, default=HERE / "build" / "mutants", help="where copies and answers are kept")
    parser.add_argument("--again", action="store_true", help="keep mutants that were noticed, ask about all others")
    parser.add_argument("--list", action="store_true", help="print the mutants that are drawn; run nothing")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    files = [name for name in _files() if name.endswith(".py")]
    trees = {name: list(places(HERE, [file for file in files if file.startswith(f"{folder}/")])) for name, folder in TREES.items()}
    print(", ".join(f"{name}: {len(found)} places" for name, found in trees.items()), flush=True)
    drawn = draw(HERE, trees, asked.number, asked.seed)
    if asked.list:
        for mutant in drawn:
            print(f"{mutant.title}\n  - {_indented(mutant.was)}\n  + {_indented(mutant.becomes)}")
        return
    asked.work.mkdir(parents=True, exist_ok=True)
    answers, near = run(asked.work, drawn, asked.jobs, asked.budget, asked.again)
    doubtful = false_witnesses(Copy((asked.work / "copy-0").resolve()), near, answers.values())
    for test in sorted(doubtful):
        print(f"fails without a mutant too: {test}")
    accepted = tomllib.loads(ACCEPTED.read_text()).get("survivor", [])
    claims, survivors = report(drawn, answers, doubtful, accepted, asked.work)
    claims.close(asked.json, seed=asked.seed, survivors=survivors)


if __name__ == "__main__":
    main()
