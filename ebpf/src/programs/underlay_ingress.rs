//! Ingress of an underlay interface: what arrives for tailscaled.

use aya_ebpf::bindings::__sk_buff;

use super::underlay;

/// Classifier on the ingress of underlay interfaces.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub(super) extern "C" fn underlay_ingress(skb: *mut __sk_buff) -> i32 {
    underlay::receive(skb)
}
