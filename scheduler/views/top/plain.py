"""The view as plain lines, for a screen reader, a pipe or a terminal that cannot move its cursor; and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ...frame import Frame, Group
from ...printed import Printed
from ...words import moment, share, size
from . import figures
from .cells import shown
from .detail import class_words, waits_for
from .head import When
from .history import History

MOST = 20
"""Groups that are read out (chosen); a list for the ear is short."""


class Seen(Printed, frozen=True, kw_only=True):
    """What `nicety top --json` prints each tick, a line each."""

    alone: bool  # no daemon runs: it observes by itself
    late: float  # seconds without a new frame of a daemon that runs; 0: none is overdue
    said: str  # what else is to be said of the frame, a sentence; "": nothing
    frame: Frame  # as docs/frame.md has it


def plain(frame: Frame, history: History, when: When) -> list[str]:
    """Everything in sentences, the busiest groups first. No line depends on another's columns."""
    return [shown(line) for line in _lines(frame, history, when)]


def _lines(frame: Frame, history: History, when: When) -> Iterator[str]:
    own, machine = frame.own, frame.machine
    past = "past: " if when.past else ""
    yield f"{past}{moment(round(frame.wall * 1e9))}, machine {machine.name}"
    if when.alone:
        yield "no daemon: observing by itself" + (f"; {when.said}" if when.said else "")
    else:
        on = ", ".join(own.acting_on)
        but = f" but not {', '.join(own.spared)}" if own.spared else ""
        yield f"nicety acts on {on}{but}" if own.mode == "act" else "nicety observes and changes nothing"
        if own.paused:
            yield "paused: decides nothing new"
        if when.late:
            yield f"no news for {when.late:.0f} seconds"
        if when.said:
            yield when.said
        if own.cannot:
            yield own.cannot
        cost = history.own_cost()
        yield (f"nicety itself: {cost:.1%} of a CPU, " if cost is not None else "nicety itself: ") + f"{size(own.memory)}"
    yield f"CPU: {machine.busy:.2f} of {machine.cpus} cores busy, steal {machine.steal:.2f}, unseen {machine.unseen:.2f}"
    yield f"memory: {size(machine.memory - machine.available)} of {size(machine.memory)} used"
    if machine.pressure is not None:
        yield "some task waits: " + ", ".join(
            f"for {name} {value:.0%} of the time" for name, value in zip(("CPU", "memory", "io"), machine.pressure, strict=False)
        )
    if not frame.measured:
        yield "rates are known from the second tick on"
    busy = sorted((group for group in frame.groups if group.demand >= 0.005 or group.changes), key=lambda group: -group.demand)
    yield f"groups: {len(frame.groups)}, of which {len(busy)} do something"
    for group in busy[:MOST]:
        yield _group(group)
    if len(busy) > MOST:
        yield f"and {len(busy) - MOST} more groups"
    for pool in frame.pools:
        asked = "" if pool.size == pool.wanted else f", {pool.wanted} asked for"
        load = "" if pool.load is None else f", load {pool.load:.1f}"
        ahead = figures.band(pool.forecast, " to ")
        queued = f", {pool.queued:.0f} requests wait" if pool.queued else ""
        yield f"pool {pool.name}: {pool.size} workers{asked}{load}{queued}{f', load in 30 seconds {ahead}' if ahead else ''}" + (
            f"; {pool.trouble}" if pool.trouble else ""
        )
    for incident in frame.incidents:
        yield f"incident: {incident.kind} in pool {incident.pool} since {moment(round(incident.wall * 1e9))}: {incident.text}"
    for it in frame.decisions[:5]:
        came = ", ".join(filter(None, (it.status, it.effect)))
        yield f"decision: {moment(round(it.wall * 1e9), day=False)} {it.target}: {it.what}{f', {came}' if came else ''}"
    for note in frame.notes:
        yield f"note: {note}"


def _group(group: Group) -> str:
    words = [f"group {group.name}: {class_words(group)}", f"{group.cpu:.2f} cores", f"wants {group.demand:.2f}"]
    if group.wait >= 0.005:
        words.append(f"waits for {share(figures.wait_share(group.wait, group.demand))} of it")
    ahead = figures.band(group.forecast, " to ")
    if ahead:
        words.append(f"in 30 seconds {ahead}")
    if group.delay is not None:
        words.append(f"delayed by {waits_for(group.delay)}")
    words += [f"changed: {change.control} {change.original} to {change.now}" for change in group.changes]
    return "; ".join(words)
