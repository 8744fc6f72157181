"""What `ports.Kernel` promises, held by the fake and by the real one."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.fences import Limits, name_for, parts_of
from nicety.scheduler.hands.kernel import Kernel, Reach
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.pids import Pids
from nicety.scheduler.hands.places import AutogroupPlace, Cgroup, Control, FencePlace, Knob, PoolPlace, ThreadId, ThreadPlace, Value
from nicety.scheduler.testing.kernel import FakeKernel
from nicety.scheduler.testing.puppet import Puppet

needs_renice = pytest.mark.skipif(
    bool(LinuxKernel().forbidden(Control.NICE)),
    reason="lowering a nice again needs CAP_SYS_NICE: the real kernel would keep the change",
)


WRITTEN: dict[Control, Value] = {Control.AFFINITY: (0,), Control.SLICE: 100_000}


class World(Protocol):
    kernel: Kernel

    def start(self) -> ProcId: ...
    def fork(self, parent: ProcId, *, orphan: bool = False) -> ProcId: ...
    def thread(self, process: ProcId) -> int: ...
    def end(self, process: ProcId) -> None: ...
    def cgroup(self) -> str: ...
    def blinded(self, process: ProcId) -> AbstractContextManager[object]: ...
    def close(self) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.fake = FakeKernel()
        self.kernel: Kernel = self.fake

    def start(self) -> ProcId:
        return self.fake.start()

    def fork(self, parent: ProcId, *, orphan: bool = False) -> ProcId:
        between = self.fake.fork(parent.pid)
        if not orphan:
            return between
        child = self.fake.fork(between.pid)
        self.fake.exit(between.pid)
        return child

    def thread(self, process: ProcId) -> int:
        return self.fake.spawn(process.pid).tid

    def end(self, process: ProcId) -> None:
        self.fake.exit(process.pid)

    def cgroup(self) -> str:
        self.fake.cgroups[Control.CPU_SHARES, "/made"] = 1024
        return "/made"

    @contextmanager
    def blinded(self, process: ProcId) -> Iterator[None]:
        self.fake.faults[process.pid] = Trouble(Status.BLOCKED, "Too many open files")
        yield
        del self.fake.faults[process.pid]

    def close(self) -> None:
        pass


class RealWorld:
    def __init__(self) -> None:
        self.kernel: Kernel = LinuxKernel()
        self._puppets: dict[ProcId, Puppet] = {}
        self._group: Path | None = None

    def start(self) -> ProcId:
        puppet = Puppet()
        self._puppets[puppet.id] = puppet
        return puppet.id

    def fork(self, parent: ProcId, *, orphan: bool = False) -> ProcId:
        return self._puppets[parent].fork(orphan=orphan)

    def thread(self, process: ProcId) -> int:
        return self._puppets[process].thread()

    def end(self, process: ProcId) -> None:
        self._puppets[process].end()

    def cgroup(self) -> str:
        mount = find(Path("/proc/self/mountinfo").read_text()).shares
        if mount is None:
            pytest.skip("this machine has no cgroup v1 cpu hierarchy")
        self._group = Path(mount.point) / f"nicety-contract-{os.getpid()}"
        try:
            self._group.mkdir()
        except OSError as error:
            self._group = None
            pytest.skip(f"no cgroup can be made: {error.strerror}")
        return f"/{self._group.name}"

    @contextmanager
    def blinded(self, process: ProcId) -> Iterator[None]:
        """Whatever is opened of this process fails, as without descriptors."""
        real = os.open

        def fail(path: str, *rest: int) -> int:
            if str(path).startswith(f"/proc/{process.pid}/"):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(path, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", fail)
            yield

    def close(self) -> None:
        if self._group is not None:
            self._group.rmdir()
        for puppet in self._puppets.values():
            puppet.close()


@pytest.fixture(params=[FakeWorld, pytest.param(RealWorld, marks=needs_renice)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made: World = request.param()
    yield made
    made.close()


def knob(control: Control, process: ProcId, tid: int | None = None, world: World | None = None) -> Knob:
    if tid is None:
        return Knob(control, ThreadPlace(process, ThreadId(*process)))
    assert world is not None
    threads = world.kernel.threads(process)
    assert not isinstance(threads, Trouble)
    return Knob(control, ThreadPlace(process, next(thread for thread in threads if thread.tid == tid)))


def value(world: World, where: Knob) -> Value:
    found = world.kernel.read(where)
    assert not isinstance(found, Trouble), found
    return found


def slice_knob(world: World, process: ProcId, tid: int | None = None) -> Knob:
    where = knob(Control.SLICE, process, tid, world)
    found = world.kernel.read(where)
    if isinstance(found, Trouble) and "no slices" in found.text:
        pytest.skip(found.text)
    return where


def test_threads_are_listed_with_their_start_times_first_thread_like_the_process(world: World) -> None:
    process = world.start()
    tid = world.thread(process)
    threads = world.kernel.threads(process)
    assert not isinstance(threads, Trouble)
    assert [thread.tid for thread in threads] == sorted([process.pid, tid])
    assert ThreadId(*process) in threads
    assert all(thread.start_ticks >= process.start_ticks for thread in threads)
    assert process.start_ticks <= world.kernel.uptime_ticks()


def test_the_number_of_a_thread_names_no_process(world: World) -> None:
    process = world.start()
    tid = world.thread(process)
    threads = world.kernel.threads(process)
    assert not isinstance(threads, Trouble)
    (start,) = [thread.start_ticks for thread in threads if thread.tid == tid]
    found = world.kernel.who(ProcId(tid, start))
    assert isinstance(found, Trouble)
    assert found.status is Status.VANISHED
    assert not isinstance(world.kernel.who(process), Trouble)


@pytest.mark.parametrize(
    ("control", "wanted"), [(Control.NICE, 7), (Control.POLICY, 3), (Control.POLICY, 5), (Control.AFFINITY, (0,))]
)
def test_a_value_is_set_for_one_thread_alone_and_read_back(world: World, control: Control, wanted: Value) -> None:
    process = world.start()
    other = knob(control, process, world.thread(process), world)
    first = knob(control, process)
    before = value(world, other)
    assert world.kernel.write(first, value(world, first), wanted) is None
    assert value(world, first) == wanted
    assert value(world, other) == before
    assert world.kernel.write(first, wanted, before) is None
    assert value(world, first) == before


def test_a_value_that_is_not_the_expected_one_is_left(world: World) -> None:
    process = world.start()
    where = knob(Control.NICE, process)
    assert world.kernel.write(where, 0, 4) is None
    trouble = world.kernel.write(where, 0, 9)
    assert trouble is not None
    assert trouble.status is Status.FOREIGN
    assert "from 0 to 4" in trouble.text
    assert value(world, where) == 4


def test_a_stranger_with_the_same_number_is_neither_read_nor_changed(world: World) -> None:
    process = world.start()
    impostor = ProcId(process.pid, process.start_ticks - 1)
    where = Knob(Control.NICE, ThreadPlace(impostor, ThreadId(*impostor)))
    for answer in (
        world.kernel.read(where),
        world.kernel.write(where, 0, 5),
        world.kernel.threads(impostor),
        world.kernel.kin_of(impostor),
        world.kernel.autogroup(impostor),
    ):
        assert isinstance(answer, Trouble)
        assert answer.status is Status.VANISHED
    assert value(world, knob(Control.NICE, process)) == 0


def test_a_thread_of_another_process_is_not_taken_for_one_of_this(world: World) -> None:
    one, two = world.start(), world.start()
    answer = world.kernel.write(Knob(Control.NICE, ThreadPlace(one, ThreadId(*two))), 0, 5)
    assert answer is not None
    assert answer.status is Status.VANISHED
    assert value(world, knob(Control.NICE, two)) == 0


def test_what_has_ended_is_a_value_for_every_call(world: World) -> None:
    process = world.start()
    where = [knob(control, process) for control in (Control.NICE, Control.AFFINITY, Control.POLICY, Control.SLICE)]
    group = world.kernel.autogroup(process)
    assert isinstance(group, str)
    where.append(Knob(Control.AUTOGROUP, AutogroupPlace(group, process)))
    world.end(process)
    for each in where:
        for answer in (world.kernel.read(each), world.kernel.write(each, 0, WRITTEN.get(each.control, 3))):
            assert isinstance(answer, Trouble)
            assert answer.status is Status.VANISHED
    answers = world.kernel.threads(process), world.kernel.kin_of(process), world.kernel.autogroup(process)
    assert [answer.status for answer in answers if isinstance(answer, Trouble)] == [Status.VANISHED] * 3


@pytest.mark.parametrize(
    ("control", "wanted"),
    [
        (Control.NICE, 20),
        (Control.NICE, -21),
        (Control.POLICY, 1),
        (Control.POLICY, 2),
        (Control.AFFINITY, ()),
        (Control.AFFINITY, (4095,)),
        (Control.SLICE, 99_999),
        (Control.SLICE, 100_000_001),
        (Control.SLICE, -1),
    ],
)
def test_what_cannot_be_is_not_asked_of_the_kernel(world: World, control: Control, wanted: Value) -> None:
    process = world.start()
    where = slice_knob(world, process) if control is Control.SLICE else knob(control, process)
    before = value(world, where)
    answer = world.kernel.write(where, before, wanted)
    assert answer is not None
    assert answer.status is Status.FAILED
    assert value(world, where) == before


def test_children_and_threads_inherit_what_their_parent_has(world: World) -> None:
    process = world.start()
    for control, wanted in ((Control.NICE, 6), (Control.POLICY, 3), (Control.AFFINITY, (0,))):
        where = knob(control, process)
        assert world.kernel.write(where, value(world, where), wanted) is None
    child = world.fork(process)
    tid = world.thread(process)
    for control, wanted in ((Control.NICE, 6), (Control.POLICY, 3), (Control.AFFINITY, (0,))):
        assert value(world, knob(control, child)) == wanted
        assert value(world, knob(control, process, tid, world)) == wanted


def test_a_slice_is_set_beside_nice_and_policy_and_both_stay(world: World) -> None:
    process = world.start()
    where = slice_knob(world, process)
    other = slice_knob(world, process, world.thread(process))
    assert (value(world, where), value(world, other)) == (0, 0)
    assert world.kernel.write(knob(Control.NICE, process), 0, 6) is None
    assert world.kernel.write(where, 0, 300_000) is None
    assert (value(world, where), value(world, other), value(world, knob(Control.NICE, process))) == (300_000, 0, 6)
    assert world.kernel.write(knob(Control.NICE, process), 6, 3) is None
    for policy, before in ((3, 0), (5, 3), (3, 5), (0, 3)):
        assert world.kernel.write(knob(Control.POLICY, process), before, policy) is None
        assert value(world, where) == 300_000, "a policy leaves the slice"
    assert world.kernel.write(knob(Control.POLICY, process), 0, 3) is None
    assert world.kernel.write(where, 300_000, 100_000_000) is None
    assert [value(world, knob(control, process)) for control in (Control.NICE, Control.POLICY)] == [3, 3]
    trouble = world.kernel.write(where, 300_000, 0)
    assert trouble is not None
    assert trouble.status is Status.FOREIGN
    assert world.kernel.write(where, 100_000_000, 0) is None
    assert value(world, where) == 0


def test_a_slice_is_inherited_and_given_back_as_the_default(world: World) -> None:
    process = world.start()
    where = slice_knob(world, process)
    assert world.kernel.write(where, 0, 200_000) is None
    child, tid = world.fork(process), world.thread(process)
    for heir in (slice_knob(world, child), slice_knob(world, process, tid)):
        assert value(world, heir) == 200_000
        assert world.kernel.write(heir, 200_000, 0) is None
        assert value(world, heir) == 0


def test_the_slice_of_an_idle_thread_is_left(world: World) -> None:
    process = world.start()
    where = slice_knob(world, process)
    assert world.kernel.write(knob(Control.POLICY, process), 0, 5) is None
    trouble = world.kernel.write(where, 0, 200_000)
    assert trouble is not None
    assert trouble.status is Status.REFUSED
    assert "SCHED_BATCH" in trouble.text
    assert value(world, where) == 0


def test_a_fence_by_weight_takes_children_along_and_leaves_nobody_in_it(world: World) -> None:
    weight = Limits(0, 0, 0, 1)
    process = world.start()
    child = world.fork(process)
    key = world.kernel.fence(process, weight)
    if isinstance(key, Trouble):
        pytest.skip(key.text)
    assert [part.files for part in parts_of(key)] in ([{"cpu.shares": "2"}], [{"cpu.weight": "1"}])
    where = Knob(Control.FENCE, FencePlace(key, process))
    assert value(world, where) == 0, "it is only planned"
    assert world.kernel.write(where, 0, 1) is None
    assert value(world, where) == 1
    for each in (process, child, world.fork(process)):
        answers = world.kernel.fence(each, weight), world.kernel.fence(each, Limits(300, 0, 0))
        assert [each.status for each in answers if isinstance(each, Trouble)] == [Status.UNCHANGED, Status.REFUSED]
    world.end(process)
    assert world.kernel.write(where, 1, 0) is None
    assert value(world, where) == 0
    again = world.kernel.fence(child, weight)
    assert isinstance(again, str), again
    assert name_for(child) in again


def test_a_cgroup_is_idle_or_has_a_weight_that_is_never_lost(world: World) -> None:
    group = world.cgroup()
    idle, shares = Knob(Control.CPU_IDLE, Cgroup(group)), Knob(Control.CPU_SHARES, Cgroup(group))
    assert (value(world, idle), value(world, shares)) == (0, 1024)
    assert world.kernel.write(shares, 1024, 512) is None
    refused = world.kernel.write(idle, 0, 1)
    assert refused is not None
    assert refused.status is Status.REFUSED
    assert (value(world, idle), value(world, shares)) == (0, 512)
    assert world.kernel.write(shares, 512, 1024) is None
    assert world.kernel.write(idle, 0, 1) is None
    assert value(world, idle) == 1
    for hidden in (world.kernel.read(shares), world.kernel.write(shares, 1024, 2)):
        assert isinstance(hidden, Trouble)
        assert hidden.status is Status.REFUSED
    for wrong, expected, status in ((2, 1, Status.FAILED), (0, 0, Status.FOREIGN)):
        trouble = world.kernel.write(idle, expected, wrong)
        assert trouble is not None
        assert trouble.status is status
    assert world.kernel.write(idle, 1, 0) is None
    assert (value(world, idle), value(world, shares)) == (0, 1024)


def test_kin_tells_parent_session_and_group_and_who_takes_over_an_orphan(world: World) -> None:
    process = world.start()
    child, orphan = world.fork(process), world.fork(process, orphan=True)
    kin = {each.id: each for each in world.kernel.kin().kin}
    assert list(kin) == sorted(kin)
    assert kin[process] == world.kernel.kin_of(process)
    assert kin[process].session == kin[process].group == process.pid
    assert kin[child].parent == process.pid
    assert kin[child].session == kin[orphan].session == process.pid
    assert kin[orphan].parent != process.pid
    assert world.kernel.itself() in kin
    fresh = {each.id for each in world.kernel.kin(Pids([process.pid, child.pid])).kin}
    assert orphan in fresh
    assert not {process, child} & fresh


def test_a_scan_within_a_reach_tells_whom_it_has_and_their_parents(world: World) -> None:
    process, bystander = world.start(), world.start()
    kernel, since = world.kernel, world.kernel.uptime_ticks() + 1
    while kernel.uptime_ticks() < since:
        world.end(world.start())
    child, orphan, other = world.fork(process), world.fork(process, orphan=True), world.fork(bystander)
    seen, reach = Pids(), Reach(since, [process.pid], [process.pid], [])
    told = {kin.id: kin for kin in kernel.kin(seen, reach).kin}
    assert {process, child, orphan} <= set(told)
    assert not {bystander, other} & set(told)
    assert told[process] == kernel.kin_of(process)
    assert all(each.pid in seen for each in (process, bystander, child, orphan, other))
    sibling = world.fork(process)
    again = {kin.id for kin in kernel.kin(seen, reach).kin}
    assert {process, sibling} <= again, "a parent is told again"
    assert not {bystander, child, orphan, other} & again
    assert bystander in {kin.id for kin in kernel.kin(Pids(), Reach(since, [], [bystander.pid], [])).kin}, "it is a parent"


def test_who_sleeps_or_is_gone_is_not_within_a_fork(world: World) -> None:
    process = world.start()
    thread, deadline = ThreadId(*process), time.monotonic() + 10
    while world.kernel.user_time(process, thread) is not None:  # it is on its way to sleep
        assert time.monotonic() < deadline
        time.sleep(0.01)
    world.end(process)
    assert world.kernel.user_time(process, thread) is None


def test_an_autogroup_is_set_through_any_member_and_outlives_the_one_it_was_set_through(world: World) -> None:
    process = world.start()
    key = world.kernel.autogroup(process)
    if isinstance(key, Trouble):
        pytest.skip(key.text)
    child = world.fork(process)
    assert world.kernel.autogroup(child) == key
    assert world.kernel.autogroup(world.start()) != key
    through = Knob(Control.AUTOGROUP, AutogroupPlace(key, process))
    assert world.kernel.write(through, 0, 9) is None
    assert value(world, Knob(Control.AUTOGROUP, AutogroupPlace(key, child))) == 9
    assert value(world, knob(Control.NICE, child)) == 0, "the group's nice is not the thread's"
    world.end(process)
    assert value(world, through) == 9, "found through the child"
    assert world.kernel.write(through, 9, 0) is None
    assert value(world, through) == 0


def test_an_affinity_to_all_of_the_cpuset_lasts_as_one_to_all_that_there_can_be(world: World) -> None:
    where = knob(Control.AFFINITY, world.start())
    whole = value(world, where)
    assert isinstance(whole, tuple)
    lasting = world.kernel.lasting(where, whole)
    assert not isinstance(lasting, int | Trouble)
    assert set(lasting) >= set(whole)
    assert world.kernel.visible(where, lasting) == whole
    assert world.kernel.write(where, whole, lasting) is None
    assert value(world, where) == whole


def test_the_boot_has_a_name_and_time_does_not_stand_still(world: World) -> None:
    assert len(world.kernel.boot_id()) == 36
    before = world.kernel.uptime_ticks()
    deadline = time.monotonic() + 5
    while world.kernel.uptime_ticks() <= before:
        assert time.monotonic() < deadline
        world.end(world.start())


@pytest.mark.skipif(os.geteuid() != 0, reason="only who may lower a nice can set one")
def test_who_may_lower_a_nice_is_forbidden_nothing(world: World) -> None:
    assert [world.kernel.forbidden(control) for control in Control] == [""] * len(Control)


def test_who_cannot_be_looked_at_is_not_gone(world: World) -> None:
    process, other = world.start(), world.start()
    where = knob(Control.NICE, process)
    with world.blinded(process):
        scan = world.kernel.kin()
        answers = [
            world.kernel.read(where),
            world.kernel.write(where, 0, 5),
            world.kernel.threads(process),
            world.kernel.kin_of(process),
            world.kernel.autogroup(process),
            world.kernel.user_time(process, ThreadId(*process)),
            scan.unread,
        ]
        assert [answer.status for answer in answers if isinstance(answer, Trouble)] == [Status.BLOCKED] * len(answers)
        seen = {kin.id for kin in scan.kin}
        assert other in seen
        assert process not in seen
        assert world.kernel.kin(Pids([process.pid])).unread is None, "whom nobody asks for need not be looked at"
    assert world.kernel.kin().unread is None
    assert value(world, where) == 0


def test_a_reserve_may_be_asked_for_within_another(world: World) -> None:
    process = world.start()
    with world.kernel.reserve(), world.kernel.reserve():
        assert value(world, knob(Control.NICE, process)) == 0


def test_the_size_of_a_pool_is_not_the_kernels(world: World) -> None:
    pool = Knob(Control.POOL_SIZE, PoolPlace("web", world.start()))
    for found in (world.kernel.read(pool), world.kernel.write(pool, 2, 3)):
        assert isinstance(found, Trouble)
        assert found.status is Status.FAILED
