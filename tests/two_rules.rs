//! Two processes with different rules, and a shop that is started anew with others: what was agreed is what
//! is carried out, and nobody is charged in a currency they have not seen.

use std::{sync::Arc, time::Duration};

use domain::{
    ids::OrderId,
    money::Currency,
    order::{Actor, OrderStatus},
    payment::PaymentMethod,
    pricing::{PricingPolicy, ShippingRates, TaxPolicy},
};
use engine::{inspect, testing::TestWorker};
use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;
use workflows::{
    Rules, Shop,
    cancellation::{self, CancelRequest},
    checkout::accept::{Accepted, Order, Refusal},
    fulfilment::{self, LineName},
    order_return::desk::{self, Decision},
    store::{
        orders::{self, By},
        returns,
    },
};

use crate::{
    server::{Server, notices},
    world::{World, order},
};

/// Different in everything that decides a run.
fn other_rules() -> Rules {
    Rules {
        pricing: PricingPolicy {
            currency: dollars(),
            seller_country: "US".to_owned(),
            seller_state: "Delaware".to_owned(),
            shipping: ShippingRates { standard: Decimal::from(999), express: Decimal::from(1999) },
            free_shipping_above: Some(Decimal::ONE),
            minimum_order_value: Some(Decimal::from(1_000_000)),
            tax: TaxPolicy::FlatRate { rate: Decimal::from(7) },
        },
        hold_s: 7,
        payment_window_s: 5,
        payment_max_attempts: 9,
        cancel_deadline_s: Some(0),
        cod_limit: Some(Decimal::ONE),
        auto_process_after_s: Some(0),
        return_patience_s: 1,
        return_refunds_shipping: true,
        standard_delivery_days: 77,
        express_delivery_days: 77,
        default_gateway: "elsewhere".to_owned(),
        ..Rules::default()
    }
}

fn dollars() -> Currency {
    "USD".parse().expect("a currency")
}

/// A worker that was started with other rules than the shop that accepts.
async fn other_worker(world: &World) -> TestWorker {
    let (gateway, mails) = (Arc::clone(&world.gateway), Arc::clone(&world.mails));
    let shop = Shop::new(other_rules(), vec![gateway as _], Some(mails as _));
    TestWorker::new(&world.pool, workflows::registry(&shop), true, None).await.expect("a worker")
}

async fn bought(world: &World, method: PaymentMethod) -> Accepted {
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let order = Order { payment_method: method, ..order(user, cart) };
    world.checkout_as(order).await.expect("accepted")
}

#[tokio::test]
async fn a_checkout_goes_by_the_rules_it_was_accepted_under() {
    for method in [PaymentMethod::Upi, PaymentMethod::Cod] {
        let world = World::new().await;
        let accepted = bought(&world, method).await;
        let worker = other_worker(&world).await;
        worker.drain(50).await.expect("drained");
        let (status, total, tax, currency, days): (String, Decimal, Decimal, String, i32) = sqlx::query_as(
            "select order_status, total_amount, tax_amount, currency::text,
                    estimated_delivery_date - (confirmed_at at time zone 'utc')::date
               from orders where id = $1",
        )
        .bind(Uuid::from(accepted.order_id))
        .fetch_one(&world.pool)
        .await
        .expect("an order");
        assert_eq!((status.as_str(), currency.as_str(), days), ("CONFIRMED", "INR", 5), "{method}");
        assert_eq!((total, tax), (Decimal::from(59_050), Decimal::from(9_000)), "{method}");
        let held_s: i64 = sqlx::query_scalar(
            "select extract(epoch from expires_at - created_at)::bigint from inventory_reservations where order_id = $1",
        )
        .bind(Uuid::from(accepted.order_id))
        .fetch_one(&world.pool)
        .await
        .expect("a hold");
        assert_eq!(held_s, 600, "{method}");
        for payment in world.gateway.payments(accepted.order_id) {
            assert_eq!((payment.amount.amount(), payment.amount.currency()), (total, Currency::INR));
        }
        world.assert_books("after a checkout by another's worker").await;
    }
}

#[tokio::test]
async fn a_shopper_has_the_time_to_pay_that_was_agreed() {
    let world = World::new().await;
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let accepted = world.checkout(user, cart, "tok_3ds").await.expect("accepted");
    let worker = other_worker(&world).await;
    for later_s in [0, 240] {
        engine::testing::advance_clock(&world.pool, Duration::from_secs(later_s)).await.expect("a later time");
        worker.turn(accepted.workflow_id).await.expect("a turn");
        assert_eq!(world.status(accepted.workflow_id).await, "WAITING", "half of the window is left");
    }
}

#[tokio::test]
async fn what_turns_out_to_be_in_another_currency_is_a_failed_run_and_no_charge() {
    for sql in ["update products set currency = 'USD'", "update carts set currency = 'USD'"] {
        let world = World::new().await;
        let accepted = bought(&world, PaymentMethod::Upi).await;
        sqlx::query(sql).execute(&world.pool).await.expect("changed");
        other_worker(&world).await.drain(50).await.expect("drained");
        let run = inspect::run(&world.pool, accepted.workflow_id).await.expect("an answer").expect("a run");
        assert_eq!(run.failure.expect("a failure")["code"], "currency-mismatch", "{sql}");
        assert!(world.gateway.payments(accepted.order_id).is_empty(), "{sql}");
        world.assert_books(sql).await;
    }
}

#[tokio::test]
async fn a_cart_of_another_currency_than_the_shops_is_not_accepted() {
    let world = World::new().await;
    let rules = Rules {
        pricing: PricingPolicy { currency: dollars(), ..PricingPolicy::default() },
        default_gateway: "scripted".to_owned(),
        ..Rules::default()
    };
    let shop = Shop::new(rules, vec![Arc::clone(&world.gateway) as _], None);
    for sql in ["select 1", "update carts set currency = 'USD'", "update products set currency = 'USD'"] {
        let (user, cart) = world.shopper(&[("LAP-001", 1), ("MOU-001", 1)]).await;
        sqlx::query(sql).execute(&world.pool).await.expect("changed");
        let shop = if sql.starts_with("update products") { &world.shop } else { &shop };
        let mut tx = world.pool.begin().await.expect("a transaction");
        let refused = workflows::checkout::accept::accept(&mut tx, shop, order(user, cart)).await.expect_err(sql);
        assert!(matches!(refused, Refusal::CurrencyMismatch { .. }), "{sql}: {refused}");
        assert_eq!(refused.code(), "currency-mismatch");
    }
}

#[tokio::test]
async fn a_coupon_of_another_currency_takes_nothing_off() {
    let world = World::new().await;
    sqlx::query("update coupons set currency = 'USD'").execute(&world.pool).await.expect("changed");
    let (user, cart) = world.shopper(&[("LAP-001", 1)]).await;
    let order = Order { coupon_codes: vec!["SAVE20".to_owned()], ..order(user, cart) };
    let refused = world.checkout_as(order).await.expect_err("refused");
    assert!(matches!(refused, Refusal::CouponInvalid { .. }), "{refused}");
}

#[tokio::test]
async fn a_cancellation_that_was_accepted_in_time_is_carried_out() {
    let world = World::new().await;
    let accepted = bought(&world, PaymentMethod::Upi).await;
    let worker = other_worker(&world).await;
    worker.drain(50).await.expect("drained");
    sqlx::query("delete from engine.runs where workflow = 'fulfilment'").execute(&world.pool).await.expect("none");
    let request = CancelRequest {
        order_id: accepted.order_id,
        actor: Actor::Customer,
        by: "user:asha".to_owned(),
        reason: "changed my mind".to_owned(),
    };
    let mut tx = world.pool.begin().await.expect("a transaction");
    cancellation::accept::accept(&mut tx, &world.shop.rules, &request, |_| true).await.expect("accepted");
    tx.commit().await.expect("committed");
    worker.drain(50).await.expect("drained");
    assert_eq!(world.order_status(accepted.order_id.into()).await.as_deref(), Some("CANCELLED"));
    world.assert_books("after a cancellation by another's worker").await;
}

#[tokio::test]
async fn a_return_waits_and_pays_as_when_it_was_asked_for() {
    let world = World::new().await;
    let order_id = bought(&world, PaymentMethod::Upi).await.order_id;
    let worker = other_worker(&world).await;
    worker.drain(50).await.expect("drained");
    deliver(&world, order_id).await;
    worker.drain(50).await.expect("drained");
    let mut tx = world.pool.begin().await.expect("a transaction");
    let now = engine::now(&mut *tx).await.expect("the time");
    let order = orders::lock(&mut tx, order_id).await.expect("an answer").expect("an order");
    let items = [(LineName::Variant("LAP-001".to_owned()), 1)];
    let rules = &world.shop.rules;
    let return_id = desk::request(&mut tx, rules, &order, &items, "too heavy", now).await.expect("asked for");
    let run_id = returns::find(&mut tx, return_id).await.expect("an answer").expect("a return").run_id;
    tx.commit().await.expect("committed");
    for later_s in [0, 29 * 24 * 3600] {
        engine::testing::advance_clock(&world.pool, Duration::from_secs(later_s)).await.expect("a later day");
        worker.turn(run_id).await.expect("a turn");
        assert_eq!(world.status(run_id).await, "WAITING", "a day is left");
    }
    for decision in [Decision::Approve, Decision::Receive] {
        let mut tx = world.pool.begin().await.expect("a transaction");
        let now = engine::now(&mut *tx).await.expect("the time");
        desk::decide(&mut tx, return_id, decision, None, now).await.expect("decided");
        tx.commit().await.expect("committed");
    }
    worker.drain(50).await.expect("drained");
    let paid_back: Decimal = sqlx::query_scalar("select refund_amount from payments where order_id = $1")
        .bind(Uuid::from(order_id))
        .fetch_one(&world.pool)
        .await
        .expect("a payment");
    assert_eq!(paid_back, Decimal::from(59_000), "without the shipping, as agreed");
    world.assert_books("after a return by another's worker").await;
}

async fn deliver(world: &World, order_id: OrderId) {
    let mut tx = world.pool.begin().await.expect("a transaction");
    let now = engine::now(&mut *tx).await.expect("the time");
    let mut order = orders::lock(&mut tx, order_id).await.expect("an answer").expect("an order");
    for to in [OrderStatus::Processing, OrderStatus::Shipped, OrderStatus::Delivered] {
        let by = By { actor: "a test", reason: None, metadata: None };
        fulfilment::staff_move(&mut tx, &mut order, to, by, now).await.expect("moved");
    }
    tx.commit().await.expect("committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_survives_a_change_of_the_shops_currency_readable_and_unsold() {
    let mut server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let rules =
        Rules { pricing: PricingPolicy { currency: dollars(), ..PricingPolicy::default() }, ..Rules::default() };
    let anew = asha.at(&server.another_api_by(rules).await);
    let cart = anew.cart().await;
    assert_eq!((notices(&cart), &cart["cart"]["currency"]), (vec!["CURRENCY_CHANGED"], &json!("INR")));
    let breakdown = &cart["priceBreakdown"];
    assert_eq!((&breakdown["currency"], &breakdown["total"]), (&json!("INR"), &json!("59000.00")));
    let refused = anew.ask(&crate::server::payment("tok_ok")).await.refused(409, "currency-mismatch");
    assert_eq!((&refused["currency"], &refused["shopCurrency"]), (&json!("INR"), &json!("USD")));
    let line = json!({ "variantId": "LAP-001", "quantity": 1 });
    anew.post("/api/cart/items", &line).await.refused(409, "currency-mismatch");
    anew.patch("/api/cart/items/LAP-001", &json!({ "quantity": 2 })).await.refused(409, "currency-mismatch");
    anew.post("/api/cart/coupons", &json!({ "code": "SAVE20" })).await.refused(409, "currency-mismatch");

    let emptied = anew.delete("/api/cart").await.ok();
    assert_eq!((notices(&emptied), &emptied["cart"]["currency"]), (vec![], &json!("USD")));
    assert_eq!(asha.cart().await["cart"]["currency"], "INR", "an empty cart is in the currency of whoever shows it");
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_ok").await;
    assert_eq!(asha.end(&checkout).await["status"], "COMPLETED");
    server.close().await;
}
