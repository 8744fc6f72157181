"""Plans what an order changes: compares its target with what is wanted and with what the ledger believes.

Reads the ledger and the kernel, and changes neither. Must not know how changes are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...models.identity import ProcId
from .changes import Chain, name_of, original, shown, subject_of
from .faults import Status, Trouble
from .heirs import Family, Heirs, Leader
from .kernel import Kernel, Kin
from .ledger import Ledger
from .limits import Limiter, favours
from .looks import Order, chosen, compare, knobs_of, name_for, wanted
from .places import INHERITED, AutogroupPlace, Control, Knob, Subject, Value
from .sweep import is_ours
from .tally import Tally


class Edit:
    """One value to be changed. `kin`: of the process, for the controls that children inherit."""

    __slots__ = ("kin", "knob", "new", "old", "original")

    def __init__(self, knob: Knob, old: Value, new: Value, first: Value, kin: Kin | None) -> None:
        self.knob, self.old, self.new, self.original, self.kin = knob, old, new, first, kin


class Plan:
    """What an order changes, after a look at its target. `what`: the target, for people."""

    __slots__ = ("beyond", "edits", "foreign", "order", "seen", "subject", "tally", "what")

    def __init__(self, order: Order, what: str, tally: Tally | None = None, foreign: dict[Knob, Chain] | None = None) -> None:
        self.order = order
        self.what = what
        self.edits: list[Edit] = []
        self.subject: Subject | None = None  # what it changes: no two plans that are carried out together share one
        self.beyond = False  # part of it is beyond the limits of the hands: then nothing of it is done
        self.seen = set[Knob]()  # knobs that were compared
        self.foreign = {} if foreign is None else foreign  # changes of ours that somebody else has overwritten
        self.tally = Tally() if tally is None else tally


Explain = Callable[[Knob, Value], Chain | Trouble | None]
"""Says from which change of ours a thread without an entry has its value. None: from none; Trouble: this cannot be determined
now."""


class Planner:
    """Makes plans."""

    def __init__(self, ledger: Ledger, kernel: Kernel, heirs: Heirs, limiter: Limiter) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._heirs = heirs
        self._limiter = limiter

    def plan(self, order: Order) -> Plan:
        """What this order changes now."""
        if order.value is None:
            plan = Plan(order, name_of(order.control, order.on))
            subject = self._made(order)
            if isinstance(subject, Trouble):
                plan.tally.trouble(subject)
            else:
                plan.subject = subject
            return plan
        objection = self._limiter.objection(order)
        forbidden = "" if objection is not None else self._kernel.forbidden(order.control)
        if forbidden:
            objection = Trouble(Status.REFUSED, forbidden)
        knobs = knobs_of(self._kernel, order) if objection is None else objection
        plan = Plan(order, name_for(order, knobs))
        if isinstance(knobs, Trouble):
            plan.tally.trouble(knobs)
            return plan
        plan.subject = subject_of(knobs[0])
        self.look(plan, knobs)
        often = self._limiter.too_often(order.control, order.on) if plan.edits else None
        if often is not None:
            plan.tally.trouble(often)
            plan.edits.clear()
        return plan

    def look(self, plan: Plan, knobs: Iterable[Knob]) -> None:
        """Compare these knobs with what is wanted and with what we believe, and add what must be changed to the plan.

        One thread that somebody else changed makes the whole order FOREIGN: renice(1) reaches the first thread only. One that would
        get more than it had makes it REFUSED.
        """
        kin: Kin | None = None
        order = plan.order
        if order.control in INHERITED and isinstance(order.on, ProcId):
            who = self._kernel.kin_of(order.on)
            if isinstance(who, Trouble):
                plan.tally.trouble(who)
                return
            kin = who
        explain = self._ancestry(order, kin)
        for knob in knobs:
            plan.seen.add(knob)
            self._look_at(plan, knob, kin, explain)
        if plan.tally.foreign or plan.beyond:
            plan.edits.clear()

    def _look_at(self, plan: Plan, knob: Knob, kin: Kin | None, explain: Explain) -> None:
        order = plan.order
        chain = self._ledger.chain(knob)
        found = compare(self._kernel, order, knob)
        if isinstance(found, Trouble):
            plan.tally.trouble(found)
            return
        now = found.now
        if self._ledger.is_foreign(knob):
            plan.tally.foreign.append("somebody else has changed it before; hands off")
            return
        ours = True if chain is None else is_ours(self._kernel, chain, now)
        if isinstance(ours, Trouble):
            plan.tally.trouble(ours)
            return
        if chain is not None and not ours:
            plan.tally.foreign.append(f"somebody changed it from {shown(chain[-1].new)} to {shown(now)}")
            plan.foreign[knob] = chain
            return
        source = explain(knob, now) if chain is None else chain
        first = source if isinstance(source, Trouble) else self._kernel.lasting(knob, now) if source is None else original(source)
        if isinstance(first, Trouble):
            plan.tally.trouble(first)
        elif source is None and found.chosen:
            plan.tally.foreign.append(chosen(order.control, now))
        elif found.so:
            plan.tally.same += 1
        elif favours(order.control, first, wanted(order)):
            text = f"{order.control} {shown(wanted(order))} would give it more than the {shown(first)} that it had"
            plan.tally.trouble(Trouble(Status.REFUSED, f"beyond the limits of the hands: {text}"))
            plan.beyond = True
        else:
            plan.edits.append(Edit(knob, now, wanted(order), first, kin))

    def _ancestry(self, order: Order, kin: Kin | None) -> Explain:
        """Explains values that threads and children inherited from a change of ours. Such a value was not chosen by anybody, and
        its original is that of the parent."""
        if kin is None:
            return lambda _knob, _now: None
        own = kin.id
        chains = self._ledger.chains(Subject(order.control, own))
        parents = [Leader(own, chain) for chain in chains.values()]
        parents += [leader for leader in self._heirs.leaders(order.control) if leader.process != own]
        heirs: dict[ProcId, tuple[ProcId, ...]] = {}  # from one scan of all processes, made only if it is needed

        def explain(knob: Knob, now: Value) -> Chain | Trouble | None:
            for process, chain in parents:
                entry = self._heirs.inherited(chain, knob, now)
                if isinstance(entry, Trouble):
                    return entry
                if entry is None:
                    continue
                if process != own and not heirs:
                    scan = self._kernel.kin()
                    if scan.unread is not None:
                        return scan.unread
                    family = Family(scan.kin)
                    heirs.update({parent: family.heirs(parent, other) for parent, other in parents if parent != own})
                if process == own or own in heirs[process]:
                    return chain
            return None

        return explain

    def _made(self, order: Order) -> Subject | Trouble | None:
        """The ledger's name for what this order puts back; None: the ledger has no change of it."""
        on = order.on
        if not isinstance(on, ProcId):
            return Subject(order.control, on)
        if order.control is Control.AUTOGROUP:
            name = self._kernel.autogroup(on)
            if not isinstance(name, Trouble):
                return Subject(order.control, AutogroupPlace(name, on))
            return next(iter(made_through(self._ledger, order)), name)  # the process has ended, but its autogroup may still exist
        if order.control is Control.FENCE:
            made = made_through(self._ledger, order)
            return made[-1] if made else None
        return Subject(order.control, on)


def made_through(ledger: Ledger, order: Order) -> list[Subject]:
    """The subjects of this control that were changed through this process, oldest first."""
    return [it.subject for it in ledger.outstanding() if it.control is order.control and it.process == order.on]
