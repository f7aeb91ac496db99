//! What `/compat/node` shows: read when somebody asks for it, and only what they ask for.
//!
//! Names, filters and meanings are node_exporter's (1.12, and 1.5 where that has more); one file a collector, the
//! parsers of the other host collectors wherever they fit.

mod clock;
mod cpu;
mod diag;
mod diskstats;
mod filesystem;
mod meminfo;
mod mounts;
mod netclass;
mod netdev;
mod netstat;
mod os;
mod processes;
mod sockstat;
mod sysfs;
mod throttles;
mod udev;
mod udp;
mod uname;
mod vmstat;

use std::time::{Duration, Instant};

use super::conntrack::ConntrackCollector;
use super::loadavg::LoadavgCollector;
use super::pressure::PressureCollector;
use super::rest::Rest;
use super::softnet::SoftnetCollector;
use super::{Collector, Complaints, HostError, Paths, complain};
use crate::model::node::{Node, NodeCollector, Run, Selection};
use crate::sources::thread_time;

/// Those that walk all processes or TCP sockets, however many there are.
const WALKS: [NodeCollector; 2] = [NodeCollector::Processes, NodeCollector::Tcpstat];
/// They rest after a run for so many times what it cost …
const REST_FACTOR: u32 = 100;
/// … and no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    All,
    /// Something is missing, which counts as a failure, and the rest is shown.
    Part,
    /// This host has nothing of the kind: node_exporter calls that a failure too.
    Nothing,
}

/// Every collector, with what it keeps between runs.
#[derive(Default)]
pub struct NodeSource {
    paths: Paths,
    complaints: Complaints,
    /// Of [`WALKS`].
    rests: [Rest; WALKS.len()],
    conntrack: ConntrackCollector,
    cpu: cpu::Reader,
    diskstats: diskstats::Reader,
    filesystem: filesystem::Reader,
    loadavg: LoadavgCollector,
    meminfo: meminfo::Reader,
    netclass: netclass::Reader,
    netdev: netdev::Reader,
    netstat: netstat::Reader,
    pressure: PressureCollector,
    processes: processes::Reader,
    sockets: diag::Reader,
    sockstat: sockstat::Reader,
    softnet: SoftnetCollector,
    vmstat: vmstat::Reader,
}

impl NodeSource {
    /// Nothing is opened before it is asked for.
    #[must_use]
    pub fn new(paths: Paths) -> Self {
        Self { paths, ..Self::default() }
    }

    /// Runs the wanted collectors once. A failure is logged when it begins or changes, and takes no other collector
    /// down. Pass the same `node` each time: what a collector that rests has filled before is left as it is.
    pub fn collect(&mut self, wanted: Selection, node: &mut Node) {
        node.begin();
        self.cpu.begin();
        for collector in wanted.iter() {
            let started = Instant::now();
            let outcome = self.run_or_rest(collector, node);
            let duration = started.elapsed();
            let success = matches!(outcome, Ok(Found::All));
            let shown = matches!(outcome, Ok(Found::All | Found::Part));
            node.record(collector, Run { duration, success, shown });
            complain(&mut self.complaints, collector.name(), outcome.err());
        }
    }

    fn run_or_rest(&mut self, collector: NodeCollector, node: &mut Node) -> Result<Found, HostError> {
        let Some(walk) = WALKS.iter().position(|walk| *walk == collector) else {
            return self.run(collector, node);
        };
        if self.rests[walk].is_on() {
            return Ok(Found::All);
        }
        let began = thread_time();
        let found = self.run(collector, node)?;
        self.rests[walk].begin(rest_after(thread_time().saturating_sub(began)));
        Ok(found)
    }

    fn run(&mut self, collector: NodeCollector, node: &mut Node) -> Result<Found, HostError> {
        let paths = &self.paths;
        match collector {
            NodeCollector::Conntrack => {
                node.conntrack = self.conntrack.collect(paths)?;
                return Ok(match &node.conntrack {
                    Some(tracked) if tracked.statistics.is_some() => Found::All,
                    Some(_) => Found::Part,
                    None => Found::Nothing,
                });
            }
            NodeCollector::Cpu => self.cpu.cpus(paths, &mut node.cpus)?,
            NodeCollector::Diskstats => self.diskstats.read(paths, &mut node.disks)?,
            NodeCollector::Filesystem => self.filesystem.read(paths, &mut node.mounts)?,
            NodeCollector::Loadavg => return Ok(found(&mut node.load, self.loadavg.collect(paths)?)),
            NodeCollector::Meminfo => self.meminfo.read(paths, &mut node.meminfo)?,
            NodeCollector::Netclass => self.netclass.read(paths, &mut node.netclass)?,
            NodeCollector::Netdev => self.netdev.read(&mut node.netdev)?,
            NodeCollector::Netstat => self.netstat.read(paths, &mut node.netstat)?,
            NodeCollector::Os => return os::read(paths, &mut node.os),
            NodeCollector::Pressure => return Ok(found(&mut node.pressure, self.pressure.collect(paths)?)),
            NodeCollector::Processes => self.processes.read(paths, &mut node.processes)?,
            NodeCollector::Sockstat => self.sockstat.read(paths, &mut node.sockstat)?,
            NodeCollector::Softnet => {
                node.softnet = self.softnet.collect(paths)?.unwrap_or_default();
                node.softnet.sort_by_key(|row| row.cpu);
                node.softnet.dedup_by_key(|row| row.cpu);
            }
            NodeCollector::Stat => self.cpu.stat(paths, &mut node.stat)?,
            NodeCollector::Tcpstat => self.sockets.tcp(paths, &mut node.tcp)?,
            NodeCollector::Time => clock::read(paths, &mut node.clock),
            NodeCollector::UdpQueues => self.sockets.udp(paths, &mut node.udp)?,
            NodeCollector::Uname => uname::read(&mut node.uname),
            NodeCollector::Vmstat => self.vmstat.read(paths, &mut node.vmstat)?,
        }
        Ok(Found::All)
    }
}

/// Whoever asks how often: a hundredth of a CPU, unless one run takes longer than 100 ms.
fn rest_after(cost: Duration) -> Duration {
    (cost * REST_FACTOR).min(LONGEST_REST)
}

fn found<T>(place: &mut T, value: Option<T>) -> Found {
    match value {
        Some(value) => {
            *place = value;
            Found::All
        }
        None => Found::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Selection {
        NodeCollector::ALL.into_iter().collect()
    }

    #[test]
    fn everything_but_what_this_kernel_lacks_is_read_from_this_host() {
        let mut node = Node::default();
        let mut source = NodeSource::new(Paths::default());
        for _ in 0..2 {
            source.collect(all(), &mut node);
            for collector in NodeCollector::ALL {
                let run = node.run(collector).unwrap();
                let may_lack = matches!(collector, NodeCollector::Conntrack | NodeCollector::Pressure);
                assert!(run.success || may_lack, "{collector:?}: {:?}", source.complaints);
            }
        }
        assert!(!node.cpus.time.is_empty() && node.stat.boot_time.is_some());
        assert!(node.netclass.iter().any(|device| device.name == "lo" && device.mtu == Some(65_536)));
        assert!(node.meminfo.iter().any(|(name, bytes)| name == "MemTotal_bytes" && bytes > 1 << 20));
        assert!(node.vmstat.iter().any(|(name, _)| name == "pgfault"));
        assert!(node.processes.threads >= node.processes.processes && node.processes.processes > 0);
    }

    #[test]
    fn only_what_is_wanted_is_read() {
        let mut node = Node::default();
        let mut source = NodeSource::new(Paths::default());
        source.collect([NodeCollector::Uname].into_iter().collect(), &mut node);
        assert!(node.shown(NodeCollector::Uname) && node.run(NodeCollector::Cpu).is_none());
        source.collect([NodeCollector::Stat].into_iter().collect(), &mut node);
        assert!(node.shown(NodeCollector::Stat) && node.run(NodeCollector::Uname).is_none());
    }

    #[test]
    fn who_walks_rests_and_what_was_found_stays() {
        assert_eq!(rest_after(Duration::from_micros(50)), Duration::from_millis(5));
        assert_eq!(rest_after(Duration::from_secs(1)), LONGEST_REST);
        let root = tempfile::tempdir().unwrap();
        let kernel = root.path().join("sys/kernel");
        std::fs::create_dir_all(&kernel).unwrap();
        let mut source = NodeSource::new(Paths { procfs: root.path().to_owned(), ..Paths::default() });
        let mut node = Node::default();
        let mut read = |most: &str, rest| {
            std::fs::write(kernel.join("threads-max"), most).unwrap();
            std::fs::write(kernel.join("pid_max"), "200\n").unwrap();
            source.rests[0].begin(rest);
            source.collect([NodeCollector::Processes].into_iter().collect(), &mut node);
            (node.shown(NodeCollector::Processes), node.processes.max_threads)
        };
        let long = Duration::from_secs(600);
        assert_eq!(read("100\n", Duration::ZERO), (true, 100));
        assert_eq!(read("101\n", long), (true, 100));
        assert_eq!(read("102\n", Duration::ZERO), (true, 102));
        assert!(!read("many\n", Duration::ZERO).0);
        assert_eq!(read("103\n", Duration::ZERO), (true, 103), "a failure is no reason to rest");
    }

    #[test]
    fn connection_tracking_without_statistics_is_shown_in_part() {
        let root = tempfile::tempdir().unwrap();
        let netfilter = root.path().join("sys/net/netfilter");
        std::fs::create_dir_all(&netfilter).unwrap();
        std::fs::write(netfilter.join("nf_conntrack_count"), "7\n").unwrap();
        std::fs::write(netfilter.join("nf_conntrack_max"), "9\n").unwrap();
        let mut source = NodeSource::new(Paths { procfs: root.path().to_owned(), ..Paths::default() });
        let mut node = Node::default();
        source.collect(all(), &mut node);
        let run = node.run(NodeCollector::Conntrack).unwrap();
        assert_eq!(
            (run.success, run.shown, node.conntrack.map(|table| table.entries)),
            (false, true, Some(7))
        );
    }

    #[test]
    fn one_bad_file_takes_no_other_collector_down_and_shows_nothing() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        write("meminfo", "MemTotal: 1 kB\n");
        write("loadavg", "0.10 0.96 1.05 1/91 19623\n");
        let paths =
            Paths { procfs: root.path().to_owned(), sysfs: root.path().to_owned(), ..Paths::default() };
        let mut source = NodeSource::new(paths);
        let mut node = Node::default();
        source.collect(all(), &mut node);
        assert!(node.shown(NodeCollector::Meminfo) && node.shown(NodeCollector::Loadavg));
        for collector in [NodeCollector::Cpu, NodeCollector::Vmstat, NodeCollector::Conntrack] {
            assert_eq!(node.run(collector).map(|run| (run.success, run.shown)), Some((false, false)));
        }
        write("meminfo", "MemTotal\n");
        source.collect(all(), &mut node);
        assert!(!node.shown(NodeCollector::Meminfo) && node.shown(NodeCollector::Loadavg));
        assert!(source.complaints["meminfo"].contains("meminfo, line 1"), "{:?}", source.complaints);
    }
}
