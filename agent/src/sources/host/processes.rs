//! Collector `processes`: threads and their limits, from /proc/loadavg and /proc/sys/kernel; no walk over processes.

use std::time::Duration;

use super::proc_file::{Bad, ProcFile, count, number};
use super::rest::Rest;
use super::{Collector, HostError, Paths};
use crate::model::host::{Host, Processes};

/// Threads that are too many stay for longer, and limits change seldom.
const INTERVAL: Duration = Duration::from_secs(5);

/// Keeps the files open.
#[derive(Default)]
pub(super) struct ProcessesCollector {
    loadavg: ProcFile,
    threads_max: ProcFile,
    pid_max: ProcFile,
    rest: Rest,
}

impl Collector for ProcessesCollector {
    const NAME: &'static str = "processes";
    const HELP: &'static str =
        "threads of the host and their limits, from /proc/loadavg and /proc/sys/kernel every 5 s";
    type Output = Processes;

    fn field(host: &mut Host) -> &mut Option<Processes> {
        &mut host.processes
    }

    fn rests(&self) -> bool {
        self.rest.is_on()
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Processes>, HostError> {
        let kernel = paths.procfs.join("sys/kernel");
        let found = Processes {
            threads: self.loadavg.parse_whole(&paths.procfs, "loadavg", threads)?,
            threads_limit: self.threads_max.parse_whole(&kernel, "threads-max", count)?,
            pids_limit: self.pid_max.parse_whole(&kernel, "pid_max", count)?,
        };
        self.rest.begin(INTERVAL);
        Ok(Some(found))
    }
}

/// The number behind the slash (`loadavg_proc_show` in fs/proc/loadavg.c).
fn threads(text: &str) -> Result<u64, Bad> {
    let total = text.split_ascii_whitespace().nth(3).and_then(|word| word.split_once('/'));
    total
        .and_then(|(_, total)| number(Some(total)))
        .ok_or(Bad::Line(1, "running/all threads in the fourth place"))
}

#[cfg(test)]
mod tests {
    use procfs::{Current, LoadAverage};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_second_half_of_the_fourth_word() {
        assert_eq!(threads("0.10 0.96 1.05 1/91 19623\n"), Ok(91));
        for text in ["", "1 2 3", "1 2 3 91 5", "1 2 3 1/x 5", "1 2 3 1/-1 5"] {
            assert_eq!(
                threads(text),
                Err(Bad::Line(1, "running/all threads in the fourth place")),
                "{text:?}"
            );
        }
    }

    #[test]
    fn this_host_has_threads_as_another_parser_sees_them() {
        let ours = || ProcessesCollector::default().collect(&Paths::default()).unwrap().unwrap();
        assert!(ours().threads > 1 && ours().threads_limit > 100 && ours().pids_limit > 100);
        // Threads come and go.
        let same = |_| ours().threads == u64::from(LoadAverage::current().unwrap().max);
        assert!((0..100).any(same));
    }

    #[test]
    fn a_bad_limit_is_named() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/kernel")).unwrap();
        for (name, text) in
            [("loadavg", "0 0 0 1/91 1\n"), ("sys/kernel/threads-max", "5\n"), ("sys/kernel/pid_max", "no\n")]
        {
            std::fs::write(root.path().join(name), text).unwrap();
        }
        let paths = Paths { procfs: root.path().to_owned(), ..Paths::default() };
        let error = ProcessesCollector::default().collect(&paths).unwrap_err().to_string();
        assert!(error.contains("pid_max, line 1: expected a count"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text in "([0-9./]{0,9} ){0,5}\\PC{0,20}") {
            let _ = threads(&text);
        }
    }
}
