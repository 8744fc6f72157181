"""The control socket: who may ask, and that nobody can hold the daemon up."""

from __future__ import annotations

import grp
import json
import os
import select
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicety.scheduler.service.answers.control_socket import (
    CLIENT_LIMIT,
    CLIENT_SECONDS,
    REQUEST_LIMIT,
    ControlError,
    ControlSocket,
    NoDaemonError,
    ask,
)

GROUP = next(group for group in grp.getgrall() if group.gr_gid not in (0, 65534))


class Hand:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0

    def monotonic(self) -> int:
        return self.now

    def wall(self) -> int:
        return self.now

    def sleep_until(self, at: int) -> None:
        self.now = max(self.now, at)


def refuse(_request: dict[str, Any]) -> dict[str, Any]:
    raise ControlError("there is nothing to undo; look at `nicety status`")


HANDLERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "status": lambda request: {"mode": "observe", "asked": request},
    "pause": lambda request: {"paused": request.get("seconds")},
    "undo": refuse,
}


class Daemon:
    """Serves in a thread, the way the control loop does: call after call."""

    def __init__(self, path: Path, group: str = "") -> None:
        self.clock = Hand()
        self.socket = ControlSocket(path, HANDLERS, group, clock=self.clock)
        self.calls = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.socket.serve(0.01)
            self.calls += 1

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.socket.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path / "control.sock")
    yield running
    running.close()


def connect(path: Path) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(str(path))  # blocking: waits while the queue of connections is full
    channel.settimeout(5)
    return channel


def ask_as(server: ControlSocket, verb: str, uid: int, groups: list[int]) -> dict[str, Any]:
    """The answer that another user gets: a child takes his place, this process serves."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
            try:
                answer = {"ok": True, **ask(server.path, verb)}
            except ControlError as error:
                answer = {"ok": False, "error": str(error)}
            os.write(writing, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + 10
    while not select.select([reading], [], [], 0)[0] and time.monotonic() < deadline:
        server.serve(0.01)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    answer = json.loads(data)
    assert isinstance(answer, dict)
    return answer


def serve_for(server: ControlSocket, calls: int) -> None:
    for _ in range(calls):
        server.serve(0.01)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that other users can reach but not write; pytest's own are 0700 all the way up."""
    with tempfile.TemporaryDirectory(prefix="nicety-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_an_answer_carries_what_the_handler_gave_and_the_arguments_reach_it(daemon: Daemon) -> None:
    assert ask(daemon.socket.path, "status", seconds=3) == {"mode": "observe", "asked": {"seconds": 3}}
    assert ask(daemon.socket.path, "pause", seconds=60) == {"paused": 60}


def test_a_refusal_of_the_daemon_is_an_error_with_its_words(daemon: Daemon) -> None:
    with pytest.raises(ControlError, match="nothing to undo"):
        ask(daemon.socket.path, "undo")


def test_an_unknown_verb_is_told_the_known_ones(daemon: Daemon) -> None:
    with pytest.raises(ControlError, match=r"unknown verb; known: pause, status, undo"):
        ask(daemon.socket.path, "reboot")


def test_the_socket_is_for_the_owner_alone(daemon: Daemon) -> None:
    assert stat.S_IMODE(daemon.socket.path.stat().st_mode) == 0o600
    assert [path.name for path in daemon.socket.path.parent.iterdir()] == ["control.sock"]


def test_without_a_daemon_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(NoDaemonError, match="nicety run"):
        ask(tmp_path / "control.sock", "status")


def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    daemon = Daemon(path)
    try:
        assert ask(path, "status")["mode"] == "observe"
    finally:
        daemon.close()
    assert not path.exists()


def test_the_socket_of_a_living_daemon_is_not_taken(daemon: Daemon) -> None:
    with pytest.raises(ControlError, match="another daemon listens there"):
        ControlSocket(daemon.socket.path, HANDLERS, "", clock=Hand())
    assert ask(daemon.socket.path, "status")["mode"] == "observe"


def test_closing_leaves_a_socket_that_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    mine = ControlSocket(path, HANDLERS, "", clock=Hand())
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        mine.close()
        assert path.is_socket()


def test_a_file_or_link_in_the_place_is_neither_followed_nor_removed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("data")
    (tmp_path / "control.sock").symlink_to(target)
    with pytest.raises(ControlError, match="a file that is not a socket is there"):
        ControlSocket(tmp_path / "control.sock", HANDLERS, "", clock=Hand())
    assert target.read_text() == "data"


def test_a_directory_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(ControlError, match="others may write"):
        ControlSocket(place / "control.sock", HANDLERS, "", clock=Hand())


@pytest.mark.parametrize(
    ("path", "group", "cause"), [("a" * 120, "", "too long"), ("no/s", "", "No such file"), ("s", "nobodies", "no group")]
)
def test_an_unusable_place_or_group_is_named(tmp_path: Path, path: str, group: str, cause: str) -> None:
    with pytest.raises(ControlError, match=cause):
        ControlSocket(tmp_path / path, HANDLERS, group, clock=Hand())


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"nonsense\n",
        b"[1, 2]\n",
        b'"status"\n',
        b'{"verb": 7}\n',
        b'{"verb": ["status"]}\n',
        b"[" * 4000 + b"\n",
        b"\xff\xfe\n",
        b"x" * 9000,
    ],
)
def test_a_malformed_request_gets_an_error_and_harms_nobody(daemon: Daemon, line: bytes) -> None:
    with connect(daemon.socket.path) as channel:
        channel.sendall(line)
        answer = json.loads(channel.recv(65536))
    assert answer["ok"] is False
    assert ask(daemon.socket.path, "status")["mode"] == "observe"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_no_bytes_stop_the_daemon(daemon: Daemon, data: bytes) -> None:
    with connect(daemon.socket.path) as channel:
        channel.sendall(data + b"\n")
        assert json.loads(channel.recv(65536))["ok"] in (True, False)


def test_a_request_may_arrive_in_pieces(daemon: Daemon) -> None:
    with connect(daemon.socket.path) as channel:
        for byte in b'{"verb": "status"}\n':
            channel.sendall(bytes([byte]))
        assert json.loads(channel.recv(65536))["ok"] is True


def test_two_hundred_slow_clients_do_not_keep_an_honest_one_out(daemon: Daemon) -> None:
    slow = []
    try:
        for _ in range(200):
            channel = connect(daemon.socket.path)
            slow.append(channel)
            try:
                channel.send(b'{"verb"')
            except ConnectionError:
                pass  # made room for a later one already
        before = daemon.calls
        began = time.monotonic()
        assert ask(daemon.socket.path, "status")["mode"] == "observe"
        assert time.monotonic() - began < 1
        assert daemon.calls >= before
        assert len(daemon.socket._clients) <= CLIENT_LIMIT
    finally:
        for channel in slow:
            channel.close()


def test_a_client_that_says_nothing_is_dropped_after_its_time(daemon: Daemon) -> None:
    with connect(daemon.socket.path) as channel:
        deadline = time.monotonic() + 5
        while not daemon.socket._clients and time.monotonic() < deadline:
            time.sleep(0.005)
        daemon.clock.now = int(CLIENT_SECONDS * 1e9) + 1
        assert channel.recv(10) == b""


def test_a_client_that_reads_nothing_is_dropped_and_blocks_nobody(tmp_path: Path) -> None:
    big = {"status": lambda _request: {"text": "x" * 4_000_000}}
    clock = Hand()
    server = ControlSocket(tmp_path / "s", big, "", clock=clock)
    try:
        with connect(tmp_path / "s") as channel:
            channel.sendall(b'{"verb": "status"}\n')
            for _ in range(5):
                server.serve(0)
            assert len(server._clients) == 1
            clock.now = int(CLIENT_SECONDS * 1e9)
            server.serve(0)
            assert not server._clients
    finally:
        server.close()


def test_a_request_that_may_not_be_answered_yet_is_answered_later_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    clock = Hand()
    server = ControlSocket(tmp_path / "s", HANDLERS, "", clock=clock)
    try:
        with connect(tmp_path / "s") as first, connect(tmp_path / "s") as second, connect(tmp_path / "s") as third:
            first.sendall(b'{"verb": "pause", "seconds": 7}\n')
            second.sendall(b'{"verb": "status"}\n')
            for _ in range(5):
                server.serve(0, {"status"})
            assert json.loads(second.recv(1000))["mode"] == "observe"
            first.setblocking(False)
            with pytest.raises(BlockingIOError):
                first.recv(1000)
            clock.now = int(CLIENT_SECONDS * 1e9)  # however long it had to wait: that is none of its fault
            server.serve(0, {"status"})
            server.serve(60)  # at once, whoever else has nothing to say
            assert json.loads(first.recv(1000)) == {"ok": True, "paused": 7}
            assert third.recv(1000) == b""
        assert not server._clients
    finally:
        server.close()


def test_one_that_leaves_while_it_waits_is_let_go(tmp_path: Path) -> None:
    calls: list[int] = []

    def undo(_request: dict[str, Any]) -> dict[str, Any]:
        calls.append(1)
        return {}

    server = ControlSocket(tmp_path / "s", {"undo": undo}, "", clock=Hand())
    try:
        with connect(tmp_path / "s") as channel:
            channel.sendall(b'{"verb": "undo"}\n')
            for _ in range(3):
                server.serve(0, ())
        server.serve(0, ())
        server.serve(0)
        assert calls == [1], "it asked, and is obeyed though it did not wait for the answer"
        assert not server._clients
    finally:
        server.close()


def test_a_long_answer_arrives_whole(tmp_path: Path) -> None:
    server = ControlSocket(tmp_path / "s", {"status": lambda _request: {"text": "x" * 4_000_000}}, "", clock=Hand())
    answers: list[dict[str, Any]] = []
    client = threading.Thread(target=lambda: answers.append(ask(tmp_path / "s", "status")))
    client.start()
    deadline = time.monotonic() + 10
    while not answers and time.monotonic() < deadline:
        server.serve(0.01)
    client.join()
    server.close()
    assert len(answers[0]["text"]) == 4_000_000


def test_a_fault_in_a_handler_reaches_the_loop_and_the_client_hears_of_it(tmp_path: Path) -> None:
    def broken(_request: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError

    server = ControlSocket(tmp_path / "s", {"status": broken}, "", clock=Hand())
    heard: list[str] = []

    def client() -> None:
        try:
            ask(tmp_path / "s", "status")
        except ControlError as error:
            heard.append(str(error))

    thread = threading.Thread(target=client)
    thread.start()
    with pytest.raises(ZeroDivisionError):
        serve_for(server, 500)
    thread.join()
    server.close()
    assert "without an answer" in heard[0]


def test_a_daemon_that_does_not_answer_is_an_error_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(ControlError, match=r"did not answer in 0\.1 s"):
            ask(tmp_path / "s", "status", 0.1)


def test_the_descriptor_tells_when_there_is_something_to_do(tmp_path: Path) -> None:
    server = ControlSocket(tmp_path / "s", HANDLERS, "", clock=Hand())
    assert select.select([server], [], [], 0)[0] == []
    with connect(tmp_path / "s"):
        assert select.select([server], [], [], 5)[0] == [server]
    server.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user needs root")
def test_a_stranger_is_refused_whatever_he_asks(open_place: Path) -> None:
    server = ControlSocket(open_place / "s", HANDLERS, "", clock=Hand())
    server.path.chmod(0o666)  # the file lets him connect; the kernel's word about him must not
    for verb in ("status", "pause", "undo"):
        answer = ask_as(server, verb, 65534, [])
        assert answer["ok"] is False
        assert "uid 65534 may not control" in answer["error"]
    assert ask_as(server, "status", 0, [])["mode"] == "observe"
    server.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user needs root")
@pytest.mark.parametrize(("uid", "groups"), [(65534, [GROUP.gr_gid]), (GROUP.gr_gid, [])])
def test_a_member_of_the_control_group_may_pause_and_not_undo(open_place: Path, uid: int, groups: list[int]) -> None:
    server = ControlSocket(open_place / "s", HANDLERS, GROUP.gr_name, clock=Hand())
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o660
    assert ask_as(server, "pause", uid, groups)["ok"] is True
    undone = ask_as(server, "undo", uid, groups)
    assert undone["ok"] is False
    assert "only for root" in undone["error"]
    assert "permission denied" in ask_as(server, "pause", 65534, [])["error"]
    server.close()


def test_a_request_over_the_limit_is_refused_though_it_ends_with_a_line(daemon: Daemon) -> None:
    with pytest.raises(ControlError, match="at most 4096 bytes"):
        ask(daemon.socket.path, "status", text="x" * REQUEST_LIMIT)
