//! The compiler, linker and recipe of the kernel objects.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{on_path, root};

/// Target triple.
pub(super) const TARGET: &str = "bpfel-unknown-none";

/// Flags of the compiler. v3: atomic exchanges and 32-bit registers, kernel 5.12 and later.
pub(super) const RECIPE: [&str; 5] = [
    "--cfg=bpf_target_arch=\"x86_64\"",
    "-Cdebuginfo=2",
    "-Ctarget-cpu=v3",
    "-Clinker=bpf-linker",
    "-Clink-arg=--btf",
];

/// Crates that use unstable features, all of them of the BPF target itself; everything else stays stable.
const UNSTABLE: &str = "aya_ebpf,tailgauge_ebpf";

/// Debian's compiler, which may come with a core library for BPF.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// LLVM's tools as Debian names them.
const OBJCOPY: [&str; 3] = ["/usr/lib/llvm-22/bin/llvm-objcopy", "llvm-objcopy-22", "llvm-objcopy"];

/// What is missing, and what to install.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    #[error(
        "no compiler for BPF: apt-get install rustc-web libstd-rust-web-dev-bpf, or rustup toolchain install \
         nightly --component rust-src"
    )]
    Compiler,
    #[error(
        "no bpf-linker: apt-get install llvm-22-dev libzstd-dev libpolly-22-dev, then \
         LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features \
         --features llvm-22"
    )]
    Linker,
    #[error("no llvm-objcopy: apt-get install llvm-22")]
    Objcopy,
}

/// Versions that decide about the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Versions {
    /// `rustc --version`.
    pub(super) rustc: String,
    /// LLVM of rustc.
    pub(super) llvm: String,
    /// `bpf-linker --version`.
    pub(super) linker: String,
    /// LLVM of objcopy.
    pub(super) objcopy: String,
    /// `prebuilt` or `build-std`.
    pub(super) core: String,
}

impl fmt::Display for Versions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rustc, llvm, linker, objcopy, core } = self;
        write!(formatter, "rustc {rustc}, LLVM {llvm}, bpf-linker {linker}, objcopy {objcopy}, core {core}")
    }
}

/// A complete toolchain.
#[derive(Debug)]
pub(super) struct Toolchain {
    pub(super) versions: Versions,
    rustc: PathBuf,
    sysroot: PathBuf,
    objcopy: PathBuf,
    build_std: bool,
}

impl Toolchain {
    /// Debian's compiler with its prebuilt core library, or else a nightly with the sources of one.
    pub(super) fn find() -> Result<Self, Missing> {
        let (rustc, sysroot, build_std) = debian().or_else(nightly).ok_or(Missing::Compiler)?;
        let linker = output("bpf-linker", &["--version"]).ok_or(Missing::Linker)?;
        let objcopy = OBJCOPY
            .iter()
            .map(PathBuf::from)
            .find(|path| path.is_file() || path.to_str().is_some_and(on_path))
            .ok_or(Missing::Objcopy)?;
        let verbose = output(&rustc, &["-vV"]).ok_or(Missing::Compiler)?;
        let described = output(&objcopy, &["--version"]).ok_or(Missing::Objcopy)?;
        let versions = Versions {
            rustc: after(&verbose, "rustc ").unwrap_or_default(),
            llvm: after(&verbose, "LLVM version: ").unwrap_or_default(),
            linker: after(&linker, "bpf-linker ").unwrap_or(linker),
            objcopy: version_number(&described),
            core: if build_std { "build-std" } else { "prebuilt" }.to_owned(),
        };
        Ok(Self { versions, rustc, sysroot, objcopy, build_std })
    }

    /// Makes a `cargo build` use this toolchain and nothing of the caller's environment.
    pub(super) fn configure(&self, command: &mut Command) {
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PROFILE_")
                || name.starts_with("CARGO_TARGET_")
                || name.starts_with("RUSTC_")
            {
                command.env_remove(&*name);
            }
        }
        command
            .env_remove("RUSTFLAGS")
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", UNSTABLE)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags().join("\u{1f}"));
        if self.build_std {
            command.env("RUSTC_BOOTSTRAP", "1").args(["-Z", "build-std=core"]);
        }
    }

    /// The recipe, and paths replaced: they are in the line information that the kernel shows.
    fn flags(&self) -> Vec<String> {
        let home = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
            .unwrap_or_default();
        let remapped = [(root(), "/tailgauge"), (home, "/cargo"), (self.sysroot.clone(), "/rust")];
        RECIPE
            .iter()
            .map(ToString::to_string)
            .chain(remapped.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())))
            .collect()
    }

    /// A command that runs objcopy.
    pub(super) fn objcopy(&self) -> Command {
        Command::new(&self.objcopy)
    }
}

fn debian() -> Option<(PathBuf, PathBuf, bool)> {
    let sysroot = PathBuf::from(output(DEBIAN_RUSTC, &["--print", "sysroot"])?);
    let library = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    library.is_dir().then(|| (PathBuf::from(DEBIAN_RUSTC), sysroot, false))
}

fn nightly() -> Option<(PathBuf, PathBuf, bool)> {
    let rustc = PathBuf::from(output("rustup", &["which", "--toolchain", "nightly", "rustc"])?);
    let sysroot = PathBuf::from(output(&rustc, &["--print", "sysroot"])?);
    let sources = sysroot.join("lib/rustlib/src/rust/library/Cargo.toml");
    sources.is_file().then_some((rustc, sysroot, true))
}

/// What a command prints, without the end of line; `None` when it cannot be run or fails.
fn output(program: impl AsRef<Path>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program.as_ref()).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The rest of the line that starts with `prefix`.
fn after(text: &str, prefix: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned)
}

/// The first word that looks like a version.
fn version_number(text: &str) -> String {
    let is_version =
        |word: &&str| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit());
    text.split_whitespace().find(is_version).unwrap_or_default().to_owned()
}

/// What the committed objects were made with, kept beside them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) versions: Versions,
    /// Digest of the sources.
    pub(super) sources: String,
    /// Digest of each object, by file name.
    pub(super) objects: Vec<(String, String)>,
}

impl Record {
    /// Name of the file.
    pub(super) const FILE: &str = "TOOLCHAIN";

    /// Reads what [`fmt::Display`] writes; what is not there stays empty, and so equals nothing.
    pub(super) fn parse(text: &str) -> Self {
        let mut record = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(": ")) {
            let value = value.to_owned();
            match key {
                "rustc" => record.versions.rustc = value,
                "llvm" => record.versions.llvm = value,
                "bpf-linker" => record.versions.linker = value,
                "llvm-objcopy" => record.versions.objcopy = value,
                "core" => record.versions.core = value,
                "sources" => record.sources = value,
                file => record.objects.push((file.to_owned(), value)),
            }
        }
        record
    }

    /// Digest of an object.
    pub(super) fn object(&self, file: &str) -> Option<&String> {
        self.objects.iter().find(|(name, _)| name == file).map(|(_, digest)| digest)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Versions { rustc, llvm, linker, objcopy, core } = &self.versions;
        writeln!(formatter, "rustc: {rustc}\nllvm: {llvm}\nbpf-linker: {linker}\nllvm-objcopy: {objcopy}")?;
        writeln!(formatter, "core: {core}\nsources: {}", self.sources)?;
        self.objects.iter().try_for_each(|(file, digest)| writeln!(formatter, "{file}: {digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_reads_what_it_wrote() {
        let versions = Versions {
            rustc: "1.96.0 (ac68faa20 2026-05-25)".to_owned(),
            llvm: "22.1.8".to_owned(),
            linker: "0.13.0".to_owned(),
            objcopy: "22.1.8".to_owned(),
            core: "prebuilt".to_owned(),
        };
        let objects = vec![("a.o".to_owned(), "12".to_owned()), ("b.o".to_owned(), "34".to_owned())];
        let record = Record { versions, sources: "56".to_owned(), objects };
        assert_eq!(Record::parse(&record.to_string()), record);
    }

    #[test]
    fn versions_are_found_in_what_tools_say() {
        assert_eq!(
            version_number("llvm-objcopy, compatible with GNU objcopy\nDebian LLVM version 22.1.8\n"),
            "22.1.8"
        );
        assert_eq!(after("rustc 1.96.0\nLLVM version: 22.1.8", "LLVM version: ").as_deref(), Some("22.1.8"));
    }
}
