"""`nicety hands` as a service: a socket passed as systemd does, and brains that come and go, one of another user without rights."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.act.hands_apart import HandsApart, reach_hands
from nicety.scheduler.hands.ledger import LedgerError, StateBusyError, StateLock, open_changes
from nicety.scheduler.hands.looks import Order
from nicety.scheduler.hands.places import Control
from nicety.scheduler.hands.wire import GoneError
from nicety.scheduler.testing.puppet import Puppet, proc_id
from nicety.scheduler.testing.sentries import sentries_of
from nicety.scheduler.testing.waiting import within

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only CAP_SYS_NICE can lower a nice again"),
]

SOCK_DIAG = 4  # linux/netlink.h

START = """
import os, sys
passed = sys.argv.pop(1).split(",")
for number, descriptor in enumerate(passed, 3):
    os.dup2(int(descriptor), number)
os.environ |= {"LISTEN_FDS": str(len(passed)), "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-m", "nicety.scheduler", "hands", *sys.argv[1:]])
"""

BRAIN = """
import os, sys
from nicety.models.identity import ProcId
from nicety.scheduler.act.hands_apart import reach_hands
from nicety.scheduler.hands.looks import Order
from nicety.scheduler.hands.places import Control
path, pid, start = sys.argv[1:]
os.setgroups([]); os.setgid(65534); os.setuid(65534)
hands = reach_hands(path)
hands.open()
process = ProcId(int(pid), int(start))
try:
    os.setpriority(os.PRIO_PROCESS, process.pid, 12)
except PermissionError:
    print("denied", flush=True)
for done in hands.change([Order("s-0.1", "t", Control.NICE, process, 12), Order("s-0.2", "t", Control.NICE, ProcId(1, 0), 12)]):
    print(done.status, flush=True)
sys.stdin.read()
"""


class Service:
    def __init__(self, folder: Path, *options: str) -> None:
        self.state, self.path = folder / "state", folder / "hands.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.fspath(self.path))
        listener.listen()
        self.path.chmod(0o666)
        self.diagnosis = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG)
        self.diagnosis.bind((0, 0))
        passed = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 10) for each in (listener, self.diagnosis)]  # clear of 3 and 4
        command = [sys.executable, "-c", START, ",".join(map(str, passed)), "--state-dir", str(self.state), *options]
        self.process = subprocess.Popen(command, pass_fds=passed, stderr=subprocess.PIPE, text=True)
        listener.close()
        for descriptor in passed:
            os.close(descriptor)

    def connect(self) -> HandsApart:
        hands = reach_hands(os.fspath(self.path))
        hands.open()
        return hands


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    with Puppet() as made:
        yield made


@pytest.fixture
def service() -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="nicety-"))  # where another user reaches the socket
    folder.chmod(0o711)
    made = Service(folder)
    yield made
    if made.process.poll() is None:
        made.process.kill()
    for pid in sentries_of(made.state):
        os.kill(pid, signal.SIGKILL)
    made.process.communicate()
    made.diagnosis.close()
    shutil.rmtree(folder)


def nice(process: ProcId) -> int:
    return os.getpriority(os.PRIO_PROCESS, process.pid)


def lower(hands: HandsApart, process: ProcId) -> None:
    (done,) = hands.change([Order("s-0.1", "t", Control.NICE, process, 12)])
    assert (done.status, nice(process)) == ("applied", 12)


def test_one_brain_after_the_other_is_served_and_nothing_of_a_dead_one_stays(service: Service, puppet: Puppet) -> None:
    for _ in range(2):
        hands = service.connect()
        lower(hands, puppet.id)
        hands._channel.close()
        assert within(2.0, lambda: nice(puppet.id) == 0)
    with pytest.raises(StateBusyError):
        StateLock(service.state)
    hands = service.connect()
    lower(hands, puppet.id)
    service.process.send_signal(signal.SIGTERM)
    _, log = service.process.communicate(timeout=10)
    assert (service.process.returncode, nice(puppet.id), sentries_of(service.state)) == (0, 0, [])
    assert log.count("the daemon died; its hands put 1 values back") == 2
    hands.close()


def test_when_the_hands_are_killed_their_sentries_put_everything_back(service: Service, puppet: Puppet) -> None:
    hands = service.connect()
    lower(hands, puppet.id)
    assert hands.sentries.pid in sentries_of(service.state)
    service.process.kill()
    assert within(2.0, lambda: nice(puppet.id) == 0)
    assert within(2.0, lambda: sentries_of(service.state) == [])
    assert open_changes(str(service.state)) == []
    _, log = service.process.communicate(timeout=10)
    assert "the hands died; a sentry put 1 values back" in log
    with pytest.raises(GoneError):
        hands.sweep()
    hands.close()


def test_a_brain_of_another_user_without_rights_changes_what_it_may_not_change_itself(service: Service, puppet: Puppet) -> None:
    command = [sys.executable, "-c", BRAIN, os.fspath(service.path), *map(str, puppet.id)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as brain:
        assert brain.stdin is not None
        assert brain.stdout is not None
        assert [brain.stdout.readline().strip() for _ in range(3)] == ["denied", "applied", "refused"]
        assert nice(puppet.id) == 12
        brain.kill()
    assert within(2.0, lambda: nice(puppet.id) == 0)


def test_what_a_brain_runs_in_the_background_is_made_idle_and_nothing_else(service: Service, puppet: Puppet) -> None:
    def scheduling(pid: int) -> tuple[int, int]:
        return os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)

    hands = service.connect()
    apart, inside = (subprocess.Popen(["sleep", "1000"], start_new_session=session) for session in (True, False))
    others = subprocess.Popen(["sleep", "1000"], start_new_session=True, user=65534)
    below = subprocess.Popen(
        ["sh", "-c", "setsid sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert below.stdout is not None
    grandchild = int(below.stdout.readline())
    try:
        child = proc_id(apart.pid)
        strangers = [
            ProcId(child.pid, child.start_ticks + 1),
            proc_id(inside.pid),
            proc_id(grandchild),
            ProcId(1, 0),
            proc_id(os.getpid()),
        ]
        before = [scheduling(each.pid) for each in strangers]
        for stranger in strangers:
            with pytest.raises(PermissionError, match="no child of the brain, of its user and in a session of its own"):
                hands.idle(stranger)
        assert [scheduling(each.pid) for each in strangers] == before
        hands.idle(child)
        assert scheduling(child.pid) == (os.SCHED_IDLE, 19)
        assert open_changes(str(service.state)) == [], "it is not a change that goes back"
    finally:
        os.kill(grandchild, signal.SIGKILL)
        for each in (apart, inside, others, below):
            each.kill()
            each.communicate()
    with pytest.raises(FileNotFoundError):
        hands.idle(child)
    hands.close()


def test_sockets_are_looked_up_where_the_service_manager_is(service: Service) -> None:
    hands = service.connect()
    eyes = hands.eyes()
    found, (descriptor,) = eyes.ask("read.sockets")
    eyes.close()
    here = Path("/proc/self/ns/net").stat()
    with socket.socket(fileno=descriptor) as given:
        assert (found, given.getsockname()) == ([here.st_dev, here.st_ino], service.diagnosis.getsockname())
    hands.close()


def test_a_wrong_call_says_what_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "nicety.toml"
    config.write_text("[guard]\nusers = 3\n")
    command = [sys.executable, "-m", "nicety.scheduler", "hands", "--state-dir", str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "no socket was passed" in done.stderr) == (2, True)
    with pytest.raises(LedgerError, match="cannot be reached"):
        reach_hands(str(tmp_path / "none"))
    made = Service(tmp_path, "--config", str(config))
    made.diagnosis.close()
    _, log = made.process.communicate(timeout=10)
    assert (made.process.returncode, "guard.users is no list of uids" in log) == (1, True)
