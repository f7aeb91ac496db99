//! The underlay's programs and maps.

use std::net::{IpAddr, SocketAddr};

use aya::maps::HashMap;
use aya::programs::{SchedClassifier, TestRunResult};
use tailgauge_ebpf::layout::{
    Endpoint, Messages, PeerUnderlayLine, Ports, RECEIVE, SESSION_TAKEN, SESSION_WAYS, Session, SessionSet,
    Underlay, UnderlayLine, WireGuard, line_index, maps, programs, session_set,
};

use super::{Context, Error, Programs, test_run};

impl Programs {
    /// Runs the underlay's program of `direction` on `frame`, as if it passed the loopback device (index 1).
    ///
    /// # Errors
    /// As [`Programs::run`].
    pub fn run_underlay(
        &self,
        direction: u32,
        frame: &[u8],
        context: Context,
        times: u32,
    ) -> Result<TestRunResult, Error> {
        test_run(self.underlay_program(direction)?, frame, context, times)
    }

    /// The underlay's program of `direction`.
    ///
    /// # Errors
    /// When the object has none.
    pub fn underlay_program(&self, direction: u32) -> Result<&SchedClassifier, Error> {
        let name = if direction == RECEIVE { programs::UNDERLAY_INGRESS } else { programs::UNDERLAY_EGRESS };
        Ok(self.ebpf.program(name).ok_or(Error::Missing(name))?.try_into()?)
    }

    /// Says which interfaces are counted where.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_underlay(&mut self, underlay: &Underlay) -> Result<(), Error> {
        self.set_row::<_, { size_of::<Underlay>() }>(maps::UNDERLAY, 0, underlay)
    }

    /// Says where tailscaled listens, IPv4 and IPv6.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_ports(&mut self, families: [&[u16]; 2]) -> Result<(), Error> {
        for (row, ports) in (0..).zip(families) {
            let mut row_of = Ports::EMPTY;
            ports.iter().for_each(|port| row_of.add(*port));
            self.set_row::<_, { size_of::<Ports>() }>(maps::PORTS, row, &row_of)?;
        }
        Ok(())
    }

    /// Counters of an underlay interface, summed over the shards.
    ///
    /// # Errors
    /// When there is no such row.
    pub fn underlay(&self, row: u32, direction: u32) -> Result<UnderlayLine, Error> {
        let mut sum = UnderlayLine::default();
        for shard in 0..self.sizes.shards {
            let index = line_index(row, shard, self.sizes.shards, direction);
            let line: UnderlayLine =
                self.row::<_, { size_of::<UnderlayLine>() }>(maps::UNDERLAY_COUNTERS, index)?;
            for (sum, carried) in sum.kind.iter_mut().zip(line.kind) {
                sum.wire.packets += carried.wire.packets;
                sum.wire.bytes += carried.wire.bytes;
                sum.skbs += carried.skbs;
                sum.skb_bytes += carried.skb_bytes;
            }
        }
        Ok(sum)
    }

    /// What went between tailscaled and the peer of a slot over UDP, summed over the shards.
    ///
    /// # Errors
    /// When there is no such slot.
    pub fn peer_underlay(&self, slot: u32, direction: u32) -> Result<PeerUnderlayLine, Error> {
        let mut sum = PeerUnderlayLine::default();
        for shard in 0..self.sizes.shards {
            let index = line_index(slot, shard, self.sizes.shards, direction);
            let line: PeerUnderlayLine =
                self.row::<_, { size_of::<PeerUnderlayLine>() }>(maps::PEER_UNDERLAY, index)?;
            for (sum, path) in sum.path.iter_mut().zip(line.path) {
                sum.bytes += path.bytes;
                sum.data += path.data;
                sum.others += path.others;
            }
        }
        Ok(sum)
    }

    /// Handshakes and disco of a slot.
    ///
    /// # Errors
    /// When there is no such slot.
    pub fn wireguard(&self, slot: u32) -> Result<WireGuard, Error> {
        self.row::<WireGuard, { size_of::<WireGuard>() }>(maps::WIREGUARD, slot)
    }

    /// Messages of tailscaled as a whole.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn messages(&self) -> Result<Messages, Error> {
        self.row::<Messages, { size_of::<Messages>() }>(maps::MESSAGES, 0)
    }

    /// The WireGuard session with this index, if one is followed.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn session(&self, index: u32) -> Result<Option<Session>, Error> {
        let set = session_set(index, self.sizes.sets);
        let keys: SessionSet = self.row::<_, { size_of::<SessionSet>() }>(maps::SESSION_SETS, set)?;
        let way = keys.keys.iter().position(|key| *key == SESSION_TAKEN | u64::from(index));
        let Some(way) = way else { return Ok(None) };
        let row = set * SESSION_WAYS as u32 + way as u32;
        self.row::<Session, { size_of::<Session>() }>(maps::SESSIONS, row).map(Some)
    }

    /// Gives an endpoint to a slot, on a relay with its network identifier.
    ///
    /// # Errors
    /// When the map is full.
    pub fn add_endpoint(&mut self, at: SocketAddr, vni: Option<u32>, slot: u32) -> Result<(), Error> {
        let address = match at.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let endpoint = Endpoint {
            address: address.octets(),
            port: at.port().to_be_bytes(),
            padding: [0; 2],
            relay: vni.map_or(0, |vni| vni + 1),
        };
        HashMap::<_, Endpoint, u32>::try_from(self.map_mut(maps::ENDPOINTS)?)?.insert(endpoint, slot, 0)?;
        Ok(())
    }

    /// Gives a disco key to a slot.
    ///
    /// # Errors
    /// When the map is full.
    pub fn add_disco_key(&mut self, key: [u8; 32], slot: u32) -> Result<(), Error> {
        HashMap::<_, [u8; 32], u32>::try_from(self.map_mut(maps::DISCO_KEYS)?)?.insert(key, slot, 0)?;
        Ok(())
    }
}
