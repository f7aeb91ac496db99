//! Links between namespaces with adjustable delay, loss and rate.
//!
//! A link is a pair of TUN devices, one in each namespace, and a thread for each direction that carries frames from one
//! to the other. Super-packets pass whole, as over a veth; with loss they are split first, so that every packet on the
//! wire is lost or not by itself. The kernel's netem is not needed. Links carry unicast only: the kernel's own multicast
//! (IPv6 neighbour and listener discovery) would spoil exact counts, and nothing here needs it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::netns::{Namespace, NamespaceError};
use crate::offload::ip::Layout;
use crate::offload::vnet::{GSO_NONE, VNET_HEADER_LEN};
use crate::offload::{Segments, VnetHeader, split};
use crate::tun::{MAX_FRAME, Tun, TunError};
use crate::wake::{Stop, Threads, Wake, be_precise};

/// Frames read in one go before the thread looks at its timers again.
const BURST: usize = 32;
/// Longest backlog of a rate-limited direction before packets are dropped.
const MAX_BACKLOG: Duration = Duration::from_millis(200);
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

/// What happens to packets on their way.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Conditions {
    /// Time that each packet is held.
    pub delay: Duration,
    /// Probability that a packet is lost, 0 to 1.
    pub loss: f64,
    /// Bits per second of IP packets; `None` is as fast as the machine can.
    pub rate: Option<u64>,
}

impl Conditions {
    /// Nothing but a delay.
    #[must_use]
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
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
    frames: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
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
                    Carrier {
                        from: &from,
                        to: &to,
                        lane: &lane,
                        random,
                        queue: VecDeque::new(),
                        spare: Vec::new(),
                    }
                    .run(stop);
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
            dropped: get(&lane.dropped),
        }
    }

    fn lane(&self, direction: Direction) -> &Lane {
        &self.lanes[usize::from(direction == Direction::RightToLeft)]
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Conditions> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A frame that waits for its time.
struct Held {
    due: Instant,
    frame: Vec<u8>,
}

/// The thread of one direction.
struct Carrier<'a> {
    from: &'a Tun,
    to: &'a Tun,
    lane: &'a Lane,
    random: SmallRng,
    queue: VecDeque<Held>,
    spare: Vec<Vec<u8>>,
}

impl Carrier<'_> {
    fn run(mut self, stop: &Stop) {
        let mut buffer = vec![0; MAX_FRAME];
        let mut segments = Segments::default();
        let mut line_free = Instant::now();
        loop {
            for _ in 0..BURST {
                self.deliver_due();
                let Ok(len) = self.from.read(&mut buffer) else { break };
                self.accept(&buffer[..len], &mut segments, &mut line_free);
            }
            self.deliver_due();
            let timeout = self.queue.front().map(|held| held.due.saturating_duration_since(Instant::now()));
            use std::os::fd::AsFd;
            match stop.wait(self.from.as_fd(), timeout) {
                Ok(Wake::Ready | Wake::TimedOut) => {}
                Ok(Wake::Stopped) | Err(_) => return,
            }
        }
    }

    /// Applies the conditions to a frame that just entered.
    fn accept(&mut self, frame: &[u8], segments: &mut Segments, line_free: &mut Instant) {
        if is_multicast(&frame[VNET_HEADER_LEN.min(frame.len())..]) {
            return;
        }
        let conditions = *self.lane.lock();
        if conditions.loss > 0.0 {
            let Some(header) = VnetHeader::parse(frame) else { return };
            segments.clear();
            if split(header, &frame[VNET_HEADER_LEN..], segments).is_err() {
                self.lane.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            for packet in segments.iter() {
                if self.random.random_bool(conditions.loss.clamp(0.0, 1.0)) {
                    self.lane.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let mut single = self.spare.pop().unwrap_or_default();
                single.clear();
                single.extend_from_slice(&[0; VNET_HEADER_LEN]);
                single.extend_from_slice(packet);
                self.schedule(single, conditions, line_free);
            }
            return;
        }
        if conditions.delay.is_zero() && conditions.rate.is_none() && self.queue.is_empty() {
            self.deliver(frame);
            return;
        }
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(frame);
        self.schedule(copy, conditions, line_free);
    }

    fn schedule(&mut self, frame: Vec<u8>, conditions: Conditions, line_free: &mut Instant) {
        let mut now = Instant::now();
        if let Some(rate) = conditions.rate {
            let (packets, bytes) = on_wire(&frame);
            let start = now.max(*line_free);
            if start - now > MAX_BACKLOG {
                self.lane.dropped.fetch_add(packets, Ordering::Relaxed);
                self.spare.push(frame);
                return;
            }
            *line_free = start + Duration::from_nanos(bytes * 8 * 1_000_000_000 / rate.max(1));
            now = *line_free;
        }
        // Packets keep their order even when the delay was just lowered.
        let due =
            self.queue.back().map_or(now + conditions.delay, |last| last.due.max(now + conditions.delay));
        self.queue.push_back(Held { due, frame });
    }

    fn deliver_due(&mut self) {
        while self.queue.front().is_some_and(|held| held.due <= Instant::now()) {
            if let Some(held) = self.queue.pop_front() {
                self.deliver(&held.frame);
                self.spare.push(held.frame);
            }
        }
    }

    fn deliver(&mut self, frame: &[u8]) {
        let (packets, bytes) = on_wire(frame);
        if self.to.write(frame).is_err() {
            self.lane.dropped.fetch_add(packets, Ordering::Relaxed);
            return;
        }
        self.lane.frames.fetch_add(1, Ordering::Relaxed);
        self.lane.packets.fetch_add(packets, Ordering::Relaxed);
        self.lane.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// IPv4 224.0.0.0/4 or IPv6 ff00::/8 as destination.
fn is_multicast(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(16).is_some_and(|byte| byte >> 4 == 0xe),
        Some(6) => packet.get(24) == Some(&0xff),
        _ => false,
    }
}

/// Packets and bytes that a frame stands for.
fn on_wire(frame: &[u8]) -> (u64, u64) {
    let Some(header) = VnetHeader::parse(frame) else { return (0, 0) };
    let packet = &frame[VNET_HEADER_LEN..];
    let single = (1, packet.len() as u64);
    if header.kind() == GSO_NONE || header.gso_size == 0 {
        return single;
    }
    let Some(layout) = Layout::parse(packet) else { return single };
    let Some(l4_header) = layout.l4_header_len(packet) else { return single };
    let headers = layout.l4 + l4_header;
    let segments = (packet.len() - headers).div_ceil(usize::from(header.gso_size)).max(1);
    (segments as u64, (packet.len() + (segments - 1) * headers) as u64)
}
