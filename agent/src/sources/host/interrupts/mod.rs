//! Collector `interrupts`: which CPUs the network devices interrupt, from /proc/interrupts or, where they have few, from
//! /sys/kernel/irq.

mod counts;
mod owners;
mod table;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::proc_file::ProcFile;
use super::{Collector, HostError, Paths};
use crate::model::host::{DeviceInterrupts, Host};
use counts::Counts;
use table::Table;

/// How long it is remembered whose each interrupt is, and which CPUs there are.
const LIST_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the files open, and counts on where the kernel's counters begin anew.
#[derive(Default)]
pub(super) struct InterruptsCollector {
    file: ProcFile,
    listed: Option<Instant>,
    devices: Vec<Device>,
    /// `None` where the table is read each time.
    counts: Option<Counts>,
}

impl Collector for InterruptsCollector {
    const NAME: &'static str = "interrupts";
    const HELP: &'static str =
        "interrupts of network devices by CPU, from /proc/interrupts or /sys/kernel/irq";
    type Output = Vec<DeviceInterrupts>;

    fn field(host: &mut Host) -> &mut Option<Vec<DeviceInterrupts>> {
        &mut host.interrupts
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Vec<DeviceInterrupts>>, HostError> {
        let Self { file, listed, devices, counts } = self;
        let mut recent = listed.is_some_and(|listed| listed.elapsed() < LIST_INTERVAL);
        if let Some(counts) = counts.as_mut().filter(|_| recent) {
            let complete = counts.read(&paths.sysfs, |number, by_cpu| {
                if let Some(device) = owner(devices, number) {
                    device.add(number, by_cpu.iter().copied());
                }
            });
            if complete {
                return Ok(Some(devices.iter_mut().map(|device| device.finish(counts.cpus())).collect()));
            }
            recent = false;
        }
        let found = file.parse(&paths.procfs, "interrupts", |text| {
            let table = Table::parse(text)?;
            if !recent {
                follow(devices, owners::list(&paths.sysfs.join("class/net"), &table));
                let numbers = devices.iter().flat_map(|device| device.lines.keys().copied());
                *counts = Counts::new(&paths.sysfs, &table.cpus, numbers);
                *listed = Some(Instant::now());
            }
            for row in table.rows() {
                if let Some(device) = owner(devices, row.number) {
                    let counts = row.counts(table.cpus.len())?;
                    device.add(row.number, table.cpus.iter().copied().zip(counts));
                }
            }
            Ok(devices.iter_mut().map(|device| device.finish(&table.cpus)).collect())
        })?;
        Ok(Some(found))
    }
}

fn owner(devices: &mut [Device], number: u32) -> Option<&mut Device> {
    devices.iter_mut().find(|device| device.lines.contains_key(&number))
}

/// A device with what was counted for it.
#[derive(Debug, Default)]
struct Device {
    name: String,
    /// Last counts by CPU number, by number of the interrupt.
    lines: BTreeMap<u32, BTreeMap<u32, u64>>,
    /// Sums by CPU number.
    sums: BTreeMap<u32, u64>,
    /// It was read before: an interrupt that is new counts from now on.
    known: bool,
}

impl Device {
    fn add(&mut self, number: u32, counts: impl Iterator<Item = (u32, u64)>) {
        let last = self.lines.entry(number).or_default();
        for (cpu, count) in counts {
            let new = match last.insert(cpu, count) {
                Some(last) => increase(last, count),
                None if self.known => 0,
                None => count,
            };
            let sum = self.sums.entry(cpu).or_default();
            *sum = sum.saturating_add(new);
        }
    }

    fn finish(&mut self, cpus: &[u32]) -> DeviceInterrupts {
        self.known = true;
        let sum = |cpu: &u32| (*cpu, self.sums.get(cpu).copied().unwrap_or_default());
        DeviceInterrupts {
            device: self.name.clone(),
            lines: self.lines.len() as u64,
            by_cpu: cpus.iter().map(sum).collect(),
        }
    }
}

/// The kernel's counters have 32 bits; one that went back by less than half of that belongs to an interrupt that was
/// given up and taken again.
fn increase(last: u64, now: u64) -> u64 {
    const TURN: u64 = 1 << 32;
    match now.checked_sub(last) {
        Some(increase) => increase,
        None if last < TURN && last - now > TURN / 2 => now + TURN - last,
        None => now,
    }
}

/// Takes over which devices have which interrupts; what was counted for those that stay is kept.
fn follow(devices: &mut Vec<Device>, found: Vec<(String, Vec<u32>)>) {
    let mut before = std::mem::take(devices);
    for (name, numbers) in found {
        let place = before.iter().position(|device| device.name == name);
        let mut device = place.map(|place| before.swap_remove(place)).unwrap_or_default();
        device.name = name;
        device.lines.retain(|number, _| numbers.contains(number));
        for number in numbers {
            device.lines.entry(number).or_default();
        }
        devices.push(device);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A host with eth0 on PCI, eth1 on virtio on PCI, and eth2, which sysfs knows no interrupts of.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            let bus = |name: &str| {
                fs::create_dir_all(tree.path(&format!("bus/{name}"))).unwrap();
                tree.path(&format!("bus/{name}"))
            };
            for (name, device, bus) in [
                ("eth0", "pci0/a", bus("pci")),
                ("eth1", "pci0/b/virtio2", bus("virtio")),
                ("eth2", "soc", bus("platform")),
            ] {
                fs::create_dir_all(tree.path(&format!("class/net/{name}"))).unwrap();
                fs::create_dir_all(tree.path(device)).unwrap();
                symlink(tree.path(device), tree.path(&format!("class/net/{name}/device"))).unwrap();
                symlink(bus, tree.path(&format!("{device}/subsystem"))).unwrap();
            }
            fs::create_dir_all(tree.path("class/net/lo")).unwrap();
            for message in ["pci0/a/msi_irqs/37", "pci0/a/msi_irqs/38", "pci0/b/msi_irqs/40"] {
                fs::create_dir_all(tree.path(message)).unwrap();
            }
            tree
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, text: &str) {
            fs::write(self.path("interrupts"), text).unwrap();
        }

        fn paths(&self) -> Paths {
            Paths { procfs: self.0.path().to_owned(), sysfs: self.0.path().to_owned(), ..Paths::default() }
        }
    }

    fn row(device: &str, lines: u64, by_cpu: &[(u32, u64)]) -> DeviceInterrupts {
        DeviceInterrupts { device: device.to_owned(), lines, by_cpu: by_cpu.to_owned() }
    }

    #[test]
    fn queues_of_a_device_are_added_up_and_what_is_no_network_is_left_out() {
        let tree = Tree::new();
        tree.write(
            "           CPU0       CPU2       \n 36:          9      93813 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0\n \
             37:        100          1 PCI-MSIX-0000:00:03.0   1-edge      a-TxRx-0\n 38:         20          0 \
             PCI-MSIX-0000:00:03.0   2-edge      a-TxRx-1\n 40:          3          4 PCI-MSIX-0000:00:04.0   0-edge      \
             virtio2-input.0\n 51:          0          7 GICv3  66 Level     eth2, eth22\nNMI:          0          0   \
             Non-maskable interrupts\nERR:          0\n",
        );
        let mut collector = InterruptsCollector::default();
        let found = collector.collect(&tree.paths()).unwrap().unwrap();
        assert_eq!(
            found,
            [
                row("eth0", 2, &[(0, 120), (2, 1)]),
                row("eth1", 1, &[(0, 3), (2, 4)]),
                row("eth2", 1, &[(0, 0), (2, 7)])
            ]
        );
    }

    #[test]
    fn sums_go_on_when_counters_turn_over_and_interrupts_and_cpus_come_and_go() {
        let tree = Tree::new();
        let mut collector = InterruptsCollector::default();
        let mut eth0 = |text: &str| {
            tree.write(text);
            collector.listed = None;
            collector.collect(&tree.paths()).unwrap().unwrap().remove(0).by_cpu
        };
        assert_eq!(eth0(" CPU0 CPU1\n 37: 4294967290 5 x\n 38: 10 0 x\n"), [(0, 4_294_967_300), (1, 5)]);
        assert_eq!(eth0(" CPU0 CPU1\n 37: 4 6 x\n 38: 10 0 x\n"), [(0, 4_294_967_310), (1, 6)]);
        assert_eq!(eth0(" CPU0\n 37: 5 x\n"), [(0, 4_294_967_311)], "a CPU and an interrupt are away");
        assert_eq!(
            eth0(" CPU0 CPU1\n 37: 5 8 x\n 38: 2 0 x\n"),
            [(0, 4_294_967_313), (1, 8)],
            "the interrupt came back and began anew"
        );
        fs::create_dir_all(tree.path("pci0/a/msi_irqs/39")).unwrap();
        assert_eq!(
            eth0(" CPU0 CPU1\n 37: 5 8 x\n 38: 2 0 x\n 39: 1000 0 x\n"),
            [(0, 4_294_967_313), (1, 8)],
            "one that is new counts from now on"
        );
        assert_eq!(eth0(" CPU0 CPU1\n 39: 1001 0 x\n"), [(0, 4_294_967_314), (1, 8)]);
    }

    #[test]
    fn few_interrupts_are_read_one_by_one_and_the_table_when_one_is_gone() {
        let tree = Tree::new();
        let mut collector = InterruptsCollector::default();
        let mut by_cpu = || collector.collect(&tree.paths()).unwrap().unwrap().remove(0).by_cpu;
        fs::create_dir_all(tree.path("devices/system/cpu")).unwrap();
        fs::write(tree.path("devices/system/cpu/possible"), "0-2\n").unwrap();
        let single = |number: u32, text: &str| {
            fs::create_dir_all(tree.path(&format!("kernel/irq/{number}"))).unwrap();
            fs::write(tree.path(&format!("kernel/irq/{number}/per_cpu_count")), text).unwrap();
        };
        tree.write(" CPU0 CPU2\n 37: 5 1 x\n 38: 10 0 x\n 40: 0 0 x\n");
        single(37, "6,900,1\n");
        single(38, "10,0,3\n");
        single(40, "0,0,0\n");
        assert_eq!(by_cpu(), [(0, 15), (2, 1)], "the table comes first");
        assert_eq!(by_cpu(), [(0, 16), (2, 4)], "CPU 1 is offline");
        single(37, "8,900,2\n");
        assert_eq!(by_cpu(), [(0, 18), (2, 5)]);
        fs::write(tree.path("kernel/irq/38/per_cpu_count"), "10,0\n").unwrap();
        tree.write(" CPU0 CPU2\n 37: 9 2 x\n 38: 11 3 x\n 40: 0 0 x\n");
        assert_eq!(by_cpu(), [(0, 20), (2, 5)]);
        tree.write(" CPU0 CPU2\n 37: 9 2 x\n 38: 12 3 x\n 40: 0 0 x\n");
        assert_eq!(by_cpu(), [(0, 21), (2, 5)]);
        assert!(collector.counts.is_none(), "it is not tried again before the next list");
    }

    #[test]
    fn a_bad_line_is_named_when_it_matters() {
        let tree = Tree::new();
        let mut collector = InterruptsCollector::default();
        for (text, line) in
            [("", "line 1"), ("CPU0 CPU1\n 1: x\n 37: 1 x\n", "line 3"), ("CPU0\n37: -1 x\n", "line 2")]
        {
            tree.write(text);
            let error = collector.collect(&tree.paths()).unwrap_err().to_string();
            assert!(error.contains(line), "{text:?}: {error}");
        }
    }

    /// What sysfs counted for the interrupts of one device, on all CPUs.
    fn sysfs_count(device: &str) -> u64 {
        let table = fs::read_to_string("/proc/interrupts").unwrap();
        let devices = owners::list("/sys/class/net".as_ref(), &Table::parse(&table).unwrap());
        let (_, numbers) = devices.into_iter().find(|(name, _)| name == device).unwrap();
        let counts = numbers
            .iter()
            .map(|number| fs::read_to_string(format!("/sys/kernel/irq/{number}/per_cpu_count")).unwrap());
        counts
            .map(|text| text.trim().split(',').map(|count| count.parse::<u64>().unwrap()).sum::<u64>())
            .sum()
    }

    #[test]
    fn this_host_s_counts_are_those_of_sysfs() {
        let mut collector = InterruptsCollector::default();
        let devices = collector.collect(&Paths::default()).unwrap().unwrap();
        for DeviceInterrupts { device, .. } in &devices {
            let before = sysfs_count(device);
            let found = collector.collect(&Paths::default()).unwrap().unwrap();
            let found = found.iter().find(|row| row.device == *device).unwrap();
            let sum = found.by_cpu.iter().map(|(_, count)| count).sum::<u64>();
            assert!(found.lines > 0 && (before..=sysfs_count(device)).contains(&sum), "{found:?}");
        }
    }
}
