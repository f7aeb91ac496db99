//! What WireGuard data costs on the underlay. A test run repeats the same bytes, but a counter that came before takes
//! another way through the program: `advance` of the baseline counts the messages on in the packet before each run, and
//! what it costs together with the empty classifier is taken off. In the end, every message must have been counted as
//! received, and none as a duplicate.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use tailgauge_ebpf::layout::{
    MARK_TAILSCALED, PATH_DIRECT_IPV4, RECEIVE, SESSION_WAYS, TRANSMIT, session_set,
};
use tailgauge_testbed::programs::{BOTH, Context, Programs, Sizes};
use tailgauge_testbed::underlay::disco::{self, DiscoKey};
use tailgauge_testbed::underlay::{messages, packets};

use super::subjects::{Baseline, Foreign};
use super::underlay::{SLOT, frame, programs, sockets};
use super::{COUNTING, FLAT, REPEAT, UDP, once, packet, peer_address};
use crate::table::{Row, Spread, digits};

/// Bytes of a message, and how many of them a packet joins: what fits into the page that a test run takes.
const MESSAGE: usize = 64;
const JOINED: u64 = 48;
/// Bytes of the frame before the UDP payload, and where the counter is in a message.
const HEADERS: usize = 42;
const COUNTER: usize = 8;
/// Rows of the table of sessions.
const SETS: u32 = 256;
/// Entries of the tables of endpoints and of disco.
const ENDPOINTS: u32 = 1000;

/// A session that goes one way.
struct Stream {
    what: &'static str,
    index: u32,
    direction: u32,
    context: Context,
    frame: Vec<u8>,
    messages: u64,
    next: u64,
    ours: Vec<f64>,
    base: Vec<f64>,
    foreign: Vec<f64>,
}

impl Stream {
    fn new(what: &'static str, index: u32, direction: u32, messages: u64) -> Result<Self, Box<dyn Error>> {
        let (far, own) = sockets();
        let (from, to) = if direction == RECEIVE { (far, own) } else { (own, far) };
        let payloads: Vec<_> =
            (0..messages).map(|_| messages::transport(index, 0, MESSAGE - messages::KEEPALIVE_LEN)).collect();
        let joined = packets::super_packet(from, to, &payloads).ok_or("too many messages for a packet")?;
        let context = Context {
            mark: if direction == RECEIVE { 0 } else { MARK_TAILSCALED },
            gso_size: if messages == 1 { 0 } else { u32::from(joined.gso_size) },
        };
        let frame = frame(&joined.packet);
        let (ours, base, foreign) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { what, index, direction, context, frame, messages, next: 0, ours, base, foreign })
    }

    /// One sample of each program.
    fn sample(
        &mut self,
        baseline: &mut Baseline,
        programs: &Programs,
        foreign: Option<&Foreign>,
    ) -> Result<(), Box<dyn Error>> {
        // The first run counts on to the next ones.
        for (place, message) in (0..).zip(self.frame[HEADERS..].chunks_exact_mut(MESSAGE)) {
            let counter = (self.next + place).wrapping_sub(self.messages);
            message[COUNTER..COUNTER + 8].copy_from_slice(&counter.to_le_bytes());
        }
        let times = REPEAT / self.messages as u32;
        let mut run = |program| baseline.advance(program, &self.frame, self.context, times);
        self.base.push(run(None)?);
        self.ours.push(run(Some(programs.underlay_program(self.direction)?))?);
        if let Some(foreign) = foreign {
            self.foreign.push(run(Some(foreign.program()?))?);
        }
        self.next += u64::from(times) * self.messages;
        Ok(())
    }

    /// Nanoseconds a message above the base.
    fn cost(&self, samples: &[f64]) -> f64 {
        let median = |samples: &[f64]| Spread::of(samples.to_vec()).median;
        (median(samples) - median(&self.base)) / self.messages as f64
    }

    /// What was measured was what was meant: every message of a session was another one.
    fn check(&self, programs: &Programs) -> Result<(), Box<dyn Error>> {
        if self.direction == RECEIVE {
            let session = programs.session(self.index)?.ok_or("the session was not followed")?;
            if (session.received, session.duplicated, session.lost) != (self.next, 0, 0) {
                return Err(format!("of {} messages, {} were received", self.next, session.received).into());
            }
        }
        Ok(())
    }
}

/// The peer was credited with all that `streams` sent.
fn check_peer(programs: &Programs, streams: &[Stream]) -> Result<(), Box<dyn Error>> {
    for direction in BOTH {
        let sent: u64 =
            streams.iter().filter(|stream| stream.direction == direction).map(|stream| stream.next).sum();
        let counted = programs.peer_underlay(SLOT, direction)?.path[PATH_DIRECT_IPV4].data;
        if counted != sent {
            return Err(format!("of {sent} messages, {counted} were counted").into());
        }
    }
    Ok(())
}

pub fn measure(
    baseline: &mut Baseline,
    foreign: Option<&Foreign>,
    rounds: usize,
) -> Result<Vec<Row>, Box<dyn Error>> {
    let sizes = Sizes { sets: SETS, ..Sizes::default() };
    let (quiet, mut crowded) = (programs(sizes)?, programs(sizes)?);
    let mut streams = [
        Stream::new("receive", 1, RECEIVE, 1)?,
        Stream::new("receive, 48 joined, each", 2, RECEIVE, JOINED)?,
        Stream::new("transmit", 3, TRANSMIT, 1)?,
        Stream::new("transmit, 48 joined, each", 4, TRANSMIT, JOINED)?,
    ];
    let mut among_many = Stream::new("receive, tables full", 5, RECEIVE, 1)?;
    fill(&mut crowded, &among_many)?;
    let datagram = packet(peer_address(1), super::LOCAL, UDP);
    let (mut empty, mut minimal) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        empty.push(once(baseline.empty()?, &datagram, Context::default())?);
        minimal.push(once(baseline.minimal()?, &datagram, Context::default())?);
        for stream in &mut streams {
            stream.sample(baseline, &quiet, foreign)?;
        }
        among_many.sample(baseline, &crowded, None)?;
    }
    streams.iter().try_for_each(|stream| stream.check(&quiet))?;
    check_peer(&quiet, &streams)?;
    among_many.check(&crowded)?;
    check_peer(&crowded, std::slice::from_ref(&among_many))?;

    let minimal = Spread::of(minimal).median - Spread::of(empty).median;
    let mut rows = Vec::new();
    for stream in &streams {
        let (what, cost) = (format!("underlay: WireGuard data, {}", stream.what), stream.cost(&stream.ours));
        let ratio = cost / minimal;
        rows.push(
            Row::new(&what, format!("{} ns", digits(cost)))
                .against(format!("minimal counter {} ns", digits(minimal)), ratio)
                .target(format!("≤ {COUNTING}×"), ratio <= COUNTING),
        );
        rows.extend(foreign.map(|foreign| foreign.row(&what, stream.cost(&stream.foreign), cost)));
    }
    let (cost, alone) = (among_many.cost(&among_many.ours), streams[0].cost(&streams[0].ours));
    rows.push(
        Row::new(format!("underlay: WireGuard data, {}", among_many.what), format!("{} ns", digits(cost)))
            .against(format!("tables empty {} ns", digits(alone)), cost / alone)
            .target(format!("flat, ≤ {FLAT}×"), cost / alone <= FLAT),
    );
    Ok(rows)
}

/// As many handshakes, disco pings and endpoints as there is room for. The session of `stream` gets the last place of
/// its set.
fn fill(programs: &mut Programs, stream: &Stream) -> Result<(), Box<dyn Error>> {
    let (far, own) = sockets();
    let marked = Context { mark: MARK_TAILSCALED, gso_size: 0 };
    for place in 0..ENDPOINTS {
        let other =
            SocketAddr::new(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + place).into(), far.port());
        let ping = disco::ping(DiscoKey([1; 32]), [2; 12]);
        programs.run_underlay(TRANSMIT, &frame(&packets::udp_packet(own, other, &ping)), marked, 1)?;
        if place < ENDPOINTS / 2 {
            programs.add_endpoint(other, None, 2)?;
        }
    }
    let begin = |index| {
        let initiation = packets::udp_packet(own, far, &messages::initiation(index));
        programs.run_underlay(TRANSMIT, &frame(&initiation), marked, 1)?;
        match programs.session(index)? {
            Some(_) => Ok(()),
            None => Err(Box::<dyn Error>::from(format!("session {index} was not followed"))),
        }
    };
    let mut taken = vec![0; SETS as usize];
    let last = session_set(stream.index, SETS) as usize;
    for index in 1000.. {
        if taken.iter().sum::<usize>() == SETS as usize * SESSION_WAYS - 1 {
            break;
        }
        let set = session_set(index, SETS) as usize;
        if taken[set] < SESSION_WAYS - usize::from(set == last) {
            begin(index)?;
            taken[set] += 1;
        }
    }
    // With a handshake: a session without one has to find a place in the first half.
    begin(stream.index)
}
