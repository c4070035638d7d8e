//! Retention: finished runs and their journals go, their business keys a while later.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

/// What one batch did.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retired {
    /// Runs deleted, with their journals.
    pub runs: i64,
    /// Where the next batch begins; none when there is nothing old enough left.
    pub next_after: Option<Uuid>,
}

/// Deletes what is left of runs that ended before `finished_before`, looking at up to `batch` finished
/// runs with ids after `after`. Each leaves its business key, for `keys_kept` from its end on.
///
/// Finished runs are walked by their ids, which are in the order of their starts: no index on their end
/// has to be kept for this, and a run that took long holds up nobody.
///
/// # Errors
/// The database's own.
pub async fn retire_finished(
    conn: &mut PgConnection,
    after: Uuid,
    batch: i64,
    finished_before: DateTime<Utc>,
    keys_kept: Duration,
) -> Result<Retired, sqlx::Error> {
    let row = sqlx::query!(
        r#"
        with page as materialized (
            select id, workflow, run_key, created_at, finished_at from engine.finished_runs
             where id > $1 order by id limit $2),
        old as materialized (
            select id, workflow, run_key, finished_at from page where finished_at < $3),
        journals as (
            delete from engine.journal j using old where j.run_id = old.id),
        signals as (
            delete from engine.signals s using old where s.run_id = old.id),
        keys as (
            update engine.run_keys k set expires_at = old.finished_at + make_interval(secs => $4)
              from old where k.workflow = old.workflow and k.run_key = old.run_key and k.run_id = old.id),
        runs as (
            delete from engine.finished_runs f using old where f.id = old.id
            returning f.id)
        select (select count(*) from runs) as "runs!",
               -- What was started later than that has not ended before it.
               (select id from page where created_at < $3 order by id desc limit 1) as next_after
        "#,
        after,
        batch,
        finished_before,
        keys_kept.as_secs_f64()
    )
    .fetch_one(conn)
    .await?;
    Ok(Retired { runs: row.runs, next_after: row.next_after })
}

/// Deletes up to `batch` business keys that have been kept for long enough: from now on they are free.
///
/// # Errors
/// The database's own.
pub async fn forget_keys(conn: &mut PgConnection, batch: i64) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query!(
        "delete from engine.run_keys
          where (workflow, run_key) in (
                select workflow, run_key from engine.run_keys
                 where expires_at <= engine.now()
                 order by expires_at limit $1)",
        batch
    )
    .execute(conn)
    .await?;
    Ok(forgotten.rows_affected())
}

/// Deletes the queue's notes of up to `batch` delivery workers not heard of for a day: they are kept per
/// incarnation, and one that was killed takes back none.
///
/// # Errors
/// The database's own.
pub async fn forget_dead_deliverers(conn: &mut PgConnection, batch: i64) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query!(
        "delete from apalis.workers
          where id in (select id from apalis.workers where last_seen < now() - interval '1 day'
                        order by last_seen limit $1)",
        batch
    )
    .execute(conn)
    .await?;
    Ok(forgotten.rows_affected())
}
