//! Steps that lock what everybody wants.

use engine::{SetResult, done};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::patience::{eventually, in_time};

/// Takes from what everybody wants, and then does something of its own.
#[derive(Clone, Default)]
struct Buying {
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Take(Buying);
impl SetStep for Take {
    const NAME: &'static str = "Take";
    type Output = ();
    const HOT: bool = true;
    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let Some(Take(buying)) = rows.first() else { return Ok(Vec::new()) };
        buying.most.fetch_max(1 + buying.inside.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        let taken = sqlx::query("update counted set what = what").execute(tx.conn()).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        buying.inside.fetch_sub(1, Ordering::SeqCst);
        taken?;
        done(rows)
    }
}

struct Wrap;
impl SetStep for Wrap {
    const NAME: &'static str = "Wrap";
    type Output = ();
    async fn run(_: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        done(rows)
    }
}

impl Workflow for Buying {
    const NAME: &'static str = "buying";
    const QUEUE: &'static str = "buying";
    type Input = ();
    type Output = ();

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<()> {
        flow.tx(Take(self.clone())).undo(Nothing).await?;
        flow.tx(Wrap).undo(Nothing).await
    }
}

async fn bought(lab: &Lab, worker: &TestWorker, runs: usize) {
    sqlx::query("insert into counted (what) values ('stock')").execute(&lab.pool).await.expect("stock");
    let mut tx = lab.pool.begin().await.expect("a transaction");
    for key in 0..runs {
        let start = Start::<Buying>::new(key.to_string(), &()).expect("a start");
        engine::start(&mut tx, &start).await.expect("started");
    }
    tx.commit().await.expect("committed");
    worker.drain_together(5).await.expect("drained");
    let completed: i64 = sqlx::query_scalar("select count(*) from engine.finished_runs where status = 'COMPLETED'")
        .fetch_one(&lab.pool)
        .await
        .expect("a count");
    assert_eq!(usize::try_from(completed), Ok(runs));
}

#[tokio::test]
async fn sets_take_turns_at_what_everybody_wants() {
    let lab = Lab::new().await;
    let buying = Buying::default();
    let worker =
        TestWorker::new(&lab.pool, Registry::default().with(buying.clone()), true, None).await.expect("a worker");
    bought(&lab, &worker, 60).await;
    assert_eq!(buying.most.load(Ordering::SeqCst), 1, "a set waited in the database for another");
}

#[tokio::test]
async fn a_crowd_commits_right_after_what_everybody_wants_and_one_by_itself_goes_on() {
    for (runs, commits) in [(1, 1), (7, 1), (8, 2)] {
        let lab = Lab::new().await;
        let registry = Registry::default().with(Buying::default());
        let worker = TestWorker::in_cohorts(&lab.pool, registry, runs, None).await.expect("a worker");
        bought(&lab, &worker, runs).await;
        let journalled: i64 = sqlx::query_scalar(
            "select max(commits) from (select count(distinct xmin::text) as commits from engine.journal group by run_id) j",
        )
        .fetch_one(&lab.pool)
        .await
        .expect("a count");
        assert_eq!(journalled, commits, "{runs} runs");
    }
}

/// Takes from one row of many.
struct TakeOne(i32);
impl SetStep for TakeOne {
    const NAME: &'static str = "TakeOne";
    type Output = ();
    const HOT: bool = true;
    async fn run(tx: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let ids: Vec<i32> = rows.iter().map(|TakeOne(id)| *id).collect();
        sqlx::query("select from stock where id = any($1) order by id for no key update")
            .bind(&ids)
            .execute(tx.conn())
            .await?;
        sqlx::query("update stock set taken = taken + 1 where id = any($1)").bind(&ids).execute(tx.conn()).await?;
        done(rows)
    }
}

#[derive(Clone)]
struct BuyingOne;
impl Workflow for BuyingOne {
    const NAME: &'static str = "buying-one";
    const QUEUE: &'static str = "buying";
    type Input = i32;
    type Output = ();

    async fn run(&self, flow: &mut Flow, row: i32) -> Result<()> {
        flow.tx(TakeOne(row)).undo(Nothing).await
    }
}

/// Somebody has forgotten a transaction with a row in it that several a second want.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_stays_locked_holds_up_none_who_want_another() {
    let lab = Lab::new().await;
    sqlx::query("create table stock as select id, 0 as taken from generate_series(0, 100) id")
        .execute(&lab.pool)
        .await
        .expect("stock");
    let patient = (*lab.pool.connect_options()).clone().options([("lock_timeout", "5s")]);
    let pool = lab.pool.options().clone().connect_lazy_with(patient);
    let stop = CancellationToken::new();
    let worker = tokio::spawn(workers::run(
        pool,
        Registry::default().with(BuyingOne),
        workers::PoolOptions::default(),
        stop.clone(),
    ));
    let mut forgotten = lab.pool.begin().await.expect("a transaction");
    sqlx::query("select from stock where id = 0 for update").execute(&mut *forgotten).await.expect("a lock");
    let (wanting, others) = (30_i64, 150_i64);
    for at in 0..180_i32 {
        let row = if at % 6 == 0 { 0 } else { at % 100 + 1 };
        let start = Start::<BuyingOne>::new(format!("{row}/{at}"), &row).expect("a start");
        let mut tx = lab.pool.begin().await.expect("a transaction");
        engine::start(&mut tx, &start).await.expect("started");
        tx.commit().await.expect("committed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = async |want_it: bool| -> (i64, f64) {
        sqlx::query_as(
            "select count(*), coalesce(max(extract(epoch from finished_at - created_at)), 0)::float8
               from engine.finished_runs where status = 'COMPLETED' and (run_key like '0/%') = $1",
        )
        .bind(want_it)
        .fetch_one(&lab.pool)
        .await
        .expect("what has ended")
    };
    eventually("the others have ended", async || ended(false).await.0 == others).await;
    let (_, longest) = ended(false).await;
    assert_eq!(ended(true).await.0, 0, "the row is locked");
    forgotten.rollback().await.expect("rolled back");
    eventually("who wanted the row has it", async || ended(true).await.0 == wanting).await;
    stop.cancel();
    in_time("the pool stops", worker).await.expect("no panic").expect("a graceful end");
    assert!(longest < 5.0, "somebody waited {longest} s behind those who want the row");
}
