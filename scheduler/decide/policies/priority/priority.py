"""Keeps interactive groups fast beside batch groups: demotes contenders and restores them later. Pure: knows no knob's file.

Only a contender that can help is demoted: one whose CPU use is a good part of what the victim lacks (`supply.py`). After a relief,
or a demotion without effect, the pair of victim and contender is left alone for a while, longer each time (`pairs.py`). Where most
of the pressure comes from processes that nicety cannot see, nothing is demoted at all.

The mechanism is the one that separates the two (measured: nice does nothing across autogroups or cgroups): the weight of the
contender's cgroup where the paths part; across sessions in the root cgroup with autogroup on, the nice of the contender's
autogroup; else the nice of each of its processes. A mechanism that had no effect on a group twice is dropped for it, and the next
one is tried. What a child inherits is not set again. In a group of brief processes (a swarm) only those that last are demoted.
Inside one cgroup a swarm gets a child cgroup of its own with the least weight (a fence), where one may be made: the process that
started the swarm is moved there with all its children.

Demotion begins in full, because a partial one can hurt (measured: nice 5 beside 60 % load gave a p99 of 29 ms, nice 19 one of
1.8 ms). It is eased step by step while the protected groups wait less than half of their target. Once weights separate the two,
the protected group's time slice is shortened (see `slices.py`).

An autogroup or a cgroup is demoted as a whole, whatever else is in it; one that holds an interactive process, nicety, or a process
of another user never is. Contention is followed for each user's contenders by itself (`contention.Party`, `decide/tenants.py`).
Values that somebody else chose are never changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from .....models.identity import ProcId
from .....models.records import Class
from ....config.sections import Config
from ....decision import Decision, Group, Note, Restore, Set, Tick
from ....hands.faults import Status
from ....hands.places import Control
from ....places import ProcessPlace, SessionPlace
from ....scope import policy
from ...tenants import Tenants
from ..policy import Aim, Gone, Impact, Metric, Proposal, Result, Standing, knob
from .cases import Case, Cases
from .contention import Contention, Sight
from .desired import Desired
from .held import Held, demotions
from .mechanisms import DEFAULT
from .memory import PriorityMemory
from .reasons import Context, PriorityReasons
from .strikes import STRIKES
from .supply import wait_share

UNYIELDING = 0.1
"""Share of the machine that demoted groups may use beyond what the interactive groups leave (chosen): four hogs at nice 19 keep
about
0.06."""

Before = frozenset[tuple[str, Control]]
"""Groups and controls of the demotions that were in force before a tick."""


class Priority:
    """The policy."""

    name = "priority"

    def __init__(self, config: Config, memory: PriorityMemory) -> None:
        self.memory = memory
        self._goal = config.priority.wait
        self._apart = config.priority.effect_after * 0.5  # seconds: strikes closer together than half a measurement are one
        self._short = config.priority.slice_ms > 0
        self._pools = frozenset(config.pools)
        self._most = config.guard.changes_per_tick
        self._tenants = Tenants(config)
        self._contention = Contention(config.priority, self._tenants, memory.contention)
        self._cases = Cases(self._tenants, memory)
        self._desired = Desired(config, self._tenants, memory)
        self._reasons = PriorityReasons(config, self._tenants, memory)

    def propose(self, tick: Tick) -> list[Proposal[Held]]:
        """Demotes what contends and restores what no longer does."""
        memory = self.memory
        memory.pairs.forget(tick.at)
        memory.swarms.notice(tick)
        memory.strikes.forget(tick.at)
        before = frozenset((held.group, held.control) for held in demotions(memory.held))
        sight = self._contention.look(tick, demoted={held.party for held in demotions(memory.held)})
        cases = dict[str, Case]()
        for party in sight.parties:
            if not party.engagement.engaged:
                party.engagement.lack = None
            elif party.view is not None:
                cases |= self._cases.choose(tick, party, party.view, sight.parties)
        desired = self._desired_now(tick, sight, cases)
        memory.swarms.age(sight.contenders)
        returns = self._returns(tick, sight, desired, before)
        turn = memory.turns.take(memory.held, desired, self._most)
        if not sight.views or not turn:  # without contention nothing new is desired
            return returns
        refused = self._reasons.refused(tick, sight.contenders, cases)
        context = Context(tick, sight.views, {group.name: group for group in tick.groups}, cases, refused)
        return returns + self._changes(context, turn, before)

    def waiting(self) -> Collection[str]:
        """The knobs of desired changes that were left for a later tick."""
        return self.memory.turns.waiting

    def notes(self, tick: Tick, /) -> list[Note]:
        """What keeps the policy from demoting."""
        return self._contention.notes(tick)

    def skip(self) -> None:
        """After a gap it is unknown how long it has been calm, or what a slice did."""
        self._contention.skip()
        self.memory.slices.again()

    def admit(self, decision: Decision, kept: Held, _at: int, /) -> None:
        """A change counts as in force from now on; a restore counts when its outcome is known."""
        if isinstance(decision.action, Set):
            memory, key = self.memory, kept.key
            observed = memory.held[key].observed if key in memory.held else []
            memory.held[key] = msgspec.structs.replace(kept, observed=observed)
            memory.turns.admitted(key)
            if kept.control is not Control.SLICE:
                memory.slices.again()

    def learn(self, result: Result) -> None:
        """Drops what is not, or no longer, in force. A refusal is a strike against the control."""
        action = result.action
        if isinstance(action, Restore) and result.failed:
            return  # still in force: to be restored again, when the guard admits it
        if isinstance(action, Set) and result.done:
            for key in self._concerned(result):
                held = self.memory.held[key]
                held.observed = [*held.observed, held.victim] if result.status is Status.OBSERVED else []
                held.inside = held.control is Control.FENCE and result.status is Status.UNCHANGED
            return
        for key in self._concerned(result):
            held = self.memory.held.pop(key)
            if held.control is Control.FENCE:  # other processes in it have left it, or are judged again
                for inside in [key for key, each in self.memory.held.items() if each.inside and each.group == held.group]:
                    del self.memory.held[inside]
            if result.status is Status.RELIEVED:
                self.memory.pairs.relieved(held.group, result.at)
            elif result.telling and held.control is Control.SLICE:
                self.memory.slices.refused(held.group, result.at)
            elif result.telling:
                # without the right to make a cgroup, another try tells nothing new, and meanwhile nothing would be demoted
                final = held.control is Control.FENCE and result.status is Status.REFUSED
                self.memory.strikes.strike(held.control, held.group, result.at, self._apart, STRIKES if final else 1)

    def measured(self, found: Sequence[Impact], tick: Tick, /) -> None:
        """Takes in demotions after which the victims wait as long as before.

        If the CPU split did not move either, the mechanism gets a strike; after STRIKES of them the next one is tried. If it moved,
        the contender is not what the victim waits for: another mechanism would not help. Once the whole demotion was measured, the
        pair is left alone for a while.
        """
        groups = {group.name: group for group in tick.groups}
        held = {(held.group, held.control) for held in demotions(self.memory.held)}
        for each in found:
            aim = each.aim
            if not each.failed or (aim.group, aim.control) not in held:
                continue
            victim = groups.get(aim.of)
            batch = [group for group in tick.groups if group.class_ is Class.BATCH]
            mine = sum(group.cpu for group in batch if victim is None or self._tenants.may(victim, group))
            rest = sum(group.cpu for group in batch) - mine
            rest += sum(group.cpu + group.wait for group in tick.groups if group.class_ is Class.INTERACTIVE)
            if mine > max(0.0, tick.machine.cpus - rest) + UNYIELDING * tick.machine.cpus:
                self.memory.strikes.strike(aim.control, aim.group, tick.at, self._apart)
            elif each.final and aim.whole:
                self.memory.pairs.without_effect(aim.of, aim.group, tick.at)

    def standing(self) -> list[Standing]:
        """Demotions and short slices."""
        return [self._standing(held) for _, held in sorted(self.memory.held.items())]

    def forget(self, gone: Gone) -> None:
        """What was forgotten is proposed again while contention lasts: demotions in full, slices with a new comparison."""
        memory = self.memory
        for key in [key for key, held in memory.held.items() if gone(self._standing(held))]:
            memory.slices.trials.pop(memory.held.pop(key).group, None)
            self._contention.in_full()

    def validate(self, hands_off: Collection[str], /) -> None:
        """Raises AssertionError if the memory contradicts itself, or something is held that is hands off."""
        spared = frozenset(hands_off)
        for key, held in self.memory.held.items():
            assert key == held.key, f"{key}: under another key than its own"
            assert spared.isdisjoint((key, held.target)), f"{key}: held although hands off"
            pooled = held.control is Control.NICE and held.group in self._pools
            assert not pooled or held.strength <= 5, f"{key}: workers share locks"

    def _standing(self, held: Held) -> Standing:
        about = frozenset({policy(self.name), held.group, held.victim})
        return Standing(about, held.undo, held.target, held.group, held.victim)

    def _concerned(self, result: Result) -> list[str]:
        """Keys of the held changes that the outcome is about."""
        action, held = result.action, self.memory.held
        if not isinstance(action, Set | Restore):
            return [key for key in held if action is None and held[key].target == result.target]
        if action.control is Control.AUTOGROUP:
            return [key for key, each in held.items() if each.control is Control.AUTOGROUP and each.target == result.target]
        key = knob(action, result.target)
        return [key] if key in held else []

    def _desired_now(self, tick: Tick, sight: Sight, cases: Mapping[str, Case]) -> dict[str, Held]:
        """Everything that should be in force, by key."""
        memory = self.memory
        desired: dict[str, Held] = {}
        for party in sight.parties:
            if party.engagement.engaged and party.view is not None:
                self._desired.demotions(tick, party, cases, desired)
            elif party.engagement.engaged:  # nothing to protect now: a service that restarts must not find the batch restored
                there = {group.name for group in party.contenders} - self._cases.paused(tick.at)
                desired |= {key: held for key, held in memory.held.items() if held.group in there}
        for key in desired.keys() & memory.held.keys():
            memory.held[key].party = desired[key].party  # its group may have changed hands
        if self._short and sight.views:
            lowered = {held.party for held in demotions(memory.held)} & {held.party for held in desired.values()}
            helped = [party for party in sight.parties if party.view is not None and party.name in lowered]
            names = {group.name for party in helped for group in party.protected}
            protected = [group for group in sight.protected if group.name in names]
            crowded = any(party.view.crowded for party in helped if party.view is not None)
            desired |= self._desired.slices(memory.slices.wanted(tick, protected, bool(helped), crowded, self._goal / 2))
        return desired

    def _returns(self, tick: Tick, sight: Sight, desired: Mapping[str, Held], before: Before) -> list[Proposal[Held]]:
        """Restores of what is not desired any more."""
        memory, proposals = self.memory, list[Proposal[Held]]()
        stale = [key for key in sorted(memory.held) if key not in desired]
        if not stale:
            return []
        groups = {group.name: group for group in tick.groups}
        classed = {group.name for group in (*sight.contenders, *sight.protected)}
        present, first = set[ProcId](), dict[int, ProcId]()
        for group in tick.groups:
            for member in group.members:
                present.add(member.id)
                first[member.session] = min(first.get(member.session, member.id), member.id)
        for key in stale:
            held = memory.held[key]
            on = held.on
            away = isinstance(on, ProcessPlace) and on.id not in present
            if held.inside or (away and held.control is not Control.FENCE and held.group in classed):
                del memory.held[key]  # the process is gone with its value; or nothing was made for it
                continue
            if isinstance(on, SessionPlace) and on.through not in present:
                on = SessionPlace(on.session, first.get(on.session, on.through))
            alive = held.control is not Control.FENCE or not away
            action = Restore(held.control, on)
            why = self._reasons.back(tick, held, held.group in classed, alive)
            proposals.append(Proposal(self.name, held.target, action, why, held, self._aim(action, held, groups, before)))
        return proposals

    def _changes(self, context: Context, turn: Mapping[str, Held], before: Before) -> list[Proposal[Held]]:
        """Proposals for the changes of this tick. The last one says how many others wait."""
        proposals, left = list[Proposal[Held]](), len(self.memory.turns.waiting)
        for number, change in enumerate(turn.values(), 1):
            action = Set(change.control, change.on, change.value, DEFAULT[change.control])
            why = self._reasons.change(context, change, left if number == len(turn) else 0)
            proposals.append(
                Proposal(self.name, change.target, action, why, change, self._aim(action, change, context.groups, before))
            )
        return proposals

    def _aim(self, action: Set | Restore, held: Held, groups: Mapping[str, Group], before: Before) -> Aim | None:
        """The wait of the victim, which the change is to shorten. None: the victim is not in this tick."""
        victim = groups.get(held.victim)
        if victim is None:
            return None
        share, change = wait_share(victim), isinstance(action, Set)
        group = (
            held.target if change and held.control is Control.SLICE else held.group
        )  # for slices each process is measured separately
        return Aim(
            Metric.WAIT,
            victim.name,
            share,
            group,
            held.control,
            back=not change,
            whole=(group, held.control) not in before,
            goal=self._goal if change else None,
            again=STRIKES - 1 if change and share >= self._goal else 0,
        )
