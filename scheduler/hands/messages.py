"""How orders, subjects and results look on the wire: lists of JSON. Pure. Both sides use it; the hands believe nothing of it."""

from __future__ import annotations

from collections.abc import Sequence

from ...models.identity import ProcId
from .changes import EntryStatus
from .faults import Status
from .lines import text_of, value_of, whole_of
from .looks import Order
from .places import KINDS, AutogroupPlace, Cgroup, Control, FencePlace, PoolPlace, Subject
from .tally import Done, Note

LARGEST_POOL = 1 << 20
"""What a size of a pool is below (chosen)."""

LONGEST_NAME, LONGEST_PATH = 256, 4096
"""Most characters of an id, of a pool's name or of what people read, which go to the ledger with each value (chosen), and of the
path of a cgroup (PATH_MAX)."""


def order_record(order: Order) -> list[object]:
    """An order."""
    pid, start_ticks, path = (None, None, order.on.path) if isinstance(order.on, Cgroup) else (*order.on, "")
    place = [pid, start_ticks, path]
    return [order.decision, order.target, order.control, *place, order.value, order.expected, order.program]


def order_of(record: object) -> Order:
    """The order of a record. Raises ValueError for anything else."""
    if not isinstance(record, list) or len(record) != 9:
        raise ValueError("no order")
    decision, target, control, pid, start_ticks, path, value, expected, program = record
    on = Cgroup(short_of(path, LONGEST_PATH)) if pid is None else process_of(pid, start_ticks)
    kind = Control(text_of(control))
    if kind is Control.POOL_SIZE or (KINDS[kind].subject is Cgroup) != isinstance(on, Cgroup):
        raise ValueError(f"{kind} has another kind of place")
    return Order(
        name_of(decision),
        words_of(target),
        kind,
        on,
        None if value is None else value_of(value),
        None if expected is None else value_of(expected),
        None if program is None else short_of(program, LONGEST_NAME),
    )


def subject_record(subject: Subject) -> list[object]:
    """A subject."""
    match subject.on:
        case ProcId() as process:
            return [subject.control, *process, ""]
        case Cgroup(path=path):
            return [subject.control, None, None, path]
        case AutogroupPlace(name=key, through=process) | FencePlace(key=key, process=process) | PoolPlace(name=key, master=process):
            return [subject.control, *process, key]


def subject_of(record: object) -> Subject:
    """The subject of a record. Raises ValueError for anything else."""
    if not isinstance(record, list) or len(record) != 4:
        raise ValueError("no subject")
    control, key = Control(text_of(record[0])), text_of(record[3])
    kind = KINDS[control].subject
    if kind is Cgroup:
        return Subject(control, Cgroup(key))
    process = process_of(record[1], record[2])
    if kind is ProcId:
        return Subject(control, process)
    if kind is AutogroupPlace:
        return Subject(control, AutogroupPlace(key, process))
    return Subject(control, PoolPlace(key, process) if kind is PoolPlace else FencePlace(key, process))


def done_of(record: object) -> Done:
    """The result of a record. Raises ValueError for anything else."""
    if not isinstance(record, list) or len(record) != 5:
        raise ValueError("no result")
    decision, target, status, detail, changed = record
    return Done(text_of(decision), text_of(target), Status(text_of(status)), text_of(detail), whole_of(changed))


def note_of(record: object) -> Note:
    """The note of a record. Raises ValueError for anything else."""
    match record:
        case [str() as text, bool() as lost]:
            return Note(text, lost)
    raise ValueError("no note")


def status_of(number: object, status: object) -> tuple[int, EntryStatus]:
    """What became of an entry. Raises ValueError."""
    return whole_of(number), EntryStatus(text_of(status))


def short_of(decoded: object, most: int) -> str:
    """A text of at most so many characters. Raises ValueError."""
    text = text_of(decoded)
    if len(text) > most:
        raise ValueError(f"a text of {len(text)} characters is too long")
    return text


def name_of(decoded: object) -> str:
    """The id of a decision, or the name of a pool. Raises ValueError for what no terminal should be shown."""
    name = short_of(decoded, LONGEST_NAME)
    if not name.isprintable():
        raise ValueError(f"{name!r} is no name")
    return name


def words_of(decoded: object) -> str:
    """What people read of a decision: its end is cut off, and what no terminal should be shown is replaced. Raises ValueError."""
    return "".join(each if each.isprintable() else "?" for each in text_of(decoded)[:LONGEST_NAME])


def size_of(decoded: object) -> int:
    """A size of a pool. Raises ValueError."""
    size = whole_of(decoded)
    if not 0 <= size < LARGEST_POOL:
        raise ValueError(f"{size} is no size of a pool")
    return size


def process_of(pid: object, start_ticks: object) -> ProcId:
    """A process. Raises ValueError."""
    process = ProcId(whole_of(pid), whole_of(start_ticks))
    if process.pid <= 0:  # to the kernel 0 is the caller
        raise ValueError(f"{process.pid} is no pid")
    return process


def list_of(argument: object, most: int) -> Sequence[object]:
    """A list of at most so many. Raises ValueError."""
    if not isinstance(argument, list) or len(argument) > most:
        raise ValueError(f"no list of at most {most}")
    return argument
