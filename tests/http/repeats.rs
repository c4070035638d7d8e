//! Requests that come again: the same key, another tab, a change of mind.

use reqwest::Method;
use serde_json::json;

use crate::server::{Answer, Checkout, Server, payment};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_and_body_get_the_same_answer() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    let item = json!({ "variantId": "LAP-001", "quantity": 1 });
    let first = asha.post_under("add-1", "/api/cart/items", &item).await;
    assert_eq!(first.header("idempotent-replayed"), None);
    let again = asha.post_under("add-1", "/api/cart/items", &item).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!((first.header("etag"), first.status), (again.header("etag"), again.status));
    assert_eq!(first.ok(), again.ok());
    assert_eq!(asha.cart().await["itemCount"], 1, "added once");

    let first = asha.post_under("buy-1", "/api/checkout", &payment("tok_ok")).await;
    let again = asha.post_under("buy-1", "/api/checkout", &payment("tok_ok")).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.header("location"), again.header("location"));
    assert_eq!(first.body, again.body);
    assert_eq!(asha.end(&Checkout::of(first)).await["status"], "COMPLETED");

    let other = asha.post_under("buy-1", "/api/checkout", &payment("tok_declined")).await;
    other.refused(422, "idempotency-key-reused");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_its_caller_and_a_checkout_needs_one() {
    let server = Server::open_idle().await;
    let [asha, ben] = [server.shopper("asha").await, server.shopper("ben").await];
    asha.add("LAP-001", 1).await;
    ben.add("LAP-001", 1).await;
    let hers = Checkout::of(asha.post_under("mine", "/api/checkout", &payment("tok_ok")).await);
    let his = Checkout::of(ben.post_under("mine", "/api/checkout", &payment("tok_ok")).await);
    assert_ne!(hers.workflow_id, his.workflow_id);

    let without = asha.request(Method::POST, "/api/checkout").json(&payment("tok_ok"));
    Answer::to(without).await.refused(400, "idempotency-key-required");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_not_kept_for_the_next_try_under_its_key() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.post_under("buy", "/api/checkout", &payment("tok_ok")).await.refused(409, "cart-empty");
    asha.add("LAP-001", 1).await;
    Checkout::of(asha.post_under("buy", "/api/checkout", &payment("tok_ok")).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_in_checkout_is_frozen_until_the_shopper_gives_up() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_3ds").await;
    asha.payment_page(&checkout).await;

    let frozen = asha.cart().await;
    assert_eq!((&frozen["cart"]["status"], &frozen["itemCount"]), (&json!("CHECKOUT"), &json!(1)));
    let line = "/api/cart/items/LAP-001";
    let writes = [
        asha.request(Method::POST, "/api/cart/items").json(&json!({ "variantId": "LAP-001", "quantity": 1 })),
        asha.request(Method::PATCH, line).json(&json!({ "quantity": 2 })),
        asha.request(Method::DELETE, line),
        asha.request(Method::DELETE, "/api/cart"),
        asha.request(Method::POST, "/api/cart/coupons").json(&json!({ "code": "SAVE20" })),
        asha.request(Method::DELETE, "/api/cart/coupons/SAVE20"),
    ];
    for write in writes {
        let problem = Answer::to(write).await.refused(409, "cart-in-checkout");
        assert_eq!(problem["workflowId"], checkout.workflow_id.as_str());
    }
    let another_tab = asha.ask(&payment("tok_3ds")).await;
    assert_eq!(Checkout::of(another_tab), checkout, "an equal request is the same checkout");
    let different = asha.ask(&payment("tok_ok")).await.refused(409, "cart-in-checkout");
    assert_eq!(different["workflowId"], checkout.workflow_id.as_str());

    assert_eq!(asha.delete(&checkout.path()).await.status, 202);
    let view = asha.end(&checkout).await;
    assert_eq!((&view["status"], &view["failure"]["code"]), (&json!("CANCELLED"), &json!("cancelled")), "{view}");
    assert_eq!(asha.delete(&checkout.path()).await.status, 202, "giving up twice is harmless");
    assert_eq!(asha.cart().await["cart"]["status"], "ACTIVE");
    assert_eq!(server.stock("LAP-001").await, (100, 0));

    asha.add("LAP-001", 1).await;
    let second = asha.checkout("tok_ok").await;
    assert_eq!(asha.end(&second).await["status"], "COMPLETED");
    assert_eq!(asha.order(&second).await["items"][0]["quantity"], 2);
    let problem = asha.delete(&second.path()).await.refused(409, "checkout-not-cancellable");
    assert_eq!(problem["orderId"], second.order_id.as_str());
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_names_a_bought_cart_gets_its_checkout() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    let cart = asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_ok").await;
    assert_eq!(asha.end(&checkout).await["status"], "COMPLETED");

    let mut request = payment("tok_ok");
    request["cartId"] = cart["cart"]["cartId"].clone();
    assert_eq!(Checkout::of(asha.ask(&request).await), checkout);
    assert_eq!(Checkout::of(asha.ask(&payment("tok_ok")).await), checkout, "a double click that comes late");
    let cart = asha.cart().await;
    assert_eq!((&cart["itemCount"], &cart["cart"]["status"]), (&json!(0), &json!("ACTIVE")), "a new, empty cart");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_above_the_expected_one_is_refused_with_the_new_prices() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let expecting = |total: &str| {
        let mut request = payment("tok_ok");
        request["expectedTotal"] = json!(total);
        request
    };
    let problem = asha.ask(&expecting("59049.99")).await.refused(409, "price-changed");
    assert_eq!(problem["priceBreakdown"]["total"], "59050.00");

    sqlx::query("update product_variants set price = 51000 where sku = 'LAP-001'")
        .execute(&server.pool)
        .await
        .expect("a new price");
    let problem = asha.ask(&expecting("59050.00")).await.refused(409, "price-changed");
    assert_eq!(
        (&problem["priceBreakdown"]["total"], &problem["lines"][0]["sku"]),
        (&json!("60230.00"), &json!("LAP-001")),
        "{problem}"
    );
    assert_eq!(server.stock("LAP-001").await, (100, 0), "nothing is reserved");
    let cart = asha.cart().await;
    assert_eq!(cart["cart"]["status"], "ACTIVE");
    assert_eq!(cart["notices"].as_array().map(Vec::len), Some(1), "the shopper is told: {cart}");

    let checkout = Checkout::of(asha.ask(&expecting("60230.01")).await);
    assert_eq!(asha.end(&checkout).await["status"], "COMPLETED");
    assert_eq!(asha.order(&checkout).await["totalAmount"], "60230.00", "less than expected is no reason to stop");
    server.close().await;
}
