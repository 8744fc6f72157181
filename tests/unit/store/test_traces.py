"""The trace store: what goes in comes out, in order, whatever the clock, the budget, the reader or another schema do."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Snapshot
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.store.traces import KEYFRAME_TICKS, SCHEMA, TraceError, TraceSession, TraceWriter, read_traces, sessions

SECOND = 1_000_000_000
NOON = 1_760_011_200 * SECOND  # 2025-10-09 12:00 UTC
HOUR = 3600 * SECOND


def machine(ticks: int, *, processes: int = 20, moving: int = 3, wall: int = NOON, seed: int = 1) -> Iterator[Snapshot]:
    """A machine of mostly idle processes, some of which are replaced now and then."""
    rng = np.random.default_rng(seed)
    table = np.zeros(processes, dtype=SAMPLE)
    table["pid"], table["start_ticks"] = np.arange(10, 10 + processes), 5
    table["rss_bytes"], table["state"], table["known"] = 10**7, ord("S"), 7
    busy = np.zeros(2, dtype=np.int64)
    for tick in range(ticks):
        table = table.copy()
        moved = rng.choice(processes, moving, replace=False)
        for name, most in (("cpu_ns", 10**9), ("wait_ns", 10**7), ("timeslices", 500), ("minor_faults", 100), ("rss_bytes", 2**20)):
            table[name][moved] += rng.integers(0, most, moving).astype(np.uint64)
        if tick % 7 == 3:
            table[int(moved[0])]["start_ticks"] = 100 * tick
        busy += rng.integers(0, SECOND, 2)
        keys = zip(table["pid"].tolist(), table["start_ticks"].tolist(), strict=True)
        yield Snapshot(
            at=10**13 + tick * SECOND,
            wall=wall + tick * SECOND,
            uptime_ticks=10**6 + tick * 100,
            table=table,
            identities={ProcId(*key): Identity("sleep", "sleep", "/", "", key[1]) for key in keys},
            host=HostSample((int(busy[0]), int(busy[1])), 16 << 30, int(rng.integers(1 << 33)), None),
            pools=(),
        )


def writer(directory: Path, session: str = "aaaa0001", *, boot: str = "boot-1", budget: int = 1 << 30) -> TraceWriter:
    return TraceWriter(directory, boot_id=boot, session=session, budget_bytes=budget, interval=1.0)


def record(directory: Path, snapshots: list[Snapshot], session: str = "aaaa0001", *, boot: str = "boot-1") -> None:
    traces = writer(directory, session, boot=boot)
    for one in snapshots:
        traces.append(one)
    traces.close()
    assert (traces.dropped, traces.last_error) == (0, "")


def bits(snapshot: Snapshot) -> tuple[bytes, str, dict[ProcId, Identity]]:
    return (
        snapshot.table.tobytes(),
        repr(replace(snapshot, table=np.zeros(0, dtype=SAMPLE), identities={})),
        dict(snapshot.identities),
    )


def content(directory: Path | list[Path], **choice: int | str) -> list[tuple[bytes, str, dict[ProcId, Identity]]]:
    """What is read, and nothing lost."""
    read = read_traces(directory, **choice)  # type: ignore[arg-type]
    result = [bits(snapshot) for _, snapshot in read]
    assert read.lost == []
    return result


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in (directory / "traces").iterdir())


def day_files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "traces").iterdir())


def test_everything_comes_back_in_order_and_bit_for_bit(tmp_path: Path) -> None:
    snapshots = list(machine(KEYFRAME_TICKS + 50))
    record(tmp_path, snapshots)
    assert day_files(tmp_path) == ["2025-10-09.db"]
    assert content(tmp_path) == content(tmp_path / "traces" / "2025-10-09.db") == [bits(one) for one in snapshots]


def test_the_caller_may_reuse_its_table_after_append(tmp_path: Path) -> None:
    snapshots = list(machine(5))
    shared = snapshots[0].table.copy()
    traces = writer(tmp_path)
    for one in snapshots:
        shared[:] = one.table
        traces.append(replace(one, table=shared))
    traces.close()
    assert content(tmp_path) == [bits(one) for one in snapshots]


def test_a_recording_says_who_made_it(tmp_path: Path) -> None:
    record(tmp_path, list(machine(3)))
    record(tmp_path, list(machine(4, processes=30, wall=NOON + HOUR)), "bbbb0002", boot="boot-2")
    assert sessions(tmp_path) == [
        TraceSession("aaaa0001", "boot-1", 1.0, NOON, NOON + 2 * SECOND, 3, 20),
        TraceSession("bbbb0002", "boot-2", 1.0, NOON + HOUR, NOON + HOUR + 3 * SECOND, 4, 30),
    ]
    assert [recording.boot_id for recording, _ in read_traces(tmp_path)] == ["boot-1"] * 3 + ["boot-2"] * 4


def test_reading_can_be_limited_to_a_time_and_a_session(tmp_path: Path) -> None:
    first, second = list(machine(20)), list(machine(20, wall=NOON + HOUR, seed=2))
    record(tmp_path, first)
    record(tmp_path, second, "bbbb0002")
    assert content(tmp_path, since=NOON + 7 * SECOND, until=NOON + 12 * SECOND) == [bits(one) for one in first[7:12]]
    assert content(tmp_path, session="bbbb0002") == [bits(one) for one in second]
    assert content(tmp_path, session="bbbb0002", since=NOON + HOUR + 19 * SECOND) == [bits(second[-1])]
    assert content(tmp_path, since=NOON + 2 * HOUR) == []


def test_a_session_over_midnight_is_two_files_and_each_can_be_read_alone(tmp_path: Path) -> None:
    snapshots = list(machine(20, wall=NOON + 12 * HOUR - 10 * SECOND))
    record(tmp_path, snapshots)
    assert day_files(tmp_path) == ["2025-10-09.db", "2025-10-10.db"]
    assert content(tmp_path) == [bits(one) for one in snapshots]
    assert content(tmp_path / "traces" / "2025-10-10.db") == [bits(one) for one in snapshots[10:]]


def test_the_wall_clock_may_jump_over_midnight_and_back_and_order_stays(tmp_path: Path) -> None:
    snapshots = list(machine(40))
    jump = [0, 0, 24 * HOUR, 24 * HOUR, -24 * HOUR, 24 * HOUR, 0, -20000 * 24 * HOUR]
    snapshots = [replace(one, wall=one.wall + jump[tick // 5]) for tick, one in enumerate(snapshots)]
    record(tmp_path, snapshots)
    assert len(day_files(tmp_path)) == 4
    assert content(tmp_path) == [bits(one) for one in snapshots]


BUDGET = 1 << 20


def busy_machine(ticks: int, *, wall: int = NOON, seed: int = 1) -> Iterator[Snapshot]:
    """About 6 KB a tick, so that budgets fill soon."""
    return machine(ticks, processes=800, moving=500, wall=wall, seed=seed)


def fill(directory: Path, snapshots: list[Snapshot]) -> None:
    """Record within BUDGET, which holds at every tick."""
    traces = writer(directory, budget=BUDGET)
    for one in snapshots:
        traces.append(one)
        assert size_of(directory) <= BUDGET
    traces.close()
    assert traces.dropped == 0


def test_a_wall_clock_that_goes_back_does_not_make_new_data_the_oldest(tmp_path: Path) -> None:
    first, second = list(busy_machine(60)), list(busy_machine(250, wall=NOON - 9000 * 24 * HOUR, seed=2))
    fill(tmp_path, first + second)
    assert day_files(tmp_path) == ["2001-02-17.db"]
    kept = content(tmp_path)
    assert kept == [bits(one) for one in second[-len(kept) :]]
    assert len(kept) > 60


def test_sessions_of_many_machines_are_read_from_one_folder(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        record(tmp_path / name, list(machine(5, seed=seed)), boot=f"boot-{name}")
    assert [it.boot_id for it in sessions(tmp_path)] == ["boot-a", "boot-b"]
    both = [bits(one) for seed in (1, 2) for one in machine(5, seed=seed)]
    assert content(tmp_path) == content([tmp_path / "b", tmp_path / "a"]) == both


def test_the_oldest_day_goes_first_and_the_budget_holds_at_every_tick(tmp_path: Path) -> None:
    snapshots = [one for day in range(5) for one in busy_machine(40, wall=NOON + day * 24 * HOUR, seed=day)]
    fill(tmp_path, snapshots)
    assert day_files(tmp_path) == ["2025-10-12.db", "2025-10-13.db"]
    assert content(tmp_path) == [bits(one) for one in snapshots[-80:]]


def test_within_a_single_day_the_oldest_ticks_go_up_to_a_keyframe(tmp_path: Path) -> None:
    snapshots = list(busy_machine(350))
    fill(tmp_path, snapshots)
    kept = content(tmp_path)
    assert kept == [bits(one) for one in snapshots[-len(kept) :]]
    assert len(kept) > 60


def test_a_smaller_budget_than_last_time_is_reached_step_by_step(tmp_path: Path) -> None:
    record(tmp_path, list(busy_machine(700)))
    assert size_of(tmp_path) > 3 * BUDGET
    snapshots = list(busy_machine(60, wall=NOON + HOUR, seed=2))
    traces = writer(tmp_path, "bbbb0002", budget=BUDGET)
    for one in snapshots:
        traces.append(one)
    traces.close()
    assert size_of(tmp_path) <= BUDGET
    assert content(tmp_path)[-60:] == [bits(one) for one in snapshots]


def test_a_reader_sees_the_first_ticks_soon_and_the_others_after_twenty_seconds_or_a_flush(tmp_path: Path) -> None:
    traces = writer(tmp_path)
    written, seen = [], []
    for tick, one in enumerate(machine(30)):
        traces.append(one)
        written.append(bits(one))
        if tick == 25:
            traces.flush()
        found = content(tmp_path)
        assert found == written[: len(found)]
        seen.append(len(found))
    traces.close()
    assert seen == [1] + [2] * 2 + [4] * 4 + [8] * 8 + [16] * 10 + [26] * 5
    assert content(tmp_path) == written


def test_ticks_that_are_far_apart_do_not_wait(tmp_path: Path) -> None:
    traces = writer(tmp_path)
    for number, one in enumerate(machine(5)):
        traces.append(replace(one, at=one.at + number * 60 * SECOND))
        assert len(content(tmp_path)) == number + 1
    traces.close()


def test_a_transaction_of_twenty_ticks_writes_less_than_one_of_each(tmp_path: Path) -> None:
    written = {}
    for seconds in (1, 100):
        traces = writer(tmp_path / str(seconds))
        for number, one in enumerate(machine(200)):
            traces.append(replace(one, at=one.at + number * seconds * SECOND))
        written[seconds] = (tmp_path / str(seconds) / "traces" / "2025-10-09.db-wal").stat().st_size
        traces.close()
    assert written[1] < written[100] / 3


def test_the_writer_goes_on_while_a_reader_is_in_the_middle(tmp_path: Path) -> None:
    snapshots = list(machine(1500))
    traces = writer(tmp_path)
    for one in snapshots[:700]:
        traces.append(one)
    seen = []
    for tick, (_, snapshot) in enumerate(read_traces(tmp_path)):
        seen.append(bits(snapshot))
        if tick < 800:
            traces.append(snapshots[700 + tick])
    assert traces.dropped == 0
    log = tmp_path / "traces" / "2025-10-09.db-wal"
    assert log.stat().st_size < 3 << 20, "the reader kept the log from being emptied"
    traces.close()
    assert seen == [bits(one) for one in snapshots[: len(seen)]]
    assert len(seen) > 1460, "all but what waits was there when the reader came to its end"
    assert content(tmp_path) == [bits(one) for one in snapshots]


STRANGER = """
import os, sys
from pathlib import Path
from nicety.scheduler.store.traces import SCHEMA, read_traces
os.chroot(sys.argv[1])  # so that the private directories above do not matter
os.chdir("/")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
read = read_traces(Path("/traces"))
print([snapshot.at for _, snapshot in read], read.lost)
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become a stranger")
@pytest.mark.parametrize("state", ["being written", "closed", "killed"])
def test_a_stranger_reads_without_permission_to_write(tmp_path: Path, state: str) -> None:
    snapshots = list(machine(5))
    directory = tmp_path / "state"
    traces = writer(directory)
    for one in snapshots:
        traces.append(one)
    traces.flush()
    if state == "closed":
        traces.close()
    if state == "killed":  # what a crash leaves, copied: the log is there, and nobody has it open
        copy = tmp_path / "copy"
        (copy / "traces").mkdir(parents=True)
        for path in (directory / "traces").iterdir():
            (copy / "traces" / path.name).write_bytes(path.read_bytes())
        directory = copy
    for path in (directory, directory / "traces", *(directory / "traces").iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    done = subprocess.run([sys.executable, "-c", STRANGER, str(directory)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{[one.at for one in snapshots]} []\n", "")
    traces.close()


def test_a_closed_day_is_one_plain_file(tmp_path: Path) -> None:
    traces = writer(tmp_path)
    for one in machine(3, wall=NOON + 12 * HOUR - 2 * SECOND):
        traces.append(one)
    assert "2025-10-09.db" in day_files(tmp_path)
    assert not {"2025-10-09.db-wal", "2025-10-09.db-shm"} & set(day_files(tmp_path))
    traces.close()
    traces.close()
    assert day_files(tmp_path) == ["2025-10-09.db", "2025-10-10.db"]


def test_files_and_directories_are_private(tmp_path: Path) -> None:
    traces = writer(tmp_path / "state")
    traces.append(next(machine(1)))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").rglob("*")}
    traces.close()
    assert modes == {"traces": 0o700, **dict.fromkeys(("2025-10-09.db", "2025-10-09.db-wal", "2025-10-09.db-shm"), 0o600)}


def test_links_and_directories_open_to_others_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(StoreError, match=r"symbolic link.*give the path it leads to"):
        writer(tmp_path / "link")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StoreError, match=r"others may write.*chmod go-w"):
        writer(tmp_path / "open")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not a directory"):
        writer(tmp_path / "file")


def test_a_planted_link_or_second_name_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "state" / "traces").mkdir(parents=True)
    for path in (tmp_path / "state", tmp_path / "state" / "traces"):
        path.chmod(0o700)
    planted = tmp_path / "state" / "traces" / "2025-10-09.db"
    for plant in (planted.symlink_to, planted.hardlink_to):
        plant(victim)
        traces = writer(tmp_path / "state")
        traces.append(next(machine(1)))
        assert traces.dropped == 1
        assert "link" in traces.last_error
        assert victim.read_bytes() == b"precious"
        planted.unlink()
        traces.append(next(machine(1)))
        assert (traces.dropped, traces.last_error) == (1, "")
        traces.close()
        planted.unlink()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a directory somebody else's")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", 65534, 65534)
    with pytest.raises(StoreError, match=r"belongs to user 65534.*chown"):
        writer(tmp_path / "state")


def test_another_schema_is_refused_by_readers_and_left_alone_by_the_writer(tmp_path: Path) -> None:
    record(tmp_path, list(machine(3)))
    path = tmp_path / "traces" / "2025-10-09.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(TraceError, match=rf"schema version 99.*reads version {SCHEMA}; read it with the nicety that wrote it"):
        read_traces(tmp_path)
    record(tmp_path, list(machine(3)), "bbbb0002")
    assert day_files(tmp_path) == ["2025-10-09.1.db", "2025-10-09.db"]
    assert path.read_bytes() == before
    path.unlink()
    assert len(content(tmp_path)) == 3


def test_a_damaged_file_of_today_is_left_alone_and_recording_goes_on_beside_it(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir(mode=0o700)
    path = tmp_path / "traces" / "2025-10-09.db"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    path.chmod(0o600)
    before = path.read_bytes()
    snapshots = list(machine(3))
    record(tmp_path, snapshots)
    assert path.read_bytes() == before
    read = read_traces(tmp_path)
    assert [bits(snapshot) for _, snapshot in read] == [bits(one) for one in snapshots]
    assert [(it.path, it.ticks) for it in read.lost] == [(path, None)]


@pytest.mark.parametrize("pragmas", [(), ("journal_mode=WAL",)])
def test_a_file_whose_writer_was_killed_before_it_had_tables_is_written_on(tmp_path: Path, pragmas: tuple[str, ...]) -> None:
    snapshots = list(machine(6))
    record(tmp_path, snapshots[:3])
    path = tmp_path / "traces" / "2025-10-10.db"
    path.touch(mode=0o600)
    for pragma in pragmas:  # the first page is on disk then, and nothing in it
        script = f"import os, sqlite3; db = sqlite3.connect({str(path)!r}); db.execute('PRAGMA {pragma}'); os._exit(0)"
        subprocess.run([sys.executable, "-c", script], check=True)
    assert bool(path.stat().st_size) == bool(pragmas)
    read = read_traces(tmp_path)
    assert [bits(snapshot) for _, snapshot in read] == [bits(one) for one in snapshots[:3]]
    assert [(it.path, it.ticks, it.reason) for it in read.lost] == [(path, None, "the file is empty: cut off, or just begun")]
    tomorrow = [replace(one, wall=one.wall + 24 * HOUR) for one in snapshots[3:]]
    record(tmp_path, tomorrow, "bbbb0002")
    assert day_files(tmp_path) == ["2025-10-09.db", "2025-10-10.db"]
    assert content(tmp_path) == [bits(one) for one in snapshots[:3] + tomorrow]


def test_nothing_to_read_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"no traces in .*record some: nicety record"):
        read_traces(tmp_path)
    with pytest.raises(TraceError, match="No such file or directory; check the path"):
        read_traces(tmp_path / "absent")
    other = tmp_path / "other.db"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE t(x)")
    db.close()
    with pytest.raises(TraceError, match="is a database of another program, not a trace"):
        read_traces(other)


def test_a_file_that_is_deleted_under_the_writer_is_begun_again(tmp_path: Path) -> None:
    snapshots = list(machine(10))
    traces = writer(tmp_path)
    for one in snapshots[:5]:
        traces.append(one)
    (tmp_path / "traces" / "2025-10-09.db").unlink()
    for one in snapshots[5:]:
        traces.append(one)
    traces.close()
    assert traces.dropped == 0
    assert content(tmp_path) == [bits(one) for one in snapshots[5:]]


def test_two_writers_in_one_state_directory_do_not_harm_each_other(tmp_path: Path) -> None:
    one, other = list(machine(20, seed=1)), list(machine(20, seed=2))
    writers = writer(tmp_path, "aaaa0001"), writer(tmp_path, "bbbb0002")
    for both in zip(one, other, strict=True):
        for traces, snapshot in zip(writers, both, strict=True):
            traces.append(snapshot)
    for traces in writers:
        traces.close()
    assert content(tmp_path, session="aaaa0001") == [bits(it) for it in one]
    assert content(tmp_path, session="bbbb0002") == [bits(it) for it in other]
