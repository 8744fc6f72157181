"""A real Prometheus (Debian's) that scrapes an exporter, for tests of the dashboard and the alerts in configs/."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..interpreter import PYTHON

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

ALERTS = CONFIGS / "prometheus/alerts.yml"

DASHBOARD = json.loads((CONFIGS / "grafana/nicety.json").read_text())

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
"""Title of a panel and one of its queries."""


def filled(expr: str, horizon: str) -> str:
    """A query as Grafana sends it, with everything chosen."""
    values = {"$__rate_interval": "4s", "$__range": "10s", "$instance": ".*", "$group": ".*", "$pool": ".*", "$horizon": horizon}
    for name, value in values.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Prometheus:
    """Prometheus with the alerts, which do not wait, and the exporter of one daemon. Both end with `open_`."""

    def __init__(
        self, place: Path, open_: ExitStack, options: Sequence[str], every: float, alerting: Mapping[str, object] | None = None
    ) -> None:
        """`place`: a folder of its own. `options`: those of `nicety` that name the daemon. `every`: seconds between two scrapes.
        `alerting`: that part of Prometheus' configuration."""
        self.place = place
        self._ports = {name: free_port() for name in ("exporter", "prometheus")}
        at = {name: f"127.0.0.1:{port}" for name, port in self._ports.items()}
        (place / "alerts.yml").write_text(re.sub(r"^ +for: .*\n", "", ALERTS.read_text(), flags=re.MULTILINE))
        milliseconds = f"{every * 1000:.0f}ms"
        configuration = {
            "global": {"scrape_interval": milliseconds, "scrape_timeout": milliseconds, "evaluation_interval": "500ms"},
            "scrape_configs": [{"job_name": "nicety", "static_configs": [{"targets": [at["exporter"]]}]}],
            "rule_files": ["alerts.yml"],
            "alerting": alerting or {},
        }
        (place / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
        command = [*PYTHON, "-m", "nicety.scheduler", *options, "exporter", "--listen", at["exporter"]]
        self.exporter = start(place, open_, "exporter", command)
        scraper = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--log.level=warn"]
        start(
            place,
            open_,
            "prometheus",
            [*scraper, f"--web.listen-address={at['prometheus']}", "--enable-feature=exemplar-storage"],
        )

    def ask(self, path: str, **parameters: str) -> Any:
        """An answer of Prometheus' API; None if it is not there yet."""
        url = f"http://127.0.0.1:{self._ports['prometheus']}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        except OSError:
            return None

    def empty(self, expr: str, instant: bool) -> bool:
        """Whether a query has no data, now or in the last two seconds."""
        if instant:
            return not self.ask("query", query=expr)["result"]
        now = time.time()
        return not self.ask("query_range", query=expr, start=str(now - 2), end=str(now), step="1")["result"]

    def firing(self) -> set[str]:
        """Alerts that fire now."""
        found = self.ask("alerts") or {"alerts": []}
        return {each["labels"]["alertname"] for each in found["alerts"] if each["state"] == "firing"}

    def until(self, what: str, holds: Callable[[], object], seconds: float = 30) -> None:
        """Wait until it holds. `what`: is said if it never does."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "\n".join([what, *(path.read_text()[-2000:] for path in self.place.glob("*.log"))])
            time.sleep(0.1)


def start(place: Path, open_: ExitStack, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process whose output goes to NAME.log in `place`, and that ends with `open_`."""
    log = open_.enter_context((place / f"{name}.log").open("ab"))
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=place)
    open_.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(30)
