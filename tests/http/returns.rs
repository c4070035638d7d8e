//! Goods that come back, and the money with them.

use serde_json::{Value, json};

use crate::server::{Answer, Checkout, Server, Shopper, payment};

/// So many of a variant, paid and delivered by hand.
async fn delivered(server: &Server, shopper: &Shopper, lines: &[(&str, u32)], request: &Value) -> Checkout {
    for (sku, quantity) in lines {
        shopper.add(sku, *quantity).await;
    }
    let checkout = Checkout::of(shopper.ask(request).await);
    assert_eq!(shopper.end(&checkout).await["status"], "COMPLETED");
    let staff = server.staff().await;
    for status in ["PROCESSING", "SHIPPED", "DELIVERED"] {
        staff.post(&format!("/api/orders/{}/status", checkout.order_id), &json!({ "status": status })).await.ok();
    }
    checkout
}

async fn ask(who: &Shopper, checkout: &Checkout, sku: &str, quantity: u32) -> Answer {
    let body = json!({ "items": [{ "variantId": sku, "quantity": quantity }], "reason": "does not fit" });
    who.post(&format!("/api/orders/{}/returns", checkout.order_id), &body).await
}

async fn decide(staff: &Shopper, asked: &Value, decision: &str) -> Answer {
    let id = asked["returnId"].as_str().expect("an id");
    staff.post(&format!("/api/returns/{id}/{decision}"), &json!({ "reason": "as you asked" })).await
}

/// Everything but what waits for somebody has come to rest.
async fn settled(server: &Server, checkout: &Checkout, status: &str) -> Value {
    let staff = server.staff().await;
    server.quiet().await;
    let returns = staff.get(&format!("/api/orders/{}/returns", checkout.order_id)).await.ok();
    let last = returns["items"].as_array().and_then(|items| items.last()).expect("a return").clone();
    assert_eq!(last["status"], status, "{last}");
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_returned_in_parts_gives_back_exactly_its_price_and_its_stock() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    // A discount that does not divide by three: 3 × 999.00 − 20 % + 18 % = 2829.17 (to the paisa).
    let mut request = payment("tok_ok");
    request["couponCodes"] = json!(["SAVE20"]);
    let checkout = delivered(&server, &asha, &[("LTD-010", 3)], &request).await;
    let order = asha.order(&checkout).await;
    assert_eq!(order["items"][0]["totalPrice"], "2829.17", "{order}");
    assert_eq!(server.stock("LTD-010").await, (7, 0));

    let mut back = Vec::new();
    for (pieces, stock) in [(1, 8), (2, 10)] {
        let asked = ask(&asha, &checkout, "LTD-010", pieces).await;
        assert_eq!(asked.status, 201);
        let asked = asked.ok();
        assert_eq!(decide(&staff, &asked, "approve").await.ok()["status"], "APPROVED");
        assert_eq!(decide(&staff, &asked, "approve").await.ok()["status"], "APPROVED", "twice is harmless");
        assert_eq!(decide(&staff, &asked, "receive").await.ok()["status"], "RECEIVED");
        decide(&staff, &asked, "reject").await.refused(409, "invalid-transition");
        let done = settled(&server, &checkout, "REFUNDED").await;
        back.push(done["refundAmount"].as_str().expect("an amount").to_owned());
        assert_eq!(server.stock("LTD-010").await, (stock, 0));
    }
    assert_eq!(back, ["943.06", "1886.11"], "the paisa that does not divide goes with the first pieces");
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("REFUNDED"), &json!("PARTIALLY_REFUNDED")));
    assert_eq!(order["payment"]["refundedAmount"], "2829.17", "the shipping charge is not part of it");
    assert_eq!(asha.history(&checkout).await.last().map(String::as_str), Some("DELIVERED → REFUNDED"));
    assert_eq!(server.coupon("SAVE20").await, (1, 0), "a return does not give the coupon back");
    assert_eq!(server.charges(&checkout.order_id).await[0].2, "2829.17");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_delivered_can_be_returned_and_only_once() {
    let server = Server::open().await;
    let (asha, ben, staff) = (server.shopper("asha").await, server.shopper("ben").await, server.staff().await);
    asha.add("LAP-001", 2).await;
    let early = asha.checkout("tok_ok").await;
    asha.end(&early).await;
    let problem = ask(&asha, &early, "LAP-001", 1).await.refused(409, "order-not-returnable");
    assert_eq!(problem["orderStatus"], "CONFIRMED");
    let checkout = delivered(&server, &ben, &[("LAP-001", 2)], &payment("tok_ok")).await;
    ask(&asha, &checkout, "LAP-001", 1).await.refused(404, "order-not-found");
    ask(&ben, &checkout, "LTD-010", 1).await.refused(422, "order-item-not-found");
    ask(&ben, &checkout, "LAP-001", 0).await.refused(422, "quantity-invalid");
    let problem = ask(&ben, &checkout, "LAP-001", 3).await.refused(409, "return-exceeds-delivered");
    assert_eq!(problem["available"], 2);

    let first = ask(&ben, &checkout, "LAP-001", 2).await.ok();
    ask(&ben, &checkout, "LAP-001", 1).await.refused(409, "return-exceeds-delivered");
    decide(&ben, &first, "approve").await.refused(403, "forbidden");
    decide(&staff, &first, "receive").await.refused(409, "invalid-transition");
    let rejected = decide(&staff, &first, "reject").await.ok();
    assert_eq!((&rejected["status"], &rejected["note"]), (&json!("REJECTED"), &json!("as you asked")));
    decide(&staff, &first, "approve").await.refused(409, "invalid-transition");
    settled(&server, &checkout, "REJECTED").await;
    ben.hears(&["order.confirmed", "order.delivered", "order.processing", "order.shipped", "return.rejected"]).await;

    let second = ask(&ben, &checkout, "LAP-001", 2).await.ok();
    decide(&staff, &second, "approve").await.ok();
    decide(&staff, &second, "reject").await.ok();
    settled(&server, &checkout, "REJECTED").await;
    assert_eq!(server.stock("LAP-001").await, (96, 0));
    assert_eq!(ben.order(&checkout).await["payment"]["refundedAmount"], "0.00");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cash_goes_back_by_hand() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let mut request = payment("unused");
    request["paymentMethod"] = json!("COD");
    request.as_object_mut().expect("an object").remove("paymentToken");
    let checkout = delivered(&server, &asha, &[("LTD-010", 1)], &request).await;
    let asked = ask(&staff, &checkout, "LTD-010", 1).await.ok();
    decide(&staff, &asked, "approve").await.ok();
    decide(&staff, &asked, "receive").await.ok();
    settled(&server, &checkout, "REFUNDED").await;
    let by_hand: Vec<bool> =
        sqlx::query_scalar("select by_hand from refunds").fetch_all(&server.pool).await.expect("rows");
    assert_eq!(by_hand, [true]);
    assert_eq!(asha.order(&checkout).await["status"], "REFUNDED");
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_says_what_really_goes_back_after_a_goodwill_refund() {
    let server = Server::open().await;
    let (asha, staff) = (server.shopper("asha").await, server.staff().await);
    let checkout = delivered(&server, &asha, &[("LAP-001", 1)], &payment("tok_ok")).await;
    let goodwill = json!({ "orderId": checkout.order_id, "amount": "58000.00", "reason": "scratched" });
    assert_eq!(staff.post("/api/payments/refund", &goodwill).await.status, 202);
    server.quiet().await;
    let asked = ask(&asha, &checkout, "LAP-001", 1).await.ok();
    decide(&staff, &asked, "approve").await.ok();
    decide(&staff, &asked, "receive").await.ok();
    let done = settled(&server, &checkout, "REFUNDED").await;
    assert_eq!(done["refundAmount"], "1050.00", "what was left of 59050.00");
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["payment"]["refundedAmount"]), (&json!("REFUNDED"), &json!("59050.00")));
    server.close().await;
}
