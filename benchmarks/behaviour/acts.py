"""How programs are started and used on a `Stage`: servers with clients, programs that people type into, repeated batch work.

Each act takes a stage and returns when the program is in use. Knows no class and no trace.
"""

# ruff: noqa: E501 -- command lines and configurations read best in one line each

from __future__ import annotations

import ftplib
import imaplib
import json
import os
import shlex
import smtplib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .stage import Request, Stage, ask, dns, fastcgi, http, mqtt, talk

Act = Callable[[Stage], None]

PHP_PAGE = '<?php $h = "x"; for ($i = 0; $i < 4000; $i++) $h = md5($h); header("Content-Length: 32"); echo $h;\n'
"""A page that takes about a millisecond of CPU."""


# --- batch work and sleepers ----------------------------------------------------------------------------------------------------


def again(*commands: str, pause: float = 0.0, env: Mapping[str, str] | None = None) -> Act:
    """Shell commands, run again and again."""
    return lambda stage: stage.keep(*commands, pause=pause, env=env)


def script(name: str, text: str, command: str) -> Act:
    """One of our own scripts, run again whenever it ends."""

    def act(stage: Stage) -> None:
        stage.write(name, text)
        stage.keep(command)

    return act


def written(files: dict[str, str], *commands: str) -> Act:
    """Commands that run again and again on our own files."""

    def act(stage: Stage) -> None:
        for name, text in files.items():
            stage.write(name, text)
        stage.keep(*commands)

    return act


def stays(*argv: str, **files: str) -> Act:
    """A program that is started once and then only runs. `files` are written before; "_" in their names stands for "."."""

    def act(stage: Stage) -> None:
        for name, text in files.items():
            stage.write(name.replace("_", "."), text)
        stage.start(*(word.replace("{dir}", str(stage.directory)) for word in argv))

    return act


def growing(*argv: str, **files: str) -> Act:
    """Like `stays`, with a log file `log` to which lines are sometimes added."""

    def act(stage: Stage) -> None:
        log = stage.write("log", "begin\n")
        stays(*argv, **files)(stage)

        def lines() -> None:
            rate = stage.rng.choice((2.0, 10.0, 50.0))
            while not stage.over.wait(stage.rng.expovariate(rate)):
                with log.open("a") as out:
                    out.write("Jan  1 00:00:00 host app[12]: something has happened again, and it is written down here\n")

        threading.Thread(target=lines, daemon=True).start()

    return act


def job_queue(stage: Stage) -> None:
    """A worker that takes jobs from a spool directory in batches; more jobs come than it can do."""
    stage.write(
        "worker.py",
        """import hashlib, os, random, sys, time
spool = sys.argv[1]
while True:
    names = sorted(os.listdir(spool))
    if not names:
        time.sleep(0.2)
        continue
    for name in names:
        data = open(os.path.join(spool, name), "rb").read()
        for _ in range(random.randrange(20, 300)):
            data = hashlib.sha256(data).digest() * 100
        os.unlink(os.path.join(spool, name))
""",
    )
    spool = stage.folder("spool")
    stage.start("/usr/bin/python3", "worker.py", str(spool))

    def feed() -> None:
        number = 0
        while not stage.over.wait(0.5):
            for _ in range(40 if len(list(spool.iterdir())) < 400 else 0):
                number += 1
                (spool / f"job{number}.tmp").write_bytes(b"work" * 3000)

    threading.Thread(target=feed, daemon=True).start()


def database_queries(stage: Stage) -> None:
    stage.write("fill.sql", "CREATE TABLE t(a INTEGER, b REAL, c TEXT);\n" + _SQLITE_FILL)
    stage.prepare("sqlite3", "data.db", ".read fill.sql")
    stage.keep(
        "sqlite3 data.db 'SELECT b % 97 AS g, count(*), avg(a), max(c) FROM t GROUP BY g ORDER BY 2'",
        "sqlite3 data.db 'SELECT count(*) FROM t x JOIN t y ON x.a = y.a + 7 WHERE x.b > 500'",
    )


def with_metrics(name: str, text: str, *argv: str) -> Act:
    """Batch work that also serves its metrics on a port, which a client sometimes reads."""

    def act(stage: Stage) -> None:
        port = stage.port()
        stage.write(name, text.replace("{port}", str(port)))
        stage.start(*argv, name)
        stage.load(http(port, "/metrics", keep=False), 0.2, 1.0, clients=1)

    return act


_SQLITE_FILL = """INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000)
SELECT i, abs(random() % 100000) / 10.0, hex(randomblob(12)) FROM n;
"""


def compile_c(compiler: str, suffix: str) -> Act:
    """Sources compiled one after the other by make."""
    body = "\n".join(
        f"static double f{i}(double x, int n) {{ for (int k = 0; k < n; k++) x = x * {i}.5 + k / (x + {i}); "
        f"switch (n % 7) {{ case 1: return x; case 2: return x * 2; case 3: return x / 3; default: return n ? f{max(i - 1, 0)}(x, n - 1) : x; }} }}"
        for i in range(900)
    )
    make = f"OBJECTS = a.o b.o c.o d.o\nall: $(OBJECTS)\n%.o: %.{suffix}\n\t{compiler} -O2 -c $< -o $@\nclean:\n\trm -f *.o\n"
    head = (
        "#include <vector>\n#include <map>\n#include <string>\n#include <algorithm>\n" if suffix == "cc" else "#include <stdio.h>\n"
    )
    files = {f"{name}.{suffix}": head + body + "\ndouble all(void) { return f899(1.0, 9); }\n" for name in "abcd"}
    return written({**files, "Makefile": make}, "make -s -B", "make -s -B -j2")


# --- people ---------------------------------------------------------------------------------------------------------------------


def typed(command: str, *phrases: str, **files: str) -> Act:
    """A person types phrases into a program on a terminal."""

    def act(stage: Stage) -> None:
        for name, text in files.items():
            stage.write(name.replace("_", "."), text)
        words = shlex.split(command.replace("{in}", str(stage.inputs)).replace("{dir}", str(stage.directory)))
        stage.type(*words, phrases=phrases)

    return act


def piped(command: str, *lines_: str, pause: float = 1.0) -> Act:
    """A helper of an editor or a window, which gets requests through a pipe at a person's pace."""

    def act(stage: Stage) -> None:
        process = stage.start(*command.split(), pipe=True)
        asked = process.stdin
        assert asked is not None

        def person() -> None:
            while not stage.over.wait(stage.rng.expovariate(1 / pause)):
                try:
                    asked.write(stage.rng.choice(lines_).encode() + b"\n")
                    asked.flush()
                except OSError:
                    return

        threading.Thread(target=person, daemon=True).start()

    return act


def language_server(stage: Stage) -> None:
    """A helper of an editor that speaks the Language Server Protocol (microsoft.github.io/language-server-protocol)."""
    file = {"uri": f"file://{stage.directory}/a.cc"}
    head = "#include <algorithm>\n#include <map>\n#include <string>\n#include <vector>\n"
    text = head + "".join(
        f"int f{i}(std::vector<std::map<std::string, int>> v) {{ return v[{i}].size() + v.size(); }}\n" for i in range(300)
    )
    position = {"textDocument": file, "position": {"line": 40, "character": 72}}
    server = stage.start("clangd", "--background-index=false", "--log=error", pipe=True)
    number = 0

    def say(method: str, params: dict[str, Any], *, answered: bool = True) -> None:
        nonlocal number
        number += 1
        message = {"jsonrpc": "2.0", "method": method, "params": params, **({"id": number} if answered else {})}
        body = json.dumps(message).encode()
        assert server.stdin is not None
        server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        server.stdin.flush()

    def person() -> None:
        try:
            say("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
            say("initialized", {}, answered=False)
            say("textDocument/didOpen", {"textDocument": {**file, "languageId": "cpp", "version": 1, "text": text}}, answered=False)
            while not stage.over.wait(stage.rng.expovariate(2)):
                if stage.rng.random() < 0.6:
                    say(stage.rng.choice(("textDocument/completion", "textDocument/hover", "textDocument/definition")), position)
                else:
                    changed = {
                        "textDocument": {**file, "version": number},
                        "contentChanges": [{"text": text + f"int x{number};\n"}],
                    }
                    say("textDocument/didChange", changed, answered=False)
        except OSError:
            return

    threading.Thread(target=person, daemon=True).start()


UP, DOWN, RIGHT, LEFT = "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D"


@contextmanager
def _display(stage: Stage) -> Iterator[dict[str, str]]:
    """An X server, and the environment that leads to it."""
    number = stage.port() % 9000 + 100
    stage.start("Xvfb", f":{number}", "-screen", "0", "1024x768x24", "-nolisten", "tcp", "-ac")
    until = time.monotonic() + 8
    while not Path(f"/tmp/.X11-unix/X{number}").exists() and time.monotonic() < until:
        stage.over.wait(0.05)
    yield {"DISPLAY": f":{number}"}


def _press(stage: Stage, env: dict[str, str], *choices: Sequence[str]) -> None:
    """A person at a window: random xdotool commands, at a person's pace."""

    def person() -> None:
        stage.over.wait(2)
        while not stage.over.wait(stage.rng.choice((0.2, 0.4, 0.8, 2.0))):
            stage.start("xdotool", *stage.rng.choice(choices), terminal=False, env=env).wait()

    threading.Thread(target=person, daemon=True).start()


def terminal_window(stage: Stage) -> None:
    with _display(stage) as env:
        stage.start("xterm", "-geometry", "100x40", "-e", "bash", "--norc", env=env)
        commands = (
            "ls -l /usr/lib",
            "cat /etc/services",
            "echo something that one types",
            "head -200 /etc/mime.types",
            "seq 1 3000",
        )
        _press(stage, env, *(("type", "--delay", "110", f"{command}\n") for command in commands))


def window(*argv: str, keys: tuple[Sequence[str], ...] = (), prepare: Callable[[Stage], None] | None = None) -> Act:
    """A program with a window, and a person who presses `keys`."""

    def act(stage: Stage) -> None:
        if prepare:
            prepare(stage)
        with _display(stage) as env:
            words = [word.replace("{dir}", str(stage.directory)).replace("{in}", str(stage.inputs)) for word in argv]
            stage.start(*words, env=env)
            if keys:
                _press(stage, env, *keys)

    return act


def page(stage: Stage) -> None:
    stage.write(
        "page.html",
        """<canvas id=c width=600 height=400></canvas><p id=p></p><script>
let n = 0, g = c.getContext("2d"); function f(t) { g.clearRect(0, 0, 600, 400); for (let i = 0; i < 200; i++) {
g.fillStyle = `hsl(${i * 2 + n}, 80%, 50%)`; g.fillRect(300 + 250 * Math.sin(t / 700 + i), 200 + 150 * Math.cos(t / 500 + i * 2), 12, 12); }
p.textContent = n++; requestAnimationFrame(f); } requestAnimationFrame(f); </script>""",
    )


def secure_shell(stage: Stage) -> None:
    stage.prepare("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "host")
    stage.prepare("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "user")
    Path("/run/sshd").mkdir(exist_ok=True)
    port, here = stage.port(), stage.directory
    options = [f"AuthorizedKeysFile={here}/user.pub", "StrictModes=no", "UsePAM=no", f"PidFile={here}/pid", "PrintMotd=no"]
    settings = [word for option in options for word in ("-o", option)]
    listen = f"ListenAddress=127.0.0.1:{port}"
    stage.start("/usr/sbin/sshd", "-D", "-f", "/dev/null", "-h", f"{here}/host", "-o", listen, *settings, terminal=False)
    command = [
        "ssh",
        "-tt",
        "-p",
        str(port),
        "-i",
        f"{here}/user",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
    ]
    phrases = ("ls -l /usr/lib | head -200\r", "cat /etc/services\r", "echo one two three\r", "ps ax | tail -20\r", "seq 1 4000\r")
    for _ in range(2):
        stage.type(*command, "127.0.0.1", phrases=phrases, wait=2.0)


# --- servers --------------------------------------------------------------------------------------------------------------------


def site(stage: Stage) -> tuple[str, ...]:
    """Write files to serve from `www`; their paths."""
    www = stage.folder("www")
    for name, size in (("small.html", 600), ("page.html", 14_000), ("large.bin", 900_000)):
        (www / name).write_bytes(b"<p>text</p>\n" * (size // 12))
    return stage.rng.choice((("/small.html",), ("/small.html", "/page.html"), ("/small.html", "/page.html", "/large.bin")))


def web(command: str, config: str = "", low: float = 30, high: float = 2500, user: str = "") -> Act:
    """A web server of files: `{port}` and `{dir}` in its command and configuration (file `conf`)."""

    def act(stage: Stage) -> None:
        targets, port = site(stage), stage.port()
        stage.write("conf", config.replace("{port}", str(port)))
        prefix = stage.give_to(user) if user else ()
        words = command.replace("{port}", str(port)).replace("{dir}", str(stage.directory)).split()
        stage.start(*prefix, *words)
        stage.load(http(port, *targets, keep=stage.rng.random() < 0.5), low, high)

    return act


def app(name: str, text: str, command: str, low: float, high: float, *targets: str, compile_with: str = "") -> Act:
    """One of our own web applications."""

    def act(stage: Stage) -> None:
        port = stage.port()
        stage.write(name, text.replace("{port}", str(port)))
        if compile_with:
            stage.prepare(*compile_with.split())
        stage.start(*command.replace("{port}", str(port)).split())
        stage.load(http(port, *(targets or ("/",)), keep=False), low, high)

    return act


def proxy(command: str, config: str = "", low: float = 20, high: float = 500, user: str = "", absolute: bool = False) -> Act:
    """A proxy in front of a small server: `{port}` is the proxy's port, `{back}` the server's. `absolute`: requests have full URLs."""

    def act(stage: Stage) -> None:
        port = stage.port()
        back = stage.backend()
        values = {"{port}": str(port), "{back}": str(back), "{dir}": str(stage.directory)}

        def filled(text: str) -> str:
            for key, value in values.items():
                text = text.replace(key, value)
            return text

        stage.write("conf", filled(config))
        prefix = stage.give_to(user) if user else ()
        stage.start(*prefix, *filled(command).split())
        paths = ("/a", "/b?size=4000", "/c?size=60000")
        targets = [f"http://127.0.0.1:{back}{path}" if absolute else path for path in paths]
        stage.load(http(port, *targets, keep=stage.rng.random() < 0.5), low, high)

    return act


def tunnel(stage: Stage) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem -days 2"
    stage.prepare(*command.split())
    port = stage.port()
    back = stage.backend()
    here = stage.directory
    stage.write(
        "conf",
        f"foreground = yes\npid =\noutput = /dev/null\n[web]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{back}\n"
        f"cert = {here}/cert.pem\nkey = {here}/key.pem\n",
    )
    stage.start("stunnel4", "conf")
    stage.load(http(port, "/a", "/b?size=20000", keep=stage.rng.random() < 0.5, tls=True), 10, 250)


def redis(stage: Stage) -> None:
    port = stage.port()
    stage.start("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(stage.directory))
    many = stage.rng.choice((1, 10, 200))
    end = b"ECHO fin-is\r\n", b"$6\r\nfin-is\r\n"
    sets = b"".join(b"SET k%d " % i + b"v" * 60 + b"\r\n" for i in range(many)) + b"LPUSH l x\r\nLTRIM l 0 99\r\n"
    gets = b"".join(b"GET k%d\r\n" % i for i in range(many)) + b"LRANGE l 0 99\r\n"
    exchanges = [(text + end[0].replace(b"fin-is", b"fin-is"), b"fin-is\r\n") for text in (sets, gets, gets)]
    stage.load(talk(port, exchanges), 50, 8000 / many**0.6)


def memcached(stage: Stage) -> None:
    port = stage.port()
    stage.start("memcached", "-l", "127.0.0.1", "-p", str(port), "-u", "root", "-m", "64")
    many = stage.rng.choice((1, 20, 100))
    sets = b"".join(b"set k%d 0 0 60\r\n" % i + b"v" * 60 + b"\r\n" for i in range(many))
    gets = b"".join(b"get k%d\r\n" % i for i in range(many))
    exchanges = [(text + b"version\r\n", b"VERSION 1") for text in (sets, gets, gets)]
    stage.load(talk(port, exchanges), 50, 6000 / many**0.5)


def postgres(stage: Stage) -> None:
    prefix = stage.give_to("postgres")
    tools = max(Path("/usr/lib/postgresql").glob("*/bin"))
    data, port = f"{stage.directory}/data", str(stage.port())
    stage.prepare(*prefix, tools / "initdb", "-D", data, "--no-sync", "-A", "trust")
    where = ("-h", "127.0.0.1", "-p", port, "postgres")
    options = ("-p", port, "-k", str(stage.directory), "-c", "listen_addresses=127.0.0.1")
    filling = (tools / "pgbench", "-q", "-i", "-s", "3", *where)
    stage.prepare(*prefix, tools / "pg_ctl", "-w", "-D", data, "-o", " ".join(options), "-l", f"{data}/log", "start")
    stage.prepare(*prefix, *filling)
    stage.prepare(*prefix, tools / "pg_ctl", "-w", "-D", data, "-m", "fast", "stop")
    stage.start(*prefix, tools / "postgres", "-D", data, *options)
    only_reads = ["-S"] if stage.rng.random() < 0.5 else []
    rate = stage.rng.choice((20, 80, 300)) * (4 if only_reads else 1)
    while stage.start(*prefix, tools / "pg_isready", "-q", *where[:-1], terminal=False).wait() and not stage.over.is_set():
        stage.over.wait(0.3)
    stage.start(*prefix, tools / "pgbench", "-n", "-c", "4", "-T", "300", "-R", str(rate), *only_reads, *where, terminal=False)


def mariadb(stage: Stage) -> None:
    data, socket_ = f"{stage.directory}/data", f"{stage.directory}/s"
    own = f"--user={'root' if os.geteuid() == 0 else os.environ.get('USER', 'nobody')}"
    stage.prepare(
        "mariadb-install-db",
        "--no-defaults",
        f"--datadir={data}",
        own,
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    )
    stage.start(
        "mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={socket_}", own, f"--port={stage.port()}", "--bind-address=127.0.0.1",
        "--innodb-buffer-pool-size=64M", f"--pid-file={stage.directory}/pid",
    )  # fmt: skip
    until = time.monotonic() + 15
    while not Path(socket_).exists() and time.monotonic() < until:
        stage.over.wait(0.1)
    client = stage.start("mariadb", "--no-defaults", "-S", socket_, "-u", "root", "-f", "-n", pipe=True)
    assert client.stdin is not None
    asked = client.stdin
    asked.write(b"CREATE DATABASE d; USE d; CREATE TABLE t(id INT PRIMARY KEY AUTO_INCREMENT, n INT, s VARCHAR(80), KEY(n));\n")
    numbers = ",".join(f"({i % 997},'text number {i}')" for i in range(5000))
    asked.write(f"INSERT INTO t(n, s) VALUES {numbers};\n".encode())
    kinds = (
        "SELECT * FROM t WHERE id = {n};", "SELECT count(*), max(s) FROM t WHERE n < {n};",
        "INSERT INTO t(n, s) VALUES ({n}, 'new');", "UPDATE t SET n = n + 1 WHERE id = {n};",
    )  # fmt: skip

    def connect() -> Request:
        def request() -> None:
            asked.write(stage.rng.choice(kinds).replace("{n}", str(stage.rng.randrange(900))).encode() + b"\n")
            asked.flush()

        return request

    stage.load(connect, 20, 400, clients=1)


def names(command: str, config: str = "", zone: str = "", queries: Sequence[str] = ("www.test", "nothing.test")) -> Act:
    """A name server."""

    def act(stage: Stage) -> None:
        port = stage.port(socket.SOCK_DGRAM)
        stage.write("zone", zone)
        stage.write("conf", config.replace("{port}", str(port)))
        stage.start(*command.replace("{port}", str(port)).replace("{dir}", str(stage.directory)).split())
        stage.load(ask(port, [dns(name) for name in queries]), 100, 4000)

    return act


def datagrams(command: str, config: str, payloads: Sequence[bytes], low: float, high: float) -> Act:
    """A server of another protocol with single datagrams."""

    def act(stage: Stage) -> None:
        port = stage.port(socket.SOCK_DGRAM)
        stage.write("conf", config.replace("{port}", str(port)))
        stage.start(*command.replace("{port}", str(port)).replace("{dir}", str(stage.directory)).split())
        stage.load(ask(port, payloads), low, high)

    return act


def lines(
    command: str, config: str, exchanges: Sequence[tuple[bytes, bytes]], low: float, high: float, greeting: bytes = b"",
    hello: tuple[bytes, bytes] | None = None,
) -> Act:  # fmt: skip
    """A server of a text protocol."""

    def act(stage: Stage) -> None:
        port = stage.port()
        stage.write("conf", config.replace("{port}", str(port)))
        stage.start(*command.replace("{port}", str(port)).replace("{dir}", str(stage.directory)).split())
        stage.load(talk(port, exchanges, greeting, hello), low, high)

    return act


def mosquitto(stage: Stage) -> None:
    port = stage.port()
    stage.write("conf", f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\n")
    stage.start("mosquitto", "-c", "conf")
    stage.load(mqtt(port), 50, 2500)


def ftp(stage: Stage) -> None:
    targets, port = site(stage), stage.port()
    (stage.directory / "www").chmod(0o555)
    stage.write(
        "conf",
        f"listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nanonymous_enable=YES\nanon_root={stage.directory}/www\n"
        f"no_anon_password=YES\nsecure_chroot_dir={stage.folder('empty')}\nseccomp_sandbox=NO\nbackground=NO\nlocal_enable=NO\n",
    )
    stage.start("vsftpd", f"{stage.directory}/conf")

    def connect() -> Request:
        session = ftplib.FTP()
        session.connect("127.0.0.1", port, timeout=5)
        session.login()

        def request() -> None:
            session.retrbinary(f"RETR {stage.rng.choice(targets)}", lambda _: None)
            session.nlst()

        return request

    stage.load(connect, 2, 120)


def mail_in(stage: Stage) -> None:
    port = stage.port()
    stage.folder("spool").chmod(0o777)
    stage.write(
        "conf",
        f"primary_hostname = localhost.test\nspool_directory = {{dir}}/spool\nlog_file_path = {{dir}}/spool/log-%s\n"
        f"daemon_smtp_ports = {port}\nlocal_interfaces = 127.0.0.1\nacl_smtp_rcpt = accept\nkeep_environment =\nhost_lookup =\n"
        "rfc1413_query_timeout = 0s\nbegin routers\nall:\n  driver = redirect\n  data = :blackhole:\n",
    )
    stage.start("exim4", "-bdf", "-q30m", "-C", f"{stage.directory}/conf", terminal=False)

    def connect() -> Request:
        session = smtplib.SMTP("127.0.0.1", port, timeout=5)

        def request() -> None:
            text = "Subject: something\n\n" + "words of a letter\n" * stage.rng.choice((5, 200, 2000))
            session.sendmail("a@localhost.test", ["b@localhost.test"], text)

        return request

    stage.load(connect, 1, 25)


def mail_out(stage: Stage) -> None:
    port = stage.port()
    mail = stage.folder("mail")
    box = mail / "cur"
    for folder in ("cur", "new", "tmp"):
        (mail / folder).mkdir()
    for number in range(300):
        (box / f"{1000 + number}.M1P1.host:2,").write_text(f"Subject: letter {number}\nFrom: a@b\n\n" + f"words {number}\n" * 100)
    stage.write(
        "conf",
        "protocols = imap\nlisten = 127.0.0.1\nbase_dir = {dir}/run\nlog_path = /dev/null\nssl = no\ndisable_plaintext_auth = no\n"
        "first_valid_uid = 1\nmail_location = maildir:{dir}/mail\npassdb {\n  driver = static\n  args = password=x\n}\n"
        "userdb {\n  driver = static\n  args = uid=nobody gid=nogroup home={dir}\n}\n"
        f"service imap-login {{\n  inet_listener imap {{\n    port = {port}\n  }}\n  inet_listener imaps {{\n    port = 0\n  }}\n}}\n",
    )
    stage.give_to("nobody")
    stage.start("dovecot", "-F", "-c", f"{stage.directory}/conf", terminal=False)

    def connect() -> Request:
        session = imaplib.IMAP4("127.0.0.1", port, timeout=5)
        session.login("someone", "x")
        session.select("INBOX")

        def request() -> None:
            number = str(stage.rng.randrange(1, 300))
            stage.rng.choice((lambda: session.fetch(number, "(RFC822)"), lambda: session.search(None, "TEXT", '"words 77"')))()

        return request

    stage.load(connect, 3, 200)


def etcd(stage: Stage) -> None:
    port, peer = stage.port(), stage.port()
    own, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    stage.start(
        "etcd", "--data-dir", f"{stage.directory}/data", "--listen-client-urls", own, "--advertise-client-urls", own,
        "--listen-peer-urls", other, "--initial-advertise-peer-urls", other, "--initial-cluster", f"default={other}",
        "--log-level", "error",
    )  # fmt: skip
    stage.load(http(port, "/v3/kv/put", body=b'{"key": "Zm9v", "value": "YmFyYmF6"}'), 5, 150)
    stage.load(http(port, "/v3/kv/range", body=b'{"key": "Zm9v"}'), 20, 400)


def influx(stage: Stage) -> None:
    port, other = stage.port(), stage.port()
    env = {f"INFLUXDB_{key}": f"{stage.directory}/{key}" for key in ("META_DIR", "DATA_DIR", "DATA_WAL_DIR")}
    env |= {"INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}", "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{other}"}
    env |= {"INFLUXDB_REPORTING_DISABLED": "true"}
    stage.write("conf", "[meta]\n")
    stage.start("influxd", "run", "-config", "conf", env=env)
    points = "".join(f"cpu,host=h{i} value={i}.5\n" for i in range(50)).encode()
    stage.load(http(port, "/query?q=CREATE+DATABASE+d", body=b""), 0.5, 0.5, clients=1)
    stage.load(http(port, "/write?db=d", body=points), 5, 80)
    stage.load(
        http(port, "/query?db=d&q=SELECT+mean(value)+FROM+cpu+WHERE+time+>+now()-1m+GROUP+BY+host".replace(">", "%3E")), 2, 50
    )


def prometheus(stage: Stage) -> None:
    port = stage.port()
    stage.write(
        "conf", f"scrape_configs:\n- job_name: own\n  scrape_interval: 1s\n  static_configs:\n  - targets: ['127.0.0.1:{port}']\n"
    )
    stage.start(
        "prometheus", "--config.file=conf", f"--storage.tsdb.path={stage.directory}/data", f"--web.listen-address=127.0.0.1:{port}"
    )
    query = "/api/v1/query?query=rate(prometheus_http_requests_total%5B1m%5D)"
    stage.load(http(port, "/metrics", query, query), 10, 150)


def exporter(stage: Stage) -> None:
    port = stage.port()
    stage.start("prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}")
    stage.load(http(port, "/metrics"), 1, 40)


def php_pool(stage: Stage) -> None:
    port = stage.port()
    page_ = stage.write("page.php", PHP_PAGE)
    stage.write(
        "conf",
        f"[global]\nerror_log = {{dir}}/log\n[www]\nlisten = 127.0.0.1:{port}\npm = dynamic\npm.max_children = 6\npm.start_servers = 2\n"
        "pm.min_spare_servers = 1\npm.max_spare_servers = 3\n" + ("user = nobody\ngroup = nogroup\n" if os.geteuid() == 0 else ""),
    )
    stage.start(max(Path("/usr/sbin").glob("php-fpm8*"), default="php-fpm"), "-F", "-y", f"{stage.directory}/conf")
    stage.load(fastcgi(port, str(page_)), 10, 250)


def dict_server(stage: Stage) -> None:
    port = stage.port()
    stage.start(
        "/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", str(port), "--directory", str(stage.inputs / "tree")
    )
    stage.load(http(port, "/", "/0/", keep=False), 5, 200)


# --- sound and pictures ---------------------------------------------------------------------------------------------------------


def sound_server(stage: Stage) -> None:
    stage.start(
        "pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "-L", "module-null-sink", "-L",
        "module-native-protocol-unix", terminal=False,
    )  # fmt: skip
    stage.over.wait(1.5)
    for _ in range(stage.rng.choice((1, 3))):
        stage.keep("paplay --rate=44100 {in}/sound.wav", pause=0.3, env={"PULSE_SERVER": f"unix:{stage.directory}/pulse/native"})


def jack(stage: Stage) -> None:
    name = f"n{stage.port()}"
    stage.start(
        "jackd", "-n", name, "-r", "-d", "dummy", "-r", "48000", "-p", stage.rng.choice(("64", "128", "256")), terminal=False
    )
    stage.over.wait(1.0)
    stage.keep("jack_simple_client x " + name, pause=1.0, env={"JACK_DEFAULT_SERVER": name})
