"""`nicety notify` runs a real command: what it is given, that it is no shell, and what is said when it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest

from nicety.scheduler.cli.schemas import schema_of
from nicety.scheduler.frame import Frame, Incident, pack
from nicety.scheduler.testing.frames import a_frame, an_own
from nicety.scheduler.views.notify.events import Event
from nicety.scheduler.views.notify.hook import LONGEST, run

EVENT = Event("incident", "web; touch /tmp/no", "leak: it grows", "s-1.0", 5.0, "box")

KEEP = """
import json, os, sys
given = {name: value for name, value in os.environ.items() if name.startswith("NICETY_")}
open(sys.argv[1], "a").write(json.dumps([sys.argv[2:], given, json.load(sys.stdin)]) + "\\n")
"""


def kept(place: Path) -> list[tuple[list[str], dict[str, str], dict[str, object]]]:
    file = place / "kept"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_the_command_gets_its_arguments_the_event_and_the_variables(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KEEP, str(tmp_path / "kept"), "$HOME; true", "*"]
    assert run(command, EVENT, 3, {"PATH": "/bin"}) == ""
    ((arguments, variables, event),) = kept(tmp_path)
    assert arguments == ["$HOME; true", "*"]
    assert variables == {
        "NICETY_EVENT": "incident",
        "NICETY_SUBJECT": "web; touch /tmp/no",
        "NICETY_TEXT": "leak: it grows",
        "NICETY_ID": "s-1.0",
        "NICETY_MACHINE": "box",
    }
    assert event == {name.lower().removeprefix("nicety_"): value for name, value in variables.items()} | {
        "schema": 1,
        "wall": 5.0,
        "left_out": 3,
    }
    jsonschema.Draft202012Validator(schema_of("notify")).validate(event)


def test_names_of_strangers_harm_no_command(tmp_path: Path) -> None:
    event = Event("harm", "\x00\x1b[31m\n" + "x" * 9000, "\ud800\u202e", "", 0.0, "box")
    assert run([sys.executable, "-c", KEEP, str(tmp_path / "kept")], event, 0, {}) == ""
    ((_, variables, _),) = kept(tmp_path)
    assert variables["NICETY_SUBJECT"].startswith("\\x00\\x1b[31m\\x0a")
    assert len(variables["NICETY_SUBJECT"]) == LONGEST


HANG = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "60"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""


def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    began = time.monotonic()
    failed = run([sys.executable, "-c", HANG, str(child)], EVENT, 0, os.environ, timeout=2.0)
    assert failed.endswith("did not end within 2 s and was killed")
    assert time.monotonic() - began < 10
    stat = Path(f"/proc/{child.read_text()}/stat")
    end = time.monotonic() + 5
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("command", "why"),
    [(["/bin/false"], "/bin/false: exit status 1"), (["/no/such"], "/no/such: No such file or directory"), (["/bin/true"], "")],
)
def test_a_command_that_fails_says_why(command: list[str], why: str) -> None:
    assert run(command, EVENT, 0, os.environ) == why


def put(place: Path, *incidents: str) -> None:
    shown = [Incident(id_, f"pool {id_}", [7], "leak", time.time(), "it grows") for id_ in incidents]
    frame: Frame = a_frame(wall=time.time(), own=an_own(interval=60.0), incidents=shown)
    (place / "new").write_bytes(pack(frame))
    (place / "new").rename(place / "frame")


@contextmanager
def following(place: Path, *command: str) -> Iterator[None]:
    (place / "nicety.toml").write_text(f'[daemon]\nframe = "{place}/frame"\n')
    here = ["--config", str(place / "nicety.toml"), "--state-dir", str(place / "state")]
    start = [sys.executable, "-m", "nicety.scheduler", *here, "notify", "--", *command]
    with (place / "log").open("wb") as log, subprocess.Popen(start, stderr=log, env=dict(os.environ)) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_what_happens_is_passed_on_and_a_failing_command_is_said_once(tmp_path: Path) -> None:
    put(tmp_path, "old")
    code = KEEP + "sys.exit(os.path.exists(sys.argv[2]))\n"
    (tmp_path / "fail").touch()
    with following(tmp_path, sys.executable, "-c", code, str(tmp_path / "kept"), str(tmp_path / "fail")):
        while "Ctrl-C ends it" not in (tmp_path / "log").read_text():
            time.sleep(0.05)
        time.sleep(1.5)  # one look
        shown = ["old"]
        for many in range(1, 4):
            if many == 3:
                (tmp_path / "fail").unlink()
            shown.append(f"s-{many}.0")
            put(tmp_path, *shown)
            end = time.monotonic() + 15
            while len(kept(tmp_path)) < many:
                assert time.monotonic() < end
                time.sleep(0.05)
        time.sleep(0.3)
    assert [event["id"] for _, _, event in kept(tmp_path)] == ["s-1.0", "s-2.0", "s-3.0"]
    _, failed, again = (tmp_path / "log").read_text().splitlines()
    assert failed.endswith("exit status 1; events are lost until it works")
    assert again.endswith("works again")


def test_a_program_that_is_not_there_is_refused(tmp_path: Path) -> None:
    run_ = [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(tmp_path), "notify", "--", "/no/such"]
    done = subprocess.run(run_, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "is no program that this user may run; give its path" in done.stderr
