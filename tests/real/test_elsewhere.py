"""A machine that is not Linux, played by Linux: nicety records, trains and observes, and says what it lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nicety.scheduler.interpreter import environment
from nicety.scheduler.running import Wanted, words
from nicety.scheduler.service.elsewhere import ONLY_LINUX

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="hiding /proc needs root and unshare",
)
PLAY = 'play() {{ unshare -m {python} -m nicety.scheduler.testing.elsewhere {procfs} "$@"; }}\n'


def played(place: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    """Commands of a shell in which `play MODULE ...` runs a module on that machine."""
    script = PLAY.format(procfs=place / "procfs", python=sys.executable) + "\n".join(commands)
    return subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**environment(os.environ), "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "NICETY_DEBUG": "1"},
    )


def test_it_observes_and_records_and_says_what_it_cannot_do(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (config := tmp_path / "nicety.toml").write_text('[daemon]\nact = true\n[pools.jobs]\nkind = "command"\ncommand = ["true"]\n')
    config.chmod(0o600)
    (wanted,) = words(Wanted(str(config), str(state), True, 5.0, [], None))
    nicety = f"play nicety.scheduler --state-dir {state}"
    done = played(
        tmp_path,
        f"play nicety.scheduler.running '{wanted}' 2>{tmp_path}/log &",
        f"until {nicety} status --json >{tmp_path}/status 2>/dev/null; do kill -0 $! || break; done",
        f"{nicety} act 2>{tmp_path}/act",
        "wait $!; echo ended $?",
        f"{nicety} doctor --json",
        f"play nicety.training train --state-dir {state} >{tmp_path}/trained",
    )
    assert done.stdout.startswith("ended 0\n"), done.stderr + (tmp_path / "log").read_text()
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["priority"] for line in said if line["text"] == ONLY_LINUX] == [4]
    assert not [line for line in said if line["priority"] <= 3]
    assert any(line["text"].endswith("started, observing") for line in said)
    assert said[-1]["ticks"] >= 1
    status = json.loads((tmp_path / "status").read_text())
    assert (status["mode"], status["cannot"]) == ("observe", ONLY_LINUX)
    assert "cannot act: this machine is not Linux" in (tmp_path / "act").read_text()
    findings = {finding["name"]: finding for finding in json.loads(done.stdout.partition("\n")[2])["findings"]}
    assert findings["acting"]["what"] == ONLY_LINUX
    assert findings["reader"]["what"].startswith("psutil reads the processes")
    assert "renice" not in findings
    assert "ticks of 1 s" in (tmp_path / "trained").read_text()
