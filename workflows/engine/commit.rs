//! The fenced commit: every write of a run names the token its claim drew, and the last journal entry it
//! knows of. Zero rows means that somebody else has claimed the run since, or that the database has lost
//! what this worker remembers: everything rolls back, the business writes included.
//!
//! What compares the tokens is one SQL function, `engine.holds`. A counter would not do: after a failover
//! or a restore that forgot a claim, the next one would count the same.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Failure, claim::Claimed, journal::Pending};

/// What the run's row says after this commit.
#[derive(Debug, Clone)]
pub(crate) enum Rest {
    /// The run goes on in this process.
    Onward { forward_only: bool },
    /// The run gives its worker back until a signal or the deadline.
    Waiting { waiting_for: String, wake_at: DateTime<Utc> },
    /// An attempt failed; the next is at `wake_at`.
    Retrying { attempt: i32, wake_at: DateTime<Utc>, failure: Option<Failure> },
    /// It unwinds from here on.
    Compensating { failure: Failure },
    /// An operator must look at it.
    Stuck { failure: Failure },
    /// Somebody else may go on at once.
    Released,
    /// Nobody here can carry it; somebody who can may come later.
    Unknown { wake_at: DateTime<Utc>, needs: String },
}

/// What every write of a run is fenced by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fence {
    pub(crate) run_id: Uuid,
    /// Drawn by the claim.
    pub(crate) token: Uuid,
    /// Entries its journal has, as far as this worker knows; 0 is not looked at.
    pub(crate) written: i32,
}

impl Fence {
    /// For a run whose journal has not been read yet.
    pub(crate) fn of(claimed: &Claimed) -> Self {
        Fence { run_id: claimed.id, token: claimed.token, written: 0 }
    }

    /// The same for giving the run back, which is right whatever its journal says.
    pub(crate) fn whatever_is_written(self) -> Self {
        Fence { written: 0, ..self }
    }

    /// Counts a write that came after somebody else had claimed the run.
    pub(crate) fn note_refusal(self) {
        metrics::counter!("cart_engine_refused_late_writes_total").increment(1);
        tracing::warn!(run = %self.run_id, "late write refused: the run is not what this worker knows of it");
    }

    /// Locks the run's row, if it is still this worker's.
    pub(crate) async fn hold(self, conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let held = sqlx::query_scalar!(
            "select id from engine.runs where id = $1 and engine.holds(claim_token, $2) for update",
            self.run_id,
            self.token
        )
        .fetch_optional(conn)
        .await?;
        Ok(held.is_some())
    }
}

/// What a fenced write found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fenced {
    /// It is written; `cancel` is who asked the run to stop, if anybody.
    Written { cancel: Option<String> },
    /// Another claim, or another journal: roll back.
    Refused,
}

struct Columns {
    seq: Vec<i32>,
    kind: Vec<String>,
    name: Vec<String>,
    output: Vec<Option<serde_json::Value>>,
    error: Vec<Option<serde_json::Value>>,
}

fn columns(entries: &[Pending]) -> Columns {
    Columns {
        seq: entries.iter().map(|e| e.seq).collect(),
        kind: entries.iter().map(|e| e.kind.as_str().to_owned()).collect(),
        name: entries.iter().map(|e| e.name.clone()).collect(),
        output: entries.iter().map(|e| e.output.clone()).collect(),
        error: entries.iter().map(|e| e.error.clone()).collect(),
    }
}

/// Journals `entries` and moves the run's row, in one statement.
pub(crate) async fn rest(
    conn: &mut PgConnection,
    fence: Fence,
    entries: &[Pending],
    rest: &Rest,
    now: DateTime<Utc>,
) -> Result<Fenced, sqlx::Error> {
    let Columns { seq, kind, name, output, error } = columns(entries);
    let mut forward = false;
    let (status, keeps_owner, wake_at, waiting_for, attempt, failure) = match rest {
        Rest::Onward { forward_only } => {
            forward = *forward_only;
            (None, true, None, None, Some(0), None)
        }
        Rest::Waiting { waiting_for, wake_at } => {
            (Some("WAITING"), false, Some(*wake_at), Some(waiting_for.as_str()), Some(0), None)
        }
        Rest::Retrying { attempt, wake_at, failure } => {
            let status = if failure.is_some() { "COMPENSATING" } else { "RETRYING" };
            (Some(status), false, Some(*wake_at), None, Some(*attempt), failure.as_ref())
        }
        Rest::Compensating { failure } => (Some("COMPENSATING"), true, None, None, Some(0), Some(failure)),
        Rest::Stuck { failure } => (Some("STUCK"), false, None, None, Some(0), Some(failure)),
        Rest::Released => (Some("PENDING"), false, Some(now), None, Some(0), None),
        Rest::Unknown { wake_at, needs } => (Some("RETRYING"), false, Some(*wake_at), Some(needs.as_str()), None, None),
    };
    let failure = failure.map(Failure::to_json);
    let row = sqlx::query!(
        r#"
        with fence as (
            update engine.runs
               set status = case when status = 'COMPENSATING' and $3 in ('PENDING', 'RETRYING') then status
                                 else coalesce($3, status) end,
                   owner = case when $4 then owner end,
                   wake_at = case when $3 = 'STUCK' then 'infinity' else coalesce($5, wake_at) end,
                   waiting_for = $6, attempt = coalesce($7, attempt),
                   crashes = case when $4 then 0 else crashes end,
                   forward_only = forward_only or $8,
                   failure = coalesce($9, failure), updated_at = $10
             where id = $1 and engine.holds(claim_token, $2)
               and ($16 = 0 or exists (select from engine.journal j where j.run_id = $1 and j.seq = $16 - 1))
            returning epoch, cancel_requested),
        entries as (
            insert into engine.journal (run_id, seq, kind, name, output, error, epoch, recorded_at)
            select $1, e.seq, e.kind, e.name, e.output, e.error, f.epoch, $10
              from fence f,
                   unnest($11::int[], $12::text[], $13::text[], $14::jsonb[], $15::jsonb[])
                   as e(seq, kind, name, output, error))
        select cancel_requested from fence
        "#,
        fence.run_id,
        fence.token,
        status,
        keeps_owner,
        wake_at,
        waiting_for,
        attempt,
        forward,
        failure,
        now,
        &seq,
        &kind,
        &name,
        &output as &[Option<serde_json::Value>],
        &error as &[Option<serde_json::Value>],
        fence.written,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map_or(Fenced::Refused, |row| Fenced::Written { cancel: row.cancel_requested }))
}

/// Journals `entries` and moves the run to where finished runs are kept, in one statement.
pub(crate) async fn finish(
    conn: &mut PgConnection,
    fence: Fence,
    entries: &[Pending],
    status: &str,
    output: Option<&serde_json::Value>,
    failure: Option<&Failure>,
    now: DateTime<Utc>,
) -> Result<Fenced, sqlx::Error> {
    let Columns { seq, kind, name, output: outputs, error } = columns(entries);
    let failure = failure.map(Failure::to_json);
    let row = sqlx::query!(
        r#"
        with fence as (
            delete from engine.runs
             where id = $1 and engine.holds(claim_token, $2)
               and ($12 = 0 or exists (select from engine.journal j where j.run_id = $1 and j.seq = $12 - 1))
            returning *),
        entries as (
            insert into engine.journal (run_id, seq, kind, name, output, error, epoch, recorded_at)
            select $1, e.seq, e.kind, e.name, e.output, e.error, f.epoch, $6
              from fence f,
                   unnest($7::int[], $8::text[], $9::text[], $10::jsonb[], $11::jsonb[])
                   as e(seq, kind, name, output, error)),
        kept as (
            insert into engine.finished_runs (id, workflow, version, run_key, queue, parent_id, status, input,
                                              output, failure, epoch, crashes, created_at, finished_at)
            select id, workflow, version, run_key, queue, parent_id, $3, input, $4, $5, epoch, crashes, created_at, $6
              from fence),
        heard as (
            delete from engine.signals where run_id = (select id from fence))
        select cancel_requested from fence
        "#,
        fence.run_id,
        fence.token,
        status,
        output,
        failure,
        now,
        &seq,
        &kind,
        &name,
        &outputs as &[Option<serde_json::Value>],
        &error as &[Option<serde_json::Value>],
        fence.written,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map_or(Fenced::Refused, |row| Fenced::Written { cancel: row.cancel_requested }))
}
