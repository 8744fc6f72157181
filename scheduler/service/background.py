"""A program of nicety's own beside the daemon: only on idle CPUs, within a time and a memory, with what it says collected.

Must not know what it computes. Nothing here waits, except `close`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...models.identity import ProcId
from ..interpreter import environment
from ..read.holders import identify
from ..read.text import printable
from ..words import size

GRACE_NS = 10 * 10**9
"""ns from SIGTERM to SIGKILL. Chosen: enough to write what is finished."""

CLOSING_SECONDS = 2.0
"""Seconds from SIGTERM to SIGKILL when the daemon ends. Chosen: what runs then leaves at most its parts for the next time, and the
end of the daemon must not take long."""

RESULT_BYTES, TALK_BYTES = 16 << 20, 1 << 16
"""Maximum bytes read of a result, and of the end of the messages. Chosen: a result has some kilobytes."""

_PR_SET_PDEATHSIG = 1
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Limits(NamedTuple):
    """What a program may take until it is stopped, with words for the message that says so."""

    seconds: float
    seconds_said: str
    memory: int  # resident bytes, of all its processes
    memory_said: str


@dataclass(frozen=True, slots=True)
class Ended:
    """What an ended program left."""

    result: bytes  # its stdout
    stopped_for: str  # why it was asked to end; "": it was not
    failure: str  # how it ended and its last message, for people


@dataclass(slots=True)
class _Child:
    """A running program, in a separate session and process group."""

    process: subprocess.Popen[bytes]
    began: int  # monotonic ns
    result: int  # descriptor of the memory file for its result
    talk: int  # descriptor of the memory file for its messages
    stopped_for: str = ""
    kill_at: int = 0  # monotonic ns when it gets SIGKILL, if it was asked to end


class MakesIdle(Protocol):
    """Hands that make a child of ours idle where we may not."""

    def idle(self, process: ProcId) -> None:
        """Have it run only where nothing else wants a CPU. Raises OSError."""
        ...


class Background:
    """Runs one program at a time. Times are monotonic ns.

    `start` must be called from a thread that lives as long as the daemon, because the kernel ends the program when the thread that
    started it ends.
    """

    def __init__(self, name: str, hands: MakesIdle | None = None) -> None:
        """`name` of the memory files. `hands` as in the units, whose brain may set no priorities."""
        self._name = name
        self._hands = hands
        self.where = ""
        """Where the program runs that was started last, for people."""
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """Of the running program; None: none runs."""
        return None if self._child is None else self._child.process.pid

    def seconds(self, now: int) -> float:
        """How long the program has been running."""
        return 0.0 if self._child is None else (now - self._child.began) / 1e9

    def start(self, command: Sequence[str], now: int) -> int:
        """Start a program. Returns its pid. Raises OSError and subprocess.SubprocessError. Takes some milliseconds."""
        assert self._child is None
        result, talk = (os.memfd_create(f"nicety-{self._name}-{part}") for part in ("result", "talk"))
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=talk,
                env={**environment(os.environ), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
                preexec_fn=functools.partial(_end_with_parent, _prctl(), os.getpid()),
            )
        except BaseException:
            os.close(result)
            os.close(talk)
            raise
        self.where = "only on idle CPUs" if _make_idle(process.pid, self._hands) else "on any CPUs: it may not be made idle here"
        self._child = _Child(process, now, result, talk)
        return process.pid

    def look(self, now: int, limits: Limits) -> Ended | None:
        """Check whether the program has ended, and stop it if it is beyond a limit. None: it still runs, or none does."""
        child = self._child
        if child is None:
            return None
        if os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self._child = None
            _reap(child)  # also ends the processes that it started
            ended = _ended(child)
            _forget(child)
            return ended
        if child.stopped_for:
            if now >= child.kill_at:
                _signal(child, signal.SIGKILL)
        elif now - child.began > limits.seconds * 1e9:
            self.stop(now, f"it took more than {limits.seconds_said}")
        elif (resident := _resident(child.process.pid)) > limits.memory:
            self.stop(now, f"it used {size(resident)}, more than {limits.memory_said}")
        return None

    def stop(self, now: int, reason: str) -> None:
        """Ask the running program to end."""
        child = self._child
        if child is not None and not child.stopped_for:
            child.stopped_for, child.kill_at = reason, now + GRACE_NS
            _signal(child, signal.SIGTERM)

    def close(self) -> None:
        """End a running program and wait for its end. Idempotent."""
        child, self._child = self._child, None
        if child is None:
            return
        _signal(child, signal.SIGTERM)
        try:
            child.process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        _reap(child)
        _forget(child)


@functools.cache
def _prctl() -> Any:
    return ctypes.CDLL(None, use_errno=True).prctl


def _end_with_parent(prctl: Any, parent: int) -> None:
    """Runs in the child before exec: have the kernel send SIGTERM when the daemon dies. Calls only what was looked up before the
    fork."""
    prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # the daemon ended before the line above
        os._exit(1)


def _make_idle(pid: int, hands: MakesIdle | None) -> bool:
    """Give the program only CPU time that nothing else wants, and make it the first process to be killed when memory is short.

    The parent does this after the start, which waits for the exec: an idle child would reach the exec only on an idle machine. The
    program is alone in the autogroup of its session, where SCHED_IDLE yields to nothing. So the autogroup gets the least weight
    too. The kernel serves disk requests of SCHED_IDLE as idle ones: task_nice_ioclass in include/linux/ioprio.h. Returns whether it
    is idle.
    """
    for act in (
        lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
        lambda: Path(f"/proc/{pid}/autogroup").write_text("19"),
        lambda: Path(f"/proc/{pid}/oom_score_adj").write_text("1000"),
    ):
        with suppress(OSError):  # the program has ended already, we may not, or this kernel has no autogroups
            act()
    process = None if hands is None or _is_idle(pid) else identify("/proc", pid)
    if hands is not None and process is not None:
        with suppress(OSError):
            hands.idle(process)
    return _is_idle(pid)


def _is_idle(pid: int) -> bool:
    try:
        return os.sched_getscheduler(pid) == os.SCHED_IDLE
    except OSError:  # it has ended
        return True


def _resident(pid: int) -> int:
    """Resident bytes of a process and of all its descendants; 0 if it is gone."""
    total, left = 0, [pid]
    while left:
        place = Path(f"/proc/{left.pop()}")
        try:
            total += int((place / "statm").read_text().split()[1]) * _PAGE
            for task in (place / "task").iterdir():
                left += map(int, (task / "children").read_text().split())
        except (OSError, IndexError):
            continue  # ended meanwhile
    return total


def _signal(child: _Child, number: int) -> None:
    """Signal all processes of a program. Its pid is not reused before it has been waited for."""
    try:
        os.killpg(child.process.pid, number)
    except ProcessLookupError:
        pass


def _reap(child: _Child) -> None:
    _signal(child, signal.SIGKILL)
    child.process.wait()


def _forget(child: _Child) -> None:
    os.close(child.result)
    os.close(child.talk)


def _ended(child: _Child) -> Ended:
    code, length = child.process.returncode, os.fstat(child.talk).st_size
    talk = os.pread(child.talk, TALK_BYTES, max(length - TALK_BYTES, 0)).decode(errors="replace").rstrip()
    how = f"status {code}" if code >= 0 else f"signal {-code}"
    last = talk.splitlines()[-1] if talk.strip() else "without a message"
    failure = f"({how}): {printable(last.removeprefix('nicety: '))}"
    return Ended(os.pread(child.result, RESULT_BYTES, 0), child.stopped_for, failure)
