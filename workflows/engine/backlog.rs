//! What waits for a worker: for gauges, autoscalers, and whoever must say no in time.

use std::time::Duration;

use sqlx::PgExecutor;

/// Counting stops here: whoever has so much waiting knows what there is to know.
pub const COUNTED: i64 = 20_000;

/// The runs of one queue that are ready and that no worker has fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// The queue.
    pub queue: String,
    /// How many, up to [`COUNTED`].
    pub ready: i64,
    /// How long the one that is next has been ready.
    pub age: Duration,
}

/// The backlog of these queues. Read off their tickets, by the index that workers fetch by: cheap enough
/// to be asked every few seconds, however long the queues are.
///
/// # Errors
/// The database's own.
pub async fn backlog(executor: impl PgExecutor<'_>, queues: &[&str]) -> Result<Vec<Backlog>, sqlx::Error> {
    let queues: Vec<String> = queues.iter().map(|queue| (*queue).to_owned()).collect();
    let rows = sqlx::query!(
        r#"
        select q.queue as "queue!",
               (select count(*) from (
                    select from apalis.jobs j
                     where j.job_type = q.queue and j.status = 'Pending' and j.run_at <= now() limit $2) waiting) as "ready!",
               coalesce((
                    select extract(epoch from now() - j.run_at)::float8 from apalis.jobs j
                     where j.job_type = q.queue and j.status = 'Pending' and j.run_at <= now()
                     order by j.priority desc, j.run_at limit 1), 0) as "age!"
          from unnest($1::text[]) as q(queue)
        "#,
        &queues,
        COUNTED
    )
    .fetch_all(executor)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Backlog { queue: row.queue, ready: row.ready, age: Duration::from_secs_f64(row.age.max(0.0)) })
        .collect())
}
