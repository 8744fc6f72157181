"""Prometheus scrapes the exporter of a real daemon that acts on the workload of the demo: every panel has data, and what goes wrong
for real raises its alert, which ends with it. The other alerts need hours or rights: test_alerts.py tries them on frames.

Alerts do not wait here. The times of the tests add up, because each goes on where the last one stopped.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from nicety.scheduler.demo import worker
from nicety.scheduler.demo.run import CONFIG, TICK
from nicety.scheduler.demo.workload import Feeder, running
from nicety.scheduler.interpreter import PYTHON
from nicety.scheduler.testing.prometheus import DASHBOARD, TARGETS, Prometheus, filled, start

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs apt install prometheus")

LOAD_SECONDS = 90
"""Longer than all tests."""

UNKNOWN = {"nicety_pool_arrivals_per_second", "nicety_pool_service_mean_seconds", "nicety_pool_service_p95_seconds"}
"""What requests take is seen of servers with threads or an event loop (docs/concurrency.md). The demo's gunicorn has neither."""

fill = partial(filled, horizon=f"{30 * TICK:g}s")


class Scene(Prometheus):
    """The workload of the demo under load, a daemon that acts on it, and what scrapes its exporter every second."""

    def __init__(self, place: Path, open_: ExitStack) -> None:
        self.place, self._open = place, open_
        self.workload = open_.enter_context(running(place))
        feeder = Feeder(place / "spool")
        values = {"tick": TICK, "pidfile": self.workload.pidfile, "python": ", ".join(map(json.dumps, PYTHON))}
        text = CONFIG.format(worker=worker.__file__, spool=place / "spool", **values)
        text = text.replace("[daemon]", f'[daemon]\nframe = "{place}/frame"')
        text = text.replace("maximum = 8", 'maximum = 4\nobjective = { p95 = "300ms" }')
        text = text.replace("maximum = 6", "maximum = 6\nobjective = { utilization = 0.7 }")
        (place / "nicety.toml").write_text(text)
        self.options = ["--config", str(place / "nicety.toml"), "--state-dir", str(place / "state")]
        self.run()
        feeder.start()
        open_.callback(feeder.end)
        feeder.break_a_worker("stuck")
        load = ["-m", "nicety.scheduler.demo.load", str(self.workload.port), str(LOAD_SECONDS), str(place / "load")]
        start(place, open_, "load", [*PYTHON, *load])
        super().__init__(place, open_, self.options, 1.0)

    def run(self) -> None:
        """Start the daemon."""
        self.daemon = start(self.place, self._open, "daemon", [*PYTHON, "-m", "nicety.scheduler", *self.options, "run", "--act"])

    def say(self, command: str) -> None:
        """Run a command of nicety."""
        subprocess.run([*PYTHON, "-m", "nicety.scheduler", *self.options, command], check=True, capture_output=True, timeout=30)

    def up(self) -> None:
        """Wait until the daemon is seen to run."""
        self.until("not up", partial(self.has, "nicety_up == 1"))

    def has(self, query: str) -> bool:
        """Whether it has data now."""
        return bool((self.ask("query", query=query) or {}).get("result"))

    def fires(self, alert: str) -> None:
        """Wait until it does."""
        self.until(f"{alert} does not fire", lambda: alert in self.firing())

    def rests(self, alert: str) -> None:
        """Wait until it does."""
        self.until(f"{alert} goes on", lambda: alert not in self.firing())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as open_:
        made = Scene(tmp_path_factory.mktemp("live"), open_)
        made.up()
        yield made


def test_every_panel_has_data_within_a_minute(scene: Scene) -> None:
    def without() -> set[str]:
        return {it["expr"].partition("{")[0] for _, it in TARGETS if scene.empty(fill(it["expr"]), it.get("instant", False))}

    scene.until("a panel without data", lambda: without() == UNKNOWN, 60)
    for each in DASHBOARD["templating"]["list"]:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", each.get("definition", ""))
        assert found is None or scene.ask(f"label/{found[2]}/values", **{"match[]": fill(found[1])})


def test_every_alert_is_evaluated_and_what_goes_wrong_in_the_demo_fires(scene: Scene) -> None:
    rules = [rule for group in scene.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    fired = 'max_over_time(ALERTS{alertstate="firing",%s}[5m])'
    for labels in (
        'alertname="NicetyInteractiveWaits",group="web"',  # four hogs run beside the service
        'alertname="NicetyPoolAtMaximum",pool="web"',  # a step of the load; four workers are too few for it
        'alertname="NicetyIncident",pool="spool",kind="stuck"',
    ):
        scene.until(f"no alert {labels}", partial(scene.has, fired % labels), 60)
    assert not scene.has(fired % 'alertname="NicetyIncident",pool="web"')
    quiet = {"NicetyDown", "NicetyExporterDown", "NicetyFrameUnreadable", "NicetyRestarts", "NicetyCannotAct", "NicetyLosesRecords"}
    assert not scene.firing() & quiet


def test_a_pause_fires_and_its_end_ends_it(scene: Scene) -> None:
    assert "NicetyPausedForLong" not in scene.firing()
    scene.say("pause")
    scene.fires("NicetyPausedForLong")
    scene.say("resume")
    scene.rests("NicetyPausedForLong")


def test_a_daemon_that_is_killed_is_down_until_it_runs_again_and_three_starts_are_noticed(scene: Scene) -> None:
    for killed in range(1, 4):
        assert "NicetyRestarts" not in scene.firing()
        scene.daemon.kill()
        scene.daemon.wait()
        if killed == 1:
            scene.fires("NicetyDown")
            (scene.place / "frame").write_bytes(b"damaged")
            scene.fires("NicetyFrameUnreadable")
            scene.rests("NicetyDown")
        scene.run()
        scene.until("no restart", partial(scene.has, f"resets(nicety_ticks_total[5m]) == {killed} and nicety_ticks_total >= 8"))
    scene.fires("NicetyRestarts")
    assert not scene.firing() & {"NicetyDown", "NicetyFrameUnreadable"}


def test_a_pool_whose_server_ends_cannot_be_resized(scene: Scene) -> None:
    assert "NicetyPoolTrouble" not in scene.firing()
    scene.workload.end()
    scene.fires("NicetyPoolTrouble")


def test_a_daemon_that_ends_is_down_and_so_is_an_exporter(scene: Scene) -> None:
    scene.daemon.send_signal(signal.SIGTERM)
    scene.daemon.wait(30)
    scene.fires("NicetyDown")
    assert "NicetyExporterDown" not in scene.firing()
    scene.exporter.terminate()
    scene.exporter.wait(30)
    scene.fires("NicetyExporterDown")
    scene.rests("NicetyDown")  # it is not known any more
