"""A real Prometheus scrapes a real exporter: every query of the dashboard returns data, exemplars name decisions, and an alert
reaches the webhook of a real Alertmanager.

Time is compressed: an hour of frames passes in seconds, and the alerts do not wait.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nicety.scheduler.frame import Frame, pack
from nicety.scheduler.testing.frames import an_own
from nicety.scheduler.testing.hours import BEGIN, FAULTS, LENGTH, STEP, hour
from nicety.scheduler.testing.prometheus import ALERTS, DASHBOARD, TARGETS, Prometheus, filled, free_port, start

PROGRAMS = ("prometheus", "prometheus-alertmanager")

pytestmark = pytest.mark.skipif(
    any(shutil.which(each) is None for each in PROGRAMS), reason=f"needs apt install {' '.join(PROGRAMS)}"
)

fill = partial(filled, horizon="30s")


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


class Rig(Prometheus):
    """With Alertmanager and the webhook. A thread writes frames, with an open incident until `healed`."""

    def __init__(self, place: Path, open_: ExitStack) -> None:
        self.healed, self._ended = False, False
        self.hook = Webhook()
        self.place = place
        self.frames = [frame for _, frame in hour() if frame is not None]
        self.write(0)
        writing, taking = threading.Thread(target=self._writes), threading.Thread(target=self.hook.serve_forever)
        for thread in (writing, taking):
            thread.start()
        open_.callback(self._end, writing, taking)
        (place / "nicety.toml").write_text(f'[daemon]\nframe = "{place}/frame"\n')
        url = f"http://127.0.0.1:{self.hook.server_port}/"
        route = {"receiver": "hook", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "1s"}
        receivers = [{"name": "hook", "webhook_configs": [{"url": url, "send_resolved": True}]}]
        (place / "alertmanager.yml").write_text(json.dumps({"route": route, "receivers": receivers}))  # JSON is YAML
        manager = f"127.0.0.1:{free_port()}"
        command = ["prometheus-alertmanager", "--config.file=alertmanager.yml", "--storage.path=am"]
        start(place, open_, "alertmanager", [*command, f"--web.listen-address={manager}", "--cluster.listen-address="])
        options = ["--config", str(place / "nicety.toml"), "--state-dir", str(place / "state")]
        alerting = {"alertmanagers": [{"static_configs": [{"targets": [manager]}]}]}
        super().__init__(place, open_, options, 0.25, alerting)

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


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with ExitStack() as open_:
        made = Rig(tmp_path_factory.mktemp("prometheus"), open_)
        made.until("no scrape", lambda: (made.ask("query", query="count_over_time(nicety_up[1m]) > 10") or {}).get("result"))
        yield made


def test_every_panel_has_data(rig: Rig) -> None:
    assert len(TARGETS) >= 60
    wrong = [(title, it["expr"]) for title, it in TARGETS if rig.empty(fill(it["expr"]), it.get("instant", False))]
    assert wrong == []


def test_a_query_of_a_metric_that_is_not_there_is_noticed(rig: Rig) -> None:
    assert rig.empty("nicety_no_such_metric", True)
    assert rig.empty("nicety_no_such_metric", False)


def test_what_a_person_chooses_from_has_values_and_the_marks_have_a_valid_query(rig: Rig) -> None:
    chosen = [each for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert [each["name"] for each in chosen] == ["instance", "group", "pool", "horizon"]
    for each in chosen:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", each["definition"])
        assert found is not None
        assert rig.ask(f"label/{found[2]}/values", **{"match[]": fill(found[1])})
    for each in DASHBOARD["annotations"]["list"]:
        assert rig.ask("query", query=fill(each["expr"])) is not None


def test_every_metric_of_the_exporter_is_in_a_panel_or_an_alert(rig: Rig) -> None:
    texts = [target["expr"] for _, target in TARGETS] + [ALERTS.read_text()]
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
