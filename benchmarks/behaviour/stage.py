"""A stage on which a program is started, used and stopped: its directory, its processes, people who type, and clients.

Knows no class and no trace. Random values come from the stage's seed. Only loopback is used, and only processes started here are
ended.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import pwd
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from .. import ROOT

Request = Callable[[], object]
"""Sends one request on an open connection; returns when it has been answered."""

Connect = Callable[[], Request]

TERMINAL_SHARE = 0.4
"""Share of the programs that need no terminal but run in the foreground of one, as people also do it. Chosen: a terminal must not
reveal the class."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games"
_GRACE = 3.0  # seconds between SIGTERM and SIGKILL


class Stage:
    """One performance of one program. The first call of `start`, `keep` or `type` waits until the recording has begun."""

    def __init__(self, directory: Path, inputs: Path, seed: int, begin: Callable[[], None]) -> None:
        """`begin` returns when the program may start. Everything before that is preparation and is not recorded."""
        self.directory = directory
        self.inputs = inputs
        self.rng = random.Random(seed)
        self.over = threading.Event()
        self.terminal = self.rng.random() < TERMINAL_SHARE
        self._begin: Callable[[], None] | None = begin
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._user = os.geteuid()

    # --- files and ports ------------------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> Path:
        """Write a file in the directory; `{dir}` in `text` becomes the directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{dir}", str(self.directory)))
        path.chmod(0o755)
        return path

    def folder(self, name: str) -> Path:
        """A folder in the directory."""
        path = self.directory / name
        path.mkdir(exist_ok=True)
        return path

    def give_to(self, user: str) -> tuple[str, ...]:
        """Give the directory to `user`; returns the words that run a command as that user. Does nothing unless we are root."""
        if self._user != 0:
            return ()
        entry = pwd.getpwnam(user)
        for path in (self.directory, *self.directory.rglob("*")):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        return ("setpriv", f"--reuid={user}", f"--regid={entry.pw_gid}", "--clear-groups")

    @staticmethod
    def port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
        """A port that is free now."""
        with socket.socket(socket.AF_INET, kind) as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])

    # --- processes ------------------------------------------------------------------------------------------------------------

    def prepare(self, *argv: str | Path) -> None:
        """Run a command to its end before the recording begins."""
        subprocess.run(
            [str(word) for word in argv],
            check=True,
            cwd=self.directory,
            env=self._environment(None),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=120,
        )

    def start(
        self, *argv: str | Path, terminal: bool | None = None, pipe: bool = False, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program in its own session. `terminal`: in the foreground of one; None: at random. `pipe`: with a pipe as
        stdin."""
        self._await_begin()
        on_terminal = self.terminal if terminal is None else terminal
        if on_terminal and not pipe:
            process, master = self._on_terminal(argv, env)
            threading.Thread(target=_drain, args=(master,), daemon=True).start()
            return process
        process = subprocess.Popen(
            [str(word) for word in argv],
            cwd=self.directory,
            env=self._environment(env),
            stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            start_new_session=True,
        )
        self._track(process)
        return process

    def backend(self, kind: str = "http") -> int:
        """Start a small server for proxies, in its own process; its port."""
        port = self.port()
        command = [sys.executable, "-m", "benchmarks.behaviour.programs", "backend", kind, str(port)]
        self._track(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True))
        return port

    def keep(self, *commands: str, pause: float = 0.0, env: Mapping[str, str] | None = None) -> None:
        """Run shell commands in random order, one after the other, until the end, as batch work does.

        `{in}` is the folder of inputs, `{dir}` the directory, `{n}` a number that changes. The command takes the shell's place.
        """

        def work() -> None:
            rng = random.Random(self.rng.random())
            number, quick = 0, 0
            while not self.over.is_set():
                words = {"in": str(self.inputs), "dir": str(self.directory), "n": str(number % 4)}
                command = rng.choice(commands)
                for word, value in words.items():
                    command = command.replace("{" + word + "}", value)
                began = time.monotonic()
                process = self.start("/bin/sh", "-c", f"exec {command}", env=env)
                code = process.wait()
                with self._lock:
                    self._processes.remove(process)
                if code > 0 and not self.over.is_set():
                    print(f"exit {code}: {command}", file=sys.stderr, flush=True)
                number, quick = number + 1, (quick + 1 if code > 0 and time.monotonic() - began < 0.5 else 0)
                if quick > 3:
                    return
                self.over.wait(pause)

        self._await_begin()
        threading.Thread(target=work, daemon=True).start()

    def type(self, *argv: str | Path, phrases: Sequence[str], wait: float = 1.0) -> None:
        """Start a program on a terminal and type phrases into it, in random order, as fast as people do."""
        self._await_begin()
        _, master = self._on_terminal(argv, None)
        rng = random.Random(self.rng.random())
        pace = rng.uniform(0.07, 0.25)  # seconds between keys: 40 to 140 words a minute
        threading.Thread(target=_drain, args=(master,), daemon=True).start()

        def person() -> None:
            self.over.wait(wait)
            while not self.over.is_set():
                for key in _keys(rng.choice(phrases)):
                    try:
                        os.write(master, key.encode())
                    except OSError:
                        return
                    if self.over.wait(max(0.02, rng.gauss(pace, pace / 3))):
                        return
                self.over.wait(rng.choice((0.2, 0.5, 1.0, 2.5)))

        threading.Thread(target=person, daemon=True).start()

    def load(self, connect: Connect, low: float, high: float, clients: int | None = None) -> None:
        """Send requests at a random rate between `low` and `high` a second, in a random pattern. A client waits for each answer."""
        count = clients or self.rng.choice((1, 1, 2, 4, 8))
        rate = low * (high / low) ** self.rng.random() / count
        pattern = self.rng.choice(("even", "even", "bursts", "waves"))
        phase = self.rng.random()
        for _ in range(count):
            rng = random.Random(self.rng.random())
            threading.Thread(target=self._client, args=(connect, rate, pattern, phase, rng), daemon=True).start()

    def _client(self, connect: Connect, rate: float, pattern: str, phase: float, rng: random.Random) -> None:
        request: Request | None = None
        complained = False
        due = time.monotonic()
        while not self.over.is_set():
            try:
                if request is None:
                    request = connect()
                request()
            except (OSError, EOFError, ValueError) as error:
                request = None
                if not complained and time.monotonic() - due > 8:
                    print(f"client: {error!r}", file=sys.stderr, flush=True)
                    complained = True
                self.over.wait(0.3)
                due = max(due, time.monotonic() - 8)
                continue
            now = time.monotonic()
            place = (now / 4 + phase) % 1
            factor = {"even": 1.0, "bursts": 1.9 if place < 0.5 else 0.1, "waves": 0.2 + 1.6 * abs(2 * place - 1)}[pattern]
            due = max(due + rng.expovariate(rate * factor), now - 0.2)
            self.over.wait(max(0.0, due - now))

    def close(self) -> None:
        """End everything: SIGTERM to the started processes, then SIGKILL to their sessions."""
        self.over.set()
        with self._lock:
            processes = list(self._processes)
        for process in reversed(processes):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + _GRACE
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
        for process in processes:
            if process.poll() is None:  # not reaped yet, so that the number is still its own
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except OSError as error:
                    if error.errno != errno.ESRCH:
                        process.kill()
                process.wait()

    def _await_begin(self) -> None:
        with self._lock:
            begin, self._begin = self._begin, None
        if begin is not None:
            begin()

    def _track(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.append(process)

    def _on_terminal(self, argv: Iterable[str | Path], env: Mapping[str, str] | None) -> tuple[subprocess.Popen[bytes], int]:
        """(process in the foreground of a new terminal, the terminal's other end). setsid(1) makes the terminal its own."""
        master, slave = pty.openpty()
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        process = subprocess.Popen(
            ["setsid", "--ctty", *(str(word) for word in argv)],
            cwd=self.directory,
            env=self._environment(env),
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._track(process)
        return process, master

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        home = str(self.directory)
        return {
            "PATH": PATH,
            "HOME": home,
            "TERM": "xterm",
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": home,
            "TMPDIR": home,
            **(more or {}),
        }


def _drain(master: int) -> None:
    try:
        while os.read(master, 65536):
            pass
    except OSError:
        pass


def _keys(phrase: str) -> Iterable[str]:
    """Key presses of a phrase: an escape sequence is one."""
    at = 0
    while at < len(phrase):
        size = 3 if phrase.startswith("\x1b[", at) else 1
        yield phrase[at : at + size]
        at += size


# --- clients --------------------------------------------------------------------------------------------------------------------


def tcp(port: int, *, tls: bool = False) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not tls:
        return connection
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def until(connection: socket.socket, done: Callable[[bytes], bool]) -> bytes:
    """Read until `done` is true of the data. Raises EOFError if the other end closes before."""
    data = b""
    while not done(data):
        more = connection.recv(1 << 18)
        if not more:
            raise EOFError("closed before the answer was complete")
        data += more
    return data


def talk(
    port: int, exchanges: Sequence[tuple[bytes, bytes]], greeting: bytes = b"", hello: tuple[bytes, bytes] | None = None
) -> Connect:
    """A text protocol: send the first text, then read until the second one has come.

    `greeting`: sent by the server first. `hello`: sent once on each connection; {id} in it becomes a number of the connection.
    """

    def connect() -> Request:
        connection, rng = tcp(port), random.Random(port)
        if greeting:
            until(connection, lambda data: greeting in data)
        if hello:
            connection.sendall(hello[0].replace(b"{id}", b"%d" % connection.getsockname()[1]))
            until(connection, lambda data: hello[1] in data)

        def request() -> None:
            text, answer = rng.choice(exchanges)
            connection.sendall(text)
            until(connection, lambda data: answer in data[-4096:])

        return request

    return connect


def ask(port: int, payloads: Sequence[bytes]) -> Connect:
    """A protocol of datagrams, each of which gets one datagram as answer."""

    def connect() -> Request:
        connection, rng = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), random.Random(port)
        connection.settimeout(1)
        connection.connect(("127.0.0.1", port))

        def request() -> None:
            connection.send(rng.choice(payloads))
            connection.recv(65536)

        return request

    return connect


def http(
    port: int, *targets: str, keep: bool = True, body: bytes | None = None, tls: bool = False, host: str = "localhost"
) -> Connect:
    """GET a random one of the targets, or POST `body` to it. `keep`: over one connection, otherwise each over a new one."""
    head = "" if keep else "Connection: close\r\n"
    length = "" if body is None else f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n"
    method = "GET" if body is None else "POST"
    texts = [f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{head}{length}\r\n".encode() + (body or b"") for target in targets]

    def connect() -> Request:
        connection = tcp(port, tls=tls) if keep else None
        rng = random.Random(port)

        def request() -> None:
            mine = connection or tcp(port, tls=tls)
            mine.sendall(rng.choice(texts))
            _read_answer(mine)
            if connection is None:
                mine.close()

        return request

    return connect


def _read_answer(connection: socket.socket) -> None:
    data = until(connection, lambda data: b"\r\n\r\n" in data)
    head, _, rest = data.partition(b"\r\n\r\n")
    lower = head.lower()
    if b"content-length:" in lower:
        wanted = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        until_size = wanted - len(rest)
        while until_size > 0:
            more = connection.recv(1 << 18)
            if not more:
                raise EOFError("closed within an answer")
            until_size -= len(more)
    elif b"chunked" in lower:
        if not rest.endswith(b"0\r\n\r\n"):
            until(connection, lambda more: more.endswith(b"0\r\n\r\n"))
    else:
        while connection.recv(1 << 18):
            pass


def dns(name: str) -> bytes:
    """A query for an address."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"


def fastcgi(port: int, script: str) -> Connect:
    """A FastCGI responder that runs `script`; a connection for each request (the specification, sections 3 and 6)."""

    def record(kind: int, content: bytes) -> bytes:
        return struct.pack(">BBHHBB", 1, kind, 1, len(content), 0, 0) + content

    pairs = {"SCRIPT_FILENAME": script, "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "QUERY_STRING": ""}
    params = b"".join(bytes([len(key), len(value)]) + key.encode() + value.encode() for key, value in pairs.items())
    text = record(1, b"\0\1\0\0\0\0\0\0") + record(4, params) + record(4, b"") + record(5, b"")

    def connect() -> Request:
        def request() -> None:
            with tcp(port) as connection:
                connection.sendall(text)
                while connection.recv(65536):
                    pass

        return request

    return connect


def mqtt(port: int) -> Connect:
    """Publishes with quality of service 1 to a topic that it has subscribed to (MQTT 3.1.1)."""

    def connect() -> Request:
        connection, rng = tcp(port), random.Random()
        name = f"c{rng.randrange(10**6)}".encode()
        body = b"\0\4MQTT\4\2\0\x3c" + struct.pack(">H", len(name)) + name
        connection.sendall(bytes([0x10, len(body)]) + body)
        until(connection, lambda data: len(data) >= 4)
        connection.sendall(bytes([0x82, 8]) + b"\0\1\0\3a/b\0")
        until(connection, lambda data: b"\x90\x03" in data)

        def request() -> None:
            payload = b"x" * rng.choice((10, 40, 90))
            body = b"\0\3a/b\0\7" + payload
            connection.sendall(bytes([0x32, len(body)]) + body)
            until(connection, lambda data: b"\x40\x02\0\7" in data)

        return request

    return connect
