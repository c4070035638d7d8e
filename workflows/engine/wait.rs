//! Sleeping without a worker.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Call, Flow, Result, StepError, commit::Rest, group::decode_one, journal::Kind, retry::RetryPolicy, silence,
    step::encode, turn::Exit,
};

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
        let Began { deadline, .. } = self.deadline(signal, until).await?;
        if let Some(entry) = self.next_entry(Kind::Signal, signal).await? {
            return decode_one(signal, entry.output.unwrap_or_default());
        }
        self.safe_point().await?;
        match self.hear(signal, deadline).await? {
            Some(heard) => decode_one(signal, heard),
            None => self.rest(signal, deadline).await,
        }
    }

    /// As [`Flow::wait_until`], but whoever should send the signal is also asked from time to time: a
    /// signal that was lost costs as long as it takes to ask. `next` says, of the time waited so far, at
    /// which time to ask next. What is asked must change nothing: of all the asking only an answer is
    /// journalled, as the signal it stands for.
    pub async fn wait_until_asking<T, C>(
        &mut self,
        signal: &str,
        until: DateTime<Utc>,
        inquiry: &C,
        next: fn(Duration) -> Duration,
    ) -> Result<Option<T>>
    where
        T: Serialize + DeserializeOwned,
        C: Call<Output = Option<T>>,
    {
        let Began { deadline, at, is_new } = self.deadline(signal, until).await?;
        if let Some(entry) = self.next_entry(Kind::Signal, signal).await? {
            return decode_one(signal, entry.output.unwrap_or_default());
        }
        self.safe_point().await?;
        let mut heard = self.hear(signal, deadline).await?;
        if heard.is_none() && !is_new {
            // It was woken to ask. Its row stays unlocked meanwhile: the signal may come.
            self.roll_back();
            if let Some(Some(answer)) = self.inquire(inquiry, at).await {
                let json = encode(signal, &answer).map_err(|failure| self.fail(failure))?;
                self.journal(Kind::Signal, signal, Some(json)).await?;
                return Ok(Some(answer));
            }
            heard = self.hear(signal, deadline).await?;
        }
        match heard {
            Some(heard) => decode_one(signal, heard),
            None => {
                let waited = (self.now() - at).to_std().unwrap_or_default();
                self.rest(signal, deadline.min(at + next(waited))).await
            }
        }
    }

    /// Sleeps, holding no worker. The wake-up time is journalled: a crash does not start it anew.
    pub async fn sleep(&mut self, name: &'static str, duration: Duration) -> Result<()> {
        let until = self.now() + duration;
        self.sleep_until(name, until).await
    }

    /// As [`Flow::sleep`], until a moment on the engine's clock; one that has passed is not waited for.
    pub async fn sleep_until(&mut self, name: &'static str, until: DateTime<Utc>) -> Result<()> {
        let Began { deadline, .. } = self.deadline(name, until).await?;
        self.safe_point().await?;
        if self.replay.entries.is_empty() && self.now() < deadline {
            self.commit(Rest::Waiting { waiting_for: SLEEP.to_owned(), wake_at: deadline }).await?;
            self.leave(Exit::Resting).await
        }
        Ok(())
    }

    /// The deadline that was journalled, or else this one, journalled now.
    async fn deadline(&mut self, name: &str, deadline: DateTime<Utc>) -> Result<Began> {
        self.safe_point().await?;
        if let Some(entry) = self.next_entry(Kind::Wait, name).await? {
            let deadline = decode_one(name, entry.output.unwrap_or_default())?;
            return Ok(Began { deadline, at: entry.recorded_at, is_new: false });
        }
        self.journal(Kind::Wait, name, Some(serde_json::json!(deadline))).await?;
        Ok(Began { deadline, at: self.now(), is_new: true })
    }

    /// Takes a signal that has come, or learns that the deadline has passed (null), or that there is
    /// something to wait for: then the run's row is locked, and stays so until it rests.
    ///
    /// A run's row is the last lock of a transaction: whoever talks to a run has taken what it is about
    /// before. So whenever it was locked here, it is let go of before the flow goes on to other locks.
    async fn hear(&mut self, signal: &str, deadline: DateTime<Utc>) -> Result<Option<serde_json::Value>> {
        self.open().await;
        let (run_id, epoch, now) = (self.run.id, self.run.epoch, self.now());
        let heard = match self.tx.as_mut() {
            Some(tx) => silence::heard(hear(tx, run_id, epoch, signal, now)).await,
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
                Ok(Some(serde_json::Value::Null))
            }
            Ok(Heard::Nothing) => Ok(None),
            Err(error) => self.step_failed("wait", StepError::from(error), &RetryPolicy::default()).await,
        }
    }

    /// Goes off its worker until the signal comes, or until then.
    async fn rest<T>(&mut self, signal: &str, wake_at: DateTime<Utc>) -> Result<T> {
        self.commit(Rest::Waiting { waiting_for: signal.to_owned(), wake_at }).await?;
        self.leave(Exit::Resting).await
    }
}

/// A wait as it is journalled.
struct Began {
    deadline: DateTime<Utc>,
    at: DateTime<Utc>,
    /// In this turn: nothing has slept yet.
    is_new: bool,
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
