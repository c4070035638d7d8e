//! The sweep: timers, back-offs, lost tickets and dead workers are one thing, a run whose `wake_at`
//! has passed. It is given a ticket, unless somebody alive has it in hand.

use std::time::Duration;

use sqlx::PgPool;

use crate::{
    incarnation::bury,
    ticket::{UNTOUCHED_SECS, ticket_body, ticket_id},
};

/// Tickets of a queue that wait at most, as far as sweeps have a say: when a crowd is due at one moment, whoever
/// starts meanwhile waits behind so many, and not behind all of it.
const PORTION: i64 = 256;
/// Runs of a queue that a sweep gives tickets, however many wait: those whose ticket was lost are among them.
const LEAST: i64 = 16;

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Runs that were due, whoever has them.
    pub looked_at: usize,
    /// Runs that were given a ticket.
    pub ticketed: usize,
    /// Workers found dead.
    pub buried: usize,
}

/// Sweeps once. Any number of processes may sweep at the same time.
pub async fn sweep(pool: &PgPool, lease: Duration) -> Result<Swept, sqlx::Error> {
    let mut swept = Swept::default();
    let dead = sqlx::query_scalar!(
        "select id from engine.workers where beat_at < now() - make_interval(secs => $1)",
        lease.as_secs_f64()
    )
    .fetch_all(pool)
    .await?;
    for worker in dead {
        let runs = bury(pool, worker).await?;
        tracing::warn!(%worker, runs, "a worker died; its runs go to others");
        swept.buried += 1;
    }

    let mut tx = pool.begin().await?;
    let due = sqlx::query!(
        r#"
        with recursive queues as (
            (select queue from engine.runs order by queue limit 1)
             union all
            select (select r.queue from engine.runs r where r.queue > q.queue order by r.queue limit 1)
              from queues q where q.queue is not null),
        room as (
            select q.queue, greatest($3, $1 - (
                       select count(*) from (
                           select from apalis.jobs j where j.job_type = q.queue and j.status = 'Pending' limit $1) w)) as room
              from queues q where q.queue is not null),
        due as (
            select d.id from room, lateral (
                select r.id from engine.runs r
                 where r.queue = room.queue and r.wake_at <= engine.now() and r.status <> 'STUCK'
                 order by r.wake_at limit room.room
                 for update skip locked) d)
        update engine.runs r
           set wake_at = engine.now() + make_interval(secs => $2),
               status = case when r.status in ('WAITING', 'RETRYING') then 'PENDING' else r.status end
          from due where r.id = due.id
        returning r.id, r.queue,
                  (r.owner is null or not exists (select from engine.workers w where w.id = r.owner)) as "is_free!"
        "#,
        PORTION,
        UNTOUCHED_SECS,
        LEAST,
    )
    .fetch_all(&mut *tx)
    .await?;
    swept.looked_at = due.len();
    let free: Vec<_> = due.into_iter().filter(|run| run.is_free).collect();
    swept.ticketed = free.len();
    if !free.is_empty() {
        let tickets: Vec<String> = free.iter().map(|run| ticket_id(run.id)).collect();
        let queues: Vec<String> = free.iter().map(|run| run.queue.clone()).collect();
        let bodies: Vec<Vec<u8>> = free.iter().map(|run| ticket_body(run.id)).collect();
        sqlx::query!(
            "insert into apalis.jobs (id, job_type, job, status, run_at)
             select t.id, t.queue, t.body, 'Pending', now()
               from unnest($1::text[], $2::text[], $3::bytea[]) as t(id, queue, body)
             order by t.id
             -- A ticket that was fetched and never answered is delivered again.
             on conflict (id) do update
                set status = 'Pending', run_at = excluded.run_at, lock_by = null, lock_at = null
              where jobs.status <> 'Pending'",
            &tickets,
            &queues,
            &bodies,
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(swept)
}
