//! TCP sockets of this host itself; what it forwards has none.

use std::sync::Arc;

use crate::model::tailnet::Peer;

/// TCP sockets of this network namespace, by sock_diag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TcpSockets {
    /// How many there are in each state.
    pub states: TcpStates,
    /// Open connections with each peer that has any, ordered by peer id.
    pub peers: Vec<(Arc<Peer>, Connections)>,
    /// tailscaled's own connections, to DERP and control servers mostly; `None` without the right to see marks.
    pub tailscaled: Option<Connections>,
}

/// Sockets by state (RFC 9293, 3.3.2). TIME-WAIT is in `SocketUse`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpStates {
    /// `None` when the kernel does not say how many connections there are.
    pub established: Option<u64>,
    /// Tries to connect.
    pub syn_sent: u64,
    /// Was asked to connect, and waits for the last segment of the handshake.
    pub syn_recv: u64,
    /// Has closed, and waits for that to be acknowledged.
    pub fin_wait1: u64,
    /// Has closed, and waits for the other end to close.
    pub fin_wait2: u64,
    /// The other end has closed, the program here has not.
    pub close_wait: u64,
    /// Both have closed, the last acknowledgement is missing.
    pub last_ack: u64,
    /// Both have closed at the same time.
    pub closing: u64,
    /// Waits for connections.
    pub listen: u64,
}

impl TcpStates {
    /// Label values and counts.
    #[must_use]
    pub const fn counts(&self) -> [(&'static str, Option<u64>); 9] {
        [
            ("established", self.established),
            ("syn_sent", Some(self.syn_sent)),
            ("syn_recv", Some(self.syn_recv)),
            ("fin_wait1", Some(self.fin_wait1)),
            ("fin_wait2", Some(self.fin_wait2)),
            ("close_wait", Some(self.close_wait)),
            ("last_ack", Some(self.last_ack)),
            ("closing", Some(self.closing)),
            ("listen", Some(self.listen)),
        ]
    }
}

/// Connections that are open now (established, or closed by the other end only), taken together. Sums are over the
/// life of each connection and go down when one is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Connections {
    /// How many there are.
    pub open: u64,
    /// Connections that wait for an answer to their first segment; not in any other figure.
    pub connecting: u64,
    /// Round-trip times; `None` while no connection has measured one.
    pub round_trip: Option<RoundTrip>,
    /// Segments sent and not acknowledged yet.
    pub unacknowledged_segments: u64,
    /// Segments that are taken for lost now.
    pub lost_segments: u64,
    /// Segments sent again.
    pub retransmitted_segments: u64,
    /// Segments with data that were sent, those sent again included.
    pub transmitted_segments: Option<u64>,
    /// Bytes that may be on their way at once (congestion windows).
    pub congestion_window_bytes: u64,
    /// Bytes a second that were delivered when it was last measured.
    pub delivery_rate: Option<u64>,
    /// Bytes that programs wrote and that were not sent yet.
    pub unsent_bytes: Option<u64>,
    /// Bytes that the other end acknowledged.
    pub acknowledged_bytes: Option<u64>,
    /// Bytes received.
    pub received_bytes: Option<u64>,
    /// Seconds during which there was something to send.
    pub busy_seconds: Option<f64>,
    /// The part of it in which the other end's receive window was full.
    pub receiver_limited_seconds: Option<f64>,
    /// The part of it in which this host's send buffer was too small.
    pub buffer_limited_seconds: Option<f64>,
}

/// Round-trip times of several connections, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoundTrip {
    /// Mean of the smoothed times.
    pub mean: f64,
    /// Highest smoothed time.
    pub max: f64,
    /// Lowest time of all within the last minutes; `None` before the kernel kept it.
    pub min: Option<f64>,
    /// Mean of the variations.
    pub variation: f64,
}
