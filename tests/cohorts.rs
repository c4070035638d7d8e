//! Runs that share a transaction: whatever befalls one of them, it ends as it would alone, and the others
//! never notice.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use domain::ids::CartId;
use engine::{
    Failure, Flow, Nothing, Registry, Result, RetryPolicy, SetResult, SetStep, SetTx, Start, StepError, Undo, Undoing,
    Workflow, inspect,
    testing::{Everything, Fault, Faults, Once, Point, Recorder, TestWorker},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;
use workflows::checkout::accept::{Accepted, Order};

use crate::world::{World, database, order};

// --- checkouts ---

/// Where some are declined, some have coupons, and all want the same two variants.
async fn begin(world: &World, many: usize) -> Vec<(Accepted, CartId)> {
    let mut begun = Vec::with_capacity(many);
    for number in 0..many {
        let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 2)]).await;
        let token = if number % 5 == 4 { "tok_declined" } else { "tok_ok" };
        let coupon_codes = if number % 3 == 1 { vec!["SAVE20".to_owned()] } else { Vec::new() };
        let order = Order { payment_token: Some(token.to_owned()), coupon_codes, ..order(user, cart) };
        begun.push((world.checkout_as(order).await.expect("accepted"), cart));
    }
    begun
}

/// A worker whose runs travel together and one of which meets a fault; if it dies, a healthy one takes over.
async fn play(world: &World, many: usize, faults: Option<Arc<dyn Faults>>) -> Vec<(Accepted, CartId)> {
    let begun = begin(world, many).await;
    let registry = workflows::registry(&world.shop);
    let first = TestWorker::in_cohorts(&world.pool, registry.clone(), many, faults).await.expect("a worker");
    first.drain_together(6).await.expect("drained");
    first.die().await.expect("dead");
    let second = TestWorker::in_cohorts(&world.pool, registry, many, None).await.expect("a worker");
    assert_ends(&second, 100, "after the first worker").await;
    begun
}

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

/// How many of so many pay, if nothing goes wrong.
fn payers(many: usize) -> usize {
    (0..many).filter(|number| number % 5 != 4).count()
}

async fn every_point(many: usize, fault: impl Fn(Point, &str) -> Option<Fault>) {
    let world = World::new().await;
    let recorder = Arc::new(Recorder::default());
    let begun = play(&world, many, Some(Arc::clone(&recorder) as _)).await;
    assert_eq!(assert_each_whole(&world, &begun, "without faults").await, payers(many));
    let mut struck = 0;
    for (point, step) in recorder.points() {
        let Some(fault) = fault(point, &step) else { continue };
        let is_fatal = matches!(fault, Fault::Fail(_));
        let when = format!("{many} together, {fault:?} at {point:?} {step}");
        let once = Once::new(point, &step, fault);
        let begun = play(&world, many, Some(Arc::clone(&once) as _)).await;
        let confirmed = assert_each_whole(&world, &begun, &when).await;
        assert!(once.has_struck(), "{when}: the fault never struck");
        assert!(confirmed >= payers(many) - usize::from(is_fatal), "{when}: {confirmed} confirmed");
        struck += 1;
    }
    assert!(struck > 0, "no point was tried");
}

fn fails_for_good(point: Point, step: &str) -> Option<Fault> {
    let is_checkouts =
        !matches!(step, "ComposeMessage" | "SendEmail" | "SettleMessage" | "SendNotifications" | "ReadReceipt");
    // An undo that cannot be done parks its run, as it does alone.
    let is_undo = ["ReleaseCoupons", "ReleaseInventory", "CancelOrder", "VoidOrRefund", "UnlockCart"].contains(&step);
    (point == Point::Before && is_checkouts && !is_undo).then(|| Fault::Fail(Failure::new("injected", "a test")))
}

macro_rules! cohorts {
    ($($name:ident: $many:literal),+ $(,)?) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn survive_the_death_of_one_at_every_step_and_commit() {
                every_point($many, |_, _| Some(Fault::Crash)).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn survive_a_passing_failure_of_one_at_every_step() {
                every_point($many, |point, _| (point == Point::Before).then_some(Fault::Retry)).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn survive_that_one_fails_for_good_at_every_step() {
                every_point($many, fails_for_good).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn are_the_same_when_every_step_runs_twice() {
                let world = World::new().await;
                let begun = play(&world, $many, Some(Arc::new(Everything))).await;
                assert_eq!(assert_each_whole(&world, &begun, "everything twice").await, payers($many));
            }
        }
    )+};
}
cohorts! {
    two_checkouts_together: 2,
    seven_checkouts_together: 7,
    sixty_four_checkouts_together: 64,
}

/// The statement that writes 64 orders fails for the sake of one of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_checkout_among_64_fails_alone() {
    let world = World::new().await;
    let begun = begin(&world, 64).await;
    let (poison, _) = &begun[20];
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'poison'; end $$;
         create trigger poison before insert on orders for each row when (new.id = '{}') execute function refuse()",
        Uuid::from(poison.order_id)
    )))
    .execute(&world.pool)
    .await
    .expect("a trigger");
    let registry = workflows::registry(&world.shop);
    let worker = TestWorker::in_cohorts(&world.pool, registry, 64, None).await.expect("a worker");
    let asked = Instant::now();
    worker.drain_together(1).await.expect("drained");
    println!("one turn of 64 with a poisonous one took {:?}", asked.elapsed());
    for (accepted, _) in &begun {
        let run = inspect::run(&world.pool, accepted.workflow_id).await.expect("an answer").expect("a run");
        let attempts: i64 =
            sqlx::query_scalar("select count(*) from engine.journal where run_id = $1 and kind = 'ATTEMPT'")
                .bind(accepted.workflow_id)
                .fetch_one(&world.pool)
                .await
                .expect("a count");
        if accepted.workflow_id == poison.workflow_id {
            assert_eq!((run.status.as_str(), attempts), ("RETRYING", 1), "the poisonous one has failed once");
        } else {
            assert!(matches!(run.status.as_str(), "COMPLETED" | "FAILED"), "a neighbour is {}", run.status);
            assert_eq!(attempts, 0, "a neighbour's attempts are counted");
        }
    }
    worker.drain_together(100).await.expect("drained");
    assert_each_whole(&world, &begun, "with a poisonous one").await;
    assert_eq!(world.status(poison.workflow_id).await, "FAILED");
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
                Fate::Fine | Fate::FencedOut | Fate::Cancelled | Fate::Refused | Fate::Poisonous => {}
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
        flow.tx(Tally { run_id, fate, second: true, lab }).undo(Nothing).await
    }
}

/// Each fate alone among those who are fine, and all of them at once.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_one_the_others_go_on() {
    for many in [2, 7, 64] {
        let one = |fate| std::iter::once(fate).chain(std::iter::repeat_n(Fate::Fine, many - 1)).collect::<Vec<_>>();
        let all = [Fate::FencedOut, Fate::Cancelled, Fate::Refused, Fate::Poisonous];
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
                    Fate::Refused | Fate::Poisonous => ("FAILED", 0),
                };
                assert_eq!(run.status.as_str(), status, "{many}: a run that is {fate:?}");
                assert_eq!(lab.tallied(run_id).await, tallied, "{many}: a run that is {fate:?}");
                let attempts: i64 =
                    sqlx::query_scalar("select count(*) from engine.journal where run_id = $1 and kind = 'ATTEMPT'")
                        .bind(run_id)
                        .fetch_one(&lab.pool)
                        .await
                        .expect("a count");
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
