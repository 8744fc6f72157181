"""The daemon with real parts: models that do not fit, ticks that fail, no rights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nicety.models.artifact import live_digest, shipped
from nicety.models.identity import ProcId
from nicety.models.records import SAMPLE, HostSample, PoolSample, Snapshot, WorkerSample
from nicety.scheduler.config.paths import Loaded, Paths
from nicety.scheduler.config.sections import parse
from nicety.scheduler.hands.clock import SystemClock
from nicety.scheduler.hands.knobs.slices import LONGEST, SHORTEST, Slices
from nicety.scheduler.hands.ledger import StateLock
from nicety.scheduler.read.facts import probe
from nicety.scheduler.replay import replay
from nicety.scheduler.service.answers.control_socket import ControlError, ask
from nicety.scheduler.store.decisions import DecisionReader
from nicety.scheduler.store.traces import TraceLooks, TraceWriter
from nicety.scheduler.testing.hands import daemon_in_process
from nicety.scheduler.testing.sentries import hands_of, sentries_of
from nicety.scheduler.testing.web import APPLICATION, free_port

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only CAP_SYS_NICE can lower a nice again")

SERVICE = "import time\nwhile True:\n    sum(range(60000))\n    time.sleep(0.002)"
WORKER = r"import time\nwhile True: sum(range(20000)); time.sleep(0.005)"  # an escape for TOML
HOG = "import os\nfor _ in range(3): os.fork() or exec('while True: pass')\nwhile True: pass"

ACTING = """
[daemon]
interval = 0.1
[models]
behaviour = false
[priority]
release_after = 0.5
slice_ms = 0
[groups.service]
program = "python* service.py"
class = "interactive"
[groups.hogs]
program = "python* hog.py"
class = "batch"
"""


started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def all_ended() -> Iterator[None]:
    """No test leaves a process behind, failed or not."""
    yield
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=30)
    started.clear()


def has_slices() -> bool:
    try:
        Slices().read(0)
    except OSError:
        return False
    return True


def until(condition: Callable[[], Any], seconds: float = 30.0, pause: float = 0.02) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(pause)
    return value


def status(state: Path) -> dict[str, Any] | None:
    try:
        return ask(state / "control.sock", "status")
    except ControlError:
        return None


def run(place: Path, *arguments: str, config: str = "", before: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
    file = place / "nicety.toml"
    file.write_text(config)
    command = [
        *before,
        sys.executable,
        "-m",
        "nicety.scheduler",
        *arguments,
        "--config",
        str(file),
        "--state-dir",
        str(place / "state"),
    ]
    started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options))
    return started[-1]


def end(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    process.send_signal(signal.SIGTERM)
    _, talk = process.communicate(timeout=30)
    assert process.returncode == 0, talk
    return [json.loads(line) for line in talk.splitlines()]


@pytest.fixture
def contention(tmp_path: Path) -> Iterator[list[int]]:
    """A service and, in another session, hogs; pids of all."""
    started = []
    for name, code in (("service.py", SERVICE), ("hog.py", HOG)):
        (tmp_path / name).write_text(code)
        started += [subprocess.Popen([sys.executable, name], cwd=tmp_path, start_new_session=True) for _ in range(2)]
    yield [process.pid for process in started]
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def kernel_values(pids: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pid in pids:
        for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
            tid = int(task.name)
            found[f"{pid}/{tid}"] = (
                os.getpriority(os.PRIO_PROCESS, tid),
                os.sched_getscheduler(tid),
                sorted(os.sched_getaffinity(tid)),
                Path(f"/proc/{pid}/autogroup").read_text(),
                Path(f"/proc/{pid}/cgroup").read_text(),
            )
    return found


@pytest.mark.root
@needs_root
def test_kill_nine_of_the_acting_daemon_is_put_back_by_its_hands(tmp_path: Path, contention: list[int]) -> None:
    before = kernel_values(contention)
    daemon = run(tmp_path, "run", "--act", config=ACTING)
    until(lambda: kernel_values(contention) != before)
    assert (status(tmp_path / "state") or {})["sentry"] in sentries_of(tmp_path / "state")
    daemon.kill()
    until(lambda: kernel_values(contention) == before, 2.0)
    _, log = daemon.communicate(timeout=30)
    assert "the daemon died; its hands put " in json.loads(log.splitlines()[-1])["text"]


@pytest.mark.root
@needs_root
@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups")
def test_its_own_session_steps_back_while_something_is_demoted(tmp_path: Path, contention: list[int]) -> None:
    before = kernel_values(contention)
    config = ACTING.replace("interval = 0.1", "interval = 1.0")  # beside four hogs a tick waits for more than 25 ms, and climbs
    daemon = run(tmp_path, "run", "--act", config=config, start_new_session=True)
    until(lambda: kernel_values(contention) != before)
    stood_back = (" nice 19\n", " nice 10\n")  # the second if a tick was slow at 19
    # after a late tick, as the first one may be beside four hogs, it goes down a rung in half a minute: -5, 0, 19
    until(lambda: Path(f"/proc/{daemon.pid}/autogroup").read_text().endswith(stood_back), 120.0)
    if has_slices():
        slices = Slices()
        until(lambda: slices.read(daemon.pid) == LONGEST, pause=0.001)  # in a tick
        until(lambda: slices.read(daemon.pid) == SHORTEST, pause=0.001)  # between ticks
    undone = ask(tmp_path / "state" / "control.sock", "undo")
    assert undone["outcomes"]
    beside = (" nice 10\n", " nice 0\n")  # the service has work still; the second if a tick was slow beside the hogs
    until(lambda: Path(f"/proc/{daemon.pid}/autogroup").read_text().endswith(beside), 120.0)
    end(daemon)


@pytest.mark.root
@needs_root
@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups")
def test_where_its_ticks_wait_it_takes_the_share_that_it_needs_and_its_workers_do_not(tmp_path: Path) -> None:
    pinned = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    hog = [*pinned, sys.executable, "-S", "-c", "import signal; signal.alarm(120)\nwhile True: pass"]
    config = (
        "[daemon]\ninterval = 0.2\n[priority]\nenabled = false\n"
        '[pools.p]\nkind = "command"\ncommand = ["sleep", "300"]\nminimum = 1\nmaximum = 1\n'
    )
    daemon = run(tmp_path, "run", "--act", config=config, before=pinned, start_new_session=True)
    until(lambda: status(tmp_path / "state"))

    def session_nice(pid: int) -> int:
        return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])

    def workers() -> list[int]:
        hands = min(hands_of(tmp_path / "state"))  # a child has their name until it has its program
        children = map(int, Path(f"/proc/{hands}/task/{hands}/children").read_text().split())
        return [pid for pid in children if called(pid) == "sleep\n"]

    def called(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/comm").read_text()
        except FileNotFoundError:  # it has ended
            return ""

    hogs = [subprocess.Popen(hog, start_new_session=True) for _ in range(16)]
    try:
        until(lambda: session_nice(daemon.pid) < 0 and os.getpriority(os.PRIO_PROCESS, daemon.pid) < 0)
        assert (status(tmp_path / "state") or {})["own_nice"] < 0
        (old,) = until(workers)
        os.kill(old, signal.SIGKILL)
        new = until(lambda: [pid for pid in workers() if pid != old and session_nice(pid) == 0])
        assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in new] == [0]
        assert [os.sched_getscheduler(pid) for pid in new] == [os.SCHED_OTHER]
    finally:
        for process in hogs:
            process.kill()
            process.wait()
    daemon.send_signal(signal.SIGTERM)
    daemon.communicate(timeout=30)
    assert daemon.returncode == 0


@pytest.mark.root
@needs_root
def test_it_stands_aside_for_services_once_something_is_demoted_for_them(
    tmp_path: Path, contention: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[bool, list[int]]] = []  # before ticks: is something demoted, and for whom it is to stand aside
    state = tmp_path / "state"
    before = kernel_values(contention)

    def record(services: Sequence[ProcId]) -> None:
        told.append((kernel_values(contention) != before, sorted(process.pid for process in services)))

    monkeypatch.setattr("nicety.scheduler.service.own.place.stand_aside", record)
    with StateLock(state):
        daemon = daemon_in_process(Loaded(parse(ACTING), None), Paths(state, state / "control.sock"), SystemClock(), act=True)
        assert daemon.run(duration=3) == 0
        daemon.close()
    assert sorted(contention[:2]) in [pids for demoted, pids in told if demoted]


def test_a_damaged_model_is_named_and_the_one_that_nicety_comes_with_speaks(tmp_path: Path) -> None:
    models = tmp_path / "state" / "models"
    (models / "demand" / ("a" * 64)).mkdir(parents=True, mode=0o700)
    for directory in (tmp_path / "state", models, models / "demand", models / "demand" / ("a" * 64)):
        directory.chmod(0o700)
    (models / "demand" / "live").write_text("a" * 64 + "\n")
    (models / "demand" / ("a" * 64) / "card.json").write_text("{}")
    (models / "demand" / ("a" * 64) / "model.npz").write_bytes(b"PK\x03\x04 not really")
    assert live_digest(models, "demand") == "a" * 64
    daemon = run(tmp_path, "run", "--observe")
    answer = until(lambda: status(tmp_path / "state"))
    events = [record["text"] for record in end(daemon) if record["kind"] == "event"]
    ours = shipped("demand")
    assert ours is not None
    assert answer["demand_model"] == ours.digest[:12]
    assert any(text.startswith("promoted demand model not used: ") for text in events)


def test_the_log_is_json_whatever_a_pool_complains_about(tmp_path: Path) -> None:
    pool = f'[pools.web]\nkind = "gunicorn"\npidfile = "{tmp_path}/no.pid"\n'
    daemon = run(tmp_path, "run", "--observe", config=pool)
    until(lambda: status(tmp_path / "state"))
    events = [record for record in end(daemon) if record["kind"] == "event"]
    (absent,) = [record for record in events if "no.pid does not exist" in record["text"]]
    assert (absent["priority"], absent["logger"]) == (4, "nicety.scheduler.pools.sensing.main_process")


def test_a_group_that_matches_nothing_is_said_once_with_the_nearest_name_and_in_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nicety.scheduler.observe.unmatched.FIRST_NS", 300_000_000)
    (tmp_path / "uvicornish").write_text("import time; time.sleep(60)")
    server = subprocess.Popen([sys.executable, str(tmp_path / "uvicornish")])
    state = tmp_path / "state"
    config = parse('[daemon]\ninterval = 0.1\n[groups.api]\nprogram = "uvicornish"\n[groups.all]\nprogram = "*"\n')
    try:
        with StateLock(state):
            daemon = daemon_in_process(Loaded(config, None), Paths(state, state / "control.sock"), SystemClock(), act=False)
            assert daemon.run(duration=1.5) == 0
            (note,) = daemon._socket._handlers["status"]({})["notes"]
            daemon.close()
    finally:
        server.kill()
        server.wait()
    said = '[groups.api] matches nothing (program = "uvicornish"); did you mean program = '
    records = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (once,) = [record for record in records if record["kind"] == "note"]
    assert once["text"].startswith(said)
    assert once["text"].endswith(' uvicornish"?')
    assert (note["topic"], note["text"]) == ("groups api", once["text"])


def test_between_ticks_it_sleeps_where_there_is_no_pool_to_look_at(tmp_path: Path) -> None:
    daemon = run(tmp_path, "run", "--observe")

    def sleeps() -> int:
        return int(Path(f"/proc/{daemon.pid}/status").read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])

    until(lambda: (answer := status(tmp_path / "state")) and answer["ticks"] >= 2)
    before = sleeps()
    time.sleep(3)
    assert 2 <= sleeps() - before <= 15  # one a tick, and what writing takes; looks at pools would be thirty


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="numpy starts no threads on one CPU")
def test_it_has_one_thread_and_its_pools_inherit_nothing_of_that(tmp_path: Path) -> None:
    script = "import os, sys, time; open(sys.argv[1], 'w').write(os.environ.get('OPENBLAS_NUM_THREADS', 'none')); time.sleep(60)"
    told = tmp_path / "told"
    command = [sys.executable, "-c", script, str(told)]
    config = (
        f'[models]\nbehaviour = false\n[pools.p]\nkind = "command"\ncommand = {json.dumps(command)}\nminimum = 1\nmaximum = 1\n'
    )
    daemon = run(tmp_path, "run", "--act", config=config)
    until(lambda: status(tmp_path / "state"))
    until(lambda: told.exists() and told.read_text())
    threads = Path(f"/proc/{daemon.pid}/status").read_text().split("Threads:")[1].split()[0]
    loaded = Path(f"/proc/{daemon.pid}/maps").read_text()
    end(daemon)
    assert threads == "1"
    assert "libcrypto" not in loaded  # which hashlib would load
    assert "multiarray" in loaded
    assert told.read_text() == os.environ.get("OPENBLAS_NUM_THREADS", "none")


def test_no_tick_is_decided_on_by_a_daemon_whose_reader_fails_and_it_gives_up_in_order(tmp_path: Path) -> None:
    config = parse("[daemon]\ninterval = 0.05\nmax_failures = 3\n")
    state = tmp_path / "state"
    with StateLock(state):
        daemon = daemon_in_process(Loaded(config, None), Paths(state, state / "control.sock"), SystemClock(), act=False)
        daemon._source = Broken()  # type: ignore[assignment]
        assert daemon.run(duration=30) == 1
        assert daemon._steps.failures == 3
        daemon.close()
    with DecisionReader(state) as log:
        assert list(log.ticks()) == []


class Broken:
    """A source that cannot read."""

    def read(self, at: int, wall: int, pools: tuple[PoolSample, ...], between: Callable[[], None] | None = None) -> Snapshot:
        raise RuntimeError(f"no reading at {at}, {wall}, {len(pools)}")

    def close(self) -> None:
        pass


def test_a_failure_now_and_then_does_not_end_the_daemon(tmp_path: Path) -> None:
    config = parse("[daemon]\ninterval = 0.05\nmax_failures = 2\n")
    state = tmp_path / "state"
    with StateLock(state):
        daemon = daemon_in_process(Loaded(config, None), Paths(state, state / "control.sock"), SystemClock(), act=False)
        real, calls = daemon._source, [0]

        class Flaky(Broken):
            def read(
                self, at: int, wall: int, pools: tuple[PoolSample, ...], between: Callable[[], None] | None = None
            ) -> Snapshot:
                calls[0] += 1
                return real.read(at, wall, pools, between) if calls[0] % 2 else super().read(at, wall, pools)

        daemon._source = Flaky()  # type: ignore[assignment]
        assert daemon.run(duration=0.6) == 0
        assert calls[0] >= 4
        assert daemon._latest.ticks >= 2
        real.close()
        daemon.close()


def test_the_running_daemon_maps_no_library_of_the_training_stack(tmp_path: Path) -> None:
    daemon = run(tmp_path, "run", "--observe")
    until(lambda: status(tmp_path / "state"))
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    end(daemon)
    assert "numpy" in maps, "nothing was looked at"
    assert not any(f"/{name}/" in maps for name in ("sklearn", "scipy", "pandas", "pyarrow"))


@pytest.mark.root
@needs_root
def test_without_capabilities_it_sizes_own_pools_and_renices_nothing(tmp_path: Path, contention: list[int]) -> None:
    (tmp_path / "spool").mkdir()
    for number in range(6):
        (tmp_path / "spool" / str(number)).touch()
    config = ACTING + (
        f'[pools.jobs]\nkind = "command"\ncommand = ["{sys.executable}", "-c", "{WORKER}"]\nmaximum = 2\n'
        f'class = "interactive"\ndrain_timeout = 2\n[pools.jobs.queue]\nfiles = "{tmp_path}/spool/*"\n'
    )
    before = kernel_values(contention)
    powerless = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]
    daemon = run(tmp_path, "run", "--act", config=config, before=powerless)
    sized = until(lambda: [pool for pool in (status(tmp_path / "state") or {"pools": []})["pools"] if pool["size"] == 2])
    assert sized[0]["trouble"] == ""
    refused = until(lambda: no_undo(tmp_path / "state"))
    assert "CAP_SYS_NICE" in refused[0]
    assert kernel_values(contention) == before
    end(daemon)


def no_undo(state: Path) -> list[str]:
    """Texts of the guard's refusals for want of a way back."""
    with DecisionReader(state) as log:
        found = [logged.refusal for logged in log.find(kind="priority")]
    return [refusal.text for refusal in found if refusal is not None and refusal.rule == "no undo"]


@pytest.mark.root
@needs_root
def test_what_a_refused_tick_was_made_of_is_recorded_as_soon_as_the_tick_is_logged(tmp_path: Path, contention: list[int]) -> None:
    state = tmp_path / "state"
    for session in contention:
        os.killpg(session, signal.SIGSTOP)
    daemon = run(tmp_path, "run", "--act", config=ACTING, before=["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"])
    until(lambda: (status(state) or {"ticks": 0})["ticks"] > 40)  # from now on ticks wait for seconds until they are written
    for session in contention:
        os.killpg(session, signal.SIGCONT)
    until(lambda: no_undo(state))
    daemon.kill()
    daemon.communicate()
    with DecisionReader(state) as log:
        last = log.latest()
    assert last is not None
    assert last.tick is not None
    found = TraceLooks(state / "traces").look(last.session, last.seq, last.tick.wall)
    assert found is not None
    assert found.at == last.tick.at


SEASONAL = f'[pools.jobs]\nkind = "command"\ncommand = ["{sys.executable}", "-c", "{WORKER}"]\nmaximum = 8\n'


def record_a_rhythm(state: Path) -> None:
    """Traces of a pool that was busy for a minute of each three, up to 2 s ago."""
    now, wall, boot = time.monotonic_ns(), time.time_ns(), probe().boot_id
    writer = TraceWriter(state, boot_id=boot, session="earlier", budget_bytes=64 << 20, interval=1.0)
    for ago in range(560, 1, -1):
        at = now - ago * 10**9
        workers = tuple(WorkerSample(ProcId(pid, 7), float(ago % 180 < 60), ready=True) for pid in range(7, 13))
        pool = PoolSample("jobs", 6, 6, 0.0, workers, None, 2.0, "")
        table = np.zeros(0, dtype=SAMPLE)
        writer.append(Snapshot(at, wall - ago * 10**9, 1, table, {}, HostSample((0,), 1, 1, None), (pool,)))
    writer.close()


def knows_the_rhythm(log: DecisionReader, session: str) -> bool:
    """Whether the first tick of the session that has the pool predicts it."""
    seen = (logged.tick for logged in log.ticks(session) if logged.tick is not None and logged.tick.pools)
    predicted = next(seen).pools[0].predicted
    return predicted is not None and (predicted.period, predicted.trusted) == (180, True)


def test_a_restart_forgets_no_rhythm_and_replays(tmp_path: Path) -> None:
    state = tmp_path / "state"
    record_a_rhythm(state)
    paths = Paths(state, state / "control.sock")
    with StateLock(state):
        daemon = daemon_in_process(Loaded(parse(SEASONAL), None), paths, SystemClock(), act=False)
        try:
            assert daemon.run(duration=4) == 0
        finally:
            daemon.close()
    with DecisionReader(state) as log:
        (session,) = (each.session for each in log.sessions())
        assert session is not None
        assert session.warm_start is not None
        assert session.warm_start.ticks == 559
        assert knows_the_rhythm(log, session.id)
    found = replay(paths)
    assert (found.differences, found.notes) == ([], [])
    assert found.observed >= 2
    for trace in paths.traces.glob("*"):
        trace.unlink()
    assert replay(paths).differences == []


def test_a_reload_keeps_rhythms_without_reading_them_again_and_replays(tmp_path: Path) -> None:
    state = tmp_path / "state"
    record_a_rhythm(state)
    file = tmp_path / "nicety.toml"
    file.write_text(SEASONAL)
    file.chmod(0o600)
    paths = Paths(state, state / "control.sock")
    with StateLock(state):
        daemon = daemon_in_process(Loaded(parse(SEASONAL), file), paths, SystemClock(), act=False)
        reload = threading.Timer(3, ask, (paths.socket, "reload"), {"timeout_seconds": 30.0})
        reload.start()
        try:
            assert daemon.run(duration=7) == 0
        finally:
            reload.cancel()
            daemon.close()
    with DecisionReader(state) as log:
        first, second = (each.session for each in log.sessions())
        assert first is not None
        assert second is not None
        assert (first.follows, second.follows, second.warm_start) == ("", first.id, None)
        assert knows_the_rhythm(log, second.id)
    found = replay(paths)
    assert (found.differences, found.notes) == ([], [])
    alone = replay(paths, session=second.id)
    assert alone.differences == []
    (note,) = alone.notes
    assert f"it began with what session {first.id} had learned, and not all of that session was replayed" in note


def test_a_decision_log_that_cannot_be_used_is_kept_and_said_to_be(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "decisions.db").write_bytes(b"no database" * 1000)
    (state / "decisions.db").chmod(0o600)
    with StateLock(state):
        config = Loaded(parse("[daemon]\ninterval = 0.1\n"), None)
        daemon = daemon_in_process(config, Paths(state, state / "control.sock"), SystemClock(), act=False)
        assert daemon.run(duration=0.5) == 0
        daemon.close()
    told = capfd.readouterr().err
    assert told.count(f"is kept as {state / 'decisions.1.db'}, and a new one was begun") == 1
    assert (state / "decisions.1.db").read_bytes().startswith(b"no database")
    with DecisionReader(state) as log:
        assert len(list(log.ticks())) >= 2


def test_a_ledger_that_cannot_be_written_is_said_to_be(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "ledger.log").mkdir()
    with StateLock(state):
        config = Loaded(parse("[daemon]\ninterval = 0.1\n"), None)
        daemon = daemon_in_process(config, Paths(state, state / "control.sock"), SystemClock(), act=True)
        assert daemon.run(duration=0.3) == 0
        daemon.close()
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    told = [event["text"] for event in events if event["text"].startswith("ledger: ")]
    assert len(told) == 1, "once, not at each tick"
    assert "nothing is changed without it" in told[0]


def test_a_pool_that_is_no_longer_configured_gets_its_size_back(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION, encoding="ascii")
    pidfile = tmp_path / "pid"
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{free_port()}", "--chdir", str(tmp_path), "-w", "2"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([*command, "--pid", str(pidfile), "app:application"], stdout=log, stderr=log)

    def workers() -> int:
        return len(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())

    try:
        until(lambda: pidfile.exists() and workers() == 2)
        others = "[daemon]\ninterval = 0.1\n[priority]\nenabled = false\n"  # whoever else is at work here is none of this test's
        pool = f'[pools.web]\nkind = "gunicorn"\npidfile = "{pidfile}"\nminimum = 3\nmaximum = 4\n'
        daemon = run(tmp_path, "run", "--act", config=others + pool)
        until(lambda: workers() == 3 and (status(tmp_path / "state") or {}).get("changes"))
        (tmp_path / "nicety.toml").write_text(others)
        ask(tmp_path / "state" / "control.sock", "reload", timeout_seconds=30)
        assert workers() == 2
        assert (status(tmp_path / "state") or {})["changes"] == []
        until(lambda: (answer := status(tmp_path / "state")) is not None and answer["pools"] == [])  # in the next tick
        lines = end(daemon)
        assert any(line["text"] == "size of pool web: 3 -> 2" for line in lines)
        assert replay(Paths(tmp_path / "state", tmp_path)).differences == []
    finally:
        server.terminate()
        server.wait(20)


def test_traces_that_cannot_be_read_do_not_keep_it_from_starting(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    (state / "traces").mkdir(parents=True, mode=0o700)
    state.chmod(0o700)
    (state / "traces" / "2020-01-01.db").write_bytes(b"no database" * 1000)
    config = parse(f'[pools.jobs]\nkind = "command"\ncommand = ["{sys.executable}", "-c", "{WORKER}"]\n')
    with StateLock(state):
        daemon = daemon_in_process(Loaded(config, None), Paths(state, state / "control.sock"), SystemClock(), act=False)
        daemon.close()
    assert "seasonal patterns of loads have to be learned again: " in capfd.readouterr().err
