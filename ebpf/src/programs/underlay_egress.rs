//! Egress of an underlay interface: what tailscaled sends, and what came out of the tunnel and goes on.

use aya_ebpf::bindings::__sk_buff;

use super::underlay;

/// Classifier on the egress of underlay interfaces.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub(super) extern "C" fn underlay_egress(skb: *mut __sk_buff) -> i32 {
    underlay::transmit(skb)
}
