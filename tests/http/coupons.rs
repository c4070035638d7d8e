//! Coupons and prices, from the staff's hand to the order that was paid.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use workflows::Rules;

use crate::server::{Checkout, Server, Shopper, payment};

async fn issue(staff: &Shopper, coupon: Value) -> Value {
    let answer = staff.post("/api/coupons", &coupon).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.ok()
}

/// A product of one variant; answers it.
async fn offer(staff: &Shopper, product: Value) -> Value {
    let answer = staff.post("/api/products", &product).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.ok()
}

fn with_codes(codes: &[&str]) -> Value {
    let mut request = payment("tok_ok");
    request["couponCodes"] = json!(codes);
    request
}

async fn buy(shopper: &Shopper, request: &Value) -> (Checkout, Value) {
    let checkout = Checkout::of(shopper.ask(request).await);
    let view = shopper.end(&checkout).await;
    assert_eq!(view["status"], "COMPLETED", "{view}");
    let order = shopper.order(&checkout).await;
    (checkout, order)
}

/// Why a code is refused at checkout.
async fn refusal(shopper: &Shopper, code: &str) -> String {
    let problem = shopper.ask(&with_codes(&[code])).await.refused(409, "coupon-invalid");
    problem["reason"].as_str().expect("a reason").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_coupon_is_taken_off_through_to_the_order() {
    let server = Server::open().await;
    let staff = server.staff().await;
    issue(&staff, json!({ "code": "ten", "kind": "PERCENT", "value": "10", "maxDiscount": "3000.00" })).await;
    issue(&staff, json!({ "code": "LESS500", "kind": "FIXED", "value": "500.00" })).await;
    issue(&staff, json!({ "code": "SHIPFREE", "kind": "FREE_SHIPPING" })).await;
    issue(&staff, json!({ "code": "B2G1", "kind": "BUY_X_GET_Y", "buyQuantity": 2, "getQuantity": 1 })).await;
    let crowd = server.crowd(4).await;
    for (shopper, (code, sku, quantity, discount, total)) in crowd.iter().zip([
        // (50000 − 3000) × 1.18 + 50: ten per cent would be 5000, the cap says 3000.
        ("Ten", "LAP-001", 1, "3000.00", "55510.00"),
        ("LESS500", "LAP-001", 1, "500.00", "58460.00"),
        ("SHIPFREE", "LAP-001", 1, "0.00", "59000.00"),
        ("B2G1", "LTD-010", 3, "999.00", "2407.64"),
    ]) {
        shopper.add(sku, quantity).await;
        let mut request = with_codes(&[code]);
        request["expectedTotal"] = json!(total);
        let (_, order) = buy(shopper, &request).await;
        assert_eq!(order["totalAmount"], total, "{code}: {order}");
        assert_eq!(order["priceBreakdown"]["discount"], discount, "{code}: {order}");
        let coupon = staff.get(&format!("/api/coupons/{code}")).await.ok();
        assert_eq!((&coupon["usedCount"], &coupon["heldCount"]), (&json!(1), &json!(0)), "{coupon}");
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_touches_only_what_is_in_its_scope_and_tax_follows_each_line() {
    let server = Server::open().await;
    let staff = server.staff().await;
    let books = staff.post("/api/categories", &json!({ "name": "Books" })).await.ok();
    let product = |sku: &str, tax: &str, category: &Value| {
        json!({ "sku": format!("{sku}-P"), "productName": sku, "basePrice": "100.00", "categoryId": category,
                "variants": [{ "sku": sku, "variantName": "one", "price": "100.00", "taxRate": tax, "stock": 50 }] })
    };
    offer(&staff, product("NOVEL", "5", &books["categoryId"])).await;
    offer(&staff, product("CIGAR", "40", &Value::Null)).await;
    offer(&staff, product("BREAD", "0", &Value::Null)).await;
    issue(
        &staff,
        json!({ "code": "READ", "kind": "PERCENT", "value": "50", "scope": { "categories": [books["categoryId"]] } }),
    )
    .await;
    issue(&staff, json!({ "code": "SMOKE", "kind": "FIXED", "value": "30", "scope": { "products": ["CIGAR-P"] }, "stackable": true })).await;

    let (asha, ben) = (server.shopper("asha").await, server.shopper("ben").await);
    for sku in ["NOVEL", "CIGAR", "BREAD"] {
        asha.add(sku, 1).await;
    }
    let mut request = with_codes(&["READ", "SMOKE"]);
    request["shippingMethod"] = json!("EXPRESS");
    let (checkout, order) = buy(&asha, &request).await;
    let mut lines: Vec<(&str, &str, &str, &str)> = Vec::new();
    for item in order["items"].as_array().expect("items") {
        let text = |name: &str| item[name].as_str().expect("text");
        lines.push((text("sku"), text("discountAmount"), text("taxAmount"), text("totalPrice")));
    }
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            ("BREAD", "0.00", "0.00", "100.00"),
            ("CIGAR", "30.00", "28.00", "98.00"),
            ("NOVEL", "50.00", "2.50", "52.50")
        ]
    );
    assert_eq!((&order["priceBreakdown"]["shipping"], &order["totalAmount"]), (&json!("150.00"), &json!("400.50")));

    // The same cart to another state costs the same; only the parts of the tax differ.
    ben.add("NOVEL", 1).await;
    let mut elsewhere = payment("tok_ok");
    elsewhere["shippingAddress"]["state"] = json!("Karnataka");
    let (far, order) = buy(&ben, &elsewhere).await;
    assert_eq!(order["totalAmount"], "155.00");
    for (checkout, sku, parts) in [
        (&checkout, "CIGAR", ("14.00", "14.00", "0.00")),
        (&checkout, "NOVEL", ("1.25", "1.25", "0.00")),
        (&far, "NOVEL", ("0.00", "0.00", "5.00")),
    ] {
        let shown: (String, String, String) = sqlx::query_as(
            "select cgst_amount::numeric(14, 2)::text, sgst_amount::numeric(14, 2)::text, igst_amount::numeric(14, 2)::text
               from order_items where order_id = $1::uuid and sku = $2",
        )
        .bind(&checkout.order_id)
        .bind(sku)
        .fetch_one(&server.pool)
        .await
        .expect("a line");
        assert_eq!((&*shown.0, &*shown.1, &*shown.2), parts, "{sku}");
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_code_wins_a_tie_goes_to_the_older_and_some_join() {
    let server = Server::open().await;
    let staff = server.staff().await;
    for (code, value) in [("FIVE", "5"), ("TEN", "10"), ("ALSO-TEN", "10")] {
        issue(&staff, json!({ "code": code, "kind": "PERCENT", "value": value })).await;
    }
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let apply = async |code: &str| asha.post("/api/cart/coupons", &json!({ "code": code })).await;
    assert_eq!(apply("FIVE").await.ok()["priceBreakdown"]["discount"], "2500.00");
    let cart = apply("TEN").await.ok();
    assert_eq!(
        (&cart["priceBreakdown"]["discount"], &cart["cart"]["appliedCoupons"]),
        (&json!("5000.00"), &json!(["TEN"]))
    );
    for loser in ["FIVE", "ALSO-TEN"] {
        let problem = apply(loser).await.refused(409, "coupon-invalid");
        assert_eq!(problem["reason"], "not-combinable", "{loser}");
    }

    issue(&staff, json!({ "code": "PLUS", "kind": "FIXED", "value": "1000.00", "stackable": true })).await;
    issue(&staff, json!({ "code": "BY-ITSELF", "kind": "FREE_SHIPPING", "autoApply": true })).await;
    let cart = apply("PLUS").await.ok();
    let used: Vec<&str> =
        cart["coupons"].as_array().expect("coupons").iter().filter_map(|c| c["code"].as_str()).collect();
    assert_eq!(used, ["TEN", "PLUS", "BY-ITSELF"]);
    // (50000 − 5000 − 1000) × 1.18, delivered for nothing.
    assert_eq!(cart["priceBreakdown"]["total"], "51920.00");
    let (_, order) = buy(&asha, &payment("tok_ok")).await;
    assert_eq!(order["totalAmount"], "51920.00");
    for code in used {
        assert_eq!(server.coupon(code).await, (1, 0), "{code}");
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_count_what_is_held_and_give_back_what_is_not_used() {
    let server = Server::open().await;
    let staff = server.staff().await;
    issue(&staff, json!({ "code": "ONCE", "kind": "PERCENT", "value": "10", "perUserLimit": 1 })).await;
    issue(&staff, json!({ "code": "LAST", "kind": "PERCENT", "value": "10", "usageLimit": 1 })).await;
    let (asha, ben) = (server.shopper("asha").await, server.shopper("ben").await);
    asha.add("LAP-001", 1).await;
    buy(&asha, &with_codes(&["ONCE"])).await;
    asha.add("LAP-001", 1).await;
    assert_eq!(refusal(&asha, "ONCE").await, "per-user-limit-reached");

    let mut waiting = with_codes(&["LAST"]);
    waiting["paymentToken"] = json!("tok_3ds");
    let held = Checkout::of(asha.ask(&waiting).await);
    asha.payment_page(&held).await;
    assert_eq!(server.coupon("LAST").await, (0, 1));
    ben.add("LAP-001", 1).await;
    assert_eq!(refusal(&ben, "last").await, "usage-limit-reached");
    let problem =
        staff.patch("/api/coupons/LAST", &json!({ "usageLimit": 0 })).await.refused(409, "usage-limit-too-low");
    assert_eq!(problem["inUse"], 1);

    assert_eq!(asha.delete(&held.path()).await.status, 202);
    assert_eq!(asha.end(&held).await["status"], "CANCELLED");
    assert_eq!(server.coupon("LAST").await, (0, 0));
    buy(&ben, &with_codes(&["LAST"])).await;
    assert_eq!(server.coupon("LAST").await, (1, 0));
    assert_eq!(refusal(&asha, "LAST").await, "usage-limit-reached");
    staff.patch("/api/coupons/LAST", &json!({ "usageLimit": 2 })).await.ok();
    buy(&asha, &with_codes(&["LAST"])).await;
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_has_its_time_its_minimum_and_its_switch_and_trying_it_changes_nothing() {
    let server = Server::open_idle().await;
    let (staff, asha) = (server.staff().await, server.shopper("asha").await);
    let in_hours = |hours: i64| (Utc::now() + TimeDelta::hours(hours)).to_rfc3339();
    issue(
        &staff,
        json!({ "code": "SOON", "kind": "FIXED", "value": "10.00", "startsAt": in_hours(1), "endsAt": in_hours(3) }),
    )
    .await;
    issue(&staff, json!({ "code": "BIG", "kind": "FIXED", "value": "10.00", "minOrderValue": "50000.01" })).await;
    let cart = asha.add("LAP-001", 1).await;
    let verdict = async |code: &str| {
        let verdict = asha.post("/api/coupons/validate", &json!({ "code": code })).await.ok();
        (verdict["valid"].as_bool().expect("a verdict"), verdict["reason"].as_str().map(str::to_owned))
    };
    let not = |reason: &str| (false, Some(reason.to_owned()));
    assert_eq!(verdict("SOON").await, not("not-started"));
    server.advance(2 * 3600).await;
    assert_eq!(verdict("SOON").await, (true, None));
    server.advance(2 * 3600).await;
    assert_eq!(verdict("SOON").await, not("expired"));
    assert_eq!(verdict("BIG").await, not("minimum-not-met"));
    assert_eq!(verdict("NO-SUCH").await, not("unknown-code"));
    assert_eq!(refusal(&asha, "BIG").await, "minimum-not-met");
    staff.patch("/api/coupons/BIG", &json!({ "minOrderValue": null })).await.ok();
    assert_eq!(verdict("BIG").await, (true, None));
    staff.patch("/api/coupons/BIG", &json!({ "isActive": false })).await.ok();
    assert_eq!(verdict("BIG").await, not("inactive"));

    let after = asha.cart().await;
    assert_eq!(after["cart"]["version"], cart["cart"]["version"], "nothing was written");
    assert_eq!((server.coupon("SOON").await, server.coupon("BIG").await), ((0, 0), (0, 0)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_costs_nothing_is_confirmed_without_a_gateway() {
    let server = Server::open().await;
    let (staff, asha) = (server.staff().await, server.shopper("asha").await);
    issue(&staff, json!({ "code": "GIFT", "kind": "PERCENT", "value": "100" })).await;
    issue(&staff, json!({ "code": "DELIVERED", "kind": "FREE_SHIPPING", "stackable": true })).await;
    asha.add("LAP-001", 1).await;
    let (checkout, order) = buy(&asha, &with_codes(&["GIFT", "DELIVERED"])).await;
    assert_eq!((&order["totalAmount"], &order["status"]), (&json!("0.00"), &json!("CONFIRMED")));
    assert_eq!(server.charges(&checkout.order_id).await, []);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_price_is_noticed_in_the_cart_refused_when_higher_and_taken_when_lower() {
    let server = Server::open().await;
    let (staff, asha) = (server.staff().await, server.shopper("asha").await);
    asha.add("LAP-001", 1).await;
    let mut request = payment("tok_ok");
    request["expectedTotal"] = json!("59050.00");
    staff.patch("/api/variants/LAP-001", &json!({ "price": "51000.00" })).await.ok();
    let problem = asha.ask(&request).await.refused(409, "price-changed");
    assert_eq!(problem["lines"][0]["sku"], "LAP-001", "{problem}");
    assert_eq!(problem["priceBreakdown"]["total"], "60230.00");
    assert_eq!(server.stock("LAP-001").await, (100, 0));

    staff.patch("/api/variants/LAP-001", &json!({ "price": "49000.00" })).await.ok();
    let cart = asha.cart().await;
    assert_eq!(cart["priceBreakdown"]["total"], "57870.00");
    assert_eq!(cart["notices"].as_array().map(Vec::len), Some(1), "{cart}");
    let (_, order) = buy(&asha, &request).await;
    assert_eq!(order["totalAmount"], "57870.00");

    staff.patch("/api/variants/LAP-001", &json!({ "price": "1.00" })).await.ok();
    let orders = asha.get("/api/orders").await.ok();
    assert_eq!(orders["items"][0]["items"][0]["unitPrice"], "49000.00", "an order keeps its prices");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_that_makes_no_sense_is_refused_where_it_is_wrong() {
    let server = Server::open_idle().await;
    let staff = server.staff().await;
    for (coupon, pointer) in [
        (json!({ "code": "A B", "kind": "FIXED", "value": "1" }), "/code"),
        (json!({ "code": "A", "kind": "FIXED", "value": "0" }), "/value"),
        (json!({ "code": "A", "kind": "FIXED", "value": "1.001" }), "/value"),
        (json!({ "code": "A", "kind": "PERCENT", "value": "100.01" }), "/value"),
        (json!({ "code": "A", "kind": "PERCENT", "value": "-1" }), "/value"),
        (json!({ "code": "A", "kind": "FREE_SHIPPING", "value": "5" }), "/value"),
        (json!({ "code": "A", "kind": "BUY_X_GET_Y", "buyQuantity": 2 }), "/getQuantity"),
        (json!({ "code": "A", "kind": "PERCENT", "value": "5", "buyQuantity": 2 }), "/buyQuantity"),
        (json!({ "code": "A", "kind": "PERCENT", "value": "5", "usageLimit": -1 }), "/usageLimit"),
        (json!({ "code": "A", "kind": "PERCENT", "value": "5", "maxDiscount": "0.001" }), "/maxDiscount"),
        (
            json!({ "code": "A", "kind": "PERCENT", "value": "5", "startsAt": "2026-02-01T00:00:00Z", "endsAt": "2026-01-01T00:00:00Z" }),
            "/endsAt",
        ),
        (json!({ "code": "A", "kind": "PERCENT", "value": "5", "scope": { "products": [] } }), "/scope/products"),
        (json!({ "code": "A", "kind": "PERCENT", "value": "5", "colour": "red" }), "/colour"),
    ] {
        let problem = staff.post("/api/coupons", &coupon).await.refused(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{coupon}: {problem}");
    }
    let scoped =
        json!({ "code": "A", "kind": "PERCENT", "value": "5", "scope": { "products": ["LAP-001-P", "NO-SUCH"] } });
    let problem = staff.post("/api/coupons", &scoped).await.refused(422, "product-not-found");
    assert_eq!(problem["errors"][0]["pointer"], "/scope/products/1");
    staff
        .post("/api/coupons", &json!({ "code": "save20", "kind": "PERCENT", "value": "5" }))
        .await
        .refused(409, "coupon-code-taken");
    staff.get("/api/coupons/NO-SUCH").await.refused(404, "coupon-not-found");
    staff.patch("/api/coupons/SAVE20", &json!({ "kind": "FIXED" })).await.refused(422, "validation-failed");
    let asha = server.shopper("asha").await;
    asha.get("/api/coupons").await.refused(403, "forbidden");
    asha.post("/api/coupons", &json!({ "code": "MINE", "kind": "PERCENT", "value": "99" }))
        .await
        .refused(403, "forbidden");
    server.door.get("/api/coupons/SAVE20").await.refused(401, "login-required");
    let list = staff.get("/api/coupons?limit=1").await.ok();
    assert_eq!((&list["items"][0]["code"], &list["items"][0]["value"]), (&json!("SAVE20"), &json!("20")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_per_customer_is_not_got_round_by_a_new_account_or_none() {
    let server = Server::open_with(Rules { allow_guest_checkout: true, ..Rules::default() }).await;
    let staff = server.staff().await;
    issue(&staff, json!({ "code": "ONCE", "kind": "PERCENT", "value": "10", "perUserLimit": 1 })).await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    buy(&asha, &with_codes(&["ONCE"])).await;
    assert_eq!(asha.delete("/api/me").await.status, 204);

    let again = server.shopper("asha").await;
    again.add("LAP-001", 1).await;
    let verdict = again.post("/api/coupons/validate", &json!({ "code": "once" })).await.ok();
    assert_eq!((&verdict["valid"], &verdict["reason"]), (&json!(false), &json!("per-user-limit-reached")));
    assert_eq!(refusal(&again, "ONCE").await, "per-user-limit-reached");

    let by = |email: &str| {
        let mut request = with_codes(&["ONCE"]);
        request["contact"] = json!({ "email": email, "phoneNumber": "+919876543210" });
        request
    };
    for (email, is_new) in [("Asha+2@Example.com", false), ("guest@example.com", true), ("GUEST@example.com", false)] {
        let guest = Shopper::guest(server.door.clone()).await;
        guest.add("LAP-001", 1).await;
        let answer = guest.ask(&by(email)).await;
        if is_new {
            assert_eq!(guest.end(&Checkout::of(answer)).await["status"], "COMPLETED", "{email}");
        } else {
            assert_eq!(answer.refused(409, "coupon-invalid")["reason"], "per-user-limit-reached", "{email}");
        }
    }
    server.close().await;
}
