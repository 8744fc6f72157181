"""Ledgers as earlier versions wrote them, spelt out here: this version must put back what they say, on real processes.

When the form of the ledger changes, the function that makes the last form stays, and a new one joins it. Released forms never go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.act.undo import undo_from_ledger
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.testing.ledger_file import write_version_1
from nicety.scheduler.testing.puppet import Puppet

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="lowering a nice again needs CAP_SYS_NICE; made for root"),
]

Row = tuple[int | str | None, ...]


def version_1(path: Path, boot: str, process: ProcId, cpus: list[int]) -> None:
    """nicety 0.1.0: the nice of a thread (done), its policy (done) and its affinity (a crash left the intent)."""
    pid, ticks = process
    mask = json.dumps(cpus)
    rows: list[Row] = [
        (1, boot, "a-1.0", "hog", 1, "nice", pid, ticks, pid, ticks, "", pid, pid, ticks, "0", "0", "10", "done"),
        (2, boot, "a-1.1", "hog", 1, "policy", pid, ticks, pid, ticks, "", pid, pid, ticks, "0", "0", "3", "done"),
        (3, boot, "a-2.0", "hog", 1, "affinity", pid, ticks, pid, ticks, "", pid, pid, ticks, mask, mask, "[0]", "intent"),
    ]
    write_version_1(path, rows)


@pytest.mark.parametrize("write", [version_1])
def test_what_an_earlier_version_changed_is_put_back(tmp_path: Path, write: Callable[[Path, str, ProcId, list[int]], None]) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with Puppet() as puppet:
        cpus = sorted(os.sched_getaffinity(puppet.pid))
        write(state / "ledger.db", LinuxKernel().boot_id(), puppet.id, cpus)
        os.setpriority(os.PRIO_PROCESS, puppet.pid, 10)
        os.sched_setscheduler(puppet.pid, os.SCHED_BATCH, os.sched_param(0))
        os.sched_setaffinity(puppet.pid, {0})
        outcomes = undo_from_ledger(state, SystemClock())
        assert {outcome.status for outcome in outcomes} == {Status.APPLIED}, outcomes
        assert len(outcomes) == 3
        assert os.getpriority(os.PRIO_PROCESS, puppet.pid) == 0
        assert os.sched_getscheduler(puppet.pid) == os.SCHED_OTHER
        assert sorted(os.sched_getaffinity(puppet.pid)) == cpus
        assert undo_from_ledger(state, SystemClock()) == ()
