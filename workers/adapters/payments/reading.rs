//! What everything read from a gateway is held to before it is believed and kept: an index holds its ids, and
//! Postgres its texts.

use domain::ports::{WebhookError, WebhookEvent, WebhookKind};
use serde_json::Value;
use uuid::Uuid;

/// Longest id of an event, a payment or a refund, in bytes.
pub(super) const MAX_ID: usize = 255;

/// An event's id; one that cannot be kept still names its event.
pub(super) fn event_id(id: &str) -> String {
    if (1..=MAX_ID).contains(&id.len()) && !id.contains('\0') {
        id.to_owned()
    } else {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()).to_string()
    }
}

/// The id of a listed payment, as it was read. One without an id is somebody's money too.
pub(super) fn listed_id(id: Option<&str>, item: &Value) -> String {
    let id = id.filter(|id| id.len() <= MAX_ID).map(str::to_owned);
    id.unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_OID, item.to_string().as_bytes()).to_string())
}

/// A header that is missing or doubled leaves nothing that could be verified.
pub(super) fn header<'h>(headers: &'h [(String, String)], name: &str) -> Result<&'h str, WebhookError> {
    let mut values = headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Ok(value),
        (Some(_), Some(_)) | (None, _) => Err(WebhookError::BadSignature),
    }
}

/// Whether an event can be kept; if not, why. One that nobody acts on may be about no payment.
pub(super) fn check_event(event: &WebhookEvent) -> Result<(), String> {
    let WebhookEvent { kind, gateway_payment_id, failure, about, .. } = event;
    let about = about.as_ref().map(|about| about.gateway_id.as_str());
    let (name, shortest) = match kind {
        WebhookKind::Other(name) => (Some(name.as_str()), 0),
        WebhookKind::PaymentApproved
        | WebhookKind::PaymentAuthorized
        | WebhookKind::PaymentCaptured
        | WebhookKind::PaymentFailed
        | WebhookKind::PaymentClosed
        | WebhookKind::RefundPending
        | WebhookKind::RefundSucceeded
        | WebhookKind::RefundFailed
        | WebhookKind::DisputeOpened
        | WebhookKind::DisputeWon
        | WebhookKind::DisputeLost => (None, 1),
    };
    for (what, id, shortest) in
        [("payment", Some(gateway_payment_id.as_str()), shortest), ("refund or dispute", about, 1)]
    {
        if id.is_some_and(|id| !(shortest..=MAX_ID).contains(&id.len())) {
            return Err(format!("a {what}'s id has 1 to {MAX_ID} bytes"));
        }
    }
    let texts = [name, Some(gateway_payment_id), failure.as_deref(), about];
    match texts.into_iter().flatten().any(|text| text.contains('\0')) {
        true => Err("a text with a NUL".to_owned()),
        false => Ok(()),
    }
}
