//! Which format a scraper gets, by its Accept header.

use std::cmp::Reverse;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4 (and 1.0.0, which differs only in names we do not use).
    Text,
    /// OpenMetrics 1.0 (and 0.0.1).
    OpenMetrics,
}

/// What to send and how to call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Representation {
    /// Format of the body.
    pub format: Format,
    version: &'static str,
    escaping: Option<&'static str>,
}

impl Representation {
    /// Text 0.0.4, which every reader knows.
    pub const CLASSIC: Self = Self { format: Format::Text, version: "0.0.4", escaping: None };

    /// Value of Content-Type: media type, version, character set, and the escaping scheme if one was asked for.
    /// All names are plain ASCII, so every scheme gives the same text.
    #[must_use]
    pub fn content_type(&self) -> String {
        let media_type = match self.format {
            Format::Text => "text/plain",
            Format::OpenMetrics => "application/openmetrics-text",
        };
        let escaping = self.escaping.map(|scheme| format!("; escaping={scheme}")).unwrap_or_default();
        format!("{media_type}; version={}; charset=utf-8{escaping}", self.version)
    }
}

/// Best representation for an Accept header (RFC 9110, section 12.5.1): highest q, then the more specific range,
/// then the earlier one. Nothing acceptable, or no header, gives text 0.0.4 instead of an error: a scrape that
/// fails helps nobody.
#[must_use]
pub fn negotiate(accept: Option<&str>) -> Representation {
    accept
        .unwrap_or_default()
        .split(',')
        .enumerate()
        .filter_map(|(position, range)| {
            let (quality, specific, representation) = parse_range(range)?;
            (quality > 0).then_some(((quality, specific, Reverse(position)), representation))
        })
        .max_by_key(|(rank, _)| *rank)
        .map_or(Representation::CLASSIC, |(_, representation)| representation)
}

/// Quality in thousandths, whether the range names a type, and what we would send; `None` for what we cannot.
fn parse_range(range: &str) -> Option<(u16, bool, Representation)> {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next()?.to_ascii_lowercase();
    let mut quality = 1000;
    let mut version = None;
    let mut escaping = None;
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => quality = parse_quality(value)?,
            "version" => version = Some(value),
            "escaping" => escaping = scheme(value),
            _ => {}
        }
    }
    let (specific, format, version) = match (media_type.as_str(), version) {
        ("application/openmetrics-text", Some("1.0.0") | None) => (true, Format::OpenMetrics, "1.0.0"),
        ("application/openmetrics-text", Some("0.0.1")) => (true, Format::OpenMetrics, "0.0.1"),
        ("text/plain", Some("1.0.0")) => (true, Format::Text, "1.0.0"),
        ("text/plain", Some("0.0.4") | None) => (true, Format::Text, "0.0.4"),
        ("text/*" | "*/*", _) => (false, Format::Text, "0.0.4"),
        _ => return None,
    };
    // Only the formats that know UTF-8 names know escaping.
    let escaping = escaping.filter(|_| version == "1.0.0");
    Some((quality, specific, Representation { format, version, escaping }))
}

/// `0`, `0.5`, `1.000`; anything else makes the range void.
fn parse_quality(text: &str) -> Option<u16> {
    let value: f64 = text.parse().ok()?;
    (0.0..=1.0).contains(&value).then(|| (value * 1000.0).round() as u16)
}

fn scheme(text: &str) -> Option<&'static str> {
    ["allow-utf-8", "underscores", "dots", "values"].into_iter().find(|scheme| *scheme == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_and_their_answers() {
        const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
        const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        for (accept, content_type) in [
            (None, CLASSIC),
            (Some(""), CLASSIC),
            (Some("*/*"), CLASSIC),
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), CLASSIC),
            (Some("application/json"), CLASSIC),
            (Some("application/openmetrics-text"), OPENMETRICS),
            (Some("APPLICATION/OpenMetrics-Text; Version=1.0.0"), OPENMETRICS),
            (Some("application/openmetrics-text;version=\"1.0.0\""), OPENMETRICS),
            // Prometheus 2.42.
            (
                Some(
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                OPENMETRICS,
            ),
            // Prometheus 3.
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                ),
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            ),
            // Prometheus 3 with native histograms: protobuf first, which is not offered.
            (
                Some(
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;version=1.0.0;escaping=underscores;q=0.6",
                ),
                "text/plain; version=1.0.0; charset=utf-8; escaping=underscores",
            ),
            (
                Some("application/openmetrics-text;version=0.0.1"),
                "application/openmetrics-text; version=0.0.1; charset=utf-8",
            ),
            (Some("application/openmetrics-text;version=2.0.0, text/plain;q=0.1"), CLASSIC),
            (Some("text/plain;version=0.0.4, application/openmetrics-text;q=0.9"), CLASSIC),
            (Some("text/plain, application/openmetrics-text"), CLASSIC),
            (Some("*/*, application/openmetrics-text"), OPENMETRICS),
            (Some("application/openmetrics-text;q=0, */*;q=0.1"), CLASSIC),
            (Some("application/openmetrics-text;q=2, text/plain;q=0.1"), CLASSIC),
            (Some("application/openmetrics-text;q=0.001, text/plain;q=0.002"), CLASSIC),
            (Some("application/openmetrics-text;escaping=evil\r\nX: y"), OPENMETRICS),
            (Some(";;;,,=;q="), CLASSIC),
        ] {
            assert_eq!(negotiate(accept).content_type(), content_type, "for Accept: {accept:?}");
        }
    }
}
