//! Collector `tailscaled`: the process of that name (proc_pid_stat(5), Documentation/scheduler/sched-stats.rst).
//!
//! procfs' `Stat` is not used: it panics on a line whose parentheses are out of order.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procfs::FromRead;
use procfs::process::Schedstat;

use super::proc_file::{ProcFile, is_gone, number, read_of_process};
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Tailscaled};

/// Content of /proc/PID/comm.
const NAME: &str = "tailscaled";

/// Remembers which process it was.
#[derive(Default)]
pub(super) struct TailscaledCollector {
    known: Option<Known>,
    boot_time: ProcFile,
    /// How many collections may pass before the whole of /proc is searched again.
    pause: u32,
}

/// A process, told apart from a later one with the same id by its start.
struct Known {
    pid: i32,
    started_ticks: u64,
    start_time: Duration,
    delay: RunQueueDelay,
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
        let known = self.known.take();
        let mut stat = None;
        if let Some(known) = &known {
            stat =
                read_stat(&paths.procfs, known.pid)?.filter(|stat| stat.started_ticks == known.started_ticks);
        }
        let (mut known, stat) = match known.zip(stat) {
            Some(same) => same,
            None => match self.search(paths)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        let process = paths.procfs.join(known.pid.to_string());
        let found = Tailscaled {
            pid: known.pid,
            start_time: known.start_time,
            user_seconds: stat.user_seconds,
            system_seconds: stat.system_seconds,
            run_queue_delay_seconds: known.delay.update(&process.join("task"))?,
            threads: stat.threads,
            resident_bytes: stat.resident_bytes,
            virtual_bytes: stat.virtual_bytes,
            open_fds: open_fds(&process.join("fd")),
        };
        self.known = Some(known);
        Ok(Some(found))
    }
}

impl TailscaledCollector {
    /// Looks through all processes; while there is none, only every tenth time, since that is the dear part.
    fn search(&mut self, paths: &Paths) -> Result<Option<(Known, Stat)>, HostError> {
        const EVERY: u32 = 10;
        if self.pause > 0 {
            self.pause -= 1;
            return Ok(None);
        }
        let Some((pid, stat)) = find(&paths.procfs)? else {
            self.pause = EVERY - 1;
            return Ok(None);
        };
        let boot = self.boot_time.parse(&paths.procfs, "stat", |text| {
            let line = text.lines().find_map(|line| line.strip_prefix("btime "));
            number(line).ok_or(super::proc_file::Bad::Missing("btime"))
        })?;
        let since_boot = stat.started_ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        let start_time = Duration::from_secs(boot)
            .saturating_add(Duration::try_from_secs_f64(since_boot).unwrap_or_default());
        let delay = RunQueueDelay::default();
        Ok(Some((Known { pid, started_ticks: stat.started_ticks, start_time, delay }, stat)))
    }
}

/// The oldest process named tailscaled: its children (SSH sessions) carry the name, too.
fn find(procfs: &Path) -> Result<Option<(i32, Stat)>, HostError> {
    let entries =
        fs::read_dir(procfs).map_err(|source| HostError::Read { path: procfs.to_owned(), source })?;
    let mut oldest: Option<(i32, Stat)> = None;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| number::<i32>(Some(name))) else {
            continue;
        };
        let is_it =
            fs::read(entry.path().join("comm")).is_ok_and(|comm| comm.trim_ascii_end() == NAME.as_bytes());
        if !is_it {
            continue;
        }
        if let Some(stat) = read_stat(procfs, pid)?
            && oldest.as_ref().is_none_or(|(_, other)| stat.started_ticks < other.started_ticks)
        {
            oldest = Some((pid, stat));
        }
    }
    Ok(oldest)
}

/// What is used of /proc/PID/stat.
#[derive(Debug, PartialEq)]
struct Stat {
    user_seconds: f64,
    system_seconds: f64,
    threads: u64,
    started_ticks: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

fn read_stat(procfs: &Path, pid: i32) -> Result<Option<Stat>, HostError> {
    let path = procfs.join(pid.to_string()).join("stat");
    let Some(text) = read_of_process(&path)? else { return Ok(None) };
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as u64;
    match parse_stat(&text, ticks, page) {
        Some(stat) => Ok(Some(stat)),
        None => Err(malformed(path, "at least 24 columns of proc_pid_stat(5)", &text)),
    }
}

/// Columns are counted after the name, which may hold blanks and parentheses.
fn parse_stat(text: &str, ticks_per_second: f64, page_bytes: u64) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    // Column 3 (state) is the first here.
    let columns: Vec<&str> = rest.split_ascii_whitespace().take(22).collect();
    let column = |number_in_manual: usize| number::<u64>(columns.get(number_in_manual - 3).copied());
    Some(Stat {
        user_seconds: column(14)? as f64 / ticks_per_second,
        system_seconds: column(15)? as f64 / ticks_per_second,
        threads: column(20)?,
        started_ticks: column(22)?,
        virtual_bytes: column(23)?,
        resident_bytes: column(24)?.saturating_mul(page_bytes),
    })
}

/// Waiting for a CPU, added up over threads by increments: the kernel's figure of a thread goes with it.
#[derive(Default)]
struct RunQueueDelay {
    by_thread: HashMap<i32, u64>,
    total_nanoseconds: u64,
}

impl RunQueueDelay {
    /// Seconds so far; `None` when the kernel keeps no such count.
    fn update(&mut self, tasks: &Path) -> Result<Option<f64>, HostError> {
        let entries = match fs::read_dir(tasks) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(source) => return Err(HostError::Read { path: tasks.to_owned(), source }),
        };
        let mut now = HashMap::with_capacity(self.by_thread.len());
        for entry in entries.flatten() {
            let Some(thread) = entry.file_name().to_str().and_then(|name| number(Some(name))) else {
                continue;
            };
            let path = entry.path().join("schedstat");
            let Some(text) = read_of_process(&path)? else { continue };
            let Ok(stat) = Schedstat::from_read(text.as_bytes()) else {
                return Err(malformed(path, "three counts", &text));
            };
            now.insert(thread, stat.run_delay);
        }
        Ok(self.advance(now))
    }

    fn advance(&mut self, now: HashMap<i32, u64>) -> Option<f64> {
        for (thread, delay) in &now {
            // Less than before: the thread's number was given to a new one.
            let before = self.by_thread.get(thread).filter(|before| *before <= delay).unwrap_or(&0);
            self.total_nanoseconds = self.total_nanoseconds.saturating_add(delay - before);
        }
        self.by_thread = now;
        (!self.by_thread.is_empty()).then_some(self.total_nanoseconds as f64 / 1e9)
    }
}

fn open_fds(directory: &Path) -> Option<u64> {
    // Since kernel 6.2 the directory's size is the number of open files, for everyone; before, it is 0.
    let size = fs::metadata(directory).ok()?.len();
    if size > 0 {
        return Some(size);
    }
    fs::read_dir(directory).ok().map(|entries| entries.count() as u64)
}

fn malformed(path: PathBuf, expected: &'static str, text: &str) -> HostError {
    HostError::Malformed { path, line: 1, expected, found: text.chars().take(80).collect() }
}

#[cfg(test)]
mod tests {
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
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join("stat"), "cpu 1 2 3 4\nbtime 1000\n").unwrap();
            Self(root)
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
            Paths { procfs: self.0.path().to_owned(), ..Paths::default() }
        }
    }

    #[test]
    fn a_restart_is_a_new_process_even_under_the_same_id() {
        let procfs = Procfs::new();
        procfs.process(77, 4200, 1_000_000_000);
        let mut collector = TailscaledCollector::default();
        let first = collector.collect(&procfs.paths()).unwrap().unwrap();
        assert_eq!((first.pid, first.start_time), (77, Duration::from_secs(1042)));
        assert_eq!(first.run_queue_delay_seconds, Some(1.0));
        procfs.process(77, 5200, 500_000_000);
        let second = collector.collect(&procfs.paths()).unwrap().unwrap();
        assert_eq!(second.start_time, Duration::from_secs(1052));
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
        let tries = (1..=10).find(|_| {
            collector.run(&procfs.paths(), &mut host).unwrap();
            host.tailscaled.is_some()
        });
        assert_eq!(tries, Some(10));
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
    fn the_end_of_a_thread_does_not_turn_the_delay_back() {
        let mut delay = RunQueueDelay::default();
        assert_eq!(delay.advance(HashMap::from([(1, 1_000_000_000), (2, 2_000_000_000)])), Some(3.0));
        assert_eq!(delay.advance(HashMap::from([(1, 1_500_000_000)])), Some(3.5));
        assert_eq!(delay.advance(HashMap::from([(1, 1_500_000_000), (2, 250_000_000)])), Some(3.75));
        let reused = HashMap::from([(1, 1_500_000_000), (2, 125_000_000)]);
        assert_eq!(delay.advance(reused), Some(3.875), "less than before is another thread");
        assert_eq!(delay.advance(HashMap::new()), None);
    }

    #[test]
    fn this_process_has_a_delay_and_files() {
        let own = Path::new("/proc/self");
        assert!(RunQueueDelay::default().update(&own.join("task")).unwrap().is_some());
        assert!(open_fds(&own.join("fd")).unwrap() >= 3);
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_nothing(text in "[0-9() a-zS-]{0,120}") {
            let _ = parse_stat(&text, 100.0, 4096);
        }
    }
}
