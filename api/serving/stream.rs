//! A connection's bytes, each kind in its time.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Sleep, sleep},
};

use crate::Limits;

/// What a connection is at: 0, 3, 6 … it waits for a request; 1, 4, 7 … a head is coming; 2, 5, 8 … a
/// request is served. It only grows, so that no time is taken for that of another request.
#[derive(Default)]
pub(crate) struct Pulse(AtomicU64);

const IDLE: u64 = 0;
const HEAD: u64 = 1;
const SERVING: u64 = 2;

impl Pulse {
    /// A head is complete.
    pub(crate) fn serving(&self) {
        self.advance_to(SERVING);
    }

    /// An answer is complete.
    pub(crate) fn answered(&self) {
        self.advance_to(IDLE);
    }

    // Only the connection's own task comes here.
    fn advance_to(&self, phase: u64) {
        let now = self.beat();
        self.0.store(now + (3 + phase - now % 3) % 3, Ordering::Relaxed);
    }

    fn beat(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A socket that fails when its client takes too long.
pub(crate) struct Stream {
    inner: TokioIo<TcpStream>,
    pulse: Arc<Pulse>,
    limits: Limits,
    /// Until when, and in which beat, a head must be complete.
    reading: Option<(u64, Pin<Box<Sleep>>)>,
    /// Until when all that is written must have been taken.
    writing: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(crate) fn new(stream: TcpStream, pulse: Arc<Pulse>, limits: Limits) -> Self {
        Stream { inner: TokioIo::new(stream), pulse, limits, reading: None, writing: None }
    }

    fn poll_written<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            let limit = self.limits.answer;
            ready!(self.writing.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, buf) {
            if self.pulse.beat() % 3 == IDLE {
                self.pulse.advance_to(HEAD);
            }
            return Poll::Ready(read);
        }
        let beat = self.pulse.beat();
        if beat % 3 != HEAD {
            // hyper ends what is idle, and what is served has limits of its own.
            return Poll::Pending;
        }
        let limit = self.limits.head;
        if self.reading.as_ref().is_none_or(|(of, _)| *of != beat) {
            self.reading = Some((beat, Box::pin(sleep(limit))));
        }
        match &mut self.reading {
            Some((_, deadline)) => {
                ready!(deadline.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            None => Poll::Pending,
        }
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.poll_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes once it has written everything: a client that trickles gains no time before that.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if flushed.is_ready() {
            self.writing = None;
        }
        self.poll_written(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_only_grows() {
        let pulse = Pulse::default();
        let mut beats = vec![pulse.beat()];
        for phase in [HEAD, SERVING, SERVING, IDLE, SERVING, IDLE, HEAD] {
            pulse.advance_to(phase);
            assert_eq!(pulse.beat() % 3, phase);
            beats.push(pulse.beat());
        }
        assert!(beats.is_sorted(), "{beats:?}");
    }
}
