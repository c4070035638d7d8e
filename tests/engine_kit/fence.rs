//! Who may write to a run: whoever claimed it last, as the database remembers it now.

use std::collections::BTreeMap;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    patience::{eventually, in_time},
    world::until_blocked,
};

/// Something happens to the database while a worker is about to make its call, once.
struct Meanwhile(std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Meanwhile {
    /// Runs `work` to its end on connections of its own: to the worker no time passes.
    fn new<F>(pool: &PgPool, work: impl FnOnce(PgPool) -> F + Send + 'static) -> Arc<Self>
    where
        F: Future<Output = ()>,
    {
        let options = (*pool.connect_options()).clone();
        let run = move || {
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async { work(PgPool::connect_with(options).await.expect("a pool")).await });
            });
            thread.join().expect("what happened meanwhile");
        };
        Arc::new(Meanwhile(std::sync::Mutex::new(Some(Box::new(run)))))
    }
}

impl Faults for Meanwhile {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        if point == Point::Before && step == "Outside" {
            let work = self.0.lock().expect("once").take();
            if let Some(work) = work {
                work();
            }
        }
        None
    }
}

async fn holder(pool: &PgPool, run_id: Uuid) -> (Option<Uuid>, i32, i32) {
    sqlx::query_as("select owner, epoch, crashes from engine.runs where id = $1")
        .bind(run_id)
        .fetch_one(pool)
        .await
        .expect("a live run")
}

#[tokio::test]
async fn after_a_restore_that_forgot_a_claim_only_the_next_claimer_writes() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan::default()).await;
    sqlx::query("create table backup as select * from engine.runs").execute(&lab.pool).await.expect("a backup");
    let restored = Meanwhile::new(&lab.pool, move |pool| async move {
        sqlx::raw_sql(
            "delete from counted; delete from engine.journal;
             update engine.runs r set (status, epoch, claim_token, owner) =
                (select b.status, b.epoch, b.claim_token, b.owner from backup b where b.id = r.id)",
        )
        .execute(&pool)
        .await
        .expect("restored");
        // It holds the run, as the first one did, under the same count of claims.
        let crash = Once::new(Point::Before, "Outside", Fault::Crash);
        let heir = TestWorker::new(&pool, Registry::default().with(Counting::default()), true, Some(crash)).await;
        heir.expect("a worker").turn(run_id).await.expect("a turn");
    });
    let first = lab.worker(Some(restored)).await;
    first.turn(run_id).await.expect("a turn");
    let (owner, claims, _) = holder(&lab.pool, run_id).await;
    assert_eq!(claims, 1, "each of them has claimed it for the first time");
    assert_ne!(owner, Some(first.engine().incarnation().id()));
    assert_eq!(lab.counted(run_id).await, ["first"], "the heir's");
    assert_eq!(trace(&lab.pool, run_id).await.expect("a trace"), ["TX Count", "INTENT Outside", "RUNNING"]);
}

#[tokio::test]
async fn a_worker_that_remembers_a_lost_commit_writes_nothing_behind_it() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan::default()).await;
    let lossy = Meanwhile::new(&lab.pool, move |pool| async move {
        sqlx::query("delete from engine.journal where run_id = $1 and kind = 'INTENT'")
            .bind(run_id)
            .execute(&pool)
            .await
            .expect("lost");
    });
    let worker = lab.worker(Some(lossy)).await;
    worker.turn(run_id).await.expect("a turn");
    assert_eq!(lab.counted(run_id).await, ["first"], "nothing was written behind what is lost");
    // The worker is alive, so it alone can give the run back; then its journal is read anew.
    eventually("it is given back", async || holder(&lab.pool, run_id).await.0.is_none()).await;
    worker.drain(10).await.expect("drained");
    assert_eq!(
        trace(&lab.pool, run_id).await.expect("a trace"),
        ["TX Count", "INTENT Outside", "CALL Outside", "TX Count", "COMPLETED"]
    );
    assert_eq!(lab.counted(run_id).await, ["first", "second"]);
}

/// A claim that looks at two runs stalls over the owner of the first; meanwhile the second is taken by a
/// worker that has only just come, whom the claim's snapshot does not know.
#[tokio::test]
async fn a_claim_under_way_does_not_take_a_run_from_who_was_faster() {
    let lab = Lab::new().await;
    let (a, b) = (lab.start("a", &Plan::default()).await, lab.start("b", &Plan::default()).await);
    let slow = lab.worker(None).await;
    let somebody = Uuid::now_v7();
    let stall = format!(
        "insert into engine.workers (id, name, queues) values ('{somebody}', 'alive', '{{}}');
         update engine.runs set owner = '{somebody}', status = 'RUNNING' where id = '{a}';
         create function stall(worker uuid) returns boolean language plpgsql as $$
         begin
            if worker = '{somebody}' then perform pg_advisory_xact_lock(7); end if;
            return true;
         end $$;
         alter table engine.workers rename to all_workers;
         create view engine.workers as select * from engine.all_workers where stall(id)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(stall)).execute(&lab.pool).await.expect("a stall");
    let mut gate = lab.pool.acquire().await.expect("a connection");
    sqlx::query("select pg_advisory_lock(7)").execute(&mut *gate).await.expect("shut");
    let engine = Arc::clone(slow.engine());
    let claims = tokio::spawn(async move { tokio::join!(engine.resume(a), engine.resume(b)) });
    until_blocked(&lab.pool).await;
    let quick = lab.worker(Some(Once::new(Point::Before, "Outside", Fault::Crash))).await;
    quick.turn(b).await.expect("a turn");
    sqlx::query("select pg_advisory_unlock(7)").execute(&mut *gate).await.expect("open");
    let (first, second) = claims.await.expect("claimed");
    assert_eq!(first.expect("a turn"), engine::worker::Turn::Idle, "its owner is alive");
    assert_eq!(second.expect("a turn"), engine::worker::Turn::Idle, "and so is this one's");
    let (owner, claims, crashes) = holder(&lab.pool, b).await;
    assert_eq!((owner, claims, crashes), (Some(quick.engine().incarnation().id()), 1, 0));
}

/// A worker that is struck off may live, hold one of its runs, and want another next.
#[tokio::test]
async fn who_strikes_a_worker_off_waits_for_a_run_with_no_other_in_hand() {
    for (held, wanted) in [("a", "b"), ("b", "a")] {
        let lab = Lab::new().await;
        let worker = lab.worker(None).await;
        let mut runs = BTreeMap::new();
        for key in ["a", "b"] {
            runs.insert(key, lab.start(key, &Plan::default()).await);
        }
        sqlx::query("update engine.runs set owner = $1, status = 'RUNNING'")
            .bind(worker.engine().incarnation().id())
            .execute(&lab.pool)
            .await
            .expect("in its hands");
        let mut carries = lab.pool.begin().await.expect("a transaction");
        let lock = sqlx::query("select from engine.runs where id = $1 for update").bind(runs[held]);
        lock.execute(&mut *carries).await.expect("locked");
        let burial = tokio::spawn(worker.die());
        until_blocked(&lab.pool).await;
        let lock = sqlx::query("select from engine.runs where id = $1 for update nowait").bind(runs[wanted]);
        lock.execute(&mut *carries).await.expect("nobody holds it");
        carries.commit().await.expect("committed");
        in_time("it is struck off", burial).await.expect("no panic").expect("struck off");
        let due: i64 = sqlx::query_scalar("select count(*) from engine.runs where wake_at <= engine.now()")
            .fetch_one(&lab.pool)
            .await
            .expect("a count");
        assert_eq!(due, 2, "both are anybody's");
    }
}

/// Calls, and stays in the call until it is told to go on.
#[derive(Clone, Default)]
struct Pausing {
    entered: Arc<Notify>,
    go_on: Arc<Notify>,
    calls: Arc<AtomicUsize>,
}

impl Call for Pausing {
    const NAME: &'static str = "Pause";
    type Output = ();
    async fn run(&self, _: &CallContext) -> Result<(), StepError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.entered.notify_one();
        self.go_on.notified().await;
        Ok(())
    }

    fn policy(&self) -> engine::RetryPolicy {
        engine::RetryPolicy { timeout: Duration::from_secs(600), ..engine::RetryPolicy::default() }
    }
}

impl Workflow for Pausing {
    const NAME: &'static str = "pausing";
    const QUEUE: &'static str = "pausing";
    type Input = ();
    type Output = ();

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<()> {
        flow.call(self.clone()).undo(Nothing).await
    }
}

/// A worker in the middle of its call, and its turn.
async fn paused(lab: &Lab, pausing: &Pausing) -> (Uuid, TestWorker, tokio::task::JoinHandle<engine::worker::Turn>) {
    let mut tx = lab.pool.begin().await.expect("a transaction");
    let start = Start::<Pausing>::new("k", &()).expect("a start");
    let run_id = engine::start(&mut tx, &start).await.expect("started").run_id;
    tx.commit().await.expect("committed");
    let registry = Registry::default().with(pausing.clone());
    let worker = TestWorker::new(&lab.pool, registry, true, None).await.expect("a worker");
    let engine = Arc::clone(worker.engine());
    let turn = tokio::spawn(async move { engine.resume(run_id).await.expect("a turn") });
    pausing.entered.notified().await;
    (run_id, worker, turn)
}

#[tokio::test]
async fn a_worker_that_beat_too_late_does_not_take_from_itself_what_it_has_in_hand() {
    let (lab, pausing) = (Lab::new().await, Pausing::default());
    let (run_id, worker, turn) = paused(&lab, &pausing).await;
    let old = worker.engine().incarnation().id();
    sqlx::query("update engine.workers set beat_at = now() - interval '1 hour'")
        .execute(&lab.pool)
        .await
        .expect("late");
    worker.engine().beat(&lab.pool).await.expect("a beat");
    assert_ne!(worker.engine().incarnation().id(), old, "declared dead, it goes on as somebody new");
    assert_eq!(worker.engine().resume(run_id).await.expect("a turn"), engine::worker::Turn::Idle);
    pausing.go_on.notify_one();
    assert_eq!(turn.await.expect("a turn"), engine::worker::Turn::Ended(engine::RunStatus::Completed));
    assert_eq!(pausing.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn on_a_database_with_another_history_a_worker_drops_what_it_has_in_hand() {
    let (lab, pausing) = (Lab::new().await, Pausing::default());
    let (_, worker, turn) = paused(&lab, &pausing).await;
    let old = worker.engine().incarnation().id();
    worker.engine().beat(&lab.pool).await.expect("a beat");
    assert!(!turn.is_finished() && worker.engine().incarnation().id() == old, "the same history");
    let restored = database().await;
    worker.engine().beat(&restored).await.expect("a beat");
    assert_eq!(turn.await.expect("a turn"), engine::worker::Turn::Resting, "dropped, though its call has not ended");
    let new = worker.engine().incarnation().id();
    assert_ne!(new, old);
    let alive: Vec<Uuid> =
        sqlx::query_scalar("select id from engine.workers").fetch_all(&restored).await.expect("workers");
    assert_eq!(alive, [new]);
    worker.engine().beat(&restored).await.expect("a beat");
    assert_eq!(worker.engine().incarnation().id(), new, "once");
}

#[tokio::test]
async fn a_pool_told_to_stop_hands_over_a_call_that_does_not_end() {
    let (lab, pausing) = (Lab::new().await, Pausing::default());
    let pool = |stop: &CancellationToken| {
        // Whatever had to be found out by a lease that runs out would come too late.
        let settings =
            engine::worker::Settings { lease: Duration::from_secs(3_600), ..engine::worker::Settings::default() };
        let options = workers::PoolOptions { settings, grace: Duration::ZERO, ..workers::PoolOptions::default() };
        let registry = Registry::default().with(pausing.clone());
        tokio::spawn(workers::run(lab.pool.clone(), registry, options, stop.clone()))
    };
    let mut tx = lab.pool.begin().await.expect("a transaction");
    engine::start(&mut tx, &Start::<Pausing>::new("k", &()).expect("a start")).await.expect("started");
    tx.commit().await.expect("committed");
    let stop = CancellationToken::new();
    let leaver = pool(&stop);
    in_time("the call", pausing.entered.notified()).await;
    stop.cancel();
    in_time("the pool stops", leaver).await.expect("no panic").expect("a graceful end");
    let held: (i64, i64) = sqlx::query_as(
        "select (select count(*) from engine.workers), (select count(*) from apalis.jobs where status <> 'Pending')",
    )
    .fetch_one(&lab.pool)
    .await
    .expect("counts");
    assert_eq!((held, lab.tickets().await), ((0, 0), 1), "the run waits for somebody else");
    let stop = CancellationToken::new();
    let heir = pool(&stop);
    in_time("the call is made again", pausing.entered.notified()).await;
    assert_eq!(pausing.calls.load(Ordering::SeqCst), 2);
    stop.cancel();
    in_time("the heir stops", heir).await.expect("no panic").expect("a graceful end");
}

#[tokio::test]
async fn a_fetch_under_way_when_its_pool_stops_takes_no_ticket_along() {
    let lab = Lab::new().await;
    // Every fetch takes its time to commit.
    for statement in [
        "create function lag() returns trigger language plpgsql as $$ begin perform pg_sleep(1); return null; end $$",
        "create constraint trigger lag after update on apalis.jobs deferrable initially deferred
             for each row when (new.lock_by is not null) execute function lag()",
    ] {
        sqlx::query(statement).execute(&lab.pool).await.expect("a trigger");
    }
    let stop = CancellationToken::new();
    let options = workers::PoolOptions::default();
    let registry = Registry::default().with(Pausing::default());
    let pool = tokio::spawn(workers::run(lab.pool.clone(), registry, options, stop.clone()));
    let mut tx = lab.pool.begin().await.expect("a transaction");
    engine::start(&mut tx, &Start::<Pausing>::new("k", &()).expect("a start")).await.expect("started");
    tx.commit().await.expect("committed");
    let fetches = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    let under_way = async || sqlx::query_scalar::<_, i64>(fetches).fetch_one(&lab.pool).await.expect("a count");
    eventually("a fetch is under way", async || under_way().await > 0).await;
    stop.cancel();
    in_time("the pool stops", pool).await.expect("no panic").expect("a graceful end");
    eventually("the fetch has ended", async || under_way().await == 0).await;
    let ready: i64 = sqlx::query_scalar("select count(*) from apalis.jobs where status = 'Pending'")
        .fetch_one(&lab.pool)
        .await
        .expect("a count");
    assert_eq!(ready, 1, "the ticket is there for others");
}

#[tokio::test]
async fn a_pool_that_stops_waits_for_whoever_has_locked_a_run_it_holds() {
    let (lab, pausing) = (Lab::new().await, Pausing::default());
    let mut tx = lab.pool.begin().await.expect("a transaction");
    engine::start(&mut tx, &Start::<Pausing>::new("k", &()).expect("a start")).await.expect("started");
    tx.commit().await.expect("committed");
    let options = (*lab.pool.connect_options()).clone().options([("lock_timeout", "300ms")]);
    let impatient = lab.pool.options().clone().connect_lazy_with(options);
    let stop = CancellationToken::new();
    let options = workers::PoolOptions { grace: Duration::ZERO, ..workers::PoolOptions::default() };
    let pool = tokio::spawn(workers::run(impatient, Registry::default().with(pausing.clone()), options, stop.clone()));
    in_time("the call", pausing.entered.notified()).await;
    let mut somebody = lab.pool.begin().await.expect("a transaction");
    sqlx::query("select from engine.runs for update").execute(&mut *somebody).await.expect("a lock");
    stop.cancel();
    let waiting = "select xact_start::text from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock' and query like 'update engine.runs%'";
    let tried = std::sync::Mutex::new(std::collections::BTreeSet::new());
    eventually("it tries again", async || {
        let waiting: Option<String> = sqlx::query_scalar(waiting).fetch_optional(&lab.pool).await.expect("who waits");
        let mut tried = tried.lock().expect("no panic");
        tried.extend(waiting);
        tried.len() == 2
    })
    .await;
    somebody.commit().await.expect("committed");
    in_time("the pool stops", pool).await.expect("no panic").expect("a graceful end");
    let held: i64 =
        sqlx::query_scalar("select count(*) from engine.workers").fetch_one(&lab.pool).await.expect("a count");
    assert_eq!((held, lab.tickets().await), (0, 1), "the run waits for somebody else");
}

#[tokio::test]
async fn a_call_holds_no_connection_and_no_place_for_one() {
    let (lab, pausing) = (Lab::new().await, Pausing::default());
    let mut tx = lab.pool.begin().await.expect("a transaction");
    for n in 0..16 {
        engine::start(&mut tx, &Start::<Pausing>::new(n.to_string(), &()).expect("a start")).await.expect("started");
    }
    tx.commit().await.expect("committed");
    let few = lab.pool.options().clone().max_connections(4).connect_lazy_with((*lab.pool.connect_options()).clone());
    let stop = CancellationToken::new();
    let options = workers::PoolOptions { grace: Duration::ZERO, ..workers::PoolOptions::default() };
    let pool = tokio::spawn(workers::run(few, Registry::default().with(pausing.clone()), options, stop.clone()));
    eventually("all are in their calls", async || pausing.calls.load(Ordering::SeqCst) == 16).await;
    stop.cancel();
    in_time("the pool stops", pool).await.expect("no panic").expect("a graceful end");
}
