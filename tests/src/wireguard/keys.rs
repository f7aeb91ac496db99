//! Node keys.

use std::fmt;

use boringtun::x25519;
use rand::RngCore;

use crate::underlay::disco::DiscoKey;

/// A node's private key.
#[derive(Clone)]
pub struct PrivateKey(x25519::StaticSecret);

/// What a node's data plane is known by.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its node key.
    pub key: PrivateKey,
    /// The key in its disco messages.
    pub disco: DiscoKey,
}

/// A node's public key; printed as Tailscale does, `nodekey:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl PrivateKey {
    /// A new key.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        Self(x25519::StaticSecret::from(bytes))
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.0).to_bytes())
    }

    /// As the cryptography wants it.
    #[must_use]
    pub fn secret(&self) -> &x25519::StaticSecret {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PrivateKey of {}", self.public())
    }
}

impl PublicKey {
    /// As the cryptography wants it.
    #[must_use]
    pub fn point(self) -> x25519::PublicKey {
        x25519::PublicKey::from(self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("nodekey:")?;
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
