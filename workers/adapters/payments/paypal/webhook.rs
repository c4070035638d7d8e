//! Webhooks: PayPal is asked whether it has signed one, over the body's own bytes; then it is read, and PayPal is
//! asked for the order when the event does not name it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::ids::OrderId;
use domain::ports::{GatewayError, Webhook, WebhookError, WebhookEvent};
use reqwest::header;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::exchange::below;
use super::super::reading::{check_event, event_id, header};
use super::PayPalGateway;
use super::events::{Place, parse};
use super::refusals::Refusal;

/// How far the time of transmission may be from ours, either way: PayPal tries for three days.
const TOLERANCE: TimeDelta = TimeDelta::days(4);

/// How long all calls for one webhook may take together: whoever sends it does not wait for ever.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(4);

/// Checks a webhook and reads it.
///
/// # Errors
/// [`WebhookError`]: [`WebhookError::Unavailable`] when PayPal could not be asked within `limit`.
pub(super) async fn receive(
    gateway: &PayPalGateway,
    headers: &[(String, String)],
    body: &[u8],
    now: DateTime<Utc>,
    limit: Duration,
) -> Result<Webhook, WebhookError> {
    let received = async {
        verify(gateway, headers, body, now).await?;
        read(gateway, body).await
    };
    tokio::time::timeout(limit, received)
        .await
        .unwrap_or_else(|_| Err(WebhookError::Unavailable("PayPal did not answer in time".to_owned())))
}

/// What PayPal is asked, but for the event itself.
#[derive(Serialize)]
struct Question<'a> {
    auth_algo: &'a str,
    cert_url: &'a str,
    transmission_id: &'a str,
    transmission_sig: &'a str,
    transmission_time: &'a str,
    webhook_id: &'a str,
}

impl Question<'_> {
    /// The question with the event as it came: a signature is over bytes, and writing JSON anew may change them.
    fn about(&self, event: &[u8]) -> Option<Vec<u8>> {
        let mut question = serde_json::to_vec(self).ok()?;
        question.pop()?;
        Some([&question, br#","webhook_event":"#.as_slice(), event, b"}"].concat())
    }
}

#[derive(Deserialize)]
struct Verdict {
    verification_status: VerificationStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum VerificationStatus {
    Success,
    Failure,
}

/// PayPal says that it has signed the body for one of our webhook ids, not long ago. The signature comes first: who
/// cannot sign learns nothing of our clock.
async fn verify(
    gateway: &PayPalGateway,
    headers: &[(String, String)],
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<(), WebhookError> {
    let sent = header(headers, "paypal-transmission-time")?;
    // Anything else than one JSON value could say more to PayPal than an event.
    serde_json::from_slice::<&RawValue>(body).map_err(|_| WebhookError::BadSignature)?;
    let question = Question {
        auth_algo: header(headers, "paypal-auth-algo")?,
        cert_url: header(headers, "paypal-cert-url")?,
        transmission_id: header(headers, "paypal-transmission-id")?,
        transmission_sig: header(headers, "paypal-transmission-sig")?,
        transmission_time: sent,
        webhook_id: "",
    };
    let mut outcome = WebhookError::BadSignature;
    for webhook_id in &gateway.webhook_ids {
        match ask(gateway, &Question { webhook_id, ..question }, body).await {
            Ok(()) => return is_recent(sent, now).then_some(()).ok_or(WebhookError::TooOld),
            Err(WebhookError::BadSignature) => (),
            Err(error @ (WebhookError::Unavailable(_) | WebhookError::TooOld)) => outcome = error,
        }
    }
    Err(outcome)
}

/// Whether the signature is for this one webhook id.
async fn ask(gateway: &PayPalGateway, question: &Question<'_>, body: &[u8]) -> Result<(), WebhookError> {
    let question = question.about(body).ok_or(WebhookError::BadSignature)?;
    let url = below(&gateway.base, &["v1", "notifications", "verify-webhook-signature"]);
    let request = gateway.client.post(url).header(header::CONTENT_TYPE, "application/json").body(question);
    let answer = gateway.exchange(request).await.map_err(|Refusal { error, .. }| match error {
        // PayPal has looked at it and finds it malformed: it has sent no such thing.
        GatewayError::Refused { .. } => WebhookError::BadSignature,
        GatewayError::Unknown(_)
        | GatewayError::Busy { .. }
        | GatewayError::NotNow { .. }
        | GatewayError::Misconfigured(_) => WebhookError::Unavailable(error.to_string()),
    })?;
    match answer.read::<Verdict>().map_err(unavailable)?.verification_status {
        VerificationStatus::Success => Ok(()),
        VerificationStatus::Failure => Err(WebhookError::BadSignature),
    }
}

fn is_recent(sent: &str, now: DateTime<Utc>) -> bool {
    // Of what has no time nobody can say how old it is.
    DateTime::parse_from_rfc3339(sent).is_ok_and(|sent| (now - sent.to_utc()).abs() <= TOLERANCE)
}

fn unavailable(error: GatewayError) -> WebhookError {
    WebhookError::Unavailable(error.to_string())
}

#[derive(Deserialize)]
struct Told {
    id: Option<String>,
    event_type: Option<String>,
    create_time: Option<String>,
    #[serde(default)]
    resource: Value,
}

/// What was rightly signed, read as far as it can be.
///
/// # Errors
/// [`WebhookError::Unavailable`] when PayPal cannot be asked which order it is about.
async fn read(gateway: &PayPalGateway, body: &[u8]) -> Result<Webhook, WebhookError> {
    let told = match serde_json::from_slice::<Told>(body) {
        Ok(told) => told,
        Err(error) => return Ok(Webhook::Unreadable { event_id: digest(body), why: error.to_string() }),
    };
    let event_id = told.id.map_or_else(|| digest(body), |id| event_id(&id));
    let Some(event_type) = told.event_type else {
        return Ok(Webhook::Unreadable { event_id, why: "an event without a type".to_owned() });
    };
    let (place, event) = match parse(event_type, &told.resource) {
        Ok(parsed) => parsed,
        Err(why) => return Ok(Webhook::Unreadable { event_id, why }),
    };
    let at = told.create_time.and_then(|at| at.parse().ok());
    let mut event = WebhookEvent { event_id, at, ..event };
    if let Err(why) = check_event(&event) {
        return Ok(Webhook::Unreadable { event_id: event.event_id, why });
    }
    if let Place::Behind(kind, id) = place {
        match gateway.behind(kind, id).await.map_err(unavailable)? {
            Some(order) => (event.gateway_payment_id, event.order_id) = (order.id, order.order_id.or(event.order_id)),
            // None of ours, whatever it refers to.
            None => event.order_id = None,
        }
    }
    // A refund made on PayPal's own page carries the reference of the order.
    if let Some(about) = &mut event.about {
        about.refund_id = about.refund_id.filter(|id| event.order_id != Some(OrderId::from(*id)));
    }
    match check_event(&event) {
        Ok(()) => Ok(Webhook::Event(event)),
        Err(why) => Ok(Webhook::Unreadable { event_id: event.event_id, why }),
    }
}

/// The same for the same.
fn digest(bytes: &[u8]) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, bytes).to_string()
}
