//! What this host offers to the kernel source, for `tailgauge check`. Nothing here leaves anything behind.

use std::io;

use caps::{CapSet, Capability};
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::device::{self, LinkLayer};
use super::drops::Drops;
use super::hooks::{Hooks, chain};
use super::object::{self, Object, TUNNEL};
use super::sampling::{Sampling, Targets, missing};
use super::sizes::Sizes;
use super::types::KernelTypes;
use super::{AttachMode, KernelError};
use crate::sources::netlink::Netlink;

/// Capabilities that loading and attaching need and this process lacks; CAP_SYS_ADMIN stands for the first two.
///
/// Without CAP_PERFMON the verifier follows mispredicted branches as well (Spectre v1), and gives up on the loop over
/// IPv6 extension headers after half a minute.
#[must_use]
pub fn missing_capabilities() -> Vec<&'static str> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let mut missing = Vec::new();
    for (capability, name) in [(Capability::CAP_BPF, "CAP_BPF"), (Capability::CAP_PERFMON, "CAP_PERFMON")] {
        if !has(capability) && !has(Capability::CAP_SYS_ADMIN) {
            missing.push(name);
        }
    }
    if !has(Capability::CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    missing
}

/// Whether every message of a super-packet under the tunnel can be read (`bpf_loop`).
#[must_use]
pub fn reads_super_packets() -> bool {
    object::has_loop()
}

/// Kernel memory of the maps for `max_peers` peers, bytes, about.
///
/// # Errors
/// When there cannot be so many peers.
pub fn map_memory(max_peers: u32) -> Result<u64, KernelError> {
    Ok(Sizes::for_this_machine(max_peers)?.memory())
}

/// Creates all maps and has the kernel verify all programs. Returns those that it refuses and the agent can do
/// without, with the reason.
///
/// # Errors
/// What would keep the agent from starting.
pub fn load(max_peers: u32) -> Result<Vec<String>, KernelError> {
    let object = Object::load(max_peers, &KernelTypes::default())?;
    Ok(object.refused().iter().map(|(name, reason)| format!("{name}: {reason}")).collect())
}

/// Whether both programs of the tunnel can be attached in `mode`; otherwise why not. Tried on the loopback device of a network
/// namespace that goes with the attempt.
///
/// # Errors
/// When there is no such namespace to be had (it needs CAP_SYS_ADMIN), or the programs cannot be loaded.
pub fn attach(mode: AttachMode) -> Result<Result<(), String>, KernelError> {
    let attempt = std::thread::spawn(move || {
        // SAFETY: only this thread moves, and it shares no file descriptor table or memory map with itself alone:
        // NEWNET concerns neither.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(|error| KernelError::Namespace(error.into()))?;
        let mut object = Object::load(1, &KernelTypes::default())?;
        let mut hooks = Hooks::new(mode, TUNNEL, "");
        hooks.attach(&mut object, "lo");
        Ok(hooks.reason().map_or(Ok(()), Err))
    });
    attempt.join().unwrap_or_else(|_| Err(KernelError::Namespace(io::Error::other("the attempt panicked"))))
}

/// Why dropped packets cannot be counted here; `None` when they can. The program is attached for a moment.
///
/// # Errors
/// When the programs cannot be loaded at all.
pub fn drops() -> Result<Option<String>, KernelError> {
    let types = KernelTypes::of_this_kernel(true, false);
    let mut object = Object::load(1, &types)?;
    let mut netlink = Netlink::open(NETLINK_ROUTE)
        .map_err(|source| KernelError::Netlink { operation: "list the devices", source })?;
    let drops = Drops::open(&mut object, "", types.drops.as_ref(), &mut netlink)?;
    Ok(drops.reason().map(str::to_owned))
}

/// Why the kernel cannot take samples by itself; `None` when it can. It begins to for a moment.
///
/// # Errors
/// When the programs cannot be loaded at all.
pub fn sampling() -> Result<Option<String>, KernelError> {
    let types = KernelTypes::of_this_kernel(false, true);
    let mut object = Object::load(1, &types)?;
    let mut sampling = Sampling::open(&mut object, types.sampling.as_ref())?;
    if let Some(reason) = sampling.obstacle() {
        return Ok(Some(reason));
    }
    let outcome = sampling.watch(&mut object, &Targets::default()).and_then(|found| {
        let missing = missing(&found);
        if missing.is_none() {
            sampling.start(&mut object, 0, 1_000_000_000)?;
        }
        Ok(missing)
    });
    Ok(outcome.unwrap_or_else(|error| Some(chain(&error))))
}

/// As [`sampling`], without CAP_SYS_ADMIN: as a service that has no more than it needs.
///
/// # Errors
/// As [`sampling`].
pub fn sampling_as_service() -> Result<Option<String>, KernelError> {
    let attempt = std::thread::spawn(|| {
        // Of this thread alone.
        match caps::drop(None, CapSet::Effective, Capability::CAP_SYS_ADMIN) {
            Ok(()) => sampling(),
            Err(error) => Ok(Some(format!("not tried without CAP_SYS_ADMIN: {error}"))),
        }
    });
    attempt
        .join()
        .unwrap_or_else(|_| Ok(Some("not tried without CAP_SYS_ADMIN: the attempt panicked".to_owned())))
}

/// Index of the interface called `name`; `None` when there is none.
///
/// # Errors
/// When it is not a layer-3 device, or the kernel does not say.
pub fn interface(name: &str) -> Result<Option<u32>, KernelError> {
    let link = Netlink::open(NETLINK_ROUTE)
        .and_then(|mut netlink| device::find(&mut netlink, name))
        .map_err(|source| KernelError::Netlink { operation: "look for the device", source })?;
    match link {
        Some(link) if link.layer != LinkLayer::Layer3 => {
            Err(KernelError::NotLayer3 { interface: name.to_owned(), kind: link.layer.describe() })
        }
        link => Ok(link.map(|link| link.index)),
    }
}
