//! The Internet checksum (RFC 1071).

/// Ones'-complement sum of big-endian 16-bit words; an odd last byte is padded with zero. Not inverted.
#[must_use]
pub fn sum(data: &[u8]) -> u16 {
    // The sum does not depend on byte order (RFC 1071, 2B): add native words, swap once at the end.
    let (words, rest) = data.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    u16::from_be(fold(total))
}

/// Ones'-complement addition of two sums.
#[must_use]
pub fn add(left: u16, right: u16) -> u16 {
    fold(u64::from(left) + u64::from(right))
}

/// The sum over the pseudo-header of TCP and UDP. `addresses` holds source and destination.
#[must_use]
pub fn pseudo_header(addresses: &[u8], protocol: u8, l4_len: usize) -> u16 {
    let len = u32::try_from(l4_len).unwrap_or(u32::MAX);
    let length = fold(u64::from(len >> 16) + u64::from(len & 0xffff));
    add(sum(addresses), add(u16::from(protocol), length))
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn odd_length_is_padded_with_zero() {
        assert_eq!(sum(&[0x12, 0x34, 0x56]), add(0x1234, 0x5600));
        assert_eq!(sum(&[0x12, 0x34, 0x56, 0x78, 0x9a]), add(add(0x1234, 0x5678), 0x9a00));
    }
}
