//! CPU time of another process in one system call, which reads no file and takes no list of its threads.

use std::time::Duration;

/// The clock of a process (clock_getcpuclockid(3)).
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// `None` when there is no process with this id.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let mut clock = 0;
        // SAFETY: it writes to what it is given, which lives until it returns.
        let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
        (error == 0).then_some(Self(clock))
    }

    /// CPU time of the process and all its threads, those that ended included; `None` when it is gone. Of a thread that
    /// runs, what it used since the last tick is missing.
    pub(super) fn time(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: it writes to what it is given, which lives until it returns.
        let outcome = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        (outcome == 0).then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_works_has_used_more_and_one_that_is_gone_nothing() {
        let mut busy =
            Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
        let pid = busy.id() as i32;
        let clock = CpuClock::of(pid).unwrap();
        let first = clock.time().unwrap();
        while clock.time().unwrap() <= first {
            std::thread::yield_now();
        }
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert_eq!(clock.time(), None);
        assert!(CpuClock::of(pid).is_none());
    }
}
