//! Retention: finished runs and their journals go, their business keys a while later.
//!
//! A day of runs goes whole (`engine.detach_day` in the schema says how); what outlived its day, or was
//! moved past its time with the development clock, goes one by one. The functions that change tables are
//! one statement each, without a transaction of their caller's around them: nobody's death can leave
//! their locks behind.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// Days for which partitions are made ahead: how long the retention may not run before runs are kept
/// with the rest, from where they go one by one.
pub const DAYS_AHEAD: i32 = 7;

/// Days that are taken out by one run; what is left then is the next run's.
const DAYS_AT_ONCE: i64 = 10;

/// How often a day is tried to be taken out, and the pause in between: somebody reads it.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);

/// What one batch did.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retired {
    /// Runs deleted, with their journals.
    pub runs: i64,
    /// Where the next batch begins; none when there is nothing old enough left.
    pub next_after: Option<Uuid>,
}

/// Makes the partitions of today and the days to come; says how many days were new.
///
/// # Errors
/// The database's own.
pub async fn make_days(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select engine.make_days($1) as "made!""#, DAYS_AHEAD).fetch_one(pool).await
}

/// The days, oldest first, all of whose runs began a day or more before `finished_before`, and are no
/// longer being drawn.
///
/// # Errors
/// The database's own.
pub async fn days_due(conn: &mut PgConnection, finished_before: DateTime<Utc>) -> Result<Vec<NaiveDate>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        select d.day as "day!"
          from (select to_date(right(c.relname, 8), 'YYYYMMDD') as day
                  from pg_inherits i join pg_class c on c.oid = i.inhrelid
                 where i.inhparent = 'engine.finished_runs'::regclass and c.relname ~ '_[0-9]{8}$') d
         -- Ids are drawn in real time, runs end on the engine's clock.
         where (d.day + 2)::timestamp at time zone 'UTC' <= least($1::timestamptz, now())
         order by d.day limit $2
        "#,
        finished_before,
        DAYS_AT_ONCE
    )
    .fetch_all(conn)
    .await
}

/// Dates the keys of a day's runs that took more than 24 hours, of up to `batch` runs with ids after
/// `after`: by its id alone, such a key would go too early. Says where to go on.
///
/// # Errors
/// The database's own.
pub async fn date_slow_keys(
    conn: &mut PgConnection,
    day: NaiveDate,
    after: Uuid,
    batch: i64,
    keys_kept: Duration,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        with slow as materialized (
            select id, workflow, run_key, finished_at from engine.finished_runs
             where finished_at - created_at > interval '24 hours' and id > $2
               and id >= engine.first_id($1::date::timestamp at time zone 'UTC')
               and id < engine.first_id(($1::date + 1)::timestamp at time zone 'UTC')
             order by id limit $3),
        keys as (
            update engine.run_keys k set expires_at = slow.finished_at + make_interval(secs => $4)
              from slow where k.workflow = slow.workflow and k.run_key = slow.run_key and k.run_id = slow.id)
        select id as "id!" from slow order by id desc limit 1
        "#,
        day,
        after,
        batch,
        keys_kept.as_secs_f64()
    )
    .fetch_optional(conn)
    .await
}

/// Takes a day out and drops it; what still lives or ended at `kept_since` or later stays. False when
/// the day is in use all the time, or holds too many that stay: it is the next run's.
///
/// # Errors
/// The database's own.
pub async fn drop_day(pool: &PgPool, day: NaiveDate, kept_since: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    let mut is_detached = false;
    for tried in 0..TRIES {
        if tried > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let came = sqlx::query_scalar!(r#"select engine.detach_day($1, $2) as "came!""#, day, kept_since)
            .fetch_one(pool)
            .await?;
        is_detached = came == "DETACHED";
        if is_detached {
            break;
        }
        if came == "TOO_MANY" {
            // Trying again at once changes nothing.
            tracing::info!(%day, "a day of finished runs stays for now: too much outlived it");
            return Ok(false);
        }
    }
    if !is_detached {
        tracing::warn!(%day, "a day of finished runs stays for now: it is in use");
    }
    // Those too that were taken out by somebody who died before this.
    sqlx::query_scalar!("select engine.drop_detached()").fetch_one(pool).await?;
    Ok(is_detached)
}

/// Deletes what is left of runs that ended before `finished_before`, looking at up to `batch` finished
/// runs with ids after `after`. Each leaves its business key, for `keys_kept` from its end on.
///
/// Only runs that outlived their day are looked at, and all runs when the development clock was moved:
/// then a run may be old on the day it was drawn.
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
    let is_moved = sqlx::query_scalar!(r#"select skew <> interval '0' as "moved!" from engine.clock"#)
        .fetch_one(&mut *conn)
        .await?;
    let row = sqlx::query!(
        r#"
        with page as materialized (
            (select id, workflow, run_key, created_at, finished_at from engine.finished_runs_rest
              where not $5 and id > $1 order by id limit $2)
            union all
            (select id, workflow, run_key, created_at, finished_at from engine.finished_runs
              where $5 and id > $1 order by id limit $2)),
        old as materialized (
            select id, workflow, run_key, finished_at from page where finished_at < $3),
        -- Each by index, however large the planner believes a batch to be.
        rest_of_journals as (
            delete from engine.journal_rest where not $5 and run_id = any(array(select id from old))),
        journals as (
            delete from engine.journal where $5 and run_id = any(array(select id from old))),
        keys as (
            update engine.run_keys k set expires_at = old.finished_at + make_interval(secs => $4)
              from old where k.workflow = old.workflow and k.run_key = old.run_key and k.run_id = old.id),
        rest_of_runs as (
            delete from engine.finished_runs_rest where not $5 and id = any(array(select id from old))),
        runs as (
            delete from engine.finished_runs where $5 and id = any(array(select id from old)))
        select (select count(*) from old) as "runs!",
               -- What was started later than that has not ended before it.
               (select id from page where created_at < $3 order by id desc limit 1) as next_after
        "#,
        after,
        batch,
        finished_before,
        keys_kept.as_secs_f64(),
        is_moved
    )
    .fetch_one(conn)
    .await?;
    Ok(Retired { runs: row.runs, next_after: row.next_after })
}

/// Deletes up to `batch` business keys of each kind that have been kept for long enough: dated ones, and
/// those of runs of which nothing is left, `keys_kept` after the latest moment such a run can have ended.
/// From now on they are free.
///
/// # Errors
/// The database's own.
pub async fn forget_keys(conn: &mut PgConnection, batch: i64, keys_kept: Duration) -> Result<u64, sqlx::Error> {
    let dated = sqlx::query!(
        "delete from engine.run_keys
          where (workflow, run_key) in (
                select workflow, run_key from engine.run_keys
                 where expires_at <= engine.now()
                 order by expires_at limit $1)",
        batch
    )
    .execute(&mut *conn)
    .await?;
    let undated = sqlx::query!(
        "delete from engine.run_keys
          where (workflow, run_key) in (
                select k.workflow, k.run_key from engine.run_keys k
                 where k.run_id < engine.first_id(now() - make_interval(secs => $2) - interval '24 hours')
                   and k.expires_at is null
                   and not exists (select from engine.runs r where r.id = k.run_id)
                   and not exists (select from engine.finished_runs f where f.id = k.run_id)
                 order by k.run_id limit $1)",
        batch,
        keys_kept.as_secs_f64()
    )
    .execute(&mut *conn)
    .await?;
    Ok(dated.rows_affected() + undated.rows_affected())
}

/// Deletes up to `batch` signals to runs that have ended: one that is sent while its run finishes may be
/// written after the finishing statement has looked.
///
/// # Errors
/// The database's own.
pub async fn forget_signals(conn: &mut PgConnection, batch: i64) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query!(
        "delete from engine.signals
          where id = any(array(
                select s.id from engine.signals s
                 where not exists (select from engine.runs r where r.id = s.run_id)
                 order by s.id limit $1))",
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
