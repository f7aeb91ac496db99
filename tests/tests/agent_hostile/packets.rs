//! Packets that no honest peer would send: whatever the device counts, the agent counts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use tailgauge_testbed::needs;
use tailgauge_testbed::offload::vnet::{
    GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET_HEADER_LEN, VnetHeader,
};
use tailgauge_testbed::stage::{NOWHERE, Stage, TUNNEL, udp_packet};

use crate::{Before, stage, value};

const PEER_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 2);
const NOWHERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);

fn behind(header: VnetHeader, packet: &[u8]) -> Vec<u8> {
    [&header.to_bytes(), packet].concat()
}

fn plain(packet: &[u8]) -> Vec<u8> {
    behind(VnetHeader::default(), packet)
}

fn v4(protocol: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = udp_packet(PEER_V4.into(), NOWHERE.into(), 0);
    packet.truncate(20);
    packet[0] = 0x40 | (5 + options / 4) as u8;
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[9] = protocol;
    packet.resize(20 + options, 1);
    packet.extend_from_slice(payload);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let sum = !tailgauge_testbed::offload::checksum::sum(&packet[..20 + options]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// An IPv6 packet whose payload is a chain of extension headers, each 8 bytes, and then `last`.
fn v6(chain: &[u8], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = udp_packet(PEER_V6.into(), NOWHERE_V6.into(), 0);
    packet.truncate(40);
    packet[6] = *chain.first().unwrap_or(&last);
    for (index, kind) in chain.iter().enumerate() {
        let next = *chain.get(index + 1).unwrap_or(&last);
        // Offset 0 and more fragments, where it is a fragment header; padding where it holds options.
        packet.extend_from_slice(&[
            next,
            0,
            if *kind == 44 { 0 } else { 1 },
            u8::from(*kind == 44) + 4,
            0,
            0,
            0,
            0,
        ]);
    }
    packet.extend_from_slice(payload);
    let length = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

fn tcp(flags: u8, options: usize) -> Vec<u8> {
    let mut header = vec![0x30, 0x39, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 2, 0, flags, 4, 0, 0, 0, 0, 0];
    header[12] = ((5 + options / 4) << 4) as u8;
    header.resize(20 + options, 1);
    header.extend_from_slice(b"some payload");
    header
}

/// Every kind of packet, whole.
fn zoo() -> Vec<Vec<u8>> {
    let mut all = vec![
        udp_packet(PEER_V4.into(), NOWHERE.into(), 32),
        udp_packet(PEER_V6.into(), NOWHERE_V6.into(), 32),
    ];
    for flags in [0, 0x02, 0x12, 0x10, 0x04, 0x01, 0x29, 0xff] {
        all.extend([
            v4(6, 0, 0, &tcp(flags, 12)),
            v4(6, 40, 0, &tcp(flags, 40)),
            v6(&[], 6, &tcp(flags, 12)),
        ]);
    }
    // Fragments: first, later, past the end; with ports and without.
    for fragment in [0x2000, 0x2001, 0x0001, 0x1fff, 0x3fff, 0xffff] {
        all.extend([v4(17, 0, fragment, &[7; 24]), v4(6, 24, fragment, &tcp(2, 0))]);
    }
    for chain in
        [&[0][..], &[0, 60, 43, 44], &[44], &[44, 44, 44], &[60; 9], &[0; 64], &[43, 51, 135, 139], &[59]]
    {
        all.extend([
            v6(chain, 6, &tcp(2, 0)),
            v6(chain, 17, &[9; 16]),
            v6(chain, 59, &[]),
            v6(chain, 0, &[255; 3]),
        ]);
    }
    // Header lengths and totals that lie.
    for (at, value) in [(0, 0x40), (0, 0x44), (0, 0x4f), (2, 0), (3, 1), (2, 0xff), (9, 255)] {
        let mut lie = v4(6, 0, 0, &tcp(2, 0));
        lie[at] = value;
        all.push(lie);
    }
    for length in [0u16, 1, 39, 0xffff] {
        let mut lie = v6(&[0], 6, &tcp(2, 0));
        lie[4..6].copy_from_slice(&length.to_be_bytes());
        all.push(lie);
    }
    for version in [0u8, 1, 5, 7, 15] {
        for mut lie in [v4(17, 0, 0, &[0; 16]), v6(&[], 17, &[0; 16])] {
            lie[0] = version << 4 | lie[0] & 15;
            all.push(lie);
        }
    }
    all
}

/// Headers that promise what the packet may not keep.
fn offload_headers() -> Vec<VnetHeader> {
    let mut all = vec![VnetHeader::default()];
    for gso_type in [GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, 3, 0x80 | GSO_TCPV4, 0xff] {
        for gso_size in [0, 1, 8, 536, 65_535] {
            for hdr_len in [0, 40, 65_535] {
                for csum_start in [20, 40] {
                    let csum_offset = if gso_type == GSO_UDP_L4 { 6 } else { 16 };
                    all.push(VnetHeader {
                        flags: NEEDS_CSUM,
                        gso_type,
                        hdr_len,
                        gso_size,
                        csum_start,
                        csum_offset,
                    });
                }
            }
        }
    }
    all
}

#[test]
fn truncated_at_every_byte_and_random_packets_are_counted_as_the_device_counts() {
    let name = "truncated_at_every_byte_and_random_packets_are_counted_as_the_device_counts";
    let Some(stage) = stage(name) else { return };
    // Let everything through as far as the stack wants to look.
    stage.namespace.sysctl("net.ipv4.ip_forward", "1").unwrap();
    let mut agent = stage.agent(&[]).unwrap();
    let before = Before::read(&stage, &agent);
    let (mut taken, mut refused) = (0u64, 0u64);
    let mut write = |frame: &[u8]| {
        *if stage.receive(frame) { &mut taken } else { &mut refused } += 1;
        // What the stack answers must not fill the queue for nobody to read.
        if (taken + refused).is_multiple_of(64) {
            stage.drain();
        }
    };
    let zoo = zoo();
    for packet in &zoo {
        (0..=packet.len()).for_each(|length| write(&plain(&packet[..length])));
    }
    // Without the vnet header, and with half of it.
    (0..VNET_HEADER_LEN).for_each(|length| write(&[0; VNET_HEADER_LEN][..length]));
    let headers = offload_headers();
    for packet in &zoo {
        headers.iter().for_each(|header| write(&behind(*header, packet)));
    }
    // Super-packets of real size with headers cut at every byte.
    for (gso_type, mut packet) in
        [(GSO_TCPV4, v4(6, 0, 0, &tcp(0x10, 12))), (GSO_TCPV6, v6(&[], 6, &tcp(0x10, 12)))]
    {
        let start = if gso_type == GSO_TCPV4 { 20 } else { 40 };
        packet.resize(60_000, 0x55);
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: start + 32,
            gso_size: 1228,
            csum_start: start,
            csum_offset: 16,
        };
        (0..100)
            .chain([1000, 1300, 30_000, 60_000])
            .for_each(|length| write(&behind(header, &packet[..length])));
    }
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let mut frame = vec![0; random.random_range(0..200)];
        random.fill_bytes(&mut frame);
        // Half of them with a sane begin, else hardly any is taken.
        if random.random_bool(0.7) && frame.len() > VNET_HEADER_LEN {
            frame[..VNET_HEADER_LEN].fill(0);
            frame[VNET_HEADER_LEN] = if random.random_bool(0.5) { 0x45 } else { 0x60 };
        }
        write(&frame);
    }
    println!("{taken} frames taken, {refused} refused by the kernel");
    assert!(taken > 10_000 && refused > 1_000);
    let device = before.assert_exact(&stage, &agent);
    assert!(device.rx_packets > 10_000, "{device:?}");
    let scrape = agent.scrape().unwrap();
    assert!(value(&scrape, "tailgauge_malformed_packets_total", &[]) > 1_000.0);
    assert!(value(&scrape, "tailgauge_fragment_packets_total", &[]) > 100.0);
    assert!(agent.is_running());
}

#[test]
fn anything_that_this_host_sends_into_the_tunnel_is_counted() {
    let name = "anything_that_this_host_sends_into_the_tunnel_is_counted";
    let Ok(()) = needs::root_and(name, &["ip"]) else { return };
    let stage = Stage::set().unwrap();
    let agent = stage.agent(&[]).unwrap();
    let before = Before::read(&stage, &agent);
    let socket = stage.namespace.run(PacketSocket::open).unwrap().unwrap();
    let mut random = SmallRng::seed_from_u64(8);
    let mut sent = 0;
    let mut send = |packet: &[u8]| {
        sent += u64::from(socket.send(packet).is_ok());
        if sent.is_multiple_of(64) {
            stage.drain();
        }
    };
    for packet in zoo() {
        (1..=packet.len()).for_each(|length| send(&packet[..length]));
    }
    for _ in 0..5_000 {
        let mut packet = vec![0; random.random_range(1..300)];
        random.fill_bytes(&mut packet);
        send(&packet);
    }
    // More than the ring holds: what it drops was sent all the same.
    let packet = udp_packet(IpAddr::V4(NOWHERE), PEER_V4.into(), 8);
    (0..2_000).for_each(|_| drop(socket.send(&packet)));
    let device = before.assert_exact(&stage, &agent);
    println!("{sent} packets sent one by one; {device:?}");
    assert!(sent > 10_000 && device.tx_dropped > 1_000);
}

/// Sends packets past the stack, as `tcpreplay` would.
struct PacketSocket {
    socket: OwnedFd,
    to: libc::sockaddr_ll,
}

impl PacketSocket {
    fn open() -> io::Result<Self> {
        let name = std::ffi::CString::new(TUNNEL)?;
        // SAFETY: a string that ends in zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: plain integers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 || index == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: plain data, for which zero is valid.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = (libc::ETH_P_IP as u16).to_be();
        to.sll_ifindex = index as i32;
        Ok(Self { socket, to })
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        // SAFETY: buffer and address are valid for their lengths during the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const self.to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
