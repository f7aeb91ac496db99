//! Hands the compiler's version and the target on to the agent, which exports them.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TAILGAUGE_REVISION");
    let target = env::var("TARGET").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo::rustc-env=TAILGAUGE_TARGET={target}");
    println!("cargo::rustc-env=TAILGAUGE_RUSTC={}", compiler().unwrap_or_else(|| "unknown".to_owned()));
}

/// `1.95.0` out of `rustc 1.95.0 (hash date)`.
fn compiler() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.split(' ').nth(1).map(|version| version.trim().to_owned())
}
