"""Traces of many machines: found wherever they lie, read within memory and time, put together to one data set."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Class, HostSample, Identity, Known, PoolSample, Snapshot, Trait, WorkerSample
from nicety.scheduler.config.sections import Config, parse
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.store.export import COLUMNS, export
from nicety.scheduler.store.traces import TraceWriter, read_traces
from nicety.training.dataset import Dataset, DatasetError, build
from nicety.training.gather import KEPT, Gathered, gather
from nicety.training.pieces import Piece, newest, packed, size, together, unpacked
from nicety.training.progress import Stages, TrainingBudget
from nicety.training.resume import Parts, SavedPart
from nicety.training.sources import MachineTraces, machines

WALL = 1_700_000_000 * 10**9
CONFIG = parse('[pools.web]\nkind = "gunicorn"\npid = 99\n[groups.batch]\nprogram = "hog"\nclass = "batch"\n', "nicety.toml")


def snapshots(ticks: int, seed: int = 0, first: int = 0, interval: float = 1.0) -> Iterator[Snapshot]:
    """Three programs and a pool of two workers, at a tick each."""
    ids = [ProcId(10, 5), ProcId(11, 5), ProcId(12, 6), ProcId(20, 7), ProcId(21, 7)]
    names = ["hog", "server", "server", "worker", "worker"]
    identities = {id_: Identity(name, name, "/", "", 0) for id_, name in zip(ids, names, strict=True)}
    rng, table = np.random.default_rng(seed), np.zeros(len(ids), SAMPLE)
    table["pid"], table["start_ticks"], table["state"] = [id_.pid for id_ in ids], [id_.start_ticks for id_ in ids], ord("R")
    table["known"] = [int(Known.WAIT | Known.IO), int(Known.FDS | Known.KEYS), int(Known.SOCKETS), int(Known.WAIT), int(Known.WAIT)]
    table["traits"] = [0, int(Trait.TERMINAL | Trait.READS_KEYSTROKES), int(Trait.SERVES), 0, 0]
    for tick in range(first, first + ticks):
        table["cpu_ns"] += rng.integers(10**8, 9 * 10**8, len(ids)).astype(np.uint64)
        table["rss_bytes"] = rng.integers(1, 9, len(ids)).astype(np.uint64) << 20
        table["timeslices"][(table["known"] & int(Known.WAIT)) != 0] += 5
        at = round((100 + tick * interval) * 1e9)
        workers = tuple(WorkerSample(id_, float(rng.random()), True) for id_ in ids[3:])
        pools = (PoolSample("web", 2, 2, 0.0, workers, None, None, ""),)
        yield Snapshot(at, WALL + at, at // 10**7, table, identities, HostSample((at,), 1 << 33, 1 << 32, None), pools)


def record(state: Path, sessions: Sequence[int], seed: int = 0, interval: float = 1.0, pools: bool = True) -> Path:
    """A state directory with sessions of so many ticks each, a minute between them."""
    first = 0
    for number, ticks in enumerate(sessions):
        writer = TraceWriter(state, boot_id="boot", session=f"5e5510{number:02}", budget_bytes=1 << 28, interval=interval)
        for snapshot in snapshots(ticks, seed + number, first, interval):
            writer.append(snapshot if pools else replace(snapshot, pools=()))
        writer.close()
        first += ticks + 60
    return state


class Clock:
    """Moves on by a step each time it is asked."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Quiet:
    """A `Progress` that has all the time."""

    def step(self, name: str, done: int, total: int) -> bool:
        return True


def gathered(found: Sequence[MachineTraces], state: Path, memory: int = 1 << 30, said: list[str] | None = None) -> Gathered:
    say = list[str]().append if said is None else said.append
    parts = Parts(state, {}, 1 << 30, say)
    try:
        return gather(found, CONFIG, None, WALL * 2, TrainingBudget(float("inf"), memory), Quiet(), parts, say)
    finally:
        parts.close()


def same(one: Dataset, two: Dataset) -> None:
    """Raises unless all values are equal."""
    np.testing.assert_equal(packed(one)[1], packed(two)[1])
    assert packed(one)[0] == packed(two)[0]


# --- machines -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["fleet"], ["a", "eu/b"]),
        (["fleet/a"], ["a"]),
        (["fleet/a/traces"], ["a"]),
        (["fleet/eu"], ["b"]),
        (["fleet", "fleet/a"], ["a", "eu/b"]),
        (["fleet/a", "fleet/eu/b"], ["a", "b"]),
    ],
)
def test_a_machine_is_called_after_its_folder(tmp_path: Path, given: list[str], names: list[str]) -> None:
    record(tmp_path / "fleet" / "a", [3])
    record(tmp_path / "fleet" / "eu" / "b", [3])
    (tmp_path / "fleet" / "notes.txt").write_text("no machine")
    (tmp_path / "fleet" / "a" / "decisions.db").write_text("no trace")
    found = machines([tmp_path / one for one in given])
    assert [machine.name for machine in found] == names
    assert [sum(1 for _ in machine.read(1.0)) for machine in found] == [3] * len(names)


def test_trace_files_of_one_folder_are_one_machine(tmp_path: Path) -> None:
    record(tmp_path / "a", [3])
    (file,) = (tmp_path / "a" / "traces").iterdir()
    (machine,) = machines([file, file])
    assert (machine.name, machine.parquet) == ("a", False)
    assert sum(1 for _ in machine.read(1.0)) == 3


def test_machines_with_the_same_name_are_told_apart(tmp_path: Path) -> None:
    for where in ("x", "y"):
        record(tmp_path / where / "web", [3])
    found = machines([tmp_path / "x" / "web", tmp_path / "y" / "web"])
    assert len({machine.name for machine in found}) == 2
    assert all(str(tmp_path) in machine.name for machine in found)


def test_a_name_that_a_terminal_would_obey_is_made_harmless(tmp_path: Path) -> None:
    record(tmp_path / "fleet" / "a\x1b[2J", [3])
    (machine,) = machines([tmp_path / "fleet"])
    assert machine.name == "a\\x1b[2J"


def test_a_folder_without_traces_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nicety record"):
        machines([tmp_path])


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere: No such file"):
        machines([tmp_path / "nowhere"])


# --- Parquet ------------------------------------------------------------------------------------------------------------------


def exported(tmp_path: Path, sessions: Sequence[int] = (40, 30)) -> tuple[Path, Path]:
    """(a state directory, what `nicety export` makes of it)"""
    state = record(tmp_path / "state", sessions)
    out = tmp_path / "exports" / "a.parquet"
    out.parent.mkdir(exist_ok=True)
    export(state, out, "parquet")
    return state, out


@pytest.mark.parametrize("rows", [7, 1 << 16])
def test_an_export_has_the_processes_as_they_were_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr("nicety.training.sources.BATCH", rows)  # ticks of five processes lie across batches
    state, out = exported(tmp_path)
    (machine,) = machines([out])
    assert (machine.name, machine.parquet) == ("a", True)
    read, expected = list(machine.read(1.0)), list(read_traces(state))
    assert len(read) == 70
    for (recording, mine), (original, snapshot) in zip(read, expected, strict=True):
        assert recording == original
        assert (mine.at, mine.wall, mine.identities) == (snapshot.at, snapshot.wall, snapshot.identities)
        for name in SAMPLE.names or ():
            np.testing.assert_array_equal(mine.table[name], snapshot.table[name], name)
        assert mine.pools == ()


def test_an_export_gives_the_demand_of_its_programs(tmp_path: Path) -> None:
    state, out = exported(tmp_path)
    without_pools = Config(groups=CONFIG.groups)
    stripped = ((recording, replace(snapshot, pools=())) for recording, snapshot in read_traces(state))
    expected = build(stripped, without_pools)
    (machine,) = machines([out])
    found = build(machine.read(1.0), without_pools)
    assert {run.metric for run in found.runs} == {"cpu", "rss"}
    assert found.data.digest == expected.data.digest


def test_a_folder_of_exports_is_one_machine_and_files_are_one_each(tmp_path: Path) -> None:
    _, out = exported(tmp_path)
    (out.parent / "b.parquet").write_bytes(out.read_bytes())
    assert [machine.name for machine in machines([out.parent])] == ["exports"]
    assert [machine.name for machine in machines(sorted(out.parent.iterdir()))] == ["a", "b"]


def test_time_bounds_hold_in_an_export(tmp_path: Path) -> None:
    _, out = exported(tmp_path)
    (machine,) = machines([out])
    walls = [snapshot.wall for _, snapshot in machine.read(1.0)]
    found = [snapshot.wall for _, snapshot in machine.read(1.0, walls[10], walls[50])]
    assert found == walls[10:50]


def test_the_interval_of_an_export_is_that_of_its_ticks(tmp_path: Path) -> None:
    state = record(tmp_path / "state", [20], interval=0.25)
    export(state, tmp_path / "a.parquet", "parquet")
    (machine,) = machines([tmp_path / "a.parquet"])
    assert {recording.interval for recording, _ in machine.read(1.0)} == {0.25}
    assert {recording.interval for recording, _ in machine.read(0.26)} == {0.26}
    assert [session.ticks for session in machine.sessions(1.0)] == [20]


def test_a_process_that_started_in_a_suspended_time_is_no_new_one(tmp_path: Path) -> None:
    """The monotonic clock stands still while the machine is suspended, start times do not: an old process must not be taken for one
    that was born since the tick before, or all that it ever used would count as used now."""
    writer = TraceWriter(tmp_path / "state", boot_id="boot", session="5e551000", budget_bytes=1 << 28, interval=1.0)
    for tick, snapshot in enumerate(snapshots(20)):
        table = snapshot.table.copy()
        table["start_ticks"][-1] = 10**6  # 10,000 s after boot, when the clock says 100
        table["cpu_ns"][-1] += 10**12
        table["start_ticks"][-2] = 10**6 + 5
        table = table[[0, 1, 2, 3, 4] if tick >= 10 else [0, 1, 2, 3]]  # it is seen from the tenth tick on, a sibling before
        table = table[[0, 1, 2, 4]] if tick >= 15 else table  # which goes
        identities = {ProcId(int(row["pid"]), int(row["start_ticks"])): Identity("x", "x", "/", "", 0) for row in table}
        writer.append(replace(snapshot, table=table, identities=identities, pools=()))
    writer.close()
    export(tmp_path / "state", tmp_path / "a.parquet", "parquet")
    (machine,) = machines([tmp_path / "a.parquet"])
    (run,) = (run for run in build(machine.read(1.0), Config()).runs if run.metric == "cpu")
    assert run.values.max() < 5
    uptimes = [snapshot.uptime_ticks for _, snapshot in machine.read(1.0)]
    assert uptimes == sorted(uptimes)


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, out = exported(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (machine,) = machines([out])
    with pytest.raises(StoreError, match=r"pip install '\.\[parquet\]'"):
        list(machine.read(1.0))


def altered(out: Path, change: Any) -> MachineTraces:
    """The export with its table changed."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(change(pyarrow.parquet.read_table(out)), out)
    (machine,) = machines([out])
    return machine


def test_another_table_is_no_export(tmp_path: Path) -> None:
    _, out = exported(tmp_path)
    machine = altered(out, lambda table: table.drop_columns(["fds"]))
    with pytest.raises(StoreError, match="not an export of this version: fds"):
        list(machine.read(1.0))


def test_a_process_twice_in_one_tick_ends_the_file(tmp_path: Path) -> None:
    import pyarrow

    _, out = exported(tmp_path)
    machine = altered(out, lambda table: pyarrow.concat_tables([table.slice(0, 105), table.slice(104)]))
    read = machine.read(1.0)
    assert sum(1 for _ in read) == 20
    assert "twice in one tick" in read.lost[0].reason


def test_sessions_that_meet_at_the_same_moment_stay_apart(tmp_path: Path) -> None:
    import pyarrow

    def twice(table: Any) -> Any:
        tick = table.slice(0, 5)
        return pyarrow.concat_tables([tick, tick.set_column(0, "session", pyarrow.array(["other"] * 5))])

    _, out = exported(tmp_path)
    machine = altered(out, twice)
    assert [(recording.id, len(snapshot.table)) for recording, snapshot in machine.read(1.0)] == [("5e551000", 5), ("other", 5)]


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"PAR1" + b"\0" * 100 + b"PAR1", lambda data: b""]
)
def test_a_damaged_export_is_told_and_does_not_end_the_training(tmp_path: Path, damage: Any) -> None:
    state, out = exported(tmp_path)
    out.write_bytes(damage(out.read_bytes()))
    found = gathered(machines([state, out]), tmp_path)
    assert found.dataset.data.ticks == 39 + 29
    assert any(str(out) in sentence for sentence in found.lost)


def test_a_flipped_bit_in_a_page_is_not_read_as_a_figure(tmp_path: Path) -> None:
    _, out = exported(tmp_path)
    data = bytearray(out.read_bytes())
    data[len(data) // 3] ^= 4
    out.write_bytes(bytes(data))
    (machine,) = machines([out])
    read = machine.read(1.0)
    whole = {snapshot.wall for _, snapshot in machines([tmp_path / "state"])[0].read(1.0)}
    assert {snapshot.wall for _, snapshot in read} < whole
    assert len(read.lost) == 1


# --- together -----------------------------------------------------------------------------------------------------------------


def test_one_machine_is_what_reading_it_in_one_go_gives(tmp_path: Path) -> None:
    state = record(tmp_path, [40, 30])
    same(gathered(machines([state]), tmp_path).dataset, build(read_traces(state), CONFIG))


def test_pieces_of_a_machine_are_what_reading_it_in_one_go_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nicety.training.gather.LEAST_PIECE", 20)
    state = record(tmp_path, [40, 30, 25])
    one, many = build(read_traces(state), CONFIG), gathered(machines([state]), tmp_path).dataset
    assert len(list((tmp_path / "training").glob("*/piece-0-*.part"))) == 3
    same(replace(many, sighted=one.sighted), one)  # rows of sighted groups are taken anew at each piece, as a daemon would
    assert set(many.sighted.groups) == set(one.sighted.groups)


def test_groups_of_different_machines_are_different_series_that_end_together(tmp_path: Path) -> None:
    for name, ticks in (("a", 60), ("b", 40)):
        record(tmp_path / "fleet" / name, [ticks], seed=ticks)
    dataset = gathered(machines([tmp_path / "fleet"]), tmp_path).dataset
    assert {run.target for run in dataset.runs} == {f"{m}/{g}" for m in "ab" for g in ("batch", "program server", "web")}
    assert {run.start + len(run.values) for run in dataset.runs} == {59} == {dataset.ticks}
    alone = build(read_traces(tmp_path / "fleet" / "b"), CONFIG)
    for run in alone.runs:
        (mine,) = (it for it in dataset.runs if (it.target, it.metric) == (f"b/{run.target}", run.metric))
        np.testing.assert_array_equal(mine.values, run.values)
        assert (mine.start, mine.at) == (run.start + 20, run.at)
    assert dataset.data.ticks == 59 + 39
    assert dataset.data.groups == 6
    assert len(dataset.workers.sessions) == 2
    assert dict(dataset.sighted.classes) == {"batch": Class.BATCH}  # the same program, on whatever machine
    assert set(dataset.sighted.groups) == {"batch"}


def test_only_ticks_of_the_configured_interval_are_used_and_the_others_counted(tmp_path: Path) -> None:
    record(tmp_path / "fleet" / "a", [40])
    record(tmp_path / "fleet" / "b", [30], interval=0.5)
    found = gathered(machines([tmp_path / "fleet"]), tmp_path)
    assert found.dataset.data.ticks == 39
    assert any(sentence.startswith("30 ticks of 0.5 s") for sentence in found.dataset.skipped)


def test_a_data_set_survives_being_kept(tmp_path: Path) -> None:
    dataset = build(read_traces(record(tmp_path, [40, 30])), CONFIG)
    plain, arrays = packed(dataset)
    same(unpacked(plain, arrays), dataset)
    assert unpacked(plain, arrays).runs[0].target == dataset.runs[0].target


def spoiled(plain: dict[str, Any], arrays: dict[str, Any], what: str) -> None:
    match what:
        case "a value less":
            arrays["values"] = arrays["values"][1:]
        case "values of another type":
            arrays["values"] = arrays["values"].astype(np.float64)
        case "a worker without a pool":
            arrays["pools"] = arrays["pools"][1:]
        case "a pool that is not there":
            arrays["pools"] = arrays["pools"] + 7
        case "a negative length":
            plain["runs"] = [["a", "cpu", 0, 0.0, -5], *plain["runs"]]
        case "another metric":
            plain["runs"][0][1] = "<script>"
        case "no classes":
            plain["classes"] = {}
        case "sessions too long":
            plain["sessions"] = [10**9]
        case "a session shorter than nothing":
            plain["sessions"] = [-5, *plain["sessions"], 5]
        case "another field":
            plain["more"] = 1
        case "no data range":
            del plain["data"]


@pytest.mark.parametrize(
    "what",
    [
        *("a value less", "values of another type", "a worker without a pool", "a pool that is not there", "a negative length"),
        *("another metric", "no classes", "sessions too long", "another field", "no data range"),
        "a session shorter than nothing",
    ],
)
def test_what_is_not_a_data_set_is_refused(tmp_path: Path, what: str) -> None:
    plain, arrays = packed(build(read_traces(record(tmp_path, [40])), CONFIG))
    plain["runs"] = [list(run) for run in plain["runs"]]
    spoiled(plain, arrays, what)
    with pytest.raises(ValueError, match=r".+"):
        unpacked(plain, arrays)


# --- within memory and time ---------------------------------------------------------------------------------------------------


def test_beyond_the_memory_the_newest_is_kept_and_the_rest_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nicety.training.gather.LEAST_PIECE", 20)
    monkeypatch.setattr("nicety.training.gather.READ", 1.0)  # so that pieces are not cut
    record(tmp_path / "fleet" / "a", [80, 80, 80], pools=False)
    record(tmp_path / "fleet" / "b", [100], pools=False)
    found = machines([tmp_path / "fleet"])
    whole = gathered(found, tmp_path / "one").dataset
    memory = round(size([Piece(0, 0, whole)]) / 2 / KEPT)
    bounded = gathered(found, tmp_path / "two", memory)
    assert 0 < size([Piece(0, 0, bounded.dataset)]) <= memory * KEPT
    (said,) = bounded.left_out
    assert said.startswith("series of groups before 2023-11-14 ")
    assert "--memory" in said
    since = min(run.at for run in bounded.dataset.runs)
    kept = {(run.target, run.metric): run for run in bounded.dataset.runs if run.start + len(run.values) == bounded.dataset.ticks}
    for run in whole.runs:
        if run.start + len(run.values) == whole.ticks:
            mine = kept[run.target, run.metric]
            np.testing.assert_array_equal(mine.values, run.values[-len(mine.values) :])
            assert mine.at == run.at + len(run.values) - len(mine.values)
            assert len(mine.values) == len(run.values) or mine.at < since + 1
    assert min(run.start for run in bounded.dataset.runs) == 0


def test_a_long_session_is_read_in_pieces_that_fit(tmp_path: Path) -> None:
    state = record(tmp_path / "state", [200])
    found = gathered(machines([state]), tmp_path, memory=400_000)
    pieces = len(list((tmp_path / "training").glob("*/piece-0-*.part")))
    assert pieces > 1
    assert found.dataset.data.ticks == 200 - pieces  # each piece needs a tick to compare its first one with


@pytest.mark.parametrize("most", [0, 1000, 20_000, 10**9])
def test_what_is_kept_fits(tmp_path: Path, most: int) -> None:
    dataset = build(read_traces(record(tmp_path, [60, 50])), CONFIG)
    pieces = [Piece(0, 0, dataset), Piece(1, 0, dataset)]
    kept = newest(pieces, most)
    assert size(kept.pieces) <= most
    assert (kept.since == 0.0 and kept.workers == 0) == (most == 10**9)
    assert kept.workers == worker_ticks(pieces) - worker_ticks(kept.pieces)


def worker_ticks(pieces: Sequence[Piece]) -> int:
    return sum(len(tick.keys) for piece in pieces for session in piece.dataset.workers.sessions for tick in session)


def test_too_little_time_reads_the_newest_and_says_so(tmp_path: Path) -> None:
    record(tmp_path / "fleet" / "a", [900])
    record(tmp_path / "fleet" / "b", [900])
    said: list[str] = []
    clock = Clock(0.0)

    class Slow:
        def step(self, name: str, done: int, total: int) -> bool:
            return True

    real = build

    def slow(*arguments: Any) -> Dataset:
        dataset = real(*arguments)
        clock.now += dataset.ticks * 0.01  # as slow as that a tick
        return dataset

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nicety.training.gather.build", slow)
        found = gather(
            machines([tmp_path / "fleet"]),
            CONFIG,
            None,
            WALL * 2,
            TrainingBudget(12.0, 1 << 30, clock),
            Slow(),
            Parts(tmp_path, {}, 1 << 30, said.append),
            said.append,
        )
    ticks = found.dataset.data.ticks
    assert 0.5 * 12 / 0.01 * 0.5 < ticks < 0.5 * 12 / 0.01
    assert any("ticks before" in sentence and "--time-budget" in sentence for sentence in found.left_out)
    assert found.dataset.data.last_wall == WALL + (100 + 899) * 10**9
    assert {run.target.split("/")[0] for run in found.dataset.runs} == {"a", "b"}


def test_when_time_is_up_reading_ends_with_what_there_is(tmp_path: Path) -> None:
    state = record(tmp_path, [300])
    clock = Clock(0.01)
    budget = TrainingBudget(4.0, 1 << 30, clock)
    stages = Stages(budget, io.StringIO())
    parts = Parts(tmp_path, {}, 1 << 30, list[str]().append)
    found = gather(machines([state]), CONFIG, None, WALL * 2, replace(budget, ends=float("inf")), stages, parts, list[str]().append)
    stages.end()
    assert 0 < found.dataset.data.ticks < 299
    assert "reading traces ended early" in stages.cut[0]
    assert not list((tmp_path / "training").glob("*/piece-*.part"))  # half a piece is none


# --- resumed ------------------------------------------------------------------------------------------------------------------


def test_a_reading_that_was_interrupted_gives_the_same_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nicety.training.gather.LEAST_PIECE", 20)
    for name in ("a", "b"):
        record(tmp_path / "fleet" / name, [40, 30, 25])
    found = machines([tmp_path / "fleet"])
    whole = gathered(found, tmp_path / "one").dataset
    real, built = build, list[int]()

    def interrupted(*arguments: Any) -> Dataset:
        if len(built) == 4:
            built.append(0)
            raise KeyboardInterrupt
        built.append(1)
        return real(*arguments)

    monkeypatch.setattr("nicety.training.gather.build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gathered(found, tmp_path / "two")
    resumed = gathered(found, tmp_path / "two").dataset
    assert sum(built) == 6  # every piece once
    same(resumed, whole)


def test_traces_that_have_changed_are_read_again(tmp_path: Path) -> None:
    state = record(tmp_path / "state", [60])
    found = machines([state])
    gathered(found, tmp_path)
    for file in (state / "traces").iterdir():
        file.unlink()
    record(state, [70], seed=3)
    said: list[str] = []
    again = gathered(found, tmp_path, said=said).dataset
    assert "have changed" in said[0]
    same(again, build(read_traces(state), CONFIG))


def test_what_was_read_before_the_change_does_not_count_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nicety.training.gather.LEAST_PIECE", 20)
    state = record(tmp_path / "state", [40, 30])
    found = machines([state])
    gathered(found, tmp_path)
    (kept,) = (tmp_path / "training").glob("*/piece-0-1.part")
    one, two = (unpacked(part.plain["dataset"], part.arrays) for part in parts_of(tmp_path, "piece-0-0", "piece-0-1"))
    kept.unlink()
    parts = Parts(tmp_path, {}, 1 << 30, list[str]().append)
    plain, arrays = packed(two)
    parts.save("piece-0-1", {"dataset": plain, "seen": "of other traces"}, arrays)
    parts.close()
    again = gathered(found, tmp_path).dataset
    assert again.ticks == one.ticks + two.ticks
    same(replace(again, sighted=one.sighted), replace(build(read_traces(state), CONFIG), sighted=one.sighted))


def parts_of(state: Path, *names: str) -> list[SavedPart]:
    parts = Parts(state, {}, 1 << 30, list[str]().append)
    found = [part for name in names if (part := parts.load(name)) is not None]
    parts.close()
    return found


def test_a_kept_piece_that_is_no_data_set_is_read_again(tmp_path: Path) -> None:
    state = record(tmp_path / "state", [60])
    parts = Parts(tmp_path, {}, 1 << 30, list[str]().append)
    parts.save("piece-0-0", {"dataset": {"interval": 1}, "seen": "x"}, {})
    parts.close()
    said: list[str] = []
    same(gathered(machines([state]), tmp_path, said=said).dataset, build(read_traces(state), CONFIG))
    assert "done again" in said[0]


def test_nothing_recorded_at_all_is_an_error(tmp_path: Path) -> None:
    state = record(tmp_path, [1])
    with pytest.raises(DatasetError, match="no two consecutive snapshots"):
        gathered(machines([state]), tmp_path)


def test_the_export_has_the_columns_that_are_read() -> None:
    assert {"session", "boot_id", "at_ns", "wall_ns", "kernel_session", "start_ticks"} <= COLUMNS.keys()


def test_together_of_nothing_but_one_piece_is_that_piece(tmp_path: Path) -> None:
    dataset = build(read_traces(record(tmp_path, [40])), CONFIG)
    assert together([Piece(0, 0, dataset)], ["a"]) is dataset
