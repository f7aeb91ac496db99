//! A TCP relay from the host's loopback into a namespace, so that a browser or Prometheus reaches what listens there.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use crate::connections::Connections;
use crate::netns::Namespace;
use crate::wake::{Stop, Threads, Wake};

/// A running relay; dropped, it closes what goes through it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    _threads: Threads,
}

impl Relay {
    /// Listens on 127.0.0.1, on `port` or, when that is taken, on a free one, and connects to `target` inside the
    /// namespace.
    pub fn start(port: u16, namespace: &Arc<Namespace>, target: SocketAddr) -> io::Result<Self> {
        let loopback = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = loopback(port).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => loopback(0),
            _ => Err(error),
        })?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let namespace = Arc::clone(namespace);
        let mut threads = Threads::new()?;
        threads.spawn("relay", move |stop| accept_loop(&listener, &namespace, target, stop))?;
        Ok(Self { address, _threads: threads })
    }

    /// Where it listens on the host.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn accept_loop(listener: &TcpListener, namespace: &Namespace, target: SocketAddr, stop: &Stop) {
    let connections = Connections::default();
    while matches!(stop.wait(listener.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
        let Ok((near, _)) = listener.accept() else { continue };
        // Nobody listens inside, or descriptors ran out: the client sees the connection end.
        let Ok(Ok(far)) = namespace.run(|| TcpStream::connect(target)) else { continue };
        let _ = connections.spawn("relay-conn", vec![near, far], serve);
    }
}

fn serve(streams: &mut [TcpStream]) -> io::Result<()> {
    let [near, far] = streams else { return Ok(()) };
    near.set_nonblocking(false)?;
    thread::scope(|scope| {
        scope.spawn(|| pump(near, far));
        pump(far, near);
    });
    Ok(())
}

/// Copies one direction to its end and passes the end on.
fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    // Either side may go away at any time.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
