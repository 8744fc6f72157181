"""The reader on psutil where psutil has less: a fake of it in the shape of macOS and FreeBSD. Linux is in tests/contracts."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nicety.models.features import rates
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Known, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.read import psutil_reader, reader
from nicety.scheduler.read.psutil_reader import PsutilSource

BOOT = 1_700_000_000.0


class GoneError(Exception):
    pass


class EndedError(GoneError):
    pass


class DeniedError(Exception):
    pass


class Machine(ModuleType):
    """A psutil with the names that it has on macOS."""

    NoSuchProcess, ZombieProcess, AccessDenied = GoneError, EndedError, DeniedError

    def __init__(self) -> None:
        super().__init__("psutil")
        self.processes: dict[int, dict[str, Any]] = {}
        self.Process = type("Process", (Handle,), {"machine": self})

    def add(self, pid: int, **facts: Any) -> None:
        self.processes[pid] = {
            "name": "worker",
            "started": BOOT + 10.5,
            "ppid": 1,
            "status": "sleeping",
            "nice": 0,
            "uids": (501, 501),
            "exe": f"/usr/local/bin/{facts.get('name', 'worker')}",
            "cmdline": [],
            "threads": 2,
            "cpu": 0.25,
            "fds": 7,
            "memory": SimpleNamespace(rss=4096, vms=8192, pfaults=30, pageins=4),
            "denied": (),
            "ended": False,
            **facts,
        }

    def pids(self) -> list[int]:
        return list(self.processes)

    def boot_time(self) -> float:
        return BOOT

    def cpu_times(self, percpu: bool) -> list[SimpleNamespace]:
        assert percpu
        return [
            SimpleNamespace(user=5.0, nice=1.0, system=2.0, idle=90.0),
            SimpleNamespace(user=1.0, nice=0.0, system=0.5, idle=9.0),
        ]

    def virtual_memory(self) -> SimpleNamespace:
        return SimpleNamespace(total=1 << 34, available=1 << 33)


class Handle:
    """psutil.Process: what is asked of it is looked up in the machine."""

    machine: Machine

    def __init__(self, pid: int) -> None:
        if pid not in self.machine.processes:
            raise GoneError(pid)
        self.pid, self.started = pid, self.machine.processes[pid]["started"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and (self.pid, self.started) == (other.pid, other.started)

    def __hash__(self) -> int:
        return hash((self.pid, self.started))

    def oneshot(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _fact(self, name: str) -> Any:
        facts = self.machine.processes[self.pid]
        if name in facts["denied"]:
            raise DeniedError(name)
        if facts["ended"] and name in ("cpu", "memory", "threads", "exe", "cmdline", "fds"):
            raise EndedError(self.pid)
        if isinstance(facts[name], Exception):
            raise facts[name]
        return facts[name]

    def create_time(self) -> Any:
        return self.started

    def name(self) -> Any:
        return self._fact("name")

    def ppid(self) -> Any:
        return self._fact("ppid")

    def status(self) -> Any:
        return self._fact("status")

    def nice(self) -> Any:
        return self._fact("nice")

    def exe(self) -> Any:
        return self._fact("exe")

    def cmdline(self) -> Any:
        return self._fact("cmdline")

    def num_threads(self) -> Any:
        return self._fact("threads")

    def memory_info(self) -> Any:
        return self._fact("memory")

    def num_fds(self) -> Any:
        return self._fact("fds")

    def uids(self) -> Any:
        real, effective = self._fact("uids")
        return SimpleNamespace(real=real, effective=effective, saved=effective)

    def cpu_times(self) -> Any:
        used = self._fact("cpu")
        return SimpleNamespace(user=used, system=used / 2, children_user=0.0, children_system=0.0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(psutil_reader, "psutil", made)
    monkeypatch.setattr(os, "getsid", lambda pid: pid // 10)
    return made


def look(source: PsutilSource, at: int = 1, *watched: int) -> Snapshot:
    workers = tuple(WorkerSample(ProcId(pid, 0), None, True) for pid in watched)
    return source.read(at, 1, (PoolSample("p", 1, 1, None, workers, None, None, ""),) if watched else ())


def row(snapshot: Snapshot, pid: int) -> dict[str, int]:
    (found,) = snapshot.table[snapshot.table["pid"] == pid].tolist()
    return dict(zip(SAMPLE.names or (), found, strict=True))


def test_a_row_has_what_there_is_and_marks_the_rest(machine: Machine) -> None:
    machine.add(40, name="postgres", nice=5)
    snapshot = look(PsutilSource())
    assert row(snapshot, 40) == {
        **dict.fromkeys(SAMPLE.names or (), 0),
        "pid": 40,
        "start_ticks": 1050,
        "ppid": 1,
        "session": 4,
        "cpu_ns": 375_000_000,
        "rss_bytes": 4096,
        "threads": 2,
        "minor_faults": 26,
        "major_faults": 4,
        "fds": 7,
        "state": ord("S"),
        "nice": 5,
        "known": int(Known.FDS),
    }
    identity = snapshot.identities[ProcId(40, 1050)]
    assert (identity.comm, identity.program, identity.uid, identity.cpus, identity.port) == ("postgres", "postgres", 501, (), 0)
    host = snapshot.host
    assert (host.cpu_busy_ns, host.memory_total, host.pressure_us) == ((8_000_000_000, 1_500_000_000), 1 << 34, None)


def test_page_faults_are_unknown_where_the_platform_counts_none(machine: Machine) -> None:
    machine.add(40, memory=SimpleNamespace(rss=4096, vms=8192))
    assert row(look(PsutilSource()), 40)["minor_faults"] == 0


def test_what_may_not_be_read_is_left_out_and_the_kernel_is_no_process(machine: Machine) -> None:
    machine.add(0, name="kernel_task")
    machine.add(40)
    machine.add(41, denied=("memory", "cpu"))
    machine.add(42, denied=("fds",), exe=DeniedError(), name="sshd")
    machine.add(43, name="idle", memory=SimpleNamespace(rss=0, vms=0), cpu=900.0)
    source = PsutilSource()
    snapshot = look(source)
    assert [id_.pid for id_ in snapshot.identities] == [40, 42]
    assert row(snapshot, 42)["known"] == 0
    assert snapshot.identities[ProcId(42, 1050)].program == "sshd"
    machine.processes[43]["cpu"] = 902.0
    assert look(source).host.kernel_ns == 3_000_000_000


def test_a_process_that_has_ended_keeps_its_counters_and_its_name(machine: Machine) -> None:
    machine.add(40, name="worker")
    machine.add(50, name="late", ended=True, status="zombie")
    source = PsutilSource()
    before = look(source)
    machine.processes[40].update(ended=True, status="zombie")
    after = look(source)
    assert row(after, 40) == row(before, 40) | {"rss_bytes": 0, "threads": 1, "state": ord("Z")}
    assert after.identities == before.identities
    assert (row(after, 50)["state"], row(after, 50)["cpu_ns"]) == (ord("Z"), 0)


def test_a_pid_with_another_start_is_another_process(machine: Machine) -> None:
    machine.add(40, cpu=50.0)
    source = PsutilSource()
    look(source)
    machine.add(40, started=BOOT + 99.0, cpu=0.5)
    snapshot = look(source)
    assert (list(snapshot.identities), row(snapshot, 40)["cpu_ns"]) == ([ProcId(40, 9900)], 750_000_000)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ValueError("an odd text"), RuntimeError("empty")])
def test_an_error_that_says_nothing_of_the_process_keeps_its_row(machine: Machine, error: Exception) -> None:
    machine.add(40)
    source = PsutilSource()
    before = look(source)
    machine.processes[40]["memory"] = error
    machine.add(41, memory=error)
    after = look(source)
    assert (row(after, 40), list(after.identities)) == (row(before, 40), list(before.identities))


def test_what_is_expensive_is_read_in_turn_and_of_workers_each_time(machine: Machine) -> None:
    machine.add(40)
    machine.add(41)
    source = PsutilSource(slow_every=5)
    look(source)
    for pid in (40, 41):
        machine.processes[pid]["fds"] = 8
    found = [look(source, number, 41) for number in range(1, 6)]
    assert [row(snapshot, 41)["fds"] for snapshot in found] == [8] * 5
    assert [row(snapshot, 40)["fds"] for snapshot in found] == [7, 7, 7, 7, 8]


def test_a_new_name_or_new_rights_are_seen_at_once_and_an_exec_that_kept_its_name_in_turn(machine: Machine) -> None:
    machine.add(60, name="python3.11", cmdline=["python3.11", "first.py"])
    machine.add(61, name="login")
    source = PsutilSource(slow_every=1)
    first = look(source)
    assert first.identities[ProcId(60, 1050)].program == "python3 first.py"
    machine.processes[60]["cmdline"] = ["python3.11", "second.py"]
    machine.processes[61].update(name="sh", exe="/bin/sh", uids=(501, 0))
    second = look(source)
    assert (second.identities[ProcId(61, 1050)].program, second.identities[ProcId(61, 1050)].owner) == ("sh", 501)
    names = [look(source).identities[ProcId(60, 1050)].program for _ in range(6)]
    assert names[-1] == "python3 second.py"


def test_a_parent_that_has_ended_is_replaced(machine: Machine) -> None:
    machine.add(1, name="launchd")
    machine.add(30)
    machine.add(40, ppid=30)
    source = PsutilSource(slow_every=100)
    assert row(look(source), 40)["ppid"] == 30
    del machine.processes[30]
    machine.processes[40]["ppid"] = 1
    assert row(look(source), 40)["ppid"] == 1


def test_hostile_names_are_text(machine: Machine) -> None:
    machine.add(40, name="\x1b[31m\nx" * 900, exe="", cmdline=["\x1b]0;x\x07", "[red]"])
    identity = look(PsutilSource()).identities[ProcId(40, 1050)]
    assert identity.comm.isprintable()
    assert identity.program.isprintable()
    assert len(identity.program) < 100


def test_rates_of_two_reads_have_no_wait_and_unknown_timeslices(machine: Machine) -> None:
    machine.add(40, cpu=1.0)
    source = PsutilSource()
    before = look(source, 0)
    machine.processes[40]["cpu"] = 1.2
    after = look(source, 1_000_000_000)
    rate = rates(before.table, after.table, 0, 1_000_000_000, before.uptime_ticks)
    assert rate.cpu.tolist() == pytest.approx([0.3])
    assert (rate.wait.tolist(), rate.timeslices.tolist()) == ([0.0], pytest.approx([float("nan")], nan_ok=True))


@pytest.mark.parametrize(
    ("wanted", "platform", "serves"),
    [("auto", "linux", "proc"), ("auto", "darwin", "psutil"), ("auto", "freebsd14", "psutil"), ("psutil", "linux", "psutil")],
)
def test_proc_serves_on_linux_unless_psutil_is_wanted(
    monkeypatch: pytest.MonkeyPatch, wanted: str, platform: str, serves: str
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    assert reader.serving(wanted) == serves
