//! What generators and server say to each other.

use std::io::{self, Read};

/// The head of every TCP exchange: bytes that follow, bytes wanted back. 16 bytes, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TcpRequest {
    pub(super) upload: u64,
    pub(super) download: u64,
}

impl TcpRequest {
    pub(super) const LEN: usize = 16;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.upload.to_be_bytes());
        bytes[8..].copy_from_slice(&self.download.to_be_bytes());
        bytes
    }

    /// `None` when the client closed instead of asking again.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut upload = [0; 8];
        match stream.read_exact(&mut upload) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            outcome => outcome?,
        }
        let mut download = [0; 8];
        stream.read_exact(&mut download)?;
        Ok(Some(Self { upload: u64::from_be_bytes(upload), download: u64::from_be_bytes(download) }))
    }
}

/// What a datagram asks of the server; its first byte says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UdpRequest {
    /// Be counted.
    Sink,
    /// Come back.
    Echo,
    /// Send many datagrams.
    Flood { datagrams: u32, payload: usize },
}

impl UdpRequest {
    /// Writes the request into the first bytes of a payload; a shorter payload cuts it off, so floods need 9 bytes.
    pub(super) fn fill(self, payload: &mut [u8]) {
        let mut head = [0; 9];
        match self {
            Self::Sink => {}
            Self::Echo => head[0] = 1,
            Self::Flood { datagrams, payload } => {
                head[0] = 2;
                head[1..5].copy_from_slice(&datagrams.to_be_bytes());
                head[5..].copy_from_slice(&(payload as u32).to_be_bytes());
            }
        }
        let len = head.len().min(payload.len());
        payload[..len].copy_from_slice(&head[..len]);
    }

    pub(super) fn parse(payload: &[u8]) -> Self {
        let word = |at: usize| {
            payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
        };
        match payload.first() {
            Some(1) => Self::Echo,
            Some(2) => Self::Flood { datagrams: word(1), payload: word(5) as usize },
            _ => Self::Sink,
        }
    }
}
