"""What a daemon in a namespace cannot see it still knows of, and what visible processes do it does not miss. Real processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

CAN_UNSHARE = 21  # CAP_SYS_ADMIN
WATCH = """
import json, os, sys, time
from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import Config
from nicety.scheduler.decision import Abilities
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.observe.observer import Observer
observer = Observer(Config(), Abilities(False, "", False), ProcId(os.getpid(), 0), None, None, None)
source, found = ProcSource(), []
for _ in range(int(sys.argv[1])):
    machine = observer.tick(source.read(time.monotonic_ns(), time.time_ns(), ()), (), False).machine
    found.append((machine.busy, machine.unseen))
    time.sleep(1)
print(json.dumps(found[1:]))
"""
HOG = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
BUILD = """
all: $(addprefix t,$(shell seq 10000))
t%:
\t@{python} -S -E -c 'sum(range(300000))'
\t@sort /proc/self/status > /dev/null
"""


def capable(bit: int) -> bool:
    """Whether this process has a capability."""
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> bit & 1)


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process and what it starts, ended on leaving."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def watch(ticks: int, *before: str) -> list[tuple[float, float]]:
    """(busy, unseen) of each tick after the first, as an observer there has it."""
    out = subprocess.run(
        [*before, sys.executable, "-c", WATCH, str(ticks)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    return [(busy, unseen) for busy, unseen in json.loads(out)]


@pytest.mark.skipif(not capable(CAN_UNSHARE), reason="needs CAP_SYS_ADMIN to make a pid namespace")
def test_hogs_outside_of_a_pid_namespace_are_known_of_within_three_ticks() -> None:
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            stack.enter_context(running(sys.executable, "-c", HOG))
        seen = watch(5, "unshare", "--pid", "--fork", "--mount-proc")
    busy, unseen = seen[2]
    assert busy > 0.7 * (os.cpu_count() or 1)
    assert unseen > 0.4 * busy
    assert seen[3][1] > unseen - 0.1


def test_a_build_of_thousands_of_processes_is_seen(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(BUILD.format(python=sys.executable))
    with running("make", "-s", "-j4", "-C", str(tmp_path)):
        seen = watch(9)
    assert statistics.median(busy for busy, _ in seen) > 0.7 * (os.cpu_count() or 1)
    assert statistics.median(unseen for _, unseen in seen) == 0.0
    assert max(unseen for _, unseen in seen) < 0.3


@pytest.mark.skipif(not capable(CAN_UNSHARE), reason="needs CAP_SYS_ADMIN to make a pid namespace")
def test_doctor_says_that_a_namespace_hides_the_rest() -> None:
    look = """if True:
        from pathlib import Path
        from nicety.scheduler.hands.clock import SystemClock
        from nicety.scheduler.service.doctor import visibility
        print(visibility("proc", Path("/proc"), SystemClock()).what)"""
    with running(sys.executable, "-c", HOG):
        command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", look]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.startswith("only processes of this pid namespace are seen")
