"""Deploys of a real gunicorn under load, with nicety and without: none is taken for a hand, sizing goes on, nothing more is lost.

python -m benchmarks.pools.deploys [--times 20] [--json FILE]

gunicorn starts with two workers, and nicety wants four. So each deploy takes nicety's size away, and it must ask again. "Frozen" is
the longest time for which the pool took no size.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.pools.gunicorn.adapter import GunicornPool
from nicety.scheduler.testing.acts import own_acts

from ..claims import Claims
from .adapters import WSGI

WORKERS, WANTED = 2, 4
CLIENTS = 2
PATIENCE = 60.0
"""Seconds to wait for anything before the run fails. Chosen."""
PAUSE = 2.0
"""Seconds between two deploys without nicety, and after those with it for the pool to settle. Chosen."""


@dataclass
class Work:
    """How the requests ended. A refused one found no listening socket: gunicorn was away."""

    answered: int = 0
    refused: int = 0
    lost: int = 0


class Visitors:
    """Threads that send a request as soon as they have the answer to the last one, each over a new connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._works = [Work() for _ in range(CLIENTS)]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in self._works]

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def sum(self) -> Work:
        """All of them."""
        works = self._works
        return Work(sum(w.answered for w in works), sum(w.refused for w in works), sum(w.lost for w in works))

    def _run(self, work: Work) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.request("GET", "/")
                good = connection.getresponse().read() == b"ok"
            except ConnectionRefusedError:
                work.refused += 1
                time.sleep(0.05)
                continue
            except (OSError, http.client.HTTPException):
                good = False
            finally:
                connection.close()
            work.answered += good
            work.lost += not good


class Site:
    """A folder with two releases of an application, a listening socket, and the masters that serve it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pidfile = folder, folder / "pid"
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        self._started: list[subprocess.Popen[bytes]] = []
        self._releases = 0
        for release in ("a", "b"):
            (folder / release).mkdir()
            (folder / release / "app.py").write_text(WSGI)

    def start(self, *, shared: bool) -> None:
        """Start the next release, from its own folder. `shared`: on the socket that the other release has too."""
        release = self.folder / "ab"[self._releases % 2]
        bind, passed = f"127.0.0.1:{self.port}", ()
        if shared:
            bind, passed = f"fd://{self.listener.fileno()}", (self.listener.fileno(),)
        own = self.folder / f"pid.{self._releases}" if shared else self.pidfile
        self._releases += 1
        command = [sys.executable, "-m", "gunicorn", "-b", bind, "--pid", str(own), "-w", str(WORKERS), "app:application"]
        with (self.folder / "log").open("ab") as log:
            self._started.append(subprocess.Popen(command, cwd=release, stdout=log, stderr=log, pass_fds=passed))
        until(lambda: own.exists() and len(children(int(own.read_text() or 0))) >= WORKERS)
        if shared:
            named = self.folder / "pid.new"
            named.write_text(own.read_text())
            named.replace(self.pidfile)

    def master(self) -> int:
        """The pid of the master that the pid file names."""
        return int(self.pidfile.read_text())

    def close(self) -> None:
        """End all masters."""
        with contextlib.suppress(OSError, ValueError):  # an upgraded one is no child of ours
            os.kill(self.master(), signal.SIGTERM)
        for process in self._started:
            if process.poll() is None:
                process.terminate()
            process.wait(PATIENCE)
        until(lambda: not self.pidfile.exists() or not Path(f"/proc/{self.master()}").exists())
        self.listener.close()

    def ended(self, pid: int) -> bool:
        """Whether a master has ended."""
        for process in self._started:
            process.poll()
        return not Path(f"/proc/{pid}").exists()


def children(pid: int) -> list[int]:
    """The children of a process; none if it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def until(condition: Callable[[], object]) -> None:
    """Wait. Raises TimeoutError."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not come")
        time.sleep(0.02)


# --- the deploys ----------------------------------------------------------------------------------------------------------------


def reload(site: Site) -> None:
    """HUP; returns when no old worker is left."""
    master = site.master()
    old = set(children(master))
    os.kill(master, signal.SIGHUP)
    until(lambda: not old & set(children(master)))


def upgrade(site: Site) -> None:
    """USR2, and TERM of the old master when the new one has its workers."""
    old, heir = site.master(), Path(f"{site.pidfile}.2")
    os.kill(old, signal.SIGUSR2)
    until(lambda: heir.exists() and len(children(int(heir.read_text() or 0))) >= WORKERS)
    time.sleep(0.5)
    os.kill(old, signal.SIGTERM)
    until(lambda: site.ended(old) and site.pidfile.exists() and not heir.exists())


def restart(site: Site) -> None:
    """TERM, and start."""
    old = site.master()
    os.kill(old, signal.SIGTERM)
    until(lambda: site.ended(old))
    site.start(shared=False)


def blue_green(site: Site) -> None:
    """The next release on the same socket; the pid file names it; TERM of the old one."""
    old = site.master()
    site.start(shared=True)
    time.sleep(0.5)
    os.kill(old, signal.SIGTERM)
    until(lambda: site.ended(old))


DEPLOYS: dict[str, Callable[[Site], None]] = {"HUP": reload, "USR2": upgrade, "TERM": restart, "blue and green": blue_green}


@contextlib.contextmanager
def running(kind: str) -> Iterator[Site]:
    """A site that serves."""
    with tempfile.TemporaryDirectory() as place:
        site = Site(Path(place))
        try:
            if kind != "blue and green":
                site.listener.close()  # gunicorn binds the port itself
            site.start(shared=kind == "blue and green")
            yield site
        finally:
            site.close()


# --- with nicety ----------------------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """The adapter, driven as the daemon does: ten probes a second, a request when the size is not the wanted one."""

    pool: GunicornPool
    hands: list[str] = field(default_factory=list)
    frozen: float = 0.0  # the longest time with trouble, s
    sample: PoolSample | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _since: float | None = None

    def run(self) -> None:
        """Drive it until `stop`."""
        while not self._stop.is_set():
            self.pool.probe()
            sample = self.sample = self.pool.read()
            now = time.monotonic()
            if "by hand" in sample.trouble:
                self.hands.append(sample.trouble)
            if sample.trouble:
                self._since = self._since or now
                self.frozen = max(self.frozen, now - self._since)
            else:
                self._since = None
                if sample.requested != WANTED:
                    self.pool.resize(WANTED)
            self._stop.wait(0.1)

    def stop(self) -> None:
        """End it."""
        self._stop.set()

    def has(self, size: int) -> bool:
        """Whether the pool has this size, and takes another."""
        sample = self.sample
        return sample is not None and not sample.trouble and sample.size == sample.requested == size


@contextlib.contextmanager
def watched(site: Site) -> Iterator[Watch]:
    """nicety beside the site."""
    clock = SystemClock()
    config = PoolConfig(kind="gunicorn", pidfile=str(site.pidfile), maximum=16)
    watch = Watch(GunicornPool("web", config, clock, own_acts("web", config, clock)))
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        until(lambda: watch.has(WANTED))
        yield watch
    finally:
        watch.stop()
        thread.join()
        watch.pool.close()


@dataclass
class Found:
    """What a run of deploys has shown."""

    work: Work
    hands: int = 0
    frozen: float = 0.0
    back: float = 0.0  # the longest time from the end of a deploy to the wanted size, s


def without(kind: str, times: int) -> Found:
    """The deploys alone."""
    with running(kind) as site, Visitors(site.port) as visitors:
        for _ in range(times):
            DEPLOYS[kind](site)
            time.sleep(PAUSE)
    return Found(visitors.sum())


def beside(kind: str, times: int) -> Found:
    """The deploys with nicety."""
    back = 0.0
    with running(kind) as site, watched(site) as watch:
        with Visitors(site.port) as visitors:
            for _ in range(times):
                DEPLOYS[kind](site)
                began = time.monotonic()
                until(lambda: len(children(site.master())) == WANTED and watch.has(WANTED))
                back = max(back, time.monotonic() - began)
                time.sleep(PAUSE)
        return Found(visitors.sum(), len(watch.hands), watch.frozen, back)


def a_hand() -> bool:
    """Whether TTIN by somebody is obeyed under load, after a deploy."""
    with running("HUP") as site, watched(site) as watch, Visitors(site.port):
        reload(site)
        until(lambda: watch.has(WANTED))
        time.sleep(PAUSE)
        os.kill(site.master(), signal.SIGTTIN)
        until(lambda: watch.hands)
        time.sleep(PAUSE)
        return len(children(site.master())) == WANTED + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="deploys of each kind, with nicety and without")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything that was started is ended
    claims, more = Claims(), {}
    for kind in DEPLOYS:
        alone, found = without(kind, options.times), beside(kind, options.times)
        claims.at_most(f"{kind}: taken for a hand", found.hands, 0)
        claims.at_most(f"{kind}: sizing frozen, s", found.frozen, 5)
        claims.at_most(f"{kind}: from its end to the wanted size, s", found.back, 5)
        # gunicorn's own losses are few and random: three standard deviations of a Poisson count
        claims.at_most(f"{kind}: requests lost", found.work.lost, alone.work.lost + 3 * alone.work.lost**0.5)
        more[kind] = {"without": vars(alone.work), "with": vars(found.work)}
        print(f"{kind}: {more[kind]}", file=sys.stderr, flush=True)
    claims.at_least("a TTIN by hand is obeyed", int(a_hand()), 1)
    claims.close(options.json, times=options.times, requests=more)


if __name__ == "__main__":
    main()
