"""Pages are as wide as the terminal that they are shown on, and lists in a pipe have a line for each item."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import Config, to_builtins
from nicety.scheduler.decision import Abilities, Decision, Outcome, ResizePool, Session, Verdict, Why
from nicety.scheduler.explain.layout import PAGE
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.store.decisions import DecisionLog
from nicety.scheduler.testing.ticks import a_pool, a_tick

ID = "5e551017-123456.12"
TEXT = "web: 4 to 6 workers: " + "the load grows and grows, " * 12 + "and more of it is expected."


@pytest.fixture
def state(tmp_path: Path) -> Path:
    log = DecisionLog(tmp_path, 1 << 20)
    own = Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True)
    log.begin(Session("5e551017", "boot", 0, "0.1.0", "act", ProcId(100, 1), own, to_builtins(Config()), {}, {}))
    resize = Decision(ID, "pool_size", "pool web", ResizePool("web", 6), Why("forecast floor", TEXT, {"load_now": 3.0}, (), ()))
    log.append(a_tick(1, pools=[a_pool("web")]), Verdict((resize,), (), ()), (Outcome(ID, Status.APPLIED, "pool web", "", 1),))
    log.close()
    return tmp_path


def command(state: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(state), *words]


PLAIN = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}


def shown(state: Path, width: int, *words: str) -> list[str]:
    """The lines that a command shows on a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with subprocess.Popen(command(state, *words), stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=PLAIN) as process:
        os.close(theirs)
        found = b""
        try:
            while part := os.read(ours, 65536):
                found += part
        except OSError:  # EIO: the other end is closed
            pass
        os.close(ours)
    assert process.returncode == 0, found
    return found.decode().replace("\r\n", "\n").rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [60, 200])
def test_a_page_is_as_wide_as_its_terminal(state: Path, width: int) -> None:
    for words in (["why", ID], ["why", "web"], ["decisions"]):
        lines = shown(state, width, *words)
        assert 0.8 * width < max(map(len, lines)) <= width, words
        assert any(ID in line for line in lines), words


def test_in_a_pipe_a_page_has_a_fixed_width_and_a_list_a_line_for_each_item(state: Path) -> None:
    for environment, width in ((PLAIN, PAGE), ({**PLAIN, "COLUMNS": "70"}, 70)):
        page = subprocess.run(command(state, "why", ID), capture_output=True, text=True, check=True, env=environment).stdout
        assert 0.8 * width < max(map(len, page.splitlines())) <= width
    listed = subprocess.run(command(state, "decisions"), capture_output=True, text=True, check=True, env=PLAIN).stdout
    (line,) = (line for line in listed.splitlines() if ID in line)
    assert line.endswith(TEXT)
