//! Times the host collectors: `cargo run --release --example collectors [CONNECTIONS [SECONDS]]`, with so many TCP
//! connections of this process to itself as to a peer, twice as many sockets. CPU time of the thread, so that other load
//! on the machine counts less. The first run opens files; `tcp` rests after each, and runs again for the last figure.
//! With SECONDS, each runs once a second, as it does for a scrape a second: what it needs is in no cache then.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tailgauge::model::collector::Collectors;
use tailgauge::model::host::Host;
use tailgauge::model::synthetic;
use tailgauge::model::tailnet::{Peer, Tailnet};
use tailgauge::sources::host::{COLLECTORS, CollectorInfo, HostSource, Paths};

const RUNS: usize = 31;
/// What `tcp` rests after a run that cost less than 2 ms.
const REST: Duration = Duration::from_secs(2);

fn main() -> std::io::Result<()> {
    let connections = std::env::args().nth(1).and_then(|argument| argument.parse().ok()).unwrap_or(0);
    let _connections = connect(connections)?;
    let mut tailnet = (*synthetic::model(1000).tailnet).clone();
    let near = Peer { id: "near".to_owned(), addresses: vec![Ipv4Addr::LOCALHOST.into()], ..Peer::default() };
    tailnet.peers.push(Arc::new(near));
    let tailnet = Arc::new(tailnet);
    let mut sources: Vec<_> = COLLECTORS.iter().map(|info| Timed::new(info, &tailnet)).collect();
    if let Some(seconds) = std::env::args().nth(2).and_then(|argument| argument.parse().ok()) {
        once_a_second(&mut sources, seconds);
        return Ok(());
    }
    let runs: Vec<Vec<f64>> =
        sources.iter_mut().map(|source| (0..RUNS).map(|_| source.run()).collect()).collect();
    std::thread::sleep(REST);
    let mut sum = 0.0;
    for (source, mut times) in sources.iter_mut().zip(runs) {
        let first = times[0];
        times.sort_unstable_by(f64::total_cmp);
        let (name, median, later) = (source.name, times[RUNS / 2], source.run());
        sum += median;
        println!("{name:12} first {first:.3} ms, median {median:.3} ms, last {later:.3} ms");
    }
    println!("all          median {sum:.3} ms");
    Ok(())
}

/// Prints the mean of a run a second: some rest in most of them.
fn once_a_second(sources: &mut [Timed], seconds: usize) {
    let mut sums = vec![0.0; sources.len()];
    for second in 0..=seconds {
        for (sum, source) in sums.iter_mut().zip(&mut *sources) {
            let milliseconds = source.run();
            // The first run opens files.
            *sum += if second == 0 { 0.0 } else { milliseconds };
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    for (sum, source) in sums.iter().zip(&*sources) {
        println!("{:12} {:.3} ms a second", source.name, sum / seconds as f64);
    }
    println!("all          {:.3} ms a second", sums.iter().sum::<f64>() / seconds as f64);
}

/// A source with one collector.
struct Timed {
    name: &'static str,
    source: HostSource,
    host: Host,
    status: Collectors,
}

impl Timed {
    fn new(info: &CollectorInfo, tailnet: &Arc<Tailnet>) -> Self {
        let mut source = HostSource::new(Paths::default(), |other| other.name == info.name);
        source.follow(tailnet);
        Self { name: info.name, source, host: Host::default(), status: Collectors::default() }
    }

    /// Milliseconds of CPU time.
    fn run(&mut self) -> f64 {
        let started = cpu_time();
        self.source.collect(&mut self.host, &mut self.status);
        (cpu_time() - started).as_secs_f64() * 1e3
    }
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
