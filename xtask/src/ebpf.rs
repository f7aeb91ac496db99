//! `cargo xtask ebpf`: builds the kernel objects from source, or checks the committed ones.
//!
//! The objects are committed so that the agent builds without any BPF toolchain, and reproducible so that
//! anybody can check them: the same toolchain makes the same bytes in every directory.

mod compare;
mod sources;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::run::{Error, cargo, check, root};
use compare::symbols;
use toolchain::{Record, Toolchain};

/// Flags of the command.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Compare the committed objects with a fresh build, and change nothing
    #[arg(long)]
    check: bool,
    /// Build the programs with log lines into this file, and leave the committed objects alone
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    with_log: Option<PathBuf>,
}

/// An object and how cargo makes it.
struct Object {
    /// File under [`FOLDER`].
    file: &'static str,
    /// Binary of the package.
    binary: &'static str,
    feature: &'static str,
}

/// Where the objects are committed.
const FOLDER: &str = "ebpf/object";

const PROGRAMS: Object = Object { file: "tailgauge.bpf.o", binary: "tailgauge-ebpf", feature: "program" };
const BASELINE: Object = Object { file: "bench.bpf.o", binary: "tailgauge-baseline", feature: "bench" };
const OBJECTS: [&Object; 2] = [&PROGRAMS, &BASELINE];

/// Builds or checks the objects.
///
/// # Errors
/// The toolchain is missing, the build failed, or the committed objects are stale.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    if arguments.check {
        return check_objects();
    }
    let toolchain = Toolchain::find().map_err(|missing| Error::Refused(missing.to_string()))?;
    if let Some(file) = &arguments.with_log {
        return write(file, &build(&toolchain, &Object { feature: "log", ..PROGRAMS })?);
    }
    let mut built = Vec::new();
    for object in OBJECTS {
        let bytes = build(&toolchain, object)?;
        write(&committed(object.file), &bytes)?;
        println!("{FOLDER}/{}: {} bytes, sha256 {}", object.file, bytes.len(), sources::sha256(&bytes));
        built.push((object.file.to_owned(), sources::sha256(&bytes)));
    }
    let record = Record { versions: toolchain.versions, sources: sources::digest(&root())?, objects: built };
    write(&committed(Record::FILE), record.to_string().as_bytes())
}

fn committed(file: &str) -> PathBuf {
    root().join(FOLDER).join(file)
}

fn check_objects() -> Result<(), Error> {
    let stale = |what: String| Error::Refused(format!("{what}; run: cargo xtask ebpf"));
    let record = Record::parse(&read_text(&committed(Record::FILE))?);
    if sources::digest(&root())? != record.sources {
        return Err(stale("the sources of the kernel objects have changed since they were built".to_owned()));
    }
    println!("sources: as they were when the objects were built");
    for object in OBJECTS {
        let bytes = read(&committed(object.file))?;
        if record.object(object.file) != Some(&sources::sha256(&bytes)) {
            return Err(stale(format!("{FOLDER}/{} is not the file that was built last", object.file)));
        }
    }
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(missing) => {
            println!("bytes: NOT rebuilt, {missing}");
            return Ok(());
        }
    };
    let same = toolchain.versions == record.versions;
    if !same {
        println!(
            "bytes: another toolchain ({}) than the one recorded ({}); names are compared instead",
            toolchain.versions, record.versions
        );
    }
    for object in OBJECTS {
        let (old, new) = (read(&committed(object.file))?, build(&toolchain, object)?);
        if same && old != new {
            return Err(stale(format!("{FOLDER}/{} differs from a fresh build", object.file)));
        }
        if symbols(&old) != symbols(&new) {
            return Err(stale(format!("{FOLDER}/{} has other programs, maps or globals", object.file)));
        }
        println!("{FOLDER}/{}: {}", object.file, if same { "same bytes" } else { "same names" });
    }
    Ok(())
}

/// Builds one object; returns its bytes without debug information, which the kernel has no use for.
fn build(toolchain: &Toolchain, object: &Object) -> Result<Vec<u8>, Error> {
    let target = root().join("target/bpf");
    let mut command = cargo();
    command
        .args(["build", "--quiet", "--locked", "--package", "tailgauge-ebpf", "--profile", "bpf"])
        .args(["--bin", object.binary, "--features", object.feature])
        .args(["--target", toolchain::TARGET, "--target-dir"])
        .arg(&target);
    toolchain.configure(&mut command);
    check(&mut command)?;

    let linked = target.join(toolchain::TARGET).join("bpf").join(object.binary);
    let stripped = tempfile::NamedTempFile::new().map_err(|source| Error::File {
        operation: "create",
        path: std::env::temp_dir(),
        source,
    })?;
    check(toolchain.objcopy().arg("--strip-debug").arg(linked).arg(stripped.path()))?;
    read(stripped.path())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { operation: "read", path: path.to_path_buf(), source })
}

fn read_text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File {
        operation: "read",
        path: path.to_path_buf(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { operation: "write", path: path.to_path_buf(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, bytes).map_err(failed)
}
