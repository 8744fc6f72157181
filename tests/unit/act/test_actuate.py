"""Decisions become kernel values through the ledger, and everything goes back: against the fake kernel, one claim a test."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, repeat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nicety.models.identity import ProcId
from nicety.models.records import PoolSample
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.act.observing import Observing
from nicety.scheduler.act.pools_back import STEADY_NS
from nicety.scheduler.decision import Action, Decision, Digest, Flag, Outcome, Recycle, ResizePool, Restore, Set, Why
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.fences import ALTERED, name_for
from nicety.scheduler.hands.ledger import NAME, Ledger
from nicety.scheduler.hands.places import AutogroupPlace, Cgroup, Control, Knob, ThreadId, ThreadPlace, Value, process_of
from nicety.scheduler.hands.restoring import LOOK_NS, PATIENCE_IN_A_TICK_NS, PATIENCE_NS
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.ports import PoolAdapter
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.testing.kernel import FakeKernel
from nicety.scheduler.testing.ledger_file import rows
from nicety.scheduler.testing.locks import FakeLocks
from nicety.scheduler.testing.places import place_of
from nicety.scheduler.testing.pool import FakePool

WHY = Why("test", "because", {}, (), ())


@dataclass
class Bench:
    """A fake machine and an actuator on it."""

    folder: Path
    kernel: FakeKernel = field(default_factory=FakeKernel)
    clock: FakeClock = field(default_factory=FakeClock)
    pools: dict[str, PoolAdapter] = field(default_factory=dict)
    samples: dict[str, PoolSample] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new actuator on the same file, as after kill -9."""
        self.ledger = Ledger(self.folder / "ledger.log", self.kernel.boot_id())
        hands = hands_with(self.ledger, self.kernel, self.clock)
        self.actuator = Acting(hands, self.kernel, FakeLocks(), self.pools, self.samples, self.clock)

    def decide(self, action: Action, target: str = "target") -> Decision:
        self.count += 1
        return Decision(f"s-0.{self.count}", "priority", target, action, WHY)

    def apply(self, *actions: Action) -> tuple[Outcome, ...]:
        return self.actuator.apply([self.decide(action) for action in actions])

    def nice(self, pid: int, tid: int | None = None) -> Value | Trouble:
        return self.kernel.read(self.kernel.knob(Control.NICE, pid, tid))

    def add_pool(self, size: int = 2, **options: float) -> FakePool:
        pool = FakePool("web", self.clock, size=size, first_pid=5000, maximum=9, **options)  # type: ignore[arg-type]
        self.pools["web"] = pool
        master = self.look("web").master
        assert master is not None
        self.kernel.admit(master)
        return pool

    def look(self, name: str) -> PoolSample:
        """What the daemon does each tick."""
        self.pools[name].probe()
        self.samples[name] = self.pools[name].read()
        return self.samples[name]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.ledger.close()


def set_nice(process: ProcId, value: int) -> Set:
    return Set(Control.NICE, ProcessPlace(process), value)


def back(process: ProcId, control: Control = Control.NICE) -> Restore:
    return Restore(control, place_of(control, process))


def open_rows(bench: Bench) -> int:
    return len(bench.ledger.outstanding())


# --- order and durability -------------------------------------------------------------------------------------------------------


def test_the_intent_of_every_change_is_durable_before_the_change(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.kernel.spawn(process.pid)
    other = bench.kernel.start()
    bench.kernel.cgroups[Control.CPU_SHARES, "/batch"] = 1024
    witnessed: list[int] = []

    def look(knob: Knob) -> None:
        process, on = process_of(knob.on), knob.on
        pid = process.pid if process else None
        tid = on.thread.tid if isinstance(on, ThreadPlace) else None
        key = on.path if isinstance(on, Cgroup) else on.name if isinstance(on, AutogroupPlace) else ""
        intents = [(row.control, row.pid, row.tid, row.key) for row in rows(bench.folder / NAME) if row.status == "intent"]
        witnessed.append(intents.count((knob.control, pid, tid, key)))

    bench.kernel.before_write = look
    bench.apply(
        set_nice(process, 10),
        Set(Control.AFFINITY, ProcessPlace(process), (0,)),
        Set(Control.POLICY, ProcessPlace(process), 3),
        Set(Control.AUTOGROUP, SessionPlace(other.pid, other), 19),
        Set(Control.CPU_SHARES, CgroupPlace("/batch"), 2),
    )
    assert witnessed == [1] * 8, "a change was made that the ledger did not have"


def test_the_intent_of_a_pool_size_is_durable_before_the_request(bench: Bench) -> None:
    pool = bench.add_pool()
    seen: list[tuple[str, object, object]] = []

    class Witness(FakePool):
        def resize(self, size: int) -> tuple[Status, str]:
            seen.extend((row.status, row.original, row.new) for row in rows(bench.folder / NAME) if row.control == "pool.size")
            return super().resize(size)

    pool.__class__ = Witness
    bench.apply(ResizePool("web", 5))
    assert seen == [("intent", 2, 5)]


def test_all_intents_of_a_call_are_one_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [bench.kernel.start() for _ in range(5)]
    flushes: list[int] = []
    before_changes: list[int] = []
    monkeypatch.setattr("os.fdatasync", flushes.append)
    bench.kernel.before_write = lambda _: before_changes.append(len(flushes))
    bench.apply(*(set_nice(process, 10) for process in processes))
    assert before_changes == [1] * 5


def fails_with(number: int) -> Callable[..., int]:
    def call(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


def test_a_ledger_that_cannot_be_written_stops_changes_and_undo_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    process, other = bench.kernel.start(), bench.kernel.start()
    bench.apply(set_nice(process, 10))
    monkeypatch.setattr("os.pwrite", fails_with(errno.ENOSPC))
    outcomes = bench.apply(
        *(set_nice(other, 5 + each) for each in range(1)), *(set_nice(bench.kernel.start(), 3) for _ in range(200))
    )
    assert {outcome.status for outcome in outcomes} == {Status.BLOCKED}
    assert all("nothing is changed without it" in outcome.detail and "free some space" in outcome.detail for outcome in outcomes)
    assert bench.nice(other.pid) == 0
    (outcome,) = bench.actuator.undo()
    assert outcome.status is Status.APPLIED
    assert bench.nice(process.pid) == 0
    bench.ledger.close()


# --- apply ----------------------------------------------------------------------------------------------------------------------


def test_every_thread_is_set_and_the_outcome_says_from_what_to_what(bench: Bench) -> None:
    process = bench.kernel.start()
    threads = [bench.kernel.spawn(process.pid).tid for _ in range(3)]
    (outcome,) = bench.apply(set_nice(process, 10))
    assert outcome == Outcome("s-0.1", Status.APPLIED, "target", f"nice of pid {process.pid}: 0 -> 10", 4)
    assert [bench.nice(process.pid, tid) for tid in threads] == [10] * 3


def test_what_is_so_already_is_not_written(bench: Bench) -> None:
    process = bench.kernel.start()
    (outcome,) = bench.apply(set_nice(process, 0))
    assert outcome.status is Status.UNCHANGED
    assert bench.kernel.writes == []
    assert open_rows(bench) == 0


def test_threads_that_start_meanwhile_are_covered(bench: Bench) -> None:
    process = bench.kernel.start()
    left = [3]

    def spawn(knob: Knob) -> None:
        if left[0]:
            left[0] -= 1
            bench.kernel.spawn(process.pid)  # before its creator is set: it has the old value

    bench.kernel.before_write = spawn
    (outcome,) = bench.apply(set_nice(process, 10))
    assert outcome.status is Status.APPLIED
    assert {thread.nice for thread in bench.kernel.processes[process.pid].threads.values()} == {10}


def test_endless_new_threads_do_not_make_an_endless_loop(bench: Bench) -> None:
    process = bench.kernel.start()

    def spawn(knob: Knob) -> None:
        thread = bench.kernel.spawn(process.pid)
        bench.kernel.processes[process.pid].threads[thread.tid].nice = 0

    bench.kernel.before_write = spawn
    (outcome,) = bench.apply(set_nice(process, 10))
    assert "faster than 8 scans" in outcome.detail
    assert outcome.changed == 9


def test_a_target_that_is_gone_is_an_outcome_and_its_siblings_are_set(bench: Bench) -> None:
    processes = [bench.kernel.start() for _ in range(3)]
    bench.kernel.before_write = lambda knob: bench.kernel.exit(processes[1].pid) if process_of(knob.on) == processes[1] else None
    gone = bench.kernel.start()
    bench.kernel.exit(gone.pid)
    outcomes = bench.apply(*(set_nice(process, 10) for process in processes), set_nice(gone, 10))
    assert [outcome.status for outcome in outcomes] == [Status.APPLIED, Status.VANISHED, Status.APPLIED, Status.VANISHED]
    assert "gone" in outcomes[1].detail


def test_a_process_that_ends_before_its_value_is_read_back_may_have_left_a_child_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, real, children = bench.kernel.start(), bench.kernel.write, list[ProcId]()

    def write(knob: Knob, expected: Value, value: Value) -> Trouble | None:
        trouble = real(knob, expected, value)
        if not children:
            children.append(bench.kernel.fork(process.pid))
            bench.kernel.exit(process.pid)
        return trouble

    monkeypatch.setattr(bench.kernel, "write", write)
    (outcome,) = bench.apply(set_nice(process, 10))
    assert (outcome.status, bench.nice(children[0].pid)) == (Status.VANISHED, 10)
    bench.actuator.undo()
    assert bench.nice(children[0].pid) == 0


def test_a_reused_pid_is_not_touched(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.kernel.exit(process.pid)
    impostor = bench.kernel.start(pid=process.pid)
    (outcome,) = bench.apply(set_nice(process, 10))
    assert outcome.status is Status.VANISHED
    assert bench.nice(impostor.pid) == 0


def test_without_the_right_to_undo_nothing_is_reniced(bench: Bench) -> None:
    bench.kernel.privileged = False
    process = bench.kernel.start()
    outcomes = bench.apply(
        set_nice(process, 10),
        Set(Control.POLICY, ProcessPlace(process), 5),
        Set(Control.AUTOGROUP, SessionPlace(process.pid, process), 5),
    )
    assert [outcome.status for outcome in outcomes] == [Status.REFUSED] * 3
    assert all("CAP_SYS_NICE" in outcome.detail for outcome in outcomes)
    assert bench.kernel.writes == []
    assert open_rows(bench) == 0


def test_a_real_time_thread_is_left_alone_beside_its_siblings(bench: Bench) -> None:
    process = bench.kernel.start()
    thread = bench.kernel.spawn(process.pid)
    bench.kernel.processes[process.pid].threads[thread.tid].policy = 1
    (outcome,) = bench.apply(Set(Control.POLICY, ProcessPlace(process), 3))
    assert outcome.status is Status.PARTIAL
    assert "real-time" in outcome.detail
    assert bench.kernel.processes[process.pid].threads[thread.tid].policy == 1


def test_two_decisions_on_one_autogroup_in_one_call_are_not_taken_for_a_stranger(bench: Bench) -> None:
    process = bench.kernel.start()
    sibling = bench.kernel.fork(process.pid)
    outcomes = bench.apply(
        *(Set(Control.AUTOGROUP, SessionPlace(each.pid, each), 19) for each in (process, sibling)), back(process, Control.AUTOGROUP)
    )
    assert [outcome.status for outcome in outcomes] == [Status.APPLIED, Status.UNCHANGED, Status.APPLIED]
    assert bench.kernel.autogroups[bench.kernel.processes[process.pid].autogroup] == 0


def test_a_flag_changes_nothing_and_is_applied(bench: Bench) -> None:
    bench.add_pool()
    worker = bench.samples["web"].workers[0].id
    (outcome,) = bench.apply(Flag("web", worker, "leak"))
    assert (outcome.status, outcome.changed) == (Status.APPLIED, 0)
    assert open_rows(bench) == 0


def test_a_policy_that_asks_for_nonsense_gets_an_outcome(bench: Bench) -> None:
    process = bench.kernel.start()
    outcomes = bench.apply(
        Set(Control.FENCE, ProcessPlace(process), 3),
        set_nice(process, 77),
        Set(Control.CPU_WEIGHT, CgroupPlace("/none"), 3),
        ResizePool("nobody", 3),
        Recycle("nobody", process),
    )
    assert [outcome.status for outcome in outcomes] == [Status.REFUSED] * 2 + [Status.VANISHED] + [Status.FAILED] * 2


# --- somebody else --------------------------------------------------------------------------------------------------------------


def test_a_value_that_somebody_else_changed_is_left_from_then_on_even_after_a_restart(bench: Bench) -> None:
    process = bench.kernel.start()
    thread = bench.kernel.spawn(process.pid)
    bench.apply(set_nice(process, 10))
    bench.kernel.poke(bench.kernel.knob(Control.NICE, process.pid), 3)
    (outcome,) = bench.apply(set_nice(process, 15))
    assert outcome.status is Status.FOREIGN
    assert "from 10 to 3" in outcome.detail
    assert bench.nice(process.pid, thread.tid) == 0, "renice reaches one thread; the person means the process"
    assert "1 other threads were put back" in outcome.detail
    bench.ledger.close()
    bench.restart()
    (outcome,) = bench.apply(set_nice(process, 15))
    assert outcome.status is Status.FOREIGN
    bench.actuator.undo()
    assert (bench.nice(process.pid), bench.nice(process.pid, thread.tid)) == (3, 0)


def test_the_periodic_check_finds_a_foreign_change_even_back_to_the_original(bench: Bench) -> None:
    processes = [bench.kernel.start() for _ in range(40)]
    bench.apply(*(set_nice(process, 10) for process in processes))
    bench.kernel.poke(bench.kernel.knob(Control.NICE, processes[7].pid), 0)
    found = [outcome for _ in range(5) for outcome in bench.actuator.settle()]
    assert [(outcome.status, outcome.decision) for outcome in found] == [(Status.FOREIGN, "s-0.8")]
    assert "from 10 to 0" in found[0].detail
    assert [outcome.status for outcome in bench.apply(set_nice(processes[7], 10))] == [Status.FOREIGN]


def test_who_changes_one_thread_gets_the_whole_process_back_at_the_periodic_check(bench: Bench) -> None:
    process = bench.kernel.start()
    threads = [bench.kernel.spawn(process.pid).tid for _ in range(5)]
    bench.apply(set_nice(process, 10))
    bench.kernel.poke(bench.kernel.knob(Control.NICE, process.pid, threads[2]), 4)
    found = [outcome for _ in range(5) for outcome in bench.actuator.settle()]
    assert [(outcome.status, outcome.decision) for outcome in found] == [(Status.FOREIGN, "s-0.1")]
    assert [bench.nice(process.pid, tid) for tid in (process.pid, *threads)] == [0, 0, 0, 4, 0, 0]
    assert open_rows(bench) == 0


CHOSEN: list[tuple[Control, Value, Value, Value, str]] = [  # control, expected, chosen by somebody, wanted by us, sentence
    (Control.NICE, 0, 5, 10, "nice 5"),
    (Control.NICE, 0, 10, 10, "nice 10"),
    (Control.POLICY, 0, 3, 5, "policy 3"),
    (Control.SLICE, 0, 500_000, 100_000, "slice 500000"),
    (Control.AFFINITY, (0, 1, 2, 3), (1, 2), (0,), "affinity CPUs 1-2"),
    (Control.AUTOGROUP, 0, -3, 19, "autogroup -3"),
]


@pytest.mark.parametrize(("control", "expected", "chosen", "wanted", "sentence"), CHOSEN)
def test_what_somebody_chose_before_us_is_left_in_the_whole_process(
    bench: Bench, control: Control, expected: Value, chosen: Value, wanted: Value, sentence: str
) -> None:
    process, other = bench.kernel.start(), bench.kernel.start()
    knob = bench.kernel.knob(control, process.pid)
    if control is not Control.AUTOGROUP:
        knob = bench.kernel.knob(control, process.pid, bench.kernel.spawn(process.pid).tid)
    bench.kernel.poke(knob, chosen)
    actions = [Set(control, place_of(control, each), wanted, expected) for each in (process, other)]
    looked = Observing(bench.kernel, {}, {}, bench.kernel.forbidden).apply([bench.decide(action) for action in actions])
    assert [outcome.status for outcome in looked] == [Status.FOREIGN, Status.OBSERVED]
    outcomes = bench.apply(*actions)
    assert [outcome.status for outcome in outcomes] == [Status.FOREIGN, Status.APPLIED]
    assert {looked[0].detail, outcomes[0].detail} == {f"left: somebody chose {sentence}"}
    assert [process_of(knob.on) for knob, _ in bench.kernel.writes] == [other]
    assert bench.kernel.read(knob) == chosen
    bench.actuator.undo()
    assert bench.kernel.read(knob) == chosen


@pytest.mark.parametrize(
    ("control", "expected", "chosen", "wanted"),
    [(Control.CPU_SHARES, 1024, 512, 2), (Control.CPU_WEIGHT, 100, 300, 1), (Control.CPU_IDLE, 0, 1, 1)],
)
def test_a_cgroup_that_somebody_has_tuned_is_left(bench: Bench, control: Control, expected: int, chosen: int, wanted: int) -> None:
    bench.kernel.cgroups |= {(Control.CPU_SHARES, "/a"): 1024, (Control.CPU_WEIGHT, "/a"): 100, (control, "/a"): chosen}
    (outcome,) = bench.apply(Set(control, CgroupPlace("/a"), wanted, expected))
    assert (outcome.status, outcome.detail) == (Status.FOREIGN, f"left: somebody chose {control} {chosen}")
    assert bench.kernel.writes == []


def test_an_expected_affinity_is_compared_within_the_cpuset(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.kernel.confine(process.pid, (0, 1))
    (outcome,) = bench.apply(Set(Control.AFFINITY, ProcessPlace(process), (1,), (0, 1, 2, 3)))
    assert outcome.status is Status.APPLIED


def test_what_was_inherited_from_us_is_nobodys_choice(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(Set(Control.NICE, ProcessPlace(process), 10, 0))
    child, thread = bench.kernel.fork(process.pid), bench.kernel.spawn(process.pid)
    outcomes = bench.apply(*(Set(Control.NICE, ProcessPlace(each), 15, 0) for each in (process, child)))
    assert [(outcome.status, outcome.changed) for outcome in outcomes] == [(Status.APPLIED, 2), (Status.APPLIED, 1)]
    bench.actuator.undo()
    assert (bench.nice(process.pid), bench.nice(process.pid, thread.tid), bench.nice(child.pid)) == (0, 0, 0)


@pytest.mark.parametrize("late", [False, True], ids=["between look and write", "in a thread started meanwhile"])
def test_a_choice_made_while_we_act_gives_the_threads_back_that_were_changed_already(bench: Bench, late: bool) -> None:
    process = bench.kernel.start()
    thread = bench.kernel.spawn(process.pid)
    made: list[ThreadId] = []

    def choose(knob: Knob) -> None:
        if late and not made:
            made.append(bench.kernel.spawn(process.pid))
            bench.kernel.poke(bench.kernel.knob(Control.NICE, process.pid, made[0].tid), 4)
        elif not late and isinstance(knob.on, ThreadPlace) and knob.on.thread == thread:
            bench.kernel.poke(knob, 4)

    bench.kernel.before_write = choose
    (outcome,) = bench.apply(Set(Control.NICE, ProcessPlace(process), 10, 0))
    assert (outcome.status, outcome.changed) == (Status.FOREIGN, 0)
    assert sorted(each.nice for each in bench.kernel.processes[process.pid].threads.values()) == ([0, 0, 4] if late else [0, 4])
    assert open_rows(bench) == 0


def test_a_slice_leaves_nice_and_policy_and_an_older_kernel_says_that_it_has_none(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 10), Set(Control.POLICY, ProcessPlace(process), 3))
    (outcome,) = bench.apply(Set(Control.SLICE, ProcessPlace(process), 100_000, 0))
    leader = bench.kernel.processes[process.pid].leader
    assert (leader.nice, leader.policy, leader.slice) == (10, 3, 100_000)
    bench.actuator.undo()
    assert (leader.nice, leader.policy, leader.slice) == (0, 0, 0)
    bench.kernel.has_slices = False
    (outcome,) = bench.apply(Set(Control.SLICE, ProcessPlace(process), 100_000, 0))
    assert outcome.status is Status.REFUSED
    assert "no slices" in outcome.detail


def test_a_fence_is_in_the_ledger_before_it_is_made_and_taken_away_by_undo_after_a_crash(bench: Bench) -> None:
    process = bench.kernel.start()
    seen: list[int] = []
    bench.kernel.before_write = lambda _: seen.append(open_rows(bench))
    (outcome,) = bench.apply(Set(Control.FENCE, ProcessPlace(process), (300, 0, 8)))
    assert (outcome.status, seen) == (Status.APPLIED, [1])
    assert outcome.detail == f"fence of pid {process.pid} (limits 300 0 8): 0 -> 1"
    assert list(bench.kernel.fences.values()) == [1]
    bench.restart()
    bench.kernel.exit(process.pid)
    (outcome,) = bench.actuator.undo()
    assert (outcome.status, list(bench.kernel.fences.values())) == (Status.APPLIED, [0])
    assert open_rows(bench) == 0


def test_a_fence_is_taken_away_by_the_process_it_was_made_for_and_left_where_somebody_changed_its_limits(bench: Bench) -> None:
    one, two = bench.kernel.start(), bench.kernel.start()
    bench.apply(*(Set(Control.FENCE, ProcessPlace(process), (300, 0, 8)) for process in (one, two)))
    changed = next(key for key in bench.kernel.fences if name_for(two) in key)
    bench.kernel.fences[changed] = ALTERED
    first, second = bench.apply(back(one, Control.FENCE), back(two, Control.FENCE))
    assert (first.status, second.status) == (Status.APPLIED, Status.FOREIGN)
    assert sorted(bench.kernel.fences.values()) == [ALTERED, 0]


def test_where_no_fence_can_be_made_the_outcome_says_why(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.kernel.unfenced = "it cannot be fenced in: no cgroups"
    (outcome,) = bench.apply(Set(Control.FENCE, ProcessPlace(process), (300, 0, 8)))
    assert (outcome.status, outcome.detail) == (Status.REFUSED, bench.kernel.unfenced)
    assert bench.kernel.fences == {}


def test_who_is_in_the_fence_of_a_swarm_already_has_none_of_its_own_and_comes_out_with_the_others(bench: Bench) -> None:
    root = bench.kernel.start()
    child = bench.kernel.fork(root.pid)
    weight = (0, 0, 0, 1)
    (outcome,) = bench.apply(Set(Control.FENCE, ProcessPlace(root), weight, 0))
    assert outcome.detail == f"fence of pid {root.pid} (cpu.shares 2): 0 -> 1"
    bench.kernel.exit(root.pid)
    (outcome,) = bench.apply(Set(Control.FENCE, ProcessPlace(child), weight, 0))
    assert (outcome.status, outcome.detail) == (Status.UNCHANGED, "it is in a fence already")
    assert len(bench.ledger.outstanding()) == 1
    (outcome,) = bench.apply(back(child, Control.FENCE))
    assert outcome.status is Status.UNCHANGED, "nothing was made for it"
    (outcome,) = bench.apply(back(root, Control.FENCE))
    assert (outcome.status, bench.kernel.processes[child.pid].fence) == (Status.APPLIED, "")
    assert open_rows(bench) == 0


def test_a_cgroup_is_made_idle_and_back_and_never_loses_a_weight_by_it(bench: Bench) -> None:
    bench.kernel.cgroups[Control.CPU_SHARES, "/a"] = 1024
    (made,) = bench.apply(Set(Control.CPU_IDLE, CgroupPlace("/a"), 1, 0))
    (hidden,) = bench.apply(Set(Control.CPU_SHARES, CgroupPlace("/a"), 2, 1024))
    assert (made.status, hidden.status) == (Status.APPLIED, Status.REFUSED)
    bench.actuator.undo()
    (weighed,) = bench.apply(Set(Control.CPU_SHARES, CgroupPlace("/a"), 2, 1024))
    (unfit,) = bench.apply(Set(Control.CPU_IDLE, CgroupPlace("/a"), 1, 0))
    assert (weighed.status, unfit.status) == (Status.APPLIED, Status.REFUSED)
    assert "lose" in unfit.detail
    bench.actuator.undo()
    assert bench.kernel.cgroups == {(Control.CPU_SHARES, "/a"): 1024, (Control.CPU_IDLE, "/a"): 0}


def test_a_weight_that_somebodys_idle_hides_is_put_back_when_it_shows_again(bench: Bench) -> None:
    bench.kernel.cgroups[Control.CPU_SHARES, "/a"] = 1024
    bench.apply(Set(Control.CPU_SHARES, CgroupPlace("/a"), 2, 1024))
    bench.kernel.cgroups[Control.CPU_IDLE, "/a"] = 1
    assert bench.actuator.settle() == ()
    (outcome,) = bench.actuator.undo()
    assert (outcome.status, open_rows(bench)) == (Status.REFUSED, 1)
    bench.kernel.cgroups[Control.CPU_IDLE, "/a"] = 0
    bench.actuator.undo()
    assert (bench.kernel.cgroups[Control.CPU_SHARES, "/a"], open_rows(bench)) == (1024, 0)


def test_who_forks_faster_than_undo_scans_stays_open_for_the_next_undo(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 10))
    bench.kernel.fork(process.pid)

    def storm(knob: Knob) -> None:
        there = process_of(knob.on)
        assert there is not None
        if there != process:
            bench.kernel.fork(there.pid)  # before it is put back: with our value

    bench.kernel.before_write = storm
    (outcome,) = bench.actuator.undo()
    assert outcome.status is Status.PARTIAL
    assert "undo again" in outcome.detail
    assert open_rows(bench) == 1
    bench.kernel.before_write = None
    bench.actuator.undo()
    assert {each.leader.nice for each in bench.kernel.processes.values()} == {0}
    assert open_rows(bench) == 0


def test_a_change_between_look_and_write_is_not_overwritten(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.kernel.before_write = lambda knob: bench.kernel.poke(knob, 4)
    (outcome,) = bench.apply(set_nice(process, 10))
    assert outcome.status is Status.FOREIGN
    assert bench.nice(process.pid) == 4
    bench.kernel.before_write = None
    bench.actuator.undo()
    assert bench.nice(process.pid) == 4


def test_undo_leaves_a_foreign_value_says_so_and_is_idempotent(bench: Bench) -> None:
    one, two = bench.kernel.start(), bench.kernel.start()
    bench.apply(set_nice(one, 10), set_nice(two, 10))
    bench.kernel.poke(bench.kernel.knob(Control.NICE, one.pid), 12)
    outcomes = bench.actuator.undo()
    assert [(outcome.status, outcome.decision) for outcome in outcomes] == [(Status.APPLIED, "s-0.2"), (Status.FOREIGN, "s-0.1")]
    assert outcomes[1].detail == f"left: somebody changed nice of pid {one.pid} from 10 to 12"
    assert (bench.nice(one.pid), bench.nice(two.pid)) == (12, 0)
    assert bench.actuator.undo() == ()


# --- restore and undo -----------------------------------------------------------------------------------------------------------


def test_restore_goes_back_to_before_the_first_change(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.kernel.processes[process.pid].leader.nice = 2
    for value in (5, 10, 15):
        bench.apply(set_nice(process, value))
    (outcome,) = bench.apply(back(process))
    assert outcome.status is Status.APPLIED
    assert bench.nice(process.pid) == 2
    assert open_rows(bench) == 0
    (outcome,) = bench.apply(back(process))
    assert outcome.status is Status.UNCHANGED
    assert "no change of ours to put back" in outcome.detail


def test_undo_is_newest_first_and_covers_every_control(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.kernel.cgroups[Control.CPU_WEIGHT, "/batch"] = 100
    actions = (
        set_nice(process, 10),
        Set(Control.AFFINITY, ProcessPlace(process), (1, 2)),
        Set(Control.POLICY, ProcessPlace(process), 5),
        Set(Control.AUTOGROUP, SessionPlace(process.pid, process), 19),
        Set(Control.CPU_WEIGHT, CgroupPlace("/batch"), 1),
    )
    bench.apply(*actions)
    bench.ledger.close()
    bench.restart()
    outcomes = bench.actuator.undo()
    assert [outcome.decision for outcome in outcomes] == ["s-0.5", "s-0.4", "s-0.3", "s-0.2", "s-0.1"]
    leader = bench.kernel.processes[process.pid].leader
    assert (leader.nice, leader.affinity, leader.policy) == (0, (0, 1, 2, 3), 0)
    assert set(bench.kernel.autogroups.values()) == {0}
    assert bench.kernel.cgroups[Control.CPU_WEIGHT, "/batch"] == 100


def test_undo_after_a_crash_between_intent_and_change_and_between_change_and_note(bench: Bench) -> None:
    processes = [bench.kernel.start() for _ in range(3)]

    class Killed(BaseException):
        pass

    def crash(knob: Knob) -> None:
        if process_of(knob.on) == processes[2]:
            raise Killed

    bench.kernel.before_write = crash
    with pytest.raises(Killed):
        bench.apply(*(set_nice(process, 10) for process in processes))
    assert [bench.nice(process.pid) for process in processes] == [10, 10, 0]
    bench.kernel.before_write = None
    bench.ledger.close()
    bench.restart()
    assert sorted(outcome.status for outcome in bench.actuator.undo()) == [Status.APPLIED, Status.APPLIED, Status.UNCHANGED]
    assert [bench.nice(process.pid) for process in processes] == [0, 0, 0]


def test_a_crash_while_children_are_put_back_leaves_them_to_the_next_undo(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 10))
    child = bench.kernel.fork(process.pid)

    class Killed(BaseException):
        pass

    def crash(knob: Knob) -> None:
        if process_of(knob.on) == child:
            raise Killed

    bench.kernel.before_write = crash
    with pytest.raises(Killed):
        bench.actuator.undo()
    assert (bench.nice(process.pid), bench.nice(child.pid)) == (0, 10)
    bench.kernel.before_write = None
    bench.ledger.close()
    bench.restart()
    bench.actuator.undo()
    assert bench.nice(child.pid) == 0


def test_after_a_reboot_nothing_is_restored_onto_new_processes(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 10))
    bench.ledger.close()
    bench.kernel.boot = "00000000-0000-4000-8000-000000000002"
    bench.restart()
    assert bench.actuator.undo() == ()
    assert bench.nice(process.pid) == 10


def test_an_undo_that_is_refused_stays_open_and_says_how_to_do_it(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 10))
    bench.kernel.privileged = False
    (outcome,) = bench.actuator.undo()
    assert outcome.status is Status.REFUSED
    assert "CAP_SYS_NICE" in outcome.detail
    assert open_rows(bench) == 1
    bench.kernel.privileged = True
    bench.actuator.undo()
    assert bench.nice(process.pid) == 0


def test_an_affinity_hidden_by_a_shrunken_cpuset_is_put_back_for_when_it_grows_again(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(Set(Control.AFFINITY, ProcessPlace(process), (3,)))
    bench.kernel.confine(process.pid, (0, 1))  # the kernel shows 0 and 1, and remembers 3
    assert bench.actuator.settle() == ()
    (outcome,) = bench.actuator.undo()
    assert outcome.status is Status.APPLIED
    bench.kernel.confine(process.pid, (0, 1, 2, 3))
    assert bench.kernel.read(bench.kernel.knob(Control.AFFINITY, process.pid)) == (0, 1, 2, 3)


def test_an_affinity_set_in_a_small_cpuset_follows_it_after_undo(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.kernel.confine(process.pid, (0, 1))
    bench.apply(Set(Control.AFFINITY, ProcessPlace(process), (1,)))
    bench.actuator.undo()
    bench.kernel.confine(process.pid, (0, 1, 2, 3))
    assert bench.kernel.read(bench.kernel.knob(Control.AFFINITY, process.pid)) == (0, 1, 2, 3)


# --- who inherited --------------------------------------------------------------------------------------------------------------


def test_children_and_threads_that_inherited_go_back_with_their_parent(bench: Bench) -> None:
    process = bench.kernel.start()
    before = bench.kernel.fork(process.pid)
    bench.apply(set_nice(process, 10))
    thread = bench.kernel.spawn(process.pid)
    child = bench.kernel.fork(process.pid)
    grandchild = bench.kernel.start(child.pid)  # in a session of its own, but its parent lives
    orphan = bench.kernel.fork(bench.kernel.fork(process.pid).pid)
    bench.kernel.exit(bench.kernel.processes[orphan.pid].parent)
    (outcome,) = bench.apply(back(process))
    assert outcome.changed == 5
    assert bench.nice(process.pid, thread.tid) == 0
    assert [bench.nice(each.pid) for each in (before, child, grandchild, orphan)] == [0] * 4


def test_who_has_our_value_from_somebody_else_keeps_it(bench: Bench) -> None:
    shell = bench.kernel.start()
    process = bench.kernel.fork(shell.pid)
    older = bench.kernel.fork(process.pid)
    bench.apply(set_nice(process, 10))
    neighbour = bench.kernel.fork(shell.pid)  # `nice -n 10 job`, typed into the same shell
    elsewhere = bench.kernel.start()
    other = bench.kernel.fork(process.pid)
    for pid, value in ((neighbour.pid, 10), (elsewhere.pid, 10), (older.pid, 10), (other.pid, 12)):
        bench.kernel.processes[pid].leader.nice = value
    bench.apply(back(process))
    assert [bench.nice(each.pid) for each in (process, neighbour, elsewhere, older, other)] == [0, 10, 10, 10, 12]


class Awake(FakeKernel):
    """Somebody is put back who does not sleep; `used` is what he has used of the CPU in user mode at each look."""

    used: Iterator[int | None]

    def user_time(self, process: ProcId, thread: ThreadId) -> int | None:
        return next(self.used)


def awake(bench: Bench, used: Iterator[int | None]) -> ProcId:
    """A demoted process that does not sleep."""
    process = bench.kernel.start()
    bench.apply(set_nice(process, 5))
    bench.kernel.__class__ = Awake
    assert isinstance(bench.kernel, Awake)
    bench.kernel.used = used
    return process


@pytest.mark.parametrize("whole", [True, False])
def test_who_was_being_forked_when_its_parent_was_put_back_goes_back_too(bench: Bench, whole: bool) -> None:
    born = list[Knob]()

    def within_a_fork() -> Iterator[int | None]:
        yield from (0, 0, 0)
        pid = bench.kernel.fork(process.pid).pid if whole else process.pid
        born.append(bench.kernel.knob(Control.NICE, pid, None if whole else bench.kernel.spawn(pid).tid))
        bench.kernel.poke(born[0], 5)  # what its parent had when the fork began
        while True:
            yield None

    process = awake(bench, within_a_fork())
    bench.actuator.undo()
    assert [bench.kernel.read(knob) for knob in born] == [0]
    assert open_rows(bench) == 0


@pytest.mark.parametrize("whole", [True, False])
def test_nobody_is_waited_for_longer_than_patience_lasts(bench: Bench, whole: bool) -> None:
    """Undo has more of it than a change back within a tick; it is one for all that is put back."""
    process, begin = awake(bench, repeat(7)), bench.clock.monotonic()
    if whole:
        bench.apply(Set(Control.SLICE, ProcessPlace(process), 300_000))
        bench.actuator.undo()
    else:
        bench.apply(back(process))
    patience = PATIENCE_NS if whole else PATIENCE_IN_A_TICK_NS
    assert patience <= bench.clock.monotonic() - begin < patience + 2 * LOOK_NS
    assert bench.nice(process.pid) == 0
    assert open_rows(bench) == 0


def test_who_has_been_in_user_mode_since_is_not_waited_for(bench: Bench) -> None:
    process, begin = awake(bench, count(0, 10_000_000)), bench.clock.monotonic()
    bench.actuator.undo()
    assert bench.clock.monotonic() - begin == LOOK_NS, "the first look showed 10 ms, the second 20"
    assert bench.nice(process.pid) == 0


def test_a_child_that_is_changed_further_goes_back_to_its_parents_original(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 10))
    child, thread = bench.kernel.fork(process.pid), bench.kernel.spawn(process.pid)
    bench.apply(set_nice(child, 15))
    bench.apply(set_nice(process, 12))
    bench.actuator.undo()
    assert (bench.nice(process.pid), bench.nice(process.pid, thread.tid), bench.nice(child.pid)) == (0, 0, 0)


def test_children_of_a_process_that_ended_or_became_foreign_go_back_too(bench: Bench) -> None:
    ended, foreign = bench.kernel.start(), bench.kernel.start()
    bench.apply(set_nice(ended, 10), set_nice(foreign, 10))
    children = [bench.kernel.fork(ended.pid), bench.kernel.fork(foreign.pid)]
    bench.kernel.exit(ended.pid)
    bench.kernel.poke(bench.kernel.knob(Control.NICE, foreign.pid), 1)
    for _ in range(16):
        bench.actuator.settle()
    assert {entry.process for entry in bench.ledger.outstanding()} == set(children), "they have entries of their own now"
    bench.kernel.exit(foreign.pid)
    bench.ledger.close()
    bench.restart()
    bench.actuator.undo()
    assert [bench.nice(child.pid) for child in children] == [0, 0]


def test_a_slice_that_a_child_inherited_goes_back_when_its_policy_allows_it_again(bench: Bench) -> None:
    """SCHED_IDLE has no slices: what cannot be written now stays open, and is not forgotten."""
    parent = bench.kernel.start()
    bench.apply(Set(Control.SLICE, ProcessPlace(parent), 100_000, None))
    child = bench.kernel.fork(parent.pid)
    bench.kernel.setsid(child.pid)
    bench.apply(Set(Control.POLICY, ProcessPlace(child), 5, None))
    (outcome,) = bench.apply(Restore(Control.SLICE, ProcessPlace(parent)))
    assert outcome.status is Status.PARTIAL
    bench.actuator.undo()
    assert [bench.kernel.read(bench.kernel.knob(Control.SLICE, each.pid)) for each in (parent, child)] == [0, 0]
    assert bench.ledger.outstanding() == ()


# --- pools ----------------------------------------------------------------------------------------------------------------------


def test_a_pool_is_resized_settles_and_goes_back_to_its_first_size(bench: Bench) -> None:
    pool = bench.add_pool(size=2)
    for size in (4, 6):
        (outcome,) = bench.apply(ResizePool("web", size))
        assert (outcome.status, outcome.changed) == (Status.APPLIED, 1)
        assert bench.actuator.settle() == (), "not there yet"
        bench.clock.advance(5_000_000_000)
        bench.look("web")
        (settled,) = bench.actuator.settle()
        assert (settled.status, settled.detail) == (Status.APPLIED, f"pool web has {size} workers")
    before = bench.clock.monotonic()
    (outcome,) = bench.actuator.undo()
    assert (outcome.status, outcome.detail) == (Status.APPLIED, "size of pool web: 6 -> 2")
    assert STEADY_NS <= bench.clock.monotonic() - before < 5_000_000_000, "seen to stay so, and no longer"
    assert pool.requests == [4, 6, 2]
    assert bench.look("web").size == 2
    assert open_rows(bench) == 0


def test_what_somebody_changes_between_the_write_and_the_look_is_his(bench: Bench) -> None:
    process = bench.kernel.start()

    class Contested(FakeKernel):
        def write(self, knob: Knob, expected: Value, value: Value) -> Trouble | None:
            trouble = super().write(knob, expected, value)
            self.poke(knob, 7)
            return trouble

    bench.kernel.__class__ = Contested
    (outcome,) = bench.apply(set_nice(process, 5))
    bench.kernel.__class__ = FakeKernel
    assert (outcome.status, outcome.changed) == (Status.FOREIGN, 0)
    assert "set to 5, read back as 7" in outcome.detail
    assert bench.actuator.undo() == ()
    assert bench.nice(process.pid) == 7
    (again,) = bench.apply(set_nice(process, 5))
    assert (again.status, again.changed) == (Status.FOREIGN, 0)


def test_an_autogroup_is_restored_though_the_process_it_was_set_through_has_ended(bench: Bench) -> None:
    leader = bench.kernel.start()
    other = bench.kernel.start()
    bench.kernel.start(leader.pid, session=False)
    bench.apply(set_nice(other, 5), Set(Control.AUTOGROUP, SessionPlace(leader.pid, leader), 9))
    key = bench.kernel.autogroup(leader)
    bench.kernel.exit(leader.pid)
    (outcome,) = bench.apply(back(leader, Control.AUTOGROUP))
    assert (outcome.status, outcome.changed) == (Status.APPLIED, 1)
    assert bench.kernel.autogroups[key] == 0  # type: ignore[index]
    assert bench.nice(other.pid) == 5


def test_reports_change_nothing_and_say_what_they_are(bench: Bench) -> None:
    worker = bench.kernel.start()
    actions = (Flag("web", worker, "leak"), Flag("web", worker, "leak", incident="s-0.1", over=True), Digest(3))
    outcomes = bench.apply(*actions)
    assert {(outcome.status, outcome.changed) for outcome in outcomes} == {(Status.APPLIED, 0)}
    assert [outcome.detail for outcome in outcomes] == [
        "reported as leak",
        "reported that leak is over",
        "3 incidents reported in one line",
    ]
    assert open_rows(bench) == 0


def test_what_is_as_it_was_already_is_said_to_be(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 5))
    bench.kernel.poke(bench.kernel.knob(Control.NICE, process.pid), 0)
    (outcome,) = bench.actuator.undo()
    assert (outcome.status, outcome.changed) == (Status.UNCHANGED, 0)
    assert outcome.detail == f"nice of pid {process.pid} needs no change"
    assert open_rows(bench) == 0


def test_a_pool_that_is_let_go_gets_its_size_back_and_nothing_else_is_put_back(bench: Bench) -> None:
    pool, process = bench.add_pool(size=2), bench.kernel.start()
    bench.apply(set_nice(process, 5), ResizePool("web", 4))
    assert bench.actuator.release(["other"]) == ()
    (outcome,) = bench.actuator.release(["web"])
    assert (outcome.status, outcome.detail) == (Status.APPLIED, "size of pool web: 4 -> 2")
    assert pool.requests == [4, 2]
    assert [entry.control for entry in bench.ledger.outstanding()] == [Control.NICE]
    assert bench.nice(process.pid) == 5
    assert bench.actuator.settle() == (), "the size that was under way is not waited for any more"
    assert bench.actuator.release(["web"]) == ()


def test_undo_of_a_pool_waits_no_longer_than_its_patience_and_can_be_repeated(bench: Bench) -> None:
    bench.add_pool(size=2, drain_seconds=60.0)
    bench.apply(ResizePool("web", 3))
    bench.look("web")
    (outcome,) = bench.actuator.undo()
    assert outcome.status is Status.PARTIAL
    assert "on its way to 2" in outcome.detail
    assert open_rows(bench) == 1
    bench.clock.advance(100_000_000_000)
    bench.look("web")
    (outcome,) = bench.actuator.undo()
    assert outcome.status in (Status.APPLIED, Status.UNCHANGED)
    assert open_rows(bench) == 0


def test_a_pool_resized_by_hand_is_left_by_undo(bench: Bench) -> None:
    pool = bench.add_pool(size=2)
    bench.apply(ResizePool("web", 4))
    bench.look("web")
    pool.resize_by_hand(7)
    bench.look("web")
    assert [outcome.status for outcome in bench.actuator.settle()] == [Status.FOREIGN]
    (outcome,) = bench.actuator.undo()
    assert outcome.status is Status.FOREIGN
    assert bench.look("web").requested == 7
    assert bench.actuator.undo() == ()


def test_after_hands_off_the_size_by_hand_is_what_to_go_back_to(bench: Bench) -> None:
    pool = bench.add_pool(size=2)
    bench.apply(ResizePool("web", 4))
    pool.resize_by_hand(3)
    bench.look("web")
    bench.actuator.settle()
    bench.clock.advance(100_000_000_000)
    bench.look("web")
    (outcome,) = bench.apply(ResizePool("web", 6))
    assert outcome.status is Status.APPLIED
    bench.look("web")
    bench.actuator.undo()
    assert bench.look("web").requested == 3


def test_a_pool_of_which_the_master_is_gone_is_nothing_to_put_back(bench: Bench) -> None:
    pool = bench.add_pool(size=2)
    bench.apply(ResizePool("web", 4))
    master = bench.samples["web"].master
    assert master is not None
    bench.kernel.exit(master.pid)
    (outcome,) = bench.actuator.undo()
    assert outcome.status is Status.VANISHED
    assert pool.requests == [4]
    assert open_rows(bench) == 0


def test_a_pool_that_nobody_configured_here_stays_open_and_undo_says_what_is_left(bench: Bench) -> None:
    bench.add_pool(size=2)
    bench.apply(ResizePool("web", 4))
    bench.pools.clear()
    (outcome,) = bench.actuator.undo()
    assert outcome.status is Status.FAILED
    assert "from 2 to 4" in outcome.detail
    assert "[pools.web]" in outcome.detail
    assert open_rows(bench) == 1


def test_two_sizes_for_a_pool_in_one_call_are_not_taken_for_a_hand(bench: Bench) -> None:
    pool = bench.add_pool(size=2)
    outcomes = bench.apply(ResizePool("web", 4), ResizePool("web", 5))
    assert [outcome.status for outcome in outcomes] == [Status.APPLIED, Status.APPLIED]
    bench.look("web")
    bench.actuator.undo()
    assert pool.requests == [4, 5, 2]


def test_a_worker_is_recycled_through_its_pool(bench: Bench) -> None:
    bench.add_pool(size=2)
    worker = bench.samples["web"].workers[0].id
    (outcome,) = bench.apply(Recycle("web", worker))
    assert (outcome.status, outcome.changed) == (Status.APPLIED, 1)
    bench.clock.advance(1_000_000_000)
    assert worker not in [each.id for each in bench.look("web").workers]


# --- observing ------------------------------------------------------------------------------------------------------------------


def test_observing_says_what_it_would_change_and_writes_nothing(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.kernel.spawn(process.pid)
    bench.add_pool(size=2)
    worker = bench.samples["web"].workers[0].id
    observing = Observing(bench.kernel, bench.pools, bench.samples, bench.kernel.forbidden)
    gone = ProcId(77, 1)
    actions: tuple[Action, ...] = (
        set_nice(process, 10),
        Set(Control.AFFINITY, ProcessPlace(process), (1, 2, 3)),
        set_nice(process, 0),
        set_nice(gone, 3),
        ResizePool("web", 5),
        ResizePool("web", 2),
        ResizePool("nobody", 2),
        Recycle("web", worker),
        Flag("web", worker, "leak"),
        back(process),
    )
    outcomes = observing.apply([bench.decide(action) for action in actions])
    expected = [
        Status.OBSERVED,
        Status.OBSERVED,
        Status.UNCHANGED,
        Status.VANISHED,
        Status.OBSERVED,
        Status.UNCHANGED,
        Status.FAILED,
    ]
    assert [outcome.status for outcome in outcomes] == [*expected, Status.OBSERVED, Status.OBSERVED, Status.UNCHANGED]
    assert outcomes[0].detail == f"would change nice of pid {process.pid}: 0 -> 10"
    assert outcomes[1].detail == f"would change affinity of pid {process.pid}: CPUs 0-3 -> CPUs 1-3"
    assert outcomes[4].detail == "would ask pool web for 5 workers, 2 now"
    assert {outcome.changed for outcome in outcomes} == {0}
    assert (bench.kernel.writes, observing.settle(), observing.undo()) == ([], (), ())
    assert bench.look("web").requested == 2


# --- any order of events --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """kill -9"""


THREAD_CONTROLS = (Control.NICE, Control.POLICY, Control.AFFINITY, Control.SLICE)
OURS: dict[Control, list[Value]] = {
    Control.NICE: [5, 10, 15],
    Control.POLICY: [3, 5],
    Control.AFFINITY: [(0,), (0, 1)],
    Control.SLICE: [100_000, 500_000],
    Control.AUTOGROUP: [5, 19],
}
EXPECTED: dict[Control, Value] = {  # what nobody has chosen
    Control.NICE: 0,
    Control.POLICY: 0,
    Control.AFFINITY: (0, 1, 2, 3),
    Control.SLICE: 0,
    Control.AUTOGROUP: 0,
}
THEIRS: dict[Control, list[Value]] = {  # values that we never set: a foreign value that equals ours cannot be told from it
    Control.NICE: [1, 2, 3],
    Control.POLICY: [0],
    Control.AFFINITY: [(2,), (1, 3)],
    Control.SLICE: [7_000_000, 0],
    Control.AUTOGROUP: [1, 2],
}


class World(RuleBasedStateMachine):
    """`natural` is the world as it would be without us: what every value was, was inherited as, or was made by somebody else.

    Whatever happens, after undo each value is the natural one.
    """

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)
        self.bench = Bench(Path(self.folder.name))
        self.natural: dict[Knob, Value] = {}
        self.later: set[int] = set()  # sessions that were begun by a child
        self.chosen = False  # whether somebody else has changed anything

    def teardown(self) -> None:
        try:
            self.undo()
        finally:
            self.bench.ledger.close()
            self.folder.cleanup()

    @initialize()
    def begin(self) -> None:
        self.admit(self.bench.kernel.start())
        self.admit(self.bench.kernel.start())

    def knob(self, control: Control, pid: int, tid: int | None = None) -> Knob:
        return self.bench.kernel.knob(control, pid, tid)

    def now(self, knob: Knob) -> Value:
        found = self.bench.kernel.read(knob)
        assert not isinstance(found, Trouble)
        return found

    def admit(self, process: ProcId, parent: int | None = None) -> None:
        for control in THREAD_CONTROLS:
            mine = self.knob(control, process.pid)
            self.natural[mine] = self.now(mine) if parent is None else self.natural[self.knob(control, parent)]
        self.natural.setdefault(self.knob(Control.AUTOGROUP, process.pid), 0)

    def pids(self) -> list[int]:
        return [pid for pid in self.bench.kernel.processes if pid != 1]

    def pid(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(self.pids()))

    def actions(self, data: st.DataObject) -> list[Action]:
        actions: list[Action] = []
        for _ in range(data.draw(st.integers(1, 3))):
            control = data.draw(st.sampled_from([*THREAD_CONTROLS, Control.AUTOGROUP]))
            process = self.bench.kernel.processes[self.pid(data)].id
            if data.draw(st.integers(0, 3)) == 0:
                actions.append(Restore(control, place_of(control, process)))
            else:
                value = data.draw(st.sampled_from(OURS[control]))
                actions.append(
                    Set(control, place_of(control, process), value, data.draw(st.sampled_from([None, EXPECTED[control]])))
                )
        return actions

    @rule(data=st.data())
    @precondition(lambda self: self.pids())
    def apply(self, data: st.DataObject) -> None:
        outcomes = self.bench.apply(*self.actions(data))
        assert self.chosen or all(outcome.status is not Status.FOREIGN for outcome in outcomes), outcomes

    @rule(data=st.data(), after=st.integers(0, 4), again=st.booleans())
    @precondition(lambda self: self.pids())
    def crash(self, data: st.DataObject, after: int, again: bool) -> None:
        left = [after]
        actions = self.actions(data)

        def die(knob: Knob) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1

        self.bench.kernel.before_write = die
        with contextlib.suppress(Killed):
            self.bench.apply(*actions)
        left[0] = after
        self.bench.ledger.close()
        self.bench.restart()
        if again:
            with contextlib.suppress(Killed):
                self.bench.actuator.undo()
            self.bench.ledger.close()
            self.bench.restart()
        self.bench.kernel.before_write = None
        self.undo()

    @rule(data=st.data(), setsid=st.booleans())
    @precondition(lambda self: self.pids())
    def fork(self, data: st.DataObject, setsid: bool) -> None:
        parent = self.pid(data)
        if any(process.parent == parent for process in self.bench.kernel.processes.values()) and len(self.pids()) > 12:
            return
        child = self.bench.kernel.fork(parent)
        if setsid:
            self.bench.kernel.setsid(child.pid)
            self.later.add(child.pid)
        self.admit(child, parent)

    @rule(data=st.data())
    @precondition(lambda self: self.pids())
    def spawn(self, data: st.DataObject) -> None:
        pid = self.pid(data)
        tid = self.bench.kernel.spawn(pid).tid
        for control in THREAD_CONTROLS:
            self.natural[self.knob(control, pid, tid)] = self.natural[self.knob(control, pid)]

    @rule(data=st.data(), reuse=st.booleans())
    @precondition(lambda self: len(self.pids()) > 1)
    def exit(self, data: st.DataObject, reuse: bool) -> None:
        """Who is in a session that began after the change, and then loses its parent, cannot be found (see the decision record):
        not so here."""
        pid = self.pid(data)
        process = self.bench.kernel.processes[pid]
        children = [each for each in self.bench.kernel.processes.values() if each.parent == pid]
        if children and (process.session in self.later or any(each.session != process.session for each in children)):
            return
        self.bench.kernel.exit(pid)
        if reuse and self.bench.kernel.is_free(pid):
            self.admit(self.bench.kernel.start(pid=pid))

    @rule(data=st.data())
    @precondition(lambda self: self.pids())
    def somebody_else(self, data: st.DataObject) -> None:
        control = data.draw(st.sampled_from([Control.NICE, Control.AFFINITY, Control.SLICE, Control.AUTOGROUP]))
        knob = self.knob(control, self.pid(data))
        value = data.draw(st.sampled_from(THEIRS[control]))
        self.bench.kernel.poke(knob, value)
        self.natural[knob] = value
        self.chosen = True

    @rule()
    def settle(self) -> None:
        for _ in range(16):
            self.bench.actuator.settle()

    @rule()
    def undo(self) -> None:
        self.bench.actuator.undo()
        assert self.bench.ledger.outstanding() == ()
        for process in self.bench.kernel.processes.values():
            for tid in process.threads if process.id.pid != 1 else ():
                for control in THREAD_CONTROLS:
                    knob = self.knob(control, process.id.pid, tid)
                    assert self.now(knob) == self.natural[knob], f"{knob} is {self.now(knob)}, {self.natural[knob]} without us"
        for key, value in self.bench.kernel.autogroups.items():
            knob = Knob(Control.AUTOGROUP, AutogroupPlace(key, self.bench.kernel.own))
            if any(process.autogroup == key for process in self.bench.kernel.processes.values()):
                assert value == self.natural.get(knob, 0)
        assert self.bench.actuator.undo() == ()

    @invariant()
    def init_is_never_touched(self) -> None:
        assert self.bench.kernel.processes[1].leader.nice == 0


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# --- what cannot be looked at -----------------------------------------------------------------------------------------------------

FULL = Trouble(Status.BLOCKED, "Too many open files")


def test_whom_nobody_can_look_at_is_not_gone(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 10))
    bench.kernel.exhausted = FULL
    for _ in range(40):
        assert bench.actuator.settle() == ()
    assert open_rows(bench) == 1
    (outcome,) = bench.actuator.undo()
    assert outcome.status is Status.APPLIED, "a few descriptors were kept back for it"
    bench.kernel.exhausted = None
    assert bench.nice(process.pid) == 0


def test_an_undo_that_cannot_look_at_its_target_says_so_and_keeps_the_entry(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 10))
    bench.kernel.faults[process.pid] = FULL
    (outcome,) = bench.actuator.undo()
    assert (outcome.status, outcome.detail) == (Status.BLOCKED, FULL.text)
    assert open_rows(bench) == 1
    del bench.kernel.faults[process.pid]
    assert [outcome.status for outcome in bench.actuator.undo()] == [Status.APPLIED]
    assert (bench.nice(process.pid), open_rows(bench)) == (0, 0)


@pytest.mark.parametrize("status", [Status.BLOCKED, Status.LATER, Status.FAILED])
def test_an_heir_that_cannot_be_looked_at_keeps_the_entry_open(bench: Bench, status: Status) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 10))
    heir = bench.kernel.fork(process.pid)
    bench.kernel.faults[heir.pid] = Trouble(status, "not now")
    (outcome,) = bench.actuator.undo()
    assert (outcome.status, bench.nice(process.pid)) == (Status.PARTIAL, 0)
    assert "not now" in outcome.detail
    assert open_rows(bench) == 1
    for _ in range(40):
        assert bench.actuator.settle() == (), "what undo put back is nobody's change by hand"
    bench.kernel.faults.clear()
    assert bench.actuator.undo()[0].status is Status.APPLIED
    assert (bench.nice(heir.pid), open_rows(bench)) == (0, 0)


def test_an_ended_parent_is_closed_only_when_all_could_be_looked_at(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(set_nice(process, 10))
    heir = bench.kernel.fork(process.pid)
    bench.kernel.exit(process.pid)
    bench.kernel.faults[heir.pid] = FULL
    for _ in range(40):
        bench.actuator.settle()
    assert open_rows(bench) == 1
    bench.kernel.faults.clear()
    for _ in range(40):
        bench.actuator.settle()
    assert [entry.process for entry in bench.ledger.outstanding()] == [heir], "it was adopted"
    bench.actuator.undo()
    assert bench.nice(heir.pid) == 0


def test_a_child_is_not_called_changed_by_hand_where_its_parent_cannot_be_found(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.apply(Set(Control.NICE, ProcessPlace(process), 10, expected=0))
    heir, other = bench.kernel.fork(process.pid), bench.kernel.start()
    bench.kernel.faults[other.pid] = FULL
    (outcome,) = bench.apply(Set(Control.NICE, ProcessPlace(heir), 15, expected=0))
    assert outcome.status is Status.BLOCKED
    bench.kernel.faults.clear()
    assert bench.apply(Set(Control.NICE, ProcessPlace(heir), 15, expected=0))[0].status is Status.APPLIED
    bench.actuator.undo()
    assert [bench.nice(each.pid) for each in (process, heir)] == [0, 0]


def test_a_change_that_cannot_be_read_back_stays_open(bench: Bench) -> None:
    process = bench.kernel.start()
    stored = bench.kernel._store

    def store(knob: Knob, value: Value) -> None:
        stored(knob, value)
        bench.kernel.faults[process.pid] = FULL

    bench.kernel._store = store  # type: ignore[method-assign]
    (outcome,) = bench.apply(set_nice(process, 10))
    assert outcome.status is Status.BLOCKED
    assert open_rows(bench) == 1
    bench.kernel._store = stored  # type: ignore[method-assign]
    bench.kernel.faults.clear()
    bench.actuator.undo()
    assert (bench.nice(process.pid), open_rows(bench)) == (0, 0)


def test_a_write_that_failed_half_way_stays_open(bench: Bench) -> None:
    process = bench.kernel.start()
    write = bench.kernel.write

    def half(knob: Knob, expected: Value, value: Value) -> Trouble | None:
        write(knob, expected, value)
        return Trouble(Status.BLOCKED, "Too many open files; what was made of it could not be taken away")

    bench.kernel.write = half  # type: ignore[method-assign]
    bench.apply(Set(Control.FENCE, ProcessPlace(process), (300, 0, 0)))
    bench.kernel.write = write  # type: ignore[method-assign]
    assert open_rows(bench) == 1, "the fence is there"
    assert [outcome.status for outcome in bench.actuator.undo()] == [Status.APPLIED]


def test_a_pool_in_the_ledger_does_not_keep_the_periodic_check_from_the_values_after_it(bench: Bench) -> None:
    bench.add_pool(size=2)
    first, last = bench.kernel.start(), bench.kernel.start()
    bench.apply(set_nice(first, 5), ResizePool("web", 4), set_nice(last, 5))
    bench.kernel.poke(bench.kernel.knob(Control.NICE, first.pid), 3)
    assert [(outcome.status, outcome.decision) for outcome in bench.actuator.settle()] == [(Status.FOREIGN, "s-0.1")]
