//! UDP payloads as tailscaled sends them, made from the fields that are in clear; what is sealed is random.
//!
//! Formats: the WireGuard paper, section 5.4; Tailscale's `disco/disco.go` and `net/packet/geneve.go`; RFC 8489 for STUN.

use rand::RngCore;

/// UDP payload of a handshake initiation (type 1).
pub const INITIATION_LEN: usize = 148;
/// UDP payload of a handshake response (type 2).
pub const RESPONSE_LEN: usize = 92;
/// UDP payload of a cookie reply (type 3).
pub const COOKIE_LEN: usize = 64;
/// UDP payload of the shortest transport message (type 4): one without a packet inside.
pub const KEEPALIVE_LEN: usize = 32;
/// The header before everything that goes through a peer relay.
pub const GENEVE_LEN: usize = 8;
/// Geneve protocol of disco messages.
pub const GENEVE_DISCO: u16 = 0x7a11;
/// Geneve protocol of WireGuard messages.
pub const GENEVE_WIREGUARD: u16 = 0x7a12;
/// A STUN binding request without attributes.
pub const STUN_LEN: usize = 20;
/// The word that tells STUN from everything else.
pub const STUN_COOKIE: u32 = 0x2112_a442;

const STUN_REQUEST: u16 = 0x0001;
const STUN_RESPONSE: u16 = 0x0101;

/// A WireGuard message of the type and length, with 32-bit fields from byte 4 on.
fn wireguard(kind: u8, len: usize, fields: &[u32]) -> Vec<u8> {
    let mut message = random(len);
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    for (to, field) in message[4..].chunks_exact_mut(4).zip(fields) {
        to.copy_from_slice(&field.to_le_bytes());
    }
    message
}

/// A handshake initiation with the index that its sender chose.
#[must_use]
pub fn initiation(sender: u32) -> Vec<u8> {
    wireguard(1, INITIATION_LEN, &[sender])
}

/// The response to the initiation whose sender chose `receiver`.
#[must_use]
pub fn response(sender: u32, receiver: u32) -> Vec<u8> {
    wireguard(2, RESPONSE_LEN, &[sender, receiver])
}

/// A cookie reply to the message whose sender chose `receiver`.
#[must_use]
pub fn cookie(receiver: u32) -> Vec<u8> {
    wireguard(3, COOKIE_LEN, &[receiver])
}

/// A transport message of a session, with a packet of `packet` bytes inside, padded to 16.
#[must_use]
pub fn transport(receiver: u32, counter: u64, packet: usize) -> Vec<u8> {
    let fields = [receiver, counter as u32, (counter >> 32) as u32];
    wireguard(4, KEEPALIVE_LEN + packet.next_multiple_of(16), &fields)
}

/// A transport message with nothing inside.
#[must_use]
pub fn keepalive(receiver: u32, counter: u64) -> Vec<u8> {
    transport(receiver, counter, 0)
}

/// Receiver index and counter of a transport message; `None` for anything else.
#[must_use]
pub fn session(message: &[u8]) -> Option<(u32, u64)> {
    let header: &[u8; 16] = message.first_chunk()?;
    let [4, 0, 0, 0, a, b, c, d, counter @ ..] = *header else { return None };
    (message.len() >= KEEPALIVE_LEN)
        .then_some((u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(counter)))
}

/// A STUN binding request.
#[must_use]
pub fn stun_request(transaction: [u8; 12]) -> Vec<u8> {
    stun(STUN_REQUEST, transaction, &[])
}

/// The answer to a STUN request that came from the IPv4 or IPv6 address `from`; `None` when it was none.
#[must_use]
pub fn stun_response(request: &[u8], from: std::net::SocketAddr) -> Option<Vec<u8>> {
    let header: &[u8; STUN_LEN] = request.first_chunk()?;
    let cookie = STUN_COOKIE.to_be_bytes();
    if header[..2] != STUN_REQUEST.to_be_bytes() || header[4..8] != cookie {
        return None;
    }
    let transaction: [u8; 12] = *header.last_chunk()?;
    // XOR-MAPPED-ADDRESS (RFC 8489, 14.2).
    let (family, octets) = match from.ip() {
        std::net::IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        std::net::IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mut attribute = vec![0, 0x20, 0, 4 + octets.len() as u8, 0, family];
    attribute.extend((from.port() ^ (STUN_COOKIE >> 16) as u16).to_be_bytes());
    attribute.extend(octets.iter().zip(&header[4..]).map(|(octet, mask)| octet ^ mask));
    Some(stun(STUN_RESPONSE, transaction, &attribute))
}

/// Whether a UDP payload is STUN of any kind.
#[must_use]
pub fn is_stun(message: &[u8]) -> bool {
    message.len() >= STUN_LEN && message[0] & 0xc0 == 0 && message[4..8] == STUN_COOKIE.to_be_bytes()
}

fn stun(kind: u16, transaction: [u8; 12], attributes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(STUN_LEN + attributes.len());
    message.extend(kind.to_be_bytes());
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(STUN_COOKIE.to_be_bytes());
    message.extend(transaction);
    message.extend_from_slice(attributes);
    message
}

/// The header for a peer relay: the protocol of what follows, and the network of its two members in 24 bits.
#[must_use]
pub fn geneve_header(protocol: u16, network: u32) -> [u8; GENEVE_LEN] {
    let [_, high, middle, low] = network.to_be_bytes();
    let [first, second] = protocol.to_be_bytes();
    [0, 0, first, second, high, middle, low, 0]
}

/// `message` behind the header for a peer relay.
#[must_use]
pub fn geneve(protocol: u16, network: u32, message: &[u8]) -> Vec<u8> {
    [&geneve_header(protocol, network), message].concat()
}

/// Protocol, network and message of what goes through a peer relay, recognised as `packetLooksLike` in
/// `wgengine/magicsock/magicsock.go` does; `None` for anything else.
#[must_use]
pub fn unwrap_geneve(datagram: &[u8]) -> Option<(u16, u32, &[u8])> {
    let (header, message) = datagram.split_first_chunk::<GENEVE_LEN>()?;
    let [options, control, first, second, high, middle, low, 0] = *header else { return None };
    let protocol = u16::from_be_bytes([first, second]);
    let known = matches!(protocol, GENEVE_DISCO | GENEVE_WIREGUARD);
    (options & 0xc0 == 0 && control & 0x3f == 0 && known).then_some((
        protocol,
        u32::from_be_bytes([0, high, middle, low]),
        message,
    ))
}

/// That many bytes that nobody can foresee.
pub(super) fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use boringtun::noise::{Packet, Tunn};

    use super::*;

    #[test]
    fn messages_are_what_a_wireguard_implementation_takes_them_for() {
        let first = initiation(0x0102_0304);
        assert_eq!((first.len(), &first[..8]), (148, [1, 0, 0, 0, 4, 3, 2, 1].as_slice()));
        assert!(matches!(Tunn::parse_incoming_packet(&first), Ok(Packet::HandshakeInit(_))));

        let second = response(7, 0x0a0b_0c0d);
        assert_eq!((second.len(), &second[..8]), (92, [2, 0, 0, 0, 7, 0, 0, 0].as_slice()));
        let Ok(Packet::HandshakeResponse(parsed)) = Tunn::parse_incoming_packet(&second) else {
            unreachable!()
        };
        assert_eq!(parsed.receiver_idx, 0x0a0b_0c0d);

        let third = cookie(9);
        assert_eq!(third.len(), 64);
        let Ok(Packet::PacketCookieReply(parsed)) = Tunn::parse_incoming_packet(&third) else {
            unreachable!()
        };
        assert_eq!(parsed.receiver_idx, 9);

        let counter = 0x1234_5678_9abc_def0;
        for (packet, len) in [(0, 32), (1, 48), (16, 48), (1280, 1312)] {
            let data = transport(11, counter, packet);
            assert_eq!(data.len(), len);
            let Ok(Packet::PacketData(parsed)) = Tunn::parse_incoming_packet(&data) else { unreachable!() };
            assert_eq!(parsed.receiver_idx, 11);
            assert_eq!(session(&data), Some((11, counter)));
        }
        for other in [&first, &second, &third, &keepalive(1, 2)[..31].to_vec()] {
            assert_eq!(session(other), None);
        }
        assert_ne!(initiation(1)[8..], initiation(1)[8..], "sealed parts differ");
    }

    #[test]
    fn geneve_is_eight_bytes_before_the_message() {
        let message = keepalive(1, 2);
        let wrapped = geneve(GENEVE_WIREGUARD, 0x0001_0203, &message);
        assert_eq!(wrapped[..8], [0, 0, 0x7a, 0x12, 1, 2, 3, 0]);
        assert_eq!(unwrap_geneve(&wrapped), Some((GENEVE_WIREGUARD, 0x0001_0203, message.as_slice())));
        for naked in [message.as_slice(), &initiation(1), &stun_request([1; 12]), &wrapped[..7]] {
            assert_eq!(unwrap_geneve(naked), None);
        }
    }

    #[test]
    fn stun_is_answered_with_the_address_it_came_from() {
        let request = stun_request([7; 12]);
        assert_eq!(request.len(), 20);
        assert_eq!(request[..8], [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        let answer = stun_response(&request, "10.99.0.11:41641".parse().unwrap()).unwrap();
        assert_eq!(
            (answer.len(), &answer[..4], &answer[8..20]),
            (32, [1, 1, 0, 12].as_slice(), &[7; 12][..])
        );
        // 41641 = 0xa2a9.
        let address = [0, 1, 0xa2 ^ 0x21, 0xa9 ^ 0x12, 10 ^ 0x21, 99 ^ 0x12, 0xa4, 11 ^ 0x42];
        assert_eq!(answer[24..], address);
        let answer = stun_response(&request, "[2001:db8::1]:1".parse().unwrap()).unwrap();
        assert_eq!(answer.len(), 44);
        assert!(is_stun(&request) && is_stun(&answer));
        for other in [initiation(1), keepalive(1, 2), geneve(GENEVE_DISCO, 1, &keepalive(1, 2)), vec![0; 19]]
        {
            assert!(!is_stun(&other));
        }
        assert_eq!(stun_response(&answer, "10.99.0.11:1".parse().unwrap()), None);
        assert_eq!(stun_response(&keepalive(1, 2), "10.99.0.11:1".parse().unwrap()), None);
    }
}
