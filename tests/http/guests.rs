//! Those who buy without an account, where the shop lets them; and cash, up to a limit.

use chrono::{TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use workflows::{Rules, store::carts::idle};

use crate::server::{Answer, Checkout, Server, Shopper, payment};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_cannot_check_out_unless_the_shop_allows_it() {
    let server = Server::open_idle().await;
    let guest = Shopper::guest(server.door.clone()).await;
    guest.add("LAP-001", 1).await;
    let mut request = payment("tok_ok");
    request["contact"] = json!({ "email": "guest@example.com", "phoneNumber": "+919876543210" });
    guest.ask(&request).await.refused(401, "login-required");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_made_up_gets_no_cart_and_one_of_ours_outlives_its_cart() {
    let server = Server::open_idle().await;
    let made_up = "chosen-by-somebody-who-waits";
    let add = async |session: &str| {
        let item = server.door.request(Method::POST, "/api/cart/items").header("x-cart-session", session);
        Answer::to(item.header("idempotency-key", "one").json(&json!({ "variantId": "LAP-001", "quantity": 1 }))).await
    };
    let show = async |session: &str| {
        Answer::to(server.door.request(Method::GET, "/api/cart").header("x-cart-session", session)).await.ok()
    };
    let given = |answer: &Value| answer["cartSession"].as_str().map(str::to_owned);

    let victim = add(made_up).await.ok();
    let session = given(&victim).expect("a session of his own");
    assert_ne!(session, made_up);
    let waiting = show(made_up).await;
    assert_eq!(waiting["itemCount"], 0, "{waiting}");
    assert!(given(&waiting).is_some_and(|other| other != made_up && other != session));
    let replay = add(made_up).await;
    assert_eq!(replay.header("idempotent-replayed"), None, "an answer is kept for nobody who can be made up");

    let shown = show(&session).await;
    assert_eq!((&shown["cart"]["cartId"], given(&shown)), (&victim["cart"]["cartId"], None));
    sqlx::query("update carts set status = 'EXPIRED'").execute(&server.pool).await.expect("carts that are over");
    let next = add(&session).await.ok();
    assert_eq!((&next["itemCount"], given(&next)), (&json!(1), None), "the session goes on with a new cart");
    assert_ne!(next["cart"]["cartId"], victim["cart"]["cartId"]);
    server.stop().await;
}

async fn carts(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from carts").fetch_one(pool).await.expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_carts_writes_nothing_and_what_is_left_empty_goes() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    let mut guest = Shopper::guest(server.door.clone()).await;
    for _ in 0..20 {
        guest = Shopper::guest(server.door.clone()).await;
    }
    for shopper in [&guest, &asha] {
        let shown = shopper.cart().await;
        assert_eq!(
            (&shown["cart"]["version"], &shown["itemCount"], shown.get("cartSession")),
            (&json!(0), &json!(0), None)
        );
        assert_eq!(shopper.cart().await, shown, "an empty cart is the same however often it is shown");
        assert_eq!(shopper.delete("/api/cart").await.ok(), shown);
        assert_eq!(shopper.delete("/api/cart/coupons/SAVE20").await.ok(), shown);
        shopper.delete("/api/cart/items/LAP-001").await.refused(404, "item-not-in-cart");
    }
    let merge = asha.request(Method::POST, "/api/cart/merge").header("x-cart-session", guest.session());
    assert_eq!(Answer::to(merge).await.ok()["adjustments"], json!([]));
    assert_eq!(carts(&server.pool).await, 0, "nobody has put anything into a cart");

    let item = json!({ "variantId": "LAP-001", "quantity": 1 });
    let first = async |version: &str| {
        Answer::to(guest.request(Method::POST, "/api/cart/items").header("if-match", version).json(&item)).await
    };
    let empty = guest.cart().await;
    let mut told: Vec<u16> = Vec::new();
    for answer in futures::future::join_all([first("\"0\""), first("\"0\"")]).await {
        told.push(answer.status);
    }
    told.sort_unstable();
    assert_eq!(told, [200, 412], "of two first changes one is the first");
    let made = guest.cart().await;
    assert_eq!((&made["cart"]["cartId"], &made["itemCount"]), (&empty["cart"]["cartId"], &json!(1)));
    first("\"0\"").await.refused(412, "version-mismatch");
    guest.delete("/api/cart/items/LAP-001").await.ok();
    asha.add("LAP-001", 1).await;
    assert_eq!(carts(&server.pool).await, 2);

    let (mut conn, later) = (server.pool.acquire().await.expect("a connection"), Utc::now() + TimeDelta::days(31));
    assert_eq!(idle::expire_idle(&mut conn, 10, later, later).await.expect("expired"), 2);
    assert_eq!(carts(&server.pool).await, 1, "the empty one is gone");
    for (before, gone) in [(Utc::now() - TimeDelta::days(1), 0), (later, 1)] {
        assert_eq!(idle::delete_expired(&mut conn, 10, before).await.expect("deleted"), gone);
    }
    assert_ne!(guest.cart().await["cart"]["cartId"], asha.cart().await["cart"]["cartId"]);
    drop(conn);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_buys_hears_of_it_and_returns_under_the_session_of_the_cart() {
    let server = Server::open_with(Rules { allow_guest_checkout: true, ..Rules::default() }).await;
    let mut guest = Shopper::guest(server.door.clone()).await;
    let stranger = Shopper::guest(server.door.clone()).await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    guest.add("LAP-001", 1).await;
    guest.ask(&payment("tok_ok")).await.refused(422, "validation-failed");
    let mut request = payment("tok_ok");
    request["contact"] = json!({ "email": "Guest@Example.com", "phoneNumber": "+919876543210" });
    let checkout = Checkout::of(guest.ask(&request).await);
    assert_eq!(guest.end(&checkout).await["status"], "COMPLETED");
    guest.email = "guest@example.com".to_owned();
    guest.hears(&["order.confirmed"]).await;

    let path = format!("/api/orders/{}", checkout.order_number);
    assert_eq!(guest.get(&path).await.ok()["status"], "CONFIRMED");
    stranger.get(&path).await.refused(404, "order-not-found");
    asha.get(&path).await.refused(404, "order-not-found");
    server.door.get(&path).await.refused(401, "login-required");
    for status in ["PROCESSING", "SHIPPED", "DELIVERED"] {
        staff.post(&format!("{path}/status"), &json!({ "status": status })).await.ok();
    }
    let wish = json!({ "items": [{ "variantId": "LAP-001", "quantity": 1 }], "reason": "too heavy" });
    stranger.post(&format!("{path}/returns"), &wish).await.refused(404, "order-not-found");
    let asked = guest.post(&format!("{path}/returns"), &wish).await.ok();
    for decision in ["approve", "receive"] {
        let id = asked["returnId"].as_str().expect("an id");
        staff.post(&format!("/api/returns/{id}/{decision}"), &json!({})).await.ok();
    }
    server.quiet().await;
    let order = guest.get(&path).await.ok();
    assert_eq!((&order["status"], &order["payment"]["refundedAmount"]), (&json!("REFUNDED"), &json!("59000.00")));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cash_is_taken_up_to_the_limit_of_the_shop() {
    let limit = Some(rust_decimal::Decimal::from(2_000));
    let server = Server::open_with(Rules { cod_limit: limit, ..Rules::default() }).await;
    let asha = server.shopper("asha").await;
    let mut request = payment("unused");
    request["paymentMethod"] = json!("COD");
    request.as_object_mut().expect("an object").remove("paymentToken");
    // 999.00 and 18 % on it, and 50.00 for the delivery: 1228.82 for one, 2407.64 for two.
    asha.add("LTD-010", 2).await;
    asha.ask(&request).await.refused(409, "cod-limit-exceeded");
    assert_eq!(server.stock("LTD-010").await, (10, 0), "nothing is held");
    let line = asha.request(Method::PATCH, "/api/cart/items/LTD-010").json(&json!({ "quantity": 1 }));
    Answer::to(line).await.ok();
    let checkout = Checkout::of(asha.ask(&request).await);
    assert_eq!(asha.end(&checkout).await["status"], "COMPLETED");
    server.close().await;
}
