//! How webhooks are signed, and how PayPal checks its own signature when it is asked.
//!
//! The signed text is PayPal's. It signs with an RSA key whose certificate the headers name; nobody but PayPal's own
//! check ever looks at the signature here, so it is a message authentication code.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use uuid::Uuid;

use super::{Paypal, ill_formed, objects};
use crate::{
    call::{Call, Reply},
    gateway::Desk,
    signing,
};

/// Known to this process alone.
const KEY: &str = "the key of a fake that nobody else has";

/// `transmission id|time|webhook id|crc32 of the body`.
pub(super) fn signed_text(id: &str, time: &str, webhook_id: &str, body: &[u8]) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(body);
    format!("{id}|{time}|{webhook_id}|{}", crc.sum())
}

/// Begins with a letter, as the document wants.
fn signature(text: &str) -> String {
    BASE64.encode([b"RSA", signing::hmac(KEY, text.as_bytes()).as_slice()].concat())
}

/// `webhook_id` is the secret half: whoever does not know it cannot check.
pub(super) fn sign(webhook_id: &str, body: &[u8], now: DateTime<Utc>) -> Vec<(&'static str, String)> {
    let (id, time) = (Uuid::now_v7().to_string(), objects::time(now));
    let signature = signature(&signed_text(&id, &time, webhook_id, body));
    vec![
        ("paypal-transmission-id", id),
        ("paypal-transmission-time", time),
        ("paypal-transmission-sig", signature),
        ("paypal-cert-url", "https://api.paypal.com/v1/notifications/certs/CERT-fake".to_owned()),
        ("paypal-auth-algo", "SHA256withRSA".to_owned()),
    ]
}

/// The event keeps its bytes: another order of its members is another event.
#[derive(Debug, Deserialize)]
struct Posted<'a> {
    #[serde(borrow)]
    webhook_event: &'a RawValue,
}

impl Paypal {
    pub(super) fn verify_webhook(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let Ok(posted) = serde_json::from_slice::<Posted<'_>>(&call.raw) else {
            return ill_formed("MISSING_REQUIRED_PARAMETER", "/webhook_event");
        };
        let (id, time) = (call.text("/transmission_id"), call.text("/transmission_time"));
        let text = signed_text(id, time, call.text("/webhook_id"), posted.webhook_event.get().as_bytes());
        let is_ours = call.text("/webhook_id") == self.webhook_id && call.text("/auth_algo") == "SHA256withRSA";
        let is_right = is_ours && call.text("/transmission_sig") == signature(&text);
        Reply::new(200, json!({ "verification_status": if is_right { "SUCCESS" } else { "FAILURE" } }))
    }
}
