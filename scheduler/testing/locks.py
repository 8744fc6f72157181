"""Lock waits that a test sets, behind `ports.Locks`. Must not read the machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...models.identity import ProcId
from ..hands.faults import Trouble
from ..ports import Run, Wait


class FakeLocks:
    """`ports.Locks`. `waiting`: the waits that each look sees. `running`: the processes that exist. `reads` counts the cost of
    looks, `rests` the calls of `rest`."""

    def __init__(self) -> None:
        self.waiting: list[Wait] = []
        self.running: dict[ProcId, Run] = {}
        self.unseen: dict[ProcId, Trouble] = {}  # processes that cannot be looked at
        self.paths: dict[ProcId, tuple[str, ...]] = {}
        self.reads = self.rests = 0

    def burn(self, process: ProcId, seconds: float) -> None:
        """A process that wants the CPU gets `seconds` of it."""
        before = self.running.get(process, Run(True, 0))
        self.running[process] = Run(True, before.cpu + round(seconds * 1e9))

    def sleep(self, process: ProcId) -> None:
        """A process does not want the CPU."""
        self.running[process] = Run(False, self.running.get(process, Run(True, 0)).cpu)

    def waits(self, demoted: Collection[ProcId], others: Sequence[ProcId]) -> tuple[Wait, ...]:  # noqa: ARG002 - the port's
        """All waits; a real look may miss some."""
        self.reads += 1
        return tuple(self.waiting)

    def rest(self) -> None:
        """Counted."""
        self.rests += 1

    def run(self, process: ProcId, thread: int = 0) -> Run | Trouble | None:  # noqa: ARG002 - one thread is all
        """As set."""
        self.reads += 1
        return self.unseen.get(process) or self.running.get(process)

    def cgroups(self, process: ProcId) -> tuple[str, ...] | Trouble:
        """As set."""
        self.reads += 1
        return self.unseen.get(process) or self.paths.get(process, ())
