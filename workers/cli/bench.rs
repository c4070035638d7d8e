//! `cart-engine bench`: what the shop does at saturation, beside what Postgres itself could do.
//!
//! Each run has a database of its own, lived-in from the start, on the server it is pointed at, and
//! drops it at the end.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use secrecy::SecretString;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

mod cart;
mod cart_figures;
mod checkout;
mod figures;
mod limit;
mod world;

pub(crate) use figures::Figures;

/// What to measure, and how.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    work: Work,
}

/// The works that can be measured.
#[derive(Debug, Subcommand)]
enum Work {
    /// The production checkout, at saturation and at ten a second, beside the limit of the same run.
    Checkout {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        staff: Staff,
    },
    /// The same when every checkout takes the same variant.
    HotSku {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        staff: Staff,
    },
    /// Add-to-cart over HTTP by an API process, on a shop of many live carts: without Redis, with it, and
    /// while it is killed.
    Cart {
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        crowd: Crowd,
    },
    /// The same business rows changed by three functions, one commit each: what this Postgres could do.
    Limit {
        /// Every checkout takes the same variant.
        #[arg(long)]
        hot: bool,
        #[command(flatten)]
        load: Load,
    },
}

/// What every work needs to know.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Load {
    /// Seconds to measure for.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Orders the shop has had before; fewer make a database that does not look lived-in.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(i32).range(0..=5_000_000))]
    pub(crate) orders: i32,
    /// Which carts are drawn.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: i64,
    /// Ends with one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who carries the checkouts out.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Staff {
    /// Worker pools in this process.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=16))]
    workers: u64,
    /// Checkouts under way at saturation.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    concurrency: u64,
}

/// Who fills the carts.
#[derive(Debug, Clone, Args)]
pub(crate) struct Crowd {
    /// Live carts; every hundredth has 200 lines.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    carts: u32,
    /// Variants that are put into carts.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    skus: u32,
    /// Requests in flight at saturation.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=500))]
    concurrency: u64,
    /// Requests a second at which latency is measured besides.
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_values_t = [300, 1_000], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Vec<u32>,
}

/// Measures, prints the figures, and returns whether the books balanced and nothing failed that must not.
/// `redis` is one that is there already; where one is needed and none is named, the installed one is
/// started.
///
/// # Errors
/// When the server cannot be reached, does not let us create a database, or a checkout fails.
pub(crate) async fn run(
    args: &BenchArgs,
    server: &PgConnectOptions,
    redis: Option<SecretString>,
) -> anyhow::Result<bool> {
    match &args.work {
        Work::Checkout { load, staff } => sell(server, *load, *staff, false).await,
        Work::HotSku { load, staff } => sell(server, *load, *staff, true).await,
        Work::Cart { load, crowd } => {
            let settings = cart::CartSettings {
                seconds: load.seconds,
                seed: load.seed,
                carts: crowd.carts,
                skus: crowd.skus,
                concurrency: crowd.concurrency as usize,
                rates: crowd.rate.clone(),
                redis,
            };
            let figures =
                in_world(server, load.orders, async |options, pool| cart::cart(options, pool, &settings).await).await?;
            figures.print(load.json)?;
            Ok(figures.is_sound())
        }
        Work::Limit { hot, load } => {
            let figures = in_world(server, load.orders, async |options, pool| {
                let limit = limit::limit(
                    options,
                    pool,
                    &limit::LimitSettings { seconds: load.seconds, hot: *hot, seed: load.seed },
                )
                .await?;
                let books = workflows::audit::books(pool).await.context("the books could not be read")?;
                let mut settings = figures::server_settings(pool).await?;
                settings.extend([
                    ("work".to_owned(), if *hot { "limit, hot" } else { "limit" }.to_owned()),
                    ("seconds".to_owned(), load.seconds.to_string()),
                    ("past_orders".to_owned(), load.orders.to_string()),
                    ("clients".to_owned(), limit.clients.to_string()),
                ]);
                Ok(Figures::of_limit(&limit, books.balanced, settings))
            })
            .await?;
            figures.print(load.json)?;
            Ok(figures.books_balanced)
        }
    }
}

async fn sell(server: &PgConnectOptions, load: Load, staff: Staff, hot: bool) -> anyhow::Result<bool> {
    let settings = checkout::CheckoutSettings {
        seconds: load.seconds,
        hot,
        seed: load.seed,
        in_flight: staff.concurrency as usize,
        workers: staff.workers as usize,
        concurrency: 32,
    };
    let figures =
        in_world(server, load.orders, async |options, pool| checkout::checkout(options, pool, settings).await).await?;
    figures.print(load.json)?;
    Ok(figures.books_balanced)
}

/// Runs a measurement in a fresh lived-in database, which is dropped whatever happened.
pub(crate) async fn in_world<T>(
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
