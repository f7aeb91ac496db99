//! A made-up tailnet of any size, for measuring outputs without a kernel or tailscaled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tailgauge_ebpf::layout::{Line, Wire};

use super::Model;
use super::kernel::SlotCounters;
use super::slots::SlotTable;
use super::tailnet::{Path, Peer, Tailnet, WireGuardSession, WireGuardState};

/// A model with `peers` peers that all carried traffic in every class. Only what belongs to peers is filled in:
/// the rest does not grow with their number.
#[must_use]
pub fn model(peers: u32) -> Model {
    let members: Vec<_> = (1..=peers).map(|number| Arc::new(peer(number))).collect();
    let mut model = Model { slots: SlotTable::new(peers + 1), ..Model::default() };
    let now = Instant::now();
    model.slots.update(&members, now);
    model.slots.hear_paths(Some(now), now);
    model.kernel.device = "tailscale0".to_owned();
    model.kernel.slots = (0..=peers).map(|slot| counters(slot.into())).collect();
    model.tailnet = Arc::new(Tailnet {
        up: true,
        version: "1.102.3".to_owned(),
        backend_state: "Running".to_owned(),
        tun: true,
        own: Some(Arc::new(peer(0))),
        peers: members,
        ..Tailnet::default()
    });
    model
}

/// A plausible peer, other than any with another number.
#[must_use]
pub fn peer(number: u32) -> Peer {
    let [_, a, b, c] = number.to_be_bytes();
    let (high, low) = ((number >> 16) as u16, number as u16);
    let handshake = UNIX_EPOCH + Duration::from_millis(1_790_000_000_000 + u64::from(number));
    Peer {
        id: format!("n{number:06}CNTRL"),
        name: format!("peer-{number}"),
        dns_name: format!("peer-{number}.example.ts.net"),
        os: "linux".to_owned(),
        user: "someone@example.com".to_owned(),
        tags: vec!["tag:server".to_owned()],
        addresses: vec![
            IpAddr::V4(Ipv4Addr::new(100, 64 | a & 63, b, c)),
            IpAddr::V6(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, high, low)),
        ],
        node_key: format!("nodekey:{number:064x}"),
        online: !number.is_multiple_of(7),
        path: Path::ALL[number as usize % Path::ALL.len()],
        derp_region: "fra".to_owned(),
        last_handshake: Some(handshake),
        wireguard: Some(WireGuardSession { state: WireGuardState::Established, since: Some(handshake) }),
        ..Peer::default()
    }
}

/// Counters as large as those of a host that has been up for some weeks; no two of them are equal.
fn counters(slot: u64) -> SlotCounters {
    let line = |direction: u64| {
        let packets = 1_000_003 * (slot + 1) + 500_009 * direction;
        let wire = |class| Wire { packets: packets + class, bytes: 1_280 * (packets + class) + 7 };
        Line { wire: [wire(0), wire(1), wire(2)], skbs: packets / 3, skb_bytes: 1_300 * packets }
    };
    SlotCounters { direction: [line(0), line(1)] }
}
