"""In CI property tests draw the same examples every time: what is new in a run is the change. At home they search on.

`nicety` is the command line in this process, for tests of commands.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from nicety.scheduler import cli
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Tick, Verdict

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _engines_stay_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine remembers is checked after each step, in every test that has one."""
    step = Engine.step

    def checked(self: Engine, tick: Tick) -> Verdict:
        verdict = step(self, tick)
        self.validate()
        return verdict

    monkeypatch.setattr(Engine, "step", checked)


@dataclass(frozen=True)
class Result:
    """What a command said."""

    code: int
    out: str
    err: str


@pytest.fixture
def nicety(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run a command in this process; the state directory is one of the test's own unless named."""
    for name in ("NICETY_CONFIG", "NICETY_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NICETY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))

    def become(_path: str, command: list[str]) -> None:
        """In place of execv(3), which would make this process a daemon for good."""
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        raise SystemExit(done.returncode)

    monkeypatch.setattr(os, "execv", become)

    def invoke(*arguments: str | Path) -> Result:
        with pytest.raises(SystemExit) as ended:
            cli.app(args=[str(argument) for argument in arguments], prog_name="nicety")
        captured = capsys.readouterr()
        code = ended.value.code
        assert "Traceback" not in captured.err
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    return invoke
