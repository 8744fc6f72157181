"""Samples as the text of Prometheus or OpenMetrics, by prometheus-client.

From one frame to the next only values change. So what prometheus-client wrote before the value of a series is kept, and it is asked
again for series that are new, and for counters, whose exemplars change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.samples import Sample as Line
from prometheus_client.utils import floatToGoString

from .catalogue import Metric
from .figures import Sample

PLAIN_TYPE = "text/plain; version=0.0.4; charset=utf-8"

OPEN_END = "# EOF\n"

KEPT = 2
"""The text of series that are gone is dropped when there are as many of them as of the others (chosen)."""


class Text:
    """Renders one frame after the other in one format."""

    def __init__(self, open_: bool) -> None:
        """`open_`: as OpenMetrics, which has exemplars."""
        self.content_type: str = openmetrics.CONTENT_TYPE_LATEST if open_ else PLAIN_TYPE
        self._open = open_
        self._heads: dict[Metric, str] = {}
        self._begins: dict[Metric, dict[tuple[str, ...], str]] = {}  # labels -> the line up to its value

    def of(self, samples: Mapping[Metric, Sequence[Sample]]) -> bytes:
        """The text of all `samples`."""
        parts: list[str] = []
        for metric, its in samples.items():
            if metric.kind == "counter":
                parts += _whole(metric, its, self._open)
            else:
                begins = self._begun(metric, its)
                parts.append(self._heads[metric])
                parts += [f"{begins[labels]}{floatToGoString(value)}\n" for labels, value, _ in its]  # type: ignore[no-untyped-call]
        if self._open:
            parts.append(OPEN_END)
        return "".join(parts).encode()

    def _begun(self, metric: Metric, samples: Sequence[Sample]) -> Mapping[tuple[str, ...], str]:
        begins = self._begins.setdefault(metric, {})
        if new := [sample for sample in samples if sample.labels not in begins]:
            lines = _whole(metric, new, self._open)
            self._heads[metric] = "".join(lines[: -len(new)])
            for sample, line in zip(new, lines[-len(new) :], strict=True):
                begins[sample.labels] = line.rpartition(" ")[0] + " "
            if len(begins) > KEPT * len(samples):
                begins = self._begins[metric] = {sample.labels: begins[sample.labels] for sample in samples}
        return begins


def _whole(metric: Metric, samples: Iterable[Sample], open_: bool) -> list[str]:
    """The lines of one metric, each with its end, as prometheus-client writes them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_OneFamily(metric, samples))
    if open_:
        written: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        text = written.decode().removesuffix(OPEN_END)
    else:
        text = generate_latest(registry).decode()
    return [f"{line}\n" for line in text.removesuffix("\n").split("\n")]


class _OneFamily(Collector):
    """The samples of one metric as prometheus-client takes them."""

    def __init__(self, metric: Metric, samples: Iterable[Sample]) -> None:
        made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        self._family: Family = made(metric.name, metric.text, labels=metric.labels, unit=metric.unit)
        self._family.samples = [_line(metric, sample) for sample in samples]

    def collect(self) -> Iterable[Family]:
        yield self._family


def _line(metric: Metric, sample: Sample) -> Line:
    exemplar = sample.exemplar
    shown = None if exemplar is None else Exemplar({"decision": exemplar.decision}, 1.0, exemplar.wall)
    return Line(metric.sample_name, dict(zip(metric.labels, sample.labels, strict=True)), sample.value, None, shown)
