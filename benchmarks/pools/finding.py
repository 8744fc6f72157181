"""Finds 14 real pools among 40 families that are none: are all masters right, is nothing adopted by itself, what does it cost?

    python -m benchmarks.pools.finding [--json FILE] [--seconds 25]

Pools and decoys are real programs where they are installed. A decoy that is not is a Python program of that name with children. A
daemon without a configuration watches them for `--seconds`: it must say what it found, and size nothing. Needs root for postgres
and nginx; without it, programs of their names take their place.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Snapshot
from nicety.scheduler.config.sections import Config
from nicety.scheduler.pools.finding.found import Found
from nicety.scheduler.pools.finding.search import everything, machine
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.process import see_all
from nicety.scheduler.service.pool_watch import EVERY_NS, PoolWatch

from ..claims import Claims
from . import rigs

SHARE = 0.001
"""Share of one CPU that the daemon's search may take."""

PATIENCE = 60.0
"""Seconds to wait for all pools before the run fails. Chosen."""

LARGE = 5000
"""Processes of the made-up machine on which the cost is measured too. Chosen."""

FILES = {
    "shop.py": "def application(environ, start):\n    start('200 OK', [])\n    return [b'ok']\n",
    "api.py": "async def app(scope, receive, send):\n    pass\n",
    "mail.py": "import dramatiq\nfrom dramatiq.brokers.stub import StubBroker\ndramatiq.set_broker(StubBroker())\n",
    "jobs.py": "from celery import Celery\napp = Celery('jobs', broker='memory://')\n",
    "tidy.py": "from huey import MemoryHuey\nhuey = MemoryHuey()\n",
    "notes.py": (
        "import os\nfrom arq.connections import RedisSettings\n\nasync def work(context):\n    pass\n\n"
        "class Settings:\n    functions = [work]\n    redis_settings = RedisSettings.from_dsn(os.environ['REDIS'])\n"
    ),
    "thumbs.py": "import time\nwhile True:\n    time.sleep(60)\n",
    "program.py": (
        "import time\nfrom nicety.scheduler.executor import Executor\nif __name__ == '__main__':\n"
        "    with Executor(2, name='features') as executor:\n        list(executor.map(abs, range(9)))\n        time.sleep(9999)\n"
    ),
    "supervisord.conf": (
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=%(here)s/supervisord.pid\n"
        "[program:thumbs]\ncommand={python} %(here)s/thumbs.py\nnumprocs=2\nprocess_name=%(program_name)s_%(process_num)02d\n"
    ),
    "family.py": (
        "import ctypes, os, sys, time\nctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)\n"
        "for _ in range(3):\n    if os.fork() == 0:\n        break\ntime.sleep(9999)\n"
    ),
    "cluster.js": "const c = require('cluster');\n"
    "if (c.isPrimary) { c.fork(); c.fork(); } else require('http').createServer().listen(0);\n",
    "Makefile": "all: a b c\n.PHONY: a b c\na b c:\n\t@sleep 9999\n",
    "pool.py": "import multiprocessing, sys, time\nif __name__ == '__main__':\n"
    "    pool = multiprocessing.get_context(sys.argv[1]).Pool(3)\n    time.sleep(9999)\n",
    "loky.py": "import joblib, time\nif __name__ == '__main__':\n"
    "    joblib.Parallel(2)(joblib.delayed(time.sleep)(9999) for _ in range(2))\n",
    "nginx.conf": "daemon off;\nworker_processes 2;\npid nginx.pid;\nerror_log /dev/null;\nevents {}\n"
    "http { access_log off; server { listen unix:nginx.sock; } }\n",
    "look.py": "import gunicorn, time\ntime.sleep(9999)\n",
}

LOOK_ALIKES = (
    *("chromium", "firefox", "code", "electron", "sshd", "cron", "apache2", "mysqld", "mongod", "gradle", "cc1", "webpack", "jest"),
    *("vite", "pytest-xdist", "tox", "ansible", "slurmd", "dockerd", "pipewire", "Xorg", "dask-worker"),
)
"""Names of families that start like workers under one parent."""


@dataclass
class Stage:
    """What runs for one trial. `kinds`: by pid of the main process, or of one of the workers, what must be found."""

    folder: Path
    environ: Mapping[str, str]
    kinds: dict[int, str] = field(default_factory=dict)
    decoys: dict[int, str] = field(default_factory=dict)
    real: int = 0  # decoys that are the real program
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *command: str, name: str | None = None) -> int:
        """Start a program in the folder, under another name if one is given; its pid."""
        process = subprocess.Popen(
            [name or command[0], *command[1:]],
            executable=command[0],
            cwd=self.folder,
            env=dict(self.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.running.append(process)
        return process.pid

    def close(self) -> None:
        """End everything."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)  # what it has left behind, in its own session
            process.wait()


def pools(stage: Stage, redis: str) -> None:
    """Start 14 pools."""
    folder, python, bin_ = stage.folder, sys.executable, Path(sys.executable).parent

    def web(kind: str, *arguments: str) -> None:
        stage.kinds[stage.start(python, f"{bin_}/{kind}", *arguments)] = kind

    port = rigs.free_port
    web("gunicorn", "-w", "3", "--pid", f"{folder}/web.pid", "-b", f"127.0.0.1:{port()}", "shop:application")
    web("gunicorn", "-w", "2", "--threads", "4", "-b", f"unix:{folder}/threads.sock", "shop:application")
    web("gunicorn", "-w", "2", "-k", "uvicorn_worker.UvicornWorker", "-b", f"127.0.0.1:{port()}", "api:app")
    web("uvicorn", "api:app", "--workers", "2", "--port", str(port()))
    web("hypercorn", "api:app", "--workers", "2", "-b", f"127.0.0.1:{port()}")
    options = ["--master", "--processes", "3", "--cheaper", "1", "--cheaper-algo", "manual", "--stats", f"{folder}/stats"]
    options += ["--master-fifo", f"{folder}/fifo", "--pidfile", f"{folder}/uwsgi.pid", "--die-on-term"]
    uwsgi = shutil.which("uwsgi") or "uwsgi"
    serve = ["--plugin", "python3", "--http-socket", f"127.0.0.1:{port()}", "--wsgi-file", f"{folder}/shop.py"]
    stage.kinds[stage.start(uwsgi, *serve, *options)] = "uwsgi"
    web("celery", "-A", "jobs", "worker", "-c", "2", "-n", "jobs@here")
    web("rq", "worker-pool", "-n", "2", "-u", f"{redis}/0", "default")
    alike = [stage.start(python, f"{bin_}/rq", "worker", "-u", f"{redis}/0", "slow") for _ in range(2)]
    stage.kinds[min(alike)] = "rq"
    web("dramatiq", "mail", "--processes", "2", "--threads", "1")
    web("arq", "notes.Settings")
    stage.kinds[stage.start(python, f"{bin_}/huey_consumer", "tidy.huey", "-k", "process", "-w", "2")] = "huey"
    stage.kinds[stage.start(python, "program.py")] = "executor"
    stage.kinds[stage.start(python, f"{bin_}/supervisord", "-c", "supervisord.conf")] = "supervisord"


def decoys(stage: Stage, most: int = 40) -> None:
    """Start 40 families that are no pools."""
    python, folder, bin_ = sys.executable, stage.folder, Path(sys.executable).parent
    root = os.geteuid() == 0
    wanted: list[tuple[str, Sequence[str] | None, str | None]] = [
        ("nginx", _program("/usr/sbin/nginx", "-p", f"{folder}/", "-c", "nginx.conf") if root else None, None),
        ("postgres", _postgres(folder) if root else None, None),
        ("node", _program("node", "cluster.js"), None),
        ("make", _program("make", "-j3"), None),
        ("tmux", _program("tmux", "-D", "-S", f"{folder}/tmux"), None),
        ("multiprocessing, forked", (python, "pool.py", "fork"), None),
        ("multiprocessing, spawned", (python, "pool.py", "spawn"), None),
        ("joblib", (python, "loky.py"), None),
        ("http.server", (python, "-m", "http.server", "--bind", "127.0.0.1", str(rigs.free_port())), None),
        ("uvicorn --reload", (python, f"{bin_}/uvicorn", "api:app", "--reload", "--port", str(rigs.free_port())), None),
        ("celery beat", (python, f"{bin_}/celery", "-A", "jobs", "beat", "-s", f"{folder}/beat"), None),
        ("tail -f uvicorn", _program("tail", "-f", f"{folder}/api.py"), "uvicorn"),
        ("a shell with children", ("/bin/sh", "-c", "sleep 9998 & sleep 9998 & wait"), None),
        ("sleep called gunicorn", ("/bin/sleep", "9999"), "gunicorn"),
        ("sleep called uwsgi", ("/bin/sleep", "9999"), "uwsgi"),
        ("sleep called celery", ("/bin/sleep", "9999"), "celery"),
        ("python with gunicorn imported", (python, "look.py"), None),
        ("cat gunicorn.conf.py", ("/bin/cat", "/dev/stdin"), "cat gunicorn"),
    ]
    for name, command, called in wanted:
        if command is None:
            stage.decoys[stage.start(python, "family.py", name, name=f"{name}: main")] = name
            continue
        stage.real += 1
        stage.decoys[stage.start(*command, name=called)] = name
    for name in LOOK_ALIKES[: most - len(stage.decoys)]:
        stage.decoys[stage.start(python, "family.py", name, name=f"{name}: main")] = name


def _program(name: str, *arguments: str) -> Sequence[str] | None:
    found = shutil.which(name)
    return None if found is None else (found, *arguments)


def _postgres(folder: Path) -> Sequence[str] | None:
    """A new cluster, run by nobody; None where there is no postgres."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs or shutil.which("setpriv") is None:
        return None
    data = folder / "postgres"
    data.mkdir(mode=0o700)
    os.chown(data, 65534, 65534)
    drop = [shutil.which("setpriv") or "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    options = ["-D", str(data), "-N", "-E", "UTF8", "--locale=C"]
    made = subprocess.run([*drop, programs[-1].with_name("initdb"), *options], check=False, capture_output=True, cwd="/")
    return None if made.returncode else (*drop, str(programs[-1]), "-D", str(data), "-k", "", "-p", str(rigs.free_port()))


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """Pools and decoys, running."""
    folder.chmod(0o755)
    for name, text in FILES.items():
        (folder / name).write_text(text.replace("{python}", sys.executable))
    with rigs.redis(folder) as redis:
        stage = Stage(
            folder, {**os.environ, "REDIS": f"{redis}/0", "NICETY_RUN_DIR": str(folder / "boards"), "OMP_NUM_THREADS": "1"}
        )
        (folder / "boards").mkdir(mode=0o700)
        try:
            pools(stage, redis)
            decoys(stage)
            yield stage
        finally:
            stage.close()


def matched(stage: Stage) -> tuple[dict[int, Found], list[Found]]:
    """(what was found of the pools by its expected pid, what was found of the decoys)."""
    parents = {seen.id.pid: seen.parent for seen in see_all()}
    right: dict[int, Found] = {}
    wrong: list[Found] = []
    for found in everything(machine(), Config(), stage.environ):
        lineage = {found.pid, parents.get(found.pid, 0)}
        mains = lineage & stage.kinds.keys()
        if mains:
            right[mains.pop()] = found
        elif lineage & stage.decoys.keys():
            wrong.append(found)
    return right, wrong


def settled(stage: Stage) -> tuple[dict[int, Found], list[Found]]:
    """As `matched`, when every pool has its workers. Raises TimeoutError."""
    until = time.monotonic() + PATIENCE
    while True:
        right, wrong = matched(stage)
        whole = {pid for pid, found in right.items() if len(found.workers) > 1 or found.kind in ("arq", "uwsgi")}
        if whole == stage.kinds.keys():
            return right, wrong
        if time.monotonic() > until:
            missing = {kind for pid, kind in stage.kinds.items() if pid not in right}
            raise TimeoutError(f"not found: {missing or {found.kind: found.workers for found in right.values()}}")
        time.sleep(0.5)


def watched(stage: Stage, seconds: float) -> tuple[list[str], int, str]:
    """(notes of a daemon that runs beside them, pools that it sizes, what its configuration says at the end)."""
    file, state = stage.folder / "nicety.toml", stage.folder / "state"
    file.write_text("# empty\n")
    nicety = [sys.executable, "-m", "nicety.scheduler", "--config", str(file), "--state-dir", str(state)]
    with subprocess.Popen(
        [*nicety, "run", "--observe", "--duration", f"{seconds:g}s"], stderr=subprocess.PIPE, text=True
    ) as daemon:
        time.sleep(seconds - 4)
        status = subprocess.run([*nicety, "status", "--json"], capture_output=True, text=True, check=True)
        _, log = daemon.communicate(timeout=60)
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    notes = [line["text"] for line in lines if line.get("kind") == "note" and line["text"].startswith("found ")]
    return notes, len(json.loads(status.stdout)["pools"]), file.read_text()


# --- cost ---------------------------------------------------------------------------------------------------------------------


def seconds_a_search(snapshots: Callable[[int], Snapshot], searches: int) -> float:
    """Mean CPU seconds of a search, the first ones, which look at everything, included."""
    watch = PoolWatch(Config())
    spent = 0.0
    for number in range(searches):
        snapshot = snapshots(number)
        began = time.thread_time()
        watch.notes(snapshot)
        spent += time.thread_time() - began
    return spent / searches


def of_this_machine(hours: float) -> float:
    """Cost of a search over some hours in which nothing starts, per search."""
    source = ProcSource()
    snapshot = source.read(0, 0, ())
    source.close()
    return seconds_a_search(lambda number: _at(snapshot, number), round(hours * 3600e9 / EVERY_NS))


def of_a_large_machine(comes: int) -> float:
    """Cost of a search with `LARGE` processes, of which `comes` are new each time; a tenth of those may be a pool."""
    programs = ["python3 gunicorn", *(f"program {number}" for number in range(9))]

    def snapshot(number: int) -> Snapshot:
        pids = np.arange(LARGE) + 10_000_000 + number * comes
        table = np.zeros(LARGE, SAMPLE)
        table["pid"], table["start_ticks"], table["ppid"] = pids, pids, 1
        identities = {ProcId(pid, pid): Identity("comm", programs[pid % 10], "/", "", 0) for pid in map(int, pids)}
        return _at(Snapshot(0, 0, 0, table, identities, HostSample((0,), 1, 1, None), ()), number)

    return seconds_a_search(snapshot, 60)


def _at(snapshot: Snapshot, number: int) -> Snapshot:
    return Snapshot(number * EVERY_NS, 0, 0, snapshot.table, snapshot.identities, snapshot.host, ())


def main() -> None:
    """Run the trial."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=25.0, help="for how long a daemon watches")
    arguments = parser.parse_args()
    claims = Claims()
    with tempfile.TemporaryDirectory(prefix="nicety-finding-") as folder, staged(Path(folder)) as stage:
        right, wrong = settled(stage)
        for _, found in sorted(right.items()):
            print(f"{found.name:<16}{found.title:<44}{found.unsized or found.reached}")
        ended = [
            stage.decoys[process.pid] for process in stage.running if process.pid in stage.decoys and process.poll() is not None
        ]
        if ended:
            print(f"ended by themselves: {', '.join(ended)}")
        claims.at_least("pools of real programs", len(stage.kinds), 14)
        claims.at_least("families that are no pools and run", len(stage.decoys) - len(ended), 40)
        claims.at_least("of these real programs", stage.real, 12)
        masters = sum(right[pid].kind == kind for pid, kind in stage.kinds.items())
        claims.at_least("pools found with the right main process and kind", masters, len(stage.kinds))
        claims.at_most("families taken for a pool", len(wrong), 0)
        notes, sized, configured = watched(stage, arguments.seconds)
        with_program = [found for found in right.values() if found.kind not in ("executor", "supervisord") and found.worth_a_line]
        said = sum(any(f"(pid {found.pid})" in note for note in notes) for found in with_program)
        claims.at_least("pools that the daemon has said it found", said, len(with_program))
        claims.at_most("pools that the daemon sizes", sized, 0)
        claims.add("its configuration is as it was", configured == "# empty\n", "yes", configured == "# empty\n")
        per = {"this machine": of_this_machine(1.0)}
    per[f"{LARGE} processes"] = of_a_large_machine(0)
    per[f"{LARGE} processes, 200 new in 10 s"] = of_a_large_machine(200)
    for name, seconds in per.items():
        claims.at_most(f"share of a CPU for the search, {name}", seconds * 1e9 / EVERY_NS, SHARE)
    claims.close(arguments.json, milliseconds_a_search={name: seconds * 1e3 for name, seconds in per.items()})


if __name__ == "__main__":
    main()
