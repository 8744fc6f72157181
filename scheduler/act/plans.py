"""What must be changed so that a decision is done: its target compared with what is wanted and with what the ledger believes.

Reads the ledger, the kernel and the pools. Changes none of them, but closes entries of a pool that somebody else has resized or
restarted. Must not know how changes are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ...models.records import ProcId
from ..changes import INHERITED, Chain, EntryStatus, Subject, believed, ids_of, name_of, original, shown, subject_of
from ..decision import Control, Decision, Digest, Flag, Outcome, ResizePool, Restore, Set, Status
from ..ports import Kernel, Kin, Knob, Locks, PoolAdapter, Trouble, Value
from ..store.ledger import Ledger
from .easing import Easing
from .heirs import Family, Heirs
from .looks import chosen, is_ours, knobs_of, name_for, reported, seen, unknown_pool, wanted
from .pool_sizes import PoolSizes
from .tally import Tally


@dataclass(slots=True)
class Move:
    """One value to be changed."""

    knob: Knob
    old: Value
    new: Value
    original: Value
    kin: Kin | None  # of the process, for the controls that children inherit


@dataclass(slots=True)
class Plan:
    """What a decision comes to, after a look at its target."""

    decision: Decision
    what: str
    moves: list[Move] = field(default_factory=list)
    subject: Subject | None = None  # what it changes: no two plans of one turn share one
    seen: set[Knob] = field(default_factory=set)  # looked at
    foreign: dict[Knob, Chain] = field(default_factory=dict)  # changes of ours that somebody else has overwritten
    tally: Tally = field(default_factory=Tally)
    outcome: Outcome | None = None  # where no tally is kept: pools and flags

    def done(self) -> Outcome:
        """The outcome of the decision, once it was carried out."""
        return self.outcome or self.tally.outcome(self.decision.id, self.decision.target, self.what)


class Planner:
    """Makes plans. `easing`: who was demoted, and what was restored since the last decisions."""

    def __init__(
        self,
        ledger: Ledger,
        kernel: Kernel,
        locks: Locks,
        pools: Mapping[str, PoolAdapter],
        sizes: PoolSizes,
        heirs: Heirs,
        easing: Easing,
    ) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._locks = locks
        self._pools = pools
        self._sizes = sizes
        self._heirs = heirs
        self._easing = easing

    def plan(self, decision: Decision) -> Plan:
        """What this decision comes to now."""
        action = decision.action
        if isinstance(action, Set):
            return self._plan_set(decision, action)
        if isinstance(action, Restore):
            plan = Plan(decision, name_of(action.control, action.process, action.cgroup))
            subject = self.subject(action)
            if isinstance(subject, Trouble):
                plan.tally.trouble(subject)
            else:
                plan.subject = subject
            return plan
        if isinstance(action, ResizePool):
            return self._plan_resize(decision, action)
        plan = Plan(decision, "")
        if isinstance(action, Flag | Digest):
            plan.outcome = Outcome(decision.id, Status.APPLIED, decision.target, reported(action), 0)
            return plan
        plan.outcome = unknown_pool(self._pools, decision, action.pool)
        return plan

    def _plan_set(self, decision: Decision, action: Set) -> Plan:
        forbidden = self._kernel.forbidden(action.control)
        knobs = Trouble(Status.REFUSED, forbidden) if forbidden else knobs_of(self._kernel, action)
        plan = Plan(decision, name_for(action, knobs))
        if not isinstance(knobs, Trouble):
            knobs = self._wanted_by_others(action) or knobs
        if isinstance(knobs, Trouble):
            plan.tally.trouble(knobs)
            return plan
        plan.subject = subject_of(knobs[0])
        relieved = self._easing.why(plan.subject)
        if relieved is not None:  # decided before the relief was known
            text = f"{plan.what} was decided before a relief was known, and is left as it is: {relieved}"
            plan.outcome = Outcome(decision.id, Status.RELIEVED, decision.target, text, 0)
            return plan
        self.look(plan, action, knobs)
        return plan

    def _wanted_by_others(self, action: Set) -> Trouble | None:
        """Trouble if a process waits for a lock of the process to be fenced: held back, it would hold up all waiters. The relief
        sees what one look does not see and what comes later."""
        if action.control is not Control.FENCE or action.process is None:
            return None
        process = action.process
        for wait in self._locks.waits((process,), self._easing.members):
            if wait.waiter != process and (wait.holder or wait.possible) in (process, (process,)):
                return Trouble(Status.REFUSED, f"pid {wait.waiter.pid} waits for the {wait.lock} that it holds: not held back now")
        return None

    def look(self, plan: Plan, action: Set, knobs: Iterable[Knob]) -> None:
        """Compare these knobs with what is wanted and with what we believe, and add what must be changed to the plan.

        One thread that somebody else changed makes the whole decision FOREIGN: renice(1) reaches the first thread only.
        """
        kin: Kin | None = None
        if action.control in INHERITED and action.process is not None:
            who = self._kernel.kin_of(action.process)
            if isinstance(who, Trouble):
                plan.tally.trouble(who)
                return
            kin = who
        explain = self._ancestry(action, kin)
        for knob in knobs:
            plan.seen.add(knob)
            chain = self._ledger.chain(knob)
            found = seen(self._kernel, action, knob)
            if isinstance(found, Trouble):
                plan.tally.trouble(found)
                continue
            now = found.now
            if self._ledger.is_foreign(knob):
                plan.tally.foreign.append("somebody else has changed it before; hands off")
                continue
            ours = True if chain is None else is_ours(self._kernel, chain, now)
            if chain is not None and not ours:
                plan.tally.foreign.append(f"somebody changed it from {shown(chain[-1].new)} to {shown(now)}")
                plan.foreign[knob] = chain
                continue
            source = explain(knob, now) if chain is None else chain
            first = self._kernel.lasting(knob, now) if source is None else now if isinstance(source, Trouble) else original(source)
            unknown = next((each for each in (ours, source, first) if isinstance(each, Trouble)), None)
            if unknown is not None:
                plan.tally.trouble(unknown)
            elif source is None and found.chosen:
                plan.tally.foreign.append(chosen(action, now))
            elif found.so:
                plan.tally.same += 1
            else:
                assert not isinstance(first, Trouble)
                plan.moves.append(Move(knob, now, wanted(action), first, kin))
        if plan.tally.foreign:
            plan.moves.clear()

    def _ancestry(self, action: Set, kin: Kin | None) -> Callable[[Knob, Value], Chain | Trouble | None]:
        """Returns a function that says which change of ours a thread without an entry has its value from; None: none of ours;
        Trouble: this cannot be determined now.

        A thread or child started after a change of ours may have it from there: then it goes back to the parent's original,
        and nobody chose it.
        """
        own = None if kin is None else kin.id
        parents = [] if own is None else [(own, chain) for chain in self._ledger.chains(Subject(action.control, own, "")).values()]
        parents += [] if own is None else [pair for pair in self._heirs.leaders(action.control) if pair[0] != own]
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

    def _plan_resize(self, decision: Decision, action: ResizePool) -> Plan:
        plan = Plan(decision, f"size of pool {action.pool}")
        plan.outcome = unknown_pool(self._pools, decision, action.pool)
        sample, asked = self._sizes.sample(action.pool), self._sizes.requested(action.pool)
        if plan.outcome is not None:
            return plan
        if sample is None or asked is None:
            text = f"pool {action.pool} has not been read yet, so it is not known what size to put back"
            plan.outcome = Outcome(decision.id, Status.FAILED, decision.target, text, 0)
            return plan
        knob = Knob(Control.POOL_SIZE, sample.master or self._kernel.itself(), None, action.pool)
        plan.subject = subject_of(knob)
        if asked == action.size:
            plan.tally.same += 1
            return plan
        chain = self._ledger.chain(knob)
        if chain is not None and chain[-1].process != knob.process:
            self._ledger.settle(dict.fromkeys(ids_of(chain), EntryStatus.GONE))  # the pool was restarted, with its own size
            chain = None
        elif chain is not None and asked not in believed(chain):
            # the adapter decides how long to keep hands off; once it takes requests again, the size set by hand is the original
            self._ledger.settle(dict.fromkeys(ids_of(chain), EntryStatus.FOREIGN))
            chain = None
        first = asked if chain is None else original(chain)
        plan.moves.append(Move(knob, asked, action.size, first, None))
        return plan

    def subject(self, action: Restore | ResizePool) -> Subject | Trouble:
        """What the ledger calls the target of this action."""
        if isinstance(action, ResizePool):
            return Subject(Control.POOL_SIZE, None, action.pool)
        if action.control is Control.FENCE:
            fences = [it for it in self._ledger.outstanding() if it.control is Control.FENCE and it.process == action.process]
            return fences[-1].subject if fences else Subject(Control.FENCE, action.process, "")
        if action.control is not Control.AUTOGROUP:
            return Subject(action.control, action.process if action.control in INHERITED else None, action.cgroup)
        assert action.process is not None
        key = self._kernel.autogroup(action.process)
        if isinstance(key, Trouble):  # the process has ended, but its autogroup may still exist
            for entry in self._ledger.outstanding():
                if entry.control is Control.AUTOGROUP and entry.process == action.process:
                    return entry.subject
            return key
        return Subject(Control.AUTOGROUP, None, key)
