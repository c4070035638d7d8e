//! Checkouts, refunds and webhooks that meet in the middle: money goes back once, and nobody waits for
//! a lock in a circle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::ports::{GatewayPayment, WebhookEvent, WebhookKind};
use engine::{
    Failure, inspect,
    testing::{Fault, Faults, Point, trace},
};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::checkout::{
    accept::{Accepted, AddressChoice, Order},
    status::Shown,
    webhook,
};

use crate::world::{World, order, until_blocked};

async fn captured(world: &World, accepted: &Accepted, payment: &GatewayPayment) -> &'static str {
    let event = WebhookEvent {
        event_id: format!("evt_{}", payment.gateway_payment_id),
        kind: WebhookKind::PaymentCaptured,
        gateway_payment_id: payment.gateway_payment_id.clone(),
        order_id: Some(accepted.order_id),
        amount: Some(payment.amount.clone()),
        failure: None,
        about: None,
        at: None,
    };
    let mut tx = world.pool.begin().await.expect("a transaction");
    let outcome = webhook::receive(&mut tx, "scripted", &event).await.expect("received");
    tx.commit().await.expect("committed");
    outcome
}

/// The confirmation fails for good, and then the order cannot be cancelled for a while.
struct Unlucky {
    lucky_again: AtomicBool,
}

impl Faults for Unlucky {
    fn at(&self, point: Point, step: &str) -> Option<Fault> {
        match step {
            _ if point != Point::Before || self.lucky_again.load(Ordering::SeqCst) => None,
            "ConfirmOrder" => Some(Fault::Fail(Failure::new("injected", "a test"))),
            "CancelOrder" => Some(Fault::Retry),
            _ => None,
        }
    }
}

#[tokio::test]
async fn money_goes_back_even_if_the_refund_comes_before_the_order_is_cancelled() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    let unlucky = Arc::new(Unlucky { lucky_again: AtomicBool::new(false) });
    let worker = world.worker(false, Some(Arc::clone(&unlucky) as _)).await;
    worker.turn(accepted.workflow_id).await.expect("a turn");
    let refund: Uuid = sqlx::query_scalar("select id from engine.runs where workflow = 'refund'")
        .fetch_one(&world.pool)
        .await
        .expect("the refund runs already");
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("PENDING"));
    worker.turn(refund).await.expect("a turn");
    unlucky.lucky_again.store(true, Ordering::SeqCst);
    worker.drain(50).await.expect("drained");
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CANCELLED"));
    assert_eq!(world.gateway.net(accepted.order_id), Decimal::ZERO, "nobody pays for an order that is not to be had");
    world.assert_books("after the refund").await;
}

#[tokio::test]
async fn a_payment_captured_for_a_run_that_is_parked_while_it_unwinds_goes_back() {
    struct Hopeless;
    impl Faults for Hopeless {
        fn at(&self, point: Point, step: &str) -> Option<Fault> {
            match step {
                "ConfirmOrder" | "CancelOrder" if point == Point::Before => {
                    Some(Fault::Fail(Failure::new("injected", "a test")))
                }
                _ => None,
            }
        }
    }
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    let worker = world.worker(false, Some(Arc::new(Hopeless))).await;
    worker.drain(50).await.expect("drained");
    let run = inspect::run(&world.pool, accepted.workflow_id).await.expect("a run").expect("a run");
    assert_eq!(run.status.as_str(), "STUCK");
    assert_eq!(world.gateway.net(accepted.order_id), Decimal::ZERO, "the first payment has gone back");
    let payment = world.gateway.payments(accepted.order_id).remove(0);
    assert_eq!(captured(&world, &accepted, &payment).await, "STARTED_REFUND");
    worker.drain(50).await.expect("drained");
    assert_eq!(world.gateway.net(accepted.order_id), Decimal::ZERO, "and it went back once");
}

/// The checkout gives up in the very commit that would have noted the gateway's payment.
#[tokio::test]
async fn a_payment_that_was_never_noted_is_not_taken_for_cash_and_goes_back_once() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_wrong_amount").await.expect("accepted");
    let worker = world.healthy().await;
    worker.drain(50).await.expect("drained");
    assert_eq!(world.gateway.net(accepted.order_id), Decimal::ZERO, "the first refund has sent it back");
    let payment = world.gateway.payments(accepted.order_id).remove(0);
    assert_eq!(captured(&world, &accepted, &payment).await, "STARTED_REFUND");
    worker.drain(50).await.expect("drained");
    world.assert_books("after word of the payment").await;

    let mut tx = world.pool.begin().await.expect("a transaction");
    let more = workflows::pay_back::accept(&mut tx, accepted.order_id, Decimal::ONE, "user:clerk", "goodwill").await;
    assert_eq!(more.map_err(|refusal| refusal.code()), Err("refund-exceeds-captured"), "nothing is left of it");
}

/// A checkout takes its coupons before its stock. Whoever ends one must not do it the other way round.
#[tokio::test]
async fn coupons_are_locked_before_stock_whether_a_checkout_begins_or_ends() {
    for (token, ending) in [("tok_ok", "COMPLETED"), ("tok_declined", "FAILED")] {
        let world = World::new().await;
        let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
        let codes = vec!["SAVE20".to_owned()];
        let accepted = world
            .checkout_as(Order { payment_token: Some(token.to_owned()), coupon_codes: codes, ..order(user, cart) })
            .await
            .expect("accepted");
        // The first turn stops once the payment is intended: then the rest is one commit.
        struct Stop;
        impl Faults for Stop {
            fn at(&self, point: Point, step: &str) -> Option<Fault> {
                (point == Point::Before && step == "InitiatePayment").then_some(Fault::Crash)
            }
        }
        let first = world.worker(true, Some(Arc::new(Stop))).await;
        first.turn(accepted.workflow_id).await.expect("a turn");
        first.die().await.expect("dead");

        // Another checkout, between its coupons and its stock.
        let mut other = world.pool.begin().await.expect("a transaction");
        sqlx::query("select from coupons for update").execute(&mut *other).await.expect("the coupons");
        let second = world.healthy().await;
        let run_id = accepted.workflow_id;
        let turn = tokio::spawn(async move { second.turn(run_id).await.map(|_| second) });
        until_blocked(&world.pool).await;
        sqlx::query("select from inventory order by variant_id for update")
            .execute(&mut *other)
            .await
            .expect("the stock");
        other.commit().await.expect("committed");
        turn.await.expect("no panic").expect("a turn");
        let story = trace(&world.pool, run_id).await.expect("a trace");
        assert!(!story.iter().any(|line| line.starts_with("ATTEMPT")), "{story:?}");
        assert_eq!(story.last().map(String::as_str), Some(ending));
    }
}

/// A limit per customer binds an e-mail address, and two carts may have one.
#[tokio::test]
async fn two_checkouts_of_one_customer_do_not_both_get_a_coupon_for_one() {
    let world = World::new().await;
    sqlx::query("insert into coupons (id, code, kind, value, per_user_limit) values ($1, 'ONCE', 'PERCENT', 10, 1)")
        .bind(Uuid::now_v7())
        .execute(&world.pool)
        .await
        .expect("a coupon");
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let wish = Order { coupon_codes: vec!["ONCE".to_owned()], ..order(user, cart) };
    let run_id = world.checkout_as(wish).await.expect("accepted").workflow_id;
    // A guest with the same address has it in hand, and has not committed yet.
    let mut first = world.pool.begin().await.expect("a transaction");
    sqlx::query(
        "with c as (update coupons set held_count = held_count + 1 where code = 'ONCE' returning id)
         insert into coupon_redemption_log (coupon_id, redeemer, order_id, discount_applied, status, created_at, updated_at)
         select c.id, coupon_redeemer(u.email), gen_random_uuid(), 1, 'HELD', now(), now() from c, users u where u.id = $1",
    )
    .bind(Uuid::from(user))
    .execute(&mut *first)
    .await
    .expect("redeemed");
    let worker = world.worker(true, None).await;
    let turn = tokio::spawn(async move { worker.turn(run_id).await });
    until_blocked(&world.pool).await;
    first.commit().await.expect("committed");
    turn.await.expect("no panic").expect("a turn");
    let run = inspect::run(&world.pool, run_id).await.expect("a run").expect("a run");
    assert_eq!(run.failure.expect("a failure")["code"], "coupon-invalid");
}

#[tokio::test]
async fn word_of_another_payment_neither_confirms_nor_fails_a_checkout() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_3ds").await.expect("accepted");
    let worker = world.healthy().await;
    worker.turn(accepted.workflow_id).await.expect("a turn");
    let own = world.gateway.payments(accepted.order_id).remove(0);
    let another = GatewayPayment { gateway_payment_id: "pay_of_somebody_else".to_owned(), ..own };
    captured(&world, &accepted, &another).await;
    worker.turn(accepted.workflow_id).await.expect("a turn");
    let run = inspect::run(&world.pool, accepted.workflow_id).await.expect("a run").expect("a run");
    assert_eq!(run.status.as_str(), "WAITING", "its own payment has not been heard of");

    let approved = world.gateway.approve(accepted.order_id).expect("its own payment");
    captured(&world, &accepted, &approved).await;
    worker.drain(20).await.expect("drained");
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    world.assert_books("after its own payment").await;
}

#[tokio::test]
async fn an_address_that_is_deleted_after_the_checkout_was_accepted_loses_no_sale() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let address: Uuid = sqlx::query_scalar(
        "insert into addresses (id, user_id, recipient_name, address_line1, city, state, postal_code, country, phone_number)
         values ($1, $2, 'Asha Rao', '12 Marine Drive', 'Mumbai', 'Maharashtra', '400001', 'India', '+919876543210')
         returning id",
    )
    .bind(Uuid::now_v7())
    .bind(Uuid::from(user))
    .fetch_one(&world.pool)
    .await
    .expect("an address");
    let shipping = AddressChoice::Saved(address.into());
    let accepted = world.checkout_as(Order { shipping, ..order(user, cart) }).await.expect("accepted");
    sqlx::query("delete from addresses").execute(&world.pool).await.expect("deleted");
    world.healthy().await.drain(50).await.expect("drained");
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    world.assert_books("after the address was deleted").await;
}

#[tokio::test]
async fn a_cart_that_was_bought_long_ago_still_answers_with_its_order() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
    world.healthy().await.drain(50).await.expect("drained");
    sqlx::query("delete from engine.finished_runs").execute(&world.pool).await.expect("forgotten");
    let again = world.checkout(user, cart, "tok_ok").await.expect("the same");
    assert_eq!(again, Accepted { status: Shown::Completed, ..accepted });
}

/// A gateway tells twice what it has to say, and the checkout is hearing the first when the second comes.
#[tokio::test]
async fn a_word_that_comes_again_while_it_is_being_heard_waits_for_nobody() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_3ds").await.expect("accepted");
    let worker = world.healthy().await;
    worker.turn(accepted.workflow_id).await.expect("a turn");
    let payment = world.gateway.approve(accepted.order_id).expect("a payment");
    assert_eq!(captured(&world, &accepted, &payment).await, "SIGNALLED");

    // As a worker does before it commits what comes of it.
    let mut hearing = world.pool.begin().await.expect("a transaction");
    let heard = sqlx::query("update engine.signals set consumed_at = now() where run_id = $1")
        .bind(accepted.workflow_id)
        .execute(&mut *hearing)
        .await
        .expect("heard");
    assert_eq!(heard.rows_affected(), 1);
    let told = tokio::time::timeout(Duration::from_secs(10), captured(&world, &accepted, &payment)).await;
    assert_eq!(told.expect("it does not wait for whoever hears"), "IGNORED");
    hearing.rollback().await.expect("rolled back");
    worker.drain(50).await.expect("drained");
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CONFIRMED"));
    world.assert_books("told twice").await;
}
