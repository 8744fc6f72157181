"""Every alert fires in its fault, says so in words, and is silent before and after, and in an hour of health.

Prometheus' own rule engine (promtool) evaluates what the exporter wrote in each hour.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nicety.scheduler.frame import pack
from nicety.scheduler.testing.clock import FakeClock
from nicety.scheduler.testing.frames import WALL, a_frame
from nicety.scheduler.testing.hours import BEGIN, END, FAULTS, LENGTH, OBJECTIVES, STEP, Fault, hour
from nicety.scheduler.views.exporter.collector import Exporter
from nicety.scheduler.views.source import FrameSource

CONFIGS = Path(__file__).parents[3] / "configs/prometheus"
ALERTS = CONFIGS / "alerts.yml"
TARGET = 'instance="box:29753",job="nicety"'

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt install prometheus")


def scraped(place: Path, fault: Fault | None, down: str = "") -> dict[str, list[str]]:
    """What Prometheus would store of an hour: values in steps by series. `down`: "exporter" or "file", while the fault lasts."""
    path, clock, said = place / "frame", FakeClock(wall=round(WALL * 1e9)), list[str]()
    exporter = Exporter(FrameSource([path]), 2000, clock, said.append)
    series: dict[str, list[str]] = {}
    for step, (at, frame) in enumerate(hour(fault)):
        faulty = BEGIN <= at < END
        clock.set_wall(round((WALL + at + 0.5) * 1e9))
        if frame is not None:
            data = pack(frame) if not (faulty and down == "file") else b"damaged"
            new = path.with_name("new")
            new.write_bytes(data)
            new.rename(path)
        answers = not (faulty and down == "exporter")
        found = {f"up{{{TARGET}}}": "1" if answers else "0"}
        for line in exporter.answer("").body.decode().splitlines() if answers else ():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                bare, _, labels = name.partition("{")
                labels = labels.removesuffix("}")
                found[f"{bare}{{{','.join(filter(None, (labels, TARGET)))}}}"] = f"{float(value):.6f}"
        for name in series.keys() | found.keys():
            values = series.setdefault(name, ["_"] * step)
            # Prometheus ends a series that is no longer there.
            values.append(found.get(name, "stale" if values and values[-1] not in ("_", "stale") else "_"))
    return series


def case(name: str, place: Path, fault: Fault | None, expected: list[str], down: str = "") -> dict[str, Any]:
    """An hour for promtool, and what must fire in it."""
    fired = 'group by (alertname) (max_over_time(ALERTS{alertstate="firing"}[%s]))'
    wanted = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in expected]
    now = 'group by (alertname) (ALERTS{alertstate="firing"})'
    return {
        "name": name,
        "interval": f"{STEP}s",
        "input_series": [{"series": key, "values": " ".join(v)} for key, v in scraped(place, fault, down).items()],
        "promql_expr_test": [
            {"expr": fired % f"{BEGIN - STEP}s", "eval_time": f"{BEGIN - STEP}s", "exp_samples": []},
            {"expr": fired % f"{LENGTH}s", "eval_time": f"{LENGTH}s", "exp_samples": wanted},
            {"expr": now, "eval_time": f"{LENGTH}s", "exp_samples": []},
        ],
    }


def run(place: Path, cases: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    (place / "alerts.yml").write_text(ALERTS.read_text())
    (place / "cases.yml").write_text(  # JSON is YAML
        json.dumps({"rule_files": ["alerts.yml"], "evaluation_interval": f"{STEP}s", "tests": cases})
    )
    command = ["promtool", "test", "rules", "cases.yml"]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=120)


def names() -> Iterator[str]:
    for line in ALERTS.read_text().splitlines():
        if line.lstrip().startswith("- alert:"):
            yield line.split()[-1]


def test_rules_and_the_example_of_a_scrape_are_valid(tmp_path: Path) -> None:
    checked = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True, check=True)
    assert f"{len(list(names()))} rules found" in checked.stdout
    text = (CONFIGS / "scrape.yml").read_text().replace("/etc/prometheus/nicety/", f"{CONFIGS}/")
    (tmp_path / "prometheus.yml").write_text(text)
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], check=True, capture_output=True)


def test_names_units_and_types_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    (tmp_path / "frame").write_bytes(pack(a_frame()))
    exporter = Exporter(FrameSource([tmp_path / "frame"]), 2000, FakeClock(wall=round(WALL * 1e9)), print)
    body = exporter.answer("").body
    assert body.count(b"# TYPE") > 50
    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_every_alert_fires_in_its_fault_and_none_in_an_hour_of_health(tmp_path: Path) -> None:
    exporter = {"NicetyFrameUnreadable": "file", "NicetyExporterDown": "exporter"}
    assert {*names()} == {*FAULTS, *exporter}
    cases = [case("health", tmp_path, None, [])]
    cases += [case(alert, tmp_path, fault, [alert]) for alert, fault in FAULTS.items()]
    cases += [case(f"objective {kind}", tmp_path, fault, ["NicetyObjectiveMissed"]) for kind, fault in OBJECTIVES.items()]
    cases += [case(alert, tmp_path, None, [alert], down) for alert, down in exporter.items()]
    done = run(tmp_path, cases)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_does_not_fire_is_noticed(tmp_path: Path) -> None:
    done = run(tmp_path, [case("health", tmp_path, None, ["NicetyDown"])])
    assert done.returncode != 0
    assert "NicetyDown" in done.stdout + done.stderr


def next_steps() -> Mapping[str, str]:
    """The next step that each alert names, by alert."""
    found: dict[str, str] = {}
    alert = ""
    for line in ALERTS.read_text().splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "- alert":
            alert = value
        elif key == "description":
            found[alert] = value
    return found


def test_every_alert_has_a_severity_a_summary_and_a_next_step() -> None:
    text = ALERTS.read_text()
    many = len(list(names()))
    assert len(next_steps()) == many == text.count("summary: ") == text.count("labels: {severity: ")
    assert all(len(value) > 20 for value in next_steps().values())
