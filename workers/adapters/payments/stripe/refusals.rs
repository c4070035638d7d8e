//! What Stripe means when it does not do as it was asked (its pages "Error codes" and "Advanced error handling").

use domain::ports::GatewayError;
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::exchange::{Answer, send};
use super::objects::PaymentError;

/// How long somebody else keeps an object locked, in seconds, unless Stripe says.
const LOCK_S: u64 = 5;

/// How often to look whether our balance at Stripe covers a refund, in seconds: payments fill it in hours.
const BALANCE_S: u64 = 60 * 60;

/// Characters of Stripe's explanation that are kept.
const MAX_DETAIL_CHARS: usize = 500;

/// What came instead of what was asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Objection {
    /// The card was declined.
    Declined(Decline),
    /// Anything else.
    Error(GatewayError),
}

/// A declined card. Its payment is open still: another card would pay it.
#[derive(Debug, PartialEq)]
pub(super) struct Decline {
    /// Stripe's id of the payment.
    pub(super) payment_id: String,
    /// The issuer's reason, else Stripe's.
    pub(super) reason: String,
}

impl From<GatewayError> for Objection {
    fn from(error: GatewayError) -> Self {
        Objection::Error(error)
    }
}

impl From<Objection> for GatewayError {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Declined(Decline { payment_id, reason }) => {
                GatewayError::Refused { code: reason, detail: format!("{payment_id} was declined") }
            }
            Objection::Error(error) => error,
        }
    }
}

/// Whether the payment is in another state than the one in which that can be done: it has moved on, perhaps by
/// this very call, whose answer was lost.
pub(super) fn has_moved_on(code: &str) -> bool {
    ["payment_intent_unexpected_state", "charge_already_captured"].contains(&code)
}

/// Whether Stripe has no such object.
pub(super) fn is_missing(code: &str) -> bool {
    code == "resource_missing"
}

/// Sends `request` and reads the answer as `T`.
pub(super) async fn exchange<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Objection> {
    let answer = send(request).await?;
    if answer.status.is_success() {
        return Ok(answer.read()?);
    }
    Err(objection(&answer))
}

#[derive(Deserialize)]
struct Problem {
    error: Fault,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
    message: Option<String>,
    payment_intent: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    id: String,
}

/// Whether to repeat, if Stripe says: in its own libraries this header outweighs the status.
#[derive(Clone, Copy)]
enum Advice {
    Repeat,
    Stop,
    None,
}

impl Advice {
    fn of(answer: &Answer) -> Advice {
        match answer.header("stripe-should-retry") {
            Some("true") => Advice::Repeat,
            Some("false") => Advice::Stop,
            Some(_) | None => Advice::None,
        }
    }
}

/// What an answer means that is no success.
fn objection(answer: &Answer) -> Objection {
    let fault = answer.problem::<Problem>().map(|problem| problem.error);
    let code = fault.as_ref().and_then(|fault| fault.code.as_deref());
    let error = match (answer.status.as_u16(), Advice::of(answer), code) {
        (401 | 403, _, _) => answer.error(None),
        // Certainly not done, whatever is advised.
        (400..=499, _, Some("lock_timeout")) => not_now(answer, fault, LOCK_S),
        (400..=499, _, Some("balance_insufficient")) => not_now(answer, fault, BALANCE_S),
        (429, _, _) => answer.error(None),
        (400..=499, Advice::Repeat, _) => unknown(answer),
        // The first call under this key is at work still.
        (409, Advice::None, _) => unknown(answer),
        (402, Advice::Stop | Advice::None, _) => return declined(answer, fault),
        // They pass by themselves, as everywhere.
        (408 | 425, Advice::Stop | Advice::None, _) => answer.error(None),
        (400..=499, Advice::Stop | Advice::None, _) => refused(answer, fault),
        // Not to repeat a 5xx is no word on what became of it.
        (_, Advice::Repeat | Advice::Stop | Advice::None, _) => answer.error(None),
    };
    Objection::Error(error)
}

fn unknown(answer: &Answer) -> GatewayError {
    GatewayError::Unknown(format!("the gateway answered {}", answer.status))
}

fn not_now(answer: &Answer, fault: Option<Fault>, after_s: u64) -> GatewayError {
    match refused(answer, fault) {
        GatewayError::Refused { code, detail } => {
            GatewayError::NotNow { code, detail, after_s: answer.retry_after().unwrap_or(after_s) }
        }
        error @ (GatewayError::Unknown(_)
        | GatewayError::Busy { .. }
        | GatewayError::NotNow { .. }
        | GatewayError::Misconfigured(_)) => error,
    }
}

/// Without Stripe's words somebody else has answered.
fn refused(answer: &Answer, fault: Option<Fault>) -> GatewayError {
    match fault {
        Some(Fault { kind, code, decline_code, message, .. }) => GatewayError::Refused {
            code: decline_code.or(code).unwrap_or(kind),
            detail: detail(&message.unwrap_or_default(), answer.header("request-id")),
        },
        None => answer.misconfigured("no reason that a gateway would give"),
    }
}

fn declined(answer: &Answer, fault: Option<Fault>) -> Objection {
    match fault {
        Some(Fault { kind, code, decline_code, payment_intent: Some(Reference { id }), .. }) => {
            let error = PaymentError { kind, code, decline_code };
            Objection::Declined(Decline { payment_id: id, reason: error.reason().to_owned() })
        }
        fault => Objection::Error(refused(answer, fault)),
    }
}

/// Stripe's explanation, without what does not belong in a log, and its name for the call.
fn detail(message: &str, request_id: Option<&str>) -> String {
    let words: Vec<&str> = message.split_whitespace().map(|word| if is_private(word) { "***" } else { word }).collect();
    let text: String = words.join(" ").chars().take(MAX_DETAIL_CHARS).collect();
    match request_id {
        Some(id) => format!("{text} ({id})"),
        None => text,
    }
}

/// Stripe repeats what it was sent: tokens, keys, addresses.
fn is_private(word: &str) -> bool {
    ["pm_", "tok_", "sk_", "rk_", "pk_", "whsec_", "_secret_", "@"].iter().any(|mark| word.contains(mark))
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
    use serde_json::{Value, json};

    use super::*;

    fn heard(status: u16, headers: &[(&'static str, &'static str)], error: &Value) -> Objection {
        objection(&Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect::<HeaderMap>(),
            body: json!({ "error": error }).to_string().into_bytes(),
        })
    }

    /// The kind of error, and the code or the seconds that it carries.
    fn kind(objection: Objection) -> (&'static str, String) {
        match objection {
            Objection::Declined(Decline { payment_id, reason }) => ("declined", format!("{payment_id} {reason}")),
            Objection::Error(GatewayError::Unknown(_)) => ("unknown", String::new()),
            Objection::Error(GatewayError::Busy { after_s, .. }) => ("busy", after_s.to_string()),
            Objection::Error(GatewayError::NotNow { code, after_s, .. }) => ("not now", format!("{code} {after_s}")),
            Objection::Error(GatewayError::Misconfigured(_)) => ("misconfigured", String::new()),
            Objection::Error(GatewayError::Refused { code, .. }) => ("refused", code),
        }
    }

    #[test]
    fn every_class_of_error_finds_its_place() {
        let invalid = |code: &str| json!({ "type": "invalid_request_error", "code": code, "message": "No." });
        let bare = json!({ "type": "invalid_request_error" });
        let reused = json!({ "type": "idempotency_error", "message": "Keys for idempotent requests …" });
        let broken = json!({ "type": "api_error" });
        let declined = json!({
            "type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds",
            "payment_intent": { "id": "pi_1", "status": "requires_payment_method", "client_secret": "pi_1_secret_x" },
        });
        let expired = json!({ "type": "card_error", "code": "expired_card", "payment_intent": { "id": "pi_1" } });
        let orphan = json!({ "type": "card_error", "code": "card_declined", "decline_code": "lost_card" });
        for (status, headers, error, expected) in [
            (400, &[][..], &invalid("parameter_missing"), ("refused", "parameter_missing")),
            (400, &[], &bare, ("refused", "invalid_request_error")),
            (400, &[], &reused, ("refused", "idempotency_error")),
            (404, &[], &invalid("resource_missing"), ("refused", "resource_missing")),
            (400, &[], &invalid("charge_already_refunded"), ("refused", "charge_already_refunded")),
            (402, &[], &declined, ("declined", "pi_1 insufficient_funds")),
            (402, &[], &expired, ("declined", "pi_1 expired_card")),
            (402, &[], &orphan, ("refused", "lost_card")),
            (401, &[], &bare, ("misconfigured", "")),
            (403, &[], &bare, ("misconfigured", "")),
            (409, &[], &invalid("idempotency_key_in_use"), ("unknown", "")),
            (409, &[("stripe-should-retry", "false")], &invalid("gone"), ("refused", "gone")),
            (429, &[], &invalid("rate_limit"), ("busy", "5")),
            (429, &[("retry-after", "17")], &invalid("rate_limit"), ("busy", "17")),
            (429, &[], &invalid("lock_timeout"), ("not now", "lock_timeout 5")),
            (429, &[("stripe-should-retry", "true")], &invalid("lock_timeout"), ("not now", "lock_timeout 5")),
            (409, &[("retry-after", "2")], &invalid("lock_timeout"), ("not now", "lock_timeout 2")),
            (400, &[], &invalid("balance_insufficient"), ("not now", "balance_insufficient 3600")),
            (400, &[("stripe-should-retry", "true")], &bare, ("unknown", "")),
            (402, &[("stripe-should-retry", "true")], &declined, ("unknown", "")),
            (408, &[], &bare, ("unknown", "")),
            (500, &[], &broken, ("unknown", "")),
            (500, &[("stripe-should-retry", "false")], &broken, ("unknown", "")),
            (502, &[], &broken, ("unknown", "")),
            (503, &[("retry-after", "3")], &broken, ("busy", "3")),
            (301, &[], &bare, ("misconfigured", "")),
        ] {
            assert_eq!(
                kind(heard(status, headers, error)),
                (expected.0, expected.1.to_owned()),
                "{status} {headers:?} {error}"
            );
        }
    }

    #[test]
    fn who_gives_no_reason_of_stripes_is_not_stripe() {
        for status in [400, 402, 404, 405] {
            assert_eq!(kind(heard(status, &[], &json!("no"))).0, "misconfigured", "{status}");
        }
        assert_eq!(kind(heard(409, &[], &json!("no"))).0, "unknown");
    }

    #[test]
    fn an_explanation_repeats_no_token_key_or_address() {
        let message = "No such payment_method: 'pm_card_visa' of a@b.example; sk_test_1 pi_1_secret_2 was used";
        let error = json!({ "type": "invalid_request_error", "code": "resource_missing", "message": message });
        let Objection::Error(GatewayError::Refused { detail, .. }) = heard(400, &[("request-id", "req_1")], &error)
        else {
            panic!("a refusal");
        };
        assert_eq!(detail, "No such payment_method: *** of *** *** *** was used (req_1)");
    }

    #[test]
    fn an_explanation_has_an_end() {
        assert_eq!(detail(&"x".repeat(5_000), None).len(), MAX_DETAIL_CHARS);
    }
}
