"""The reader on trees in the form of procfs: odd formats, thread bookkeeping, paces, names."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Known, PoolSample, Snapshot, Trait, WorkerSample
from nicety.scheduler.read.host import USER_HZ, HostReader, MachineError
from nicety.scheduler.read.identity import cgroup_and_unit, program
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.text import printable

TICK_NS = 1_000_000_000 // USER_HZ
COUNTERS = (
    *("cpu_ns", "wait_ns", "timeslices", "minor_faults", "major_faults", "child_faults", "child_cpu_ns"),
    *("read_chars", "write_chars", "read_bytes", "write_bytes"),
)

STAT = """\
cpu  1 2 3 4 5 6 7 8 9 10
cpu0 100 20 30 4000 500 6 7 80 9 10
cpu1 1 0 0 0 0 0 0 0 0 0
intr 1 2 3
ctxt 7
processes 4711
procs_running 3
"""


class Tree:
    """A directory in the form of procfs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        (root / "stat").write_text(STAT)
        (root / "meminfo").write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n")
        (root / "uptime").write_text("123.45 99.00\n")
        (root / "self").mkdir(exist_ok=True)

    def process(
        self,
        pid: int,
        *,
        comm: bytes = b"app",
        state: str = "S",
        ppid: int = 1,
        flags: int = 0x400000,
        ticks: int = 0,
        start: int = 500,
        threads: Mapping[int, str] | None = None,
        schedstat: str | None = "0 0 0",
        io: int | None = None,
        last_cpu: int = 1,
        terminal: tuple[int, int] = (0, -1),
    ) -> None:
        """Write a process, over an earlier one of this pid. `threads`: schedstat by tid; `io`: a figure for all four counters;
        `terminal`: device, and the process group in its foreground (that of the process is 7)."""
        here = self.root / str(pid)
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        threads = threads or {}
        numbers = [ppid, 7, 77, *terminal, flags, 11, 33, 22, 0, ticks, 0, 4, 5, 20, -5, max(1, len(threads)), 0, start, 9999, 3]
        numbers += [2**64 - 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, last_cpu, 0, 3, 0, 0, 0, 1, 1, 1, 4242, 1, 1, 1, 0]
        (here / "stat").write_bytes(b"%d (%s) %s " % (pid, comm, state.encode()) + " ".join(map(str, numbers)).encode() + b"\n")
        (here / "cgroup").write_text("1:cpu,cpuacct:/batch\n0::/\n")
        (here / "status").write_text("Name:\tapp\nUid:\t0\t0\t0\t0\n")
        (here / "cmdline").write_bytes(b"app\0")
        (here / "fd").mkdir()
        for fd in range(3):
            (here / "fd" / str(fd)).symlink_to("/dev/null")
        if schedstat is not None:
            (here / "schedstat").write_text(threads.get(pid, schedstat) + "\n")
        for tid, text in threads.items():
            (here / "task" / str(tid)).mkdir(parents=True)
            (here / "task" / str(tid) / "schedstat").write_text(text + "\n")
        if io is not None:
            self.io(pid, io)

    def hold(self, pid: int, fd: int, link: str) -> None:
        """Give a process a descriptor, in place of one with this number."""
        path = self.root / str(pid) / "fd" / str(fd)
        path.unlink(missing_ok=True)
        path.symlink_to(link)

    def listening(self, pid: int, **tables: str) -> None:
        """Write the socket tables around a process; all others are empty."""
        here = self.root / str(pid) / "net"
        here.mkdir(exist_ok=True)
        for name in ("tcp", "tcp6", "udp", "udp6", "unix"):
            (here / name).write_text("heading\n" + tables.get(name, ""))

    def io(self, pid: int, value: int) -> None:
        names = ("rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes")
        (self.root / str(pid) / "io").write_text("".join(f"{name}: {value}\n" for name in names))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "proc")


@contextmanager
def reading(tree: Tree, slow_every: int = 3) -> Iterator[ProcSource]:
    """A source that opens files at each read: in a plain directory, an open file that was removed still has its old text."""
    source = ProcSource(tree.root, slow_every=slow_every)
    source._budget = 0
    yield source
    source.close()


@pytest.fixture
def source(tree: Tree) -> Iterator[ProcSource]:
    with reading(tree) as source:
        yield source


def row(snapshot: Snapshot, pid: int) -> dict[str, int]:
    index = list(snapshot.table["pid"]).index(pid)
    return dict(zip(SAMPLE.names or (), snapshot.table[index].tolist(), strict=True))


def pool_of(*pids: int) -> tuple[PoolSample, ...]:
    workers = tuple(WorkerSample(ProcId(pid, 500), None, True) for pid in pids)
    return (PoolSample("web", len(pids), len(pids), None, workers, None, None, ""),)


# --- rows ---------------------------------------------------------------------------------------------------------------------


def test_every_field_is_where_proc_pid_stat_says(tree: Tree, source: ProcSource) -> None:
    tree.process(42, state="R", ppid=9, start=777, schedstat="5000000000 6 7", io=1000, ticks=1)
    snapshot = source.read(1, 2, ())
    assert row(snapshot, 42) == {
        "pid": 42,
        "start_ticks": 777,
        "ppid": 9,
        "session": 77,
        "cpu_ns": 5_000_000_000,
        "wait_ns": 6,
        "timeslices": 7,
        "minor_faults": 11,
        "major_faults": 22,
        "child_faults": 33,
        "child_cpu_ns": 9 * TICK_NS,
        "rss_bytes": 3 * mmap.PAGESIZE,
        "read_chars": 1000,
        "write_chars": 1000,
        "read_bytes": 1000,
        "write_bytes": 1000,
        "fds": 3,
        "threads": 1,
        "last_cpu": 1,
        "state": ord("R"),
        "nice": -5,
        "policy": 3,
        "known": Known.WAIT | Known.IO | Known.FDS | Known.SOCKETS | Known.KEYS,
        "traits": 0,
    }
    assert (snapshot.at, snapshot.wall, snapshot.uptime_ticks) == (1, 2, int(123.45 * USER_HZ))


@pytest.mark.parametrize("comm", [b"a b", b")", b"(", b"x) R 1 1 1 (", b"w\n\x1b]0;x\x07", b"\xff\xfe", b""])
def test_a_name_cannot_forge_other_fields(tree: Tree, source: ProcSource, comm: bytes) -> None:
    tree.process(42, comm=comm, state="S", ppid=9)
    snapshot = source.read(1, 1, ())
    assert (row(snapshot, 42)["state"], row(snapshot, 42)["ppid"]) == (ord("S"), 9)
    assert snapshot.identities[ProcId(42, 500)].comm.isprintable()


def test_kernel_threads_are_left_out_by_their_flag(tree: Tree, source: ProcSource) -> None:
    tree.process(2, comm=b"kthreadd", flags=0x208040, ppid=0)
    tree.process(30, comm=b"kworker/0:1", flags=0x4208060, ppid=2)
    tree.process(31, comm=b"app", ppid=2)  # in a container pid 2 may be anything
    assert list(source.read(1, 1, ()).table["pid"]) == [31]


def test_the_pid_of_a_kernel_thread_may_become_a_process(tree: Tree, source: ProcSource) -> None:
    tree.process(30, flags=0x4208060, ppid=2)
    assert len(source.read(1, 1, ()).table) == 0
    tree.process(30)
    assert any(len(source.read(at, 1, ()).table) for at in range(2, 5)), "not seen within `slow_every` ticks"


def test_the_table_is_sorted_and_has_an_identity_for_each_row(tree: Tree, source: ProcSource) -> None:
    for pid in (900, 1000, 8, 77):
        tree.process(pid, start=pid + 1)
    snapshot = source.read(1, 1, ())
    assert list(snapshot.table["pid"]) == [8, 77, 900, 1000]
    assert list(snapshot.identities) == [ProcId(pid, pid + 1) for pid in (8, 77, 900, 1000)]
    assert snapshot.table.dtype == SAMPLE


def test_a_process_in_an_unknown_form_spoils_only_itself(tree: Tree, source: ProcSource) -> None:
    tree.process(10)
    tree.process(11)
    tree.process(12, last_cpu=70_000)  # more than the table can hold
    (tree.root / "10" / "stat").write_text("10 (app")
    (tree.root / "13").mkdir()
    assert list(source.read(1, 1, ()).table["pid"]) == [11]
    tree.process(10)
    tree.process(12)
    seen = [set(source.read(at, 1, ()).table["pid"].tolist()) for at in range(2, 6)]
    assert seen[-1] == {10, 11, 12}
    (tree.root / "11" / "stat").write_text("")
    assert set(source.read(6, 1, ()).table["pid"].tolist()) == {10, 12}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO, errno.EINTR])
def test_a_read_that_fails_for_now_says_nothing_about_the_process(
    tree: Tree, source: ProcSource, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tree.process(42, schedstat="100 10 1")
    before = row(source.read(1, 1, ()), 42)
    tree.process(42, schedstat="900 90 9")
    tree.process(43)
    real = source._pread

    def fails(fd: int, path: str, size: int) -> tuple[bytes, int]:
        raise OSError(number, "injected", path)

    monkeypatch.setattr(source, "_pread", fails)
    during = source.read(2, 2, ())
    assert during.table["pid"].tolist() == [42]
    assert row(during, 42) == before
    monkeypatch.setattr(source, "_pread", real)
    after = source.read(3, 3, ())
    assert after.table["pid"].tolist() == [42, 43], "the new one too, at once"
    assert row(after, 42)["cpu_ns"] == 900


def test_a_process_that_is_closed_to_us_from_now_on_is_left_out(
    tree: Tree, source: ProcSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.process(42)
    source.read(1, 1, ())
    monkeypatch.setattr(source, "_pread", Mock(side_effect=PermissionError(errno.EACCES, "injected")))
    assert source.read(2, 2, ()).table["pid"].tolist() == []


def test_a_pid_with_another_start_is_another_process(tree: Tree, source: ProcSource) -> None:
    tree.process(42, start=500, schedstat="900 900 9")
    before = source.read(1, 1, ())
    tree.process(42, comm=b"other", start=600, schedstat="100 100 1")
    after = source.read(2, 1, ())
    assert list(before.identities) == [ProcId(42, 500)]
    assert list(after.identities) == [ProcId(42, 600)]
    assert after.identities[ProcId(42, 600)].comm == "other"
    assert [row(after, 42)[name] for name in ("cpu_ns", "wait_ns", "timeslices")] == [100, 100, 1]


def test_an_earlier_snapshot_does_not_change(tree: Tree, source: ProcSource) -> None:
    tree.process(42, schedstat="1 1 1")
    before = source.read(1, 1, ())
    table, identities = before.table.copy(), dict(before.identities)
    shutil.rmtree(tree.root / "42")
    tree.process(43)
    source.read(2, 1, ())
    assert (before.table == table).all()
    assert dict(before.identities) == identities


# --- threads ------------------------------------------------------------------------------------------------------------------


def test_threads_are_summed_and_exited_ones_stay_counted(tree: Tree, source: ProcSource) -> None:
    tree.process(42, threads={42: "100 10 1", 43: "200 20 2", 44: "300 30 3"})
    first = row(source.read(1, 1, ()), 42)
    assert [first[name] for name in ("cpu_ns", "wait_ns", "timeslices", "threads")] == [600, 60, 6, 3]
    tree.process(42, threads={42: "101 10 1", 45: "1000 100 10"})
    after = row(source.read(2, 1, ()), 42)
    assert [after[name] for name in ("cpu_ns", "wait_ns", "timeslices", "threads")] == [1601, 160, 16, 2]


def test_without_schedstat_cpu_time_is_that_of_stat_and_wait_is_unknown(tree: Tree, source: ProcSource) -> None:
    tree.process(42, schedstat=None, ticks=7)
    got = row(source.read(1, 1, ()), 42)
    assert got["cpu_ns"] == 7 * TICK_NS
    assert not got["known"] & Known.WAIT


def test_cpu_time_is_never_less_than_that_of_the_whole_process(tree: Tree, source: ProcSource) -> None:
    tree.process(42, schedstat=f"{2 * TICK_NS} 0 1", ticks=9)  # seven ticks were used by threads that came and went
    assert row(source.read(1, 1, ()), 42)["cpu_ns"] == 9 * TICK_NS


thread_sets = st.dictionaries(st.integers(42, 46), st.tuples(*[st.integers(0, 10**6)] * 3), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(history=st.lists(st.tuples(thread_sets, st.integers(0, 5)), min_size=2, max_size=5))
def test_counters_never_go_back_whatever_threads_come_and_go(history: list[tuple[dict[int, tuple[int, int, int]], int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        tree, seen = Tree(Path(directory) / "proc"), []
        with reading(tree, slow_every=2) as source:
            for at, (threads, ticks) in enumerate(history):
                text = {tid: " ".join(map(str, counters)) for tid, counters in threads.items()}
                tree.process(42, threads={42: "0 0 0"} | text, ticks=ticks, io=at)
                seen.append(row(source.read(at, at, ()), 42))
    for before, after in itertools.pairwise(seen):
        assert all(before[name] <= after[name] for name in COUNTERS)
    last = [sum(counters[index] for counters in history[-1][0].values()) for index in range(3)]
    assert all(seen[-1][name] >= least for name, least in zip(("cpu_ns", "wait_ns", "timeslices"), last, strict=True))


# --- what a process serves ------------------------------------------------------------------------------------------------------

TCP = "   0: 0100007F:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0 0 10 0\n"
UDP = "  10: 00000000:0035 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 2 0 0\n"
UNIX = "0000000000000000: 00000002 00000000 {flags} 0001 {state} {inode} {path}\n"
ANY = Trait.SERVES | Trait.SERVES_LOCALLY


@pytest.mark.parametrize(
    ("table", "text", "traits"),
    [
        ("tcp", TCP.format(state="0A", inode=900), Trait.SERVES),
        ("tcp6", TCP.format(state="0A", inode=900), Trait.SERVES),
        ("tcp", TCP.format(state="0A", inode=901) + TCP.format(state="01", inode=900), 0),  # a connection
        ("tcp", TCP.format(state="0A", inode=901), 0),  # another's
        ("udp", UDP.format(state="07", inode=900), Trait.SERVES),
        ("udp6", UDP.format(state="07", inode=900), Trait.SERVES),
        ("udp", UDP.format(state="01", inode=900), 0),  # has a peer
        ("unix", UNIX.format(flags="00010000", state="01", inode=900, path="/run/my app\udcff"), Trait.SERVES_LOCALLY),
        ("unix", UNIX.format(flags="00000000", state="03", inode=900, path="/run/x"), 0),  # a connection
    ],
)
def test_a_process_serves_what_listens_among_its_descriptors(
    tree: Tree, source: ProcSource, table: str, text: str, traits: int
) -> None:
    tree.process(42)
    tree.hold(42, 2, "socket:[900]")
    tree.listening(42)
    (tree.root / "42" / "net" / table).write_bytes(b"heading\n" + text.encode(errors="surrogateescape"))
    got = row(source.read(1, 1, ()), 42)
    assert got["known"] & Known.SOCKETS
    assert got["traits"] == traits
    listens = table.startswith("tcp") and traits == Trait.SERVES
    assert source.read(2, 1, ()).identities[ProcId(42, 500)].port == (8080 if listens else 0)


def test_what_a_process_serves_is_unknown_where_the_tables_cannot_be_read(tree: Tree, source: ProcSource) -> None:
    tree.process(42)
    tree.hold(42, 2, "socket:[900]")
    tree.process(43)
    snapshot = source.read(1, 1, ())
    assert not row(snapshot, 42)["known"] & Known.SOCKETS
    assert row(snapshot, 43)["known"] & Known.SOCKETS, "has no socket, so no table matters"


def test_a_machine_without_ipv6_has_no_sockets_of_it(tree: Tree, source: ProcSource) -> None:
    tree.process(42)
    tree.hold(42, 2, "socket:[900]")
    tree.listening(42, tcp=TCP.format(state="0A", inode=900))
    for name in ("tcp6", "udp6"):
        (tree.root / "42" / "net" / name).unlink()
    assert row(source.read(1, 1, ()), 42)["traits"] == Trait.SERVES


@pytest.mark.parametrize(("age", "within"), [(5, 1), (100, 3)], ids=["young", "old"])
def test_one_that_begins_to_listen_is_found_at_once_if_it_is_young_and_else_on_its_slow_turn(
    tree: Tree, source: ProcSource, age: int, within: int
) -> None:
    start = int((123.45 - age) * USER_HZ)
    tree.process(42, start=start)
    tree.listening(42, tcp=TCP.format(state="0A", inode=900))
    assert not row(source.read(0, 1, ()), 42)["traits"] & ANY
    tree.hold(42, 3, "socket:[900]")
    seen = [bool(row(source.read(at, 1, ()), 42)["traits"] & Trait.SERVES) for at in range(within)]
    assert seen[-1]


@pytest.mark.parametrize(("age", "within"), [(5, 3), (100, 18)], ids=["young", "old"])
def test_an_exchange_of_one_descriptor_for_another_is_found_on_a_slow_turn_or_the_sixth(
    tree: Tree, source: ProcSource, age: int, within: int
) -> None:
    tree.process(42, start=int((123.45 - age) * USER_HZ))
    tree.listening(42, tcp=TCP.format(state="0A", inode=900))
    source.read(0, 1, ())
    tree.hold(42, 2, "socket:[900]")
    seen = [row(source.read(at, 1, ()), 42)["traits"] for at in range(within)]
    assert seen[-1] == Trait.SERVES
    tree.hold(42, 2, "/dev/null")
    seen = [row(source.read(at, 1, ()), 42)["traits"] for at in range(within)]
    assert seen[-1] == 0


@pytest.mark.parametrize("fd", [0, 4, 1000])
def test_a_socket_is_found_whatever_its_number(tree: Tree, source: ProcSource, fd: int) -> None:
    tree.process(42)
    tree.hold(42, fd, "socket:[900]")
    tree.listening(42, tcp=TCP.format(state="0A", inode=900))
    assert row(source.read(1, 1, ()), 42)["traits"] == Trait.SERVES


def test_an_exec_is_looked_through_at_once(tree: Tree, source: ProcSource) -> None:
    tree.process(42)
    source.read(0, 1, ())
    tree.process(42, comm=b"served")
    tree.hold(42, 2, "socket:[900]")
    tree.listening(42, tcp=TCP.format(state="0A", inode=900))
    assert row(source.read(1, 1, ()), 42)["traits"] == Trait.SERVES


def test_only_the_first_descriptors_of_a_process_are_looked_at(tree: Tree, source: ProcSource) -> None:
    tree.process(42)
    for fd in range(3, 400):
        tree.hold(42, fd, "socket:[901]")
    tree.hold(42, 5, "socket:[900]")
    tree.listening(42, tcp=TCP.format(state="0A", inode=900))
    looked: list[str] = []
    link = os.readlink

    def counted(path: str) -> str:
        looked.append(path)
        return link(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "readlink", counted)
        source.read(1, 1, ())
    assert sum("/42/fd/" in path for path in looked) == 256 + 1, "and its standard input"


@pytest.mark.parametrize(
    ("terminal", "traits"),
    [((0, -1), 0), ((34816, 7), Trait.TERMINAL), ((34816, 8), 0), ((34816, -1), 0), ((0, 7), 0)],
    ids=["none", "in front", "behind", "nobody in front", "no terminal"],
)
def test_in_the_foreground_of_a_terminal_is_the_group_that_has_it(
    tree: Tree, source: ProcSource, terminal: tuple[int, int], traits: int
) -> None:
    tree.process(42, terminal=terminal)
    assert row(source.read(1, 1, ()), 42)["traits"] == traits


# --- paces --------------------------------------------------------------------------------------------------------------------


def test_io_of_a_pool_is_read_each_tick_and_of_others_each_few(tree: Tree, source: ProcSource) -> None:
    pids = (30, 31, 32, 33)
    for pid in pids:
        tree.process(pid, io=0)
    seen: dict[int, list[int]] = {pid: [] for pid in pids}
    for tick in range(9):
        for pid in pids:
            tree.io(pid, tick)
        snapshot = source.read(tick, 1, pool_of(30))
        for pid in pids:
            assert row(snapshot, pid)["known"] & Known.IO
            seen[pid].append(row(snapshot, pid)["read_chars"])
    assert seen[30] == list(range(9))
    for pid in pids[1:]:
        assert seen[pid] == sorted(seen[pid])
        assert len(set(seen[pid])) <= 4, "slow counters were read too often"
        assert seen[pid][-1] >= 6, "slow counters were not read"
    assert len({tuple(seen[pid]) for pid in pids[1:]}) == 3, "all were read at the same ticks"


def test_unknown_io_is_no_zero(tree: Tree, source: ProcSource) -> None:
    tree.process(42)
    got = row(source.read(1, 1, pool_of(42)), 42)
    assert not got["known"] & Known.IO
    tree.io(42, 5)
    assert row(source.read(2, 1, pool_of(42)), 42)["known"] & Known.IO


def test_a_move_of_what_runs_to_another_cgroup_is_seen_on_its_next_slow_turn(tree: Tree, source: ProcSource) -> None:
    tree.process(42)
    assert source.read(0, 1, ()).identities[ProcId(42, 500)].cgroup == "/batch"
    (tree.root / "42" / "cgroup").write_text("1:cpu:/elsewhere\n")
    groups = [source.read(at, 1, ()).identities[ProcId(42, 500)].cgroup for at in range(3)]
    assert groups[-1] == "/elsewhere"


# --- names --------------------------------------------------------------------------------------------------------------------

PYTHON = "/usr/bin/python3.11"


@pytest.mark.parametrize(
    ("exe", "comm", "cmdline", "name"),
    [
        ("/usr/sbin/nginx", "nginx", "nginx: worker process", "nginx"),
        ("/usr/bin/app (deleted)", "app", "app", "app"),
        ("/memfd:sealed (deleted)", "tool", "tool", "tool"),
        (None, "postgres", "postgres", "postgres"),
        (PYTHON, "python3", "python3\0worker.py\0--token=s3cret", "python3 worker.py"),
        (PYTHON, "python3", "python3\0-u\0/srv/app/worker.py", "python3 worker.py"),
        (PYTHON, "python3", "python3\0-m\0celery\0worker", "python3 -m celery"),
        (PYTHON, "python3", "python3\0-um\0celery", "python3 -m celery"),
        (PYTHON, "python3", "python3\0-Wignore\0-X\0dev\0worker.py", "python3 worker.py"),
        (PYTHON, "python3", "python3\0-c\0password='s3cret'", "python3 -c"),
        (PYTHON, "python3", "python3\0-Ic\0password='s3cret'", "python3 -c"),
        (PYTHON, "python3", "python3\0-", "python3"),
        (PYTHON, "python3", "python3", "python3"),
        (PYTHON, "python3", "", "python3"),
        (PYTHON, "gunicorn", "gunicorn: worker [app]\0\0\0", "python3 gunicorn"),
        (PYTHON, "gunicorn: maste", "gunicorn: master [app]\0\0\0", "python3 gunicorn"),
        (PYTHON, ": odd", "\0\0\0", "python3 : odd"),
        (PYTHON, "python3", "python3\0/srv/w\n\x1b[2Jx.py", "python3 w\\x0a\\x1b[2Jx.py"),
        ("/usr/bin/pypy3.10", "pypy3", "pypy3\0job.py", "pypy3 job.py"),
        ("/usr/bin/perl", "perl", "perl\0-Mfeature=say\0-w\0report.pl\0s3cret", "perl report.pl"),
        ("/usr/bin/perl", "perl", "perl\0-ne\0print if /s3cret/", "perl -e"),
        ("/usr/bin/ruby3.1", "ruby3.1", "ruby\0-r\0json\0bin/job", "ruby job"),
        ("/usr/bin/node", "node", "node\0--max-old-space-size=99\0--require\0./s3cret.js\0server.js", "node server.js"),
        ("/usr/bin/node", "node", "node\0-e\0s3cret()", "node -e"),
        ("/usr/bin/bash", "bash", "-bash", "bash"),
        ("/usr/bin/bash", "bash", "bash\0-lc\0curl -H s3cret", "bash -c"),
        ("/usr/bin/bash", "bash", "bash\0-o\0pipefail\0/opt/run.sh\0s3cret", "bash run.sh"),
        ("/usr/bin/bash", "bash", "bash\0/dev/fd/63", "bash"),
        ("/usr/bin/dash", "nightly", "/bin/sh\0/etc/cron.daily/nightly", "dash nightly"),
        ("/usr/bin/java", "java", "java\0-Dkey=s3cret\0-cp\0lib/*\0org.example.Main\0x", "java org.example.Main"),
        ("/usr/bin/java", "java", "java\0-Xmx1g\0-jar\0/opt/app/server.jar", "java server.jar"),
    ],
)
def test_a_program_is_named_by_its_script_and_by_no_other_argument(exe: str | None, comm: str, cmdline: str, name: str) -> None:
    got = program(exe, comm, cmdline.encode())
    assert got == name
    assert "s3cret" not in got


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=6))
def test_any_command_line_gives_a_printable_name(arguments: list[str]) -> None:
    for interpreter in ("python3", "perl", "node", "bash", "java", "php"):
        got = program(f"/usr/bin/{interpreter}", interpreter, "\0".join([interpreter, *arguments]).encode())
        assert got.startswith(interpreter)
        assert got.isprintable()
        assert len(got) < 400


CONTAINER = "3f9a" * 16


@pytest.mark.parametrize(
    ("text", "cgroup", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "/system.slice/nginx.service", "nginx.service"),
        ("4:cpu,cpuacct:/batch/jobs\n0::/system.slice/x.service\n", "/batch/jobs", "x.service"),
        ("9:name=systemd:/system.slice/web.service\n1:cpu:/\n0::/\n", "/", "web.service"),
        ("3:cpuset:/\n2:cpuacct:/wrong\n1:cpu:/\n0::/right\n", "/", ""),
        ("2:cpuacct:/wrong\n0::/right\n", "/right", ""),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        (f"0::/docker/{CONTAINER}\n", f"/docker/{CONTAINER}", "3f9a3f9a3f9a"),
        (f"0::/system.slice/docker-{CONTAINER}.scope\n", f"/system.slice/docker-{CONTAINER}.scope", "3f9a3f9a3f9a"),
        (f"0::/kubepods/burstable/pod1/{CONTAINER}\n", f"/kubepods/burstable/pod1/{CONTAINER}", "3f9a3f9a3f9a"),
        (f"0::/system.slice/docker-{CONTAINER}.scope/system.slice/db.service\n", None, "db.service"),
        ("0::/lxc.payload.build1/init.scope\n", "/lxc.payload.build1/init.scope", "init.scope"),
        ("0::/lxc.payload.build1\n", "/lxc.payload.build1", "build1"),
        ("5:memory:/box/0123456789abcdef0123456789abcdef\n1:cpu:/\n", "/", ""),
        ("0::/gone.service (deleted)\n", "/gone.service", "gone.service"),
        ("0::/a:b/c\x1b.service\n", "/a:b/c\\x1b.service", "c\\x1b.service"),
        ("", "/", ""),
        ("nonsense\n", "/", ""),
    ],
)
def test_the_unit_is_found_on_any_line_and_the_path_is_that_of_cpu(text: str, cgroup: str | None, unit: str) -> None:
    got = cgroup_and_unit(text.encode())
    assert got[1] == unit
    assert cgroup is None or got[0] == cgroup


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40)))
def test_nothing_that_a_terminal_obeys_gets_through(raw: bytes | str) -> None:
    assert printable(raw).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=40))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text == printable(text.encode())


def test_bidirectional_and_c1_controls_are_written_out() -> None:
    assert printable("a\u202eb\u2066c\x9b\x7f\u200f") == "a\\u202eb\\u2066c\\x9b\\x7f\\u200f"


# --- the machine --------------------------------------------------------------------------------------------------------------


def test_busy_is_all_but_idle_iowait_and_steal(tree: Tree) -> None:
    reader = HostReader(tree.root)
    host = reader.read()
    assert host.cpu_busy_ns == ((100 + 20 + 30 + 6 + 7) * TICK_NS, 1 * TICK_NS)
    assert (host.memory_total, host.memory_available) == (1000 * 1024, 400 * 1024)
    assert host.pressure_us is None
    assert host.forks == 4711
    assert host.steal_ns == 80 * TICK_NS
    assert host.kernel_ns == 13 * TICK_NS
    reader.close()


def test_a_machine_with_many_cpus_is_read_to_the_last(tree: Tree) -> None:
    lines = [f"cpu{cpu} {cpu} 0 0 0 0 0 0 0 0 0" for cpu in range(300)]
    (tree.root / "stat").write_text("\n".join(["cpu  0 0 0 0 0 0 0 0 0 0", *lines, "intr 0"]))
    reader = HostReader(tree.root)
    assert reader.read().cpu_busy_ns == tuple(cpu * TICK_NS for cpu in range(300))
    reader.close()


def test_pressure_is_the_total_of_some(tree: Tree) -> None:
    (tree.root / "pressure").mkdir()
    for number, name in enumerate(("cpu", "memory", "io")):
        text = f"some avg10=1.00 avg60=0.00 avg300=0.00 total={number + 5}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=99\n"
        (tree.root / "pressure" / name).write_text(text)
    reader = HostReader(tree.root)
    assert reader.read().pressure_us == (5, 6, 7)
    reader.close()


@pytest.mark.parametrize(("name", "text"), [("stat", "intr 1"), ("meminfo", "MemTotal: 5 kB"), ("uptime", "soon"), ("stat", None)])
def test_what_is_no_procfs_is_refused_by_name(tree: Tree, name: str, text: str | None) -> None:
    (tree.root / name).unlink()
    if text is not None:
        (tree.root / name).write_text(text)
    with pytest.raises(MachineError, match=f"{tree.root}/{name}: .*procfs"):
        ProcSource(tree.root)


@pytest.mark.parametrize(("text", "pid"), [("0.08 0.02 0.01 2/89 26052\n", 26052), ("0.08 0.02\n", None), (None, None)])
def test_the_newest_pid_is_the_last_of_loadavg(tree: Tree, text: str | None, pid: int | None) -> None:
    if text is not None:
        (tree.root / "loadavg").write_text(text)
    host = HostReader(tree.root)
    assert host.newest_pid() == pid
    host.close()
