"""What is put back at once and what is not: looks at a machine that the test makes up, one claim a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.act.census import SCAN_NS, Census
from nicety.scheduler.act.observing import Observing
from nicety.scheduler.act.starvation import AGAIN_NS, LOOK_NS, Case, Demotion, Looked, StarvationWatchdog
from nicety.scheduler.decision import Action, Decision, Group, Member, Outcome, Restore, Set, Why
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.fences import name_for
from nicety.scheduler.hands.ledger import Ledger
from nicety.scheduler.hands.places import AutogroupPlace, Cgroup, Control, Subject, Value
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.ports import Wait
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.testing.kernel import FakeKernel
from nicety.scheduler.testing.locks import FakeLocks

HOLDER, OTHER, WAITER, PEER = (ProcId(pid, pid) for pid in (10, 11, 20, 30))
SESSION = Subject(Control.AUTOGROUP, AutogroupPlace("autogroup-7", OTHER))


def nice(process: ProcId) -> Subject:
    return Subject(Control.NICE, process)


@dataclass
class Watch:
    """The decisions alone: HOLDER and OTHER are demoted by their nice."""

    locks: FakeLocks = field(default_factory=FakeLocks)
    demotions: tuple[Demotion, ...] = tuple(Demotion(nice(process), (process,)) for process in (HOLDER, OTHER))
    now: int = 0

    def __post_init__(self) -> None:
        self.relief = StarvationWatchdog(self.locks, starve_seconds=10.0, floor=0.01)
        for process in (HOLDER, OTHER):
            self.locks.sleep(process)

    def demote_session(self, count: int) -> tuple[ProcId, ...]:
        """It is what is demoted instead, with so many members, who all want the CPU and have had nothing yet."""
        members = tuple(ProcId(pid, pid) for pid in range(100, 100 + count))
        self.demotions = (Demotion(SESSION, members),)
        for process in members:
            self.locks.burn(process, 0.0)
        return members

    def look(self) -> Looked:
        return self.relief.look(self.now, self.demotions, (WAITER,))

    def watch(
        self, seconds: float, share: dict[ProcId, float], each: Callable[[], None] = lambda: None
    ) -> tuple[float, list[Case]]:
        """Look at the pace that is asked for until there is a case, or time is over: (seconds passed, cases). `share`: of a CPU
        that each process that wants it gets."""
        start = self.now
        while self.now - start <= seconds * 1e9:
            each()
            looked = self.look()
            if looked.cases:
                return (self.now - start) / 1e9, list(looked.cases)
            self.now += looked.pause
            for process, part in share.items():
                self.locks.burn(process, part * looked.pause / 1e9)
        return seconds, []

    def wait(self, waiter: ProcId = WAITER, turn: int = 1, possible: tuple[ProcId, ...] = ()) -> None:
        holder = None if possible else HOLDER
        self.locks.waiting = [Wait(waiter, waiter.pid, turn, "mutex in shared memory", holder, 0, possible)]


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_demoted_holder_that_gets_no_cpu_is_put_back_within_20_ms_of_being_seen(watch: Watch) -> None:
    watch.wait()
    watch.locks.burn(HOLDER, 0.0)
    seconds, cases = watch.watch(1.0, {HOLDER: 0.005})
    assert seconds <= 0.02
    (case,) = cases
    assert case.subjects == (nice(HOLDER),)
    for word in ("pid 20 has waited", "mutex in shared memory", "pid 10 holds", "0 ms of CPU"):
        assert word in case.text


def test_whoever_only_waits_for_a_moment_each_time_has_nobody_put_back(watch: Watch) -> None:
    turns = iter(range(10_000))
    watch.locks.burn(HOLDER, 0.0)
    _, cases = watch.watch(3.0, {HOLDER: 0.02}, lambda: watch.wait(turn=next(turns)))
    assert cases == []


def test_a_holder_that_runs_as_well_as_it_could_is_left_and_looked_at_at_the_usual_pace(watch: Watch) -> None:
    watch.wait()
    watch.locks.burn(HOLDER, 0.0)
    _, cases = watch.watch(5.0, {HOLDER: 0.9})
    assert cases == []
    assert watch.look().pause == LOOK_NS


def test_a_wait_that_has_begun_is_looked_at_again_soon(watch: Watch) -> None:
    assert watch.look().pause == LOOK_NS
    watch.wait()
    watch.locks.burn(HOLDER, 0.0)
    assert watch.look().pause == AGAIN_NS


def test_a_holder_that_cannot_be_looked_at_now_is_looked_at_again_soon(watch: Watch) -> None:
    watch.wait()
    watch.locks.unseen[HOLDER] = Trouble(Status.REFUSED, "no descriptors are left")
    assert watch.look() == Looked((), AGAIN_NS)


def test_a_holder_that_sleeps_lacks_no_priority(watch: Watch) -> None:
    watch.wait()
    watch.locks.sleep(HOLDER)
    assert watch.watch(30.0, {}) == (30.0, [])
    assert watch.look().pause == LOOK_NS


def test_a_holder_that_nobody_has_demoted_is_no_case(watch: Watch) -> None:
    watch.locks.waiting = [Wait(WAITER, 20, 1, "flock on inode 7", PEER, 0, ())]
    watch.locks.burn(PEER, 0.0)
    assert watch.watch(2.0, {PEER: 0.001})[1] == []


def test_of_those_that_may_hold_a_semaphore_only_those_that_starve_are_put_back(watch: Watch) -> None:
    watch.wait(possible=(HOLDER, OTHER))
    watch.locks.burn(HOLDER, 0.0)
    watch.locks.sleep(OTHER)
    _, cases = watch.watch(1.0, {HOLDER: 0.005})
    assert [case.subjects for case in cases] == [(nice(HOLDER),)]
    assert "may hold" in cases[0].text


def test_a_waiter_that_is_demoted_alike_waits_for_a_second_of_starvation(watch: Watch) -> None:
    watch.wait(waiter=OTHER)
    watch.locks.burn(HOLDER, 0.0)
    seconds, cases = watch.watch(5.0, {HOLDER: 0.002})
    assert 1.0 <= seconds <= 1.1
    assert cases[0].subjects == (nice(HOLDER),)
    watch.locks.burn(HOLDER, 0.0)
    assert watch.watch(5.0, {HOLDER: 0.02})[1] == [], "2 % is slow, as it was meant to be"


def test_the_holder_found_by_the_lock_may_be_anybody(watch: Watch) -> None:
    stranger = ProcId(99, 99)
    watch.locks.waiting = [Wait(WAITER, 20, 1, "flock on inode 7", stranger, 0, ())]
    watch.locks.burn(stranger, 0.0)
    batch = Subject(Control.CPU_SHARES, Cgroup("/batch"))
    cases: list[Case] = []
    for _ in range(4):
        looked = watch.relief.look(watch.now, watch.demotions, (WAITER,), lambda process: (batch,) if process == stranger else ())
        cases += looked.cases
        watch.now += looked.pause
    assert cases[0].subjects == (batch,)


def test_where_nothing_is_demoted_nothing_is_read(watch: Watch) -> None:
    watch.demotions = ()
    watch.wait()
    assert watch.watch(1.0, {})[1] == []
    assert watch.locks.reads == 0


def test_what_gets_less_than_the_floor_for_ten_seconds_is_put_back(watch: Watch) -> None:
    watch.locks.burn(HOLDER, 0.0)
    seconds, cases = watch.watch(20.0, {HOLDER: 0.004})  # its part of the floor is half a percent: two are demoted
    assert 10.0 <= seconds <= 10.5
    (case,) = cases
    assert case.subjects == (nice(HOLDER),)
    assert "pid 10 starves" in case.text


def test_when_nothing_is_demoted_any_more_what_was_kept_for_the_next_look_is_let_go_once(watch: Watch) -> None:
    watch.look()
    watch.demotions = ()
    watch.look()
    watch.look()
    assert watch.locks.rests == 1


def test_hogs_at_nice_19_beside_others_get_enough(watch: Watch) -> None:
    for process in (HOLDER, OTHER):
        watch.locks.burn(process, 0.0)
    assert watch.watch(60.0, {HOLDER: 0.014, OTHER: 0.014})[1] == []


def test_what_gets_plenty_is_visited_half_as_often_and_found_when_it_starves_after_all(watch: Watch) -> None:
    for process in (HOLDER, OTHER):
        watch.locks.burn(process, 0.0)
    assert watch.watch(10.0, {HOLDER: 0.3, OTHER: 0.3})[1] == []
    looks = 10_000_000_000 // LOOK_NS + 1
    assert 2 * 10 <= watch.locks.reads - looks <= looks // 2, "without, one in each look"
    seconds, cases = watch.watch(20.0, {HOLDER: 0.004, OTHER: 0.3})
    assert 10.0 <= seconds <= 11.6
    assert [case.subjects for case in cases] == [(nice(HOLDER),)]


def test_what_sleeps_in_between_does_not_starve(watch: Watch) -> None:
    count = iter(range(10_000))

    def each() -> None:
        if next(count) % 100 >= 88:  # half a second in four: it is visited several times a second
            watch.locks.sleep(HOLDER)
        else:
            watch.locks.burn(HOLDER, 0.0)

    assert watch.watch(60.0, {}, each)[1] == []


def test_a_session_starves_as_a_whole_or_not_at_all(watch: Watch) -> None:
    members = watch.demote_session(50)
    assert watch.watch(40.0, dict.fromkeys(members, 0.0004))[1] == [], "2 % together"
    seconds, cases = watch.watch(40.0, dict.fromkeys(members, 0.0001))
    assert 10.0 <= seconds <= 25.0
    assert cases[0].subjects == (SESSION,)


@pytest.mark.parametrize(("share", "starves"), [(0.003, False), (0.001, True)])
def test_of_a_hundred_sessions_none_starves_that_gets_its_part(watch: Watch, share: float, starves: bool) -> None:
    members = [ProcId(pid, pid) for pid in range(100, 200)]
    watch.demotions = tuple(
        Demotion(Subject(Control.AUTOGROUP, AutogroupPlace(f"autogroup-{it.pid}", it)), (it,)) for it in members
    )
    for process in members:
        watch.locks.burn(process, 0.0)
    _, cases = watch.watch(30.0, dict.fromkeys(members, share))
    assert bool(cases) is starves


def test_those_who_sleep_do_not_hide_the_one_that_starves_among_them(watch: Watch) -> None:
    members = watch.demote_session(100)
    for process in members:
        watch.locks.sleep(process)
    watch.watch(5.0, {})
    watch.locks.burn(members[-1], 0.0)
    seconds, cases = watch.watch(40.0, {members[-1]: 0.001})
    assert 10.0 <= seconds <= 14.5
    assert [case.subjects for case in cases] == [(SESSION,)]


def test_many_that_had_plenty_are_seen_to_starve_as_soon_as_few(watch: Watch) -> None:
    members = watch.demote_session(100)
    assert watch.watch(60.0, dict.fromkeys(members, 0.02))[1] == []
    seconds, cases = watch.watch(60.0, dict.fromkeys(members, 0.00002))
    assert 10.0 <= seconds <= 14.5
    assert [case.subjects for case in cases] == [(SESSION,)]


def test_a_build_of_short_programs_does_not_starve_though_none_is_seen_twice(watch: Watch) -> None:
    """Two at a time, each of which has had a tenth of a CPU for as long as it is there."""
    pids = iter(range(100, 100_000))

    def each() -> None:
        born = [ProcId(next(pids), watch.now // 10_000_000 + 1) for _ in range(2)]
        watch.demotions = (Demotion(SESSION, tuple(born)),)
        for process in born:
            watch.locks.burn(process, 0.008)

    assert watch.watch(60.0, {}, each)[1] == []


def test_what_was_out_of_sight_is_not_taken_to_have_got_nothing_meanwhile(watch: Watch) -> None:
    """As when the groups of a tick are not known, after the daemon was stopped for a while."""
    both = (HOLDER, OTHER)
    watch.now = 5_000_000_000
    watch.demotions = (Demotion(SESSION, both),)
    for process in both:
        watch.locks.burn(process, 0.0)
    assert watch.watch(9.5, dict.fromkeys(both, 0.004))[1] == []
    watch.demotions = (Demotion(SESSION, (HOLDER,)),)
    watch.locks.burn(OTHER, 0.2)
    assert watch.watch(0.2, {HOLDER: 0.004})[1] == []
    watch.demotions = (Demotion(SESSION, both),)
    assert watch.watch(9.0, dict.fromkeys(both, 0.004))[1] == []
    assert watch.watch(2.0, dict.fromkeys(both, 0.004))[1] != []


def test_after_a_second_without_a_look_starvation_is_counted_anew(watch: Watch) -> None:
    watch.locks.burn(HOLDER, 0.0)
    watch.watch(1.0, {HOLDER: 0.0})
    watch.now += 16_000_000_000
    seconds, cases = watch.watch(20.0, {HOLDER: 0.0})
    assert 10.0 <= seconds <= 10.5
    assert "in 10." in cases[0].text


# --- with the ledger and a kernel ---------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """An actuator on a fake machine."""

    folder: Path

    def __post_init__(self) -> None:
        self.kernel, self.clock, self.locks = FakeKernel(), FakeClock(), FakeLocks()
        self.ledger = Ledger(self.folder / "ledger.log", self.kernel.boot_id())
        self.actuator = Acting(hands_with(self.ledger, self.kernel, self.clock), self.kernel, self.locks, {}, {}, self.clock)
        self.waiter = self.kernel.start()
        self.count = 0
        self.groups: tuple[Group, ...] = ()

    def apply(self, action: Action) -> Outcome:
        self.count += 1
        decision = Decision(f"s-0.{self.count}", "priority", "group batch", action, Why("test", "because", {}, (), ()))
        (outcome,) = self.actuator.apply([decision])
        return outcome

    def tick(
        self, *batch: ProcId, cgroup: str = "/", parents: dict[ProcId, int] | None = None, served: ProcId | None = None
    ) -> None:
        """The groups of a tick, with these processes in one of them. `served`: one more process of the service."""
        above = parents or {}

        def members(processes: tuple[ProcId, ...], path: str) -> tuple[Member, ...]:
            return tuple(
                Member(process, self.kernel.processes[process.pid].session, path, 0, above.get(process, 0), owner=0)
                for process in processes
            )

        self.groups = (
            Group("batch", Class.BATCH, len(batch), 1.0, 0.0, 1.0, 0, members(batch, cgroup)),
            Group("web", Class.INTERACTIVE, 1, 0.1, 0.0, 0.1, 0, members((self.waiter, *((served,) if served else ())), "/")),
        )

    def held_by(self, process: ProcId) -> None:
        """The waiter waits for a lock of this process, which wants the CPU."""
        self.locks.waiting = [Wait(self.waiter, self.waiter.pid, 1, "flock on inode 7", process, 0, ())]
        self.locks.burn(process, 0.0)

    def look(self, seconds: float = 0.2) -> None:
        end = self.clock.monotonic() + round(seconds * 1e9)
        while self.clock.monotonic() < end:
            pause = self.actuator.relieve(self.groups)
            self.clock.advance(round((pause or 0.05) * 1e9))

    def nice(self, process: ProcId) -> Value | Trouble:
        return self.kernel.read(self.kernel.knob(Control.NICE, process.pid))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.ledger.close()


def test_a_relief_is_told_once_and_names_the_decision_that_it_takes_back(bench: Bench) -> None:
    holder = bench.kernel.start()
    bench.kernel.spawn(holder.pid)
    bench.tick(holder)
    bench.apply(Set(Control.NICE, ProcessPlace(holder), 19))
    bench.held_by(holder)
    bench.look()
    assert bench.nice(holder) == 0
    assert bench.ledger.outstanding() == ()
    (outcome,) = bench.actuator.settle()
    assert (outcome.decision, outcome.status, outcome.target, outcome.changed) == ("s-0.1", Status.RELIEVED, "group batch", 2)
    assert f"pid {bench.waiter.pid} has waited" in outcome.detail
    assert f"nice of pid {holder.pid}: 19 -> 0" in outcome.detail
    assert bench.actuator.settle() == ()


def test_a_swarm_is_let_out_of_its_cgroup_when_somebody_waits_for_what_a_child_of_it_holds(bench: Bench) -> None:
    root = bench.kernel.start()
    child = bench.kernel.fork(root.pid)
    bench.tick(root, child, parents={child: root.pid})
    bench.apply(Set(Control.FENCE, ProcessPlace(root), (0, 0, 0, 1), 0))
    bench.held_by(child)
    bench.look()
    assert (bench.kernel.processes[child.pid].fence, bench.ledger.outstanding()) == ("", ())
    (outcome,) = bench.actuator.settle()
    assert outcome.status is Status.RELIEVED
    assert f"pid {bench.waiter.pid} has waited" in outcome.detail


@pytest.mark.parametrize("orphan", [False, True])
def test_a_service_that_was_started_from_a_fenced_swarm_is_let_out_and_one_elsewhere_lets_nobody_out(
    bench: Bench, orphan: bool
) -> None:
    """An orphan is found by where it is, which a scan of all processes tells."""
    root = bench.kernel.start()
    bench.tick(root)
    bench.apply(Set(Control.FENCE, ProcessPlace(root), (0, 0, 0, 1), 0))
    bench.look()
    assert bench.actuator.settle() == ()
    own = bench.kernel.fork(root.pid)
    bench.locks.paths[own] = (f"/{name_for(root)}",)
    bench.tick(root, parents={own: 1 if orphan else root.pid}, served=own)
    bench.look()
    assert (bench.kernel.processes[own.pid].fence != "") is orphan, "not known yet"
    bench.clock.advance(SCAN_NS)
    bench.tick(root, parents={own: 1 if orphan else root.pid}, served=own)
    bench.look()
    assert bench.kernel.processes[own.pid].fence == ""
    (outcome,) = bench.actuator.settle()
    assert outcome.status is Status.RELIEVED
    assert outcome.detail.startswith(f"pid {own.pid} of web is in the cgroup of a swarm, where it was started; ")


def test_a_worker_of_a_service_that_was_fenced_in_for_what_it_did_stays_in(bench: Bench) -> None:
    worker = bench.kernel.start()
    bench.tick(served=worker)
    bench.apply(Set(Control.FENCE, ProcessPlace(worker), (300, 0, 8, 0), 0))
    bench.look()
    assert bench.kernel.processes[worker.pid].fence != ""


def test_what_was_decided_before_the_relief_was_known_does_not_demote_again(bench: Bench) -> None:
    holder = bench.kernel.start()
    bench.tick(holder)
    bench.apply(Set(Control.NICE, ProcessPlace(holder), 10))
    bench.held_by(holder)
    bench.look()
    bench.actuator.settle()
    outcome = bench.apply(Set(Control.NICE, ProcessPlace(holder), 19))
    assert (outcome.status, outcome.changed) == (Status.RELIEVED, 0)
    assert bench.nice(holder) == 0
    assert bench.apply(Set(Control.NICE, ProcessPlace(holder), 19)).status is Status.APPLIED, "a turn later the policy knows"


def test_all_that_slows_the_holder_is_put_back_and_nothing_else(bench: Bench) -> None:
    holder, other = bench.kernel.start(), bench.kernel.start()
    bench.tick(holder, other)
    for process in (holder, other):
        bench.apply(Set(Control.NICE, ProcessPlace(process), 19))
        bench.apply(Set(Control.AUTOGROUP, SessionPlace(process.pid, process), 19))
    bench.apply(Set(Control.AFFINITY, ProcessPlace(holder), (0, 1)))
    bench.held_by(holder)
    bench.locks.sleep(other)
    bench.look()
    assert sorted(str(subject.control) for subject in bench.ledger.subjects()) == ["affinity", "autogroup", "nice"]
    assert (bench.nice(holder), bench.nice(other)) == (0, 19)


def test_a_process_of_no_group_is_found_by_its_session(bench: Bench) -> None:
    leader = bench.kernel.start()
    member = bench.kernel.start(leader.pid, session=False)
    bench.tick(leader)
    bench.apply(Set(Control.AUTOGROUP, SessionPlace(leader.pid, leader), 19))
    bench.held_by(member)
    bench.look()
    assert bench.kernel.autogroups[bench.kernel.processes[leader.pid].autogroup] == 0
    assert bench.actuator.settle()[0].status is Status.RELIEVED


def test_a_process_below_a_demoted_cgroup_is_found_by_its_path(bench: Bench) -> None:
    bench.kernel.cgroups[Control.CPU_SHARES, "/batch"] = 1024
    holder, cousin = bench.kernel.start(), bench.kernel.start()
    bench.locks.paths = {holder: ("/batch/job",), cousin: ("/batch2",)}
    bench.tick()
    bench.apply(Set(Control.CPU_SHARES, CgroupPlace("/batch"), 2))
    bench.held_by(cousin)
    bench.look()
    assert bench.kernel.cgroups[Control.CPU_SHARES, "/batch"] == 2
    bench.held_by(holder)
    bench.look()
    assert bench.kernel.cgroups[Control.CPU_SHARES, "/batch"] == 1024


def test_a_child_that_inherited_the_nice_is_relieved_with_its_parent(bench: Bench) -> None:
    parent = bench.kernel.start()
    bench.tick(parent)
    bench.apply(Set(Control.NICE, ProcessPlace(parent), 19))
    bench.look(0.1)
    child = bench.kernel.fork(parent.pid)
    bench.held_by(child)
    bench.look()
    assert (bench.nice(parent), bench.nice(child)) == (0, 0)


def test_a_child_that_somebody_gave_another_nice_has_inherited_nothing(bench: Bench) -> None:
    parent = bench.kernel.start()
    bench.tick(parent)
    bench.apply(Set(Control.NICE, ProcessPlace(parent), 19))
    bench.look(0.1)
    child = bench.kernel.fork(parent.pid)
    bench.kernel.poke(bench.kernel.knob(Control.NICE, child.pid), 5)
    bench.held_by(child)
    bench.look()
    assert (bench.nice(parent), bench.nice(child)) == (19, 5)


def test_a_scan_that_could_not_read_all_is_repeated_at_once(bench: Bench) -> None:
    """Shortly after the boot too, when the clock is below the pace of scans."""
    parent = bench.kernel.start()
    census = Census(bench.ledger, bench.kernel, bench.locks)
    bench.apply(Set(Control.NICE, ProcessPlace(parent), 19))
    (before,) = census.demotions(1, ())
    child = bench.kernel.fork(parent.pid)
    bench.kernel.faults[child.pid] = Trouble(Status.FAILED, "no descriptors are left")
    assert census.demotions(1 + SCAN_NS, ()) == (before,)
    bench.kernel.faults.clear()
    (after,) = census.demotions(2 + SCAN_NS, ())
    assert (before.processes, after.processes) == ((parent,), (parent, child))


@pytest.mark.parametrize(("policy", "demotes"), [(1, False), (3, True), (5, True)])
def test_of_the_scheduling_policies_batch_and_idle_demote(bench: Bench, policy: int, demotes: bool) -> None:
    process = bench.kernel.start()
    bench.apply(Set(Control.POLICY, ProcessPlace(process), policy))
    assert bool(Census(bench.ledger, bench.kernel, bench.locks).demotions(1, ())) is demotes


def test_a_process_that_has_the_policy_again_that_somebody_chose_for_it_is_not_demoted(bench: Bench) -> None:
    process = bench.kernel.start()
    bench.kernel.poke(bench.kernel.knob(Control.POLICY, process.pid), 3)
    census = Census(bench.ledger, bench.kernel, bench.locks)
    for policy, slowed in ((5, [(process,)]), (3, [])):
        assert bench.apply(Set(Control.POLICY, ProcessPlace(process), policy)).status is Status.APPLIED
        assert bench.ledger.outstanding()
        assert [demotion.processes for demotion in census.demotions(1, ())] == slowed


def test_what_was_made_faster_is_no_demotion(bench: Bench) -> None:
    holder = bench.kernel.start()
    bench.tick(holder)
    assert bench.apply(Set(Control.SLICE, ProcessPlace(holder), 100_000)).status is Status.APPLIED
    bench.held_by(holder)
    assert bench.actuator.relieve(bench.groups) is None
    assert bench.locks.reads == 0


def test_a_demotion_given_back_is_not_looked_at_any_more(bench: Bench) -> None:
    holder = bench.kernel.start()
    bench.tick(holder)
    assert bench.actuator.relieve(bench.groups) is None
    bench.apply(Set(Control.NICE, ProcessPlace(holder), 19))
    assert bench.actuator.relieve(bench.groups) == LOOK_NS / 1e9
    bench.apply(Restore(Control.NICE, ProcessPlace(holder)))
    assert bench.actuator.relieve(bench.groups) is None


def test_what_somebody_else_changed_meanwhile_is_left(bench: Bench) -> None:
    holder = bench.kernel.start()
    bench.tick(holder)
    bench.apply(Set(Control.NICE, ProcessPlace(holder), 19))
    bench.kernel.poke(bench.kernel.knob(Control.NICE, holder.pid), 7)
    bench.held_by(holder)
    bench.look()
    assert bench.nice(holder) == 7
    assert bench.actuator.settle()[0].status is Status.FOREIGN


def test_what_cannot_be_put_back_is_told_once_a_turn(bench: Bench) -> None:
    holder = bench.kernel.start()
    bench.tick(holder)
    bench.apply(Set(Control.NICE, ProcessPlace(holder), 19))
    bench.kernel.privileged = False
    bench.held_by(holder)
    for _ in range(2):
        bench.look(1.0)
        (outcome,) = bench.actuator.settle()
        assert outcome.status is Status.REFUSED
        assert "CAP_SYS_NICE" in outcome.detail
        bench.actuator.apply(())


def test_observing_has_nothing_to_relieve(bench: Bench) -> None:
    bench.tick(bench.kernel.start())
    assert Observing(bench.kernel, {}, {}, bench.kernel.forbidden).relieve(bench.groups) is None
