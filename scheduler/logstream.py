"""The log for people and machines: one line for each decision, refusal, late outcome and effect, for a group that is taken for
another class, and for a rival that came or ended; nothing when nothing changes.

JSON lines when the output is a file or a pipe, aligned lines at a terminal, native fields when systemd connected us to its journal.
Strings from the machine were sanitised when they were read; each sink escapes again what it could be fooled by (F43). A reader who
is slow or gone costs lines, counted in `dropped`, never a tick. Knows no policy and reads no clock: times are those of the ticks.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import math
import os
import select
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from ..models.records import Latency
from .class_words import CLASS, RULED, SPARED, evidence, percent
from .decision import Decision, Effect, Group, Outcome, Refusal, Status, Tick, Verdict, encode
from .explain import describe
from .linux.text import printable
from .rivals import RIVALS

INFO, NOTICE, WARNING, ERROR = 6, 5, 4, 3
"""Priorities of syslog(3)."""

QUIET_NS = 60 * 10**9
"""The same refusal, or the same decision without effect, is told again only after it was away for so long."""

BUFFER_LIMIT = 1 << 20
"""Bytes kept for a reader that does not read; what comes on top is dropped. 1 MiB is some 2,000 lines."""

REMEMBERED = 4096
"""Groups whose class is remembered, so that a periodic job is told once. The longest unseen are forgotten first."""

JOURNAL = "/run/systemd/journal/socket"

SETTLED = frozenset({Status.APPLIED, Status.PARTIAL})
"""Something changed: never counted as a repetition."""

TROUBLE = frozenset({Status.FAILED, Status.REFUSED, Status.FOREIGN, Status.PARTIAL})


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log."""

    wall: int  # ns since 1970
    kind: str  # decision, refusal, outcome, effect, class, event
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
        """Pass on what is still held, as far as the reader takes it."""
        ...


class LogStream:
    """Turns ticks into entries and gives them to a sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._told: dict[tuple[str, ...], int] = {}  # what was told -> monotonic ns when it was last seen
        self._classes: dict[str, Latency] = {}  # of groups by their behaviour, as last told; the longest unseen first
        self._rivals: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        """Lines that nobody took."""
        return self._sink.dropped

    def tick(self, session: str, mode: str, tick: Tick, verdict: Verdict, outcomes: Sequence[Outcome]) -> None:
        """Tell what a tick decided and what came of it."""
        for entry in self._entries(session, mode, tick, verdict, outcomes):
            self._sink.write(entry)
        self._sink.flush()

    def event(self, wall: int, priority: int, text: str, **fields: Any) -> None:
        """Tell something that is no decision: start, reload, pause, failure. `wall`: ns since 1970."""
        self._sink.write(Entry(wall, "event", priority, "", "", "", text, fields))
        self._sink.flush()

    def undone(self, wall: int, session: str, outcomes: Sequence[Outcome]) -> None:
        """Tell what an undo put back and what it left."""
        for outcome in outcomes:
            self._sink.write(_outcome(wall, outcome, {"session": session}))
        self._sink.flush()

    def _entries(self, session: str, mode: str, tick: Tick, verdict: Verdict, outcomes: Sequence[Outcome]) -> list[Entry]:
        common = {"session": session, "tick": tick.seq, "mode": mode}
        result: dict[str, Outcome] = {}
        for outcome in outcomes:
            result.setdefault(outcome.decision, outcome)
        own = {decision.id for decision in verdict.decisions}
        entries = self._rivals_of(tick, common) + self._classes_of(tick, common)
        for decision in verdict.decisions:
            came = result.get(decision.id)
            if (came is not None and came.status in SETTLED) or self._new(tick.at, decision, came.status if came else ""):
                entries.append(_decision(tick.wall, decision, came, common))
        entries += [_refusal(tick.wall, no, common) for no in verdict.refusals if self._new(tick.at, no.decision, no.rule)]
        entries += [_outcome(tick.wall, outcome, common) for outcome in outcomes if outcome.decision not in own]
        entries += [_effect(tick.wall, effect, common) for effect in verdict.effects]
        for key in [key for key, seen in self._told.items() if tick.at - seen > QUIET_NS]:
            del self._told[key]
        return entries

    def _classes_of(self, tick: Tick, common: Mapping[str, Any]) -> list[Entry]:
        """Groups that are taken for another class than was told last. What nobody was told of is none."""
        entries = []
        for group in tick.groups:
            if group.behaviour is None:
                continue  # pinned, or not known yet
            before = self._classes.pop(group.name, Latency.NONE)
            self._classes[group.name] = group.behaviour.latency
            if group.behaviour.latency is not before:
                entries.append(_class(tick.wall, group, before, common))
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
                f"{name} runs, which {rival.what}: left to it while it runs: {theirs}"
                if came
                else f"{name} ended: no longer left to it: {theirs}"
            )
            entries.append(Entry(tick.wall, "event", NOTICE, "", "", "", text, {**common, "rival": name}))
        return entries

    def _new(self, at: int, decision: Decision, came: str) -> bool:
        key = (decision.policy, decision.target, encode(decision.action).decode(), came)
        seen = self._told.get(key)
        self._told[key] = at
        return seen is None or at - seen > QUIET_NS


def open_log(environment: Mapping[str, str], descriptor: int) -> LogStream:
    """The log that fits what `descriptor` is connected to."""
    status = os.fstat(descriptor)
    if environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
        return LogStream(JournalSink(JOURNAL))
    return LogStream(StreamSink(descriptor, terminal_line if os.isatty(descriptor) else json_line))


# --- entries ------------------------------------------------------------------------------------------------------------------


def _decision(wall: int, decision: Decision, came: Outcome | None, common: Mapping[str, Any]) -> Entry:
    trouble = came is not None and came.status in TROUBLE
    text = f"{decision.why.rule}: {decision.why.text}"
    named: dict[str, Any] = {
        name: str(decision.why.figures[name]) for name in ("victim", "mechanism") if name in decision.why.figures
    }
    if any(value not in text for value in named.values()):
        text += f" [{', '.join(f'{name} {value}' for name, value in named.items())}]"
    if came is not None and came.detail and came.status not in (Status.APPLIED, Status.OBSERVED):
        text = f"{text} [{came.detail}]"
    return Entry(
        wall,
        "decision",
        WARNING if trouble or decision.policy == "quarantine" else NOTICE,
        decision.id,
        f"{decision.target}: {describe(decision.action)}",
        str(came.status) if came else "",
        text,
        {**common, **_of(decision), **named, "detail": came.detail if came else "", "changed": came.changed if came else 0},
    )


def _class(wall: int, group: Group, before: Latency, common: Mapping[str, Any]) -> Entry:
    behaviour = group.behaviour
    assert behaviour is not None
    chances = {Latency.LATENCY: behaviour.p_latency, Latency.BATCH: behaviour.p_batch}
    if behaviour.latency is Latency.NONE:
        sure = ", ".join(f"{CLASS[latency]} {percent(chance)}" for latency, chance in chances.items())
        why = f", {SPARED[behaviour.spared]}" if behaviour.spared else ""
        text = f"{group.name} is no longer taken for {CLASS[before]} ({sure}){why}: hands off"
    else:
        speaks, _ = evidence(behaviour)
        why = f", {RULED[behaviour.ruled]}" if behaviour.ruled else f" ({percent(chances[behaviour.latency])})"
        text = f"{group.name} is taken for {CLASS[behaviour.latency]}{why}"
        text += f": {', '.join(speaks)}" if speaks else ""
    fields = {
        **common,
        "group": group.name,
        "class": str(behaviour.latency),
        "before": str(before),
        "p_latency": behaviour.p_latency,
        "p_batch": behaviour.p_batch,
        "evidence": [list(one) for one in behaviour.evidence],
        "source": behaviour.source,
        "spared": behaviour.spared or "",
        "ruled": behaviour.ruled or "",
    }
    return Entry(wall, "class", INFO, "", "", "", text, fields)


def _refusal(wall: int, no: Refusal, common: Mapping[str, Any]) -> Entry:
    what = f"{no.decision.target}: {describe(no.decision.action)}"
    fields = {**common, **_of(no.decision), "refused_by": no.rule}
    return Entry(wall, "refusal", INFO, no.decision.id, what, "refused", f"{no.rule}: {no.text}", fields)


def _outcome(wall: int, outcome: Outcome, common: Mapping[str, Any]) -> Entry:
    priority = WARNING if outcome.status in TROUBLE else NOTICE
    fields = {**common, "target": outcome.target, "detail": outcome.detail, "changed": outcome.changed}
    return Entry(wall, "outcome", priority, outcome.decision, outcome.target, str(outcome.status), outcome.detail, fields)


def _effect(wall: int, effect: Effect, common: Mapping[str, Any]) -> Entry:
    text = f"{effect.before:.4g} -> {effect.after:.4g} after {effect.ticks} ticks"
    fields = {**common, "metric": effect.metric, "before": effect.before, "after": effect.after, "ticks": effect.ticks}
    return Entry(wall, "effect", INFO, effect.decision, effect.metric, effect.verdict, text, fields)


def _of(decision: Decision) -> dict[str, Any]:
    return {
        "policy": decision.policy,
        "target": decision.target,
        "action": msgspec.to_builtins(decision.action),
        "rule": decision.why.rule,
        "figures": decision.why.figures,
    }


# --- sinks --------------------------------------------------------------------------------------------------------------------


def json_line(entry: Entry) -> str:
    """The entry as one line of JSON in plain ASCII: no byte of it can end the line or reach a terminal as a command."""
    at = datetime.fromtimestamp(entry.wall / 1e9, UTC).isoformat(timespec="milliseconds")
    record: dict[str, Any] = {"at": at, "kind": entry.kind, "priority": entry.priority}
    if entry.kind not in ("class", "event"):
        record |= {"decision": entry.id, "what": entry.what, "status": entry.status}
    return ascii_json({**record, "text": entry.text, **entry.fields})


def terminal_line(entry: Entry) -> str:
    """The entry as an aligned line, local time, without anything that a terminal would obey."""
    at = datetime.fromtimestamp(entry.wall / 1e9, UTC).astimezone().strftime("%H:%M:%S")
    if entry.kind in ("class", "event"):
        extra = "".join(f" {key}={value}" for key, value in entry.fields.items()) if entry.kind == "event" else ""
        return printable(f"{at}  {entry.kind:<8}  {entry.text}{extra}")
    return printable(f"{at}  {entry.kind:<8}  {entry.id:<14}  {entry.what:<40}  {entry.status:<9}  {entry.text}")


class StreamSink:
    """Lines to a descriptor: a file, a pipe or a terminal."""

    def __init__(self, descriptor: int, line: Any) -> None:
        """`line`: from an Entry to its text, `json_line` or `terminal_line`."""
        self.dropped = 0
        self._descriptor = descriptor
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
        """As in Sink. Writes at most PIPE_BUF bytes at once: so much a pipe that polls writable takes without blocking."""
        while self._held:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            ready = poll.poll(0)
            if not ready:
                return
            try:
                written = os.write(self._descriptor, self._held[: select.PIPE_BUF])
            except BlockingIOError:
                return
            except OSError:  # the reader left, or the disk is full: these lines are lost, the daemon goes on
                self.dropped += self._held.count(b"\n")
                self._held.clear()
                return
            del self._held[:written]


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
    if b"\n" in value:  # then its length tells where it ends, and no line in it can pass for a field
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def ascii_json(value: Any) -> str:
    """JSON in printable ASCII on one line; what JSON has no word for (NaN, infinity) becomes null."""
    return json.dumps(_finite(value), ensure_ascii=True, allow_nan=False).replace("\x7f", "\\u007f")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
