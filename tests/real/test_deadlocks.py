"""Real processes that wait for each other in a circle are found and named; those that only look so never are.

A tick of the machine is made of a tenth of a second here: what stands still does so at any pace, and what moves has less time to.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nicety.models.anomaly.waitgraph import UNLESS
from nicety.models.identity import ProcId
from nicety.models.records import Deadlock, PoolSample, WorkerSample
from nicety.scheduler.config.paths import Paths
from nicety.scheduler.hands.reads import KEPT, RESERVE
from nicety.scheduler.observe.deadlocks import Deadlocks
from nicety.scheduler.read.blocked.belongings import DESCRIPTORS
from nicety.scheduler.read.calls import NUMBERS
from nicety.scheduler.read.holders import stat_fields
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.waits import LinuxWaits
from nicety.scheduler.replay import replay
from nicety.scheduler.store.decisions import DecisionReader
from nicety.scheduler.testing.circles import CIRCLES, HEALTHY, Circle, Circles
from nicety.scheduler.testing.puppet import proc_id

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the system calls of others take CAP_SYS_PTRACE"),
    pytest.mark.skipif(os.uname().machine not in NUMBERS, reason="the system calls of this machine are not known"),
]

SECOND = 1_000_000_000
TICK = 0.1
"""Real seconds of what is told to be one."""

LIVELY = "semaphore, lively master"
MASTERED = (LIVELY, "process lock, busy parent")

WORDS = {
    "flock": {"flock on"},
    "open file lock": {"open file lock on"},
    "fcntl": {"fcntl lock on", "flock on"},
    "pipe read": {"reading pipe"},
    "pipe write": {"writing pipe"},
    "unix read": {"reading unix socket"},
    "unix write": {"writing unix socket"},
    "unix datagram": {"reading unix socket"},
    "tcp": {"reading TCP socket"},
    "poll": {"reading unix socket"},
    "mutex": {"mutex 0x"},
    "robust mutex": {"mutex 0x"},
    "process lock": {"lock 0x0 in /dev/shm/"},
    "process lock, busy parent": {"lock 0x0 in /dev/shm/"},
    "process lock in a pool": {"lock 0x0 in /dev/shm/"},
    "process lock in an executor": {"lock 0x0 in /dev/shm/"},
    "mutex, heartbeat": {"mutex 0x"},
    "process lock, heartbeat": {"lock 0x0 in /dev/shm/"},
    "flock, heartbeat": {"flock on"},
    "open file lock, heartbeat": {"open file lock on"},
}


@dataclass
class Watched:
    """Some pools, looked at as the daemon does. `seen`: tick at which each deadlock was first told."""

    pools: tuple[PoolSample, ...]
    aloof: tuple[str, ...] = ()
    waits: LinuxWaits = field(default_factory=LinuxWaits)
    seen: dict[tuple[ProcId, ...], tuple[int, Deadlock]] = field(default_factory=dict)

    def watch(self, ticks: int, enough: int | None = None) -> None:
        """For so many ticks, or until so many deadlocks were told."""
        deadlocks, source = Deadlocks(self.waits), ProcSource()
        try:
            for at in range(ticks):
                for deadlock in deadlocks.step(source.read(at * SECOND, 0, self.pools), self.aloof):
                    self.seen.setdefault(tuple(wait.waiter for wait in deadlock.waits), (at, deadlock))
                if enough is not None and len(self.seen) >= enough:
                    return
                time.sleep(TICK)
        finally:
            source.close()
            deadlocks.close()

    def of(self, circle: Circle) -> tuple[int, Deadlock] | None:
        """The one deadlock that has a worker of this scene."""
        found = [told for waiters, told in self.seen.items() if set(waiters) & set(circle.workers)]
        assert len(found) <= 1
        return found[0] if found else None


def pool(name: str, workers: Sequence[ProcId], master: ProcId | None = None) -> PoolSample:
    samples = tuple(WorkerSample(worker, None, ready=True) for worker in sorted(workers))
    return PoolSample(name, len(workers), len(workers), None, samples, master, None, "")


Scenes = dict[tuple[str, int], tuple[Circle, tuple[int, Deadlock] | None]]


@pytest.fixture(scope="module")
def circles() -> Iterator[Scenes]:
    names = [(kind, size) for kind in CIRCLES for size in (2, 3)]
    with Circles(*names) as started:
        pools = [
            pool(f"{kind} {size}", circle.workers, circle.supervisor if kind in MASTERED else None)
            for (kind, size), circle in zip(names, started.scenes, strict=True)
        ]
        watched = Watched(tuple(pools), aloof=tuple(each.pool for each in pools if LIVELY in each.pool))
        watched.watch(60, enough=len(names))
        yield {name: (circle, watched.of(circle)) for name, circle in zip(names, started.scenes, strict=True)}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", WORDS)
def test_a_circle_is_found_within_15_s_with_who_waits_for_whom_and_what(circles: Scenes, kind: str, size: int) -> None:
    circle, told = circles[kind, size]
    assert told is not None
    at, deadlock = told
    assert at < 15 or "heartbeat" in kind, "a look at the moment of a beat puts it off"
    waits = {wait.waiter: wait for wait in deadlock.waits}
    assert set(waits) == set(circle.workers)
    for worker, after in zip(circle.workers, (*circle.workers[1:], circle.workers[0]), strict=True):
        assert waits[worker].holder == after
        assert waits[worker].thread == worker.pid
    assert all(any(wait.what.startswith(word) for word in WORDS[kind]) for wait in deadlock.waits), deadlock
    assert {word for word in WORDS[kind] for wait in deadlock.waits if wait.what.startswith(word)} == WORDS[kind]


@pytest.mark.parametrize("kind", ["flock, heartbeat", "process lock, heartbeat"])
def test_it_is_said_where_another_thread_could_free_a_lock(circles: Scenes, kind: str) -> None:
    """A lock of multiprocessing names the thread that took it, a file lock only its process."""
    _, told = circles[kind, 2]
    assert told is not None
    assert {UNLESS in wait.what for wait in told[1].waits} == {kind.startswith("flock")}


@pytest.mark.parametrize("size", [2, 3])
def test_a_circle_of_unlike_things_is_found(circles: Scenes, size: int) -> None:
    circle, told = circles["mixed", size]
    assert told is not None
    whats = {wait.waiter: (wait.what.split(" ")[0], wait.holder) for wait in told[1].waits}
    first, *_, last = circle.workers
    assert whats[first] == ("flock", circle.workers[1])
    assert whats[last] == ("mutex", first)
    if size == 3:
        assert whats[circle.workers[1]] == ("reading", last)


MANY = f"""
import os, resource, signal
resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)
kept = [os.open("/proc/self", os.O_PATH) for _ in range({DESCRIPTORS + 1})]
print(len(kept), flush=True)
signal.pause()
"""


@pytest.mark.parametrize("own", [True, False])
def test_nicety_s_own_processes_have_many_files_open_and_hide_no_circle(own: bool) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", MANY], stdout=subprocess.PIPE, text=True) as eyes,
        Circles(("flock", 2)) as started,
    ):
        assert eyes.stdout is not None
        assert int(eyes.stdout.readline()) > DESCRIPTORS
        (circle,) = started.scenes
        watched = Watched((pool("program", circle.workers),), waits=LinuxWaits(own=(eyes.pid,) if own else ()))
        watched.watch(15, enough=1)
        eyes.kill()
    assert (watched.of(circle) is not None) == own, "a stranger with so many may have the lock's file open"


def test_the_eyes_of_another_nicety_have_few_enough_open() -> None:
    assert KEPT + RESERVE < DESCRIPTORS


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", ["semaphore", LIVELY])
def test_where_the_kernel_cannot_tell_who_holds_all_waiters_are_stuck_together(circles: Scenes, kind: str, size: int) -> None:
    circle, told = circles[kind, size]
    assert told is not None
    assert {wait.waiter for wait in told[1].waits} == set(circle.workers)
    assert {wait.holder for wait in told[1].waits} == {None}
    assert all(wait.what.startswith("semaphore 0x0 in /dev/shm/") for wait in told[1].waits), told


def test_a_semaphore_is_well_whose_lively_master_may_post_it() -> None:
    with Circles((LIVELY, 2)) as started:
        (circle,) = started.scenes
        watched = Watched((pool("program", circle.workers, circle.supervisor),))
        watched.watch(14)
        assert watched.seen == {}


def test_healthy_processes_that_look_alike_are_never_called_deadlocks() -> None:
    names = [(kind, 3) for kind in HEALTHY]
    with Circles(*names) as started:
        watched = Watched(tuple(pool(kind, circle.workers) for (kind, _), circle in zip(names, started.scenes, strict=True)))
        watched.watch(40)
        kinds = {process: circle.kind for circle in started.scenes for process in (circle.supervisor, *circle.workers)}
        assert [(kinds.get(told.waits[0].waiter), told) for _, told in watched.seen.values()] == []
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker.pid}").exists() for circle in started.scenes for worker in circle.workers):
        assert time.monotonic() < deadline, "workers were left behind"
        time.sleep(0.05)


def test_the_kernel_itself_refuses_a_circle_of_its_record_locks(tmp_path: Path) -> None:
    """So that a circle with fcntl(2) needs another kind of lock, as in the scene."""
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.touch()
    mine, theirs = socket.socketpair()
    with mine, theirs, paths[0].open("r+") as a, paths[1].open("r+") as b:
        fcntl.lockf(a, fcntl.LOCK_EX)
        child = os.fork()
        if child == 0:
            try:  # whatever is raised: it must not go on as a second pytest
                with paths[0].open("r+") as a2, paths[1].open("r+") as b2:
                    fcntl.lockf(b2, fcntl.LOCK_EX)
                    theirs.send(b".")
                    fcntl.lockf(a2, fcntl.LOCK_EX)
                    os._exit(0)
            finally:
                os._exit(1)
        mine.recv(1)
        deadline = time.monotonic() + 10
        while not any("->" in line and str(child) in line.split() for line in Path("/proc/locks").read_text().splitlines()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(OSError, match="deadlock") as refused:
            fcntl.lockf(b, fcntl.LOCK_EX)
        assert refused.value.errno == errno.EDEADLK
        fcntl.lockf(a, fcntl.LOCK_UN)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_rights_nothing_is_called_and_it_is_said() -> None:
    with Circles(("flock", 2)) as started:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                waits = LinuxWaits()
                workers = started.scenes[0].workers
                seen = [waits.look(dict.fromkeys(workers, 1), workers, (), ()) for _ in range(8)]
                os.write(writing, f"{sum(len(look.halts) for look in seen)} {waits.trouble}".encode())
            finally:
                os._exit(0)
        os.close(writing)
        said = os.read(reading, 1000).decode()
        os.close(reading)
        os.waitpid(child, 0)
    assert said == "0 deadlocks are not looked for among workers whose system calls may not be read; it takes CAP_SYS_PTRACE"


def test_an_unknown_machine_and_processes_that_have_ended_are_values() -> None:
    gone = ProcId(2**22 - 1, 77)
    assert LinuxWaits().look({gone: 1}, (gone,), (), ()).halts == ()
    strange = LinuxWaits(machine="vax")
    assert strange.look({proc_id(os.getpid()): 1}, (), (), ()).halts == ()
    assert "not known to nicety" in strange.trouble


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_an_idle_gunicorn_is_well(kind: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def app(environ, start): start('200 OK', []); return [b'']\n")
    command = [sys.executable, "-m", "gunicorn", "-w", "3", "-k", kind, "-b", f"unix:{tmp_path}/s", "app:app"]
    master = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while len(workers := children(master.pid)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        watched = Watched((pool("web", workers, proc_id(master.pid)),), aloof=("web",))
        watched.watch(20)
        assert watched.seen == {}
    finally:
        master.terminate()
        master.wait()


def children(pid: int) -> list[ProcId]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[ProcId(int(entry.name), int(fields[19]))] = int(fields[1])
    return sorted(child for child, parent in parents.items() if parent == pid)


# --- the daemon's part --------------------------------------------------------------------------------------------------------

WORKER = """
import fcntl, os, sys, time
try:
    os.close(os.open("first", os.O_CREAT | os.O_EXCL))
    mine, other = "ba"
except FileExistsError:
    mine, other = "ab"
files = [open(name, "w") for name in (mine, other)]
fcntl.flock(files[0], fcntl.LOCK_EX)
open("held-" + mine, "w").close()
while not os.path.exists("held-" + other):
    time.sleep(0.01)
fcntl.flock(files[1], fcntl.LOCK_EX)
"""


def test_the_daemon_tells_of_a_deadlock_in_its_log_and_the_log_replays(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    command = json.dumps([sys.executable, "worker.py"])
    (tmp_path / "nicety.toml").write_text(
        f'[daemon]\ninterval = 1.0\n[pools.jobs]\nkind = "command"\ncommand = {command}\nminimum = 2\nmaximum = 2\n'
    )
    arguments = ["run", "--config", "nicety.toml", "--state-dir", "state", "--duration", "16"]
    subprocess.run([sys.executable, "-m", "nicety.scheduler", *arguments], cwd=tmp_path, check=True, timeout=60)
    paths = Paths(tmp_path / "state", tmp_path / "state/control.sock")
    with DecisionReader(paths.decisions) as log:
        (session,) = log.sessions()
        ticks = [logged.tick for logged in log.ticks(session.id) if logged.tick is not None]
    told = [tick for tick in ticks if tick.deadlocks]
    assert told, "it was not told"
    (deadlock,) = told[0].deadlocks
    assert [wait.holder for wait in deadlock.waits] == [deadlock.waits[1].waiter, deadlock.waits[0].waiter]
    assert {wait.what.split(" (")[0] for wait in deadlock.waits} == {f"flock on {tmp_path}/{name}" for name in "ab"}
    again = replay(paths)
    assert again.differences == []
    assert again.observed > 8


def in_group(group: int) -> list[int]:
    """Pids of the processes in it that live: a zombie is its parent's, or init's, to bury."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat_fields(str(stat))
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in (b"Z", b"X"):
            found.append(int(stat.parent.name))
    return found


def test_scenes_leave_nobody_behind() -> None:
    """Not even the workers of an executor whose program was killed while they wait for each other."""
    with Circles(("process lock in an executor", 2)) as started:
        workers = {worker.pid for worker in started.scenes[0].workers}
        group = os.getpgid(min(workers))
        assert workers <= set(in_group(group))
    deadline = time.monotonic() + 10
    while in_group(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert in_group(group) == []
