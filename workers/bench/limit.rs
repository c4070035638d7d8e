//! The limit: three prepared functions a checkout, one commit each, from as many clients as serve
//! this machine best.

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

/// Client counts that are tried; the best is measured.
const CLIENTS: [usize; 4] = [4, 8, 16, 24];
/// How long each is tried.
const TRIAL: Duration = Duration::from_secs(2);
/// Carts made for a trial; one that sells them all before its time is over is judged by the time it took.
const TRIAL_CARTS: i32 = 10_000;
/// No run is given more carts than this: at 5,000 a second they last over three minutes.
const MOST_CARTS: f64 = 1_000_000.0;

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
}

/// Finds the best client count and measures it.
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
    let mut best = (0.0, CLIENTS[0]);
    for (seed, clients) in (load.seed..).zip(CLIENTS) {
        let carts = prepare_carts(pool, TRIAL_CARTS, hot, seed).await?;
        let rate = Sale::hold(options, carts, clients, TRIAL).await?.rate();
        if rate > best.0 {
            best = (rate, clients);
        }
    }
    let (rate, clients) = best;
    let wanted = (rate * load.seconds as f64 * 1.25 + 1_000.0).min(MOST_CARTS) as i32;
    let carts = prepare_carts(pool, wanted, hot, load.seed + CLIENTS.len() as i64).await?;

    let before = Counters::settled(pool).await?;
    let sale = Sale::hold(options, carts, clients, Duration::from_secs(load.seconds)).await?;
    let spent = Counters::settled(pool).await?.since(&before);
    let sold = sale.latency_us.len().max(1) as f64;
    Ok(LimitFigures {
        clients,
        checkouts_per_s: sale.rate(),
        commits_per_checkout: spent.commits as f64 / sold,
        wal_bytes_per_checkout: spent.wal_bytes as f64 / sold,
        // The three that the client sends; where they are counted at all, their insides would be too.
        statements_per_checkout: 3.0,
        p50_ms: millis(&sale.latency_us, 0.50),
        p99_ms: millis(&sale.latency_us, 0.99),
        commit_ms,
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

/// Clients that sold carts for a while.
struct Sale {
    latency_us: Histogram<u64>,
    took: Duration,
}

impl Sale {
    fn rate(&self) -> f64 {
        self.latency_us.len() as f64 / self.took.as_secs_f64()
    }

    /// Sells until the time is over or no cart is left.
    async fn hold(
        options: &PgConnectOptions,
        carts: Vec<Cart>,
        clients: usize,
        time: Duration,
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
                let mut latency_us = latencies()?;
                while start.elapsed() < time
                    && let Some(cart) = carts.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let begun = Instant::now();
                    sell(&mut conn, cart).await.with_context(|| format!("cart {} could not be sold", cart.cart_id))?;
                    latency_us.saturating_record(begun.elapsed().as_micros() as u64);
                }
                let ended = start.elapsed();
                // A backend that goes away hands in its counters.
                conn.close().await?;
                anyhow::Ok((latency_us, ended))
            });
        }
        let mut sale = Sale { latency_us: latencies()?, took: Duration::from_micros(1) };
        while let Some(client) = selling.join_next().await {
            let (latency_us, ended) = client??;
            sale.latency_us.add(latency_us)?;
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
