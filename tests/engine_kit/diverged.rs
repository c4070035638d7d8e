//! Runs whose journal their program cannot read: they park, and end whole once it can.

use engine::park::{Unparked, unpark};

use super::*;

impl Lab {
    async fn write(&self, sql: &'static str, run_id: Uuid) {
        let changed = sqlx::query(sql).bind(run_id).execute(&self.pool).await.expect("written").rows_affected();
        assert!(changed > 0, "{sql}");
    }

    async fn code(&self, run_id: Uuid) -> String {
        let run = inspect::run(&self.pool, run_id).await.expect("a run").expect("a run");
        run.failure.expect("a reason")["code"].as_str().expect("a code").to_owned()
    }

    async fn let_go_on(&self, run_id: Uuid) {
        let mut tx = self.pool.begin().await.expect("a transaction");
        assert_eq!(unpark(&mut tx, run_id, "somebody", "mended").await.expect("an answer"), Unparked::Resumed);
        tx.commit().await.expect("committed");
    }
}

#[tokio::test]
async fn whatever_cannot_be_read_again_parks_and_the_run_ends_whole_once_it_can() {
    for fault in [Fault::Unreadable, Fault::Panic] {
        for fusion in [true, false] {
            for plan in [
                Plan::default(),
                Plan { waits: true, sleeps_s: 60, ..Plan::default() },
                Plan { fails: true, waits: true, ..Plan::default() },
                Plan { fails: true, ..Plan::default() },
            ] {
                let when = format!("{fault:?}, fusion {fusion}, {plan:?}");
                let lab = Lab::new().await;
                let run_id = lab.start("k", &plan).await;
                let memory = BadMemory::new(fault.clone());
                let registry = Registry::default().with(lab.counting.clone());
                memory.drain(&lab.pool, &registry, fusion, 200).await.expect("drained");
                assert_eq!(lab.status(run_id).await, if plan.fails { "FAILED" } else { "COMPLETED" }, "{when}");
                let counted = lab.counted(run_id).await;
                let undone = counted.iter().filter(|what| *what == "undone").count();
                assert_eq!(undone, if plan.fails { counted.len() / 2 } else { 0 }, "{when}: {counted:?}");
                assert_eq!(lab.counting.calls.load(Ordering::SeqCst), 1, "{when}");
                assert!(memory.strikes() >= 3, "{when}: {} strikes", memory.strikes());
            }
        }
    }
}

#[tokio::test]
async fn a_run_whose_input_cannot_be_read_parks_with_nothing_undone() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan { waits: true, ..Plan::default() }).await;
    let worker = lab.worker(None).await;
    worker.turn(run_id).await.expect("a turn");
    lab.write("update engine.runs set input = input || '{\"waits\": \"perhaps\"}' where id = $1", run_id).await;
    lab.cancel(run_id).await;
    worker.turn(run_id).await.expect("a turn");
    assert_eq!((lab.status(run_id).await.as_str(), lab.code(run_id).await.as_str()), ("STUCK", "input-unreadable"));
    assert_eq!(lab.counted(run_id).await, ["first"]);
    lab.write("update engine.runs set input = input || '{\"waits\": true}' where id = $1", run_id).await;
    lab.let_go_on(run_id).await;
    worker.drain(10).await.expect("drained");
    assert_eq!(lab.status(run_id).await, "CANCELLED");
    assert_eq!(lab.counted(run_id).await, ["first", "undone"]);
}

#[tokio::test]
async fn a_run_that_unwinds_over_an_answer_it_cannot_read_parks_until_it_can() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan { waits: true, ..Plan::default() }).await;
    let worker = lab.worker(None).await;
    worker.turn(run_id).await.expect("a turn");
    lab.write("update engine.journal set output = '{\"was\": 1}' where run_id = $1 and kind = 'TX'", run_id).await;
    lab.cancel(run_id).await;
    worker.turn(run_id).await.expect("a turn");
    assert_eq!((lab.status(run_id).await.as_str(), lab.code(run_id).await.as_str()), ("STUCK", "journal-unreadable"));
    assert_eq!(lab.counted(run_id).await, ["first"]);
    lab.write("update engine.journal set output = '1' where run_id = $1 and kind = 'TX'", run_id).await;
    lab.let_go_on(run_id).await;
    worker.drain(10).await.expect("drained");
    assert_eq!(lab.counted(run_id).await, ["first", "undone"]);
}

#[tokio::test]
async fn one_run_that_cannot_be_read_parks_alone() {
    let lab = Lab::new().await;
    let worker = lab.worker(None).await;
    let mut runs = Vec::new();
    for key in ["bad", "good", "another"] {
        let run_id = lab.start(key, &Plan { waits: true, ..Plan::default() }).await;
        worker.turn(run_id).await.expect("a turn");
        lab.send(run_id, "1", "hello").await;
        runs.push(run_id);
    }
    lab.write("update engine.journal set recorded_at = 'infinity' where run_id = $1", runs[0]).await;
    let engine = worker.engine();
    // Asked for in one breath, so claimed by one statement.
    let (bad, good, another) = tokio::join!(engine.resume(runs[0]), engine.resume(runs[1]), engine.resume(runs[2]));
    for turn in [bad, good, another] {
        turn.expect("a turn");
    }
    assert_eq!((lab.status(runs[0]).await.as_str(), lab.code(runs[0]).await.as_str()), ("STUCK", "journal-unreadable"));
    assert_eq!(lab.status(runs[1]).await, "COMPLETED");
    assert_eq!(lab.status(runs[2]).await, "COMPLETED");
}

/// Three steps, each with an undo of its own, and a failure.
struct Stairs;

macro_rules! uncount {
    ($($undo:ident),+) => {$(
        struct $undo;
        impl Undo<i32> for $undo {
            const NAME: Option<&'static str> = Some(stringify!($undo));
            async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, i32>]) -> Result<(), StepError> {
                uncount(tx, rows.iter().map(|row| row.run_id)).await
            }
        }
    )+};
}
uncount!(UncountA, UncountB, UncountC);

impl Workflow for Stairs {
    const NAME: &'static str = "stairs";
    const QUEUE: &'static str = "stairs";
    type Input = ();
    type Output = ();

    async fn run(&self, flow: &mut Flow, (): ()) -> Result<()> {
        flow.tx(Count("a")).undo(UncountA).await?;
        flow.checkpoint().await?;
        flow.tx(Count("b")).undo(UncountB).await?;
        flow.checkpoint().await?;
        flow.tx(Count("c")).undo(UncountC).await?;
        flow.checkpoint().await?;
        Err(Failure::new("planned", "as planned"))
    }
}

#[tokio::test]
async fn an_undo_that_cannot_be_done_holds_up_no_other_and_is_what_the_run_waits_for() {
    for (fault, code) in [(Fault::Fail(Failure::new("broken", "a test")), "undo-failed"), (Fault::Retry, "step-failed")]
    {
        struct Fails(Fault);
        impl Faults for Fails {
            fn at(&self, point: Point, step: &str) -> Option<Fault> {
                (point == Point::Before && step == "UncountB").then(|| self.0.clone())
            }
        }
        let lab = Lab::new().await;
        let mut tx = lab.pool.begin().await.expect("a transaction");
        let start = Start::<Stairs>::new("k", &()).expect("a start");
        let run_id = engine::start(&mut tx, &start).await.expect("started").run_id;
        tx.commit().await.expect("committed");
        let registry = Registry::default().with(Stairs);
        let unlucky = TestWorker::new(&lab.pool, registry.clone(), true, Some(Arc::new(Fails(fault)))).await;
        unlucky.expect("a worker").drain(30).await.expect("drained");
        let run = inspect::run(&lab.pool, run_id).await.expect("a run").expect("a run");
        let failure = run.failure.expect("a reason");
        assert_eq!((run.status.as_str(), failure["code"].as_str()), ("STUCK", Some(code)));
        assert_eq!(failure["data"]["waitsFor"][0]["undo"], "UncountB");
        assert_eq!(failure["data"]["unwindsFor"]["code"], "planned");
        assert_eq!(lab.counted(run_id).await, ["a", "b", "c", "undone", "undone"]);

        lab.let_go_on(run_id).await;
        let healthy = TestWorker::new(&lab.pool, registry, true, None).await.expect("a worker");
        healthy.drain(10).await.expect("drained");
        assert_eq!((lab.status(run_id).await.as_str(), lab.code(run_id).await.as_str()), ("FAILED", "planned"));
        let trace = trace(&lab.pool, run_id).await.expect("a trace");
        for undo in ["UNDO UncountA", "UNDO UncountB", "UNDO UncountC"] {
            assert_eq!(trace.iter().filter(|line| *line == undo).count(), 1, "{trace:?}");
        }
    }
}

/// Panics before its first line, so that nobody knows what its accepting transaction is taken back by.
struct Stillborn;

impl Workflow for Stillborn {
    const NAME: &'static str = "stillborn";
    const QUEUE: &'static str = "stillborn";
    type Input = ();
    type Output = ();

    async fn run(&self, _: &mut Flow, (): ()) -> Result<()> {
        panic!("as planned");
    }
}

#[tokio::test]
async fn a_flow_that_panics_before_its_first_line_parks() {
    let lab = Lab::new().await;
    let mut tx = lab.pool.begin().await.expect("a transaction");
    let start = Start::<Stillborn>::new("k", &()).expect("a start");
    let run_id = engine::start(&mut tx, &start).await.expect("started").run_id;
    tx.commit().await.expect("committed");
    let worker = TestWorker::new(&lab.pool, Registry::default().with(Stillborn), true, None).await.expect("a worker");
    worker.drain(30).await.expect("drained");
    assert_eq!((lab.status(run_id).await.as_str(), lab.code(run_id).await.as_str()), ("STUCK", "panicked"));
}
