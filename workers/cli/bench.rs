//! `cart-engine bench`: what is measured, and how.

use bench::{CartSettings, Load, Staffing};
use clap::{Args, Subcommand};

use crate::{
    Ended,
    config::{Config, Worker},
    database::IfMissing,
    failure::Failure,
    maintain::on_database,
    print,
};

/// Seconds a measurement, and orders before, with `--quick`.
const QUICK_SECONDS: &str = "3";
const QUICK_ORDERS: &str = "20000";

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
        load: LoadArguments,
        #[command(flatten)]
        staff: StaffArguments,
    },
    /// The same when every checkout takes the same variant.
    HotSku {
        #[command(flatten)]
        load: LoadArguments,
        #[command(flatten)]
        staff: StaffArguments,
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

/// What every work needs to know.
#[derive(Debug, Clone, Copy, Args)]
struct LoadArguments {
    /// Seconds to measure for.
    #[arg(long, default_value_t = 10, default_value_if("quick", "true", QUICK_SECONDS), value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Orders the shop has had before; fewer make a database that does not look lived-in.
    #[arg(long, default_value_t = 100_000, default_value_if("quick", "true", QUICK_ORDERS), value_parser = clap::value_parser!(i32).range(0..=5_000_000))]
    orders: i32,
    /// Which carts are drawn.
    #[arg(long, default_value_t = 1)]
    seed: i64,
    /// Half a minute in all: fewer orders before, 3 seconds a measurement; not for quoting.
    #[arg(long)]
    quick: bool,
    /// Ends with one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

impl LoadArguments {
    fn load(self) -> Load {
        let LoadArguments { seconds, orders, seed, quick, json: _ } = self;
        Load { seconds, past_orders: orders, seed, quick }
    }
}

/// Who carries the checkouts out.
#[derive(Debug, Clone, Copy, Args)]
struct StaffArguments {
    /// Worker pools in this process.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=16))]
    workers: u64,
    /// Checkouts under way at saturation.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    concurrency: u64,
}

impl StaffArguments {
    fn staffing(self) -> Staffing {
        Staffing {
            workers: self.workers as usize,
            connections: Worker::default().connections,
            in_flight: self.concurrency as usize,
        }
    }
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
        let server = pool.connect_options();
        match arguments.work {
            Work::Checkout { load, staff } => {
                let figures = bench::checkout(&server, load.load(), staff.staffing(), false).await;
                let figures = figures.map_err(|error| failed(&error))?;
                print(&figures, load.json)?;
                Ok(figures.is_sound())
            }
            Work::HotSku { load, staff } => {
                let figures = bench::checkout(&server, load.load(), staff.staffing(), true).await;
                let figures = figures.map_err(|error| failed(&error))?;
                print(&figures, load.json)?;
                Ok(figures.is_sound())
            }
            Work::Limit { hot, load } => {
                let figures = bench::limit(&server, load.load(), hot).await.map_err(|error| failed(&error))?;
                print(&figures, load.json)?;
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
                let figures = bench::cart(&server, load.load(), &settings).await.map_err(|error| failed(&error))?;
                print(&figures, load.json)?;
                Ok(figures.is_sound())
            }
        }
    })
    .await?;
    Ok(if sound { Ended::Well } else { Ended::Unsound })
}

fn failed(error: &anyhow::Error) -> Failure {
    Failure::new(format!("the bench failed: {error:#}"))
}
