//! A small HTTP/1.1 client for LocalAPIs and for metrics inside namespaces.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// The host name that tailscaled answers to.
pub const LOCALAPI_HOST: &str = "local-tailscaled.sock";
/// A server that says nothing for so long has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, chunks put together.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The body as text, wrong bytes replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Asks a LocalAPI; `target` is path and query.
pub fn localapi(socket: &Path, target: &str) -> io::Result<Answer> {
    localapi_as(socket, target, LOCALAPI_HOST)
}

/// Asks a LocalAPI under another host name.
pub fn localapi_as(socket: &Path, target: &str, host: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    get(stream, host, target)
}

/// Asks an HTTP server over TCP.
pub fn http(server: SocketAddr, target: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    get(stream, &server.to_string(), target)
}

/// Follows an IPN bus, one message at a time.
#[derive(Debug)]
pub struct BusReader(BufReader<UnixStream>);

impl BusReader {
    /// Starts to watch.
    pub fn watch(socket: &Path, mask: u64) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        request(&mut stream, LOCALAPI_HOST, &format!("/localapi/v0/watch-ipn-bus?mask={mask}"), false)?;
        let mut reader = BufReader::new(stream);
        match head(&mut reader)?.0 {
            200 => Ok(Self(reader)),
            status => Err(io::Error::other(format!("watch-ipn-bus answered {status}"))),
        }
    }

    /// The next message; `None` at the end of the stream.
    pub fn next_message(&mut self) -> io::Result<Option<Value>> {
        let Some(chunk) = chunk(&mut self.0)? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&chunk)?))
    }
}

fn get(mut stream: impl Read + Write, host: &str, target: &str) -> io::Result<Answer> {
    request(&mut stream, host, target, true)?;
    let mut reader = BufReader::new(stream);
    let (status, headers) = head(&mut reader)?;
    let mut answer = Answer { status, headers, body: Vec::new() };
    if answer.header("transfer-encoding") == Some("chunked") {
        while let Some(part) = chunk(&mut reader)? {
            answer.body.extend(part);
        }
    } else if let Some(len) = answer.header("content-length").and_then(|len| len.parse().ok()) {
        reader.take(len).read_to_end(&mut answer.body)?;
    } else {
        reader.read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

fn request(stream: &mut impl Write, host: &str, target: &str, close: bool) -> io::Result<()> {
    let connection = if close { "Connection: close\r\n" } else { "" };
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{connection}\r\n").as_bytes())
}

fn head(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok((status, headers)) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// One chunk; `None` for the last one and at the end of the stream.
fn chunk(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let len = usize::from_str_radix(line.trim_end(), 16)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut data = vec![0; len];
    reader.read_exact(&mut data)?;
    reader.read_line(&mut line)?;
    Ok((len > 0).then_some(data))
}
