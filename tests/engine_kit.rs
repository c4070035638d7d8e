//! The engine's promises, each broken on purpose.

mod batches;
mod diverged;
mod doomed;
mod fence;
mod hot;
mod parked;
mod payloads;
mod put_off;
mod sharing;
mod versions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use engine::{
    Call, CallContext, Failure, Flow, Nothing, Registry, Result, SetStep, SetTx, Start, Step, StepError, Tx, Undo,
    Undoing, Workflow, inspect,
    testing::{BadMemory, Fault, Faults, Once, Point, TestWorker, advance_clock, trace},
    worker::sweep,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use crate::world::database;

/// A flow that counts in a table, calls, waits, counts again, and ends as it is told.
#[derive(Clone, Default)]
struct Counting {
    calls: Arc<AtomicUsize>,
    /// Calls that were told that an earlier one may have got through.
    doubts: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Serialize, Deserialize, Default)]
struct Plan {
    waits: bool,
    fails: bool,
    panics: bool,
    sleeps_s: u64,
}

struct Count(&'static str);
impl Step for Count {
    const NAME: &'static str = "Count";
    type Output = i32;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<i32, StepError> {
        let (run_id, what) = (tx.run_id(), self.0);
        sqlx::query("insert into counted (run_id, what) values ($1, $2)")
            .bind(run_id)
            .bind(what)
            .execute(tx.conn())
            .await?;
        Ok(1)
    }
}

async fn uncount(tx: &mut SetTx<'_>, runs: impl Iterator<Item = Uuid>) -> Result<(), StepError> {
    sqlx::query("insert into counted (run_id, what) select *, 'undone' from unnest($1::uuid[])")
        .bind(runs.collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    Ok(())
}

struct Uncount;
impl Undo<i32> for Uncount {
    const NAME: Option<&'static str> = Some("Uncount");
    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, i32>]) -> Result<(), StepError> {
        uncount(tx, rows.iter().map(|row| row.run_id)).await
    }
}

struct Outside(Counting);
impl Call for Outside {
    const NAME: &'static str = "Outside";
    type Output = Uuid;
    async fn run(&self, context: &CallContext) -> Result<Uuid, StepError> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        self.0.doubts.fetch_add(context.redelivered.into(), Ordering::SeqCst);
        Ok(context.idempotency_key)
    }
}

impl Workflow for Counting {
    const NAME: &'static str = "counting";
    const QUEUE: &'static str = "counting";
    type Input = Plan;
    type Output = Option<String>;

    async fn run(&self, flow: &mut Flow, plan: Plan) -> Result<Option<String>> {
        flow.tx(Count("first")).undo(Uncount).await?;
        flow.call(Outside(self.clone())).undo(Nothing).await?;
        if plan.panics {
            panic!("as planned");
        }
        if plan.sleeps_s > 0 {
            flow.sleep("nap", Duration::from_secs(plan.sleeps_s)).await?;
        }
        let heard = if plan.waits { flow.wait_for::<String>("word", Duration::from_secs(60)).await? } else { None };
        flow.tx(Count("second")).undo(Uncount).await?;
        if plan.fails { Err(Failure::new("planned", "as planned")) } else { Ok(heard) }
    }
}

struct Lab {
    pool: PgPool,
    counting: Counting,
}

impl Lab {
    async fn new() -> Lab {
        let pool = database().await;
        sqlx::query("create table counted (run_id uuid, what text)").execute(&pool).await.expect("a table");
        Lab { pool, counting: Counting::default() }
    }

    async fn worker(&self, faults: Option<Arc<dyn Faults>>) -> TestWorker {
        let registry = Registry::default().with(self.counting.clone());
        TestWorker::new(&self.pool, registry, true, faults).await.expect("a worker")
    }

    async fn start(&self, key: &str, plan: &Plan) -> Uuid {
        let mut tx = self.pool.begin().await.expect("a transaction");
        let started =
            engine::start(&mut tx, &Start::<Counting>::new(key, plan).expect("a plan")).await.expect("started");
        tx.commit().await.expect("committed");
        started.run_id
    }

    async fn counted(&self, run_id: Uuid) -> Vec<String> {
        sqlx::query_scalar("select what from counted where run_id = $1 order by what")
            .bind(run_id)
            .fetch_all(&self.pool)
            .await
            .expect("counts")
    }

    async fn status(&self, run_id: Uuid) -> String {
        inspect::run(&self.pool, run_id).await.expect("a run").expect("a run").status.to_string()
    }

    async fn send(&self, run_id: Uuid, key: &str, word: &str) -> engine::run::Delivery {
        let mut tx = self.pool.begin().await.expect("a transaction");
        let delivery = engine::run::signal(&mut tx, run_id, "word", key, &word).await.expect("sent");
        tx.commit().await.expect("committed");
        delivery
    }

    async fn cancel(&self, run_id: Uuid) -> engine::run::Delivery {
        let mut tx = self.pool.begin().await.expect("a transaction");
        let delivery = engine::run::cancel(&mut tx, run_id, "a test").await.expect("asked");
        tx.commit().await.expect("committed");
        delivery
    }

    async fn tickets(&self) -> i64 {
        sqlx::query_scalar("select count(*) from apalis.jobs").fetch_one(&self.pool).await.expect("a count")
    }
}

#[tokio::test]
async fn starting_a_key_twice_returns_the_first_run() {
    let lab = Lab::new().await;
    let first = lab.start("k", &Plan::default()).await;
    assert_eq!(lab.start("k", &Plan::default()).await, first);
    lab.worker(None).await.drain(10).await.expect("drained");
    assert_eq!(lab.start("k", &Plan::default()).await, first, "after it has finished, too");
    assert_eq!(lab.counted(first).await, ["first", "second"]);
}

#[tokio::test]
async fn starting_a_key_from_many_connections_makes_one_run() {
    let lab = Arc::new(Lab::new().await);
    let starts = (0..16).map(|_| {
        let lab = Arc::clone(&lab);
        tokio::spawn(async move { lab.start("k", &Plan::default()).await })
    });
    let mut ids = Vec::new();
    for start in starts {
        ids.push(start.await.expect("started"));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(lab.tickets().await, 1);
}

#[tokio::test]
async fn a_run_started_in_a_transaction_that_rolls_back_never_was() {
    let lab = Lab::new().await;
    let mut tx = lab.pool.begin().await.expect("a transaction");
    engine::start(&mut tx, &Start::<Counting>::new("k", &Plan::default()).expect("a plan")).await.expect("started");
    tx.rollback().await.expect("rolled back");
    assert_eq!(lab.tickets().await, 0);
    assert_eq!(lab.worker(None).await.drain(5).await.expect("drained"), 0);
}

#[tokio::test]
async fn a_lost_ticket_is_written_again_by_the_sweep() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan::default()).await;
    sqlx::query("delete from apalis.jobs").execute(&lab.pool).await.expect("lost");
    let lease = Duration::from_secs(8);
    assert_eq!(sweep(&lab.pool, lease).await.expect("swept").ticketed, 0, "not before its time");
    advance_clock(&lab.pool, Duration::from_secs(16)).await.expect("later");
    assert_eq!(sweep(&lab.pool, lease).await.expect("swept").ticketed, 1);
    assert_eq!(lab.tickets().await, 1);
    lab.worker(None).await.turn(run_id).await.expect("a turn");
    assert_eq!(lab.status(run_id).await, "COMPLETED");
}

#[tokio::test]
async fn a_doubled_ticket_has_one_effect() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan::default()).await;
    let (one, two) = (lab.worker(None).await, lab.worker(None).await);
    let (a, b) = tokio::join!(one.turn(run_id), two.turn(run_id));
    a.expect("a turn");
    b.expect("a turn");
    one.turn(run_id).await.expect("a turn");
    assert_eq!(lab.counted(run_id).await, ["first", "second"]);
    assert_eq!(lab.counting.calls.load(Ordering::SeqCst), 1);
    assert_eq!(lab.tickets().await, 0, "spent tickets are gone");
}

/// A worker that sleeps past its lease and wakes up in the middle of its turn.
struct Zombie {
    pool: PgPool,
}

impl Faults for Zombie {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        if point == Point::Before && step == "Outside" {
            // Synchronous on purpose: while this worker "is stopped", the world goes on without it.
            let pool = self.pool.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let options = (*pool.connect_options()).clone();
                    let pool = PgPool::connect_with(options).await.expect("a pool");
                    sqlx::query("update engine.workers set beat_at = now() - interval '1 hour'")
                        .execute(&pool)
                        .await
                        .expect("dead");
                    let counting = Counting::default();
                    let heir =
                        TestWorker::new(&pool, Registry::default().with(counting), true, None).await.expect("a worker");
                    heir.drain(10).await.expect("drained");
                });
            })
            .join()
            .expect("the heir");
        }
        None
    }
}

#[tokio::test]
async fn a_zombies_late_write_is_refused() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan::default()).await;
    let zombie = lab.worker(Some(Arc::new(Zombie { pool: lab.pool.clone() }))).await;
    zombie.turn(run_id).await.expect("a turn");
    assert_eq!(lab.status(run_id).await, "COMPLETED");
    assert_eq!(lab.counted(run_id).await, ["first", "second"], "the heir's work, and only that");
}

#[tokio::test]
async fn a_signal_that_comes_before_its_wait_is_heard() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan { waits: true, ..Plan::default() }).await;
    assert_eq!(lab.send(run_id, "1", "hello").await, engine::run::Delivery::Delivered);
    assert_eq!(lab.send(run_id, "1", "hello").await, engine::run::Delivery::Duplicate);
    lab.worker(None).await.turn(run_id).await.expect("a turn");
    let run = inspect::run(&lab.pool, run_id).await.expect("a run").expect("a run");
    assert_eq!((run.status.as_str(), run.output), ("COMPLETED", Some(serde_json::json!("hello"))));
    assert_eq!(lab.send(run_id, "2", "late").await, engine::run::Delivery::Finished);
}

#[tokio::test]
async fn a_signal_wakes_a_waiting_run_and_a_deadline_ends_the_wait() {
    let lab = Lab::new().await;
    let worker = lab.worker(None).await;
    let heard = lab.start("heard", &Plan { waits: true, ..Plan::default() }).await;
    let unheard = lab.start("unheard", &Plan { waits: true, ..Plan::default() }).await;
    for run_id in [heard, unheard] {
        worker.turn(run_id).await.expect("a turn");
        assert_eq!(lab.status(run_id).await, "WAITING");
    }
    assert_eq!(lab.tickets().await, 0, "who waits holds no ticket");
    lab.send(heard, "1", "hello").await;
    assert_eq!(lab.tickets().await, 1);
    worker.drain(20).await.expect("drained");
    for (run_id, output) in [(heard, Some(serde_json::json!("hello"))), (unheard, Some(serde_json::Value::Null))] {
        let run = inspect::run(&lab.pool, run_id).await.expect("a run").expect("a run");
        assert_eq!(run.status.as_str(), "COMPLETED");
        assert!(run.output == output || (run.output.is_none() && output == Some(serde_json::Value::Null)));
    }
}

#[tokio::test]
async fn a_signal_racing_the_wait_is_never_lost() {
    let lab = Arc::new(Lab::new().await);
    let worker = Arc::new(lab.worker(None).await);
    for round in 0..40 {
        let run_id = lab.start(&format!("round {round}"), &Plan { waits: true, ..Plan::default() }).await;
        let turn = tokio::spawn({
            let worker = Arc::clone(&worker);
            async move { worker.turn(run_id).await.expect("a turn") }
        });
        let send = tokio::spawn({
            let lab = Arc::clone(&lab);
            async move { lab.send(run_id, "1", "hello").await }
        });
        turn.await.expect("a turn");
        assert_eq!(send.await.expect("sent"), engine::run::Delivery::Delivered);
        if lab.status(run_id).await != "COMPLETED" {
            assert_eq!(lab.tickets().await, 1, "round {round}: asleep, with a signal and without a ticket");
            worker.turn(run_id).await.expect("a turn");
        }
        let run = inspect::run(&lab.pool, run_id).await.expect("a run").expect("a run");
        assert_eq!(run.output, Some(serde_json::json!("hello")), "round {round}");
    }
}

#[tokio::test]
async fn cancelling_unwinds_at_the_next_safe_point_and_twice_is_harmless() {
    let lab = Lab::new().await;
    let worker = lab.worker(None).await;
    let run_id = lab.start("k", &Plan { waits: true, ..Plan::default() }).await;
    worker.turn(run_id).await.expect("a turn");
    assert_eq!(lab.cancel(run_id).await, engine::run::Delivery::Delivered);
    assert_eq!(lab.cancel(run_id).await, engine::run::Delivery::Duplicate);
    worker.drain(10).await.expect("drained");
    assert_eq!(lab.status(run_id).await, "CANCELLED");
    assert_eq!(lab.counted(run_id).await, ["first", "undone"]);
    assert_eq!(lab.cancel(run_id).await, engine::run::Delivery::Finished);
}

#[tokio::test]
async fn a_failed_flow_undoes_in_reverse_what_had_committed() {
    let lab = Lab::new().await;
    let worker = lab.worker(None).await;
    let run_id = lab.start("k", &Plan { fails: true, ..Plan::default() }).await;
    worker.drain(10).await.expect("drained");
    assert_eq!(lab.status(run_id).await, "FAILED");
    assert_eq!(lab.counted(run_id).await, ["first", "undone"], "the second step never committed, so it needs no undo");
    assert_eq!(
        trace(&lab.pool, run_id).await.expect("a trace"),
        ["TX Count", "INTENT Outside", "CALL Outside", "FAILED planned", "UNDO Uncount", "FAILED"]
    );
}

#[tokio::test]
async fn a_call_is_repeated_under_the_same_key_after_a_crash() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan::default()).await;
    let doomed = lab.worker(Some(Once::new(Point::After, "Outside", Fault::Crash))).await;
    doomed.turn(run_id).await.expect("a turn");
    doomed.die().await.expect("dead");
    lab.worker(None).await.drain(10).await.expect("drained");
    assert_eq!(lab.counting.calls.load(Ordering::SeqCst), 2);
    let journal = inspect::journal(&lab.pool, run_id).await.expect("a journal");
    let call = journal.iter().find(|entry| entry.kind == "CALL").expect("the call");
    let key = Uuid::new_v5(&run_id, b"Outside/1");
    assert_eq!(call.output, Some(serde_json::json!(key)));
}

#[tokio::test]
async fn a_call_whose_caller_died_is_in_doubt_even_after_one_that_failed() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan::default()).await;
    let unlucky = lab.worker(Some(Once::new(Point::Before, "Outside", Fault::Retry))).await;
    unlucky.turn(run_id).await.expect("a turn");
    assert_eq!(lab.status(run_id).await, "RETRYING");
    let doomed = lab.worker(Some(Once::new(Point::After, "Outside", Fault::Crash))).await;
    doomed.turn(run_id).await.expect("a turn");
    doomed.die().await.expect("dead");
    assert_eq!(lab.counting.doubts.load(Ordering::SeqCst), 0, "the first attempt is accounted for");
    lab.worker(None).await.drain(10).await.expect("drained");
    assert_eq!(lab.counting.calls.load(Ordering::SeqCst), 2);
    assert_eq!(lab.counting.doubts.load(Ordering::SeqCst), 1, "the second is not");
}

#[tokio::test]
async fn a_sleep_ends_when_its_time_has_come_whoever_is_there() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan { sleeps_s: 3600, ..Plan::default() }).await;
    let first = lab.worker(None).await;
    first.turn(run_id).await.expect("a turn");
    assert_eq!(lab.status(run_id).await, "WAITING");
    first.die().await.expect("dead");
    let second = lab.worker(None).await;
    second.turn(run_id).await.expect("woken too early, it sleeps on");
    assert_eq!(lab.status(run_id).await, "WAITING");
    advance_clock(&lab.pool, Duration::from_secs(3601)).await.expect("later");
    second.drain(5).await.expect("drained");
    assert_eq!(lab.status(run_id).await, "COMPLETED");
}

#[tokio::test]
async fn a_flow_that_panics_every_time_unwinds() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan { panics: true, ..Plan::default() }).await;
    lab.worker(None).await.drain(50).await.expect("drained");
    assert_eq!(lab.status(run_id).await, "FAILED");
    assert_eq!(lab.counted(run_id).await, ["first", "undone"]);
}

#[tokio::test]
async fn a_run_that_kills_its_workers_unwinds_at_the_limit() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan::default()).await;
    struct Deadly;
    impl Faults for Deadly {
        fn at(&self, point: Point, step: &str) -> Option<Fault> {
            (point == Point::Before && step == "Outside").then_some(Fault::Crash)
        }
    }
    for _ in 0..25 {
        let doomed = lab.worker(Some(Arc::new(Deadly))).await;
        doomed.turn(run_id).await.expect("a turn");
        doomed.die().await.expect("dead");
    }
    assert_eq!(lab.status(run_id).await, "FAILED");
    assert_eq!(lab.counted(run_id).await, ["first", "undone"]);
}

#[tokio::test]
async fn a_journal_of_another_program_parks_the_run() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan { waits: true, ..Plan::default() }).await;
    let worker = lab.worker(None).await;
    worker.turn(run_id).await.expect("a turn");
    sqlx::query("update engine.journal set name = 'Renamed' where run_id = $1 and kind = 'TX'")
        .bind(run_id)
        .execute(&lab.pool)
        .await
        .expect("renamed");
    lab.send(run_id, "1", "hello").await;
    worker.turn(run_id).await.expect("a turn");
    let run = inspect::run(&lab.pool, run_id).await.expect("a run").expect("a run");
    assert_eq!(run.status.as_str(), "STUCK");
    assert_eq!(run.failure.expect("a reason")["code"], "journal-diverged");
}
