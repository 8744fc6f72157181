"""The real programs of the field scenes: the role of each, its command, and what must be installed for it.

Debian's packages: redis-server, nginx-light, nodejs, postgresql, ffmpeg, xz-utils, make, gcc, util-linux. `prepare` makes a
directory with a virtual environment (uvicorn, gunicorn, gevent, dramatiq, rq and joblib) and the C sources of zstd with a
makefile. The sources come from the sdist of the package "zstd" on PyPI.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..latency.contention import free_port
from .figures import Role
from .load import MARKER

POSTGRES = Path("/usr/lib/postgresql/15/bin")
"""Where Debian 12 installs postgres' programs, which are not in PATH."""

STACKS = ("uvicorn[standard]", "gunicorn", "gevent", "packaging", "dramatiq[redis]", "rq", "joblib")
"""Packages of the virtual environment; gunicorn's gevent worker needs packaging."""
ANSWER = MARKER.decode()
SCRIPT = f"local s = 0 for i = 1, tonumber(ARGV[1]) do s = s + i % 7 end return '{ANSWER}'"


@dataclass
class Site:
    """The place of a scene: its folder, the folder of `prepare`, and the port of each program."""

    folder: Path
    home: Path
    ports: dict[str, int] = field(default_factory=dict)

    def port(self, name: str) -> int:
        """The program's port, a free one when it is first asked for."""
        return self.ports.setdefault(name, free_port())

    def write(self, name: str, text: str) -> str:
        """Write a file of the scene; its path. An existing file is left as it is, because another program may be reading it."""
        path = self.folder / name
        if not path.exists():
            path.write_text(text)
        return str(path)

    def tool(self, name: str) -> str:
        """A program of the virtual environment."""
        return str(self.home / "venv" / "bin" / name)


def nothing(site: Site) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Program:
    """A program that is started once for a scene and ended with it."""

    name: str
    role: Role
    command: Callable[[Site], list[str]]
    listens: bool = False  # True: it is up when its port answers
    needs: tuple[str, ...] = ()  # programs in PATH, "venv", "project", "postgres"
    before: Callable[[Site], None] = nothing
    after: Callable[[Site], None] = nothing  # once it is up
    farewell: int = 0  # signal after which it leaves nothing behind; 0: SIGKILL will do


# --- services -------------------------------------------------------------------------------------------------------------------


def redis(name: str = "redis") -> Program:
    """A redis-server that keeps nothing on disk."""

    def command(site: Site) -> list[str]:
        keeps = ["--save", "", "--appendonly", "no", "--dir", str(site.folder)]
        return ["redis-server", "--port", str(site.port(name)), "--bind", "127.0.0.1", *keeps]

    return Program(name, Role.SERVICE, command, listens=True, needs=("redis-server",))


ECHO = """
import asyncio, sys
async def serve(reader, writer):
    while data := await reader.read(4096):
        sum(range(3000))
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


def echo() -> Program:
    """A TCP echo service."""
    return Program(
        "echo",
        Role.SERVICE,
        lambda site: [sys.executable, site.write("echo.py", ECHO), str(site.port("echo"))],
        listens=True,
    )


NGINX = """
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/nginx.log; user root;
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  gzip on; gzip_min_length 1; gzip_comp_level 6; gzip_types text/plain; default_type text/plain;
  server {{ listen 127.0.0.1:{port}; root {folder}/www; }}
}}
"""


def nginx() -> Program:
    """A web server with two workers and a page."""

    def command(site: Site) -> list[str]:
        (site.folder / "www").mkdir(exist_ok=True)
        (site.folder / "www" / "index.html").write_text("a line of a page\n" * 800 + ANSWER)
        (site.folder / "www" / "page.txt").write_text("a line of a page\n" * 800 + ANSWER)
        return ["nginx", "-c", site.write("nginx.conf", NGINX.format(folder=site.folder, port=site.port("nginx")))]

    return Program("nginx", Role.SERVICE, command, listens=True, needs=("nginx",))


NODE = """
require("http").createServer((request, response) => {
  let total = 0;
  for (let i = 0; i < 200000; i++) total += i %% 7;
  response.end(JSON.stringify({total}) + "%s");
}).listen(+process.argv[2], "127.0.0.1").keepAliveTimeout = 600000;
"""


def node() -> Program:
    """An HTTP server in JavaScript."""
    return Program(
        "node",
        Role.SERVICE,
        lambda site: ["node", site.write("server.js", NODE % ANSWER), str(site.port("node"))],
        listens=True,
        needs=("node",),
    )


WEB = f"""
BODY = b"{ANSWER}"
def wsgi(environ, start_response):
    sum(range(20000))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
async def asgi(scope, receive, send):
    sum(range(20000))
    length = str(len(BODY)).encode()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}})
    await send({{"type": "http.response.body", "body": BODY}})
"""


def uvicorn() -> Program:
    """An ASGI server with two spawned workers."""

    def command(site: Site) -> list[str]:
        site.write("web.py", WEB)
        place = ["--host", "127.0.0.1", "--port", str(site.port("uvicorn")), "--app-dir", str(site.folder)]
        how = ["--workers", "2", "--lifespan", "off", "--no-access-log", "--timeout-keep-alive", "600"]
        return [site.tool("uvicorn"), *place, *how, "web:asgi"]

    return Program("uvicorn", Role.SERVICE, command, listens=True, needs=("venv",))


def gunicorn(kind: str, workers: int = 1) -> Program:
    """A WSGI server of this worker class."""
    name = f"gunicorn-{kind}"

    def command(site: Site) -> list[str]:
        site.write("web.py", WEB)
        place = ["--bind", f"127.0.0.1:{site.port(name)}", "--chdir", str(site.folder), "--no-control-socket"]
        how = ["--worker-class", kind, "--workers", str(workers), "--keep-alive", "600", "--graceful-timeout", "2"]
        threads = ["--threads", "8"] if kind == "gthread" else []
        return [site.tool("gunicorn"), *place, *how, *threads, "web:wsgi"]

    return Program(name, Role.SERVICE, command, listens=True, needs=("venv",))


def postgres(role: Role = Role.SERVICE, scale: int = 5) -> Program:
    """A database server with pgbench's tables, and a dump of them beside it."""

    def command(site: Site) -> list[str]:
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={site.folder}", "-c", "fsync=off"]
        return as_postgres(str(POSTGRES / "postgres"), "-D", f"{site.folder}/db", "-p", str(site.port("postgres")), *settings)

    def before(site: Site) -> None:
        shutil.chown(site.folder, "postgres")
        run(as_postgres(str(POSTGRES / "initdb"), "-D", f"{site.folder}/db", "-A", "trust", "-N"))

    def after(site: Site) -> None:
        at = ["-h", "127.0.0.1", "-p", str(site.port("postgres"))]
        run(as_postgres(str(POSTGRES / "createdb"), *at, "bench"))
        run(as_postgres(str(POSTGRES / "pgbench"), *at, "-i", "-q", "-s", str(scale), "bench"))
        if role is Role.BATCH:
            run(as_postgres(str(POSTGRES / "pg_dump"), *at, "-Fc", "-f", f"{site.folder}/dump", "bench"))

    needs, fast = ("postgres", "setpriv"), signal.SIGINT  # killed, it would leave shared memory behind
    return Program("postgres", role, command, listens=True, needs=needs, before=before, after=after, farewell=fast)


def as_postgres(*words: str) -> list[str]:
    """The command as the user postgres, because a database server refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *words]


def run(words: list[str]) -> None:
    """Run a command to its end. Raises RuntimeError with its output."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, cwd="/")
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()}")


# --- clients and workers ----------------------------------------------------------------------------------------------------------


CLIENT = """
import asyncio, sys
async def main():
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    while True:
        writer.write(b"PING\\r\\n")
        await reader.readline()
        sum(range(10000))
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


def client(service: str) -> Program:
    """A small program that often asks a redis-server something, and uses some hundredths of a CPU."""
    return Program(
        "client",
        Role.CLIENT,
        lambda site: [sys.executable, site.write("client.py", CLIENT), str(site.port(service))],
    )


TASKS = """
import os
import dramatiq
from dramatiq.brokers.redis import RedisBroker
dramatiq.set_broker(RedisBroker(url=os.environ["BROKER"]))
@dramatiq.actor
def task():
    sum(range(100000))
def job():
    sum(range(100000))
"""

PRODUCER = """
import os, time
import redis, rq
import tasks
queue = rq.Queue(connection=redis.Redis.from_url(os.environ["BROKER"]))
while True:
    for _ in range(6):
        tasks.task.send()
        time.sleep(0.08)
    queue.enqueue(tasks.job, result_ttl=0)
"""


def queue_program(name: str, role: Role, words: Callable[[Site], list[str]]) -> Program:
    """A program that uses a queue in the redis-server named "broker"."""

    def command(site: Site) -> list[str]:
        site.write("tasks.py", TASKS)
        settings = [f"BROKER=redis://127.0.0.1:{site.port('broker')}/0", f"PYTHONPATH={site.folder}"]
        return ["env", *settings, *words(site)]

    return Program(name, role, command, needs=("venv",))


def dramatiq() -> Program:
    """A worker of a task queue, one process of four threads."""
    return queue_program(
        "dramatiq", Role.OTHER, lambda site: [site.tool("dramatiq"), "tasks", "--processes", "1", "--threads", "4"]
    )


def rq() -> Program:
    """A worker that forks for each job."""
    return queue_program(
        "rq", Role.OTHER, lambda site: [site.tool("rq"), "worker", "-u", f"redis://127.0.0.1:{site.port('broker')}/0", "default"]
    )


def producer() -> Program:
    """A program that gives tasks to dramatiq and rq."""
    return queue_program("producer", Role.CLIENT, lambda site: [site.tool("python"), site.write("producer.py", PRODUCER)])


# --- batch ------------------------------------------------------------------------------------------------------------------------


CREW = """
import subprocess, sys
crew = [subprocess.Popen(sys.argv[2:]) for _ in range(int(sys.argv[1]))]
for one in crew:
    one.wait()
"""

HOG = """
import sys, time
rest = float(sys.argv[1])
while True:
    began = time.monotonic()
    while time.monotonic() < began + 0.02:
        sum(range(2000))
    if rest:
        time.sleep(rest)
"""


def hogs(count: int, rest: float = 0.0) -> Program:
    """Processes that compute. `rest`: seconds of sleep after every 20 ms of work."""

    def command(site: Site) -> list[str]:
        hog, crew = site.write("hog.py", HOG), site.write("crew.py", CREW)
        return [sys.executable, crew, str(count), sys.executable, hog, str(rest)]

    return Program("hogs", Role.BATCH, command)


def repeated(name: str, line: Callable[[Site], str], *needs: str) -> Program:
    """A program that runs a shell line again and again."""
    return Program(
        name, Role.BATCH, lambda site: ["sh", site.write(f"{name}.sh", f"while :; do {line(site)}; done\n")], needs=(*needs, "sh")
    )


def build() -> Program:
    """`make -j4` of zstd's C sources, from clean."""

    def line(site: Site) -> str:
        tree = site.folder / "project"
        if not tree.exists():
            shutil.copytree(site.home / "project", tree)
        return f"make -s -C {tree} clean; make -s -j4 -C {tree}"

    return repeated("build", line, "make", "gcc", "project")


def xz() -> Program:
    """`xz -T4` of 64 MiB."""

    def line(site: Site) -> str:
        path = site.folder / "data"
        if not path.exists():
            chunk = b"".join(b"%d %d\n" % (number, number * number % 9973) for number in range(100_000)) + os.urandom(1 << 20)
            path.write_bytes((chunk * (1 + (64 << 20) // len(chunk)))[: 64 << 20])
        return f"xz -T4 --block-size=8MiB -k -c {path} > /dev/null"

    return repeated("xz", line, "xz")


def restore() -> Program:
    """`pg_restore` of the dump beside the database server, again and again."""

    def line(site: Site) -> str:
        at = ["-h", "127.0.0.1", "-p", str(site.port("postgres")), "-d", "bench", "--clean", "--if-exists", "-j", "2"]
        return " ".join(as_postgres(str(POSTGRES / "pg_restore"), *at, f"{site.folder}/dump"))

    return repeated("restore", line, "postgres", "setpriv")


def ffmpeg() -> Program:
    """An encode of a test picture, with as many threads as it likes."""
    source = ["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30"]
    words = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", *source, "-c:v", "libx264", "-f", "null", "-"]
    return Program("ffmpeg", Role.BATCH, lambda site: [*words], needs=("ffmpeg",))  # noqa: ARG005 - it needs no file


TRAINING = """
import numpy as np
from sklearn.ensemble import RandomForestClassifier
chance = np.random.default_rng(1)
inputs = chance.normal(size=(4000, 20))
classes = (inputs[:, :5].sum(axis=1) + chance.normal(size=4000) > 0).astype(int)
while True:
    RandomForestClassifier(60, n_jobs=4).fit(inputs, classes)
"""


def training() -> Program:
    """A model that is fitted again and again, by four threads."""
    return Program("training", Role.BATCH, lambda site: [sys.executable, site.write("training.py", TRAINING)])


JOBS = """
import joblib
def job(number):
    return sum(range(300000 + number))
while True:
    joblib.Parallel(n_jobs=4)(joblib.delayed(job)(number) for number in range(400))
"""


def joblib() -> Program:
    """Four processes of joblib that compute."""
    return Program("joblib", Role.BATCH, lambda site: [site.tool("python"), site.write("jobs.py", JOBS)], needs=("venv",))


# --- what must be there ---------------------------------------------------------------------------------------------------------


PACKAGES = {
    "redis-server": "redis-server",
    "nginx": "nginx-light",
    "node": "nodejs",
    "ffmpeg": "ffmpeg",
    "xz": "xz-utils",
    "make": "make",
    "gcc": "gcc",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "taskset": "util-linux",
    "chrt": "util-linux",
    "setsid": "util-linux",
    "postgres": "postgresql",
}
"""Debian's package for each entry of `Program.needs`."""


def missing(needs: set[str], home: Path) -> str:
    """A sentence on how to install what is missing; "" if nothing is."""
    there = {"venv": home / "venv" / "bin" / "uvicorn", "project": home / "project" / "Makefile", "postgres": POSTGRES / "postgres"}
    lacking = sorted(need for need in needs if not (there[need].exists() if need in there else shutil.which(need)))
    packages = sorted({PACKAGES[need] for need in lacking if need in PACKAGES})
    steps = [f"apt-get install {' '.join(packages)}"] if packages else []
    steps += ["python -m benchmarks.field.run --prepare"] if {"venv", "project"} & set(lacking) else []
    steps += [f"{need} is not installed" for need in lacking if need not in PACKAGES and need not in there]
    return "; ".join(steps)


MAKEFILE = """
CFLAGS = -O2 -Ilib -Ilib/common -DZSTD_DISABLE_ASM
objects = $(patsubst %.c,%.o,$(wildcard lib/common/*.c lib/compress/*.c lib/decompress/*.c lib/dictBuilder/*.c lib/legacy/*.c))
libzstd.a: $(objects)
\t$(AR) rcs $@ $^
clean:
\trm -f libzstd.a $(objects)
.PHONY: clean
"""


def prepare(home: Path) -> None:
    """Install the Python programs and zstd's sources below `home`. Raises CalledProcessError."""
    home.mkdir(parents=True, exist_ok=True, mode=0o755)
    if not (home / "venv").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home / "venv")], check=True)
    pip = [str(home / "venv" / "bin" / "pip"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", *STACKS], check=True)
    project = home / "project"
    if not (project / "Makefile").exists():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*pip, "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", folder, "zstd"], check=True)
            (archive,) = Path(folder).glob("zstd-*.tar.gz")
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
            (tree,) = Path(folder).glob("zstd-*/zstd/lib")
            shutil.rmtree(project, ignore_errors=True)
            shutil.copytree(tree, project / "lib")
        (project / "Makefile").write_text(MAKEFILE)
