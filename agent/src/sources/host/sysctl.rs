//! Collector `sysctl`: settings below /proc/sys that decide how well a node forwards.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::proc_file::{number, read_small};
use super::rest::Rest;
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
/// Settings of the tunnel: what stands before and behind its name.
const TUNNEL: [(&str, &str); 5] = [
    ("net.ipv4.conf", "forwarding"),
    ("net.ipv4.conf", "rp_filter"),
    ("net.ipv4.conf", "src_valid_mark"),
    ("net.ipv6.conf", "disable_ipv6"),
    ("net.ipv6.conf", "forwarding"),
];
/// Settings of three numbers, and what each of them is (Documentation/networking/ip-sysctl.rst). `udp_mem` is of all
/// namespaces, and the first one alone shows it.
const TRIPLES: [(&str, [&str; 3]); 2] =
    [("net.ipv4.tcp_rmem", ["min", "default", "max"]), ("net.ipv4.udp_mem", ["min", "pressure", "max"])];
/// Somebody changes them by hand, if at all.
const INTERVAL: Duration = Duration::from_secs(10);

/// Reads every [`INTERVAL`].
#[derive(Default)]
pub(super) struct SysctlCollector {
    rest: Rest,
}

impl Collector for SysctlCollector {
    const NAME: &'static str = "sysctl";
    const HELP: &'static str = "kernel settings that matter to forwarding from /proc/sys, read every 10 s";
    type Output = Settings;

    fn field(host: &mut Host) -> &mut Option<Settings> {
        &mut host.settings
    }

    fn rests(&self) -> bool {
        self.rest.is_on()
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Settings>, HostError> {
        let settings = read(&paths.procfs.join("sys"), &paths.interface)?;
        self.rest.begin(INTERVAL);
        Ok(Some(settings))
    }
}

fn read(directory: &Path, tunnel: &str) -> Result<Settings, HostError> {
    let mut numbers = Vec::with_capacity(NUMBERS.len() + TUNNEL.len() + 3 * TRIPLES.len());
    for name in NUMBERS {
        let path = file(directory, name);
        if let Some(text) = content(&path)? {
            numbers.push((name.into(), whole(path, "a number", &text)?));
        }
    }
    for (before, behind) in TUNNEL {
        // A device's name may have dots of its own.
        let path = file(directory, before).join(tunnel).join(behind);
        if let Some(text) = content(&path)? {
            let name = format!("{before}.{}.{behind}", clean::label(tunnel, "unknown"));
            numbers.push((name.into(), whole(path, "a number", &text)?));
        }
    }
    for (name, parts) in TRIPLES {
        let path = file(directory, name);
        let Some(text) = content(&path)? else { continue };
        let mut words = text.split_ascii_whitespace();
        for part in parts {
            let word = words.next().unwrap_or_default();
            numbers.push((format!("{name}.{part}").into(), whole(path.clone(), "three numbers", word)?));
        }
    }
    let word = |name| Ok(content(&file(directory, name))?.map(|text| clean::label(text.trim(), "unknown")));
    Ok(Settings {
        numbers,
        congestion_control: word("net.ipv4.tcp_congestion_control")?,
        default_qdisc: word("net.core.default_qdisc")?,
    })
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(name.replace('.', "/"))
}

fn whole(path: PathBuf, expected: &'static str, text: &str) -> Result<i64, HostError> {
    number(Some(text.trim())).ok_or_else(|| malformed(path, expected, text))
}

/// Content of a setting; `None` when this kernel, or this network namespace, does not have it.
fn content(path: &Path) -> Result<Option<String>, HostError> {
    read_small(path, |error| error.kind() == io::ErrorKind::NotFound)
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
            ("net/ipv4/conf/wan.7/rp_filter", "2\n"),
            ("net/ipv6/conf/wan.7/forwarding", "0\n"),
            ("net/ipv4/udp_mem", "18234\t24312\t36468\n"),
            ("vm/swappiness", "60\n"),
        ]);
        let settings = read(&root.path().join("sys"), "wan.7").unwrap();
        let numbers: Vec<_> = settings.numbers.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
        let expected = [
            ("net.ipv4.ip_forward", 1),
            ("vm.swappiness", 60),
            ("net.ipv4.conf.wan.7.rp_filter", 2),
            ("net.ipv6.conf.wan.7.forwarding", 0),
            ("net.ipv4.udp_mem.min", 18_234),
            ("net.ipv4.udp_mem.pressure", 24_312),
            ("net.ipv4.udp_mem.max", 36_468),
        ];
        assert_eq!(numbers, expected);
        assert_eq!((settings.congestion_control.as_deref(), settings.default_qdisc), (Some("bbr"), None));
    }

    #[test]
    fn a_bad_setting_is_named() {
        for (name, text, expected) in [
            ("net/ipv4/ip_forward", "yes\n", "a number"),
            ("net/ipv4/conf/tailscale0/rp_filter", "", "a number"),
            ("net/ipv4/udp_mem", "1\t2\n", "three numbers"),
        ] {
            let root = tree(&[(name, text)]);
            let error = read(&root.path().join("sys"), "tailscale0").unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn this_host_says_whether_it_forwards() {
        let settings = SysctlCollector::default().collect(&Paths::default()).unwrap().unwrap();
        assert!(settings.numbers.iter().any(|(name, _)| name == "net.ipv4.ip_forward"));
        assert!(settings.congestion_control.is_some());
    }
}
