"""Carries plans out: the intents go to the ledger, then the values to the kernel, then each is read back.

Knows the ledger, the kernel, the clock and the pools. Must not know decisions beyond what their plans say.
`docs/decisions/0003-ledger-and-undo.md` has the rules: what is durable when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..changes import INHERITED, Entry, EntryStatus, as_int, leads, place, shown
from ..decision import Control, Decision, Recycle, Restore, Set, Status
from ..ports import Clock, Kernel, Knob, Trouble
from ..store.ledger import Ledger, LedgerError
from .closing import Closing
from .heirs import PASSES
from .looks import is_ours, knobs_of
from .plans import Move, Plan, Planner
from .pool_sizes import PoolSizes
from .restoring import Restorer


class Carrier:
    """Carries plans out."""

    def __init__(
        self,
        ledger: Ledger,
        kernel: Kernel,
        clock: Clock,
        planner: Planner,
        sizes: PoolSizes,
        restorer: Restorer,
        closing: Closing,
    ) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._clock = clock
        self._boot_id = kernel.boot_id()
        self._planner = planner
        self._sizes = sizes
        self._restorer = restorer
        self._closing = closing

    def carry_out(self, plans: Sequence[Plan]) -> None:
        """Record the intents of all plans in one durable write; then restore, then change, then follow threads that appeared
        meanwhile; then record all results in one write."""
        ids = self._intend(plans)
        restores = {plan.subject: plan for plan in plans if isinstance(plan.decision.action, Restore) and plan.subject is not None}
        for subject, tally in self._restorer.put_back(list(restores)).items():
            restores[subject].tally = tally
        statuses: dict[int, EntryStatus] = {}
        for plan in plans:
            if isinstance(plan.decision.action, Recycle) and plan.outcome is None:
                plan.outcome = self._sizes.recycle(plan.decision, plan.decision.action)
            self._make(plan, ids, statuses)
        self._follow_threads(plans, statuses)
        if statuses:
            self._ledger.settle(statuses)
        for plan in plans:
            self._give_way(plan)

    def _intend(self, plans: Sequence[Plan]) -> dict[Knob, int]:
        """Ids of the entries by place. If the ledger cannot be written, the moves are removed from the plans."""
        moves = [(plan, move) for plan in plans for move in plan.moves]
        if not moves:
            return {}
        wall, since = self._clock.wall(), self._kernel.uptime_ticks()
        try:
            ids = self._ledger.intend([self._entry(plan.decision, move, wall, since) for plan, move in moves])
        except LedgerError as error:
            for plan in plans:
                if plan.moves:
                    plan.tally.trouble(Trouble(Status.BLOCKED, str(error)))  # a disk failure says nothing about the mechanism
                    plan.moves.clear()
            return {}
        return {place(move.knob): number for (_, move), number in zip(moves, ids, strict=True)}

    def _entry(self, decision: Decision, move: Move, wall: int, since: int) -> Entry:
        knob, kin = move.knob, move.kin
        return Entry(
            id=0,
            boot_id=self._boot_id,
            decision=decision.id,
            target=decision.target,
            wall=wall,
            control=knob.control,
            process=knob.process,
            thread=knob.thread,
            key=knob.key,
            session=None if kin is None else kin.session,
            group=None if kin is None else kin.group,
            since=since,
            original=move.original,
            old=move.old,
            new=move.new,
            status=EntryStatus.INTENT,
        )

    def _make(self, plan: Plan, ids: Mapping[Knob, int], statuses: dict[int, EntryStatus]) -> None:
        """Make the moves of a plan whose intents are durable; the result of each goes into `statuses`."""
        for move in plan.moves:
            number = ids[place(move.knob)]
            if move.knob.control is Control.POOL_SIZE:
                plan.outcome = self._sizes.resize(plan.decision, move.knob.key, as_int(move.new))
                taken = plan.outcome.status in (Status.APPLIED, Status.UNCHANGED)
                statuses[number] = EntryStatus.DONE if taken else EntryStatus.FAILED
                continue
            trouble = self._kernel.write(move.knob, move.old, move.new)
            if trouble is not None:
                plan.tally.trouble(trouble)
                self._doubt(move, trouble, number, statuses)
                continue
            now, visible = self._kernel.read(move.knob), self._kernel.visible(move.knob, move.new)
            if isinstance(now, Trouble):
                plan.tally.trouble(now)
                # an ended process may have left a child with our value: its first thread's entry stays open for `settle`
                gone = now.status is Status.VANISHED and not leads(move.knob)
                statuses[number] = EntryStatus.GONE if gone else EntryStatus.DONE
            elif isinstance(visible, Trouble):
                plan.tally.trouble(visible)
                statuses[number] = EntryStatus.DONE
            elif now == visible:
                plan.tally.step(move.old, move.new)
                statuses[number] = EntryStatus.DONE
            elif now == move.old:
                plan.tally.trouble(Trouble(Status.FAILED, f"the kernel took {shown(move.new)} and still has {shown(now)}"))
                statuses[number] = EntryStatus.FAILED
            else:
                plan.tally.trouble(Trouble(Status.FOREIGN, f"set to {shown(move.new)}, read back as {shown(now)}"))
                statuses[number] = EntryStatus.FOREIGN

    def _doubt(self, move: Move, trouble: Trouble, number: int, statuses: dict[int, EntryStatus]) -> None:
        """A failed write has usually changed nothing, and then its entry is closed. One made in part (a fence that could
        not be removed again), or one whose result cannot be read now, keeps its entry open: undo compares."""
        if trouble.status is Status.VANISHED:
            statuses[number] = EntryStatus.GONE
        elif self._kernel.read(move.knob) == move.old or trouble.status is Status.FOREIGN:
            statuses[number] = EntryStatus.FAILED

    def _follow_threads(self, plans: Sequence[Plan], statuses: dict[int, EntryStatus]) -> None:
        """Change threads started while the others were changed: each pass plans, records and changes those not yet seen."""
        watched = [plan for plan in plans if plan.tally.changed and isinstance(plan.decision.action, Set)]
        watched = [plan for plan in watched if plan.moves[0].knob.control in INHERITED and not plan.tally.foreign]
        for _ in range(PASSES):
            news: list[Plan] = []
            for plan in watched:
                action = plan.decision.action
                assert isinstance(action, Set)
                knobs = knobs_of(self._kernel, action)
                fresh = [] if isinstance(knobs, Trouble) else [knob for knob in knobs if knob not in plan.seen]
                if fresh:
                    more = Plan(plan.decision, plan.what, tally=plan.tally, foreign=plan.foreign)
                    self._planner.look(more, action, fresh)
                    plan.seen |= more.seen
                    news.append(more)
            if not news:
                return
            ids = self._intend(news)
            for more in news:
                self._make(more, ids, statuses)
        for plan in watched:
            plan.tally.notes.append(f"threads came faster than {PASSES} scans could follow")

    def _give_way(self, plan: Plan) -> None:
        """Close what somebody else has changed, and restore the rest of what we changed in the plan's process: nobody wants half a
        process changed. renice(1) reaches the first thread only, and means the process."""
        if not plan.tally.foreign:
            return
        foreign = {
            move.knob: chain
            for move in plan.moves
            if move.knob.control is not Control.POOL_SIZE
            and (chain := self._ledger.chain(move.knob)) is not None
            and not is_ours(self._kernel, chain, self._kernel.read(move.knob))
        }
        restored = self._closing.give_way(plan.foreign | foreign, plan.subject)
        if restored is not None and restored.changed:
            plan.tally.changed, plan.tally.steps = 0, []
            plan.tally.notes.append(f"{restored.changed} other threads were put back")
