//! Programs that the commands need besides Rust: says what is missing in one line, or installs it.

use std::collections::BTreeSet;
use std::process::Command;

use crate::run::{Error, check, is_root, on_path};

/// Something that has to be there.
pub struct Need {
    /// Present when this is: a program on PATH, or a file when it starts with '/'.
    present: &'static str,
    /// Debian's package.
    package: &'static str,
}

/// What the miniature tailnet needs.
pub const TESTBED: &[Need] =
    &[Need { present: "ip", package: "iproute2" }, Need { present: "nft", package: "nftables" }];

/// What the integration tests hold the agent against.
pub const REFERENCES: &[Need] = &[
    Need { present: "iperf3", package: "iperf3" },
    Need { present: "ping", package: "iputils-ping" },
    Need { present: "ethtool", package: "ethtool" },
    Need { present: "tcpdump", package: "tcpdump" },
    Need { present: "prometheus", package: "prometheus" },
    Need { present: "promtool", package: "prometheus" },
    Need { present: "prometheus-node-exporter", package: "prometheus-node-exporter" },
];

/// What runs other kernels.
pub const VIRTUAL_MACHINE: &[Need] = &[
    Need { present: "qemu-system-x86_64", package: "qemu-system-x86" },
    Need { present: "/bin/busybox", package: "busybox-static" },
    Need { present: "cpio", package: "cpio" },
    Need { present: "ip", package: "iproute2" },
    Need { present: "strip", package: "binutils" },
    Need { present: "xz", package: "xz-utils" },
    Need { present: "apt-get", package: "apt" },
    Need { present: "dpkg", package: "dpkg" },
];

/// What builds the kernel object.
pub const KERNEL_OBJECT: &[Need] = &[
    Need { present: "/usr/bin/rustc", package: "rustc-web" },
    Need { present: "/usr/lib/rustlib/bpfel-unknown-none/lib", package: "libstd-rust-web-dev-bpf" },
    Need { present: "/usr/lib/llvm-22/bin/llvm-objcopy", package: "llvm-22" },
];

/// What builds bpf-linker, needed only while that is missing.
const LINKER: &[Need] = &[
    Need { present: "/usr/lib/llvm-22/lib/libLLVM.so", package: "llvm-22-dev" },
    Need { present: "/usr/include/zstd.h", package: "libzstd-dev" },
    Need { present: "/usr/lib/llvm-22/lib/libPolly.a", package: "libpolly-22-dev" },
];

/// Release of bpf-linker that the committed object was linked with.
const LINKER_VERSION: &str = "0.13.0";

fn present(need: &Need) -> bool {
    if need.present.starts_with('/') {
        std::path::Path::new(need.present).exists()
    } else {
        on_path(need.present)
    }
}

fn missing_packages(groups: &[&[Need]]) -> BTreeSet<&'static str> {
    groups
        .iter()
        .flat_map(|group| group.iter())
        .filter(|need| !present(need))
        .map(|need| need.package)
        .collect()
}

/// One line naming what is missing of `groups`; `None` when nothing is.
pub fn missing(groups: &[&[Need]]) -> Option<String> {
    let packages = missing_packages(groups);
    (!packages.is_empty()).then(|| {
        let list = packages.into_iter().collect::<Vec<_>>().join(" ");
        format!("missing programs; install them with: apt-get install {list}")
    })
}

/// Installs what is missing of `groups` from Debian's packages.
///
/// # Errors
/// Not root, no apt-get, or the installation failed.
pub fn install(groups: &[&[Need]]) -> Result<(), Error> {
    let packages = missing_packages(groups);
    if packages.is_empty() {
        return Ok(());
    }
    if !is_root() || !on_path("apt-get") {
        let line = missing(groups).unwrap_or_default();
        return Err(Error::Refused(format!("{line} (needs root and Debian's apt-get)")));
    }
    eprintln!("xtask: installing {}", packages.iter().copied().collect::<Vec<_>>().join(" "));
    check(Command::new("apt-get").args(["update", "-qq"]))?;
    check(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages),
    )
}

fn linker_is_there() -> bool {
    on_path("bpf-linker")
}

/// Installs the compiler and linker of the kernel object.
///
/// # Errors
/// As [`install`], or bpf-linker did not build.
pub fn install_kernel_toolchain() -> Result<(), Error> {
    install(&[KERNEL_OBJECT])?;
    if linker_is_there() {
        return Ok(());
    }
    install(&[LINKER])?;
    eprintln!("xtask: building bpf-linker {LINKER_VERSION}, about a minute and a half");
    check(
        Command::new("cargo")
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked"])
            .args(["--no-default-features", "--features", "llvm-22"]),
    )
}
