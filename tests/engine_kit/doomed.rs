//! Runs that cannot go on: each comes to rest, undone or parked.

use super::*;

#[tokio::test]
async fn a_run_whose_unwinding_kills_its_workers_too_is_parked() {
    struct DeadlyEitherWay;
    impl Faults for DeadlyEitherWay {
        fn at(&self, point: Point, step: &str) -> Option<Fault> {
            (point == Point::Before && matches!(step, "Outside" | "Uncount")).then_some(Fault::Crash)
        }
    }
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan::default()).await;
    for _ in 0..45 {
        let doomed = lab.worker(Some(Arc::new(DeadlyEitherWay))).await;
        doomed.turn(run_id).await.expect("a turn");
        doomed.die().await.expect("dead");
    }
    assert_eq!(lab.status(run_id).await, "STUCK");
    assert_eq!(lab.counted(run_id).await, ["first"]);
}

/// Its undo panics, and what its call answers, or fails with, may hold a character no `jsonb` can.
#[derive(Clone, Default)]
struct Cursed;

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq)]
enum Curse {
    UndoPanics,
    Answers,
    Fails,
}

struct Panicking;
impl Undo<i32> for Panicking {
    const NAME: Option<&'static str> = Some("Panicking");
    async fn undo(_: &mut SetTx<'_>, _: &[Undoing<Self, i32>]) -> Result<(), StepError> {
        panic!("as planned");
    }
}

struct Garbled(Curse);
impl Call for Garbled {
    const NAME: &'static str = "Garbled";
    type Output = String;
    async fn run(&self, _: &CallContext) -> Result<String, StepError> {
        match self.0 {
            Curse::UndoPanics | Curse::Answers => Ok("\0".to_owned()),
            Curse::Fails => Err(StepError::Retry("\0".into())),
        }
    }
}

impl Workflow for Cursed {
    const NAME: &'static str = "cursed";
    const QUEUE: &'static str = "cursed";
    type Input = Curse;
    type Output = ();

    async fn run(&self, flow: &mut Flow, curse: Curse) -> Result<()> {
        if curse == Curse::UndoPanics {
            flow.tx(Count("first")).undo(Panicking).await?;
            flow.sleep("until it is committed", Duration::ZERO).await?;
            flow.call(Outside(Counting::default())).undo(Nothing).await?;
            return Err(Failure::new("planned", "as planned"));
        }
        flow.tx(Count("first")).undo(Uncount).await?;
        flow.call(Garbled(curse)).undo(Nothing).await?;
        flow.tx(Count("second")).undo(Uncount).await?;
        Ok(())
    }
}

impl Lab {
    /// Gives a cursed run turns until it rests for good; answers its status and its failure's code.
    async fn suffer(&self, curse: Curse) -> (Uuid, String, String) {
        let mut tx = self.pool.begin().await.expect("a transaction");
        let started =
            engine::start(&mut tx, &Start::<Cursed>::new("k", &curse).expect("a curse")).await.expect("started");
        tx.commit().await.expect("committed");
        let worker = TestWorker::new(&self.pool, Registry::default().with(Cursed), true, None).await.expect("a worker");
        worker.drain(40).await.expect("drained");
        let run = inspect::run(&self.pool, started.run_id).await.expect("a run").expect("a run");
        let code = run.failure.map(|failure| failure["code"].as_str().unwrap_or_default().to_owned());
        (started.run_id, run.status.to_string(), code.unwrap_or_default())
    }
}

#[tokio::test]
async fn a_run_whose_undo_panics_is_parked() {
    let lab = Lab::new().await;
    let (run_id, status, _) = lab.suffer(Curse::UndoPanics).await;
    assert_eq!(status, "STUCK");
    assert_eq!(lab.counted(run_id).await, ["first"]);
}

#[tokio::test]
async fn a_run_unwinds_when_a_call_answers_what_postgres_cannot_keep() {
    let lab = Lab::new().await;
    let (run_id, status, code) = lab.suffer(Curse::Answers).await;
    assert_eq!((status.as_str(), code.as_str()), ("FAILED", "payload-invalid"));
    assert_eq!(lab.counted(run_id).await, ["first", "undone"]);
}

#[tokio::test]
async fn failures_whose_text_postgres_cannot_keep_are_counted_all_the_same() {
    let lab = Lab::new().await;
    let (run_id, status, code) = lab.suffer(Curse::Fails).await;
    assert_eq!((status.as_str(), code.as_str()), ("FAILED", "step-failed"));
    assert_eq!(lab.counted(run_id).await, ["first", "undone"]);
}

#[tokio::test]
async fn a_run_whose_commit_is_refused_every_time_unwinds() {
    let lab = Lab::new().await;
    sqlx::raw_sql(
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'refused'; end $$;
         create constraint trigger refuse after insert on counted deferrable initially deferred
            for each row when (new.what = 'second') execute function refuse()",
    )
    .execute(&lab.pool)
    .await
    .expect("a trigger");
    let run_id = lab.start("k", &Plan::default()).await;
    lab.worker(None).await.drain(40).await.expect("drained");
    assert_eq!(lab.status(run_id).await, "FAILED");
    assert_eq!(lab.counted(run_id).await, ["first", "undone"]);
}
