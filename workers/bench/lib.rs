//! What the shop does at saturation, beside what Postgres itself could do.
//!
//! Each run has a database of its own, lived-in from the start, on the server it is pointed at, and
//! drops it at the end.
//!
//! What must not live here: anything a shop needs. Nothing but the command line depends on it.

mod cart;
mod cart_figures;
mod checkout;
mod figures;
mod gateway;
mod limit;
mod moment;
mod moment_figures;
mod world;

use std::time::Duration;

use anyhow::Context as _;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub use self::{
    cart::CartSettings, cart_figures::CartFigures, figures::Figures, moment::Crowds, moment_figures::MomentFigures,
};

/// The shop that a work is measured in.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// Orders the shop has had before; fewer make a database that does not look lived-in.
    pub past_orders: i32,
    /// Which carts are drawn.
    pub seed: i64,
    /// There is little time: the figures say that they are not for quoting.
    pub quick: bool,
}

/// A measurement that lasts for a time.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Of each measurement.
    pub seconds: u64,
    /// The shop it is made in.
    pub world: World,
}

/// Who carries the checkouts out.
#[derive(Debug, Clone, Copy)]
pub struct Staffing {
    /// Worker pools in this process.
    pub workers: usize,
    /// Connections each of them has for its turns.
    pub connections: u32,
}

impl Staffing {
    /// Pools, and turns of each queue that one carries out at the same time.
    fn shown(self) -> String {
        format!("{} × {}", self.workers, workers::PoolOptions::default().concurrency)
    }
}

/// Measures the limits, then the production checkout with so many in flight, then at ten checkouts a second.
/// `hot`: every checkout takes the same variant.
///
/// # Errors
/// When the server cannot be reached, does not let us create a database, or a checkout fails.
pub async fn checkout(
    server: &PgConnectOptions,
    load: Load,
    staffing: Staffing,
    in_flight: usize,
    hot: bool,
) -> anyhow::Result<Figures> {
    in_world(server, load.world.past_orders, async |options, pool| {
        checkout::checkout(options, pool, load, staffing, in_flight, hot).await
    })
    .await
}

/// Measures the limits alone.
///
/// # Errors
/// When the server cannot be reached, or does not let us create a database.
pub async fn limit(server: &PgConnectOptions, load: Load, hot: bool) -> anyhow::Result<Figures> {
    in_world(server, load.world.past_orders, async |options, pool| {
        let limit = limit::limit(options, pool, load, hot).await?;
        let books = workflows::audit::books(pool).await.context("the books could not be read")?;
        let mut settings = figures::settings(pool, if hot { "limit, hot" } else { "limit" }, load.world).await?;
        settings.insert("seconds".to_owned(), load.seconds.to_string());
        settings.insert("clients".to_owned(), limit.clients.to_string());
        settings.extend(figures::limit_settings(&limit));
        Ok(Figures::of_limit(&limit, books.balanced, settings))
    })
    .await
}

/// Measures add-to-cart over HTTP: without Redis, with it, and while it is killed. The API's process is
/// this program, started once more as `api`.
///
/// # Errors
/// When the server cannot be reached, or a process does not start. Requests that fail are figures.
pub async fn cart(server: &PgConnectOptions, load: Load, settings: &CartSettings) -> anyhow::Result<CartFigures> {
    in_world(server, load.world.past_orders, async |options, pool| cart::cart(options, pool, load, settings).await)
        .await
}

/// Measures how long the shop takes over what is due to many at one moment.
///
/// # Errors
/// When the server cannot be reached, does not let us create a database, or something is left when patience
/// runs out.
pub async fn moment(
    server: &PgConnectOptions,
    world: World,
    staffing: Staffing,
    crowds: Crowds,
) -> anyhow::Result<MomentFigures> {
    in_world(server, world.past_orders, async |options, pool| {
        moment::moment(options, pool, world, staffing, crowds).await
    })
    .await
}

/// Runs a measurement in a fresh lived-in database, which is dropped whatever happened.
async fn in_world<T>(
    server: &PgConnectOptions,
    past_orders: i32,
    measure: impl AsyncFnOnce(&PgConnectOptions, &PgPool) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let name = format!("cart_engine_bench_{}", uuid::Uuid::now_v7().simple());
    let mut admin = PgConnection::connect_with(server).await.context("the server cannot be reached")?;
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await?;
    let options = server.clone().database(&name);
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(10))
        .connect_lazy_with(options.clone());
    let measured = async {
        migrations::run(&pool).await?;
        // Counts statements where the server has it loaded; elsewhere they are not counted.
        let counted = sqlx::raw_sql("create extension if not exists pg_stat_statements").execute(&pool).await;
        if let Err(error) = counted {
            tracing::debug!(%error, "statements are not counted");
        }
        world::build(&pool, past_orders).await.context("the lived-in database could not be built")?;
        measure(&options, &pool).await
    }
    .await;
    pool.close().await;
    sqlx::raw_sql(AssertSqlSafe(format!("drop database if exists {name} with (force)"))).execute(&mut admin).await?;
    measured
}
