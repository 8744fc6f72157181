"""What the observer makes of snapshots: classes, and whom it tells of. Synthetic snapshots of a service and a hog."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from nicety.models.anomaly.evidence import CHANNELS
from nicety.models.artifact import shipped
from nicety.models.behaviour import BEHAVIOUR_CHANNELS, BehaviourModel
from nicety.models.identity import ProcId
from nicety.models.records import (
    SAMPLE,
    Anomaly,
    Class,
    HostSample,
    Identity,
    Known,
    PoolSample,
    Quota,
    Snapshot,
    Trait,
    WorkerSample,
)
from nicety.scheduler.config.sections import Config, parse
from nicety.scheduler.decision import Abilities, Group, Machine, Member, Tick, encode
from nicety.scheduler.observe.loads import offered_load
from nicety.scheduler.observe.measure import Measurer
from nicety.scheduler.observe.observer import Observer, TickInputs

OWN, SERVICE, HOG = ProcId(5, 100), ProcId(10, 200), ProcId(20, 300)
IDENTITIES = {
    OWN: Identity("nicety", "nicety", "/tools", "", 0),
    SERVICE: Identity("server", "server", "/", "", 0),
    HOG: Identity("hog", "hog", "/", "", 0),
}
SECOND = 10**9


def snapshot(tick: int) -> Snapshot:
    """The service has answered 500 requests of 0.4 ms each second, the hog has used a whole CPU in slices of 4 ms."""
    table = np.zeros(3, dtype=SAMPLE)
    rows = ((OWN, 0.0, 0, 0), (SERVICE, 0.2, 500, Trait.SERVES), (HOG, 1.0, 250, 0))
    for row, (id_, cores, timeslices, traits) in zip(table, rows, strict=True):
        row["pid"], row["start_ticks"], row["session"], row["threads"] = id_.pid, id_.start_ticks, id_.pid, 1
        row["cpu_ns"], row["timeslices"] = round(cores * tick * SECOND), timeslices * tick
        row["known"], row["traits"] = Known.WAIT | Known.SOCKETS, traits
    host = HostSample((tick * SECOND, tick * SECOND // 5), 8 << 30, 6 << 30, None)
    return Snapshot(tick * SECOND, tick * SECOND, 10_000 + 100 * tick, table, IDENTITIES, host, ())


def observe(config: Config, learns: bool, ticks: int = 12) -> list[Tick]:
    found = shipped("behaviour") if learns else None
    assert (found is not None) == learns
    model = BehaviourModel.from_arrays(found.arrays, found.digest) if found else None
    observer = Observer(config, Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True), OWN, None, None, model)
    return [observer.tick(snapshot(tick), (), paused=False) for tick in range(1, ticks + 1)]


@pytest.mark.parametrize("enabled", [True, False])
def test_workers_are_scored_only_where_somebody_would_act_on_it(enabled: bool) -> None:
    text = f"[quarantine]\nenabled = {str(enabled).lower()}\n[pools.web]\nkind = 'command'\ncommand = ['server']"
    observer = Observer(parse(text), Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True), OWN, None, None, None)
    workers = tuple(WorkerSample(id_, 0.5, ready=True) for id_ in (SERVICE, HOG))
    pool = PoolSample("web", 2, 2, 0.0, workers, None, None, "")
    seen = [observer.tick(replace(snapshot(at), pools=(pool,)), (), paused=False) for at in range(1, 13)]
    assert [score.id for score in seen[-1].scores] == ([SERVICE, HOG] if enabled else [])


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_ticks_observed_together_are_those_observed_one_by_one(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config, abilities = parse("[pools.web]\nkind = 'command'\ncommand = ['server']"), Abilities(True, "v1", may_renice=True)

    def seen(at: int) -> tuple[Snapshot, TickInputs]:
        who = (SERVICE, HOG, OWN)[: 1 if at < 20 else 3]
        pool = PoolSample("web", len(who), len(who), 0.0, tuple(WorkerSample(id_, 0.5, ready=True) for id_ in who), None, None, "")
        made = replace(snapshot(at + 10 * (at > 50)), pools=(pool,))  # a gap
        made.table["rss_bytes"][1], made.table["wait_ns"][2] = (at << 20) ** 1.2, at * SECOND  # it leaks; the hog starves
        return made, TickInputs((), paused=at % 9 == 0)

    monkeypatch.setattr("nicety.scheduler.observe.observer.TOGETHER", 20)
    monkeypatch.setattr("nicety.scheduler.observe.observer.PROCESSES", 40)
    one, other = (Observer(config, abilities, OWN, None, None, None) for _ in range(2))
    known = [seen(at) for at in range(1, 130)]
    each = [one.tick(made, inputs.outcomes, inputs.paused) for made, inputs in known]
    assert {score.kind for tick in each for score in tick.scores if score.p < 0.05} >= {Anomaly.LEAK}
    together = [tick for first in range(0, len(known), batch) for tick in other.ticks(known[first : first + batch])]
    assert [encode(tick) for tick in together] == [encode(tick) for tick in each]


def test_a_lone_worker_is_held_against_its_own_past_by_the_observer_the_same_each_time() -> None:
    config = parse("[pools.web]\nkind = 'command'\ncommand = ['server']")
    pool = PoolSample("web", 1, 1, 0.0, (WorkerSample(SERVICE, 0.5, ready=True),), None, None, "")

    def seen(at: int) -> Snapshot:
        made = replace(snapshot(at), pools=(pool,))
        made.table["threads"][1] = 300 if at > 260 else 4
        return made

    ends = []
    for _ in range(2):
        observer = Observer(config, Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True), OWN, None, None, None)
        ticks = [observer.tick(seen(at), (), paused=False) for at in range(1, 340)]
        assert all(score.p > 1e-3 for tick in ticks[:260] for score in tick.scores)
        ends.append(ticks[-1].scores)
    assert ends[0] == ends[1]
    (score,) = ends[0]
    assert (score.id, score.kind) == (SERVICE, Anomaly.OUTLIER)
    assert score.p < 5.8e-7  # one false alarm a day of 100 workers
    assert dict(score.evidence)["threads_times_own_past"] == pytest.approx(316 / 20)


def test_what_is_measured_is_over_the_time_that_really_passed() -> None:
    measurer = Measurer(parse(""), 1.0)
    assert measurer.measure(snapshot(1)) is None
    for tick, seconds in ((2, 1.0), (4, 2.0)):
        measured = measurer.measure(snapshot(tick))
        assert measured is not None
        assert measured.seconds == seconds


@pytest.mark.parametrize(("machine", "expected"), [(20, 12.0), (3, 3.0)])
def test_children_that_come_and_go_between_two_ticks_are_known_by_their_page_faults(machine: int, expected: float) -> None:
    """1,200 faults a second are twelve children; but no more than the whole machine started."""
    measurer = Measurer(parse("[pools.web]\nkind = 'command'\ncommand = ['server']"), 1.0)
    pool = PoolSample("web", 2, 2, 0.0, tuple(WorkerSample(id_, 0.5, ready=True) for id_ in (SERVICE, HOG)), None, None, "")

    def seen(tick: int) -> Snapshot:
        made = snapshot(tick)
        made.table["child_faults"][1] = 5_000 + 1_200 * tick
        return replace(made, pools=(pool,), host=replace(made.host, forks=100 + machine * tick))

    assert measurer.measure(seen(1)) is None
    measured = measurer.measure(seen(2))
    assert measured is not None
    assert measured.workers[:, CHANNELS.index("forks")].tolist() == [expected, 0.0]


@pytest.mark.parametrize(
    ("unit", "traits", "known", "expected"),
    [
        ("web.service", Trait.SERVES, Known.SOCKETS, 1.0),
        ("web.service", Trait.SERVES | Trait.SERVES_LOCALLY, Known.SOCKETS, 1.0),
        ("web.service", Trait.SERVES_LOCALLY, Known.SOCKETS, 0.0),
        ("init.scope", Trait.SERVES | Trait.SERVES_LOCALLY, Known.SOCKETS, 0.0),
        ("web.service", 0, Known.SOCKETS, 0.0),
        ("web.service", 0, 0, float("nan")),
    ],
)
def test_a_process_works_for_a_server_if_its_parent_in_the_same_unit_is_one(
    unit: str, traits: int, known: int, expected: float
) -> None:
    """A unix socket makes no server of what runs jobs (supervisord, tmux), and systemd listens for all that it starts."""
    measurer = Measurer(parse("[groups.job]\nprogram = 'hog'"), 1.0)
    units = {OWN: "", SERVICE: unit, HOG: "web.service"}

    def seen(tick: int) -> Snapshot:
        made = snapshot(tick)
        made.table["ppid"][2] = SERVICE.pid
        made.table["traits"][1], made.table["known"][1] = traits, Known.WAIT | known
        return replace(made, identities={id_: replace(IDENTITIES[id_], unit=unit) for id_, unit in units.items()})

    measurer.measure(seen(1))
    measured = measurer.measure(seen(2))
    assert measured is not None
    served_for = measured.behaviour[measured.groups.index("job"), BEHAVIOUR_CHANNELS.index("served_for")]
    assert served_for == pytest.approx(expected, nan_ok=True)


def test_a_worker_that_starts_is_no_load_and_its_cpu_time_is_not_that_of_work() -> None:
    observer = Observer(
        parse("[pools.web]\nkind = 'command'\ncommand = ['server']"), Abilities(False, "", False), OWN, None, None, None
    )
    workers = (WorkerSample(SERVICE, 0.5, ready=True), WorkerSample(HOG, 1.0, ready=False))
    pool = PoolSample("web", 2, 2, 3.0, workers, None, None, "")
    ticks = [observer.tick(replace(snapshot(at), pools=(pool,)), (), paused=False) for at in range(1, 4)]
    seen = ticks[-1].pools[0]
    assert (seen.busy, seen.load) == (0.5, 3.5)
    assert seen.cpu_per_worker == pytest.approx(0.4)  # the service's 0.2 cores in half of the time, not the hog's


def test_the_load_of_a_pool_is_unknown_only_where_no_worker_tells() -> None:
    def load(*workers: tuple[float | None, bool]) -> float | None:
        told = tuple(WorkerSample(ProcId(pid, 1), busy, ready) for pid, (busy, ready) in enumerate(workers, 10))
        offered = offered_load(PoolSample("web", len(told), len(told), 2.0, told, None, None, ""))
        return None if offered is None else offered.load

    assert load() == 2.0
    assert load((None, True), (None, False)) is None
    assert load((None, True), (1.0, False)) is None
    assert load((1.0, False), (1.0, False)) == 2.0
    assert load((None, True), (0.25, True), (1.0, False)) == 2.25


@pytest.mark.parametrize(
    ("kind", "told"), [('kind = "command"\ncommand = ["x"]', False), ('kind = "gunicorn"\npidfile = "/x"', True)]
)
def test_a_command_that_rests_may_have_no_work_or_be_stuck(kind: str, told: bool) -> None:
    """Whether one is busy is guessed by what it does; other adapters see what it waits for."""
    measurer = Measurer(parse(f"[pools.web]\n{kind}"), 1.0)
    workers = (WorkerSample(SERVICE, 0.0, ready=True), WorkerSample(HOG, 0.5, ready=True))
    pools = (PoolSample("web", 2, 2, 0.0, workers, None, None, ""),)
    measurer.measure(replace(snapshot(1), pools=pools))
    measured = measurer.measure(replace(snapshot(2), pools=pools))
    assert measured is not None
    busy = measured.workers[:, CHANNELS.index("busy")]
    assert busy[1] == 0.5
    assert busy[0] == 0.0 if told else np.isnan(busy[0])


def test_work_of_children_that_no_tick_sees_is_in_the_group_that_collects_it() -> None:
    observer = Observer(parse("[groups.job]\nprogram = 'hog'\nclass = 'batch'"), Abilities(False, "", False), OWN, None, None, None)

    def seen(tick: int) -> Snapshot:
        made = snapshot(tick)
        made.table["cpu_ns"][2], made.table["child_cpu_ns"][2] = 0, tick * SECOND // 2
        made.table["ppid"][2] = 77
        return made

    observer.tick(seen(1), (), paused=False)
    (job,) = (group for group in observer.tick(seen(2), (), paused=False).groups if group.name == "job")
    assert (job.cpu, job.brief) == (0.5, 0.5)
    assert [member.parent for member in job.members] == [77]


def test_who_waits_a_hundred_times_as_long_as_it_runs_wants_no_more_than_the_machine_has() -> None:
    """Eight clients of 7 ms each wait for most of a second beside 100 hogs of 20 ms, on two CPUs."""
    clients, hogs = range(100, 108), range(200, 300)
    config = parse("[groups.hogs]\nprogram = 'hog'\nclass = 'batch'\n[groups.clients]\nprogram = 'client'\nclass = 'interactive'")
    names = {ProcId(pid, pid): Identity("x", "client" if pid in clients else "hog", "/", "", 0) for pid in (*clients, *hogs)}

    def seen(tick: int) -> Snapshot:
        table = np.zeros(len(names), dtype=SAMPLE)
        table["pid"] = table["start_ticks"] = [id_.pid for id_ in names]
        client = np.isin(table["pid"], list(clients))
        table["threads"], table["known"] = np.where(client, 12, 1), int(Known.WAIT)
        table["cpu_ns"] = tick * SECOND * np.where(client, 0.007, 0.0194)
        table["wait_ns"] = tick * SECOND * np.where(client, 0.9, 0.98)
        host = HostSample((tick * SECOND, tick * SECOND), 8 << 30, 6 << 30, None)
        return Snapshot(tick * SECOND, tick * SECOND, 10_000 + 100 * tick, table, names, host, ())

    observer = Observer(config, Abilities(False, "", False), OWN, None, None, None)
    ticks = [observer.tick(seen(tick), (), paused=False) for tick in range(1, 40)]
    last = groups(ticks[-1])
    assert last["hogs"].demand == 2.0
    assert last["clients"].demand == pytest.approx(8 * 0.007 / 0.1)
    assert last["clients"].wait == pytest.approx(7.2)
    said = [value for it in ticks[-1].forecasts if it.metric == "cpu" for row in it.values for value in row]
    assert len(said) > 0
    assert max(said) <= 2.0


def crowded(tick: int, unseen: float, kernel: float = 0.0, steal: float = 0.0) -> Snapshot:
    """The service and the hog use 1.2 cores of two CPUs; besides somebody unseen, the kernel, and other guests of the host."""
    made = snapshot(tick)
    each = round(tick * SECOND * (1.2 + unseen + kernel) / 2)
    host = HostSample(
        (each, each), 8 << 30, 6 << 30, None, steal_ns=round(tick * SECOND * steal), kernel_ns=round(tick * SECOND * kernel)
    )
    return replace(made, host=host)


def machines(*snapshots: Snapshot) -> list[Machine]:
    observer = Observer(Config(), Abilities(False, "", False), OWN, None, None, None)
    return [observer.tick(one, (), paused=False).machine for one in snapshots][1:]


def test_work_that_no_visible_process_accounts_for_is_told_within_three_ticks() -> None:
    seen = machines(*(crowded(tick, unseen=0.8) for tick in range(1, 30)))
    assert seen[2].unseen > 0.3
    assert seen[-1].unseen == pytest.approx(0.8, abs=0.01)


def test_what_the_kernel_does_and_what_is_stolen_is_not_unseen_work() -> None:
    seen = machines(*(crowded(tick, unseen=0.0, kernel=0.5, steal=0.25) for tick in range(1, 10)))
    assert {machine.unseen for machine in seen} == {0.0}
    assert seen[-1].steal == pytest.approx(0.25)


def test_a_single_odd_tick_is_not_unseen_work() -> None:
    seen = machines(*(crowded(tick, 0.0 if tick < 5 else 0.9 / tick) for tick in range(1, 10)))  # 0.9 cores in the fifth
    assert {machine.unseen for machine in seen} == {0.0}


def test_children_that_come_and_go_and_processes_that_were_not_visible_before_are_seen() -> None:
    def storm(tick: int) -> Snapshot:
        made = crowded(tick, unseen=0.8)
        made.table["child_cpu_ns"][1] = round(0.8 * tick * SECOND)
        return made

    def first_seen(tick: int) -> Snapshot:
        """Each tick another process, older than the tick before, that can now be read."""
        made = crowded(tick, unseen=0.8)
        other = ProcId(1000 + tick, 50)
        row = np.zeros(1, dtype=SAMPLE)
        row["pid"], row["start_ticks"], row["cpu_ns"], row["threads"] = *other, 40 * SECOND, 1
        table = np.concatenate([made.table, row])
        return replace(made, table=table, identities={**made.identities, other: Identity("x", "x", "/", "", 0)})

    for make in (storm, first_seen):
        assert {machine.unseen for machine in machines(*map(make, range(1, 12)))} == {0.0}, make


def test_where_the_machine_was_not_recorded_nothing_is_unseen() -> None:
    bare = [replace(snapshot(tick), host=HostSample((), 0, 0, None)) for tick in range(1, 6)]
    assert {(machine.unseen, machine.steal) for machine in machines(*bare)} == {(0.0, 0.0)}


def test_a_group_that_its_own_quota_stops_is_told_for_what_part_of_the_tick() -> None:
    config = parse("[groups.job]\nprogram = 'hog'\nclass = 'batch'\n[groups.web]\nprogram = 'server'\nclass = 'interactive'")
    observer = Observer(config, Abilities(False, "", False), OWN, None, None, None)
    homes = {OWN: "/tools", SERVICE: "/limited/web", HOG: "/limitedless"}

    def seen(tick: int) -> Snapshot:
        quotas = (Quota("/limited", 9 * SECOND + tick * SECOND // 4), Quota("/limited/web", tick * SECOND // 10))
        identities = {id_: replace(IDENTITIES[id_], cgroup=home) for id_, home in homes.items()}
        return replace(snapshot(tick), identities=identities, quotas=quotas if tick > 1 else ())

    ticks = [groups(observer.tick(seen(tick), (), paused=False)) for tick in range(1, 4)]
    assert [(tick["web"].throttled, tick["job"].throttled) for tick in ticks[1:]] == [(0.0, 0.0), (0.25, 0.0)]


def groups(tick: Tick) -> dict[str, Group]:
    return {group.name: group for group in tick.groups}


def test_a_service_and_a_hog_are_told_apart_by_what_they_do_and_the_tick_says_on_what_grounds() -> None:
    seen = groups(observe(Config(), learns=True)[-1])
    assert {name: group.class_ for name, group in seen.items()} == {
        "program server": Class.INTERACTIVE,
        "program hog": Class.BATCH,
    }
    assert [member.id for member in seen["program hog"].members] == [HOG]
    behaviour = seen["program server"].behaviour
    assert behaviour is not None
    assert behaviour.p_interactive > 0.9
    assert "listens" in {feature for feature, _, _ in behaviour.evidence}


def test_nobody_is_called_batch_for_waiting() -> None:
    """A client of 0.054 cores that others keep waiting for most of each second."""
    found = shipped("behaviour")
    assert found is not None
    model = BehaviourModel.from_arrays(found.arrays, found.digest)
    observer = Observer(Config(), Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True), OWN, None, None, model)

    def seen(tick: int) -> Snapshot:
        made = snapshot(tick)
        made.table["cpu_ns"][2], made.table["wait_ns"][2] = round(0.054 * tick * SECOND), round(0.9 * tick * SECOND)
        made.table["timeslices"][2], made.table["read_chars"][2] = 30 * tick, 100_000 * tick
        return made

    ticks = [observer.tick(seen(tick), (), paused=False) for tick in range(1, 60)]
    assert {it.class_ for tick in ticks for it in tick.groups if it.name == "program hog"} <= {Class.EXEMPT}


def test_a_hog_is_known_within_two_ticks() -> None:
    first, second, third = observe(Config(), learns=True, ticks=3)
    assert first.gap
    known = [seen["program hog"].class_ for tick in (second, third) if "program hog" in (seen := groups(tick))]
    assert Class.BATCH in known


def seen_of(snapshots: Iterable[Snapshot]) -> list[Tick]:
    found = shipped("behaviour")
    assert found is not None
    model = BehaviourModel.from_arrays(found.arrays, found.digest)
    observer = Observer(Config(), Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True), OWN, None, None, model)
    return [observer.tick(one, (), paused=False) for one in snapshots]


def test_the_wall_clock_may_jump_and_nothing_else_in_the_tick_changes() -> None:
    hour = 3600 * SECOND
    jumps = (0, hour, -hour, -1_700_000_000 * SECOND, hour, 0)
    snapshots = [snapshot(tick) for tick in range(1, 25)]
    jumped = [replace(one, wall=one.wall + jumps[tick // 4]) for tick, one in enumerate(snapshots)]
    plain = seen_of(snapshots)
    assert [msgspec.structs.replace(tick, wall=one.wall) for tick, one in zip(seen_of(jumped), plain, strict=True)] == plain
    assert not any(tick.gap for tick in plain[1:])


def test_a_suspend_between_two_ticks_changes_no_rate() -> None:
    """The monotonic clock and all counters stand still in suspend; only the time since boot goes on."""
    night = 8 * 3600 * 100  # clock ticks
    snapshots = [snapshot(tick) for tick in range(1, 25)]
    awoke = [replace(one, uptime_ticks=one.uptime_ticks + night * (tick >= 12)) for tick, one in enumerate(snapshots)]
    before, after = seen_of(snapshots), seen_of(awoke)
    assert [tick.gap for tick in after] == [True, *[False] * 23]
    for one, other in zip(before, after, strict=True):
        assert [(it.name, it.cpu, it.demand, it.class_) for it in one.groups] == [
            (it.name, it.cpu, it.demand, it.class_) for it in other.groups
        ]
        assert one.machine.busy == other.machine.busy


def test_the_daemon_is_no_service_to_itself() -> None:
    """Its group behaves as the service does; had it a class, it could demote others for its own sake."""
    found = shipped("behaviour")
    assert found is not None
    model, seen = BehaviourModel.from_arrays(found.arrays, found.digest), {}
    for own in (OWN, SERVICE):
        observer = Observer(Config(), Abilities(autogroup=True, cpu_cgroup="v1", may_renice=True), own, None, None, model)
        ticks = [observer.tick(snapshot(tick), (), paused=False) for tick in range(1, 13)]
        seen[own] = {name: group.class_ for name, group in groups(ticks[-1]).items()}
    assert (seen[OWN]["program server"], seen[OWN]["program hog"]) == (Class.INTERACTIVE, Class.BATCH)
    assert (seen[SERVICE]["program server"], seen[SERVICE]["program hog"]) == (Class.EXEMPT, Class.BATCH)


@pytest.mark.parametrize("class_", ["exempt", "interactive"])
def test_the_configuration_pins_a_class_whatever_the_behaviour(class_: str) -> None:
    config = parse(f'[groups.mine]\nprogram = "hog"\nclass = "{class_}"\n')
    seen = groups(observe(config, learns=True)[-1])
    assert (seen["mine"].class_, seen["mine"].behaviour) == (Class(class_), None)


def test_without_a_model_nobody_has_a_class_that_the_configuration_does_not_give() -> None:
    seen = groups(observe(parse('[groups.mine]\nprogram = "hog"\nclass = "batch"\n'), learns=False)[-1])
    assert {name: group.class_ for name, group in seen.items()} == {"mine": Class.BATCH, "program server": Class.EXEMPT}


def test_the_tick_says_where_the_programs_are_that_must_never_be_touched_whatever_their_class() -> None:
    tick = observe(parse('[guard]\nprotect = ["ser*"]\n'), learns=False)[-1]
    assert [member.id for member in tick.sheltered] == [SERVICE]
    assert (tick.sheltered[0].session, tick.sheltered[0].cgroup) == (SERVICE.pid, IDENTITIES[SERVICE].cgroup)
    assert SERVICE in tick.protected
    assert all(not group.members for group in tick.groups)
    assert observe(Config(), learns=False)[-1].sheltered == ()


def test_the_tick_says_where_nicety_itself_is() -> None:
    assert observe(Config(), learns=False)[-1].home == Member(OWN, OWN.pid, "/tools", 0, owner=0)
