//! What the program on `kfree_skb` must know of the running kernel: where fields lie, and what reasons are called.

use std::os::unix::fs::MetadataExt as _;

use tailgauge_ebpf::layout::{DROP_REASONS, globals};

use super::btf::{ReadAt, Wanted};
use super::description::{Description, Member, TypeError};

/// The namespace of the calling thread.
const NAMESPACE: &str = "/proc/thread-self/ns/net";
/// Longest name of a reason that is believed.
const LONGEST: usize = 64;
/// No reason has this number.
const NONE: u32 = u32::MAX - 1;
const REASONS: &str = "skb_drop_reason";
const TRACEPOINT: &str = "btf_trace_kfree_skb";

/// Members that are looked for.
pub(super) const MEMBERS: &[Member] = &[
    ("sk_buff", "dev"),
    ("sk_buff", "sk"),
    ("net_device", "ifindex"),
    ("net_device", "nd_net"),
    ("sock_common", "skc_net"),
    ("net", "ns.inum"),
];
/// What else is looked for.
pub(super) const OTHERS: &[(Wanted, &str)] = &[(Wanted::Enum, REASONS), (Wanted::Typedef, TRACEPOINT)];

/// Why drops cannot be counted.
#[derive(Debug, thiserror::Error)]
pub(super) enum DropError {
    /// The kernel.
    #[error(transparent)]
    Types(#[from] TypeError),
    /// The own network namespace is not known.
    #[error("cannot tell which network namespace this is ({NAMESPACE}): {0}")]
    Namespace(#[source] std::io::Error),
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
    /// Looks everything up.
    pub(super) fn read(description: &mut Description<impl ReadAt>) -> Result<Self, DropError> {
        let mut offsets = [0; MEMBERS.len()];
        for (offset, member) in offsets.iter_mut().zip(MEMBERS) {
            *offset = description.offset(*member)?;
        }
        let [skb_device, skb_socket, device_index, device_namespace, socket_namespace, namespace_inode] =
            offsets;
        let namespace = std::fs::metadata(NAMESPACE).map_err(DropError::Namespace)?;
        Ok(Self {
            arguments: description.arguments(TRACEPOINT)?.unwrap_or(1),
            skb_device,
            skb_socket,
            device_index,
            device_namespace,
            socket_namespace,
            namespace_inode,
            // The number of a namespace has 32 bits (`struct ns_common`).
            own_namespace: namespace.ino() as u32,
            reasons: match description.values(REASONS, LONGEST) {
                Ok(values) => names(values),
                // Without names, there are numbers.
                Err(TypeError::Missing(_)) => Vec::new(),
                Err(error) => return Err(error.into()),
            },
        })
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
    use crate::sources::kernel::description;

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
        if description::is_absent() {
            return;
        }
        let mut description = Description::of_this_kernel(MEMBERS, OTHERS).unwrap();
        let types = DropTypes::read(&mut description).unwrap();
        assert!((2..=4).contains(&types.arguments));
        assert_ne!(types.own_namespace, 0);
        for (name, value) in types.globals() {
            assert!(value > 0 && value != NONE, "{name}");
        }
    }
}
