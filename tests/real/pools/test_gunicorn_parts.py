"""The parts of the gunicorn adapter: system call lines, accept queues, who is a master and who a worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.pools.gunicorn.master import find, is_worker
from nicety.scheduler.pools.sensing.busy import CallView, Doing, serving
from nicety.scheduler.pools.sensing.listening import AcceptQueue
from nicety.scheduler.pools.sensing.signals import ProcessHandle, identify, open_process, parse_stat
from nicety.scheduler.read.calls import NUMBERS, Call, parse_call
from nicety.scheduler.testing.acts import own_acts

PROC = Path("/proc")


def wait_until(path: Path, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- lines of /proc ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "call"),
    [
        (b"running\n", Call("running", ())),
        (b"-1 0x7ffd 0x7f12\n", Call("none", ())),
        (b"23 0x8 0x7ffe10 0x0 0x0 0x7ffe20 0x0 0x7ffd 0x7f12\n", Call("select", (8, 0x7FFE10, 0, 0, 0x7FFE20, 0))),
        (b"45 0x5 0x1 0x2 0x0 0x0 0x0 0x7ffd 0x7f12\n", Call("recvfrom", (5, 1, 2, 0, 0, 0))),
        (b"9999 0x5 0x1 0x2 0x0 0x0 0x0 0x7ffd 0x7f12\n", Call("other", (5, 1, 2, 0, 0, 0))),
    ],
)
def test_a_system_call_line_is_read(line: bytes, call: Call) -> None:
    assert parse_call(line, NUMBERS["x86_64"]) == call


def test_a_number_means_another_call_on_another_machine() -> None:
    line = b"22 0x8 0x1 0x1 0x0 0x0 0x0 0x1 0x1\n"
    assert parse_call(line, NUMBERS["aarch64"]).name == "epoll_pwait"
    assert parse_call(line, NUMBERS["x86_64"]).name == "other"


def test_a_hostile_name_does_not_shift_the_fields_of_stat() -> None:
    raw = b"7 (x) S 1 (y) ) R 42 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 3 0 12345 0 0\n"
    stat = parse_stat(raw)
    assert (stat.state, stat.ppid, stat.threads, stat.start_ticks) == ("R", 42, 3, 12345)


# --- what a worker waits for, from a /proc of our own ----------------------------------------------------------------------------


class FakeProc:
    """A folder with one process in it, as /proc would show it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process = root / "7"
        (self.process / "fdinfo").mkdir(parents=True)
        self.write("stat", "7 (python3) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0")
        self.memory(b"")

    def write(self, name: str, text: str) -> None:
        (self.process / name).write_text(text)

    def memory(self, raw: bytes, at: int = 0x100) -> None:
        (self.process / "mem").write_bytes(bytes(at) + raw)

    def serving(self, listeners: set[int]) -> Doing:
        view = CallView(self.root, 7, machine="x86_64")
        try:
            return serving(view, frozenset(listeners))
        finally:
            view.close()


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def test_select_on_the_listener_is_idle_and_on_anything_else_busy(proc: FakeProc) -> None:
    proc.write("syscall", "23 0xb 0x100 0x0 0x0 0x200 0x0 0x1 0x1")
    proc.memory((1 << 5 | 1 << 10).to_bytes(8, "little"))
    assert proc.serving({5}) is Doing.IDLE
    assert proc.serving({10}) is Doing.IDLE
    assert proc.serving({6}) is Doing.BUSY
    assert proc.serving(set()) is Doing.IDLE, "listeners unknown: any wait for descriptors is taken for idle"


def test_poll_on_the_listener_is_idle_and_on_a_database_busy(proc: FakeProc) -> None:
    proc.write("syscall", "7 0x100 0x2 0x3e8 0x0 0x0 0x0 0x1 0x1")
    proc.memory(b"\x04\0\0\0\x01\0\0\0" + b"\x09\0\0\0\x01\0\0\0")
    assert proc.serving({9}) is Doing.IDLE
    assert proc.serving({5}) is Doing.BUSY


@pytest.mark.parametrize("line", ["23 0x0 0x0 0x0 0x0 0x200 0x0 0x1 0x1", "7 0x100 0x0 0x3e8 0x0 0x0 0x0 0x1 0x1"])
def test_a_sleep_by_select_or_poll_without_descriptors_is_busy(proc: FakeProc, line: str) -> None:
    proc.write("syscall", line)
    assert proc.serving({5}) is Doing.BUSY


def test_an_event_loop_on_the_listener_is_told_from_one_within_a_request(proc: FakeProc) -> None:
    proc.write("syscall", "232 0x7 0x100 0x10 0xffffffff 0x0 0x8 0x1 0x1")
    (proc.process / "fdinfo" / "7").write_text("pos:\t0\nflags:\t02000002\ntfd:        5 events:       19 data: 5\n")
    assert proc.serving({5}) is Doing.LOOP
    assert proc.serving({6}) is Doing.BUSY


@pytest.mark.parametrize(
    ("line", "want"),
    [
        ("running", Doing.BUSY),
        ("43 0x5 0x0 0x0 0x0 0x0 0x0 0x1 0x1", Doing.IDLE),
        ("230 0x0 0x0 0x100 0x0 0x0 0x0 0x1 0x1", Doing.BUSY),
        ("0 0x6 0x100 0x10 0x0 0x0 0x0 0x1 0x1", Doing.BUSY),
        ("-1 0x1 0x1", Doing.BUSY),
    ],
    ids=["running", "accept", "nanosleep", "read", "page-fault"],
)
def test_other_calls_of_a_worker(proc: FakeProc, line: str, want: Doing) -> None:
    proc.write("syscall", line)
    assert proc.serving({5}) is want


@pytest.mark.parametrize(
    ("symbol", "state", "want"),
    [
        ("poll_schedule_timeout.constprop.0", "S", Doing.IDLE),
        ("do_select", "S", Doing.IDLE),
        ("inet_csk_accept", "S", Doing.IDLE),
        ("ep_poll", "S", Doing.LOOP),
        ("hrtimer_nanosleep", "S", Doing.BUSY),
        ("unix_stream_data_wait", "S", Doing.BUSY),
        ("0", "R", Doing.BUSY),
        ("0", "S", Doing.UNKNOWN),
        ("0", "Z", Doing.GONE),
    ],
)
def test_without_the_right_to_trace_the_wait_channel_speaks(proc: FakeProc, symbol: str, state: str, want: Doing) -> None:
    proc.write("wchan", symbol)  # and no "syscall" at all
    proc.write("stat", f"7 (python3) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0")
    assert proc.serving({5}) is want


def test_a_machine_without_a_table_falls_back_too(proc: FakeProc) -> None:
    proc.write("syscall", "running")
    proc.write("wchan", "inet_csk_accept")
    view = CallView(proc.root, 7, machine="riscv64")
    assert serving(view, frozenset({5})) is Doing.IDLE
    view.close()


def test_a_process_that_is_not_there_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ProcessLookupError):
        CallView(tmp_path, 7)


# --- accept queues ---------------------------------------------------------------------------------------------------------------


def connect(address: tuple[str, int] | str, family: int) -> socket.socket:
    client = socket.socket(family)
    client.connect(address)
    return client


@pytest.fixture
def accept() -> Iterator[AcceptQueue]:
    queue = AcceptQueue(PROC, os.getpid())
    yield queue
    queue.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX], ids=["v4", "v6", "unix"])
def test_connections_that_nobody_has_accepted_are_counted(accept: AcceptQueue, family: int, tmp_path: Path) -> None:
    with socket.socket(family) as listener:
        listener.bind(
            str(tmp_path / "socket") if family == socket.AF_UNIX else ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0)
        )
        listener.listen(16)
        accept.refresh()
        assert listener.fileno() in accept.descriptors
        assert accept.waiting() == 0
        clients = [connect(listener.getsockname(), family) for _ in range(3)]
        assert accept.waiting() == 3
        listener.accept()[0].close()
        assert accept.waiting() == 2
        for client in clients:
            client.close()


def test_a_process_that_does_not_listen_has_an_unknown_queue() -> None:
    process = subprocess.Popen(["sleep", "1000"])
    try:
        accept = AcceptQueue(PROC, process.pid)
        assert accept.descriptors == frozenset()
        assert accept.waiting() is None
        accept.close()
    finally:
        process.kill()
        process.wait()


def test_connections_of_others_do_not_count(accept: AcceptQueue) -> None:
    code = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(1000)"
    )
    stranger = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
    try:
        assert stranger.stdout is not None
        with connect(("127.0.0.1", int(stranger.stdout.readline())), socket.AF_INET), socket.create_server(("127.0.0.1", 0)):
            accept.refresh()
            assert accept.waiting() == 0
            theirs = AcceptQueue(PROC, stranger.pid)
            assert theirs.waiting() == 1
            theirs.close()
    finally:
        stranger.kill()
        stranger.communicate()


ELSEWHERE = """
import fcntl, socket, struct, sys, time
with socket.socket() as control:  # bring up the new namespace's loopback
    fcntl.ioctl(control, 0x8914, struct.pack("16sh22x", b"lo", 1 | 64))
listener = socket.create_server(("127.0.0.1", 0))
gone = [socket.create_connection(listener.getsockname()) for _ in range(3)]
for client in gone:
    listener.accept()
waiting = [socket.create_connection(listener.getsockname()) for _ in range(2)]
print("up", flush=True)
time.sleep(1000)
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_a_master_in_another_network_namespace_is_read_through_its_own_tables() -> None:
    process = subprocess.Popen(["unshare", "--net", sys.executable, "-S", "-c", ELSEWHERE], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        accept = AcceptQueue(PROC, process.pid)
        assert accept.waiting() == 2
        assert len(accept.descriptors) == 1
        accept.close()
    finally:
        process.kill()
        process.communicate()


# --- who is who ------------------------------------------------------------------------------------------------------------------

MASTER = """
import os, signal, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
for _ in range(2):
    if os.fork() == 0:
        signal.pause()
other = os.fork()
if other == 0:
    os.execvp("sleep", ["sleep", "1000"])
heir = os.fork()
if heir == 0:
    os.environ["GUNICORN_PID"] = str(os.getppid())
    os.execv(sys.executable, [sys.executable, "-S", *sys.argv, "heir"])
if "heir" not in sys.argv:
    time.sleep(0.3)
    open(sys.argv[1], "w").write(f"{other} {heir}")
try:
    signal.pause()
finally:
    os._exit(0)
"""


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """(a process that looks like a gunicorn master, its child that is another program, its successor)."""
    script = tmp_path / "gunicorn"
    script.write_text(MASTER.replace("heir = os.fork()", "heir = os.fork() if 'heir' not in sys.argv else -1"))
    told = tmp_path / "told"
    process = subprocess.Popen([sys.executable, "-S", str(script), str(told)], start_new_session=True)
    wait_until(told)
    deadline = time.monotonic() + 5
    while not (text := told.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    other, heir = map(int, text.split())
    yield process, other, heir
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def gunicorn(folder: Path, text: str) -> PoolConfig:
    (folder / "pid").write_text(text)
    return PoolConfig(kind="gunicorn", pidfile=str(folder / "pid"))


def look(config: PoolConfig, present: ProcId | None) -> ProcessHandle | str | None:
    return find(PROC, config, present, own_acts("web", config, SystemClock()))


def test_the_master_is_found_and_its_workers_told_from_its_other_children(
    family: tuple[subprocess.Popen[bytes], int, int], tmp_path: Path
) -> None:
    process, other, heir = family
    handle = look(gunicorn(tmp_path, f"{process.pid}\n"), None)
    assert not isinstance(handle, str | None)
    assert handle.id == identify(PROC, process.pid)
    assert look(gunicorn(tmp_path, str(process.pid)), handle.id) is None, "the one that we have is no news"
    handle.close()
    workers = [pid for pid in children_of(process.pid) if is_worker(PROC, pid, process.pid)]
    assert len(workers) == 2
    assert not {other, heir} & set(workers)
    text = look(gunicorn(tmp_path, str(workers[0])), None)
    assert isinstance(text, str)
    assert text.endswith(f"which is a worker: give the pid of its master, {process.pid}")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "holds '', which is no pid"),
        ("many\n", "holds 'many'"),
        ("-5", "holds '-5'"),
        ("1", "holds '1'"),
        ("9" * 30, "which is no pid"),
    ],
)
def test_a_pid_file_without_a_pid_is_said(tmp_path: Path, content: str, cause: str) -> None:
    text = look(gunicorn(tmp_path, content), None)
    assert isinstance(text, str)
    assert cause in text
    assert "correct pidfile" in text


def test_a_missing_and_a_stale_pid_file_are_said(tmp_path: Path) -> None:
    text = look(PoolConfig(kind="gunicorn", pidfile=str(tmp_path / "none")), None)
    assert text == f"pid file {tmp_path}/none does not exist: start gunicorn with --pid {tmp_path}/none, or correct pidfile"
    process = subprocess.Popen(["true"])
    process.wait()
    text = look(gunicorn(tmp_path, str(process.pid)), None)
    assert isinstance(text, str)
    assert "it is stale; start gunicorn" in text


@pytest.mark.parametrize("program", ["sleep 1000", "sh -c 'sleep 1000; : gunicorn'", "tail -f /dev/null gunicorn", "gunicorn 1000"])
def test_what_only_mentions_gunicorn_is_a_stranger(tmp_path: Path, program: str) -> None:
    (tmp_path / "gunicorn").symlink_to("/bin/sleep")
    command, environ = ["sh", "-c", f"exec {program}"], {"PATH": f"{os.environ['PATH']}:{tmp_path}"}
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, env=environ, start_new_session=True)
    try:
        deadline = time.monotonic() + 5
        while b"exec" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline
        text = look(gunicorn(tmp_path, str(process.pid)), None)
        assert isinstance(text, str)
        assert "no signal is sent to it" in text
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# --- signals ---------------------------------------------------------------------------------------------------------------------


def test_a_handle_is_only_given_for_the_expected_process() -> None:
    process = subprocess.Popen(["sleep", "1000"])
    try:
        found = identify(PROC, process.pid)
        assert found is not None
        assert open_process(PROC, process.pid, ProcId(found.pid, found.start_ticks + 1)) is None
        handle = open_process(PROC, process.pid, found)
        assert handle is not None
        assert not handle.exited()
        process.kill()
        process.wait(10)
        assert handle.exited()
        handle.close()
    finally:
        process.kill()
        process.wait()


def test_a_zombie_is_nobody() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert identify(PROC, process.pid) is None
    assert open_process(PROC, process.pid) is None
    process.wait()
