//! Steps that lock what everybody wants.

use engine::{SetResult, done};

use super::*;

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
