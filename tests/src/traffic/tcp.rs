//! TCP: bulk transfers, and many short connections.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::TrafficError;
use super::server::{BLOCK, PORT, write_all};
use super::wire::TcpRequest;
use crate::netns::Namespace;

/// A client gives up on a silent server after this.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a transfer did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpReport {
    /// From the SYN to the end of `connect`.
    pub connect: Duration,
    /// From the SYN to the last byte.
    pub elapsed: Duration,
    /// Application bytes sent, requests included.
    pub sent: u64,
    /// Application bytes received.
    pub received: u64,
}

/// Sends `upload` bytes to a [`super::Server`] and receives `download` bytes from it, over one connection.
pub fn tcp_transfer(
    from: &Namespace,
    to: IpAddr,
    upload: u64,
    download: u64,
) -> Result<TcpReport, TrafficError> {
    let remote = SocketAddr::new(to, PORT);
    from.run(|| transfer(remote, upload, download))?.map_err(TrafficError::socket("a TCP transfer", remote))
}

/// Opens `connections` connections one after the other, each for one small exchange, and reports each.
pub fn tcp_requests(
    from: &Namespace,
    to: IpAddr,
    connections: usize,
    (request, answer): (u64, u64),
) -> Result<Vec<TcpReport>, TrafficError> {
    let remote = SocketAddr::new(to, PORT);
    from.run(|| (0..connections).map(|_| transfer(remote, request, answer)).collect::<io::Result<Vec<_>>>())?
        .map_err(TrafficError::socket("a TCP request", remote))
}

/// [`tcp_transfer`] from the namespace of the calling thread.
pub(super) fn transfer(remote: SocketAddr, upload: u64, download: u64) -> io::Result<TcpReport> {
    let start = Instant::now();
    let mut stream = connect(remote)?;
    let connected = start.elapsed();
    let request = TcpRequest { upload, download };
    let received = exchange(&mut stream, request)?;
    // With an upload only, the server's end of stream says that it has everything.
    stream.shutdown(std::net::Shutdown::Write)?;
    let rest = stream.read(&mut [0])?;
    if rest != 0 || received != download {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let sent = upload + TcpRequest::LEN as u64;
    Ok(TcpReport { connect: connected, elapsed: start.elapsed(), sent, received })
}

fn connect(remote: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&remote, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, request: TcpRequest) -> io::Result<u64> {
    let block = vec![0x3c; BLOCK];
    // Head and small bodies in one segment, as a program would.
    let most = usize::try_from(request.upload).unwrap_or(usize::MAX).min(BLOCK);
    stream.write_all(&[&request.to_bytes(), &block[..most]].concat())?;
    write_all(stream, &block, request.upload - most as u64)?;
    let mut buffer = vec![0; BLOCK];
    let mut received = 0;
    while received < request.download {
        match stream.read(&mut buffer)? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            len => received += len as u64,
        }
    }
    Ok(received)
}
