"""What every pool adapter keeps, on the fake, on real processes, on a real gunicorn, uvicorn, uWSGI, Celery and supervisord."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicety.models.identity import ProcId
from nicety.scheduler.config.sections import PoolConfig
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.kernel import Clock
from nicety.scheduler.pools.celery.adapter import CeleryPool
from nicety.scheduler.pools.command.adapter import CommandPool
from nicety.scheduler.pools.executor import ExecutorPool
from nicety.scheduler.pools.gunicorn.adapter import GunicornPool
from nicety.scheduler.pools.supervised.adapter import SupervisedPool
from nicety.scheduler.pools.uvicorn.adapter import UvicornPool
from nicety.scheduler.pools.uwsgi.adapter import UwsgiPool
from nicety.scheduler.ports import PoolAdapter
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.driver import PoolDriver
from nicety.scheduler.testing.pool import FakePool
from nicety.scheduler.testing.web import APPLICATION, free_port

KINDS = ("fake", "command", "gunicorn", "uvicorn", "executor", "uwsgi", "celery", "supervisord")
SECOND = 1_000_000_000
MAXIMUM = 6

# Celery looks for missing processes each 5 s: more often only saves the suite's time.
TASKS = """
from celery import Celery
from celery.concurrency.asynpool import AsynPool

app = Celery("tasks", broker="redis://127.0.0.1:PORT/0")
AsynPool.timers = property(lambda pool: {pool.maintain_pool: 0.1})
"""

# uvicorn's supervisor goes round each 0.5 s: more often only saves the suite's time. With one worker there is no supervisor.
SUPERVISOR = """
import threading
from types import SimpleNamespace
import uvicorn
from uvicorn.supervisors import multiprocess

class Event(threading.Event):
    def wait(self, timeout=None):
        return super().wait(0.05)

if __name__ == "__main__":
    multiprocess.threading = SimpleNamespace(Event=Event, Thread=threading.Thread)
    uvicorn.main()
"""

PROGRAM = """
import multiprocessing, signal, sys
from nicety.scheduler.executor import Executor
executor = Executor(int(sys.argv[1]), multiprocessing.get_context("forkserver"), name="web")
executor.submit(int).result()
signal.pause()
"""


# nodaemon: it ends with the test, whatever happens. The workers stop it with their log full of nothing.
SUPERVISORD = """
[unix_http_server]
file=FOLDER/socket
[supervisord]
nodaemon=true
logfile=FOLDER/supervisord.log
pidfile=FOLDER/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://FOLDER/socket
[program:web]
command=sleep 1000
process_name=web_%(process_num)02d
numprocs=MAXIMUM
autostart=false
autorestart=true
startsecs=0
"""


class Rig(PoolDriver):
    """A pool with the means to drive it and to do it harm."""

    def __init__(self, pool: PoolAdapter, clock: Clock, master: subprocess.Popen[bytes] | None = None) -> None:
        super().__init__(pool, clock)
        self.master = master
        self.broker: subprocess.Popen[bytes] | None = None

    def kill(self, worker: ProcId) -> None:
        if isinstance(self.pool, FakePool):
            self.pool.kill(worker)
        else:
            os.kill(worker.pid, signal.SIGKILL)

    def end_master(self) -> None:
        if isinstance(self.pool, FakePool):
            self.pool.end_master()
        else:
            assert self.master is not None
            self.master.terminate()
            self.master.wait(20)

    def close(self) -> None:
        self.pool.close()
        for process in (self.master, self.broker):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(20)


def descriptors() -> dict[str, str]:
    """Our own descriptors and what they are."""
    found = {path.name: path for path in Path("/proc/self/fd").iterdir()}
    return {name: str(path.readlink()) for name, path in sorted(found.items()) if path.is_symlink()}


def start_rig(kind: str, folder: Path) -> Rig:
    if kind == "fake":
        clock = FakeClock(monotonic=1000 * SECOND)
        return Rig(FakePool("web", clock, maximum=MAXIMUM, start_seconds=0.5, drain_seconds=0.2), clock)
    if kind == "command":
        config = PoolConfig(kind="command", command=["sleep", "1000"], maximum=MAXIMUM, drain_timeout=5)
        real = SystemClock()
        return Rig(CommandPool("web", config, real, own_acts("web", config, real, logs=folder), seed=1), real)
    if kind == "executor":
        environ = {"NICETY_RUN_DIR": str(folder)}
        program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(MAXIMUM)], env={**os.environ, **environ})
        real = SystemClock()
        rig = Rig(ExecutorPool("web", PoolConfig(kind="executor"), real, environ=environ), real, program)
        rig.until(lambda s: s.size == 1)  # it may have six workers, but starts them only when they are needed
        return rig
    (folder / "app.py").write_text(APPLICATION, encoding="ascii")
    pidfile = folder / "web.pid"
    if kind == "supervisord":
        return start_supervisord(folder)
    if kind == "uwsgi":
        return start_uwsgi(folder, pidfile)
    if kind == "celery":
        return start_celery(folder, pidfile)
    if kind == "uvicorn":
        return start_uvicorn(folder, pidfile)
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{free_port()}", "--chdir", str(folder), "--pid", str(pidfile)]
    with (folder / "gunicorn.log").open("wb") as output:
        master = subprocess.Popen([*command, "app:application"], stdout=output, stderr=output)
    config = PoolConfig(kind="gunicorn", pidfile=str(pidfile), maximum=MAXIMUM)
    real = SystemClock()
    return Rig(GunicornPool("web", config, real, own_acts("web", config, real)), real, master)


def start_uwsgi(folder: Path, pidfile: Path) -> Rig:
    if not Path("/usr/lib/uwsgi/plugins/python3_plugin.so").exists():
        pytest.skip("no uwsgi with its python3 plugin (Debian: uwsgi-plugin-python3)")
    command = ["uwsgi", "--plugin", "python3", "--http-socket", f"127.0.0.1:{free_port()}", "--wsgi-file", str(folder / "app.py")]
    command += ["--master", "--die-on-term", "--processes", str(MAXIMUM), "--cheaper", "1", "--cheaper-algo", "manual"]
    command += ["--stats", str(folder / "stats"), "--master-fifo", str(folder / "fifo"), "--pidfile", str(pidfile)]
    with (folder / "uwsgi.log").open("wb") as output:
        master = subprocess.Popen(command, stdout=output, stderr=output)
    config = PoolConfig(kind="uwsgi", stats=str(folder / "stats"), fifo=str(folder / "fifo"), pidfile=str(pidfile), maximum=MAXIMUM)
    real = SystemClock()
    return Rig(UwsgiPool("web", config, real, own_acts("web", config, real)), real, master)


def start_supervisord(folder: Path) -> Rig:
    settings = folder / "supervisord.conf"
    settings.write_text(SUPERVISORD.replace("FOLDER", str(folder)).replace("MAXIMUM", str(MAXIMUM)), encoding="ascii")
    with (folder / "output").open("wb") as output:
        master = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(settings)], stdout=output, stderr=output
        )
    ask = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(settings)]
    deadline = time.monotonic() + 20
    while subprocess.run([*ask, "start", "web:web_00"], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, (folder / "output").read_text()
        time.sleep(0.05)
    config = PoolConfig(kind="supervisord", command=ask, unit="web:web_%02d", maximum=MAXIMUM)
    real = SystemClock()
    return Rig(SupervisedPool("web", config, real, own_acts("web", config, real), environ={}), real, master)


def start_uvicorn(folder: Path, pidfile: Path) -> Rig:
    script = folder / "uvicorn"
    script.write_text(SUPERVISOR, encoding="ascii")
    command = [sys.executable, str(script), "--interface", "wsgi", "--app-dir", str(folder), "--port", str(free_port())]
    with (folder / "uvicorn.log").open("wb") as output:
        master = subprocess.Popen([*command, "--workers", "2", "app:application"], stdout=output, stderr=output)
    pidfile.write_text(str(master.pid), encoding="ascii")
    real = SystemClock()
    config = PoolConfig(kind="uvicorn", pidfile=str(pidfile), maximum=MAXIMUM)
    rig = Rig(UvicornPool("web", config, real, own_acts("web", config, real)), real, master)
    try:
        rig.settle(1)
    except BaseException:
        rig.close()
        raise
    return rig


def start_celery(folder: Path, pidfile: Path) -> Rig:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    port, log = free_port(), folder / "celery.log"
    (folder / "tasks.py").write_text(TASKS.replace("PORT", str(port)), encoding="ascii")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    broker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    node = f"{folder.name}@here"
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "1", "-n", node, "-l", "INFO"]
    command += ["--pidfile", str(pidfile)]
    with log.open("wb") as output:
        master = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    config = PoolConfig(kind="celery", broker=f"redis://127.0.0.1:{port}/0", node=node, pidfile=str(pidfile), maximum=MAXIMUM)
    real = SystemClock()
    rig = Rig(CeleryPool("web", config, real, own_acts("web", config, real)), real, master)
    rig.broker = broker
    deadline = time.monotonic() + 30
    while "ready." not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return rig


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = start_rig(request.param, tmp_path_factory.mktemp(request.param))
    yield rig
    rig.close()


@pytest.fixture
def rig(shared: Rig) -> Rig:
    """The pool of its kind with one worker that is up, and nothing under way."""
    shared.settle(1)
    return shared


def test_a_sample_is_sorted_and_whole(rig: Rig) -> None:
    sample = rig.settle(3)
    assert sample.pool == rig.pool.name == "web"
    assert sample.size == len(sample.workers) == 3
    assert list(sample.workers) == sorted(sample.workers, key=lambda w: w.id)
    assert len({worker.id for worker in sample.workers}) == 3
    assert sample.queued in {0.0, None}
    if isinstance(rig.pool, UvicornPool):  # a worker may have any number of requests
        assert {worker.busy for worker in sample.workers} == {None}
        return
    assert all(worker.busy is not None and 0.0 <= worker.busy <= 1.0 for worker in sample.workers)
    rig.until(lambda s: all(worker.busy == 0.0 for worker in s.workers))


def test_a_requested_size_is_reached_both_ways(rig: Rig) -> None:
    status, text = rig.pool.resize(4)
    assert status is Status.APPLIED
    assert "4" in text
    assert rig.pool.read().requested == 4
    grown = rig.until(lambda s: s.size == 4)
    assert rig.pool.resize(2)[0] is Status.APPLIED
    shrunk = rig.until(lambda s: s.size == 2)
    assert {w.id for w in shrunk.workers} < {w.id for w in grown.workers}, "shrinking must not start workers"


def test_a_size_is_never_passed_on_the_way(rig: Rig) -> None:
    rig.pool.resize(MAXIMUM)
    sizes = [sample.size for sample in rig.samples(0.8)]
    rig.until(lambda s: s.size == MAXIMUM)
    sizes += [sample.size for sample in rig.samples(0.5)]
    assert sizes[-1] == MAXIMUM
    assert sizes == sorted(sizes)


def test_a_new_size_replaces_one_under_way(rig: Rig) -> None:
    rig.pool.resize(5)
    rig.pool.probe()
    assert rig.pool.resize(2)[0] is Status.APPLIED
    rig.until(lambda s: s.size == 2 and s.requested == 2)
    assert {sample.size for sample in rig.samples(1.0)} == {2}


def test_the_same_size_again_changes_nothing(rig: Rig) -> None:
    before = rig.settle(2)
    assert rig.pool.resize(2)[0] is Status.UNCHANGED
    after = rig.samples(0.5)[-1]
    assert [w.id for w in after.workers] == [w.id for w in before.workers]


@pytest.mark.parametrize("size", [-1, 0])
def test_an_impossible_size_is_refused_and_changes_nothing(rig: Rig, size: int) -> None:
    status, text = rig.pool.resize(size)
    assert status is Status.REFUSED
    assert str(size) in text
    assert rig.pool.read().requested == 1


def test_start_times_are_measured(rig: Rig) -> None:
    rig.settle(3)
    measured = rig.until(lambda s: s.start_seconds is not None).start_seconds
    assert measured is not None
    assert 0.0 < measured < 10.0


def test_a_killed_worker_is_replaced_and_that_is_nobodys_hand(rig: Rig) -> None:
    before = rig.settle(2)
    rig.samples(1.1)  # a command's worker that ends within its first second has failed to start
    victim = before.workers[0].id
    rig.kill(victim)
    rig.until(lambda s: s.size == 2 and victim not in {w.id for w in s.workers})
    samples = rig.samples(0.5 if isinstance(rig.pool, CommandPool) else 3.5)  # hands are told from crashes after 3 s
    assert {sample.trouble for sample in samples} == {""}
    assert {sample.requested for sample in samples} == {2}


def test_a_recycled_worker_leaves_and_another_comes(rig: Rig) -> None:
    old = rig.settle(2).workers[0].id
    assert rig.pool.recycle(old)[0] is Status.APPLIED
    sample = rig.until(lambda s: s.size == 2 and old not in {w.id for w in s.workers} and all(w.ready for w in s.workers))
    assert sample.requested == 2
    assert sample.trouble == ""
    assert rig.pool.recycle(old)[0] is Status.VANISHED


def test_a_stranger_is_never_recycled(rig: Rig) -> None:
    own = ProcId(os.getpid(), 1)
    assert rig.pool.recycle(own)[0] is Status.VANISHED


@pytest.mark.parametrize("kind", ["fake", "gunicorn", "uvicorn", "executor", "uwsgi", "celery", "supervisord"])
def test_a_master_that_ends_is_trouble_and_no_exception(kind: str, tmp_path: Path) -> None:
    rig = start_rig(kind, tmp_path)
    try:
        rig.until(lambda s: s.size == 1 and not s.trouble)
        rig.end_master()
        sample = rig.until(lambda s: s.master is None and s.trouble)
        assert (sample.size, sample.workers, sample.queued) == (0, (), None)
        status, text = rig.pool.resize(3)
        assert status is Status.REFUSED
        assert text == rig.pool.read().trouble
    finally:
        rig.close()


@pytest.mark.parametrize("kind", KINDS)
def test_closing_gives_descriptors_back_and_probing_goes_on_without_harm(kind: str, tmp_path: Path) -> None:
    before = descriptors()
    rig = start_rig(kind, tmp_path)
    try:
        workers = [w.id.pid for w in rig.until(lambda s: s.size == 1 and not s.trouble).workers]
        rig.pool.close()
        assert descriptors() == before
        if kind in {"gunicorn", "uvicorn", "executor", "uwsgi", "celery", "supervisord"}:
            assert Path(f"/proc/{workers[0]}").exists(), "a foreign pool is left as it is"
        if kind == "command":
            assert not Path(f"/proc/{workers[0]}").exists(), "a pool of our own ends with us"
        rig.pool.probe()
        rig.pool.close()
        assert rig.pool.read().size == 0 or kind == "fake"
    finally:
        rig.close()
