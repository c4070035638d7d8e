//! What Stripe's events mean (its page "Types of events").

use chrono::DateTime;
use domain::ports::{GatewayRefundStatus, WebhookEvent, WebhookKind, WebhookSubject};
use serde::Deserialize;
use serde_json::Value;

use super::super::reading;
use super::money::from_minor;
use super::objects::{Metadata, PaymentError, refund_status};

/// Reads an event; the error says what is strange about it. `is_live`: whether our own key moves real money.
pub(super) fn read(event: Value, event_id: &str, is_live: bool) -> Result<WebhookEvent, String> {
    let Told { name, livemode, created, data } = Told::deserialize(event).map_err(|error| error.to_string())?;
    // One address may be told of both modes, and test money pays nothing.
    let heard = Heard::of(&name).filter(|_| livemode == is_live);
    let Meaning { kind, payment_id, minor, failure, about, order_id } = match heard {
        Some(heard) => Object::deserialize(data.object).map_err(|error| error.to_string())?.meaning(heard, name)?,
        None => Meaning::nothing(name, payment_of(&data.object)),
    };
    let event = WebhookEvent {
        event_id: event_id.to_owned(),
        kind,
        gateway_payment_id: payment_id,
        order_id: order_id.and_then(|id| id.parse().ok()),
        amount: minor.map(|(minor, currency)| from_minor(minor, &currency)).transpose()?,
        failure,
        about,
        at: created.and_then(|at| DateTime::from_timestamp(at, 0)),
    };
    reading::check_event(&event).map(|()| event)
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    name: String,
    livemode: bool,
    /// In seconds since 1970.
    created: Option<i64>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    /// Of whatever kind the event is about.
    object: Value,
}

/// The events that we act on.
#[derive(Clone, Copy)]
enum Heard {
    SetAside,
    Taken,
    Declined,
    Canceled,
    HoldLapsed,
    Refund,
    RefundFailed,
    DisputeOpened,
    DisputeClosed,
}

impl Heard {
    fn of(name: &str) -> Option<Heard> {
        match name {
            "payment_intent.amount_capturable_updated" => Some(Heard::SetAside),
            "payment_intent.succeeded" => Some(Heard::Taken),
            "payment_intent.payment_failed" => Some(Heard::Declined),
            "payment_intent.canceled" => Some(Heard::Canceled),
            "charge.expired" => Some(Heard::HoldLapsed),
            "refund.created" | "refund.updated" => Some(Heard::Refund),
            "refund.failed" => Some(Heard::RefundFailed),
            "charge.dispute.created" => Some(Heard::DisputeOpened),
            "charge.dispute.closed" => Some(Heard::DisputeClosed),
            _ => None,
        }
    }
}

/// What we read of a PaymentIntent, Charge, Refund or Dispute.
#[derive(Deserialize)]
struct Object {
    id: String,
    /// The payment of all but a PaymentIntent.
    payment_intent: Option<String>,
    status: Option<String>,
    amount: Option<i64>,
    amount_received: Option<i64>,
    amount_capturable: Option<i64>,
    currency: Option<String>,
    metadata: Option<Metadata>,
    last_payment_error: Option<PaymentError>,
    failure_reason: Option<String>,
    reason: Option<String>,
}

struct Meaning {
    kind: WebhookKind,
    payment_id: String,
    /// In minor units, and their currency.
    minor: Option<(i64, String)>,
    failure: Option<String>,
    about: Option<WebhookSubject>,
    order_id: Option<String>,
}

impl Meaning {
    /// An event that we do not act on. Many are about no payment.
    fn nothing(name: String, payment_id: &str) -> Meaning {
        Meaning {
            kind: WebhookKind::Other(name),
            payment_id: payment_id.to_owned(),
            minor: None,
            failure: None,
            about: None,
            order_id: None,
        }
    }
}

impl Object {
    fn meaning(self, heard: Heard, name: String) -> Result<Meaning, String> {
        let kind = self.kind(heard, name.clone())?;
        let (minor, failure, is_payment, is_about) = match heard {
            Heard::SetAside => (self.amount_capturable, None, true, false),
            Heard::Taken => (self.amount_received, None, true, false),
            Heard::Declined => {
                (self.amount, self.last_payment_error.map(|error| error.reason().to_owned()), true, false)
            }
            Heard::Canceled => (self.amount, None, true, false),
            Heard::HoldLapsed => (self.amount, None, false, false),
            Heard::Refund | Heard::RefundFailed => (self.amount, self.failure_reason, false, true),
            Heard::DisputeOpened | Heard::DisputeClosed => (self.amount, self.reason, false, true),
        };
        let Metadata { order_id, refund_id } = self.metadata.unwrap_or_default();
        let Some(payment_id) = (if is_payment { Some(self.id.clone()) } else { self.payment_intent }) else {
            // Of a charge without a PaymentIntent, as we make none.
            return Ok(Meaning::nothing(name, ""));
        };
        let refund_id = refund_id.and_then(|id| id.parse().ok());
        let about = is_about.then_some(WebhookSubject { gateway_id: self.id, refund_id });
        Ok(Meaning { kind, payment_id, minor: minor.zip(self.currency), failure, about, order_id })
    }

    fn kind(&self, heard: Heard, name: String) -> Result<WebhookKind, String> {
        let state = self.status.as_deref().unwrap_or_default();
        Ok(match heard {
            Heard::SetAside if state == "requires_capture" => WebhookKind::PaymentAuthorized,
            // What can be taken has changed because it was taken, or let go of.
            Heard::SetAside => WebhookKind::Other(name),
            Heard::Taken => WebhookKind::PaymentCaptured,
            Heard::Declined if is_under_way(state) => WebhookKind::Other(name),
            Heard::Declined => WebhookKind::PaymentFailed,
            Heard::Canceled | Heard::HoldLapsed => WebhookKind::PaymentClosed,
            Heard::RefundFailed => WebhookKind::RefundFailed,
            Heard::Refund => match refund_status(state).ok_or_else(|| format!("a refund that is {state:?}"))? {
                GatewayRefundStatus::Pending => WebhookKind::RefundPending,
                GatewayRefundStatus::Succeeded => WebhookKind::RefundSucceeded,
                GatewayRefundStatus::Failed => WebhookKind::RefundFailed,
            },
            Heard::DisputeOpened => dispute_ended(state).unwrap_or(WebhookKind::DisputeOpened),
            Heard::DisputeClosed => {
                dispute_ended(state).ok_or_else(|| format!("a closed dispute that is {state:?}"))?
            }
        })
    }
}

/// A try has failed, and the customer is at another: that is no end.
fn is_under_way(state: &str) -> bool {
    ["requires_action", "requires_confirmation", "requires_capture", "processing", "succeeded"].contains(&state)
}

/// How a dispute has ended, if it has. An inquiry (`warning_…`) that is closed takes nothing.
fn dispute_ended(state: &str) -> Option<WebhookKind> {
    match state {
        "won" | "warning_closed" => Some(WebhookKind::DisputeWon),
        "lost" => Some(WebhookKind::DisputeLost),
        _ => None,
    }
}

/// The payment that an object is about, as far as it is about one.
fn payment_of(object: &Value) -> &str {
    let id = if object["object"] == "payment_intent" { &object["id"] } else { &object["payment_intent"] };
    id.as_str().filter(|id| id.len() <= reading::MAX_ID).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use domain::money::{Currency, Money};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    const ORDER: &str = "01900000-0000-7000-8000-000000000001";
    const REFUND: &str = "01900000-0000-7000-8000-00000000000f";

    /// An event of test mode, heard by a shop in test mode.
    fn heard(name: &str, object: &Value) -> Result<WebhookEvent, String> {
        read(json!({ "id": "evt_1", "type": name, "livemode": false, "data": { "object": object } }), "evt_1", false)
    }

    fn intent(status: &str) -> Value {
        json!({
            "id": "pi_1", "object": "payment_intent", "amount": 1_000, "amount_received": 900, "amount_capturable": 800,
            "currency": "inr", "status": status, "metadata": { "order_id": ORDER },
            "last_payment_error": { "type": "card_error", "code": "card_declined", "decline_code": "lost_card" },
        })
    }

    fn refund(status: &Value) -> Value {
        json!({
            "id": "re_1", "object": "refund", "amount": 500, "currency": "inr", "payment_intent": "pi_1",
            "status": status, "metadata": { "order_id": ORDER, "refund_id": REFUND },
        })
    }

    fn dispute(status: &str) -> Value {
        json!({
            "id": "dp_1", "object": "dispute", "amount": 1_000, "currency": "inr", "payment_intent": "pi_1",
            "charge": "ch_1", "status": status, "reason": "fraudulent", "metadata": {},
        })
    }

    fn rupees(minor: i64) -> Option<Money> {
        Some(Money::from_minor_units(minor, Currency::INR))
    }

    #[test]
    fn events_of_payments_say_what_happened_and_to_how_much() {
        let (updated, failed) = ("payment_intent.amount_capturable_updated", "payment_intent.payment_failed");
        let other = |name: &str| WebhookKind::Other(name.to_owned());
        for (name, status, kind, amount, failure) in [
            (updated, "requires_capture", WebhookKind::PaymentAuthorized, 800, None),
            (updated, "succeeded", other(updated), 800, None),
            ("payment_intent.succeeded", "succeeded", WebhookKind::PaymentCaptured, 900, None),
            (failed, "requires_payment_method", WebhookKind::PaymentFailed, 1_000, Some("lost_card")),
            (failed, "canceled", WebhookKind::PaymentFailed, 1_000, Some("lost_card")),
            (failed, "requires_action", other(failed), 1_000, Some("lost_card")),
            (failed, "succeeded", other(failed), 1_000, Some("lost_card")),
            ("payment_intent.canceled", "canceled", WebhookKind::PaymentClosed, 1_000, None),
        ] {
            let event = heard(name, &intent(status)).expect("an event");
            assert_eq!((event.kind, event.amount), (kind, rupees(amount)), "{name} {status}");
            assert_eq!((event.failure.as_deref(), event.about), (failure, None), "{name} {status}");
            assert_eq!((event.gateway_payment_id.as_str(), event.order_id), ("pi_1", ORDER.parse().ok()));
        }
    }

    #[test]
    fn a_hold_that_has_lapsed_is_closed() {
        let charge = json!({
            "id": "ch_1", "object": "charge", "amount": 1_000, "currency": "inr", "payment_intent": "pi_1",
            "metadata": { "order_id": ORDER },
        });
        let event = heard("charge.expired", &charge).expect("an event");
        assert_eq!((event.kind, event.gateway_payment_id.as_str()), (WebhookKind::PaymentClosed, "pi_1"));
        assert_eq!((event.order_id, event.about), (ORDER.parse().ok(), None));
    }

    #[test]
    fn events_of_refunds_go_by_the_refunds_state() {
        for (name, status, kind) in [
            ("refund.created", json!("pending"), WebhookKind::RefundPending),
            ("refund.created", json!("succeeded"), WebhookKind::RefundSucceeded),
            ("refund.updated", json!("requires_action"), WebhookKind::RefundPending),
            ("refund.updated", json!("succeeded"), WebhookKind::RefundSucceeded),
            ("refund.updated", json!("canceled"), WebhookKind::RefundFailed),
            ("refund.failed", json!("failed"), WebhookKind::RefundFailed),
            ("refund.failed", json!(null), WebhookKind::RefundFailed),
        ] {
            let event = heard(name, &refund(&status)).expect("an event");
            assert_eq!((event.kind, event.amount), (kind, rupees(500)), "{name} {status}");
            let about = WebhookSubject { gateway_id: "re_1".to_owned(), refund_id: REFUND.parse().ok() };
            assert_eq!((event.gateway_payment_id.as_str(), event.about), ("pi_1", Some(about)));
        }
        assert!(heard("refund.created", &refund(&json!("resting"))).is_err());
    }

    #[test]
    fn a_refund_that_is_not_ours_has_no_id_of_ours() {
        let mut refund = refund(&json!("failed"));
        refund["metadata"] = json!(null);
        refund["failure_reason"] = json!("lost_or_stolen_card");
        let event = heard("refund.updated", &refund).expect("an event");
        assert_eq!(event.about, Some(WebhookSubject { gateway_id: "re_1".to_owned(), refund_id: None::<Uuid> }));
        assert_eq!((event.failure.as_deref(), event.order_id), (Some("lost_or_stolen_card"), None));
    }

    #[test]
    fn events_of_disputes_say_who_keeps_the_money() {
        for (name, status, kind) in [
            ("charge.dispute.created", "needs_response", WebhookKind::DisputeOpened),
            ("charge.dispute.created", "warning_needs_response", WebhookKind::DisputeOpened),
            ("charge.dispute.created", "under_review", WebhookKind::DisputeOpened),
            ("charge.dispute.created", "lost", WebhookKind::DisputeLost),
            ("charge.dispute.closed", "won", WebhookKind::DisputeWon),
            ("charge.dispute.closed", "warning_closed", WebhookKind::DisputeWon),
            ("charge.dispute.closed", "lost", WebhookKind::DisputeLost),
        ] {
            let event = heard(name, &dispute(status)).expect("an event");
            assert_eq!((event.kind, event.amount), (kind, rupees(1_000)), "{name} {status}");
            assert_eq!((event.gateway_payment_id.as_str(), event.failure.as_deref()), ("pi_1", Some("fraudulent")));
            assert_eq!(event.about, Some(WebhookSubject { gateway_id: "dp_1".to_owned(), refund_id: None }));
        }
        assert!(heard("charge.dispute.closed", &dispute("resting")).is_err());
    }

    #[test]
    fn what_we_do_not_act_on_is_other() {
        for (name, object, payment) in [
            ("payout.paid", json!({ "id": "po_1", "object": "payout", "status": 7 }), ""),
            ("balance.available", json!({ "object": "balance" }), ""),
            ("payment_intent.created", intent("requires_confirmation"), "pi_1"),
            ("charge.refunded", json!({ "id": "ch_1", "object": "charge", "payment_intent": "pi_1" }), "pi_1"),
            // Of no PaymentIntent, and so none of ours.
            ("charge.expired", json!({ "id": "ch_1", "object": "charge", "payment_intent": null }), ""),
        ] {
            let event = heard(name, &object).expect("an event");
            assert_eq!(event.kind, WebhookKind::Other(name.to_owned()));
            assert_eq!(event.gateway_payment_id, payment, "{name}");
        }
    }

    #[test]
    fn word_of_the_other_mode_is_not_acted_on() {
        for (livemode, is_live) in [(true, true), (false, false), (true, false), (false, true)] {
            let event = json!({
                "type": "payment_intent.succeeded", "livemode": livemode, "data": { "object": intent("succeeded") },
            });
            let kind = read(event, "evt_1", is_live).expect("an event").kind;
            assert_eq!(kind == WebhookKind::PaymentCaptured, livemode == is_live, "{livemode} {is_live}: {kind:?}");
            assert_eq!(kind == WebhookKind::Other("payment_intent.succeeded".to_owned()), livemode != is_live);
        }
    }

    #[test]
    fn what_cannot_be_kept_or_makes_no_sense_is_unreadable() {
        let long = "x".repeat(reading::MAX_ID + 1);
        let changed = |object: Value, name: &str, value: Value| {
            let mut object = object;
            object[name] = value;
            object
        };
        for (name, object) in [
            ("payment_intent.succeeded", json!({})),
            ("payment_intent.succeeded", json!("pi_1")),
            ("payment_intent.succeeded", changed(intent("succeeded"), "id", json!(""))),
            ("payment_intent.succeeded", changed(intent("succeeded"), "id", json!(long))),
            ("payment_intent.succeeded", changed(intent("succeeded"), "id", json!("pi_1\0"))),
            ("payment_intent.succeeded", changed(intent("succeeded"), "currency", json!("xxl"))),
            ("payment_intent.succeeded", changed(intent("succeeded"), "amount_received", json!(1.5))),
            ("refund.updated", changed(refund(&json!("pending")), "id", json!(long))),
            ("charge.dispute.created", changed(dispute("lost"), "reason", json!("a\0b"))),
            ("payout.paid\0", json!({})),
            ("payout.paid", json!({ "payment_intent": "pi_1\0" })),
        ] {
            assert!(heard(name, &object).is_err(), "{name:?} {object}");
        }
        for event in [json!({}), json!(7), json!({ "type": "payout.paid", "data": { "object": {} } })] {
            assert!(read(event.clone(), "evt_1", false).is_err(), "{event}");
        }
    }
}
