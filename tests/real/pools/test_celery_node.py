"""The Celery adapter with an agent and a main process that are puppets, on a clock that can jump."""

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

from nicety.models.records import PoolSample
from nicety.scheduler.config.sections import ConfigError, PoolConfig, parse
from nicety.scheduler.hands.celery import environment, interpreter, user_of
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.wire import RefusedError
from nicety.scheduler.pools.build import build
from nicety.scheduler.pools.celery.adapter import GROWN_NS, LATE_NS, CeleryPool
from nicety.scheduler.pools.celery.link import ANSWER_NS, START_NS, AgentLink
from nicety.scheduler.pools.celery.main import PoolProcess
from nicety.scheduler.pools.sensing.acts import Child
from nicety.scheduler.pools.sensing.busy import Doing
from nicety.scheduler.pools.sensing.hands_off import HANDS_OFF_NS
from nicety.scheduler.pools.sensing.pidfile import named
from nicety.scheduler.testing.acts import own_acts
from nicety.scheduler.testing.clock import FakeClock, ShiftedClock
from nicety.scheduler.testing.driver import PoolDriver

SECOND = 1_000_000_000
PROC = Path("/proc")

# A main process with children that wait in pipes: "+" starts one, "-PID" ends one, "!PID" gives one work for ever.
MAIN = """
import os, signal, sys
pipes = {}
for line in sys.stdin:
    word = line.strip()
    if word == "+":
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(reader, 1)
            while True:
                pass
        pipes[pid] = writer
        print(pid, flush=True)
    elif word[0] == "-":
        os.kill(int(word[1:]), signal.SIGKILL)
        os.waitpid(int(word[1:]), 0)
        print("gone", flush=True)
    else:
        os.write(pipes[int(word[1:])], b"x")
        print("busy", flush=True)
"""

# An agent that writes down what it is asked and answers what the folder's "answers" say, by request; without an answer it hangs.
AGENT = """
import json, os, sys

def serve(settings):
    folder = settings["node"]
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        with open(os.path.join(folder, "asked"), "a") as log:
            log.write(line)
        with open(os.path.join(folder, "answers")) as file:
            answers = json.load(file)
        if request["do"] in answers:
            answer = answers[request["do"]]
            if answer == "die":
                for victim in request["victims"]:
                    os.kill(victim["pid"], 19)
                sys.exit("a last word")
            print(json.dumps({"id": request["id"], **answer}), flush=True)
"""


class Bench:
    """A puppet worker and its adapter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids: list[int] = []
        self.main = self.start()
        self.answers: dict[str, Any] = {"load": {"ok": {"waiting": 3, "reserved": 2, "problem": ""}}, "active": {"ok": {}}}
        self.answer(grow={"ok": {}})
        self.clock = ShiftedClock(SystemClock(), sleeps=False)
        # the agent gets the folder as name of the node
        config = PoolConfig(kind="celery", pidfile=str(self.pidfile), broker="$BROKER", node=str(folder), maximum=16)
        acts = own_acts("jobs", config, self.clock, environ={"BROKER": "redis://nowhere"}, agent=AGENT)
        self.pool = CeleryPool("jobs", config, self.clock, acts)

    @property
    def pidfile(self) -> Path:
        return self.folder / "pid"

    def start(self) -> subprocess.Popen[str]:
        """A main process that writes its pid."""
        self.main = subprocess.Popen([sys.executable, "-S", "-c", MAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pidfile.write_text(f"{self.main.pid}\n", encoding="ascii")
        return self.main

    def tell(self, word: str) -> str:
        assert self.main.stdin is not None
        assert self.main.stdout is not None
        self.main.stdin.write(word + "\n")
        self.main.stdin.flush()
        return self.main.stdout.readline().strip()

    def grow(self, count: int) -> None:
        self.pids += [int(self.tell("+")) for _ in range(count)]
        self.stats()

    def end(self, pid: int) -> None:
        self.pids.remove(pid)
        self.stats()
        self.tell(f"-{pid}")

    def answer(self, **answers: Any) -> None:
        self.answers.update(answers)
        new = self.folder / "new"
        new.write_text(json.dumps(self.answers), encoding="ascii")
        new.rename(self.folder / "answers")

    def stats(self, **more: Any) -> None:
        found = {"pid": self.main.pid, "implementation": "celery.concurrency.prefork:TaskPool", "processes": self.pids}
        self.answer(stats={"ok": {**found, "event_loop": True, "autoscaler": False, **more}})

    def asked(self, do: str) -> list[dict[str, Any]]:
        path = self.folder / "asked"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if line["do"] == do]

    def until(self, condition: Callable[[PoolSample], object]) -> PoolSample:
        return PoolDriver(self.pool, SystemClock(), tick=0.01, interval=0.01).until(condition)

    def shift(self, ns: int) -> None:
        """Let time pass while the agent owes no answer: it would count as hung."""
        self.until(lambda _: (main := self.pool._main.present) is not None and main.link.ready())
        self.clock.shift += ns

    def up(self, count: int) -> PoolSample:
        """Settled with so many processes."""
        self.grow(count)
        self.until(lambda s: s.size == count and not s.trouble)
        self.shift(2 * SECOND)
        return self.until(lambda s: s.requested == count)

    def close(self) -> None:
        self.pool.close()
        for pid in list(self.pids):
            self.end(pid)
        self.main.kill()
        self.main.communicate()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


# --- the adapter ---------------------------------------------------------------------------------------------------------------


def test_busy_and_queued_are_what_kernel_and_agent_say(bench: Bench) -> None:
    bench.up(2)
    assert bench.tell(f"!{bench.pids[1]}") == "busy"
    sample = bench.until(lambda s: s.queued is not None and [w.busy for w in s.workers] == [0.0, 1.0])
    assert sample.queued == 5.0
    assert [w.id.pid for w in sample.workers] == bench.pids
    assert sample.master is not None
    assert sample.master.pid == bench.main.pid


def test_a_child_that_the_node_does_not_name_is_no_worker(bench: Bench) -> None:
    bench.up(1)
    other = int(bench.tell("+"))
    asked = len(bench.asked("stats"))
    bench.until(lambda _: len(bench.asked("stats")) > asked)
    sample = bench.until(lambda s: s.workers and s.workers[0].ready)
    assert [worker.id.pid for worker in sample.workers] == bench.pids[:1]
    assert other not in bench.pids
    bench.tell(f"-{other}")


def test_a_growth_is_asked_for_once_and_again_only_when_nothing_came_of_it(bench: Bench) -> None:
    bench.up(1)
    assert bench.pool.resize(4)[0] is Status.APPLIED
    bench.until(lambda _: bench.asked("grow"))
    bench.shift(10 * SECOND)
    bench.until(lambda s: s.queued is not None)
    assert [request["n"] for request in bench.asked("grow")] == [3]
    bench.shift(GROWN_NS)
    bench.until(lambda _: len(bench.asked("grow")) == 2)
    bench.grow(3)
    sample = bench.until(lambda s: s.size == 4 and s.start_seconds is not None)
    assert sample.start_seconds is not None
    assert 0.0 <= sample.start_seconds < 10.0
    assert (sample.requested, sample.trouble) == (4, "")


def test_processes_that_come_late_after_they_were_asked_for_again_are_ended_and_nobody_elses(bench: Bench) -> None:
    bench.answer(shrink={"ok": {"ended": 0, "obstacle": "busy"}})
    bench.up(1)
    bench.pool.resize(4)
    bench.until(lambda _: bench.asked("grow"))
    bench.shift(GROWN_NS)
    bench.until(lambda _: len(bench.asked("grow")) == 2)
    bench.grow(6)
    sample = bench.until(lambda s: s.size == 7 and len(bench.asked("shrink")) > 3)
    assert (sample.requested, sample.trouble) == (4, "")
    assert len(bench.asked("shrink")[0]["victims"]) == 3


def late(bench: Bench, after: int) -> None:
    """A growth by two is not answered, and the two come so many ns later."""
    bench.up(1)
    bench.answer(grow={"error": "no answer"})
    bench.pool.resize(3)
    bench.until(lambda _: bench.asked("grow"))
    bench.until(lambda s: s.trouble)
    bench.stats()
    bench.until(lambda s: s.requested == 1 and not s.trouble)
    bench.shift(after)
    bench.grow(2)
    bench.until(lambda s: s.size == 3)
    bench.shift(3 * SECOND)


def test_a_growth_without_an_answer_that_comes_late_is_no_operators(bench: Bench) -> None:
    late(bench, GROWN_NS + SECOND)
    assert bench.until(lambda s: s.requested == 3).trouble == ""


def test_an_operator_is_yielded_to_a_minute_after_a_growth_was_lost(bench: Bench) -> None:
    late(bench, GROWN_NS + LATE_NS)
    assert "resized by hand to 3" in bench.until(lambda s: s.trouble).trouble


def test_a_node_that_never_grows_is_reported_and_left_alone(bench: Bench) -> None:
    bench.up(1)
    bench.pool.resize(2)
    for count in range(1, 5):
        bench.until(lambda _, count=count: len(bench.asked("grow")) == count)  # type: ignore[misc]
        bench.shift(GROWN_NS)
    sample = bench.until(lambda s: s.trouble)
    assert "said 4 times that its pool grows" in sample.trouble
    assert bench.pool.resize(3)[0] is Status.FAILED


def test_only_the_process_that_celery_would_take_is_named_and_only_while_it_is_idle(bench: Bench) -> None:
    bench.answer(shrink={"ok": {"ended": 0, "obstacle": "busy"}})
    bench.up(3)
    bench.tell(f"!{bench.pids[0]}")
    bench.until(lambda s: s.workers[0].busy == 1.0)
    bench.pool.resize(1)
    bench.until(lambda _: len(bench.asked("active")) >= 2)
    assert bench.asked("shrink") == [], "the first in the pool's order is at a short task: Celery might take it in the wrong moment"
    bench.answer(active={"ok": {str(bench.pids[0]): 60.0}})
    bench.until(lambda _: bench.asked("shrink"))
    assert [victim["pid"] for victim in bench.asked("shrink")[0]["victims"]] == bench.pids[1:3]


def test_a_shrink_is_asked_for_again_while_processes_are_busy(bench: Bench) -> None:
    bench.answer(shrink={"ok": {"ended": 0, "obstacle": "busy"}})
    bench.up(2)
    bench.pool.resize(1)
    bench.until(lambda _: len(bench.asked("shrink")) >= 3)
    sample = bench.pool.read()
    assert (sample.size, sample.requested, sample.trouble) == (2, 1, "")


def test_a_size_that_somebody_else_set_is_left_alone_for_a_minute_of_quiet(bench: Bench) -> None:
    bench.up(2)
    bench.grow(1)
    bench.until(lambda s: s.size == 3)
    bench.shift(2 * SECOND)
    sample = bench.until(lambda s: s.trouble)
    assert sample.trouble.startswith("resized by hand to 3 processes (2 were asked for)")
    assert bench.pool.resize(1) == (Status.FOREIGN, sample.trouble)
    bench.shift(HANDS_OFF_NS)
    assert bench.until(lambda s: not s.trouble).requested == 3


def test_another_main_process_is_followed_and_gets_an_agent_of_its_own(bench: Bench) -> None:
    """Also while the old one still runs; whoever resized that one has not resized this one."""
    bench.up(2)
    bench.grow(1)
    old = bench.until(lambda s: s.size == 3).master
    bench.shift(2 * SECOND)
    assert "resized by hand to 3 processes (2 were asked for)" in bench.until(lambda s: s.trouble).trouble
    assert bench.pool.resize(5)[0] is Status.FOREIGN
    first, children, before = bench.main, bench.pids, bench.pool._main.present
    try:
        bench.pids = []
        bench.start()
        bench.grow(2)
        bench.clock.shift += 2 * SECOND
        new = bench.until(lambda s: s.size == 2 and not s.trouble)
        assert new.master is not None
        assert (new.master.pid, new.master != old) == (bench.main.pid, True)
        assert {worker.id.pid for worker in new.workers} == set(bench.pids)
        assert bench.pool._main.present is not before
        assert bench.pool.resize(4)[0] is Status.APPLIED
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        first.kill()
        first.communicate()


def test_a_lost_process_is_nobodys_hand_unless_it_stays_away(bench: Bench) -> None:
    bench.up(2)
    bench.end(bench.pids[0])
    bench.until(lambda s: s.size == 1)
    bench.shift(6 * SECOND)
    assert bench.until(lambda s: s.size == 1).trouble == ""
    bench.grow(1)
    bench.until(lambda s: s.size == 2)
    bench.shift(6 * SECOND)
    assert bench.until(lambda s: s.queued is not None).trouble == ""
    asked = len(bench.asked("stats"))
    bench.end(bench.pids[0])
    bench.until(lambda s: s.size == 1 and len(bench.asked("stats")) > asked)
    bench.shift(9 * SECOND)
    assert "resized by hand to 1 processes (2 were" in bench.until(lambda s: s.trouble).trouble


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"pid": 1}, "answers as pid 1, not"),
        ({"autoscaler": True}, "runs with --autoscale and sizes itself: start it without"),
        ({"implementation": "celery.concurrency.gevent:TaskPool", "processes": []}, "is gevent, only prefork"),
        ({"implementation": ""}, "is unknown, only prefork"),
        ({"event_loop": False}, "has no event loop"),
    ],
)
def test_a_node_that_must_not_be_sized_is_refused_with_cause_and_next_step(bench: Bench, wrong: dict[str, Any], words: str) -> None:
    bench.grow(1)
    bench.stats(**wrong)
    sample = bench.until(lambda s: words in s.trouble)
    assert sample.size == 0
    assert bench.pool.resize(2) == (Status.REFUSED, sample.trouble)
    bench.stats()
    bench.shift(6 * SECOND)
    bench.until(lambda s: s.size == 1 and not s.trouble)


def test_a_node_that_does_not_answer_is_asked_ever_less_often(bench: Bench) -> None:
    bench.up(1)
    bench.answer(stats={"error": "no reply: correct node"}, load={"error": "no reply: correct node"})
    sample = bench.until(lambda s: s.trouble)
    assert sample.trouble.endswith("cannot be asked: no reply: correct node")
    assert (sample.size, sample.queued) == (1, None)
    for _ in range(8):
        asked = len(bench.asked("stats"))
        bench.shift(31 * SECOND)
        bench.until(lambda _, asked=asked: len(bench.asked("stats")) > asked)  # type: ignore[misc]
    asked = len(bench.asked("stats"))
    bench.shift(25 * SECOND)
    for _ in range(20):
        bench.pool.probe()
        time.sleep(0.01)
    assert len(bench.asked("stats")) == asked
    bench.stats()
    bench.shift(10 * SECOND)
    bench.until(lambda s: not s.trouble)


def test_an_agent_that_dies_in_a_shrink_leaves_nothing_stopped(bench: Bench) -> None:
    bench.up(2)
    bench.answer(shrink="die")
    bench.pool.resize(1)
    sample = bench.until(lambda s: s.trouble)
    assert "it ended with status 1 (a last word)" in sample.trouble
    victim = bench.asked("shrink")[0]["victims"][0]["pid"]
    deadline = time.monotonic() + 5
    while Path(f"/proc/{victim}/stat").read_text().rpartition(")")[2].split()[0] == "T":
        assert time.monotonic() < deadline


def test_a_queue_that_cannot_be_counted_is_no_trouble(bench: Bench) -> None:
    bench.answer(load={"ok": {"waiting": 0, "reserved": 1, "problem": "the broker has no queue 'x': correct queues"}})
    bench.up(1)
    asked = len(bench.asked("load"))
    sample = bench.until(lambda _: len(bench.asked("load")) > asked + 1)
    assert (sample.queued, sample.trouble) == (None, "")


def test_a_stranger_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        pidfile = tmp_path / "pid"
        pidfile.write_text(f"{sleeper.pid}\n")
        config = PoolConfig(kind="celery", pidfile=str(pidfile), broker="redis://nowhere")
        pool = CeleryPool("jobs", config, SystemClock(), own_acts("jobs", config, SystemClock()))
        pool.probe()
        assert f"should be pid {sleeper.pid}, which is no Python (it runs " in pool.read().trouble
        assert pool.resize(2)[0] is Status.REFUSED
        pool.close()
        config = PoolConfig(kind="celery", pid=os.getpid(), broker="$NOWHERE")
        unset = CeleryPool("jobs", config, SystemClock(), own_acts("jobs", config, SystemClock(), environ={}))
        unset.probe()
        assert "has the environment variable NOWHERE" in unset.read().trouble
        unset.close()
    finally:
        sleeper.kill()
        sleeper.wait()


# --- the link ------------------------------------------------------------------------------------------------------------------


class Talk:
    """A link to a puppet agent, on a fake clock."""

    def __init__(self, code: str, broker: str = "memory://") -> None:
        self.clock = FakeClock(monotonic=1000 * SECOND)
        self.launched = 0
        text = f"import sys, json, time, os\ndef serve(settings):\n    {code}\n"
        config = PoolConfig(kind="celery", pid=os.getpid(), broker=broker, python=sys.executable)
        self._acts = own_acts("jobs", config, self.clock, agent=text)
        self.link = AgentLink("jobs", self.launch)

    def launch(self) -> tuple[Child, str]:
        self.launched += 1
        return self._acts.agent()

    def until(self, condition: Callable[[], object]) -> list[Any]:
        """Answers, until the condition holds."""
        answers: list[Any] = []
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, self.link.problem
            answer = self.link.step(self.clock.monotonic())
            answers += [] if answer is None else [answer]
            time.sleep(0.005)
        return answers

    def ready(self) -> None:
        self.until(self.link.ready)


READY = "print('{\"ready\": true}', flush=True); "


def test_requests_are_answered_one_at_a_time() -> None:
    talk = Talk(READY + "[print(json.dumps({'id': json.loads(l)['id'], 'ok': l.count('n')}), flush=True) for l in sys.stdin]")
    talk.ready()
    for number in range(3):
        talk.link.ask(talk.clock.monotonic(), "grow", n=number)
        assert not talk.link.ready()
        answers = talk.until(talk.link.ready)
        assert [(a.do, a.error, a.lost) for a in answers] == [("grow", "", False)]
    assert talk.link.problem == ""
    assert talk.launched == 1
    talk.link.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sys.exit('cannot go on')", "it ended with status 1 (cannot go on)"),
        ("print('hello', flush=True); time.sleep(1000)", "it wrote 'hello', which is no answer"),
        ('print(\'{"fatal": "no Celery: give python"}\', flush=True); time.sleep(1000)', "no Celery: give python"),
        ("print('x' * 2000000, end='', flush=True); time.sleep(1000)", "is longer than"),
    ],
)
def test_an_agent_that_fails_is_started_again_ever_later(code: str, words: str) -> None:
    talk = Talk(code)
    for number, wait in enumerate((1, 2, 4), 1):
        talk.until(lambda number=number: talk.launched == number)  # type: ignore[misc]
        talk.until(lambda: talk.link._process is None)
        assert words in talk.link.problem
        talk.clock.advance(wait * SECOND - 1)
        talk.link.step(talk.clock.monotonic())
        assert talk.launched == number
        talk.clock.advance(1)
    talk.link.close()


@pytest.mark.parametrize(
    "code",
    [
        "sys.exit('cannot use ' + settings['broker'])",
        "print(settings['broker'], flush=True); time.sleep(1000)",
        "print(json.dumps({'fatal': 'no way to ' + settings['broker']}), flush=True); time.sleep(1000)",
        "raise ValueError('netloc :p%40ss@w0rd@nowhere')",
        READY + "sys.exit('AUTH p@ss@w0rd')",
    ],
)
def test_no_end_of_an_agent_shows_the_password_of_the_broker(code: str, caplog: pytest.LogCaptureFixture) -> None:
    talk = Talk(code, "redis://:p%40ss@w0rd@nowhere/0")
    talk.until(lambda: talk.link.problem)
    said = " ".join([talk.link.problem, *(record.getMessage() for record in caplog.records)])
    assert "**" in said
    assert "w0rd" not in said
    talk.link.close()


def test_no_answer_of_an_agent_shows_the_password_of_the_broker() -> None:
    said = "{'id': json.loads(l)['id'], 'ok': {'problem': ['refused by ' + settings['broker']]}, 'error': 'AUTH se cret'}"
    talk = Talk(READY + f"[print(json.dumps({said}), flush=True) for l in sys.stdin]", "redis://:se%20cret@nowhere/0")
    talk.ready()
    talk.link.ask(talk.clock.monotonic(), "load")
    (answer,) = talk.until(talk.link.ready)
    assert (answer.result, answer.error) == ({"problem": ["refused by redis://:**@nowhere/0"]}, "AUTH **")
    talk.link.close()


def test_an_agent_that_hangs_is_ended_and_its_request_is_lost() -> None:
    talk = Talk("time.sleep(1000)")
    talk.until(lambda: talk.launched == 1)
    talk.clock.advance(START_NS)
    talk.until(lambda: "was not up after" in talk.link.problem)
    talk.link.close()
    talk = Talk(READY + "time.sleep(1000)")
    talk.ready()
    talk.link.ask(talk.clock.monotonic(), "shrink")
    talk.clock.advance(ANSWER_NS - 1)
    assert talk.link.step(talk.clock.monotonic()) is None
    talk.clock.advance(1)
    answer = talk.link.step(talk.clock.monotonic())
    assert answer is not None
    assert (answer.do, answer.lost) == ("shrink", True)
    assert "did not answer 'shrink' within" in answer.error == talk.link.problem
    talk.link.close()


def test_a_program_that_cannot_be_started_is_said_and_tried_again() -> None:
    config = PoolConfig(kind="celery", pid=os.getpid(), broker="memory://", python="/nowhere/python")
    link = AgentLink("jobs", own_acts("jobs", config, FakeClock()).agent)
    link.step(1)
    assert "cannot be started: " in link.problem
    assert "/nowhere/python" in link.problem
    link.close()


# --- the main process ----------------------------------------------------------------------------------------------------------


def test_the_interpreter_is_found_by_the_name_that_leads_to_its_environment(tmp_path: Path) -> None:
    linked = tmp_path / "venv" / "bin" / "python3"
    linked.parent.mkdir(parents=True)
    linked.symlink_to(Path(sys.executable).resolve())
    code = "import sys; print(flush=True); sys.stdin.read()"
    for command, path in (([str(linked)], ""), (["python3"], f"relative:{linked.parent}")):
        process = subprocess.Popen(
            [*command, "-S", "-c", code], executable=linked, env={"PATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            process.stdout.readline()
            found = interpreter("/proc", process.pid, environment("/proc", process.pid))
            assert found == str(linked)
        finally:
            process.kill()
            process.communicate()


def test_a_name_that_is_not_the_file_that_runs_is_never_taken(tmp_path: Path) -> None:
    impostor = tmp_path / "python3"
    impostor.write_text("#!/bin/sh\nexit 1\n")
    impostor.chmod(0o755)
    process = subprocess.Popen(
        [str(impostor), "-S", "-c", "import sys; print(flush=True); sys.stdin.read()"],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        found = interpreter("/proc", process.pid, {})
        assert Path(found).samefile(sys.executable)
        assert found != str(impostor)
    finally:
        process.kill()
        process.communicate()


def test_user_and_pid_file_problems_are_told_with_the_next_step(tmp_path: Path) -> None:
    user = user_of("/proc", os.getpid())
    assert (user.uid, user.gid) == (os.getuid(), os.getgid())
    with pytest.raises(RefusedError, match="has ended"):
        user_of("/proc", 1 << 22)
    config = PoolConfig(kind="celery", pidfile=str(tmp_path / "pid"))
    assert "does not exist: start the worker with --pidfile" in str(named(PROC, config, None))
    (tmp_path / "pid").write_text("many")
    assert "holds 'many', which is no pid" in str(named(PROC, config, None))
    (tmp_path / "pid").write_text(f"{1 << 22}")
    assert "does not run: it is stale" in str(named(PROC, config, None))


def test_a_read_from_a_pipe_of_its_own_is_work() -> None:
    code = "import os, sys\nr, w = os.pipe()\nprint(flush=True)\nsys.stdin.readline() if sys.argv[1] == 'inbox' else os.read(r, 1)"
    for argument, doing in (("inbox", Doing.IDLE), ("own", Doing.BUSY)):
        process = subprocess.Popen([sys.executable, "-S", "-c", code, argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            view = PoolProcess(PROC, process.pid, os.getpid())
            deadline = time.monotonic() + 5
            while Path(f"/proc/{process.pid}/syscall").read_text().split()[0] in {"running", "-1"}:
                assert time.monotonic() < deadline
            assert view.look() is doing
            process.kill()
            process.wait()
            assert view.look() is Doing.GONE
            view.close()
        finally:
            process.kill()
            process.communicate()


# --- configuration -------------------------------------------------------------------------------------------------------------


def test_the_configuration_is_checked_and_built(tmp_path: Path) -> None:
    config = parse(
        '[pools.jobs]\nkind = "celery"\npidfile = "/run/celery.pid"\nbroker = "redis://127.0.0.1/0"\nqueues = ["a", "b"]\n'
    )
    assert isinstance(build(config, FakeClock(), state_dir=tmp_path)["jobs"], CeleryPool)
    with pytest.raises(ConfigError) as wrong:
        parse('[pools.jobs]\nkind = "celery"\nbroker = "localhost"\nqueues = ["a"]\nminimum = 0\n')
    text = str(wrong.value)
    for words in ("give pidfile", "at least one worker", "an environment variable, "):
        assert words in text
    with pytest.raises(ConfigError, match="queues"):
        parse('[pools.jobs]\nkind = "celery"\npid = 12\nqueues = []\n')


def test_the_daemon_never_loads_celery() -> None:
    code = (
        "import sys, nicety.scheduler.daemon, nicety.scheduler.pools.celery.adapter; print({'celery', 'kombu'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
