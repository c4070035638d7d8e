//! What every cart obeys: what it tells of the shop, how much it holds, how long it lives.

use domain::pricing::PricingPolicy;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use workflows::Rules;

use crate::server::{Answer, Checkout, Server, Shopper, notices, payment};

const HOUR_S: u64 = 3600;
const DAY_S: u64 = 24 * HOUR_S;

async fn set(shopper: &Shopper, sku: &str, quantity: u32) -> Answer {
    shopper.patch(&format!("/api/cart/items/{sku}"), &json!({ "quantity": quantity })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_tells_at_once_of_new_prices_and_ended_coupons_and_soon_of_lost_stock() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 2).await;
    asha.post("/api/cart/coupons", &json!({ "code": "SAVE20" })).await.ok();
    let before = asha.cart().await;
    assert_eq!((notices(&before), &before["subtotal"]), (vec![], &json!("100000.00")));
    assert_eq!(asha.cart().await, before, "looking changes nothing");

    server.set_price("LAP-001", 60_000).await;
    let dearer = asha.cart().await;
    assert_eq!((notices(&dearer), &dearer["subtotal"]), (vec!["PRICE_CHANGED"], &json!("120000.00")));
    assert_eq!(dearer["notices"][0]["newPrice"], "60000.00");
    server.end_coupon("SAVE20").await;
    let plain = asha.cart().await;
    assert_eq!(notices(&plain), ["PRICE_CHANGED", "COUPON_DROPPED"]);
    assert_eq!((&plain["priceBreakdown"]["discount"], &plain["coupons"]), (&json!("0.00"), &json!([])));

    server.set_stock("LAP-001", 1).await;
    server.advance(4).await;
    let short = asha.cart().await;
    assert_eq!(notices(&short), ["PRICE_CHANGED", "QUANTITY_UNAVAILABLE", "COUPON_DROPPED"]);
    assert_eq!((&short["items"][0]["available"], &short["items"][0]["quantity"]), (&json!(1), &json!(2)));
    server.set_price("LAP-001", 50_000).await;
    server.set_stock("LAP-001", 100).await;
    server.advance(4).await;
    assert_eq!(notices(&asha.cart().await), ["COUPON_DROPPED"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_that_others_use_up_stops_counting_at_once() {
    let server = Server::open().await;
    let [asha, ben] = [server.shopper("asha").await, server.shopper("ben").await];
    sqlx::query("update coupons set usage_limit = 1").execute(&server.pool).await.expect("a limit");
    for shopper in [&asha, &ben] {
        shopper.add("LAP-001", 1).await;
        shopper.post("/api/cart/coupons", &json!({ "code": "SAVE20" })).await.ok();
        assert_eq!(shopper.cart().await["priceBreakdown"]["total"], "47250.00");
    }
    let checkout = ben.checkout("tok_declined").await;
    assert_eq!(ben.end(&checkout).await["status"], "FAILED");
    assert_eq!(asha.cart().await["priceBreakdown"]["total"], "47250.00", "what was held has been given back");
    let checkout = ben.checkout("tok_ok").await;
    assert_eq!(ben.end(&checkout).await["status"], "COMPLETED");
    let cart = asha.cart().await;
    assert_eq!((notices(&cart), &cart["priceBreakdown"]["total"]), (vec!["COUPON_DROPPED"], &json!("59050.00")));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_holds_999_and_a_cart_200_lines() {
    let server = Server::open_idle().await;
    let skus = server.add_variants(201).await;
    let asha = server.shopper("asha").await;
    let add = async |sku: &str, quantity: i64| {
        asha.post("/api/cart/items", &json!({ "variantId": sku, "quantity": quantity })).await
    };
    for quantity in [0, -1, 1000] {
        add(&skus[0], quantity).await.refused(422, "quantity-invalid");
    }
    add(&skus[0], 999).await.ok();
    add(&skus[0], 1).await.refused(422, "quantity-invalid");
    set(&asha, &skus[0], 1000).await.refused(422, "quantity-invalid");
    server.fill(&asha, &skus[1..200]).await;
    add(&skus[200], 1).await.refused(409, "too-many-lines");
    add(&skus[1], 1).await.ok();
    assert_eq!(asha.cart().await["itemCount"], 999 + 199 + 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_starts_at_the_minimum() {
    let pricing = PricingPolicy { minimum_order_value: Some(Decimal::from(1500)), ..PricingPolicy::default() };
    let server = Server::open_by(Rules { pricing, ..Rules::default() }, None).await;
    let asha = server.shopper("asha").await;
    asha.add("LTD-010", 1).await;
    let problem = asha.ask(&payment("tok_ok")).await.refused(409, "minimum-order-value");
    assert_eq!((&problem["minimum"], &problem["subtotal"]), (&json!("1500.00"), &json!("999.00")), "{problem}");
    asha.add("LTD-010", 1).await;
    Checkout::of(asha.ask(&payment("tok_ok")).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_touch_makes_an_abandoned_cart_active_and_a_look_does_not() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.add("LTD-010", 1).await;
    let abandon = "update carts set status = 'ABANDONED', version = version + 1, updated_at = engine.now()";
    sqlx::query(abandon).execute(&server.pool).await.expect("abandoned");
    for _ in 0..2 {
        let seen = asha.cart().await;
        assert_eq!((&seen["cart"]["status"], &seen["itemCount"]), (&json!("ABANDONED"), &json!(1)));
    }
    assert_eq!(set(&asha, "LTD-010", 2).await.ok()["cart"]["status"], "ACTIVE");
    sqlx::query(abandon).execute(&server.pool).await.expect("abandoned");
    Checkout::of(asha.ask(&payment("tok_ok")).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_cart_lives_a_month_and_a_guests_a_day_from_the_last_touch() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    let guest = Shopper::guest(server.door.clone()).await;
    let count = async |shopper: &Shopper| shopper.cart().await["itemCount"].as_u64();
    let hers = asha.add("LTD-010", 1).await["cart"]["cartId"].clone();
    guest.add("LTD-010", 1).await;
    server.advance(23 * HOUR_S).await;
    guest.add("LTD-010", 1).await;
    server.advance(23 * HOUR_S).await;
    assert_eq!(count(&guest).await, Some(2), "the touch counts");
    server.advance(2 * HOUR_S).await;
    assert_eq!(count(&guest).await, Some(0), "the look does not");

    server.advance(27 * DAY_S).await;
    assert_eq!(count(&asha).await, Some(1));
    server.advance(2 * DAY_S).await;
    let mut old = payment("tok_ok");
    asha.ask(&old).await.refused(409, "cart-empty");
    old["cartId"] = hers.clone();
    asha.ask(&old).await.refused(409, "cart-not-active");
    let new = asha.cart().await;
    assert_eq!(new["itemCount"], 0);
    assert_ne!(new["cart"]["cartId"], hers);
    asha.ask(&old).await.refused(409, "cart-not-active");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_nobody_can_dial_are_refused_wherever_they_are_asked_for() {
    let server = Server::open_by(Rules { allow_guest_checkout: true, ..Rules::default() }, None).await;
    let register = json!({ "email": "x@example.com", "password": "correct horse", "phoneNumber": "call me" });
    let pointer = |problem: Value| problem["errors"][0]["pointer"].clone();
    let problem = server.door.post("/api/auth/register", &register).await.refused(422, "validation-failed");
    assert_eq!(pointer(problem), "/phoneNumber");

    let guest = Shopper::guest(server.door.clone()).await;
    guest.add("LTD-010", 1).await;
    let mut request = payment("tok_ok");
    request["contact"] = json!({ "email": "guest@example.com", "phoneNumber": "12" });
    assert_eq!(pointer(guest.ask(&request).await.refused(422, "validation-failed")), "/contact/phoneNumber");
    request["contact"]["phoneNumber"] = json!("+91 98765 43210");
    request["shippingAddress"]["phoneNumber"] = json!("++91");
    assert_eq!(pointer(guest.ask(&request).await.refused(422, "validation-failed")), "/shippingAddress/phoneNumber");
    request["shippingAddress"]["phoneNumber"] = json!("022-2345678");
    Checkout::of(guest.ask(&request).await);
    server.stop().await;
}
