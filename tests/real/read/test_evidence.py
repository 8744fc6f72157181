"""The snapshot of a process: what a real one waits for and holds, bounded, and harmless to a terminal."""

# ruff: noqa: PTH115, PTH123, PTH208 -- the system calls, and nothing beside them

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.decision import encode
from nicety.scheduler.read.evidence import DESCRIPTORS, THREADS, Evidence, look
from nicety.scheduler.read.process import see

HEAVY = """
import os, sys, threading
kept = [open(sys.argv[1]) for _ in range(1500)]
for _ in range(100):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
child = os.fork()
if child == 0:
    os.execvp("sleep", ["sleep", "600"])
print(child, flush=True)
sys.stdin.read(1)
os.kill(child, 9)
os.waitpid(child, 0)
"""


@pytest.fixture
def heavy(tmp_path: Path) -> Iterator[tuple[ProcId, int, Path]]:
    """(a process with 1,500 descriptors and 100 threads that waits for its pipe, its child, the file that it opened)."""
    leaked = tmp_path / "leaked\x1b[31m.log"
    leaked.touch()
    command = [sys.executable, "-c", HEAVY, str(leaked)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        child = int(process.stdout.readline())
        seen = see(process.pid)
        assert seen is not None
        yield seen.id, child, leaked
        process.stdin.write("x")


def seen_when(condition: Callable[[Evidence], bool], process: ProcId) -> Evidence:
    deadline = time.monotonic() + 20
    while True:
        found = look(process)
        assert found is not None
        if condition(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def test_it_says_what_a_process_waits_for_and_holds(heavy: tuple[ProcId, int, Path]) -> None:
    process, child, leaked = heavy
    found = seen_when(lambda it: it.state == "S", process)
    assert found.program.startswith("python")
    assert found.threads == 101
    assert sum(many for _, many in found.thread_states) == 64
    assert dict(found.descriptor_kinds)["file"] > 900
    assert found.descriptor_targets[0][0].endswith("leaked\\x1b[31m.log")
    assert [pid for pid, _, _ in found.children] == [child]
    assert found.descriptors == DESCRIPTORS, "counted so far and no further"
    assert dict(found.memory)["anonymous"] > 1 << 20
    assert found.mappings[0][1] > 0
    syscall = Path(f"/proc/{process.pid}/syscall")
    if os.access(syscall, os.R_OK) and syscall.read_text():  # needs ptrace rights
        assert found.syscall.startswith("read on descriptor 0, pipe:")
    assert str(leaked) not in encode(found).decode()


def the_system_calls_alone(pid: int) -> None:
    """What the kernel has to be asked for descriptors and threads, and nothing made of it."""
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry, _ in zip(entries, range(DESCRIPTORS), strict=False):
            os.readlink(entry.path)
    for task in sorted(os.listdir(f"/proc/{pid}/task"), key=int)[:THREADS]:
        for name in ("stat", "wchan"):
            with open(f"/proc/{pid}/task/{task}/{name}", "rb", buffering=0) as file:
                file.read()


def test_it_is_small_and_quick_whatever_the_process_has(heavy: tuple[ProcId, int, Path]) -> None:
    process, _, _ = heavy
    spent, least = [], []
    for _ in range(10):
        before = time.thread_time()
        found = look(process)
        spent.append(time.thread_time() - before)
        assert found is not None
        assert len(encode(found)) < 8192
        before = time.thread_time()
        the_system_calls_alone(process.pid)
        least.append(time.thread_time() - before)
    assert min(spent) < 3 * min(least)  # 1.6 times


def test_a_process_that_is_gone_or_another_by_now_gives_none() -> None:
    own = see(os.getpid())
    assert own is not None
    assert look(own.id) is not None
    assert look(ProcId(own.id.pid, own.id.start_ticks + 1)) is None
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert look(ProcId(process.pid, 1)) is None


def a_fake(proc: Path, pid: int = 7) -> Path:
    """A process as files, with a name that a terminal would obey and nothing that root alone may read."""
    place = proc / str(pid)
    (place / "task" / str(pid)).mkdir(parents=True)
    (place / "fd").mkdir()
    stat = f"{pid} (w\x1b[2J) D) D 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 1 0 4711 0 0 0".encode()
    (place / "stat").write_bytes(stat)
    (place / "task" / str(pid) / "stat").write_bytes(stat)
    (place / "comm").write_bytes(b"w\x1b[2J) D\n")
    (place / "cmdline").write_bytes(b"")
    (place / "cgroup").write_bytes(b"0::/\n")
    (place / "status").write_bytes(b"Name:\tw\nUid:\t0\t0\t0\t0\n")
    (place / "task" / str(pid) / "wchan").write_bytes(b"nfs_wait\x07\n")
    return place


def test_names_that_strangers_chose_are_printable(tmp_path: Path) -> None:
    place = a_fake(tmp_path)
    (place / "fd" / "3").symlink_to("/tmp/\x1b]0;x\x07")
    (place / "maps").write_bytes(b"10000-30000 r--p 00000000 08:01 1 /lib/\x1b[31mx.so\n5000-6000 rw-p 00000000 00:00 0 \n50")
    found = look(ProcId(7, 4711), tmp_path)
    assert found is not None
    assert (found.state, found.cpu_seconds) == ("D", 300 / os.sysconf("SC_CLK_TCK"))
    assert found.mappings == (("/lib/\\x1b[31mx.so", 0x20000), ("anonymous", 0x1000))
    texts = [found.program, found.wchan, *(name for name, _ in (*found.descriptor_targets, *found.thread_states))]
    assert all(text.isprintable() for text in texts)
    assert "\\x1b" in found.program


def test_a_wait_for_a_tcp_peer_names_it(tmp_path: Path) -> None:
    place = a_fake(tmp_path)
    (place / "fd" / "5").symlink_to("socket:[99]")
    (place / "net").mkdir()
    line = "0: 0100007F:1F90 0300000A:1538 01 00000000:00000000 00:00000000 00000000 0 0 99 1\n"
    (place / "net" / "tcp").write_text(f"  sl local remote st\n{line}")
    number = {"x86_64": 45, "aarch64": 207}.get(os.uname().machine)
    if number is None or sys.byteorder != "little":
        pytest.skip("the numbers of system calls, or the order of bytes, are of another machine")
    (place / "task/7/syscall").write_text(f"{number} 0x5 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f00\n")
    found = look(ProcId(7, 4711), tmp_path)
    assert found is not None
    assert found.syscall == "recvfrom on descriptor 5, TCP to 10.0.0.3 port 5432"
