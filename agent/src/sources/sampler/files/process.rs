//! tailscaled: its CPU time and how long its threads waited for a CPU.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::clock::CpuClock;
use super::{Elapsed, NOBODY, since};
use crate::model::sampled::Sampled;
use crate::sources::host::{Finder, HostError, Paths, Process, Stat, Threads};

/// How often it is made sure that it is still the same process, and which threads it has: what a thread that is new
/// waited before is not seen.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often threads are listed though they are as many as before.
const LIST_INTERVAL: Duration = Duration::from_secs(5);
/// CPU seconds a second of a tailscaled that has little to do.
const LITTLE: f64 = 0.1;
/// What the kernel's two accounts of CPU time may differ by: ticks of /proc/PID/stat, and the time between readings.
const TOLERANCE_SECONDS: f64 = 0.1;

/// What was read before.
#[derive(Debug, Default)]
pub(super) struct Tailscaled {
    finder: Finder,
    looked: Option<Instant>,
    known: Option<Known>,
    is_busy: bool,
}

#[derive(Debug)]
struct Known {
    process: Process,
    directory: PathBuf,
    /// `None` where the procfs is that of other process ids than ours.
    clock: Option<CpuClock>,
    threads: Threads,
    /// Whether there are other threads than those that are known.
    list_threads: bool,
    ran: Option<u64>,
    waited: Option<u64>,
}

/// Nanoseconds since the reading before; `None` for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Used {
    /// That threads ran.
    ran: Option<u64>,
    /// That they waited for a CPU.
    waited: Option<u64>,
}

impl Tailscaled {
    pub(super) fn sample(
        &mut self,
        paths: &Paths,
        elapsed: Option<Elapsed>,
        into: &mut Sampled,
    ) -> Result<(), HostError> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
            self.looked = Some(Instant::now());
            self.look(paths)?;
        }
        self.is_busy = false;
        let Some(known) = &mut self.known else { return Ok(()) };
        let Some(used) = known.read()? else {
            self.known = None;
            return Ok(());
        };
        let Some(elapsed) = elapsed else { return Ok(()) };
        for (nanoseconds, samples, quiet) in
            [(used.ran, &mut into.tailscaled_cpu, LITTLE), (used.waited, &mut into.tailscaled_delay, NOBODY)]
        {
            if let Some(nanoseconds) = nanoseconds {
                let rate = nanoseconds as f64 / 1e9 / elapsed.seconds;
                samples.add_times(elapsed.second, rate, elapsed.intervals);
                self.is_busy |= rate > quiet;
            }
        }
        Ok(())
    }

    /// Whether it had little to do, and did not wait for a CPU.
    pub(super) const fn is_quiet(&self) -> bool {
        !self.is_busy
    }

    fn look(&mut self, paths: &Paths) -> Result<(), HostError> {
        let Some((process, stat)) = self.finder.find(paths)? else {
            self.known = None;
            return Ok(());
        };
        if self.known.as_ref().is_none_or(|known| known.process != process) {
            self.known = Some(Known {
                process,
                directory: paths.procfs.join(process.pid.to_string()),
                clock: clock(process, &stat),
                threads: Threads::for_samples(),
                list_threads: true,
                ran: None,
                waited: None,
            });
        }
        if let Some(known) = &mut self.known {
            known.list_threads |= stat.threads != known.threads.len() as u64;
        }
        Ok(())
    }
}

impl Known {
    /// `None` when it is gone.
    fn read(&mut self) -> Result<Option<Used>, HostError> {
        let mut ran = None;
        if let Some(clock) = self.clock {
            let Some(time) = clock.time() else { return Ok(None) };
            ran = since(&mut self.ran, time.as_nanos() as u64);
            // A wait is accounted for when it ends: as no thread ran, none of theirs did.
            if ran == Some(0) && self.waited.is_some() {
                return Ok(Some(Used { ran, waited: Some(0) }));
            }
        }
        let interval = if std::mem::take(&mut self.list_threads) { Duration::ZERO } else { LIST_INTERVAL };
        let Some(sums) = self.threads.update(&self.directory, interval)? else { return Ok(None) };
        if self.clock.is_none() {
            ran = since(&mut self.ran, sums.run_nanoseconds);
        }
        Ok(Some(Used { ran, waited: since(&mut self.waited, sums.delay_nanoseconds) }))
    }
}

/// The clock of this process id, if it tells the time of the process that procfs shows by it.
fn clock(process: Process, stat: &Stat) -> Option<CpuClock> {
    let expected = stat.user_seconds + stat.system_seconds;
    let agrees = |time: Duration| (time.as_secs_f64() - expected).abs() < TOLERANCE_SECONDS;
    CpuClock::of(process.pid).filter(|clock| clock.time().is_some_and(agrees))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_time() -> Duration {
        CpuClock::of(std::process::id() as i32).unwrap().time().unwrap()
    }

    fn this_process(user_seconds: f64) -> (Process, Stat) {
        let process =
            Process { pid: std::process::id() as i32, started_ticks: 1, start_time: Duration::from_secs(1) };
        let stat = Stat {
            user_seconds,
            system_seconds: 0.0,
            threads: 1,
            started_ticks: 1,
            virtual_bytes: 0,
            resident_bytes: 0,
        };
        (process, stat)
    }

    #[test]
    fn the_clock_is_used_where_procfs_agrees() {
        let used = own_time().as_secs_f64();
        let (process, stat) = this_process(used);
        assert!(clock(process, &stat).is_some());
        let (process, stat) = this_process(used + 1000.0);
        assert!(clock(process, &stat).is_none(), "procfs shows another process by this id");
    }

    #[test]
    fn clock_and_threads_agree_on_what_ran() {
        let (process, _) = this_process(0.0);
        let known = |clock| Known {
            process,
            directory: PathBuf::from("/proc/self"),
            clock,
            threads: Threads::default(),
            list_threads: true,
            ran: None,
            waited: None,
        };
        let (mut by_clock, mut by_threads) = (known(CpuClock::of(process.pid)), known(None));
        let mut read = || (by_clock.read().unwrap().unwrap(), by_threads.read().unwrap().unwrap());
        let (first, _) = read();
        assert_eq!(first, Used { ran: None, waited: None });
        let started = own_time();
        while own_time() < started + Duration::from_millis(200) {
            std::hint::black_box(started);
        }
        let (clock, threads) = read();
        assert!(threads.waited.is_some());
        let [clock, threads] = [clock, threads].map(|used| used.ran.unwrap() as f64 / 1e9);
        assert!(clock >= 0.19 && (clock - threads).abs() < 0.1, "{clock} {threads}");
    }
}
