//! Payments: read and captured. Shoppers make them.

use super::{
    Razorpay, bad, missing,
    objects::{Payment, PaymentStatus},
    page,
};
use crate::{
    call::{Call, Reply},
    gateway::Desk,
    ids,
};

impl Razorpay {
    pub(super) fn get_payment(&mut self, call: &Call, _: &mut Desk) -> Reply {
        self.payment(call.id()).map_or_else(missing, |payment| Reply::new(200, payment.to_json()))
    }

    pub(super) fn list_payments(&mut self, call: &Call, _: &mut Desk) -> Reply {
        page(call, self.payments.iter().map(|payment| (payment.created.timestamp(), payment.to_json())))
    }

    pub(super) fn capture_payment(&mut self, call: &Call, desk: &mut Desk) -> Reply {
        let id = call.id().to_owned();
        let Some(payment) = self.payment(&id) else { return missing() };
        let (order, amount, currency) = (payment.order.clone(), payment.amount, payment.currency.clone());
        match payment.status {
            PaymentStatus::Captured => return bad("This payment has already been captured"),
            PaymentStatus::Refunded => return bad("The payment has been fully refunded already"),
            PaymentStatus::Failed => {
                return bad("Only payments which have been authorized and not yet captured can be captured");
            }
            PaymentStatus::Authorized => {}
        }
        if call.text("/currency") != currency {
            return bad("The currency does not match the currency of the payment");
        }
        if call.number("/amount") != Some(amount) {
            return bad("Capture amount must be equal to the amount authorized");
        }
        if self.payments.iter().any(|other| other.order == order && other.is_captured) {
            return bad("Payment already done for this order.");
        }
        self.take(&id, desk);
        self.payment(&id).map_or_else(missing, |payment| Reply::new(200, payment.to_json()))
    }

    /// A shopper pays, or tries to; returns the payment's id.
    pub(super) fn pay(&mut self, order: &str, method: &str, status: PaymentStatus, desk: &mut Desk) -> Option<String> {
        let found = self.orders.iter().find(|one| one.id == order)?;
        let (id, is_automatic) = (ids::mixed("pay_", 14), found.is_automatic);
        self.payments.push(Payment {
            id: id.clone(),
            order: order.to_owned(),
            amount: found.amount,
            currency: found.currency.clone(),
            status,
            is_captured: false,
            refunded: 0,
            method: method.to_owned(),
            created: desk.now,
        });
        let kind = if status == PaymentStatus::Failed { "payment.failed" } else { "payment.authorized" };
        self.tell_of_payment(desk, kind, &id);
        if is_automatic && status == PaymentStatus::Authorized {
            self.take(&id, desk);
        }
        Some(id)
    }

    /// It is captured, and its order paid: two webhooks say so.
    pub(super) fn take(&mut self, id: &str, desk: &mut Desk) {
        let Some(payment) = self.payment(id) else { return };
        (payment.status, payment.is_captured) = (PaymentStatus::Captured, true);
        let (object, order) = (payment.to_json(), payment.order.clone());
        self.tell(desk, "payment.captured", &[("payment", object.clone())]);
        if let Some(order) = self.orders.iter().find(|one| one.id == order) {
            let order = self.show_order(order);
            self.tell(desk, "order.paid", &[("payment", object), ("order", order)]);
        }
    }
}
