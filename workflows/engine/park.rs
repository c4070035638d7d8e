//! Parked runs: seeing them, and letting them go on.
//!
//! A run is parked (STUCK) when nobody but a person can say how it goes on, or so it seemed. Letting it
//! go on is harmless: it takes up where its journal ends, and parks again if the cause is still there.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Failure, RunStatus, legible::legible, signal::wake};

/// A run that waits for somebody to let it go on.
#[derive(Debug, Clone)]
pub struct Parked {
    /// Its id.
    pub run_id: Uuid,
    /// Its family.
    pub workflow: String,
    /// Its business key.
    pub run_key: String,
    /// Why it was parked.
    pub failure: Option<Failure>,
    /// When, on the engine's clock.
    pub parked_at: DateTime<Utc>,
    /// How often `by` has let it go on before.
    pub resumed: i64,
}

/// What became of letting a run go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparked {
    /// It goes on.
    Resumed,
    /// It is not parked.
    NotParked,
    /// There is no such run among the living.
    Unknown,
}

/// Up to `limit` parked runs with ids after `after`, the oldest first; `by` is whose resumptions are
/// counted.
///
/// # Errors
/// The database's own.
pub async fn parked(conn: &mut PgConnection, by: &str, after: Uuid, limit: i64) -> Result<Vec<Parked>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select r.id, r.workflow, r.run_key, r.failure, r.updated_at,
                  (select count(*) from engine.journal j
                    where j.run_id = r.id and j.kind = 'RESUMED' and j.name = $1) as "resumed!"
             from engine.runs r
            where r.status = 'STUCK' and r.wake_at = 'infinity' and r.id > $2
            order by r.id limit $3"#,
        by,
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Parked {
            run_id: row.id,
            workflow: row.workflow,
            run_key: row.run_key,
            failure: row.failure.and_then(|failure| serde_json::from_value(failure).ok()),
            parked_at: row.updated_at,
            resumed: row.resumed,
        })
        .collect())
}

/// Lets a parked run go on where its journal ends, in the caller's transaction: forward, or with its
/// unwinding if that is what it was doing. Its failed attempts and dead owners are forgotten; who let it
/// go on and why is journalled.
///
/// Its row is locked first, as by everybody who talks to a run; and nobody holds a parked run, so there
/// is no late write to be feared but that of a zombie, whose token the next claim replaces.
///
/// # Errors
/// The database's own.
pub async fn unpark(conn: &mut PgConnection, run_id: Uuid, by: &str, why: &str) -> Result<Unparked, sqlx::Error> {
    let run = sqlx::query!(
        r#"select status as "status: RunStatus", queue from engine.runs where id = $1 for update"#,
        run_id
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(run) = run else { return Ok(Unparked::Unknown) };
    if run.status != RunStatus::Stuck {
        return Ok(Unparked::NotParked);
    }
    sqlx::query!(
        "with failed as (
            -- Why it unwinds, if it does: the reason it was parked for is another.
            select error from engine.journal where run_id = $1 and kind = 'FAILED' order by seq desc limit 1),
         noted as (
            insert into engine.journal (run_id, seq, kind, name, output, error, epoch, recorded_at)
            select r.id, coalesce((select max(seq) from engine.journal where run_id = $1), -1) + 1, 'RESUMED', $2,
                   jsonb_build_object('why', $3::text), r.failure, r.epoch, engine.now()
              from engine.runs r where r.id = $1)
         update engine.runs
            set status = case when exists (select from failed) then 'COMPENSATING' else 'PENDING' end,
                failure = (select error from failed), attempt = 0, crashes = 0, updated_at = engine.now()
          where id = $1",
        run_id,
        &*legible(by),
        &*legible(why)
    )
    .execute(&mut *conn)
    .await?;
    wake(conn, run_id, &run.queue).await?;
    Ok(Unparked::Resumed)
}

/// Has a run that backs off after a failed attempt tried again now, in the caller's transaction. Its attempts
/// stay counted. False when it does not back off.
///
/// # Errors
/// The database's own.
pub async fn hurry(conn: &mut PgConnection, run_id: Uuid) -> Result<bool, sqlx::Error> {
    let run = sqlx::query!(
        r#"select status as "status: RunStatus", attempt, queue from engine.runs where id = $1 for update"#,
        run_id
    )
    .fetch_optional(&mut *conn)
    .await?;
    // An unwinding run backs off too, and is COMPENSATING all the while.
    let Some(run) =
        run.filter(|run| run.status == RunStatus::Retrying || run.status == RunStatus::Compensating && run.attempt > 0)
    else {
        return Ok(false);
    };
    wake(conn, run_id, &run.queue).await?;
    Ok(true)
}

/// Makes up to `limit` runs due that nothing would ever wake: not parked, and yet without a time to be
/// looked at. The engine leaves none behind; a repair by hand, or a restored dump, may.
///
/// # Errors
/// The database's own.
pub async fn wake_lost(conn: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let woken = sqlx::query!(
        "update engine.runs set wake_at = engine.now()
          where id = any(array(
                select id from engine.runs
                 where wake_at = 'infinity' and status <> 'STUCK'
                 order by id limit $1
                   for update skip locked))",
        limit
    )
    .execute(conn)
    .await?;
    Ok(woken.rows_affected())
}
