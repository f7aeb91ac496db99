//! The table: Markdown, with columns aligned so that a terminal shows it as well.

use std::fmt;

/// A figure and what it is to be held against.
#[derive(Debug, Default)]
pub struct Row {
    what: String,
    value: String,
    baseline: String,
    ratio: String,
    target: String,
    met: Option<bool>,
}

impl Row {
    /// A figure with its unit.
    pub fn new(what: impl Into<String>, value: impl Into<String>) -> Self {
        Self { what: what.into(), value: value.into(), ..Self::default() }
    }

    /// What it is compared with, and figure ÷ baseline.
    pub fn against(self, baseline: impl Into<String>, ratio: f64) -> Self {
        Self { ratio: format!("{}×", digits(ratio)), ..self.beside(baseline) }
    }

    /// How far the ratio may be off.
    pub fn give_or_take(mut self, error: f64) -> Self {
        self.ratio = format!("{} ± {error:.3}", self.ratio);
        self
    }

    /// What stands beside it without a ratio that means anything.
    pub fn beside(self, baseline: impl Into<String>) -> Self {
        Self { baseline: baseline.into(), ..self }
    }

    /// What it should be, in words, and whether it is.
    pub fn target(self, target: impl Into<String>, met: bool) -> Self {
        Self { target: target.into(), met: Some(met), ..self }
    }

    fn cells(&self) -> [String; 6] {
        let or_dash = |text: &str| if text.is_empty() { "–".to_owned() } else { text.to_owned() };
        let met = match self.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        [&self.what, &self.value, &self.baseline, &self.ratio, &self.target, met].map(or_dash)
    }
}

/// Rows in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

impl Extend<Row> for Table {
    fn extend<I: IntoIterator<Item = Row>>(&mut self, rows: I) {
        self.0.extend(rows);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = ["what", "value", "baseline", "ratio", "target", "met"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(heading).chain(self.0.iter().map(Row::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for (number, row) in rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(widths) {
                write!(out, "| {cell:width$} ")?;
            }
            writeln!(out, "|")?;
            if number == 0 {
                widths.iter().try_for_each(|width| write!(out, "|{:-<1$}", "", width + 2))?;
                writeln!(out, "|")?;
            }
        }
        Ok(())
    }
}

/// Three significant digits, as far as they are behind the point.
pub fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.1 => format!("{value:.3}"),
        size if size >= 0.01 => format!("{value:.4}"),
        _ => format!("{value:.5}"),
    }
}

/// Smallest, middle and largest of some samples.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Middle, the upper one of two.
    pub median: f64,
    /// Largest.
    pub max: f64,
    /// Standard error of the median, if the samples are spread normally.
    pub error: f64,
}

impl Spread {
    /// Of no samples: all zero.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let count = samples.len().max(1) as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let variance = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / count;
        let error = (std::f64::consts::FRAC_PI_2 * variance / count).sqrt();
        let at = |index: usize| samples.get(index).copied().unwrap_or_default();
        Self { min: at(0), median: at(samples.len() / 2), max: at(samples.len().saturating_sub(1)), error }
    }

    /// Median with unit, and the range.
    pub fn show(&self, unit: &str) -> String {
        format!("{} {unit} ({}–{})", digits(self.median), digits(self.min), digits(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::default();
        table.extend([
            Row::new("read", "0.3 ms").against("one by one 13 ms", 0.0231).target("≤ 0.5 ms", true),
            Row::new("start", "250 ms").target("≤ 200 ms", false),
        ]);
        let text = table.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[2], "| read  | 0.3 ms | one by one 13 ms | 0.0231× | ≤ 0.5 ms | yes |");
        assert_eq!(lines[3], "| start | 250 ms | –                | –       | ≤ 200 ms | NO  |");
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{text}");
    }

    #[test]
    fn spread_of_unsorted_samples() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
        assert!((spread.error - (std::f64::consts::FRAC_PI_2 * 2.0 / 9.0).sqrt()).abs() < 1e-12);
        assert_eq!(spread.show("ms"), "2.00 ms (1.00–3.00)");
        assert_eq!(Spread::of(Vec::new()).median, 0.0);
    }
}
