//! ICMP echo, as `ping` does it.

use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::TrafficError;
use crate::netns::Namespace;

/// How to ping.
#[derive(Debug, Clone, Copy)]
pub struct Ping {
    /// Echo requests.
    pub count: u16,
    /// Payload bytes behind the 8-byte header.
    pub payload: usize,
    /// From one request to the next, answered or not.
    pub interval: Duration,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

impl Default for Ping {
    fn default() -> Self {
        Self { count: 1, payload: 56, interval: Duration::from_millis(10), timeout: Duration::from_secs(5) }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u16,
    /// Round-trip times of those answered in time, in order.
    pub round_trips: Vec<Duration>,
}

/// Pings `to` from the namespace, one request at a time.
pub fn ping(from: &Namespace, to: IpAddr, how: &Ping) -> Result<PingReport, TrafficError> {
    from.run(|| echo(to, how))?
}

/// [`ping`] from the namespace of the calling thread.
pub(super) fn echo(to: IpAddr, how: &Ping) -> Result<PingReport, TrafficError> {
    let remote = SocketAddr::new(to, 0);
    let (domain, protocol, request, answer) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    // A datagram socket: the kernel fills in identifier and checksum and gives answers to nobody else.
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))
        .map_err(TrafficError::socket("opening an ICMP socket", remote))?;
    socket.connect(&SockAddr::from(remote)).map_err(TrafficError::socket("ping", remote))?;
    let mut report = PingReport::default();
    let mut packet = vec![0; 8 + how.payload];
    packet[0] = request;
    let mut buffer = [MaybeUninit::uninit(); 65_536];
    for sequence in 0..how.count {
        packet[6..8].copy_from_slice(&sequence.to_be_bytes());
        let start = Instant::now();
        socket.send(&packet).map_err(TrafficError::socket("ping", remote))?;
        report.sent += 1;
        let deadline = start + how.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left)).map_err(TrafficError::socket("ping", remote))?;
            // An error here is a time-out or an ICMP error about an earlier request: not an answer.
            let Ok(len) = socket.recv(&mut buffer) else { continue };
            // SAFETY: recv filled the first `len` bytes.
            let received = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), len) };
            if received.first() == Some(&answer) && received.get(6..8) == Some(&sequence.to_be_bytes()) {
                report.round_trips.push(start.elapsed());
                break;
            }
        }
        if sequence + 1 < how.count {
            thread::sleep((start + how.interval).saturating_duration_since(Instant::now()));
        }
    }
    Ok(report)
}
