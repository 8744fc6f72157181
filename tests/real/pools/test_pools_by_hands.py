"""What the hands do to pools for a brain without any capability, and what they do for nobody, on real processes."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import parse
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.pool_blocks import blocks_of
from nicety.scheduler.hands.pools import SIGNALS_AT_ONCE, Pools
from nicety.scheduler.hands.settings import read
from nicety.scheduler.hands.wire import Channel, GoneError, RefusedError, answer, pair
from nicety.scheduler.pools.sensing.acts import block
from nicety.scheduler.pools.sensing.signals import identify
from nicety.scheduler.testing.clock import ShiftedClock

PROC = Path("/proc")
NOBODY = pwd.getpwnam("nobody").pw_uid
SECOND = 1_000_000_000

SYSTEM_PYTHON = "/usr/bin/python3"
"""One that another user may run: ours may be in a home directory."""

# A main process with two workers; each says which signal it got.
MASTER = """
import os, signal, sys
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
def note(number, _):
    os.write(1, signal.Signals(number).name.encode() + b"\\n")
for number in (signal.SIGTTIN, signal.SIGTTOU):
    signal.signal(number, note)
workers = []
for _ in range(2):
    workers.append(os.fork())
    if not workers[-1]:
        signal.signal(signal.SIGTERM, note)
        signal.signal(signal.SIGHUP, note)
        while True:
            signal.pause()
print(*workers, flush=True)
while True:
    signal.pause()
"""

AGENT = """
import json, os, sys
def serve(settings):
    found = {key: settings[key] for key in ("broker", "main", "minimum", "maximum", "queues")}
    print(json.dumps({"uid": os.getuid(), **found}), flush=True)
    sys.stdin.read()
"""

CONFIGURATION = """
[pools.web]
kind = "gunicorn"
pidfile = "FOLDER/web.pid"
maximum = 4

[pools.other]
kind = "uwsgi"
pidfile = "FOLDER/other.pid"
stats = "FOLDER/stats"
fifo = "FOLDER/fifo"

[pools.queue]
kind = "celery"
pidfile = "FOLDER/web.pid"
broker = "$BROKER"
python = "PYTHON"

[pools.jobs]
kind = "command"
command = ["sleep", "1000"]
maximum = 2
user = "nobody"
drain_timeout = 5

[pools.jobs.queue]
command = ["sh", "-c", "id -u"]
"""

# A brain: all that it does goes to one pool after the other, and it prints what became of it.
BRAIN = """
import json, os, signal, socket, sys
from pathlib import Path
from nicety.models.identity import ProcId
from nicety.scheduler.hands.wire import Asking, Channel
from nicety.scheduler.pools.sensing.acts import Acts

channel, folder = Channel(socket.socket(fileno=int(sys.argv[1]))), Path(sys.argv[2])
master, worker, other = (ProcId(*pair) for pair in json.loads(sys.argv[3]))
web, uwsgi, queue, jobs = (Acts(name, Asking(channel).ask, folder) for name in ("web", "other", "queue", "jobs"))
capabilities = [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapPrm", "CapEff", "CapBnd"))]
found = {"capabilities": [int(text, 16) for text in capabilities]}

def attempt(act):
    try:
        return act()
    except OSError as error:
        return type(error).__name__

found["alone"] = attempt(lambda: os.kill(master.pid, signal.SIGTTIN))
found["signals"] = [web.send(master, 0)[0], web.send(master, signal.SIGTTIN)[0], web.send(worker, signal.SIGTERM)[0]]
found["fifo"] = uwsgi.fifo("++")
stats = uwsgi.stats()
stats.settimeout(10)
found["stats"] = stats.recv(100).decode()
stats.close()
uwsgi.hang_up()
child = jobs.start(1)
status = dict(line.split(":", 1) for line in open(f"/proc/{child.id.pid}/status"))
found["worker"] = [int(status["Uid"].split()[0]), int(status["PPid"]), child.poll()]
found["alone too"] = attempt(lambda: os.kill(child.id.pid, signal.SIGKILL))
found["too early"] = child.kill()
child.drain(signal.SIGTERM)
while (ended := child.poll()) is None:
    pass
child.close()
count = jobs.count()
found["count"] = os.read(count.pipes[0], 100).decode().strip()
count.end()
agent, broker = queue.agent()
found["agent"] = [broker, json.loads(os.read(agent.pipes[1], 4096))]
agent.end()
found["ended"] = [ended, agent.poll()]
left = jobs.start(2)
found["left"] = left.id.pid
print(json.dumps(found))
"""


def lines(process: subprocess.Popen[str]) -> list[str]:
    """What a main process and its workers have said, up to their end."""
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate(timeout=10)[0].splitlines()


class Stage:
    """Two main processes of another user, and a folder with the configuration of four pools."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mains: list[subprocess.Popen[str]] = []
        self.workers: list[list[int]] = []
        for name in ("web", "other"):
            main = subprocess.Popen(
                [sys.executable, "-S", "-c", MASTER, str(NOBODY)], stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            assert main.stdout is not None
            self.mains.append(main)
            self.workers.append([int(word) for word in main.stdout.readline().split()])
            (folder / f"{name}.pid").write_text(f"{main.pid}\n", encoding="ascii")
        self.configuration = folder / "nicety.toml"
        text = CONFIGURATION.replace("FOLDER", str(folder)).replace("PYTHON", SYSTEM_PYTHON)
        self.configuration.write_text(text, encoding="ascii")
        self.configuration.chmod(0o644)
        self.clock = ShiftedClock(SystemClock())
        environ = {**os.environ, "BROKER": "redis://:s3cret@nowhere/0"}
        self.pools = Pools(
            lambda: blocks_of(read(str(self.configuration)).table),
            self.clock,
            environ=environ,
            logs=str(folder / "logs"),
            agent=AGENT,
        )

    def ask(self, operation: str, *arguments: object) -> Any:
        return self.pools.operations()[operation](arguments)[0]

    def process(self, pid: int) -> ProcId:
        found = identify(PROC, pid)
        assert found is not None
        return found

    def signal(self, pool: str, pid: int, number: int) -> None:
        self.ask("pool.signal", pool, *self.process(pid), number)

    def close(self) -> None:
        self.pools.end()
        for main in self.mains:
            if main.poll() is None:
                lines(main)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="another user's processes need root")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv (util-linux)")
@pytest.mark.skipif(not Path(SYSTEM_PYTHON).exists(), reason="no Python that nobody may run")
def test_a_brain_without_capabilities_has_all_that_its_pools_need(stage: Stage) -> None:
    os.mkfifo(stage.folder / "fifo", 0o600)
    stage.clock = ShiftedClock(SystemClock())
    fifo = os.open(stage.folder / "fifo", os.O_RDWR | os.O_NONBLOCK)
    (stage.folder / "other.pid").write_text(f"{os.getpid()}\n", encoding="ascii")  # what reads the FIFO is this process
    ours, theirs = pair()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stage.folder / "stats"))
        listener.listen()
        there = [stage.process(pid) for pid in (stage.mains[0].pid, stage.workers[0][0], stage.mains[1].pid)]
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", BRAIN, str(theirs.fileno())]
        command += [str(stage.folder), json.dumps(there)]
        brain = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, text=True)
        theirs.close()
        operations = stage.pools.operations()

        def stats(arguments: Any) -> Any:
            result = operations["pool.stats"](arguments)
            client, _ = listener.accept()
            with client:
                client.sendall(b"an answer")
            return result

        channel = Channel(ours)
        with contextlib.suppress(GoneError):
            while True:
                answer(channel, {**operations, "pool.stats": stats})
        channel.close()
        found = json.loads(brain.communicate(timeout=20)[0])
    assert found["capabilities"] == [0, 0, 0]
    assert (found["alone"], found["alone too"]) == ("PermissionError", "PermissionError")
    assert found["signals"] == ["applied"] * 3
    assert (found["fifo"], os.read(fifo, 10)) == ("", b"++")
    os.close(fifo)
    assert found["stats"] == "an answer"
    assert found["worker"] == [NOBODY, os.getpid(), None]
    assert found["too early"] is False
    assert found["count"] == str(NOBODY)
    broker = "redis://:s3cret@nowhere/0"
    settings = {"uid": NOBODY, "broker": broker, "main": stage.mains[0].pid, "minimum": 1, "maximum": 8, "queues": ["celery"]}
    assert found["agent"] == [broker, settings]
    assert found["ended"] == [-signal.SIGTERM, -signal.SIGKILL]
    assert identify(PROC, found["left"]) is not None, "the hands know only by the end of the connection that the brain is gone"
    stage.pools.end()
    assert identify(PROC, found["left"]) is None
    assert sorted(lines(stage.mains[0])) == ["SIGTERM", "SIGTTIN"]


def hostile(stage: Stage) -> dict[str, Callable[[], object]]:
    """What a brain may try, by name."""
    web, other = stage.mains[0].pid, stage.mains[1].pid
    (worker, second), (foreign, _) = stage.workers
    ask, send = stage.ask, stage.signal
    stranger = os.getppid()
    killed = {f"signal {n} to the main process": (lambda n=n: send("web", web, n)) for n in (1, 2, 3, 9, 10, 12, 15, 18, 19, 28)}
    return killed | {
        "TERM to pid 1": lambda: send("web", 1, signal.SIGTERM),
        "TERM to a stranger": lambda: send("web", stranger, signal.SIGTERM),
        "TTIN to a stranger": lambda: send("web", stranger, signal.SIGTTIN),
        "TERM to a worker of another pool": lambda: send("web", foreign, signal.SIGTERM),
        "TTIN to the main process of another pool": lambda: send("web", other, signal.SIGTTIN),
        "TTIN to a uWSGI": lambda: send("other", other, signal.SIGTTIN),
        "KILL to a worker": lambda: send("web", worker, signal.SIGKILL),
        "STOP to a worker": lambda: send("queue", second, signal.SIGSTOP),
        "TERM to a uWSGI's worker": lambda: send("other", foreign, signal.SIGTERM),
        "all processes": lambda: ask("pool.signal", "web", -1, 0, signal.SIGTERM),
        "a pid that is true": lambda: ask("pool.signal", "web", True, True, True),
        "a process with this pid before": lambda: ask("pool.signal", "web", web, 1, signal.SIGTTIN),
        "a signal to an unknown pool": lambda: send("nothing", web, signal.SIGTTIN),
        "a signal to a pool that is a list": lambda: ask("pool.signal", ["web"], web, 1, 1),
        "more than + and -": lambda: ask("pool.fifo", "other", "Q"),
        "a reload among +": lambda: ask("pool.fifo", "other", "+r+"),
        "two at once less": lambda: ask("pool.fifo", "other", "--"),
        "nothing for the FIFO": lambda: ask("pool.fifo", "other", ""),
        "a thousand more": lambda: ask("pool.fifo", "other", "+" * 1000),
        "a FIFO of gunicorn": lambda: ask("pool.fifo", "web", "+"),
        "the stats of another path": lambda: ask("pool.stats", "/run/docker.sock"),
        "the stats of a path too": lambda: ask("pool.stats", "other", "/run/docker.sock"),
        "the stats of gunicorn": lambda: ask("pool.stats", "web"),
        "a worker of an unknown pool": lambda: ask("pool.start", "nothing", 1),
        "a worker of a gunicorn": lambda: ask("pool.start", "web", 1),
        "worker 0": lambda: ask("pool.start", "jobs", 0),
        "worker 9": lambda: ask("pool.start", "jobs", 9),
        "a worker with a command": lambda: ask("pool.start", "jobs", 1, ["sh"]),
        "a count of a gunicorn": lambda: ask("pool.count", "web"),
        "an agent for a gunicorn": lambda: ask("pool.agent", "web"),
        "the status of a stranger": lambda: ask("pool.status", "web", stranger),
    }


def test_nothing_of_what_a_hostile_brain_tries_is_done(stage: Stage) -> None:
    attempts = hostile(stage)
    assert len(attempts) > 40
    children = set(Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split())
    outcomes = {}
    for name, attempt in attempts.items():
        try:
            outcomes[name] = repr(attempt())
        except RefusedError:
            continue
        except ProcessLookupError:
            if name not in ("a process with this pid before", "all processes"):
                outcomes[name] = "ESRCH"
    assert outcomes == {}
    assert set(Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()) == children
    assert [main.poll() for main in stage.mains] == [None, None]
    assert [lines(main) for main in stage.mains] == [[], []]


def test_a_signal_goes_only_to_a_process_that_catches_it(stage: Stage) -> None:
    """The default of TTIN is to stop: a pid file that names a stranger must not do that."""
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        (stage.folder / "web.pid").write_text(str(stranger.pid), encoding="ascii")
        stage.signal("web", stranger.pid, 0)
        with pytest.raises(RefusedError, match="does not catch SIGTTIN"):
            stage.signal("web", stranger.pid, signal.SIGTTIN)
        assert Path(f"/proc/{stranger.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] in "SR"
    finally:
        stranger.kill()
        stranger.wait()


def test_the_successor_of_a_gunicorn_is_no_worker(stage: Stage) -> None:
    """On USR2 the main process starts the next one, a child of it that catches SIGTERM."""
    (stage.folder / "web.pid").write_text(str(os.getpid()), encoding="ascii")
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); print(flush=True); signal.pause()"
    for named, refused in ((os.getpid(), True), (1, False)):
        environ = {"GUNICORN_PID": str(named)}
        child = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, env=environ)
        try:
            assert child.stdout is not None
            child.stdout.readline()
            if refused:
                with pytest.raises(RefusedError, match="is to follow the main process"):
                    stage.signal("web", child.pid, signal.SIGTERM)
                assert child.poll() is None
            else:
                stage.signal("web", child.pid, signal.SIGTERM)
                assert child.wait(10) == 9
        finally:
            child.kill()
            child.communicate()


def test_signals_have_a_rate(stage: Stage) -> None:
    web = stage.mains[0].pid
    for _ in range(SIGNALS_AT_ONCE):
        stage.signal("web", web, signal.SIGTTIN)
    refusals = []
    for _ in range(1000):
        try:
            stage.signal("web", web, signal.SIGTTIN)
        except RefusedError as refusal:
            refusals.append(str(refusal))
    assert len(refusals) > 900
    assert set(refusals) == {"too many requests for pool web: at most 10 a second"}
    stage.clock.shift += SECOND
    stage.signal("web", web, signal.SIGTTIN)


def test_a_pool_is_not_taken_out_of_its_limits(stage: Stage) -> None:
    web = stage.mains[0].pid
    text = stage.configuration.read_text(encoding="ascii")
    for limits, number, cause in (
        ("maximum = 4\nminimum = 2", signal.SIGTTOU, "there are 2 workers, at least 2 are wanted"),
        ("maximum = 1", signal.SIGTTIN, ""),  # there were two before us: up to twice as many while some drain
    ):
        stage.configuration.write_text(text.replace("maximum = 4", limits), encoding="ascii")
        assert stage.ask("pool.reload") == ["jobs", "other", "queue", "web"]
        if cause:
            with pytest.raises(RefusedError, match=cause):
                stage.signal("web", web, number)
        else:
            stage.signal("web", web, number)
    stage.pools._sizes[stage.process(web)] = 1
    with pytest.raises(RefusedError, match="there are 2 workers, at most 1 are wanted"):
        stage.signal("web", web, signal.SIGTTIN)


def test_no_more_workers_than_the_maximum_and_one_in_place_of_one(stage: Stage) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    started = [stage.ask("pool.start", "jobs", number) for number in (1, 2, 3)]
    for number in (1, 4, 5):
        with pytest.raises(RefusedError):
            stage.ask("pool.start", "jobs", number)
    with pytest.raises(RefusedError, match="drain_timeout is over"):
        stage.ask("pool.signal", "jobs", *started[0], signal.SIGKILL)
    with pytest.raises(RefusedError, match="drain_timeout is over"):
        stage.ask("pool.signal", "jobs", *started[0], signal.SIGSTOP)
    for pid, _ in started:
        assert identify(PROC, pid) is not None
    stage.pools.end()
    assert [identify(PROC, pid) for pid, _ in started] == [None] * 3


def test_a_pid_file_of_one_user_does_not_name_anothers_process(stage: Stage) -> None:
    if os.geteuid() != 0:
        pytest.skip("a pid file of another user needs root")
    os.chown(stage.folder / "web.pid", 4711, 4711)
    with pytest.raises(RefusedError, match="written by user 4711"):
        stage.signal("web", stage.mains[0].pid, signal.SIGTTIN)
    os.chown(stage.folder / "web.pid", NOBODY, 0)
    stage.signal("web", stage.mains[0].pid, signal.SIGTTIN)


def test_the_hands_read_the_configuration_as_the_brain_does(stage: Stage) -> None:
    text = stage.configuration.read_text(encoding="ascii")
    told = {name: block(pool) for name, pool in parse(text).pools.items()}
    found = blocks_of(read(str(stage.configuration)).table)
    for each in (told, found):
        for name, pool in each.items():
            each[name] = pool._replace(queues=tuple(pool.queues), command=tuple(pool.command), counter=tuple(pool.counter))
    assert told == found
    assert found["jobs"].counter == ("sh", "-c", "id -u")


def test_a_configuration_that_others_may_write_is_not_read(stage: Stage) -> None:
    stage.configuration.chmod(0o666)
    with pytest.raises(RefusedError, match="everybody may write"):
        stage.ask("pool.reload")
    stage.signal("web", stage.mains[0].pid, signal.SIGTTIN)  # the old one stays in force
    stage.configuration.chmod(0o644)
    stage.configuration.write_text("pools = 3\n", encoding="ascii")
    with pytest.raises(RefusedError, match="a section of pools is none"):
        stage.ask("pool.reload")
