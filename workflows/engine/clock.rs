//! The engine's clock.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgPool;

/// The engine's clock: real time, plus whatever development added.
pub async fn now(executor: impl sqlx::PgExecutor<'_>) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar!(r#"select engine.now() as "now!""#).fetch_one(executor).await
}

/// Moves the engine's clock, for development and tests.
pub async fn advance_clock(pool: &PgPool, by: Duration) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query!("update engine.clock set skew = skew + make_interval(secs => $1)", by.as_secs_f64())
        .execute(pool)
        .await?;
    now(pool).await
}

/// The engine's clock as read at the claim, carried on by a monotonic one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    read: DateTime<Utc>,
    at: Instant,
}

impl Clock {
    pub(crate) fn new(read: DateTime<Utc>) -> Self {
        Clock { read, at: Instant::now() }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.read + self.at.elapsed()
    }
}
