//! The committed kernel programs, loaded with maps of a chosen size and fed packets by `BPF_PROG_TEST_RUN`.

mod underlay;

use std::net::{Ipv4Addr, Ipv6Addr};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, lpm_trie},
    programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, TestRunResult},
};
use tailgauge_ebpf::layout::{
    Connection, Control, DIRECTIONS, FlowKey, Handshake, Health, Line, RECEIVE, SESSION_WAYS, TRANSMIT, Tcp,
    UNDERLAY_DEVICES, Windows, globals, line_index, maps, programs,
};

/// The object that the agent embeds.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/object/tailgauge.bpf.o");

const CLASSIFIERS: [&str; 4] = [
    programs::TUNNEL_INGRESS,
    programs::TUNNEL_EGRESS,
    programs::UNDERLAY_INGRESS,
    programs::UNDERLAY_EGRESS,
];

/// Offsets of fields in `struct __sk_buff`.
const MARK: usize = 8;
const GSO_SIZE: usize = 176;

/// Why a program could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object was refused.
    #[error("load kernel programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program was refused, or could not be run.
    #[error("kernel program: {0}")]
    Program(#[from] ProgramError),
    /// A map could not be read or written.
    #[error("kernel map: {0}")]
    Map(#[from] aya::maps::MapError),
    /// The object lacks something that the layout names.
    #[error("the object has no {0}")]
    Missing(&'static str),
}

/// Sizes of the maps.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Slots, slot 0 included.
    pub slots: u32,
    /// Shards, a power of two.
    pub shards: u32,
    /// Entries of HANDSHAKES and CONNECTIONS.
    pub flows: u32,
    /// Rows of SESSION_SETS, a power of two.
    pub sets: u32,
    /// Whether the programs may use `bpf_loop`.
    pub has_loop: bool,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { slots: 16, shards: 2, flows: 1024, sets: 8, has_loop: true }
    }
}

/// Loaded programs.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    sizes: Sizes,
}

impl Programs {
    /// Loads the programs; nothing is attached.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn load(sizes: Sizes) -> Result<Self, Error> {
        let mut ebpf = EbpfLoader::new()
            .override_global(globals::SLOTS, &sizes.slots, true)
            .override_global(globals::SHARDS, &sizes.shards, true)
            .override_global(globals::SETS, &sizes.sets, true)
            .override_global(globals::HAS_LOOP, &u32::from(sizes.has_loop), true)
            .map_max_entries(maps::COUNTERS, sizes.slots * sizes.shards * DIRECTIONS)
            .map_max_entries(maps::WINDOWS, sizes.slots + 2)
            .map_max_entries(maps::TCP, sizes.slots)
            .map_max_entries(maps::UNDERLAY_COUNTERS, UNDERLAY_DEVICES as u32 * sizes.shards * DIRECTIONS)
            .map_max_entries(maps::PEERS_V4, sizes.slots * 2)
            .map_max_entries(maps::PEERS_V6, sizes.slots * 2)
            .map_max_entries(maps::HANDSHAKES, sizes.flows)
            .map_max_entries(maps::CONNECTIONS, sizes.flows)
            .map_max_entries(maps::PEER_UNDERLAY, sizes.slots * sizes.shards * DIRECTIONS)
            .map_max_entries(maps::WIREGUARD, sizes.slots)
            .map_max_entries(maps::SESSION_SETS, sizes.sets)
            .map_max_entries(maps::SESSIONS, sizes.sets * SESSION_WAYS as u32)
            .load(OBJECT)?;
        for name in CLASSIFIERS {
            classifier(&mut ebpf, name)?.load()?;
        }
        Ok(Self { ebpf, sizes })
    }

    /// Instructions that the verifier followed until it accepted each program; `None` before Linux 5.16.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn verified(&self) -> Result<[(&'static str, Option<u32>); CLASSIFIERS.len()], Error> {
        let mut all = CLASSIFIERS.map(|name| (name, None));
        for (name, verified) in &mut all {
            let program = self.ebpf.program(name).ok_or(Error::Missing(name))?;
            *verified = program.info()?.verified_instruction_count();
        }
        Ok(all)
    }

    /// Runs the program of `direction` once on `packet`.
    ///
    /// # Errors
    /// When the kernel refuses the packet: it wants 14 bytes at least and about a page at most.
    pub fn run(&self, direction: u32, packet: &[u8], gso_size: u32) -> Result<TestRunResult, Error> {
        self.repeat(direction, packet, gso_size, 1)
    }

    /// Runs the program `times` times; the result has the mean duration.
    ///
    /// # Errors
    /// As [`Programs::run`].
    pub fn repeat(
        &self,
        direction: u32,
        packet: &[u8],
        gso_size: u32,
        times: u32,
    ) -> Result<TestRunResult, Error> {
        let name = if direction == RECEIVE { programs::TUNNEL_INGRESS } else { programs::TUNNEL_EGRESS };
        let program = self.ebpf.program(name).ok_or(Error::Missing(name))?;
        test_run(program.try_into()?, packet, Context { gso_size, ..Context::default() }, times)
    }

    /// Counters of a slot, summed over the shards.
    ///
    /// # Errors
    /// When there is no such slot.
    pub fn line(&self, slot: u32, direction: u32) -> Result<Line, Error> {
        let mut sum = Line::default();
        for shard in 0..self.sizes.shards {
            let index = line_index(slot, shard, self.sizes.shards, direction);
            let line: Line = self.row::<Line, { size_of::<Line>() }>(maps::COUNTERS, index)?;
            for (sum, wire) in sum.wire.iter_mut().zip(line.wire) {
                sum.packets += wire.packets;
                sum.bytes += wire.bytes;
            }
            sum.skbs += line.skbs;
            sum.skb_bytes += line.skb_bytes;
        }
        Ok(sum)
    }

    /// Windows of a slot, or of the tunnel with the number of slots.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn windows(&self, row: u32) -> Result<Windows, Error> {
        self.row::<Windows, { size_of::<Windows>() }>(maps::WINDOWS, row)
    }

    /// TCP of a slot.
    ///
    /// # Errors
    /// When there is no such slot.
    pub fn tcp(&self, slot: u32) -> Result<Tcp, Error> {
        self.row::<Tcp, { size_of::<Tcp>() }>(maps::TCP, slot)
    }

    /// Events of the programs.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn health(&self) -> Result<Health, Error> {
        self.row::<Health, { size_of::<Health>() }>(maps::HEALTH, 0)
    }

    /// Changes the settings.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_control(&mut self, control: &Control) -> Result<(), Error> {
        self.set_row::<_, { size_of::<Control>() }>(maps::CONTROL, 0, control)
    }

    /// Gives an IPv4 address to a slot.
    ///
    /// # Errors
    /// When the map is full.
    pub fn add_peer_v4(&mut self, address: Ipv4Addr, slot: u32) -> Result<(), Error> {
        HashMap::<_, [u8; 4], u32>::try_from(self.map_mut(maps::PEERS_V4)?)?.insert(
            address.octets(),
            slot,
            0,
        )?;
        Ok(())
    }

    /// Gives an IPv6 address to a slot.
    ///
    /// # Errors
    /// When the map is full.
    pub fn add_peer_v6(&mut self, address: Ipv6Addr, slot: u32) -> Result<(), Error> {
        HashMap::<_, [u8; 16], u32>::try_from(self.map_mut(maps::PEERS_V6)?)?.insert(
            address.octets(),
            slot,
            0,
        )?;
        Ok(())
    }

    /// Writes a prefix into `PREFIXES_V4`, `PREFIXES_V6`, `ROUTES_V4` or `ROUTES_V6`.
    ///
    /// # Errors
    /// When the map is full, or of the other family.
    pub fn add_prefix(
        &mut self,
        map: &'static str,
        prefix: impl Into<ipnet::IpNet>,
        value: u32,
    ) -> Result<(), Error> {
        match prefix.into() {
            ipnet::IpNet::V4(prefix) => {
                let key = lpm_trie::Key::new(u32::from(prefix.prefix_len()), prefix.addr().octets());
                lpm_trie::LpmTrie::<_, [u8; 4], u32>::try_from(self.map_mut(map)?)?.insert(&key, value, 0)?;
            }
            ipnet::IpNet::V6(prefix) => {
                let key = lpm_trie::Key::new(u32::from(prefix.prefix_len()), prefix.addr().octets());
                lpm_trie::LpmTrie::<_, [u8; 16], u32>::try_from(self.map_mut(map)?)?
                    .insert(&key, value, 0)?;
            }
        }
        Ok(())
    }

    /// Handshakes under way.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn handshakes(&mut self) -> Result<HashMap<&mut MapData, FlowKey, Handshake>, Error> {
        Ok(HashMap::try_from(self.map_mut(maps::HANDSHAKES)?)?)
    }

    /// Established connections.
    ///
    /// # Errors
    /// When the map cannot be opened.
    pub fn connections(&mut self) -> Result<HashMap<&mut MapData, FlowKey, Connection>, Error> {
        Ok(HashMap::try_from(self.map_mut(maps::CONNECTIONS)?)?)
    }

    /// Number of rows of [`Programs::windows`], less the tunnel's.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.sizes.slots
    }

    fn map_mut(&mut self, name: &'static str) -> Result<&mut Map, Error> {
        self.ebpf.map_mut(name).ok_or(Error::Missing(name))
    }

    fn set_row<T: Copy, const N: usize>(
        &mut self,
        name: &'static str,
        index: u32,
        row: &T,
    ) -> Result<(), Error>
    where
        [u8; N]: Pod,
    {
        // SAFETY: the rows of these maps are integers without padding, and N is their size.
        let bytes: [u8; N] = unsafe { std::mem::transmute_copy(row) };
        Array::<_, [u8; N]>::try_from(self.map_mut(name)?)?.set(index, bytes, 0)?;
        Ok(())
    }

    fn row<T: Copy, const N: usize>(&self, name: &'static str, index: u32) -> Result<T, Error>
    where
        [u8; N]: Pod,
    {
        let map = self.ebpf.map(name).ok_or(Error::Missing(name))?;
        let bytes = Array::<_, [u8; N]>::try_from(map)?.get(&index, 0)?;
        // SAFETY: the rows of these maps are plain integers, and N is their size.
        Ok(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}

/// Both directions, for tests that hold for either.
pub const BOTH: [u32; 2] = [RECEIVE, TRANSMIT];

/// A classifier of a loaded object.
///
/// # Errors
/// When the object has none of that name.
pub fn classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    Ok(ebpf.program_mut(name).ok_or(Error::Missing(name))?.try_into()?)
}

/// What a packet is beside its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// `skb->mark`.
    pub mark: u32,
    /// Payload of a segment; 0 for a packet that is just one.
    pub gso_size: u32,
}

/// Runs a loaded classifier.
///
/// # Errors
/// When the kernel refuses the packet.
pub fn test_run(
    program: &SchedClassifier,
    packet: &[u8],
    context: Context,
    times: u32,
) -> Result<TestRunResult, Error> {
    let mut bytes = [0u8; GSO_SIZE + 8];
    for (at, value) in [(MARK, context.mark), (GSO_SIZE, context.gso_size)] {
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let options = TestRunOptions {
        data_in: Some(packet),
        ctx_in: (bytes != [0; GSO_SIZE + 8]).then_some(&bytes),
        repeat: times,
        ..TestRunOptions::default()
    };
    Ok(program.test_run(options)?)
}
