"""The guard: every no has its rule, and is said once."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.config.sections import Config
from nicety.scheduler.config.sections import Guard as Section
from nicety.scheduler.config.sections import Quarantine as QuarantineSection
from nicety.scheduler.decide.guard import Guard, GuardMemory
from nicety.scheduler.decide.policies.policy import Result
from nicety.scheduler.decision import Action, Decision, Flag, Group, Member, Pool, Recycle, ResizePool, Restore, Set, Tick, Why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.testing.ticks import a_group, a_machine, a_member, a_pool, a_tick

HOG = ProcId(20, 20)
WORKER = ProcId(9000, 9000)


def decide(action: Action, target: str = "t", policy: str = "priority") -> Decision:
    return Decision("", policy, target, action, Why("rule", "text", {}, (), ()))


def nice(process: ProcId = HOG, value: int = 19) -> Decision:
    return decide(Set(Control.NICE, ProcessPlace(process), value), f"pid {process.pid}")


def resize(size: int, pool: str = "web") -> Decision:
    return decide(ResizePool(pool, size), f"pool {pool}", "pool_size")


def world(seq: int = 1, *groups: Group, **changes: object) -> Tick:
    batch = a_group("hogs", Class.BATCH, [a_member(pid, session=20, cgroup="/jobs/a") for pid in range(20, 60)], cpu=2.0)
    return a_tick(seq, **{"groups": [batch, *groups], "pools": [a_pool()], **changes})  # type: ignore[arg-type]


def guard(**changes: object) -> Guard:
    return Guard(Config(guard=Section(**changes)), "s", GuardMemory())  # type: ignore[arg-type]


def rules(guards: Guard, tick: Tick, *decisions: Decision) -> list[str]:
    """ "" for what is admitted, else the rule of the refusal, "stands" where it was told before; in the order of the proposals."""
    admitted, refusals = guards.review(tick, decisions)
    said = {id(refusal.decision): refusal.rule for refusal in refusals} | {id(decision): "" for decision in admitted}
    return [said.get(id(decision), "stands") for decision in decisions]


def idle(pool: Pool) -> Pool:
    """The pool with nothing to do."""
    return msgspec.structs.replace(pool, workers=tuple(msgspec.structs.replace(worker, busy=0.0) for worker in pool.workers))


def test_what_breaks_no_rule_is_admitted_in_order() -> None:
    proposals = [nice(), resize(5), decide(Flag("web", WORKER, "leak"), "w"), decide(Recycle("web", WORKER), "w")]
    admitted, refusals = guard().review(world(pools=[idle(a_pool())]), proposals)
    assert admitted == proposals
    assert refusals == []


@pytest.mark.parametrize(
    ("action", "rule"),
    [
        (ResizePool("web", 17), "limits"),
        (ResizePool("web", 16), ""),
        (ResizePool("web", 1), ""),
        (ResizePool("web", 0), "limits"),
        (ResizePool("nosuch", 1), "limits"),
        (Set(Control.NICE, ProcessPlace(HOG), 20), "limits"),
        (Set(Control.NICE, ProcessPlace(HOG), -1), "limits"),
        (Set(Control.NICE, ProcessPlace(HOG), 0), ""),
        (Set(Control.NICE, ProcessPlace(HOG), (1,)), "limits"),
        (Set(Control.SLICE, ProcessPlace(HOG), 99_999), "limits"),
        (Set(Control.SLICE, ProcessPlace(HOG), 100_000), ""),
        (Set(Control.SLICE, ProcessPlace(HOG), 100_000_000), ""),
        (Set(Control.SLICE, ProcessPlace(HOG), 100_000_001), "limits"),
        (Set(Control.NICE, ProcessPlace(WORKER), 6), "limits"),
        (Set(Control.NICE, ProcessPlace(WORKER), 5), ""),
        (Set(Control.AUTOGROUP, SessionPlace(HOG.pid, HOG), 20), "limits"),
        # of a group without a class: its session is not logged
        (Set(Control.AUTOGROUP, SessionPlace(WORKER.pid, WORKER), 5), "never touch"),
        (Set(Control.POLICY, ProcessPlace(HOG), 1), "limits"),
        (Set(Control.POLICY, ProcessPlace(HOG), -1), "limits"),
        (Set(Control.POLICY, ProcessPlace(HOG), 0), ""),
        (Set(Control.POLICY, ProcessPlace(HOG), 3), ""),
        (Set(Control.POLICY, ProcessPlace(HOG), 5), ""),
        (Set(Control.AFFINITY, ProcessPlace(HOG), ()), "limits"),
        (Set(Control.AFFINITY, ProcessPlace(HOG), (2,)), "limits"),
        (Set(Control.AFFINITY, ProcessPlace(HOG), 1), "limits"),
        (Set(Control.AFFINITY, ProcessPlace(HOG), (0, 1)), "last cpu"),
        (Set(Control.AFFINITY, ProcessPlace(HOG), (1,)), ""),
        (Set(Control.CPU_WEIGHT, CgroupPlace("/jobs"), 0), "limits"),
        (Set(Control.CPU_WEIGHT, CgroupPlace("/jobs"), 10_001), "limits"),
        (Set(Control.CPU_WEIGHT, CgroupPlace("/jobs"), 1), ""),
        (Set(Control.CPU_WEIGHT, CgroupPlace("/jobs"), 10_000), ""),
        (Set(Control.CPU_IDLE, CgroupPlace("/jobs"), 1), ""),
        (Set(Control.CPU_IDLE, CgroupPlace("/jobs"), 2), "limits"),
        (Set(Control.CPU_SHARES, CgroupPlace("/jobs"), 2), ""),
        (Set(Control.CPU_SHARES, CgroupPlace("/jobs"), 262_145), "limits"),
        (Set(Control.CPU_SHARES, CgroupPlace("/jobs"), 1), "limits"),
        (Set(Control.CPU_SHARES, CgroupPlace("/"), 10), "limits"),
        (Set(Control.CPU_SHARES, CgroupPlace("/jobs"), 10), ""),
        (Recycle("web", HOG), "limits"),
        (Set(Control.NICE, ProcessPlace(ProcId(20, 21)), 5), "never touch"),  # the pid, but another process
        (Set(Control.NICE, ProcessPlace(ProcId(777, 777)), 5), "never touch"),
    ],
    ids=str,
)
def test_limits(action: Action, rule: str) -> None:
    assert rules(guard(), world(), decide(action)) == [rule]


def test_cpu_numbers_may_have_holes() -> None:
    """SMT switched off where siblings stand side by side: 0, 2, 4, 6."""
    guards = Guard(Config(), "s", GuardMemory(), (0, 2, 4, 6))
    machine = msgspec.structs.replace(world().machine, cpus=4)
    said = [
        rules(guards, world(machine=machine), decide(Set(Control.AFFINITY, ProcessPlace(HOG), cpus), str(cpus)))
        for cpus in ((4, 6), (1, 2), (0, 2, 4, 6))
    ]
    assert said == [[""], ["limits"], ["last cpu"]]


@pytest.mark.parametrize(
    ("process", "value", "rule"),
    [
        (WORKER, (300, 0, 8, 0), ""),
        (WORKER, (99, 0, 8, 0), "limits"),  # a lock would be held ten times as long
        (WORKER, (0, 0, 0, 0), "limits"),
        (WORKER, (300, -1, 0, 0), "limits"),
        (WORKER, 300, "limits"),
        (WORKER, (300, 0, 8), "limits"),
        (WORKER, (300, 0, 8, 10_001), "limits"),
        (WORKER, (0, 0, 0, 1), "limits"),  # it shares locks with its siblings
        (HOG, (300, 0, 8, 0), "limits"),  # no worker
        (HOG, (300, 0, 8, 1), "limits"),
        (HOG, (0, 0, 0, 1), ""),
        (HOG, (0, 0, 0, 10_000), ""),
        (HOG, (0, 0, 0, 10_001), "limits"),
        (HOG, (0, 0, 0, -1), "limits"),
        (ProcId(20, 21), (0, 0, 0, 1), "never touch"),  # the pid, but another process
    ],
)
def test_only_workers_are_fenced_in_and_never_so_that_they_cannot_give_a_lock_back(
    process: ProcId, value: int | tuple[int, ...], rule: str
) -> None:
    tick = world(1, pools=[a_pool("web", 3, first_pid=WORKER.pid)])
    assert rules(guard(), tick, decide(Set(Control.FENCE, ProcessPlace(process), value))) == [rule]


LOOP = a_member(20, session=20)
SHELL = Member(ProcId(21, 21), 20, "/", 0, parent=20, owner=0)


def below(pid: int, parent: int = 21) -> Member:
    return Member(ProcId(pid, pid), 20, "/", 0, parent, owner=0)


@pytest.mark.parametrize(
    ("changes", "class_", "rule"),
    [
        ({}, Class.BATCH, ""),
        ({}, Class.INTERACTIVE, "never touch"),
        ({"protected": (ProcId(50, 50),)}, Class.BATCH, "never touch"),
        ({"protected": (HOG,)}, Class.BATCH, "never touch"),
        ({"home": below(60)}, Class.BATCH, "never touch"),
        ({"home": below(60, parent=61)}, Class.BATCH, ""),
        ({"sheltered": (below(60),)}, Class.BATCH, "never touch"),
        ({"pools": [a_pool("web", 3, first_pid=50)]}, Class.BATCH, "never touch"),
    ],
    ids=["batch", "interactive", "protected", "itself", "home", "home elsewhere", "guard.protect", "worker"],
)
def test_a_swarm_is_fenced_in_unless_it_takes_somebody_along_that_must_not_be(
    changes: dict[str, object], class_: Class, rule: str
) -> None:
    """The third generation is what counts: the loop is of the hogs, and so is the shell that it started."""
    batch = a_group("hogs", Class.BATCH, [LOOP, SHELL], cpu=2.0)
    other = a_group("other", class_, [below(50)])
    tick = a_tick(1, groups=[batch, other], **changes)  # type: ignore[arg-type]
    assert rules(guard(), tick, decide(Set(Control.FENCE, ProcessPlace(HOG), (0, 0, 0, 1)))) == [rule]


def test_the_guard_counts_a_fence_as_one_change_that_cools_down() -> None:
    guards, fence = guard(changes_per_tick=1), decide(Set(Control.FENCE, ProcessPlace(HOG), (0, 0, 0, 1)), "group hogs pid 20")
    assert rules(guards, world(1), fence, nice(ProcId(21, 21))) == ["", "budget"]
    assert rules(guards, world(2), fence) == ["cool-down"]


def test_a_paused_guard_refuses_all() -> None:
    proposals = [nice(), decide(Flag("web", WORKER, "leak")), decide(Restore(Control.NICE, ProcessPlace(HOG)))]
    assert rules(guard(), world(paused=True), *proposals) == ["paused"] * 3


def test_a_refusal_that_stands_is_said_once_and_again_when_the_proposal_changes() -> None:
    guards = guard()
    assert rules(guards, world(1), resize(17)) == ["limits"]
    assert guards.review(world(2), [resize(17)]) == ([], [])
    assert rules(guards, world(3), resize(18)) == ["limits"]
    assert rules(guards, world(4, paused=True), resize(18)) == ["paused"]
    assert guards.review(world(5), []) == ([], [])
    assert rules(guards, world(6, paused=True), resize(18)) == ["paused"]


def test_what_was_said_stands_while_the_wish_waits_for_its_turn() -> None:
    guards = guard()
    tick = world(protected=(HOG,))
    assert rules(guards, tick, nice()) == ["never touch"]
    assert guards.review(tick, [], {"priority nice 20.20"}) == ([], [])
    assert rules(guards, tick, nice()) == ["stands"]
    assert guards.review(tick, [], {"priority nice 21.21"}) == ([], [])
    assert rules(guards, tick, nice()) == ["never touch"]


def test_a_pool_in_trouble_is_left_alone() -> None:
    tick = world(pools=[a_pool(trouble="crash loop")])
    assert rules(guard(), tick, resize(5), decide(Recycle("web", WORKER), "w")) == ["trouble", "trouble"]


def test_without_the_right_to_undo_nothing_is_reniced() -> None:
    tick = world(machine=a_machine(may_renice=False))
    actions: Sequence[Action] = (
        Set(Control.NICE, ProcessPlace(HOG), 19),
        Set(Control.AUTOGROUP, SessionPlace(HOG.pid, HOG), 19),
        Set(Control.POLICY, ProcessPlace(HOG), 5),
        Set(Control.CPU_SHARES, CgroupPlace("/jobs"), 10),
        Set(Control.AFFINITY, ProcessPlace(HOG), (1,)),
    )
    assert [rules(guard(), tick, decide(action))[0] for action in actions] == ["no undo", "no undo", "no undo", "", ""]


def test_protected_processes_are_never_touched() -> None:
    tick = world(protected=(HOG, WORKER))
    assert rules(guard(), tick, nice(), nice(ProcId(21, 21))) == ["never touch", ""]
    assert rules(guard(), tick, decide(Recycle("web", WORKER), "w")) == ["never touch"]


def test_init_and_programs_of_the_list_are_never_touched_even_if_the_observer_missed_them() -> None:
    odd = a_group("program sshd", Class.BATCH, [a_member(70)])
    init = a_group("init", Class.BATCH, [a_member(1)])
    assert rules(guard(), world(1, odd, init), nice(ProcId(70, 70)), nice(ProcId(1, 1))) == ["never touch", "never touch"]


def test_a_session_or_cgroup_is_not_demoted_if_a_protected_process_would_be_taken_along() -> None:
    session = decide(Set(Control.AUTOGROUP, SessionPlace(HOG.pid, HOG), 19), "session 20")
    cgroup = decide(Set(Control.CPU_SHARES, CgroupPlace("/jobs"), 10), "cgroup /jobs")
    elsewhere = decide(Set(Control.CPU_SHARES, CgroupPlace("/job"), 10), "cgroup /job")
    tick = world(protected=(ProcId(30, 30),))
    assert rules(guard(), tick, session, cgroup, elsewhere) == ["never touch", "never touch", ""]
    assert rules(guard(), world(), session, cgroup) == ["", ""]


def test_a_session_or_cgroup_is_not_demoted_with_a_program_of_the_list_in_it_though_that_has_no_class() -> None:
    session = decide(Set(Control.AUTOGROUP, SessionPlace(HOG.pid, HOG), 19), "session 20")
    cgroup = decide(Set(Control.CPU_SHARES, CgroupPlace("/jobs"), 10), "cgroup /jobs")
    (hogs,) = (group for group in world().groups if any(member.id == HOG for member in group.members))
    own = next(member for member in hogs.members if member.id == HOG)
    beside = a_member(90, session=own.session)
    within = msgspec.structs.replace(a_member(91, session=91), cgroup="/jobs/ssh")
    assert rules(guard(), msgspec.structs.replace(world(), sheltered=(beside,)), session, cgroup) == ["never touch", ""]
    assert rules(guard(), msgspec.structs.replace(world(), sheltered=(within,)), session, cgroup) == ["", "never touch"]


def test_a_session_led_by_a_protected_process_is_not_demoted() -> None:
    shell = a_group("hogs", Class.BATCH, [a_member(80, session=75)])
    tick = a_tick(1, groups=[shell], protected=(ProcId(75, 3),))
    assert rules(guard(), tick, decide(Set(Control.AUTOGROUP, SessionPlace(80, ProcId(80, 80)), 19))) == ["never touch"]


def test_a_pool_may_be_demoted_together_with_its_master() -> None:
    members = [a_member(9000, session=8999), a_member(8999, session=8999)]
    tick = a_tick(1, groups=[a_group("web", Class.BATCH, members)], pools=[a_pool(size=1)], protected=(ProcId(8999, 8999),))
    assert rules(
        guard(), tick, decide(Set(Control.AUTOGROUP, SessionPlace(WORKER.pid, WORKER), 5)), nice(ProcId(8999, 8999), 5)
    ) == ["", "never touch"]


def test_the_budget_of_a_tick_holds_and_restores_and_flags_do_not_count() -> None:
    proposals = [decide(Restore(Control.NICE, ProcessPlace(ProcId(pid, pid))), f"r{pid}") for pid in range(20, 30)]
    proposals += [decide(Flag("web", WORKER, "leak"), "w")]
    proposals += [nice(ProcId(pid, pid)) for pid in range(30, 36)]
    assert rules(guard(changes_per_tick=3), world(), *proposals) == [""] * 14 + ["budget"] * 3


def test_the_same_control_of_a_target_cools_down_after_a_change_but_may_be_returned() -> None:
    guards = guard(cooldown=3.0)
    assert rules(guards, world(1), nice()) == [""]
    assert rules(guards, world(2), decide(Restore(Control.NICE, ProcessPlace(HOG)), "pid 20")) == [""]
    assert rules(guards, world(3), nice()) == ["cool-down"]
    assert rules(guards, world(4), nice()) == [""]


def test_one_tick_changes_a_control_of_a_target_once() -> None:
    assert rules(guard(), world(), resize(5), resize(3)) == ["", "one change"]
    assert rules(guard(), world(), decide(Restore(Control.NICE, ProcessPlace(HOG)), "by another name"), nice()) == [
        "",
        "one change",
    ]


def test_what_failed_is_tried_again_later_and_later() -> None:
    guards, tries = guard(cooldown=0.0), []
    for seq in range(700):
        admitted, _ = guards.review(world(seq), [nice()])
        if admitted:
            tries.append(seq)
            guards.learn(Result(admitted[0].action, "pid 20", Status.FAILED, world(seq).at))
    assert tries == [0, 2, 6, 14, 30, 62, 126, 254, 510]
    guards.learn(Result(nice().action, "pid 20", Status.APPLIED, 0))
    assert rules(guards, world(701), nice()) == [""]


def test_the_back_off_ends_at_its_longest() -> None:
    guards = guard()
    for _ in range(2000):
        guards.learn(Result(nice().action, "pid 20", Status.REFUSED, 0))
    assert guards.memory.backoff["nice 20.20"].until == 300 * 10**9


def test_hands_off_what_somebody_else_changed_until_the_session_ends() -> None:
    guards = guard()
    guards.learn(Result(None, "pid 20", Status.FOREIGN, 0))
    assert rules(guards, world(1), nice(), decide(Restore(Control.NICE, ProcessPlace(HOG)), "pid 20")) == ["hands off", "hands off"]
    assert rules(guards, world(2000), nice()) == ["hands off"]
    assert rules(Guard(Config(), "s", guards.memory), world(3), nice(ProcId(21, 21))) == [""]
    guards.learn(Result(nice(ProcId(21, 21)).action, "pid 21", Status.FOREIGN, 0))
    assert rules(guards, world(4), nice(ProcId(21, 21))) == ["hands off"]
    assert rules(guards, world(5), decide(Set(Control.POLICY, ProcessPlace(ProcId(21, 21)), 3), "pid 21")) == [""]  # another knob
    assert guards.memory.hands_off == ["nice 21.21", "pid 20"]
    assert rules(Guard(Config(), "next", guards.memory), world(4), nice()) == [""]


def test_the_size_of_a_pool_is_left_to_its_adapter_but_not_the_nice_of_a_worker() -> None:
    guards = guard()
    resize = decide(ResizePool("web", 7), "pool web", "pool_size")
    guards.learn(Result(resize.action, "pool web", Status.FOREIGN, 0))
    guards.learn(Result(None, "pool web", Status.FOREIGN, 0))
    assert rules(guards, world(1), resize) == [""]
    demoted = decide(Set(Control.NICE, ProcessPlace(WORKER), 5), f"pool web worker {WORKER.pid}", "quarantine")
    guards.learn(Result(demoted.action, demoted.target, Status.FOREIGN, 0))
    assert rules(guards, world(2), demoted) == ["hands off"]


def test_one_worker_of_a_pool_is_recycled_at_a_time_and_so_many_in_an_hour() -> None:
    guards = Guard(Config(quarantine=QuarantineSection(recycles_per_hour=2)), "s", GuardMemory())

    def recycle(pid: int) -> Decision:
        return decide(Recycle("web", ProcId(pid, pid)), f"worker {pid}", "quarantine")

    assert rules(guards, world(1, pools=[idle(a_pool())]), recycle(9000)) == [""]
    assert rules(guards, world(2), recycle(9001)) == ["budget"]  # 9000 is still there
    gone = a_pool(workers=idle(a_pool()).workers[1:])
    assert rules(guards, world(3, pools=[gone]), recycle(9001)) == [""]
    gone = a_pool(workers=idle(a_pool()).workers[2:])
    assert rules(guards, world(4, pools=[gone]), recycle(9002)) == ["budget"]  # two this hour
    assert rules(guards, world(3602, pools=[gone]), recycle(9002)) == [""]


def test_a_recycled_worker_that_does_not_leave_holds_up_the_others_for_a_minute() -> None:
    guards, pools = Guard(Config(), "s", GuardMemory()), [idle(a_pool())]
    first, second = (decide(Recycle("web", ProcId(pid, pid)), f"worker {pid}", "quarantine") for pid in (9000, 9001))
    assert rules(guards, world(1, pools=pools), first) == [""]
    after = world(61, pools=pools)
    before = msgspec.structs.replace(after, at=after.at - 1)
    assert [rules(guards, tick, second)[0] for tick in (world(2, pools=pools), before, after)] == ["budget", "stands", ""]


def test_what_has_ended_does_not_cool_down() -> None:
    guards = guard(cooldown=30.0)
    assert rules(guards, world(1), nice()) == [""]
    guards.learn(Result(nice().action, "pid 20", Status.VANISHED, world(1).at))
    assert rules(guards, world(2), nice()) == [""]


def test_a_busy_worker_is_not_recycled_before_its_deadline() -> None:
    guards = Guard(Config(quarantine=QuarantineSection(busy_deadline=60.0)), "s", GuardMemory())
    recycle = decide(Recycle("web", WORKER), "worker", "quarantine")
    said = [rules(guards, world(seq), recycle)[0] for seq in range(1, 62)]
    assert said == ["busy", *["stands"] * 59, ""]


@pytest.mark.parametrize(("busy", "rule"), [(0.0, ""), (0.01, "busy"), (1.0, "busy"), (None, "busy")])
def test_who_may_be_busy_is_taken_for_it(busy: float | None, rule: str) -> None:
    guards = Guard(Config(), "s", GuardMemory())
    pool = a_pool(workers=tuple(msgspec.structs.replace(worker, busy=busy) for worker in a_pool().workers))
    assert rules(guards, world(1, pools=[pool]), decide(Recycle("web", WORKER), "worker", "quarantine")) == [rule]


# --- what nicety itself lacks -----------------------------------------------------------------------------------------------------


def blocked(guards: Guard, seq: int, decision: Decision) -> None:
    guards.learn(Result(decision.action, decision.target, Status.BLOCKED, world(seq).at))


def test_while_nothing_can_be_recorded_nothing_new_is_tried_and_that_is_said_once() -> None:
    guards, changes = guard(), [nice(), resize(5), decide(Recycle("web", WORKER), "w")]
    tick = world(1, pools=[idle(a_pool())])
    assert rules(guards, tick, nice()) == [""]
    blocked(guards, 1, nice())
    again = [rules(guards, msgspec.structs.replace(tick, seq=2), *changes) for _ in range(2)]
    assert again[0] == ["blocked"] * 3, "also what would have turned something else"
    assert again[1] == ["stands"] * 3
    assert guards.memory.backoff == {}, "it is no fault of the target"
    assert rules(guards, tick, decide(Restore(Control.NICE, ProcessPlace(HOG)), "t"), decide(Flag("web", WORKER, "leak"), "w")) == [
        "",
        "",
    ]


def test_it_is_tried_again_after_a_pause_that_doubles_and_ends_when_something_can_be_done() -> None:
    guards, first = guard(cooldown=0.0), nice()
    blocked(guards, 1, first)
    blocked(guards, 1, nice(ProcId(21, 21)))
    assert guards.memory.blocked is not None
    assert guards.memory.blocked.failures == 1, "those of one tick are one"
    assert rules(guards, world(2), first) == ["blocked"]
    assert rules(guards, world(3), first) == [""]
    blocked(guards, 3, first)
    assert [rules(guards, world(seq), first) for seq in (4, 6, 7)] == [["blocked"], ["stands"], [""]]
    guards.learn(Result(first.action, first.target, Status.APPLIED, world(7).at))
    assert guards.memory.blocked is None


def test_what_comes_later_is_waited_for_where_it_is_and_nowhere_else() -> None:
    guards = guard()
    guards.learn(Result(nice().action, nice().target, Status.LATER, world(1).at))
    assert rules(guards, world(2), nice(), nice(ProcId(21, 21))) == ["cool-down", ""]
