//! Samples that the kernel takes by itself; here it is told what to look at, and what it saw is added up.

use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use tailgauge_ebpf::layout::WATCHED_DEVICES;

use super::agreement::Agreement;
use super::devices::{self, Devices};
use super::tally::{Beside, Tally};
use super::{COLLECTOR, SamplerConfig};
use crate::model::collector::Collectors;
use crate::model::sampled::Sampled;
use crate::sources::host::{CpuList, Finder, HostError, Paths, Process};
use crate::sources::kernel::{KernelSource, RingDrops, Targets, chain, missing, monotonic};
use crate::sources::netlink::Netlink;
use crate::sources::thread_time;

/// How long samples may stay away before another CPU is asked for them: that of the last one may be offline.
const PATIENCE: Duration = Duration::from_secs(2);
const _: () = assert!(devices::MOST == WATCHED_DEVICES);

/// What was said to the kernel, and what it said.
#[derive(Debug)]
pub(super) struct KernelSampler {
    paths: Paths,
    interval: Duration,
    /// `None` where drops are not counted: then those of the tunnel have no samples.
    ring: Option<RingDrops>,
    finder: Finder,
    process: Option<Process>,
    devices: Devices,
    netlink: Netlink,
    online: CpuList,
    targets: Targets,
    has_pressure: bool,
    sockets: usize,
    agreement: Agreement,
    tally: Tally,
    /// CPU that takes the samples.
    cpu: Option<u32>,
    /// When the last sample was read, or the taking of them began.
    heard: Instant,
    /// Whether everything was found at the last look.
    success: bool,
}

impl KernelSampler {
    /// Begins, or says why the kernel cannot do it.
    pub(super) fn start(config: &SamplerConfig, kernel: &mut KernelSource) -> Result<Self, String> {
        if let Some(reason) = kernel.sampling_obstacle() {
            return Err(reason);
        }
        let netlink =
            Netlink::open(NETLINK_ROUTE).map_err(|error| format!("cannot ask for devices: {error}"))?;
        let mut sampler = Self {
            paths: config.paths.clone(),
            interval: config.interval,
            ring: kernel.ring_drops(),
            finder: Finder::default(),
            process: None,
            devices: Devices::new(config.paths.interface.clone()),
            netlink,
            online: CpuList::default(),
            targets: Targets::default(),
            has_pressure: false,
            sockets: 0,
            agreement: Agreement::default(),
            tally: Tally::default(),
            cpu: None,
            heard: Instant::now(),
            success: true,
        };
        sampler.observe(kernel).map_err(|error| chain(&error))?;
        let found = kernel.watch(&sampler.targets).map_err(|error| chain(&error))?;
        sampler.has_pressure = found.pressure != 0;
        if let Some(reason) = missing(&found) {
            return Err(reason);
        }
        sampler.agreement.judge(sampler.process, sampler.sockets, &found)?;
        sampler.attach(kernel)?;
        Ok(sampler)
    }

    fn attach(&mut self, kernel: &mut KernelSource) -> Result<(), String> {
        let period = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let mut outcome = Err("no CPU is online".to_owned());
        let cpus = self.online.cpus();
        // The first one, then that behind the one that has fallen silent.
        let others = cpus.iter().filter(|cpu| self.cpu.is_none_or(|silent| **cpu > silent)).chain(cpus);
        for cpu in others.take(cpus.len()) {
            outcome = kernel.start_sampling(*cpu, period).map_err(|error| chain(&error));
            if outcome.is_ok() {
                self.cpu = Some(*cpu);
                self.heard = Instant::now();
                break;
            }
        }
        outcome
    }

    /// Looks whether what is watched is still the same.
    pub(super) fn look(&mut self, kernel: &mut KernelSource, sampled: &mut Sampled) -> Result<(), String> {
        let before = thread_time();
        self.take(kernel, sampled);
        let known = self.targets.clone();
        self.success = match self.observe(kernel) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(error = chain(&error), "cannot look at what is sampled");
                false
            }
        };
        if known != self.targets || self.agreement.is_missing_something() {
            let found = kernel.watch(&self.targets).map_err(|error| chain(&error))?;
            self.agreement.judge(self.process, self.sockets, &found)?;
        }
        if self.heard.elapsed() > PATIENCE + self.interval.saturating_mul(2) {
            tracing::warn!(cpu = self.cpu, "no samples: another CPU is to take them");
            self.attach(kernel)?;
        }
        sampled.cpu_time += thread_time().saturating_sub(before);
        Ok(())
    }

    /// Finds out what is to be watched.
    fn observe(&mut self, kernel: &mut KernelSource) -> Result<(), HostError> {
        self.online.read(&self.paths.sysfs.join("devices/system/cpu"), "online")?;
        let process = self.finder.find(&self.paths)?.map(|(process, _)| process);
        if process != self.process {
            self.tally.forget_process();
            self.process = process;
        }
        self.targets.process = process.map_or(0, |process| process.pid.unsigned_abs());
        self.targets.sockets = Default::default();
        self.sockets = 0;
        for (place, socket) in self.targets.sockets.iter_mut().zip(kernel.udp_sockets()) {
            *place = socket;
            self.sockets += 1;
        }
        let ring = self.ring.as_ref();
        let is_another = |index: u32| ring.is_some_and(|ring| ring.tunnel() != Some(index));
        let looked = self.devices.refresh(&mut self.netlink, is_another);
        looked.map_err(|source| HostError::Netlink { operation: "look for devices", source })?;
        self.targets.devices = [0; WATCHED_DEVICES];
        for (place, device) in self.targets.devices.iter_mut().zip(self.devices.iter()) {
            *place = device.index;
        }
        Ok(())
    }

    /// Adds up what was sampled since the last time.
    fn take(&mut self, kernel: &mut KernelSource, sampled: &mut Sampled) {
        let now = Instant::now();
        let clock = monotonic();
        let Self { tally, devices, online, heard, .. } = self;
        devices.tidy(sampled);
        let mut beside = Beside {
            is_current: false,
            second: 0,
            interval: self.interval,
            online: online.cpus(),
            has_pressure: self.has_pressure,
            is_process: self.agreement.is_process(),
            has_tunnel: self.ring.as_ref().and_then(RingDrops::tunnel).is_some(),
            sockets: self.sockets,
            devices,
        };
        kernel.read_samples(|sample, cpus, is_current| {
            let at = now.checked_sub(Duration::from_nanos(clock.saturating_sub(sample.at))).unwrap_or(now);
            beside.second = sampled.second(at);
            beside.is_current = is_current;
            tally.add(sample, cpus, &beside, sampled);
            *heard = at;
        });
    }

    /// Brings the model up to date.
    pub(super) fn read(
        &mut self,
        kernel: &mut KernelSource,
        sampled: &mut Sampled,
        collectors: &mut Collectors,
    ) {
        let before = thread_time();
        self.take(kernel, sampled);
        sampled.cpu_time += thread_time().saturating_sub(before);
        collectors.record(COLLECTOR, self.heard, self.heard, self.success);
    }
}
