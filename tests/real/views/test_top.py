"""The live view on a real terminal: a daemon that comes and goes, no daemon, a terminal that is resized, stopped or closed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

SECONDS = 25.0


class Terminal:
    """`nicety top` in a pty, and what stands on its screen."""

    def __init__(self, *words: str, columns: int = 100, lines: int = 30, **variables: str) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **variables}
        environment.pop("NO_COLOR", None) if "NO_COLOR" not in variables else None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execve(sys.executable, [sys.executable, "-m", "nicety.scheduler", *words], environment)
        self.code: int | None = None

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def text(self) -> str:
        return "\n".join(self.screen.display)

    def read(self, seconds: float = 0.05) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and select.select([self._fd], [], [], left)[0]:
            try:
                data = os.read(self._fd, 1 << 16)
            except OSError:
                return
            self.written += data
            self._stream.feed(re.sub(rb"\x1b\[[<>=?][\d;]*u", b"", data))  # the keyboard protocol, which pyte shows as letters

    def until(self, holds: Callable[[str], bool]) -> str:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            self.read()
            if holds(self.text()):
                return self.text()
        raise AssertionError(self.text())

    def ended(self) -> int:
        """Its exit code."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"it did not end: {self.text()}")

    def hang_up(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self._fd >= 0:
            os.close(self._fd)


@pytest.fixture
def here(tmp_path: Path) -> list[str]:
    (tmp_path / "nicety.toml").write_text("[daemon]\ninterval = 0.2\n")
    return ["--config", str(tmp_path / "nicety.toml"), "--state-dir", str(tmp_path / "state")]


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def readers(pid: int) -> list[int]:
    """Processes that read the machine for a view."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"views.top.alone" in Path(f"/proc/{child}/cmdline").read_bytes()]


def frames_of(pid: int) -> Path:
    """The directory of the frames that a reader writes."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return Path(os.fsdecode(words[words.index(b"nicety.scheduler.views.top.alone") + 1]))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_follows_a_daemon_that_comes_and_goes_and_looks_back(here: list[str], terminals: list[Terminal]) -> None:
    view = Terminal(*here, "top")
    terminals.append(view)
    view.until(lambda text: "no daemon: observing by itself" in text and "live" in text)
    (reader,) = readers(view.pid)
    directory = frames_of(reader)
    assert (directory / "frame").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    daemon = subprocess.Popen([sys.executable, "-m", "nicety.scheduler", *here, "run"], stderr=subprocess.DEVNULL)
    try:
        view.until(lambda text: "observes and changes nothing" in text)
        wait_for(lambda: gone(reader) and not directory.exists())
        view.until(lambda text: re.search(r"tick \d\d", text) is not None)
        assert "numpy" not in Path(f"/proc/{view.pid}/maps").read_text()
        view.type("2")
        view.until(lambda text: "process" in text and str(daemon.pid) in text)
        view.type("\x1b[D")  # Left
        view.until(lambda text: "THE PAST" in text and str(daemon.pid) in text)
        view.type("\x1b[F")  # End
        view.until(lambda text: "live" in text)
        view.type("p")
        view.until(lambda text: "paused: nothing new is decided" in text and "paused: decides nothing new" in text)
        view.type("1w")
        view.until(lambda text: "why " in text and "Esc back" in text)
        view.type("\x1b")
        view.resize(70, 20)
        view.until(lambda text: "paused: decides" in text and "quit" in text.splitlines()[-1])
    finally:
        daemon.terminate()
        daemon.wait(60)
    view.until(lambda text: "no daemon: observing by itself" in text)
    (reader,) = readers(view.pid)
    directory = frames_of(reader)
    view.type("q")
    assert view.ended() == 0
    assert b"\x1b[?1049l" in view.written
    assert gone(reader)
    assert not directory.exists()


@pytest.mark.parametrize("how", ["killed", "hung up", "terminated"])
def test_nothing_is_left_when_it_ends(how: str, here: list[str], terminals: list[Terminal]) -> None:
    view = Terminal(*here, "top")
    terminals.append(view)
    view.until(lambda text: "no daemon: observing by itself" in text)
    (reader,) = readers(view.pid)
    directory = frames_of(reader)
    if how == "hung up":
        view.hang_up()
        wait_for(lambda: gone(view.pid))
    elif how == "terminated":
        os.kill(view.pid, signal.SIGTERM)
        view.ended()
    else:
        os.kill(view.pid, signal.SIGKILL)
    wait_for(lambda: gone(reader) and not directory.exists())


def test_a_stopped_view_goes_on(here: list[str], terminals: list[Terminal]) -> None:
    view = Terminal(*here, "top", NO_COLOR="1", columns=80, lines=24)
    terminals.append(view)
    view.until(lambda text: "observing by itself" in text)
    os.kill(view.pid, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(view.pid, signal.SIGCONT)
    view.type("?")
    view.until(lambda text: "What is on the screen" in text)
    assert re.search(rb"\x1b\[[\d;]*[34][0-8][\d;]*m", view.written) is None  # no colour at all
    view.type("qq")
    assert view.ended() == 0


def test_lines_of_text_need_no_terminal(here: list[str]) -> None:
    command = [sys.executable, "-m", "nicety.scheduler", *here, "top"]
    done = subprocess.run(
        [*command, "--once"], capture_output=True, text=True, check=True, timeout=60, env={**os.environ, "TERM": "dumb"}
    )
    assert "no daemon: observing by itself" in done.stdout
    assert "\x1b" not in done.stdout
    assert re.search(r"^CPU: \d+\.\d\d of \d+ cores busy", done.stdout, re.MULTILINE)
    following = subprocess.Popen([*command, "--plain"], stdout=subprocess.PIPE, text=True)
    assert following.stdout is not None
    seen = 0
    while seen < 3:
        seen += following.stdout.readline().startswith("CPU: ")
    following.terminate()
    following.communicate(timeout=30)
