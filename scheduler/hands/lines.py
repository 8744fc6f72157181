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


def entry_line(entry: Entry) -> bytes:
    """The line of a change."""
    pid, start_ticks = entry.process or (None, None)
    thread, key = _thread_and_key(entry.knob.on)
    tid, tid_start_ticks = thread or (None, None)
    place = (entry.control, pid, start_ticks, tid, tid_start_ticks, key)
    rest = (entry.session, entry.group, entry.since, entry.original, entry.old, entry.new, entry.status)
    return line_of(["entry", entry.id, entry.boot_id, entry.decision, entry.target, entry.wall, *place, *rest])


def entry_of(fields: list[object]) -> Entry | None:
    """The entry of these fields; None if no such change exists."""
    try:
        number_, boot_id, decision, target, wall, control, pid, start_ticks, tid, tid_start_ticks, key, *rest = fields
        session, group, since, first, old, new, status = rest
        process = None if pid is None else ProcId(_whole(pid), _whole(start_ticks))
        thread = None if tid is None else ThreadId(_whole(tid), _whole(tid_start_ticks))
        return Entry(
            id=_whole(number_),
            boot_id=_text(boot_id),
            decision=_text(decision),
            target=_text(target),
            wall=_whole(wall),
            knob=knob_of(Control(_text(control)), process, thread, _text(key)),
            session=None if session is None else _whole(session),
            group=None if group is None else _whole(group),
            since=_whole(since),
            original=value_of(first),
            old=value_of(old),
            new=value_of(new),
            status=EntryStatus(_text(status)),
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


def knob_of(control: Control, process: ProcId | None, thread: ThreadId | None, key: str) -> Knob:
    """The knob that these are of. Raises ValueError if there is none like that."""
    kind = KINDS[control].knob
    if kind is Cgroup:
        return Knob(control, Cgroup(key))
    if process is None:
        raise ValueError(f"{control} needs a process")
    if kind is ThreadPlace:
        if thread is None:
            raise ValueError(f"{control} needs a thread")
        return Knob(control, ThreadPlace(process, thread))
    if kind is AutogroupPlace:
        return Knob(control, AutogroupPlace(key, process))
    if kind is PoolPlace:
        return Knob(control, PoolPlace(key, process))
    parts_of(key)
    return Knob(control, FencePlace(key, process))


def value_of(decoded: object) -> Value:
    """A value from JSON. Raises ValueError."""
    return tuple(map(_whole, decoded)) if isinstance(decoded, list) else _whole(decoded)


def _whole(decoded: object) -> int:
    if isinstance(decoded, int):
        return decoded
    raise ValueError(f"{decoded!r} is not a number")


def _text(decoded: object) -> str:
    if isinstance(decoded, str):
        return decoded
    raise ValueError(f"{decoded!r} is not a text")
