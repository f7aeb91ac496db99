//! What the programs on the underlay cost, on an Ethernet device, where they do not look into messages, and for those
//! that are rare.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use tailgauge_ebpf::layout::{
    CLASS_LOCAL, Control, ETHERNET_HEADER, MARK_FORWARDED, RECEIVE, TRANSMIT, Underlay, UnderlayDevice, maps,
};
use tailgauge_testbed::programs::{self, Context, Programs, Sizes};
use tailgauge_testbed::underlay::disco::{self, DiscoKey};
use tailgauge_testbed::underlay::{messages, packets};

use super::subjects::{Baseline, Foreign};
use super::{COUNTING, LOCAL, REPEAT, TCP, UDP, UNRELATED, nanoseconds, once, packet, peer_address};
use crate::table::{Row, Spread, digits};

/// Where tailscaled listens, here and at its peer.
pub const PORT: u16 = 41641;
/// Slot of the peer.
pub const SLOT: u32 = 1;

/// A peer, and this node.
pub fn sockets() -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(Ipv4Addr::new(198, 51, 100, 7).into(), PORT), SocketAddr::new(LOCAL.into(), PORT))
}

/// Behind an Ethernet header.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &[8, 0], packet].concat()
}

/// Programs that know a peer.
pub fn programs(sizes: Sizes) -> Result<Programs, programs::Error> {
    let mut programs = Programs::load(sizes)?;
    let mut underlay = Underlay::default();
    underlay.devices[0] = UnderlayDevice { ifindex: 1, link_header: ETHERNET_HEADER, row: 0 };
    programs.set_underlay(&underlay)?;
    programs.set_ports([&[PORT], &[]])?;
    programs.add_prefix(maps::ROUTES_V4, ipnet::Ipv4Net::new_assert(LOCAL, 32), CLASS_LOCAL)?;
    programs.add_endpoint(sockets().0, None, SLOT)?;
    programs.set_control(&Control { has_routes_v4: 1, ..Control::default() })?;
    Ok(programs)
}

/// What a packet should cost.
enum Target {
    Nanoseconds(f64),
    MinimalCounters(f64),
    /// Too rare to matter.
    None,
}

pub fn measure(
    baseline: &Baseline,
    foreign: Option<&Foreign>,
    rounds: usize,
) -> Result<Vec<Row>, Box<dyn Error>> {
    use Target::{MinimalCounters, Nanoseconds, None as Rare};
    let mut programs = programs(Sizes::default())?;
    let key = DiscoKey([7; 32]);
    programs.add_disco_key(key.0, SLOT)?;
    let (far, own) = sockets();
    let datagram = packet(peer_address(1), LOCAL, UDP);
    let arriving = packets::udp_packet(far, own, &[1; 32]);
    let cases = [
        (
            "unrelated TCP packet, receive",
            RECEIVE,
            0,
            packet(peer_address(1), LOCAL, TCP),
            Nanoseconds(UNRELATED),
        ),
        ("unrelated UDP packet, receive", RECEIVE, 0, datagram.clone(), Nanoseconds(UNRELATED)),
        ("unrelated packet, transmit", TRANSMIT, 0, datagram.clone(), Nanoseconds(UNRELATED)),
        ("forwarded packet, transmit", TRANSMIT, MARK_FORWARDED, datagram.clone(), MinimalCounters(COUNTING)),
        ("disco ping, receive", RECEIVE, 0, packets::udp_packet(far, own, &disco::ping(key, [1; 12])), Rare),
        (
            "handshake initiation, receive",
            RECEIVE,
            0,
            packets::udp_packet(far, own, &messages::initiation(7)),
            Rare,
        ),
        ("no message of tailscaled, receive", RECEIVE, 0, arriving, Rare),
    ]
    .map(|(what, direction, mark, packet, target)| {
        (format!("underlay: {what}"), direction, Context { mark, gso_size: 0 }, frame(&packet), target)
    });
    let mut ours = vec![Vec::new(); cases.len()];
    let mut others = vec![Vec::new(); cases.len()];
    let (mut empty, mut minimal) = (Vec::new(), Vec::new());
    once(baseline.minimal()?, &datagram, Context::default())?;
    for _ in 0..rounds {
        empty.push(once(baseline.empty()?, &datagram, Context::default())?);
        minimal.push(once(baseline.minimal()?, &datagram, Context::default())?);
        for (place, (_, direction, context, frame, _)) in cases.iter().enumerate() {
            ours[place]
                .push(nanoseconds(programs.run_underlay(*direction, frame, *context, REPEAT)?.duration));
            if let Some(foreign) = foreign {
                others[place].push(once(foreign.program()?, frame, *context)?);
            }
        }
    }
    let empty = Spread::of(empty).median;
    let above = |sample: Vec<f64>| Spread::of(sample).median - empty;
    let minimal = above(minimal);
    let mut rows = Vec::new();
    for (((what, .., target), ours), others) in cases.into_iter().zip(ours).zip(others) {
        let cost = above(ours);
        let row = Row::new(&what, format!("{} ns", digits(cost)))
            .against(format!("minimal counter {} ns", digits(minimal)), cost / minimal);
        rows.push(match target {
            Nanoseconds(most) => row.target(format!("≤ {most} ns"), cost <= most),
            MinimalCounters(most) => row.target(format!("≤ {most}×"), cost / minimal <= most),
            Rare => row,
        });
        rows.extend(foreign.map(|foreign| foreign.row(&what, above(others), cost)));
    }
    Ok(rows)
}
