//! What is known of tailscaled by thread only: waiting for a CPU, and context switches
//! (Documentation/scheduler/sched-stats.rst, proc_pid_status(5)).
//!
//! The kernel's figures of a thread go with it, so they are added up here by increments. What a thread did before it was
//! followed belongs to the totals if it began since the threads were listed before, but never to a sample, which is of
//! the last moment alone.

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

/// A thread, with its open schedstat.
#[derive(Debug)]
struct Thread {
    schedstat: File,
    last: Last,
    /// How often it got a CPU; 0 where the kernel does not count that.
    runs: u64,
    /// The same when its switches were read.
    switches_at: Option<u64>,
}

/// Its last figures; `None` for those that count from the next reading on.
#[derive(Debug, Default)]
struct Last {
    delay_nanoseconds: Option<u64>,
    run_nanoseconds: Option<u64>,
    voluntary_switches: Option<u64>,
    involuntary_switches: Option<u64>,
}

impl Last {
    /// All that the thread ever did counts.
    const BEGINNING: Self = Self {
        delay_nanoseconds: Some(0),
        run_nanoseconds: Some(0),
        voluntary_switches: Some(0),
        involuntary_switches: Some(0),
    };
}

/// Threads of one process.
#[derive(Debug, Default)]
pub(in crate::sources) struct Threads {
    by_id: HashMap<i32, Thread>,
    sums: Sums,
    listed: Option<Instant>,
    /// All that were there then, also those beyond [`MOST`].
    there: HashSet<i32>,
    /// When switches were read; never for samples.
    switches_read: Option<Instant>,
    for_samples: bool,
}

impl Threads {
    /// Without counts of switches, and without what later threads did before they were seen.
    pub(in crate::sources) fn for_samples() -> Self {
        Self { for_samples: true, ..Self::default() }
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
        let Self { by_id, sums, there, .. } = self;
        let before = by_id.len();
        let mut failure = None;
        by_id.retain(|id, thread| {
            let mut buffer = [0; SCHEDSTAT_BYTES];
            match thread.schedstat.read_at(&mut buffer, 0) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    match parse(&text) {
                        Some((ran, waited, runs)) => {
                            advance(&mut sums.run_nanoseconds, &mut thread.last.run_nanoseconds, ran);
                            advance(&mut sums.delay_nanoseconds, &mut thread.last.delay_nanoseconds, waited);
                            thread.runs = runs;
                        }
                        None => failure = Some(malformed(schedstat(tasks, *id), "three counts", &text)),
                    }
                    true
                }
                Err(error) if is_gone(&error) => {
                    // Whoever has the number next is another one.
                    there.remove(id);
                    false
                }
                Err(source) => {
                    failure = Some(HostError::Read { path: schedstat(tasks, *id), source });
                    true
                }
            }
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(by_id.len() < before),
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
        let is_first = self.listed.is_none();
        let mut there = HashSet::with_capacity(self.there.len());
        for entry in entries.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| number(Some(name))) else { continue };
            there.insert(id);
            if self.by_id.len() < MOST && !self.by_id.contains_key(&id) {
                // Gone already, or a kernel without the figure.
                let Ok(schedstat) = open(&schedstat(tasks, id)) else { continue };
                // Whoever was there before was one too many.
                let is_new = !self.there.contains(&id);
                let last =
                    if is_first || is_new && !self.for_samples { Last::BEGINNING } else { Last::default() };
                let thread = Thread { schedstat, last, runs: 0, switches_at: None };
                self.by_id.insert(id, thread);
            }
        }
        self.by_id.retain(|id, _| there.contains(id));
        self.there = there;
        self.listed = Some(Instant::now());
        Ok(())
    }

    /// Reads the switches of threads that may have had some, if that is due. A thread that runs has one more ahead of it;
    /// if it does not run again afterwards, that one is not seen.
    fn read_switches(&mut self, tasks: &Path, interval: Duration) -> Result<(), HostError> {
        if self.for_samples || self.switches_read.is_some_and(|read| read.elapsed() < interval) {
            return Ok(());
        }
        self.switches_read = Some(Instant::now());
        let mut outcome = Ok(());
        for (id, thread) in &mut self.by_id {
            if thread.runs == 0 || thread.switches_at != Some(thread.runs) {
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
fn advance(sum: &mut u64, last: &mut Option<u64>, now: u64) {
    if let Some(last) = last.replace(now) {
        *sum = sum.saturating_add(now.checked_sub(last).unwrap_or(now));
    }
}

#[cfg(test)]
#[path = "threads_tests.rs"]
mod tests;
