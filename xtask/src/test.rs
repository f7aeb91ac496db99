//! `cargo xtask test`: format, lints, the kernel object, unit and integration tests, one closing line.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use clap::Args;

use crate::run::{Error, cargo, check, describe, is_root};
use crate::setup;

/// Flags of the command.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Install what is missing from Debian's packages first (root)
    #[arg(long)]
    install: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Sums of cargo's `test result:` lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Tally {
    /// Adds a line like `test result: ok. 4 passed; 0 failed; 0 ignored; …`.
    pub fn add_line(&mut self, line: &str) {
        let Some(rest) = line.trim().strip_prefix("test result: ") else { return };
        let counted = |word: &str| {
            rest.split([';', '.'])
                .filter_map(|part| part.trim().strip_suffix(word))
                .find_map(|number| number.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.passed += counted(" passed");
        self.failed += counted(" failed");
        self.skipped += counted(" ignored");
    }

    /// A test skipped itself, which the harness counted as passed.
    pub const fn skip_one(&mut self) {
        self.passed = self.passed.saturating_sub(1);
        self.skipped += 1;
    }
}

/// Runs everything.
///
/// # Errors
/// The first check that failed, or that tests failed.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let groups = [setup::TESTBED, setup::REFERENCES];
    if arguments.install {
        setup::install(&groups)?;
        setup::install_kernel_toolchain()?;
    }
    let mut left_out = Vec::new();
    if arguments.filter.is_none() {
        check(cargo().args(["fmt", "--all", "--check"]))?;
        check(cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
        check(
            cargo()
                .args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )?;
    }
    // The integration tests run this binary.
    check(cargo().args(["build", "--package", "tailgauge"]))?;

    let mut tally = Tally::default();
    let unit = ["tailgauge", "tailgauge-ebpf", "xtask"];
    let mut command = cargo();
    command.arg("test").arg("--no-fail-fast").args(unit.iter().flat_map(|name| ["--package", name]));
    run_tests(&mut command, arguments.filter.as_deref(), None, &mut tally)?;

    if !is_root() {
        left_out.push("integration tests: they need root for namespaces and BPF".to_owned());
    } else if let Some(line) = setup::missing(&[setup::TESTBED]) {
        left_out.push(format!("integration tests: {line}"));
    } else {
        let skips = tempfile::NamedTempFile::new().map_err(|source| Error::File {
            operation: "create",
            path: std::env::temp_dir(),
            source,
        })?;
        let mut command = cargo();
        command.args(["test", "--no-fail-fast", "--package", "tailgauge-testbed"]);
        run_tests(&mut command, arguments.filter.as_deref(), Some(skips.path()), &mut tally)?;
        let text = std::fs::read_to_string(skips.path()).map_err(|source| Error::File {
            operation: "read",
            path: skips.path().to_path_buf(),
            source,
        })?;
        for line in text.lines() {
            tally.skip_one();
            left_out.push(line.to_owned());
        }
    }
    for line in &left_out {
        println!("left out: {line}");
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    if tally.failed > 0 {
        return Err(Error::Refused("tests failed; see above".to_owned()));
    }
    Ok(())
}

/// Runs `cargo test`, shows what it prints and adds up its result lines.
fn run_tests(
    command: &mut Command,
    filter: Option<&str>,
    skips: Option<&std::path::Path>,
    tally: &mut Tally,
) -> Result<(), Error> {
    command.args(filter);
    if let Some(path) = skips {
        // Each test owns namespaces and measures time: one at a time on small machines.
        command.env("TAILGAUGE_SKIPPED", path).args(["--", "--test-threads=1"]);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Start { program: "cargo test".to_owned(), source })?;
    let failed_before = tally.failed;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            println!("{line}");
            tally.add_line(&line);
        }
    }
    let status = child.wait().map_err(|source| Error::Start { program: "cargo test".to_owned(), source })?;
    // Tests that failed are in the tally; anything else (a build error, a crash) is a failure of its own.
    if !status.success() && tally.failed == failed_before {
        return Err(Error::Failed { program: describe(command), status });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let mut tally = Tally::default();
        tally.add_line(
            "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        tally.add_line("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.add_line("test slots::tests::x ... ok");
        assert_eq!(tally, Tally { passed: 6, failed: 3, skipped: 1 });
    }
}
