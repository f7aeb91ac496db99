//! The body of an answer, which knows when it was handed over.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::connection::State;

/// One block of bytes.
#[derive(Debug)]
pub(super) struct Payload {
    bytes: Bytes,
    connection: Rc<State>,
}

impl Payload {
    pub(super) fn new(bytes: Bytes, connection: Rc<State>) -> Self {
        Self { bytes, connection }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.connection.body_handed_over();
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}
