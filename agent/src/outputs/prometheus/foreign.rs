//! Families of another program, passed on as they are.

use bytes::BytesMut;

use super::format::Format;
use crate::model::user_metrics::{UserMetric, UserMetricKind, UserMetrics};

/// Heading in docs/METRICS.md.
pub(super) const TITLE: &str = "tailscaled's own metrics";
/// What holds for them.
pub(super) const ABOUT: &str = "With `--tailscale.user-metrics`, the families `tailscaled_...` that `tailscale metrics print` shows, as they are; \
     families of other names or types are left out. Read every 10 seconds, as the collector `user_metrics` says; absent \
     while tailscaled does not answer, or says anything that is not well-formed. What they mean is for tailscaled to say.";

/// Appends the user metrics of tailscaled. In OpenMetrics a counter's name ends with `_total` on samples only; a counter
/// of any other name is of unknown type there.
pub(super) fn user_metrics(metrics: &UserMetrics, format: Format, out: &mut BytesMut) {
    let openmetrics = format == Format::OpenMetrics;
    for UserMetric { name, kind, help, samples } in &metrics.families {
        let base = name.strip_suffix("_total");
        let (name, kind) = match (kind, base) {
            (UserMetricKind::Counter, Some(base)) if openmetrics => (base, "counter"),
            (UserMetricKind::Counter, None) if openmetrics => (name.as_str(), "unknown"),
            (UserMetricKind::Counter, _) => (name.as_str(), "counter"),
            (UserMetricKind::Gauge, _) => (name.as_str(), "gauge"),
        };
        for part in ["# HELP ", name, " "] {
            out.extend_from_slice(part.as_bytes());
        }
        escape_help(out, help, openmetrics);
        for part in ["\n# TYPE ", name, " ", kind, "\n", samples] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// OpenMetrics escapes quotes, too.
fn escape_help(out: &mut BytesMut, help: &str, openmetrics: bool) {
    for byte in help.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if openmetrics => out.extend_from_slice(b"\\\""),
            _ => out.extend_from_slice(&[byte]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_escapes_of_both_formats() {
        let family = |name: &str, kind| UserMetric {
            name: name.to_owned(),
            kind,
            help: "A \"b\"\\\nc".to_owned(),
            samples: format!("{name} 1\n"),
        };
        let metrics = UserMetrics {
            families: vec![
                family("tailscaled_a_total", UserMetricKind::Counter),
                family("tailscaled_b", UserMetricKind::Counter),
                family("tailscaled_c", UserMetricKind::Gauge),
            ],
        };
        let write = |format| {
            let mut out = BytesMut::new();
            user_metrics(&metrics, format, &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(
            write(Format::Text),
            r#"# HELP tailscaled_a_total A "b"\\\nc
# TYPE tailscaled_a_total counter
tailscaled_a_total 1
# HELP tailscaled_b A "b"\\\nc
# TYPE tailscaled_b counter
tailscaled_b 1
# HELP tailscaled_c A "b"\\\nc
# TYPE tailscaled_c gauge
tailscaled_c 1
"#
        );
        assert_eq!(
            write(Format::OpenMetrics),
            r#"# HELP tailscaled_a A \"b\"\\\nc
# TYPE tailscaled_a counter
tailscaled_a_total 1
# HELP tailscaled_b A \"b\"\\\nc
# TYPE tailscaled_b unknown
tailscaled_b 1
# HELP tailscaled_c A \"b\"\\\nc
# TYPE tailscaled_c gauge
tailscaled_c 1
"#
        );
    }
}
