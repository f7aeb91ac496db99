//! Peers and cryptokey routing: which peer may use which addresses.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use boringtun::noise::Tunn;
use ipnet::IpNet;

use super::disco::Exchange;
use super::handshakes::Record;
use super::keys::{PrivateKey, PublicKey};
use super::paths::{Path, WAYS, Way};
use crate::underlay::disco::DiscoKey;

/// A peer is active for so long after something was sent to it: `sessionActiveTimeout` (`wgengine/magicsock`).
pub const SESSION_ACTIVE: Duration = Duration::from_secs(45);

/// A peer as the control plane describes it to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Tailscale's node id.
    pub id: u64,
    /// Its public key.
    pub key: PublicKey,
    /// The key in its disco messages.
    pub disco: DiscoKey,
    /// Where it listens.
    pub endpoint: Option<SocketAddr>,
    /// How it is reached.
    pub path: Path,
    /// What may come from it and goes to it; the longest prefix wins.
    pub allowed_ips: Vec<IpNet>,
}

/// What a node's engine knows about a peer, for its LocalAPI.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerStats {
    /// Bytes of WireGuard messages received.
    pub rx_bytes: u64,
    /// Bytes of WireGuard messages sent.
    pub tx_bytes: u64,
    /// WireGuard messages by the way they took, in the order of [`super::WAY_LABELS`], without the header of a relay.
    pub by_way: [Traffic; WAYS],
    /// When something was last sent.
    pub last_write: Option<SystemTime>,
    /// When a handshake was last completed.
    pub last_handshake: Option<SystemTime>,
    /// Where it was last heard from, or is said to listen.
    pub endpoint: Option<SocketAddr>,
    /// How it is reached.
    pub path: Path,
    /// The IP packets inside, one by one as they are between splitting and coalescing, IP headers included: what a wire
    /// inside the tunnel would carry.
    pub inner: Traffic,
}

/// Packets or messages both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
}

/// [`Traffic`] that goes on.
#[derive(Default)]
struct Counters {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
}

impl Counters {
    fn received(&self, packets: usize, bytes: usize) {
        self.rx_packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn sent(&self, packets: usize, bytes: usize) {
        self.tx_packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn read(&self) -> Traffic {
        let count = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Traffic {
            rx_packets: count(&self.rx_packets),
            rx_bytes: count(&self.rx_bytes),
            tx_packets: count(&self.tx_packets),
            tx_bytes: count(&self.tx_bytes),
        }
    }
}

/// A peer and its WireGuard sessions.
pub(super) struct Peer {
    pub(super) id: u64,
    pub(super) key: PublicKey,
    pub(super) tunnel: Mutex<Tunn>,
    by_way: [Counters; WAYS],
    path: Mutex<Path>,
    endpoint: Mutex<Option<SocketAddr>>,
    last_write: AtomicU64,
    last_handshake: AtomicU64,
    inner: Counters,
    pub(super) disco: Exchange,
    pub(super) handshakes: Record,
    index: u32,
}

impl Peer {
    fn new(private: &PrivateKey, config: &PeerConfig) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // WireGuard indices are 24 bits of ours and 8 of the library's session counter.
        let index = NEXT.fetch_add(1, Ordering::Relaxed) & 0x00ff_ffff;
        let tunnel = Tunn::new(private.secret().clone(), config.key.point(), None, None, index, None);
        Self {
            id: config.id,
            key: config.key,
            tunnel: Mutex::new(tunnel),
            by_way: Default::default(),
            path: Mutex::new(config.path),
            endpoint: Mutex::new(config.endpoint),
            last_write: AtomicU64::new(0),
            last_handshake: AtomicU64::new(0),
            inner: Counters::default(),
            disco: Exchange::default(),
            handshakes: Record::default(),
            index,
        }
    }

    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        *lock(&self.endpoint)
    }

    pub(super) fn set_endpoint(&self, endpoint: Option<SocketAddr>) {
        *lock(&self.endpoint) = endpoint;
    }

    fn set_path(&self, path: Path) {
        *lock(&self.path) = path;
    }

    /// Where messages to it go now; `None` while it is not known where it listens.
    pub(super) fn way(&self) -> Option<Way> {
        match *lock(&self.path) {
            Path::Direct => self.endpoint().map(Way::Direct),
            Path::Derp => Some(Way::Derp),
            Path::PeerRelay(address, network) => Some(Way::PeerRelay(address, network)),
        }
    }

    pub(super) fn received(&self, way: Way, bytes: usize) {
        self.by_way[way.kind()].received(1, bytes);
    }

    /// Whether this made the peer active.
    pub(super) fn sent(&self, way: Way, packets: usize, bytes: usize) -> bool {
        self.by_way[way.kind()].sent(packets, bytes);
        let now = now();
        !is_recent(self.last_write.swap(now, Ordering::Relaxed), now)
    }

    /// Something was sent to it within [`SESSION_ACTIVE`].
    pub(super) fn is_active(&self) -> bool {
        is_recent(self.last_write.load(Ordering::Relaxed), now())
    }

    pub(super) fn inner_received(&self, bytes: usize) {
        self.inner.received(1, bytes);
    }

    pub(super) fn inner_sent<'a>(&self, packets: impl ExactSizeIterator<Item = &'a [u8]>) {
        let count = packets.len();
        self.inner.sent(count, packets.map(<[u8]>::len).sum());
    }

    pub(super) fn completed_handshake(&self) {
        self.last_handshake.store(now(), Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> PeerStats {
        let time = |cell: &AtomicU64| match cell.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)),
        };
        let by_way = self.by_way.each_ref().map(Counters::read);
        PeerStats {
            rx_bytes: by_way.iter().map(|way| way.rx_bytes).sum(),
            tx_bytes: by_way.iter().map(|way| way.tx_bytes).sum(),
            by_way,
            path: *lock(&self.path),
            inner: self.inner.read(),
            last_write: time(&self.last_write),
            last_handshake: time(&self.last_handshake),
            endpoint: self.endpoint(),
        }
    }
}

/// All peers of a node; replaced as a whole when the control plane changes something.
#[derive(Default)]
pub(super) struct PeerTable {
    by_id: HashMap<u64, Arc<Peer>>,
    by_index: HashMap<u32, Arc<Peer>>,
    by_key: HashMap<PublicKey, Arc<Peer>>,
    by_disco: HashMap<DiscoKey, Arc<Peer>>,
    /// Longest prefix first.
    routes: Vec<(IpNet, Arc<Peer>)>,
}

impl PeerTable {
    /// The table for `configs`; sessions with peers whose key did not change are kept from `previous`.
    pub(super) fn new(private: &PrivateKey, configs: &[PeerConfig], previous: &Self) -> Self {
        let mut table = Self::default();
        for config in configs {
            let peer = match previous.by_id.get(&config.id) {
                Some(peer) if peer.key == config.key => Arc::clone(peer),
                _ => Arc::new(Peer::new(private, config)),
            };
            peer.set_endpoint(config.endpoint);
            peer.set_path(config.path);
            table.by_id.insert(config.id, Arc::clone(&peer));
            table.by_index.insert(peer.index, Arc::clone(&peer));
            table.by_key.insert(config.key, Arc::clone(&peer));
            table.by_disco.insert(config.disco, Arc::clone(&peer));
            table.routes.extend(config.allowed_ips.iter().map(|prefix| (*prefix, Arc::clone(&peer))));
        }
        table.routes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
        table
    }

    pub(super) fn route(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        self.routes.iter().find(|(prefix, _)| prefix.contains(&address)).map(|(_, peer)| peer)
    }

    pub(super) fn by_receiver_index(&self, receiver: u32) -> Option<&Arc<Peer>> {
        self.by_index.get(&(receiver >> 8))
    }

    pub(super) fn by_key(&self, key: PublicKey) -> Option<&Arc<Peer>> {
        self.by_key.get(&key)
    }

    pub(super) fn by_disco(&self, key: DiscoKey) -> Option<&Arc<Peer>> {
        self.by_disco.get(&key)
    }

    pub(super) fn by_id(&self, id: u64) -> Option<&Arc<Peer>> {
        self.by_id.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.by_id.values()
    }
}

/// A panicking holder leaves counters and sessions as usable as before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both in nanoseconds since 1970; 0 is never.
fn is_recent(at: u64, now: u64) -> bool {
    at != 0 && u128::from(now.saturating_sub(at)) < SESSION_ACTIVE.as_nanos()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
