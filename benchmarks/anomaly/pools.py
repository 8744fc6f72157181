"""The pools of the anomaly campaign: real workers of eight characters, their load, and samples of them.

A pool is a separate process, see `pool_program.py`. This module has its settings, its queue, and the sample that an adapter would
report.
"""

from __future__ import annotations

import array
import fcntl
import json
import random
import socket
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from nicety.models.identity import ProcId
from nicety.models.records import PoolSample, WorkerSample
from nicety.scheduler.pools.sensing.signals import read_stat

from .pool_program import BUSY, ORDER, READY, REQUEST, Board
from .truth import SECOND, Event, Process

PROC = Path("/proc")

POOL_NICE = 5
"""Niceness of the pools, so that an antagonist can be stronger without privileges. Chosen."""


@dataclass(frozen=True, slots=True)
class Character:
    """The work of a pool's workers. Rates are per worker and second; service times scatter around their means."""

    rate: float
    cpu: float  # seconds a request
    backend: float  # seconds of waiting a request
    size: int  # bytes read and written a request
    balance: str = "even"  # who gets a request: "even" in turn, "herd" all are woken, "last" the same ones first
    cache_mib: int = 0  # grown into after a start
    garbage_kib: int = 0  # a request, until the next collection
    collect_every: int = 150  # requests
    heap_objects: int = 1000
    connects: bool = False  # opens descriptors for a moment in each request
    threads: int = 0
    big: float = 0.0  # share of requests that take 20 times the CPU and much memory
    tells_busy: bool = True
    tells_queue: bool = True


CHARACTERS: dict[str, Character] = {
    "web": Character(1.5, 0.0015, 0.02, 8_192, balance="herd", heap_objects=20_000),
    "api": Character(2.0, 0.0008, 0.005, 2_048, balance="last", connects=True),
    "jobs": Character(0.4, 0.02, 0.2, 65_536, tells_queue=False),
    "compute": Character(0.5, 0.03, 0.0, 0),
    "cache": Character(1.5, 0.001, 0.01, 4_096, cache_mib=40),
    "collector": Character(1.5, 0.0007, 0.01, 1_024, garbage_kib=60, heap_objects=100_000, tells_busy=False),
    "big": Character(0.8, 0.002, 0.03, 32_768, balance="herd", big=0.02),
    "threads": Character(1.2, 0.0015, 0.02, 4_096, threads=4, balance="last", tells_busy=False, tells_queue=False),
}
"""The characters, by name. Chosen: on average a worker uses some 4 ms of CPU a second, so a hundred workers leave room for faults
on two CPUs."""


class CampaignError(Exception):
    """The campaign could not run. The message says why and what to do."""


class CampaignPool:
    """One pool as seen from outside: its load, orders to it, and samples of it."""

    def __init__(self, name: str, character: Character, workers: int, folder: Path, rng: random.Random) -> None:
        self.name, self.character, self.workers = name, character, workers
        self.folder, self._random = folder, rng
        self.board = Board(folder / f"{name}.board", workers, create=True)
        self._send, self._queue = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._send.setblocking(False)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        copied = ("balance", "cache_mib", "garbage_kib", "collect_every", "heap_objects", "connects", "threads")
        settings = {
            "workers": workers,
            "queue": self._queue.fileno(),
            "control": theirs.fileno(),
            "nice": POOL_NICE,
            "data": str(folder / "data"),
            "start_cpu": 0.03,
            **{key: getattr(character, key) for key in copied},
        }
        program = str(Path(__file__).with_name("pool_program.py"))
        self.process = subprocess.Popen(
            [sys.executable, "-I", program, str(folder / f"{name}.board"), json.dumps(settings)],
            pass_fds=(self._queue.fileno(), theirs.fileno()),
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self.master = self._process(self.process.pid)
        self._seq = [0] * workers
        self._known: dict[int, tuple[int, Process]] = {}  # slot -> (pid, who that is)
        self._busy: list[list[bool]] = [[] for _ in range(workers)]
        self._queued: list[int] = []
        self._next = time.monotonic()
        self.factor = 1.0  # of the load
        self.event: Event | None = None
        self.held = False  # a fault is in the pool: it goes on having work
        self.born: dict[int, float] = {}  # slot -> monotonic seconds since its worker is known

    # --- load -----------------------------------------------------------------------------------------------------------------

    def feed(self, now: float) -> None:
        """Queue the requests that arrive up to `now` (monotonic seconds): Poisson arrivals, log-normal service times."""
        character, factor = self.character, self.factor
        if self.held:
            factor = min(max(factor, 0.7), 1.5)
        rate = character.rate * self.workers * factor
        if rate <= 0:
            self._next = now
            return
        while self._next <= now:
            cpu = min(character.cpu * self._random.lognormvariate(-0.32, 0.8), 20 * character.cpu)
            memory = 0.0
            backend = character.backend * self._random.lognormvariate(-0.32, 0.8)
            if self._random.random() < character.big:
                cpu, memory, backend = 20 * cpu, self._random.uniform(15, 40), self._random.uniform(0.5, 4)
            try:
                self._send.send(REQUEST.pack(cpu, backend, memory, character.size))
            except BlockingIOError:
                pass  # the queue is full, as a listening socket's would be: the client goes away
            self._next += self._random.expovariate(rate)

    def probe(self) -> None:
        """Look at workers and queue, as an adapter does several times a tick."""
        for slot in range(self.workers):
            self._busy[slot].append(bool(self.board.state(slot)[1] & BUSY))
        waiting = array.array("i", [0])
        fcntl.ioctl(self._queue.fileno(), termios.FIONREAD, waiting)
        self._queued.append(waiting[0] // REQUEST.size)

    def read(self) -> PoolSample:
        """The sample that an adapter would report."""
        samples = []
        now = time.monotonic()
        for slot in range(self.workers):
            pid, flags = self.board.state(slot)[:2]
            known = self._known.get(slot)
            if pid and (known is None or known[0] != pid):
                stat = read_stat(PROC, pid)
                if stat is None or stat.ppid != self.process.pid:
                    continue
                known = self._known[slot] = (pid, (pid, stat.start_ticks))
                self.born[slot] = now
            if known is None or not pid:
                continue
            probes = self._busy[slot]
            busy = fmean(probes) if probes and self.character.tells_busy else None
            if (PROC / str(pid)).exists():
                samples.append(WorkerSample(ProcId(*known[1]), busy, bool(flags & READY)))
        queued = fmean(self._queued) if self._queued and self.character.tells_queue else None
        self._busy = [[] for _ in range(self.workers)]
        self._queued = []
        master = ProcId(*self.master)
        samples.sort(key=lambda sample: sample.id)
        return PoolSample(self.name, len(samples), self.workers, queued, tuple(samples), master, None, "")

    # --- orders ---------------------------------------------------------------------------------------------------------------

    def order(self, slot: int, order: dict[str, Any]) -> None:
        """Order a worker to become faulty."""
        self._seq[slot] += 1
        self.board.write(slot, ORDER, order)
        self.board.put(slot, 5, 0)
        self.board.put(slot, 4, self._seq[slot])

    def calm(self, slot: int) -> None:
        """Withdraw the order of a slot: its next worker is healthy."""
        self.board.write(slot, ORDER, {})

    def tell(self, **message: Any) -> None:
        """Send an order to the supervisor."""
        self._control.send(json.dumps(message).encode())

    def worker(self, slot: int) -> Process | None:
        """The worker in the slot, as of the last `read`; None if there is none."""
        known = self._known.get(slot)
        return None if known is None or known[0] != self.board.state(slot)[0] else known[1]

    def settled(self, seconds: float) -> bool:
        """Whether every worker is ready and has existed for `seconds`."""
        now = time.monotonic()
        return all(
            self.board.state(slot)[1] & READY and self.worker(slot) and now - self.born.get(slot, now) >= seconds
            for slot in range(self.workers)
        )

    # --- what happens in healthy pools ----------------------------------------------------------------------------------------

    def live(self, now: int, quiet: bool) -> Event | None:
        """Call once a second: begins or ends a healthy event, such as a deploy. Returns the event that has just ended, or None.
        `quiet`: no event may begin now."""
        event = self.event
        if event is not None and now >= event.end:
            self.factor, self.event = 1.0, None
            return event
        if event is None and not quiet and self._random.random() < 1 / 100:
            what = self._random.choices(("step", "idle", "deploy"), (5, 2, 3))[0]
            seconds = {"step": self._random.uniform(20, 150), "idle": self._random.uniform(30, 90), "deploy": 0.0}[what]
            if what == "step":
                self.factor = self._random.choice((0.3, 0.5, 2.0, 3.0))
            elif what == "idle":
                self.factor = 0.0
            else:
                pause = self._random.uniform(0.5, 4.0)
                self.tell(do="deploy", pause=pause)
                seconds = pause * self.workers + 10
            self.event = Event(what=what, pool=self.name, onset=now, end=now + round(seconds * SECOND), factor=self.factor)
        return None

    def let_go(self) -> None:
        """Ask the supervisor to end, with its workers."""
        self._control.close()

    def close(self) -> None:
        """Wait until the supervisor has ended, and kill it if it does not; its workers die with it."""
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._send.close()
        self._queue.close()
        self.board.close()

    def _process(self, pid: int) -> Process:
        stat = read_stat(PROC, pid)
        if stat is None:
            raise CampaignError(f"pool {self.name} ended as soon as it was started; see what it printed above")
        return pid, stat.start_ticks


def sizes(pools: int, rng: random.Random) -> list[tuple[str, Character, int]]:
    """(name, character, workers) of `pools` pools: all characters in turn, three to six workers."""
    names = list(CHARACTERS)
    return [
        (f"{names[i % len(names)]}-{i // len(names)}", CHARACTERS[names[i % len(names)]], rng.randint(3, 6)) for i in range(pools)
    ]
