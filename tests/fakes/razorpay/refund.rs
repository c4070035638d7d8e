//! Refunds: made, read, and how they end.

use serde_json::{Value, json};

use super::{
    Razorpay, bad, missing,
    objects::{PaymentStatus, Refund},
    page,
};
use crate::{
    call::{Call, Reply},
    gateway::{Desk, RefundCourse, RefundTurn, Told},
    ids,
};

impl Razorpay {
    pub(super) fn create_refund(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let id = call.id().to_owned();
        let Some(payment) = self.payment(&id) else { return missing() };
        let left = payment.amount - payment.refunded;
        match payment.status {
            PaymentStatus::Refunded => return bad("The payment has been fully refunded already"),
            PaymentStatus::Authorized | PaymentStatus::Failed => {
                return bad("The payment status should be captured for action to be taken");
            }
            PaymentStatus::Captured => {}
        }
        let amount = call.number("/amount").unwrap_or(left);
        if amount < 1 {
            return bad("The amount must be at least INR 1.00");
        }
        if amount > left {
            return bad("The total refund amount is greater than the refund payment amount");
        }
        let receipt = call.body["receipt"].as_str().map(str::to_owned);
        let notes = call.body.get("notes").cloned().unwrap_or(json!({}));
        let refund = self.give_back(&id, amount, receipt, notes, desk);
        self.refund(&refund).map_or_else(missing, |refund| Reply::new(200, refund.to_json()))
    }

    fn refund(&mut self, id: &str) -> Option<&mut Refund> {
        self.refunds.iter_mut().find(|refund| refund.id == id)
    }

    pub(super) fn give_back(
        &mut self,
        payment: &str,
        amount: i64,
        receipt: Option<String>,
        notes: Value,
        desk: &mut Desk,
    ) -> String {
        let id = ids::mixed("rfnd_", 14);
        let Some(found) = self.payment(payment) else { return id };
        found.refund(amount);
        let (currency, payment) = (found.currency.clone(), payment.to_owned());
        let (key, is_of_hold, created) = (desk.key.clone(), false, desk.now);
        let (own, status) = (id.clone(), "pending");
        self.refunds.push(Refund {
            id: own,
            payment,
            amount,
            currency,
            receipt,
            notes,
            status,
            key,
            is_of_hold,
            created,
        });
        self.tell_of_refund(desk, "refund.created", &id);
        let ended = match desk.refunds {
            RefundCourse::Succeeded => self.end_refund(&id, RefundTurn::Succeed, desk),
            RefundCourse::Failed => self.end_refund(&id, RefundTurn::Fail, desk),
            RefundCourse::Pending => Ok(Value::Null),
        };
        // It is there, and pending.
        drop(ended);
        id
    }

    fn tell_of_refund(&mut self, desk: &mut Desk, kind: &str, id: &str) {
        let Some((refund, payment)) = self.refund(id).map(|refund| (refund.to_json(), refund.payment.clone())) else {
            return;
        };
        if let Some(payment) = self.payment(&payment).map(|payment| payment.to_json()) {
            self.tell(desk, kind, &[("refund", refund), ("payment", payment)]);
        }
    }

    pub(super) fn end_refund(&mut self, id: &str, turn: RefundTurn, desk: &mut Desk) -> Told {
        let refund = self.refund(id).ok_or_else(|| format!("there is no refund {id}"))?;
        let kind = match (refund.status, turn) {
            ("pending", RefundTurn::Succeed) => "refund.processed",
            // A bank may send back what had arrived.
            ("pending" | "processed", RefundTurn::Fail) => "refund.failed",
            (status, RefundTurn::Succeed | RefundTurn::Fail) => return Err(format!("the refund is {status}")),
        };
        refund.status = if turn == RefundTurn::Succeed { "processed" } else { "failed" };
        let (payment, amount) = (refund.payment.clone(), refund.amount);
        if turn == RefundTurn::Fail
            && let Some(payment) = self.payment(&payment)
        {
            payment.refund(-amount);
        }
        self.tell_of_refund(desk, kind, id);
        Ok(self.refund(id).map_or(Value::Null, |refund| refund.to_json()))
    }

    pub(super) fn list_refunds(&mut self, call: &Call, _: &mut Desk) -> Reply {
        if self.payment(call.id()).is_none() {
            return missing();
        }
        let own = self.refunds.iter().filter(|refund| refund.payment == call.id());
        page(call, own.map(|refund| (refund.created.timestamp(), refund.to_json())))
    }

    pub(super) fn get_refund(&mut self, call: &Call, _: &mut Desk) -> Reply {
        self.refund(call.id()).map_or_else(missing, |refund| Reply::new(200, refund.to_json()))
    }

    pub(super) fn get_payment_refund(&mut self, call: &Call, _: &mut Desk) -> Reply {
        let id = call.parts.get(1).map_or("", String::as_str);
        let found = self.refund(id).filter(|refund| refund.payment == call.id());
        found.map_or_else(missing, |refund| Reply::new(200, refund.to_json()))
    }
}
