"""The frame: all that there is to see at a tick, in one small file that every view reads. For views and for programs of others.

The daemon writes a frame a tick into a file on tmpfs, under another name, and renames it. So a reader always has one whole frame
open, needs no lock, and costs the daemon nothing:

    from nicety.scheduler.frame import read_frame

    frame = read_frame("/run/nicety/frame")
    if frame is not None:
        for group in frame.groups:
            print(group.name, group.class_, group.cpu)

The file is a line of ASCII, `nicety frame VERSION BYTES CRC32`, and as many bytes of JSON. A file that is cut short or was changed
is refused. Within a version fields are only added, and a reader leaves out those that it does not know. Rates are over the last
tick, times in seconds, sizes in bytes, CPU and waits in cores. docs/frame.md describes the fields.

Knows the standard library and msgspec, neither numpy nor the daemon.
"""

from __future__ import annotations

import os
import zlib

import msgspec

VERSION = 1
"""Of the fields: another number means that some have another meaning or are gone."""

MAX_BYTES = 1 << 24
"""A file that says it is longer is none of ours. Chosen: a frame with 1,000 groups and 1,000 processes has 600 kB."""

_WORD = b"nicety frame "


class FrameError(Exception):
    """A file is no frame of this version. The message says the cause and what to do next."""


class Part(msgspec.Struct, frozen=True, rename=lambda field: field.rstrip("_")):
    """Base of the parts of a frame."""


class Own(Part, frozen=True):
    """The daemon itself."""

    pid: int
    version: str
    mode: str  # observe, or act if anything is acted on
    scope: str  # what is acted on, in words
    acting_on: list[str]  # things that are acted on: "everything", "policy NAME", or pools and groups by name
    spared: list[str]  # things that are observed although something wider is acted on
    cannot: str  # changes that cannot be made here, and why; "": all can be made
    paused: bool
    session: str
    interval: float  # seconds between ticks
    running: float  # seconds since it started
    ticks: int
    missed: int  # ticks that could not be on time
    cpu: float  # seconds of CPU time used so far, with its hands and eyes
    memory: int  # bytes resident, with its hands and eyes
    budget: float  # share of one CPU that it may use
    reduced: list[str]  # what it does less often to stay within that
    troubles: list[str] = []  # what of its own fails now, such as a store, and why
    lost: int = 0  # ticks that were recorded in no trace or decision log, because that failed


class Machine(Part, frozen=True):
    """The machine as a whole."""

    name: str
    cpus: int
    busy: float  # cores in use
    steal: float  # cores that the hypervisor gave to other guests
    unseen: float  # cores used by processes that nicety cannot see
    memory: int  # bytes
    available: int  # bytes of memory
    pressure: list[float] | None  # share of the tick in which some task waited for cpu, memory, io; None: the kernel has no PSI


class Band(Part, frozen=True):
    """A forecast: what is expected, and what is exceeded in one of twenty cases, at some times from now."""

    seconds: list[float]
    median: list[float]
    high: list[float]
    source: str  # the model, or "baseline ..."


class Delay(Part, frozen=True):
    """For what a group waits for a CPU. Smoothed; the parts add up to `wait`."""

    wait: float
    by: list[tuple[str, float]]  # groups that ran meanwhile, the largest first
    others: float  # further groups
    own: float  # its own threads
    unseen: float  # processes that nicety cannot see, and the kernel
    steal: float  # the hypervisor


class Change(Part, frozen=True):
    """A change in force of one group, however many threads it is."""

    control: str  # nice, autogroup, affinity, slice, ...
    original: str
    now: str
    processes: int
    protects: str  # the group for which it was made; "": none
    decision: str  # id of the first decision
    wall: float  # seconds since 1970 at which it was made


class Group(Part, frozen=True):
    """Processes that belong together."""

    name: str
    class_: str  # interactive, batch or exempt
    given: bool  # the class is configured
    certainty: float | None  # probability of the class, or if exempt of the likelier one; None: nothing is known yet
    leans: str  # the likelier class if exempt, else ""
    processes: int
    cpu: float
    brief: float  # part of `cpu`: children that started and ended between two ticks
    wait: float  # for a CPU
    demand: float  # cores that it would have used alone
    memory: int  # bytes resident
    throttled: float  # share of the tick for which its own quota stopped it
    forecast: Band | None = None  # of its demand
    memory_forecast: Band | None = None
    delay: Delay | None = None  # None: it hardly waits
    changes: list[Change] = []


class Pool(Part, frozen=True):
    """A pool of workers."""

    name: str
    kind: str
    size: int
    wanted: int  # workers that were asked for
    minimum: int
    maximum: int
    busy: float | None  # workers; None: unknown, as in the next two
    queued: float | None  # requests that wait
    load: float | None  # Erlangs: workers that its work would keep busy
    arrivals: float | None  # requests a second; None: not measured, as in the next two
    service: float | None  # seconds of a request, mean, without waiting
    p95: float | None  # likewise, exceeded by one of twenty
    start: float | None  # seconds that a worker takes to start, median
    worker_memory: int  # bytes of the largest worker
    objective: str  # what it is to keep, in words; "": the usual target
    rules: str  # which rules size it, in words
    trouble: str  # why it cannot be resized now; "": it can
    forecast: Band | None = None  # of its load
    changes: list[Change] = []
    aim: str = ""  # the kind of its objective: p95, wait or utilization; "": it has none
    aim_value: float | None = None  # the objective in seconds, or as a share


class Incident(Part, frozen=True):
    """Workers that misbehave."""

    id: str  # of the decision that reported it
    pool: str
    pids: list[int]
    kind: str  # leak, spin, stuck, ...
    wall: float  # seconds since 1970 at which it was reported
    text: str  # a sentence


class Decided(Part, frozen=True):
    """A decision of the last minutes. The same change of many members of a group is one."""

    id: str
    wall: float  # seconds since 1970
    policy: str
    target: str  # the group, pool or worker, in words
    what: str  # what was to be done, in a few words
    text: str  # why, a sentence
    times: int  # members of the group
    status: str  # what became of it: applied, observed, failed, ...; "": not known yet
    effect: str  # helped, no effect, hurt, ...; "": not measured (yet)


class Count(Part, frozen=True):
    """How often something happened since the daemon started."""

    what: str  # decisions, refusals, outcomes or effects
    policy: str
    kind: str  # of a refusal the rule of the guard, of an outcome its status, of an effect its verdict; else ""
    times: int


class Processes(Part, frozen=True):
    """Processes in columns of equal length: those that ran, waited, or take most memory."""

    pid: list[int]
    parent: list[int]
    group: list[str]
    name: list[str]  # the kernel's short name, without control characters
    user: list[int | None]  # uid; None: not known
    state: list[str]  # a letter as in ps(1)
    nice: list[int]
    threads: list[int]
    age: list[float]  # seconds since it started
    cpu: list[float]
    wait: list[float]
    memory: list[int]  # bytes resident
    left_out: int  # processes that are not shown


class Frame(Part, frozen=True):
    """A tick."""

    seq: int  # counts up from 0 in a session
    wall: float  # seconds since 1970
    measured: bool  # False: rates are not known, as at the first tick
    own: Own
    machine: Machine
    groups: list[Group]  # sorted by name
    pools: list[Pool]  # sorted by name
    processes: Processes
    incidents: list[Incident]  # open ones, the oldest first
    decisions: list[Decided]  # the newest first
    counts: list[Count]
    notes: list[str]  # what holds now and should be known


def pack(frame: Frame) -> bytes:
    """The bytes of the file."""
    data = msgspec.json.encode(frame)
    return b"%b%d %d %08x\n%b" % (_WORD, VERSION, len(data), zlib.crc32(data), data)


def unpack(data: bytes) -> Frame:
    """The frame in the bytes of a file. Raises FrameError if they are not one whole frame of this version."""
    line, _, body = data.partition(b"\n")
    words = line.removeprefix(_WORD).split(b" ")
    if not line.startswith(_WORD) or len(words) != 3 or not all(word.isalnum() for word in words):
        raise FrameError("not a frame of nicety; check the path")
    if words[0] != b"%d" % VERSION:
        raise FrameError(f"a frame of version {words[0].decode()}, and this reads {VERSION}; use the nicety that the daemon runs")
    if words[1] != b"%d" % len(body) or words[2] != b"%08x" % zlib.crc32(body):
        raise FrameError("the frame is cut short or damaged; restart the daemon if that lasts")
    try:
        return msgspec.json.decode(body, type=Frame)
    except msgspec.MsgspecError as error:
        raise FrameError(f"the frame cannot be read: {error}; use the nicety that the daemon runs") from None


def read_frame(path: str | os.PathLike[str]) -> Frame | None:
    """The newest frame; None if there is none, because no daemon runs. Raises FrameError as `unpack`, and if the file may not be
    read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is not needed for one call
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FrameError(f"{path}: {error.strerror}; read it as the daemon's own user, or see daemon.control_group") from None
    if len(data) > MAX_BYTES:
        raise FrameError(f"{path} is longer than any frame; check the path")
    return unpack(data)
