"""The program as a person uses it: a daemon over real processes, asked, paused, undone, stopped and killed by command."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import pytest

from nicety.scheduler.cli.schemas import schema_of
from nicety.scheduler.service.answers.control_socket import ControlError, ask
from nicety.scheduler.store.decisions import DecisionReader, LoggedDecision
from nicety.scheduler.store.traces import sessions
from nicety.scheduler.testing.sentries import kill_with_sentries

NICETY = [sys.executable, "-m", "nicety.scheduler"]
SPIN = "while True:\n    pass\n"
SERVE = """
import time
while True:
    start = time.thread_time()
    while time.thread_time() - start < 0.005:
        pass
    time.sleep(0.005)
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing and putting back a priority needs CAP_SYS_NICE")


def values(pid: int) -> tuple[int, str]:
    """Nice and autogroup as the kernel has them."""
    autogroup = Path(f"/proc/{pid}/autogroup")
    return os.getpriority(os.PRIO_PROCESS, pid), autogroup.read_text() if autogroup.exists() else ""


T = TypeVar("T")


def until(probe: Callable[..., T], *arguments: object) -> T:
    """The first true value of `probe`."""
    deadline = time.monotonic() + 20
    while True:
        found = probe(*arguments)
        if found:
            return found
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


class Place:
    """A state directory, and a configuration over a service and two hogs that are the test's own: they run if `busy`."""

    def __init__(self, directory: Path, busy: bool) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.config = directory / "nicety.toml"
        self.log = directory / "log"
        self.processes: list[subprocess.Popen[bytes]] = []
        mark = os.getpid()
        programs = ((f"hog_{mark}.py", SPIN), (f"hog_{mark}.py", SPIN), (f"service_{mark}.py", SERVE))
        for name, code in programs if busy else ():
            (directory / name).write_text(code)
            self.processes.append(subprocess.Popen([sys.executable, str(directory / name)], start_new_session=True))
        self.hogs = [process.pid for process in self.processes[:2]]
        self.good = (
            "[daemon]\ninterval = 0.2\nprobe_interval = 0.05\n[pool_size]\nenabled = false\n"
            "[models]\nbehaviour = false\n[priority]\nslice_ms = 0\n"  # it acts on nobody else, and on these by one change each
            f'[groups.service]\nprogram = "*service_{mark}.py"\nclass = "interactive"\n'
            f'[groups.hogs]\nprogram = "*hog_{mark}.py"\nclass = "batch"\n'
        )
        self.config.write_text(self.good)
        self.before = [values(pid) for pid in self.hogs]

    def nicety(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*NICETY, "--config", str(self.config), "--state-dir", str(self.state), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        return done

    def daemon(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [*NICETY, "--config", str(self.config), "--state-dir", str(self.state), "run", *arguments]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, stderr=log, stdout=log, env={**os.environ, **environment})
        self.processes.append(process)
        until(lambda: self.answers() or process.poll() is not None)
        assert process.poll() is None, self.log.read_text()
        return process

    def changed(self) -> bool:
        return all(values(pid) != before for pid, before in zip(self.hogs, self.before, strict=True))

    def put_back(self) -> bool:
        return [values(pid) for pid in self.hogs] == self.before

    def decisions(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.nicety("decisions", "--json", *arguments).stdout.splitlines()]

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def status(self) -> dict[str, Any]:
        """The daemon's own answer, without starting a program for it."""
        return ask(self.state / "control.sock", "status")

    def answers(self) -> bool:
        try:
            return bool(self.status())
        except ControlError:
            return False

    def has_sessions(self, count: int) -> bool:
        return len(sessions(self.state)) == count

    def logged(self) -> list[LoggedDecision]:
        with DecisionReader(self.state) as reader:
            return reader.find()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    there = Place(tmp_path, busy=True)
    yield there
    there.close()


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Place]:
    there = Place(tmp_path, busy=False)
    yield there
    there.close()


@pytest.mark.root
@needs_root
def test_a_daemon_that_acts_can_be_asked_paused_and_told_to_undo(place: Place) -> None:
    daemon = place.daemon("--act")
    until(place.changed)

    status = json.loads(place.nicety("status", "--json").stdout)
    jsonschema.Draft202012Validator(schema_of("status")).validate(status)
    assert (status["running"], status["mode"], status["paused"]) == (True, "act", False)
    assert {"service", "hogs"} <= {group["group"] for group in status["groups"]}
    assert len(status["changes_in_force"]) == 2

    applied = place.decisions("--status", "applied", "--kind", "priority")
    page = place.nicety("why", applied[0]["id"])
    assert page.returncode == 0
    assert "done, and read back" in page.stdout
    assert applied[0]["id"] in place.nicety("why", str(applied[0]["pids"][0])).stdout

    second = place.nicety("run", "--duration", "1s")
    assert second.returncode == 1
    assert f"in use by the nicety process with pid {daemon.pid}" in second.stderr

    undone = place.nicety("undo", "--json")
    jsonschema.Draft202012Validator(schema_of("undo")).validate(json.loads(undone.stdout))
    assert undone.returncode == 0, undone.stderr
    assert [outcome["status"] for outcome in json.loads(undone.stdout)["outcomes"]] == ["applied", "applied"]
    assert place.put_back()
    status = place.status()
    assert (status["paused"], status["changes"]) == (True, [])

    assert place.nicety("resume").returncode == 0
    until(place.changed)
    daemon.terminate()
    assert daemon.wait(20) == 0
    assert place.put_back()

    replayed = place.nicety("replay")
    assert replayed.returncode == 0, replayed.stdout
    assert "identical" in replayed.stdout
    kinds = {record["kind"] for record in place.records()}
    assert {"event", "decision", "outcome"} <= kinds


@pytest.mark.root
@needs_root
def test_what_a_killed_daemon_left_is_shown_and_put_back(place: Place) -> None:
    daemon = place.daemon("--act")
    until(place.changed)
    kill_with_sentries(daemon.pid, place.state)
    daemon.wait()
    assert place.changed()

    status = place.nicety("status", "--json")
    assert status.returncode == 1
    assert len(json.loads(status.stdout)["changes_in_force"]) == 2
    findings = json.loads(place.nicety("doctor", "--json").stdout)["findings"]
    left = next(finding for finding in findings if finding["name"] == "daemon")
    assert (left["ok"], left["fix"]) == (False, "nicety undo")

    undone = place.nicety("undo")
    assert undone.returncode == 0, undone.stderr
    assert place.put_back()
    assert "nothing to undo" in place.nicety("undo").stderr


@pytest.mark.root
@needs_root
def test_a_value_changed_by_hand_is_left_and_undo_says_so(place: Place) -> None:
    daemon = place.daemon("--act")
    until(place.changed)
    kill_with_sentries(daemon.pid, place.state)
    daemon.wait()
    hog = place.hogs[0]
    if values(hog)[0] != place.before[0][0]:
        os.setpriority(os.PRIO_PROCESS, hog, 7)
    else:
        Path(f"/proc/{hog}/autogroup").write_text("7")
    by_hand = values(hog)

    undone = place.nicety("undo")
    assert undone.returncode == 3
    assert "foreign" in undone.stdout
    assert values(hog) == by_hand
    assert values(place.hogs[1]) == place.before[1]


def test_observing_decides_and_writes_nothing(place: Place) -> None:
    daemon = place.daemon()
    until(lambda: place.status()["ticks"] > 5)
    assert place.status()["mode"] == "observe"
    assert place.put_back()
    daemon.send_signal(signal.SIGINT)
    assert daemon.wait(20) == 0
    assert place.put_back()
    assert {decision.status for decision in place.logged()} <= {"observed", "unchanged", "refused by guard"}
    assert place.nicety("replay").returncode == 0


def test_a_reload_with_a_wrong_configuration_keeps_the_old_one(quiet: Place) -> None:
    daemon = quiet.daemon()
    session = quiet.status()["session"]
    quiet.config.write_text(quiet.good + "[guard]\nnonsense = 1\n")
    with_fault = subprocess.run(
        [*NICETY, "--state-dir", str(quiet.state), "reload"], capture_output=True, text=True, timeout=60, check=False
    )
    assert with_fault.returncode == 1
    assert "the old configuration stays in force" in with_fault.stderr
    assert "guard.nonsense: unknown key" in with_fault.stderr
    quiet.config.write_text(quiet.good.replace("[daemon]", '[daemon]\ncontrol_group = "nobody"'))
    refused = quiet.nicety("reload")
    assert refused.returncode == 1
    assert "daemon.control_group: cannot change while running; restart nicety" in refused.stderr
    quiet.config.write_text(quiet.good)
    assert quiet.status()["session"] == session
    quiet.config.write_text(quiet.good + "[guard]\ncooldown = 3.0\n")
    daemon.send_signal(signal.SIGHUP)
    until(lambda: quiet.status()["session"] != session)
    daemon.terminate()
    assert daemon.wait(20) == 0


def test_the_service_manager_hears_of_start_ticks_and_end(quiet: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(quiet.directory / "notify"))
        manager.settimeout(20)
        daemon = quiet.daemon(NOTIFY_SOCKET=str(quiet.directory / "notify"), WATCHDOG_USEC="5000000")
        heard = [manager.recv(1000).decode().splitlines()[0] for _ in range(4)]
        assert heard == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
        os.kill(daemon.pid, signal.SIGSTOP)
        manager.setblocking(False)
        try:
            while True:
                manager.recv(1000)
        except BlockingIOError:
            pass
        assert select.select([manager], [], [], 1.0)[0] == [], "a stopped loop must not ping"
        os.kill(daemon.pid, signal.SIGCONT)
        daemon.terminate()
        assert daemon.wait(20) == 0
        manager.settimeout(5)
        while (message := manager.recv(1000).decode()) != "STOPPING=1\nSTATUS=putting everything back":
            assert message == "WATCHDOG=1"


def test_following_decisions_shows_new_ones_and_ends_on_ctrl_c(place: Place) -> None:
    daemon = place.daemon()
    until(place.logged)
    command = [*NICETY, "--state-dir", str(place.state), "decisions", "--follow", "-n", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        first = json.loads(following.stdout.readline())
        assert first["policy"] == "priority"
        ask(place.state / "control.sock", "undo")  # after it, with the same contention, the same is decided again
        ask(place.state / "control.sock", "resume")
        while json.loads(following.stdout.readline())["session"] == first["session"]:
            pass
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 130
        assert following.stderr.read() == ""
    daemon.terminate()
    assert daemon.wait(20) == 0


def test_a_recording_ends_cleanly_at_any_time_and_can_be_exported(quiet: Place) -> None:
    done = quiet.nicety("record", "--interval", "0.2", "--duration", "1s")
    assert done.returncode == 0
    assert done.stdout == ""
    assert "6 ticks" in done.stderr or "5 ticks" in done.stderr
    command = [*NICETY, "--config", str(quiet.config), "--state-dir", str(quiet.state), "record", "--interval", "0.1"]
    for count, number in ((2, signal.SIGINT), (3, signal.SIGTERM)):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as recording:
            assert recording.stderr is not None
            recording.stderr.readline()
            until(quiet.has_sessions, count)
            recording.send_signal(number)
            assert recording.wait(10) == 0
            assert "recorded" in recording.stderr.read()
    out = quiet.directory / "traces.jsonl"
    exported = quiet.nicety("export", "traces", "--format", "jsonl", "-o", str(out))
    assert exported.returncode == 0, exported.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert os.getpid() in {row["pid"] for row in rows}
    assert len({row["session"] for row in rows}) == 3


@pytest.mark.parametrize("keeps", [(), ("nohup",)])
def test_a_daemon_ends_with_its_terminal_unless_nohup_started_it(quiet: Place, keeps: tuple[str, ...]) -> None:
    ours, terminal = pty.openpty()
    command = ["setsid", "--ctty", *keeps, *NICETY, "--config", str(quiet.config), "--state-dir", str(quiet.state), "run"]
    log = quiet.directory / "daemon.log"
    with log.open("w") as said, subprocess.Popen(command, stdin=terminal, stdout=said, stderr=said) as daemon:
        try:
            os.close(terminal)
            until(lambda: "started, observing" in log.read_text())
            daemon.send_signal(signal.SIGHUP)
            until(lambda: "reload" in log.read_text())
            os.close(ours)
            if keeps:
                with pytest.raises(subprocess.TimeoutExpired):
                    daemon.wait(2.5)
            else:
                assert daemon.wait(20) == 0
                assert "nicety stopped" in log.read_text()
        finally:
            daemon.terminate()
            daemon.wait(20)


def test_at_a_terminal_the_log_is_for_people(quiet: Place) -> None:
    ours, terminal = pty.openpty()
    command = [*NICETY, "--config", str(quiet.config), "--state-dir", str(quiet.state), "run", "--duration", "1.5s"]
    with subprocess.Popen(command, stderr=terminal, stdout=terminal) as daemon:
        assert daemon.wait(30) == 0
    os.close(terminal)
    shown = b""
    os.set_blocking(ours, False)
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # EIO: the other end is closed and everything was read
        pass
    os.close(ours)
    lines = shown.decode().split("\r\n")
    assert lines[0] == "observing: nothing is changed; --act carries decisions out"
    assert any("event     nicety" in line and "started, observing" in line for line in lines)
    assert "nicety stopped" in lines[-2]
    assert all(line.isprintable() for line in lines)
