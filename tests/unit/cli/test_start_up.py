"""Reading commands load what they need and nothing else: what is loaded decides how soon they answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class
from nicety.scheduler.config.sections import Config, to_builtins
from nicety.scheduler.decision import Abilities, Decision, Outcome, ResizePool, Session, Verdict, Why
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.store.decisions import DecisionLog
from nicety.scheduler.testing.ticks import a_group, a_member, a_pool, a_tick

NEVER = {"pydantic", "sklearn", "scipy", "pandas", "matplotlib", "textual", "prometheus_client", "starlette", "uvicorn", "jinja2"}
"""What no reading command needs. typer would load pydantic."""

LISTS = NEVER | {"numpy", "rich", "pyarrow", "joblib"}
"""What a list of lines, or a line, does without too."""

PAGES = NEVER | {"numpy", "pyarrow", "joblib"}
"""What a page does without too: rich folds its texts."""

COMMANDS: dict[str, set[str]] = {
    "--version": LISTS,
    "--help": LISTS,
    "status": LISTS,
    "pools": PAGES,
    "decisions": LISTS,
    "decisions --json": LISTS,
    "decisions --since 1h --target x": LISTS,
    "decisions -n 3 --json": LISTS - {"pydantic"},
    "anomalies": PAGES,
    "why s-0.0": PAGES,
    "why web": PAGES,
    "why batch": PAGES,
    "doctor": PAGES - {"numpy"},
}
"""Reading commands, and what they may not load. typer checks numbers with pydantic; `doctor` looks into models."""

CODE = """
import sys
from nicety.scheduler import __main__
sys.argv = ["nicety", *sys.argv[1:]]
try:
    __main__.main()
except SystemExit:
    pass
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a log of a decision."""
    place = tmp_path_factory.mktemp("start") / "state"
    log = DecisionLog(place, 1 << 20)
    log.begin(Session("s", "boot", 0, "0", "act", ProcId(1, 1), Abilities(True, "v2", True), to_builtins(Config()), {}, {}))
    tick = a_tick(0, pools=[a_pool("web")], groups=[a_group("batch", Class.BATCH, [a_member(100)], 1.0)])
    why = Why("forecast floor", "4 Erlang are to be expected.", {"load": 4.0}, (), ())
    decision = Decision("s-0.0", "pool_size", "pool web", ResizePool("web", 4), why)
    log.append(tick, Verdict((decision,), (), ()), (Outcome("s-0.0", Status.APPLIED, "pool web", "", 1),))
    log.close()
    return place


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reading_command_loads_only_what_it_needs(command: str, state: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CODE, "--state-dir", str(state), *command.split()], capture_output=True, text=True, timeout=60
    )
    loaded = set(run.stderr.splitlines()[-1].split())
    assert "typer" in loaded, run.stderr
    assert not loaded & COMMANDS[command]


def test_values_are_checked_as_before(state: Path) -> None:
    def said(*words: str) -> str:
        command = [sys.executable, "-m", "nicety.scheduler", "--state-dir", str(state), *words]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert run.returncode == 2, run
        return run.stderr

    assert "Invalid value for '--since': \"soon\" is not a length of time" in said("decisions", "--since", "soon")
    assert "Missing argument 'ID|PID|GROUP'" in said("why")
    assert "Invalid value for '-n'" in said("decisions", "-n", "many")
    assert "Invalid value for '--kind'" in said("decisions", "--kind", "any")
