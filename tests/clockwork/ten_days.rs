//! Two schedulers and three workers for ten virtual days: every tick fires once, whoever is faster, and
//! what an outage missed is caught up once.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use domain::ids::CartId;
use schedules::{SCHEDULES, Schedule, Scheduler};
use workflows::{
    abandoned_cart::AbandonedCarts, cart_expiry::CartExpiry, low_stock_alerts::LowStockAlerts,
    payment_reconciliation::PaymentReconciliation, reservation_expiry::ReservationExpiry, retention::Retention,
    stuck_run_rescue::StuckRunRescue,
};

use super::*;

/// A schedule, and its ticks as a period and an offset in seconds: told apart from what reads cron lines.
type Line = (Schedule, i64, i64);

/// The shop's schedules, at a pace that ten days can be lived through at.
fn unhurried() -> Vec<Line> {
    vec![
        (Schedule::of::<ReservationExpiry>("0 0 * * * *"), 3_600, 0),
        (Schedule::of::<AbandonedCarts>("0 20 * * * *"), 3_600, 1_200),
        (Schedule::of::<CartExpiry>("0 40 */2 * * *"), 7_200, 2_400),
        (Schedule::of::<LowStockAlerts>("0 0 */6 * * *"), 21_600, 0),
        (Schedule::of::<StuckRunRescue>("0 30 */3 * * *"), 10_800, 1_800),
        (Schedule::of::<PaymentReconciliation>("0 10 */4 * * *"), 14_400, 600),
        (Schedule::of::<Retention>("0 25 3 * * *"), 86_400, 12_300),
    ]
}

/// A shop with two schedulers and three workers, none of which knows of the others.
struct Town {
    world: World,
    schedulers: [Scheduler; 2],
    workers: Vec<Arc<TestWorker>>,
    table: Vec<Line>,
    opened_at: DateTime<Utc>,
    /// When nobody looked at the clock.
    outages: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    turns: usize,
}

impl Town {
    async fn open(table: Vec<Line>) -> Town {
        let world = World::with(rules()).await;
        let lines: Vec<Schedule> = table.iter().map(|(schedule, _, _)| *schedule).collect();
        let scheduler = || Scheduler::new(world.pool.clone(), &lines).expect("a table");
        let schedulers = [scheduler(), scheduler()];
        let mut workers = Vec::new();
        for _ in 0..3 {
            workers.push(Arc::new(world.healthy().await));
        }
        for scheduler in &schedulers {
            scheduler.register().await.expect("known");
        }
        let opened_at = sqlx::query_scalar("select min(last_tick) from engine.schedules")
            .fetch_one(&world.pool)
            .await
            .expect("the time");
        Town { world, schedulers, workers, table, opened_at, outages: Vec::new(), turns: 0 }
    }

    /// Lives until then: from tick to tick, both schedulers looking at once, and whatever is due in the
    /// hands of several workers at once.
    async fn live_until(&mut self, end: DateTime<Utc>) {
        loop {
            let next: DateTime<Utc> = sqlx::query_scalar("select min(next_tick) from engine.schedules")
                .fetch_one(&self.world.pool)
                .await
                .expect("the next tick");
            self.set_clock(next.min(end)).await;
            let [one, two] = &self.schedulers;
            let (one, two) = tokio::join!(one.look(), two.look());
            let (one, two) = (one.expect("fired"), two.expect("fired"));
            assert!(one.iter().all(|fired| !two.contains(fired)), "fired by both: {one:?}, {two:?}");
            self.work().await;
            if next > end {
                return;
            }
        }
    }

    /// Nobody looks at the clock until then.
    async fn outage_until(&mut self, end: DateTime<Utc>) {
        let begin = engine::now(&self.world.pool).await.expect("the time");
        self.outages.push((begin, end));
        self.set_clock(end).await;
    }

    async fn set_clock(&self, at: DateTime<Utc>) {
        let now = engine::now(&self.world.pool).await.expect("the time");
        if let Ok(by) = (at - now).to_std() {
            advance_clock(&self.world.pool, by).await.expect("later");
        }
    }

    async fn work(&mut self) {
        let pool = &self.world.pool;
        for _ in 0..100 {
            sweep(pool, Duration::from_secs(8)).await.expect("swept");
            let due: Vec<Uuid> = sqlx::query_scalar("select id from engine.runs where status = 'PENDING' order by id")
                .fetch_all(pool)
                .await
                .expect("what is due");
            if due.is_empty() {
                return;
            }
            // Each run is offered to two workers at the same time.
            let offers = due.iter().flat_map(|run_id| {
                self.turns += 1;
                [self.turns, self.turns + 1].map(|nth| {
                    let (worker, run_id) = (Arc::clone(&self.workers[nth % 3]), *run_id);
                    tokio::spawn(async move { worker.turn(run_id).await })
                })
            });
            for offer in offers.collect::<Vec<_>>() {
                offer.await.expect("no panic").expect("a turn");
            }
        }
        panic!("the shop does not come to rest");
    }

    /// Every tick of a line until then, but of those in an outage the latest only.
    fn ticks(&self, period: i64, offset: i64, end: DateTime<Utc>) -> Vec<String> {
        let mut ticks = Vec::new();
        let mut tick = self.opened_at.timestamp().div_euclid(period) * period + offset - period;
        while tick <= end.timestamp() {
            let at = DateTime::from_timestamp(tick, 0).expect("a time");
            let missed = self.outages.iter().find(|(begin, back)| *begin < at && at <= *back);
            let is_last_missed = missed.is_none_or(|(_, back)| tick + period > back.timestamp());
            if at > self.opened_at && is_last_missed {
                ticks.push(at.to_rfc3339());
            }
            tick += period;
        }
        ticks
    }

    /// Each tick has one run, which was completed; and no run came of anything else.
    async fn assert_each_tick_fired_once(&self, end: DateTime<Utc>) {
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
            "select workflow, run_key, min(status), count(*) from engine.finished_runs group by workflow, run_key",
        )
        .fetch_all(&self.world.pool)
        .await
        .expect("runs");
        let mut fired: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (workflow, key, status, runs) in rows {
            assert_eq!((status.as_str(), runs), ("COMPLETED", 1), "{workflow} {key}");
            fired.entry(workflow).or_default().push(key);
        }
        for (schedule, period, offset) in &self.table {
            let mut keys = fired.remove(schedule.name).unwrap_or_default();
            keys.sort();
            assert_eq!(keys, self.ticks(*period, *offset, end), "{}", schedule.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_days_of_two_schedulers_and_three_workers_fire_every_tick_once() {
    let mut town = Town::open(unhurried()).await;
    let (_, left) = town.world.shopper(&[("LAP-001", 1)]).await;
    let (_, guests) = town.world.shopper(&[("MOU-001", 1)]).await;
    let expires_at = town.opened_at + TimeDelta::hours(24);
    let own = |cart: CartId| Uuid::from(cart);
    sqlx::query("update carts set user_id = null, session_hash = 'x', expires_at = $2 where id = $1")
        .bind(own(guests))
        .bind(expires_at)
        .execute(&town.world.pool)
        .await
        .expect("a guest's");

    town.live_until(town.opened_at + TimeDelta::hours(108)).await;
    // Seven and a half hours in which no scheduler runs; then they catch up, once.
    town.outage_until(town.opened_at + TimeDelta::minutes(6_930)).await;
    let end = town.opened_at + TimeDelta::days(10);
    town.live_until(end).await;

    town.assert_each_tick_fired_once(end).await;
    let fired: i64 = sqlx::query_scalar("select count(*) from engine.finished_runs")
        .fetch_one(&town.world.pool)
        .await
        .expect("a count");
    assert!(fired > 700, "{fired} runs in ten days");
    assert_eq!(town.world.cart_status(left).await, "ABANDONED", "it had a month");
    assert_eq!(town.world.cart_status(guests).await, "EXPIRED", "it had a day");
    let reminders =
        "select count(*) from notifications where event like 'cart.abandoned.%' and status = 'SENT' and $1 = $1";
    assert_eq!(town.world.count(reminders, Uuid::nil()).await, 3);
    town.world.assert_books("after ten days").await;
}

/// The table that production has, for as long as it takes every one of its lines to fire.
#[tokio::test(flavor = "multi_thread")]
async fn the_shops_own_table_fires_every_tick_once() {
    let periods = [
        ("reservation_expiry", 30, 0),
        ("abandoned_carts", 60, 10),
        ("cart_expiry", 600, 20),
        ("low_stock_alerts", 900, 40),
        ("stuck_run_rescue", 60, 50),
        ("payment_reconciliation", 120, 15),
        ("retention", 3_600, 1_500),
    ];
    let table: Vec<Line> = SCHEDULES
        .iter()
        .map(|schedule| {
            let (_, period, offset) =
                periods.iter().find(|(name, _, _)| *name == schedule.name).expect("a line of this table");
            (*schedule, *period, *offset)
        })
        .collect();
    assert_eq!(table.len(), periods.len());
    let mut town = Town::open(table).await;
    town.live_until(town.opened_at + TimeDelta::minutes(20)).await;
    town.outage_until(town.opened_at + TimeDelta::minutes(50)).await;
    let end = town.opened_at + TimeDelta::minutes(65);
    town.live_until(end).await;
    town.assert_each_tick_fired_once(end).await;
}

#[tokio::test]
async fn what_was_missed_while_paused_is_caught_up_once_and_a_run_by_hand_comes_on_top() {
    use workflows::store::schedules::{Turn, turn};
    let table = vec![(Schedule::of::<StuckRunRescue>("0 * * * * *"), 60, 0)];
    let mut town = Town::open(table).await;
    let pool = town.world.pool.clone();
    let turned = async |what| {
        let mut conn = pool.acquire().await.expect("a connection");
        turn(&mut conn, "stuck_run_rescue", what).await.expect("an answer").expect("a schedule")
    };
    assert!(turned(Turn::Pause).await.next_tick.is_none());
    let paused_at = turned(Turn::Pause).await.paused_at;
    // Just after a tick: the clock goes on meanwhile, and the next one must not come before the end.
    let minute = TimeDelta::minutes(1);
    town.outage_until(town.opened_at.duration_trunc(minute).expect("a minute") + minute * 31 + TimeDelta::seconds(1))
        .await;
    for scheduler in &town.schedulers {
        assert_eq!(scheduler.look().await.expect("looked"), [], "paused");
    }
    assert_eq!(turned(Turn::Pause).await.paused_at, paused_at, "pausing twice is harmless");

    let requested = turned(Turn::Run).await.run_requested_at.expect("a request");
    assert_eq!(turned(Turn::Run).await.run_requested_at, Some(requested), "asked for twice, wanted once");
    let [one, two] = &town.schedulers;
    let (one, two) = tokio::join!(one.look(), two.look());
    let fired: Vec<_> = one.expect("fired").into_iter().chain(two.expect("fired")).collect();
    assert_eq!(fired.len(), 1, "by hand, although paused");
    assert_eq!(fired[0].key, format!("manual/{}", requested.to_rfc3339()));

    assert!(turned(Turn::Resume).await.next_tick.is_some());
    let fired = town.schedulers[0].look().await.expect("fired");
    assert_eq!(fired.len(), 1, "of thirty missed ticks the latest");
    assert_eq!(town.schedulers[1].look().await.expect("looked"), []);
    town.work().await;
    assert!(
        turn(&mut pool.acquire().await.expect("a connection"), "nothing", Turn::Run)
            .await
            .expect("an answer")
            .is_none()
    );
}
