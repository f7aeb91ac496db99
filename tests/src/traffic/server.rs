//! The other side of the generators: one server for TCP and UDP, both address families.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::TrafficError;
use super::wire::{TcpRequest, UdpRequest};
use crate::connections::Connections;
use crate::netns::Namespace;
use crate::wake::{Stop, Threads, Wake};
use crate::wireguard::socket::force_receive_buffer;

/// Where the server listens, TCP and UDP.
pub const PORT: u16 = 7001;
/// Bytes written at once; long enough for the kernel to make super-packets.
pub(super) const BLOCK: usize = 128 << 10;

/// What a server has received as UDP from one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpCount {
    /// Datagrams.
    pub datagrams: u64,
    /// Payload bytes.
    pub bytes: u64,
}

/// A running server; dropped, it stops and closes every connection.
#[derive(Debug)]
pub struct Server {
    counts: Arc<Mutex<HashMap<IpAddr, UdpCount>>>,
    _threads: Threads,
}

impl Server {
    /// Listens in the namespace: TCP on every address, UDP on those given, so that answers come from there.
    pub fn start(namespace: &Namespace, addresses: &[IpAddr]) -> Result<Self, TrafficError> {
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT);
        let failed = TrafficError::socket("listening", any);
        let tcp = namespace.run(|| TcpListener::bind(any))?.map_err(&failed)?;
        tcp.set_nonblocking(true).map_err(&failed)?;
        let counts = Arc::new(Mutex::new(HashMap::new()));
        let mut threads = Threads::new().map_err(&failed)?;
        threads.spawn("tcp-server", move |stop| accept_loop(&tcp, stop)).map_err(&failed)?;
        for address in addresses {
            let own = SocketAddr::new(*address, PORT);
            let failed = TrafficError::socket("listening", own);
            let udp = namespace.run(|| bind_udp(own))?.map_err(&failed)?;
            let shared = Arc::clone(&counts);
            threads.spawn("udp-server", move |stop| udp_loop(&udp, &shared, stop)).map_err(&failed)?;
        }
        Ok(Self { counts, _threads: threads })
    }

    /// Datagrams received from an address, as the server sees it: behind the exit node that is the exit node's.
    #[must_use]
    pub fn udp_received(&self, from: IpAddr) -> UdpCount {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&from).copied().unwrap_or_default()
    }
}

fn accept_loop(listener: &TcpListener, stop: &Stop) {
    let connections = Connections::default();
    while matches!(stop.wait(listener.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
        while let Ok((stream, _)) = listener.accept() {
            // Out of threads or descriptors: the client sees the connection end.
            let _ =
                connections.spawn("tcp-conn", vec![stream], |streams| streams.iter_mut().try_for_each(serve));
        }
    }
}

/// Reads what the client announced, then writes what it asked for, again and again until it closes.
fn serve(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let block = vec![0x5a; BLOCK];
    let mut buffer = vec![0; BLOCK];
    while let Some(request) = TcpRequest::read(stream)? {
        let mut left = request.upload;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match stream.read(&mut buffer[..most])? {
                0 => return Ok(()),
                len => left -= len as u64,
            }
        }
        write_all(stream, &block, request.download)?;
    }
    Ok(())
}

/// Writes `len` bytes, the block again and again.
pub(super) fn write_all(stream: &mut TcpStream, block: &[u8], len: u64) -> io::Result<()> {
    let mut left = len;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        stream.write_all(&block[..most])?;
        left -= most as u64;
    }
    Ok(())
}

/// A socket that does not drop what reached it while its reader waits for the processor.
pub(super) fn bind_udp(own: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(own)?;
    force_receive_buffer(&socket, 16 << 20)?;
    Ok(socket)
}

/// Counts, and answers as the datagram asks.
fn udp_loop(socket: &UdpSocket, counts: &Mutex<HashMap<IpAddr, UdpCount>>, stop: &Stop) {
    let mut buffer = vec![0; 65_536];
    let answer = vec![0xa5; 65_536];
    while matches!(stop.wait(socket.as_fd(), Some(Duration::from_secs(1))), Ok(Wake::Ready | Wake::TimedOut))
    {
        // Still to be read in one go after a wake-up.
        while let Some((len, from)) = receive(socket, &mut buffer) {
            {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                let count = counts.entry(from.ip().to_canonical()).or_default();
                count.datagrams += 1;
                count.bytes += len as u64;
            }
            match UdpRequest::parse(&buffer[..len]) {
                UdpRequest::Sink => {}
                // A lost answer is the network's to lose.
                UdpRequest::Echo => drop(socket.send_to(&buffer[..len], from)),
                UdpRequest::Flood { datagrams, payload } => {
                    for _ in 0..datagrams {
                        if stop.is_stopped() {
                            return;
                        }
                        let _ = socket.send_to(&answer[..payload.min(1400)], from);
                    }
                }
            }
        }
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    // SAFETY: u8 and MaybeUninit<u8> have the same layout, and the kernel only writes initialised bytes.
    let room = unsafe {
        std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<std::mem::MaybeUninit<u8>>(), buffer.len())
    };
    let (len, from) = socket2::SockRef::from(socket).recv_from_with_flags(room, libc::MSG_DONTWAIT).ok()?;
    Some((len, from.as_socket()?))
}
