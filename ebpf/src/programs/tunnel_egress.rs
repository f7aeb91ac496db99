//! Egress of the tunnel device: packets to peers.

use aya_ebpf::bindings::__sk_buff;
use tailgauge_ebpf::layout::TRANSMIT;

use super::tunnel::observe;

/// Classifier on the tunnel's egress.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub(super) extern "C" fn tunnel_egress(skb: *mut __sk_buff) -> i32 {
    observe::<TRANSMIT>(skb)
}
