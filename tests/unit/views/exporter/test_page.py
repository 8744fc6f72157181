"""docs/metrics.md has every metric as it is, and every alert."""

from __future__ import annotations

from pathlib import Path

from nicety.scheduler.views.exporter.catalogue import ALL

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs/metrics.md").read_text()


def table() -> str:
    rows = [
        f"| `{metric.sample_name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.text} |"
        for metric in ALL
    ]
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *rows])


def test_the_page_has_the_table_of_metrics() -> None:
    assert table() in PAGE, table()


def test_the_page_has_every_alert() -> None:
    text = (ROOT / "configs/prometheus/alerts.yml").read_text()
    alerts = {line.split()[-1] for line in text.splitlines() if line.lstrip().startswith("- alert:")}
    assert len(alerts) > 15
    assert {alert for alert in alerts if f"| `{alert}` |" not in PAGE} == set()
