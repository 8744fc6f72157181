"""The frame of a moment of the past, made of what was recorded: the same screen as of the present.

Ticks, decisions and what became of them come from the decision log, processes from the trace, through the functions that the daemon
makes its frames with. What no store has is left empty, and `Moment.said` says so. The stores may be written meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...models.records import Snapshot
from ..config.sections import Config, from_builtins
from ..decision import Session, Set, Verdict
from ..frame import Frame, Own
from ..hands.fences import Limits, limits_in_words
from ..hands.places import Control, cpu_list
from ..observe.measure import GAP_INTERVALS, Measured, Measurer
from ..places import process_of
from ..scope import EVERYTHING
from ..store.decisions import DecisionReader, LoggedDecision, LoggedTick, TickFigures, TickPlace
from ..store.traces import TraceLooks
from ..words import moment, span
from .account import Change, changes
from .frames import Recent, frame_of
from .gathered import group_of

DECIDED_SECONDS = 3600
"""Seconds of decisions that are shown (chosen), as many as a frame has at most."""

LOOKED_AT = 400
"""Decisions that these are taken from (chosen): the same change of many members is one of them."""

FLAGGED_SECONDS, FLAGS = 86400, 400
"""Seconds back in which an incident may have begun that is still open, and reports of incidents that are looked at (chosen)."""

CHANGED_SECONDS, CHANGES = 6 * 3600, 1000
"""Seconds back in which a change may have been made that is in force, and changes that are looked at (chosen)."""

HISTORY = 90
"""Ticks before a moment that a view may draw (chosen)."""

FRAMES = 32
"""Moments that are kept (chosen): stepping back and on finds them made."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known of a moment."""

    frame: Frame | None  # None: nothing is
    said: str  # what is missing, and why; "" if nothing is
    before: tuple[TickFigures, ...] = ()  # of the ticks up to it, oldest first


class Past:
    """What was recorded in the stores of a daemon. Not for several threads at once."""

    def __init__(self, stores: Path, machine_name: str) -> None:
        """`stores`: the directory of the decision log and of the folder of traces. Raises StoreError if there is no log."""
        self._reader = DecisionReader(stores)
        self._traces = TraceLooks(stores / "traces")
        self._name = machine_name
        self._place: TickPlace | None = None  # of the moment that was read last
        self._made: OrderedDict[int, Moment] = OrderedDict()  # by the id of the tick

    def close(self) -> None:
        """Close the log."""
        self._reader.close()

    def at(self, wall: float) -> Moment:
        """The last tick at or before this time, seconds since 1970. Raises StoreError."""
        place = self._reader.place_at(round(wall * 1e9))
        if place is None:
            first = self._reader.place_beside(None, 1)
            if first is None:
                return Moment(None, "nothing was recorded yet; `nicety run` records")
            self._place = first
            found = self._moment(first)
            return replace(found, said=f"nothing is recorded before {moment(first.wall)}, which is shown")
        self._place = place
        found, gap = self._moment(place), wall - place.wall / 1e9
        interval = 1.0 if found.frame is None else found.frame.own.interval
        if gap <= GAP_INTERVALS * interval:
            return found
        after = self._reader.place_beside(place, 1)
        until = "now" if after is None or after == place else moment(after.wall)
        return replace(found, said=f"nothing was recorded from {moment(place.wall)}, which is shown, until {until}: no daemon ran")

    def step(self, ticks: int) -> Moment:
        """So many ticks from the moment that was read last, backwards if negative. Raises StoreError."""
        before = self._place
        place = self._reader.place_beside(before, ticks)
        if before is None or place is None:
            return self.first()
        self._place = place
        found, gap = self._moment(place), abs(place.wall - before.wall) / 1e9
        interval = 1.0 if found.frame is None else found.frame.own.interval
        if place == before:
            end = "the oldest moment that is recorded" if ticks < 0 else "the newest moment that is recorded"
            return replace(found, said=f"this is {end}")
        if gap > (abs(ticks) - 1 + GAP_INTERVALS) * interval:
            return replace(found, said=f"between this and the moment before, nothing was recorded for {span(gap)}")
        return found

    def first(self) -> Moment:
        """The oldest tick. Raises StoreError."""
        self._place = self._reader.place_beside(None, 1)
        if self._place is None:
            return Moment(None, "nothing was recorded yet; `nicety run` records")
        return self._moment(self._place)

    def _moment(self, place: TickPlace) -> Moment:
        kept = self._made.get(place.id)
        if kept is None:
            kept = self._made[place.id] = self._make(place)
            while len(self._made) > FRAMES:
                self._made.popitem(last=False)
        return kept

    def _make(self, place: TickPlace) -> Moment:
        logged, session = self._reader.tick_of(place), self._reader.session_called(place.session)
        if logged is None or logged.tick is None or session is None:
            return Moment(None, f"the tick of {moment(place.wall)} cannot be read: it was dropped or is damaged")
        try:
            config = from_builtins(session.config)
        except msgspec.ValidationError:
            return Moment(None, f"the tick of {moment(place.wall)} is of another version of nicety, which can show it")
        snapshot, measured = self._seen(place, logged, session, config)
        said = [] if snapshot is not None else ["its processes were not recorded"]
        said += [f"damaged: {', '.join(logged.damage)}"] if logged.damage else []
        frame = frame_of(
            logged.tick,
            _own(place, session, config, snapshot, logged.tick.paused),
            self._name,
            config,
            self._recent(place),
            _in_force(self._changes(place, session)),
            [note.text for note in logged.verdict.notes] if logged.verdict is not None else [],
            None if snapshot is None or measured is None else (snapshot, measured),
        )
        return Moment(frame, "; ".join(said), tuple(self._reader.figures_until(place, HISTORY)))

    def _seen(
        self, place: TickPlace, logged: LoggedTick, session: Session, config: Config
    ) -> tuple[Snapshot | None, Measured | None]:
        """What the tick was made of, as far as it was recorded."""
        tick = logged.tick
        assert tick is not None
        if place.seq == 0 or tick.gap:
            return self._traces.look(place.session, place.seq, place.wall), None
        before = self._traces.look(place.session, place.seq - 1, place.wall)
        snapshot = self._traces.look(place.session, place.seq, place.wall)
        if before is None or snapshot is None or snapshot.at != tick.at:
            return None, None
        measurer = Measurer(config, own=session.own)
        measurer.measure(before)
        measured = measurer.measure(snapshot)
        if measured is None:
            return snapshot, None
        return snapshot, _named_as_then(measured, {member.id: group.name for group in tick.groups for member in group.members})

    def _recent(self, place: TickPlace) -> Recent:
        """The decisions until then, with what had become of them."""
        recent = Recent()
        found = self._reader.decisions_until(place, place.wall - DECIDED_SECONDS * 10**9, LOOKED_AT)
        since = found[0].n if found else 0
        flags = self._reader.flags_until(place, place.wall - FLAGGED_SECONDS * 10**9, FLAGS)
        rows = [*(it for it in flags if it.n < since), *found]
        for (session, _), some in groupby(rows, key=lambda it: (it.session, it.seq)):
            if session != place.session:
                continue  # incidents and counts are of one session
            _remember(recent, list(some))
        return recent

    def _changes(self, place: TickPlace, session: Session) -> list[Change]:
        """Changes in force then, by the last decision about each value."""
        rows = self._reader.changes_until(place, place.wall - CHANGED_SECONDS * 10**9, CHANGES)
        living = {place.session: True}

        def is_living(id_: str) -> bool:
            if id_ not in living:
                its = self._reader.session_called(id_)
                living[id_] = its is not None and (its.own, its.boot_id) == (session.own, session.boot_id)
            return living[id_]

        return [change for change in changes(rows, is_living) if not change.ended and not change.observed]


def _remember(recent: Recent, rows: Sequence[LoggedDecision]) -> None:
    """Add what was decided at one tick."""
    admitted = [it for it in rows if it.refusal_json is None]
    refusals = tuple(it.refusal for it in rows if it.refusal is not None)
    effects = {effect.decision: effect for it in admitted for effect in it.effects}
    verdict = Verdict(tuple(it.decision for it in admitted), refusals, tuple(effects.values()))
    recent.add(rows[0].wall / 1e9, verdict, [outcome for it in admitted for outcome in it.outcomes[-1:]])


def _named_as_then(measured: Measured, then: dict[Any, str]) -> Measured:
    """The groups of processes as the tick had them: from two snapshots alone a family whose parents had ended has another name."""
    rows = {row: id_ for id_, row in measured.rows.items()}
    members = tuple(then.get(rows[row], name) for row, name in enumerate(measured.members))
    left = dict.fromkeys(measured.groups, 0)
    for name in members:
        if name in left:
            left[name] += 1
    counts = np.minimum(measured.processes, np.array([left[name] for name in measured.groups], dtype=np.float64))
    return replace(measured, members=members, processes=counts)


def _own(place: TickPlace, session: Session, config: Config, snapshot: Snapshot | None, paused: bool) -> Own:
    """The daemon then, as far as the stores say."""
    row = None
    if snapshot is not None:
        pids, starts = snapshot.table["pid"], snapshot.table["start_ticks"]
        found = np.flatnonzero((pids == session.own.pid) & (starts == session.own.start_ticks))
        row = None if not len(found) else snapshot.table[int(found[0])]
    acting = ["everything" if grant.thing == EVERYTHING else grant.thing for grant in session.scope.grants]
    return Own(
        pid=session.own.pid,
        version=session.version,
        mode=session.mode,
        scope=f"acting on {', '.join(acting)}" if acting else "observing",
        acting_on=acting,
        spared=list(session.scope.spared),
        cannot="",
        paused=paused,
        session=session.id,
        interval=config.daemon.interval,
        running=max(0.0, (place.wall - session.wall) / 1e9),
        ticks=place.seq + 1,
        missed=0,
        cpu=0.0 if row is None else round(float(row["cpu_ns"]) / 1e9, 4),
        memory=0 if row is None else int(row["rss_bytes"]),
        budget=config.daemon.budget,
        reduced=[],
    )


def _in_force(found: Sequence[Change]) -> Iterator[dict[str, Any]]:
    """Changes as `in_force.sum_up` has them: one for each group, control and value."""
    sums: dict[tuple[str, ...], list[Change]] = {}
    for change in found:
        group = f"group {change.contender}" if change.contender else group_of(change.last.decision.target)
        victim = "" if group == f"group {change.victim}" else change.victim
        now = _value(change.action.control, change.action.value)
        sums.setdefault((group, change.action.control, now, victim), []).append(change)
    for (group, control, now, protects), some in sums.items():
        first = min(some, key=lambda change: change.since)
        action = first.steps[0].decision.action
        assert isinstance(action, Set)
        before = action.expected
        yield {
            "group": group,
            "control": control,
            "original": "?" if before is None else _value(action.control, before),
            "now": now,
            "processes": sum(process_of(change.action.on) is not None for change in some),
            "protects": protects,
            "decision": first.steps[0].logged.id,
            "since_wall": first.since,
        }


def _value(control: Control, value: int | tuple[int, ...]) -> str:
    if isinstance(value, int):
        return str(value)
    return limits_in_words(Limits(*value)) if control is Control.FENCE else cpu_list(value)
