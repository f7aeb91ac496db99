//! What can go wrong between the agent and the kernel, in the words of the person who must mend it.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// Failure of the kernel source. The sentence says what is missing; the cause is kept as source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// This process lacks capabilities.
    #[error("no permission to load the kernel programs: run as root, or grant {}", missing.join(", "))]
    Capabilities {
        /// Names of the capabilities.
        missing: Vec<&'static str>,
    },

    /// A BPF system call was refused although the capabilities are there.
    #[error(
        "the system refuses to {operation}: a seccomp profile, a security module or kernel lockdown forbids it \
         (containers need --security-opt seccomp=unconfined or a profile with bpf)"
    )]
    Permission {
        /// What was attempted.
        operation: String,
        /// The system's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A distribution's kernel leaves perf events to CAP_SYS_ADMIN (Debian and Ubuntu, `perf_paranoid_any`).
    #[error(
        "the system refuses a perf event: kernel.perf_event_paranoid is {paranoid}, for which this kernel wants \
         CAP_SYS_ADMIN; 2 would do"
    )]
    Paranoid {
        /// What the sysctl says.
        paranoid: i32,
        /// The system's answer.
        #[source]
        source: Box<ProgramError>,
    },

    /// The kernel charges BPF memory to RLIMIT_MEMLOCK (before 5.11) and the limit is too low.
    #[error(
        "locked-memory limit too low to {operation}: this kernel charges BPF maps to RLIMIT_MEMLOCK; set \
         LimitMEMLOCK=infinity (systemd) or ulimit -l unlimited, or lower --max-peers"
    )]
    LockedMemory {
        /// What was attempted.
        operation: String,
        /// The system's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// There is not enough memory for the maps.
    #[error(
        "not enough memory to {operation}: the maps need {bytes} bytes of kernel memory; lower --max-peers"
    )]
    Memory {
        /// What was attempted.
        operation: String,
        /// Kernel memory of all maps, about.
        bytes: u64,
        /// The system's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The embedded object could not be read or its maps could not be created.
    #[error("cannot load the kernel programs")]
    Object(#[source] Box<EbpfError>),

    /// The object lacks a program.
    #[error("the embedded object has no program {0}: it does not belong to this version of the agent")]
    MissingProgram(&'static str),

    /// The object lacks a map.
    #[error("the embedded object has no map {0}: it does not belong to this version of the agent")]
    MissingMap(&'static str),

    /// A map has another shape than [`tailgauge_ebpf::layout`] says.
    #[error("map {map} has rows of {found} bytes, the agent expects {expected}: object and agent differ")]
    Layout {
        /// Name in the object.
        map: &'static str,
        /// Bytes of a row in the object.
        found: usize,
        /// Bytes of a row in the layout.
        expected: usize,
    },

    /// The verifier refused a program.
    #[error("the kernel refused program {program}: {log}")]
    Verifier {
        /// Name in the object.
        program: &'static str,
        /// Last lines of the verifier's log.
        log: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },

    /// A program could not be loaded for another reason, or not attached or run.
    #[error("cannot {operation} program {program}")]
    Program {
        /// What was attempted.
        operation: &'static str,
        /// Name in the object.
        program: &'static str,
        /// The cause.
        #[source]
        source: Box<ProgramError>,
    },

    /// A map could not be used.
    #[error("cannot {operation} map {map}")]
    Map {
        /// What was attempted.
        operation: &'static str,
        /// Name in the object.
        map: &'static str,
        /// The cause.
        #[source]
        source: Box<MapError>,
    },

    /// A map could not be mapped into memory.
    #[error("cannot map {rows} rows of map {map} into memory")]
    Mmap {
        /// Name in the object.
        map: &'static str,
        /// Rows wanted.
        rows: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },

    /// The interface carries frames, not packets.
    #[error(
        "interface {interface} is of type {kind}, not a layer-3 tunnel: \
         --interface must name the device of tailscaled, usually tailscale0"
    )]
    NotLayer3 {
        /// Interface name.
        interface: String,
        /// Link type, with its ARPHRD number.
        kind: String,
    },

    /// A netlink conversation failed.
    #[error("cannot {operation} over netlink")]
    Netlink {
        /// What was attempted.
        operation: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },

    /// A network namespace for an attempt could not be made.
    #[error("cannot make a network namespace to try in")]
    Namespace(#[source] io::Error),

    /// BPF statistics could not be turned on.
    #[error(
        "cannot turn BPF run-time statistics on: the agent needs CAP_SYS_ADMIN for that, or root sets \
         kernel.bpf_stats_enabled=1"
    )]
    Statistics(#[source] io::Error),

    /// More peers than the maps can have rows for.
    #[error("--max-peers {max_peers} is too large: at most {limit}")]
    TooManyPeers {
        /// What was asked for.
        max_peers: u32,
        /// What is possible.
        limit: u32,
    },
}
