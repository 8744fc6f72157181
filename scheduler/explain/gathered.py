"""Decisions in a few words: what an action does, and which decisions are shown as one, such as the same change of a group. Pure.

A policy proposes a change for each process, session or cgroup; the log, `nicety decisions` and `nicety status` show it once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from ..decision import Action, Decision, Digest, Flag, Recycle, ResizePool, Restore, Set, encode
from ..hands.faults import Status
from ..hands.fences import Limits, limits_in_words
from ..hands.places import Control, cpu_list
from ..places import CgroupPlace, ProcessPlace, SessionPlace

Item = TypeVar("Item")

POLICIES = {0: "other", 1: "fifo", 2: "rr", 3: "batch", 5: "idle", 6: "deadline"}
"""Scheduling policies by number (include/uapi/linux/sched.h)."""

_MEMBER = re.compile(r"(?<=\S) (?:pid|session) \d+$")

RANK = (Status.FAILED, Status.BLOCKED, Status.REFUSED, Status.LATER, Status.FOREIGN, Status.PARTIAL)
"""Outcomes that mean trouble, the worst first."""


def describe(action: Action) -> str:
    """What an action does, in a few words, without its target.

    >>> describe(ResizePool("web", 5))
    'size 5'
    """
    match action:
        case ResizePool(size=size):
            return f"size {size}"
        case Recycle(worker=worker):
            return f"recycle worker {worker.pid}"
        case Flag(kind=kind, incident=incident, over=over):
            return f"{kind} is over" if over else f"now reported as {kind}" if incident else f"flag {kind}"
        case Digest(incidents=incidents):
            return f"{incidents} more incidents"
        case Restore(control=Control.FENCE):
            return "let out of its fence"
        case Restore(control=control):
            return f"{control} back to what it was"
        case Set(control=Control.AFFINITY, value=value):
            return f"CPUs {cpu_list(value if isinstance(value, tuple) else (value,))}"
        case Set(control=Control.FENCE, value=tuple(value)):
            return f"fence in: {limits_in_words(Limits(*value))}"
        case Set(control=Control.SLICE, value=int(value)):
            return f"slice {value / 1e6:g} ms" if value else "the kernel's own slice"
        case Set(control=Control.POLICY, value=int(value)):
            return f"policy {POLICIES.get(value, value)}"
        case Set(control=control, value=value):
            return f"{control} {value}"


def group_of(target: str) -> str:
    """A target without its process or session: the part that the decisions about one group share.

    >>> group_of("group hogs pid 4711"), group_of("group program make session 12"), group_of("pool web worker 9")
    ('group hogs', 'group program make', 'pool web worker 9')
    """
    return _MEMBER.sub("", target)


def subject(decision: Decision) -> str:
    """The group that a decision is about, even if its cgroup is what is changed."""
    if decision.target.startswith("cgroup "):
        figures = decision.why.figures
        name = figures.get("contender") or figures.get("group")
        if name:
            return f"group {name}"
    return group_of(decision.target)


def change(action: Action) -> str:
    """What an action does, whatever its target: the same for each process of a group."""
    if isinstance(action, Flag | Recycle | Digest):
        return encode(action).decode()  # each is about another worker
    return describe(action)


def knob_of(action: Action) -> str:
    """What an action changes, whatever the value: the subject of a standing refusal."""
    if isinstance(action, Set | Restore):
        return f"{action.__struct_config__.tag} {action.control}"
    return "size" if isinstance(action, ResizePool) else change(action)


def likeness(decision: Decision) -> tuple[Hashable, ...]:
    """The key for decisions of one tick that are shown as one: equal keys are one decision."""
    return (
        decision.policy,
        subject(decision),
        change(decision.action),
        decision.why.rule,
        decision.why.figures.get("victim", ""),
    )


def gather(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Items with equal keys together, groups and items in the order in which they came.

    >>> gather([1, 2, 3, 4], lambda number: number % 2)
    [[1, 3], [2, 4]]
    """
    found: dict[Hashable, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())


def many(actions: Sequence[Action]) -> str:
    """The number of processes, sessions and cgroups that are changed, in words.

    >>> many([Set(Control.CPU_WEIGHT, CgroupPlace(path), 1) for path in ("/a", "/b")])
    '2 cgroups'
    """
    kinds = Counter(_kind(action) for action in actions)
    return ", ".join(plural(number, kind) for kind, number in kinds.items())


def plural(number: int, noun: str) -> str:
    """A number with its noun.

    >>> plural(1, "process"), plural(4, "process"), plural(2, "core")
    ('1 process', '4 processes', '2 cores')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def _kind(action: Action) -> str:
    if not isinstance(action, Set | Restore):
        return "change"
    match action.on:
        case CgroupPlace():
            return "cgroup"
        case SessionPlace():
            return "session"
        case ProcessPlace():
            return "process"


def headline(decisions: Sequence[Decision]) -> str:
    """What is decided, and about what: "group hogs: nice 19 for 4 processes"."""
    first = decisions[0]
    if len(decisions) == 1:
        return f"{first.target}: {describe(first.action)}"
    return f"{subject(first)}: {describe(first.action)} for {many([it.action for it in decisions])}"


def reason(decisions: Sequence[Decision]) -> str:
    """The sentence of the first decision, worded for all of them."""
    first = decisions[0]
    if len(decisions) == 1:
        return first.why.text
    return first.why.text.replace(first.target, f"{many([it.action for it in decisions])} of {subject(first)}")


def tally(statuses: Iterable[str]) -> str:
    """How many things ended in which way: one word if all ended alike, otherwise counts.

    >>> tally(["applied", "applied"]), tally(["applied", "vanished", "applied"]), tally([])
    ('applied', '2 applied, 1 vanished', '')
    """
    counts = Counter(statuses)
    if len(counts) < 2:
        return next(iter(counts), "")
    return ", ".join(f"{number} {status}" for status, number in counts.most_common())


def worst(statuses: Iterable[str]) -> str:
    """The worst trouble among these statuses; "" if there is none."""
    found = set(statuses)
    return next((str(status) for status in RANK if status in found), "")
