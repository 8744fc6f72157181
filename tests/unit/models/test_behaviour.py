"""What groups did becomes a class: how much a tick says, what a model may be, and when a class is given, kept and forgotten."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nicety.models.artifact import shipped
from nicety.models.behaviour import (
    BEHAVIOUR_CHANNELS,
    BEHAVIOUR_FEATURES,
    CHARS_TICKS,
    CLASSES,
    KEPT_GROUPS,
    KEPT_SECONDS,
    KNOTS,
    LITTLE_CORES,
    SEEN,
    START_SECONDS,
    SWARM_KEPT_SECONDS,
    SWARM_SECONDS,
    BehaviourModel,
    Behaviours,
    Floats,
    Summaries,
    decide,
)
from nicety.models.checks import check_behaviour
from nicety.models.features import uncontended
from nicety.models.records import LOADING_SECONDS, Behaviour, Class, Ruled, Spared

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Doing:
    """What a group does in a tick."""

    processes: float = 1
    threads: float = 1
    young: float = 0
    settled: float = 0
    cpu: float = 0.0
    brief: float = 0.0
    wait: float = 0.0
    timeslices: float = 0.0
    chars: float = 0.0
    faults: float = 0.0
    serves: float = 0
    serves_locally: float = 0
    served_for: float = 0
    terminal: float = 0
    keys: float = 0
    has_window: float = 0
    pipe_fed: float = 0
    pipe_server: float = 0

    @property
    def demand(self) -> float:
        """As the measurer has it, if its processes are all alike."""
        each = np.full(max(round(self.processes), 1), 1 / max(round(self.processes), 1))
        return float(uncontended(self.cpu * each, self.wait * each, self.threads * each, math.inf).sum()) + self.brief

    def row(self) -> list[float]:
        return [getattr(self, name) for name in BEHAVIOUR_CHANNELS]


HOG = Doing(cpu=0.99, wait=0.01, timeslices=60, faults=5)
NEW_HOG = Doing(young=1, cpu=0.7, wait=0.3, timeslices=150, faults=400)
SERVICE = Doing(threads=2, cpu=0.2, wait=0.02, timeslices=1800, serves=1, faults=20)
BUSY_SERVICE = replace(SERVICE, cpu=0.6, timeslices=3000)
STARVING = Doing(threads=2, cpu=0.05, wait=0.9, timeslices=400, serves=1, faults=20)
SLEEPER = Doing(cpu=0.0, timeslices=0.5)


def arrays(**pushes: Sequence[float]) -> dict[str, NDArray[Any]]:
    """A model in which some features push from 0 at 0 to (latency, batch, none) at 1."""
    table = np.zeros((SEEN, KNOTS, len(CLASSES)))
    knots = np.tile(np.linspace(0.0, 1.0, KNOTS), (SEEN, 1))
    for name, push in pushes.items():
        table[BEHAVIOUR_FEATURES.index(name)] = np.linspace(0.0, 1.0, KNOTS)[:, None] * np.asarray(push)
    return {
        "knots": knots,
        "pushes": table.reshape(SEEN, KNOTS * len(CLASSES)),
        "start": np.array([0.0, 0.0, 1.0]),
        "halfway": np.array([0.15]),
    }


LONG_BURSTS = arrays(burst_ms=(-1, 6, 0))
PLAIN = arrays(listens=(6, -3, 0), busy_per_thread=(-1, 6, 0))
MODEL = BehaviourModel.from_arrays(PLAIN, "ab" * 32)


def values(*doing: Doing) -> Floats:
    return np.array([one.row() for one in doing])


def said(behaviours: Behaviours, doing: Doing, ticks: int = 1, group: str = "program x") -> Behaviour | None:
    found: Behaviour | None = None
    for _ in range(ticks):
        (found,) = behaviours.step([group], values(doing))
    return found


def latencies(behaviours: Behaviours, doing: Doing, ticks: int) -> Iterator[Class | None]:
    for _ in range(ticks):
        found = said(behaviours, doing)
        yield None if found is None else found.inferred


def summary(*doing: Doing, interval: float = 1.0) -> dict[str, float]:
    """The row after these ticks, with logarithms undone."""
    summaries = Summaries(interval)
    slots = np.zeros(1, dtype=np.int64)
    for one in doing:
        slots, _ = summaries.step(["program x"], values(one))
    row = dict(zip(BEHAVIOUR_FEATURES, summaries.rows(slots)[0].tolist(), strict=True))
    logs = ("burst_ms", "runs_per_second", "wait_per_cpu", "bytes_per_cpu_second", "bytes_per_run", "faults_per_cpu_second")
    return {name: 10**value if name in (*logs, "threads", "processes") else value for name, value in row.items()}


# --- what a tick says -------------------------------------------------------------------------------------------------------------


def test_rows_say_what_a_group_did() -> None:
    row = summary(*[Doing(processes=2, threads=4, young=1, cpu=0.5, wait=0.25, timeslices=250, faults=100, served_for=1)] * 4)
    assert row["burst_ms"] == pytest.approx(2.0)
    assert row["runs_per_second"] == pytest.approx(250)
    assert row["busy_per_thread"] == pytest.approx(0.75 / 4)
    assert row["cores_wanted"] == pytest.approx(0.75)
    assert row["wait_per_cpu"] == pytest.approx(0.5)
    assert row["faults_per_cpu_second"] == pytest.approx(200)
    assert (row["threads"], row["processes"]) == pytest.approx((4, 2))
    assert (row["young"], row["works_for_listener"]) == pytest.approx((0.5, 0.5))
    assert row["unsteadiness"] == pytest.approx(0, abs=1e-6)
    assert 3.5 < row["seconds_seen"] < 4


def test_what_is_not_known_of_any_tick_is_unknown_and_not_none() -> None:
    row = summary(*[replace(HOG, timeslices=math.nan, faults=math.nan, terminal=math.nan)] * 4)
    unknown = {
        "burst_ms",
        "runs_per_second",
        "bytes_per_run",
        "wait_per_cpu",
        "faults_per_cpu_second",
        "in_terminal",
        "irregularity",
    }
    assert {name for name in unknown if math.isnan(row[name])} == unknown
    assert summary(*[replace(HOG, faults=math.nan)] * 2, *[HOG] * 2)["faults_per_cpu_second"] == pytest.approx(5 / 0.99)


def test_threads_that_never_sleep_want_whole_cores() -> None:
    assert summary(Doing(threads=4, cpu=2.0, wait=2.0, timeslices=900))["whole_cores"] == 1
    assert summary(Doing(threads=4, cpu=0.4, wait=0.2, timeslices=900))["whole_cores"] == 0


def test_what_comes_in_bursts_is_unsteady_and_irregular_within_limits() -> None:
    rare = replace(HOG, cpu=0.002, wait=0.0, timeslices=1)
    steady, bursts = summary(*[HOG] * 60), summary(*[rare] * 59, HOG)
    assert max(steady["unsteadiness"], steady["irregularity"]) < 1e-6
    assert (bursts["unsteadiness"], bursts["irregularity"]) == (2.0, 2.0)


def test_a_tick_says_more_the_more_was_used_and_nothing_below_a_millisecond() -> None:
    seen = [summary(replace(SERVICE, cpu=cpu, wait=0))["seconds_seen"] for cpu in (0.0005, 0.002, 0.01, 0.2, 0.99)]
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert seen[2] == pytest.approx(0.5)
    assert seen[4] > 0.98


def test_a_tick_in_which_others_had_the_cpu_says_little() -> None:
    assert summary(STARVING)["seconds_seen"] < 0.15 * summary(BUSY_SERVICE)["seconds_seen"]
    starved = Doing(cpu=0.5, wait=0.5, timeslices=200)
    assert summary(starved)["seconds_seen"] > 0.95, "a hog that got its fair half shows what it is"


def test_starving_does_not_hide_what_was_seen_before() -> None:
    before = summary(*[BUSY_SERVICE] * 10)
    after = summary(*[BUSY_SERVICE] * 10, *[STARVING] * 10)
    assert before["busy_per_thread"] == pytest.approx(0.31)
    assert after["busy_per_thread"] < 0.35


def test_a_start_is_outweighed_soon() -> None:
    start = Doing(threads=2, young=1, cpu=1.0, timeslices=100, faults=20_000)
    row = summary(*[start] * 2, *[SERVICE] * 8)
    assert row["burst_ms"] < 0.5
    assert row["young"] < 0.25
    assert row["listens"] == 1


def test_minutes_of_pause_forget_nothing() -> None:
    before, after = summary(*[SERVICE] * 5), summary(*[SERVICE] * 5, *[replace(SLEEPER, chars=NAN, serves=1)] * 300)
    assert before.keys() == after.keys()
    for name in before.keys() - {"bytes_per_run", "bytes_per_cpu_second"}:
        assert before[name] == pytest.approx(after[name]), name


def test_bytes_count_once_they_have_been_read() -> None:
    lump = replace(SERVICE, chars=1e6)
    row = summary(*[SERVICE] * (CHARS_TICKS - 2), lump)
    assert np.isnan(row["bytes_per_run"])
    assert np.isnan(row["bytes_per_cpu_second"])
    row = summary(*[SERVICE] * (CHARS_TICKS - 1), lump)
    assert 1e6 / (1800 * CHARS_TICKS) < row["bytes_per_run"] < 1.6e6 / (1800 * CHARS_TICKS)


def test_what_cannot_be_seen_is_unknown_and_what_was_seen_stays() -> None:
    hidden = replace(HOG, serves=NAN, serves_locally=NAN, served_for=NAN, timeslices=NAN, chars=NAN)
    row = summary(hidden)
    for name in ("listens", "listens_locally", "works_for_listener", "burst_ms", "runs_per_second"):
        assert np.isnan(row[name]), name
    assert row["cores_wanted"] == 1
    assert summary(SERVICE, hidden)["listens"] == 1


def test_seconds_count_not_ticks() -> None:
    slow, fast = summary(*[SERVICE] * 2, interval=2.0), summary(*[SERVICE] * 8, interval=0.5)
    assert slow["seconds_seen"] == pytest.approx(fast["seconds_seen"], rel=0.1)
    for name in ("burst_ms", "runs_per_second", "cores_wanted"):
        assert slow[name] == pytest.approx(fast[name])


# --- the model --------------------------------------------------------------------------------------------------------------------


def test_the_model_keeps_what_models_promise() -> None:
    check_behaviour(MODEL)
    assert MODEL.name == "behaviour abababab"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("knots", None, "must be an array knots"),
        ("pushes", np.zeros((SEEN, KNOTS)), "must be an array pushes"),
        ("start", np.array([0.0, NAN, 0.0]), "not finite"),
        ("start", np.array([0.0, 1e9, 0.0]), "absurd"),
        ("start", np.zeros(3, dtype=np.float32), "must be an array start"),
        ("knots", np.zeros((SEEN, KNOTS)), "do not rise"),
        ("halfway", np.zeros(1), "must be above 0"),
        ("other", np.zeros(1), "does not belong"),
    ],
)
def test_arrays_that_are_no_model_are_refused(name: str, value: NDArray[Any] | None, said: str) -> None:
    changed = {key: array for key, array in PLAIN.items() if key != name}
    if value is not None:
        changed[name] = value
    with pytest.raises(ValueError, match=said):
        BehaviourModel.from_arrays(changed, "")


def test_evidence_is_what_makes_the_difference() -> None:
    row = np.full(SEEN + 1, NAN)
    row[SEEN] = 1e6  # all the evidence there can be
    start = np.log(MODEL.probabilities(row[None])[0])
    row[BEHAVIOUR_FEATURES.index("listens")] = 1.0
    row[BEHAVIOUR_FEATURES.index("busy_per_thread")] = 0.5
    gained = np.log(MODEL.probabilities(row[None])[0]) - start
    found = MODEL.evidence(row, Class.INTERACTIVE)
    assert [(name, value) for name, value, _ in found] == [("listens", 1.0), ("busy_per_thread", 0.5)]
    assert sum(push for _, _, push in found) == pytest.approx(gained[0] - gained[1:].mean(), abs=0.02)
    assert MODEL.evidence(row) == found, "by default towards the likeliest class"
    towards_batch = MODEL.evidence(row, Class.BATCH)
    assert {name: push < 0 for name, _, push in towards_batch} == {"listens": True, "busy_per_thread": False}


def test_values_beyond_the_knots_push_as_much_as_the_last() -> None:
    rows = np.full((2, SEEN + 1), NAN)
    rows[:, SEEN] = 5.0
    rows[:, BEHAVIOUR_FEATURES.index("listens")] = (1.0, 400.0)
    assert np.array_equal(*MODEL.probabilities(rows))


# --- deciding ---------------------------------------------------------------------------------------------------------------------


def test_batch_needs_more_than_certainty_when_it_may_be_a_service() -> None:
    held = np.full(4, CLASSES.index(Class.EXEMPT))
    found = decide(np.array([[0.08, 0.91, 0.01], [0.051, 0.91, 0.039], [0.049, 0.91, 0.041], [0.02, 0.91, 0.07]]), held, 0.9)
    assert [CLASSES[at] for at in found] == [Class.EXEMPT, Class.EXEMPT, Class.BATCH, Class.BATCH]


def test_a_class_once_held_is_kept_until_it_is_well_below() -> None:
    batch = np.array([CLASSES.index(Class.BATCH)])
    assert decide(np.array([[0.2, 0.65, 0.15]]), batch, 0.9).tolist() == batch.tolist()
    assert CLASSES[decide(np.array([[0.2, 0.55, 0.25]]), batch, 0.9)[0]] is Class.EXEMPT
    assert CLASSES[decide(np.array([[0.95, 0.04, 0.01]]), batch, 0.9)[0]] is Class.INTERACTIVE


def test_nothing_is_said_without_a_model_or_before_anything_was_done() -> None:
    assert said(Behaviours(None, 0.9), HOG) is None
    behaviours = Behaviours(MODEL, 0.9)
    assert said(behaviours, SLEEPER, 50) is None
    found = said(behaviours, HOG)
    assert found is not None
    assert found.source == MODEL.name


def test_a_class_comes_with_what_it_rests_on() -> None:
    found = said(Behaviours(MODEL, 0.9), SERVICE, 3)
    assert found is not None
    assert found.inferred is Class.INTERACTIVE
    assert found.p_interactive >= 0.9
    assert found.p_batch < 0.05
    assert found.evidence[0][:2] == ("listens", 1.0)
    assert found.evidence[0][2] > 4


def test_what_changes_nothing_keeps_its_words() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    first = said(behaviours, SERVICE, 30)
    assert said(behaviours, replace(SERVICE, cpu=0.201)) is first
    assert said(behaviours, SLEEPER) is first


def test_the_order_of_groups_does_not_matter() -> None:
    doing = {f"g{i}": (HOG, SERVICE, STARVING, SLEEPER)[i % 4] for i in range(40)}
    forward, backward = Behaviours(MODEL, 0.9), Behaviours(MODEL, 0.9)
    one = dict[str, Behaviour | None]()
    for tick in range(4):
        names = sorted(doing)[: 10 * (tick + 1)]
        one = dict(zip(names, forward.step(names, values(*(doing[name] for name in names))), strict=True))
        names = names[::-1]
        two = dict(zip(names, backward.step(names, values(*(doing[name] for name in names))), strict=True))
        assert one == two
    assert {found.inferred for found in one.values() if found} == {Class.INTERACTIVE, Class.BATCH, Class.EXEMPT}


@pytest.mark.parametrize("awaited", [{"terminal": 1}, {"pipe_fed": 1}, {"processes": 3, "threads": 3, "cpu": 2.97, "pipe_fed": 1}])
def test_what_may_be_loading_for_somebody_is_not_called_batch_in_its_first_seconds(awaited: dict[str, float]) -> None:
    hog = replace(HOG, **awaited)
    for interval in (1.0, 0.5):
        behaviours = Behaviours(MODEL, 0.9, interval)
        found = list(latencies(behaviours, hog, int(LOADING_SECONDS / interval)))
        assert set(found[:-1]) == {Class.EXEMPT}
        assert found[-1] is Class.BATCH
        assert said(behaviours, SLEEPER, 100) is not None
        assert list(latencies(behaviours, hog, 1)) == [Class.BATCH], "it loads once"


@pytest.mark.parametrize(
    "has", [{"has_window": 1}, {"served_for": 1}, {"pipe_fed": 1, "pipe_server": 1}], ids=["window", "server", "pipe"]
)
def test_what_somebody_may_wait_for_is_never_called_batch(has: dict[str, float]) -> None:
    behaviours = Behaviours(MODEL, 0.9)
    working = Doing(processes=3, threads=3, cpu=2.97, timeslices=180)
    assert set(latencies(behaviours, replace(working, **has), 60)) == {Class.EXEMPT}
    assert list(latencies(behaviours, working, 1)) == [Class.BATCH], "the window is closed, the server or who asked is gone"


def test_what_wants_little_is_not_called_batch_and_once_it_is_does_not_go_back_and_forth() -> None:
    behaviours = Behaviours(BehaviourModel.from_arrays(LONG_BURSTS, ""), 0.9)

    def wants(cores: float, ticks: int) -> set[Class | None]:
        return set(latencies(behaviours, Doing(cpu=cores, timeslices=2), ticks))

    assert wants(LITTLE_CORES * 0.95, 60) == {Class.EXEMPT}
    assert Class.BATCH in wants(LITTLE_CORES * 1.3, 60)
    assert wants(LITTLE_CORES * 0.6, 120) == {Class.BATCH}
    assert [*latencies(behaviours, Doing(cpu=LITTLE_CORES * 0.4, timeslices=2), 120)][-1] is Class.EXEMPT


@pytest.mark.parametrize("timeslices", [10, 30, 100])
@pytest.mark.parametrize("processes", [1, 2, 6])
def test_who_only_waits_is_not_called_batch_for_it(timeslices: float, processes: int) -> None:
    """A client that uses 0.05 cores beside a hundred hogs: it "wanted" 1.7 cores, and was called batch, 91 to 99 % sure."""
    client = Doing(processes=processes, threads=processes, cpu=0.054, wait=min(1.68, 0.9 * processes), timeslices=timeslices)
    assert not set(latencies(Behaviours(MODEL, 0.9), client, 60)) & {Class.BATCH, Class.INTERACTIVE}


def test_a_hog_among_many_of_its_own_kind_is_known_by_what_it_uses() -> None:
    starved = Doing(processes=12, threads=12, cpu=1.95, wait=10.0, timeslices=400)
    assert [*latencies(Behaviours(MODEL, 0.9), starved, 10)][-1] is Class.BATCH


def test_demoted_work_stays_what_it_was_called_however_little_it_gets() -> None:
    """It uses what others leave, and wants a whole CPU still: a demotion that took its own reason away would come and go."""
    behaviours = Behaviours(MODEL, 0.9)
    assert [*latencies(behaviours, HOG, 5)][-1] is Class.BATCH
    assert set(latencies(behaviours, Doing(cpu=0.03, wait=0.97, timeslices=60), 120)) == {Class.BATCH}
    assert set(latencies(behaviours, Doing(cpu=0.26, wait=0.74, timeslices=60), 120)) == {Class.BATCH}


def test_what_children_use_that_come_and_go_counts_as_used() -> None:
    make = Doing(cpu=0.05, brief=0.9, timeslices=2)
    sure = BehaviourModel.from_arrays(LONG_BURSTS, "")
    assert [*latencies(Behaviours(sure, 0.9), make, 30)][-1] is Class.BATCH
    assert [*latencies(Behaviours(sure, 0.9), replace(make, brief=0.0), 30)][-1] is Class.EXEMPT


def test_why_what_looks_like_batch_is_not_called_so_is_said() -> None:
    little = Doing(cpu=0.1, timeslices=2)
    sure = BehaviourModel.from_arrays(LONG_BURSTS, "")
    for doing, model, reason in (
        (replace(HOG, keys=1, terminal=1, has_window=1, served_for=1), MODEL, Spared.READS_KEYSTROKES),
        (replace(HOG, terminal=1, has_window=1, served_for=1), MODEL, Spared.HAS_WINDOW),
        (replace(HOG, terminal=1, served_for=1, pipe_fed=1, pipe_server=1), MODEL, Spared.SERVER),
        (replace(HOG, terminal=1, pipe_fed=1, pipe_server=1), MODEL, Spared.PIPE_SERVER),
        (replace(HOG, pipe_fed=1), MODEL, Spared.LOADING),
        (replace(HOG, terminal=1), MODEL, Spared.LOADING),
        (replace(little, terminal=1), sure, Spared.LOADING),
        (little, sure, Spared.LITTLE),
        (HOG, MODEL, None),
        (SERVICE, MODEL, None),
    ):
        found = said(Behaviours(model, 0.9), doing, 3)
        assert found is not None
        assert found.spared is reason
        assert (found.inferred is Class.EXEMPT) == (reason is not None)
        assert (found.p_batch >= 0.9) == (doing is not SERVICE)


def test_what_is_given_keys_is_never_called_batch() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    at_keys = replace(HOG, processes=2, threads=2, cpu=1.98, terminal=2, keys=1)
    assert set(latencies(behaviours, at_keys, 60)) == {Class.EXEMPT}
    assert list(latencies(behaviours, replace(at_keys, keys=0), 1)) == [Class.BATCH], "a prompt gives them up for what it runs"


@pytest.mark.parametrize("traits", [{}, {"terminal": NAN, "keys": NAN}, {"processes": 4, "threads": 4, "cpu": 3.96, "terminal": 4}])
def test_work_for_which_nobody_waits_is_batch_at_once(traits: dict[str, float]) -> None:
    assert [*latencies(Behaviours(MODEL, 0.9), replace(HOG, **traits), 2)][-1] is Class.BATCH


STARTING = Doing(young=1, cpu=0.9, wait=0.1, timeslices=100, faults=35_000)


def test_what_reads_its_code_is_not_called_batch_and_what_then_works_is() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    assert set(latencies(behaviours, STARTING, 3)) == {Class.EXEMPT}
    found = said(behaviours, STARTING)
    assert found is not None
    assert (found.spared, found.p_batch >= 0.9) == (Spared.YOUNG, True)
    assert list(latencies(behaviours, HOG, 2)) == [Class.BATCH] * 2
    assert list(latencies(behaviours, STARTING, 2)) == [Class.BATCH] * 2, "its predecessor was"


def test_a_start_that_ends_within_a_tick_is_no_behaviour_until_the_process_is_older() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    half = replace(STARTING, cpu=0.99, wait=0.01, faults=35_000)
    assert list(latencies(behaviours, half, 1)) == [Class.EXEMPT]
    busy = replace(HOG, young=1, cpu=0.9, wait=0.0)
    assert list(latencies(behaviours, busy, 1)) == [Class.EXEMPT], "most of what it did was to start"
    assert list(latencies(behaviours, busy, 1)) == [Class.BATCH]
    grown = Behaviours(MODEL, 0.9)
    assert list(latencies(grown, half, 1)) == [Class.EXEMPT]
    assert list(latencies(grown, replace(busy, young=0), 1)) == [Class.BATCH]


def test_a_start_may_take_long_where_the_cpu_is_short_and_not_for_ever() -> None:
    squeezed = replace(STARTING, cpu=0.3, wait=1.5, threads=2, young=0, faults=6_000)
    assert set(latencies(Behaviours(MODEL, 0.9), squeezed, int(START_SECONDS / 0.3) - 1)) == {Class.EXEMPT}
    assert [*latencies(Behaviours(MODEL, 0.9), replace(STARTING, young=0), int(START_SECONDS / 0.9) + 2)][-1] is Class.BATCH


def test_a_service_that_is_deployed_anew_stays_what_it_was_while_it_starts() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    assert [*latencies(behaviours, replace(SERVICE, settled=1), 20)][-1] is Class.INTERACTIVE
    started = replace(STARTING, cpu=0.3, wait=0.6, faults=0)
    assert set(latencies(behaviours, started, 25)) == {Class.INTERACTIVE}
    found = said(behaviours, started)
    assert found is not None
    assert (found.ruled, found.spared, found.evidence) == (Ruled.SUCCEEDS, None, ())
    assert set(latencies(behaviours, replace(SERVICE, young=0), 20)) == {Class.INTERACTIVE}
    assert [*latencies(behaviours, replace(HOG, settled=1), 60)][-1] is Class.BATCH, "it is settled, and no service any more"


def test_without_a_predecessor_a_class_is_given_up_as_ever() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    assert [*latencies(behaviours, SERVICE, 3)][-1] is Class.INTERACTIVE
    assert [*latencies(behaviours, HOG, 20)][-1] is Class.BATCH


def test_what_may_serve_unseen_is_not_called_batch() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    hidden = replace(HOG, serves=NAN, serves_locally=NAN, served_for=NAN, has_window=NAN)
    assert set(latencies(behaviours, hidden, 30)) == {Class.EXEMPT}
    found = said(behaviours, hidden)
    assert found is not None
    assert found.spared is Spared.UNSEEN
    assert list(latencies(behaviours, HOG, 1)) == [Class.BATCH]


SWARM = Doing(processes=3, threads=3, young=2, cpu=0.1, brief=1.4, wait=0.5, timeslices=4000, faults=20_000)


def test_a_swarm_is_batch_after_some_seconds_and_until_its_work_is_over() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    found = list(latencies(behaviours, SWARM, 12))
    assert found.index(Class.BATCH) == int(SWARM_SECONDS) - 1
    assert set(found[int(SWARM_SECONDS) :]) == {Class.BATCH}
    last = said(behaviours, SWARM)
    assert last is not None
    assert (last.ruled, last.evidence, last.p_batch < 0.9) == (Ruled.SWARM, (("brief_cores", 1.4, 0.0),), True)
    assert said(behaviours, replace(SWARM, cpu=0.11)) == last, "it rests on the rule as long as the model would not say so"
    assert set(latencies(behaviours, replace(SWARM, brief=LITTLE_CORES * 0.6), 30)) == {Class.BATCH}, "demoted, it does less"
    linking = replace(SWARM, brief=0.0, wait=0.0)
    assert list(latencies(behaviours, linking, 3)) == [Class.BATCH] * 3
    assert [*latencies(behaviours, linking, int(SWARM_KEPT_SECONDS))][-1] is Class.EXEMPT


@pytest.mark.parametrize(
    "awaited",
    [{"keys": 1}, {"has_window": 1}, {"served_for": 1}, {"pipe_fed": 1, "pipe_server": 1}, {"serves": NAN}, {"serves": 1}],
    ids=lambda traits: next(iter(traits)),
)
def test_a_swarm_that_somebody_waits_for_is_not_called_batch(awaited: dict[str, float]) -> None:
    assert Class.BATCH not in set(latencies(Behaviours(MODEL, 0.9), replace(SWARM, **awaited), 30))


def test_a_command_or_little_brief_work_is_no_swarm() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    assert Class.BATCH not in set(latencies(behaviours, SWARM, int(SWARM_SECONDS) - 1))
    assert Class.BATCH not in set(latencies(behaviours, replace(SWARM, brief=LITTLE_CORES * 0.9), 60))


def test_a_service_that_loads_is_latency_as_soon_as_it_shows() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    assert Class.BATCH not in set(latencies(behaviours, replace(HOG, terminal=1), 4))
    assert [*latencies(behaviours, replace(SERVICE, terminal=1), 5)][-1] is Class.INTERACTIVE


def test_a_periodic_job_is_known_when_it_comes_back() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    assert said(behaviours, HOG, 3, "program backup") is not None
    other = values(SLEEPER)
    for _ in range(int(KEPT_SECONDS) - 20):
        behaviours.step(["program other"], other)
    (found,) = behaviours.step(["program backup"], values(SLEEPER))
    assert found is not None
    assert found.inferred is Class.BATCH


def test_what_is_gone_for_long_is_forgotten_and_its_place_is_clean() -> None:
    behaviours = Behaviours(MODEL, 0.9)
    said(behaviours, HOG, 3, "program backup")
    for _ in range(int(KEPT_SECONDS) + 40):
        behaviours.step(["program other"], values(SLEEPER))
    assert behaviours.step(["program backup"], values(SLEEPER)) == [None]
    assert behaviours.step(["program third"], values(SLEEPER)) == [None]


def test_who_gets_the_place_of_a_forgotten_group_is_not_its_successor() -> None:
    summaries = Summaries()
    old, _ = summaries.step(["program old"], values(replace(HOG, settled=1)))
    assert summaries.forget(["program old", "program unknown"]) == old.tolist()
    new, _ = summaries.step(["program new"], values(NEW_HOG))
    assert new.tolist() == old.tolist()
    assert not summaries.renewed(new).any()
    assert not summaries.swarms(new).any()


def test_a_storm_of_programs_costs_no_memory() -> None:
    summaries = Summaries()
    for tick in range(100):
        summaries.step([f"program {tick}-{i}" for i in range(100)], values(*[HOG] * 100))
    assert summaries.capacity <= 4 * KEPT_GROUPS


def test_certainty_and_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="certainty"):
        Behaviours(MODEL, 0.5)
    with pytest.raises(ValueError, match="certainty"):
        Behaviours(MODEL, 1.0)
    with pytest.raises(ValueError, match="values where"):
        Behaviours(MODEL, 0.9).step(["a", "b"], values(HOG))
    with pytest.raises(ValueError, match="interval"):
        Summaries(0.0)


# --- the model that nicety comes with ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> BehaviourModel:
    artefact = shipped("behaviour")
    assert artefact is not None, "no behaviour model is shipped"
    return BehaviourModel.from_arrays(artefact.arrays, artefact.digest)


def test_the_shipped_model_keeps_what_models_promise(model: BehaviourModel) -> None:
    check_behaviour(model)


@pytest.mark.parametrize(
    "hog", [HOG, NEW_HOG, replace(NEW_HOG, processes=4, threads=4, young=4, cpu=1.9, wait=2.1, timeslices=700)]
)
def test_a_hog_is_batch_after_two_ticks(model: BehaviourModel, hog: Doing) -> None:
    found = said(Behaviours(model, 0.9), hog, 2)
    assert found is not None
    assert found.inferred is Class.BATCH, found


@pytest.mark.parametrize("service", [SERVICE, BUSY_SERVICE])
def test_a_service_in_use_is_latency_after_five_ticks(model: BehaviourModel, service: Doing) -> None:
    found = said(Behaviours(model, 0.9), service, 5)
    assert found is not None
    assert found.inferred is Class.INTERACTIVE, found


def test_a_service_that_starves_never_becomes_batch(model: BehaviourModel) -> None:
    behaviours = Behaviours(model, 0.9)
    assert Class.BATCH not in set(latencies(behaviours, STARVING, 60))
    said(behaviours, BUSY_SERVICE, 5)
    assert set(latencies(behaviours, STARVING, 60)) == {Class.INTERACTIVE}


@pytest.mark.parametrize(("interactive", "class_"), [(0.045, Class.BATCH), (0.055, Class.EXEMPT)])
def test_batch_may_be_interactive_with_half_of_what_certainty_leaves(interactive: float, class_: Class) -> None:
    chances = np.array([[interactive, 0.92, 0.08 - interactive]])
    (found,) = decide(chances, np.array([CLASSES.index(Class.EXEMPT)]), 0.9).tolist()
    assert CLASSES[found] is class_


def test_a_change_of_probability_up_to_the_limit_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nicety.models.behaviour.NEWS", 0.125)
    chances = iter([0.5, 0.625, 0.75])  # the last is a quarter away from what was said
    monkeypatch.setattr(MODEL, "probabilities", lambda rows: np.array([[0.0, p := next(chances), 1.0 - p]]))
    behaviours = Behaviours(MODEL, 0.9)
    first, second, third = (said(behaviours, HOG) for _ in range(3))
    assert first is second
    assert third is not None
    assert third is not second


def test_what_is_put_on_a_cpu_once_in_a_burst_is_twice_as_irregular_as_its_mean_at_most() -> None:
    ticks = [Doing(cpu=0.5, timeslices=10)] * 20
    assert summary(*ticks, Doing(cpu=0.5, timeslices=1e6))["irregularity"] == 2.0


def test_a_group_that_is_forgotten_leaves_nothing_to_the_next_in_its_place() -> None:
    summaries, fresh = Summaries(), Summaries()
    summaries.step(["program x"], values(replace(SERVICE, settled=1)))
    (freed,) = summaries.forget(["program x"])
    slots, _ = summaries.step(["program y"], values(NEW_HOG))
    other, _ = fresh.step(["program y"], values(NEW_HOG))
    assert slots.tolist() == [freed]
    assert summaries.renewed(slots).tolist() == [False]  # its processes took nobody's place
    assert np.array_equal(summaries.rows(slots), fresh.rows(other), equal_nan=True)
