"""The hands in this process and the hands at the other end of a socket do the same, and their books say the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.act.hands_apart import HandsApart
from nicety.scheduler.hands import serve
from nicety.scheduler.hands.changes import EntryStatus
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.kernel import Who
from nicety.scheduler.hands.ledger import Ledger, LedgerError
from nicety.scheduler.hands.limits import Bounds
from nicety.scheduler.hands.looks import Order
from nicety.scheduler.hands.own import OwnHands
from nicety.scheduler.hands.places import Cgroup, Control, PoolPlace, Subject, Value
from nicety.scheduler.hands.serve import Server
from nicety.scheduler.hands.settings import HandsSettings
from nicety.scheduler.hands.wire import LONGEST_REQUEST, Channel, GoneError, RefusedError, pair
from nicety.scheduler.ports import Hands
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.kernel import FakeKernel


class NoSentries:
    """Stands for the sentries of the hands."""

    pid: int | None = 4711
    trouble = ""

    def __init__(self) -> None:
        self.kept = self.dismissed = 0

    def keep(self, now: int) -> None:
        self.kept += 1

    def dismiss(self) -> None:
        self.dismissed += 1


class World:
    """A kernel, its hands, and a process to be changed."""

    def __init__(self, apart: bool, folder: Path, settings: HandsSettings | None = None) -> None:
        self.folder = folder
        self.kernel, self.clock = FakeKernel(), FakeClock()
        self.settings = settings or HandsSettings()
        self.sentries = NoSentries()
        self.server: threading.Thread | None = None
        self.own = OwnHands(folder, self.kernel, self.clock, self.settings.bounds)
        self.hands: Hands = self.served() if apart else self.own
        self.count = 0

    def served(self) -> HandsApart:
        ours, theirs = pair()
        server = Server(Channel(theirs, LONGEST_REQUEST), self.own, self.sentries, self.settings)
        self.server = threading.Thread(target=server.run)
        self.server.start()
        return HandsApart(Channel(ours))

    def order(self, control: Control, on: ProcId | Cgroup, value: Value | None, program: str | None = None) -> Order:
        self.count += 1
        return Order(f"s-0.{self.count}", "target", control, on, value, None, program)

    def nice(self, process: ProcId) -> Value:
        now = self.kernel.read(self.kernel.knob(Control.NICE, process.pid))
        assert isinstance(now, int)
        return now

    def close(self) -> None:
        self.hands.close()
        if self.server is not None:
            self.server.join(10)
            assert not self.server.is_alive()


Make = Callable[..., World]


@pytest.fixture(params=["own", "apart"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    worlds: list[World] = []

    def made(settings: HandsSettings | None = None) -> World:
        worlds.append(World(request.param == "apart", tmp_path, settings))
        return worlds[-1]

    yield made
    for world in worlds:
        world.close()


def test_a_change_and_its_way_back(make: Make) -> None:
    world = make()
    assert not world.hands.is_open
    world.hands.open()
    first, second = world.kernel.start(), world.kernel.start()
    world.kernel.spawn(first.pid)
    orders = [
        world.order(Control.NICE, first, 10),
        world.order(Control.AUTOGROUP, second, 15),
        world.order(Control.NICE, second, 0),
    ]
    done = world.hands.change(orders)
    assert [(each.decision, each.target, each.status, each.changed) for each in done] == [
        ("s-0.1", "target", Status.APPLIED, 2),
        ("s-0.2", "target", Status.APPLIED, 1),
        ("s-0.3", "target", Status.UNCHANGED, 0),
    ]
    assert done[0].detail == f"nice of pid {first.pid}: 0 -> 10"
    assert [entry.new for entry in world.hands.book.outstanding()] == [10, 10, 15]
    assert world.hands.book.outstanding() == world.own.book.outstanding()
    (back,) = world.hands.change([world.order(Control.NICE, first, None)])
    assert (back.status, back.changed, world.nice(first)) == (Status.APPLIED, 2, 0)
    assert [entry.new for entry in world.hands.book.outstanding()] == [15]
    (undone,) = world.hands.undo(())
    assert (undone.decision, undone.status) == ("s-0.2", Status.APPLIED)
    assert world.hands.book.outstanding() == ()


def test_some_of_it_is_put_back_at_once_and_some_is_kept_by_an_undo(make: Make) -> None:
    world = make()
    world.hands.open()
    kept, relieved, undone = (world.kernel.start() for _ in range(3))
    world.hands.change([world.order(Control.NICE, each, 19) for each in (kept, relieved, undone)])
    subject = Subject(Control.NICE, relieved)
    done = world.hands.put_back([subject, Subject(Control.NICE, world.kernel.start())])
    assert [(each, it.decision, it.status) for each, it in done.items()] == [(subject, "s-0.2", Status.APPLIED)]
    assert [it.decision for it in world.hands.undo([Subject(Control.NICE, kept)])] == ["s-0.3"]
    assert [world.nice(each) for each in (kept, relieved, undone)] == [19, 0, 0]
    assert world.hands.book.subjects() == (Subject(Control.NICE, kept),)


def test_what_somebody_else_changed_is_found_and_stays_theirs(make: Make) -> None:
    world = make()
    world.hands.open()
    process = world.kernel.start()
    world.hands.change([world.order(Control.NICE, process, 19)])
    knob = world.kernel.knob(Control.NICE, process.pid)
    world.kernel.poke(knob, 3)
    (found,) = world.hands.sweep()
    assert (found.status, "from 19 to 3" in found.detail) == (Status.FOREIGN, True)
    assert world.hands.book.is_foreign(knob)
    assert world.hands.change([world.order(Control.NICE, process, 10)])[0].status is Status.FOREIGN


def test_what_a_dead_daemon_left_is_undone_before_anything_else(make: Make) -> None:
    world = make()
    dead = OwnHands(world.folder, world.kernel, world.clock)
    dead.open()
    process = world.kernel.start()
    dead.change([world.order(Control.NICE, process, 19)])
    pool = PoolPlace("web", world.kernel.start())
    dead.resize("s-0.9", "web", pool, 2, 2, 5)
    dead.close()
    notes, done = world.hands.recover()
    assert notes == ()
    assert [(it.decision, it.status) for it in done] == [("s-0.1", Status.APPLIED)]
    assert [entry.knob.on for entry in world.hands.book.outstanding()] == [pool], "adapters put sizes back"


def test_sizes_of_pools_are_recorded_and_only_those_can_be_settled(make: Make) -> None:
    world = make()
    world.hands.open()
    process, master = world.kernel.start(), world.kernel.start()
    world.hands.change([world.order(Control.NICE, process, 19)])
    number = world.hands.resize("s-0.9", "web", PoolPlace("web", master), 2, 2, 5)
    (nice, size) = world.hands.book.outstanding()
    assert (size.id, size.original, size.new, size.status) == (number, 2, 5, EntryStatus.INTENT)
    world.hands.settle({nice.id: EntryStatus.UNDONE, number: EntryStatus.DONE})
    assert [entry.status for entry in world.hands.book.outstanding()] == [EntryStatus.DONE] * 2
    world.hands.settle({number: EntryStatus.INTENT})
    world.hands.settle({number: EntryStatus.UNDONE})
    assert [entry.id for entry in world.hands.book.outstanding()] == [nice.id]


def test_a_ledger_that_cannot_be_written_is_said_and_nothing_is_changed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make()
    world.hands.open()

    def full(self: Ledger) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ledger, "_flush", full)
    process = world.kernel.start()
    (done,) = world.hands.change([world.order(Control.NICE, process, 19)])
    assert (done.status, world.nice(process)) == (Status.BLOCKED, 0)
    assert "No space left" in world.hands.trouble
    with pytest.raises(LedgerError, match="No space left"):
        world.hands.resize("s-0.9", "web", PoolPlace("web", process), 2, 2, 5)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("control", "value", "why"),
    [
        (Control.NICE, -5, "never set to -5"),
        (Control.NICE, 3, "would give it more than the 5 that it had"),
        (Control.POLICY, 1, "never set to 1"),
        (Control.AUTOGROUP, 20, "never set to 20"),
        (Control.CPU_IDLE, 2, "never set to 2"),
        (Control.AFFINITY, (), "no list of CPUs"),
        (Control.FENCE, (1, 0, 0, 0), "leaves at least"),
    ],
)
def test_a_value_beyond_the_limits_is_refused(make: Make, control: Control, value: Value, why: str) -> None:
    world = make()
    world.hands.open()
    process = world.kernel.start()
    world.kernel.poke(world.kernel.knob(Control.NICE, process.pid), 5)
    on = Cgroup("/a") if control is Control.CPU_IDLE else process
    (done,) = world.hands.change([world.order(control, on, value)])
    assert (done.status, world.hands.book.outstanding()) == (Status.REFUSED, ())
    assert why in done.detail


def test_what_is_never_touched(make: Make) -> None:
    world = make(HandsSettings(Bounds(("sshd*",), (1000,))))
    world.hands.open()
    kernel = world.kernel
    thread, server, setuid, other, session = (kernel.start() for _ in range(5))
    member = kernel.start(session.pid, session=False)
    kernel.processes[thread.pid].who = kernel.processes[thread.pid].who._replace(kernel=True)
    kernel.processes[server.pid].who = kernel.processes[server.pid].who._replace(program="sshd-session")
    kernel.processes[setuid.pid].who = kernel.processes[setuid.pid].who._replace(rights=0)
    kernel.processes[other.pid].who = kernel.processes[other.pid].who._replace(user=0, rights=0)
    kernel.processes[member.pid].who = kernel.processes[member.pid].who._replace(program="sshd")
    kernel.cgroups[Control.CPU_WEIGHT, "/a"] = 100
    kernel.members["/a"] = (member,)
    orders = [world.order(Control.NICE, each, 10) for each in (kernel.own, thread, server, setuid, other)]
    orders += [world.order(Control.AUTOGROUP, session, 10), world.order(Control.CPU_WEIGHT, Cgroup("/a"), 10)]
    orders += [world.order(Control.CPU_WEIGHT, Cgroup(path), 10) for path in ("/", "//", "")]
    done = world.hands.change(orders)
    assert [it.status for it in done] == [Status.REFUSED] * 10
    assert [it.detail.split(": ")[-1] for it in done[:5]] == [
        "it is the machine's or nicety's own",
        "it is a thread of the kernel",
        "guard.protect names 'sshd-session'",
        "it is a set-uid program",
        "guard.users does not name user 0",
    ]
    assert kernel.writes == []


def test_a_process_that_became_another_program_is_left_for_now(make: Make) -> None:
    world = make()
    world.hands.open()
    process = world.kernel.start()
    later, done = (world.hands.change([world.order(Control.NICE, process, 10, name)])[0] for name in ("make", "app"))
    assert (later.status, done.status, world.nice(process)) == (Status.LATER, Status.APPLIED, 10)
    assert later.detail == f"pid {process.pid} has become 'app' since this was decided about 'make'"


def test_a_process_that_becomes_another_program_between_the_intent_and_the_write_is_left(make: Make) -> None:
    world = make()
    world.hands.open()
    process = world.kernel.start()
    seen, who = [0], world.kernel.who

    def becoming(process: ProcId) -> Who | Trouble:
        seen[0] += 1
        found = who(process)
        return found if seen[0] < 3 or isinstance(found, Trouble) else found._replace(program="passwd", rights=0)

    world.kernel.who = becoming  # type: ignore[method-assign]
    (done,) = world.hands.change([world.order(Control.NICE, process, 10, "app")])
    assert (done.status, world.nice(process), world.kernel.writes) == (Status.REFUSED, 0, [])
    assert world.hands.book.outstanding() == ()


def test_more_than_a_minute_s_values_must_wait(make: Make) -> None:
    world = make(HandsSettings(Bounds(values_per_minute=3)))
    world.hands.open()
    process = world.kernel.start()
    world.kernel.spawn(process.pid)
    assert [world.hands.change([world.order(Control.NICE, process, nice)])[0].status for nice in (5, 6)] == ["applied", "later"]
    world.clock.advance(60 * 10**9)
    assert world.hands.change([world.order(Control.NICE, process, 7)])[0].status is Status.APPLIED
    orders = [world.order(Control.SLICE, process, nice * 100_000) for nice in (8, 9) * 20]
    done = [world.hands.change([order])[0] for order in orders]
    assert (done[-1].status, "30 times" in done[-1].detail) == (Status.LATER, True)


def test_a_brain_that_ends_without_farewell_leaves_nothing(tmp_path: Path) -> None:
    world = World(apart=True, folder=tmp_path)
    world.hands.open()
    process = world.kernel.start()
    world.hands.change([world.order(Control.NICE, process, 10)])
    assert isinstance(world.hands, HandsApart)
    world.hands._channel.close()
    assert world.server is not None
    world.server.join(10)
    assert (world.nice(process), world.sentries.dismissed) == (0, 1)
    with pytest.raises(GoneError):
        world.hands.sweep()
    assert world.hands.gone


@pytest.mark.parametrize(("undo", "left"), [(True, 0), (False, 10)])
def test_a_farewell_undoes_unless_the_configuration_says_that_changes_stay(tmp_path: Path, undo: bool, left: int) -> None:
    world = World(apart=True, folder=tmp_path, settings=HandsSettings(undo_on_exit=undo))
    world.hands.open()
    process = world.kernel.start()
    world.hands.change([world.order(Control.NICE, process, 10)])
    world.close()
    assert world.nice(process) == left
    assert bool(world.sentries.kept) is undo


def test_what_cannot_be_put_back_at_a_farewell_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "AGAIN", 0.0)
    world = World(apart=True, folder=tmp_path)
    world.hands.open()
    process = world.kernel.start()
    world.hands.change([world.order(Control.NICE, process, 10)])
    read, busy = world.kernel.read, [Trouble(Status.LATER, "busy")]
    world.kernel.read = lambda knob: busy.pop() if busy else read(knob)  # type: ignore[method-assign]
    world.close()
    assert (busy, world.nice(process)) == ([], 0)


@pytest.mark.parametrize(
    "request_",
    [
        ["change", [[["s", "t", "nice", 0, 0, "", 10, None, None]]]],
        ["change", [[["s", "t", "pool.size", 5, 5, "", 10, None, None]]]],
        ["change", [[["s", "t", "cpu.weight", 5, 5, "", 10, None, None]]]],
        ["change", [[["s", "t", "nice", None, None, "/a", 10, None, None]]]],
        ["change", [[["s", "t", "nice", True, 5, "", 10, None, None]]]],
        ["change", ["all"]],
        ["change", []],
        ["put back", [[["nice", 1, 1]]]],
        ["undo", [{"all": True}]],
        ["resize", ["s", "t", ["nice", 5, 5, ""], 1, 1, 2]],
        ["resize", ["s", "t", ["pool.size", 5, 5, "web"], -1, 1, 2]],
        ["settle", [[[1, "open"]]]],
        ["settle", [[["1", "done"]]]],
        ["forbidden", [3]],
        ["_undo", []],
        ["__class__", []],
        "undo",
        {},
        [],
        [["undo"], []],
    ],
    ids=repr,
)
def test_what_is_no_request_is_refused_and_changes_nothing(tmp_path: Path, request_: object) -> None:
    world = World(apart=True, folder=tmp_path)
    world.hands.open()
    process = world.kernel.start()
    world.hands.change([world.order(Control.NICE, process, 10)])
    assert isinstance(world.hands, HandsApart)
    world.hands._channel.send(request_)
    reply, _ = world.hands._channel.receive()
    assert isinstance(reply, list)
    assert reply[0] == "refused"
    assert (world.nice(process), len(world.hands.book.outstanding())) == (10, 1)
    with pytest.raises(RefusedError):
        world.hands.ask("hello", 99)
    world.close()
