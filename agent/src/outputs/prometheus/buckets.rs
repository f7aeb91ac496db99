//! Which bounds of the log-linear histograms are exported.
//!
//! The kernel counts into about 200 buckets; a classic histogram of Prometheus gets some 20 of their bounds.
//! Every exported bound is the largest value of a kernel bucket, so no bucket is split and cumulative counts are
//! exact. `le` includes its bound and the values are whole microseconds, milliseconds or bytes, so the bound of
//! the bucket that ends before 1024 µs is 0.001023 s and not 0.001024 s: a sample of 1024 µs is above it.

use std::sync::LazyLock;

use tailgauge_ebpf::histogram::{index, upper_bound};

use crate::model::sampled::{BYTE_BOUNDS, PACKET_BOUNDS, PART_BOUNDS, RATE_BOUNDS};

/// Exported bounds of one kind of histogram.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Ascending, without +Inf.
    pub(super) bounds: Vec<Bound>,
    /// Values are whole multiples of 10^-`decimals` of the base unit.
    pub(super) decimals: u32,
}

/// One `le`.
#[derive(Debug)]
pub(super) struct Bound {
    /// Last kernel bucket below or at the bound.
    pub(super) last_bucket: usize,
    /// `le="…"`.
    pub(super) label: Vec<u8>,
}

/// Handshakes, counted in microseconds: 0.26 ms to 8.4 s, twice as fine from 8 to 390 ms.
pub(super) static HANDSHAKE: LazyLock<Buckets> = LazyLock::new(|| {
    const K: u64 = 1 << 10;
    let below = [
        256,
        512,
        K,
        2 * K,
        4 * K,
        8 * K,
        12 * K,
        16 * K,
        24 * K,
        32 * K,
        48 * K,
        64 * K,
        96 * K,
        128 * K,
        192 * K,
        256 * K,
        384 * K,
        512 * K,
        1024 * K,
        8192 * K,
    ];
    Buckets::ending_before(&below, 6)
});

/// Reactions of tailscaled itself, counted in microseconds: 32 µs to 1 s.
pub(super) static RESPONSE: LazyLock<Buckets> = LazyLock::new(|| {
    const K: u64 = 1 << 10;
    let below = [
        32,
        64,
        96,
        128,
        192,
        256,
        384,
        512,
        768,
        K,
        K + K / 2,
        2 * K,
        4 * K,
        8 * K,
        16 * K,
        32 * K,
        64 * K,
        128 * K,
        256 * K,
        1024 * K,
    ];
    Buckets::ending_before(&below, 6)
});

/// Lives of connections, counted in milliseconds: 16 ms to 4.7 h.
pub(super) static LIFETIME: LazyLock<Buckets> = LazyLock::new(|| {
    let below: Vec<u64> = [4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 24]
        .map(|power| 1 << power)
        .into();
    Buckets::ending_before(&below, 3)
});

/// Drops per 10 ms window: 1 to 16383, which is 100 to 1.6 million a second.
pub(super) static DROPS: LazyLock<Buckets> = LazyLock::new(|| {
    let below: Vec<u64> = (1..=14).map(|power| 1 << power).collect();
    Buckets::ending_before(&below, 0)
});

/// Bytes per 10 ms window: 255 bytes to 16 MiB, which is 200 kbit/s to 13 Gbit/s.
pub(super) static WINDOW: LazyLock<Buckets> = LazyLock::new(|| {
    const K: u64 = 1 << 10;
    let below = [
        256,
        K,
        2 * K,
        4 * K,
        8 * K,
        16 * K,
        32 * K,
        64 * K,
        128 * K,
        256 * K,
        384 * K,
        512 * K,
        768 * K,
        1024 * K,
        1536 * K,
        2048 * K,
        4096 * K,
        8192 * K,
        16384 * K,
    ];
    Buckets::ending_before(&below, 0)
});

impl Buckets {
    /// Bounds just below the given values, each of which must be the first of a kernel bucket.
    fn ending_before(values: &[u64], decimals: u32) -> Self {
        let scale = 10f64.powi(decimals as i32);
        let bounds = values
            .iter()
            .map(|value| {
                let last_bucket = index(value - 1);
                debug_assert_eq!(upper_bound(last_bucket), Some(value - 1), "{value} is inside a bucket");
                let label = format!("le=\"{}\"", canonical((value - 1) as f64 / scale)).into_bytes();
                Bound { last_bucket, label }
            })
            .collect();
        Self { bounds, decimals }
    }
}

/// `le="…"` of the bounds of a [`Distribution`](crate::model::sampled::Distribution).
pub(super) type Labels = LazyLock<Vec<Vec<u8>>>;

/// Sampled parts of a whole.
pub(super) static SAMPLED_PART: Labels = LazyLock::new(|| labels(PART_BOUNDS));
/// Sampled seconds a second.
pub(super) static SAMPLED_RATE: Labels = LazyLock::new(|| labels(RATE_BOUNDS));
/// Sampled packets.
pub(super) static SAMPLED_PACKETS: Labels = LazyLock::new(|| labels(PACKET_BOUNDS));
/// Sampled bytes.
pub(super) static SAMPLED_BYTES: Labels = LazyLock::new(|| labels(BYTE_BOUNDS));

fn labels(bounds: &[f64]) -> Vec<Vec<u8>> {
    bounds.iter().map(|bound| format!("le=\"{}\"", canonical(*bound)).into_bytes()).collect()
}

/// A number as OpenMetrics wants it in `le` (the shortest digits, exponent form from 1e+06 on, always marked as
/// a float). Text 0.0.4 gets the same, so that a change of format does not make new series.
fn canonical(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exported_bound_ends_a_kernel_bucket() {
        for buckets in [&*HANDSHAKE, &*RESPONSE, &*LIFETIME, &*WINDOW] {
            let scale = 10f64.powi(buckets.decimals as i32);
            let mut previous = None;
            assert!((16..=20).contains(&buckets.bounds.len()));
            for bound in &buckets.bounds {
                let text = std::str::from_utf8(&bound.label).unwrap();
                let le: f64 = text.trim_start_matches("le=\"").trim_end_matches('"').parse().unwrap();
                let upper = upper_bound(bound.last_bucket).unwrap();
                assert_eq!((le * scale).round() as u64, upper, "{text} is the bucket's largest value");
                assert!(previous.is_none_or(|last| last < bound.last_bucket), "{text} is in order");
                previous = Some(bound.last_bucket);
            }
        }
    }

    #[test]
    fn numbers_are_canonical() {
        for (value, text) in [
            (0.000255, "0.000255"),
            (0.0000255, "2.55e-05"),
            (0.0, "0.0"),
            (1.0, "1.0"),
            (16777.215, "16777.215"),
            (131071.0, "131071.0"),
            (1048575.0, "1.048575e+06"),
        ] {
            assert_eq!(canonical(value), text);
        }
    }
}
