//! Text formats of Prometheus.
