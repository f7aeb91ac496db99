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
    use std::process::{Child, Command, Stdio};
    use std::thread;

    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

    use super::*;

    /// A process that does nothing but work, and stands still while it is read.
    struct Busy(Child);

    impl Busy {
        fn start() -> Self {
            let mut command = Command::new("sh");
            Self(command.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap())
        }

        fn pid(&self) -> Pid {
            Pid::from_child(&self.0)
        }

        fn process(&self) -> Process {
            Process { pid: self.pid().as_raw_nonzero().get(), started_ticks: 1 }
        }

        fn stop(&self) {
            kill_process(self.pid(), Signal::STOP).unwrap();
            let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
            assert!(status.stopped(), "{status:?}");
        }

        /// Has it work for so long, by its clock.
        fn work(&self, clock: CpuClock, time: Duration) {
            let end = clock.time().unwrap() + time;
            kill_process(self.pid(), Signal::CONT).unwrap();
            while clock.time().unwrap() < end {
                thread::yield_now();
            }
            self.stop();
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    const WORK: Duration = Duration::from_millis(50);

    #[test]
    fn the_clock_is_used_where_procfs_agrees() {
        let busy = Busy::start();
        let own = CpuClock::of(busy.process().pid).unwrap();
        busy.work(own, WORK);
        let stat = |user_seconds| Stat {
            user_seconds,
            system_seconds: 0.0,
            threads: 1,
            started_ticks: 1,
            virtual_bytes: 0,
            resident_bytes: 0,
        };
        let used = own.time().unwrap().as_secs_f64();
        assert!(clock(busy.process(), &stat(used)).is_some());
        assert!(clock(busy.process(), &stat(used + 1000.0)).is_none(), "another process by this id");
    }

    #[test]
    fn clock_and_threads_agree_on_what_ran() {
        let busy = Busy::start();
        let clock = CpuClock::of(busy.process().pid).unwrap();
        busy.work(clock, WORK);
        let known = |clock| Known {
            process: busy.process(),
            directory: PathBuf::from(format!("/proc/{}", busy.0.id())),
            clock,
            threads: Threads::for_samples(),
            list_threads: true,
            ran: None,
            waited: None,
        };
        let (mut by_clock, mut by_threads) = (known(Some(clock)), known(None));
        let mut read = || (by_clock.read().unwrap().unwrap(), by_threads.read().unwrap().unwrap());
        let none = Used { ran: None, waited: None };
        assert_eq!(read(), (none, none), "one reading is no sample");
        busy.work(clock, WORK);
        let (clock, threads) = read();
        let [clock, threads] = [clock, threads].map(|used| used.waited.and(used.ran).unwrap());
        // It is told of before it has left its CPU.
        const LEAVING: u64 = 1_000_000;
        assert!(clock >= WORK.as_nanos() as u64 && clock.abs_diff(threads) < LEAVING, "{clock} {threads}");
        let started = Instant::now();
        let rest = Used { ran: Some(0), waited: Some(0) };
        while read() != (rest, rest) {
            assert!(started.elapsed() < Duration::from_secs(20), "it stands still");
        }
    }
}
