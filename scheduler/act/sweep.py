"""Finds changes of ours that somebody else has overwritten since, and those whose target has ended.

Knows the ledger, the kernel, and how entries are closed. Must not know decisions.
"""

from __future__ import annotations

from ..changes import Chain, EntryStatus, ids_of, leads, name_of, shown
from ..decision import Outcome, Status
from ..places import PoolPlace
from ..ports import Kernel, Knob, Trouble
from ..store.ledger import Ledger
from .closing import Closing
from .looks import is_ours

CHECKS, PASS_STEPS = 8, 32
"""Values compared with the kernel in each `step`: CHECKS, and one for every PASS_STEPS in force (chosen: a value is compared at
least twice a minute at one step a second)."""

GONE_EVERY = 16
"""Steps between searches for what ended processes left to their children (chosen): each search scans all processes."""

MOST_GONE = 256
"""Ended first threads from which that search is made at once (chosen)."""


class Sweep:
    """Compares the values in force with the kernel, some in each step."""

    def __init__(self, ledger: Ledger, kernel: Kernel, closing: Closing) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._closing = closing
        self._cursor = 0
        self._gone: dict[Knob, Chain] = {}  # first threads of ended processes, whose children may have inherited
        self._steps = 0

    def step(self) -> tuple[Outcome, ...]:
        """Compare the next values. One outcome for each that somebody else was found to have changed.

        Restoring a value by hand counts as changing it: that is the plainest way to say hands off.
        """
        outcomes = list[Outcome]()
        entries = [chain for subject in self._ledger.subjects() for chain in self._ledger.chains(subject).values()]
        closed: dict[int, EntryStatus] = {}
        for _ in range(min(len(entries), CHECKS + len(entries) // PASS_STEPS)):
            self._cursor = (self._cursor + 1) % len(entries)
            chain = entries[self._cursor]
            newest = chain[-1]
            if isinstance(newest.knob.on, PoolPlace) or self._ledger.chain(newest.knob) != chain:
                continue  # a chain that differs was restored in this step
            now = self._kernel.read(newest.knob)
            if isinstance(now, Trouble):
                if now.status is not Status.VANISHED:
                    continue
                if leads(newest.knob) is not None:
                    self._gone[newest.knob] = chain
                else:
                    closed.update(dict.fromkeys(ids_of(chain), EntryStatus.GONE))
            elif not is_ours(self._kernel, chain, now):
                text = (
                    f"{name_of(newest.control, newest.knob.on)} left: somebody changed it from {shown(newest.new)} to {shown(now)}"
                )
                outcomes.append(Outcome(newest.decision, Status.FOREIGN, newest.target, text, 0))
                self._closing.give_way({newest.knob: chain})
        if closed:
            self._ledger.settle(closed)
        self._steps += 1
        if self._gone and (self._steps % GONE_EVERY == 0 or len(self._gone) >= MOST_GONE):
            self._closing.close(self._gone, EntryStatus.GONE)
            self._gone = {}
        return tuple(outcomes)

    def forget(self) -> None:
        """Everything is undone: forget the ended processes."""
        self._gone = {}
