//! Sleeping without a worker.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Flow, Result, StepError, commit::Rest, group::decode_one, journal::Kind, retry::RetryPolicy, turn::Exit};

const SLEEP: &str = "sleep";

impl Flow {
    /// Waits, holding no worker, until a signal of that name or the deadline; `None` is the deadline.
    /// A signal may have come before. Which of the two it was is journalled, once.
    pub async fn wait_for<T: DeserializeOwned>(&mut self, signal: &str, timeout: Duration) -> Result<Option<T>> {
        let until = self.now() + timeout;
        self.wait_until(signal, until).await
    }

    /// As [`Flow::wait_for`], until a moment on the engine's clock; past it only a signal that has come
    /// already is heard.
    pub async fn wait_until<T: DeserializeOwned>(&mut self, signal: &str, until: DateTime<Utc>) -> Result<Option<T>> {
        let deadline = self.deadline(signal, until).await?;
        if let Some(entry) = self.next_entry(Kind::Signal, signal).await? {
            return decode_one(signal, entry.output.unwrap_or_default());
        }
        self.safe_point().await?;
        let heard = self.hear(signal, deadline).await?;
        decode_one(signal, heard.unwrap_or_default())
    }

    /// Sleeps, holding no worker. The wake-up time is journalled: a crash does not start it anew.
    pub async fn sleep(&mut self, name: &'static str, duration: Duration) -> Result<()> {
        let until = self.now() + duration;
        self.sleep_until(name, until).await
    }

    /// As [`Flow::sleep`], until a moment on the engine's clock; one that has passed is not waited for.
    pub async fn sleep_until(&mut self, name: &'static str, until: DateTime<Utc>) -> Result<()> {
        let deadline = self.deadline(name, until).await?;
        self.safe_point().await?;
        if self.replay.entries.is_empty() && self.now() < deadline {
            self.commit(Rest::Waiting { waiting_for: SLEEP.to_owned(), wake_at: deadline }).await?;
            self.leave(Exit::Resting).await
        }
        Ok(())
    }

    /// The deadline that was journalled, or else this one, journalled now.
    async fn deadline(&mut self, name: &str, deadline: DateTime<Utc>) -> Result<DateTime<Utc>> {
        self.safe_point().await?;
        if let Some(entry) = self.next_entry(Kind::Wait, name).await? {
            return decode_one(name, entry.output.unwrap_or_default());
        }
        self.journal(Kind::Wait, name, Some(serde_json::json!(deadline))).await?;
        Ok(deadline)
    }

    /// Takes a signal that has come, or goes to sleep, or learns that the deadline has passed.
    ///
    /// A run's row is the last lock of a transaction: whoever talks to a run has taken what it is about
    /// before. So whenever it was locked here, it is let go of before the flow goes on to other locks.
    async fn hear(&mut self, signal: &str, deadline: DateTime<Utc>) -> Result<Option<serde_json::Value>> {
        self.open().await;
        let (run_id, epoch, now) = (self.run.id, self.run.epoch, self.now());
        let heard = match self.tx.as_mut() {
            Some(tx) => hear(tx, run_id, epoch, signal, now).await,
            None => Ok(Heard::Nothing),
        };
        match heard {
            Ok(Heard::AtOnce(payload)) => {
                self.journal(Kind::Signal, signal, Some(payload.clone())).await?;
                Ok(Some(payload))
            }
            Ok(Heard::Locked(payload)) => {
                self.journal(Kind::Signal, signal, Some(payload.clone())).await?;
                self.flush().await?;
                Ok(Some(payload))
            }
            Ok(Heard::Nothing) if now >= deadline => {
                self.journal(Kind::Signal, signal, None).await?;
                self.flush().await?;
                Ok(None)
            }
            Ok(Heard::Nothing) => {
                self.commit(Rest::Waiting { waiting_for: signal.to_owned(), wake_at: deadline }).await?;
                self.leave(Exit::Resting).await
            }
            Err(error) => self.step_failed("wait", StepError::from(error), &RetryPolicy::default()).await,
        }
    }
}

enum Heard {
    /// It had come, and nothing but the signal is locked.
    AtOnce(serde_json::Value),
    /// It came while the run's row was being locked.
    Locked(serde_json::Value),
    /// Nothing has come, and nothing can while the run's row is locked.
    Nothing,
}

/// What has come is taken without the run's row. Only if nothing has, it is locked, as senders do; then,
/// in a statement (and so a snapshot) of its own, the signals again: whoever comes second sees what the
/// first did.
async fn hear(
    conn: &mut PgConnection,
    run_id: Uuid,
    epoch: i32,
    signal: &str,
    now: DateTime<Utc>,
) -> Result<Heard, sqlx::Error> {
    if let Some(payload) = take(conn, run_id, signal, now).await? {
        return Ok(Heard::AtOnce(payload));
    }
    sqlx::query!("select id from engine.runs where id = $1 and epoch = $2 for update", run_id, epoch)
        .fetch_optional(&mut *conn)
        .await?;
    Ok(take(conn, run_id, signal, now).await?.map_or(Heard::Nothing, Heard::Locked))
}

async fn take(
    conn: &mut PgConnection,
    run_id: Uuid,
    signal: &str,
    now: DateTime<Utc>,
) -> Result<Option<serde_json::Value>, sqlx::Error> {
    sqlx::query_scalar!(
        "update engine.signals set consumed_at = $3
          where id = (select id from engine.signals
                       where run_id = $1 and name = $2 and consumed_at is null
                       order by id limit 1)
         returning payload",
        run_id,
        signal,
        now,
    )
    .fetch_optional(conn)
    .await
}
