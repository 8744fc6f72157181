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
from ..interpreter import PYTHON, environment
from ..read.text import printable
from ..words import size, span

TRAINING = (*PYTHON, "-m", "nicety.training")

OWN_SHARE = 0.8
"""Share of the configured time and memory that training gets as its own limits. Chosen: it must finish with what it has before it
is stopped."""

GRACE_NS = 10 * 10**9
"""ns from SIGTERM to SIGKILL. Chosen: enough to write what is finished."""

CLOSING_SECONDS = 2.0
"""Seconds from SIGTERM to SIGKILL when the daemon ends. Chosen: a training then only leaves its parts for the next one, and the end
of the daemon must not take long."""

RESULT_BYTES, TALK_BYTES = 16 << 20, 1 << 16
"""Maximum bytes read of a training's result, and of the end of its messages. Chosen: a result has some kilobytes."""

_PR_SET_PDEATHSIG = 1
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class News:
    """What happened to the training since the last tick."""

    said: tuple[tuple[int, str], ...] = ()  # (priority, sentence) for the log
    promoted: bool = False  # whether other models are live than when the training began


@dataclass(slots=True)
class _Child:
    """A running training, in a separate session and process group."""

    process: subprocess.Popen[bytes]
    began: int  # monotonic ns
    result: int  # descriptor of the memory file for its result
    talk: int  # descriptor of the memory file for its messages
    live: dict[str, str | None]  # digests of the models that were live when it began, by kind
    ended_for: str = ""  # why it was asked to end; "" if it was not
    kill_at: int = 0  # monotonic ns when it gets SIGKILL, if it was asked to end


class Retraining:
    """Trains in the background, `models.retrain_hours` after the last training ended. Never runs two. Times are monotonic ns.

    `tick` must be called from a thread that lives as long as the daemon, because the kernel ends the training when the thread that
    started it ends.
    """

    def __init__(self, models: Path, arguments: Sequence[str], command: Sequence[str] = TRAINING) -> None:
        """`models`: the directory with the live models. `arguments`: where configuration and state are, for the training."""
        self._models = models
        self._command = (*command, "train", "--json", *arguments)
        self._config = Models()
        self._due: int | None = None
        self._child: _Child | None = None

    def configure(self, config: Models, now: int) -> None:
        """Set how often to train and with which limits. If the hours change, the next training begins after the new ones."""
        changed = config.retrain_hours != self._config.retrain_hours
        self._config = config
        if changed:
            self._put_off(now)
        if self._child is not None and not config.retrain_hours:
            self._tell_to_end(self._child, now, "models.retrain_hours is 0 now")

    def tick(self, now: int) -> News:
        """Start a training that is due, supervise one that runs, collect one that has ended. A start takes some milliseconds."""
        if self._child is not None:
            return self._look(self._child, now)
        if self._due is None or now < self._due:
            return News()
        self._put_off(now)
        try:
            self._child = self._start(now)
        except (OSError, subprocess.SubprocessError) as error:
            return News(((WARNING, f"retraining could not start: {error}; the next one {self._next(now)}"),))
        limits = f"at most {span(self._config.retrain_seconds)} and {size(self._config.retrain_bytes)}"
        return News(((INFO, f"retraining began: pid {self._child.process.pid}, only on idle CPUs, {limits}"),))

    def state(self, now: int) -> str:
        """The running training, or when the next one is due, for people."""
        if self._child is not None:
            return f"pid {self._child.process.pid}, since {span((now - self._child.began) / 1e9)}"
        return "off" if self._due is None else f"in {span((self._due - now) / 1e9)}"

    def close(self) -> None:
        """End a running training and wait for its end. Idempotent."""
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
                env={**environment(os.environ), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
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
        """Check whether the training has ended or exceeded a limit."""
        if os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self._child = None
            self._put_off(now)
            _reap(child)  # also ends the processes that it started
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
            self._tell_to_end(child, now, f"it used {size(resident)}, more than models.retrain_bytes = {memory}")
        return News()

    def _tell_to_end(self, child: _Child, now: int, reason: str) -> None:
        if not child.ended_for:
            child.ended_for, child.kill_at = reason, now + GRACE_NS
            _signal(child, signal.SIGTERM)

    def _put_off(self, now: int) -> None:
        """Make the next training due `models.retrain_hours` from now; never if they are 0."""
        hours = self._config.retrain_hours
        self._due = now + round(hours * 3600e9) if hours else None

    def _next(self, now: int) -> str:
        return "is switched off" if self._due is None else f"comes in {span((self._due - now) / 1e9)}"

    def _live(self) -> dict[str, str | None]:
        """Digest of the live model of each kind; None: none is live, or it cannot be used."""
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
    """Runs in the child before exec: have the kernel send SIGTERM when the daemon dies. Calls only what was looked up before the
    fork."""
    prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # the daemon ended before the line above
        os._exit(1)


def _make_idle(pid: int) -> None:
    """Give the training only CPU time that nothing else wants, and make it the first process to be killed when memory is short.

    The parent does this after the start, which waits for the exec: an idle child would reach the exec only on an idle machine. The
    training is alone in the autogroup of its session, where SCHED_IDLE yields to nothing. So the autogroup gets the least weight
    too. The kernel serves disk requests of SCHED_IDLE as idle ones: task_nice_ioclass in include/linux/ioprio.h.
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
            pass  # the training has ended already, or this kernel has no autogroups


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
    """Signal all processes of a training. Its pid is not reused before it has been waited for."""
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
        return (*said, (WARNING, f"retraining was stopped: {child.ended_for}; the next one {again}"))
    if said:
        return said
    code = child.process.returncode
    how = f"status {code}" if code >= 0 else f"signal {-code}"
    last = talk.splitlines()[-1] if talk.strip() else "without a message"
    return ((WARNING, f"retraining failed ({how}): {printable(last.removeprefix('nicety: '))}; the next one {again}"),)


def _end_of(descriptor: int) -> str:
    """The end of a training's messages."""
    length = os.fstat(descriptor).st_size
    return os.pread(descriptor, TALK_BYTES, max(length - TALK_BYTES, 0)).decode(errors="replace").rstrip()


def _kinds(result: bytes) -> tuple[tuple[int, str], ...]:
    """(priority, sentence) for each kind of model; empty if `result` is not the result of a training."""
    try:
        return tuple(_kind(kind, it["outcome"], it["reason"], it["digest"]) for kind, it in json.loads(result)["models"].items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def _kind(kind: str, outcome: str, reason: str, digest: str) -> tuple[int, str]:
    name = f" as {digest[:8]}" if digest else ""
    return _PRIORITIES.get(outcome, WARNING), printable(f"retraining: {kind} model {outcome}{name}: {reason}")


_PRIORITIES = {"promoted": NOTICE, "refused": NOTICE, "not trained": INFO}
"""Priority by outcome (`training.report.OUTCOMES`); any other outcome is a WARNING."""
