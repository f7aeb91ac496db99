//! Holds a scrape of ours against one of node_exporter before it and one after it.

use std::collections::{BTreeMap, BTreeSet};

use tailgauge_testbed::exposition::{Exposition, Sample};

use super::differences::{FAMILIES, LABELS, RESTLESS, SERIES, VALUES, is};

/// Floats are added up in another order.
const ROUNDING: f64 = 1e-9;

/// Fewer rounds in which something that moves is wrong say nothing.
const OFTEN: u32 = 3;

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

/// How a series did so far.
#[derive(Debug, Default)]
struct Record {
    agreed: bool,
    /// What node_exporter said last.
    last: Option<f64>,
    /// Whether it ever said something else.
    moved: bool,
    /// Rounds in which it said the same before and after as at the end of the round before, and how often ours said
    /// something else then.
    still: u32,
    wrong: u32,
}

impl Record {
    /// Adds a round.
    fn add(&mut self, first: f64, agrees: bool, last: f64) {
        self.agreed |= agrees;
        let was = self.last.replace(last).unwrap_or(first);
        self.moved |= was != first || first != last;
        if was == first && first == last {
            self.still += 1;
            self.wrong += u32::from(!agrees);
        }
    }

    /// What moves may have done so unseen between two readings that are the same, now and then.
    fn is_wrong(&self) -> bool {
        if self.moved { self.wrong >= OFTEN && self.wrong * 2 > self.still } else { self.wrong > 0 }
    }
}

/// What agreed so far.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    records: BTreeMap<String, Record>,
}

impl Rounds {
    /// How many series agreed.
    pub(crate) fn series(&self) -> usize {
        self.records.values().filter(|record| record.agreed).count()
    }

    /// Adds a round; says what has not agreed in any round yet, or was wrong while it stood still.
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
            let name = series.split(' ').next().unwrap_or_default();
            let own = VALUES.iter().any(|(pattern, _)| is(pattern, name));
            let restless = RESTLESS.iter().any(|(pattern, _)| is(pattern, name));
            let value = ours.get(series);
            let agrees = value.is_some_and(|value| own || is_between(*first, *value, *last));
            let record = self.records.entry(series.clone()).or_default();
            record.add(*first, agrees, *last);
            match value {
                _ if record.agreed && (restless || !record.is_wrong()) => {}
                _ if record.agreed => {
                    let Record { still, wrong, .. } = record;
                    findings
                        .push(format!("{series} was wrong in {wrong} of {still} rounds that it stood still"));
                }
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
        assert_eq!(rounds.add(&scrape(1), &scrape(3), &scrape(2)).len(), 1);
        assert_eq!(rounds.add(&scrape(3), &scrape(4), &scrape(5)).len(), 0);
        assert_eq!(rounds.add(&scrape(6), &scrape(9), &scrape(7)).len(), 0);
        assert_eq!(rounds.series(), 1);
    }

    /// Rounds in which node_exporter says `reference` and we say `ours`; what the last one finds.
    fn still(rounds: &[(u32, u32)]) -> Vec<String> {
        let scrape = |value: u32| Scrape::parse(&format!("b {value}\n"));
        let (mut record, mut findings) = (Rounds::default(), Vec::new());
        for (reference, ours) in rounds {
            let reference = scrape(*reference);
            findings = record.add(&reference, &scrape(*ours), &reference);
        }
        findings
    }

    #[test]
    fn what_stands_still_has_to_agree_each_time() {
        assert_eq!(still(&[(1, 1), (1, 1), (1, 1)]), Vec::<String>::new());
        let once = "b [] was wrong in 1 of 3 rounds that it stood still";
        assert_eq!(still(&[(1, 2), (1, 1), (1, 1)]), [once]);
    }

    #[test]
    fn what_moved_has_to_agree_in_half_of_the_rounds_that_it_stood_still() {
        assert_eq!(still(&[(1, 1), (2, 2), (2, 9), (2, 9), (2, 2)]), Vec::<String>::new());
        let most = "b [] was wrong in 3 of 4 rounds that it stood still";
        assert_eq!(still(&[(1, 1), (2, 2), (2, 9), (2, 9), (2, 9)]), [most]);
    }
}
