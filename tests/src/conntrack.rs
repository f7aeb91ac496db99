//! Entries in the connection tracking table of a namespace, made by hand as `conntrack -I` does
//! (net/netfilter/nf_conntrack_netlink.c).
//!
//! The limit is one number for all namespaces, and lowering it would hurt whoever runs beside us. But it applies to each
//! namespace's own count: a table is full for us alone when we put as many entries into it as the limit says.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::netns::Namespace;

/// `NFNL_SUBSYS_CTNETLINK`, with `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_DELETE`.
const NEW: u16 = 1 << 8;
const DELETE: u16 = NEW | 2;
// include/uapi/linux/netfilter/nfnetlink_conntrack.h
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_TIMEOUT: u16 = 7;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const NESTED: u16 = 1 << 15;
/// `IPS_SEEN_REPLY`, `IPS_ASSURED`, `IPS_CONFIRMED`: an entry that is not given up for a new one.
const ASSURED: u32 = 0b1110;
/// Seconds; the namespace goes earlier.
const LIFE: u32 = 600;
/// Entries in one message to the kernel.
const BATCH: u32 = 400;

/// One end of every flow that [`fill`] makes; the other ends count up from [`FIRST`].
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The other end of the first flow.
pub const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// The port at both ends, that of [`crate::stage::udp_frame`].
const PORT: u16 = 12_345;

/// Puts `count` established UDP flows into the table of a namespace.
///
/// # Errors
/// The kernel refuses one; ENOMEM when the table is full.
pub fn fill(namespace: &Namespace, count: u32) -> io::Result<()> {
    let fill = || {
        let socket = socket()?;
        let mut batch = Vec::new();
        for first in (0..count).step_by(BATCH as usize) {
            batch.clear();
            for number in first..count.min(first + BATCH) {
                message(&mut batch, NEW, libc::NLM_F_CREATE | libc::NLM_F_EXCL, |batch| flow(number, batch));
            }
            request(&socket, &batch)?;
        }
        Ok(())
    };
    namespace.run(fill).map_err(io::Error::other)?
}

/// Takes everything out of the table of a namespace.
///
/// # Errors
/// The kernel refuses.
pub fn flush(namespace: &Namespace) -> io::Result<()> {
    let flush = || {
        let mut batch = Vec::new();
        message(&mut batch, DELETE, 0, |_| ());
        request(&socket()?, &batch)
    };
    namespace.run(flush).map_err(io::Error::other)?
}

/// In the calling thread's namespace.
fn socket() -> io::Result<OwnedFd> {
    let family = Some(netlink::NETFILTER);
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, family)?)
}

/// The kernel answers before `send` returns, and only to say no.
fn request(socket: &OwnedFd, messages: &[u8]) -> io::Result<()> {
    send(socket, messages, SendFlags::empty())?;
    let mut answer = [0; 64];
    match recv(socket, &mut answer, RecvFlags::DONTWAIT) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(()),
        Err(error) => Err(error.into()),
        // struct nlmsgerr after struct nlmsghdr.
        Ok(_) => {
            let code = answer[16..].first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            Err(io::Error::from_raw_os_error(-code))
        }
    }
}

/// Appends a message: struct nlmsghdr, struct nfgenmsg, attributes.
fn message(batch: &mut Vec<u8>, kind: u16, flags: libc::c_int, attributes: impl FnOnce(&mut Vec<u8>)) {
    let start = batch.len();
    batch.extend([0; 4]);
    batch.extend(kind.to_ne_bytes());
    batch.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    batch.extend([0; 8]);
    batch.extend([libc::AF_INET as u8, 0, 0, 0]);
    attributes(batch);
    let length = (batch.len() - start) as u32;
    batch[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// The flow with that number.
fn flow(number: u32, batch: &mut Vec<u8>) {
    let from = Ipv4Addr::from_bits(FIRST.to_bits() + number);
    nest(batch, CTA_TUPLE_ORIG, |batch| tuple(batch, from, SERVER));
    nest(batch, CTA_TUPLE_REPLY, |batch| tuple(batch, SERVER, from));
    attribute(batch, CTA_STATUS, &ASSURED.to_be_bytes());
    attribute(batch, CTA_TIMEOUT, &LIFE.to_be_bytes());
}

fn tuple(batch: &mut Vec<u8>, from: Ipv4Addr, to: Ipv4Addr) {
    nest(batch, CTA_TUPLE_IP, |batch| {
        attribute(batch, CTA_IP_V4_SRC, &from.octets());
        attribute(batch, CTA_IP_V4_DST, &to.octets());
    });
    nest(batch, CTA_TUPLE_PROTO, |batch| {
        attribute(batch, CTA_PROTO_NUM, &[libc::IPPROTO_UDP as u8]);
        attribute(batch, CTA_PROTO_SRC_PORT, &PORT.to_be_bytes());
        attribute(batch, CTA_PROTO_DST_PORT, &PORT.to_be_bytes());
    });
}

fn attribute(batch: &mut Vec<u8>, kind: u16, value: &[u8]) {
    batch.extend(((4 + value.len()) as u16).to_ne_bytes());
    batch.extend(kind.to_ne_bytes());
    batch.extend(value);
    batch.resize(batch.len().next_multiple_of(4), 0);
}

fn nest(batch: &mut Vec<u8>, kind: u16, inside: impl FnOnce(&mut Vec<u8>)) {
    let start = batch.len();
    attribute(batch, kind | NESTED, &[]);
    inside(batch);
    let length = (batch.len() - start) as u16;
    batch[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}
