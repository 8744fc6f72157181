"""Feedback are durable, whole, and taken up by a reader that has the file open already."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nicety.scheduler.decision import Feedback
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.store.feedback import FeedbackStore


def a_feedback(id_: str, value: float = 9.5) -> Feedback:
    return Feedback(id_, "web", "leak", value, 17)


def test_what_is_added_is_seen_by_a_reader_that_read_before(tmp_path: Path) -> None:
    daemon, command = FeedbackStore(tmp_path / "state"), FeedbackStore(tmp_path / "state")
    assert daemon.read() == ()
    command.add(a_feedback("b"))
    command.add(a_feedback("a"))
    assert daemon.read() == (a_feedback("a"), a_feedback("b"))
    command.add(a_feedback("a", 3.0))
    assert daemon.read() == (a_feedback("a", 3.0), a_feedback("b"))
    assert command.remove("b") == a_feedback("b")
    assert command.remove("b") is None
    assert daemon.read() == (a_feedback("a", 3.0),)
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_the_file_is_read_only_when_it_has_changed(tmp_path: Path) -> None:
    feedback = FeedbackStore(tmp_path)
    feedback.add(a_feedback("a"))
    assert feedback.read() is feedback.read()


def test_two_commands_at_a_time_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: FeedbackStore(tmp_path / "state").add(a_feedback(f"{n:02}")), range(24)))
    assert [item.id for item in FeedbackStore(tmp_path / "state").read()] == [f"{n:02}" for n in range(24)]


@pytest.mark.parametrize("text", ["", "[", '[{"id": "a"}]', '[{"id": 1, "pool": "", "kind": "", "value": 1, "wall": 0}]', "\xff"])
def test_a_damaged_file_is_an_error_with_a_next_step(tmp_path: Path, text: str) -> None:
    feedback = FeedbackStore(tmp_path)
    feedback.path.write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match="move it away"):
        feedback.read()
