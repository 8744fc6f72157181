"""The frame of a real daemon: there from the first tick, new each tick, gone at the end, and what is left after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.scheduler.config.runtime import frames_to_read
from nicety.scheduler.frame import Frame, read_frame
from nicety.scheduler.views.source import FrameSource

CONFIG = '[daemon]\ninterval = 0.1\n[groups.hog]\nprogram = "python* hog.py"\nclass = "batch"\n'


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "nicety.toml").write_text(CONFIG)
    (tmp_path / "hog.py").write_text("while True: pass")
    hog = subprocess.Popen([sys.executable, str(tmp_path / "hog.py")])
    run = [sys.executable, "-m", "nicety.scheduler", "--config", str(tmp_path / "nicety.toml")]
    process = subprocess.Popen(
        [*run, "--state-dir", str(tmp_path / "state"), "run"], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    yield process
    hog.kill()
    hog.wait()
    if process.poll() is None:
        process.terminate()
    process.communicate(timeout=30)


def a_source(tmp_path: Path) -> FrameSource:
    return FrameSource(frames_to_read("", tmp_path / "state", os.environ))


def next_frame(source: FrameSource, at_least: int = 0) -> Frame:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        source.look()
        if source.frame is not None and source.frame.seq >= at_least:
            return source.frame
        time.sleep(0.01)
    raise AssertionError(f"no frame {at_least}: {source.frame}, {source.trouble}")


def test_a_daemon_shows_each_tick_what_it_sees(daemon: subprocess.Popen[str], tmp_path: Path) -> None:
    source = a_source(tmp_path)
    frame = next_frame(source, 10)
    hog = next(group for group in frame.groups if group.name == "hog")
    assert (hog.class_, hog.given, hog.processes) == ("batch", True, 1)
    assert hog.cpu + hog.wait > 0.5
    assert hog.forecast is not None
    rows = dict(zip(frame.processes.pid, frame.processes.group, strict=True))
    assert rows[daemon.pid].startswith("program")
    assert os.getpid() in rows
    assert frame.own.mode == "observe"
    assert 0 < frame.own.cpu < 30
    assert frame.own.memory > 20 << 20
    assert frame.machine.cpus == os.cpu_count()
    assert next_frame(source, frame.seq + 3).wall > frame.wall
    assert source.late(time.time()) == 0.0
    path = next(path for path in source.places if path.exists())
    assert path.stat().st_mode & 0o777 == 0o600
    daemon.send_signal(signal.SIGINT)
    daemon.wait(timeout=30)
    assert not path.parent.exists()
    assert source.look()
    assert (source.frame, source.trouble) == (None, "")


def test_after_a_kill_the_last_frame_is_late_and_the_next_daemon_replaces_it(daemon: subprocess.Popen[str], tmp_path: Path) -> None:
    source = a_source(tmp_path)
    last = next_frame(source, 3)
    daemon.kill()
    daemon.wait()
    source.look()
    assert source.frame is not None
    assert source.frame.own.pid == last.own.pid
    assert source.late(source.frame.wall + 2) == 0.0
    assert source.late(source.frame.wall + 60) == 60.0
    run = [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(tmp_path / "state"), "run", "--duration", "2"]
    subprocess.run(run, check=True, capture_output=True, timeout=60)
    assert read_frame(next(iter(source.places))) is None
    source.look()
    assert source.frame is None


def test_without_a_place_in_memory_the_daemon_says_so_and_runs(tmp_path: Path) -> None:
    (tmp_path / "nicety.toml").write_text(f'[daemon]\ninterval = 0.1\nframe = "{tmp_path}/file/frame"\n')
    (tmp_path / "file").touch()
    run = [
        sys.executable,
        "-m",
        "nicety.scheduler",
        "--config",
        str(tmp_path / "nicety.toml"),
        "--state-dir",
        str(tmp_path / "state"),
    ]
    done = subprocess.run([*run, "run", "--duration", "1"], check=True, capture_output=True, text=True, timeout=60)
    assert done.stderr.count("views see no new frame") == 1
    assert "set daemon.frame to another file" in done.stderr
