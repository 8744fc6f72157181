"""The Celery agent with a Celery that is a puppet, and real processes to hold: who works is never ended, who is held goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nicety.scheduler.hands.pool_children import BOOTSTRAP
from nicety.scheduler.pools.celery.main import bytes_read
from nicety.scheduler.pools.sensing.acts import AGENT
from nicety.scheduler.pools.sensing.signals import read_stat

PROC = Path("/proc")
LIMITS = {"main": os.getpid(), "minimum": 1, "maximum": 4}

# Answers what the file "replies" says, by command, once there is no file "wait"; pool_shrink ends the pid in the file "shrinks".
CELERY = """
import json, os, signal, time
from types import SimpleNamespace

class Celery:
    def __init__(self, name, broker, set_as_current):
        if "nonsense" in broker:
            raise KeyError("no such transport: " + broker)
        self.broker, self.conf, self.control = broker, {}, self
    def broadcast(self, command, arguments, destination, reply, timeout, limit):
        print("a library that prints")
        assert (destination, reply, limit) == (["node"], True, 1)
        with open("log", "a") as log:
            log.write(json.dumps([command, arguments]) + "\\n")
        while os.path.exists("wait"):
            time.sleep(0.01)
        replies = {"ping": {"ok": "pong"}, **json.load(open("replies"))}
        if command == "pool_shrink" and command not in replies:
            os.kill(int(open("shrinks").read()), signal.SIGTERM)
            return [{"node": {"ok": "pool will shrink"}}]
        if command == "raise":
            raise OSError("no way to " + self.broker)
        return [{"node": replies[command]}] if command in replies else []
    def connection_for_read(self):
        raise ConnectionError("refused by " + self.broker)
"""


class Bench:
    """An agent in a folder of its own, and processes that wait in a pipe as Celery's do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "celery").mkdir()
        (folder / "celery" / "__init__.py").write_text(CELERY, encoding="ascii")
        self.replies({})
        self.agents: list[subprocess.Popen[str]] = []
        self.victims: list[subprocess.Popen[bytes]] = []

    def replies(self, replies: dict[str, Any]) -> None:
        (self.folder / "replies").write_text(json.dumps(replies), encoding="ascii")

    def agent(self, broker: str = "redis://:se%20cret@nowhere/0", path: str | None = None) -> subprocess.Popen[str]:
        agent = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP],
            cwd=self.folder,
            env={"PYTHONPATH": str(self.folder) if path is None else path, "CELERY_BROKER_URL": "redis://another"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.agents.append(agent)
        script = AGENT.read_text(encoding="utf-8")
        self.send(agent, {"script": script, "broker": broker, "node": "node", "queues": ["celery"]} | LIMITS)
        return agent

    def send(self, agent: subprocess.Popen[str], message: dict[str, Any]) -> None:
        assert agent.stdin is not None
        agent.stdin.write(json.dumps(message) + "\n")
        agent.stdin.flush()

    def hear(self, agent: subprocess.Popen[str]) -> Any:
        assert agent.stdout is not None
        return json.loads(agent.stdout.readline())

    def ask(self, agent: subprocess.Popen[str], **request: Any) -> Any:
        self.send(agent, {"id": 7, **request})
        answer = self.hear(agent)
        assert answer.pop("id") == 7
        return answer

    def victim(self) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
        """A process that waits in a pipe, and how the agent is told of it."""
        code = "import os, sys\nos.write(1, b'up')\nwhile True:\n    os.read(0, 100)"
        process = subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.victims.append(process)
        assert process.stdout is not None
        assert process.stdout.read(2) == b"up"
        eventually(lambda: state(process.pid) == "S")
        stat, read = read_stat(PROC, process.pid), bytes_read(PROC, process.pid)
        assert stat is not None
        assert read is not None
        (self.folder / "shrinks").write_text(str(process.pid))
        return process, {"pid": process.pid, "start_ticks": stat.start_ticks, "rchar": read}

    def commands(self) -> list[Any]:
        log = self.folder / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def close(self) -> None:
        for agent in self.agents:
            agent.kill()
            agent.communicate()
        for victim in self.victims:
            victim.kill()
            victim.communicate()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def agent(bench: Bench) -> subprocess.Popen[str]:
    agent = bench.agent()
    assert bench.hear(agent) == {"ready": True}
    return agent


def state(pid: int) -> str:
    stat = read_stat(PROC, pid)
    return "X" if stat is None else stat.state


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_stats_tell_what_decides_whether_a_node_may_be_sized(bench: Bench, agent: subprocess.Popen[str]) -> None:
    pool = {"implementation": "celery.concurrency.prefork:TaskPool", "processes": [5, 6], "writes": {"total": 1}}
    bench.replies({"stats": {"pid": 4, "pool": pool}})
    known = {"pid": 4, "implementation": pool["implementation"], "processes": [5, 6], "event_loop": True, "autoscaler": False}
    assert bench.ask(agent, do="stats") == {"ok": known}
    bench.replies({"stats": {"pid": 4, "pool": {"implementation": "x:Y", "writes": "N/A"}, "autoscaler": {"max": 3}}})
    assert bench.ask(agent, do="stats") == {
        "ok": {"pid": 4, "implementation": "x:Y", "processes": [], "event_loop": False, "autoscaler": True}
    }


def test_a_node_that_does_not_answer_or_answers_with_an_error_is_told_as_one(bench: Bench, agent: subprocess.Popen[str]) -> None:
    assert "node did not answer within 8 s: correct node or broker" in bench.ask(agent, do="stats")["error"]
    bench.replies({"pool_grow": {"error": "pool_grow is not supported with autoscale."}})
    assert bench.ask(agent, do="grow", n=2) == {"error": "pool_grow is not supported with autoscale."}
    assert bench.commands()[-1] == ["pool_grow", {"n": 2}]
    assert "there is no request" in bench.ask(agent, do="__init__")["error"]


def test_a_broker_that_cannot_be_asked_is_a_problem_beside_what_the_node_has(bench: Bench, agent: subprocess.Popen[str]) -> None:
    bench.replies({"reserved": [{}, {}]})
    answer = bench.ask(agent, do="load")["ok"]
    assert answer == {"waiting": 0, "reserved": 2, "problem": "ConnectionError: refused by redis://:se%20cret@nowhere/0"}


def test_the_age_of_tasks_is_by_process(bench: Bench, agent: subprocess.Popen[str]) -> None:
    bench.replies({"active": [{"worker_pid": 5, "time_start": 90.0}, {"worker_pid": None, "time_start": None}]})
    assert bench.ask(agent, do="active", wall=100.0) == {"ok": {"5": 10.0}}


def test_an_idle_process_is_stopped_while_celery_shrinks(bench: Bench, agent: subprocess.Popen[str]) -> None:
    process, victim = bench.victim()
    (bench.folder / "wait").touch()
    bench.send(agent, {"id": 7, "do": "shrink", "victims": [victim]})
    eventually(lambda: bench.commands() == [["ping", None]])
    assert state(process.pid) == "T"
    (bench.folder / "wait").unlink()
    assert process.wait(10) == -signal.SIGTERM
    assert bench.hear(agent)["ok"] == {"ended": 1, "obstacle": ""}
    assert bench.commands() == [["ping", None], ["pool_shrink", {"n": 1}]]


def test_a_process_that_has_read_something_is_never_ended(bench: Bench, agent: subprocess.Popen[str]) -> None:
    process, victim = bench.victim()
    assert process.stdin is not None
    process.stdin.write(b"task")
    process.stdin.flush()
    eventually(lambda: bytes_read(PROC, process.pid) == victim["rchar"] + 4)
    for do in ("shrink", "recycle"):
        assert bench.ask(agent, do=do, victims=[victim]) == {"ok": {"ended": 0, "obstacle": "busy"}}
    assert bench.commands() == []
    eventually(lambda: state(process.pid) == "S")


def test_a_stranger_with_the_same_pid_is_never_stopped(bench: Bench, agent: subprocess.Popen[str]) -> None:
    process, victim = bench.victim()
    victim["start_ticks"] += 1
    assert bench.ask(agent, do="recycle", victims=[victim]) == {"ok": {"ended": 0, "obstacle": "gone"}}
    assert state(process.pid) in "SR"


def test_a_process_that_is_no_child_of_the_main_process_is_never_stopped(bench: Bench, agent: subprocess.Popen[str]) -> None:
    shell = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        stat, read = read_stat(PROC, pid), bytes_read(PROC, pid)
        assert stat is not None
        victim = {"pid": pid, "start_ticks": stat.start_ticks, "rchar": read}
        for do in ("shrink", "recycle"):
            assert bench.ask(agent, do=do, victims=[victim]) == {"ok": {"ended": 0, "obstacle": "a stranger"}}
        assert state(pid) in "SR"
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.communicate()


def test_no_more_processes_are_asked_for_than_the_configuration_allows(bench: Bench, agent: subprocess.Popen[str]) -> None:
    bench.replies({"pool_grow": {"ok": "grown"}})
    for number in (-1, 0, 100):
        assert bench.ask(agent, do="grow", n=number) == {"error": "at most 4 processes are wanted"}
    granted = [bench.ask(agent, do="grow", n=2) for _ in range(20)].count({"ok": {}})
    assert granted == len(bench.commands()) <= 4


def test_celerys_no_leaves_the_process_as_it_was(bench: Bench, agent: subprocess.Popen[str]) -> None:
    process, victim = bench.victim()
    bench.replies({"pool_shrink": {"error": 'ValueError("Can\'t shrink pool. All processes busy!")'}})
    assert bench.ask(agent, do="shrink", victims=[victim]) == {"ok": {"ended": 0, "obstacle": "busy"}}
    bench.replies({"pool_shrink": {"error": "something else"}})
    assert bench.ask(agent, do="shrink", victims=[victim]) == {"error": "something else"}
    eventually(lambda: state(process.pid) == "S")


def test_what_waits_in_the_pipe_of_a_recycled_process_is_not_read(bench: Bench, agent: subprocess.Popen[str]) -> None:
    process, victim = bench.victim()
    assert bench.ask(agent, do="recycle", victims=[victim]) == {"ok": {"ended": 1, "obstacle": ""}}
    assert process.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("end", ["input", "SIGTERM"])
def test_an_agent_that_ends_lets_go_of_what_it_holds(bench: Bench, agent: subprocess.Popen[str], end: str) -> None:
    process, victim = bench.victim()
    (bench.folder / "wait").touch()
    bench.send(agent, {"id": 7, "do": "shrink", "victims": [victim]})
    eventually(lambda: state(process.pid) == "T")
    if end == "input":
        assert agent.stdin is not None
        agent.stdin.close()
        agent.stdin = None
    else:
        agent.send_signal(signal.SIGTERM)
    assert agent.wait(10) == 0
    eventually(lambda: state(process.pid) == "S")
    assert os.path.exists(f"/proc/{process.pid}")  # noqa: PTH110


def test_a_python_without_celery_and_a_broker_that_is_none_are_fatal_and_say_what_to_do(bench: Bench) -> None:
    (bench.folder / "empty" / "celery").mkdir(parents=True)
    (bench.folder / "empty" / "celery" / "__init__.py").write_text("raise ImportError('No module named celery')")
    without = bench.agent(path=str(bench.folder / "empty"))
    fatal = bench.hear(without)["fatal"]
    assert "has no Celery" in fatal
    assert "as python" in fatal
    assert without.wait(10) == 0
    assert "correct broker" in bench.hear(bench.agent(broker="nonsense://"))["fatal"]
