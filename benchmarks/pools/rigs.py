"""Real pools for benchmarks: how gunicorn, uWSGI, Redis and Celery are started and ended. Must not know loads or sizes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.ports import PoolAdapter

PATIENCE = 120.0
"""Seconds to wait for a pool before the run fails. Chosen."""


class Started(NamedTuple):
    """A running pool."""

    config: PoolConfig  # how an adapter finds it
    pid: int  # of its main process


def free_port() -> int:
    """A free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def program(
    command: Sequence[str],
    log: Path,
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
    end: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs within the block. On leaving it gets the signal `end`, and is killed after 30 s."""
    with log.open("ab") as output:
        running = subprocess.Popen(
            command, cwd=folder, env=None if environ is None else {**os.environ, **environ}, stdout=output, stderr=output
        )
    try:
        yield running
    finally:
        running.send_signal(end)
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextlib.contextmanager
def gunicorn(folder: Path, port: int, workers: int = 1) -> Iterator[Started]:
    """A master with sync workers, of the application in `folder`/app.py."""
    pidfile = folder / "pid"
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--pid", str(pidfile), "--chdir", str(folder)]
    with program([*command, "-w", str(workers), "app:application"], folder / "log") as master:
        yield Started(PoolConfig(kind="gunicorn", pidfile=str(pidfile)), master.pid)


@contextlib.contextmanager
def uwsgi(folder: Path, port: int, maximum: int) -> Iterator[Started]:
    """A master with one worker, of the application in `folder`/app.py. Only commands on its FIFO change its size."""
    pidfile, stats, fifo = folder / "pid", folder / "stats", folder / "fifo"
    command = ["uwsgi", "--plugin", "python3", "--http-socket", f"127.0.0.1:{port}", "--wsgi-file", str(folder / "app.py")]
    command += ["--master", "--die-on-term", "--processes", str(maximum), "--cheaper", "1", "--cheaper-algo", "manual"]
    command += ["--stats", str(stats), "--master-fifo", str(fifo), "--pidfile", str(pidfile), "--disable-logging"]
    with program(command, folder / "log") as master:
        yield Started(PoolConfig(kind="uwsgi", stats=str(stats), fifo=str(fifo), pidfile=str(pidfile)), master.pid)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis server without persistence; its URL without a database number."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with program([shutil.which("redis-server") or "redis-server", *options], folder / "redis.log"), socket.socket() as probe:
        until = time.monotonic() + PATIENCE
        while probe.connect_ex(("127.0.0.1", port)) != 0:
            if time.monotonic() > until:
                raise TimeoutError(f"redis-server does not answer, see {folder / 'redis.log'}")
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def celery(
    folder: Path, name: str, broker: str, options: Sequence[str], environ: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """A node with the application in `folder`/tasks.py, which reads BROKER. Its files are `name`.pid and `name`.log."""
    pidfile, node = folder / f"{name}.pid", f"{name}@here"
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-n", node, "--pidfile", str(pidfile), *options]
    environ = {**(environ or {}), "BROKER": broker}
    with program(command, folder / f"{name}.log", folder=folder, environ=environ, end=signal.SIGQUIT) as main:
        yield Started(PoolConfig(kind="celery", pidfile=str(pidfile), broker=broker, node=node), main.pid)


def reach(pool: PoolAdapter, size: int) -> float:
    """Drive the pool as the daemon does, ten looks a second, until it has this size; the seconds that took. Raises TimeoutError."""
    began = time.monotonic()
    asked = False
    while True:
        pool.probe()
        sample = pool.read()
        if not sample.trouble:
            if not asked:
                pool.resize(size)
                asked = True
            if sample.size == size == sample.requested:
                return time.monotonic() - began
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError(f"not {size} workers after {PATIENCE:g} s: {sample}")
        time.sleep(0.1)
