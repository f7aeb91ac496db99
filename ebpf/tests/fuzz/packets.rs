//! Packets, spoilt.

use tailgauge_ebpf::packet::{Transport, segments};

use crate::random::Random;
use crate::{CAPTURE, layers, pcap};

/// Sound packets of both families: plain, with options and with extension headers, and captured ones.
pub fn whole() -> Vec<Vec<u8>> {
    let captured = pcap::packets(CAPTURE);
    let restored = captured.iter().map(|captured| {
        let mut packet = captured.packet.to_vec();
        packet.resize(captured.length as usize, 0);
        packet
    });
    let mut all: Vec<_> = restored.collect();
    for (protocol, body) in [
        (
            6,
            [[1, 0xbb, 0xc0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 4, 0, 0, 0, 0, 0].as_slice(), &[9; 30]]
                .concat(),
        ),
        (
            6,
            [[1, 0xbb, 0xc0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x80, 0x12, 4, 0, 0, 0, 0, 0].as_slice(), &[1; 12]]
                .concat(),
        ),
        (17, [[1, 0xbb, 0xc0, 0, 0, 28, 0, 0].as_slice(), &[9; 20]].concat()),
        (1, vec![8; 20]),
        (58, vec![128; 20]),
    ] {
        for options in [0, 4, 40] {
            all.push(v4(protocol, options, &body));
        }
        for chain in [&[][..], &[0], &[43, 60], &[44], &[51], &[0, 60, 43, 44, 51, 60], &[60; 7]] {
            all.push(v6(chain, protocol, &body));
        }
    }
    all
}

fn v4(protocol: u8, options: usize, body: &[u8]) -> Vec<u8> {
    let length = (20 + options + body.len()) as u16;
    let [high, low] = length.to_be_bytes();
    let head =
        [0x45 + (options / 4) as u8, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&head, vec![1; options].as_slice(), body].concat()
}

/// Every extension header is 8 bytes long, but an authentication header 12.
fn v6(chain: &[u8], protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (place, kind) in chain.iter().enumerate() {
        let next = *chain.get(place + 1).unwrap_or(&protocol);
        headers.extend([next, u8::from(*kind == 51), 0, u8::from(*kind == 44), 0, 0, 0, 0]);
        headers.extend(vec![0; if *kind == 51 { 4 } else { 0 }]);
    }
    let [high, low] = ((headers.len() + body.len()) as u16).to_be_bytes();
    let head = [0x60, 0, 0, 0, high, low, *chain.first().unwrap_or(&protocol), 64];
    [&head, [2; 32].as_slice(), &headers, body].concat()
}

pub fn check(random: &mut Random, whole: &[Vec<u8>]) {
    let mut bytes = random.pick(whole).clone();
    random.spoil(&mut bytes);
    let parsed = layers::parse(&bytes);
    assert_eq!(parsed, layers::reference(&bytes), "{bytes:x?}");
    let Some(parsed) = parsed else { return };
    let length = bytes.len() as u32;
    if matches!(parsed.transport, Transport::Tcp | Transport::Udp) {
        assert!(parsed.headers <= length, "{bytes:x?}");
    }
    // As many bytes as a super-packet may have, in segments of any size.
    let length = length + random.below(1 << 19) as u32;
    let most = *random.pick(&[16, 1500, 1 << 16]);
    let gso_size = random.below(most) as u32;
    let (packets, total) = segments(length, parsed.headers, gso_size);
    assert!(packets >= 1 && total >= length);
    assert_eq!(total - length, (packets - 1) * parsed.headers);
}
