//! A STUN server, which tells a node the address that it is seen from.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use super::messages::stun_response;
use crate::wake::{Stop, Threads, Wake};

/// The port of STUN (RFC 8489).
pub const PORT: u16 = 3478;

/// A running server; dropped, it stops.
#[derive(Debug)]
pub struct StunServer {
    _threads: Threads,
}

impl StunServer {
    /// Listens on every address, in the namespace of the calling thread.
    pub fn start() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
        socket.set_nonblocking(true)?;
        let mut threads = Threads::new()?;
        threads.spawn("stun", move |stop| answer_loop(&socket, stop))?;
        Ok(Self { _threads: threads })
    }
}

fn answer_loop(socket: &UdpSocket, stop: &Stop) {
    let mut buffer = [0; 1500];
    while matches!(stop.wait(socket.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let seen = SocketAddr::new(from.ip().to_canonical(), from.port());
        if let Some(answer) = stun_response(&buffer[..len], seen) {
            // Who asked may be gone.
            let _ = socket.send_to(&answer, from);
        }
    }
}
