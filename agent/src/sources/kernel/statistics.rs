//! BPF run-time statistics, for as long as somebody wants them: they cost every program of the machine about
//! 100 ns a run, more than counting a packet does.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};

use super::KernelError;

/// Holds the statistics on.
#[derive(Debug, Default)]
pub(super) struct Statistics(Option<(OwnedFd, Instant)>);

impl Statistics {
    /// Keeps them on until `duration` from now, or longer if that was asked for before.
    pub(super) fn enable(&mut self, duration: Duration) -> Result<(), KernelError> {
        let until = Instant::now() + duration;
        match &mut self.0 {
            Some((_, held)) => *held = until.max(*held),
            None => {
                let fd = enable_stats(Stats::RunTime)
                    .map_err(|error| KernelError::Statistics(io::Error::from(error.io_error.kind())))?;
                self.0 = Some((fd, until));
            }
        }
        Ok(())
    }

    /// Lets go of them when their time is over.
    pub(super) fn expire(&mut self) {
        if self.0.as_ref().is_some_and(|(_, until)| Instant::now() >= *until) {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use caps::{CapSet, Capability};

    use super::*;
    use crate::sources::kernel::chain;

    #[test]
    fn what_is_missing_is_named() {
        // A thread of its own, as it does not get the capability back.
        let attempt = std::thread::spawn(|| {
            caps::drop(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
            chain(&Statistics::default().enable(Duration::from_secs(1)).unwrap_err())
        });
        let reason = attempt.join().unwrap();
        assert!(reason.contains("CAP_SYS_ADMIN") && reason.contains("kernel.bpf_stats_enabled"), "{reason}");
    }
}
