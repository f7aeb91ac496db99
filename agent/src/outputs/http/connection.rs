//! Phases of a connection and their deadlines.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Limits;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The head of a request.
    Head,
    /// The client, to take the answer.
    Answer,
    /// The next request.
    Idle,
}

/// State that the socket, the body and the server share.
#[derive(Debug)]
pub(super) struct State {
    limits: Limits,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    body_handed_over: Cell<bool>,
    permit: RefCell<Option<Permit>>,
    settled: Rc<Notify>,
}

impl State {
    /// A connection that is waiting for its first request; `settled` is told when an answer is taken.
    pub(super) fn new(limits: Limits, settled: Rc<Notify>) -> Self {
        Self {
            limits,
            phase: Cell::new(Phase::Head),
            since: Cell::new(Instant::now()),
            body_handed_over: Cell::new(false),
            permit: RefCell::new(None),
            settled,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Begin of the phase.
    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    fn deadline(&self) -> Instant {
        let allowed = match self.phase.get() {
            Phase::Head => self.limits.head,
            Phase::Answer => self.limits.answer,
            Phase::Idle => self.limits.idle,
        };
        self.since.get() + allowed
    }

    /// A request is complete.
    pub(super) fn answering(&self) {
        self.body_handed_over.set(false);
        self.enter(Phase::Answer);
    }

    /// Keeps `permit` until the answer is taken.
    pub(super) fn hold(&self, permit: Permit) {
        self.permit.replace(Some(permit));
    }

    /// hyper took the whole body into its queue.
    pub(super) fn body_handed_over(&self) {
        self.body_handed_over.set(true);
    }

    /// hyper's queue is empty: the kernel has everything.
    fn flushed(&self) {
        if self.phase.get() == Phase::Answer && self.body_handed_over.get() {
            self.permit.take();
            self.enter(Phase::Idle);
            self.settled.notify_one();
        }
    }

    fn received(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }
}

/// One of a limited number of places; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit(Rc<Cell<usize>>);

impl Permit {
    /// A place, unless `limit` are `taken`.
    pub(super) fn take(taken: &Rc<Cell<usize>>, limit: usize) -> Option<Self> {
        (taken.get() < limit).then(|| {
            taken.set(taken.get() + 1);
            Self(Rc::clone(taken))
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Runs a connection until it ends or its phase outlasts its deadline; returns the phase it hung in.
pub(super) async fn watch<E>(
    serve: impl Future<Output = Result<(), E>>,
    state: &State,
) -> Result<Result<(), E>, Phase> {
    let mut serve = pin!(serve);
    let mut timer = pin!(sleep_until(state.deadline()));
    poll_fn(|context| {
        if let Poll::Ready(result) = serve.as_mut().poll(context) {
            return Poll::Ready(Ok(result));
        }
        if timer.deadline() != state.deadline() {
            timer.as_mut().reset(state.deadline());
        }
        timer.as_mut().poll(context).map(|()| Err(state.phase()))
    })
    .await
}

/// A socket that tells the state what happens on it.
#[derive(Debug)]
pub(super) struct Observed {
    stream: TcpStream,
    state: Rc<State>,
}

impl Observed {
    pub(super) fn new(stream: TcpStream, state: Rc<State>) -> Self {
        Self { stream, state }
    }
}

impl Drop for Observed {
    /// An answer that was not taken is not worth the kernel's memory: reset instead of sending the rest to a
    /// client that does not read. Failing only means that it is sent.
    fn drop(&mut self) {
        if self.state.phase() == Phase::Answer {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.state.received();
        }
        result
    }
}

impl AsyncWrite for Observed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called by hyper only when its own queue is empty.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.flushed();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
