//! Reads single samples out of an answer to GET /metrics (text 0.0.4 or OpenMetrics 1.0), for assertions.

/// One sample: a name, its labels, a value. Exemplars and timestamps are not kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name, with `_total`, `_bucket`, … where there is one.
    pub name: String,
    /// Label names and unescaped values, in order.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// A line that is neither a comment nor a sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number} of the exposition is no sample: {line:?}")]
pub struct Malformed {
    /// The line's number, from 1.
    pub number: usize,
    /// The line.
    pub line: String,
}

/// Every sample of one scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposition {
    /// In the order of the scrape.
    pub samples: Vec<Sample>,
}

impl Exposition {
    /// Reads a whole answer.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|(index, line)| {
            sample(line).ok_or_else(|| Malformed { number: index + 1, line: line.to_owned() })
        });
        Ok(Self { samples: samples.collect::<Result<_, _>>()? })
    }

    /// The samples of that name that bear all of `labels`.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.name == name)
            .filter(move |sample| labels.iter().all(|&(label, value)| sample.label(label) == Some(value)))
    }

    /// The value of the only sample that matches; `None` when there is none or more than one.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut matching = self.matching(name, labels);
        let first = matching.next()?;
        matching.next().is_none().then_some(first.value)
    }

    /// The sum over all samples that match; 0 when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // Not sum(), which is -0 for nothing.
        self.matching(name, labels).fold(0.0, |sum, sample| sum + sample.value)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| Sample { name: name.to_owned(), labels, value })
}

/// Reads `a="b",c="d"} rest` up to the brace; values may hold anything, escaped.
fn labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = text.split_once("=\"")?;
        let (value, rest) = unquote(quoted)?;
        labels.push((name.to_owned(), value));
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// Reads up to the closing quote and undoes `\\`, `\"` and `\n`.
fn unquote(text: &str) -> Option<(String, &str)> {
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

    const SCRAPE: &str = concat!(
        "# HELP x_total Help.\n# TYPE x_total counter\n",
        "x_total{peer_id=\"n1\",class=\"exit\"} 12\n",
        "x_total{peer_id=\"n1\",class=\"local\"} 3.5e2 # {trace_id=\"a\"} 1.0\n",
        "odd{name=\"a\\\"},{\\n\\\\\"} +Inf 1700000000\n",
        "bare 1\n# EOF\n",
    );

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let scrape = Exposition::parse(SCRAPE).unwrap();
        assert_eq!(scrape.value("x_total", &[("class", "local")]), Some(350.0));
        assert_eq!(scrape.value("x_total", &[("peer_id", "n1")]), None, "two samples");
        assert_eq!(scrape.sum("x_total", &[("peer_id", "n1")]), 362.0);
        assert_eq!(scrape.value("odd", &[("name", "a\"},{\n\\")]), Some(f64::INFINITY));
        assert_eq!(scrape.value("bare", &[]), Some(1.0));
        assert_eq!(scrape.value("absent", &[]), None);
    }

    #[test]
    fn broken_line_is_named() {
        for line in ["x", "x{a=\"b} 1", "x{a=b} 1", "x one", "{} 1"] {
            let text = format!("bare 1\n{line}\n");
            let error = Exposition::parse(&text).unwrap_err();
            assert_eq!(error, Malformed { number: 2, line: line.to_owned() });
        }
    }
}
