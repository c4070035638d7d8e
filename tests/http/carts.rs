//! Carts of guests and users, and what belongs to other people.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Server, Shopper, payment};
use workflows::store::carts;

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_keeps_the_cart_by_its_session_and_must_log_in_to_buy() {
    let server = Server::open_idle().await;
    let guest = Shopper::guest(server.door.clone()).await;
    guest.add("LAP-001", 2).await;
    let cart = guest.cart().await;
    assert_eq!((&cart["itemCount"], &cart["subtotal"]), (&json!(2), &json!("100000.00")));
    assert_eq!(cart.get("cartSession"), None, "the secret is told once");
    assert_eq!(Shopper::guest(server.door.clone()).await.cart().await["itemCount"], 0, "another guest, another cart");

    guest.ask(&payment("tok_ok")).await.refused(401, "login-required");
    server.door.post("/api/checkout", &payment("tok_ok")).await.refused(401, "login-required");
    assert_eq!(guest.cart().await["cart"]["status"], "ACTIVE");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_added_changed_and_removed_while_stock_lasts() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.add("LTD-010", 6).await;
    let five_more = json!({ "variantId": "LTD-010", "quantity": 5 });
    let problem = asha.post("/api/cart/items", &five_more).await.refused(409, "out-of-stock");
    assert_eq!((&problem["message"], &problem["available"]), (&json!("Out of stock"), &json!(10)), "{problem}");
    assert_eq!(asha.add("LTD-010", 4).await["itemCount"], 10);

    let change = |quantity: u32| {
        let asha = &asha;
        async move {
            let request = asha.request(Method::PATCH, "/api/cart/items/LTD-010").json(&json!({ "quantity": quantity }));
            Answer::to(request).await
        }
    };
    assert_eq!(change(3).await.ok()["subtotal"], "2997.00");
    change(11).await.refused(409, "out-of-stock");
    assert_eq!(change(0).await.ok()["items"], json!([]));
    change(1).await.refused(404, "item-not-in-cart");

    asha.add("LAP-001", 1).await;
    assert_eq!(asha.delete("/api/cart/items/LAP-001").await.ok()["itemCount"], 0);
    asha.delete("/api/cart/items/LAP-001").await.refused(404, "item-not-in-cart");
    asha.add("LAP-001", 1).await;
    asha.post("/api/cart/coupons", &json!({ "code": "SAVE20" })).await.ok();
    let cleared = asha.delete("/api/cart").await.ok();
    assert_eq!((&cleared["items"], &cleared["cart"]["appliedCoupons"]), (&json!([]), &json!([])));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_can_be_tried_without_being_used() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let try_code = |code: &'static str| {
        let asha = &asha;
        async move { asha.post("/api/coupons/validate", &json!({ "code": code })).await.ok() }
    };
    let verdict = try_code("SAVE20").await;
    assert_eq!((&verdict["valid"], &verdict["discount"]), (&json!(true), &json!("10000.00")));
    let verdict = try_code("NO-SUCH").await;
    assert_eq!((&verdict["valid"], &verdict["discount"]), (&json!(false), &json!("0.00")));
    assert!(verdict["reason"].is_string(), "{verdict}");
    assert_eq!(asha.cart().await["cart"]["appliedCoupons"], json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_things_do_not_exist() {
    let server = Server::open().await;
    let [asha, ben] = [server.shopper("asha").await, server.shopper("ben").await];
    let guest = Shopper::guest(server.door.clone()).await;
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_ok").await;
    assert_eq!(asha.end(&checkout).await["status"], "COMPLETED");
    let cart = asha.add("LAP-001", 1).await["cart"]["cartId"].clone();

    let order = format!("/api/orders/{}", checkout.order_id);
    for stranger in [&ben, &guest] {
        stranger.get(&order).await.refused(404, "order-not-found");
        stranger.get(&format!("/api/orders/{}", checkout.order_number)).await.refused(404, "order-not-found");
        stranger.get(&format!("{order}/history")).await.refused(404, "order-not-found");
        stranger.get(&checkout.path()).await.refused(404, "checkout-not-found");
        stranger.delete(&checkout.path()).await.refused(404, "checkout-not-found");
        let with_her_cart = json!({ "code": "SAVE20", "cartId": cart });
        stranger.post("/api/coupons/validate", &with_her_cart).await.refused(404, "cart-not-found");
    }
    for path in [&*order, &*checkout.path()] {
        server.door.get(path).await.refused(401, "login-required");
    }
    let mut request = payment("tok_ok");
    request["cartId"] = cart;
    ben.ask(&request).await.refused(404, "cart-not-found");
    assert_eq!(ben.get("/api/orders").await.ok()["items"], json!([]));
    assert_eq!(asha.cart().await["cart"]["status"], "ACTIVE");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_to_an_outdated_cart_is_refused() {
    let server = Server::open_idle().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let outdated = asha.get("/api/cart").await.header("etag").expect("a version").to_owned();
    asha.add("LAP-001", 1).await;
    let seen = asha.get("/api/cart").await;
    let current = seen.header("etag").expect("a version").to_owned();
    assert_eq!(current, format!("\"{}\"", seen.body["cart"]["version"]));

    let change = |method: Method, path: &'static str, body: Value, version: &str| {
        let request = asha.request(method, path).header("if-match", version);
        Answer::to(if body.is_null() { request } else { request.json(&body) })
    };
    let line = "/api/cart/items/LAP-001";
    let changes = [
        (Method::POST, "/api/cart/items", json!({ "variantId": "LAP-001", "quantity": 1 })),
        (Method::PATCH, line, json!({ "quantity": 5 })),
        (Method::POST, "/api/cart/coupons", json!({ "code": "SAVE20" })),
        (Method::DELETE, line, Value::Null),
        (Method::DELETE, "/api/cart", Value::Null),
    ];
    for (method, path, body) in changes {
        assert_eq!(change(method, path, body, &outdated).await.status, 412, "{path}");
    }
    assert_eq!(asha.cart().await["itemCount"], 2);
    let changed = change(Method::PATCH, line, json!({ "quantity": 5 }), &current).await;
    assert_ne!(changed.header("etag"), Some(&*current));
    assert_eq!(changed.ok()["itemCount"], 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_off_sale_is_so_everywhere() {
    let server = Server::open_idle().await;
    let (asha, late) = (server.shopper("asha").await, server.shopper("ben").await);
    let service = server.service(&["inventory"]).await;
    for (table, condition) in [("product_variants", "sku = 'LAP-001'"), ("products", "sku = 'LTD-010-P'")] {
        let sku = if table == "products" { "LTD-010" } else { "LAP-001" };
        let shown = asha.add(sku, 1).await;
        let (cart_id, variant) = (shown["cart"]["cartId"].clone(), shown["items"][0]["variantId"].clone());
        let switch = format!("update {table} set is_active = false where {condition}");
        sqlx::query(sqlx::AssertSqlSafe(switch)).execute(&server.pool).await.expect("off sale");

        let listed = server.door.get("/api/products").await.ok().to_string();
        assert!(!listed.contains(&format!("\"{sku}\"")), "{listed}");
        let detail = server.door.get(&format!("/api/products/{sku}")).await;
        assert_eq!(detail.status, 404, "{}", detail.body);
        server.door.get(&format!("/api/inventory/check?sku={sku}")).await.refused(404, "variant-not-found");
        let item = json!({ "variantId": sku, "quantity": 1 });
        let hold = json!({ "items": [item], "ttlSeconds": 60 });
        service.post("/api/inventory/reserve", &hold).await.refused(404, "variant-not-found");
        late.post("/api/cart/items", &item).await.refused(404, "variant-not-found");

        let cart = asha.cart().await;
        assert_eq!(cart["items"][0]["available"], 0, "{cart}");
        assert_eq!(cart["notices"][0]["type"], "QUANTITY_UNAVAILABLE", "{cart}");
        asha.ask(&payment("tok_ok")).await.refused(409, "out-of-stock");
        let cart_id: uuid::Uuid = cart_id.as_str().expect("an id").parse().expect("an id");
        let mut conn = server.pool.acquire().await.expect("a connection");
        let cart = carts::load(&mut conn, cart_id.into()).await.expect("loaded").expect("a cart");
        let told = carts::idle::summary(&cart, None).expect("a summary");
        assert!(told.lines.is_empty(), "a reminder does not offer it");
        drop(conn);
        let path = format!("/api/cart/items/{}", variant.as_str().expect("an id"));
        assert_eq!(asha.delete(&path).await.ok()["items"], json!([]));
    }
    server.stop().await;
}
