"""`nicety exporter`: the frame as metrics of Prometheus, OpenMetrics and OTLP. Its own process; asks the daemon for nothing."""
