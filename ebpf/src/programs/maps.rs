//! Every map and constant of the object. Sizes are placeholders: the loader sets them.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
};
use tailgauge_ebpf::{
    layout::{
        self, Connection, Control, CpuSample, Disco, DropRow, FlowKey, Found, Handshake, Health, Line,
        Messages, PeerUnderlayLine, Ports, Sample, Session, SessionSet, Tcp, Underlay, UnderlayLine, Watched,
        Windows, WireGuard,
    },
    packet::{V4, V6},
};

use super::walk::Walk;

/// Shards of a slot, a power of two.
#[unsafe(no_mangle)]
pub(super) static SHARDS: Global<u32> = Global::new(1);
/// Slots, slot 0 included; also the row of the tunnel in [`WINDOWS`].
#[unsafe(no_mangle)]
pub(super) static SLOTS: Global<u32> = Global::new(1);
/// Rows of [`SESSION_SETS`], a power of two.
#[unsafe(no_mangle)]
pub(super) static SETS: Global<u32> = Global::new(1);
/// Whether the kernel has `bpf_loop`.
#[unsafe(no_mangle)]
pub(super) static HAS_LOOP: Global<u32> = Global::new(0);
/// What the loader finds out about the running kernel: see `layout::globals`.
#[unsafe(no_mangle)]
pub(super) static DROP_ARGUMENTS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static SKB_DEVICE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static SKB_SOCKET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static DEVICE_INDEX: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static DEVICE_NAMESPACE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static SOCKET_NAMESPACE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static NAMESPACE_INODE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static OWN_NAMESPACE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static REASON_FULL_RING: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(super) static REASON_SOCKET_BUFFER: Global<u32> = Global::new(0);

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
pub(super) static DROPS: Array<DropRow> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(super) static DROP_DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

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

#[map]
pub(super) static PEER_UNDERLAY: Array<PeerUnderlayLine> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
pub(super) static WIREGUARD: Array<WireGuard> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(super) static MESSAGES: Array<Messages> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(super) static SESSION_SETS: Array<SessionSet> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(super) static SESSIONS: Array<Session> = Array::with_max_entries(8, BPF_F_MMAPABLE);
#[map]
pub(super) static ENDPOINTS: HashMap<EndpointWords, u32> = HashMap::with_max_entries(1024, 0);
#[map]
pub(super) static LEARNED_ENDPOINTS: LruHashMap<EndpointWords, u32> = LruHashMap::with_max_entries(1024, 0);
#[map]
pub(super) static DISCO_KEYS: HashMap<[u64; 4], u32> = HashMap::with_max_entries(1024, 0);
#[map]
pub(super) static DISCO: LruHashMap<EndpointWords, Disco> = LruHashMap::with_max_entries(1024, 0);

/// An `Endpoint` as words, so that it is not handled byte by byte.
pub(super) type EndpointWords = [u64; 3];

/// The datagram that a CPU is at.
#[map]
pub(super) static WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub(super) static WATCHED: Array<Watched> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(super) static FOUND: Array<Found> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(super) static CPU_OFFSETS: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub(super) static SAMPLES: Array<Sample> = Array::with_max_entries(layout::SAMPLES, BPF_F_MMAPABLE);
#[map]
pub(super) static CPU_SAMPLES: Array<CpuSample> = Array::with_max_entries(layout::SAMPLES, BPF_F_MMAPABLE);
/// A variable of each CPU, whose addresses are those of all such variables but for where they begin.
#[map]
pub(super) static OF_EACH_CPU: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
