//! The kernel source on real TUN devices: attaching, following, counting, retiring.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod counting;
mod devices;
mod hotplug;
mod modes;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use tailgauge::model::kernel::{HookMode, Kernel};
use tailgauge::model::slots::SlotTable;
use tailgauge::model::tailnet::{Peer, Tailnet};
use tailgauge::sources::kernel::{AttachMode, KernelConfig, KernelSource};
use tailgauge_testbed::needs;
use tailgauge_testbed::netns::{Namespace, unique_prefix};
use tailgauge_testbed::offload::vnet::VNET_HEADER_LEN;
use tailgauge_testbed::process::{self, wait_for};
use tailgauge_testbed::tun::Tun;

const DEVICE: &str = "tailscale0";
const HOST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const PAYLOAD: usize = 100;
/// IPv4 header, UDP header, payload.
const PACKET: u64 = 20 + 8 + PAYLOAD as u64;
const DEADLINE: Duration = Duration::from_secs(10);

fn namespace(test: &str) -> Option<Namespace> {
    needs::root_and(test, &["ip", "tc"]).ok()?;
    let namespace = Namespace::create(format!("{}-attach", unique_prefix())).unwrap();
    // No router solicitations between the packets that are counted here.
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    Some(namespace)
}

/// A device with an address, up.
fn device(namespace: &Namespace) -> Tun {
    let tun = create(namespace);
    bring_up(namespace);
    tun
}

/// A device, down. One before it may be held for a moment by a child that another test has forked.
fn create(namespace: &Namespace) -> Tun {
    wait_for("the device", DEADLINE, || Tun::create(namespace, DEVICE).ok()).unwrap()
}

fn bring_up(namespace: &Namespace) {
    namespace.ip(&["addr", "add", "100.64.0.1/24", "dev", DEVICE]).unwrap();
    namespace.ip(&["link", "set", DEVICE, "up"]).unwrap();
}

fn config(mode: AttachMode) -> KernelConfig {
    KernelConfig { attach_mode: mode, ..KernelConfig::new(DEVICE, 10) }
}

/// The hook to expect where none is demanded: tcx came with Linux 6.6.
fn best_mode() -> HookMode {
    let has_tcx = KernelVersion::current().unwrap() >= KernelVersion::new(6, 6, 0);
    if has_tcx { HookMode::Tcx } else { HookMode::Clsact }
}

/// The modes that can be demanded of this kernel.
fn demandable_modes() -> &'static [AttachMode] {
    let both = &[AttachMode::Clsact, AttachMode::Tcx];
    if best_mode() == HookMode::Tcx { both } else { &both[..1] }
}

fn tailnet(peers: &[(&str, Ipv4Addr)]) -> Tailnet {
    let peer = |(id, address): &(&str, Ipv4Addr)| {
        let addresses = vec![IpAddr::from(*address)];
        Arc::new(Peer { id: (*id).to_owned(), addresses, ..Peer::default() })
    };
    Tailnet { peers: peers.iter().map(peer).collect(), ..Tailnet::default() }
}

/// Gives the source the tailnet and its slots.
fn sync(source: &mut KernelSource, slots: &mut SlotTable, tailnet: &Tailnet) {
    slots.update(&tailnet.peers, Instant::now());
    source.sync(tailnet, slots);
}

/// A UDP packet behind an empty virtio_net_hdr, as tailscaled writes it.
fn frame(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; VNET_HEADER_LEN];
    let total = PACKET as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&source.octets());
    frame.extend_from_slice(&destination.octets());
    frame.extend_from_slice(&[0x30, 0x39, 0x30, 0x39, 0, 8 + PAYLOAD as u8, 0, 0]);
    frame.resize(VNET_HEADER_LEN + PACKET as usize, 0);
    let sum = frame[VNET_HEADER_LEN..VNET_HEADER_LEN + 20]
        .chunks_exact(2)
        .fold(0u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    frame[VNET_HEADER_LEN + 10..VNET_HEADER_LEN + 12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn write(tun: &Tun, frame: &[u8], times: usize) {
    for _ in 0..times {
        assert_eq!(tun.write(frame).unwrap(), frame.len());
    }
}

/// Empties the queue towards user space, as tailscaled does; the device counts a packet when it is read.
fn drain(tun: &Tun) {
    let mut buffer = vec![0; 65_536];
    while tun.read(&mut buffer).is_ok() {}
}

fn read(source: &mut KernelSource, kernel: &mut Kernel) {
    source.read(kernel, 1).unwrap();
}

/// Asserts that what the programs counted is what the device counted, to the packet and byte.
fn assert_covered(kernel: &Kernel) {
    let coverage = kernel.coverage.unwrap();
    let device = coverage.device;
    assert_eq!(
        (coverage.counted_skbs, coverage.counted_bytes),
        (
            [device.receive_packets, device.transmit_packets + device.transmit_dropped],
            [device.receive_bytes, device.transmit_bytes]
        ),
        "counted ÷ device, packets and bytes"
    );
}

/// Of the hooks on the tunnel.
fn modes(kernel: &Kernel) -> Vec<HookMode> {
    kernel.hooks.iter().filter(|hook| hook.device == DEVICE).map(|hook| hook.mode).collect()
}

fn count_filters(namespace: &Namespace, device: &str, side: &str) -> usize {
    let arguments = ["filter", "show", "dev", device, side];
    let listed = process::run(namespace.command("tc").args(arguments)).unwrap();
    listed.lines().filter(|line| line.contains("handle")).count()
}

/// Programs on the device, by either kind of hook.
fn hooks_on(namespace: &Namespace, device: &str) -> usize {
    let filters: usize =
        ["ingress", "egress"].map(|side| count_filters(namespace, device, side)).iter().sum();
    let links: usize = namespace
        .run(|| {
            [TcAttachType::Ingress, TcAttachType::Egress]
                .map(|side| SchedClassifier::query_tcx(device, side).map_or(0, |found| found.1.len()))
                .iter()
                .sum()
        })
        .unwrap();
    filters + links
}
