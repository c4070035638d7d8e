//! Looking at runs: for operators, and for those who wait for one.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

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
    /// PENDING, RUNNING, WAITING, RETRYING, COMPENSATING, COMPLETED, FAILED, CANCELLED or STUCK.
    pub status: String,
    /// What it was started with.
    pub input: serde_json::Value,
    /// What it answered.
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
    /// What the step answered.
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
               status as "status!", input as "input!", null::jsonb as output, failure, waiting_for,
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

/// Runs, newest first; `status` and `workflow` narrow the list.
pub async fn runs(
    pool: &PgPool,
    workflow: Option<&str>,
    status: Option<&str>,
    limit: i64,
) -> Result<Vec<Run>, sqlx::Error> {
    sqlx::query_as!(
        Run,
        r#"
        (select id as "id!", workflow as "workflow!", version as "version!", run_key as "run_key!",
               status as "status!", input as "input!", null::jsonb as output, failure, waiting_for,
               nullif(wake_at, 'infinity') as wake_at, epoch as "epoch!", crashes as "crashes!",
               created_at as "created_at!", null::timestamptz as finished_at
          from engine.runs
         where ($1::text is null or workflow = $1) and ($2::text is null or status = $2)
         order by id desc limit $3)
        union all
        (select id, workflow, version, run_key, status, input, output, failure, null, null, epoch, crashes,
               created_at, finished_at
          from engine.finished_runs
         where ($1::text is null or workflow = $1) and ($2::text is null or status = $2)
         order by id desc limit $3)
        order by 1 desc limit $3
        "#,
        workflow,
        status,
        limit
    )
    .fetch_all(pool)
    .await
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
