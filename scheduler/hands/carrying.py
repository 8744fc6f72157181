"""Carries plans out: the intents go to the ledger, then the values to the kernel, then each is read back.

Knows the ledger, the kernel and the clock. Must not know decisions beyond what an order says of them.
`docs/decisions/0003-ledger-and-undo.md` has the rules: what is durable when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .changes import Entry, EntryStatus, shown
from .closing import Closing
from .faults import Status, Trouble
from .heirs import PASSES
from .kernel import Clock, Kernel
from .ledger import Ledger, LedgerError
from .limits import Limiter
from .looks import knobs_of
from .places import INHERITED, Knob, leads
from .planning import Edit, Plan, Planner
from .restoring import Restorer
from .sweep import is_ours


class Carrier:
    """Carries plans out."""

    def __init__(
        self,
        ledger: Ledger,
        kernel: Kernel,
        clock: Clock,
        planner: Planner,
        restorer: Restorer,
        closing: Closing,
        limiter: Limiter,
    ) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._clock = clock
        self._boot_id = kernel.boot_id()
        self._planner = planner
        self._restorer = restorer
        self._closing = closing
        self._limiter = limiter

    def carry_out(self, plans: Sequence[Plan]) -> None:
        """Record the intents of all plans in one durable write; then restore, then change, then follow threads that appeared
        meanwhile; then record all results in one write."""
        ids = self._intend(plans)
        restores = {plan.subject: plan for plan in plans if plan.order.value is None and plan.subject is not None}
        for subject, tally in self._restorer.put_back(list(restores)).items():
            restores[subject].tally = tally
        statuses: dict[int, EntryStatus] = {}
        for plan in plans:
            self._make(plan, ids, statuses)
        self._follow_threads(plans, statuses)
        if statuses:
            self._ledger.settle(statuses)
        for plan in plans:
            self._give_way(plan)

    def _intend(self, plans: Sequence[Plan]) -> dict[Knob, int]:
        """Ids of the entries by place. If the ledger cannot be written, the edits are removed from the plans."""
        edits = [(plan, edit) for plan in plans for edit in plan.edits]
        if not edits:
            return {}
        wall, since = self._clock.wall(), self._kernel.uptime_ticks()
        trouble, ids = self._limiter.used(len(edits), self._ledger.held), tuple[int, ...]()
        if trouble is None:
            try:
                ids = self._ledger.intend([self._entry(plan, edit, wall, since) for plan, edit in edits])
            except LedgerError as error:
                trouble = Trouble(Status.BLOCKED, str(error))  # a disk failure says nothing about the mechanism
        if trouble is not None:
            for plan in plans:
                if plan.edits:
                    plan.tally.trouble(trouble)
                    plan.edits.clear()
            return {}
        return {edit.knob: number for (_, edit), number in zip(edits, ids, strict=True)}

    def _entry(self, plan: Plan, edit: Edit, wall: int, since: int) -> Entry:
        kin = edit.kin
        return Entry(
            id=0,
            boot_id=self._boot_id,
            decision=plan.order.decision,
            target=plan.order.target,
            wall=wall,
            knob=edit.knob,
            session=None if kin is None else kin.session,
            group=None if kin is None else kin.group,
            since=since,
            original=edit.original,
            old=edit.old,
            new=edit.new,
            status=EntryStatus.INTENT,
        )

    def _make(self, plan: Plan, ids: Mapping[Knob, int], statuses: dict[int, EntryStatus]) -> None:
        """Make the edits of a plan whose intents are durable. `statuses` gets the result of each edit, if it is known."""
        became = self._limiter.became(plan.order) if plan.edits else None
        for edit in plan.edits:
            status = self._change(plan, edit, became)
            if status is not None:
                statuses[ids[edit.knob]] = status

    def _change(self, plan: Plan, edit: Edit, became: Trouble | None) -> EntryStatus | None:
        """Write a value and read it back. `became`: why nothing is written. None: its entry stays open."""
        trouble = became or self._kernel.write(edit.knob, edit.old, edit.new)
        if trouble is not None:
            plan.tally.trouble(trouble)
            return self._doubt(edit, trouble)
        now, visible = self._kernel.read(edit.knob), self._kernel.visible(edit.knob, edit.new)
        if isinstance(now, Trouble):
            plan.tally.trouble(now)
            # an ended process may have left a child with our value: its first thread's entry stays open for the sweep
            gone = now.status is Status.VANISHED and leads(edit.knob) is None
            return EntryStatus.GONE if gone else EntryStatus.DONE
        if isinstance(visible, Trouble):
            plan.tally.trouble(visible)
            return EntryStatus.DONE
        if now == visible:
            plan.tally.step(edit.old, edit.new)
            return EntryStatus.DONE
        if now == edit.old:
            plan.tally.trouble(
                Trouble(Status.FAILED, f"the kernel accepted {shown(edit.new)}, but the value is still {shown(now)}")
            )
            return EntryStatus.FAILED if leads(edit.knob) is None else None  # a child may have our value: undo looks for it
        plan.tally.trouble(Trouble(Status.FOREIGN, f"set to {shown(edit.new)}, read back as {shown(now)}"))
        return EntryStatus.DONE  # it is closed as somebody else's once its heirs have entries: `_give_way`

    def _doubt(self, edit: Edit, trouble: Trouble) -> EntryStatus | None:
        """The status of an entry after a failed write. Usually nothing has changed, and the entry is closed. If the write was
        partial (a fence that could not be removed again) or its result cannot be read now, the entry stays open (None) and undo
        compares the value."""
        if trouble.status is Status.VANISHED:  # before the write or after it: then it may have left a child with our value
            return EntryStatus.GONE if leads(edit.knob) is None else None
        if self._kernel.read(edit.knob) == edit.old or trouble.status is Status.FOREIGN:
            return EntryStatus.FAILED
        return None

    def _follow_threads(self, plans: Sequence[Plan], statuses: dict[int, EntryStatus]) -> None:
        """Change threads started while the others were changed: each pass plans, records and changes those not yet seen."""
        watched = [
            plan
            for plan in plans
            if plan.order.value is not None and plan.tally.changed and not plan.tally.foreign and plan.order.control in INHERITED
        ]
        for _ in range(PASSES):
            news: list[Plan] = []
            for plan in watched:
                knobs = knobs_of(self._kernel, plan.order)
                fresh = [] if isinstance(knobs, Trouble) else [knob for knob in knobs if knob not in plan.seen]
                if fresh:
                    more = Plan(plan.order, plan.what, plan.tally, plan.foreign)
                    self._planner.look(more, fresh)
                    plan.seen |= more.seen
                    news.append(more)
            if not news:
                return
            ids = self._intend(news)
            for more in news:
                self._make(more, ids, statuses)
        for plan in watched:
            plan.tally.notes.append(f"threads started faster than {PASSES} scans could find them: some may be unchanged")

    def _give_way(self, plan: Plan) -> None:
        """Close the entries of values that somebody else has changed, and restore our other changes to the plan's process, so that
        no process is left half changed. renice(1) changes only the first thread, but it is meant for the process."""
        if not plan.tally.foreign:
            return
        foreign = {
            edit.knob: chain
            for edit in plan.edits
            if (chain := self._ledger.chain(edit.knob)) is not None
            and not is_ours(self._kernel, chain, self._kernel.read(edit.knob))
        }
        restored = self._closing.give_way(plan.foreign | foreign, plan.subject)
        if restored is not None and restored.changed:
            plan.tally.changed, plan.tally.steps = 0, []
            plan.tally.notes.append(f"{restored.changed} other threads were put back")
