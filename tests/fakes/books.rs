//! The books: what a test counts the money by. Amounts are in the provider's own units, and beside them as decimals.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    misfortune::{Class, Kind},
    money::Amount,
};

/// A payment as the shop sees it: what it asked for once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PaymentRow {
    pub(crate) id: String,
    /// Our reference, as it was given.
    pub(crate) reference: String,
    pub(crate) currency: String,
    /// In the provider's words.
    pub(crate) status: String,
    pub(crate) amount: Amount,
    pub(crate) captured: Amount,
    /// Set aside and not taken.
    pub(crate) held: Amount,
    /// Given back or on its way, of what was captured.
    pub(crate) refunded: Amount,
    pub(crate) created_at: DateTime<Utc>,
}

/// A refund.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RefundRow {
    pub(crate) id: String,
    pub(crate) payment: String,
    /// Our id of it; empty if it is not ours.
    pub(crate) reference: String,
    pub(crate) key: Option<String>,
    pub(crate) currency: String,
    pub(crate) status: String,
    pub(crate) amount: Amount,
}

/// A dispute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DisputeRow {
    pub(crate) id: String,
    pub(crate) payment: String,
    pub(crate) currency: String,
    pub(crate) outcome: Outcome,
    pub(crate) amount: Amount,
}

/// How a dispute stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Open,
    Won,
    Lost,
}

/// One call that arrived.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallRow {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) operation: Class,
    pub(crate) key: Option<String>,
    /// Our name for what is to be made: an order, an attempt to pay one, or a refund.
    pub(crate) reference: Option<String>,
    /// None while it is under way, and for ever if its answer was lost.
    pub(crate) status: Option<u16>,
    pub(crate) misfortune: Option<Kind>,
}

/// All that an account holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Books {
    pub(crate) payments: Vec<PaymentRow>,
    pub(crate) refunds: Vec<RefundRow>,
    pub(crate) disputes: Vec<DisputeRow>,
}

#[derive(Debug, Default, Serialize)]
struct Sums {
    captured: Decimal,
    held: Decimal,
    refunded: Decimal,
    lost: Decimal,
    net: Decimal,
}

impl Books {
    /// The ledger; `native` writes an amount as the provider does.
    pub(crate) fn ledger(&self, native: fn(Amount) -> Value, calls: &[CallRow]) -> Value {
        let payments: Vec<Value> = self.payments.iter().map(|row| payment(row, native)).collect();
        let refunds: Vec<Value> = self.refunds.iter().map(|row| refund(row, native)).collect();
        let disputes: Vec<Value> = self.disputes.iter().map(|row| dispute(row, native)).collect();
        json!({ "payments": payments, "refunds": refunds, "disputes": disputes, "calls": calls, "sums": self.sums() })
    }

    fn sums(&self) -> BTreeMap<String, Sums> {
        let mut by_currency: BTreeMap<String, Sums> = BTreeMap::new();
        for row in &self.payments {
            let sums = by_currency.entry(row.currency.to_ascii_uppercase()).or_default();
            sums.captured += row.captured.decimal();
            sums.held += row.held.decimal();
            sums.refunded += row.refunded.decimal();
            sums.net += row.captured.decimal() - row.refunded.decimal();
        }
        for row in self.disputes.iter().filter(|row| row.outcome == Outcome::Lost) {
            let sums = by_currency.entry(row.currency.to_ascii_uppercase()).or_default();
            sums.lost += row.amount.decimal();
            sums.net -= row.amount.decimal();
        }
        by_currency
    }
}

fn payment(row: &PaymentRow, native: fn(Amount) -> Value) -> Value {
    json!({
        "id": row.id, "reference": row.reference, "currency": row.currency, "status": row.status,
        "createdAt": row.created_at, "amount": native(row.amount), "captured": native(row.captured),
        "held": native(row.held), "refunded": native(row.refunded),
        "decimal": { "amount": row.amount.decimal(), "captured": row.captured.decimal(),
                     "held": row.held.decimal(), "refunded": row.refunded.decimal() },
    })
}

fn refund(row: &RefundRow, native: fn(Amount) -> Value) -> Value {
    json!({
        "id": row.id, "payment": row.payment, "reference": row.reference, "key": row.key, "currency": row.currency,
        "status": row.status, "amount": native(row.amount), "decimal": { "amount": row.amount.decimal() },
    })
}

fn dispute(row: &DisputeRow, native: fn(Amount) -> Value) -> Value {
    json!({
        "id": row.id, "payment": row.payment, "currency": row.currency, "outcome": row.outcome,
        "amount": native(row.amount), "decimal": { "amount": row.amount.decimal() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_by_currency_and_count_what_was_lost() {
        let amount = |minor| Amount { minor, exponent: 2 };
        let row = |currency: &str, captured, refunded| PaymentRow {
            id: "pi".to_owned(),
            reference: "order".to_owned(),
            currency: currency.to_owned(),
            status: "succeeded".to_owned(),
            amount: amount(captured),
            captured: amount(captured),
            held: amount(0),
            refunded: amount(refunded),
            created_at: DateTime::UNIX_EPOCH,
        };
        let lost = DisputeRow {
            id: "dp".to_owned(),
            payment: "pi".to_owned(),
            currency: "usd".to_owned(),
            outcome: Outcome::Lost,
            amount: amount(100),
        };
        let open = DisputeRow { outcome: Outcome::Open, ..lost.clone() };
        let payments = vec![row("usd", 1_000, 250), row("usd", 500, 0), row("inr", 700, 0)];
        let books = Books { payments, refunds: Vec::new(), disputes: vec![lost, open] };
        let ledger = books.ledger(|amount| json!(amount.minor), &[]);
        assert_eq!(ledger["sums"]["USD"]["net"], "11.50");
        assert_eq!(ledger["sums"]["USD"]["lost"], "1.00");
        assert_eq!(ledger["sums"]["INR"]["net"], "7.00");
        assert_eq!(ledger["payments"][0]["captured"], 1_000);
    }
}
