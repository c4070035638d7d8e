//! Pools that share the work.

use engine::{SetResult, done};

use super::*;

/// Counts the sets that are under way at once.
#[derive(Clone, Default)]
struct Busy {
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Work(Busy);
impl SetStep for Work {
    const NAME: &'static str = "Work";
    type Output = ();
    async fn run(_: &mut SetTx<'_>, rows: &[Self]) -> SetResult<()> {
        let Some(Work(busy)) = rows.first() else { return Ok(Vec::new()) };
        busy.most.fetch_max(1 + busy.inside.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
        busy.inside.fetch_sub(1, Ordering::SeqCst);
        done(rows)
    }
}

impl Workflow for Busy {
    const NAME: &'static str = "busy";
    const QUEUE: &'static str = "busy";
    type Input = ();
    type Output = ();

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<()> {
        flow.tx(Work(self.clone())).undo(Nothing).await
    }
}

/// The sets of one of `pools` pools that are under way at once.
async fn sets_of_one_of(pools: usize) -> usize {
    let lab = Lab::new().await;
    let busy = Busy::default();
    let worker = async || {
        TestWorker::new(&lab.pool, Registry::default().with(busy.clone()), true, None).await.expect("a worker")
    };
    let worked = worker().await;
    for _ in 1..pools {
        worker().await;
    }
    worked.engine().beat(&lab.pool).await.expect("a beat");
    let mut tx = lab.pool.begin().await.expect("a transaction");
    for key in 0..80 {
        let start = Start::<Busy>::new(key.to_string(), &()).expect("a start");
        engine::start(&mut tx, &start).await.expect("started");
    }
    tx.commit().await.expect("committed");
    worked.drain_together(5).await.expect("drained");
    let completed: i64 = sqlx::query_scalar("select count(*) from engine.finished_runs where status = 'COMPLETED'")
        .fetch_one(&lab.pool)
        .await
        .expect("a count");
    assert_eq!(completed, 80);
    busy.most.load(Ordering::SeqCst)
}

#[tokio::test]
async fn the_more_pools_the_fewer_sets_has_each_under_way() {
    assert_eq!(sets_of_one_of(1).await, 2);
    assert_eq!(sets_of_one_of(2).await, 1);
    assert_eq!(sets_of_one_of(5).await, 1);
}
