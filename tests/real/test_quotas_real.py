"""A cgroup of our own with a quota, and a hog in it, as the tick tells of them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Abilities, Group
from nicety.scheduler.hands.knobs.cgroup import find
from nicety.scheduler.observe.observer import Observer
from nicety.scheduler.read.proc import ProcSource

CGROUPS = find(Path("/proc/self/mountinfo").read_text())
HOG = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"
QUOTA = 0.01  # of a CPU, the least there is: used up as soon as it runs, on a busy machine too


@pytest.fixture
def limited() -> Iterator[Path]:
    """The directory of a new cgroup with the quota, removed afterwards."""
    mount = CGROUPS.shares or CGROUPS.weight
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs root and a hierarchy with the cpu controller")
    directory = Path(mount.point) / f"nicety-quota-{os.getpid()}"
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"needs to make a cgroup: {error}")
    try:
        if CGROUPS.shares:
            (directory / "cpu.cfs_quota_us").write_text(str(round(QUOTA * 100_000)))
        elif (directory / "cpu.max").exists():
            (directory / "cpu.max").write_text(f"{round(QUOTA * 100_000)} 100000")
        else:
            pytest.skip("the cpu controller is not on in the root cgroup")
        yield directory
    finally:
        deadline = time.monotonic() + 10
        while True:
            try:
                directory.rmdir()
                break
            except OSError:  # its last process is still on its way out
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_a_hog_that_its_quota_stops_is_told_from_one_that_waits_for_others(limited: Path) -> None:
    config = parse("[groups.limited]\ncgroup = '*nicety-quota-*'\nclass = 'batch'")
    observer, source = Observer(config, Abilities(False, "", False), ProcId(os.getpid(), 0), None, None, None), ProcSource()
    hog = subprocess.Popen([sys.executable, "-c", HOG])
    try:
        (limited / "cgroup.procs").write_text(str(hog.pid))
        seen = list[Group]()
        for _ in range(5):
            tick = observer.tick(source.read(time.monotonic_ns(), time.time_ns(), ()), (), paused=False)
            seen += [group for group in tick.groups if group.name == "limited"]
            time.sleep(1)
    finally:
        hog.kill()
        hog.wait()
        source.close()
    assert statistics.median(group.cpu for group in seen) == pytest.approx(QUOTA, abs=0.03)
    stopped = statistics.median(group.throttled for group in seen)
    assert 0.3 < stopped <= 1 - QUOTA + 0.05
    assert stopped <= statistics.median(group.wait for group in seen) + 0.1, "being stopped is a part of waiting"
