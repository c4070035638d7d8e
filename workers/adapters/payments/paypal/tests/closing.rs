//! To close what is open.

use domain::ports::{GatewayError, GatewayPaymentStatus, PaymentGateway as _};
use rust_decimal::Decimal;
use serde_json::json;

use super::scene::{KEY, Reply, Scene, authorized, captured, lookup, order, refuse, say};

#[tokio::test]
async fn what_was_not_captured_is_closed_as_only_we_capture() {
    for status in ["CREATED", "PAYER_ACTION_REQUIRED", "APPROVED", "VOIDED"] {
        let scene = Scene::of([say(200, &order(status, "CAPTURE", &json!({})))]).await;
        let closed = scene.gateway.close(KEY, &lookup(&["5O1"])).await.expect("payments");
        assert_eq!((closed[0].status, &closed[0].next_action), (GatewayPaymentStatus::Closed, &None), "{status}");
        assert_eq!(scene.lines(), ["GET /v2/checkout/orders/5O1"]);
    }
}

#[tokio::test]
async fn every_known_payment_is_closed() {
    let mut second = order("COMPLETED", "CAPTURE", &captured("COMPLETED"));
    second["id"] = json!("5O2");
    let first = order("APPROVED", "CAPTURE", &json!({}));
    let scene = Scene::of([say(200, &first), say(200, &second), refuse(404, "INVALID_RESOURCE_ID")]).await;
    let closed = scene.gateway.close(KEY, &lookup(&["5O1", "5O2", "5O3"])).await.expect("payments");
    let closed: Vec<_> = closed.iter().map(|payment| (payment.gateway_payment_id.as_str(), payment.status)).collect();
    assert_eq!(
        closed,
        [
            ("5O1", GatewayPaymentStatus::Closed),
            ("5O2", GatewayPaymentStatus::Captured),
            ("5O3", GatewayPaymentStatus::Closed),
        ]
    );
}

#[tokio::test]
async fn an_authorization_is_voided() {
    let held = order("COMPLETED", "AUTHORIZE", &authorized("CREATED"));
    let voided = order("COMPLETED", "AUTHORIZE", &authorized("VOIDED"));
    let no_content = Reply::Say { status: 204, headers: "", body: String::new() };
    for reply in [no_content, refuse(422, "PREVIOUSLY_VOIDED")] {
        let scene = Scene::of([say(200, &held), reply, say(200, &voided)]).await;
        let closed = scene.gateway.close(KEY, &lookup(&["5O1"])).await.expect("payments");
        assert_eq!(closed[0].status, GatewayPaymentStatus::Closed);
        assert_eq!(
            scene.lines(),
            ["GET /v2/checkout/orders/5O1", "POST /v2/payments/authorizations/0AW/void", "GET /v2/checkout/orders/5O1",]
        );
        assert!(scene.requests()[1].body.is_empty());
    }
}

#[tokio::test]
async fn an_authorization_that_was_captured_meanwhile_is_captured() {
    let held = order("COMPLETED", "AUTHORIZE", &authorized("CREATED"));
    let mut payments = authorized("CAPTURED");
    payments["captures"] = captured("COMPLETED")["captures"].clone();
    let done = order("COMPLETED", "AUTHORIZE", &payments);
    let scene = Scene::of([say(200, &held), refuse(422, "PREVIOUSLY_CAPTURED"), say(200, &done)]).await;
    let closed = scene.gateway.close(KEY, &lookup(&["5O1"])).await.expect("payments");
    assert_eq!((closed[0].status, closed[0].captured), (GatewayPaymentStatus::Captured, Decimal::new(59050, 2)));
}

#[tokio::test]
async fn money_behind_a_failed_capture_is_let_go_too() {
    let payments = |authorization: &str| {
        let mut payments = authorized(authorization);
        payments["captures"] = captured("DECLINED")["captures"].clone();
        order("COMPLETED", "AUTHORIZE", &payments)
    };
    let scene = Scene::of([say(200, &payments("CREATED")), say(200, &json!({})), say(200, &payments("VOIDED"))]).await;
    let closed = scene.gateway.close(KEY, &lookup(&["5O1"])).await.expect("payments");
    assert_eq!(closed[0].status, GatewayPaymentStatus::Failed);
    assert_eq!(scene.lines()[1], "POST /v2/payments/authorizations/0AW/void");
}

#[tokio::test]
async fn what_is_still_open_is_never_returned() {
    let held = order("COMPLETED", "AUTHORIZE", &authorized("CREATED"));
    let scene = Scene::of([say(200, &held), say(200, &json!({})), say(200, &held)]).await;
    let open = scene.gateway.close(KEY, &lookup(&["5O1"])).await;
    assert!(matches!(open, Err(GatewayError::Unknown(_))), "{open:?}");

    let pending = order("COMPLETED", "CAPTURE", &captured("PENDING"));
    let scene = Scene::of([say(200, &pending)]).await;
    let open = scene.gateway.close(KEY, &lookup(&["5O1"])).await;
    assert!(matches!(open, Err(GatewayError::NotNow { .. })), "{open:?}");
}

#[tokio::test]
async fn a_void_that_may_not_have_happened_is_unknown() {
    let held = order("COMPLETED", "AUTHORIZE", &authorized("CREATED"));
    for reply in [Reply::HangUp, refuse(500, "INTERNAL_SERVER_ERROR"), refuse(409, "PREVIOUS_REQUEST_IN_PROGRESS")] {
        let scene = Scene::of([say(200, &held), reply]).await;
        let closed = scene.gateway.close(KEY, &lookup(&["5O1"])).await;
        assert!(matches!(closed, Err(GatewayError::Unknown(_))), "{closed:?}");
        assert_eq!(scene.lines().len(), 2);
    }
}
