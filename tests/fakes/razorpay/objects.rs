//! What Razorpay keeps, and how it shows it.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::books::Outcome;

/// Empty notes are an empty array.
fn notes(notes: &Value) -> Value {
    if notes.as_object().is_some_and(|notes| !notes.is_empty()) { notes.clone() } else { json!([]) }
}

#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) receipt: Option<String>,
    pub(super) notes: Value,
    /// Payments are captured as soon as they are authorized.
    pub(super) is_automatic: bool,
    pub(super) created: DateTime<Utc>,
}

impl Order {
    pub(super) fn status<'a>(&self, mut payments: impl Iterator<Item = &'a Payment> + Clone) -> &'static str {
        if payments.clone().any(|payment| payment.is_captured) {
            "paid"
        } else if payments.next().is_some() {
            "attempted"
        } else {
            "created"
        }
    }

    pub(super) fn to_json<'a>(&self, payments: impl Iterator<Item = &'a Payment> + Clone) -> Value {
        let status = self.status(payments.clone());
        let paid = if status == "paid" { self.amount } else { 0 };
        json!({
            "id": self.id, "entity": "order", "amount": self.amount, "amount_paid": paid,
            "amount_due": self.amount - paid, "currency": self.currency, "receipt": self.receipt, "offer_id": null,
            "status": status, "attempts": payments.count(), "notes": notes(&self.notes),
            "created_at": self.created.timestamp(),
        })
    }
}

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PaymentStatus {
    Authorized,
    Captured,
    Refunded,
    Failed,
}

impl PaymentStatus {
    pub(super) fn word(self) -> &'static str {
        match self {
            PaymentStatus::Authorized => "authorized",
            PaymentStatus::Captured => "captured",
            PaymentStatus::Refunded => "refunded",
            PaymentStatus::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Payment {
    pub(super) id: String,
    pub(super) order: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) status: PaymentStatus,
    pub(super) is_captured: bool,
    pub(super) refunded: i64,
    pub(super) method: String,
    pub(super) created: DateTime<Utc>,
}

impl Payment {
    /// What went back and what was never taken count alike.
    pub(super) fn refund(&mut self, amount: i64) {
        self.refunded += amount;
        if self.refunded == self.amount {
            self.status = PaymentStatus::Refunded;
        } else if self.is_captured {
            self.status = PaymentStatus::Captured;
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let refund_status = match self.refunded {
            0 => None,
            refunded if refunded == self.amount => Some("full"),
            _ => Some("partial"),
        };
        let failed = |text: &'static str| (self.status == PaymentStatus::Failed).then_some(text);
        json!({
            "id": self.id, "entity": "payment", "amount": self.amount, "currency": self.currency,
            "status": self.status.word(), "order_id": self.order, "invoice_id": null, "international": false,
            "method": self.method, "amount_refunded": self.refunded, "refund_status": refund_status,
            "captured": self.is_captured, "description": "Order / cart", "card_id": null, "bank": null, "wallet": null,
            "vpa": (self.method == "upi").then_some("shopper@razorpay"), "email": "shopper@example.com",
            "contact": "+919000090000", "notes": [], "fee": null, "tax": null,
            "error_code": failed("BAD_REQUEST_ERROR"),
            "error_description": failed("Your payment has been cancelled. Try again or complete the payment later."),
            "error_source": failed("customer"), "error_step": failed("payment_authentication"),
            "error_reason": failed("payment_cancelled"), "acquirer_data": { "rrn": null },
            "created_at": self.created.timestamp(),
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) payment: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) receipt: Option<String>,
    pub(super) notes: Value,
    pub(super) status: &'static str,
    pub(super) key: Option<String>,
    /// It is of money that was authorized only.
    pub(super) is_of_hold: bool,
    pub(super) created: DateTime<Utc>,
}

impl Refund {
    /// Whether the money has left us, or is about to.
    pub(super) fn counts(&self) -> bool {
        !self.is_of_hold && self.status != "failed"
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.id, "entity": "refund", "amount": self.amount, "currency": self.currency,
            "payment_id": self.payment, "notes": notes(&self.notes), "receipt": self.receipt,
            "acquirer_data": { "arn": null }, "created_at": self.created.timestamp(), "batch_id": null,
            "status": self.status, "speed_processed": "normal", "speed_requested": "normal",
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Dispute {
    pub(super) id: String,
    pub(super) payment: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) outcome: Outcome,
    pub(super) created: DateTime<Utc>,
}

impl Dispute {
    pub(super) fn to_json(&self) -> Value {
        let (status, deducted) = match self.outcome {
            Outcome::Open => ("open", 0),
            Outcome::Won => ("won", 0),
            Outcome::Lost => ("lost", self.amount),
        };
        json!({
            "id": self.id, "entity": "dispute", "payment_id": self.payment, "amount": self.amount,
            "currency": self.currency, "amount_deducted": deducted,
            "reason_code": "goods_or_services_not_received_or_partially_received",
            "respond_by": self.created.timestamp() + 7 * 24 * 3600, "status": status, "phase": "chargeback",
            "created_at": self.created.timestamp(),
        })
    }
}
