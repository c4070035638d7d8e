//! What operators do to runs: it happens with its line in the audit log, or not at all.

use engine::{
    Start,
    testing::{Fault, Faults, Point},
};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;
use workflows::{
    operations::{self, Done, OperationError, Operator},
    refund::{RefundPayment, RefundRequest},
};

use crate::{gateway::Weather, world::World};

fn asha() -> Operator<'static> {
    Operator::new("operator:asha", "the gateway is back").expect("somebody, and why")
}

macro_rules! operate {
    ($world:expr, $verb:ident $(, $argument:expr)*) => {{
        let mut tx = $world.pool.begin().await.expect("a transaction");
        let done = operations::$verb(&mut tx $(, $argument)*).await;
        if done.is_ok() {
            tx.commit().await.expect("committed");
        }
        done
    }};
}

async fn log(world: &World, run_id: Uuid) -> Vec<(String, String, String)> {
    sqlx::query_as("select action, actor, reason from audit_log where subject = 'run:' || $1::text order by id")
        .bind(run_id)
        .fetch_all(&world.pool)
        .await
        .expect("the log")
}

/// A checkout that waits for its shopper at the bank's page.
async fn waiting(world: &World) -> Uuid {
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let run_id = world.checkout(user, cart, "tok_3ds").await.expect("accepted").workflow_id;
    world.settle().await;
    assert_eq!(world.status(run_id).await, "WAITING");
    run_id
}

#[tokio::test]
async fn nothing_is_done_without_a_name_and_a_reason() {
    assert!(matches!(Operator::new("operator:asha", "  "), Err(OperationError::Reason)));
    assert!(matches!(Operator::new("operator:asha", &"x".repeat(501)), Err(OperationError::Reason)));
    assert!(matches!(Operator::new("", "why"), Err(OperationError::Nobody)));
}

#[tokio::test]
async fn an_unknown_run_and_one_that_has_ended_are_told_apart() {
    let world = World::new().await;
    let nobody = Uuid::now_v7();
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let ended = world.checkout(user, cart, "tok_ok").await.expect("accepted").workflow_id;
    world.settle().await;
    for (run_id, is_known) in [(nobody, false), (ended, true)] {
        for refused in [
            operate!(world, retry, run_id, asha()),
            operate!(world, resume, run_id, asha()),
            operate!(world, cancel, run_id, asha()),
            operate!(world, signal, run_id, "payment", &Value::Null, asha()),
        ] {
            let fits = match &refused {
                Err(OperationError::Unknown(id)) => !is_known && *id == run_id,
                Err(OperationError::Ended { status, .. }) => is_known && status.as_str() == "COMPLETED",
                Ok(_) | Err(_) => false,
            };
            assert!(fits, "{refused:?}");
        }
        assert!(log(&world, run_id).await.is_empty());
    }
}

#[tokio::test]
async fn a_parked_run_goes_on_and_one_that_is_not_parked_is_left_alone() {
    struct Refusing;
    impl Faults for Refusing {
        fn at(&self, point: Point, step: &str) -> Option<Fault> {
            let failure = engine::Failure::new("injected", "a test");
            (point == Point::Before && step == "SendNotifications").then_some(Fault::Fail(failure))
        }
    }
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let run_id = world.checkout(user, cart, "tok_ok").await.expect("accepted").workflow_id;
    let broken = world.worker(true, Some(Arc::new(Refusing))).await;
    broken.drain(50).await.expect("drained");
    broken.die().await.expect("dead");
    assert_eq!(world.status(run_id).await, "STUCK");
    let forward = operate!(world, cancel, run_id, asha());
    assert!(matches!(forward, Err(OperationError::Forward(id)) if id == run_id), "{forward:?}");
    assert_eq!(operate!(world, resume, run_id, asha()).expect("done"), Done::GoesOn);
    let again = operate!(world, resume, run_id, asha());
    assert!(matches!(again, Err(OperationError::NotParked { .. })), "{again:?}");
    world.settle().await;
    assert_eq!(world.status(run_id).await, "COMPLETED");
    let line = ["run.resume", "operator:asha", "the gateway is back"].map(str::to_owned);
    assert_eq!(log(&world, run_id).await, [line.into()]);
    world.assert_books("after it went on").await;
}

#[tokio::test]
async fn a_run_that_backs_off_is_tried_now() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let order_id = world.checkout(user, cart, "tok_ok").await.expect("accepted").order_id;
    world.settle().await;
    world.gateway.set_weather(Weather::Away);
    let request = RefundRequest {
        amount: Some(rust_decimal::Decimal::TEN),
        ..RefundRequest::everything(order_id, Some("scripted".to_owned()), "a test".to_owned())
    };
    let mut tx = world.pool.begin().await.expect("a transaction");
    let start = Start::<RefundPayment>::new("a test", &request).expect("a start");
    let run_id = engine::start(&mut tx, &start).await.expect("started").run_id;
    tx.commit().await.expect("committed");
    let worker = world.healthy().await;
    worker.turn(run_id).await.expect("a turn");
    assert_eq!(world.status(run_id).await, "RETRYING");
    world.gateway.set_weather(Weather::Fair);
    assert_eq!(operate!(world, retry, run_id, asha()).expect("done"), Done::TriedNow);
    worker.turn(run_id).await.expect("a turn");
    assert_eq!(world.status(run_id).await, "COMPLETED");
    let waits = waiting(&world).await;
    let nothing = operate!(world, retry, waits, asha());
    assert!(matches!(nothing, Err(OperationError::NothingToRetry { .. })), "{nothing:?}");
}

#[tokio::test]
async fn a_checkout_is_called_off_and_another_is_told_what_it_waits_for() {
    let world = World::new().await;
    let off = waiting(&world).await;
    assert_eq!(operate!(world, cancel, off, asha()).expect("done"), Done::Unwinds);
    assert_eq!(operate!(world, cancel, off, asha()).expect("done"), Done::UnwoundBefore);
    let told = waiting(&world).await;
    let order_id: Uuid = sqlx::query_scalar("select id from orders where checkout_run_id = $1")
        .bind(told)
        .fetch_one(&world.pool)
        .await
        .expect("an order");
    let payment = world.gateway.approve(order_id.into()).expect("approved, and no webhook");
    let captured = json!({ "ended": { "gatewayPaymentId": payment.gateway_payment_id, "captured": payment.amount,
                                      "failure": null, "expired": false } });
    for (name, payload) in [
        ("", &captured),
        ("payment", &json!("\u{0}")),
        ("payment", &Value::Null),
        ("payment", &json!({ "x": 1 })),
        ("attempt", &captured),
        ("a name nobody waits for", &captured),
    ] {
        assert!(operate!(world, signal, told, name, payload, asha()).is_err(), "{name:?}");
    }
    assert_eq!(operate!(world, signal, told, "payment", &captured, asha()).expect("done"), Done::Told);
    world.settle().await;
    assert_eq!(world.status(off).await, "CANCELLED");
    assert_eq!(world.status(told).await, "COMPLETED");
    assert_eq!(log(&world, told).await.len(), 1, "what was refused is not in it");
    world.assert_books("after both").await;
}
