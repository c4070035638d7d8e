//! What PayPal's errors mean. They are told apart by `details[].issue`, which is stable; descriptions are not.

use domain::ports::GatewayError;
use serde::Deserialize;

use super::super::exchange::{Answer, Meaning};
use super::objects::Link;

/// How long to leave alone what waits for money to arrive, on our account or from the customer's bank, in seconds.
const MONEY_ARRIVES_S: u64 = 60 * 60;

/// An answer that is not a success.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) says: Says,
    /// What it is to a caller that cannot do anything with what it says, or has looked in vain.
    pub(super) error: GatewayError,
}

/// What a refusal says of the payment itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// It was done before, or has gone another way: a look tells which.
    Look,
    /// The customer must go to PayPal's page again; to this one, if PayPal says.
    SendPayer(Option<String>),
    /// It is not there, or can never be paid any more.
    Gone,
    /// No more than the error.
    Nothing,
}

impl Refusal {
    /// A look tells; if it tells nothing new, this is the error.
    pub(super) fn look(error: GatewayError) -> Refusal {
        Refusal { says: Says::Look, error }
    }
}

impl From<GatewayError> for Refusal {
    fn from(error: GatewayError) -> Refusal {
        Refusal { says: Says::Nothing, error }
    }
}

impl From<Refusal> for GatewayError {
    fn from(refusal: Refusal) -> GatewayError {
        refusal.error
    }
}

/// PayPal's own words. Whoever does not write like this is not PayPal.
#[derive(Deserialize)]
struct Problem {
    name: String,
    #[serde(default)]
    message: String,
    debug_id: Option<String>,
    #[serde(default)]
    details: Vec<Detail>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Detail {
    issue: String,
    description: Option<String>,
}

/// What `answer`, which is not a success, means.
pub(super) fn refusal(answer: &Answer) -> Refusal {
    let Some(problem) = answer.problem::<Problem>() else { return answer.error(None).into() };
    let (code, detail) = problem.words();
    if answer.status.as_u16() == 404 && problem.is_not_found() {
        return Refusal { says: Says::Gone, error: GatewayError::Refused { code, detail } };
    }
    if answer.meaning() != Meaning::Refusal {
        return answer.error(None).into();
    }
    match code.as_str() {
        "ORDER_ALREADY_CAPTURED"
        | "ORDER_ALREADY_AUTHORIZED"
        | "ORDER_ALREADY_COMPLETED"
        | "ORDER_COMPLETED_OR_VOIDED"
        | "AUTHORIZATION_ALREADY_CAPTURED"
        | "PREVIOUSLY_CAPTURED"
        | "PREVIOUSLY_VOIDED" => Refusal::look(GatewayError::Unknown(format!("PayPal says {code}, and shows nothing"))),
        "CAPTURE_FULLY_REFUNDED"
        | "REFUND_AMOUNT_EXCEEDED"
        | "DUPLICATE_INVOICE_ID"
        | "AUTHORIZATION_VOIDED"
        | "AUTHORIZATION_DENIED"
        | "AUTHORIZATION_EXPIRED" => Refusal::look(GatewayError::Refused { code, detail }),
        "INSTRUMENT_DECLINED"
        | "PAYER_ACTION_REQUIRED"
        | "ORDER_NOT_APPROVED"
        | "REDIRECT_PAYER_FOR_ALTERNATE_FUNDING" => {
            let page = problem.page();
            Refusal { says: Says::SendPayer(page), error: GatewayError::Refused { code, detail } }
        }
        "ORDER_EXPIRED" => Refusal { says: Says::Gone, error: GatewayError::Refused { code, detail } },
        "REFUND_FAILED_INSUFFICIENT_FUNDS" | "PENDING_CAPTURE" => {
            GatewayError::NotNow { code, detail, after_s: MONEY_ARRIVES_S }.into()
        }
        "PREVIOUS_REQUEST_IN_PROGRESS" | "ORDER_COMPLETION_IN_PROGRESS" => {
            GatewayError::Unknown(format!("PayPal says {code}")).into()
        }
        _ => answer.error(Some((code, detail))).into(),
    }
}

impl Problem {
    /// The stable code, and the explanation for the log. What was sent is not repeated in it.
    fn words(&self) -> (String, String) {
        let (code, detail) = match self.details.first() {
            Some(Detail { issue, description }) => (issue, description.as_ref().unwrap_or(&self.message)),
            None => (&self.name, &self.message),
        };
        let detail = match &self.debug_id {
            Some(debug_id) => format!("{detail} (debug id {debug_id})"),
            None => detail.clone(),
        };
        (code.clone(), detail)
    }

    fn is_not_found(&self) -> bool {
        self.name == "RESOURCE_NOT_FOUND" || self.details.iter().any(|detail| detail.issue == "INVALID_RESOURCE_ID")
    }

    fn page(&self) -> Option<String> {
        Link::find(&self.links, &["payer-action", "approve", "redirect"])
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, RETRY_AFTER};
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() }
    }

    fn problem(status: u16, name: &str, issue: &str) -> Answer {
        let details = json!([{ "issue": issue, "description": "Because.", "field": "/x", "value": "secret" }]);
        let body = json!({ "name": name, "message": "No.", "debug_id": "d1", "details": details, "links": [] });
        answer(status, &body.to_string())
    }

    #[test]
    fn every_issue_of_the_table_has_its_meaning() {
        let refused =
            |code: &str| GatewayError::Refused { code: code.to_owned(), detail: "Because. (debug id d1)".to_owned() };
        let later = |code: &str| GatewayError::NotNow {
            code: code.to_owned(),
            detail: "Because. (debug id d1)".to_owned(),
            after_s: MONEY_ARRIVES_S,
        };
        let unshown = |code: &str| GatewayError::Unknown(format!("PayPal says {code}, and shows nothing"));
        let underway = |code: &str| GatewayError::Unknown(format!("PayPal says {code}"));
        type Error<'a> = &'a dyn Fn(&str) -> GatewayError;
        let table: [(&str, Says, Error<'_>); 25] = [
            ("ORDER_ALREADY_CAPTURED", Says::Look, &unshown),
            ("ORDER_ALREADY_AUTHORIZED", Says::Look, &unshown),
            ("ORDER_ALREADY_COMPLETED", Says::Look, &unshown),
            ("ORDER_COMPLETED_OR_VOIDED", Says::Look, &unshown),
            ("AUTHORIZATION_ALREADY_CAPTURED", Says::Look, &unshown),
            ("PREVIOUSLY_CAPTURED", Says::Look, &unshown),
            ("PREVIOUSLY_VOIDED", Says::Look, &unshown),
            ("CAPTURE_FULLY_REFUNDED", Says::Look, &refused),
            ("REFUND_AMOUNT_EXCEEDED", Says::Look, &refused),
            ("DUPLICATE_INVOICE_ID", Says::Look, &refused),
            ("AUTHORIZATION_VOIDED", Says::Look, &refused),
            ("AUTHORIZATION_DENIED", Says::Look, &refused),
            ("AUTHORIZATION_EXPIRED", Says::Look, &refused),
            ("INSTRUMENT_DECLINED", Says::SendPayer(None), &refused),
            ("PAYER_ACTION_REQUIRED", Says::SendPayer(None), &refused),
            ("ORDER_NOT_APPROVED", Says::SendPayer(None), &refused),
            ("REDIRECT_PAYER_FOR_ALTERNATE_FUNDING", Says::SendPayer(None), &refused),
            ("ORDER_EXPIRED", Says::Gone, &refused),
            ("REFUND_FAILED_INSUFFICIENT_FUNDS", Says::Nothing, &later),
            ("PENDING_CAPTURE", Says::Nothing, &later),
            ("PREVIOUS_REQUEST_IN_PROGRESS", Says::Nothing, &underway),
            ("ORDER_COMPLETION_IN_PROGRESS", Says::Nothing, &underway),
            ("TRANSACTION_REFUSED", Says::Nothing, &refused),
            ("PAYEE_ACCOUNT_RESTRICTED", Says::Nothing, &refused),
            ("SOMETHING_NEW", Says::Nothing, &refused),
        ];
        for (issue, says, error) in table {
            let heard = refusal(&problem(422, "UNPROCESSABLE_ENTITY", issue));
            assert_eq!(heard, Refusal { says, error: error(issue) }, "{issue}");
        }
    }

    #[test]
    fn a_request_in_progress_is_unknown_as_a_conflict_too() {
        let heard = refusal(&problem(409, "RESOURCE_CONFLICT", "PREVIOUS_REQUEST_IN_PROGRESS"));
        assert!(matches!(heard.error, GatewayError::Unknown(_)), "{heard:?}");
    }

    #[test]
    fn a_malformed_request_is_refused() {
        let heard = refusal(&problem(400, "INVALID_REQUEST", "INVALID_PARAMETER_SYNTAX"));
        assert!(
            matches!(&heard.error, GatewayError::Refused { code, .. } if code == "INVALID_PARAMETER_SYNTAX"),
            "{heard:?}"
        );
        let heard = refusal(&answer(400, r#"{"name":"INVALID_REQUEST","message":"No."}"#));
        assert!(
            matches!(&heard.error, GatewayError::Refused { code, detail } if code == "INVALID_REQUEST" && detail == "No."),
            "{heard:?}"
        );
    }

    #[test]
    fn only_paypals_own_word_makes_an_order_gone() {
        let heard = refusal(&problem(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID"));
        assert_eq!(heard.says, Says::Gone);
        for stranger in ["<html>not found</html>", "{}", r#"{"name":"NOT_FOUND"}"#, r#"{"error":"no route"}"#] {
            let heard = refusal(&answer(404, stranger));
            assert_eq!(heard.says, Says::Nothing, "{stranger}");
            assert!(matches!(heard.error, GatewayError::Misconfigured(_)), "{stranger}: {heard:?}");
        }
    }

    #[test]
    fn an_issue_says_nothing_when_the_status_is_about_something_else() {
        for (status, is_expected) in [
            (401, (|error| matches!(error, GatewayError::Misconfigured(_))) as fn(&GatewayError) -> bool),
            (403, |error| matches!(error, GatewayError::Misconfigured(_))),
            (429, |error| matches!(error, GatewayError::Busy { after_s: 5, .. })),
            (500, |error| matches!(error, GatewayError::Unknown(_))),
            (503, |error| matches!(error, GatewayError::Unknown(_))),
        ] {
            let heard = refusal(&problem(status, "X", "ORDER_ALREADY_CAPTURED"));
            assert!(heard.says == Says::Nothing && is_expected(&heard.error), "{status}: {heard:?}");
        }
        let mut busy = problem(429, "RATE_LIMIT_REACHED", "RATE_LIMIT_REACHED");
        busy.headers.insert(RETRY_AFTER, reqwest::header::HeaderValue::from_static("17"));
        assert!(matches!(refusal(&busy).error, GatewayError::Busy { after_s: 17, .. }));
    }

    #[test]
    fn the_page_for_the_payer_is_taken_from_the_refusal() {
        let links = json!([
            { "rel": "information_link", "href": "https://developer" },
            { "rel": "redirect", "href": "https://paypal/checkoutnow?token=5O1", "method": "GET" },
        ]);
        let body =
            json!({ "name": "UNPROCESSABLE_ENTITY", "details": [{ "issue": "INSTRUMENT_DECLINED" }], "links": links });
        let heard = refusal(&answer(422, &body.to_string()));
        assert_eq!(heard.says, Says::SendPayer(Some("https://paypal/checkoutnow?token=5O1".to_owned())));
    }
}
