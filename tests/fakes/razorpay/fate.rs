//! What shoppers do in the Checkout, and what happens without anybody asking through the API.

use serde_json::{Value, json};

use super::{
    Razorpay, exponent,
    objects::{Dispute, PaymentStatus, Refund},
};
use crate::{
    books::Outcome,
    gateway::{Deed, Desk, Event, Shopping, Told, Turn},
    ids,
    money::Amount,
};

impl Razorpay {
    /// One try: an order takes several.
    pub(super) fn stand_before_checkout(&mut self, shopping: &Shopping, desk: &mut Desk) -> Told {
        let order = shopping.payment.as_str();
        if self.order(order).is_none() {
            return Err(format!("there is no order {order}"));
        }
        if self.payments.iter().any(|payment| payment.order == order && payment.is_captured) {
            return Err("the order is paid".to_owned());
        }
        let method = shopping.means.as_deref().unwrap_or("upi");
        let status = match shopping.does {
            Deed::Approve | Deed::Authenticate => PaymentStatus::Authorized,
            Deed::Decline => PaymentStatus::Failed,
            Deed::Abandon => return Ok(json!({ "status": "created", "returns": null })),
        };
        let payment = self.pay(order, method, status, desk).unwrap_or_default();
        let form = json!({
            "razorpay_order_id": order, "razorpay_payment_id": payment,
            "razorpay_signature": self.proof(order, &payment),
        });
        let returns = (status != PaymentStatus::Failed).then(|| json!({ "method": "POST", "form": form }));
        Ok(json!({ "status": status.word(), "payment": payment, "returns": returns }))
    }

    /// A payment by its id or, the last of them, by its order's.
    fn meant(&self, id: &str) -> Result<String, String> {
        let found = self.payments.iter().rev().find(|payment| payment.id == id || payment.order == id);
        found.map(|payment| payment.id.clone()).ok_or_else(|| format!("there is no payment {id}"))
    }

    pub(super) fn take_turn(&mut self, id: &str, event: &Event, desk: &mut Desk) -> Told {
        let id = self.meant(id)?;
        let payment = self.payment(&id).ok_or("there is none")?;
        match (event.event, payment.status) {
            (Turn::Capture, PaymentStatus::Authorized)
            | (Turn::CaptureLate, PaymentStatus::Authorized | PaymentStatus::Failed) => self.take(&id, desk),
            // The bank had said no, and says yes days later.
            (Turn::Settle, PaymentStatus::Failed) => {
                payment.status = PaymentStatus::Authorized;
                self.tell_of_payment(desk, "payment.authorized", &id);
            }
            (Turn::Lapse, PaymentStatus::Authorized) => self.lapse(&id, desk),
            (Turn::Refund, PaymentStatus::Captured) => self.refund_by_hand(&id, event, desk)?,
            (
                Turn::Capture | Turn::CaptureLate | Turn::Settle | Turn::Fail | Turn::Lapse | Turn::Refund,
                status @ (PaymentStatus::Authorized
                | PaymentStatus::Captured
                | PaymentStatus::Refunded
                | PaymentStatus::Failed),
            ) => return Err(format!("the payment is {}", status.word())),
        }
        Ok(self.payment(&id).map_or(Value::Null, |payment| payment.to_json()))
    }

    /// Nobody has captured it in time: it goes back by itself.
    fn lapse(&mut self, id: &str, desk: &Desk) {
        let Some(payment) = self.payment(id) else { return };
        payment.refund(payment.amount);
        let refund = Refund {
            id: ids::mixed("rfnd_", 14),
            payment: id.to_owned(),
            amount: payment.amount,
            currency: payment.currency.clone(),
            receipt: None,
            notes: json!({}),
            status: "processed",
            key: None,
            is_of_hold: true,
            created: desk.now,
        };
        self.refunds.push(refund);
    }

    fn refund_by_hand(&mut self, id: &str, event: &Event, desk: &mut Desk) -> Result<(), String> {
        let payment = self.payment(id).ok_or("there is none")?;
        let left = payment.amount - payment.refunded;
        let asked = event.amount.map(|amount| Amount::of(amount, exponent(&payment.currency)).ok_or("no such amount"));
        let amount = asked.transpose()?.map_or(left, |amount| amount.minor);
        if !(1..=left).contains(&amount) {
            return Err(format!("{left} is left"));
        }
        self.give_back(id, amount, None, json!({}), desk);
        Ok(())
    }

    pub(super) fn dispute_payment(&mut self, id: &str, outcome: Outcome, desk: &mut Desk) -> Told {
        let id = self.meant(id)?;
        let payment = self.payment(&id).filter(|payment| payment.is_captured).ok_or("it was never captured")?;
        let (object, amount, currency) = (payment.to_json(), payment.amount, payment.currency.clone());
        if !self.disputes.iter().any(|dispute| dispute.payment == id) {
            let (own, created) = (ids::mixed("disp_", 14), desk.now);
            let dispute = Dispute { id: own, payment: id.clone(), amount, currency, outcome: Outcome::Open, created };
            let things = [("payment", object.clone()), ("dispute", dispute.to_json())];
            self.disputes.push(dispute);
            self.tell(desk, "payment.dispute.created", &things);
        }
        let found = self.disputes.iter_mut().find(|dispute| dispute.payment == id).ok_or("there is none")?;
        found.outcome = outcome;
        let shown = found.to_json();
        let things = [("payment", object), ("dispute", shown.clone())];
        match outcome {
            Outcome::Open => {}
            Outcome::Won => self.tell(desk, "payment.dispute.won", &things),
            Outcome::Lost => self.tell(desk, "payment.dispute.lost", &things),
        }
        Ok(shown)
    }
}
