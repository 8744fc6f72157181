"""Target: what brains ask of their hands. The server of the hands is real, and so is their ledger; the kernel is the fake one.

A case is lines: requests after a hello, or bytes in place of frames. Whatever they are: no value beyond the limits is written, none
without an entry, none of a process that is never touched; and when the connection ends, every value is as it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from nicety.models.identity import ProcId
from nicety.scheduler.hands import serve
from nicety.scheduler.hands.faults import Trouble
from nicety.scheduler.hands.fences import parts_of
from nicety.scheduler.hands.kernel import Who
from nicety.scheduler.hands.limits import Bounds
from nicety.scheduler.hands.own import OwnHands
from nicety.scheduler.hands.places import Control, FencePlace, Knob, PoolPlace, Value, process_of
from nicety.scheduler.hands.settings import HandsSettings
from nicety.scheduler.hands.wire import LONGEST_REQUEST, VERSION, Channel, GoneError, pair
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.kernel import FakeKernel

from .target import BrokenError, Case, Target

RAW = b"\xff"
"""First byte of a case that is not framed."""

_QUIET = mock.patch.multiple(serve, hurry=lambda: None, calm_down=lambda: None, say=lambda *_: None, AGAIN=0.0)


class NoGuards:
    """Stands for the sentries."""

    pid: int | None = None
    trouble = ""

    def keep(self, now: int) -> None:
        """There are none."""

    def dismiss(self) -> None:
        """There are none."""


class Watched(FakeKernel):
    """A kernel that breaks when the hands do what they must not. `hands`: whose entries count."""

    def __init__(self) -> None:
        super().__init__()
        self.hands: OwnHands | None = None
        self.plain, self.pinned, self.lowered, self.idle = (self.start() for _ in range(4))
        self.spawn(self.plain.pid)
        self.processes[self.pinned.pid].leader.affinity = (0, 1)
        self.processes[self.lowered.pid].leader.nice = 5
        self.processes[self.idle.pid].leader.policy = 5
        self.shell = self.start()  # with a server in its session, and below it
        self.named = self.fork(self.shell.pid)
        self.setuid, self.thread, self.brain = (self.start() for _ in range(3))
        ordinary = self.processes[self.plain.pid].who
        self.processes[self.named.pid].who = ordinary._replace(program="sshd")
        self.processes[self.setuid.pid].who = ordinary._replace(rights=0)
        self.processes[self.thread.pid].who = Who("kworker/0:1", 0, 0, kernel=True)
        self.cgroups = {(Control.CPU_SHARES, path): 1024 for path in ("/a", "/a/b", "/kept")}
        self.members = {"/a": (self.plain,), "/kept": (self.plain, self.named)}
        self.never = {each.pid for each in (self.own, self.named, self.setuid, self.thread, self.brain)}
        self.before = self.values()

    def values(self) -> dict[str, Any]:
        """All values."""
        threads = {
            str(thread.id): (thread.nice, thread.policy, thread.affinity, thread.slice, process.fence)
            for process in self.processes.values()
            for thread in process.threads.values()
        }
        cgroups = {f"{control} {path}": value for (control, path), value in self.cgroups.items() if value or control != "cpu.idle"}
        return {**threads, **self.autogroups, **cgroups, "fences": any(self.fences.values())}

    def write(self, knob: Knob, expected: Value, value: Value) -> Trouble | None:
        """Compare, set, and break if that must not be."""
        trouble = super().write(knob, expected, value)
        if trouble is None:
            assert self.hands is not None
            chain = self.hands.book.chain(knob)
            if chain is None or value not in {chain[-1].original, *(entry.new for entry in chain)}:
                raise BrokenError(f"{knob} became {value!r} without an entry")
            self._judge(knob, chain[-1].original, value)
        return trouble

    def _judge(self, knob: Knob, first: Value, value: Value) -> None:
        process = process_of(knob.on)
        taken = {process.pid} if process is not None else {each.pid for each in self.members.get(_path(knob), ())}
        if knob.control is Control.AUTOGROUP and process is not None:
            session = self.processes[process.pid].session
            taken = {each.id.pid for each in self.processes.values() if each.session == session}
        if isinstance(knob.on, FencePlace):
            taken = {each.id.pid for each in self._family(knob.on.process)}
        if taken & self.never:
            raise BrokenError(f"{knob} is never touched")
        match knob.control, first, value:
            case Control.NICE | Control.AUTOGROUP, int(), int():
                good = first <= value <= 19
            case Control.POLICY, int(), int():
                good = value in (0, 3, 5) and value >= first
            case Control.AFFINITY, tuple(), tuple():
                good = bool(value) and set(value) <= set(first)
            case Control.CPU_SHARES, int(), int():
                good = 2 <= value <= first
            case Control.CPU_IDLE, int(), int():
                good = value in (first, 1)
            case Control.SLICE, int(), int():
                good = 0 <= value <= 100_000_000
            case Control.FENCE, int(), int():
                assert isinstance(knob.on, FencePlace)
                cpu, memory, *_ = map(int, parts_of(knob.on.key)[0].files.get("limits", "0 0").split())
                good = value in (0, 1) and (cpu == 0 or cpu >= 10) and (memory == 0 or memory >= 16 << 20)
            case _:
                good = False
        if not good:
            raise BrokenError(f"{knob} became {value!r}, and was {first!r} at first")


def _path(knob: Knob) -> str:
    return getattr(knob.on, "path", "")


class Hands:
    """Hands in this process, and the socket to them."""

    def __init__(self, folder: Path) -> None:
        self.kernel, self.folder = Watched(), folder
        self.own = OwnHands(folder, self.kernel, FakeClock(), Bounds())
        self.kernel.hands = self.own
        self.brain, theirs = pair()
        self.brain.setblocking(False)
        self._channel = Channel(theirs, LONGEST_REQUEST, 0)
        self._server = serve.Server(self._channel, self.own, NoGuards(), HandsSettings())
        self.own.spare([self.kernel.brain.pid])

    def ask(self, text: bytes) -> Any:
        """The reply to one request. Raises GoneError if the hands end for it."""
        self.brain.sendall(len(text).to_bytes(4, "big") + text)
        self._server.step()
        said = bytearray()
        while not said or len(said) < 4 + int.from_bytes(said[:4], "big"):
            said += self.brain.recv(1 << 20)
        reply = json.loads(said[4:])
        if reply[0] not in ("ok", "refused", "error"):
            raise BrokenError(f"no reply: {reply}")
        return reply

    def close(self) -> None:
        """Close both ends and the ledger. Idempotent."""
        self.brain.close()
        self._channel.close()
        self.own.close()

    def end(self) -> None:
        """The brain dies: everything must be as it was."""
        self.brain.close()
        self._server.run()
        found = {key: (value, now) for key, value in self.kernel.values().items() if (now := self.kernel.before.get(key)) != value}
        if found:
            raise BrokenError(f"not as before: {found}")
        with closing(OwnHands(self.folder, self.kernel, FakeClock())) as again:
            notes = again.open()
            left = [entry for entry in again.book.outstanding() if not isinstance(entry.knob.on, PoolPlace)]
        if left or notes:
            raise BrokenError(f"the ledger has {left}, and says {notes}")


def attack(folder: Path, requests: Iterable[bytes], raw: bytes = b"") -> list[Any]:
    """The replies to these requests after a hello, as far as the hands go on. `raw` follows them without a frame."""
    replies: list[Any] = []
    with _QUIET, closing(Hands(folder)) as hands:
        try:
            replies.extend(map(hands.ask, (_text("hello", VERSION), _text("open"), *requests)))
            if raw:
                hands.brain.send(raw)
        except GoneError:
            pass
        hands.end()
    return replies


def _text(operation: str, *arguments: object) -> bytes:
    return json.dumps([operation, arguments]).encode()


def order(on: ProcId | str, control: str, value: object, *more: object) -> list[object]:
    """An order on the wire."""
    place = [None, None, on] if isinstance(on, str) else [*on, ""]
    return ["s-0.1", "target", control, *place, value, *(more or (None, None))]


def seeds() -> Sequence[bytes]:
    """Valid requests, alone and after each other."""
    known = Watched()
    plain, pinned, server = known.plain, known.pinned, known.named
    orders = (
        order(plain, "nice", 10),
        order(plain, "nice", None),
        order(plain, "affinity", [1, 2], [0, 1, 2, 3], "app"),
        order(pinned, "affinity", [0]),
        order(plain, "policy", 3),
        order(plain, "slice", 5_000_000),
        order(plain, "autogroup", 15),
        order(plain, "fence", [500, 1 << 26, 8, 0]),
        order(known.shell, "fence", [0, 0, 0, 1]),
        order("/a", "cpu.shares", 10),
        order("/a/b", "cpu.idle", 1),
        order(server, "nice", 19),
        order(known.brain, "nice", 19),
        order("/kept", "cpu.shares", 2),
    )
    place = ["pool.size", *plain, "web"]
    others = (
        _text("put back", [["nice", *plain, ""], ["cpu.shares", None, None, "/a"]]),
        _text("undo", [["nice", *plain, ""]]),
        _text("sweep"),
        _text("resize", "s-0.2", "web", place, 2, 2, 5),
        _text("settle", [[1, "done"], [2, "undone"]]),
        _text("forbidden", "nice"),
        _text("own nice", -5, True),
        _text("recover"),
        _text("hello", VERSION),
        _text("farewell"),
    )
    single = [_text("change", [each]) for each in orders]
    together = [_text("change", list(orders)), b"\n".join((_text("change", list(orders)), *others[:5]))]
    raw = [RAW, RAW + b"\0\0\0\2[]", RAW + b"\0\0\0", RAW + b"\xff\xff\xff\xff", RAW + b"\0\0\0\1[\0\0\0\4null"]
    return [*single, *others, *together, *raw, b"[" * 3000, b'["undo",[[]]]\n' * 20]


def prepare(place: Path) -> Case:
    """A case is lines, or bytes after `RAW`."""
    folder, known = place / "state", Watched()
    change = _text("change", [order(known.plain, "nice", 10), order("/a", "cpu.shares", 10)])

    def run(case: bytes) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(0o700)
        raw = case[:1] == RAW
        attack(folder, [change] if raw else case.split(b"\n"), case[1:] if raw else b"")

    return run


_WORDS = (b'"change"', b'"put back"', b'"undo"', b'"resize"', b'"settle"', b'"recover"', b'"farewell"', b'"own nice"', b'"nice"')
_MORE = (
    b'"affinity"',
    b'"policy"',
    b'"autogroup"',
    b'"fence"',
    b'"cpu.shares"',
    b'"cpu.idle"',
    b'"slice"',
    b'"pool.size"',
    b"null",
)
_VALUES = (
    b"true",
    b"NaN",
    b"-20",
    b"1e999",
    b'"/"',
    b'"/a/."',
    b'"/../a"',
    b'"\\ud800"',
    b'"\\u0000"',
    b"99999999999999999999",
    b"\n",
)

PROTOCOL = Target("protocol", seeds, prepare, (*_WORDS, *_MORE, *_VALUES))
