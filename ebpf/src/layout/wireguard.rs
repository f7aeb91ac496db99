//! Layout of what is known of the tunnel's own messages: WireGuard, disco and STUN on the underlay.

use crate::histogram::Histogram;

/// Paths index [`PeerUnderlayLine::path`], in tailscaled's words: `direct_ipv4`.
pub const PATH_DIRECT_IPV4: usize = 0;
/// `direct_ipv6`.
pub const PATH_DIRECT_IPV6: usize = 1;
/// `peer_relay_ipv4`: in a header like Geneve's.
pub const PATH_PEER_RELAY_IPV4: usize = 2;
/// `peer_relay_ipv6`.
pub const PATH_PEER_RELAY_IPV6: usize = 3;
/// Paths that go over UDP. What goes by DERP is inside TLS and cannot be told apart.
pub const UDP_PATHS: usize = 4;

/// Rows of [`Session`] that share a [`SessionSet`].
pub const SESSION_WAYS: usize = 8;
/// Words of [`Session::ring`], a power of two.
pub const SESSION_BLOCKS: usize = 64;
/// Counters in a word of [`Session::ring`].
pub const BLOCK: u64 = 32;
/// Counters that the ring covers: a message that comes later than this many others cannot be judged.
pub const SESSION_WINDOW: u64 = SESSION_BLOCKS as u64 * BLOCK;
/// Silence after which a gap of a session is not called a loss: the messages may have gone by DERP meanwhile. In
/// windows of [`super::WINDOW_NANOSECONDS`].
pub const SILENCE_WINDOWS: u64 = 300;

/// Bit in an entry of [`SessionSet::keys`] that marks it as taken; the index is below it.
pub const SESSION_TAKEN: u64 = 1 << 32;

/// How a session became known: this node sent the initiation.
pub const ROLE_INITIATOR: u32 = 1;
/// This node sent the response.
pub const ROLE_RESPONDER: u32 = 2;
/// By its messages alone: the handshake went by DERP, or took place before the agent started.
pub const ROLE_UNSEEN: u32 = 3;

/// Roles index [`WireGuard::completed`]: [`ROLE_INITIATOR`] - 1 and [`ROLE_RESPONDER`] - 1.
pub const ROLES: usize = 2;

/// What a peer's packets were on one path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Bytes of all packets as they were sent one by one, layer 3 and up.
    pub bytes: u64,
    /// Packets that are WireGuard transport messages (type 4), keepalives included.
    pub data: u64,
    /// All other packets.
    pub others: u64,
    /// Not used.
    pub spare: u64,
}

impl PathCounters {
    /// Packets as they were sent one by one.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.data + self.others
    }
}

/// UDP between tailscaled and a peer; one slot, shard and direction. Index of the row: as for [`super::Line`].
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerUnderlayLine {
    /// By `PATH_*`.
    pub path: [PathCounters; UDP_PATHS],
}

/// Handshakes and disco of one slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireGuard {
    /// Initiation sent → response received from where it was sent to, microseconds.
    pub handshake: Histogram,
    /// Disco ping sent → pong received, microseconds.
    pub disco_rtt: Histogram,
    /// Handshakes that were completed over UDP, by role - 1: the response received, or the first data on a response
    /// sent.
    pub completed: [u64; ROLES],
    /// Initiations by direction.
    pub initiations: [u64; 2],
    /// Initiations sent while an earlier one of at most 90 s (`REKEY_ATTEMPT_TIME`) had no response.
    pub retries: u64,
    /// Responses by direction.
    pub responses: [u64; 2],
    /// Responses received that answer no initiation seen on this endpoint: it went by DERP. They are not timed.
    pub unpaired_responses: u64,
    /// Cookie replies by direction: the receiver of an initiation is under load.
    pub cookies: [u64; 2],
    /// Initiations that stayed without an answer; counted by the agent.
    pub failures: u64,
    /// Disco pings by direction.
    pub pings: [u64; 2],
    /// Disco pongs by direction.
    pub pongs: [u64; 2],
    /// Pongs received that may answer either of two pings.
    pub pongs_ambiguous: u64,
    /// Window in which data was last received over UDP.
    pub data_window: u64,
    /// Nanoseconds of CLOCK_MONOTONIC of the last initiation sent; 0 once it was answered.
    pub initiated_at: u64,
    /// Sender index of that initiation.
    pub initiated_index: u64,
    /// Nanoseconds of the last initiation received that is not answered yet, or 0.
    pub asked_at: u64,
    /// Its sender index.
    pub asked_index: u64,
    /// Fingerprint of the endpoint that it came from.
    pub asked_from: u64,
}

impl WireGuard {
    /// Nothing was seen.
    pub const EMPTY: Self = Self {
        handshake: Histogram::EMPTY,
        disco_rtt: Histogram::EMPTY,
        completed: [0; ROLES],
        initiations: [0; 2],
        retries: 0,
        responses: [0; 2],
        unpaired_responses: 0,
        cookies: [0; 2],
        failures: 0,
        pings: [0; 2],
        pongs: [0; 2],
        pongs_ambiguous: 0,
        data_window: 0,
        initiated_at: 0,
        initiated_index: 0,
        asked_at: 0,
        asked_index: 0,
        asked_from: 0,
    };
}

/// Kinds index [`Messages::seen`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// None of the following, such as the single bytes that tailscaled appends for some kernels.
    #[default]
    Other = 0,
    /// WireGuard handshake initiation.
    Initiation = 1,
    /// WireGuard handshake response.
    Response = 2,
    /// WireGuard cookie reply.
    Cookie = 3,
    /// WireGuard transport data, keepalives included. Not counted here, but per peer.
    Data = 4,
    /// Disco ping of the usual length.
    Ping = 5,
    /// Disco pong.
    Pong = 6,
    /// Another disco message.
    Disco = 7,
    /// STUN.
    Stun = 8,
}

/// Number of kinds.
pub const KINDS_OF_MESSAGE: usize = 9;

/// Messages of tailscaled as a whole; one row.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Messages {
    /// By direction and [`Kind`].
    pub seen: [[u64; KINDS_OF_MESSAGE]; 2],
    /// Initiation received → response sent, microseconds.
    pub handshake_response: Histogram,
    /// Disco ping received → pong sent, microseconds.
    pub disco_response: Histogram,
}

impl Messages {
    /// Nothing was seen.
    pub const EMPTY: Self = Self {
        seen: [[0; KINDS_OF_MESSAGE]; 2],
        handshake_response: Histogram::EMPTY,
        disco_response: Histogram::EMPTY,
    };
}

/// Indexes of up to [`SESSION_WAYS`] sessions: exactly one cache line. A way is taken by the programs and freed by the
/// agent, which zeroes its row of [`super::maps::SESSIONS`] first.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionSet {
    /// [`SESSION_TAKEN`] and this node's index of the session, or 0.
    pub keys: [u64; SESSION_WAYS],
}

/// A WireGuard session as far as it was received over UDP; see [`crate::sequence`].
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Slot of the peer.
    pub slot: u32,
    /// `ROLE_*`; 0 while nobody has filled in the row.
    pub role: u32,
    /// Nanoseconds of CLOCK_MONOTONIC: the initiation or response was sent, or the first message came.
    pub started_at: u64,
    /// Fingerprint of the endpoint of the last message.
    pub endpoint: u64,
    /// 1 after the response ([`ROLE_INITIATOR`]) or the first data ([`ROLE_RESPONDER`]) was received.
    pub answered: u64,
    /// Window of the last data.
    pub data_window: u64,
    /// Highest counter seen, plus one.
    pub next: u64,
    /// Counters that are not judged: from here ...
    pub void_from: u64,
    /// ... to before this one.
    pub void_to: u64,
    /// Counters below this one are judged for good; set by the agent.
    pub settled: u64,
    /// Messages received, each counter once.
    pub received: u64,
    /// Of these, the ones that came after a later one (RFC 4737).
    pub reordered: u64,
    /// Counters received once more (RFC 5560).
    pub duplicated: u64,
    /// Counters that never came, as far as that is certain (RFC 7680).
    pub lost: u64,
    /// Messages that are none of the above: too late, or from a stretch that is not judged.
    pub unjudged: u64,
    /// Not used.
    pub spare: [u64; 2],
    /// By block of [`BLOCK`] counters, modulo [`SESSION_BLOCKS`]: `(block + 1) << 32 | counters seen`, or 0.
    pub ring: [u64; SESSION_BLOCKS],
}

impl Session {
    /// A row that is free.
    pub const EMPTY: Self = Self {
        slot: 0,
        role: 0,
        started_at: 0,
        endpoint: 0,
        answered: 0,
        data_window: 0,
        next: 0,
        void_from: 0,
        void_to: 0,
        settled: 0,
        received: 0,
        reordered: 0,
        duplicated: 0,
        lost: 0,
        unjudged: 0,
        spare: [0; 2],
        ring: [0; SESSION_BLOCKS],
    };
}

/// Where a peer is reached over UDP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// IPv4 as ::ffff:a.b.c.d.
    pub address: [u8; 16],
    /// Network order.
    pub port: [u8; 2],
    /// Zero.
    pub padding: [u8; 2],
    /// Virtual network identifier on a peer relay, plus one; 0 on a direct path.
    pub relay: u32,
}

/// Pings one way and their pongs; at most one may be outstanding for a sample.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// CLOCK_MONOTONIC nanoseconds of the last ping.
    pub pinged_at: u64,
    /// Pings without a pong.
    pub outstanding: u32,
    /// Non-zero when nobody can say which ping the next pong answers.
    pub ambiguous: u32,
}

/// Disco with one endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disco {
    /// By direction of the pings.
    pub exchange: [Exchange; 2],
}

/// The set of a session: a hash of this node's index.
#[inline(always)]
#[must_use]
pub const fn session_set(index: u32, sets: u32) -> u32 {
    (index.wrapping_mul(0x9e37_79b9) >> 16) & (sets - 1)
}
