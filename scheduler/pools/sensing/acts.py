"""What an adapter has done to its pool by the hands: signals, uWSGI's FIFO and stats socket, and processes that are started.

The hands may be a process of their own, which is asked over a socket, or operations called in this one. The adapter does not know
which. Must not know kinds of pools beyond that.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from ....models.identity import ProcId
from ...config.sections import PoolConfig
from ...hands.faults import Fault, Status, fault_of
from ...hands.kernel import Clock
from ...hands.pool_blocks import OF_QUEUE, Block
from ...hands.pool_children import log_name
from ...hands.pools import Pools
from ...hands.wire import RefusedError

Ask = Callable[..., tuple[object, Sequence[int]]]
"""Has an operation done: `hands.wire.Asking.ask`, or `in_process`."""

AGENT = Path(__file__).parents[1] / "celery" / "agent.py"
"""The text of Celery's agent, which the hands start."""


class Child:
    """A process that the hands have started for a pool, seen by its pidfd."""

    def __init__(self, acts: Acts, process: ProcId, descriptors: Sequence[int]) -> None:
        """`descriptors`: a pidfd, then pipes."""
        self.id = process
        self.pipes = tuple(descriptors[1:])
        self._acts = acts
        self._pidfd = descriptors[0]
        self._exit = select.poll()
        self._exit.register(self._pidfd, select.POLLIN)
        self._status: int | None = None

    def poll(self) -> int | None:
        """How it ended, as `subprocess.Popen.poll` says it; None while it runs."""
        if self._status is None and self._exit.poll(0):
            self._status = self._acts.status(self.id.pid)
        return self._status

    def drain(self, number: int) -> None:
        """Ask it to end, by the signal that its pool has for that."""
        self._acts.send(self.id, number)

    def kill(self) -> bool:
        """End it with all that it started; return whether that was done. A worker must have been drained for long enough."""
        return self._acts.send(self.id, signal.SIGKILL)[0] is not Status.REFUSED

    def end(self) -> None:
        """Kill it, wait for its end, and close all descriptors."""
        if self.poll() is None:
            self.kill()
            self._exit.poll()
            self.poll()
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self._pidfd, *self.pipes):
            os.close(descriptor)
        self.pipes = ()


class Acts:
    """What may be done to one pool. `logs`: where the hands keep the output of workers."""

    def __init__(self, pool: str, ask: Ask, logs: Path) -> None:
        self._pool = pool
        self._ask = ask
        self.log_file = logs / log_name(pool)

    def send(self, process: ProcId, number: int) -> tuple[Status, str]:
        """Send a signal to the main process or a worker; 0 only asks whether one would be accepted. APPLIED: the kernel took it;
        two pending signals of a kind arrive as one."""
        what = f"{signal.Signals(number).name} to pid {process.pid}" if number else f"signals to pid {process.pid}"
        try:
            self._ask("pool.signal", self._pool, process.pid, process.start_ticks, int(number))
        except RefusedError as refusal:
            return Status.REFUSED, str(refusal)
        except OSError as error:
            if fault_of(error) is Fault.GONE:
                return Status.VANISHED, f"pid {process.pid} is gone"
            return Status.REFUSED, f"no permission for {what}: run nicety as the same user, or give it CAP_KILL"
        return Status.APPLIED, what

    def fifo(self, commands: str) -> str:
        """Write commands to uWSGI's FIFO; return "", or why nothing was written."""
        try:
            return str(self._ask("pool.fifo", self._pool, commands)[0])
        except RefusedError as refusal:
            return str(refusal)
        except OSError as error:
            return f"uWSGI's main process cannot be found ({error.strerror}): see its log"

    def stats(self) -> socket.socket:
        """A socket that is connected, or about to be, to uWSGI's stats. Raises OSError, RefusedError."""
        _, (descriptor,) = self._ask("pool.stats", self._pool)
        return socket.socket(fileno=descriptor)

    def hang_up(self) -> None:
        """The answer of the stats has been read, or is not waited for any more."""
        self._ask("pool.hang_up", self._pool)

    def start(self, number: int) -> Child:
        """Start a worker. Raises OSError, RefusedError."""
        return self._child(*self._ask("pool.start", self._pool, number))

    def count(self) -> Child:
        """Start the program that counts the queue; its pipe is the output. Raises OSError, RefusedError."""
        return self._child(*self._ask("pool.count", self._pool))

    def place(self, verb: str, number: int = 0) -> Child:
        """Start a command to the pool's supervisor, "status", "start", "stop" or "restart"; its pipe is the output. Raises OSError,
        RefusedError."""
        return self._child(*self._ask("pool.place", self._pool, verb, number))

    def agent(self) -> tuple[Child, str]:
        """Start Celery's agent: (its process, with input, output and complaints; the URL of the broker). Raises OSError,
        RefusedError."""
        found, descriptors = self._ask("pool.agent", self._pool)
        match found:
            case [*process, str() as broker]:
                return self._child(process, descriptors), broker
        raise RefusedError("the hands started no agent")

    def status(self, pid: int) -> int | None:
        """How a process that was started ended; None while it runs."""
        status, _ = self._ask("pool.status", self._pool, pid)
        return status if isinstance(status, int) else None

    def _child(self, found: object, descriptors: Sequence[int]) -> Child:
        match found:
            case [int() as pid, int() as ticks]:
                return Child(self, ProcId(pid, ticks), descriptors)
        raise OSError(errno.EPROTO, "the hands started nothing")


def in_process(
    configs: Mapping[str, PoolConfig],
    clock: Clock,
    proc_root: Path = Path("/proc"),
    *,
    environ: Mapping[str, str],
    logs: Path,
    agent: str | None = None,
) -> Ask:
    """The operations of the hands in this process, with its own rights, for these pools. `agent`: None is the shipped one."""
    blocks = {name: block(config) for name, config in configs.items()}
    if agent is None:
        agent = AGENT.read_text(encoding="utf-8") if any(config.kind == "celery" for config in configs.values()) else ""
    pools = Pools(lambda: blocks, clock, str(proc_root), environ=environ, logs=str(logs), agent=agent)
    operations = pools.operations()

    def ask(operation: str, *arguments: object) -> tuple[object, Sequence[int]]:
        return operations[operation](arguments)

    return ask


def block(config: PoolConfig) -> Block:
    """What the hands need of a pool's section."""
    keys = {key: getattr(config, key) for key in Block._fields if key not in OF_QUEUE}
    if config.queue is None:
        return Block(**keys)
    sql = msgspec.to_builtins(config.queue) if config.queue.sql else {}
    return Block(**keys, counter=config.queue.command, sql=sql)
