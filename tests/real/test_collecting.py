"""The reader on real processes of its own: values beside psutil's, threads, zombies, exec, reuse, sockets, descriptors, rights."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from nicety.models.anomaly.lifecycle import CHILD_FAULTS
from nicety.models.features import rates
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, Identity, Known, PoolSample, Snapshot, Trait, WorkerSample
from nicety.scheduler.read.proc import ProcSource

DEADLINE = 20.0  # seconds for anything that a loaded machine may delay
CAN_SETUID, CAN_UNSHARE = 7, 21  # CAP_SETUID, CAP_SYS_ADMIN


def needs(bit: int, why: str) -> pytest.MarkDecorator:
    """Skips a test where this process lacks a capability."""
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return pytest.mark.skipif(not int(effective.split()[1], 16) >> bit & 1, reason=why)


@pytest.fixture
def source() -> Iterator[ProcSource]:
    source = ProcSource()
    yield source
    source.close()


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process of ours with pipes; ended on leaving."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def python(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python child that obeys lines: each line it reads is run, and answered by a line when done."""
    loop = "\nimport sys\nfor line in sys.stdin:\n    exec(line)\n    print('done', flush=True)\n"
    with running(sys.executable, "-u", "-c", textwrap.dedent(code) + loop, *arguments) as process:
        tell(process, "pass")
        yield process


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"
    until(lambda: Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"S")


def read(source: ProcSource, *watched: int) -> Snapshot:
    workers = tuple(WorkerSample(ProcId(pid, 0), None, True) for pid in watched)
    pools = (PoolSample("test", len(watched), len(watched), None, workers, None, None, ""),) if watched else ()
    return source.read(time.monotonic_ns(), time.time_ns(), pools)


def rows(snapshot: Snapshot, pid: int) -> list[dict[str, int]]:
    return [dict(zip(SAMPLE.names or (), row.tolist(), strict=True)) for row in snapshot.table[snapshot.table["pid"] == pid]]


def row(snapshot: Snapshot, pid: int) -> dict[str, int]:
    (found,) = rows(snapshot, pid)
    return found


def identity(snapshot: Snapshot, pid: int) -> Identity:
    return snapshot.identities[ProcId(pid, row(snapshot, pid)["start_ticks"])]


def until(what: Callable[[], object]) -> None:
    """Poll until `what` holds."""
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.01)


BURN = "import time, threading\ndef burn(ms):\n    end = time.thread_time() + ms / 1000\n    while time.thread_time() < end: pass\n"


def test_values_are_those_of_psutil(source: ProcSource) -> None:
    with python(BURN + "import os; held = [os.open('/dev/null', 0) for _ in range(5)]; block = bytearray(8 << 20)\n") as child:
        tell(child, "burn(60); os.nice(3)")
        tell(child, "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()")
        got, peer = row(read(source, child.pid), child.pid), psutil.Process(child.pid)
        with peer.oneshot():
            assert got["ppid"] == os.getpid()
            assert got["session"] == os.getsid(child.pid)
            assert got["nice"] == peer.nice() == 3
            assert got["threads"] == peer.num_threads() == 2
            assert got["fds"] == peer.num_fds()
            assert chr(got["state"]) == "S"
            assert got["policy"] == os.sched_getscheduler(child.pid)
            assert got["start_ticks"] / os.sysconf("SC_CLK_TCK") + psutil.boot_time() == pytest.approx(peer.create_time(), abs=0.1)
            assert got["rss_bytes"] == pytest.approx(peer.memory_info().rss, rel=0.1)
            assert got["cpu_ns"] / 1e9 == pytest.approx(sum(peer.cpu_times()[:2]), abs=0.05)
            io = peer.io_counters()
            assert (got["write_chars"], got["read_bytes"]) == (io.write_chars, io.read_bytes)
            assert got["read_chars"] == io.read_chars
            assert got["last_cpu"] == peer.cpu_num()
        assert got["known"] | Known.KEYS == Known.WAIT | Known.IO | Known.FDS | Known.SOCKETS | Known.KEYS
        assert got["timeslices"] > 1


def test_an_idle_process_is_seen_to_run_again_at_once(source: ProcSource) -> None:
    with python(BURN) as child:
        read(source)
        before = row(read(source), child.pid)
        assert row(read(source), child.pid) == before
        tell(child, "burn(5)")
        after = row(read(source), child.pid)
        assert after["cpu_ns"] - before["cpu_ns"] >= 5_000_000
        assert after["timeslices"] > before["timeslices"]


def test_threads_that_exit_stay_counted(source: ProcSource) -> None:
    code = BURN + "go = threading.Event(); many = [threading.Thread(target=lambda: (burn(10), go.wait())) for _ in range(5)]\n"
    with python(code) as child:
        tell(child, "[t.start() for t in many]")
        until(lambda: row(read(source), child.pid)["cpu_ns"] > 50e6)
        alive = row(read(source), child.pid)
        tell(child, "go.set(); [t.join() for t in many]")
        until(lambda: row(read(source), child.pid)["threads"] == 1)
        after = row(read(source), child.pid)
        assert alive["threads"] == 6
        for name in ("cpu_ns", "wait_ns", "timeslices"):
            assert after[name] >= alive[name]


def test_threads_that_nobody_saw_count_in_cpu_time(source: ProcSource) -> None:
    with python(BURN) as child:
        before = row(read(source), child.pid)
        tell(child, "t = threading.Thread(target=burn, args=(40,)); t.start(); t.join()")
        until(lambda: psutil.Process(child.pid).num_threads() == 1)
        after = row(read(source), child.pid)
        assert after["cpu_ns"] - before["cpu_ns"] >= 40_000_000
        assert after["cpu_ns"] / 1e9 == pytest.approx(sum(psutil.Process(child.pid).cpu_times()[:2]), abs=0.03)


RIVAL = "import time\nend = time.thread_time() + 0.2\nwhile time.thread_time() < end: pass"


def test_run_queue_wait_of_every_thread_is_counted(source: ProcSource) -> None:
    """The child and a rival share a CPU; it is a second thread of the child that has to wait for it."""
    code = BURN + f"import os, subprocess, sys\nrival = {RIVAL!r}\ngo = threading.Event()\ndone = threading.Event()\n"
    with python(code) as child:
        tell(child, "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])")
        before = row(read(source), child.pid)
        tell(child, "threading.Thread(target=lambda: (burn(200), done.set(), go.wait()), daemon=True).start()")
        tell(child, "subprocess.run([sys.executable, '-c', rival]); done.wait()")
        until(lambda: chr(row(read(source, child.pid), child.pid)["state"]) == "S")
        after = row(read(source), child.pid)
        tasks = {path.parent.name: path.read_text().split() for path in Path(f"/proc/{child.pid}/task").glob("*/schedstat")}
        assert len(tasks) == 2
        assert after["wait_ns"] == sum(int(wait) for _, wait, _ in tasks.values())
        assert after["timeslices"] == sum(int(slices) for _, _, slices in tasks.values())
        assert after["wait_ns"] - before["wait_ns"] > 20_000_000
        assert after["wait_ns"] > int(tasks[str(child.pid)][1])


def test_a_zombie_keeps_its_identity_and_goes_when_it_is_reaped(source: ProcSource) -> None:
    with python("import os") as child:
        before = identity(read(source), child.pid)
        os.kill(child.pid, 9)
        until(lambda: chr(row(read(source), child.pid)["state"]) == "Z")
        after = read(source, child.pid)
        assert identity(after, child.pid) == before
        assert row(after, child.pid)["rss_bytes"] == 0
        child.wait()
        assert rows(read(source), child.pid) == []


def test_who_ends_keeps_its_identity_while_its_memory_is_given_back(source: ProcSource) -> None:
    """Killed, it has no executable and no command line any more, but is no zombie yet: some ms for each 100 MB."""
    with python("import mmap\nmemory = mmap.mmap(-1, 256 << 20)\nmemory.madvise(mmap.MADV_NOHUGEPAGE)\n") as child:
        tell(child, "for page in range(0, len(memory), mmap.PAGESIZE): memory[page] = 1")
        before = identity(read(source, child.pid), child.pid)
        os.kill(child.pid, 9)
        ending = set()
        while chr(row(seen := read(source, child.pid), child.pid)["state"]) != "Z":
            if row(seen, child.pid)["rss_bytes"] == 0:
                ending.add(identity(seen, child.pid))
        assert ending == {before}
        assert identity(seen, child.pid) == before


@pytest.mark.parametrize("comm", ["w\\n\\x1b]0;x\\x07", ") R 1 1", "(((", "a b"])
def test_a_hostile_name_is_text_and_forges_nothing(source: ProcSource, comm: str) -> None:
    with python(f"import ctypes; ctypes.CDLL(None).prctl(15, '{comm}'.encode(), 0, 0, 0)\n") as child:
        snapshot = read(source)
        got = identity(snapshot, child.pid).comm
        assert got.isprintable()
        assert got.startswith(comm[0])
        assert (row(snapshot, child.pid)["ppid"], chr(row(snapshot, child.pid)["state"])) == (os.getpid(), "S")


def test_exec_changes_what_a_process_is_but_not_which(source: ProcSource, tmp_path: Path) -> None:
    second = tmp_path / "second.py"
    second.write_text("import sys\nprint('up', flush=True)\nsys.stdin.read()\n")
    with python("import os") as child:
        before = read(source)
        assert identity(before, child.pid).program.endswith(" -c")
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"os.execv(sys.executable, [sys.executable, {str(second)!r}, '--token=s3cret'])\n")
        assert child.stdout.readline() == "up\n"
        after = read(source)
        assert row(after, child.pid)["start_ticks"] == row(before, child.pid)["start_ticks"]
        assert identity(after, child.pid).program.endswith(" second.py")
        assert identity(after, child.pid).comm == identity(before, child.pid).comm, "the name alone would not have told"
        assert "s3cret" not in repr(after.identities)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_a_process_that_is_bound_to_cpus_is_seen_to_be(source: ProcSource) -> None:
    last = max(os.sched_getaffinity(0))
    with subprocess.Popen(["taskset", "-c", str(last), "sleep", "60"]) as bound, subprocess.Popen(["sleep", "60"]) as free:
        time.sleep(0.2)  # until taskset has become sleep
        found = {id_.pid: identity.cpus for id_, identity in source.read(1, 1, ()).identities.items()}
        bound.kill()
        free.kill()
    assert (found[bound.pid], found[free.pid]) == ((last,), ())


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
@pytest.mark.parametrize(("runs", "ticks"), [(True, 3), (False, 3 * 6)])
def test_what_others_change_of_a_process_is_seen_in_time(source: ProcSource, runs: bool, ticks: int) -> None:
    source.slow_every = 3
    last = max(os.sched_getaffinity(0))
    with python(BURN) as child:
        for _ in range(3 * 6 + 1):
            read(source)
        os.setpriority(os.PRIO_PROCESS, child.pid, 5)
        os.sched_setaffinity(child.pid, {last})
        if runs:
            tell(child, "burn(1)")
            assert row(read(source), child.pid)["nice"] == 5, "at once"
        for _ in range(ticks - runs - 1):
            read(source)
        snapshot = read(source)
        assert (row(snapshot, child.pid)["nice"], identity(snapshot, child.pid).cpus) == (5, (last,))


def test_a_child_whose_parent_ended_has_its_new_parent_in_the_second_tick_from_then(source: ProcSource) -> None:
    with running("/bin/sh", "-c", "sleep 60 & echo $!; wait") as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            for _ in range(3):
                assert row(read(source), child)["ppid"] == parent.pid
            parent.kill()
            parent.wait()
            read(source)
            assert row(read(source), child)["ppid"] != parent.pid
        finally:
            os.kill(child, signal.SIGKILL)


def test_processes_that_come_and_go_spoil_nothing(source: ProcSource) -> None:
    storm = "i=0; while [ $i -lt 400 ]; do /bin/true & i=$((i+1)); [ $((i % 20)) -eq 0 ] && wait; done; wait"
    with running("/bin/sh", "-c", storm) as child, running("sleep", "60") as still:
        reads = 0
        while child.poll() is None:
            snapshot = read(source)
            reads += 1
            assert len(rows(snapshot, still.pid)) == 1
            assert set(snapshot.identities) == {ProcId(*key) for key in snapshot.table[["pid", "start_ticks"]].tolist()}
        assert reads > 3


# --- what a process serves ------------------------------------------------------------------------------------------------------

ANY = Trait.SERVES | Trait.SERVES_LOCALLY
SOCKETS = "import os, socket, subprocess, sys\nfrom socket import *\n"
LISTENS = "s = socket(AF_INET, SOCK_STREAM{}); s.bind(('127.0.0.1', 0)); s.listen()"
SHOWS = (
    "a = '\\0/tmp/.X11-unix/X%d' % os.getpid(); s = socket(AF_UNIX); s.bind(a); s.listen(); "
    "c = socket(AF_UNIX); c.connect(a); e = s.accept()[0]"
)
MPTCP = 262  # IPPROTO_MPTCP, which Go 1.24 listens with where it can


def served(snapshot: Snapshot, pid: int) -> Trait | None:
    """What a process serves, None where that is unknown."""
    got = row(snapshot, pid)
    return Trait(got["traits"]) & (ANY | Trait.HAS_WINDOW) if got["known"] & Known.SOCKETS else None


@pytest.mark.parametrize(
    ("act", "traits"),
    [
        ("pass", Trait(0)),
        (LISTENS.format(""), Trait.SERVES),
        (LISTENS.format(f", {MPTCP}"), Trait.SERVES),
        ("s = socket(AF_INET6); s.bind(('::1', 0)); s.listen()", Trait.SERVES),
        ("s = socket(AF_INET, SOCK_DGRAM); s.bind(('127.0.0.1', 0))", Trait.SERVES),
        ("s = socket(AF_INET6, SOCK_DGRAM); s.bind(('::1', 0))", Trait.SERVES),
        ("s = socket(AF_UNIX); s.bind('\\0nicety%d' % os.getpid()); s.listen()", Trait.SERVES_LOCALLY),
        ("s = socket(AF_UNIX, SOCK_SEQPACKET); s.bind('\\0nicety%d' % os.getpid()); s.listen()", Trait.SERVES_LOCALLY),
        ("s = socket(AF_INET); s.bind(('127.0.0.1', 0))", Trait(0)),
        ("s = socket(AF_INET, SOCK_DGRAM)", Trait(0)),
        ("s = socket(AF_INET, SOCK_DGRAM); s.connect(('127.0.0.1', 9))", Trait(0)),
        ("s = create_server(('127.0.0.1', 0)); t = create_connection(s.getsockname()); u = s.accept()[0]; s.close()", Trait(0)),
        ("s = socketpair()", Trait(0)),
        (SHOWS, Trait.SERVES_LOCALLY | Trait.HAS_WINDOW),
    ],
    ids=[
        "none",
        "tcp",
        "mptcp",
        "tcp6",
        "udp",
        "udp6",
        "unix",
        "packets",
        "bound",
        "unbound",
        "peer",
        "accepted",
        "pair",
        "window",
    ],
)
def test_a_service_is_known_in_the_tick_in_which_it_is_first_seen(source: ProcSource, act: str, traits: Trait) -> None:
    if str(MPTCP) in act:
        try:
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP).close()
        except OSError as error:
            pytest.skip(f"no MPTCP here: {error.strerror}")
    with python(SOCKETS) as child:
        tell(child, act)
        assert served(read(source), child.pid) == traits


def test_a_young_service_is_known_in_the_tick_after_it_began_to_listen_and_no_more_when_it_stopped(source: ProcSource) -> None:
    with python(SOCKETS) as child:
        tell(child, "s = socket(); s.bind(('127.0.0.1', 0))")
        assert served(read(source), child.pid) == Trait(0)
        tell(child, "s.listen()")  # the same descriptors as before
        assert served(read(source), child.pid) == Trait.SERVES
        assert served(read(source), child.pid) == Trait.SERVES
        tell(child, "s.close()")
        assert served(read(source), child.pid) == Trait(0)


def test_where_a_process_listens_is_part_of_what_it_is(source: ProcSource) -> None:
    with python(SOCKETS) as child, socket.create_server(("127.0.0.1", 0)) as taken:
        assert identity(read(source), child.pid).port == 0
        tell(child, "s = [socket(), socket(), socket()]; [(one.bind(('127.0.0.1', 0)), one.listen()) for one in s[:2]]")
        tell(child, "s[2].bind(('127.0.0.1', 0))")
        mine = min(it.laddr.port for it in psutil.Process(child.pid).net_connections("tcp") if it.status == psutil.CONN_LISTEN)
        assert identity(read(source), child.pid).port == mine
        assert identity(read(source), os.getpid()).port in (0, taken.getsockname()[1]), "not another's"
        tell(child, "[one.close() for one in s]")
        assert identity(read(source), child.pid).port == 0


def test_a_forked_worker_serves_what_it_inherited_and_an_exec_without_it_does_not(source: ProcSource) -> None:
    with python(SOCKETS + "import signal\n") as child:
        tell(child, LISTENS.format(""))
        tell(child, "pids = [os.fork()]; pids[0] or signal.pause()")
        tell(child, "pids.append(subprocess.Popen(['sleep', '60'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).pid)")
        until(lambda: sorted(it.name() == "sleep" for it in psutil.Process(child.pid).children()) == [False, True])
        worker, other = sorted(psutil.Process(child.pid).children(), key=lambda it: it.name() == "sleep")
        snapshot = read(source)
        assert [served(snapshot, pid) for pid in (child.pid, worker.pid, other.pid)] == [Trait.SERVES, Trait.SERVES, Trait(0)]
        for one in (worker, other):
            one.kill()


@pytest.mark.root
@needs(CAN_UNSHARE, "needs CAP_SYS_ADMIN for a network namespace of its own")
def test_a_service_in_another_network_namespace_is_known_and_its_inodes_mean_nothing_here(source: ProcSource) -> None:
    with python(SOCKETS) as child:
        tell(child, "import ctypes; assert ctypes.CDLL(None).unshare(0x40000000) == 0")  # CLONE_NEWNET
        assert served(read(source), child.pid) == Trait(0)
        tell(child, "s = socket(); s.bind(('', 0)); s.listen()")
        assert served(read(source), child.pid) == Trait.SERVES
        tell(child, "t = socket(AF_UNIX); t.bind('\\0nicety'); t.listen()")
        assert served(read(source), child.pid) == Trait.SERVES | Trait.SERVES_LOCALLY
        tell(child, "s.close(); t.close(); s = socket(AF_INET, SOCK_DGRAM); s.bind(('', 0))")
        assert served(read(source), child.pid) == Trait.SERVES


def test_an_idle_process_is_not_looked_through_again(source: ProcSource, monkeypatch: pytest.MonkeyPatch) -> None:
    with python(SOCKETS) as child:
        tell(child, LISTENS.format(""))
        assert served(read(source), child.pid) == Trait.SERVES
        looked: list[str] = []
        link = os.readlink

        def noted(path: str) -> str:
            looked.append(path)
            return link(path)

        monkeypatch.setattr(os, "readlink", noted)
        for _ in range(20):
            assert served(read(source), child.pid) == Trait.SERVES
        assert not [path for path in looked if path.startswith(f"/proc/{child.pid}/fd/")]
        tell(child, "more = socket()")
        read(source)
        assert [path for path in looked if path.startswith(f"/proc/{child.pid}/fd/")], "the check above can fail"


TERMINAL = "import fcntl, os, subprocess, termios\nmaster, slave = os.openpty()\nos.setsid()\n"


def test_the_foreground_of_a_terminal_is_known_and_its_change(source: ProcSource) -> None:
    with python(TERMINAL) as child:

        def in_front(*watched: int) -> list[bool]:
            snapshot = read(source, *watched)
            return [bool(row(snapshot, pid)["traits"] & Trait.TERMINAL) for pid in pids]

        pids = [child.pid]
        assert in_front() == [False]
        tell(child, "fcntl.ioctl(slave, termios.TIOCSCTTY, 0)")
        assert in_front() == [True]
        tell(child, "job = subprocess.Popen(['sleep', '60'], stdin=subprocess.DEVNULL, stdout=slave, process_group=0)")
        (job,) = psutil.Process(child.pid).children()
        pids.append(job.pid)
        assert in_front() == [True, False]
        tell(child, "os.tcsetpgrp(slave, job.pid)")
        assert in_front(job.pid) == [False, True]
        job.kill()


IN_FRONT = (
    TERMINAL + "import signal, tty\nfcntl.ioctl(slave, termios.TIOCSCTTY, 0)\nsignal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
    "null = subprocess.DEVNULL\n"
    "def front(**streams):\n"
    "    job = subprocess.Popen(['sleep', '60'], process_group=0, **{'stdin': null, 'stdout': null, 'stderr': null, **streams})\n"
    "    os.tcsetpgrp(slave, job.pid)\n"
)


def keys(source: ProcSource, pid: int) -> bool | None:
    """Whether a process is given single keys, None where that is unknown."""
    got = row(read(source, pid), pid)
    return bool(got["traits"] & Trait.READS_KEYSTROKES) if got["known"] & Known.KEYS else None


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_whether_a_terminal_gives_keys_or_lines_is_seen_as_it_changes(source: ProcSource, stream: str) -> None:
    with python(IN_FRONT) as child:
        tell(child, f"before = termios.tcgetattr(slave); front({stream}=slave)")
        (job,) = psutil.Process(child.pid).children()
        assert keys(source, job.pid) is False
        tell(child, "tty.setraw(slave)")
        assert keys(source, job.pid) is True
        tell(child, "termios.tcsetattr(slave, termios.TCSANOW, before)")
        assert keys(source, job.pid) is False
        tell(child, "tty.setcbreak(slave); os.tcsetpgrp(slave, os.getpid())")
        assert keys(source, job.pid) is False, "it is not in front any more"
        job.kill()


def test_keys_are_unknown_where_no_standard_descriptor_leads_to_the_terminal(source: ProcSource) -> None:
    with python(IN_FRONT) as child:
        tell(child, "tty.setraw(slave); front(stdout=os.openpty()[1])")
        (job,) = psutil.Process(child.pid).children()
        assert keys(source, job.pid) is None
        job.kill()


def test_asking_a_terminal_changes_nothing_of_it(source: ProcSource) -> None:
    with python(IN_FRONT) as child:
        tell(child, "tty.setraw(slave); front(stdin=slave); os.write(master, b'typed'); mode = termios.tcgetattr(slave)")
        (job,) = psutil.Process(child.pid).children()
        assert keys(source, job.pid) is True
        open_, owned = descriptors("/dev/"), Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[4]
        assert keys(source, job.pid) is True
        assert descriptors("/dev/") == open_
        assert Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[4] == owned, "it became our terminal"
        tell(child, "os.tcsetpgrp(slave, os.getpid()); assert termios.tcgetattr(slave) == mode and os.read(slave, 9) == b'typed'")
        job.kill()


# --- descriptors and rights -----------------------------------------------------------------------------------------------------


def descriptors(under: str) -> int:
    """Descriptors that this process has open on files below `under`."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith(under)
        except FileNotFoundError:  # the one that lists the directory
            pass
    return count


def test_all_descriptors_are_given_back(source: ProcSource) -> None:
    sockets = descriptors("socket:")
    with python("import threading, time") as child:
        tell(child, "[threading.Thread(target=time.sleep, args=(60,), daemon=True).start() for _ in range(4)]")
        read(source)
        assert descriptors(f"/proc/{child.pid}/") == 0, "most processes never run again"
        tell(child, "pass")
        read(source)
        assert descriptors(f"/proc/{child.pid}/") == 6  # stat and five threads
        child.kill()
        child.wait()
        read(source)
        assert descriptors(f"/proc/{child.pid}/") == 0
    with python(SOCKETS) as child:
        tell(child, LISTENS.format(""))
        read(source)
    assert descriptors("socket:") == sockets + 1, "no socket to ask the kernel with"
    assert descriptors("/proc/") > 5
    source.close()
    source.close()
    assert descriptors("/proc/") <= 1  # the directory that is being listed
    assert descriptors("socket:") == sockets


def script(code: str, *prefix: str) -> str:
    """What a Python script of its own process prints."""
    head = "import os, resource, subprocess, sys, time\nfrom nicety.scheduler.read.proc import ProcSource\n"
    command = [*prefix, sys.executable, "-c", head + textwrap.dedent(code)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


def test_with_few_descriptors_everything_is_still_read() -> None:
    out = script("""
        resource.setrlimit(resource.RLIMIT_NOFILE, (290, 290))  # 34 may be kept
        children = [subprocess.Popen(["sleep", "60"]) for _ in range(40)]
        source = ProcSource()
        wanted = {child.pid for child in children}
        for _ in range(3):
            assert wanted <= set(source.read(1, 1, ()).table["pid"].tolist())
        print(len(os.listdir("/proc/self/fd")) < 60, end=" ")
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            print(error.strerror, end=" ")
        for _ in range(12):
            assert wanted <= set(source.read(1, 1, ()).table["pid"].tolist())
        print("read")
        for child in children:
            child.kill(); child.wait()
    """)
    assert out == "True Too many open files read\n"


def test_the_soft_limit_is_raised_only_when_needed_and_put_back() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 400:
        pytest.skip(f"the hard descriptor limit here is {hard}")
    out = script("""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        soft = lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        resource.setrlimit(resource.RLIMIT_NOFILE, (266, hard))  # 10 may be kept
        source = ProcSource()
        print(soft(), end=" ")
        children = [subprocess.Popen(["sleep", "60"]) for _ in range(10)]
        source.read(1, 1, ())
        print(soft() > 266, end=" ")
        source.close()
        print(soft())
        for child in children:
            child.kill(); child.wait()
    """)
    assert out == "266 True 266\n"


@pytest.mark.root
@needs(CAN_UNSHARE, "needs CAP_SYS_ADMIN for a pid namespace of its own")
def test_a_reused_pid_is_another_process() -> None:
    out = script(
        """
        def start(pid):
            for _ in range(50):
                open("/proc/sys/kernel/ns_last_pid", "w").write(str(pid - 1))
                child = subprocess.Popen(["sleep", "60"])
                if child.pid == pid:
                    return child
                child.kill(); child.wait()
            sys.exit("no reuse")
        source = ProcSource()
        first = start(300)
        before = source.read(1, 1, ())
        uptime = before.uptime_ticks
        first.kill(); first.wait()
        while source._host.uptime_ticks() <= uptime + 1: time.sleep(0.005)
        second = start(300)
        after = source.read(2, 1, ())
        one, = (key for key in before.identities if key.pid == 300)
        two, = (key for key in after.identities if key.pid == 300)
        print(one.start_ticks < two.start_ticks, int(after.table["cpu_ns"][after.table["pid"] == 300][0]) < 10**9)
        second.kill(); second.wait()
        """,
        *("unshare", "--pid", "--fork", "--mount-proc"),
    )
    assert out == "True True\n"


@pytest.mark.root
@needs(CAN_SETUID, "needs CAP_SETUID to become another user")
def test_without_rights_the_rest_is_read_and_the_gaps_are_named() -> None:
    out = script("""
        from nicety.models.records import Known
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        while b"stdin" not in open(f"/proc/{child.pid}/cmdline", "rb").read(): time.sleep(0.01)
        # what it used is counted when it leaves the CPU or at the next clock tick
        while open(f"/proc/{child.pid}/stat").read().rpartition(")")[2].split()[0] != "S": time.sleep(0.01)
        os.setresuid(65534, 65534, 65534)
        source = ProcSource()
        for _ in range(2):
            snapshot = source.read(1, 1, ())
        row = snapshot.table[snapshot.table["pid"] == child.pid][0]
        identity = next(value for key, value in snapshot.identities.items() if key.pid == child.pid)
        print(bool(row["known"] & Known.IO), bool(row["known"] & Known.WAIT), int(row["cpu_ns"]) > 0)
        print(identity.uid, identity.program.endswith(" -c"))
        print(bool(row["known"] & Known.SOCKETS), int(row["traits"]))
        child.stdin.close()
        child.wait()
        import socket
        listener = socket.create_server(("127.0.0.1", 0))
        table = ProcSource().read(1, 1, ()).table
        row = table[table["pid"] == os.getpid()][0]  # sock_diag answers anybody
        print(bool(row["known"] & Known.SOCKETS), int(row["traits"]) & 3)
    """)
    assert out == "False True True\n0 True\nFalse 0\nTrue 1\n"


@pytest.mark.parametrize("code", ["os._exit(0) if (pid := os.fork()) == 0 else os.waitpid(pid, 0)", "subprocess.run(['true'])"])
def test_children_that_live_for_milliseconds_leave_their_page_faults_behind(source: ProcSource, code: str) -> None:
    """No tick sees them. That is how a storm of them is known: `lives.CHILD_FAULTS`."""

    def seen(pid: int) -> tuple[int, int]:
        snapshot = source.read(1, 1, ())
        row = snapshot.table[snapshot.table["pid"] == pid][0]
        return int(row["child_faults"]), snapshot.host.forks

    with python("import os, subprocess") as parent:
        before = seen(parent.pid)
        tell(parent, f"for _ in range(30): {code}")
        after = seen(parent.pid)
    assert after[0] - before[0] >= 30 * CHILD_FAULTS / 3
    assert after[1] - before[1] >= 30


def test_the_cpu_time_of_children_that_no_tick_sees_is_their_parents(source: ProcSource) -> None:
    """Each of them lives for about 30 ms of CPU. A parent that ignores SIGCHLD is told of none of it."""
    burn = "import time\nwhile time.process_time() < 0.03: pass"
    with python("import os, signal, subprocess, sys") as parent:
        before = read(source)
        tell(parent, f"for _ in range(10): subprocess.run([sys.executable, '-S', '-E', '-c', {burn!r}])")
        after = read(source)
        rate = rates(before.table, after.table, before.at, after.at, before.uptime_ticks)
        (place,) = np.flatnonzero(after.table["pid"] == parent.pid).tolist()
        used = float(rate.brief[place]) * (after.at - before.at) / 1e9
        assert 0.3 - 0.02 <= used < 3
        tell(parent, "signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
        tell(parent, f"os.posix_spawn(sys.executable, [sys.executable, '-S', '-E', '-c', {burn!r}], {{}})")
        assert row(read(source), parent.pid)["child_cpu_ns"] == after.table["child_cpu_ns"][place]
