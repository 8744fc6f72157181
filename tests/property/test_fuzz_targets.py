"""The short run of fuzzing: every reader of bytes from outside survives some damaged, hostile and random ones. `make fuzz` is the
long run, docs/fuzzing.md the page."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

bounds: Any = importlib.import_module("benchmarks.fuzz.bounds")
plain: Any = importlib.import_module("benchmarks.fuzz.plain")
registry: Any = importlib.import_module("benchmarks.fuzz.registry")
target: Any = importlib.import_module("benchmarks.fuzz.target")

CASES = 125
"""Cases of a target: 2,000 in all, in some seconds."""


@pytest.mark.parametrize(
    "reader",
    [pytest.param(each, id=each.name) for each in registry.TARGETS],
)
def test_damaged_and_hostile_bytes_are_refused_as_documented(reader: Any) -> None:
    faults = plain.run(reader, CASES, 1)
    assert not faults, "\n".join(f"{fault.kind}: {fault.where}\n{fault.text}{fault.case.hex()}" for fault in faults)


def planted(case: bytes) -> None:
    """A reader with a fault of each kind."""
    match case[:1]:
        case b"e":
            int("x")
        case b"p":
            raise target.BrokenError("it believed that")
        case b"h":
            while True:
                pass
        case b"m":
            raise MemoryError


def test_each_kind_of_fault_is_found_once_and_named_by_its_place() -> None:
    with bounds.Bounded(planted, memory=None, seconds=0.02) as bounded:
        found = [bounded.run(case) for case in (b"", b"e", b"p", b"h", b"m", b"fine")]
    kinds = [None if fault is None else fault.kind for fault in found]
    assert kinds == [None, "error", "promise", "hang", "memory", None]
    assert found[1].where.startswith("ValueError in tests/property/test_fuzz_targets.py:")
    assert (found[1].case, "invalid literal" in found[1].text) == (b"e", True)
    reader = target.Target("planted", lambda: [b"e1", b"e2", b"p", b"fine"], lambda place: planted)
    assert [fault.kind for fault in plain.run(reader, 4, 1)] == ["error", "promise"]


def test_the_limit_of_memory_ends_a_case_that_takes_more() -> None:
    with bounds.Bounded(lambda case: bytearray(int(case)), memory=1 << 28) as bounded:
        assert bounded.run(b"1000") is None
        assert bounded.run(b"%d" % (1 << 29)).kind == "memory"


def test_the_same_seed_gives_the_same_cases_and_another_one_others(tmp_path: Path) -> None:
    reader = registry.named("control frames")
    first, again, other = (list(plain.cases(reader, 100, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert set(reader.seeds()) < set(first)


def test_edits_overwrite_cut_and_copy_where_a_file_is_not_empty() -> None:
    edits = target.Edits(b"\0\0ab\0cdef", page=4)
    assert edits(b"") == b"\0\0ab\0cdef"
    assert edits(target.overwrite(2, b"XY")) == b"\0\0ab\0XYef"
    assert edits(target.overwrite(6, b"X")) == b"\0\0Xb\0cdef", "places begin again after the last"
    assert edits(edits.of(b"cd", b"X")) == b"\0\0ab\0Xdef"
    assert edits(b"\0\0\1" + bytes([1 << 6])) == b"\0\0a"
    assert edits(b"\0\0\2" + bytes([2 << 6])) == b"\0cde\0cdef"
    assert edits(bytes([target.WHOLE]) + b"xyz") == b"xyz"
