//! Text 0.0.4, taken over line by line, and only if it is strictly what tailscaled writes.
//!
//! What a reader of either text format could take for anything else is refused: one bad line would cost the whole
//! scrape. A family of another name or type is left out.

use std::collections::HashSet;

use crate::model::user_metrics::{UserMetric, UserMetricKind, UserMetrics};

/// What families of tailscaled begin with; no family of ours does.
const PREFIX: &str = "tailscaled_";
/// How much of a bad line an error shows.
const EXCERPT: usize = 80;

/// A line that is not as expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}, found {found:?}")]
pub struct Bad {
    /// Line number from 1.
    line: usize,
    /// What would be right.
    expected: &'static str,
    /// The beginning of the line.
    found: String,
}

/// Reads an answer of `usermetrics`.
///
/// # Errors
/// The first line that is not what tailscaled writes.
pub fn parse(text: &[u8]) -> Result<UserMetrics, Bad> {
    let mut reader = Reader::default();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let outcome = match std::str::from_utf8(line) {
            Ok(line) => reader.line(line),
            Err(_) => Err("UTF-8"),
        };
        outcome.map_err(|expected| {
            let found = String::from_utf8_lossy(line).chars().take(EXCERPT).collect();
            Bad { line: index + 1, expected, found }
        })?;
    }
    reader.end_family();
    Ok(UserMetrics { families: reader.families })
}

#[derive(Default)]
struct Reader {
    families: Vec<UserMetric>,
    /// Names of families, with `_total` and without.
    names: HashSet<String>,
    current: Option<Current>,
}

/// The family whose lines are being read.
#[derive(Default)]
struct Current {
    name: String,
    kind: Option<Kind>,
    help: Option<String>,
    samples: String,
    series: HashSet<Vec<(String, String)>>,
}

#[derive(Clone, Copy)]
enum Kind {
    Known(UserMetricKind),
    Unknown,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), &'static str> {
        if line.is_empty() {
            return Ok(());
        }
        let Some(comment) = line.strip_prefix('#') else { return self.sample(line) };
        let mut words = comment.strip_prefix(' ').unwrap_or(comment).splitn(3, ' ');
        match words.next() {
            Some("TYPE") => {
                let (name, kind) = words.next().zip(words.next()).ok_or("`# TYPE name type`")?;
                let kind = match kind {
                    "counter" => Kind::Known(UserMetricKind::Counter),
                    "gauge" => Kind::Known(UserMetricKind::Gauge),
                    _ => Kind::Unknown,
                };
                let current = self.family(name)?;
                if current.kind.replace(kind).is_some() {
                    return Err("one TYPE for each family");
                }
            }
            Some("HELP") => {
                let name = words.next().ok_or("`# HELP name text`")?;
                let help =
                    unescape(words.next().unwrap_or_default()).ok_or("escapes \\\\ and \\n in HELP")?;
                let current = self.family(name)?;
                if current.help.replace(help).is_some() {
                    return Err("one HELP for each family");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The family that a comment is about, begun if it is a new one.
    fn family(&mut self, name: &str) -> Result<&mut Current, &'static str> {
        if !is_name(name) {
            return Err("a metric name");
        }
        if self.current.as_ref().is_none_or(|current| current.name != name) {
            self.end_family();
            let base = name.strip_suffix("_total").unwrap_or(name);
            let fresh = self.names.insert(base.to_owned());
            if !fresh || (base != name && !self.names.insert(name.to_owned())) {
                return Err("a family that was not there before");
            }
        }
        let current =
            self.current.get_or_insert_with(|| Current { name: name.to_owned(), ..Current::default() });
        if current.samples.is_empty() { Ok(current) } else { Err("TYPE and HELP before the samples") }
    }

    fn sample(&mut self, line: &str) -> Result<(), &'static str> {
        let current = self.current.as_mut().ok_or("a TYPE before the samples")?;
        let kind = match current.kind.ok_or("a TYPE before the samples")? {
            Kind::Known(kind) if current.name.starts_with(PREFIX) => kind,
            // Not passed on, whatever it is.
            _ if line.starts_with(&current.name) => return Ok(()),
            _ => return Err("a sample of the family"),
        };
        let rest = line.strip_prefix(&current.name).filter(|rest| rest.starts_with([' ', '{']));
        let rest = rest.ok_or("a sample of the family")?;
        let (mut labels, rest) = labels(rest).ok_or("labels as name=\"value\", each once")?;
        let value = rest.strip_prefix(' ').filter(|value| is_value(value, kind));
        value.ok_or("a space and a value, not below 0 for a counter, and nothing after it")?;
        labels.sort_unstable();
        if !current.series.insert(labels) {
            return Err("each series once");
        }
        current.samples.push_str(line);
        current.samples.push('\n');
        Ok(())
    }

    fn end_family(&mut self) {
        let Some(Current { name, kind: Some(Kind::Known(kind)), help, samples, .. }) = self.current.take()
        else {
            return;
        };
        if !samples.is_empty() {
            self.families.push(UserMetric { name, kind, help: help.unwrap_or_default(), samples });
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Labels, if there are any, and what follows them; `None` when they are malformed.
fn labels(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Some((found, text)) };
    loop {
        let (name, quoted) = rest.split_once("=\"")?;
        // Names with two underscores belong to Prometheus; `__name__` would make it another metric.
        if !is_name(name) || name.starts_with("__") || found.iter().any(|(other, _)| other == name) {
            return None;
        }
        let end = quoted_end(quoted)?;
        let (value, after) = quoted.split_at_checked(end)?;
        found.push((name.to_owned(), value.to_owned()));
        match after.get(1..)?.split_at_checked(1)? {
            (",", next) => rest = next,
            ("}", next) => return Some((found, next)),
            _ => return None,
        }
    }
}

/// Where the closing quote is. Only `\\`, `\"` and `\n` are escapes; control characters have no place in a label.
fn quoted_end(text: &str) -> Option<usize> {
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some(at),
            (_, '\\') => {
                characters.next().filter(|(_, escaped)| matches!(escaped, '\\' | '"' | 'n'))?;
            }
            (_, character) if character.is_control() => return None,
            _ => {}
        }
    }
}

/// Text of a HELP line; `None` when it has control characters or other escapes than `\\` and `\n`.
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next()? {
                '\\' => '\\',
                'n' => '\n',
                _ => return None,
            },
            character if character.is_control() => return None,
            character => character,
        });
    }
    Some(plain)
}

/// A number as both formats write it.
fn is_value(text: &str, kind: UserMetricKind) -> bool {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    let value = match text {
        "NaN" | "+Inf" | "-Inf" => text.parse::<f64>().ok(),
        _ => text.parse().ok().filter(|_| plain),
    };
    value.is_some_and(|value| match kind {
        UserMetricKind::Counter => value >= 0.0,
        UserMetricKind::Gauge => true,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn recording(name: &str) -> String {
        let path = format!("{}/../tests/recordings/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
    }

    /// The text that families stand for.
    fn written(metrics: &UserMetrics) -> String {
        let line = |family: &UserMetric| {
            let kind = if family.kind == UserMetricKind::Counter { "counter" } else { "gauge" };
            let UserMetric { name, help, samples, .. } = family;
            format!("# TYPE {name} {kind}\n# HELP {name} {help}\n{samples}")
        };
        metrics.families.iter().map(line).collect()
    }

    #[test]
    fn what_a_real_tailscaled_says_is_taken_over_to_the_letter() {
        for name in ["usermetrics.prom", "usermetrics-peer-relay.prom"] {
            let text = recording(name);
            let metrics = parse(text.as_bytes()).unwrap();
            // Families without samples say nothing.
            let with_samples: HashSet<_> = text
                .lines()
                .filter_map(|line| line.split(['{', ' ']).next().filter(|name| *name != "#"))
                .collect();
            let expected: String = text
                .lines()
                .filter(|line| {
                    !line.starts_with('#') || with_samples.contains(line.split(' ').nth(2).unwrap())
                })
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(written(&metrics), expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_tailscaled_s_or_not_known_is_left_out() {
        let text = "# TYPE tailgauge_peer_online gauge\ntailgauge_peer_online{peer_id=\"x\"} 1\n\
                    # TYPE tailscaled_seconds histogram\ntailscaled_seconds_bucket{le=\"+Inf\"} 1\ntailscaled_seconds_sum 1\n\
                    # any comment\n\n# HELP tailscaled_up Is \\\\ up.\\n\n# TYPE tailscaled_up gauge\ntailscaled_up 1\n\
                    # TYPE tailscaled_empty gauge\n";
        let metrics = parse(text.as_bytes()).unwrap();
        let expected = UserMetric {
            name: "tailscaled_up".to_owned(),
            kind: UserMetricKind::Gauge,
            help: "Is \\ up.\n".to_owned(),
            samples: "tailscaled_up 1\n".to_owned(),
        };
        assert_eq!(metrics.families, [expected]);
        assert_eq!(parse(b"").unwrap(), UserMetrics::default());
    }

    #[test]
    fn a_line_that_could_be_taken_for_something_else_is_refused() {
        const LABELS: &str = "labels as name=\"value\", each once";
        const SAMPLE: &str = "a sample of the family";
        const TYPE: &str = "a TYPE before the samples";
        const VALUE: &str = "a space and a value, not below 0 for a counter, and nothing after it";
        for (line, expected) in [
            ("tailscaled_b 1", SAMPLE),
            ("tailscaled_a_total_more 1", SAMPLE),
            ("tailgauge_peer_online 1", SAMPLE),
            ("tailscaled_a_total", SAMPLE),
            ("tailscaled_a_total 1 1700000000", VALUE),
            ("tailscaled_a_total  1", VALUE),
            ("tailscaled_a_total -1", VALUE),
            ("tailscaled_a_total NaN", VALUE),
            ("tailscaled_a_total inf", VALUE),
            ("tailscaled_a_total 0x1p3", VALUE),
            ("tailscaled_a_total 1_000", VALUE),
            ("tailscaled_a_total 1 # {trace_id=\"x\"} 1", VALUE),
            ("tailscaled_a_total{} 1", LABELS),
            ("tailscaled_a_total{a=\"1\",} 1", LABELS),
            ("tailscaled_a_total{a=\"1\",a=\"2\"} 1", LABELS),
            ("tailscaled_a_total{__name__=\"up\"} 1", LABELS),
            ("tailscaled_a_total{a=\"\\t\"} 1", LABELS),
            ("tailscaled_a_total{a=\"\r\"} 1", LABELS),
            ("tailscaled_a_total{a=\"1\"", LABELS),
            ("tailscaled_a_total{a=\"1} 1", LABELS),
            ("tailscaled_a_total{a-b=\"1\"} 1", LABELS),
            ("tailscaled_a_total{\"tailgauge_peer_online\"} 1", LABELS),
            ("tailscaled_a_total{a=\"1\"}1", VALUE),
            ("# TYPE tailscaled_a_total gauge", "one TYPE for each family"),
            ("# TYPE tailscaled_a gauge", "a family that was not there before"),
            ("# HELP tailscaled_a_total \\x", "escapes \\\\ and \\n in HELP"),
            ("# TYPE tailscaled-b gauge", "a metric name"),
            ("# TYPE tailscaled_b", "`# TYPE name type`"),
            ("# HELP tailscaled_b No type.\ntailscaled_b 1", TYPE),
            ("tailscaled_a_total 1\ntailscaled_a_total 2", "each series once"),
            ("tailscaled_a_total 1\n# HELP tailscaled_a_total x", "TYPE and HELP before the samples"),
            (
                "tailscaled_a_total{a=\"1\",b=\"2\"} 1\ntailscaled_a_total{b=\"2\",a=\"1\"} 1",
                "each series once",
            ),
        ] {
            let text = format!("# TYPE tailscaled_a_total counter\n{line}\n");
            let bad = parse(text.as_bytes()).unwrap_err();
            assert_eq!((bad.expected, bad.line), (expected, text.lines().count()), "{line}");
        }
        assert_eq!(parse(b"tailscaled_a 1\n").unwrap_err().expected, TYPE);
        assert_eq!(parse(b"\xff\n").unwrap_err().to_string(), "line 1: expected UTF-8, found \"\u{fffd}\"");
    }

    proptest! {
        #[test]
        fn what_is_taken_over_is_taken_over_again(text in "(# TYPE tailscaled_[ab](_total)? (counter|gauge)\n|\
            # HELP tailscaled_[ab] [\\PC]{0,4}\n|tailscaled_[ab](_total)?(\\{[ab]=\"[\\PC]{0,3}\"\\})? [-0-9.eIN]{1,4}\n|\
            [\\PC]{0,9}\n){0,9}") {
            if let Ok(metrics) = parse(text.as_bytes()) {
                prop_assert_eq!(metrics.families.iter().map(|f| f.samples.lines().count()).sum::<usize>(),
                                text.lines().filter(|line| line.starts_with(PREFIX)).count());
            }
        }
    }
}
