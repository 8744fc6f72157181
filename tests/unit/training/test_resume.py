"""What an interrupted training keeps: only for the same training, only if it is whole and ours, and gone when it is done."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.training.resume import MAGIC, STALE_SECONDS, Parts

MOST = 1 << 20
ARRAYS: dict[str, NDArray[Any]] = {
    "values": np.arange(6, dtype=np.float32).reshape(2, 3),
    "none": np.empty((0, 4)),
    "flags": np.array([True, False]),
    "pids": np.array([2**63 + 1], dtype=np.uint64),
}


def opened(state: Path, said: list[str], most: int = MOST, **asked: Any) -> Parts:
    return Parts(state, asked, most, said.append)


def path_of(state: Path, name: str = "piece") -> Path:
    (path,) = (state / "training").glob(f"*/{name}.part")
    return path


def kept(state: Path) -> Path:
    """A part as an interrupted training leaves it; where it is."""
    parts = opened(state, [])
    parts.save("piece", {"a": [1, "b"]}, ARRAYS)
    parts.close()
    return path_of(state)


def test_what_was_saved_comes_back_to_the_same_training(tmp_path: Path) -> None:
    kept(tmp_path)
    said: list[str] = []
    part = opened(tmp_path, said).load("piece")
    assert part is not None
    assert part.plain == {"a": [1, "b"]}
    assert list(part.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(part.arrays[name], array)
        assert part.arrays[name].dtype == array.dtype
    assert said == []


def test_another_training_does_not_find_it(tmp_path: Path) -> None:
    kept(tmp_path)
    assert opened(tmp_path, [], since=3.0).load("piece") is None


def test_after_success_nothing_is_left(tmp_path: Path) -> None:
    kept(tmp_path)
    opened(tmp_path, []).clear()
    assert list(tmp_path.iterdir()) == []


def test_another_interrupted_training_outlives_the_success_of_one(tmp_path: Path) -> None:
    path = kept(tmp_path)
    other = opened(tmp_path, [], since=3.0)
    other.save("piece", None, {})
    other.clear()
    assert list((tmp_path / "training").glob("*/*.part")) == [path]


def test_what_nobody_took_up_for_a_week_is_removed(tmp_path: Path) -> None:
    path = kept(tmp_path)
    for age, there in ((STALE_SECONDS - 3600, True), (STALE_SECONDS + 3600, False)):
        then = time.time() - age
        os.utime(path.parent, (then, then))
        opened(tmp_path, [], since=age).close()
        assert path.exists() == there


def test_what_is_taken_up_again_is_not_stale(tmp_path: Path) -> None:
    path = kept(tmp_path)
    then = time.time() - STALE_SECONDS - 3600
    os.utime(path.parent, (then, then))
    opened(tmp_path, []).close()
    opened(tmp_path, [], since=1).close()
    assert path.exists()


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def signed(head: object, arrays: bytes = b"") -> bytes:
    """A part with a right checksum, whatever its head says."""
    return signed_text(json.dumps(head).encode(), arrays)


def signed_text(text: bytes, arrays: bytes = b"") -> bytes:
    body = len(text).to_bytes(8, "little") + text + arrays
    return MAGIC + hashlib.sha256(body).digest() + body


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": flipped,
    "cut off": lambda data: data[:-5],
    "empty": lambda data: b"",
    "another file": lambda data: b"\x80\x04cposix\nsystem\n" + data,
    "a head longer than the file": lambda data: MAGIC + hashlib.sha256(b"\xff" * 8).digest() + b"\xff" * 8,
    "a head that is a list": lambda data: signed([]),
    "no arrays named": lambda data: signed({"plain": 1}),
    "an array of objects": lambda data: signed({"plain": 1, "arrays": [["x", "|O", [1]]]}, bytes(8)),
    "an array larger than the file": lambda data: signed({"plain": 1, "arrays": [["x", "<f8", [1 << 70]]]}, bytes(8)),
    "an array of nothing known": lambda data: signed({"plain": 1, "arrays": [["x", "nonsense", [1]]]}, bytes(8)),
    "an array of no size": lambda data: signed({"plain": 1, "arrays": [["x", "<f8", [-1]]]}, bytes(8)),
    "bytes that belong to no array": lambda data: signed({"plain": 1, "arrays": []}, bytes(8)),
    "the same array twice": lambda data: signed({"plain": 1, "arrays": [["x", "<f8", [1]]] * 2}, bytes(16)),
    "a shape that is no list": lambda data: signed({"plain": 1, "arrays": [["x", "<f8", None]]}, bytes(8)),
    "a head nested too deep": lambda data: signed_text(b"[" * 200_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_left_out_with_a_sentence(tmp_path: Path, damage: str) -> None:
    path = kept(tmp_path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    said: list[str] = []
    parts = opened(tmp_path, said)
    assert parts.load("piece") is None
    assert len(said) == 1
    assert str(path) in said[0]
    assert "done again" in said[0]
    parts.save("piece", 2, {})
    part = parts.load("piece")
    assert part is not None
    assert part.plain == 2


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_part_that_others_could_have_written_is_not_believed(tmp_path: Path, mode: int) -> None:
    kept(tmp_path).chmod(mode)
    said: list[str] = []
    assert opened(tmp_path, said).load("piece") is None
    assert "only this user could have written" in said[0]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = kept(tmp_path / "state")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    said: list[str] = []
    assert opened(tmp_path / "state", said).load("piece") is None
    assert len(said) == 1


def test_a_second_name_of_the_file_is_not_believed(tmp_path: Path) -> None:
    path = kept(tmp_path / "state")
    os.link(path, tmp_path / "other")
    said: list[str] = []
    assert opened(tmp_path / "state", said).load("piece") is None
    assert len(said) == 1


def test_a_part_larger_than_the_memory_is_not_read(tmp_path: Path) -> None:
    path = kept(tmp_path)
    said: list[str] = []
    parts = opened(tmp_path, said, most=path.stat().st_size - 1)
    assert parts.load("piece") is None
    assert "more than this training may take" in said[0]
    parts.close()
    assert opened(tmp_path, said, most=path.stat().st_size).load("piece") is not None


def test_two_at_a_time_do_not_share_parts(tmp_path: Path) -> None:
    said: list[str] = []
    one = opened(tmp_path, said)
    two = opened(tmp_path, said)
    assert (one.kept, two.kept) == (True, False)
    assert "running already" in said[0]
    one.save("piece", 1, {})
    assert two.load("piece") is None
    two.clear()
    assert one.load("piece") is not None


def test_a_state_directory_that_others_may_write_to_keeps_nothing_and_training_goes_on(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    said: list[str] = []
    parts = opened(tmp_path, said)
    assert not parts.kept
    assert "cannot be resumed" in said[0]
    parts.save("piece", 1, {})
    assert parts.load("piece") is None
    parts.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_is_said_once_and_training_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    parts = opened(tmp_path, said)
    (lock,) = (tmp_path / "training").glob("*/lock")
    lock.unlink()
    lock.parent.rmdir()
    parts.save("piece", 1, {})
    parts.save("piece", 1, {})
    assert len(said) == 1
    assert "cannot be resumed" in said[0]
    assert not parts.kept


def test_what_was_kept_before_the_disk_failed_is_gone_after_success(tmp_path: Path) -> None:
    parts = opened(tmp_path, [])
    parts.save("plan", 1, {})
    (path_of(tmp_path, "plan").parent / "piece.part").mkdir()  # where nothing can be written
    parts.save("piece", 1, {})
    assert not parts.kept
    (path_of(tmp_path, "piece")).rmdir()
    parts.clear()
    assert list(tmp_path.iterdir()) == [], "the next training would take up the old plan"


def test_objects_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain numbers"):
        opened(tmp_path, []).save("piece", 1, {"x": np.array([object()])})


@pytest.mark.parametrize("name", ["", "../piece", "a/b", "UP"])
def test_a_name_cannot_lead_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        opened(tmp_path, []).load(name)
