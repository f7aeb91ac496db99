//! What the programs cost a packet: `BPF_PROG_TEST_RUN`, nanoseconds above an empty classifier, as ratios to
//! a minimal per-address counter measured in the same rounds. Run by `cargo xtask bench`; needs root.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use aya::{Ebpf, EbpfLoader, programs::SchedClassifier};
use tailgauge_ebpf::layout::{CLASS_LOCAL, CLASS_SUBNET, Control, RECEIVE, maps};
use tailgauge_testbed::programs::{Error, Programs, Sizes, classifier, test_run};

static BASELINE: &[u8] = aya::include_bytes_aligned!("../../../ebpf/object/bench.bpf.o");

/// Repetitions within a call, and calls: the median call counts.
const REPEAT: u32 = 400_000;
const ROUNDS: usize = 15;
const PEERS: [u32; 4] = [1, 100, 1_000, 10_000];

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("bench_programs: needs root to load programs; run it with sudo");
        return ExitCode::FAILURE;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_programs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let mut baseline = EbpfLoader::new().load(BASELINE)?;
    for name in ["empty", "minimal"] {
        classifier(&mut baseline, name)?.load()?;
    }
    println!(
        "nanoseconds a packet, median of {ROUNDS} rounds of {REPEAT}; ratios above the empty classifier"
    );
    println!(
        "{:>7} {:>7} {:>9} {:>9} {:>11} {:>7} {:>9} {:>9}",
        "peers", "empty", "minimal", "counting", "established", "exit", "counting", "establ."
    );
    for peers in PEERS {
        let row = measure(&mut baseline, peers)?;
        let above = |value: f64| value - row.empty;
        let base = above(row.minimal);
        println!(
            "{peers:>7} {:>7.1} {:>9.1} {:>9.1} {:>11.1} {:>7.1} {:>8.2}x {:>8.2}x",
            row.empty,
            row.minimal,
            row.counting,
            row.established,
            row.exit,
            above(row.counting) / base,
            above(row.established) / base,
        );
    }
    Ok(())
}

struct Row {
    empty: f64,
    minimal: f64,
    counting: f64,
    established: f64,
    exit: f64,
}

fn measure(baseline: &mut Ebpf, peers: u32) -> Result<Row, Error> {
    let mut programs = Programs::load(Sizes { slots: peers + 1, ..Sizes::default() })?;
    for peer in 1..=peers {
        programs.add_peer_v4(peer_address(peer), peer)?;
        test_run(classifier(baseline, "minimal")?, &packet(peer_address(peer), LOCAL, UDP), 0, 1)?;
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
    let mut samples: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        samples[0].push(once(classifier(baseline, "empty")?, &datagram)?);
        samples[1].push(once(classifier(baseline, "minimal")?, &datagram)?);
        for (sample, packet) in samples[2..].iter_mut().zip([&datagram, &segment, &onward]) {
            sample.push(nanoseconds(programs.repeat(RECEIVE, packet, 0, REPEAT)?.duration));
        }
    }
    let [empty, minimal, counting, established, exit] = samples.map(median);
    Ok(Row { empty, minimal, counting, established, exit })
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

fn once(program: &SchedClassifier, packet: &[u8]) -> Result<f64, Error> {
    Ok(nanoseconds(test_run(program, packet, 0, REPEAT)?.duration))
}

fn nanoseconds(duration: std::time::Duration) -> f64 {
    duration.as_nanos() as f64
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
