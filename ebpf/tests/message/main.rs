//! The parser of messages against what a real tailscaled sent, against a second reading of the formats, and both of
//! its halves against each other.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop the test")]

#[path = "../support/formats.rs"]
mod formats;
#[path = "../support/pcap.rs"]
mod pcap;

use std::net::Ipv4Addr;

use formats::reference;
use proptest::prelude::*;
use tailgauge_ebpf::layout::Kind;
use tailgauge_ebpf::message::{HEAD, read, read_transport};
use tailgauge_ebpf::packet::{Transport, parse_v4};

/// UDP of an exit node with tailscaled 1.102.3: a session that began by DERP, disco, a restart of the peer, STUN, a
/// keepalive, a rekey, then a peer relay. Captured with 40 bytes of each payload; the keys were made for it.
const CAPTURE: &[u8] = include_bytes!("../data/tailscaled.pcap");
const EXPECTED: &str = include_str!("../data/tailscaled.txt");
const NODE: [u8; 4] = [10, 99, 0, 2];

/// What [`read_transport`] says is what [`read`] says of data.
fn halves_agree(head: &[u8; HEAD], length: u32) -> Result<(), TestCaseError> {
    let (message, transport) = (read(words(head), length), read_transport(words(head), length));
    prop_assert_eq!(transport.relay, message.relay);
    prop_assert_eq!(transport.is_data, u32::from(message.kind == Kind::Data));
    if transport.is_data == 1 {
        prop_assert_eq!((transport.receiver, transport.counter), (message.receiver, message.counter));
    }
    Ok(())
}

/// A message of any kind, or about so, on a direct path or through a relay.
fn message() -> impl Strategy<Value = ([u8; HEAD], u32)> {
    let made = (any::<(u32, u32, u64)>(), any::<prop::sample::Index>()).prop_map(
        |((sender, receiver, counter), kind)| *kind.get(&formats::messages(sender, receiver, counter)),
    );
    let relayed = (made, prop::option::of((prop::sample::select(vec![0x11, 0x12, 0x13]), 0u32..1 << 24)));
    let relayed = relayed.prop_map(|(message, relay)| {
        relay.map_or(message, |(protocol, network)| formats::relayed(message, protocol, network))
    });
    let changes = prop::collection::vec((0..HEAD, any::<u8>()), 0..3);
    (relayed, changes, prop_oneof![3 => Just(0i32), 1 => -20..20]).prop_map(
        |((mut head, length), changes, longer)| {
            changes.into_iter().for_each(|(at, byte)| head[at] = byte);
            (head, length.saturating_add_signed(longer))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_are_read_as_the_reference_says((head, length) in message()) {
        prop_assert_eq!(read(words(&head), length), reference(&head, length));
        halves_agree(&head, length)?;
    }

    #[test]
    fn any_bytes_are_read_as_the_reference_says(head: [u8; HEAD], length in prop_oneof![0u32..200, any::<u32>()]) {
        prop_assert_eq!(read(words(&head), length), reference(&head, length));
        halves_agree(&head, length)?;
    }
}

/// One captured packet as a line of the expectation.
fn describe(captured: pcap::Captured<'_>) -> String {
    let packet = parse_v4(&captured.packet).unwrap();
    assert_eq!((packet.transport, packet.headers, packet.short), (Transport::Udp, 28, captured.length > 68));
    let [source, destination] =
        [packet.source, packet.destination].map(|address| address.word().to_ne_bytes());
    let port = |at: usize| u16::from_be_bytes([captured.packet[at], captured.packet[at + 1]]);
    let (direction, other, port) = if source == NODE {
        ("out", destination, port(22))
    } else {
        assert_eq!(destination, NODE);
        ("in", source, port(20))
    };
    let length = captured.length - packet.headers;
    let head = captured.packet[packet.headers as usize..].first_chunk().unwrap();
    halves_agree(head, length).unwrap();
    let message = read(words(head), length);
    let (kind, has) = match message.kind {
        Kind::Other => ("other", ""),
        Kind::Initiation => ("initiation", "s"),
        Kind::Response => ("response", "sr"),
        Kind::Cookie => ("cookie", "r"),
        Kind::Data => ("data", "rc"),
        Kind::Ping => ("ping", ""),
        Kind::Pong => ("pong", ""),
        Kind::Disco => ("disco", ""),
        Kind::Stun => ("stun", ""),
    };
    let or_dash = |is_there: bool, text: String| if is_there { text } else { "-".to_owned() };
    let fields = [
        or_dash(message.relay != 0, message.relay.wrapping_sub(1).to_string()),
        or_dash(has.contains('s'), format!("{:08x}", message.sender)),
        or_dash(has.contains('r'), format!("{:08x}", message.receiver)),
        or_dash(has.contains('c'), message.counter.to_string()),
    ];
    format!("{direction} {}:{port} {length} {kind} {}", Ipv4Addr::from(other), fields.join(" "))
}

#[test]
fn what_tailscaled_sent_is_read_as_what_it_was() {
    let found: Vec<_> = pcap::packets(CAPTURE).into_iter().map(describe).collect();
    let expected: Vec<_> = EXPECTED.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(found, expected);
}

/// The bytes as little-endian words.
fn words(head: &[u8; HEAD]) -> [u64; HEAD / 8] {
    let mut words = [0; HEAD / 8];
    for (word, bytes) in words.iter_mut().zip(head.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}
