"""The file for node_exporter: replaced as a whole, or left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from nicety.scheduler.views.exporter.textfile import write


def test_the_file_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a.prom", b"one")
    with (tmp_path / "a.prom").open("rb") as opened:
        write(tmp_path / "a.prom", b"two")
        assert opened.read() == b"one"
    assert (tmp_path / "a.prom").read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.prom"]


def test_what_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.prom").mkdir()
    with pytest.raises(OSError, match="directory"):
        write(tmp_path / "a.prom", b"one")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.prom"]
