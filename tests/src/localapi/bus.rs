//! `watch-ipn-bus`: a stream of `ipn.Notify` objects, one a line.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Request, Response, VERSION, head, write_chunk};
use super::view::View;
use crate::wake::Stop;

/// Bits of `?mask=` (`ipn.NotifyWatchOpt`).
pub mod mask {
    /// Traffic every 2 s.
    pub const ENGINE_UPDATES: u64 = 1;
    /// The state of the backend first.
    pub const INITIAL_STATE: u64 = 1 << 1;
    /// Preferences first.
    pub const INITIAL_PREFS: u64 = 1 << 2;
    /// The whole network map first.
    pub const INITIAL_NET_MAP: u64 = 1 << 3;
    /// Health first.
    pub const INITIAL_HEALTH: u64 = 1 << 7;
    /// Messages at most every 3 s.
    pub const RATE_LIMIT: u64 = 1 << 8;
    /// Peers as they change.
    pub const PEER_CHANGES: u64 = 1 << 12;
    /// The status first.
    pub const INITIAL_STATUS: u64 = 1 << 14;
    /// Small changes as patches.
    pub const PEER_PATCHES: u64 = 1 << 15;
    /// Only for programs inside tailscaled.
    pub const IN_PROCESS: u64 = 1 << 16;
    /// WireGuard sessions as they change.
    pub const WIREGUARD_STATE: u64 = 1 << 18;
}

/// How often traffic is reported to who asked for it.
const ENGINE_PERIOD: Duration = Duration::from_secs(2);

/// Something to tell, in the form of the fields of `ipn.Notify`.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// Who asked for this bit gets the fields; everybody else an empty message, as tailscaled does.
    pub(super) needs: u64,
    /// Who did not ask for this one either gets nothing at all.
    pub(super) silent: bool,
    pub(super) fields: Value,
}

/// Who listens.
#[derive(Debug, Default)]
pub(super) struct Bus(Mutex<Vec<Sender<Event>>>);

impl Bus {
    pub(super) fn publish(&self, event: &Event) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.send(event.clone()).is_ok());
    }

    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn listen(&self) -> Receiver<Event> {
        let (sender, receiver) = channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }
}

/// `ipn.Notify` with the fields that are always there, and these.
pub(super) fn notify(fields: Value) -> Value {
    let mut message = json!({
        "Version": VERSION,
        "ErrMessage": null,
        "LoginFinished": null,
        "State": null,
        "Prefs": null,
        "NetMap": null,
        "Engine": null,
        "BrowseToURL": null,
        "DriveShares": null,
    });
    if let (Value::Object(message), Value::Object(fields)) = (&mut message, fields) {
        message.extend(fields);
    }
    message
}

/// Serves one watcher until it goes away or tailscaled ends.
pub(super) fn serve(stream: &mut UnixStream, view: &View, request: &Request, stop: &Stop) -> io::Result<()> {
    let Some(mask) = request.query("mask").map_or(Some(0), |mask| mask.parse::<u64>().ok()) else {
        return Response::text(400, "bad mask\n").write(stream);
    };
    let unlimited = mask::PEER_CHANGES | mask::INITIAL_STATUS | mask::PEER_PATCHES;
    if mask & mask::IN_PROCESS != 0 || (mask & mask::RATE_LIMIT != 0 && mask & unlimited != 0) {
        return Response::text(400, "invalid mask\n").write(stream);
    }
    // Listen first, so that nothing between the first message and the rest is missed.
    let events = view.bus().listen();
    // The bus is closed after the stop was told: who listens too late for the one sees the other.
    if stop.is_stopped() {
        return Ok(());
    }
    let opening = format!("{}Transfer-Encoding: chunked\r\n\r\n", head(200, "application/json"));
    io::Write::write_all(stream, opening.as_bytes())?;
    send(stream, &view.first_notify(mask))?;
    let mut next_engine = Instant::now() + ENGINE_PERIOD;
    loop {
        match events.recv_timeout(next_engine.saturating_duration_since(Instant::now())) {
            Ok(event) if mask & event.needs == event.needs => send(stream, &notify(event.fields))?,
            Ok(event) if event.silent => {}
            Ok(_) => send(stream, &notify(json!({})))?,
            Err(RecvTimeoutError::Timeout) => {
                next_engine += ENGINE_PERIOD;
                if mask & mask::ENGINE_UPDATES != 0 {
                    send(stream, &notify(json!({ "Engine": view.engine_status() })))?;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return write_chunk(stream, b""),
        }
    }
}

fn send(stream: &mut UnixStream, message: &Value) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    write_chunk(stream, &line)
}
