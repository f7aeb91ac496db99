//! What interrupts take from a thread that wants to do nothing but run.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

/// A look at the clock takes 25 ns; what lasts longer than this was something else.
const GAP: Duration = Duration::from_nanos(300);

/// CPU time that was taken from a thread on `cpu` that looks at the clock all the `time`.
pub fn from(cpu: usize, time: Duration) -> io::Result<Duration> {
    let spin = move || {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only)?;
        let started = Instant::now();
        let (mut last, mut stolen) = (started, Duration::ZERO);
        while last - started < time {
            let now = Instant::now();
            let gap = now - last;
            if gap > GAP {
                stolen += gap;
            }
            last = now;
        }
        Ok(stolen)
    };
    thread::spawn(spin).join().unwrap_or_else(|_| Err(io::Error::other("the thread that spins panicked")))
}
