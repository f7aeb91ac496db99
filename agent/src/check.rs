//! `tailgauge check`: what this host has and lacks, one line each, with the remedy.
//!
//! It tries what the agent would do instead of guessing from versions, and leaves nothing behind. The exit code is
//! 0 when the agent would work here, with or without warnings, and 1 when something failed.

mod memory;
mod tailscaled;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::sources::kernel::{AttachMode, KernelError, probe};

/// The programs use the atomic instructions of this version.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// What to look at.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Name of the tunnel device.
    pub interface: String,
    /// Peers that would get a slot of their own.
    pub max_peers: u32,
    /// Socket of tailscaled's LocalAPI.
    pub tailscale_socket: PathBuf,
    /// Addresses that the agent would listen on.
    pub listen_addresses: Vec<SocketAddr>,
}

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// The agent works, with less.
    Warn,
    /// The agent does not work.
    Fail,
}

impl Status {
    /// The word in the report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found, in one sentence.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, status: Status::Ok, found: found.into(), remedy: None }
    }

    fn warn(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, status: Status::Warn, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn fail(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, status: Status::Fail, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which the agent would meet them.
    pub findings: Vec<Finding>,
}

impl Report {
    /// 0 when nothing failed, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(self.findings.iter().any(|finding| finding.status == Status::Fail))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(formatter, "{:<4}  {:<13} {}", finding.status.as_str(), finding.subject, finding.found)?;
            if let Some(remedy) = &finding.remedy {
                writeln!(formatter, "      {:<13} → {remedy}", "")?;
            }
        }
        Ok(())
    }
}

/// Looks at everything.
#[must_use]
pub fn run(options: &CheckOptions) -> Report {
    let mut findings = vec![
        kernel(&release()),
        types(Path::new("/sys/kernel/btf/vmlinux")),
        permission(&probe::missing_capabilities()),
        memory::memory(options.max_peers),
    ];
    if probe::missing_capabilities().is_empty() {
        findings.push(programs(options.max_peers));
        findings.push(hooks());
        findings.push(loss(probe::reads_super_packets()));
        findings.push(drops());
        findings.push(sampling());
    }
    findings.push(interface(&options.interface));
    findings.push(tailscaled::localapi(&options.tailscale_socket));
    findings.extend(options.listen_addresses.iter().map(|address| listen(*address)));
    Report { findings }
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next().and_then(Result::ok), numbers.next().and_then(Result::ok));
    let found = format!("Linux {release}");
    match version {
        (Some(major), Some(minor)) if (major, minor) < OLDEST_KERNEL => Finding::fail(
            "kernel",
            found,
            "the programs need the atomic instructions of Linux 5.12: run a newer kernel",
        ),
        (Some(_), Some(_)) => Finding::ok("kernel", found),
        _ => Finding::warn(
            "kernel",
            found,
            "this is no version number; the next lines tell whether it will do",
        ),
    }
}

fn types(path: &Path) -> Finding {
    if path.exists() {
        return Finding::ok("kernel types", format!("{} is there", path.display()));
    }
    Finding::warn(
        "kernel types",
        format!("{} is missing", path.display()),
        "counting needs none, but --collector.drops and sampling by the kernel itself do: use a kernel with \
         CONFIG_DEBUG_INFO_BTF",
    )
}

fn permission(missing: &[&str]) -> Finding {
    if missing.is_empty() {
        return Finding::ok("permission", "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN");
    }
    Finding::fail(
        "permission",
        format!("{} missing", missing.join(", ")),
        "run as root, or with AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_NET_ADMIN in the systemd unit",
    )
}

fn programs(max_peers: u32) -> Finding {
    match probe::load(max_peers) {
        Ok(refused) if refused.is_empty() => {
            Finding::ok("programs", "the kernel accepts them and their maps")
        }
        Ok(refused) => Finding::warn(
            "programs",
            refused.join("; "),
            "the agent works without these, and without what they measure; see the reason",
        ),
        Err(error) => Finding::fail("programs", causes(&error), "see the reason; a newer kernel may help"),
    }
}

fn hooks() -> Finding {
    let tcx = match probe::attach(AttachMode::Tcx) {
        Ok(result) => result,
        Err(error @ KernelError::Namespace(_)) => {
            let remedy = "run the check as root to try; the agent itself tries tcx, then clsact";
            return Finding::warn("hooks", format!("not tried: {}", causes(&error)), remedy);
        }
        Err(error) => return Finding::fail("hooks", causes(&error), "see the reason"),
    };
    let Err(no_tcx) = tcx else { return Finding::ok("hooks", "tcx") };
    match probe::attach(AttachMode::Clsact) {
        Ok(Ok(())) => Finding::ok("hooks", format!("clsact ({no_tcx})")),
        Ok(Err(no_clsact)) => Finding::fail(
            "hooks",
            format!("{no_tcx}; {no_clsact}"),
            "the kernel needs CONFIG_NET_XGRESS (6.6 and later), or CONFIG_NET_SCH_INGRESS with CONFIG_NET_CLS_BPF",
        ),
        Err(error) => Finding::fail("hooks", causes(&error), "see the reason"),
    }
}

fn loss(reads_super_packets: bool) -> Finding {
    if reads_super_packets {
        return Finding::ok("loss", "every WireGuard message is read");
    }
    Finding::warn(
        "loss",
        "the kernel has no bpf_loop, which came with Linux 5.17",
        "loss under the tunnel is not judged where packets were joined; run a newer kernel for it",
    )
}

fn drops() -> Finding {
    optional(
        "drops",
        probe::drops(),
        "raw tracepoint kfree_skb",
        "everything else works; --no-collector.drops silences this (lockdown=confidentiality forbids it)",
    )
}

fn sampling() -> Finding {
    // What root may is no proof that a service may.
    let outcome = match probe::sampling() {
        Ok(None) => probe::sampling_as_service().map(|reason| {
            reason.map(|reason| format!("works here, but not as deploy/tailgauge.service runs it: {reason}"))
        }),
        outcome => outcome,
    };
    optional(
        "sampling",
        outcome,
        "by the kernel itself",
        "samples are read from files, at ten times the cost, so half as often where that is too much",
    )
}

/// What the agent can do without: `outcome` has the reason why it must.
fn optional(
    name: &'static str,
    outcome: Result<Option<String>, KernelError>,
    works: &str,
    without: &'static str,
) -> Finding {
    match outcome {
        Ok(None) => Finding::ok(name, works),
        Ok(Some(reason)) => Finding::warn(name, reason, without),
        Err(error) => Finding::fail(name, causes(&error), "see the reason"),
    }
}

fn interface(name: &str) -> Finding {
    match probe::interface(name) {
        Ok(Some(index)) => Finding::ok("interface", format!("{name}, index {index}, layer 3")),
        Ok(None) => Finding::warn(
            "interface",
            format!("there is no interface {name}"),
            "start tailscaled without --tun=userspace-networking, or name its device with --interface; the agent waits",
        ),
        Err(error @ KernelError::NotLayer3 { .. }) => {
            Finding::fail("interface", causes(&error), "name the device of tailscaled with --interface")
        }
        Err(error) => Finding::fail("interface", causes(&error), "see the reason"),
    }
}

fn listen(address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("listen", format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::fail(
            "listen",
            format!("{address} is in use"),
            "stop what listens there (ss -ltnp), or choose another with --web.listen-address",
        ),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Finding::warn(
            "listen",
            format!("{address} is no address of this host yet"),
            "it will be used once the host has it; otherwise correct --web.listen-address",
        ),
        Err(error) => {
            Finding::fail("listen", format!("{address}: {error}"), "choose another with --web.listen-address")
        }
    }
}

/// An error with its causes in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_fail_and_odd_version_names_only_warn() {
        assert_eq!(kernel("5.10.0-28-amd64").status, Status::Fail);
        for release in ["5.12.0", "6.1.0-18-amd64", "6.18.44-fc", "10.0"] {
            assert_eq!(kernel(release).status, Status::Ok, "{release}");
        }
        assert_eq!(kernel("custom").status, Status::Warn);
    }

    #[test]
    fn the_exit_code_says_whether_anything_failed_and_every_problem_has_a_remedy_line() {
        let mut report =
            Report { findings: vec![Finding::ok("kernel", "Linux 6.18"), types(Path::new("/none"))] };
        assert_eq!(report.exit_code(), 0);
        report.findings.push(permission(&["CAP_BPF", "CAP_NET_ADMIN"]));
        assert_eq!(report.exit_code(), 1);
        let text = report.to_string();
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(
            text.starts_with("ok    kernel        Linux 6.18\nwarn  kernel types  /none is missing\n"),
            "{text}"
        );
        assert!(text.contains("FAIL  permission    CAP_BPF, CAP_NET_ADMIN missing\n"), "{text}");
    }

    #[test]
    fn an_address_in_use_fails_and_a_foreign_one_warns() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listen(taken.local_addr().unwrap()).status, Status::Fail);
        assert_eq!(listen("127.0.0.1:0".parse().unwrap()).status, Status::Ok);
        assert_eq!(listen("192.0.2.1:10641".parse().unwrap()).status, Status::Warn);
    }
}
