"""Two real users: the owners of their processes as /proc has them, and what the kernel has after decisions were carried out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import Class, Snapshot
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decide.engine import Engine
from nicety.scheduler.decision import Group, Member, Outcome, Set
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.observe.group_figures import member_of
from nicety.scheduler.observe.tenancy import Tenancy
from nicety.scheduler.places import SessionPlace
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.testing.bench import Bench
from nicety.scheduler.testing.puppet import proc_id
from nicety.scheduler.testing.ticks import a_group, a_machine, a_tick

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts processes of other users: needs root"),
]

ROOT, ALICE, BOB = 0, 61001, 61002
"""Real uids. The last two need no entry in the database of users, and are no user's of this machine."""

SLEEPS = (
    "import os, sys; os.setpriority(os.PRIO_PROCESS, 0, 0); os.setgroups([]); os.setgid({uid}); os.setuid({uid}); {more}"
    "print(flush=True); sys.stdin.readline()"
)
"""A program that becomes a user's, prints a line and waits. It may be of an interpreter that only root may execute."""

HIDDEN = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); "
"""PR_SET_DUMPABLE: it may not be dumped."""


@contextmanager
def running(*command: str | Path, session: bool = True, uid: int | None = None) -> Iterator[ProcId]:
    """A process that prints a line once it is up. `uid`: the user who starts it; None: root."""
    ours = {} if uid is None else {"user": uid, "group": uid, "extra_groups": list[int]()}
    process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", start_new_session=session, **ours
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n" * (uid is not None))
        process.stdin.flush()
        process.stdout.readline()
        yield proc_id(process.pid)
    finally:
        process.kill()
        process.communicate()


def sleeper(uid: int, *, session: bool = True, more: str = "") -> AbstractContextManager[ProcId]:
    """A process of a user that waits."""
    return running(sys.executable, "-I", "-S", "-c", SLEEPS.format(uid=uid, more=more), session=session)


@pytest.fixture
def source() -> Iterator[ProcSource]:
    source = ProcSource()
    yield source
    source.close()


def look(source: ProcSource) -> Snapshot:
    return source.read(time.monotonic_ns(), time.time_ns(), ())


def member(snapshot: Snapshot, process: ProcId) -> Member:
    """A process as the daemon's tick has it."""
    (row,) = np.flatnonzero(snapshot.table["pid"] == process.pid)
    return member_of(process, snapshot.table[row], snapshot.identities[process])


def nice(process: ProcId) -> int:
    return os.getpriority(os.PRIO_PROCESS, process.pid)


@dataclass(frozen=True)
class Scene:
    """Whose service waits, whose batch work runs, and the nice of the latter afterwards."""

    service: int
    hog: int
    nice: int
    config: str = ""


SCENES = {
    "a user's own": Scene(ALICE, ALICE, 19),
    "another user's": Scene(ALICE, BOB, 0),
    "root's for a user": Scene(ALICE, ROOT, 0),
    "a user's for root": Scene(ROOT, ALICE, 19),
    "another user's, in one team": Scene(ALICE, BOB, 19, "[tenants]\napart = false\n"),
}


def served(bench: Bench, service: Member, hog: Member, config: str) -> tuple[list[Outcome], Group, Group]:
    """What became of a tick in which the service waits and the hog takes the machine."""
    engine = Engine(parse(f"{config}\n[priority]\nslice_ms = 0\n"), "cafe0000")
    groups = (
        a_group("service", Class.INTERACTIVE, [service], cpu=0.4, wait=0.4),
        a_group("hog", Class.BATCH, [hog], cpu=1.6, wait=2.0),
    )
    machine = a_machine(busy=2.0, autogroup=False, cpu_cgroup="")
    decisions = engine.step(a_tick(0, machine=machine, groups=groups)).decisions
    assert all(isinstance(each.action, Set) for each in decisions)
    return list(bench.actuator.apply(decisions)), *groups


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())
def test_the_kernel_has_the_nice_that_the_owners_allow(scene: Scene, source: ProcSource, tmp_path: Path) -> None:
    with Bench(tmp_path / "state") as bench, sleeper(scene.service) as waits, sleeper(scene.hog) as runs:
        snapshot = look(source)
        service, hog = member(snapshot, waits), member(snapshot, runs)
        assert (service.owner, hog.owner) == (scene.service, scene.hog)
        outcomes, *_ = served(bench, service, hog, scene.config)
        assert (nice(waits), nice(runs)) == (0, scene.nice)
        assert [outcome.status for outcome in outcomes] == [Status.APPLIED] * bool(scene.nice)
        bench.actuator.undo()
        assert nice(runs) == 0


def test_a_set_uid_program_is_its_users_and_helped_against_nobody_else(source: ProcSource, tmp_path: Path) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # tmp_path is closed to other users
        folder.chmod(0o755)
        program = folder / "rooted"
        shutil.copyfile(shutil.which("cat") or "/bin/cat", program)
        program.chmod(0o4755)
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            pytest.skip("set-uid programs have no effect on this file system")
        bench = stack.enter_context(Bench(tmp_path / "state"))
        waits = stack.enter_context(running(program, uid=ALICE))
        runs = stack.enter_context(sleeper(BOB))
        snapshot = look(source)
        assert (snapshot.identities[waits].uid, snapshot.identities[waits].owner) == (ROOT, ALICE)
        served(bench, member(snapshot, waits), member(snapshot, runs), "")
        assert nice(runs) == 0


def test_a_process_that_may_not_be_dumped_is_still_its_users(source: ProcSource) -> None:
    with sleeper(ALICE, more=HIDDEN) as hidden:
        identity = look(source).identities[hidden]
        assert (identity.uid, identity.owner) == (ALICE, ALICE)
        assert Path(f"/proc/{hidden.pid}/status").stat().st_uid == ROOT, "as which its files show it"


GIVES_UP = f"import os, sys; print(flush=True); sys.stdin.readline(); os.setuid({ALICE}); print(flush=True); sys.stdin.readline()"


def test_a_young_process_that_gives_up_its_rights_is_its_users_in_the_next_tick(source: ProcSource) -> None:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", GIVES_UP], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()
        id_ = proc_id(process.pid)
        assert look(source).identities[id_].owner == ROOT
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert look(source).identities[id_].owner == ALICE, "without an exec"
    finally:
        process.kill()
        process.communicate()


def test_a_session_of_two_users_is_seen(source: ProcSource) -> None:
    with sleeper(ALICE, session=False) as one, sleeper(BOB, session=False):
        snapshot = look(source)
        batch = [member(snapshot, one)]
        places = {it.on: it.owners for it in Tenancy(parse("").tenants).shared(snapshot, batch)}
        owners = places[SessionPlace(batch[0].session, one)]
        assert {ALICE, BOB} <= set(owners)
