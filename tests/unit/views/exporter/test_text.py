"""The text is what prometheus-client would write of all samples at once, whatever came before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as LibraryExemplar
from prometheus_client.samples import Sample as LibrarySample

from nicety.scheduler.testing.frames import HOSTILE, WALL, a_frame, a_shown_group, a_shown_pool
from nicety.scheduler.testing.hours import FAULTS, hour
from nicety.scheduler.views.exporter import catalogue as m
from nicety.scheduler.views.exporter import text
from nicety.scheduler.views.exporter.catalogue import Metric
from nicety.scheduler.views.exporter.figures import Exemplar, Figures, Sample, Seen
from nicety.scheduler.views.exporter.text import KEPT, Text

Samples = Mapping[Metric, Sequence[Sample]]


class Oracle(Collector):
    """All samples as prometheus-client takes them."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def collect(self) -> Iterable[Family]:
        for metric, its in self.samples.items():
            made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = made(metric.name, metric.text, labels=metric.labels, unit=metric.unit)
            for labels, value, exemplar in its:
                shown = None if exemplar is None else LibraryExemplar({"decision": exemplar.decision}, 1.0, exemplar.wall)
                family.samples.append(
                    LibrarySample(metric.sample_name, dict(zip(metric.labels, labels, strict=True)), value, None, shown)
                )
            yield family


def written(samples: Samples, open_: bool) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Oracle(samples))
    found: bytes = openmetrics.generate_latest(registry) if open_ else generate_latest(registry)  # type: ignore[no-untyped-call]
    return found


@pytest.mark.parametrize("open_", [False, True])
def test_an_hour_with_a_fault_is_written_as_by_the_library(open_: bool) -> None:
    figures, ours = Figures(2000), Text(open_)
    for name in ("NicetyRestarts", "NicetyPoolsWithoutMetrics", "NicetyDoesHarm", "NicetyDown"):
        for at, frame in hour(FAULTS[name]):
            if at % 120 == 0:
                samples = figures.of(Seen(frame, 0.5, False, False), float(at))
                assert ours.of(samples) == written(samples, open_)


@pytest.mark.parametrize("open_", [False, True])
def test_names_of_strangers_are_written_as_by_the_library(open_: bool) -> None:
    ours = Text(open_)
    frame = a_frame(groups=[a_shown_group(name) for name in HOSTILE], pools=[a_shown_pool(name) for name in HOSTILE])
    for _ in range(2):
        samples = Figures(2000).of(Seen(frame, 0.5, False, False), 0.0)
        assert ours.of(samples) == written(samples, open_)
    raw = {m.GROUP_CPU: [Sample((name,), 1.0) for name in sorted({*HOSTILE, "a\nb", "a b 1.0", "\0", "\u2028"})]}
    assert Text(open_).of(raw) == written(raw, open_)


@pytest.mark.parametrize("open_", [False, True])
def test_values_are_written_as_by_the_library(open_: bool) -> None:
    values = (0.0, -0.0, 1e-9, 123456.0, 1234567.0, 2.0**53, 1e300, float("inf"), float("nan"), -1.5)
    ours = Text(open_)
    for value in values:
        samples = {m.UP: [Sample((), value)], m.TICKS: [Sample((), abs(value), Exemplar("s-1.0", WALL))]}
        assert ours.of(samples) == written(samples, open_)


def test_the_library_writes_each_series_once_and_counters_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    whole = text._whole

    def counted(metric: Metric, samples: Sequence[Sample], open_: bool) -> list[str]:
        asked.append((metric.name, len(samples)))
        return whole(metric, samples, open_)

    monkeypatch.setattr(text, "_whole", counted)
    ours = Text(True)
    for more in ((), ("web",), ("web",)):
        names = ("redis", "sshd", *more)
        ours.of({m.GROUP_CPU: [Sample((name,), 1.0) for name in names], m.TICKS: [Sample((), 1.0)]})
    cpu, ticks = "nicety_group_cpu_cores", "nicety_ticks"
    assert asked == [(cpu, 2), (ticks, 1), (cpu, 1), (ticks, 1), (ticks, 1)]


def test_the_text_of_series_that_are_gone_is_dropped() -> None:
    ours = Text(False)
    for number in range(200):
        ours.of({m.GROUP_CPU: [Sample((f"job {number}-{each}",), 1.0) for each in range(10)]})
        assert len(ours._begins[m.GROUP_CPU]) <= KEPT * 10
