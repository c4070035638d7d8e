//! Calls to what does not answer: they wait without a worker, and without having failed.

use std::sync::atomic::AtomicU8;

use engine::{Deadline, Dependency};

use super::*;

const ANSWERS: u8 = 0;
const SILENT: u8 = 1;
const BUSY: u8 = 2;
const NOT_YET: u8 = 3;
/// The silence is the call's result.
const TELLS_OF_SILENCE: u8 = 4;

/// One call to a gateway that is as it is set.
#[derive(Clone, Default)]
struct Paying {
    mood: Arc<AtomicU8>,
    calls: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Patience {
    s: Option<i64>,
}

struct Pay<'a>(&'a Paying, Option<Deadline>);
impl Call for Pay<'_> {
    const NAME: &'static str = "Pay";
    type Output = bool;

    fn dependency(&self) -> Option<Dependency> {
        Some(Dependency::new("gateway", "moody"))
    }

    fn heard_in(&self, _: &bool) -> bool {
        self.0.mood.load(Ordering::SeqCst) != TELLS_OF_SILENCE
    }

    fn deadline(&self) -> Option<Deadline> {
        self.1.clone()
    }

    async fn run(&self, context: &CallContext) -> Result<bool, StepError> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        match self.0.mood.load(Ordering::SeqCst) {
            ANSWERS => Ok(context.redelivered),
            TELLS_OF_SILENCE => Ok(false),
            BUSY => Err(StepError::Busy { why: "busy".to_owned(), after: Duration::from_secs(20) }),
            NOT_YET => Err(StepError::NotYet { why: "not yet".to_owned(), after: Duration::from_secs(1) }),
            _ => Err(StepError::Unknown("silence".into())),
        }
    }
}

struct Unpay;
impl Undo<Option<bool>> for Unpay {
    const NAME: Option<&'static str> = Some("Unpay");
    async fn undo(tx: &mut SetTx<'_>, rows: &[Undoing<Self, Option<bool>>]) -> Result<(), StepError> {
        for row in rows {
            sqlx::query("insert into counted (run_id, what) values ($1, $2)")
                .bind(row.run_id)
                .bind(format!("unpaid {:?}", row.output))
                .execute(tx.conn())
                .await?;
        }
        Ok(())
    }
}

impl Workflow for Paying {
    const NAME: &'static str = "paying";
    const QUEUE: &'static str = "paying";
    type Input = Patience;
    type Output = bool;

    async fn run(&self, flow: &mut Flow, patience: Patience) -> Result<bool> {
        flow.tx(Count("first")).undo(Uncount).await?;
        let deadline = patience.s.map(|s| Deadline {
            at: flow.started_at() + chrono::TimeDelta::seconds(s),
            failure: Failure::new("too-late", "nobody answered"),
        });
        flow.call(Pay(self, deadline)).undo(Unpay).await
    }
}

struct Till {
    lab: Lab,
    paying: Paying,
    worker: TestWorker,
}

impl Till {
    async fn in_mood(mood: u8) -> Till {
        let (lab, paying) = (Lab::new().await, Paying::default());
        paying.mood.store(mood, Ordering::SeqCst);
        let registry = Registry::default().with(paying.clone());
        let worker = TestWorker::new(&lab.pool, registry, true, None).await.expect("a worker");
        Till { lab, paying, worker }
    }

    async fn start(&self, key: &str, patience_s: Option<i64>) -> Uuid {
        let mut tx = self.lab.pool.begin().await.expect("a transaction");
        let start = Start::<Paying>::new(key, &Patience { s: patience_s }).expect("a start");
        let started = engine::start(&mut tx, &start).await.expect("started");
        tx.commit().await.expect("committed");
        started.run_id
    }

    /// Started, and carried to its first call.
    async fn tried(&self, key: &str) -> Uuid {
        let run_id = self.start(key, None).await;
        self.worker.turn(run_id).await.expect("a turn");
        run_id
    }

    fn calls(&self) -> usize {
        self.paying.calls.load(Ordering::SeqCst)
    }

    /// Failed attempts, and what is journalled.
    async fn standing(&self, run_id: Uuid) -> (i32, Vec<String>) {
        let attempt = sqlx::query_scalar("select attempt from engine.runs where id = $1")
            .bind(run_id)
            .fetch_one(&self.lab.pool)
            .await
            .expect("a run");
        (attempt, trace(&self.lab.pool, run_id).await.expect("a trace"))
    }
}

#[tokio::test]
async fn a_call_to_a_silent_dependency_is_put_off_before_it_is_intended() {
    let till = Till::in_mood(SILENT).await;
    for nth in 0..5 {
        till.tried(&format!("silent {nth}")).await;
    }
    assert_eq!(till.calls(), 5);
    let run_id = till.tried("put off").await;
    assert_eq!(till.calls(), 5, "it is not asked any more");
    let (attempt, journal) = till.standing(run_id).await;
    assert_eq!((attempt, journal), (0, vec!["TX Count".to_owned(), "RETRYING".to_owned()]));

    till.paying.mood.store(ANSWERS, Ordering::SeqCst);
    assert!(till.worker.drain(50).await.expect("drained") < 50);
    let run = inspect::run(&till.lab.pool, run_id).await.expect("a run").expect("a run");
    assert_eq!((run.status.as_str(), run.output), ("COMPLETED", Some(false.into())), "nothing is in doubt");
}

#[tokio::test]
async fn a_silence_that_is_a_calls_result_is_no_answer() {
    let till = Till::in_mood(TELLS_OF_SILENCE).await;
    for nth in 0..6 {
        till.tried(&format!("silent {nth}")).await;
    }
    assert_eq!(till.calls(), 5, "it is not asked any more");
}

#[tokio::test]
async fn who_asks_for_peace_is_left_alone_by_everybody_and_fails_nobody() {
    let till = Till::in_mood(BUSY).await;
    let run_id = till.tried("the first").await;
    till.tried("another").await;
    assert_eq!(till.calls(), 1);
    assert_eq!(till.standing(run_id).await.0, 0);
    till.paying.mood.store(ANSWERS, Ordering::SeqCst);
    let began = engine::now(&till.lab.pool).await.expect("the time");
    assert!(till.worker.drain(50).await.expect("drained") < 50);
    let took = engine::now(&till.lab.pool).await.expect("the time") - began;
    assert!(took >= chrono::TimeDelta::seconds(19), "{took}");
}

#[tokio::test]
async fn what_cannot_be_done_yet_is_nobodys_silence() {
    let till = Till::in_mood(NOT_YET).await;
    for nth in 0..20 {
        let run_id = till.tried(&format!("not yet {nth}")).await;
        assert_eq!(till.standing(run_id).await.0, 0);
    }
    assert_eq!(till.calls(), 20);
}

#[tokio::test]
async fn past_its_deadline_a_call_is_given_up_and_its_undo_finds_out() {
    for (mood, undone) in
        [(SILENT, vec!["first", "undone", "unpaid None"]), (NOT_YET, vec!["first", "undone", "unpaid None"])]
    {
        let till = Till::in_mood(mood).await;
        let run_id = till.start("k", Some(60)).await;
        assert!(till.worker.drain(100).await.expect("drained") < 100);
        let run = inspect::run(&till.lab.pool, run_id).await.expect("a run").expect("a run");
        assert_eq!(run.failure.expect("a failure")["code"], "too-late");
        assert_eq!(till.lab.counted(run_id).await, undone);
        let took = run.finished_at.expect("an end") - run.created_at;
        assert!(took >= chrono::TimeDelta::seconds(60) && took < chrono::TimeDelta::seconds(75), "{took}");
    }
    // One that was never made has nothing to be undone.
    let till = Till::in_mood(SILENT).await;
    for nth in 0..5 {
        till.tried(&format!("silent {nth}")).await;
    }
    till.paying.mood.store(BUSY, Ordering::SeqCst);
    let run_id = till.start("never made", Some(0)).await;
    till.worker.turn(run_id).await.expect("a turn");
    assert_eq!(till.lab.status(run_id).await, "FAILED");
    assert_eq!(till.lab.counted(run_id).await, ["first", "undone"]);
}
