//! Times the host collectors: `cargo run --release --example collectors [CONNECTIONS]`, with so many TCP connections
//! of this process to itself as to a peer, twice as many sockets. CPU time of the thread, so that other load on the
//! machine counts less. The first run opens files, and is the only one of a collector that rests in between.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tailgauge::model::collector::Collectors;
use tailgauge::model::host::Host;
use tailgauge::model::synthetic;
use tailgauge::model::tailnet::Peer;
use tailgauge::sources::host::{COLLECTORS, HostSource, Paths};

const RUNS: usize = 31;

fn main() -> std::io::Result<()> {
    let connections = std::env::args().nth(1).and_then(|argument| argument.parse().ok()).unwrap_or(0);
    let _connections = connect(connections)?;
    let mut tailnet = (*synthetic::model(1000).tailnet).clone();
    let near = Peer { id: "near".to_owned(), addresses: vec![Ipv4Addr::LOCALHOST.into()], ..Peer::default() };
    tailnet.peers.push(Arc::new(near));
    let tailnet = Arc::new(tailnet);
    let mut sum = 0.0;
    for info in COLLECTORS {
        let mut source = HostSource::new(Paths::default(), |other| other.name == info.name);
        source.follow(&tailnet);
        let (mut host, mut status) = (Host::default(), Collectors::default());
        let mut times: Vec<_> = (0..RUNS)
            .map(|_| {
                let started = cpu_time();
                source.collect(&mut host, &mut status);
                (cpu_time() - started).as_secs_f64() * 1e3
            })
            .collect();
        let first = times[0];
        times.sort_unstable_by(f64::total_cmp);
        sum += times[RUNS / 2];
        println!("{:12} first {first:.3} ms, median {:.3} ms", info.name, times[RUNS / 2]);
    }
    println!("{:12} median {sum:.3} ms", "all");
    Ok(())
}

/// Connections of this process to itself.
fn connect(count: usize) -> std::io::Result<Vec<(TcpStream, TcpStream)>> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    (0..count).map(|_| Ok((TcpStream::connect(address)?, listener.accept()?.0))).collect()
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
