//! Stripe's objects as they come over the wire, as far as we read them, and what they mean.

use domain::ids::OrderId;
use domain::ports::{
    GatewayError, GatewayPayment, GatewayPaymentStatus, GatewayRefund, GatewayRefundStatus, ListedPayment, NextAction,
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::super::reading::{self, MAX_ID};
use super::money::from_minor;

/// What an answer that makes no sense becomes.
pub(super) fn nonsense(what: impl std::fmt::Display) -> GatewayError {
    GatewayError::Unknown(format!("an answer that makes no sense: {what}"))
}

/// The id of ours that an object carries in its metadata.
pub(super) fn marks(item: &Value, name: &str) -> Option<Uuid> {
    item["metadata"][name].as_str()?.parse().ok()
}

/// A PaymentIntent, its `latest_charge` expanded.
#[derive(Debug, Deserialize)]
pub(super) struct PaymentIntent {
    pub(super) id: String,
    /// Text: each state of it has a key of its own when it is closed.
    pub(super) status: String,
    amount: i64,
    amount_received: Option<i64>,
    currency: String,
    #[serde(default)]
    metadata: Metadata,
    latest_charge: Option<LatestCharge>,
    next_action: Option<Action>,
    last_payment_error: Option<PaymentError>,
}

/// What we have written on a payment or a refund.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Metadata {
    pub(super) order_id: Option<String>,
    pub(super) refund_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum LatestCharge {
    Expanded { amount_refunded: i64 },
    Id(String),
}

#[derive(Debug, Deserialize)]
struct Action {
    redirect_to_url: Option<RedirectToUrl>,
}

#[derive(Debug, Deserialize)]
struct RedirectToUrl {
    url: Option<String>,
}

/// Why a try to pay was declined.
#[derive(Debug, Deserialize)]
pub(super) struct PaymentError {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) code: Option<String>,
    pub(super) decline_code: Option<String>,
}

impl PaymentError {
    /// The issuer's reason, else Stripe's.
    pub(super) fn reason(&self) -> &str {
        self.decline_code.as_deref().or(self.code.as_deref()).unwrap_or(&self.kind)
    }
}

impl PaymentIntent {
    /// How the payment stands that was asked for on behalf of `order_id`.
    ///
    /// # Errors
    /// [`GatewayError::Unknown`] when it is another order's, or its state or amounts make no sense.
    pub(super) fn parse(&self, order_id: OrderId) -> Result<GatewayPayment, GatewayError> {
        // Metadata can be edited and removed by whoever runs the account; another order's name is no edit.
        if self.order_id().is_some_and(|named| named != order_id) {
            return Err(nonsense(format!("{} is another order's", self.id)));
        }
        let status = self.standing()?;
        let money = |minor| from_minor(minor, &self.currency).map_err(nonsense);
        let received = self.received(status)?;
        Ok(GatewayPayment {
            gateway_payment_id: self.id.clone(),
            order_id,
            status,
            amount: money(self.amount)?,
            captured: money(received)?.amount(),
            refunded: money(self.refunded(received)?)?.amount(),
            next_action: self.redirect().filter(|_| status == GatewayPaymentStatus::RequiresAction),
            failure: self
                .last_payment_error
                .as_ref()
                .filter(|_| status == GatewayPaymentStatus::Failed)
                .map(|error| error.reason().to_owned()),
        })
    }

    fn order_id(&self) -> Option<OrderId> {
        self.metadata.order_id.as_ref().and_then(|id| id.parse().ok())
    }

    fn standing(&self) -> Result<GatewayPaymentStatus, GatewayError> {
        match self.status.as_str() {
            "requires_action" => Ok(GatewayPaymentStatus::RequiresAction),
            "processing" | "requires_payment_method" | "requires_confirmation" => Ok(GatewayPaymentStatus::Pending),
            "requires_capture" => Ok(GatewayPaymentStatus::Authorized),
            "succeeded" => Ok(GatewayPaymentStatus::Captured),
            "canceled" if self.last_payment_error.is_some() => Ok(GatewayPaymentStatus::Failed),
            "canceled" => Ok(GatewayPaymentStatus::Closed),
            strange => Err(nonsense(format!("{} is {strange}", self.id))),
        }
    }

    fn received(&self, status: GatewayPaymentStatus) -> Result<i64, GatewayError> {
        match self.amount_received {
            None if status == GatewayPaymentStatus::Captured => {
                Err(nonsense(format!("{} says not what was taken", self.id)))
            }
            received => Ok(received.unwrap_or_default()),
        }
    }

    /// What is let go of a hold counts as refunded at Stripe: only what was taken can go back.
    fn refunded(&self, received: i64) -> Result<i64, GatewayError> {
        match &self.latest_charge {
            Some(LatestCharge::Expanded { amount_refunded }) => Ok(received.min(*amount_refunded)),
            Some(LatestCharge::Id(charge)) if received != 0 => {
                Err(nonsense(format!("{charge} is not expanded in {}", self.id)))
            }
            Some(LatestCharge::Id(_)) | None => Ok(0),
        }
    }

    fn redirect(&self) -> Option<NextAction> {
        let url = self.next_action.as_ref()?.redirect_to_url.as_ref()?.url.clone()?;
        Some(NextAction::Redirect { url })
    }
}

/// A refund.
#[derive(Debug, Deserialize)]
pub(super) struct Refund {
    id: String,
    amount: i64,
    currency: String,
    status: Option<String>,
    failure_reason: Option<String>,
}

impl Refund {
    /// How it stands.
    ///
    /// # Errors
    /// [`GatewayError::Unknown`] when its state or amount makes no sense.
    pub(super) fn parse(self) -> Result<GatewayRefund, GatewayError> {
        let state = self.status.unwrap_or_default();
        let status = refund_status(&state).ok_or_else(|| nonsense(format!("{} is {state:?}", self.id)))?;
        let failure = match status {
            GatewayRefundStatus::Failed => Some(self.failure_reason.unwrap_or(state)),
            GatewayRefundStatus::Pending | GatewayRefundStatus::Succeeded => None,
        };
        let amount = from_minor(self.amount, &self.currency).map_err(nonsense)?;
        Ok(GatewayRefund { gateway_refund_id: self.id, amount, status, failure })
    }
}

/// What a refund's state means; none of one that we do not know.
pub(super) fn refund_status(state: &str) -> Option<GatewayRefundStatus> {
    match state {
        "pending" | "requires_action" => Some(GatewayRefundStatus::Pending),
        "succeeded" => Some(GatewayRefundStatus::Succeeded),
        "failed" | "canceled" => Some(GatewayRefundStatus::Failed),
        _ => None,
    }
}

/// Some objects of a list, the newest first.
#[derive(Deserialize)]
pub(super) struct Page {
    /// Each is read by itself, so that a strange one hides no other.
    pub(super) data: Vec<Value>,
    has_more: bool,
}

impl Page {
    /// What the next page begins after; none on the last.
    ///
    /// # Errors
    /// [`GatewayError::Unknown`] when there is more, and nothing here to begin after.
    pub(super) fn next(&self) -> Result<Option<String>, GatewayError> {
        if !self.has_more {
            return Ok(None);
        }
        // After the last that has an id: those behind it are on the next page again, and so is what follows.
        let last = self.data.iter().rev().find_map(|item| item["id"].as_str().filter(|id| !id.is_empty()));
        last.map(|id| Some(id.to_owned())).ok_or_else(|| nonsense("a page of nothing that is not the last"))
    }
}

/// A payment as it is listed, whoever it was for.
pub(super) fn listed(item: &Value) -> ListedPayment {
    let order_id = item["metadata"]["order_id"].as_str();
    let captured = item["amount_received"].as_i64().zip(item["currency"].as_str());
    ListedPayment {
        gateway_payment_id: reading::listed_id(item["id"].as_str(), item),
        order_id: order_id.and_then(|id| id.parse().ok()),
        reference: order_id.or(item["description"].as_str()).map(str::to_owned),
        captured: captured.and_then(|(minor, currency)| from_minor(minor, currency).ok()),
    }
}

/// The id of a listed object, for it to be asked for by itself.
///
/// # Errors
/// [`GatewayError::Unknown`] when it has none that could be used.
pub(super) fn id_of(item: &Value) -> Result<String, GatewayError> {
    let id = item["id"].as_str().filter(|id| (1..=MAX_ID).contains(&id.len()));
    id.map(str::to_owned).ok_or_else(|| nonsense("a payment of ours without an id"))
}

#[cfg(test)]
mod tests {
    use domain::money::{Currency, Money};
    use rust_decimal::Decimal;
    use serde_json::json;

    use super::*;

    const ORDER: &str = "01900000-0000-7000-8000-000000000001";

    fn rupees(minor: i64) -> Decimal {
        Money::from_minor_units(minor, Currency::INR).amount()
    }

    fn order() -> OrderId {
        ORDER.parse().expect("an id")
    }

    /// An intent of 590.50 rupees, with `changes`.
    fn intent(changes: &Value) -> Result<GatewayPayment, GatewayError> {
        let mut intent = json!({
            "id": "pi_1", "object": "payment_intent", "amount": 59_050, "amount_received": 0, "amount_capturable": 0,
            "currency": "inr", "capture_method": "automatic", "status": "processing", "livemode": false,
            "metadata": { "order_id": ORDER, "attempt": "1" }, "latest_charge": null, "next_action": null,
            "last_payment_error": null,
        });
        for (name, value) in changes.as_object().expect("an object") {
            intent[name] = value.clone();
        }
        serde_json::from_value::<PaymentIntent>(intent).map_err(nonsense)?.parse(order())
    }

    #[test]
    fn every_state_of_an_intent_finds_its_place() {
        let declined = json!({ "type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds" });
        for (status, error, expected) in [
            ("requires_payment_method", json!(null), GatewayPaymentStatus::Pending),
            ("requires_payment_method", declined.clone(), GatewayPaymentStatus::Pending),
            ("requires_confirmation", json!(null), GatewayPaymentStatus::Pending),
            ("requires_action", json!(null), GatewayPaymentStatus::RequiresAction),
            ("processing", json!(null), GatewayPaymentStatus::Pending),
            ("requires_capture", json!(null), GatewayPaymentStatus::Authorized),
            ("succeeded", json!(null), GatewayPaymentStatus::Captured),
            ("succeeded", declined.clone(), GatewayPaymentStatus::Captured),
            ("canceled", json!(null), GatewayPaymentStatus::Closed),
            ("canceled", declined, GatewayPaymentStatus::Failed),
        ] {
            let read = intent(&json!({ "status": status, "last_payment_error": error })).expect("sense");
            assert_eq!(read.status, expected, "{status} {error}");
            assert_eq!(
                read.failure.as_deref(),
                (expected == GatewayPaymentStatus::Failed).then_some("insufficient_funds"),
                "{status}"
            );
        }
        assert!(matches!(intent(&json!({ "status": "resting" })), Err(GatewayError::Unknown(_))));
    }

    #[test]
    fn a_decline_is_named_by_the_issuers_word_or_else_stripes() {
        for (error, expected) in [
            (json!({ "type": "card_error", "code": "card_declined", "decline_code": "lost_card" }), "lost_card"),
            (json!({ "type": "card_error", "code": "expired_card" }), "expired_card"),
            (json!({ "type": "card_error", "code": null, "decline_code": null }), "card_error"),
        ] {
            let read = intent(&json!({ "status": "canceled", "last_payment_error": error })).expect("sense");
            assert_eq!(read.failure.as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_was_taken_and_what_went_back_is_read_exactly() {
        for (changes, captured, refunded) in [
            (json!({}), 0, 0),
            (json!({ "amount_received": null }), 0, 0),
            (json!({ "status": "requires_capture", "latest_charge": { "amount_refunded": 0 } }), 0, 0),
            (
                json!({ "status": "succeeded", "amount_received": 59_050, "latest_charge": { "amount_refunded": 50 } }),
                59_050,
                50,
            ),
            // A hold that was let go of.
            (json!({ "status": "canceled", "latest_charge": { "amount_refunded": 59_050 } }), 0, 0),
            (json!({ "status": "canceled", "latest_charge": "ch_1" }), 0, 0),
        ] {
            let read = intent(&changes).expect("sense");
            assert_eq!((read.captured, read.refunded), (rupees(captured), rupees(refunded)), "{changes}");
            assert_eq!(read.amount.amount(), rupees(59_050));
        }
    }

    #[test]
    fn an_intent_that_makes_no_sense_is_unknown() {
        for changes in [
            json!({ "currency": "xxl" }),
            json!({ "amount": -1 }),
            json!({ "amount": "59050" }),
            json!({ "status": "succeeded", "amount_received": null }),
            json!({ "status": "succeeded", "amount_received": 59_050, "latest_charge": "ch_1" }),
            json!({ "metadata": { "order_id": "01900000-0000-7000-8000-000000000002" } }),
        ] {
            assert!(matches!(intent(&changes), Err(GatewayError::Unknown(_))), "{changes}");
        }
    }

    #[test]
    fn metadata_that_somebody_has_removed_hides_no_payment() {
        for metadata in [json!({}), json!({ "order_id": "edited" }), json!({ "colour": "blue" })] {
            let read = intent(&json!({ "metadata": metadata })).expect("sense");
            assert_eq!(read.order_id, order());
        }
    }

    #[test]
    fn only_who_has_something_to_do_is_sent_to_a_page() {
        let action = json!({ "type": "redirect_to_url", "redirect_to_url": { "url": "https://bank.example/3ds" } });
        let redirect = Some(NextAction::Redirect { url: "https://bank.example/3ds".to_owned() });
        for (status, action, expected) in [
            ("requires_action", action.clone(), redirect),
            ("requires_action", json!({ "type": "use_stripe_sdk", "use_stripe_sdk": {} }), None),
            ("requires_action", json!({ "type": "redirect_to_url", "redirect_to_url": { "url": null } }), None),
            ("canceled", action, None),
        ] {
            let read = intent(&json!({ "status": status, "next_action": action })).expect("sense");
            assert_eq!(read.next_action, expected, "{status} {action}");
        }
    }

    #[test]
    fn every_state_of_a_refund_finds_its_place() {
        for (status, reason, expected, failure) in [
            ("pending", json!(null), GatewayRefundStatus::Pending, None),
            ("requires_action", json!(null), GatewayRefundStatus::Pending, None),
            ("succeeded", json!(null), GatewayRefundStatus::Succeeded, None),
            (
                "failed",
                json!("expired_or_canceled_card"),
                GatewayRefundStatus::Failed,
                Some("expired_or_canceled_card"),
            ),
            ("failed", json!(null), GatewayRefundStatus::Failed, Some("failed")),
            ("canceled", json!(null), GatewayRefundStatus::Failed, Some("canceled")),
        ] {
            let refund = json!({
                "id": "re_1", "amount": 50, "currency": "inr", "status": status, "failure_reason": reason,
                "metadata": null,
            });
            let read = serde_json::from_value::<Refund>(refund).expect("a refund").parse().expect("sense");
            assert_eq!((read.status, read.failure.as_deref()), (expected, failure), "{status}");
            assert_eq!(read.amount.amount(), rupees(50));
        }
        for strange in [json!("resting"), json!(null)] {
            let refund = json!({ "id": "re_1", "amount": 50, "currency": "inr", "status": strange });
            let read = serde_json::from_value::<Refund>(refund).expect("a refund").parse();
            assert!(matches!(read, Err(GatewayError::Unknown(_))), "{strange}");
        }
    }

    #[test]
    fn a_strange_payment_in_a_list_hides_no_other() {
        let good = listed(&json!({
            "id": "pi_1", "amount_received": 1_000, "currency": "inr", "metadata": { "order_id": ORDER },
        }));
        assert_eq!((good.order_id, good.reference.as_deref()), (Some(order()), Some(ORDER)));
        assert_eq!(good.captured, Some(Money::from_minor_units(1_000, Currency::INR)));
        let other = listed(&json!({
            "id": "pi_2", "amount_received": 0, "currency": "usd", "description": "Invoice 7", "metadata": {},
        }));
        assert_eq!((other.order_id, other.reference.as_deref(), other.took_nothing()), (None, Some("Invoice 7"), true));
        for strange in
            [json!({}), json!(7), json!({ "id": "x".repeat(256), "amount_received": "3", "currency": "xxl" })]
        {
            let read = listed(&strange);
            assert!((1..=MAX_ID).contains(&read.gateway_payment_id.len()) && read.captured.is_none(), "{read:?}");
        }
    }

    #[test]
    fn a_page_says_what_comes_after_it() {
        let next = |page: Value| serde_json::from_value::<Page>(page).expect("a page").next();
        let items = json!([{ "id": "pi_2" }, { "id": "pi_1" }, { "strange": true }]);
        assert_eq!(next(json!({ "data": items, "has_more": true })), Ok(Some("pi_1".to_owned())));
        assert_eq!(next(json!({ "data": items, "has_more": false })), Ok(None));
        assert!(matches!(next(json!({ "data": [{}], "has_more": true })), Err(GatewayError::Unknown(_))));
    }
}
