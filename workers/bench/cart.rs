//! `bench cart`: add-to-cart over HTTP, on a shop with many live carts, by an API process of its own; without
//! Redis, with it, and while it dies.

mod crowd;
mod load;
mod processes;

use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{PgPool, postgres::PgConnectOptions};

pub(super) use self::load::Driven;
use self::{
    crowd::Crowd,
    load::{Load, Pace},
    processes::{Api, OwnRedis, answering, keys},
};
use super::{
    cart_figures::{CartFigures, Phase, Rates, Steady},
    figures,
};

/// Who fills the carts.
#[derive(Debug, Clone)]
pub struct CartSettings {
    /// Live carts; every hundredth has 200 lines.
    pub carts: u32,
    /// Variants that are added.
    pub skus: u32,
    /// Requests in flight at saturation.
    pub concurrency: usize,
    /// Requests a second at which latency is measured.
    pub rates: Vec<u32>,
    /// A Redis that is there already; without one the installed one is started.
    pub redis: Option<SecretString>,
}

/// Before figures are taken: connections open, caches fill, plans settle.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long reading every cart once may take; those that were not read have no copy.
const READING: Duration = Duration::from_secs(90);

/// Measures each phase with a fresh API process.
///
/// # Errors
/// When a process does not start, or the database does not answer. Requests that fail are figures.
pub(crate) async fn cart(
    options: &PgConnectOptions,
    pool: &PgPool,
    load: super::Load,
    settings: &CartSettings,
) -> anyhow::Result<CartFigures> {
    let crowd = Crowd::gather(pool, load.world.seed, settings).await.context("the live carts could not be written")?;
    let bench = Bench { options, settings, crowd, time: Duration::from_secs(load.seconds) };
    let mut phases = vec![bench.measure("without Redis", None).await?];
    let mut left_out = Vec::new();

    let mut own = OwnRedis::start().await?;
    let given = settings.redis.as_ref().map(ExposeSecret::expose_secret);
    match given.or(own.as_ref().map(OwnRedis::url)) {
        Some(url) => phases.push(bench.measure("with Redis", Some(url)).await?),
        None => left_out.push("with Redis: REDIS_URL is not set and no redis-server is installed".to_owned()),
    }
    match &mut own {
        Some(redis) => phases.push(bench.outlive(redis).await?),
        None => left_out.push("Redis killed half-way: no redis-server is installed".to_owned()),
    }
    for phase in &left_out {
        eprintln!("NOT MEASURED: {phase}");
    }

    let books = workflows::audit::books(pool).await.context("the books could not be read")?;
    for breach in &books.breaches {
        eprintln!("breach: {breach:?}");
    }
    let mut shown = figures::settings(pool, "add to cart and read it, over HTTP", load.world).await?;
    shown.extend([
        ("seconds".to_owned(), load.seconds.to_string()),
        ("carts".to_owned(), settings.carts.to_string()),
        ("carts_of_200_lines".to_owned(), bench.crowd.big().to_string()),
        ("skus".to_owned(), settings.skus.to_string()),
        ("in_flight".to_owned(), settings.concurrency.to_string()),
        ("adds_in_100".to_owned(), crowd::ADDS_IN_100.to_string()),
    ]);
    Ok(CartFigures { phases, left_out, books_balanced: books.balanced, settings: shown })
}

/// What every phase has in common.
struct Bench<'a> {
    options: &'a PgConnectOptions,
    settings: &'a CartSettings,
    crowd: Crowd,
    /// Of each measurement.
    time: Duration,
}

impl Bench<'_> {
    fn load<'a>(&'a self, api: &'a Api, pace: Pace, time: Duration) -> Load<'a> {
        Load { crowd: &self.crowd, api, pace, clients: self.settings.concurrency, time }
    }

    /// Saturation first, then each rate.
    async fn measure(&self, name: &str, redis: Option<&str>) -> anyhow::Result<Phase> {
        let (api, copies) = self.open(redis).await?;
        let warm_up = self.load(&api, Pace::FlatOut, WARM_UP.min(self.time)).drive().await?;
        let saturated = self.load(&api, Pace::FlatOut, self.time).drive().await?;
        let mut phase = phase(name, copies, &saturated);
        phase.blame(&warm_up);
        for &rate in &self.settings.rates {
            let load = self.load(&api, Pace::PerSecond(rate), self.time);
            // Enough clients that a request is rarely late for want of one.
            let driven = Load { clients: load.clients.max(256), ..load }.drive().await?;
            phase.blame(&driven);
            phase.steady.push(Steady { rate_per_s: rate, requests: Rates::of(&driven) });
        }
        phase.memory = api.stop().await?;
        Ok(phase)
    }

    /// At saturation, while the Redis is killed half-way.
    async fn outlive(&self, redis: &mut OwnRedis) -> anyhow::Result<Phase> {
        let (api, copies) = self.open(Some(redis.url())).await?;
        let warm_up = self.load(&api, Pace::FlatOut, WARM_UP.min(self.time)).drive().await?;
        let load = self.load(&api, Pace::FlatOut, self.time);
        let half_way = async {
            tokio::time::sleep(self.time / 2).await;
            redis.kill().await
        };
        let (driven, killed) = tokio::join!(load.drive(), half_way);
        let (driven, ()) = (driven?, killed?);
        let mut phase = phase("Redis killed half-way", copies, &driven);
        phase.blame(&warm_up);
        phase.memory = api.stop().await?;
        Ok(phase)
    }

    /// An API process; with a Redis, one in which there are the copies of as many carts as could be read.
    async fn open(&self, redis: Option<&str>) -> anyhow::Result<(Api, Option<u64>)> {
        let api = Api::start(self.options, self.crowd.secret(), redis).await?;
        let Some(url) = redis else { return Ok((api, None)) };
        let redis = answering(url).await?;
        if keys(&redis).await? < self.crowd.len() as u64 {
            self.load(&api, Pace::OnceEach, READING).drive().await?;
        }
        let copies = keys(&redis).await?;
        anyhow::ensure!(copies > 0, "the API leaves no copies in Redis");
        Ok((api, Some(copies)))
    }
}

fn phase(name: &str, copies_in_redis: Option<u64>, saturated: &Driven) -> Phase {
    let mut phase = Phase {
        name: name.to_owned(),
        saturated: Rates::of(saturated),
        steady: Vec::new(),
        copies_in_redis,
        failed: 0,
        first_failure: None,
        memory: None,
    };
    phase.blame(saturated);
    phase
}
