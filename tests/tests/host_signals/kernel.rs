//! What the kernel says, by its own files and tools.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tailgauge_testbed::netns::Namespace;
use tailgauge_testbed::process::run;

/// A count of /proc/net/snmp or /proc/net/netstat: `Udp`, `RcvbufErrors`.
pub(crate) fn snmp(namespace: &Namespace, protocol: &str, name: &str) -> u64 {
    let text = read(namespace, "/proc/thread-self/net/snmp");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split_whitespace().position(|other| other == name).unwrap();
    values.split_whitespace().nth(place).unwrap().parse().unwrap()
}

/// A count of /proc/net/snmp6.
pub(crate) fn snmp6(namespace: &Namespace, name: &str) -> u64 {
    let text = read(namespace, "/proc/thread-self/net/snmp6");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', '\t']));
    line.unwrap().trim().parse().unwrap()
}

/// A file as a thread in the namespace reads it.
pub(crate) fn read(namespace: &Namespace, path: &str) -> String {
    namespace.run(|| fs::read_to_string(path)).unwrap().unwrap()
}

/// The root queueing discipline of a device, as `tc -s -j` prints it.
pub(crate) fn qdisc(namespace: &Namespace, device: &str) -> Value {
    let arguments = ["-n", namespace.name(), "-s", "-j", "qdisc", "show", "dev", device];
    let text = run(Command::new("tc").args(arguments)).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    all.as_array().unwrap().iter().find(|qdisc| qdisc["root"] == true).unwrap().clone()
}

/// Lines of /proc/stat that begin with `cpu` and a number: the number, and seconds in soft interrupts and in all modes.
pub(crate) fn cpus() -> Vec<(u32, f64, f64)> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let text = fs::read_to_string("/proc/stat").unwrap();
    let lines = text.lines().filter_map(|line| {
        let (number, columns) = line.strip_prefix("cpu")?.split_once(' ')?;
        let number = number.parse().ok()?;
        let columns: Vec<f64> = columns.split(' ').map(|column| column.parse().unwrap()).collect();
        Some((number, columns[6] / ticks, columns[..8].iter().sum::<f64>() / ticks))
    });
    lines.collect()
}

/// First column of /proc/net/softnet_stat for every CPU: packets that it processed.
pub(crate) fn softnet() -> Vec<u64> {
    let text = fs::read_to_string("/proc/net/softnet_stat").unwrap();
    text.lines().map(|line| u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()).collect()
}

/// Microseconds of the line `some` of a file in /proc/pressure; `None` where the kernel does not offer it.
pub(crate) fn pressure(resource: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?;
    let line = text.lines().find(|line| line.starts_with("some"))?;
    line.split_once("total=")?.1.parse().ok()
}
