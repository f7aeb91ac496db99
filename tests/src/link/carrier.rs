//! The thread that carries the packets of one direction.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::SmallRng;

use super::{Conditions, Lane};
use crate::offload::ip::Layout;
use crate::offload::vnet::{GSO_NONE, VNET_HEADER_LEN};
use crate::offload::{Coalescer, Segments, VnetHeader, split};
use crate::tun::{MAX_FRAME, Tun};
use crate::wake::{Stop, Wake};

/// Frames read in one go before the thread looks at its timers again.
const BURST: usize = 32;
/// Longest backlog of a rate-limited direction before packets are dropped.
const MAX_BACKLOG: Duration = Duration::from_millis(200);

/// A frame that waits for its time.
struct Held {
    due: Instant,
    frame: Vec<u8>,
}

/// A packet that lets others pass.
struct HeldBack {
    until: Instant,
    packets: u64,
    frame: Vec<u8>,
}

/// The state of one direction.
pub(super) struct Carrier<'a> {
    from: &'a Tun,
    to: &'a Tun,
    lane: &'a Lane,
    random: SmallRng,
    /// The line of the rate limit is busy until then.
    line_free: Instant,
    held_back: VecDeque<HeldBack>,
    queue: VecDeque<Held>,
    coalesces: bool,
    coalescer: Coalescer,
    spare: Vec<Vec<u8>>,
}

impl<'a> Carrier<'a> {
    pub(super) fn new(from: &'a Tun, to: &'a Tun, lane: &'a Lane, random: SmallRng) -> Self {
        Self {
            from,
            to,
            lane,
            random,
            line_free: Instant::now(),
            held_back: VecDeque::new(),
            queue: VecDeque::new(),
            coalesces: false,
            coalescer: Coalescer::default(),
            spare: Vec::new(),
        }
    }

    pub(super) fn run(mut self, stop: &Stop) {
        let mut buffer = vec![0; MAX_FRAME];
        let mut segments = Segments::default();
        loop {
            for _ in 0..BURST {
                // What comes in one burst is coalesced.
                if !self.coalesces {
                    self.deliver_due();
                }
                let Ok(len) = self.from.read(&mut buffer) else { break };
                self.accept(&buffer[..len], &mut segments);
            }
            self.release(0);
            self.deliver_due();
            let due = self.queue.front().map(|held| held.due);
            let next = self.held_back.iter().map(|held| held.until).chain(due).min();
            let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
            match stop.wait(self.from.as_fd(), timeout) {
                Ok(Wake::Ready | Wake::TimedOut) => {}
                Ok(Wake::Stopped) | Err(_) => return,
            }
        }
    }

    /// Applies the conditions to a frame that just entered.
    fn accept(&mut self, frame: &[u8], segments: &mut Segments) {
        if is_multicast(&frame[VNET_HEADER_LEN.min(frame.len())..]) {
            return;
        }
        self.lane.ledger().offer(frame);
        let conditions = *self.lane.lock();
        self.coalesces = conditions.coalesce;
        if conditions.are_for_packets() {
            return self.accept_packets(frame, conditions, segments);
        }
        let (packets, _) = on_wire(frame);
        if conditions.delay.is_zero() && conditions.rate.is_none() && self.queue.is_empty() {
            self.deliver(frame);
        } else {
            let copy = self.copy(&[frame]);
            self.schedule(copy, conditions);
        }
        self.release(packets);
    }

    /// Applies the conditions to each packet in a frame by itself.
    fn accept_packets(&mut self, frame: &[u8], conditions: Conditions, segments: &mut Segments) {
        segments.clear();
        let whole = VnetHeader::parse(frame)
            .is_some_and(|header| split(header, &frame[VNET_HEADER_LEN..], segments).is_ok());
        if !whole {
            self.drop_frame(frame);
            return;
        }
        for packet in segments.iter() {
            let single = self.copy(&[&[0; VNET_HEADER_LEN], packet]);
            if self.chance(conditions.loss) {
                Lane::add(&self.lane.lost, 1);
                self.lane.ledger().lose(&single);
                self.spare.push(single);
            } else if self.chance(conditions.reorder.probability) {
                Lane::add(&self.lane.held_back, 1);
                let until = Instant::now() + conditions.reorder.time;
                let packets = u64::from(conditions.reorder.packets.max(1));
                self.held_back.push_back(HeldBack { until, packets, frame: single });
            } else {
                self.pass(single, conditions);
                self.release(1);
            }
        }
    }

    /// Lets a packet go on, perhaps twice.
    fn pass(&mut self, single: Vec<u8>, conditions: Conditions) {
        let copy = self.chance(conditions.duplicate).then(|| self.copy(&[&single]));
        let passed = self.schedule(single, conditions);
        let Some(copy) = copy else { return };
        if passed {
            Lane::add(&self.lane.duplicated, 1);
            self.schedule(copy, conditions);
        } else {
            self.spare.push(copy);
        }
    }

    /// So many packets have passed those that were held back: lets go whom enough have, or who waited long enough.
    fn release(&mut self, passed: u64) {
        if self.held_back.is_empty() {
            return;
        }
        let (conditions, now) = (*self.lane.lock(), Instant::now());
        for _ in 0..self.held_back.len() {
            let Some(mut held) = self.held_back.pop_front() else { return };
            held.packets = held.packets.saturating_sub(passed);
            if held.packets == 0 || held.until <= now {
                self.pass(held.frame, conditions);
            } else {
                self.held_back.push_back(held);
            }
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.random_bool(probability.min(1.0))
    }

    fn copy(&mut self, parts: &[&[u8]]) -> Vec<u8> {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        parts.iter().for_each(|part| copy.extend_from_slice(part));
        copy
    }

    /// Puts a frame into the queue, unless the rate does not suffice.
    fn schedule(&mut self, frame: Vec<u8>, conditions: Conditions) -> bool {
        let mut now = Instant::now();
        if let Some(rate) = conditions.rate {
            let (_, bytes) = on_wire(&frame);
            let start = now.max(self.line_free);
            if start - now > MAX_BACKLOG {
                self.drop_frame(&frame);
                self.spare.push(frame);
                return false;
            }
            self.line_free = start + Duration::from_nanos(bytes * 8 * 1_000_000_000 / rate.max(1));
            now = self.line_free;
        }
        // Packets keep their order even when the delay was just lowered.
        let due =
            self.queue.back().map_or(now + conditions.delay, |last| last.due.max(now + conditions.delay));
        self.queue.push_back(Held { due, frame });
        true
    }

    fn deliver_due(&mut self) {
        let mut coalescer = std::mem::take(&mut self.coalescer);
        while self.queue.front().is_some_and(|held| held.due <= Instant::now()) {
            let Some(held) = self.queue.pop_front() else { break };
            if self.coalesces && held.frame[..VNET_HEADER_LEN] == [0; VNET_HEADER_LEN] {
                coalescer.push(&held.frame[VNET_HEADER_LEN..]);
            } else {
                coalescer.drain(|frame| self.deliver(frame));
                self.deliver(&held.frame);
            }
            self.spare.push(held.frame);
        }
        coalescer.drain(|frame| self.deliver(frame));
        self.coalescer = coalescer;
    }

    fn deliver(&self, frame: &[u8]) {
        let (packets, bytes) = on_wire(frame);
        // Written down before: who has received a message finds it in the ledger.
        let mut ledger = self.lane.ledger();
        if self.to.write(frame).is_err() {
            drop(ledger);
            return self.drop_frame(frame);
        }
        ledger.deliver(frame);
        drop(ledger);
        Lane::add(&self.lane.frames, 1);
        Lane::add(&self.lane.packets, packets);
        Lane::add(&self.lane.bytes, bytes);
    }

    fn drop_frame(&self, frame: &[u8]) {
        Lane::add(&self.lane.dropped, on_wire(frame).0);
        self.lane.ledger().lose(frame);
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
