"""Replay of what a real daemon logged: identical, and every changed figure is found and named."""

from __future__ import annotations

import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nicety.scheduler.config.paths import Paths
from nicety.scheduler.config.sections import from_builtins
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Tick, Verdict, encode
from nicety.scheduler.hands.safe_files import StoreError
from nicety.scheduler.replay import replay
from nicety.scheduler.store.decisions import DecisionReader, _tick_crc
from nicety.scheduler.store.differences import Encoder

CONFIG = """
[priority]
enabled = false
[daemon]
interval = 0.1
probe_interval = 0.02
[pools.jobs]
kind = "command"
command = ["{python}", "-c", "import time\\nwhile True: sum(range(20000)); time.sleep(0.001)"]
minimum = 1
maximum = 3
drain_timeout = 2
[pools.jobs.queue]
files = "{spool}/*"
every = 0.1
[pool_size]
down_after = 1.0
cooldown_down = 0.5
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory after a few seconds of an acting daemon that grew and shrank a pool."""
    place = tmp_path_factory.mktemp("replay")
    spool, state = place / "spool", place / "state"
    spool.mkdir()
    for name in range(8):
        (spool / str(name)).touch()
    config = place / "nicety.toml"
    config.write_text(CONFIG.format(python=sys.executable, spool=spool))
    command = [sys.executable, "-m", "nicety.scheduler", "run", "--act", "--config", str(config), "--state-dir", str(state)]
    daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: decided(state) >= 1, 30)
        time.sleep(1)
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, talk = daemon.communicate(timeout=30)
    assert daemon.returncode == 0, talk
    return state


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


def memory_before(paths: Paths, seq: int) -> dict[str, Any]:
    """The engine's memory before a tick of the only session."""
    with DecisionReader(paths.decisions) as log:
        (header,) = (each.session for each in log.sessions())
        assert header is not None
        engine = Engine.resume(from_builtins(header.config), header.id, header.engine, header.abilities.topology)
        for logged in log.ticks():
            if logged.seq == seq:
                return engine.memory()
            assert logged.tick is not None
            engine.step(logged.tick)
    raise AssertionError(f"no tick {seq}")


def decided(state: Path) -> int:
    try:
        with DecisionReader(state / "decisions.db") as log:
            return sum(found.action == "resize" and found.refusal is None for found in log.find())
    except StoreError:
        return 0  # not there yet


def copy(state: Path, target: Path) -> Paths:
    target.mkdir(mode=0o700)
    (target / "traces").mkdir(mode=0o700)
    for path in (state / "decisions.db", *(state / "traces").glob("*.db")):
        (target / path.relative_to(state)).write_bytes(path.read_bytes())
    return Paths(target, target / "control.sock")


def change(paths: Paths, edit: Callable[[dict[str, Any], dict[str, Any]], bool]) -> int:
    """Edit the first tick and verdict for which `edit` says True, and make all checksums right again; returns its seq."""
    with DecisionReader(paths.decisions) as log:
        ticks = list(log.ticks())
    encoder, crc, found = Encoder(), 0, None
    with sqlite3.connect(paths.decisions) as db:
        for logged, (id_, wall) in zip(ticks, db.execute("SELECT id, wall FROM ticks ORDER BY id").fetchall(), strict=True):
            seen, said = msgspec.json.decode(logged.data), msgspec.to_builtins(logged.verdict)
            if found is None and edit(seen, said):
                found = logged.seq
            turn = msgspec.convert(seen, Tick), msgspec.convert(said, Verdict), logged.outcomes or ()
            data = encoder.encode(*turn, keyframe=logged.seq == 0)
            crc = _tick_crc(id_, wall, logged.seq == 0, data, crc)
            db.execute("UPDATE ticks SET crc = ?, keyframe = ?, count = 1 WHERE id = ?", (crc, logged.seq == 0, id_))
            db.execute("UPDATE pieces SET data = ? WHERE n = (SELECT first FROM ticks WHERE id = ?)", (data, id_))
    assert found is not None, "no tick to change"
    return found


def test_decisions_and_figures_are_identical(logged: Path) -> None:
    found = replay(Paths(logged, logged / "control.sock"))
    assert found.differences == []
    assert found.decisions >= 1
    assert found.observed >= 10
    assert found.ticks > found.observed  # the last tick hangs on the undo and has no snapshot


def test_the_log_alone_is_enough_for_the_decisions(logged: Path, tmp_path: Path) -> None:
    paths = copy(logged, tmp_path / "s")
    for trace in paths.traces.glob("*"):
        trace.unlink()
    found = replay(paths)
    assert found.differences == []
    assert found.decisions >= 1
    assert found.observed == 0
    assert any("figures not compared" in note for note in found.notes)


def test_a_part_of_the_time_is_replayed_from_a_kept_memory(logged: Path, tmp_path: Path) -> None:
    paths = copy(logged, tmp_path / "s")
    with DecisionReader(paths.decisions) as log:
        ticks = [it.tick for it in log.ticks() if it.tick is not None]
    since, until, kept = ticks[6].wall, ticks[10].wall, 4
    data, id_ = encode(memory_before(paths, kept)), (1 << 32) + kept
    crc = zlib.crc32(data, zlib.crc32(struct.pack("<Q", id_)))
    with sqlite3.connect(paths.decisions) as db:
        db.execute("INSERT OR REPLACE INTO memories VALUES (?, ?, ?)", (id_, zlib.compress(data, 1), crc))
    told: list[int] = []
    found = replay(paths, since=since, until=until, progress=told.append)
    assert (found.differences, found.ticks, found.observed) == ([], 10 - kept, 0)
    assert told == list(range(1, 7))
    assert any("the session began earlier" in note for note in found.notes)
    whole = replay(paths, until=until)
    assert (whole.differences, whole.ticks) == ([], 10)
    assert whole.observed >= 8, "from its beginning, figures are compared too"
    assert replay(paths, until=ticks[0].wall - 10**12).sessions == 0


def test_one_changed_figure_is_found_and_named(logged: Path, tmp_path: Path) -> None:
    paths = copy(logged, tmp_path / "s")

    def edit(tick: dict[str, Any], _: dict[str, Any]) -> bool:
        if tick["gap"] or not tick["pools"]:
            return False
        tick["pools"][0]["rss_per_worker"] += 1
        return True

    seq = change(paths, edit)
    (difference,) = replay(paths).differences
    assert (difference.seq, difference.where) == (seq, "pools[jobs].rss_per_worker")


def test_a_changed_figure_is_found_without_the_trace(logged: Path, tmp_path: Path) -> None:
    paths = copy(logged, tmp_path / "s")
    for trace in paths.traces.glob("*"):
        trace.unlink()

    with sqlite3.connect(paths.decisions) as db:
        (piece,) = db.execute("SELECT first FROM ticks ORDER BY id LIMIT 1 OFFSET 3").fetchone()
        (data,) = db.execute("SELECT data FROM pieces WHERE n = ?", (piece,)).fetchone()
        db.execute("UPDATE pieces SET data = ? WHERE n = ?", (data[:-1] + bytes([data[-1] ^ 1]), piece))
        (last,) = db.execute("SELECT max(id) FROM ticks").fetchone()
    (difference,) = replay(paths).differences
    ticks = f"ticks 3 to {last % (1 << 32)}"
    found = difference.seq, difference.where, difference.recorded
    assert found == (3, "decision log", f"{ticks}: the checksum of tick 3 does not hold")


def test_a_changed_decision_is_found(logged: Path, tmp_path: Path) -> None:
    """With its tick untouched and all checksums made right again, so that only replay can tell."""
    paths = copy(logged, tmp_path / "s")

    def edit(_: dict[str, Any], verdict: dict[str, Any]) -> bool:
        if not any(decision["action"]["type"] == "resize" for decision in verdict["decisions"]):
            return False
        verdict["decisions"][0]["action"]["size"] += 1
        return True

    seq = change(paths, edit)
    assert [(it.seq, it.where) for it in replay(paths).differences] == [(seq, "decisions[pool jobs].action.size")]


def test_the_command_exits_with_3_and_says_where(logged: Path, tmp_path: Path) -> None:
    paths = copy(logged, tmp_path / "s")

    def edit(tick: dict[str, Any], _: dict[str, Any]) -> bool:
        if tick["gap"] or not tick["pools"]:
            return False
        tick["pools"][0]["requested"] += 1
        return True

    seq = change(paths, edit)
    command = [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(paths.root), "replay"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})
    assert shown.returncode == 3, shown.stderr
    assert "pools[jobs]" in shown.stdout
    assert str(seq) in shown.stdout


def test_an_unknown_session_is_an_error_with_a_next_step(logged: Path) -> None:
    with pytest.raises(ValueError, match="without --session"):
        replay(Paths(logged, logged / "control.sock"), session="nosuch")


def test_a_second_start_goes_on_from_kept_forecasts_and_replays_all_the_same(logged: Path, tmp_path: Path) -> None:
    """What it went on from is not in the log, so forecasts alone are not computed again."""
    paths = copy(logged, tmp_path / "s")
    for name in ("forecasts.bin", "decisions.db"):
        (paths.stores / name).write_bytes((logged / name).read_bytes())
    config = tmp_path / "nicety.toml"
    config.write_text(CONFIG.format(python=sys.executable, spool=tmp_path))
    command = [sys.executable, "-m", "nicety.scheduler", "run", "--observe", "--duration", "3", "--config", str(config)]
    subprocess.run([*command, "--state-dir", str(paths.root)], check=True, capture_output=True, timeout=60)
    with DecisionReader(paths.decisions) as log:
        sessions = [each.session for each in log.sessions() if each.session is not None]
    assert [session.remembers > 0 for session in sessions] == [False, True]
    found = replay(paths)
    assert found.differences == []
    assert found.observed >= 20
    assert [note for note in found.notes if "they went on from what earlier sessions had kept" in note]
