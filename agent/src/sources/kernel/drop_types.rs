//! What the program on `kfree_skb` must know of the running kernel: where fields lie, and what reasons are called.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tailgauge_ebpf::layout::{DROP_REASONS, globals};

use super::btf::{Btf, ReadAt, Wanted};

/// Description of the running kernel.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";
/// The namespace of the calling thread.
const NAMESPACE: &str = "/proc/thread-self/ns/net";
/// Longest name of a reason that is believed.
const LONGEST: usize = 64;
/// No reason has this number.
const NONE: u32 = u32::MAX - 1;

/// Why drops cannot be counted.
#[derive(Debug, thiserror::Error)]
pub(super) enum DropError {
    /// No description, or one that cannot be read.
    #[error("drops need the kernel's description of its types in {KERNEL} (CONFIG_DEBUG_INFO_BTF): {0}")]
    Description(#[source] io::Error),
    /// Something is called differently.
    #[error("this kernel has no {0}: it is newer or older than the agent knows")]
    Missing(&'static str),
    /// The own network namespace is not known.
    #[error("cannot tell which network namespace this is ({NAMESPACE}): {0}")]
    Namespace(#[source] io::Error),
}

/// Facts about the running kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DropTypes {
    arguments: u32,
    skb_device: u32,
    skb_socket: u32,
    device_index: u32,
    device_namespace: u32,
    socket_namespace: u32,
    namespace_inode: u32,
    own_namespace: u32,
    /// Names of the reasons by number, as the kernel has them, without `SKB_DROP_REASON_`. Empty for numbers that
    /// are no drops or have no name.
    pub(super) reasons: Vec<Reason>,
}

/// What a number of `enum skb_drop_reason` stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Reason {
    /// Not named by the kernel.
    #[default]
    Unnamed,
    /// The packet was used, not dropped.
    NoDrop,
    /// `FULL_RING` and the like.
    Named(String),
}

impl DropTypes {
    /// Asks the running kernel.
    pub(super) fn of_this_kernel() -> Result<Self, DropError> {
        let file = File::open(Path::new(KERNEL)).map_err(DropError::Description)?;
        let mut types = Self::read(file)?;
        let namespace = std::fs::metadata(NAMESPACE).map_err(DropError::Namespace)?;
        // The number of a namespace has 32 bits (`struct ns_common`).
        types.own_namespace = namespace.ino() as u32;
        Ok(types)
    }

    fn read(source: impl ReadAt) -> Result<Self, DropError> {
        let mut btf = Btf::open(source).map_err(DropError::Description)?;
        let [dev, sk, ifindex, nd_net, skc_net, ns, inum] = btf
            .strings(["dev", "sk", "ifindex", "nd_net", "skc_net", "ns", "inum"])
            .map_err(DropError::Description)?;
        let [skb, device, sock, net, ns_common, reasons, tracepoint] = btf
            .strings([
                "sk_buff",
                "net_device",
                "sock_common",
                "net",
                "ns_common",
                "skb_drop_reason",
                "btf_trace_kfree_skb",
            ])
            .map_err(DropError::Description)?;
        let [skb, device, sock, net, ns_common, reasons, tracepoint] = btf
            .find([
                (Wanted::Struct, skb),
                (Wanted::Struct, device),
                (Wanted::Struct, sock),
                (Wanted::Struct, net),
                (Wanted::Struct, ns_common),
                (Wanted::Enum, reasons),
                (Wanted::Typedef, tracepoint),
            ])
            .map_err(DropError::Description)?;
        let mut member = |of, name: Option<u32>, what| match (of, name) {
            (Some(of), Some(name)) => {
                let offset = btf.member(&of, name).map_err(DropError::Description)?;
                offset.ok_or(DropError::Missing(what))
            }
            _ => Err(DropError::Missing(what)),
        };
        let mut types = Self {
            skb_device: member(skb, dev, "sk_buff.dev")?,
            skb_socket: member(skb, sk, "sk_buff.sk")?,
            device_index: member(device, ifindex, "net_device.ifindex")?,
            device_namespace: member(device, nd_net, "net_device.nd_net")?,
            socket_namespace: member(sock, skc_net, "sock_common.skc_net")?,
            namespace_inode: member(net, ns, "net.ns")? + member(ns_common, inum, "ns_common.inum")?,
            ..Self::default()
        };
        let tracepoint = tracepoint.ok_or(DropError::Missing("tracepoint kfree_skb"))?;
        let parameters = btf.parameters(&tracepoint).map_err(DropError::Description)?;
        // The first parameter is not the tracepoint's but its handler's.
        types.arguments = parameters.and_then(|count| count.checked_sub(1)).unwrap_or(1);
        if let Some(reasons) = reasons {
            // Without names, there are numbers.
            types.reasons = names(btf.values(&reasons, LONGEST).map_err(DropError::Description)?);
        }
        Ok(types)
    }

    fn number_of(&self, name: &str) -> u32 {
        let named = |reason: &Reason| matches!(reason, Reason::Named(found) if found == name);
        self.reasons.iter().position(named).map_or(NONE, |number| number as u32)
    }

    /// What the program's constants are to be.
    pub(super) fn globals(&self) -> [(&'static str, u32); 10] {
        [
            (globals::DROP_ARGUMENTS, self.arguments),
            (globals::SKB_DEVICE, self.skb_device),
            (globals::SKB_SOCKET, self.skb_socket),
            (globals::DEVICE_INDEX, self.device_index),
            (globals::DEVICE_NAMESPACE, self.device_namespace),
            (globals::SOCKET_NAMESPACE, self.socket_namespace),
            (globals::NAMESPACE_INODE, self.namespace_inode),
            (globals::OWN_NAMESPACE, self.own_namespace),
            (globals::REASON_FULL_RING, self.number_of("FULL_RING")),
            (globals::REASON_SOCKET_BUFFER, self.number_of("SOCKET_RCVBUFF")),
        ]
    }
}

fn names(values: Vec<(String, u32)>) -> Vec<Reason> {
    let mut reasons = vec![Reason::Unnamed; DROP_REASONS - 1];
    for (name, number) in values {
        let Some(reason) = reasons.get_mut(number as usize) else { continue };
        let is_word = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        *reason = match name.strip_prefix("SKB_DROP_REASON_") {
            // The end of the enumeration.
            Some("MAX") => Reason::Unnamed,
            Some(name) if is_word(name) => Reason::Named(name.to_owned()),
            None if matches!(name.as_str(), "SKB_NOT_DROPPED_YET" | "SKB_CONSUMED") => Reason::NoDrop,
            _ => Reason::Unnamed,
        };
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_called_as_the_kernel_calls_them() {
        let values = [
            ("SKB_NOT_DROPPED_YET", 0),
            ("SKB_CONSUMED", 1),
            ("SKB_DROP_REASON_NOT_SPECIFIED", 2),
            ("SKB_DROP_REASON_FULL_RING", 7),
            ("SKB_DROP_REASON_\"}", 8),
            ("SKB_DROP_REASON_MAX", 9),
            ("SKB_DROP_REASON_SUBSYS_MASK", 0xffff_0000),
        ];
        let values = values.map(|(name, number)| (name.to_owned(), number)).to_vec();
        let types = DropTypes { reasons: names(values), ..DropTypes::default() };
        assert_eq!(types.reasons.len(), DROP_REASONS - 1);
        assert_eq!(types.reasons[..2], [Reason::NoDrop, Reason::NoDrop]);
        assert_eq!(types.reasons[2], Reason::Named("NOT_SPECIFIED".to_owned()));
        assert_eq!(types.reasons[8..10], [Reason::Unnamed, Reason::Unnamed]);
        assert_eq!((types.number_of("FULL_RING"), types.number_of("SOCKET_RCVBUFF")), (7, NONE));
    }

    #[test]
    fn this_kernel_is_understood() {
        if !Path::new(KERNEL).exists() {
            eprintln!("skipped: this kernel does not describe its types");
            return;
        }
        let started = std::time::Instant::now();
        let types = DropTypes::of_this_kernel().unwrap();
        eprintln!("{types:?} in {:?}", started.elapsed());
        assert!((2..=4).contains(&types.arguments));
        assert_ne!(types.own_namespace, 0);
        for (name, value) in types.globals() {
            assert!(value > 0 && value != NONE, "{name}");
        }
    }
}
