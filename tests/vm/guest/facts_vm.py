"""What `doctor` finds under Debian's kernel with nothing but cgroup v2, and autogroups that are off at boot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import UNIFIED, bench

from nicety.scheduler.decision import Set
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import SessionPlace
from nicety.scheduler.read.facts import CpuCgroup, probe
from nicety.scheduler.testing.puppet import Puppet

SWITCH = Path("/proc/sys/kernel/sched_autogroup_enabled")


@contextmanager
def autogroups(on: bool) -> Iterator[None]:
    before = SWITCH.read_text()
    SWITCH.write_text(str(int(on)))
    try:
        yield
    finally:
        SWITCH.write_text(before)


def test_facts_are_those_of_the_unified_hierarchy() -> None:
    facts = probe()
    assert facts.cpu_cgroup == CpuCgroup("v2", str(UNIFIED), writable=True)
    assert facts.topology.online == tuple(range(8))
    assert facts.root
    assert not facts.user_namespace
    assert facts.schedstat
    assert facts.pressure
    assert facts.sched_ext == facts.hidepid == ""
    assert facts.may_renice
    assert facts.may_set_autogroup
    assert facts.abilities.cpu_cgroup == "v2"


def test_the_autogroup_switch_is_followed() -> None:
    with autogroups(False):
        assert probe().autogroup is False
    with autogroups(True):
        assert probe().autogroup is True


def test_doctor_says_v2_and_nothing_is_wrong_that_this_machine_has(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nicety.scheduler", "doctor", "--json", "--state-dir", str(tmp_path / "state")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stderr
    rows = {row["name"]: row for row in records(json.loads(run.stdout)["findings"])}
    assert rows["cpu cgroup"]["ok"]
    assert rows["cpu cgroup"]["what"] == f"weights can be set: v2 at {UNIFIED}"
    for name in ("run-queue wait", "pressure", "renice", "autogroup", "kernel scheduler", "boot id", "rival tuners"):
        assert rows[name]["ok"], rows[name]
    assert rows["autogroup"]["what"].startswith("off")


def records(told: Any) -> list[dict[str, Any]]:
    return told if isinstance(told, list) else told["findings"]


def test_what_is_in_no_session_since_boot_has_no_autogroup_and_what_is_in_one_is_set_and_undone(tmp_path: Path) -> None:
    with autogroups(True), bench(tmp_path) as acting:
        with Puppet(session=False) as puppet:  # where the guest's first process is
            (outcome,) = acting.apply(Set(Control.AUTOGROUP, SessionPlace(puppet.id.pid, puppet.id), 19))
            assert outcome.status is Status.REFUSED, outcome
            assert f"pid {puppet.pid} is in no autogroup" in outcome.detail
        with Puppet() as puppet:
            (outcome,) = acting.apply(Set(Control.AUTOGROUP, SessionPlace(puppet.id.pid, puppet.id), 19))
            assert outcome.status is Status.APPLIED, outcome
            assert Path(f"/proc/{puppet.pid}/autogroup").read_text().strip().endswith("nice 19")
            assert all(outcome.status is Status.APPLIED for outcome in acting.actuator.undo())
            assert Path(f"/proc/{puppet.pid}/autogroup").read_text().strip().endswith("nice 0")
