"""A real supervisord as a pool: who is stopped, whose hand it was, and what cannot be started."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.wire import RefusedError
from nicety.scheduler.pools.sensing.acts import Acts, in_process
from nicety.scheduler.pools.supervised.adapter import SupervisedPool
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.clock import ShiftedClock
from nicety.scheduler.testing.driver import PoolDriver
from nicety.scheduler.testing.waiting import within

SECOND = 1_000_000_000

SETTINGS = """
[unix_http_server]
file=FOLDER/socket
[supervisord]
nodaemon=true
logfile=FOLDER/supervisord.log
pidfile=FOLDER/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://FOLDER/socket
[program:jobs]
command=PYTHON FOLDER/job.py
process_name=jobs_%(process_num)02d
numprocs=4
autostart=false
startsecs=0
[program:broken]
command=/bin/false
process_name=broken_%(process_num)02d
numprocs=2
autostart=false
startretries=0
"""


JOB = """
import os, time
busy = os.path.join(os.path.dirname(__file__), os.environ["SUPERVISOR_PROCESS_NAME"])
while True:
    time.sleep(0.05) if not os.path.exists(busy) else sum(range(100000))
"""


class Supervisor:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = folder / "supervisord.conf"
        (folder / "job.py").write_text(JOB, encoding="ascii")
        settings.write_text(SETTINGS.replace("PYTHON", sys.executable).replace("FOLDER", str(folder)), encoding="ascii")
        self.ask = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(settings)]
        with (folder / "output").open("wb") as output:
            command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(settings)]
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        assert within(20, lambda: self.ctl("pid") == 0), (folder / "output").read_text()

    def ctl(self, *words: str) -> int:
        return subprocess.run([*self.ask, *words], capture_output=True, check=False).returncode

    def config(self, unit: str, minimum: int = 1, maximum: int = 4, command: list[str] | None = None) -> PoolConfig:
        return PoolConfig(kind="supervisord", command=command or self.ask, unit=unit, minimum=minimum, maximum=maximum)

    def pool(self, config: PoolConfig) -> tuple[PoolDriver, ShiftedClock]:
        clock = ShiftedClock(SystemClock())
        pool = SupervisedPool("jobs", config, clock, own_acts("jobs", config, clock), environ={})
        return PoolDriver(pool, clock, told=(self.folder / "supervisord.log").read_text), clock


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    found = Supervisor(tmp_path_factory.mktemp("supervisor"))
    yield found
    found.process.terminate()
    found.process.wait(20)


def names(driver: PoolDriver) -> list[str]:
    """Which processes of supervisord are its workers."""
    found = []
    for worker in driver.pool.read().workers:
        environment = Path(f"/proc/{worker.id.pid}/environ").read_bytes().split(b"\0")
        found += [text.partition(b"=")[2].decode() for text in environment if text.startswith(b"SUPERVISOR_PROCESS_NAME=")]
    return sorted(found)


def telling(part: str) -> Callable[[PoolSample], bool]:
    return lambda sample: part in sample.trouble


def test_idle_workers_leave_first_and_a_hand_is_obeyed(supervisor: Supervisor) -> None:
    driver, clock = supervisor.pool(supervisor.config("jobs:jobs_%02d", minimum=1, maximum=4))
    try:
        driver.until(lambda s: not s.trouble)
        assert driver.pool.resize(3)[0] is Status.APPLIED
        driver.up(3)
        assert names(driver) == ["jobs_00", "jobs_01", "jobs_02"]
        (supervisor.folder / "jobs_02").touch()
        driver.until(lambda s: max(worker.busy or 0.0 for worker in s.workers) > 0.9)
        driver.pool.resize(2)
        driver.until(lambda s: s.size == 2)
        assert names(driver) == ["jobs_00", "jobs_02"]

        assert supervisor.ctl("start", "jobs:jobs_03") == 0
        driver.over(0.5)  # a question that was under way
        clock.shift += 40 * SECOND  # supervisord is asked rarely while nothing happens
        sample = driver.until(lambda s: s.trouble)
        assert "resized by hand to 3 workers (2 were asked for)" in sample.trouble
        assert driver.pool.resize(1)[0] is Status.FOREIGN
        clock.shift += 61 * SECOND
        assert driver.until(lambda s: not s.trouble).requested == 3
        driver.settle(1)
        assert names(driver) == ["jobs_00"]
    finally:
        driver.pool.close()
        (supervisor.folder / "jobs_02").unlink(missing_ok=True)
        supervisor.ctl("stop", "jobs:*")


def test_one_that_is_still_starting_is_waited_for_and_stopped_before_those_below_the_minimum(supervisor: Supervisor) -> None:
    slow, starting = supervisor.folder / "slow", supervisor.folder / "starting"
    slow.write_text(
        f'#!/bin/sh\n[ "$1" = start ] && touch {starting} && sleep 1\nexec {shlex.join(supervisor.ask)} "$@"\n', "ascii"
    )
    slow.chmod(0o700)
    driver, _ = supervisor.pool(supervisor.config("jobs:jobs_%02d", command=[str(slow)]))
    try:
        assert supervisor.ctl("start", "jobs:jobs_00", "jobs:jobs_01") == 0
        driver.up(2)
        driver.pool.resize(4)
        driver.until(lambda s: starting.exists())
        driver.pool.resize(2)
        driver.over(3.0)
        driver.up(2)
        assert names(driver) == ["jobs_00", "jobs_01"]
    finally:
        driver.pool.close()
        supervisor.ctl("stop", "jobs:*")


def test_a_program_that_cannot_start_is_reported_and_not_tried_for_ever(supervisor: Supervisor) -> None:
    driver, _ = supervisor.pool(supervisor.config("broken:broken_%02d", maximum=2))
    try:
        driver.until(lambda s: not s.trouble)
        driver.pool.resize(2)
        sample = driver.until(lambda s: s.trouble)
        assert "broken:broken_0" in sample.trouble
        assert sample.size == 0
        assert driver.pool.resize(1)[0] in (Status.REFUSED, Status.FAILED)
    finally:
        driver.pool.close()


def test_a_wrong_name_and_a_missing_supervisor_say_what_to_do(supervisor: Supervisor, tmp_path: Path) -> None:
    for config, part in (
        (supervisor.config("jobs:work_%02d"), "there is no jobs:work_00: correct unit, or first"),
        (supervisor.config("work:work_%02d"), "no such group"),
        (PoolConfig(kind="supervisord", command=[str(tmp_path / "nothing")], unit="a:a_%d"), "correct command"),
        (PoolConfig(kind="supervisord", command=["echo"], unit="a:a_%d"), "is it running"),
    ):
        driver, _ = supervisor.pool(config)
        try:
            sample = driver.until(telling(part))
            assert (sample.size, sample.workers) == (0, ())
            assert driver.pool.resize(2)[0] is Status.REFUSED
        finally:
            driver.pool.close()


def ask_for_ever(acts: Acts) -> None:
    for _ in range(200):
        acts.place("status").end()


def test_the_hands_give_no_other_orders(supervisor: Supervisor) -> None:
    config = supervisor.config("jobs:jobs_%02d", minimum=2, maximum=3)
    ask = in_process({"jobs": config}, SystemClock(), environ=os.environ, logs=Path("/nowhere"))
    for arguments in (("stop", 0), ("stop", 1), ("start", 3), ("start", -1), ("shutdown", 0), ("stop", "all"), ("start", True, 1)):
        with pytest.raises(RefusedError):
            ask("pool.place", "jobs", *arguments)
    acts = Acts("jobs", ask, Path("/nowhere"))
    started = acts.place("start", 0)
    assert within(20, lambda: started.poll() is not None)
    started.close()
    with pytest.raises(RefusedError, match="too many requests"):
        ask_for_ever(acts)
    supervisor.ctl("stop", "jobs:*")
