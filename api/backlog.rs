//! New checkouts are refused while too many wait already: what has been promised comes first. Webhooks,
//! cancellations and everything else go on.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use engine::{Workflow as _, inspect::backlog};
use sqlx::PgConnection;
use workflows::checkout::Checkout;

use crate::error::ApiError;

/// How long a count is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// When whoever was refused may come again.
const RETRY_AFTER_S: u64 = 5;

/// How many checkouts waited when that was last asked.
#[derive(Debug, Default)]
pub(crate) struct Backlog(Mutex<(Option<Instant>, i64)>);

impl Backlog {
    /// Lets a new checkout in while fewer than `most` wait.
    ///
    /// # Errors
    /// 503 `backlog-full`, or the database's own.
    pub(crate) async fn admit(&self, conn: &mut PgConnection, most: i64) -> Result<(), ApiError> {
        let waiting = match self.believed() {
            Some(waiting) => waiting,
            None => {
                let waiting = backlog(conn, &[Checkout::QUEUE]).await?.iter().map(|queue| queue.ready).sum();
                self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = waiting;
                waiting
            }
        };
        if waiting < most {
            return Ok(());
        }
        metrics::counter!("cart_engine_checkouts_shed_total").increment(1);
        let detail = "Too many checkouts are waiting; nothing was done. Try again in a moment.";
        Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "backlog-full", detail).retry_after(RETRY_AFTER_S))
    }

    /// The last count while it is fresh, or while somebody else is counting.
    fn believed(&self) -> Option<i64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0.is_some_and(|at| at.elapsed() < BELIEVED) {
            return Some(counted.1);
        }
        counted.0 = Some(Instant::now());
        None
    }
}
