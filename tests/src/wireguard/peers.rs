//! Peers and cryptokey routing: which peer may use which addresses.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use boringtun::noise::Tunn;
use ipnet::IpNet;

use super::disco::Exchange;
use super::keys::{PrivateKey, PublicKey};
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
    /// WireGuard messages received.
    pub rx_packets: u64,
    /// WireGuard messages sent.
    pub tx_packets: u64,
    /// When something was last sent.
    pub last_write: Option<SystemTime>,
    /// When a handshake was last completed.
    pub last_handshake: Option<SystemTime>,
    /// Where it was last heard from, or is said to listen.
    pub endpoint: Option<SocketAddr>,
    /// The IP packets inside.
    pub inner: InnerCounts,
}

/// IP packets one by one, as they are between splitting and coalescing: what a wire inside the tunnel would carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InnerCounts {
    /// Packets written to the TUN.
    pub rx_packets: u64,
    /// Their bytes, IP headers included.
    pub rx_bytes: u64,
    /// Packets read from the TUN.
    pub tx_packets: u64,
    /// Their bytes, IP headers included.
    pub tx_bytes: u64,
}

#[derive(Default)]
struct Inner {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
}

/// A peer and its WireGuard sessions.
pub(super) struct Peer {
    pub(super) id: u64,
    pub(super) key: PublicKey,
    pub(super) tunnel: Mutex<Tunn>,
    rx_bytes: AtomicU64,
    tx_bytes: AtomicU64,
    rx_packets: AtomicU64,
    tx_packets: AtomicU64,
    /// A handshake was answered, and nothing has been received under its keys yet.
    pub(super) unconfirmed: AtomicBool,
    endpoint: Mutex<Option<SocketAddr>>,
    last_write: AtomicU64,
    last_handshake: AtomicU64,
    inner: Inner,
    pub(super) disco: Exchange,
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
            rx_bytes: AtomicU64::new(0),
            tx_bytes: AtomicU64::new(0),
            rx_packets: AtomicU64::new(0),
            tx_packets: AtomicU64::new(0),
            unconfirmed: AtomicBool::new(false),
            endpoint: Mutex::new(config.endpoint),
            last_write: AtomicU64::new(0),
            last_handshake: AtomicU64::new(0),
            inner: Inner::default(),
            disco: Exchange::default(),
            index,
        }
    }

    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        *lock(&self.endpoint)
    }

    pub(super) fn set_endpoint(&self, endpoint: Option<SocketAddr>) {
        *lock(&self.endpoint) = endpoint;
    }

    pub(super) fn received(&self, bytes: usize) {
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.rx_packets.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this made the peer active.
    pub(super) fn sent(&self, packets: usize, bytes: usize) -> bool {
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.tx_packets.fetch_add(packets as u64, Ordering::Relaxed);
        let now = now();
        !is_recent(self.last_write.swap(now, Ordering::Relaxed), now)
    }

    /// Something was sent to it within [`SESSION_ACTIVE`].
    pub(super) fn is_active(&self) -> bool {
        is_recent(self.last_write.load(Ordering::Relaxed), now())
    }

    pub(super) fn inner_received(&self, bytes: usize) {
        self.inner.rx_packets.fetch_add(1, Ordering::Relaxed);
        self.inner.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn inner_sent<'a>(&self, packets: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.inner.tx_packets.fetch_add(packets.len() as u64, Ordering::Relaxed);
        let bytes: usize = packets.map(<[u8]>::len).sum();
        self.inner.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn completed_handshake(&self) {
        self.last_handshake.store(now(), Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> PeerStats {
        let time = |cell: &AtomicU64| match cell.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)),
        };
        let count = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        PeerStats {
            rx_bytes: count(&self.rx_bytes),
            tx_bytes: count(&self.tx_bytes),
            rx_packets: count(&self.rx_packets),
            tx_packets: count(&self.tx_packets),
            inner: InnerCounts {
                rx_packets: count(&self.inner.rx_packets),
                rx_bytes: count(&self.inner.rx_bytes),
                tx_packets: count(&self.inner.tx_packets),
                tx_bytes: count(&self.inner.tx_bytes),
            },
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
