//! A TCP relay from the host's loopback into a namespace, so that a browser or Prometheus reaches what listens there.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::netns::Namespace;
use crate::wake::{Stop, Threads, Wake};

/// A running relay; dropped, it closes what goes through it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    streams: Arc<Streams>,
    threads: Option<Threads>,
}

#[derive(Debug, Default)]
struct Streams(Mutex<Vec<(TcpStream, TcpStream, JoinHandle<()>)>>);

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
        let streams = Arc::new(Streams::default());
        let (shared, namespace) = (Arc::clone(&streams), Arc::clone(namespace));
        let mut threads = Threads::new()?;
        threads.spawn("relay", move |stop| shared.accept_loop(&listener, &namespace, target, stop))?;
        Ok(Self { address, streams, threads: Some(threads) })
    }

    /// Where it listens on the host.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.threads = None;
        let all = std::mem::take(&mut *self.streams.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (near, far, handle) in all {
            for stream in [near, far] {
                // Fails when it is closed already.
                let _ = stream.shutdown(Shutdown::Both);
            }
            let _ = handle.join();
        }
    }
}

impl Streams {
    fn accept_loop(&self, listener: &TcpListener, namespace: &Namespace, target: SocketAddr, stop: &Stop) {
        while matches!(stop.wait(listener.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
            let Ok((near, _)) = listener.accept() else { continue };
            // Nobody listens inside, or descriptors ran out: the client sees the connection end.
            let Ok(Ok(far)) = namespace.run(|| TcpStream::connect(target)) else { continue };
            let _ = self.add(&near, &far);
        }
    }

    fn add(&self, near: &TcpStream, far: &TcpStream) -> io::Result<()> {
        near.set_nonblocking(false)?;
        let (near_up, far_up) = (near.try_clone()?, far.try_clone()?);
        let (near_down, far_down) = (near.try_clone()?, far.try_clone()?);
        let handle = thread::Builder::new().name("relay-conn".to_owned()).spawn(move || {
            thread::scope(|scope| {
                scope.spawn(|| pump(near_up, far_up));
                pump(far_down, near_down);
            });
        })?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, _, handle)| !handle.is_finished());
        all.push((near.try_clone()?, far.try_clone()?, handle));
        Ok(())
    }
}

/// Copies one direction to its end and passes the end on.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    // Either side may go away at any time.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
