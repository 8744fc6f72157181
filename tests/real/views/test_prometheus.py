"""A real Prometheus scrapes a real exporter: every query of the dashboard returns data, exemplars name decisions, and an alert
reaches the webhook of a real Alertmanager.

Time is compressed: an hour of frames passes in seconds, and the alerts do not wait.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nicety.scheduler.frame import Frame, pack
from nicety.scheduler.testing.frames import an_own
from nicety.scheduler.testing.hours import BEGIN, FAULTS, LENGTH, STEP, hour

CONFIGS = Path(__file__).parents[3] / "configs"
DASHBOARD = json.loads((CONFIGS / "grafana/nicety.json").read_text())

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

PROGRAMS = ("prometheus", "prometheus-alertmanager")

pytestmark = pytest.mark.skipif(
    any(shutil.which(each) is None for each in PROGRAMS), reason=f"needs apt install {' '.join(PROGRAMS)}"
)

VARIABLES = {"$__rate_interval": "3s", "$__range": "5s", "$instance": ".*", "$group": ".*", "$pool": ".*"}


def filled(expr: str) -> str:
    """A query as Grafana sends it."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Webhook(HTTPServer):
    """Where Alertmanager sends alerts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.got: list[dict[str, Any]] = []


class _Hook(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        self.server.got += json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        pass


class Rig:
    """The exporter, Prometheus, Alertmanager and the webhook. A thread writes frames, with an open incident until `healed`."""

    def __init__(self, place: Path, open_: ExitStack) -> None:
        self.place, self.healed, self._ended = place, False, False
        self.hook = Webhook()
        self.ports = {name: free_port() for name in ("exporter", "prometheus", "alertmanager")}
        self.frames = [frame for _, frame in hour() if frame is not None]
        self.write(0)
        writing, taking = threading.Thread(target=self._writes), threading.Thread(target=self.hook.serve_forever)
        for thread in (writing, taking):
            thread.start()
        open_.callback(self._end, writing, taking)
        for name, command in self._commands().items():
            log = open_.enter_context((place / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=place, env=dict(os.environ))
            open_.callback(self._stop, process)

    def _commands(self) -> dict[str, list[str]]:
        at = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        rules = re.sub(r"^ +for: .*\n", "", (CONFIGS / "prometheus/alerts.yml").read_text(), flags=re.MULTILINE)
        (self.place / "alerts.yml").write_text(rules)
        (self.place / "nicety.toml").write_text(f'[daemon]\nframe = "{self.place}/frame"\n')
        scrape = {"job_name": "nicety", "static_configs": [{"targets": [at["exporter"]]}]}
        prometheus = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "500ms"},
            "scrape_configs": [scrape],
            "rule_files": ["alerts.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [at["alertmanager"]]}]}]},
        }
        (self.place / "prometheus.yml").write_text(json.dumps(prometheus))  # JSON is YAML
        url = f"http://127.0.0.1:{self.hook.server_port}/"
        route = {"receiver": "hook", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "1s"}
        receivers = [{"name": "hook", "webhook_configs": [{"url": url, "send_resolved": True}]}]
        (self.place / "alertmanager.yml").write_text(json.dumps({"route": route, "receivers": receivers}))
        here = ["--config", str(self.place / "nicety.toml"), "--state-dir", str(self.place / "state")]
        return {
            "exporter": [sys.executable, "-m", "nicety.scheduler", *here, "exporter", "--listen", at["exporter"]],
            "alertmanager": [
                *("prometheus-alertmanager", "--config.file=alertmanager.yml", "--storage.path=am"),
                *(f"--web.listen-address={at['alertmanager']}", "--cluster.listen-address="),
            ],
            "prometheus": [
                *("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--log.level=warn"),
                *(f"--web.listen-address={at['prometheus']}", "--enable-feature=exemplar-storage"),
            ],
        }

    def write(self, step: int) -> None:
        at = step % len(self.frames) * STEP
        frame: Frame = self.frames[step % len(self.frames)]
        if not self.healed:
            sick = FAULTS["NicetyIncident"](frame, BEGIN)
            assert sick is not None
            frame = sick
        now = time.time()
        decisions = [msgspec.structs.replace(each, wall=now) for each in frame.decisions]
        own = an_own(ticks=7200 + step * STEP, interval=60.0)
        frame = msgspec.structs.replace(frame, wall=now, seq=step, own=own, decisions=decisions)
        new = self.place / "new"
        new.write_bytes(pack(frame))
        new.rename(self.place / "frame")
        assert at <= LENGTH

    def _writes(self) -> None:
        step = 0
        while not self._ended:
            step += 1
            self.write(step)
            time.sleep(0.1)

    def _end(self, writing: threading.Thread, taking: threading.Thread) -> None:
        self._ended = True
        writing.join()
        self.hook.shutdown()
        taking.join()
        self.hook.server_close()

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(20)

    def ask(self, path: str, **parameters: str) -> Any:
        """An answer of Prometheus' API; None if it is not there yet."""
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        except OSError:
            return None

    def said(self) -> str:
        return "\n".join(path.read_text() for path in self.place.glob("*.log"))

    def until(self, what: str, holds: Any, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"{what}: {self.said()}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with ExitStack() as open_:
        made = Rig(tmp_path_factory.mktemp("prometheus"), open_)
        made.until("no scrape", lambda: (made.ask("query", query="count_over_time(nicety_up[1m]) > 10") or {}).get("result"))
        yield made


def empty(rig: Rig, expr: str, instant: bool) -> bool:
    if instant:
        return not rig.ask("query", query=filled(expr))["result"]
    now = time.time()
    return not rig.ask("query_range", query=filled(expr), start=str(now - 2), end=str(now), step="1")["result"]


def test_every_panel_has_data(rig: Rig) -> None:
    queries = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
    assert len(queries) >= 60
    wrong = [(title, target["expr"]) for title, target in queries if empty(rig, target["expr"], target.get("instant", False))]
    assert wrong == []


def test_a_query_of_a_metric_that_is_not_there_is_noticed(rig: Rig) -> None:
    assert empty(rig, "nicety_no_such_metric", True)
    assert empty(rig, "nicety_no_such_metric", False)


def test_what_a_person_chooses_from_has_values_and_the_marks_have_a_valid_query(rig: Rig) -> None:
    chosen = [each for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert [each["name"] for each in chosen] == ["instance", "group", "pool"]
    for each in chosen:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", each["definition"])
        assert found is not None
        assert rig.ask(f"label/{found[2]}/values", **{"match[]": filled(found[1])})
    for each in DASHBOARD["annotations"]["list"]:
        assert rig.ask("query", query=filled(each["expr"])) is not None


def test_every_metric_of_the_exporter_is_in_a_panel_or_an_alert(rig: Rig) -> None:
    texts = [target["expr"] for panel in PANELS for target in panel["targets"]] + [(CONFIGS / "prometheus/alerts.yml").read_text()]
    used = {name for text in texts for name in re.findall(r"nicety_[a-z0-9_]+", text)}
    there = {name for name in rig.ask("label/__name__/values") if name.startswith("nicety_")}
    named_elsewhere = {
        *("nicety_build_info", "nicety_tick_interval_seconds", "nicety_uptime_seconds", "nicety_group_class_certainty_ratio"),
        *("nicety_machine_memory_bytes", "nicety_machine_memory_available_bytes"),
    }
    assert len(there) > 50
    assert there - used == named_elsewhere
    assert used - there == set()


def test_every_rule_is_evaluated_without_error(rig: Rig) -> None:
    rig.until("no evaluation", lambda: all(r["health"] == "ok" for g in rig.ask("rules")["groups"] for r in g["rules"]))
    assert sum(len(group["rules"]) for group in rig.ask("rules")["groups"]) == 21


def test_exemplars_of_a_counter_name_decisions(rig: Rig) -> None:
    now = time.time()
    (series,) = rig.ask("query_exemplars", query="nicety_decisions_total", start=str(now - 60), end=str(now + 60))
    assert series["seriesLabels"]["policy"] == "pool_size"
    assert re.fullmatch(r"5e551017-\d+\.0", series["exemplars"][0]["labels"]["decision"])


def test_an_alert_reaches_the_webhook_of_alertmanager_and_its_end_too(rig: Rig) -> None:
    def came(status: str) -> list[dict[str, Any]]:
        return [each for each in rig.hook.got if each["labels"]["alertname"] == "NicetyIncident" and each["status"] == status]

    rig.until("no alert", lambda: came("firing"))
    assert came("firing")[0]["annotations"]["summary"].startswith("Workers of pool web on 127.0.0.1:")
    rig.healed = True
    rig.until("no end", lambda: came("resolved"))
