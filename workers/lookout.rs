//! One look at all quiet queues, in place of a poll of each: an idle pool costs the database twenty statements a
//! second, however many queues it serves.

use std::time::Duration;

use engine::silence::heard;
use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::pace::Bell;

/// Between two looks: what a ticket of a quiet queue waits at most.
const LOOK: Duration = Duration::from_millis(50);

/// Rings the bells of quiet queues that have a ticket, until told to stop.
pub(crate) async fn keep(pool: PgPool, bells: Vec<(String, Bell)>, shutdown: CancellationToken) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = looks.tick() => {}
        }
        let quiet: Vec<String> =
            bells.iter().filter(|(_, bell)| bell.is_of_quiet()).map(|(queue, _)| queue.clone()).collect();
        if quiet.is_empty() {
            continue;
        }
        match heard(with_tickets(&pool, &quiet)).await {
            Ok(wanted) => bells.iter().filter(|(queue, _)| wanted.contains(queue)).for_each(|(_, bell)| bell.ring()),
            // Their own pace has them polled meanwhile.
            Err(error) => tracing::debug!(%error, "a look at the quiet queues failed"),
        }
    }
}

async fn with_tickets(pool: &PgPool, queues: &[String]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select q.queue as "queue!" from unnest($1::text[]) as q(queue)
            where exists (select from apalis.jobs j
                           where j.job_type = q.queue and j.status = 'Pending' and j.run_at <= now())"#,
        queues
    )
    .fetch_all(pool)
    .await
}
