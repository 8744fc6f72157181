"""The hands in this process: everything that changes values in the kernel and puts them back.

`nicety run` of an ordinary user has these; `serve.py` offers them to a brain in another process. Knows the ledger and the kernel.
Must not know decisions, pools beyond their entries, or who asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from .book import Book
from .carrying import Carrier
from .changes import Entry, EntryStatus, name_of, newest
from .closing import Closing
from .faults import Status
from .heirs import Heirs
from .kernel import Clock, Kernel
from .ledger import NAME, Ledger, LedgerError, left_behind
from .limits import NO_BOUNDS, Bounds, Limiter
from .looks import Order
from .places import Control, Knob, PoolPlace, Subject
from .planning import Plan, Planner
from .restoring import Restorer
from .sweep import Sweep
from .tally import Done, Note
from .undoing import undo_values

SETTLED = frozenset({EntryStatus.DONE, EntryStatus.FAILED, EntryStatus.UNDONE, EntryStatus.FOREIGN, EntryStatus.GONE})
"""What may become of a pool's entry."""


class _Open:
    """What there is once the ledger is open."""

    def __init__(self, ledger: Ledger, kernel: Kernel, clock: Clock, limiter: Limiter) -> None:
        self.ledger = ledger
        heirs = Heirs(ledger, kernel)
        self.restorer = Restorer(ledger, kernel, clock, heirs)
        closing = Closing(ledger, kernel, heirs, self.restorer)
        self.planner = Planner(ledger, kernel, heirs, limiter)
        self.carrier = Carrier(ledger, kernel, clock, self.planner, self.restorer, closing, limiter)
        self.sweep = Sweep(ledger, kernel, closing)


class OwnHands:
    """`ports.Hands` in this process. The caller must hold the lock of the state directory.

    It never touches its own process and its ancestors, nor what `spare` names.
    """

    def __init__(self, state_dir: str | os.PathLike[str], kernel: Kernel, clock: Clock, bounds: Bounds = NO_BOUNDS) -> None:
        self.book = Book()
        self.gone = ""
        self.before_each: Callable[[], None] = lambda: None
        """Called before each order is planned: it may raise, and then none of those planned is carried out."""
        self._state_dir = os.fspath(state_dir)
        self._kernel = kernel
        self._clock = clock
        self._limiter = Limiter(kernel, clock, bounds)
        self._open: _Open | None = None

    def spare(self, pids: Iterable[int]) -> None:
        """Never touch these processes from now on."""
        self._limiter.spare(pids)

    def recover(self) -> tuple[tuple[Note, ...], tuple[Done, ...]]:
        """See `ports.Hands`."""
        if not left_behind(self._state_dir):
            return (), ()
        notes = self.open()
        return notes, self.undo(())

    def open(self) -> tuple[Note, ...]:
        """See `ports.Hands`."""
        if self._open is None:
            ledger = Ledger(os.path.join(self._state_dir, NAME), self._kernel.boot_id())
            self.use(ledger)
            return ledger.notes
        return ()

    def use(self, ledger: Ledger) -> None:
        """Use this open ledger from now on."""
        self._open = _Open(ledger, self._kernel, self._clock, self._limiter)
        self.book = ledger

    @property
    def trouble(self) -> str:
        """See `ports.Hands`."""
        return "" if self._open is None else self._open.ledger.trouble

    @property
    def is_open(self) -> bool:
        """See `ports.Hands`."""
        return self._open is not None

    def forbidden(self, control: Control) -> str:
        """See `ports.Hands`."""
        return self._kernel.forbidden(control)

    def change(self, orders: Sequence[Order]) -> tuple[Done, ...]:
        """See `ports.Hands`. All intents go to the ledger in one write. But if two orders have the same subject, the second is
        planned after the first is carried out."""
        within = self._within()
        self._limiter.begin()
        done = list[Done]()
        while len(done) < len(orders):
            plans: list[Plan] = []
            taken: set[Subject] = set()
            for order in orders[len(done) :]:
                self.before_each()
                plan = within.planner.plan(order)
                if plan.subject in taken:
                    break
                if plan.subject is not None:
                    taken.add(plan.subject)
                plans.append(plan)
            within.carrier.carry_out(plans)
            done += [plan.tally.done(plan.order.decision, plan.order.target, plan.what) for plan in plans]
        return tuple(done)

    def put_back(self, subjects: Sequence[Subject]) -> dict[Subject, Done]:
        """See `ports.Hands`."""
        within = self._within()
        entries = {each: newest(chains) for each in subjects if (chains := within.ledger.chains(each))}
        return {
            subject: tally.done(entry.decision, entry.target, name_of(entry.control, entry.knob.on))
            for subject, tally in within.restorer.put_back(list(entries)).items()
            for entry in (entries[subject],)
        }

    def sweep(self) -> tuple[Done, ...]:
        """See `ports.Hands`."""
        found = self._within().sweep.step()
        return tuple(Done(entry.decision, entry.target, Status.FOREIGN, text, 0) for entry, text in found)

    def undo(self, kept: Collection[Subject]) -> tuple[Done, ...]:
        """See `ports.Hands`."""
        within = self._within()
        if not kept:
            within.sweep.forget()
        return undo_values(within.ledger, within.restorer, kept)

    def resize(self, decision: str, target: str, pool: PoolPlace, first: int, old: int, new: int) -> int:
        """See `ports.Hands`."""
        trouble = self._limiter.used(1, self.book.held) or self._limiter.too_often(Control.POOL_SIZE, pool)
        if trouble is not None:
            raise LedgerError(trouble.text)
        entry = Entry(
            id=0,
            boot_id=self._kernel.boot_id(),
            decision=decision,
            target=target,
            wall=self._clock.wall(),
            knob=Knob(Control.POOL_SIZE, pool),
            session=None,
            group=None,
            since=self._kernel.uptime_ticks(),
            original=first,
            old=old,
            new=new,
            status=EntryStatus.INTENT,
        )
        return self._within().ledger.intend([entry])[0]

    def settle(self, statuses: Mapping[int, EntryStatus]) -> None:
        """See `ports.Hands`."""
        ledger = self._within().ledger
        sizes = {entry.id for entry in ledger.outstanding() if isinstance(entry.knob.on, PoolPlace)}
        ledger.settle({number: status for number, status in statuses.items() if number in sizes and status in SETTLED})

    def news(self) -> list[object]:
        """See `Ledger.news`; nothing while it is not open."""
        return [] if self._open is None else self._open.ledger.news()

    def close(self) -> None:
        """See `ports.Hands`."""
        if self._open is not None:
            self._open.ledger.close()
            self._open = None

    def _within(self) -> _Open:
        if self._open is None:
            raise LedgerError("the ledger is not open")
        return self._open
