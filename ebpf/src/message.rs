//! Reads the messages that tailscaled exchanges over UDP: WireGuard, disco, STUN, and what a peer relay wraps.
//!
//! Only what is in clear is read. Nothing is trusted beyond its form: that an index or a key is known is for the
//! programs to find out.

use crate::layout::Kind;

/// Bytes at the beginning of a message that tell what it is.
pub const HEAD: usize = 24;

/// Lengths of WireGuard messages (WireGuard paper, 5.4).
pub const INITIATION: u32 = 148;
/// Handshake response.
pub const RESPONSE: u32 = 92;
/// Cookie reply.
pub const COOKIE: u32 = 64;
/// The shortest transport message: a keepalive.
pub const KEEPALIVE: u32 = 32;

/// First bytes of a disco message (disco/disco.go).
const DISCO_MAGIC: [u8; 6] = *b"TS\xf0\x9f\x92\xac";
/// Where the sender's public key is in a disco message, and its length.
pub const DISCO_KEY_AT: u32 = DISCO_MAGIC.len() as u32;
/// Length of the key.
pub const DISCO_KEY: usize = 32;
/// Magic, key, nonce and authenticator: what every disco message has.
const DISCO_SHORTEST: u32 = 6 + 32 + 24 + 16;
/// A ping that is not padded: with transaction and node key.
pub const PING: u32 = 124;
/// A pong: with transaction and the sender's address.
pub const PONG: u32 = 110;

/// Bytes of the header that a peer relay adds (net/packet/geneve.go).
pub const RELAY_HEADER: u32 = 8;
/// Its protocol numbers: disco and WireGuard.
const RELAYED_DISCO: [u8; 2] = [0x7a, 0x11];
const RELAYED_WIREGUARD: [u8; 2] = [0x7a, 0x12];

/// Magic cookie of STUN (RFC 8489, 5).
const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Bytes of its header, and of the shortest message.
pub const STUN_HEADER: usize = 20;

/// What a datagram is. Plain fields, for the reason given at the parser of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it is; the other fields are zero where they mean nothing.
    pub kind: Kind,
    /// Virtual network identifier of the peer relay that it passes, plus one; 0 on a direct path.
    pub relay: u32,
    /// Index that the sender chose, of a WireGuard initiation or response.
    pub sender: u32,
    /// Index that the receiver had chosen, of any other WireGuard message or a response.
    pub receiver: u32,
    /// Counter of a transport message.
    pub counter: u64,
}

/// Reads a datagram of `length` bytes that begins with `head`, filled up with zeros if it is shorter.
#[inline(always)]
#[must_use]
pub fn read(head: &[u8; HEAD], length: u32) -> Message {
    let relay = relay(head);
    if relay == 0 {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = *head;
        return read_inner([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], length, 0);
    }
    let [_, _, proto, proto2, _, _, _, _, inner @ ..] = *head;
    let message = read_inner(inner, length.saturating_sub(RELAY_HEADER), relay);
    let fits = match message.kind {
        Kind::Initiation | Kind::Response | Kind::Cookie | Kind::Data => [proto, proto2] == RELAYED_WIREGUARD,
        Kind::Ping | Kind::Pong | Kind::Disco => [proto, proto2] == RELAYED_DISCO,
        Kind::Other | Kind::Stun => false,
    };
    if fits { message } else { Message { relay, ..Message::default() } }
}

/// What matters of a transport message, without the time to tell the others apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// As in [`Message`].
    pub relay: u32,
    /// 1 for a transport message; what follows means nothing in any other.
    pub is_data: u32,
    /// As in [`Message`].
    pub receiver: u32,
    /// As in [`Message`].
    pub counter: u64,
}

/// Reads as much as [`Transport`] holds from the first bytes as little-endian words, which is faster.
#[inline(always)]
#[must_use]
pub fn read_transport(head: [u64; HEAD / 8], length: u32) -> Transport {
    /// Version, flags and reserved byte; and the protocol.
    const FIXED: u64 = 0xff00_0000_0000_3fc0;
    const PROTOCOL: u64 = 0xffff_0000;
    const WIREGUARD: u64 = u16::from_le_bytes(RELAYED_WIREGUARD) as u64;
    const DISCO: u64 = u16::from_le_bytes(RELAYED_DISCO) as u64;
    let [first, second, third] = head;
    let protocol = (first & PROTOCOL) >> 16;
    if first & FIXED != 0 || protocol != WIREGUARD && protocol != DISCO {
        let is_data = first as u32 == Kind::Data as u32 && length >= KEEPALIVE;
        return Transport {
            relay: 0,
            is_data: u32::from(is_data),
            receiver: (first >> 32) as u32,
            counter: second,
        };
    }
    let network = ((first >> 32) as u32).swap_bytes() >> 8;
    let is_data =
        second as u32 == Kind::Data as u32 && length >= KEEPALIVE + RELAY_HEADER && protocol == WIREGUARD;
    Transport {
        relay: network + 1,
        is_data: u32::from(is_data),
        receiver: (second >> 32) as u32,
        counter: third,
    }
}

/// The identifier of a relayed message plus one; 0 when it is not relayed.
#[inline(always)]
#[must_use]
pub fn relay(head: &[u8; HEAD]) -> u32 {
    let [version, flags, proto, proto2, v0, v1, v2, reserved, ..] = *head;
    let is_relayed = version & 0xc0 == 0
        && flags & 0x3f == 0
        && reserved == 0
        && ([proto, proto2] == RELAYED_DISCO || [proto, proto2] == RELAYED_WIREGUARD);
    if is_relayed { u32::from_be_bytes([0, v0, v1, v2]) + 1 } else { 0 }
}

#[inline(always)]
fn read_inner(head: [u8; 16], length: u32, relay: u32) -> Message {
    let [t0, t1, t2, t3, a0, a1, a2, a3, b0, b1, b2, b3, b4, b5, b6, b7] = head;
    let first = u32::from_le_bytes([a0, a1, a2, a3]);
    let second = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
    let mut message = Message { relay, ..Message::default() };
    match (u32::from_le_bytes([t0, t1, t2, t3]), length) {
        (4, KEEPALIVE..) => {
            message.kind = Kind::Data;
            message.receiver = first;
            message.counter = second;
        }
        (1, INITIATION) => {
            message.kind = Kind::Initiation;
            message.sender = first;
        }
        (2, RESPONSE) => {
            message.kind = Kind::Response;
            message.sender = first;
            message.receiver = second as u32;
        }
        (3, COOKIE) => {
            message.kind = Kind::Cookie;
            message.receiver = first;
        }
        _ if [t0, t1, t2, t3, a0, a1] == DISCO_MAGIC && length >= DISCO_SHORTEST => {
            message.kind = match length {
                PING => Kind::Ping,
                PONG => Kind::Pong,
                _ => Kind::Disco,
            };
        }
        // Request, success and error; the two highest bits of a STUN message are zero.
        _ if t0 & 0xc0 == 0 && [a0, a1, a2, a3] == STUN_COOKIE && length >= STUN_HEADER as u32 => {
            message.kind = Kind::Stun;
        }
        _ => {}
    }
    message
}
