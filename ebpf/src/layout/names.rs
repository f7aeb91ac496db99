//! What the object calls its maps, programs and constants.

/// Names of the maps in the object.
pub mod maps {
    /// `ARRAY` of [`crate::layout::Line`], mmapable.
    pub const COUNTERS: &str = "COUNTERS";
    /// `ARRAY` of [`crate::layout::Windows`], mmapable, two rows more than slots: the tunnel as a whole, and drops.
    pub const WINDOWS: &str = "WINDOWS";
    /// `ARRAY` of [`crate::layout::Tcp`], mmapable.
    pub const TCP: &str = "TCP";
    /// `ARRAY` of one [`crate::layout::Control`], mmapable.
    pub const CONTROL: &str = "CONTROL";
    /// `ARRAY` of one [`crate::layout::Health`], mmapable.
    pub const HEALTH: &str = "HEALTH";
    /// `ARRAY` of [`crate::layout::UnderlayLine`], mmapable.
    pub const UNDERLAY_COUNTERS: &str = "UNDERLAY_COUNTERS";
    /// `ARRAY` of one [`crate::layout::Underlay`], mmapable.
    pub const UNDERLAY: &str = "UNDERLAY";
    /// `ARRAY` of [`crate::layout::DropRow`], mmapable.
    pub const DROPS: &str = "DROPS";
    /// `HASH` index of a device → row of DROPS (`u32`).
    pub const DROP_DEVICES: &str = "DROP_DEVICES";
    /// `ARRAY` of two [`crate::layout::Ports`], mmapable.
    pub const PORTS: &str = "PORTS";
    /// `HASH` IPv4 address → slot (`u32`).
    pub const PEERS_V4: &str = "PEERS_V4";
    /// `HASH` IPv6 address → slot.
    pub const PEERS_V6: &str = "PEERS_V6";
    /// `LPM_TRIE` of the peers' AllowedIPs wider than one address, without /0 → slot.
    pub const PREFIXES_V4: &str = "PREFIXES_V4";
    /// The same for IPv6.
    pub const PREFIXES_V6: &str = "PREFIXES_V6";
    /// `LPM_TRIE` of this host's addresses (local) and advertised routes (subnet) → class (`u32`).
    pub const ROUTES_V4: &str = "ROUTES_V4";
    /// The same for IPv6.
    pub const ROUTES_V6: &str = "ROUTES_V6";
    /// `LRU_HASH` [`crate::layout::FlowKey`] → [`crate::layout::Handshake`].
    pub const HANDSHAKES: &str = "HANDSHAKES";
    /// `LRU_HASH` [`crate::layout::FlowKey`] → [`crate::layout::Connection`].
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// `ARRAY` of [`crate::layout::PeerUnderlayLine`], mmapable; rows as in [`COUNTERS`].
    pub const PEER_UNDERLAY: &str = "PEER_UNDERLAY";
    /// `ARRAY` of [`crate::layout::WireGuard`], mmapable; a row a slot.
    pub const WIREGUARD: &str = "WIREGUARD";
    /// `ARRAY` of one [`crate::layout::Messages`], mmapable.
    pub const MESSAGES: &str = "MESSAGES";
    /// `ARRAY` of [`crate::layout::SessionSet`], mmapable: which rows of [`SESSIONS`] are in use, by whom.
    pub const SESSION_SETS: &str = "SESSION_SETS";
    /// `ARRAY` of [`crate::layout::Session`], mmapable; row `set * SESSION_WAYS + way`.
    pub const SESSIONS: &str = "SESSIONS";
    /// `HASH` [`crate::layout::Endpoint`] → slot (`u32`); written by the agent.
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// `LRU_HASH` [`crate::layout::Endpoint`] → slot: what a disco key or a session in use has proven.
    pub const LEARNED_ENDPOINTS: &str = "LEARNED_ENDPOINTS";
    /// `HASH` disco public key (32 bytes) → slot; written by the agent.
    pub const DISCO_KEYS: &str = "DISCO_KEYS";
    /// `LRU_HASH` [`crate::layout::Endpoint`] → [`crate::layout::Disco`].
    pub const DISCO: &str = "DISCO";
    /// `ARRAY` of one [`crate::layout::Watched`], mmapable.
    pub const WATCHED: &str = "WATCHED";
    /// `ARRAY` of one [`crate::layout::Found`], mmapable.
    pub const FOUND: &str = "FOUND";
    /// `ARRAY` of `u64`, a row a CPU: bytes from the address of a variable of each CPU to that of this one's.
    pub const CPU_OFFSETS: &str = "CPU_OFFSETS";
    /// `ARRAY` of [`crate::layout::Sample`], mmapable.
    pub const SAMPLES: &str = "SAMPLES";
    /// `ARRAY` of [`crate::layout::CpuSample`], mmapable.
    pub const CPU_SAMPLES: &str = "CPU_SAMPLES";
}

/// Names of the programs in the object.
pub mod programs {
    /// Classifier on the tunnel's ingress: packets from peers.
    pub const TUNNEL_INGRESS: &str = "tunnel_ingress";
    /// Classifier on the tunnel's egress: packets to peers.
    pub const TUNNEL_EGRESS: &str = "tunnel_egress";
    /// Classifier on the ingress of underlay interfaces: what arrives for tailscaled.
    pub const UNDERLAY_INGRESS: &str = "underlay_ingress";
    /// Classifier on the egress of underlay interfaces: what tailscaled sends, and what is forwarded.
    pub const UNDERLAY_EGRESS: &str = "underlay_egress";
    /// Raw tracepoint `kfree_skb`: dropped packets.
    pub const DROPS: &str = "drops";
    /// Perf event: takes a sample.
    pub const SAMPLING: &str = "sampling";
    /// Classifier that is attached nowhere: run by the agent, it finds what is to be sampled.
    pub const SAMPLING_FIND: &str = "sampling_find";
}

/// Names of the constants that the loader sets before verification.
pub mod globals {
    /// `u32`, power of two: shards of a slot; a CPU counts into shard `cpu & (SHARDS - 1)`.
    pub const SHARDS: &str = "SHARDS";
    /// `u32`: slots, slot 0 included; the tunnel's row in WINDOWS.
    pub const SLOTS: &str = "SLOTS";
    /// `u32`, power of two: rows of [`super::maps::SESSION_SETS`].
    pub const SETS: &str = "SETS";
    /// `u32`: non-zero where the kernel has the helper `bpf_loop`, since 5.17. Without it, long super-packets are not
    /// read to their end, and long gaps of a session not judged.
    pub const HAS_LOOP: &str = "HAS_LOOP";
    /// `u32`: arguments of the tracepoint `kfree_skb`. Since 5.17 the third is the reason, since 6.11 the fourth the
    /// socket that should have got the packet.
    pub const DROP_ARGUMENTS: &str = "DROP_ARGUMENTS";
    /// `u32`: offset of `dev` in `struct sk_buff`. This and the following are the running kernel's.
    pub const SKB_DEVICE: &str = "SKB_DEVICE";
    /// `u32`: offset of `sk` in `struct sk_buff`.
    pub const SKB_SOCKET: &str = "SKB_SOCKET";
    /// `u32`: offset of `ifindex` in `struct net_device`.
    pub const DEVICE_INDEX: &str = "DEVICE_INDEX";
    /// `u32`: offset of `nd_net` in `struct net_device`.
    pub const DEVICE_NAMESPACE: &str = "DEVICE_NAMESPACE";
    /// `u32`: offset of `skc_net` in `struct sock_common`.
    pub const SOCKET_NAMESPACE: &str = "SOCKET_NAMESPACE";
    /// `u32`: offset of the inode number in `struct net`.
    pub const NAMESPACE_INODE: &str = "NAMESPACE_INODE";
    /// `u32`: inode number of the network namespace whose drops count.
    pub const OWN_NAMESPACE: &str = "OWN_NAMESPACE";
    /// `u32`: the kernel's number of `SKB_DROP_REASON_FULL_RING`, or one that is never used.
    pub const REASON_FULL_RING: &str = "REASON_FULL_RING";
    /// `u32`: the same of `SKB_DROP_REASON_SOCKET_RCVBUFF`.
    pub const REASON_SOCKET_BUFFER: &str = "REASON_SOCKET_BUFFER";
}
