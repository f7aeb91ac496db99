//! CPU time of another process in one system call, which reads no file and takes no list of its threads.

use std::time::Duration;

/// CPU time of a process and all its threads, those that ended included (clock_getcpuclockid(3)); `None` when there is
/// none with this id. Of a thread that runs, what it used since the last tick is missing.
pub(super) fn cpu_time(pid: i32) -> Option<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both write to what they are given, which lives until they return.
    let outcome = unsafe {
        match libc::clock_getcpuclockid(pid, &raw mut clock) {
            0 => libc::clock_gettime(clock, &raw mut time),
            error => error,
        }
    };
    (outcome == 0).then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
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
        let first = cpu_time(pid).unwrap();
        while cpu_time(pid).unwrap() <= first {
            std::thread::yield_now();
        }
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert_eq!(cpu_time(pid), None);
    }
}
