//! Razorpay's webhooks: their signature, their age, and what they say in the port's words.

use chrono::{DateTime, TimeDelta, Utc};
use domain::ports::{Webhook, WebhookError, WebhookEvent, WebhookKind, WebhookSubject};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::money;
use super::objects::Receipt;
use crate::payments::{
    ConfigError,
    reading::{self, header},
};

/// Oldest event that is believed: it sends again for a day, and on demand for a week. When it was sent is not
/// signed, so a replay within this time is told by the inbox alone.
const OLDEST: TimeDelta = TimeDelta::days(8);

/// The keys that webhooks may be signed with. Has no `Debug`, so that it cannot reach a log.
#[derive(Clone)]
pub(super) struct VerifyingKeys(Vec<Hmac<Sha256>>);

impl VerifyingKeys {
    /// The key is the secret's text as it stands.
    pub(super) fn new(secrets: &[SecretString]) -> Result<VerifyingKeys, ConfigError> {
        let key = |secret: &SecretString| match secret.expose_secret() {
            "" => Err(ConfigError::WebhookSecret),
            secret => Hmac::new_from_slice(secret.as_bytes()).map_err(|_| ConfigError::WebhookSecret),
        };
        let keys = secrets.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(ConfigError::WebhookSecret) } else { Ok(VerifyingKeys(keys)) }
    }

    /// Whether one of them has signed the body: HMAC-SHA256 in lower-case hexadecimal digits.
    pub(super) fn verify(&self, headers: &[(String, String)], body: &[u8]) -> Result<(), WebhookError> {
        let signature = header(headers, "x-razorpay-signature")?;
        if signature.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(WebhookError::BadSignature);
        }
        let signature = hex::decode(signature).map_err(|_| WebhookError::BadSignature)?;
        // In constant time.
        let fits = |key: &Hmac<Sha256>| key.clone().chain_update(body).verify_slice(&signature).is_ok();
        if self.0.iter().any(fits) { Ok(()) } else { Err(WebhookError::BadSignature) }
    }
}

/// What was rightly signed, read as far as it can be.
///
/// # Errors
/// [`WebhookError::TooOld`].
pub(super) fn read(headers: &[(String, String)], body: &[u8], now: DateTime<Utc>) -> Result<Webhook, WebhookError> {
    let event_id = event_id(headers, body);
    let told = match serde_json::from_slice::<Told>(body) {
        Ok(told) => told,
        Err(error) => return Ok(Webhook::Unreadable { event_id, why: error.to_string() }),
    };
    // Some are dated where their payload is.
    let Some(created_at) = told.created_at.or(told.payload.created_at).and_then(|at| DateTime::from_timestamp(at, 0))
    else {
        return Ok(Webhook::Unreadable { event_id, why: "an event without a date".to_owned() });
    };
    if now - created_at > OLDEST {
        return Err(WebhookError::TooOld);
    }
    Ok(match told.parse(&event_id) {
        Ok(event) => Webhook::Event(WebhookEvent { at: Some(created_at), ..event }),
        Err(why) => Webhook::Unreadable { event_id, why },
    })
}

/// The same for each delivery of an event.
fn event_id(headers: &[(String, String)], body: &[u8]) -> String {
    match header(headers, "x-razorpay-event-id") {
        Ok(id) if !id.is_empty() => reading::event_id(id),
        Ok(_) | Err(_) => hex::encode(Sha256::digest(body)),
    }
}

#[derive(Deserialize)]
struct Told {
    event: String,
    payload: Payload,
    created_at: Option<i64>,
}

#[derive(Deserialize)]
struct Payload {
    payment: Option<Entity<TriedPayment>>,
    order: Option<Entity<PaidOrder>>,
    refund: Option<Entity<ToldRefund>>,
    dispute: Option<Entity<ToldDispute>>,
    created_at: Option<i64>,
}

#[derive(Deserialize)]
struct Entity<T> {
    entity: T,
}

#[derive(Deserialize)]
struct TriedPayment {
    id: String,
    order_id: Option<String>,
    amount: Option<i64>,
    currency: Option<String>,
    captured: Option<bool>,
    error_reason: Option<String>,
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct PaidOrder {
    id: String,
    receipt: Option<String>,
    amount_paid: Option<i64>,
    currency: Option<String>,
}

#[derive(Deserialize)]
struct ToldRefund {
    id: String,
    receipt: Option<String>,
    amount: Option<i64>,
    currency: Option<String>,
}

#[derive(Deserialize)]
struct ToldDispute {
    id: String,
    amount: Option<i64>,
    currency: Option<String>,
    reason_code: Option<String>,
}

impl Told {
    fn parse(self, event_id: &str) -> Result<WebhookEvent, String> {
        let kind = self.kind();
        let is_acted_on = !matches!(kind, WebhookKind::Other(_));
        let gateway_payment_id = match (self.payment_id(), is_acted_on) {
            (Some(id), _) => id.to_owned(),
            (None, true) => return Err(format!("{} names no order", self.event)),
            // About nothing on our books.
            (None, false) => event_id.to_owned(),
        };
        let amount = match self.amount() {
            Some((minor, currency)) => match money::from_minor_units(minor, currency) {
                Ok(amount) => Some(amount),
                Err(error) if is_acted_on => return Err(error.to_string()),
                Err(_) => None,
            },
            None => None,
        };
        let event = WebhookEvent {
            event_id: event_id.to_owned(),
            kind,
            gateway_payment_id,
            order_id: self
                .order()
                .and_then(|order| Receipt::parse(order.receipt.as_deref()?))
                .map(|made| made.order_id),
            amount,
            failure: self.failure().map(str::to_owned),
            about: self.about(),
            at: None,
        };
        reading::check_event(&event).map(|()| event)
    }

    fn kind(&self) -> WebhookKind {
        let other = || WebhookKind::Other(self.event.clone());
        match self.event.as_str() {
            // What was paid without an order, straight to the merchant's account, is none of ours.
            _ if self.payment().is_some_and(|payment| payment.order_id.is_none()) => other(),
            // What was never taken goes back when a hold lapses: no money of ours.
            "refund.created" | "refund.processed" | "refund.failed"
                if self.payment().is_some_and(|payment| payment.captured == Some(false)) =>
            {
                other()
            }
            "payment.authorized" => WebhookKind::PaymentAuthorized,
            "payment.captured" | "order.paid" => WebhookKind::PaymentCaptured,
            "refund.created" => WebhookKind::RefundPending,
            "refund.processed" => WebhookKind::RefundSucceeded,
            "refund.failed" => WebhookKind::RefundFailed,
            "payment.dispute.created" => WebhookKind::DisputeOpened,
            "payment.dispute.won" => WebhookKind::DisputeWon,
            "payment.dispute.lost" => WebhookKind::DisputeLost,
            // So is `payment.failed`: the customer may try again.
            _ => other(),
        }
    }

    fn payment(&self) -> Option<&TriedPayment> {
        self.payload.payment.as_ref().map(|payment| &payment.entity)
    }

    fn order(&self) -> Option<&PaidOrder> {
        self.payload.order.as_ref().map(|order| &order.entity)
    }

    fn refund(&self) -> Option<&ToldRefund> {
        self.payload.refund.as_ref().map(|refund| &refund.entity)
    }

    fn dispute(&self) -> Option<&ToldDispute> {
        self.payload.dispute.as_ref().map(|dispute| &dispute.entity)
    }

    /// The order that was paid; of what paid none, its own id.
    fn payment_id(&self) -> Option<&str> {
        let of_payment = self.payment().map(|payment| payment.order_id.as_deref().unwrap_or(&payment.id));
        of_payment.or_else(|| self.order().map(|order| order.id.as_str()))
    }

    /// Of the refund or dispute, if it is about one; else of the payment, not of all its order.
    fn amount(&self) -> Option<(i64, &str)> {
        let (amount, currency) = match (self.refund(), self.dispute(), self.payment(), self.order()) {
            (Some(refund), ..) => (refund.amount, refund.currency.as_deref()),
            (None, Some(dispute), ..) => (dispute.amount, dispute.currency.as_deref()),
            (None, None, Some(payment), _) => (payment.amount, payment.currency.as_deref()),
            (None, None, None, Some(order)) => (order.amount_paid, order.currency.as_deref()),
            (None, None, None, None) => (None, None),
        };
        amount.zip(currency)
    }

    fn failure(&self) -> Option<&str> {
        let of_dispute = self.dispute().and_then(|dispute| dispute.reason_code.as_deref());
        let of_payment = self.payment().filter(|_| self.event == "payment.failed").and_then(|payment| {
            let said = [&payment.error_reason, &payment.error_description].into_iter().flatten();
            said.map(String::as_str).find(|said| !said.is_empty())
        });
        of_dispute.or(of_payment)
    }

    fn about(&self) -> Option<WebhookSubject> {
        let of_refund = self.refund().map(|refund| WebhookSubject {
            gateway_id: refund.id.clone(),
            refund_id: refund.receipt.as_deref().and_then(|receipt| Uuid::parse_str(receipt).ok()),
        });
        of_refund.or_else(|| {
            self.dispute().map(|dispute| WebhookSubject { gateway_id: dispute.id.clone(), refund_id: None })
        })
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::OrderId;
    use domain::money::Currency;
    use serde_json::{Value, json};

    use super::*;

    /// A body that was signed by Razorpay's own library for Node (2.9.8), which passed what passes here and refused
    /// what is refused.
    const SECRET: &str = "rzp_webhook_secret";
    const SIGNATURE: &str = "3ccb6a24474b30b99112a0f0b2256b16c66e0d2cdf5aad8e7c8d9c4c130914aa";
    const BODY: &str = r#"{"entity":"event","account_id":"acc_1","event":"payment.captured","contains":["payment"],"payload":{"payment":{"entity":{"id":"pay_1","entity":"payment","amount":5905000,"currency":"INR","status":"captured","order_id":"order_1","method":"upi","amount_refunded":0,"captured":true,"description":"café \/ ₹","notes":[],"created_at":1567674599}}},"created_at":1567674606}"#;
    const CREATED: i64 = 1_567_674_606;

    fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn keys(secrets: &[&str]) -> VerifyingKeys {
        VerifyingKeys::new(&secrets.iter().map(|secret| SecretString::from(*secret)).collect::<Vec<_>>()).unwrap()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn what_the_gateways_own_library_says_of_a_signature_is_said_here() {
        let re_serialised = BODY.replace(r"\/", "/");
        for (name, signature, body, accepted) in [
            ("as signed", SIGNATURE, BODY, true),
            ("re-serialised", SIGNATURE, re_serialised.as_str(), false),
            ("upper case", &SIGNATURE.to_uppercase(), BODY, false),
            ("cut short", &SIGNATURE[..40], BODY, false),
            ("empty", "", BODY, false),
            ("no digits", "signature", BODY, false),
        ] {
            let verified = keys(&[SECRET]).verify(&headers(&[("X-Razorpay-Signature", signature)]), body.as_bytes());
            assert_eq!(verified.is_ok(), accepted, "{name}");
        }
    }

    #[test]
    fn any_of_the_secrets_may_have_signed() {
        let signed = headers(&[("x-razorpay-signature", SIGNATURE)]);
        for (secrets, accepted) in [
            (&["new", SECRET][..], true),
            (&[SECRET, "old"], true),
            (&["new", "old"], false),
            (&["rzp_webhook"], false),
        ] {
            assert_eq!(keys(secrets).verify(&signed, BODY.as_bytes()).is_ok(), accepted, "{secrets:?}");
        }
        assert!(VerifyingKeys::new(&[]).is_err());
        assert!(VerifyingKeys::new(&[SECRET.into(), "".into()]).is_err());
    }

    #[test]
    fn a_missing_or_doubled_signature_is_refused() {
        let doubled = headers(&[("x-razorpay-signature", SIGNATURE), ("X-Razorpay-Signature", SIGNATURE)]);
        for headers in [Vec::new(), doubled] {
            assert_eq!(keys(&[SECRET]).verify(&headers, BODY.as_bytes()), Err(WebhookError::BadSignature));
        }
    }

    #[test]
    fn eight_days_are_tolerated_and_no_more() {
        let days = 8 * 24 * 3600;
        for (later, accepted) in [(0, true), (days, true), (days + 1, false), (-3600, true)] {
            let read = read(&[], BODY.as_bytes(), at(CREATED + later));
            assert_eq!(read.is_ok(), accepted, "{later} s later: {read:?}");
        }
        let inside = json!({ "event": "refund.speed_changed", "payload": { "created_at": CREATED } }).to_string();
        assert!(matches!(read(&[], inside.as_bytes(), at(CREATED)), Ok(Webhook::Event(_))));
        assert_eq!(read(&[], inside.as_bytes(), at(CREATED + days + 1)), Err(WebhookError::TooOld));
    }

    #[test]
    fn an_event_without_an_id_is_named_by_its_body() {
        let named = |pairs: &[(&str, &str)], body: &str| event_id(&headers(pairs), body.as_bytes());
        assert_eq!(named(&[("X-Razorpay-Event-Id", "evt_1")], BODY), "evt_1");
        assert_eq!(named(&[], "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(named(&[("x-razorpay-event-id", "")], "abc"), named(&[], "abc"));
        let long = "x".repeat(reading::MAX_ID + 1);
        assert_eq!(named(&[("x-razorpay-event-id", &long)], BODY).len(), 36);
        assert_ne!(named(&[], BODY), named(&[], "abc"));
    }

    fn payment(order_id: Value, captured: bool) -> Value {
        json!({ "entity": { "id": "pay_1", "entity": "payment", "amount": 5_905_000, "currency": "INR", "order_id": order_id,
            "captured": captured, "status": "captured", "error_reason": "incorrect_pin", "error_description": "" } })
    }

    fn told(name: &str, payload: &Value) -> Webhook {
        let body =
            json!({ "entity": "event", "event": name, "contains": [], "payload": payload, "created_at": CREATED });
        let headers = headers(&[("x-razorpay-event-id", "evt_1")]);
        read(&headers, body.to_string().as_bytes(), at(CREATED)).unwrap()
    }

    fn event(name: &str, payload: &Value) -> WebhookEvent {
        match told(name, payload) {
            Webhook::Event(event) => event,
            Webhook::Unreadable { why, .. } => panic!("{name}: {why}"),
        }
    }

    #[test]
    fn every_event_has_its_meaning() {
        use WebhookKind::{
            DisputeLost, DisputeOpened, DisputeWon, Other, PaymentAuthorized, PaymentCaptured, RefundFailed,
            RefundPending, RefundSucceeded,
        };
        let ours = payment(json!("order_1"), true);
        let refund = json!({ "entity": { "id": "rfnd_1", "amount": 100, "currency": "INR", "receipt": null } });
        let dispute = json!({ "entity": { "id": "disp_1", "amount": 200, "currency": "INR", "reason_code": "fraud" } });
        let paid = json!({ "payment": ours });
        let returned = json!({ "payment": ours, "refund": refund });
        let disputed = json!({ "payment": ours, "dispute": dispute });
        let other = |name: &str| Other(name.to_owned());
        for (name, payload, expected, minor, failure) in [
            ("payment.authorized", &paid, PaymentAuthorized, 5_905_000, None),
            ("payment.captured", &paid, PaymentCaptured, 5_905_000, None),
            ("order.paid", &paid, PaymentCaptured, 5_905_000, None),
            ("payment.failed", &paid, other("payment.failed"), 5_905_000, Some("incorrect_pin")),
            ("refund.created", &returned, RefundPending, 100, None),
            ("refund.processed", &returned, RefundSucceeded, 100, None),
            ("refund.failed", &returned, RefundFailed, 100, None),
            ("refund.speed_changed", &returned, other("refund.speed_changed"), 100, None),
            ("payment.dispute.created", &disputed, DisputeOpened, 200, Some("fraud")),
            ("payment.dispute.won", &disputed, DisputeWon, 200, Some("fraud")),
            ("payment.dispute.lost", &disputed, DisputeLost, 200, Some("fraud")),
            ("payment.dispute.closed", &disputed, other("payment.dispute.closed"), 200, Some("fraud")),
        ] {
            let event = event(name, payload);
            assert_eq!(event.kind, expected);
            assert_eq!(event.gateway_payment_id, "order_1", "{name}");
            assert_eq!(event.amount, money::from_minor_units(minor, "INR").ok(), "{name}");
            assert_eq!(event.failure.as_deref(), failure, "{name}");
        }
    }

    #[test]
    fn a_refund_or_dispute_is_named() {
        let ours = payment(json!("order_1"), true);
        let refund_id = Uuid::from_u128(7);
        for (receipt, expected) in
            [(json!(refund_id.to_string()), Some(refund_id)), (json!("Receipt No. 31"), None), (Value::Null, None)]
        {
            let refund = json!({ "entity": { "id": "rfnd_1", "amount": 100, "currency": "INR", "receipt": receipt } });
            let about = event("refund.processed", &json!({ "payment": ours, "refund": refund })).about;
            assert_eq!(about, Some(WebhookSubject { gateway_id: "rfnd_1".to_owned(), refund_id: expected }));
        }
        let dispute = json!({ "entity": { "id": "disp_1", "amount": 1, "currency": "INR" } });
        let about = event("payment.dispute.created", &json!({ "payment": ours, "dispute": dispute })).about;
        assert_eq!(about, Some(WebhookSubject { gateway_id: "disp_1".to_owned(), refund_id: None }));
        assert_eq!(event("payment.captured", &json!({ "payment": ours })).about, None);
    }

    #[test]
    fn an_order_says_whose_it_is() {
        let order_id = OrderId::generate();
        let order = json!({ "entity": { "id": "order_1", "amount_paid": 900, "currency": "INR", "receipt": format!("{order_id}-2") } });
        let event = event("order.paid", &json!({ "order": order }));
        assert_eq!((event.gateway_payment_id.as_str(), event.order_id), ("order_1", Some(order_id)));
        assert_eq!(event.amount.map(|amount| amount.currency()), Some(Currency::INR));
    }

    #[test]
    fn what_is_not_ours_is_not_acted_on() {
        let refund = json!({ "entity": { "id": "rfnd_1", "amount": 100, "currency": "INR" } });
        for (name, payload, of) in [
            // Straight to the merchant's account.
            ("payment.captured", json!({ "payment": payment(Value::Null, true) }), "pay_1"),
            ("refund.processed", json!({ "payment": payment(Value::Null, true), "refund": refund }), "pay_1"),
            // A hold that has lapsed.
            ("refund.created", json!({ "payment": payment(json!("order_1"), false), "refund": refund }), "order_1"),
            ("refund.processed", json!({ "payment": payment(json!("order_1"), false), "refund": refund }), "order_1"),
            // About no payment at all.
            ("settlement.processed", json!({ "settlement": { "entity": { "id": "setl_1" } } }), "evt_1"),
            // In a currency that we do not know.
            (
                "invoice.paid",
                json!({ "order": { "entity": { "id": "order_2", "amount_paid": 1, "currency": "XXL" } } }),
                "order_2",
            ),
        ] {
            let event = event(name, &payload);
            assert_eq!(event.kind, WebhookKind::Other(name.to_owned()));
            assert_eq!(event.gateway_payment_id, of, "{name}");
        }
    }

    #[test]
    fn what_is_rightly_signed_is_kept_whatever_it_says() {
        let long = "x".repeat(reading::MAX_ID + 1);
        let entity = |order_id: &str, currency: &str| json!({ "payment": { "entity": { "id": "pay_1", "order_id": order_id, "amount": 1, "currency": currency } } });
        let refund = |id: &str| json!({ "payment": payment(json!("order_1"), true), "refund": { "entity": { "id": id, "amount": 1, "currency": "INR" } } });
        for (name, payload) in [
            ("payment.captured", json!({})),
            ("payment.captured", json!(null)),
            ("payment.captured", json!({ "payment": { "entity": [] } })),
            ("payment.captured", entity("order_1", "XXL")),
            ("payment.captured", entity("", "INR")),
            ("payment.captured", entity(&long, "INR")),
            ("payment.captured", entity("order\0", "INR")),
            ("settlement\0", json!({})),
            ("refund.processed", refund(&long)),
            ("refund.processed", json!({ "refund": { "entity": { "id": "rfnd_1" } } })),
            ("payment.dispute.created", json!({ "dispute": { "entity": { "id": "disp_1" } } })),
        ] {
            let told = told(name, &payload);
            assert!(
                matches!(&told, Webhook::Unreadable { event_id, .. } if event_id == "evt_1"),
                "{payload}: {told:?}"
            );
        }
        for body in [
            "not JSON",
            "{}",
            r#"{"event":"payment.captured","payload":{}}"#,
            r#"{"event":"a","payload":{},"created_at":"1"}"#,
        ] {
            let read = read(&headers(&[("x-razorpay-event-id", "evt_1")]), body.as_bytes(), at(CREATED));
            assert!(matches!(read, Ok(Webhook::Unreadable { .. })), "{body}: {read:?}");
        }
    }
}
