//! Lines of the text formats.

use std::ops::Range;

use bytes::BytesMut;

use super::buckets::Buckets;
use super::family::{Header, Kind};
use super::format::Format;
use crate::model::sampled::Distribution;
use tailgauge_ebpf::histogram::Histogram;

/// Appends a family; nothing at all when `write` has no sample.
pub(crate) fn family(
    header: &Header,
    format: Format,
    out: &mut BytesMut,
    write: impl FnOnce(&mut Samples<'_>),
) {
    let start = out.len();
    head(header, format, out);
    let first_sample = out.len();
    write(&mut Samples { out, name: header.name });
    if out.len() == first_sample {
        out.truncate(start);
    }
}

/// Appends a family of one sample without labels, in text 0.0.4. The name is `prefix` and `name`.
pub(crate) fn single(out: &mut BytesMut, [prefix, name]: [&str; 2], kind: Kind, help: &str, value: u64) {
    line(out, "HELP", [prefix, name], help);
    line(out, "TYPE", [prefix, name], kind.as_str(false));
    for part in [prefix, name, " ", itoa::Buffer::new().format(value), "\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn head(header: &Header, format: Format, out: &mut BytesMut) {
    let openmetrics = format == Format::OpenMetrics;
    let name = [if openmetrics { header.base_name() } else { header.name }, ""];
    line(out, "HELP", name, header.help);
    line(out, "TYPE", name, header.kind.as_str(openmetrics));
    if openmetrics && let Some(unit) = header.unit() {
        line(out, "UNIT", name, unit);
    }
}

fn line(out: &mut BytesMut, keyword: &str, [prefix, name]: [&str; 2], value: &str) {
    for part in ["# ", keyword, " ", prefix, name, " ", value, "\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Takes the samples of one family.
#[derive(Debug)]
pub(crate) struct Samples<'a> {
    out: &'a mut BytesMut,
    name: &'static str,
}

impl Samples<'_> {
    /// Begins a sample: add labels, then end it with a value.
    #[inline]
    pub(crate) fn sample(&mut self) -> Line<'_> {
        self.out.extend_from_slice(self.name.as_bytes());
        Line { out: self.out, labelled: false }
    }

    /// A sample without labels, if there is a value.
    pub(crate) fn plain(&mut self, value: Option<u64>) {
        if let Some(value) = value {
            self.sample().integer(value);
        }
    }

    /// Classic buckets, sum and count. `labels` are rendered ones, either may be empty.
    ///
    /// The count is that of the buckets: a copy taken while a sample is being added may hold one of the two
    /// and not the other, and a histogram whose count is not its last bucket is refused by some readers.
    pub(crate) fn histogram(&mut self, labels: [&[u8]; 2], histogram: &Histogram, buckets: &Buckets) {
        let mut lines = BucketLines::begin(self.out, self.name, labels);
        let (mut cumulative, mut next) = (0, 0);
        // Many have no sample, and are not looked through.
        let none = histogram.count == 0;
        let mut add = |through: usize| {
            if !none {
                cumulative += histogram.buckets[next..=through].iter().sum::<u64>();
                next = through + 1;
            }
            cumulative
        };
        for bound in &buckets.bounds {
            lines.add(self.out, &bound.label, add(bound.last_bucket));
        }
        let cumulative = add(histogram.buckets.len() - 1);
        lines.add(self.out, b"le=\"+Inf\"", cumulative);
        self.part("_sum", labels).decimal(histogram.sum, buckets.decimals);
        self.part("_count", labels).integer(cumulative);
    }

    /// Classic buckets, sum and count of samples. `label` is a name and a value; `bounds` are those that the samples
    /// were sorted by, rendered.
    pub(crate) fn distribution(
        &mut self,
        label: Option<(&str, &str)>,
        distribution: &Distribution,
        bounds: &[Vec<u8>],
    ) {
        for (bound, (_, count)) in bounds.iter().zip(distribution.cumulative()) {
            self.part("_bucket", [b"", b""]).optional(label).rendered(bound).integer(count);
        }
        let count = distribution.count();
        self.part("_bucket", [b"", b""]).optional(label).rendered(b"le=\"+Inf\"").integer(count);
        self.part("_sum", [b"", b""]).optional(label).float(distribution.sum());
        self.part("_count", [b"", b""]).optional(label).integer(count);
    }

    #[inline]
    fn part(&mut self, suffix: &str, [first, second]: [&[u8]; 2]) -> Line<'_> {
        self.out.extend_from_slice(self.name.as_bytes());
        self.out.extend_from_slice(suffix.as_bytes());
        Line { out: self.out, labelled: false }.rendered(first).rendered(second)
    }
}

/// Buckets of one histogram, which are most of all lines: what they share is put together once, and a count that is that
/// of the bucket before, as most are, is not formatted anew.
struct BucketLines {
    /// Name and labels, up to `le`, if there is room, and where they were written first.
    shared: [u8; SHARED_BYTES],
    first: Range<usize>,
    is_first: bool,
    /// What comes behind `le`, and for which count.
    end: [u8; END_BYTES],
    end_bytes: usize,
    count: u64,
}

/// The longest name of a histogram, and labels that are not made to be long.
const SHARED_BYTES: usize = 256;
/// Closing brace, blank, 2^64 - 1, line feed.
const END_BYTES: usize = 23;

impl BucketLines {
    fn begin(out: &mut BytesMut, name: &str, labels: [&[u8]; 2]) -> Self {
        let start = out.len();
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"_bucket{");
        for labels in labels.into_iter().filter(|labels| !labels.is_empty()) {
            out.extend_from_slice(labels);
            out.extend_from_slice(b",");
        }
        let mut lines = Self {
            shared: [0; SHARED_BYTES],
            first: start..out.len(),
            is_first: true,
            end: [0; END_BYTES],
            end_bytes: 0,
            count: 0,
        };
        if let Some(shared) = lines.shared.get_mut(..lines.first.len()) {
            shared.copy_from_slice(&out[start..]);
        }
        lines.format(0);
        lines
    }

    fn format(&mut self, count: u64) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(count).as_bytes();
        self.end_bytes = digits.len() + 3;
        self.end[..2].copy_from_slice(b"} ");
        self.end[2..self.end_bytes - 1].copy_from_slice(digits);
        self.end[self.end_bytes - 1] = b'\n';
        self.count = count;
    }

    /// `bound` is a rendered `le`.
    #[inline]
    fn add(&mut self, out: &mut BytesMut, bound: &[u8], count: u64) {
        if !std::mem::take(&mut self.is_first) {
            match self.shared.get(..self.first.len()) {
                Some(shared) => out.extend_from_slice(shared),
                None => {
                    let at = out.len();
                    out.resize(at + self.first.len(), 0);
                    out.copy_within(self.first.clone(), at);
                }
            }
        }
        if self.count != count {
            self.format(count);
        }
        out.extend_from_slice(bound);
        out.extend_from_slice(&self.end[..self.end_bytes]);
    }
}

/// One sample being written.
#[derive(Debug)]
#[must_use = "a sample needs a value"]
pub(crate) struct Line<'a> {
    out: &'a mut BytesMut,
    labelled: bool,
}

impl Line<'_> {
    /// Adds labels that are rendered and escaped already: `name="value",name="value"`, or nothing.
    #[inline]
    pub(crate) fn rendered(mut self, labels: &[u8]) -> Self {
        if !labels.is_empty() {
            self.separate();
            self.out.extend_from_slice(labels);
        }
        self
    }

    /// Adds a label.
    #[inline]
    pub(crate) fn label(mut self, name: &str, value: &str) -> Self {
        self.separate();
        label(self.out, name, value);
        self
    }

    /// Adds a label, if there is one.
    fn optional(self, label: Option<(&str, &str)>) -> Self {
        match label {
            Some((name, value)) => self.label(name, value),
            None => self,
        }
    }

    /// Adds a label whose value is a number.
    pub(crate) fn number_label(mut self, name: &str, value: impl Into<u64>) -> Self {
        self.separate();
        label(self.out, name, itoa::Buffer::new().format(value.into()));
        self
    }

    #[inline]
    fn separate(&mut self) {
        self.out.extend_from_slice(if self.labelled { b"," } else { b"{" });
        self.labelled = true;
    }

    /// Ends the sample with a whole number.
    #[inline]
    pub(crate) fn integer(self, value: u64) {
        self.end(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Ends the sample with a whole number that may be negative.
    pub(crate) fn signed(self, value: i64) {
        self.end(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Ends the sample with 1 or 0.
    #[inline]
    pub(crate) fn flag(mut self, value: bool) {
        self.close();
        self.out.extend_from_slice(if value { b"1\n" } else { b"0\n" });
    }

    /// Ends the sample with any number.
    pub(crate) fn float(self, value: f64) {
        if value.is_finite() {
            self.end(ryu::Buffer::new().format_finite(value).as_bytes());
        } else if value.is_nan() {
            self.end(b"NaN");
        } else {
            self.end(if value > 0.0 { b"+Inf" } else { b"-Inf" });
        }
    }

    /// Ends the sample with `value` ÷ 10^`decimals`, exactly: a float would round above 2^53.
    pub(crate) fn decimal(mut self, value: u64, decimals: u32) {
        let unit = 10u64.pow(decimals);
        let mut fraction = value % unit;
        if fraction == 0 {
            return self.integer(value / unit);
        }
        let mut digits = decimals as usize;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            digits -= 1;
        }
        self.close();
        self.out.extend_from_slice(itoa::Buffer::new().format(value / unit).as_bytes());
        self.out.extend_from_slice(b".");
        let mut buffer = itoa::Buffer::new();
        let fraction = buffer.format(fraction).as_bytes();
        self.out.extend_from_slice(&b"0000000000000000000"[..digits - fraction.len()]);
        self.out.extend_from_slice(fraction);
        self.out.extend_from_slice(b"\n");
    }

    #[inline]
    fn end(mut self, value: &[u8]) {
        self.close();
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\n");
    }

    #[inline]
    fn close(&mut self) {
        self.out.extend_from_slice(if self.labelled { b"} " } else { b" " });
    }
}

/// Appends `name="value"`, escaped.
#[inline]
pub(super) fn label(out: &mut BytesMut, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    escape(out, value);
    out.extend_from_slice(b"\"");
}

/// Both formats escape the same three characters in a label value; any other UTF-8 may stand as it is.
#[inline]
fn escape(out: &mut BytesMut, value: &str) {
    let mut rest = value.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\n' => b"\\n",
            b'"' => b"\\\"",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::super::buckets::HANDSHAKE;
    use super::*;

    /// As the buckets of a histogram are written, each line by itself.
    fn one_by_one(samples: &mut Samples<'_>, labels: [&[u8]; 2], histogram: &Histogram) {
        let below = |last: usize| histogram.buckets[..=last].iter().sum();
        for bound in &HANDSHAKE.bounds {
            samples.part("_bucket", labels).rendered(&bound.label).integer(below(bound.last_bucket));
        }
        let count = below(histogram.buckets.len() - 1);
        samples.part("_bucket", labels).rendered(b"le=\"+Inf\"").integer(count);
        samples.part("_sum", labels).decimal(histogram.sum, HANDSHAKE.decimals);
        samples.part("_count", labels).integer(count);
    }

    #[test]
    fn lines_of_buckets_are_what_they_would_be_one_by_one() {
        let mut some = Histogram { count: 1_000_003, sum: 7_500_000, ..Histogram::EMPTY };
        (some.buckets[0], some.buckets[90], some.buckets[91]) = (1, 2, 1_000_000);
        let mut most = some;
        (most.count, most.buckets[0]) = (u64::MAX, u64::MAX - 1_000_002);
        let long = format!("peer_id=\"{}\"", "x".repeat(SHARED_BYTES));
        for labels in [
            [&b""[..], b""],
            [b"peer_id=\"a\"", b""],
            [b"peer_id=\"a\"", b"leg=\"peer\""],
            [long.as_bytes(), b"leg=\"peer\""],
        ] {
            for histogram in [&Histogram::EMPTY, &some, &most] {
                let [mut found, mut expected] = [BytesMut::new(), BytesMut::new()];
                Samples { out: &mut found, name: "name" }.histogram(labels, histogram, &HANDSHAKE);
                one_by_one(&mut Samples { out: &mut expected, name: "name" }, labels, histogram);
                assert_eq!(found, expected);
            }
        }
    }
}
