//! Sleeping without a worker.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Call, Flow, Result, SetTx,
    commit::Rest,
    exit::Exit,
    fault::Faults,
    fence::Fence,
    journal::{Kind, decode_one},
    payload::encode,
    rows::{Carried, RowResult, Rows, Stopped},
    silence,
};

const SLEEP: &str = "sleep";

impl Flow {
    /// Waits, holding no worker, until a signal of that name or the deadline; `None` is the deadline.
    /// A signal may have come before. Which of the two it was is journalled, once.
    pub async fn wait_for<T: DeserializeOwned>(&mut self, signal: &str, timeout: Duration) -> Result<Option<T>> {
        let until = self.work.now() + timeout;
        self.wait_until(signal, until).await
    }

    /// As [`Flow::wait_for`], until a moment on the engine's clock; past it only a signal that has come
    /// already is heard.
    pub async fn wait_until<T: DeserializeOwned>(&mut self, signal: &str, until: DateTime<Utc>) -> Result<Option<T>> {
        let Began { deadline, .. } = self.deadline(signal, until).await?;
        if let Some((heard, _)) = self.recall(Kind::Signal, signal).await {
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
        if let Some((heard, _)) = self.recall(Kind::Signal, signal).await {
            return Ok(heard);
        }
        self.safe_point().await?;
        let mut heard = self.hear(signal, deadline).await?;
        if heard.is_none() && !is_new {
            // It was woken to ask. Its row stays unlocked meanwhile: the signal may come.
            self.roll_back();
            if let Some(Some(answer)) = self.inquire(inquiry, at).await {
                let json = encode(signal, &answer).map_err(|failure| self.fail(failure))?;
                self.work.journal(Kind::Signal, signal, Some(json));
                return Ok(Some(answer));
            }
            heard = self.hear(signal, deadline).await?;
        }
        match heard {
            Some(heard) => self.understand(signal, heard).await,
            None => {
                let waited = (self.work.now() - at).to_std().unwrap_or_default();
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
        let until = self.work.now() + duration;
        self.sleep_until(name, until).await
    }

    /// As [`Flow::sleep`], until a moment on the engine's clock; one that has passed is not waited for.
    pub async fn sleep_until(&mut self, name: &'static str, until: DateTime<Utc>) -> Result<()> {
        let Began { deadline, .. } = self.deadline(name, until).await?;
        self.safe_point().await?;
        if self.cursor.unread() == 0 && self.work.now() < deadline {
            self.commit(Rest::Waiting { waiting_for: SLEEP.to_owned(), wake_at: deadline }).await?;
            self.leave(Exit::Resting).await
        }
        Ok(())
    }

    /// The deadline that was journalled, or else this one, journalled now.
    async fn deadline(&mut self, name: &str, deadline: DateTime<Utc>) -> Result<Began> {
        self.safe_point().await?;
        if let Some((deadline, entry)) = self.recall(Kind::Wait, name).await {
            return Ok(Began { deadline, at: entry.recorded_at, is_new: false });
        }
        self.work.journal(Kind::Wait, name, Some(serde_json::json!(deadline)));
        Ok(Began { deadline, at: self.work.now(), is_new: true })
    }

    /// Takes a signal that has come, or learns that the deadline has passed (null), or that there is
    /// something to wait for: then the run's row is locked, and stays so until it rests.
    ///
    /// A run's row is the last lock of a transaction: whoever talks to a run has taken what it is about
    /// before. So whenever it was locked here, it is let go of before the flow goes on to other locks.
    async fn hear(&mut self, signal: &str, deadline: DateTime<Utc>) -> Result<Option<serde_json::Value>> {
        let now = self.work.now();
        let hearing = Hearing { fence: self.work.fence(), signal: signal.to_owned() };
        let heard = match self.work.in_set(hearing).await {
            Ok(carried) => carried.output,
            Err(halt) => return self.halted(halt).await,
        };
        match heard {
            Heard::Refused => self.leave(Exit::Refused).await,
            Heard::AtOnce(payload) => {
                self.work.journal(Kind::Signal, signal, Some(payload.clone()));
                Ok(Some(payload))
            }
            Heard::Locked(payload) => {
                self.work.journal(Kind::Signal, signal, Some(payload.clone()));
                self.flush().await?;
                Ok(Some(payload))
            }
            Heard::Nothing if now >= deadline => {
                self.work.journal(Kind::Signal, signal, None);
                self.flush().await?;
                Ok(Some(serde_json::Value::Null))
            }
            Heard::Nothing => Ok(None),
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

/// What a run asks that waits.
struct Hearing {
    fence: Fence,
    signal: String,
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

/// What has come is taken without the runs' rows. Only of those for which nothing has, they are locked, as
/// senders do; then, in a statement (and so a snapshot) of its own, the signals again: whoever comes second
/// sees what the first did.
impl Rows for Hearing {
    const NAME: &'static str = "wait";
    type Output = Heard;

    fn has_written(heard: &Heard) -> bool {
        matches!(heard, Heard::AtOnce(_) | Heard::Locked(_))
    }

    async fn run(
        rows: Vec<Self>,
        tx: &mut SetTx<'_>,
        _: Option<&dyn Faults>,
    ) -> std::result::Result<Vec<RowResult<Heard>>, Stopped> {
        let now = tx.now();
        let heard = silence::heard(hear(tx.conn(), &rows, now))
            .await
            .map_err(|error| Stopped::by_any(Self::NAME, rows.len(), error.into()))?;
        Ok(heard.into_iter().map(|output| Ok(Carried { output, entries: Vec::new() })).collect())
    }
}

async fn hear(conn: &mut PgConnection, rows: &[Hearing], now: DateTime<Utc>) -> Result<Vec<Heard>, sqlx::Error> {
    let all: Vec<&Hearing> = rows.iter().collect();
    let mut at_once = take(conn, &all, now).await?;
    let unheard: Vec<&Hearing> = rows.iter().filter(|row| !at_once.contains_key(&row.fence.run_id)).collect();
    let (mut held, mut late) = (HashSet::new(), HashMap::new());
    if !unheard.is_empty() {
        held = hold(conn, &unheard).await?;
        late = take(conn, &unheard, now).await?;
    }
    let heard = |row: &Hearing| {
        let run_id = row.fence.run_id;
        if let Some(payload) = at_once.remove(&run_id) {
            return Heard::AtOnce(payload);
        }
        if !held.contains(&run_id) {
            row.fence.note_refusal();
            return Heard::Refused;
        }
        late.remove(&run_id).map_or(Heard::Nothing, Heard::Locked)
    };
    Ok(rows.iter().map(heard).collect())
}

/// Locks the rows of those runs that are still this worker's.
async fn hold(conn: &mut PgConnection, rows: &[&Hearing]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let (runs, tokens): (Vec<Uuid>, Vec<Uuid>) = rows.iter().map(|row| (row.fence.run_id, row.fence.token)).unzip();
    let held = sqlx::query_scalar!(
        "select r.id from engine.runs r join unnest($1::uuid[], $2::uuid[]) as u(id, token) on r.id = u.id
          where engine.holds(r.claim_token, u.token)
          order by r.id for update of r",
        &runs,
        &tokens
    )
    .fetch_all(conn)
    .await?;
    Ok(held.into_iter().collect())
}

/// Takes the first signal of each run's name that has come.
async fn take(
    conn: &mut PgConnection,
    rows: &[&Hearing],
    now: DateTime<Utc>,
) -> Result<HashMap<Uuid, serde_json::Value>, sqlx::Error> {
    let runs: Vec<Uuid> = rows.iter().map(|row| row.fence.run_id).collect();
    let signals: Vec<String> = rows.iter().map(|row| row.signal.clone()).collect();
    let taken = sqlx::query!(
        "update engine.signals s set consumed_at = $3
           from unnest($1::uuid[], $2::text[]) as u(run_id, name)
          where s.id = (select id from engine.signals
                         where run_id = u.run_id and name = u.name and consumed_at is null
                         order by id limit 1)
         returning s.run_id, s.payload",
        &runs,
        &signals,
        now,
    )
    .fetch_all(conn)
    .await?;
    Ok(taken.into_iter().map(|row| (row.run_id, row.payload)).collect())
}
