"""Where the frame is written: in memory, where this process may write, and where readers look."""

from __future__ import annotations

from pathlib import Path

import pytest

from nicety.scheduler.config.paths import PathError
from nicety.scheduler.config.runtime import SYSTEM_STATE, frame_to_write, frames_to_read

DISK = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"


def a_mount(point: Path, kind: str) -> str:
    return f"30 22 0:26 / {str(point).replace(' ', chr(92) + '040')} rw,nosuid - {kind} none rw\n"


def test_a_named_file_is_taken_as_it_is() -> None:
    assert frame_to_write("/somewhere/frame", SYSTEM_STATE, {}, "") == Path("/somewhere/frame")
    assert frames_to_read("/somewhere/frame", SYSTEM_STATE, {}) == [Path("/somewhere/frame")]


def test_a_unit_writes_in_its_runtime_directory(tmp_path: Path) -> None:
    own = tmp_path / "run"
    own.mkdir()
    mounts = DISK + a_mount(tmp_path, "tmpfs")
    assert frame_to_write("", SYSTEM_STATE, {"RUNTIME_DIRECTORY": f"{own}:/run/second"}, mounts) == own / "frame"


def test_a_user_writes_in_the_directory_of_the_login(tmp_path: Path) -> None:
    root, environment = tmp_path / "state", {"XDG_RUNTIME_DIR": str(tmp_path)}
    path = frame_to_write("", root, environment, DISK + a_mount(tmp_path, "tmpfs"))
    assert path.parent.parent == tmp_path
    assert path in frames_to_read("", root, environment)
    assert not path.parent.exists()


def test_two_state_directories_have_two_places(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    one, two = (set(frames_to_read("", tmp_path / name, environment)) for name in ("one", "two"))
    assert len(one) == 3
    assert not one & two


def test_what_is_on_a_disk_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(PathError, match=rf"none of .*{tmp_path.name}.* is on a tmpfs .*; set daemon.frame"):
        frame_to_write("", tmp_path, {"XDG_RUNTIME_DIR": str(tmp_path)}, DISK)


def test_the_last_mount_at_a_point_counts_and_the_longest_point(tmp_path: Path) -> None:
    odd = tmp_path / "a b"
    odd.mkdir()
    environment = {"XDG_RUNTIME_DIR": str(odd)}
    covered = DISK + a_mount(odd, "ext4") + a_mount(odd, "tmpfs")
    assert frame_to_write("", tmp_path, environment, covered).parent.parent == odd
    for wrong in (DISK + a_mount(odd, "tmpfs") + a_mount(odd, "ext4"), a_mount(tmp_path, "tmpfs") + a_mount(odd, "ext4") + DISK):
        with pytest.raises(PathError):
            frame_to_write("", tmp_path, environment, wrong)
    beside = a_mount(tmp_path / "a", "ext4") + a_mount(tmp_path, "tmpfs")  # "a" is no part of the path "a b"
    assert frame_to_write("", tmp_path, environment, DISK + beside).parent.parent == odd


def test_the_systems_daemon_has_a_name_that_everybody_knows() -> None:
    assert frames_to_read("", SYSTEM_STATE, {})[0] == Path("/run/nicety/frame")
