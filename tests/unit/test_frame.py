"""The frame in bytes: whole or refused, and readable across small differences of version."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nicety.scheduler import frame as module
from nicety.scheduler.frame import Frame, FrameError, pack, read_frame, unpack
from nicety.scheduler.testing.frames import a_frame


def in_file(body: bytes, version: int = module.VERSION) -> bytes:
    return b"nicety frame %d %d %08x\n%b" % (version, len(body), zlib.crc32(body), body)


def test_a_frame_comes_back_as_it_was() -> None:
    frame = a_frame(seq=7)
    assert unpack(pack(frame)) == frame


def test_class_is_its_name_in_the_file() -> None:
    body: Any = msgspec.json.decode(pack(a_frame()).partition(b"\n")[2])
    assert {"class", "name", "cpu"} <= body["groups"][0].keys()
    assert "class_" not in body["groups"][0]


def test_every_shorter_file_is_refused() -> None:
    data = pack(a_frame())
    for length in range(len(data)):
        with pytest.raises(FrameError):
            unpack(data[:length])


def test_a_file_of_two_frames_is_refused() -> None:
    """A writer in place leaves the end of a longer frame behind a shorter one, or two halves."""
    one, two = pack(a_frame(seq=1)), pack(a_frame(seq=2))
    for cut in range(1, len(one), 97):
        if one[:cut] + two[cut:] not in (one, two):
            with pytest.raises(FrameError, match="cut short or damaged"):
                unpack(one[:cut] + two[cut:])


def test_another_version_is_refused_by_name() -> None:
    with pytest.raises(FrameError, match=r"version 2, and this reads 1; use the nicety that the daemon runs"):
        unpack(in_file(b"{}", 2))


@pytest.mark.parametrize("data", [b"", b"hello", b"nicety frame 1 2\n{}", b"nicety frame 1 2 x y\n{}", b"nicety frame - 2 00\n{}"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match="not a frame"):
        unpack(data)


def test_fields_that_are_new_are_left_out_and_those_that_are_gone_are_missed() -> None:
    body: dict[str, Any] = msgspec.json.decode(pack(a_frame()).partition(b"\n")[2])
    body["invented"] = body["machine"]["invented"] = 1
    assert unpack(in_file(msgspec.json.encode(body))) == a_frame()
    del body["machine"]["cpus"]
    with pytest.raises(FrameError, match="cpus"):
        unpack(in_file(msgspec.json.encode(body)))


def test_no_file_is_no_frame(tmp_path: Path) -> None:
    assert read_frame(tmp_path / "frame") is None
    (tmp_path / "file").touch()
    assert read_frame(tmp_path / "file" / "frame") is None


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=re.escape(f"{tmp_path}: Is a directory")):
        read_frame(tmp_path)


def test_a_long_file_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frame").write_bytes(pack(a_frame()))
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(FrameError, match="longer than any frame"):
        read_frame(tmp_path / "frame")


def test_the_page_names_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs/frame.md").read_text()
    parts = [part for part in vars(module).values() if isinstance(part, type) and issubclass(part, module.Part)]
    names = {name for part in parts for name in part.__struct_encode_fields__}
    assert len(names) > 60
    assert sorted(name for name in names if f"`{name}`" not in page) == []
    assert Frame in parts
