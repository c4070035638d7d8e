//! One shopper, one checkout: paid, refused, approved, abandoned.

use serde_json::json;

use crate::server::{Checkout, Server, WINDOW_S, payment};

#[tokio::test(flavor = "multi_thread")]
async fn one_laptop_costs_59050_rupees_to_the_paisa() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    let cart = asha.add("LAP-001", 1).await;
    assert_eq!(cart["priceBreakdown"]["total"], "59050.00");

    let checkout = asha.checkout("tok_ok").await;
    let view = asha.wait(&checkout).await;
    assert_eq!(view["status"], "COMPLETED", "{view}");
    assert!(view["estimatedDelivery"].is_string() && view["trackingURL"].is_string(), "{view}");

    asha.hears(&["order.confirmed"]).await;

    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("CONFIRMED"), &json!("CAPTURED")));
    assert_eq!((&order["totalAmount"], &order["currency"]), (&json!("59050.00"), &json!("INR")));
    let breakdown = &order["priceBreakdown"];
    assert_eq!([&breakdown["subtotal"], &breakdown["discount"]], ["50000.00", "0.00"]);
    assert_eq!([&breakdown["tax"], &breakdown["shipping"]], ["9000.00", "50.00"]);
    assert_eq!(order["items"][0]["totalPrice"], "59000.00");
    assert_eq!(order["orderNumber"], checkout.order_number.as_str());
    let by_number = asha.get(&format!("/api/orders/{}", checkout.order_number)).await;
    assert!(by_number.header("etag").is_some());
    assert_eq!(by_number.ok(), order);

    assert_eq!(asha.history(&checkout).await, ["PENDING", "PENDING → CONFIRMED"]);
    assert_eq!(server.stock("LAP-001").await, (99, 0));
    assert_eq!(server.charges(&checkout.order_id).await, [charge("CAPTURED", "59050.00", "0.00")]);
    server.quiet().await;
    assert_eq!(asha.mailbox().await, ["order.confirmed"], "exactly one e-mail");
    server.close().await;
}

fn charge(status: &str, captured: &str, refunded: &str) -> (String, String, String) {
    (status.to_owned(), captured.to_owned(), refunded.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn save20_makes_it_47250_rupees() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let cart = asha.post("/api/cart/coupons", &json!({ "code": "save20" })).await.ok();
    assert_eq!(cart["cart"]["appliedCoupons"], json!(["SAVE20"]));
    assert_eq!(cart["priceBreakdown"]["total"], "47250.00");

    let checkout = asha.checkout("tok_ok").await;
    assert_eq!(asha.wait(&checkout).await["status"], "COMPLETED");
    let order = asha.order(&checkout).await;
    assert_eq!(order["totalAmount"], "47250.00");
    assert_eq!([&order["priceBreakdown"]["discount"], &order["priceBreakdown"]["tax"]], ["10000.00", "7200.00"]);
    assert_eq!(server.coupon("SAVE20").await, (1, 0));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_payment_leaves_stock_coupon_and_cart_as_they_were() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let with_coupon = |token| {
        let mut request = payment(token);
        request["couponCodes"] = json!(["SAVE20"]);
        request
    };

    let declined = Checkout::of(asha.ask(&with_coupon("tok_declined")).await);
    let view = asha.wait(&declined).await;
    assert_eq!((&view["status"], &view["failure"]["code"]), (&json!("FAILED"), &json!("payment-declined")), "{view}");
    assert_eq!(server.stock("LAP-001").await, (100, 0));
    assert_eq!(server.coupon("SAVE20").await, (0, 0));
    assert_eq!(asha.order(&declined).await["status"], "CANCELLED");
    assert_eq!(asha.history(&declined).await, ["PENDING", "PENDING → CANCELLED"]);
    asha.hears(&["order.cancelled"]).await;
    server.quiet().await;
    assert_eq!(asha.mailbox().await, ["order.cancelled"], "exactly one e-mail");

    let again = Checkout::of(asha.ask(&with_coupon("tok_ok")).await);
    assert_ne!(again.order_id, declined.order_id);
    assert_eq!(asha.wait(&again).await["status"], "COMPLETED");
    assert_eq!(asha.order(&again).await["totalAmount"], "47250.00");
    assert_eq!((server.stock("LAP-001").await, server.coupon("SAVE20").await), ((99, 0), (1, 0)));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_wants_approval_completes_after_it() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_3ds").await;
    let page = asha.payment_page(&checkout).await;
    assert_eq!(asha.order(&checkout).await["status"], "PENDING");
    assert_eq!(server.stock("LAP-001").await, (99, 1), "held while the shopper decides");

    asha.press(&page, "approve").await;
    let view = asha.end(&checkout).await;
    assert_eq!(view["status"], "COMPLETED", "{view}");
    assert!(view.get("nextAction").is_none_or(serde_json::Value::is_null), "{view}");
    assert_eq!(asha.order(&checkout).await["status"], "CONFIRMED");
    assert_eq!(server.stock("LAP-001").await, (99, 0));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_the_shopper_does_not_approve_is_declined() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_3ds").await;
    let page = asha.payment_page(&checkout).await;
    asha.press(&page, "decline").await;
    let view = asha.end(&checkout).await;
    assert_eq!((&view["status"], &view["failure"]["code"]), (&json!("FAILED"), &json!("payment-declined")), "{view}");
    assert_eq!(server.stock("LAP-001").await, (100, 0));
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_pays_within_the_window_and_the_stock_is_back() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let checkout = asha.checkout("tok_3ds").await;
    let page = asha.payment_page(&checkout).await;

    server.advance(WINDOW_S).await;
    let view = asha.end(&checkout).await;
    assert_eq!((&view["status"], &view["failure"]["code"]), (&json!("FAILED"), &json!("payment-expired")), "{view}");
    assert_eq!(server.stock("LAP-001").await, (100, 0));
    asha.hears(&["order.cancelled"]).await;
    let too_late =
        crate::server::Answer::to(server.door.request(reqwest::Method::POST, &format!("{page}/approve"))).await;
    assert_eq!(too_late.status, 410, "a closed payment cannot be approved any more");
    server.quiet().await;
    assert_eq!(asha.mailbox().await, ["order.cancelled"], "exactly one e-mail");
    assert_eq!(server.charges(&checkout.order_id).await, [charge("CLOSED", "0.00", "0.00")]);
    server.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cash_on_delivery_confirms_without_the_gateway() {
    let server = Server::open().await;
    let asha = server.shopper("asha").await;
    asha.add("LAP-001", 1).await;
    let mut request = payment("");
    request["paymentMethod"] = json!("COD");
    request.as_object_mut().expect("an object").remove("paymentToken");
    let checkout = Checkout::of(asha.ask(&request).await);
    assert_eq!(asha.wait(&checkout).await["status"], "COMPLETED");
    let order = asha.order(&checkout).await;
    assert_eq!((&order["status"], &order["paymentStatus"]), (&json!("CONFIRMED"), &json!("PENDING")), "{order}");
    assert_eq!(server.charges(&checkout.order_id).await, []);
    asha.hears(&["order.confirmed"]).await;
    server.close().await;
}
