//! The interface's own counters: the independent side of every comparison.

use std::time::Duration;

use crate::netns::{Namespace, NamespaceError};
use crate::process::{Timeout, wait_for};

/// Counters of `ip -s link`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Received packets, a super-packet as one.
    pub rx_packets: u64,
    /// Received bytes.
    pub rx_bytes: u64,
    /// Sent packets.
    pub tx_packets: u64,
    /// Sent bytes.
    pub tx_bytes: u64,
    /// Packets that the ring towards tailscaled had no room for.
    pub tx_dropped: u64,
}

impl Device {
    /// Reads `name` in `namespace`.
    ///
    /// # Errors
    /// There is no such device, or its counters cannot be read.
    pub fn read(namespace: &Namespace, name: &str) -> Result<Self, NamespaceError> {
        let text = namespace.ip(&["-j", "-s", "link", "show", "dev", name])?;
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let count =
            |direction: &str, field: &str| json[0]["stats64"][direction][field].as_u64().unwrap_or_default();
        Ok(Self {
            rx_packets: count("rx", "packets"),
            rx_bytes: count("rx", "bytes"),
            tx_packets: count("tx", "packets"),
            tx_bytes: count("tx", "bytes"),
            tx_dropped: count("tx", "dropped"),
        })
    }

    /// Waits until nothing has moved for half a second, and reads.
    ///
    /// # Errors
    /// Something keeps moving.
    pub fn at_rest(namespace: &Namespace, name: &str) -> Result<Self, Timeout> {
        let mut last: Option<Self> = None;
        wait_for(&format!("{name} to be at rest"), Duration::from_secs(30), || {
            std::thread::sleep(Duration::from_millis(500));
            let now = Self::read(namespace, name).ok()?;
            let still = last == Some(now);
            last = Some(now);
            still.then_some(now)
        })
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            rx_packets: self.rx_packets - earlier.rx_packets,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            tx_packets: self.tx_packets - earlier.tx_packets,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
            tx_dropped: self.tx_dropped - earlier.tx_dropped,
        }
    }
}
