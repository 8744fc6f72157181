"""Which terminals may be asked, and which device a number in /proc/PID/stat is."""

from __future__ import annotations

import os
import tty
from pathlib import Path
from types import SimpleNamespace

import pytest

from nicety.scheduler.linux.terminals import takes_keys


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Device numbers of descriptors by path, of processes that are not there; what is opened is a terminal in raw mode."""
    devices: dict[str, int] = {}

    def stat(path: str) -> SimpleNamespace:
        if path not in devices:
            raise FileNotFoundError(path)
        return SimpleNamespace(st_rdev=devices[path])

    def opened(path: str, _flags: int) -> int:
        devices[f"opened {path}"] = devices[path]
        master, slave = os.openpty()
        tty.setraw(slave)
        os.close(master) if devices[path] == HUNG_UP else masters.append(master)
        return slave

    masters: list[int] = []
    monkeypatch.setattr("nicety.scheduler.linux.terminals.os", SimpleNamespace(**{**vars(os), "stat": stat, "open": opened}))
    return devices


HUNG_UP = os.makedev(136, 9)


@pytest.mark.parametrize(
    ("number", "device", "answer"),
    [
        (34816, os.makedev(136, 0), True),
        (136 << 8 | 44 | 1 << 20, os.makedev(136, 300), True),
        (4 << 8 | 1, os.makedev(4, 1), True),
        (136 << 8 | 9, HUNG_UP, None),
        (4 << 8 | 64, os.makedev(4, 64), None),
        (188 << 8, os.makedev(188, 0), None),
    ],
    ids=["the first pseudo-terminal", "the 300th", "a console", "one that hung up", "a serial line", "one on USB"],
)
def test_consoles_and_pseudo_terminals_are_asked_and_serial_lines_left_alone(
    asked: dict[str, int], number: int, device: int, answer: bool | None
) -> None:
    asked["/proc/7/fd/1"] = device
    assert takes_keys("/proc/7", number) is answer
    assert ("opened /proc/7/fd/1" in asked) == (answer is True or device == HUNG_UP)


def test_another_terminal_is_not_taken_for_it(asked: dict[str, int]) -> None:
    asked.update({"/proc/7/fd/0": os.makedev(1, 3), "/proc/7/fd/2": os.makedev(136, 5)})
    assert takes_keys("/proc/7", 136 << 8 | 4) is None
    assert takes_keys("/proc/7", 136 << 8 | 5) is True
    assert [name for name in asked if name.startswith("opened")] == ["opened /proc/7/fd/2"]


def test_a_process_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert takes_keys(str(tmp_path / "7"), 34816) is None
