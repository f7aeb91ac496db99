//! Listening, admitting connections, answering.

use std::cell::{Cell, RefCell};
use std::future::ready;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout, timeout_at};

use super::connection::{Observed, Permit, Phase, State, watch};
use super::payload::Payload;
use super::routes::{Route, route};
use super::{Limits, ListenError, Site, pages};
use crate::outputs::compat;
use crate::outputs::prometheus::{Build, Encoder, Representation, negotiate, render};

/// Longest head of a request; longer ones get 431.
const HEAD_BYTES: usize = 16 * 1024;
/// How long BPF statistics stay on after somebody asked.
const PROGRAM_STATISTICS: Duration = Duration::from_secs(60);
/// Pause after accept failed (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time that a refused client has to read why.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Refused clients that are being told why at the same time; more are just closed.
const REFUSALS: usize = 32;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Serves a [`Site`] on any number of addresses. All of it runs on the current `LocalSet`.
#[derive(Debug)]
pub struct Server<S: Site> {
    shared: Rc<Shared<S>>,
    listeners: RefCell<Vec<(SocketAddr, AbortHandle)>>,
}

#[derive(Debug)]
struct Shared<S> {
    site: Rc<S>,
    limits: Limits,
    build: Build,
    encoder: RefCell<Encoder>,
    buffer: RefCell<BytesMut>,
    largest: Cell<usize>,
    scrapes: Rc<Cell<usize>>,
    refusals: Rc<Cell<usize>>,
    connections: RefCell<Vec<Connection>>,
    /// Told whenever an answer is taken or a connection ends.
    settled: Rc<Notify>,
}

#[derive(Debug)]
struct Connection {
    state: Rc<State>,
    task: AbortHandle,
}

impl<S: Site> Server<S> {
    /// A server that listens nowhere yet.
    #[must_use]
    pub fn new(site: Rc<S>, limits: Limits) -> Self {
        let build = Build::current();
        let shared = Shared {
            site,
            limits,
            encoder: RefCell::new(Encoder::new(build.clone())),
            build,
            buffer: RefCell::default(),
            largest: Cell::default(),
            scrapes: Rc::default(),
            refusals: Rc::default(),
            connections: RefCell::default(),
            settled: Rc::default(),
        };
        Self { shared: Rc::new(shared), listeners: RefCell::default() }
    }

    /// Starts to listen; returns the address with the port that was taken if `address` has port 0. Addresses may
    /// be added and removed at any time, since those of the tailnet come and go.
    ///
    /// # Errors
    /// When the address cannot be taken; the message says what to do.
    pub fn listen(&self, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        let (listener, address) = bind(address).map_err(|source| ListenError { address, source })?;
        let task = spawn_local(Rc::clone(&self.shared).accept(listener)).abort_handle();
        self.listeners.borrow_mut().push((address, task));
        Ok(address)
    }

    /// Stops to listen on an address that [`Self::listen`] returned; connections go on.
    pub fn unlisten(&self, address: SocketAddr) {
        self.listeners.borrow_mut().retain(|(listening, task)| {
            if *listening == address {
                task.abort();
            }
            *listening != address
        });
    }

    /// Addresses that are listened on.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.borrow().iter().map(|(address, _)| *address).collect()
    }

    /// Stops to listen, lets answers under way be taken for up to `patience`, then ends all connections.
    pub async fn stop(&self, patience: Duration) {
        for (_, task) in self.listeners.borrow_mut().drain(..) {
            task.abort();
        }
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            self.shared.connections.borrow_mut().retain(|connection| {
                let answering = connection.state.phase() == Phase::Answer;
                if !answering {
                    connection.task.abort();
                }
                answering
            });
            let empty = self.shared.connections.borrow().is_empty();
            if empty || timeout_at(deadline, self.shared.settled.notified()).await.is_err() {
                break;
            }
        }
        for connection in self.shared.connections.borrow_mut().drain(..) {
            connection.task.abort();
        }
    }
}

impl<S: Site> Drop for Server<S> {
    fn drop(&mut self) {
        for (_, task) in self.listeners.get_mut() {
            task.abort();
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(128)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl<S: Site> Shared<S> {
    async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => Rc::clone(&self).admit(stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: Rc<Self>, stream: TcpStream) {
        if self.connections.borrow().len() >= self.limits.connections && !self.evict() {
            return self.refuse(stream);
        }
        // Answers are written at once, so there is nothing to gather; failing is harmless.
        let _ = stream.set_nodelay(true);
        let state = Rc::new(State::new(self.limits, Rc::clone(&self.settled)));
        let task = spawn_local(Rc::clone(&self).serve(stream, Rc::clone(&state))).abort_handle();
        self.connections.borrow_mut().push(Connection { state, task });
    }

    /// Ends the connection that has been silent longest, those that never finished a head first; false when all
    /// of them are being answered.
    fn evict(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let silent = connections
            .iter()
            .enumerate()
            .filter(|(_, connection)| connection.state.phase() != Phase::Answer)
            .min_by_key(|(_, connection)| {
                (connection.state.phase() == Phase::Idle, connection.state.since())
            });
        let Some((index, _)) = silent else { return false };
        connections.swap_remove(index).task.abort();
        self.site.own_metrics().count_dropped("evicted");
        true
    }

    /// Says why and closes, in a way that lets the client read it: closing with unread input would reset.
    fn refuse(&self, mut stream: TcpStream) {
        self.site.own_metrics().count_dropped("limit");
        let Some(permit) = Permit::take(&self.refusals, REFUSALS) else { return };
        let reason = format!("all {} connections are in use; try again later\n", self.limits.connections);
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{reason}",
            reason.len()
        );
        spawn_local(async move {
            let _permit = permit;
            let tell = async {
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await?;
                let mut sink = [0; 1024];
                while stream.read(&mut sink).await? > 0 {}
                std::io::Result::Ok(())
            };
            // Whether the client listens is its own affair.
            let _ = timeout(REFUSAL_TIME, tell).await;
        });
    }

    async fn serve(self: Rc<Self>, stream: TcpStream, state: Rc<State>) {
        let _registered = Registered { shared: Rc::clone(&self), state: Rc::clone(&state) };
        let io = TokioIo::new(Observed::new(stream, Rc::clone(&state)));
        let service = service_fn(|request| ready(self.answer(&request, &state)));
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(io, service);
        match watch(connection, &state).await {
            Ok(Ok(())) | Err(Phase::Idle) => {}
            Ok(Err(error)) => tracing::debug!(%error, "HTTP connection ended"),
            Err(Phase::Head | Phase::Answer) => self.site.own_metrics().count_dropped("timeout"),
        }
    }

    fn answer(
        &self,
        request: &Request<Incoming>,
        state: &Rc<State>,
    ) -> Result<Response<Payload>, hyper::http::Error> {
        state.answering();
        let routed = route(request.method(), request.uri());
        let handler = routed.as_ref().map_or_else(|refusal| refusal.handler, |route| route.handler());
        let (status, content_type, body) = match routed {
            Ok(route) => self.page(route, request, state),
            Err(refusal) => (refusal.status, TEXT.to_owned(), Bytes::from(format!("{}\n", refusal.reason))),
        };
        self.site.own_metrics().count_request(handler, status.as_u16());
        let mut response = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, content_type)
            .header(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response = response.header(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if handler == Route::Landing.handler() {
            let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
            response = response.header(CONTENT_SECURITY_POLICY, policy);
        }
        response.body(Payload::new(body, Rc::clone(state)))
    }

    fn page(&self, route: Route, request: &Request<Incoming>, state: &State) -> (StatusCode, String, Bytes) {
        let text = |status, line: String| (status, TEXT.to_owned(), Bytes::from(line + "\n"));
        if matches!(route, Route::Ready | Route::Landing) {
            self.site.take_snapshot();
        }
        match route {
            Route::Healthy => text(StatusCode::OK, "ok".to_owned()),
            Route::Ready => match self.site.with_model(pages::readiness) {
                Ok(()) => text(StatusCode::OK, "ready".to_owned()),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
            },
            Route::Landing => {
                let page = self.site.with_model(|model| pages::landing(model, &self.build));
                (StatusCode::OK, HTML.to_owned(), Bytes::from(page))
            }
            Route::Metrics { .. } | Route::CompatNode(_) | Route::CompatTailscale => {
                let Some(permit) = Permit::take(&self.scrapes, self.limits.scrapes) else {
                    let limit = self.limits.scrapes;
                    let reason = format!("{limit} scrapes are not taken yet, which is the limit");
                    return text(StatusCode::SERVICE_UNAVAILABLE, reason);
                };
                state.hold(permit);
                let (content_type, body) = self.exposition(route, request);
                (StatusCode::OK, content_type, body)
            }
        }
    }

    fn exposition(&self, route: Route, request: &Request<Incoming>) -> (String, Bytes) {
        let mut buffer = self.buffer.borrow_mut();
        // Takes back the memory of the last answer if it has been taken by its client.
        buffer.reserve(self.largest.get());
        let mut representation = Representation::CLASSIC;
        match route {
            Route::Metrics { program_statistics } => {
                if program_statistics {
                    self.site.keep_program_statistics(PROGRAM_STATISTICS);
                }
                representation = negotiate(accept(request).as_deref());
                self.site.take_snapshot();
                self.site.with_model(|model| {
                    let mut encoder = self.encoder.borrow_mut();
                    let own = self.site.own_metrics();
                    render(&mut encoder, model, own, Instant::now(), representation.format, &mut buffer);
                });
            }
            Route::CompatNode(collectors) => {
                self.site.read_node(collectors);
                self.site.with_model(|model| compat::node::render(&model.node, &mut buffer));
            }
            _ => self.site.with_model(|model| compat::tailscale::render(&model.tailnet, &mut buffer)),
        }
        self.largest.set(self.largest.get().max(buffer.len()));
        (representation.content_type(), buffer.split().freeze())
    }
}

/// All Accept headers as one list (RFC 9110, section 5.2).
fn accept<B>(request: &Request<B>) -> Option<String> {
    let values: Vec<_> =
        request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// Takes a connection off the list when its task ends, however it ends.
struct Registered<S> {
    shared: Rc<Shared<S>>,
    state: Rc<State>,
}

impl<S> Drop for Registered<S> {
    fn drop(&mut self) {
        let mut connections = self.shared.connections.borrow_mut();
        connections.retain(|connection| !Rc::ptr_eq(&connection.state, &self.state));
        self.shared.settled.notify_one();
    }
}
