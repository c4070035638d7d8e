//! Sleeping without a worker.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Call, Flow, Result, RetryPolicy, StepError,
    commit::{Fence, Rest},
    flow::Open,
    group::decode_one,
    journal::Kind,
    payload::encode,
    silence,
    turn::Exit,
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
        if let Some(heard) = self.recall(Kind::Signal, signal).await {
            return Ok(heard);
        }
        self.safe_point().await?;
        match self.hear(signal, deadline).await? {
            Some(heard) => self.understand(signal, heard).await,
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
        if let Some(heard) = self.recall(Kind::Signal, signal).await {
            return Ok(heard);
        }
        self.safe_point().await?;
        let mut heard = self.hear(signal, deadline).await?;
        if heard.is_none() && !is_new {
            // It was woken to ask. Its row stays unlocked meanwhile: the signal may come.
            self.roll_back();
            if let Some(Some(answer)) = self.inquire(inquiry, at).await {
                let json = encode(signal, &answer).map_err(|failure| self.fail(failure))?;
                self.journal(Kind::Signal, signal, Some(json));
                return Ok(Some(answer));
            }
            heard = self.hear(signal, deadline).await?;
        }
        match heard {
            Some(heard) => self.understand(signal, heard).await,
            None => {
                let waited = (self.now() - at).to_std().unwrap_or_default();
                self.rest(signal, deadline.min(at + next(waited))).await
            }
        }
    }

    /// One that another program than this has sent parks the run until somebody can read it.
    async fn understand<T: DeserializeOwned>(&mut self, signal: &str, heard: serde_json::Value) -> Result<Option<T>> {
        let failure = match decode_one(signal, heard) {
            Ok(heard) => return Ok(heard),
            Err(failure) => failure,
        };
        self.leave(Exit::Stuck(failure)).await
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
        if self.replay.unread() == 0 && self.now() < deadline {
            self.commit(Rest::Waiting { waiting_for: SLEEP.to_owned(), wake_at: deadline }).await?;
            self.leave(Exit::Resting).await
        }
        Ok(())
    }

    /// The deadline that was journalled, or else this one, journalled now.
    async fn deadline(&mut self, name: &str, deadline: DateTime<Utc>) -> Result<Began> {
        self.safe_point().await?;
        if let Some(entry) = self.entry(0, Kind::Wait, name).await {
            let deadline = self.read(&entry).await;
            self.replay.met(1);
            return Ok(Began { deadline, at: entry.recorded_at, is_new: false });
        }
        self.journal(Kind::Wait, name, Some(serde_json::json!(deadline)));
        Ok(Began { deadline, at: self.now(), is_new: true })
    }

    /// Takes a signal that has come, or learns that the deadline has passed (null), or that there is
    /// something to wait for: then the run's row is locked, and stays so until it rests.
    ///
    /// A run's row is the last lock of a transaction: whoever talks to a run has taken what it is about
    /// before. So whenever it was locked here, it is let go of before the flow goes on to other locks.
    async fn hear(&mut self, signal: &str, deadline: DateTime<Utc>) -> Result<Option<serde_json::Value>> {
        self.open().await;
        let (fence, now) = (self.fence(), self.now());
        let heard = match self.tx.as_mut() {
            Some(Open { tx, .. }) => silence::heard(hear(tx, fence, signal, now)).await,
            None => Ok(Heard::Refused),
        };
        match heard {
            Ok(Heard::Refused) => self.leave(Exit::Refused).await,
            Ok(Heard::AtOnce(payload)) => {
                self.journal(Kind::Signal, signal, Some(payload.clone()));
                Ok(Some(payload))
            }
            Ok(Heard::Locked(payload)) => {
                self.journal(Kind::Signal, signal, Some(payload.clone()));
                self.flush().await?;
                Ok(Some(payload))
            }
            Ok(Heard::Nothing) if now >= deadline => {
                self.journal(Kind::Signal, signal, None);
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
    /// Another worker has the run.
    Refused,
}

/// What has come is taken without the run's row. Only if nothing has, it is locked, as senders do; then,
/// in a statement (and so a snapshot) of its own, the signals again: whoever comes second sees what the
/// first did.
async fn hear(conn: &mut PgConnection, fence: Fence, signal: &str, now: DateTime<Utc>) -> Result<Heard, sqlx::Error> {
    if let Some(payload) = take(conn, fence.run_id, signal, now).await? {
        return Ok(Heard::AtOnce(payload));
    }
    if !fence.hold(&mut *conn).await? {
        fence.note_refusal();
        return Ok(Heard::Refused);
    }
    Ok(take(conn, fence.run_id, signal, now).await?.map_or(Heard::Nothing, Heard::Locked))
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
