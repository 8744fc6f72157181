"""Sums up what is in force, one record per group: the ledger has an entry for each thread and each step. Pure; knows no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..hands.changes import Entry
from ..hands.fences import parts_of
from ..hands.places import AutogroupPlace, Cgroup, Control, FencePlace, Knob, PoolPlace, ThreadPlace
from ..printed import Part, plain
from .gathered import group_of

MadeFor = Mapping[tuple[str, Control], tuple[str, str]]
"""For a change, by its target and control: the group that was changed, and the group that it protects; see `Engine.made_for`."""


@dataclass(slots=True)
class _Sum:
    """Equal changes of one group."""

    first: Entry
    protects: str
    since: int  # ns since 1970
    processes: set[object] = field(default_factory=set)
    threads: int = 0
    sessions: set[Knob] = field(default_factory=set)
    cgroups: set[Knob] = field(default_factory=set)
    decisions: set[str] = field(default_factory=set)


class InForce(Part, frozen=True, kw_only=True):
    """What one group was changed to, however many threads and steps that took."""

    group: str  # in words, with its kind: "group hogs", "pool web"
    control: Control
    original: str  # value before our first change; of a fence "none"
    now: str  # value that was set; of a fence its limits
    processes: int  # that it affects
    threads: int
    sessions: int
    cgroups: int
    protects: str  # the group for which it was made; "": none, or not known
    decision: str  # id of the first decision in force
    decisions: int  # how many
    since_wall: int  # ns since 1970


class OneChange(Part, frozen=True, kw_only=True):
    """One step of a change of one thread, cgroup, session or pool."""

    target: str
    control: Control
    original: str  # value before our first change
    now: str  # value that was set
    decision: str  # its id
    process: int | None  # pid; None: a cgroup
    thread: int | None  # tid; None: not a control of threads
    wall: int  # ns since 1970


def sum_up(entries: Iterable[Entry], made_for: MadeFor) -> list[dict[str, Any]]:
    """One record for each group, control and value, in the order in which they were first changed: the fields of `InForce`."""
    began: dict[Knob, Entry] = {}
    newest: dict[Knob, Entry] = {}
    for entry in entries:
        began.setdefault(entry.knob, entry)
        newest[entry.knob] = entry
    sums: dict[tuple[str, Control, str, str, str], _Sum] = {}
    for knob, entry in newest.items():
        group, protects = made_for.get((entry.target, entry.control), ("", ""))
        group = f"group {group}" if group else group_of(entry.target)
        protects = "" if group == f"group {protects}" else protects  # a slice that protects the group itself
        key = (group, entry.control, *_values(entry), protects)
        one = sums.setdefault(key, _Sum(entry, protects, began[knob].wall))
        one.since = min(one.since, began[knob].wall)
        one.decisions.add(entry.decision)
        match knob.on:
            case ThreadPlace(process=process):
                one.processes.add(process)
                one.threads += 1
            case FencePlace(process=process):
                one.processes.add(process)
            case Cgroup():
                one.cgroups.add(knob)
            case AutogroupPlace():
                one.sessions.add(knob)
            case PoolPlace():
                pass
    return [_record(key[0], one) for key, one in sums.items()]


def _values(entry: Entry) -> tuple[str, str]:
    """The original value and the present one."""
    on = entry.knob.on
    if not isinstance(on, FencePlace):
        return str(entry.original), str(entry.new)
    limits = ", ".join(f"{file} {value}" for part in parts_of(on.key) for file, value in part.files.items())
    return "none", limits if entry.new else "none"


def _record(group: str, one: _Sum) -> dict[str, Any]:
    first = one.first
    original, now = _values(first)
    return plain(
        InForce(
            group=group,
            control=first.control,
            original=original,
            now=now,
            processes=len(one.processes),
            threads=one.threads,
            sessions=len(one.sessions),
            cgroups=len(one.cgroups),
            protects=one.protects,
            decision=first.decision,
            decisions=len(one.decisions),
            since_wall=one.since,
        )
    )


def each(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Every entry as a record, with the fields of `OneChange`: one for each thread and step."""
    return [
        plain(
            OneChange(
                target=entry.target,
                control=entry.control,
                original=str(entry.original),
                now=str(entry.new),
                decision=entry.decision,
                process=None if entry.process is None else entry.process.pid,
                thread=entry.knob.on.thread.tid if isinstance(entry.knob.on, ThreadPlace) else None,
                wall=entry.wall,
            )
        )
        for entry in entries
    ]
