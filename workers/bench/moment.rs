//! `bench moment`: what the clock, or a crowd, brings to the shop all at once. One shop lives through all of
//! it, with the production flows, worker pools and schedules; only the clock is moved.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use async_trait::async_trait;
use domain::{
    ids::OrderId,
    order::Actor,
    ports::{Email, MailError, Mailer},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use workflows::{
    Rules, Shop,
    cancellation::{self, CancelRequest},
};

use super::{
    Staffing, World,
    checkout::{Staff, accepts, place},
    figures::settings,
    gateway::Instantly,
    moment_figures::{CancellationFigures, HoldFigures, Meanwhile, MomentFigures, ReminderFigures},
    world::{Cart, prepare_carts},
};

/// How many of each are due at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Crowds {
    /// Checkouts that wait for a payment, of three lines each.
    pub holds: u32,
    /// Carts that were left behind.
    pub reminders: u32,
    /// Orders of one variant.
    pub cancellations: u32,
}

/// How long each wait may take; what is left then ends the run.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often it is looked at what is left.
const LOOK: Duration = Duration::from_millis(200);
/// Clients that accept at the same time while a crowd is gathered, or cancels.
const CLIENTS: u32 = 8;
/// Checkouts a second that are sold meanwhile.
const MEANWHILE_PER_S: u32 = 10;

/// Lives through the three moments, in the order in which the clock may go.
///
/// # Errors
/// When the database does not answer, or something is left when patience runs out.
pub(crate) async fn moment(
    options: &PgConnectOptions,
    pool: &PgPool,
    world: World,
    staffing: Staffing,
    crowds: Crowds,
) -> anyhow::Result<MomentFigures> {
    let (captures, waits) = (Arc::new(Instantly::captures()), Arc::new(Instantly::waits()));
    let shop = |default: &str| {
        let rules = Rules { default_gateway: default.to_owned(), ..Rules::default() };
        Shop::new(rules, vec![Arc::clone(&captures) as _, Arc::clone(&waits) as _], Some(Arc::new(Postbox)))
    };
    let floor = Floor {
        pool: pool.clone(),
        clients: PgPoolOptions::new().max_connections(CLIENTS).connect_lazy_with(options.clone()),
        paid: shop(Instantly::CAPTURES),
        unpaid: shop(Instantly::WAITS),
        seed: world.seed,
    };
    let clock = Clockwork::start(options);
    let staff = Staff::hire(options, &floor.paid, staffing);
    let measured = async {
        // The clock only goes forward: a checkout that came to nothing leaves a cart, which would be reminded of.
        let reminders = floor.reminders(crowds.reminders).await.context("the reminders")?;
        let holds = floor.holds(crowds.holds).await.context("the holds")?;
        let cancellations = floor.cancellations(crowds.cancellations).await.context("the cancellations")?;
        anyhow::Ok((reminders, holds, cancellations))
    }
    .await;
    let stopped = clock.stop().await;
    staff.dismiss().await?;
    floor.clients.close().await;
    let (reminders, holds, cancellations) = measured?;
    stopped?;

    let books = workflows::audit::books(pool).await.context("the books could not be read")?;
    for breach in books.breaches.iter().take(20) {
        eprintln!("breach: {breach:?}");
    }
    let mut shown = settings(pool, "moment", world).await?;
    shown.extend([
        ("workers".to_owned(), staffing.shown()),
        ("meanwhile".to_owned(), format!("{MEANWHILE_PER_S} checkouts/s")),
        ("gateway".to_owned(), "in process, answers at once".to_owned()),
        ("notification".to_owned(), "in process, sent at once".to_owned()),
    ]);
    Ok(MomentFigures { holds, reminders, cancellations, books_balanced: books.balanced, settings: shown })
}

/// The shop's schedules.
struct Clockwork {
    stop: CancellationToken,
    schedules: JoinHandle<anyhow::Result<()>>,
    pool: PgPool,
}

impl Clockwork {
    fn start(options: &PgConnectOptions) -> Clockwork {
        let pool = PgPoolOptions::new().max_connections(2).connect_lazy_with(options.clone());
        let stop = CancellationToken::new();
        let schedules = tokio::spawn(schedules::run(pool.clone(), stop.clone()));
        Clockwork { stop, schedules, pool }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        let stopped = self.schedules.await?;
        self.pool.close().await;
        stopped
    }
}

/// The shop, its clients, and who looks.
struct Floor {
    pool: PgPool,
    clients: PgPool,
    /// Whose shoppers pay at once.
    paid: Arc<Shop>,
    /// The same shop, as shoppers meet it who never pay.
    unpaid: Arc<Shop>,
    seed: i64,
}

impl Floor {
    /// Carts are left behind and found; then the next reminder of each is due.
    async fn reminders(&self, count: u32) -> anyhow::Result<ReminderFigures> {
        note(&format!("{count} carts are left behind"));
        prepare_carts(&self.pool, count.cast_signed(), false, self.seed + 200).await?;
        let rules = &self.paid.rules.abandonment;
        let due: Vec<Duration> = rules.reminders().iter().filter_map(|due| due.to_std().ok()).collect();
        let [first, second, ..] = due[..] else { anyhow::bail!("the shop reminds less than twice") };
        let idle = Duration::from_secs(rules.after_s.into()).max(first) + Duration::from_secs(1);

        let begun = self.later(idle).await?;
        let found_s = self.reminded(begun, 1, count).await?;
        note("the next reminder is due");
        let begun = self.later(second.saturating_sub(first)).await?;
        let sent_s = self.reminded(begun, 2, count).await?;
        Ok(ReminderFigures { carts: count, found_s, sent_s })
    }

    async fn reminded(&self, begun: Instant, nth: u32, count: u32) -> anyhow::Result<f64> {
        let event = format!("cart.abandoned.{nth}");
        let took_s = until_none(begun, "reminders", async || {
            sqlx::query_scalar("select $2 - count(*) from notifications where event = $1 and status = 'SENT'")
                .bind(&event)
                .bind(i64::from(count))
                .fetch_one(&self.pool)
                .await
        })
        .await?;
        self.none_lives(begun, &["notification"]).await?;
        Ok(took_s)
    }

    /// Checkouts wait for a payment, and their time is over.
    async fn holds(&self, count: u32) -> anyhow::Result<HoldFigures> {
        note(&format!("{count} checkouts come to wait for a payment"));
        let carts = prepare_carts(&self.pool, count.cast_signed(), false, self.seed + 201).await?;
        let runs = self.place_all(&self.unpaid, carts).await?;
        until_none(Instant::now(), "checkouts that do not wait for a payment yet", async || {
            let waiting = "select count(*) from engine.runs where id = any($1) and status = 'WAITING'";
            let waiting: i64 = sqlx::query_scalar(waiting).bind(&runs).fetch_one(&self.pool).await?;
            Ok(i64::from(count) - waiting)
        })
        .await?;
        let reservations = sqlx::query_scalar("select count(*) from inventory_reservations where status = 'ACTIVE'")
            .fetch_one(&self.pool)
            .await?;
        let customers = (PATIENCE.as_secs() as i32).saturating_mul(MEANWHILE_PER_S.cast_signed());
        let customers = prepare_carts(&self.pool, customers, false, self.seed + 202).await?;

        note("their time is over");
        let begun = self.later(Duration::from_secs(self.unpaid.rules.hold_s + 1)).await?;
        let selling = Selling::start(&self.clients, &self.paid, customers);
        let ended = async {
            tokio::try_join!(
                until_none(begun, "holds", async || {
                    sqlx::query_scalar(
                        "select count(*) from inventory_reservations
                          where status = 'ACTIVE' and expires_at <= (select engine.now())",
                    )
                    .fetch_one(&self.pool)
                    .await
                }),
                until_none(begun, "checkouts", async || self.living(&runs).await),
            )
        }
        .await;
        let money = match ended {
            Ok(_) => self.none_lives(begun, &["refund"]).await,
            Err(_) => Ok(0.0),
        };
        let meanwhile = selling.end(self).await;
        let ((released_s, checkouts_ended_s), all_ended_s, meanwhile) = (ended?, money?, meanwhile?);
        Ok(HoldFigures { checkouts: count, reservations, released_s, checkouts_ended_s, all_ended_s, meanwhile })
    }

    /// A variant is sold out, and every buyer thinks better of it.
    async fn cancellations(&self, count: u32) -> anyhow::Result<CancellationFigures> {
        note(&format!("{count} orders sell a variant out"));
        stock_the_drop(&self.pool, count).await?;
        let carts = prepare_carts(&self.pool, count.cast_signed(), true, self.seed + 203).await?;
        let runs = self.place_all(&self.paid, carts).await?;
        until_none(Instant::now(), "checkouts", async || self.living(&runs).await).await?;
        self.none_lives(Instant::now(), &["notification"]).await?;
        let orders: Vec<Uuid> =
            sqlx::query_scalar("select id from orders where checkout_run_id = any($1) and order_status = 'CONFIRMED'")
                .bind(&runs)
                .fetch_all(&self.pool)
                .await?;
        anyhow::ensure!(orders.len() == count as usize, "only {} of {count} orders were confirmed", orders.len());
        anyhow::ensure!(self.pieces().await? == 0, "the variant is not sold out");

        note("all of them are cancelled");
        let begun = Instant::now();
        let accepting = async {
            let all = stream::iter(orders.iter().copied()).map(|id| self.cancel(id.into()));
            all.buffer_unordered(CLIENTS as usize).try_collect::<()>().await?;
            anyhow::Ok(begun.elapsed().as_secs_f64())
        };
        let (accepted_s, stock_back_s, refunded_s) = tokio::try_join!(
            accepting,
            until_none(begun, "pieces", async || Ok(i64::from(count) - self.pieces().await?)),
            until_none(begun, "orders without their money", async || {
                sqlx::query_scalar("select count(*) from orders where id = any($1) and payment_status <> 'REFUNDED'")
                    .bind(&orders)
                    .fetch_one(&self.pool)
                    .await
            }),
        )?;
        let all_ended_s = self.none_lives(begun, &["cancellation", "refund", "notification"]).await?;
        Ok(CancellationFigures { orders: count, accepted_s, stock_back_s, refunded_s, all_ended_s })
    }

    /// What the API does for `POST /api/orders/{id}/cancel`, without HTTP.
    async fn cancel(&self, order_id: OrderId) -> anyhow::Result<()> {
        let request = CancelRequest {
            order_id,
            actor: Actor::Customer,
            by: "bench".to_owned(),
            reason: "found it cheaper".to_owned(),
        };
        let mut tx = self.clients.begin().await?;
        cancellation::accept::accept(&mut tx, &self.paid.rules, &request, |_| true).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Has all these carts checked out; returns their runs.
    async fn place_all(&self, shop: &Arc<Shop>, carts: Vec<Cart>) -> anyhow::Result<Vec<Uuid>> {
        let accepts = accepts(&self.clients, shop);
        let placed = stream::iter(carts).map(|cart| place(&accepts, cart));
        placed.buffer_unordered(CLIENTS as usize).try_collect().await
    }

    /// Moves the clock; returns the moment.
    async fn later(&self, by: Duration) -> anyhow::Result<Instant> {
        engine::advance_clock(&self.pool, by).await?;
        Ok(Instant::now())
    }

    /// How many of these runs have not ended.
    async fn living(&self, runs: &[Uuid]) -> Result<i64, sqlx::Error> {
        let sql = "select count(*) from engine.runs where id = any($1)";
        sqlx::query_scalar(sql).bind(runs).fetch_one(&self.pool).await
    }

    /// Waits until no run of these workflows is left.
    async fn none_lives(&self, begun: Instant, workflows: &[&str]) -> anyhow::Result<f64> {
        until_none(begun, &format!("runs ({})", workflows.join(", ")), async || {
            let sql = "select count(*) from engine.runs where workflow = any($1)";
            sqlx::query_scalar(sql).bind(workflows).fetch_one(&self.pool).await
        })
        .await
    }

    /// What there is of the hot variant.
    async fn pieces(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "select available_quantity::bigint from inventory join bench.variants using (variant_id) where n = 0",
        )
        .fetch_one(&self.pool)
        .await
    }
}

/// Leaves so many pieces of the hot variant.
async fn stock_the_drop(pool: &PgPool, pieces: u32) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with had as (
             select i.variant_id, i.available_quantity from inventory i join bench.variants v using (variant_id)
              where v.n = 0 for update of i),
         moved as (
             insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, reason, created_at)
             select variant_id, 'ADJUST', $1 - available_quantity, 0, 'a drop', engine.now() from had)
         update inventory i set available_quantity = $1, version = version + 1, updated_at = engine.now()
           from had where i.variant_id = had.variant_id",
    )
    .bind(pieces.cast_signed())
    .execute(pool)
    .await?;
    Ok(())
}

/// A light stream of checkouts.
struct Selling {
    stop: CancellationToken,
    sold: JoinHandle<anyhow::Result<Vec<Uuid>>>,
}

impl Selling {
    fn start(clients: &PgPool, shop: &Arc<Shop>, carts: Vec<Cart>) -> Selling {
        let stop = CancellationToken::new();
        let (told, accepts) = (stop.clone(), accepts(clients, shop));
        let sold = tokio::spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) / MEANWHILE_PER_S);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut placing = JoinSet::new();
            for cart in carts {
                tokio::select! {
                    () = told.cancelled() => break,
                    _ = ticks.tick() => {}
                }
                let accepts = accepts.clone();
                placing.spawn(async move { place(&accepts, cart).await });
            }
            let mut sold = Vec::new();
            while let Some(placed) = placing.join_next().await {
                sold.push(placed?.context("a checkout was refused meanwhile")?);
            }
            Ok(sold)
        });
        Selling { stop, sold }
    }

    /// Sells no more, and tells how it went.
    async fn end(self, floor: &Floor) -> anyhow::Result<Meanwhile> {
        self.stop.cancel();
        let sold = self.sold.await??;
        until_none(Instant::now(), "checkouts sold meanwhile", async || floor.living(&sold).await).await?;
        let (completed, p50_ms, p99_ms): (i64, Option<f64>, Option<f64>) = sqlx::query_as(
            "select count(*),
                    percentile_cont(0.5) within group (order by extract(epoch from finished_at - created_at) * 1000)::float8,
                    percentile_cont(0.99) within group (order by extract(epoch from finished_at - created_at) * 1000)::float8
               from engine.finished_runs where id = any($1) and status = 'COMPLETED'",
        )
        .bind(&sold)
        .fetch_one(&floor.pool)
        .await?;
        anyhow::ensure!(completed == sold.len() as i64, "only {completed} of {} were sold meanwhile", sold.len());
        Ok(Meanwhile { checkouts: sold.len(), p50_ms: p50_ms.unwrap_or_default(), p99_ms: p99_ms.unwrap_or_default() })
    }
}

/// Looks until nothing is left; returns how many seconds after `begun` that was.
///
/// # Errors
/// What is left when patience runs out.
async fn until_none(
    begun: Instant,
    what: &str,
    left: impl AsyncFn() -> Result<i64, sqlx::Error>,
) -> anyhow::Result<f64> {
    loop {
        let count = left().await?;
        let took = begun.elapsed();
        if count <= 0 {
            return Ok(took.as_secs_f64());
        }
        anyhow::ensure!(took < PATIENCE, "{count} {what} are left after {} s", PATIENCE.as_secs());
        sleep(LOOK).await;
    }
}

/// Takes every e-mail at once.
struct Postbox;

#[async_trait]
impl Mailer for Postbox {
    fn name(&self) -> &'static str {
        "postbox"
    }

    async fn send(&self, _: &Email) -> Result<(), MailError> {
        Ok(())
    }
}

/// A word on standard error: this takes minutes.
fn note(step: &str) {
    eprintln!("· {} {step}", chrono::Local::now().format("%H:%M:%S"));
}
