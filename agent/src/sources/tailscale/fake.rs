//! A stand-in for tailscaled that answers as badly as it is told to.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use super::{PREFS, STATUS};

/// `/status` of a node with one peer.
pub(super) const ONE_PEER: &str = r#"{"Version":"1.102.3","TUN":true,"BackendState":"Running",
    "Self":{"ID":"1","NodeID":1,"InNetworkMap":true,"AllowedIPs":["192.0.2.0/24"]},
    "Peer":{"nodekey:2":{"ID":"2","NodeID":2,"PublicKey":"nodekey:2","DNSName":"c1.lab.","Active":true}}}"#;

/// One answer of the stand-in.
#[derive(Clone)]
pub(super) enum Reply {
    /// A whole answer with this status line and body.
    Whole(&'static str, Vec<u8>),
    /// Nothing, with the connection held open.
    Hang,
    /// These bytes, one each few milliseconds.
    Drip(Vec<u8>),
    /// A body that announces more than it brings.
    Truncated(Vec<u8>),
    /// So many bytes of body; counts those that went out.
    Flood(usize, Rc<RefCell<usize>>),
    /// Bytes instead of HTTP.
    Raw(Vec<u8>),
    /// Lines, then silence with the connection held open.
    Stream(Vec<String>),
    /// Lines as they are sent.
    Live(watch::Receiver<String>),
    /// Lines, then the end.
    Ends(Vec<String>),
}

/// A good answer.
pub(super) fn json(text: &str) -> Reply {
    Reply::Whole("200 OK", text.into())
}

type Script = Rc<dyn Fn(&str) -> Reply>;

/// The stand-in: its socket, what it was asked for, and the task that ends with it.
pub(super) struct Tailscaled {
    pub(super) requests: Rc<RefCell<Vec<String>>>,
    socket: PathBuf,
    task: JoinHandle<()>,
}

impl Tailscaled {
    /// Answers each request by what `script` says of its path and query.
    pub(super) fn start(directory: &Path, script: impl Fn(&str) -> Reply + 'static) -> Self {
        let socket = directory.join("tailscaled.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Rc::new(RefCell::new(Vec::new()));
        let asked = Rc::clone(&requests);
        let script: Script = Rc::new(script);
        let task = spawn_local(async move {
            // Ends its connections with itself.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn_local(serve(stream, Rc::clone(&script), Rc::clone(&asked)));
            }
        });
        Self { requests, socket, task }
    }

    /// Requests so far whose path begins so.
    pub(super) fn count(&self, prefix: &str) -> usize {
        self.requests.borrow().iter().filter(|path| path.starts_with(prefix)).count()
    }
}

impl Drop for Tailscaled {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn serve(mut stream: UnixStream, script: Script, asked: Rc<RefCell<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let allowed = head.contains("host: local-tailscaled.sock\r\n")
        && !head.contains("origin:")
        && !head.contains("referer:");
    let reply = script(&path);
    asked.borrow_mut().push(path);
    let reply =
        if allowed { reply } else { Reply::Whole("403 Forbidden", b"invalid localapi request".into()) };
    // The client may have gone away: that is its right.
    let _ = send(&mut stream, reply).await;
}

async fn send(stream: &mut UnixStream, reply: Reply) -> std::io::Result<()> {
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    match reply {
        Reply::Whole(status, body) => {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).await
        }
        Reply::Hang => std::future::pending().await,
        Reply::Drip(body) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            for byte in body {
                stream.write_all(&[byte]).await?;
                sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        }
        Reply::Truncated(body) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len() + 1);
            stream.write_all(&[head.as_bytes(), &body].concat()).await
        }
        Reply::Flood(length, sent) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let piece = vec![b'x'; 64 << 10];
            while *sent.borrow() < length {
                stream.write_all(&piece).await?;
                *sent.borrow_mut() += piece.len();
            }
            Ok(())
        }
        Reply::Raw(bytes) => stream.write_all(&bytes).await,
        Reply::Stream(lines) => {
            stream.write_all(CHUNKED).await?;
            for line in lines {
                stream.write_all(&chunk(&line)).await?;
            }
            std::future::pending().await
        }
        Reply::Live(mut lines) => {
            stream.write_all(CHUNKED).await?;
            loop {
                let line = lines.borrow_and_update().clone();
                stream.write_all(&chunk(&line)).await?;
                if lines.changed().await.is_err() {
                    return Ok(());
                }
            }
        }
        Reply::Ends(lines) => {
            stream.write_all(CHUNKED).await?;
            for line in lines {
                stream.write_all(&chunk(&line)).await?;
            }
            stream.write_all(b"0\r\n\r\n").await
        }
    }
}

fn chunk(line: &str) -> Vec<u8> {
    format!("{:x}\r\n{line}\n\r\n", line.len() + 1).into_bytes()
}

/// A line of the bus.
pub(super) fn bus_line(text: &str) -> String {
    text.replace('\n', "")
}

/// The first line that a current tailscaled sends.
pub(super) fn initial_line() -> String {
    bus_line(&format!(
        r#"{{"Version":"1.102.3","InitialStatus":{ONE_PEER},
        "PeerState":{{"2":{{"PeerWireGuardState":"handshake"}}}}}}"#
    ))
}

/// Answers as a healthy one does.
pub(super) fn healthy(path: &str) -> Reply {
    match path {
        STATUS => json(ONE_PEER),
        PREFS => json("{}"),
        _ => Reply::Stream(vec![initial_line()]),
    }
}
