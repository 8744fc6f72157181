"""Pushes the metrics by OTLP over HTTP, with the exporter of OpenTelemetry's SDK and none of its global state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ...hands.kernel import Clock
from .catalogue import Metric
from .errors import ExportError
from .figures import Exemplar, Sample

try:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import Exemplar as OtlpExemplar
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        MetricExportResult,
        MetricsData,
        NumberDataPoint,
        ResourceMetrics,
        ScopeMetrics,
        Sum,
    )
    from opentelemetry.sdk.metrics.export import Metric as Made
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("opentelemetry"):
        raise
    raise ExportError("OTLP needs OpenTelemetry; in nicety's checkout, run: pip install '.[otlp]'") from None

UNITS = {"seconds": "s", "bytes": "By", "ratio": "1", "cores": "{core}", "erlangs": "{worker}", "": "1"}
"""Units of UCUM, as OpenTelemetry has them."""

TIMEOUT = 10.0
"""Seconds that a push may take (OpenTelemetry's default)."""


class Pusher:
    """Pushes to one endpoint."""

    def __init__(self, url: str, samples: Callable[[], Mapping[Metric, list[Sample]]], clock: Clock) -> None:
        """`url`: the whole address, such as http://127.0.0.1:4318/v1/metrics. `samples`: gives those of now."""
        if not url.startswith(("http://", "https://")):
            raise ExportError(f'"{url}" is no address of HTTP; write e.g. http://127.0.0.1:4318/v1/metrics')
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # what fails is said here, once
        self._url, self._samples, self._clock = url, samples, clock
        self._exporter = OTLPMetricExporter(endpoint=url, timeout=TIMEOUT)
        self._began = clock.wall()

    def push(self) -> None:
        """Push what is known now. Raises ExportError."""
        if self._exporter.export(self._data(self._clock.wall()), timeout_millis=TIMEOUT * 1000) is not MetricExportResult.SUCCESS:
            raise ExportError(f"{self._url} did not take the metrics; check the address and its log")

    def _data(self, now: int) -> MetricsData:
        made = [self._metric(metric, samples, now) for metric, samples in self._samples().items()]
        scope = ScopeMetrics(InstrumentationScope("nicety"), made, "")
        return MetricsData([ResourceMetrics(Resource({"service.name": "nicety"}), [scope], "")])

    def _metric(self, metric: Metric, samples: list[Sample], now: int) -> Made:
        counts = metric.kind == "counter"
        points = [
            NumberDataPoint(
                attributes=dict(zip(metric.labels, sample.labels, strict=True)),
                start_time_unix_nano=self._began if counts else 0,
                time_unix_nano=now,
                value=sample.value,
                exemplars=[] if sample.exemplar is None else [_exemplar(sample.exemplar)],
            )
            for sample in samples
        ]
        data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True) if counts else Gauge(points)
        return Made(metric.sample_name, metric.text, UNITS[metric.unit], data)


def _exemplar(exemplar: Exemplar) -> OtlpExemplar:
    return OtlpExemplar({"decision": exemplar.decision}, 1.0, round(exemplar.wall * 1e9), None, None)
