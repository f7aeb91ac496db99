//! Counts what should be rare, and logs its first time when logging is compiled in.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::__sk_buff;

use super::{atomic::add, maps::HEALTH};

/// A packet too short for what its headers promise, or neither IPv4 nor IPv6.
#[inline(always)]
pub(super) fn malformed(skb: *mut __sk_buff) {
    let Some(health) = HEALTH.get_ptr_mut(0) else { return };
    // SAFETY: the map's row.
    unsafe {
        let counter = addr_of_mut!((*health).malformed);
        if counter.read_volatile() == 0 {
            log_malformed(skb);
        }
        add(counter, 1);
    }
}

#[cfg(feature = "log")]
#[inline(never)]
fn log_malformed(skb: *mut __sk_buff) {
    let context = aya_ebpf::programs::TcContext::new(skb);
    aya_log_ebpf::warn!(&context, "first malformed packet: {} bytes", context.len());
}

#[cfg(not(feature = "log"))]
#[inline(always)]
const fn log_malformed(_skb: *mut __sk_buff) {}

/// A fragment other than the first.
#[inline(always)]
pub(super) fn fragment() {
    if let Some(health) = HEALTH.get_ptr_mut(0) {
        // SAFETY: the map's row.
        unsafe { add(addr_of_mut!((*health).fragments), 1) };
    }
}

/// No room for a handshake.
#[inline(always)]
pub(super) fn handshake_insert_failure() {
    if let Some(health) = HEALTH.get_ptr_mut(0) {
        // SAFETY: the map's row.
        unsafe { add(addr_of_mut!((*health).handshake_insert_failures), 1) };
    }
}

/// A drop in a network namespace that is not known.
#[inline(always)]
pub(super) fn drop_without_namespace() {
    if let Some(health) = HEALTH.get_ptr_mut(0) {
        // SAFETY: the map's row.
        unsafe { add(addr_of_mut!((*health).drops_without_namespace), 1) };
    }
}

/// No room for a connection.
#[inline(always)]
pub(super) fn connection_insert_failure() {
    if let Some(health) = HEALTH.get_ptr_mut(0) {
        // SAFETY: the map's row.
        unsafe { add(addr_of_mut!((*health).connection_insert_failures), 1) };
    }
}

/// No room for a WireGuard session.
#[inline(always)]
pub(super) fn session_without_room() {
    if let Some(health) = HEALTH.get_ptr_mut(0) {
        // SAFETY: the map's row.
        unsafe { add(addr_of_mut!((*health).sessions_without_room), 1) };
    }
}

/// Messages of a super-packet that nobody read.
#[inline(always)]
pub(super) fn messages_unread(count: u64) {
    if let Some(health) = HEALTH.get_ptr_mut(0) {
        // SAFETY: the map's row.
        unsafe { add(addr_of_mut!((*health).messages_unread), count) };
    }
}

/// No room for a disco exchange.
#[inline(always)]
pub(super) fn disco_insert_failure() {
    if let Some(health) = HEALTH.get_ptr_mut(0) {
        // SAFETY: the map's row.
        unsafe { add(addr_of_mut!((*health).disco_insert_failures), 1) };
    }
}
