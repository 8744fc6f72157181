"""What a program must offer so that faults can be tried on it, and what must hold after each run of any program.

Must not know which faults there are, or how they are drawn.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from nicety.scheduler.interpreter import PYTHON
from nicety.scheduler.store.traces import read_traces

from .stage import files_below
from .strace import Fault

NICETY = (*PYTHON, "-m", "nicety.scheduler")
"""The first words of each command of nicety."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all programs are asked for."""

    linger: float  # seconds for which a daemon goes on after its first change
    by_itself: float | None  # seconds within which everything is put back without an undo; None: by an undo


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended."""

    code: int | None  # as of subprocess; None: it had to be ended
    out: str
    err: str
    fault: Fault | None
    hit: str  # the call that went wrong; "" if the run did not get that far
    in_start: bool  # whether it was one of the start
    at_work: int = 0  # bytes of strace's log when it began its work; 0 if that is not known

    @property
    def killed(self) -> bool:
        """Whether it was killed, as it was meant to be."""
        return bool(self.hit) and self.fault is not None and self.fault.how == "kill"

    @property
    def failed(self) -> bool:
        """Whether a call has failed."""
        return bool(self.hit) and self.fault is not None and self.fault.how not in ("kill", "delay")

    @property
    def mute(self) -> bool:
        """Whether the call that failed was to write to the terminal: then nothing can be said."""
        return self.failed and bool(re.match(r"write\([12]<", self.hit))


class Running:
    """A program under strace."""

    def __init__(self, strace: subprocess.Popen[str], log: Path) -> None:
        self._strace, self._log = strace, log
        self.at_work = 0

    def begins_to_work(self) -> None:
        """Note that what it has done up to now was preparation."""
        self.at_work = self._log.stat().st_size

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._strace.poll() is not None

    @property
    def pid(self) -> int | None:
        """The pid of the program itself; None if it has ended."""
        with suppress(OSError, ValueError):
            return int(Path(f"/proc/{self._strace.pid}/task/{self._strace.pid}/children").read_text().split()[0])
        return None

    def line(self) -> str:
        """The next line that it writes; "" when it has ended."""
        assert self._strace.stdout is not None
        return self._strace.stdout.readline()

    def answer(self) -> None:
        """Let it go on after a line, if it still lives."""
        assert self._strace.stdin is not None
        with suppress(BrokenPipeError):
            self._strace.stdin.write("\n")
            self._strace.stdin.flush()

    def send(self, number: int) -> None:
        """Send a signal, if it still lives."""
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class Program(ABC):
    """One program: each case begins with `prepare`, and ends with `complaints`."""

    name: ClassVar[str]
    ends: ClassVar[frozenset[int]] = frozenset({0})
    """Exit codes without a fault."""

    leaves: ClassVar[tuple[str, ...]] = ()
    """Files that a kill may leave: docs/campaign.md says so, and what becomes of them."""

    people: ClassVar[bool] = True
    """Whether it is a command, so that it must say cause and next step."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.case = folder / "case"
        self.state, self.out, self.tmp = (self.case / name for name in ("state", "out", "tmp"))
        self.in_force = False  # whether something was changed when the last run ended

    def prepare(self) -> None:
        """Everything as it is before the program begins."""
        shutil.rmtree(self.case, ignore_errors=True)
        for place in (self.state, self.out, self.tmp):
            place.mkdir(mode=0o700, parents=True)

    @abstractmethod
    def command(self) -> list[str]:
        """What is run."""

    def drive(self, running: Running) -> None:  # noqa: B027 - most programs end by themselves
        """What happens to it while it runs."""

    @abstractmethod
    def wrong(self, end: End) -> Iterator[str]:
        """What is not as it must be after this end, one line each. May repair it, as the user would."""

    def complaints(self, end: End) -> Iterator[str]:
        """Everything that is not as it must be."""
        yield from self.speech(end)
        yield from self.strays(end)
        yield from self.wrong(end)

    def speech(self, end: End) -> Iterator[str]:
        """What is wrong with exit code and message."""
        if end.code is None:
            yield "it did not end"
        if end.killed or end.in_start or end.mute or end.code is None:
            return  # in the start it is the loader and Python that speak
        raw = [line for line in (end.out + end.err).splitlines() if not line.startswith("{")]
        if not self.people:
            return
        if any(line.startswith("Traceback") for line in raw):
            yield f"a traceback: {raw[-1]}"
        for left in sorted(self.tmp.glob("nicety-error-*")):
            yield f"it takes itself for the cause: {left.read_text().splitlines()[-1]}"
        if end.code in self.ends:
            return
        if not end.failed:
            yield f"exit code {end.code}, and nothing has failed: {end.err.strip()[-300:]}"
        elif end.code not in (0, 1, 3):
            yield f"exit code {end.code}"
        elif end.code != 0 and not self.explained(end):
            yield f"exit code {end.code} without a reason: {end.err.strip()[-300:]}"

    def explained(self, end: End) -> bool:
        """Whether it said why it failed."""
        return any(line.startswith("nicety: ") for line in end.err.splitlines())

    def strays(self, end: End) -> Iterator[str]:
        """Temporary files that are left."""
        left = files_below(self.case, (".*.part", "*.tmp", "tmp/*"))
        allowed = files_below(self.case, self.leaves) if end.killed else []
        for name in left:
            if name not in allowed and not name.startswith("tmp/nicety-error-"):
                yield f"{name} is left"

    def close(self) -> None:  # noqa: B027 - most have started nothing
        """End what it has started."""


def lost_ticks(state: Path, end: End) -> Iterator[str]:
    """Ticks of the traces that cannot be read: none may be, but a file that was just begun has none yet."""
    if not any((state / "traces").glob("*.db")):
        return
    read = read_traces(state)
    for _ in read:
        pass
    for lost in read.lost:
        if not ("just begun" in lost.reason and (end.killed or end.failed)):
            yield f"ticks are lost: {lost}"
