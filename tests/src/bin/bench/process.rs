//! What a process uses, as the kernel accounts for it.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of the calling thread while `work` ran, in milliseconds: what others do on the machine counts less.
pub fn milliseconds(work: impl FnOnce()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    };
    let started = now();
    work();
    now() - started
}

/// CPU time of all threads of a process, those that ended included, to the nanosecond.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the clock id is written to a live integer.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a live timespec.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Memory of a process, in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident.
    pub resident: f64,
    /// Of that, its own heap and stacks.
    pub anonymous: f64,
    /// The largest resident size so far.
    pub peak: f64,
}

impl Memory {
    /// Reads /proc/PID/status.
    pub fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mebibytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kibibytes: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            kibibytes
                .map(|value| value / 1024.0)
                .ok_or_else(|| io::Error::other(format!("no {name} of {pid}")))
        };
        Ok(Self {
            resident: mebibytes("VmRSS")?,
            anonymous: mebibytes("RssAnon")?,
            peak: mebibytes("VmHWM")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_cpu_and_memory() {
        let own = std::process::id();
        let before = cpu_time(own).unwrap();
        let sum = (0..1_000_000u64).fold(0u64, |sum, value| sum.rotate_left(3) ^ std::hint::black_box(value));
        assert!(cpu_time(own).unwrap() > before, "{sum}");
        let memory = Memory::read(own).unwrap();
        assert!(memory.anonymous > 0.0 && memory.resident <= memory.peak, "{memory:?}");
    }
}
