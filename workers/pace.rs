//! When a queue is polled.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use apalis::prelude::{PollSnapshot, PollStrategy};
use tokio::time::{Instant, Sleep};

/// Between polls of a queue that had work a moment ago: what an accepted checkout waits at most. Once more for
/// every [`CROWD`] that are at work: a poll costs as much as a step of theirs, and finds more when it comes later.
const BUSY: Duration = Duration::from_millis(5);
const CROWD: u32 = 16;
/// Between polls of a queue that had none for a while: keeps an idle worker under 1 % of a core.
const IDLE: Duration = Duration::from_millis(100);
/// How long a queue counts as busy after its last ticket.
const COOLING: Duration = Duration::from_secs(2);

/// Polls often while there is work, and rarely when there is none.
///
/// apalis' own interval strategy re-arms its timer without polling it, so the waker is lost and an
/// idle worker sleeps until its heartbeat. This one polls the fresh timer until it is pending.
#[derive(Debug)]
pub(crate) struct Pace<F> {
    sleep: Pin<Box<Sleep>>,
    at_work: F,
}

impl<F: Fn() -> usize + Unpin> Pace<F> {
    /// `at_work` returns how many tickets are being answered.
    pub(crate) fn new(at_work: F) -> Self {
        Pace { sleep: Box::pin(tokio::time::sleep(BUSY)), at_work }
    }

    fn pause(&self, snapshot: &PollSnapshot) -> Duration {
        if snapshot.total_ready == 0 || snapshot.idle_for >= COOLING {
            return IDLE;
        }
        let crowds = u32::try_from((self.at_work)()).unwrap_or(u32::MAX) / CROWD;
        BUSY.saturating_mul(crowds.saturating_add(1)).min(IDLE)
    }
}

impl<F: Fn() -> usize + Unpin> PollStrategy for Pace<F> {
    fn poll_drive(&mut self, cx: &mut Context<'_>, snapshot: &PollSnapshot) -> Poll<Option<()>> {
        let pause = self.pause(snapshot);
        while self.sleep.as_mut().poll(cx).is_ready() {
            self.sleep.as_mut().reset(Instant::now() + pause);
        }
        Poll::Pending
    }
}
