//! Work in batches, and sleeping until a moment.

use chrono::{DateTime, TimeDelta, Utc};

use super::*;

/// Counts twice, with or without a commit between.
#[derive(Clone, Copy)]
struct Batches {
    checkpoints: bool,
}

impl Workflow for Batches {
    const NAME: &'static str = "batches";
    const QUEUE: &'static str = "batches";
    type Input = ();
    type Output = ();

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<()> {
        flow.tx(Count("first")).undo(Nothing).await?;
        if self.checkpoints {
            flow.checkpoint().await?;
        }
        flow.tx(CountLast).undo(Nothing).await?;
        Ok(())
    }
}

struct CountLast;
impl Step for CountLast {
    const NAME: &'static str = "CountLast";
    type Output = i32;
    async fn run(&self, tx: &mut Tx<'_>) -> Result<i32, StepError> {
        Count("second").run(tx).await
    }
}

#[tokio::test]
async fn a_checkpoint_keeps_the_batches_before_it_when_a_later_one_dies() {
    for checkpoints in [true, false] {
        let lab = Lab::new().await;
        let mut tx = lab.pool.begin().await.expect("a transaction");
        let start = Start::<Batches>::new("k", &()).expect("a start");
        let run_id = engine::start(&mut tx, &start).await.expect("started").run_id;
        tx.commit().await.expect("committed");
        let registry = Registry::default().with(Batches { checkpoints });
        let crash = Once::new(Point::Before, "CountLast", Fault::Crash);
        let doomed = TestWorker::new(&lab.pool, registry.clone(), true, Some(crash)).await.expect("a worker");
        doomed.turn(run_id).await.expect("a turn");
        doomed.die().await.expect("dead");
        let kept: &[&str] = if checkpoints { &["first"] } else { &[] };
        assert_eq!(lab.counted(run_id).await, kept, "checkpoints: {checkpoints}");
        let heir = TestWorker::new(&lab.pool, registry, true, None).await.expect("a worker");
        heir.drain(5).await.expect("drained");
        assert_eq!(lab.counted(run_id).await, ["first", "second"]);
        assert_eq!(lab.status(run_id).await, "COMPLETED");
    }
}

/// Sleeps until it is told.
#[derive(Clone, Copy)]
struct Sleeper;

impl Workflow for Sleeper {
    const NAME: &'static str = "sleeper";
    const QUEUE: &'static str = "sleeper";
    type Input = DateTime<Utc>;
    type Output = ();

    async fn run(&self, flow: &mut Flow, until: DateTime<Utc>) -> Result<()> {
        flow.sleep_until("until", until).await
    }
}

#[tokio::test]
async fn a_run_sleeps_until_the_moment_and_not_at_all_when_it_has_passed() {
    let lab = Lab::new().await;
    let worker = TestWorker::new(&lab.pool, Registry::default().with(Sleeper), true, None).await.expect("a worker");
    let now = engine::now(&lab.pool).await.expect("the time");
    let mut runs = Vec::new();
    for (key, until) in [("past", now - TimeDelta::hours(1)), ("future", now + TimeDelta::hours(1))] {
        let mut tx = lab.pool.begin().await.expect("a transaction");
        let start = Start::<Sleeper>::new(key, &until).expect("a start");
        let run_id = engine::start(&mut tx, &start).await.expect("started").run_id;
        tx.commit().await.expect("committed");
        worker.turn(run_id).await.expect("a turn");
        runs.push(run_id);
    }
    assert_eq!(lab.status(runs[0]).await, "COMPLETED");
    assert_eq!(lab.status(runs[1]).await, "WAITING");
    advance_clock(&lab.pool, Duration::from_secs(3599)).await.expect("later");
    assert_eq!(sweep(&lab.pool, Duration::from_secs(8)).await.expect("swept").ticketed, 0, "not yet");
    advance_clock(&lab.pool, Duration::from_secs(1)).await.expect("later");
    assert_eq!(sweep(&lab.pool, Duration::from_secs(8)).await.expect("swept").ticketed, 1);
    worker.turn(runs[1]).await.expect("a turn");
    assert_eq!(lab.status(runs[1]).await, "COMPLETED");
}

#[tokio::test]
async fn a_crowd_that_is_due_at_one_moment_is_served_in_portions_and_nobody_waits_behind_all_of_it() {
    let lab = Lab::new().await;
    let mut tx = lab.pool.begin().await.expect("a transaction");
    let crowd: Vec<_> =
        (0..600).map(|number| Start::<Batches>::new(number.to_string(), &()).expect("a start")).collect();
    assert_eq!(engine::start_all(&mut tx, &crowd, Utc::now()).await.expect("started"), 600);
    let late = Start::<Sleeper>::new("late", &Utc::now()).expect("a start");
    engine::start(&mut tx, &late).await.expect("started");
    sqlx::query("delete from apalis.jobs").execute(&mut *tx).await.expect("lost tickets");
    sqlx::query("update engine.runs set wake_at = engine.now() - (case queue when 'batches' then 2 else 1 end) * interval '1 second'")
        .execute(&mut *tx)
        .await
        .expect("all due");
    tx.commit().await.expect("committed");
    let sweep = async || engine::worker::sweep(&lab.pool, Duration::from_secs(8)).await.expect("a sweep").ticketed;
    assert_eq!(sweep().await, 256 + 1, "a portion of the crowd, and the one of another queue");
    assert_eq!(sweep().await, 16, "while those wait, a few more");
    sqlx::query("delete from apalis.jobs where job_type = 'batches'").execute(&lab.pool).await.expect("answered");
    assert_eq!(sweep().await, 256, "the next portion");
}
