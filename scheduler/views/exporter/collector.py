"""The metrics of one daemon in the formats of Prometheus and OpenMetrics, by prometheus-client and a registry of its own.

One answer serves all that ask within the same tick.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.samples import Sample as Line

from ...hands.kernel import Clock
from ..source import FrameSource
from .catalogue import Metric
from .figures import Figures, Sample, Seen

OPEN = "application/openmetrics-text"

PLAIN_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Answer(NamedTuple):
    """What a reader gets."""

    body: bytes
    content_type: str


class Exporter:
    """Follows one daemon, and renders what is known of it."""

    def __init__(self, source: FrameSource, limit: int, clock: Clock, say: Callable[[str], None]) -> None:
        """`limit`: most series. `say`: takes what a person should know."""
        self._source, self._clock, self._say = source, clock, say
        self._figures = Figures(limit)
        self._lock = threading.Lock()
        self._made: dict[tuple[object, ...], Answer] = {}
        self._trouble = ""
        self._refused = False

    def answer(self, accept: str) -> Answer:
        """The metrics. `accept`: what the reader takes, as in HTTP; OpenMetrics is preferred, because it has exemplars."""
        with self._lock:
            seen = self._look()
            open_ = any(part.partition(";")[0].strip() == OPEN for part in accept.split(","))
            frame = seen.frame
            tick = None if frame is None else (frame.own.session, frame.seq, round(seen.age))
            key = (open_, tick, seen.late, seen.unreadable)
            if key not in self._made:
                self._made = {known: made for known, made in self._made.items() if known[1:] == key[1:]}
                self._made[key] = self._render(self._samples(seen), open_)
            return self._made[key]

    def samples(self) -> dict[Metric, list[Sample]]:
        """The samples of the newest frame."""
        with self._lock:
            return self._samples(self._look())

    def _look(self) -> Seen:
        source = self._source
        source.look()
        if source.trouble and source.trouble != self._trouble:
            self._say(source.trouble)
        self._trouble = source.trouble
        wall = self._clock.wall() / 1e9
        age = 0.0 if source.frame is None else max(0.0, wall - source.frame.wall)
        return Seen(source.frame, age, source.late(wall) > 0, source.trouble != "")

    def _samples(self, seen: Seen) -> dict[Metric, list[Sample]]:
        samples = self._figures.of(seen, self._clock.monotonic() / 1e9)
        figures = self._figures
        if figures.refused and not self._refused:
            self._refused = True
            self._say(f"{' and '.join(figures.refused)}, to stay within {figures.limit} series; raise --series to see them")
        return samples

    def _render(self, samples: dict[Metric, list[Sample]], open_: bool) -> Answer:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(samples))
        if open_:
            body: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
            return Answer(body, openmetrics.CONTENT_TYPE_LATEST)
        return Answer(generate_latest(registry), PLAIN_TYPE)


class _Families(Collector):
    """The samples of one frame as prometheus-client takes them."""

    def __init__(self, samples: dict[Metric, list[Sample]]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Family]:
        for metric, samples in self._samples.items():
            made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = made(metric.name, metric.text, labels=metric.labels, unit=metric.unit)
            family.samples = [_line(metric, sample) for sample in samples]
            yield family


def _line(metric: Metric, sample: Sample) -> Line:
    exemplar = sample.exemplar
    shown = None if exemplar is None else Exemplar({"decision": exemplar.decision}, 1.0, exemplar.wall)
    return Line(metric.sample_name, dict(zip(metric.labels, sample.labels, strict=True)), sample.value, None, shown)
