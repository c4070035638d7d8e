//! What races for one order, in hundreds of orders of events: one winner, and the books balance.

pub mod driver;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use domain::{
    ids::{OrderId, UserId},
    order::Actor,
    ports::{GatewayPayment, WebhookEvent, WebhookKind},
};
use engine::{Start, testing::advance_clock};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    cancellation::{
        CancelRequest,
        accept::{self, CancelError},
    },
    checkout::{accept::Order, webhook},
    reservation_expiry::ReservationExpiry,
};

use self::driver::{Dice, action, every_seed, interleave};
use crate::world::{World, order};

/// The gateway reports a capture.
async fn report(world: &World, payment: &GatewayPayment) {
    let event = WebhookEvent {
        event_id: format!("evt_{}", payment.gateway_payment_id),
        kind: WebhookKind::PaymentCaptured,
        gateway_payment_id: payment.gateway_payment_id.clone(),
        order_id: Some(payment.order_id),
        amount: Some(payment.amount.clone()),
        failure: None,
    };
    let mut tx = world.pool.begin().await.expect("a transaction");
    webhook::receive(&mut tx, "scripted", &event).await.expect("received");
    tx.commit().await.expect("committed");
}

/// Whatever the gateway has captured, it reports; once more than needed.
async fn capture_is_reported(world: &World, order_id: OrderId) {
    for payment in world.gateway.payments(order_id).iter().filter(|payment| payment.captured > Decimal::ZERO) {
        report(world, payment).await;
    }
}

/// The customer cancels; true if the shop said yes.
async fn cancel(world: &World, order_id: OrderId, user: UserId) -> bool {
    let request = CancelRequest {
        order_id,
        actor: Actor::Customer,
        by: format!("user:{user}"),
        reason: "changed my mind".to_owned(),
    };
    let mut tx = world.pool.begin().await.expect("a transaction");
    match accept::accept(&mut tx, &world.shop.rules, &request, |_| true).await {
        Ok(_) => {
            tx.commit().await.expect("committed");
            true
        }
        Err(CancelError::NotFound | CancelError::Refused(_) | CancelError::InHand) => false,
        Err(error @ (CancelError::Changed | CancelError::Database(_))) => panic!("{error}"),
    }
}

async fn status_and_total(world: &World, order_id: OrderId) -> Option<(String, Decimal)> {
    sqlx::query_as("select order_status, total_amount from orders where id = $1")
        .bind(Uuid::from(order_id))
        .fetch_optional(&world.pool)
        .await
        .expect("an order")
}

/// Paid for if it is to be had, not paid for if it is not. Answers whether it is to be had.
async fn assert_settled(world: &World, order_id: OrderId) -> bool {
    let net = world.gateway.net(order_id);
    match status_and_total(world, order_id).await {
        Some((status, total)) if status == "CONFIRMED" => {
            assert_eq!(net, total, "the money of an order that is to be had");
            true
        }
        found => {
            assert!(found.as_ref().is_none_or(|(status, _)| status == "CANCELLED"), "{found:?}");
            assert_eq!(net, Decimal::ZERO, "nobody pays for an order that is not to be had");
            false
        }
    }
}

#[tokio::test]
async fn cancelling_and_capturing_have_one_winner() {
    let world = &World::new().await;
    every_seed(world, async |_, mut dice: Dice| {
        let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 2)]).await;
        let token = dice.pick(&["tok_ok", "tok_3ds", "tok_3ds", "tok_unknown_once"]);
        let coupon_codes = if dice.roll(2) == 0 { vec!["SAVE20".to_owned()] } else { Vec::new() };
        let order = Order { payment_token: Some(token.to_owned()), coupon_codes, ..order(user, cart) };
        let order_id = world.checkout_as(order).await.expect("accepted").order_id;

        let accepted = &AtomicBool::new(false);
        let cancels = || async move {
            if cancel(world, order_id, user).await {
                accepted.store(true, Ordering::SeqCst);
            }
        };
        let mut actions = vec![
            action("approve", async move {
                world.gateway.approve(order_id);
            }),
            action("report", capture_is_reported(world, order_id)),
            action("report again", capture_is_reported(world, order_id)),
            action("cancel", cancels()),
            action("cancel again", cancels()),
        ];
        shuffle(&mut dice, &mut actions);
        interleave(world, &mut dice, actions).await;

        let is_to_be_had = assert_settled(world, order_id).await;
        assert!(!(is_to_be_had && accepted.load(Ordering::SeqCst)), "a cancellation that was accepted is forgotten");
        if token != "tok_3ds" {
            assert_ne!(is_to_be_had, accepted.load(Ordering::SeqCst), "paid and not cancelled, or cancelled");
        }
    })
    .await;
}

#[tokio::test]
async fn expiry_and_payment_have_one_winner() {
    let world = &World::new().await;
    every_seed(world, async |seed, mut dice: Dice| {
        let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
        let accepted = world.checkout(user, cart, "tok_3ds").await.expect("accepted");
        let order_id = accepted.order_id;
        let passes = |seconds: usize| async move {
            let by = Duration::from_secs(u64::try_from(seconds).expect("small"));
            advance_clock(&world.pool, by).await.expect("the clock moves");
        };
        let expiry = || async move {
            let start = Start::<ReservationExpiry>::new(Uuid::now_v7().to_string(), &()).expect("a start");
            let mut conn = world.pool.acquire().await.expect("a connection");
            engine::start(&mut conn, &start).await.expect("started");
        };
        let is_late = dice.roll(3) == 0;
        let mut actions = vec![
            action("time passes", passes(dice.roll(700))),
            action("time passes", passes(dice.roll(700))),
            action("holds expire", expiry()),
            action("holds expire again", expiry()),
            action("pay", async move {
                let paid = world.gateway.approve(order_id);
                if paid.is_none() && is_late {
                    world.gateway.capture_late(order_id);
                }
            }),
            action("report", capture_is_reported(world, order_id)),
        ];
        shuffle(&mut dice, &mut actions);
        actions.push(action("report at last", capture_is_reported(world, order_id)));
        interleave(world, &mut dice, actions).await;
        assert_settled(world, order_id).await;
        if seed == 0 {
            world.assert_books("after the first").await;
        }
    })
    .await;
    let confirmed: i64 = sqlx::query_scalar("select count(*) from orders where order_status = 'CONFIRMED'")
        .fetch_one(&world.pool)
        .await
        .expect("a count");
    let played = i64::try_from(driver::ORDERS).expect("small");
    assert!(std::env::var("CART_ENGINE_SEED").is_ok() || (1..played).contains(&confirmed), "{confirmed}: never a race");
}

fn shuffle(dice: &mut Dice, actions: &mut [driver::Action<'_>]) {
    for last in (1..actions.len()).rev() {
        actions.swap(last, dice.roll(last + 1));
    }
}
