//! TCP handshakes: both legs against a capture and the delay of the links.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::agent::Agent;
use crate::capture::{Capture, Handshake};
use crate::netns::Namespace;
use crate::node::TUNNEL;
use crate::proof::Outcome;
use crate::proof::tcp::{Tcp, settled};
use crate::wake::{Stop, Threads, Wake};

/// Connections for one mean.
const CONNECTIONS: u32 = 20;
/// Clients that open them at the same time.
const CLIENTS: u32 = 4;
/// Other work on the machine only ever adds: of each leg, the best of so many attempts counts.
const ATTEMPTS: usize = 12;
/// Seconds by which the agent may say less than a packet took: it counts whole microseconds, rounded down.
const ROUNDING: f64 = 0.000_001;
/// Seconds between what the agent and what tcpdump say of a leg, as mean: both look at the same device, one after the
/// other.
const BESIDE_CAPTURE: f64 = 0.000_1;
/// Longer than the links' delay by the greater of the two, in seconds and as share: the testbed's own threads on the way
/// are woken a little late each.
const BESIDE_LINKS: (f64, f64) = (0.003, 0.02);
/// Where the proof's servers listen.
pub(super) const PORT: u16 = 7010;
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// After this the server gives up a client whose end was lost.
const SERVER_PATIENCE: Duration = Duration::from_secs(3);

/// Who sends the first SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// A client, to the server on the internet.
    Peer,
    /// The exit node itself, to the client.
    Host,
}

impl Opener {
    const fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Host => "host",
        }
    }
}

/// One measurement: who connects, from where to where, and what each leg takes for a round trip.
#[derive(Debug)]
pub struct Case<'a> {
    /// The tailnet's id of the client.
    pub peer: &'a str,
    /// Who connects.
    pub opener: Opener,
    /// From here.
    pub from: &'a Namespace,
    /// To this server's address.
    pub to: IpAddr,
    /// Round trip of the peer's leg and of the remote leg.
    pub legs: [Duration; 2],
}

/// Accepts connections in a namespace and closes each after its client did; dropped, it stops.
#[derive(Debug)]
pub struct Server {
    _threads: Threads,
}

impl Server {
    /// Listens on every address of the namespace.
    ///
    /// # Errors
    /// The namespace or the port is not to be had.
    pub fn start(namespace: &Namespace) -> Result<Self, Box<dyn std::error::Error>> {
        let listener = namespace.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))??;
        listener.set_nonblocking(true)?;
        let mut threads = Threads::new()?;
        threads.spawn("legs-server", move |stop| accept_loop(&listener, stop))?;
        Ok(Self { _threads: threads })
    }
}

fn accept_loop(listener: &TcpListener, stop: &Stop) {
    thread::scope(|scope| {
        while matches!(stop.wait(listener.as_fd(), None), Ok(Wake::Ready | Wake::TimedOut)) {
            let Ok((mut stream, _)) = listener.accept() else { continue };
            scope.spawn(move || {
                let patient = stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.set_read_timeout(Some(SERVER_PATIENCE)));
                // Until the client's end, however it comes.
                while patient.is_ok() && matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
            });
        }
    });
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Fin,
    Reset,
}

/// Connects, says a word and ends the connection; returns what `connect` took.
pub(super) fn converse(to: SocketAddr, ending: Ending) -> io::Result<Duration> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    let took = started.elapsed();
    stream.write_all(b"hello")?;
    match ending {
        Ending::Fin => {
            stream.shutdown(Shutdown::Write)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // The server's FIN: nothing of this connection is under way any more.
            stream.read_to_end(&mut Vec::new())?;
        }
        Ending::Reset => SockRef::from(&stream).set_linger(Some(Duration::ZERO))?,
    }
    Ok(took)
}

/// Holds [`CONNECTIONS`] conversations, a few at a time; returns what each `connect` took.
fn connect_all(to: SocketAddr) -> io::Result<Vec<Duration>> {
    thread::scope(|scope| {
        let some = || (0..CONNECTIONS / CLIENTS).map(|_| converse(to, Ending::Fin)).collect::<Vec<_>>();
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(some)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap_or_default()).collect()
    })
}

/// What a capture says of both legs, as means in seconds: the peer's, the remote one.
fn captured(capture: Capture, opener: Opener) -> Result<[f64; 2], Box<dyn std::error::Error>> {
    let handshakes = capture.handshakes(CONNECTIONS as usize)?;
    if handshakes.len() != CONNECTIONS as usize {
        return Err(format!("{} handshakes captured, not {CONNECTIONS}", handshakes.len()).into());
    }
    let mean =
        |part: fn(&Handshake) -> f64| handshakes.iter().map(part).sum::<f64>() / f64::from(CONNECTIONS);
    let (answer, confirmation) = (mean(|one| one.answer), mean(|one| one.confirmation));
    Ok(match opener {
        Opener::Peer => [confirmation, answer],
        Opener::Host => [answer, confirmation],
    })
}

/// Opens connections and holds both legs against a capture and against `case`.
///
/// # Errors
/// Of a leg, no attempt was within the tolerances, or in any attempt a leg is shorter than its links, or the counts or
/// the buckets are wrong.
pub fn legs(case: &Case<'_>, agent: &mut Agent<'_>) -> Outcome {
    let opener = case.opener as usize;
    let wanted = case.legs.map(|leg| leg.as_secs_f64());
    let mut errors = Vec::new();
    let mut right = [false; 2];
    for _ in 0..ATTEMPTS {
        let capture = Capture::start(agent.namespace(), TUNNEL, PORT)?;
        let before = Tcp::read(&agent.scrape()?, case.peer);
        let to = SocketAddr::new(case.to, PORT);
        let connects = case.from.run(|| connect_all(to))??;
        let all = f64::from(CONNECTIONS);
        let what = format!("{CONNECTIONS} connections opened by {:?}", case.opener);
        let counted = settled(agent, case.peer, &what, |tcp| {
            let since = tcp.since(&before);
            since.opened[opener] >= all && since.fin >= all
        })?
        .since(&before);
        let error = [0, 1].map(|leg| counted.mean(leg) - wanted[leg]);
        if counted.syn_retransmits[opener] + counted.syn_ack_retransmits[opener] > 0.0 {
            // The machine stood still for a second.
            errors.push((error, None));
            continue;
        }
        let exact = Tcp {
            samples: [all; 2],
            fin: all,
            opened: if opener == 0 { [all, 0.0] } else { [0.0, all] },
            seconds: counted.seconds,
            buckets: counted.buckets.clone(),
            ..Tcp::default()
        };
        if counted != exact {
            return Err(format!("not {CONNECTIONS} of everything: {counted:?}").into());
        }
        let captured = captured(capture, case.opener)?;
        let connect = connects.iter().sum::<Duration>().as_secs_f64() / all;
        let legs = [0, 1].map(|leg| {
            let [wanted, agent, captured] =
                [wanted[leg], counted.mean(leg), captured[leg]].map(|time| time * 1e3);
            format!(
                "{} leg {wanted:5.2} ms, {agent:7.3} measured, {captured:7.3} captured",
                ["peer", "remote"][leg]
            )
        });
        println!("{:<4} {}; connect took {:7.3}", case.opener.label(), legs.join("; "), connect * 1e3);
        for (leg, delay) in wanted.into_iter().enumerate() {
            check_buckets(&counted, leg, delay)?;
            if error[leg] < -ROUNDING {
                return Err(
                    format!("leg {leg} is {} s shorter than its links: {counted:?}", -error[leg]).into()
                );
            }
        }
        let beside = [0, 1].map(|leg| counted.mean(leg) - captured[leg]);
        for leg in [0, 1] {
            let is_captured = beside[leg].abs() <= BESIDE_CAPTURE;
            let is_injected = error[leg] <= BESIDE_LINKS.0.max(BESIDE_LINKS.1 * wanted[leg]);
            right[leg] |= is_captured && is_injected;
        }
        if right == [true; 2] {
            return Ok(());
        }
        errors.push((error, Some(beside)));
    }
    Err(format!("errors of {case:?} in seconds beside links and capture, by attempt and leg: {errors:?}")
        .into())
}

/// Holds a leg's buckets against its count, its sum, and the delay that no packet can beat.
fn check_buckets(tcp: &Tcp, leg: usize, delay: f64) -> Outcome {
    let buckets = &tcp.buckets[leg];
    let Some((last, total)) = buckets.last() else { return Err("no buckets".into()) };
    if !buckets.is_sorted() || !last.is_infinite() || *total != tcp.samples[leg] {
        return Err(format!("buckets of leg {leg} do not add up to its count: {tcp:?}").into());
    }
    if let Some(impossible) = buckets.iter().find(|(le, count)| *le < delay && *count > 0.0) {
        return Err(format!("leg {leg}: {impossible:?} although a round trip takes {delay} s").into());
    }
    // Each sample is above the bound before its bucket's and not above its own.
    let (mut least, mut most, mut lower, mut below) = (0.0, 0.0, 0.0, 0.0);
    for (le, count) in buckets {
        least += (count - below) * lower;
        most += if *count > below { (count - below) * le } else { 0.0 };
        (lower, below) = (*le, *count);
    }
    let sum = tcp.seconds[leg];
    if sum + 1e-9 < least || sum > most + 1e-9 {
        return Err(format!("leg {leg}: buckets allow {least} to {most} s, the sum is {sum}: {tcp:?}").into());
    }
    Ok(())
}
