"""Finds changes of ours that somebody else has overwritten since, and those whose target has ended.

Knows the ledger, the kernel, and how entries are closed. Must not know decisions.
"""

from __future__ import annotations

from ...models.lean import NamedTuple
from .changes import Chain, Entry, EntryStatus, believed, ids_of, name_of, shown
from .closing import Closing
from .faults import Status, Trouble
from .kernel import Kernel
from .ledger import Ledger
from .places import Knob, PoolPlace, Value, leads

CHECKS, PASS_STEPS = 8, 32
"""Values compared with the kernel in each `step`: CHECKS, and one for every PASS_STEPS in force (chosen: a value is compared at
least twice a minute at one step a second)."""

GONE_EVERY = 16
"""Steps between searches for what ended processes left to their children (chosen): each search scans all processes."""

MOST_GONE = 256
"""Ended first threads from which that search is made at once (chosen)."""


class Overwritten(NamedTuple):
    """A change of ours that somebody else was found to have changed."""

    entry: Entry
    text: str  # for people


def is_ours(kernel: Kernel, chain: Chain, now: Value | Trouble) -> bool | Trouble:
    """Whether nobody but us changed the value, as far as can be seen; Trouble: this cannot be determined now."""
    knob = chain[-1].knob
    seen = [kernel.visible(knob, value) for value in believed(chain)]
    if isinstance(now, Trouble) or now in seen:
        return True
    return next((each for each in seen if isinstance(each, Trouble)), False)


class Sweep:
    """Compares the values in force with the kernel, some in each step."""

    def __init__(self, ledger: Ledger, kernel: Kernel, closing: Closing) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._closing = closing
        self._cursor = 0
        self._gone: dict[Knob, Chain] = {}  # first threads of ended processes, whose children may have inherited
        self._steps = 0

    def step(self) -> tuple[Overwritten, ...]:
        """Compare the next values. Returns those that somebody else was found to have changed.

        Restoring a value by hand counts as changing it: that is the plainest way to say hands off.
        """
        found = list[Overwritten]()
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
                found.append(Overwritten(newest, text))
                self._closing.give_way({newest.knob: chain})
        if closed:
            self._ledger.settle(closed)
        self._steps += 1
        if self._gone and (self._steps % GONE_EVERY == 0 or len(self._gone) >= MOST_GONE):
            self._closing.close(self._gone, EntryStatus.GONE)
            self._gone = {}
        return tuple(found)

    def forget(self) -> None:
        """Everything is undone: forget the ended processes."""
        self._gone = {}
