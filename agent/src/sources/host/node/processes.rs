//! Collector `processes`: processes and threads by state (proc_pid_stat(5)).

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::path::Arg;

use super::super::proc_file::{self, ProcFile, number};
use super::super::{HostError, Paths};
use super::sysfs::{self, Buffer};
use crate::model::node::Processes;

/// Keeps the files with limits open.
#[derive(Default)]
pub(super) struct Reader {
    threads_max: ProcFile,
    pid_max: ProcFile,
    name: String,
}

impl Reader {
    pub(super) fn read(&mut self, paths: &Paths, found: &mut Processes) -> Result<(), HostError> {
        let kernel = paths.procfs.join("sys/kernel");
        found.max_threads = self.threads_max.parse_whole(&kernel, "threads-max", proc_file::count)?;
        found.max_processes = self.pid_max.parse_whole(&kernel, "pid_max", proc_file::count)?;
        (found.processes, found.threads) = (0, 0);
        found.states.clear();
        found.thread_states.clear();
        let failed = |errno| HostError::Read { path: paths.procfs.clone(), source: io::Error::from(errno) };
        let procfs = folder(CWD, &paths.procfs).map_err(failed)?;
        each_number(&procfs, |pid| self.process(&procfs, pid, found)).map_err(failed)
    }

    fn process(&mut self, procfs: &OwnedFd, pid: u32, found: &mut Processes) -> Result<(), Errno> {
        let Some((state, threads)) = self.stat(procfs, pid)? else { return Ok(()) };
        found.processes += 1;
        found.threads += threads;
        count(&mut found.states, state);
        if threads == 1 {
            count(&mut found.thread_states, state);
            return Ok(());
        }
        self.path(pid);
        self.name.push_str("/task");
        let Some(tasks) = unless_gone(folder(procfs, self.name.as_str()))? else { return Ok(()) };
        each_number(&tasks, |thread| {
            // The first thread bears the state that was just read.
            let known = (thread == pid).then_some((state, 1));
            let stat = known.map_or_else(|| self.stat(&tasks, thread), |known| Ok(Some(known)))?;
            if let Some((state, _)) = stat {
                count(&mut found.thread_states, state);
            }
            Ok(())
        })
    }

    fn path(&mut self, number: u32) {
        self.name.clear();
        // Writing to a String cannot fail.
        let _ = write!(self.name, "{number}");
    }

    /// State and threads; `None` when it is gone or the line is not what the kernel writes.
    fn stat(&mut self, folder: &OwnedFd, number: u32) -> Result<Option<(char, u64)>, Errno> {
        self.path(number);
        self.name.push_str("/stat");
        let mut buffer: Buffer = [0; _];
        let stat = unless_gone(
            sysfs::open(folder, self.name.as_str()).and_then(|file| sysfs::begin(file, &mut buffer)),
        )?;
        Ok(stat.and_then(parse))
    }
}

fn folder(parent: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Calls `each` with every entry that is a number, until the folder ends or goes.
fn each_number(folder: &OwnedFd, mut each: impl FnMut(u32) -> Result<(), Errno>) -> Result<(), Errno> {
    let Some(mut entries) = unless_gone(Dir::read_from(folder))? else { return Ok(()) };
    while let Some(entry) = entries.read() {
        let Some(entry) = unless_gone(entry)? else { return Ok(()) };
        if let Some(number) = entry.file_name().to_str().ok().and_then(|name| number(Some(name))) {
            each(number)?;
        }
    }
    Ok(())
}

/// Processes and threads may end between being listed and being read.
fn unless_gone<T>(outcome: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn count(states: &mut Vec<(char, u64)>, state: char) {
    match states.iter_mut().find(|(other, _)| *other == state) {
        Some((_, count)) => *count += 1,
        None => states.push((state, 1)),
    }
}

/// `pid (name) state …`: the name may hold anything, a closing bracket too. Threads are the 20th column.
fn parse(stat: &[u8]) -> Option<(char, u64)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut words = rest.split_ascii_whitespace();
    let state = words.next()?.chars().next().filter(char::is_ascii_alphabetic)?;
    Some((state, number(words.nth(16))?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use proptest::prelude::*;

    fn stat(pid: u32, name: &str, state: char, threads: u32) -> String {
        format!("{pid} ({name}) {state} 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 {threads} 0 1 1 1\n")
    }

    #[test]
    fn processes_and_threads_are_counted_by_state() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/kernel/threads-max", "100\n");
        write("sys/kernel/pid_max", "200\n");
        write("1/stat", &stat(1, "a) R (b", 'S', 1));
        write("7/stat", &stat(7, "go", 'R', 2));
        write("7/task/7/stat", &stat(7, "go", 'D', 2));
        write("7/task/8/stat", &stat(8, "go", 'S', 2));
        write("9/stat", "nonsense");
        fs::create_dir(root.path().join("10")).unwrap();
        let paths = Paths { procfs: root.path().to_owned(), ..Paths::default() };
        let mut found = Processes::default();
        Reader::default().read(&paths, &mut found).unwrap();
        found.states.sort_unstable();
        found.thread_states.sort_unstable();
        let expected = Processes {
            processes: 2,
            threads: 3,
            states: vec![('R', 1), ('S', 1)],
            thread_states: vec![('R', 1), ('S', 2)],
            max_processes: 200,
            max_threads: 100,
        };
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn any_line_is_an_answer_or_none(line in prop::collection::vec(any::<u8>(), 0..80), text in "[0-9() RS]{0,60}") {
            let _ = (parse(&line), parse(text.as_bytes()));
        }
    }
}
