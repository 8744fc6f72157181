"""Pauses are kept across restarts and boots, and no file of theirs can stop the daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nicety.scheduler.config.sections import Config
from nicety.scheduler.decide.engine import Engine, first_memory
from nicety.scheduler.decide.policies.priority.pairs import LONGEST, Pause
from nicety.scheduler.store.pauses import EVERY_NS, Pauses

SECOND = 10**9
PAUSE = Pause("web", "hogs", "had no effect", 60.0, 100 * SECOND)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state"


def test_a_pause_goes_on_after_a_boot_for_what_is_left_of_it(state: Path) -> None:
    Pauses(state).write({"x": PAUSE}, at=50 * SECOND, wall=1000 * SECOND)
    (found,) = Pauses(state).read(at=3 * SECOND, wall=1020 * SECOND)
    assert found == Pause("web", "hogs", "had no effect", 60.0, (3 + 30) * SECOND)
    assert (state / "pauses.json").stat().st_mode & 0o077 == 0
    memory = first_memory([found])
    assert [pause["until"] for pause in memory["policies"]["priority"]["pairs"]["pauses"].values()] == [33 * SECOND]
    assert Engine.resume(Config(), "s", memory).pauses == dict.fromkeys(memory["policies"]["priority"]["pairs"]["pauses"], found)


def test_a_clock_that_was_set_makes_no_pause_longer_and_forgets_none_at_once(state: Path) -> None:
    Pauses(state).write({"x": PAUSE}, at=50 * SECOND, wall=1000 * SECOND)
    (back,) = Pauses(state).read(at=0, wall=-(10**18))
    (ahead,) = Pauses(state).read(at=0, wall=10**18)
    assert (back.until, ahead.until) == (60 * SECOND, -round(LONGEST * SECOND))


def test_it_is_written_when_something_changed_and_not_each_tick(state: Path) -> None:
    pauses = Pauses(state)
    pauses.write({}, at=0, wall=0)
    assert not pauses.path.exists()
    pauses.write({"x": PAUSE}, at=0, wall=0)
    first = pauses.path.stat()
    pauses.write({"x": PAUSE}, at=20 * SECOND, wall=20 * SECOND)
    assert pauses.path.stat() == first
    pauses.write({}, at=EVERY_NS - 1, wall=0)
    assert len(json.loads(pauses.path.read_bytes())) == 1
    pauses.write({}, at=EVERY_NS - 1, wall=0, last=True)
    assert json.loads(pauses.path.read_bytes()) == []


def test_a_disk_that_is_full_is_told_and_tried_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = Pauses(state)
    with monkeypatch.context() as full:
        full.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        pauses.write({"x": PAUSE}, at=0, wall=0)
    assert "No space left" in pauses.trouble
    pauses.write({"x": PAUSE}, at=EVERY_NS, wall=0)
    assert pauses.trouble == ""
    assert len(Pauses(state).read(0, 0)) == 1


@pytest.mark.parametrize(
    "text",
    ["", "[", '{"victim": 1}', "\xff", '[{"victim": "", "contender": "", "why": "", "seconds": 1e300, "ends": 0}]'],
)
def test_a_damaged_file_is_told_and_begins_empty(state: Path, text: str) -> None:
    pauses = Pauses(state)
    pauses.path.write_text(text, encoding="latin-1")
    assert pauses.read(0, 0) == []
    assert "is damaged" in pauses.trouble
    assert Pauses(state.parent / "nosuch").read(0, 0) == []
