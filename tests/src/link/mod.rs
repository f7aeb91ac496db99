//! Links between namespaces with adjustable delay, loss, duplication, reordering and rate.
//!
//! A link is a pair of TUN devices, one in each namespace, and a thread for each direction that carries frames from one
//! to the other. Super-packets pass whole, as over a veth; with loss and the like they are split first, so that every
//! packet on the wire has a fate of its own, and may be joined again behind it, as a NIC with GRO does. What became of
//! every WireGuard transport message is written down. The kernel's netem is not needed. Links carry unicast only: the kernel's own multicast
//! (IPv6 neighbour and listener discovery) would spoil exact counts, and nothing here needs it.

mod carrier;
mod ledger;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

pub use ledger::SessionLedger;

use crate::netns::{Namespace, NamespaceError};
use crate::tun::{Tun, TunError};
use crate::wake::{Threads, be_precise};
use carrier::Carrier;
use ledger::Ledger;

/// Long enough that a burst does not overflow the queue of the link's own devices.
const QUEUE_LEN: &str = "10000";

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the left namespace to the right one.
    LeftToRight,
    /// From the right namespace to the left one.
    RightToLeft,
}

/// Which packets are held back, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reorder {
    /// Probability that a packet is held back, 0 to 1.
    pub probability: f64,
    /// Until so many later packets have passed it, at least one.
    pub packets: u32,
    /// Or until so much time is over, whichever is first.
    pub time: Duration,
}

impl Default for Reorder {
    fn default() -> Self {
        Self { probability: 0.0, packets: 3, time: Duration::from_millis(10) }
    }
}

/// What happens to packets on their way.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Conditions {
    /// Time that each packet is held.
    pub delay: Duration,
    /// Probability that a packet is lost, 0 to 1.
    pub loss: f64,
    /// Probability that a packet arrives twice, 0 to 1.
    pub duplicate: f64,
    /// Packets that let others pass.
    pub reorder: Reorder,
    /// Joins packets of a flow that come together into super-packets, as GRO on a NIC does.
    pub coalesce: bool,
    /// Bits per second of IP packets; `None` is as fast as the machine can.
    pub rate: Option<u64>,
}

impl Conditions {
    /// Nothing but a delay.
    #[must_use]
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// Whether super-packets have to be split.
    fn are_for_packets(self) -> bool {
        self.loss > 0.0 || self.duplicate > 0.0 || self.reorder.probability > 0.0 || self.coalesce
    }
}

/// What one direction has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    /// Frames delivered; a super-packet is one.
    pub frames: u64,
    /// Packets delivered, as they would be on a wire.
    pub packets: u64,
    /// Bytes of those packets, IP headers included.
    pub bytes: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets that were sent on twice by chance.
    pub duplicated: u64,
    /// Packets that were held back by chance.
    pub held_back: u64,
    /// Packets dropped because the rate did not suffice, or because the far end did not take them.
    pub dropped: u64,
}

/// Why a link could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// One of its devices.
    #[error("link")]
    Tun(#[from] TunError),
    /// The configuration of a device.
    #[error("link device {device}")]
    Configure {
        /// The device.
        device: String,
        /// The reason.
        #[source]
        source: NamespaceError,
    },
    /// Its threads.
    #[error("link: cannot start a thread")]
    Thread(#[source] io::Error),
}

/// A running link; dropped, both devices disappear.
#[derive(Debug)]
pub struct Link {
    lanes: [Arc<Lane>; 2],
    _threads: Threads,
}

/// The settings and counters of one direction.
#[derive(Debug, Default)]
struct Lane {
    conditions: Mutex<Conditions>,
    ledger: Mutex<Ledger>,
    frames: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    duplicated: AtomicU64,
    held_back: AtomicU64,
    dropped: AtomicU64,
}

impl Link {
    /// Makes both devices, MTU 1500, and brings them up. Losses follow from `seed`.
    pub fn create(left: (&Namespace, &str), right: (&Namespace, &str), seed: u64) -> Result<Self, LinkError> {
        let ends = [end(left)?, end(right)?].map(Arc::new);
        let lanes = [Arc::new(Lane::default()), Arc::new(Lane::default())];
        let mut threads = Threads::new().map_err(LinkError::Thread)?;
        for (index, lane) in lanes.iter().enumerate() {
            let (from, to) = (Arc::clone(&ends[index]), Arc::clone(&ends[1 - index]));
            let lane = Arc::clone(lane);
            let random = SmallRng::seed_from_u64(seed.wrapping_mul(2).wrapping_add(index as u64));
            threads
                .spawn("link", move |stop| {
                    be_precise();
                    Carrier::new(&from, &to, &lane, random).run(stop);
                })
                .map_err(LinkError::Thread)?;
        }
        Ok(Self { lanes, _threads: threads })
    }

    /// Changes the conditions of one direction, for packets that enter from now on.
    pub fn set(&self, direction: Direction, conditions: Conditions) {
        *self.lane(direction).lock() = conditions;
    }

    /// Changes both directions alike; a delay is then half of what it adds to a round trip.
    pub fn set_both(&self, conditions: Conditions) {
        self.set(Direction::LeftToRight, conditions);
        self.set(Direction::RightToLeft, conditions);
    }

    /// The counters of one direction.
    #[must_use]
    pub fn stats(&self, direction: Direction) -> LinkStats {
        let lane = self.lane(direction);
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkStats {
            frames: get(&lane.frames),
            packets: get(&lane.packets),
            bytes: get(&lane.bytes),
            lost: get(&lane.lost),
            duplicated: get(&lane.duplicated),
            held_back: get(&lane.held_back),
            dropped: get(&lane.dropped),
        }
    }

    /// What became of the WireGuard transport messages of one direction, by receiver index.
    #[must_use]
    pub fn wireguard(&self, direction: Direction) -> Vec<SessionLedger> {
        self.lane(direction).ledger().sessions()
    }

    fn lane(&self, direction: Direction) -> &Lane {
        &self.lanes[usize::from(direction == Direction::RightToLeft)]
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Conditions> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Ordering::Relaxed);
    }
}

fn end((namespace, device): (&Namespace, &str)) -> Result<Tun, LinkError> {
    let tun = Tun::create(namespace, device)?;
    tun.enable_offloads(device)?;
    let configure = |arguments: &[&str]| {
        namespace.ip(arguments).map_err(|source| LinkError::Configure { device: device.to_owned(), source })
    };
    configure(&["link", "set", device, "addrgenmode", "none", "mtu", "1500", "txqueuelen", QUEUE_LEN, "up"])?;
    Ok(tun)
}
