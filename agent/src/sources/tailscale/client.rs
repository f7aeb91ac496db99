//! HTTP/1.1 over tailscaled's unix socket (ipn/localapi/localapi.go), with a bound on time and size everywhere.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::TailscaleConfig;
use super::user_metrics::Bad;
use crate::sources::clean;

/// The only name tailscaled answers to (`apitype.LocalAPIHost`).
const LOCAL_API_HOST: &str = "local-tailscaled.sock";
/// hyper's read buffer: bounds the response head.
const HEAD_LIMIT: usize = 64 << 10;
/// How much of an error's body is shown.
const EXCERPT_LIMIT: usize = 4 << 10;
/// From so many bytes on parsing takes a millisecond or more.
const LARGE: usize = 256 << 10;

/// What went wrong between us and tailscaled.
#[derive(Debug, thiserror::Error)]
pub enum LocalApiError {
    /// Nobody listens on the socket, or we may not connect.
    #[error("cannot connect to tailscaled at {socket}: {source}")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// tailscaled hangs, or is slower than anybody would wait.
    #[error("tailscaled did not {step} for {path} within {limit:?}")]
    Timeout {
        /// Request.
        path: &'static str,
        /// What it should have done.
        step: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("tailscaled's answer to {path} broke off: {source}")]
    Http {
        /// Request.
        path: &'static str,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// An answer other than 200.
    #[error("tailscaled refused {path} with HTTP status {status}: {body}")]
    Refused {
        /// Request.
        path: &'static str,
        /// HTTP status code.
        status: u16,
        /// Begin of the body, cleaned.
        body: String,
    },
    /// More than we are ready to hold in memory.
    #[error("tailscaled's answer to {path} has more than {limit} bytes")]
    TooLong {
        /// Request.
        path: &'static str,
        /// The bound.
        limit: usize,
    },
    /// Not JSON, truncated JSON, or JSON of another shape.
    #[error("tailscaled's answer to {path} is not the JSON expected: {source}")]
    Json {
        /// Request.
        path: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Not metrics as tailscaled writes them.
    #[error("tailscaled's answer to {path} is not passed on: {bad}")]
    Text {
        /// Request.
        path: &'static str,
        /// Where and why.
        #[source]
        bad: Bad,
    },
    /// The stream ended.
    #[error("tailscaled ended {path}")]
    Ended {
        /// Request.
        path: &'static str,
    },
}

/// An answer whose body is still to come, with the task that drives its connection.
struct Exchange {
    path: &'static str,
    response: Response<Incoming>,
    _driver: Driver,
}

/// Sends a GET for `path` + `query` and waits for the head of the answer.
async fn get(config: &TailscaleConfig, path: &'static str, query: &str) -> Result<Exchange, LocalApiError> {
    let limit = config.connect_timeout;
    let stream = timeout(limit, UnixStream::connect(&config.socket))
        .await
        .map_err(|_| LocalApiError::Timeout { path, step: "accept a connection", limit })?
        .map_err(|source| LocalApiError::Connect { socket: config.socket.clone(), source })?;
    let http = |source| LocalApiError::Http { path, source };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_LIMIT)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(http)?;
    // Its error reaches us through the response.
    let driver = Driver(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let mut request = Request::new(Empty::new());
    if let Ok(uri) = format!("{path}{query}").parse() {
        *request.uri_mut() = uri;
    }
    request.headers_mut().insert(HOST, hyper::header::HeaderValue::from_static(LOCAL_API_HOST));
    let limit = config.response_timeout;
    let response = timeout(limit, sender.send_request(request))
        .await
        .map_err(|_| LocalApiError::Timeout { path, step: "begin an answer", limit })?
        .map_err(http)?;
    let mut exchange = Exchange { path, response, _driver: driver };
    let status = exchange.response.status().as_u16();
    if status == 200 {
        return Ok(exchange);
    }
    let body = exchange.body(config.body_timeout, EXCERPT_LIMIT).await.unwrap_or_default();
    Err(LocalApiError::Refused { path, status, body: clean::text(&clean::lossy(&body), "no reason given") })
}

impl Exchange {
    /// The whole body, at most `limit` bytes.
    async fn body(&mut self, time: Duration, limit: usize) -> Result<Vec<u8>, LocalApiError> {
        let path = self.path;
        let read = async {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk().await? {
                if body.len() + chunk.len() > limit {
                    return Err(LocalApiError::TooLong { path, limit });
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body)
        };
        timeout(time, read).await.unwrap_or(Err(LocalApiError::Timeout {
            path,
            step: "finish the answer",
            limit: time,
        }))
    }

    /// Next piece of the body; `None` at its end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, LocalApiError> {
        while let Some(frame) = self.response.body_mut().frame().await {
            let frame = frame.map_err(|source| LocalApiError::Http { path: self.path, source })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// GETs `path` and reads its body, at most `limit` bytes.
pub(super) async fn get_bytes(
    config: &TailscaleConfig,
    path: &'static str,
    limit: usize,
) -> Result<Vec<u8>, LocalApiError> {
    get(config, path, "").await?.body(config.body_timeout, limit).await
}

/// GETs `path` and reads its body as JSON.
pub(super) async fn get_json<T: DeserializeOwned + Send + 'static>(
    config: &TailscaleConfig,
    path: &'static str,
) -> Result<T, LocalApiError> {
    parse(path, get_bytes(config, path, config.body_limit).await?).await
}

/// Parses, beyond [`LARGE`] on another thread, so that nobody here waits for it.
async fn parse<T: DeserializeOwned + Send + 'static>(
    path: &'static str,
    bytes: Vec<u8>,
) -> Result<T, LocalApiError> {
    if bytes.len() < LARGE {
        return from_json(path, &bytes);
    }
    // Fails only while the runtime shuts down.
    let parsed = tokio::task::spawn_blocking(move || from_json(path, &bytes)).await;
    parsed.unwrap_or(Err(LocalApiError::Ended { path }))
}

/// JSON from bytes that may not be UTF-8.
fn from_json<T: DeserializeOwned>(path: &'static str, bytes: &[u8]) -> Result<T, LocalApiError> {
    serde_json::from_str(&clean::lossy(bytes)).map_err(|source| LocalApiError::Json { path, source })
}

/// A stream of JSON documents, one a line.
pub(super) struct Lines {
    exchange: Exchange,
    buffer: Vec<u8>,
    limit: usize,
    line_timeout: Duration,
}

impl Lines {
    /// GETs `path` + `query`.
    pub(super) async fn open(
        config: &TailscaleConfig,
        path: &'static str,
        query: &str,
    ) -> Result<Self, LocalApiError> {
        let exchange = get(config, path, query).await?;
        Ok(Self { exchange, buffer: Vec::new(), limit: config.line_limit, line_timeout: config.body_timeout })
    }

    /// The next document. Waits for its first byte for ever, unless `prompt`; for the rest of the line only as
    /// long as for a body.
    pub(super) async fn next<T: DeserializeOwned + Send + 'static>(
        &mut self,
        prompt: bool,
    ) -> Result<T, LocalApiError> {
        if self.buffer.is_empty() && !prompt {
            self.fill().await?;
        }
        let path = self.exchange.path;
        let limit = self.line_timeout;
        let end = timeout(limit, self.end_of_line()).await.map_err(|_| LocalApiError::Timeout {
            path,
            step: "finish a line",
            limit,
        })??;
        let rest = self.buffer.split_off(end + 1);
        let line = std::mem::replace(&mut self.buffer, rest);
        parse(path, line).await
    }

    /// Reads until the buffer holds a newline and says where.
    async fn end_of_line(&mut self) -> Result<usize, LocalApiError> {
        let mut searched = 0;
        loop {
            let fresh = self.buffer.get(searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                return Ok(searched + at);
            }
            searched = self.buffer.len();
            if searched > self.limit {
                return Err(LocalApiError::TooLong { path: self.exchange.path, limit: self.limit });
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), LocalApiError> {
        let chunk = self.exchange.chunk().await?.ok_or(LocalApiError::Ended { path: self.exchange.path })?;
        self.buffer.extend_from_slice(&chunk);
        Ok(())
    }
}

/// The task that drives a connection; ends with whoever waits for the answer.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
