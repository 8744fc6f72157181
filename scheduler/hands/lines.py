"""The lines of the ledger: a checksum and a record in JSON. Pure: no file.

Three kinds: a change, what became of one ("is"), and one that a later change covers ("drop").
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

from ...models.identity import ProcId
from .changes import Entry, EntryStatus
from .fences import parts_of
from .places import (
    KINDS,
    AutogroupPlace,
    Cgroup,
    Control,
    FencePlace,
    Knob,
    KnobPlace,
    PoolPlace,
    ThreadId,
    ThreadPlace,
    Value,
    process_of,
)

_STATUSES = frozenset(EntryStatus)


def take(record: list[object], entries: dict[int, Entry]) -> bool:
    """Apply the record of one line to the changes by id; whether it is one of ours."""
    match record:
        case ["entry", *fields]:
            entry = entry_of(fields)
            if entry is None:
                return False
            entries[entry.id] = entry
        case ["is", int() as number, str() as status] if status in _STATUSES:
            if number in entries:
                entries[number] = entries[number]._replace(status=EntryStatus(status))
        case ["drop", int() as number]:
            entries.pop(number, None)
        case _:
            return False
    return True


def line_of(record: Sequence[object]) -> bytes:
    """A line: checksum, space, JSON."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def record_of(line: bytes) -> list[object] | None:
    """The record of a line; None if its checksum does not hold."""
    try:
        if line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        record = json.loads(line[9:])
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, list) and record else None


def entry_record(entry: Entry) -> list[object]:
    """The record of a change."""
    rest = (entry.session, entry.group, entry.since, entry.original, entry.old, entry.new, entry.status)
    return ["entry", entry.id, entry.boot_id, entry.decision, entry.target, entry.wall, *knob_record(entry.knob), *rest]


def entry_line(entry: Entry) -> bytes:
    """The line of a change."""
    return line_of(entry_record(entry))


def knob_record(knob: Knob) -> list[object]:
    """A knob in six fields."""
    pid, start_ticks = process_of(knob.on) or (None, None)
    thread, key = _thread_and_key(knob.on)
    tid, tid_start_ticks = thread or (None, None)
    return [knob.control, pid, start_ticks, tid, tid_start_ticks, key]


def entry_of(fields: list[object]) -> Entry | None:
    """The entry of these fields; None if no such change exists."""
    try:
        number_, boot_id, decision, target, wall, *rest = fields
        session, group, since, first, old, new, status = rest[6:]
        return Entry(
            id=whole_of(number_),
            boot_id=text_of(boot_id),
            decision=text_of(decision),
            target=text_of(target),
            wall=whole_of(wall),
            knob=knob_of(rest[:6]),
            session=None if session is None else whole_of(session),
            group=None if group is None else whole_of(group),
            since=whole_of(since),
            original=value_of(first),
            old=value_of(old),
            new=value_of(new),
            status=EntryStatus(text_of(status)),
        )
    except ValueError:
        return None


def _thread_and_key(on: KnobPlace) -> tuple[ThreadId | None, str]:
    """The thread and the name of this place, as far as it has them."""
    match on:
        case ThreadPlace(thread=thread):
            return thread, ""
        case Cgroup(path=key) | AutogroupPlace(name=key) | PoolPlace(name=key) | FencePlace(key=key):
            return None, key


def knob_of(fields: Sequence[object]) -> Knob:
    """The knob of these six fields. Raises ValueError if there is none like that."""
    name, pid, start_ticks, tid, tid_start_ticks, key_ = fields
    control, key = Control(text_of(name)), text_of(key_)
    kind = KINDS[control].knob
    if kind is Cgroup:
        return Knob(control, Cgroup(key))
    if pid is None:
        raise ValueError(f"{control} needs a process")
    process = ProcId(whole_of(pid), whole_of(start_ticks))
    if kind is ThreadPlace:
        if tid is None:
            raise ValueError(f"{control} needs a thread")
        return Knob(control, ThreadPlace(process, ThreadId(whole_of(tid), whole_of(tid_start_ticks))))
    if kind is AutogroupPlace:
        return Knob(control, AutogroupPlace(key, process))
    if kind is PoolPlace:
        return Knob(control, PoolPlace(key, process))
    parts_of(key)
    return Knob(control, FencePlace(key, process))


def value_of(decoded: object) -> Value:
    """A value from JSON. Raises ValueError."""
    return tuple(map(whole_of, decoded)) if isinstance(decoded, list) else whole_of(decoded)


def whole_of(decoded: object) -> int:
    """A number from JSON. Raises ValueError."""
    if isinstance(decoded, int) and not isinstance(decoded, bool):
        return decoded
    raise ValueError(f"{decoded!r} is not a number")


def text_of(decoded: object) -> str:
    """A text from JSON. Raises ValueError."""
    if isinstance(decoded, str):
        return decoded
    raise ValueError(f"{decoded!r} is not a text")
