//! When a queue is polled.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use apalis::prelude::{PollSnapshot, PollStrategy};
use futures::task::AtomicWaker;
use tokio::time::{Instant, Sleep};

/// Between polls of a queue that had work a moment ago: what an accepted checkout waits at most. Once more for
/// every [`CROWD`] that are at work: a poll costs as much as a step of theirs, and finds more when it comes later.
const BUSY: Duration = Duration::from_millis(5);
const CROWD: u32 = 16;
/// Between polls of a crowded queue at most.
const SLOWEST: Duration = Duration::from_millis(100);
/// How long a queue counts as busy after its last ticket.
const COOLING: Duration = Duration::from_secs(2);
/// Between polls of a queue that had no work for a while. Should its bell stay silent, this is what a ticket waits.
const QUIET: Duration = Duration::from_secs(1);

/// Has a queue polled at once that is quiet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<Quiet>);

#[derive(Debug, Default)]
struct Quiet {
    is_so: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.waker.wake();
    }

    /// Whether its queue had no work for a while.
    pub(crate) fn is_of_quiet(&self) -> bool {
        self.0.is_so.load(Ordering::Relaxed)
    }
}

/// Polls often while there is work, and when there is none waits for the [`Bell`].
///
/// apalis' own interval strategy re-arms its timer without polling it, so the waker is lost and an
/// idle worker sleeps until its heartbeat. This one polls the fresh timer until it is pending.
#[derive(Debug)]
pub(crate) struct Pace<F> {
    sleep: Pin<Box<Sleep>>,
    at_work: F,
    bell: Bell,
}

impl<F: Fn() -> usize + Unpin> Pace<F> {
    /// `at_work` returns how many tickets are being answered.
    pub(crate) fn new(at_work: F, bell: Bell) -> Self {
        Pace { sleep: Box::pin(tokio::time::sleep(BUSY)), at_work, bell }
    }

    fn pause(&self, snapshot: &PollSnapshot) -> Duration {
        let is_quiet = snapshot.total_ready == 0 || snapshot.idle_for >= COOLING;
        self.bell.0.is_so.store(is_quiet, Ordering::Relaxed);
        if is_quiet {
            return QUIET;
        }
        let crowds = u32::try_from((self.at_work)()).unwrap_or(u32::MAX) / CROWD;
        BUSY.saturating_mul(crowds.saturating_add(1)).min(SLOWEST)
    }
}

impl<F: Fn() -> usize + Unpin> PollStrategy for Pace<F> {
    fn poll_drive(&mut self, cx: &mut Context<'_>, snapshot: &PollSnapshot) -> Poll<Option<()>> {
        // Whoever wakes this task has the queue polled.
        self.bell.0.waker.register(cx.waker());
        let pause = self.pause(snapshot);
        // It was set while the queue was quiet, and is no longer.
        if self.sleep.deadline() > Instant::now() + pause {
            self.sleep.as_mut().reset(Instant::now() + pause);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            self.sleep.as_mut().reset(Instant::now() + pause);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test]
    async fn the_second_ticket_of_a_queue_that_was_quiet_waits_no_longer_than_any() {
        let bell = Bell::default();
        let mut pace = Pace::new(|| 0, bell.clone());
        tokio::time::sleep(BUSY).await;
        let mut cx = Context::from_waker(Waker::noop());
        let _ = pace.poll_drive(&mut cx, &PollSnapshot::default());
        assert!(bell.is_of_quiet());
        assert!(pace.sleep.deadline() > Instant::now() + SLOWEST, "it waits for the bell");
        let _ = pace.poll_drive(&mut cx, &PollSnapshot { total_ready: 1, ..PollSnapshot::default() });
        assert!(!bell.is_of_quiet());
        assert!(pace.sleep.deadline() <= Instant::now() + BUSY, "nobody rings for it any more");
    }
}
