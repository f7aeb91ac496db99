//! What the programs cost a packet: `BPF_PROG_TEST_RUN`, nanoseconds above an empty classifier, as ratios to
//! a minimal per-address counter measured in the same rounds.

mod subjects;
mod underlay;
mod wireguard;

use std::error::Error;
use std::net::Ipv4Addr;

use aya::programs::SchedClassifier;
use subjects::{Baseline, Foreign};
use tailgauge_ebpf::layout::{CLASS_LOCAL, CLASS_SUBNET, Control, RECEIVE, maps};
use tailgauge_testbed::programs::{Context, Programs, Sizes, test_run};

use crate::table::{Row, Spread, digits};
use crate::{Outcome, Plan};

/// Repetitions within a call; the median call counts.
const REPEAT: u32 = 400_000;
const PEERS: [u32; 4] = [1, 100, 1_000, 10_000];
/// Times the minimal counter.
const COUNTING: f64 = 1.6;
/// Times the minimal counter, with handshakes followed.
const ESTABLISHED: f64 = 2.2;
/// Nanoseconds for a packet that is none of ours.
const UNRELATED: f64 = 15.0;
/// Cost with the most peers by the cost with one: what is still flat.
const FLAT: f64 = 1.1;

pub fn measure(plan: &Plan) -> Outcome {
    let mut baseline = Baseline::load()?;
    let foreign = plan.foreign.as_ref().map(|(file, name)| Foreign::load(file, name)).transpose()?;
    let foreign = foreign.as_ref();
    let rounds = plan.rounds(15, 5);
    let mut rows = underlay::measure(&baseline, foreign, rounds)?;
    rows.extend(wireguard::measure(&mut baseline, foreign, rounds)?);
    let mut counting = Vec::new();
    for peers in PEERS {
        let cost = cost(&baseline, foreign, peers, rounds)?;
        counting.push(cost.ours[0]);
        for (place, (what, target)) in CASES.into_iter().enumerate() {
            let (what, nanoseconds) = (format!("{what}, peers: {peers}"), cost.ours[place]);
            let ratio = nanoseconds / cost.minimal;
            rows.push(
                Row::new(&what, format!("{} ns", digits(nanoseconds)))
                    .against(format!("minimal counter {} ns", digits(cost.minimal)), ratio)
                    .target(format!("≤ {target}×"), ratio <= target),
            );
            rows.extend(foreign.map(|foreign| foreign.row(&what, cost.foreign[place], nanoseconds)));
        }
    }
    if let [one, .., most] = counting[..] {
        let most_peers = PEERS[PEERS.len() - 1];
        let ratio = most / one;
        rows.push(
            Row::new(format!("UDP packet, peers: {most_peers}"), format!("{} ns", digits(most)))
                .against(format!("1 peer {} ns", digits(one)), ratio)
                .target(format!("flat, ≤ {FLAT}×"), ratio <= FLAT),
        );
    }
    Ok(rows)
}

/// Packets of the tunnel, and what they may cost.
const CASES: [(&str, f64); 3] = [
    ("UDP packet", COUNTING),
    ("TCP packet, established", ESTABLISHED),
    ("TCP packet, established, class exit", ESTABLISHED),
];

/// Nanoseconds a packet above the empty classifier.
struct Cost {
    minimal: f64,
    ours: [f64; 3],
    /// Zero without a foreign program.
    foreign: [f64; 3],
}

fn cost(
    baseline: &Baseline,
    foreign: Option<&Foreign>,
    peers: u32,
    rounds: usize,
) -> Result<Cost, Box<dyn Error>> {
    let mut programs = Programs::load(Sizes { slots: peers + 1, ..Sizes::default() })?;
    for peer in 1..=peers {
        programs.add_peer_v4(peer_address(peer), peer)?;
        let known = packet(peer_address(peer), LOCAL, UDP);
        test_run(baseline.minimal()?, &known, Context::default(), 1)?;
    }
    for (prefix, class) in [
        (ipnet::Ipv4Net::new_assert(LOCAL, 32), CLASS_LOCAL),
        (ipnet::Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 1, 2), 32), CLASS_LOCAL),
        (ipnet::Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 1, 0), 24), CLASS_SUBNET),
        (ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 20, 0, 0), 16), CLASS_SUBNET),
    ] {
        programs.add_prefix(maps::ROUTES_V4, prefix, class)?;
    }
    programs.set_control(&Control { has_routes_v4: 1, ..Control::default() })?;

    let peer = peer_address(peers.div_ceil(2));
    let datagram = packet(peer, LOCAL, UDP);
    let segment = packet(peer, LOCAL, TCP);
    let onward = packet(peer, Ipv4Addr::new(203, 0, 113, 9), TCP);
    let (mut empty, mut minimal) = (Vec::new(), Vec::new());
    let mut ours: [Vec<f64>; 3] = Default::default();
    let mut others: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        empty.push(once(baseline.empty()?, &datagram, Context::default())?);
        minimal.push(once(baseline.minimal()?, &datagram, Context::default())?);
        for (place, packet) in [&datagram, &segment, &onward].into_iter().enumerate() {
            ours[place].push(nanoseconds(programs.repeat(RECEIVE, packet, 0, REPEAT)?.duration));
            if let Some(foreign) = foreign {
                others[place].push(once(foreign.program()?, packet, Context::default())?);
            }
        }
    }
    let empty = Spread::of(empty).median;
    let above = |sample: Vec<f64>| Spread::of(sample).median - empty;
    Ok(Cost { minimal: above(minimal), ours: ours.map(above), foreign: others.map(above) })
}

const LOCAL: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const TCP: u8 = 6;
const UDP: u8 = 17;

fn peer_address(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 70, 0, 0)) + peer)
}

/// A packet of 60 bytes, a TCP one with nothing but ACK set.
fn packet(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Vec<u8> {
    let mut packet = vec![0u8; 60];
    packet[0] = 0x45;
    packet[3] = 60;
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[20..24].copy_from_slice(&[0xc0, 0x00, 0x01, 0xbb]);
    packet[24..32].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    packet[32] = 0x50;
    packet[33] = 0x10;
    packet
}

fn once(
    program: &SchedClassifier,
    packet: &[u8],
    context: Context,
) -> Result<f64, tailgauge_testbed::programs::Error> {
    Ok(nanoseconds(test_run(program, packet, context, REPEAT)?.duration))
}

fn nanoseconds(duration: std::time::Duration) -> f64 {
    duration.as_nanos() as f64
}
