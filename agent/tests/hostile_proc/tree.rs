//! A copy of what this machine has in /proc and /sys, to be spoilt.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tailgauge::sources::host::Paths;

use crate::mutate::{Change, What};
use crate::node;
use crate::observer::Observer;

/// Files and folders of /proc that collectors read; of folders, what is directly inside.
const PROC: [&str; 25] = [
    "stat",
    "softirqs",
    "interrupts",
    "loadavg",
    "meminfo",
    "vmstat",
    "diskstats",
    "uptime",
    "swaps",
    "self/mountinfo",
    "1/mountinfo",
    "1/mounts",
    "schedstat",
    "pressure",
    "net",
    "net/stat",
    "sys/net/core",
    "sys/net/ipv4",
    "sys/net/ipv4/conf/all",
    "sys/net/ipv4/conf/default",
    "sys/net/ipv4/conf/lo",
    "sys/net/ipv6/conf/lo",
    "sys/net/ipv6/conf/all",
    "sys/net/netfilter",
    "sys/kernel",
];
/// Files of a process, tailscaled's in the copy.
const PROCESS: [&str; 5] = ["stat", "status", "limits", "cgroup", "schedstat"];
const PID: &str = "77";
const GROUP: &str = "sys/fs/cgroup/system.slice/tailscaled.service";
/// Nothing that matters is longer.
const LONGEST: usize = 64 << 10;

/// The copy, with what belongs into each of its files.
pub(crate) struct Tree {
    root: tempfile::TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
    changed: Vec<PathBuf>,
}

impl Tree {
    /// Copies.
    pub(crate) fn of_this_machine() -> Self {
        // In memory where that is offered: files are written thousands of times.
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut tree = Self { root, files: BTreeMap::new(), changed: Vec::new() };
        for name in PROC {
            let from = Path::new("/proc").join(name);
            let to = Path::new("proc").join(name);
            if from.is_dir() {
                for entry in fs::read_dir(&from).unwrap().flatten() {
                    tree.copy(&entry.path(), &to.join(entry.file_name()));
                }
            } else {
                tree.copy(&from, &to);
            }
        }
        let process = Path::new("proc").join(PID);
        for name in PROCESS {
            tree.copy(&Path::new("/proc/self").join(name), &process.join(name));
        }
        for name in ["schedstat", "status"] {
            tree.copy(&Path::new("/proc/self").join(name), &process.join("task").join(PID).join(name));
        }
        tree.add("proc/77/comm", b"tailscaled\n");
        tree.add("proc/77/fd/0", b"");
        tree.add("proc/77/cgroup", b"0::/system.slice/tailscaled.service\n");
        for (name, content) in [
            ("cgroup.procs", "77\n"),
            ("cpu.max", "50000 100000\n"),
            ("cpu.stat", "usage_usec 5\nnr_periods 10\nnr_throttled 4\nthrottled_usec 15\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "oom 3\noom_kill 2\n"),
            ("cpu.pressure", "some avg10=0.00 total=7\nfull avg10=0.00 total=5\n"),
            ("memory.pressure", "some avg10=0.00 total=3\nfull avg10=0.00 total=2\n"),
            ("io.pressure", "some avg10=0.00 total=3\nfull avg10=0.00 total=2\n"),
            ("irq.pressure", "full avg10=0.00 total=2\n"),
        ] {
            tree.add(&format!("{GROUP}/{name}"), content.as_bytes());
        }
        for entry in fs::read_dir("/sys/class/net/lo").unwrap().flatten() {
            tree.copy(&entry.path(), &Path::new("sys/class/net/lo").join(entry.file_name()));
        }
        for name in ["speed", "duplex"] {
            tree.add(&format!("sys/class/net/lo/{name}"), b"1000\n");
        }
        tree.add("sys/devices/system/cpu/online", b"0-1\n");
        for (name, content) in [
            ("cpufreq/scaling_cur_freq", "1200000\n"),
            ("cpufreq/cpuinfo_max_freq", "3400000\n"),
            ("thermal_throttle/core_throttle_count", "5\n"),
            ("thermal_throttle/package_throttle_count", "7\n"),
        ] {
            tree.add(&format!("sys/devices/system/cpu/cpu0/{name}"), content.as_bytes());
        }
        tree.forget_what_is_not_read();
        tree
    }

    /// Most files of a folder interest no collector. Reading one moves its time of access, unless this file system
    /// keeps none: then all stay.
    fn forget_what_is_not_read(&mut self) {
        let path = |file: &Path| self.root.path().join(file);
        for file in self.files.keys() {
            let never = fs::FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
            File::options().write(true).open(path(file)).unwrap().set_times(never).unwrap();
        }
        Observer::new(self).collect();
        node::read(self);
        let is_read = |file: &Path| {
            fs::metadata(path(file)).unwrap().accessed().is_ok_and(|time| time > SystemTime::UNIX_EPOCH)
        };
        let read: Vec<PathBuf> = self.files.keys().filter(|file| is_read(file)).cloned().collect();
        if !read.is_empty() {
            self.files.retain(|file, _| read.contains(file));
        }
    }

    fn copy(&mut self, from: &Path, to: &Path) {
        // Not what blocks or acts when it is read.
        if !fs::symlink_metadata(from).is_ok_and(|file| file.is_file()) {
            return;
        }
        let Ok(mut content) = fs::read(from) else { return };
        content.truncate(LONGEST);
        // Whole lines.
        let end = content.iter().rposition(|byte| *byte == b'\n').map_or(content.len(), |last| last + 1);
        content.truncate(end);
        self.add(to.to_str().unwrap(), &content);
    }

    fn add(&mut self, file: &str, content: &[u8]) {
        let path = self.root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.files.insert(file.into(), content.to_vec());
    }

    /// Everything that can be spoilt.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys()
    }

    /// What belongs into a file.
    pub(crate) fn content(&self, file: &Path) -> &[u8] {
        &self.files[file]
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// The same, for the collectors.
    pub(crate) fn paths(&self) -> Paths {
        let at = |name: &str| self.path().join(name);
        Paths {
            procfs: at("proc"),
            sysfs: at("sys"),
            rootfs: at(""),
            localapi: at("no-socket"),
            interface: "lo".to_owned(),
        }
    }

    /// Spoils one file.
    pub(crate) fn apply(&mut self, change: &Change) {
        let path = self.path().join(&change.file);
        self.changed.push(change.file.clone());
        match &change.what {
            // In place: who has it open sees it.
            What::Content(content) => return fs::write(path, content).unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        match &change.what {
            What::Content(_) | What::Missing => {}
            What::Directory => fs::create_dir(path).unwrap(),
            What::Pipe => mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
            What::Endless => symlink("/dev/zero", path).unwrap(),
            What::Circle => symlink(&path, &path).unwrap(),
        }
    }

    /// Makes everything as it was.
    pub(crate) fn restore(&mut self) {
        for file in std::mem::take(&mut self.changed) {
            let path = self.path().join(&file);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_file() => {}
                Ok(found) if found.is_dir() => fs::remove_dir(&path).unwrap(),
                Ok(_) => fs::remove_file(&path).unwrap(),
                Err(_) => {}
            }
            fs::write(&path, &self.files[&file]).unwrap();
        }
    }

    /// Writes another content that counts as right.
    pub(crate) fn set(&mut self, file: &str, content: &str) {
        self.add(file, content.as_bytes());
    }
}
