"""Which faults are tried, and whether it came to them: benchmarks/faults/strace.py and draw.py, on logs written by hand."""

from __future__ import annotations

import importlib
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

strace: Any = importlib.import_module("benchmarks.faults.strace")
draw: Any = importlib.import_module("benchmarks.faults.draw")
Fault = strace.Fault

STATE = Path("/s/state")
LOG = f"""\
7 execve("/usr/bin/python", ["python", "{STATE}"], 0x7ff /* 3 vars */) = 0
7 openat(AT_FDCWD, "/lib/libc.so.6", O_RDONLY|O_CLOEXEC) = 3
7 read(3, "ELF"..., 832) = 832
7 openat(AT_FDCWD, "{STATE}/lock", O_RDWR) = 3
8 fdatasync(4 <unfinished ...>
7 fdatasync(3) = 0
8 <... fdatasync resumed>) = 0
7 --- SIGCHLD {{si_signo=SIGCHLD}} ---
7 fdatasync(3) = 0
7 +++ exited with 0 +++
"""


@pytest.fixture
def calls(tmp_path: Path) -> Any:
    (tmp_path / "log").write_text(LOG)
    return strace.calls_in(tmp_path / "log", STATE)


def test_calls_are_counted_in_each_thread_and_the_start_ends_where_the_state_is_named(calls: Any) -> None:
    assert dict(calls.all) == {"execve": 1, "openat": 2, "read": 1, "fdatasync": 2}
    assert dict(calls.start) == {"execve": 1, "openat": 1, "read": 1}
    assert calls.is_start(Fault("kill", "openat", 1))
    assert not calls.is_start(Fault("kill", "openat", 2))
    assert not calls.is_start(Fault("kill", "fdatasync", 1))


def test_what_was_logged_when_it_began_its_work_is_not_of_its_work(calls: Any, tmp_path: Path) -> None:
    assert calls.idle == calls.start
    begun = len("".join(LOG.splitlines(keepends=True)[:6]))
    assert dict(strace.calls_in(tmp_path / "log", STATE, begun).idle) == {"execve": 1, "openat": 2, "read": 1, "fdatasync": 1}


def test_a_log_of_a_program_that_never_began_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG.splitlines()[0])
    with pytest.raises(ValueError, match="does not occur"):
        strace.calls_in(tmp_path / "log", STATE)


@pytest.mark.parametrize(
    ("fault", "log", "call"),
    [
        ("kill fdatasync 2", "7 fdatasync(3) = 0\n7 fdatasync(4) = ?\n7 +++ killed by SIGKILL +++\n", "fdatasync(4) = ?"),
        ("EIO fdatasync 1", "7 fdatasync(3) = -1 EIO (I/O error) (INJECTED)\n", "fdatasync(3) = -1 EIO (I/O error) (INJECTED)"),
        ("delay fdatasync 1", "7 fdatasync(3) = 0 (DELAYED)\n", "fdatasync(3) = 0 (DELAYED)"),
        ("kill fdatasync 9", "7 fdatasync(3) = 0\n7 +++ exited with 0 +++\n", ""),
        ("EIO fdatasync 9", "7 fdatasync(3) = -1 EIO (I/O error)\n", ""),
    ],
)
def test_the_log_says_which_call_went_wrong_if_it_came_to_that(tmp_path: Path, fault: str, log: str, call: str) -> None:
    (tmp_path / "log").write_text(log)
    assert strace.hit(tmp_path / "log", Fault.parse(fault)) == call


@pytest.mark.parametrize(
    ("fault", "injection"),
    [
        ("kill openat 3", "inject=openat:signal=KILL:when=3"),
        ("ENOSPC write 1", "inject=write:error=ENOSPC:when=1"),
        ("delay flock 2", "inject=flock:delay_enter=300000:when=2"),
    ],
)
def test_a_fault_in_words_is_what_strace_is_asked_for(fault: str, injection: str) -> None:
    assert Fault.parse(fault).injection == injection
    assert str(Fault.parse(fault)) == fault


def test_all_faults_of_a_run_are_every_kind_at_every_call(calls: Any) -> None:
    found = draw.every(calls, 1000, random.Random(1))
    assert len(set(found)) == len(found)
    assert {str(fault) for fault in found if fault.call == "fdatasync"} == {
        f"{how} fdatasync {number}" for how in ("kill", "delay", "EIO", "ENOSPC") for number in (1, 2)
    }
    assert {fault.how for fault in found if fault.call == "execve"} == {"kill", "delay"}
    only = draw.every(calls, 1000, random.Random(1), ["kill"])
    assert len(only) == sum(calls.all.values())


def test_a_cap_spreads_over_the_whole_run() -> None:
    calls = strace.Calls({"read": 1000}, {}, {})
    numbers = sorted(fault.number for fault in draw.every(calls, 10, random.Random(3), ["kill"]))
    assert len(numbers) == 10
    assert {later - earlier for earlier, later in pairwise(numbers)} <= {99, 100, 101}


def test_a_sample_is_drawn_by_its_seed_mostly_from_calls_with_an_effect_and_rarely_from_the_start() -> None:
    calls = strace.Calls({"read": 2000, "fdatasync": 3, "openat": 900}, {"read": 1990, "openat": 880}, {})
    found = draw.sample(calls, 20, random.Random(5))
    assert found == draw.sample(calls, 20, random.Random(5))
    assert found != draw.sample(calls, 20, random.Random(6))
    assert len(set(found)) == 20
    assert sum(fault.call == "fdatasync" for fault in found) >= 8
    assert sum(calls.is_start(fault) for fault in found) <= 4


def test_a_sample_of_more_than_there_are_is_all_of_them(calls: Any) -> None:
    assert set(draw.sample(calls, 10_000, random.Random(1))) == set(draw.every(calls, 1000, random.Random(1)))


def test_random_kills_come_while_it_is_at_work_and_each_call_is_as_likely() -> None:
    calls = strace.Calls({"read": 910, "fdatasync": 100, "mkdir": 2}, {}, {"read": 10, "mkdir": 2})
    found = draw.kills(calls, 1000, random.Random(2))
    assert {fault.how for fault in found} == {"kill"}
    assert all(fault.number > calls.idle.get(fault.call, 0) for fault in found)
    assert 60 < sum(fault.call == "fdatasync" for fault in found) < 140
