//! What is known of tailscaled by thread only: waiting for a CPU, and context switches
//! (Documentation/scheduler/sched-stats.rst, proc_pid_status(5)).
//!
//! The kernel's figures of a thread go with it, so they are added up here by increments.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sources::host::proc_file::{is_gone, number, open, read_of_process};
use crate::sources::host::{HostError, malformed};

/// Switches are in a file that costs more than all others together: they are read so many times as seldom as threads
/// are listed …
const SWITCHES_FACTOR: u32 = 10;
/// … or so seldom, and then of threads only that ran since.
const SWITCHES_INTERVAL: Duration = Duration::from_secs(5);
/// How often threads are listed though there are as many as before and none of them ended.
const LIST_INTERVAL: Duration = Duration::from_secs(10);
/// More than three numbers of 64 bits take.
const SCHEDSTAT_BYTES: usize = 128;
/// Threads that are followed, each by an open file: half of the files that a service may open by default.
const MOST: usize = 256;

/// Sums over the threads that are ([`MOST`] of them), and those that were since this began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sources) struct Sums {
    /// Time that threads were ready to run and had to wait.
    pub(in crate::sources) delay_nanoseconds: u64,
    /// Time that threads ran.
    pub(in crate::sources) run_nanoseconds: u64,
    /// Times that a thread gave its CPU up by itself.
    pub(in crate::sources) voluntary_switches: u64,
    /// Times that a thread was made to give its CPU up.
    pub(in crate::sources) involuntary_switches: u64,
}

/// Last figures of a thread, with its open schedstat.
#[derive(Debug)]
struct Thread {
    schedstat: File,
    last: Sums,
    /// How often it got a CPU; 0 where the kernel does not count that.
    runs: u64,
    /// The same when its switches were read.
    switches_at: Option<u64>,
}

/// Threads of one process.
#[derive(Debug, Default)]
pub(in crate::sources) struct Threads {
    by_id: HashMap<i32, Thread>,
    sums: Sums,
    listed: Option<Instant>,
    /// When switches were read; never, if they are left out.
    switches_read: Option<Instant>,
    leave_out_switches: bool,
}

impl Threads {
    /// Without counts of switches.
    pub(in crate::sources) fn without_switches() -> Self {
        Self { leave_out_switches: true, ..Self::default() }
    }

    /// How many threads are followed.
    pub(in crate::sources) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Sums so far; `None` when the kernel keeps no run-queue delay. Threads are listed anew when the last list is
    /// older than `interval`: a thread that comes and goes in between is not seen.
    pub(in crate::sources) fn update(
        &mut self,
        process: &Path,
        interval: Duration,
    ) -> Result<Option<Sums>, HostError> {
        let tasks = process.join("task");
        if self.listed.is_none_or(|listed| listed.elapsed() >= interval) {
            self.list(&tasks)?;
        }
        self.read(&tasks)?;
        self.read_switches(&tasks, interval * SWITCHES_FACTOR)?;
        Ok(self.sums())
    }

    /// As [`Self::update`], of a process that has `count` threads. These are listed anew when others than before must be
    /// among them.
    pub(super) fn follow(&mut self, process: &Path, count: u64) -> Result<Option<Sums>, HostError> {
        let tasks = process.join("task");
        let as_many = self.by_id.len() as u64 == count.min(MOST as u64);
        let recent = self.listed.is_some_and(|listed| listed.elapsed() < LIST_INTERVAL);
        if !(as_many && recent) {
            self.list(&tasks)?;
        }
        if self.read(&tasks)? && as_many && recent {
            // Another one has come in its place.
            self.list(&tasks)?;
            self.read(&tasks)?;
        }
        self.read_switches(&tasks, SWITCHES_INTERVAL)?;
        Ok(self.sums())
    }

    fn sums(&self) -> Option<Sums> {
        (!self.by_id.is_empty()).then_some(self.sums)
    }

    /// Says whether a thread ended.
    fn read(&mut self, tasks: &Path) -> Result<bool, HostError> {
        let before = self.by_id.len();
        let mut failure = None;
        self.by_id.retain(|id, thread| {
            let mut buffer = [0; SCHEDSTAT_BYTES];
            match thread.schedstat.read_at(&mut buffer, 0) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    match parse(&text) {
                        Some((ran, waited, runs)) => {
                            let Sums { run_nanoseconds, delay_nanoseconds, .. } = &mut self.sums;
                            advance(run_nanoseconds, &mut thread.last.run_nanoseconds, ran);
                            advance(delay_nanoseconds, &mut thread.last.delay_nanoseconds, waited);
                            thread.runs = runs;
                        }
                        None => failure = Some(malformed(schedstat(tasks, *id), "three counts", &text)),
                    }
                    true
                }
                // It ended.
                Err(_) => false,
            }
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(self.by_id.len() < before),
        }
    }

    fn list(&mut self, tasks: &Path) -> Result<(), HostError> {
        let entries = match fs::read_dir(tasks) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => {
                self.by_id.clear();
                return Ok(());
            }
            Err(source) => return Err(HostError::Read { path: tasks.to_owned(), source }),
        };
        let mut there = HashSet::with_capacity(self.by_id.len());
        for entry in entries.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| number(Some(name))) else { continue };
            there.insert(id);
            if self.by_id.len() < MOST && !self.by_id.contains_key(&id) {
                // Gone already, or a kernel without the figure.
                let Ok(schedstat) = open(&schedstat(tasks, id)) else { continue };
                let thread = Thread { schedstat, last: Sums::default(), runs: 0, switches_at: None };
                self.by_id.insert(id, thread);
            }
        }
        self.by_id.retain(|id, _| there.contains(id));
        self.listed = Some(Instant::now());
        Ok(())
    }

    /// Reads the switches of threads that may have had some, if that is due. A thread that runs has one more ahead of it;
    /// if it does not run again afterwards, that one is not seen.
    fn read_switches(&mut self, tasks: &Path, interval: Duration) -> Result<(), HostError> {
        if self.leave_out_switches || self.switches_read.is_some_and(|read| read.elapsed() < interval) {
            return Ok(());
        }
        self.switches_read = Some(Instant::now());
        let mut outcome = Ok(());
        for (id, thread) in &mut self.by_id {
            if thread.runs == 0 || thread.switches_at != Some(thread.runs) {
                // Whatever fails, no thread is forgotten: it would be added anew with all that it ever did.
                let read = switches(thread, &mut self.sums, &tasks.join(id.to_string()).join("status"));
                outcome = outcome.and(read);
            }
        }
        outcome
    }
}

fn switches(thread: &mut Thread, sums: &mut Sums, status: &Path) -> Result<(), HostError> {
    let Some(text) = read_of_process(status)? else { return Ok(()) };
    for (key, sum, last) in [
        ("voluntary_ctxt_switches:", &mut sums.voluntary_switches, &mut thread.last.voluntary_switches),
        (
            "nonvoluntary_ctxt_switches:",
            &mut sums.involuntary_switches,
            &mut thread.last.involuntary_switches,
        ),
    ] {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        if let Some(now) = number(line.map(str::trim)) {
            advance(sum, last, now);
        }
    }
    thread.switches_at = Some(thread.runs);
    Ok(())
}

fn schedstat(tasks: &Path, id: i32) -> PathBuf {
    tasks.join(id.to_string()).join("schedstat")
}

/// Nanoseconds that a thread ran and that it waited, and how often it got a CPU.
fn parse(text: &str) -> Option<(u64, u64, u64)> {
    let mut words = text.split_ascii_whitespace();
    let counts = [(); 3].map(|()| number(words.next()));
    let [Some(ran), Some(waited), Some(runs)] = counts else { return None };
    Some((ran, waited, runs))
}

/// Adds what came since `last`; less than that is the figure of another thread with the same number.
fn advance(sum: &mut u64, last: &mut u64, now: u64) {
    *sum = sum.saturating_add(now.checked_sub(*last).unwrap_or(now));
    *last = now;
}

#[cfg(test)]
mod tests {
    use procfs::FromRead as _;

    use super::*;

    fn thread(process: &Path, id: i32, delay: u64, switches: (u64, u64)) {
        let directory = process.join("task").join(id.to_string());
        fs::create_dir_all(&directory).unwrap();
        let (voluntary, involuntary) = switches;
        fs::write(directory.join("schedstat"), format!("5 {delay} {}\n", voluntary + involuntary)).unwrap();
        let status = format!(
            "Name:\tx\nvoluntary_ctxt_switches:\t{voluntary}\nnonvoluntary_ctxt_switches:\t{involuntary}\n"
        );
        fs::write(directory.join("status"), status).unwrap();
    }

    #[test]
    fn the_end_of_a_thread_does_not_turn_the_sums_back() {
        let root = tempfile::tempdir().unwrap();
        let mut threads = Threads::default();
        let mut update = || threads.update(root.path(), Duration::ZERO).unwrap();
        thread(root.path(), 1, 1_000, (10, 1));
        thread(root.path(), 2, 2_000, (20, 2));
        let sums = |delay_nanoseconds, run_nanoseconds, voluntary_switches, involuntary_switches| {
            Some(Sums { delay_nanoseconds, run_nanoseconds, voluntary_switches, involuntary_switches })
        };
        assert_eq!(update(), sums(3_000, 10, 30, 3));
        fs::remove_dir_all(root.path().join("task/2")).unwrap();
        thread(root.path(), 1, 1_500, (11, 1));
        assert_eq!(update(), sums(3_500, 10, 31, 3));
        thread(root.path(), 1, 250, (2, 0));
        assert_eq!(update(), sums(3_750, 10, 33, 3), "less than before is another thread");
        fs::remove_dir_all(root.path().join("task")).unwrap();
        assert_eq!(update(), None);
    }

    #[test]
    fn what_cannot_be_read_once_is_not_counted_twice_later() {
        let root = tempfile::tempdir().unwrap();
        let mut threads = Threads::default();
        for id in 1..=8 {
            thread(root.path(), id, 1_000, (10, 1));
        }
        assert_eq!(threads.update(root.path(), Duration::ZERO).unwrap().unwrap().delay_nanoseconds, 8_000);
        let status = root.path().join("task/3/status");
        thread(root.path(), 3, 1_000, (11, 1));
        fs::remove_file(&status).unwrap();
        fs::create_dir(&status).unwrap();
        let error = threads.update(root.path(), Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("task/3/status"), "{error}");
        fs::remove_dir(&status).unwrap();
        thread(root.path(), 3, 1_001, (11, 1));
        let sums = threads.update(root.path(), Duration::ZERO).unwrap().unwrap();
        assert_eq!((sums.delay_nanoseconds, sums.voluntary_switches), (8_001, 81));
    }

    #[test]
    fn no_more_threads_are_followed_than_there_are_files_for() {
        let root = tempfile::tempdir().unwrap();
        let mut threads = Threads::default();
        for id in 1..=MOST as i32 + 9 {
            thread(root.path(), id, 1, (1, 1));
        }
        let sums = threads.update(root.path(), Duration::ZERO).unwrap().unwrap();
        assert_eq!((sums.delay_nanoseconds, sums.voluntary_switches), (MOST as u64, MOST as u64));
    }

    #[test]
    fn threads_are_listed_when_others_must_be_among_them() {
        let root = tempfile::tempdir().unwrap();
        let mut threads = Threads::default();
        thread(root.path(), 1, 1_000, (1, 0));
        thread(root.path(), 2, 2_000, (1, 0));
        let delay = |threads: &mut Threads, count| {
            threads.follow(root.path(), count).unwrap().unwrap().delay_nanoseconds
        };
        assert_eq!(delay(&mut threads, 2), 3_000);
        thread(root.path(), 3, 500, (1, 0));
        assert_eq!(delay(&mut threads, 2), 3_000, "nothing says that there is another one");
        assert_eq!(delay(&mut threads, 3), 3_500);
        fs::remove_dir_all(root.path().join("task/2")).unwrap();
        assert_eq!(delay(&mut threads, 2), 3_500);
        assert_eq!(threads.len(), 2);
    }

    #[test]
    fn a_thread_that_ends_as_another_one_comes_has_it_found_at_once() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let first = std::thread::spawn(move || stopped.recv().is_err());
        let tasks = Path::new("/proc/self/task");
        let mut threads = Threads::default();
        threads.list(tasks).unwrap();
        drop(stop);
        assert!(first.join().unwrap());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let second = std::thread::spawn(move || {
            ready.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            stopped.recv().is_err()
        });
        let id = is_ready.recv().unwrap();
        let started = Instant::now();
        while !threads.by_id.contains_key(&id) {
            assert!(started.elapsed() < LIST_INTERVAL, "{id} is not found");
            threads.follow(Path::new("/proc/self"), threads.len() as u64).unwrap();
        }
        drop(stop);
        assert!(second.join().unwrap());
    }

    #[test]
    fn switches_are_read_of_threads_that_ran_since() {
        let root = tempfile::tempdir().unwrap();
        let mut threads = Threads::default();
        let mut switches = |expected| {
            let sums = threads.update(root.path(), Duration::ZERO).unwrap().unwrap();
            assert_eq!(sums.voluntary_switches, expected);
        };
        thread(root.path(), 1, 0, (5, 0));
        switches(5);
        let schedstat = root.path().join("task/1/schedstat");
        thread(root.path(), 1, 0, (6, 0));
        fs::write(&schedstat, "5 0 5\n").unwrap();
        switches(5);
        fs::write(&schedstat, "5 0 6\n").unwrap();
        switches(6);
        // A kernel that does not count them.
        fs::write(&schedstat, "0 0 0\n").unwrap();
        switches(6);
        thread(root.path(), 1, 0, (9, 0));
        fs::write(&schedstat, "0 0 0\n").unwrap();
        switches(9);
    }

    #[test]
    fn a_malformed_schedstat_is_named() {
        let root = tempfile::tempdir().unwrap();
        thread(root.path(), 1, 1, (0, 0));
        fs::write(root.path().join("task/1/schedstat"), "many").unwrap();
        let error = Threads::default().update(root.path(), Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("task/1/schedstat") && error.contains("three counts"), "{error}");
    }

    #[test]
    fn a_schedstat_is_what_procfs_makes_of_it() {
        for text in ["0 0 0\n", "829018 257290 30\n", "18446744073709551615 1 2\n"] {
            let expected = procfs::process::Schedstat::from_read(text.as_bytes()).unwrap();
            let expected = (expected.sum_exec_runtime, expected.run_delay, expected.pcount);
            assert_eq!(parse(text), Some(expected));
        }
        for text in ["", "1\n", "1 2\n", "1 -2 3\n", "1 x 3\n", "99999999999999999999 1 1\n"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn this_process_switches() {
        let sums = Threads::default().update(Path::new("/proc/self"), Duration::ZERO).unwrap().unwrap();
        assert!(sums.voluntary_switches + sums.involuntary_switches > 0);
    }
}
