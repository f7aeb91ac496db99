//! tailscaled: its CPU time and how long its threads waited for a CPU.

use std::time::{Duration, Instant};

use super::{Elapsed, since};
use crate::model::sampled::Sampled;
use crate::sources::host::{Finder, HostError, Paths, Process, Threads};

/// How often it is made sure that it is still the same process, and which threads it has.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What was read before.
#[derive(Debug, Default)]
pub(super) struct Tailscaled {
    finder: Finder,
    looked: Option<Instant>,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    process: Process,
    threads: Threads,
    ran: Option<u64>,
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
            let found = self.finder.find(paths)?.map(|(process, _)| process);
            if self.known.as_ref().map(|known| known.process) != found {
                self.known = found.map(|process| Known {
                    process,
                    threads: Threads::default(),
                    ran: None,
                    waited: None,
                });
            }
        }
        let Some(known) = &mut self.known else { return Ok(()) };
        let directory = paths.procfs.join(known.process.pid.to_string());
        let Some(sums) = known.threads.update(&directory, LOOK_INTERVAL)? else {
            self.known = None;
            return Ok(());
        };
        let ran = since(&mut known.ran, sums.run_nanoseconds);
        let waited = since(&mut known.waited, sums.delay_nanoseconds);
        let Some(elapsed) = elapsed else { return Ok(()) };
        for (nanoseconds, samples) in [(ran, &mut into.tailscaled_cpu), (waited, &mut into.tailscaled_delay)]
        {
            if let Some(nanoseconds) = nanoseconds {
                samples.add(elapsed.second, nanoseconds as f64 / 1e9 / elapsed.seconds);
            }
        }
        Ok(())
    }
}
