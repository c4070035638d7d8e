//! When a queue is polled.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use apalis::prelude::{PollSnapshot, PollStrategy};
use tokio::time::{Instant, Sleep};

/// Between polls of a queue that had work a moment ago: what an accepted checkout waits at most.
const BUSY: Duration = Duration::from_millis(5);
/// Between polls of a queue that had none for a while: keeps an idle worker under 1 % of a core.
const IDLE: Duration = Duration::from_millis(100);
/// How long a queue counts as busy after its last ticket.
const COOLING: Duration = Duration::from_secs(2);

/// Polls often while there is work, and rarely when there is none.
///
/// apalis' own interval strategy re-arms its timer without polling it, so the waker is lost and an
/// idle worker sleeps until its heartbeat. This one polls the fresh timer until it is pending.
#[derive(Debug)]
pub(crate) struct Pace {
    sleep: Pin<Box<Sleep>>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Pace { sleep: Box::pin(tokio::time::sleep(BUSY)) }
    }
}

impl PollStrategy for Pace {
    fn poll_drive(&mut self, cx: &mut Context<'_>, snapshot: &PollSnapshot) -> Poll<Option<()>> {
        let pause = if snapshot.total_ready > 0 && snapshot.idle_for < COOLING { BUSY } else { IDLE };
        while self.sleep.as_mut().poll(cx).is_ready() {
            self.sleep.as_mut().reset(Instant::now() + pause);
        }
        Poll::Pending
    }
}
