"""What the hands do to pools on request: signals, uWSGI's FIFO and stats socket, and the processes of `pool_children.py`.

The brain names a pool. What that pool is stands in the configuration, which the hands read themselves. Its main process is the one
that the configured pid or pid file names, not one that the brain names. A signal goes to that process or to a child of it, and only
if it is one that its kind of pool uses and that the process catches: to a process that does not, it would be the end or a stop.

    operation                                    needs, where the pool is another user's
    pool.signal     to a main process, a worker  CAP_KILL
    pool.fifo       + or - for uWSGI             CAP_DAC_OVERRIDE; CAP_SYS_PTRACE to see who reads it
    pool.stats      uWSGI's stats socket         CAP_DAC_OVERRIDE for a unix socket, the network for another
    pool.hang_up    the end of that
    pool.start      a worker                     CAP_SETUID, CAP_SETGID
    pool.count      the program that counts      CAP_SETUID, CAP_SETGID
    pool.place      status, start, stop, restart with a supervisor: what its user may, so root for the system's
    pool.agent      Celery's agent               CAP_SETUID, CAP_SETGID, CAP_SYS_PTRACE; the network for what it asks
    pool.status     how a process ended
    pool.reload     the configuration again

Must not know sizes, load or policies. An ordinary user's daemon calls the same operations in its own process.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
from collections.abc import Callable, Mapping, Sequence

from ...models.identity import ProcId
from .kernel import Clock
from .pool_blocks import Block
from .pool_children import Children
from .pool_places import KINDS
from .safe_files import StoreError
from .wire import Operation, RefusedError, Result

_SECOND = 1_000_000_000
QUESTIONS_AT_ONCE, QUESTIONS_A_SECOND = 20, 20
"""Connections to a stats socket, one at a time. The daemon asks at most each 50 ms. Chosen."""

UNREAD_AT_ONCE, UNREAD_A_SECOND = 4, 0.1
"""Answers of uWSGI that were not read to their end. The master writes them itself, and waits up to 4 s (its socket-timeout) for a
reader. Chosen."""

SIGNALS_AT_ONCE, SIGNALS_A_SECOND = 50, 10
"""Signals to a main process, and commands on a FIFO: each is sent when the one before has shown its effect. Chosen."""

RECYCLED_AT_ONCE, RECYCLED_A_SECOND = 16, 1
"""Signals to workers of a pool. Chosen: a daemon replaces a worker a minute, and lets Celery's held ones go all at once."""

ORDERS_AT_ONCE, ORDERS_A_SECOND = 30, 5
"""Questions and orders to a supervisor. Chosen: a daemon asks each second while something is under way."""

_MAIN = {"gunicorn": (signal.SIGTTIN, signal.SIGTTOU)}
"""Signals to a main process. 0, which asks only whether one would be accepted, is admitted too."""

_WORKER = {"gunicorn": signal.SIGTERM, "uwsgi": signal.SIGHUP, "celery": signal.SIGCONT}
"""The signal to a worker: it ends when its request is done; for Celery, it continues after its agent has died."""


class Pools:
    """The pools of the configuration that `blocks` reads, and what was started for them.

    `environ`: what workers inherit. `logs`: the folder of the workers' output. `agent`: the text of Celery's agent.
    Raises as `blocks` does.
    """

    def __init__(
        self,
        blocks: Callable[[], Mapping[str, Block]],
        clock: Clock,
        proc_root: str = "/proc",
        *,
        environ: Mapping[str, str],
        logs: str,
        agent: str = "",
    ) -> None:
        self._read_blocks = blocks
        self._blocks = blocks()
        self._clock = clock
        self._proc_root = proc_root
        self._children = Children(clock, proc_root, environ=environ, logs=logs, agent=agent)
        self._configured: dict[int, ProcId] = {}  # by a pid of the configuration: the process that had it first
        self._sizes: dict[ProcId, int] = {}  # children of main processes when those were first signalled
        self._budgets: dict[tuple[str, str], Budget] = {}
        self._asked: dict[str, socket.socket] = {}  # the connections to stats sockets
        self._filled: set[tuple[str, int]] = set()  # pools and places that were started here

    def operations(self) -> dict[str, Operation]:
        """What may be asked."""
        return {
            "pool.signal": self._signal,
            "pool.fifo": self._fifo,
            "pool.stats": self._stats,
            "pool.hang_up": self._hang_up,
            "pool.start": self._start,
            "pool.count": self._count,
            "pool.place": self._place,
            "pool.agent": self._agent,
            "pool.status": self._status,
            "pool.reload": self._reload,
        }

    def end(self) -> None:
        """The brain is gone: drain and end all that was started for it. Returns when it has ended, after the longest
        `drain_timeout` at the latest."""
        for pool in list(self._asked):
            self._end_question(pool)
        self._children.end()

    # --- the operations -------------------------------------------------------------------------------------------------------

    def _signal(self, arguments: Sequence[object]) -> Result:
        match arguments:
            case [str() as pool, int() as pid, int() as ticks, int() as number] if not isinstance(number, bool):
                process = ProcId(pid, ticks)
            case _:
                raise RefusedError("a signal needs a pool, a pid, a start time and a number")
        if self._children.signal(pool, process, number):
            return None, ()
        block = self._block(pool, *_WORKER)
        main = self._main(block)
        if process == main:
            if number not in (0, *_MAIN.get(block.kind, ())):
                raise RefusedError(f"{block.kind}'s main process gets no signal {number}")
            if number:
                self._keep_the_size(block, main, number)
                self._spend(pool, "main", SIGNALS_AT_ONCE, SIGNALS_A_SECOND)
        else:
            if number != _WORKER[block.kind]:
                raise RefusedError(f"a worker of {block.kind} gets no signal {number}")
            if parent_of(self._proc_root, process) != main.pid:
                raise RefusedError(f"pid {process.pid} is no worker of pool {pool}")
            if f"GUNICORN_PID={main.pid}".encode() in self._environment(process.pid):
                raise RefusedError(f"pid {process.pid} is to follow the main process of pool {pool}, and no worker")
            self._spend(pool, "worker", RECYCLED_AT_ONCE, RECYCLED_A_SECOND)
        self._send(process, number)
        return None, ()

    def _fifo(self, arguments: Sequence[object]) -> Result:
        """Only ever + (one worker more) or - (one less): other letters stop or reload uWSGI. The result is "" or why not."""
        match arguments:
            case [str() as pool, str() as commands] if commands == "-" or (commands and not commands.strip("+")):
                block = self._block(pool, "uwsgi")
            case _:
                raise RefusedError("uWSGI's FIFO takes + and - only")
        if len(commands) > max(block.maximum, 1):
            raise RefusedError(f"pool {pool} has at most {block.maximum} workers")
        main = self._main(block)
        self._spend(pool, "main", SIGNALS_AT_ONCE, SIGNALS_A_SECOND)
        return write_fifo(self._proc_root, main.pid, block.fifo, commands), ()

    def _stats(self, arguments: Sequence[object]) -> Result:
        match arguments:
            case [str() as pool]:
                block = self._block(pool, "uwsgi")
            case _:
                raise RefusedError("a stats socket needs a pool")
        self._end_question(pool)
        if not self._budget(pool, "unread", UNREAD_AT_ONCE, UNREAD_A_SECOND).has(self._clock.monotonic()):
            raise RefusedError("has not been read to its end several times: it is left alone for some seconds")
        self._spend(pool, "question", QUESTIONS_AT_ONCE, QUESTIONS_A_SECOND)
        family, target = address(block.stats)
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        failure = sock.connect_ex(target)
        if failure not in (0, errno.EINPROGRESS):
            sock.close()
            raise OSError(failure, os.strerror(failure))
        self._asked[pool] = sock
        return None, (os.dup(sock.fileno()),)

    def _hang_up(self, arguments: Sequence[object]) -> Result:
        match arguments:
            case [str() as pool]:
                self._end_question(pool)
                return None, ()
        raise RefusedError("a stats socket needs a pool")

    def _end_question(self, pool: str) -> None:
        """End a connection to a stats socket, if there is one, for its reader too: the master must not wait for it."""
        sock = self._asked.pop(pool, None)
        if sock is None:
            return
        if not _has_hung_up(sock):
            self._budget(pool, "unread", UNREAD_AT_ONCE, UNREAD_A_SECOND).take(self._clock.monotonic())
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        sock.close()

    def _start(self, arguments: Sequence[object]) -> Result:
        match arguments:
            case [str() as pool, int() as number]:
                return self._children.start(pool, self._block(pool, "command"), number)
        raise RefusedError("a worker needs a pool and a number")

    def _count(self, arguments: Sequence[object]) -> Result:
        match arguments:
            case [str() as pool] if (block := self._block(pool, "command", *KINDS)).counter or block.sql:
                return self._children.count(pool, block)
        raise RefusedError("no program counts for this pool")

    def _place(self, arguments: Sequence[object]) -> Result:
        """The places below `minimum` are never stopped, unless they were started here."""
        match arguments:
            case [str() as pool, ("status" | "start" | "stop" | "restart") as verb, int() as number]:
                block = self._block(pool, *KINDS)
            case _:
                raise RefusedError("a supervisor is asked for the status, start, stop or restart of a place")
        if not 0 <= number < block.maximum:
            raise RefusedError(f"pool {pool} has no place {number}")
        if verb == "stop" and number < block.minimum and (pool, number) not in self._filled:
            raise RefusedError(f"place {number} of pool {pool} is one of the {block.minimum} that are never stopped")
        self._spend(pool, "place", ORDERS_AT_ONCE, ORDERS_A_SECOND)
        if verb == "start":
            self._filled.add((pool, number))
        return self._children.place(pool, block, verb, number)

    def _agent(self, arguments: Sequence[object]) -> Result:
        match arguments:
            case [str() as pool]:
                block = self._block(pool, "celery")
                return self._children.agent(pool, block, self._main(block))
        raise RefusedError("an agent needs a pool")

    def _status(self, arguments: Sequence[object]) -> Result:
        match arguments:
            case [str() as pool, int() as pid]:
                return self._children.status(pool, pid), ()
        raise RefusedError("a status needs a pool and a pid")

    def _reload(self, _arguments: Sequence[object]) -> Result:
        """What is wrong with the configuration leaves the old one in force."""
        try:
            self._blocks = self._read_blocks()
        except StoreError as error:
            raise RefusedError(str(error)) from None
        return sorted(self._blocks), ()

    # --- what a pool is -------------------------------------------------------------------------------------------------------

    def _block(self, pool: str, *kinds: str) -> Block:
        block = self._blocks.get(pool)
        if block is None or block.kind not in kinds:
            raise RefusedError(f"no pool {pool!r} of this kind is configured")
        return block

    def _main(self, block: Block) -> ProcId:
        """The main process as the configuration names it now. A pid file counts only if root, we, or a user of the process wrote
        it. Raises RefusedError, OSError."""
        if not block.pidfile:
            pid, writer = block.pid or 0, None
        else:
            descriptor = os.open(block.pidfile, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                writer = os.fstat(descriptor).st_uid
                text = file.read(64).decode("ascii", "replace").strip()
            pid = int(text) if text.isdecimal() else 0
        if not 1 < pid < 1 << 31:
            raise RefusedError("the main process has no pid")
        start = stat_fields(self._proc_root, pid)[19]
        process = ProcId(pid, int(start))
        if writer is not None and writer not in (0, os.geteuid(), *users_of(self._proc_root, pid)):
            raise RefusedError(f"the pid file was written by user {writer}, and pid {pid} is another's")
        if writer is None and self._configured.setdefault(pid, process) != process:
            raise RefusedError(f"pid {pid} is another process than at first")
        return process

    def _keep_the_size(self, block: Block, main: ProcId, number: int) -> None:
        """Refuse a signal that would take the pool out of its limits, or out of the size that it had before us. Workers that
        drain count too, so twice as many are admitted."""
        count = len(children(self._proc_root, main.pid))
        first = self._sizes.setdefault(main, count)
        if number == signal.SIGTTIN and count >= 2 * max(block.maximum, first):
            raise RefusedError(f"there are {count} workers, at most {max(block.maximum, first)} are wanted")
        if number == signal.SIGTTOU and count <= min(block.minimum, first):
            raise RefusedError(f"there are {count} workers, at least {min(block.minimum, first)} are wanted")

    def _budget(self, pool: str, what: str, most: float, a_second: float) -> Budget:
        return self._budgets.setdefault((pool, what), Budget(most, a_second))

    def _spend(self, pool: str, what: str, most: float, a_second: float) -> None:
        """Raise RefusedError if too many were asked for."""
        budget, now = self._budget(pool, what, most, a_second), self._clock.monotonic()
        if not budget.has(now):
            raise RefusedError(f"too many requests for pool {pool}: at most {a_second:g} a second")
        budget.take(now)

    def _environment(self, pid: int) -> list[bytes]:
        try:
            with open(f"{self._proc_root}/{pid}/environ", "rb") as file:
                return file.read().split(b"\0")
        except OSError:
            return []

    def _send(self, process: ProcId, number: int) -> None:
        """Raises OSError, ESRCH if the process is gone; RefusedError if it does not catch the signal."""
        descriptor = os.pidfd_open(process.pid)
        try:
            if int(stat_fields(self._proc_root, process.pid)[19]) != process.start_ticks:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
            if number not in (0, signal.SIGCONT) and not _catches(self._proc_root, process.pid, number):
                raise RefusedError(f"pid {process.pid} does not catch {signal.Signals(number).name}, so it gets none")
            signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


class Budget:
    """How often something may be done: `most` at once, and `a_second` after that."""

    def __init__(self, most: float, a_second: float) -> None:
        self._most, self._a_second = most, a_second
        self._left, self._at = most, 0

    def has(self, now: int) -> bool:
        """Whether it may be done now (ns)."""
        self._left = min(self._most, self._left + (now - self._at) / 1e9 * self._a_second)
        self._at = now
        return self._left >= 1

    def take(self, now: int) -> None:
        """It was done."""
        self.has(now)
        self._left -= 1


def address(text: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    """The address of a stats socket: "HOST:PORT", with HOST an IP address or empty, or a unix socket "/PATH" or "@NAME".

    Raises ValueError with the cause. Host names are refused because looking them up may block.
    """
    import ipaddress

    if text.startswith("/"):
        return socket.AF_UNIX, text
    if text.startswith("@"):
        return socket.AF_UNIX, "\0" + text[1:]
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f'{text!r} is no address: give "HOST:PORT", or the absolute path of a unix socket')
    host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host.removeprefix("[").removesuffix("]"))
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is a name, and looking names up may wait: give its address") from None
    if found.is_unspecified:
        found = ipaddress.ip_address("127.0.0.1" if found.version == 4 else "::1")
    return (socket.AF_INET if found.version == 4 else socket.AF_INET6), (str(found), int(port))


def write_fifo(proc_root: str, master: int, path: str, commands: str) -> str:
    """Write commands to the FIFO that the master reads; return "", or why nothing was written.

    uWSGI recreates the FIFO after each writer, so it is opened again for each command. Nothing is written to a file that is no
    FIFO, or to a FIFO that another process reads.
    """
    try:
        fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return f"there is no FIFO {path}: start uWSGI with master-fifo = {path}, or correct fifo"
        if error.errno == errno.ENXIO:
            return f"nobody reads FIFO {path}: see uWSGI's log, or correct fifo"
        return f"FIFO {path} cannot be written to ({error.strerror}): run nicety as uWSGI's user, or correct fifo"
    try:
        if not stat.S_ISFIFO(os.fstat(fifo).st_mode):
            return f"{path} is no FIFO: nothing is written to it; correct fifo"
        if not _holds(proc_root, master, os.fstat(fifo)):
            return f"FIFO {path} is not read by uWSGI's master, pid {master}: nothing is written to it; correct fifo"
        os.write(fifo, commands.encode("ascii"))
    except OSError as error:  # EAGAIN: full; EPIPE: just recreated
        return f"FIFO {path} takes nothing ({error.strerror}): see uWSGI's log"
    finally:
        os.close(fifo)
    return ""


def _holds(proc_root: str, pid: int, file: os.stat_result) -> bool:
    """Whether a process has a file open; True if that may not be seen."""
    folder = f"{proc_root}/{pid}/fd"
    try:
        names = os.listdir(folder)
    except PermissionError:
        return True
    except OSError:
        return False
    for name in names:
        try:
            found = os.stat(f"{folder}/{name}")
        except OSError:  # closed meanwhile
            continue
        if (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino):
            return True
    return False


def stat_fields(proc_root: str, pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat after the name: state, parent, ... Raises OSError: ESRCH if it is gone."""
    try:
        with open(f"{proc_root}/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None


def parent_of(proc_root: str, process: ProcId) -> int:
    """The pid of its parent. Raises OSError: ESRCH if it is gone."""
    fields = stat_fields(proc_root, process.pid)
    if int(fields[19]) != process.start_ticks:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return int(fields[1])


def children(proc_root: str, pid: int) -> list[int]:
    """The pids of its children, by a search if the kernel keeps no list."""
    try:
        with open(f"{proc_root}/{pid}/task/{pid}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except ProcessLookupError:
        return []
    except FileNotFoundError:
        pass
    found = []
    for name in os.listdir(proc_root):
        if name.isdecimal():
            try:
                if int(stat_fields(proc_root, int(name))[1]) == pid:
                    found.append(int(name))
            except OSError:
                continue
    return found


def users_of(proc_root: str, pid: int) -> list[int]:
    """The users of a process: real, effective, saved and of files."""
    return [int(word) for word in _status_line(proc_root, pid, "Uid").split()]


def _catches(proc_root: str, pid: int, number: int) -> bool:
    return bool(int(_status_line(proc_root, pid, "SigCgt") or "0", 16) >> (number - 1) & 1)


def _status_line(proc_root: str, pid: int, key: str) -> str:
    try:
        with open(f"{proc_root}/{pid}/status", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(f"{key}:")), "")
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None


def _has_hung_up(sock: socket.socket) -> bool:
    """Whether the other end has said all that it will, or could not be reached."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
