"""System calls that go wrong, by strace: which one, how, and whether it came to that. Must not know which program is traced.

strace counts the calls of each name, in each thread from its start. So the calls that SQLite and Python make themselves count as
much as those of nicety, and a fault is named by three words, such as `kill fdatasync 3`. With `--seccomp-bpf` only calls of the
one name stop the program; all others run at full speed. Signals get lost with it, so a run that ends by a kill does without.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

DELAY_SECONDS = 0.3
"""How long a delayed call takes. Chosen: longer than a busy disk's flush, and longer than SQLite and the stores wait for a lock."""

_CALL = re.compile(r"(\d+)\s+(\w+)\(")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """The `number`-th call of `call` goes wrong.

    `how`: "kill" (SIGKILL, before the call is made), "delay" (by DELAY_SECONDS), or the name of the errno with which it fails.

    >>> str(Fault.parse("EIO fdatasync 3"))
    'EIO fdatasync 3'
    """

    how: str
    call: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`. Raises ValueError."""
        how, call, number = text.split()
        return cls(how, call, int(number))

    def __str__(self) -> str:
        return f"{self.how} {self.call} {self.number}"

    @property
    def injection(self) -> str:
        """What strace is asked for."""
        match self.how:
            case "kill":
                what = "signal=KILL"
            case "delay":
                what = f"delay_enter={round(DELAY_SECONDS * 1e6)}"
            case errno:
                what = f"error={errno}"
        return f"inject={self.call}:{what}:when={self.number}"


def under_strace(log: Path, fault: Fault | None) -> list[str]:
    """The command in front of another one: with a fault, or with all calls written to `log`."""
    if fault is None:
        return ["strace", "-f", "-qq", "-o", str(log)]
    speed = [] if fault.how == "kill" else ["--seccomp-bpf"]
    return ["strace", "-f", "-qq", "-y", *speed, "-o", str(log), "-e", f"trace={fault.call}", "-e", fault.injection]


@dataclass(frozen=True, slots=True)
class Calls:
    """How often a run made each call; the most of any thread."""

    all: Mapping[str, int]
    start: Mapping[str, int]  # before the program first named its state directory: the loader, Python, imports
    idle: Mapping[str, int]  # before it was at work; as `start` if it is from there on

    def is_start(self, fault: Fault) -> bool:
        """Whether the call is one of the start, before the program has anything to lose."""
        return fault.number <= self.start.get(fault.call, 0)


def calls_in(log: Path, state: Path, at_work: int = 0) -> Calls:
    """What a log without a fault has. `at_work`: bytes of it that were written when the program began its work.

    Raises ValueError if `state` never occurs in it, since nothing was at work then.
    """
    counts: dict[str, Counter[str]] = {}
    start: Mapping[str, int] | None = None
    idle: Mapping[str, int] = {}
    position = 0
    for raw in log.read_bytes().splitlines(keepends=True):
        position += len(raw)
        line = raw.decode(errors="replace")
        found = _CALL.match(line)
        if found is None:
            continue
        thread, call = found.groups()
        mine = counts.setdefault(thread, Counter())
        if start is None and call != "execve" and str(state) in line:
            start = dict(mine)
        mine[call] += 1
        if position <= at_work:
            idle = dict(mine)
    if start is None:
        raise ValueError(f"{state} does not occur in {log}")
    most: Counter[str] = Counter()
    for each in counts.values():
        most |= each
    return Calls(most, start, idle or start)


def hit(log: Path, fault: Fault) -> str:
    """The call that went wrong, as strace wrote it; "" if the run did not get that far."""
    mark = {"kill": "+++ killed by SIGKILL +++", "delay": "(DELAYED)"}.get(fault.how, "(INJECTED)")
    before = ""
    for line in log.read_text(errors="replace").splitlines():
        if mark in line:
            return (before if fault.how == "kill" else line).partition(" ")[2].strip() or str(fault)
        if _CALL.match(line):
            before = line
    return ""
