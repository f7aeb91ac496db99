//! Requests to the generic netlink family `ethtool` (include/uapi/linux/ethtool_netlink.h).

use std::io;

use netlink_sys::protocols::NETLINK_GENERIC;

use super::devices;
use crate::sources::netlink::{Netlink, attributes, push_attribute};

/// `struct genlmsghdr`: command, version, two bytes of nothing.
const HEADER_BYTES: usize = 4;
/// `NLA_F_NESTED`: the family refuses nested attributes without it.
const NESTED: u16 = 1 << 15;
const VERSION: u8 = 1;
/// Attributes of every request's header, which is attribute 1 of the request.
const HEADER: u16 = 1;
const HEADER_DEVICE_INDEX: u16 = 1;
const HEADER_FLAGS: u16 = 3;
/// `ETHTOOL_FLAG_COMPACT_BITSETS`: bits as words, not as a list of names.
const COMPACT_BITSETS: u32 = 1;

/// Appends an attribute that holds attributes.
pub(super) fn push_nested(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    push_attribute(body, kind | NESTED, value);
}

/// A 32-bit attribute.
pub(super) fn word(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// A conversation with the family.
#[derive(Debug)]
pub(super) struct Family {
    netlink: Netlink,
    number: u16,
}

impl Family {
    /// Asks for the family's number. Before kernel 5.6 there is no such family.
    pub(super) fn open() -> io::Result<Self> {
        let mut netlink = Netlink::open(NETLINK_GENERIC)?;
        let mut body = vec![libc::CTRL_CMD_GETFAMILY as u8, VERSION, 0, 0];
        push_attribute(&mut body, libc::CTRL_ATTR_FAMILY_NAME as u16, b"ethtool\0");
        let mut number = None;
        netlink.request(libc::GENL_ID_CTRL as u16, 0, &body, |_, answer| number = family_number(answer))?;
        let number = number.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { netlink, number })
    }

    /// Asks about a device, and hands the attributes of the answer to `read`. `None` when the device is gone or has
    /// no such thing, or its driver fails.
    pub(super) fn ask_device<T>(
        &mut self,
        command: u8,
        index: u32,
        read: impl FnMut(&[u8]) -> T,
    ) -> io::Result<Option<T>> {
        let mut header = Vec::with_capacity(16);
        push_attribute(&mut header, HEADER_DEVICE_INDEX, &index.to_ne_bytes());
        push_attribute(&mut header, HEADER_FLAGS, &COMPACT_BITSETS.to_ne_bytes());
        match self.ask(command, &header, &[], read) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => Ok(None),
            Err(error) if devices::is_of_driver(&error) => {
                tracing::debug!(index, command, %error, "the driver of a network device does not answer");
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    /// Asks with a header and further attributes.
    pub(super) fn ask<T>(
        &mut self,
        command: u8,
        header: &[u8],
        attributes: &[u8],
        mut read: impl FnMut(&[u8]) -> T,
    ) -> io::Result<T> {
        let mut body = vec![command, VERSION, 0, 0];
        push_nested(&mut body, HEADER, header);
        body.extend_from_slice(attributes);
        let mut found = None;
        self.netlink.request(self.number, 0, &body, |_, answer| {
            found = answer.get(HEADER_BYTES..).map(&mut read);
        })?;
        found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

fn family_number(answer: &[u8]) -> Option<u16> {
    let (_, value) = attributes(answer.get(HEADER_BYTES..)?)
        .find(|(kind, _)| *kind == libc::CTRL_ATTR_FAMILY_ID as u16)?;
    value.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}
