"""What is read by our own right and what is read through the hands is the same; and the hands read nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import tempfile
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.hands import memory, reads
from nicety.scheduler.hands.open_files import status
from nicety.scheduler.hands.wire import Operation, RefusedError, Result
from nicety.scheduler.interpreter import PYTHON
from nicety.scheduler.pools.celery.main import bytes_read
from nicety.scheduler.pools.gunicorn.master import has_beaten, is_worker
from nicety.scheduler.pools.sensing.busy import CallView, foresee, serving
from nicety.scheduler.pools.sensing.listening import AcceptQueue
from nicety.scheduler.read import door
from nicety.scheduler.read.blocked.belongings import Belongings
from nicety.scheduler.read.blocked.records import Query
from nicety.scheduler.read.blocked.threads import Threads
from nicety.scheduler.read.calls import FUTEX, FUTEX_WAIT, NUMBERS
from nicety.scheduler.read.evidence import look
from nicety.scheduler.read.locks import LinuxLocks
from nicety.scheduler.read.proc import ProcSource
from nicety.scheduler.read.stdin import Feeders
from nicety.scheduler.testing.circles import Circle, Circles
from nicety.scheduler.testing.puppet import proc_id
from nicety.scheduler.testing.without_rights import without_rights

PROC = Path("/proc")
MACHINE = os.uname().machine
USERS = (0, 65534)
"""Root without capabilities, as a brain that `nicety run` starts, and a user of its own, as in the unit."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hands with capabilities need root")

SERVER = """
import os, select, socket, sys, tempfile
kind, listener = sys.argv[1], socket.socket(fileno=0)
file = tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="wgunicorn-")
if kind == "poll":
    os.utime(file.fileno(), (100, 100))
print(flush=True)
if kind == "select":
    select.select([listener], [], [])
elif kind == "poll":
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.poll()
elif kind == "other poll":
    reading, writing = os.pipe()
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.poll()
elif kind == "epoll":
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    epoll.poll()
elif kind == "read":
    reading, writing = os.pipe()
    os.read(reading, 1)
"""
KINDS = ("select", "poll", "other poll", "epoll", "read")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, ProcId]]:
    """Processes of root that each wait in a call, with a listening socket as their standard input that a client waits at."""
    with ExitStack() as stack:
        found = {}
        for kind in KINDS:
            # a listener of its own: select and poll would return at once for one that a client waits at
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            child = stack.enter_context(
                subprocess.Popen([*PYTHON, "-c", SERVER, kind], stdin=listener.fileno(), stdout=subprocess.PIPE)
            )
            stack.callback(child.kill)
            assert child.stdout is not None
            assert child.stdout.readline()
            found[kind] = proc_id(child.pid)
            wait_for_call(child.pid)
            if kind in ("other poll", "read"):
                stack.enter_context(socket.create_connection(listener.getsockname()))
        yield found


def wait_for_call(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"S":
        os.sched_yield()


@pytest.fixture(scope="module")
def scenes() -> Iterator[dict[str, Circle]]:
    kinds = ("flock", "open file lock", "fcntl", "pipe read", "unix read", "tcp", "poll", "mutex", "robust mutex", "process lock")
    with Circles(*((kind, 2) for kind in kinds)) as circles:
        yield dict(zip(kinds, circles.scenes, strict=True))


def same(view: Callable[[], object], uid: int) -> str:
    """What both ways give. Without hands a process without rights sees something else: else the test would show nothing."""
    direct = repr(view())
    assert without_rights(view, uid=uid, operations=reads.operations("/proc")) == direct
    assert without_rights(view, uid=uid) != direct
    return direct


@pytest.fixture
def operations() -> Iterator[dict[str, Operation]]:
    """Those of hands that are this process."""
    hands = reads.Reads("/proc")
    yield hands.operations()
    hands.close()


# --- the same -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", USERS)
@pytest.mark.parametrize("counted", [True, False], ids=["the kernel counts descriptors", "they are listed"])
def test_the_collector_has_the_same_rows(servers: dict[str, ProcId], uid: int, counted: bool) -> None:
    fields = ["read_chars", "write_chars", "read_bytes", "write_bytes", "fds", "known", "traits"]

    def rows() -> object:
        source = ProcSource()
        source._counts_fds = source._counts_fds and counted  # as before Linux 6.2
        snapshot = source.read(0, 0, ())
        source.close()
        found = {}
        for row in snapshot.table:
            process = ProcId(int(row["pid"]), int(row["start_ticks"]))
            if process in servers.values():
                identity = snapshot.identities[process]
                found[process] = row[fields].tolist(), identity.program, identity.port
        return found

    told = same(rows, uid)
    assert told.count("'python3 -c'") == len(KINDS)


@pytest.mark.parametrize("room", [reads.MOST_BYTES, 100], ids=["all fits", "nothing fits"])
def test_all_that_is_new_is_asked_in_one_request(
    servers: dict[str, ProcId], room: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What does not fit into the reply is asked alone, and is the same."""
    monkeypatch.setattr(reads, "MOST_BYTES", room)
    asked = tmp_path / "asked"
    operations = {name: partial(_noted, asked, name, operation) for name, operation in reads.operations("/proc").items()}

    def seen() -> object:
        processes = dict.fromkeys(servers.values(), reads.EXE | reads.SOCKETS | reads.COUNTERS)
        door.foresee(processes)
        return [
            (
                door.link(place, "exe", process),
                door.sockets(place, 4, process).inodes,
                door.link(place, "fd/0", process),
                door.namespace(place, process),
                door.io(place, process, counted=False).counters,
            )
            for process in processes
            for place in (f"/proc/{process.pid}",)
        ]

    assert without_rights(seen, uid=65534, operations=operations) == repr(seen())
    names = asked.read_text().split()
    assert names.count("read.about") == 1 + (room == 100) * len(servers)
    assert (len(names) == 1) is (room > 100)


def _noted(file: Path, name: str, operation: Operation, arguments: Sequence[object]) -> Result:
    with file.open("a") as out:
        print(name, file=out)
    return operation(arguments)


def test_what_was_foreseen_is_of_that_process_and_forgotten_with_the_next_request(servers: dict[str, ProcId]) -> None:
    process, other = servers["read"], servers["poll"]

    def seen() -> object:
        door.foresee({process: reads.EXE})
        place = f"/proc/{other.pid}"
        found = [process in door._foreseen, other in door._foreseen, door.link(place, "exe", other)]
        door.foresee({ProcId(process.pid, process.start_ticks + 1): reads.EXE})
        return [*found, list(door._foreseen)]

    told = without_rights(seen, uid=65534, operations=reads.operations("/proc"))
    assert told == repr([True, False, str(Path(f"/proc/{other.pid}/exe").readlink()), []])


def test_the_first_process_that_is_denied_is_asked_about_too(servers: dict[str, ProcId]) -> None:
    """Whichever it is: what was denied before decides nothing."""
    place = f"/proc/{servers['read'].pid}"
    for view in (
        lambda: door.links(place, 0).total,
        lambda: door.link(place, "exe"),
        lambda: len(door.call(place, int(place[6:]))),
    ):
        same(partial(_or_denied, view), 65534)


@pytest.mark.parametrize("uid", USERS)
def test_workers_are_busy_and_idle_alike(servers: dict[str, ProcId], uid: int) -> None:
    def doing() -> object:
        views = {kind: CallView(PROC, process.pid) for kind, process in servers.items()}
        foresee(views.values())
        found = {kind: (view.call(), serving(view, frozenset({0})).name) for kind, view in views.items()}
        for view in views.values():
            view.close()
        return found

    found = same(doing, uid)
    assert all(word in found for word in ("'IDLE'", "'BUSY'", "'LOOP'"))


@pytest.mark.parametrize("uid", USERS)
def test_accept_queues_have_the_same_length(servers: dict[str, ProcId], uid: int) -> None:
    def queues() -> object:
        found = []
        for process in servers.values():
            queue = AcceptQueue(PROC, process.pid)
            found.append((queue.waiting(), queue.descriptors))
            queue.close()
        return found

    assert same(queues, uid).count("(1, frozenset({0}))") == 2


@pytest.mark.parametrize("uid", USERS)
def test_blocked_threads_need_the_same(scenes: dict[str, Circle], uid: int) -> None:
    def needs() -> object:
        found = {}
        for kind, circle in scenes.items():
            belongings = Belongings("/proc")
            threads = Threads("/proc", MACHINE, belongings)
            query = Query(1, {}, list(circle.workers), frozenset(circle.workers), ())
            belongings.begin(query)
            threads.begin(query)
            seen = {worker: threads.see(worker).needs for worker in circle.workers}
            asks = {ask for needs in seen.values() for need in needs.values() if need is not None for ask in need.asks}
            helpers = [(worker, repr(ask)) for ask in asks for worker in circle.workers if belongings.answers(worker, ask)]
            found[kind] = seen, sorted(helpers)
            threads.close()
        return found

    found = same(needs, uid)
    for word in ("flock on", "open file lock on", "reading pipe", "unix socket", "TCP socket", "mutex 0x", "lock 0x0 in /dev/shm/"):
        assert word in found


@pytest.mark.parametrize("uid", USERS)
def test_waits_for_demoted_processes_are_the_same(scenes: dict[str, Circle], uid: int) -> None:
    workers = sorted(worker for circle in scenes.values() for worker in circle.workers)

    def waits() -> object:
        locks = LinuxLocks()
        found = {wait for _ in range(12) for wait in locks.waits(workers, [])}
        locks.rest()
        return sorted(map(repr, found))

    assert "mutex" in same(waits, uid)


@pytest.mark.parametrize("uid", USERS)
def test_evidence_is_the_same_but_for_the_stack(servers: dict[str, ProcId], uid: int) -> None:
    def evidence() -> object:
        found = look(servers["read"])
        assert found is not None
        return found.syscall, found.wchan, found.descriptor_targets, found.descriptor_kinds, found.thread_states, found.mappings

    assert "read on descriptor" in same(evidence, uid)


@pytest.mark.parametrize("uid", USERS)
def test_what_pools_ask_of_a_process_is_the_same(servers: dict[str, ProcId], uid: int) -> None:
    with subprocess.Popen(["sleep", "60"], env={"GUNICORN_PID": str(os.getpid())}) as successor:
        try:
            wait_for_call(successor.pid)
            pids, master = [process.pid for process in servers.values()], os.getpid()

            def asked() -> object:
                return (
                    door.succeeds(f"/proc/{successor.pid}", master),
                    [is_worker(PROC, successor.pid, successor.pid + away) for away in (0, 1)],
                    [has_beaten(PROC, pid) for pid in pids],
                    [bytes_read(PROC, pid) for pid in pids],
                )

            assert same(lambda: _or_denied(asked), uid).startswith("(True,")
        finally:
            successor.kill()


def _or_denied(view: Callable[[], object]) -> object:
    try:
        return view()
    except PermissionError:
        return "denied"


@pytest.mark.parametrize("uid", USERS)
def test_a_terminal_and_a_pipe_are_asked_alike(uid: int) -> None:
    master, slave = os.openpty()
    reading, writing = os.pipe()
    tty.setraw(slave)
    number = os.fstat(slave).st_rdev & 0xFF | 136 << 8
    with (
        subprocess.Popen(["cat"], stdin=reading, stdout=slave) as child,
        subprocess.Popen(["sleep", "60"], stdout=writing) as parent,
    ):
        os.close(reading)
        os.close(writing)
        os.close(slave)
        try:
            wait_for_call(child.pid)

            def seen() -> object:
                place = f"/proc/{child.pid}"
                return door.reads_keystrokes(place, number), Feeders(lambda _: None).feeds(f"/proc/{parent.pid}", place)

            assert same(seen, uid) == "(True, True)"
        finally:
            child.kill()
            parent.kill()
            os.close(master)


def test_without_hands_nothing_is_paid_and_a_denial_stays_one(servers: dict[str, ProcId]) -> None:
    def denied() -> object:
        place = f"/proc/{servers['read'].pid}"
        attempts: list[Callable[[], object]] = [
            lambda: door.call(place, servers["read"].pid),
            lambda: door.link(place, "exe"),
            lambda: door.links(place, 8),
            lambda: door.shared(place),
        ]
        return [_or_denied(attempt) for attempt in attempts], [door.closed(kind) for kind in ("syscall", "link", "links", "maps")]

    assert without_rights(denied, uid=65534) == repr((["denied"] * 4, [False] * 4))


# --- nothing else -------------------------------------------------------------------------------------------------------------


def refused(operation: Operation, *arguments: object) -> bool:
    """Whether hands do not do this. The arguments come over the wire."""
    try:
        operation(json.loads(json.dumps(arguments)))
    except (RefusedError, OSError):
        return True
    return False


SELF = "self"
HOSTILE: list[tuple[str, list[object]]] = [
    ("read.link", [SELF, "../1/exe"]),
    ("read.link", [SELF, "root"]),
    ("read.link", [SELF, "environ"]),
    ("read.link", [SELF, -1]),
    ("read.link", [SELF, True]),
    ("read.link", [SELF, 1.0]),
    ("read.text", [SELF, 1, "environ"]),
    ("read.text", [SELF, 1, "stack"]),
    ("read.text", [SELF, 1, "../../environ"]),
    ("read.text", [SELF, "1/../..", "io"]),
    ("read.maps", [SELF, "all"]),
    ("read.links", [SELF, 1 << 20, False, False]),
    ("read.links", [SELF, -1, False, False]),
    ("read.fdinfo", [SELF, list(range(5000))]),
    ("read.fdinfo", [SELF, ["../environ"]]),
    ("read.file", [SELF, "../../etc/shadow"]),
    ("read.pointed", [SELF, SELF, 0, 4096, 1 << 20]),
    ("read.pointed", [SELF, SELF, 6, 4096, 20]),
    ("read.pointed", [SELF, SELF, -1, 4096, 20]),
    ("read.keystrokes", [SELF, "/dev/tty"]),
    ("read.successor", [SELF, "PATH"]),
    ("read.sockets", [1]),
    ("read.rights", ["all"]),
    ("read.about", [[[1, 1, reads.EXE]] * 5000]),
    ("read.about", ["all"]),
    ("read.about", [[[1, 1, 0]]]),
    ("read.about", [[[1, 1, 32]]]),
    ("read.about", [[[1, 1, True]]]),
    ("read.about", [[[1, 1, "exe"]]]),
    ("read.calls", [[[1, 1, 1]] * 5000]),
]


@pytest.mark.parametrize(("name", "arguments"), HOSTILE)
def test_what_no_feature_needs_is_refused(
    operations: dict[str, Operation], servers: dict[str, ProcId], name: str, arguments: list[object]
) -> None:
    process = servers["read"]
    rest = [process.pid if argument == SELF else argument for argument in arguments[1:]]
    assert refused(operations[name], *process, *rest) if arguments[0] == SELF else refused(operations[name], *arguments)


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        *(("read.maps", ["shared"]), ("read.pointed", [1, 0, 4096, 20]), ("read.lock", [1, 4096]), ("read.taken", [4096, 4096])),
        *(("read.successor", [1]), ("read.keystrokes", [34816])),
    ],
)
def test_secrets_of_pid_1_and_of_the_hands_are_not_looked_at(
    operations: dict[str, Operation], name: str, rest: list[object]
) -> None:
    for pid in (1, os.getpid()):
        with pytest.raises(RefusedError):
            operations[name]([*proc_id(pid), *rest])


@pytest.mark.parametrize("name", [name for name in reads.operations("/proc") if name not in ("read.about", "read.calls")])
def test_another_start_time_is_another_process(operations: dict[str, Operation], servers: dict[str, ProcId], name: str) -> None:
    pid, start = servers["read"]
    rest: dict[str, list[object]] = {
        "read.link": ["exe"],
        "read.links": [4, False, False],
        "read.text": [pid, "io"],
        "read.fdinfo": [4],
        "read.file": [3],
        "read.namespace": [],
        "read.maps": ["sizes"],
        "read.pointed": [pid, 0, 4096, 20],
        "read.lock": [pid, 4096],
        "read.taken": [4096, 4096],
        "read.successor": [1],
        "read.keystrokes": [34816],
    }
    if name in rest:
        operations[name]([pid, start, *rest[name]])
        with pytest.raises(ProcessLookupError):
            operations[name]([pid, start + 1, *rest[name]])


def test_of_many_processes_each_that_is_another_is_left_out(operations: dict[str, Operation], servers: dict[str, ProcId]) -> None:
    pid, start = servers["read"]
    found, _ = operations["read.about"]([[[pid, start, reads.COUNTERS], [pid, start + 1, reads.COUNTERS]]])
    lines, _ = operations["read.calls"]([[[pid, start + 1, pid], [pid, start, pid], [pid, start, 1]]])
    assert isinstance(found, list)
    assert isinstance(lines, list)
    assert [type(each) for each in (*found, *lines)] == [list, int, int, str, int]


def test_memory_is_read_only_where_a_thread_has_pointed_the_kernel_to(
    operations: dict[str, Operation], scenes: dict[str, Circle], servers: dict[str, ProcId]
) -> None:
    waiter = scenes["mutex"].workers[0]
    number, arguments, stack = memory.call_of(f"/proc/{waiter.pid}", waiter.pid) or pytest.fail("it waits for nothing")
    assert number in FUTEX[MACHINE]

    def words(process: ProcId, argument: int, address: int, size: int) -> object:
        return operations["read.pointed"]([*process, process.pid, argument, address, size])[0]

    assert words(waiter, 0, arguments[0], 20) == memory.words(f"/proc/{waiter.pid}", arguments[0], 20).hex() != ""
    assert words(waiter, 0, arguments[0], 24) == words(waiter, 0, stack, 20) == words(waiter, 0, arguments[0] + 8, 8) == ""
    reader = servers["read"]  # its second argument points to what it reads: any secret
    call = memory.call_of(f"/proc/{reader.pid}", reader.pid) or pytest.fail("it waits for nothing")
    assert memory.words(f"/proc/{reader.pid}", call.arguments[1], 8) != b""
    assert words(reader, 1, call.arguments[1], 8) == ""


def test_only_a_semaphore_is_looked_for(operations: dict[str, Operation], scenes: dict[str, Circle]) -> None:
    for kind, is_one in (("process lock", True), ("mutex", False)):
        worker = scenes[kind].workers[0]
        call = memory.call_of(f"/proc/{worker.pid}", worker.pid) or pytest.fail("it waits for nothing")
        semaphore = call.arguments[0]
        found, _ = operations["read.lock"]([*worker, worker.pid, semaphore])
        assert bool(found) is is_one
        assert operations["read.lock"]([*worker, worker.pid, semaphore + 32])[0] == 0
        if is_one:
            assert operations["read.taken"]([*worker, semaphore, found])[0] is not None
        assert operations["read.taken"]([*worker, call.stack, call.stack])[0] is None


def test_what_only_looks_like_the_object_of_a_semaphore_says_nothing(operations: dict[str, Operation]) -> None:
    code = (
        "import ctypes, struct; kept = ctypes.create_string_buffer(struct.pack('=QQiii', 4242, 0, 1, 1, 0));"
        "print(ctypes.addressof(kept), flush=True); input()"
    )
    with subprocess.Popen([*PYTHON, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        address = int(child.stdout.readline())
        assert memory.taken(f"/proc/{child.pid}", 4242, address) == (True, 0)
        assert operations["read.taken"]([*proc_id(child.pid), 4242, address])[0] is None


def test_the_pointers_are_those_of_the_calls_that_wait() -> None:
    waits = {"futex", "futex_wait", "poll", "ppoll", "select", "pselect6"}
    for machine, names in NUMBERS.items():
        assert set(memory.POINTERS[machine]) == {number for number, name in names.items() if name in waits}
    for machine, numbers in FUTEX.items():
        assert {FUTEX_WAIT, *numbers} <= set(memory.POINTERS[machine])


def test_a_file_is_asked_for_its_attributes_only_where_the_file_system_answers_by_itself() -> None:
    with tempfile.TemporaryFile(dir="/dev/shm") as local, Path("/proc/version").open("rb") as other:
        mine = f"/proc/{os.getpid()}"
        assert status(mine, f"fd/{local.fileno()}").st_ino == os.fstat(local.fileno()).st_ino
        with pytest.raises(PermissionError):
            status(mine, f"fd/{other.fileno()}")


def test_a_process_with_any_number_of_long_names_fits_into_a_frame(
    operations: dict[str, Operation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "MOST_BYTES", 4096)
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    with ExitStack() as stack:
        for number in range(40):
            stack.enter_context((folder / str(number)).open("w"))
        found, _ = operations["read.links"]([*proc_id(os.getpid()), 4096, False, True])
    assert isinstance(found, list)
    total, cut, links = found
    assert total >= 40
    assert cut
    assert len(links) < total


def test_few_directories_stay_open(
    operations: dict[str, Operation], servers: dict[str, ProcId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "KEPT", 2)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        for process in servers.values():
            operations["read.namespace"](list(process))
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2


def test_a_socket_of_sock_diag_is_that_of_the_hands(operations: dict[str, Operation], servers: dict[str, ProcId]) -> None:
    (found, descriptors) = operations["read.sockets"]([])
    assert found == list(door.namespace(f"/proc/{servers['read'].pid}"))
    with socket.socket(fileno=descriptors[0]) as made:
        assert (made.family, made.proto) == (socket.AF_NETLINK, 4)
        assert fcntl.fcntl(made, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
