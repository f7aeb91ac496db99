//! What the nodes of a tailnet find in the middle of the underlay.

use std::io;

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
}

impl Hub {
    /// Serves on every address of the namespace.
    pub fn start(namespace: &Namespace) -> Result<Self, HubError> {
        let serve = |service| move |source| HubError::Serve { service, source };
        let stun = namespace.run(StunServer::start)?.map_err(serve("STUN"))?;
        Ok(Self { _stun: stun })
    }
}
