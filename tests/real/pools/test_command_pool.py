"""A command pool starts, drains, restarts and backs off as it says, on real processes and a clock that can jump."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import Config, ConfigError, PoolConfig, Queue
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.pool_children import LOG_BYTES
from nicety.scheduler.pools.build import build
from nicety.scheduler.pools.command.adapter import CommandPool
from nicety.scheduler.pools.gunicorn.adapter import GunicornPool
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.clock import ShiftedClock
from nicety.scheduler.testing.driver import PoolDriver

SECOND = 1_000_000_000


class Bench:
    """Command pools in a folder of their own, closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ShiftedClock(SystemClock())
        self.log_file = folder / "jobs.log"
        self.pools: list[CommandPool] = []

    def pool(self, command: list[str], **keys: object) -> CommandPool:
        settings = {"minimum": 1, "maximum": 6, "drain_timeout": 5.0, **keys}
        config = PoolConfig(kind="command", command=command, **settings)  # type: ignore[arg-type]
        self.pools.append(CommandPool("jobs", config, self.clock, own_acts("jobs", config, self.clock, logs=self.folder), seed=7))
        return self.pools[-1]

    def until(self, pool: CommandPool, condition: Callable[[PoolSample], bool]) -> PoolSample:
        return PoolDriver(pool, SystemClock(), tick=0.02).until(condition)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for pool in bench.pools:
        pool.close()


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nothing_runs_before_the_first_probe(bench: Bench) -> None:
    pool = bench.pool(["sleep", "1000"])
    pool.close()
    assert not bench.log_file.exists()


def test_a_worker_knows_its_pool_its_number_and_has_a_session_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/nobody")
    code = "import os, time; print(os.environ['NICETY_POOL'], os.environ['NICETY_WORKER'], os.getsid(0) == os.getpid(), "
    pool = bench.pool(
        python(code + "'NOTIFY_SOCKET' in os.environ, os.getcwd(), flush=True); time.sleep(1000)"), directory=str(bench.folder)
    )
    pool.resize(2)
    pool.probe()
    wanted = [f"jobs {number} True False {bench.folder}" for number in (1, 2)]
    eventually(lambda: bench.log_file.exists() and sorted(bench.log_file.read_text().splitlines()) == wanted)


def test_a_lost_workers_number_is_given_again(bench: Bench) -> None:
    pool = bench.pool(["sh", "-c", "echo $NICETY_WORKER; exec sleep 1000"], minimum=3)
    workers = bench.until(pool, lambda s: s.size == 3).workers
    eventually(lambda: sorted(bench.log_file.read_text().split()) == ["1", "2", "3"])
    bench.clock.shift += 40 * SECOND
    pool.probe()
    os.kill(workers[1].id.pid, signal.SIGKILL)
    bench.until(pool, lambda s: s.size == 2)
    bench.clock.shift += 2 * SECOND
    bench.until(pool, lambda s: s.size == 3)
    eventually(lambda: sorted(bench.log_file.read_text().split()) == ["1", "2", "2", "3"])


def test_signals_that_the_daemon_blocks_or_ignores_reach_the_workers(bench: Bench) -> None:
    old = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    try:
        pool = bench.pool(["sleep", "1000"])
        worker = bench.until(pool, lambda s: s.size == 1).workers[0].id.pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, old)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines())
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & (1 << (signal.SIGTERM - 1)) == 0


def test_shrinking_takes_idle_workers_before_busy_ones_and_young_before_old(bench: Bench) -> None:
    code = "import os, time\nwhile os.environ['NICETY_WORKER'] == '1': pass\ntime.sleep(1000)"
    pool = bench.pool(python(code), minimum=1)
    pool.resize(4)
    started = bench.until(pool, lambda s: s.size == 4 and sum(w.busy == 0.0 for w in s.workers) == 3)
    busy = next(w.id for w in started.workers if w.busy)
    pool.resize(1)
    left = bench.until(pool, lambda s: s.size == 1)
    assert [w.id for w in left.workers] == [busy]


def test_a_worker_that_drains_finishes_its_work_first(bench: Bench) -> None:
    code = """
import signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
print("up", flush=True)
while not asked:
    time.sleep(0.01)
time.sleep(0.3)
print("done", flush=True)
"""
    pool = bench.pool(python(code), minimum=0)
    pool.resize(1)
    worker = bench.until(pool, lambda s: s.size == 1).workers[0].id
    eventually(lambda: bench.log_file.read_text() == "up\n")
    pool.resize(0)
    assert bench.until(pool, lambda s: True).workers[0].id == worker, "it is still there while it drains"
    bench.until(pool, lambda s: s.size == 0)
    assert bench.log_file.read_text() == "up\ndone\n"
    assert pool.read().trouble == ""


def test_a_worker_that_ends_well_is_replaced_at_once(bench: Bench) -> None:
    pool = bench.pool(["sh", "-c", "sleep 1.1"])
    first = bench.until(pool, lambda s: s.size == 1).workers[0].id
    second = bench.until(pool, lambda s: s.size == 1 and s.workers[0].id != first)
    assert second.trouble == ""
    assert pool.resize(2)[0] is Status.APPLIED


def starts(bench: Bench) -> int:
    return len(bench.log_file.read_text().splitlines())


def test_a_crash_loop_is_tried_ever_less_often_and_told(bench: Bench) -> None:
    pool = bench.pool(["sh", "-c", "echo up; exit 3"], minimum=1)
    gaps: list[int] = []
    last = None
    end = bench.clock.monotonic() + 400 * SECOND
    while bench.clock.monotonic() < end:
        before = starts(bench) if bench.log_file.exists() else 0
        pool.probe()
        pids = [worker.id.pid for worker in pool.read().workers]
        eventually(lambda pids=pids: not any(map(alive, pids)))  # type: ignore[misc]
        if starts(bench) > before:
            now = bench.clock.monotonic()
            gaps += [] if last is None else [now - last]
            last = now
        bench.clock.shift += SECOND // 4
    seconds = [gap / SECOND for gap in gaps]
    for gap, wanted in zip(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=False):
        assert 0.9 * wanted <= gap <= 1.1 * wanted + 2.0, seconds
    assert 8 <= len(gaps) <= 11
    text = pool.read().trouble
    assert text.startswith("worker exits at once (status 3), ")
    assert str(bench.log_file) in text
    assert pool.resize(3) == (Status.REFUSED, pool.read().trouble)
    assert pool.read().requested == 1


def test_many_workers_that_fail_together_count_as_one_failure(bench: Bench) -> None:
    flag = bench.folder / "broken"
    pool = bench.pool(["sh", "-c", f"while [ ! -e {flag} ]; do sleep 0.05; done; exit 1"], minimum=4)
    bench.until(pool, lambda s: s.size == 4)
    bench.clock.shift += 2 * SECOND
    flag.touch()
    bench.until(pool, lambda s: s.size == 0)
    flag.unlink()
    bench.clock.shift += 2 * SECOND  # the first back-off is 1 s, whatever came down
    bench.until(pool, lambda s: s.size == 4 and not s.trouble)


def test_after_repeated_failures_one_worker_is_tried_before_the_others(bench: Bench) -> None:
    flag = bench.folder / "broken"
    flag.touch()
    pool = bench.pool(["sh", "-c", f"[ ! -e {flag} ] || exit 1; exec sleep 1000"], minimum=4)
    for _ in range(3):
        pool.probe()
        bench.until(pool, lambda s: s.size == 0)
        bench.clock.shift += 10 * SECOND
    flag.unlink()
    pool.probe()
    assert pool.read().size == 1
    assert "trying again" in pool.read().trouble
    bench.clock.shift += 2 * SECOND
    assert bench.until(pool, lambda s: s.size == 4).trouble == ""


@pytest.mark.parametrize(
    ("command", "keys", "cause"),
    [
        (["/no/such/program"], {}, "No such file or directory: '/no/such/program'"),
        (["sleep", "1"], {"directory": "/no/such/folder"}, "No such file or directory: '/no/such/folder'"),
        (["sleep", "1"], {"user": "nosuchuser"}, "there is no user 'nosuchuser'; correct pools.jobs.user"),
    ],
)
def test_a_command_that_cannot_be_started_is_trouble(bench: Bench, command: list[str], keys: dict[str, object], cause: str) -> None:
    pool = bench.pool(command, **keys)
    pool.probe()
    sample = pool.read()
    assert sample.size == 0
    assert "cannot be started: " in sample.trouble
    assert cause in sample.trouble


def test_a_recycled_worker_drains_only_when_its_replacement_is_up(bench: Bench) -> None:
    """A worker waits for work as soon as there is a file, and is busy before."""
    may = bench.folder / "may"
    may.touch()
    pool = bench.pool(["sh", "-c", f"while [ ! -e {may} ]; do :; done; exec sleep 1000"])
    old = bench.until(pool, lambda s: s.size == 1 and s.workers[0].ready).workers[0].id
    may.unlink()
    assert pool.recycle(old)[0] is Status.APPLIED
    assert pool.recycle(old)[0] is Status.UNCHANGED
    for _ in range(5):
        assert pool.read().size == 2
        assert alive(old.pid)
    may.touch()
    new = bench.until(pool, lambda s: s.size == 1)
    assert new.workers[0].id != old
    assert new.workers[0].ready
    assert not alive(old.pid)


def test_a_full_log_is_rotated_when_a_worker_starts(bench: Bench) -> None:
    bench.log_file.write_bytes(b"x" * (LOG_BYTES + 1))
    pool = bench.pool(["sh", "-c", "echo up; exec sleep 1000"])
    pool.probe()
    eventually(lambda: bench.log_file.read_text() == "up\n")
    assert (bench.folder / "jobs.log.1").stat().st_size == LOG_BYTES + 1


def test_a_log_that_is_a_link_is_not_followed(bench: Bench) -> None:
    victim = bench.folder / "victim"
    victim.write_text("mine")
    bench.log_file.symlink_to(victim)
    pool = bench.pool(["echo", "overwritten"])
    pool.probe()
    assert "cannot be started" in pool.read().trouble
    assert victim.read_text() == "mine"


def test_the_queue_of_a_pool_is_in_its_samples(bench: Bench) -> None:
    spool = bench.folder / "spool"
    spool.mkdir()
    (spool / "job").touch()
    pool = bench.pool(["sleep", "1000"], queue=Queue(files=str(spool / "*"), every=0.1))
    assert bench.until(pool, lambda s: s.queued is not None).queued == 1.0
    spool.rename(bench.folder / "elsewhere")
    lost = bench.until(pool, lambda s: s.queued is None)
    assert lost.trouble == ""


def test_build_makes_an_adapter_for_each_pool_by_name(tmp_path: Path) -> None:
    config = Config(
        pools={"web": PoolConfig(kind="gunicorn", pidfile="/nowhere"), "a/b": PoolConfig(kind="command", command=["true"])}
    )
    pools = build(config, ShiftedClock(SystemClock()), state_dir=tmp_path)
    assert {name: type(pool) for name, pool in pools.items()} == {"a/b": CommandPool, "web": GunicornPool}
    assert list(pools) == ["a/b", "web"]
    assert list(tmp_path.iterdir()) == [], "nothing is written or started yet"


def test_build_refuses_a_queue_that_cannot_be_read(tmp_path: Path) -> None:
    pool = PoolConfig(kind="command", command=["true"], queue=Queue(redis_list="redis://127.0.0.1/jobs"))
    with pytest.raises(ConfigError, match=r"pools\.jobs\.queue\.redis_list: give"):
        build(Config(pools={"jobs": pool}), ShiftedClock(SystemClock()), state_dir=tmp_path)
