//! What the kernel programs counted, copied out of the maps at one moment.

use std::sync::Arc;

use tailgauge_ebpf::layout::{
    Control, Health, Line, Messages, PeerUnderlayLine, Tcp, UnderlayLine, Windows, WireGuard, programs,
};

/// How a program sits on its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookMode {
    /// A tcx link (kernel 6.6 and later).
    Tcx,
    /// A clsact qdisc with a filter, by netlink.
    Clsact,
    /// A raw tracepoint.
    RawTracepoint,
    /// A perf event of the kernel's clock.
    PerfEvent,
    /// Not attached.
    None,
}

impl HookMode {
    /// Label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::RawTracepoint => "raw_tracepoint",
            Self::PerfEvent => "perf_event",
            Self::None => "none",
        }
    }
}

/// A program and the place it should sit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Interface name; empty for a hook that is on none.
    pub device: String,
    /// Program name, such as `tunnel_ingress`.
    pub hook: &'static str,
    /// How it is attached.
    pub mode: HookMode,
    /// Why it is not, in one sentence.
    pub reason: Option<String>,
}

/// One slot's counters, summed over shards, by direction (`layout::RECEIVE`, `layout::TRANSMIT`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounters {
    /// Receive and transmit.
    pub direction: [Line; 2],
}

impl Hook {
    /// Every way in which a program can be attached to this kind of hook.
    #[must_use]
    pub fn modes(&self) -> &'static [HookMode] {
        match self.hook {
            programs::DROPS => &[HookMode::RawTracepoint],
            programs::SAMPLING => &[HookMode::PerfEvent],
            _ => &[HookMode::Tcx, HookMode::Clsact],
        }
    }
}

/// What the kernel calls reasons for drops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropReasons {
    /// By number; a number is its own name where the kernel has none, and `None` is no drop at all.
    pub names: Vec<Option<String>>,
    /// Number of `FULL_RING`.
    pub full_ring: Option<u16>,
}

/// Dropped skbs of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropDevice {
    /// Interface name, `unknown` or `other`.
    pub device: String,
    /// Number of the reason and count, by number; only reasons that occurred.
    pub counts: Vec<(u16, u64)>,
}

/// What one interface of the underlay carried, summed over shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderlayCounters {
    /// Interface name.
    pub device: String,
    /// By direction (`layout::RECEIVE`, `layout::TRANSMIT`).
    pub direction: [UnderlayLine; 2],
}

/// What became of the WireGuard messages that a slot received over UDP, over all its sessions so far; each as the
/// fields of the same name in `layout::Session`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTotals {
    /// Messages, each counter once.
    pub received: u64,
    /// Of these, the ones that came after a later one.
    pub reordered: u64,
    /// Counters received once more.
    pub duplicated: u64,
    /// Counters that never came.
    pub lost: u64,
    /// Messages that are none of the above.
    pub unjudged: u64,
}

/// The tunnel device as its own counters see it, since the hooks were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Packets received, a super-packet as one.
    pub receive_packets: u64,
    /// Bytes received.
    pub receive_bytes: u64,
    /// Packets sent.
    pub transmit_packets: u64,
    /// Bytes sent.
    pub transmit_bytes: u64,
    /// Packets that the queue towards tailscaled refused.
    pub transmit_dropped: u64,
}

/// Completeness: what the programs counted against what the device counted over the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Skbs and bytes counted by the programs over all slots, retired ones included, by direction.
    pub counted_skbs: [u64; 2],
    /// Bytes likewise.
    pub counted_bytes: [u64; 2],
    /// The device's own view.
    pub device: DeviceCounters,
}

impl Coverage {
    /// Counted ÷ device packets by direction (transmit: sent plus dropped); `None` before the first packet.
    #[must_use]
    pub fn ratio(&self, direction: usize) -> Option<f64> {
        let device = match direction {
            0 => self.device.receive_packets,
            _ => self.device.transmit_packets + self.device.transmit_dropped,
        };
        let counted = *self.counted_skbs.get(direction)?;
        (device > 0).then(|| counted as f64 / device as f64)
    }
}

/// Fill of one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// Name in the object.
    pub name: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Entries it can hold.
    pub capacity: u64,
}

/// Run time of one program, advancing only while BPF statistics are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramRun {
    /// Name in the object.
    pub name: &'static str,
    /// Total run time in nanoseconds.
    pub nanoseconds: u64,
    /// Total runs.
    pub count: u64,
}

/// Copied out of the maps at scrape time; buffers are reused, so nothing is allocated at rest.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// Interface that is watched.
    pub device: String,
    /// Its index while it exists.
    pub ifindex: Option<u32>,
    /// State of every hook.
    pub hooks: Vec<Hook>,
    /// Attachments after the first one.
    pub reattached_total: u64,
    /// By slot, slot 0 first, up to the highest slot in use.
    pub slots: Vec<SlotCounters>,
    /// Sum of the slots that were freed for reuse: with it, totals over all slots never go back.
    pub retired: SlotCounters,
    /// Windows of slots that carried traffic.
    pub windows: Vec<(u32, Windows)>,
    /// Windows of the tunnel as a whole.
    pub tunnel_windows: Option<Box<Windows>>,
    /// Second of CLOCK_MONOTONIC at the copy; peaks older than `PEAK_SECONDS` before it are void.
    pub monotonic_second: u64,
    /// TCP of slots that saw any connection.
    pub tcp: Vec<(u32, Tcp)>,
    /// Interfaces under the tunnel, those that were left included.
    pub underlay: Vec<UnderlayCounters>,
    /// UDP with each peer by slot, summed over shards, by direction (`layout::RECEIVE`, `layout::TRANSMIT`).
    pub peer_underlay: Vec<[PeerUnderlayLine; 2]>,
    /// Sum of the slots that were freed for reuse.
    pub retired_underlay: [PeerUnderlayLine; 2],
    /// Handshakes and disco of slots that saw any over UDP.
    pub wireguard: Vec<(u32, WireGuard)>,
    /// WireGuard messages received, by slot.
    pub sessions: Vec<SessionTotals>,
    /// The same of slots that were freed for reuse.
    pub retired_sessions: SessionTotals,
    /// Messages of tailscaled as a whole; `None` while they are not counted.
    pub messages: Option<Box<Messages>>,
    /// Dropped skbs of this network namespace; empty while they are not counted.
    pub drops: Vec<DropDevice>,
    /// What their numbers stand for.
    pub drop_reasons: Arc<DropReasons>,
    /// Drops by the ring of the tunnel, and by sockets, per window (`layout::DROPPED_BY_*` in place of a direction).
    pub drop_windows: Option<Box<Windows>>,
    /// Completeness over all devices so far; `None` before the first attachment.
    pub coverage: Option<Coverage>,
    /// Settings in force.
    pub control: Control,
    /// Events of the programs.
    pub health: Health,
    /// Map fill.
    pub maps: Vec<MapUse>,
    /// Failed map updates.
    pub map_update_errors_total: u64,
    /// Addresses and routes that found no room in the maps; their traffic falls to a wider route or to slot 0.
    pub keys_without_room: u64,
    /// Program run time.
    pub programs: Vec<ProgramRun>,
}

impl Kernel {
    /// Writes the state of a hook that is on no device, the one at `place`; those behind it are to follow anew.
    pub fn set_hook(&mut self, place: usize, hook: &'static str, mode: HookMode, reason: Option<&str>) {
        let same =
            |known: &Hook| known.hook == hook && known.mode == mode && known.reason.as_deref() == reason;
        if !self.hooks.get(place).is_some_and(same) {
            self.hooks.truncate(place);
            self.hooks.push(Hook { device: String::new(), hook, mode, reason: reason.map(str::to_owned) });
        }
    }
}
