//! A receive buffer that overflows because tailscaled does not read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use socket2::SockRef;
use tailgauge_testbed::agent::Agent;
use tailgauge_testbed::exposition::Exposition;
use tailgauge_testbed::netns::Namespace;
use tailgauge_testbed::stage::Stage;
use tailgauge_testbed::wireguard::BYPASS_MARK;

use crate::{agreed, kernel, stage, value};

const DATAGRAMS: usize = 200;

/// A socket as tailscaled's, but with a small buffer.
fn tailscaled_like(namespace: &Namespace, address: IpAddr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((address, 0))).unwrap().unwrap();
    SockRef::from(&socket).set_mark(BYPASS_MARK).unwrap();
    SockRef::from(&socket).set_recv_buffer_size(32 << 10).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn drain(socket: &UdpSocket) -> usize {
    std::iter::from_fn(|| socket.recv(&mut [0; 2000]).ok()).count()
}

/// Drops as the agent counts them for the host and for tailscaled, and datagrams received.
fn counted(scrape: &Exposition, family: &str) -> [f64; 3] {
    let labels = [("family", family)];
    [
        value(scrape, "tailgauge_host_udp_receive_buffer_errors_total", &labels),
        value(scrape, "tailgauge_tailscaled_udp_drops_total", &labels),
        value(scrape, "tailgauge_host_udp_receive_datagrams_total", &labels),
    ]
}

fn overflow(stage: &Stage, agent: &Agent<'_>, address: IpAddr, receiver: &UdpSocket) {
    let namespace = &stage.namespace;
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let errors = || match address {
        IpAddr::V4(_) => kernel::snmp(namespace, "Udp", "RcvbufErrors"),
        IpAddr::V6(_) => kernel::snmp6(namespace, "Udp6RcvbufErrors"),
    };
    let right = |scrape: &Exposition, errors: &u64| counted(scrape, family)[0] == *errors as f64;
    let sender = namespace.run(|| UdpSocket::bind((address, 0))).unwrap().unwrap();
    let to = receiver.local_addr().unwrap();
    let (before, errors_before) = agreed(agent, "the counts at rest", errors, right);
    assert_eq!(value(&before, "tailgauge_tailscaled_udp_sockets", &[("family", family)]), 1.0);

    for _ in 0..DATAGRAMS {
        sender.send_to(&[7; 1000], to).unwrap();
        assert_eq!(drain(receiver), 1);
    }
    let expected = counted(&before, family)[2] + DATAGRAMS as f64;
    let (healthy, errors_healthy) = agreed(agent, "healthy traffic", errors, |scrape, errors| {
        right(scrape, errors) && counted(scrape, family)[2] == expected
    });
    assert_eq!(errors_healthy, errors_before);
    assert_eq!(counted(&healthy, family)[..2], counted(&before, family)[..2], "still when healthy");

    for _ in 0..DATAGRAMS {
        sender.send_to(&[7; 1000], to).unwrap();
    }
    let (after, errors_after) = agreed(agent, "the overflow", errors, |scrape, errors| {
        right(scrape, errors) && *errors > errors_healthy
    });
    let queue = |name: &str| {
        value(&after, &format!("tailgauge_tailscaled_udp_receive_{name}_bytes"), &[("family", family)])
    };
    let (waiting, room) = (queue("queue"), queue("buffer"));
    // The last datagram may exceed the limit by itself.
    assert!(waiting > room / 2.0 && waiting <= room + 4096.0, "{waiting} of {room}");
    let lost = (DATAGRAMS - drain(receiver)) as f64;
    assert_eq!((errors_after - errors_healthy) as f64, lost, "the kernel's file");
    let moved = |place: usize| counted(&after, family)[place] - counted(&healthy, family)[place];
    assert_eq!([moved(0), moved(1)], [lost, lost], "the host's and tailscaled's");
    let all =
        |scrape: &Exposition| value(scrape, "tailgauge_host_udp_receive_errors_total", &[("family", family)]);
    assert_eq!(all(&after) - all(&healthy), lost, "no other reason");
}

#[test]
fn receive_buffer_overflow_is_counted_for_the_host_and_for_tailscaled() {
    let test = "receive_buffer_overflow_is_counted_for_the_host_and_for_tailscaled";
    let Some(stage) = stage(test, &["ip"]) else { return };
    let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    // Before the agent looks for tailscaled's sockets, as the real one's are.
    let receivers = addresses.map(|address| tailscaled_like(&stage.namespace, address));
    let agent = stage.agent(&[]).unwrap();
    for (address, receiver) in addresses.into_iter().zip(&receivers) {
        overflow(&stage, &agent, address, receiver);
    }
}
