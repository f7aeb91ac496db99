//! A small HTTP/1.1 client for tests: one GET a connection, over TCP or a unix socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a server may take over each read, write and connect.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer larger than this is refused, in bytes.
const LARGEST: u64 = 256 << 20;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server could not be reached, or the connection broke.
    #[error("GET {target} from {server}")]
    Connection {
        /// The path and query.
        target: String,
        /// The server's address or socket.
        server: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The answer was not HTTP.
    #[error("GET {target} from {server}: malformed {part}")]
    Malformed {
        /// The path and query.
        target: String,
        /// The server's address or socket.
        server: String,
        /// The part of the answer that could not be read.
        part: &'static str,
    },
}

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header names in lower case with their values, in order.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// GETs `target` (path and query) over TCP from the network namespace of the calling thread.
pub fn get(server: SocketAddr, target: &str) -> Result<Response, HttpError> {
    get_with(server, target, &[])
}

/// As [`get`], with further request headers.
pub fn get_with(server: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Response, HttpError> {
    let request = Request { target, host: &server.to_string(), server: server.to_string(), headers };
    let connect = || {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    request.send(connect)
}

/// GETs `target` (path and query) from a unix socket; `host` goes into the Host header.
pub fn get_unix(socket: &Path, host: &str, target: &str) -> Result<Response, HttpError> {
    let request = Request { target, host, server: socket.display().to_string(), headers: &[] };
    let connect = || {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    request.send(connect)
}

/// Percent-encodes a query value.
#[must_use]
pub fn encode_query(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

struct Request<'a> {
    target: &'a str,
    host: &'a str,
    /// For errors.
    server: String,
    headers: &'a [(&'a str, &'a str)],
}

impl Request<'_> {
    fn send<S: Read + Write>(&self, connect: impl FnOnce() -> io::Result<S>) -> Result<Response, HttpError> {
        let mut stream = connect().map_err(|source| self.broken(source))?;
        let mut head =
            format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.target, self.host);
        for (name, value) in self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).map_err(|source| self.broken(source))?;
        self.receive(&mut BufReader::new(stream))
    }

    fn receive(&self, stream: &mut impl BufRead) -> Result<Response, HttpError> {
        let line = self.line(stream)?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| self.malformed("status line"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line(stream)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| self.malformed("header"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if response.header("transfer-encoding") == Some("chunked") {
            response.body = self.chunks(stream)?;
        } else {
            let length = response.header("content-length").map(str::parse).transpose();
            let length: Option<u64> = length.map_err(|_| self.malformed("content-length"))?;
            let limit = length.unwrap_or(LARGEST).min(LARGEST);
            stream.take(limit).read_to_end(&mut response.body).map_err(|source| self.broken(source))?;
            if length.is_some_and(|length| length != response.body.len() as u64) {
                return Err(self.malformed("body: it ends early"));
            }
        }
        Ok(response)
    }

    fn chunks(&self, stream: &mut impl BufRead) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        loop {
            let line = self.line(stream)?;
            let size = line.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(size.trim(), 16).map_err(|_| self.malformed("chunk size"))?;
            let before = body.len() as u64;
            if before + size > LARGEST {
                return Err(self.malformed("body: it is too large"));
            }
            stream.take(size).read_to_end(&mut body).map_err(|source| self.broken(source))?;
            if body.len() as u64 != before + size || !self.line(stream)?.is_empty() {
                return Err(self.malformed("chunk"));
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn line(&self, stream: &mut impl BufRead) -> Result<String, HttpError> {
        let mut line = String::new();
        stream.take(64 << 10).read_line(&mut line).map_err(|source| self.broken(source))?;
        let ended = line.strip_suffix("\r\n").map(str::to_owned);
        ended.ok_or_else(|| self.malformed("line"))
    }

    fn broken(&self, source: io::Error) -> HttpError {
        let (target, server) = (self.target.to_owned(), self.server.clone());
        HttpError::Connection { target, server, source }
    }

    fn malformed(&self, part: &'static str) -> HttpError {
        let (target, server) = (self.target.to_owned(), self.server.clone());
        HttpError::Malformed { target, server, part }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Serves `answer` to one client and returns what the client made of it.
    fn answered(answer: &'static str) -> Result<Response, HttpError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let serve = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let response = get_with(server, "/metrics?a=b", &[("Accept", "text/plain")]);
        let request = serve.join().unwrap();
        assert!(request.starts_with("GET /metrics?a=b HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nAccept: text/plain\r\n"), "{request}");
        response
    }

    #[test]
    fn bodies_by_length_by_chunks_and_by_end() {
        let plain = answered("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Y: z\r\n\r\nhello").unwrap();
        assert_eq!((plain.status, plain.text().as_str(), plain.header("x-y")), (200, "hello", Some("z")));
        let chunked = answered(
            "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n",
        );
        assert_eq!(
            chunked.map(|response| (response.status, response.text())).unwrap(),
            (404, "hello".into())
        );
        assert_eq!(answered("HTTP/1.0 200 OK\r\n\r\nhello").unwrap().text(), "hello");
    }

    #[test]
    fn cut_and_foreign_answers_are_errors() {
        for answer in [
            "",
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        ] {
            assert!(matches!(answered(answer), Err(HttpError::Malformed { .. })), "{answer:?}");
        }
    }

    #[test]
    fn query_values_survive() {
        assert_eq!(encode_query(r#"rate(x{a="b"}[1m])"#), "rate%28x%7Ba%3D%22b%22%7D%5B1m%5D%29");
    }
}
