"""Pauses of pairs outlive the daemon: it begins with those of the run before, goes on from them after a reload, and keeps them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nicety.scheduler.config.paths import Paths
from nicety.scheduler.replay import replay
from nicety.scheduler.service.answers.control_socket import ControlError, ask
from nicety.scheduler.store.decisions import DecisionReader


def begun(state: Path) -> list[dict[str, Any]]:
    """What the engine of each session began with, by its pairs."""
    with DecisionReader(state / "decisions.db") as log:
        headers = [logged.session for logged in sorted(log.sessions(), key=lambda logged: logged.wall)]
    return [header.engine["policies"]["priority"]["pairs"]["pauses"] for header in headers if header is not None]


def kept(state: Path) -> list[tuple[str, str, float]]:
    return [(pause["victim"], pause["contender"], pause["seconds"]) for pause in json.loads((state / "pauses.json").read_bytes())]


def test_a_daemon_goes_on_with_the_pauses_of_the_run_before_also_after_a_reload_and_an_undo(tmp_path: Path) -> None:
    state, config = tmp_path / "state", tmp_path / "nicety.toml"
    state.mkdir(mode=0o700)
    config.write_text("[daemon]\ninterval = 0.2\n")
    ends = time.time_ns() + 1800 * 10**9
    pause = {"victim": "web", "contender": "hogs", "why": "had no effect", "seconds": 3840.0, "ends": ends}
    (state / "pauses.json").write_text(json.dumps([pause]))
    command = [sys.executable, "-m", "nicety.scheduler", "run", "--config", str(config), "--state-dir", str(state)]
    daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline, asked = time.monotonic() + 30, list[str]()
        for verb in ("reload", "undo", "status"):
            while verb not in asked:
                assert time.monotonic() < deadline, "it never came"
                try:
                    ask(state / "control.sock", verb)
                    asked.append(verb)
                except ControlError:
                    time.sleep(0.1)
            time.sleep(0.5)
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, talk = daemon.communicate(timeout=30)
    assert daemon.returncode == 0, talk
    sessions = begun(state)
    assert len(sessions) == 3
    for pauses in sessions:
        (found,) = pauses.values()
        assert (found["victim"], found["contender"], found["seconds"]) == ("web", "hogs", 3840.0)
    assert sessions[0] == sessions[1] == sessions[2], "of one boot the same end"
    assert kept(state) == [("web", "hogs", 3840.0)]
    assert abs(json.loads((state / "pauses.json").read_bytes())[0]["ends"] - ends) < 10**9
    assert replay(Paths(state, state / "control.sock")).differences == []
