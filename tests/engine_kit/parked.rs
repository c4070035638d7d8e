//! Parked runs that are let go on.

use engine::park::{self, Unparked, unpark};

use super::*;

/// One step fails for good, whenever it is tried.
struct Fails(&'static str, Fault);
impl Faults for Fails {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        (point == Point::Before && step == self.0).then(|| self.1.clone())
    }
}

impl Lab {
    async fn unpark(&self, run_id: Uuid) -> Unparked {
        let mut tx = self.pool.begin().await.expect("a transaction");
        let unparked = unpark(&mut tx, run_id, "somebody", "a test").await.expect("an answer");
        tx.commit().await.expect("committed");
        unparked
    }

    async fn parked(&self) -> Vec<park::Parked> {
        let mut conn = self.pool.acquire().await.expect("a connection");
        park::parked(&mut conn, "somebody", Uuid::nil(), 10).await.expect("parked runs")
    }

    /// A run that failed after its first step had committed, and whose undo fails.
    async fn parked_while_unwinding(&self, fault: Fault) -> Uuid {
        let run_id = self.start("k", &Plan { fails: true, ..Plan::default() }).await;
        let unlucky = self.worker(Some(Arc::new(Fails("Uncount", fault)))).await;
        unlucky.drain(50).await.expect("drained");
        assert_eq!(self.status(run_id).await, "STUCK");
        assert_eq!(self.counted(run_id).await, ["first"]);
        run_id
    }
}

#[tokio::test]
async fn a_run_parked_while_unwinding_unwinds_on_for_its_first_reason() {
    for fault in [Fault::Retry, Fault::Fail(Failure::new("broken", "a test"))] {
        let lab = Lab::new().await;
        let run_id = lab.parked_while_unwinding(fault).await;
        assert_eq!(lab.unpark(run_id).await, Unparked::Resumed);
        assert_eq!(lab.status(run_id).await, "COMPENSATING");
        lab.worker(None).await.drain(10).await.expect("drained");
        let run = inspect::run(&lab.pool, run_id).await.expect("a run").expect("a run");
        assert_eq!(run.status.as_str(), "FAILED");
        assert_eq!(run.failure.expect("a reason")["code"], "planned", "not what parked it");
        assert_eq!(lab.counted(run_id).await, ["first", "undone"]);
        let trace = trace(&lab.pool, run_id).await.expect("a trace");
        assert_eq!(trace.iter().filter(|line| *line == "RESUMED somebody").count(), 1, "{trace:?}");
    }
}

#[tokio::test]
async fn a_run_whose_cause_has_not_passed_parks_again_and_is_counted() {
    let lab = Lab::new().await;
    let run_id = lab.parked_while_unwinding(Fault::Retry).await;
    for times in 0..3 {
        let parked = lab.parked().await;
        assert_eq!((parked.len(), parked[0].run_id, parked[0].resumed), (1, run_id, times));
        assert_eq!(parked[0].failure.as_ref().map(|failure| &*failure.code), Some("step-failed"));
        assert_eq!(lab.unpark(run_id).await, Unparked::Resumed);
        assert!(lab.parked().await.is_empty());
        lab.worker(Some(Arc::new(Fails("Uncount", Fault::Retry)))).await.drain(50).await.expect("drained");
        assert_eq!(lab.status(run_id).await, "STUCK");
    }
    assert_eq!(lab.counted(run_id).await, ["first"]);
}

#[tokio::test]
async fn a_run_whose_journal_is_read_again_by_its_own_program_goes_on() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan { waits: true, ..Plan::default() }).await;
    let worker = lab.worker(None).await;
    worker.turn(run_id).await.expect("a turn");
    let rename = async |from: &str, to: &str| {
        sqlx::query("update engine.journal set name = $2 where name = $1")
            .bind(from)
            .bind(to)
            .execute(&lab.pool)
            .await
            .expect("renamed");
    };
    rename("Count", "Renamed").await;
    lab.send(run_id, "1", "hello").await;
    worker.turn(run_id).await.expect("a turn");
    assert_eq!(lab.status(run_id).await, "STUCK");
    rename("Renamed", "Count").await;
    assert_eq!(lab.unpark(run_id).await, Unparked::Resumed);
    worker.drain(10).await.expect("drained");
    assert_eq!(lab.status(run_id).await, "COMPLETED");
    assert_eq!(lab.counted(run_id).await, ["first", "second"]);
}

#[tokio::test]
async fn only_a_parked_run_can_be_let_go_on_and_by_one_of_many_at_once() {
    let lab = Arc::new(Lab::new().await);
    assert_eq!(lab.unpark(Uuid::now_v7()).await, Unparked::Unknown);
    let waiting = lab.start("waiting", &Plan { waits: true, ..Plan::default() }).await;
    let worker = lab.worker(None).await;
    worker.turn(waiting).await.expect("a turn");
    assert_eq!(lab.unpark(waiting).await, Unparked::NotParked);
    assert_eq!(lab.status(waiting).await, "WAITING");
    lab.send(waiting, "1", "hello").await;
    worker.drain(10).await.expect("drained");
    assert_eq!(lab.unpark(waiting).await, Unparked::Unknown, "it has ended");

    let run_id = lab.parked_while_unwinding(Fault::Retry).await;
    let asks = (0..8).map(|_| {
        let lab = Arc::clone(&lab);
        tokio::spawn(async move { lab.unpark(run_id).await })
    });
    let mut resumed = 0;
    for ask in asks {
        resumed += usize::from(ask.await.expect("an answer") == Unparked::Resumed);
    }
    assert_eq!(resumed, 1);
    assert_eq!(lab.tickets().await, 1);
    lab.worker(None).await.drain(10).await.expect("drained");
    assert_eq!(lab.counted(run_id).await, ["first", "undone"]);
}

/// Letting go on is undone with the transaction it happens in.
#[tokio::test]
async fn a_run_is_let_go_on_only_by_who_commits() {
    let lab = Lab::new().await;
    let run_id = lab.parked_while_unwinding(Fault::Retry).await;
    let mut tx = lab.pool.begin().await.expect("a transaction");
    assert_eq!(unpark(&mut tx, run_id, "somebody", "a test").await.expect("an answer"), Unparked::Resumed);
    tx.rollback().await.expect("rolled back");
    assert_eq!(lab.status(run_id).await, "STUCK");
    assert_eq!(lab.tickets().await, 0);
}
