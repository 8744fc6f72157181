"""Traces and decision log against the disk: cut off, flipped, full, read-only. Never a crash, never silently a wrong figure."""

from __future__ import annotations

import os
import random
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, Identity, Snapshot
from nicety.scheduler.config.paths import Paths
from nicety.scheduler.config.sections import Config
from nicety.scheduler.decision import Abilities, Decision, Outcome, ResizePool, Session, Tick, Verdict, Why
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.service.recording import Interrupted, Progress
from nicety.scheduler.service.recording import record as record_ticks
from nicety.scheduler.store.decisions import DecisionLog, DecisionReader, _tick_crc
from nicety.scheduler.store.traces import Lost, TraceError, TraceWriter, read_traces
from nicety.scheduler.testing.ticks import a_forecast, a_pool, a_tick

SECOND = 1_000_000_000
NOON = 1_760_011_200 * SECOND
SESSIONS, TICKS = 3, 4
"""Three sessions are three keyframes in a file."""


def machine(ticks: int, seed: int = 1) -> Iterator[Snapshot]:
    """Four processes that all move; one is replaced at each third tick."""
    rng = np.random.default_rng(seed)
    table = np.zeros(4, dtype=SAMPLE)
    table["pid"], table["start_ticks"], table["state"] = np.arange(10, 14), 5, ord("S")
    for tick in range(ticks):
        table = table.copy()
        table["cpu_ns"] += rng.integers(0, SECOND, 4).astype(np.uint64)
        if tick % 3 == 2:
            table["start_ticks"][1] = 100 + tick
        keys = zip(table["pid"].tolist(), table["start_ticks"].tolist(), strict=True)
        yield Snapshot(
            at=seed * 10**13 + tick * SECOND,
            wall=NOON + (seed * 1000 + tick) * SECOND,
            uptime_ticks=tick,
            table=table,
            identities={ProcId(*key): Identity(f"p{key[1]}", "sleep", "/", "", 0) for key in keys},
            host=HostSample((tick, 2), 16 << 30, int(rng.integers(1 << 33)), (1, 2, tick)),
            pools=(),
        )


Bits = tuple[object, ...]


def bits(one: Snapshot) -> Bits:
    return one.at, one.wall, one.uptime_ticks, one.table.tobytes(), sorted(one.identities.items()), one.host, one.pools


def record(directory: Path, sessions: int, ticks: int) -> tuple[Path, list[Bits]]:
    """A closed day file, and what is in it."""
    written = []
    for seed in range(1, sessions + 1):
        traces = TraceWriter(directory, boot_id="boot", session=f"0000000{seed}", budget_bytes=1 << 30, interval=1.0)
        for one in machine(ticks, seed):
            traces.append(one)
            written.append(bits(one))
        traces.close()
    path = directory / "traces" / "2025-10-09.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA page_size=512")
    db.execute("VACUUM")  # small pages without free room: more of the flips and cuts hit something, and there are fewer to try
    db.close()
    return path, written


@pytest.fixture
def day(tmp_path: Path) -> tuple[Path, list[Bits]]:
    return record(tmp_path, SESSIONS, TICKS)


def read_all(path: Path) -> tuple[list[Bits], list[Lost]]:
    read = read_traces(path)
    return [bits(snapshot) for _, snapshot in read], read.lost


def faults_of(path: Path, written: list[Bits]) -> tuple[list[str], bool]:
    """What is wrong with how this file is read: [] if each snapshot is true, in order, and losses are told; was anything told."""
    try:
        found, lost = read_all(path)
    except TraceError as error:
        return [] if "schema version" in str(error) or "another program" in str(error) else [str(error)], True
    faults = []
    rest = iter(written)
    if not all(any(one == true for true in rest) for one in found):
        faults.append("a snapshot is wrong or out of order")
    if len(found) < len(written) and not lost:
        faults.append(f"{len(written) - len(found)} snapshots are lost without a word")
    if all(it.last is not None for it in lost) and len(found) + sum(it.ticks or 0 for it in lost) < len(written):
        faults.append("fewer reported lost than are lost")
    return faults, bool(lost)


def test_a_whole_file_has_no_faults_and_this_check_can_see_them(day: tuple[Path, list[Bits]]) -> None:
    path, written = day
    assert read_all(path) == (written, [])
    assert faults_of(path, written) == ([], False)
    assert faults_of(path, [*written, written[0]])[0] == [
        "1 snapshots are lost without a word",
        "fewer reported lost than are lost",
    ]
    assert faults_of(path, written[1:])[0] == ["a snapshot is wrong or out of order"]


def test_no_truncation_of_a_file_is_silent_or_crashes(tmp_path: Path) -> None:
    path, written = record(tmp_path, 2, 2)
    faults, said = {}, 0
    size = path.stat().st_size
    for length in range(size - 1, -1, -1):
        os.truncate(path, length)
        found, noticed = faults_of(path, written)
        said += noticed
        if found:
            faults[length] = found
    assert not faults
    assert said > size // 2


def test_no_flipped_bit_of_a_file_is_silent_or_crashes(day: tuple[Path, list[Bits]]) -> None:
    path, written = day
    whole = path.read_bytes()
    rng = random.Random(5)
    faults, said = {}, 0
    with path.open("r+b", buffering=0) as file:
        for _ in range(2000):
            place, bit = rng.randrange(len(whole)), rng.randrange(8)
            os.pwrite(file.fileno(), bytes([whole[place] ^ 1 << bit]), place)
            found, noticed = faults_of(path, written)
            said += noticed
            if found:
                faults[place, bit] = found
            os.pwrite(file.fileno(), whole[place : place + 1], place)
    assert not faults
    assert said > 500, "the flips did not hit anything that matters"


def test_every_flipped_bit_of_a_row_is_found_and_costs_no_more_than_up_to_the_next_keyframe(
    day: tuple[Path, list[Bits]],
) -> None:
    path, written = day
    rng = random.Random(6)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    rows = db.execute("SELECT id, at, wall, rows, crc, data FROM ticks ORDER BY id").fetchall()
    assert len(rows) == len(written)
    for _ in range(600):
        place = rng.randrange(len(rows))
        id_, *values = rows[place]
        which = rng.choice([0, 1, 2, 3, 4, 4, 4, 4])
        column = ("at", "wall", "rows", "crc", "data")[which]
        old = values[which]
        if isinstance(old, bytes):
            position = rng.randrange(len(old))
            new: int | bytes = old[:position] + bytes([old[position] ^ 1 << rng.randrange(8)]) + old[position + 1 :]
        else:
            new = old ^ 1 << rng.randrange(31)
        db.execute(f"UPDATE ticks SET {column} = ? WHERE id = ?", (new, id_))
        found, lost = read_all(path)
        end = (place // TICKS + 1) * TICKS  # where the next session begins, with a keyframe
        assert found == written[:place] + written[end:]
        assert [(it.session, it.first, it.last, it.ticks) for it in lost] == [
            (f"0000000{place // TICKS + 1}", place % TICKS, TICKS - 1, end - place)
        ]
        assert "checksum" in lost[0].reason
        db.execute(f"UPDATE ticks SET {column} = ? WHERE id = ?", (old, id_))
    db.close()
    assert read_all(path) == (written, [])


def test_a_row_that_is_gone_is_reported(day: tuple[Path, list[Bits]]) -> None:
    path, written = day
    db = sqlite3.connect(path, isolation_level=None)
    ids = [row[0] for row in db.execute("SELECT id FROM ticks ORDER BY id")]
    for place in (0, 3, TICKS - 1, len(ids) - 1):
        row = db.execute("SELECT * FROM ticks WHERE id = ?", (ids[place],)).fetchone()
        db.execute("DELETE FROM ticks WHERE id = ?", (ids[place],))
        found, lost = read_all(path)
        end = (place // TICKS + 1) * TICKS
        assert found == written[:place] + written[end:]
        assert [(it.first, it.ticks) for it in lost] == [(place % TICKS, end - place)]
        db.execute("INSERT INTO ticks VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    db.close()


def test_a_damaged_page_in_the_middle_does_not_hide_what_is_behind_it(tmp_path: Path) -> None:
    written = []
    for seed in range(1, 40):
        traces = TraceWriter(tmp_path, boot_id="boot", session=f"{seed:08x}", budget_bytes=1 << 30, interval=1.0)
        for one in machine(5, seed):
            traces.append(one)
            written.append(bits(one))
        traces.close()
    path = tmp_path / "traces" / "2025-10-09.db"
    page = 4096
    whole = path.read_bytes()
    middle = [at for at in range(0, len(whole), page) if whole[at] == 0x0D and whole[at + 8 :].count(b"boot_id") > 2][4]
    with path.open("r+b") as file:  # a leaf of the ticks
        file.seek(middle)
        file.write(b"\x00" * page)
    found, lost = read_all(path)
    assert faults_of(path, written)[0] == []
    assert lost
    assert len(written) - 40 <= len(found) < len(written)
    assert found[-1] == written[-1]


# --- the decision log ---------------------------------------------------------------------------------------------------------


def session(name: str = "00000001") -> Session:
    return Session(
        id=name,
        boot_id="boot",
        wall=NOON,
        version="0",
        mode="act",
        own=ProcId(9, 9),
        abilities=Abilities(True, "v2", True),
        config={"daemon": {"act": True}},
        artefacts={},
        engine={"n": 0},
    )


def turn(seq: int) -> tuple[Tick, Verdict, tuple[Outcome, ...]]:
    tick = a_tick(seq, pools=[a_pool("web", size=2 + seq % 3)], forecasts=[a_forecast("web", "load", 1.5 + seq)])
    decision = Decision(f"S-{seq}.0", "pool_size", "pool web", ResizePool("web", 3), Why("floor", "because", {"n": seq}, (), ()))
    outcome = Outcome(decision.id, Status.APPLIED, decision.target, "3 workers asked for", 1)
    return tick, Verdict((decision,) if seq % 4 == 0 else (), (), ()), (outcome,) if seq % 4 == 0 else ()


def test_no_flipped_bit_of_a_decision_log_is_silent_or_crashes(tmp_path: Path) -> None:
    turns = [turn(seq) for seq in range(20)]
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    for seq, one in enumerate(turns):
        log.append(*one, memory={"n": seq} if seq == 10 else None)
    log.close()
    path = tmp_path / "decisions.db"
    whole = path.read_bytes()
    rng = random.Random(7)
    silent, noticed = [], 0
    with path.open("r+b", buffering=0) as file:
        for _ in range(1000):
            place, bit = rng.randrange(len(whole)), rng.randrange(8)
            os.pwrite(file.fileno(), bytes([whole[place] ^ 1 << bit]), place)
            wrong, said = faults_of_log(path, turns)
            silent += [(place, bit, what) for what in wrong]
            noticed += said
            os.pwrite(file.fileno(), whole[place : place + 1], place)
    assert not silent
    assert noticed > 50, "the flips did not hit anything that matters"


def faults_of_log(path: Path, turns: list[tuple[Tick, Verdict, tuple[Outcome, ...]]]) -> tuple[list[str], bool]:
    """What is read of a log that is not true and not called damaged, and was anything called damaged."""
    try:
        with DecisionReader(path) as reader:
            ticks, headers = list(reader.ticks()), reader.sessions()
            decisions = [it for it in reader.all_decisions() if not isinstance(it, str)]
    except StoreError:
        return [], True
    whole = [it for it in ticks if not it.damage]
    wrong = [f"tick {it.seq}" for it in whole if (it.tick, it.verdict, it.outcomes) != turns[it.seq]]
    wrong += [f"memory {it.seq}" for it in whole if it.memory is not None and (it.seq, it.memory) != (10, {"n": 10})]
    wrong += ["session" for it in headers if not it.damage and it.session != session()]
    wrong += [it.id for it in decisions if it.intact and it.decision != turns[it.seq][1].decisions[0]]
    said = len(whole) < len(ticks) or any(it.damage for it in headers) or not all(it.intact for it in decisions)
    return wrong, said


# --- a disk that fails --------------------------------------------------------------------------------------------------------

PRELUDE = """
import os, resource, signal, subprocess, sys
from pathlib import Path
sys.path.insert(0, os.environ["FAULTS"])
from test_store_faults import *
state = Path(sys.argv[1])

def traces():
    return TraceWriter(state, boot_id="boot", session="00000001", budget_bytes=1 << 30, interval=1.0)

def check(writer, written):
    "All that was written is there, and what was dropped is reported."
    writer.close()
    found, lost = read_all(state)
    assert found == written, (len(found), len(written))
    assert sum(it.ticks for it in lost) == writer.dropped > 0, (lost, writer.dropped)
    print("dropped", writer.dropped)
"""


def run(code: str, directory: Path, *prefix: str) -> str:
    """Run in a process of its own, whose limits and mounts are its own."""
    environment = {**os.environ, "FAULTS": str(Path(__file__).parent)}
    command = [*prefix, sys.executable, "-c", PRELUDE + code, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TMPFS = 'subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k,mode=700", "tmpfs", str(state)], check=True)\n'
needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="needs root and mount namespaces for a small disk of its own",
)


@pytest.mark.root
@needs_mounts
def test_a_full_disk_drops_ticks_and_recording_goes_on_when_there_is_room(tmp_path: Path) -> None:
    code = """
writer, written = traces(), []
snapshots = machine(100_000)
def append():
    before = writer.dropped
    one = next(snapshots)
    writer.append(one)
    writer.flush()
    if writer.dropped == before:
        written.append(bits(one))
append()
for round in range(3):
    ballast = state / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    most = writer.dropped + 20
    while writer.dropped < most:
        append()
    assert "full" in writer.last_error, writer.last_error
    ballast.unlink()
    for _ in range(5):
        append()
    assert writer.last_error == "" and writer.dropped == most, (writer.last_error, writer.dropped)
check(writer, written)
"""
    assert run(TMPFS + code, tmp_path, "unshare", "-m") == "dropped 60\n"


@pytest.mark.root
@needs_mounts
def test_a_full_disk_drops_ticks_of_the_decision_log_and_asks_for_the_engines_memory(tmp_path: Path) -> None:
    code = """
log = DecisionLog(state, 1 << 20)
ballast = state / "ballast"
ballast.write_bytes(bytes(500_000))
log.begin(session())
turns, dropped = {}, []
for seq in range(1000):
    before = log.dropped
    if dropped and seq > dropped[-1] + 20:
        break
    due = log.keyframe_due
    log.append(*turn(seq), memory={"n": seq} if due else None)
    if log.dropped > before:
        lost = range(seq - (log.dropped - before) + 1, seq + 1)  # those that waited, too
        turns = {seq: due for seq, due in turns.items() if seq not in lost}
        dropped += lost
        assert log.keyframe_due and "full" in log.last_error, log.last_error
        if len(dropped) >= 20:
            ballast.unlink(missing_ok=True)
    else:
        turns[seq] = due
assert len(dropped) >= 20 and seq < 999, (len(dropped), seq)
log.close()
with DecisionReader(state) as reader:
    found = [it for it in reader.ticks() if it.tick is not None]
    holes = [it.damage for it in reader.ticks() if it.tick is None]
assert [it.seq for it in found] == list(turns)
assert all((it.tick, it.verdict, it.outcomes) == turn(it.seq) and not it.damage for it in found)
assert [it.seq for it in found if it.memory] == [seq for seq, due in turns.items() if due]
assert holes and turns[dropped[-1] + 1]
print("ok")
"""
    assert run(TMPFS + code, tmp_path, "unshare", "-m") == "ok\n"


@pytest.mark.root
@needs_mounts
def test_a_read_only_disk_drops_ticks_and_recording_goes_on_when_it_is_writable(tmp_path: Path) -> None:
    code = """
writer, written = traces(), []
subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
first, *rest = machine(10)
writer.append(first)
assert writer.dropped == 1 and "ead-only" in writer.last_error, writer.last_error
subprocess.run(["mount", "-o", "remount,rw", str(state)], check=True)
for one in rest:
    writer.append(one)
    written.append(bits(one))
writer.close()
assert writer.dropped == 1 and read_all(state)[0] == written
subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
assert read_all(state)[0] == written
print("ok")
"""
    prepared = TMPFS + '(state / "traces").mkdir(mode=0o700)\n'
    assert run(prepared + code, tmp_path, "unshare", "-m") == "ok\n"


@pytest.mark.root
@needs_mounts
def test_a_disk_without_free_inodes_drops_ticks_and_recording_goes_on_when_there_are_some(tmp_path: Path) -> None:
    code = """
from dataclasses import replace
writer, written = traces(), []
first, *rest = machine(30)
for one in rest[:5]:
    writer.append(one)
    written.append(bits(one))
taken = 0
try:
    while True:
        (state / f"taken-{taken}").touch()
        taken += 1
except OSError:
    pass
tomorrow = [replace(one, wall=one.wall + 24 * 3600 * SECOND) for one in rest[5:]]  # of a day that needs another file
for one in tomorrow[:10]:
    writer.append(one)
    writer.flush()
assert writer.dropped == 10 and writer.last_error, (writer.dropped, writer.last_error)
for number in range(taken):
    (state / f"taken-{number}").unlink()
for one in tomorrow[10:]:
    writer.append(one)
    written.append(bits(one))
assert writer.last_error == "" and writer.dropped == 10, writer.last_error
check(writer, written)
"""
    assert run(TMPFS.replace("size=900k", "size=9m,nr_inodes=16") + code, tmp_path, "unshare", "-m") == "dropped 10\n"


@pytest.mark.parametrize("limit", [20_000, 60_000])
def test_a_limit_of_file_size_drops_ticks_and_recording_goes_on_when_it_is_lifted(tmp_path: Path, limit: int) -> None:
    code = f"""
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
writer, written = traces(), []
for tick, one in enumerate(machine(500)):
    before = writer.dropped
    writer.append(one)
    writer.flush()
    if writer.dropped == before:
        written.append(bits(one))
    if writer.dropped == 10:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert writer.dropped <= 10
assert len(written) == 490, len(written)
writer.close()
found, _ = read_all(state)
assert found == written
print("dropped", writer.dropped)
"""
    tmp_path.chmod(0o700)
    assert run(code, tmp_path) == "dropped 10\n"


def test_a_recording_that_lost_ticks_says_so_though_the_disk_has_recovered(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    seen: list[Progress] = []

    def tell(progress: Progress) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if progress.dropped else 4096, hard))
        seen.append(progress)
        if len(seen) > 2 and seen[-2].dropped == seen[-1].dropped > 0:
            raise KeyboardInterrupt

    try:
        with pytest.raises(Interrupted) as ended:
            record_ticks(Config(), Paths(tmp_path / "state", tmp_path / "sock"), SystemClock(), 0.01, 60, tell)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    done = ended.value.progress
    assert done.trouble, "the last tick was written, and an earlier one was not"
    assert f"{done.dropped} tick{'s' * (done.dropped > 1)} lost" in done.line()


def test_a_damaged_decision_log_is_set_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session())
    log.append(*turn(0))
    log.close()
    path = tmp_path / "decisions.db"
    damaged = b"\xff" * 100 + path.read_bytes()[100:]
    path.write_bytes(damaged)
    log = DecisionLog(tmp_path, 1 << 30)
    log.begin(session("00000002"))
    log.append(*turn(0))
    log.close()
    assert (log.dropped, log.set_aside) == (0, tmp_path / "decisions.1.db")
    assert (tmp_path / "decisions.1.db").read_bytes() == damaged
    with DecisionReader(tmp_path) as reader:
        assert [it.session for it in reader.ticks()] == ["00000002"]


def change(path: Path, seq: int, edit: Callable[[bytes], bytes], *, sign: bool = False) -> None:
    """Change the record of a tick as somebody with an editor would; `sign`: make its checksum hold."""
    db = sqlite3.connect(path, isolation_level=None)
    (crc,) = db.execute("SELECT crc FROM ticks WHERE id = ?", ((1 << 32) + seq - 1,)).fetchone()
    id_, wall, own, keyframe, first, count = db.execute("SELECT * FROM ticks WHERE id = ?", ((1 << 32) + seq,)).fetchone()
    pieces = db.execute("SELECT data FROM pieces WHERE n BETWEEN ? AND ? ORDER BY n", (first, first + count - 1)).fetchall()
    new = edit(b"".join(data for (data,) in pieces))
    own = _tick_crc(id_, wall, bool(keyframe), new, crc) if sign else own
    db.execute("UPDATE pieces SET data = ? WHERE n = ?", (new, first))
    db.execute("UPDATE ticks SET count = 1, crc = ? WHERE id = ?", (own, id_))
    db.close()


def log_of(directory: Path, ticks: int, memory_at: int) -> Path:
    """A log with a keyframe at a tick."""
    log = DecisionLog(directory, 1 << 30)
    log.begin(session())
    for seq in range(ticks):
        log.append(*turn(seq), memory={"n": seq} if seq == memory_at else None)
    log.close()
    assert log.dropped == 0
    return directory / "decisions.db"


@pytest.mark.parametrize(
    ("edit", "sign", "damage"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), False, "the checksum of tick 2 does not hold"),
        (lambda data: b"", False, "the checksum of tick 2 does not hold"),
        (lambda data: data[:-1], True, "tick 2 cannot be read: "),
        (lambda data: b"\x97" + data, True, "tick 2 cannot be read: "),
    ],
)
def test_a_changed_tick_is_found_and_costs_those_up_to_the_next_keyframe(
    tmp_path: Path, edit: Callable[[bytes], bytes], sign: bool, damage: str
) -> None:
    path = log_of(tmp_path, 10, 6)
    change(path, 2, edit, sign=sign)
    with DecisionReader(tmp_path) as reader:
        found = list(reader.ticks())
        assert [it.seq for it in found] == [0, 1, 2, 6, 7, 8, 9]
        assert [it.damage for it in found if it.seq != 2] == [()] * 6
        assert [(it.tick, it.verdict, it.outcomes) for it in found if it.seq != 2] == [turn(seq) for seq in (0, 1, 6, 7, 8, 9)]
        (said,) = found[2].damage
        assert said.startswith(f"ticks 2 to 5: {damage}")
        for seq in (2, 5):
            one = reader.tick("00000001", seq)
            assert one is not None
            assert one.tick is None
            assert one.damage
        assert [it.decision for it in reader.find(newest_first=False)] == [turn(seq)[1].decisions[0] for seq in (0, 4, 8)]


@pytest.mark.parametrize(
    ("taken", "damage"),
    [
        (0, (0, "ticks 0 to 3: the keyframe before it is lost")),
        (2, (2, "ticks 2 to 3: tick 2 is missing")),
        (4, (4, "ticks 4 to 6: tick 4 is missing")),
        (6, (6, "tick 6 missing")),
    ],
)
def test_a_tick_that_was_taken_out_leaves_a_hole_that_is_reported(tmp_path: Path, taken: int, damage: tuple[int, str]) -> None:
    path = log_of(tmp_path, 7, 4)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("DELETE FROM ticks WHERE id = (SELECT id FROM ticks ORDER BY id LIMIT 1 OFFSET ?)", (taken,))
    db.close()
    with DecisionReader(tmp_path) as reader:
        assert [(it.seq, *it.damage) for it in reader.ticks() if it.damage] == [damage]
