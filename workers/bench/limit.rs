//! The limits: what this Postgres could do with the same business rows, without journal, runs and tickets,
//! from as many clients as serve this machine best. One is for a checkout by itself: three prepared functions,
//! one commit each. The other is for sets of checkouts, by the same three in statements for many; it is
//! three commits as well, a set, because a gateway's answer lies between them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    Load,
    figures::{Counters, latencies, millis},
    world::{Cart, prepare_carts},
};

/// How many checkouts go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Together {
    /// One.
    Alone,
    /// [`SET`].
    InSets,
}

/// Checkouts in a set: as many as a production set may have.
pub(crate) const SET: usize = 64;
/// How long each client count is tried.
const TRIAL: Duration = Duration::from_secs(2);
/// Carts made for a trial; one that sells them all before its time is over is judged by the time it took.
const TRIAL_CARTS: i32 = 10_000;
/// The same, when there is little time: two counts are tried.
const QUICK_TRIAL: Duration = Duration::from_secs(1);
const QUICK_TRIAL_CARTS: i32 = 2_000;
const QUICK_TRIALS: usize = 2;
/// No run is given more carts than this: at 5,000 a second they last over three minutes.
const MOST_CARTS: f64 = 1_000_000.0;

impl Together {
    /// Client counts that are tried; the best is measured.
    fn clients(self) -> [usize; 4] {
        match self {
            Together::Alone => [4, 8, 16, 24],
            // A set keeps a core busy for milliseconds: more clients than cores wait for each other's stock.
            Together::InSets => [1, 2, 4, 8],
        }
    }

    fn size(self) -> usize {
        match self {
            Together::Alone => 1,
            Together::InSets => SET,
        }
    }

    /// Added to the seed, so that no two draw the same carts.
    fn offset(self) -> i64 {
        match self {
            Together::Alone => 0,
            Together::InSets => 10,
        }
    }
}

/// What the limit was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitFigures {
    /// Client count that served best.
    pub(crate) clients: usize,
    /// Checkouts a second.
    pub(crate) checkouts_per_s: f64,
    /// Commits a checkout, as Postgres counts them.
    pub(crate) commits_per_checkout: f64,
    /// Bytes of write-ahead log a checkout.
    pub(crate) wal_bytes_per_checkout: f64,
    /// Statements a checkout.
    pub(crate) statements_per_checkout: f64,
    /// Median of a checkout's three commits together, in milliseconds, at saturation.
    pub(crate) p50_ms: f64,
    /// 99th percentile of the same.
    pub(crate) p99_ms: f64,
    /// Median of a one-row commit with nothing else going on, in milliseconds.
    pub(crate) commit_ms: f64,
    /// The other limit.
    pub(crate) sets: SetLimitFigures,
}

/// What the limit for sets was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetLimitFigures {
    /// Client count that served best.
    pub(crate) clients: usize,
    /// Checkouts a second.
    pub(crate) checkouts_per_s: f64,
    /// Commits a checkout.
    pub(crate) commits_per_checkout: f64,
    /// Bytes of write-ahead log a checkout.
    pub(crate) wal_bytes_per_checkout: f64,
    /// Median of a set's three commits together, in milliseconds, at saturation.
    pub(crate) p50_ms: f64,
}

/// Finds the best client count of each and measures it.
///
/// # Errors
/// When the database does not answer or a checkout fails.
pub(crate) async fn limit(
    options: &PgConnectOptions,
    pool: &PgPool,
    load: Load,
    hot: bool,
) -> anyhow::Result<LimitFigures> {
    let commit_ms = commit_ms(pool).await?;
    let alone = Measured::of(options, pool, load, hot, Together::Alone).await?;
    let sets = Measured::of(options, pool, load, hot, Together::InSets).await?;
    Ok(LimitFigures {
        clients: alone.clients,
        checkouts_per_s: alone.sale.rate(),
        commits_per_checkout: alone.a_checkout(alone.spent.commits),
        wal_bytes_per_checkout: alone.a_checkout(alone.spent.wal_bytes),
        // The three that the client sends; where they are counted at all, their insides would be too.
        statements_per_checkout: 3.0,
        p50_ms: millis(&alone.sale.latency_us, 0.50),
        p99_ms: millis(&alone.sale.latency_us, 0.99),
        commit_ms,
        sets: SetLimitFigures {
            clients: sets.clients,
            checkouts_per_s: sets.sale.rate(),
            commits_per_checkout: sets.a_checkout(sets.spent.commits),
            wal_bytes_per_checkout: sets.a_checkout(sets.spent.wal_bytes),
            p50_ms: millis(&sets.sale.latency_us, 0.50),
        },
    })
}

/// Median latency of a one-row commit, in milliseconds.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn commit_ms(pool: &PgPool) -> anyhow::Result<f64> {
    let mut conn = pool.acquire().await?;
    let mut latency_us = latencies()?;
    for _ in 0..300 {
        let start = Instant::now();
        sqlx::query("update bench.tick set n = n + 1").execute(&mut *conn).await?;
        latency_us.saturating_record(start.elapsed().as_micros() as u64);
    }
    Ok(millis(&latency_us, 0.50))
}

/// The sale by the client count that served best.
struct Measured {
    clients: usize,
    sale: Sale,
    spent: Counters,
}

impl Measured {
    async fn of(
        options: &PgConnectOptions,
        pool: &PgPool,
        load: Load,
        hot: bool,
        together: Together,
    ) -> anyhow::Result<Measured> {
        let seed = load.world.seed + together.offset();
        let tried = together.clients();
        let (trial, trial_carts, trials) = if load.world.quick {
            (QUICK_TRIAL, QUICK_TRIAL_CARTS, QUICK_TRIALS)
        } else {
            (TRIAL, TRIAL_CARTS, tried.len())
        };
        let mut best = (0.0, tried[0]);
        for (seed, clients) in (seed..).zip(tried).skip(tried.len() - trials) {
            let carts = prepare_carts(pool, trial_carts, hot, seed).await?;
            let rate = Sale::hold(options, carts, clients, trial, together).await?.rate();
            if rate > best.0 {
                best = (rate, clients);
            }
        }
        let (rate, clients) = best;
        let wanted = (rate * load.seconds as f64 * 1.25 + 1_000.0).min(MOST_CARTS) as i32;
        let carts = prepare_carts(pool, wanted, hot, seed + tried.len() as i64).await?;

        let before = Counters::settled(pool, load.world).await?;
        let sale = Sale::hold(options, carts, clients, Duration::from_secs(load.seconds), together).await?;
        let spent = Counters::settled(pool, load.world).await?.since(&before);
        Ok(Measured { clients, sale, spent })
    }

    fn a_checkout(&self, count: i64) -> f64 {
        count as f64 / self.sale.sold.max(1) as f64
    }
}

/// Clients that sold carts for a while.
struct Sale {
    /// Of a checkout, or of a set.
    latency_us: Histogram<u64>,
    sold: usize,
    took: Duration,
}

impl Sale {
    fn rate(&self) -> f64 {
        self.sold as f64 / self.took.as_secs_f64()
    }

    /// Sells until the time is over or no cart is left.
    async fn hold(
        options: &PgConnectOptions,
        carts: Vec<Cart>,
        clients: usize,
        time: Duration,
        together: Together,
    ) -> anyhow::Result<Sale> {
        let carts = Arc::new(carts);
        let next = Arc::new(AtomicUsize::new(0));
        let mut connections = Vec::with_capacity(clients);
        for _ in 0..clients {
            connections.push(PgConnection::connect_with(options).await?);
        }
        let start = Instant::now();
        let mut selling = JoinSet::new();
        for mut conn in connections {
            let (carts, next) = (Arc::clone(&carts), Arc::clone(&next));
            selling.spawn(async move {
                let (mut latency_us, mut sold) = (latencies()?, 0);
                while start.elapsed() < time
                    && let Some(set) = carts.chunks(together.size()).nth(next.fetch_add(1, Ordering::Relaxed))
                {
                    let begun = Instant::now();
                    match together {
                        Together::Alone => {
                            for cart in set {
                                let sale = sell(&mut conn, cart).await;
                                sale.with_context(|| format!("cart {} could not be sold", cart.cart_id))?;
                            }
                        }
                        Together::InSets => sell_set(&mut conn, set).await.context("a set could not be sold")?,
                    }
                    latency_us.saturating_record(begun.elapsed().as_micros() as u64);
                    sold += set.len();
                }
                let ended = start.elapsed();
                // A backend that goes away hands in its counters.
                conn.close().await?;
                anyhow::Ok((latency_us, sold, ended))
            });
        }
        let mut sale = Sale { latency_us: latencies()?, sold: 0, took: Duration::from_micros(1) };
        while let Some(client) = selling.join_next().await {
            let (latency_us, sold, ended) = client??;
            sale.latency_us.add(latency_us)?;
            sale.sold += sold;
            sale.took = sale.took.max(ended);
        }
        Ok(sale)
    }
}

/// One checkout, in three commits.
async fn sell(conn: &mut PgConnection, cart: &Cart) -> Result<(), sqlx::Error> {
    let order = Uuid::now_v7();
    let ids: [Uuid; 6] = std::array::from_fn(|_| Uuid::now_v7());
    sqlx::query("select bench.hold_and_order($1, $2, $3, $4, $5, $6)")
        .bind(cart.cart_id)
        .bind(cart.user_id)
        .bind(order)
        .bind(Uuid::now_v7())
        .bind(ids)
        .bind(order.simple().to_string())
        .execute(&mut *conn)
        .await?;
    sqlx::query("select bench.pay($1, $2)")
        .bind(order)
        .bind(format!("pay_{}", order.simple()))
        .execute(&mut *conn)
        .await?;
    sqlx::query("select bench.confirm($1, $2)").bind(order).bind(Uuid::now_v7()).execute(&mut *conn).await?;
    Ok(())
}

/// A set of checkouts, in three commits.
async fn sell_set(conn: &mut PgConnection, carts: &[Cart]) -> Result<(), sqlx::Error> {
    let drawn = |count: usize| -> Vec<Uuid> { (0..count).map(|_| Uuid::now_v7()).collect() };
    let orders = drawn(carts.len());
    let named = |prefix: &str| -> Vec<String> { orders.iter().map(|id| format!("{prefix}{}", id.simple())).collect() };
    sqlx::query("select bench.hold_and_order_set($1, $2, $3, $4, $5, $6)")
        .bind(carts.iter().map(|cart| cart.cart_id).collect::<Vec<_>>())
        .bind(carts.iter().map(|cart| cart.user_id).collect::<Vec<_>>())
        .bind(&orders)
        .bind(drawn(carts.len()))
        .bind(drawn(6 * carts.len()))
        .bind(named(""))
        .execute(&mut *conn)
        .await?;
    sqlx::query("select bench.pay_set($1, $2)").bind(&orders).bind(named("pay_")).execute(&mut *conn).await?;
    sqlx::query("select bench.confirm_set($1, $2)").bind(&orders).bind(drawn(carts.len())).execute(&mut *conn).await?;
    Ok(())
}
