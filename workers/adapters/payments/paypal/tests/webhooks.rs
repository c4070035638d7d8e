//! Webhooks: the check, and what they say.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::ports::{PaymentGateway as _, Webhook, WebhookError, WebhookEvent, WebhookKind, WebhookSubject};
use serde_json::{Value, json};

use super::super::webhook::receive;
use super::scene::{KEY, ORDER, REFUND, Reply, Scene, gateway, money, order_id, refuse, say, usd};

const CHECK: &str = "POST /v1/notifications/verify-webhook-signature";
const TRANSMISSION: &str = "69cd13f0-d67a-11e5-baa3-778b53f4ae55";
const TIME: &str = "2026-11-29T04:00:00Z";
const SIGNATURE: &str = "U16USOznQK6mkJENX6JfSVPDfQbBvG4XTtqP6a1QVDpQBQ==";

/// What PayPal's former SDK signs for it is known: see the test of the signed text. Written anew by whoever cannot
/// tell `{}` from `[]`, or sorts keys, it would be other bytes.
const APPROVED: &str = r#"{"id":"WH-1","event_version":"1.0","create_time":"2026-11-29T04:00:00.000Z","resource_type":"checkout-order","resource_version":"2.0","event_type":"CHECKOUT.ORDER.APPROVED","summary":"An order has been approved by buyer","resource":{"id":"5O190127TN364715T","status":"APPROVED","intent":"CAPTURE","purchase_units":[{"reference_id":"default","custom_id":"01900000-0000-7000-8000-000000000001","amount":{"currency_code":"USD","value":"590.50","breakdown":{}},"description":"café"}]},"links":[]}"#;

fn headers() -> Vec<(String, String)> {
    [
        ("Paypal-Transmission-Id", TRANSMISSION),
        ("PAYPAL-TRANSMISSION-TIME", TIME),
        ("paypal-transmission-sig", SIGNATURE),
        ("paypal-cert-url", "https://api.paypal.com/v1/notifications/certs/CERT-test"),
        ("paypal-auth-algo", "SHA256withRSA"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn sent_at() -> DateTime<Utc> {
    TIME.parse().expect("a time")
}

fn success() -> Reply {
    say(200, &json!({ "verification_status": "SUCCESS" }))
}

fn failure() -> Reply {
    say(200, &json!({ "verification_status": "FAILURE" }))
}

async fn received(scene: &Scene, body: &str) -> Result<Webhook, WebhookError> {
    scene.gateway.verify_webhook(&headers(), body.as_bytes(), sent_at()).await
}

/// What a signed event of that type is read as, and what PayPal was asked for it besides the signature.
async fn read(event_type: &str, resource: &Value, answers: impl IntoIterator<Item = Reply>) -> (Webhook, Vec<String>) {
    let body = json!({ "id": "WH-1", "event_type": event_type, "resource": resource }).to_string();
    let scene = Scene::of(std::iter::once(success()).chain(answers)).await;
    let webhook = received(&scene, &body).await.expect("rightly signed");
    (webhook, scene.lines().split_off(1))
}

async fn event(
    event_type: &str,
    resource: &Value,
    answers: impl IntoIterator<Item = Reply>,
) -> (WebhookEvent, Vec<String>) {
    match read(event_type, resource, answers).await {
        (Webhook::Event(event), lines) => (event, lines),
        (Webhook::Unreadable { why, .. }, _) => panic!("{event_type}: {why}"),
    }
}

fn part(status: &str) -> Value {
    json!({
        "id": "3C6", "status": status, "amount": usd("590.50"), "custom_id": ORDER,
        "supplementary_data": { "related_ids": { "order_id": "5O1" } },
    })
}

fn refund(status: &str) -> Value {
    json!({
        "id": "1JU", "status": status, "amount": usd("100.00"), "custom_id": REFUND,
        "links": [
            { "rel": "self", "href": "https://api.paypal.com/v2/payments/refunds/1JU", "method": "GET" },
            { "rel": "up", "href": "https://api.paypal.com/v2/payments/captures/3C6", "method": "GET" },
        ],
    })
}

fn dispute(outcome: Option<&str>) -> Value {
    let mut dispute = json!({
        "dispute_id": "PP-D-27803", "reason": "UNAUTHORISED", "status": "OPEN", "dispute_amount": usd("590.50"),
        "disputed_transactions": [{ "seller_transaction_id": "3C6", "buyer": { "name": "x" } }],
    });
    if let Some(outcome) = outcome {
        dispute["dispute_outcome"] = json!({ "outcome_code": outcome });
    }
    dispute
}

/// CRC-32 as of zlib.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[tokio::test]
async fn paypal_is_asked_with_the_five_headers_and_the_very_bytes_that_it_signed() {
    let scene = Scene::of([success()]).await;
    let Webhook::Event(event) = received(&scene, APPROVED).await.expect("rightly signed") else { panic!("unreadable") };
    assert_eq!((event.event_id.as_str(), event.kind), ("WH-1", WebhookKind::PaymentApproved));
    assert_eq!(event.gateway_payment_id, "5O190127TN364715T");
    assert_eq!((event.order_id, event.amount), (Some(order_id()), Some(money("590.50", "USD"))));

    assert_eq!(scene.lines(), [CHECK]);
    let request = &scene.requests()[0];
    assert_eq!(request.header("authorization"), Some("Bearer token-1"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    let mut question = request.json();
    question.as_object_mut().expect("an object").remove("webhook_event");
    assert_eq!(
        question,
        json!({
            "auth_algo": "SHA256withRSA",
            "cert_url": "https://api.paypal.com/v1/notifications/certs/CERT-test",
            "transmission_id": TRANSMISSION,
            "transmission_sig": SIGNATURE,
            "transmission_time": TIME,
            "webhook_id": "1JE4291016473214C",
        })
    );
    let sent = String::from_utf8(request.body.clone()).expect("text");
    let spliced =
        sent.split_once(r#""webhook_event":"#).and_then(|(_, event)| event.strip_suffix('}')).expect("an event");
    let signed = format!("{TRANSMISSION}|{TIME}|1JE4291016473214C|{}", crc32(spliced.as_bytes()));
    assert_eq!(signed, "69cd13f0-d67a-11e5-baa3-778b53f4ae55|2026-11-29T04:00:00Z|1JE4291016473214C|1396900542");
}

#[tokio::test]
async fn a_body_is_not_written_anew() {
    for body in [
        r#"{ "id" : "WH-1", "event_type":"X.Y","resource":{"z":1.50,"id":"\u00e9","a":{},"b":[ ]} }"#,
        "\n{\"id\":\"WH-1\",\"event_type\":\"X.Y\",\"resource\":{\"id\":\"5O1\",\"n\":12345678901234567890.10}}\r\n",
        r#"{"id":"WH-1","id":"WH-1","event_type":"X.Y","resource":{"id":"caf\u00e9 \/ é"}}"#,
    ] {
        let scene = Scene::of([success()]).await;
        received(&scene, body).await.expect("rightly signed");
        let sent = String::from_utf8(scene.requests()[0].body.clone()).expect("text");
        assert!(sent.ends_with(&format!(r#","webhook_event":{body}}}"#)), "{sent}");
    }
}

#[tokio::test]
async fn each_of_our_webhook_ids_is_tried() {
    let scene = Scene::of([failure(), success()]).await;
    received(&scene, APPROVED).await.expect("rightly signed");
    let ids: Vec<Value> = scene.requests().iter().map(|request| request.json()["webhook_id"].clone()).collect();
    assert_eq!(ids, ["1JE4291016473214C", "8PT597110X687430L"]);
}

#[tokio::test]
async fn what_paypal_has_not_signed_is_not_believed() {
    let malformed = || say(400, &json!({ "name": "VALIDATION_ERROR", "message": "Invalid request", "details": [] }));
    for verdicts in [[failure(), failure()], [malformed(), failure()], [malformed(), malformed()]] {
        let scene = Scene::of(verdicts).await;
        assert_eq!(received(&scene, APPROVED).await, Err(WebhookError::BadSignature));
        assert_eq!(scene.lines(), [CHECK, CHECK]);
    }
}

#[tokio::test]
async fn a_missing_or_doubled_header_is_not_worth_a_question() {
    let scene = Scene::of([]).await;
    for which in 0..5 {
        let (mut missing, mut doubled) = (headers(), headers());
        missing.remove(which);
        doubled.push(doubled[which].clone());
        for headers in [missing, doubled] {
            let refused = scene.gateway.verify_webhook(&headers, APPROVED.as_bytes(), sent_at()).await;
            assert_eq!(refused, Err(WebhookError::BadSignature), "{headers:?}");
        }
    }
    assert!(scene.requests().is_empty() && scene.logins().is_empty());
}

#[tokio::test]
async fn a_body_that_would_say_more_than_an_event_is_not_passed_on() {
    let scene = Scene::of([]).await;
    for body in ["", "not JSON", r#"{"id":"WH-1"},"webhook_id":"another""#, r#"{"id":"WH-1"}} "#] {
        assert_eq!(received(&scene, body).await, Err(WebhookError::BadSignature), "{body}");
    }
    let refused = scene.gateway.verify_webhook(&headers(), b"{\"id\":\"\xff\"}", sent_at()).await;
    assert_eq!(refused, Err(WebhookError::BadSignature));
    assert!(scene.requests().is_empty());
}

#[tokio::test]
async fn four_days_either_way_are_tolerated_and_no_more() {
    let four_days = TimeDelta::days(4);
    for (later, expected) in [
        (four_days, Ok(())),
        (-four_days, Ok(())),
        (four_days + TimeDelta::seconds(1), Err(WebhookError::TooOld)),
        (-four_days - TimeDelta::seconds(1), Err(WebhookError::TooOld)),
    ] {
        let scene = Scene::of([success()]).await;
        let webhook = scene.gateway.verify_webhook(&headers(), APPROVED.as_bytes(), sent_at() + later).await;
        assert_eq!(webhook.map(|_| ()), expected, "{later}");
    }
    let scene = Scene::of([failure(), failure()]).await;
    let forged = scene.gateway.verify_webhook(&headers(), APPROVED.as_bytes(), sent_at() + TimeDelta::days(9)).await;
    assert_eq!(forged, Err(WebhookError::BadSignature), "who cannot sign learns nothing of our clock");
}

#[tokio::test]
async fn when_paypal_cannot_be_asked_it_is_to_send_the_webhook_again() {
    let busy = Reply::Say { status: 429, headers: "Retry-After: 17\r\n", body: String::new() };
    let page = Reply::Say { status: 404, headers: "", body: "<html>".to_owned() };
    let strange = say(200, &json!({ "verification_status": "PERHAPS" }));
    for reply in [busy, page, strange, refuse(503, "X"), Reply::HangUp] {
        let scene = Scene::of([reply, failure()]).await;
        let unavailable = received(&scene, APPROVED).await;
        assert!(matches!(unavailable, Err(WebhookError::Unavailable(_))), "{unavailable:?}");
        assert_eq!(scene.lines(), [CHECK, CHECK], "another webhook id might have fitted");
    }
    let nobody = gateway("http://127.0.0.1:1").verify_webhook(&headers(), APPROVED.as_bytes(), sent_at()).await;
    assert!(matches!(nobody, Err(WebhookError::Unavailable(_))), "{nobody:?}");
}

#[tokio::test]
async fn whoever_sends_a_webhook_does_not_wait_for_ever() {
    let scene = Scene::of([Reply::Silence]).await;
    let limit = Duration::from_millis(50);
    let unavailable = receive(&scene.gateway, &headers(), APPROVED.as_bytes(), sent_at(), limit).await;
    assert!(matches!(unavailable, Err(WebhookError::Unavailable(_))), "{unavailable:?}");
}

#[tokio::test]
async fn every_event_of_a_payment_has_its_meaning() {
    for (event_type, status, kind, failure) in [
        ("PAYMENT.AUTHORIZATION.CREATED", "CREATED", WebhookKind::PaymentAuthorized, None),
        ("PAYMENT.AUTHORIZATION.VOIDED", "VOIDED", WebhookKind::PaymentClosed, None),
        ("PAYMENT.CAPTURE.COMPLETED", "COMPLETED", WebhookKind::PaymentCaptured, None),
        ("PAYMENT.CAPTURE.DENIED", "DECLINED", WebhookKind::PaymentFailed, Some("DECLINED")),
        ("PAYMENT.CAPTURE.DECLINED", "DECLINED", WebhookKind::PaymentFailed, Some("DECLINED")),
    ] {
        let (event, asked) = event(event_type, &part(status), []).await;
        let expected = WebhookEvent {
            event_id: "WH-1".to_owned(),
            kind,
            gateway_payment_id: "5O1".to_owned(),
            order_id: Some(order_id()),
            amount: Some(money("590.50", "USD")),
            failure: failure.map(str::to_owned),
            about: None,
            at: None,
        };
        assert_eq!((event, asked), (expected, vec![]), "{event_type}");
    }
}

#[tokio::test]
async fn a_reversed_approval_closes_its_order() {
    for id in ["id", "order_id"] {
        let mut resource = json!({ "purchase_units": [{ "custom_id": ORDER, "amount": usd("590.50") }] });
        resource[id] = json!("5O1");
        let (event, _) = event("CHECKOUT.PAYMENT-APPROVAL.REVERSED", &resource, []).await;
        assert_eq!((event.kind, event.gateway_payment_id.as_str()), (WebhookKind::PaymentClosed, "5O1"));
        assert_eq!(event.order_id, Some(order_id()));
    }
}

#[tokio::test]
async fn what_we_do_not_act_on_is_an_event_by_its_name() {
    for (event_type, resource, id) in [
        ("PAYMENT.CAPTURE.PENDING", part("PENDING"), "5O1"),
        ("PAYMENT.AUTHORIZATION.CREATED", part("PENDING"), "5O1"),
        ("CHECKOUT.ORDER.COMPLETED", json!({ "id": "5O1" }), "5O1"),
        ("CUSTOMER.DISPUTE.UPDATED", dispute(None), "PP-D-27803"),
        ("BILLING.SUBSCRIPTION.CREATED", json!({ "id": "I-1", "amount": 7 }), "I-1"),
    ] {
        let (event, asked) = event(event_type, &resource, []).await;
        assert_eq!((event.kind, event.gateway_payment_id.as_str()), (WebhookKind::Other(event_type.to_owned()), id));
        assert!(asked.is_empty(), "{event_type}");
    }
}

#[tokio::test]
async fn a_refund_is_ours_by_its_reference_and_its_order_is_behind_the_capture() {
    for (event_type, status, kind, failure) in [
        ("PAYMENT.CAPTURE.REFUNDED", "COMPLETED", WebhookKind::RefundSucceeded, None),
        ("PAYMENT.CAPTURE.REFUNDED", "PENDING", WebhookKind::RefundPending, None),
        ("PAYMENT.CAPTURE.REFUNDED", "FAILED", WebhookKind::RefundFailed, Some("FAILED")),
        ("PAYMENT.REFUND.PENDING", "PENDING", WebhookKind::RefundPending, None),
        ("PAYMENT.REFUND.FAILED", "FAILED", WebhookKind::RefundFailed, Some("FAILED")),
    ] {
        let (event, asked) = event(event_type, &refund(status), [say(200, &part("COMPLETED"))]).await;
        let expected = WebhookEvent {
            event_id: "WH-1".to_owned(),
            kind,
            gateway_payment_id: "5O1".to_owned(),
            order_id: Some(order_id()),
            amount: Some(money("100.00", "USD")),
            failure: failure.map(str::to_owned),
            about: Some(WebhookSubject { gateway_id: "1JU".to_owned(), refund_id: Some(REFUND) }),
            at: None,
        };
        assert_eq!(
            (event, asked),
            (expected, vec!["GET /v2/payments/captures/3C6".to_owned()]),
            "{event_type} {status}"
        );
    }
}

#[tokio::test]
async fn a_refund_that_names_its_order_needs_no_question() {
    let mut resource = refund("COMPLETED");
    resource["supplementary_data"] = json!({ "related_ids": { "order_id": "5O1", "capture_id": "3C6" } });
    let (event, asked) = event("PAYMENT.CAPTURE.REFUNDED", &resource, []).await;
    assert_eq!((event.gateway_payment_id.as_str(), asked), ("5O1", vec![]));
}

#[tokio::test]
async fn a_refund_made_on_paypals_page_is_none_of_ours() {
    for custom_id in [json!(ORDER), json!(null), json!("by hand")] {
        let mut resource = refund("COMPLETED");
        resource["custom_id"] = custom_id;
        let (event, _) = event("PAYMENT.CAPTURE.REFUNDED", &resource, [say(200, &part("COMPLETED"))]).await;
        assert_eq!(event.about, Some(WebhookSubject { gateway_id: "1JU".to_owned(), refund_id: None }));
    }
}

#[tokio::test]
async fn a_reversal_is_a_lost_dispute() {
    let (event, asked) = event("PAYMENT.CAPTURE.REVERSED", &refund("COMPLETED"), [say(200, &part("REFUNDED"))]).await;
    assert_eq!((event.kind, event.gateway_payment_id.as_str()), (WebhookKind::DisputeLost, "5O1"));
    assert_eq!(event.about, Some(WebhookSubject { gateway_id: "3C6".to_owned(), refund_id: None }));
    assert_eq!((event.failure.as_deref(), asked.len()), (Some("REVERSED"), 1));
}

#[tokio::test]
async fn a_dispute_is_about_the_order_behind_the_capture() {
    for (event_type, outcome, kind) in [
        ("CUSTOMER.DISPUTE.CREATED", None, Some(WebhookKind::DisputeOpened)),
        ("CUSTOMER.DISPUTE.RESOLVED", Some("RESOLVED_SELLER_FAVOUR"), Some(WebhookKind::DisputeWon)),
        ("CUSTOMER.DISPUTE.RESOLVED", Some("CANCELED_BY_BUYER"), Some(WebhookKind::DisputeWon)),
        ("CUSTOMER.DISPUTE.RESOLVED", Some("DENIED"), Some(WebhookKind::DisputeWon)),
        ("CUSTOMER.DISPUTE.RESOLVED", Some("RESOLVED_BUYER_FAVOUR"), Some(WebhookKind::DisputeLost)),
        ("CUSTOMER.DISPUTE.RESOLVED", Some("ACCEPTED"), Some(WebhookKind::DisputeLost)),
        ("CUSTOMER.DISPUTE.RESOLVED", Some("RESOLVED_WITH_PAYOUT"), None),
        ("CUSTOMER.DISPUTE.RESOLVED", None, None),
    ] {
        let (event, asked) = event(event_type, &dispute(outcome), [say(200, &part("COMPLETED"))]).await;
        let expected = WebhookEvent {
            event_id: "WH-1".to_owned(),
            kind: kind.unwrap_or(WebhookKind::Other(event_type.to_owned())),
            gateway_payment_id: "5O1".to_owned(),
            order_id: Some(order_id()),
            amount: Some(money("590.50", "USD")),
            failure: Some("UNAUTHORISED (PP-D-27803)".to_owned()),
            // As a reversal, which names no dispute.
            about: Some(WebhookSubject { gateway_id: "3C6".to_owned(), refund_id: None }),
            at: None,
        };
        assert_eq!(
            (event, asked),
            (expected, vec!["GET /v2/payments/captures/3C6".to_owned()]),
            "{event_type} {outcome:?}"
        );
    }
}

#[tokio::test]
async fn the_order_is_found_by_links_up_too() {
    let up = |href: &str| json!({ "id": "x", "custom_id": ORDER, "links": [{ "rel": "up", "href": href }] });
    let order = "https://elsewhere.example/v2/checkout/orders/5O1";
    let authorization = "https://api.paypal.com/v2/payments/authorizations/0AW";
    let (event, asked) =
        event("CUSTOMER.DISPUTE.CREATED", &dispute(None), [say(200, &up(authorization)), say(200, &up(order))]).await;
    assert_eq!((event.gateway_payment_id.as_str(), event.order_id), ("5O1", Some(order_id())));
    assert_eq!(asked, ["GET /v2/payments/captures/3C6", "GET /v2/payments/authorizations/0AW"]);
}

#[tokio::test]
async fn a_capture_that_names_no_order_is_asked_about() {
    let bare = json!({ "id": "3C6", "status": "COMPLETED", "amount": usd("590.50"), "custom_id": ORDER });
    let (found, asked) = event("PAYMENT.CAPTURE.COMPLETED", &bare, [say(200, &part("COMPLETED"))]).await;
    assert_eq!((found.gateway_payment_id.as_str(), found.order_id), ("5O1", Some(order_id())));
    assert_eq!(asked, ["GET /v2/payments/captures/3C6"]);
}

#[tokio::test]
async fn what_has_no_order_at_paypal_is_an_event_about_nothing_of_ours() {
    let orderless = json!({ "id": "3C6", "custom_id": ORDER });
    for answer in [refuse(404, "INVALID_RESOURCE_ID"), say(200, &orderless)] {
        let (event, _) = event("CUSTOMER.DISPUTE.CREATED", &dispute(None), [answer]).await;
        assert_eq!((event.gateway_payment_id.as_str(), event.order_id), ("3C6", None));
    }
}

#[tokio::test]
async fn when_the_order_cannot_be_had_the_webhook_is_to_come_again() {
    for (event_type, resource) in
        [("CUSTOMER.DISPUTE.CREATED", dispute(None)), ("PAYMENT.CAPTURE.REFUNDED", refund("COMPLETED"))]
    {
        let body = json!({ "id": "WH-1", "event_type": event_type, "resource": resource }).to_string();
        for reply in [
            Reply::HangUp,
            refuse(500, "X"),
            refuse(429, "X"),
            Reply::Say { status: 404, headers: "", body: String::new() },
        ] {
            let scene = Scene::of([success(), reply]).await;
            let unavailable = received(&scene, &body).await;
            assert!(matches!(unavailable, Err(WebhookError::Unavailable(_))), "{unavailable:?}");
        }
    }
}

#[tokio::test]
async fn what_is_rightly_signed_is_kept_whatever_it_says() {
    let long = "x".repeat(256);
    for (event_type, resource) in [
        ("PAYMENT.CAPTURE.COMPLETED", json!({})),
        ("PAYMENT.CAPTURE.COMPLETED", json!("text")),
        ("PAYMENT.CAPTURE.COMPLETED", json!({ "id": "3C6", "amount": usd("1.001") })),
        ("PAYMENT.CAPTURE.COMPLETED", json!({ "id": "3C6", "amount": { "total": "7.47", "currency": "USD" } })),
        ("CHECKOUT.ORDER.APPROVED", json!({ "id": long })),
        ("CHECKOUT.ORDER.APPROVED", json!({ "id": "" })),
        ("CHECKOUT.ORDER.APPROVED", json!({ "id": "5O1\0" })),
        ("CUSTOMER.DISPUTE.CREATED", json!({ "dispute_id": "PP-D-1", "disputed_transactions": [] })),
        (
            "CUSTOMER.DISPUTE.CREATED",
            json!({ "dispute_id": "PP-D-1", "reason": "\0", "disputed_transactions": [{ "seller_transaction_id": "3C6" }] }),
        ),
        ("X.Y\0", json!({ "id": "5O1" })),
        ("X.Y", json!({})),
        ("X.Y", json!({ "id": long })),
    ] {
        let (webhook, asked) = read(event_type, &resource, []).await;
        assert!(
            matches!(&webhook, Webhook::Unreadable { event_id, .. } if event_id == "WH-1"),
            "{resource}: {webhook:?}"
        );
        assert!(asked.is_empty());
    }
}

#[tokio::test]
async fn an_event_without_an_id_of_its_own_is_named_by_what_it_says() {
    let long = "x".repeat(256);
    let mut names = Vec::new();
    for body in ["[]", "{}", r#"{"id":7}"#, r#"{"id":""}"#, r#"{"id":"\u0000"}"#, &format!(r#"{{"id":"{long}"}}"#)] {
        let mut twice = Vec::new();
        for _ in 0..2 {
            let scene = Scene::of([success()]).await;
            match received(&scene, body).await.expect("rightly signed") {
                Webhook::Unreadable { event_id, .. } => twice.push(event_id),
                Webhook::Event(event) => panic!("{event:?}"),
            }
        }
        assert!(twice[0] == twice[1] && twice[0].parse::<uuid::Uuid>().is_ok_and(|id| id != KEY), "{twice:?}");
        names.push(twice.swap_remove(0));
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 6, "each its own");
}
