"""The wall clock jumps, and the kernel freezes everybody, under a daemon that acts: it goes on, and gives everything back.

A freeze of all processes is the half of a suspend that this machine can bear: its root would not come back with the devices.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from bench import HOG, SERVICE, group, offline, until, work
from daemon_vm import PINNED, daemon, ticks

from nicety.scheduler.store.decisions import DecisionReader

POWER = Path("/sys/power")
HOUR = 3600.0


@contextmanager
def demoted(place: Path) -> Iterator[Path]:
    """A daemon that has demoted a batch cgroup beside a service, and must give its weight back at the end; its state directory."""
    with offline(2, 3, 4, 5, 6, 7), group("service") as service, group("batch") as batch, ExitStack() as load:
        with daemon(place, PINNED) as state:
            load.enter_context(work(SERVICE, service))
            load.enter_context(work(HOG, batch, count=3))
            until(lambda: batch.read("cpu.weight") != "100")
            yield state
        assert batch.read("cpu.weight") == "100"


def goes_on(state: Path) -> None:
    """It ticks, and its log is in the order of the ticks."""
    seen = ticks(state)
    until(lambda: ticks(state) >= seen + 3)
    with DecisionReader(state) as log:
        numbers = [it.seq for it in log.ticks()]
    assert numbers == sorted(numbers)


def test_a_daemon_that_acts_goes_on_while_the_wall_clock_jumps_and_undoes(tmp_path: Path) -> None:
    began, wall = time.monotonic(), time.time()
    try:
        with demoted(tmp_path) as state:
            for jump in (wall + HOUR, wall - HOUR, 1000.0, wall):
                time.clock_settime(time.CLOCK_REALTIME, jump)
                assert abs(time.time() - jump) < 10, "the clock was not set"
                goes_on(state)
    finally:
        time.clock_settime(time.CLOCK_REALTIME, wall + time.monotonic() - began)


@pytest.mark.skipif(not (POWER / "pm_test").exists(), reason="this kernel cannot try a suspend (CONFIG_PM_DEBUG)")
def test_a_daemon_that_acts_goes_on_after_the_kernel_froze_all_processes_and_undoes(tmp_path: Path) -> None:
    with demoted(tmp_path) as state:
        goes_on(state)
        (POWER / "pm_test").write_text("freezer")  # Documentation/power/basic-pm-debugging.rst: freeze all for 5 s, and go on
        before, began = ticks(state), time.monotonic()
        try:
            (POWER / "state").write_text("freeze")
        finally:
            (POWER / "pm_test").write_text("none")
        assert time.monotonic() - began >= 5, "nobody was frozen"
        goes_on(state)
    with DecisionReader(state) as log:  # it has all ticks when the daemon has ended
        later = [it.tick for it in log.ticks() if it.tick is not None and it.seq >= before and not it.tick.paused]
    assert any(tick.gap for tick in later), "what was measured over the gap was used"
