//! The data plane of a node: real WireGuard messages between a TUN and a UDP socket, moved as tailscaled moves them.

pub mod engine;
pub mod keys;
pub mod peers;
pub(crate) mod socket;

pub use engine::{Engine, EngineError, SessionState};
pub use keys::{PrivateKey, PublicKey};
pub use peers::{PeerConfig, PeerStats};

/// tailscaled's port on every node.
pub const PORT: u16 = 41641;
/// The mark on everything that tailscaled sends itself (`tsconst/linuxfw.go`, bypass mark).
pub const BYPASS_MARK: u32 = 0x80000;
