"""The log for people and machines: one line for each decision about a group, refusal, late outcome and effect, for a group whose
class changes, for a note, and for a rival that starts or ends. Nothing is logged when nothing changes.

A decision is one line, however many processes it concerns. A line is not repeated: repetitions are counted and summed up in one
line after ten minutes, then after twenty, and so on up to an hour. The decision log has each of them.

The form is JSON lines if the output is a file or a pipe, aligned lines on a terminal, native fields if systemd connected us to its
journal. Strings from the machine were sanitised when read; each sink escapes again whatever could fool it (F43). A slow or absent
reader costs lines, counted in `dropped`, never a tick. Knows no policy and reads no clock: times are those of the ticks.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import logging
import math
import os
import select
import socket
import traceback
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from ...models.records import Class
from ..decision import Decision, Effect, Group, Note, Outcome, Refusal, ResizePool, Restore, Set, Tick, Verdict
from ..hands.faults import Status
from ..observe.rivals import RIVALS
from ..read.text import printable
from .class_words import CLASS, RULED, SPARED, evidence, percent
from .gathered import change, describe, gather, group_of, headline, knob_of, likeness, plural, reason, subject, tally, worst
from .sentences import effect_in_words

INFO, NOTICE, WARNING, ERROR = 6, 5, 4, 3
"""Priorities of syslog(3)."""

QUIET_NS = 600 * 10**9
"""Nanoseconds for which a line is not repeated (chosen). Repetitions in that time are then summed up in one line, and the time
doubles. A standing refusal is logged again only after it was absent for this long."""

LONGEST_QUIET_NS = 3600 * 10**9
"""Longest time between two such summaries, ns (chosen)."""

OVER_NS = 60 * 10**9
"""Nanoseconds of absence after which a note is over (chosen): a note that comes and goes is one note."""

BUFFER_LIMIT = 1 << 20
"""Bytes kept for a reader that does not read; anything beyond is dropped (chosen): 1 MiB is about 2,000 lines."""

REMEMBERED = 4096
"""Number of groups whose class is remembered, so that a periodic job is logged once, and of decisions that an effect or a late
outcome may still concern. Those not seen for longest are forgotten first (chosen)."""

PLAIN = frozenset({"class", "note", "event"})
"""Kinds of entries that concern no decision."""

JOURNAL = "/run/systemd/journal/socket"
"""Socket of the native protocol, systemd.io/JOURNAL_NATIVE_PROTOCOL."""

CHANGED = frozenset({Status.APPLIED, Status.PARTIAL})
"""Statuses after which something was changed, or an incident reported."""

TROUBLE = frozenset({Status.FAILED, Status.REFUSED, Status.FOREIGN, Status.PARTIAL, Status.BLOCKED, Status.LATER})
"""Statuses of late outcomes that are logged as warnings."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log."""

    wall: int  # ns since 1970
    kind: str  # decision, refusal, outcome, effect, class, note, event
    priority: int
    id: str  # of the decision, "" for a class or an event
    what: str  # "pool web: size 5"
    status: str
    text: str  # the reason, a sentence
    fields: Mapping[str, Any] = field(default_factory=dict)


class Sink(Protocol):
    """Where entries go."""

    dropped: int

    def write(self, entry: Entry) -> None:
        """Take an entry; never blocks, never raises."""
        ...

    def flush(self) -> None:
        """Pass on what is still held, as far as the reader accepts it."""
        ...


@dataclass(slots=True)
class _Logged:
    """A line that was logged, and its repetitions since."""

    at: int  # monotonic ns when its line was last written
    seen: int  # when it last occurred
    quiet: int = QUIET_NS
    last: Entry | None = None  # the latest repetition, not written
    times: int = 0  # number of repetitions
    statuses: Counter[str] = field(default_factory=Counter)  # of the repetitions
    wall: int = 0  # of the line


@dataclass(slots=True)
class _Taken:
    """The class that was last logged for a group."""

    class_: Class
    at: int  # monotonic ns
    before: Class | None  # the class logged before that


@dataclass(slots=True)
class _Noted:
    """A note that was logged and is not over."""

    note: Note
    seen: int  # monotonic ns


class LogStream:
    """Turns ticks into entries and gives them to a sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._logged: dict[Hashable, _Logged] = {}  # the longest unseen first
        self._refused: dict[Hashable, int] = {}  # logged refusals -> monotonic ns when they last occurred
        self._made: dict[str, Decision] = {}  # by id, the oldest first
        self._classes: dict[str, _Taken] = {}  # of groups by their behaviour; the longest unseen first
        self._notes: dict[str, _Noted] = {}  # by topic
        self._rivals: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        """Lines that were lost."""
        return self._sink.dropped

    def tick(self, session: str, mode: str, tick: Tick, verdict: Verdict, outcomes: Sequence[Outcome]) -> None:
        """Log what a tick decided and what came of it."""
        for entry in self._entries(session, mode, tick, verdict, outcomes):
            self._sink.write(entry)
        self._sink.flush()

    def event(self, wall: int, priority: int, text: str, **fields: Any) -> None:
        """Log an event that is not a decision: start, reload, pause, failure. `wall`: ns since 1970."""
        self._sink.write(Entry(wall, "event", priority, "", "", "", text, fields))
        self._sink.flush()

    def undone(self, wall: int, session: str, outcomes: Sequence[Outcome]) -> None:
        """Log what an undo restored and what it left."""
        for alike in gather(outcomes, lambda outcome: (group_of(outcome.target), outcome.status)):
            self._sink.write(_outcome(wall, group_of(alike[0].target), alike, {"session": session}))
        self._sink.flush()

    def _entries(self, session: str, mode: str, tick: Tick, verdict: Verdict, outcomes: Sequence[Outcome]) -> list[Entry]:
        common = {"session": session, "tick": tick.seq, "mode": mode}
        entries = self._rivals_of(tick, common) + self._classes_of(tick, common) + self._notes_of(tick, verdict.notes, common)
        entries += self._decisions_of(tick, verdict, outcomes, common)
        entries += self._refusals_of(tick, verdict.refusals, common)
        entries += self._outcomes_of(tick, verdict, outcomes, common)
        entries += self._effects_of(tick, verdict.effects, common)
        return entries + self._again(tick)

    # --- repetitions -----------------------------------------------------------------------------------------------------------

    def _first(self, at: int, key: Hashable, what: str, entry: Entry) -> list[Entry]:
        """The entry if nothing like it was logged lately; otherwise it is counted, to be summed up as `what`."""
        line = self._logged.pop(key, None)
        if line is None:
            self._logged[key] = _Logged(at, at, wall=entry.wall)
            while len(self._logged) > REMEMBERED:
                del self._logged[next(iter(self._logged))]
            return [entry]
        self._logged[key] = line
        line.seen, line.last = at, replace(entry, what=what)
        line.times += entry.fields["count"]
        line.statuses.update(entry.fields["statuses"])
        return []

    def _again(self, tick: Tick) -> list[Entry]:
        """One line for everything counted for long enough; what was absent for long enough is forgotten."""
        entries = []
        for key, line in list(self._logged.items()):
            if tick.at - line.at < line.quiet:
                continue
            if line.last is None:
                if tick.at - line.seen >= line.quiet:
                    del self._logged[key]
                continue
            entries.append(_summed(tick.wall, line))
            quiet = min(2 * line.quiet, LONGEST_QUIET_NS)
            self._logged[key] = _Logged(tick.at, tick.at, quiet, wall=tick.wall)
        return entries

    def _decisions_of(self, tick: Tick, verdict: Verdict, outcomes: Sequence[Outcome], common: Mapping[str, Any]) -> list[Entry]:
        result: dict[str, Outcome] = {}
        for outcome in outcomes:
            result.setdefault(outcome.decision, outcome)
        entries = []
        for alike in gather(verdict.decisions, likeness):
            came = [result[decision.id] for decision in alike if decision.id in result]
            for decision in alike:
                self._made[decision.id] = decision
            entry, first = _decision(tick.wall, alike, came, common), alike[0]
            trouble = worst(outcome.status for outcome in came if outcome.status is not Status.PARTIAL)  # of many, some are gone
            key = ("decision", first.policy, subject(first), change(first.action), trouble)
            if isinstance(first.action, Set | Restore | ResizePool) or not {outcome.status for outcome in came} & CHANGED:
                entries += self._first(tick.at, key, f"{subject(first)}: {describe(first.action)}", entry)
            else:
                entries.append(entry)  # an incident, or an action on one: each is news
        while len(self._made) > REMEMBERED:
            del self._made[next(iter(self._made))]
        return entries

    def _refusals_of(self, tick: Tick, refusals: Sequence[Refusal], common: Mapping[str, Any]) -> list[Entry]:
        """Log a standing refusal once, although it may concern another process of the group in each tick."""
        entries = []
        for alike in gather(refusals, _refused):
            key = _refused(alike[0])
            if key not in self._refused:
                entries.append(_refusal(tick.wall, alike, common))
            self._refused[key] = tick.at
        for key in [key for key, seen in self._refused.items() if tick.at - seen > QUIET_NS]:
            del self._refused[key]
        return entries

    def _outcomes_of(self, tick: Tick, verdict: Verdict, outcomes: Sequence[Outcome], common: Mapping[str, Any]) -> list[Entry]:
        """Outcomes of earlier decisions."""
        own = {decision.id for decision in verdict.decisions}
        late = [outcome for outcome in outcomes if outcome.decision not in own]
        entries = []
        for alike in gather(late, lambda outcome: (self._whose(outcome), outcome.status)):
            whose, status = self._whose(alike[0]), alike[0].status
            entries += self._first(tick.at, ("outcome", whose, status), whose, _outcome(tick.wall, whose, alike, common))
        return entries

    def _whose(self, outcome: Outcome) -> str:
        made = self._made.get(outcome.decision)
        return group_of(outcome.target) if made is None else subject(made)

    def _effects_of(self, tick: Tick, effects: Sequence[Effect], common: Mapping[str, Any]) -> list[Entry]:
        """One line for a decision about a group: did it help? For restores, only if it hurt."""
        entries = []
        for alike in gather(effects, self._measured):
            first = alike[0]
            made = self._made.get(first.decision)
            if made is not None and isinstance(made.action, Restore) and first.verdict != "hurt":
                continue
            key = ("effect", *self._measured(first)[:2], first.verdict == "hurt")
            entry = _effect(tick.wall, alike, made, common)
            entries += self._first(tick.at, key, entry.what, entry)
        return entries

    def _measured(self, effect: Effect) -> tuple[str, str, str, str]:
        """What effects share that are logged as one: (subject, knob, metric, verdict)."""
        made = self._made.get(effect.decision)
        whose, what = ("", "") if made is None else (subject(made), knob_of(made.action))
        return whose or effect.metric, what, effect.metric, effect.verdict

    # --- notes, classes, rivals ------------------------------------------------------------------------------------------------

    def _notes_of(self, tick: Tick, notes: Sequence[Note], common: Mapping[str, Any]) -> list[Entry]:
        """Log each note when its topic appears and when it is over."""
        entries = []
        for note in notes:
            if note.topic not in self._notes:
                entries.append(_note(tick.wall, note, over=False, common=common))
            self._notes[note.topic] = _Noted(note, tick.at)
        for topic, noted in list(self._notes.items()):
            if tick.at - noted.seen >= OVER_NS:
                entries.append(_note(tick.wall, noted.note, over=True, common=common))
                del self._notes[topic]
        return entries

    def _classes_of(self, tick: Tick, common: Mapping[str, Any]) -> list[Entry]:
        """Log groups whose class differs from the one logged last; a group never logged counts as without a class.

        A return to the previous class is logged only after a while.
        """
        entries = []
        for group in tick.groups:
            if group.behaviour is None:
                continue  # pinned, or not known yet
            taken = self._classes.pop(group.name, None) or _Taken(Class.EXEMPT, tick.at, None)
            self._classes[group.name] = taken
            class_ = group.behaviour.inferred
            if class_ is taken.class_ or (class_ is taken.before and tick.at - taken.at < QUIET_NS):
                continue
            entries.append(_class(tick.wall, group, taken.class_, common))
            said = taken.before is not None or taken.class_ is not Class.EXEMPT
            self._classes[group.name] = _Taken(class_, tick.at, taken.class_ if said else None)
        while len(self._classes) > REMEMBERED:
            del self._classes[next(iter(self._classes))]
        return entries

    def _rivals_of(self, tick: Tick, common: Mapping[str, Any]) -> list[Entry]:
        before, self._rivals = self._rivals, tick.machine.rivals
        entries = []
        for name in sorted({*before} ^ {*self._rivals}):
            rival = RIVALS.get(name)
            if rival is None or not rival.touches:
                continue
            theirs = ", ".join(sorted(rival.touches))
            came = name in self._rivals
            text = (
                f"{name} runs, which {rival.what}: nicety leaves these to it while it runs: {theirs}"
                if came
                else f"{name} ended: nicety uses these again: {theirs}"
            )
            entries.append(Entry(tick.wall, "event", NOTICE, "", "", "", text, {**common, "rival": name}))
        return entries


class Forward(logging.Handler):
    """Turns nicety's other log records into events, so that the log has one form: a pool's trouble, a failed tick.

    Takes warnings and errors only, as Python does without any handler.
    """

    def __init__(self, stream: LogStream) -> None:
        super().__init__(logging.WARNING)
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Log it as an event; an exception has its traceback in a field."""
        fields = {"logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        priority = ERROR if record.levelno >= logging.ERROR else WARNING
        self._stream.event(round(record.created * 1e9), priority, record.getMessage(), **fields)


def open_log(environment: Mapping[str, str], descriptor: int) -> LogStream:
    """The log in the form that fits what `descriptor` is connected to."""
    status = os.fstat(descriptor)
    if environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
        return LogStream(JournalSink(JOURNAL))
    return LogStream(StreamSink(descriptor, terminal_line if os.isatty(descriptor) else json_line))


# --- entries ------------------------------------------------------------------------------------------------------------------


def _decision(wall: int, alike: Sequence[Decision], came: Sequence[Outcome], common: Mapping[str, Any]) -> Entry:
    """The line for decisions logged as one, with what came of them."""
    first = alike[0]
    text = f"{first.why.rule}: {reason(alike)}"
    named: dict[str, Any] = {name: str(first.why.figures[name]) for name in ("victim", "mechanism") if name in first.why.figures}
    if any(value not in text for value in named.values()):
        text += f" [{', '.join(f'{name} {value}' for name, value in named.items())}]"
    trouble = worst(outcome.status for outcome in came)
    shown = [outcome for outcome in came if outcome.status == trouble] or list(came)
    detail = next((outcome.detail for outcome in shown if outcome.detail), "")
    if detail and {outcome.status for outcome in shown}.isdisjoint((Status.APPLIED, Status.OBSERVED)):
        text = f"{text} [{detail}]"
    return Entry(
        wall,
        "decision",
        WARNING if trouble or first.policy == "quarantine" else NOTICE,
        first.id,
        headline(alike),
        tally(outcome.status for outcome in came),
        text,
        {
            **common,
            **_of(alike),
            **named,
            "detail": detail,
            "changed": sum(outcome.changed for outcome in came),
            "statuses": _statuses(came),
        },
    )


def _class(wall: int, group: Group, before: Class, common: Mapping[str, Any]) -> Entry:
    behaviour = group.behaviour
    assert behaviour is not None
    chances = {Class.INTERACTIVE: behaviour.p_interactive, Class.BATCH: behaviour.p_batch}
    if behaviour.inferred is Class.EXEMPT:
        sure = ", ".join(f"{CLASS[class_]} {percent(chance)}" for class_, chance in chances.items())
        why = f", {SPARED[behaviour.spared]}" if behaviour.spared else ""
        text = f"{group.name} is no longer classed as {CLASS[before]} ({sure}){why}: left alone"
    else:
        speaks, _ = evidence(behaviour)
        why = f", {RULED[behaviour.ruled]}" if behaviour.ruled else f" ({percent(chances[behaviour.inferred])})"
        text = f"{group.name} is classed as {CLASS[behaviour.inferred]}{why}"
        text += f": {', '.join(speaks)}" if speaks else ""
    fields = {
        **common,
        "group": group.name,
        "class": str(behaviour.inferred),
        "before": str(before),
        "p_interactive": behaviour.p_interactive,
        "p_batch": behaviour.p_batch,
        "evidence": [list(one) for one in behaviour.evidence],
        "source": behaviour.source,
        "spared": behaviour.spared or "",
        "ruled": behaviour.ruled or "",
    }
    return Entry(wall, "class", INFO, "", "", "", text, fields)


def _refusal(wall: int, alike: Sequence[Refusal], common: Mapping[str, Any]) -> Entry:
    decisions, first = [no.decision for no in alike], alike[0]
    text = first.text.replace(first.decision.target, subject(first.decision)) if len(alike) > 1 else first.text
    fields = {**common, **_of(decisions), "refused_by": first.rule}
    return Entry(wall, "refusal", INFO, first.decision.id, headline(decisions), "refused", f"{first.rule}: {text}", fields)


def _refused(no: Refusal) -> Hashable:
    """Refusals equal in this key are one standing refusal."""
    return no.decision.policy, subject(no.decision), knob_of(no.decision.action), no.rule


def _outcome(wall: int, whose: str, alike: Sequence[Outcome], common: Mapping[str, Any]) -> Entry:
    """The line for outcomes of one status. `whose`: what to call them if they are many."""
    first = alike[0]
    more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
    fields = {
        **common,
        "target": first.target,
        "detail": first.detail,
        "changed": sum(outcome.changed for outcome in alike),
        "count": len(alike),
        "decisions": list(dict.fromkeys(outcome.decision for outcome in alike)),
        "targets": list(dict.fromkeys(outcome.target for outcome in alike)),
        "statuses": _statuses(alike),
    }
    what = first.target if len(alike) == 1 else f"{whose}, {len(alike)} of them"
    priority = WARNING if first.status in TROUBLE else NOTICE
    return Entry(wall, "outcome", priority, first.decision, what, str(first.status), first.detail + more, fields)


def _effect(wall: int, alike: Sequence[Effect], made: Decision | None, common: Mapping[str, Any]) -> Entry:
    """The line for effects logged as one. `made`: the decision, if it is still remembered."""
    first, count = alike[0], sum(effect.decisions for effect in alike)
    fields = {
        **common,
        "metric": first.metric,
        "before": first.before,
        "after": first.after,
        "ticks": first.ticks,
        "count": count,
        "decisions": [effect.decision for effect in alike],
        "statuses": {first.verdict: count},
    }
    what = first.metric if made is None else f"{subject(made)}: {describe(made.action)}"
    return Entry(wall, "effect", INFO, first.decision, what, first.verdict, effect_in_words(first), fields)


def _note(wall: int, note: Note, over: bool, common: Mapping[str, Any]) -> Entry:
    text = f"over: {note.text}" if over else note.text
    fields = {**common, "topic": note.topic, "figures": note.figures, "over": over}
    return Entry(wall, "note", NOTICE, "", "", "", text, fields)


def _summed(wall: int, line: _Logged) -> Entry:
    """The line that sums up the repetitions since the last line."""
    last = line.last
    assert last is not None
    minutes = max(1, round((wall - line.wall) / 60e9))
    text = f"{plural(line.times, 'time')} more in {minutes} min; the latest: {last.text}"
    fields = {**last.fields, "count": line.times, "statuses": dict(line.statuses), "again_seconds": (wall - line.wall) / 1e9}
    return replace(last, wall=wall, status=tally(line.statuses.elements()), text=text, fields=fields)


def _statuses(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return dict(Counter(str(outcome.status) for outcome in outcomes))


def _of(alike: Sequence[Decision]) -> dict[str, Any]:
    first = alike[0]
    return {
        "policy": first.policy,
        "target": first.target,
        "action": msgspec.to_builtins(first.action),
        "rule": first.why.rule,
        "figures": first.why.figures,
        "count": len(alike),
        "decisions": [decision.id for decision in alike],
        "targets": [decision.target for decision in alike],
    }


# --- sinks --------------------------------------------------------------------------------------------------------------------


def json_line(entry: Entry) -> str:
    """The entry as one line of JSON in plain ASCII: no byte of it can end the line or reach a terminal as a command."""
    at = datetime.fromtimestamp(entry.wall / 1e9, UTC).isoformat(timespec="milliseconds")
    record: dict[str, Any] = {"at": at, "kind": entry.kind, "priority": entry.priority}
    if entry.kind not in PLAIN:
        record |= {"decision": entry.id, "what": entry.what, "status": entry.status}
    return ascii_json({**record, "text": entry.text, **entry.fields})


def terminal_line(entry: Entry) -> str:
    """The entry as an aligned line in local time, without anything that a terminal would obey."""
    at = datetime.fromtimestamp(entry.wall / 1e9, UTC).astimezone().strftime("%H:%M:%S")
    if entry.kind in PLAIN:
        extra = "".join(f" {key}={value}" for key, value in entry.fields.items()) if entry.kind == "event" else ""
        return printable(f"{at}  {entry.kind:<8}  {entry.text}{extra}")
    return printable(f"{at}  {entry.kind:<8}  {entry.id:<14}  {entry.what:<40}  {entry.status:<9}  {entry.text}")


class StreamSink:
    """Lines to a descriptor: a file, a pipe or a terminal."""

    def __init__(self, descriptor: int, line: Any) -> None:
        """`line`: converts an Entry to its text, `json_line` or `terminal_line`."""
        self.dropped = 0
        self._descriptor = descriptor
        self._terminal = os.isatty(descriptor)
        self._line = line
        self._held = bytearray()

    def write(self, entry: Entry) -> None:
        """As in Sink."""
        data = self._line(entry).encode("utf-8", "backslashreplace") + b"\n"
        if len(self._held) + len(data) > BUFFER_LIMIT:
            self.dropped += 1
        else:
            self._held += data

    def flush(self) -> None:
        """As in Sink. Writes at most PIPE_BUF bytes at once: that much a pipe that polls writable takes without blocking. A
        terminal may take less, and one that is stopped (Ctrl-S) or that nobody reads takes nothing."""
        while self._held:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            ready = poll.poll(0)
            if not ready:
                return
            try:
                with _without_waiting(self._descriptor) if self._terminal else nullcontext():
                    written = os.write(self._descriptor, self._held[: select.PIPE_BUF])
            except BlockingIOError:
                return
            except OSError:  # the reader left, or the disk is full: these lines are lost, the daemon continues
                self.dropped += self._held.count(b"\n")
                self._held.clear()
                return
            del self._held[:written]


@contextmanager
def _without_waiting(descriptor: int) -> Iterator[None]:
    """Writing raises BlockingIOError in the block instead of waiting. Only there: a shell shares its terminal."""
    blocking = os.get_blocking(descriptor)
    os.set_blocking(descriptor, False)
    try:
        yield
    finally:
        os.set_blocking(descriptor, blocking)


class JournalSink:
    """The journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), searchable: `journalctl NICETY_POLICY=pool_size`."""

    def __init__(self, address: str) -> None:
        self.dropped = 0
        self._address = address

    def write(self, entry: Entry) -> None:
        """As in Sink."""
        head = f"{entry.what}: {entry.status}: " if entry.what else ""
        fields = {"MESSAGE": printable(head + entry.text), "PRIORITY": str(entry.priority), "SYSLOG_IDENTIFIER": "nicety"}
        fields["NICETY_KIND"] = entry.kind
        if entry.id:
            fields |= {"NICETY_DECISION": entry.id, "NICETY_STATUS": entry.status}
        for name, value in entry.fields.items():
            fields["NICETY_" + name.upper()] = printable(value) if isinstance(value, str) else ascii_json(value)
        data = b"".join(_journal_field(name, value.encode("utf-8", "backslashreplace")) for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                self._send(channel, data)
        except OSError:
            self.dropped += 1

    def flush(self) -> None:
        """As in Sink; nothing is held."""

    def _send(self, channel: socket.socket, data: bytes) -> None:
        try:
            channel.sendto(data, self._address)
            return
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):  # too long for a datagram
                raise
        memory = os.memfd_create("nicety-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(memory, data)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))]
            channel.sendmsg([b""], rights, 0, self._address)
        finally:
            os.close(memory)


def _journal_field(name: str, value: bytes) -> bytes:
    if b"\n" in value:  # a length is written, so no line of the value can pass for a field
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def ascii_json(value: Any) -> str:
    """JSON in printable ASCII on one line; values that JSON lacks (NaN, infinity) become null."""
    return json.dumps(_finite(value), ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
