"""kill -9 at any moment: the next undo, in a fresh process, brings back what the kernel had, from the ledger alone.

Real processes, real values read back. `actor` below is the daemon's acting half without the daemon.
"""

from __future__ import annotations

import ctypes
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.act.undo import undo_from_ledger
from nicety.scheduler.decision import Outcome
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status, Trouble
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.hands.ledger import Ledger
from nicety.scheduler.hands.places import Control, Value
from nicety.scheduler.testing.puppet import Puppet

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="lowering a nice again needs CAP_SYS_NICE; made for root"),
]

ACTOR = """
import os, sys, time
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.act.actuate import Acting
from nicety.scheduler.testing.hands import hands_with
from nicety.scheduler.decision import Decision, Restore, Set, Why
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import CgroupPlace, ProcessPlace, SessionPlace
from nicety.scheduler.hands.knobs.control import LinuxKernel
from nicety.scheduler.read.locks import LinuxLocks
from nicety.scheduler.hands.ledger import Ledger, StateLock

class Clock:
    monotonic = staticmethod(time.monotonic_ns)
    wall = staticmethod(time.time_ns)
    def sleep_until(self, at):
        time.sleep(max(0, at - time.monotonic_ns()) / 1e9)

state, turns, group, *numbers = sys.argv[1:]
numbers = list(map(int, numbers))
targets = [ProcId(*pair) for pair in zip(numbers[::2], numbers[1::2])]
lock = StateLock(Path(state))
kernel = LinuxKernel()
hands = hands_with(Ledger(Path(state) / "ledger.log", kernel.boot_id()), kernel, Clock())
actuator = Acting(hands, kernel, LinuxLocks(), {}, {}, Clock())
why = Why("test", "because", {}, (), ())
print("ready", flush=True)
for turn in range(int(turns)):
    actions = []
    for target in targets:
        on = ProcessPlace(target)
        actions.append(Set(Control.NICE, on, (10, 15)[turn % 2]))
        actions.append(Set(Control.AFFINITY, on, (0,)) if turn % 3 == 0 else Restore(Control.AFFINITY, on))
        if turn % 2:  # the policy is 3 still: an idle thread's slice cannot be set
            actions.append(Set(Control.SLICE, on, (100_000, 500_000, 3_000_000)[turn % 3]))
        actions.append(Set(Control.POLICY, on, (3, 5)[turn % 2]))
        actions.append(Set(Control.AUTOGROUP, SessionPlace(target.pid, target), (19, 5)[turn % 2]))
    if group:
        actions.append(Set(Control.CPU_SHARES, CgroupPlace(group), 2 + turn))
        actions.append(Set(Control.CPU_IDLE, CgroupPlace(f"{group}-idle"), 1 - turn % 2))
    outcomes = actuator.apply([Decision(f"t-{turn}.{index}", "p", "t", action, why) for index, action in enumerate(actions)])
    bad = [outcome for outcome in outcomes if outcome.status not in ("applied", "unchanged")]
    if bad:
        print(bad, flush=True)
    actuator.settle()
print("done", flush=True)
"""


class Stage:
    """Three puppets, two of them with threads, and a cgroup of our own where there is cgroup v1; what the kernel has of them."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.kernel = LinuxKernel()
        self.puppets = [Puppet() for _ in range(3)]
        self.puppets[0].thread()
        self.puppets[0].thread()
        self.puppets[1].thread()
        os.setpriority(os.PRIO_PROCESS, self.puppets[1].pid, 2)
        mount = find(Path("/proc/self/mountinfo").read_text()).shares
        self.group = None if mount is None else Path(mount.point) / f"nicety-crash-{os.getpid()}"
        if self.group is not None:
            self.group.mkdir(exist_ok=True)
            self.idle.mkdir(exist_ok=True)
        self.before = self.values()

    @property
    def idle(self) -> Path:
        assert self.group is not None
        return self.group.with_name(f"{self.group.name}-idle")

    def values(self) -> dict[str, Value | Trouble]:
        found: dict[str, Value | Trouble] = {}
        for puppet in self.puppets:
            found.update(values_of(puppet.id))
        if self.group is not None:
            found["shares"] = int((self.group / "cpu.shares").read_text())
            found["idle"] = int((self.idle / "cpu.idle").read_text())
            found["shares of the idle"] = int((self.idle / "cpu.shares").read_text())
        return found

    def command(self, turns: int) -> list[str]:
        numbers = [str(number) for puppet in self.puppets for number in puppet.id]
        group = "" if self.group is None else f"/{self.group.name}"
        return [sys.executable, "-c", ACTOR, str(self.state), str(turns), group, *numbers]

    def undo(self) -> tuple[Outcome, ...]:
        return undo_from_ledger(self.state, SystemClock())

    def close(self) -> None:
        for puppet in self.puppets:
            puppet.close()
        if self.group is not None:
            self.group.rmdir()
            self.idle.rmdir()


def values_of(process: ProcId) -> dict[str, Value | Trouble]:
    """Every control of a process, asked of the kernel without our code."""
    found: dict[str, Value | Trouble] = {}
    for tid in sorted(int(path.name) for path in Path(f"/proc/{process.pid}/task").iterdir()):
        found[f"{process.pid}/{tid} nice"] = os.getpriority(os.PRIO_PROCESS, tid)
        found[f"{process.pid}/{tid} affinity"] = tuple(sorted(os.sched_getaffinity(tid)))
        found[f"{process.pid}/{tid} policy"] = os.sched_getscheduler(tid)
        found[f"{process.pid}/{tid} slice"] = length_of_slice(tid)
    autogroup = Path(f"/proc/{process.pid}/autogroup")
    if autogroup.exists():
        found[f"{process.pid} autogroup"] = int(autogroup.read_text().split()[2])
    return found


def length_of_slice(tid: int) -> int:
    """sched_attr.sched_runtime of a thread, ns; 0 where this kernel has no slices, or this test does not know how to ask."""
    attributes = ctypes.create_string_buffer(48)
    if platform.machine() != "x86_64" or ctypes.CDLL(None).syscall(315, tid, attributes, 48, 0):
        return 0
    return int.from_bytes(attributes.raw[24:32], sys.byteorder)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "state")
    yield made
    made.close()


def run_and_kill(stage: Stage, after: float) -> None:
    """Start the actor, and end it by SIGKILL so many seconds after it has begun to act."""
    actor = subprocess.Popen(stage.command(100_000), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert actor.stdout is not None
    line = actor.stdout.readline()
    assert line == "ready\n", actor.communicate()
    time.sleep(after)  # the moment of death is the subject
    actor.kill()
    out, err = actor.communicate()
    assert (out, err) == ("", "")


def test_kill_nine_at_random_moments_and_one_value_changed_by_hand_meanwhile(stage: Stage) -> None:
    chance = random.Random(4)
    seen_changed = 0
    for turn in range(10):
        run_and_kill(stage, chance.uniform(0, 0.12))
        changed = stage.values()
        seen_changed += changed != stage.before
        child = stage.puppets[0].fork()
        thread = stage.puppets[0].thread()
        by_hand = 1 + turn % 9  # never a value of ours
        os.setpriority(os.PRIO_PROCESS, stage.puppets[2].pid, by_hand)
        outcomes = stage.undo()
        now = stage.values()
        expected = {**stage.before, f"{stage.puppets[2].pid}/{stage.puppets[2].pid} nice": by_hand}
        pid = stage.puppets[0].pid
        for control in ("nice", "affinity", "policy", "slice"):
            expected[f"{pid}/{thread} {control}"] = stage.before[f"{pid}/{pid} {control}"]
            assert values_of(child)[f"{child.pid}/{child.pid} {control}"] == stage.before[f"{pid}/{pid} {control}"]
        assert now == expected, [outcome.detail for outcome in outcomes]
        assert {outcome.status for outcome in outcomes} <= {Status.APPLIED, Status.UNCHANGED, Status.FOREIGN}
        assert stage.undo() == ()
        os.setpriority(os.PRIO_PROCESS, stage.puppets[2].pid, 0)
        stage.before = stage.values()
        (stage.state / "ledger.log").unlink()  # with it the memory of what is hands off
    assert seen_changed >= 4, "the actor was killed before it did anything"


def test_what_a_dead_daemon_left_is_put_back_once_and_not_onto_another_boot(stage: Stage) -> None:
    actor = subprocess.run(stage.command(3), capture_output=True, text=True, timeout=60, check=True)
    assert actor.stdout.splitlines()[-1] == "done", actor.stdout
    assert stage.values() != stage.before
    ledger = Ledger(stage.state / "ledger.log", stage.kernel.boot_id())
    assert {entry.control for entry in ledger.outstanding()} >= {Control.NICE, Control.POLICY}
    ledger.close()
    rebooted = shutil.copytree(stage.state, stage.state.parent / "rebooted")
    edit_boot_id(rebooted / "ledger.log", stage.kernel.boot_id())
    between = stage.values()
    (outcome,) = undo_from_ledger(rebooted, SystemClock())
    assert (outcome.status, outcome.target) == (Status.UNCHANGED, "ledger")
    assert "rebooted" in outcome.detail
    assert stage.values() == between
    assert {outcome.status for outcome in stage.undo()} == {Status.APPLIED}
    assert stage.values() == stage.before


def edit_boot_id(path: Path, boot_id: str) -> None:
    """The same ledger as if another boot had written it."""
    old = Ledger(path, boot_id)
    entries = old.outstanding()
    old.close()
    path.unlink()
    other = Ledger(path, "another-boot")
    other.intend([entry._replace(boot_id="another-boot") for entry in entries])
    other.close()


def test_a_damaged_ledger_after_a_crash_restores_what_can_be_read_and_says_that_it_was_damaged(stage: Stage) -> None:
    subprocess.run(stage.command(1), capture_output=True, text=True, timeout=60, check=True)
    path = stage.state / "ledger.log"
    *before, last, rest = path.read_bytes().rpartition(b'"nice",')
    path.write_bytes(b"".join((*before, last.replace(b"nice", b"nicf"), rest)))
    outcomes = stage.undo()
    assert [(outcome.status, outcome.target) for outcome in outcomes[:1]] == [(Status.FAILED, "ledger")]
    assert (stage.state / "ledger.log.bad.1").exists()
    now = stage.values()
    wrong = {name: value for name, value in now.items() if value != stage.before[name]}
    assert list(wrong.values()) in ([], [10]), "left as it was, not restored to something else"
