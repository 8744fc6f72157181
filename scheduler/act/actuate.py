"""Carries decisions out: looks, records in the ledger, changes, reads back. Two implementations of `ports.Actuator`: Observing
writes nothing, Acting does.

Knows the kernel, the pools and the clock only as ports. Must not know policies, configuration or the decision log.
`docs/decisions/0003-ledger-and-undo.md` has the rules: what is durable when, what is restored, and what was inherited.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...models.records import Latency, PoolSample, ProcId
from ..decision import Control, Decision, Digest, Flag, Group, Outcome, Recycle, ResizePool, Restore, Set, Status
from ..fences import FENCED, Limits, weighs_only
from ..ports import Clock, Kernel, Kin, Knob, Locks, PoolAdapter, Trouble, Value
from ..read.locks import LinuxLocks
from ..store.ledger import (
    Chain,
    Entry,
    EntryStatus,
    Ledger,
    LedgerError,
    StateLock,
    Subject,
    believed,
    left_behind,
    original,
    place,
    subject_of,
)
from .census import Census, Demotion
from .knobs.control import LinuxKernel
from .relief import Case, Relief
from .undo import INHERITED, PASSES, Family, Tally, Undoer, as_int, ids_of, leads, name_of, name_of_entry, shown

CHECKS = 8
"""Values compared with the kernel in each `settle`, plus a 32nd of all: each value is compared within half a minute at 1 Hz."""

GONE_EVERY = 16
"""`settle` calls between searches for what ended processes left to their children: each search scans all processes."""


@dataclass(slots=True)
class _Move:
    """One value to be changed."""

    knob: Knob
    old: Value
    new: Value
    original: Value
    kin: Kin | None  # of the process, for the controls that children inherit


@dataclass(slots=True)
class _Plan:
    """What a decision comes to, after a look at its target."""

    decision: Decision
    what: str
    moves: list[_Move] = field(default_factory=list)
    subject: Subject | None = None  # what it changes: no two plans of one turn share one
    seen: set[Knob] = field(default_factory=set)  # looked at
    foreign: dict[Knob, Chain] = field(default_factory=dict)  # changes of ours that somebody else has overwritten
    tally: Tally = field(default_factory=Tally)
    outcome: Outcome | None = None  # where no tally is kept: pools and flags

    def done(self) -> Outcome:
        return self.outcome or self.tally.outcome(self.decision.id, self.decision.target, self.what)


class Observing:
    """The actuator of observe mode: looks at the same targets and says what it would change. Writes nothing.

    `samples`: the latest sample of each pool; the daemon keeps it up to date.
    """

    mode = "observe"

    def __init__(self, kernel: Kernel, pools: Mapping[str, PoolAdapter], samples: Mapping[str, PoolSample]) -> None:
        self._kernel = kernel
        self._pools = pools
        self._samples = samples

    def apply(self, decisions: Sequence[Decision]) -> tuple[Outcome, ...]:
        """One outcome per decision: OBSERVED, UNCHANGED if there is nothing to change, or why it could not be looked at."""
        return tuple(self._look(decision) for decision in decisions)

    def settle(self) -> tuple[Outcome, ...]:
        """Nothing is ever under way."""
        return ()

    def undo(self) -> tuple[Outcome, ...]:
        """Nothing was ever changed."""
        return ()

    def release(self, pools: Collection[str]) -> tuple[Outcome, ...]:  # noqa: ARG002 - the port's
        """Nothing was ever changed."""
        return ()

    def limit(self, starve_seconds: float, floor: float) -> None:
        """Nothing is ever demoted."""

    def relieve(self, groups: Sequence[Group]) -> float | None:  # noqa: ARG002 - the port's
        """Nothing is ever demoted."""
        return None

    def _look(self, decision: Decision) -> Outcome:
        action = decision.action
        if isinstance(action, Set):
            return self._look_at_set(decision, action)
        if isinstance(action, Restore):
            text = f"nothing is changed in observe mode, so {name_of(action.control, action.process, action.cgroup)} is as it was"
            return Outcome(decision.id, Status.UNCHANGED, decision.target, text, 0)
        if isinstance(action, Flag | Digest):
            return Outcome(decision.id, Status.OBSERVED, decision.target, _reported(action), 0)
        unknown = _unknown_pool(self._pools, decision, action.pool)
        if unknown is not None:
            return unknown
        if isinstance(action, Recycle):
            text = f"would drain pid {action.worker.pid} of pool {action.pool} and start another"
            return Outcome(decision.id, Status.OBSERVED, decision.target, text, 0)
        sample = self._samples.get(action.pool)
        asked = "?" if sample is None else sample.requested
        if asked == action.size:
            return Outcome(decision.id, Status.UNCHANGED, decision.target, f"pool {action.pool} is asked for {asked} already", 0)
        text = f"would ask pool {action.pool} for {action.size} workers, {asked} now"
        return Outcome(decision.id, Status.OBSERVED, decision.target, text, 0)

    def _look_at_set(self, decision: Decision, action: Set) -> Outcome:
        tally, would = Tally(), Tally()
        knobs = _knobs(self._kernel, action)
        what, wanted = _name(action, knobs), _wanted(action)
        for knob in () if isinstance(knobs, Trouble) else knobs:
            seen = _seen(self._kernel, action, knob)
            if isinstance(seen, Trouble):
                tally.trouble(seen)
            elif seen.chosen:
                tally.foreign.append(_chosen(action, seen.now))
            elif seen.so:
                tally.same += 1
            else:
                would.step(seen.now, wanted)
        if isinstance(knobs, Trouble):
            tally.trouble(knobs)
        if tally.foreign or not would.changed:
            return tally.outcome(decision.id, decision.target, what)
        forbidden = self._kernel.forbidden(action.control)
        steps = ", ".join(f"{shown(before)} -> {shown(after)}" for before, after in would.steps)
        text = f"would change {what}: {steps}" + (f"; acting would refuse it: {forbidden}" if forbidden else "")
        return Outcome(decision.id, Status.OBSERVED, decision.target, text, 0)


class Acting:
    """The actuator that acts. Everything it changes is in the ledger first.

    `samples`: the latest sample of each pool; the daemon keeps it up to date. `patience`: seconds that `undo` waits for pools to
    return to their size. `locks`: None reads this machine's;
    `starve_seconds` and `floor` are those of `relief.Relief`.
    """

    mode = "act"

    def __init__(
        self,
        ledger: Ledger,
        kernel: Kernel,
        pools: Mapping[str, PoolAdapter],
        samples: Mapping[str, PoolSample],
        clock: Clock,
        patience: float = 10.0,
        locks: Locks | None = None,
        starve_seconds: float = 10.0,
        floor: float = 0.01,
    ) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self._pools = pools
        self._samples = samples
        self._clock = clock
        self._undoer = Undoer(ledger, kernel, pools, clock, self._asked_of, patience)
        self._boot_id = kernel.boot_id()
        self._resizing: dict[str, tuple[Decision, int]] = {}  # pools on their way to a size
        self._requests: dict[str, tuple[PoolSample, int]] = {}  # what was requested of a pool since this sample of it
        self._cursor = 0
        self._gone: dict[Knob, Chain] = {}  # first threads of ended processes, whose children may have inherited
        self._turns = 0
        self._locks = LinuxLocks() if locks is None else locks
        self._relief = Relief(self._locks, starve_seconds, floor)
        self._census = Census(ledger, kernel, self._locks)
        self._groups: Sequence[Group] | None = None  # that the next two lines are from; None: what is in force may have changed
        self._demotions: tuple[Demotion, ...] = ()
        self._members: tuple[ProcId, ...] = ()
        self._relieved: list[Outcome] = []  # not yet reported
        self._eased: dict[Subject, str] = {}  # restored since the last turn, or attempted, and why

    # --- ports.Actuator --------------------------------------------------------------------------------------------------------

    def apply(self, decisions: Sequence[Decision]) -> tuple[Outcome, ...]:
        """One outcome per decision, in order. All intents of the call go to the ledger in one write, unless two decisions are
        about the same thing: then the second is looked at after the first is done."""
        self._groups = None
        outcomes: list[Outcome] = []
        while len(outcomes) < len(decisions):
            plans: list[_Plan] = []
            taken: set[Subject] = set()
            for decision in decisions[len(outcomes) :]:
                plan = self._plan(decision)
                if plan.subject in taken:
                    break
                if plan.subject is not None:
                    taken.add(plan.subject)
                plans.append(plan)
            self._carry_out(plans)
            outcomes.extend(plan.done() for plan in plans)
        self._eased.clear()
        return tuple(outcomes)

    def settle(self) -> tuple[Outcome, ...]:
        """Reports pools that have reached their size or failed, and values that somebody else was found to have changed.

        Each call compares some of the changed values with the kernel, in turn. Restoring a value by hand counts as changing it:
        that is the plainest way to say hands off. Reliefs since the last call come first.
        """
        outcomes = [*self._told(), *self._look_at_pools()]
        entries = [chain for subject in self._ledger.subjects() for chain in self._ledger.chains(subject).values()]
        closed: dict[int, EntryStatus] = {}
        for _ in range(min(len(entries), CHECKS + len(entries) // 32)):
            self._cursor = (self._cursor + 1) % len(entries)
            chain = entries[self._cursor]
            newest = chain[-1]
            if newest.control is Control.POOL_SIZE or self._ledger.chain(newest.knob) != chain:
                continue  # in the second case they were restored in this turn
            now = self._kernel.read(newest.knob)
            if isinstance(now, Trouble):
                if now.status is not Status.VANISHED:
                    continue
                if leads(newest.knob):
                    self._gone[newest.knob] = chain
                else:
                    closed.update(dict.fromkeys(ids_of(chain), EntryStatus.GONE))
            elif not self._undoer.is_ours(chain, now):
                text = f"{name_of_entry(newest)} left: somebody changed it from {shown(newest.new)} to {shown(now)}"
                outcomes.append(Outcome(newest.decision, Status.FOREIGN, newest.target, text, 0))
                self._yield({newest.knob: chain})
        if closed:
            self._ledger.settle(closed)
        self._turns += 1
        if self._gone and (self._turns % GONE_EVERY == 0 or len(self._gone) >= 256):
            self._undoer.end(self._gone, EntryStatus.GONE)
            self._gone = {}
        return tuple(outcomes)

    def undo(self) -> tuple[Outcome, ...]:
        """Restore everything open in the ledger, newest first; one outcome for each thing that was changed.

        Waits for pools, at most `patience` seconds. What could not be restored stays open: call again to retry.
        """
        self._resizing.clear()
        self._gone = {}
        self._groups = None
        self._eased.clear()
        return (*self._told(), *self._undoer.undo())

    def keep(self, held: Iterable[Restore | ResizePool]) -> tuple[Outcome, ...]:
        """Restore everything but these: what a Restore names, and the sizes of pools. Waits as `undo` does; one outcome for each
        thing that was restored."""
        kept = set[Subject]()
        for action in held:
            subject = Subject(Control.POOL_SIZE, None, action.pool) if isinstance(action, ResizePool) else self._subject(action)
            if not isinstance(subject, Trouble):
                kept.add(subject)
        for subject in self._ledger.subjects():
            if subject.control is Control.POOL_SIZE and subject not in kept:
                self._resizing.pop(subject.key, None)
        self._groups = None
        return (*self._told(), *self._undoer.undo(kept))

    def release(self, pools: Collection[str]) -> tuple[Outcome, ...]:
        """See `ports.Actuator`. Waits for the pools as `undo` does; one outcome for each whose size was changed."""
        for name in pools:
            self._resizing.pop(name, None)
        outcomes = self._undoer.sizes_back(pools)
        for name in pools:
            self._requests.pop(name, None)
        return outcomes

    def limit(self, starve_seconds: float, floor: float) -> None:
        """See `ports.Actuator`."""
        self._relief.limit(starve_seconds, floor)

    def relieve(self, groups: Sequence[Group]) -> float | None:
        """See `ports.Actuator`. A session or cgroup is restored as a whole, a process with all its threads and heirs."""
        at = self._clock.monotonic()
        if groups is not self._groups:
            members = {member.id: member for group in groups for member in group.members}
            self._demotions = self._census.demotions(at, tuple(members.values()))
            self._members, self._groups = tuple(members), groups
            for case in self._taken_along(groups):
                self._ease(case)
                self._groups = None
        looked = self._relief.look(at, self._demotions, self._members, self._census.of)
        for case in looked.cases:
            self._ease(case)
        if looked.cases:
            self._groups = None
        return looked.pause / 1e9 if self._demotions else None

    def _taken_along(self, groups: Sequence[Group]) -> Iterator[Case]:
        """Fences of swarms that contain a latency-sensitive process: it was started there; no decision put it there."""
        latency = {member.id: group.name for group in groups if group.latency is Latency.LATENCY for member in group.members}
        for subject, processes in self._demotions:
            first = next((process for process in processes if process in latency), None)
            if first is not None and subject.control is Control.FENCE and weighs_only(subject.key):
                yield Case((subject,), f"pid {first.pid} of {latency[first]} is in the cgroup of a swarm, where it was started")

    def _ease(self, case: Case) -> None:
        """Restore what a case names, exactly as Restore does."""
        newest = {
            subject: max((chain[-1] for chain in chains.values()), key=lambda entry: entry.id)
            for subject in case.subjects
            if subject not in self._eased and (chains := self._ledger.chains(subject))
        }
        for subject, tally in self._undoer.put_back(list(newest)).items():
            entry = newest[subject]
            done = tally.outcome(entry.decision, entry.target, name_of_entry(entry))
            relieved = done.status in (Status.APPLIED, Status.UNCHANGED, Status.PARTIAL)
            status = Status.RELIEVED if relieved else done.status
            self._relieved.append(Outcome(entry.decision, status, entry.target, f"{case.text}; {done.detail}", done.changed))
            self._eased[subject] = case.text

    def _told(self) -> list[Outcome]:
        """Outcomes of reliefs, each once."""
        told, self._relieved = self._relieved, []
        return told

    # --- looking ---------------------------------------------------------------------------------------------------------------

    def _plan(self, decision: Decision) -> _Plan:
        action = decision.action
        if isinstance(action, Set):
            return self._plan_set(decision, action)
        if isinstance(action, Restore):
            plan = _Plan(decision, name_of(action.control, action.process, action.cgroup))
            subject = self._subject(action)
            if isinstance(subject, Trouble):
                plan.tally.trouble(subject)
            else:
                plan.subject = subject
            return plan
        if isinstance(action, ResizePool):
            return self._plan_resize(decision, action)
        plan = _Plan(decision, "")
        if isinstance(action, Flag | Digest):
            plan.outcome = Outcome(decision.id, Status.APPLIED, decision.target, _reported(action), 0)
            return plan
        plan.outcome = _unknown_pool(self._pools, decision, action.pool)
        return plan

    def _plan_set(self, decision: Decision, action: Set) -> _Plan:
        forbidden = self._kernel.forbidden(action.control)
        knobs = Trouble(Status.REFUSED, forbidden) if forbidden else _knobs(self._kernel, action)
        plan = _Plan(decision, _name(action, knobs))
        if not isinstance(knobs, Trouble):
            knobs = self._wanted_by_others(action) or knobs
        if isinstance(knobs, Trouble):
            plan.tally.trouble(knobs)
            return plan
        plan.subject = subject_of(knobs[0])
        if plan.subject in self._eased:  # decided before the relief was known
            text = f"{plan.what} was decided before a relief was known, and is left as it is: {self._eased[plan.subject]}"
            plan.outcome = Outcome(decision.id, Status.RELIEVED, decision.target, text, 0)
            return plan
        self._look(plan, action, knobs)
        return plan

    def _wanted_by_others(self, action: Set) -> Trouble | None:
        """Trouble if a process waits for a lock of the process to be fenced: held back, it would hold up all waiters. The relief
        sees what one look does not see and what comes later."""
        if action.control is not Control.FENCE or action.process is None:
            return None
        process = action.process
        for wait in self._locks.waits((process,), self._members):
            if wait.waiter != process and (wait.holder or wait.possible) in (process, (process,)):
                return Trouble(Status.REFUSED, f"pid {wait.waiter.pid} waits for the {wait.lock} that it holds: not held back now")
        return None

    def _look(self, plan: _Plan, action: Set, knobs: Iterable[Knob]) -> None:
        """Compare these knobs with what is wanted and with what we believe, and add what must be changed to the plan.

        One thread that somebody else changed makes the whole decision FOREIGN: renice(1) reaches the first thread only.
        """
        kin: Kin | None = None
        if action.control in INHERITED and action.process is not None:
            found = self._kernel.kin_of(action.process)
            if isinstance(found, Trouble):
                plan.tally.trouble(found)
                return
            kin = found
        explain = self._ancestry(action, kin)
        for knob in knobs:
            plan.seen.add(knob)
            chain = self._ledger.chain(knob)
            seen = _seen(self._kernel, action, knob)
            if isinstance(seen, Trouble):
                plan.tally.trouble(seen)
                continue
            now = seen.now
            if self._ledger.is_foreign(knob):
                plan.tally.foreign.append("somebody else has changed it before; hands off")
                continue
            ours = True if chain is None else self._undoer.is_ours(chain, now)
            if chain is not None and not ours:
                plan.tally.foreign.append(f"somebody changed it from {shown(chain[-1].new)} to {shown(now)}")
                plan.foreign[knob] = chain
                continue
            source = explain(knob, now) if chain is None else chain
            first = self._kernel.lasting(knob, now) if source is None else now if isinstance(source, Trouble) else original(source)
            unknown = next((each for each in (ours, source, first) if isinstance(each, Trouble)), None)
            if unknown is not None:
                plan.tally.trouble(unknown)
            elif source is None and seen.chosen:
                plan.tally.foreign.append(_chosen(action, now))
            elif seen.so:
                plan.tally.same += 1
            else:
                assert not isinstance(first, Trouble)
                plan.moves.append(_Move(knob, now, _wanted(action), first, kin))
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
        parents += [] if own is None else [pair for pair in self._undoer.leaders(action.control) if pair[0] != own]
        heirs: dict[ProcId, tuple[ProcId, ...]] = {}  # from one scan of all processes, made only if it is needed

        def explain(knob: Knob, now: Value) -> Chain | Trouble | None:
            for process, chain in parents:
                entry = self._undoer.inherited(chain, knob, now)
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

    def _subject(self, action: Restore) -> Subject | Trouble:
        """The ledger's subject for the target of a Restore."""
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

    def _plan_resize(self, decision: Decision, action: ResizePool) -> _Plan:
        plan = _Plan(decision, f"size of pool {action.pool}")
        plan.outcome = _unknown_pool(self._pools, decision, action.pool)
        sample, asked = self._samples.get(action.pool), self._asked_of(action.pool)
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
        plan.moves.append(_Move(knob, asked, action.size, first, None))
        return plan

    # --- changing --------------------------------------------------------------------------------------------------------------

    def _carry_out(self, plans: Sequence[_Plan]) -> None:
        """Record the intents of all plans in one durable write; then restore, then change, then follow threads that appeared
        meanwhile; then record all results in one write."""
        ids = self._intend(plans)
        restores = {plan.subject: plan for plan in plans if isinstance(plan.decision.action, Restore) and plan.subject is not None}
        for subject, tally in self._undoer.put_back(list(restores)).items():
            restores[subject].tally = tally
        statuses: dict[int, EntryStatus] = {}
        for plan in plans:
            if isinstance(plan.decision.action, Recycle) and plan.outcome is None:
                plan.outcome = self._recycle(plan.decision, plan.decision.action)
            self._make(plan, ids, statuses)
        self._follow_threads(plans, statuses)
        if statuses:
            self._ledger.settle(statuses)
        for plan in plans:
            self._give_way(plan)

    def _give_way(self, plan: _Plan) -> None:
        """Close what somebody else has changed, and restore the rest of what we changed in the plan's process: nobody wants half a
        process changed. renice(1) reaches the first thread only, and means the process."""
        if not plan.tally.foreign:
            return
        foreign = {
            move.knob: chain
            for move in plan.moves
            if move.knob.control is not Control.POOL_SIZE
            and (chain := self._ledger.chain(move.knob)) is not None
            and not self._undoer.is_ours(chain, self._kernel.read(move.knob))
        }
        restored = self._yield(plan.foreign | foreign, plan.subject)
        if restored is not None and restored.changed:
            plan.tally.changed, plan.tally.steps = 0, []
            plan.tally.notes.append(f"{restored.changed} other threads were put back")

    def _yield(self, foreign: Mapping[Knob, Chain], subject: Subject | None = None) -> Tally | None:
        """Close these as somebody else's, and restore what we changed of the other threads of the process."""
        self._undoer.end(foreign, EntryStatus.FOREIGN)
        subject = subject or subject_of(next(iter(foreign)))
        return self._undoer.put_back([subject])[subject] if subject.control in INHERITED else None

    def _intend(self, plans: Sequence[_Plan]) -> dict[Knob, int]:
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

    def _entry(self, decision: Decision, move: _Move, wall: int, since: int) -> Entry:
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

    def _make(self, plan: _Plan, ids: Mapping[Knob, int], statuses: dict[int, EntryStatus]) -> None:
        """Make the moves of a plan whose intents are durable; the result of each goes into `statuses`."""
        for move in plan.moves:
            number = ids[place(move.knob)]
            if move.knob.control is Control.POOL_SIZE:
                statuses[number] = self._resize(plan, move)
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

    def _doubt(self, move: _Move, trouble: Trouble, number: int, statuses: dict[int, EntryStatus]) -> None:
        """A failed write has usually changed nothing, and then its entry is closed. One made in part (a fence that could
        not be removed again), or one whose result cannot be read now, keeps its entry open: undo compares."""
        if trouble.status is Status.VANISHED:
            statuses[number] = EntryStatus.GONE
        elif self._kernel.read(move.knob) == move.old or trouble.status is Status.FOREIGN:
            statuses[number] = EntryStatus.FAILED

    def _follow_threads(self, plans: Sequence[_Plan], statuses: dict[int, EntryStatus]) -> None:
        """Change threads started while the others were changed: each pass plans, records and changes those not yet seen."""
        watched = [plan for plan in plans if plan.tally.changed and isinstance(plan.decision.action, Set)]
        watched = [plan for plan in watched if plan.moves[0].knob.control in INHERITED and not plan.tally.foreign]
        for _ in range(PASSES):
            news: list[_Plan] = []
            for plan in watched:
                action = plan.decision.action
                assert isinstance(action, Set)
                knobs = _knobs(self._kernel, action)
                fresh = [] if isinstance(knobs, Trouble) else [knob for knob in knobs if knob not in plan.seen]
                if fresh:
                    more = _Plan(plan.decision, plan.what, tally=plan.tally, foreign=plan.foreign)
                    self._look(more, action, fresh)
                    plan.seen |= more.seen
                    news.append(more)
            if not news:
                return
            ids = self._intend(news)
            for more in news:
                self._make(more, ids, statuses)
        for plan in watched:
            plan.tally.notes.append(f"threads came faster than {PASSES} scans could follow")

    def _resize(self, plan: _Plan, move: _Move) -> EntryStatus:
        decision, size, name = plan.decision, as_int(move.new), move.knob.key
        status, text = self._pools[name].resize(size)
        plan.outcome = Outcome(decision.id, status, decision.target, text, int(status is Status.APPLIED))
        if status is Status.APPLIED:
            self._resizing[name] = (decision, size)
            self._requests[name] = (self._samples[name], size)
        return EntryStatus.DONE if status in (Status.APPLIED, Status.UNCHANGED) else EntryStatus.FAILED

    def _recycle(self, decision: Decision, action: Recycle) -> Outcome:
        status, text = self._pools[action.pool].recycle(action.worker)
        return Outcome(decision.id, status, decision.target, text, int(status is Status.APPLIED))

    def _asked_of(self, name: str) -> int | None:
        """The size currently requested of the pool, which a sample from before our last request lacks; None: not read yet."""
        sample = self._samples.get(name)
        if sample is None:
            return None
        seen, size = self._requests.get(name, (None, 0))
        return size if seen is sample else sample.requested

    def _look_at_pools(self) -> list[Outcome]:
        """Outcomes of the sizes that were requested."""
        outcomes = []
        for name in sorted(self._resizing):
            decision, size = self._resizing[name]
            sample = self._samples.get(name)
            if sample is None:
                continue
            if sample.trouble:
                status = Status.FAILED if sample.requested == size else Status.FOREIGN
                outcome = Outcome(decision.id, status, decision.target, f"pool {name}: {sample.trouble}", 0)
            elif sample.size == size == sample.requested:
                outcome = Outcome(decision.id, Status.APPLIED, decision.target, f"pool {name} has {size} workers", 0)
            else:
                continue
            outcomes.append(outcome)
            del self._resizing[name]
        return outcomes


def undo_from_ledger(
    state_dir: Path,
    clock: Clock,
    *,
    proc_root: Path = Path("/proc"),
    pools: Callable[[tuple[str, ...]], Mapping[str, PoolAdapter]] | None = None,
    lock: StateLock | None = None,
    patience: float = 10.0,
) -> tuple[Outcome, ...]:
    """Restore what a dead daemon left changed, from its ledger alone: for `nicety undo`, and at the start of a daemon.

    `pools` makes adapters for the named pools (those that are configured); they are closed afterwards. `lock`: the caller's, if it
    holds the state directory already. Raises StateBusyError while a daemon runs there, LedgerError for a ledger of another version,
    and for one that somebody else could have written: nothing is changed then.
    """
    if not left_behind(state_dir):
        return ()
    held = StateLock(state_dir) if lock is None else lock
    adapters: Mapping[str, PoolAdapter] = {}
    try:
        kernel = LinuxKernel(proc_root)
        with closing(Ledger(state_dir / "ledger.db", kernel.boot_id())) as ledger:
            notes = [Outcome("", Status.FAILED if note.lost else Status.UNCHANGED, "ledger", note.text, 0) for note in ledger.notes]
            names = tuple(sorted({entry.key for entry in ledger.outstanding() if entry.control is Control.POOL_SIZE}))
            if pools is not None and names:
                adapters = pools(names)
            return (*notes, *Undoer(ledger, kernel, adapters, clock, lambda _: None, patience).undo())
    finally:
        for adapter in adapters.values():
            adapter.close()
        if lock is None:
            held.release()


def _knobs(kernel: Kernel, action: Set) -> tuple[Knob, ...] | Trouble:
    """The knobs that hold the values of this action."""
    if action.control in (Control.CPU_SHARES, Control.CPU_WEIGHT, Control.CPU_IDLE):
        return (Knob(action.control, None, None, action.cgroup),)
    if action.process is None or action.control is Control.POOL_SIZE:
        return Trouble(Status.FAILED, f"{action.control} cannot be set so: a bug in the policy that asked for it")
    if action.control is Control.AUTOGROUP:
        key = kernel.autogroup(action.process)
        return key if isinstance(key, Trouble) else (Knob(action.control, action.process, None, key),)
    if action.control is Control.FENCE:
        assert isinstance(action.value, tuple)
        key = kernel.fence(action.process, Limits(*action.value))
        return key if isinstance(key, Trouble) else (Knob(action.control, action.process, None, key),)
    threads = kernel.threads(action.process)
    if isinstance(threads, Trouble):
        return threads
    return tuple(Knob(action.control, action.process, thread, "") for thread in threads)


def _name(action: Set, knobs: tuple[Knob, ...] | Trouble) -> str:
    """What is changed, for people."""
    planned = action.control is Control.FENCE and not isinstance(knobs, Trouble)
    return name_of(action.control, action.process, knobs[0].key if planned and not isinstance(knobs, Trouble) else action.cgroup)


def _wanted(action: Set) -> Value:
    """The value the knob is to have: the limits of a fence are in its key."""
    return FENCED if action.control is Control.FENCE else action.value


class _Seen(NamedTuple):
    """A knob, compared with what a decision says of it."""

    now: Value
    chosen: bool  # its value is not the one expected where nobody chose any
    so: bool  # it has the wanted value already, and not just what a cpuset makes of an affinity whose CPUs are all away


def _seen(kernel: Kernel, action: Set, knob: Knob) -> _Seen | Trouble:
    """Read a knob and compare it; or why that cannot be done."""
    now, wanted = kernel.read(knob), _wanted(action)
    visible = kernel.visible(knob, wanted)
    expected = None if action.expected is None else kernel.visible(knob, action.expected)
    for each in (now, visible, expected):
        if isinstance(each, Trouble):
            return each
    assert not isinstance(now, Trouble)
    away = isinstance(now, tuple) and isinstance(wanted, tuple) and set(now).isdisjoint(wanted)
    return _Seen(now, expected is not None and now != expected, not away and now == visible)


def _chosen(action: Set, now: Value) -> str:
    return f"somebody chose {action.control} {shown(now)}"


def _reported(action: Flag | Digest) -> str:
    """What a report says."""
    if isinstance(action, Digest):
        return f"{action.incidents} incidents told of in one line"
    return f"reported that {action.kind} is over" if action.over else f"reported as {action.kind}"


def _unknown_pool(pools: Mapping[str, PoolAdapter], decision: Decision, name: str) -> Outcome | None:
    if name in pools:
        return None
    return Outcome(decision.id, Status.FAILED, decision.target, f"there is no pool {name}", 0)
