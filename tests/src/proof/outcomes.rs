//! TCP connections: every outcome counted, and what loss makes of handshakes.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::agent::Agent;
use crate::proof::Outcome;
use crate::proof::legs::{Case, Ending, PATIENCE, PORT, converse};
use crate::proof::tcp::{Tcp, settled};

/// Attempts at exact counts, where a machine that stands still for a second makes TCP send again.
const COUNTS: usize = 3;
/// Nobody listens there.
const CLOSED_PORT: u16 = 7011;

/// Ends connections in every way there is and holds the counts against what was done. The agent must have been started
/// with a time-out of handshakes of 1 s; `blackhole` is a port of the server that swallows SYNs.
///
/// # Errors
/// A connection went otherwise than it should, or a count is wrong: in every attempt, if the machine may have been the
/// one to send again.
pub fn outcomes(case: &Case<'_>, agent: &mut Agent<'_>, blackhole: Option<u16>) -> Outcome {
    let mut wrong = Vec::new();
    for _ in 0..COUNTS {
        let [counted, exact] = end_in_every_way(case, agent, blackhole)?;
        if counted == exact {
            return Ok(());
        }
        let sent_again = |tcp: &Tcp| (tcp.syn_retransmits, tcp.syn_ack_retransmits);
        let is_sure = sent_again(&counted) == sent_again(&exact);
        wrong.push(format!("counted {counted:?}, not {exact:?}"));
        if is_sure {
            break;
        }
    }
    Err(wrong.join("\n").into())
}

/// What was counted of connections that ended in every way there is, and what should have been.
fn end_in_every_way(
    case: &Case<'_>,
    agent: &mut Agent<'_>,
    blackhole: Option<u16>,
) -> Result<[Tcp; 2], Box<dyn std::error::Error>> {
    let opener = case.opener as usize;
    let one = |count: f64| if opener == 0 { [count, 0.0] } else { [0.0, count] };
    let before = Tcp::read(&agent.scrape()?, case.peer);
    let at = |port| SocketAddr::new(case.to, port);
    case.from.run(|| -> io::Result<()> {
        for ending in [[Ending::Fin; 3].as_slice(), &[Ending::Reset; 5]].concat() {
            converse(at(PORT), ending)?;
        }
        for _ in 0..4 {
            match TcpStream::connect_timeout(&at(CLOSED_PORT), PATIENCE) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                other => return Err(io::Error::other(format!("not refused: {other:?}"))),
            }
        }
        if let Some(port) = blackhole {
            thread::scope(|scope| {
                for _ in 0..6 {
                    // Long enough for one retransmission, after 1 s.
                    scope.spawn(|| TcpStream::connect_timeout(&at(port), Duration::from_millis(1_500)));
                }
            });
        }
        Ok(())
    })??;
    let lost = if blackhole.is_some() { 6.0 } else { 0.0 };
    let counted = settled(agent, case.peer, "every outcome", |tcp| {
        let since = tcp.since(&before);
        since.fin >= 3.0 && since.reset >= 5.0 && since.timeout[opener] >= lost
    })?
    .since(&before);
    let exact = Tcp {
        // Who was refused, or never answered, has no legs.
        samples: [8.0; 2],
        opened: one(8.0),
        fin: 3.0,
        reset: 5.0,
        refused: one(4.0),
        timeout: one(lost),
        syn_retransmits: one(lost),
        seconds: counted.seconds,
        buckets: counted.buckets.clone(),
        ..Tcp::default()
    };
    Ok([counted, exact])
}

/// Opens connections at once over a link that loses packets: retransmissions are counted, and none of them makes a
/// sample as long as the time-out that it waited for.
///
/// # Errors
/// In every attempt a sample is too long, or nothing was seen of the loss.
pub fn loss(case: &Case<'_>, agent: &mut Agent<'_>, connections: u32) -> Outcome {
    let mut wrong = Vec::new();
    for _ in 0..COUNTS {
        match lossy(case, agent, connections)? {
            None => return Ok(()),
            Some(reason) => wrong.push(reason),
        }
    }
    Err(wrong.join("\n").into())
}

/// One attempt of [`loss`]: what is wrong with it.
fn lossy(
    case: &Case<'_>,
    agent: &mut Agent<'_>,
    connections: u32,
) -> Result<Option<String>, Box<dyn std::error::Error>> {
    /// Linux sends a SYN or SYN-ACK again after this.
    const RETRANSMISSION: f64 = 1.0;
    let opener = case.opener as usize;
    let before = Tcp::read(&agent.scrape()?, case.peer);
    let to = SocketAddr::new(case.to, PORT);
    let established = case.from.run(|| {
        thread::scope(|scope| {
            let all: Vec<_> = (0..connections)
                .map(|_| {
                    scope.spawn(|| {
                        let stream = TcpStream::connect_timeout(&to, Duration::from_millis(1_500)).ok()?;
                        // Silent until every retransmission of the handshake is over: else data would end it.
                        thread::sleep(Duration::from_millis(1_500));
                        Some(stream)
                    })
                })
                .collect();
            all.into_iter().filter_map(|client| client.join().ok().flatten()).count()
        })
    })?;
    let counted = settled(agent, case.peer, "the established connections", |tcp| {
        let since = tcp.since(&before);
        since.samples[0] + since.samples[1] > 0.0 && since.opened[opener] >= established as f64 * 0.9
    })?
    .since(&before);
    println!(
        "{established} of {connections} established; samples {:?}, ambiguous {}, SYN again {:?}, SYN-ACK again {:?}, \
         means {:.3} and {:.3} ms",
        counted.samples,
        counted.ambiguous,
        counted.syn_retransmits,
        counted.syn_ack_retransmits,
        counted.mean(0) * 1e3,
        counted.mean(1) * 1e3,
    );
    if counted.syn_retransmits[opener] + counted.syn_ack_retransmits[opener] == 0.0
        || counted.ambiguous == 0.0
    {
        return Ok(Some(format!("no trace of the loss: {counted:?}")));
    }
    // So does one that was under way while the machine stood still.
    let long = [0, 1].map(|leg| counted.above(leg, RETRANSMISSION / 2.0));
    let is_wrong = long != [0.0; 2];
    Ok(is_wrong.then(|| format!("{long:?} samples by leg hold a retransmission: {counted:?}")))
}
