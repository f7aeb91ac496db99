//! Ingress of the tunnel device: packets from peers.

use aya_ebpf::bindings::__sk_buff;
use tailgauge_ebpf::layout::RECEIVE;

use super::tunnel::observe;

/// Classifier on the tunnel's ingress.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub(super) extern "C" fn tunnel_ingress(skb: *mut __sk_buff) -> i32 {
    observe::<RECEIVE>(skb)
}
