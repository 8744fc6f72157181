"""Thread waits that a test sets, behind `ports.Waits`. Must not read the machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ...models.anomaly.waitgraph import Halt, Thread, WaitSnapshot
from ...models.identity import ProcId


class FakeWaits:
    """`ports.Waits`. `halts`: threads that are blocked, each the only one of its process. `asked`: the processes that each look
    asked about. `aloof`: the masters of the last look."""

    def __init__(self) -> None:
        self.halts: list[Halt] = []
        self.asked: list[dict[ProcId, int]] = []
        self.aloof: tuple[ProcId, ...] = ()
        self.restless: tuple[ProcId, ...] = ()
        self.rests = 0
        self.closed = False
        self.trouble = ""

    def wait(self, process: ProcId, what: str, *helpers: ProcId, turn: int = 1, named: bool = True) -> None:
        """From now on a process waits for others."""
        self.halts = [halt for halt in self.halts if halt.thread.process != process]
        self.halts.append(Halt(Thread(process, process.pid), turn, what, helpers, None, named, sure=True))

    def look(
        self,
        still: Mapping[ProcId, int],
        workers: Sequence[ProcId],  # noqa: ARG002 - the port's
        masters: Sequence[ProcId],  # noqa: ARG002
        aloof: Collection[ProcId],
        restless: Sequence[ProcId] = (),
    ) -> WaitSnapshot:
        """All halts."""
        self.asked.append(dict(still))
        self.restless = tuple(restless)
        self.aloof = tuple(sorted(aloof))
        return WaitSnapshot(tuple(self.halts), frozenset(halt.thread.process for halt in self.halts), frozenset(still))

    def rest(self) -> None:
        """Counted."""
        self.rests += 1

    def close(self) -> None:
        """Remembered."""
        self.closed = True
