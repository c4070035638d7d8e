//! Telling a run something: signals and cancellation.
//!
//! Both lock the run's row before anything else, and so does the commit that puts a run to sleep: a
//! wake-up can therefore not fall between "nothing has come" and "asleep".

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    RunStatus,
    legible::legible,
    limits,
    payload::{encode, is_key},
    ticket::{UNTOUCHED_SECS, ticket_body, ticket_id},
};

/// What became of a signal or a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The run has it, or will find it.
    Delivered,
    /// The same signal had been sent before.
    Duplicate,
    /// The run has ended.
    Finished,
    /// The run has passed its point of no return, or its signal queue is full.
    Refused,
    /// There is no such run.
    Unknown,
    /// The payload is larger than 1 MiB, the key longer than 1,024 bytes, or one of them holds a NUL, which
    /// Postgres cannot keep. Sending it again will not help.
    Invalid,
}

/// Sends `payload` to a run, inside the caller's transaction. The same `(name, key)` counts once.
pub async fn signal<T: Serialize + Sync>(
    conn: &mut PgConnection,
    run_id: Uuid,
    name: &str,
    key: &str,
    payload: &T,
) -> Result<Delivery, sqlx::Error> {
    let (Ok(payload), true) = (encode(name, payload), is_key(name) && is_key(key)) else {
        return Ok(Delivery::Invalid);
    };
    let Some(run) = lock(conn, run_id).await? else {
        return absent(conn, run_id).await;
    };
    let inserted = sqlx::query!(
        // Whoever is hearing the same signal has its row, and may be waiting for the run's, which is held here: it is
        // looked for, lest the index wait for them.
        "insert into engine.signals (run_id, name, signal_key, payload, sent_at)
         select $1, $2, $3, $4, engine.now()
          where (select count(*) from engine.signals where run_id = $1) < $5
            and not exists (select from engine.signals where run_id = $1 and name = $2 and signal_key = $3)
         on conflict do nothing",
        run_id,
        name,
        key,
        payload,
        limits::SIGNALS,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if inserted == 0 {
        let known = sqlx::query_scalar!(
            r#"select exists (select from engine.signals where run_id = $1 and name = $2 and signal_key = $3) as "known!""#,
            run_id,
            name,
            key
        )
        .fetch_one(&mut *conn)
        .await?;
        return Ok(if known { Delivery::Duplicate } else { Delivery::Refused });
    }
    if run.status == RunStatus::Waiting && run.waiting_for.as_deref() == Some(name) {
        wake(conn, run_id, &run.queue).await?;
    }
    Ok(Delivery::Delivered)
}

/// From here on a run only goes forward: for whoever has promised somebody that it will. The caller has
/// sent it a [`signal`], and so holds its row.
///
/// # Errors
/// The database's own.
pub async fn only_forward(conn: &mut PgConnection, run_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("update engine.runs set forward_only = true where id = $1", run_id).execute(conn).await?;
    Ok(())
}

/// Asks a run to unwind at its next safe point. Asking twice is harmless; asking one that has passed
/// its point of no return is refused.
pub async fn cancel(conn: &mut PgConnection, run_id: Uuid, why: &str) -> Result<Delivery, sqlx::Error> {
    if legible(why) != why {
        return Ok(Delivery::Invalid);
    }
    let Some(run) = lock(conn, run_id).await? else {
        return absent(conn, run_id).await;
    };
    if run.forward_only {
        return Ok(Delivery::Refused);
    }
    if run.status == RunStatus::Compensating || run.cancel_requested.is_some() {
        return Ok(Delivery::Duplicate);
    }
    sqlx::query!("update engine.runs set cancel_requested = $2 where id = $1", run_id, why).execute(&mut *conn).await?;
    if run.status == RunStatus::Waiting || run.status == RunStatus::Retrying {
        wake(conn, run_id, &run.queue).await?;
    }
    Ok(Delivery::Delivered)
}

/// True while a run takes back what it did, and when it was parked over that: what reaches it now, it
/// will not act on.
pub async fn is_unwinding(conn: &mut PgConnection, run_id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (
            select from engine.runs r
             where r.id = $1
               and (r.status = 'COMPENSATING'
                    or r.status = 'STUCK' and exists (
                        select from engine.journal j where j.run_id = $1 and j.kind = 'FAILED'))) as "yes!""#,
        run_id
    )
    .fetch_one(conn)
    .await
}

/// True when a run [`is_unwinding`], or will be at its next safe point because somebody asked it to.
///
/// # Errors
/// The database's own.
pub async fn is_stopping(conn: &mut PgConnection, run_id: Uuid) -> Result<bool, sqlx::Error> {
    let is_asked = sqlx::query_scalar!(
        r#"select exists (
            select from engine.runs where id = $1 and cancel_requested is not null and not forward_only) as "yes!""#,
        run_id
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(is_asked || is_unwinding(conn, run_id).await?)
}

struct Locked {
    status: RunStatus,
    waiting_for: Option<String>,
    queue: String,
    forward_only: bool,
    cancel_requested: Option<String>,
}

async fn lock(conn: &mut PgConnection, run_id: Uuid) -> Result<Option<Locked>, sqlx::Error> {
    sqlx::query_as!(
        Locked,
        r#"select status as "status: RunStatus", waiting_for, queue, forward_only, cancel_requested
             from engine.runs where id = $1 for update"#,
        run_id
    )
    .fetch_optional(conn)
    .await
}

async fn absent(conn: &mut PgConnection, run_id: Uuid) -> Result<Delivery, sqlx::Error> {
    let finished =
        sqlx::query_scalar!(r#"select exists (select from engine.finished_runs where id = $1) as "yes!""#, run_id)
            .fetch_one(conn)
            .await?;
    Ok(if finished { Delivery::Finished } else { Delivery::Unknown })
}

/// Makes a sleeping run ready and gives it a ticket. The caller holds the run's row.
pub(crate) async fn wake(conn: &mut PgConnection, run_id: Uuid, queue: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with ready as (
            update engine.runs
               set status = case status when 'COMPENSATING' then status else 'PENDING' end,
                   wake_at = engine.now() + make_interval(secs => $5)
             where id = $1)
         insert into apalis.jobs (id, job_type, job, status, run_at) values ($2, $3, $4, 'Pending', now())
         -- A ticket that has been fetched may be spent by a claim that saw the run asleep: renew it.
         on conflict (id) do update set status = 'Pending', run_at = excluded.run_at, lock_by = null, lock_at = null
          where jobs.status <> 'Pending'",
        run_id,
        ticket_id(run_id),
        queue,
        ticket_body(run_id),
        UNTOUCHED_SECS,
    )
    .execute(conn)
    .await?;
    Ok(())
}
