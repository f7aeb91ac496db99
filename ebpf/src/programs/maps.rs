//! Every map and constant of the object. Sizes are placeholders: the loader sets them.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap},
};
use tailgauge_ebpf::{
    layout::{
        Connection, Control, FlowKey, Handshake, Health, Line, Ports, Tcp, Underlay, UnderlayLine, Windows,
    },
    packet::{V4, V6},
};

/// Shards of a slot, a power of two.
#[unsafe(no_mangle)]
pub(super) static SHARDS: Global<u32> = Global::new(1);
/// Slots, slot 0 included; also the row of the tunnel in [`WINDOWS`].
#[unsafe(no_mangle)]
pub(super) static SLOTS: Global<u32> = Global::new(1);

#[map]
pub(super) static COUNTERS: Array<Line> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
pub(super) static WINDOWS: Array<Windows> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
pub(super) static TCP: Array<Tcp> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(super) static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(super) static HEALTH: Array<Health> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(super) static UNDERLAY_COUNTERS: Array<UnderlayLine> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
pub(super) static UNDERLAY: Array<Underlay> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(super) static PORTS: Array<Ports> = Array::with_max_entries(2, BPF_F_MMAPABLE);

#[map]
pub(super) static PEERS_V4: HashMap<V4, u32> = HashMap::with_max_entries(1024, 0);
#[map]
pub(super) static PEERS_V6: HashMap<V6, u32> = HashMap::with_max_entries(1024, 0);
#[map]
pub(super) static PREFIXES_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1024, 0);
#[map]
pub(super) static PREFIXES_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1024, 0);
#[map]
pub(super) static ROUTES_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1024, 0);
#[map]
pub(super) static ROUTES_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1024, 0);

#[map]
pub(super) static HANDSHAKES: LruHashMap<FlowKey, Handshake> = LruHashMap::with_max_entries(1024, 0);
#[map]
pub(super) static CONNECTIONS: LruHashMap<FlowKey, Connection> = LruHashMap::with_max_entries(1024, 0);
