"""The protocol of ledger and undo: the steps and properties of tests/spin/ledger.pml, over the real code.

The kernel is the fake one, the ledger a real file. Other processes move, and faults come, before any call of the kernel's port and
at any system call of the ledger. A kill keeps the file as it is at that moment, and a new process opens a copy of it.
docs/protocol.md says what each property means. `MUTANTS` are faults of the code, with the properties that catch them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from nicety.models.identity import ProcId
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.decision import Action, Decision, Restore, Set, Why
from nicety.scheduler.hands import closing, heirs, ledger, restoring
from nicety.scheduler.hands.changes import OPEN, Chain, Entry, EntryStatus
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.kernel import Kin, Reach, Scan
from nicety.scheduler.hands.ledger import NAME, Ledger
from nicety.scheduler.hands.pids import Pids
from nicety.scheduler.hands.places import Control, Knob, ThreadId, ThreadPlace, Value
from nicety.scheduler.places import ProcessPlace
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.failing import FailingCalls
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.testing.kernel import FakeKernel, FakeProcess, FakeThread
from nicety.scheduler.testing.ledger_file import rows
from nicety.scheduler.testing.locks import FakeLocks

OURS, THEIRS = (5, 10), (0, 2)
"""Values that nicety sets, and that somebody else sets: 0 is what every process begins with."""

MOST_CALLS = 3000
"""Calls of the kernel's port after which an undo counts as endless: the longest seen has some hundred."""

MOST_PROCESSES = 4
"""Processes beside init (chosen: a parent, a child, a grandchild and somebody else's)."""

UNKNOWN = Trouble(Status.BLOCKED, "Too many open files")
FAILING = FailingCalls()
Result = TypeVar("Result")


@pytest.fixture(scope="module", autouse=True)
def _calls_can_fail() -> Iterator[None]:
    with FAILING:
        yield


class Killed(BaseException):
    """kill -9"""


class Move(NamedTuple):
    """What happens before a call of the kernel's port."""

    call: int  # counted from the start of what nicety does
    kind: str
    which: int  # process, modulo their number
    value: int


MOVES = st.lists(
    st.builds(
        Move,
        st.integers(1, 12),
        st.sampled_from(["foreign", "fork", "exit", "reuse", "kill", "unknown"]),
        st.integers(0, MOST_PROCESSES),
        st.sampled_from((*THEIRS, *OURS)),
    ),
    max_size=3,
)
DISK = st.one_of(st.none(), st.integers(1, 20))
"""Which system call of the ledger finds the disk full."""


class Interrupted(FakeKernel):
    """A kernel that lets others act first. `before`: called before each call of the port; a trouble is the call's result.
    `overwrite` and `written`: called before and after nicety sets a value."""

    def __init__(self) -> None:
        self.before: Callable[[], Trouble | None] = lambda: None
        self.overwrite: Callable[[Knob, Value], None] = lambda _knob, _value: None
        self.written: Callable[[], object] = lambda: None
        self._within = False
        super().__init__()

    def read(self, knob: Knob) -> Value | Trouble:
        return self._step(lambda: FakeKernel.read(self, knob), lambda trouble: trouble)

    def write(self, knob: Knob, expected: Value, value: Value) -> Trouble | None:
        """Like the real one, checks the thread again after the value was set: others may have moved meanwhile."""
        trouble = self._step(lambda: FakeKernel.write(self, knob, expected, value), lambda trouble: trouble)
        if trouble is None:
            self.written()
            assert isinstance(knob.on, ThreadPlace)
            found = self._find(knob.on)
            trouble = found if isinstance(found, Trouble) else None
        return trouble

    def kin_of(self, process: ProcId) -> Kin | Trouble:
        return self._step(lambda: FakeKernel.kin_of(self, process), lambda trouble: trouble)

    def threads(self, process: ProcId) -> tuple[ThreadId, ...] | Trouble:
        return self._step(lambda: FakeKernel.threads(self, process), lambda trouble: trouble)

    def kin(self, known: Pids | None = None, reach: Reach | None = None) -> Scan:
        return self._step(lambda: FakeKernel.kin(self, known, reach), lambda trouble: Scan((), trouble))

    def _step(self, call: Callable[[], Result], failed: Callable[[Trouble], Result]) -> Result:
        if self._within:  # the fake calls itself
            return call()
        trouble = self.before()
        if trouble is not None:
            return failed(trouble)
        self._within = True
        try:
            return call()
        finally:
            self._within = False

    def _store(self, knob: Knob, value: Value) -> None:
        if self._within:
            self.overwrite(knob, value)
        super()._store(knob, value)


class Protocol(RuleBasedStateMachine):
    """`natural` is what each value would be without us. `theirs` are values that somebody else set over ours, with the value
    before ours. `strangers` are processes that got the pid of one that had ended."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.scratch = tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)
        self.lives = self.calls = self.count = 0
        self.kernel, self.clock = Interrupted(), FakeClock()
        self.kernel.before, self.kernel.overwrite, self.kernel.written = self.before, self.overwrite, self.before
        self.natural: dict[ProcId, int] = {}
        self.theirs: dict[ProcId, int] = {}
        self.strangers: set[ProcId] = set()
        self.parents: dict[ProcId, ProcId] = {}
        self.moves: list[Move] = []
        self.undoing = False
        self.folder = Path(self.scratch.name) / "0"
        self.folder.mkdir(mode=0o700)
        self.start()

    def start(self) -> None:
        """A nicety begins with what is on the disk."""
        self.ledger = Ledger(self.folder / NAME, self.kernel.boot_id())
        self.actuator = Acting(hands_with(self.ledger, self.kernel, self.clock), self.kernel, FakeLocks(), {}, {}, self.clock)
        self.seen: set[int] = set()  # ids that this life has had in memory

    def teardown(self) -> None:
        try:
            self.put_back_all(certain=True)
        finally:
            self.ledger.close()
            self.scratch.cleanup()

    # --- the world ---------------------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.natural[self.kernel.start()] = 0

    def others(self, *, strangers: bool = True) -> list[FakeProcess]:
        """The processes beside init."""
        return [
            each for pid, each in sorted(self.kernel.processes.items()) if pid != 1 and (strangers or each.id not in self.strangers)
        ]

    def move(self, kind: str, which: int, value: int) -> None:
        """Somebody else does something."""
        processes = self.others(strangers=kind == "foreign")
        if not processes:
            self.natural[self.kernel.start()] = 0
            return
        process = processes[which % len(processes)]
        me = process.id
        match kind:
            case "foreign":
                self.change(process, value if value in THEIRS else THEIRS[-1])
            case "fork" if len(processes) < MOST_PROCESSES:
                self.fork(me)
            case "exit" | "reuse":
                self.kernel.exit(me.pid)
                if kind == "reuse" and self.kernel.is_free(me.pid):
                    stranger = self.kernel.start(pid=me.pid)
                    self.kernel.processes[me.pid].leader.nice = self.natural[stranger] = value
                    self.strangers.add(stranger)

    def fork(self, parent: ProcId) -> None:
        child = self.kernel.fork(parent.pid)
        self.natural[child], self.parents[child] = self.natural[parent], parent

    def change(self, process: FakeProcess, value: int) -> None:
        me, natural = process.id, self.natural[process.id]
        if self.theirs.get(me) == value:
            del self.theirs[me]  # set back by hand: an undo that comes first takes it for restored
        elif process.leader.nice != natural != value and any(row.process == me for row in self.rows()):
            self.theirs[me] = natural
        process.leader.nice = self.natural[me] = value

    # --- what nicety does --------------------------------------------------------------------------------------------------------

    def before(self) -> Trouble | None:
        """Called before each call of the kernel's port."""
        with FAILING.paused():
            self.covered()
            self.calls += 1
            assert not self.undoing or self.calls < MOST_CALLS, "undo_ends: it goes on and on"
            now = [move for move in self.moves if move.call == self.calls]
            for move in now:
                self.move(move.kind, move.which, move.value)
            if any(move.kind == "kill" for move in now):
                raise Killed
            return UNKNOWN if any(move.kind == "unknown" for move in now) else None

    def overwrite(self, knob: Knob, value: Value) -> None:
        """Called before nicety writes: `value` is new."""
        assert isinstance(knob.on, ThreadPlace)
        process = self.kernel.processes[knob.on.process.pid]
        me, now = process.id, process.leader.nice
        assert me not in self.strangers, f"impostor_unchanged: {me} gets {value}"
        assert me not in self.theirs, f"foreign_kept: {me} has {now} from somebody else and gets {value}"
        assert now != value, f"undo_idempotent: {me} has {value} already"
        with FAILING.paused():
            there = self.rows()
        known = value == self.natural[me] or any(row.process == me and row.new == value for row in there)
        assert known, f"intended: {me} gets {value}, the disk has {there}"

    def run(self, work: Callable[[], object], moves: list[Move], disk: int | None, *, undoing: bool = False) -> None:
        """Let nicety do something while others move. If it is killed, another one starts."""
        self.calls, self.moves, self.undoing = 0, moves, undoing
        try:
            with FAILING.failing(disk or 0, errno.ENOSPC):
                work()
        except Killed:
            self.restart()
        self.moves, self.undoing = [], False

    def restart(self) -> None:
        """What a killed process leaves: the files."""
        self.lives += 1
        folder = Path(self.scratch.name) / str(self.lives)
        folder.mkdir(mode=0o700)
        shutil.copy(self.folder / NAME, folder / NAME)
        self.ledger.close()
        self.folder = folder
        self.start()
        self.run(lambda: self.actuator.undo(), [], None, undoing=True)

    @rule(which=st.integers(0, MOST_PROCESSES), value=st.sampled_from((*OURS, *OURS, None)), moves=MOVES, disk=DISK)
    @precondition(lambda self: self.others(strangers=False))
    def apply(self, which: int, value: int | None, moves: list[Move], disk: int | None) -> None:
        processes = self.others(strangers=False)
        on = ProcessPlace(processes[which % len(processes)].id)
        self.count += 1
        action: Action = Restore(Control.NICE, on) if value is None else Set(Control.NICE, on, value)
        decision = Decision(f"s-0.{self.count}", "priority", "target", action, Why("test", "because", {}, (), ()))
        self.run(lambda: self.actuator.apply([decision]), moves, disk)

    @rule(moves=MOVES, disk=DISK)
    def settle(self, moves: list[Move], disk: int | None) -> None:
        def steps() -> None:
            for _ in range(17):  # more than sweep.GONE_EVERY
                self.actuator.settle()

        self.run(steps, moves, disk)

    @rule(moves=MOVES, disk=DISK)
    def undo(self, moves: list[Move], disk: int | None) -> None:
        self.run(lambda: self.actuator.undo(), moves, disk, undoing=True)
        self.put_back_all(certain=False)

    @rule(
        kind=st.sampled_from(["foreign", "foreign", "fork", "fork", "exit", "reuse"]),
        which=st.integers(0, MOST_PROCESSES),
        value=st.sampled_from((0, 2)),
    )
    def somebody_else(self, kind: str, which: int, value: int) -> None:
        self.move(kind, which, value)

    # --- what must hold ----------------------------------------------------------------------------------------------------------

    def rows(self) -> list[Open]:
        """What a process that starts now finds open."""
        return [
            Open(row.id, ProcId(row.pid or 0, row.start_ticks or 0), row.new, row.status)
            for row in rows(self.folder / NAME)
            if row.status in OPEN
        ]

    def lineage(self, process: ProcId) -> Iterator[ProcId]:
        """A process and those that it descends from."""
        while True:
            yield process
            if process not in self.parents:
                return
            process = self.parents[process]

    @invariant()
    def covered(self) -> None:
        changed = [each for each in self.others() if each.leader.nice != self.natural[each.id]]
        there = self.rows() if changed else []
        for process in changed:
            now, natural = process.leader.nice, self.natural[process.id]
            assert process.id not in self.strangers, f"impostor_unchanged: {process.id} has {now} for {natural}"
            own = any(row.process == process.id for row in there)
            inherited = any(row.process in self.lineage(process.id) and row.new == now for row in there)
            assert own or inherited, f"covered: {process.id} has {now} for {natural}, the disk has {there}"

    @invariant()
    def memory_is_disk(self) -> None:
        memory = {entry.id: entry.status for entry in self.ledger.outstanding()}
        self.seen |= set(memory)
        if not self.ledger.trouble:
            disk = {row.id: row.status for row in self.rows()}
            late = {number for number in disk if number not in memory and number in self.seen}
            assert not late, f"memory_is_disk: {late} are open on the disk only"
            assert all(disk.get(number) == status for number, status in memory.items()), f"memory_is_disk: {memory}, {disk}"

    def put_back_all(self, *, certain: bool) -> None:
        """After an undo. `certain`: first undo again, without faults."""
        if certain:
            self.run(lambda: self.actuator.undo(), [], None, undoing=True)
            assert not self.ledger.outstanding(), "undo_ends: it leaves what it can read"
        if self.ledger.outstanding():
            return
        for process in self.others():
            now, natural = process.leader.nice, self.natural[process.id]
            assert now == natural, f"nothing_left: {process.id} has {now} for {natural}"
        writes = len(self.kernel.writes)
        assert self.actuator.undo() == (), "undo_idempotent: it has something to say again"
        assert len(self.kernel.writes) == writes, "undo_idempotent: it writes again"


class Open(NamedTuple):
    """An open change on the disk."""

    id: int
    process: ProcId
    new: object
    status: str


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(
    max_examples=150,
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# --- faults of the code ----------------------------------------------------------------------------------------------------------


def intents_come_late(patch: pytest.MonkeyPatch) -> None:
    intend = Ledger.intend

    def late(self: Ledger, entries: list[Entry]) -> tuple[int, ...]:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Ledger, "_flush", lambda self: None)
            return intend(self, entries)

    patch.setattr(Ledger, "intend", late)


def a_failed_transaction_is_no_error(patch: pytest.MonkeyPatch) -> None:
    flush = Ledger._flush

    def quiet(self: Ledger) -> None:
        with contextlib.suppress(OSError):
            flush(self)

    patch.setattr(Ledger, "_flush", quiet)


def undo_restores_the_value_before_the_last_change(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(restoring, "original", lambda chain: chain[-1].old)


def undo_does_not_compare(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(restoring, "believed", lambda _chain: tuple(range(-20, 20)))


def undo_skips_intents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger, "OPEN", frozenset({EntryStatus.DONE}))


def heirs_are_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(heirs.Family, "heirs", lambda self, process, chain: ())


def heirs_are_not_adopted(patch: pytest.MonkeyPatch) -> None:
    def close(self: closing.Closing, chains: dict[Knob, Chain], status: EntryStatus) -> None:
        self._ledger.settle({entry.id: status for chain in chains.values() for entry in chain})

    patch.setattr(closing.Closing, "close", close)


def what_is_unknown_is_gone(patch: pytest.MonkeyPatch) -> None:
    read = Interrupted.read

    def gone(self: Interrupted, knob: Knob) -> Value | Trouble:
        found = read(self, knob)
        return Trouble(Status.VANISHED, "gone") if isinstance(found, Trouble) else found

    patch.setattr(Interrupted, "read", gone)


def a_pid_is_an_identity(patch: pytest.MonkeyPatch) -> None:
    def find(self: FakeKernel, on: ThreadPlace) -> tuple[FakeProcess, FakeThread] | Trouble:
        process = self.processes.get(on.process.pid)
        return Trouble(Status.VANISHED, "gone") if process is None else (process, process.leader)

    patch.setattr(FakeKernel, "_find", find)


LEFT = ("covered", "nothing_left", "intended")
"""What a value breaks that stays, or that goes back to another one than the original."""

MUTANTS: dict[Callable[[pytest.MonkeyPatch], None], tuple[str, ...]] = {
    intents_come_late: ("intended",),
    a_failed_transaction_is_no_error: ("intended", "memory_is_disk"),
    undo_restores_the_value_before_the_last_change: (*LEFT, "undo_idempotent"),
    undo_does_not_compare: ("foreign_kept", *LEFT),
    undo_skips_intents: (*LEFT, "memory_is_disk"),
    heirs_are_not_looked_for: LEFT,
    heirs_are_not_adopted: LEFT,
    what_is_unknown_is_gone: LEFT,
    a_pid_is_an_identity: ("impostor_unchanged",),
}
"""A fault of the code -> the properties that may catch it: which of them is first depends on the examples."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_fault_of_the_code_breaks_a_property(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError, match=f"^({'|'.join(MUTANTS[mutant])}): "):
        run_state_machine_as_test(
            Protocol,
            settings=settings(
                derandomize=True,
                max_examples=2000,  # each was found in at most 500, with five seeds
                stateful_step_count=20,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )


# --- what was once wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["exit", "foreign", "set back"])
def test_a_child_forked_before_the_value_was_read_back_is_found(then: str) -> None:
    machine = Protocol()
    machine.begin()
    process = machine.others()[0].id
    kind = "exit" if then == "exit" else "foreign"

    def meanwhile() -> None:
        if process not in machine.parents.values():
            machine.fork(process)
            machine.move(kind, 0, 0 if then == "set back" else 2)

    machine.kernel.before, machine.kernel.written = lambda: None, meanwhile
    try:
        machine.apply(0, 10, [], None)
    finally:
        machine.teardown()


def grandchild(then: str) -> None:
    """Somebody else changes a child of ours, which then gets our value again, and has a child. Its parent alone is put back."""
    machine = Protocol()
    machine.begin()
    machine.apply(0, 5, [], None)
    machine.move("fork", 0, 0)
    machine.move("foreign", 1, 2)
    machine.apply(1, 5, [], None)
    machine.fork(machine.others()[1].id)
    try:
        if then == "the child ends":
            machine.move("exit", 1, 0)
        if then == "the parent is changed last":
            machine.apply(0, 10, [], None)
            machine.apply(0, 5, [], None)
            machine.apply(2, 10, [], None)
            machine.apply(2, None, [], None)
        machine.apply(0, None, [], None)
        machine.covered()
    finally:
        machine.teardown()


THEN = pytest.mark.parametrize("then", ["nothing else", "the child ends", "the parent is changed last"])


@THEN
def test_what_a_changed_child_passed_on_goes_back_with_that_child(then: str) -> None:
    grandchild(then)


@THEN
def test_a_value_that_went_back_with_any_ancestor_would_be_wrong(then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heirs, "takewhile", lambda _younger, _leaders: ())
    monkeypatch.setattr(heirs, "_birth", lambda _leader: (0, 0))
    with pytest.raises(AssertionError, match=r"^intended: "):
        grandchild(then)
