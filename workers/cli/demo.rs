//! `cart-engine demo`: opens a shop of its own for a day of simulated shoppers.

use std::time::Instant;

use clap::Args;
use demo::{Premises, note};

use crate::{
    Ended,
    config::{self, Config},
    dev,
    failure::Failure,
    outside, print,
    shutdown::Stop,
};

/// What the demo is asked for.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DemoArguments {
    /// Simulated shoppers
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1000))]
    shoppers: u32,
    /// Chooses who does what
    #[arg(long, value_name = "S", default_value_t = 20_260_101)]
    seed: u64,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Opens a shop, lets the shoppers in, closes it, and prints what came of it.
///
/// # Errors
/// A shop that does not open, or fails while it is open.
pub(crate) async fn run(arguments: DemoArguments, config: &Config) -> Result<Ended, Failure> {
    let DemoArguments { shoppers, seed, json } = arguments;
    let begun = Instant::now();
    let mut stop = Stop::listen()?;
    let options = dev::Options { config: for_demo(config), ephemeral: true, workers: 1, progress: note };
    let mut running = tokio::select! {
        started = dev::start(options) => started?,
        () = stop.asked() => return Err(interrupted()),
    };
    let premises = Premises {
        client: outside::client(&running.base_url)?,
        base_url: running.base_url.clone(),
        sandbox_url: running.sandbox_url.clone(),
        pool: running.pool.clone(),
    };
    let day = tokio::select! {
        day = demo::day(premises, shoppers, seed, !json) => day.map_err(Failure::from),
        failure = running.ended() => Err(failure),
        () = stop.asked() => Err(interrupted()),
    };
    stop.exit_on_next();
    let stopped = running.stop().await;
    let mut report = day?;
    report.seconds = begun.elapsed().as_secs_f64();
    stopped?;
    print(&report, json)?;
    Ok(if report.is_sound() { Ended::Well } else { Ended::Unsound })
}

/// What is known about the demo's shop must hold whatever is configured for another one: it has its own
/// database, gateway, mailbox and port, and the rules that its shoppers rely on.
fn for_demo(config: &Config) -> Config {
    if config.database.url.is_some() {
        note("the configured database is left alone: the demo makes one of its own");
    }
    Config {
        database: config::Database { url: None, ..config.database.clone() },
        api: config::Api { listen: "127.0.0.1:0".to_owned(), ..config::Api::default() },
        ..Config::default()
    }
}

fn interrupted() -> Failure {
    Failure::new("the demo was interrupted")
}
