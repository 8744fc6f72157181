"""Training in the background: starts it when it is due, keeps it idle and within its time and memory, and reports the result.

Knows how to run `python -m nicety.training` and to read its result, not how models are made. Nothing here waits, except `close`.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models.artifact import FEATURES, ArtifactError, live_digest
from ..config.sections import Models
from ..explain.logstream import INFO, NOTICE, WARNING
from ..interpreter import PYTHON
from ..read.text import printable
from ..words import size, span

TRAINING = (*PYTHON, "-m", "nicety.training")

OWN_SHARE = 0.8
"""Share of its time and memory that training gets as its limits, so that it ends by itself with what it has before it is ended."""

GRACE_NS = 10 * 10**9
"""Time from SIGTERM to SIGKILL."""

CLOSING_SECONDS = 2.0
"""The same when the daemon ends: then a training only has to leave its parts for the next one."""

RESULT_BYTES, TALK_BYTES = 16 << 20, 1 << 16
"""Maximum bytes that are read of a training's output: its result, and the end of its messages."""

_PR_SET_PDEATHSIG = 1
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class News:
    """What a turn has to report."""

    said: tuple[tuple[int, str], ...] = ()  # (priority, sentence) for the log
    promoted: bool = False  # another model is live than when the training began


@dataclass(slots=True)
class _Child:
    """A training under way, in a session and process group of its own."""

    process: subprocess.Popen[bytes]
    began: int  # monotonic ns
    result: int  # descriptor of the memory file that it writes its result to
    talk: int  # the same for its messages
    live: dict[str, str | None]  # when it began
    ended_for: str = ""  # why it was asked to end
    kill_at: int = 0  # when it gets SIGKILL, once it was asked


class Retraining:
    """Trains in the background, `models.retrain_hours` after the last one ended; never two at a time. All times are monotonic ns.

    `turn` must be called from a thread that lives as long as the daemon: the kernel ends the training when the thread that started
    it ends, for whatever reason.
    """

    def __init__(self, models: Path, arguments: Sequence[str], command: Sequence[str] = TRAINING) -> None:
        """`models`: the directory with the live models. `arguments`: where configuration and state are, for the training."""
        self._models = models
        self._command = (*command, "train", "--json", *arguments)
        self._config = Models()
        self._due: int | None = None
        self._child: _Child | None = None

    def configure(self, config: Models, now: int) -> None:
        """Set how often and within what limits to train from now on. If the hours change, the first training comes after them."""
        changed = config.retrain_hours != self._config.retrain_hours
        self._config = config
        if changed:
            self._put_off(now)
        if self._child is not None and not config.retrain_hours:
            self._tell_to_end(self._child, now, "models.retrain_hours is 0 now")

    def turn(self, now: int) -> News:
        """Start what is due, supervise what runs, collect what has ended. Takes some milliseconds at a start, otherwise none."""
        if self._child is not None:
            return self._look(self._child, now)
        if self._due is None or now < self._due:
            return News()
        self._put_off(now)
        try:
            self._child = self._start(now)
        except (OSError, subprocess.SubprocessError) as error:
            return News(((WARNING, f"retraining did not start: {error}; the next one {self._next(now)}"),))
        limits = f"at most {span(self._config.retrain_seconds)} and {size(self._config.retrain_bytes)}"
        return News(((INFO, f"retraining began: pid {self._child.process.pid}, when the CPUs are idle, {limits}"),))

    def state(self, now: int) -> str:
        """For people: what runs, or when the next one is due."""
        if self._child is not None:
            return f"pid {self._child.process.pid}, since {span((now - self._child.began) / 1e9)}"
        return "off" if self._due is None else f"in {span((self._due - now) / 1e9)}"

    def close(self) -> None:
        """End what runs, and wait until it has ended. Idempotent."""
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

    def _start(self, now: int) -> _Child:
        config = self._config
        seconds, memory = round(config.retrain_seconds * OWN_SHARE), round(config.retrain_bytes * OWN_SHARE)
        result, talk = (os.memfd_create(f"nicety-training-{name}") for name in ("result", "talk"))
        try:
            process = subprocess.Popen(
                (*self._command, "--time-budget", f"{seconds}s", "--memory", str(memory)),
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=talk,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
                preexec_fn=functools.partial(_end_with_parent, _prctl(), os.getpid()),
            )
        except BaseException:
            os.close(result)
            os.close(talk)
            raise
        _make_idle(process.pid)
        return _Child(process, now, result, talk, self._live())

    def _look(self, child: _Child, now: int) -> News:
        """Check whether it has ended or passed a limit."""
        if os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self._child = None
            self._put_off(now)
            _reap(child)  # ends what it had started
            news = News(_outcome(child, self._next(now)), self._live() != child.live)
            _forget(child)
            return news
        if child.ended_for:
            if now >= child.kill_at:
                _signal(child, signal.SIGKILL)
            return News()
        seconds, memory = self._config.retrain_seconds, self._config.retrain_bytes
        if now - child.began > seconds * 1e9:
            self._tell_to_end(child, now, f"it took more than models.retrain_seconds = {seconds:g}")
        elif (resident := _resident(child.process.pid)) > memory:
            self._tell_to_end(child, now, f"it took {size(resident)}, more than models.retrain_bytes = {memory}")
        return News()

    def _tell_to_end(self, child: _Child, now: int, reason: str) -> None:
        if not child.ended_for:
            child.ended_for, child.kill_at = reason, now + GRACE_NS
            _signal(child, signal.SIGTERM)

    def _put_off(self, now: int) -> None:
        """Make the next one due after its hours from now, if there is to be one."""
        hours = self._config.retrain_hours
        self._due = now + round(hours * 3600e9) if hours else None

    def _next(self, now: int) -> str:
        return "is switched off" if self._due is None else f"comes in {span((self._due - now) / 1e9)}"

    def _live(self) -> dict[str, str | None]:
        """Which models are live; None: none that could be used."""
        found: dict[str, str | None] = {}
        for kind in FEATURES:
            try:
                found[kind] = live_digest(self._models, kind)
            except ArtifactError:
                found[kind] = None
        return found


# --- the process --------------------------------------------------------------------------------------------------------------


@functools.cache
def _prctl() -> Any:
    return ctypes.CDLL(None, use_errno=True).prctl


def _end_with_parent(prctl: Any, parent: int) -> None:
    """In the child before exec: SIGTERM when the daemon dies. Everything it calls was looked up before the fork."""
    prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # the daemon ended before the line above
        os._exit(1)


def _make_idle(pid: int) -> None:
    """Give it only CPU time that nothing else wants, and make it the first choice when memory is short.

    Done by the parent after the start, which waits for the exec: an idle child would get there only when the machine is idle. Its
    session has an autogroup of its own, in which SCHED_IDLE yields to nothing else: so the autogroup gets the least weight too. The
    kernel serves the disk requests of SCHED_IDLE as idle ones: task_nice_ioclass in include/linux/ioprio.h.
    """
    for act in (
        lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
        lambda: Path(f"/proc/{pid}/autogroup").write_text("19"),
        lambda: Path(f"/proc/{pid}/oom_score_adj").write_text("1000"),
    ):
        try:
            act()
        except OSError:
            pass  # it has ended already, or this kernel has no autogroups


def _resident(pid: int) -> int:
    """Resident bytes of a process and all that it started; 0 if it is gone."""
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
    """Signal all its processes; its number is its own until it has been waited for."""
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


# --- the result ---------------------------------------------------------------------------------------------------------------


def _outcome(child: _Child, again: str) -> tuple[tuple[int, str], ...]:
    """(priority, sentence) for each kind of model, or why there was no result."""
    result, talk = os.pread(child.result, RESULT_BYTES, 0), _end_of(child.talk)
    said = _kinds(result)
    if child.ended_for:
        return (*said, (WARNING, f"retraining was ended: {child.ended_for}; the next one {again}"))
    if said:
        return said
    code = child.process.returncode
    how = f"status {code}" if code >= 0 else f"signal {-code}"
    last = talk.splitlines()[-1] if talk.strip() else "it said nothing"
    return ((WARNING, f"retraining failed ({how}): {printable(last.removeprefix('nicety: '))}; the next one {again}"),)


def _end_of(descriptor: int) -> str:
    """The end of its messages."""
    length = os.fstat(descriptor).st_size
    return os.pread(descriptor, TALK_BYTES, max(length - TALK_BYTES, 0)).decode(errors="replace").rstrip()


def _kinds(result: bytes) -> tuple[tuple[int, str], ...]:
    """A sentence for each kind of model; empty if this is no result of a training."""
    try:
        return tuple(_kind(kind, it["outcome"], it["reason"], it["digest"]) for kind, it in json.loads(result)["models"].items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def _kind(kind: str, outcome: str, reason: str, digest: str) -> tuple[int, str]:
    name = f" as {digest[:8]}" if digest else ""
    return _PRIORITIES.get(outcome, WARNING), printable(f"retraining: {kind} model {outcome}{name}: {reason}")


_PRIORITIES = {"promoted": NOTICE, "refused": NOTICE, "not trained": INFO}
"""By outcome, see `training.report.OUTCOMES`; any other outcome is a trouble."""
