"""Plans what a decision changes: compares its target with what is wanted and with what the ledger believes.

Reads the ledger, the kernel and the pools. Changes none of them, except that it closes entries of a pool that somebody else has
resized or restarted. Must not know how changes are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ...models.identity import ProcId
from ..decision import Decision, Digest, Flag, Outcome, ResizePool, Restore, Set
from ..hands.changes import Chain, EntryStatus, believed, ids_of, name_of, original, shown, subject_of
from ..hands.faults import Status, Trouble
from ..hands.heirs import Family, Heirs, Leader
from ..hands.kernel import Kernel, Kin
from ..hands.ledger import Ledger
from ..hands.places import INHERITED, AutogroupPlace, Cgroup, Control, Knob, PoolPlace, Subject, Value
from ..hands.sweep import is_ours
from ..hands.tally import Tally
from ..places import CgroupPlace, ProcessPlace, SessionPlace, place_in_kernel, process_of
from ..ports import Locks, PoolAdapter
from .looks import chosen, compare, knobs_of, name_for, outcome, reported, unknown_pool, wanted
from .pool_sizes import PoolSizes
from .relieving import Relieving


@dataclass(slots=True)
class Edit:
    """One value to be changed."""

    knob: Knob
    old: Value
    new: Value
    original: Value
    kin: Kin | None  # of the process, for the controls that children inherit


@dataclass(slots=True)
class ActionPlan:
    """What a decision changes, after a look at its target."""

    decision: Decision
    what: str
    edits: list[Edit] = field(default_factory=list)
    subject: Subject | None = None  # what it changes: no two plans that are carried out together share one
    seen: set[Knob] = field(default_factory=set)  # knobs that were compared
    foreign: dict[Knob, Chain] = field(default_factory=dict)  # changes of ours that somebody else has overwritten
    tally: Tally = field(default_factory=Tally)
    outcome: Outcome | None = None  # instead of the tally: pools and flags

    def done(self) -> Outcome:
        """The outcome of the decision, once it was carried out."""
        return self.outcome or outcome(self.tally, self.decision.id, self.decision.target, self.what)


Explain = Callable[[Knob, Value], Chain | Trouble | None]
"""Says from which change of ours a thread without an entry has its value. None: from none; Trouble: this cannot be determined
now."""


class Planner:
    """Makes plans. `relieving`: which processes may wait for locks, and what was restored since the last decisions."""

    def __init__(
        self,
        ledger: Ledger,
        kernel: Kernel,
        locks: Locks,
        pools: Mapping[str, PoolAdapter],
        sizes: PoolSizes,
        heirs: Heirs,
        relieving: Relieving,
    ) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._locks = locks
        self._pools = pools
        self._sizes = sizes
        self._heirs = heirs
        self._relieving = relieving

    def plan(self, decision: Decision) -> ActionPlan:
        """What this decision changes now."""
        action = decision.action
        if isinstance(action, Set):
            return self._plan_set(decision, action)
        if isinstance(action, Restore):
            plan = ActionPlan(decision, name_of(action.control, place_in_kernel(action.on)))
            subject = self.subject(action)
            if isinstance(subject, Trouble):
                plan.tally.trouble(subject)
            else:
                plan.subject = subject
            return plan
        if isinstance(action, ResizePool):
            return self._plan_resize(decision, action)
        plan = ActionPlan(decision, "")
        if isinstance(action, Flag | Digest):
            plan.outcome = Outcome(decision.id, Status.APPLIED, decision.target, reported(action), 0)
            return plan
        plan.outcome = unknown_pool(self._pools, decision, action.pool)
        return plan

    def _plan_set(self, decision: Decision, action: Set) -> ActionPlan:
        forbidden = self._kernel.forbidden(action.control)
        knobs = Trouble(Status.REFUSED, forbidden) if forbidden else knobs_of(self._kernel, action)
        plan = ActionPlan(decision, name_for(action, knobs))
        if not isinstance(knobs, Trouble):
            knobs = self._wanted_by_others(action) or knobs
        if isinstance(knobs, Trouble):
            plan.tally.trouble(knobs)
            return plan
        plan.subject = subject_of(knobs[0])
        relieved = self._relieving.why(plan.subject)
        if relieved is not None:  # decided before the relief was known
            text = f"{plan.what} is left alone, because it was restored after this was decided: {relieved}"
            plan.outcome = Outcome(decision.id, Status.RELIEVED, decision.target, text, 0)
            return plan
        self.look(plan, action, knobs)
        return plan

    def _wanted_by_others(self, action: Set) -> Trouble | None:
        """Trouble if another process waits for a lock of the process to be fenced: the fence would delay all waiters. The
        starvation watchdog finds waits that this look misses, and those that begin later."""
        if action.control is not Control.FENCE or not isinstance(action.on, ProcessPlace):
            return None
        process = action.on.id
        for wait in self._locks.waits((process,), self._relieving.members):
            if wait.waiter != process and (wait.holder or wait.possible) in (process, (process,)):
                return Trouble(Status.REFUSED, f"not fenced now: pid {wait.waiter.pid} waits for the {wait.lock} that it holds")
        return None

    def look(self, plan: ActionPlan, action: Set, knobs: Iterable[Knob]) -> None:
        """Compare these knobs with what is wanted and with what we believe, and add what must be changed to the plan.

        One thread that somebody else changed makes the whole decision FOREIGN: renice(1) reaches the first thread only.
        """
        kin: Kin | None = None
        if action.control in INHERITED and isinstance(action.on, ProcessPlace):
            who = self._kernel.kin_of(action.on.id)
            if isinstance(who, Trouble):
                plan.tally.trouble(who)
                return
            kin = who
        explain = self._ancestry(action, kin)
        for knob in knobs:
            plan.seen.add(knob)
            self._look_at(plan, action, knob, kin, explain)
        if plan.tally.foreign:
            plan.edits.clear()

    def _look_at(self, plan: ActionPlan, action: Set, knob: Knob, kin: Kin | None, explain: Explain) -> None:
        chain = self._ledger.chain(knob)
        found = compare(self._kernel, action, knob)
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
            plan.tally.foreign.append(chosen(action, now))
        elif found.so:
            plan.tally.same += 1
        else:
            plan.edits.append(Edit(knob, now, wanted(action), first, kin))

    def _ancestry(self, action: Set, kin: Kin | None) -> Explain:
        """Explains values that threads and children inherited from a change of ours. Such a value was not chosen by anybody, and
        its original is that of the parent."""
        if kin is None:
            return lambda _knob, _now: None
        own = kin.id
        chains = self._ledger.chains(Subject(action.control, own))
        parents = [Leader(own, chain) for chain in chains.values()]
        parents += [leader for leader in self._heirs.leaders(action.control) if leader.process != own]
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

    def _plan_resize(self, decision: Decision, action: ResizePool) -> ActionPlan:
        plan = ActionPlan(decision, f"size of pool {action.pool}")
        plan.outcome = unknown_pool(self._pools, decision, action.pool)
        sample, asked = self._sizes.sample(action.pool), self._sizes.requested(action.pool)
        if plan.outcome is not None:
            return plan
        if sample is None or asked is None:
            text = f"pool {action.pool} has not been read yet, so the size that undo must restore is unknown"
            plan.outcome = Outcome(decision.id, Status.FAILED, decision.target, text, 0)
            return plan
        master = sample.master or self._kernel.itself()
        knob = Knob(Control.POOL_SIZE, PoolPlace(action.pool, master))
        plan.subject = subject_of(knob)
        if asked == action.size:
            plan.tally.same += 1
            return plan
        chain = self._ledger.chain(knob)
        if chain is not None and chain[-1].process != master:
            self._ledger.settle(dict.fromkeys(ids_of(chain), EntryStatus.GONE))  # the pool was restarted, with its own size
            chain = None
        elif chain is not None and asked not in believed(chain):
            # the adapter decides how long to keep hands off; once it takes requests again, the size set by hand is the original
            self._ledger.settle(dict.fromkeys(ids_of(chain), EntryStatus.FOREIGN))
            chain = None
        first = asked if chain is None else original(chain)
        plan.edits.append(Edit(knob, asked, action.size, first, None))
        return plan

    def subject(self, action: Restore | ResizePool) -> Subject | Trouble | None:
        """The ledger's name for the target of this action; None: the ledger has no change of it."""
        if isinstance(action, ResizePool):
            return next((it for it in self._ledger.subjects() if isinstance(it.on, PoolPlace) and it.on.name == action.pool), None)
        match action.on:
            case CgroupPlace(path=path):
                return Subject(action.control, Cgroup(path))
            case SessionPlace(through=process):
                name = self._kernel.autogroup(process)
                if not isinstance(name, Trouble):
                    return Subject(action.control, AutogroupPlace(name, process))
                return next(iter(self._made_through(action)), name)  # the process has ended, but its autogroup may still exist
            case ProcessPlace() if action.control is Control.FENCE:
                made = self._made_through(action)
                return made[-1] if made else None
            case ProcessPlace(id=process):
                return Subject(action.control, process)

    def _made_through(self, action: Restore) -> list[Subject]:
        """The subjects of this control that were changed through this process, oldest first."""
        process = process_of(action.on)
        return [it.subject for it in self._ledger.outstanding() if it.control is action.control and it.process == process]
