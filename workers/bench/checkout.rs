//! `bench checkout`: the production flow, its journal and its queue, beside the limit of the same run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use api::{
    accepts::{Accepts, Reply, Request},
    idempotency::IdempotencyKey,
    state::ApiConfig,
};
use chrono::{DateTime, Utc};
use domain::{address::Address, payment::PaymentMethod, pricing::ShippingMethod};
use engine::silence::careful;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use workflows::{
    Rules, Shop,
    checkout::{
        accept::{AddressChoice, Order, Shopper},
        status,
    },
};

use super::{
    Load, Staffing, World,
    figures::{Counters, Figures, limit_settings, settings},
    gateway::Instantly,
    limit::limit,
    world::{Cart, prepare_carts},
};

/// Before figures are taken: caches fill, plans settle.
const WARM_UP: Duration = Duration::from_secs(2);
/// Checkouts a second of the unhurried phase.
const UNHURRIED_PER_S: u64 = 10;
/// How often the clients look which of their checkouts have ended: as often as the API for its long polls.
const LOOK: Duration = Duration::from_millis(40);

/// Measures the limit, then the shop at saturation, then the shop at ten checkouts a second.
///
/// # Errors
/// When the database does not answer, or a checkout that must succeed does not.
pub(crate) async fn checkout(
    options: &PgConnectOptions,
    pool: &PgPool,
    load: Load,
    staffing: Staffing,
    in_flight: usize,
    hot: bool,
) -> anyhow::Result<Figures> {
    let Load { seconds, world: World { seed, .. } } = load;
    let limit = limit(options, pool, load, hot).await?;
    // Whoever carries checkouts in sets may be faster than one by one can be.
    let fastest = limit.checkouts_per_s.max(limit.sets.checkouts_per_s);
    let wanted = (fastest * (seconds as f64 + WARM_UP.as_secs_f64()) + 1_000.0).min(400_000.0) as i32;
    let carts = prepare_carts(pool, wanted, hot, seed + 100).await?;
    let unhurried_carts = prepare_carts(pool, (seconds * UNHURRIED_PER_S + 20) as i32, hot, seed + 101).await?;

    let before = Counters::settled(pool, load.world).await?;
    let shop = Shop::new(
        Rules { default_gateway: Instantly::CAPTURES.to_owned(), ..Rules::default() },
        vec![Arc::new(Instantly::captures())],
        None,
    );
    let (saturated, made) = {
        let staff = Staff::hire(options, &shop, staffing);
        let outcome = saturate(options, &shop, carts, seconds, in_flight).await;
        staff.dismiss().await?;
        outcome?
    };
    let spent = Counters::settled(pool, load.world).await?.since(&before);
    let unhurried = {
        let staff = Staff::hire(options, &shop, staffing);
        let outcome = unhurried(options, &shop, unhurried_carts).await;
        staff.dismiss().await?;
        outcome?
    };

    let at_load = ended_between(pool, saturated).await?;
    let at_ease = ended_between(pool, unhurried).await?;
    let books = workflows::audit::books(pool).await.context("the books could not be read")?;
    for breach in &books.breaches {
        eprintln!("breach: {breach:?}");
    }
    let per_checkout = |count: i64| count as f64 / made.max(1) as f64;
    let mut shown = settings(pool, if hot { "checkout, hot" } else { "checkout" }, load.world).await?;
    shown.extend(limit_settings(&limit));
    shown.extend([
        ("seconds".to_owned(), seconds.to_string()),
        ("in_flight".to_owned(), in_flight.to_string()),
        ("workers".to_owned(), staffing.shown()),
        ("saturated_p50_ms".to_owned(), format!("{:.1}", at_load.p50_ms)),
        ("saturated_p99_ms".to_owned(), format!("{:.1}", at_load.p99_ms)),
        ("p50_and_p99_at".to_owned(), format!("{UNHURRIED_PER_S} checkouts/s")),
        ("gateway".to_owned(), "in process, answers at once".to_owned()),
        ("notification".to_owned(), "recorded: no e-mail channel".to_owned()),
    ]);
    let checkouts_per_s = at_load.ended as f64 / saturated.1.signed_duration_since(saturated.0).as_seconds_f64();
    Ok(Figures {
        checkouts_per_s,
        limit_per_s: limit.checkouts_per_s,
        ratio: checkouts_per_s / limit.checkouts_per_s,
        set_limit_per_s: limit.sets.checkouts_per_s,
        set_ratio: checkouts_per_s / limit.sets.checkouts_per_s,
        commits_per_checkout: per_checkout(spent.commits),
        wal_bytes_per_checkout: per_checkout(spent.wal_bytes),
        statements_per_checkout: spent.statements.map(per_checkout),
        p50_ms: at_ease.p50_ms,
        p99_ms: at_ease.p99_ms,
        commit_ms: limit.commit_ms,
        books_balanced: books.balanced,
        settings: shown,
    })
}

/// The worker pools of a run.
pub(crate) struct Staff {
    stop: CancellationToken,
    pools: JoinSet<anyhow::Result<()>>,
}

impl Staff {
    pub(crate) fn hire(options: &PgConnectOptions, shop: &Arc<Shop>, staffing: Staffing) -> Staff {
        let stop = CancellationToken::new();
        let mut pools = JoinSet::new();
        for _ in 0..staffing.workers {
            let connections =
                careful(PgPoolOptions::new().max_connections(staffing.connections)).connect_lazy_with(options.clone());
            let registry = workflows::registry(shop);
            let pool_options = workers::PoolOptions::default();
            let stop = stop.clone();
            pools.spawn(async move {
                let result = workers::run(connections.clone(), registry, pool_options, stop).await;
                connections.close().await;
                result
            });
        }
        Staff { stop, pools }
    }

    pub(crate) async fn dismiss(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(pool) = self.pools.join_next().await {
            pool??;
        }
        Ok(())
    }
}

type Span = (DateTime<Utc>, DateTime<Utc>);

/// Keeps so many checkouts under way; returns the measured span and how many were made in all.
async fn saturate(
    options: &PgConnectOptions,
    shop: &Arc<Shop>,
    carts: Vec<Cart>,
    seconds: u64,
    in_flight: usize,
) -> anyhow::Result<(Span, u64)> {
    let clients = PgPoolOptions::new().max_connections(8).connect_lazy_with(options.clone());
    let accepts = accepts(&clients, shop);
    let places = Arc::new(Semaphore::new(in_flight));
    let (accepted, mut under_way) = tokio::sync::mpsc::unbounded_channel::<Uuid>();
    let watcher = tokio::spawn({
        let (clients, places) = (clients.clone(), Arc::clone(&places));
        async move {
            let mut open: Vec<Uuid> = Vec::new();
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut closed = false;
            while !(closed && open.is_empty()) {
                looks.tick().await;
                loop {
                    match under_way.try_recv() {
                        Ok(run_id) => open.push(run_id),
                        Err(tokio::sync::mpsc::error::TryRecvError::Empty) => break,
                        Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => {
                            closed = true;
                            break;
                        }
                    }
                }
                let settled = status::settled(&clients, &open).await?;
                open.retain(|run_id| !settled.iter().any(|(id, _)| id == run_id));
                places.add_permits(settled.len());
            }
            anyhow::Ok(())
        }
    });

    let started = Instant::now();
    let total = WARM_UP + Duration::from_secs(seconds);
    let mut from = None;
    let mut made = 0;
    let mut tasks = JoinSet::new();
    for cart in carts {
        if started.elapsed() > total {
            break;
        }
        if from.is_none() && started.elapsed() > WARM_UP {
            from = Some(clock(&clients).await?);
        }
        places.acquire().await?.forget();
        let (accepts, accepted) = (accepts.clone(), accepted.clone());
        tasks.spawn(async move {
            let run_id = place(&accepts, cart).await?;
            accepted.send(run_id).context("the watcher has gone")
        });
        made += 1;
        while let Some(done) = tasks.try_join_next() {
            done??;
        }
    }
    let until = clock(&clients).await?;
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    drop(accepted);
    tokio::time::timeout(Duration::from_secs(60), watcher).await.context("checkouts that never end")???;
    clients.close().await;
    Ok(((from.context("the load ended in its warm-up: prepare more carts")?, until), made))
}

/// Ten a second, evenly.
async fn unhurried(options: &PgConnectOptions, shop: &Arc<Shop>, carts: Vec<Cart>) -> anyhow::Result<Span> {
    let clients = PgPoolOptions::new().max_connections(4).connect_lazy_with(options.clone());
    let accepts = accepts(&clients, shop);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / UNHURRIED_PER_S as u32);
    let mut from = None;
    for (number, cart) in carts.into_iter().enumerate() {
        ticks.tick().await;
        if number == 10 {
            from = Some(clock(&clients).await?);
        }
        place(&accepts, cart).await?;
    }
    let until = clock(&clients).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    clients.close().await;
    Ok((from.context("too few carts")?, until))
}

async fn clock(pool: &PgPool) -> Result<DateTime<Utc>, sqlx::Error> {
    engine::now(pool).await
}

/// Where the API accepts checkouts.
pub(crate) fn accepts(pool: &PgPool, shop: &Arc<Shop>) -> Accepts {
    Accepts::new(pool.clone(), Arc::clone(shop), i64::MAX, ApiConfig::default().request_timeout)
}

/// What the API does for `POST /api/checkout`, without HTTP.
pub(crate) async fn place(accepts: &Accepts, cart: Cart) -> anyhow::Result<Uuid> {
    let order = Order {
        shopper: Shopper::User(cart.user_id.into()),
        cart_id: Some(cart.cart_id.into()),
        expected_total: None,
        shipping: AddressChoice::Inline(address()),
        billing: None,
        shipping_method: ShippingMethod::Standard,
        payment_method: PaymentMethod::CreditCard,
        payment_gateway: None,
        payment_token: Some("tok_ok".to_owned()),
        client_network: None,
        coupon_codes: Vec::new(),
        fingerprint: String::new(),
    };
    let key = IdempotencyKey::new(cart.cart_id.to_string(), [0; 32]);
    let request = Request { caller: format!("user:{}", cart.user_id), key, order };
    match accepts.accept(request).await? {
        Reply::Accepted(view) => Ok(serde_json::from_value(view["workflowId"].clone())?),
        Reply::Replay(_) => anyhow::bail!("cart {} was checked out before", cart.cart_id),
    }
}

fn address() -> Address {
    Address {
        recipient_name: "Bench Shopper".to_owned(),
        address_line1: "1 Load Street".to_owned(),
        address_line2: None,
        city: "Mumbai".to_owned(),
        state: "Maharashtra".to_owned(),
        postal_code: "400001".to_owned(),
        country: "India".to_owned(),
        phone_number: "+919876543210".to_owned(),
    }
}

struct Ended {
    ended: i64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Checkouts completed within the span, and how long they took from accepted to completed.
async fn ended_between(pool: &PgPool, (from, until): Span) -> anyhow::Result<Ended> {
    let (ended, p50_ms, p99_ms): (i64, Option<f64>, Option<f64>) = sqlx::query_as(
        "select count(*),
                percentile_cont(0.5) within group (order by extract(epoch from finished_at - created_at) * 1000)::float8,
                percentile_cont(0.99) within group (order by extract(epoch from finished_at - created_at) * 1000)::float8
           from engine.finished_runs
          where workflow = 'checkout' and status = 'COMPLETED' and finished_at between $1 and $2",
    )
    .bind(from)
    .bind(until)
    .fetch_one(pool)
    .await?;
    let failed: i64 = sqlx::query_scalar(
        "select count(*) from engine.finished_runs where workflow = 'checkout' and status <> 'COMPLETED'",
    )
    .fetch_one(pool)
    .await?;
    anyhow::ensure!(failed == 0, "{failed} checkouts failed");
    Ok(Ended { ended, p50_ms: p50_ms.unwrap_or_default(), p99_ms: p99_ms.unwrap_or_default() })
}
