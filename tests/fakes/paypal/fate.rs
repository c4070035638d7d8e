//! What payers do on PayPal's page, and what happens without anybody asking through the API.

use serde_json::{Value, json};

use super::{
    Paypal,
    capture::{Words, left},
    objects::{Dispute, Funding, OrderStatus},
};
use crate::{
    books::Outcome,
    gateway::{Deed, Desk, Event, Shopping, Told, Turn},
    ids,
    money::Amount,
};

impl Paypal {
    pub(super) fn stand_before_page(&mut self, shopping: &Shopping, desk: &mut Desk) -> Told {
        let base = self.base.clone();
        let funding = funding(shopping)?;
        let order = self.order(&shopping.payment).filter(|order| !order.is_expired);
        let order = order.ok_or_else(|| format!("there is no order {}", shopping.payment))?;
        match order.status {
            OrderStatus::Created | OrderStatus::PayerActionRequired => {}
            OrderStatus::Approved | OrderStatus::Completed => return Err(format!("it is {}", order.status.word())),
        }
        let query = format!("token={}", order.id);
        match shopping.does {
            Deed::Abandon => {
                let returns = Self::returns(order.cancel_url.as_ref(), &query);
                Ok(json!({ "status": order.status.word(), "returns": returns }))
            }
            Deed::Approve | Deed::Authenticate | Deed::Decline => {
                order.funding = funding;
                (order.status, order.updated) = (OrderStatus::Approved, desk.now);
                let shown = order.to_json(&base);
                let returns = Self::returns(order.return_url.as_ref(), &format!("{query}&PayerID=QYR5Z8XDVJNXQ"));
                Self::tell(desk, "CHECKOUT.ORDER.APPROVED", "checkout-order", Some("order"), &shown);
                Ok(json!({ "status": "APPROVED", "returns": returns }))
            }
        }
    }

    pub(super) fn take_turn(&mut self, id: &str, event: &Event, desk: &mut Desk) -> Told {
        let base = self.base.clone();
        let order = self.order(id).ok_or_else(|| format!("there is no order {id}"))?;
        let held = order.authorization.as_ref().map(|held| (held.id.clone(), held.status));
        let capture = order.captures.first().map(|capture| (capture.id.clone(), capture.status));
        let amount = order.amount;
        match (event.event, held, capture) {
            (Turn::Capture, Some((held, "CREATED")), _) => drop(self.take_authorized(&held, amount, true, desk)),
            (Turn::CaptureLate, _, None) => {
                (order.funding, order.is_expired) = (Funding::Balance, false);
                self.take_order(id, desk);
            }
            (Turn::Settle, _, Some((capture, "PENDING"))) => {
                self.restate_capture(id, &capture, "COMPLETED", "PAYMENT.CAPTURE.COMPLETED", desk);
            }
            (Turn::Fail, _, Some((capture, "PENDING"))) => {
                self.restate_capture(id, &capture, "DECLINED", "PAYMENT.CAPTURE.DENIED", desk);
            }
            (Turn::Settle, Some((_, "PENDING")), None) => self.restate_authorization(id, "CREATED"),
            (Turn::Fail, Some((_, "PENDING")), None) => self.restate_authorization(id, "DENIED"),
            (Turn::Lapse, Some((held, "CREATED" | "PENDING")), _) => {
                self.void(&held, desk);
                if let Some(held) = self.order(id).and_then(|order| order.authorization.as_mut()) {
                    held.is_expired = true;
                }
            }
            (Turn::Lapse, None, None) if order.status != OrderStatus::Completed => {
                let was_approved = order.status == OrderStatus::Approved;
                order.is_expired = true;
                let shown = order.to_json(&base);
                let resource = json!({
                    "order_id": id, "purchase_units": shown["purchase_units"],
                    "payment_source": shown["payment_source"], "create_time": shown["create_time"],
                });
                if was_approved {
                    Self::tell(desk, "CHECKOUT.PAYMENT-APPROVAL.REVERSED", "checkout-order", None, &resource);
                }
            }
            (Turn::Refund, _, Some((capture, "COMPLETED" | "PARTIALLY_REFUNDED"))) => {
                self.refund_by_hand(id, &capture, event, desk)?;
            }
            (
                Turn::Capture | Turn::CaptureLate | Turn::Settle | Turn::Fail | Turn::Lapse | Turn::Refund,
                held,
                capture,
            ) => {
                let (held, capture) = (held.map(|(_, status)| status), capture.map(|(_, status)| status));
                return Err(format!("authorization {held:?}, capture {capture:?}"));
            }
        }
        Ok(self.order(id).map_or(Value::Null, |order| order.to_json(&base)))
    }

    fn restate_authorization(&mut self, id: &str, status: &'static str) {
        if let Some(held) = self.order(id).and_then(|order| order.authorization.as_mut()) {
            held.status = status;
        }
    }

    fn restate_capture(&mut self, id: &str, capture: &str, status: &'static str, kind: &str, desk: &mut Desk) {
        let base = self.base.clone();
        let Some(order) = self.order(id) else { return };
        if let Some(capture) = order.captures.iter_mut().find(|one| one.id == capture) {
            (capture.status, capture.why, capture.updated) = (status, None, desk.now);
        }
        if let Some(shown) = order.part(capture, &base) {
            Self::tell(desk, kind, "capture", Some("capture"), &shown);
        }
    }

    fn refund_by_hand(&mut self, id: &str, capture: &str, event: &Event, desk: &mut Desk) -> Result<(), String> {
        let order = self.order(id).ok_or("there is none")?;
        let left = left(order, capture);
        let asked = event.amount.map(|amount| Amount::of(amount, left.exponent).ok_or("no such amount"));
        let amount = asked.transpose()?.unwrap_or(left);
        if !(1..=left.minor).contains(&amount.minor) {
            return Err(format!("{} is left", left.decimal()));
        }
        self.give_back(capture, amount, Words::default(), desk);
        Ok(())
    }

    pub(super) fn dispute_order(&mut self, id: &str, outcome: Outcome, desk: &mut Desk) -> Told {
        let base = self.base.clone();
        let order = self.orders.iter().find(|order| order.id == id).ok_or_else(|| format!("there is no order {id}"))?;
        let capture = order.captures.iter().find(|capture| capture.has_money()).ok_or("it was never captured")?;
        if !self.disputes.iter().any(|dispute| dispute.order == id) {
            let dispute = Dispute {
                id: format!("PP-D-{}", ids::capital(5)),
                order: id.to_owned(),
                capture: capture.id.clone(),
                currency: order.currency.clone(),
                amount: capture.amount,
                outcome: Outcome::Open,
                created: desk.now,
            };
            Self::tell(desk, "CUSTOMER.DISPUTE.CREATED", "dispute", None, &dispute.to_json());
            self.disputes.push(dispute);
        }
        let dispute = self.disputes.iter_mut().find(|dispute| dispute.order == id).ok_or("there is none")?;
        dispute.outcome = outcome;
        let shown = dispute.to_json();
        if outcome != Outcome::Open {
            Self::tell(desk, "CUSTOMER.DISPUTE.RESOLVED", "dispute", None, &shown);
        }
        if outcome == Outcome::Lost {
            let reversal = json!({
                "id": ids::capital(17), "status": "COMPLETED", "amount": shown["dispute_amount"],
                "note_to_payer": "Payment reversed", "links": [{
                    "href": format!("{base}/v2/payments/captures/{}", dispute.capture), "rel": "up", "method": "GET" }],
            });
            Self::tell(desk, "PAYMENT.CAPTURE.REVERSED", "refund", Some("refund"), &reversal);
        }
        Ok(shown)
    }
}

/// What they pay with, by its name; who declines has something that is declined.
fn funding(shopping: &Shopping) -> Result<Funding, String> {
    match (shopping.does, shopping.means.as_deref()) {
        (Deed::Decline, _) | (_, Some("declined")) => Ok(Funding::Declined),
        (_, None | Some("balance")) => Ok(Funding::Balance),
        (_, Some("echeck")) => Ok(Funding::Echeck),
        (_, Some("review")) => Ok(Funding::Review),
        (_, Some("denied")) => Ok(Funding::Denied),
        (_, Some(other)) => Err(format!("nobody pays with {other}")),
    }
}
