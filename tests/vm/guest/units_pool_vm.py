"""A template unit of a real systemd as a pool: grown, shrunk, restarted, resized by hand, and one that cannot start."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.pools.supervised.adapter import SupervisedPool
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.clock import ShiftedClock
from nicety.scheduler.testing.driver import PoolDriver

SECOND = 1_000_000_000

UNIT = """
[Service]
ExecStart=/bin/sleep 1000
Restart=always
RestartSec=0
StartLimitIntervalSec=0
"""

BROKEN = """
[Service]
Type=exec
ExecStart=/bin/nothing
"""


def systemctl(*arguments: str) -> str:
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path("/run/units")  # where this systemd looks: tests/vm/run.py
    (found / "job@.service").write_text(UNIT)
    (found / "broken@.service").write_text(BROKEN)
    systemctl("daemon-reload")
    yield found
    systemctl("stop", "job@*", "broken@*")
    for name in ("job@.service", "broken@.service"):
        (found / name).unlink()
    systemctl("daemon-reload")


def drive(unit: str, maximum: int) -> tuple[PoolDriver, ShiftedClock]:
    clock = ShiftedClock(SystemClock())
    config = PoolConfig(kind="systemd", unit=unit, maximum=maximum)
    pool = SupervisedPool("jobs", config, clock, own_acts("jobs", config, clock))
    return PoolDriver(pool, clock, tick=0.5, interval=0.2, patience=120.0, told=lambda: systemctl("status", "job@*")), clock


def active() -> list[str]:
    lines = systemctl("list-units", "--plain", "--no-legend", "--state=active", "job@*").splitlines()
    return sorted(line.split()[0] for line in lines)


def telling(part: str) -> Callable[[PoolSample], bool]:
    return lambda sample: part in sample.trouble


def test_instances_of_a_template_are_a_pool(folder: Path) -> None:
    assert systemctl("start", "job@1.service") == ""
    driver, clock = drive("job@%d", 4)
    try:
        driver.until(lambda s: s.size == 1 and not s.trouble)
        assert driver.pool.resize(3)[0] is Status.APPLIED
        sample = driver.up(3)
        assert active() == ["job@1.service", "job@2.service", "job@3.service"]
        assert sample.start_seconds is not None
        pids = {int(systemctl("show", "--property=MainPID", "--value", name)) for name in active()}
        assert {worker.id.pid for worker in sample.workers} == pids

        print("one is killed, one is restarted")
        victim, old = sample.workers[0].id, sample.workers[1].id
        systemctl("kill", "--signal=KILL", "job@1.service")
        assert driver.pool.recycle(old)[0] is Status.APPLIED
        after = driver.until(lambda s: s.size == 3 and not {victim, old} & {worker.id for worker in s.workers})
        assert (after.trouble, after.requested) == ("", 3)

        print("it shrinks, and is resized by hand")
        driver.settle(2)
        assert active() == ["job@1.service", "job@2.service"]
        driver.over(2.0)
        systemctl("start", "job@4.service")
        clock.shift += 10 * SECOND
        sample = driver.until(lambda s: s.trouble)
        assert "resized by hand to 3 workers (2 were asked for)" in sample.trouble
        clock.shift += 61 * SECOND
        assert driver.until(lambda s: not s.trouble).requested == 3
    finally:
        driver.pool.close()


def test_a_template_that_cannot_start_or_is_not_there_is_reported(folder: Path) -> None:
    for unit, part in (("broken@%d", "broken@1.service"), ("nothing@%d", "there is no nothing@1.service: correct unit")):
        driver, _ = drive(unit, 1)
        try:
            driver.over(3.0)
            driver.pool.resize(1)
            sample = driver.until(telling(part))
            assert sample.size == 0
        finally:
            driver.pool.close()
