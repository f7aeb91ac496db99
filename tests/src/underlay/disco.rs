//! Disco pings and pongs as they look from outside: magic, the sender's disco key in clear, a nonce, and the rest.
//!
//! The rest is not sealed with NaCl as the real one is: the transaction is covered with the nonce, so that no two
//! messages look alike, and everything else is random. Nobody but the two ends may look inside, and these two are here.

use std::fmt;

use rand::RngCore;

use super::messages::random;

/// The bytes that every disco message starts with, "TS💬".
pub const MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];
/// UDP payload of a ping: header 62, seal 16, type and version 2, transaction 12, node key 32.
pub const PING_LEN: usize = 124;
/// UDP payload of a pong: header 62, seal 16, type and version 2, transaction 12, address 18.
pub const PONG_LEN: usize = 110;

const KEY: usize = MAGIC.len();
const NONCE: usize = KEY + 32;
const SEALED: usize = NONCE + 24;

/// What joins a pong to its ping.
pub type Transaction = [u8; 12];

/// A node's public disco key; printed as Tailscale does, `discokey:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiscoKey(pub [u8; 32]);

impl DiscoKey {
    /// A new key, without a private half, which nothing here would use.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        Self(bytes)
    }
}

impl fmt::Display for DiscoKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("discokey:")?;
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for DiscoKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Which of the two a message is; its length says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A question.
    Ping,
    /// Its answer.
    Pong,
}

/// A message, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disco {
    /// Ping or pong.
    pub kind: Kind,
    /// The sender's key.
    pub key: DiscoKey,
    /// What joins the two.
    pub transaction: Transaction,
}

impl Disco {
    /// The UDP payload, different each time.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut message = random(match self.kind {
            Kind::Ping => PING_LEN,
            Kind::Pong => PONG_LEN,
        });
        message[..KEY].copy_from_slice(&MAGIC);
        message[KEY..NONCE].copy_from_slice(&self.key.0);
        let (head, sealed) = message.split_at_mut(SEALED);
        for ((to, byte), mask) in sealed.iter_mut().zip(self.transaction).zip(&head[NONCE..]) {
            *to = byte ^ mask;
        }
        message
    }

    /// Reads a UDP payload; `None` for anything but a ping or pong.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let kind = match message.len() {
            PING_LEN => Kind::Ping,
            PONG_LEN => Kind::Pong,
            _ => return None,
        };
        let key = message.strip_prefix(&MAGIC)?.first_chunk()?;
        let covered: &Transaction = message[SEALED..].first_chunk()?;
        let mask: &Transaction = message[NONCE..].first_chunk()?;
        let transaction = std::array::from_fn(|at| covered[at] ^ mask[at]);
        Some(Self { kind, key: DiscoKey(*key), transaction })
    }
}

/// A ping from the owner of `key`.
#[must_use]
pub fn ping(key: DiscoKey, transaction: Transaction) -> Vec<u8> {
    Disco { kind: Kind::Ping, key, transaction }.to_bytes()
}

/// A pong from the owner of `key`.
#[must_use]
pub fn pong(key: DiscoKey, transaction: Transaction) -> Vec<u8> {
    Disco { kind: Kind::Pong, key, transaction }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_and_pongs_have_the_measured_sizes_and_the_key_in_clear() {
        let (key, transaction) = (DiscoKey::generate(), [5; 12]);
        for (message, kind, len) in
            [(ping(key, transaction), Kind::Ping, 124), (pong(key, transaction), Kind::Pong, 110)]
        {
            assert_eq!(message.len(), len);
            assert_eq!((&message[..6], &message[6..38]), (MAGIC.as_slice(), key.0.as_slice()));
            assert_eq!(Disco::parse(&message), Some(Disco { kind, key, transaction }));
            assert_eq!(Disco::parse(&message[1..]), None);
        }
        assert_ne!(ping(key, transaction)[38..], ping(key, transaction)[38..]);
        assert_eq!(Disco::parse(&[0; PING_LEN]), None);
        assert!(DiscoKey([0xab; 32]).to_string().starts_with("discokey:abab"));
    }
}
