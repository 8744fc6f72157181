"""A crowd of idle processes beside the reader and the observer: little memory each, and all is given back when it ends.

`benchmarks/trust/crowd.py` has the whole daemon beside ten thousand of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

CROWD = 4000  # fewer, and what is kept whatever their number decides
EACH = 1800
"""Bytes of resident memory that a process of the crowd may cost, without what the allocator keeps free. Chosen: 1,470 to 1,635 were
measured."""

WATCH = """
import ctypes, gc, json, os, signal, sys, time
from contextlib import suppress
from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import Config
from nicety.scheduler.decision import Abilities
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.observe.observer import Observer

def resident():
    "Without what the allocator keeps free: that depends on what was freed last, not on how many there are."
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def kept():
    "Descriptors on files of processes."
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that lists them
            count += os.readlink("/proc/self/fd/" + name).startswith("/proc/")
    return count

observer = Observer(Config(), Abilities(False, "", False), ProcId(os.getpid(), 0), None, None, None)
source, clock = ProcSource(), 10**9
def tick(number):
    "So many ticks; the processes in the last one, and the CPU seconds of the last five."
    global clock
    used = []
    for _ in range(number):
        clock += 10**9
        began = time.process_time()
        snapshot = source.read(clock, time.time_ns(), ())
        observer.tick(snapshot, (), False)
        used.append(time.process_time() - began)
    return len(snapshot.table), min(used[-5:])

def crowd(number):
    "A process, forked before anything here grows, that forks so many when it is told to."
    read, write = os.pipe()
    told, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.read(read, 1)
        for _ in range(number):
            if os.fork() == 0:
                signal.pause()
        os.write(done, b"1")
        signal.pause()
    def begin():
        os.write(write, b"1")
        os.read(told, 1)
    def end():
        os.killpg(pid, 9)
        with suppress(ChildProcessError):
            while True:  # this is the first process of its namespace: it inherits them
                os.waitid(os.P_PGID, pid, os.WEXITED)
    return begin, end

number = int(sys.argv[1])
(begin_few, end_few), (begin, end) = crowd(100), crowd(number)
begin_few()
tick(12)  # every turn of the reader has come, and all is loaded that somebody who comes and goes takes
end_few()
before, calm = resident(), tick(5)
begin()
many, cost = tick(12)
beside, most = resident(), kept()
end()
left, _ = tick(12)
source.close()
print(json.dumps({"before": before, "calm": calm[0], "many": many, "cost": cost, "beside": beside, "kept": most, "left": left,
                  "kept_after": kept()}))
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare for a pid namespace")
def test_a_crowd_of_processes_costs_little_memory_and_all_of_it_is_given_back() -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", WATCH, str(CROWD)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["many"] == found["calm"] + CROWD
    assert found["left"] <= found["calm"]
    assert found["beside"] - found["before"] <= CROWD * EACH
    assert found["cost"] <= 0.1
    assert 0 < found["kept"] <= CROWD / 100, "only of what runs"
    assert found["kept_after"] == 0
