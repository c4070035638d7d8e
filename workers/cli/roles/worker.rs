//! `cart-engine worker`: carries workflows. Any number of them share one database.

use std::{sync::Arc, time::Duration};

use adapters::holds::RedisHolds;
use engine::silence::SILENCE;
use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use workers::{Finger, PoolOptions, Pulse};
use workflows::{Shop, hold_mirror};

use super::metrics;
use crate::{
    config::Config,
    database::{Database, Purpose},
    dev,
    failure::Failure,
    listen::{self, listen},
    outside,
    parts::Parts,
    say,
    shutdown::Stop,
    watchdog,
};

/// Between two looks at what was held and released.
const MIRROR_PAUSE: Duration = Duration::from_millis(250);

/// Works until it is told to stop; runs in hand go back to the others.
///
/// # Errors
/// What keeps it from working.
pub(crate) async fn run(config: &Config) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let database = Database::shared(&config.database).await?;
    let pool = pool(config, &database);
    migrations::check(&pool).await?;
    let dev = dev::settings(&pool).await?;
    let shop = outside::shop(config, dev.as_ref(), &pool)?;
    if shop.mailer.is_none() {
        tracing::warn!("SMTP_URL is not set: no e-mail will be sent");
    }
    let mut parts = Parts::default();
    if let Some(address) = &config.worker.metrics_listen {
        let listener = listen(address).await?;
        say(&format!("this worker's metrics are at {}/metrics", listen::url(&listener)?));
        parts.start("metrics", metrics::keep_up(metrics::handle()?, parts.token()));
        parts.start("metrics page", metrics::serve(listener, metrics::handle()?, parts.token()));
    }
    let finger = start(&mut parts, config, &pool, &shop)?;
    watchdog::watch(finger, Duration::from_millis(config.worker.watchdog_ms))?;
    follow_holds(&mut parts, config, &pool).await?;
    say(&format!("a worker is ready for {} runs of each queue at once", config.worker.concurrency));
    let ended = parts.run(stop).await;
    pool.close().await;
    ended
}

/// Connections for one worker.
pub(crate) fn pool(config: &Config, database: &Database) -> PgPool {
    let purpose = Purpose::Carry { lease_ms: config.worker.lease_ms };
    database.pool("worker", config.worker.connections, purpose)
}

/// Adds a worker to the parts of this process; each is an incarnation of its own. What comes back feels
/// whether its database answers.
///
/// # Errors
/// Settings that make no sense.
pub(crate) fn start(parts: &mut Parts, config: &Config, pool: &PgPool, shop: &Arc<Shop>) -> Result<Finger, Failure> {
    let pulse = Pulse::default();
    let finger = pulse.finger();
    let options = PoolOptions {
        concurrency: config.worker.concurrency,
        queues: config.worker.queues.clone(),
        settings: config.worker.settings(),
        pulse,
        ..PoolOptions::default()
    };
    parts.start("worker", workers::run(pool.clone(), workflows::registry(shop), options, parts.token()));
    Ok(finger)
}

/// Adds, where a Redis is configured, what mirrors the holds there.
///
/// # Errors
/// A Redis address that makes no sense.
pub(crate) async fn follow_holds(parts: &mut Parts, config: &Config, pool: &PgPool) -> Result<(), Failure> {
    if let Some(redis) = outside::redis(config).await? {
        parts.start("mirror of holds", mirror(pool.clone(), RedisHolds::new(redis), parts.token()));
    }
    Ok(())
}

async fn mirror(pool: PgPool, holds: RedisHolds, stop: CancellationToken) -> Result<(), Failure> {
    let mut rounds = tokio::time::interval(MIRROR_PAUSE);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = rounds.tick() => {}
        }
        // What is away, Postgres or Redis, is looked for again in the next round.
        match tokio::time::timeout(SILENCE, hold_mirror::follow(&pool, &holds)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the holds were not mirrored"),
            Err(_) => tracing::debug!("the holds were not mirrored: no answer"),
        }
    }
}
