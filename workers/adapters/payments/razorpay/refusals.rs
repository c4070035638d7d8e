//! Which of Razorpay's errors means what. Its codes are coarse (`BAD_REQUEST_ERROR` for nearly everything), so
//! what was wrong is told by the description, whose texts it publishes for each call.

use domain::ports::GatewayError;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::payments::exchange::Answer;

/// The code of a refusal: it knows nothing of that id.
pub(super) const UNKNOWN_ID: &str = "unknown-id";
/// The code of a refusal: a refund with that receipt exists.
pub(super) const DUPLICATE_RECEIPT: &str = "duplicate-receipt";

/// When to come again for a payment that another operation has in hand.
const LOCKED_S: u64 = 5;
/// When to come again once somebody may have put money on the account.
const POOR_S: u64 = 3600;

#[derive(Deserialize)]
struct Problem {
    error: Words,
}

#[derive(Deserialize)]
struct Words {
    code: Option<String>,
    description: Option<String>,
    reason: Option<String>,
}

impl Words {
    /// The finest name that it has for the error. `NA` is what it writes for none.
    fn code(&self) -> String {
        let reason = self.reason.as_deref().filter(|reason| !reason.is_empty() && *reason != "NA");
        reason.or(self.code.as_deref()).unwrap_or("refused").to_owned()
    }
}

/// What a description says, going by words that are stable in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saying {
    /// There is no such order or payment.
    UnknownId,
    /// There is a refund with that receipt.
    DuplicateReceipt,
    /// Another operation has the payment in hand.
    Locked,
    /// Our account with it has too little to send back.
    Poor,
    /// It does not know us, or the address is wrong. It answers so with 400, too.
    Misconfigured,
    /// Our idempotency key was used for something else.
    KeyReused,
}

const SAYINGS: [(&str, Saying); 11] = [
    ("id provided does not exist", Saying::UnknownId),
    ("is not a valid id", Saying::UnknownId),
    ("duplicate receipt", Saying::DuplicateReceipt),
    ("operation is in progress", Saying::Locked),
    ("try after sometime", Saying::Locked),
    ("enough balance", Saying::Poor),
    ("api key", Saying::Misconfigured),
    ("api secret", Saying::Misconfigured),
    ("url was not found", Saying::Misconfigured),
    ("access denied", Saying::Misconfigured),
    ("different request with the same idempotency key", Saying::KeyReused),
];

fn saying(description: &str) -> Option<Saying> {
    let description = description.to_lowercase();
    SAYINGS.iter().find(|(words, _)| description.contains(words)).map(|(_, saying)| *saying)
}

/// What an answer that is not a success means.
pub(super) fn error(answer: &Answer) -> GatewayError {
    // About what was asked, if it says so itself; what other statuses mean needs no words.
    let is_about_it = matches!(answer.status.as_u16(), 400 | 402 | 404 | 409 | 410 | 422);
    let words = answer.problem::<Problem>().map(|problem| problem.error).filter(|_| is_about_it);
    let Some(words) = words else { return answer.error(None) };
    let detail = words.description.clone().unwrap_or_default();
    match (words.code.as_deref(), saying(&detail)) {
        // Its own trouble, or a bank's, whatever the status.
        (Some("SERVER_ERROR" | "GATEWAY_ERROR" | "SERVICE_UNAVAILABLE"), _) => GatewayError::Unknown(detail),
        (_, Some(Saying::UnknownId)) => GatewayError::Refused { code: UNKNOWN_ID.to_owned(), detail },
        (_, Some(Saying::DuplicateReceipt)) => GatewayError::Refused { code: DUPLICATE_RECEIPT.to_owned(), detail },
        (_, Some(Saying::Locked)) => GatewayError::NotNow { code: words.code(), detail, after_s: LOCKED_S },
        (_, Some(Saying::Poor)) => GatewayError::NotNow { code: words.code(), detail, after_s: POOR_S },
        (_, Some(Saying::Misconfigured)) => answer.misconfigured("does not know us, or its address is wrong"),
        (_, Some(Saying::KeyReused)) => GatewayError::Refused { code: words.code(), detail },
        // A call under the same key is still under way.
        (_, None) if answer.status == StatusCode::CONFLICT => GatewayError::Unknown(detail),
        (_, None) => answer.error(Some((words.code(), detail))),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
    use serde_json::json;

    use super::*;

    fn heard(status: u16, body: &str, retry_after: Option<&'static str>) -> GatewayError {
        let mut headers = HeaderMap::new();
        headers.extend(retry_after.map(|value| (RETRY_AFTER, HeaderValue::from_static(value))));
        error(&Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.as_bytes().to_vec() })
    }

    fn said(code: &str, description: &str) -> String {
        json!({ "error": { "code": code, "description": description, "reason": "NA", "metadata": {} } }).to_string()
    }

    /// A class of the port's errors, and when to come again.
    fn class(error: &GatewayError) -> (&'static str, u64) {
        match error {
            GatewayError::Unknown(_) => ("unknown", 0),
            GatewayError::Busy { after_s, .. } => ("busy", *after_s),
            GatewayError::NotNow { after_s, .. } => ("not now", *after_s),
            GatewayError::Misconfigured(_) => ("misconfigured", 0),
            GatewayError::Refused { .. } => ("refused", 0),
        }
    }

    #[test]
    fn every_published_error_has_its_meaning() {
        for (status, description, expected) in [
            (400, "The payment has been fully refunded already.", ("refused", 0)),
            (400, "The refund amount provided is greater than amount captured.", ("refused", 0)),
            (400, "The total refund amount is greater than the refund payment amount", ("refused", 0)),
            (400, "Duplicate receipt found for this refund request.", ("refused", 0)),
            (400, "This payment has already been captured", ("refused", 0)),
            (400, "Your payment has been declined as the order is already paid.", ("refused", 0)),
            (400, "Capture amount must be equal to the amount authorized.", ("refused", 0)),
            (400, "The payment status should be captured for action to be taken.", ("refused", 0)),
            (400, "The amount must be at least INR 1.00.", ("refused", 0)),
            (400, "speed is/are not required and should not be sent", ("refused", 0)),
            (400, "The id provided does not exist", ("refused", 0)),
            (400, "order_1 is not a valid id", ("refused", 0)),
            (404, "The id provided does not exist", ("refused", 0)),
            (422, "anything", ("refused", 0)),
            (400, "Different request with the same idempotency key has already been processed.", ("refused", 0)),
            (409, "Different request with the same idempotency key has already been processed.", ("refused", 0)),
            (
                409,
                "Request failed because another request is in progress with the same Idempotency Key",
                ("unknown", 0),
            ),
            (400, "Request failed because another payment operation is in progress.", ("not now", LOCKED_S)),
            (400, "Request failed. Please try after sometime.", ("not now", LOCKED_S)),
            (
                400,
                "Your account does not have enough balance to carry out the refund operation. You can add funds.",
                ("not now", POOR_S),
            ),
            (400, "The api key provided is invalid", ("misconfigured", 0)),
            (400, "The API secret provided is invalid", ("misconfigured", 0)),
            (400, "The requested URL was not found on the server.", ("misconfigured", 0)),
            (400, "Access Denied", ("misconfigured", 0)),
            (401, "Authentication failed", ("misconfigured", 0)),
            (403, "Access forbidden for requested resource", ("misconfigured", 0)),
            (404, "The requested route is disabled.", ("misconfigured", 0)),
            (500, "We are facing some trouble completing your request at the moment.", ("unknown", 0)),
            (502, "The id provided does not exist", ("unknown", 0)),
            (504, "", ("unknown", 0)),
        ] {
            let error = heard(status, &said("BAD_REQUEST_ERROR", description), None);
            assert_eq!(class(&error), expected, "{status} {description}: {error:?}");
        }
    }

    #[test]
    fn trouble_on_its_side_is_unknown_whatever_the_status() {
        for code in ["SERVER_ERROR", "GATEWAY_ERROR", "SERVICE_UNAVAILABLE"] {
            let error = heard(400, &said(code, "The refund amount provided is greater than amount captured."), None);
            assert_eq!(class(&error), ("unknown", 0), "{code}");
        }
    }

    #[test]
    fn who_asks_to_come_again_says_when() {
        for (status, retry_after, expected) in [
            (429, Some("17"), ("busy", 17)),
            (429, None, ("busy", 5)),
            (503, Some("3"), ("busy", 3)),
            (503, None, ("unknown", 0)),
        ] {
            let error = heard(status, &said("BAD_REQUEST_ERROR", "Too many requests"), retry_after);
            assert_eq!(class(&error), expected, "{status} {retry_after:?}");
        }
    }

    #[test]
    fn what_is_not_in_its_words_is_no_refusal() {
        for body in ["", "<html>", "{}", r#"{"error":"no"}"#] {
            assert_eq!(class(&heard(400, body, None)), ("misconfigured", 0), "{body}");
            assert_eq!(class(&heard(500, body, None)), ("unknown", 0), "{body}");
        }
    }

    #[test]
    fn a_refusal_has_the_finest_code_it_gives() {
        for (error, expected) in [
            (
                json!({ "code": "BAD_REQUEST_ERROR", "description": "d", "reason": "input_validation_failed" }),
                "input_validation_failed",
            ),
            (json!({ "code": "BAD_REQUEST_ERROR", "description": "d", "reason": "NA" }), "BAD_REQUEST_ERROR"),
            (json!({ "code": "BAD_REQUEST_ERROR", "description": null, "reason": null }), "BAD_REQUEST_ERROR"),
            (json!({ "code": null, "description": null }), "refused"),
            (json!({ "code": "BAD_REQUEST_ERROR", "description": "The id provided does not exist" }), UNKNOWN_ID),
            (json!({ "code": "BAD_REQUEST_ERROR", "description": "Duplicate receipt found" }), DUPLICATE_RECEIPT),
        ] {
            let heard = heard(400, &json!({ "error": error }).to_string(), None);
            assert!(matches!(&heard, GatewayError::Refused { code, .. } if code == expected), "{error}: {heard:?}");
        }
    }
}
