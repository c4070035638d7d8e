//! What gateways send of their own accord: only a bad signature is turned away.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::Utc;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use crate::server::{Answer, Server};

/// Sends a body signed as the sandbox signs (with the secret `dev-secret`), or with another secret.
async fn deliver(server: &Server, event_id: &str, body: &str, secret: &[u8]) -> Answer {
    let at = Utc::now().timestamp();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key");
    mac.update(format!("{event_id}.{at}.{body}").as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let request = server
        .door
        .request(Method::POST, "/api/webhooks/sandbox")
        .header("webhook-id", event_id)
        .header("webhook-timestamp", at)
        .header("webhook-signature", format!("v1,{signature}"))
        .header("content-type", "application/json");
    Answer::to(request.body(body.to_owned())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_rightly_signed_is_kept_and_shown() {
    let server = Server::open_idle().await;
    let nobody = Uuid::now_v7();
    let foreign = json!({ "type": "payment.captured", "data": { "gatewayPaymentId": "sbx_1", "orderId": nobody,
                          "amount": "10.00", "currency": "INR" } });
    let cases = [
        ("evt_1", "not JSON, and \u{0}".to_owned(), "UNREADABLE"),
        ("evt_2", json!({ "type": "payout.paid", "data": { "payout": "po_1" } }).to_string(), "UNREADABLE"),
        (
            "evt_3",
            json!({ "type": "dispute.opened\u{0}", "data": { "gatewayPaymentId": "sbx_1" } }).to_string(),
            "UNREADABLE",
        ),
        ("evt_4", json!({ "type": "dispute.updated", "data": { "gatewayPaymentId": "sbx_1" } }).to_string(), "IGNORED"),
        ("evt_5", foreign.to_string(), "UNMATCHED"),
    ];
    for (event_id, body, outcome) in &cases {
        for expected in [outcome, "DUPLICATE"] {
            let answer = deliver(&server, event_id, body, b"dev-secret").await;
            assert_eq!(
                (answer.status, &answer.body["outcome"]),
                (200, &json!(expected)),
                "{event_id}: {}",
                answer.body
            );
        }
        deliver(&server, event_id, body, b"another").await.refused(400, "bad-signature");
    }
    let kept: Vec<(String, String, Value)> =
        sqlx::query_as("select event_id, outcome, body from webhook_inbox order by event_id")
            .fetch_all(&server.pool)
            .await
            .expect("the inbox");
    let expected: Vec<_> =
        cases.iter().map(|(event_id, _, outcome)| ((*event_id).to_owned(), (*outcome).to_owned())).collect();
    assert_eq!(kept.iter().map(|(id, outcome, _)| (id.clone(), outcome.clone())).collect::<Vec<_>>(), expected);
    assert_eq!(kept[4].2, foreign, "as it came");
    server.stop().await;
}
