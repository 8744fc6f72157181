"""The file of the frame: replaced as a whole, private, gone at the end, and its troubles."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nicety.scheduler.service.frame_file import FrameFile


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_each_write_is_another_file_and_the_old_one_stays_whole(tmp_path: Path) -> None:
    file = FrameFile(tmp_path / "run" / "frame", None)
    file.write(b"one")
    with (tmp_path / "run" / "frame").open("rb") as reader:
        file.write(b"number two")
        assert reader.read() == b"one"
    assert (tmp_path / "run" / "frame").read_bytes() == b"number two"
    assert [left.name for left in (tmp_path / "run").iterdir()] == ["frame"]
    assert file.trouble == ""


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_only_its_own_user_or_the_control_group_may_read(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        FrameFile(tmp_path / "own" / "frame", None).write(b"x")
        FrameFile(tmp_path / "group" / "frame", os.getegid()).write(b"x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "own" / "frame") == 0o600
    assert mode(tmp_path / "group" / "frame") == 0o640
    assert (tmp_path / "group" / "frame").stat().st_gid == os.getegid()
    assert mode(tmp_path / "own") == mode(tmp_path / "group") == 0o755


def test_a_group_that_the_file_has_anyway_needs_no_call_that_the_unit_forbids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", forbidden)
    file = FrameFile(tmp_path / "frame", os.getegid())
    file.write(b"x")
    assert (file.trouble, mode(tmp_path / "frame")) == ("", 0o640)
    other = FrameFile(tmp_path / "other", os.getegid() + 1)
    other.write(b"x")
    assert "Operation not permitted" in other.trouble


def test_a_directory_that_was_cleaned_up_is_made_again(tmp_path: Path) -> None:
    file = FrameFile(tmp_path / "run" / "frame", None)
    file.write(b"one")
    (tmp_path / "run" / "frame").unlink()
    (tmp_path / "run").rmdir()
    file.write(b"two")
    assert (tmp_path / "run" / "frame").read_bytes() == b"two"


def test_what_a_killed_daemon_was_writing_is_no_hindrance(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / "frame.new").symlink_to(target)
    FrameFile(tmp_path / "frame", None).write(b"one")
    assert (tmp_path / "frame").read_bytes() == b"one"
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["link", "open to all", "a file"])
def test_a_place_that_is_not_ours_alone_is_refused_and_told(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    elif kind == "open to all":
        place.mkdir()
        place.chmod(0o777)
    else:
        place.touch()
    file = FrameFile(place / "frame", None)
    file.write(b"x")
    assert f"{place}: not a directory of this user's alone; set daemon.frame to another file" in file.trouble
    assert not (place / "frame").exists()
    assert not (tmp_path / "elsewhere" / "frame").exists()


def test_a_trouble_ends_with_the_next_frame_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    file = FrameFile(tmp_path / "run" / "frame", None)
    file.write(b"x")
    assert file.trouble
    (tmp_path / "run").unlink()
    file.write(b"x")
    assert file.trouble == ""


def test_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    file = FrameFile(tmp_path / "run" / "frame", None)
    file.remove()  # before the first frame
    file.write(b"x")
    (tmp_path / "run" / "frame.new").touch()
    file.remove()
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_other_files_of_the_directory_stay(tmp_path: Path) -> None:
    file = FrameFile(tmp_path / "frame", None)
    file.write(b"x")
    (tmp_path / "control.sock").touch()
    file.remove()
    assert [left.name for left in tmp_path.iterdir()] == ["control.sock"]


def test_without_a_place_nothing_is_written_and_the_reason_stays() -> None:
    file = FrameFile(None, None, "no tmpfs")
    file.write(b"x")
    file.remove()
    assert file.trouble == "no tmpfs"
