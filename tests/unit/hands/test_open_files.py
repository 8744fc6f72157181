"""Which terminals may be asked, and which device a number in /proc/PID/stat is."""

from __future__ import annotations

import os
import tty
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nicety.scheduler.hands.open_files import reads_keystrokes


class Process:
    """/proc/PID of a process that is not there: `devices` by descriptor; what is opened is a terminal in raw mode."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.opened: list[int] = []
        self.asked: list[int] = []
        self._devices: dict[int, int] = {}
        self._mounts: dict[int, int] = {}
        self._held: dict[int, int] = {}  # descriptor of the process by ours
        self._masters: list[int] = []
        (path / "fd").mkdir(parents=True)
        (path / "mountinfo").write_text(
            "21 1 0:20 / /proc rw - proc proc rw\n24 1 0:22 / /dev/pts rw,nosuid - devpts devpts rw,mode=620\n"
            "240 1 0:50 / /dev/pts rw - fuse.mine mine rw\n25 1 0:6 / /dev rw shared:2 - devtmpfs udev rw\n"
        )
        patch.setattr(
            "nicety.scheduler.hands.open_files.os", SimpleNamespace(**{**vars(os), "fstat": self._fstat, "open": self._open})
        )
        patch.setattr("nicety.scheduler.hands.open_files.mount", lambda held: b"%d" % self._mounts[self._held[held]])

    def has(self, number: int, device: int, mount: int = 24) -> None:
        self._devices[number] = device
        self._mounts[number] = mount
        (self.path / "fd" / str(number)).write_text("")

    def close(self) -> None:
        for master in self._masters:
            os.close(master)

    def _fstat(self, held: int) -> SimpleNamespace:
        self.asked.append(self._held[held])
        return SimpleNamespace(st_rdev=self._devices[self.asked[-1]])

    def _open(self, path: str, flags: int) -> int:
        if flags & os.O_PATH:
            held = os.open(path, flags)
            self._held[held] = int(Path(path).name)
            return held
        self.opened.append(self._held[int(Path(path).name)])
        master, slave = os.openpty()
        tty.setraw(slave)
        if self._devices[self.opened[-1]] == HUNG_UP:
            os.close(master)
        else:
            self._masters.append(master)
        return slave


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    made = Process(tmp_path / "7", monkeypatch)
    yield made
    made.close()


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
    process: Process, number: int, device: int, answer: bool | None
) -> None:
    process.has(1, device)
    assert reads_keystrokes(str(process.path), number) is answer
    assert (process.opened == [1]) == (answer is True or device == HUNG_UP)


def test_another_terminal_is_not_taken_for_it(process: Process) -> None:
    process.has(0, os.makedev(1, 3), mount=25)
    process.has(2, os.makedev(136, 5))
    assert reads_keystrokes(str(process.path), 136 << 8 | 4) is None
    assert reads_keystrokes(str(process.path), 136 << 8 | 5) is True
    assert process.opened == [2]


@pytest.mark.parametrize("mount", [240, 21, 99], ids=["a user's own", "proc", "in no namespace of the process"])
def test_a_file_system_that_may_not_answer_is_not_asked(process: Process, mount: int) -> None:
    process.has(0, os.makedev(136, 4), mount)
    assert reads_keystrokes(str(process.path), 136 << 8 | 4) is None
    assert process.asked == process.opened == []
    process.has(1, os.makedev(136, 4))
    assert reads_keystrokes(str(process.path), 136 << 8 | 4) is True


def test_a_process_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert reads_keystrokes(str(tmp_path / "7"), 34816) is None
