//! As much HTTP/1.1 as a unix socket between two programs needs.

use std::io::{self, Read, Write};

use serde_json::Value;

/// Longest request head; tailscaled's library has 1 MiB, nobody sends that much.
const MAX_HEAD: usize = 64 << 10;
/// What tailscaled 1.102.3 says about itself.
pub(super) const VERSION: &str = "1.102.3-ERR-BuildInfo";
const CAPABILITY: &str = "142";

/// A request without its body, which none of the paths served here reads.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) close: bool,
    query: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// Reads the next request; `None` at the end of the connection.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() > MAX_HEAD {
                return Err(invalid());
            }
            if stream.read(&mut byte)? == 0 {
                return if head.is_empty() { Ok(None) } else { Err(invalid()) };
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).map_err(|_| invalid())?;
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or("").split(' ');
        let (Some(method), Some(target)) = (first.next(), first.next()) else { return Err(invalid()) };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let request = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            close: headers.iter().any(|(name, value)| name == "connection" && value == "close"),
            query: query.to_owned(),
            headers,
        };
        let body: usize = request.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
        io::copy(&mut stream.take(body as u64), &mut io::sink())?;
        Ok(Some(request))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(own, _)| *own == name))
            .map(|p| p.1)
    }
}

/// An answer with a length.
#[derive(Debug)]
pub(super) struct Response {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Response {
    pub(super) fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, body }
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
    }

    pub(super) fn json(value: &Value) -> Self {
        // Serialising a Value cannot fail: its keys are strings.
        let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
        body.push(b'\n');
        Self::new(200, "application/json", body)
    }

    pub(super) fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let head =
            format!("{}Content-Length: {}\r\n\r\n", head(self.status, self.content_type), self.body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)
    }
}

/// The head of an answer whose end is the end of the connection or a last chunk.
pub(super) fn head(status: u16, content_type: &str) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Internal Server Error",
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nTailscale-Cap: {CAPABILITY}\r\nTailscale-Version: {VERSION}\r\n"
    )
}

/// One chunk of a chunked answer.
pub(super) fn write_chunk(stream: &mut impl Write, data: &[u8]) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n", data.len()).as_bytes())?;
    stream.write_all(data)?;
    stream.write_all(b"\r\n")
}
