//! What goes into the objects, as one digest.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::toolchain;
use crate::run::Error;

/// Crates that end up in an object; their versions are part of the digest.
const CRATES: [&str; 4] = ["aya-ebpf", "aya-ebpf-bindings", "aya-ebpf-cty", "aya-ebpf-macros"];

/// SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Digest over the crate, the versions of its dependencies, the build profile and the recipe.
pub(super) fn digest(root: &Path) -> Result<String, Error> {
    let mut files = vec![root.join("ebpf/Cargo.toml")];
    collect(&root.join("ebpf/src"), &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    let mut part = |name: &str, content: &[u8]| {
        for bytes in [name.as_bytes(), content] {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    };
    for file in &files {
        let name = file.strip_prefix(root).unwrap_or(file).to_string_lossy().replace('\\', "/");
        part(&name, &read(file)?);
    }
    let manifest = text(&root.join("Cargo.toml"))?;
    part("profile", section(&manifest, "[profile.bpf]").as_bytes());
    let lock = text(&root.join("Cargo.lock"))?;
    for name in CRATES {
        part(name, package(&lock, name).as_bytes());
    }
    part("recipe", toolchain::RECIPE.join(" ").as_bytes());
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |source| Error::File { operation: "list", path: folder.to_path_buf(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { operation: "read", path: path.to_path_buf(), source })
}

fn text(path: &Path) -> Result<String, Error> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}

/// A table of a manifest: from its header to the next one.
fn section(manifest: &str, header: &str) -> String {
    let lines = manifest.lines().skip_while(|line| *line != header);
    lines
        .enumerate()
        .take_while(|(at, line)| *at == 0 || !line.starts_with('['))
        .map(|(_, line)| line)
        .collect()
}

/// A package's entry in the lock file.
fn package(lock: &str, name: &str) -> String {
    let wanted = format!("name = \"{name}\"");
    let found = lock.split("[[package]]").find(|entry| entry.lines().any(|line| line == wanted));
    found.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_at_the_next_header() {
        let manifest = "[a]\nx = 1\n[profile.bpf]\nlto = false\n\n[b]\ny = 2\n";
        assert_eq!(section(manifest, "[profile.bpf]"), "[profile.bpf]lto = false");
    }

    #[test]
    fn a_package_is_found_by_its_whole_name() {
        let lock = "[[package]]\nname = \"aya-ebpf-cty\"\nversion = \"1\"\n\n[[package]]\nname = \"aya-ebpf\"\nversion = \"2\"\n";
        assert!(package(lock, "aya-ebpf").contains("version = \"2\""));
    }

    #[test]
    fn the_digest_sees_the_sources() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("ebpf/src/programs")).unwrap();
        for file in ["Cargo.toml", "Cargo.lock", "ebpf/Cargo.toml", "ebpf/src/programs/a.rs"] {
            fs::write(root.join(file), "").unwrap();
        }
        let before = digest(root).unwrap();
        fs::write(root.join("ebpf/src/programs/a.rs"), "//").unwrap();
        assert_ne!(digest(root).unwrap(), before);
    }
}
