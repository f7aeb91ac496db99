//! docs/METRICS.md, from the same tables as the output.

use std::fmt::Write as _;

use super::families::SECTIONS;
use super::family::{Header, Kind};
use super::foreign;
use crate::outputs::{compat, own};

const INTRODUCTION: &str = "# Metrics

Everything that tailgauge exports. This page is made from the tables that the encoder writes from; to renew it run
`UPDATE_METRICS=1 cargo test -p tailgauge metrics_page`.

`/metrics` speaks Prometheus text 0.0.4 and OpenMetrics 1.0; the Accept header decides. Base units (seconds, bytes,
ratios), bytes never bits, receive and transmit as two metrics. Names and HELP are the same in both formats, but
OpenMetrics leaves `_total` and `_info` out of TYPE and HELP lines. A family without samples is left out.
";

/// The page docs/METRICS.md.
#[must_use]
pub fn metrics_markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for described in SECTIONS {
        section(&mut page, described.title, described.about, described.families.iter().map(|f| &f.header));
    }
    // Writing to a String cannot fail.
    let _ = write!(page, "\n## {}\n\n{}\n", foreign::TITLE, foreign::ABOUT);
    section(&mut page, own::TITLE, own::ABOUT, own::HEADERS.iter().copied());
    section(&mut page, compat::node::TITLE, compat::node::ABOUT, compat::node::headers());
    section(&mut page, compat::tailscale::TITLE, compat::tailscale::ABOUT, compat::tailscale::HEADERS);
    page
}

fn section<'a>(page: &mut String, title: &str, about: &str, headers: impl IntoIterator<Item = &'a Header>) {
    // Writing to a String cannot fail.
    let _ =
        write!(page, "\n## {title}\n\n{about}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for header in headers {
        let kind = match header.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Info => "info",
            Kind::Histogram => "histogram",
            Kind::Untyped => "untyped",
        };
        let labels: Vec<_> = header.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{}` | {kind} | {} | {} |", header.name, labels.join(", "), header.help);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn headers() -> Vec<&'static Header> {
        let model = SECTIONS.iter().flat_map(|section| section.families).map(|family| &family.header);
        model.chain(own::HEADERS.iter().copied()).collect()
    }

    #[test]
    fn metrics_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md");
        if std::env::var_os("UPDATE_METRICS").is_some() {
            std::fs::write(path, metrics_markdown()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == metrics_markdown(),
            "docs/METRICS.md is not what the tables say; run UPDATE_METRICS=1 cargo test -p tailgauge metrics_page"
        );
    }

    #[test]
    fn names_are_unique_in_both_formats() {
        let mut names = HashSet::new();
        for header in headers() {
            assert!(names.insert(header.name), "{} twice", header.name);
            if header.base_name() != header.name {
                assert!(names.insert(header.base_name()), "{} twice in OpenMetrics", header.base_name());
            }
        }
    }

    #[test]
    fn names_and_texts_follow_the_conventions() {
        for Header { name, kind, labels, help } in headers() {
            let legal =
                |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            assert!(legal(name) && labels.iter().all(|label| legal(label)), "{name}");
            assert!(name.starts_with("tailgauge_") || name.starts_with("process_"), "{name} has a prefix");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}: _total is for counters");
            assert_eq!(name.ends_with("_info"), *kind == Kind::Info, "{name}: _info is for infos");
            assert!(help.ends_with('.') && !help.contains(['\n', '"', '\\', '|']), "{name}: HELP is plain");
            assert!(!labels.contains(&"le"), "{name}: le belongs to buckets");
        }
    }
}
