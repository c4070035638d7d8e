//! Runs that share a transaction: whatever befalls one of them, it ends as it would alone, and the others
//! never notice.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use domain::{ids::CartId, notification::StaffReport};
use engine::{
    Failure, Flow, Nothing, Registry, Result, RetryPolicy, SetResult, SetStep, SetTx, Start, StepError, Undo, Undoing,
    Workflow, inspect,
    testing::{Fault, Faults, Point, TestWorker, advance_clock},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;
use workflows::{checkout::accept::Accepted, notification::Notice, reservation_expiry::ReservationExpiry};

use crate::{
    cancellation_faults, checkout_faults,
    misfortune::{Story, astray, together},
    refunds, return_faults,
    world::{World, database},
};

// --- whatever befalls one of many, at whatever point ---

together! {
    two_checkouts_together: 2 of checkout_faults::Story::Mixed,
    seven_checkouts_together: 7 of checkout_faults::Story::Mixed,
    sixty_four_checkouts_together: 64 of checkout_faults::Story::Mixed,
    two_cancellations_together: 2 of cancellation_faults::Story::Mixed,
    seven_cancellations_together: 7 of cancellation_faults::Story::Mixed,
    sixty_four_cancellations_together: 64 of cancellation_faults::Story::Mixed,
    two_refunds_together: 2 of refunds::Partial,
    seven_refunds_together: 7 of refunds::Partial,
    sixty_four_refunds_together: 64 of refunds::Partial,
    two_returns_together: 2 of return_faults::Story::Mixed,
    seven_returns_together: 7 of return_faults::Story::Mixed,
    sixty_four_returns_together: 64 of return_faults::Story::Mixed,
    two_notices_together: 2 of Notices,
    seven_notices_together: 7 of Notices,
    sixty_four_notices_together: 64 of Notices,
    two_whose_holds_are_over: 2 of HoldsThatAreOver,
    seven_whose_holds_are_over: 7 of HoldsThatAreOver,
    sixty_four_whose_holds_are_over: 64 of HoldsThatAreOver,
}

/// Notices about one order; every third is for the staff, who have no address.
#[derive(Debug, Clone, Copy)]
struct Notices;

struct Noticed {
    run_id: Uuid,
    subject: Uuid,
    is_for_staff: bool,
}

impl Story for Notices {
    type Begun = Noticed;

    async fn begin(&self, world: &World, many: usize) -> Vec<Noticed> {
        let (user, cart) = world.shopper(&[("MOU-001", 1)]).await;
        let order_id = world.checkout(user, cart, "tok_ok").await.expect("accepted").order_id;
        world.carry_on(1).await;
        let mut begun = Vec::with_capacity(many);
        for number in 0..many {
            let (subject, is_for_staff) = (Uuid::now_v7(), number % 3 == 2);
            let notice = if is_for_staff {
                let report = StaffReport { id: subject, subject: "News".to_owned(), text: "None.".to_owned() };
                Notice::to_staff("stock.low", report)
            } else {
                Notice::of_part("return.approved", order_id, subject)
            };
            let mut conn = world.pool.acquire().await.expect("a connection");
            notice.tell(&mut conn).await.expect("started");
            let run_id = sqlx::query_scalar("select run_id from engine.run_keys where run_key = $1")
                .bind(notice.key())
                .fetch_one(&mut *conn)
                .await
                .expect("a run");
            begun.push(Noticed { run_id, subject, is_for_staff });
        }
        begun
    }

    /// Each is told, and handed over twice at most; one that failed is not.
    async fn judge(&self, world: &World, begun: &[Noticed], when: &str) -> Vec<bool> {
        let mut as_planned = Vec::with_capacity(begun.len());
        for one in begun {
            let message: Option<(String, String)> =
                sqlx::query_as("select status, message_id from notifications where subject_id = $1")
                    .bind(one.subject)
                    .fetch_optional(&world.pool)
                    .await
                    .expect("a message");
            let copies = message.as_ref().map_or(0, |(_, id)| world.mails.copies(id));
            let has_failed = world.status(one.run_id).await == "FAILED";
            if !has_failed {
                let status = message.map(|(status, _)| status);
                assert_eq!(status.as_deref(), Some(if one.is_for_staff { "SKIPPED" } else { "SENT" }), "{when}");
                assert_eq!(copies == 0, one.is_for_staff, "{when}: {copies} copies");
            }
            assert!(copies <= 2, "{when}: {copies} copies");
            as_planned.push(!has_failed);
        }
        as_planned
    }

    fn may_fail(&self, _: &str) -> bool {
        true
    }
}

/// Checkouts at the bank's page whose stock is held no longer; every other shopper has paid at the last moment.
#[derive(Debug, Clone, Copy)]
struct HoldsThatAreOver;

impl Story for HoldsThatAreOver {
    type Begun = checkout_faults::Begun;

    async fn begin(&self, world: &World, many: usize) -> Vec<checkout_faults::Begun> {
        let mut begun = checkout_faults::Story::Abandoned.begin(world, many).await;
        let worker = world.worker_of(many, None).await;
        worker.drain_together(1).await.expect("a round");
        worker.die().await.expect("gone");
        advance_clock(&world.pool, Duration::from_secs(11 * 60)).await.expect("later");
        for one in begun.iter_mut().step_by(2) {
            one.story = checkout_faults::Story::Approved;
            checkout_faults::approve(world, &one.accepted).await;
        }
        let mut conn = world.pool.acquire().await.expect("a connection");
        let expiry = Start::<ReservationExpiry>::new(Uuid::now_v7().to_string(), &()).expect("a start");
        engine::start(&mut conn, &expiry).await.expect("started");
        begun
    }

    async fn judge(&self, world: &World, begun: &[checkout_faults::Begun], when: &str) -> Vec<bool> {
        checkout_faults::Story::Abandoned.judge(world, begun, when).await
    }
}

// --- checkouts ---

async fn assert_ends(worker: &TestWorker, rounds: usize, when: &str) {
    if worker.drain_together(rounds).await.expect("drained") < rounds {
        return;
    }
    let left: Vec<String> = sqlx::query_scalar("select (to_jsonb(r) - 'input')::text from engine.runs r")
        .fetch_all(worker.engine().pool())
        .await
        .expect("runs");
    panic!("{when}: these never end: {left:#?}");
}

/// Each of them confirmed with exactly its money, or as if it had never been; returns how many are confirmed.
async fn assert_each_whole(world: &World, begun: &[(Accepted, CartId)], when: &str) -> usize {
    world.assert_books(when).await;
    let mut confirmed = 0;
    for (accepted, cart) in begun {
        let payments = world.gateway.payments(accepted.order_id);
        assert!(payments.len() <= 1, "{when}: charged more than once: {payments:?}");
        let is_confirmed = world.order_status(accepted.order_id.into()).await.as_deref() == Some("CONFIRMED");
        let paid = !world.gateway.net(accepted.order_id).is_zero();
        assert_eq!(is_confirmed, paid, "{when}: the money of {}", accepted.order_number.as_str());
        let status = world.cart_status(*cart).await;
        assert_eq!(status, if is_confirmed { "CONVERTED" } else { "ACTIVE" }, "{when}");
        confirmed += usize::from(is_confirmed);
    }
    confirmed
}

/// Counts how often rows were handed to the step that is made to fail.
#[derive(Default)]
struct Passes(AtomicUsize);

impl Faults for Passes {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        if point == Point::Before && step == "CreateOrder" {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        None
    }
}

/// The statement that writes 64 orders, or the commit, fails for the sake of one of them: after six halvings at
/// most everybody else is where they would be, in the turn they were in, and nobody has failed or died.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_checkout_among_64_fails_alone() {
    for (trigger, when) in [("trigger poison before", ""), ("constraint trigger poison after", "initially deferred")] {
        let world = World::new().await;
        let begun = checkout_faults::Story::Mixed.begin(&world, 64).await;
        let poison = &begun[20].accepted;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'poison'; end $$;
             create {trigger} insert on orders {when} for each row when (new.id = '{}') execute function refuse()",
            Uuid::from(poison.order_id)
        )))
        .execute(&world.pool)
        .await
        .expect("a trigger");
        let passes = Arc::new(Passes::default());
        let worker = world.worker_of(64, Some(Arc::clone(&passes) as _)).await;
        worker.drain_together(1).await.expect("drained");
        let passed = passes.0.load(Ordering::SeqCst);
        assert!(passed <= 64 * 7, "{trigger}: 64 rows were handed in {passed} times");
        for one in &begun {
            let run_id = one.accepted.workflow_id;
            let run = inspect::run(&world.pool, run_id).await.expect("an answer").expect("a run");
            let stands = match one.story {
                _ if run_id == poison.workflow_id => ("RETRYING", 1, 0),
                checkout_faults::Story::Approved => ("WAITING", 0, 0),
                checkout_faults::Story::Declined => ("FAILED", 0, 0),
                checkout_faults::Story::Paid
                | checkout_faults::Story::PaidWithCoupon
                | checkout_faults::Story::Abandoned
                | checkout_faults::Story::Mixed => ("COMPLETED", 0, 0),
            };
            let stood = (run.status.as_str(), attempts(&world.pool, run_id).await, run.crashes);
            assert_eq!(stood, stands, "{trigger}: {:?}", one.story);
        }
        for _ in 0..60 {
            checkout_faults::Story::Mixed.meanwhile(&world, &begun).await;
            if worker.drain_together(1).await.expect("a round") == 0 {
                break;
            }
        }
        assert_eq!(astray(&checkout_faults::Story::Mixed, &world, &begun, trigger).await, 1, "{trigger}");
        assert_eq!(world.status(poison.workflow_id).await, "FAILED", "{trigger}");
        let failed = attempts(&world.pool, poison.workflow_id).await;
        assert!(failed <= i64::from(RetryPolicy::default().max_attempts), "{trigger}: {failed} attempts");
    }
}

/// Attempts of a run that failed.
async fn attempts(pool: &PgPool, run_id: Uuid) -> i64 {
    sqlx::query_scalar("select count(*) from engine.journal where run_id = $1 and kind = 'ATTEMPT'")
        .bind(run_id)
        .fetch_one(pool)
        .await
        .expect("a count")
}

/// Somebody keeps the stock of one variant locked: whoever wants another is served, and nobody's order is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_some_wait_for_holds_up_no_others() {
    let world = World::new().await;
    let mut begun = Vec::new();
    for number in 0..16 {
        let sku = if number % 4 == 0 { "LAP-001" } else { "BAG-001" };
        let (user, cart) = world.shopper(&[(sku, 1)]).await;
        begun.push((world.checkout(user, cart, "tok_ok").await.expect("accepted"), cart));
    }
    let mut lock = world.pool.begin().await.expect("a transaction");
    sqlx::query("select from inventory i join product_variants v on v.id = i.variant_id where v.sku = 'LAP-001' for update of i")
        .execute(&mut *lock)
        .await
        .expect("locked");
    let impatient = (*world.pool.connect_options()).clone().options([("lock_timeout", "300ms")]);
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(20).connect_lazy_with(impatient);
    let worker = TestWorker::in_cohorts(&pool, workflows::registry(&world.shop), 16, None).await.expect("a worker");
    worker.drain_together(1).await.expect("drained");
    for (number, (accepted, _)) in begun.iter().enumerate() {
        let status = world.order_status(accepted.order_id.into()).await;
        let expected = if number % 4 == 0 { None } else { Some("CONFIRMED") };
        assert_eq!(status.as_deref(), expected, "checkout {number} while a variant is locked");
    }
    lock.rollback().await.expect("rolled back");
    assert_ends(&worker, 100, "without the lock").await;
    assert_eq!(assert_each_whole(&world, &begun, "after the lock").await, 16);
}

/// Stock for 40 of 64: exactly 40 get it, and whoever does not leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_goes_to_as_many_as_it_is_enough_for() {
    let world = World::new().await;
    let mut begun = Vec::new();
    for _ in 0..64 {
        let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 1)]).await;
        begun.push((world.checkout(user, cart, "tok_ok").await.expect("accepted"), cart));
    }
    sqlx::query(
        "with taken as (
            update inventory i set available_quantity = 40 from product_variants v
             where v.id = i.variant_id and v.sku = 'LAP-001' returning i.variant_id)
         insert into inventory_movements (variant_id, kind, available_delta, reserved_delta, created_at)
         select variant_id, 'ADJUST', $1, 0, now() from taken",
    )
    .bind(40 - crate::world::STOCK)
    .execute(&world.pool)
    .await
    .expect("less stock");
    let registry = workflows::registry(&world.shop);
    let worker = TestWorker::in_cohorts(&world.pool, registry, 64, None).await.expect("a worker");
    worker.drain_together(100).await.expect("drained");
    assert_eq!(assert_each_whole(&world, &begun, "too little for all").await, 40);
    assert_eq!(world.stock("LAP-001").await, (0, 0));
}

// --- a flow of the tests' own, whose steps meddle ---

/// What befalls a run while its step is carried out with others'.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Fate {
    Fine,
    /// Somebody else claims it.
    FencedOut,
    /// Somebody asks it to stop.
    Cancelled,
    /// Its step refuses it.
    Refused,
    /// Its statement always fails.
    Poisonous,
    /// It passes the point of no return, and fails before that is committed.
    Regretful,
}

#[derive(Debug, Clone)]
struct Tally {
    run_id: Uuid,
    fate: Fate,
    second: bool,
    lab: Lab,
}

impl SetStep for Tally {
    const NAME: &'static str = "Tally";
    type Output = usize;

    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<usize> {
        let mut results = Vec::with_capacity(rows.len());
        for row in rows {
            row.lab.together.fetch_max(rows.len(), Ordering::SeqCst);
            let meddles = row.second && row.lab.meddled.lock().expect("a lock").insert(row.run_id);
            match row.fate {
                Fate::FencedOut if meddles => {
                    row.lab
                        .meddle(
                            "update engine.runs set claim_token = gen_random_uuid(), owner = null where id = $1",
                            row.run_id,
                        )
                        .await
                }
                Fate::Cancelled if meddles => {
                    row.lab.meddle("update engine.runs set cancel_requested = 'a test' where id = $1", row.run_id).await
                }
                Fate::Poisonous if row.second => {
                    sqlx::query("select 1 / 0").execute(tx.conn()).await?;
                }
                Fate::Fine | Fate::FencedOut | Fate::Cancelled | Fate::Refused | Fate::Poisonous | Fate::Regretful => {}
            }
            if row.fate == Fate::Refused && row.second {
                results.push(Err(Failure::new("refused", "as planned")));
                continue;
            }
            sqlx::query("insert into tallied (run_id, second) values ($1, $2)")
                .bind(row.run_id)
                .bind(row.second)
                .execute(tx.conn())
                .await?;
            results.push(Ok(rows.len()));
        }
        Ok(results)
    }
}

struct Untally;
impl Undo<usize> for Untally {
    const NAME: Option<&'static str> = Some("Untally");
    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, usize>]) -> Result<(), StepError> {
        let runs: Vec<Uuid> = rows.iter().map(|row| row.run_id).collect();
        sqlx::query("delete from tallied where run_id = any($1) and not second").bind(runs).execute(tx.conn()).await?;
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Lab {
    pool: PgPool,
    meddled: Arc<Mutex<HashSet<Uuid>>>,
    together: Arc<AtomicUsize>,
}

impl Lab {
    async fn new() -> Lab {
        let pool = database().await;
        sqlx::query("create table tallied (run_id uuid, second boolean)").execute(&pool).await.expect("a table");
        Lab { pool, meddled: Arc::default(), together: Arc::default() }
    }

    async fn meddle(&self, sql: &'static str, run_id: Uuid) {
        sqlx::query(sql).bind(run_id).execute(&self.pool).await.expect("meddled");
    }

    async fn start(&self, fates: impl IntoIterator<Item = Fate>) -> Vec<(Uuid, Fate)> {
        let mut started = Vec::new();
        for (number, fate) in fates.into_iter().enumerate() {
            let mut tx = self.pool.begin().await.expect("a transaction");
            let start = Start::<Tallying>::new(number.to_string(), &fate).expect("a fate");
            started.push((engine::start(&mut tx, &start).await.expect("started").run_id, fate));
            tx.commit().await.expect("committed");
        }
        started
    }

    async fn tallied(&self, run_id: Uuid) -> i64 {
        sqlx::query_scalar("select count(*) from tallied where run_id = $1")
            .bind(run_id)
            .fetch_one(&self.pool)
            .await
            .expect("a count")
    }
}

#[derive(Clone)]
struct Tallying(Lab);

impl Workflow for Tallying {
    const NAME: &'static str = "tallying";
    const QUEUE: &'static str = "tallying";
    type Input = Fate;
    type Output = usize;

    async fn run(&self, flow: &mut Flow, fate: Fate) -> Result<usize> {
        let (run_id, lab) = (flow.id(), self.0.clone());
        flow.tx(Tally { run_id, fate, second: false, lab: lab.clone() }).undo(Untally).await?;
        let second = Tally { run_id, fate, second: true, lab };
        if fate == Fate::Regretful {
            flow.point_of_no_return(second).await?;
            return Err(Failure::new("regretted", "as planned"));
        }
        flow.tx(second).undo(Nothing).await
    }
}

/// Each fate alone among those who are fine, and all of them at once.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_one_the_others_go_on() {
    for many in [2, 7, 64] {
        let one = |fate| std::iter::once(fate).chain(std::iter::repeat_n(Fate::Fine, many - 1)).collect::<Vec<_>>();
        let all = [Fate::FencedOut, Fate::Cancelled, Fate::Refused, Fate::Poisonous, Fate::Regretful];
        let mut sets: Vec<Vec<Fate>> = all.into_iter().map(one).collect();
        sets.push(
            all.into_iter().cycle().zip(std::iter::repeat(Fate::Fine)).flat_map(|(a, b)| [a, b]).take(many).collect(),
        );
        for fates in sets {
            let lab = Lab::new().await;
            let started = lab.start(fates.iter().copied()).await;
            let registry = Registry::default().with(Tallying(lab.clone()));
            let worker = TestWorker::in_cohorts(&lab.pool, registry, many, None).await.expect("a worker");
            assert_ends(&worker, 200, &format!("{many} {fates:?}")).await;
            let together = lab.together.load(Ordering::SeqCst);
            assert!(together > many / 2, "{together} of {many} travelled together");
            for (run_id, fate) in started {
                let run = inspect::run(&lab.pool, run_id).await.expect("an answer").expect("a run");
                let (status, tallied) = match fate {
                    Fate::Fine | Fate::FencedOut => ("COMPLETED", 2),
                    Fate::Cancelled => ("CANCELLED", 0),
                    Fate::Refused | Fate::Poisonous | Fate::Regretful => ("FAILED", 0),
                };
                assert_eq!(run.status.as_str(), status, "{many}: a run that is {fate:?}");
                assert_eq!(lab.tallied(run_id).await, tallied, "{many}: a run that is {fate:?}");
                let attempts = attempts(&lab.pool, run_id).await;
                let most = if fate == Fate::Poisonous { i64::from(RetryPolicy::default().max_attempts) } else { 0 };
                assert!(attempts <= most, "{many}: {attempts} attempts of a run that is {fate:?}");
                assert_eq!(run.crashes, 0, "{many}: a run that is {fate:?}");
            }
        }
    }
}

/// A run by itself does not wait for company, and shares nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_by_itself_travels_at_once() {
    let lab = Lab::new().await;
    let started = lab.start([Fate::Refused]).await;
    let registry = Registry::default().with(Tallying(lab.clone()));
    let worker = TestWorker::new(&lab.pool, registry, true, None).await.expect("a worker");
    worker.turn(started[0].0).await.expect("a turn");
    // What had not committed never happened: nothing is journalled but why.
    let trace = engine::testing::trace(&lab.pool, started[0].0).await.expect("a trace");
    assert_eq!(trace, ["FAILED refused", "FAILED"]);
    assert_eq!(lab.tallied(started[0].0).await, 0);
}
