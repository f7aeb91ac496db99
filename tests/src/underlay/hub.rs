//! What the nodes of a tailnet find in the middle of the underlay.

use std::io;

use super::derp::DerpServer;
use super::peer_relay::PeerRelay;
use super::stun::StunServer;
use crate::netns::{Namespace, NamespaceError};

/// Why the hub does not serve.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Its namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// One of its servers.
    #[error("cannot serve {service}")]
    Serve {
        /// What it is.
        service: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// The running servers; dropped, they stop.
#[derive(Debug)]
pub struct Hub {
    _stun: StunServer,
    derp: DerpServer,
    relay: PeerRelay,
}

impl Hub {
    /// Serves on every address of the namespace.
    pub fn start(namespace: &Namespace) -> Result<Self, HubError> {
        let serve = |service| move |source| HubError::Serve { service, source };
        let stun = namespace.run(StunServer::start)?.map_err(serve("STUN"))?;
        let derp = namespace.run(DerpServer::start)?.map_err(serve("DERP"))?;
        let relay = namespace.run(PeerRelay::start)?.map_err(serve("a peer relay"))?;
        Ok(Self { _stun: stun, derp, relay })
    }

    /// The DERP server.
    #[must_use]
    pub fn derp(&self) -> &DerpServer {
        &self.derp
    }

    /// The peer relay.
    #[must_use]
    pub fn relay(&self) -> &PeerRelay {
        &self.relay
    }
}
