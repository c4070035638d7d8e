//! The bodies of our calls: forms, whose names Stripe reads as paths (`metadata[order_id]`).

use domain::money::Money;
use domain::ports::{Capture, GatewayError, PaymentRequest, Proceeding, RefundOrder};

use super::money::to_minor;

/// What every card token begins with. Older kinds of token cannot pay a PaymentIntent.
const TOKEN: &str = "pm_";

/// A form in the order in which it is sent: a key that is repeated must come with the same bytes.
pub(super) type Form = Vec<(&'static str, String)>;

/// Asked for with every payment: only the charge knows what went back.
fn with_charge() -> (&'static str, String) {
    ("expand[]", "latest_charge".to_owned())
}

/// To begin collecting.
///
/// # Errors
/// [`GatewayError::Refused`] of what Stripe need not be asked.
pub(super) fn payment(request: &PaymentRequest) -> Result<Form, GatewayError> {
    let mut form = vec![
        ("amount", minor(&request.amount)?),
        ("currency", request.amount.currency().as_str().to_ascii_lowercase()),
        ("payment_method", token(request)?.to_owned()),
        ("confirm", "true".to_owned()),
        ("payment_method_types[]", "card".to_owned()),
        ("capture_method", capture_method(request.capture).to_owned()),
        ("return_url", request.return_url.clone()),
        ("description", request.order_number.clone()),
        ("metadata[order_id]", request.order_id.to_string()),
        ("metadata[attempt]", request.attempt.to_string()),
        with_charge(),
    ];
    form.extend(request.email.clone().map(|email| ("receipt_email", email)));
    Ok(form)
}

/// To take what is set aside.
///
/// # Errors
/// As [`payment`].
pub(super) fn capture(proceeding: &Proceeding) -> Result<Form, GatewayError> {
    Ok(vec![("amount_to_capture", minor(&proceeding.amount)?), with_charge()])
}

/// To close a payment.
pub(super) fn cancellation() -> Form {
    vec![("cancellation_reason", "abandoned".to_owned()), with_charge()]
}

/// To send money back.
///
/// # Errors
/// As [`payment`].
pub(super) fn refund(refund: &RefundOrder) -> Result<Form, GatewayError> {
    Ok(vec![
        ("payment_intent", refund.gateway_payment_id.clone()),
        ("amount", minor(&refund.amount)?),
        ("metadata[refund_id]", refund.refund_id.to_string()),
        ("metadata[order_id]", refund.order_id.to_string()),
    ])
}

/// To look at one payment.
pub(super) fn look() -> Form {
    vec![with_charge()]
}

fn capture_method(capture: Capture) -> &'static str {
    match capture {
        Capture::Take => "automatic",
        Capture::Hold => "manual",
    }
}

fn token(request: &PaymentRequest) -> Result<&str, GatewayError> {
    request.token.as_deref().filter(|token| token.starts_with(TOKEN)).ok_or_else(|| GatewayError::Refused {
        code: "payment-token-unsupported".to_owned(),
        detail: format!("Stripe is paid with tokens that begin with {TOKEN}"),
    })
}

fn minor(amount: &Money) -> Result<String, GatewayError> {
    let minor = to_minor(amount)?;
    Ok(minor.to_string())
}
