"""Lessons are durable, whole, and taken up by a reader that has the file open already."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nicety.scheduler.decision import Lesson
from nicety.scheduler.store.files import StoreError
from nicety.scheduler.store.lessons import Lessons


def a_lesson(id_: str, value: float = 9.5) -> Lesson:
    return Lesson(id_, "web", "leak", value, 17)


def test_what_is_added_is_seen_by_a_reader_that_read_before(tmp_path: Path) -> None:
    daemon, command = Lessons(tmp_path / "state"), Lessons(tmp_path / "state")
    assert daemon.read() == ()
    command.add(a_lesson("b"))
    command.add(a_lesson("a"))
    assert daemon.read() == (a_lesson("a"), a_lesson("b"))
    command.add(a_lesson("a", 3.0))
    assert daemon.read() == (a_lesson("a", 3.0), a_lesson("b"))
    assert command.remove("b") == a_lesson("b")
    assert command.remove("b") is None
    assert daemon.read() == (a_lesson("a", 3.0),)
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_the_file_is_read_only_when_it_has_changed(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path)
    lessons.add(a_lesson("a"))
    assert lessons.read() is lessons.read()


def test_two_commands_at_a_time_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: Lessons(tmp_path / "state").add(a_lesson(f"{n:02}")), range(24)))
    assert [lesson.id for lesson in Lessons(tmp_path / "state").read()] == [f"{n:02}" for n in range(24)]


@pytest.mark.parametrize("text", ["", "[", '[{"id": "a"}]', '[{"id": 1, "pool": "", "kind": "", "value": 1, "wall": 0}]', "\xff"])
def test_a_damaged_file_is_an_error_with_a_next_step(tmp_path: Path, text: str) -> None:
    lessons = Lessons(tmp_path)
    lessons.path.write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match="move it away"):
        lessons.read()
