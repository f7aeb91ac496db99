//! Whether tailscaled answers.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::Finding;

/// Longer than a busy tailscaled takes to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The answer about this node alone is a few kilobytes.
const LIMIT: u64 = 1 << 20;

/// What matters here of tailscaled's `ipnstate.Status`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeStatus {
    #[serde(default)]
    version: String,
    #[serde(default)]
    backend_state: String,
    #[serde(default, rename = "TUN")]
    tun: bool,
}

pub(super) fn localapi(socket: &Path) -> Finding {
    let answer = match ask(socket) {
        Ok(answer) => answer,
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => {
                    "start tailscaled, or name its socket with --tailscale.socket".to_owned()
                }
                io::ErrorKind::ConnectionRefused => "start tailscaled: this socket is a leftover".to_owned(),
                io::ErrorKind::PermissionDenied => {
                    "let this user reach the socket: its directory must be searchable".to_owned()
                }
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    "tailscaled hangs: look at its log".to_owned()
                }
                _ => "see the reason".to_owned(),
            };
            return Finding::fail("LocalAPI", format!("{}: {error}", socket.display()), remedy);
        }
    };
    match parse(&answer) {
        Ok(status) if !status.tun => Finding::fail(
            "LocalAPI",
            format!(
                "tailscaled {} runs in userspace-networking mode: there is no tunnel device",
                status.version
            ),
            "start tailscaled without --tun=userspace-networking",
        ),
        Ok(status) if status.backend_state != "Running" => Finding::warn(
            "LocalAPI",
            format!("tailscaled {} is in state {}", status.version, status.backend_state),
            "run tailscale up; the agent waits",
        ),
        Ok(status) => Finding::ok("LocalAPI", format!("tailscaled {}, running", status.version)),
        Err(reason) => Finding::fail(
            "LocalAPI",
            format!("{}: {reason}", socket.display()),
            "this does not look like tailscaled: check --tailscale.socket",
        ),
    }
}

/// Asks for the node's own status; HTTP/1.0, so that the answer comes whole and ends with the connection.
fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream
        .write_all(b"GET /localapi/v0/status?peers=false HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LIMIT).read_to_end(&mut answer)?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Result<NodeStatus, String> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no HTTP answer")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let line = head.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("200") => {}
        _ => return Err(format!("answered {line:?}")),
    }
    serde_json::from_slice(&answer[end + 4..]).map_err(|error| format!("answered no status: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::Status;
    use super::*;

    /// Asks a server that says `answer`.
    fn asked(answer: &'static [u8]) -> Finding {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tailscaled.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            // The checker may hang up on an answer that is too long.
            let _ = stream.write_all(answer);
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let finding = localapi(&path);
        let request = server.join().unwrap();
        assert!(request.contains("Host: local-tailscaled.sock\r\n"), "{request}");
        finding
    }

    #[test]
    fn tailscaled_is_judged_by_its_answer() {
        let running = asked(
            b"HTTP/1.0 200 OK\r\nTailscale-Version: 1.102.3\r\n\r\n\
              {\"Version\":\"1.102.3\",\"TUN\":true,\"BackendState\":\"Running\",\"Peer\":null}",
        );
        assert_eq!((running.status, running.found.as_str()), (Status::Ok, "tailscaled 1.102.3, running"));
        let stopped =
            asked(b"HTTP/1.0 200 OK\r\n\r\n{\"Version\":\"1\",\"TUN\":true,\"BackendState\":\"Stopped\"}");
        assert_eq!(stopped.status, Status::Warn);
        let userspace = asked(b"HTTP/1.0 200 OK\r\n\r\n{\"TUN\":false,\"BackendState\":\"Running\"}");
        assert_eq!(userspace.status, Status::Fail);
        for nonsense in [&b""[..], b"HTTP/1.0 403 Forbidden\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n{\"TUN\":"] {
            assert_eq!(asked(nonsense).status, Status::Fail, "{nonsense:?}");
        }
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        static ENDLESS: [u8; 4 << 20] = [b'x'; 4 << 20];
        assert_eq!(asked(&ENDLESS).status, Status::Fail);
    }

    #[test]
    fn a_missing_or_dead_socket_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tailscaled.sock");
        assert!(localapi(&path).remedy.unwrap().contains("--tailscale.socket"));
        drop(UnixListener::bind(&path).unwrap());
        assert!(localapi(&path).remedy.unwrap().contains("leftover"));
    }
}
