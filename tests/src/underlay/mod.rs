//! What passes between the nodes of a tailnet below the tunnel: messages, and the packets that carry them.

pub mod derp;
pub mod disco;
pub mod hub;
pub mod messages;
pub mod packets;
pub mod peer_relay;
pub mod stun;
