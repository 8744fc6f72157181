"""The daemon itself on the emulated machine: it demotes by the weight of a v2 cgroup, confines where CPUs are many, and undoes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import HOG, SERVICE, affinity, group, offline, until, work

from nicety.scheduler.decision import Set
from nicety.scheduler.hands.faults import Status
from nicety.scheduler.hands.places import Control
from nicety.scheduler.places import cgroup_of
from nicety.scheduler.service.answers.control_socket import ask
from nicety.scheduler.store.decisions import DecisionReader

PINNED = """
[daemon]
interval = 0.5
[models]
behaviour = false
[groups.service]
cgroup = "/service"
class = "interactive"
[groups.batch]
cgroup = "/batch"
class = "batch"
"""
PLACING = PINNED + "[priority]\nenabled = false\n[placement]\nenabled = true\nminimum_cpus = 4\n"
ALL = tuple(range(8))


@contextmanager
def daemon(place: Path, config: str) -> Iterator[Path]:
    """`nicety run --act` while the block runs, ended in order; its state directory. Alone on the machine until it listens."""
    file = place / "nicety.toml"
    file.write_text(config)
    command = [sys.executable, "-m", "nicety.scheduler", "run", "--act", "--duration", "400"]
    command += ["--config", str(file), "--state-dir", str(place / "state")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until((place / "state" / "control.sock").exists)
        yield place / "state"
    except BaseException:
        running.kill()
        _, talk = running.communicate()
        print(talk)
        raise
    running.send_signal(signal.SIGTERM)
    _, talk = running.communicate(timeout=120)
    assert running.returncode == 0, talk
    for line in talk.splitlines():
        print(json.loads(line).get("text", ""))


def applied(state: Path, control: Control) -> list[Set]:
    """What the log has as decided and done, oldest first."""
    with DecisionReader(state) as log:
        found = [logged.decision.action for logged in log.find(status=Status.APPLIED, newest_first=False)]
    return [action for action in found if isinstance(action, Set) and action.control is control]


def test_a_batch_cgroup_is_demoted_by_its_weight_beside_a_service_and_has_it_back_when_the_daemon_stops(tmp_path: Path) -> None:
    with offline(2, 3, 4, 5, 6, 7), group("service") as service, group("batch") as batch, ExitStack() as load:
        with daemon(tmp_path, PINNED) as state:
            load.enter_context(work(SERVICE, service))
            load.enter_context(work(HOG, batch, count=3))  # two CPUs are soon full
            until(lambda: batch.read("cpu.weight") != "100")
            assert int(batch.read("cpu.weight")) < 50
            assert service.read("cpu.weight") == "100"
        assert batch.read("cpu.weight") == "100"
        assert [cgroup_of(action.on) for action in applied(state, Control.CPU_WEIGHT)][:1] == [batch.name]


def test_batch_work_is_confined_where_it_fits_and_is_free_again_when_the_daemon_stops(tmp_path: Path) -> None:
    with group("service") as service, group("batch") as batch, ExitStack() as load:
        with daemon(tmp_path, PLACING):
            (server,) = load.enter_context(work(SERVICE, service))
            hogs = load.enter_context(work(HOG, batch, count=2))
            until(lambda: all(set(affinity(hog)) < set(ALL) for hog in hogs))
            assert len(affinity(hogs[0])) >= 2, "what is left of the machine must hold the batch"
        assert [affinity(process) for process in (server, *hogs)] == [ALL] * 3


def test_a_cpu_that_is_unplugged_under_the_daemon_ends_neither_it_nor_the_way_back(tmp_path: Path) -> None:
    with group("service") as service, group("batch") as batch, ExitStack() as load:
        with daemon(tmp_path, PLACING) as state:
            load.enter_context(work(SERVICE, service))
            hogs = load.enter_context(work(HOG, batch, count=2))
            until(lambda: all(set(affinity(hog)) < set(ALL) for hog in hogs))
            with offline(5):
                seen = ticks(state)
                until(lambda: ticks(state) >= seen + 4)
                assert all(5 not in affinity(hog) for hog in hogs)
            seen = ticks(state)
            until(lambda: ticks(state) >= seen + 4)
        until(lambda: [affinity(hog) for hog in hogs] == [ALL] * 2, 10)


def ticks(state: Path) -> int:
    """How many ticks the daemon has made; the log has them up to twenty seconds later."""
    return int(ask(state / "control.sock", "status")["ticks"])
