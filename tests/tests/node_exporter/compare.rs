//! Holds a scrape of ours against one of node_exporter before it and one after it.

use std::collections::{BTreeMap, BTreeSet};

use tailgauge_testbed::exposition::{Exposition, Sample};

use super::differences::{FAMILIES, LABELS, SERIES, VALUES, is};

/// Floats are added up in another order.
const ROUNDING: f64 = 1e-9;

/// A scrape with its types.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) samples: Exposition,
    types: BTreeMap<String, String>,
    helped: BTreeSet<String>,
}

impl Scrape {
    pub(crate) fn parse(text: &str) -> Self {
        let mut scrape = Self { samples: Exposition::parse(text).unwrap(), ..Self::default() };
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            let (mark, keyword) = (words.next(), words.next());
            let (Some(name), Some(rest)) = (words.next(), words.next()) else { continue };
            match (mark, keyword) {
                (Some("#"), Some("TYPE")) => {
                    let before = scrape.types.insert(name.to_owned(), rest.to_owned());
                    assert_eq!(before, None, "{name} has two types");
                }
                (Some("#"), Some("HELP")) if !rest.trim().is_empty() => {
                    scrape.helped.insert(name.to_owned());
                }
                _ => {}
            }
        }
        scrape
    }

    /// Values by name and labels that both programs have.
    fn series(&self) -> BTreeMap<String, f64> {
        let mut series = BTreeMap::new();
        let shared = |sample: &&Sample| !is_apart(&sample.name) && !is_excepted(sample);
        for sample in self.samples.samples.iter().filter(shared) {
            let before = series.insert(key(sample), sample.value);
            assert_eq!(before, None, "{} twice", key(sample));
        }
        series
    }

    fn types(&self) -> BTreeMap<&str, &str> {
        let types = self.types.iter().map(|(name, kind)| (name.as_str(), kind.as_str()));
        types.filter(|(name, _)| !is_apart(name)).collect()
    }
}

fn is_apart(name: &str) -> bool {
    FAMILIES.iter().any(|(pattern, _)| is(pattern, name))
}

fn is_excepted(sample: &Sample) -> bool {
    SERIES
        .iter()
        .any(|(family, (label, value), _)| is(family, &sample.name) && sample.label(label) == Some(value))
}

fn key(sample: &Sample) -> String {
    let newer =
        |label: &str| LABELS.iter().any(|(pattern, newer, _)| is(pattern, &sample.name) && *newer == label);
    let mut labels: Vec<_> = sample.labels.iter().filter(|(name, _)| !newer(name)).collect();
    labels.sort();
    format!("{} {labels:?}", sample.name)
}

/// What agreed so far.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    agreed: BTreeSet<String>,
}

impl Rounds {
    /// How many series agreed.
    pub(crate) fn series(&self) -> usize {
        self.agreed.len()
    }

    /// Adds a round; says what has not agreed in any round yet.
    pub(crate) fn add(&mut self, before: &Scrape, ours: &Scrape, after: &Scrape) -> Vec<String> {
        let mut findings = Vec::new();
        let (reference, types) = (before.types(), ours.types());
        for (name, kind) in &reference {
            match types.get(name) {
                None => findings.push(format!("{name} is missing")),
                Some(found) if found != kind => findings.push(format!("{name} is a {found}, not a {kind}")),
                Some(_) if !ours.helped.contains(*name) => findings.push(format!("{name} has no HELP")),
                Some(_) => {}
            }
        }
        let (before, ours, after) = (before.series(), ours.series(), after.series());
        for series in
            ours.keys().filter(|series| !before.contains_key(*series) && !after.contains_key(*series))
        {
            findings.push(format!("node_exporter has no {series}"));
        }
        for (series, first) in &before {
            let Some(last) = after.get(series) else { continue };
            let own =
                VALUES.iter().any(|(pattern, _)| is(pattern, series.split(' ').next().unwrap_or_default()));
            match ours.get(series) {
                Some(value) if own || is_between(*first, *value, *last) => {
                    self.agreed.insert(series.clone());
                }
                _ if self.agreed.contains(series) => {}
                Some(value) => findings.push(format!("{series} is {value}, not between {first} and {last}")),
                None => findings.push(format!("{series} is missing, which is {first} and then {last}")),
            }
        }
        findings
    }
}

/// Equal to both when these are equal.
fn is_between(first: f64, value: f64, last: f64) -> bool {
    let slack = ROUNDING * first.abs().max(last.abs());
    (first.min(last) - slack..=first.max(last) + slack).contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = "# HELP a_total x\n# TYPE a_total counter\na_total{x=\"1\"} 5\n\
                             # HELP b x\n# TYPE b gauge\nb 7\n# HELP node_network_info x\n\
                             # TYPE node_network_info gauge\nnode_network_info{device=\"d\"} 1\n";

    fn findings(ours: &str) -> Vec<String> {
        let after = REFERENCE.replace("} 5", "} 9");
        Rounds::default().add(&Scrape::parse(REFERENCE), &Scrape::parse(ours), &Scrape::parse(&after))
    }

    #[test]
    fn what_is_the_same_or_rightly_different_is_no_finding() {
        let ours = REFERENCE.replace("} 5", "} 7").replace("=\"d\"", "=\"d\",adminstate=\"up\"");
        let newer = "# HELP node_cpu_online x\n# TYPE node_cpu_online gauge\nnode_cpu_online{cpu=\"0\"} 1\n";
        assert_eq!(findings(&(ours + newer)), Vec::<String>::new());
    }

    #[test]
    fn whatever_is_wrong_is_found() {
        for (was, is, finding) in [
            ("a_total{x=\"1\"} 5\n", "", "a_total [(\"x\", \"1\")] is missing, which is 5 and then 9"),
            ("# TYPE b gauge\n", "", "b is missing"),
            ("b gauge", "b counter", "b is a counter, not a gauge"),
            ("# HELP b x\n", "", "b has no HELP"),
            ("b 7", "b 8", "b [] is 8, not between 7 and 7"),
            ("} 5", "} 10", "a_total [(\"x\", \"1\")] is 10, not between 5 and 9"),
            ("b 7\n", "b 7\nb{y=\"\"} 7\n", "node_exporter has no b [(\"y\", \"\")]"),
        ] {
            assert_eq!(findings(&REFERENCE.replace(was, is)), [finding]);
        }
    }

    #[test]
    fn what_moves_has_to_agree_once() {
        let scrape = |value: u32| Scrape::parse(&format!("b {value}\n"));
        let mut rounds = Rounds::default();
        assert_eq!(rounds.add(&scrape(1), &scrape(2), &scrape(1)).len(), 1);
        assert_eq!(rounds.add(&scrape(1), &scrape(2), &scrape(3)).len(), 0);
        assert_eq!(rounds.add(&scrape(1), &scrape(2), &scrape(1)).len(), 0);
        assert_eq!(rounds.series(), 1);
    }
}
