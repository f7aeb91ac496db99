//! The data plane of a node: real WireGuard messages between a TUN and a UDP socket, moved as tailscaled moves them.

pub mod disco;
pub mod engine;
pub mod handshakes;
pub mod keys;
mod paths;
pub mod peers;
mod plane;
mod receive;
pub(crate) mod socket;
mod timers;

pub use disco::DiscoTruth;
pub use engine::{Engine, EngineError};
pub use handshakes::{Handshake, HandshakeTruth};
pub use keys::{Identity, PrivateKey, PublicKey};
pub use paths::{Path, WAY_LABELS};
pub use peers::{PeerConfig, PeerStats, Traffic};
pub use plane::{SessionState, StateHook};

/// tailscaled's port on every node.
pub const PORT: u16 = 41641;
/// The mark on everything that tailscaled sends itself (`tsconst/linuxfw.go`, bypass mark).
pub const BYPASS_MARK: u32 = 0x80000;
