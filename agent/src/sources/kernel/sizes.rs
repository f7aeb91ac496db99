//! How many entries each map of the object has.

use tailgauge_ebpf::layout::{
    CpuSample, DIRECTIONS, DROP_ROWS, DropRow, Line, PeerUnderlayLine, SAMPLES, SESSION_WAYS, Sample,
    Session, SessionSet, Tcp, UNDERLAY_DEVICES, UnderlayLine, Windows, WireGuard, maps,
};

use super::KernelError;

/// Shards of a slot are capped: with more CPUs than this, several share a cache line.
const MAX_SHARDS: u32 = 8;
/// Rows of TCP alone would be 300 MiB beyond this.
const MAX_PEERS: u32 = 65_534;
/// AllowedIPs and advertised routes; the tries allocate an entry only when it is inserted.
const PREFIXES: u32 = 131_072;
const ROUTES: u32 = 131_072;
/// Handshakes under way at one time.
const HANDSHAKES: u32 = 8_192;
/// Established connections at one time; 100 bytes each.
const CONNECTIONS: u32 = 65_536;
/// Single addresses a peer may have on average: two of its own, two more.
const ADDRESSES_PER_PEER: u32 = 4;
const MIN_ADDRESSES: u32 = 1_024;
/// Endpoints that tailscaled knows of a peer, on average: the one in use, and candidates.
const ENDPOINTS_PER_PEER: u32 = 8;
const MIN_ENDPOINTS: u32 = 1_024;
/// Endpoints that the programs learned by themselves.
const LEARNED_ENDPOINTS: u32 = 4_096;
/// Endpoints with which disco messages were exchanged lately.
const DISCO: u32 = 4_096;
/// Sessions of a peer at one time, on the average: the one in use and the one before, of the half of them that are in
/// use at all. All of them are mapped, so they count as memory of the agent.
const SESSIONS_PER_PEER: u32 = 1;
/// Peers in use at the same time share the sets; more than these are not in use.
const SETS: std::ops::RangeInclusive<u32> = 32..=512;

/// Entries of every map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) slots: u32,
    pub(super) shards: u32,
    /// Possible CPUs.
    pub(super) cpus: u32,
    pub(super) addresses: u32,
    pub(super) prefixes: u32,
    pub(super) routes: u32,
    pub(super) handshakes: u32,
    pub(super) connections: u32,
    /// Sets of [`SESSION_WAYS`] sessions, a power of two.
    pub(super) sets: u32,
    pub(super) endpoints: u32,
    pub(super) learned_endpoints: u32,
    pub(super) disco: u32,
}

impl Sizes {
    /// Sizes for `max_peers` peers on a machine with `cpus` possible CPUs.
    pub(super) fn new(max_peers: u32, cpus: u32) -> Result<Self, KernelError> {
        if max_peers > MAX_PEERS {
            return Err(KernelError::TooManyPeers { max_peers, limit: MAX_PEERS });
        }
        Ok(Self {
            slots: max_peers + 1,
            shards: cpus.next_power_of_two().min(MAX_SHARDS),
            cpus,
            addresses: (max_peers * ADDRESSES_PER_PEER).max(MIN_ADDRESSES),
            prefixes: PREFIXES,
            routes: ROUTES,
            handshakes: HANDSHAKES,
            connections: CONNECTIONS,
            sets: (max_peers * SESSIONS_PER_PEER)
                .div_ceil(SESSION_WAYS as u32)
                .next_power_of_two()
                .clamp(*SETS.start(), *SETS.end()),
            endpoints: ((max_peers + 1) * ENDPOINTS_PER_PEER).max(MIN_ENDPOINTS),
            learned_endpoints: LEARNED_ENDPOINTS,
            disco: DISCO,
        })
    }

    /// Sizes for `max_peers` peers here.
    pub(super) fn for_this_machine(max_peers: u32) -> Result<Self, KernelError> {
        Self::new(max_peers, aya::util::nr_cpus().map_or(1, |cpus| cpus as u32))
    }

    /// Rows of the underlay's counters.
    pub(super) const fn underlay_rows(&self) -> u32 {
        UNDERLAY_DEVICES as u32 * self.shards * DIRECTIONS
    }

    /// Rows of counters that are per slot, shard and direction.
    pub(super) const fn peer_rows(&self) -> u32 {
        self.slots * self.shards * DIRECTIONS
    }

    /// Sessions that have room.
    pub(super) const fn sessions(&self) -> u32 {
        self.sets * SESSION_WAYS as u32
    }

    pub(super) fn entries(&self) -> [(&'static str, u32); 24] {
        [
            (maps::COUNTERS, self.peer_rows()),
            (maps::UNDERLAY_COUNTERS, self.underlay_rows()),
            (maps::WINDOWS, self.slots + 2),
            (maps::DROPS, DROP_ROWS),
            (maps::DROP_DEVICES, DROP_ROWS),
            (maps::TCP, self.slots),
            (maps::PEERS_V4, self.addresses),
            (maps::PEERS_V6, self.addresses),
            (maps::PREFIXES_V4, self.prefixes),
            (maps::PREFIXES_V6, self.prefixes),
            (maps::ROUTES_V4, self.routes),
            (maps::ROUTES_V6, self.routes),
            (maps::HANDSHAKES, self.handshakes),
            (maps::CONNECTIONS, self.connections),
            (maps::PEER_UNDERLAY, self.peer_rows()),
            (maps::WIREGUARD, self.slots),
            (maps::SESSION_SETS, self.sets),
            (maps::SESSIONS, self.sessions()),
            (maps::ENDPOINTS, self.endpoints),
            (maps::LEARNED_ENDPOINTS, self.learned_endpoints),
            (maps::DISCO_KEYS, self.slots),
            (maps::DISCO, self.disco),
            (maps::CPU_OFFSETS, self.cpus),
            (maps::CPU_SAMPLES, self.cpus * SAMPLES),
        ]
    }

    /// Kernel memory of all maps in bytes, about: the arrays, the hash tables (allocated ahead), empty tries.
    pub(super) fn memory(&self) -> u64 {
        /// Bucket, element header, alignment of a hash table's element beside key and value, about.
        const HASH_ELEMENT: u64 = 72;
        let rows = |count: u32, size: usize| u64::from(count) * size as u64;
        rows(self.peer_rows(), size_of::<Line>() + size_of::<PeerUnderlayLine>())
            + rows(self.underlay_rows(), size_of::<UnderlayLine>())
            + rows(DROP_ROWS, size_of::<DropRow>())
            + rows(self.slots + 2, size_of::<Windows>())
            + rows(self.slots, size_of::<Tcp>() + size_of::<WireGuard>())
            + rows(self.sets, size_of::<SessionSet>())
            + rows(self.sessions(), size_of::<Session>())
            + rows(self.cpus * SAMPLES, size_of::<CpuSample>())
            + rows(SAMPLES, size_of::<Sample>())
            + u64::from(self.endpoints + self.learned_endpoints) * (HASH_ELEMENT + 32)
            + u64::from(self.slots) * (HASH_ELEMENT + 40)
            + u64::from(self.disco) * (HASH_ELEMENT + 56)
            + u64::from(self.addresses) * 2 * HASH_ELEMENT
            + u64::from(self.handshakes + self.connections) * (HASH_ELEMENT + 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_a_power_of_two_that_covers_the_cpus_up_to_the_cap() {
        for (cpus, shards) in [(1, 1), (2, 2), (3, 4), (8, 8), (9, 8), (128, 8)] {
            assert_eq!(Sizes::new(10, cpus).unwrap().shards, shards, "{cpus} CPUs");
        }
    }

    #[test]
    fn too_many_peers_are_refused_with_the_limit() {
        let error = Sizes::new(1_000_000, 2).unwrap_err();
        assert_eq!(error.to_string(), "--max-peers 1000000 is too large: at most 65534");
    }

    #[test]
    fn a_session_of_each_peer_has_room_within_bounds() {
        for (peers, sets) in [(1, 32), (256, 32), (257, 64), (1024, 128), (4096, 512), (65_534, 512)] {
            let sizes = Sizes::new(peers, 2).unwrap();
            assert_eq!(sizes.sets, sets, "{peers} peers");
            assert!(sizes.sessions() >= peers || sizes.sets == 512);
        }
    }

    #[test]
    fn a_peer_takes_about_what_the_systemd_unit_says() {
        let unit = include_str!("../../../../deploy/tailgauge.service");
        let said = unit.split_once("--max-peers: about ").unwrap().1;
        let said: u64 = said.split_once(" KiB a peer").unwrap().0.parse().unwrap();
        for (peers, cpus) in [(1024, 8), (4096, 64), (65_534, 8)] {
            let memory = |peers| Sizes::new(peers, cpus).unwrap().memory();
            let each = (memory(peers) - memory(1)).div_ceil(u64::from(peers) << 10);
            assert!(each == said || each + 1 == said, "{each} KiB for each of {peers} peers, {cpus} CPUs");
        }
    }

    #[test]
    fn every_map_has_its_size_once() {
        let mut names = Sizes::new(10, 2).unwrap().entries().map(|(name, _)| name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
