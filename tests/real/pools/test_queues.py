"""Waiting work is counted from files, a command or a Redis list, without ever waiting for any of them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nicety.scheduler.config.sections import PoolConfig, Queue
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.pools.command.queues.choose import counter
from nicety.scheduler.pools.command.queues.files import FileCounter
from nicety.scheduler.pools.command.queues.frameworks import IN_REDIS
from nicety.scheduler.pools.command.queues.programs import CommandCounter, SqlCounter
from nicety.scheduler.pools.command.queues.rabbitmq import RabbitCounter
from nicety.scheduler.pools.command.queues.redis import RedisCounter
from nicety.scheduler.pools.command.queues.waiting import Count, Counter, CountError, WaitingWork
from nicety.scheduler.pools.sensing.acts import Child
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.clock import FakeClock

SECOND = 1_000_000_000


def counts(command: list[str]) -> Callable[[], Child]:
    """What starts a command that counts."""
    config = PoolConfig(kind="command", command=["true"], queue=Queue(command=command))
    return own_acts("jobs", config, SystemClock()).count


def counting_in(**queue: Any) -> Counter:
    """The counter of a queue that no program counts."""
    return counter(Queue(**queue), counts([]), SystemClock(), {})


def answer(counting: Counter, seconds: float = 5.0) -> int:
    """The count, by as many steps as it takes; no step may take long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        count = counting.step(time.monotonic_ns())
        if count is not None:
            return count.waiting
        time.sleep(0.002)
    raise AssertionError("no answer")


# --- files ---------------------------------------------------------------------------------------------------------------------


def test_files_that_match_are_counted_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a.job", "b.job", "c.tmp", ".hidden.job"):
        (tmp_path / name).touch()
    (tmp_path / "folder.job").mkdir()
    assert FileCounter(str(tmp_path / "*.job")).step(0) == Count(2)
    (tmp_path / "a.job").unlink()
    assert FileCounter(str(tmp_path / "*.job")).step(0) == Count(1)


def test_wildcards_in_folders_match_each_folder(tmp_path: Path) -> None:
    for folder in ("q1", "q2", "other"):
        (tmp_path / folder / "new").mkdir(parents=True)
        (tmp_path / folder / "new" / "job").touch()
    (tmp_path / "q3").mkdir()  # without "new": not an error
    assert FileCounter(str(tmp_path / "q*" / "new" / "*")).step(0) == Count(2)
    assert FileCounter(str(tmp_path / "q[12]" / "new" / "jo?")).step(0) == Count(2)


def test_a_missing_folder_is_said_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(CountError, match=r"No such file or directory; create it, or correct queue\.files"):
        FileCounter(str(tmp_path / "nowhere" / "*")).step(0)


def test_a_huge_spool_costs_a_bounded_look(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / str(n)).touch()
    assert FileCounter(str(tmp_path / "*"), limit=25).step(0) == Count(25)
    assert FileCounter(str(tmp_path / "*")).step(0) == Count(40)


# --- command -------------------------------------------------------------------------------------------------------------------


def test_a_commands_number_is_taken_and_no_step_waits_for_it() -> None:
    counting = CommandCounter(["sh", "-c", "sleep 0.3; echo 17"], counts(["sh", "-c", "sleep 0.3; echo 17"]))
    began = time.monotonic()
    assert counting.step(time.monotonic_ns()) is None
    assert time.monotonic() - began < 0.25, "the first step waited for the command"
    assert answer(counting) == 17
    assert answer(counting) == 17, "it can be asked again"


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("echo many", "'many': it must print one whole number"),
        ("echo -3", "'-3': it must print"),
        ("true", "'': it must print"),
        ("echo 5; exit 3", "ended with status 3"),
        ("yes", "did not answer within 4096 bytes"),
    ],
)
def test_an_answer_that_is_no_number_is_an_error_with_its_cause(script: str, cause: str) -> None:
    counting = CommandCounter(["sh", "-c", script], counts(["sh", "-c", script]))
    with pytest.raises(CountError, match=cause):
        answer(counting)
    counting.close()


def test_a_command_that_cannot_be_started_is_said() -> None:
    with pytest.raises(CountError, match=r"/no/such/program cannot be started: .*; correct queue\.command"):
        CommandCounter(["/no/such/program"], counts(["/no/such/program"])).step(0)


def test_a_command_that_hangs_is_killed_with_all_that_it_started() -> None:
    started: list[Child] = []
    command = ["sh", "-c", "sleep 1000 & wait"]

    def remember() -> Child:
        started.append(counts(command)())
        return started[-1]

    counting = CommandCounter(command, remember)
    now = time.monotonic_ns()
    assert counting.step(now) is None
    with pytest.raises(CountError, match="did not answer within 10 s"):
        counting.step(now + 11 * SECOND)
    assert started[0].poll() == -signal.SIGKILL


# --- redis ---------------------------------------------------------------------------------------------------------------------


class FakeRedis:
    """Speaks enough RESP to be asked for LLEN, on a port or a unix socket."""

    def __init__(self, address: str | tuple[str, int], password: bytes = b"") -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.bind(address)
        self.listener.listen()
        self.password = password
        self.lists = {b"queue": 3}
        self.commands: list[list[bytes]] = []
        self.connections: list[socket.socket] = []
        self.silent = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        trusted = not self.password
        with connection, connection.makefile("rb") as lines:
            while heading := lines.readline():
                words = []
                for _ in range(int(heading[1:])):
                    size = int(lines.readline()[1:])
                    words.append(lines.read(size + 2)[:-2])
                self.commands.append(words)
                if self.silent:
                    continue
                if words[0] == b"AUTH":
                    trusted = words[-1] == self.password
                    reply = b"+OK\r\n" if trusted else b"-WRONGPASS invalid username-password pair\r\n"
                elif not trusted:
                    reply = b"-NOAUTH Authentication required.\r\n"
                elif words[0] == b"SELECT":
                    reply = b"+OK\r\n"
                elif words[1] == b"text":
                    reply = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
                else:
                    reply = b":%d\r\n" % self.lists.get(words[1], 0)
                for piece in (reply[:2], reply[2:]):  # replies may come in pieces
                    try:
                        connection.sendall(piece)
                    except OSError:
                        return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@pytest.fixture
def redis() -> Iterator[FakeRedis]:
    server = FakeRedis(("127.0.0.1", 0))
    yield server
    server.close()


def test_a_lists_length_is_asked_over_one_kept_connection(redis: FakeRedis) -> None:
    counting = counting_in(redis_list=f"redis://127.0.0.1:{redis.port}/2/queue")
    assert answer(counting) == 3
    redis.lists[b"queue"] = 1234567
    assert answer(counting) == 1234567
    counting.close()
    assert redis.commands == [[b"SELECT", b"2"], [b"LLEN", b"queue"], [b"LLEN", b"queue"]]
    assert len(redis.connections) == 1


def test_user_password_and_key_of_the_url_are_decoded(redis: FakeRedis) -> None:
    redis.password = b"p@ss/word"
    redis.lists[b"a/b c"] = 8
    counting = counting_in(redis_list=f"redis://me:p%40ss%2Fword@127.0.0.1:{redis.port}/0/a%2Fb%20c")
    assert answer(counting) == 8
    counting.close()
    assert redis.commands[0] == [b"AUTH", b"me", b"p@ss/word"]


def test_a_unix_socket_is_asked_alike(tmp_path: Path) -> None:
    server = FakeRedis(str(tmp_path / "redis.sock"))
    counting = counting_in(redis_list=f"unix://{tmp_path}/redis.sock/0/queue")
    assert answer(counting) == 3
    counting.close()
    server.close()


def test_an_error_of_redis_is_told_without_the_password(redis: FakeRedis) -> None:
    redis.password = b"secret"
    with pytest.raises(CountError, match="WRONGPASS") as error:
        answer(counting_in(redis_list=f"redis://:guess@127.0.0.1:{redis.port}/0/queue"))
    assert "guess" not in str(error.value)
    redis.password = b""
    with pytest.raises(CountError, match="WRONGTYPE"):
        answer(counting_in(redis_list=f"redis://127.0.0.1:{redis.port}/0/text"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret/0/queue",  # the host was forgotten, and the password stands for the port
        "redis://:s3cret@[127.0.0.1/0/queue",
        "redis://:s3cret\u2100@127.0.0.1/0/queue",
        "redis://:s3cret/x@127.0.0.1/0/queue",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"host or port|slash") as error:
        counting_in(redis_list=url)
    assert "s3cret" not in str(error.value)


def test_a_silent_redis_times_out_and_no_step_waits_for_it(redis: FakeRedis) -> None:
    redis.silent = True
    counting = counting_in(redis_list=f"redis://127.0.0.1:{redis.port}/0/queue")
    now = time.monotonic_ns()
    began = time.monotonic()
    assert counting.step(now) is None
    assert counting.step(now + SECOND // 2) is None
    with pytest.raises(CountError, match="no answer within 1 s"):
        counting.step(now + 2 * SECOND)
    assert time.monotonic() - began < 0.5


def test_a_redis_that_is_not_there_is_said() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        counting = counting_in(redis_list=f"redis://127.0.0.1:{unused.getsockname()[1]}/0/queue")
        with pytest.raises(CountError, match="Connection refused; start it"):
            answer(counting)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/0/q",
        "redis://127.0.0.1/queue",
        "redis://127.0.0.1/x/queue",
        "redis://127.0.0.1/0/",
        "unix:///0/queue",
        "redis://h/0/a/b",
    ],
)
def test_a_url_without_database_or_key_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis|unix|slash"):
        counting_in(redis_list=url)


@contextlib.contextmanager
def a_redis(folder: Path, *options: str) -> Iterator[tuple[Path, socket.socket]]:
    """A real Redis: (its socket, a connection to it)."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine: the fake one speaks for it")
    path = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            yield path, client
    finally:
        server.terminate()
        server.wait(10)


def test_a_real_redis_agrees(tmp_path: Path) -> None:
    with a_redis(tmp_path) as (path, client):
        client.sendall(b"RPUSH queue a b c d\r\n")
        assert client.recv(100) == b":4\r\n"
        counting = counting_in(redis_list=f"unix://{path}/0/queue")
        assert answer(counting) == 4
        counting.close()


def test_a_real_redis_without_auth_quotes_the_password_and_nobody_sees_it(tmp_path: Path) -> None:
    with a_redis(tmp_path, "--rename-command", "AUTH", "") as (path, client):
        client.sendall(b"AUTH s3cret\r\n")
        assert b"s3cret" in client.recv(200), "this Redis quotes no arguments: the test shows nothing"
        counting = counting_in(redis_list=f"unix://:s3cret@{path}/0/queue")
        with pytest.raises(CountError, match="unknown command") as error:
            answer(counting)
        assert "s3cret" not in str(error.value)
        counting.close()


# --- timing --------------------------------------------------------------------------------------------------------------------


class Script:
    """A counter that answers what it is told."""

    def __init__(self, *answers: int | str | None) -> None:
        self.answers = list(answers)
        self.steps = 0

    def step(self, now: int) -> Count | None:
        self.steps += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, str):
            raise CountError(answer)
        return None if answer is None else Count(answer)

    def close(self) -> None:
        pass


def probing(clock: FakeClock, work: WaitingWork, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        work.probe()
        clock.advance(SECOND // 10)


def test_the_queue_is_counted_once_an_interval_however_often_it_is_probed() -> None:
    clock, script = FakeClock(monotonic=100 * SECOND), Script(4)
    work = WaitingWork("jobs", script, 2.0, clock)
    probing(clock, work, 10)
    assert script.steps == 5
    assert work.count() == Count(4)


def test_a_queue_that_cannot_be_counted_is_unknown_and_asked_ever_less_often() -> None:
    clock, script = FakeClock(monotonic=100 * SECOND), Script(4, "redis is down")
    work = WaitingWork("jobs", script, 1.0, clock)
    work.probe()
    assert (work.count(), work.problem) == (Count(4), "")
    clock.advance(SECOND)
    probing(clock, work, 63)
    assert (work.count(), work.problem) == (None, "redis is down")
    assert script.steps <= 8, "1, 2, 4, 8, 16, 30 s between the tries"


def test_a_queue_that_can_be_counted_again_is_known_again(caplog: pytest.LogCaptureFixture) -> None:
    clock, script = FakeClock(monotonic=100 * SECOND), Script("down", "down", 9)
    work = WaitingWork("jobs", script, 1.0, clock)
    probing(clock, work, 5)
    assert (work.count(), work.problem) == (Count(9), "")
    assert [record.getMessage() for record in caplog.records] == ["pool jobs: its queue cannot be counted: down"]


def test_an_old_count_is_no_count() -> None:
    clock, script = FakeClock(monotonic=100 * SECOND), Script(4, None)
    work = WaitingWork("jobs", script, 1.0, clock)
    work.probe()
    clock.advance(2 * SECOND)
    work.probe()
    assert work.count() == Count(4)
    clock.advance(60 * SECOND)
    assert work.count() is None


@pytest.mark.parametrize(
    ("queue", "kind"),
    [
        (Queue(files="/spool/*"), FileCounter),
        (Queue(command=["count"]), CommandCounter),
        *((msgspec.structs.replace(Queue(), **{key: "redis://127.0.0.1/0/q"}), RedisCounter) for key in IN_REDIS),
        (Queue(rabbitmq="amqp://127.0.0.1/%2F/q"), RabbitCounter),
        (Queue(sql="sqlite:////srv/q.db", sql_query="select 1"), SqlCounter),
    ],
)
def test_each_kind_of_queue_gets_its_counter(queue: Queue, kind: Callable[..., object]) -> None:
    assert type(counter(queue, counts([]), SystemClock(), {})) is kind
