//! What a reader must know of a metric family.

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only rises, until the agent starts anew.
    Counter,
    /// Any value now.
    Gauge,
    /// Always 1; the labels are the message. Text 0.0.4 has no such type and says gauge.
    Info,
    /// Cumulative buckets, sum and count.
    Histogram,
    /// node_exporter does not say.
    Untyped,
}

impl Kind {
    /// Word of the TYPE line.
    pub(crate) const fn as_str(self, openmetrics: bool) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Info if openmetrics => "info",
            Self::Gauge | Self::Info => "gauge",
            Self::Histogram => "histogram",
            Self::Untyped if openmetrics => "unknown",
            Self::Untyped => "untyped",
        }
    }
}

/// Name, type, labels and meaning of a family.
#[derive(Debug)]
pub(crate) struct Header {
    /// Full name, `_total` and `_info` included.
    pub(crate) name: &'static str,
    /// Type.
    pub(crate) kind: Kind,
    /// Label names in the order they are written, `le` excepted.
    pub(crate) labels: &'static [&'static str],
    /// One or two sentences, without line breaks, quotes and backslashes.
    pub(crate) help: &'static str,
}

impl Header {
    /// A counter.
    pub(crate) const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Counter, labels, help }
    }

    /// A gauge.
    pub(crate) const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind: Kind::Gauge, labels, help }
    }

    /// Name without the suffix that OpenMetrics adds to samples only.
    pub(crate) fn base_name(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram | Kind::Untyped => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }

    /// Base unit, which is the last word of the base name.
    pub(crate) fn unit(&self) -> Option<&'static str> {
        let last = self.base_name().rsplit('_').next()?;
        matches!(last, "seconds" | "bytes" | "ratio").then_some(last)
    }
}
