//! What Postgres cannot keep is refused by name, and never a run's or a sender's undoing.

use engine::{limits, run::Delivery};

use super::*;

#[tokio::test]
async fn a_signal_that_cannot_be_kept_is_refused_and_the_run_hears_the_next() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan { waits: true, ..Plan::default() }).await;
    let worker = lab.worker(None).await;
    worker.turn(run_id).await.expect("a turn");
    let long_key = "k".repeat(limits::KEY_BYTES + 1);
    let large = "x".repeat(limits::PAYLOAD_BYTES + 1);
    for (key, word) in [("1", "\0"), ("1", &*large), ("\0", "hello"), (&*long_key, "hello")] {
        assert_eq!(lab.send(run_id, key, word).await, Delivery::Invalid);
    }
    assert_eq!(lab.status(run_id).await, "WAITING");
    assert_eq!(lab.send(run_id, "1", "hello").await, Delivery::Delivered);
    worker.drain(10).await.expect("drained");
    assert_eq!(lab.status(run_id).await, "COMPLETED");
}

#[tokio::test]
async fn a_reason_to_cancel_that_cannot_be_kept_is_refused() {
    let lab = Lab::new().await;
    let run_id = lab.start("k", &Plan { waits: true, ..Plan::default() }).await;
    let mut tx = lab.pool.begin().await.expect("a transaction");
    for why in ["\0", &"x".repeat(limits::TEXT_BYTES + 1)] {
        assert_eq!(engine::run::cancel(&mut tx, run_id, why).await.expect("an answer"), Delivery::Invalid);
    }
    assert_eq!(engine::run::cancel(&mut tx, run_id, "enough").await.expect("an answer"), Delivery::Delivered);
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq)]
enum What {
    Value,
    Output,
    /// The data of a failure, which must not get in the way of its being told.
    Failure,
}

#[derive(Debug)]
struct Garbling;

impl Workflow for Garbling {
    const NAME: &'static str = "garbling";
    const QUEUE: &'static str = "garbling";
    type Input = (What, String);
    type Output = String;

    async fn run(&self, flow: &mut Flow, (what, _): (What, String)) -> Result<String> {
        flow.tx(Count("first")).undo(Uncount).await?;
        flow.checkpoint().await?;
        match what {
            // Even one that goes on regardless is unwound.
            What::Value => Ok(flow.value("Garbled", || "\0".to_owned()).await.unwrap_or_default()),
            What::Output => Ok("\0".to_owned()),
            What::Failure => {
                Err(Failure::new("planned", "\0".repeat(100_000)).with(serde_json::json!({ "said": "\0" })))
            }
        }
    }
}

#[tokio::test]
async fn a_run_unwinds_over_what_cannot_be_kept() {
    for (what, code) in
        [(What::Value, "payload-invalid"), (What::Output, "payload-invalid"), (What::Failure, "planned")]
    {
        let lab = Lab::new().await;
        let mut tx = lab.pool.begin().await.expect("a transaction");
        let start = Start::<Garbling>::new("k", &(what, String::new())).expect("a start");
        let run_id = engine::start(&mut tx, &start).await.expect("started").run_id;
        tx.commit().await.expect("committed");
        let registry = Registry::default().with(Garbling);
        let worker = TestWorker::new(&lab.pool, registry, true, None).await.expect("a worker");
        assert!(worker.drain(30).await.expect("drained") < 30, "{what:?}: it never ends");
        let run = inspect::run(&lab.pool, run_id).await.expect("a run").expect("a run");
        assert_eq!(run.status.as_str(), "FAILED", "{what:?}");
        assert_eq!(run.failure.expect("a reason")["code"], code, "{what:?}");
        assert_eq!(lab.counted(run_id).await, ["first", "undone"], "{what:?}");
    }
}

#[tokio::test]
async fn a_start_that_cannot_be_kept_is_refused_before_it_is_tried() {
    let large = "x".repeat(limits::PAYLOAD_BYTES + 1);
    let long_key = "k".repeat(limits::KEY_BYTES + 1);
    for (key, text, code) in [
        ("k", "\0", "payload-invalid"),
        ("k", &*large, "payload-too-large"),
        ("\0", "", "payload-invalid"),
        (&*long_key, "", "payload-invalid"),
    ] {
        let refused = Start::<Garbling>::new(key, &(What::Value, text.to_owned())).expect_err("cannot be kept");
        assert_eq!(refused.code, code);
    }
}
