//! A day in a development shop. Simulated shoppers come over HTTP and leave in every way a checkout can
//! end, each of them checks what it sees, and at the end the books must balance.
//!
//! What must not live here: opening the shop, or writing into its database.

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

use anyhow::Context as _;
use engine::{RunStatus, Workflow as _, inspect};
use futures::{StreamExt as _, stream};
use rand::{SeedableRng as _, rngs::StdRng};
use sqlx::PgPool;
use workflows::{Rules, audit, checkout::Checkout};

use self::{
    outcome::cast,
    progress::Progress,
    report::Runs,
    shelf::Shelf,
    storefront::Storefront,
    visit::{Shopper, Visited, Waiting, play, play_until_waiting},
};
pub use self::{progress::note, report::Report};

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

/// What is wrong when the shop surprises nobody in particular.
const SILENT: &str = "the demo's shop does not answer";

/// Runs counted at most.
const MOST_RUNS: i64 = 10_000;

/// An open development shop, and how it is spoken to.
#[derive(Debug)]
pub struct Premises {
    /// Sends what the shoppers say.
    pub client: reqwest::Client,
    /// Where the API is reached, without a trailing slash.
    pub base_url: String,
    /// Where the sandbox gateway is reached, without a trailing slash.
    pub sandbox_url: String,
    /// Its database, for whoever wants to look.
    pub pool: PgPool,
}

/// Lets so many shoppers in, `seed` chooses who does what, and tells what came of it. `bars` shows a bar an
/// outcome on a terminal.
///
/// # Errors
/// A shop that does not answer. What shoppers meet that they should not is in the report.
pub async fn day(premises: Premises, shoppers: u32, seed: u64, bars: bool) -> anyhow::Result<Report> {
    let Premises { client, base_url, sandbox_url, pool } = premises;
    let shop = &Storefront::new(client, base_url, sandbox_url);
    let mut random = StdRng::seed_from_u64(seed);
    let cast = cast(shoppers as usize, &mut random);
    let mut shelf = Shelf::of(&shop.products().await.context(SILENT)?);
    let mut queue = Vec::with_capacity(cast.len());
    for (index, outcome) in cast.iter().enumerate() {
        let basket = shelf.basket(*outcome, &mut random);
        let basket = basket.context("the demo catalogue has not enough for so many shoppers")?;
        queue.push(Shopper { number: index + 1, outcome: *outcome, basket });
    }
    let progress = Progress::of(&cast, bars);
    let visits = visit_all(shop, queue, &progress).await;
    progress.end();
    let visits = visits?;

    note("waiting until every run has ended");
    let runs = settled(&pool).await?;
    note("checking the books");
    let books = audit::books(&pool).await?;
    let (outcomes, mismatches) = report::tally(&visits);
    Ok(Report {
        shoppers: visits.len(),
        seed,
        outcomes,
        mismatches,
        books,
        runs,
        mails: mails(&pool).await?,
        seconds: 0.0,
    })
}

/// Lets everybody in. Those who need the clock to move come when the others have gone: it would move for
/// these too.
async fn visit_all(shop: &Storefront, queue: Vec<Shopper>, progress: &Progress) -> anyhow::Result<Vec<Visited>> {
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
    shop.advance_clock(Duration::from_secs(Rules::default().payment_window_s + 1)).await.context(SILENT)?;
    let (reminded, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(Waiting::is_reminded);
    let ended = stream::iter(waiting).map(Waiting::play_on).buffer_unordered(AT_ONCE).map(gone);
    visits.extend(ended.collect::<Vec<_>>().await);
    if !reminded.is_empty() {
        progress.tell("moving the clock by more than an hour of idleness");
        shop.advance_clock(IDLE).await.context(SILENT)?;
        let ended = stream::iter(reminded).map(Waiting::play_on).buffer_unordered(AT_ONCE).map(gone);
        visits.extend(ended.collect::<Vec<_>>().await);
    }
    Ok(visits)
}

/// Waits, but not for ever, until no run is under way; returns what was left.
async fn settled(pool: &PgPool) -> anyhow::Result<Runs> {
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

async fn count(pool: &PgPool, workflow: Option<&str>, status: RunStatus) -> anyhow::Result<usize> {
    Ok(inspect::runs(pool, workflow, Some(status), MOST_RUNS).await?.len())
}

/// What the development mailbox holds, by event.
async fn mails(pool: &PgPool) -> anyhow::Result<BTreeMap<String, i64>> {
    let counts: Vec<(String, i64)> =
        sqlx::query_as("select event, count(*) from dev.mailbox group by event").fetch_all(pool).await?;
    Ok(counts.into_iter().collect())
}
