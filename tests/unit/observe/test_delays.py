"""Who delays whom, on made-up machines: the culprit is named, decoys are not, and the parts add up to the wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from nicety.models.features import Floats
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Known, Quota, Snapshot
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Abilities, Delay
from nicety.scheduler.observe.delays import LEAST_WAIT, MOST_NAMED, MOST_OF_A_GROUP, MOST_VICTIMS, SECONDS, Delays
from nicety.scheduler.observe.measure import Measurer
from nicety.scheduler.observe.observer import Observer
from nicety.scheduler.observe.occupancy import busy_between, occupancy

SECOND = 10**9


@dataclass(frozen=True)
class Process:
    """What a process does in each second."""

    name: str
    cpu: float
    wait: float = 0.0
    last: int = 0
    threads: int = 1
    cpus: tuple[int, ...] = ()
    idle: bool = False
    nice: int = 0
    session: int = 0  # 0: its own
    cgroup: str = "/"
    brief: float = 0.0


def snapshot(
    seq: int,
    processes: Sequence[Process],
    busy: Sequence[float] | None = None,
    *,
    steal: float = 0.0,
    kernel: float = 0.0,
    throttled: float = 0.0,
) -> Snapshot:
    """The machine after so many seconds. `busy`: of each CPU; None: what the processes use of where they are. `throttled`: of
    cgroup /web."""
    table, identities = np.zeros(len(processes), dtype=SAMPLE), {}
    used = [sum(it.cpu + it.brief for it in processes if it.last == cpu) for cpu in range(2)]
    for number, (row, it) in enumerate(zip(table, processes, strict=True), 100):
        row["pid"], row["start_ticks"], row["session"], row["threads"] = number, 1, it.session or number, it.threads
        row["cpu_ns"], row["wait_ns"] = round(it.cpu * seq * SECOND), round(it.wait * seq * SECOND)
        row["child_cpu_ns"], row["last_cpu"], row["nice"] = round(it.brief * seq * SECOND), it.last, it.nice
        row["policy"], row["known"] = 5 if it.idle else 0, Known.WAIT
        identities[ProcId(number, 1)] = Identity(it.name, it.name, it.cgroup, "", 0, cpus=it.cpus)
    per_cpu = tuple(round(cores * seq * SECOND) for cores in (used if busy is None else busy))
    host = HostSample(per_cpu, 1, 1, None, steal_ns=round(steal * seq * SECOND), kernel_ns=round(kernel * seq * SECOND))
    quotas = (Quota("/web", round(throttled * seq * SECOND)),)
    return Snapshot(seq * SECOND, 0, 1000 + 100 * seq, table, identities, host, (), quotas)


class Watched:
    """Delays over some seconds of machines."""

    def __init__(self, autogroup: bool = True) -> None:
        self.measurer = Measurer(parse(""), 1.0)
        self.delays = Delays(autogroup)
        self.before: Snapshot | None = None
        self.found: tuple[Delay, ...] = ()

    def see(self, now: Snapshot, steal: float = 0.0, outside: float = 0.0) -> tuple[Delay, ...]:
        measured = self.measurer.measure(now)
        if measured is not None and self.before is not None:
            ran = occupancy(now, measured.rates, list(measured.rows), busy_between(self.before, now), outside)
            self.found = self.delays.step(self.before, now, measured, ran, steal)
        self.before = now
        return self.found


def delay_of(*processes: Process, autogroup: bool = True, seconds: int = 5, steal: float = 0.0, kernel: float = 0.0) -> Delay:
    """The delay of group "program web" after some seconds of the same."""
    watched = Watched(autogroup)
    for seq in range(seconds + 1):
        watched.see(snapshot(seq, processes), steal, kernel)
    return next(delay for delay in watched.found if delay.group == "program web")


def parts(delay: Delay) -> float:
    return sum(cores for _, cores in delay.by) + delay.others + delay.own + delay.unseen + delay.steal


WEB = Process("web", 0.3, 0.6)
FFMPEG = Process("ffmpeg", 0.6)


def test_who_runs_where_the_service_waits_has_its_wait_and_who_runs_elsewhere_has_none() -> None:
    decoy = Process("decoy", 0.5, 0.5, last=1, cpus=(1,))
    delay = delay_of(WEB, FFMPEG, decoy, decoy)
    assert delay.by[0][0] == "program ffmpeg"
    assert delay.by[0][1] == pytest.approx(0.6, abs=0.05)
    assert dict(delay.by).get("program decoy", 0.0) < 0.05, "it may have moved there for a moment"
    assert delay_of(replace(WEB, cpus=(0,)), FFMPEG, decoy, decoy).by == (("program ffmpeg", 0.6),)
    assert delay.wait == pytest.approx(0.6)
    assert (delay.own, delay.steal, delay.throttled) == (0.0, 0.0, 0.0)


def test_the_parts_add_up_to_the_wait_and_few_are_named() -> None:
    many = [Process(f"p{number}", 0.02 + 0.01 * number) for number in range(9)]
    delay = delay_of(WEB, Process("web", 0.1, 0.2), *many, steal=0.1, kernel=0.05)
    assert parts(delay) == pytest.approx(delay.wait, abs=1e-9)
    assert delay.wait == pytest.approx(0.8, abs=0.002)
    assert len(delay.by) == MOST_NAMED
    assert [name for name, _ in delay.by] == ["program p8", "program p7", "program p6", "program p5"]
    assert all(part > 0.005 for part in (delay.others, delay.own, delay.unseen, delay.steal))


def test_the_hypervisor_has_what_it_took() -> None:
    delay = delay_of(Process("web", 0.4, 0.5), steal=0.8)
    assert delay.steal == pytest.approx(0.5, abs=0.01)
    assert delay.by == ()


def test_the_kernel_and_the_unseen_have_what_no_process_used() -> None:
    delay = delay_of(Process("web", 0.4, 0.5), kernel=0.5)
    assert delay.unseen == pytest.approx(0.5, abs=0.01)
    assert delay.by == ()


def test_threads_wait_for_each_other_and_a_single_thread_not_for_itself() -> None:
    threads = delay_of(Process("web", 1.0, 3.0, threads=4, cpus=(0,)), Process("decoy", 1.0, last=1, cpus=(1,)))
    assert threads.own == pytest.approx(threads.wait)
    assert threads.by == ()
    beside = delay_of(Process("web", 0.8, 3.2, threads=4, cpus=(0,)), Process("ffmpeg", 0.2, 0.8, cpus=(0,)))
    assert beside.by[0][1] / beside.wait == pytest.approx(0.25, abs=0.02)  # three peers and one other: each has a fifth of the CPU
    assert delay_of(WEB, FFMPEG).own == 0.0


def test_threads_may_be_on_every_cpu_that_they_are_allowed_and_go_where_cpus_are_busy() -> None:
    delay = delay_of(WEB, Process("decoy", 1.0, last=1), Process("encoder", 0.7, last=1, threads=8), seconds=8)
    assert delay.by[0][0] == "program decoy", "if CPU 0 was idle besides the service, nothing of the encoder was there"
    watched = Watched()
    for seq in range(6):
        processes = (WEB, Process("decoy", 1.0, last=1), Process("encoder", 0.7, last=1, threads=8))
        watched.see(snapshot(seq, processes, busy=(1.0, 1.0)))
    assert watched.found[0].by[0][0] == "program encoder"
    bound = delay_of(WEB, FFMPEG, Process("encoder", 1.0, last=0, threads=8, cpus=(1,)))
    assert dict(bound.by).get("program encoder", 0.0) < 0.03


def test_children_that_come_and_go_count_for_their_parent() -> None:
    delay = delay_of(WEB, Process("make", 0.0, brief=0.6), Process("decoy", 1.0, last=1, cpus=(1,)))
    assert delay.by[0][0] == "program make"


def test_work_of_less_weight_counts_less_where_priorities_count() -> None:
    service, small = replace(WEB, session=7), Process("cron", 0.15, session=7)
    lazy = Process("lazy", 0.5, session=7, idle=True)
    assert delay_of(service, small, lazy).by[0][0] == "program cron"
    assert delay_of(service, small, replace(lazy, idle=False, nice=19)).by[0][0] == "program cron"
    assert delay_of(service, small, replace(lazy, session=8)).by[0][0] == "program lazy", "it weighs as much as any session"
    assert delay_of(service, small, replace(lazy, session=8), autogroup=False).by[0][0] == "program cron"
    assert delay_of(service, small, replace(lazy, cgroup="/batch"), autogroup=False).by[0][0] == "program lazy"


@pytest.mark.parametrize("decoy", [(), (Process("decoy", 1.0, last=1, cpus=(1,)),)])
def test_nobody_is_blamed_for_what_the_quota_does(decoy: tuple[Process, ...]) -> None:
    watched, web = Watched(), Process("web", 0.3, 0.7, cgroup="/web", cpus=(0,))
    for seq in range(6):
        watched.see(snapshot(seq, (web, Process("other", 0.01), *decoy), throttled=0.65))
    (delay,) = watched.found
    assert delay.throttled == pytest.approx(0.69, abs=0.02)
    assert delay.wait + delay.throttled == pytest.approx(0.7, abs=0.002)
    assert sum(cores for _, cores in delay.by) + delay.others < 0.07


def test_beside_a_quota_others_still_have_their_part() -> None:
    watched, web = Watched(), Process("web", 0.3, 0.7, cgroup="/web")
    for seq in range(6):
        watched.see(snapshot(seq, (web, FFMPEG), throttled=0.3))
    (delay,) = watched.found
    assert delay.throttled == pytest.approx(0.3, abs=0.01)
    assert delay.by[0][0] == "program ffmpeg"
    assert delay.by[0][1] == pytest.approx(0.4, abs=0.01)


def test_a_stop_that_is_counted_before_the_wait_is_taken_out_of_the_next_one() -> None:
    def machine(seq: int, wait: float, throttled: float) -> Snapshot:
        made = snapshot(seq, (Process("web", 0.3, cgroup="/web"), FFMPEG))
        made.table["wait_ns"][0] = round(wait * SECOND)
        return replace(made, quotas=(Quota("/web", round(throttled * SECOND)),))

    watched = Watched()
    for seq, (wait, throttled) in enumerate([(0, 0), (0.1, 0.5), (1.0, 1.0)]):
        watched.see(machine(seq, wait, throttled))
    (delay,) = watched.found
    assert delay.wait == pytest.approx(0.0, abs=0.002)
    assert delay.throttled == pytest.approx(0.5, abs=0.03)


def test_threads_that_are_stopped_together_each_wait_and_what_runs_meanwhile_is_not_blamed() -> None:
    watched, web = Watched(), Process("web", 0.4, 1.6, threads=2, cgroup="/web", cpus=(0,))
    for seq in range(6):
        watched.see(snapshot(seq, (web, Process("other", 0.6)), throttled=0.5))
    (delay,) = watched.found
    assert delay.throttled == pytest.approx(1.0, abs=0.02)
    # in the half of the time in which they were not stopped, they ran for 0.4 and others for 0.1
    assert [delay.own, delay.by[0][1]] == pytest.approx([0.4, 0.2], abs=0.02)


def test_figures_are_means_since_the_wait_began_and_fade_when_it_ends() -> None:
    watched, calm = Watched(), replace(WEB, wait=0.0)
    seen = [watched.see(snapshot(seq, (calm, FFMPEG))) for seq in range(3)]
    assert seen[-1] == ()
    base = snapshot(2, (calm, FFMPEG))
    for seq in range(3, 6):  # it waits for three seconds
        made = snapshot(seq, (calm, FFMPEG))
        made.table["wait_ns"][0] = base.table["wait_ns"][0] + (seq - 2) * 6 * SECOND // 10
        (delay,) = watched.see(made)
        assert delay.wait == pytest.approx(0.6, abs=0.002)
    waits = []
    for seq in range(6, 60):
        made = snapshot(seq, (calm, FFMPEG))
        made.table["wait_ns"][0] = base.table["wait_ns"][0] + 3 * 6 * SECOND // 10
        waits.append(sum(delay.wait for delay in watched.see(made)))
    assert waits[int(SECONDS)] < 0.6 * np.exp(-1)
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] == 0.0
    assert not [wait for wait in waits if 0.0 < wait < LEAST_WAIT]


def test_a_gap_forgets_and_groups_that_come_and_go_move_nothing() -> None:
    watched = Watched()
    for seq in range(4):
        watched.see(snapshot(seq, (WEB, FFMPEG)))
    (before,) = watched.found
    for seq in range(4, 6):  # a program whose name sorts before the others starts
        watched.see(snapshot(seq, (WEB, FFMPEG, Process("aaa", 0.0))))
    (after,) = watched.found
    assert after == before
    watched.delays.gap()
    assert watched.see(snapshot(6, (replace(WEB, wait=0.0), FFMPEG))) != (before,)


def test_only_those_that_wait_most_are_kept() -> None:
    crowd = [Process(f"w{number:02}", 0.02, 0.03 + 0.01 * number) for number in range(MOST_VICTIMS + 8)]
    watched = Watched()
    for seq in range(5):
        watched.see(snapshot(seq, crowd))
    assert [delay.group for delay in watched.found] == [f"program w{number:02}" for number in range(8, MOST_VICTIMS + 8)]


def test_a_tick_has_the_delays_and_an_observer_takes_them_over() -> None:
    def made() -> Observer:
        return Observer(parse(""), Abilities(True, "v1", True), ProcId(1, 1), None, None, None)

    first, second = made(), made()
    tick = [first.tick(snapshot(seq, (WEB, FFMPEG)), (), paused=False) for seq in range(4)][-1]
    assert [(delay.group, delay.by[0][0]) for delay in tick.delays] == [("program web", "program ffmpeg")]
    assert first.tick(snapshot(40, (WEB, FFMPEG)), (), paused=False).delays == (), "nothing is known of a gap"
    tick = [first.tick(snapshot(seq, (WEB, FFMPEG)), (), paused=False) for seq in range(41, 43)][-1]
    second.follow(first)
    later = second.tick(snapshot(43, (replace(WEB, wait=0.6), FFMPEG)), (), paused=False)
    assert later.delays == tick.delays


def test_when_thousands_wait_at_once_a_few_stand_for_their_group(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()
    pressure = Delays._pressure

    def counted(self: Delays, *arguments: Any) -> Floats:
        asked.append(len(arguments[4]))
        return pressure(self, *arguments)

    monkeypatch.setattr(Delays, "_pressure", counted)
    crowd = [Process("web", 0.0002, 0.01 + number * 1e-6) for number in range(3000)]
    delay = delay_of(*crowd, replace(FFMPEG, wait=0.1))
    assert max(asked) == MOST_OF_A_GROUP + 1
    assert delay.wait == pytest.approx(sum(it.wait for it in crowd), rel=0.01)
    assert parts(delay) == pytest.approx(delay.wait, abs=0.01)


def test_what_a_tick_is_made_of_is_handed_over_once_and_only_where_it_is_shown() -> None:
    observer = Observer(parse(""), Abilities(True, "v1", True), ProcId(1, 1), None, None, None)
    observer.tick(snapshot(0, (WEB,)), (), paused=False)
    observer.tick(snapshot(1, (WEB,)), (), paused=False)
    assert observer.made_of() is None
    observer.shown = True
    newest = snapshot(2, (WEB,))
    observer.tick(newest, (), paused=False)
    made_of = observer.made_of()
    assert made_of is not None
    assert made_of[0] is newest
    assert made_of[1].members == ("program web",)
    assert observer.made_of() is None
