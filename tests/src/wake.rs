//! Waiting for packets with a precise deadline, and being told to stop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Tells any number of threads to stop; cloned into each of them.
#[derive(Debug, Clone)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// Not stopped yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// From now on every wait returns at once.
    pub fn stop(&self) {
        // Nobody reads the counter, so it cannot overflow by one write, and a descriptor we own takes it.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Waits until `source` is readable or `timeout` is over.
    pub fn wait(&self, source: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<Wake> {
        let mut polled = [PollFd::new(&source, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
        wait(&mut polled, timeout)?;
        if !polled[1].revents().is_empty() {
            return Ok(Wake::Stopped);
        }
        Ok(if polled[0].revents().is_empty() { Wake::TimedOut } else { Wake::Ready })
    }

    /// Sleeps; true when told to stop.
    pub fn sleep(&self, time: Duration) -> bool {
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        wait(&mut polled, Some(time)).is_ok_and(|()| !polled[0].revents().is_empty())
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.sleep(Duration::ZERO)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// There is something to read, or the other side is gone.
    Ready,
    /// The time is over.
    TimedOut,
    /// Told to stop.
    Stopped,
}

fn wait(polled: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    match poll(polled, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Threads that run until told to; dropped, they are told and waited for.
#[derive(Debug)]
pub struct Threads {
    stop: Stop,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// None yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self { stop: Stop::new()?, handles: Vec::new() })
    }

    /// What its threads wait on.
    #[must_use]
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Starts `work`, which must end soon after `Stop` says so. The name shows in `top -H`.
    pub fn spawn(&mut self, name: &str, work: impl FnOnce(&Stop) + Send + 'static) -> io::Result<()> {
        let stop = self.stop.clone();
        self.handles.push(thread::Builder::new().name(name.to_owned()).spawn(move || work(&stop))?);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.stop();
        for handle in self.handles.drain(..) {
            if let Err(panic) = handle.join()
                && !thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Keeps every processor busy with work that gives way to anything else, until dropped.
///
/// A virtual machine's idle processor is halted, and woken 0.1 ms late: with some links in a row, that is more than the
/// delays that a test wants to tell apart.
#[derive(Debug)]
pub struct Awake {
    _threads: Threads,
}

impl Awake {
    /// From now on.
    ///
    /// # Errors
    /// There are no threads to be had.
    pub fn keep() -> io::Result<Self> {
        /// Rounds between two looks whether to stop: some microseconds.
        const ROUNDS: u32 = 10_000;
        let mut threads = Threads::new()?;
        for _ in 0..thread::available_parallelism()?.get() {
            threads.spawn("awake", |stop| {
                give_way();
                while !stop.is_stopped() {
                    // No pause instruction: hypervisors take it for waiting.
                    (0..ROUNDS).for_each(|round| {
                        std::hint::black_box(round);
                    });
                }
            })?;
        }
        Ok(Self { _threads: threads })
    }
}

/// Asks the kernel for timers exact to the microsecond and for the processor before ordinary threads, for this thread.
///
/// A link that is late because a compiler runs beside it would measure the compiler. Without permission nothing
/// changes but the accuracy.
pub fn be_precise() {
    // SAFETY: both calls concern the calling thread only and take plain integers and one local structure.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong);
        let priority = libc::sched_param { sched_priority: 1 };
        libc::sched_setscheduler(0, libc::SCHED_RR, &raw const priority);
    }
}

/// Gives this thread the processor somewhat sooner than ordinary ones, so that queues do not overflow because a
/// compiler runs beside the test. Without permission nothing changes.
pub fn be_prompt() {
    // SAFETY: takes plain integers; 0 is the calling thread on Linux.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, -10);
    }
}

/// Takes the processor only when nothing else wants it, in this thread.
fn give_way() {
    // SAFETY: concerns the calling thread only and takes plain integers and one local structure.
    unsafe {
        let priority = libc::sched_param { sched_priority: 0 };
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority);
    }
}
