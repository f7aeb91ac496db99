//! Layout of every map. Written by the programs, read by the agent through mmap: plain old data, fixed
//! sizes, no padding. Rows are per *slot* (a peer's row); slot 0 collects what belongs to no known peer.

mod names;
mod sampling;
mod tcp;
mod wireguard;

use crate::histogram::Histogram;

pub use names::{globals, maps, programs};
pub use sampling::*;
pub use tcp::*;
pub use wireguard::*;

/// Changes with any change below; part of the pin directory's name.
pub const LAYOUT_VERSION: u32 = 7;

/// Traffic that no known peer accounts for.
pub const UNATTRIBUTED: u32 = 0;

/// Width of an aligned window, nanoseconds of CLOCK_MONOTONIC.
pub const WINDOW_NANOSECONDS: u64 = 10_000_000;
/// One-second maxima kept per direction: the peak covers at least this many seconds less one.
pub const PEAK_SECONDS: usize = 16;

/// Directions index [`Line`] rows: receive = tunnel ingress = from the peer.
pub const RECEIVE: u32 = 0;
/// Transmit = tunnel egress = to the peer.
pub const TRANSMIT: u32 = 1;
/// Directions of a slot.
pub const DIRECTIONS: u32 = 2;

/// Where an inner packet goes besides the peer: this host.
pub const CLASS_LOCAL: u32 = 0;
/// A route this node advertises.
pub const CLASS_SUBNET: u32 = 1;
/// Anywhere else.
pub const CLASS_EXIT: u32 = 2;
/// Number of classes.
pub const CLASSES: usize = 3;

/// Interfaces of the underlay that are counted at a time.
pub const UNDERLAY_DEVICES: usize = 16;
/// Bytes of an Ethernet header, VLAN tags aside.
pub const ETHERNET_HEADER: u16 = 14;

/// Bits of a packet's mark that are Tailscale's (`LinuxFwmarkMask`, tsconst/linuxfw.go).
pub const MARK_MASK: u32 = 0xff_0000;
/// Forwarded from the tunnel (`LinuxSubnetRouteMark`).
pub const MARK_FORWARDED: u32 = 0x4_0000;
/// Sent by tailscaled itself (`LinuxBypassMark`).
pub const MARK_TAILSCALED: u32 = 0x8_0000;

/// Kinds index [`UnderlayLine::kind`]: tailscaled's own packets.
pub const KIND_TAILSCALED: usize = 0;
/// Packets that came out of the tunnel and go on; on transmit only.
pub const KIND_FORWARDED: usize = 1;
/// Number of kinds.
pub const KINDS: usize = 2;

/// Reasons that have a counter of their own (`enum skb_drop_reason`); the last one collects larger numbers, such as
/// those of other subsystems.
pub const DROP_REASONS: usize = 192;
/// Rows of [`DropRow`]: no known device.
pub const DROP_UNKNOWN: u32 = 0;
/// The tunnel.
pub const DROP_TUNNEL: u32 = 1;
/// Devices that have no row of their own; also the last row.
pub const DROP_OTHER: u32 = 64;
/// Number of rows.
pub const DROP_ROWS: u32 = DROP_OTHER + 1;

/// Which drops the window of [`maps::WINDOWS`] after the tunnel's holds, in place of a direction: packets that the
/// ring of the tunnel had no room for.
pub const DROPPED_BY_RING: u32 = 0;
/// Packets that the receive buffer of a socket had no room for.
pub const DROPPED_BY_SOCKET: u32 = 1;

/// Bytes and packets as they were sent one by one (super-packets taken apart).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Packets.
    pub packets: u64,
    /// Bytes of layer 3.
    pub bytes: u64,
}

/// Counters of one slot, shard and direction: exactly one cache line.
/// Index of the row: `(slot * shards + shard) * DIRECTIONS + direction`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// What users see, by class.
    pub wire: [Wire; CLASSES],
    /// Packets as the interface counts them: a super-packet is one.
    pub skbs: u64,
    /// Bytes as the interface counts them.
    pub skb_bytes: u64,
}

/// What an interface of the underlay carried, in both notions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Taken apart, layer 3 only.
    pub wire: Wire,
    /// Packets as the interface counts them: a super-packet is one.
    pub skbs: u64,
    /// Bytes as the interface counts them, with the header of layer 2.
    pub skb_bytes: u64,
}

/// Counters of one underlay interface, shard and direction: exactly one cache line.
/// Index of the row: as for [`Line`], with the row in [`Underlay::devices`] for the slot.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderlayLine {
    /// By kind.
    pub kind: [Carried; KINDS],
}

/// Dropped skbs of one device, by the kernel's number of the reason.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropRow {
    /// The last one counts all larger numbers.
    pub reasons: [u64; DROP_REASONS],
}

/// An interface of the underlay.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderlayDevice {
    /// Its index; 0 for a row that is free.
    pub ifindex: u32,
    /// Bytes before the IP header, VLAN tags aside: [`ETHERNET_HEADER`] or 0, by ARPHRD.
    pub link_header: u16,
    /// Its own row, so that the programs need not know it from its place: the verifier would follow them anew for
    /// each.
    pub row: u16,
}

/// Which interfaces are counted in which row; written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Underlay {
    /// By row.
    pub devices: [UnderlayDevice; UNDERLAY_DEVICES],
}

/// Words of [`Ports`].
pub const PORT_WORDS: usize = 1024;

/// UDP ports that tailscaled listens on, a bit each; one row for IPv4, then one for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Port `p` is bit `p % 64` of word `p / 64`.
    pub words: [u64; PORT_WORDS],
}

impl Ports {
    /// No port.
    pub const EMPTY: Self = Self { words: [0; PORT_WORDS] };

    /// Adds one.
    pub const fn add(&mut self, port: u16) {
        self.words[port as usize / 64] |= 1 << (port % 64);
    }
}

/// Bytes per aligned window of one slot and direction, and their distribution.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Number of the open window: CLOCK_MONOTONIC / [`WINDOW_NANOSECONDS`].
    pub id: u64,
    /// Wire bytes of the open window so far.
    pub bytes: u64,
    /// Ring of one-second maxima, index `second % PEAK_SECONDS`, each `second << 32 | bytes`.
    pub peaks: [u64; PEAK_SECONDS],
    /// Closed windows that carried traffic, in bytes.
    pub histogram: Histogram,
}

/// Both directions of a slot. The row after the last slot is the tunnel as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// By direction.
    pub direction: [Window; DIRECTIONS as usize],
}

impl Windows {
    /// No traffic yet.
    pub const EMPTY: Self = Self {
        direction: [Window { id: 0, bytes: 0, peaks: [0; PEAK_SECONDS], histogram: Histogram::EMPTY };
            DIRECTIONS as usize],
    };
}

/// Settings that the agent may change while packets flow; one row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Slot of the peer that is this node's own exit node; 0 when there is none.
    pub exit_node_slot: u32,
    /// Non-zero while [`maps::ROUTES_V4`] holds anything.
    pub has_routes_v4: u32,
    /// Non-zero while [`maps::ROUTES_V6`] holds anything.
    pub has_routes_v6: u32,
    /// Non-zero while [`maps::PREFIXES_V4`] holds anything.
    pub has_prefixes_v4: u32,
    /// Non-zero while [`maps::PREFIXES_V6`] holds anything.
    pub has_prefixes_v6: u32,
    /// Another number after every change of a `ROUTES_*` map: classes found before it are looked up anew.
    pub routes_generation: u32,
    /// Another number after every change of [`maps::ENDPOINTS`] or [`maps::DISCO_KEYS`]: slots found before it are
    /// looked up anew.
    pub endpoints_generation: u32,
    /// UDP port of this node's own peer relay server, 0 when there is none: what goes there is other peers' traffic.
    pub relay_port: u32,
}

/// Events of the programs themselves; one row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Packets too short for what their headers promise, or neither IPv4 nor IPv6. They are still counted.
    pub malformed: u64,
    /// Fragments other than the first: counted, their ports unknown.
    pub fragments: u64,
    /// New handshakes that found no room.
    pub handshake_insert_failures: u64,
    /// Established connections that found no room.
    pub connection_insert_failures: u64,
    /// Drops of skbs that belong to no device and no socket, so that their network namespace cannot be told.
    pub drops_without_namespace: u64,
    /// WireGuard sessions that found no room in [`maps::SESSIONS`].
    pub sessions_without_room: u64,
    /// Messages in the middle of a super-packet that were not read: it held more than one that is no data.
    pub messages_unread: u64,
    /// Endpoints whose disco exchange found no room.
    pub disco_insert_failures: u64,
}

/// Index of a [`Line`].
#[inline(always)]
#[must_use]
pub const fn line_index(slot: u32, shard: u32, shards: u32, direction: u32) -> u32 {
    (slot * shards + shard) * DIRECTIONS + direction
}

#[cfg(feature = "user")]
mod user {
    use super::{Connection, Disco, Endpoint, FlowKey, Handshake};

    // SAFETY: `#[repr(C)]`, integers and byte arrays only, no padding, any bit pattern is valid.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Handshake {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Connection {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Disco {}
}

#[cfg(test)]
mod tests {
    use core::mem::{align_of, size_of};

    use super::*;

    #[test]
    fn sizes_are_what_the_kernel_side_relies_on() {
        assert_eq!(size_of::<Line>(), 64);
        assert_eq!(align_of::<Line>(), 64);
        assert_eq!(size_of::<UnderlayLine>(), 64);
        assert_eq!(align_of::<UnderlayLine>(), 64);
        for size in [
            size_of::<Window>(),
            size_of::<Windows>(),
            size_of::<Tcp>(),
            size_of::<Control>(),
            size_of::<Health>(),
            size_of::<Underlay>(),
            size_of::<DropRow>(),
            size_of::<Ports>(),
            size_of::<Handshake>(),
            size_of::<Connection>(),
            size_of::<SessionSet>(),
            size_of::<Session>(),
            size_of::<PeerUnderlayLine>(),
            size_of::<WireGuard>(),
            size_of::<Messages>(),
            size_of::<Endpoint>(),
            size_of::<Disco>(),
            size_of::<Watched>(),
            size_of::<Found>(),
            size_of::<Sample>(),
            size_of::<CpuSample>(),
        ] {
            assert_eq!(size % 8, 0, "array rows are rounded up to 8 bytes by the kernel");
        }
        assert_eq!(size_of::<FlowKey>(), 36);
        assert_eq!(size_of::<SessionSet>(), 64);
        assert_eq!(size_of::<Session>(), 128 + 8 * SESSION_BLOCKS);
        assert_eq!(size_of::<PeerUnderlayLine>(), 128);
    }
}
