"""Command pools beside real work: no job is lost, busy is what the kernel sees, and a killed daemon leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import PoolConfig, Queue
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.pools.command.adapter import CommandPool
from nicety.scheduler.pools.sensing.busy import Activity, Doing
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.driver import PoolDriver

SECOND = 1_000_000_000

WORKER = """
import os, signal, sys, time
from pathlib import Path
spool, done = Path(sys.argv[1]), Path(sys.argv[2])
leaving = []
signal.signal(signal.SIGTERM, lambda *_: leaving.append(1))
while not leaving:
    for job in sorted(spool.glob("*.job")):
        mine = job.with_suffix(f".{os.getpid()}")
        try:
            job.rename(mine)
        except FileNotFoundError:
            continue
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        mine.rename(done / job.name)
        break
    else:
        time.sleep(0.02)
"""


def probed(pool: CommandPool, condition: Callable[[PoolSample], bool]) -> PoolSample:
    return PoolDriver(pool, SystemClock(), tick=0.05, interval=0.01).until(condition)


def test_no_job_is_lost_while_the_pool_is_resized(tmp_path: Path) -> None:
    spool, done = tmp_path / "spool", tmp_path / "done"
    spool.mkdir()
    done.mkdir()
    config = PoolConfig(
        kind="command",
        command=[sys.executable, "-S", "-c", WORKER, str(spool), str(done)],
        maximum=4,
        queue=Queue(files=str(spool / "*.job"), every=0.05),
    )
    pool = CommandPool("jobs", config, SystemClock(), own_acts("jobs", config, SystemClock(), logs=tmp_path), seed=1)
    names = [f"{n:04}.job" for n in range(150)]
    try:
        for name in names:
            (spool / name).touch()
        loaded = probed(pool, lambda s: s.size == 1 and s.workers[0].busy is not None and s.workers[0].busy > 0.7)
        assert loaded.queued is not None
        assert loaded.queued > 50
        for size in (4, 1, 3, 2, 4, 1):
            pool.resize(size)
            probed(pool, lambda s, size=size: s.size == size)  # type: ignore[misc]
        pool.resize(4)
        probed(pool, lambda s: len(list(done.iterdir())) == len(names))
        idle = probed(pool, lambda s: s.queued == 0.0 and s.size == 4 and all(w.busy == 0.0 for w in s.workers))
        assert idle.size == 4
        assert idle.start_seconds is not None
    finally:
        pool.close()
    assert sorted(path.name for path in done.iterdir()) == names
    assert list(spool.iterdir()) == [], "a worker was ended in the middle of a job"
    assert (tmp_path / "jobs.log").read_text() == ""


LOCKED_OUT = """
import fcntl, tempfile
held = tempfile.TemporaryFile()
fcntl.flock(held, fcntl.LOCK_EX)
again = open(f"/proc/self/fd/{held.fileno()}", "rb")
fcntl.flock(again, fcntl.LOCK_EX)
"""


def doing(code: str, want: Doing, seconds: float = 5.0) -> Doing:
    """What a Python process that runs `code` is seen doing, once it is what is wanted or time is up."""
    process = subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, start_new_session=True)
    activity = Activity(Path("/proc"), process.pid)
    deadline = time.monotonic() + seconds
    try:
        steady = 0
        seen = Doing.UNKNOWN
        while steady < 10 and time.monotonic() < deadline:
            seen = activity.look(time.monotonic_ns())
            steady = steady + 1 if seen is want else 0
            time.sleep(0.02)
        return seen
    finally:
        activity.close()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    ("code", "want"),
    [
        ("while True: pass", Doing.BUSY),
        ("import time; time.sleep(1000)", Doing.IDLE),
        ("import select; select.select([0], [], [])", Doing.IDLE),
        ("import signal; signal.pause()", Doing.IDLE),
        ("import sys; sys.stdin.read()", Doing.IDLE),  # after its first second
        ("import threading; threading.Event().wait()", Doing.IDLE),
        ("import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin).start()", Doing.BUSY),
        ("import subprocess; subprocess.run(['sleep', '1000'])", Doing.IDLE),
        ("import os\nos.fork() and os.wait()\nwhile True: pass", Doing.BUSY),
        ("import os, time\nos.fork() and time.sleep(1000)\nwhile True: pass", Doing.BUSY),
        (LOCKED_OUT, Doing.BUSY),
    ],
    ids=["spins", "sleeps", "selects", "pauses", "reads", "waits", "thread-spins", "child-sleeps", "child-spins", "watched-spins",
         "locked-out"],
)  # fmt: skip
def test_the_kernels_view_tells_waiting_for_work_from_working(code: str, want: Doing) -> None:
    assert doing(code, want) is want


def test_a_worker_that_forks_for_each_job_is_busy_and_may_leave_while_it_waits_for_one() -> None:
    process = subprocess.Popen(["sh", "-c", "read line; sleep 1000; true"], stdin=subprocess.PIPE, start_new_session=True)
    activity = Activity(Path("/proc"), process.pid, forks=True)
    try:
        deadline = time.monotonic() + 5
        while not activity.settled():  # in its read, from one look to the next
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        while activity.look(time.monotonic_ns() + 2_000_000_000) is not Doing.BUSY or not activity.settled():
            assert time.monotonic() < deadline, "its child only sleeps, yet it is busy"
            time.sleep(0.02)
    finally:
        activity.close()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_worker_that_runs_is_at_no_good_moment_to_leave() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time\nwhile True: time.sleep(0.001)"])
    activity = Activity(Path("/proc"), process.pid, forks=True)
    try:
        seen = set[bool]()
        for _ in range(10):
            time.sleep(0.02)
            seen.add(activity.settled())
        assert seen == {False}, "its waits are new ones each time"
    finally:
        activity.close()
        process.kill()
        process.wait()


def test_a_process_that_has_ended_is_gone_and_no_exception() -> None:
    process = subprocess.Popen(["sleep", "1000"])
    activity = Activity(Path("/proc"), process.pid)
    assert activity.look(0) is not Doing.GONE
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert activity.look(1) is Doing.GONE, "a zombie"
    process.wait()
    assert activity.look(2) is Doing.GONE
    activity.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changing user needs root")
def test_workers_run_as_the_configured_user_and_still_end_with_the_daemon(tmp_path: Path) -> None:
    entry = pwd.getpwnam("nobody")
    config = PoolConfig(kind="command", command=["sleep", "1000"], user="nobody")
    pool = CommandPool("jobs", config, SystemClock(), own_acts("jobs", config, SystemClock(), logs=tmp_path), seed=1)
    try:
        worker = probed(pool, lambda s: s.size == 1).workers[0].id.pid
        status = dict(line.split(":", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines())
        assert status["Uid"].split() == [str(entry.pw_uid)] * 4
        assert status["Gid"].split() == [str(entry.pw_gid)] * 4
        environ = dict(item.split("=", 1) for item in Path(f"/proc/{worker}/environ").read_text().split("\0") if item)
        assert environ["USER"] == "nobody"
        assert environ["HOME"] == entry.pw_dir
    finally:
        pool.close()
