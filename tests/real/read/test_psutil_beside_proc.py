"""The reader on psutil beside that of /proc, on everything that runs here: the same rows, or a difference that is named below."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Snapshot
from nicety.scheduler.config.sections import parse
from nicety.scheduler.decision import Abilities
from nicety.scheduler.observe.observer import Observer
from nicety.scheduler.ports import Source
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.psutil_reader import PsutilSource
from nicety.scheduler.store.traces import TraceWriter

MS, KIB = 1_000_000, 1024
SAME = ("pid", "start_ticks", "ppid", "session", "nice")
GROW = {
    "cpu_ns": (20 * MS, 10 * MS),  # user and system time, each in whole steps of 10 ms
    "child_cpu_ns": (0, 0),
    **dict.fromkeys(("read_chars", "write_chars", "read_bytes", "write_bytes"), (0, 0)),
}
"""Counters, and by how much that of psutil may be below a read of /proc just before it, and above one just after it."""

STAND = ("fds", "threads", "state")
"""Of a process that does nothing."""

ABSENT = ("wait_ns", "timeslices", "minor_faults", "major_faults", "child_faults", "policy", "traits")
"""Not in psutil here: unknown, and 0."""

REST = {"rss_bytes", "known", "last_cpu"}
"""Compared otherwise, or not. psutil counts resident pages as they are (statm); the figure of stat lags by some dozens a CPU. What
is known differs by declaration (tests/contracts). Processes move to other CPUs at any time."""

BUSY = """
import sys, threading, time
held = [open("/dev/null") for _ in range(7)]
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("up", flush=True)
while sys.argv[1:]:
    until = time.process_time() + 0.01
    while time.process_time() < until:
        pass
    time.sleep(0.005)
    print("x" * 100, file=sys.stderr)
time.sleep(60)
"""


@pytest.fixture
def children() -> Iterator[tuple[int, int]]:
    """Pids of a process that does nothing, and of one that runs and writes."""
    calm, busy = (
        subprocess.Popen([sys.executable, "-S", "-c", BUSY, *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for more in ([], ["run"])
    )
    for child in (calm, busy):
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
    yield calm.pid, busy.pid
    for child in (calm, busy):
        child.kill()
        child.communicate()


def look(source: Source) -> Snapshot:
    return source.read(time.monotonic_ns(), time.time_ns(), ())


def rows(snapshot: Snapshot) -> dict[ProcId, dict[str, int]]:
    names = SAMPLE.names or ()
    return {ProcId(*row[:2]): dict(zip(names, row, strict=True)) for row in snapshot.table.tolist()}


def test_every_field_is_that_of_proc_or_named(children: tuple[int, int]) -> None:
    calm, busy = children
    assert {*SAME, *GROW, *STAND, *ABSENT, *REST} == set(SAMPLE.names or ())
    compared, grown = 0, set[str]()
    with closing(ProcSource(slow_every=1)) as proc, closing(PsutilSource(slow_every=1)) as ours:
        first = rows(look(ours))
        for _ in range(5):
            before, between, after = look(proc), look(ours), look(proc)
            low, found, high = rows(before), rows(between), rows(after)
            both = low.keys() & high.keys()
            assert both <= found.keys()
            for id_ in both:
                least, row, most = low[id_], found[id_], high[id_]
                compared += 1
                for name in SAME:
                    assert row[name] == least[name] or least[name] != most[name], (id_, name)
                for name, (below, above) in GROW.items():
                    if name == "cpu_ns" or least["known"] == most["known"] == row["known"] | 25:  # /proc knows three things more
                        assert least[name] - below <= row[name] <= most[name] + above, (id_, name, least, row, most)
                assert not any(row[name] for name in ABSENT), id_
                sizes = sorted((least["rss_bytes"], most["rss_bytes"]))
                assert 0.8 * sizes[0] - 512 * KIB <= row["rss_bytes"] <= 1.2 * sizes[1] + 512 * KIB, id_
                if before.identities[id_] == after.identities[id_]:
                    got, want = between.identities[id_], after.identities[id_]
                    assert (got.comm, got.program, got.uid, got.owner, got.cpus) == (
                        *(want.comm, want.program, want.uid, want.owner),
                        want.cpus,
                    )
                grown.update(name for name in GROW if row[name] > first.get(id_, row)[name])
            assert busy in {id_.pid for id_ in both}
            (still,) = (id_ for id_ in both if id_.pid == calm)
            assert [found[still][name] for name in STAND] == [high[still][name] for name in STAND] == [10, 2, ord("S")]
            hosts = (before.host, between.host, after.host)
            for cpu in zip(*(host.cpu_busy_ns for host in hosts), strict=True):
                assert sorted(cpu) == list(cpu)
            assert len({host.memory_total for host in hosts}) == 1
            assert before.uptime_ticks <= between.uptime_ticks <= after.uptime_ticks
            time.sleep(0.2)
    assert compared > 50
    assert {"cpu_ns", "write_chars"} <= grown


def test_a_process_that_has_ended_keeps_its_name_until_its_parent_has_waited_for_it() -> None:
    child = subprocess.Popen(["sleep", "60"])
    with closing(PsutilSource()) as source:
        look(source)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        snapshot = look(source)
        (id_,) = (id_ for id_ in snapshot.identities if id_.pid == child.pid)
        assert (rows(snapshot)[id_]["state"], rows(snapshot)[id_]["rss_bytes"]) == (ord("Z"), 0)
        assert snapshot.identities[id_].program == "sleep"
        child.wait()
        assert id_ not in look(source).identities


def test_kernel_threads_have_no_row_and_their_work_is_counted() -> None:
    with closing(PsutilSource()) as source:
        snapshot = look(source)
        kernel = {process.pid for process in psutil.process_iter() if process.pid == 2 or process.ppid() == 2}
        if not kernel or Path("/proc/2/comm").read_text() != "kthreadd\n":
            pytest.skip("no kernel threads are seen in this pid namespace")
        assert not kernel & {id_.pid for id_ in snapshot.identities}
        assert 0 < snapshot.host.kernel_ns <= look(source).host.kernel_ns


def test_what_it_recorded_trains_models_and_is_forecast(
    children: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "pids", lambda: [*children, os.getpid()])
    config = '[daemon]\nreader = "psutil"\ninterval = 0.05\n'
    observer = Observer(parse(config), Abilities(False, "", False), ProcId(os.getpid(), 0), None, None, None)
    writer = TraceWriter(tmp_path / "state", boot_id="", session="one", budget_bytes=1 << 24, interval=0.05)
    began, ticks = time.monotonic_ns(), []
    with closing(PsutilSource()) as source:
        for number in range(170):
            at = began + number * 50 * MS  # faster than that, so that the test takes less time
            snapshot = source.read(at, time.time_ns(), ())
            writer.append(snapshot)
            if number >= 155:
                ticks.append(observer.tick(snapshot, (), False))
            time.sleep(0.005)
    writer.close()
    os.kill(children[1], signal.SIGKILL)
    (file := tmp_path / "nicety.toml").write_text(config)
    file.chmod(0o600)
    command = [sys.executable, "-m", "nicety.training", "train", "--config", str(file), "--state-dir", str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert "169 ticks of 0.05 s" in done.stdout, done.stdout + done.stderr
    assert "demand model: refused" in done.stdout or "demand model: promoted" in done.stdout
    known = [
        forecast for forecast in ticks[-1].forecasts if forecast.metric == "cpu" and forecast.target.startswith("program python")
    ]
    assert known
    assert max(forecast.values[0][-1] for forecast in known) > 0.01
    assert all(group.wait == 0 for tick in ticks for group in tick.groups)
