//! A LocalAPI that says whatever a test wants it to say, for answers that no tailscaled would give.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::wake::{Stop, Threads, Wake};

/// How often a connection that is kept open looks whether the script changed.
const LOOK: Duration = Duration::from_millis(20);
/// Written at once while an answer without end goes on.
const BLOCK: usize = 64 << 10;

/// What is said from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// This document on `/status` and, in one line, at the begin of the IPN bus; nothing else is known.
    Status(Vec<u8>),
    /// These bytes to every request, then the end of the connection.
    Bytes(Vec<u8>),
    /// Status 200 and a body of so many blanks to every request.
    Blanks(u64),
    /// Nothing, while the connection stays open.
    Silence,
}

/// The server; dropped, it ends and takes its socket along.
#[derive(Debug)]
pub struct Scripted {
    shared: Arc<Shared>,
    _threads: Threads,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    script: Script,
    /// Changes of the script so far.
    generation: u64,
    /// Requests for `/status` since the last change.
    asked: u64,
}

impl Scripted {
    /// Listens on `path`; a dead socket there is replaced.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(path: &Path, script: Script) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared { state: Mutex::new(State { script, generation: 0, asked: 0 }) });
        let mut threads = Threads::new()?;
        let serving = Arc::clone(&shared);
        threads.spawn("scripted", move |stop| accept_loop(&listener, &serving, stop))?;
        Ok(Self { shared, _threads: threads })
    }

    /// Changes the script. A follower of the IPN bus is told that there is news, or loses its connection when the new
    /// script has no bus.
    pub fn say(&self, script: Script) {
        let mut state = self.shared.lock();
        state.script = script;
        state.generation += 1;
        state.asked = 0;
    }

    /// How often `/status` was asked for since the script changed.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.shared.lock().asked
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self) -> u64 {
        self.lock().generation
    }
}

fn accept_loop(listener: &UnixListener, shared: &Arc<Shared>, stop: &Stop) {
    let Ok(mut connections) = Threads::new() else { return };
    while matches!(stop.wait(listener.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
        let Ok((mut stream, _)) = listener.accept() else { continue };
        let shared = Arc::clone(shared);
        // An error is the client's: it went away. Without threads it sees the end of the connection.
        let _ = connections.spawn("scripted-conn", move |stop| drop(serve(&mut stream, &shared, stop)));
    }
}

/// Answers one request and closes.
fn serve(stream: &mut UnixStream, shared: &Shared, stop: &Stop) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let target = target(stream)?;
    let (script, generation) = {
        let mut state = shared.lock();
        state.asked += u64::from(target.contains("/status"));
        (state.script.clone(), state.generation)
    };
    let changed = || shared.generation() != generation;
    match script {
        Script::Bytes(bytes) => stream.write_all(&bytes),
        Script::Blanks(length) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
            let block = [b' '; BLOCK];
            let mut left = length;
            while left > 0 && !stop.is_stopped() {
                let most = left.min(BLOCK as u64);
                stream.write_all(&block[..most as usize])?;
                left -= most;
            }
            Ok(())
        }
        Script::Silence => {
            while !changed() && !stop.sleep(LOOK) {}
            Ok(())
        }
        Script::Status(document) if target.contains("/status") => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", document.len())?;
            stream.write_all(&document)
        }
        Script::Status(document) if target.contains("/watch-ipn-bus") => {
            bus(stream, shared, &document, generation, stop)
        }
        Script::Status(_) => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    }
}

/// The status in one line, then a line for each change, until there is no status any more.
fn bus(
    stream: &mut UnixStream,
    shared: &Shared,
    document: &[u8],
    mut generation: u64,
    stop: &Stop,
) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let line = [br#"{"InitialStatus":"#, document, b"}\n"].concat();
    chunk(stream, &line)?;
    loop {
        if stop.sleep(LOOK) {
            return Ok(());
        }
        let state = shared.lock();
        if !matches!(state.script, Script::Status(_)) {
            return Ok(());
        }
        let now = state.generation;
        drop(state);
        if now != generation {
            generation = now;
            chunk(stream, b"{\"Prefs\":{}}\n")?;
        }
    }
}

fn chunk(stream: &mut UnixStream, data: &[u8]) -> io::Result<()> {
    write!(stream, "{:x}\r\n", data.len())?;
    stream.write_all(data)?;
    stream.write_all(b"\r\n")
}

/// Reads the head of a request and returns its target.
fn target(stream: &mut UnixStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    Ok(head.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// A document for [`Script::Status`]: this node is 100.64.0.1.
#[must_use]
pub fn status(peers: &[Value]) -> Vec<u8> {
    let peers: serde_json::Map<String, Value> = peers
        .iter()
        .enumerate()
        .map(|(index, peer)| {
            let key =
                peer["PublicKey"].as_str().map_or_else(|| format!("nodekey:{index:064x}"), str::to_owned);
            (key, peer.clone())
        })
        .collect();
    let own = json!({
        "ID": "self", "NodeID": 1, "DNSName": "exit.lab.", "TailscaleIPs": ["100.64.0.1"],
        "AllowedIPs": ["100.64.0.1/32", "192.0.2.0/24"], "PrimaryRoutes": ["192.0.2.0/24"],
        "InNetworkMap": true,
    });
    let document =
        json!({ "Version": "1.102.3", "TUN": true, "BackendState": "Running", "Self": own, "Peer": peers });
    // Serialising a Value cannot fail: its keys are strings.
    serde_json::to_vec(&document).unwrap_or_default()
}

/// A peer for [`status`]: 100.64.0.`number`, with id `n<number>` and name `peer<number>`.
#[must_use]
pub fn peer(number: u8) -> Value {
    json!({
        "ID": format!("n{number}"), "NodeID": number, "PublicKey": format!("nodekey:{number:064x}"),
        "DNSName": format!("peer{number}.lab."), "OS": "linux", "Online": true, "InNetworkMap": true,
        "TailscaleIPs": [format!("100.64.0.{number}")], "AllowedIPs": [format!("100.64.0.{number}/32")],
    })
}
