//! To send money back.

use domain::ports::{GatewayError, GatewayRefundStatus, PaymentGateway as _, RefundOrder};
use serde_json::{Value, json};

use super::scene::{KEY, REFUND, Reply, Scene, captured, key_of, money, order, refund_order, refuse, say, usd};

fn taken(refunds: &Value) -> Value {
    let mut payments = captured("COMPLETED");
    payments["refunds"] = refunds.clone();
    order("COMPLETED", "CAPTURE", &payments)
}

fn refund(status: &str) -> Value {
    json!({ "id": "1JU", "status": status, "amount": usd("100.00"), "custom_id": REFUND, "invoice_id": "x" })
}

#[tokio::test]
async fn a_part_of_the_capture_is_sent_back_under_our_id() {
    for (status, expected) in [("COMPLETED", GatewayRefundStatus::Succeeded), ("PENDING", GatewayRefundStatus::Pending)]
    {
        let scene = Scene::of([say(200, &taken(&json!([]))), say(201, &refund(status))]).await;
        let sent = scene.gateway.refund(KEY, &refund_order()).await.expect("a refund");
        assert_eq!((sent.gateway_refund_id.as_str(), sent.status), ("1JU", expected));
        assert_eq!(sent.amount, money("100.00", "USD"));
        assert_eq!(scene.lines(), ["GET /v2/checkout/orders/5O1", "POST /v2/payments/captures/3C6/refund"]);
        let request = &scene.requests()[1];
        assert_eq!(key_of(request), KEY);
        assert_eq!(request.header("prefer"), Some("return=representation"));
        assert_eq!(request.json(), json!({ "amount": usd("100.00"), "custom_id": REFUND }));
    }
}

#[tokio::test]
async fn a_refund_that_was_sent_is_not_sent_again() {
    let scene = Scene::of([say(200, &taken(&json!([refund("PENDING")])))]).await;
    let sent = scene.gateway.refund(KEY, &refund_order()).await.expect("a refund");
    assert_eq!((sent.gateway_refund_id.as_str(), sent.status), ("1JU", GatewayRefundStatus::Pending));
    assert_eq!(scene.lines(), ["GET /v2/checkout/orders/5O1"]);
}

#[tokio::test]
async fn a_refund_that_has_failed_may_be_sent_again() {
    let scene = Scene::of([say(200, &taken(&json!([refund("FAILED")]))), say(201, &refund("COMPLETED"))]).await;
    let sent = scene.gateway.refund(KEY, &refund_order()).await.expect("a refund");
    assert_eq!(sent.status, GatewayRefundStatus::Succeeded);
    assert_eq!(scene.lines().len(), 2);
}

#[tokio::test]
async fn of_two_equal_refunds_the_lost_one_is_sent() {
    let other = json!({ "id": "1JV", "status": "COMPLETED", "amount": usd("100.00"), "custom_id": KEY });
    let scene = Scene::of([say(200, &taken(&json!([other]))), say(201, &refund("COMPLETED"))]).await;
    let sent = scene.gateway.refund(KEY, &refund_order()).await.expect("a refund");
    assert_eq!(sent.gateway_refund_id, "1JU");
    assert_eq!(scene.lines().len(), 2);
}

#[tokio::test]
async fn what_counts_as_refunded_is_looked_for_and_refused_if_it_is_not_ours() {
    for issue in ["CAPTURE_FULLY_REFUNDED", "REFUND_AMOUNT_EXCEEDED", "DUPLICATE_INVOICE_ID"] {
        let before = taken(&json!([]));
        let after = taken(&json!([refund("COMPLETED")]));
        let scene = Scene::of([say(200, &before), refuse(422, issue), say(200, &after)]).await;
        let sent = scene.gateway.refund(KEY, &refund_order()).await.expect("a refund");
        assert_eq!(sent.gateway_refund_id, "1JU", "{issue}");
        let scene = Scene::of([say(200, &before), refuse(422, issue), say(200, &before)]).await;
        let refused = scene.gateway.refund(KEY, &refund_order()).await;
        assert!(matches!(&refused, Err(GatewayError::Refused { code, .. }) if code == issue), "{refused:?}");
        assert_eq!(scene.lines().len(), 3);
    }
}

#[tokio::test]
async fn what_cannot_be_sent_now_is_an_error_of_its_kind() {
    let busy = Reply::Say { status: 429, headers: "Retry-After: 17\r\n", body: String::new() };
    for (reply, is_expected) in [
        (
            refuse(422, "REFUND_FAILED_INSUFFICIENT_FUNDS"),
            (|error| matches!(error, GatewayError::NotNow { .. })) as fn(&GatewayError) -> bool,
        ),
        (refuse(422, "PENDING_CAPTURE"), |error| matches!(error, GatewayError::NotNow { .. })),
        (refuse(409, "PREVIOUS_REQUEST_IN_PROGRESS"), |error| matches!(error, GatewayError::Unknown(_))),
        (refuse(422, "REFUND_TIME_LIMIT_EXCEEDED"), |error| matches!(error, GatewayError::Refused { .. })),
        (refuse(404, "INVALID_RESOURCE_ID"), |error| matches!(error, GatewayError::Refused { .. })),
        (busy, |error| matches!(error, GatewayError::Busy { after_s: 17, .. })),
        (refuse(502, "X"), |error| matches!(error, GatewayError::Unknown(_))),
        (Reply::HangUp, |error| matches!(error, GatewayError::Unknown(_))),
        (say(201, &json!({ "id": "1JU", "status": "COMPLETED" })), |error| matches!(error, GatewayError::Unknown(_))),
    ] {
        let scene = Scene::of([say(200, &taken(&json!([]))), reply]).await;
        let error = scene.gateway.refund(KEY, &refund_order()).await.expect_err("no refund");
        assert!(is_expected(&error), "{error:?}");
        assert_eq!(scene.lines().len(), 2);
    }
}

#[tokio::test]
async fn what_was_not_taken_cannot_be_sent_back() {
    let uncaptured = order("APPROVED", "CAPTURE", &json!({}));
    for reply in [say(200, &uncaptured), refuse(404, "INVALID_RESOURCE_ID")] {
        let scene = Scene::of([reply]).await;
        let refused = scene.gateway.refund(KEY, &refund_order()).await;
        assert!(matches!(refused, Err(GatewayError::Refused { .. })), "{refused:?}");
        assert_eq!(scene.lines(), ["GET /v2/checkout/orders/5O1"]);
    }
}

#[tokio::test]
async fn a_part_that_paypal_cannot_express_is_not_rounded() {
    let scene = Scene::of([]).await;
    let refund = RefundOrder { amount: money("10.50", "HUF"), ..refund_order() };
    let refused = scene.gateway.refund(KEY, &refund).await;
    assert!(matches!(refused, Err(GatewayError::Refused { .. })), "{refused:?}");
    assert!(scene.requests().is_empty());
}

#[tokio::test]
async fn a_refund_is_found_by_our_id() {
    for (refunds, expected) in [
        (json!([refund("PENDING")]), Some(GatewayRefundStatus::Pending)),
        (json!([refund("CANCELLED")]), Some(GatewayRefundStatus::Failed)),
        (json!([{ "id": "1JV", "status": "COMPLETED", "amount": usd("100.00"), "custom_id": KEY }]), None),
        (json!([]), None),
    ] {
        let scene = Scene::of([say(200, &taken(&refunds))]).await;
        let found = scene.gateway.find_refund(&refund_order()).await.expect("an answer");
        assert_eq!(found.map(|refund| refund.status), expected, "{refunds}");
        assert_eq!(scene.lines(), ["GET /v2/checkout/orders/5O1"]);
    }
}
