//! The embedded object: creates the maps at their sizes and loads the programs.

use std::io;

use aya::maps::{Map, MapError};
use aya::programs::{PerfEvent, Program, ProgramError, ProgramType, RawTracePoint, SchedClassifier};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfError};
use tailgauge_ebpf::layout::{globals, programs};

use super::drop_types::DropTypes;
use super::hooks::chain;
use super::probe::missing_capabilities;
use super::sizes::Sizes;
use super::types::KernelTypes;
use super::{KernelError, loader, parallel};

static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/object/tailgauge.bpf.o"));

/// Lines of the verifier's log that say why.
const LOG_LINES: usize = 8;

/// The classifiers of the tunnel, receive first. The agent is of no use without them.
pub(super) const TUNNEL: [&str; 2] = [programs::TUNNEL_INGRESS, programs::TUNNEL_EGRESS];
/// The classifiers of the underlay, receive first.
pub(super) const UNDERLAY: [&str; 2] = [programs::UNDERLAY_INGRESS, programs::UNDERLAY_EGRESS];
/// Both.
pub(super) const CLASSIFIERS: [&str; 4] = [TUNNEL[0], TUNNEL[1], UNDERLAY[0], UNDERLAY[1]];

/// The loaded object: programs are in the kernel, maps wait to be taken.
#[derive(Debug)]
pub(super) struct Object {
    ebpf: Ebpf,
    sizes: Sizes,
    /// Programs that the kernel refused, and why.
    refused: Vec<(&'static str, String)>,
}

impl Object {
    /// Creates the maps and loads the programs. Those of the tunnel must be accepted; what becomes of the others is
    /// in [`Self::refused`].
    ///
    /// The programs that need to know the kernel's `types` are left out without them.
    pub(super) fn load(max_peers: u32, types: &KernelTypes) -> Result<Self, KernelError> {
        let sizes = Sizes::for_this_machine(max_peers)?;
        let missing = missing_capabilities();
        if !missing.is_empty() {
            return Err(KernelError::Capabilities { missing });
        }
        // Nothing in the object is relocated against the kernel's types, so a kernel without BTF will do.
        let mut loader = loader::without_btf();
        let has_loop = u32::from(has_loop());
        loader
            .override_global(globals::SHARDS, &sizes.shards, true)
            .override_global(globals::SLOTS, &sizes.slots, true)
            .override_global(globals::SETS, &sizes.sets, true)
            .override_global(globals::HAS_LOOP, &has_loop, true);
        let drops = types.drops.as_ref().and_then(|types| types.as_ref().ok());
        let globals = drops.map(DropTypes::globals).unwrap_or_default();
        for (name, value) in globals.iter().filter(|(name, _)| !name.is_empty()) {
            loader.override_global(name, value, true);
        }
        for (name, entries) in sizes.entries() {
            loader.map_max_entries(name, entries);
        }
        let ebpf = loader.load(OBJECT).map_err(|error| explain_object(error, &sizes))?;
        let mut object = Self { ebpf, sizes, refused: Vec::new() };
        object.load_programs()?;
        if drops.is_some() {
            let outcome = object
                .drops_program()
                .and_then(|program| program.load().map_err(|error| explain_program(programs::DROPS, error)));
            object.note(programs::DROPS, outcome);
        }
        if matches!(types.sampling, Some(Ok(_))) {
            let outcome = object.load_sampling();
            object.note(programs::SAMPLING, outcome);
        }
        Ok(object)
    }

    /// The verifier thinks about each program for up to 50 ms, most of the agent's start; none need wait for another.
    fn load_programs(&mut self) -> Result<(), KernelError> {
        for name in CLASSIFIERS {
            let found = self.ebpf.program(name).map(Program::prog_type);
            if found != Some(ProgramType::SchedClassifier) {
                return Err(KernelError::MissingProgram(name));
            }
        }
        for (name, result) in self.in_parallel(&CLASSIFIERS, |_, program| program.load()) {
            match result.map_err(|error| explain_program(name, error)) {
                Err(error) if TUNNEL.contains(&name) => return Err(error),
                Err(error) => self.refused.push((name, chain(&error))),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn note(&mut self, program: &'static str, outcome: Result<(), KernelError>) {
        if let Err(error) = outcome {
            self.refused.push((program, chain(&error)));
        }
    }

    fn load_sampling(&mut self) -> Result<(), KernelError> {
        let program = self.classifier(programs::SAMPLING_FIND)?;
        program.load().map_err(|error| explain_program(programs::SAMPLING_FIND, error))?;
        let program = self.sampling_program()?;
        program.load().map_err(|error| explain_program(programs::SAMPLING, error))
    }

    /// A classifier by name.
    pub(super) fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, KernelError> {
        let missing = || KernelError::MissingProgram(name);
        self.ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())
    }

    /// The program that samples.
    pub(super) fn sampling_program(&mut self) -> Result<&mut PerfEvent, KernelError> {
        let missing = || KernelError::MissingProgram(programs::SAMPLING);
        self.ebpf.program_mut(programs::SAMPLING).ok_or_else(missing)?.try_into().map_err(|_| missing())
    }

    /// The program that counts drops.
    pub(super) fn drops_program(&mut self) -> Result<&mut RawTracePoint, KernelError> {
        let missing = || KernelError::MissingProgram(programs::DROPS);
        let program = self.ebpf.program_mut(programs::DROPS).ok_or_else(missing)?;
        program.try_into().map_err(|_| missing())
    }

    /// Programs that the kernel refused, and why.
    pub(super) fn refused(&self) -> &[(&'static str, String)] {
        &self.refused
    }

    /// Does something with each of the classifiers `names`, side by side.
    pub(super) fn in_parallel<R: Send>(
        &mut self,
        names: &[&'static str],
        act: impl Fn(&'static str, &mut SchedClassifier) -> R + Sync,
    ) -> Vec<(&'static str, R)> {
        let programs = self.ebpf.programs_mut().filter_map(|(found, program)| {
            let name = *names.iter().find(|name| **name == found)?;
            let program: &mut SchedClassifier = program.try_into().ok()?;
            Some((name, program))
        });
        parallel::in_parallel(programs.collect(), |(name, program)| (name, act(name, program)))
    }

    pub(super) const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Total run time and runs of a program; they advance only while BPF statistics are on.
    pub(super) fn run(&self, name: &'static str) -> Option<(u64, u64)> {
        let info = self.ebpf.program(name)?.info().ok()?;
        Some((info.run_time().as_nanos() as u64, info.run_count()))
    }

    /// Takes a map out of the object.
    pub(super) fn take_map(&mut self, name: &'static str) -> Result<Map, KernelError> {
        self.ebpf.take_map(name).ok_or(KernelError::MissingMap(name))
    }

    /// The object itself, for the log of the programs.
    pub(super) const fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

/// Whether the programs may use `bpf_loop`. Without it they judge less, so that is the answer when in doubt.
pub(super) fn has_loop() -> bool {
    let found = is_helper_supported(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_loop);
    found.unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "cannot ask the kernel for bpf_loop");
        false
    })
}

/// Whether the kernel is one that charges maps to RLIMIT_MEMLOCK, and the limit is a real one.
fn charges_locked_memory() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    version < (5, 11) && limit.is_some()
}

fn explain_object(error: EbpfError, sizes: &Sizes) -> KernelError {
    let operation = match &error {
        EbpfError::MapError(MapError::CreateError { name, .. }) => format!("create map {name}"),
        _ => "load the kernel programs".to_owned(),
    };
    match errno(&error) {
        Some(libc::EPERM) if charges_locked_memory() => {
            KernelError::LockedMemory { operation, source: Box::new(error) }
        }
        Some(libc::EPERM | libc::EACCES) => KernelError::Permission { operation, source: Box::new(error) },
        Some(libc::ENOMEM) => {
            KernelError::Memory { operation, bytes: sizes.memory(), source: Box::new(error) }
        }
        _ => KernelError::Object(Box::new(error)),
    }
}

fn explain_program(program: &'static str, error: ProgramError) -> KernelError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            if io_error.raw_os_error() == Some(libc::EPERM) {
                let operation = format!("load program {program}");
                return KernelError::Permission { operation, source: Box::new(io_error) };
            }
            KernelError::Verifier { program, log: tail(&log, LOG_LINES), source: io_error }
        }
        error => KernelError::Program { operation: "load", program, source: Box::new(error) },
    }
}

/// Why the program that samples could not be attached.
pub(super) fn explain_sampling(error: ProgramError) -> KernelError {
    let setting = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    refused_event(error, setting.ok().and_then(|text| text.trim().parse().ok()))
}

/// `paranoid` is the sysctl. Mainline knows no more than 2, for which CAP_PERFMON is enough.
fn refused_event(error: ProgramError, paranoid: Option<i32>) -> KernelError {
    let is_refused = matches!(errno(&error), Some(libc::EACCES | libc::EPERM));
    let source = Box::new(error);
    match paranoid.filter(|paranoid| is_refused && *paranoid > 2) {
        Some(paranoid) => KernelError::Paranoid { paranoid, source },
        None => KernelError::Program { operation: "attach", program: programs::SAMPLING, source },
    }
}

/// The system's error number at the bottom of a chain of causes.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(number) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        cause = error.source();
    }
    None
}

/// The last `count` lines that say something.
fn tail(log: &str, count: usize) -> String {
    let lines: Vec<_> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn the_end_of_the_verifier_log_is_kept() {
        assert_eq!(tail("a\n\nb\nc  \n", 2), "b | c");
        assert_eq!(tail("", 3), "");
    }

    #[test]
    fn a_refused_perf_event_is_explained_by_the_setting_that_may_cause_it() {
        let explained = |errno, paranoid| {
            let io_error = io::Error::from_raw_os_error(errno);
            let error = ProgramError::SyscallError(SyscallError { call: "perf_event_open", io_error });
            chain(&refused_event(error, paranoid))
        };
        for errno in [libc::EACCES, libc::EPERM] {
            let reason = explained(errno, Some(4));
            assert!(reason.contains("kernel.perf_event_paranoid is 4"), "{reason}");
            assert!(reason.contains("CAP_SYS_ADMIN; 2 would do"), "{reason}");
            assert!(reason.contains(&format!("(os error {errno})")), "{reason}");
        }
        for (errno, paranoid) in [(libc::EACCES, Some(2)), (libc::EACCES, None), (libc::ENODEV, Some(4))] {
            let reason = explained(errno, paranoid);
            assert!(!reason.contains("paranoid"), "{reason}");
        }
    }

    #[test]
    fn the_error_number_is_found_below_wrappers() {
        let inner = io::Error::from_raw_os_error(libc::EPERM);
        let error = MapError::CreateError { name: "COUNTERS".to_owned(), io_error: inner };
        assert_eq!(errno(&error), Some(libc::EPERM));
    }
}
