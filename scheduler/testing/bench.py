"""Carries out decisions on the real machine with the test's own ledger, as the daemon would, but without a daemon.

Must not know what is done to which process. Leaving the `with` block closes the ledger and restores nothing, for tests of undo.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from ...models.records import PoolSample
from ..act.actuate import Acting
from ..decision import Action, Decision, Outcome, Why
from ..hands.clock import SystemClock
from ..hands.knobs.control import LinuxKernel
from ..hands.ledger import NAME, Ledger, StateLock
from ..ports import PoolAdapter
from ..read.locks import LinuxLocks
from .hands import hands_with

WHY = Why("test", "because", {}, (), ())
"""The reason of every decision."""


class Bench:
    """An actuator, its ledger and the lock of its state directory. A test with pools fills `pools` and `samples`."""

    def __init__(self, state: Path, kernel: LinuxKernel | None = None) -> None:
        self.state = state
        self.lock = StateLock(state)
        self.kernel = kernel or LinuxKernel()
        self.ledger = Ledger(state / NAME, self.kernel.boot_id())
        self.pools: dict[str, PoolAdapter] = {}
        self.samples: dict[str, PoolSample] = {}
        hands = hands_with(self.ledger, self.kernel, SystemClock())
        self.actuator = Acting(hands, self.kernel, LinuxLocks(), self.pools, self.samples, SystemClock())

    def apply(self, *actions: Action) -> tuple[Outcome, ...]:
        """Apply these actions together."""
        return self.actuator.apply([Decision(f"s-0.{index}", "p", "t", action, WHY) for index, action in enumerate(actions)])

    def close(self) -> None:
        """As if the daemon had died: nothing is restored. Idempotent."""
        self.ledger.close()
        self.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
