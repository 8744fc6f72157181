"""Which failure modes are tested: `tests/failure_modes.toml`, the page that it makes, and what runs of the tests say of it.

    python -m benchmarks.trust.modes [--junit FILE ...] [--json FILE]
    python -m benchmarks.trust.modes --write

A row is green if it names tests, all of them exist, and nothing is left to be tested (`lacks`). With `--junit`, which takes the
files that `make test` and `make test-vm` leave in build/, each of its tests must also have run, and none may have failed or been
skipped. Tests of the emulated machine are held to this only if one of the files has such tests. `--write` makes
docs/failure-modes.md. Exit code 3: a row is not green.
"""

from __future__ import annotations

import argparse
import ast
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from .. import ROOT
from ..claims import Claims

TABLE = ROOT / "tests" / "failure_modes.toml"
PAGE = ROOT / "docs" / "failure-modes.md"
EMULATED = "tests/vm/"
"""Where the tests are that only run in the emulated machine."""

HEAD = """# What can go wrong, and what nicety then does

nicety changes running processes, often as root. This page lists what can go wrong, what happens then, since which part of the
[changelog](../CHANGELOG.md) that holds, and which tests show it. F01 to F55 are what nicety set out to survive;
the N rows were found since.

The page is made from `tests/failure_modes.toml` by `python -m benchmarks.trust.modes --write`. `tests/test_failure_modes.py` fails
if a test that is named here is gone. `python -m benchmarks.trust.modes --junit build/junit-*.xml` says whether all of them ran and
passed.
"""


class Mode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row: one thing that can go wrong."""

    id: str
    name: str
    happens: str
    since: str  # a heading of CHANGELOG.md
    tests: tuple[str, ...] = ()  # "FILE::FUNCTION", below the root of the checkout
    lacks: str = ""  # what no test shows yet


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows that belong together."""

    name: str
    mode: tuple[Mode, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    part: tuple[Part, ...]


class Result(IntEnum):
    """What became of a test, the better the lower. A test with parameters has the worst result of its cases."""

    PASSED = 0
    SKIPPED = 1
    FAILED = 2


def read(path: Path = TABLE) -> tuple[Part, ...]:
    """The table. Raises msgspec.DecodeError if it is not one."""
    return msgspec.toml.decode(path.read_bytes(), type=_File).part


@cache
def functions(path: Path) -> frozenset[str]:
    """The tests that a file has; none if there is no such file."""
    if not path.is_file():
        return frozenset()
    return frozenset(node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))


def results(files: Iterable[Path]) -> dict[str, Result]:
    """What became of each test of these runs, "FILE::FUNCTION", from the XML that pytest writes (--junit-xml)."""
    found: dict[str, Result] = {}
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
            failed = case.find("failure") is not None or case.find("error") is not None
            result = Result.FAILED if failed else Result.SKIPPED if case.find("skipped") is not None else Result.PASSED
            found[test] = max(result, found.get(test, Result.PASSED))
    return found


def wrong(mode: Mode, ran: Mapping[str, Result] | None = None, root: Path = ROOT) -> Iterator[str]:
    """Why a row is not green. `ran`: what became of each test; None: not known, so a test that exists is enough."""
    if mode.lacks:
        yield f"not tested yet: {mode.lacks}"
    elif not mode.tests:
        yield "no test"
    emulated = ran is not None and any(test.startswith(EMULATED) for test in ran)
    for test in mode.tests:
        file, _, function = test.partition("::")
        if function not in functions(root / file):
            yield f"{test} is gone"
        elif ran is not None and (emulated or not test.startswith(EMULATED)):
            result = ran.get(test)
            if result is not Result.PASSED:
                yield f"{test} {'did not run' if result is None else 'was skipped' if result is Result.SKIPPED else 'failed'}"


def page(parts: Sequence[Part]) -> str:
    """docs/failure-modes.md."""
    lines = [HEAD]
    for part in parts:
        lines.append(f"## {part.name}\n")
        for mode in part.mode:
            lines.append(_filled(f"**{mode.id} {mode.name}.** {mode.happens} *Since: {mode.since}.*") + "\n")
            files: dict[str, list[str]] = {}
            for test in mode.tests:
                file, _, function = test.partition("::")
                files.setdefault(file, []).append(f"`{function}`")
            lines += [_filled(f"- `{file}`: {', '.join(names)}", "  ") for file, names in files.items()]
            if mode.lacks:
                lines.append(_filled(f"- Not tested yet: {mode.lacks}", "  "))
            if files or mode.lacks:
                lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 132, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE, help="another table, whose tests are below the working directory")
    parser.add_argument("--junit", type=Path, nargs="+", metavar="FILE", help="what pytest wrote of a run of the tests")
    parser.add_argument("--write", action="store_true", help="write docs/failure-modes.md and end")
    parser.add_argument("--json", type=Path, help="write the claim to this file, and why rows are not green")
    asked = parser.parse_args()
    parts = read(asked.table)
    if asked.write:
        PAGE.write_text(page(parts))
        return 0
    ran = None if asked.junit is None else results(asked.junit)
    root = ROOT if asked.table == TABLE else Path.cwd()
    modes = [mode for part in parts for mode in part.mode]
    faults = {mode.id: list(wrong(mode, ran, root)) for mode in modes}
    for mode in modes:
        for number, fault in enumerate(faults[mode.id]):
            print(f"{mode.id if not number else '':<5}{mode.name if not number else '':<60}  {fault}")
    green = sum(not found for found in faults.values())
    print(f"{green} of {len(modes)} rows green{'' if ran is not None else ' (by the names of their tests: --junit says what ran)'}")
    if asked.json is not None:
        claims = Claims()
        claims.add("rows of the failure modes that are green", green, str(len(modes)), green == len(modes))
        asked.json.write_text(
            msgspec.json.encode({"claims": claims.rows, "not_green": {k: v for k, v in faults.items() if v}}).decode()
        )
    return 0 if green == len(modes) else 3


if __name__ == "__main__":
    raise SystemExit(main())
