//! Collector `sysctl`: settings below /proc/sys that decide how well a node forwards.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::proc_file::{number, read_once};
use super::{Collector, HostError, Paths, malformed};
use crate::model::host::{Host, Settings};
use crate::sources::clean;

/// Numbers, by the name that sysctl(8) knows.
const NUMBERS: [&str; 18] = [
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.conf.all.src_valid_mark",
    "net.ipv4.ip_no_pmtu_disc",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.all.disable_ipv6",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.netdev_max_backlog",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.dev_weight",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "net.netfilter.nf_conntrack_udp_timeout",
    "net.netfilter.nf_conntrack_udp_timeout_stream",
    "vm.swappiness",
];
/// Somebody changes them by hand, if at all.
const INTERVAL: Duration = Duration::from_secs(10);

/// Remembers the settings for [`INTERVAL`].
#[derive(Default)]
pub(super) struct SysctlCollector {
    last: Option<(Instant, Settings)>,
}

impl Collector for SysctlCollector {
    const NAME: &'static str = "sysctl";
    const HELP: &'static str = "kernel settings that matter to forwarding from /proc/sys, read every 10 s";
    type Output = Settings;

    fn field(host: &mut Host) -> &mut Option<Settings> {
        &mut host.settings
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Settings>, HostError> {
        if let Some((_, settings)) = self.last.as_ref().filter(|(read, _)| read.elapsed() < INTERVAL) {
            return Ok(Some(settings.clone()));
        }
        self.last = None;
        let settings = read(&paths.procfs.join("sys"))?;
        self.last = Some((Instant::now(), settings.clone()));
        Ok(Some(settings))
    }
}

fn read(directory: &Path) -> Result<Settings, HostError> {
    let mut numbers = Vec::with_capacity(NUMBERS.len());
    for name in NUMBERS {
        let Some(text) = setting(directory, name)? else { continue };
        let path = directory.join(name.replace('.', "/"));
        let value = number(Some(text.trim())).ok_or_else(|| malformed(path, "a number", &text))?;
        numbers.push((name, value));
    }
    let word = |name| Ok(setting(directory, name)?.map(|text| clean::label(text.trim(), "unknown")));
    Ok(Settings {
        numbers,
        congestion_control: word("net.ipv4.tcp_congestion_control")?,
        default_qdisc: word("net.core.default_qdisc")?,
    })
}

/// Content of a setting; `None` when this kernel, or this network namespace, does not have it.
fn setting(directory: &Path, name: &str) -> Result<Option<String>, HostError> {
    let path = directory.join(name.replace('.', "/"));
    match read_once(&path) {
        Ok(bytes) => Ok(Some(clean::lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HostError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join("sys").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn what_is_there_is_read_and_the_rest_left_out() {
        let root = tree(&[
            ("net/ipv4/ip_forward", "1\n"),
            ("net/ipv4/tcp_congestion_control", "bbr\n"),
            ("vm/swappiness", "60\n"),
        ]);
        let settings = read(&root.path().join("sys")).unwrap();
        assert_eq!(settings.numbers, [("net.ipv4.ip_forward", 1), ("vm.swappiness", 60)]);
        assert_eq!((settings.congestion_control.as_deref(), settings.default_qdisc), (Some("bbr"), None));
    }

    #[test]
    fn a_bad_setting_is_named() {
        let root = tree(&[("net/ipv4/ip_forward", "yes\n")]);
        let error = read(&root.path().join("sys")).unwrap_err().to_string();
        assert!(error.contains("net/ipv4/ip_forward") && error.contains("a number"), "{error}");
    }

    #[test]
    fn this_host_says_whether_it_forwards() {
        let settings = SysctlCollector::default().collect(&Paths::default()).unwrap().unwrap();
        assert!(settings.numbers.iter().any(|(name, _)| *name == "net.ipv4.ip_forward"));
        assert!(settings.congestion_control.is_some());
    }
}
