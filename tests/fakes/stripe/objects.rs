//! What Stripe keeps, and how it shows it.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::token::Course;
use crate::books::Outcome;

/// Where a PaymentIntent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Canceled,
    Succeeded,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Status::RequiresPaymentMethod => "requires_payment_method",
            Status::RequiresConfirmation => "requires_confirmation",
            Status::RequiresAction => "requires_action",
            Status::Processing => "processing",
            Status::RequiresCapture => "requires_capture",
            Status::Canceled => "canceled",
            Status::Succeeded => "succeeded",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) amount: i64,
    pub(super) received: i64,
    pub(super) currency: String,
    pub(super) is_manual: bool,
    pub(super) status: Status,
    pub(super) course: Option<Course>,
    pub(super) payment_method: Option<String>,
    pub(super) metadata: Value,
    pub(super) receipt_email: Option<String>,
    pub(super) return_url: Option<String>,
    pub(super) latest_charge: Option<String>,
    pub(super) last_error: Value,
    pub(super) cancellation_reason: Option<String>,
    pub(super) canceled_at: Option<i64>,
    pub(super) client_secret: String,
    pub(super) created: DateTime<Utc>,
}

impl Intent {
    pub(super) fn to_json(&self, latest_charge: &Value, is_live: bool, base: &str) -> Value {
        let capturable = if self.status == Status::RequiresCapture { self.amount } else { 0 };
        json!({
            "id": self.id, "object": "payment_intent", "amount": self.amount, "amount_capturable": capturable,
            "amount_details": { "tip": {} }, "amount_received": self.received, "automatic_payment_methods": null,
            "canceled_at": self.canceled_at, "cancellation_reason": self.cancellation_reason,
            "capture_method": if self.is_manual { "manual" } else { "automatic" },
            "client_secret": self.client_secret, "confirmation_method": "automatic",
            "created": self.created.timestamp(), "currency": self.currency, "customer": null,
            "last_payment_error": self.last_error, "latest_charge": latest_charge, "livemode": is_live,
            "metadata": self.metadata, "next_action": self.next_action(base), "payment_method": self.payment_method,
            "payment_method_types": ["card"], "receipt_email": self.receipt_email, "setup_future_usage": null,
            "statement_descriptor": null, "statement_descriptor_suffix": null, "status": self.status.word(),
            "transfer_group": null,
        })
    }

    fn next_action(&self, base: &str) -> Value {
        match (self.status, &self.return_url) {
            (Status::RequiresAction, Some(return_url)) => json!({
                "type": "redirect_to_url",
                "redirect_to_url": { "return_url": return_url, "url": format!("{base}/3d_secure/{}", self.id) },
            }),
            (Status::RequiresAction, None) => json!({ "type": "use_stripe_sdk", "use_stripe_sdk": {} }),
            (
                Status::RequiresPaymentMethod
                | Status::RequiresConfirmation
                | Status::Processing
                | Status::RequiresCapture
                | Status::Canceled
                | Status::Succeeded,
                _,
            ) => Value::Null,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Charge {
    pub(super) id: String,
    pub(super) intent: String,
    pub(super) amount: i64,
    pub(super) captured: i64,
    /// What went back, and what was set aside and let go.
    pub(super) refunded: i64,
    pub(super) currency: String,
    pub(super) is_captured: bool,
    pub(super) is_disputed: bool,
    /// Code, reason and message of the bank's no.
    pub(super) failure: Option<(&'static str, &'static str)>,
    pub(super) payment_method: Option<String>,
    pub(super) receipt_email: Option<String>,
    pub(super) metadata: Value,
    pub(super) created: DateTime<Utc>,
}

impl Charge {
    pub(super) fn to_json(&self, is_live: bool) -> Value {
        let outcome = match self.failure {
            None => json!({ "type": "authorized", "network_status": "approved_by_network", "reason": null,
                            "risk_level": "normal", "risk_score": 20, "seller_message": "Payment complete." }),
            Some((_, reason)) => json!({
                "type": "issuer_declined", "network_status": "declined_by_network", "reason": reason,
                "risk_level": "normal", "risk_score": 20,
                "seller_message": "The bank did not return any further details with this decline.",
            }),
        };
        json!({
            "id": self.id, "object": "charge", "amount": self.amount, "amount_captured": self.captured,
            "amount_refunded": self.refunded, "balance_transaction": null, "billing_details": {
                "address": { "city": null, "country": null, "line1": null, "line2": null, "postal_code": null,
                             "state": null },
                "email": null, "name": null, "phone": null },
            "captured": self.is_captured, "created": self.created.timestamp(), "currency": self.currency,
            "customer": null, "disputed": self.is_disputed, "failure_code": self.failure.map(|(code, _)| code),
            "failure_message": self.failure.map(|_| DECLINED), "livemode": is_live, "metadata": self.metadata,
            "outcome": outcome, "paid": self.failure.is_none(), "payment_intent": self.intent,
            "payment_method": self.payment_method, "receipt_email": self.receipt_email, "receipt_number": null,
            "receipt_url": null, "refunded": self.failure.is_none() && self.refunded == self.amount,
            "statement_descriptor": null, "statement_descriptor_suffix": null,
            "status": if self.failure.is_none() { "succeeded" } else { "failed" }, "transfer_group": null,
        })
    }
}

/// What the shopper reads of a bank's no.
pub(super) const DECLINED: &str = "Your card was declined.";

#[derive(Debug, Clone)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) intent: String,
    pub(super) charge: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) status: &'static str,
    pub(super) reason: Option<String>,
    pub(super) metadata: Value,
    pub(super) key: Option<String>,
    /// It is of money that was set aside only.
    pub(super) is_of_hold: bool,
    pub(super) created: DateTime<Utc>,
}

impl Refund {
    /// Whether the money has left us, or is about to.
    pub(super) fn counts(&self) -> bool {
        !self.is_of_hold && !matches!(self.status, "failed" | "canceled")
    }

    pub(super) fn to_json(&self) -> Value {
        let mut refund = json!({
            "id": self.id, "object": "refund", "amount": self.amount, "balance_transaction": null,
            "charge": self.charge, "created": self.created.timestamp(), "currency": self.currency,
            "metadata": self.metadata, "payment_intent": self.intent, "reason": self.reason, "receipt_number": null,
            "status": self.status,
        });
        if self.status == "failed" {
            refund["failure_reason"] = json!("lost_or_stolen_card");
        }
        refund
    }
}

#[derive(Debug, Clone)]
pub(super) struct Dispute {
    pub(super) id: String,
    pub(super) intent: String,
    pub(super) charge: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) outcome: Outcome,
    pub(super) created: DateTime<Utc>,
}

impl Dispute {
    pub(super) fn to_json(&self, is_live: bool) -> Value {
        let status = match self.outcome {
            Outcome::Open => "needs_response",
            Outcome::Won => "won",
            Outcome::Lost => "lost",
        };
        let due_by = self.created.timestamp() + 7 * 24 * 3600;
        json!({
            "id": self.id, "object": "dispute", "amount": self.amount, "balance_transactions": [],
            "charge": self.charge, "created": self.created.timestamp(), "currency": self.currency,
            "evidence_details": { "due_by": due_by, "has_evidence": false, "past_due": false, "submission_count": 0 },
            "is_charge_refundable": false, "livemode": is_live, "metadata": {}, "payment_intent": self.intent,
            "reason": "fraudulent", "status": status,
        })
    }
}
