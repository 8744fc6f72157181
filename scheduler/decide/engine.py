"""Ticks to verdicts: policies propose, the guard admits or refuses, effects are measured. Pure and deterministic.

Must not know any policy, clocks, modes, logs or the kernel. Its whole state is in `memory()`: an engine that is resumed from it
gives, for the same ticks, the same verdicts bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..config.sections import Config
from ..decision import Action, Decision, Outcome, Recycle, ResizePool, Restore, Tick, Topology, Verdict
from ..hands.faults import Status
from ..hands.places import Control
from .effects import Effects, EffectsMemory
from .guard import Guard, GuardMemory
from .policies.policy import Gone, Memory, Proposal, Result, Standing
from .policies.priority.pairs import Pause
from .policies.registry import Memories, policies

UNANSWERED_SECONDS = 600.0
"""Seconds after which a decision without an outcome is forgotten (chosen): pools that drain slowly need that long."""


class Issued(Memory):
    """An admitted decision whose outcome may still come."""

    policy: str
    target: str
    action: Action
    at: int


class EngineMemory(Memory):
    """Everything that the engine remembers between two ticks."""

    policies: Memories = msgspec.field(default_factory=Memories)
    guard: GuardMemory = msgspec.field(default_factory=GuardMemory)
    effects: EffectsMemory = msgspec.field(default_factory=EffectsMemory)
    issued: dict[str, Issued] = msgspec.field(default_factory=dict)  # by decision id, oldest first


class Engine:
    """Decides, one tick after the other. Each session of the decision log has its own engine, see `resume`."""

    def __init__(
        self,
        config: Config,
        session: str,
        memory: EngineMemory | None = None,
        topology: Topology = Topology(),  # noqa: B008  # a constant: nothing is known, so nothing is placed
    ) -> None:
        memory = memory or EngineMemory()
        self._session = session
        self._memory = memory
        self._policies = policies(config, memory.policies, topology)
        self._guard = Guard(config, session, memory.guard, topology.online)
        self._effects = Effects(memory.effects, config.priority.effect_after)

    @classmethod
    def resume(
        cls,
        config: Config,
        session: str,
        memory: dict[str, Any],
        topology: Topology = Topology(),  # noqa: B008
    ) -> Engine:
        """An engine that continues from the `memory()` of another one, as after a reload or in the middle of a log.

        In a new session hands-off targets are free again. Raises ValueError if `memory` is not the memory of an engine.
        """
        try:
            return cls(config, session, msgspec.convert(memory, EngineMemory), topology)
        except msgspec.ValidationError as error:
            raise ValueError(f"this is not the memory of an engine of this version: {error}; start with an empty one") from None

    def memory(self) -> dict[str, Any]:
        """The whole state before the next tick as plain data that JSON can hold."""
        result: dict[str, Any] = msgspec.to_builtins(self._memory)
        return result

    @property
    def pauses(self) -> Mapping[str, Pause]:
        """The groups that are not demoted for certain victims for a while, to be kept for the next run. Read only."""
        return self._memory.policies.pauses

    def made_for(self) -> dict[tuple[str, Control], tuple[str, str]]:
        """For each change in force that was made for a group, by target and control: (the group changed, the group it is for)."""
        return {
            (it.target, it.undone_by.control): (it.group, it.protects)
            for it in self.standing()
            if it.protects and isinstance(it.undone_by, Restore)
        }

    def step(self, tick: Tick) -> Verdict:
        """What to do, what was refused, and what earlier changes led to. Ticks come in order of time."""
        self._hear(tick)
        if tick.gap:
            for policy in self._policies:
                policy.skip()
            self._effects.skip()
            return Verdict((), (), ())
        measured = self._effects.measure(tick)
        for policy in self._policies:
            if found := [found for name, found in measured if name == policy.name]:
                policy.measured(found, tick)
        proposals = self._proposals(tick)
        notes = sorted((note for policy in self._policies for note in policy.notes(tick)), key=lambda note: note.topic)
        waiting = {f"{policy.name} {knob}" for policy in self._policies for knob in policy.waiting()}
        admitted, refusals = self._guard.review(tick, [each.decision(id_) for id_, each in proposals.items()], waiting)
        self._admit(tick, admitted, proposals)
        return Verdict(tuple(admitted), tuple(refusals), tuple(found.effect for _, found in measured), tuple(notes))

    def standing(self) -> tuple[Standing, ...]:
        """The changes that the policies count as in force because they decided them. Some may be only observed."""
        return tuple(standing for policy in self._policies for standing in policy.standing())

    def forget(self, gone: Gone) -> None:
        """Forgets changes that were only observed and are to be carried out from now on. Those that still apply are proposed again,
        in full and without the cool-down of a change that was never made."""
        pools = {thing for standing in self.standing() if gone(standing) for thing in standing.about}
        for policy in self._policies:
            policy.forget(gone)
        self._guard.forget(pools)

    def validate(self) -> None:
        """Raises AssertionError if the memory contradicts itself. For tests: run after each step."""
        for policy in self._policies:
            policy.validate(self._memory.guard.hands_off)
        self._guard.validate()
        self._effects.validate()
        sizes = [issued.target for issued in self._memory.issued.values() if isinstance(issued.action, ResizePool)]
        assert len(sizes) == len(set(sizes)), "of a pool only the newest size is waited for"

    def _proposals(self, tick: Tick) -> dict[str, Proposal[Any]]:
        """What the policies propose, by the id of the decision that it may become."""
        proposals = [proposal for policy in self._policies for proposal in policy.propose(tick)]
        return {f"{self._session}-{tick.seq}.{number}": proposal for number, proposal in enumerate(proposals)}

    def _admit(self, tick: Tick, admitted: Iterable[Decision], proposals: Mapping[str, Proposal[Any]]) -> None:
        """Passes admitted decisions to their policies, which count them as in force, and starts to measure their effects."""
        by_name = {policy.name: policy for policy in self._policies}
        watched = []
        for decision in admitted:
            proposal = proposals[decision.id]
            by_name[decision.policy].admit(decision, proposal.kept, tick.at)
            self._issue(decision, tick.at)
            if proposal.aim is not None:
                watched.append((decision, proposal.aim))
        self._effects.watch(tick, watched)

    def _hear(self, tick: Tick) -> None:
        """Reports to the guard and the policies what became of earlier decisions."""
        memory = self._memory
        for outcome in tick.outcomes:
            self._learn(outcome, tick.at)
        self._effects.hear(tick.outcomes)
        late = [id_ for id_, issued in memory.issued.items() if tick.at - issued.at >= UNANSWERED_SECONDS * 1e9]
        for id_ in late:
            del memory.issued[id_]

    def _learn(self, outcome: Outcome, at: int) -> None:
        issued = self._memory.issued.get(outcome.decision)
        if issued is None and outcome.status not in (Status.FOREIGN, Status.RELIEVED):
            return  # superseded, or from an undo on request: nothing depends on it
        if issued is not None and not isinstance(issued.action, ResizePool | Recycle):
            del self._memory.issued[outcome.decision]  # pools report twice: that they took the request, then the result
        target = outcome.target if issued is None else issued.target
        result = Result(None if issued is None else issued.action, target, outcome.status, at)
        self._guard.learn(result)
        for policy in self._policies:
            if issued is None or policy.name == issued.policy or outcome.status in (Status.FOREIGN, Status.RELIEVED):
                policy.learn(result)

    def _issue(self, decision: Decision, at: int) -> None:
        """Remembers the decision until its outcome comes; of a pool's sizes only the newest counts."""
        issued = self._memory.issued
        if isinstance(decision.action, ResizePool):
            for id_ in [id_ for id_, old in issued.items() if isinstance(old.action, ResizePool) and old.target == decision.target]:
                del issued[id_]
        issued[decision.id] = Issued(decision.policy, decision.target, decision.action, at)


def first_memory(pauses: Iterable[Pause] = ()) -> dict[str, Any]:
    """The memory of a new engine that knows only these pauses of an earlier run."""
    result: dict[str, Any] = msgspec.to_builtins(EngineMemory(policies=Memories.of(pauses)))
    return result
