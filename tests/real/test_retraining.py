"""Training in the background with real processes: idle, in its limits, one at a time, gone with the daemon, never waited for."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import typer
from typer.core import TyperGroup

from nicety.models.anomaly.detectors import KINDS
from nicety.models.artifact import FEATURES, Card, DataRange, promote, save
from nicety.models.identity import ProcId
from nicety.scheduler.config.paths import Loaded, Paths
from nicety.scheduler.config.sections import Models, parse
from nicety.scheduler.daemon import Daemon
from nicety.scheduler.explain.logstream import INFO, NOTICE, WARNING
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.ledger import StateLock
from nicety.scheduler.observe.observer import Observer
from nicety.scheduler.service.background import GRACE_NS
from nicety.scheduler.service.retraining import TRAINING, News, Retraining
from nicety.scheduler.testing.hands import daemon_in_process
from nicety.training import cli as training

HOUR = 3_600_000_000_000
SECOND = 1_000_000_000
RESULT = {
    "models": {
        "demand": {"outcome": "refused", "reason": "cpu 0.9 does not beat experts 0.8", "digest": ""},
        "anomaly": {"outcome": "not trained", "reason": "the traces have no pool", "digest": ""},
        "behaviour": {"outcome": "promoted", "reason": "loss 0.1", "digest": "ab" * 32},
    }
}

T = TypeVar("T")


def until(probe: Callable[[], T | None], seconds: float = 120.0) -> T:
    """The first true value of `probe`. On a busy machine what is idle takes its time."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def saved_anomaly(models: Path, interval: float = 1.0) -> str:
    tails = {f"{kind}_tail": np.array([0.0, 0.2, 0.1, 1.0]) for kind in KINDS}
    arrays = {**tails, **{f"{kind}_seen": np.arange(3.0) for kind in KINDS}}
    data = DataRange(1, 2, 3600, 200, 40, "")
    return save(models, "anomaly", Card("anomaly", interval, data, (), "1", 5, 2, FEATURES["anomaly"]), arrays)


class Trial:
    """A retraining whose training is a script of the test's, at a time that the test sets."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.models = place / "models"
        self.now = 0
        self.retraining = Retraining(self.models, ("--state-dir", str(place)), (sys.executable, str(place / "training.py")))

    def begin(self, code: str, seconds: float = 100.0, memory: int = 1 << 30) -> int:
        """Let a training begin that does this; its pid."""
        (self.place / "training.py").write_text(code)
        self.retraining.configure(Models(retrain_hours=1.0, retrain_seconds=seconds, retrain_bytes=memory), self.now)
        self.now += HOUR
        news = self.retraining.tick(self.now)
        assert [priority for priority, _ in news.said] == [INFO], news
        return self.pid()

    def pid(self) -> int:
        state = self.retraining.state(self.now)
        assert state.startswith("pid "), state
        return int(state.split()[1].rstrip(","))

    def end(self) -> News:
        """Turns until there is news of the end; none of them may take time."""

        def turn() -> News | None:
            began = time.monotonic()
            news = self.retraining.tick(self.now)
            assert time.monotonic() - began < 5, "a turn has waited"
            return news if news.said else None

        return until(turn)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    made = Trial(tmp_path)
    yield made
    made.retraining.close()


SLEEP = "import time\ntime.sleep(60)\n"


# --- when ---------------------------------------------------------------------------------------------------------------------


def test_it_is_off_by_default(trial: Trial) -> None:
    trial.retraining.configure(Models(), 0)
    assert trial.retraining.tick(10**9 * HOUR) == News()
    assert trial.retraining.state(0) == "off"


def test_the_first_comes_after_its_hours_and_each_later_one_after_as_many_of_rest(trial: Trial) -> None:
    (trial.place / "training.py").write_text("")
    trial.retraining.configure(Models(retrain_hours=2.0), 5 * HOUR)
    assert trial.retraining.tick(7 * HOUR - 1) == News()
    assert trial.retraining.state(6 * HOUR) == "in 1 h 0 min"
    assert trial.retraining.tick(7 * HOUR).said
    trial.now = 10 * HOUR
    trial.end()
    assert trial.retraining.tick(12 * HOUR - 1) == News()
    assert trial.retraining.tick(12 * HOUR).said


def test_a_second_one_does_not_begin_while_one_runs(trial: Trial) -> None:
    first = trial.begin(SLEEP, seconds=86_400)
    trial.now += 3 * HOUR
    assert trial.retraining.tick(trial.now) == News()
    assert trial.pid() == first


def test_a_reload_with_the_same_hours_does_not_put_it_off(trial: Trial) -> None:
    (trial.place / "training.py").write_text("")
    config = Models(retrain_hours=1.0)
    trial.retraining.configure(config, 0)
    trial.retraining.configure(config, HOUR - 1)
    assert trial.retraining.tick(HOUR).said


def test_switched_off_what_runs_is_ended(trial: Trial) -> None:
    pid = trial.begin(SLEEP)
    trial.retraining.configure(Models(), trial.now)
    ((priority, text),) = trial.end().said
    assert (priority, alive(pid)) == (WARNING, False)
    assert "models.retrain_hours is 0 now" in text
    assert trial.retraining.state(trial.now) == "off"


# --- how ----------------------------------------------------------------------------------------------------------------------


def test_it_gets_only_what_nobody_else_wants(trial: Trial) -> None:
    pid = trial.begin(SLEEP)
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    autogroup = Path(f"/proc/{pid}/autogroup")
    if autogroup.exists():
        assert autogroup.read_text().split()[-1] == "19"


@pytest.mark.parametrize("helps", [True, False])
def test_where_the_service_may_set_no_priorities_the_hands_make_it_idle_or_the_log_says_that_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    set_scheduler, asked = os.sched_setscheduler, list[ProcId]()

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "seccomp")

    class Hands:
        def idle(self, process: ProcId) -> None:
            asked.append(process)
            if not helps:
                raise PermissionError(errno.EPERM, "no")
            set_scheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "setpriority", refuse)
    (tmp_path / "training.py").write_text(SLEEP)
    retraining = Retraining(tmp_path, (), (sys.executable, str(tmp_path / "training.py")), Hands())
    retraining.configure(Models(retrain_hours=1.0), 0)
    ((_, text),) = retraining.tick(HOUR).said
    ((pid, _),) = asked
    try:
        assert f"began: pid {pid}, {'only on idle CPUs' if helps else 'on any CPUs: it may not be made idle here'}, at most" in text
        assert (os.sched_getscheduler(pid) == os.SCHED_IDLE) == helps
    finally:
        retraining.close()


def test_a_limit_that_a_reload_lowers_holds_for_the_training_that_runs(trial: Trial) -> None:
    trial.begin(SLEEP)
    trial.retraining.configure(Models(retrain_hours=1.0, retrain_seconds=10.0, retrain_bytes=1 << 30), trial.now)
    trial.now += 11 * SECOND
    ((priority, text),) = trial.end().said
    assert (priority, "it took more than models.retrain_seconds = 10" in text) == (WARNING, True)


def test_it_is_told_where_to_learn_and_what_it_may_take_and_has_one_thread(trial: Trial) -> None:
    trial.begin(
        "import json, os, sys\nfrom pathlib import Path\n"
        "Path(sys.argv[0]).with_name('told').write_text(json.dumps([sys.argv[1:], os.environ['OMP_NUM_THREADS']]))\n",
        seconds=1000,
        memory=1000 << 20,
    )
    trial.end()
    arguments, threads = json.loads((trial.place / "told").read_text())
    limits = ["--time-budget", "800s", "--memory", str(800 << 20), "--jobs", "1"]
    assert arguments == ["train", "--json", "--state-dir", str(trial.place), *limits]
    assert threads == "1"
    assert (sys.executable, "-P", "-s", "-m", "nicety.training") == TRAINING
    command = typer.main.get_command(training.app)
    assert isinstance(command, TyperGroup)
    taken = command.commands["train"].make_context("train", arguments[1:]).params
    wanted = {"as_json": True, "state_dir": str(trial.place), "time_budget": 800.0, "memory": 800 << 20, "idle": True}
    assert taken | wanted == taken, "the real training takes them otherwise"


# --- what comes of it -----------------------------------------------------------------------------------------------------------


def test_each_kind_is_told_with_its_reason(trial: Trial) -> None:
    trial.begin(f"import sys\nprint({json.dumps(RESULT)!r})\nprint('left out: much', file=sys.stderr)\nsys.exit(3)\n")
    news = trial.end()
    assert news.said == (
        (NOTICE, "retraining: demand model refused: cpu 0.9 does not beat experts 0.8"),
        (INFO, "retraining: anomaly model not trained: the traces have no pool"),
        (NOTICE, "retraining: behaviour model promoted as abababab: loss 0.1"),
    )
    assert not news.promoted, "nothing else is live than before"
    assert trial.retraining.state(trial.now) == "in 1 h 0 min"


def test_another_live_model_is_noticed_whatever_was_printed(trial: Trial) -> None:
    digest = saved_anomaly(trial.models)
    trial.begin("import os, sys, time\nwhile not os.path.exists(sys.argv[0] + '.go'): time.sleep(0.02)\n")
    promote(trial.models, "anomaly", digest)
    (trial.place / "training.py.go").touch()
    assert trial.end().promoted


def test_a_failure_is_told_by_the_last_line_that_it_said(trial: Trial) -> None:
    trial.begin("import sys\nprint('reading', file=sys.stderr)\nsys.exit('nicety: no traces yet; record some')\n")
    ((priority, text),) = trial.end().said
    assert priority == WARNING
    assert text == "retraining failed (status 1): no traces yet; record some; the next one comes in 1 h 0 min"


def test_much_talk_and_nonsense_hold_nobody_up(trial: Trial) -> None:
    much = "for _ in range(300): print('x' * 10000, file=sys.stderr); print('[' * 10000)\n"
    trial.begin(f"import sys\n{much}print('\\x1b]0;', file=sys.stderr)\n")
    ((priority, text),) = trial.end().said
    assert priority == WARNING
    assert "\\x1b]0;" in text


def test_a_program_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    retraining = Retraining(tmp_path, (), ("/nowhere/python",))
    retraining.configure(Models(retrain_hours=1.0), 0)
    ((priority, text),) = retraining.tick(HOUR).said
    assert priority == WARNING
    assert "retraining could not start" in text
    assert retraining.tick(HOUR + 1) == News()


# --- limits -------------------------------------------------------------------------------------------------------------------


def test_more_time_than_it_may_take_ends_it(trial: Trial) -> None:
    pid = trial.begin(SLEEP, seconds=50)
    trial.now += 49 * SECOND
    assert trial.retraining.tick(trial.now) == News()
    trial.now += 2 * SECOND
    ((priority, text),) = trial.end().said
    assert (priority, alive(pid)) == (WARNING, False)
    assert "it took more than models.retrain_seconds = 50" in text


HUNGRY = "import subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', {!r}])\ntime.sleep(600)\n".format(
    "import time\nheld = b'x' * (400 << 20)\ntime.sleep(600)"
)


def test_memory_of_all_that_it_started_counts_and_all_of_it_is_ended(trial: Trial) -> None:
    pid = trial.begin(HUNGRY, memory=256 << 20)
    (child,) = until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    ((priority, text),) = trial.end().said
    assert priority == WARNING
    assert "more than models.retrain_bytes = 268435456" in text
    until(lambda: not alive(int(child)))
    assert not alive(pid)


def test_below_its_memory_it_goes_on(trial: Trial) -> None:
    pid = trial.begin(SLEEP, memory=256 << 20)
    for _ in range(20):
        assert trial.retraining.tick(trial.now) == News()
        time.sleep(0.02)
    assert alive(pid)


def test_one_that_does_not_listen_is_killed_after_its_grace(trial: Trial) -> None:
    ready = trial.place / "ready"
    pid = trial.begin(
        "import signal, time\nfrom pathlib import Path\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"Path({str(ready)!r}).touch()\ntime.sleep(60)\n",
        seconds=50,
    )
    until(ready.exists)
    trial.now += 51 * SECOND
    assert trial.retraining.tick(trial.now) == News()
    time.sleep(0.2)
    assert trial.retraining.tick(trial.now + GRACE_NS - 1) == News()
    assert alive(pid)
    trial.now += GRACE_NS
    assert "retrain_seconds" in trial.end().said[0][1]
    assert not alive(pid)


# --- the end of the daemon ------------------------------------------------------------------------------------------------------


def test_closing_ends_it_and_what_it_started(trial: Trial) -> None:
    pid = trial.begin(HUNGRY)
    (child,) = until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    trial.retraining.close()
    assert not alive(pid)
    until(lambda: not alive(int(child)))
    trial.retraining.close()


def test_kill_nine_of_the_daemon_ends_it(tmp_path: Path) -> None:
    (tmp_path / "training.py").write_text(SLEEP)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom nicety.scheduler.config.sections import Models\n"
        "from nicety.scheduler.service.retraining import Retraining\n"
        f"it = Retraining(Path({str(tmp_path)!r}), (), (sys.executable, {str(tmp_path / 'training.py')!r}))\n"
        f"it.configure(Models(retrain_hours=1.0), 0)\nit.tick({HOUR})\nprint(it.state({HOUR}), flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline().split()[1].rstrip(","))
        assert alive(pid)
        daemon.kill()
    until(lambda: not alive(pid))


def training_with(script: Path, loaded: Loaded, paths: Paths) -> Daemon:
    """A daemon whose training is this script."""
    with pytest.MonkeyPatch.context() as patch:
        command = (sys.executable, str(script))
        patch.setattr("nicety.scheduler.daemon.Retraining", lambda models, _, hands: Retraining(models, (), command, hands))
        return daemon_in_process(loaded, paths, SystemClock(), act=False)


def test_the_daemon_takes_what_was_promoted_at_once_and_keeps_its_engine(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    digest = saved_anomaly(state / "models", interval=0.1)
    result = {"models": {"anomaly": {"outcome": "promoted", "reason": "it is better", "digest": digest}}}
    (tmp_path / "training.py").write_text(
        f"open({str(state / 'models/anomaly/live')!r}, 'w').write({digest!r})\nprint({json.dumps(result)!r})\n"
    )
    config = parse("[daemon]\ninterval = 0.1\n[models]\nretrain_hours = 0.0001\n")
    with StateLock(state):
        daemon = training_with(tmp_path / "training.py", Loaded(config, None), Paths(state, state / "control.sock"))
        first, engine = daemon._sessions.current, daemon._sessions.engine
        assert first.artefacts["anomaly"] == ""
        until(lambda: daemon.run(duration=0.5) == 0 and daemon._sessions.current.id != first.id)
        assert daemon.run(duration=1) == 0
        assert daemon._sessions.current.artefacts["anomaly"] == digest
        assert daemon._sessions.current.engine.keys() == engine.memory().keys()
        daemon.close()
    events = [json.loads(line)["text"] for line in capfd.readouterr().err.splitlines()]
    told = [text for text in events if text.startswith("retraining: anomaly model promoted as ")]
    assert told
    assert events.count("the promoted models are in use") == 1, "a training that promotes what is live already changes nothing"
    assert not [text for text in events if "failed" in text]


def test_the_daemon_ends_the_training_when_it_ends(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (tmp_path / "training.py").write_text(SLEEP)
    config = parse("[daemon]\ninterval = 0.1\n[models]\nretrain_hours = 0.0001\n")
    with StateLock(state):
        daemon = training_with(tmp_path / "training.py", Loaded(config, None), Paths(state, state / "control.sock"))
        until(lambda: daemon.run(duration=0.3) == 0 and daemon._socket._handlers["status"]({})["retraining"].startswith("pid"))
        pid = int(daemon._socket._handlers["status"]({})["retraining"].split()[1].rstrip(","))
        assert alive(pid)
        daemon.close()
        assert not alive(pid)


def test_the_log_says_of_what_the_model_is_heard_no_more(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    config = parse("[daemon]\ninterval = 0.1\n")
    with StateLock(state):
        daemon = daemon_in_process(Loaded(config, None), Paths(state, state / "control.sock"), SystemClock(), act=False)
        real = daemon._sessions.observer
        daemon._sessions.observer = Heard(real)  # type: ignore[assignment]
        until(lambda: daemon.run(duration=0.25) == 0 and daemon._latest.ticks > 0)
        daemon.close()
    records = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    said = [record for record in records if record["text"] == "the demand model is no longer used for cpu"]
    assert said
    assert {record["priority"] for record in said} == {WARNING}


class Heard:
    """An observer that says at each tick that a model is not heard any more."""

    changes = ("the demand model is no longer used for cpu",)

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observer, name)
