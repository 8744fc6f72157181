"""One test a kind, on pools of three and more, of two, and of one: found when they are there, and what only looks alike is left in
peace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nicety.models.anomaly.detectors import KINDS, worker_rows
from nicety.models.anomaly.evidence import CHANNELS, COMPARABLE_CHARS, MIB, WARM_UP, WARM_UP_TICKS, WindowView, works
from nicety.models.anomaly.model import RobustZ, alpha, score
from nicety.models.anomaly.progress import stuck
from nicety.models.anomaly.siblings import Siblings
from nicety.models.features import WorkerWindows
from nicety.models.identity import ProcId
from nicety.models.records import WINDOW, Anomaly, Score
from nicety.training.anomaly_cases import FAULTS, WorkerTick, faulty, healthy_pool

AT = {name: i for i, name in enumerate(CHANNELS)}
VICTIM = ProcId(100, 1)
ONSET = 200


def flags(
    ticks: Sequence[WorkerTick], interval: float, start: int = 0, available: float | None = None
) -> list[tuple[float, Score]]:
    """(seconds since `start`, score) of all below the line, at looks 2 s apart."""
    windows, found = WorkerWindows(len(CHANNELS)), []
    for number, tick in enumerate(ticks):
        windows.push(tick.keys, tick.values)
        if number >= start and number % max(round(2 / interval), 1) == 0:
            said = score(RobustZ(), tick.keys, tick.pools, *windows.view(), interval, available)
            found += [((number - start) * interval, s) for s in said if s.p < alpha(1.0)]
    return found


def pool(workers: int, ticks: int, interval: float, seed: int, character: str = "steady") -> list[WorkerTick]:
    return healthy_pool(character, workers, ticks, interval, np.random.default_rng(seed))


def put(ticks: Sequence[WorkerTick], kind: Anomaly, interval: float, strength: float = 1.0) -> Sequence[WorkerTick]:
    """The first worker goes wrong at `ONSET`."""
    values = faulty(kind, np.array([tick.values[0] for tick in ticks[ONSET:]]), interval, strength)
    for tick, row in zip(ticks[ONSET:], values, strict=True):
        tick.values[0] = row
    return ticks


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        (Anomaly.FD_LEAK, 45),
        (Anomaly.THREAD_LEAK, 45),
        (Anomaly.SLOW, 45),
        (Anomaly.SWITCH_STORM, 30),
        (Anomaly.FORK_STORM, 25),
    ],
)
def test_each_kind_is_found_in_time_and_named_right(kind: Anomaly, seconds: float, workers: int) -> None:
    found = flags(put(pool(workers, 320, 0.5, 1), kind, 0.5), 0.5, ONSET)
    if kind is Anomaly.SLOW and workers == 2:
        assert found == []  # of two, who is the slow one?
        return
    assert {(s.id, s.kind) for _, s in found} == {(VICTIM, kind)}
    assert found[0][0] <= seconds


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        (Anomaly.FD_LEAK, 130),
        (Anomaly.THREAD_LEAK, 130),
        (Anomaly.SPIN, 70),
        (Anomaly.STUCK, 70),
        (Anomaly.STARVED, 30),
        (Anomaly.SWITCH_STORM, 30),
        (Anomaly.FORK_STORM, 25),
    ],
)
def test_a_lone_worker_is_held_against_its_own_past_which_the_evidence_says(kind: Anomaly, seconds: float) -> None:
    found = flags(put(pool(1, 350, 1.0, 2), kind, 1.0), 1.0, ONSET)
    assert {s.kind for _, s in found} == {kind}
    assert found[0][0] <= seconds
    figures = dict(found[0][1].evidence)
    assert figures["siblings"] == 0
    assert figures["own_past_seconds"] >= 24


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (Anomaly.SLOW, Anomaly.OUTLIER)])
def test_three_workers_are_compared_with_siblings_alone(kind: Anomaly) -> None:
    found = flags(put(pool(3, 320, 0.5, 3), kind, 0.5), 0.5, ONSET)
    assert found
    assert dict(found[0][1].evidence)["siblings"] == 2
    assert "own_past_seconds" not in dict(found[0][1].evidence)


@pytest.mark.parametrize("kind", [Anomaly.SWITCH_STORM, Anomaly.FORK_STORM])
def test_of_two_workers_one_is_compared_with_the_other_and_with_its_own_past(kind: Anomaly) -> None:
    found = flags(put(pool(2, 320, 0.5, 1), kind, 0.5), 0.5, ONSET)
    figures = dict(found[0][1].evidence)
    assert figures["siblings"] == 1
    assert figures["own_past_seconds"] >= 24


def test_a_leak_says_when_it_will_hit_the_limit() -> None:
    ticks = put(pool(4, 260, 0.5, 4), Anomaly.LEAK, 0.5)
    figures = dict(flags(ticks, 0.5, ONSET, available=3000 * MIB)[-1][1].evidence)
    assert figures["hits_limit_seconds"] == pytest.approx(1000, rel=0.1)  # it takes 3 MiB a second
    assert "hits_limit_seconds" not in dict(flags(ticks, 0.5, ONSET)[-1][1].evidence)
    descriptors = put(pool(4, 280, 0.5, 4), Anomaly.FD_LEAK, 0.5)
    figures = dict(flags(descriptors, 0.5, ONSET, available=3000 * MIB)[-1][1].evidence)
    assert "hits_limit_seconds" not in figures  # memory is not what they will run out of
    assert figures["growth_fds_per_minute"] == pytest.approx(240, rel=0.1)


@pytest.mark.parametrize(("window", "found"), [(60.0, True), (59.0, False)])
def test_of_a_lone_worker_a_whole_window_of_a_minute_shows_a_leak(window: float, found: bool) -> None:
    interval = window / WINDOW
    said = flags(put(pool(1, ONSET + 2 * WINDOW, interval, 2), Anomaly.FD_LEAK, interval, 2.0), interval, ONSET)
    assert {score.kind for _, score in said} == ({Anomaly.FD_LEAK} if found else set())


@pytest.mark.parametrize(
    ("theirs", "own", "spins"),
    [(100_000.0, 1000.0, True), (100_000.0, 5000.0, False), (5000.0, 255.0, True), (5000.0, 256.0, False)],
)
def test_a_worker_that_moves_next_to_nothing_of_what_its_siblings_move_spins(theirs: float, own: float, spins: bool) -> None:
    ticks = put(pool(4, 320, 0.5, 1), Anomaly.SPIN, 0.5)
    for tick in ticks:
        tick.values[:, AT["chars"]] = theirs
    for tick in ticks[ONSET:]:
        tick.values[0, AT["chars"]] = own
    said = {(score.id, score.kind) for _, score in flags(ticks, 0.5, ONSET)}
    assert ((VICTIM, Anomaly.SPIN) in said) is spins


@pytest.mark.parametrize("interval", [0.5, 1.0])
def test_an_outlier_has_to_stand_out_for_a_minute_at_any_interval(interval: float) -> None:
    ticks = pool(4, ONSET + round(80 / interval), interval, 4)
    for tick in ticks[ONSET:]:
        tick.values[0, AT["threads"]] *= 50
    found = flags(ticks, interval, ONSET)
    assert {(score.id, score.kind) for _, score in found} == {(VICTIM, Anomaly.OUTLIER)}
    assert 40 <= found[0][0] <= 64  # the older half may have a part of what was before


@pytest.mark.parametrize(("mib", "found"), [(0.05, False), (50.0, True)])
def test_a_hundred_times_next_to_no_memory_is_no_outlier(mib: float, found: bool) -> None:
    ticks = pool(4, 340, 0.5, 4)
    for number, tick in enumerate(ticks):
        tick.values[:, AT["rss"]] = mib * MIB
        tick.values[0, AT["rss"]] *= 100 if number >= ONSET else 1
    said = {(score.id, score.kind) for _, score in flags(ticks, 0.5, ONSET)}
    assert said == ({(VICTIM, Anomaly.OUTLIER)} if found else set())


def test_a_lone_long_computation_is_no_spin_where_work_never_showed_io() -> None:
    ticks = pool(1, 350, 1.0, 5)
    for tick in ticks:
        tick.values[:, AT["chars"]] = 0.0
    assert flags(put(ticks, Anomaly.SPIN, 1.0), 1.0, ONSET) == []


def test_a_lone_worker_without_work_is_not_stuck() -> None:
    ticks = put(pool(1, 350, 1.0, 6), Anomaly.STUCK, 1.0)
    for tick in ticks[ONSET:]:
        tick.values[:, [AT["busy"], AT["queued"]]] = 0.0
    assert flags(ticks, 1.0, ONSET) == []
    for tick in ticks:
        tick.values[:, [AT["busy"], AT["queued"]]] = np.nan
    assert flags(ticks, 1.0, ONSET) == []


@pytest.mark.parametrize(
    ("character", "workers"),
    [("connections", 2), ("connections", 5), ("threads", 1), ("threads", 2), ("threads", 5), ("spawning", 1), ("spawning", 4)],
)
def test_crowds_executors_and_programs_that_start_others_are_healthy(character: str, workers: int) -> None:
    for seed in range(2):
        assert flags(pool(workers, 400, 0.5, 10 + seed, character), 0.5, 40) == []


def test_a_fault_among_workers_of_many_threads_is_found_all_the_same() -> None:
    found = flags(put(pool(5, 330, 0.5, 14, "threads"), Anomaly.THREAD_LEAK, 0.5), 0.5, ONSET)
    assert {(s.id, s.kind) for _, s in found} == {(VICTIM, Anomaly.THREAD_LEAK)}


def test_requests_that_are_larger_are_not_slow() -> None:
    ticks = pool(4, 320, 0.5, 15)
    for tick in ticks[ONSET:]:  # it gets the large ones: eight times the CPU, and eight times the bytes
        cpu = tick.values[0, AT["cpu"]]
        tick.values[0, AT["cpu"]] = min(8 * cpu, 1.0)
        tick.values[0, [AT["chars"], AT["timeslices"]]] *= min(8 * cpu, 1.0) / cpu
        tick.values[0, AT["busy"]] = 1.0
    assert flags(ticks, 0.5, ONSET) == []


def test_a_worker_that_sleeps_in_every_request_is_slow() -> None:
    ticks = pool(4, 320, 0.5, 16)
    for tick in ticks:
        tick.values[:, AT["busy"]] = np.minimum(tick.values[:, AT["busy"]], 0.3)
    for tick in ticks[ONSET:]:
        tick.values[0, AT["busy"]] = 1.0
        tick.values[0, [AT["cpu"], AT["wait"], AT["chars"], AT["timeslices"]]] /= 3
    found = flags(ticks, 0.5, ONSET)
    assert {(s.id, s.kind) for _, s in found} == {(VICTIM, Anomaly.SLOW)}
    figures = dict(found[-1][1].evidence)
    assert figures["busy_for_the_same_work_times_siblings"] > 5
    assert figures["cpu_for_the_same_work_times_siblings"] < 2


def test_a_worker_that_waits_for_a_cpu_is_starved_and_not_slow() -> None:
    found = flags(put(pool(4, 320, 0.5, 17), Anomaly.STARVED, 0.5), 0.5, ONSET)
    assert {s.kind for _, s in found} == {Anomaly.STARVED}


def test_a_worker_that_gets_all_the_requests_makes_no_storm() -> None:
    ticks = pool(4, 320, 0.5, 18)
    for tick in ticks:
        tick.values[:, AT["timeslices"]] *= 100
        tick.values[:, AT["forks"]] = 3.0
    for tick in ticks[ONSET:]:
        for name in ("cpu", "wait", "chars", "timeslices", "busy", "forks"):
            tick.values[1:, AT[name]] *= 0.02
        tick.values[0, [AT["chars"], AT["timeslices"], AT["forks"], AT["cpu"]]] *= 1.8
    assert flags(ticks, 0.5, ONSET) == []


def doing(ticks: Sequence[WorkerTick], begin: int, rows: Sequence[tuple[float, float, float, float, float]]) -> None:
    """From `begin` on the workers do just so much: (cpu, wait, slices, chars, busy) each."""
    for tick in ticks[begin:]:
        for worker, row in enumerate(rows):
            tick.values[worker, [AT[name] for name in ("cpu", "wait", "timeslices", "chars", "busy")]] = row


@pytest.mark.parametrize(("theirs", "storm"), [(14_000.0, True), (COMPARABLE_CHARS, True), (600.0, False)])
def test_siblings_that_hardly_need_a_cpu_show_a_storm_where_they_move_as_many_bytes(theirs: float, storm: bool) -> None:
    """Heartbeats show nothing: a worker that has just come may get all the requests, which move no bytes."""
    ticks = pool(4, 320, 0.5, 60)
    doing(ticks, 0, [(0.002, 0.015, 5.0, theirs, 0.03)] * 4)
    doing(ticks, ONSET, [(0.03, 0.24, 4500.0, 1.2 * theirs, 0.03)])
    fresh = ProcId(104, 2)
    ticks[ONSET:] = [WorkerTick((fresh, *tick.keys[1:]), tick.pools, tick.values) for tick in ticks[ONSET:]]
    said = {(score.id, score.kind) for _, score in flags(ticks, 0.5, ONSET)}
    assert said == ({(fresh, Anomaly.SWITCH_STORM)} if storm else set())


def test_who_gets_most_requests_is_not_slow_because_the_others_wait_before_they_are_busy() -> None:
    """A balancer that prefers one worker: it is busy for a fifth of its time, and as long for each byte as they are."""
    ticks = pool(4, 320, 0.5, 61)
    first, second = (0.009, 0.048, 32.0, 43_000.0, 0.21), (0.0065, 0.035, 24.0, 33_000.0, 0.13)
    doing(ticks, 0, [first, second, (0.004, 0.024, 15.0, 21_000.0, 0.049), (0.0025, 0.012, 9.0, 12_500.0, 0.025)])
    assert flags(ticks, 0.5, ONSET) == []


def test_one_program_of_many_processes_is_no_storm() -> None:
    ticks = pool(4, 320, 0.5, 19)
    for tick in ticks[ONSET : ONSET + 4]:  # a process pool of 200
        tick.values[0, AT["forks"]] = 100.0
    assert flags(ticks, 0.5, ONSET) == []


def test_a_thread_leak_is_not_called_a_memory_leak_though_stacks_take_memory() -> None:
    ticks = put(put(pool(4, 340, 0.5, 20), Anomaly.THREAD_LEAK, 0.5), Anomaly.LEAK, 0.5, 0.5)
    late = [s.kind for seconds, s in flags(ticks, 0.5, ONSET) if seconds >= 40]
    assert set(late) == {Anomaly.THREAD_LEAK}


def test_a_bound_that_costs_little_hides_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at closely without the bound, no worker is found that the bound had let pass."""
    rng = np.random.default_rng(21)
    windows = np.concatenate([[tick.values for tick in pool(5, WINDOW, 0.5, seed)] for seed in range(27)], axis=1)
    for number in range(27):
        start = int(rng.integers(10, 50))
        values = windows[start:, 5 * number]
        windows[start:, 5 * number] = faulty(FAULTS[number % len(FAULTS)], values, 0.5, float(rng.uniform(0.3, 1.0)))
    names, lengths = [f"{i // 5:03}" for i in range(135)], np.full(135, WINDOW)
    singles = np.ascontiguousarray(windows.transpose(2, 0, 1), dtype=np.float32)
    bounded = worker_rows(names, singles, lengths, 0.5)
    monkeypatch.setattr("nicety.models.anomaly.evidence.WindowView.closely", lambda view, _seen, _near, look: look(view))
    closely = worker_rows(names, singles, lengths, 0.5)
    assert bounded.material[:, :-1].any(axis=0).all(), "every kind with a name is there"
    assert np.array_equal(bounded.material, closely.material)
    assert np.array_equal(bounded.scores[bounded.material], closely.scores[bounded.material])


def test_unknown_channels_are_no_evidence() -> None:
    ticks = put(pool(3, 320, 0.5, 22), Anomaly.FD_LEAK, 0.5)
    for tick in ticks:
        tick.values[:, AT["fds"]] = np.nan
    assert flags(ticks, 0.5, ONSET) == []


@pytest.mark.parametrize("told", [True, False])
def test_who_is_last_in_line_for_work_is_not_stuck(told: bool) -> None:
    """An epoll set wakes the last sleeper first: others get nothing for minutes, and work that waits for a moment is not theirs.
    They wake once a second, for a wait that times out."""
    ticks = pool(4, 400, 0.5, 21)
    for number, tick in enumerate(ticks[ONSET:]):
        tick.values[0, [AT[name] for name in ("cpu", "wait", "timeslices", "chars", "busy")]] = (2e-4, 0.0, 2.0, 0.0, 0.0)
        tick.values[:, AT["queued"]] = 0.2 * (number % 8 < 2)
    for tick in [] if told else ticks:
        tick.values[:, [AT["busy"], AT["queued"]]] = np.nan
    assert flags(ticks, 0.5, ONSET) == []


def test_a_spinner_on_a_full_machine_is_no_victim() -> None:
    """It gets a tenth of a core, in some ticks nothing."""
    ticks = put(pool(4, 320, 0.5, 22), Anomaly.SPIN, 0.5)
    for number, tick in enumerate(ticks[ONSET:]):
        tick.values[0, AT["cpu"]] = 0.1 if number % 4 else 0.01
        tick.values[0, AT["wait"]] = 0.9
    found = flags(ticks, 0.5, ONSET)
    assert found
    assert found[0][0] <= 30
    assert {said.kind for _, said in found} == {Anomaly.SPIN}


def test_a_worker_that_is_kept_from_running_does_not_spin() -> None:
    ticks = put(pool(4, 320, 0.5, 23), Anomaly.SPIN, 0.5)
    for tick in ticks[ONSET:]:
        tick.values[0, [AT["cpu"], AT["wait"]]] = (0.01, 0.99)
    assert {said.kind for _, said in flags(ticks, 0.5, ONSET)} == {Anomaly.STARVED}


def test_a_spin_that_falls_short_for_single_ticks_goes_on() -> None:
    ticks = put(pool(4, 320, 0.5, 24), Anomaly.SPIN, 0.5)
    for number, tick in enumerate(ticks[ONSET:]):
        tick.values[0, [AT["cpu"], AT["wait"]]] = (0.5, 0.22) if number % 5 == 0 else (0.5, 0.5)
    assert {said.kind for _, said in flags(ticks, 0.5, ONSET)} == {Anomaly.SPIN}


@pytest.mark.parametrize(("siblings", "moved", "victim"), [(0.005, 5e4, False), (0.1, 5e4, True), (0.1, 0.0, False)])
def test_who_waits_because_it_never_has_enough_is_no_victim(siblings: float, moved: float, victim: bool) -> None:
    """A spinner on a full machine waits for nine tenths of its time, and runs twenty times as much as its siblings, or moves no
    byte when it runs."""
    windows = WorkerWindows(len(CHANNELS))
    for tick in pool(4, WINDOW, 0.5, 25, "idle"):
        tick.values[0, [AT["cpu"], AT["wait"], AT["chars"]]] = (0.1, 0.9, moved)
        tick.values[1:, [AT["cpu"], AT["wait"], AT["chars"]]] = (siblings, 0.001, 5e4)
        windows.push(tick.keys, tick.values)
    rows = worker_rows(tick.pools, *windows.view(), 0.5)
    assert rows.material[:, KINDS.index(Anomaly.STARVED)].tolist() == [victim, False, False, False]


@pytest.mark.parametrize(("workers", "found"), [(4, True), (2, False)])
def test_a_young_worker_that_leaks_descriptors_is_told_by_siblings_that_stand_still(workers: int, found: bool) -> None:
    """It has no past of the length of the span. Two of a pool do not know which of them is the odd one."""
    ticks = pool(workers, 320, 0.5, 26)
    born = ONSET + 2
    for number, tick in enumerate(ticks):
        tick.values[:, AT["fds"]] = 12.0
        if number >= born:
            tick.values[0, AT["fds"]] = 12.0 + 1.6 * (number - born)
    ticks[:born] = [WorkerTick(tick.keys[1:], tick.pools[1:], tick.values[1:]) for tick in ticks[:born]]
    said = flags(ticks[: born + 110], 0.5, born)  # 55 s of its life
    assert [score.kind for _, score in said[:1]] == ([Anomaly.FD_LEAK] if found else [])


WORK = [AT[name] for name in ("cpu", "wait", "timeslices", "chars", "busy")]


@pytest.mark.parametrize("found", [True, False])
def test_a_slow_worker_that_hardly_works_is_found_after_a_while(found: bool) -> None:
    """Siblings take half a percent of a core. Eight times that is slow for the same bytes, and is not for eight times as many."""
    ticks = pool(5, 330, 0.5, 27)
    for tick in ticks:
        tick.values[:, WORK] *= 0.01
    for tick in ticks[ONSET:]:
        tick.values[0, AT["cpu"]] *= 8
        tick.values[0, AT["chars"]] *= 1 if found else 8
    said = flags(ticks, 0.5, ONSET)
    assert {(score.id, score.kind) for _, score in said} == ({(VICTIM, Anomaly.SLOW)} if found else set())
    if found:
        assert 30 <= said[0][0] <= 60


def test_one_large_request_after_the_other_is_not_slow() -> None:
    """They keep a worker busy for a quarter of its time, at next to no bytes."""
    ticks = pool(5, 330, 0.5, 28)
    for tick in ticks:
        tick.values[:, WORK] *= 0.02
    for number, tick in enumerate(ticks[ONSET:]):
        tick.values[0, AT["busy"]] = 1.0 if number % 16 < 4 else 0.01
    assert flags(ticks, 0.5, ONSET) == []


@pytest.mark.parametrize(("theirs", "victim"), [(0.004, True), (0.3, False)])
def test_who_waits_as_all_its_siblings_do_is_not_singled_out(theirs: float, victim: bool) -> None:
    """On a full machine everybody waits for nearly all of the time that it wants a CPU."""
    windows = WorkerWindows(len(CHANNELS))
    for tick in pool(4, WINDOW, 0.5, 29, "idle"):
        tick.values[0, [AT["cpu"], AT["wait"], AT["chars"]]] = (0.01, 0.7, 5e4)
        tick.values[1:, [AT["cpu"], AT["wait"], AT["chars"]]] = (0.005, theirs, 5e4)
        windows.push(tick.keys, tick.values)
    rows = worker_rows(tick.pools, *windows.view(), 0.5)
    assert rows.material[:, KINDS.index(Anomaly.STARVED)].tolist() == [victim, False, False, False]


def test_a_cache_that_warms_up_after_a_deploy_is_no_leak() -> None:
    """The first of the new workers is old enough to be judged before the others are: they warm up as well."""
    ticks = pool(4, 200, 0.5, 30)
    born = (0, 24, 24, 24)
    for number, tick in enumerate(ticks):
        for worker, birth in enumerate(born):
            tick.values[worker, AT["rss"]] = (15 + min(0.4 * (number - birth), 60)) * MIB
    ticks[:24] = [WorkerTick(tick.keys[:1], tick.pools[:1], tick.values[:1]) for tick in ticks[:24]]
    assert flags(ticks, 0.5) == []


@pytest.mark.parametrize(("siblings", "found"), [(1.0, True), (0.05, False)])
def test_siblings_that_do_nothing_do_not_show_that_nothing_has_to_grow(siblings: float, found: bool) -> None:
    """A slow growth of descriptors: told by siblings that do as much, not by those at the end of the line."""
    ticks = pool(4, 330, 0.5, 31)
    for number, tick in enumerate(ticks):
        tick.values[:, AT["fds"]] = 12.0
        tick.values[0, AT["fds"]] += max(number - ONSET, 0) // 2 * 1.3
        tick.values[1:, WORK] *= siblings
        tick.values[1:, AT["cpu"]] += 0.001
    said = {(score.id, score.kind) for _, score in flags(ticks[: ONSET + 110], 0.5, ONSET)}
    assert said == ({(VICTIM, Anomaly.FD_LEAK)} if found else set())


@pytest.mark.parametrize("shown", [True, False])
def test_a_spinner_that_pauses_is_found_where_siblings_show_that_work_moves_bytes(shown: bool) -> None:
    """A livelock with a pause of a second and a half in every four. Where work moves no bytes a pause is the end of a task."""
    ticks = pool(4, 340, 0.5, 32)
    for tick in ticks:
        tick.values[:, WORK] *= 0.05
        tick.values[:, AT["chars"]] *= 5 if shown else 0
    for number, tick in enumerate(ticks[ONSET:]):
        tick.values[0, [AT["cpu"], AT["wait"], AT["chars"]]] = (0.95 if number % 8 < 5 else 0.01, 0.0, 0.0)
    said = flags(ticks, 0.5, ONSET)
    assert {(score.id, score.kind) for _, score in said} == ({(VICTIM, Anomaly.SPIN)} if shown else set())
    if shown:
        assert said[0][0] <= 45
        assert dict(said[0][1].evidence)["seconds_without_io"] >= 20


def test_background_work_of_a_worker_without_requests_is_no_spin() -> None:
    """A balancer that prefers others: what is left is what a thread does beside requests, which the others have too."""
    ticks = pool(4, 340, 0.5, 33)
    for tick in ticks:
        tick.values[:, AT["cpu"]] = 0.35
        tick.values[:, AT["wait"]] = 0.0
    for tick in ticks[ONSET:]:
        tick.values[0, [AT["chars"], AT["busy"]]] = 0.0
        tick.values[:, AT["queued"]] = 0.0
    assert flags(ticks, 0.5, ONSET) == []


def test_a_slow_leak_of_descriptors_is_found_while_they_are_few() -> None:
    ticks = pool(4, 330, 0.5, 34)
    for number, tick in enumerate(ticks):
        tick.values[:, AT["fds"]] = 12.0
        tick.values[0, AT["fds"]] += int(0.56 * max(number - ONSET, 0) / 2)
    said = flags(ticks, 0.5, ONSET)
    assert {(score.id, score.kind) for _, score in said} == {(VICTIM, Anomaly.FD_LEAK)}
    assert said[0][0] <= 50


def requests(rng: np.random.Generator, seconds: float, large: float) -> tuple[float, int]:
    """(share of ten looks in a second that see a worker at a request, requests): 1.5 come, most of them take so long on average,
    and some are large: they take 1 to 3 s more."""
    count = int(rng.poisson(1.5))
    taken = seconds * rng.lognormal(-0.32, 0.8, count) + (rng.random(count) < large) * rng.uniform(1.0, 3.0, count)
    return float(rng.binomial(10, min(taken.sum(), 1.0))) / 10, count


def backends(seed: int, ticks: int, seconds: Sequence[float], large: float = 0.0) -> list[WorkerTick]:
    """Workers that hardly need a CPU and wait so long for a backend in each request; the first one before `ONSET` as the second."""
    rng, made = np.random.default_rng(seed), pool(len(seconds), ticks, 1.0, seed)
    for number, tick in enumerate(made):
        for worker, each in enumerate(seconds):
            busy, count = requests(rng, each if worker or number >= ONSET else seconds[1], large)
            tick.values[worker, WORK] = (0.0005 + 0.002 * count, 0.0001, 3.0 + 4 * count, 16_384.0 * count, busy)
        tick.values[:, AT["queued"]] = 0.0
    return made


@pytest.mark.parametrize("times", [5.0, 8.0, 12.0])
def test_a_worker_whose_backend_is_slow_is_found_though_it_hardly_works(times: float) -> None:
    """It is busy for a seventh of its time and more, its siblings for a thirtieth."""
    for seed in range(4):
        said = flags(backends(40 + seed, ONSET + 60, (0.02 * times, 0.02, 0.02, 0.02)), 1.0, ONSET)
        assert {(score.id, score.kind) for _, score in said} == {(VICTIM, Anomaly.SLOW)}


@pytest.mark.parametrize("large", [0.0, 0.02, 0.05])
def test_large_requests_now_and_then_make_nobody_slow(large: float) -> None:
    for seed in range(3):
        assert flags(backends(50 + seed, 900, (0.02, 0.02, 0.02), large), 1.0, 60) == []


def test_a_backend_that_is_slow_for_all_makes_nobody_slow() -> None:
    ticks = backends(60, 400, (0.2, 0.02, 0.02, 0.02))
    for tick in ticks[ONSET:]:
        tick.values[1:, AT["busy"]] = tick.values[0, AT["busy"]]
    assert flags(ticks, 1.0, ONSET) == []


@pytest.mark.parametrize(("threads", "kind"), [(1.0, Anomaly.SPIN), (3.0, Anomaly.SWITCH_STORM)])
def test_a_spinner_that_is_pushed_off_its_cpu_all_the_time_makes_no_storm(threads: float, kind: Anomaly) -> None:
    """On a machine that is full it is put on a CPU 1,400 times a second. Threads that wake each other may do that by themselves."""
    ticks = put(pool(4, 330, 0.5, 61), Anomaly.SPIN, 0.5)
    for tick in ticks:
        tick.values[:, AT["threads"]] = threads
    for tick in ticks[ONSET:]:
        tick.values[0, [AT["cpu"], AT["wait"], AT["timeslices"]]] = (0.45, 0.53, 1400.0)
    assert {score.kind for _, score in flags(ticks, 0.5, ONSET)} == {kind}


@pytest.mark.parametrize(("chars", "compared"), [(COMPARABLE_CHARS, True), (COMPARABLE_CHARS - 1, False)])
def test_a_worker_is_compared_from_four_kib_a_second_on_though_it_hardly_computes(chars: float, compared: bool) -> None:
    windows = np.zeros((len(CHANNELS), WINDOW, 2), dtype=np.float32)
    windows[AT["chars"]] = chars
    view = WindowView(windows, np.full(2, WINDOW), Siblings(np.zeros(2, dtype=np.int64)), 1.0, None, 1.0)
    assert works(view, slice(WINDOW)).tolist() == [compared, compared]


def test_a_standstill_counts_from_the_first_tick_after_the_warm_up() -> None:
    """The least usual pause is half a tick, and a standstill matters from twenty of these on."""
    interval = 1.0
    lengths = np.array([WINDOW, WINDOW, WINDOW, max(round(WARM_UP / interval), WARM_UP_TICKS) + 1])
    windows = np.zeros((len(CHANNELS), WINDOW, 4), dtype=np.float32)
    windows[AT["busy"]] = 1.0
    windows[AT["cpu"], :, :3] = 0.5
    view = WindowView(windows, lengths, Siblings(np.zeros(4, dtype=np.int64)), interval, None, 1.0)
    assert view.ticks.tolist()[3] == 1
    assert stuck(view).size == pytest.approx([0, 0, 0, 0.1])


@pytest.mark.parametrize(("workers", "told"), [(2, [True, True]), (3, [False, True, False])])
def test_the_own_past_is_named_where_siblings_are_few_or_say_nothing(workers: int, told: list[bool]) -> None:
    windows = np.ones((len(CHANNELS), WINDOW, workers), dtype=np.float32)
    view = WindowView(windows, np.full(workers, WINDOW), Siblings(np.zeros(workers, dtype=np.int64)), 1.0, None, 1.0)
    theirs = np.array([1.0, np.nan, 1.0])[:workers]
    past = view.whom(np.arange(workers), slice(0, 64), theirs)["own_past_seconds"]
    assert np.isfinite(past).tolist() == told
