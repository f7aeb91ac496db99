//! A stand-in for tailscaled's LocalAPI: the real paths, JSON shapes and manners on a unix socket.

mod bus;
mod http;
mod metrics;
pub mod shapes;
mod view;

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

pub use bus::mask;
pub use view::View;

use crate::connections::Connections;
use crate::wake::{Stop, Threads, Wake};
use http::{Request, Response};

/// Some wrong and some right ways to answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// As tailscaled does.
    #[default]
    Normal,
    /// Takes the connection and the request, and says nothing.
    Hang,
    /// Answers after this time.
    Slow(Duration),
    /// This status and body for every request.
    Answer(u16, Vec<u8>),
    /// These bytes instead of HTTP, then the end of the connection.
    Raw(Vec<u8>),
}

/// The server; stopped or dropped, every connection ends.
pub(crate) struct LocalApi {
    path: PathBuf,
    threads: Option<Threads>,
}

impl LocalApi {
    /// Listens on `path`, mode 0666 as tailscaled's; a dead socket there is replaced.
    pub(crate) fn start(path: &Path, view: Arc<View>) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        listener.set_nonblocking(true)?;
        let mut threads = Threads::new()?;
        threads.spawn("localapi", move |stop| accept_loop(&listener, &view, stop))?;
        Ok(Self { path: path.to_owned(), threads: Some(threads) })
    }

    /// Ends the server, with or without removing its socket.
    pub(crate) fn stop(mut self, remove_socket: bool) {
        self.end(remove_socket);
    }

    fn end(&mut self, remove_socket: bool) {
        let Some(threads) = self.threads.take() else { return };
        drop(threads);
        if remove_socket {
            // A test may have removed it already.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for LocalApi {
    fn drop(&mut self) {
        self.end(true);
    }
}

fn accept_loop(listener: &UnixListener, view: &Arc<View>, stop: &Stop) {
    let connections = Connections::default();
    while matches!(stop.wait(listener.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
        let Ok((stream, _)) = listener.accept() else { continue };
        let (view, stop) = (Arc::clone(view), stop.clone());
        // Out of threads or descriptors: the client sees the connection end.
        let _ = connections.spawn("localapi-conn", vec![stream], move |streams| {
            streams.iter_mut().try_for_each(|stream| serve(stream, &view, &stop))
        });
    }
    // Ends the watchers; those that come later see that they are to stop.
    view.close_bus();
}

fn serve(stream: &mut UnixStream, view: &View, stop: &Stop) -> io::Result<()> {
    while let Some(request) = Request::read(stream)? {
        match view.behaviour() {
            Behaviour::Normal => {}
            Behaviour::Hang => {
                // Until the client has enough or the server ends.
                while !stop.sleep(Duration::from_millis(50)) && view.behaviour() == Behaviour::Hang {}
                return Ok(());
            }
            Behaviour::Slow(time) => {
                stop.sleep(time);
            }
            Behaviour::Answer(status, body) => {
                Response::new(status, "application/json", body).write(stream)?;
                continue;
            }
            Behaviour::Raw(bytes) => return io::Write::write_all(stream, &bytes),
        }
        if let Some(refusal) = refuse(&request) {
            refusal.write(stream)?;
        } else if request.path == "/localapi/v0/watch-ipn-bus" {
            return bus::serve(stream, view, &request, stop);
        } else {
            answer(view, &request).write(stream)?;
        }
        if request.close {
            return Ok(());
        }
    }
    Ok(())
}

/// `ipn/localapi/localapi.go` ServeHTTP: only its own host name, and nothing that comes from a browser.
fn refuse(request: &Request) -> Option<Response> {
    let host = request.header("host").unwrap_or("");
    let valid_host = matches!(host, "" | "local-tailscaled.sock");
    let browser = request.header("origin").is_some() || request.header("referer").is_some();
    if !valid_host || browser {
        return Some(Response::text(403, "invalid localapi request\n"));
    }
    (!request.path.starts_with("/localapi/v0/")).then(|| Response::text(404, "404 page not found\n"))
}

fn answer(view: &View, request: &Request) -> Response {
    let endpoint = request.path.trim_start_matches("/localapi/v0/");
    let read_only = matches!(endpoint, "status" | "prefs" | "whois" | "usermetrics" | "derpmap");
    if read_only && request.method != "GET" {
        return Response::text(405, "method not allowed\n");
    }
    match endpoint {
        "status" => Response::json(&view.status(request.query("peers") != Some("false"))),
        "prefs" => Response::json(&view.prefs()),
        "derpmap" => Response::json(&shapes::derp_map()),
        "usermetrics" => {
            Response::new(200, "text/plain; version=0.0.4; charset=utf-8", metrics::encode(view).into_bytes())
        }
        "whois" => whois(view, request),
        "check-ip-forwarding" | "check-udp-gro-forwarding" => Response::json(&json!({ "Warning": "" })),
        "check-so-mark-in-use" => Response::json(&json!({ "UseSOMark": true })),
        _ => Response::text(404, "404 page not found\n"),
    }
}

fn whois(view: &View, request: &Request) -> Response {
    let Some(wanted) = request.query("addr").filter(|wanted| !wanted.is_empty()) else {
        return Response::text(400, "missing 'addr' parameter\n");
    };
    let ip = wanted.parse::<IpAddr>().or_else(|_| wanted.parse::<SocketAddr>().map(|address| address.ip()));
    match view.whois(ip.ok(), wanted) {
        Some(answer) => Response::json(&answer),
        None => Response::text(404, "no match for IP:port\n"),
    }
}
