//! The programs that sample: where they look, and what they saw.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};

use aya::programs::perf_event::{
    PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::programs::{TestRun as _, TestRunOptions};
use tailgauge_ebpf::layout::{
    CpuSample, Fields, Found, SAMPLES, Sample, WATCHED_DEVICES, WATCHED_SOCKETS, Watched, WatchedSocket,
    maps, programs,
};

use super::KernelError;
use super::mmap::Rows;
use super::object::{Object, explain_sampling};
use crate::model::kernel::{HookMode, Kernel};

/// Bytes of a packet that is long enough for the kernel to run a classifier on.
const PACKET: [u8; 64] = [0; 64];
/// CPUs that may run without ticks; what they do is not accounted for as it happens.
const TICKLESS: &str = "/sys/devices/system/cpu/nohz_full";
/// Pressure of CPUs, for a [`trigger`].
const PRESSURE: &str = "/proc/pressure/cpu";
/// Numbers of the samples in a row are so far apart.
const ROUND: u64 = SAMPLES as u64;

/// What is to be watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sources) struct Targets {
    /// Process id of tailscaled, 0 while there is none.
    pub(in crate::sources) process: u32,
    /// Its UDP sockets.
    pub(in crate::sources) sockets: [WatchedSocket; WATCHED_SOCKETS],
    /// Indexes of devices, 0 for none.
    pub(in crate::sources) devices: [u32; WATCHED_DEVICES],
}

/// The programs, and where the samples are.
#[derive(Debug)]
pub(super) struct Sampling {
    state: State,
    watched: Rows<Watched>,
    found: Rows<Found>,
    samples: Rows<Sample>,
    cpus: Rows<CpuSample>,
    /// What `watched` holds.
    now: Watched,
    /// Number of the sample that is read next.
    next: u64,
    /// One sample's CPUs.
    buffer: Vec<CpuSample>,
}

#[derive(Debug)]
enum State {
    /// Not wanted.
    Off,
    /// May be attached.
    Ready,
    /// Detaches when dropped.
    Attached(#[expect(dead_code, reason = "held for its drop")] PerfEventLink),
    /// With the reason.
    Detached(String),
}

impl Sampling {
    /// Takes the maps. With `fields`, the programs may be attached; with a reason they are not, and without either they
    /// are not wanted.
    pub(super) fn open(
        object: &mut Object,
        fields: Option<&Result<Fields, String>>,
    ) -> Result<Self, KernelError> {
        let cpus = object.sizes().cpus;
        let refused = [programs::SAMPLING, programs::SAMPLING_FIND];
        let refusal = object.refused().iter().find(|(program, _)| refused.contains(program));
        let state = match (fields, refusal) {
            (None, _) => State::Off,
            (Some(Err(reason)), _) | (_, Some((_, reason))) => State::Detached(reason.clone()),
            (Some(Ok(_)), None) => tickless().map_or(State::Ready, State::Detached),
        };
        let mut sampling = Self {
            watched: Rows::new(maps::WATCHED, object.take_map(maps::WATCHED)?)?,
            found: Rows::new(maps::FOUND, object.take_map(maps::FOUND)?)?,
            samples: Rows::new(maps::SAMPLES, object.take_map(maps::SAMPLES)?)?,
            cpus: Rows::new(maps::CPU_SAMPLES, object.take_map(maps::CPU_SAMPLES)?)?,
            now: Watched { cpus, ..Watched::default() },
            next: 1,
            buffer: vec![CpuSample::default(); cpus as usize],
            state,
        };
        if let (State::Ready, Some(Ok(fields))) = (&sampling.state, fields) {
            sampling.now.fields = *fields;
            sampling.watched.ensure(1)?;
            sampling.found.ensure(1)?;
            sampling.samples.ensure(SAMPLES)?;
            sampling.cpus.ensure(SAMPLES * cpus)?;
        }
        Ok(sampling)
    }

    /// Why samples cannot be taken; `None` when they can.
    pub(super) fn obstacle(&self) -> Option<String> {
        match &self.state {
            State::Off => Some("it is switched off".to_owned()),
            State::Ready | State::Attached(_) => None,
            State::Detached(reason) => Some(reason.clone()),
        }
    }

    /// Begins to sample every so many nanoseconds, on one CPU.
    pub(super) fn start(&mut self, object: &mut Object, cpu: u32, period: u64) -> Result<(), KernelError> {
        // The one before goes first: samples have one writer.
        self.state = State::Ready;
        let program = object.sampling_program()?;
        let link = program
            .attach(
                PerfEventConfig::Software(SoftwareEvent::CpuClock),
                PerfEventScope::AllProcessesOneCpu { cpu },
                SamplePolicy::Period(period),
                false,
            )
            .and_then(|id| program.take_link(id));
        self.state = State::Attached(link.map_err(explain_sampling)?);
        Ok(())
    }

    /// Ends it, and says why.
    pub(super) fn stop(&mut self, reason: &str) {
        if !matches!(self.state, State::Off) {
            self.state = State::Detached(reason.to_owned());
        }
    }

    /// Tells the programs what to watch, and what was found of it.
    pub(super) fn watch(&mut self, object: &mut Object, targets: &Targets) -> Result<Found, KernelError> {
        self.now.generation += 1;
        self.watched.store(0, &self.now);
        let Targets { process, sockets, devices } = targets;
        self.now = Watched { process: *process, sockets: *sockets, devices: *devices, ..self.now };
        let mut found = self.find(object)?;
        if found.pressure == 0
            && let Some(trigger) = trigger()
        {
            self.now.trigger = trigger.as_raw_fd().unsigned_abs();
            found = self.find(object)?;
            self.now.trigger = 0;
        }
        self.now.generation += 1;
        self.watched.store(0, &self.now);
        Ok(found)
    }

    fn find(&self, object: &mut Object) -> Result<Found, KernelError> {
        self.watched.store(0, &self.now);
        let failed = |source| KernelError::Program {
            operation: "run",
            program: programs::SAMPLING_FIND,
            source: Box::new(source),
        };
        let program = object.classifier(programs::SAMPLING_FIND)?;
        let options = TestRunOptions { data_in: Some(&PACKET), ..TestRunOptions::default() };
        program.test_run(options).map_err(failed)?;
        let mut found = Found::default();
        self.found.load(0, &mut found);
        Ok(found)
    }

    /// Hands every new sample to `each`, with its CPUs and whether it is of what is watched now.
    pub(super) fn read(&mut self, mut each: impl FnMut(&Sample, &[CpuSample], bool)) {
        let mut sample = Sample::EMPTY;
        loop {
            let row = (self.next % ROUND) as u32;
            let number = self.number(row);
            if number < self.next {
                // It has not been taken, or is being written.
                return;
            }
            self.samples.load(row, &mut sample);
            for (place, cpu) in (0..).zip(&mut self.buffer) {
                self.cpus.load(row * self.now.cpus + place, cpu);
            }
            // What was read is older than the number that is read now.
            fence(Ordering::Acquire);
            if number > self.next || self.number(row) != number {
                // Nobody came by for a whole round; those that are being written next are lost, too.
                self.next = number.saturating_sub(ROUND * 3 / 4).max(self.next + 1);
                continue;
            }
            each(&sample, &self.buffer, sample.generation == self.now.generation);
            self.next += 1;
        }
    }

    fn number(&self, row: u32) -> u64 {
        let number = self.samples.row(row).first();
        number.map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Writes the hook into `kernel`; returns how many hooks there are now.
    pub(super) fn describe(&self, kernel: &mut Kernel, hooks: usize) -> usize {
        let (mode, reason) = match &self.state {
            State::Off => return hooks,
            State::Ready => (HookMode::None, Some("it has not begun")),
            State::Attached(_) => (HookMode::PerfEvent, None),
            State::Detached(reason) => (HookMode::None, Some(reason.as_str())),
        };
        kernel.set_hook(hooks, programs::SAMPLING, mode, reason);
        hooks + 1
    }
}

/// Why not everything can be sampled that every host has; `None` when it can.
pub(in crate::sources) fn missing(found: &Found) -> Option<String> {
    let needed = [
        (found.cpu_times, "the time of CPUs (control groups without cpuacct)"),
        (found.namespace, "devices"),
    ];
    let missing = needed.into_iter().find(|(address, _)| *address == 0).map(|(_, what)| what);
    let has_pressure = found.pressure != 0 || !Path::new(PRESSURE).exists();
    let missing =
        missing
            .or((!has_pressure)
                .then_some("pressure (no control group of version 2, and no right to a trigger)"))?;
    Some(format!("the kernel does not show where it has {missing}"))
}

/// A trigger of the pressure of CPUs, as long as the file is open: of no use but for what the kernel has behind it.
/// `None` where there is no pressure, or the right to it (CAP_SYS_RESOURCE before 6.5).
fn trigger() -> Option<File> {
    let mut file = File::options().read(true).write(true).open(PRESSURE).ok()?;
    // Half a second of two: nobody waits for it.
    file.write_all(b"some 500000 2000000\0").ok()?;
    Some(file)
}

/// Why what CPUs do cannot be sampled, if some of them may run without ticks.
fn tickless() -> Option<String> {
    let cpus = std::fs::read_to_string(TICKLESS).unwrap_or_default();
    let cpus = cpus.trim();
    let all_tick = cpus.is_empty() || cpus == "(null)";
    (!all_tick).then(|| format!("the CPUs {cpus} may run without ticks (nohz_full)"))
}

#[cfg(test)]
#[path = "sampling_tests.rs"]
mod tests;
