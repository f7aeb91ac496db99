//! Network namespaces that disappear with their guard, together with everything that runs in them.
//!
//! Named by [`unique_prefix`], they also disappear when the process is interrupted, and the next run removes those of
//! a process that was killed (see [`crate::leftovers`]).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::leftovers;
use crate::process::{self, CommandError, wait_until};

pub use crate::leftovers::unique_prefix;

/// Where iproute2 keeps the names of namespaces.
pub(crate) const NAMED: &str = "/run/netns";
/// Where `ip netns exec` looks for files that it mounts over those in /etc.
pub(crate) const PRIVATE_ETC: &str = "/etc/netns";
/// How long processes in a removed namespace have to end by themselves.
const TERM_GRACE: Duration = Duration::from_secs(3);

/// What can go wrong with a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// A command, usually `ip`, failed.
    #[error("network namespace {name}")]
    Command {
        /// The namespace.
        name: String,
        /// The command's own words.
        #[source]
        source: CommandError,
    },
    /// A thread could not move into the namespace.
    #[error("network namespace {name}: cannot enter")]
    Enter {
        /// The namespace.
        name: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A private file for /etc could not be written.
    #[error("network namespace {name}: cannot write {path}")]
    PrivateFile {
        /// The namespace.
        name: String,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// A named network namespace with `lo` up; dropped, its processes are ended and it is removed.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace `name`, usually `{unique_prefix()}-{role}`.
    pub fn create(name: impl Into<String>) -> Result<Self, NamespaceError> {
        leftovers::guard();
        let name = name.into();
        process::run(Command::new("ip").args(["netns", "add", &name]))
            .map_err(|source| NamespaceError::Command { name: name.clone(), source })?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name under /run/netns.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NAMED).join(&self.name)
    }

    /// Runs `ip -n NAMESPACE ARGUMENTS` and returns what it printed.
    pub fn ip(&self, arguments: &[&str]) -> Result<String, NamespaceError> {
        self.check(process::run(Command::new("ip").args(["-n", &self.name]).args(arguments)))
    }

    /// Loads an nftables script inside the namespace.
    pub fn nft(&self, script: &str) -> Result<String, NamespaceError> {
        self.check(process::run_with_input(self.command("nft").args(["-f", "-"]), script.as_bytes()))
    }

    /// Sets a `net.…` kernel parameter, for example `net.ipv4.ip_forward`, inside the namespace.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), NamespaceError> {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        self.run(|| fs::write(&path, value))?.map_err(|source| NamespaceError::PrivateFile {
            name: self.name.clone(),
            path: path.clone(),
            source,
        })
    }

    /// Makes programs started by [`Namespace::command`] see `content` as `/etc/<file>`.
    pub fn private_etc(&self, file: &str, content: &str) -> Result<(), NamespaceError> {
        let folder = Path::new(PRIVATE_ETC).join(&self.name);
        let path = folder.join(file);
        fs::create_dir_all(&folder).and_then(|()| fs::write(&path, content)).map_err(|source| {
            NamespaceError::PrivateFile { name: self.name.clone(), path: path.clone(), source }
        })
    }

    /// A command that will run inside the namespace and see its devices under /sys.
    ///
    /// `ip netns exec` replaces itself by the program: the child's pid is the program's own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Calls `work` on a thread of its own that is inside the namespace; sockets opened there stay in it.
    ///
    /// /sys is not remounted for it, and /proc/net is the main thread's: use /proc/thread-self/net.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        let enter = || -> io::Result<()> {
            let handle = File::open(self.path())?;
            Ok(move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&handle),
                Some(LinkNameSpaceType::Network),
            )?)
        };
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| enter().map(|()| work())).join().unwrap_or_else(|panic| {
                // A failed assertion inside the closure is the test's own.
                std::panic::resume_unwind(panic)
            })
        });
        outcome.map_err(|source| NamespaceError::Enter { name: self.name.clone(), source })
    }

    fn check(&self, outcome: Result<String, CommandError>) -> Result<String, NamespaceError> {
        outcome.map_err(|source| NamespaceError::Command { name: self.name.clone(), source })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Joins two namespaces by a veth pair; each end is a namespace and the device's name in it. Both ends come up.
pub fn link(left: (&Namespace, &str), right: (&Namespace, &str)) -> Result<(), NamespaceError> {
    let (near, far) = (left.0.name(), right.0.name());
    let arguments =
        ["link", "add", left.1, "netns", near, "type", "veth", "peer", "name", right.1, "netns", far];
    left.0.check(process::run(Command::new("ip").args(arguments)))?;
    for (namespace, device) in [left, right] {
        namespace.ip(&["link", "set", device, "up"])?;
    }
    Ok(())
}

/// Ends what runs in the namespace, then removes it. Failing to is not an error: the next run tries again.
pub(crate) fn remove(name: &str) {
    let inside = || processes_in(name);
    for signal in [Signal::TERM, Signal::KILL] {
        for process in inside() {
            process.signal(name, signal);
        }
        if wait_until("processes to end", TERM_GRACE, || inside().is_empty()).is_ok() {
            break;
        }
    }
    if Path::new(NAMED).join(name).exists()
        && let Err(error) = process::run(Command::new("ip").args(["netns", "del", name]))
    {
        eprintln!("network namespace {name} was not removed: {error}");
    }
    let private = Path::new(PRIVATE_ETC).join(name);
    if private.exists()
        && let Err(error) = fs::remove_dir_all(&private)
    {
        eprintln!("{} was not removed: {error}", private.display());
    }
}

/// A process whose main thread is in a namespace.
#[derive(Debug)]
struct Resident {
    pid: Pid,
}

impl Resident {
    /// Signals the process through a pidfd, after making sure that the pid still means a process in `namespace`.
    fn signal(&self, namespace: &str, signal: Signal) {
        let Ok(handle) = pidfd_open(self.pid, PidfdFlags::empty()) else { return };
        if lives_in(self.pid, namespace) {
            // It may have ended in between, which is what is wanted.
            let _ = pidfd_send_signal(handle, signal);
        }
    }
}

/// Processes other than this one, zombies excluded, whose main thread is in the namespace.
fn processes_in(namespace: &str) -> Vec<Resident> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = rustix::process::getpid();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .filter(|&pid| pid != own && lives_in(pid, namespace))
        .map(|pid| Resident { pid })
        .collect()
}

/// Whether the process is in the namespace. A zombie has left it.
fn lives_in(pid: Pid, namespace: &str) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let wanted = identity(&Path::new(NAMED).join(namespace));
    wanted.is_some() && wanted == identity(Path::new(&format!("/proc/{}/ns/net", pid.as_raw_nonzero())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::needs;

    #[test]
    fn namespace_is_removed_with_what_runs_in_it() {
        let Ok(()) = needs::root_and("namespace_is_removed_with_what_runs_in_it", &["ip", "sleep"]) else {
            return;
        };
        let name = format!("{}-guard", unique_prefix());
        let namespace = Namespace::create(&name).unwrap();
        namespace.private_etc("resolv.conf", "nameserver 127.0.0.1\n").unwrap();
        // Started without a guard: the namespace's own must do.
        let mut child = namespace.command("sleep").arg("600").spawn().unwrap();
        wait_until("sleep to start", Duration::from_secs(5), || !processes_in(&name).is_empty()).unwrap();
        drop(namespace);
        assert!(!child.wait().unwrap().success());
        assert!(!Path::new(NAMED).join(&name).exists());
        assert!(!Path::new(PRIVATE_ETC).join(&name).exists());
    }

    #[test]
    fn commands_and_closures_see_the_namespace() {
        let Ok(()) = needs::root_and("commands_and_closures_see_the_namespace", &["ip", "ls", "nft"]) else {
            return;
        };
        let prefix = unique_prefix();
        let left = Namespace::create(format!("{prefix}-left")).unwrap();
        let right = Namespace::create(format!("{prefix}-right")).unwrap();
        link((&left, "to-right"), (&right, "to-left")).unwrap();
        let devices = process::run(left.command("ls").arg("/sys/class/net")).unwrap();
        assert!(devices.contains("to-right") && !devices.contains("to-left"), "{devices}");
        let table = right.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap()).unwrap();
        assert!(table.contains("to-left") && !table.contains("to-right"), "{table}");
        left.sysctl("net.ipv4.ip_forward", "1").unwrap();
        let forwarding = process::run(left.command("cat").arg("/proc/sys/net/ipv4/ip_forward")).unwrap();
        assert_eq!(forwarding, "1\n");
        left.nft("table inet probe { }").unwrap();
        assert!(left.nft("table inet").is_err());
    }
}
