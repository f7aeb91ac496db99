//! What interrupts take from a thread that wants to do nothing but run.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

/// A look at the clock takes 25 ns; what lasts longer than this was something else.
const GAP: Duration = Duration::from_nanos(300);

/// CPU time in microseconds that was taken in each of `slices` from a thread on `cpu` that looks at the clock all the time.
pub fn from(cpu: usize, slices: u32, slice: Duration) -> io::Result<Vec<f64>> {
    let spin = move || {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only)?;
        let mut last = Instant::now();
        let mut taken = Vec::with_capacity(slices as usize);
        for _ in 0..slices {
            let (began, mut stolen) = (last, Duration::ZERO);
            while last - began < slice {
                let now = Instant::now();
                let gap = now - last;
                if gap > GAP {
                    stolen += gap;
                }
                last = now;
            }
            taken.push(stolen.as_secs_f64() * 1e6);
        }
        Ok(taken)
    };
    thread::spawn(spin).join().unwrap_or_else(|_| Err(io::Error::other("the thread that spins panicked")))
}
