//! What races for one order, in hundreds of orders of events: one winner, and the books balance.

pub mod driver;
mod lock_order;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use domain::{
    ids::{OrderId, UserId},
    notification::ParcelLabel,
    order::{Actor, OrderStatus, ShipmentStatus},
    payment::PaymentMethod,
    ports::{GatewayPayment, WebhookEvent, WebhookKind},
};
use engine::{
    Start,
    testing::{TestWorker, advance_clock},
};
use rust_decimal::Decimal;
use uuid::Uuid;
use workflows::{
    cancellation::{
        CancelRequest,
        accept::{self, CancelError},
    },
    checkout::{accept::Order, webhook},
    fulfilment::{self, ShipRefusal},
    pay_back,
    reservation_expiry::ReservationExpiry,
    store::{orders, refunds::ClaimError},
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
        about: None,
        at: None,
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
    cancel_as(world, order_id, Actor::Customer, user).await
}

async fn cancel_as(world: &World, order_id: OrderId, actor: Actor, user: UserId) -> bool {
    let request = CancelRequest { order_id, actor, by: format!("user:{user}"), reason: "changed my mind".to_owned() };
    let mut tx = world.pool.begin().await.expect("a transaction");
    match accept::accept(&mut tx, &world.shop.rules, &request, |_| true).await {
        Ok(_) => {
            tx.commit().await.expect("committed");
            true
        }
        Err(CancelError::NotFound | CancelError::Refused(_) | CancelError::InHand) => false,
        Err(error @ (CancelError::Changed | CancelError::Unkeepable | CancelError::Database(_))) => panic!("{error}"),
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

/// The staff pack all of an order, if it is there to be packed.
async fn pack(world: &World, order_id: OrderId) {
    let mut tx = world.pool.begin().await.expect("a transaction");
    let Some(mut order) = orders::lock(&mut tx, order_id).await.expect("an answer") else { return };
    let now = engine::now(&mut *tx).await.expect("the time");
    let label = ParcelLabel { courier_service: "Blue Dart".to_owned(), tracking_number: "BD1".to_owned() };
    match fulfilment::ship(&mut tx, &mut order, None, &label, "user:staff", now).await {
        Ok(_) => tx.commit().await.expect("committed"),
        Err(
            ShipRefusal::NotShippable(_)
            | ShipRefusal::BeingCancelled
            | ShipRefusal::PaidBack
            | ShipRefusal::NothingLeft,
        ) => {}
        Err(
            error @ (ShipRefusal::UnknownLine { .. }
            | ShipRefusal::TooMany { .. }
            | ShipRefusal::IsCancellation
            | ShipRefusal::Database(_)),
        ) => panic!("{error}"),
    }
}

/// The courier reports on every parcel of an order.
async fn courier_says(world: &World, order_id: OrderId, status: ShipmentStatus) {
    let parcels: Vec<Uuid> = sqlx::query_scalar("select id from shipments where order_id = $1")
        .bind(Uuid::from(order_id))
        .fetch_all(&world.pool)
        .await
        .expect("the parcels");
    for parcel in parcels {
        let mut tx = world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        match fulfilment::report(&mut tx, parcel, status, now).await {
            Ok(_) => tx.commit().await.expect("committed"),
            Err(
                ShipRefusal::NotShippable(OrderStatus::Cancelled) | ShipRefusal::BeingCancelled | ShipRefusal::PaidBack,
            ) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn cancelling_and_shipping_have_one_winner() {
    let world = &World::new().await;
    every_seed(world, async |_, mut dice: Dice| {
        let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 2)]).await;
        let method = dice.pick(&[PaymentMethod::Upi, PaymentMethod::Upi, PaymentMethod::Cod]);
        let order = Order { payment_method: method, ..order(user, cart) };
        let accepted = world.checkout_as(order).await.expect("accepted");
        let order_id = accepted.order_id;
        // Most races are about an order that is confirmed.
        if dice.roll(4) > 0 {
            let worker = TestWorker::new(&world.pool, workflows::registry(&world.shop), true, None).await.expect("one");
            worker.turn(accepted.workflow_id).await.expect("a turn");
            worker.die().await.expect("dead");
        }
        let accepted = &AtomicBool::new(false);
        let cancels = |actor| async move {
            if cancel_as(world, order_id, actor, user).await {
                accepted.store(true, Ordering::SeqCst);
                assert_stays(world, order_id).await;
            }
        };
        let mut actions = vec![
            action("pack", pack(world, order_id)),
            action("pack again", pack(world, order_id)),
            action("leave", courier_says(world, order_id, ShipmentStatus::Shipped)),
            action("arrive", courier_says(world, order_id, ShipmentStatus::Delivered)),
            action("a late scan", courier_says(world, order_id, ShipmentStatus::InTransit)),
            action("come back", courier_says(world, order_id, ShipmentStatus::Returned)),
            action("cancel", cancels(Actor::Customer)),
            action("cancel by staff", cancels(Actor::Staff)),
            action("pack, leave and cancel at once", async move {
                let leaves = async {
                    pack(world, order_id).await;
                    courier_says(world, order_id, ShipmentStatus::Shipped).await;
                };
                tokio::join!(leaves, cancels(Actor::Customer), cancels(Actor::Staff));
            }),
        ];
        shuffle(&mut dice, &mut actions);
        interleave(world, &mut dice, actions).await;

        if accepted.load(Ordering::SeqCst) {
            // A PENDING order that is given up may never have been written.
            let status = status_and_total(world, order_id).await.map(|(status, _)| status);
            assert!(status.as_deref().is_none_or(|status| status == "CANCELLED"), "accepted, and then {status:?}");
        }
        let net =
            if method == PaymentMethod::Cod { cash_of(world, order_id).await } else { world.gateway.net(order_id) };
        match status_and_total(world, order_id).await {
            None => assert_eq!(net, Decimal::ZERO, "no order, no money"),
            Some((status, _)) if status == "CANCELLED" => assert_eq!(net, Decimal::ZERO, "cancelled and paid for"),
            Some((status, total)) => {
                let is_paid = method != PaymentMethod::Cod || status == "DELIVERED";
                assert_eq!(net, if is_paid { total } else { Decimal::ZERO }, "{status}");
            }
        }
    })
    .await;
    let ends: Vec<String> = sqlx::query_scalar("select distinct order_status from orders order by 1")
        .fetch_all(&world.pool)
        .await
        .expect("the ends");
    let after_shipping: i64 = sqlx::query_scalar(
        "select count(*) from order_state_history where from_status = 'SHIPPED' and to_status = 'CANCELLED'",
    )
    .fetch_one(&world.pool)
    .await
    .expect("a count");
    let all = ["CANCELLED", "DELIVERED", "SHIPPED"];
    assert!(
        std::env::var("CART_ENGINE_SEED").is_ok()
            || after_shipping > 0 && all.iter().all(|end| ends.iter().any(|e| e == end)),
        "{ends:?}, {after_shipping} cancelled after shipping"
    );
}

/// Once its cancellation is accepted, no parcel of an order is with a courier or a customer.
async fn assert_stays(world: &World, order_id: OrderId) {
    let out: i64 = sqlx::query_scalar(
        "select count(*) from shipments where order_id = $1 and status in ('SHIPPED', 'IN_TRANSIT', 'DELIVERED')",
    )
    .bind(Uuid::from(order_id))
    .fetch_one(&world.pool)
    .await
    .expect("a count");
    assert_eq!(out, 0, "it was accepted while a parcel was out, or one left after it");
}

/// The staff give so much back; the run, if the shop said yes.
async fn give_back(world: &World, order_id: OrderId, amount: Decimal) -> Option<Uuid> {
    let mut tx = world.pool.begin().await.expect("a transaction");
    match pay_back::accept(&mut tx, order_id, amount, "user:clerk", "goodwill").await {
        Ok(run_id) => {
            tx.commit().await.expect("committed");
            Some(run_id)
        }
        Err(ClaimError::Database(error)) => panic!("{error}"),
        Err(_) => None,
    }
}

#[tokio::test]
async fn refunding_all_and_shipping_have_one_winner() {
    let world = &World::new().await;
    every_seed(world, async |_, mut dice: Dice| {
        let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 2)]).await;
        let accepted = world.checkout(user, cart, "tok_ok").await.expect("accepted");
        let order_id = accepted.order_id;
        let worker = TestWorker::new(&world.pool, workflows::registry(&world.shop), true, None).await.expect("one");
        worker.turn(accepted.workflow_id).await.expect("a turn");
        worker.die().await.expect("dead");
        let total = world.gateway.net(order_id);
        let part = Decimal::from(1_000);
        let refunds = |amount| async move {
            give_back(world, order_id, amount).await;
        };
        let mut actions = vec![
            action("pack", pack(world, order_id)),
            action("leave", courier_says(world, order_id, ShipmentStatus::Shipped)),
            action("refund all", refunds(total)),
            action("refund a part", refunds(part)),
            action("refund the rest", refunds(total - part)),
            action("pack, leave and refund at once", async move {
                let leaves = async {
                    pack(world, order_id).await;
                    courier_says(world, order_id, ShipmentStatus::Shipped).await;
                };
                tokio::join!(leaves, refunds(total), refunds(total - part));
            }),
        ];
        shuffle(&mut dice, &mut actions);
        interleave(world, &mut dice, actions).await;

        let (status, _) = status_and_total(world, order_id).await.expect("an order");
        let net = world.gateway.net(order_id);
        let has_left: bool =
            sqlx::query_scalar("select exists (select from shipments where order_id = $1 and shipped_at is not null)")
                .bind(Uuid::from(order_id))
                .fetch_one(&world.pool)
                .await
                .expect("an answer");
        if has_left {
            assert_eq!(status, "SHIPPED", "what left first is on its way, and may be paid back");
        } else {
            assert_eq!(net.is_zero(), status == "CANCELLED", "{status}, net {net}: paid back and not called off");
        }
    })
    .await;
    let ends: Vec<String> = sqlx::query_scalar("select distinct order_status from orders order by 1")
        .fetch_all(&world.pool)
        .await
        .expect("the ends");
    assert!(std::env::var("CART_ENGINE_SEED").is_ok() || ends.contains(&"CANCELLED".to_owned()), "{ends:?}");
}

async fn cash_of(world: &World, order_id: OrderId) -> Decimal {
    sqlx::query_scalar("select coalesce(sum(captured_amount - refund_amount), 0) from payments where order_id = $1")
        .bind(Uuid::from(order_id))
        .fetch_one(&world.pool)
        .await
        .expect("the cash")
}

fn shuffle(dice: &mut Dice, actions: &mut [driver::Action<'_>]) {
    for last in (1..actions.len()).rev() {
        actions.swap(last, dice.roll(last + 1));
    }
}
