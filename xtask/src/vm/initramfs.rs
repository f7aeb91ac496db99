//! What runs in the virtual machine: an archive of busybox, the tools and binaries with their libraries, and modules.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use tempfile::NamedTempFile;

use super::kernel::Kernel;
use crate::run::{Error, cargo, check, output};

/// First process of the machine.
const INIT: &str = include_str!("init.sh");

/// Modules in the order in which they are loaded, under `kernel/`.
const MODULES: [&str; 9] = [
    "drivers/net/tun",
    "drivers/net/veth",
    "net/llc/llc",
    "net/802/stp",
    "net/bridge/bridge",
    "net/sched/sch_ingress",
    "net/sched/cls_bpf",
    "net/ipv4/inet_diag",
    "net/ipv4/udp_diag",
];

/// Test binaries that run in the machine; init.sh names them too.
pub const TESTS: [&str; 4] = ["programs", "attach", "attach_underlay", "drops"];

/// Unit tests of the agent; init.sh says which of them run in the machine.
pub const UNIT: &str = "unit";

/// What was built for the machine.
pub struct Binaries {
    /// Name in the machine, and file.
    files: Vec<(String, PathBuf)>,
}

impl Binaries {
    /// Builds the agent and the tests.
    ///
    /// # Errors
    /// When cargo fails.
    pub fn build() -> Result<Self, Error> {
        let mut files = executables(cargo().args(["build", "--package", "tailgauge"]))?;
        let mut tests = cargo();
        tests.args(["test", "--no-run", "--package", "tailgauge-testbed"]);
        files.extend(executables(tests.args(TESTS.iter().flat_map(|name| ["--test", name])))?);
        files.retain(|(name, _)| name == "tailgauge" || TESTS.contains(&name.as_str()));
        let unit = executables(cargo().args(["test", "--no-run", "--package", "tailgauge", "--lib"]))?;
        files.extend(unit.into_iter().map(|(_, file)| (UNIT.to_owned(), file)));
        if files.len() == 2 + TESTS.len() {
            return Ok(Self { files });
        }
        Err(Error::Refused(format!("cargo built other binaries than tailgauge and {}", TESTS.join(", "))))
    }
}

/// A line of cargo's messages.
#[derive(Debug, Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

/// Name and file of every executable that cargo builds.
fn executables(command: &mut Command) -> Result<Vec<(String, PathBuf)>, Error> {
    command.args(["--quiet", "--message-format", "json-render-diagnostics"]);
    let found = |line: &[u8]| {
        let message: Message = serde_json::from_slice(line).ok()?;
        Some((message.target?.name, message.executable?))
    };
    Ok(output(command)?.split(|&byte| byte == b'\n').filter_map(found).collect())
}

/// Makes the archive; it is removed with the returned guard.
///
/// # Errors
/// When something that belongs into it is missing, or a tool fails.
pub fn make(
    kernel: &Kernel,
    binaries: &Binaries,
    filter: Option<&str>,
    folder: &Path,
) -> Result<NamedTempFile, Error> {
    let staging =
        tempfile::tempdir_in(folder).map_err(|source| failed("create a folder in", folder, source))?;
    let tree = Tree { root: staging.path() };
    for empty in ["dev", "proc", "sys", "tmp", "run", "var", "etc"] {
        tree.folder(Path::new(empty))?;
    }
    tree.write("init", INIT)?;
    tree.executable("init")?;
    tree.write("filter", filter.unwrap_or_default())?;
    tree.program(Path::new("/bin/busybox"), "bin/busybox")?;
    for name in ["ip", "tc"] {
        let file = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
        let file = file.into_iter().find(|file| file.exists());
        let file =
            file.ok_or_else(|| Error::Refused(format!("there is no {name} in /usr/sbin or /usr/bin")))?;
        tree.program(&file, &format!("usr/sbin/{name}"))?;
    }
    for (name, file) in &binaries.files {
        tree.program(file, &format!("usr/bin/{name}"))?;
    }
    tree.modules(kernel)?;
    tree.pack(folder)
}

/// The files of the archive before they are packed.
struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    fn folder(&self, path: &Path) -> Result<(), Error> {
        let path = self.root.join(path);
        fs::create_dir_all(&path).map_err(|source| failed("create", &path, source))
    }

    /// Where `inside` is, with the folder that it needs.
    fn place(&self, inside: &str) -> Result<PathBuf, Error> {
        let inside = Path::new(inside);
        self.folder(inside.parent().unwrap_or_else(|| Path::new("")))?;
        Ok(self.root.join(inside))
    }

    fn write(&self, inside: &str, content: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = self.place(inside)?;
        fs::write(&path, content).map_err(|source| failed("write", &path, source))
    }

    fn executable(&self, inside: &str) -> Result<(), Error> {
        let path = self.root.join(inside);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(|source| failed("make executable", &path, source))
    }

    /// Copies a program without its debug information, and the libraries that it names.
    fn program(&self, file: &Path, inside: &str) -> Result<(), Error> {
        let path = self.place(inside)?;
        check(Command::new("strip").arg("--strip-debug").arg("-o").arg(&path).arg(file))?;
        self.executable(inside)?;
        // ldd fails on a static program, which needs nothing.
        let listed = Command::new("ldd")
            .arg(file)
            .output()
            .map_err(|source| Error::Start { program: "ldd".to_owned(), source })?;
        for library in libraries(&String::from_utf8_lossy(&listed.stdout)) {
            let to = self.place(library.trim_start_matches('/'))?;
            if !to.exists() {
                fs::copy(library, &to).map_err(|source| failed("copy", Path::new(library), source))?;
            }
        }
        Ok(())
    }

    /// Copies the modules, uncompressed, and the order in which to load them. What is built in is left out.
    fn modules(&self, kernel: &Kernel) -> Result<(), Error> {
        let list = kernel.modules.join("modules.builtin");
        let builtin = fs::read_to_string(&list).map_err(|source| failed("read", &list, source))?;
        let mut order = String::new();
        for module in MODULES {
            let inside = format!("kernel/{module}.ko");
            if builtin.lines().any(|line| line == inside) {
                continue;
            }
            let name = format!("{}.ko", module.rsplit('/').next().unwrap_or(module));
            let file = kernel.modules.join(&inside);
            let compressed = file.with_extension("ko.xz");
            let content = if compressed.exists() {
                unpack(&compressed)?
            } else {
                fs::read(&file).map_err(|source| failed("read", &file, source))?
            };
            self.write(&format!("modules/{name}"), content)?;
            order.push_str(&name);
            order.push('\n');
        }
        self.write("modules/order", order)
    }

    /// Packs everything, owned by root, in the format that the kernel unpacks.
    fn pack(&self, folder: &Path) -> Result<NamedTempFile, Error> {
        let archive =
            NamedTempFile::new_in(folder).map_err(|source| failed("create a file in", folder, source))?;
        let to = archive.reopen().map_err(|source| failed("open", archive.path(), source))?;
        let names = tempfile::tempfile()
            .map_err(|source| failed("create a file in", &std::env::temp_dir(), source))?;
        let list = names.try_clone().map_err(|source| failed("open", self.root, source))?;
        check(Command::new("find").arg(".").current_dir(self.root).stdout(list))?;
        rewind(&names).map_err(|source| failed("list", self.root, source))?;
        let mut pack = Command::new("cpio");
        pack.args(["--quiet", "-o", "-H", "newc", "-R", "0:0"]).current_dir(self.root);
        check(pack.stdin(names).stdout(to))?;
        Ok(archive)
    }
}

fn rewind(mut file: &fs::File) -> std::io::Result<()> {
    std::io::Seek::rewind(&mut file)
}

/// Content of a compressed module.
fn unpack(file: &Path) -> Result<Vec<u8>, Error> {
    output(Command::new("xz").args(["--decompress", "--stdout"]).arg(file))
}

/// Files in the output of `ldd`.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

fn failed(operation: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { operation, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_their_loader_are_found_and_the_vdso_is_none() {
        let listed = "\tlinux-vdso.so.1 (0x00007f68bb9fa000)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f68bac1e000)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f68bb9fc000)\n";
        let found: Vec<_> = libraries(listed).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(libraries("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn init_runs_the_tests_that_are_built() {
        assert!(INIT.contains(&format!("for name in {}; do", TESTS.join(" "))), "{INIT}");
    }
}
