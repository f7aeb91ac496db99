//! Puts the programs on the device: by a tcx link where the kernel has it, else by a clsact filter.
//!
//! What works is found out by trying, since distributions carry tcx back and forth. Each hook stands alone: if
//! one cannot be attached, its reason is kept and the other counts on.

use aya::programs::links::LinkOrder;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc};

use super::object::Object;
use super::{AttachMode, filters};
use crate::model::kernel::{Hook, HookMode};

/// Both hooks of a device, receive first.
#[derive(Debug)]
pub(super) struct Hooks {
    mode: AttachMode,
    points: [Point; 2],
}

/// A program and its place.
#[derive(Debug)]
struct Point {
    program: &'static str,
    side: TcAttachType,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Detaches when dropped.
    Attached(HookMode, #[expect(dead_code, reason = "held for its drop")] SchedClassifierLink),
    /// With the reason.
    Detached(String),
}

impl Hooks {
    /// Hooks for two classifiers of the object, receive first, with the reason why they are not attached yet.
    pub(super) fn new(mode: AttachMode, [receive, transmit]: [&'static str; 2], reason: &str) -> Self {
        let point = |program, side| Point { program, side, state: State::Detached(reason.to_owned()) };
        Self { mode, points: [point(receive, TcAttachType::Ingress), point(transmit, TcAttachType::Egress)] }
    }

    /// Attaches what is not attached to `device`; returns which hooks now are.
    ///
    /// Attaching waits under the lock of all network configuration (RTNL) until no CPU uses the old list of
    /// programs, some 10 ms. A new device comes up under the same lock a little later, so both hooks queue for it at
    /// once: one after the other, the second might come too late for the first packets.
    pub(super) fn attach(&mut self, object: &mut Object, device: &str) -> [bool; 2] {
        let (mode, points) = (self.mode, &self.points);
        let refused = object.refused().to_vec();
        let names = [0, 1].map(|direction: usize| points[direction].program);
        let states = object.in_parallel(&names, |name, program| {
            let point = points.iter().find(|point| point.program == name)?;
            if matches!(point.state, State::Attached(..)) {
                return None;
            }
            let refusal = refused.iter().find(|(program, _)| *program == name);
            Some(match refusal {
                Some((_, reason)) => State::Detached(reason.clone()),
                None => attach(program, name, point.side, mode, device),
            })
        });
        for (name, state) in states {
            let (Some(state), Some(point)) =
                (state, self.points.iter_mut().find(|point| point.program == name))
            else {
                continue;
            };
            match &state {
                State::Attached(mode, _) => {
                    tracing::info!(device, hook = name, mode = mode.as_str(), "attached");
                }
                State::Detached(reason) => tracing::error!(device, hook = name, %reason, "cannot attach"),
            }
            point.state = state;
        }
        self.attached()
    }

    /// Detaches both hooks and keeps `reason`.
    pub(super) fn detach(&mut self, reason: &str) {
        for point in &mut self.points {
            point.state = State::Detached(reason.to_owned());
        }
    }

    /// Which hooks are attached, by direction.
    pub(super) fn attached(&self) -> [bool; 2] {
        [0, 1].map(|direction: usize| matches!(self.points[direction].state, State::Attached(..)))
    }

    /// Why a hook is not attached, if one is not.
    pub(super) fn reason(&self) -> Option<String> {
        self.points.iter().find_map(|point| match &point.state {
            State::Detached(reason) => Some(reason.clone()),
            State::Attached(..) => None,
        })
    }

    /// Describes both hooks in the model from place `first` of the list on, and returns the place after them; strings
    /// are replaced only when they differ.
    pub(super) fn describe(&self, device: &str, into: &mut Vec<Hook>, first: usize) -> usize {
        for (index, point) in (first..).zip(&self.points) {
            let (mode, reason) = match &point.state {
                State::Attached(mode, _) => (*mode, None),
                State::Detached(reason) => (HookMode::None, Some(reason.as_str())),
            };
            match into.get_mut(index) {
                Some(hook)
                    if hook.device == device
                        && hook.hook == point.program
                        && hook.mode == mode
                        && hook.reason.as_deref() == reason => {}
                Some(hook) => *hook = describe(device, point.program, mode, reason),
                None => into.push(describe(device, point.program, mode, reason)),
            }
        }
        first + self.points.len()
    }
}

fn describe(device: &str, hook: &'static str, mode: HookMode, reason: Option<&str>) -> Hook {
    Hook { device: device.to_owned(), hook, mode, reason: reason.map(str::to_owned) }
}

fn attach(
    program: &mut SchedClassifier,
    name: &'static str,
    side: TcAttachType,
    mode: AttachMode,
    device: &str,
) -> State {
    let mut reasons = Vec::new();
    if mode != AttachMode::Clsact {
        match attach_tcx(program, side, device) {
            Ok(link) => {
                remove_stale(device, side, name);
                return State::Attached(HookMode::Tcx, link);
            }
            Err(error) => reasons.push(format!("tcx: {}", chain(&error))),
        }
    }
    if mode != AttachMode::Tcx {
        remove_stale(device, side, name);
        match attach_clsact(program, side, device) {
            Ok(link) => return State::Attached(HookMode::Clsact, link),
            Err(error) => reasons.push(format!("clsact: {}", chain(&error))),
        }
    }
    State::Detached(reasons.join("; "))
}

/// A filter that an earlier agent could not take along when it was killed costs every packet, for nothing.
fn remove_stale(device: &str, side: TcAttachType, name: &'static str) {
    if let Err(error) = filters::remove_stale(device, side, name) {
        tracing::warn!(device, hook = name, %error, "cannot look for filters of an earlier agent");
    }
}

fn attach_tcx(
    program: &mut SchedClassifier,
    side: TcAttachType,
    device: &str,
) -> Result<SchedClassifierLink, ProgramError> {
    // First in line: we only look, and must see what others would drop or redirect.
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(device, side, options)?;
    program.take_link(id)
}

fn attach_clsact(
    program: &mut SchedClassifier,
    side: TcAttachType,
    device: &str,
) -> Result<SchedClassifierLink, ProgramError> {
    match tc::qdisc_add_clsact(device) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        result => result?,
    }
    let handle = TcHandle::from(std::process::id());
    let options = NlOptions { priority: filters::PRIORITY, handle, classid: None };
    let id = program.attach_with_options(device, side, TcAttachOptions::Netlink(options))?;
    program.take_link(id)
}

/// An error with all its causes in one line.
pub(in crate::sources) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
