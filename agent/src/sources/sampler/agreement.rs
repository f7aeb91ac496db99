//! Whether the kernel means the same process and sockets as the files do.

use tailgauge_ebpf::layout::Found;

use crate::sources::host::Process;

/// Looks in a row that may find tailscaled or its sockets without the kernel finding them: they may just have gone.
const MOST_MISSES: u32 = 5;
/// Ticks of /proc/PID/stat are made of nanoseconds by dividing them (`nsec_to_clock_t`).
const NANOSECONDS: u64 = 1_000_000_000;

/// What came out of the looks so far.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    misses: u32,
    is_process: bool,
}

impl Agreement {
    /// Compares what was looked for and what was found of it; an error when that failed too often.
    pub(super) fn judge(
        &mut self,
        process: Option<Process>,
        sockets: usize,
        found: &Found,
    ) -> Result<(), String> {
        let ticks = found.task_started / (NANOSECONDS / rustix::param::clock_ticks_per_second().max(1));
        // Where the kernel looks, another one may have that id: this may be another namespace of them.
        self.is_process = process.is_none_or(|process| found.task != 0 && ticks == process.started_ticks);
        let all_sockets = found.sockets.iter().take(sockets).all(|address| *address != 0);
        self.misses = if self.is_process && all_sockets { 0 } else { self.misses + 1 };
        if self.misses <= MOST_MISSES {
            return Ok(());
        }
        let what =
            if self.is_process { "the UDP sockets of tailscaled" } else { "the process of tailscaled" };
        Err(format!("the kernel does not show where it has {what}: it may be in another namespace"))
    }

    /// Whether the kernel means the process that is tailscaled.
    pub(super) const fn is_process(&self) -> bool {
        self.is_process
    }

    /// Whether it is worth looking again, though nothing has changed.
    pub(super) const fn is_missing_something(&self) -> bool {
        self.misses > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Process = Process { pid: 7, started_ticks: 250 };

    fn found(task: u64, started: u64) -> Found {
        Found { task, task_started: started, ..Found::default() }
    }

    #[test]
    fn a_process_is_the_same_if_it_began_in_the_same_tick() {
        let mut agreement = Agreement::default();
        for (task, started, expected) in [
            (1, 2_500_000_000, true),
            (1, 2_509_999_999, true),
            (1, 2_510_000_000, false),
            (1, 2_499_999_999, false),
            (0, 2_500_000_000, false),
        ] {
            agreement.judge(Some(PROCESS), 0, &found(task, started)).unwrap();
            assert_eq!(agreement.is_process(), expected, "{task} {started}");
        }
        agreement.judge(None, 0, &found(0, 0)).unwrap();
        assert!(agreement.is_process(), "there is none to be another one");
    }

    #[test]
    fn what_is_missed_for_long_is_given_up() {
        let mut agreement = Agreement::default();
        let half = Found { sockets: [1, 0, 0, 0, 0, 0, 0, 0], ..found(1, 2_500_000_000) };
        agreement.judge(Some(PROCESS), 1, &half).unwrap();
        assert!(!agreement.is_missing_something());
        for _ in 0..MOST_MISSES {
            agreement.judge(Some(PROCESS), 2, &half).unwrap();
            assert!(agreement.is_missing_something());
        }
        let error = agreement.judge(Some(PROCESS), 2, &half).unwrap_err();
        assert!(error.contains("sockets of tailscaled"), "{error}");
        let error = agreement.judge(Some(PROCESS), 1, &found(0, 0)).unwrap_err();
        assert!(error.contains("process of tailscaled"), "{error}");
        agreement.judge(Some(PROCESS), 1, &half).unwrap();
        assert!(!agreement.is_missing_something(), "found again");
    }
}
