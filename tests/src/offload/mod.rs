//! What tailscaled does around its TUN: super-packets are split on the way out and put together on the way in.
//!
//! Follows the behaviour of wireguard-go's `tun/offload_linux.go`: one read or write of the TUN carries a
//! `virtio_net_hdr` and one IP packet of up to 64 KiB that stands for many packets of MTU size.

pub mod checksum;
pub mod coalesce;
pub mod ip;
pub mod split;
pub mod vnet;

pub use coalesce::Coalescer;
pub use split::{Segments, split};
pub use vnet::VnetHeader;

#[cfg(test)]
mod properties;
