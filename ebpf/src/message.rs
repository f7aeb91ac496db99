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
const DISCO_MAGIC: u64 = u64::from_le_bytes(*b"\0\0TS\xf0\x9f\x92\xac");
/// Where the sender's public key is in a disco message.
pub const DISCO_KEY_AT: u32 = 6;
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
const DISCO: u16 = u16::from_le_bytes([0x7a, 0x11]);
const WIREGUARD: u16 = u16::from_le_bytes([0x7a, 0x12]);

/// Magic cookie of STUN (RFC 8489, 5).
const STUN_COOKIE: u32 = u32::from_le_bytes([0x21, 0x12, 0xa4, 0x42]);
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

/// Reads a datagram of `length` bytes that begins with `head`, filled up with zeros if it is shorter: little-endian words,
/// as bytes would be put together one by one.
#[inline(always)]
#[must_use]
pub fn read(head: [u64; HEAD / 8], length: u32) -> Message {
    let [first, second, third] = head;
    let relay = relay(first);
    let (inner, rest) = if relay == 0 {
        ([first, second], length)
    } else {
        ([second, third], length.saturating_sub(RELAY_HEADER))
    };
    let message = Message { relay, ..read_inner(inner, rest) };
    let fits = match message.kind {
        Kind::Initiation | Kind::Response | Kind::Cookie | Kind::Data => protocol(first) == WIREGUARD,
        Kind::Ping | Kind::Pong | Kind::Disco => protocol(first) == DISCO,
        Kind::Other | Kind::Stun => false,
    };
    if relay == 0 || fits { message } else { Message { relay, ..Message::default() } }
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

/// Reads as much as [`Transport`] holds from the same.
#[inline(always)]
#[must_use]
pub fn read_transport(head: [u64; HEAD / 8], length: u32) -> Transport {
    let [first, second, third] = head;
    let relay = relay(first);
    if relay == 0 {
        let is_data = first as u32 == Kind::Data as u32 && length >= KEEPALIVE;
        return Transport {
            relay,
            is_data: u32::from(is_data),
            receiver: (first >> 32) as u32,
            counter: second,
        };
    }
    let is_data = second as u32 == Kind::Data as u32
        && length >= KEEPALIVE + RELAY_HEADER
        && protocol(first) == WIREGUARD;
    Transport { relay, is_data: u32::from(is_data), receiver: (second >> 32) as u32, counter: third }
}

/// The protocol in the header of a peer relay.
#[inline(always)]
const fn protocol(first: u64) -> u16 {
    (first >> 16) as u16
}

/// The identifier of a relayed message, of which this is the first word, plus one; 0 when it is not relayed.
#[inline(always)]
const fn relay(first: u64) -> u32 {
    /// Version, flags and reserved byte, all zero.
    const FIXED: u64 = 0xff00_0000_0000_3fc0;
    if first & FIXED != 0 || protocol(first) != WIREGUARD && protocol(first) != DISCO {
        return 0;
    }
    (((first >> 32) as u32).swap_bytes() >> 8) + 1
}

/// Reads a message that is not relayed, or what a relay has wrapped.
#[inline(always)]
fn read_inner(head: [u64; 2], length: u32) -> Message {
    let [word, second] = head;
    let (first, index) = (word as u32, (word >> 32) as u32);
    let mut message = Message::default();
    match (first, length) {
        (4, KEEPALIVE..) => {
            message.kind = Kind::Data;
            message.receiver = index;
            message.counter = second;
        }
        (1, INITIATION) => {
            message.kind = Kind::Initiation;
            message.sender = index;
        }
        (2, RESPONSE) => {
            message.kind = Kind::Response;
            message.sender = index;
            message.receiver = second as u32;
        }
        (3, COOKIE) => {
            message.kind = Kind::Cookie;
            message.receiver = index;
        }
        _ if word << 16 == DISCO_MAGIC && length >= DISCO_SHORTEST => {
            message.kind = match length {
                PING => Kind::Ping,
                PONG => Kind::Pong,
                _ => Kind::Disco,
            };
        }
        // Request, success and error; the two highest bits of a STUN message are zero.
        _ if first & 0xc0 == 0 && index == STUN_COOKIE && length >= STUN_HEADER as u32 => {
            message.kind = Kind::Stun;
        }
        _ => {}
    }
    message
}
