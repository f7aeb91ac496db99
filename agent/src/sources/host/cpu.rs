//! Collector `cpu`: /proc/stat (Documentation/filesystems/proc.rst, 1.7).
//!
//! procfs' `KernelStats` is not used: it drops the CPU numbers, so that an offline CPU shifts all after it.

use super::proc_file::{Bad, ProcFile, cpu_number, number};
use super::{Collector, HostError, Paths};
use crate::model::host::{Cpu, CpuTime, Host};

/// What the lines of CPUs begin with.
const CPU: &[u8] = b"cpu";
const EXPECTED: &str = "a CPU and at least four counts of ticks";

/// Keeps /proc/stat open.
#[derive(Debug, Default)]
pub(in crate::sources) struct CpuReader(ProcFile);

impl CpuReader {
    /// Reads once.
    pub(in crate::sources) fn read(&mut self, paths: &Paths) -> Result<Cpu, HostError> {
        let mut cpu = Cpu::default();
        self.read_into(paths, &mut cpu)?;
        Ok(cpu)
    }

    /// Reads once, into what was read before.
    pub(in crate::sources) fn read_into(&mut self, paths: &Paths, cpu: &mut Cpu) -> Result<(), HostError> {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let per_cpu = std::mem::take(&mut cpu.per_cpu);
        *cpu = self.0.parse_whole(&paths.procfs, "stat", |text| parse(text, ticks, per_cpu))?;
        Ok(())
    }

    /// Reads the CPUs that are online, and nothing else, in one system call.
    pub(in crate::sources) fn read_times(
        &mut self,
        paths: &Paths,
        into: &mut Vec<(u32, CpuTime)>,
    ) -> Result<(), HostError> {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        self.0.parse_start(&paths.procfs, "stat", has_all_cpus, |text| parse_times(text, ticks, into))
    }
}

/// Idle time that turns back by less stands still until it is made good; by more, all of its CPU began anew.
const TURNS_BACK_SECONDS: f64 = 3.0;

/// Reads /proc/stat, and remembers it: what is exported as a counter must not turn back.
#[derive(Default)]
pub(super) struct CpuCollector {
    reader: CpuReader,
    last: Cpu,
}

impl Collector for CpuCollector {
    const NAME: &'static str = "cpu";
    const HELP: &'static str = "CPU time per mode, context switches, interrupts and tasks from /proc/stat";
    type Output = Cpu;

    fn field(host: &mut Host) -> &mut Option<Cpu> {
        &mut host.cpu
    }

    fn collect(&mut self, paths: &Paths) -> Result<Option<Cpu>, HostError> {
        let mut cpu = self.reader.read(paths)?;
        hold(&self.last.total, &mut cpu.total);
        for (number, time) in &mut cpu.per_cpu {
            let place = self.last.per_cpu.binary_search_by_key(number, |(other, _)| *other);
            if let Ok(place) = place {
                hold(&self.last.per_cpu[place].1, time);
            }
        }
        self.last.clone_from(&cpu);
        Ok(Some(cpu))
    }
}

/// Idle time is computed at each reading (`get_idle_time` in fs/proc/stat.c) and may be less than before, as
/// Documentation/filesystems/proc.rst says of iowait. As a counter that would be a restart, with all the time since boot
/// come in at once. A CPU that was offline does begin anew with idle and iowait before kernel 6.8.
pub(super) fn hold(last: &CpuTime, now: &mut CpuTime) {
    if last.idle - now.idle >= TURNS_BACK_SECONDS {
        return;
    }
    for (last, now) in last.all().into_iter().zip(now.all_mut()) {
        *now = now.max(last);
    }
}

/// Lines of CPUs come first.
fn has_all_cpus(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| !CPU.starts_with(&line[..line.len().min(CPU.len())]))
}

/// The lines before the first one that is no CPU's.
fn parse_times(text: &str, ticks_per_second: f64, into: &mut Vec<(u32, CpuTime)>) -> Result<(), Bad> {
    into.clear();
    let mut lines = text.lines().take_while(|line| line.as_bytes().starts_with(CPU)).enumerate();
    lines.next().ok_or(Bad::Missing("cpu"))?;
    lines.try_for_each(|(index, line)| push_times(line, index, ticks_per_second, into))
}

/// A line of one CPU, the `index`th of the file.
fn push_times(
    line: &str,
    index: usize,
    ticks_per_second: f64,
    into: &mut Vec<(u32, CpuTime)>,
) -> Result<(), Bad> {
    let which = line.split_ascii_whitespace().next().and_then(|key| key.strip_prefix("cpu"));
    let row = cpu_number(which).zip(times(line, ticks_per_second));
    let (number, times) = row.ok_or(Bad::Line(index + 1, EXPECTED))?;
    if into.last().is_some_and(|(last, _)| *last >= number) {
        return Err(Bad::Line(index + 1, "a CPU after those of lower numbers"));
    }
    into.push((number, times));
    Ok(())
}

/// `per_cpu` lends its memory.
fn parse(text: &str, ticks_per_second: f64, mut per_cpu: Vec<(u32, CpuTime)>) -> Result<Cpu, Bad> {
    per_cpu.clear();
    let mut cpu = Cpu { per_cpu, ..Cpu::default() };
    let mut total = None;
    for (index, line) in text.lines().enumerate() {
        let bad = || Bad::Line(index + 1, "a count");
        let mut words = line.split_ascii_whitespace();
        let Some(key) = words.next() else { continue };
        let next = number(words.next());
        match key {
            "cpu" => {
                total = Some(times(line, ticks_per_second).ok_or(Bad::Line(index + 1, EXPECTED))?);
            }
            "ctxt" => cpu.context_switches = next.ok_or_else(bad)?,
            "intr" => cpu.interrupts = next.ok_or_else(bad)?,
            "btime" => cpu.boot_time = Some(next.ok_or_else(bad)?),
            "processes" => cpu.forks = next.ok_or_else(bad)?,
            "procs_running" => cpu.running = next.ok_or_else(bad)?,
            "procs_blocked" => cpu.blocked = next.ok_or_else(bad)?,
            key if key.starts_with("cpu") => {
                push_times(line, index, ticks_per_second, &mut cpu.per_cpu)?;
            }
            _ => {}
        }
    }
    cpu.total = total.ok_or(Bad::Missing("cpu"))?;
    Ok(cpu)
}

/// The columns of a `cpu` line. The first four are required, later ones came with later kernels.
fn times(line: &str, ticks_per_second: f64) -> Option<CpuTime> {
    let mut seconds = [0.0; 10];
    let mut columns = 0;
    for (place, word) in seconds.iter_mut().zip(line.split_ascii_whitespace().skip(1)) {
        *place = number::<u64>(Some(word))? as f64 / ticks_per_second;
        columns += 1;
    }
    let [user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice] = seconds;
    (columns >= 4).then_some(CpuTime {
        user,
        nice,
        system,
        idle,
        iowait,
        irq,
        softirq,
        steal,
        guest,
        guest_nice,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  300 20 100 5000 30 4 5 6 7 8\ncpu0 100 10 50 2500 15 2 2 3 0 0\n\
                        cpu2 200 10 50 2500 15 2 3 3 0 0\nintr 1189175 0 0\nctxt 1716545\nbtime 1\n\
                        processes 42\nprocs_running 3\nprocs_blocked 1\nsoftirq 1 2 3\n";

    #[test]
    fn ticks_become_seconds_and_an_offline_cpu_leaves_a_gap() {
        let cpu = parse(STAT, 100.0, Vec::new()).unwrap();
        assert_eq!(cpu.total.user, 3.0);
        assert_eq!(cpu.total.guest_nice, 0.08);
        assert_eq!(cpu.per_cpu.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2]);
        assert_eq!((cpu.context_switches, cpu.interrupts, cpu.forks), (1_716_545, 1_189_175, 42));
        assert_eq!((cpu.running, cpu.blocked, cpu.boot_time), (3, 1, Some(1)));
    }

    #[test]
    fn the_cpus_alone_are_the_same_and_need_not_be_all_of_the_file() {
        let all = parse(STAT, 100.0, Vec::new()).unwrap().per_cpu;
        for length in 0..=STAT.len() {
            let start = &STAT[..length];
            let cpus_end = STAT.find("intr").unwrap();
            assert_eq!(has_all_cpus(start.as_bytes()), length > cpus_end, "{length}");
            if length >= cpus_end {
                let mut found = Vec::new();
                parse_times(start, 100.0, &mut found).unwrap();
                assert_eq!(found, all);
            }
        }
        assert_eq!(parse_times("intr 1\n", 100.0, &mut Vec::new()), Err(Bad::Missing("cpu")));
        assert_eq!(parse_times("cpu 1\ncpu0 1 2 3\n", 100.0, &mut Vec::new()), Err(Bad::Line(2, EXPECTED)));
    }

    #[test]
    fn the_modes_add_up_to_the_time_since_boot() {
        let cpu = parse(STAT, 100.0, Vec::new()).unwrap();
        let sum: f64 = cpu.total.modes().iter().map(|(_, seconds)| seconds).sum();
        assert!((sum - 54.65).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(
            parse("cpu 1 2 3 4\ncpu0 1 x 3 4\n", 100.0, Vec::new()),
            Err(Bad::Line(2, "a CPU and at least four counts of ticks"))
        );
        assert_eq!(
            parse("cpu 1 2 3\n", 100.0, Vec::new()).unwrap_err(),
            Bad::Line(1, "a CPU and at least four counts of ticks")
        );
        let twice = "cpu 1 2 3 4\ncpu0 1 2 3 4\ncpu0 1 2 3 4\n";
        let expected = Bad::Line(3, "a CPU after those of lower numbers");
        assert_eq!(parse(twice, 100.0, Vec::new()), Err(expected));
        assert_eq!(parse("ctxt 1\n", 100.0, Vec::new()), Err(Bad::Missing("cpu")));
        assert_eq!(parse("cpu 1 2 3 4\nctxt -1\n", 100.0, Vec::new()), Err(Bad::Line(2, "a count")));
    }
}
