//! A tick at a fixed pace, by a timer of the kernel.
//!
//! A timer of the runtime is woken twice for each tick, since its wheel knows moments that are more than 64 ms ahead only
//! roughly, and once more by itself when it is set anew. While nothing else happens, waking is most of what a tick costs.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::read;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ticks until it is dropped.
#[derive(Debug)]
pub struct Ticker(AsyncFd<OwnedFd>);

impl Ticker {
    /// Ticks at once, and then each `period`. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// There may be no more files, or `period` is longer than the kernel can wait.
    #[expect(unsafe_code, reason = "tokio takes no file without a promise")]
    pub fn new(period: Duration) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let it_interval = Timespec::try_from(period).map_err(io::Error::other)?;
        // Zero would be never.
        let it_value = Timespec { tv_sec: 0, tv_nsec: 1 };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        // SAFETY: the file is owned by what is made of it, which never gives it away, and stays open for as long.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Self(timer))
    }

    /// Waits for the next tick; those that were missed are one. May be given up and asked for again.
    ///
    /// # Errors
    /// What only a broken kernel or runtime says.
    pub async fn tick(&self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable().await?;
            let outcome = guard.try_io(|timer| Ok(read(timer, &mut [0; size_of::<u64>()])?));
            // Otherwise it was woken for nothing.
            if let Ok(outcome) = outcome {
                return outcome.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn it_ticks_at_once_then_at_its_pace_and_what_is_missed_is_one_tick() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            const PERIOD: Duration = Duration::from_millis(20);
            let ticker = Ticker::new(PERIOD).unwrap();
            let started = Instant::now();
            ticker.tick().await.unwrap();
            for _ in 0..3 {
                ticker.tick().await.unwrap();
            }
            assert!(started.elapsed() >= 3 * PERIOD);
            std::thread::sleep(5 * PERIOD);
            ticker.tick().await.unwrap();
            let missed = Instant::now();
            ticker.tick().await.unwrap();
            ticker.tick().await.unwrap();
            assert!(missed.elapsed() >= PERIOD, "at most one of both was due already");
        });
    }
}
