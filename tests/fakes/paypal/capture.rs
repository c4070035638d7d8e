//! Captures: read and refunded; refunds read, and how they end.

use serde_json::Value;

use super::{
    Paypal, amount, missing,
    objects::{Order, Refund},
    representation, unprocessable,
};
use crate::{
    books::Outcome,
    call::{Call, Reply},
    gateway::{Desk, RefundCourse, RefundTurn, Told},
    ids,
    money::Amount,
};

/// What comes with a refund besides the money.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    pub(super) custom_id: Option<String>,
    pub(super) invoice_id: Option<String>,
    pub(super) note: Option<String>,
}

impl Paypal {
    fn captured(&mut self, id: &str) -> Option<&mut Order> {
        self.orders.iter_mut().find(|order| order.capture(id).is_some())
    }

    pub(super) fn get_capture(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let base = self.base.clone();
        let found = self.captured(call.id()).and_then(|order| order.part(call.id(), &base));
        found.map_or_else(missing, |shown| Reply::new(200, shown))
    }

    pub(super) fn get_refund(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let found = self.orders.iter().find_map(|order| Some(order.refund(call.id())?.to_json(order, &self.base)));
        found.map_or_else(missing, |shown| Reply::new(200, shown))
    }

    pub(super) fn refund_capture(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let id = call.id().to_owned();
        let is_disputed = self.disputes.iter().any(|one| one.capture == id && one.outcome == Outcome::Open);
        let Some(order) = self.captured(&id) else { return missing() };
        let left = left(order, &id);
        let (asked, currency) = match call.body.get("amount").map(amount).transpose() {
            Ok(asked) => asked.unwrap_or_else(|| (left, order.currency.clone())),
            Err(issue) => return unprocessable(issue),
        };
        let invoice = call.body["invoice_id"].as_str();
        let issue = match order.capture(&id).map(|capture| capture.status) {
            Some("PENDING") => Some("PENDING_CAPTURE"),
            Some("REFUNDED") => Some("CAPTURE_FULLY_REFUNDED"),
            Some("DECLINED" | "FAILED") | None => Some("REFUND_NOT_ALLOWED"),
            Some(_) if currency != order.currency => Some("REFUND_CAPTURE_CURRENCY_MISMATCH"),
            Some(_) if asked.minor > left.minor => Some("REFUND_AMOUNT_EXCEEDED"),
            Some(_) if is_disputed && asked.minor < left.minor => Some("TRANSACTION_DISPUTED"),
            Some(_) if invoice.is_some() && order.refunds.iter().any(|one| one.invoice_id.as_deref() == invoice) => {
                Some("DUPLICATE_INVOICE_ID")
            }
            Some(_) => None,
        };
        if let Some(issue) = issue {
            return unprocessable(issue);
        }
        let optional = |name: &str| call.body[name].as_str().map(str::to_owned);
        let words = Words {
            custom_id: optional("custom_id"),
            invoice_id: optional("invoice_id"),
            note: optional("note_to_payer"),
        };
        let refund = self.give_back(&id, asked, words, desk);
        let shown = self.orders.iter().find_map(|order| Some(order.refund(&refund)?.to_json(order, &self.base)));
        shown.map_or_else(missing, |shown| representation(call, 201, shown))
    }

    /// Money goes back; returns the refund's id.
    pub(super) fn give_back(&mut self, capture: &str, amount: Amount, words: Words, desk: &mut Desk) -> String {
        let base = self.base.clone();
        let id = ids::capital(17);
        let Some(order) = self.captured(capture) else { return id };
        order.refunds.push(Refund {
            id: id.clone(),
            capture: capture.to_owned(),
            status: "PENDING",
            amount,
            custom_id: words.custom_id,
            invoice_id: words.invoice_id,
            note: words.note,
            key: desk.key.clone(),
            created: desk.now,
            updated: desk.now,
        });
        restate(order, capture);
        let ended = match desk.refunds {
            RefundCourse::Succeeded => self.end_refund(&id, RefundTurn::Succeed, desk),
            RefundCourse::Failed => self.end_refund(&id, RefundTurn::Fail, desk),
            RefundCourse::Pending => {
                if let Some(refund) = order.refund(&id) {
                    let shown = refund.to_json(order, &base);
                    Self::tell(desk, "PAYMENT.REFUND.PENDING", "refund", Some("refund"), &shown);
                }
                Ok(Value::Null)
            }
        };
        // It is there, and pending.
        drop(ended);
        id
    }

    pub(super) fn end_refund(&mut self, id: &str, turn: RefundTurn, desk: &mut Desk) -> Told {
        let base = self.base.clone();
        let order = self.orders.iter_mut().find(|order| order.refund(id).is_some());
        let order = order.ok_or_else(|| format!("there is no refund {id}"))?;
        let refund = order.refunds.iter_mut().find(|refund| refund.id == id).ok_or("there is none")?;
        let (status, kind) = match (refund.status, turn) {
            ("PENDING", RefundTurn::Succeed) => ("COMPLETED", "PAYMENT.CAPTURE.REFUNDED"),
            // A bank may send back what had arrived.
            ("PENDING" | "COMPLETED", RefundTurn::Fail) => ("FAILED", "PAYMENT.REFUND.FAILED"),
            (status, RefundTurn::Succeed | RefundTurn::Fail) => return Err(format!("the refund is {status}")),
        };
        (refund.status, refund.updated) = (status, desk.now);
        let capture = refund.capture.clone();
        restate(order, &capture);
        let shown = order.refund(id).map_or(Value::Null, |refund| refund.to_json(order, &base));
        Self::tell(desk, kind, "refund", Some("refund"), &shown);
        Ok(shown)
    }
}

/// What of a capture has not gone back.
pub(super) fn left(order: &Order, capture: &str) -> Amount {
    let whole = order.capture(capture).map_or(0, |capture| capture.amount.minor);
    let gone = order.refunds.iter().filter(|refund| refund.capture == capture && refund.counts());
    Amount { minor: whole - gone.map(|refund| refund.amount.minor).sum::<i64>(), exponent: order.amount.exponent }
}

/// A capture says how much of it went back.
fn restate(order: &mut Order, capture: &str) {
    let left = left(order, capture);
    if let Some(capture) = order.captures.iter_mut().find(|one| one.id == capture) {
        capture.status = match left.minor {
            0 => "REFUNDED",
            left if left == capture.amount.minor => "COMPLETED",
            _ => "PARTIALLY_REFUNDED",
        };
    }
}
