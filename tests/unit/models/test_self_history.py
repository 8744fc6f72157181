"""Lone workers against their own past: what leaves it for good is found, a change of load and what comes and goes is not."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nicety.models.anomaly.evidence import CHANNELS, ENOUGH, Found
from nicety.models.anomaly.model import ALONE, LEAST_P, LINE_ALONE, RARE, RobustZ, alpha, score
from nicety.models.anomaly.self_history import ACCEPTED_SECONDS, BATCH, LEARNT_SECONDS, SelfHistory
from nicety.models.features import Floats, WorkerWindows
from nicety.models.identity import ProcId
from nicety.models.records import Anomaly, Score
from nicety.training.anomaly_cases import CHARACTERS, WorkerTick, healthy_pool, together

AT = {name: i for i, name in enumerate(CHANNELS)}
MIB = 1 << 20
ONSET = 400
ONE = ProcId(100, 1)


def scores(ticks: Sequence[WorkerTick], interval: float = 1.0) -> list[tuple[int, Score]]:
    """(tick, score) of all below the line, at every fourth tick: the last of `ONSET + 120` is one."""
    windows, self_history, found = WorkerWindows(len(CHANNELS)), SelfHistory(interval), []
    for number, tick in enumerate(ticks):
        windows.push(tick.keys, tick.values)
        alone = self_history.step(tick.keys, tick.pools, *windows.view())
        if number % 4 < 3:
            continue
        said = score(RobustZ(), tick.keys, tick.pools, *windows.view(), interval, None, alone)
        found += [(number, s) for s in said if s.p < alpha(1.0)]
    return found


def lone(ticks: int, character: str = "steady", workers: int = 1, seed: int = 1, interval: float = 1.0) -> list[WorkerTick]:
    return healthy_pool(character, workers, ticks, interval, np.random.default_rng(seed))


def from_onset(ticks: list[WorkerTick], change: Callable[[Floats], None], onset: int = ONSET) -> list[WorkerTick]:
    """The first worker's values [len(CHANNELS)] are changed from then on."""
    for tick in ticks[onset:]:
        change(tick.values[0])
    return ticks


def times(channel: str, factor: float, more: float = 0.0) -> Callable[[Floats], None]:
    def change(values: Floats) -> None:
        values[AT[channel]] = values[AT[channel]] * factor + more

    return change


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("trait", "change"),
    [
        ("threads", times("threads", 50)),
        ("fds", times("fds", 1, 2000)),
        ("rss", times("rss", 8)),
        ("chars_per_cpu", times("chars", 40)),
    ],
)
def test_a_lone_worker_that_leaves_its_past_for_good_is_an_outlier_and_says_in_what(
    trait: str, change: Callable[[Floats], None], workers: int
) -> None:
    found = [(tick, s) for tick, s in scores(from_onset(lone(ONSET + 120, workers=workers), change)) if s.kind is Anomaly.OUTLIER]
    assert {s.id for _, s in found} == {ONE}
    assert ONSET + 55 <= found[0][0] <= ONSET + 75  # it has to last
    assert found[-1][0] == ONSET + 119  # as long as it is so
    assert all(s.p == max(ALONE.p(np.array([s.value]))[0], LEAST_P) for _, s in found)
    figures = dict(found[-1][1].evidence)
    by_trait = {name.removesuffix("_times_own_past"): value for name, value in figures.items() if name.endswith("_own_past")}
    assert max(by_trait, key=lambda name: by_trait[name]) == trait
    assert by_trait[trait] >= 4
    assert figures[f"{trait}_deviations"] > 3
    assert figures["seconds"] == pytest.approx(120, abs=10)
    assert figures["own_past_seconds"] > 250


def test_what_never_changed_before_leaves_its_past_by_no_more_than_the_change() -> None:
    """A trait without scatter counts as if it had a little: its first move is not the most that there can be."""
    traits = {  # by trait: its channel, value at first, unit, least standard deviation
        "rss": ("rss", 64.0 * MIB, 16 * MIB, 0.2),
        "fds": ("fds", 64.0, 64, 0.2),
        "threads": ("threads", 16.0, 16, 0.2),
        "chars_per_cpu": ("chars", 32_768.0, 65_536, 0.5),
        "slices_per_cpu": ("timeslices", 50.0, 100, 0.5),
    }
    windows, self_history = WorkerWindows(len(CHANNELS)), SelfHistory(1.0)
    row, found = np.zeros((1, len(CHANNELS))), Found(np.zeros(1), np.zeros(1))
    row[0, AT["cpu"]] = 1.0
    for channel, before, _, _ in traits.values():
        row[0, AT[channel]] = before
    for tick in range(ONSET):
        if tick == ONSET - 80:
            row[0, 2:] *= 10
        windows.push([ONE], row)
        found = self_history.step([ONE], ["web"], *windows.view())
    assert found.at.tolist() == [0]
    for trait, (_, before, unit, least) in traits.items():
        moved = np.log1p(10 * before / unit) - np.log1p(before / unit)
        assert found.figures[f"{trait}_deviations"][0] == pytest.approx(moved / least, rel=0.05), trait


def last_score(ticks: Sequence[WorkerTick]) -> float:
    windows, self_history, score = WorkerWindows(len(CHANNELS)), SelfHistory(1.0), np.zeros(1)
    for tick in ticks:
        windows.push(tick.keys, tick.values)
        score = self_history.step(tick.keys, tick.pools, *windows.view()).score
    return float(score[0])


def test_what_comes_at_once_is_more_novel_than_what_comes_by_and_by() -> None:
    jump = from_onset(lone(ONSET + 100), times("rss", 8))
    ramp = lone(ONSET + 100)
    for number, tick in enumerate(ramp[ONSET:], 1):
        tick.values[0, AT["rss"]] *= 1 + 7 * min(number / 30, 1)
    assert last_score(jump) > 1.2 * last_score(ramp) > 0


def test_a_past_takes_no_more_room_the_more_workers_there_were() -> None:
    self_history, windows, room = SelfHistory(1.0), WorkerWindows(len(CHANNELS)), []
    for pid in range(3 * BATCH):
        windows.push([ProcId(pid, 1)], np.ones((1, len(CHANNELS))))
        self_history.step([ProcId(pid, 1)], ["web"], *windows.view())
        room.append(len(pickle.dumps(self_history)))
    assert max(room) - min(room) < 100


def test_what_has_a_name_is_called_by_it() -> None:
    found = scores(from_onset(lone(ONSET + 60), times("timeslices", 100)))
    assert {s.kind for _, s in found} == {Anomaly.SWITCH_STORM}


def test_healthy_lone_workers_are_left_in_peace() -> None:
    pools = [
        healthy_pool(name, workers, 700, 1.0, np.random.default_rng(7), f"{name} {workers}", 1000 * i + 100 * workers)
        for i, name in enumerate(CHARACTERS)
        for workers in (1, 2)
    ]
    assert scores(together(sorted(pools, key=lambda ticks: ticks[0].pools[0]))) == []


def idle_then_busy(values: Floats, tick: int) -> None:
    """At first timers and health checks only; then requests, with their connections and caches."""
    if tick < ONSET:
        values[[AT["cpu"], AT["wait"], AT["chars"], AT["timeslices"]]] = 0.004, 0.0, 200.0, 4.0
        values[AT["busy"]] = 0.01
    else:
        values[AT["fds"]] += 600
        values[AT["rss"]] += 900 * MIB
        values[AT["threads"]] += 100


def warms_up(values: Floats, tick: int) -> None:
    """A cache that fills over ten minutes from the start, to twenty times what was there."""
    values[AT["rss"]] *= 1 + 19 * (1 - np.exp(-tick / 150))


def collects(values: Floats, tick: int) -> None:
    """Garbage grows to ten times the level and is thrown away, every 100 s."""
    values[AT["rss"]] *= 1 + 9 * (tick % 100) / 100


def serves_one_large_request(values: Floats, tick: int) -> None:
    if ONSET <= tick < ONSET + 40:
        values[AT["rss"]] *= 8


@pytest.mark.parametrize("change", [idle_then_busy, warms_up, collects, serves_one_large_request])
def test_load_steps_warm_ups_collections_and_large_requests_are_no_alarm(change: Callable[[Floats, int], None]) -> None:
    ticks = lone(ONSET + 200, seed=3)
    for number, tick in enumerate(ticks):
        change(tick.values[0], number)
    assert [s for _, s in scores(ticks) if s.kind is Anomaly.OUTLIER] == []


def test_what_was_there_before_is_nothing_new() -> None:
    ticks = from_onset(lone(ONSET + 500), times("rss", 8))
    for tick in ticks[ONSET + 100 : ONSET + 300]:
        tick.values[0, AT["rss"]] /= 8
    found = [tick for tick, s in scores(ticks) if s.kind is Anomaly.OUTLIER]
    assert found
    assert max(found) < ONSET + 150  # once told, and not again when it comes back


def test_a_deploy_is_another_worker_which_has_no_past() -> None:
    ticks = from_onset(lone(ONSET + 150), times("rss", 8))
    later = [WorkerTick((ProcId(200, 2),), tick.pools, tick.values) for tick in ticks[ONSET:]]
    assert scores([*ticks[:ONSET], *later]) == []


def test_nothing_is_said_before_enough_of_the_past_is_known() -> None:
    onset = int(LEARNT_SECONDS)
    assert [s for _, s in scores(from_onset(lone(onset + 80), times("rss", 8), onset)) if s.kind is Anomaly.OUTLIER] == []


def test_what_stays_is_usual_in_the_end() -> None:
    interval = 20.0
    ticks = from_onset(lone(400, interval=interval), times("threads", 50), 100)
    windows, self_history, away = WorkerWindows(len(CHANNELS)), SelfHistory(interval), []
    for tick in ticks:
        windows.push(tick.keys, tick.values)
        away.append(bool(self_history.step(tick.keys, tick.pools, *windows.view()).material[0]))
    assert sum(away) * interval == pytest.approx(ACCEPTED_SECONDS)


def test_workers_with_siblings_are_not_asked_their_past() -> None:
    assert ENOUGH == 3
    ticks = from_onset(lone(ONSET + 100, workers=3), times("threads", 50))
    found = [dict(s.evidence) for _, s in scores(ticks) if s.kind is Anomaly.OUTLIER]
    assert found
    assert all("threads_times_siblings" in figures and "threads_times_own_past" not in figures for figures in found)


def test_a_worker_is_judged_alike_whoever_else_is_alone_and_whatever_slot_it_has() -> None:
    ticks = from_onset(lone(ONSET), times("threads", 50), ONSET - 80)
    others = [healthy_pool("bursty", 1, ONSET, 1.0, np.random.default_rng(i), f"q{i}", 1000 * i) for i in range(1, BATCH + 2)]
    for other in others[::2]:  # some go, so that slots become free and are taken again
        other[150:250] = [WorkerTick((), (), np.zeros((0, len(CHANNELS)))) for _ in range(100)]
    said: list[list[tuple[float, bool]]] = []
    for earlier, several in (([], [ticks]), ([], [*others, ticks]), (others[1][:100], [ticks])):
        windows, self_history = WorkerWindows(len(CHANNELS)), SelfHistory(1.0)
        for tick in earlier:
            windows.push(tick.keys, tick.values)
            self_history.step(tick.keys, tick.pools, *windows.view())
        said.append([])
        for tick in together(several):
            windows.push(tick.keys, tick.values)
            found = self_history.step(tick.keys, tick.pools, *windows.view())
            own = tick.keys.index(ONE)
            said[-1].append((float(found.score[own]), bool(found.material[own])))
    assert sum(material for _, material in said[0]) > 10
    assert np.array_equal(said[0], said[1], equal_nan=True)
    assert np.array_equal(said[0], said[2], equal_nan=True)


def test_who_is_gone_or_has_found_siblings_is_forgotten() -> None:
    self_history, windows = SelfHistory(1.0), WorkerWindows(len(CHANNELS))
    kept = []
    for workers in (1, 2, 3, 2, 0, 1):
        keys = [ProcId(pid, 1) for pid in range(workers)]
        windows.push(keys, np.ones((workers, len(CHANNELS))))
        self_history.step(keys, ["web"] * workers, *windows.view())
        kept.append(len(self_history))
    assert kept == [1, 2, 0, 2, 0, 1]


def test_the_line_is_as_rare_as_promised() -> None:
    assert ALONE.p(np.array([LINE_ALONE]))[0] == pytest.approx(RARE)
    assert ALONE.p(np.array([0.85]))[0] > 1e-3  # the highest of healthy workers is nothing special


@pytest.mark.parametrize(("channel", "trait"), [("timeslices", "slices_per_cpu"), ("chars", "chars_per_cpu")])
def test_how_it_works_is_not_odd_because_it_hardly_varied_before(channel: str, trait: str) -> None:
    """Half a logarithm is the least that counts as a standard deviation."""
    ticks = lone(ONSET + 100)
    for tick in ticks:
        tick.values[0, [AT["cpu"], AT["wait"], AT["timeslices"], AT["chars"]]] = 0.5, 0.0, 500.0, 1e6
    windows, self_history = WorkerWindows(len(CHANNELS)), SelfHistory(1.0)
    found = Found(np.zeros(1), np.zeros(1))
    for tick in from_onset(ticks, times(channel, 20)):
        windows.push(tick.keys, tick.values)
        found = self_history.step(tick.keys, tick.pools, *windows.view())
    figures = {name: float(values[0]) for name, values in found.figures.items()}
    assert figures[f"{trait}_times_own_past"] > 10
    assert figures[f"{trait}_deviations"] <= math.log(20) / 0.5
