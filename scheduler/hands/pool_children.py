"""The processes that the hands start for pools: workers of command pools, programs that count, questions and orders to a
supervisor, and Celery's agents.

What is started, as which user and where is the configuration's; the brain gets a pidfd and pipes. A worker is drained by its
`drain_signal`, and killed only when it has had its `drain_timeout`. Must not know sizes or load.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable, Mapping, Sequence

from ...models.identity import ProcId
from ...models.lean import TYPE_CHECKING
from .kernel import Clock
from .pool_blocks import Block
from .pool_places import place_command
from .wire import RefusedError, Result

if TYPE_CHECKING:
    import subprocess
    from typing import IO

    Streams = tuple[int, int, int]

_SECOND = 1_000_000_000
LOG_BYTES = 8 << 20
"""The pool's log is rotated (one old file is kept) when a worker starts and the log is larger than this. Chosen."""

STARTS_A_SECOND = 50
"""Most starts in a second, for all pools together. Chosen: a daemon starts at most four workers in each of ten looks a second."""

PLACES_AT_ONCE = 5
"""Most commands to a supervisor at a time: four orders and a question. supervisorctl runs until a worker is up, or has left.
Chosen."""

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""`-P` as an environment variable, for an interpreter that nicety did not choose: one older than 3.11 ignores it."""

_PR_SET_PDEATHSIG = 1
_NOT_FOR_CHILDREN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

BOOTSTRAP = (
    "import sys\n"
    "if sys.path and sys.path[0] == '': del sys.path[0]\n"
    "import json\n"
    "settings = json.loads(sys.stdin.readline())\n"
    "space = {'__name__': 'celery_agent'}\n"
    "exec(compile(settings.pop('script'), 'celery_agent.py', 'exec'), space)\n"
    "space['serve'](settings)\n"
)
"""The interpreter's argument. The agent arrives as text through standard input. So its user need not be able to read our files, no
file next to a script can be imported as `celery`, and no password shows in an argument list."""


class _Child:
    """One of them. It has a session of its own, and keeps its pid until its status was asked for."""

    def __init__(
        self,
        what: str,
        process: subprocess.Popen[bytes],
        number: int = 0,
        patience_ns: int = 0,
        drain_signal: int = signal.SIGTERM,
    ) -> None:
        self.what = what
        self.process = process
        self.number = number
        self.patience_ns = patience_ns
        self.drain_signal = drain_signal
        self.drained_at: int | None = None  # when it got that signal

    def may_be_killed(self, now: int) -> bool:
        """Whether it has had its time since it was asked to end."""
        return self.drained_at is not None and now - self.drained_at >= self.patience_ns

    def kill(self) -> None:
        """End it and all that it started."""
        if self.process.returncode is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Children:
    """See `pools.Pools` for the arguments. Not for several threads: the kernel asks workers to end when the thread that started
    them ends. So they drain when the hands are killed."""

    def __init__(self, clock: Clock, proc_root: str, *, environ: Mapping[str, str], logs: str, agent: str) -> None:
        self._clock = clock
        self._proc_root = proc_root
        self._environ = {key: value for key, value in environ.items() if key not in _NOT_FOR_CHILDREN}
        self._logs = logs
        self._agent = agent
        self._there: dict[tuple[str, int], _Child] = {}  # by pool and pid
        self._starts: list[int] = []  # when, in the last second

    def start(self, pool: str, block: Block, number: int) -> Result:
        """Start worker `number`. No more than `maximum` that were not asked to end, and one in place of one of them; with those
        that drain, twice as many."""
        there = [child for (name, _), child in self._there.items() if name == pool and child.what == "worker"]
        if not 1 <= number <= 2 * block.maximum + 1 or any(child.number == number for child in there):
            raise RefusedError(f"pool {pool} has no place for a worker {number}")
        if len(there) > 2 * block.maximum or sum(child.drained_at is None for child in there) > block.maximum:
            raise RefusedError(f"pool {pool} has at most {block.maximum} workers")
        self._spend()
        import subprocess

        output = open_log(self.log_file(pool))
        try:
            streams = subprocess.DEVNULL, output, output
            process = self._run(pool, block, block.command, streams, NICETY_WORKER=str(number))
        finally:
            os.close(output)
        patience = int(block.drain_timeout * _SECOND)
        return self._keep(pool, _Child("worker", process, number, patience, signal.Signals[block.drain_signal]))

    def count(self, pool: str, block: Block) -> Result:
        """Start the program that counts the queue: its output is the second descriptor."""
        self._admit(pool, "count", 1)
        import subprocess

        streams = subprocess.DEVNULL, subprocess.PIPE, subprocess.DEVNULL
        if block.sql:
            command, environ = self._asks_database(block.sql)
            process = self._run(pool, block, command, streams, **environ)
        else:
            process = self._run(pool, block, block.counter, streams)
        return self._keep(pool, _Child("count", process), process.stdout)

    def _asks_database(self, sql: Mapping[str, object]) -> tuple[list[str], dict[str, str]]:
        """The program that asks a database, and what its environment has besides. Raises OSError, RefusedError."""
        import sys

        url = str(sql["sql"])
        if url.startswith("$"):
            url = self._environ.get(url[1:], "")
            if not url:
                raise RefusedError(f"nicety has no environment variable {sql['sql']}: set it")
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "sql.py"), encoding="utf-8") as file:
            program = file.read()
        command = [str(sql.get("sql_python") or sys.executable), "-c", f"{program}\nserve()", "nicety-counts-rows"]
        query, every = str(sql.get("sql_query", "")), str(sql.get("every", 1.0))
        return command, {"NICETY_SQL_URL": url, "NICETY_SQL_QUERY": query, "NICETY_SQL_EVERY": every, **SAFE_PATH}

    def place(self, pool: str, block: Block, verb: str, number: int) -> Result:
        """Start the command that lists, starts, stops or restarts places: all that it says is the second descriptor."""
        self._admit(pool, "place", PLACES_AT_ONCE)
        try:
            command = place_command(block, verb, number)
        except ValueError as error:
            raise RefusedError(f"pool {pool}: {error}") from None
        import subprocess

        streams = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
        process = self._run(pool, block, command, streams, LC_ALL="C", SYSTEMD_COLORS="0")
        return self._keep(pool, _Child("place", process), process.stdout)

    def agent(self, pool: str, block: Block, main: ProcId) -> Result:
        """Start Celery's agent as the user of the main process, in its environment, and give it its node, its broker and its
        limits. The result has the broker too, whose password must be kept out of logs; the descriptors after the first are its
        input, output and complaints."""
        from .celery import environment, interpreter, user_of

        self._admit(pool, "agent", 2)  # one for the main process that takes over
        user, environ = user_of(self._proc_root, main.pid), environment(self._proc_root, main.pid)
        python = block.python or interpreter(self._proc_root, main.pid, environ)
        broker = block.broker
        if broker.startswith("$"):
            broker = self._environ.get(broker[1:]) or environ.get(broker[1:], "")
            if not broker:
                raise RefusedError(
                    f"neither nicety nor the worker has the environment variable {block.broker[1:]} that broker names: set it "
                    "for nicety"
                )
        settings = {
            "script": self._agent,
            "broker": broker,
            "node": (block.node or "celery@%h").replace("%h", os.uname().nodename),
            "queues": list(block.queues),
            "main": main.pid,
            "minimum": block.minimum,
            "maximum": block.maximum,
        }
        import json
        import subprocess

        pipe = subprocess.PIPE
        process = _spawn(
            [python, "-c", BOOTSTRAP, "nicety-celery-agent"],
            user if user.uid != os.geteuid() else None,
            {key: value for key, value in environ.items() if key not in _NOT_FOR_CHILDREN} | SAFE_PATH,
            "/",
            (pipe, pipe, pipe),
        )
        assert process.stdin is not None
        greeting = json.dumps(settings).encode() + b"\n"
        os.set_blocking(process.stdin.fileno(), False)
        try:
            whole = os.write(process.stdin.fileno(), greeting) == len(greeting)  # a pipe holds 64 KiB
        except OSError:
            whole = True  # it has ended, and its status says so
        if not whole:
            process.kill()
        found, descriptors = self._keep(pool, _Child("agent", process), process.stdin, process.stdout, process.stderr)
        return [*found, broker], descriptors

    def signal(self, pool: str, process: ProcId, number: int) -> bool:
        """Signal a process that was started here; return whether it was. SIGKILL ends all that it started too."""
        child = self._there.get((pool, process.pid))
        if child is None:
            return False
        if self._start_ticks(process.pid) != process.start_ticks:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        now = self._clock.monotonic()
        if child.what == "worker" and number == child.drain_signal:
            child.drained_at = now if child.drained_at is None else child.drained_at
            child.process.send_signal(number)
        elif number == signal.SIGKILL and (child.what != "worker" or child.may_be_killed(now)):
            child.kill()
        else:
            raise RefusedError("a worker gets its drain_signal, and SIGKILL when its drain_timeout is over")
        return True

    def status(self, pool: str, pid: int) -> int | None:
        """How a process ended: its status, or minus the signal that killed it; None while it runs. Asked for once."""
        child = self._there.get((pool, pid))
        if child is None:
            raise RefusedError(f"pid {pid} was not started for pool {pool}, or its status was asked for already")
        status = child.process.poll()
        if status is not None:
            del self._there[pool, pid]
        return status

    def end(self) -> None:
        """Drain and end all; return when they have ended."""
        now = self._clock.monotonic()
        for child in self._there.values():
            if child.what != "worker":
                child.kill()
            elif child.process.poll() is None:
                child.drained_at = now if child.drained_at is None else child.drained_at
                child.process.send_signal(child.drain_signal)
        while self._there:
            now = self._clock.monotonic()
            for key, child in list(self._there.items()):
                if child.process.poll() is not None:
                    del self._there[key]
                elif child.may_be_killed(now):
                    child.kill()
            if self._there:
                self._clock.sleep_until(now + _SECOND // 50)

    def log_file(self, pool: str) -> str:
        """Where the output of a pool's workers goes."""
        return os.path.join(self._logs, log_name(pool))

    def _admit(self, pool: str, what: str, most: int) -> None:
        """Raise RefusedError if the pool has `most` such processes already."""
        if sum(name == pool and child.what == what for (name, _), child in self._there.items()) >= most:
            raise RefusedError(f"pool {pool} has {most} of these already")
        self._spend()

    def _spend(self) -> None:
        now = self._clock.monotonic()
        self._starts = [at for at in self._starts if now - at < _SECOND]
        if len(self._starts) >= STARTS_A_SECOND:
            raise RefusedError(f"more than {STARTS_A_SECOND} processes in a second")
        self._starts.append(now)

    def _start_ticks(self, pid: int) -> int:
        with open(f"{self._proc_root}/{pid}/stat", "rb") as file:  # it was not waited for: the pid is still its own
            return int(file.read().rpartition(b")")[2].split()[19])

    def _keep(self, pool: str, child: _Child, *pipes: IO[bytes] | None) -> tuple[list[int], list[int]]:
        process = child.process
        self._there[pool, process.pid] = child
        descriptors = [os.pidfd_open(process.pid)]
        for pipe in pipes:
            assert pipe is not None
            descriptors.append(os.dup(pipe.fileno()))
            pipe.close()
        return [process.pid, self._start_ticks(process.pid)], descriptors

    def _run(self, pool: str, block: Block, command: Sequence[str], streams: Streams, **extra: str) -> subprocess.Popen[bytes]:
        """A process of the pool, with its user, folder and environment. Raises OSError; RefusedError: no such user."""
        import pwd

        user = None
        environ = {**self._environ, "NICETY_POOL": pool, **extra}
        if block.user:
            try:
                entry = pwd.getpwnam(block.user)
            except KeyError:
                raise RefusedError(f"there is no user {block.user!r}; correct pools.{pool}.user") from None
            environ |= {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
            if entry.pw_uid != os.geteuid():
                user = entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
        ending = signal.Signals[block.drain_signal] if command is block.command else signal.SIGTERM
        return _spawn(command, user, environ, block.directory or None, streams, ends_with_us=ending)


def _spawn(
    command: Sequence[str],
    user: tuple[int, int, Sequence[int]] | None,
    environ: Mapping[str, str],
    directory: str | None,
    streams: Streams,
    *,
    ends_with_us: int = 0,
) -> subprocess.Popen[bytes]:
    """A process with a session of its own, as this user (None: ours). `ends_with_us`: the signal that it gets when we end; 0: none.
    Raises OSError."""
    import ctypes
    import functools
    import subprocess

    uid, gid, groups = (None, None, None) if user is None else user
    prepare = None
    if ends_with_us:
        prepare = functools.partial(_become_child, ctypes.CDLL(None, use_errno=True).prctl, os.getpid(), int(ends_with_us))
    stdin, stdout, stderr = streams
    try:
        return subprocess.Popen(
            list(command),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=directory,
            env=environ,
            start_new_session=True,
            preexec_fn=prepare,
            user=uid,
            group=gid,
            extra_groups=groups,
        )
    except subprocess.SubprocessError as error:  # in the child before exec
        raise OSError(errno.EIO, str(error)) from None


def log_name(pool: str) -> str:
    """The file name of a pool's log."""
    from urllib.parse import quote

    return f"{quote(pool, safe=' ')}.log"


def open_log(path: str) -> int:
    """Open a pool's log for appending, rotated if it is full. No link is followed. Raises OSError."""
    os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
    try:
        if os.stat(path).st_size > LOG_BYTES:
            os.replace(path, f"{path}.1")
    except FileNotFoundError:
        pass
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    output = os.open(path, flags, 0o640)
    found = os.fstat(output)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(output)
        raise OSError(errno.EEXIST, "not a file, or one with a second name (hard link); move it away", path)
    return output


def _become_child(prctl: Callable[..., int], parent: int, ending: int) -> None:
    """In the child before exec: arrange to die with the hands, and start with no signal blocked or ignored.

    Runs after the change of user, which would clear the death signal. Everything that it calls was looked up before the fork.
    """
    prctl(_PR_SET_PDEATHSIG, ending, 0, 0, 0)
    if os.getppid() != parent:  # the hands ended before the line above
        os._exit(1)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
