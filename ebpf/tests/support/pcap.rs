//! Reads a capture file of the classic format, little-endian, of an Ethernet device.

/// A packet, as far as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// From the IP header on.
    pub packet: &'a [u8],
    /// Bytes that the packet had.
    pub length: u32,
}

/// Bytes before the first record, and before the packet of each.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const ETHERNET: usize = 14;

/// The packets of `file`.
///
/// # Panics
/// When the file is of another format, or cut off.
pub fn packets(file: &[u8]) -> Vec<Captured<'_>> {
    assert_eq!(word(file, 0), 0xa1b2_c3d4, "magic");
    assert_eq!(word(file, 20), 1, "link type");
    let mut rest = &file[FILE_HEADER..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let (captured, length) = (word(rest, 8) as usize, word(rest, 12));
        let frame = &rest[RECORD_HEADER..][..captured];
        packets.push(Captured { packet: &frame[ETHERNET..], length: length - ETHERNET as u32 });
        rest = &rest[RECORD_HEADER + captured..];
    }
    packets
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
