"""The board of an executor: a file of shared memory through which a program's executor and nicety see each other.

The program writes all of it except two words, with which nicety requests a size and the replacement of a worker. Both run on one
machine. Must not know pools, policies or the executor, and imports nothing that would make a user's program slow to start.

A board is an array of unsigned 64-bit words in the machine's byte order (little-endian wherever nicety runs; the magic shows it).
Aligned words are stored and loaded whole, so no reader sees half of one. Words are not locked together: sums may be a task apart.

    words 0..   the header, see `Word`
    NAME_AT     8 words: the executor's name, UTF-8, padded with zeros
    STARTS_AT   16 words: how long the last starts of workers took, ns; start number n is at index n % 16
    SLOTS_AT    CAPACITY slots of 6 words, see `Slot`; a slot whose state is FREE is empty
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

MAGIC = int.from_bytes(b"NICETYXB", "little")
VERSION = 1
CAPACITY = 1024
"""Number of slots. Workers beyond it are not shown, and nicety never asks for more. Chosen."""
SUFFIX = ".board"
VALUE_MASK = 0xFFFF_FFFF
"""The lower half of a request: a size or a pid. The upper half is the request's number."""


class Word(IntEnum):
    """Index of each word in the header."""

    MAGIC = 0
    VERSION = 1
    OWNER_PID = 2
    OWNER_START = 3  # start time in clock ticks since boot
    STATE = 4  # of State
    MINIMUM = 5  # nicety may ask for no fewer workers
    MAXIMUM = 6  # and for no more
    TARGET = 7  # the size in force
    OWN_RESIZES = 8  # how often the program itself called resize()
    ASKED = 9  # written by nicety: request number << 32 | size
    ANSWERED = 10  # the last request that was read
    RECYCLE = 11  # written by nicety: request number << 32 | pid of the worker to replace
    QUEUED = 12  # tasks that wait for a worker
    FINISHED = 13  # tasks that were run
    WAIT_NS = 14  # sum over them, from submit to the start of the run
    SERVICE_NS = 15  # sum over them, the run itself
    LOST = 16  # tasks that failed because their worker ended
    RETRIED = 17  # times that a task was run again for that reason
    STARTS = 18  # workers that have come up
    SLOTS = 19  # slots ever used: those beyond are free


NAME_AT = 24
"""Chosen: leaves room for four more words in the header."""
NAME_WORDS = 8
"""Chosen: 64 bytes of the name are shown."""
STARTS_AT = NAME_AT + NAME_WORDS
START_RING = 16
"""Start times that are kept. Chosen: the adapter takes their median."""
SLOTS_AT = STARTS_AT + START_RING
SLOT_WORDS = 6
HEADER_BYTES = SLOTS_AT * 8
BOARD_BYTES = HEADER_BYTES + CAPACITY * SLOT_WORDS * 8


class State(IntEnum):
    """The executor's state."""

    RUNNING = 1
    CLOSING = 2  # shutdown() was called, tasks may still run
    BROKEN = 3  # its initializer failed, or workers cannot be started
    ENDED = 4


class Slot(IntEnum):
    """Index of each word in a slot."""

    PID = 0
    START = 1  # start time in clock ticks since boot
    STATE = 2  # of WorkerState; written last when a worker comes, first when it goes
    BUSY_NS = 3  # sum of the finished runs
    SINCE = 4  # monotonic ns at which the current run began, 0: none
    TASKS = 5  # finished runs


class WorkerState(IntEnum):
    """What a worker does."""

    FREE = 0  # no worker
    STARTING = 1
    IDLE = 2
    BUSY = 3
    DRAINING = 4  # it ends as soon as it has nothing to do


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as the board shows it."""

    pid: int
    start_ticks: int
    doing: WorkerState
    busy_ns: int
    since: int
    tasks: int


@dataclass(frozen=True, slots=True)
class BoardView:
    """A board as it was read."""

    name: str
    owner: tuple[int, int]  # pid, start ticks
    state: State
    minimum: int
    maximum: int
    target: int
    own_resizes: int
    asked: int
    answered: int
    recycle: int
    queued: int
    finished: int
    wait_ns: int
    service_ns: int
    lost: int
    retried: int
    starts_ns: tuple[int, ...]  # the last ones, unordered
    workers: tuple[WorkerView, ...]


def directories(environ: Mapping[str, str], uid: int) -> tuple[Path, ...]:
    """Where this user's executors keep their boards, best first.

    $NICETY_RUN_DIR alone if it is set. Otherwise /run/nicety for root and the user's runtime directory for others, and a directory
    in /tmp for programs started without a runtime directory (by cron, for example).
    """
    named = environ.get("NICETY_RUN_DIR")
    if named:
        return (Path(named),)
    # not $XDG_RUNTIME_DIR for root: sudo may have left another user's
    runtime = Path("/run") if uid == 0 else Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}")
    return runtime / "nicety", Path(f"/tmp/nicety-{uid}")  # noqa: S108 - of mode 0700, and refused if it is not ours


def is_private(path: Path, uid: int) -> bool:
    """Whether this is a real directory of the user that nobody else may write to. Raises OSError if it cannot be read."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o022


def pid_namespace() -> int:
    """The namespace in which our pids are valid: part of a board's file name, because directories may be shared."""
    return Path("/proc/self/ns/pid").stat().st_ino


def start_ticks(pid: int) -> int | None:
    """Start time of a process; None if it is gone. The name in its stat line may hold blanks: count after the last ")"."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = line[line.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


# --- the owner's side ---------------------------------------------------------------------------------------------------------


class Board:
    """The board of an executor of this process. Without a place for its file it still works, but nicety does not see it."""

    def __init__(self, name: str, environ: Mapping[str, str], number: int) -> None:
        """`number` distinguishes the executors of one process. Raises OSError only if there is no memory."""
        self._pid = os.getpid()
        start = start_ticks(self._pid) or 0
        self.path: Path | None = None
        self.reason = ""
        """Why there is no file."""
        memory: mmap.mmap | None = None
        file_name = f"{pid_namespace()}-{self._pid}-{start}-{number}{SUFFIX}"
        for directory in directories(environ, os.geteuid()):
            try:
                memory = self._create(directory, file_name)
                break
            except OSError as error:
                self.reason = f"{directory}: {error.strerror or error}"
        self.words = memoryview(memory or mmap.mmap(-1, BOARD_BYTES)).cast("Q")
        text = name.encode("utf-8", "replace")[: NAME_WORDS * 8]
        for index, word in enumerate(struct.unpack(f"={NAME_WORDS}Q", text.ljust(NAME_WORDS * 8, b"\0"))):
            self.words[NAME_AT + index] = word
        self.words[Word.VERSION] = VERSION
        self.words[Word.OWNER_PID] = self._pid
        self.words[Word.OWNER_START] = start
        self.words[Word.STATE] = State.RUNNING
        self._free: list[int] = []

    def publish(self) -> None:
        """From now on readers accept the board: the magic is written last."""
        self.words[Word.MAGIC] = MAGIC

    def started(self, ns: int) -> None:
        """A worker has come up after `ns`."""
        count = self.words[Word.STARTS]
        self.words[STARTS_AT + count % START_RING] = ns
        self.words[Word.STARTS] = count + 1

    def take_slot(self, pid: int) -> int:
        """A slot for a new worker, as the index of its first word; 0 if all are taken: then the worker is not shown."""
        if self._free:
            slot = self._free.pop()
        else:
            used = self.words[Word.SLOTS]
            if used == CAPACITY:
                return 0
            slot = SLOTS_AT + used * SLOT_WORDS
            self.words[Word.SLOTS] = used + 1
        words = self.words
        words[slot + Slot.PID] = pid
        words[slot + Slot.START] = start_ticks(pid) or 0
        words[slot + Slot.BUSY_NS] = words[slot + Slot.SINCE] = words[slot + Slot.TASKS] = 0
        words[slot + Slot.STATE] = WorkerState.STARTING
        return slot

    def give_slot(self, slot: int) -> None:
        """Free the slot of a worker that has ended."""
        if slot:
            self.words[slot + Slot.STATE] = WorkerState.FREE
            self._free.append(slot)

    def touch(self) -> None:
        """Keep the file from being removed as old: writing to the memory does not change its time."""
        if self.path is not None:
            try:
                os.utime(self.path)
            except OSError:
                pass

    def remove(self) -> None:
        """Remove the file: the executor has ended. BROKEN stays visible. In a forked copy of the owner this does nothing."""
        if os.getpid() != self._pid:
            return
        if self.words[Word.STATE] != State.BROKEN:
            self.words[Word.STATE] = State.ENDED
        if self.path is not None:
            try:
                self.path.unlink()
            except OSError:
                pass
            self.path = None

    def _create(self, directory: Path, file_name: str) -> mmap.mmap:
        """The file, mapped. Raises OSError."""
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            pass
        if not is_private(directory, os.geteuid()):
            raise PermissionError(f"{directory} is not a directory of ours alone: chmod go-w, or remove it")
        _remove_orphans(directory)
        path = directory / file_name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, BOARD_BYTES)  # a full file system fails here, not with SIGBUS at a store
            memory = mmap.mmap(descriptor, BOARD_BYTES)
        finally:
            os.close(descriptor)
        self.path = path
        return memory


def _remove_orphans(directory: Path) -> None:
    """Remove boards whose owner was killed. Boards of other pid namespaces stay: their pids mean nothing here."""
    own = pid_namespace()
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        identity = _identity(path)
        if identity is not None and identity[0] == own and start_ticks(identity[1]) != identity[2]:
            try:
                path.unlink()
            except OSError:
                pass


def _identity(path: Path) -> tuple[int, int, int] | None:
    """(pid namespace, pid, start ticks) from a board's file name."""
    parts = path.name.removesuffix(SUFFIX).split("-")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])


# --- nicety's side ------------------------------------------------------------------------------------------------------------


class BoardFile:
    """Another process's board. It is read and written by system calls, not mapped: its owner may truncate the file at any time,
    which would kill a process that has it mapped."""

    def __init__(self, path: Path, uid: int) -> None:
        """Raises OSError; ValueError with the cause if it is no board of this user."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(self._descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != uid:
                raise ValueError(f"{path} is not a file of uid {uid}")
            self.read()
        except BaseException:
            self.close()
            raise

    def read(self) -> BoardView:
        """The board now. Raises ValueError if it is no board, or of another version."""
        header = self._words(0, SLOTS_AT)
        if header[Word.MAGIC] != MAGIC:
            raise ValueError(f"{self.path} is no executor's board")
        if header[Word.VERSION] != VERSION:
            raise ValueError(
                f"{self.path} is of version {header[Word.VERSION]}, this nicety reads {VERSION}: use the same nicety in both"
            )
        count = min(header[Word.SLOTS], CAPACITY)
        words = self._words(SLOTS_AT, count * SLOT_WORDS)
        workers = []
        for index in range(0, len(words), SLOT_WORDS):
            pid, start, doing, busy_ns, since, tasks = words[index : index + SLOT_WORDS]
            if doing in _WORKING:
                workers.append(WorkerView(pid, start, WorkerState(doing), busy_ns, since, tasks))
        name = struct.pack(f"={NAME_WORDS}Q", *header[NAME_AT : NAME_AT + NAME_WORDS]).rstrip(b"\0")
        state = header[Word.STATE]
        return BoardView(
            name=name.decode("utf-8", "replace"),
            owner=(header[Word.OWNER_PID], header[Word.OWNER_START]),
            state=State(state) if state in _STATES else State.ENDED,
            minimum=header[Word.MINIMUM],
            maximum=header[Word.MAXIMUM],
            target=header[Word.TARGET],
            own_resizes=header[Word.OWN_RESIZES],
            asked=header[Word.ASKED],
            answered=header[Word.ANSWERED],
            recycle=header[Word.RECYCLE],
            queued=header[Word.QUEUED],
            finished=header[Word.FINISHED],
            wait_ns=header[Word.WAIT_NS],
            service_ns=header[Word.SERVICE_NS],
            lost=header[Word.LOST],
            retried=header[Word.RETRIED],
            starts_ns=header[STARTS_AT : STARTS_AT + min(header[Word.STARTS], START_RING)],
            workers=tuple(workers),
        )

    def ask(self, word: Word, value: int) -> int:
        """Write a request into ASKED or RECYCLE and return the word written. Its number is the last request's plus one."""
        assert word in (Word.ASKED, Word.RECYCLE)
        last = self._words(word, 1)[0]
        request = (((last >> 32) + 1) & VALUE_MASK) << 32 | value
        os.pwrite(self._descriptor, request.to_bytes(8, "little"), word * 8)
        return request

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

    def _words(self, first: int, count: int) -> tuple[int, ...]:
        raw = os.pread(self._descriptor, count * 8, first * 8)
        if len(raw) < count * 8:
            raise ValueError(f"{self.path} is too short for an executor's board")
        return struct.unpack(f"={count}Q", raw)


_WORKING = frozenset(doing.value for doing in WorkerState if doing is not WorkerState.FREE)
_STATES = frozenset(State)


def boards(environ: Mapping[str, str], uid: int) -> tuple[list[Path], str]:
    """Boards of this user in our pid namespace, oldest owner first; and why a directory could not be read."""
    found: list[tuple[int, int, str, Path]] = []
    trouble = ""
    own = pid_namespace()
    for directory in directories(environ, uid):
        try:
            if not is_private(directory, uid):
                trouble = f"{directory} is not a directory of uid {uid} alone"
                continue
            paths = list(directory.iterdir())
        except FileNotFoundError:
            continue
        except OSError as error:
            trouble = f"{directory}: {error.strerror}; run nicety as that user or as root"
            continue
        for path in paths:
            identity = _identity(path) if path.name.endswith(SUFFIX) else None
            if identity is not None and identity[0] == own:
                found.append((identity[2], identity[1], path.name, path))
    return [path for _, _, _, path in sorted(found)], trouble
