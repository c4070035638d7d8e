//! A request's body on its way in, and an answer's on its way out.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::stream::Pulse;

/// A body was not complete in its time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body took too long")]
pub struct TooSlow;

/// A body that fails with [`TooSlow`] when it takes too long as a whole, however steadily it trickles.
pub(crate) struct Arriving {
    body: Incoming,
    deadline: Pin<Box<Sleep>>,
}

impl Arriving {
    pub(crate) fn new(body: Incoming, limit: Duration) -> Self {
        Arriving { body, deadline: Box::pin(sleep(limit)) }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => self.deadline.as_mut().poll(cx).map(|()| Some(Err(TooSlow.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. Once hyper lets go of it the connection waits for the next request.
pub(crate) struct Answer {
    body: axum::body::Body,
    pulse: Arc<Pulse>,
}

impl Answer {
    pub(crate) fn new(body: axum::body::Body, pulse: Arc<Pulse>) -> Self {
        Answer { body, pulse }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.pulse.answered();
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
