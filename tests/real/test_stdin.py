"""Who feeds whom through a pipe, and who waits for it, among real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nicety.models.records import Trait
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.sockets import Listeners
from nicety.scheduler.read.stdin import Feeders, awaits_input

SELF = f"/proc/{os.getpid()}"
ECHO = "import sys\nfor line in sys.stdin: print(line)"
BUSY = "while True: pass"


@contextmanager
def python(text: str, stdin: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-S", "-c", text], stdin=stdin, stdout=subprocess.DEVNULL) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def feeders() -> Iterator[Feeders]:
    listeners = Listeners("/proc", ours=True)
    yield Feeders(listeners.peer)
    listeners.close()


def soon(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while not (found := true()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def children(pid: int) -> dict[str, int]:
    """Pids of the children by what they run."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {Path(f"/proc/{child}/comm").read_text().strip(): int(child) for child in pids}


def test_a_helper_that_is_asked_through_a_pipe_is_fed_and_waits_for_it(feeders: Feeders) -> None:
    with python(ECHO, subprocess.PIPE) as child:
        assert feeders.feeds(SELF, f"/proc/{child.pid}")
        assert soon(lambda: awaits_input(f"/proc/{child.pid}"))
        assert not feeders.feeds("/proc/1", f"/proc/{child.pid}")
        assert child.stdin is not None
        child.stdin.close()
        feeders.forget()
        assert not feeders.feeds(SELF, f"/proc/{child.pid}"), "nobody can ask any more"


def test_so_is_one_that_is_asked_through_a_socket(feeders: Feeders) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, python(ECHO, theirs.fileno()) as child:
        theirs.close()
        assert feeders.feeds(SELF, f"/proc/{child.pid}")
        assert soon(lambda: awaits_input(f"/proc/{child.pid}"))


def test_what_has_a_pipe_and_does_not_read_it_waits_for_nothing(feeders: Feeders) -> None:
    with python(BUSY, subprocess.PIPE) as child:
        assert feeders.feeds(SELF, f"/proc/{child.pid}")
        assert not any(awaits_input(f"/proc/{child.pid}") for _ in range(20))


def test_what_has_no_pipe_is_not_fed(feeders: Feeders) -> None:
    with python(BUSY, subprocess.DEVNULL) as child:
        assert not feeders.feeds(SELF, f"/proc/{child.pid}")
    assert not feeders.feeds(SELF, f"/proc/{child.pid}"), "it is gone"
    assert not awaits_input(f"/proc/{child.pid}")


def test_a_part_of_a_pipeline_is_not_fed_by_the_shell(feeders: Feeders) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 | cat; true"], stdin=subprocess.DEVNULL) as shell:
        assert soon(lambda: {"sleep", "cat"} <= children(shell.pid).keys())
        pids = children(shell.pid)
        assert soon(lambda: awaits_input(f"/proc/{pids['cat']}"))
        assert not feeders.feeds(f"/proc/{shell.pid}", f"/proc/{pids['cat']}")
        os.kill(pids["sleep"], 9)


def test_what_only_inherits_the_pipe_is_not_fed_by_who_it_has_it_from(feeders: Feeders) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60; true"], stdin=subprocess.PIPE) as shell:
        assert soon(lambda: "sleep" in children(shell.pid))
        sleep = children(shell.pid)["sleep"]
        assert feeders.feeds(SELF, f"/proc/{shell.pid}")
        assert not feeders.feeds(f"/proc/{shell.pid}", f"/proc/{sleep}")
        os.kill(sleep, 9)


def test_a_sample_says_who_is_fed_and_who_is_asked() -> None:
    source = ProcSource()

    def traits(pid: int) -> Trait:
        table = source.read(time.monotonic_ns(), time.time_ns(), ()).table
        (row,) = table[table["pid"] == pid]
        return Trait(int(row["traits"])) & (Trait.PIPE_FED | Trait.PIPE_SERVER)

    with (
        python(ECHO, subprocess.PIPE) as helper,
        python(BUSY, subprocess.PIPE) as busy,
        python(BUSY, subprocess.DEVNULL) as alone,
    ):
        assert helper.stdin is not None
        assert soon(lambda: awaits_input(f"/proc/{helper.pid}"))
        assert (traits(helper.pid), traits(busy.pid), traits(alone.pid)) == (
            Trait.PIPE_FED | Trait.PIPE_SERVER,
            Trait.PIPE_FED,
            Trait(0),
        )
        helper.stdin.write(b"a question\n" * 1000)
        assert traits(helper.pid) == Trait.PIPE_FED | Trait.PIPE_SERVER, "also while it answers"
        assert busy.stdin is not None
        busy.stdin.close()
        assert soon(lambda: traits(busy.pid) == Trait(0)), "within its slow turns, whatever it was asked before"
    source.close()
