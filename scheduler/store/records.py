"""A logged decision as JSON has it. Apart from `decisions.py`: it needs the types of `decision`, and most readers do not."""

from __future__ import annotations

from typing import Any

import msgspec

from ..decision import Decision, Delay, Effect, Outcome, Refusal
from ..printed import Part, Printed
from .decisions import LoggedDecision


class DecisionRecord(Printed, frozen=True, kw_only=True):
    """A decision or refusal with what became of it."""

    id: str  # "S-T.N": session, tick, number in the tick
    session: str  # 8 hex digits
    seq: int  # tick of the session
    wall: int  # ns since 1970
    policy: str  # pool_size, priority, placement, quarantine
    action: str  # set, restore, resize, recycle, flag or digest
    target: str  # in words
    pids: list[int]  # processes it is about
    status: str  # of the latest outcome; "refused by guard"; "no outcome"
    decision: Decision
    refusal: Refusal | None  # None: it was admitted
    outcomes: list[Outcome]  # the latest last
    effects: list[Effect]  # whether it helped; []: that is not measured, or not yet


class DelayRecord(Part, frozen=True, kw_only=True):
    """Why a group waits in the run queue, in cores, each a mean over some ten seconds. `by`, `others`, `own`, `unseen` and `steal`
    add up to `wait`."""

    group: str
    wait: float  # cores that it waits for, without what its own quota makes it wait
    by: list[tuple[str, float]]  # other groups that run where it waits, with cores, the largest first, at most 4
    others: float  # by further groups
    own: float  # by other threads and processes of the group itself
    unseen: float  # by the kernel, and by processes that nicety cannot see
    steal: float  # by other guests of the hypervisor
    throttled: float  # not part of `wait`: for what the quota of its own cgroup stopped


def delay_record(delay: Delay) -> DelayRecord:
    """For --json: the log has a list without names."""
    return DelayRecord(**msgspec.structs.asdict(delay))


def record_of(logged: LoggedDecision) -> DecisionRecord:
    """For --json and exports."""
    return DecisionRecord(**fields_of(logged))


def fields_of(logged: LoggedDecision) -> dict[str, Any]:
    """The fields of a `DecisionRecord`, for records that have more."""
    return {
        "id": logged.id,
        "session": logged.session,
        "seq": logged.seq,
        "wall": logged.wall,
        "policy": logged.policy,
        "action": logged.action,
        "target": logged.target,
        "pids": list(logged.pids),
        "status": logged.status,
        "decision": logged.decision,
        "refusal": logged.refusal,
        "outcomes": list(logged.outcomes),
        "effects": list(logged.effects),
    }
