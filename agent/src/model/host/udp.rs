//! UDP sockets of tailscaled.

/// tailscaled's UDP sockets of one address family that wait for datagrams of anybody, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpSockets {
    /// How many there are; 0 also where tailscaled may not mark its sockets, by which they are known.
    pub sockets: u64,
    /// What waits for it, and was lost; `None` until a socket of either family was seen.
    pub buffers: Option<UdpBuffers>,
}

/// What UDP sockets hold, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpBuffers {
    /// Bytes of memory that received datagrams take until tailscaled reads them.
    pub receive_queue_bytes: u64,
    /// Bytes of memory that they may take (`SO_RCVBUF`).
    pub receive_buffer_bytes: u64,
    /// Bytes of memory that datagrams to be sent take.
    pub transmit_queue_bytes: u64,
    /// Bytes of memory that they may take (`SO_SNDBUF`).
    pub transmit_buffer_bytes: u64,
    /// Datagrams dropped because the receive buffer was full, since the agent first looked.
    pub drops: u64,
}

/// By address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TailscaledUdp {
    /// Sockets bound to IPv4 addresses.
    pub ipv4: UdpSockets,
    /// Sockets bound to IPv6 addresses.
    pub ipv6: UdpSockets,
}
