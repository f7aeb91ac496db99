//! Beginnings of messages, made from the formats: the WireGuard paper, section 5.4; Tailscale's `disco/disco.go` and
//! `net/packet/geneve.go`; RFC 8489.

use tailgauge_ebpf::message::HEAD;

/// First bytes and length of one message of each kind, with these indexes and this counter.
pub fn messages(sender: u32, receiver: u32, counter: u64) -> Vec<([u8; HEAD], u32)> {
    let [sender, receiver] = [sender, receiver].map(u32::to_le_bytes);
    let counter = counter.to_le_bytes();
    let mut messages = vec![
        (begin(&[&[1, 0, 0, 0], &sender]), 148),
        (begin(&[&[2, 0, 0, 0], &sender, &receiver]), 92),
        (begin(&[&[3, 0, 0, 0], &receiver]), 64),
        (begin(&[&[4, 0, 0, 0], &receiver, &counter]), 32),
        (begin(&[&[4, 0, 0, 0], &receiver, &counter]), 1312),
        (begin(&["TS💬".as_bytes(), &sender, &receiver]), 124),
        (begin(&["TS💬".as_bytes(), &sender, &receiver]), 110),
        (begin(&["TS💬".as_bytes(), &sender, &receiver]), 1280),
        (begin(&[&[0, 1, 0, 20, 0x21, 0x12, 0xa4, 0x42], &sender]), 40),
    ];
    messages.push(([0; HEAD], 1));
    messages
}

/// The message behind the header for a peer relay, of the protocol 0x7a00 + `protocol`.
pub fn relayed((head, length): ([u8; HEAD], u32), protocol: u8, network: u32) -> ([u8; HEAD], u32) {
    let [_, a, b, c] = network.to_be_bytes();
    (begin(&[&[0, 0, 0x7a, protocol, a, b, c, 0], &head[..HEAD - 8]]), length + 8)
}

fn begin(parts: &[&[u8]]) -> [u8; HEAD] {
    let mut head = [0xee; HEAD];
    head.iter_mut().zip(parts.concat()).for_each(|(to, byte)| *to = byte);
    head
}
