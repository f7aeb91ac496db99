//! Beginnings of messages, made and read once more from the formats: the WireGuard paper, section 5.4; Tailscale's
//! `disco/disco.go` and `net/packet/geneve.go`; RFC 8489.

use tailgauge_ebpf::layout::Kind;
use tailgauge_ebpf::message::{HEAD, Message};

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

/// What a message is, read by indexing, one field after the other.
pub fn reference(head: &[u8; HEAD], length: u32) -> Message {
    let protocol = u16::from_be_bytes([head[2], head[3]]);
    let is_relayed = head[0] >> 6 == 0
        && head[1] & 0b0011_1111 == 0
        && (protocol == 0x7a11 || protocol == 0x7a12)
        && head[7] == 0;
    let (at, length) = if is_relayed { (8, length.saturating_sub(8)) } else { (0, length) };
    let network = u32::from(head[4]) << 16 | u32::from(head[5]) << 8 | u32::from(head[6]);
    let relay = if is_relayed { network + 1 } else { 0 };
    let word = |place: usize| u32::from_le_bytes(head[at + place..at + place + 4].try_into().unwrap());
    let none = Message { relay, ..Message::default() };
    let is_disco = head[at..].starts_with("TS💬".as_bytes());
    if is_disco && (!is_relayed || protocol == 0x7a11) {
        let kind = match length {
            124 => Kind::Ping,
            110 => Kind::Pong,
            0..78 => Kind::Other,
            _ => Kind::Disco,
        };
        return Message { kind, ..none };
    }
    if is_relayed && protocol == 0x7a11 {
        return none;
    }
    match (word(0), length) {
        (1, 148) => Message { kind: Kind::Initiation, sender: word(4), ..none },
        (2, 92) => Message { kind: Kind::Response, sender: word(4), receiver: word(8), ..none },
        (3, 64) => Message { kind: Kind::Cookie, receiver: word(4), ..none },
        (4, 32..) => {
            let counter = u64::from(word(12)) << 32 | u64::from(word(8));
            Message { kind: Kind::Data, receiver: word(4), counter, ..none }
        }
        _ if !is_relayed && head[0] < 64 && length >= 20 && head[4..8] == [0x21, 0x12, 0xa4, 0x42] => {
            Message { kind: Kind::Stun, ..none }
        }
        _ => none,
    }
}
