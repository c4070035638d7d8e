//! `cart-engine demo`: a day in a shop of its own. Simulated shoppers come over HTTP and leave in every
//! way a checkout can end, each of them checks what it sees, and at the end the books must balance.

mod counter;
mod outcome;
mod progress;
mod report;
mod shelf;
mod storefront;
mod visit;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clap::Args;
use engine::{RunStatus, Workflow as _, inspect};
use futures::{StreamExt as _, stream};
use rand::{SeedableRng as _, rngs::StdRng};
use sqlx::PgPool;
use workflows::{Rules, audit, checkout::Checkout};

use self::{
    outcome::cast,
    progress::{Progress, note},
    report::{Report, Runs},
    shelf::Shelf,
    storefront::{Storefront, Surprise},
    visit::{Shopper, Visited, Waiting, play, play_until_waiting},
};
use crate::{
    Ended,
    config::{self, Config},
    dev,
    failure::Failure,
    outside, say,
    shutdown::Stop,
};

/// Shoppers in the shop at once.
const AT_ONCE: usize = 24;

/// How long runs may take to end after the last shopper has gone.
const SETTLING: Duration = Duration::from_secs(60);

/// After which the shop reminds of a cart, and a minute for the schedule that looks for it.
const IDLE: Duration = Duration::from_secs(3_720);

/// How often it is looked at whether they have.
const LOOK: Duration = Duration::from_millis(250);

/// Statuses of a run that somebody has in hand or will have soon. Of those that wait only checkouts are
/// waited for: others may wait for days, such as for a courier.
const IN_MOTION: [RunStatus; 4] =
    [RunStatus::Pending, RunStatus::Running, RunStatus::Retrying, RunStatus::Compensating];

/// Runs counted at most.
const MOST_RUNS: i64 = 10_000;

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

impl From<Surprise> for Failure {
    fn from(surprise: Surprise) -> Self {
        Failure::caused_by("the demo's shop does not answer", &surprise)
    }
}

/// Opens a shop, lets the shoppers in, closes it, and prints what came of it.
///
/// # Errors
/// A shop that does not open, or fails while it is open.
pub(crate) async fn run(arguments: DemoArguments, config: &Config) -> Result<Ended, Failure> {
    let begun = Instant::now();
    let mut stop = Stop::listen()?;
    let options = dev::Options { config: for_demo(config), ephemeral: true, workers: 1, progress: note };
    let mut running = tokio::select! {
        started = dev::start(options) => started?,
        () = stop.asked() => return Err(interrupted()),
    };
    let client = outside::client(&running.base_url)?;
    let shop = Storefront::new(client, running.base_url.clone(), running.sandbox_url.clone());
    let pool = running.pool.clone();
    let day = tokio::select! {
        day = day(&shop, &pool, arguments) => day,
        failure = running.ended() => Err(failure),
        () = stop.asked() => Err(interrupted()),
    };
    stop.exit_on_next();
    let stopped = running.stop().await;
    let report = Report { seconds: begun.elapsed().as_secs_f64(), ..day? };
    stopped?;
    say(&if arguments.json { serde_json::to_string(&report)? } else { report.to_string() });
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

async fn day(shop: &Storefront, pool: &PgPool, arguments: DemoArguments) -> Result<Report, Failure> {
    let DemoArguments { shoppers, seed, json } = arguments;
    let mut random = StdRng::seed_from_u64(seed);
    let cast = cast(shoppers as usize, &mut random);
    let mut shelf = Shelf::of(&shop.products().await?);
    let mut queue = Vec::with_capacity(cast.len());
    for (index, outcome) in cast.iter().enumerate() {
        let basket = shelf.basket(*outcome, &mut random);
        let basket = basket.ok_or_else(|| Failure::new("the demo catalogue has not enough for so many shoppers"))?;
        queue.push(Shopper { number: index + 1, outcome: *outcome, basket });
    }
    let progress = Progress::of(&cast, !json);
    let visits = visit_all(shop, queue, &progress).await;
    progress.end();
    let visits = visits?;

    note("waiting until every run has ended");
    let runs = settled(pool).await?;
    note("checking the books");
    let books = audit::books(pool).await?;
    let (outcomes, mismatches) = report::tally(&visits);
    Ok(Report {
        shoppers: visits.len(),
        seed,
        outcomes,
        mismatches,
        books,
        runs,
        mails: mails(pool).await?,
        seconds: 0.0,
    })
}

/// Lets everybody in. Those who need the clock to move come when the others have gone: it would move for
/// these too.
async fn visit_all(shop: &Storefront, queue: Vec<Shopper>, progress: &Progress) -> Result<Vec<Visited>, Failure> {
    let gone = |visited: Visited| {
        progress.gone(visited.outcome);
        visited
    };
    let (patient, others): (Vec<Shopper>, Vec<Shopper>) =
        queue.into_iter().partition(|shopper| shopper.outcome.needs_clock());
    let mut visits: Vec<Visited> =
        stream::iter(others).map(|shopper| play(shop, shopper)).buffer_unordered(AT_ONCE).map(gone).collect().await;
    if patient.is_empty() {
        return Ok(visits);
    }
    let waiting: Vec<Waiting<'_>> = stream::iter(patient)
        .map(|shopper| play_until_waiting(shop, shopper))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    progress.tell("moving the clock past the payment window");
    shop.advance_clock(Duration::from_secs(Rules::default().payment_window_s + 1)).await?;
    let (reminded, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(Waiting::is_reminded);
    let ended = stream::iter(waiting).map(Waiting::play_on).buffer_unordered(AT_ONCE).map(gone);
    visits.extend(ended.collect::<Vec<_>>().await);
    if !reminded.is_empty() {
        progress.tell("moving the clock by more than an hour of idleness");
        shop.advance_clock(IDLE).await?;
        let ended = stream::iter(reminded).map(Waiting::play_on).buffer_unordered(AT_ONCE).map(gone);
        visits.extend(ended.collect::<Vec<_>>().await);
    }
    Ok(visits)
}

/// Waits, but not for ever, until no run is under way; returns what was left.
async fn settled(pool: &PgPool) -> Result<Runs, Failure> {
    let begun = Instant::now();
    loop {
        let mut unfinished = count(pool, Some(Checkout::NAME), RunStatus::Waiting).await?;
        for status in IN_MOTION {
            unfinished += count(pool, None, status).await?;
        }
        let runs = Runs { unfinished, parked: count(pool, None, RunStatus::Stuck).await? };
        if runs.unfinished == 0 || begun.elapsed() >= SETTLING {
            return Ok(runs);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn count(pool: &PgPool, workflow: Option<&str>, status: RunStatus) -> Result<usize, Failure> {
    Ok(inspect::runs(pool, workflow, Some(status), MOST_RUNS).await?.len())
}

/// What the development mailbox holds, by event.
async fn mails(pool: &PgPool) -> Result<BTreeMap<String, i64>, Failure> {
    let counts: Vec<(String, i64)> =
        sqlx::query_as("select event, count(*) from dev.mailbox group by event").fetch_all(pool).await?;
    Ok(counts.into_iter().collect())
}
