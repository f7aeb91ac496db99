//! UDP: paced datagrams one way, echoes, and floods from the server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::TrafficError;
use super::server::{PORT, bind_udp};
use super::wire::UdpRequest;
use crate::netns::Namespace;

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Udp {
    /// Datagrams.
    pub datagrams: u32,
    /// Payload bytes of each, at least 9.
    pub payload: usize,
    /// Datagrams per second; `None` is as fast as possible.
    pub rate: Option<u32>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpReport {
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Datagrams that came back.
    pub received: u64,
    /// Time until the last one was sent.
    pub elapsed: Duration,
}

/// Sends datagrams that the server only counts.
pub fn udp_send(from: &Namespace, to: IpAddr, what: Udp) -> Result<UdpReport, TrafficError> {
    run(from, to, "sending UDP", |socket| send(socket, what, UdpRequest::Sink))
}

/// Sends datagrams that the server sends back, and waits for them until `patience` passes without one.
pub fn udp_echo(
    from: &Namespace,
    to: IpAddr,
    what: Udp,
    patience: Duration,
) -> Result<UdpReport, TrafficError> {
    let remote = SocketAddr::new(to, PORT);
    from.run(|| echo(remote, what, patience))?.map_err(TrafficError::socket("echoing UDP", remote))
}

/// [`udp_echo`] from the namespace of the calling thread.
pub(super) fn echo(remote: SocketAddr, what: Udp, patience: Duration) -> io::Result<UdpReport> {
    let socket = connect(remote)?;
    socket.set_read_timeout(Some(patience))?;
    thread::scope(|scope| {
        let counter = scope.spawn(|| count(&socket, u64::from(what.datagrams)));
        let mut report = send(&socket, what, UdpRequest::Echo)?;
        report.received = counter.join().unwrap_or(0);
        Ok(report)
    })
}

/// Has the server send `what.datagrams` datagrams back to back; a rate does not apply. `sent` is the one request.
pub fn udp_flood_from(
    from: &Namespace,
    to: IpAddr,
    what: Udp,
    patience: Duration,
) -> Result<UdpReport, TrafficError> {
    run(from, to, "asking for UDP", |socket| {
        socket.set_read_timeout(Some(patience))?;
        let request = UdpRequest::Flood { datagrams: what.datagrams, payload: what.payload };
        let mut report = send(socket, Udp { datagrams: 1, payload: 9, rate: None }, request)?;
        report.received = count(socket, u64::from(what.datagrams));
        Ok(report)
    })
}

fn run(
    from: &Namespace,
    to: IpAddr,
    operation: &'static str,
    work: impl FnOnce(&UdpSocket) -> io::Result<UdpReport> + Send,
) -> Result<UdpReport, TrafficError> {
    let remote = SocketAddr::new(to, PORT);
    from.run(|| work(&connect(remote)?))?.map_err(TrafficError::socket(operation, remote))
}

fn connect(remote: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = bind_udp(SocketAddr::new(any, 0))?;
    socket.connect(remote)?;
    Ok(socket)
}

fn send(socket: &UdpSocket, what: Udp, request: UdpRequest) -> io::Result<UdpReport> {
    let mut payload = vec![0; what.payload];
    request.fill(&mut payload);
    let start = Instant::now();
    let mut report = UdpReport::default();
    for index in 0..what.datagrams {
        if let Some(rate) = what.rate {
            let due = start + Duration::from_secs(1) * index / rate.max(1);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        match socket.send(&payload) {
            Ok(_) => report.sent += 1,
            // An ICMP error about an earlier datagram; this one was not sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
    report.elapsed = start.elapsed();
    Ok(report)
}

/// Datagrams received until there are enough or none comes in time.
fn count(socket: &UdpSocket, enough: u64) -> u64 {
    let mut buffer = [0; 2048];
    let mut received = 0;
    while received < enough && socket.recv(&mut buffer).is_ok() {
        received += 1;
    }
    received
}
