//! Log-linear (H2) histogram: exact up to [`LINEAR`], then 2^[`GROUPING_POWER`] buckets an octave.
//!
//! One index function serves the kernel programs, which count, and the agent, which reads.
//! Relative bucket width is at most 1/8; the sum is exact, so a mean carries no bucket error.

/// log2 of the buckets in an octave.
pub const GROUPING_POWER: u32 = 3;
/// Values from 2^`MAX_POWER` on share the last bucket.
pub const MAX_POWER: u32 = 26;
/// Values below this have a bucket of their own.
pub const LINEAR: u64 = 1 << (GROUPING_POWER + 1);
/// Buckets of a histogram.
pub const BUCKETS: usize =
    LINEAR as usize + ((MAX_POWER - GROUPING_POWER - 1) as usize) * (1 << GROUPING_POWER);

/// Counts of one distribution. The unit of the values is the owner's business.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Samples per bucket; bounds by [`upper_bound`].
    pub buckets: [u64; BUCKETS],
    /// Number of samples.
    pub count: u64,
    /// Sum of the samples, exact.
    pub sum: u64,
}

impl Histogram {
    /// No samples.
    pub const EMPTY: Self = Self { buckets: [0; BUCKETS], count: 0, sum: 0 };
}

/// Bucket of `value`, always below [`BUCKETS`].
#[inline(always)]
#[must_use]
pub const fn index(value: u64) -> usize {
    if value < LINEAR {
        return value as usize;
    }
    let power = 63 - value.leading_zeros();
    if power >= MAX_POWER {
        return BUCKETS - 1;
    }
    let within = (value >> (power - GROUPING_POWER)) & ((1 << GROUPING_POWER) - 1);
    LINEAR as usize + (((power - GROUPING_POWER - 1) << GROUPING_POWER) as usize) + within as usize
}

/// Largest value that falls into `bucket`; `None` for the last one, which has no upper end.
#[must_use]
pub const fn upper_bound(bucket: usize) -> Option<u64> {
    if bucket >= BUCKETS - 1 {
        return None;
    }
    if bucket < LINEAR as usize {
        return Some(bucket as u64);
    }
    let above = bucket - LINEAR as usize;
    let power = GROUPING_POWER + 1 + (above >> GROUPING_POWER) as u32;
    let within = (above & ((1 << GROUPING_POWER) - 1)) as u64;
    let width = 1u64 << (power - GROUPING_POWER);
    Some((1u64 << power) + (within + 1) * width - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_tile_the_range_without_gap_or_overlap() {
        let mut next = 0u64;
        for bucket in 0..BUCKETS - 1 {
            let upper = upper_bound(bucket).unwrap();
            assert_eq!(index(next), bucket, "lower end of bucket {bucket}");
            assert_eq!(index(upper), bucket, "upper end of bucket {bucket}");
            next = upper + 1;
        }
        assert_eq!(index(next), BUCKETS - 1);
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn index_is_in_range_and_monotonic(a: u64, b: u64) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(index(low) <= index(high));
            prop_assert!(index(high) < BUCKETS);
        }

        #[test]
        fn bucket_is_at_most_an_eighth_wide(value in 0u64..(1 << MAX_POWER)) {
            let bucket = index(value);
            if let Some(upper) = upper_bound(bucket) {
                prop_assert!(upper >= value);
                prop_assert!(upper - value <= value / 8 + 1);
            }
        }
    }
}
