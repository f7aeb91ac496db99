//! Ctrl-C and SIGTERM as something to wait for, so that everything made can be removed by its guards.

use std::io;
use std::ptr;
use std::time::Duration;

/// The signals that end a program, held back since this was made.
#[derive(Debug)]
pub struct Termination {
    set: libc::sigset_t,
}

impl Termination {
    /// Holds SIGINT, SIGTERM and SIGHUP back in this thread and in every one that it starts from now on.
    ///
    /// Programs started by `std::process::Command` get them as usual: it empties the mask of its children.
    pub fn hold_back() -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before anything reads it, and lives on this stack.
        let (outcome, set) = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::sigaddset(&raw mut set, signal);
            }
            (libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()), set)
        };
        if outcome == 0 { Ok(Self { set }) } else { Err(io::Error::from_raw_os_error(outcome)) }
    }

    /// Waits for one of them; false when none came in time.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let limit = libc::timespec {
            tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(time.subsec_nanos()),
        };
        // SAFETY: set and time limit outlive the call; no details of the signal are asked for.
        unsafe { libc::sigtimedwait(&raw const self.set, ptr::null_mut(), &raw const limit) > 0 }
    }
}
