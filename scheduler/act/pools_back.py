"""Restores pools to the size that they had before our first change, and waits for them. Works from the ledger alone.

Knows the hands, the kernel, the pools and the clock. Must not know decisions, or why a pool is released.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ...models.records import PoolSample
from ..decision import Outcome
from ..hands.changes import Chain, Entry, EntryStatus, believed, ids_of, newest
from ..hands.faults import Status, Trouble
from ..hands.kernel import Clock, Kernel
from ..hands.places import PoolPlace, number
from ..ports import Hands, PoolAdapter

PATIENCE = 10.0
"""Seconds to wait for pools to return to their size (chosen)."""

POLL_NS = 100_000_000
"""ns between two looks at a pool that is returning to its size (chosen)."""

STEADY_NS = 500_000_000
"""ns for which a pool must have its size before it counts as restored (chosen): a signal that was under way takes effect within
that time."""

STRANGE_NS = 2 * STEADY_NS
"""ns for which a pool must have a size that we cannot explain before somebody else counts as having changed it (chosen)."""


@dataclass(slots=True)
class _Track:
    """A pool that is returning to its size."""

    pool: PoolPlace
    entry: Entry  # our latest change
    size: int  # before our first change
    asked: int | None = None  # its size when we requested the old one; None: not requested yet
    steady: int | None = None  # since when it has its size, ns
    strange: int | None = None  # since when its size is one that we cannot explain, ns
    outcome: Outcome | None = None

    def end(self, status: Status, text: str, changed: int = 0) -> None:
        self.outcome = Outcome(self.entry.decision, status, self.entry.target, text, changed)


class PoolsBack:
    """Restores pool sizes.

    `requested`: the size that is currently requested of a running daemon's pool; None for a pool that is seen for the first time.
    `patience`: seconds to wait for pools to return to their size.
    """

    def __init__(
        self,
        hands: Hands,
        kernel: Kernel,
        pools: Mapping[str, PoolAdapter],
        clock: Clock,
        requested: Callable[[str], int | None],
        patience: float = PATIENCE,
    ) -> None:
        self._hands = hands
        self._kernel = kernel
        self._pools = pools
        self._clock = clock
        self._requested = requested
        self._patience_ns = int(patience * 1e9)

    def put_back(self, pools: Collection[str]) -> tuple[Outcome, ...]:
        """Restore the sizes of these pools, as far as we changed them; one outcome for each that was changed."""
        entries = [newest(self._hands.book.chains(subject)) for subject in self._hands.book.subjects()]
        tracks = [
            _Track(pool, entry, number(entry.original))
            for entry in entries
            if isinstance(pool := entry.knob.on, PoolPlace) and pool.name in pools
        ]
        start = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            late = now - start >= self._patience_ns
            for track in tracks:
                if track.outcome is None:
                    self._step_back(track, now, late)
            if all(track.outcome is not None for track in tracks):
                return tuple(track.outcome for track in tracks if track.outcome is not None)
            self._clock.sleep_until(now + POLL_NS)

    def _step_back(self, track: _Track, now: int, late: bool) -> None:
        """Look once at a pool that is returning to its size; when that has ended, set the outcome and close the entries."""
        entry, name, master = track.entry, track.pool.name, track.pool.master
        chain = self._hands.book.chains(entry.subject)[entry.knob]
        ends = self._kernel.threads(master)
        if isinstance(ends, Trouble) and ends.status is Status.VANISHED:
            track.end(Status.VANISHED, f"pool {name} ended with its master, pid {master.pid}: nothing to put back")
            self._hands.settle(dict.fromkeys(ids_of(chain), EntryStatus.GONE))
            return
        adapter = self._pools.get(name)
        if adapter is None:
            text = (
                f"pool {name} (master pid {master.pid}) was sized from {track.size} to {entry.new} and "
                f"is not configured here: run `nicety undo` with the configuration that has [pools.{name}], or resize it by hand"
            )
            track.end(Status.FAILED, text)
            return
        adapter.probe()
        sample = adapter.read()
        if sample.master is not None and sample.master != master:
            track.end(Status.VANISHED, f"pool {name} was restarted since: nothing to put back")
            self._hands.settle(dict.fromkeys(ids_of(chain), EntryStatus.GONE))
        elif track.asked is None:
            self._ask_back(track, chain, adapter, sample, now, late)
        elif sample.size == track.size:
            track.steady = track.steady or now
            if now - track.steady >= STEADY_NS or late:
                if track.asked == track.size:
                    track.end(Status.UNCHANGED, f"pool {name} has {track.size} workers already")
                else:
                    track.end(Status.APPLIED, f"size of pool {name}: {track.asked} -> {track.size}", changed=1)
                self._hands.settle(dict.fromkeys(ids_of(chain), EntryStatus.UNDONE))
        else:
            track.steady = None
            if late:
                text = f"pool {name} has {sample.size} workers and is on its way to {track.size}; run `nicety undo` again to check"
                track.end(Status.PARTIAL, sample.trouble or text, changed=1)

    def _ask_back(self, track: _Track, chain: Chain, adapter: PoolAdapter, sample: PoolSample, now: int, late: bool) -> None:
        """Request the old size, unless somebody else has resized the pool.

        In a running daemon the adapter knows what it asked for. After a crash a pool may have any size between those before and
        after the change; one that stays outside that range was resized by somebody else.
        """
        name, known = track.pool.name, self._requested(track.pool.name)
        sizes = [number(value) for entry in chain for value in (entry.original, entry.new)]
        contradicted = known is not None and known not in (*believed(chain), track.size)
        if contradicted or (not sample.trouble and not min(sizes) <= sample.size <= max(sizes)):
            track.strange = track.strange or now
            if contradicted or late or now - track.strange >= STRANGE_NS:
                text = f"left: somebody changed the size of pool {name} from {track.entry.new} to {sample.size}"
                track.end(Status.FOREIGN, text)
                self._hands.settle(dict.fromkeys(ids_of(chain), EntryStatus.FOREIGN))
            return
        track.strange = None
        status, text = adapter.resize(track.size)
        if status in (Status.APPLIED, Status.UNCHANGED):
            track.asked = sample.size
        elif status is Status.FOREIGN:
            track.end(Status.FOREIGN, f"left: {text}")
            self._hands.settle(dict.fromkeys(ids_of(chain), EntryStatus.FOREIGN))
        elif late:
            track.end(status, f"size of pool {name} could not be put back to {track.size}: {text}")
