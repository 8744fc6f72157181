"""A pool of the anomaly campaign: a supervisor and its workers, and all faults that a worker can have.

    python pool_program.py BOARD SETTINGS      (started by pools.py, which passes two sockets: queue and control)

The supervisor forks the workers, restarts those that end, replaces them one by one on request (a deploy), and kills them all when
the control socket closes. A worker takes requests from the shared queue. For each it reads, computes, waits for a backend,
remembers something and answers. Each worker has a slot on the board, a file in shared memory, with its state and its order to
become faulty. Uses only the standard library, and knows nothing about nicety.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

REQUEST = struct.Struct("<dddI484x")
"""A request: CPU seconds, seconds of waiting for a backend, MiB of memory held meanwhile, bytes read and written. It has 512
bytes, as a small HTTP request has."""

SLOT = 1024
"""Bytes of a slot on the board: `STATE`, then the order to become faulty, then the worker's answer to it."""

STATE = struct.Struct("<IIQQQQ")
"""pid, 1 ready | 2 busy, requests taken, requests done, sequence number of the order, monotonic ns at which it took effect."""

ORDER, ANSWER = 64, 512
HEARTBEAT = 1.0
"""Seconds between wake-ups of an idle worker: gunicorn's workers touch a file as often."""

SPIN_NICE = 10
"""Nice value of the autogroup of a worker that spins."""

MIB = 1 << 20
READY, BUSY = 1, 2


class Board:
    """The slots of one pool. Every field has one writer."""

    def __init__(self, path: Path, slots: int, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(SLOT * slots))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), SLOT * slots)
        self.slots = slots

    def state(self, slot: int) -> tuple[int, int, int, int, int, int]:
        """(pid, flags, taken, done, sequence number of the order, when it took effect)."""
        pid, flags, taken, done, seq, began = STATE.unpack_from(self._memory, slot * SLOT)
        return pid, flags, taken, done, seq, began

    def put(self, slot: int, field: int, value: int) -> None:
        """Write one field of the state."""
        offset, code = ((0, "<I"), (4, "<I"), (8, "<Q"), (16, "<Q"), (24, "<Q"), (32, "<Q"))[field]
        struct.pack_into(code, self._memory, slot * SLOT + offset, value)

    def write(self, slot: int, at: int, value: dict[str, Any]) -> None:
        """Write the order or the answer of a slot."""
        data = json.dumps(value).encode()
        if len(data) > SLOT - ANSWER - 4:
            raise ValueError(f"{len(data)} bytes do not fit into a slot")
        start = slot * SLOT + at
        self._memory[start + 4 : start + 4 + len(data)] = data
        struct.pack_into("<I", self._memory, start, len(data))

    def read(self, slot: int, at: int) -> dict[str, Any]:
        """The order or the answer of a slot; empty if there is none."""
        start = slot * SLOT + at
        (size,) = struct.unpack_from("<I", self._memory, start)
        return dict(json.loads(self._memory[start + 4 : start + 4 + size])) if size else {}

    def close(self) -> None:
        """Unmap."""
        self._memory.close()


# --- the worker ---------------------------------------------------------------------------------------------------------------


class Worker:
    """One worker: serves until SIGTERM, or until it becomes faulty."""

    def __init__(self, board: Board, slot: int, settings: dict[str, Any]) -> None:
        self.board, self.slot, self.settings = board, slot, settings
        self.queue: int = settings["queue"]
        self.seq = board.state(slot)[4]  # orders to the one that had the slot before are not ours
        self.slow = self.slow_backend = 1.0
        self.leaks: Callable[[], None] | None = None
        self.kept: list[Any] = []
        self.garbage: list[Any] = []
        self.cache = bytearray()
        self.since_collection = 0
        self.stopping = False
        self.data = os.open(settings["data"], os.O_RDONLY)
        self.sink = os.open("/dev/null", os.O_WRONLY)

    def run(self) -> None:
        """Serve."""
        signal.signal(signal.SIGTERM, self._stop)
        settings, board, slot = self.settings, self.board, self.slot
        spin(settings["start_cpu"])  # imports and connections
        self.heap = [[i] for i in range(settings["heap_objects"])]
        for _ in range(settings["threads"]):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        wait = self._waiter(settings["balance"])
        board.put(slot, 1, READY)
        while not self.stopping:
            if board.state(slot)[4] != self.seq:
                self.seq = board.state(slot)[4]
                self._go_wrong(board.read(slot, ORDER))
            request = wait()
            if self.leaks is not None:
                self.leaks()
            if request:
                taken, done = board.state(slot)[2:4]
                board.put(slot, 1, READY | BUSY)
                board.put(slot, 2, taken + 1)
                self._serve(*REQUEST.unpack(request))
                board.put(slot, 3, done + 1)
                board.put(slot, 1, READY)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _waiter(self, balance: str) -> Callable[[], bytes]:
        """How the worker waits for requests: "even" is woken in turn, "herd" with all others, "last" before all others."""
        queue = self.queue

        def take() -> bytes:
            try:
                return os.read(queue, REQUEST.size)
            except BlockingIOError:
                return b""

        if balance == "even":
            timeout = struct.pack("ll", int(HEARTBEAT), 0)
            with socket.socket(fileno=os.dup(queue)) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            os.set_blocking(queue, True)
            return take
        os.set_blocking(queue, False)
        if balance == "herd":
            return lambda: take() if select.select([queue], [], [], HEARTBEAT)[0] else b""
        poll = select.epoll()
        poll.register(queue, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        return lambda: take() if poll.poll(HEARTBEAT) else b""

    def _serve(self, cpu: float, backend: float, memory: float, size: int) -> None:
        settings = self.settings
        held = bytearray(b"x") * int(memory * MIB) if memory else None
        if size:
            os.lseek(self.data, 0, os.SEEK_SET)
            os.read(self.data, size)
        spin(cpu * self.slow)
        if backend:
            time.sleep(backend * self.slow_backend)
        if settings["connects"]:  # a connection of its own to the backend
            ends = socket.socketpair()
            time.sleep(0.01)
            for end in ends:
                end.close()
        if len(self.cache) < settings["cache_mib"] * MIB:  # what is asked for again and again becomes warm
            self.cache += bytes([1]) * int(max(settings["cache_mib"] * MIB - len(self.cache), 20 * MIB) * 0.01)
        if settings["garbage_kib"]:
            knot: list[Any] = [bytearray(b"y") * (settings["garbage_kib"] * 1024)]
            knot.append(knot)
            self.garbage.append(knot)
            self.since_collection += 1
            if self.since_collection >= settings["collect_every"]:
                self.since_collection = 0
                self.garbage.clear()
                gc.collect()
        if size:
            os.write(self.sink, b"z" * size)
        del held

    # --- the faults -----------------------------------------------------------------------------------------------------------

    def _go_wrong(self, order: dict[str, Any]) -> None:
        kind = order["kind"]
        if kind in ("stuck", "spin", "deadlock"):  # adapters take for busy who waits for anything but work
            self.board.put(self.slot, 1, READY | BUSY)
        fault: Callable[[dict[str, Any]], None] = getattr(self, "_" + kind.replace("-", "_"))
        fault(order)

    def _began(self, **more: Any) -> None:
        self.board.write(self.slot, ANSWER, more)
        self.board.put(self.slot, 5, time.monotonic_ns())

    def _leak(self, order: dict[str, Any]) -> None:
        """Keeps `strength` MiB more each second."""
        self._leaking(order["strength"], 1.0 / 16, lambda: self.kept.append(bytearray(b"l") * (MIB // 16)))

    def _fd_leak(self, order: dict[str, Any]) -> None:
        """Keeps `strength` descriptors more each second."""
        self._leaking(order["strength"], 1.0, lambda: self.kept.append(os.open("/dev/null", os.O_RDONLY)))

    def _thread_leak(self, order: dict[str, Any]) -> None:
        """Keeps `strength` threads more each second. They wait for something that never comes."""
        self._leaking(order["strength"], 1.0, lambda: threading.Thread(target=threading.Event().wait, daemon=True).start())

    def _leaking(self, rate: float, step: float, more: Callable[[], None]) -> None:
        began, given = time.monotonic(), 0.0
        self._began()

        def leak() -> None:
            nonlocal given
            while given + step <= (time.monotonic() - began) * rate:
                given += step
                more()

        self.leaks = leak

    def _spin(self, order: dict[str, Any]) -> None:
        """Computes for ever; with `pause`, sleeps for 1 ms every `pause` seconds.

        It has its own session with a nice autogroup, so that it slows no other program of the machine.
        """
        os.setsid()
        with contextlib.suppress(OSError):  # a kernel without autogroups
            Path("/proc/self/autogroup").write_text(str(SPIN_NICE))
        self._began()
        while True:
            spin(order.get("pause", 1.0))
            if "pause" in order:
                time.sleep(0.001)

    def _stuck(self, order: dict[str, Any]) -> None:
        """Waits for ever: asleep, for a pipe that nobody writes to, or for a lock that it holds itself."""
        if order["variant"] == "sleep":
            self._began()
            while True:
                time.sleep(3600)
        if order["variant"] == "pipe":
            kept = os.pipe()
            self._began()
            os.read(kept[0], 1)
        lock = threading.Lock()
        lock.acquire()
        self._began()
        lock.acquire()

    def _deadlock(self, order: dict[str, Any]) -> None:
        """Takes one lock or pipe and waits for that of the next worker in the ring, see `variant`."""
        ring, place = order["ring"], order["place"]
        own, following = Path(ring[place]), Path(ring[(place + 1) % len(ring)])
        if order["variant"] == "pipe":
            for path in (own, following):
                with contextlib.suppress(FileExistsError):
                    os.mkfifo(path)
            inbox = os.open(own, os.O_RDONLY | os.O_NONBLOCK)
            while True:
                try:
                    os.open(following, os.O_WRONLY | os.O_NONBLOCK)
                    break
                except OSError:  # the other one does not read yet
                    time.sleep(0.05)
            os.set_blocking(inbox, True)
            time.sleep(0.5)  # all have opened both ends
            self._began()
            os.read(inbox, 1)
            return

        def lock(number: int) -> None:
            """Lock a file. A mixed ring alternates POSIX locks and flock, because the kernel refuses a ring of only POSIX locks."""
            file = os.open(ring[number], os.O_RDWR | os.O_CREAT, 0o600)
            (fcntl.lockf if order["variant"] == "mixed" and number % 2 else fcntl.flock)(file, fcntl.LOCK_EX)

        lock(place)
        time.sleep(1.5 + HEARTBEAT)  # by then every one of the ring has its own
        self._began()
        lock((place + 1) % len(ring))

    def _slow(self, order: dict[str, Any]) -> None:
        """Each request takes `strength` times the CPU, or waits `strength` times as long for the backend."""
        if order["variant"] == "backend":
            self.slow_backend = order["strength"]
        else:
            self.slow = order["strength"]
        self._began()

    def _starved(self, order: dict[str, Any]) -> None:
        """Shares a CPU with an antagonist, which the benchmark starts, and has less weight there."""
        os.sched_setaffinity(0, {order["cpu"]})
        os.setpriority(os.PRIO_PROCESS, 0, 19)
        self._began()

    def _fork_storm(self, order: dict[str, Any]) -> None:
        """Starts `strength` processes a second beside its requests; each does little and ends after `life` seconds."""

        def storm() -> None:
            children: set[int] = set()
            while True:
                child = os.fork()
                if child == 0:
                    time.sleep(order["life"])
                    os._exit(0)
                children.add(child)
                children -= {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0]}
                time.sleep(1.0 / order["strength"])

        threading.Thread(target=storm, daemon=True).start()
        self._began()

    def _switch_storm(self, order: dict[str, Any]) -> None:
        """Two threads that wake each other `strength` times a second."""
        ping, pong = os.pipe(), os.pipe()

        def play(source: int, target: int, pause: float) -> None:
            while True:
                os.read(source, 1)
                if pause:
                    time.sleep(pause)
                os.write(target, b".")

        threading.Thread(target=play, args=(ping[0], pong[1], 1.0 / order["strength"]), daemon=True).start()
        threading.Thread(target=play, args=(pong[0], ping[1], 0.0), daemon=True).start()
        self._began()
        os.write(ping[1], b".")

    def _crash_loop(self, order: dict[str, Any]) -> None:
        """Ends, and so do its replacements, because the supervisor reads the same order."""
        self._began()
        os._exit(order["status"])

    def _zombie(self, order: dict[str, Any]) -> None:
        """Starts `strength` processes and never asks for their exit status."""
        pids = []
        for _ in range(int(order["strength"])):
            child = os.fork()
            if child == 0:
                os._exit(0)
            pids.append(child)
        self._began(pids=pids)


def spin(seconds: float) -> None:
    """Use `seconds` of CPU in this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for _ in range(50):
            pass


# --- the supervisor -----------------------------------------------------------------------------------------------------------


class Supervisor:
    """Keeps every slot filled."""

    def __init__(self, board: Board, settings: dict[str, Any]) -> None:
        self.board, self.settings = board, settings
        self.pids: list[int] = [0] * board.slots
        self.start_at = [0.0] * board.slots  # monotonic seconds
        self.unreaped = -1  # slot whose worker is not waited for when it ends
        self.deploying: list[tuple[float, int]] = []  # (when, slot)
        self.killed: dict[int, float] = {}  # pid -> when it gets SIGKILL
        self.libc = ctypes.CDLL(None)
        self.control = socket.socket(fileno=settings["control"])

    def run(self) -> None:
        """Until the control socket closes."""
        try:
            while True:
                self._reap()
                self._start()
                if select.select([self.control], [], [], 0.1)[0]:
                    message = self.control.recv(4096)
                    if not message:
                        return
                    self._obey(json.loads(message))
        finally:
            for pid in filter(None, self.pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in filter(None, self.pids):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _obey(self, order: dict[str, Any]) -> None:
        if order["do"] == "deploy":
            now = time.monotonic()
            self.deploying = [(now + order["pause"] * slot, slot) for slot in range(self.board.slots)]
        elif order["do"] == "kill":
            for slot in order["slots"]:
                if self.pids[slot]:
                    os.kill(self.pids[slot], signal.SIGKILL)
        elif order["do"] == "unreaped":
            self.unreaped = order["slot"]

    def _reap(self) -> None:
        now = time.monotonic()
        for slot, pid in enumerate(self.pids):
            if not pid or slot == self.unreaped:
                continue
            ended, _ = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.killed.pop(pid, None)
                self.pids[slot] = 0
                order = self.board.read(slot, ORDER)
                self.start_at[slot] = now + (order["delay"] if order.get("kind") == "crash-loop" else 0.0)
        for when, slot in [each for each in self.deploying if each[0] <= now]:
            self.deploying.remove((when, slot))
            if self.pids[slot]:
                os.kill(self.pids[slot], signal.SIGTERM)
                self.killed[self.pids[slot]] = now + 10.0
        for pid in [pid for pid, when in self.killed.items() if when <= now]:
            del self.killed[pid]
            os.kill(pid, signal.SIGKILL)

    def _start(self) -> None:
        now = time.monotonic()
        for slot, pid in enumerate(self.pids):
            if not pid and now >= self.start_at[slot]:
                self.board.put(slot, 1, 0)
                child = os.fork()
                if child == 0:
                    self._become(slot)
                self.pids[slot] = child
                self.board.put(slot, 0, child)

    def _become(self, slot: int) -> NoReturn:
        """In the child: become a worker, which ends soon in a crash loop."""
        try:
            self.libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody is left behind
            self.control.close()
            order = self.board.read(slot, ORDER)
            if order.get("kind") == "crash-loop":
                self.board.put(slot, 1, READY if order["ready"] else 0)
                spin(min(order["life"], 0.02))
                time.sleep(order["life"])
                os._exit(order["status"])
            Worker(self.board, slot, self.settings).run()
        except BaseException:  # whatever it is, the child must not go on as a second supervisor
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)


def main() -> None:
    """Run the supervisor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the benchmark, which ends us
    settings = json.loads(sys.argv[2])
    os.nice(settings["nice"])
    board = Board(Path(sys.argv[1]), settings["workers"])
    Supervisor(board, settings).run()


if __name__ == "__main__":
    main()
