//! The agent's own metrics, which are no part of the model: a registry of the `prometheus` crate for what is counted, and
//! what the kernel says of the process.

mod process;

use bytes::BytesMut;
use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{Error, IntCounter, IntCounterVec, Opts, Registry};

use super::prometheus::{Format, Header, Kind, Line, Samples, family};
use process::Process;

/// Heading in docs/METRICS.md.
pub(super) const TITLE: &str = "The agent's process";
/// What holds for all of them.
pub(super) const ABOUT: &str = "Beside the model: what the agent as a program does.";

const HTTP_REQUESTS: Header = Header::counter(
    "tailgauge_http_requests_total",
    &["code", "handler"],
    "HTTP requests answered, by status code and path; handler is other for unknown paths.",
);
const HTTP_DROPPED: Header = Header::counter(
    "tailgauge_http_connections_dropped_total",
    &["reason"],
    "HTTP connections that were ended early: limit (too many, answered 503), evicted (silent while others needed \
     the place) or timeout (head not sent or answer not taken in time).",
);
const LOG_LINES_SUPPRESSED: Header = Header::counter(
    "tailgauge_log_lines_suppressed_total",
    &[],
    "Log lines held back because their place in the code said too much.",
);
const LOCALAPI_RECONNECTS: Header = Header::counter(
    "tailgauge_localapi_reconnects_total",
    &[],
    "Times that the agent had to connect to the local API of tailscaled anew.",
);

/// Every family, for docs/METRICS.md.
pub(super) const HEADERS: &[&Header] = &[
    &HTTP_REQUESTS,
    &HTTP_DROPPED,
    &LOG_LINES_SUPPRESSED,
    &LOCALAPI_RECONNECTS,
    &process::CPU,
    &process::OPEN_FDS,
    &process::MAX_FDS,
    &process::VIRTUAL_MEMORY,
    &process::VIRTUAL_MEMORY_MAX,
    &process::RESIDENT_MEMORY,
    &process::START_TIME,
    &process::THREADS,
];

/// Counters of the agent itself. Clones of a counter count into the same number.
#[derive(Debug)]
pub struct SelfMetrics {
    process: Process,
    registry: Registry,
    http_requests: IntCounterVec,
    http_dropped: IntCounterVec,
    /// Log lines held back by rate limits.
    pub log_lines_suppressed: IntCounter,
    /// Connections to the local API after the first.
    pub localapi_reconnects: IntCounter,
}

impl SelfMetrics {
    /// A registry with all counters in it.
    ///
    /// # Errors
    /// When a name is used twice or malformed, which a test rules out.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let vector = |header: &Header| -> Result<IntCounterVec, Error> {
            register(&registry, IntCounterVec::new(options(header), header.labels)?)
        };
        let counter = |header: &Header| -> Result<IntCounter, Error> {
            register(&registry, IntCounter::with_opts(options(header))?)
        };
        let (http_requests, http_dropped) = (vector(&HTTP_REQUESTS)?, vector(&HTTP_DROPPED)?);
        let log_lines_suppressed = counter(&LOG_LINES_SUPPRESSED)?;
        let localapi_reconnects = counter(&LOCALAPI_RECONNECTS)?;
        Ok(Self {
            process: Process::new(),
            registry,
            http_requests,
            http_dropped,
            log_lines_suppressed,
            localapi_reconnects,
        })
    }

    /// Counts an answer. `handler` is one of a fixed set: never what the client sent.
    pub(super) fn count_request(&self, handler: &'static str, code: u16) {
        let code = itoa::Buffer::new().format(code).to_owned();
        self.http_requests.with_label_values(&[code.as_str(), handler]).inc();
    }

    /// Counts a connection that was ended early.
    pub(super) fn count_dropped(&self, reason: &'static str) {
        self.http_dropped.with_label_values(&[reason]).inc();
    }

    /// Appends all families to `out`.
    pub(super) fn encode(&self, format: Format, out: &mut BytesMut) {
        for (header, value) in self.process.read() {
            if let Some(value) = value {
                family(header, format, out, |samples| number(samples.sample(), value));
            }
        }
        for gathered in self.registry.gather() {
            let header = HEADERS.iter().find(|header| header.name == gathered.name());
            if let Some(header) = header {
                family(header, format, out, |samples| {
                    for metric in gathered.get_metric() {
                        sample(header.kind, metric, samples);
                    }
                });
            }
        }
    }
}

fn options(header: &Header) -> Opts {
    Opts::new(header.name, header.help)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn sample(kind: Kind, metric: &Metric, samples: &mut Samples<'_>) {
    let mut line = samples.sample();
    for pair in metric.get_label() {
        line = line.label(pair.name(), pair.value());
    }
    let value = match kind {
        Kind::Counter => metric.get_counter().get_value(),
        Kind::Gauge | Kind::Info | Kind::Histogram | Kind::Untyped => metric.get_gauge().get_value(),
    };
    number(line, value);
}

fn number(line: Line<'_>, value: f64) {
    // Whole numbers up to 2^53 are exact in a float.
    if value.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&value) {
        line.integer(value as u64);
    } else {
        line.float(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_registered_is_documented_and_exported() {
        let own = SelfMetrics::new().unwrap();
        own.count_request("/metrics", 200);
        own.count_dropped("timeout");
        let mut out = BytesMut::new();
        own.encode(Format::Text, &mut out);
        let text = std::str::from_utf8(&out).unwrap();
        let mut exported: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let mut documented: Vec<_> = HEADERS.iter().map(|header| header.name).collect();
        // Absent where no limit is set.
        for names in [&mut exported, &mut documented] {
            names.retain(|name| *name != process::VIRTUAL_MEMORY_MAX.name);
        }
        documented.sort_unstable();
        assert_eq!(exported, documented);
        assert!(
            text.contains("tailgauge_http_requests_total{code=\"200\",handler=\"/metrics\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("tailgauge_log_lines_suppressed_total 0\n"), "{text}");
        assert!(text.contains("# TYPE process_resident_memory_bytes gauge\n"), "{text}");
    }
}
