//! Collector `tailscaled`: its process (proc_pid_stat(5), proc_pid_status(5)).
//!
//! procfs' `Stat` is not used: it panics on a line whose parentheses are out of order.

mod process;
mod threads;

use std::fs;
use std::path::Path;

use super::cpu_list::CpuList;
use super::proc_file::{ProcFile, number, unless_gone};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Tailscaled};

pub(in crate::sources) use process::{Finder, Process, Stat};
pub(in crate::sources) use threads::Threads;

/// Remembers which process it was.
#[derive(Default)]
pub(super) struct TailscaledCollector {
    finder: Finder,
    known: Option<Known>,
    online: CpuList,
}

/// A process with what is kept open of it.
struct Known {
    process: Process,
    threads: Threads,
    status: ProcFile,
    limits: ProcFile,
}

impl Known {
    fn new(process: Process) -> Self {
        let (status, limits) = (ProcFile::default(), ProcFile::default());
        Self { process, threads: Threads::default(), status, limits }
    }
}

impl Collector for TailscaledCollector {
    const NAME: &'static str = "tailscaled";
    const HELP: &'static str =
        "CPU, memory, run-queue delay and file descriptors of tailscaled from /proc/PID";
    type Output = Tailscaled;

    fn field(host: &mut Host) -> &mut Option<Tailscaled> {
        &mut host.tailscaled
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Tailscaled>, HostError> {
        let Some((process, stat)) = self.finder.find(paths)? else {
            self.known = None;
            return Ok(None);
        };
        let known = self.known.take().filter(|known| known.process == process);
        let Known { threads, status, limits, .. } =
            self.known.insert(known.unwrap_or_else(|| Known::new(process)));
        let directory = paths.procfs.join(process.pid.to_string());
        let sums = threads.follow(&directory, stat.threads)?;
        let max_fds = unless_gone(limits.parse_whole(&directory, "limits", |text| Ok(max_fds(text))))?;
        self.online.read(&paths.sysfs.join("devices/system/cpu"), "online")?;
        let online = &self.online;
        let status =
            unless_gone(status.parse_whole(&directory, "status", |text| Ok(Status::parse(text, online))))?;
        let Status { swapped_bytes, allowed_cpus } = status.unwrap_or_default();
        Ok(Some(Tailscaled {
            pid: process.pid,
            started: process.started(),
            user_seconds: stat.user_seconds,
            system_seconds: stat.system_seconds,
            run_queue_delay_seconds: sums.map(|sums| sums.delay_nanoseconds as f64 / 1e9),
            voluntary_context_switches: sums.map(|sums| sums.voluntary_switches),
            involuntary_context_switches: sums.map(|sums| sums.involuntary_switches),
            threads: stat.threads,
            resident_bytes: stat.resident_bytes,
            virtual_bytes: stat.virtual_bytes,
            swapped_bytes,
            open_fds: open_fds(&directory.join("fd")),
            max_fds: max_fds.flatten(),
            allowed_cpus,
        }))
    }
}

/// What is used of /proc/PID/status.
#[derive(Default)]
struct Status {
    swapped_bytes: Option<u64>,
    allowed_cpus: Option<u32>,
}

impl Status {
    fn parse(text: &str, online: &CpuList) -> Self {
        let mut status = Self::default();
        for line in text.lines() {
            if let Some(value) = line.strip_prefix("VmSwap:") {
                let kibibytes = number::<u64>(value.trim().strip_suffix(" kB"));
                status.swapped_bytes = kibibytes.map(|kibibytes| kibibytes.saturating_mul(1024));
            } else if let Some(list) = line.strip_prefix("Cpus_allowed_list:") {
                // That a CPU may come some day, or is offline, does not keep it from being named here; and not knowing which
                // ones are there is not the same as none.
                status.allowed_cpus = online.count_in(list.trim()).filter(|cpus| *cpus > 0);
            }
        }
        status
    }
}

/// Soft limit of /proc/PID/limits.
fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    number(line.split_ascii_whitespace().next())
}

fn open_fds(directory: &Path) -> Option<u64> {
    // Since kernel 6.2 the directory's size is the number of open files, for everyone; before, it is 0.
    let size = fs::metadata(directory).ok()?.len();
    if size > 0 {
        return Some(size);
    }
    fs::read_dir(directory).ok().map(|entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::process::parse_stat;
    use super::*;
    use crate::model::host::Host;
    use crate::sources::host::Run;
    use proptest::prelude::*;

    const STAT: &str =
        "77 (tail) (d) S 1 77 77 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 11 0 4200 1300000000 2500 184\n";

    #[test]
    fn columns_after_a_name_with_parentheses() {
        let stat = parse_stat(STAT, 100.0, 4096).unwrap();
        assert_eq!((stat.user_seconds, stat.system_seconds), (2.5, 0.5));
        assert_eq!((stat.threads, stat.started_ticks), (11, 4200));
        assert_eq!((stat.virtual_bytes, stat.resident_bytes), (1_300_000_000, 2500 * 4096));
    }

    /// A procfs with one tailscaled.
    struct Procfs(tempfile::TempDir);

    impl Procfs {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn process(&self, pid: i32, started_ticks: u64, delay_nanoseconds: u64) {
            self.write(&format!("{pid}/comm"), "tailscaled\n");
            self.write(&format!("{pid}/stat"), &STAT.replace("4200", &started_ticks.to_string()));
            self.write(&format!("{pid}/task/{pid}/schedstat"), &format!("5 {delay_nanoseconds} 7\n"));
            fs::create_dir_all(self.0.path().join(format!("{pid}/fd"))).unwrap();
        }

        fn paths(&self) -> Paths {
            Paths {
                procfs: self.0.path().to_owned(),
                sysfs: self.0.path().join("sys"),
                localapi: self.0.path().join("none"),
                ..Paths::default()
            }
        }
    }

    #[test]
    fn a_restart_is_a_new_process_even_under_the_same_id() {
        let procfs = Procfs::new();
        procfs.process(77, 4200, 1_000_000_000);
        let mut collector = TailscaledCollector::default();
        let first = collector.collect(&procfs.paths()).unwrap().unwrap();
        assert_eq!((first.pid, first.started), (77, Duration::from_secs(42)));
        assert_eq!(first.run_queue_delay_seconds, Some(1.0));
        procfs.process(77, 5205, 500_000_000);
        let second = collector.collect(&procfs.paths()).unwrap().unwrap();
        assert_eq!(second.started, Duration::from_millis(52_050));
        assert_eq!(second.run_queue_delay_seconds, Some(0.5), "not added to that of the old process");
    }

    #[test]
    fn the_oldest_of_several_is_the_daemon() {
        let procfs = Procfs::new();
        procfs.process(90, 9000, 0);
        procfs.process(91, 4200, 0);
        procfs.write("12/comm", "tailscale\n");
        let found = TailscaledCollector::default().collect(&procfs.paths()).unwrap().unwrap();
        assert_eq!(found.pid, 91);
    }

    #[test]
    fn no_such_process_is_no_failure_and_it_is_found_when_it_comes() {
        let procfs = Procfs::new();
        let mut collector = TailscaledCollector::default();
        let mut host = Host::default();
        collector.run(&procfs.paths(), &mut host).unwrap();
        assert_eq!(host.tailscaled, None);
        procfs.process(77, 4200, 0);
        collector.run(&procfs.paths(), &mut host).unwrap();
        assert_eq!(host.tailscaled, None, "it was looked for just now");
        collector.finder.missed = None;
        collector.run(&procfs.paths(), &mut host).unwrap();
        assert_eq!(host.tailscaled.map(|found| found.pid), Some(77));
    }

    #[test]
    fn a_malformed_line_is_named_and_clears_the_field() {
        let procfs = Procfs::new();
        procfs.process(77, 4200, 0);
        let mut collector = TailscaledCollector::default();
        let mut host = Host::default();
        collector.run(&procfs.paths(), &mut host).unwrap();
        procfs.write("77/stat", "77 )( S 1");
        let error = collector.run(&procfs.paths(), &mut host).unwrap_err().to_string();
        assert!(error.contains("77/stat") && error.contains("line 1"), "{error}");
        assert_eq!(host.tailscaled, None);
    }

    #[test]
    fn limits() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            20000                524288               files     \n";
        assert_eq!((max_fds(limits), max_fds("Max open files unlimited")), (Some(20_000), None));
    }

    #[test]
    fn cpus_that_are_not_there_or_offline_are_not_allowed() {
        let procfs = Procfs::new();
        procfs.process(77, 4200, 0);
        let status = |cpus| format!("VmSwap:\t      12 kB\nCpus_allowed:\tf\nCpus_allowed_list:\t{cpus}\n");
        let mut collector = TailscaledCollector::default();
        for (allowed, online, expected) in [
            ("0-127", Some("0-3\n"), Some(4)),
            ("0-127", Some("0,2-3\n"), Some(3)),
            ("2-3", Some("0-3\n"), Some(2)),
            ("8", Some("0-3\n"), None),
            ("3-1", Some("0-3\n"), None),
            ("0-127", None, None),
        ] {
            procfs.write("77/status", &status(allowed));
            let path = procfs.0.path().join("sys/devices/system/cpu/online");
            match online {
                Some(online) => procfs.write("sys/devices/system/cpu/online", online),
                None => fs::remove_file(path).unwrap(),
            }
            // It may have the file open that was removed.
            collector.online = CpuList::default();
            let found = collector.collect(&procfs.paths()).unwrap().unwrap();
            assert_eq!((found.swapped_bytes, found.allowed_cpus), (Some(12 << 10), expected), "{allowed}");
        }
    }

    #[test]
    fn this_process_is_taken_for_tailscaled_when_it_listens_on_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let localapi = directory.path().join("tailscaled.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&localapi).unwrap();
        let paths = Paths { localapi, ..Paths::default() };
        let found = TailscaledCollector::default().collect(&paths).unwrap().unwrap();
        assert_eq!(found.pid as u32, std::process::id());
        assert!(found.open_fds.unwrap() >= 3 && found.max_fds > found.open_fds);
        assert!(found.run_queue_delay_seconds.is_some());
        let allowed = rustix::thread::sched_getaffinity(None).unwrap().count();
        assert_eq!(found.allowed_cpus, Some(allowed), "as the scheduler sees it");
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_nothing(text in "[0-9() a-zS-]{0,120}") {
            let _ = (parse_stat(&text, 100.0, 4096), max_fds(&text));
        }
    }
}
