//! Connections served by a thread each, which end with their owner.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// What TCP and unix streams have in common.
pub(crate) trait Stream: Sized + Send + 'static {
    /// Another handle of the same connection.
    fn duplicate(&self) -> io::Result<Self>;
    /// Ends both directions, for every handle.
    fn close(&self);
}

impl Stream for TcpStream {
    fn duplicate(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn close(&self) {
        // Fails when the other side closed first.
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Stream for UnixStream {
    fn duplicate(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn close(&self) {
        // Fails when the other side closed first.
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// The streams of a connection and the thread that serves them.
type Connection<S> = (Vec<S>, JoinHandle<()>);

/// All connections of a server; dropped, they are closed and their threads waited for.
#[derive(Debug)]
pub(crate) struct Connections<S: Stream>(Mutex<Vec<Connection<S>>>);

impl<S: Stream> Default for Connections<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Stream> Connections<S> {
    /// Serves streams by `work`, whose error is the client's: it went away. They are closed when it returns.
    pub(crate) fn spawn(
        &self,
        name: &str,
        streams: Vec<S>,
        work: impl FnOnce(&mut [S]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let mut served = streams.iter().map(S::duplicate).collect::<io::Result<Vec<S>>>()?;
        let handle = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ = work(&mut served);
            // The list below keeps the sockets open: only this tells the other sides.
            served.iter().for_each(S::close);
        })?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, handle)| !handle.is_finished());
        all.push((streams, handle));
        Ok(())
    }
}

impl<S: Stream> Drop for Connections<S> {
    fn drop(&mut self) {
        for (streams, handle) in self.0.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            streams.iter().for_each(S::close);
            // A panic of a serving thread has been printed, and concerned one client.
            let _ = handle.join();
        }
    }
}
