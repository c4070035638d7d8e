//! Looking at runs: for operators, and for those who wait for one.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::RunStatus;
pub use crate::{
    backlog::{Backlog, COUNTED, backlog},
    rehearse::{Rehearsed, rehearse},
};

/// A run as it stands, live or finished.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its id.
    pub id: Uuid,
    /// Family, e.g. `checkout`.
    pub workflow: String,
    /// Version of the family.
    pub version: i32,
    /// Business key.
    pub run_key: String,
    /// Where it stands.
    pub status: RunStatus,
    /// What it was started with.
    pub input: serde_json::Value,
    /// What it returned.
    pub output: Option<serde_json::Value>,
    /// Why it unwound or was parked.
    pub failure: Option<serde_json::Value>,
    /// Signal it waits for.
    pub waiting_for: Option<String>,
    /// Next wake-up of a live run.
    pub wake_at: Option<DateTime<Utc>>,
    /// Times it was claimed.
    pub epoch: i32,
    /// Owners that died holding it.
    pub crashes: i32,
    /// When it was started.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// One journal entry.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// Position.
    pub seq: i32,
    /// What it records.
    pub kind: String,
    /// The step.
    pub name: String,
    /// What the step returned.
    pub output: Option<serde_json::Value>,
    /// How an attempt failed.
    pub error: Option<serde_json::Value>,
    /// The claim it was written under.
    pub epoch: i32,
    /// When.
    pub recorded_at: DateTime<Utc>,
}

/// One run by id.
pub async fn run(pool: &PgPool, run_id: Uuid) -> Result<Option<Run>, sqlx::Error> {
    sqlx::query_as!(
        Run,
        r#"
        select id as "id!", workflow as "workflow!", version as "version!", run_key as "run_key!",
               status as "status!: RunStatus", input as "input!", null::jsonb as output, failure, waiting_for,
               nullif(wake_at, 'infinity') as wake_at, epoch as "epoch!", crashes as "crashes!",
               created_at as "created_at!", null::timestamptz as finished_at
          from engine.runs where id = $1
        union all
        select id, workflow, version, run_key, status, input, output, failure, null, null, epoch, crashes,
               created_at, finished_at
          from engine.finished_runs where id = $1
        limit 1
        "#,
        run_id
    )
    .fetch_optional(pool)
    .await
}

/// Which runs are looked for; by default all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sought<'a> {
    /// Of this family only.
    pub workflow: Option<&'a str>,
    /// Of this status only.
    pub status: Option<RunStatus>,
    /// Started at this moment of real time or later.
    pub since: Option<DateTime<Utc>>,
    /// Started before this moment of real time.
    pub until: Option<DateTime<Utc>>,
}

/// Runs, newest first; `status` and `workflow` narrow the list.
pub async fn runs(
    pool: &PgPool,
    workflow: Option<&str>,
    status: Option<RunStatus>,
    limit: i64,
) -> Result<Vec<Run>, sqlx::Error> {
    search(pool, Sought { workflow, status, ..Sought::default() }, limit).await
}

/// A statement for each set of filters: one that fits all (`$1 is null or …`) is planned for none.
macro_rules! listed {
    (live where $filter:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            Run,
            "select id, workflow, version, run_key, status as \"status: RunStatus\", input, null::jsonb as output, failure, waiting_for,
                    nullif(wake_at, 'infinity') as wake_at, epoch, crashes, created_at, null::timestamptz as finished_at
               from engine.runs where id >= $1 and id < $2 " + $filter + " order by id desc limit $3",
            $($argument),+
        )
    };
    (finished where $filter:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            Run,
            "select id, workflow, version, run_key, status as \"status: RunStatus\", input, output, failure, null::text as waiting_for,
                    null::timestamptz as wake_at, epoch, crashes, created_at, finished_at as \"finished_at?\"
               from engine.finished_runs where id >= $1 and id < $2 " + $filter + " order by id desc limit $3",
            $($argument),+
        )
    };
}

/// The newest `limit` runs of those sought. How many there are is not counted: that would read them all.
pub async fn search(pool: &PgPool, sought: Sought<'_>, limit: i64) -> Result<Vec<Run>, sqlx::Error> {
    let Sought { workflow, status, .. } = sought;
    let since = sought.since.map_or(Uuid::nil(), first_id);
    let until = sought.until.map_or(Uuid::max(), first_id);
    let has_ended = status.map(RunStatus::has_ended);
    let mut found = Vec::new();
    if has_ended != Some(true) {
        let live = match (workflow, status) {
            (None, None) => listed!(live where "", since, until, limit).fetch_all(pool).await,
            (Some(workflow), None) => {
                listed!(live where "and workflow = $4", since, until, limit, workflow).fetch_all(pool).await
            }
            (None, Some(status)) => {
                listed!(live where "and status = $4", since, until, limit, status.as_str()).fetch_all(pool).await
            }
            (Some(workflow), Some(status)) => {
                listed!(live where "and workflow = $4 and status = $5", since, until, limit, workflow, status.as_str())
                    .fetch_all(pool)
                    .await
            }
        };
        found.extend(live?);
    }
    if has_ended != Some(false) {
        let ended = match (workflow, status) {
            (None, None) => listed!(finished where "", since, until, limit).fetch_all(pool).await,
            (Some(workflow), None) => {
                listed!(finished where "and workflow = $4", since, until, limit, workflow).fetch_all(pool).await
            }
            (None, Some(RunStatus::Completed)) => {
                listed!(finished where "and status = 'COMPLETED'", since, until, limit).fetch_all(pool).await
            }
            // The index is on those that did not end well, and the planner must be able to tell.
            (None, Some(status)) => {
                listed!(finished where "and status <> 'COMPLETED' and status = $4", since, until, limit, status.as_str())
                    .fetch_all(pool)
                    .await
            }
            (Some(workflow), Some(RunStatus::Completed)) => {
                listed!(finished where "and status = 'COMPLETED' and workflow = $4", since, until, limit, workflow)
                    .fetch_all(pool)
                    .await
            }
            (Some(workflow), Some(status)) => {
                listed!(
                    finished where "and status <> 'COMPLETED' and status = $4 and workflow = $5",
                    since, until, limit, status.as_str(), workflow
                )
                .fetch_all(pool)
                .await
            }
        };
        found.extend(ended?);
    }
    found.sort_unstable_by_key(|run| std::cmp::Reverse(run.id));
    found.truncate(usize::try_from(limit).unwrap_or_default());
    Ok(found)
}

/// The least id (uuid v7) that can be drawn at a moment: ids are in the order of their starts, so a window
/// of time needs no index of its own.
fn first_id(moment: DateTime<Utc>) -> Uuid {
    let milliseconds = u128::try_from(moment.timestamp_millis()).unwrap_or_default();
    Uuid::from_u128(milliseconds << 80)
}

/// A run's journal, in order.
pub async fn journal(pool: &PgPool, run_id: Uuid) -> Result<Vec<JournalEntry>, sqlx::Error> {
    sqlx::query_as!(
        JournalEntry,
        "select seq, kind, name, output, error, epoch, recorded_at from engine.journal where run_id = $1 order by seq",
        run_id
    )
    .fetch_all(pool)
    .await
}

/// A signal that was sent to a run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// Its name.
    pub name: String,
    /// Its key: the same one counts once.
    pub signal_key: String,
    /// What it says.
    pub payload: serde_json::Value,
    /// When it was sent.
    pub sent_at: DateTime<Utc>,
    /// When the run heard it; none while it has not.
    pub consumed_at: Option<DateTime<Utc>>,
}

/// What was said to a living run, in order.
///
/// # Errors
/// The database's own.
pub async fn signals(pool: &PgPool, run_id: Uuid) -> Result<Vec<Sent>, sqlx::Error> {
    sqlx::query_as!(
        Sent,
        "select name, signal_key, payload, sent_at, consumed_at from engine.signals where run_id = $1 order by id",
        run_id
    )
    .fetch_all(pool)
    .await
}
