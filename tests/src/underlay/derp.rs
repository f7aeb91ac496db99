//! A relay over TCP that stands in for DERP.
//!
//! What it shares with DERP is what can be seen from outside: one TCP connection of each node to the hub that carries
//! everything for every peer, queues of 32 messages at every sender that lose the oldest, and no UDP. TLS and DERP's own
//! frames are left out: here a message is its length (32 bits, big-endian), the node it is for or from (64 bits), and
//! itself. The first frame of a client is empty and says who it is.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, SockRef, Socket, Type};

use crate::connections::Connections;
use crate::wake::{Stop, Threads, Wake, be_prompt};
use crate::wireguard::BYPASS_MARK;

/// The port of the DERP map.
pub const PORT: u16 = 8080;
/// Messages that wait for a connection: `bufferedDerpWritesBeforeDrop` (`wgengine/magicsock`), and per client on the
/// server.
const QUEUE: usize = 32;
/// No datagram is longer.
const MAX_MESSAGE: usize = 1 << 16;

/// Frames that wait to be written; when there are too many, the oldest is lost.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<Waiting>,
    ready: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Vec<u8>>,
    closed: bool,
}

impl Outbox {
    /// Whether the message was taken, perhaps at the cost of an older one.
    pub fn push(&self, node: u64, message: &[u8]) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        if state.frames.len() == QUEUE {
            state.frames.pop_front();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        state.frames.push_back(frame(node, message));
        self.ready.notify_one();
        true
    }

    /// Messages that were taken and then lost for newer ones: `magicsock_send_derp_dropped`.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits for a frame; `None` when no more will come.
    fn pop(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(frame) = state.frames.pop_front() {
                return Some(frame);
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn frame(node: u64, message: &[u8]) -> Vec<u8> {
    let length = message.len() as u32;
    [length.to_be_bytes().as_slice(), &node.to_be_bytes(), message].concat()
}

/// Reads a frame into `message` and returns the node in its head.
fn read_frame(stream: &mut impl Read, message: &mut Vec<u8>) -> io::Result<u64> {
    let (mut length, mut node) = ([0; 4], [0; 8]);
    stream.read_exact(&mut length)?;
    stream.read_exact(&mut node)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    message.resize(length, 0);
    stream.read_exact(message)?;
    Ok(u64::from_be_bytes(node))
}

/// Writes frames until the outbox is closed or the connection ends.
fn write_loop(mut stream: &TcpStream, outbox: &Outbox) {
    while let Some(frame) = outbox.pop() {
        if stream.write_all(&frame).is_err() {
            outbox.close();
        }
    }
}

/// A node's connection; dropped, it ends.
#[derive(Debug)]
pub struct DerpClient {
    outbox: Arc<Outbox>,
    stream: TcpStream,
    // Told to stop and waited for after the stream was shut down.
    threads: Option<Threads>,
}

impl DerpClient {
    /// Connects from the namespace of the calling thread, in the background; messages wait meanwhile. `receive` gets
    /// the sender and the message, and whether another one has come already.
    pub fn start(
        server: SocketAddr,
        own: u64,
        mut receive: impl FnMut(u64, &[u8], bool) + Send + 'static,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.set_mark(BYPASS_MARK)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let stream = TcpStream::from(socket);
        let (connecting, outbox) = (stream.try_clone()?, Arc::new(Outbox::default()));
        let mut threads = Threads::new()?;
        let queue = Arc::clone(&outbox);
        threads.spawn("wg-derp", move |stop| {
            be_prompt();
            // Without a connection messages are lost as on any path that is down.
            let _ = connect(&connecting, server, stop)
                .and_then(|()| (&connecting).write_all(&frame(own, &[])))
                .and_then(|()| converse(&connecting, &queue, &mut receive));
            queue.close();
        })?;
        Ok(Self { outbox, stream, threads: Some(threads) })
    }

    /// Whether the connection has ended, or was never made.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.outbox.lock().closed
    }

    /// Where messages to others go.
    #[must_use]
    pub fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(&self.outbox)
    }
}

impl Drop for DerpClient {
    fn drop(&mut self) {
        self.outbox.close();
        if let Some(threads) = &self.threads {
            threads.stop().stop();
        }
        // Fails while there is no connection; then the thread sees that it is to stop.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.threads = None;
    }
}

/// Connects a socket that does not block, and makes it block.
fn connect(stream: &TcpStream, server: SocketAddr, stop: &Stop) -> io::Result<()> {
    let socket = SockRef::from(stream);
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        outcome => outcome?,
    }
    let mut polled = [PollFd::new(stream, PollFlags::OUT), PollFd::new(stop, PollFlags::IN)];
    poll(&mut polled, None)?;
    if !polled[1].revents().is_empty() {
        return Err(io::Error::from(io::ErrorKind::Interrupted));
    }
    socket.take_error()?.map_or(Ok(()), Err)?;
    socket.set_nonblocking(false)
}

/// Reads and writes until the connection ends.
fn converse(
    stream: &TcpStream,
    outbox: &Outbox,
    receive: &mut impl FnMut(u64, &[u8], bool),
) -> io::Result<()> {
    thread::scope(|scope| {
        scope.spawn(|| {
            be_prompt();
            write_loop(stream, outbox);
        });
        let mut reader = BufReader::with_capacity(MAX_MESSAGE, stream);
        let mut message = Vec::new();
        let outcome = loop {
            match read_frame(&mut reader, &mut message) {
                Ok(from) => receive(from, &message, !reader.buffer().is_empty()),
                Err(error) => break Err(error),
            }
        };
        outbox.close();
        outcome
    })
}

/// Who is connected.
type Clients = Mutex<HashMap<u64, Arc<Outbox>>>;

/// A running server; dropped, its connections end.
#[derive(Debug)]
pub struct DerpServer {
    clients: Arc<Clients>,
    _threads: Threads,
}

impl DerpServer {
    /// Listens on every address, in the namespace of the calling thread.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
        listener.set_nonblocking(true)?;
        let clients = Arc::<Clients>::default();
        let mut threads = Threads::new()?;
        let known = Arc::clone(&clients);
        threads.spawn("derp", move |stop| accept_loop(&listener, &known, stop))?;
        Ok(Self { clients, _threads: threads })
    }

    /// Whether a node is connected.
    #[must_use]
    pub fn has(&self, node: u64) -> bool {
        lock(&self.clients).contains_key(&node)
    }
}

fn accept_loop(listener: &TcpListener, clients: &Arc<Clients>, stop: &Stop) {
    let connections = Connections::default();
    while matches!(stop.wait(listener.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
        let Ok((stream, _)) = listener.accept() else { continue };
        let clients = Arc::clone(clients);
        // Out of threads or descriptors: the client sees the connection end.
        let _ = connections.spawn("derp-conn", vec![stream], move |streams| {
            streams.iter().try_for_each(|stream| serve(stream, &clients))
        });
    }
}

fn serve(stream: &TcpStream, clients: &Clients) -> io::Result<()> {
    be_prompt();
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(MAX_MESSAGE, stream);
    let mut message = Vec::new();
    let own = read_frame(&mut reader, &mut message)?;
    let outbox = Arc::new(Outbox::default());
    // A node that comes back takes the place of its old connection.
    lock(clients).insert(own, Arc::clone(&outbox));
    let outcome = thread::scope(|scope| {
        scope.spawn(|| write_loop(stream, &outbox));
        let outcome = loop {
            match read_frame(&mut reader, &mut message) {
                Ok(to) => {
                    let target = lock(clients).get(&to).map(Arc::clone);
                    // Who is not there gets nothing, as at a real one.
                    target.map(|target| target.push(own, &message));
                }
                Err(error) => break Err(error),
            }
        };
        outbox.close();
        outcome
    });
    let mut clients = lock(clients);
    if clients.get(&own).is_some_and(|current| Arc::ptr_eq(current, &outbox)) {
        clients.remove(&own);
    }
    outcome
}

fn lock(clients: &Clients) -> MutexGuard<'_, HashMap<u64, Arc<Outbox>>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_outbox_loses_the_oldest() {
        let outbox = Outbox::default();
        assert!((0..QUEUE as u8 + 2).all(|byte| outbox.push(7, &[byte])));
        assert_eq!(outbox.lost(), 2);
        let mut message = Vec::new();
        let first = outbox.pop().unwrap();
        assert_eq!(read_frame(&mut first.as_slice(), &mut message).unwrap(), 7);
        assert_eq!(message, [2]);
        outbox.close();
        assert!(outbox.pop().is_none() && !outbox.push(7, &[]));
    }

    #[test]
    fn frames_that_are_cut_or_too_long_are_refused() {
        let mut message = Vec::new();
        let whole = frame(1, &[5; 100]);
        assert!(read_frame(&mut &whole[..50], &mut message).is_err());
        let mut long = whole;
        long[0] = 1;
        assert!(read_frame(&mut long.as_slice(), &mut message).is_err());
    }
}
