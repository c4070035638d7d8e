//! `cart-engine scheduler`: starts what is due by the calendar. Several may run; each tick counts once.

use sqlx::PgPool;

use crate::{
    config::Config,
    database::{Database, Purpose},
    failure::Failure,
    parts::Parts,
    say,
    shutdown::Stop,
};

const CONNECTIONS: u32 = 4;

/// Schedules until it is told to stop.
///
/// # Errors
/// What keeps it from scheduling.
pub(crate) async fn run(config: &Config) -> Result<(), Failure> {
    let stop = Stop::listen()?;
    let database = Database::shared(&config.database).await?;
    let pool = pool(&database);
    migrations::check(&pool).await?;
    let mut parts = Parts::default();
    start(&mut parts, &pool);
    say("the scheduler is ready");
    let ended = parts.run(stop).await;
    pool.close().await;
    ended
}

/// Connections for the scheduler.
pub(crate) fn pool(database: &Database) -> PgPool {
    database.pool("scheduler", CONNECTIONS, Purpose::Serve)
}

/// Adds the scheduler to the parts of this process.
pub(crate) fn start(parts: &mut Parts, pool: &PgPool) {
    parts.start("scheduler", schedules::run(pool.clone(), parts.token()));
}
