"""Runs a policy alone, as the engine would with a guard that admits everything. Must not know engine or guard."""

from __future__ import annotations

from typing import TypeVar

from ..decide.policies.policy import Policy, Proposal
from ..decision import Decision, Tick

Kept = TypeVar("Kept")


def admit(policy: Policy[Kept], proposal: Proposal[Kept], tick: Tick, number: int = 0) -> Decision:
    """Admit a proposal of this tick, the one with this number."""
    decision = proposal.decision(f"s-{tick.seq}.{number}")
    policy.admit(decision, proposal.kept, tick.at)
    return decision


def admitted(policy: Policy[Kept], tick: Tick) -> list[Decision]:
    """All that the policy proposes in this tick, admitted."""
    return [admit(policy, proposal, tick, number) for number, proposal in enumerate(policy.propose(tick))]
