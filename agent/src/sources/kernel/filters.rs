//! clsact filters outlive the process that made them. Ours carry a priority of their own and the process id as
//! handle, so that those of a killed agent are known for what they are, and nobody else's are touched.

use std::io;

use aya::programs::TcAttachType;
use aya::programs::tc::{SchedClassifierLink, TcHandle};
use netlink_packet_route::tc::TcHeader;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::device;
use crate::sources::netlink::{Netlink, attributes};

/// Priority of our filters: early, to see what later filters drop, but not 1, which others take by habit and
/// which only one kind of filter can have.
pub(super) const PRIORITY: u16 = 7;

const TC_HEADER_BYTES: usize = 20;
/// Parents of the two sides, `TC_H_CLSACT | TC_H_MIN_INGRESS` and `…EGRESS`.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;

/// Removes filters with our name and priority whose process is gone, or that carry our own process id: that is
/// left from an earlier process with the same one, as the first process of a container always has.
pub(super) fn remove_stale(device: &str, side: TcAttachType, program: &str) -> io::Result<()> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let Some(link) = device::find(&mut netlink, device)? else { return Ok(()) };
    for handle in ours(&mut netlink, link.index, side, program)? {
        if handle != std::process::id() && process_exists(handle) {
            continue;
        }
        tracing::info!(device, hook = program, process = handle, "removing the filter of an earlier agent");
        // Detaches when dropped.
        drop(SchedClassifierLink::attached(device, side, PRIORITY, TcHandle::from(handle), None)?);
    }
    Ok(())
}

/// Handles of the filters with our name and priority.
fn ours(netlink: &mut Netlink, index: u32, side: TcAttachType, program: &str) -> io::Result<Vec<u32>> {
    let parent = match side {
        TcAttachType::Ingress => INGRESS,
        TcAttachType::Egress => EGRESS,
        TcAttachType::Custom(parent) => parent,
    };
    // `struct tcmsg`: family and padding, interface, handle, parent, info.
    let mut body = [0; TC_HEADER_BYTES];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[12..16].copy_from_slice(&parent.to_ne_bytes());
    let mut handles = Vec::new();
    let result = netlink.request(libc::RTM_GETTFILTER, libc::NLM_F_DUMP as u16, &body, |_, answer| {
        handles.extend(our_handle(answer, program));
    });
    match result {
        // Without a clsact qdisc there are no filters.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(()) => Ok(handles),
    }
}

fn our_handle(answer: &[u8], program: &str) -> Option<u32> {
    let header = TcHeader::parse(answer).ok()?;
    let priority = (header.info >> 16) as u16;
    let options = attributes(answer.get(TC_HEADER_BYTES..)?).find(|(kind, _)| *kind == TCA_OPTIONS)?.1;
    let name = attributes(options).find(|(kind, _)| *kind == TCA_BPF_NAME)?.1;
    let ours = priority == PRIORITY && name.strip_suffix(&[0]).unwrap_or(name) == program.as_bytes();
    let handle = u32::from(header.handle.major) << 16 | u32::from(header.handle.minor);
    (ours && handle != 0).then_some(handle)
}

fn process_exists(id: u32) -> bool {
    i32::try_from(id)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .is_some_and(|id| !matches!(rustix::process::test_kill_process(id), Err(rustix::io::Errno::SRCH)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::netlink::push_attribute;

    fn answer(priority: u16, handle: u32, name: &[u8]) -> Vec<u8> {
        let mut body = vec![0u8; TC_HEADER_BYTES];
        body[8..12].copy_from_slice(&handle.to_ne_bytes());
        body[16..20].copy_from_slice(&(u32::from(priority) << 16 | 0x0300).to_ne_bytes());
        let mut options = Vec::new();
        push_attribute(&mut options, TCA_BPF_NAME, name);
        push_attribute(&mut body, 1, b"bpf\0");
        push_attribute(&mut body, TCA_OPTIONS, &options);
        body
    }

    #[test]
    fn only_filters_with_our_priority_and_name_are_ours() {
        let own = answer(PRIORITY, 70_000, b"tunnel_ingress\0");
        assert_eq!(our_handle(&own, "tunnel_ingress"), Some(70_000));
        assert_eq!(our_handle(&own, "tunnel_egress"), None);
        assert_eq!(our_handle(&answer(1, 70_000, b"tunnel_ingress\0"), "tunnel_ingress"), None);
        assert_eq!(our_handle(&answer(PRIORITY, 0, b"tunnel_ingress\0"), "tunnel_ingress"), None);
        assert_eq!(our_handle(&own[..TC_HEADER_BYTES], "tunnel_ingress"), None);
    }

    #[test]
    fn this_process_exists_and_an_impossible_one_does_not() {
        assert!(process_exists(std::process::id()));
        assert!(!process_exists(i32::MAX as u32));
        assert!(!process_exists(0));
    }
}
