//! `cart-engine bench`: what is measured, and how.

use bench::{CartSettings, Crowds, Load, Staffing, World};
use clap::{Args, Subcommand};
use sqlx::postgres::PgConnectOptions;

use crate::{
    Ended,
    config::{Config, Worker},
    database::IfMissing,
    failure::Failure,
    maintain::on_database,
    print,
};

/// Seconds a measurement, orders before, and who comes at one moment, with `--quick`.
const QUICK_SECONDS: &str = "3";
const QUICK_ORDERS: &str = "10000";
const QUICK_CROWD: &str = "500";

/// What to measure, and how.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    work: Work,
}

/// The works that can be measured.
#[derive(Debug, Subcommand)]
enum Work {
    /// The production checkout, at saturation and at ten a second, beside the limits of the same run.
    Checkout {
        #[command(flatten)]
        sale: SaleArguments,
    },
    /// The same when every checkout takes the same variant.
    HotSku {
        #[command(flatten)]
        sale: SaleArguments,
    },
    /// Many holds, reminders and cancellations at one moment: how long until the last is done.
    Moment {
        #[command(flatten)]
        world: WorldArguments,
        #[command(flatten)]
        staff: StaffArguments,
        #[command(flatten)]
        crowds: CrowdsArguments,
    },
    /// Add-to-cart over HTTP by an API process, on a shop of many live carts: without Redis, with it, and
    /// while it is killed.
    Cart {
        #[command(flatten)]
        load: LoadArguments,
        #[command(flatten)]
        crowd: CrowdArguments,
    },
    /// The same business rows changed by three functions, one commit each, for one checkout and for sets: what
    /// this Postgres could do.
    Limit {
        /// Every checkout takes the same variant.
        #[arg(long)]
        hot: bool,
        #[command(flatten)]
        load: LoadArguments,
    },
}

/// A measurement that lasts for a time.
#[derive(Debug, Clone, Copy, Args)]
struct LoadArguments {
    /// Seconds to measure for.
    #[arg(long, default_value_t = 10, default_value_if("quick", "true", QUICK_SECONDS), value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    #[command(flatten)]
    world: WorldArguments,
}

/// What every work needs to know.
#[derive(Debug, Clone, Copy, Args)]
struct WorldArguments {
    /// Orders the shop has had before; fewer make a database that does not look lived-in.
    #[arg(long, default_value_t = 100_000, default_value_if("quick", "true", QUICK_ORDERS), value_parser = clap::value_parser!(i32).range(0..=5_000_000))]
    orders: i32,
    /// Which carts are drawn.
    #[arg(long, default_value_t = 1)]
    seed: i64,
    /// Less of everything, so that checkouts take half a minute in all; not for quoting.
    #[arg(long)]
    quick: bool,
    /// Ends with one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

impl LoadArguments {
    fn load(self) -> Load {
        Load { seconds: self.seconds, world: self.world.world() }
    }
}

impl WorldArguments {
    fn world(self) -> World {
        let WorldArguments { orders, seed, quick, json: _ } = self;
        World { past_orders: orders, seed, quick }
    }
}

/// Who carries the runs out.
#[derive(Debug, Clone, Copy, Args)]
struct StaffArguments {
    /// Worker pools in this process.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=16))]
    workers: u64,
}

impl StaffArguments {
    fn staffing(self) -> Staffing {
        Staffing { workers: self.workers as usize, connections: Worker::default().connections }
    }
}

/// Who keeps them busy.
#[derive(Debug, Clone, Copy, Args)]
struct SaleArguments {
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    staff: StaffArguments,
    /// Checkouts under way at saturation.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1024))]
    concurrency: u64,
}

/// How many come at one moment.
#[derive(Debug, Clone, Copy, Args)]
struct CrowdsArguments {
    /// Checkouts that wait for a payment, whose window and hold end.
    #[arg(long, value_name = "N", default_value_t = 10_000, default_value_if("quick", "true", QUICK_CROWD), value_parser = clap::value_parser!(u32).range(1..=100_000))]
    holds: u32,
    /// Carts left behind, whose reminders are due.
    #[arg(long, value_name = "N", default_value_t = 10_000, default_value_if("quick", "true", QUICK_CROWD), value_parser = clap::value_parser!(u32).range(1..=100_000))]
    reminders: u32,
    /// Orders of one variant that are cancelled.
    #[arg(long, value_name = "N", default_value_t = 5_000, default_value_if("quick", "true", QUICK_CROWD), value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cancellations: u32,
}

/// Who fills the carts.
#[derive(Debug, Clone, Args)]
struct CrowdArguments {
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

/// Measures the shop in a database of its own on the configured server.
///
/// # Errors
/// A server that cannot be reached, or a checkout that fails.
pub(crate) async fn run(arguments: BenchArguments, config: &Config) -> Result<Ended, Failure> {
    let sound = on_database(config, IfMissing::Create, async |pool| {
        let measured = measure(arguments.work, &pool.connect_options(), config).await;
        measured.map_err(|error| Failure::new(format!("the bench failed: {error:#}")))
    })
    .await?;
    Ok(if sound { Ended::Well } else { Ended::Unsound })
}

/// Prints what it finds; false when the books did not balance, or something failed that must not.
async fn measure(work: Work, server: &PgConnectOptions, config: &Config) -> anyhow::Result<bool> {
    match work {
        Work::Checkout { sale } => sell(server, sale, false).await,
        Work::HotSku { sale } => sell(server, sale, true).await,
        Work::Limit { hot, load } => {
            let figures = bench::limit(server, load.load(), hot).await?;
            print(&figures, load.world.json)?;
            Ok(figures.is_sound())
        }
        Work::Moment { world, staff, crowds } => {
            let CrowdsArguments { holds, reminders, cancellations } = crowds;
            let crowds = Crowds { holds, reminders, cancellations };
            let figures = bench::moment(server, world.world(), staff.staffing(), crowds).await?;
            print(&figures, world.json)?;
            Ok(figures.is_sound())
        }
        Work::Cart { load, crowd } => {
            let settings = CartSettings {
                carts: crowd.carts,
                skus: crowd.skus,
                concurrency: crowd.concurrency as usize,
                rates: crowd.rate,
                redis: config.redis.url.clone(),
            };
            let figures = bench::cart(server, load.load(), &settings).await?;
            print(&figures, load.world.json)?;
            Ok(figures.is_sound())
        }
    }
}

async fn sell(server: &PgConnectOptions, sale: SaleArguments, hot: bool) -> anyhow::Result<bool> {
    let SaleArguments { load, staff, concurrency } = sale;
    let figures = bench::checkout(server, load.load(), staff.staffing(), concurrency as usize, hot).await?;
    print(&figures, load.world.json)?;
    Ok(figures.is_sound())
}
