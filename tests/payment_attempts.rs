//! More than one try to pay: a declined payment leaves the order to be paid, while the window is open.

use domain::{
    ids::OrderId,
    payment::PaymentMethod,
    ports::{WebhookEvent, WebhookKind},
};
use engine::{inspect, testing::trace};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    Rules,
    checkout::{
        accept::Accepted,
        attempt::{self, Offer, OfferError},
        webhook,
    },
};

use crate::{
    misfortune::{self, alone},
    world::World,
};

async fn patient_shop() -> World {
    let rules = Rules { default_gateway: "scripted".to_owned(), payment_max_attempts: 3, ..Rules::default() };
    World::with(rules).await
}

async fn total(world: &World, order_id: OrderId) -> Decimal {
    sqlx::query_scalar("select total_amount from orders where id = $1")
        .bind(Uuid::from(order_id))
        .fetch_one(&world.pool)
        .await
        .expect("an order")
}

/// The shopper tries again with this token.
async fn pay(world: &World, order_id: OrderId, token: &str) -> Result<Uuid, OfferError> {
    let offer = Offer {
        order_id,
        amount: total(world, order_id).await,
        method: PaymentMethod::CreditCard,
        token: Some(token.to_owned()),
    };
    let mut tx = world.pool.begin().await.expect("a transaction");
    let run_id = attempt::offer(&mut tx, &world.shop, offer).await;
    // Waited for, so that no lock of it is in the way of the turn that follows.
    match run_id {
        Ok(_) => tx.commit().await.expect("committed"),
        Err(_) => tx.rollback().await.expect("rolled back"),
    }
    run_id
}

async fn bought(world: &World, token: &str) -> Accepted {
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    world.checkout(user, cart, token).await.expect("accepted")
}

async fn attempts(world: &World, order_id: OrderId) -> Vec<(i32, String)> {
    sqlx::query_as(
        "select a.attempt, a.status from payment_attempts a join payments p on p.id = a.payment_id
          where p.order_id = $1 order by a.attempt",
    )
    .bind(Uuid::from(order_id))
    .fetch_all(&world.pool)
    .await
    .expect("attempts")
}

/// Declined, then paid.
#[derive(Debug, Clone, Copy)]
struct SecondTry;

impl misfortune::Story for SecondTry {
    type Begun = Accepted;

    async fn world(&self) -> World {
        patient_shop().await
    }

    async fn begin(&self, world: &World, many: usize) -> Vec<Accepted> {
        let mut begun = Vec::with_capacity(many);
        for _ in 0..many {
            begun.push(bought(world, "tok_declined").await);
        }
        begun
    }

    async fn meanwhile(&self, world: &World, begun: &[Accepted]) {
        for one in begun {
            let run = inspect::run(&world.pool, one.workflow_id).await.expect("a run").expect("a run");
            if run.waiting_for.as_deref() == Some(attempt::SIGNAL) && run.status.as_str() == "WAITING" {
                pay(world, one.order_id, "tok_ok").await.expect("the shop waits for it");
            }
        }
    }

    async fn judge(&self, world: &World, begun: &[Accepted], when: &str) -> Vec<bool> {
        for one in begun {
            assert_paid_once(world, one, when).await;
        }
        vec![true; begun.len()]
    }
}

async fn assert_paid_once(world: &World, accepted: &Accepted, when: &str) {
    world.assert_books(when).await;
    let order_id = accepted.order_id;
    assert_eq!(world.order_status(order_id.into()).await.as_deref(), Some("CONFIRMED"), "{when}");
    assert_eq!(world.gateway.net(order_id), total(world, order_id).await, "{when}");
    let made = attempts(world, order_id).await;
    assert_eq!(made, [(1, "FAILED".to_owned()), (2, "CAPTURED".to_owned())], "{when}");
}

alone! {
    a_second_try: SecondTry,
}

#[tokio::test]
async fn the_window_ends_the_waiting_for_another_try() {
    let world = patient_shop().await;
    let before = world.stock("LAP-001").await;
    let accepted = bought(&world, "tok_declined").await;
    let worker = world.healthy().await;
    worker.turn(accepted.workflow_id).await.expect("a turn");
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("PENDING"));
    worker.drain(50).await.expect("drained");
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CANCELLED"));
    assert_eq!(world.stock("LAP-001").await, before);
    assert!(matches!(pay(&world, accepted.order_id, "tok_ok").await, Err(OfferError::NotPending)));
    world.assert_books("after the window").await;
}

#[tokio::test]
async fn tries_are_counted_and_one_at_a_time() {
    let world = patient_shop().await;
    let accepted = bought(&world, "tok_3ds").await;
    let order_id = accepted.order_id;
    let worker = world.healthy().await;
    worker.turn(accepted.workflow_id).await.expect("a turn");
    assert!(matches!(pay(&world, order_id, "tok_ok").await, Err(OfferError::InProgress)), "the first is under way");
    world.gateway.decline(order_id).expect("declined");
    declined(&world, order_id).await;
    worker.turn(accepted.workflow_id).await.expect("a turn");

    let wrong = Offer { order_id, amount: Decimal::ONE, method: PaymentMethod::Upi, token: None };
    let mut tx = world.pool.begin().await.expect("a transaction");
    assert!(matches!(attempt::offer(&mut tx, &world.shop, wrong).await, Err(OfferError::AmountMismatch { .. })));
    tx.rollback().await.expect("rolled back");

    let (one, other) = tokio::join!(pay(&world, order_id, "tok_declined"), pay(&world, order_id, "tok_declined"));
    assert_eq!(usize::from(one.is_ok()) + usize::from(other.is_ok()), 1, "{one:?} {other:?}");
    worker.turn(accepted.workflow_id).await.expect("a turn");
    pay(&world, order_id, "tok_declined").await.expect("the third");
    worker.drain(50).await.expect("drained");
    assert_eq!(world.order_status(order_id.into()).await.as_deref(), Some("CANCELLED"), "all are used up");
    assert_eq!(attempts(&world, order_id).await.len(), 3);
    assert_eq!(world.gateway.net(order_id), Decimal::ZERO);
    world.assert_books("after three tries").await;
}

/// The gateway tells of every payment of an order what became of it.
async fn declined(world: &World, order_id: OrderId) {
    tell(world, order_id, WebhookKind::PaymentFailed).await;
}

async fn tell(world: &World, order_id: OrderId, kind: WebhookKind) {
    for payment in world.gateway.payments(order_id) {
        let event = WebhookEvent {
            event_id: format!("evt_{}_{kind:?}", payment.gateway_payment_id),
            kind: kind.clone(),
            gateway_payment_id: payment.gateway_payment_id.clone(),
            order_id: Some(order_id),
            amount: (payment.captured > Decimal::ZERO).then(|| payment.amount.clone()),
            failure: payment.failure.clone(),
            about: None,
            at: None,
        };
        let mut tx = world.pool.begin().await.expect("a transaction");
        webhook::receive(&mut tx, "scripted", &event).await.expect("received");
        tx.commit().await.expect("committed");
    }
}

#[tokio::test]
async fn money_of_an_earlier_try_that_comes_late_goes_back_whenever_it_comes() {
    for moment in ["before the second try", "after the confirmation", "unreported"] {
        let world = patient_shop().await;
        let accepted = bought(&world, "tok_3ds").await;
        let order_id = accepted.order_id;
        let worker = world.healthy().await;
        worker.turn(accepted.workflow_id).await.expect("a turn");
        let first = world.gateway.decline(order_id).expect("declined").gateway_payment_id;
        declined(&world, order_id).await;
        worker.turn(accepted.workflow_id).await.expect("a turn");
        if moment != "after the confirmation" {
            world.gateway.capture_declined(&first);
        }
        if moment == "before the second try" {
            tell(&world, order_id, WebhookKind::PaymentCaptured).await;
        }
        pay(&world, order_id, "tok_ok").await.expect("the second");
        worker.drain(50).await.expect("drained");
        if moment == "after the confirmation" {
            world.gateway.capture_declined(&first);
            tell(&world, order_id, WebhookKind::PaymentCaptured).await;
            worker.drain(50).await.expect("drained");
        }
        assert_paid_once(&world, &accepted, moment).await;
        assert_eq!(world.gateway.payments(order_id).len(), 2, "{moment}");
    }
}

#[tokio::test]
async fn with_one_try_a_decline_is_the_end_and_the_story_is_as_it_always_was() {
    let world = World::new().await;
    let accepted = bought(&world, "tok_declined").await;
    world.healthy().await.drain(50).await.expect("drained");
    let lines = trace(&world.pool, accepted.workflow_id).await.expect("a trace");
    assert!(!lines.iter().any(|line| line.contains("RecordDecline") || line.contains("attempt")), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("FAILED"));
}
