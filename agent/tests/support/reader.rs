//! An independent reader of the text formats.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// What a text says: type by family, and the samples in order.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    pub(crate) types: BTreeMap<String, String>,
    pub(crate) samples: Vec<Sample>,
}

impl Exposition {
    /// Samples of one name.
    pub(crate) fn named(&self, name: &str) -> Vec<&Sample> {
        self.samples.iter().filter(|sample| sample.name == name).collect()
    }
}

/// Reads either format, strictly: an unknown construct, a sample outside its family's block, a second HELP, or a
/// series that is there twice is an error.
pub(crate) fn parse(text: &str, openmetrics: bool) -> Result<Exposition, String> {
    let mut exposition = Exposition::default();
    let mut family = None::<String>;
    let mut helped = BTreeSet::new();
    let mut series = BTreeSet::new();
    let body = match (text.strip_suffix("# EOF\n"), openmetrics) {
        (Some(body), true) => body,
        (None, false) => text,
        _ => return Err("the end mark is there where it should not be, or the reverse".to_owned()),
    };
    let lines = body.strip_suffix('\n').ok_or("the last line is not ended")?.split('\n');
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (Some(keyword), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
                return Err(format!("odd comment: {line}"));
            };
            match keyword {
                "HELP" if helped.insert(name.to_owned()) => {}
                "TYPE" if exposition.types.insert(name.to_owned(), rest.to_owned()).is_none() => {
                    family = Some(name.to_owned());
                }
                "UNIT" if openmetrics && name.ends_with(&format!("_{rest}")) => {}
                _ => return Err(format!("second or unknown: {line}")),
            }
            continue;
        }
        let sample = parse_sample(line).ok_or_else(|| format!("not a sample: {line}"))?;
        let family = family.as_ref().ok_or_else(|| format!("before any TYPE: {line}"))?;
        let suffix =
            sample.name.strip_prefix(family.as_str()).ok_or_else(|| format!("not of {family}: {line}"))?;
        let legal: &[&str] = match (exposition.types[family].as_str(), openmetrics) {
            ("counter", true) => &["_total"],
            ("info", true) => &["_info"],
            ("counter" | "gauge", _) | ("unknown", true) | ("untyped", false) => &[""],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            (other, _) => return Err(format!("unknown type {other}")),
        };
        if !legal.contains(&suffix) {
            return Err(format!("{suffix} does not go with the type of {family}"));
        }
        if !series.insert(format!("{} {:?}", sample.name, sample.labels)) {
            return Err(format!("twice: {line}"));
        }
        exposition.samples.push(sample);
    }
    Ok(exposition)
}

fn parse_sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, value) = rest.split_once("=\"")?;
            let (value, after) = unescape(value)?;
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            match after.split_at_checked(1)? {
                (",", next) => rest = next,
                ("}", next) => {
                    rest = next;
                    break;
                }
                _ => return None,
            }
        }
    }
    let number = rest.strip_prefix(' ')?;
    if number.is_empty() || number.contains(' ') || !is_name(name) {
        return None;
    }
    Some(Sample { name: name.to_owned(), labels, value: number.parse().ok()? })
}

/// Text up to the closing quote, and what follows it.
fn unescape(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => value.push(match characters.next()?.1 {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                _ => return None,
            }),
            (_, character) => value.push(character),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
