//! Parked runs: let go on when that may help, reported when it does not.

use std::sync::Arc;

use engine::{
    Failure,
    testing::{Fault, Faults, Point},
};
use serde_json::json;
use workflows::{checkout::accept::Accepted, stuck_run_rescue::StuckRunRescue};

use super::*;

/// One step goes wrong whenever it is tried.
pub(super) struct Always(pub(super) &'static str, pub(super) Fault);

impl Faults for Always {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        (point == Point::Before && step == self.0).then(|| self.1.clone())
    }
}

impl World {
    /// A paid order whose run was parked past its point of no return.
    pub(super) async fn parked(&self, fault: Fault) -> Accepted {
        let (user, cart) = self.shopper(&[("LAP-001", 1)]).await;
        let accepted = self.checkout(user, cart, "tok_ok").await.expect("accepted");
        let faults = Arc::new(Always("SendNotifications", fault));
        let registry = workflows::registry(&self.shop);
        let worker = TestWorker::new(&self.pool, registry, true, Some(faults)).await.expect("a worker");
        worker.drain(50).await.expect("drained");
        worker.die().await.expect("dead");
        assert_eq!(self.run_status(accepted.workflow_id).await, "STUCK");
        accepted
    }

    async fn run_status(&self, run_id: Uuid) -> String {
        inspect::run(&self.pool, run_id).await.expect("a run").expect("a run").status.to_string()
    }

    async fn reports(&self, run_id: Uuid) -> i64 {
        self.count("select count(*) from notifications where event = 'run.stuck' and subject_id = $1", run_id).await
    }
}

#[tokio::test]
async fn what_passed_by_itself_goes_on_by_itself() {
    let world = World::with(rules()).await;
    let accepted = world.parked(Fault::Retry).await;
    let nothing = json!({ "woken": 0, "resumed": 0, "reported": 0 });
    assert_eq!(world.tick::<StuckRunRescue>().await, nothing, "it is given a minute");
    world.later(MINUTE).await;
    assert_eq!(world.tick::<StuckRunRescue>().await, json!({ "woken": 0, "resumed": 1, "reported": 0 }));
    world.settle().await;
    assert_eq!(world.run_status(accepted.workflow_id).await, "COMPLETED");
    assert_eq!(world.reports(accepted.workflow_id).await, 0);
    let (actor, action, reason): (String, String, String) =
        sqlx::query_as("select actor, action, reason from audit_log where subject = 'run:' || $1::text")
            .bind(accepted.workflow_id)
            .fetch_one(&world.pool)
            .await
            .expect("one line in the audit log");
    assert_eq!((actor.as_str(), action.as_str()), ("system:stuck_run_rescue", "run.resume"));
    assert!(reason.ends_with("time 1 of 5"), "{reason}");
    let journal = inspect::journal(&world.pool, accepted.workflow_id).await.expect("a journal");
    assert_eq!(journal.iter().filter(|entry| entry.kind == "RESUMED").count(), 1);
    world.assert_books("after the rescue").await;
}

#[tokio::test]
async fn what_does_not_pass_is_tried_five_times_and_then_told_to_the_staff_once() {
    let world = World::with(rules()).await;
    let accepted = world.parked(Fault::Retry).await;
    let registry = workflows::registry(&world.shop);
    let faults = Arc::new(Always("SendNotifications", Fault::Retry));
    let unlucky = TestWorker::new(&world.pool, registry, true, Some(faults)).await.expect("a worker");
    for (time, minutes) in [1, 5, 25, 125, 625].into_iter().enumerate() {
        advance_clock(&world.pool, Duration::from_secs(minutes * MINUTE - 30)).await.expect("later");
        assert_eq!(world.tick::<StuckRunRescue>().await["resumed"], 0, "time {time}: too early");
        advance_clock(&world.pool, Duration::from_secs(30)).await.expect("later");
        assert_eq!(world.tick::<StuckRunRescue>().await["resumed"], 1, "time {time}");
        unlucky.drain(50).await.expect("drained");
        assert_eq!(world.run_status(accepted.workflow_id).await, "STUCK", "time {time}");
    }
    assert_eq!(world.reports(accepted.workflow_id).await, 0);
    advance_clock(&world.pool, Duration::from_secs(30 * DAY)).await.expect("later");
    assert_eq!(world.tick::<StuckRunRescue>().await, json!({ "woken": 0, "resumed": 0, "reported": 1 }));
    assert_eq!(world.tick::<StuckRunRescue>().await["reported"], 0, "once");
    world.settle().await;
    assert_eq!(world.reports(accepted.workflow_id).await, 1);
    let mails = world.mails.to(STAFF);
    assert_eq!(mails.len(), 1);
    assert!(mails[0].text.contains(&accepted.workflow_id.to_string()), "{}", mails[0].text);
    let resumed =
        world.count("select count(*) from audit_log where subject = 'run:' || $1::text", accepted.workflow_id);
    assert_eq!(resumed.await, 5);
}

#[tokio::test]
async fn what_says_what_is_wrong_is_told_at_once_and_left_alone() {
    let world = World::with(rules()).await;
    let accepted = world.parked(Fault::Fail(Failure::new("paid-twice", "a test"))).await;
    advance_clock(&world.pool, Duration::from_secs(DAY)).await.expect("later");
    assert_eq!(world.tick::<StuckRunRescue>().await, json!({ "woken": 0, "resumed": 0, "reported": 1 }));
    world.settle().await;
    assert_eq!(world.run_status(accepted.workflow_id).await, "STUCK");
    assert_eq!(world.reports(accepted.workflow_id).await, 1);
}

#[tokio::test]
async fn a_run_that_nothing_would_wake_is_woken() {
    let world = World::with(rules()).await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    sqlx::raw_sql("delete from apalis.jobs; update engine.runs set wake_at = 'infinity'")
        .execute(&world.pool)
        .await
        .expect("lost");
    advance_clock(&world.pool, Duration::from_secs(HOUR)).await.expect("later");
    assert_eq!(
        sweep(&world.pool, Duration::from_secs(8)).await.expect("swept").looked_at,
        0,
        "the sweep cannot see it"
    );
    assert_eq!(world.tick::<StuckRunRescue>().await["woken"], 1);
    world.settle().await;
    assert_eq!(world.run_status(accepted.workflow_id).await, "COMPLETED");
    world.assert_books("after the waking").await;
}
