//! Reading the Prometheus text format, as far as tests and the demo need it.

use std::collections::BTreeMap;

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name, suffixes included.
    pub name: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Sample {
    /// A label's value, empty when it has no such label.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Every sample of a text in format 0.0.4 or OpenMetrics; lines that are none are left out.
#[must_use]
pub fn samples(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

/// The sum over all samples of that name whose labels include these.
#[must_use]
pub fn total(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let matches = |sample: &&Sample| {
        sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == *value)
    };
    // Not sum(), which is -0 for nothing.
    samples.iter().filter(matches).fold(0.0, |sum, sample| sum + sample.value)
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, value) = rest.split_once("=\"")?;
            let (value, after) = quoted(value)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// A label value up to its closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_labels_with_everything_in_them() {
        let text = "# HELP a b\na_total{x=\"1\",y=\"q\\\"} \\n,\\\\\"} 4.5 1700\nb 7\nbad line\n";
        let samples = samples(text);
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[0].label("y"), "q\"} \n,\\");
        assert_eq!(samples[0].value, 4.5);
        assert_eq!(total(&samples, "b", &[]), 7.0);
        assert_eq!(total(&samples, "a_total", &[("x", "1")]), 4.5);
    }
}
